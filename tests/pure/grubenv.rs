//! Holds the environment block against the real `grub-editenv`, both ways.

use crate::support::need;
use kubesolo_update::parts::boot::block::Block;
use kubesolo_update::parts::boot::damage::BLOCK_BYTES;
use kubesolo_update::parts::boot::damage::{Damage, Refused};
use kubesolo_update::parts::boot::vars::BootVars;
use kubesolo_update::parts::slot::record::Slot;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

const HEADER: &str = "# GRUB Environment Block\n";

/// Runs grub-editenv. Returns: stdout, or stderr where it fails.
fn editenv(file: &Path, args: &[&OsStr]) -> Result<Vec<u8>, String> {
    let out = Command::new("grub-editenv").arg(file).args(args).output().unwrap();
    if out.status.success() { Ok(out.stdout) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

fn set_by_grub(file: &Path, pairs: &[(&str, &[u8])]) -> Result<(), String> {
    let pairs: Vec<OsString> =
        pairs.iter().map(|(n, v)| OsString::from_vec([n.as_bytes(), b"=", v].concat())).collect();
    let args: Vec<&OsStr> = std::iter::once(OsStr::new("set")).chain(pairs.iter().map(OsStr::new)).collect();
    editenv(file, &args).map(|_| ())
}

fn list(file: &Path) -> Result<Vec<u8>, String> {
    editenv(file, &[OsStr::new("list")])
}

/// What `grub-editenv list` prints for a block.
fn listing(block: &Block) -> Vec<u8> {
    block.variables().flat_map(|(n, v)| [n, b"=", v, b"\n"].concat()).collect()
}

fn padded(body: &[u8]) -> Vec<u8> {
    let mut bytes = [HEADER.as_bytes(), body].concat();
    bytes.resize(BLOCK_BYTES, b'#');
    bytes
}

struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    /// Any bytes that a command line can carry, rich in those that need escapes; never a CR at the end.
    fn value(&mut self) -> Vec<u8> {
        let longest = [4, 30, 200][self.below(3)];
        let mut value: Vec<u8> = (0..self.below(longest))
            .map(|_| match self.below(4) {
                0 => b"\\\n=# \r\t'"[self.below(8)],
                1 => 1 + self.below(255) as u8,
                _ => b'a' + self.below(26) as u8,
            })
            .collect();
        while value.last() == Some(&b'\r') {
            value.pop();
        }
        value
    }
}

const NAMES: [&str; 8] = ["active_slot", "boot_counter", "saved_entry", "next", "a", "aa", "x.y-z", "name with space"];

#[apply(test)]
fn what_grub_creates_and_sets_is_read_and_kept_byte_for_byte() {
    need("grub-editenv");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grubenv");
    editenv(&file, &[OsStr::new("create")]).unwrap();
    assert_eq!(Block::decode(&fs::read(&file).unwrap()).unwrap().variables().count(), 0);
    let odd: &[u8] = b"\\ two\nlines \xff=#";
    let vars: [(&str, &[u8]); 5] =
        [("active_slot", b"B"), ("boot_success", b"0"), ("boot_counter", b"2"), ("odd", odd), ("gone", b"x")];
    set_by_grub(&file, &vars).unwrap();
    editenv(&file, &[OsStr::new("unset"), OsStr::new("gone")]).unwrap();

    let block = Block::decode(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(block.get("odd"), Some(odd));
    assert_eq!(block.get("gone"), None);
    let vars = BootVars::read_whole(&block).unwrap();
    assert_eq!((vars.active_slot, vars.boot_success, vars.boot_counter), (Some(Slot::B), Some(false), Some(2)));

    // grub-editenv's own warning line is not a variable, and not ours to drop.
    let ours = block.encode().unwrap();
    let before = fs::read(&file).unwrap();
    let warning = before.split(|b| *b == b'\n').nth(1).unwrap();
    assert!(warning.starts_with(b"# WARNING"), "this grub-editenv writes none: {warning:?}");
    assert!(ours.windows(warning.len()).any(|w| w == warning));
    fs::write(&file, ours).unwrap();
    assert_eq!(list(&file).unwrap(), listing(&block));
}

#[apply(test)]
fn a_block_we_filled_to_the_last_byte_is_one_that_grub_edits() {
    need("grub-editenv");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grubenv");
    let mut block = Block::fresh(Slot::A);
    block.set("rollback_from", b"B").unwrap();
    block.set("long", b"").unwrap();
    let spare = block.encode().unwrap().iter().rev().take_while(|b| **b == b'#').count();
    block.set("long", &vec![b'\\'; spare / 2]).unwrap();
    let odd = spare % 2;
    block.set("boot_canary", &b"01"[..1 + odd]).unwrap();
    let full = block.encode().unwrap();
    assert_eq!(full.last(), Some(&b'\n'), "not full");
    fs::write(&file, full).unwrap();
    assert_eq!(list(&file).unwrap(), listing(&block));
    set_by_grub(&file, &[("boot_counter", b"2")]).unwrap();
    block.set("boot_counter", b"2").unwrap();
    assert_eq!(Block::decode(&fs::read(&file).unwrap()).unwrap(), block);
    assert!(set_by_grub(&file, &[("boot_counter", b"22")]).unwrap_err().contains("too small"));
    block.set("boot_counter", b"22").unwrap();
    assert_eq!(block.encode(), Err(Refused::NoRoom(1)));
}

#[apply(test)]
fn random_edits_by_grub_are_read_as_made() {
    need("grub-editenv");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grubenv");
    for seed in 0..60 {
        let mut random = Lcg(seed);
        let _ = fs::remove_file(&file);
        editenv(&file, &[OsStr::new("create")]).unwrap();
        let mut model = Block::decode(&fs::read(&file).unwrap()).unwrap();
        for step in 0..8 {
            let name = NAMES[random.below(NAMES.len())];
            let mut next = model.clone();
            let fits = if random.below(5) == 0 {
                next.remove(name);
                editenv(&file, &[OsStr::new("unset"), OsStr::new(name)]).is_ok()
            } else {
                let value = random.value();
                next.set(name, &value).unwrap();
                set_by_grub(&file, &[(name, &value)]).is_ok()
            };
            match next.encode() {
                Err(Refused::FirstSector(_)) => {} // Our own limit, not GRUB's.
                encoded => assert_eq!(encoded.is_ok(), fits, "seed {seed} step {step}"),
            }
            model = if fits { next } else { model };
            let bytes = fs::read(&file).unwrap();
            assert_eq!(Block::decode(&bytes).as_ref(), Ok(&model), "seed {seed} step {step}");
            assert_eq!(Block::decode_lenient(&bytes).as_ref(), Some(&model), "seed {seed} step {step}");
        }
    }
}

#[apply(test)]
fn random_blocks_of_ours_are_listed_and_edited_by_grub() {
    need("grub-editenv");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grubenv");
    let mut written = 0;
    for seed in 1000..1200 {
        let mut random = Lcg(seed);
        let mut block = Block::fresh(Slot::A);
        for _ in 0..random.below(7) {
            block.set(NAMES[2 + random.below(NAMES.len() - 2)], &random.value()).unwrap();
        }
        let Ok(bytes) = block.encode() else { continue };
        written += 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(list(&file).unwrap(), listing(&block), "seed {seed}");
        // GRUB's edit of a boot variable finds that variable, and moves nothing out of the first sector.
        set_by_grub(&file, &[("boot_success", b"0"), ("boot_counter", b"1")]).unwrap();
        block.set("boot_success", b"0").unwrap();
        block.set("boot_counter", b"1").unwrap();
        let edited = fs::read(&file).unwrap();
        assert_eq!(Block::decode(&edited), Ok(block.clone()), "seed {seed}");
        assert_eq!(&edited[512..], &bytes[512..], "seed {seed}");
    }
    assert!(written > 150, "only {written} of 200 fitted: the test is weak");
}

/// Each damage by its name, and what the real tool makes of it.
#[apply(test)]
fn every_damage_is_called_what_it_is() {
    let ok = b"active_slot=A\nboot_success=1\nboot_counter=3\n".as_slice();
    let with = |more: &[u8]| padded(&[ok, more].concat());
    let zero_tail = [HEADER.as_bytes(), ok, &[0; 1024]].concat()[..1024].to_vec();
    let full_escape = [HEADER.as_bytes(), b"x=", &[b'y'; 996], b"\\"].concat();
    let cases: Vec<(&str, Vec<u8>, Damage)> = vec![
        ("empty", vec![], Damage::Empty),
        ("header only", HEADER.into(), Damage::WrongLength(25)),
        ("short", with(b"")[..1023].to_vec(), Damage::WrongLength(1023)),
        ("long", [with(b""), vec![b'#']].concat(), Damage::WrongLength(1025)),
        ("zeros", vec![0; 1024], Damage::Signature),
        ("erased flash", vec![255; 1024], Damage::Signature),
        ("other header", padded(ok).iter().map(u8::to_ascii_lowercase).collect(), Damage::Signature),
        ("all CRLF", String::from_utf8(with(b"")).unwrap().replace('\n', "\r\n").into(), Damage::Crlf(1)),
        ("CRLF in the body", with(b"a=b\r\nc=d\n"), Damage::Crlf(5)),
        ("CRLF after a value of two lines", with(b"m=1\\\n2\na=b\r\n"), Damage::Crlf(7)),
        ("no =", with(b"word\na=b\n"), Damage::NoEquals(5)),
        ("empty line", with(b"\n"), Damage::NoEquals(5)),
        ("name of two lines", with(b"wo\\\nrd=1\n"), Damage::NoEquals(5)),
        ("duplicate", with(b"x=1\nactive_slot=B\n"), Damage::Duplicate(b"active_slot".into())),
        ("duplicate unknown", with(b"x=1\nx=1\n"), Damage::Duplicate(b"x".into())),
        ("escape of a letter", with(b"a=\\b\n"), Damage::BadEscape(5)),
        ("escape at the end", full_escape, Damage::Unterminated(2)),
        ("NUL", with(b"a=b\0c\n"), Damage::Nul(5)),
        ("value without end", with(b"a=b"), Damage::Unterminated(5)),
        ("newline escaped away", with(b"a=b\\\n"), Damage::Unterminated(5)),
        ("zero padding", zero_tail, Damage::Padding(25 + ok.len())),
        ("padding turns to zeros", with(b"#")[..1000].iter().copied().chain([0; 24]).collect(), Damage::Padding(1000)),
        ("word in the padding", with(b"word"), Damage::Padding(25 + ok.len())),
    ];
    for (name, bytes, damage) in cases {
        let got = Block::decode(&bytes);
        assert_eq!(got, Err(damage.clone()), "{name}");
        assert!(!damage.to_string().is_empty());
    }
    assert!(Block::decode(&with(b"")).is_ok());
}

/// Why strictness is no pedantry: what GRUB's code does with blocks that it loads.
#[apply(test)]
fn grub_misreads_or_cannot_save_what_we_call_damaged() {
    need("grub-editenv");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("grubenv");
    fs::write(&file, padded(b"boot_counter=3\nx=\nboot_counter=3\n")).unwrap();
    set_by_grub(&file, &[("boot_counter", b"2")]).unwrap();
    assert_eq!(list(&file).unwrap(), b"boot_counter=2\nx=\nboot_counter=3\n");
    let lenient = Block::decode_lenient(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(lenient.get("boot_counter"), Some(b"3".as_slice()), "the last one is what GRUB loads");

    let mut zero_tail = padded(b"boot_counter=3\n");
    zero_tail[900..].fill(0);
    fs::write(&file, &zero_tail).unwrap();
    assert!(set_by_grub(&file, &[("boot_counter", b"2")]).is_err());
}

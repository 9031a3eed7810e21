//! A repair ends in a sound block, whatever was there: held by the real `grub-editenv`, which lists and edits it.

use crate::support::need;
use kubesolo_update::parts::boot::block::Block;
use kubesolo_update::parts::boot::damage::BLOCK_BYTES;
use kubesolo_update::parts::boot::env_copy::EnvCopy;
use kubesolo_update::parts::boot::env_files::EnvFiles;
use kubesolo_update::parts::boot::salvage::Known;
use kubesolo_update::parts::boot::vars::BootVars;
use kubesolo_update::parts::slot::record::Slot;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const SIGNATURE: &str = "# GRUB Environment Block\n";
const LIVE: &str = "active_slot=A\nboot_success=1\nboot_counter=3\nrollback_from=\nboot_canary=1\n";
const CASES: u32 = 1500;

fn filled(body: &[u8], padding: u8) -> Vec<u8> {
    let mut bytes = [SIGNATURE.as_bytes(), body].concat();
    bytes.resize(BLOCK_BYTES, padding);
    bytes
}

fn padded(body: &str) -> Vec<u8> {
    filled(body.as_bytes(), b'#')
}

/// A good block with foreign lines behind the boot variables, or in front of them.
fn with(more: &str) -> Vec<u8> {
    padded(&format!("{LIVE}{more}"))
}

fn before(line: &str) -> Vec<u8> {
    padded(&format!("{line}{LIVE}"))
}

fn editenv(file: &Path, args: &[&str]) -> String {
    let out = Command::new("grub-editenv").arg(file).args(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// What a real grub-editenv lists; lines that hold no `=` are the rest of a value.
fn listed(file: &Path) -> BTreeMap<String, String> {
    let text = editenv(file, &["list"]);
    text.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect()
}

/// Two copies in a directory of their own; `None`: no such file.
fn copies(main: Option<&[u8]>, backup: Option<&[u8]>) -> (tempfile::TempDir, EnvFiles) {
    // In memory where that can be had: nothing here is about a disk, and each write is synced.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let files = EnvFiles::new(dir.path());
    for (copy, bytes) in [(EnvCopy::Main, main), (EnvCopy::Backup, backup)] {
        if let Some(bytes) = bytes {
            fs::write(files.path(copy), bytes).unwrap();
        }
    }
    (dir, files)
}

/// Repairs, and holds the result: two equal, sound blocks of 1,024 bytes in which GRUB can end a trial, and the agent begin
/// one. What is said to be kept are all lines of others that are in it, unless they are a good copy's.
/// Returns: what was left out.
fn repair(files: &EnvFiles, running: Option<Slot>) -> Vec<String> {
    repair_with(files, Known { running, proven: Slot::A, on_trial: None, left: None })
}

fn repair_with(files: &EnvFiles, known: Known) -> Vec<String> {
    let mended = files.mended(known).unwrap();
    let (was_usable, kept) = (files.load().usable().is_ok(), mended.kept.clone());
    files.repair(&mended.block).unwrap();
    let loaded = files.load();
    assert!(loaded.is_sound(), "{loaded:?}");
    let written = mended.block.encode().unwrap();
    assert!(loaded.block.is_some_and(|block| block.encode() == Ok(written)), "something else was written");
    assert!(files.mended(known).unwrap().block.encode() == Ok(written), "a second repair changes it again");
    let [bytes, backup] = [EnvCopy::Main, EnvCopy::Backup].map(|copy| fs::read(files.path(copy)).unwrap());
    assert!(bytes == backup && bytes.len() == BLOCK_BYTES);
    // GRUB's own part of a trial that fails, by GRUB's own code.
    let (_dir, others) = copies(Some(&bytes), None);
    let other = others.path(EnvCopy::Main);
    let list = listed(&other);
    for (name, value) in mended.block.variables() {
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        let is_ours = LIVE.contains(&format!("{name}="));
        assert!(is_ours || was_usable || kept.len() > 8 || kept.contains(&format!("`{name}`")), "{name}: {kept:?}");
        if !format!("{name}{value}").contains('\n') {
            assert_eq!(list.get(&*name).map(String::as_str), Some(&*value), "{name}");
        }
    }
    editenv(&other, &["set", "active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    let ended = Block::decode(&fs::read(&other).unwrap()).unwrap();
    assert_eq!(BootVars::read_whole(&ended).unwrap().rollback_from, Some(Slot::B));
    let (_dir, trial) = copies(Some(&bytes), None);
    let mut block = mended.block;
    block.activate(Slot::B);
    assert_eq!(trial.save(&block).unwrap().backup, None);
    mended.left_out
}

type Pairs = &'static [(&'static str, &'static str)];
type Damaged = (&'static str, Vec<u8>, Pairs, &'static [&'static str]);

/// Name; the copy, used for both; what grub-editenv lists of it after the repair, beside slot A active and confirmed; what is
/// said to be left out. A line more is a case more.
fn damages() -> Vec<Damaged> {
    const CANARY: &[(&str, &str)] = &[("boot_canary", "1")];
    const X: &[(&str, &str)] = &[("boot_canary", "1"), ("x", "1")];
    let grown = |bytes: usize| [with("x=1\n"), vec![b'#'; bytes - 1024]].concat();
    let crlf = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace('\n', "\r\n").into_bytes();
    let zeros = [SIGNATURE, LIVE, "x=1\n"].concat();
    vec![
        ("LF behind it", [with("x=1\n"), b"\n".to_vec()].concat(), X, &[]),
        ("CR LF behind it", [with("x=1\n"), b"\r\n".to_vec()].concat(), X, &[]),
        ("two LF behind it", [with("x=1\n"), b"\n\n".to_vec()].concat(), X, &[]),
        ("1,023 bytes and LF", [&with("x=1\n")[..1023], b"\n"].concat(), X, &[]),
        ("1,023 bytes", with("x=1\n")[..1023].to_vec(), X, &[]),
        ("a variable behind the padding", [with(""), b"\nx=1\n".to_vec()].concat(), X, &[]),
        ("a variable in the padding", [with(""), b"x=1\n".to_vec()].concat(), CANARY, &["`# x=1`"]),
        ("a word behind the padding", [with("x=1\n"), b"\nhello\n".to_vec()].concat(), X, &["`hello`"]),
        ("grown to 2,048", grown(2048), X, &[]),
        ("grown to 4,096", grown(4096), X, &[]),
        ("grown to 9,000", grown(9000), X, &[]),
        ("a word in front", before("garbage\n"), CANARY, &["line 2 (`garbage`)"]),
        ("a word that ends in a backslash", before("garbage\\\n"), CANARY, &["garbage"]),
        ("LF behind the signature", before("\n"), CANARY, &[]),
        ("blanks behind the signature", before("  \t\n"), CANARY, &[]),
        ("indented", padded(&LIVE.replace("boot_", "  boot_")), CANARY, &[]),
        ("blanks around =", padded(&LIVE.replace('=', " = ")), CANARY, &[]),
        ("BOM", [b"\xef\xbb\xbf".as_slice(), &with("x=1\n")].concat(), X, &[]),
        ("BOM, cut to length", [b"\xef\xbb\xbf".as_slice(), &with("x=1\n")[..1021]].concat(), X, &[]),
        ("CR LF", crlf(with("x=1\n")), X, &[]),
        ("CR LF in the body", [SIGNATURE.as_bytes(), &crlf(with("x=1\n"))[26..]].concat(), X, &[]),
        ("zeros for padding", filled(&zeros.as_bytes()[25..], 0), X, &[]),
        ("blanks for padding", filled(&zeros.as_bytes()[25..], b' '), X, &[]),
        ("erased flash for padding", filled(&zeros.as_bytes()[25..], 0xff), X, &[]),
        ("no padding", zeros.into_bytes(), X, &[]),
        ("two signatures", [SIGNATURE.as_bytes(), &with("x=1\n")].concat(), X, &[]),
        ("no signature", with("x=1\n")[25..].to_vec(), X, &[]),
        ("another signature", [b"# GRUB 2\n".as_slice(), &with("x=1\n")[25..]].concat(), X, &[]),
        ("no final newline", with("x=1"), X, &[]),
        ("no final newline behind a boot variable", padded(LIVE.trim_end()), CANARY, &[]),
        ("twice", with("x=0\nx=1\n"), X, &["an earlier `x`"]),
        ("a boot variable twice", with("boot_canary=1\n"), CANARY, &["an earlier `boot_canary`"]),
        ("twice, the last is no good", with("boot_canary=7\n"), CANARY, &["line 7 (`boot_canary=7`)"]),
        ("padding between, then a bad line", with("###\n#\nhello\nx=1\n"), X, &["line 9 (`hello`)"]),
        ("an escape of a letter", with("y=\\b\nx=1\n"), &[("boot_canary", "1"), ("y", "b"), ("x", "1")], &[]),
        ("NUL in a value", with("y=1\0z\nx=1\n"), &[("y", "1"), ("x", "1")], &[]),
        ("a value that makes no sense", padded(&LIVE.replace("counter=3", "counter=9")), CANARY, &["counter=9"]),
        ("a variable that is not set", padded(&LIVE.replace("boot_counter=3\n", "")), CANARY, &[]),
        ("nothing but variables of others", with(&format!("y={}\n", "z".repeat(923))), CANARY, &["`y`"]),
        ("much of others, and little", with(&format!("y={}\nx=1\n", "z".repeat(919))), CANARY, &["`x`"]),
        ("0 bytes", vec![], &[("boot_canary", "0")], &[]),
        ("1 byte", b"x".to_vec(), &[("boot_canary", "0")], &["line 1 (`x`)"]),
        ("the signature alone", SIGNATURE.into(), &[("boot_canary", "0")], &[]),
        ("zeros", vec![0; 1024], &[("boot_canary", "0")], &[]),
        ("erased flash", vec![255; 1024], &[("boot_canary", "0")], &[]),
        ("padding alone", vec![b'#'; 1024], &[("boot_canary", "0")], &[]),
        ("newlines", vec![b'\n'; 1024], &[("boot_canary", "0")], &[]),
        (
            "text",
            b"an hour ago\nnothing = here\n".to_vec(),
            &[("boot_canary", "0")],
            &["an hour ago", "nothing = here"],
        ),
        (
            "text of a configuration",
            b"# mine\nnothing=here and there\n".to_vec(),
            &[("nothing", "here and there")],
            &[],
        ),
        ("an escape sequence", before("bad\nx=\x1b[31m\n"), CANARY, &["bad", "line 3 (`x="]),
        ("flow control in a name", before("bad\n\x13x=1\n"), CANARY, &["bad", "line 3 (", "x=1"]),
        (
            "bytes that are no UTF-8",
            filled(&[b"bad\nx=\xe4\n", LIVE.as_bytes()].concat(), b'#'),
            CANARY,
            &["bad", "line 3 (`x="],
        ),
        (
            "a comment of bytes",
            filled(&[b"bad\n# \x8f\x1b\n", LIVE.as_bytes()].concat(), b'#'),
            CANARY,
            &["bad", "line 3 (`# "],
        ),
        ("another direction", before("bad\nx=\u{202e}1\n"), CANARY, &["bad", "line 3 (`x="]),
        ("a name of other letters", before("bad\nx-y=1\n"), CANARY, &["bad", "line 3 (`x-y=1`)"]),
        ("no name", before("bad\n=1\n"), CANARY, &["bad", "line 3 (`=1`)"]),
        ("a tab, and letters of others", with("y=\u{e4}\t1\n\n"), &[("y", "\u{e4}\t1")], &[]),
    ]
}

#[apply(test)]
fn whatever_was_there_a_repair_ends_in_a_sound_block() {
    need("grub-editenv");
    for (name, bytes, wanted, said) in damages() {
        println!("{name}");
        let (_dir, files) = copies(Some(&bytes), Some(&bytes));
        assert!(!files.load().is_sound(), "{name}: nothing is wrong with it");
        let left_out = repair(&files, Some(Slot::A)).join(", ");
        let list = listed(&files.path(EnvCopy::Main));
        for (variable, value) in
            [("active_slot", "A"), ("boot_success", "1"), ("boot_counter", "3")].iter().chain(wanted)
        {
            assert_eq!(list.get(*variable).map(String::as_str), Some(*value), "{name}: {variable} in {list:?}");
        }
        said.iter().for_each(|word| assert!(left_out.contains(word), "{name}: '{word}' is missing in: {left_out}"));
        assert_eq!(left_out.is_empty(), said.is_empty(), "{name}: {left_out}");
    }
}

/// Noise has lines with a `=` in them: nothing that a terminal would act on is in the block afterwards.
#[apply(test)]
fn of_noise_nothing_is_kept_that_a_terminal_acts_on() {
    need("grub-editenv");
    let mut seen = 0;
    for seed in 0..60 {
        let mut main = crate::support::disk::noise(seed, BLOCK_BYTES);
        // Behind the signature as well.
        if seed % 3 == 0 {
            main[..SIGNATURE.len()].copy_from_slice(SIGNATURE.as_bytes());
        }
        seen += u32::from(main.split(|b| *b == b'\n').any(|line| line.contains(&b'=')));
        let (_dir, files) = copies(Some(&main), (seed % 2 == 0).then_some(&main));
        let left_out = repair(&files, Some(Slot::A));
        assert!(left_out.iter().all(|piece| !piece.contains(char::is_control)), "{left_out:?}");
        let written = fs::read(files.path(EnvCopy::Main)).unwrap();
        let text = String::from_utf8(written).unwrap_or_else(|e| panic!("{seed}: {e}"));
        assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{seed}: {text:?}");
    }
    assert!(seen > 50, "{seen}: the noise is too tame");
}

/// One block where the other copy is another; which variables win, and whose other lines.
#[apply(test)]
fn the_copy_in_which_a_trial_can_be_activated_wins() {
    need("grub-editenv");
    let trial =
        LIVE.replace("active_slot=A\nboot_success=1\nboot_counter=3", "active_slot=B\nboot_success=0\nboot_counter=2");
    let filler =
        |name: &str, more: usize| format!("{name}={}\n", "z".repeat(1024 - 25 - LIVE.len() - name.len() - 2 - more));
    let full = padded(&format!("{trial}{}", filler("full", 0)));
    assert_eq!(full.last(), Some(&b'\n'));
    type Case<'a> = (&'a str, Vec<u8>, Vec<u8>, [&'a str; 3], &'a [&'a str], &'a [&'a str]);
    let cases: [Case; 10] = [
        (
            "main ends in LF",
            [&padded(&format!("{trial}x=1\n"))[..1023], b"\n"].concat(),
            with("y=1\n"),
            ["B", "0", "2"],
            &["x"],
            &["y"],
        ),
        ("main is full, a trial is newer there", full.clone(), with("y=1\n"), ["B", "0", "2"], &["y"], &["full"]),
        ("backup is full", with("y=1\n"), full.clone(), ["A", "1", "3"], &["y"], &["full"]),
        ("both are full", full.clone(), full.clone(), ["B", "0", "2"], &[], &["full"]),
        ("main is full, backup is damaged", full.clone(), before("bad\n"), ["B", "0", "2"], &[], &["full"]),
        (
            "main is damaged, backup is good",
            [full.clone(), b"\n".to_vec()].concat(),
            with("y=1\n"),
            ["A", "1", "3"],
            &["y"],
            &[],
        ),
        (
            "both are damaged, main is full",
            [full, b"\n".to_vec()].concat(),
            before("y=1\nbad\n"),
            ["B", "0", "2"],
            &["y"],
            &["bad", "full"],
        ),
        (
            "main is something else, backup says no slot",
            b"\x81\xfex=1\n\x90\x90".repeat(128),
            padded("y=plant 7\nactive_slot=Q\n"),
            ["A", "1", "3"],
            &["y"],
            &["active_slot=Q", "all of grubenv, which is not an environment block"],
        ),
        ("main says nothing", padded("bad\n"), before("y=1\nbad\n"), ["A", "1", "3"], &["y"], &["bad"]),
        (
            "main is half",
            padded("active_slot=B\nboot_success=0\nx=1\n"),
            before("y=1\nbad\n"),
            ["A", "1", "3"],
            &["y"],
            &["bad", "x"],
        ),
    ];
    for (name, main, backup, values, kept, left_out) in cases {
        println!("{name}");
        let (_dir, files) = copies(Some(&main), Some(&backup));
        assert!(!files.load().is_sound(), "{name}");
        let running = Slot::parse(values[0]);
        let said = repair(&files, running);
        let list = listed(&files.path(EnvCopy::Main));
        assert_eq!(["active_slot", "boot_success", "boot_counter"].map(|n| list[n].as_str()), values, "{name}");
        for variable in ["x", "y", "full"] {
            assert_eq!(list.contains_key(variable), kept.contains(&variable), "{name}: {variable}");
        }
        let words = left_out.iter().all(|word| said.iter().any(|piece| piece.contains(word)));
        assert!(words && said.len() == left_out.len(), "{name}: {said:?}");
    }
}

/// What is active after a repair of two copies of which neither is good, where a machine does not say what it runs.
#[apply(test)]
fn a_machine_that_no_slot_booted_is_repaired_as_well() {
    need("grub-editenv");
    let trial = "bad\nactive_slot=B\nboot_success=0\nboot_counter=1\nrollback_from=\nboot_canary=1\n";
    for (bytes, running, values) in [
        (padded(trial), None, ["B", "0", "1"]),
        (padded(trial), Some(Slot::B), ["B", "0", "1"]),
        (padded(trial), Some(Slot::A), ["A", "1", "1"]),
        (padded(&trial.replace("counter=1", "counter=x")), None, ["B", "0", "3"]),
        (padded(&trial.replace("slot=B", "slot=C")), None, ["A", "1", "1"]),
        (padded(&trial.replace("success=0", "success=")), None, ["B", "1", "1"]),
        (Vec::new(), None, ["A", "1", "3"]),
    ] {
        let (_dir, files) = copies(Some(&bytes), None);
        repair(&files, running);
        let list = listed(&files.path(EnvCopy::Main));
        assert_eq!(["active_slot", "boot_success", "boot_counter"].map(|n| list[n].as_str()), values);
    }
}

/// A trial is not confirmed, and who rolled back is not forgotten, where the copies or the state tell it; what is dropped is
/// said. Both copies; what the state says is on trial, and was left; what runs; the result; what is left out. `B012`: active
/// slot, `boot_success`, `boot_counter`, and whom GRUB gave up, if anybody. A line more is a case more.
#[apply(test)]
fn a_repair_confirms_no_trial_and_forgets_no_rollback() {
    need("grub-editenv");
    let (none, a, b) = (None, Some(Slot::A), Some(Slot::B));
    let block = |values: &str| {
        let [active, success, counter] = [0, 1, 2].map(|at| &values[at..=at]);
        let mark = &values[3..];
        format!(
            "active_slot={active}\nboot_success={success}\nboot_counter={counter}\nrollback_from={mark}\nboot_canary=1\n"
        )
    };
    type Harms = fn(String) -> Vec<u8>;
    fn lf(body: String) -> Vec<u8> {
        [padded(&body), b"\n".to_vec()].concat()
    }
    let no_success: Harms = |body| lf(body.replace("success", "sXccess"));
    let no_slot: Harms = |body| lf(body.replace("active_slot", "active_sXot"));
    let no_mark: Harms = |body| lf(body.replace("back_from", "back_frXm"));
    let zeros: Harms = |_| vec![0; 1024];
    for (name, harm, values, on_trial, left, running, wanted, said) in [
        ("activated, not booted yet", lf as Harms, "B03", b, none, a, "B03", ""),
        ("the same, in the middle of its boots", lf, "B01", b, none, a, "B01", ""),
        ("the same, nobody else says so", lf, "B03", none, none, a, "A13", "the trial of slot B"),
        ("the same, cannot be read", no_success, "B03", b, none, a, "A13", "`active_slot=B`"),
        ("the same, the slot cannot be read", no_slot, "B03", b, none, a, "B03", ""),
        (
            "the same, nothing can be read",
            zeros,
            "B03",
            b,
            none,
            a,
            "A13",
            "the trial of slot B, of which the state tells",
        ),
        ("GRUB went back", lf, "A10B", b, none, a, "A10B", ""),
        ("the same, nobody else says so", lf, "A10B", none, none, a, "A10B", ""),
        ("the same, nothing runs", lf, "A10B", none, none, none, "A10B", ""),
        ("the same, its success cannot be read", no_success, "A10B", b, none, a, "A10B", ""),
        ("the same, the slot cannot be read", no_slot, "A10B", b, none, a, "A10B", ""),
        ("the same, whom it gave up cannot be read", no_mark, "A10B", b, none, a, "A10", ""),
        ("a mark that contradicts", lf, "B13B", none, none, a, "A13", "`active_slot=B`, `rollback_from=B`"),
        ("a mark of the active slot", lf, "A13A", none, none, a, "A13", "`rollback_from=A`"),
        ("given up, and runs", lf, "A10B", none, none, b, "A10B", ""),
        ("given up, and runs; the slot cannot be read", no_slot, "A10B", b, none, b, "A03B", ""),
        ("on trial", lf, "B02", b, none, b, "B02", ""),
        ("on trial, its success cannot be read", no_success, "B02", b, none, b, "B02", ""),
        ("on trial, the slot cannot be read", no_slot, "B02", b, none, b, "B03", ""),
        ("on trial, nothing can be read", zeros, "B02", b, none, b, "B03", ""),
        ("on trial, nothing can be read, nothing runs", zeros, "B02", a, none, none, "A03", ""),
        ("on trial after a rollback", lf, "A02", none, none, a, "A02", ""),
        ("confirmed, and not recorded", lf, "B12", b, none, b, "B12", ""),
        ("left by hand, not restarted", lf, "A12", none, b, b, "A12", ""),
        ("the same, on trial", lf, "A03", none, b, b, "A03", ""),
        ("the same, nothing can be read", zeros, "A12", none, b, b, "A03", ""),
        ("left, and activated again", lf, "B03", none, b, b, "B03", ""),
        ("nothing can be read", zeros, "A13", none, none, a, "A13", ""),
        ("the other one is confirmed", lf, "B13", none, none, a, "A13", "`active_slot=B`"),
    ] {
        println!("{name}");
        let bytes = harm(block(values));
        let (_dir, files) = copies(Some(&bytes), Some(&bytes));
        assert!(!files.load().is_sound(), "{name}");
        let left_out = repair_with(&files, Known { running, proven: Slot::A, on_trial, left }).join(", ");
        let list = listed(&files.path(EnvCopy::Main));
        let found = ["active_slot", "boot_success", "boot_counter", "rollback_from"].map(|n| list[n].as_str()).concat();
        assert_eq!(found, wanted, "{name}: {left_out}");
        assert_eq!(left_out, said, "{name}");
    }
}

/// One thing that happens to a block.
#[derive(Clone, Debug)]
enum Harm {
    Insert(usize, Vec<u8>),
    Overwrite(usize, Vec<u8>),
    Delete(usize, usize),
    Cut(usize),
    Grow(usize, u8),
    Line(usize, Vec<u8>),
    Crlf,
    Twice(usize),
}

impl Harm {
    fn happen(&self, bytes: &mut Vec<u8>) {
        let at = |n: usize, bytes: &[u8]| n.min(bytes.len());
        match self {
            Harm::Insert(n, new) => drop(bytes.splice(at(*n, bytes)..at(*n, bytes), new.clone())),
            Harm::Overwrite(n, new) => {
                let (from, to) = (at(*n, bytes), at(n + new.len(), bytes));
                bytes.splice(from..to, new.clone());
            }
            Harm::Delete(n, count) => drop(bytes.drain(at(*n, bytes)..at(n + count, bytes))),
            Harm::Cut(n) => bytes.truncate(*n),
            Harm::Grow(n, byte) => bytes.resize(bytes.len() + n, *byte),
            Harm::Line(n, new) => {
                let starts: Vec<usize> =
                    bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
                let start = starts.get(n % (starts.len() + 1)).copied().unwrap_or_default();
                bytes.splice(start..start, [new.as_slice(), b"\n"].concat());
            }
            Harm::Crlf => *bytes = String::from_utf8_lossy(bytes).replace('\n', "\r\n").into_bytes(),
            Harm::Twice(n) => {
                let again = bytes[..at(*n, bytes)].to_vec();
                bytes.splice(0..0, again);
            }
        }
    }
}

fn harm() -> impl Strategy<Value = Harm> {
    let place = || prop_oneof![4 => 0..160usize, 1 => 0..1100usize];
    let bytes =
        || vec(prop_oneof![3 => proptest::sample::select(b"\\\n=# \r\0AB013x\xff".to_vec()), 1 => any::<u8>()], 1..24);
    prop_oneof![
        3 => (place(), bytes()).prop_map(|(n, new)| Harm::Insert(n, new)),
        3 => (place(), bytes()).prop_map(|(n, new)| Harm::Overwrite(n, new)),
        2 => (place(), 1..60usize).prop_map(|(n, count)| Harm::Delete(n, count)),
        1 => (0..1100usize).prop_map(Harm::Cut),
        1 => (1..3200usize, proptest::sample::select(vec![b'#', 0, b' ', b'\n', 0xff])).prop_map(|(n, b)| Harm::Grow(n, b)),
        2 => (0..9usize, bytes()).prop_map(|(n, new)| Harm::Line(n, new)),
        1 => Just(Harm::Crlf),
        1 => place().prop_map(Harm::Twice),
    ]
}

/// The kinds of the table, mixed: a block of ours, of GRUB's, or nothing of the sort, and harm to either copy or both.
#[apply(test)]
fn random_damage_is_always_repaired() {
    need("grub-editenv");
    let body = proptest::sample::select(vec![
        LIVE.to_string(),
        format!("# WARNING: Do not edit\n{LIVE}saved_entry=a\\\\b\\\nc\nx=1\n"),
        format!("{LIVE}y={}\n", "z".repeat(900)),
        format!("x={}\n{LIVE}", "z".repeat(500)),
        String::new(),
    ]);
    let lives = (body, vec(harm(), 1..5), vec(harm(), 0..4), any::<bool>(), proptest::option::of(any::<bool>()));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[23; 32]));
    let damaged = std::cell::Cell::new(0);
    let held = runner.run(&lives, |(body, main_harm, backup_harm, is_same, running)| {
        let mut main = padded(&body);
        let mut backup = main.clone();
        main_harm.iter().for_each(|harm| harm.happen(&mut main));
        match is_same {
            true => backup.clone_from(&main),
            false => backup_harm.iter().for_each(|harm| harm.happen(&mut backup)),
        }
        let (_dir, files) = copies(Some(&main), Some(&backup));
        let loaded = files.load();
        damaged.set(damaged.get() + u32::from(loaded.block.is_none()));
        let running = running.map(|is_a| if is_a { Slot::A } else { Slot::B });
        repair(&files, running);
        let after = files.load().usable().map(|(_, vars)| vars).unwrap();
        match loaded.usable() {
            // What counted before counts after it.
            Ok((_, vars)) => assert_eq!(after, vars),
            Err(_) => assert!(running.is_none() || after.active_slot == running, "{after:?}"),
        }
        Ok(())
    });
    held.unwrap();
    let damaged = damaged.get();
    assert!(damaged > CASES / 3, "only {damaged} of {CASES} were damaged in both copies: the test is weak");
}

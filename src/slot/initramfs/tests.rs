//! The check of output of real tools, in pieces of every size. tests/support/initramfs_table.rs has the shapes,
//! tests/vm/initramfs.rs asks real kernels.

use super::*;
use std::process::Command;

/// Output of a shell command, in a directory with files `a` and `b` and a link `l`.
fn made(script: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), noise(70_001)).unwrap();
    std::fs::write(dir.path().join("b"), "b\n").unwrap();
    std::os::unix::fs::symlink("a", dir.path().join("l")).unwrap();
    let pack = "pack() { printf '%s\\n' \"$@\" | cpio -o -H newc --quiet; }";
    let out = Command::new("sh").args(["-c", &format!("{pack}\n{script}")]).current_dir(dir.path()).output().unwrap();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn noise(length: usize) -> Vec<u8> {
    let mut seed = 7u32;
    (0..length)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .collect()
}

/// Returns: the names of the entries seen.
fn check(bytes: &[u8], step: usize) -> Result<Vec<String>, String> {
    let (mut judge, mut names) = (Judge::default(), Vec::new());
    let mut see = |seen: &Seen<'_>| match seen {
        Seen::Entry(entry) => names.push(String::from_utf8_lossy(entry.name).into_owned()),
        Seen::Content(_) => {}
        Seen::Trailer => names.push("-".into()),
    };
    bytes.chunks(step).try_for_each(|piece| judge.update(piece, &mut see))?;
    judge.finish()?;
    Ok(names)
}

#[test]
fn pieces_of_every_size_are_judged_alike() {
    let whole = made("pack a b; pack l a | gzip -n; head -c 509 /dev/zero; pack b l | gzip -n; head -c 3 /dev/zero");
    let names = ["a", "b", "-", "l", "a", "-", "b", "l", "-"];
    for step in [1, 2, 3, 7, 109, 110, 111, 4096, 1 << 20] {
        assert_eq!(check(&whole, step).unwrap(), names, "{step}");
    }
}

#[test]
fn every_cut_is_seen() {
    let whole = made("pack b l; head -c 300 a >c; pack c | gzip -n");
    let plain = whole.windows(2).position(|two| two == [0x1f, 0x8b]).unwrap();
    for end in (0..whole.len()).filter(|end| *end != whole.len()) {
        for step in [1, 1000] {
            assert!(check(&whole[..end], step).is_err(), "cut at {end} of {plain} and {}, step {step}", whole.len());
        }
    }
    check(&whole, 1000).unwrap();
}

#[test]
fn every_broken_byte_past_the_header_is_seen() {
    let whole = made("head -c 300 a >c; pack c | gzip -n");
    for at in 10..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 0xff; // all bits: some of a byte may be padding
        assert!(check(&broken, 1000).is_err(), "byte {at}");
    }
}

/// Each with its own checksum: members are cheap to set up, and their number is not limited.
#[test]
fn members_without_number() {
    let one = made("pack b | gzip -n");
    let names = check(&one.repeat(20_000), 128 * 1024).unwrap();
    assert_eq!(names.len(), 40_000);
}

#[test]
fn other_content_is_refused() {
    for (bytes, words) in [
        (&b""[..], "it is empty"),
        (&[0; 100], "it is empty"),
        (b"070701 not an archive at all", "within the header"),
        (b"070707000000", "old kind"),
        (b"\x28\xb5\x2f\xfd....", "it is zstd, machines take gzip: unpack that part and compress it with gzip"),
        (b"\xfd7zXZ\0..", "it is xz"),
        (b"\x1f\x9e\x08.......", "neither gzip nor cpio"),
        (b"\x1f\x8b\x07.......", "neither gzip nor cpio"),
        (b"hsqs....", "it is squashfs"),
        (b"\x1f", "cut in its header"),
    ] {
        for step in [1, 100] {
            let why = check(bytes, step).unwrap_err();
            assert!(why.contains(words), "{bytes:?}, step {step}: {why}");
        }
    }
}

/// For every byte offset within the alignment: the kernel looks at the offset in the whole.
#[test]
fn alignment_counts_from_the_beginning_of_the_whole() {
    let (plain, packed) = (made("pack b"), made("pack b | gzip -n"));
    for zeros in 0..8 {
        let behind = [&packed[..], &vec![0; zeros], &plain].concat();
        assert_eq!(check(&behind, 5).is_ok(), (packed.len() + zeros).is_multiple_of(4), "{zeros}");
        let before = [&plain[..], &vec![0; zeros], &packed].concat();
        assert_eq!(check(&before, 5).is_ok(), zeros.is_multiple_of(4), "{zeros}");
    }
}

/// One rule for all fields: only hexadecimal digits are accepted, whatever other parsers allow.
#[test]
fn numbers_are_eight_hexadecimal_digits() {
    let whole = made("pack b");
    let packed = made("pack l | gzip -n");
    for at in (6..110).step_by(8) {
        for digits in ["0x000001", "+0000001", " 0000001", "0000000\0", "0000000g"] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(digits.as_bytes());
            let why = check(&[&bytes[..], &packed].concat(), 64).unwrap_err();
            assert!(why.contains("hexadecimal"), "{at}, {digits}: {why}");
        }
    }
}

#[test]
fn a_list_can_be_read_by_a_shell() {
    let archive = made(
        "touch 'a b' \"$(printf 't\\tn')\" ä 'b\\s'; ln -s 'to b' s; pack 'a b' \"$(printf 't\\tn')\" ä 'b\\s' s | gzip",
    );
    let mut tree = Tree::default();
    Judge::default().update(&archive, &mut |seen| tree.see(seen)).unwrap();
    let paths: Vec<String> = tree.list().lines().filter(|l| l.starts_with(['f', 'l'])).map(str::to_string).collect();
    let mode = paths[0].split('\t').nth(1).unwrap().to_string();
    let file = |path: &str| format!("f\t{mode}\t1\t{path}");
    let link = "l\t777\t1\t/s\tto b".to_string();
    assert_eq!(paths, [file("/a b"), file("/b\\134s"), link, file("/t\\011n"), file("/\\303\\244")]);
    assert_eq!(tree.left_out, Vec::<String>::new());
}

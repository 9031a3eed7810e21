//! Tests of `archive.rs` on handwritten archives; real ones, of GNU tar, busybox, Python and skopeo, are in
//! tests/registry/registries.rs.

use super::*;
use crate::source::tar::{MAX_EXTENDED, number};
use std::io::Write;

fn octal(value: u64, width: usize) -> Vec<u8> {
    format!("{value:0width$o}\0", width = width - 1).into_bytes()
}

/// One header with its checksum.
fn header(name: &str, size: &[u8], kind: u8) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..124 + size.len()].copy_from_slice(size);
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    block[148..156].copy_from_slice(b"        ");
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, &octal(content.len() as u64, 12), kind);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while format!("{length}{rest}").len() != length {
        length += 1;
    }
    member("pax", b'x', format!("{length}{rest}").as_bytes())
}

fn scan(bytes: &[u8]) -> Result<(tempfile::NamedTempFile, Archive)> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let archive = Archive::scan(file.path(), File::open(file.path()).unwrap())?;
    Ok((file, archive))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(archive: &Archive, name: &str, from: u64) -> Vec<u8> {
    let mut out = Vec::new();
    archive.open(name, from).unwrap().read_to_end(&mut out).unwrap();
    out
}

fn blob(digit: char) -> String {
    format!("blobs/sha256/{}", digit.to_string().repeat(64))
}

#[test]
fn finds_and_opens_files_plain_and_compressed() {
    let large: Vec<u8> = (0..200_001u32).map(|i| (i >> 3) as u8).collect();
    let parts = [
        member("./", b'5', b""),
        member("./oci-layout", b'0', b"marker"),
        member("README", b'0', b"not ours"),
        member(&blob('a'), 0, &large),
        pax("path", &blob('b')),
        member("short", b'0', b"by pax"),
        member("long", b'L', format!("{}\0", blob('c')).as_bytes()),
        member("short", b'0', b"by GNU"),
        pax("size", "3"),
        [header("index.json", &octal(999, 12), b'0'), b"abc".to_vec(), vec![0; 509]].concat(),
        vec![0; 2 * BLOCK],
        b"whatever follows".to_vec(),
    ];
    for bytes in
        [parts.concat(), gzip(&parts.concat()), [gzip(&parts[..4].concat()), gzip(&parts[4..].concat())].concat()]
    {
        let (_file, archive) = scan(&bytes).unwrap();
        assert_eq!(archive.members.len(), 5);
        assert_eq!(read(&archive, "oci-layout", 0), b"marker");
        assert_eq!(read(&archive, "oci-layout", 4), b"er");
        assert_eq!(read(&archive, &blob('b'), 0), b"by pax");
        assert_eq!(read(&archive, &blob('c'), 0), b"by GNU");
        assert_eq!(read(&archive, "index.json", 0), b"abc");
        for from in [0, 1, 200_000, 200_001] {
            assert!(read(&archive, &blob('a'), from) == large[from as usize..]);
        }
        assert_eq!(archive.size_bytes(&blob('a')).unwrap(), 200_001);
        let e = archive.open("README", 0).err().unwrap();
        assert!(e.kind() == Kind::Source && e.to_string().contains("not there"), "{e}");
    }
}

#[test]
fn what_is_hostile_or_broken_is_refused() {
    let long = |n: u64| [&[0x80, 0, 0, 0][..], &n.to_be_bytes()].concat();
    let mut damaged = member("oci-layout", b'0', b"x");
    damaged[0] ^= 1;
    let many = member("f", b'0', b"").repeat(MAX_MEMBERS + 1);
    for (what, bytes, words) in [
        ("nothing", Vec::new(), "empty"),
        ("text", b"hello".to_vec(), "cut short"),
        ("noise", vec![7; 2048], "not a tar archive"),
        ("a damaged header", damaged, "not a tar archive"),
        ("an absolute path", member("/etc/passwd", b'0', b""), "leads out"),
        ("a path upwards", member("a/../../b", b'0', b""), "leads out"),
        ("a path upwards in pax", [pax("path", "../x"), member("y", b'0', b"")].concat(), "leads out"),
        ("a size that is negative", header("oci-layout", &[0xff; 12], b'0'), "not a number"),
        ("a size that is not a number", header("oci-layout", b"12x\0", b'0'), "not a number"),
        ("a huge size", header("oci-layout", &long(1 << 62), b'0'), "is said to have"),
        ("a size beyond 64 bits", header("oci-layout", &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], b'0'), "not a number"),
        ("more than is there", header("oci-layout", &octal(5000, 12), b'0'), "cut short"),
        ("much more than is there", header(&blob('a'), &octal(500_000, 12), b'0'), "cut short"),
        ("twice the same", member("index.json", b'0', b"a").repeat(2), "twice"),
        ("a huge extended header", header("x", &octal(MAX_EXTENDED + 1, 12), b'x'), "extended header"),
        ("malformed extended headers", member("x", b'x', b"99 path=x\n"), "malformed"),
        ("a sparse file", [pax("GNU.sparse.major", "1"), member("f", b'0', b"")].concat(), "sparse"),
        ("a name that is no text", member("x", b'L', b"\xff\xfe"), "UTF-8"),
        ("too many members", many, "more than 4096"),
        ("gzip that is cut", gzip(&member(&blob('a'), b'0', &[1; 90_000]))[..60].to_vec(), ""),
    ] {
        let e = scan(&bytes).err().unwrap_or_else(|| panic!("{what} was taken"));
        assert!(e.kind() == Kind::Source && e.to_string().contains(words), "{what}: {e}");
    }
}

#[test]
fn links_and_devices_are_no_files() {
    for kind in *b"123456" {
        let bytes = [header("index.json", &octal(512, 12), kind), member("oci-layout", b'0', b"x")].concat();
        let (_file, archive) = scan(&bytes).unwrap();
        assert_eq!(read(&archive, "oci-layout", 0), b"x");
        match archive.open("index.json", 0) {
            Err(e) => assert!(e.kind() == Kind::Source, "{e}"),
            Ok(_) => panic!("{} was opened", kind as char),
        }
    }
}

#[test]
fn every_cut_is_seen_or_harmless() {
    let bytes = [member("oci-layout", b'0', b"marker"), member("index.json", b'0', &[b'i'; 700])].concat();
    for cut in 0..bytes.len() {
        match scan(&bytes[..cut]) {
            Err(e) => assert_eq!(e.kind(), Kind::Source),
            // Cut between two members: the second is missing.
            Ok((_, archive)) => assert!(cut == 1024 && archive.open("index.json", 0).is_err(), "{cut}"),
        }
    }
}

#[test]
fn numbers_in_both_forms() {
    for (field, value) in [
        (&b"0000644\0"[..], Some(0o644)),
        (b"  644 \0\0", Some(0o644)),
        (b"77777777777\0", Some((1 << 33) - 1)),
        (&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1][..], Some((2 << 32) + 1)),
        (b"\0\0\0\0\0\0\0\0", None),
        (b"        ", None),
        (b"12 34\0", None),
        (b"8\0", None),
        (b"-1\0", None),
        (b"7777777777777777777777777", None),
    ] {
        assert_eq!(number(field), value, "{field:?}");
    }
}

#[test]
fn what_is_inflated_again_for_documents_is_limited_together() {
    // Fills the kept bytes exactly.
    let count = KEPT_TOTAL / KEPT_EACH as usize;
    let junk: Vec<u8> = (1..=count)
        .map(|n| (n, KEPT_EACH as usize - if n == count { 4 } else { 0 }))
        .flat_map(|(n, length)| member(&format!("blobs/sha256/{n:064x}"), b'0', &vec![b'j'; length]))
        .collect();
    let zeros = member(&blob('a'), b'0', &vec![0; 1 << 20]);
    let parts = [member("index.json", b'0', b"kept"), junk, zeros, member(&blob('b'), b'0', b"not kept")];
    let bytes = parts.concat();
    let each = bytes.len() as u64 - BLOCK as u64 + 8;
    for (bytes, times) in [(gzip(&bytes), Some(3)), (bytes, None)] {
        let (_file, archive) = scan(&bytes).unwrap();
        assert_eq!(archive.left.get(), AGAIN_MAX);
        // Enough for three times, and one byte short of a fourth.
        archive.left.set(each * 4 - 1);
        let document = |name: &str| {
            let mut out = Vec::new();
            archive.open_document(name).map(|mut reader| reader.read_to_end(&mut out).unwrap()).map(|_| out)
        };
        for n in 0..5 {
            // Kept documents cost nothing; nor do checks of existence or system files.
            assert_eq!(document("index.json").unwrap(), b"kept");
            drop(archive.open(&blob('b'), 0).unwrap());
            assert_eq!(read(&archive, &blob('b'), 4), b"kept");
            match times.is_none_or(|times| n < times) {
                true => assert_eq!(document(&blob('b')).unwrap(), b"not kept", "{n}"),
                false => {
                    let e = document(&blob('b')).unwrap_err();
                    assert!(e.kind() == Kind::Source && e.to_string().contains("again and again"), "{e}");
                }
            }
        }
    }
}

#[test]
fn nothing_is_looked_for_before_it_is_read() {
    let large = vec![b'x'; 100_000];
    let bytes = [member(&blob('a'), b'0', &large), member(&blob('b'), b'0', &large)].concat();
    for bytes in [gzip(&bytes), bytes] {
        let (file, archive) = scan(&bytes).unwrap();
        let mut early = archive.open(&blob('b'), 1).unwrap();
        let mut late = archive.open(&blob('b'), 0).unwrap();
        let mut one = [0];
        assert_eq!(early.read(&mut one).unwrap(), 1);
        std::fs::write(file.path(), b"").unwrap();
        // Not opened until read: the medium is gone.
        std::fs::remove_file(file.path()).unwrap();
        assert_eq!(late.read(&mut one).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

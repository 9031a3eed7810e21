//! Tests of staging into a directory; tests/apply.rs stages into real partitions.

use super::*;

fn record_of(bytes: &[u8]) -> FileRecord {
    FileRecord { size_bytes: bytes.len() as u64, sha256: Digest::of(bytes) }
}

fn stage(dir: &Path, expected: &FileRecord, is_gzip: bool, body: &[u8]) -> Result<()> {
    let part = Part { name: KERNEL, expected, is_gzip };
    write(dir, &part, &mut &*body, &mut |_| {})
}

fn full_record(kernel: &[u8]) -> Record {
    Record {
        version: "1.2.0".into(),
        architecture: "amd64".into(),
        channel: "stable".into(),
        source: "test".into(),
        manifest_digest: None,
        kernel: record_of(kernel),
        initramfs: record_of(b"i"),
    }
}

#[test]
fn a_good_file_lands_whole_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..9_000_001u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let (mut written, mut read_back) = (0, 0);
    let expected = record_of(&bytes);
    let part = Part { name: KERNEL, expected: &expected, is_gzip: false };
    write(dir.path(), &part, &mut &*bytes, &mut |step| match step {
        Step::Written(n) => written += n,
        Step::ReadBack(n) => read_back += n,
    })
    .unwrap();
    assert_eq!(fs::read(dir.path().join(KERNEL)).unwrap(), bytes);
    assert_eq!((written, read_back), (9_000_001, 9_000_001));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn bad_bodies_never_get_the_real_name() {
    let good = b"the kernel as published".to_vec();
    let mut wrong = good.clone();
    wrong[3] ^= 1;
    let longer = [&good[..], b"!"].concat();
    for (body, code, words) in [
        (&good[..10], 6, "ended after 10 of 23"),
        (&b""[..], 6, "ended after 0"),
        (&longer[..], 5, "longer than the 23"),
        (&wrong[..], 5, "expected was sha256:"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let e = stage(dir.path(), &record_of(&good), false, body).unwrap_err();
        assert_eq!(e.exit_code(), code, "{e}");
        assert!(e.to_string().contains(words), "{e}");
        assert!(!dir.path().join(KERNEL).exists());
    }
}

#[test]
fn a_body_that_breaks_off_is_a_network_error() {
    struct Breaks(u8);
    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => Err(io::ErrorKind::Interrupted.into()),
                2 => {
                    buffer[0] = b't';
                    Ok(1)
                }
                _ => Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let expected = record_of(b"the kernel");
    let part = Part { name: KERNEL, expected: &expected, is_gzip: false };
    let e = write(dir.path(), &part, &mut Breaks(0), &mut |_| {}).unwrap_err();
    assert_eq!(e.kind(), Kind::Network, "{e}");
}

#[test]
fn an_initramfs_must_be_gzip_but_a_wrong_digest_explains_more() {
    let dir = tempfile::tempdir().unwrap();
    let e = stage(dir.path(), &record_of(b"not gzip"), true, b"not gzip").unwrap_err();
    assert_eq!((e.kind(), dir.path().join(KERNEL).exists()), (Kind::Source, false), "{e}");
    let e = stage(dir.path(), &record_of(b"NOT gzip"), true, b"not gzip").unwrap_err();
    assert_eq!(e.kind(), Kind::Digest, "{e}");
}

#[test]
fn the_record_goes_first_and_comes_last() {
    let dir = tempfile::tempdir().unwrap();
    stage(dir.path(), &record_of(b"old"), false, b"old").unwrap();
    finish(dir.path(), &full_record(b"old")).unwrap();
    fs::write(dir.path().join("lost+found.txt"), b"not ours").unwrap();
    fs::create_dir_all(dir.path().join("vmlinuz.part/x")).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join(VERSION)).unwrap(), "1.2.0\n");
    invalidate(dir.path()).unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["lost+found.txt"]);
    invalidate(dir.path()).unwrap();
}

#[test]
fn a_record_that_can_not_go_stops_everything() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(RECORD)).unwrap();
    fs::write(dir.path().join(KERNEL), b"old").unwrap();
    assert_eq!(invalidate(dir.path()).unwrap_err().exit_code(), 7);
    assert!(dir.path().join(KERNEL).exists(), "nothing may go before the record is gone");
}

#[test]
fn a_full_disk_is_a_device_error() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("vmlinuz.part")).unwrap();
    let e = stage(dir.path(), &record_of(b"kernel"), false, b"kernel").unwrap_err();
    assert_eq!(e.kind(), Kind::Device, "{e}");
}

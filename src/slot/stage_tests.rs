//! Tests of staging into a directory; tests/disk/apply.rs stages into real partitions.

use super::*;
use crate::base::digest::Digest;

fn record_of(bytes: &[u8]) -> FileRecord {
    FileRecord { size_bytes: bytes.len() as u64, sha256: Digest::of(bytes) }
}

fn stage(dir: &Path, expected: &FileRecord, is_initramfs: bool, body: &[u8]) -> Result<u32> {
    let part = Part { is_initramfs, ..Part::new(KERNEL, expected) };
    write(dir, &part, 0, &mut &*body, &mut |_| {})
}

fn full_record(kernel: &[u8]) -> Record {
    Record {
        version: "1.2.0".into(),
        architecture: "amd64".into(),
        channel: "stable".into(),
        source: "test".into(),
        manifest_digest: None,
        signed_by: Vec::new(),
        index_digest: None,
        passed: Vec::new(),
        release_date: None,
        kernel: record_of(kernel),
        initramfs: record_of(b"i"),
        layers: Vec::new(),
    }
}

#[test]
fn a_good_file_lands_whole_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..9_000_001u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let (mut written, mut read_back) = (0, 0);
    let expected = record_of(&bytes);
    let part = Part::new(KERNEL, &expected);
    write(dir.path(), &part, 0, &mut &*bytes, &mut |step| match step {
        Step::Found(n) => panic!("{n} bytes were there already"),
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
    let part = Part::new(KERNEL, &expected);
    let e = write(dir.path(), &part, 0, &mut Breaks(0), &mut |_| {}).unwrap_err();
    assert_eq!(e.kind(), Kind::Network, "{e}");
}

#[test]
fn a_disk_that_does_not_keep_what_came_is_not_the_source() {
    /// Returns a piece at a time; before it ends, the last written byte changes on disk.
    struct Rots<'a>(&'a Path, &'a [u8]);
    impl Read for Rots<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.1.is_empty() {
                let mut lies = fs::read(self.0)?;
                *lies.last_mut().unwrap() ^= 1;
                fs::write(self.0, lies)?;
            }
            self.1.read(buffer)
        }
    }
    let good: Vec<u8> = (0..300_000u32).map(|i| ((i * 7) >> 5) as u8).collect();
    let wrong = [&good[..good.len() - 1], b"!"].concat();
    // Wrong bytes that also rot: the failing disk is reported first.
    for body in [&good, &wrong] {
        let dir = tempfile::tempdir().unwrap();
        let expected = record_of(&good);
        let part = Part::new(KERNEL, &expected);
        let path = dir.path().join(part.unproven_name());
        let e = write(dir.path(), &part, 0, &mut Rots(&path, body), &mut |_| {}).unwrap_err();
        assert_eq!(e.kind(), Kind::Device, "{e}");
        assert!(e.to_string().contains("not what came"), "{e}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it is not gone on from");
    }
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
    finish(dir.path(), &full_record(b"old"), [1, 2]).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join(DIGESTS)).unwrap(), digests(1, 2));
    fs::write(dir.path().join("lost+found.txt"), b"not ours").unwrap();
    fs::create_dir_all(dir.path().join("vmlinuz.part/x")).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join(VERSION)).unwrap(), "1.2.0\n");
    invalidate(dir.path(), &[], &[]).unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["lost+found.txt"]);
    invalidate(dir.path(), &[], &[]).unwrap();
}

#[test]
fn whatever_lies_there_goes() {
    let dir = tempfile::tempdir().unwrap();
    for name in [KERNEL, DIGESTS, RECORD, "vmlinuz.part-12", "slot.json.tmp-1-2"] {
        fs::create_dir_all(dir.path().join(name).join("full/of")).unwrap();
    }
    std::os::unix::fs::symlink("/nonexistent", dir.path().join(INITRAMFS)).unwrap();
    invalidate(dir.path(), &[], &[]).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_grub_holds_old_files_against_never_outlives_them() {
    let dir = tempfile::tempdir().unwrap();
    for kept in [&[][..], &[KERNEL], &[KERNEL, INITRAMFS]] {
        for name in [KERNEL, INITRAMFS] {
            fs::write(dir.path().join(name), b"old").unwrap();
        }
        fs::write(dir.path().join(DIGESTS), digests(1, 2)).unwrap();
        fs::write(dir.path().join("slot.crc32.tmp"), b"x").unwrap();
        invalidate(dir.path(), kept, &[]).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        let mut should = kept.to_vec();
        should.sort_unstable();
        assert_eq!(left, should);
    }
    // In any shape: the next `apply` replaces it.
    fs::create_dir_all(dir.path().join(DIGESTS).join("deep")).unwrap();
    invalidate(dir.path(), &[], &[]).unwrap();
    assert!(!dir.path().join(DIGESTS).exists());
}

#[test]
fn a_link_in_the_way_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let expected = record_of(b"kernel");
    let part = Part::new(KERNEL, &expected);
    let target = dir.path().join("elsewhere");
    fs::write(&target, "mine").unwrap();
    std::os::unix::fs::symlink(&target, dir.path().join(part.unproven_name())).unwrap();
    assert_eq!(left_over(dir.path(), &part), 0);
    let e = stage(dir.path(), &expected, false, b"kernel").unwrap_err();
    assert_eq!(e.kind(), Kind::Device, "{e}");
    assert_eq!(fs::read(&target).unwrap(), b"mine");
}

#[test]
fn what_an_earlier_run_left_is_proven_and_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..600_000u32).map(|i| ((i * 7) >> 5) as u8).collect();
    let expected = record_of(&bytes);
    let part = Part::new(KERNEL, &expected);
    let path = dir.path().join(part.unproven_name());
    for came in [0, 1, 128 * 1024, 128 * 1024 + 1, 300_001, 599_999, 600_000] {
        // Broken off: the received bytes stay for the next run.
        let e = write(dir.path(), &part, 0, &mut &bytes[..came], &mut |_| {});
        assert_eq!(e.is_err(), came < bytes.len());
        if came == bytes.len() {
            fs::rename(dir.path().join(KERNEL), &path).unwrap();
        }
        // After a power cut the last page may be incomplete.
        let cut = left_over(dir.path(), &part) as usize;
        assert!(cut.is_multiple_of(64 << 10) && cut <= came && came - cut <= 64 << 10, "{cut} of {came}");
        invalidate(dir.path(), &[], std::slice::from_ref(&part)).unwrap();
        assert_eq!(path.exists(), cut > 0, "what is not gone on from is in the way");
        write(dir.path(), &part, cut as u64, &mut &bytes[cut..], &mut |_| {}).unwrap();
        assert!(fs::read(dir.path().join(KERNEL)).unwrap() == bytes && !path.exists());
        // One bit of the existing bytes is wrong: refused, and not reused again.
        if cut > 0 {
            let mut wrong = bytes[..cut].to_vec();
            wrong[cut / 2] ^= 1;
            fs::write(&path, wrong).unwrap();
            fs::remove_file(dir.path().join(KERNEL)).unwrap();
            let e = write(dir.path(), &part, cut as u64, &mut &bytes[cut..], &mut |_| {}).unwrap_err();
            assert_eq!(e.kind(), Kind::Digest, "{e}");
            assert!(!path.exists() && !dir.path().join(KERNEL).exists());
        }
    }
    fs::write(&path, vec![0; bytes.len() + 1]).unwrap();
    assert_eq!(left_over(dir.path(), &part), 0, "more than there can be");
    // Unreadable bytes are removed: rewritten, they work.
    fs::write(&path, vec![0; 70_000]).unwrap();
    let e = write(dir.path(), &part, 200_000, &mut &bytes[200_000..], &mut |_| {}).err();
    assert!(e.is_some_and(|e| e.kind() == Kind::Digest) && !path.exists());
    fs::create_dir_all(path.join("deep")).unwrap();
    invalidate(dir.path(), &[], std::slice::from_ref(&part)).unwrap();
    assert!(!path.exists(), "a directory in its place");
    // Another artifact's do not stay.
    invalidate(dir.path(), &[], &[]).unwrap();
    assert!(!path.exists());
}

#[test]
fn only_its_own_names_are_removed() {
    for name in [
        "vmlinuz",
        "kubesolo-os.gz",
        "version",
        "version.tmp",
        "version.tmp-1f-0a",
        "version.corrupt",
        "slot.json.tmp",
        "slot.json.tmp-1f-0a",
        "slot.json.corrupt",
        "slot.crc32",
        "slot.crc32.tmp",
        "vmlinuz.part",
        "vmlinuz.part-12",
        "kubesolo-os.gz.part-0f",
    ] {
        assert!(is_own(name), "{name}");
    }
    for name in [
        "version.tmpl",
        "slot.json.corrupted",
        "slot.json",
        "lost+found",
        "vmlinuz.old",
        "vmlinuzx",
        "part",
        ".part-1",
        "version.part-1",
        "",
    ] {
        assert!(!is_own(name), "{name}");
    }
}

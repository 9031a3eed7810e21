//! Reads a file from the device, not from the page cache, and hashes it.
//!
//! The received bytes do not prove what the flash kept.
//! Must never: report a digest of bytes that are only in memory, where the kernel lets it avoid that.

use crate::base::digest::Digest;
use crate::base::error::{Error, IoContext, Kind, Result};
use crate::os::sys;
use crate::slot::record::FileRecord;
use flate2::Crc;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Length of each buffer that a file goes through, in bytes; a multiple of [`ALIGN`].
pub const BUFFER: usize = 96 * 1024;
/// Alignment that O_DIRECT requires of buffers, on every device so far.
const ALIGN: usize = 4096;
const OP: &str = "read back";

/// Hashes a regular file as the device returns it.
/// Returns: its length and digest, and the CRC-32 of the same bytes. `progress` receives the number of bytes of each read.
/// Errors: Device: it cannot be read, or is not a regular file.
pub fn hash(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<(FileRecord, u32)> {
    let mut hashing = Hashing::open(path)?;
    loop {
        match hashing.take(path, u64::MAX)? {
            0 => return Ok(hashing.finish()),
            length => progress(length as u64),
        }
    }
}

/// A file that is being hashed.
pub struct Hashing {
    file: File,
    space: Vec<u8>,
    hasher: Sha256,
    crc: Crc,
    size_bytes: u64,
    is_at_end: bool,
}

impl Hashing {
    /// Begins at the first byte. Errors: as [`hash`].
    pub fn open(path: &Path) -> Result<Hashing> {
        let file = open(path).io(Kind::Device, OP, path.display())?;
        let space = vec![0u8; BUFFER + ALIGN];
        Ok(Hashing { file, space, hasher: Sha256::new(), crc: Crc::new(), size_bytes: 0, is_at_end: false })
    }

    /// Hashes the next bytes, which must be durable. Input: `end`: a multiple of [`ALIGN`] to stop at, or more than there is.
    /// Returns: their number, 0 at the end.
    pub fn take(&mut self, path: &Path, end: u64) -> Result<usize> {
        let room = (end - self.size_bytes).min(BUFFER as u64) as usize;
        if room == 0 || self.is_at_end {
            return Ok(0);
        }
        let skip = self.space.as_ptr().align_offset(ALIGN).min(ALIGN);
        let buffer = &mut self.space[skip..skip + room];
        let length = loop {
            match self.file.read(buffer) {
                Ok(length) => break length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).io(Kind::Device, OP, path.display()),
            }
        };
        self.hasher.update(&buffer[..length]);
        self.crc.update(&buffer[..length]);
        self.size_bytes += length as u64;
        // O_DIRECT refuses another read after an unaligned end of file.
        self.is_at_end = length % ALIGN != 0;
        Ok(length)
    }

    /// Bytes so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Ends it. Returns: as [`hash`].
    pub fn finish(self) -> (FileRecord, u32) {
        (FileRecord { size_bytes: self.size_bytes, sha256: Digest::finish(self.hasher) }, self.crc.sum())
    }
}

/// Opens with O_DIRECT, or drops the file's cached pages where the file system does not support that.
fn open(path: &Path) -> io::Result<File> {
    let base = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(base | libc::O_DIRECT).open(path);
    let file = match opened {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            let file = OpenOptions::new().read(true).custom_flags(base).open(path)?;
            file.sync_all()?;
            sys::drop_cache(&file)?;
            file
        }
        opened => opened?,
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Compares a file on the device with what it should be.
/// Returns: the CRC-32 of the proven bytes, for GRUB (`slot::digests`).
/// Errors: Slot: missing, or another length or digest; names the file, while the caller adds its location.
/// Device: it cannot be read.
pub fn verify(path: &Path, expected: &FileRecord, progress: &mut dyn FnMut(u64)) -> Result<u32> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bad = |why: String| Error::new(Kind::Slot, format!("{name} {why}"));
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(bad("is missing".into())),
        Ok(meta) if meta.is_file() && meta.len() != expected.size_bytes => {
            return Err(bad(format!("has {} bytes, recorded are {}", meta.len(), expected.size_bytes)));
        }
        _ => {}
    }
    let (found, crc32) = hash(path, progress)?;
    if found != *expected {
        return Err(bad(format!("is {}, recorded is {}", found.sha256, expected.sha256)));
    }
    Ok(crc32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Read from real gzip output: its last eight bytes are CRC-32 and length, lowest byte first.
    fn gzips_crc32(path: &Path) -> u32 {
        let output = std::process::Command::new("gzip").arg("-nc1").arg(path).output().unwrap();
        let end = output.stdout.last_chunk::<8>().expect("gzip made no trailer");
        u32::from_le_bytes([end[0], end[1], end[2], end[3]])
    }

    #[test]
    fn hashes_every_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for length in [0, 1, 4095, 4096, 4097, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            fs::write(&path, &bytes).unwrap();
            File::open(&path).unwrap().sync_all().unwrap();
            let mut seen = 0;
            let (found, crc32) = hash(&path, &mut |n| seen += n).unwrap();
            assert_eq!(crc32, gzips_crc32(&path), "{length}");
            assert_eq!(found, FileRecord { size_bytes: length as u64, sha256: Digest::of(&bytes) }, "{length}");
            assert_eq!(seen, length as u64);
        }
    }

    #[test]
    fn differences_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let expected = FileRecord { size_bytes: 3, sha256: Digest::of(b"abc") };
        let words = |path: &Path| verify(path, &expected, &mut |_| {}).unwrap_err().to_string();
        assert!(words(&path).contains("missing"));
        fs::write(&path, b"abcd").unwrap();
        assert!(words(&path).contains("4 bytes"));
        fs::write(&path, b"abd").unwrap();
        assert!(words(&path).contains("sha256:"));
        fs::write(&path, b"abc").unwrap();
        assert_eq!(verify(&path, &expected, &mut |_| {}).unwrap(), 0x3524_41c2);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(verify(&link, &expected, &mut |_| {}).is_err());
    }
}

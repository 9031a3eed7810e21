//! Label and cleanness of ext4 and FAT, from the first bytes of a partition. Pure.
//!
//! Source: Linux Documentation/filesystems/ext4 (super block); Microsoft FAT specification 1.03.
//! Must never: call a file system clean that it could not read.

/// Number of bytes from the start of a partition that [`read`] needs; a multiple of every block size.
pub const PROBE_BYTES: usize = 4096;

const EXT: usize = 1024;
const EXT_INCOMPAT_RECOVER: u32 = 0x4;

/// What the first bytes of a partition show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext2, ext3 or ext4.
    Ext {
        /// Volume label.
        label: String,
        /// The journal holds changes that are not in place yet: GRUB does not replay it and sees the old state.
        needs_recovery: bool,
    },
    /// FAT32 (or FAT16, which stores the label elsewhere).
    Fat {
        /// Volume label of the boot sector, trailing blanks cut.
        label: String,
    },
    /// Neither.
    Unknown,
}

impl FileSystem {
    /// Returns the label, empty where there is none.
    pub fn label(&self) -> &str {
        match self {
            FileSystem::Ext { label, .. } | FileSystem::Fat { label } => label,
            FileSystem::Unknown => "",
        }
    }
}

/// Reads the first [`PROBE_BYTES`] of a partition; with fewer it finds less.
pub fn read(start: &[u8]) -> FileSystem {
    if start.get(EXT + 0x38..EXT + 0x3a) == Some(&[0x53, 0xef])
        && let (Some(label), Some(flags)) = (start.get(EXT + 0x78..EXT + 0x88), start.get(EXT + 0x60..EXT + 0x64))
    {
        let flags = u32::from_le_bytes([flags[0], flags[1], flags[2], flags[3]]);
        let label = text(label.split(|b| *b == 0).next().unwrap_or_default());
        return FileSystem::Ext { label, needs_recovery: flags & EXT_INCOMPAT_RECOVER != 0 };
    }
    let signed = start.get(510..512) == Some(&[0x55, 0xaa]);
    for (kind_at, kind, label_at) in [(0x52, b"FAT32   ", 0x47), (0x36, b"FAT16   ", 0x2b)] {
        if signed && start.get(kind_at..kind_at + 8) == Some(kind) {
            let label = start.get(label_at..label_at + 11).unwrap_or_default();
            return FileSystem::Fat { label: text(label).trim_end().to_string() };
        }
    }
    FileSystem::Unknown
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_or_foreign_bytes_are_unknown() {
        for len in [0, 1, 511, 512, 1023, 1100, 4096] {
            assert_eq!(read(&vec![0u8; len]), FileSystem::Unknown);
            let _ = read(&vec![0xffu8; len]);
        }
        let mut ext = vec![0u8; 4096];
        ext[EXT + 0x38] = 0x53;
        ext[EXT + 0x39] = 0xef;
        for cut in 0..EXT + 0x88 {
            assert_eq!(read(&ext[..cut]), FileSystem::Unknown, "cut at {cut}");
        }
    }

    #[test]
    fn recovery_flag_is_seen() {
        let mut ext = vec![0u8; 4096];
        ext[EXT + 0x38..EXT + 0x3a].copy_from_slice(&[0x53, 0xef]);
        ext[EXT + 0x78..EXT + 0x7e].copy_from_slice(b"KSOLOB");
        assert_eq!(read(&ext), FileSystem::Ext { label: "KSOLOB".into(), needs_recovery: false });
        ext[EXT + 0x60] = 0xc6;
        assert_eq!(read(&ext), FileSystem::Ext { label: "KSOLOB".into(), needs_recovery: true });
    }
}

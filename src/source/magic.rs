//! Recognises by its first bytes a file that should be a layout's archive but is not, so that the error can say what to do.
//!
//! Must never: decide that something is accepted.

/// First bytes of file formats. Source: each format's own document.
const KINDS: [(&[u8], &str); 13] = [
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"BZh", "a bzip2 file"),
    (b"\x04\x22\x4d\x18", "an lz4 file"),
    (b"\x5d\0\0", "an lzma file"),
    (b"\x1f\x9d", "a compress (.Z) file"),
    (b"PK\x03\x04", "a zip file"),
    (b"PK\x05\x06", "an empty zip file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (b"hsqs", "a squashfs image"),
    (b"0707", "a cpio archive"),
    (b"{", "a JSON document"),
    (b"<", "an HTML or XML document"),
];
/// Number of bytes needed.
pub(super) const LENGTH: usize = 6;

/// Names the format of a file that cannot be a layout. Input: its first bytes, zero-padded if it is shorter.
pub(super) fn other_format(first: &[u8; LENGTH]) -> Option<String> {
    let (_, name) = KINDS.iter().find(|(magic, _)| first.starts_with(magic))?;
    let hint = match first[0] {
        b'{' => "name the directory that holds index.json, not the file",
        _ => "pack the layout with `tar -C LAYOUT -czf FILE .`",
    };
    Some(format!("it is {name}; a layout is read from a directory, a tar or a tar in gzip alone: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_or_a_tar_in_gzip_is_nothing_else() {
        for first in [b"./\0\0\0\0", b"blobs/", b"oci-la", b"index.", b"\x1f\x8b\x08\0\0\0", b"\0\0\0\0\0\0"] {
            assert_eq!(other_format(first), None, "{first:?}");
        }
        assert!(other_format(b"{\"sche").unwrap().contains("the directory that holds index.json"));
        assert!(other_format(b"PK\x03\x04\x14\0").unwrap().contains("it is a zip file; "));
    }
}

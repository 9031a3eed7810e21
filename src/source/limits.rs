//! Checks of what a source sends before it is used: lengths and digests. Pure.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::oci::descriptor::Descriptor;
use crate::offer::artifact::FileRef;

/// Who sends a file, and what says how long it is.
pub(super) struct Said {
    pub(super) sender: &'static str,
    pub(super) document: &'static str,
}

/// Compares the length that a source announces, if any, with the expected one.
/// Errors: Digest: they differ.
pub(super) fn check_length(announced: Option<u64>, file: &FileRef, said: &Said) -> Result<()> {
    match announced {
        Some(n) if n != file.size_bytes => {
            let (Said { sender, document }, size) = (said, file.size_bytes);
            Err(Error::new(Kind::Digest, format!("{sender} sends {n} bytes, {document} says {size}")))
        }
        _ => Ok(()),
    }
}

/// Checks bytes against their descriptor. Errors: Digest: another length or digest.
pub(super) fn check_bytes(bytes: &[u8], want: &Descriptor) -> Result<()> {
    check_content(bytes, want.size_bytes, want.digest)
}

/// Checks bytes against what names them. Errors: Digest: another length or digest.
pub(super) fn check_content(bytes: &[u8], size_bytes: u64, digest: Digest) -> Result<()> {
    if bytes.len() as u64 != size_bytes {
        let got = bytes.len();
        return Err(Error::new(Kind::Digest, format!("{got} bytes, its descriptor says {size_bytes}")));
    }
    match Digest::of(bytes) {
        d if d == digest => Ok(()),
        d => Err(Error::new(Kind::Digest, format!("hashes to {d}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_held_against_their_descriptor() {
        let want = Descriptor { media_type: String::new(), digest: Digest::of(b"abc"), size_bytes: 3 };
        assert!(check_bytes(b"abc", &want).is_ok());
        for bytes in [&b"abd"[..], b"abcd", b""] {
            assert_eq!(check_bytes(bytes, &want).unwrap_err().kind(), Kind::Digest);
        }
    }
}

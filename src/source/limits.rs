//! What is held of what a source says before it is kept or used: versions, texts, lengths, digests. Pure.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::http::Body;
use crate::oci::descriptor::Descriptor;
use crate::offer::artifact::FileRef;
use std::io::Read;

/// Longest version, in characters.
pub(super) const MAX_VERSION: usize = 128;

/// Longest text of an artifact that is kept, in bytes; release notes have `json::MAX_TEXT`.
pub(super) const MAX_TEXT: usize = 1 << 10;

/// Refuses a version that could not be shown, compared or kept.
pub(super) fn check_version(version: Option<String>, field: &str) -> Result<String> {
    let fail = |why: &str| Err(Error::new(Kind::Source, format!("'{field}' {why}")));
    match version {
        None => fail("is missing"),
        Some(v) if v.is_empty() => fail("is empty"),
        Some(v) if v.len() > MAX_VERSION => fail("is longer than 128 characters"),
        Some(v) if !v.bytes().all(|b| b.is_ascii_graphic()) => fail("is not printable ASCII without spaces"),
        Some(v) => Ok(v),
    }
}

/// Holds the length that a source announces, if it does, against what was said of a file.
/// Input: `said`: who announces it, and what said it before. Errors: Digest: another one.
pub(super) fn check_length(announced: Option<u64>, file: &FileRef, said: (&str, &str)) -> Result<()> {
    match announced {
        Some(n) if n != file.size_bytes => {
            let ((who, what), size) = (said, file.size_bytes);
            Err(Error::new(Kind::Digest, format!("{who} sends {n} bytes, {what} says {size}")))
        }
        _ => Ok(()),
    }
}

/// Cuts a text to what is kept of it.
pub(super) fn kept(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().take(MAX_TEXT + 1).find(|(at, c)| at + c.len_utf8() > MAX_TEXT) {
        text.truncate(end);
    }
    text.shrink_to_fit();
    text
}

/// Bounds what comes from `from` on to one byte more than the file has, so that too much is seen and not endured.
pub(super) fn bounded(body: Body, size_bytes: u64, from: u64) -> Body {
    let most = size_bytes.saturating_sub(from).saturating_add(1);
    Body { reader: Box::new(body.reader.take(most)), ..body }
}

/// Holds bytes against the descriptor that led to them. Errors: Digest: another length or digest.
pub(super) fn check_bytes(bytes: &[u8], want: &Descriptor) -> Result<()> {
    if bytes.len() as u64 != want.size_bytes {
        let (got, want) = (bytes.len(), want.size_bytes);
        return Err(Error::new(Kind::Digest, format!("{got} bytes, where its descriptor says {want}")));
    }
    match Digest::of(bytes) {
        d if d == want.digest => Ok(()),
        d => Err(Error::new(Kind::Digest, format!("hashes to {d}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_short_and_printable() {
        let long = "1".repeat(129);
        for (version, word) in
            [("", "empty"), ("1 2", "printable"), ("1\u{1b}", "printable"), ("ü", "printable"), (&long, "128")]
        {
            let e = check_version(Some(version.to_owned()), "v").unwrap_err();
            assert!(e.to_string().contains(word) && e.kind() == Kind::Source, "{e}");
        }
        assert!(check_version(None, "v").unwrap_err().to_string().contains("'v' is missing"));
        assert_eq!(check_version(Some("1.2.0-rc.1+b".to_owned()), "v").unwrap(), "1.2.0-rc.1+b");
    }

    #[test]
    fn texts_are_kept_up_to_1_kib() {
        for (text, kept_bytes) in
            [("x".repeat(2000), 1024), ("x".repeat(1024), 1024), ("é".repeat(2000), 1024), ("€".repeat(342), 1023)]
        {
            let short = kept(text.clone());
            assert!(
                text.starts_with(&short) && short.len() == kept_bytes && short.capacity() < 1100,
                "{}",
                short.len()
            );
        }
    }

    #[test]
    fn bytes_are_held_against_their_descriptor() {
        let want = Descriptor { media_type: String::new(), digest: Digest::of(b"abc"), size_bytes: 3 };
        assert!(check_bytes(b"abc", &want).is_ok());
        for bytes in [&b"abd"[..], b"abcd", b""] {
            assert_eq!(check_bytes(bytes, &want).unwrap_err().kind(), Kind::Digest);
        }
    }

    #[test]
    fn a_reader_ends_one_byte_after_the_file() {
        let mut out = Vec::new();
        bounded(Body::whole(std::io::repeat(7)), 10, 0).reader.read_to_end(&mut out).unwrap();
        assert_eq!(out.len(), 11);
        bounded(Body::whole(std::io::repeat(7)), 10, 8).reader.read_to_end(&mut out).unwrap();
        assert_eq!(out.len(), 11 + 3);
    }
}

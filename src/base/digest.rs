//! Content digests: `sha256:` and 64 lower-case hexadecimal digits, checked before use.
//!
//! A digest string becomes part of URLs and file names, so it is parsed here first and never
//! used as a raw string. Must never: accept another algorithm, another length or upper case.

use crate::base::error::{Error, Kind, Result};
use crate::base::text::hex;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Holds one SHA-256 content digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Parses `sha256:<64 hex>`.
    /// Errors: Source: any other algorithm, length, or upper-case digits.
    /// Source: OCI image-spec 1.1, descriptor.md, "Digests".
    pub fn parse(text: &str) -> Result<Digest> {
        match text.strip_prefix("sha256:") {
            Some(rest) => Digest::parse_hex(rest),
            None => {
                Err(Error::new(Kind::Source, "digest is not of the form sha256:<64 hex digits>")
                    .at("read digest", text))
            }
        }
    }

    /// Parses 64 hexadecimal digits without a prefix (`latest.json`, slot records).
    /// Errors: Source: another length, or characters other than 0-9 and a-f.
    pub fn parse_hex(text: &str) -> Result<Digest> {
        let bad = || Error::new(Kind::Source, "SHA-256 is not 64 lower-case hex digits").at("read digest", text);
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return Err(bad());
        }
        let mut out = [0u8; 32];
        for (pair, byte) in bytes.chunks_exact(2).zip(out.iter_mut()) {
            *byte = nibble(pair[0]).ok_or_else(bad)? << 4 | nibble(pair[1]).ok_or_else(bad)?;
        }
        Ok(Digest(out))
    }

    /// Hashes bytes that are entirely in memory.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Finishes a streaming hasher.
    pub fn finish(hasher: Sha256) -> Digest {
        Digest(hasher.finalize().into())
    }

    /// Returns its 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the 64 hexadecimal digits without the prefix.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// Writes each digest of a list as text.
    pub fn texts(list: &[Digest]) -> Vec<String> {
        list.iter().map(Digest::to_string).collect()
    }

    /// Reads what [`Digest::texts`] wrote. Errors: as [`Digest::parse`].
    pub fn parse_all(texts: &[String]) -> Result<Vec<Digest>> {
        texts.iter().map(|text| Digest::parse(text)).collect()
    }

    /// Returns the first 12 digits, for people.
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

fn nibble(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `printf '' | sha256sum`
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_and_prints() {
        let d = Digest::parse(&format!("sha256:{EMPTY}")).unwrap();
        assert_eq!(d, Digest::of(b""));
        assert_eq!(d.to_string(), format!("sha256:{EMPTY}"));
        assert_eq!(d.short(), "e3b0c44298fc");
    }

    #[test]
    fn refuses_every_other_shape() {
        let long = format!("sha256:{EMPTY}0");
        let upper = format!("sha256:{}", EMPTY.to_uppercase());
        let slash = format!("sha256:../{}", &EMPTY[3..]);
        for bad in ["", "sha256:", EMPTY, "sha512:00", &long, &upper, &slash, "SHA256:00", "sha256:é"] {
            assert_eq!(Digest::parse(bad).unwrap_err().exit_code(), 6, "{bad}");
        }
    }
}

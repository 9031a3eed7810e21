//! Base64 (RFC 4648, section 4), strict: one spelling per value. Pure.
//!
//! Must never: accept two spellings of the same bytes: signatures are compared by the signed text.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Decodes padded standard base64.
/// Returns: `None` for any other character, a wrong length, missing padding, or nonzero bits that the padding discards.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let pads = text.iter().rev().take(2).take_while(|b| **b == b'=').count();
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for (group, quad) in text.chunks_exact(4).enumerate() {
        let used = if (group + 1) * 4 == text.len() { 4 - pads } else { 4 };
        let mut bits = 0u32;
        for (at, byte) in quad.iter().enumerate() {
            let value = if at < used { ALPHABET.iter().position(|a| a == byte)? } else { 0 };
            bits = bits << 6 | value as u32;
        }
        let [_, bytes @ ..] = bits.to_be_bytes();
        out.extend_from_slice(&bytes[..used - 1]);
        if bytes[used - 1..].iter().any(|b| *b != 0) {
            return None;
        }
    }
    Some(out)
}

/// Encodes with padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut three = [0u8; 4];
        three[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(three);
        for at in 0..4 {
            let value = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= chunk.len() { value as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: RFC 4648, section 10.
    #[test]
    fn the_vectors_of_the_standard() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)).unwrap(), all);
    }

    #[test]
    fn one_spelling_only() {
        for text in [
            "Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "Zg==Zg==", "Z===", "====", "Zm 9", "Zm9v\n", "Zm-_", "=Zg=", "Zg=x",
            "é==",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}

//! The shape of a JSON document, checked before it is parsed: depth, number of parts, duplicate names. Pure.
//!
//! Must never: recurse, or use memory that grows with the document.

/// Deepest nesting of arrays and objects. Our documents have 5.
const MAX_DEPTH: usize = 32;

/// Most arrays and objects in one document; each may become a struct of about 300 bytes. A release for both
/// architectures has about 20.
const MAX_CONTAINERS: usize = 2048;

/// Most names in the objects that are open at one time. Credentials for many registries, or annotations, have hundreds.
const MAX_NAMES: usize = 16 << 10;

/// An array or object that is not closed yet.
struct Open {
    is_object: bool,
    /// Index of its first name.
    first: usize,
}

/// Checks a document against the limits. Invalid JSON may pass: the parser finds that.
pub(crate) fn check(bytes: &[u8]) -> std::result::Result<(), &'static str> {
    let (mut open, mut names): (Vec<Open>, Vec<u64>) = (Vec::new(), Vec::new());
    let (mut containers, mut at, mut is_name) = (0usize, 0, false);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let text = &bytes[at..];
                let length = text_length(text);
                if is_name {
                    names.push(hash(&text[..length]));
                }
                is_name = false;
                at += length + 1;
            }
            b'{' | b'[' => {
                containers += 1;
                is_name = *byte == b'{';
                open.push(Open { is_object: is_name, first: names.len() });
            }
            b',' => is_name = open.last().is_some_and(|container| container.is_object),
            b'}' | b']' => {
                let first = open.pop().map_or(0, |container| container.first);
                names[first..].sort_unstable();
                if names[first..].windows(2).any(|pair| pair[0] == pair[1]) {
                    // Parsers differ in which of the two they take, and the signer's may have taken the other.
                    return Err("a JSON object has the same name twice");
                }
                names.truncate(first);
                is_name = false;
            }
            _ => {}
        }
        if open.len() > MAX_DEPTH {
            return Err("JSON is nested too deeply");
        }
        if containers > MAX_CONTAINERS || names.len() > MAX_NAMES {
            return Err("JSON has too many parts");
        }
    }
    Ok(())
}

/// Returns what a document that is not JSON is, where its beginning tells: servers, proxies and log-in pages send HTML for
/// any request, and Windows writes UTF-16. Source: Unicode, section 23.8; RFC 1952, section 2.3.1.
pub(crate) fn other_than_json(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    match text {
        [] => Some("not valid JSON: it is empty"),
        [0xff, 0xfe, 0, 0, ..] | [0, 0, ..] | [_, 0, 0, 0, ..] => {
            Some("not valid JSON: it is UTF-32; save it as UTF-8")
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => {
            Some("not valid JSON: it is UTF-16; save it as UTF-8")
        }
        [0x1f, 0x8b, ..] => Some("not valid JSON: it is compressed with gzip"),
        [b'<', ..] => Some("not valid JSON: it is HTML or XML, a page for people perhaps"),
        _ => None,
    }
}

/// Returns the length of a text up to the quote that ends it.
pub(crate) fn text_length(text: &[u8]) -> usize {
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = !escaped && *byte == b'\\';
        ends
    });
    end.unwrap_or(text.len())
}

/// Hashes a name, the same however its characters are escaped.
/// Source: FNV-1a, 64 bits. A document with two names of one hash is refused.
fn hash(name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |unit: u16| hash = (hash ^ u64::from(unit)).wrapping_mul(0x0100_0000_01b3);
    let mut rest = std::str::from_utf8(name).unwrap_or_default().chars();
    while let Some(c) = rest.next() {
        let meant = match c {
            '\\' => match rest.next() {
                Some('u') => {
                    let digits = rest.as_str().get(..4).unwrap_or_default();
                    take(u16::from_str_radix(digits, 16).unwrap_or_default());
                    rest = rest.as_str()[digits.len()..].chars();
                    continue;
                }
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                other => other.unwrap_or(c),
            },
            c => c,
        };
        meant.encode_utf16(&mut [0; 2]).iter().for_each(|unit| take(*unit));
    }
    hash
}

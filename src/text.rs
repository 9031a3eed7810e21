//! Text that may have come from outside, made fit for a terminal, a log line and a state file.
//!
//! Must never: let a control or direction-changing character through.

use std::time::Duration;

/// Longest text that is kept from a foreign source, in characters.
const MAX_CHARS: usize = 2000;

/// Replaces what could steer a terminal (C0, C1, bidirectional overrides) and cuts what is too long.
/// Input: any text.   Returns: one line, at most 2,000 characters.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_CHARS));
    for (count, c) in text.chars().enumerate() {
        if count == MAX_CHARS {
            out.push('…');
            break;
        }
        let hostile = c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        out.push(match c {
            '\n' | '\t' => ' ',
            _ if hostile => '\u{fffd}',
            _ => c,
        });
    }
    out
}

/// Writes bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)] as char);
        out.push(DIGITS[usize::from(b & 15)] as char);
    }
    out
}

/// Writes a size for a person: bytes up to 10 KiB, KiB up to 1 MiB, then MiB, with one decimal.
pub fn human_size(bytes: u64) -> String {
    if bytes < 10 * 1024 {
        return format!("{bytes} B");
    }
    let tenths_kib = bytes.saturating_mul(10) / 1024;
    if tenths_kib < 1024 * 10 {
        return format!("{}.{} KiB", tenths_kib / 10, tenths_kib % 10);
    }
    let tenths_mib = tenths_kib / 1024;
    format!("{}.{} MiB", tenths_mib / 10, tenths_mib % 10)
}

/// Writes a time in seconds: whole ones, or with one decimal, cut.
pub fn secs(time: Duration) -> String {
    match (time.as_secs(), time.subsec_millis() / 100) {
        (whole, 0) => whole.to_string(),
        (whole, tenths) => format!("{whole}.{tenths}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_ordinary_text_and_defuses_the_rest() {
        assert_eq!(printable("grün 5.0"), "grün 5.0");
        assert_eq!(printable("a\nb\tc"), "a b c");
        assert_eq!(printable("\x1b]0;x\x07\u{9b}31m\u{202e}"), "\u{fffd}]0;x\u{fffd}\u{fffd}31m\u{fffd}");
        assert_eq!(printable(&"x".repeat(5000)).chars().count(), 2001);
    }

    #[test]
    fn times() {
        for (millis, words) in [(0, "0"), (99, "0"), (500, "0.5"), (2000, "2"), (61_250, "61.2")] {
            assert_eq!(secs(Duration::from_millis(millis)), words);
        }
    }

    #[test]
    fn hex_and_sizes() {
        assert_eq!(hex(&[0, 0xab, 255]), "00abff");
        assert_eq!(human_size(512), "512 B");
        assert_eq!(human_size(100 * 1024 + 512), "100.5 KiB");
        assert_eq!(human_size(8 * 1024 * 1024), "8.0 MiB");
        assert!(human_size(u64::MAX).ends_with("MiB"));
    }
}

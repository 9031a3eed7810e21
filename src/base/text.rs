//! Text that may come from outside, made safe for a terminal, a log line and a state file.
//!
//! Must never: let a control or direction-changing character through.

use std::time::Duration;

/// Longest text kept from an outside source, in characters.
const MAX_CHARS: usize = 2000;

/// Replaces what could control a terminal (C0, C1, bidirectional overrides) and truncates long text.
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

/// Writes how much of a size is done: `13.8 of 32.0 MiB`, both in the unit of the whole.
pub fn of_size(done: u64, total: u64) -> String {
    let whole = human_size(total);
    let unit = whole.rsplit(' ').next().unwrap_or_default();
    let tenths = match unit {
        "MiB" => done / 1024 * 10 / 1024,
        "KiB" => done.saturating_mul(10) / 1024,
        _ => return format!("{done} of {whole}"),
    };
    format!("{}.{} of {whole}", tenths / 10, tenths % 10)
}

/// Writes the time of day, in UTC. Input: seconds since 1970.
pub fn clock_of_day(unix_secs: u64) -> String {
    let secs = unix_secs % 86_400;
    format!("{:02}:{:02}:{:02} UTC", secs / 3600, secs / 60 % 60, secs % 60)
}

const DIGEST: &str = "sha256:";

/// Cuts each whole SHA-256 digest in a text to its first 12 digits: what a person compares.
pub fn short_digests(text: &str) -> String {
    let mut parts = text.split(DIGEST);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(DIGEST);
        match part.bytes().take_while(u8::is_ascii_hexdigit).count() {
            64 => out.extend([&part[..12], &part[64..]]),
            _ => out.push_str(part),
        }
    }
    out
}

/// Columns of a line of text: at 80, a terminal would wrap by itself.
pub const COLUMNS: usize = 79;

/// Wraps text that is too wide for one line. Input: `indent`: the column of all lines but the first.
pub fn folded(text: &str, indent: usize) -> String {
    let mut out = String::new();
    fold(&mut out, Margins { at: 0, indent, columns: COLUMNS }, text);
    out
}

/// Where text is put.
#[derive(Clone, Copy)]
pub struct Margins {
    /// The column of the first line.
    pub at: usize,
    /// That of the others.
    pub indent: usize,
    /// Columns that a line may take.
    pub columns: usize,
}

/// Appends text at a column, wrapped; no line is wider than `columns` or ends with blanks. A digest
/// stays whole, however wide that is.
/// The characters up to U+0005 take no column.
pub fn fold(out: &mut String, Margins { at, indent, columns }: Margins, text: &str) {
    let go_on = |out: &mut String| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
        indent
    };
    let (mut column, mut gap, mut is_first) = (at, 0, true);
    for word in text.split(' ') {
        let wide: usize = word.chars().map(width).sum();
        if column + gap + wide > columns {
            if !is_first {
                column = go_on(out);
                is_first = true;
            }
            gap = 0;
        }
        // Never at the end of a line.
        if wide > 0 {
            out.extend(std::iter::repeat_n(' ', gap));
            (column, gap, is_first) = (column + gap, 0, false);
        }
        let is_whole = wide <= columns + WHOLE_COLUMNS && has_digest(word);
        for c in word.chars() {
            if !is_whole && column + width(c) > columns {
                column = go_on(out);
            }
            column += width(c);
            out.push(c);
        }
        gap += 1;
    }
}

/// Returns whether a word contains a whole digest: split by a line break, it could not be copied.
fn has_digest(word: &str) -> bool {
    word.split(DIGEST).skip(1).any(|part| part.bytes().take_while(u8::is_ascii_hexdigit).count() == 64)
}

/// Columns by which a line with a digest may be too wide: the digest, with a name in front.
const WHOLE_COLUMNS: usize = 71;

/// Returns the columns that a character takes, at most: characters that may be wide count as wide.
fn width(c: char) -> usize {
    match c {
        '\u{1}'..='\u{5}' => 0,
        '\u{1100}'.. => 2,
        _ => 1,
    }
}

/// Writes a duration in seconds: whole, or with one decimal, truncated.
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
        for (done, total, words) in [
            (0, 512, "0 of 512 B"),
            (10 * 1024, 100 * 1024, "10.0 of 100.0 KiB"),
            (14_470_349, 32 << 20, "13.7 of 32.0 MiB"),
            (32 << 20, 32 << 20, "32.0 of 32.0 MiB"),
        ] {
            assert_eq!(of_size(done, total), words);
        }
        assert!(of_size(u64::MAX, u64::MAX).starts_with("17592186044415.9 of "), "{}", of_size(u64::MAX, u64::MAX));
    }

    #[test]
    fn times_of_day() {
        for (secs, words) in [(0, "00:00:00 UTC"), (86_399, "23:59:59 UTC"), (1_795_377_600, "20:00:00 UTC")] {
            assert_eq!(clock_of_day(secs), words);
        }
    }

    #[test]
    fn digests_are_cut_and_nothing_else() {
        let sha = "0123456789abcdef".repeat(4);
        for (text, words) in [
            (format!("sha256:{sha}"), "sha256:0123456789ab".to_owned()),
            (
                format!("it is sha256:{sha}, recorded is sha256:{sha}"),
                "it is sha256:0123456789ab, recorded is sha256:0123456789ab".into(),
            ),
            (format!("host/os@sha256:{sha} (release.pub)"), "host/os@sha256:0123456789ab (release.pub)".into()),
            (format!("sha256:{sha}0"), format!("sha256:{sha}0")),
            (format!("sha256:sha256:{sha}é"), "sha256:sha256:0123456789abé".into()),
            (sha.clone(), sha.clone()),
            ("sha256:".into(), "sha256:".into()),
            ("sha256:é".into(), "sha256:é".into()),
            (String::new(), String::new()),
        ] {
            assert_eq!(short_digests(&text), words);
        }
    }

    #[test]
    fn no_line_is_wider_and_no_word_is_lost() {
        let long = "x".repeat(200);
        let wide = "漢字 ".repeat(60);
        let words = "word ".repeat(60);
        let blanks = format!("a{}b", " ".repeat(300));
        let only_blanks = " ".repeat(300);
        for text in [&long, &wide, &words, &blanks, &only_blanks, &format!("short {long}"), ""] {
            for (at, indent) in [(0, 8), (8, 8), (10, 10), (17, 4)] {
                for columns in [20, 79, 80] {
                    let mut out = String::new();
                    fold(&mut out, Margins { at, indent, columns }, text);
                    let first = at;
                    for (n, line) in out.split('\n').enumerate() {
                        let wide: usize = line.chars().map(width).sum::<usize>() + if n == 0 { first } else { 0 };
                        assert!(wide <= columns, "{wide} of {columns}: {line}");
                        assert!(!line.ends_with(' ') || line.trim().is_empty(), "'{line}'");
                    }
                    let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
                    assert_eq!(letters(&out), letters(text));
                }
            }
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, lines) in [
            (format!("a note of {digest} and more"), format!("a note of\n        {digest}\n        and more")),
            (format!("host/a/name/that/is/long@{digest}"), format!("host/a/name/that/is/long@{digest}")),
            (format!("({digest}); {digest},"), format!("({digest});\n        {digest},")),
        ] {
            assert_eq!(folded(&text, 8), lines);
        }
        // A word that is not a digest, or whose name is too long, is broken like any other.
        for text in [format!("{digest}0{digest}0"), format!("{long}@{digest}"), format!("sha256:{long}")] {
            assert!(folded(&text, 8).lines().all(|line| line.len() <= COLUMNS), "{text}");
        }
        assert_eq!(folded("kubesolo-update: done", 8), "kubesolo-update: done");
        assert_eq!(folded(&format!("{} end", "y".repeat(76)), 4), format!("{}\n    end", "y".repeat(76)));
        assert_eq!(folded(&format!("{} end", "y".repeat(75)), 4), format!("{} end", "y".repeat(75)));
    }
}

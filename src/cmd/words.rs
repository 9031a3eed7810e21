//! Lines of an answer for a person: folded, with short digests.
//!
//! Must never: fail a command because its answer could not be written.

use crate::base::digest::Digest;
use crate::base::error::Result;
use crate::base::text::{folded, printable, short_digests};
use crate::os::progress::is_verbose;
use crate::slot::record::Slot;
use crate::trust::keyring::Keyring;
use std::io::Write;

/// Column where a line's text begins, at most: after a name of 16 characters.
const MOST_LABEL_COLUMNS: usize = 20;

/// Writes a line of the answer for a person. Completed work stands; the `Reply` keeps a failed write.
/// Errors: none; the result makes it fit in a chain.
pub fn say(out: &mut dyn Write, line: &str) -> Result<()> {
    let _ = writeln!(out, "{line}");
    Ok(())
}

/// Writes a line for a person, wrapped; digests short, unless `--verbose` asks for whole ones.
/// Errors: as [`say`].
pub fn tell(out: &mut dyn Write, line: &str) -> Result<()> {
    say(out, &lines(line, is_verbose()))
}

/// Wraps a line: continuation lines begin below the text, right of its label.
fn lines(line: &str, is_verbose: bool) -> String {
    let line = if is_verbose { line.to_owned() } else { short_digests(line) };
    let is_blank = |at: usize| line.as_bytes().get(at) == Some(&b' ');
    // A label ends with at least two blanks, or consists of blanks.
    let gap = (0..MOST_LABEL_COLUMNS).find(|at| is_blank(*at) && is_blank(at + 1));
    let text = gap.and_then(|gap| (gap..=MOST_LABEL_COLUMNS).find(|at| !is_blank(*at)));
    folded(&line, text.filter(|at| line.is_char_boundary(*at)).unwrap_or(2))
}

/// Names the signers of an artifact.
pub fn signers(signed_by: &[Digest], ring: &Keyring) -> String {
    let names: Vec<String> = signed_by.iter().map(|id| ring.name(*id)).collect();
    match names.is_empty() {
        true => "not checked: signature = off, and no key is installed".to_owned(),
        false => format!("by {}", printable(&names.join(", "))),
    }
}

/// Reports that a slot is on trial from the next boot on.
/// Errors: Internal: stdout is gone.
pub fn say_activated(out: &mut dyn Write, slot: Slot, reboot: bool) -> Result<()> {
    let next = if reboot { "restarting" } else { "restart to try it" };
    tell(out, &format!("slot {slot} is active, on trial for three boots; {next}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_stands_right_of_the_label() {
        let words = "word ".repeat(30);
        for (line, indent) in [
            (format!("Slot A  {words}"), 8),
            (format!("Running   {words}"), 10),
            (format!("        {words}"), 8),
            (format!("10-db            ok          3 ms  {words}"), 17),
            (format!("healthy; {words}"), 2),
            (format!("a name that is long      and {words}"), 2),
            (format!("é  {words}"), 4),
        ] {
            let lines = lines(line.trim_end(), false);
            let mut all = lines.lines();
            assert!(line.starts_with(all.next().unwrap()), "{lines}");
            for next in all {
                assert_eq!(next.len() - next.trim_start().len(), indent, "{lines}");
                assert!(next.len() < 80, "{lines}");
            }
        }
        let digest = format!("Source  sha256:{}", "a".repeat(64));
        assert_eq!(lines(&digest, false), "Source  sha256:aaaaaaaaaaaa");
        assert_eq!(lines(&digest, true).lines().map(str::trim_start).collect::<String>().len(), digest.len());
    }
}

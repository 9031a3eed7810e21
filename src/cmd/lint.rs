//! `lint`: holds what is about to be published against the rules that machines have, with the machines' own parsers.
//!
//! For publishers and the scripts of this repository. Must never: read a machine's files, or have a rule of its own.

use super::{Outcome, say};
use crate::cli::Lint;
use crate::config;
use crate::error::{Error, IoContext, Kind, Result};
use crate::initramfs::{Judge, Tree};
use crate::progress::note;
use crate::time::parse_rfc3339;
use crate::version::Version;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

/// Read at once, in bytes.
const CHUNK: usize = 128 * 1024;
/// So many entries that the kernel leaves out are named; the rest is counted.
const NAMED: usize = 10;

/// Runs the command.
/// Errors: Usage: nothing to look at, or a file that cannot be read. Source: machines would refuse it.
pub fn run(args: &Lint, out: &mut dyn Write) -> Result<Outcome> {
    let fields = [&args.version, &args.channel, &args.min_compatible, &args.release_date, &args.expires];
    if args.initramfs.is_empty() && (args.list || fields.iter().all(|field| field.is_none())) {
        return Err(Error::new(Kind::Usage, "nothing to look at").hint("lint --help lists what it looks at"));
    }
    for (option, text) in [("--version", &args.version), ("--min-compatible", &args.min_compatible)] {
        if let Some(text) = text {
            Version::parse(text)
                .map_err(|e| e.hint(format!("{option} must be a semantic version such as 1.2.0 or 1.3.0-rc.1")))?;
        }
    }
    if let Some(channel) = &args.channel
        && !config::is_channel(channel)
    {
        return Err(Error::new(Kind::Source, config::CHANNEL_RULE).at("read --channel", channel));
    }
    for (option, text) in [("--release-date", &args.release_date), ("--expires", &args.expires)] {
        if let Some(text) = text {
            let hint = format!("{option} must be a time that exists, such as 2026-01-31T12:00:00Z");
            parse_rfc3339(text).map_err(|e| e.hint(hint.clone()))?;
            if !is_plain(text) {
                let why = "machines read it, and other tools (date, scripts/sign.sh) do not";
                return Err(Error::new(Kind::Source, why).at("read time", text).hint(hint));
            }
        }
    }
    if !args.initramfs.is_empty() {
        let tree = look_through(&args.initramfs)?;
        warn(&tree);
        if args.list {
            say(out, tree.list().trim_end())?;
        }
    }
    Ok(Outcome::Done)
}

/// With capital letters, without a blank and without a leap second.
fn is_plain(time: &str) -> bool {
    time.bytes().all(|b| b.is_ascii_digit() || b"TZ:.+-".contains(&b)) && time.get(17..19) != Some("60")
}

/// Several files are the parts of one, and judged so: one behind the other.
fn look_through(files: &[PathBuf]) -> Result<Tree> {
    let (mut judge, mut tree, mut buffer) = (Judge::default(), Tree::default(), vec![0; CHUNK]);
    let refused = |why: String, file: &PathBuf| Error::new(Kind::Source, why).at("look through", file.display());
    for file in files {
        let mut open = File::open(file).io(Kind::Usage, "open", file.display())?;
        loop {
            let length = open.read(&mut buffer).io(Kind::Usage, "read", file.display())?;
            if length == 0 {
                break;
            }
            judge.update(&buffer[..length], &mut |seen| tree.see(seen)).map_err(|why| refused(why, file))?;
        }
    }
    let last = files.last().map_or_else(PathBuf::new, PathBuf::clone);
    judge.finish().map_err(|why| refused(why, &last))?;
    Ok(tree)
}

/// The kernel boots it all the same, so this is no error.
fn warn(tree: &Tree) {
    for entry in tree.left_out.iter().take(NAMED) {
        note(&format!("warning: kernels leave out {entry}"));
    }
    if tree.left_out.len() > NAMED {
        note(&format!("warning: and {} more entries", tree.left_out.len() - NAMED));
    }
}

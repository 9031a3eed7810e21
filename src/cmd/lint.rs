//! `lint`: holds what is about to be published against the rules that machines have, with the machines' own parsers.
//!
//! For publishers and the scripts of this repository. Must never: read a machine's files, or refuse what a machine may take.

use super::answer::Reply;
use super::{Outcome, say};
use crate::cli::Lint;
use crate::config;
use crate::error::{Error, IoContext, Kind, Result};
use crate::initramfs::{Judge, Tree};
use crate::progress::note;
use crate::system::System;
use crate::time::{parse_rfc3339, rfc3339};
use crate::version::Version;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// Read at once, in bytes.
const CHUNK: usize = 128 * 1024;
/// So many entries that the kernel leaves out are named; the rest is counted.
const NAMED: usize = 10;
/// What a date may be ahead of the clock here without a warning, in seconds. Source: scripts/sign.sh signs no more.
const AHEAD_SECS: u64 = 24 * 3600;

/// Runs the command.
/// Errors: Usage: nothing to look at, or a file that cannot be read. Source: machines would refuse it.
pub fn run(args: &Lint, out: &mut Reply) -> Result<Outcome> {
    let fields = [&args.version, &args.channel, &args.min_compatible, &args.release_date, &args.expires];
    if args.initramfs.is_empty() && (args.list || fields.iter().all(|field| field.is_none())) {
        return Err(Error::new(Kind::Usage, "nothing to look at").hint("lint --help lists what it looks at"));
    }
    if args.list && !out.is_text() {
        return Err(
            Error::new(Kind::Usage, "--list leaves no room for --json or --shell").hint("leave one of them out")
        );
    }
    if let Some(channel) = &args.channel
        && !config::is_channel(channel)
    {
        return Err(Error::new(Kind::Source, config::CHANNEL_RULE).at("read --channel", channel));
    }
    judge_versions(args)?;
    if let Some(warning) = judge_times(args, System::new("/").now().earliest_secs())? {
        note(&format!("warning: {warning}"));
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

fn judge_versions(args: &Lint) -> Result<()> {
    let read = |option: &str, text: &Option<String>| {
        let hint = || format!("{option} must be a semantic version such as 1.2.0 or 1.3.0-rc.1");
        text.as_deref().map(|text| Version::parse(text).map_err(|e| e.hint(hint()))).transpose()
    };
    let (version, least) = (read("--version", &args.version)?, read("--min-compatible", &args.min_compatible)?);
    match (version, least) {
        (Some(version), Some(least)) if least > version => {
            let why = format!("it is above --version {version}: no machine that runs an older version would take it");
            Err(Error::new(Kind::Source, why)
                .at("judge --min-compatible", least)
                .hint("it is the least version that may run"))
        }
        _ => Ok(()),
    }
}

/// Pure. Returns: what is taken now and may be regretted.
/// Errors: Source: no machine would take it.
fn judge_times(args: &Lint, now_secs: u64) -> Result<Option<String>> {
    let date = args.release_date.as_deref().map(|text| read_time("--release-date", text)).transpose()?;
    let now = rfc3339(now_secs);
    if let Some(text) = &args.expires {
        let expires_secs = read_time("--expires", text)?;
        let refused = |why: String| Err(Error::new(Kind::Source, why).at("judge --expires", text));
        if expires_secs <= now_secs {
            return refused(format!("it is past, now is {now}: no machine would take the release"));
        }
        if date.is_some_and(|date_secs| expires_secs <= date_secs) {
            return refused("it is not after --release-date: no machine would ever take the release".into());
        }
    }
    let is_ahead = date.is_some_and(|date_secs| date_secs > now_secs.saturating_add(AHEAD_SECS));
    Ok(args.release_date.as_ref().filter(|_| is_ahead).map(|text| {
        format!(
            "--release-date {text} is more than a day ahead, now is {now}: a machine on which the release has run takes none \
             with an earlier date, so that until then no other reaches it"
        )
    }))
}

fn read_time(option: &str, text: &str) -> Result<u64> {
    let hint = || format!("{option} must be a time that exists, such as 2026-01-31T12:00:00Z");
    let secs = parse_rfc3339(text).map_err(|e| e.hint(hint()))?;
    if !is_plain(text) {
        let why = "machines read it, and other tools (date, scripts/sign.sh) do not";
        return Err(Error::new(Kind::Source, why).at("read time", text).hint(hint()));
    }
    Ok(secs)
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

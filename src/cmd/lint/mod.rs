//! `lint`: checks what is about to be published against the rules of machines, with the machines' own parsers.
//!
//! For publishers and the scripts of this repository. Must never: read a machine's files, or refuse what a machine may take.

mod kernel;
mod machine;
mod times;

use super::Outcome;
use super::answer::Reply;
use crate::base::error::{Error, IoContext, Kind, Result};
use crate::base::url::Url;
use crate::cli::publishers::Lint;
use crate::cli::{Common, Flags};
use crate::cmd::words::say;
use crate::config::{self, Config};
use crate::offer::version::Version;
use crate::os::progress::note;
use crate::os::system::System;
use crate::slot::initramfs::{Judge, Tree};
use crate::source::spec::SourceSpec;
use crate::trust::keyring::Keyring;
use crate::trust::offered::Offered;
use machine::{Machine, of_interest};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use times::Dates;

/// Read at once, in bytes.
const CHUNK: usize = 128 * 1024;
/// Entries left out by the kernel that are named; the rest are counted.
const NAMED: usize = 10;

/// Runs the command.
/// Errors: Usage: nothing to look at, or a file that cannot be read. Source: machines would refuse it. Config: they would no
/// longer take updates.
pub fn run(args: &Lint, out: &mut Reply) -> Result<Outcome> {
    let fields = [&args.version, &args.channel, &args.min_compatible, &args.release_date, &args.expires];
    let is_trust = !args.keys.is_empty() || args.site_dir.is_some() || args.conf.is_some();
    let is_trust_or_kernel = is_trust || args.kernel.is_some();
    if args.initramfs.is_empty() && (args.list || !is_trust_or_kernel && fields.iter().all(|field| field.is_none())) {
        return Err(Error::new(Kind::Usage, "nothing to look at").hint("lint --help lists what it looks at"));
    }
    if args.list && !out.is_text() {
        return Err(
            Error::new(Kind::Usage, "--list leaves no room for --json or --shell").hint("leave one of them out")
        );
    }
    if args.list && is_trust {
        return Err(Error::new(
            Kind::Usage,
            "--list judges no keys: leave it out beside --keys, --site-dir and --conf",
        ));
    }
    if let Some(channel) = &args.channel
        && !config::is_channel(channel)
    {
        return Err(Error::new(Kind::Source, config::CHANNEL_RULE).at("read --channel", channel));
    }
    judge_kernel(args)?;
    judge_versions(args)?;
    judge_dates(args, out)?;
    let tree = look_through(&args.initramfs, Tree::default())?;
    warn(&tree);
    if args.list {
        say(out, tree.list().trim_end())?;
    } else {
        judge_trust(args, &tree)?;
    }
    Ok(Outcome::Done)
}

fn judge_kernel(args: &Lint) -> Result<()> {
    match (&args.kernel, args.arch.as_deref()) {
        (None, None) => Ok(()),
        (Some(path), Some(arch @ ("amd64" | "arm64"))) => kernel::judge(path, arch),
        _ => Err(Error::new(Kind::Usage, "--kernel FILE needs --arch amd64 or arm64, and --arch is for --kernel")),
    }
}

fn judge_dates(args: &Lint, out: &mut Reply) -> Result<()> {
    let now_secs = System::new("/").now().earliest_secs();
    let dates = times::settle(args.release_date.as_deref(), args.expires.as_deref(), now_secs)?;
    if let Some(warning) = times::judge(&dates, now_secs)? {
        note(&format!("warning: {warning}"));
    }
    if let Dates { release, expires, are_made: true } = dates {
        for (option, member, moment) in [("release-date", "release_date", release), ("expires", "expires", expires)] {
            if let Some(moment) = moment {
                say(out, &format!("--{option} {moment}"))?;
                out.members.field(member, &moment);
            }
        }
    }
    Ok(())
}

/// Judges files that are put onto machines by hand, and what machines will have in total.
fn judge_trust(args: &Lint, tree: &Tree) -> Result<()> {
    let mut config = args.conf.as_deref().map(read_config).transpose()?;
    let mut offered = Vec::new();
    for dir in &args.keys {
        offered.push(Offered::load(dir)?);
    }
    if let Some(dir) = &args.site_dir {
        offered.push(Offered::of_site(dir)?);
        let own = Some(dir.join("update.conf")).filter(|path| config.is_none() && path.exists());
        config = own.as_deref().map(read_config).transpose()?.or(config);
    }
    offered.iter().flat_map(|offered| &offered.warnings).for_each(|warning| note(warning));
    let interest = of_interest(tree);
    let Some(last) = args.initramfs.last().filter(|_| !interest.is_empty()) else { return Ok(()) };
    let nodes = interest.iter().filter(|lying| lying.is_file()).map(|lying| lying.node);
    let tree = look_through(&args.initramfs, Tree::keeping(nodes))?;
    let mut machine = Machine::new()?;
    let judged = machine.unpack(&tree).and_then(|()| judge_machine(&machine, &offered, config));
    judged.map_err(|e| Error::new(Kind::Config, machine.told(&e)).at("judge what machines have with", last.display()))
}

/// Errors: Config: the machine would take no update.
fn judge_machine(machine: &Machine, offered: &[Offered], config: Option<Config>) -> Result<()> {
    for offered in offered {
        machine.add(&offered.keys, false)?;
        machine.add(&offered.lists, true)?;
    }
    let config = match (config, machine.config()) {
        (None, Some(path)) => Some(read_config(&path)?),
        (config, _) => config,
    };
    let policy = config.map(|config| (config.signature, config.signature_threshold));
    let (policy, threshold) = policy.unwrap_or((config::SignaturePolicy::Required, 1));
    let ring = Keyring::load(&machine.keys(), policy, threshold)?;
    for fault in ring.faults() {
        note(&format!("warning: machines pass over a key: {}", machine.told(fault)));
    }
    match ring.demands_signatures() {
        Err(e) if e.kind() == Kind::Config && ring.trusted().next().is_none() => Err(e),
        // The site may add more.
        Err(e) if e.kind() == Kind::Config => {
            note(&format!("warning: {}: machines take no update until more are there", machine.told(&e)));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Reads a configuration as machines do, except for the files that it names, which are theirs.
fn read_config(path: &Path) -> Result<Config> {
    let flags = Flags { config: Some(path.to_path_buf()), ..Flags::default() };
    let config = config::load_named(&System::new("/"), &Common { flags, command: "lint" })?;
    if let Some(SourceSpec::Http { server, .. }) = &config.source {
        // Machines read it when it is asked.
        Url::configured(server).map_err(|e| e.at("read", path.display()))?;
    }
    Ok(config)
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

/// Judges several files as the parts of one, in order.
fn look_through(files: &[PathBuf], mut tree: Tree) -> Result<Tree> {
    let (mut judge, mut buffer) = (Judge::default(), vec![0; CHUNK]);
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
    match files.last() {
        Some(last) => judge.finish().map_err(|why| refused(why, last)).map(|()| tree),
        None => Ok(tree),
    }
}

/// Warns only: the kernel boots it anyway.
fn warn(tree: &Tree) {
    for entry in tree.left_out.iter().take(NAMED) {
        note(&format!("warning: kernels leave out {entry}"));
    }
    if tree.left_out.len() > NAMED {
        note(&format!("warning: and {} more entries", tree.left_out.len() - NAMED));
    }
}

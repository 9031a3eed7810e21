//! `metrics`: what Prometheus scrapes: served, printed once, or written for node_exporter.
//!
//! Must never: take the lock, change anything except the named file, or keep a mount between two scrapes.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::cli::{self, Common};
use crate::cmd::Outcome;
use crate::cmd::answer::Reply;
use crate::cmd::words::say;
use crate::config::{self, Config};
use crate::observe::prometheus::{Facts, text};
use crate::observe::server;
use crate::os::files::{self, read_bounded};
use crate::os::progress::{aside, note};
use crate::os::system::System;
use crate::update::judge::would_take;
use crate::update::report::Report;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

const DEFAULT_LISTEN: &str = "127.0.0.1:9199";
/// `/proc/stat` has a line with a number for each interrupt before the one that counts.
const PROC_MAX_BYTES: u64 = 1024 * 1024;
/// node_exporter runs as another user.
const TEXTFILE_MODE: u32 = 0o644;
/// The ending of the file names that it reads.
const TEXTFILE_ENDING: &[u8] = b".prom";
/// Standard output instead of a file.
const STANDARD_OUTPUT: &str = "-";

/// Runs the command.
/// Errors: Usage: more than one way, or a malformed address or file name. Network: the address cannot be
/// listened on. State: the file cannot be written.
pub fn run(system: &System, config: &Config, flags: &Common, args: &cli::Metrics, out: &mut Reply) -> Result<Outcome> {
    let ways = [args.listen.is_some(), args.once, args.textfile.is_some()];
    if ways.iter().filter(|way| **way).count() > 1 {
        return Err(Error::new(Kind::Usage, "--listen, --once and --textfile cannot be used together"));
    }
    let is_printed = args.once || args.textfile.as_deref() == Some(Path::new(STANDARD_OUTPUT));
    if is_printed && !out.is_text() {
        return Err(Error::new(Kind::Usage, "--json and --shell cannot be combined with metrics on standard output")
            .hint("--textfile FILE.prom writes the metrics to a file"));
    }
    match &args.textfile {
        path if args.once || path.as_deref() == Some(Path::new(STANDARD_OUTPUT)) => {
            say(out, gather(system, config).trim_end())?
        }
        Some(path) => write(path, &|| gather(system, config))?,
        None => serve(system, config, flags, args)?,
    }
    Ok(Outcome::Done)
}

fn gather(system: &System, config: &Config) -> String {
    let report = Report::gather(system, config);
    if let Some(denied) = &report.denied {
        note(&format!("{denied}; what could not be looked at is left out"));
    }
    let read = |name| read_bounded(&system.path(name), PROC_MAX_BYTES).ok().flatten().unwrap_or_default();
    let available = would_take(&report, config, system.now());
    text(&Facts { report: &report, available, meminfo: &read("/proc/meminfo"), stat: &read("/proc/stat") })
}

fn write(path: &Path, gather: &dyn Fn() -> String) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(Error::new(Kind::Usage, "it is not a regular file").at("write --textfile", path.display()));
    }
    if !path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(TEXTFILE_ENDING)) {
        return Err(Error::new(Kind::Usage, "node_exporter reads only files whose name ends in .prom")
            .at("write --textfile", path.display())
            .hint("`--textfile -` writes to standard output"));
    }
    files::replace_with_mode(path, gather().as_bytes(), TEXTFILE_MODE).io(Kind::State, "write", path.display())
}

fn serve(system: &System, config: &Config, flags: &Common, args: &cli::Metrics) -> Result<()> {
    let address = args.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
    let parsed: SocketAddr = address.parse().map_err(|_| {
        Error::new(Kind::Usage, "it is not an IP address and a port, such as 127.0.0.1:9199 or [::]:9199")
            .at("use --listen", address)
    })?;
    let listener = TcpListener::bind(parsed)
        .io(Kind::Network, "listen on", address)
        .map_err(|e| e.hint("--listen names another address; another `metrics` may run"))?;
    let port = listener.local_addr().io(Kind::Network, "listen on", address)?.port();
    // With port 0 the system chose one.
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    aside(&format!("metrics at http://{host}:{port}/metrics"));
    let mut gather = || {
        // The present configuration, not the one at the start; while the file is broken, the one at the start.
        let now = config::load(system, flags);
        Ok(gather(system, now.as_ref().unwrap_or(config)))
    };
    server::serve(&listener, &mut gather, &|| system.now().moment_secs())
}

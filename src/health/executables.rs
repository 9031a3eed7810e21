//! The site's own health checks: executables in one directory, run in the order of their names.
//!
//! Exit status 0 is healthy; otherwise the last line of output is the reason. Each has a time limit, and its child
//! processes end with it. Must never: run a file that anyone but root may write or redirect.

use crate::base::error::{Error, IoContext, Kind, Result};
use crate::base::text::printable;
use crate::os::directory;
use crate::os::files;
use crate::os::permissions::{Insist, check_owner};
use crate::os::sys;
use crate::os::sys::spawn::Child;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Bytes kept of a check's output.
const OUTPUT_MAX_BYTES: usize = 4096;
/// Interval at which a running check is polled.
const POLL: Duration = Duration::from_millis(20);

/// How long a killed check may take to end, and a check that is being written may stay busy.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Lists the checks: executable regular files, in the order of their names.
/// Returns: none if there is no such directory.
/// Errors: Config: it cannot be listed; anyone but root could have changed it or a check; or a check is a program without
/// execute permission, which the operator relies on.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    if !Insist::Directory.find(dir)? {
        return Ok(paths);
    }
    for path in directory::list(dir).io(Kind::Config, "list health checks in", dir.display())? {
        // An editor's lock is a dangling symlink.
        if path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        let looked = |meta: io::Result<fs::Metadata>| meta.io(Kind::Config, "look at health check", path.display());
        let entry = looked(path.symlink_metadata())?;
        if entry.is_dir() {
            continue;
        }
        let meta = looked(path.metadata())?;
        let is_text = meta.is_file() && meta.mode() & 0o111 == 0 && !is_program(&path);
        // Another user could turn a check into a text, or redirect it to one: owners of skipped files are checked as well.
        match () {
            () if is_text && entry.is_file() => check_owner(&path, &entry)?,
            () if is_text => drop(Insist::Trusted.find(&path)?),
            // A link to /dev/null masks a check.
            () if !meta.is_file() => check_owner(&path, &entry)?,
            () => {
                Insist::Executable.find(&path)?;
                paths.push(path);
            }
        }
    }
    Ok(paths)
}

/// Distinguishes a script or ELF program that lacks execute permission from a text beside the checks.
fn is_program(path: &Path) -> bool {
    let mut start = [0; 4];
    // A shorter file leaves zeros at the end.
    let read = files::open(path, 0).and_then(|mut file| file.read(&mut start));
    read.is_ok() && (start.starts_with(b"#!") || start == *b"\x7fELF")
}

/// Names a check.
pub fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| printable(&n.to_string_lossy()))
}

/// Runs one check.
/// Input: `limit`: then it is killed, with its whole process group; `alive`: called several times a second.
/// Returns: its last line of output. Errors: Unhealthy: why it failed.
pub fn run(path: &Path, limit: Duration, alive: &mut dyn FnMut()) -> Result<String> {
    let failed = |why: String| Err(Error::new(Kind::Unhealthy, why));
    match attempt(path, limit, alive) {
        Ok((Some(status), said)) if status.success() => Ok(said),
        Ok((Some(status), said)) => failed(with_words(&describe(status), &said)),
        Ok((None, said)) => failed(with_words(&format!("not done after {} s", limit.as_secs()), &said)),
        Err(e) => failed(e.to_string()),
    }
}

fn attempt(path: &Path, limit: Duration, alive: &mut dyn FnMut()) -> io::Result<(Option<ExitStatus>, String)> {
    let (mut output, writer) = io::pipe()?;
    let start = Instant::now();
    let mut child = loop {
        match Child::spawn(path, &writer) {
            // Another process is still writing it, or has just forked with it open.
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && start.elapsed() < LAST_WAIT.min(limit) => {
                alive();
                std::thread::sleep(POLL);
            }
            child => break child?,
        }
    };
    // Otherwise the output would never reach its end.
    drop(writer);
    sys::set_nonblocking(&output)?;
    wait(&mut child, limit, &mut output, alive)
}

/// Waits for the end or the limit, then kills the whole process group.
fn wait(
    child: &mut Child,
    limit: Duration,
    output: &mut io::PipeReader,
    alive: &mut dyn FnMut(),
) -> io::Result<(Option<ExitStatus>, String)> {
    let start = Instant::now();
    let mut said = Vec::new();
    let has_ended = loop {
        drain(output, &mut said);
        // Not reaped yet: otherwise its number could be reused, and the wrong group killed.
        if sys::has_ended(child.id())? {
            break true;
        }
        if start.elapsed() >= limit {
            break false;
        }
        alive();
        std::thread::sleep(POLL);
    };
    // The check's remaining processes end with it; there may be none left.
    let _ = sys::kill_group(child.id());
    let status = match has_ended {
        true => child.try_wait()?,
        false => {
            // It may have left its group.
            child.kill()?;
            bury(child, alive)?;
            None
        }
    };
    drain(output, &mut said);
    Ok((status, last_line(&said)))
}

/// Waits for a killed check to end, within a limit: one that hangs in the kernel (a dead disk) never does.
fn bury(child: &mut Child, alive: &mut dyn FnMut()) -> io::Result<()> {
    let start = Instant::now();
    while child.try_wait()?.is_none() && start.elapsed() < LAST_WAIT {
        alive();
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Reads the available output, and keeps its end.
fn drain(output: &mut io::PipeReader, said: &mut Vec<u8>) {
    let mut buffer = [0u8; 1024];
    // A check that writes without pause is polled again after each 64 KiB.
    for _ in 0..64 {
        match output.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => said.extend_from_slice(&buffer[..length]),
        }
        if said.len() > OUTPUT_MAX_BYTES {
            said.drain(..said.len() - OUTPUT_MAX_BYTES);
        }
    }
}

fn last_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    printable(text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().trim())
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_string(),
    }
}

fn with_words(what: &str, said: &str) -> String {
    if said.is_empty() { what.to_string() } else { format!("{said}, {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn check(dir: &Path, name: &str, mode: u32, script: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn lists_executables_in_order_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), "20-b", 0o755, "");
        check(dir.path(), "10-a", 0o700, "");
        fs::write(dir.path().join("README"), "What is checked here.\n").unwrap();
        check(dir.path(), ".hidden", 0o755, "");
        std::os::unix::fs::symlink("root@edge-7.812", dir.path().join(".#10-a")).unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        let names: Vec<_> = list(dir.path()).unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["10-a", "20-b"]);
        assert!(list(&dir.path().join("absent")).unwrap().is_empty());
        check(dir.path(), "30-open", 0o775, "");
        assert_eq!(list(dir.path()).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_program_that_may_not_be_run_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [b"#!/bin/sh\n".to_vec(), fs::read("/bin/true").unwrap()] {
            let path = dir.path().join("10-disk");
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            let refused = list(dir.path()).unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains("not executable"), "{refused}");
        }
    }

    #[test]
    fn exit_status_and_last_line_are_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(60);
        for (script, failure) in [
            ("echo fine; exit 0", None),
            ("echo one; echo two >&2; echo; exit 3", Some("two, exit status 3")),
            ("exit 1", Some("exit status 1")),
            ("kill -TERM $$", Some("ended by signal 15")),
            ("head -c 300000 /dev/zero | tr '\\0' 'x'; echo; echo end; exit 1", Some("end, exit status 1")),
        ] {
            let path = check(dir.path(), "c", 0o755, script);
            let ended = run(&path, limit, &mut || {}).map_err(|e| e.to_string());
            assert_eq!(ended.err().as_deref(), failure, "{script}");
        }
        let missing = check(dir.path(), "m", 0o755, "");
        fs::write(&missing, "#!/no/such/interpreter\n").unwrap();
        assert!(run(&missing, limit, &mut || {}).is_err());
    }

    #[test]
    fn a_check_that_hangs_ends_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("pid");
        let script = format!("echo waiting; sleep 600 & echo $! > {}; wait", mark.display());
        let path = check(dir.path(), "c", 0o755, &script);
        let mut signs = 0;
        let ended = run(&path, Duration::from_secs(2), &mut || signs += 1);
        assert_eq!(ended.unwrap_err().to_string(), "waiting, not done after 2 s");
        assert!(signs > 1, "the watchdog would have bitten");
        let pid = fs::read_to_string(mark).unwrap();
        let runs = || {
            let status = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !status.is_empty() && !status.contains(") Z")
        };
        // A busy machine needs time to end killed processes.
        let ended = (0..600).any(|_| {
            !runs() || {
                std::thread::sleep(Duration::from_millis(50));
                false
            }
        });
        assert!(ended, "still running");
    }

    #[test]
    fn a_check_that_is_being_written_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = check(dir.path(), "c", 0o755, "exit 0");
        let mut writer = Some(fs::OpenOptions::new().append(true).open(&path).unwrap());
        let mut waits = 0;
        let ended = run(&path, Duration::from_secs(60), &mut || {
            waits += 1;
            writer.take_if(|_| waits > 2);
        });
        assert!(ended.is_ok() && writer.is_none(), "{:?}", ended.err());
    }

    #[test]
    fn a_check_that_left_its_group_ends_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let script = "exec perl -e 'setpgrp(0, getpgrp(getppid())) or die; $| = 1; print qq(gone\\n); sleep 60'";
        let path = check(dir.path(), "c", 0o755, script);
        let start = Instant::now();
        let ended = run(&path, Duration::from_secs(2), &mut || {});
        assert_eq!(ended.unwrap_err().to_string(), "gone, not done after 2 s");
        assert!(start.elapsed() < Duration::from_secs(50), "waited for its own end");
    }

    #[test]
    fn a_child_that_keeps_the_output_open_does_not_hold_us_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = check(dir.path(), "c", 0o755, "sleep 600 & exit 0");
        let start = Instant::now();
        assert!(run(&path, Duration::from_secs(300), &mut || {}).is_ok());
        assert!(start.elapsed() < Duration::from_secs(200));
    }
}

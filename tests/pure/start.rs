//! What is there before the first line of the program runs: its words, its descriptors, its signals; and how it ends.

use crate::support::command;
use crate::support::root::{Root, Run};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// What is typed, its exit code, and words of what is said. A line more is a case more.
const WORDS: &[(&[&[u8]], i32, &str)] = &[
    (&[], 2, "no command"),
    (&[b""], 2, "unknown command ``"),
    (&[b"--version"], 0, "kubesolo-update "),
    (&[b"--help"], 0, "Commands:"),
    (&[b"check", b"--config", b"/no such place/\xc3\xa9"], 2, "/no such place/\u{e9}"),
    (&[b"check", b"--config", b" two  words "], 2, " two  words "),
    (&[b"\xff"], 2, "an argument is not UTF-8"),
    (&[b"check", b"--config", b"/caf\xe9"], 2, "an argument is not UTF-8"),
    (&[b"--version", b"cut off \xc3"], 2, "an argument is not UTF-8"),
    (&[b"--help", b"\xed\xa0\x80"], 2, "an argument is not UTF-8"),
];

#[apply(test)]
fn words_arrive_as_they_were_typed() {
    for (words, code, said) in WORDS {
        let words = words.iter().map(|word| OsStr::from_bytes(word));
        let run = Run::from(Command::new(Root::program()).args(words).output().unwrap());
        let _ = run.expect(*code, &[said]);
    }
    let many: Vec<String> = (0..5000).map(|n| format!("--frob{n}")).collect();
    Run::from(Command::new(Root::program()).args(&many).output().unwrap()).expect(2, &["--frob0"]);
}

#[apply(test)]
fn an_answer_that_cannot_be_written_is_an_error_and_a_reader_that_goes_away_is_none() {
    let ended = |word: &str, stdout: Stdio| {
        let run = Run::from(Command::new(Root::program()).arg(word).stdout(stdout).output().unwrap());
        (run.code, run.stderr)
    };
    for word in ["--help", "--version"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, said) = ended(word, full.into());
        assert!(code == 1 && said.contains("the answer could not be written"), "{word}: {code} {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(ended(word, writer.into()), (0, String::new()), "{word}");
    }
}

/// The server of `metrics`, which runs until it is killed, started with some descriptors closed.
struct Server(Child, #[allow(dead_code)] tempfile::TempDir);

impl Server {
    fn start(closed: &str) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = command("sh");
        shell.args(["-c", &format!("exec \"$@\" {closed}"), "sh"]).arg(Root::program());
        shell.args(["metrics", "--listen", "127.0.0.1:0", "--root"]).arg(dir.path());
        let nothing = || Stdio::from(fs::File::options().read(true).write(true).open("/dev/zero").unwrap());
        Server(shell.stdin(nothing()).stdout(nothing()).stderr(nothing()).spawn().unwrap(), dir)
    }

    fn descriptor(&self, number: i32) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/fd/{number}", self.0.id())).ok()
    }

    /// Waits until it listens: it has started then.
    fn wait(&self) {
        let begun = Instant::now();
        while !(0..10)
            .filter_map(|number| self.descriptor(number))
            .any(|what| what.to_string_lossy().starts_with("socket:"))
        {
            assert!(begun.elapsed() < PATIENCE, "it does not listen");
            std::thread::yield_now();
        }
    }

    /// A set of signals as the kernel lists it.
    fn signals(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let set = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap();
        u64::from_str_radix(set, 16).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is opened gets the lowest number that is free, and an answer would be written into it.
#[apply(test)]
fn what_is_opened_never_becomes_a_standard_descriptor() {
    for closed in ["", "<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let server = Server::start(closed);
        server.wait();
        for (number, redirection) in ["<&-", ">&-", "2>&-"].iter().enumerate() {
            let is_closed = closed.split(' ').any(|word| word == *redirection);
            let wanted = if is_closed { "/dev/null" } else { "/dev/zero" };
            let found = server.descriptor(number.try_into().unwrap());
            assert_eq!(found.as_deref(), Some(Path::new(wanted)), "{closed:?}: {number}");
        }
    }
}

#[apply(test)]
fn a_closed_pipe_is_no_signal_and_none_is_blocked() {
    let server = Server::start("");
    server.wait();
    let pipe = 1 << (libc::SIGPIPE - 1);
    assert_eq!(server.signals("SigIgn") & pipe, pipe, "{:x}", server.signals("SigIgn"));
    assert_eq!(server.signals("SigBlk"), 0);
}

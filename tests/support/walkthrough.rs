//! A document of commands, followed as a person would: in one shell on this machine, and on the console of a machine
//! that `scripts/vm.sh` started.
//!
//! What a fenced block is for stands behind its language: nothing (a shell here), `in a second terminal` (starts the
//! machine), `on the machine` (typed on its console), `press` (keys for GRUB). A `text` block is what the console says
//! next: each of its lines has to come, in order, with whatever lies between them.

use super::kit::repo;
use super::loader::asks;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest that one block may take, builds and boots included.
const LIMIT: Duration = Duration::from_secs(600);
/// What the console shows when it waits for a command.
const PROMPT: &str = "~ # ";
/// What the stand-in for the system says first, at each boot.
const BOOTS: &str = "TEST: version";
const END: &str = "@end-of-block";
/// Most times that GRUB's two seconds are tried for.
const ESCAPES: usize = 5;

/// One fenced block.
pub struct Block {
    /// Its language, and what stands behind it.
    pub info: String,
    pub text: String,
    /// Where in the document it begins.
    pub line: usize,
}

/// Lists the fenced blocks of a document.
pub fn blocks(document: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (line, text) in (1..).zip(document.lines()) {
        match (text.strip_prefix("```"), is_open) {
            (Some(info), false) => {
                found.push(Block { info: info.to_string(), text: String::new(), line });
                is_open = true;
            }
            (Some(_), true) => is_open = false,
            (None, true) => {
                let block = found.last_mut().unwrap();
                block.text.push_str(text);
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!is_open, "a block does not end");
    found
}

/// A program with its own process group; the group ends with it.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    said: Receiver<Vec<u8>>,
    text: String,
    /// Up to here it has been looked at.
    seen: usize,
    /// Here the answers begin to what was typed last.
    answers: usize,
    /// Up to here, prompts have been answered.
    asked: usize,
}

impl Terminal {
    fn start(mut command: Command) -> Terminal {
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (keys, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, said) = channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut chunk) {
                if send.send(chunk[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { child, keys, said, text: String::new(), seen: 0, answers: 0, asked: 0 }
    }

    fn send(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).and_then(|()| self.keys.flush()).expect("it takes what is typed");
    }

    /// Waits for words behind those that were waited for last.
    #[track_caller]
    fn wait(&mut self, words: &str, what: &str) {
        self.wait_either([words, words], what);
    }

    /// Waits for one or the other. Returns: which came.
    #[track_caller]
    fn wait_either<'a>(&mut self, words: [&'a str; 2], what: &str) -> &'a str {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = words.into_iter().filter_map(|w| Some((self.text[self.seen..].find(w)?, w))).min();
            if let Some((at, word)) = found {
                self.seen += at + word.len();
                return word;
            }
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.hear(&bytes),
                Err(e) => panic!("{what}: no '{}' ({e}); it said:\n{}", words.join("' or '"), self.text),
            }
        }
    }

    /// Keeps what a person would read: no colours and no movements of the cursor.
    fn hear(&mut self, bytes: &[u8]) {
        self.text.extend(bytes.iter().filter(|b| **b != b'\r').map(|b| char::from(b & 0x7f)));
        while let Some(at) = self.text.find("\x1b[") {
            let rest = &self.text[at + 2..];
            let Some(end) = rest.find(|c: char| c.is_ascii_alphabetic()) else { return };
            self.text.replace_range(at..at + 2 + end + 1, "");
            self.seen = self.seen.min(self.text.len());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // With all that it started.
        let _ =
            Command::new("kill").args(["-TERM", "--", &format!("-{}", self.child.id())]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// Somebody who follows a document.
pub struct Walk {
    dir: PathBuf,
    shell: Terminal,
    machine: Option<Terminal>,
}

impl Walk {
    /// Sits down in an empty directory. Input: `environment`: what the shell is to have.
    pub fn new(dir: &Path, environment: &[(&str, &str)]) -> Walk {
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec sh 2>&1"]).current_dir(dir).envs(environment.iter().copied());
        let mut shell = Terminal::start(shell);
        shell.send(b"set -eu\n");
        Walk { dir: dir.to_path_buf(), shell, machine: None }
    }

    /// Does what a block says.
    #[track_caller]
    pub fn follow(&mut self, block: &Block) {
        let what = format!("line {} ({})", block.line, block.info);
        match block.info.as_str() {
            "sh" => self.run(&block.text, &what),
            "sh in a second terminal" => self.start_machine(&block.text),
            "sh on the machine" => {
                let machine = self.machine();
                machine.answers = machine.seen;
                block.text.lines().for_each(|line| self.type_line(line, &what));
            }
            "text press" => block.text.lines().for_each(|line| self.press(line, &what)),
            "text" => {
                let machine = self.machine();
                // Prompts that came in between have been looked at.
                let asked = machine.seen;
                machine.seen = machine.answers;
                block.text.lines().for_each(|line| machine.wait(line, &what));
                machine.answers = machine.seen;
                machine.seen = machine.seen.max(asked);
            }
            other => panic!("line {}: nobody knows what '{other}' is for", block.line),
        }
    }

    #[track_caller]
    fn machine(&mut self) -> &mut Terminal {
        self.machine.as_mut().expect("a machine runs")
    }

    #[track_caller]
    fn run(&mut self, text: &str, what: &str) {
        self.shell.send(format!("{text}\necho {END}\n").as_bytes());
        self.shell.wait(&format!("{END}\n"), what);
    }

    fn start_machine(&mut self, text: &str) {
        // The one before it ends when its terminal is closed.
        self.machine = None;
        let mut command = Command::new("sh");
        command.args(["-euc", &format!("exec {}", text.trim())]).current_dir(&self.dir).env("KUBESOLO", repo());
        self.machine = Some(Terminal::start(command));
    }

    #[track_caller]
    fn type_line(&mut self, line: &str, what: &str) {
        let machine = self.machine();
        // What runs beside the shell may have said its words behind the prompt; but the prompt is of this boot.
        let read = machine.seen;
        let boot = machine.text[..read].rfind(BOOTS).unwrap_or(0);
        machine.seen = read.min(machine.asked.max(boot));
        machine.wait(PROMPT, what);
        machine.seen = machine.seen.max(read);
        machine.send(format!("{line}\n").as_bytes());
        // Its echo is no answer.
        machine.wait("\n", what);
        machine.asked = machine.seen;
    }

    /// Presses a key when GRUB asks for it.
    #[track_caller]
    fn press(&mut self, key: &str, what: &str) {
        let machine = self.machine();
        if key != "Escape" {
            // The clock runs: keys are being read.
            machine.wait("59    ", what);
            return machine.send(key.as_bytes());
        }
        let asks = asks();
        for _ in 0..ESCAPES {
            machine.wait("2    ", what);
            machine.send(b"\x1b");
            if machine.wait_either([asks, PROMPT], what) == asks {
                return;
            }
            // Too late: a busy host took two seconds. A person would start it once more.
            machine.send(b"reboot -f\n");
        }
        panic!("{what}: GRUB does not listen:\n{}", machine.text);
    }
}

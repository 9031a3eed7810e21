//! A `--root` directory that stands for a machine booted from a disk, and the agent run in it.

use super::disk::{A, Disk};
use super::{answers, command, run};
use kubesolo_update::parts::base::text::short_digests;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The machine's own directories that the agent needs below a root.
const ENVIRONMENT_BLOCK: &str = "boot/efi/boot/grub";

/// Lines of `update.conf` for a machine on which no KubeSolo runs.
pub const NO_NODE: &str = "containerd_socket = off\nkubeconfig = off\n";

/// A machine, as far as the agent can tell.
pub struct Root {
    dir: TempDir,
    boots: u32,
}

/// How a run of the agent ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(out: Output) -> Run {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the agent writes UTF-8");
        let (stdout, stderr) = (text(out.stdout), text(out.stderr));
        let code = out.status.code().unwrap_or_else(|| panic!("no exit code: {}\n{stdout}\n{stderr}", out.status));
        if answers::is_document(&stdout) {
            // One line, which knows how the run ended.
            let said = format!("\"exit_code\":{code},");
            let is_whole = stdout.contains(&said) && stdout.find('\n') == Some(stdout.len() - 1);
            assert!(is_whole, "exit code {code}: {stdout}\n{stderr}");
            answers::collect(&stdout);
        }
        Run { code, stdout, stderr }
    }
}

impl Run {
    /// Holds the exit code, and words that the answer or the error must have.
    #[track_caller]
    pub fn expect(self, code: i32, words: &[&str]) -> Run {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        let flowing = unfolded(&said);
        for word in words {
            // A person reads twelve digits of a digest.
            let short = short_digests(word);
            assert!(
                said.contains(word) || flowing.contains(word) || flowing.contains(&*short),
                "'{word}' is missing\nstdout: {}\nstderr: {}",
                self.stdout,
                self.stderr
            );
        }
        self
    }

    /// Reads stdout, one JSON document, with jq.
    #[track_caller]
    pub fn jq(&self, filter: &str) -> String {
        jq(&self.stdout, filter)
    }
}

/// Makes one line again of a text that was too wide for one: what goes on begins with blanks.
pub fn unfolded(said: &str) -> String {
    let mut out = String::new();
    for line in said.lines() {
        match line.strip_prefix(' ') {
            Some(rest) => out.extend([" ", rest.trim_start()]),
            None => out.extend(["\n", line]),
        }
    }
    out
}

/// What a real jq makes of a document: strings without quotes.
/// Panics: it is no JSON, or more than one document.
#[track_caller]
pub fn jq(text: &str, filter: &str) -> String {
    answers::collect(text);
    let filter = format!("if length == 1 then .[0] | ({filter}) else error(\"not one document\") end");
    let mut jq = command("jq");
    jq.args(["-s", "-r", "-c", &filter]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("document.json");
    fs::write(&file, text).unwrap();
    let out = jq.arg(&file).output().unwrap();
    assert!(out.status.success(), "{}: {text}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim_end().to_string()
}

impl Root {
    /// Makes the machine that booted slot A of a disk for the first time.
    pub fn new(disk: &Disk) -> Root {
        let mut root = Root { dir: tempfile::tempdir().unwrap(), boots: 0 };
        for dir in ["proc/sys/kernel/random", ENVIRONMENT_BLOCK, "var/lib/kubesolo", "etc/kubesolo", "run"] {
            fs::create_dir_all(root.path(dir)).unwrap();
        }
        for name in ["sys", "dev"] {
            symlink(format!("/{name}"), root.path(name)).unwrap();
        }
        for name in ["grubenv", "grubenv.bak"] {
            fs::write(root.path(ENVIRONMENT_BLOCK).join(name), disk.efi_file(&format!("/boot/grub/{name}"))).unwrap();
        }
        // Faults of a test last: to try again only takes time.
        root.configure("signature = off\nretries = 0\n");
        root.boot('A', Some(&disk.guid(A)));
        root
    }

    /// A path below the root.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Writes `update.conf`, of a machine that has no KubeSolo to be asked for its health.
    pub fn configure(&self, text: &str) {
        // What was read from it has those lines already.
        let more = if text.contains(NO_NODE) { "" } else { NO_NODE };
        self.configure_node(&format!("{text}\n{more}"));
    }

    /// Writes `update.conf` as it is.
    pub fn configure_node(&self, text: &str) {
        fs::write(self.path("etc/kubesolo/update.conf"), text).unwrap();
    }

    /// Installs a health check. Input: `name`: below health.d, a directory and all; `script`: for a shell.
    pub fn install_check(&self, name: &str, script: &str) {
        let path = self.path("etc/kubesolo/health.d").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Makes it the machine's next boot, as the kernel tells it.
    pub fn boot(&mut self, slot: char, partition: Option<&str>) {
        self.boot_with(slot, partition, "");
    }

    /// The same with another word for the kernel.
    pub fn boot_with(&mut self, slot: char, partition: Option<&str>, word: &str) {
        self.boots += 1;
        let part = partition.map_or(String::new(), |guid| format!(" kubesolo.part={guid}"));
        let cmdline = format!("BOOT_IMAGE=/vmlinuz kubesolo.slot={slot}{part} panic=10 {word} console=ttyS0\n");
        fs::write(self.path("proc/cmdline"), cmdline).unwrap();
        let id = format!("00000000-0000-4000-8000-{:012}\n", self.boots);
        fs::write(self.path("proc/sys/kernel/random/boot_id"), id).unwrap();
    }

    /// Which agent is under test: what `KUBESOLO_UPDATE_BIN` names, else this build's.
    pub fn program() -> PathBuf {
        let named = std::env::var_os("KUBESOLO_UPDATE_BIN").map(PathBuf::from);
        named.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_kubesolo-update")))
    }

    /// A command that runs the agent in this root, with nothing of the tester's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut agent = Command::new(Root::program());
        self.complete(&mut agent, args);
        agent
    }

    /// The same below another program, `strace` for example.
    pub fn command_under(&self, mut wrapper: Command, args: &[&str]) -> Command {
        wrapper.arg(Root::program());
        self.complete(&mut wrapper, args);
        wrapper
    }

    fn complete(&self, agent: &mut Command, args: &[&str]) {
        agent.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        agent.current_dir(self.dir.path()).args(&args[..1]).arg("--root").arg(self.dir.path()).args(&args[1..]);
    }

    /// Runs the agent to its end. Input: the command first.
    pub fn agent(&self, args: &[&str]) -> Run {
        let run: Run = self.command(args).output().unwrap().into();
        if args.contains(&"--json") {
            let (is_document, is_status) = (answers::is_document(&run.stdout), args.contains(&"status"));
            assert!(
                is_document && ([0, 7].contains(&run.code) || !is_status),
                "{args:?}: {}\n{}",
                run.stdout,
                run.stderr
            );
        }
        run
    }

    /// `state.json`; `None` where there is none.
    pub fn state(&self) -> Option<String> {
        fs::read_to_string(self.path("var/lib/kubesolo/update/state.json")).ok()
    }

    /// A field of `state.json`, through jq.
    #[track_caller]
    pub fn state_field(&self, name: &str) -> String {
        jq(&self.state().expect("there is a state file"), &format!(".{name}"))
    }

    /// Path of `grubenv` or `grubenv.bak`.
    pub fn block(&self, name: &str) -> PathBuf {
        self.path(ENVIRONMENT_BLOCK).join(name)
    }

    /// Both copies of the environment block, byte for byte.
    pub fn blocks(&self) -> [Vec<u8>; 2] {
        ["grubenv", "grubenv.bak"].map(|name| fs::read(self.block(name)).unwrap())
    }

    /// What a real grub-editenv lists; the same in both copies.
    #[track_caller]
    pub fn boot_variables(&self) -> BTreeMap<String, String> {
        let [main, backup] = ["grubenv", "grubenv.bak"].map(|name| list(&self.block(name)));
        assert_eq!(main, backup, "the copies differ");
        main
    }

    /// Lets a real grub-editenv set variables in both copies: GRUB's part.
    pub fn set_boot_variables(&self, pairs: &[&str]) {
        for name in ["grubenv", "grubenv.bak"] {
            run(command("grub-editenv").arg(self.block(name)).arg("set").args(pairs));
            assert_eq!(fs::metadata(self.block(name)).unwrap().len(), 1024);
        }
    }
}

fn list(block: &Path) -> BTreeMap<String, String> {
    let listed = run(command("grub-editenv").arg(block).arg("list"));
    listed.lines().map(|l| l.split_once('=').expect("NAME=VALUE")).map(|(n, v)| (n.into(), v.into())).collect()
}

//! `completions/`: what bash and zsh complete is what `--help` lists; asked of both shells, on a terminal.

use crate::support::kit::repo;
use crate::support::{command, need, need_all, run};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// What is typed, with a tab where completion is asked for, and the arguments that come of it. The same for both shells.
const TYPED: [(&str, &str); 14] = [
    ("chec\t", "check"),
    ("ver\t--slo\tA", "verify --slot A"),
    ("verify --slot B --sou\t", "verify --slot B --source"),
    ("app\t--act\t", "apply --activate"),
    ("apply --ok\t--reb\t", "apply --ok-if-nothing --reboot"),
    ("roll\t--retry-f\t", "rollback --retry-failed"),
    ("healthc\t--stab\t5", "healthcheck --stable-for 5"),
    ("dev\t--sh\tKSOLOA", "device --shell KSOLOA"),
    ("lin\t--min\t1.0.0", "lint --min-compatible 1.0.0"),
    // Files for what names a file, directories for what names a directory.
    ("check --config a-f\t", "check --config a-file.conf"),
    ("check --root a-d\tx", "check --root a-dir/x"),
    ("lint --initramfs a-f\t--initramfs a-f\t", "lint --initramfs a-file.conf --initramfs a-file.conf"),
    // Nothing where there is nothing to complete: another command's option, no such command.
    ("status --splay\t", "status --splay"),
    ("frob --jso\t", "frob --jso"),
];

fn agent() -> PathBuf {
    std::env::var_os("KUBESOLO_UPDATE_BIN").map_or(env!("CARGO_BIN_EXE_kubesolo-update").into(), PathBuf::from)
}

#[apply(test)]
fn the_files_are_what_the_agent_says() {
    need_all(&["bash", "diff"]);
    let script = || {
        let mut script = Command::new(repo().join("scripts/completions.sh"));
        script.arg("--agent").arg(agent());
        script
    };
    run(script().arg("--check"));
    // Made from --help, and held to another reading of it: each option of each command stands in both.
    let text = |name: &str| fs::read_to_string(repo().join("completions").join(name)).unwrap();
    let (bash, zsh) = (text("kubesolo-update.bash"), text("_kubesolo-update"));
    let mut seen = 0;
    for line in bash.lines().filter_map(|line| line.trim().strip_suffix("' ;;")) {
        let (command, words) = line.split_once(") words='").unwrap();
        if words.is_empty() {
            continue;
        }
        let arguments: &[&str] = if command == "''" { &[] } else { &[command] };
        let help = run(Command::new(agent()).args(arguments).arg("--help"));
        for word in help.split_whitespace().map(|word| word.trim_matches(['[', ']', ',', '.'])) {
            let is_option = word.starts_with("--") && word.len() > 2;
            assert!(!is_option || words.split(' ').any(|known| known == word), "{command}: no {word} in: {words}");
            assert!(!is_option || zsh.contains(&format!("{word}[")), "{command}: {word}");
            seen += usize::from(is_option);
        }
    }
    assert!(seen > 100, "{seen}");

    // What is stale is found.
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("kubesolo-update.bash", &bash), ("_kubesolo-update", &zsh)] {
        run(script().arg("--output").arg(dir.path()));
        fs::write(dir.path().join(name), content.replacen("--json", "--jsno", 1)).unwrap();
        let out = script().arg("--check").arg("--output").arg(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && said.contains("scripts/completions.sh writes it anew"), "{said}");
    }
}

/// A shell on a terminal of its own.
struct Shell {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Shell {
    fn start(line: &str, dir: &Path) -> Shell {
        let mut script = command("script");
        script.args(["-qec", line, "/dev/null"]).current_dir(dir).env("TERM", "dumb").env("HOME", dir);
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (mut out, kept) = (child.stdout.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = out.read(&mut buffer) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Shell { child, said }
    }

    fn types(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    #[track_caller]
    fn says(&self, words: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.said.lock().unwrap().contains(words) {
            assert!(Instant::now() < until, "no '{words}' in: {}", self.said.lock().unwrap());
            std::thread::yield_now();
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Types each row of the table. Input: `prepare`: what loads the completion; it ends with an empty prompt.
fn completes(line: &str, prepare: &str) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a-file.conf"), "").unwrap();
    fs::create_dir(dir.path().join("a-dir")).unwrap();
    let mut shell = Shell::start(line, dir.path());
    // The words of the answer are put together by the shell, so that what is echoed is not taken for it.
    shell.types(prepare);
    shell.types("kubesolo-update() { printf 'GOT%s<%s>\\n' TEN \"$*\"; }; printf 'LOAD%s\\n' ED\n");
    shell.says("LOADED");
    for (number, (typed, wanted)) in TYPED.iter().enumerate() {
        shell.types(&format!("kubesolo-update {typed}\n"));
        shell.says(&format!("GOTTEN<{wanted}>"));
        // Each is answered before the next is typed, and none is an earlier one's answer.
        shell.said.lock().unwrap().clear();
        println!("{number}: {wanted}");
    }
}

#[apply(test)]
fn bash_completes() {
    need_all(&["bash", "script"]);
    let file = repo().join("completions/kubesolo-update.bash");
    completes("bash --norc --noprofile -i", &format!("PS1=; bind 'set bell-style none'; . '{}'\n", file.display()));
}

#[apply(test)]
fn zsh_completes() {
    need_all(&["script"]);
    need("zsh");
    let dir = repo().join("completions");
    let prepare =
        format!("PS1=; unsetopt beep; fpath=('{}' $fpath); autoload -U compinit; compinit -u -D\n", dir.display());
    completes("zsh -f -i", &prepare);
}

//! What scripts start in the background (`scripts/lib/server.sh`, and who uses it): it starts on a busy machine as on an
//! idle one, every wait for it has an end, and a script that is interrupted leaves nothing behind, at whatever moment.
//!
//! Must never: end a process that it did not start; wait without an end itself.

use crate::support::disk::{need_disks, wait_for};
use crate::support::registry::Guard;
use crate::support::root::Root;
use crate::support::{command, need, need_all, run};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long one start and stop may take, whatever else the machine does. The script's own limits are shorter.
const BOUND: Duration = Duration::from_secs(60);
/// As the issue asks for it.
const STARTS: usize = 50;
/// More busy loops than most machines have processors: a child then often starts late.
const LOOPS: usize = 4;

fn repo() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Keeps processors busy until it is dropped.
fn load() -> Vec<Guard> {
    let busy = || Guard(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
    (0..LOOPS).map(|_| busy()).collect()
}

/// A command that can be interrupted, however this test was started: a shell gives what it puts into the background
/// SIGINT ignored, and no shell below can trap it then.
fn interruptible(program: &Path) -> Command {
    let mut env = command("env");
    env.arg("--default-signal=INT,TERM,HUP,PIPE").arg(program).stdin(Stdio::null()).process_group(0);
    env
}

/// What came of a script.
struct Ended {
    status: ExitStatus,
    said: String,
    took: Duration,
}

/// A running script, with everything that it says in a file.
struct Script {
    child: Guard,
    group: u32,
    said: tempfile::NamedTempFile,
    began: Instant,
}

impl Script {
    fn start(command: &mut Command) -> Script {
        let said = tempfile::NamedTempFile::new().unwrap();
        let out = File::create(said.path()).unwrap();
        let child = Guard(command.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap());
        Script { group: child.0.id(), child, said, began: Instant::now() }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.said.path()).unwrap()
    }

    /// Waits for its end. Panics: it takes too long.
    #[track_caller]
    fn end(mut self, what: &str) -> Ended {
        let ended = wait_for(BOUND, || self.child.0.try_wait().unwrap().is_some());
        assert!(ended, "{what}: no end after {BOUND:?}; it said:\n{}", self.said());
        let status = self.child.0.wait().unwrap();
        Ended { status, said: self.said(), took: self.began.elapsed() }
    }

    /// Sends a signal: to the script alone, as `kill` does, or to all of its group, as a terminal does.
    fn signal(&self, name: &str, group: bool) {
        let target = format!("{}{}", if group { "-" } else { "" }, self.child.0.id());
        run(command("kill").args(["-s", name, "--", &target]));
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // What a script that failed a test left behind is not to load the machine.
        if std::thread::panicking() {
            let _ =
                command("kill").args(["-s", "KILL", "--", &format!("-{}", self.group)]).stderr(Stdio::null()).status();
        }
    }
}

/// Runs words of a script that has sourced the library, with short limits, and a clean-up like its users'. `$1`: a
/// directory.
fn with_library(dir: &TempDir, words: &str) -> Ended {
    let text = format!(
        "set -eu\nsay() {{ printf 'test: %s\\n' \"$*\" >&2; }}\ndie() {{ say \"error: $*\"; exit 1; }}\n\
         . {}\nSTOP_SECS=3 KILL_SECS=3\ntrap 'stop_server || true' EXIT\ntrap 'exit 143' TERM\n{words}\n",
        repo().join("scripts/lib/server.sh").display()
    );
    let mut sh = interruptible(Path::new("sh"));
    Script::start(sh.args(["-c", &text, "sh"]).arg(dir.path())).end(words)
}

/// Command lines of processes that name a directory.
fn processes(dir: &Path) -> Vec<String> {
    let name = dir.to_str().unwrap();
    let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(name)).collect()
}

/// Holds that nothing below a directory is there any more: no process, no mount, no loop device, no file.
#[track_caller]
fn left_nothing(dir: &TempDir, what: &str) {
    let name = dir.path().to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(name), "{what}: a mount is left");
    // What was killed beside the script may take a moment longer than the script.
    assert!(wait_for(BOUND, || processes(dir.path()).is_empty()), "{what}: left {:?}", processes(dir.path()));
    let loops = || run(command("losetup").args(["-l", "-n", "-O", "NAME,BACK-FILE"]));
    assert!(!loops().contains(name), "{what}: left {}", loops());
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(files.is_empty(), "{what}: left {files:?}");
}

#[apply(test)]
fn a_registry_starts_fifty_times_on_a_busy_machine() {
    need("docker-registry");
    need("curl");
    let _load = load();
    let mut longest = Duration::ZERO;
    for n in 1..=STARTS {
        let dir = tempfile::tempdir().unwrap();
        let words = "start_registry \"$1/registry\" 30\necho \"at $REGISTRY_HOST\"\nstop_server";
        let ended = with_library(&dir, words);
        assert!(ended.status.success() && ended.said.contains("at 127.0.0.1:"), "start {n}: {}", ended.said);
        assert_eq!(processes(dir.path()), Vec::<String>::new(), "start {n}");
        longest = longest.max(ended.took);
    }
    eprintln!("{STARTS} starts beside {LOOPS} busy loops; the longest took {longest:?}");
}

#[apply(test)]
fn a_server_that_ends_is_noticed_and_heard() {
    let dir = tempfile::tempdir().unwrap();
    let started = "start_server \"$1/log\" sh -c 'echo no port is free; exit 7'\n";
    let ended = with_library(&dir, &format!("{started}await_server 30 false"));
    assert_eq!(ended.status.code(), Some(1));
    for word in ["sh ended before it was ready (exit code 7)", "\n    no port is free\n", "sh did not start"] {
        assert!(ended.said.contains(word), "'{word}' is missing: {}", ended.said);
    }
    assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
    let ended = with_library(&dir, "start_server \"$1/log\" \"$1/absent\"\nawait_server 30 false");
    assert!(ended.said.contains("(exit code 127)") && ended.said.contains("not found"), "{}", ended.said);
    // Later, when nobody waits for it: the clean-up says so.
    let later = format!("{started}while runs \"$SERVER_PID\" \"$SERVER_BORN\"; do :; done\nstop_server\necho over");
    let ended = with_library(&dir, &later);
    assert!(ended.status.success() && ended.said.ends_with("over\n"), "{}", ended.said);
    assert!(ended.said.contains("sh had ended by itself (exit code 7)"), "{}", ended.said);
    assert!(ended.said.contains("no port is free"), "{}", ended.said);
}

#[apply(test)]
fn a_server_that_never_listens_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let words = "start_server \"$1/log\" sh -c 'echo \"$1\"; exec sleep 1000' \"$1\" waits\nawait_server 2 false";
    let ended = with_library(&dir, words);
    assert_eq!(ended.status.code(), Some(1));
    for word in ["sh is not ready after 2 s", "\n    waits\n", "did not start within 2 s"] {
        assert!(ended.said.contains(word), "'{word}' is missing: {}", ended.said);
    }
    assert_eq!(processes(dir.path()), Vec::<String>::new());
}

#[apply(test)]
fn a_server_that_does_not_hear_the_signal_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let up = "await_server 30 grep -q up \"$1/log\"\npid=$SERVER_PID\nstop_server\nkill -0 \"$pid\" || echo gone\n\
              cat \"$1/log\"";
    // It ignores SIGTERM; it loses the first one, as a shell may between fork and exec; it is stopped.
    for (server, last_words) in [
        ("trap \"\" TERM; echo up; exec sleep 1000", "up"),
        ("trap \"trap \\\"echo second; exit\\\" TERM\" TERM; echo up; while :; do sleep 0.1; done", "up\nsecond"),
        ("echo up; kill -s STOP $$", "up"),
    ] {
        let ended = with_library(&dir, &format!("start_server \"$1/log\" sh -c '{server}' sh \"$1\"\n{up}"));
        assert!(ended.status.success() && ended.said.ends_with(&format!("gone\n{last_words}\n")), "{}", ended.said);
        assert!(ended.took < Duration::from_secs(20), "{server}: {:?}", ended.took);
        assert_eq!(processes(dir.path()), Vec::<String>::new(), "{server}");
    }
}

/// One in a device's hands: no signal ends it. Here, none is sent.
#[apply(test)]
fn a_server_that_nothing_ends_is_left_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let words = "kill() { echo \"sent $2\"; }\nstart_server \"$1/log\" sleep 1000\npid=$SERVER_PID\n\
                 stop_server || echo 'left alone'\nunset -f kill\nkill -s KILL \"$pid\"";
    let ended = with_library(&dir, words);
    let mut said: Vec<&str> = ended.said.lines().collect();
    said.dedup();
    assert_eq!(said[..2], ["sent TERM", "sent KILL"]);
    assert!(said[2].contains("does not end, not even by SIGKILL") && said[3] == "left alone", "{}", ended.said);
}

/// The moment between starting a server and noting its number, in which a trap may run.
#[apply(test)]
fn a_server_that_was_not_noted_yet_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let words = "SERVER_BEFORE=${!:-none}\nsh -c 'exec sleep 1000' \"$1\" &\npid=$!\nstop_server\n\
                 kill -0 \"$pid\" || echo gone";
    let ended = with_library(&dir, words);
    assert!(ended.said.ends_with("gone\n"), "{}", ended.said);
    // Another child, from before, is not it.
    let words = "sh -c 'exec sleep 1000' \"$1\" &\npid=$!\nSERVER_BEFORE=${!:-none}\nstop_server\nkill -0 \"$pid\"\n\
                 kill -s KILL \"$pid\"\necho lived";
    let ended = with_library(&dir, words);
    assert!(ended.status.success() && ended.said.ends_with("lived\n"), "{}", ended.said);
}

#[apply(test)]
fn a_number_that_somebody_else_has_now_is_not_signalled() {
    let dir = tempfile::tempdir().unwrap();
    // Born at another time than what was started. In a subshell it is nobody's child, so that nothing waits for it.
    let words = "sleep 1000 &\npid=$!\n(stop_child \"$pid\" 1)\nkill -0 \"$pid\"\nkill -s KILL \"$pid\"\necho lived";
    let ended = with_library(&dir, words);
    assert!(ended.status.success() && ended.said.ends_with("lived\n"), "{}", ended.said);
}

#[apply(test)]
fn a_log_that_cannot_be_written_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for (log, reason) in [("absent/log", "onexist"), (".", "Is a directory")] {
        let ended = with_library(&dir, &format!("start_server \"$1/{log}\" touch \"$1/started\""));
        assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
        assert!(
            ended.said.contains("start touch: its log") && ended.said.contains("cannot be written"),
            "{}",
            ended.said
        );
        let reason = [reason, "No such file or directory"].into_iter().any(|reason| ended.said.contains(reason));
        assert!(reason, "{}", ended.said);
        assert!(!dir.path().join("started").exists(), "it was started all the same");
    }
}

/// `scripts/bench.sh --quick` in a directory of its own, with `bin/` there before everything else in PATH.
fn bench(dir: &TempDir, bin: &TempDir) -> Command {
    let mut script = interruptible(&repo().join("scripts/bench.sh"));
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    script.env("TMPDIR", dir.path()).env("PATH", path).arg("--quick").arg("--binary").arg(Root::program());
    script
}

fn need_bench() {
    need_disks();
    need_all(&["docker-registry", "oras", "curl", "openssl", "mountpoint", "timeout"]);
}

fn put_program(bin: &TempDir, name: &str, words: &str) {
    use std::os::unix::fs::PermissionsExt;
    let file = bin.path().join(name);
    fs::write(&file, format!("#!/bin/sh\n{words}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Whether a file of the script's own directory holds words.
fn holds(dir: &TempDir, file: &str, words: &str) -> bool {
    let found = fs::read_dir(dir.path()).unwrap().filter_map(|work| fs::read(work.ok()?.path().join(file)).ok());
    found.into_iter().any(|bytes| String::from_utf8_lossy(&bytes).contains(words))
}

fn is_attached(dir: &TempDir) -> bool {
    run(command("losetup").args(["-l", "-n", "-O", "BACK-FILE"])).contains(dir.path().to_str().unwrap())
}

fn is_mounted(dir: &TempDir) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().contains(dir.path().to_str().unwrap())
}

#[apply(test)]
fn a_bench_that_is_interrupted_leaves_nothing() {
    need_bench();
    let bin = tempfile::tempdir().unwrap();
    type Moment = fn(&TempDir) -> bool;
    let moments: [(&str, Moment); 5] = [
        ("its directory is there", |dir| fs::read_dir(dir.path()).unwrap().count() > 0),
        ("the log is there", |dir| holds(dir, "registry/log", "")),
        ("the registry listens", |dir| holds(dir, "registry/log", "listening on")),
        ("a disk is attached", is_attached),
        ("a file system is mounted", is_mounted),
    ];
    for (what, is_it) in moments {
        for (signal, code, group) in [("INT", 130, true), ("TERM", 143, false), ("HUP", 129, true)] {
            let dir = tempfile::tempdir().unwrap();
            let script = Script::start(&mut bench(&dir, &bin));
            assert!(wait_for(BOUND, || is_it(&dir)), "{what}: never; it said:\n{}", script.said());
            script.signal(signal, group);
            let what = format!("{signal}, group: {group}, when {what}");
            let ended = script.end(&what);
            assert_eq!(ended.status.code(), Some(code), "{what}: {}", ended.said);
            left_nothing(&dir, &what);
        }
    }
}

/// Around the moment in which the server is started, in steps of a millisecond, on a busy machine.
#[apply(test)]
fn a_bench_that_is_interrupted_while_its_server_starts_leaves_nothing() {
    need_bench();
    let (bin, _load) = (tempfile::tempdir().unwrap(), load());
    for step in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let script = Script::start(&mut bench(&dir, &bin));
        assert!(wait_for(BOUND, || holds(&dir, "registry/config.yml", "")), "{}", script.said());
        let moment = Instant::now() + Duration::from_millis(step);
        while Instant::now() < moment {}
        script.signal("TERM", step % 2 == 0);
        let ended = script.end(&format!("step {step}"));
        assert_eq!(ended.status.code(), Some(143), "step {step}: {}", ended.said);
        left_nothing(&dir, &format!("step {step}"));
    }
}

#[apply(test)]
fn a_bench_whose_server_is_bad_ends_and_leaves_nothing() {
    need_bench();
    let (dir, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put_program(&bin, "docker-registry", "echo out of luck; exit 5");
    let ended = Script::start(&mut bench(&dir, &bin)).end("it ends");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.said);
    for word in ["docker-registry ended before it was ready (exit code 5)", "out of luck"] {
        assert!(ended.said.contains(word), "'{word}' is missing: {}", ended.said);
    }
    left_nothing(&dir, "it ends");

    // One that never listens and hears no signal; who waits for it has had enough.
    put_program(&bin, "docker-registry", "trap '' TERM INT HUP\nexec sleep 1000 # \"$2\"");
    let script = Script::start(&mut bench(&dir, &bin));
    let child = |id: u32| fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let is_deaf = || {
        let comm = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let line = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        child(script.child.0.id()).split(' ').any(|pid| comm(pid) == "sleep\n" && line(pid).ends_with(b"1000\0"))
    };
    assert!(wait_for(BOUND, is_deaf), "{}", script.said());
    let pid = child(script.child.0.id());
    script.signal("TERM", true);
    let ended = script.end("it is deaf");
    assert_eq!(ended.status.code(), Some(143), "{}", ended.said);
    left_nothing(&dir, "it is deaf");
    let server = pid.split_whitespace().next().unwrap();
    assert!(!Path::new("/proc").join(server).exists(), "the deaf server lives");

    // No directory to work in.
    for place in ["/proc", "/absent"] {
        let ended = Script::start(bench(&dir, &bin).env("TMPDIR", place)).end(place);
        assert!(ended.status.code() == Some(1) && ended.said.contains("TMPDIR"), "{place}: {}", ended.said);
    }
}

/// A real QEMU, interrupted as soon as the script has a child: before it is QEMU, or just after.
#[apply(test)]
fn a_machine_that_is_interrupted_fifty_times_leaves_nothing() {
    need("qemu-system-x86_64");
    let (images, _load) = (tempfile::tempdir().unwrap(), load());
    let image = images.path().join("disk");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    for n in 0..STARTS {
        let dir = tempfile::tempdir().unwrap();
        let mut vm = interruptible(&repo().join("scripts/vm.sh"));
        let script = Script::start(vm.arg(&image).env("TMPDIR", dir.path()));
        assert!(wait_for(BOUND, || script.said().contains("Ctrl-A X")), "{n}: {}", script.said());
        let moment = Instant::now() + Duration::from_millis(n as u64 % 10);
        while Instant::now() < moment {}
        script.signal("TERM", n % 2 == 0);
        let ended = script.end(&format!("{n}"));
        assert_eq!(ended.status.code(), Some(143), "{n}: {}", ended.said);
        left_nothing(&dir, &format!("{n}"));
        assert_eq!(processes(images.path()), Vec::<String>::new(), "{n}");
    }
}

/// A release whose build hears no signal, and has a child in its session.
fn release_with_a_deaf_build(dir: &Path) {
    let words = "mkdir -p kubesolo-update-1.0.0/scripts && cd kubesolo-update-1.0.0 && echo 1 >SOURCE_DATE_EPOCH\n\
        { echo '#!/bin/sh'; echo \"trap '' TERM INT HUP\"; echo 'sleep 200 & : >\"$4/started\"'; echo 'sleep 200'; } \
        >scripts/build.sh && chmod 755 scripts/build.sh && cd .. &&\n\
        tar -czf kubesolo-update-1.0.0-source.tar.gz kubesolo-update-1.0.0 && rm -r kubesolo-update-1.0.0 &&\n\
        for arch in amd64 arm64; do for name in update chunks; do echo x >kubesolo-$name-1.0.0-linux-$arch; done; done && sha256sum kubesolo-* >SHA256SUMS";
    run(command("sh").args(["-ec", words]).current_dir(dir));
}

#[apply(test)]
fn builds_that_are_interrupted_leave_nothing() {
    let (release, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    release_with_a_deaf_build(release.path());
    let started = |dir: &TempDir| {
        let work = fs::read_dir(dir.path()).unwrap().next().map(|e| e.unwrap().path());
        work.is_some_and(|work| ["amd64", "arm64"].iter().all(|arch| work.join(arch).join("started").exists()))
    };
    for (signal, code, group) in [("TERM", 143, false), ("INT", 130, true)] {
        let mut script = interruptible(&repo().join("scripts/reproduce.sh"));
        let script = Script::start(script.arg("--release").arg(release.path()).env("TMPDIR", dir.path()));
        assert!(wait_for(BOUND, || started(&dir)), "{}", script.said());
        script.signal(signal, group);
        let ended = script.end(signal);
        assert_eq!(ended.status.code(), Some(code), "{}", ended.said);
        left_nothing(&dir, signal);
    }
}

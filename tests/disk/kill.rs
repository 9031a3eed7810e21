//! A run that is killed, at every step that changes a disk and at random moments: what it leaves behind, and the
//! run after it.

use crate::support::disk::{A, B, need_disks, wait_for};
use crate::support::machine::Machine;
use crate::support::raw::{Raw, Reply};
use crate::support::release::{Medium, Release, sha256};
use crate::support::root::jq;
use crate::support::{command, need};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SIGKILL: i32 = 9;
/// What changes a disk, or makes a change durable.
pub const STEPS: &str = "fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,fsmount,mkdir,write,pwrite64";
/// Of the writes of data there are too many to try them all.
pub const WRITES_TRIED: usize = 6;
const RANDOM_KILLS: u32 = 20;
/// On a busy machine some runs are over before their kill.
const MOST_ROUNDS: u32 = 5 * RANDOM_KILLS;
const WAIT: Duration = Duration::from_secs(60);

/// What `/proc/PID/io` counts: bytes handed to write(2). `None` once the process is gone.
pub fn written_bytes(child: &Child) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{}/io", child.id())).ok()?;
    io.lines().find_map(|l| l.strip_prefix("wchar: ")?.parse().ok())
}

/// What an unproven file is called: by what it is to be, so that only the same file goes on from it.
fn part_name(name: &str, bytes: &[u8]) -> String {
    format!("{name}.part-{}", &sha256(bytes)[..16])
}

pub fn quiet(mut agent: Command) -> Child {
    agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills a run as it enters a system call for the `when`-th time. Input: `call`: a name, or `/` and a pattern.
#[track_caller]
fn killed_at(machine: &Machine, call: &str, when: usize, source: &[&str; 2], what: &str) {
    let mut strace = command("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"]);
    strace.arg(format!("inject={call}:signal=KILL:when={when}"));
    let status = quiet(machine.root.command_under(strace, &["apply", source[0], source[1]])).wait().unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "{what}: it ended by itself");
}

/// Holds what must be true after a kill, whenever it came. Returns the phase.
#[track_caller]
pub fn assert_sound(machine: &Machine, release: &Release, what: &str) -> String {
    machine.disk.wait_unmounted(B);
    assert!(machine.disk.bytes(A) == machine.running, "{what}: the running slot was written");
    assert!(machine.root.blocks() == machine.blocks, "{what}: the boot variables were written");
    let record = machine.disk.text(B, "slot.json");
    if let Some(record) = &record {
        // A record is the last word: what it names is there, whole, old or new.
        for (name, field) in [("vmlinuz", "kernel"), ("kubesolo-os.gz", "initramfs")] {
            let bytes = machine.disk.file(B, name).unwrap_or_else(|| panic!("{what}: a record without {name}"));
            assert_eq!(jq(record, &format!(".{field}.sha256")), sha256(&bytes), "{what}: {name}");
        }
    }
    let is_new = record.is_some_and(|r| jq(&r, ".version") == release.version);
    let phase = machine.root.state().map_or("idle".into(), |state| jq(&state, ".phase"));
    match phase.as_str() {
        "idle" | "checking" | "downloading" => {}
        "staged" => assert!(is_new, "{what}: staged without a record"),
        // A run begins by recording that the one before it was cut off; it has no other reason to fail.
        "failed" => {
            let error = machine.root.state_field("last_error");
            assert!(error.contains("the run was cut off"), "{what}: {error}");
        }
        other => panic!("{what}: the state says {other}"),
    }
    machine.root.agent(&["status", "--json"]).expect(0, &[]);
    phase
}

/// Nothing half-written can be put on trial; what is whole may be, and then the state says so too.
#[track_caller]
fn assert_activate_is_all_or_nothing(machine: &Machine, release: &Release, what: &str) -> bool {
    let run = machine.root.agent(&["activate"]);
    if run.code != 0 {
        assert!(matches!(run.code, 3 | 7), "{what}: {run:?}");
        assert!(machine.root.blocks() == machine.blocks, "{what}: activate failed and changed what boots: {run:?}");
        return false;
    }
    assert!(machine.disk.file(B, "vmlinuz").unwrap() == release.ours().kernel, "{what}: {run:?}");
    assert!(machine.disk.file(B, "kubesolo-os.gz").unwrap() == release.ours().initramfs, "{what}: {run:?}");
    assert_eq!(machine.root.state_field("phase"), "activated", "{what}");
    true
}

#[track_caller]
fn assert_next_run_succeeds(machine: &Machine, release: &Release, source: &[&str], what: &str) {
    let run = machine.apply(source);
    assert!(matches!(run.code, 0 | 3), "{what}: {run:?}");
    assert_eq!(machine.disk.names(B), ["kubesolo-os.gz", "slot.crc32", "slot.json", "version", "vmlinuz"], "{what}");
    assert!(machine.disk.file(B, "vmlinuz").unwrap() == release.ours().kernel, "{what}");
    assert!(machine.disk.file(B, "kubesolo-os.gz").unwrap() == release.ours().initramfs, "{what}");
    assert_eq!(machine.root.state_field("phase"), "staged", "{what}");
    assert!(!machine.disk.needs_recovery(B) && machine.disk.bytes(A) == machine.running, "{what}");
}

#[apply(test)]
fn killed_while_the_source_is_slow() {
    need_disks();
    let release = Release::new("2.0.0");
    for (name, held_at, phase, part) in [
        ("latest.json", 30, "checking", None),
        ("vmlinuz", 0, "downloading", None),
        ("vmlinuz", 1_000_000, "downloading", Some(part_name("vmlinuz", &release.ours().kernel))),
        ("kubesolo-os.gz", 700_000, "downloading", Some(part_name("kubesolo-os.gz", &release.ours().initramfs))),
    ] {
        let (machine, what) = (Machine::new(), format!("{name} at {held_at}"));
        let (served, document) = (release.clone(), release.latest_json());
        let server = Raw::start(move |path| {
            let body = if path == "/latest.json" { document.clone().into_bytes() } else { served.file(path).unwrap() };
            let hold_after = path.ends_with(name).then_some(held_at);
            Reply { hold_after, ..Reply::ok(body) }
        });
        let mut child = quiet(machine.root.command(&["apply", "--server", &server.url()]));
        server.wait_held();
        let before = if name == "kubesolo-os.gz" { release.ours().kernel.len() } else { 0 };
        let arrived = (before + if part.is_some() { held_at } else { 0 }) as u64;
        assert!(wait_for(WAIT, || written_bytes(&child).expect("it runs") >= arrived), "{what}: nothing is written");
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(SIGKILL), "{what}: it ended by itself");
        assert_eq!(assert_sound(&machine, &release, &what), phase, "{what}");
        if let Some(part) = part {
            let length = machine.disk.file(B, &part).unwrap_or_else(|| panic!("{what}: no {part}")).len();
            assert!(length >= held_at && machine.disk.file(B, "slot.json").is_none(), "{what}: {length}");
        }
        machine.root.agent(&["status"]).expect(0, &["was cut off"]);
        assert_activate_is_all_or_nothing(&machine, &release, &what);
        let good = release.serve();
        assert_next_run_succeeds(&machine, &release, &["--server", &good.url("")], &what);
    }
}

/// Counts how often one good run makes each system call of interest: the most of any of its threads, since strace counts for each
/// alone.
pub fn count_steps(machine: &Machine, source: &[&str]) -> Vec<(String, usize)> {
    let log = machine.disk.dir().join("strace.log");
    let mut strace = command("strace");
    strace.args(["-f", "-e", &format!("trace={STEPS}"), "-o"]).arg(&log);
    let out = machine.root.command_under(strace, &[&["apply"], source].concat()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut counts: Vec<((String, String), usize)> = Vec::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        // PID NAME(...
        let mut words = line.split_whitespace();
        let (Some(thread), Some(call)) = (words.next(), words.next()) else { continue };
        let Some((name, _)) = call.split_once('(') else { continue };
        match counts.iter_mut().find(|((t, n), _)| t == thread && n == name) {
            Some((_, count)) => *count += 1,
            None => counts.push(((thread.to_string(), name.to_string()), 1)),
        }
    }
    let mut most: Vec<(String, usize)> = Vec::new();
    for ((_, name), count) in counts {
        match most.iter_mut().find(|(n, _)| *n == name) {
            Some((_, there)) => *there = count.max(*there),
            None => most.push((name, count)),
        }
    }
    most
}

#[apply(long_test)]
fn killed_at_every_step_that_changes_a_disk() {
    need_disks();
    need("oras");
    need("strace");
    let release = Release::new("2.0.0");
    let machine = Machine::new();
    let medium = Medium::new(machine.disk.dir(), &release);
    let counts = count_steps(&machine, &["--layout", medium.path()]);
    println!("{counts:?}");
    for name in ["fsync", "fdatasync", "rename", "unlink", "fsmount", "write", "pwrite64"] {
        assert!(counts.iter().any(|(n, _)| n.starts_with(name)), "no {name}: {counts:?}");
    }
    let mut activated = 0;
    for (name, count) in counts {
        let stride = if name.contains("write") { count.div_ceil(WRITES_TRIED) } else { 1 };
        for when in (1..=count).step_by(stride) {
            let (machine, what) = (Machine::new(), format!("killed at {name} number {when}"));
            let medium = Medium::new(machine.disk.dir(), &release);
            let source = ["--layout", medium.path()];
            killed_at(&machine, &name, when, &source, &what);
            let phase = assert_sound(&machine, &release, &what);
            assert_ne!(phase, "failed", "{what}: there was no run before it");
            match assert_activate_is_all_or_nothing(&machine, &release, &what) {
                true => activated += 1,
                false => assert_next_run_succeeds(&machine, &release, &source, &what),
            }
        }
    }
    println!("{activated} had a whole slot");
}

/// The one moment at which a killed run leaves `failed`: between its word on the run before and its own first one.
#[apply(test)]
fn killed_while_it_records_that_another_was_killed() {
    need_disks();
    need("oras");
    need("strace");
    let release = Release::new("2.0.0");
    let machine = Machine::new();
    let medium = Medium::new(machine.disk.dir(), &release);
    let source = ["--layout", medium.path()];
    let mut phases = Vec::new();
    for when in [3, 1, 2, 2, 2] {
        let what = format!("killed at rename number {when}");
        killed_at(&machine, "/^rename", when, &source, &what);
        phases.push(assert_sound(&machine, &release, &what));
        machine.root.agent(&["status"]).expect(0, &["was cut off"]);
    }
    assert_eq!(phases, ["downloading", "downloading", "failed", "checking", "failed"]);
    assert_next_run_succeeds(&machine, &release, &source, "in the end");
}

/// Bytes of a release that slot B does not hold.
pub fn left_to_write(machine: &Machine, release: &Release) -> u64 {
    let names = machine.disk.names(B);
    let (kernel, initramfs) = (&release.ours().kernel, &release.ours().initramfs);
    let left = [("vmlinuz", kernel), ("kubesolo-os.gz", initramfs)].map(|(name, bytes)| {
        let file = |name: &str| names.iter().find(|n| *n == name).and_then(|n| machine.disk.file(B, n));
        match file(name).filter(|there| there == bytes) {
            Some(_) => 0,
            None => bytes.len() - file(&part_name(name, bytes)).map_or(0, |part| part.len()),
        }
    });
    left.iter().sum::<usize>() as u64
}

#[apply(test)]
fn killed_at_random_moments_again_and_again() {
    need_disks();
    need("oras");
    let seed: u64 = std::env::var("KILL_SEED").map_or(u64::from(std::process::id()), |s| s.parse().unwrap());
    println!("KILL_SEED={seed}");
    let machine = Machine::new();
    // Two, since a whole one in the slot leaves nothing to do.
    let releases = ["2.0.0", "2.0.1"].map(Release::new);
    let media = releases.each_ref().map(|r| Medium::new(machine.disk.dir(), r));
    let (mut which, mut x, mut landed) = (0, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, 0);
    for round in 0..MOST_ROUNDS {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let (release, medium) = (&releases[which], &media[which]);
        // A run goes on where the last one stopped: what is left is what can be cut off. Also a little more than that.
        let left = left_to_write(&machine, release);
        let threshold = x % (left + left / 20 + 1);
        let what = format!("seed {seed}, round {round}, after {threshold} bytes");
        let mut child = quiet(machine.root.command(&["apply", "--layout", medium.path()]));
        while child.try_wait().unwrap().is_none() && written_bytes(&child).is_some_and(|n| n < threshold) {
            std::hint::spin_loop();
        }
        let _ = child.kill();
        let killed = child.wait().unwrap().signal() == Some(SIGKILL);
        landed += u32::from(killed);
        assert_sound(&machine, release, &what);
        if landed == RANDOM_KILLS {
            break;
        }
        if !killed {
            // It was faster: the other one next.
            which = 1 - which;
        }
    }
    assert_eq!(landed, RANDOM_KILLS, "that many of {MOST_ROUNDS} were killed in time");
    assert_next_run_succeeds(&machine, &releases[which], &["--layout", media[which].path()], "in the end");
    machine.root.agent(&["activate"]).expect(0, &["slot B is active"]);
}

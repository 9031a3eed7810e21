//! Several runs at once, and whoever looks while another one writes.

use crate::support::disk::{A, B, Disk, need_disks, noise};
use crate::support::raw::{Raw, Reply};
use crate::support::release::Release;
use crate::support::root::{Root, Run};
use crate::support::trial::{Trial, spoil};
use crate::support::{command, need};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(120);

/// A server whose kernel stops in the middle until the client goes.
pub fn holding(release: Release) -> Raw {
    let document = release.latest_json();
    Raw::start(move |path| {
        let body = if path == "/latest.json" { document.clone().into_bytes() } else { release.file(path).unwrap() };
        let hold_after = path.contains("vmlinuz").then_some(body.len() / 2);
        Reply { hold_after, ..Reply::ok(body) }
    })
}

#[apply(test)]
fn two_runs_never_write_the_same_slot() {
    need_disks();
    let disk = Disk::new(24, 16);
    // The second one has another data partition: neither lock file nor state tell it of the first.
    let (first, second) = (Root::new(&disk), Root::new(&disk));
    let server = holding(Release::new("2.0.0"));
    let mut slow = first.command(&["apply", "--server", &server.url()]).spawn().unwrap();
    server.wait_held();
    let good = Release::new("3.0.0").serve();
    let state = first.path("run/state.json");
    first
        .agent(&["apply", "--state", state.to_str().unwrap(), "--server", &good.url("")])
        .expect(8, &["another run holds it"]);
    second.agent(&["apply", "--server", &good.url("")]).expect(8, &["another run is at work on it", "KSOLOB"]);
    // Whoever does not mind is told all the same, once.
    let excused = first
        .agent(&["apply", "--ok-if-nothing", "--json", "--state", state.to_str().unwrap(), "--server", &good.url("")])
        .expect(0, &["another run holds it"]);
    assert_eq!(excused.jq("[.result, .kind, .exit_code]"), r#"["busy","busy",0]"#);
    // Looking is answered all the same, and says why slot B cannot be looked into.
    let status = first.agent(&["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq("[.update.phase, .slots[0].valid, .slots[1].valid]"), r#"["downloading",true,false]"#);
    assert!(status.jq(".slots[1].error").contains("another run is at work"), "{}", status.stdout);
    slow.kill().unwrap();
    slow.wait().unwrap();
    disk.wait_unmounted(B);
    second.agent(&["apply", "--server", &good.url("")]).expect(0, &["3.0.0 is staged"]);
}

#[apply(test)]
fn who_looks_does_not_stop_who_writes() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let releases = ["2.0.0", "2.0.1"].map(|version| Release::new(version).serve());
    let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let start = Instant::now();
    let runs = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                root.agent(&["status"]).expect(0, &[]);
                looks.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut runs = Vec::new();
        // However fast one of the two is: both have met the other one several times.
        while start.elapsed() < WAIT && (runs.len() < 10 || looks.load(Ordering::SeqCst) < 10) {
            runs.push(root.agent(&["apply", "--server", &releases[runs.len() % 2].url("")]));
        }
        done.store(true, Ordering::SeqCst);
        runs
    });
    assert!(runs.len() >= 10 && looks.into_inner() >= 10, "nobody looked while the slot was written");
    runs.into_iter().for_each(|run| {
        run.expect(0, &["is staged"]);
    });
}

/// Whoever reads a slot while it is written is told that: nothing is called damaged that is only not done. Also where the
/// other run's processes are out of sight, and with them its lock.
#[apply(test)]
fn what_is_being_written_is_not_called_damaged() {
    need_disks();
    need("strace");
    let releases = ["2.0.0", "2.0.1"].map(|version| Release::new(version).serve());
    for (what, is_container) in [("in sight", false), ("in a container", true)] {
        let disk = Disk::new(24, 16);
        let root = Root::new(&disk);
        let verify = |args: &[&str]| {
            let mut shell = command("unshare");
            shell.args(if is_container { &["-p", "-f", "--mount-proc"][..] } else { &[] });
            Run::from(root.command_under(shell, args).output().unwrap())
        };
        let (done, met, start) = (AtomicBool::new(false), AtomicBool::new(false), Instant::now());
        let (runs, looks) = thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut looks = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    looks.push(verify(&["verify"]));
                    looks.push(verify(&["verify", "--slot", "B", "--json"]));
                    met.fetch_or(looks.iter().rev().take(2).any(|look| look.code == 8), Ordering::SeqCst);
                }
                looks
            });
            let mut runs = Vec::new();
            // However fast one of the two is: they have met. A slow disk, so that nobody waits until it is written.
            while start.elapsed() < WAIT && (runs.len() < 2 || !met.load(Ordering::SeqCst)) {
                let mut slow = command("strace");
                slow.args(["-f", "-o", "/dev/null", "-e", "inject=fsync:delay_enter=200000"]);
                let url = releases[runs.len() % 2].url("");
                runs.push(Run::from(root.command_under(slow, &["apply", "--server", &url]).output().unwrap()));
            }
            done.store(true, Ordering::SeqCst);
            (runs, looking.join().unwrap())
        });
        for run in runs {
            // A slot is read in a moment here; where that takes longer, another run is at work, which is no fault.
            assert!(matches!(run.code, 0 | 8), "{what}: {run:?}");
        }
        for look in looks {
            let is_right = look.code == 0 || (look.code == 8 && look.stderr.contains("another run is at work on it"));
            assert!(is_right && !look.stdout.contains("INVALID"), "{what}: {look:?}");
        }
        assert!(met.into_inner(), "{what}: nobody looked while the slot was written");
    }
}

#[apply(test)]
fn what_is_promised_to_fit_a_larger_slot_fits() {
    need_disks();
    // Large enough for what ext4 keeps back even from root (2 %) to exceed the agent's own reserve.
    let disk = Disk::new(128, 16);
    let root = Root::new(&disk);
    let room: usize = root.agent(&["status", "--json"]).expect(0, &[]).jq(".slots[1].room_bytes").parse().unwrap();
    let mut release = Release::new("2.0.0");
    let pair = release.ours_mut();
    pair.kernel = noise(9, room - pair.initramfs.len());
    root.agent(&["apply", "--server", &release.serve().url("")]).expect(0, &["staged"]);
}

/// Between the removal of the old record and the first byte of the new one, the slot is mounted by nobody.
#[apply(test)]
fn what_another_run_is_writing_is_not_called_damaged() {
    Trial::ready();
    need("flock");
    let mut trial = Trial::staged();
    spoil(&mut trial.disk, B, "vmlinuz");
    trial.root.agent(&["verify"]).expect(7, &["Slot B  INVALID"]);
    let lock = trial.root.path("var/lib/kubesolo/update/lock");
    let beside = |trial: &Trial, lock: &Path| {
        let mut flock = command("flock");
        flock.arg("-n").arg(lock);
        Run::from(trial.root.command_under(flock, &["verify"]).output().unwrap())
    };
    let beside_a_run = |trial: &Trial| beside(trial, &lock);
    // A run of another data partition, or in a container: it holds the slot, and its lock is not seen.
    beside(&trial, &trial.disk.node(B))
        .expect(8, &["Slot A  1.0.0 is what its record says", "Slot B  not read", "another run is at work on it"]);
    beside_a_run(&trial)
        .expect(8, &["Slot A  1.0.0 is what its record says", "Slot B  not read", "another run is at work on it"]);
    // Nobody is at work on the slot that runs: what is wrong there is wrong.
    spoil(&mut trial.disk, A, "vmlinuz");
    beside_a_run(&trial).expect(7, &["Slot A  INVALID", "Slot B  not read"]);
    // And nothing of it keeps the other run from its lock.
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(0, &["is staged in slot B"]);
}

//! A run that is killed where the running slot has most of the release: the next run ends staged, and uses what was there.

use super::kill::{WRITES_TRIED, assert_sound, count_steps, left_to_write, quiet, written_bytes};
use crate::support::delta::Delta;
use crate::support::disk::{A, B, need_disks};
use crate::support::machine::Machine;
use crate::support::release::{Medium, Release};
use crate::support::root::jq;
use crate::support::{command, need};
use std::os::unix::process::ExitStatusExt;

const SIGKILL: i32 = 9;
/// Of about 1,600,000 bytes, 60,000 are others, in chunks of 20,000 on average.
const MOST_FETCHED: u64 = 200_000;
/// Of what was left, the last piece is fetched or copied again.
const AGAIN: u64 = 64 << 10;
const RANDOM_KILLS: u32 = 8;
const MOST_ROUNDS: u32 = 5 * RANDOM_KILLS;

/// Runs `apply` to its end, which is staged. Returns: whether there was something of it.
#[track_caller]
fn assert_next_run_uses_what_is_there(machine: &Machine, release: &Release, source: &[&str], what: &str) -> bool {
    let (kernel, initramfs) = (release.ours().kernel.len() as u64, release.ours().initramfs.len() as u64);
    let left = left_to_write(machine, release);
    let has_kernel = machine.disk.file(B, "vmlinuz").is_some_and(|bytes| bytes == release.ours().kernel);
    let run = machine.apply(&[source, &["--json"]].concat());
    assert!(matches!(run.code, 0 | 3), "{what}: {run:?}");
    if run.code == 0 {
        let [fetched, copied] =
            [".fetched_bytes", ".copied_bytes"].map(|field| jq(&run.stdout, field).parse::<u64>().unwrap());
        assert!(fetched + copied <= left + AGAIN, "{what}: {left} were left: {run:?}");
        let most = MOST_FETCHED + if has_kernel { 0 } else { kernel };
        assert!(fetched <= most, "{what}: {most}: {run:?}");
    }
    assert_eq!(machine.disk.names(B), ["kubesolo-os.gz", "slot.crc32", "slot.json", "version", "vmlinuz"], "{what}");
    assert!(machine.disk.file(B, "vmlinuz").unwrap() == release.ours().kernel, "{what}");
    assert!(machine.disk.file(B, "kubesolo-os.gz").unwrap() == release.ours().initramfs, "{what}");
    assert_eq!(machine.root.state_field("phase"), "staged", "{what}");
    assert!(!machine.disk.needs_recovery(B) && machine.disk.bytes(A) == machine.running, "{what}");
    left + 2 * AGAIN < kernel + initramfs
}

#[apply(long_test)]
fn killed_at_every_step_with_chunks() {
    need_disks();
    need("oras");
    need("strace");
    let (delta, dir) = (Delta::new(), tempfile::tempdir().unwrap());
    let medium = Medium::new(dir.path(), &delta.new);
    let source = ["--layout", medium.path()];
    let counts = count_steps(&delta.machine(), &source);
    println!("{counts:?}");
    let (mut killed, mut all, mut used) = (0, 0, 0);
    for (name, count) in counts {
        let stride = if ["write", "pwrite64"].contains(&name.as_str()) { count.div_ceil(2 * WRITES_TRIED) } else { 1 };
        for when in (1..=count).step_by(stride) {
            let (machine, what) = (delta.machine(), format!("killed at {name} number {when}"));
            let mut strace = command("strace");
            strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={name}"), "-e"]);
            strace.arg(format!("inject={name}:signal=KILL:when={when}"));
            let status = quiet(machine.root.command_under(strace, &[&["apply"], &source[..]].concat())).wait().unwrap();
            // strace counts for each thread: with several, the last ones may not come.
            killed += u32::from(status.signal() == Some(SIGKILL));
            all += 1;
            let phase = assert_sound(&machine, &delta.new, &what);
            assert_ne!(phase, "failed", "{what}: there was no run before it");
            used += u32::from(assert_next_run_uses_what_is_there(&machine, &delta.new, &source, &what));
        }
    }
    println!("{killed} of {all} were killed, {used} had something of it");
    assert!(killed * 2 > all && used * 4 > all, "{killed} of {all} were killed, {used} had something of it");
}

#[apply(test)]
fn killed_at_random_with_chunks() {
    need_disks();
    need("oras");
    let seed: u64 = std::env::var("KILL_SEED").map_or(u64::from(std::process::id()), |s| s.parse().unwrap());
    println!("KILL_SEED={seed}");
    let delta = Delta::new();
    let machine = delta.machine();
    // Two, since a whole one in the slot leaves nothing to do.
    let releases = [delta.new.clone(), Delta::release("2.0.1", 79)];
    let media = releases.each_ref().map(|release| Medium::new(machine.disk.dir(), release));
    let (mut x, mut killed, mut used) = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, 0, 0);
    for round in 0..MOST_ROUNDS {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        let which = round as usize % 2;
        let (release, source) = (&releases[which], ["--layout", media[which].path()]);
        let left = left_to_write(&machine, release);
        let threshold = x % (left + left / 20 + 1);
        let what = format!("seed {seed}, round {round}, after {threshold} bytes");
        let mut child = quiet(machine.root.command(&[&["apply"], &source[..]].concat()));
        while child.try_wait().unwrap().is_none() && written_bytes(&child).is_some_and(|n| n < threshold) {
            std::hint::spin_loop();
        }
        let _ = child.kill();
        let is_killed = child.wait().unwrap().signal() == Some(SIGKILL);
        assert_sound(&machine, release, &what);
        let is_used = assert_next_run_uses_what_is_there(&machine, release, &source, &what);
        killed += u32::from(is_killed);
        used += u32::from(is_killed && is_used);
        if killed >= RANDOM_KILLS && used > 0 {
            return;
        }
    }
    panic!("seed {seed}: {killed} of {MOST_ROUNDS} were killed in time, {used} of them left something");
}

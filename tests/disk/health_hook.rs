//! `kubesolo-update-health` where the check cannot be made: is this boot on trial, and does the machine restart?
//!
//! The hook runs in a real busybox in a root of its own; whether a block says so is held against the agent's reading of GRUB,
//! which tests/grub holds against GRUB itself. What would restart this machine writes down that it was called, and nothing here may restart it.

use crate::support::disk::{need_disks, wait_for};
use crate::support::{find, need_all, run};
use kubesolo_update::parts::boot::block::Block;
use kubesolo_update::parts::boot::damage::BLOCK_BYTES;
use kubesolo_update::parts::boot::grub_table::Vars;
use kubesolo_update::parts::slot::record::Slot;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const HOOK: &str = "deploy/initramfs/kubesolo-update-health";
/// By the `timeout` of busybox: with SIGTERM.
const KILLED: i32 = 143;
const SIGNATURE: &str = "# GRUB Environment Block\n";

fn ready() {
    need_disks();
    need_all(&["busybox", "setpriv"]);
}

/// A root in which slot B runs, and whose agent cannot make a check.
struct Bench(TempDir);

impl Bench {
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        for name in ["bin", "proc", "dev", "efi/boot/grub"] {
            fs::create_dir_all(bench.path(name)).unwrap();
        }
        let busybox = find("busybox").unwrap();
        fs::copy(&busybox, bench.path("bin/busybox")).unwrap();
        for applet in run(Command::new(&busybox).arg("--list")).lines().filter(|name| *name != "busybox") {
            symlink("busybox", bench.path("bin").join(applet)).unwrap();
        }
        run(Command::new("cp").args(["-a", "/dev/null"]).arg(bench.path("dev/null")));
        fs::write(bench.path("proc/cmdline"), "quiet kubesolo.slot=B\n").unwrap();
        fs::write(bench.path("proc/mounts"), "/dev/efi /efi vfat rw 0 0\n").unwrap();
        bench.program("kubesolo-update", "exit 7");
        bench.program("kubesolo-update-boot", "echo /dev/efi");
        fs::copy(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(HOOK), bench.path("hook")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn write_blocks(&self, copies: [Option<&[u8]>; 2]) {
        for (copy, name) in copies.into_iter().zip(["grubenv", "grubenv.bak"]) {
            let path = self.path("efi/boot/grub").join(name);
            let _ = fs::remove_file(&path);
            copy.map_or(Ok(()), |bytes| fs::write(path, bytes)).unwrap();
        }
    }

    /// Makes the command that runs a script in the root, without the right to restart the machine.
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-sys_boot", "--inh-caps=-sys_boot", "chroot"]).arg(self.0.path());
        command.args(["/bin/sh", "-c", script]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("KUBESOLO_HEALTH_PAUSE_SECS", "0");
        command
    }

    /// Runs the hook. Input: what stands for `sync` and for `reboot`: functions, since busybox's shell takes its own applets
    /// before any file.   Returns: how it ended, and what it called.
    fn hook_with(&self, sync_secs: &str, sync: &str, reboot: &str) -> (Output, String) {
        let _ = fs::remove_file(self.path("called"));
        let script = format!("sync() {{ {sync}; }}; reboot() {{ echo \"reboot $*\" >>/called; {reboot}; }}; . /hook");
        let out = self.command(&script).env("KUBESOLO_HEALTH_SYNC_SECS", sync_secs).output().unwrap();
        (out, fs::read_to_string(self.path("called")).unwrap_or_default())
    }

    fn hook(&self) -> (Output, String) {
        self.hook_with("600", "echo sync >>/called", ":")
    }
}

/// Pads to the block's length.
fn block(lines: &str) -> Vec<u8> {
    let mut bytes = lines.as_bytes().to_vec();
    bytes.resize(BLOCK_BYTES.max(bytes.len()), b'#');
    bytes
}

/// What is done to the lines of a block in which slot B is on trial.
type Change = fn(&str) -> String;
const CASES: &[(&str, Change)] = &[
    ("on trial", |b| b.into()),
    ("confirmed", |b| b.replace("boot_success=0", "boot_success=1")),
    ("the other one on trial", |b| b.replace("active_slot=B", "active_slot=A")),
    ("used up", |b| b.replace("boot_counter=2", "boot_counter=0")),
    ("it has rolled back before", |b| format!("{b}rollback_from=A\n")),
    ("rollback_from is empty", |b| format!("{b}rollback_from=\n")),
    ("the canary is empty", |b| b.replace("boot_canary=1", "boot_canary=")),
    ("no canary", |b| b.replace("boot_canary=1\n", "")),
    ("variables of others", |b| b.replace("boot_success", "xboot_success=1\nboot_successful=1\nboot_success")),
    ("a comment like a variable", |b| b.replace("boot_success", "#boot_success=1\nboot_success")),
    ("no sense: the slot", |b| b.replace("active_slot=B", "active_slot=C")),
    ("no sense: two slots", |b| b.replace("active_slot=B", "active_slot=BB")),
    ("no sense: the counter", |b| b.replace("boot_counter=2", "boot_counter=4")),
    ("no sense: two digits", |b| b.replace("boot_counter=2", "boot_counter=02")),
    ("no sense: success", |b| b.replace("boot_success=0", "boot_success=2")),
    ("no sense: rollback_from", |b| format!("{b}rollback_from=C\n")),
    ("no sense: the canary", |b| b.replace("boot_canary=1", "boot_canary=yes")),
    ("no slot", |b| b.replace("active_slot=B\n", "")),
    ("no counter", |b| b.replace("boot_counter=2\n", "")),
    ("no success", |b| b.replace("boot_success=0\n", "")),
    ("a blank behind", |b| b.replace("boot_success=0", "boot_success=0 ")),
    ("DOS line ends", |b| b.replace('\n', "\r\n")),
    ("no signature", |b| b.replace(SIGNATURE, "")),
    ("another signature", |b| b.replace("GRUB E", "GRUB e")),
    ("a blank behind the signature", |b| b.replace("Block\n", "Block \n")),
    ("nothing", |_| String::new()),
];

/// The copies in every order: the first that makes sense decides, for GRUB and for the hook.
#[apply(test)]
fn a_boot_is_on_trial_where_grub_says_so() {
    ready();
    let bench = Bench::new();
    let plain = format!("{SIGNATURE}active_slot=B\nboot_success=0\nboot_counter=2\nboot_canary=1\n");
    assert!(Block::decode(&block(&plain)).is_ok());
    let confirmed = block(&plain.replace("boot_success=0", "boot_success=1"));
    let plain_block = block(&plain);
    let (mut faults, mut verdicts) = (Vec::new(), [0, 0]);
    for (name, change) in CASES {
        let case = block(&change(&plain));
        for (order, copies) in [
            ("alone", [Some(&case), None]),
            ("the backup alone", [None, Some(&case)]),
            ("before one on trial", [Some(&case), Some(&plain_block)]),
            ("before a confirmed one", [Some(&case), Some(&confirmed)]),
        ] {
            let copies = copies.map(|copy| copy.map(|bytes| bytes.as_slice()));
            bench.write_blocks(copies);
            let first = copies.into_iter().flatten().find_map(Vars::read);
            let on_trial = first.is_some_and(|vars| vars.active == Slot::B && !vars.success);
            let (out, called) = bench.hook();
            let says = String::from_utf8_lossy(&out.stderr);
            verdicts[usize::from(on_trial)] += 1;
            if called.contains("reboot") != on_trial || out.status.code() != Some(7) {
                faults.push(format!("{name}, {order}: to GRUB {on_trial}; {called:?}, {:?}: {says}", out.status));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(verdicts.into_iter().all(|count| count > 20), "{verdicts:?}");
}

/// GRUB takes the last of several lines and counts in the first: it never boots such a trial, and the agent calls it damaged.
#[apply(test)]
fn a_name_that_is_there_several_times_is_no_variable() {
    ready();
    let bench = Bench::new();
    for count in 1..=6 {
        for name in ["active_slot=B\n", "boot_success=0\n", "boot_counter=2\n"] {
            let lines = format!("{SIGNATURE}active_slot=B\nboot_success=0\nboot_counter=2\n");
            let block = block(&lines.replace(name, &name.repeat(count)));
            assert_eq!(Block::decode(&block).is_ok(), count == 1);
            bench.write_blocks([Some(&block), None]);
            let (out, called) = bench.hook();
            assert_eq!(called.contains("reboot"), count == 1, "{count} times {name}: {out:?}");
        }
    }
}

/// A disk that has died keeps sync(2) for ever. All is written out first where it does not, and `reboot` does not try again.
#[apply(test)]
fn a_restart_waits_for_a_disk_and_not_for_ever() {
    ready();
    let bench = Bench::new();
    let on_trial = block(&format!("{SIGNATURE}active_slot=B\nboot_success=0\nboot_counter=2\n"));
    bench.write_blocks([Some(&on_trial), None]);
    let start = Instant::now();
    assert_eq!(bench.hook().1, "sync\nreboot -n -f\n");
    assert!(start.elapsed() < Duration::from_secs(300), "waited although it was done");
    // Until the pipe has a writer, which it gets only afterwards.
    run(Command::new("mkfifo").arg(bench.path("dev/dead")));
    assert_eq!(bench.hook_with("1", "read -r line </dev/dead", ":").1, "reboot -n -f\n");
    // It waits there still: a pipe that nobody reads cannot be opened so.
    let opened =
        || fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(bench.path("dev/dead")).is_ok();
    assert!(wait_for(Duration::from_secs(60), opened), "sync was not called");
    // Where `reboot` knows no such option.
    assert_eq!(bench.hook_with("600", ":", "[ \"$1\" != -n ]").1, "reboot -n -f\nreboot -f\n");
}

/// What the agent is given as time is not taken for a hang.
#[apply(test)]
fn a_check_that_was_asked_to_take_longer_is_not_killed() {
    ready();
    let bench = Bench::new();
    bench.program("kubesolo-update", "sleep 2");
    for (options, code) in [
        ("--timeout 600", 0),
        ("--timeout=600", 0),
        ("--json --timeout 0600 --watchdog /dev/w", 0),
        ("--timeout 0 --stable-for 600", 0),
        ("--timeout 0 --check-timeout 600", 0),
        ("--timeout 1 --timeout 600", 0),
        ("--timeout 0", KILLED),
        ("--timeout 600x", KILLED),
        ("--timeout", KILLED),
    ] {
        let script =
            format!("reboot() {{ echo >>/called; }}; set -- {options}; export KUBESOLO_HEALTH_LIMIT_SECS=1; . /hook");
        let mut hook = bench.command(&script);
        assert_eq!(hook.output().unwrap().status.code(), Some(code), "{options}");
    }
}

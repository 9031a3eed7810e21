//! `scripts/usb-provision.sh` and what others do with the device: mounted, swap, attached, open; before the question and while a
//! person reads it; and what a run that was ended leaves. With the kernel's own users, never with words in a file.

use super::usb_provision::{MIB, STICK, hold_refused, ready, said, site};
use crate::support::disk::wait_for;
use crate::support::harness::skip;
use crate::support::provision::{SiteFiles, Stick};
use crate::support::{command, need, need_all, run};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A program that must be there, what makes the device somebody's (`$1`: the device, `$2`: a directory, `$3`: its file, `$4`:
/// another file), what gives it back, and the words of the refusal. What is printed is given as the device instead.
const USERS: &[(&str, &str, &str, &str)] = &[
    ("mkfs.btrfs", "mkfs.btrfs -q -f $1; mount $1 $2", "umount $2", "is in use (mounted at"),
    (
        "mkfs.btrfs",
        "l=$(losetup -f --show $4); mkfs.btrfs -q -f $l $1; mount $l $2",
        "umount $2; losetup -d $(losetup -n -O NAME -j $4)",
        "is in use (a device of a mounted btrfs",
    ),
    ("mkfs.ext4", "mkfs.ext4 -q -F $1; mount -o ro,noload $1 $2", "umount $2", "is in use (mounted at"),
    ("mkswap", "mkswap -q $1; swapon $1", "swapoff $1", "is in use (swap: /dev/loop"),
    (
        "sgdisk",
        "sgdisk -n 1:0:+32M $3 >&2; partx -a $1; mkswap -q ${1}p1; swapon ${1}p1",
        "swapoff ${1}p1; partx -d $1",
        "is in use (swap: /dev/loop",
    ),
    (
        "sgdisk",
        "sgdisk -n 1:0:+64M $3 >&2; partx -a $1; losetup -f ${1}p1",
        "losetup -d $(losetup -n -O NAME -j ${1}p1); partx -d $1",
        "is in use (attached as /dev/loop",
    ),
    ("losetup", "losetup -f $1", "losetup -d $(losetup -n -O NAME -j $1)", "is in use (attached as /dev/loop"),
    // The file below it.
    (
        "losetup",
        "losetup -f $3",
        "for l in $(losetup -n -O NAME -j $3); do [ $l = $1 ] || losetup -d $l; done",
        "is in use (attached as /dev/loop",
    ),
    (
        "losetup",
        "losetup -f --show --sector-size 4096 $4",
        "losetup -d $(losetup -n -O NAME -j $4)",
        "losetup --sector-size 512",
    ),
];

fn sh(text: &str, stick: &Stick, site: &SiteFiles) -> String {
    let paths = [site.path("mnt"), stick.file.clone(), site.path("other")];
    run(Command::new("sh").args(["-euc", text, "sh", &stick.device]).args(paths).stderr(Stdio::null()))
}

#[apply(test)]
fn a_device_that_somebody_uses_is_left_alone() {
    ready();
    need_all(&["mkfs.btrfs", "mkfs.ext4", "mkswap", "swapon"]);
    let site = site();
    fs::create_dir(site.path("mnt")).unwrap();
    for (at, (program, take, give_back, words)) in USERS.iter().enumerate() {
        need(program);
        fs::File::create(site.path("other")).unwrap().set_len(STICK).unwrap();
        let stick = Stick::new(site.dir.path(), &format!("stick-{at}"), STICK);
        let printed = sh(take, &stick, &site);
        let device = printed.lines().find(|line| line.starts_with("/dev/")).unwrap_or(&stick.device);
        // A file system in use is written to when the kernel likes: what counts is that it can be read.
        let out = site.script(device, &["--force", "--yes"]).output().unwrap();
        let still = sh("cat /proc/mounts /proc/swaps", &stick, &site);
        sh(give_back, &stick, &site);
        assert!(out.status.code() == Some(1) && said(&out).contains(words), "{take}: wanted '{words}': {}", said(&out));
        assert!(!stick.looks_like_a_disk() || take.contains("sgdisk"), "{take}: {still}");
        run(site.script(&stick.device, &["--force", "--yes"]).arg("--dry-run"));
    }
}

/// What writes to it without a word to the kernel: a virtual machine, for one.
#[apply(test)]
fn a_device_that_a_program_has_open_to_write_is_left_alone() {
    ready();
    need_all(&["qemu-storage-daemon", "flock"]);
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    for place in [stick.device.clone(), stick.file.display().to_string()] {
        let open = fs::File::options().write(true).open(&place).unwrap();
        let words = format!("process {})", std::process::id());
        hold_refused(&stick, &mut site.script(&stick.device, &["--force", "--yes"]), &words);
        drop(open);
    }
    let socket = site.path("monitor");
    let kind = format!("driver=host_device,node-name=d,filename={}", stick.device);
    let mut daemon = Command::new("qemu-storage-daemon");
    daemon.args(["--blockdev", &kind, "--pidfile"]).arg(site.path("pid"));
    daemon.args(["--chardev", &format!("socket,id=m,path={},server=on,wait=off", socket.display()), "--monitor", "m"]);
    let mut daemon = daemon.spawn().unwrap();
    assert!(wait_for(Duration::from_secs(20), || site.path("pid").exists()));
    hold_refused(&stick, &mut site.script(&stick.device, &["--force", "--yes"]), "open to write in qemu-storage-da");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    // As udev, sfdisk and others ask each other for a device.
    let mut lock = Command::new("flock");
    lock.args([&stick.device, "sh", "-c", "echo held; read -r _"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut lock = lock.spawn().unwrap();
    lock.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    hold_refused(&stick, &mut site.script(&stick.device, &["--force", "--yes"]), "is locked by another program");
    drop(lock.stdin.take());
    lock.wait().unwrap();
    // Who only reads, may.
    let open = fs::File::open(&stick.device).unwrap();
    run(site.script(&stick.device, &["--force"]).arg("--dry-run"));
    drop(open);
}

/// Swap in memory.
/// Skips a test of what this kernel lacks, in CI as well: no package brings it.
fn need_kernel(file: &str) {
    if !Path::new(file).exists() {
        skip(&format!("{file}: this kernel has none"));
    }
}

#[apply(test)]
fn a_zram_is_left_alone() {
    ready();
    need_kernel("/sys/class/zram-control/hot_add");
    let site = site();
    let number = fs::read_to_string("/sys/class/zram-control/hot_add").unwrap().trim().to_string();
    let device = format!("/dev/zram{number}");
    let take = "echo 160M >/sys/block/zram$1/disksize; mkswap -q /dev/zram$1; swapon /dev/zram$1";
    run(Command::new("sh").args(["-euc", take, "sh", &number]));
    let out = site.script(&device, &["--force", "--yes"]).output().unwrap();
    let back = "swapoff /dev/zram$1; echo $1 >/sys/class/zram-control/hot_remove";
    run(Command::new("sh").args(["-euc", back, "sh", &number]));
    assert!(out.status.code() == Some(1) && said(&out).contains("is in use (swap: /dev/zram"), "{}", said(&out));
}

/// What a volume group and a crypt are made of. Not every kernel has it; where it is missing, the other users stand for it.
#[apply(test)]
fn a_mapped_device_is_left_alone() {
    ready();
    need("dmsetup");
    need_kernel("/sys/class/misc/device-mapper/dev");
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    let name = format!("kubesolo-test-{}", stick.name());
    run(command("dmsetup").args(["create", &name, "--table", &format!("0 8192 linear {} 0", stick.device)]));
    let out = site.script(&stick.device, &["--force", "--yes"]).output().unwrap();
    run(command("dmsetup").args(["remove", &name]));
    assert!(out.status.code() == Some(1) && said(&out).contains("is in use (held by dm-"), "{}", said(&out));
}

/// Swap on /dev/loop10 is none on /dev/loop1.
#[apply(test)]
fn a_device_whose_name_only_begins_alike_is_another() {
    ready();
    need_all(&["mkswap", "swapon", "perl"]);
    let site = site();
    // No name begins with that of /dev/loop0.
    let sticks = ["stick", "second"].map(|name| Stick::new(site.dir.path(), name, STICK));
    let stick = sticks.iter().find(|stick| stick.device != "/dev/loop0").unwrap();
    fs::File::create(site.path("other")).unwrap().set_len(32 * MIB).unwrap();
    let alike = format!("{}991", stick.device);
    let take = "losetup $1 $2; mkswap -q $1; swapon $1";
    run(Command::new("sh").args(["-euc", take, "sh", &alike]).arg(site.path("other")).stderr(Stdio::null()));
    let out = site.script(&stick.device, &["--force", "--dry-run"]).output().unwrap();
    // The node goes as well.
    let remove = "swapoff $1; losetup -d $1; perl -e 'open(C, \"+<\", \"/dev/loop-control\"); ioctl(C, 0x4c81, $ARGV[0] + 0)' ${1#/dev/loop}";
    run(Command::new("sh").args(["-euc", remove, "sh", &alike]));
    assert!(out.status.success(), "{}", said(&out));
}

/// The script on a terminal, at its question.
struct Asked(Child);

impl Asked {
    /// Input: shell that runs before the script, in a mount namespace of its own.
    fn new(site: &SiteFiles, stick: &Stick, before: &str) -> Asked {
        let program = site.script(&stick.device, &["--force"]);
        let words: Vec<String> = std::iter::once(program.get_program())
            .chain(program.get_args())
            .map(|w| format!("'{}'", w.to_str().unwrap()))
            .collect();
        let mut terminal = Command::new("unshare");
        let inner = format!("{before}\nexec {}", words.join(" "));
        fs::write(site.path("asked.sh"), inner).unwrap();
        terminal.args(["--mount", "--propagation", "private", "script", "-qec", "sh -eu asked.sh", "/dev/null"]);
        terminal.current_dir(site.dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut asked = Asked(terminal.spawn().unwrap());
        let (mut text, mut byte) = (String::new(), [0]);
        while !text.ends_with("to overwrite it: ") {
            let count = asked.0.stdout.as_mut().unwrap().read(&mut byte).unwrap();
            assert!(count == 1, "it ended before it asked: {text}");
            text.push(byte[0] as char);
        }
        asked
    }

    fn answer(mut self, words: &str) -> (bool, String) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{words}").unwrap();
        let out = self.0.wait_with_output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

#[apply(test)]
fn while_a_person_reads_nobody_else_gets_the_device() {
    ready();
    need_all(&["script", "mkfs.ext4", "mkswap", "swapon", "mkfs.btrfs"]);
    let site = site();
    fs::create_dir(site.path("mnt")).unwrap();
    for make in ["mkfs.ext4 -q -F", "mkfs.btrfs -q -f", "mkswap -q"] {
        let stick = Stick::new(site.dir.path(), "stick", STICK);
        run(Command::new("sh").args(["-euc", &format!("{make} $1"), "sh", &stick.device]));
        let asked = Asked::new(&site, &stick, "");
        let mut take = command(if make.starts_with("mkswap") { "swapon" } else { "mount" });
        take.arg(&stick.device);
        if !make.starts_with("mkswap") {
            take.arg(site.path("mnt"));
        }
        let taken = take.stderr(Stdio::null()).status().unwrap().success();
        if taken {
            let free = if make.starts_with("mkswap") { "swapoff $1" } else { "umount $1" };
            run(Command::new("sh").args(["-euc", free, "sh", &stick.device]));
        }
        assert!(!taken, "{make}: it was taken");
        // Nor a second run.
        hold_refused(&stick, &mut site.script(&stick.device, &["--force", "--yes"]), "is in use");
        let (success, text) = asked.answer(&stick.device);
        assert!(success && text.contains("it is ready"), "{text}");
        assert!(stick.looks_like_a_disk());
    }
}

#[apply(test)]
fn another_device_than_the_one_that_was_looked_at_is_left_alone() {
    ready();
    need_all(&["script", "pgrep"]);
    let site = site();
    // `$1`: the device, `$2`: its file, `$3`: a file that stands for its diskseq.
    let bind = |stick: &Stick| format!("mount --bind diskseq /sys/block/{}/diskseq", stick.name());
    for (name, change, words) in [
        ("grown", "truncate -s +1M $2; losetup --set-capacity $1", "is not the device any more"),
        ("other", "echo 2 >$3", "is not the device any more"),
        ("attached", "losetup -f $1", "is in use (attached as"),
        ("guardian", "kill $(pgrep -f \"^perl -e.*$1\\$\")", "is no longer held"),
    ] {
        let stick = Stick::new(site.dir.path(), name, STICK);
        site.write("diskseq", "1\n");
        let asked = Asked::new(&site, &stick, &bind(&stick));
        run(Command::new("sh")
            .args(["-euc", change, "sh", &stick.device])
            .args([&stick.file, &site.path("diskseq")])
            .stderr(Stdio::null()));
        let before = stick.hash();
        let (success, text) = asked.answer(&stick.device);
        let left = stick.loops_upon();
        left.lines().for_each(|left| drop(run(command("losetup").args(["-d", left]))));
        assert!(!success && text.contains(words), "{name}: {text}");
        assert!(stick.hash() == before, "{name}: the device was written");
        // What somebody else attached is his.
        assert_eq!(left.lines().count(), usize::from(name == "attached"), "{name}");
    }
}

#[apply(test)]
fn a_run_that_is_ended_leaves_nothing_behind() {
    ready();
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    let temporary = site.path("temporary");
    fs::create_dir(&temporary).unwrap();
    let clean = || {
        stick.loops_upon().is_empty() && fs::read_dir(&temporary).unwrap().next().is_none() && {
            // Held by nobody.
            let free = site.script(&stick.device, &["--force", "--dry-run"]).env("TMPDIR", site.path("keys")).output();
            free.unwrap().status.success()
        }
    };
    // At the moment when it has a loop device that it has not let go of, and inside a mount; by a signal that no one can catch, and
    // by those that a person sends.
    for signal in ["KILL", "TERM", "INT", "HUP"] {
        for (program, when) in [("losetup", "--detach"), ("e2fsck", "-f"), ("unshare", "--mount")] {
            let sent = site.path("sent");
            let _ = fs::remove_file(&sent);
            let text = format!(
                "case \"$*\" in *{when}*) [ -e {sent} ] || {{ : >{sent}; kill -{signal} $PPID; \
                 [ {signal} = KILL ] || exec \"$real\" \"$@\"; exit 1; }} ;; esac",
                sent = sent.display()
            );
            let mut script = site.provision(&stick, &[]);
            script.env("TMPDIR", &temporary);
            crate::support::publish::before_path(
                &mut script,
                &crate::support::publish::wrap(site.dir.path(), program, &text),
            );
            let out = script.output().unwrap();
            assert!(!out.status.success() && sent.exists(), "{signal} {program}: {}", said(&out));
            assert!(wait_for(Duration::from_secs(20), clean), "{signal} {program}: {}", stick.loops_upon());
            assert!(!stick.looks_like_a_disk(), "{signal} {program}");
        }
    }
}

//! A target slot whose file system is damaged: what an update is going to overwrite is made anew, and nothing else.
//!
//! What the agent makes is judged by e2fsck, dumpe2fs, debugfs, the kernel and GRUB's own reader.

use crate::support::disk::{A, B, Disk, need_disks, noise, wait_for};
use crate::support::machine::Machine;
use crate::support::release::{Medium, Release};
use crate::support::root::{Root, Run};
use crate::support::{command, need, run, with_own_mounts};
use kubesolo_update::parts::disk::ext4::{Identity, Plan};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BLOCK: u64 = 4096;

/// Where a part of slot B's file system lies, in bytes: as debugfs tells it.
fn place(disk: &Disk, what: &str) -> u64 {
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap();
    let block = match what {
        "root directory" => number(disk.debugfs(B, "blocks /").trim()),
        "journal" => number(disk.debugfs(B, "blocks <8>").trim()),
        _ => {
            let stats = disk.debugfs(B, "stats");
            number(stats.split(&format!("{what} at ")).nth(1).unwrap())
        }
    };
    block * BLOCK
}

/// Slot B but for its superblock: there Linux itself counts the damage that it meets, on read-only mounts as well (measured: Linux 6.18.44).
fn but_superblock(disk: &Disk) -> Vec<u8> {
    disk.bytes(B)[BLOCK as usize..].to_vec()
}

/// Holds slot B against a release with e2fsck and debugfs.
#[track_caller]
fn assert_whole(disk: &Disk, release: &Release, what: &str) {
    let pair = release.ours();
    assert!(disk.file(B, "vmlinuz").unwrap() == pair.kernel, "{what}");
    assert!(disk.file(B, "kubesolo-os.gz").unwrap() == pair.initramfs, "{what}");
    assert_eq!(disk.names(B), ["kubesolo-os.gz", "slot.crc32", "slot.json", "version", "vmlinuz"], "{what}");
    let fsck = format!("{}?offset={}", disk.image.display(), disk.extent(B).0);
    run(command("e2fsck").arg("-fn").arg(fsck));
    assert!(!disk.needs_recovery(B), "{what}: the journal is not empty");
}

/// One row a kind of damage; a reader adds a line: where, and by what it is overwritten.
#[apply(test)]
fn a_target_that_is_damaged_is_made_anew() {
    need_disks();
    let release = Release::new("2.0.0");
    let server = release.serve();
    let zeros = |blocks: u64| vec![0; (blocks * BLOCK) as usize];
    let mut fat = zeros(8);
    fat[..3].copy_from_slice(&[0xeb, 0x58, 0x90]);
    fat[0x47..0x52].copy_from_slice(b"KSOLOB     ");
    fat[0x52..0x5a].copy_from_slice(b"FAT32   ");
    fat[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut xfs = zeros(8);
    xfs[..4].copy_from_slice(b"XFSB");
    let cases: [(&str, &str, u64, Vec<u8>); 18] = [
        ("no superblock", "", 0, zeros(1)),
        ("zeros all over", "", 0, zeros(6144)),
        ("noise in front", "", 0, noise(4, 8192)),
        ("another file system: FAT", "", 0, fat),
        ("another file system: XFS", "", 0, xfs),
        ("a superblock whose checksum is wrong", "", 1024 + 0x4c, vec![0xff; 4]),
        ("a feature that no kernel has", "", 1024 + 0x60, vec![0xff; 4]),
        ("a size beyond the end", "", 1024 + 0x04, vec![0xff; 4]),
        ("no group descriptors", "", BLOCK, zeros(1)),
        ("noise for group descriptors", "", BLOCK, noise(5, 4096)),
        ("no inodes", "inode table", 0, zeros(1)),
        ("noise for inodes", "inode table", 0, noise(6, 4096)),
        ("only the files' inodes are gone", "inode table", 11 * 256, vec![0; 5 * 256]),
        ("only the files' inodes are noise", "inode table", 11 * 256, noise(7, 5 * 256)),
        ("no root directory", "root directory", 0, zeros(1)),
        ("noise for a root directory", "root directory", 0, noise(8, 4096)),
        ("no journal", "journal", 0, zeros(1)),
        ("bitmaps that say that all is taken", "block bitmap", 0, vec![0xff; 4096]),
    ];
    for (what, part, offset, bytes) in cases {
        let mut machine = Machine::new();
        let at = if part.is_empty() { 0 } else { place(&machine.disk, part) };
        machine.disk.detach();
        machine.disk.overwrite(B, at + offset, &bytes);
        machine.disk.attach();
        // Looking changes nothing, and knows what `apply` would do.
        let before = but_superblock(&machine.disk);
        machine.root.agent(&["status"]).expect(0, &["Slot B"]);
        machine.root.agent(&["check", "--server", &server.url("")]).expect(0, &["an update is available"]);
        assert!(but_superblock(&machine.disk) == before, "{what}: looking wrote to slot B");
        let said = machine.apply(&["--server", &server.url("")]).expect(0, &["2.0.0 is staged in slot B"]);
        assert!(said.stderr.contains("the file system of slot B is made anew"), "{what}: {said:?}");
        assert_whole(&machine.disk, &release, what);
        assert!(machine.disk.bytes(A) == machine.running, "{what}: the running slot was written");
        assert!(machine.root.blocks() == machine.blocks, "{what}: the boot variables were written");
        machine.root.agent(&["activate"]).expect(0, &["slot B is active"]);
    }
}

/// What is not damage costs a slot nothing: it is refused or waited for, and not made anew.
#[apply(test)]
fn a_sound_target_is_never_made_anew() {
    need_disks();
    need("tune2fs");
    let release = Release::new("2.0.0");
    let server = release.serve();
    let mut machine = Machine::new();
    // A label is not what makes a slot.
    let node = machine.disk.node(B);
    run(command("tune2fs").args(["-L", "SOMETHING"]).arg(&node));
    let uuid = |disk: &Disk| disk.debugfs(B, "stats -h").lines().find(|l| l.contains("UUID")).unwrap().to_owned();
    let before = uuid(&machine.disk);
    machine.disk.detach();
    machine.disk.attach();
    machine.apply(&["--server", &server.url("")]).expect(0, &["2.0.0 is staged in slot B"]);
    assert_whole(&machine.disk, &release, "another label");
    assert_eq!(uuid(&machine.disk), before);
}

/// A source that fails in the words of a damaged file system is no reason to make the slot anew: a stick that is damaged
/// itself, a file server that has come back.
#[apply(test)]
fn a_source_that_is_damaged_costs_the_slot_nothing() {
    need_disks();
    need("strace");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let medium = Medium::new(disk.dir(), &Release::new("2.0.0"));
    let blobs = Path::new(medium.path()).join("blobs/sha256");
    let mut paths: Vec<PathBuf> = fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.extend([blobs.parent().unwrap().to_owned(), blobs.clone()]);
    let uuid = |disk: &Disk| disk.debugfs(B, "stats -h").lines().find(|l| l.contains("UUID")).unwrap().to_owned();
    let before = uuid(&disk);
    let trace = disk.dir().join("trace");
    let mut failed = 0;
    for (n, fault) in ["ESTALE", "EUCLEAN", "EBADMSG", "EROFS", "ENOSPC"].iter().cycle().take(20).enumerate() {
        let mut strace = command("strace");
        strace.arg("-f").arg("-o").arg(&trace);
        for path in &paths {
            strace.arg("-P").arg(path);
        }
        let calls = "statx,lstat,newfstatat,fstat,open,openat,read,pread64";
        strace.args(["-e", &format!("inject={calls}:error={fault}:when={}+", n + 1)]);
        let run = Run::from(root.command_under(strace, &["apply", "--layout", medium.path()]).output().unwrap());
        let happened = fs::read_to_string(&trace).unwrap().contains("(INJECTED)");
        failed += usize::from(happened);
        assert!(!happened || run.code == 6, "{fault} {n}: {run:?}");
        assert!(!run.stderr.contains("made anew"), "{fault} {n}: {run:?}");
        assert_eq!(uuid(&disk), before, "{fault} {n}: {run:?}");
    }
    assert!(failed > 10, "{failed}");
}

/// Without the partition table's word, what lies in a file system is all that says which partition it is: then a person
/// makes it anew, with the command of the hint, word by word.
#[apply(test)]
fn a_slot_by_its_label_alone_is_made_anew_by_a_person() {
    need_disks();
    let release = Release::new("2.0.0");
    let server = release.serve();
    let mut machine = Machine::new();
    let root = place(&machine.disk, "root directory");
    machine.disk.detach();
    for number in [A, B] {
        run(command("sgdisk").args(["-c", &format!("{number}:")]).arg(&machine.disk.image));
    }
    machine.disk.overwrite(B, root, &[0; 4096]);
    let before = but_superblock(&machine.disk);
    machine.disk.attach();
    let said =
        machine.apply(&["--server", &server.url("")]).expect(7, &["the file system is damaged", "mke2fs -t ext4"]);
    let text = format!("{}{}", said.stdout, said.stderr);
    machine.disk.detach();
    assert!(but_superblock(&machine.disk) == before, "it was written to");
    machine.disk.attach();
    // The number of the device may be another one now.
    let hint = text.split('`').nth(1).unwrap().to_owned();
    let (words, _) = hint.rsplit_once(' ').unwrap();
    run(command("sh").arg("-euc").arg(format!("yes | {words} {} >&2", machine.disk.node(B).display())));
    machine.apply(&["--server", &server.url("")]).expect(0, &["2.0.0 is staged in slot B"]);
    assert_whole(&machine.disk, &release, "by hand");
}

/// A write-protect switch is no damage: making the file system anew would fail as well. A reader adds a line: what is
/// read-only, and what lies in slot B beforehand.
#[apply(test)]
fn a_device_that_takes_no_write_is_said_to_be_read_only() {
    need_disks();
    let release = Release::new("2.0.0");
    let server = release.serve();
    for (what, of_disk, damage) in [
        ("the slot", false, None),
        ("the slot, with another file system in it", false, Some(0)),
        ("the slot, its root directory damaged", false, Some(1)),
        ("the whole disk", true, None),
    ] {
        let mut machine = Machine::new();
        if let Some(which) = damage {
            let at = if which == 0 { 0 } else { place(&machine.disk, "root directory") };
            machine.disk.detach();
            machine.disk.overwrite(B, at, &[0; 4096]);
            machine.disk.attach();
        }
        let device = if of_disk { Path::new(machine.disk.device()).to_owned() } else { machine.disk.node(B) };
        let before = machine.disk.bytes(B);
        run(command("blockdev").arg("--setro").arg(&device));
        let said = machine.apply(&["--server", &server.url("")]).expect(7, &["read-only", "`blockdev --setrw /"]);
        assert!(!format!("{}{}", said.stdout, said.stderr).contains("mke2fs"), "{what}: {said:?}");
        // No brackets in brackets.
        let next = said.stderr.rsplit_once("(the device is read-only").expect("it is said last").1;
        assert!(!next.contains('(') && next.matches(')').count() == 1, "{what}: {said:?}");
        assert!(machine.disk.bytes(B) == before, "{what}");
        // Word by word.
        let hint = said.stderr.split('`').nth(1).unwrap();
        run(command("sh").arg("-euc").arg(if of_disk {
            format!("blockdev --setrw {}", device.display())
        } else {
            hint.into()
        }));
        machine.apply(&["--server", &server.url("")]).expect(0, &["2.0.0 is staged in slot B"]);
    }
}

/// Writes one as the agent does, into a sparse file. Returns: what dumpe2fs says of it.
fn make(path: &Path, size: u64) -> String {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    let identity =
        Identity { uuid: *b"0123456789abcdef", hash_seed: [7; 16], label: "KSOLOB", made_secs: 1_700_000_000 };
    let mut put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at);
    Plan::new(size).unwrap().write(&identity, &mut put).unwrap();
    run(command("e2fsck").arg("-fn").arg(path));
    run(command("dumpe2fs").arg(path))
}

/// Sizes around the edges of groups and of the table of groups.
#[apply(test)]
fn what_is_made_is_sound_at_every_size() {
    need_disks();
    need("dumpe2fs");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("slot");
    for (mib, more) in [
        (16, 0),
        (17, 4096),
        (24, 0),
        (127, 0),
        (128, 0),
        (128, 4096),
        (128, 4 << 20),
        (300, 1),
        (512, 0),
        (1024, 0),
        (6000, 512),
        (20_000, 0),
    ] {
        let said = make(&path, (mib << 20) + more);
        for words in ["Filesystem volume name:   KSOLOB", "metadata_csum", "Journal inode:            8"] {
            assert!(said.contains(words), "{mib} MiB + {more}: {said}");
        }
        assert!(said.contains("Total journal size:       4096k"), "{said}");
    }
}

/// The kernel writes to it, and GRUB's own reader reads what it wrote.
#[apply(test)]
fn the_kernel_and_grub_read_what_is_made() {
    need_disks();
    need("grub-fstest");
    let mut machine = Machine::new();
    machine.disk.detach();
    machine.disk.overwrite(B, 0, &[0; 4096]);
    machine.disk.attach();
    let release = Release::new("2.0.0");
    machine.apply(&["--server", &release.serve().url("")]).expect(0, &["is staged"]);
    let slot = machine.disk.dir().join("slot");
    fs::write(&slot, machine.disk.bytes(B)).unwrap();
    for (name, content) in [("vmlinuz", &release.ours().kernel), ("kubesolo-os.gz", &release.ours().initramfs)] {
        let copy = machine.disk.dir().join("copy");
        run(command("grub-fstest").arg(&slot).args(["cp", &format!("/{name}")]).arg(&copy));
        assert!(fs::read(&copy).unwrap() == *content, "{name}");
    }
}

/// However the making ends: the running slot is as it was, the other one counts for nothing, and the next run mends it.
#[apply(test)]
fn a_kill_while_it_is_made_costs_nothing() {
    need_disks();
    need("strace");
    let release = Release::new("2.0.0");
    let server = release.serve();
    let mut counted = 0;
    for stop in [1, 2, 3, 5, 8, 12, 40, 70, 71, 72] {
        let mut machine = Machine::new();
        machine.disk.detach();
        machine.disk.overwrite(B, 0, &[0; 4096]);
        machine.disk.attach();
        let mut strace = command("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("inject=pwrite64:signal=SIGKILL:when={stop}"), "-P"]);
        strace.arg(machine.root.path("dev").join(machine.disk.name(B)));
        let ended = machine.root.command_under(strace, &["apply", "--server", &server.url("")]).output().unwrap();
        counted += u32::from(!ended.status.success());
        machine.disk.wait_unmounted(B);
        assert!(machine.disk.bytes(A) == machine.running, "{stop}: the running slot was written");
        assert!(machine.root.blocks() == machine.blocks, "{stop}: the boot variables were written");
        if !ended.status.success() {
            machine.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
        }
        machine.apply(&["--server", &server.url("")]);
        assert_whole(&machine.disk, &release, &format!("after write {stop}"));
    }
    // Of 72 writes.
    assert_eq!(counted, 10, "runs that were killed");
}

/// A slot that somebody reads elsewhere: nothing is at work on it, so no run will end, and cron must not be told that.
#[apply(test)]
fn a_damaged_slot_that_is_mounted_elsewhere_is_left_alone() {
    need_disks();
    let machine = Machine::new();
    let server = Release::new("2.0.0").serve();
    let point = machine.disk.dir().join("elsewhere");
    fs::create_dir(&point).unwrap();
    let mut holder = with_own_mounts("mount -o ro,noload \"$1\" \"$2\"; echo mounted; read -r end || :");
    holder.arg(machine.disk.node(B)).arg(&point).stdin(std::process::Stdio::piped());
    let mut holder = holder.stdout(std::process::Stdio::null()).spawn().unwrap();
    assert!(wait_for(Duration::from_secs(20), || machine.disk.is_mounted(B)));
    for flags in [&["apply"][..], &["apply", "--ok-if-nothing"]] {
        let said = machine.root.agent(&[flags, &["--server", &server.url("")]].concat());
        said.expect(7, &["another process has it mounted", "unmount it, then try again"]);
        assert_eq!(machine.root.state_field("last_error_kind"), "device");
    }
    drop(holder.stdin.take());
    holder.wait().unwrap();
    machine.disk.wait_unmounted(B);
    assert!(machine.disk.bytes(B) == machine.target, "slot B was written");
    machine.apply(&["--server", &server.url("")]).expect(0, &["is staged"]);
}

/// A lock on the device may be anybody's: nothing has failed, and who looks for the holder is told how.
#[apply(test)]
fn a_slot_that_is_in_use_is_not_called_lost() {
    need_disks();
    need("flock");
    let mut machine = Machine::new();
    let server = Release::new("2.0.0").serve();
    let under_lock = |machine: &Machine, number: u32, args: &[&str]| {
        let mut flock = command("flock");
        flock.arg("-n").arg(machine.disk.node(number));
        Run::from(machine.root.command_under(flock, args).output().unwrap())
    };
    let status = under_lock(&machine, A, &["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq(".condition"), "running_slot_busy");
    assert!(status.jq(".next").contains("nothing is known of it while it is in use"), "{status:?}");
    let screen = under_lock(&machine, A, &["status"]).expect(0, &["slot A: the running slot is in use"]);
    assert!(!screen.stdout.contains("NOT valid") && !screen.stdout.contains("rollback"), "{screen:?}");
    under_lock(&machine, A, &["check", "--server", &server.url("")])
        .expect(8, &["some other program holds a lock on it"]);
    under_lock(&machine, A, &["apply", "--ok-if-nothing", "--server", &server.url("")]).expect(0, &[]);
    // The other one is in use, and the one that runs is lost: nobody knows yet that the disk is.
    machine.disk.detach();
    machine.disk.overwrite(A, 0, &[0; 2 << 20]);
    machine.disk.attach();
    let status = under_lock(&machine, B, &["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq(".condition"), "running_slot_invalid");
    assert!(!status.jq(".next").contains("write the disk anew"), "{status:?}");
}

/// A second name that somebody gave to a file of a slot keeps its bytes: they are no room.
#[apply(test)]
fn a_file_with_another_name_in_a_slot_is_no_room() {
    need_disks();
    let machine = Machine::new();
    machine.apply(&["--server", &Release::new("2.0.0").serve().url("")]).expect(0, &["is staged"]);
    let server = Release::new("2.0.1").serve();
    machine.in_slot(
        B,
        "ln vmlinuz known-good; ln kubesolo-os.gz known-good.gz; dd if=/dev/zero of=full bs=64k || :; \
        truncate -s -1179648 full",
    );
    let said = machine.root.agent(&["apply", "--server", &server.url("")]).expect(4, &["the target slot has room for"]);
    assert!(!said.stderr.contains("made anew"), "{said:?}");
    let names = machine.disk.names(B);
    assert!(["known-good", "known-good.gz", "vmlinuz"].iter().all(|name| names.contains(&(*name).into())), "{names:?}");
}

#[apply(test)]
fn a_slot_that_some_other_program_locks_is_no_failure() {
    need_disks();
    need("flock");
    let machine = Machine::new();
    let server = Release::new("2.0.0").serve();
    let (node, url) = (machine.disk.node(B), server.url(""));
    for (flags, code) in [(&["apply"][..], 8), (&["apply", "--ok-if-nothing"], 0)] {
        let mut flock = command("flock");
        flock.arg("-n").arg(&node);
        let args = [flags, &["--server", &url]].concat();
        let said = Run::from(machine.root.command_under(flock, &args).output().unwrap());
        let fuser = format!("`fuser {}` shows", machine.root.path("dev").join(machine.disk.name(B)).display());
        said.expect(code, &["another run is at work on it, or some other program holds a lock on it", &fuser]);
        let status = machine.root.agent(&["status", "--json"]).expect(0, &[]);
        assert_eq!(status.jq("[.update.phase, .update.last_error]"), r#"["idle",null]"#, "{}", status.stdout);
    }
    assert!(machine.disk.bytes(B) == machine.target, "slot B was written");
    machine.apply(&["--server", &server.url("")]).expect(0, &["is staged"]);
}

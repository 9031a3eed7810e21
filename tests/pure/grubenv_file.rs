//! Holds the writer of the two environment-block copies against real files and real faults.

use crate::support::immutable::Immutable;
use crate::support::{need, require};
use kubesolo_update::parts::base::error::Kind;
use kubesolo_update::parts::boot::block::Block;
use kubesolo_update::parts::boot::damage::BLOCK_BYTES;
use kubesolo_update::parts::boot::damage::Damage;
use kubesolo_update::parts::boot::env_copy::EnvCopy;
use kubesolo_update::parts::boot::env_copy::Fault;
use kubesolo_update::parts::boot::env_files::EnvFiles;
use kubesolo_update::parts::boot::salvage::Known;
use kubesolo_update::parts::slot::record::Slot;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A block that decodes, whatever its values.
fn padded(body: &[u8]) -> Vec<u8> {
    let mut bytes = [b"# GRUB Environment Block\n".as_slice(), body].concat();
    bytes.resize(BLOCK_BYTES, b'#');
    bytes
}

fn two_copies(block: &Block) -> (tempfile::TempDir, EnvFiles) {
    let dir = tempfile::tempdir().unwrap();
    let files = EnvFiles::new(dir.path());
    files.repair(block).unwrap();
    (dir, files)
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn trial() -> Block {
    let mut block = Block::fresh(Slot::A);
    block.activate(Slot::B);
    block
}

#[apply(test)]
fn repair_makes_two_written_out_files_and_load_reads_them() {
    let (dir, files) = two_copies(&trial());
    assert_eq!(names_in(dir.path()), ["grubenv", "grubenv.bak"]);
    for copy in [EnvCopy::Main, EnvCopy::Backup] {
        let meta = fs::metadata(files.path(copy)).unwrap();
        assert_eq!(meta.len(), 1024);
        assert!(meta.blocks() > 0, "GRUB does not save to sparse files");
    }
    let loaded = files.load();
    assert_eq!((loaded.which, loaded.copies_differ, loaded.damage.len()), (EnvCopy::Main, false, 0));
    let (block, vars) = loaded.usable().unwrap();
    assert_eq!((block, vars.active_slot), (&trial(), Some(Slot::B)));
}

#[apply(test)]
fn save_overwrites_the_same_file_in_place() {
    let (dir, files) = two_copies(&Block::fresh(Slot::A));
    let directory_before = fs::metadata(dir.path()).unwrap();
    for (copy, link) in [(EnvCopy::Main, "m"), (EnvCopy::Backup, "b")] {
        fs::hard_link(files.path(copy), dir.path().join(link)).unwrap();
    }
    let before = [EnvCopy::Main, EnvCopy::Backup].map(|c| fs::metadata(files.path(c)).unwrap().ino());
    let names = names_in(dir.path());
    let reader = fs::File::open(files.path(EnvCopy::Main)).unwrap();
    assert_eq!(files.save(&trial()).unwrap().backup, None);
    assert_eq!([EnvCopy::Main, EnvCopy::Backup].map(|c| fs::metadata(files.path(c)).unwrap().ino()), before);
    assert_eq!(names_in(dir.path()), names);
    assert_eq!(fs::metadata(dir.path()).unwrap().ino(), directory_before.ino());
    let expected = trial().encode().unwrap();
    for link in ["m", "b", "grubenv", "grubenv.bak"] {
        assert_eq!(fs::read(dir.path().join(link)).unwrap(), expected, "{link}");
    }
    let mut seen = [0; BLOCK_BYTES];
    reader.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(seen, expected, "a descriptor opened before sees it: same inode, same blocks");
}

type Break = fn(&Path);

/// Faults that say nothing of what the file should hold; and what is said of each.
const GONE: [(&str, Break, &str); 4] = [
    ("missing", |p| fs::remove_file(p).unwrap(), "is missing"),
    ("empty", |p| fs::write(p, "").unwrap(), "is 0 bytes long, not 1024"),
    ("short", |p| fs::write(p, "x").unwrap(), "is 1 bytes long, not 1024"),
    ("long", |p| fs::write(p, vec![b'#'; 9000]).unwrap(), "is 9000 bytes long, not 1024"),
];

/// Something else in the file's place: never followed, opened or removed; what it is called, and what is kept of it.
const IN_THE_WAY: [(&str, Break, &str); 7] = [
    ("directory", |p| fs::remove_file(p).and_then(|()| fs::create_dir(p)).unwrap(), "a directory"),
    ("full directory", full_directory, "a directory"),
    ("link to a device", |p| link("/dev/full", p), "a symbolic link"),
    ("link to a file", |p| link("/etc/passwd", p), "a symbolic link"),
    ("dangling link", |p| link("/nonexistent/file", p), "a symbolic link"),
    ("FIFO", fifo, "a named pipe"),
    ("socket", |p| fs::remove_file(p).map(|()| drop(UnixListener::bind(p).unwrap())).unwrap(), "a socket"),
];

fn full_directory(path: &Path) {
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    fs::write(path.join("FSCK0000.REC"), "lost").unwrap();
}

fn link(to: &str, path: &Path) {
    fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(to, path).unwrap();
}

fn kind(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & libc::S_IFMT
}

#[apply(test)]
fn save_makes_the_bad_copy_whole_from_the_good_one() {
    let fresh = Block::fresh(Slot::A);
    for (name, damage, _) in GONE {
        for copy in [EnvCopy::Main, EnvCopy::Backup] {
            let (_dir, files) = two_copies(&fresh);
            damage(&files.path(copy));
            assert_eq!(files.load().damage.len(), 1, "{name}");
            assert_eq!(files.save(&trial()).unwrap().backup, None, "{name} {copy}");
            for copy in [EnvCopy::Main, EnvCopy::Backup] {
                assert_eq!(fs::read(files.path(copy)).unwrap(), trial().encode().unwrap(), "{name}");
            }
        }
    }
}

#[apply(test)]
fn save_guesses_nothing_where_neither_copy_is_good() {
    let fresh = Block::fresh(Slot::A);
    for (name, damage, says) in GONE {
        let (dir, files) = two_copies(&fresh);
        fs::write(files.path(EnvCopy::Backup), "no block").unwrap();
        damage(&files.path(EnvCopy::Main));
        let size = fs::symlink_metadata(files.path(EnvCopy::Main)).ok().map(|m| m.len());
        let names = names_in(dir.path());
        let e = files.save(&trial()).unwrap_err();
        assert_eq!(e.exit_code(), 7);
        assert!(e.to_string().contains(says), "{name}: {e}");
        assert_eq!(fs::symlink_metadata(files.path(EnvCopy::Main)).ok().map(|m| m.len()), size, "{name}");
        assert_eq!(names_in(dir.path()), names, "{name}");
    }
}

#[apply(test)]
fn what_is_in_the_way_is_never_followed_and_kept_aside() {
    let fresh = Block::fresh(Slot::A);
    type Write = fn(&EnvFiles);
    let writes: [Write; 2] =
        [|files| assert_eq!(files.save(&trial()).unwrap().backup, None), |files| files.repair(&trial()).unwrap()];
    for (name, damage, says) in IN_THE_WAY {
        for (copy, write) in
            [EnvCopy::Main, EnvCopy::Backup].into_iter().flat_map(|copy| writes.map(|write| (copy, write)))
        {
            let (dir, files) = two_copies(&fresh);
            let (path, aside) = (files.path(copy), dir.path().join(format!("{copy}.corrupt")));
            // The second time, something was kept aside before.
            for _ in 0..2 {
                damage(&path);
                let what = kind(&path);
                let loaded = files.load();
                assert_eq!(loaded.damage, [(copy, Fault::NoFile(says))], "{name}");
                assert!(loaded.block.is_some() && loaded.which != copy, "{name}: the other is good");
                write(&files);
                for copy in [EnvCopy::Main, EnvCopy::Backup] {
                    assert!(fs::read(files.path(copy)).unwrap() == trial().encode().unwrap(), "{name} {copy}");
                    assert_eq!(kind(&files.path(copy)), libc::S_IFREG, "{name} {copy}");
                }
                assert_eq!(kind(&aside), what, "{name}");
            }
        }
        // Neither is good: nothing is guessed, and nothing is touched, until a repair is asked for.
        let (dir, files) = two_copies(&fresh);
        for copy in [EnvCopy::Main, EnvCopy::Backup] {
            damage(&files.path(copy));
        }
        let names = names_in(dir.path());
        let e = files.save(&trial()).unwrap_err();
        assert!(e.exit_code() == 7 && e.to_string().contains(says), "{name}: {e}");
        assert_eq!(names_in(dir.path()), names, "{name}");
        files.repair(&trial()).unwrap();
        assert!(files.load().is_sound(), "{name}");
    }
}

fn fifo(path: &Path) {
    fs::remove_file(path).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[apply(test)]
fn load_takes_the_first_good_copy_and_names_each_fault() {
    let (_dir, files) = two_copies(&Block::fresh(Slot::A));
    let (main, backup) = (files.path(EnvCopy::Main), files.path(EnvCopy::Backup));
    // A save cut between the copies: main wins, and it is said.
    fs::write(&main, trial().encode().unwrap()).unwrap();
    let loaded = files.load();
    assert_eq!((loaded.block, loaded.copies_differ), (Some(trial()), true));
    assert_eq!(files.save(&trial()).unwrap().backup, None);
    assert!(!files.load().copies_differ);
    // Sound bytes, senseless value: GRUB takes the backup, so the agent does.
    fs::write(&main, padded(b"active_slot=C\nboot_success=1\nboot_counter=3\n")).unwrap();
    let loaded = files.load();
    assert_eq!((loaded.which, loaded.block), (EnvCopy::Backup, Some(trial())));
    assert!(matches!(loaded.damage.as_slice(), [(EnvCopy::Main, Fault::Senseless(_))]));
    fs::write(&main, padded(b"active_slot=A\nboot_success=1\n")).unwrap();
    assert_eq!(files.load().which, EnvCopy::Backup);
    // A hostile length costs neither memory nor time, and is told truly.
    let huge = fs::File::options().write(true).open(&main).unwrap();
    huge.set_len(1 << 40).unwrap();
    huge.write_at(b"\nfar=1\n", 5000).unwrap();
    fs::write(&backup, padded(b"active_slot=B\nactive_slot=A\nkeep=me\n")).unwrap();
    let loaded = files.load();
    assert_eq!(loaded.damage[0], (EnvCopy::Main, Fault::Damaged(Damage::WrongLength(1 << 40))));
    assert_eq!(loaded.damage[1], (EnvCopy::Backup, Fault::Damaged(Damage::Duplicate(b"active_slot".into()))));
    assert_eq!(loaded.block, None);
    let e = loaded.usable().unwrap_err();
    assert_eq!(e.kind(), Kind::Boot);
    assert!(e.to_string().contains("1099511627776 bytes") && e.to_string().contains("set twice"), "{e}");
    let mended = files.mended(Known { running: None, proven: Slot::B, on_trial: None, left: None }).unwrap();
    assert_eq!(mended.block.get("boot_success"), Some(b"1".as_slice()), "main, as far as it is readable");
    assert_eq!(mended.block.get("active_slot"), Some(b"A".as_slice()), "of one copy, not of each something");
    assert!(mended.block.get("far").is_none(), "read beyond the limit");
    // Nothing there at all.
    let nowhere = EnvFiles::new("/nonexistent").load();
    assert_eq!(nowhere.damage, [(EnvCopy::Main, Fault::Missing), (EnvCopy::Backup, Fault::Missing)]);
}

#[apply(test)]
fn what_grub_would_discard_is_not_written() {
    let (_dir, files) = two_copies(&Block::fresh(Slot::A));
    let mut senseless = trial();
    senseless.set("boot_counter", b"9").unwrap();
    let mut partial = trial();
    partial.remove("active_slot");
    for block in [senseless, partial, Block::default()] {
        assert_eq!(files.save(&block).unwrap_err().kind(), Kind::Boot);
        assert_eq!(files.repair(&block).unwrap_err().kind(), Kind::Boot);
    }
    assert_eq!(files.load().block, Some(Block::fresh(Slot::A)));
}

/// A real fault: something else keeps writing to the same file.
#[apply(test)]
fn reading_back_notices_bytes_that_are_not_what_was_written() {
    let (_dir, files) = two_copies(&Block::fresh(Slot::A));
    let stop = AtomicBool::new(false);
    let noticed = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(files.path(EnvCopy::Main)).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_at(b"X", 1000).unwrap();
            }
        });
        let start = Instant::now();
        let mut noticed = None;
        while noticed.is_none() && start.elapsed() < Duration::from_secs(20) {
            noticed = files.save(&trial()).err();
        }
        stop.store(true, Ordering::Relaxed);
        noticed
    });
    let e = noticed.expect("a scribbled block passed as proven").to_string();
    assert!(e.contains("read back") && e.contains("byte 1000 does not hold what was written"), "{e}");
}

/// The good copy is the last to be touched: with it out of reach, the bad one is already mended.
#[apply(test)]
fn a_bad_copy_is_mended_before_the_good_one_is_touched() {
    let fresh = Block::fresh(Slot::A);
    let (_dir, files) = two_copies(&fresh);
    let (main, backup) = (files.path(EnvCopy::Main), files.path(EnvCopy::Backup));
    let guard = Immutable::new(&main);
    fs::write(&backup, padded(b"active_slot=B\n")).unwrap();
    let e = files.save(&trial()).unwrap_err();
    assert!(e.to_string().starts_with(&format!("open for writing {}: ", main.display())), "{e}");
    assert_eq!(fs::read(&backup).unwrap(), fresh.encode().unwrap(), "mended with the state from before");
    assert_eq!(files.load().block, Some(fresh.clone()));

    fs::remove_file(&backup).unwrap();
    files.repair(&trial()).unwrap_err();
    assert_eq!(fs::read(&backup).unwrap(), trial().encode().unwrap());
    assert_eq!(files.load().block, Some(fresh), "main still wins: nothing happened");
    drop(guard);
}

#[apply(test)]
fn repair_mends_any_file_and_guesses_at_nothing_else() {
    let fresh = Block::fresh(Slot::A);
    for (main, backup) in
        [(None, None), (Some(0), Some(0)), (Some(9000), None), (Some(3), Some(1024)), (None, Some(1024))]
    {
        let dir = tempfile::tempdir().unwrap();
        let files = EnvFiles::new(dir.path());
        for (copy, size) in [(EnvCopy::Main, main), (EnvCopy::Backup, backup)] {
            if let Some(size) = size {
                // Sparse: GRUB would not save to it.
                fs::File::create(files.path(copy)).unwrap().set_len(size).unwrap();
            }
        }
        files.repair(&fresh).unwrap();
        for copy in [EnvCopy::Main, EnvCopy::Backup] {
            assert_eq!(fs::read(files.path(copy)).unwrap(), fresh.encode().unwrap(), "{main:?} {backup:?} {copy}");
            assert!(fs::metadata(files.path(copy)).unwrap().blocks() > 0);
        }
        assert_eq!(names_in(dir.path()), ["grubenv", "grubenv.bak"]);
    }
    // A bad main that cannot be mended leaves the good backup alone.
    let (dir, files) = two_copies(&fresh);
    fs::remove_file(files.path(EnvCopy::Main)).and_then(|()| fs::create_dir(files.path(EnvCopy::Main))).unwrap();
    let guard = Immutable::new(dir.path());
    let e = files.repair(&trial()).unwrap_err();
    assert!(e.kind() == Kind::Boot && e.to_string().starts_with("move aside "), "{e}");
    assert_eq!(files.load().block, Some(fresh));
    drop(guard);
}

/// Where this program, run as a child of the tests below under a tool, saves a trial; main() asks.
pub const CHILD: &str = "GRUBENV_DIR";

pub fn child_saves_a_trial(dir: &Path) {
    let files = EnvFiles::new(dir);
    match files.save(&trial()) {
        Ok(saved) => println!("\nanswer: saved, backup {:?}", saved.backup),
        Err(e) => println!("\nanswer: {e}"),
    }
}

fn child(tool: &[&str], dir: &Path) -> String {
    let out =
        Command::new(tool[0]).args(&tool[1..]).arg(std::env::current_exe().unwrap()).env(CHILD, dir).output().unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

/// A real torn write: the kernel takes the first sector and no more.
#[apply(test)]
fn a_torn_write_is_noticed_and_tears_no_boot_variable() {
    let mut old = Block::fresh(Slot::A);
    old.set("unknown", &[b'u'; 600]).unwrap();
    let (dir, files) = two_copies(&old);
    // Ignored, the signal becomes an error of the write; POSIX counts in units of 512 bytes.
    let said = child(&["sh", "-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""], dir.path());
    assert!(said.contains("512 of 1024 bytes were written"), "{said}");
    assert_eq!(fs::read(files.path(EnvCopy::Backup)).unwrap(), old.encode().unwrap(), "backup is kept");
    let loaded = files.load();
    assert_eq!(loaded.which, EnvCopy::Main, "{:?}", loaded.damage);
    assert_eq!(loaded.usable().unwrap().1.active_slot, Some(Slot::B), "sector 1 is new and whole");
}

/// The order that power cuts depend on, as the kernel sees it.
#[apply(test)]
fn each_copy_is_written_once_synced_and_read_back_past_the_cache() {
    need("strace");
    let (dir, files) = two_copies(&Block::fresh(Slot::A));
    let log = tempfile::NamedTempFile::new().unwrap();
    let said = child(&["strace", "-f", "-y", "-o", log.path().to_str().unwrap()], dir.path());
    require(!said.contains("Operation not permitted"), "leave to trace (strace)");
    assert!(said.contains("answer: saved, backup None"), "{said}");
    assert_eq!(files.load().block, Some(trial()));
    let prefix = format!("{}/", dir.path().display());
    let harmless = ["openat", "open", "statx", "fstat", "newfstatat", "read", "fcntl", "close"];
    let mut calls = Vec::new();
    for line in fs::read_to_string(log.path()).unwrap().lines().filter(|l| l.contains(&prefix)) {
        assert!(!line.contains("O_TRUNC") && !line.contains("O_CREAT"), "{line}");
        let call = line.split_whitespace().nth(1).unwrap().split('(').next().unwrap().to_string();
        if !harmless.contains(&call.as_str()) {
            let copy = if line.contains("grubenv.bak") { "backup" } else { "main" };
            let size = if line.contains(", 1024, 0)") { " 1024 at 0" } else { "" };
            calls.push(format!("{call} {copy}{size}"));
        }
    }
    let expected = ["main", "backup"].map(|copy| {
        [
            format!("pwrite64 {copy} 1024 at 0"),
            format!("fsync {copy}"),
            format!("fadvise64 {copy}"),
            format!("pread64 {copy} 1024 at 0"),
        ]
    });
    assert_eq!(calls, expected.concat());
}

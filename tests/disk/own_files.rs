//! Whatever lies in the place of a file of the agent: no run hangs, writes through it, or ends with 7 for ever.

use crate::support::disk::{A, B, need_disks};
use crate::support::machine::Machine;
use crate::support::release::{Release, sha256};
use crate::support::root::Run;
use crate::support::web::{Answer, Web};
use crate::support::{command, need_all, run, with_own_mounts};
use kubesolo_update::parts::ledger::store::Store;
use kubesolo_update::parts::os::sys;
use kubesolo_update::parts::slot::record::{DIGESTS, INITRAMFS, KERNEL, RECORD, VERSION};
use kubesolo_update::parts::slot::stage;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A run that takes longer hangs.
const HANGS_SECS: &str = "60";
const UPDATE: &str = "var/lib/kubesolo/update";
/// What a link leads to; written through, it would be something else.
const MINE: &str = "mine\n";

/// What may lie there: a name, and what a shell makes it with, given the path `$1` and a file of somebody else's `$2`.
/// A line more is a case more for each file.
const KINDS: [(&str, &str); 11] = [
    ("FIFO", "mkfifo \"$1\""),
    ("directory", "mkdir \"$1\""),
    ("full directory", "mkdir \"$1\"; echo x >\"$1/x\""),
    ("link", "ln -s \"$2\" \"$1\""),
    ("dangling link", "ln -s \"$2.none\" \"$1\""),
    ("link to itself", "ln -s \"$1\" \"$1\""),
    ("hard link", "ln \"$2\" \"$1\""),
    ("socket", "/usr/bin/python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' \"$1\""),
    ("device", "mknod \"$1\" c 1 5"),
    ("immutable file", "echo x >\"$1\"; chattr +i \"$1\""),
    ("file that only grows", "echo x >\"$1\"; chattr +a \"$1\""),
];

fn need_kinds() {
    need_disks();
    need_all(&["python3", "chattr", "unshare"]);
}

fn agent(machine: &Machine, args: &[&str]) -> Run {
    let mut timeout = command("timeout");
    timeout.arg(HANGS_SECS);
    machine.root.command_under(timeout, args).output().unwrap().into()
}

/// Makes something of a kind at a path, in place of what is there.
fn put(how: &str, path: &Path, somebody: &Path) {
    fs::write(somebody, MINE).unwrap();
    let script = format!("set -e; rm -rf \"$1\"; {how}");
    run(command("sh").args(["-c", &script, "sh"]).arg(path).arg(somebody));
}

/// Takes away whatever is there, flags and all.
fn clear(path: &Path) {
    let _ = Command::new("chattr").arg("-ia").arg(path).output().unwrap();
    run(command("rm").arg("-rf").arg(path));
}

#[apply(test)]
fn whatever_lies_in_the_place_of_what_is_remembered() {
    need_kinds();
    let machine = Machine::new();
    let servers = ["2.0.0", "2.0.1"].map(|version| Release::new(version).serve());
    let document = Release::new("3.0.0").latest_json();
    let remembered = Web::start(move |path| match path {
        "/latest.json" => Answer::ok(document.clone()).header("ETag", "\"one\""),
        _ => Answer::status(404),
    });
    let mut newest = servers.iter().map(|server| server.url("")).cycle();
    fs::create_dir_all(machine.root.path(UPDATE)).unwrap();
    let (dir, somebody) = (machine.root.path(UPDATE), machine.root.path("run/somebody"));
    // The last: from then on there is something to activate.
    let files =
        ["lock", "failed.json", "proven.json", "seen.json", "state.json.tmp", "state.json.corrupt", "state.json"];
    for (name, (kind, how)) in files.iter().flat_map(|name| KINDS.map(|kind| (*name, kind))) {
        let what = format!("{name}: {kind}");
        println!("{what}");
        put(how, &dir.join(name), &somebody);
        if name.ends_with(".corrupt") {
            fs::write(dir.join("state.json"), "{").unwrap();
        }
        agent(&machine, &["status", "--json"]).expect(0, &[]);
        if name == "seen.json" {
            let code = agent(&machine, &["check", "--server", &remembered.url("")]).code;
            assert!(code == 0 && fs::read_to_string(dir.join(name)).unwrap().contains("3.0.0"), "{what}");
        }
        let run = match name {
            "state.json" => agent(&machine, &["apply", "--server", &newest.next().unwrap()]).expect(0, &["is staged"]),
            // What changes something, and costs less.
            _ => agent(&machine, &["activate"]).expect(3, &["nothing is staged"]),
        };
        let said = run.stderr;
        let is_set_aside = ["state.json", "failed.json", "proven.json", "state.json.corrupt"].contains(&name);
        assert_eq!(said.contains("kept as"), is_set_aside, "{what}: {said}");
        assert_eq!(fs::read_to_string(&somebody).unwrap(), MINE, "{what}: it was written through");
        for file in ["lock", "failed.json", "proven.json", "seen.json", "state.json"].map(|name| dir.join(name)) {
            let is_file = fs::symlink_metadata(&file).map_or(true, |meta| meta.is_file());
            assert!(is_file, "{what}: {} is not a regular file", file.display());
        }
        let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(entries.filter(|name| name.contains(".tmp-")).count(), 0, "{what}: a temporary file was left");
        clear(&dir.join(name));
        clear(&dir.join(format!("{name}.corrupt")));
    }
    assert!(machine.disk.bytes(A) == machine.running);
}

/// What lies in the place of the directory itself makes way as well, and a person is told what that costs.
#[apply(test)]
fn whatever_lies_in_the_place_of_the_directory() {
    need_kinds();
    let machine = Machine::new();
    let server = Release::new("2.0.0").serve();
    let (dir, somebody) = (machine.root.path(UPDATE), machine.root.path("run/somebody"));
    let aside = dir.with_file_name("update.corrupt");
    let elsewhere = machine.root.path("run/elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    let linked = format!("ln -s '{}' \"$1\"", elsewhere.display());
    let kinds = KINDS.into_iter().chain([("link to a directory", linked.as_str())]);
    for (kind, how) in kinds {
        println!("{kind}");
        put(how, &dir, &somebody);
        // A directory is none that is in the way, and one that a person has put elsewhere is left there.
        let is_directory = dir.is_dir();
        agent(&machine, &["status", "--json"]).expect(0, &[]);
        agent(&machine, &["check", "--server", &server.url("")]).expect(0, &["an update is available"]);
        let named = machine.root.path("run/named.json");
        let beside = agent(&machine, &["apply", "--state", named.to_str().unwrap(), "--server", &server.url("")]);
        if !is_directory {
            // It may be a person's: that one moves it.
            assert!(beside.code == 7 && beside.stderr.contains("move that away"), "{kind}: {beside:?}");
            assert!(fs::symlink_metadata(&aside).is_err(), "{kind}");
        }
        let said = agent(&machine, &["apply", "--server", &server.url("")]).expect(0, &["2.0.0 is staged"]);
        assert_eq!(said.stderr.contains("update.corrupt, and what was remembered"), !is_directory, "{kind}: {said:?}");
        assert_eq!(fs::symlink_metadata(&aside).is_ok(), !is_directory, "{kind}");
        assert!(dir.join("state.json").is_file(), "{kind}");
        agent(&machine, &["apply", "--server", &server.url("")]).expect(3, &["is staged in slot B already"]);
        assert_eq!(fs::read_to_string(&somebody).unwrap(), MINE, "{kind}: it was written through");
        clear(&dir);
        clear(&aside);
        clear(&named);
    }
    assert!(elsewhere.join("state.json").is_file(), "it was not found where the link leads");
    // Of two runs at once, the second does not take the first one's directory for it.
    fs::write(&dir, "x").unwrap();
    let first = fs::File::open(dir.parent().unwrap()).unwrap();
    assert!(sys::try_lock(&first).unwrap());
    agent(&machine, &["apply", "--server", &server.url("")]).expect(8, &["another run holds it"]);
    assert!(dir.is_file() && fs::symlink_metadata(&aside).is_err(), "the second moved it");
}

/// What is mounted, and from where: a row more is a case more. `$1`: what lies there, `$2`: the name.
const MOUNTS: [(&str, &str, &str); 6] = [
    ("a volume of the same disk", "mkdir -p \"$2\"; mount --bind \"$1\" \"$2\"", "aside"),
    ("a volume of another disk", "mkdir -p \"$2\"; mount -t tmpfs none \"$2\"; cp -a \"$1\"/. \"$2\"", "aside"),
    ("a volume below it", "mkdir -p \"$2/pod/vol\"; mount --bind \"$1\" \"$2/pod/vol\"", "aside"),
    ("a file", ">\"$2\"; mount --bind \"$1/data\" \"$2\"", "aside"),
    ("a volume in its place", "mkdir -p \"$2\"; mount --bind \"$1\" \"$2\"", "place"),
    ("a file in its place", ">\"$2\"; mount --bind \"$1/data\" \"$2\"", "place"),
];

/// What is mounted in the place of a file is not the agent's: it is never emptied, and a person is told which mount it is.
#[apply(test)]
fn what_is_mounted_there_is_not_touched() {
    need_kinds();
    let machine = Machine::new();
    let server = Release::new("2.0.0").serve();
    let (dir, volume) = (machine.root.path(UPDATE), machine.root.path("run/volume"));
    fs::create_dir_all(&dir).unwrap();
    // In a mount namespace of its own: nothing is left mounted.
    let script = "mkdir -p \"$1/sub\"; echo mine >\"$1/data\"; echo mine >\"$1/sub/x\"; v=$1 p=$3; eval \"$4\"; shift 4
        set +e; timeout 60 \"$@\"; code=$?
        for file in $(find \"$p\" -name data -o -name x); do [ \"$(cat \"$file\")\" = mine ] || exit 101; done
        [ \"$(cat \"$v/data\" \"$v/sub/x\")\" = \"$(printf 'mine\\nmine')\" ] || exit 102
        [ -f \"$p\" ] || [ -n \"$(find \"$p\" -name x)\" ] || exit 103
        exit $code";
    let apply = |name: &str, how: &str| {
        let mut shell = with_own_mounts(script);
        shell.arg(&volume).arg(dir.join(name)).arg(dir.join(name)).arg(how.replace("$1", "$v").replace("$2", "$p"));
        Run::from(machine.root.command_under(shell, &["apply", "--server", &server.url("")]).output().unwrap())
    };
    for (what, how, place) in MOUNTS {
        for in_the_way in [false, true] {
            println!("{what}, a directory in the way: {in_the_way}");
            for name in ["state.json", "state.json.corrupt"] {
                clear(&dir.join(name));
            }
            let state = dir.join("state.json");
            let made = if in_the_way { fs::create_dir(state) } else { fs::write(state, "{") };
            made.unwrap();
            let name = if place == "aside" {
                "state.json.corrupt"
            } else {
                clear(&dir.join("state.json"));
                "state.json"
            };
            let said = apply(name, how);
            // What is broken is written over where it lies, a directory is not.
            let is_replaced = place == "aside" && !in_the_way;
            assert_eq!(said.code, if is_replaced { 0 } else { 7 }, "{what}: {said:?}");
            for words in ["something is mounted at", "unmount it: the file is the agent's own"] {
                assert!(said.stderr.contains(words), "{what}: {said:?}");
            }
            assert!(!said.stderr.contains("may be full"), "{what}: {said:?}");
        }
    }
    // With nothing mounted any more, all goes on.
    agent(&machine, &["apply", "--server", &server.url("")]).expect(0, &["staged"]);
    assert!(machine.disk.bytes(A) == machine.running);
}

/// What a person names is not moved out of the way.
#[apply(test)]
fn a_state_that_was_named_and_is_no_file_stays_what_it_is() {
    need_kinds();
    let machine = Machine::new();
    let server = Release::new("2.0.0").serve();
    let (path, somebody) = (machine.root.path("run/named"), machine.root.path("run/somebody"));
    let kind_of = || fs::symlink_metadata(&path).unwrap().mode() & libc::S_IFMT;
    for (kind, how) in KINDS.iter().filter(|(kind, _)| !kind.contains("file") && *kind != "hard link") {
        clear(&path);
        put(how, &path, &somebody);
        let before = kind_of();
        let args = ["apply", "--state", path.to_str().unwrap(), "--server", &server.url("")];
        agent(&machine, &args).expect(2, &["run/named", "--state takes a file"]);
        agent(&machine, &["status", "--state", path.to_str().unwrap()]).expect(0, &["run/named"]);
        assert_eq!(kind_of(), before, "{kind}");
        assert_eq!(fs::read_to_string(&somebody).unwrap(), MINE, "{kind}");
    }
    assert!(machine.disk.bytes(B) == machine.target);
}

#[apply(test)]
fn whatever_lies_in_the_place_of_a_slots_file() {
    need_kinds();
    let machine = Machine::new();
    let releases = ["2.0.0", "2.0.1"].map(Release::new);
    let servers = releases.each_ref().map(Release::serve);
    let parts = releases.each_ref().map(|release| format!("{KERNEL}.part-{}", &sha256(&release.ours().kernel)[..16]));
    let written = [KERNEL, INITRAMFS, VERSION, RECORD, DIGESTS];
    let temporary = ["slot.json.tmp", "slot.json.tmp-1-1", "version.corrupt", "vmlinuz.part", &parts[0], &parts[1]];
    let all = [&written[..], &temporary].concat();
    let alone = [KERNEL, RECORD, DIGESTS].map(|name| vec![name]);
    let sets: Vec<&[&str]> = std::iter::once(&all[..]).chain(alone.iter().map(|names| &names[..])).collect();
    let mut round = 0;
    for (names, (kind, how)) in sets.iter().flat_map(|names| KINDS.map(|kind| (*names, kind))) {
        // One kind of each sort will do for each file alone.
        if names.len() == 1 && !["FIFO", "full directory", "link"].contains(&kind) {
            continue;
        }
        let what = format!("{names:?}: {kind}");
        println!("{what}");
        let put: Vec<String> = names.iter().map(|name| format!("set -- {name} other; rm -rf \"$1\"; {how}")).collect();
        machine.in_slot(B, &format!("printf 'mine\\n' >other; {}", put.join("; ")));
        agent(&machine, &["status", "--json"]).expect(0, &[]);
        let verified = agent(&machine, &["verify", "--slot", "B"]);
        assert!([0, 7].contains(&verified.code), "{what}: {verified:?}");
        let release = &releases[round % 2];
        agent(&machine, &["apply", "--server", &servers[round % 2].url("")]).expect(0, &["is staged"]);
        round += 1;
        assert!(machine.disk.file(B, KERNEL).unwrap() == release.ours().kernel, "{what}");
        assert_eq!(machine.disk.text(B, "other").unwrap(), MINE, "{what}: it was written through");
        let left = ["kubesolo-os.gz", "other", "slot.crc32", "slot.json", "version", "vmlinuz"];
        assert_eq!(machine.disk.names(B), left, "{what}");
        agent(&machine, &["verify", "--slot", "B"]).expect(0, &["Slot B  2.0."]);
    }
    assert!(machine.disk.bytes(A) == machine.running);
}

/// A flag that keeps even root from changing a slot is nobody's wish there. A row more is a case more: run in slot B; `$part` is
/// a download that an earlier run has left.
const FLAGS: [(&str, &str); 9] = [
    ("the root directory may not be changed", "chattr +i ."),
    ("the root directory only grows", "chattr +a ."),
    ("both, and it is empty", "rm -rf ./*; chattr +ia ."),
    ("and its record as well", "chattr +i slot.json .; chattr +a vmlinuz"),
    ("a directory with a file in it", "rm slot.json; mkdir slot.json; >slot.json/x; chattr +i slot.json/x"),
    ("a directory itself", "rm slot.json; mkdir slot.json; >slot.json/x; chattr +i slot.json"),
    ("directories in one another", "rm version; mkdir -p version/a/b; >version/a/b/x; chattr -R +a version"),
    ("what was downloaded", "head -c 100000 /dev/zero >$part; chattr +i $part"),
    ("what was downloaded only grows", "head -c 100000 /dev/zero >$part; chattr +a $part ."),
];

#[apply(test)]
fn no_flag_keeps_a_slot_from_being_written_over() {
    need_kinds();
    let machine = Machine::new();
    let releases = ["2.0.0", "2.0.1"].map(Release::new);
    let servers = releases.each_ref().map(Release::serve);
    for (round, (what, how)) in FLAGS.iter().enumerate() {
        println!("{what}");
        let release = &releases[round % 2];
        assert!(release.ours().kernel.len() > 100_000);
        let part = format!("{KERNEL}.part-{}", &sha256(&release.ours().kernel)[..16]);
        machine.in_slot(B, &format!("part={part}; {how}"));
        let said = agent(&machine, &["apply", "--server", &servers[round % 2].url("")]).expect(0, &["is staged"]);
        assert!(!said.stderr.contains("made anew"), "{what}: {said:?}");
        assert!(machine.disk.file(B, KERNEL).unwrap() == release.ours().kernel, "{what}");
        assert_eq!(
            machine.disk.names(B),
            ["kubesolo-os.gz", "slot.crc32", "slot.json", "version", "vmlinuz"],
            "{what}"
        );
        agent(&machine, &["verify", "--slot", "B"]).expect(0, &["Slot B  2.0."]);
    }
    // The list that GRUB goes by is written anew where only that is gone.
    machine.in_slot(B, "echo x >slot.crc32; chattr +i .");
    agent(&machine, &["activate"]).expect(0, &["slot B is active"]);
    assert!(machine.disk.bytes(A) == machine.running);
}

/// Nor does one of the directory keep the state from it; nothing is left beside it.
#[apply(test)]
fn no_flag_keeps_what_is_remembered_from_being_written() {
    need_kinds();
    let machine = Machine::new();
    let (release, dir) = (Release::new("2.0.0"), machine.root.path(UPDATE));
    let server = release.serve();
    agent(&machine, &["apply", "--server", &server.url("")]).expect(0, &["is staged"]);
    for flag in ["i", "a"] {
        run(command("chattr").arg(format!("+{flag}")).arg(&dir));
        let said = agent(&machine, &["apply", "--server", &server.url("")]).expect(3, &["staged in slot B already"]);
        assert!(!said.stderr.contains("could not"), "{said:?}");
        agent(&machine, &["rollback"]).expect(0, &[]);
        assert_eq!(machine.root.state_field("phase"), "idle", "{flag}");
        let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains("tmp")), "{flag}: {names:?}");
        run(command("chattr").arg("-ia").arg(&dir));
        agent(&machine, &["apply", "--retry-failed", "--server", &server.url("")]).expect(0, &["is staged"]);
    }
}

/// A file that is mounted over: root itself cannot remove that name.
struct Covered(PathBuf);

impl Covered {
    fn new(path: &Path) -> Covered {
        run(command("mount").arg("--bind").args([path, path]));
        Covered(path.to_owned())
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[apply(test)]
fn a_record_that_can_not_go_stops_everything() {
    need_kinds();
    let dir = tempfile::tempdir().unwrap();
    for name in [KERNEL, DIGESTS, RECORD] {
        fs::write(dir.path().join(name), b"old").unwrap();
    }
    let guard = Covered::new(&dir.path().join(RECORD));
    assert_eq!(stage::invalidate(dir.path(), &[], &[]).unwrap_err().exit_code(), 7);
    drop(guard);
    assert!(dir.path().join(RECORD).exists());
    for name in [KERNEL, DIGESTS] {
        assert!(dir.path().join(name).exists(), "{name} may not go before the record is gone");
    }
}

/// Two runs that find something in the place of the lock: the second must not take the first one's file for it. The first is
/// at it as long as it holds the directory.
#[apply(test)]
fn a_lock_that_another_run_makes_anew_is_left_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let update = dir.path().join("update");
    fs::create_dir_all(update.join("lock")).unwrap();
    let first = fs::File::open(&update).unwrap();
    assert!(sys::try_lock(&first).unwrap());
    let e = Store::new(dir.path(), None).lock().err().expect("it is taken from the first");
    assert_eq!(e.exit_code(), 8, "{e}");
    assert!(update.join("lock").is_dir() && !update.join("lock.corrupt").exists(), "the second moved it");
    drop(first);
    let held = Store::new(dir.path(), None).lock().unwrap();
    assert!(update.join("lock").is_file() && update.join("lock.corrupt").is_dir());
    assert_eq!(Store::new(dir.path(), None).lock().err().map(|e| e.exit_code()), Some(8));
    drop(held);
}

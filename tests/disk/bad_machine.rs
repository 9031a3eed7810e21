//! Machines that are not what they should be: slots, boot variables, state, lock, configuration, command line.

use crate::support::disk::{A, B, DATA, Disk, need_disks, noise};
use crate::support::immutable::ReadOnly;
use crate::support::machine::{Left, Machine};
use crate::support::release::{Medium, Release};
use crate::support::root::{Root, Run, jq};
use crate::support::trial::Trial;
use crate::support::{command, need};
use kubesolo_update::parts::os::sys;
use std::fs::{self, OpenOptions};

#[apply(test)]
fn a_slot_that_is_too_small() {
    need_disks();
    let machine = Machine::new();
    let status = machine.root.agent(&["status", "--json"]).expect(0, &[]);
    let room: usize = status.jq(".slots[1].room_bytes").parse().unwrap();
    assert!(room > 10 << 20 && room < 24 << 20, "{room}");
    let sized = |total: usize| {
        let mut release = Release::new("2.0.0");
        let pair = release.ours_mut();
        pair.kernel = noise(9, total - pair.initramfs.len());
        release
    };
    for more in [1, 4 << 20] {
        let server = sized(room + more).serve();
        machine.apply(&["--server", &server.url("")]).expect(4, &["it needs", "the target slot has room for"]);
        assert_eq!(server.seen(), ["GET /latest.json"], "something was downloaded");
        machine.assert_unharmed("too large", "failed", "gate", Left::Untouched);
    }
    // What is promised to fit does fit, to the byte, also where the slot was filled before.
    for _ in 0..2 {
        let release = sized(room);
        let server = release.serve();
        machine.apply(&["--server", &server.url(""), "--allow-downgrade"]).expect(0, &["staged"]);
        assert!(machine.disk.file(B, "vmlinuz").unwrap() == release.ours().kernel);
        fs::remove_file(machine.root.path("var/lib/kubesolo/update/state.json")).unwrap();
    }
    assert!(machine.disk.bytes(A) == machine.running);
}

#[apply(test)]
fn a_slot_without_a_file_system_that_can_be_mounted() {
    need_disks();
    let release = Release::new("2.0.0");
    let server = release.serve();
    // Offset and bytes; the label stands where it can, so that it is the mounting that fails.
    let faults: [(&str, u64, Vec<u8>, &str); 4] = [
        ("zeros", 0, vec![0; 8192], "KSOLOB"),
        ("noise", 0, noise(4, 8192), "KSOLOB"),
        ("a superblock whose checksum is wrong", 1024 + 0x4c, vec![0xff; 4], "mount KSOLOB"),
        ("another file system", 1024, noise(4, 1024), "KSOLOB"),
    ];
    for (what, offset, bytes, word) in faults {
        let mut machine = Machine::new();
        machine.disk.detach();
        machine.disk.overwrite(B, offset, &bytes);
        machine.target = machine.disk.bytes(B);
        machine.disk.attach();
        let status = machine.root.agent(&["status", "--json"]).expect(0, &[]);
        assert_eq!(status.jq(".slots | map(.valid)"), "[true,false]", "{what}");
        assert!(status.jq(".slots[1].error").contains("KSOLOB"), "{what}: {}", status.stdout);
        machine.root.agent(&["activate"]).expect(3, &[]);
        machine
            .root
            .agent(&["rollback"])
            .expect(7, &["(`apply` of another release than the one that runs makes its file system anew)"]);
        machine
            .root
            .agent(&["verify", "--slot", "B"])
            .expect(7, &["(`apply` of another release than the one that runs makes its file system anew)"]);
        assert!(machine.root.blocks() == machine.blocks, "{what}");
        // Nothing but an update makes the file system anew.
        assert!(machine.disk.bytes(B) == machine.target, "{what}: slot B was written");
        machine.apply(&["--server", &server.url("")]).expect(0, &[word, "is made anew", "is staged in slot B"]);
        assert!(machine.disk.bytes(A) == machine.running, "{what}: the running slot was written");
        assert_eq!(machine.root.state_field("phase"), "staged", "{what}");
        machine.assert_recovers(what);
    }
}

#[apply(test)]
fn another_run_holds_the_lock() {
    need_disks();
    let machine = Machine::new();
    let server = Release::new("2.0.0").serve();
    let source = ["--server", &server.url("")];
    machine.root.agent(&["activate"]).expect(3, &[]); // makes the directory
    let held = OpenOptions::new().write(true).open(machine.root.path("var/lib/kubesolo/update/lock")).unwrap();
    assert!(sys::try_lock(&held).unwrap(), "a run that ended still holds the lock");
    for words in [&[&["apply"], &source[..]].concat()[..], &["activate"], &["rollback"]] {
        machine.root.agent(words).expect(8, &["another run holds it"]);
    }
    assert!(server.seen().is_empty(), "a run without the lock asked the source");
    // Looking needs no lock.
    machine.root.agent(&["status"]).expect(0, &["idle"]);
    machine.root.agent(&[&["check"], &source[..]].concat()).expect(0, &["an update is available"]);
    assert!(machine.disk.bytes(B) == machine.target && machine.root.state().is_none());
    drop(held);
    machine.assert_recovers("lock");
}

#[apply(test)]
fn broken_state_files_are_kept_aside_and_stop_nothing() {
    need_disks();
    let server = Release::new("2.0.0").serve();
    let nested = format!("{{\"phase\":{}", "[".repeat(50_000));
    for (what, state) in [
        ("empty", &b""[..]),
        ("cut", b"{\"phase\":\"stag"),
        ("a phase that does not exist", b"{\"phase\":\"flying\"}"),
        ("no text", b"\xff\xfe\x00"),
        ("deep", nested.as_bytes()),
        ("large", &[b' '; 100_000]),
    ] {
        let machine = Machine::new();
        let dir = machine.root.path("var/lib/kubesolo/update");
        fs::create_dir(&dir).unwrap();
        for name in ["state.json", "failed.json"] {
            fs::write(dir.join(name), state).unwrap();
        }
        let status = machine.root.agent(&["status", "--json"]).expect(0, &[]);
        assert_eq!(status.jq(".update.phase"), "idle");
        assert!(status.jq(".remarks | map(select(contains(\"state.json\"))) | length") == "1", "{}", status.stdout);
        assert!(fs::read(dir.join("state.json")).unwrap() == state, "{what}: looking moved it");
        let run = machine.apply(&["--server", &server.url("")]).expect(0, &["staged"]);
        for name in ["state.json", "failed.json"] {
            assert!(run.stderr.contains(&format!("{name}.corrupt")), "{what}: {}", run.stderr);
            assert!(fs::read(dir.join(format!("{name}.corrupt"))).unwrap() == state, "{what}");
        }
        assert_eq!(machine.root.state_field("phase"), "staged", "{what}");
    }
}

#[apply(test)]
fn damaged_boot_variables() {
    need_disks();
    let server = Release::new("2.0.0").serve();
    let good = Machine::new().blocks[0].clone();
    let text = |from: &str, to: &str| String::from_utf8(good.clone()).unwrap().replacen(from, to, 1).into_bytes();
    let mut same_length = text("active_slot=A\n", "active_slot=A\nactive_slot=B\n");
    same_length.truncate(1024);
    for (what, damaged) in [
        ("empty", Vec::new()),
        ("zeros", vec![0; 1024]),
        ("cut", good[..1023].to_vec()),
        ("signature", text("# GRUB", "# grub")),
        ("line ends", text("\n", "\r\n")),
        ("twice", same_length),
        ("senseless", text("boot_counter=3", "boot_counter=9")),
        ("not set", text("boot_success=1", "boot_succesz=1")),
    ] {
        assert!(damaged != good, "{what}: nothing was changed");
        let machine = Machine::new();
        // One of the two: said, and worked around.
        fs::write(machine.root.block("grubenv"), &damaged).unwrap();
        machine.root.agent(&["status"]).expect(0, &["boot variables: grubenv "]);
        machine.root.agent(&["check", "--server", &server.url("")]).expect(0, &[]);
        // Both: nothing is changed any more.
        fs::write(machine.root.block("grubenv.bak"), &damaged).unwrap();
        for command in ["apply", "activate", "rollback"] {
            let url = server.url("");
            let source = if command == "apply" { &["--server", url.as_str()][..] } else { &[] };
            machine.root.agent(&[&[command], source].concat()).expect(7, &["grubenv ", "grubenv.bak ", "repair"]);
        }
        let status = machine.root.agent(&["status", "--json"]).expect(0, &[]);
        assert_eq!(status.jq("[.boot.readable, .boot.active_slot]"), "[false,null]", "{what}");
        assert!(machine.root.blocks() == [damaged.clone(), damaged], "{what}: the damage was changed");
        assert!(machine.disk.bytes(A) == machine.running && machine.disk.bytes(B) == machine.target, "{what}");
        for (name, bytes) in [("grubenv", &machine.blocks[0]), ("grubenv.bak", &machine.blocks[1])] {
            fs::write(machine.root.block(name), bytes).unwrap();
        }
        machine.assert_recovers(what);
    }
}

/// Both copies, made of a good one; what `verify` says of them; whether the next `activate` needs a repair first; and what
/// the repair says that it left out. A line more is a case more.
#[apply(test)]
fn a_block_that_something_edited_is_repaired_and_takes_an_update() {
    need_disks();
    let machine = Machine::new();
    let server = Release::new("2.0.0").serve();
    machine.apply(&["--server", &server.url("")]).expect(0, &["staged"]);
    let (staged, good) = (machine.root.state().unwrap(), machine.blocks[0].clone());
    type Edit = fn(&[u8]) -> Vec<u8>;
    let same: Edit = <[u8]>::to_vec;
    let appended: Edit = |good| [good, b"\n"].concat();
    let cut: Edit = |good| [&good[..1023], b"\n"].concat();
    let word: Edit = |good| [&good[..25], b"garbage\n", &good[25..1016]].concat();
    let empty_line: Edit = |good| [&good[..25], b"\n", &good[25..1023]].concat();
    let crlf: Edit = |good| String::from_utf8_lossy(good).replace('\n', "\r\n").into_bytes();
    let full: Edit = |good| {
        let used = good.iter().rposition(|b| *b == b'\n').unwrap() + 1;
        [&good[..used], format!("mine={}\n", "x".repeat(1024 - used - 6)).as_bytes()].concat()
    };
    for (what, main, backup, says, stops, left_out) in [
        ("a line feed behind it", appended, appended, "1025 bytes long", true, ""),
        ("a line feed in place of its end", cut, cut, "no room", false, ""),
        ("the same, a good backup", cut, same, "no room", false, ""),
        ("a good main copy, the same in the backup", same, cut, "no room", false, ""),
        ("a word", word, word, "line 2 has no `=`", true, "line 2 (`garbage`)"),
        ("an empty line", empty_line, empty_line, "line 2 has no `=`", true, ""),
        ("line ends of another system", crlf, crlf, "CR LF", true, ""),
        ("full of something else", full, full, "no room", true, "`mine`"),
        ("full of something else, a good backup", full, same, "no room", true, "`mine`"),
    ] {
        for repaired in [false, true] {
            fs::write(machine.root.path("var/lib/kubesolo/update/state.json"), &staged).unwrap();
            fs::write(machine.root.block("grubenv"), main(&good)).unwrap();
            fs::write(machine.root.block("grubenv.bak"), backup(&good)).unwrap();
            println!("{what}");
            machine.root.agent(&["verify", "--slot", "B"]).expect(7, &[says, "--repair-boot-variables"]);
            if repaired {
                let run = machine
                    .root
                    .agent(&["verify", "--repair-boot-variables"])
                    .expect(0, &["written anew", "are sound"]);
                assert_eq!(run.stderr.contains("left out"), !left_out.is_empty(), "{what}: {}", run.stderr);
                assert!(run.stderr.contains(left_out), "{what}: {}", run.stderr);
                assert!(machine.root.blocks().iter().all(|bytes| bytes == &good), "{what}: more than the damage went");
            }
            let run = machine.root.agent(&["activate"]);
            if !repaired && stops {
                run.expect(7, &["grubenv"]);
                continue;
            }
            run.expect(0, &["slot B is active"]);
            machine.root.agent(&["verify", "--slot", "B"]).expect(0, &["are sound"]);
            // The trial fails, by GRUB's own code.
            machine.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
        }
    }
    // What of others is in it afterwards is told as well.
    let used = good.iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for name in ["grubenv", "grubenv.bak"] {
        fs::write(machine.root.block(name), [&good[..used], b"mine=1\nx=\x1b\nbad\n"].concat()).unwrap();
    }
    let run = machine.root.agent(&["verify", "--repair-boot-variables"]).expect(0, &["kept of other lines: `mine`"]);
    assert!(!run.stderr.contains('\x1b') && !machine.root.blocks()[0].contains(&0x1b), "{}", run.stderr);
}

#[apply(test)]
fn unsigned_updates_are_chosen_never_defaulted_to() {
    need_disks();
    let machine = Machine::new();
    let server = Release::new("2.0.0").serve();
    let source = ["--server", &server.url("")];
    let keys = machine.root.path("etc/kubesolo/update-keys.d");
    for (what, config, with_key) in [
        ("no file", None, false),
        ("nothing said", Some("channel = stable\n"), false),
        ("required", Some("signature = required\n"), false),
        ("off, but a key is installed, which is no good", Some("signature = off\n"), true),
    ] {
        let path = machine.root.path("etc/kubesolo/update.conf");
        config.map_or_else(|| fs::remove_file(&path).unwrap(), |text| fs::write(&path, text).unwrap());
        if with_key {
            fs::create_dir(&keys).unwrap();
            fs::write(keys.join("release.pub"), "-----BEGIN PUBLIC KEY-----\n").unwrap();
        }
        let (code, words) = if with_key { (2, "release.pub") } else { (5, "signatures are required") };
        machine.apply(&source).expect(code, &[words]);
        assert!(server.seen().is_empty(), "{what}: the source was asked");
        assert!(machine.disk.bytes(B) == machine.target, "{what}");
        // Whoever watches the fleet sees it.
        let state = ["phase", "last_error_kind"].map(|field| machine.root.state_field(field));
        assert_eq!(state, ["failed", "config"], "{what}");
    }
    fs::remove_dir_all(&keys).unwrap();
    machine.root.configure("signature = off\n");
    machine.assert_recovers("signature");
}

#[apply(test)]
fn configuration_and_usage_errors() {
    need_disks();
    let machine = Machine::new();
    for (config, words) in [
        ("signature = off\nsever = x\n", vec!["line 2", "unknown key `sever`", "known keys"]),
        ("signature = maybe\n", vec!["line 1", "`signature = maybe`", "required, off"]),
        ("signature\n", vec!["line 1", "key = value"]),
        ("server = http://127.0.0.1/\nlayout = /x\n", vec!["cannot be used together"]),
        ("server = http://127.0.0.1/\nserver = http://127.0.0.2/\n", vec!["line 2", "line 1 already"]),
        ("maintenance_window = at night\n", vec!["line 1", "at night"]),
        ("registry = Not A Reference\n", vec!["line 1"]),
    ] {
        machine.root.configure(config);
        machine.apply(&[]).expect(2, &words).expect(2, &["update.conf"]);
    }
    let conf = machine.root.path("etc/kubesolo/update.conf");
    for is_little in [true, false] {
        let unit = |c: u16| if is_little { c.to_le_bytes() } else { c.to_be_bytes() };
        let units = "\u{feff}signature = off\n".encode_utf16().flat_map(unit);
        fs::write(&conf, units.collect::<Vec<u8>>()).unwrap();
        machine.apply(&[]).expect(2, &["update.conf", "it is UTF-16: save it as UTF-8"]);
    }
    machine.root.configure("layout = https://user:SECRET@up.example/x\n");
    for command in ["check", "apply", "status", "verify"] {
        let run = machine.root.agent(&[command, "--json"]);
        assert!(
            run.stderr.contains("line 1: `layout` takes no URL") || run.stdout.contains("`layout` takes no URL"),
            "{run:?}"
        );
        assert!(!format!("{}{}", run.stdout, run.stderr).contains("SECRET"), "{run:?}");
    }
    machine.root.configure("\u{feff}signature = off\n");
    for (args, words) in [
        (vec!["apply"], vec!["no source of updates", "--server"]),
        (vec!["apply", "--server", "http://127.0.0.1/", "--layout", "/x"], vec!["cannot be used together"]),
        (vec!["apply", "--sever", "x"], vec!["--sever"]),
        (vec!["apply", "--layout"], vec!["--layout"]),
        (vec!["aply"], vec!["aply"]),
        (vec!["apply", "extra"], vec!["extra"]),
        (vec!["apply", "--reboot", "--layout", "/x"], vec!["--reboot and --root"]),
        (vec!["activate", "--reboot"], vec!["--reboot and --root"]),
        // The file has no part in what was typed.
        (vec!["check", "--retries", "101"], vec!["kubesolo-update: `--retries 101` is not between 0 and 100"]),
        (vec!["rollback", "--reboot"], vec!["--reboot and --root"]),
        (vec!["check", "--config", "/nonexistent/conf", "--layout", "/x"], vec!["/nonexistent/conf"]),
        (vec!["check", "--registry", "UPPER/case:tag:tag"], vec!["kubesolo-update: use --registry: ", "UPPER"]),
        (vec!["status", "--server", "http://127.0.0.1/"], vec!["`status` has no option `--server`"]),
        (
            vec!["check", "--layout", "https://user:SECRET@up.example/x"],
            vec!["`--layout` takes no URL", "***@up.example"],
        ),
        (
            vec!["check", "--config", "https://user:SECRET@up.example/x"],
            vec!["`--config` takes no URL", "***@up.example"],
        ),
        (vec!["status", "--state", "user:SECRET@up.example/x"], vec!["`--state` takes no URL", "***@up.example"]),
        (vec!["check", "--server", "http://example.invalid/"], vec!["plain"]),
    ] {
        let run = machine.root.agent(&args).expect(2, &words);
        assert!(!run.stderr.contains("SECRET"), "{args:?}: {}", run.stderr);
        assert!(run.stdout.is_empty(), "{args:?}: {}", run.stdout);
    }
    let mut bare = machine.root.command(&["--version"]);
    let out = bare.output().unwrap();
    assert_eq!(out.status.code(), Some(2), "--version takes no --root: {out:?}");
    assert!(machine.root.state().is_none(), "a usage error changed the state");
    assert!(machine.disk.bytes(A) == machine.running && machine.disk.bytes(B) == machine.target);
    machine.assert_recovers("configuration");
}

#[apply(test)]
fn a_machine_that_no_slot_booted() {
    need_disks();
    let machine = Machine::new();
    let server = Release::new("2.0.0").serve();
    for cmdline in ["", "quiet", "kubesolo.slot=C", "kubesolo.slot="] {
        fs::write(machine.root.path("proc/cmdline"), cmdline).unwrap();
        for command in ["check", "apply"] {
            machine.root.agent(&[command, "--server", &server.url("")]).expect(7, &["kubesolo.slot="]);
        }
        for command in ["activate", "rollback"] {
            machine.root.agent(&[command]).expect(7, &["kubesolo.slot="]);
        }
        machine.root.agent(&["status"]).expect(0, &["not booted from a slot"]);
    }
    assert!(server.seen().is_empty() && machine.root.state().is_none());
    assert!(machine.disk.bytes(A) == machine.running && machine.disk.bytes(B) == machine.target);
}

#[apply(test)]
fn the_data_partition_is_mounted_where_it_is_not() {
    need_disks();
    // A rescue console: nothing is mounted, so the agent mounts the data partition for itself.
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    fs::remove_dir(root.path("var/lib/kubesolo")).unwrap();
    let server = Release::new("2.0.0").serve();
    root.agent(&["status"]).expect(0, &["idle"]);
    root.agent(&["apply", "--server", &server.url("")]).expect(0, &["staged"]);
    disk.wait_unmounted(DATA);
    let state = disk.debugfs(DATA, "cat /update/state.json");
    assert_eq!(jq(&state, "[.phase, .to_version]"), r#"["staged","2.0.0"]"#);
    assert!(!disk.needs_recovery(DATA));
    let status = root.agent(&["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq(".update.phase"), "staged");
    // What is in the way makes way; where it cannot be written, that is the error, before anything else happens.
    fs::create_dir_all(root.path("var/lib/kubesolo")).unwrap();
    let update = root.path("var/lib/kubesolo/update");
    fs::write(&update, "in the way").unwrap();
    root.agent(&["apply", "--server", &server.url("")]).expect(0, &["kept as", "update.corrupt"]);
    assert_eq!(fs::read_to_string(root.path("var/lib/kubesolo/update.corrupt")).unwrap(), "in the way");
    let read_only = ReadOnly::new(&update);
    let before = disk.bytes(B);
    root.agent(&["apply", "--server", &server.url("")]).expect(7, &["var/lib/kubesolo/update"]);
    assert!(disk.bytes(B) == before);
    drop(read_only);
    // --state moves the state alone: the lock stays where every other run looks for it.
    fs::remove_dir_all(&update).unwrap();
    let state = root.path("elsewhere/state.json");
    fs::create_dir(state.parent().unwrap()).unwrap();
    root.agent(&["apply", "--state", state.to_str().unwrap(), "--server", &server.url("")]).expect(0, &["staged"]);
    assert_eq!(jq(&fs::read_to_string(&state).unwrap(), ".phase"), "staged");
    assert!(root.path("var/lib/kubesolo/update/lock").exists());
    assert!(!root.path("var/lib/kubesolo/update/state.json").exists());
}

/// Runs the agent while a system call about one file fails.
fn injected(trial: &Trial, path: &std::path::Path, fault: &str, args: &[&str]) -> Run {
    injected_in(trial, &[path], fault, args)
}

fn injected_in(trial: &Trial, paths: &[&std::path::Path], fault: &str, args: &[&str]) -> Run {
    let trace = trial.disk.dir().join("trace");
    let mut strace = command("strace");
    strace.args(["-f", "-o"]).arg(&trace).args(["-e", &format!("inject={fault}")]);
    for path in paths {
        strace.arg("-P").arg(path);
    }
    let run = Run::from(trial.root.command_under(strace, args).output().unwrap());
    let happened = fs::read_to_string(&trace).unwrap().contains("(INJECTED)");
    // A file that is read once is not there to fail the third time.
    assert!(happened || fault.ends_with(LATER), "nothing failed: {fault} {args:?}: {run:?}");
    run
}

const LATER: &str = "..99";

/// A read that fails once is repeated; one that always fails decides and changes nothing: the file may be whole.
#[apply(test)]
fn a_file_that_can_not_be_read_is_not_a_broken_one() {
    Trial::ready();
    need("strace");
    // What fails, from which time on; what is said, and what can be done about it. A line more is a case more.
    let faults = [
        ("read:error=EIO:when=1+", "os error 5", "fsck"),
        ("read:error=EIO:when=2+", "", ""),
        ("read:error=ESTALE:when=1+", "os error 116", "fsck"),
        ("read:error=ENOMEM:when=1+", "os error 12", "short of memory"),
        ("open,openat:error=EMFILE:when=1+", "os error 24", "open files"),
        ("open,openat:error=ENFILE:when=1+", "os error 23", "open files"),
        ("open,openat:error=ENOMEM:when=1+", "os error 12", "short of memory"),
        ("open,openat:error=EACCES:when=1+", "os error 13", "permissions"),
        ("open,openat:error=ELOOP:when=1+", "os error 40", "`apply` moves that aside"),
        ("statx,lstat,newfstatat,fstat:error=EIO:when=1+", "os error 5", "fsck"),
        ("statx,lstat,newfstatat,fstat:error=EUCLEAN:when=1+", "os error 117", "fsck"),
    ];
    // Whoever only looks, and knows nothing of what failed, sees the release that runs.
    for (name, checked) in [("state.json", 3), ("failed.json", 3), ("proven.json", 3)] {
        let trial = Trial::booted();
        trial.root.agent(&["rollback"]).expect(0, &[]);
        let path = trial.root.path(&format!("var/lib/kubesolo/update/{name}"));
        if !path.exists() {
            fs::write(&path, r#"{"artifacts":[]}"#).unwrap();
        }
        let content = fs::read(&path).unwrap();
        let apply = ["apply", "--layout", trial.medium.path()];
        let untouched = |run: &Run, what: &str| {
            assert!(fs::read(&path).unwrap() == content, "{what}: {run:?}");
            assert!(!path.with_file_name(format!("{name}.corrupt")).exists(), "{what}: {run:?}");
        };
        let run = injected(&trial, &path, "read:error=EIO:when=1", &apply);
        untouched(&run, "once");
        run.expect(4, &["slot A is active again"]);
        for (fault, says, hint) in faults {
            let run = injected(&trial, &path, fault, &apply);
            untouched(&run, fault);
            match says {
                // Read by then, or not: what failed here is not tried, and nothing is guessed.
                "" => assert!([4, 7].contains(&run.code), "{name} {fault}: {run:?}"),
                _ => drop(run.expect(7, &[name, says, hint])),
            }
        }
        // Who only looks says it, and goes on; who must not fail goes on without a memory.
        let fault = "read:error=EIO:when=1+";
        for (args, code, words) in [
            (vec!["status"], 0, [name, "os error 5"]),
            (vec!["check", "--layout", trial.medium.path()], checked, [name, "os error 5"]),
            (vec!["metrics", "--once"], 0, ["kubesolo_update_phase", "kubesolo_boot_success"]),
            (vec!["rollback"], 3, ["nothing of this run will be remembered", "os error 5"]),
        ] {
            let mut run = injected(&trial, &path, fault, &args);
            untouched(&run, &format!("{args:?}"));
            // The screen's lines end somewhere.
            run.stdout = run.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
            run.expect(code, &words);
        }
        if name == "proven.json" {
            // By when certificates and releases end is judged with it.
            trial.root.configure(&format!("signature = off\nlayout = {}\n", trial.medium.path()));
            let run = injected(&trial, &path, fault, &["verify", "--source"]);
            untouched(&run, "verify");
            run.expect(7, &[name, "os error 5"]);
        }
    }
}

/// At whichever read it fails: what is used is what was judged, and a release that failed here is not taken by itself.
#[apply(test)]
fn what_failed_here_is_not_forgotten_for_a_read_that_fails() {
    Trial::ready();
    need("strace");
    let mut trial = Trial::booted();
    trial.root.agent(&["rollback"]).expect(0, &[]);
    trial.boot(A);
    let apply = ["apply", "--layout", trial.medium.path()];
    trial.root.agent(&apply).expect(4, &["failed here before"]);
    let path = trial.root.path("var/lib/kubesolo/update/failed.json");
    let content = fs::read(&path).unwrap();
    for first in 1..12 {
        let fault = format!("read:error=EIO:when={first}{LATER}");
        let run = injected(&trial, &path, &fault, &apply);
        assert!([4, 7].contains(&run.code) && fs::read(&path).unwrap() == content, "{fault}: {run:?}");
    }
}

/// Boot variables that cannot be read may be sound: whoever is to change something stops, and nothing is written over them.
#[apply(test)]
fn boot_variables_that_can_not_be_read_are_not_written_over() {
    Trial::ready();
    need("strace");
    let trial = Trial::booted();
    let [main, backup] = ["grubenv", "grubenv.bak"].map(|name| trial.root.block(name));
    let (paths, blocks) = ([main.as_path(), backup.as_path()], trial.root.blocks());
    let next = Medium::new(trial.disk.dir(), &Release::new("2.0.1"));
    let repair = ["verify", "--repair-boot-variables"];
    // What fails, and what can be done about it. A line more is a case more.
    let faults = [
        ("open,openat:error=EMFILE:when=1..4", "os error 24", "open files"),
        ("open,openat:error=EMFILE:when=1+", "os error 24", "open files"),
        ("open,openat:error=ENOMEM:when=1+", "os error 12", "short of memory"),
        ("open,openat:error=EACCES:when=1+", "os error 13", "permissions"),
        ("read:error=EIO:when=1+", "os error 5", "fsck"),
        ("read:error=EIO:when=1..4", "os error 5", "fsck"),
        ("statx,lstat,newfstatat,fstat:error=EIO:when=1+", "os error 5", "fsck"),
    ];
    for (fault, says, hint) in faults {
        for which in [&paths[..], &paths[..1], &paths[1..]] {
            // Of one copy, four in a row are the repair's looks and its reading; of both, a look alone.
            let run = injected_in(&trial, which, fault, &repair);
            assert!(trial.root.blocks() == blocks, "{fault} {which:?}: {run:?}");
            match which {
                _ if !fault.ends_with("..4") => drop(
                    run.expect(7, &["read", "grubenv", says, "not written over", hint, "move that file away first"]),
                ),
                // A copy that can be read by then is sound.
                _ => assert!([0, 7].contains(&run.code) && !run.stdout.contains("on trial"), "{fault}: {run:?}"),
            }
        }
        if fault.ends_with('+') {
            // A repair would not help.
            let run = injected_in(&trial, &paths, fault, &["verify"]).expect(7, &[says, hint]);
            assert!(!run.stderr.contains("--repair"), "{run:?}");
            let status = injected_in(&trial, &paths[..1], fault, &["status", "--json"]).expect(0, &[]);
            assert_eq!(status.jq("[.boot.readable, .boot.active_slot]"), "[false,null]", "{fault}");
            assert!(
                status.jq(".next").starts_with("do what the NOTE says: what cannot be read"),
                "{fault}: {status:?}"
            );
        }
    }
    // Once is no fault.
    for fault in ["read:error=EIO:when=1", "open,openat:error=EMFILE:when=1"] {
        injected_in(&trial, &paths, fault, &repair).expect(0, &["are sound"]);
    }
    // An activation was cut off between the copies: the older one does not count in the place of one that cannot be read.
    let text = String::from_utf8(blocks[1].clone()).unwrap();
    let older = text.replace("active_slot=B\nboot_success=0", "active_slot=A\nboot_success=1").into_bytes();
    assert!(older != blocks[1]);
    fs::write(&backup, &older).unwrap();
    let slot = trial.disk.bytes(B);
    for (fault, says, hint) in faults.iter().filter(|(fault, ..)| fault.ends_with('+')) {
        for args in [&["apply", "--layout", next.path()][..], &["activate"], &["rollback"], &repair] {
            let run = injected_in(&trial, &paths[..1], fault, args).expect(7, &["grubenv", says, hint]);
            assert!(trial.root.blocks() == [blocks[0].clone(), older.clone()], "{fault} {args:?}: {run:?}");
            assert!(trial.disk.bytes(B) == slot, "{fault} {args:?}: {run:?}");
        }
    }
    // Only the backup: what counts can be read. Going back works, and the backup is left.
    let run = injected_in(&trial, &paths[1..], faults[1].0, &["rollback"]);
    let run = run.expect(0, &["is active again; restart", "second copy", "os error 24"]);
    assert!(trial.root.blocks()[1] == older, "{run:?}");
    trial.assert_boot("A", "1", "2", "");
}

/// A repair of two damaged copies does not do what the next boots and the next run have to: it ends no trial, and it does not
/// forget who rolled back, where the copies or the state tell it.
#[apply(test)]
fn a_repair_ends_no_trial_and_forgets_no_rollback() {
    Trial::ready();
    need("strace");
    let edit = |trial: &Trial, from: &str, to: &str| {
        for name in ["grubenv", "grubenv.bak"] {
            let text = fs::read_to_string(trial.root.block(name)).unwrap();
            fs::write(trial.root.block(name), text.replacen(from, to, 1) + if from == to { "\n" } else { "" }).unwrap();
        }
    };
    let repair = ["verify", "--repair-boot-variables"];
    let proven = |trial: &Trial| {
        let path = trial.root.path("var/lib/kubesolo/update/proven.json");
        fs::read_to_string(path).unwrap_or_default().contains(&trial.medium.digest)
    };
    // Activated, not booted yet.
    let trial = Trial::activated();
    edit(&trial, "", "");
    let run = trial.root.agent(&repair).expect(0, &["written anew", "are sound"]);
    assert!(!run.stderr.contains("left out"), "{run:?}");
    trial.assert_boot("B", "0", "3", "");
    trial.root.agent(&["apply", "--layout", trial.medium.path()]);
    assert_eq!(trial.root.state_field("phase"), "activated");
    // The same where the state does not say so: it is dropped, and said.
    edit(&trial, "", "");
    fs::remove_file(trial.root.path("var/lib/kubesolo/update/state.json")).unwrap();
    let run = trial.root.agent(&repair).expect(0, &["written anew"]);
    assert!(run.stderr.contains("left out of what was written: the trial of slot B"), "{run:?}");
    trial.assert_boot("A", "1", "3", "");
    // On trial, which neither copy says any more.
    let trial = Trial::booted();
    edit(&trial, "boot_success", "boot_sXccess");
    let (damaged, state) = (trial.root.blocks(), trial.root.path("var/lib/kubesolo/update/state.json"));
    injected(&trial, &state, "read:error=EIO:when=1+", &repair).expect(7, &["state.json", "os error 5", "fsck"]);
    assert!(trial.root.blocks() == damaged, "repaired without a look at the state");
    trial.root.agent(&repair).expect(0, &["written anew"]);
    trial.assert_boot("B", "0", "2", "");
    trial.root.agent(&["apply", "--layout", trial.medium.path()]);
    assert_eq!(trial.root.state_field("phase"), "activated");
    assert!(!proven(&trial), "nothing has checked it");
    // The same, and the state is gone with its disk: who repairs hears that nobody knows.
    let mut trial = Trial::booted();
    edit(&trial, "boot_success", "boot_sXccess");
    let data = trial.root.path("var/lib/kubesolo");
    fs::remove_dir_all(&data).and_then(|()| fs::write(&data, "no directory")).unwrap();
    trial.disk.detach();
    trial.disk.overwrite(DATA, 0, &[0; 4096]);
    trial.disk.attach();
    let run = trial.root.agent(&repair).expect(0, &["written anew"]);
    assert!(run.stderr.contains("whether a slot is on trial can only be read in the boot variables"), "{run:?}");
    // GRUB went back: that is recorded by the next run, with its reason, and what runs may acquit the release.
    let mut trial = Trial::booted();
    trial.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    trial.boot(A);
    edit(&trial, "", "");
    trial.root.agent(&repair).expect(0, &["written anew"]);
    trial.assert_boot("A", "1", "0", "B");
    trial.root.agent(&["apply", "--layout", trial.medium.path()]);
    trial.assert_rolled_back("was not confirmed in three boots");
    let failed = fs::read_to_string(trial.root.path("var/lib/kubesolo/update/failed.json")).unwrap();
    assert_eq!(jq(&failed, ".failed[0].undecided != null"), "true", "{failed}");
}

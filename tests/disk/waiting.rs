//! Waiting is not failing: what a job may pass over, and what it must not; no medium is nothing to do.

use crate::support::disk::{A, B, Disk, need_disks};
use crate::support::release::{Medium, Release};
use crate::support::root::{Root, Run, unfolded};
use crate::support::trial::{Trial, spoil};
use crate::support::web::{Answer, Web};
use crate::support::{command, need, with_own_mounts};
use kubesolo_update::parts::base::time::rfc3339;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A window that was open an hour ago for a minute, and when it opens next.
fn shut() -> (String, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60 * 60;
    let text = |secs: u64| rfc3339(secs)[11..16].to_owned();
    let opened = now - 3600;
    (format!("{}-{}", text(opened), text(opened + 60)), rfc3339(opened + 24 * 3600))
}

/// Holds one reason to wait: 4 by itself; with the flag 0, told on stdout alone, and not at all with `--quiet`.
#[track_caller]
fn assert_waits(root: &Root, args: &[&str], words: &[&str]) {
    let state = root.state();
    let run = |more: &[&str]| root.agent(&[&["apply"], more, args].concat());
    let words: Vec<&str> = words.to_vec();
    assert!(run(&[]).expect(4, &words).stdout.is_empty());
    let told = run(&["--ok-if-nothing"]).expect(0, &words);
    assert!(told.stderr.is_empty() && unfolded(&told.stdout).trim().lines().count() == 1, "{told:?}");
    let quiet = run(&["--ok-if-nothing", "--quiet"]).expect(0, &[]);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    let json = run(&["--ok-if-nothing", "--json"]).expect(0, &words);
    assert_eq!(json.jq(".result"), "waits");
    let phase = |state: &Option<String>| state.as_ref().map(|s| crate::support::root::jq(s, "[.phase, .last_error]"));
    assert_eq!(phase(&root.state()), phase(&state), "waiting is no failure");
}

#[apply(test)]
fn a_pending_trial_is_waited_for() {
    Trial::ready();
    let mut trial = Trial::activated();
    let path = trial.medium.path().to_owned();
    assert_waits(&trial.root, &["--activate", "--layout", &path], &["waits for its first boot"]);
    trial.root.set_boot_variables(&["boot_counter=2"]);
    trial.boot(B);
    assert_waits(&trial.root, &["--layout", &path], &["slot B runs on trial"]);
}

#[apply(test)]
fn a_shut_window_is_waited_for_and_opens_at_a_time_that_is_told() {
    Trial::ready();
    let trial = Trial::staged();
    let root = &trial.root;
    let (window, next) = shut();
    root.configure(&format!("signature = off\nmaintenance_window = {window}\n"));
    let newer = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    let opens = format!("it opens next at {next}");
    assert_waits(root, &["--layout", newer.path()], &["the maintenance window is", &opens]);
    root.agent(&["check", "--layout", newer.path()]).expect(4, &[&opens]);
    root.agent(&["status"]).expect(0, &["the maintenance window opens at", &next]);
    // What is staged waits for it as well, and nothing is written meanwhile.
    let blocks = root.blocks();
    let staged = ["apply", "--activate", "--layout", trial.medium.path()];
    root.agent(&staged).expect(4, &["staged in slot B already", &opens]);
    let told = root.agent(&[&staged[..], &["--ok-if-nothing"]].concat()).expect(0, &[&opens]);
    assert!(told.stderr.is_empty(), "{told:?}");
    let quiet = root.agent(&[&staged[..], &["--ok-if-nothing", "--quiet"]].concat()).expect(0, &[]);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet:?}");
    assert!(root.blocks() == blocks && root.state_field("phase") == "staged");
    // Open: nothing is said of it.
    root.configure("signature = off\nmaintenance_window = 00:00-24:00\n");
    let status = root.agent(&["status"]).expect(0, &[]);
    assert!(!status.stdout.contains("window"), "{}", status.stdout);
}

#[apply(test)]
fn a_version_that_failed_here_is_waited_out() {
    Trial::ready();
    let mut trial = Trial::booted();
    trial.root.agent(&["rollback"]).expect(0, &[]);
    trial.boot(A);
    let path = trial.medium.path().to_owned();
    assert_waits(&trial.root, &["--layout", &path], &["failed here before"]);
    // Insisted on, it is staged; that does not have to be said again.
    trial.root.agent(&["apply", "--retry-failed", "--layout", &path]).expect(0, &["is staged in slot B"]);
    for flags in [&["apply"][..], &["apply", "--retry-failed"], &["check"]] {
        trial.root.agent(&[flags, &["--layout", &path]].concat()).expect(3, &["staged in slot B"]);
    }
    // What has rotted since is staged anew, and is insisted on as before.
    spoil(&mut trial.disk, B, "vmlinuz");
    trial.root.agent(&["apply", "--layout", &path]).expect(0, &["is staged in slot B"]);
    trial.root.agent(&["apply", "--layout", &path]).expect(3, &["staged in slot B already"]);
    trial.root.agent(&["activate"]).expect(0, &["slot B is active"]);
}

/// What a person has to mend is not passed over, whatever else is waited for.
#[apply(test)]
fn faults_are_not_excused() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let (window, _) = shut();
    for (what, release, conf, phase) in [
        ("another channel", Release::new("2.0.0"), "channel = edge".to_owned(), "failed"),
        (
            "another channel, out of hours",
            Release::new("2.0.0"),
            format!("channel = edge\nmaintenance_window = {window}"),
            "failed",
        ),
        ("an older version", Release::new("0.9.0"), String::new(), "idle"),
        ("an older version, out of hours", Release::new("0.9.0"), format!("maintenance_window = {window}"), "idle"),
    ] {
        let _ = fs::remove_file(root.path("var/lib/kubesolo/update/state.json"));
        let server = release.serve();
        root.configure(&format!("signature = off\nretries = 0\n{conf}\nserver = {}\n", server.url("")));
        root.agent(&["apply", "--ok-if-nothing", "--quiet"]).expect(4, &["refused: "]);
        assert_eq!(root.state_field("phase"), phase, "{what}");
    }
}

/// Image builders write such versions. A reader adds a line; five characters each, since the record is changed in place.
#[apply(test)]
fn a_running_version_that_is_not_semantic_is_left_with_allow_downgrade() {
    need_disks();
    let server = Release::new("2.0.0").serve();
    for version in ["01.02", "dev-1", "1.0.x", "24.01"] {
        let mut disk = Disk::new(24, 16);
        for name in ["slot.json", "version"] {
            let old = disk.file(A, name).unwrap();
            let new = String::from_utf8(old.clone()).unwrap().replacen("1.0.0", version, 1);
            let at = disk.bytes(A).windows(old.len()).position(|w| w == old).unwrap();
            disk.detach();
            disk.overwrite(A, at as u64, new.as_bytes());
            disk.attach();
        }
        let root = Root::new(&disk);
        root.set_boot_variables(&["boot_canary=1"]);
        let running = disk.bytes(A);
        let with = |args: &[&str]| root.agent(&[args, &["--server", &server.url("")]].concat());
        with(&["check"]).expect(4, &["--allow-downgrade takes it", "is not a semantic version", version]);
        with(&["apply", "--ok-if-nothing"]).expect(4, &["--allow-downgrade takes it"]);
        let state = ["phase", "last_error_kind"].map(|field| root.state_field(field));
        assert_eq!(state, ["failed", "gate"], "a machine that is stuck must be seen");
        root.agent(&["status"]).expect(0, &[version, "takes an update"]);
        assert_eq!(with(&["check", "--json"]).expect(4, &[]).jq("[.refusals[].gate]"), r#"["running_version"]"#);
        // What it names as the way to it is that.
        with(&["check", "--allow-downgrade"])
            .expect(0, &["an update is available; `kubesolo-update apply --allow-downgrade` takes it"]);
        let all = ["check", "--ignore-window", "--retry-failed", "--allow-downgrade"];
        with(&all).expect(0, &["`kubesolo-update apply --allow-downgrade --retry-failed --ignore-window` takes it"]);
        with(&["apply", "--allow-downgrade"]).expect(0, &["2.0.0 is staged in slot B"]);
        with(&["apply"]).expect(3, &["staged in slot B already"]);
        root.agent(&["activate"]).expect(0, &["slot B is active"]);
        assert!(disk.bytes(A) == running, "the running slot was written");
    }
}

/// A reader adds a line: what lies where `layout` points to (the directory that it is put into, `stick`), and whether that
/// is nothing. `os` is what is asked for. Whoever types it means that something is there: then nothing is a fault as well.
#[apply(test)]
fn nothing_plugged_in_is_nothing_to_do_and_a_broken_medium_is_not_nothing() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let empty = |_: &Path| {};
    let made = |dir: &Path| fs::create_dir(dir.join("os")).unwrap();
    type Put<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, &str, Put<'_>, bool); 17] = [
        ("the mount point is empty", "stick/os", &empty, true),
        ("no mount point", "nowhere/stick/os", &empty, true),
        ("an archive that is not there", "stick/os.tar", &empty, true),
        ("the mount point itself, empty", "stick", &empty, true),
        ("another stick", "stick/os", &|dir| fs::write(dir.join("holiday.jpg"), "x").unwrap(), true),
        ("an empty directory", "stick/os", &made, true),
        (
            "a link of an automounter to what is gone",
            "stick/os",
            &|dir| symlink("/gone", dir.join("os")).unwrap(),
            true,
        ),
        ("a link to itself", "stick/os", &|dir| symlink("os", dir.join("os")).unwrap(), false),
        ("a file in the place of a directory", "stick/x/os", &|dir| fs::write(dir.join("x"), "x").unwrap(), false),
        ("an empty file", "stick/os", &|dir| fs::write(dir.join("os"), "").unwrap(), false),
        ("a device", "stick/os", &|dir| symlink("/dev/null", dir.join("os")).unwrap(), false),
        (
            "other things",
            "stick/os",
            &|dir| {
                made(dir);
                fs::write(dir.join("os/holiday.jpg"), "x").unwrap();
            },
            false,
        ),
        (
            "nothing but lost+found",
            "stick/os",
            &|dir| {
                made(dir);
                fs::create_dir(dir.join("os/lost+found")).unwrap();
            },
            false,
        ),
        (
            "no index",
            "stick/os",
            &|dir| {
                made(dir);
                fs::write(dir.join("os/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
            },
            false,
        ),
        (
            "no marker",
            "stick/os",
            &|dir| {
                made(dir);
                fs::write(dir.join("os/index.json"), "{}").unwrap();
            },
            false,
        ),
        (
            "an index that is a link to nothing",
            "stick/os",
            &|dir| {
                made(dir);
                fs::write(dir.join("os/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
                symlink("/gone", dir.join("os/index.json")).unwrap();
            },
            false,
        ),
        (
            "an index that is empty",
            "stick/os",
            &|dir| {
                made(dir);
                fs::write(dir.join("os/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
                fs::write(dir.join("os/index.json"), "").unwrap();
            },
            false,
        ),
    ];
    for (what, layout, put, is_nothing) in cases {
        let _ = fs::remove_file(root.path("var/lib/kubesolo/update/state.json"));
        let dir = tempfile::tempdir_in(root.path("run")).unwrap();
        fs::create_dir(dir.path().join("stick")).unwrap();
        put(&dir.path().join("stick"));
        let inside = dir.path().strip_prefix(root.path("")).unwrap();
        root.configure(&format!("signature = off\nlayout = /{}\n", inside.join(layout).display()));
        for verb in ["check", "apply"] {
            let run = root.agent(&[verb]);
            assert_eq!(run.code, if is_nothing { 3 } else { 6 }, "{what}: {run:?}");
            assert_eq!(
                unfolded(&run.stdout).contains("there is nothing (no stick is plugged in or mounted"),
                is_nothing,
                "{what}: {run:?}"
            );
            assert_eq!(run.stderr.is_empty(), is_nothing, "{what}: {run:?}");
        }
        let flag = root.agent(&["apply", "--ok-if-nothing", "--quiet"]);
        assert_eq!((flag.code, flag.stdout.as_str()), (if is_nothing { 0 } else { 6 }, ""), "{what}: {flag:?}");
        let json = root.agent(&["apply", "--json"]);
        assert_eq!(json.jq(".result"), if is_nothing { "no_medium" } else { "error" }, "{what}");
        let state = ["phase", "last_error_kind"].map(|field| root.state_field(field));
        assert_eq!(state, if is_nothing { ["idle", "null"] } else { ["failed", "source"] }, "{what}");
        root.configure("signature = off\n");
        let typed = dir.path().join(layout).display().to_string();
        for args in [&["check"][..], &["apply"], &["apply", "--ok-if-nothing", "--quiet"]] {
            let run = root.agent(&[args, &["--layout", &typed]].concat());
            assert!(run.code == 6 && run.stdout.is_empty(), "{what}: {run:?}");
            let words = "there is nothing (is the stick mounted, and has its layout that name?)";
            assert_eq!(run.stderr.contains(words), is_nothing, "{what}: {run:?}");
        }
        let state = ["phase", "last_error_kind"].map(|field| root.state_field(field));
        assert_eq!(state, ["failed", "source"], "{what}");
    }
}

/// The same, of what a test cannot make by itself: what the kernel says of a card reader, and of a disk that fails.
#[apply(test)]
fn a_medium_that_the_kernel_cannot_read_is_not_nothing() {
    need_disks();
    need("strace");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let stick = root.path("run/stick");
    fs::create_dir(&stick).unwrap();
    fs::write(stick.join("x"), "x").unwrap();
    root.configure("signature = off\nlayout = /run/stick\n");
    for (errno, code) in [("ENOMEDIUM", 3), ("EIO", 6), ("EACCES", 6), ("ESTALE", 6), ("ENXIO", 6)] {
        let mut strace = command("strace");
        strace.args(["-f", "-o", "/dev/null", "-P"]).arg(&stick);
        strace.args(["-e", &format!("inject=statx,stat,newfstatat,readlink:error={errno}")]);
        let run = Run::from(root.command_under(strace, &["check"]).output().unwrap());
        assert_eq!(run.code, code, "{errno}: {run:?}");
    }
    // An empty medium that is mounted is there.
    let mut shell = with_own_mounts("mount -t tmpfs none \"$1\"; shift; exec \"$@\"");
    shell.arg(&stick);
    let run = Run::from(root.command_under(shell, &["check"]).output().unwrap());
    run.expect(6, &["oci-layout"]);
}

/// A stick that is pulled out takes nothing back, and what was wrong with it is over.
#[apply(test)]
fn a_stick_that_is_gone_leaves_what_is_staged() {
    Trial::ready();
    let trial = Trial::staged();
    let gone = trial.disk.dir().join("gone");
    fs::rename(trial.medium.path(), &gone).unwrap();
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(6, &["there is nothing"]);
    assert_eq!(trial.root.state_field("phase"), "staged");
    trial.root.configure("signature = off\nlayout = /media/stick\n");
    trial.root.agent(&["apply"]).expect(3, &["there is nothing"]);
    assert_eq!(trial.root.state_field("phase"), "staged");
    trial.root.agent(&["activate"]).expect(0, &["slot B is active"]);
}

/// What cron runs writes to the kernel's log when something was done, or has to be mended: not while it waits.
#[apply(test)]
fn the_hook_for_cron_says_nothing_while_nothing_happens() {
    Trial::ready();
    let trial = Trial::staged();
    let (root, cron) = (&trial.root, Cron::new(&trial.root));
    let run = || cron.run();
    let (window, _) = shut();
    let layout = |conf: &str, path: &str| root.configure_node(&format!("signature = off\n{conf}\nlayout = {path}\n"));
    // Below the root, as the configuration names it.
    let inside = root.path("run/os");
    run_cp(trial.medium.path(), &inside);
    layout("", "/run/os");
    assert_eq!(run(), (0, String::new()), "staged before");
    layout("", "/run/nothing");
    assert_eq!(run(), (0, String::new()), "no medium");
    layout("channel = edge", "/run/os");
    let (code, said) = run();
    assert!(code == 4 && said.contains("kubesolo-update: ") && said.contains("refused"), "{code} {said}");
    fs::remove_dir_all(&inside).unwrap();
    let next = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    run_cp(next.path(), &inside);
    layout(&format!("maintenance_window = {window}"), "/run/os");
    assert_eq!(run(), (0, String::new()), "out of hours");
    // A server that answers at the second try needs nobody.
    let number = std::sync::atomic::AtomicUsize::new(0);
    let web = Web::start(move |path| match path {
        "/latest.json" if number.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 2 == 1 => {
            Answer::ok(Release::new("3.0.0").latest_json())
        }
        _ => Answer::status(503),
    });
    let server = format!("signature = off\nretries = 1\nmaintenance_window = {window}\nserver = {}\n", web.url(""));
    root.configure_node(&server);
    let said: Vec<(i32, String)> = (0..4).map(|_| run()).collect();
    assert!(said.iter().all(|said| *said == (0, String::new())), "{said:?}");
    layout("", "/run/os");
    let (code, said) = run();
    assert!(code == 0 && said.starts_with("kubesolo-update: "), "{code} {said}");
    assert_eq!(root.state_field("to_version"), "3.0.0");
}

/// What is said only once is not lost.
#[apply(test)]
fn the_hook_for_cron_says_once_that_grub_went_back() {
    Trial::ready();
    let mut trial = Trial::booted();
    let cron = Cron::new(&trial.root);
    run_cp(trial.medium.path(), &trial.root.path("run/os"));
    trial.root.configure_node("signature = off\nlayout = /run/os\n");
    trial.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    trial.boot(A);
    let (code, said) = cron.run();
    assert!(code == 0 && said.contains("slot B was not confirmed in three boots"), "{code} {said}");
    assert_eq!(cron.run(), (0, String::new()));
}

/// The hook that cron runs, with a kernel log that can be read.
struct Cron {
    bin: tempfile::TempDir,
}

impl Cron {
    fn new(root: &Root) -> Cron {
        let bin = tempfile::tempdir().unwrap();
        let agent = bin.path().join("kubesolo-update");
        let (program, below) = (Root::program(), root.path(""));
        let script = format!(
            "#!/bin/sh\nverb=$1; shift\nexec {} \"$verb\" --root {} \"$@\"\n",
            program.display(),
            below.display()
        );
        fs::write(&agent, script).unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
        Cron { bin }
    }

    /// Returns its exit code, and what it wrote.
    fn run(&self) -> (i32, String) {
        let log = self.bin.path().join("kmsg");
        let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/initramfs/kubesolo-update-apply");
        fs::write(&log, "").unwrap();
        let mut shell = with_own_mounts("mount --bind \"$1\" /dev/kmsg; shift; exec \"$@\"");
        shell.arg(&log).arg(&hook);
        let path = format!("{}:{}", self.bin.path().display(), std::env::var("PATH").unwrap());
        shell.env("PATH", path).env("KUBESOLO_SPREAD_SECS", "0").env("KUBESOLO_SAID", self.bin.path().join("said"));
        let code = shell.output().unwrap().status.code().unwrap();
        (code, fs::read_to_string(&log).unwrap())
    }
}

fn run_cp(from: &str, to: &Path) {
    crate::support::run(command("cp").arg("-r").arg(from).arg(to));
}

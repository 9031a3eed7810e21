//! `status`: the screens of machines in every condition, colours on a real terminal, `--json` and its schema.
//!
//! `UPDATE_GOLDEN=1` writes the screens anew; look at the difference before it is committed.

use crate::support::answers::schema_faults;
use crate::support::disk::{A, B, Disk, EFI, architecture, need_disks, wait_for};
use crate::support::release::{Medium, Release};
use crate::support::root::{Root, Run, jq};
use crate::support::signing::KeyPair;
use crate::support::trial::{Trial, wipe};
use crate::support::web::{Answer, Web};
use crate::support::{PYTHON, command, need, need_all, need_python, run};
use kubesolo_update::parts::os::sys::{self, Access};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Holds the screen of a machine to 80 columns and to the one in tests/golden, and the document to the schema.
#[track_caller]
fn hold(root: &Root, name: &str, condition: &str) {
    hold_code(root, name, condition, 0);
}

/// The same where not everything could be looked at.
#[track_caller]
fn hold_code(root: &Root, name: &str, condition: &str, code: i32) {
    let run = root.agent(&["status"]).expect(code, &[]);
    assert_eq!(run.stderr.is_empty(), code == 0, "{name}: {}", run.stderr);
    for line in run.stdout.lines() {
        assert!(line.chars().count() <= 80 && line.trim_end() == line, "{name}: '{line}'");
        assert!(!line.chars().any(char::is_control), "{name}: '{line}'");
    }
    let labels = ["Slot A  ", "Slot B  ", "Boot    ", "Update  ", "Past    ", "Note    ", "Next    ", "        "];
    for line in run.stdout.lines().skip(1).filter(|line| !line.is_empty()) {
        assert!(labels.iter().any(|label| line.starts_with(label)), "{name}: '{line}'");
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/status-{name}.txt"));
    let found = masked(&run.stdout);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, &found).unwrap();
    }
    let wanted = fs::read_to_string(&golden).unwrap();
    assert!(found == wanted, "{name}: UPDATE_GOLDEN=1 takes it over\nwanted:\n{wanted}\nfound:\n{found}");
    let json = root.agent(&["status", "--json"]).expect(code, &[]);
    assert_eq!(json.jq("[.schema_version, .condition]"), format!("[2,\"{condition}\"]"), "{name}");
}

/// The same on every machine and at any time.
fn masked(text: &str) -> String {
    let mut out: Vec<u8> = text.replace(&format!(", {},", architecture()), ", amd64,").into_bytes();
    for at in 0..out.len().saturating_sub(19) {
        let shape: String =
            out[at..at + 20].iter().map(|b| if b.is_ascii_digit() { '0' } else { *b as char }).collect();
        if shape == "0000-00-00T00:00:00Z" {
            out[at..at + 20].copy_from_slice(b"YYYY-MM-DDThh:mm:ssZ");
        }
    }
    String::from_utf8(out).unwrap()
}

fn offer(trial: &Trial, version: &str) -> Medium {
    Medium::new(trial.disk.dir(), &Release::new(version))
}

/// A confirmed update: what healthcheck writes, and a run that records it.
fn confirm(trial: &Trial) {
    trial.root.set_boot_variables(&["boot_success=1"]);
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(3, &["running already"]);
}

fn give_up(trial: &mut Trial) {
    trial.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    trial.boot(A);
}

#[apply(test)]
fn a_good_update_on_the_screen() {
    Trial::ready();
    let disk = Disk::new(24, 16);
    hold(&Root::new(&disk), "first-boot", "bootloader_unproven");
    let mut trial = Trial::staged();
    hold(&trial.root, "staged", "staged");
    trial.root.set_boot_variables(&["boot_canary=0"]);
    hold(&trial.root, "staged-unproven", "staged");
    trial.root.set_boot_variables(&["boot_canary=1"]);
    // A check that fails meanwhile takes nothing from it.
    trial.root.agent(&["apply", "--server", "http://127.0.0.1:9"]).expect(6, &[]);
    // Long ago, so that the order of the ends is one.
    let state = trial.root.path("var/lib/kubesolo/update/state.json");
    let edit = r#".history[-1] += {started_at: "2026-01-01T00:00:00Z", ended_at: "2026-01-01T00:00:00Z"}"#;
    fs::write(&state, jq(&fs::read_to_string(&state).unwrap(), edit)).unwrap();
    hold(&trial.root, "staged-then-dead-server", "staged");
    trial.root.agent(&["activate"]).expect(0, &[]);
    hold(&trial.root, "activated", "activated");
    trial.root.set_boot_variables(&["boot_counter=2"]);
    trial.boot(B);
    hold(&trial.root, "trial", "trial");
    confirm(&trial);
    hold(&trial.root, "stable", "well");
    let status = trial.root.agent(&["status", "--json"]);
    assert_eq!(
        // Both may have ended in one second: their order is held in src/ledger/history_tests.rs.
        status.jq(".history | map([.to_version, .result, .error_kind, .count]) | sort"),
        r#"[[null,"failed","network",1],["2.0.0","success",null,1]]"#
    );
    assert_eq!(status.jq(".offered"), "null");
    let document = Release::new("2.1.0").latest_json();
    let server = Web::start(move |_| Answer::ok(document.clone()).header("ETag", "\"one\""));
    trial.root.agent(&["check", "--server", &server.url("")]).expect(0, &["2.1.0"]);
    let offered = trial.root.agent(&["status", "--json"]).jq(".offered | [.version, .channel, .manifest_digest[:7]]");
    assert_eq!(offered, r#"["2.1.0","stable","sha256:"]"#);
    trial.root.agent(&["rollback"]).expect(0, &["on trial"]);
    hold(&trial.root, "rolled-back-by-hand", "activated");
    let results = trial.root.agent(&["status", "--json"]).jq(".history | map(.result) | sort");
    assert_eq!(results, r#"["failed","rolled_back","success"]"#);
}

#[apply(test)]
fn bad_updates_on_the_screen() {
    Trial::ready();
    let mut trial = Trial::booted();
    // As healthcheck leaves it.
    let state = trial.root.path("var/lib/kubesolo/update/state.json");
    let edit = r#".phase = "failed" | .last_error = "check the health of this node: 10-api: not ready" | .last_error_kind = "unhealthy" | .history[0] += {result: "failed", error: .last_error, error_kind}"#;
    let edit = edit.replace("error_kind}", "error_kind: \"unhealthy\"}");
    fs::write(&state, jq(&fs::read_to_string(&state).unwrap(), &edit)).unwrap();
    hold(&trial.root, "trial-unhealthy", "unhealthy");
    give_up(&mut trial);
    hold(&trial.root, "rolled-back-not-recorded", "rolled_back");
    trial.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
    hold(&trial.root, "rolled-back", "rolled_back");
    assert_eq!(trial.root.agent(&["status", "--json"]).jq(".history | map(.result)"), r#"["rolled_back"]"#);
    // A dead server, asked by cron.
    for _ in 0..3 {
        trial.root.agent(&["apply", "--server", "http://127.0.0.1:9"]).expect(6, &[]);
    }
    hold(&trial.root, "failed", "failed");
    assert_eq!(
        trial.root.agent(&["status", "--json"]).jq(".history | map([.result, .count])"),
        r#"[["rolled_back",1],["failed",3]]"#
    );
    // The server is back, and has nothing new: the state is what it was before, and no alarm goes on.
    let path = trial.medium.path();
    trial.root.agent(&["apply", "--layout", path]).expect(4, &["failed here before"]);
    let status = trial.root.agent(&["status", "--json"]);
    let wanted = r#"["rolled_back","rolled_back","rollback"]"#;
    assert_eq!(status.jq("[.condition, .update.phase, .update.last_error_kind]"), wanted);
    let version = "2.0.1-rc.1.of.a.branch.with.a.long.name+build.20261122.and.more.of.it.than.a.line.of.80.columns.has";
    trial.root.agent(&["apply", "--layout", offer(&trial, version).path()]).expect(0, &["staged"]);
    hold(&trial.root, "long-version", "staged");
}

#[apply(test)]
fn damaged_machines_on_the_screen() {
    need_disks();
    let mut disk = Disk::new(24, 16);
    let mut root = Root::new(&disk);
    root.set_boot_variables(&["boot_canary=1"]);
    hold(&root, "stable-first", "well");
    root.configure("signature = off\nsever = http://x\n");
    let words = ["no update is taken: see the NOTES below", "Note    read ", "unknown key", "`sever`"];
    root.agent(&["status"]).expect(0, &words);
    assert_eq!(root.agent(&["status", "--json"]).jq(".condition"), "stopped");
    root.configure("signature = off\n");
    for (number, name, condition) in
        [(B, "slot-b-invalid", "no_fallback"), (A, "slot-a-invalid", "running_slot_invalid")]
    {
        disk.detach();
        let target = format!("{}?offset={}", disk.image.display(), disk.extent(number).0);
        run(command("debugfs").args(["-w", "-R", "rm slot.json"]).arg(target));
        disk.attach();
        root.boot('A', Some(&disk.guid(A)));
        hold(&root, name, condition);
    }
    for name in ["grubenv", "grubenv.bak"] {
        fs::write(root.block(name), "x").unwrap();
    }
    hold(&root, "boot-unreadable", "boot_unreadable");
    // No slot is named, and there is no disk.
    fs::remove_file(root.path("sys")).unwrap();
    fs::create_dir_all(root.path("sys/class/block")).unwrap();
    root.boot('C', None);
    hold_code(&root, "nothing-readable", "not_booted_from_a_slot", 7);
}

/// A new version's first boot: `healthcheck` holds the EFI partition while a person looks.
#[apply(test)]
fn boot_variables_that_another_run_writes_are_not_called_unreadable() {
    Trial::ready();
    need_all(&["strace", "mke2fs", "unshare"]);
    let trial = Trial::booted();
    // Mounted nowhere, as on a machine: the agent mounts it for itself, and keeps others away. (An ext4, for kernels of
    // test machines that have no FAT.)
    let mut mke2fs = command("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "KSOLOEFI", "-d"]).arg(trial.root.path("boot/efi"));
    run(mke2fs.arg(trial.disk.node(EFI)));
    fs::remove_dir_all(trial.root.path("boot/efi")).unwrap();
    let lock = || {
        let device = fs::File::open(trial.disk.node(EFI)).unwrap();
        assert!(sys::try_lock_for(&device, Access::Write).unwrap());
        device
    };
    let held = lock();
    hold(&trial.root, "boot-busy", "boot_busy");
    let metrics = trial.root.agent(&["metrics", "--once"]).expect(0, &["kubesolo_boot_success 0"]);
    assert!(metrics.stdout.contains("kubesolo_update_phase{phase=\"activated\"} 1"), "{}", metrics.stdout);
    // It is waited for, longer than one try to mount it takes (15 looks at the lock).
    let trace = trial.disk.dir().join("trace");
    let mut strace = command("strace");
    strace.arg("-f").arg("-e").arg("trace=flock").arg("-o").arg(&trace);
    let mut status = trial.root.command_under(strace, &["status"]);
    let status = std::thread::spawn(move || Run::from(status.output().unwrap()));
    let looks = || fs::read_to_string(&trace).unwrap_or_default().matches("EAGAIN").count();
    assert!(wait_for(Duration::from_secs(60), || looks() > 20 || status.is_finished()));
    drop(held);
    let status = status.join().unwrap().expect(0, &["ON TRIAL, not confirmed yet"]);
    assert!(!status.stdout.contains("repair-boot-variables"), "{}", status.stdout);
    assert!(looks() > 20, "it did not wait: {}", looks());
    // Mounted for writing elsewhere, which keeps nobody from reading.
    let mut shell = command("unshare");
    shell.args(["-m", "sh", "-euc", "mount \"$1\" /mnt; echo mounted; cat", "sh"]).arg(trial.disk.node(EFI));
    let mut other = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 8];
    other.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    trial.root.agent(&["status"]).expect(0, &["ON TRIAL, not confirmed yet"]);
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    trial.root.agent(&["status"]).expect(0, &["ON TRIAL"]);
}

/// What stops every update: keys and what is revoked, as a script makes them of a good directory of keys; lines of
/// `update.conf`; a word of the remark.
const STOPS: &[(&str, &str, &str, &str)] = &[
    ("a list beside revoked/", "echo sha256:0 >revoked.txt", "", "revoked.txt"),
    ("a list among the keys", "mkdir Revoked", "", "Revoked"),
    ("a site's list", "mkdir revoked; echo '! no file of root' >revoked/site.not-taken", "", "no file of root"),
    ("no digest", "mkdir revoked; echo release 7 >revoked/list", "", "revoked/list"),
    ("revoked is not a directory", ": >revoked", "", "not a directory"),
    ("a directory for all", "chmod 777 .", "", "others than its owner"),
    ("no good key", "echo x >release.pub", "", "none of the installed keys"),
    ("more than there are", ":", "signature_threshold = 2", "signature_threshold is 2"),
    ("no key", "rm release.pub", "signature = required", "no key is installed"),
    ("update.conf", ":", "sever = http://x", "unknown key"),
];

/// No update is taken, and nobody who asks `status` or `metrics` is told that all is well.
#[apply(test)]
fn what_stops_every_update_is_the_headline() {
    Trial::ready();
    need("openssl");
    let trial = Trial::staged();
    let (root, keys) = (&trial.root, trial.root.path("etc/kubesolo/update-keys.d"));
    let key = KeyPair::p256(trial.disk.dir(), "key").public;
    let make = |script: &str| {
        let _ = fs::remove_dir_all(&keys);
        fs::create_dir_all(&keys).unwrap();
        fs::copy(&key, keys.join("release.pub")).unwrap();
        run(Command::new("sh").current_dir(&keys).args(["-euc", &format!("chmod 755 .; umask 022; {script}")]));
    };
    let apply = |more: &[&str]| root.agent(&[&["apply", "--layout", trial.medium.path()], more].concat());
    for (what, script, lines, word) in STOPS {
        make(script);
        let off = if lines.contains("signature =") { "" } else { "signature = off\n" };
        root.configure(&format!("{off}{lines}\n"));
        let told = |phase: &str| {
            let status = root.agent(&["status", "--json"]).expect(0, &[]);
            assert_eq!(status.jq("[.condition, .update.phase]"), format!("[\"stopped\",\"{phase}\"]"), "{what}");
            assert!(status.jq(".remarks | join(\" \")").contains(word), "{what}: {}", status.stdout);
            assert!(!status.jq(".next").contains("activate"), "{what}: {}", status.stdout);
            let series = ["kubesolo_update_last_error{kind=\"config\"} 1", "kubesolo_update_available 0"];
            root.agent(&["metrics", "--once"]).expect(0, &series);
        };
        // Staged, and then stopped: whether an attempt was made or not.
        told("staged");
        let code = if *what == "no key" { 5 } else { 2 };
        root.agent(&["activate"]).expect(code, &[word]);
        if *what != "update.conf" && !what.starts_with("no good") && lines.is_empty() {
            // The reason once, at the end.
            let said = root.agent(&["verify"]).expect(2, &["its signature was not checked: see below"]);
            assert_eq!(format!("{}{}", said.stdout, said.stderr).matches(word).count(), 1, "{said:?}");
        }
        apply(&["--ok-if-nothing", "--quiet"]).expect(code, &[word]);
        if lines.contains("threshold") {
            let last = root.agent(&["status", "--json"]).jq(".history[-1] | [.result, .error_kind]");
            assert_eq!(last, r#"["failed","config"]"#, "{what}");
            hold(root, "stopped-staged", "stopped");
            told("staged");
        }
        // Mended, and nothing is left of it.
        let _ = fs::remove_dir_all(&keys);
        root.configure("signature = off\n");
        apply(&[]).expect(3, &["staged in slot B already"]);
        assert_eq!(root.agent(&["status", "--json"]).jq(".condition"), "staged", "{what}");
    }
    // With nothing staged the state has it as well; a trial keeps its own.
    root.agent(&["rollback"]).expect(0, &["will not be tried"]);
    make(":");
    root.configure("signature_threshold = 2\n");
    apply(&["--quiet"]).expect(2, &["signature_threshold is 2"]);
    hold(root, "stopped", "stopped");
    assert_eq!(root.state_field("last_error_kind"), "config");
    assert_eq!(root.state_field("phase"), "failed");
    let _ = fs::remove_dir_all(&keys);
    root.configure("signature = off\n");
    apply(&[]).expect(0, &["is staged"]);
    root.agent(&["activate"]).expect(0, &[]);
    make("mkdir Revoked");
    apply(&[]).expect(2, &["Revoked"]);
    assert_eq!(root.state_field("phase"), "activated");
    let status = root.agent(&["status", "--json"]);
    assert_eq!(status.jq("[.condition, (.remarks | length)]"), r#"["activated",1]"#);
}

/// Holds condition, headline and advice; no screen in tests/golden, since the names of loop devices differ.
#[track_caller]
fn says(root: &Root, condition: &str, headline: &str, next: &str) {
    let status = root.agent(&["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq(".condition"), condition);
    assert!(status.jq(".next").starts_with(next), "{}", status.stdout);
    let first = root.agent(&["status"]).expect(0, &[]).stdout.lines().next().unwrap().to_owned();
    assert!(first.contains(headline), "{first}");
}

/// What is advised does work.
#[apply(test)]
fn what_is_advised_on_a_damaged_machine_works() {
    Trial::ready();
    // What was staged is lost.
    let mut trial = Trial::staged();
    wipe(&mut trial, B);
    says(&trial.root, "staged_invalid", "what was staged is DAMAGED", "`apply` writes it anew");
    trial
        .root
        .agent(&["activate"])
        .expect(7, &["(`apply` of another release than the one that runs makes its file system anew)"]);
    trial.root.agent(&["verify"]).expect(
        7,
        &["Slot B  INVALID", "(`apply` of another release than the one that runs makes its file system anew)"],
    );
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(0, &["is staged in slot B"]);
    assert_eq!(trial.root.agent(&["status", "--json"]).jq(".condition"), "staged");
    // The running slot is: another one is staged.
    wipe(&mut trial, A);
    says(&trial.root, "running_slot_invalid", "NOT valid", "`activate`, then restart: slot B is staged, and valid");
    let way_on = ["the running slot A", "(`activate`, then restart: slot B is staged, and valid)"];
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(7, &way_on);
    trial.root.agent(&["activate"]).expect(0, &["slot B is active"]);
    // The other one ran before.
    let mut trial = Trial::booted();
    confirm(&trial);
    wipe(&mut trial, B);
    says(&trial.root, "running_slot_invalid", "NOT valid", "`rollback`, then restart: slot A is valid,");
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(7, &["the running slot B"]);
    trial.root.agent(&["rollback"]).expect(0, &["slot A is active, on trial"]);
    // Neither is left.
    let mut trial = Trial::staged();
    wipe(&mut trial, A);
    wipe(&mut trial, B);
    let words = ["NOT valid", "Next    do not restart: neither slot can be read"];
    trial.root.agent(&["status"]).expect(0, &words);
}

/// Boot variables that were repaired while the state was one step behind; a check that found nothing; a second rollback.
#[apply(test)]
fn what_is_said_after_a_repair_an_empty_check_and_a_second_rollback() {
    Trial::ready();
    let mut trial = Trial::booted();
    trial.root.set_boot_variables(&["boot_success=1", "boot_canary=0"]);
    trial
        .root
        .agent(&["status"])
        .expect(0, &["no update can be TRIED yet", "Next    restart once, so that GRUB can show"]);
    trial.root.set_boot_variables(&["boot_canary=1"]);
    confirm(&trial);
    trial.root.agent(&["rollback"]).expect(0, &["on trial"]);
    trial.root.set_boot_variables(&["boot_success=1"]);
    trial.boot(A);
    let said = trial.root.agent(&["rollback"]).expect(4, &["go back to version 2.0.0: refused: it failed here before"]);
    assert!(said.stderr.contains("(--retry-failed goes back anyway)"), "{said:?}");
    let server = Release::new("2.1.0").serve();
    trial.root.agent(&["check", "--server", &server.url("")]).expect(0, &["2.1.0 from server http://127.0.0.1:"]);
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    root.configure("signature = off\nlayout = /media/usb/os\n");
    root.agent(&["apply", "--ok-if-nothing", "--quiet"]).expect(0, &[]);
    root.agent(&["status"]).expect(0, &["Update  idle: no attempt is recorded; last asked 20"]);
}

/// Runs `status` on a terminal of its own. Returns: what a terminal would get.
fn on_a_terminal(root: &Root, env: &[(&str, &str)]) -> String {
    let mut python = Command::new(PYTHON);
    python.args(["-c", "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"]);
    let out = root.command_under(python, &["status"]).envs(env.iter().copied()).stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().replace("\r\n", "\n")
}

#[apply(test)]
fn colours_are_for_terminals_that_have_them() {
    Trial::ready();
    need_python("pty");
    let trial = Trial::booted();
    let plain = trial.root.agent(&["status"]).stdout;
    let env: [(&[(&str, &str)], bool); 8] = [
        (&[("TERM", "linux")], true),
        (&[("TERM", "vt100"), ("NO_COLOR", "")], true),
        (&[], false),
        (&[("TERM", "")], false),
        (&[("TERM", "dumb")], false),
        (&[("TERM", "linux"), ("NO_COLOR", "1")], false),
        (&[("TERM", "linux"), ("NO_COLOR", "0")], false),
        (&[("TERM", "dumb"), ("NO_COLOR", "")], false),
    ];
    for (env, coloured) in env {
        let shown = on_a_terminal(&trial.root, env);
        assert_eq!(shown.contains("\x1b["), coloured, "{env:?}: {shown}");
        // The same words, and every colour is taken back.
        let mut bare = String::new();
        let mut pieces = shown.split("\x1b[");
        bare.push_str(pieces.next().unwrap());
        let mut last = "0";
        for piece in pieces {
            let (code, text) = piece.split_once('m').unwrap();
            assert!(["0", "1", "31", "32", "33"].contains(&code), "{code}");
            assert!(text.trim().is_empty() || code != last, "{shown}");
            (last, bare) = (code, bare + text);
        }
        assert_eq!((bare, last), (plain.clone(), "0"), "{env:?}");
        assert!(!coloured || shown.contains("\x1b[33mON TRIAL, not confirmed yet\x1b[0m"), "{shown}");
    }
    // No terminal: whatever TERM says.
    let piped = trial.root.command(&["status"]).env("TERM", "linux").output().unwrap();
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), plain);
}

#[apply(test)]
fn the_schema_refuses_what_is_not_a_status() {
    Trial::ready();
    need_python("jsonschema");
    let trial = Trial::booted();
    trial.root.set_boot_variables(&["boot_success=1"]);
    let good = trial.root.agent(&["status", "--json"]).stdout;
    assert_eq!(schema_faults(&[&good]), "");
    for (wrong, word) in [
        (".new = 1", "new"),
        (".update.new = 1", "new"),
        (".boot.new = 1", "new"),
        (".slots[0].new = 1", "new"),
        (".history[0].new = 1", "new"),
        (".offered.new = 1", "offered"),
        ("del(.next)", "next"),
        ("del(.update.phase)", "phase"),
        ("del(.slots[1].room_bytes)", "room_bytes"),
        (".schema_version = 1", "schema_version"),
        (".schema_version = \"2\"", "schema_version"),
        (".result = \"well\"", "result"),
        (".command = \"check\"", "result"),
        (".command = null", "slots"),
        (".exit_code = 10", "exit_code"),
        (".exit_code = 4", "kind"),
        (".result = \"error\"", "message"),
        (".kind = \"rollback\"", "kind"),
        (".refusals = [{\"gate\": \"none\", \"reason\": \"x\", \"hint\": null}]", "gate"),
        ("del(.refusals)", "refusals"),
        (".next = \"a\\u0007\"", "control character"),
        (".slots[0].error = \"a\\u202eb\"", "control character"),
        (".update.phase = \"flying\"", "flying"),
        (".update.last_error_kind = \"bad luck\"", "last_error_kind"),
        (".update.updated_at = \"yesterday\"", "updated_at"),
        (".update.attempts_total = -1", "-1"),
        (".history[0].result = \"idle\"", "idle"),
        (".history[0].started_at = null", "started_at"),
        (".history = [range(22) as $n | .history[0]]", "maxItems"),
        (".boot.boot_counter = 4", "4"),
        (".boot.active_slot = \"C\"", "active_slot"),
        (".running_slot = \"a\"", "running_slot"),
        (".slots = .slots[:1]", "minItems"),
        ("del(.run)", "run"),
        (".run = {}", "run"),
        (".run = 7", "run"),
        (".run = {at_work: true, pid: 0, command: null, phase: null, percent: 101, started_at: null}", "run"),
        (".slots[0].looked_at = 1", "looked_at"),
        (".slots[0].valid = \"yes\"", "yes"),
        (".slots[0].room_bytes = 1.5", "1.5"),
        (".condition = \"fine\"", "fine"),
        (".remarks = [1]", "1"),
    ] {
        let faults = schema_faults(&[&jq(&good, wrong)]);
        assert!(faults.contains(word), "{wrong}: '{faults}'");
    }
    let twice = good.replace("\"next\":", "\"condition\":\"well\",\"next\":");
    for (wrong, word) in [(&good[1..], "no JSON"), ("[]", "object"), (&twice, "twice")] {
        assert!(schema_faults(&[wrong]).contains(word), "{word}");
    }
}

#[apply(test)]
fn every_field_of_the_schema_is_described() {
    need("jq");
    let schema = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json-schema.json")).unwrap();
    // What is demanded of which command names members, and describes none.
    let ask = |filter: &str| jq(&schema, &format!("del(.allOf, .definitions[].if, .definitions[].then) | {filter}"));
    let bare = "[.. | objects | select(.properties) | .properties | to_entries[] | select(.value.description == null and .value[\"$ref\"] == null) | .key]";
    assert_eq!(ask(bare), "[]");
    assert!(ask("[.. | objects | select(.properties) | .properties | length] | add").parse::<u32>().unwrap() > 120);
    // Objects within are closed, and nothing in them is left out; a command's members are those that it may have.
    let open = "[del(.properties, .definitions[].propertyNames) | .definitions[].properties[]? | .. | objects \
                | select(.properties and .additionalProperties != false)] | length";
    assert_eq!(ask(open), "0");
    let optional = "[.. | objects | select(.additionalProperties == false and (.required | sort) != (.properties | keys))] | length";
    assert_eq!(ask(optional), "0");
    let envelope = "(.properties | keys) as $envelope";
    let names = format!(
        "{envelope} | [.definitions[] | select(.propertyNames) | (.propertyNames.enum | sort) == ($envelope + (.properties | keys) | unique)] | all"
    );
    assert_eq!(ask(&names), "true");
    let members =
        "[.definitions[] | select(.then) | (.then.required | sort) == (.properties | del(.result) | keys)] | all";
    assert_eq!(jq(&schema, members), "true");
    assert!(jq(&schema, ".description").contains("`schema_version` goes up by one"));
}

/// The target is 5 ms (DESIGN section 12), on a machine that does nothing else; here others build.
#[apply(test)]
fn it_answers_quickly() {
    need_disks();
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let times = (0..50).map(|_| {
        let start = Instant::now();
        root.agent(&["status"]).expect(0, &[]);
        start.elapsed()
    });
    let best = times.min().unwrap();
    eprintln!("status: {best:?}");
    assert!(best < Duration::from_millis(50), "{best:?}");
}

/// What docs/commands.md shows is what the agent prints.
#[apply(test)]
fn the_documents_show_real_screens() {
    Trial::ready();
    let page = masked(&fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md")).unwrap());
    let shown = |trial: &Trial| {
        let screen = masked(&trial.root.agent(&["status"]).expect(0, &[]).stdout);
        assert!(page.contains(&screen), "docs/commands.md does not show this:\n{screen}");
    };
    let mut trial = Trial::booted();
    shown(&trial);
    trial.root.install_check("10-ok", "exit 0");
    trial.root.agent(&["healthcheck"]).expect(0, &["confirmed"]);
    shown(&trial);
    trial = Trial::booted();
    trial.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    trial.boot(A);
    trial.root.install_check("10-ok", "exit 0");
    trial.root.agent(&["healthcheck"]).expect(0, &["rolled back"]);
    shown(&trial);
}

/// What takes the time of `status` is looking at devices: each thing is looked up once, and only what is asked for is mounted.
#[apply(test)]
fn it_looks_at_each_thing_once() {
    need_disks();
    need("strace");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let log = disk.dir().join("strace.log");
    let mut strace = command("strace");
    strace.args(["-f", "-e", "trace=open,openat,mount,fsmount,readlink", "-o"]).arg(&log);
    let out = root.command_under(strace, &["status"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let log = fs::read_to_string(&log).unwrap();
    let count = |word: &str| log.lines().filter(|line| line.contains(word)).count();
    let whole = format!("dev/{}\"", disk.device().rsplit('/').next().unwrap());
    // The list of partitions; the table of the disk; its two slots, and nothing else.
    assert_eq!((count("/class/block\", "), count(&whole), count("fsmount(")), (1, 1, 2), "{log}");
    // What the kernel says of a partition is one file and one link.
    let of_b = format!("class/block/{}", disk.name(B));
    assert!(count(&of_b) <= 2, "{log}");
}

//! Who is to blame for a rollback, and why: the cause is kept, and nothing is held against a release that is not known.
//!
//! GRUB's own part is played by a real grub-editenv on both copies of the environment block.

use crate::support::command;
use crate::support::disk::{A, B, wait_for};
use crate::support::need;
use crate::support::release::{Medium, Release};
use crate::support::root::Run;
use crate::support::trial::{Trial, rot_list, spoil};
use crate::support::web::{Answer, Web};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);

/// Installs a check of the site that fails as long as the file is there. Returns: the file.
fn site_check(trial: &Trial) -> PathBuf {
    let down = trial.disk.dir().join("down");
    let script = format!("if [ -e '{}' ]; then echo 'no IPv4 address'; exit 1; fi", down.display());
    trial.root.install_check("10-net", &script);
    down
}

/// Three boots on trial in which the check fails, and the fourth, in which GRUB has gone back.
fn three_boots_and_back(trial: &mut Trial) {
    for left in ["2", "1", "0"] {
        trial.root.set_boot_variables(&[&format!("boot_counter={left}")]);
        trial.boot(B);
        trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["10-net: no IPv4 address"]);
    }
    trial.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    trial.boot(A);
}

/// A machine that has come back from a release whose check failed. Returns: it, and the file that makes the check fail.
fn came_back() -> (Trial, PathBuf) {
    let mut trial = Trial::activated();
    let down = site_check(&trial);
    fs::write(&down, "").unwrap();
    three_boots_and_back(&mut trial);
    (trial, down)
}

const CAUSE: &str = "(last: 10-net: no IPv4 address, exit status 1)";

#[apply(test)]
fn the_cause_survives_the_consequence() {
    Trial::ready();
    let (trial, down) = came_back();
    fs::remove_file(&down).unwrap();
    let status = trial.root.agent(&["status", "--json"]).expect(0, &[]);
    assert!(status.jq(".remarks | join(\" \")").contains(CAUSE), "{}", status.stdout);
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["healthy"]);
    trial.assert_rolled_back(CAUSE);
    let status = trial.root.agent(&["status", "--json"]).expect(0, &[]);
    for field in [".update.last_error", ".history[-1].error"] {
        assert!(status.jq(field).contains(CAUSE), "{field}: {}", status.stdout);
    }
    assert_eq!(status.jq(".update.failed_check"), "10-net");
    let words: Vec<_> = CAUSE.split(' ').collect();
    trial.root.agent(&["status"]).expect(0, &words);
    trial.root.agent(&["metrics", "--once"]).expect(0, &["kubesolo_update_failed_check{check=\"10-net\"} 1"]);
    // Until the next attempt.
    let next = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    trial.root.agent(&["apply", "--layout", next.path()]).expect(0, &["3.0.0 is staged"]);
    let status = trial.root.agent(&["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq(".update.failed_check"), "null");
}

#[apply(test)]
fn a_release_is_not_blamed_for_what_the_old_slot_suffers_from_as_well() {
    Trial::ready();
    let mut trial = Trial::activated();
    let (down, path) = (site_check(&trial), trial.medium.path().to_string());
    for round in 1..=3 {
        fs::write(&down, "").unwrap();
        three_boots_and_back(&mut trial);
        // Nothing is known yet, and then, that slot A is not healthy either.
        let words = if round == 3 { "tried 3 times" } else { "when `healthcheck` has checked" };
        trial.root.agent(&["check", "--layout", &path]).expect(4, &["failed here before", words]);
        trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["10-net"]);
        let next = if round == 3 { "not tried again by itself" } else { "then `apply` tries that version again" };
        trial.root.agent(&["status"]).expect(0, &next.split(' ').collect::<Vec<_>>());
        let words = if round == 3 { "tried 3 times" } else { "was not healthy either" };
        trial.root.agent(&["apply", "--layout", &path]).expect(4, &[words, "--retry-failed"]);
        fs::remove_file(&down).unwrap();
        trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["healthy"]);
        let retried = trial.root.agent(&["apply", "--layout", &path, "--activate"]);
        match round {
            3 => retried.expect(4, &["tried 3 times", "--retry-failed"]),
            _ => retried.expect(0, &["slot B is active"]),
        };
    }
    // The switch stays up: it was good all the time.
    trial.root.agent(&["apply", "--layout", &path, "--activate", "--retry-failed"]).expect(0, &["slot B is active"]);
    trial.root.set_boot_variables(&["boot_counter=2"]);
    trial.boot(B);
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["the trial boot is confirmed"]);
    let failed = fs::read_to_string(trial.root.path("var/lib/kubesolo/update/failed.json")).unwrap();
    assert_eq!(failed.trim(), r#"{"failed":[]}"#);
}

#[apply(test)]
fn a_release_is_blamed_where_the_old_slot_is_healthy() {
    Trial::ready();
    let (mut trial, down) = came_back();
    fs::remove_file(&down).unwrap();
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["healthy"]);
    // Whatever happens to slot A later.
    fs::write(&down, "").unwrap();
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["10-net"]);
    trial.boot(A);
    trial.assert_remembered();
}

/// What the file with what failed here says of the only artifact in it; nothing where there is not a regular file.
fn failed(trial: &Trial, field: &str) -> Option<String> {
    let file = fs::read_to_string(trial.root.path("var/lib/kubesolo/update/failed.json")).ok()?;
    Some(crate::support::root::jq(&file, &format!(".failed[] | .{field}")))
}

/// It was taken again while nothing was known; then the slot that runs proved healthy.
#[apply(test)]
fn what_is_to_blame_is_not_activated_though_it_is_staged() {
    Trial::ready();
    let mut trial = Trial::activated();
    let (down, path) = (site_check(&trial), trial.medium.path().to_string());
    fs::write(&down, "").unwrap();
    three_boots_and_back(&mut trial);
    trial.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
    // The power goes before the first check; in the next boot cron is faster than the health check.
    trial.boot(A);
    trial.root.agent(&["apply", "--layout", &path]).expect(0, &["is staged"]);
    fs::remove_file(&down).unwrap();
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["healthy"]);
    let blocks = trial.root.blocks();
    trial.root.agent(&["activate"]).expect(4, &["it failed here before", "`apply --retry-failed` takes it"]);
    trial.root.agent(&["check", "--layout", &path]).expect(4, &["failed here before"]);
    trial.root.agent(&["status"]).expect(0, &["apply --retry-failed"]);
    assert!(trial.root.blocks() == blocks && trial.root.state_field("phase") == "staged");
    // A person insists, though nothing is left to download.
    trial.root.agent(&["apply", "--layout", &path, "--retry-failed"]).expect(3, &["staged in slot B already"]);
    trial.root.agent(&["activate"]).expect(0, &["slot B is active"]);
}

#[apply(test)]
fn what_rots_on_the_disk_is_no_fault_of_the_release() {
    Trial::ready();
    let mut trial = Trial::activated();
    spoil(&mut trial.disk, B, "kubesolo-os.gz");
    trial.boot_in_place_of_b();
    trial.root.agent(&["status"]).expect(0, &["could not be loaded,", "slot.crc32"]);
    let run = trial.root.agent(&["healthcheck", "--timeout", "0"]);
    assert!(run.stderr.contains("not any more what was staged") && run.stderr.contains("kubesolo-os.gz"), "{run:?}");
    trial.assert_boot("A", "1", "3", "");
    let state = ["phase", "last_error_kind", "rollbacks_total"].map(|field| trial.root.state_field(field));
    assert_eq!((state, failed(&trial, "reason")), (["failed", "slot", "0"].map(str::to_string), None));
    let path = trial.medium.path();
    trial.root.agent(&["apply", "--layout", path, "--activate"]).expect(0, &["is staged", "slot B is active"]);
}

/// The list alone: kernel and initramfs are good, and GRUB took the other slot.
#[apply(test)]
fn a_list_that_rots_costs_a_boot_and_nothing_else() {
    Trial::ready();
    for counter in ["3", "2"] {
        let mut trial = Trial::activated();
        let good = trial.disk.text(B, "slot.crc32");
        rot_list(&mut trial.disk, B);
        trial.root.set_boot_variables(&[&format!("boot_counter={counter}")]);
        trial.boot_in_place_of_b();
        trial.root.agent(&["activate"]).expect(3, &["the list is written anew", "the next boot tries it"]);
        let again = trial.root.agent(&["activate"]).expect(3, &["slot B is active already"]);
        assert_eq!(again.stderr, "");
        trial.assert_boot("B", "0", counter, "");
        assert_eq!((trial.disk.text(B, "slot.crc32"), failed(&trial, "reason")), (good, None));
        assert_eq!(trial.root.state_field("phase"), "activated");
        trial.root.set_boot_variables(&["boot_counter=1"]);
        trial.boot(B);
        trial.root.install_check("10-net", "true");
        trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["the trial boot is confirmed"]);
    }
}

/// The same of the way back: the machine would be left on a release that was never healthy.
#[apply(test)]
fn a_list_that_rots_does_not_cut_off_the_way_back() {
    Trial::ready();
    // By hand.
    let mut trial = Trial::booted();
    let good = trial.disk.text(A, "slot.crc32");
    rot_list(&mut trial.disk, A);
    trial.root.agent(&["verify", "--slot", "A"]).expect(7, &["INVALID", "slot.crc32"]);
    trial.root.agent(&["rollback"]).expect(0, &["the list is written anew", "is active again"]);
    assert_eq!(trial.disk.text(A, "slot.crc32"), good);
    // By GRUB: slot A is active, and passed over for its list. A restart brings it, once it is mended.
    let mut trial = Trial::activated();
    let down = site_check(&trial);
    fs::write(&down, "").unwrap();
    rot_list(&mut trial.disk, A);
    trial.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    for _ in 0..2 {
        trial.root.boot_with('B', Some(&trial.disk.guid(B)), "kubesolo.skipped=A");
        trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["10-net"]);
        assert_eq!(trial.root.boot_variables()["active_slot"], "A");
    }
    assert_eq!(trial.disk.text(A, "slot.crc32"), good);
    trial.boot(A);
    fs::remove_file(&down).unwrap();
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["healthy"]);
    trial.assert_boot("A", "1", "0", "");
    // A GRUB that cannot count any more goes for the way back by itself.
    let mut trial = Trial::booted();
    trial.root.install_check("10-net", "exit 1");
    rot_list(&mut trial.disk, A);
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["10-net"]);
    trial.root.boot_with('B', Some(&trial.disk.guid(B)), "kubesolo.skipped=A");
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["the list is written anew"]);
    assert_eq!((trial.root.boot_variables()["boot_success"].as_str(), trial.disk.text(A, "slot.crc32")), ("0", good));
}

/// The list is written into the only slot that the machine can go back to.
#[apply(test)]
fn a_power_cut_while_the_list_is_written_anew_costs_nothing() {
    Trial::ready();
    need("strace");
    let mut kills = 0;
    for when in 1.. {
        let mut trial = Trial::booted();
        let good = trial.disk.text(A, "slot.crc32");
        let files = |trial: &Trial| ["vmlinuz", "kubesolo-os.gz", "slot.json"].map(|name| trial.disk.file(A, name));
        let before = files(&trial);
        rot_list(&mut trial.disk, A);
        let mut strace = command("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", "trace=fsync,rename,renameat,renameat2"]);
        strace.args(["-e", &format!("inject=fsync,rename,renameat,renameat2:signal=KILL:when={when}")]);
        let run = trial.root.command_under(strace, &["rollback"]).output().unwrap();
        trial.disk.wait_unmounted(A);
        assert!(files(&trial) == before, "{when}");
        trial.root.agent(&["healthcheck", "--timeout", "0"]);
        let again = trial.root.agent(&["rollback"]);
        assert!(matches!(again.code, 0 | 3), "{when}: {again:?}");
        assert_eq!((trial.disk.text(A, "slot.crc32"), trial.disk.needs_recovery(A)), (good, false), "{when}");
        assert_eq!(trial.root.boot_variables()["active_slot"], "A", "{when}");
        if run.status.success() {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 5, "{kills}");
}

#[apply(test)]
fn what_was_called_off_stays_so_whatever_fails_afterwards() {
    Trial::ready();
    let trial = Trial::staged();
    trial.root.agent(&["rollback"]).expect(0, &["will not be tried"]);
    let document = Release::new("3.0.0").latest_json();
    let server = Web::start(move |path| match path {
        "/latest.json" => Answer::ok(document.clone()),
        _ => Answer::status(404),
    });
    let run = trial.root.agent(&["apply", "--server", &server.url("")]);
    assert!(run.code == 6 && trial.root.state_field("phase") == "failed", "{run:?}");
    let blocks = trial.root.blocks();
    trial.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
    assert!(trial.root.blocks() == blocks);
    // Until it is asked for.
    trial.root.agent(&["apply", "--layout", trial.medium.path(), "--activate"]).expect(0, &["slot B is active"]);
}

/// Also of a trial that a person began, and of one of which the state was lost.
#[apply(test)]
fn the_cause_is_kept_of_every_trial() {
    Trial::ready();
    let mut trial = Trial::booted();
    let down = site_check(&trial);
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["confirmed"]);
    trial.root.agent(&["rollback"]).expect(0, &["slot A is active, on trial"]);
    fs::write(&down, "").unwrap();
    for left in ["2", "1", "0"] {
        trial.root.set_boot_variables(&[&format!("boot_counter={left}")]);
        trial.boot(A);
        trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["10-net"]);
    }
    trial.root.set_boot_variables(&["active_slot=B", "boot_success=1", "rollback_from=A"]);
    trial.boot(B);
    trial.root.agent(&["activate"]).expect(3, &["after a rollback to it", CAUSE]);
    let error = trial.root.state_field("last_error");
    assert!(error.contains("slot A was not confirmed in three boots") && error.ends_with(CAUSE), "{error}");
    assert_eq!(trial.root.state_field("failed_check"), "10-net");

    let mut trial = Trial::activated();
    let down = site_check(&trial);
    fs::write(&down, "").unwrap();
    fs::remove_file(trial.root.path("var/lib/kubesolo/update/state.json")).unwrap();
    three_boots_and_back(&mut trial);
    trial.root.agent(&["activate"]).expect(3, &["three boots", CAUSE]);
    assert_eq!(trial.root.state_field("failed_check"), "10-net");
}

/// One trial is one try, however often the record of it is cut off.
#[apply(test)]
fn power_cuts_are_no_tries() {
    Trial::ready();
    need("strace");
    let (mut trial, _) = came_back();
    for _ in 0..4 {
        let mut strace = command("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2"]);
        strace.args(["-e", "inject=rename,renameat,renameat2:signal=KILL:when=2"]);
        trial.root.command_under(strace, &["activate"]).output().unwrap();
        assert_eq!(failed(&trial, "tries").as_deref(), Some("1"));
        assert_eq!(trial.root.state_field("phase"), "failed", "it was not cut off between the two");
        trial.boot(A);
    }
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["10-net"]);
    assert_eq!(failed(&trial, "tries").as_deref(), Some("1"));
}

/// The power went in the first boot on trial, and then a person started slot A.
#[apply(test)]
fn what_was_left_before_any_check_is_not_blamed() {
    Trial::ready();
    let mut trial = Trial::booted();
    trial.root.install_check("10-net", "true");
    trial.boot(A);
    trial
        .root
        .agent(&["healthcheck", "--timeout", "0"])
        .expect(0, &["booted 1 of three times, no check of it has ended"]);
    trial.assert_boot("A", "1", "2", "");
    assert_eq!((trial.root.state_field("phase").as_str(), failed(&trial, "reason")), ("failed", None));
    trial.root.agent(&["check", "--layout", trial.medium.path()]).expect(0, &["an update is available"]);
}

#[apply(test)]
fn what_the_checks_say_counts_whoever_is_at_work_meanwhile() {
    Trial::ready();
    need("flock");
    let (trial, _) = came_back();
    trial.root.agent(&["activate"]).expect(3, &[]);
    let (begun, go) = (trial.disk.dir().join("begun"), trial.disk.dir().join("go"));
    let script = format!("touch '{}'; until [ -e '{}' ]; do :; done", begun.display(), go.display());
    trial.root.install_check("10-net", &script);
    let mut check = trial.root.command(&["healthcheck", "--timeout", "0"]);
    let check = std::thread::spawn(move || Run::from(check.output().unwrap()));
    assert!(wait_for(WAIT, || begun.exists()));
    // Another run, which has the lock as long as its stdin is open.
    let mut other = command("flock");
    other.arg(trial.root.path("var/lib/kubesolo/update/lock")).args(["sh", "-c", "echo held; cat"]);
    let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 5];
    other.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    fs::write(&go, "").unwrap();
    check.join().unwrap().expect(0, &["healthy", "what caused the last rollback"]);
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success() && said == *b"held\n");
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["healthy"]);
    assert_eq!(failed(&trial, "undecided").as_deref(), Some("null"));
}

/// Somebody starts the slot that failed by hand, and there it is healthy: that says nothing of the other slot.
#[apply(test)]
fn what_failed_is_no_control_of_itself() {
    Trial::ready();
    let (mut trial, down) = came_back();
    trial.root.agent(&["activate"]).expect(3, &[]);
    fs::remove_file(&down).unwrap();
    trial.boot(B);
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["healthy; this boot is not on trial"]);
    assert_eq!(failed(&trial, "undecided").as_deref(), Some("unchecked"));
    trial.boot(A);
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(0, &["healthy"]);
    assert_eq!(failed(&trial, "undecided").as_deref(), Some("null"));
}

/// Going back from a trial is a rescue; a second try of what may have failed here is none.
#[apply(test)]
fn what_cannot_be_remembered_is_not_tried() {
    Trial::ready();
    need("strace");
    let (trial, _) = came_back();
    trial.root.agent(&["activate"]).expect(3, &[]);
    let blocks = trial.root.blocks();
    let mut strace = command("strace");
    strace.args(["-f", "-o", "/dev/null", "-P"]).arg(trial.root.path("var/lib/kubesolo/update/failed.json"));
    strace.args(["-e", "inject=read:error=EIO"]);
    let run = Run::from(trial.root.command_under(strace, &["rollback"]).output().unwrap());
    run.expect(7, &["failed.json", "os error 5"]);
    assert!(trial.root.blocks() == blocks);
}

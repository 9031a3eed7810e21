//! Every way back: by hand before and during a trial, by GRUB itself, and from a confirmed system.
//!
//! GRUB's own part is played by a real grub-editenv on both copies of the environment block.

use crate::support::disk::{A, B, BORN, Disk, need_disks};
use crate::support::release::{Medium, Release};
use crate::support::root::{Root, Run};
use crate::support::signing::KeyPair;
use crate::support::trial::{Trial, spoil};
use crate::support::{command, need, run};
use std::fs;

#[apply(test)]
fn by_hand_before_the_first_boot() {
    Trial::ready();
    let trial = Trial::activated();
    let before = [trial.disk.bytes(A), trial.disk.bytes(B)];
    let run = trial.root.agent(&["rollback", "--json"]).expect(0, &[]);
    assert_eq!(run.jq("[.result, .slot, .on_trial]"), r#"["called_off","A",false]"#);
    trial.assert_boot("A", "1", "3", "");
    assert!(before == [trial.disk.bytes(A), trial.disk.bytes(B)], "a slot was written");
    assert_called_off(&trial);
}

/// Nothing is known against what never ran, and nobody tries it by mistake.
#[track_caller]
fn assert_called_off(trial: &Trial) {
    let state = ["phase", "last_error", "rollbacks_total"].map(|field| trial.root.state_field(field));
    assert_eq!(state, ["idle", "null", "0"]);
    assert!(!trial.root.path("var/lib/kubesolo/update/failed.json").exists(), "it was blamed");
    let blocks = trial.root.blocks();
    trial.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
    let run = trial.root.agent(&["rollback", "--json"]).expect(3, &[]);
    assert_eq!(run.jq("[.result, .slot]"), r#"["nothing_to_roll_back_to","A"]"#);
    assert!(trial.root.blocks() == blocks);
    let metrics = trial.root.agent(&["metrics", "--once"]).expect(0, &["kubesolo_update_rollbacks_total 0"]).stdout;
    assert!(metrics.contains("kubesolo_update_phase{phase=\"rolled_back\"} 0"), "{metrics}");
    // Asked for again, it comes again, without a byte of it being fetched: what lies in the slot is right.
    let path = trial.medium.path();
    trial.root.agent(&["check", "--layout", path]).expect(0, &["an update is available"]);
    trial.root.agent(&["apply", "--layout", path, "--activate"]).expect(0, &["slot B is active"]);
}

#[apply(test)]
fn by_hand_from_an_unconfirmed_trial() {
    Trial::ready();
    let mut trial = Trial::booted();
    let status = trial.root.agent(&["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq("[.running_slot, .running_version, .boot.boot_counter]"), r#"["B","2.0.0",2]"#);
    assert!(status.jq(".next").contains("on trial"), "{}", status.stdout);
    // The other slot is the only way back: nothing may write to it.
    let before = [trial.disk.bytes(A), trial.disk.bytes(B)];
    let next = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    trial.root.agent(&["apply", "--layout", next.path()]).expect(4, &["slot B runs on trial", "fallback"]);
    assert_eq!(trial.root.state_field("phase"), "activated");
    // Not counted again, and no canary needed: that slot was confirmed.
    trial.root.set_boot_variables(&["boot_canary=0"]);
    trial.root.agent(&["rollback"]).expect(0, &["slot A, which was confirmed before, is active again"]);
    trial.assert_boot("A", "1", "2", "");
    trial.assert_rolled_back("manual rollback");
    assert!(before == [trial.disk.bytes(A), trial.disk.bytes(B)], "a slot was written");
    trial.boot(A);
    trial.root.set_boot_variables(&["boot_canary=1"]);
    trial.assert_remembered();
}

#[apply(test)]
fn grub_gave_up_after_three_boots() {
    Trial::ready();
    for command in ["apply", "activate"] {
        let mut trial = Trial::booted();
        // What DESIGN section 4 has GRUB write when the counter is 0.
        trial.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
        trial.boot(A);
        // Looking records nothing.
        let (blocks, state) = (trial.root.blocks(), trial.root.state());
        trial.root.agent(&["status"]).expect(0, &["rolled back, not recorded yet", "three boots"]);
        trial.root.agent(&["check", "--layout", trial.medium.path()]).expect(4, &["failed here before"]);
        assert!(trial.root.blocks() == blocks && trial.root.state() == state, "looking has written");
        let run = match command {
            "apply" => trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(4, &["failed here before"]),
            _ => trial.root.agent(&["activate"]).expect(3, &["nothing is staged"]),
        };
        assert!(run.stderr.contains("slot B was not confirmed in three boots"), "{}", run.stderr);
        trial.assert_boot("A", "1", "0", "");
        trial.assert_rolled_back("three boots");
        assert_eq!(trial.root.state_field("rollbacks_total"), "1");
        trial.assert_remembered();
    }
}

#[apply(test)]
fn grub_could_not_load_the_slot_on_trial() {
    Trial::ready();
    let mut trial = Trial::activated();
    trial.root.set_boot_variables(&["boot_counter=2"]);
    trial.boot_in_place_of_b();
    trial.root.agent(&["activate"]).expect(3, &["nothing is staged", "could not be loaded"]);
    trial.assert_boot("A", "1", "2", "");
    trial.assert_rolled_back("could not be loaded");
    trial.assert_remembered();
}

#[apply(test)]
fn what_grub_never_tried_is_not_blamed_and_grub_has_to_show_again_that_it_counts() {
    Trial::ready();
    let mut trial = Trial::activated();
    // Another boot loader, or a person who chose slot A: GRUB would have counted, or said that it skipped slot B.
    trial.boot(A);
    trial.root.agent(&["status"]).expect(0, &["slot B was never tried", "another boot loader"]);
    let path = trial.medium.path().to_string();
    let path = path.as_str();
    trial.root.agent(&["check", "--layout", path]).expect(4, &["waits for its first boot"]);
    let run = trial.root.agent(&["healthcheck", "--timeout", "0"]);
    assert!(run.stderr.contains("slot B was never tried: its boot was not counted"), "{run:?}");
    trial.assert_boot("A", "1", "3", "");
    assert_eq!(trial.root.boot_variables()["boot_canary"], "0");
    let state = ["phase", "last_error_kind", "rollbacks_total"].map(|field| trial.root.state_field(field));
    assert_eq!(state, ["failed", "boot", "0"]);
    assert!(!trial.root.path("var/lib/kubesolo/update/failed.json").exists(), "it was blamed");
    // Not tried again in the same way for ever.
    trial.root.agent(&["apply", "--layout", path, "--activate"]).expect(7, &["boot_canary is 0", "restart once"]);
    assert_eq!(trial.root.state_field("phase"), "staged");
    // A GRUB that counts shows it at the next boot.
    trial.root.set_boot_variables(&["boot_canary=1"]);
    trial.boot(A);
    trial.root.agent(&["apply", "--layout", path, "--activate"]).expect(0, &["slot B is active"]);
}

#[apply(test)]
fn from_a_confirmed_system_the_old_one_is_on_trial() {
    Trial::ready();
    let mut trial = Trial::booted();
    // What healthcheck, which has its own issue, writes.
    trial.root.set_boot_variables(&["boot_success=1"]);
    // Another counted boot must not be needed for the state to follow.
    let next = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    let running = trial.disk.bytes(B);
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(3, &["running already"]);
    assert_eq!(
        (trial.root.state_field("phase"), trial.root.state_field("last_error")),
        ("success".into(), "null".into())
    );
    // No canary, no trial.
    trial.root.set_boot_variables(&["boot_canary=0"]);
    let blocks = trial.root.blocks();
    trial.root.agent(&["rollback"]).expect(7, &["boot_canary is 0"]);
    assert!(trial.root.blocks() == blocks);
    trial.root.agent(&["rollback", "--allow-unproven-bootloader"]).expect(0, &["slot A is active, on trial"]);
    trial.assert_boot("A", "0", "3", "");
    trial.assert_rolled_back("manual rollback");
    // The old one fails too: GRUB comes back to B, and what ran all the time is not blamed twice.
    trial.root.set_boot_variables(&["active_slot=B", "boot_success=1", "boot_counter=0", "rollback_from=A"]);
    trial.boot(B);
    trial.root.agent(&["apply", "--layout", next.path()]).expect(0, &["3.0.0 is staged in slot A"]);
    trial.assert_boot("B", "1", "0", "");
    assert_eq!(trial.disk.text(A, "version").as_deref(), Some("3.0.0\n"));
    assert!(trial.disk.bytes(B) == running, "the running slot was written");
}

/// What the disk refuses once is done all the same, and then the command has not failed. A reader adds a line: the call, the
/// file, and the command; the state that is left.
#[apply(test)]
fn what_is_done_is_not_called_failed() {
    Trial::ready();
    need("strace");
    for (call, file, verb, phase) in [
        ("fsync", "grubenv", "activate", "activated"),
        ("write,pwrite64", "grubenv", "activate", "activated"),
        ("fsync", "grubenv.bak", "activate", "activated"),
        ("fsync", "grubenv", "rollback", "rolled_back"),
        ("write,pwrite64", "grubenv", "rollback", "rolled_back"),
    ] {
        let trial = if verb == "activate" { Trial::staged() } else { Trial::booted() };
        let mut strace = command("strace");
        let trace = trial.disk.dir().join("trace");
        strace.args(["-f", "-o"]).arg(&trace).arg("-P").arg(trial.root.block(file));
        strace.args(["-e", &format!("inject={call}:error=EIO:when=1")]);
        let run = Run::from(trial.root.command_under(strace, &[verb]).output().unwrap());
        assert!(fs::read_to_string(&trace).unwrap().contains("(INJECTED)"), "nothing failed: {run:?}");
        let (active, success) = if verb == "activate" { ("B", "0") } else { ("A", "1") };
        assert_eq!(run.code, 0, "{call} {file} {verb}: {run:?}");
        let main = crate::support::run(command("grub-editenv").arg(trial.root.block("grubenv")).arg("list"));
        assert!(main.contains(&format!("active_slot={active}\nboot_success={success}")), "{main}");
        assert_eq!(trial.root.state_field("phase"), phase, "{call} {file} {verb}");
    }
}

#[apply(test)]
fn what_may_be_on_the_disk_all_the_same_is_said() {
    Trial::ready();
    need("strace");
    let mut trial = Trial::staged();
    let mut strace = command("strace");
    strace
        .args(["-f", "-o", "/dev/null", "-P"])
        .arg(trial.root.block("grubenv"))
        .args(["-e", "inject=fsync:error=EIO"]);
    let run = Run::from(trial.root.command_under(strace, &["activate"]).output().unwrap());
    run.expect(7, &["os error 5", "the next boot may act on it all the same"]);
    let main = crate::support::run(command("grub-editenv").arg(trial.root.block("grubenv")).arg("list"));
    assert!(main.contains("active_slot=B\nboot_success=0") && trial.root.state_field("phase") == "staged", "{main}");
    // And if it does, the trial goes its way.
    trial.root.set_boot_variables(&["active_slot=B", "boot_success=0", "boot_counter=2"]);
    trial.boot(B);
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["no health checks are installed"]);
    assert_eq!(trial.root.state_field("phase"), "failed");
}

#[apply(test)]
fn a_slot_that_rotted_is_not_activated() {
    Trial::ready();
    for name in ["vmlinuz", "kubesolo-os.gz"] {
        let mut trial = Trial::staged();
        spoil(&mut trial.disk, B, name);
        let (blocks, state) = (trial.root.blocks(), trial.root.state());
        trial.root.agent(&["activate"]).expect(7, &[name, "recorded is sha256:"]);
        assert!(trial.root.blocks() == blocks && trial.root.state() == state, "a refused activate changed something");
    }
}

#[apply(test)]
fn a_slot_that_rotted_is_not_rolled_back_to() {
    Trial::ready();
    // From a confirmed system, and from a trial: there a slot that does not boot is no way back either.
    for confirmed in ["1", "0"] {
        let mut trial = Trial::booted();
        trial.root.set_boot_variables(&[&format!("boot_success={confirmed}")]);
        spoil(&mut trial.disk, A, "vmlinuz");
        let blocks = trial.root.blocks();
        trial.root.agent(&["rollback"]).expect(7, &["read slot A", "vmlinuz", "recorded is sha256:"]);
        assert!(trial.root.blocks() == blocks);
    }
}

#[apply(test)]
fn a_lost_state_file_does_not_lose_the_staged_slot() {
    Trial::ready();
    let trial = Trial::staged();
    fs::remove_file(trial.root.path("var/lib/kubesolo/update/state.json")).unwrap();
    trial.root.agent(&["activate"]).expect(0, &["slot B is active"]);
    trial.assert_boot("B", "0", "3", "");
    assert_eq!(trial.root.state_field("phase"), "activated");
    assert_eq!(trial.root.state_field("manifest_digest"), trial.medium.digest);
}

#[apply(test)]
fn nothing_staged_is_nothing_to_activate() {
    need_disks();
    // Born with the same version in both slots.
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    root.set_boot_variables(&["boot_canary=1"]);
    let blocks = root.blocks();
    root.agent(&["activate"]).expect(3, &["nothing is staged"]);
    assert!(root.blocks() == blocks);
    let listed = run(command("grub-editenv").arg(root.block("grubenv")).arg("list"));
    assert!(listed.contains("active_slot=A\nboot_success=1"), "{listed}");
    root.agent(&["status"]).expect(0, &[BORN, "idle"]);
}

/// What a slot must never become without a passed health check.
#[track_caller]
fn assert_not_confirmed(trial: &Trial, slot: &str) {
    let v = trial.root.boot_variables();
    assert!(v["active_slot"] != slot || v["boot_success"] != "1", "slot {slot} was confirmed by nobody: {v:?}");
}

#[apply(test)]
fn a_rollback_that_waits_for_its_restart_is_not_undone() {
    Trial::ready();
    // Cut off after the boot variables or not: the trial is over, slot B still runs, slot A is the only confirmed one.
    for cut in [false, true] {
        let trial = Trial::booted();
        let state = trial.root.state().unwrap();
        trial.root.agent(&["rollback"]).expect(0, &["slot A, which was confirmed before"]);
        if cut {
            fs::write(trial.root.path("var/lib/kubesolo/update/state.json"), state).unwrap();
        }
        let (blocks, slot) = (trial.root.blocks(), trial.disk.bytes(A));
        let next = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
        trial.root.agent(&["apply", "--layout", next.path()]).expect(4, &["slot A is active again and boots next"]);
        trial.root.agent(&["activate"]).expect(3, &["slot A is active already"]);
        trial.root.agent(&["rollback"]).expect(3, &["slot A is active already"]);
        trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &[]);
        assert!(trial.root.blocks() == blocks && trial.disk.bytes(A) == slot, "cut: {cut}");
        trial.assert_rolled_back(if cut { "made active again" } else { "manual rollback" });
    }
}

#[apply(test)]
fn a_slot_booted_by_hand_is_not_made_active() {
    Trial::ready();
    // Staged, never activated, and chosen in GRUB's menu.
    let mut trial = Trial::staged();
    trial.boot(B);
    let (blocks, slot) = (trial.root.blocks(), trial.disk.bytes(A));
    let next = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    trial.root.agent(&["apply", "--layout", next.path()]).expect(4, &["slot A is active again"]);
    trial.root.agent(&["activate"]).expect(3, &[]);
    assert!(trial.root.blocks() == blocks && trial.disk.bytes(A) == slot);
    assert_eq!(trial.root.state_field("phase"), "staged");
    // Only if the active slot is damaged does the one that runs take its place: on trial.
    spoil(&mut trial.disk, A, "vmlinuz");
    let run = trial.root.agent(&["apply", "--layout", next.path()]).expect(4, &["slot B runs on trial"]);
    assert!(run.stderr.contains("which runs in its place, is made active, on trial"), "{}", run.stderr);
    assert_not_confirmed(&trial, "B");
}

#[apply(test)]
fn what_is_staged_is_not_tried_by_a_rollback() {
    Trial::ready();
    let trial = Trial::staged();
    let blocks = trial.root.blocks();
    trial.root.agent(&["rollback"]).expect(0, &["will not be tried", "slot A stays active"]);
    assert!(trial.root.blocks() == blocks);
    assert_called_off(&trial);
}

#[apply(test)]
fn a_cut_while_a_trial_is_called_off_forgets_it_as_well() {
    Trial::ready();
    let trial = Trial::activated();
    let state = trial.root.state().unwrap();
    trial.root.agent(&["rollback"]).expect(0, &["is called off"]);
    fs::write(trial.root.path("var/lib/kubesolo/update/state.json"), state).unwrap();
    trial.root.agent(&["status"]).expect(0, &["called off before its first boot"]);
    trial.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
    assert_called_off(&trial);
}

#[apply(test)]
fn a_policy_that_was_tightened_stops_what_is_staged() {
    Trial::ready();
    let trial = Trial::staged();
    let blocks = trial.root.blocks();
    let dir = tempfile::tempdir().unwrap();
    let keys = trial.root.path("etc/kubesolo/update-keys.d");
    let key = KeyPair::p256(dir.path(), "publisher");
    fs::create_dir(&keys).unwrap();
    for (config, key, code, words) in [
        ("signature = required\n", None, 5, "signatures are required"),
        ("signature = off\n", Some(key.pem()), 5, "no signature of it was ever verified"),
        ("signature = off\n", Some(Vec::new()), 2, "a.pub"),
    ] {
        trial.root.configure(config);
        if let Some(key) = key {
            fs::write(keys.join("a.pub"), key).unwrap();
        }
        trial.root.agent(&["activate"]).expect(code, &[words]);
        assert!(trial.root.blocks() == blocks);
    }
}

#[apply(test)]
fn a_staged_slot_that_rotted_is_staged_anew() {
    Trial::ready();
    let mut trial = Trial::staged();
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(3, &["is staged in slot B already"]);
    spoil(&mut trial.disk, B, "vmlinuz");
    trial.root.agent(&["apply", "--layout", trial.medium.path(), "--activate"]).expect(0, &["slot B is active"]);
    trial.assert_boot("B", "0", "3", "");
}

#[apply(test)]
fn nobody_reading_the_answer_changes_nothing() {
    Trial::ready();
    let trial = Trial::staged();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut agent = trial.root.command(&["apply", "--layout", trial.medium.path(), "--activate"]);
    let run = agent.stdout(full).output().unwrap();
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert!(String::from_utf8_lossy(&run.stderr).contains("the answer could not be written"));
    trial.assert_boot("B", "0", "3", "");
}

#[apply(test)]
fn a_confirmed_slot_that_rots_gives_way_and_may_be_installed_again() {
    Trial::ready();
    for superblock in [false, true] {
        let mut trial = Trial::booted();
        trial.root.set_boot_variables(&["boot_success=1"]);
        trial.root.agent(&["activate"]).expect(3, &[]);
        assert_eq!(trial.root.state_field("phase"), "success");
        match superblock {
            false => spoil(&mut trial.disk, B, "vmlinuz"),
            true => {
                trial.disk.detach();
                trial.disk.overwrite(B, 1024, &[0; 1024]);
                trial.disk.attach();
            }
        }
        // GRUB cannot load it, and boots the other one.
        trial.boot(A);
        let run = trial.root.agent(&["rollback"]);
        assert!(run.stderr.contains("is made active, on trial"), "{}", run.stderr);
        assert_not_confirmed(&trial, "A");
        assert_eq!(trial.root.boot_variables()["active_slot"], if run.code == 0 { "B" } else { "A" });
        assert_eq!(trial.root.state_field("phase"), "rolled_back");
        assert!(!trial.root.path("var/lib/kubesolo/update/failed.json").exists(), "the artifact is not to blame");
    }
}

#[apply(test)]
fn an_attempt_that_never_touched_the_slot_does_not_name_what_is_in_it() {
    Trial::ready();
    let trial = Trial::staged();
    // The next version is announced, and its files are gone: slot B still holds 2.0.0.
    let next = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    fs::remove_file(next.blob(&Release::new("3.0.0").ours().initramfs)).unwrap();
    trial.root.agent(&["apply", "--layout", next.path()]).expect(6, &[]);
    assert_eq!(trial.root.state_field("to_version"), "3.0.0");
    trial.root.agent(&["activate"]).expect(0, &["slot B is active"]);
    trial.root.agent(&["rollback"]).expect(0, &["is called off"]);
    assert_eq!(trial.root.state_field("phase"), "idle");
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(0, &["2.0.0 is staged"]);
}

#[apply(test)]
fn a_confirmed_slot_that_grub_can_not_load_gives_way_and_may_be_installed_again() {
    Trial::ready();
    let mut trial = Trial::booted();
    trial.root.set_boot_variables(&["boot_success=1"]);
    trial.root.agent(&["activate"]).expect(3, &[]);
    // Whole to Linux: only GRUB knows.
    trial.boot_in_place_of_b();
    let (blocks, path) = (trial.root.blocks(), trial.medium.path());
    trial.root.agent(&["status"]).expect(0, &["GRUB could not load the active slot", "makes slot A active"]);
    assert!(trial.root.blocks() == blocks);
    trial.root.agent(&["apply", "--layout", path]).expect(4, &["GRUB could not load slot B", "slot A runs on trial"]);
    trial.assert_boot("A", "0", "3", "");
    assert_eq!(trial.root.state_field("phase"), "rolled_back");
    assert!(trial.root.state_field("last_error").contains("GRUB could not load slot B"));
    assert!(!trial.root.path("var/lib/kubesolo/update/failed.json").exists(), "the artifact is not to blame");
    // Back to that slot is no way.
    trial.root.agent(&["rollback"]).expect(7, &["go back to slot B", "GRUB could not load it in this boot"]);
    trial.assert_boot("A", "0", "3", "");
    // Confirmed (what healthcheck writes), the slot is written anew, all in this boot: it waits for its first one.
    trial.root.set_boot_variables(&["boot_success=1"]);
    trial.root.agent(&["apply", "--layout", path, "--activate"]).expect(0, &["slot B is active"]);
    trial.root.agent(&["activate"]).expect(3, &["active already"]);
    trial.assert_boot("B", "0", "3", "");
    assert_eq!(trial.root.state_field("phase"), "activated");
    // It still does not load.
    trial.root.set_boot_variables(&["boot_counter=2"]);
    trial.boot_in_place_of_b();
    trial.root.agent(&["activate"]).expect(3, &["could not be loaded"]);
    trial.assert_boot("A", "1", "2", "");
    trial.assert_rolled_back("could not be loaded");
}

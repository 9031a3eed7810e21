//! A machine whose other slot is lost: which way it went, that there is no way back, and what writes that slot anew.

use crate::support::disk::{A, B};
use crate::support::release::{Medium, Release};
use crate::support::trial::{Trial, spoil, wipe};
use std::fs;

/// Holds headline, condition and advice.
#[track_caller]
fn says(trial: &Trial, condition: &str, headline: &str, next: &str) {
    let status = trial.root.agent(&["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq(".condition"), condition, "{}", status.stdout);
    assert!(status.jq(".next").starts_with(next), "{}", status.stdout);
    let screen = trial.root.agent(&["status"]).expect(0, &[]).stdout;
    let first = screen.split("\n\n").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(first.ends_with(headline), "{first}");
}

const ANEW: &str = "`apply` of another release than the one that runs makes its file system anew";

/// The running slot rotted, and GRUB started what had been called off: nothing was rolled back.
#[apply(test)]
fn grub_passed_over_the_slot_that_was_confirmed() {
    Trial::ready();
    let mut trial = Trial::staged();
    trial.root.agent(&["rollback"]).expect(0, &["slot B will not be tried, unless slot A does not load; slot A stays"]);
    trial.root.install_check("10-ok", "exit 0");
    wipe(&mut trial, A);
    let guid = trial.disk.guid(B);
    trial.root.boot_with('B', Some(&guid), "kubesolo.skipped=A");
    says(&trial, "restart_needed", "slot B: slot A did NOT load; slot B runs in its place", "`healthcheck`: it makes");
    // Recorded, and on trial: what is no way is not named.
    trial.root.agent(&["activate"]).expect(4, &["GRUB could not load slot A", "slot B runs on trial"]);
    let next = "this boot is on trial: `healthcheck` confirms it; there is no way back to slot A";
    says(&trial, "trial", "ON TRIAL, not confirmed yet; there is NO way back", next);
    trial.root.agent(&["rollback"]).expect(7, &["KSOLOA", "(`healthcheck` confirms the slot that runs; then `apply`"]);
    trial.root.agent(&["healthcheck"]).expect(0, &["confirmed"]);
    let headline = "slot B: slot A is DAMAGED, slot B runs in its place; there is NO way back";
    says(&trial, "no_fallback", headline, "`apply` writes the next release into slot A");
    trial.root.agent(&["status"]).expect(0, &["GRUB could not load slot A"]);
    is_written_by_another_release(&trial, "A");
}

/// What runs does not write it, whatever is insisted on; the next release does.
#[track_caller]
fn is_written_by_another_release(trial: &Trial, slot: &str) {
    let offered = trial.medium.path();
    trial.root.agent(&["verify", "--slot", slot]).expect(7, &[ANEW]);
    let why =
        format!("nothing to do (slot {slot} is not valid: there is no way back until another release is offered)");
    for more in [&[][..], &["--allow-downgrade"], &["--retry-failed"]] {
        let args = [&["apply", "--layout", offered][..], more].concat();
        trial.root.agent(&args).expect(3, &["2.0.0 is running already", &why]);
    }
    let silent = trial.root.agent(&["apply", "--layout", offered, "--quiet"]).expect(3, &[]);
    assert_eq!(silent.stdout, "");
    let next = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    trial.root.agent(&["apply", "--layout", next.path()]).expect(0, &[&format!("3.0.0 is staged in slot {slot}")]);
}

/// The same with a person who goes back from the damaged slot before any restart.
#[apply(test)]
fn a_person_left_the_slot_that_is_damaged() {
    Trial::ready();
    let mut trial = Trial::staged();
    trial.root.agent(&["rollback"]).expect(0, &[]);
    trial.root.install_check("10-ok", "exit 0");
    wipe(&mut trial, A);
    trial.root.agent(&["rollback"]).expect(0, &["slot B is active, on trial"]);
    assert_eq!(trial.root.state_field("last_error"), "manual rollback: slot A is not valid");
    trial.root.set_boot_variables(&["boot_counter=2"]);
    trial.boot(B);
    trial.root.agent(&["healthcheck"]).expect(0, &["confirmed"]);
    let headline = "slot A is DAMAGED, slot B runs in its place; there is NO way back";
    says(&trial, "no_fallback", headline, "`apply` writes the next release into slot A");
    is_written_by_another_release(&trial, "A");
}

/// A file of the running slot has rotted, which its record does not show: what was called off is gone back to all the same.
#[apply(test)]
fn a_rotten_file_is_damage_as_well() {
    Trial::ready();
    let mut trial = Trial::activated();
    trial.root.agent(&["rollback"]).expect(0, &["called off"]);
    let blocks = trial.root.blocks();
    trial.root.agent(&["rollback"]).expect(3, &["there is nothing to go back to"]);
    assert!(trial.root.blocks() == blocks);
    spoil(&mut trial.disk, A, "kubesolo-os.gz");
    trial.root.agent(&["rollback"]).expect(0, &["slot B is active, on trial"]);
    trial.assert_boot("B", "0", "3", "");
    assert!(!trial.root.path("var/lib/kubesolo/update/failed.json").exists(), "what rotted is blamed");
}

/// GRUB gave an update up, and its slot was lost then: both are said.
#[apply(test)]
fn what_was_rolled_back_is_lost_as_well() {
    Trial::ready();
    let mut trial = Trial::booted();
    trial.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
    trial.boot(A);
    trial.root.install_check("10-ok", "exit 0");
    trial.root.agent(&["healthcheck"]).expect(0, &["rolled back"]);
    wipe(&mut trial, B);
    let headline = "it went back; the last update was ROLLED BACK; there is NO way back";
    says(&trial, "rolled_back", headline, "`check` asks for the next version; this one is not tried again");
}

/// What is staged is not what runs: the same release writes it anew, and the hint does not say otherwise.
#[apply(test)]
fn a_rotten_file_of_what_is_staged_is_written_anew() {
    Trial::ready();
    let mut trial = Trial::staged();
    spoil(&mut trial.disk, B, "vmlinuz");
    let hint = "while the other slot runs, `apply` of another release than that one writes it anew";
    trial.root.agent(&["activate"]).expect(7, &["read slot B", hint]);
    trial.root.agent(&["verify"]).expect(7, &["Slot B  INVALID", hint]);
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(0, &["2.0.0 is staged in slot B"]);
    trial.root.agent(&["verify"]).expect(0, &[]);
    let state = fs::read_to_string(trial.root.path("var/lib/kubesolo/update/state.json")).unwrap();
    assert!(state.contains("\"phase\":\"staged\""), "{state}");
}

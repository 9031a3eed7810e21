//! A rollback by hand counts once it is booted: called off before, it is none, in the count, the history and the metrics.

use crate::support::disk::{A, B};
use crate::support::trial::Trial;
use crate::support::{command, run};
use std::fs;

/// Slot B confirmed, with slot A beside it.
fn confirmed() -> Trial {
    Trial::ready();
    let trial = Trial::booted();
    trial.root.install_check("10-ok", "exit 0");
    trial.root.agent(&["healthcheck"]).expect(0, &["confirmed"]);
    trial
}

/// What the count says, in the state and to Prometheus.
#[track_caller]
fn assert_counted(trial: &Trial, count: u64, when: &str) {
    assert_eq!(trial.root.state_field("rollbacks_total"), count.to_string(), "{when}");
    let series = format!("kubesolo_update_rollbacks_total {count}\n");
    let page = trial.root.agent(&["metrics", "--once"]).expect(0, &[]).stdout;
    assert!(page.contains(&series), "{when}: {page}");
}

const HISTORY: &str = ".history | map([.from_version, .to_version, .slot, .result, .error_kind, .error])";
const CALLED_OFF: &str = r#"[["1.0.0","2.0.0","B","success",null,null],["2.0.0","1.0.0","A","activated",null,"rollback: called off before its first boot"]]"#;

/// Nothing went back, and nothing is called a rollback.
#[track_caller]
fn assert_none(trial: &Trial, when: &str) {
    assert_counted(trial, 0, when);
    trial.assert_boot("B", "1", "3", "");
    assert_eq!(trial.root.agent(&["status", "--json"]).jq(HISTORY), CALLED_OFF, "{when}");
    assert_eq!(["phase", "under_way"].map(|field| trial.root.state_field(field)), ["idle", "null"], "{when}");
    let failed = fs::read_to_string(trial.root.path("var/lib/kubesolo/update/failed.json")).unwrap_or_default();
    assert!(!failed.contains("2.0.0"), "{when}: what runs is blamed: {failed}");
    trial.root.agent(&["status"]).expect(0, &["all is well", "2.0.0 to 1.0.0: activated: rollback: called off"]);
}

#[apply(test)]
fn called_off_it_is_no_rollback() {
    let trial = confirmed();
    trial.root.agent(&["rollback"]).expect(0, &["slot A is active, on trial"]);
    assert_eq!(["phase", "under_way"].map(|field| trial.root.state_field(field)), ["rolled_back", "true"]);
    assert_counted(&trial, 0, "before the restart");
    trial.root.agent(&["rollback"]).expect(0, &["the trial of slot A is called off; slot B stays active"]);
    assert_none(&trial, "called off");
    // Nor when a check has failed, and the next one is answered.
    trial.root.agent(&["apply", "--server", "http://127.0.0.1:9"]).expect(6, &[]);
    trial.root.agent(&["apply", "--layout", trial.medium.path()]).expect(3, &["running already"]);
    assert_eq!(trial.root.state_field("phase"), "idle");
    assert_counted(&trial, 0, "after a check");
}

/// By hand with GRUB's own tool, or by a `rollback` that was cut off before it wrote the state.
#[apply(test)]
fn called_off_in_the_boot_variables_alone() {
    let trial = confirmed();
    trial.root.agent(&["rollback"]).expect(0, &["on trial"]);
    trial.root.set_boot_variables(&["active_slot=B", "boot_success=1"]);
    trial.root.agent(&["status"]).expect(0, &["called off before its first boot"]);
    trial.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
    assert_none(&trial, "by hand");
}

#[apply(test)]
fn booted_it_is_counted_once() {
    let mut trial = confirmed();
    trial.root.agent(&["rollback"]).expect(0, &["on trial"]);
    trial.root.set_boot_variables(&["boot_counter=2"]);
    trial.boot(A);
    for when in ["the first run", "the second run"] {
        trial.root.agent(&["activate"]).expect(4, &["slot A runs on trial"]);
        assert_counted(&trial, 1, when);
    }
    // Back again, from the trial: straight to what was confirmed.
    trial.root.agent(&["rollback"]).expect(0, &["slot B, which was confirmed before, is active again"]);
    assert_counted(&trial, 1, "before the second restart");
    trial.boot(B);
    trial.root.agent(&["healthcheck"]).expect(0, &["healthy"]);
    assert_counted(&trial, 2, "back again");
    assert_eq!(trial.root.state_field("under_way"), "null");
}

/// GRUB comes back from a slot that nobody ran the agent in: both ways count.
#[apply(test)]
fn a_rollback_that_grub_ends_is_counted_as_both() {
    let mut trial = confirmed();
    trial.root.agent(&["rollback"]).expect(0, &["on trial"]);
    trial.root.set_boot_variables(&["active_slot=B", "boot_success=1", "boot_counter=0", "rollback_from=A"]);
    trial.boot(B);
    trial.root.agent(&["healthcheck"]).expect(0, &["rolled back: slot A was not confirmed in three boots"]);
    assert_counted(&trial, 2, "there and back");
}

/// Removes the record of a slot, and nothing else.
fn lose_record(trial: &mut Trial, number: u32) {
    trial.disk.detach();
    let target = format!("{}?offset={}", trial.disk.image.display(), trial.disk.extent(number).0);
    run(command("debugfs").args(["-w", "-R", "rm slot.json"]).arg(target));
    trial.disk.attach();
}

/// GRUB boots a slot without its record: that one is lost gives what is staged no boot, and no release back its good name.
#[apply(test)]
fn a_record_that_is_lost_alone_changes_nothing() {
    Trial::ready();
    let mut trial = Trial::staged();
    lose_record(&mut trial, A);
    trial.root.agent(&["rollback"]).expect(0, &["what was staged in slot B will not be tried"]);
    trial.assert_boot("A", "1", "3", "");
    trial.root.agent(&["rollback"]).expect(3, &["called off before it ever ran: there is nothing to go back to"]);
    trial.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
    trial.assert_boot("A", "1", "3", "");
    // Left by hand, it is not taken again by itself.
    let mut trial = confirmed();
    lose_record(&mut trial, B);
    trial.root.agent(&["rollback"]).expect(0, &["slot A is active, on trial"]);
    trial.boot(A);
    trial.root.install_check("10-ok", "exit 0");
    trial.root.agent(&["healthcheck"]).expect(0, &["confirmed"]);
    trial.root.agent(&["apply", "--activate", "--layout", trial.medium.path()]).expect(4, &["failed here before"]);
    trial.assert_boot("A", "1", "3", "");
}

/// A rollback to what never ran, from a slot of which nothing can be read for a while, and called off: so is what it was to.
#[apply(test)]
fn what_a_rollback_was_called_off_to_stays_called_off() {
    Trial::ready();
    let mut trial = Trial::staged();
    let whole = trial.disk.bytes(A);
    let write = |trial: &mut Trial, bytes: &[u8]| {
        trial.disk.detach();
        trial.disk.overwrite(A, 0, bytes);
        trial.disk.attach();
    };
    write(&mut trial, &[0; 2 << 20]);
    trial.root.agent(&["rollback"]).expect(0, &["slot B is active, on trial"]);
    trial.root.agent(&["rollback"]).expect(0, &["the trial of slot B is called off"]);
    write(&mut trial, &whole);
    trial.root.agent(&["activate"]).expect(3, &["nothing is staged"]);
    trial.assert_boot("A", "1", "3", "");
}

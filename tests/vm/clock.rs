//! Whole machines whose clock is not set: they are updated all the same, and no window is judged by a time that nobody knows.

use crate::support::kit::{BORN, Firmware, need_vm};
use crate::support::site::{Site, apply, expect_confirmed};

/// As a machine without a battery wakes up.
const NOT_SET: &str = "1970-01-01T03:00:00";

#[apply(test)]
fn a_clock_that_is_not_set_opens_no_window_and_stops_nobody() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    site.offer("1.1.0", "healthy");
    let mut vm = site.power_on_at(NOT_SET);
    vm.expect_hello("manual", BORN, 'A');
    vm.run("date -u +%Y-%m-%dT%H").expect(0, &["1970-01-01T03"]);
    vm.run("cp /etc/kubesolo/update.conf /run/update.conf").expect(0, &[]);
    // By that clock, by the time of day of the build, and always.
    for window in ["02:00-04:00", "15:00-16:00", "00:00-24:00", "Sat,Sun 22:00-04:00"] {
        let add = format!("(cat /run/update.conf; echo maintenance_window = {window}) >/etc/kubesolo/update.conf");
        vm.run(&add).expect(0, &[]);
        let said = "the clock is not set (1970-01-01T03:0";
        vm.agent(&format!("{} --activate", apply())).expect(4, &[window, said, "--ignore-window"]);
        vm.agent(&format!("check {}", apply().trim_start_matches("apply "))).expect(4, &[said]);
        vm.agent("status --json | tr -d '\\n' | grep -o 'the maintenance window is[^\"]*'").expect(0, &[window, said]);
    }
    assert_eq!(vm.state("phase"), "idle");
    vm.agent(&format!("{} --ignore-window", apply())).expect(0, &["1.1.0 is staged in slot B"]);
    // Asked again, by the command that changes what boots.
    vm.agent("activate").expect(4, &["the clock is not set", "stays staged"]);
    assert_eq!(vm.state("phase"), "staged");
    vm.run("cp /run/update.conf /etc/kubesolo/update.conf").expect(0, &[]);
    vm.agent("activate").expect(0, &["slot B is active"]);
    // And by the one that restarts.
    vm.run("(cat /run/update.conf; echo maintenance_window = 00:00-24:00) >/etc/kubesolo/update.conf").expect(0, &[]);
    vm.agent("activate --reboot").expect(4, &["restart the machine", "the clock is not set"]);
    vm.send("kubesolo-update activate --reboot --ignore-window");
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.run("date -u +%Y").expect(0, &["1970"]);
    vm.power_off();
}

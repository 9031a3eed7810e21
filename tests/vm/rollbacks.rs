//! Whole machines: versions that do not work, and the way back. Nothing leaves this machine.

use crate::support::disk::{A, B};
use crate::support::kit::{self, BORN, Firmware, need_vm};
use crate::support::site::{Site, apply, apply_and_reboot, expect_confirmed, expect_rolled_back};
use std::time::Duration;

/// A person who sees nothing for so long presses reset. Too early does no harm: GRUB counts its boots.
const RESET_AFTER: Duration = Duration::from_secs(25);

#[apply(long_test)]
fn a_version_that_never_gets_healthy_is_left_after_three_boots() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    let bad = site.offer("1.2.0", "never");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.2.0", 'B');
    vm.expect_hello("manual", "1.2.0", 'B');
    // While it is on trial, the other slot is the fallback.
    vm.agent(&apply()).expect(4, &["runs on trial"]);
    vm.send("kubesolo-update-health --timeout 2 --check-timeout 2");
    vm.expect_hello("auto", "1.2.0", 'B');
    vm.expect_hello("manual", BORN, 'A');
    vm.wait_said("Rolling back to slot A.");
    vm.agent("status").expect(0, &["rolled back, not recorded yet", "three boots"]);
    vm.agent(&apply()).expect(4, &["1.2.0", "three boots"]);
    assert_eq!(vm.state("phase"), "rolled_back");
    assert!(vm.state("last_error").contains("three boots"));
    vm.agent("status").expect(0, &["rolled back: 1.0.0 to 1.2.0"]);
    vm.agent("verify").expect(0, &["both copies of the boot variables are sound"]);
    vm.run("sync");
    site.assert_slot(B, &bad);
    site.offer("1.3.0", "healthy");
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.3.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.power_off();
    assert_eq!(site.boot_variables(), "B:1:2::1");
    site.assert_slot(A, &kit::born(Firmware::Bios));
}

/// Three boots that end before anything can be asked.
fn boots_of_a_dead_version(site: &Site, behaviour: &str, words: &str, reset: bool) {
    let bad = site.offer("1.3.0", behaviour);
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    for _ in 0..3 {
        vm.wait_said(words);
        if reset {
            vm.reset();
        }
    }
    vm.wait_said("Rolling back to slot A.");
    vm.expect_hello("manual", BORN, 'A');
    expect_rolled_back(site, vm, "three boots", "A:1:0::1");
    site.assert_slot(B, &bad);
}

#[apply(long_test)]
fn a_kernel_panic_is_counted() {
    need_vm(Firmware::Bios);
    boots_of_a_dead_version(&Site::new(Firmware::Bios), "panic", "panic now", false);
}

#[apply(long_test)]
fn an_initramfs_that_hangs_is_counted() {
    need_vm(Firmware::Bios);
    boots_of_a_dead_version(&Site::new(Firmware::Bios), "hang", "hangs now", true);
}

/// GRUB loads a kernel of which the end is missing without complaint, in a slot of an older agent, which has no list; then the
/// machine resets itself or hangs.
#[apply(long_test)]
fn a_truncated_kernel_is_counted() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    let kernel = site.activated().pairs[0].kernel.clone();
    site.replace(B, "vmlinuz", &kernel[..kernel.len() * 2 / 3]);
    site.debugfs_write(B, "rm /slot.crc32");
    let mut vm = site.power_on();
    let (mut boots, mut resets) = (0, 0);
    while !vm.wait_within("Rolling back to slot A.", Duration::ZERO) {
        if vm.wait_within("KubeSolo OS, slot B", RESET_AFTER) {
            boots += 1;
        } else {
            vm.reset();
            resets += 1;
        }
        assert!(boots <= 3 && resets <= 12, "{}", vm.console());
    }
    assert_eq!(boots, 3);
    vm.expect_hello("manual", BORN, 'A');
    vm.agent("verify --slot B").expect(7, &["INVALID"]);
    expect_rolled_back(&site, vm, "three boots", "A:1:0::1");
}

/// GRUB holds it against the slot's list. The disk is to blame, not the release, which is taken again.
#[apply(test)]
fn an_initramfs_that_breaks_after_activation_costs_one_boot() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    let initramfs = site.activated().pairs[0].initramfs.clone();
    site.replace(B, "kubesolo-os.gz", &initramfs[..initramfs.len() / 4]);
    let mut vm = site.power_on();
    vm.wait_said("Slot B does not load");
    vm.expect_hello("manual", BORN, 'A');
    vm.agent("activate").expect(3, &["not any more what was staged", "kubesolo-os.gz"]);
    assert_eq!(vm.state("phase"), "failed");
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.power_off();
    assert_eq!(site.boot_variables(), "B:1:2::1");
}

/// The kernel finds no init in what is left of the initramfs, and panics. The slot is an older agent's, which has no list.
#[apply(long_test)]
fn an_initramfs_that_breaks_in_a_slot_without_a_list_is_counted() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    let initramfs = site.activated().pairs[0].initramfs.clone();
    site.replace(B, "kubesolo-os.gz", &initramfs[..initramfs.len() / 4]);
    site.debugfs_write(B, "rm /slot.crc32");
    let mut vm = site.power_on();
    for _ in 0..3 {
        vm.wait_said("Kernel panic");
    }
    vm.wait_said("Rolling back to slot A.");
    vm.expect_hello("manual", BORN, 'A');
    vm.agent("verify --slot B").expect(7, &["INVALID"]);
    expect_rolled_back(&site, vm, "three boots", "A:1:0::1");
}

/// The kernel's own watchdog: it restarts the machine when the one who feeds it has died.
#[apply(long_test)]
fn a_trial_boot_whose_agent_dies_is_restarted_by_the_watchdog() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    site.offer("1.1.0", "never");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    let load = "insmod /lib/modules/watchdog.ko; insmod /lib/modules/softdog.ko";
    let dog = "cat /sys/class/watchdog/watchdog0/state /sys/class/watchdog/watchdog0/timeout";
    // A stable machine that is not healthy is not restarted, by nobody.
    vm.run(&format!("{load}; rm /run/kubesolo-healthy")).expect(0, &[]);
    vm.agent("healthcheck --timeout 0 --reboot-on-failure --watchdog /dev/watchdog").expect(9, &["not on trial"]);
    assert_eq!(vm.run(dog).expect(0, &[]).text.trim(), "inactive\n60");
    apply_and_reboot(&mut vm);
    vm.expect_hello("manual", "1.1.0", 'B');
    assert_eq!(vm.run(&format!("{load}; {dog}")).expect(0, &[]).text.trim(), "inactive\n60");
    // Unhealthy, but somebody decides: it stops.
    vm.agent("healthcheck --timeout 0 --watchdog /dev/watchdog").expect(9, &["not confirmed"]);
    assert_eq!(vm.run(dog).expect(0, &[]).text.lines().next(), Some("inactive"));
    vm.run("kubesolo-update healthcheck --timeout 600 --watchdog /dev/watchdog >/dev/null 2>&1 & echo $! >/run/agent")
        .expect(0, &[]);
    vm.run("until grep -q '^active' /sys/class/watchdog/watchdog0/state; do usleep 100000; done").expect(0, &[]);
    vm.run("kill -9 $(cat /run/agent)").expect(0, &[]);
    // 60 s later the kernel pulls the plug, and GRUB counts.
    vm.expect_hello("manual", "1.1.0", 'B');
    assert!(vm.console().contains("watchdog did not stop"));
    vm.cut();
    assert_eq!(site.boot_variables(), "B:0:1::1");
}

#[apply(long_test)]
fn manual_rollback_is_confirmed_or_comes_back() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    site.offer("1.1.0", "healthy");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.send("kubesolo-update rollback --reboot");
    vm.expect_hello("auto", BORN, 'A');
    expect_confirmed(&mut vm, 'A');
    assert_eq!(vm.state("phase"), "rolled_back");
    assert_eq!(vm.state("last_error"), "manual rollback");
    // What was rolled back from is not gone back to by mistake.
    vm.agent("rollback").expect(4, &["it failed here before: manual rollback"]);
    // To a slot that then fails, three times.
    vm.send("kubesolo-update rollback --retry-failed --reboot");
    for _ in 0..3 {
        vm.expect_hello("manual", "1.1.0", 'B');
        vm.run("rm /run/kubesolo-healthy").expect(0, &[]);
        vm.send("kubesolo-update healthcheck --timeout 1 --reboot-on-failure");
    }
    vm.wait_said("Rolling back to slot A.");
    vm.expect_hello("manual", BORN, 'A');
    vm.agent("status").expect(0, &["slot A confirmed"]);
    vm.agent("healthcheck").expect(0, &["not on trial"]);
    assert_eq!(vm.state("phase"), "rolled_back");
    vm.power_off();
    assert_eq!(site.boot_variables(), "A:1:0::1");
}

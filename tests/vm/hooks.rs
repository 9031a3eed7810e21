//! Whole machines: what `deploy/initramfs/` does in them by itself. Nothing leaves this machine.

use crate::support;
use crate::support::kit::{self, BORN, Firmware, need_vm};
use crate::support::site::{Site, apply_and_reboot, expect_rolled_back};
use crate::support::vm::SERVER;
use std::time::Duration;

/// A crontab's line fires when the minute is full.
const CRON_LIMIT: Duration = Duration::from_secs(180);

/// A version whose health check cannot be made at all is one that fails.
fn a_check_that_cannot_be_made(files: &[(&str, &str, u32)]) {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    site.offer_with("1.2.0", "healthy", files);
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    for _ in 0..3 {
        vm.expect_hello("auto", "1.2.0", 'B');
    }
    vm.wait_said("Rolling back to slot A.");
    vm.expect_hello("manual", BORN, 'A');
    expect_rolled_back(&site, vm, "three boots", "A:1:0::1");
}

#[apply(long_test)]
fn a_version_with_a_broken_configuration_is_left_after_three_boots() {
    a_check_that_cannot_be_made(&[("etc/kubesolo/update.conf", "nonsense = yes\n", 0o644)]);
}

/// Another way to fail at each boot: a crash, bad configuration, a bad machine.
const FAILING: &str = "#!/bin/sh
echo >>/var/lib/kubesolo/runs
case $((($(wc -l </var/lib/kubesolo/runs) - 1) / 3)) in 0) kill -SEGV $$ ;; 1) exit 2 ;; *) exit 7 ;; esac
";

#[apply(long_test)]
fn a_version_whose_agent_fails_is_left_after_three_boots() {
    a_check_that_cannot_be_made(&[("usr/bin/kubesolo-update", FAILING, 0o755)]);
}

#[apply(long_test)]
fn a_version_whose_agent_is_no_program_is_left_after_three_boots() {
    a_check_that_cannot_be_made(&[("usr/bin/kubesolo-update", "", 0o644)]);
}

/// Nothing is on trial: a machine whose agent does not work stays up.
#[apply(test)]
fn a_confirmed_machine_is_never_restarted_by_the_hook() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    vm.run("kubesolo-update-health --timeout 1").expect(0, &["not on trial"]);
    vm.run("rm /run/kubesolo-healthy").expect(0, &[]);
    vm.run("kubesolo-update-health --timeout 1").expect(9, &["not on trial"]);
    vm.run("printf '#!/bin/sh\\nexit 7\\n' >/usr/bin/kubesolo-update").expect(0, &[]);
    vm.run("KUBESOLO_HEALTH_PAUSE_SECS=0 kubesolo-update-health").expect(7, &["cannot be made (exit code 7)"]);
    vm.run("rm /usr/bin/kubesolo-update").expect(0, &[]);
    vm.run("KUBESOLO_HEALTH_PAUSE_SECS=0 kubesolo-update-health").expect(127, &["cannot be made"]);
    vm.run("grep kubesolo-update-efi /proc/mounts").expect(1, &[]);
}

#[apply(long_test)]
fn cron_takes_an_update_by_itself() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    let crontab = format!("* * * * * KUBESOLO_SPREAD_SECS=0 /usr/bin/kubesolo-update-apply --server http://{SERVER}\n");
    site.offer_with("1.1.0", "healthy", &[("etc/kubesolo/crontabs/root", &crontab, 0o600)]);
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    // What is installed runs an hourly one; this version's runs every minute.
    vm.run("cat /etc/kubesolo/crontabs/root").expect(0, &["/usr/bin/kubesolo-update-apply"]);
    vm.run("pidof crond").expect(0, &[]);
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.1.0", 'B');
    let offered = site.offer("1.2.0", "healthy");
    let before = site.web.seen().len();
    let asked = || site.web.seen()[before..].iter().any(|request| request.ends_with("/kubesolo-os.gz"));
    assert!(vm.listen_until(CRON_LIMIT, asked), "cron asked for nothing: {}", vm.console());
    // The words come when the command has ended.
    let words = "kubesolo-update: 1.2.0 is staged in slot A";
    vm.run(&format!("for n in $(seq 60); do dmesg | grep -q '{words}' && exit 0; sleep 1; done; exit 1"))
        .expect(0, &[]);
    assert_eq!(vm.state("phase"), "staged");
    vm.agent("status --json").expect(0, &["\"active_slot\":\"B\",\"boot_success\":true"]);
    vm.power_off();
    site.assert_slot(support::disk::A, &offered);
}

/// GRUB's entry "emergency shell"; that a person gets there: tests/grub/menu.rs.
#[apply(test)]
fn the_rescue_shell_says_what_the_machine_is_and_can_repair_it() {
    need_vm(Firmware::Bios);
    let mut site = Site::new(Firmware::Bios);
    site.disk = kit::disk_of_emergency(Firmware::Bios);
    let block = site.disk.efi_file("/boot/grub/grubenv");
    kit::replace_efi(&site.disk, "/boot/grub/grubenv", Some(&block[..1000]));
    let mut vm = site.power_on();
    vm.wait_said("KubeSolo OS, emergency shell. KubeSolo does not run");
    vm.wait_said("KubeSolo OS 1.0.0");
    vm.wait_said("verify --repair-boot-variables");
    let mut ask = |line: &str, answer: &str| {
        vm.type_line(line);
        vm.wait_said(answer);
    };
    // Answers that an echo of what was typed does not hold.
    ask("echo shell-$((40 + 2))", "shell-42");
    ask("test -e /run/kubesolo-healthy || echo kubesolo-$((1 - 1))", "kubesolo-0");
    ask("kubesolo-update verify --repair-boot-variables; echo code-$?", "code-0");
    ask("kubesolo-update-boot; echo mounted-$?", "mounted-0");
    ask("grep -c /var/lib/kubesolo /proc/mounts | sed s/^/mounts-/", "mounts-1");
    ask("kubesolo-update verify; echo sound-$?", "sound-0");
    ask("reboot -f", "KubeSolo OS, emergency shell. KubeSolo does not run");
}

//! Whole machines: updates that go well. Nothing leaves this machine: the emulated network reaches one loopback port.

use crate::support::disk::{A, B};
use crate::support::kit::{self, BORN, Firmware, need_vm};
use crate::support::need;
use crate::support::registry::Registry;
use crate::support::release::{Release, Target};
use crate::support::site::{CONFIRMED, Site, apply, apply_and_reboot, expect_confirmed, partition, taken};
use crate::support::vm::SERVER;

#[apply(test)]
fn good_updates_over_a_registry_there_and_back() {
    need_vm(Firmware::Bios);
    need("docker-registry");
    need("oras");
    let firmware = Firmware::Bios;
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), None);
    let mut site = Site::new(firmware);
    site.port = registry.port;
    let [first, second] = ["1.1.0", "1.2.0"].map(|version| kit::release(firmware, version, "healthy"));
    let repository = format!("{}/os/kubesolo", registry.host());
    let digest = first.publish(dir.path(), Target::Registry, &repository, "latest");
    let update = format!("apply --registry {SERVER}/os/kubesolo");

    let mut vm = site.power_on();
    vm.expect_hello("auto", BORN, 'A');
    vm.wait_said("this boot is not on trial");
    vm.agent(&update).expect(0, &["1.1.0 is staged in slot B"]);
    assert_eq!(vm.state("phase"), "staged");
    vm.agent(&update).expect(3, &["staged in slot B already"]);
    vm.agent("activate").expect(0, &["slot B is active, on trial for three boots"]);
    // A trial is pending: the other slot is the fallback.
    vm.agent(&update).expect(4, &["waits for its first boot"]);
    vm.send("sync; reboot -f");

    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    assert_eq!(vm.state("phase"), "success");
    assert_eq!(vm.state("manifest_digest"), digest);

    second.publish(dir.path(), Target::Registry, &repository, "latest");
    vm.send(&format!("kubesolo-update {update} --activate --reboot"));
    vm.expect_hello("auto", "1.2.0", 'A');
    expect_confirmed(&mut vm, 'A');
    vm.agent(&update).expect(3, &["nothing to do"]);
    vm.power_off();

    assert_eq!(site.boot_variables(), "A:1:2::1");
    site.assert_slot(A, &second);
    site.assert_slot(B, &first);
}

#[apply(long_test)]
fn a_slow_version_is_confirmed_when_it_is_healthy_and_not_before() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    site.offer("1.1.0", "slow:12");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto 100", "1.1.0", 'B');
    // Its first round of checks is over: it waits now, and holds nothing that `status` would wait for.
    vm.wait_said("10-kubesolo: KubeSolo does not answer");
    // Not healthy even after the agent has looked: so what it saw is what there was before.
    let early = vm.run("kubesolo-update status --json; test ! -e /run/kubesolo-healthy").expect(0, &[]);
    assert_eq!(early.jq(".boot | [.active_slot,.boot_success]"), "[\"B\",false]");
    assert!(!vm.console().contains(CONFIRMED));
    expect_confirmed(&mut vm, 'B');
    vm.run("test -e /run/kubesolo-healthy").expect(0, &[]);
    assert_eq!(vm.state("phase"), "success");
    vm.power_off();
    assert_eq!(site.boot_variables(), "B:1:2::1");
}

#[apply(long_test)]
fn nothing_is_activated_before_grub_has_shown_that_it_can_write() {
    need_vm(Firmware::Bios);
    let site = Site::new(Firmware::Bios);
    assert_eq!(site.boot_variables(), "A:1:3::0");
    site.offer("1.1.0", "healthy");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    vm.agent("status --json").expect(0, &["\"boot_canary\":true"]);
    // As before the first boot.
    let edit = "sed -i s/boot_canary=1/boot_canary=0/ /efi/boot/grub/grubenv /efi/boot/grub/grubenv.bak";
    vm.run(&format!("mkdir -p /efi; mount -t vfat /dev/vda1 /efi && {edit} && umount /efi")).expect(0, &[]);
    vm.agent("rollback").expect(7, &["boot_canary is 0"]);
    vm.agent(&apply()).expect(0, &["1.1.0 is staged in slot B"]);
    vm.agent("activate").expect(7, &["boot_canary is 0", "restart once"]);
    assert_eq!(vm.state("phase"), "staged");
    vm.agent("status --json").expect(0, &["\"active_slot\":\"A\",\"boot_success\":true"]);
    vm.send("sync; reboot -f");
    vm.expect_hello("manual", BORN, 'A');
    vm.send("kubesolo-update activate --reboot");
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.power_off();
    assert_eq!(site.boot_variables(), "B:1:2::1");
}

/// From one file to layers, from layers to others by their chunk index, and back to one file with one: each boots, and what the
/// slot has is not fetched. Between the last two, one without an index is staged: of that the layers have nothing.
fn layers_there_and_back(firmware: Firmware) {
    need_vm(firmware);
    need("docker-registry");
    need("oras");
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), None);
    let mut site = Site::new(firmware);
    site.port = registry.port;
    let repository = format!("{}/os/kubesolo", registry.host());
    let publish = |release: &Release| release.publish(dir.path(), Target::Registry, &repository, "latest");
    let update = format!("apply --registry {SERVER}/os/kubesolo --json");
    let versions = [("1.1.0", true), ("1.2.0", true), ("1.3.0", false)]
        .map(|(version, is_layered)| kit::chunked_release(firmware, version, is_layered));
    let length = |release: &Release| {
        release.pairs.iter().find(|pair| pair.architecture == firmware.architecture()).unwrap().initramfs.len()
    };
    let mut vm = site.power_on();
    vm.expect_hello("auto", BORN, 'A');
    vm.wait_said("this boot is not on trial");
    for (release, slot) in versions.iter().zip(['B', 'A', 'B']) {
        if release.version == "1.3.0" {
            let plain = kit::release(firmware, "1.2.1", "healthy");
            publish(&plain);
            assert_eq!(taken(&vm.agent(&update).expect(0, &["\"staged\""])), (length(&plain), 0));
            site.assert_slot(partition(slot), &plain);
        }
        publish(release);
        let (fetched, copied) = taken(&vm.agent(&format!("{update} --activate")).expect(0, &["\"staged\""]));
        // The kernel is in both slots already. The version that the machine was born with was packed otherwise.
        let (whole, is_first) = (length(release), release.version == "1.1.0");
        let most = if is_first { whole } else { kit::CHUNKED_MOST_BYTES };
        assert!(fetched + copied == whole && fetched <= most, "{}: {fetched} of {whole}", release.version);
        vm.send("sync; reboot -f");
        vm.expect_hello("auto", &release.version, slot);
        expect_confirmed(&mut vm, slot);
    }
    vm.power_off();
    site.assert_slot(A, &versions[1]);
    site.assert_slot(B, &versions[2]);
}

#[apply(test)]
fn layers_and_chunks_there_and_back() {
    layers_there_and_back(Firmware::Bios);
}

#[apply(long_test)]
fn layers_and_chunks_on_arm64() {
    layers_there_and_back(Firmware::UefiArm64);
}

/// An update there, and confirmed.
fn one_update(firmware: Firmware) {
    need_vm(firmware);
    let site = Site::new(firmware);
    let release = site.offer("1.1.0", "healthy");
    let mut vm = site.power_on();
    vm.expect_hello("manual", BORN, 'A');
    apply_and_reboot(&mut vm);
    vm.expect_hello("auto", "1.1.0", 'B');
    expect_confirmed(&mut vm, 'B');
    vm.power_off();
    assert_eq!(site.boot_variables(), "B:1:2::1");
    site.assert_slot(A, &kit::born(firmware));
    site.assert_slot(B, &release);
}

#[apply(test)]
fn an_update_on_uefi() {
    one_update(Firmware::Uefi);
}

#[apply(long_test)]
fn an_update_on_arm64() {
    one_update(Firmware::UefiArm64);
}

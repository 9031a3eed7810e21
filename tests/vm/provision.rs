//! A stick that `scripts/usb-provision.sh` wrote, started: the site's files are in force, and stay so after the update that was on
//! the stick, without a network.

use crate::support::disk::Disk;
use crate::support::kit::{self, Firmware, need_vm};
use crate::support::provision::{NETWORK, SiteFiles, Stick, USER_DATA};
use crate::support::release::Target;
use crate::support::signing::{Signed, sign};
use crate::support::vm::Vm;
use crate::support::{need_all, run};
use std::fs;

/// Holds what the site has put onto the stick.
#[track_caller]
fn assert_site_in_force(vm: &mut Vm, site: &SiteFiles) {
    let mut same = |path: &str, text: &str| {
        let found = vm.run(&format!("cat {path}")).expect(0, &[]);
        assert_eq!(found.text.trim_end().replace('\r', ""), text.trim_end(), "{path}");
    };
    for dir in ["/var/lib/kubesolo/cloud-init", "/var/lib/cloud/seed/nocloud"] {
        same(&format!("{dir}/user-data"), USER_DATA);
        same(&format!("{dir}/network-config"), NETWORK);
    }
    same("/etc/kubesolo/update.conf", &fs::read_to_string(site.path("update.conf")).unwrap());
    same("/etc/kubesolo/update-keys.d/site-site.pub", &String::from_utf8(site.key.pem()).unwrap());
    vm.run("test -f /etc/kubesolo/update-keys.d/revoked/site-list").expect(0, &[]);
    vm.run("ls /etc/kubesolo/update-keys.d").expect(0, &["site-site.pub"]);
    // What somebody else could have written is left where it is, and said.
    vm.run("test -e /etc/kubesolo/update-keys.d/site-loose.pub").expect(1, &[]);
}

fn provisioned_and_updated(firmware: Firmware) {
    need_vm(firmware);
    need_all(&["jq", "oras"]);
    let site = SiteFiles::new();
    let born = kit::disk(firmware);
    fs::copy(&born.image, site.path("image")).unwrap();
    let release = kit::release(firmware, "2.0.0", "healthy");
    let layout = site.path("layout");
    release.publish(site.dir.path(), Target::Layout, layout.to_str().unwrap(), "stable");
    sign(&[&site.key], Signed::Layout(&format!("{}:stable", layout.display())));
    // Another one beside it, of nobody's.
    kit::release(firmware, "3.0.0", "healthy").publish(
        site.dir.path(),
        Target::Layout,
        layout.to_str().unwrap(),
        "unsigned",
    );
    // As large as everything on it, and no whole number of MiB.
    let size = fs::metadata(&born.image).unwrap().len() + (150 << 20) + 512;
    let stick = Stick::new(site.dir.path(), "stick", size);
    run(&mut site.provision(&stick, &[]));
    let image = stick.file.clone();
    drop(stick);
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("disk.img");
    fs::rename(&image, &place).unwrap();
    let disk = Disk::of_image(dir, place, 0, 0);
    let mut vm = Vm::start(firmware, &[&disk], 0, None);
    vm.expect_hello("auto", "1.0.0", 'A');
    // The health check of each boot holds the lock while it looks whether this one is on trial.
    vm.wait_said("this boot is not on trial");
    // One that others may write to counts for nothing, from the next boot on as well.
    vm.run("cp /var/lib/kubesolo/site/update-keys.d/site.pub /var/lib/kubesolo/site/update-keys.d/loose.pub")
        .expect(0, &[]);
    vm.run("chmod 666 /var/lib/kubesolo/site/update-keys.d/loose.pub; sync").expect(0, &[]);
    assert_site_in_force(&mut vm, &site);
    // The image itself asks for no signatures; this site does.
    vm.agent("apply --layout /var/lib/kubesolo/updates --tag unsigned").expect(5, &["not signed"]);
    vm.agent("apply --layout /var/lib/kubesolo/updates --tag stable")
        .expect(0, &["2.0.0 is staged in slot B", "site-site.pub"]);
    vm.agent("activate").expect(0, &["slot B is active"]);
    vm.send("sync; reboot -f");
    vm.expect_hello("manual", "2.0.0", 'B');
    vm.wait_said("loose.pub is no key: it must be a file of root's");
    assert_site_in_force(&mut vm, &site);
    vm.agent("healthcheck").expect(0, &[]);
    vm.agent("status --json").expect(0, &["\"active_slot\":\"B\",\"boot_success\":true"]);
    vm.power_off();
}

#[apply(long_test)]
fn a_provisioned_stick_boots_and_updates_itself_with_a_bios() {
    provisioned_and_updated(Firmware::Bios);
}

#[apply(long_test)]
fn a_provisioned_stick_boots_and_updates_itself_with_uefi() {
    provisioned_and_updated(Firmware::Uefi);
}

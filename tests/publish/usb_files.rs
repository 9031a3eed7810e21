//! What `scripts/usb-provision.sh` puts onto a stick is judged before anything is erased: cloud-init's three files, by its own reader,
//! by a YAML parser, and where neither is there; the site's keys together with those of the systems they will lie beside.

use super::usb_provision::{STICK, hold_refused, ready, said, site};
use crate::support::disk::{architecture, build_image};
use crate::support::provision::{NETWORK, SiteFiles, Stick};
use crate::support::signing::script;
use crate::support::{need, need_python, run};
use std::fs;
use std::path::Path;
use std::process::Command;

const GOOD: &str = "";
/// Kind, text, and what is said of it. One line more is one input more.
const FILES: &[(&str, &str, &str)] = &[
    ("network-config", NETWORK, GOOD),
    ("network-config", "config: disabled\n", GOOD),
    ("network-config", "{\"version\": 2, \"ethernets\": {\"eth0\": {\"dhcp4\": true}}}", GOOD),
    ("network-config", "version: 2\r\nethernets:\r\n  eth0: {dhcp4: yes, mtu: 1400}\r\n", GOOD),
    (
        "network-config",
        "version: 2\nethernets:\n  lan:\n    match: {macaddress: '52:54:00:12:34:56'}\n    set-name: lan\n    addresses: [192.0.2.7/24, '2001:db8::7/64']\n    routes: [{to: 0.0.0.0/0, via: 192.0.2.1, metric: 10}]\n    nameservers: {addresses: [192.0.2.1], search: [example.com]}\n    dhcp4-overrides: {use-dns: false}\n",
        GOOD,
    ),
    (
        "network-config",
        "version: 2\nethernets:\n  a: {}\n  b: {}\nbonds:\n  bond0: {interfaces: [a, b], parameters: {mode: 802.3ad}, dhcp4: true}\nvlans:\n  v7: {id: 7, link: bond0, addresses: [192.0.2.7/24]}\n",
        GOOD,
    ),
    (
        "network-config",
        "version: 1\nconfig:\n- type: physical\n  name: eth0\n  mac_address: '52:54:00:12:34:56'\n  subnets: [{type: static, address: 192.0.2.7/24, gateway: 192.0.2.1, dns_nameservers: [192.0.2.1]}]\n- {type: nameserver, address: 192.0.2.1}\n",
        GOOD,
    ),
    // With a name above it, as netplan's own files have it; `disabled` there as well.
    ("network-config", "network:\n  version: 2\n  ethernets:\n    eth0: {dhcp4: true}\n", GOOD),
    (
        "network-config",
        "network:\n  version: 1\n  config:\n  - {type: physical, name: eth0, subnets: [{type: dhcp4}]}\n",
        GOOD,
    ),
    ("network-config", "network: {config: disabled}\n", GOOD),
    ("network-config", "version: 1\nconfig: disabled\n", GOOD),
    ("network-config", "network: {version: 2, ethernets: {eth0: {}}}\nversion: 2\n", "beside 'network:'"),
    ("network-config", "network:\n", "names with values"),
    ("network-config", "network:\n  network: {version: 2}\n", "version must be 1 or 2"),
    ("network-config", "netwrk: {version: 2, ethernets: {eth0: {}}}\n", "version must be 1 or 2"),
    ("network-config", "config: disabled\nversoin: 1\n", "'version' is meant?"),
    // InfiniBand's addresses have 20 octets.
    (
        "network-config",
        "version: 1\nconfig:\n- {type: infiniband, name: ib0, mac_address: '80:00:00:28:fe:80:00:00:00:00:00:00:00:11:22:03:00:0a:bc:de', subnets: [{type: dhcp4}]}\n",
        GOOD,
    ),
    (
        "network-config",
        "version: 2\nethernets:\n  ib0: {match: {macaddress: '80:00:00:28:fe:80:00:00:00:00:00:00:00:11:22:03:00:0a:bc:de'}, dhcp4: true}\n",
        GOOD,
    ),
    (
        "network-config",
        "version: 2\nethernets:\n  ib0: {match: {macaddress: '80:00:00:28:fe:80:00:00:00:00:00:00:00:11:22:03:00:0a:bc'}}\n",
        "no MAC address",
    ),
    (
        "network-config",
        "version: 2\nethernets:\n  e: {match: {macaddress: '52:54:00:12:34:56:78:9a'}}\n",
        "no MAC address",
    ),
    // A tab; and a typo.
    ("network-config", "network:\n  version: 2\n  ethernets:\n\teth0: {dhcp4: true}\n", "line 4, column 1"),
    (
        "network-config",
        "network:\n  version: 2\n  ethernets:\n    eth0: {adresses: [192.0.2.7/24]}\n",
        "'addresses' is meant?",
    ),
    ("network-config", "version: 2\nethernets:\n  eth0: {adresses: [192.0.2.7/24]}\n", "'addresses' is meant?"),
    ("network-config", "version: 2\nethernet:\n  eth0: {dhcp4: true}\n", "'ethernets' is meant?"),
    ("network-config", "version: 2\nethernets:\n  eth0: {dhcp: true}\n", "nothing reads"),
    ("network-config", "version: 2\nethernets:\n  eth0: {dhcp4: maybe}\n", "dhcp4 must be true or false"),
    ("network-config", "version: 2\nethernets:\n  eth0: {addresses: [192.0.2.7]}\n", "not an address such as"),
    ("network-config", "version: 2\nethernets:\n  eth0: {addresses: 192.0.2.7/24}\n", "must be a list"),
    ("network-config", "version: 2\nethernets:\n  eth0: {addresses: [192.0.2.777/24]}\n", "not an address such as"),
    ("network-config", "version: 2\nethernets:\n  eth0: {gateway4: 192.0.2.1/24}\n", "not an address such as"),
    (
        "network-config",
        "version: 2\nethernets:\n  eth0: {routes: [{to: default, gateway: 192.0.2.1}]}\n",
        "nothing reads",
    ),
    ("network-config", "version: 2\nethernets:\n  eth0: {nameservers: [192.0.2.1]}\n", "names with values"),
    (
        "network-config",
        "version: 2\nethernets:\n  eth0: {nameservers: {adresses: [192.0.2.1]}}\n",
        "'addresses' is meant?",
    ),
    // To the base of 60.
    ("network-config", "version: 2\nethernets:\n  e: {match: {macaddress: 52:54:00:12:34:56}}\n", "no MAC address"),
    ("network-config", "version: 2\nethernets:\n  eth0: {dhcp4: false}\n  eth0: {dhcp4: true}\n", "stands there twice"),
    ("network-config", "version: 2\nethernets: [eth0]\n", "names with values"),
    ("network-config", "version: 3\nethernets: {}\n", "version must be 1 or 2"),
    ("network-config", "ethernets:\n  eth0: {dhcp4: true}\n", "version must be 1 or 2"),
    ("network-config", "version: '2'\nethernets:\n  eth0: {dhcp4: true}\n", "version must be 1 or 2"),
    ("network-config", "# nothing\n", "names with values"),
    ("network-config", "version: 1\nconfig:\n- {type: physcal, name: eth0}\n", "has type 'physcal'"),
    (
        "network-config",
        "version: 1\nconfig:\n- {type: physical, name: eth0, subnet: [{type: dhcp4}]}\n",
        "'subnets' is meant?",
    ),
    (
        "network-config",
        "version: 1\nconfig:\n- {type: physical, name: eth0, subnets: [{type: static, adress: 192.0.2.7/24}]}\n",
        "'address' is meant?",
    ),
    ("meta-data", "instance-id: pump-17\nlocal-hostname: pump-17\nx-of-ours: 1\n", GOOD),
    ("meta-data", "{\"instance-id\": \"pump-17\"}", GOOD),
    ("meta-data", "instance_id: x1\n", "'instance-id' is meant?"),
    ("meta-data", "Instance-ID: x1\n", "'instance-id' is meant?"),
    ("meta-data", "instanceid: x1\n", "'instance-id' is meant?"),
    ("meta-data", "instance-id: x1\nlocal_hostname: pump-17\n", "'local-hostname' is meant?"),
    ("meta-data", "local-hostname: pump-17\n", "has no instance-id"),
    ("meta-data", "instance-id:\n", "must be a text that is not empty"),
    ("meta-data", "instance-id: ' '\n", "must be a text that is not empty"),
    ("meta-data", "instance-id: 17\n", "must be a text that is not empty"),
    ("meta-data", "instance-id: [x1]\n", "must be a text that is not empty"),
    ("meta-data", "instance-id=x1\n", "names with values"),
    ("meta-data", "instance-id: x1\n\tlocal-hostname: x\n", "it is not YAML"),
    ("user-data", "#cloud-config\nhostname: a\nhostname: b\n", "stands there twice"),
    ("user-data", "#cloud-config\nhostname: [\n", "it is not YAML"),
    ("user-data", "#cloud-config\n- hostname: a\n", "names with values"),
    ("user-data", "#!/bin/sh\n\tset -e: {\n", GOOD),
    // Nothing below its first line.
    ("user-data", "#cloud-config", GOOD),
    ("user-data", "#cloud-config\n", GOOD),
    ("user-data", "#cloud-config\n# hostname: a\n\n", GOOD),
    ("user-data", "#cloud-config\n---\n", GOOD),
    ("user-data", "#cloud-config\n{}\n", GOOD),
    ("user-data", "#cloud-config-archive\n", GOOD),
    ("user-data", "#cloud-config\nx\n", "names with values"),
    // A name that is nearly one that cloud-init has; and ones that are not: the schema leaves room for others' names.
    ("user-data", "#cloud-config\nssh_authorised_keys: [x]\n", "'ssh_authorized_keys' is meant?"),
    ("user-data", "#cloud-config\nssh-authorized-keys: [x]\n", "'ssh_authorized_keys' is meant?"),
    ("user-data", "#cloud-config\nssh_authorized_key: [x]\n", "'ssh_authorized_keys' is meant?"),
    ("user-data", "#cloud-config\nHostname: a\n", "'hostname' is meant?"),
    ("user-data", "#cloud-config\nrun_cmd: [ls]\n", "'runcmd' is meant?"),
    ("user-data", "#cloud-config\npacakges: [jq]\n", "'packages' is meant?"),
    ("user-data", "#cloud-config\nwrite_file: []\n", "'write_files' is meant?"),
    ("user-data", "#cloud-config\nuser-s: []\n", "'users' is meant?"),
    (
        "user-data",
        "#cloud-config\nssh_authorized_keys: [x]\nlocal_hostname: a\nx-hostname: a\nkubesolo: {a: b}\n",
        GOOD,
    ),
    ("user-data", "#cloud-config\nautoinstall: {version: 1}\nubuntu_pro: {}\nsystem_info: {}\n", GOOD),
];

/// What some versions of cloud-init read and others do not: taken, and said.
const DIFFERENT: &[(&str, &str, &str)] = &[
    (
        "network-config",
        "version: 2\nethernets:\n  eth0: {addresses: [192.0.2.7/24], routes: [{to: default, via: 192.0.2.1}]}\n",
        "0.0.0.0/0 and ::/0 are",
    ),
    (
        "network-config",
        "network:\n  version: 2\n  ethernets:\n    eth0: {addresses: ['2001:db8::7/64'], routes: [{to: default, via: '2001:db8::1'}]}\n",
        "0.0.0.0/0 and ::/0 are",
    ),
    (
        "network-config",
        "version: 2\nethernets:\n  a: {}\nbonds:\n  b0: {interfaces: [a], routes: [{to: default, via: 192.0.2.1}]}\n",
        "0.0.0.0/0 and ::/0 are",
    ),
];

/// What this machine has to judge with. Debian's Python sees nothing but what lies in a directory of ours.
#[derive(Clone, Copy, PartialEq)]
enum Judge {
    CloudInit,
    Yaml,
    Nothing,
}

impl Judge {
    fn script(self, site: &SiteFiles, stick: &Stick, more: &[&str]) -> Command {
        self.see(site, site.script(&stick.device, &[&["--force", "--dry-run"], more].concat()))
    }

    /// A command, where it sees no more than this.
    fn see(self, site: &SiteFiles, script: Command) -> Command {
        if self == Judge::CloudInit {
            return script;
        }
        let packages = site.path("packages");
        let _ = fs::remove_dir_all(&packages);
        fs::create_dir(&packages).unwrap();
        if self == Judge::Yaml {
            let copy = "cp -r /usr/lib/python3/dist-packages/*yaml* \"$1\"";
            run(Command::new("sh").args(["-euc", copy, "sh"]).arg(&packages));
        }
        let mut inside = Command::new("unshare");
        let hide = "mount --bind \"$1\" /usr/lib/python3/dist-packages; mount --bind /dev/null /usr/bin/cloud-init; shift; exec \"$@\"";
        inside.args(["--mount", "sh", "-euc", hide, "sh"]).arg(packages);
        inside.arg(script.get_program()).args(script.get_args());
        inside.current_dir(site.dir.path()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        inside
    }
}

/// The judge alone, as the script calls it: the script needs a second for each file.
const ALONE: &str = "REPO=$1
    . \"$REPO/scripts/lib/cli.sh\"
    UNCHECKED=no WORK=$2
    clean_up() { WORK=; }
    . \"$REPO/scripts/lib/cloud_init.sh\"
    check_cloud_init \"$3\" \"$4\" \"$5\"";

#[apply(test)]
fn each_of_cloud_inits_files_is_judged() {
    ready();
    need("cloud-init");
    need_python("cloudinit");
    let site = site();
    site.write("script", "#!/bin/sh\n");
    for judge in [Judge::CloudInit, Judge::Yaml] {
        for (kind, text, words) in FILES.iter().chain(DIFFERENT) {
            let is_different = DIFFERENT.iter().any(|row| row.1 == *text);
            site.write("judged", text);
            let of = |name| if *kind == name { "judged" } else { "" };
            let user_data = if *kind == "user-data" { "judged" } else { "script" };
            let mut alone = Command::new("sh");
            alone.args(["-euc", ALONE, "sh", env!("CARGO_MANIFEST_DIR")]).arg(site.dir.path());
            alone.args([user_data, of("meta-data"), of("network-config")]).current_dir(site.dir.path());
            let out = judge.see(&site, alone).output().unwrap();
            let found = (out.status.code(), said(&out));
            // A reader that takes it, as newer ones do, has nothing to say.
            if is_different && judge == Judge::CloudInit && reads(&site.path("judged")) {
                assert_eq!(found, (Some(0), String::new()), "{text}");
                continue;
            }
            let wanted = if *words == GOOD || is_different { 0 } else { 1 };
            assert!(found.0 == Some(wanted) && found.1.contains(words), "{text}: wanted '{words}': {found:?}");
            if wanted == 0 {
                let is_alone = found.1.contains("cloud-init is not installed here");
                assert_eq!(is_alone, judge == Judge::Yaml && !text.starts_with("#!"), "{text}: {found:?}");
            }
        }
    }
}

/// The script asks that judge, and of each file.
#[apply(test)]
fn what_cloud_init_would_not_read_is_refused_before_anything_is_erased() {
    ready();
    need_python("yaml");
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    for (kind, text, words) in [
        ("network-config", "network:\n  version: 2\n  ethernets:\n\teth0: {dhcp4: true}\n", "line 4, column 1"),
        ("network-config", "version: 2\nethernets:\n  eth0: {adresses: [192.0.2.7/24]}\n", "'addresses' is meant?"),
        ("meta-data", "instance_id: x1\n", "'instance-id' is meant?"),
        ("user-data", "#cloud-config\nhostname: [\n", "it is not YAML"),
    ] {
        site.write(kind, text);
        let more = ["--user-data", "user-data", "--force", "--yes", &format!("--{kind}"), kind];
        hold_refused(&stick, &mut site.script(&stick.device, &more), words);
    }
}

/// Whether the cloud-init that is here reads it, by the two steps that it takes at boot: what is below `network:` first.
fn reads(file: &Path) -> bool {
    let steps = "import sys, yaml
from cloudinit.net.network_state import parse_net_config_data
from cloudinit.stages import Init
parse_net_config_data(Init._remove_top_level_network_key(None, yaml.safe_load(open(sys.argv[1]))))";
    Command::new(crate::support::PYTHON).args(["-c", steps]).arg(file).output().unwrap().status.success()
}

/// What is taken is what cloud-init itself reads, and of its own readers nothing is refused.
#[apply(test)]
fn what_is_taken_is_read_by_cloud_init_itself() {
    need_python("cloudinit");
    let dir = tempfile::tempdir().unwrap();
    let mut looked_at = 0;
    for (kind, text, words) in FILES {
        let is_taken = *kind == "network-config" && *words == GOOD && !text.contains("disabled");
        if is_taken {
            let file = dir.path().join("file");
            fs::write(&file, text).unwrap();
            assert!(reads(&file), "{text}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 8, "{looked_at}");
}

#[apply(test)]
fn where_nothing_can_judge_it_is_said_and_told() {
    ready();
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    let more = ["--user-data", "user-data", "--network-config", "network-config"];
    hold_refused(&stick, &mut Judge::Nothing.script(&site, &stick, &more), "python3-yaml (PyYAML)");
    site.write("network-config", "ethernets:\n\teth0\n");
    for judge in [Judge::Nothing, Judge::CloudInit] {
        let out = judge.script(&site, &stick, &[&more[..], &["--unchecked"]].concat()).output().unwrap();
        assert!(out.status.success() && said(&out).contains("taken as they are"), "{}", said(&out));
    }
    // What it is told by its first line is seen without a parser.
    site.write("user-data", "hostname: x\n");
    hold_refused(
        &stick,
        &mut Judge::Nothing.script(&site, &stick, &[&more[..], &["--unchecked"]].concat()),
        "its first line",
    );
}

/// An initramfs with so many keys and lists of what is revoked.
fn with_keys(dir: &Path, name: &str, keys: usize, lists: usize) {
    let make = "mkdir -p t/etc/kubesolo/update-keys.d/revoked; cd t
        for n in $(seq $2); do
            openssl ecparam -name prime256v1 -genkey -noout | openssl ec -pubout 2>/dev/null >etc/kubesolo/update-keys.d/image-$n.pub
        done
        for n in $(seq $3); do
            printf 'sha256:%064d\n' \"$n\" >etc/kubesolo/update-keys.d/revoked/list-$n
        done
        echo no >etc/kubesolo/update-keys.d/notes; echo no >etc/kubesolo/other.pub
        find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet | gzip -n >\"../$1\"; cd ..; rm -r t";
    let counts = [name.to_string(), keys.to_string(), lists.to_string()];
    run(Command::new("sh").args(["-euc", make, "sh"]).args(counts).current_dir(dir));
}

#[apply(test)]
fn keys_of_the_image_of_the_update_and_of_the_site_are_counted_together() {
    ready();
    let site = site();
    let stick = Stick::new(site.dir.path(), "stick", STICK);
    // 10 keys and 62 lists in the image; 12 and 1 in the update.
    let mut build = build_image(site.dir.path(), &site.path("image"), 16, 16);
    with_keys(site.dir.path(), "born-initramfs", 10, 62);
    run(build.arg("--force"));
    with_keys(site.dir.path(), "update.gz", 12, 1);
    let mut publish = script(site.dir.path(), "publish-layout.sh");
    publish.args(["--layout", "full", "--tag", "stable", "--version", "1.1.0", "--arch", architecture()]);
    run(publish.args(["--kernel", "vmlinuz", "--initramfs", "update.gz"]));
    let revoked = fs::read(site.path("keys/revoked/list")).unwrap();
    for (keys, lists, layout, words) in [
        (6, 2, "", GOOD),
        (4, 2, "full", GOOD),
        (7, 2, "", "slot A of the image and --keys keys do not go together"),
        (6, 3, "", "slot A of the image and --keys keys do not go together"),
        (5, 2, "full", "in --layout full and --keys keys do not go together"),
    ] {
        fs::remove_dir_all(site.path("keys")).unwrap();
        fs::create_dir_all(site.path("keys/revoked")).unwrap();
        (0..keys).for_each(|n| fs::write(site.path(&format!("keys/{n}.pub")), site.key.pem()).unwrap());
        (0..lists).for_each(|n| fs::write(site.path(&format!("keys/revoked/{n}")), &revoked).unwrap());
        let mut more = vec!["--keys", "keys", "--force", "--dry-run"];
        if !layout.is_empty() {
            more.extend(["--layout", layout]);
        }
        let mut script = site.script(&stick.device, &more);
        if words == GOOD {
            run(&mut script);
        } else {
            hold_refused(&stick, &mut script, words);
        }
    }
    // Without keys of the site's there is nothing to add.
    run(site.script(&stick.device, &["--force", "--dry-run", "--layout", "full"]).env("KUBESOLO_UPDATE", "/bin/false"));
}

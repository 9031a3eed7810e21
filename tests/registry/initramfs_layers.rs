//! An initramfs in several layers: pushed by a real oras into registries and layouts, joined in the slot, cut off inside
//! a layer, and refused where the layers do not make what the publisher signed.

use crate::support::disk::{B, architecture, initramfs_of, need_disks, noise};
use crate::support::ferro::Ferro;
use crate::support::machine::{Left, Machine};
use crate::support::pull::machine;
use crate::support::registry::{INITRAMFS_TYPE, KERNEL_TYPE, Registry, oras};
use crate::support::relay::{Fault, Relay};
use crate::support::release::{Target, sha256};
use crate::support::{need_all, run};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// What is published: each layer is gzip by itself.
struct Layered {
    dir: TempDir,
    kernel: Vec<u8>,
    layers: Vec<Vec<u8>>,
}

impl Layered {
    fn new() -> Layered {
        let dir = tempfile::tempdir().unwrap();
        let layers = [900_001, 40_000, 700_003];
        let layers = layers.iter().zip(1..).map(|(n, seed)| initramfs_of(dir.path(), &noise(seed, *n))).collect();
        Layered { dir, kernel: noise(9, 100_001), layers }
    }

    fn whole(&self) -> Vec<u8> {
        self.layers.concat()
    }

    /// Pushes the layers in this order. Input: `whole`: the annotation with the digest of all of them.
    fn push(&self, kind: Target, target: &str, order: &[usize], whole: Option<&[u8]>) {
        let files = self.dir.path().join("files");
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join("vmlinuz"), &self.kernel).unwrap();
        let mut push = oras(self.dir.path());
        push.current_dir(&files).args([
            "push",
            kind.flag(),
            "--artifact-type",
            "application/vnd.kubesolo.os.update.v1",
        ]);
        push.args(["-a", "io.kubesolo.os.version=2.0.0", "-a"]);
        push.arg(format!("io.kubesolo.os.architecture={}", architecture()));
        if let Some(whole) = whole {
            push.arg("-a").arg(format!("io.kubesolo.os.initramfs_digest=sha256:{}", sha256(whole)));
        }
        push.arg(target).arg(format!("vmlinuz:{KERNEL_TYPE}"));
        for (place, layer) in order.iter().enumerate() {
            let name = format!("kubesolo-os.gz.{place}");
            fs::write(files.join(&name), &self.layers[*layer]).unwrap();
            push.arg(format!("{name}:{INITRAMFS_TYPE}"));
        }
        run(&mut push);
    }

    #[track_caller]
    fn assert_staged(&self, machine: &Machine) {
        assert!(machine.disk.file(B, "vmlinuz").unwrap() == self.kernel);
        assert!(machine.disk.file(B, "kubesolo-os.gz").unwrap() == self.whole());
        let record = machine.disk.text(B, "slot.json").unwrap();
        assert!(record.contains(&sha256(&self.whole())), "{record}");
        assert_eq!(machine.root.state_field("phase"), "staged");
        machine.root.agent(&["verify"]).expect(0, &["2.0.0"]);
    }
}

fn ready() {
    need_disks();
    need_all(&["docker-registry", "ferro-oci-server", "oras"]);
}

fn configured(host: &str) -> Machine {
    machine(&format!("registry = {host}/os:v1\nretries = 0\n"), None)
}

fn tar(layout: &Path, flags: &str, to: &Path) {
    run(Command::new("tar").arg("-C").arg(layout).arg(flags).arg(to).arg("."));
}

#[apply(test)]
fn layers_from_every_source_become_one_file() {
    ready();
    let made = Layered::new();
    let whole = made.whole();
    let (docker, ferro) = (Registry::start(made.dir.path(), None), Ferro::start(made.dir.path()));
    for host in [docker.host(), ferro.host()] {
        made.push(Target::Registry, &format!("{host}/os:v1"), &[0, 1, 2], Some(&whole));
        let machine = configured(&host);
        machine.apply(&[]).expect(0, &["2.0.0 is staged"]);
        made.assert_staged(&machine);
    }
    let layout = made.dir.path().join("layout");
    made.push(Target::Layout, &format!("{}:latest", layout.display()), &[0, 1, 2], Some(&whole));
    let (plain, gzipped) = (made.dir.path().join("layout.tar"), made.dir.path().join("layout.tgz"));
    tar(&layout, "-cf", &plain);
    tar(&layout, "-czf", &gzipped);
    for medium in [&layout, &plain, &gzipped] {
        let machine = machine("", None);
        machine.apply(&["--layout", medium.to_str().unwrap()]).expect(0, &["2.0.0 is staged"]);
        made.assert_staged(&machine);
    }
}

#[apply(test)]
fn a_download_that_breaks_off_inside_a_layer_goes_on_there() {
    ready();
    let made = Layered::new();
    let registry = Registry::start(made.dir.path(), None);
    made.push(Target::Registry, &format!("{}/os:v1", registry.host()), &[0, 1, 2], Some(&made.whole()));
    // Inside the third: 100,000 of the kernel and 940,000 of the first two lie before it.
    let relay = Relay::start(registry.port, Fault::Cut(1_300_000));
    let machine = configured(&relay.host());
    machine.apply(&[]).expect(6, &["kubesolo-os.gz"]);
    assert_eq!(relay.faults(), 1);
    let before = registry.settled_requests("first").len();
    machine.apply(&[]).expect(0, &["2.0.0 is staged", "kubesolo-os.gz: continuing after"]);
    made.assert_staged(&machine);
    let requests = registry.settled_requests("second");
    let gets: Vec<&String> =
        requests[before..].iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/")).collect();
    assert!(gets.len() == 1 && gets[0].contains(&sha256(&made.layers[2])) && gets[0].ends_with(" 206"), "{gets:?}");
}

#[apply(test)]
fn layers_that_do_not_make_what_was_announced_never_count() {
    ready();
    let made = Layered::new();
    let registry = Registry::start(made.dir.path(), None);
    let repository = format!("{}/os:v1", registry.host());
    let whole = made.whole();
    // In another order; one left out; one twice; a digest of something else.
    for order in [&[1, 0, 2][..], &[0, 1], &[0, 1, 2, 2]] {
        made.push(Target::Registry, &repository, order, Some(&whole));
        let machine = configured(&registry.host());
        machine.apply(&[]).expect(5, &["verify kubesolo-os.gz", "expected was"]);
        machine.assert_unharmed(&format!("{order:?}"), "failed", "digest", Left::Invalid);
    }
    made.push(Target::Registry, &repository, &[0, 1, 2], None);
    let machine = configured(&registry.host());
    machine.apply(&[]).expect(6, &["more than one initramfs layer", "io.kubesolo.os.initramfs_digest"]);
    machine.assert_unharmed("no digest", "failed", "source", Left::Untouched);
}

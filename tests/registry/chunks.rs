//! What the running slot has is copied from there: whole files and layers by digest, parts of a layer by its chunk index; from
//! every source, and whatever is wrong with the index, with the slot or with the server, the release is staged all the same.

use crate::support::delta::{Delta, index};
use crate::support::disk::{A, architecture, initramfs_of, need_disks, noise};
use crate::support::ferro::Ferro;
use crate::support::machine::Machine;
use crate::support::pull::assert_staged;
use crate::support::registry::{CHUNKS_TYPE, INITRAMFS_TYPE, KERNEL_TYPE, Registry, oras};
use crate::support::release::{Target, sha256};
use crate::support::root::{Root, Run};
use crate::support::{need, need_all, run};
use std::fs;
use std::process::Command;

/// Of about 1,600,000 bytes, 60,000 are others, in chunks of 20,000 on average.
const MOST_FETCHED: u64 = 200_000;

fn ready() {
    need_disks();
    need_all(&["docker-registry", "oras"]);
}

/// How many bytes of files a run says that it fetched and copied.
#[track_caller]
fn traffic(run: &Run) -> (u64, u64) {
    let number = |field: &str| run.jq(field).parse().unwrap_or_else(|_| panic!("{run:?}"));
    (number(".fetched_bytes"), number(".copied_bytes"))
}

#[track_caller]
fn staged(machine: &Machine, delta: &Delta, arguments: &[&str]) -> (u64, u64) {
    let run = machine.apply(&[arguments, &["--json"]].concat()).expect(0, &["\"staged\""]);
    assert_staged(machine, &delta.new);
    assert!(machine.disk.bytes(A) == machine.running, "the running slot was written");
    traffic(&run)
}

#[apply(test)]
fn a_registry_sends_only_what_the_slot_lacks() {
    ready();
    let (delta, dir) = (Delta::new(), tempfile::tempdir().unwrap());
    let ours = delta.new.ours();
    let registry = Registry::start(dir.path(), None);
    delta.new.publish(dir.path(), Target::Registry, &format!("{}/os", registry.host()), "v1");
    let machine = delta.machine();
    machine.root.configure(&format!("signature = off\nregistry = {}/os:v1\nretries = 0\n", registry.host()));
    let size = (ours.kernel.len() + ours.initramfs.len()) as u64;
    // Asked first, and asked again where nothing has changed: the same answer, and nothing is written.
    for form in [&["check", "--json"][..], &["apply", "--dry-run", "--json"], &["check", "--json"]] {
        let run = machine.root.agent(form).expect(0, &["\"available\""]);
        let [fetch, at_hand] = [".fetch_bytes", ".at_hand_bytes"].map(|field| run.jq(field).parse::<u64>().unwrap());
        assert_eq!(fetch + at_hand, size);
        assert!(fetch - (ours.kernel.len() as u64) < MOST_FETCHED, "{run:?}");
    }
    machine.root.agent(&["check"]).expect(0, &["To fetch", "; slot A has the other 1."]);
    assert!(machine.disk.bytes(crate::support::disk::B) == machine.target, "a dry run wrote");
    let before = registry.settled_requests("first").len();
    let (fetched, copied) = staged(&machine, &delta, &[]);
    assert_eq!(fetched + copied, size);
    assert!(fetched - (ours.kernel.len() as u64) < MOST_FETCHED, "{fetched}");
    // Held against the registry's own words: the initramfs came in parts, the kernel whole, the index once.
    let gets: Vec<String> = registry.settled_requests("second")[before..]
        .iter()
        .filter(|line| line.starts_with("GET") && line.contains("/blobs/"))
        .cloned()
        .collect();
    let of = |digest: &str, status: &str| gets.iter().filter(|l| l.contains(digest) && l.ends_with(status)).count();
    let (kernel, initramfs, chunks) = (sha256(&ours.kernel), sha256(&ours.initramfs), ours.chunks.as_ref().unwrap());
    assert_eq!((of(&kernel, " 200"), of(&sha256(chunks), " 200"), of(&initramfs, " 200")), (1, 1, 0), "{gets:?}");
    assert!((1..=4).contains(&of(&initramfs, " 206")), "{gets:?}");
    // A dry run is `check` in everything, also in what is not said.
    for quiet in [&["--quiet"][..], &["--quiet", "--json"], &[]] {
        let [check, dry] =
            [&["check"][..], &["apply", "--dry-run"]].map(|form| machine.root.agent(&[form, quiet].concat()));
        assert_eq!((check.code, &check.stdout, &check.stderr), (dry.code, &dry.stdout, &dry.stderr), "{quiet:?}");
    }
    let page = machine.root.agent(&["metrics", "--once"]).expect(0, &[]).stdout;
    for (origin, bytes) in [("network", fetched), ("slot", copied)] {
        assert!(page.contains(&format!("kubesolo_update_bytes_total{{origin=\"{origin}\"}} {bytes}\n")), "{page}");
    }
}

#[apply(test)]
fn every_source_has_the_index() {
    ready();
    need("ferro-oci-server");
    let (delta, dir) = (Delta::new(), tempfile::tempdir().unwrap());
    let layout = dir.path().join("layout");
    delta.new.publish(dir.path(), Target::Layout, layout.to_str().unwrap(), "latest");
    let (plain, gzipped) = (dir.path().join("layout.tar"), dir.path().join("layout.tgz"));
    for (flags, to) in [("-cf", &plain), ("-czf", &gzipped)] {
        run(Command::new("tar").arg("-C").arg(&layout).arg(flags).arg(to).arg("."));
    }
    let kernel = delta.new.ours().kernel.len() as u64;
    for medium in [&layout, &plain] {
        let machine = delta.machine();
        machine.root.configure("signature = off\n");
        let (fetched, copied) = staged(&machine, &delta, &["--layout", medium.to_str().unwrap()]);
        assert!(fetched < kernel + MOST_FETCHED && copied > 1_000_000, "{}: {fetched} {copied}", medium.display());
    }
    // To get at a part of it, all before is inflated; so what follows the first part that is lacking is taken from there.
    let machine = delta.machine();
    machine.root.configure("signature = off\n");
    let (fetched, copied) = staged(&machine, &delta, &["--layout", gzipped.to_str().unwrap()]);
    assert!(copied > 100_000 && fetched > kernel + MOST_FETCHED, "{fetched} {copied}");
    // Neither sends parts: the same.
    let (ferro, web) = (Ferro::start(dir.path()), delta.new.serve());
    delta.new.publish(dir.path(), Target::Registry, &format!("{}/os", ferro.host()), "v1");
    for source in [["--registry", &format!("{}/os:v1", ferro.host())], ["--server", &web.url("")]] {
        let machine = delta.machine();
        machine.root.configure("signature = off\n");
        let (fetched, copied) = staged(&machine, &delta, &source);
        assert!(copied > 100_000 && fetched > kernel + MOST_FETCHED, "{source:?}: {fetched} {copied}");
    }
    let layers =
        |path: &str| web.seen().iter().filter(|seen| **seen == format!("GET /{}/{path}", architecture())).count();
    assert_eq!((layers("kubesolo-os.gz"), layers("kubesolo-os.gz.chunks")), (1, 1), "{:?}", web.seen());
}

#[apply(test)]
fn what_the_slot_has_whole_is_not_fetched_at_all() {
    ready();
    let dir = tempfile::tempdir().unwrap();
    let layer = |seed, length| initramfs_of(dir.path(), &noise(seed, length));
    let [base, old, new] = [layer(1, 900_000), layer(2, 200_000), layer(3, 210_000)];
    let mut delta = Delta::new();
    delta.old_initramfs = [&base[..], &old].concat();
    delta.old_kernel = delta.new.ours().kernel.clone();
    let ours = delta.new.ours_mut();
    ours.initramfs = [&base[..], &new].concat();
    (ours.first_layer, ours.chunks) = (base.len(), None);
    let layout = dir.path().join("layout");
    delta.new.publish(dir.path(), Target::Layout, layout.to_str().unwrap(), "latest");
    for (layers, copied) in [
        // The record names the layers; it names them wrongly; it is an older agent's.
        (vec![&base[..], &old], delta.old_kernel.len() + base.len()),
        (vec![&old[..], &base], delta.old_kernel.len() + base.len()),
        (vec![], delta.old_kernel.len()),
    ] {
        let is_good = layers.first() != Some(&&old[..]);
        let mut machine = Machine::new();
        machine.root.configure("signature = off\n");
        delta.install(&mut machine, &layers);
        let path = layout.to_str().unwrap();
        // Of a layer that is not where the record says, the digest of the whole tells.
        let (fetched, now) = staged(&machine, &delta, &["--layout", path]);
        let all = delta.old_kernel.len() + base.len() + new.len();
        match is_good {
            true => assert_eq!((fetched as usize, now as usize), (all - copied, copied)),
            false => assert_eq!((fetched as usize, now as usize), (new.len() + base.len() + new.len(), copied)),
        }
        // What was staged knows its layers.
        let record = machine.disk.text(crate::support::disk::B, "slot.json").unwrap();
        for layer in [&base, &new] {
            assert!(
                record.contains(&format!(r#"{{"size":{},"sha256":"{}"}}"#, layer.len(), sha256(layer))),
                "{record}"
            );
        }
    }
}

/// Each lie, what is said, and whether anything of the initramfs is copied. Nothing of it costs more than the whole layer.
#[apply(test)]
fn an_index_that_lies_costs_the_whole_layer_and_nothing_worse() {
    ready();
    let good = Delta::new();
    let real = good.new.ours().chunks.clone().unwrap();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut index = real.clone();
        change(&mut index);
        index
    };
    let count = u32::from_le_bytes(real[12..16].try_into().unwrap()) as usize;
    let swapped = |index: &mut Vec<u8>| {
        // The last but one, and the one before, so that both are at hand: in the wrong order.
        let at = 56 + 12 * (count - 4);
        let (first, second) = (index[at..at + 12].to_vec(), index[at + 12..at + 24].to_vec());
        index[at..at + 12].copy_from_slice(&second);
        index[at + 12..at + 24].copy_from_slice(&first);
    };
    let ones = |index: &mut Vec<u8>| {
        index.truncate(56);
        index[12..16].copy_from_slice(&1_000_000u32.to_le_bytes());
        (0..1_000_000).for_each(|_| index.extend_from_slice(&[1, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]));
    };
    for (name, index, words) in [
        ("garbage", b"garbage".to_vec(), &["cut off in its header", "fetched whole"][..]),
        ("another layer", index(&noise(1, 50_000)), &["another layer", "fetched whole"]),
        ("a million chunks of one byte", with(&ones), &["more than it may have", "fetched whole"]),
        ("a length", with(&|index| index[56] ^= 1), &["chunk", "fetched whole"]),
        ("one too few", with(&|index| index.truncate(real.len() - 12)), &["number of chunks", "fetched whole"]),
        ("another version", with(&|index| index[7] = 2), &["version 1", "fetched whole"]),
        ("the order", with(&swapped), &["it is not what was published", "all of it fetched"]),
    ] {
        let mut delta = Delta { new: good.new.clone(), ..Delta::new() };
        delta.new.ours_mut().chunks = Some(index);
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path().join("layout");
        delta.new.publish(dir.path(), Target::Layout, layout.to_str().unwrap(), "latest");
        let machine = delta.machine();
        machine.root.configure("signature = off\n");
        // A publisher hears of it: what can be told without the layer.
        let of_layer = format!("initramfs, sha256:{}: ", &sha256(&delta.new.ours().initramfs)[..12]);
        let mut inspect = Command::new(Root::program());
        inspect.arg("inspect").arg("--config").arg(machine.root.path("etc/kubesolo/update.conf")).arg(&layout);
        let inspected = Run::from(inspect.output().unwrap());
        match name {
            "the order" => inspected.expect(0, &["with a chunk index"]),
            // Machines take it, so it is no reason to refuse; it is one to make the index anew.
            _ => inspected
                .expect(0, &[words[0], &of_layer, "with a chunk index that is of no use", "all of it is there"]),
        };
        let run =
            machine.apply(&["--layout", layout.to_str().unwrap()]).expect(0, &["2.0.0 is staged"]).expect(0, words);
        assert_staged(&machine, &delta.new);
        assert!(run.stderr.matches("fetched").count() == 1, "{name}: more than one line: {}", run.stderr);
    }
}

/// The finest index of a layer: all its chunks are as short as a rule lets them be.
fn finest(layer: &[u8]) -> Vec<u8> {
    const LEAST: usize = 1024;
    let mut index = index(layer)[..56].to_vec();
    index[8..12].copy_from_slice(&12u32.to_le_bytes());
    index[12..16].copy_from_slice(&(layer.len().div_ceil(LEAST) as u32).to_le_bytes());
    for chunk in layer.chunks(LEAST) {
        index.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
        index.extend_from_slice(&[7; 8]);
    }
    index
}

/// Each index is one that machines read; both together have more than 65,536 chunks.
#[apply(test)]
fn of_layers_with_too_many_chunks_together_the_rest_is_fetched() {
    ready();
    let (delta, dir) = (Delta::new(), tempfile::tempdir().unwrap());
    let layers = [1, 2].map(|seed| initramfs_of(dir.path(), &noise(seed, 33_700_000)));
    fs::write(dir.path().join("vmlinuz"), &delta.new.ours().kernel).unwrap();
    for (number, layer) in layers.iter().enumerate() {
        let finest = finest(layer);
        assert!((32_769..65_536).contains(&((finest.len() - 56) / 12)), "{}", finest.len());
        fs::write(dir.path().join(format!("{number}.gz")), layer).unwrap();
        fs::write(dir.path().join(format!("{number}.chunks")), finest).unwrap();
    }
    let mut push = oras(dir.path());
    push.current_dir(dir.path()).args(["push", "--oci-layout", "layout:latest", "--artifact-type"]);
    push.args(["application/vnd.kubesolo.os.update.v1", "--artifact-platform"]);
    push.arg(format!("linux/{}", architecture()));
    let whole = sha256(&layers.concat());
    for annotation in ["version=2.0.0", &format!("initramfs_digest=sha256:{whole}")] {
        push.arg("-a").arg(format!("io.kubesolo.os.{annotation}"));
    }
    push.arg("-a").arg(format!("io.kubesolo.os.architecture={}", architecture()));
    push.arg(format!("vmlinuz:{KERNEL_TYPE}"));
    for number in 0..layers.len() {
        push.arg(format!("{number}.gz:{INITRAMFS_TYPE}")).arg(format!("{number}.chunks:{CHUNKS_TYPE}"));
    }
    run(&mut push);
    let mut machine = Machine::with_slots(100);
    machine.root.configure("signature = off\n");
    delta.install(&mut machine, &[]);
    let run = machine.apply(&["--layout", dir.path().join("layout").to_str().unwrap()]);
    let said = "kubesolo-os.gz: its layers have more than 65536 chunks; the rest is fetched";
    assert_eq!(run.expect(0, &["2.0.0 is staged"]).stderr.matches(said).count(), 1);
    assert!(machine.disk.file(crate::support::disk::B, "kubesolo-os.gz").unwrap() == layers.concat());
}

#[apply(test)]
fn bytes_of_the_slot_that_have_rotted_cost_the_whole_layer_and_nothing_worse() {
    ready();
    let (delta, dir) = (Delta::new(), tempfile::tempdir().unwrap());
    let layout = dir.path().join("layout");
    delta.new.publish(dir.path(), Target::Layout, layout.to_str().unwrap(), "latest");
    let source = ["--layout", layout.to_str().unwrap()];
    let sound = delta.machine();
    sound.root.configure("signature = off\n");
    let (_, of_sound) = staged(&sound, &delta, &source);
    // A byte in the middle: its chunk is just another one. Another file under the same record: nothing is found in it.
    for (what, script, is_any) in [
        ("a byte", "printf x | dd of=kubesolo-os.gz bs=1 seek=200000 conv=notrunc status=none", true),
        (
            "another file",
            "size=$(jq .initramfs.size slot.json); rm kubesolo-os.gz; head -c \"$size\" /dev/zero >kubesolo-os.gz",
            false,
        ),
    ] {
        let mut machine = delta.machine();
        machine.in_slot(A, script);
        machine.running = machine.disk.bytes(A);
        machine.root.configure("signature = off\n");
        let (_, copied) = staged(&machine, &delta, &source);
        assert!(copied < of_sound && (copied > 0) == is_any, "{what}: {copied} of {of_sound}");
    }
    // The kernel is said to be the same, and is not any more.
    let mut delta = delta;
    delta.old_kernel = delta.new.ours().kernel.clone();
    let mut machine = delta.machine();
    machine.in_slot(A, "printf x | dd of=vmlinuz bs=1 seek=200000 conv=notrunc status=none");
    machine.running = machine.disk.bytes(A);
    machine.root.configure("signature = off\n");
    let run =
        machine.apply(&source).expect(0, &["vmlinuz: with what the running slot has it is not what was published"]);
    assert_eq!(run.stderr.matches("all of it fetched").count(), 1, "{}", run.stderr);
    assert_staged(&machine, &delta.new);
}

#[apply(test)]
fn stock_tools_pull_a_release_with_an_index() {
    ready();
    let (delta, dir) = (Delta::new(), tempfile::tempdir().unwrap());
    let registry = Registry::start(dir.path(), None);
    let pushed = format!("{}/os", registry.host());
    delta.new.publish(dir.path(), Target::Registry, &pushed, "v1");
    let pulled = dir.path().join("pulled");
    let mut pull = oras(dir.path());
    run(pull.args(["pull", "--plain-http", "-o"]).arg(&pulled).arg(format!("{pushed}:v1-{}", architecture())));
    assert!(fs::read(pulled.join("kubesolo-os.gz")).unwrap() == delta.new.ours().initramfs);
    assert!(fs::read(pulled.join("kubesolo-os.gz.chunks")).unwrap() == *delta.new.ours().chunks.as_ref().unwrap());
    let mut fetch = oras(dir.path());
    let manifest = run(fetch.args(["manifest", "fetch", "--plain-http", &format!("{pushed}:v1-{}", architecture())]));
    assert!(manifest.contains(CHUNKS_TYPE), "{manifest}");
}

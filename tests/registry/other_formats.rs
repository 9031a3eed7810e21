//! What is signed, or attested, in a format that the agent does not read: it is named, in registries with and without a
//! referrers API, and in layouts; made by a real cosign, in its old format as in its new one. A layout that `cosign save`
//! wrote is read, although no list of it names the signature.

use crate::support::disk::need_disks;
use crate::support::machine::Machine;
use crate::support::registry::oras;
use crate::support::root::{Run, jq};
use crate::support::signed::On::{Index, Ours, Theirs};
use crate::support::signed::Who::Right;
use crate::support::signed::{Column, On, Scene, Trust, World, configure, install};
use crate::support::signing::{BUNDLE_TYPE, cosign};
use crate::support::{need_all, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn ready() {
    need_disks();
    need_all(&["openssl", "oras", "cosign", "docker-registry", "ferro-oci-server", "jq", "tar"]);
}

const RIGHT: Trust = Trust { installed: &[Right], revoked: &[], threshold: 1 };
/// The way out is said once.
const COSIGN_2: &str = "it is signed in cosign 2's format, which is not read (the publisher signs with `cosign sign --key` of \
    cosign 3 (P-256) or scripts/sign.sh)";
const ATTESTED: &str = "it is not signed; there is an attestation, which is not a signature";
const NOTHING: &str = ": it is not signed (";

/// Lets a real cosign work in the format that cosign 2 has.
fn cosign_2(scene: &Scene, on: On, verb: &str, more: &[&str]) {
    let mut sign = cosign(scene.world.home());
    sign.args([verb, "--yes", "--key", "cosign-right.key", "--tlog-upload=false", "--new-bundle-format=false"]);
    sign.args(["--use-signing-config=false", "--allow-http-registry"]).args(more).env("COSIGN_EXPERIMENTAL", "1");
    run(sign.arg(scene.reference(on)));
}

fn predicate(scene: &Scene) -> Vec<String> {
    let file = scene.world.home().join("predicate.json");
    fs::write(&file, r#"{"packages":[]}"#).unwrap();
    ["--type", "custom", "--predicate", file.to_str().unwrap()].map(str::to_owned).into()
}

fn attest_2(scene: &Scene, on: On) {
    let predicate = predicate(scene);
    cosign_2(scene, on, "attest", &predicate.iter().map(String::as_str).collect::<Vec<_>>());
}

fn attest_3(scene: &Scene, on: On) {
    let mut attest = cosign(scene.world.home());
    attest.args(["attest", "--yes", "--key", "cosign-right.key", "--signing-config", "config.json"]);
    run(attest.args(predicate(scene)).args(["--allow-http-registry", &scene.reference(on)]));
}

/// Attaches, with a real oras, something of this type.
fn attach(scene: &Scene, artifact_type: &str, layer_type: &str) {
    fs::write(scene.world.home().join("thing"), "thing").unwrap();
    let mut attach = oras(scene.world.home());
    attach.args(["attach", "--plain-http", "--artifact-type", artifact_type, &scene.reference(Index)]);
    run(attach.arg(format!("thing:{layer_type}")));
}

/// Puts something under the tag that cosign 2 would use. Input: `name`: of the digest, and how it ends.
fn tag(scene: &Scene, name: &str) {
    fs::write(scene.world.home().join("thing"), "thing").unwrap();
    let mut push = oras(scene.world.home());
    run(push.args(["push", "--plain-http", &format!("{}:{name}", scene.world.repository()), "thing:text/spdx"]));
}

fn tag_name(scene: &Scene, on: On) -> String {
    scene.digest(on).replace(':', "-")
}

/// Name, how it is made, exit code of `check`, and what it says.
type Row = (&'static str, fn(&Scene), i32, &'static [&'static str]);

/// A line for each kind that people have.
const ROWS: [Row; 17] = [
    ("cosign 2", |s| cosign_2(s, Index, "sign", &[]), 5, &[COSIGN_2, "`cosign sign --key` of cosign 3"]),
    ("cosign 2, on the manifest", |s| cosign_2(s, Ours, "sign", &[]), 5, &[COSIGN_2]),
    ("cosign 2, on all of it", |s| cosign_2(s, Index, "sign", &["--recursive"]), 5, &[COSIGN_2]),
    ("cosign 2, on the other's manifest", |s| cosign_2(s, Theirs, "sign", &[]), 5, &[NOTHING]),
    ("cosign 2, as a referrer", |s| cosign_2(s, Index, "sign", &["--registry-referrers-mode=oci-1-1"]), 5, &[COSIGN_2]),
    ("attestation by cosign 2", |s| attest_2(s, Index), 5, &[ATTESTED]),
    ("attestation by cosign 3", |s| attest_3(s, Index), 5, &[ATTESTED]),
    ("attestation by cosign 3, on the manifest", |s| attest_3(s, Ours), 5, &[ATTESTED]),
    (
        "cosign 2, and an attestation by cosign 3",
        |s| {
            attest_3(s, Index);
            cosign_2(s, Index, "sign", &[]);
        },
        5,
        &[COSIGN_2],
    ),
    (
        "cosign 2, and cosign 3",
        |s| {
            cosign_2(s, Index, "sign", &[]);
            s.cosign(Index, Right);
        },
        0,
        &[],
    ),
    (
        "attestation, and cosign 3",
        |s| {
            attest_3(s, Index);
            s.cosign(Index, Right);
        },
        0,
        &[],
    ),
    (
        "notation",
        |s| attach(s, "application/vnd.cncf.notary.signature", "application/jose+json"),
        5,
        &["it is signed by notation, whose format is not read"],
    ),
    (
        "a bundle of another version",
        |s| attach(s, &BUNDLE_TYPE.replace("v0.3", "v0.2"), &BUNDLE_TYPE.replace("v0.3", "v0.2")),
        5,
        &["a sigstore bundle of another version, and 0.3 alone is read"],
    ),
    ("an SBOM as cosign 2 attached it", |s| tag(s, &format!("{}.sbom", tag_name(s, Index))), 5, &[NOTHING]),
    ("an SBOM by oras", |s| attach(s, "application/spdx+json", "text/spdx"), 5, &[NOTHING]),
    ("something else under cosign 2's tag", |s| tag(s, &format!("{}.sig", tag_name(s, Index))), 5, &[NOTHING]),
    (
        "cosign 2's tag, of another algorithm",
        |s| tag(s, &format!("{}.sig", tag_name(s, Index).replace("sha256", "sha512"))),
        5,
        &[NOTHING],
    ),
];

fn machine(world: &World) -> Machine {
    let machine = Machine::new();
    install(&machine, world, RIGHT);
    configure(&machine, 1);
    machine
}

fn through_a_registry(column: Column) {
    ready();
    let world = World::new(column);
    let machine = machine(&world);
    for (n, (name, make, code, words)) in ROWS.into_iter().enumerate() {
        eprintln!("{column:?}: {name}");
        let scene = world.publish(&format!("row-{n}"));
        make(&scene);
        let registry = format!("{}:{}", world.repository(), scene.tag);
        machine.root.agent(&["check", "--registry", &registry]).expect(code, words);
    }
}

#[apply(test)]
fn in_a_registry_without_a_referrers_api_each_is_named() {
    through_a_registry(Column::TagFallback);
}

#[apply(test)]
fn in_a_registry_with_a_referrers_api_each_is_named() {
    through_a_registry(Column::ReferrersApi);
}

/// What a real `cosign save` writes.
fn save(scene: &Scene, on: On, name: &str) -> PathBuf {
    let dir = scene.world.home().join(name);
    let mut save = cosign(scene.world.home());
    run(save.args(["save", "--allow-http-registry", "--dir"]).arg(&dir).arg(scene.reference(on)));
    dir
}

fn check(machine: &Machine, layout: &Path, more: &[&str]) -> Run {
    machine.root.agent(&[&["check", "--layout", layout.to_str().unwrap()], more].concat())
}

/// The same as an archive, plain and in gzip.
fn archives(layout: &Path) -> [PathBuf; 2] {
    [("tar", "-cf"), ("tgz", "-czf")].map(|(end, flag)| {
        let archive = layout.with_extension(end);
        run(Command::new("tar").arg(flag).arg(&archive).arg("-C").arg(layout).arg("."));
        archive
    })
}

#[apply(test)]
fn what_cosign_saves_is_read() {
    ready();
    let world = World::new(Column::TagFallback);
    let machine = machine(&world);
    for (n, on) in [Index, Ours].into_iter().enumerate() {
        let scene = world.publish(&format!("v{n}"));
        scene.cosign(on, Right);
        let layout = save(&scene, on, &format!("saved-{n}"));
        // That it is what it is about: one entry, no tag, and the signature in no list.
        let index = fs::read_to_string(layout.join("index.json")).unwrap();
        let shape = "[.manifests[] | [.annotations[\"org.opencontainers.image.ref.name\"], .digest]]";
        assert_eq!(jq(&index, shape), format!("[[null,\"{}\"]]", scene.digest(on)));
        for source in [&[layout.clone()][..], &archives(&layout)].concat() {
            let words = [world.key(Right).fingerprint()];
            check(&machine, &source, &["--json"]).expect(0, &[&words[0], scene.digest(on)]);
        }
        // Its signature taken out of it, and another's put in.
        let around = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
        let around = around.filter(|path| fs::read(path).unwrap().windows(9).any(|part| part == b"\"subject\""));
        let around: Vec<PathBuf> = around.collect();
        assert_eq!(around.len(), 1);
        let text = fs::read_to_string(&around[0]).unwrap();
        fs::write(&around[0], text.replace("dsse-envelope", "dsse-envelop_")).unwrap();
        check(&machine, &layout, &[]).expect(5, &["hashes to"]);
        fs::remove_file(&around[0]).unwrap();
        check(&machine, &layout, &[]).expect(5, &[NOTHING]);
    }
}

#[apply(test)]
fn what_cosign_saves_in_its_old_format_is_named() {
    ready();
    let world = World::new(Column::TagFallback);
    let machine = machine(&world);
    let by_2 = |scene: &Scene| cosign_2(scene, Index, "sign", &[]);
    for (n, (make, words)) in
        [(by_2 as fn(&Scene), COSIGN_2), (|scene| attest_2(scene, Index), ATTESTED)].into_iter().enumerate()
    {
        let scene = world.publish(&format!("v{n}"));
        make(&scene);
        let layout = save(&scene, Index, &format!("saved-{n}"));
        for source in [&[layout.clone()][..], &archives(&layout)].concat() {
            check(&machine, &source, &[]).expect(5, &[words]);
        }
    }
    // Copied by its tag, as oras does.
    let scene = world.publish("tagged");
    by_2(&scene);
    let layout = world.home().join("copied");
    for name in ["tagged".to_owned(), format!("{}.sig", tag_name(&scene, Index))] {
        let mut copy = oras(world.home());
        copy.args(["cp", "--from-plain-http", "--to-oci-layout", &format!("{}:{name}", world.repository())]);
        run(copy.arg(format!("copied:{name}")));
    }
    check(&machine, &layout, &[]).expect(5, &[COSIGN_2]);
    check(&machine, &layout, &["--tag", "tagged"]).expect(5, &[COSIGN_2]);
    // Another release's signature is not this one's.
    let other = world.publish("other");
    let mut copy = oras(world.home());
    copy.args(["cp", "--from-plain-http", "--to-oci-layout", &format!("{}:other", world.repository()), "copied:other"]);
    run(&mut copy);
    check(&machine, &layout, &["--tag", "other"]).expect(5, &[NOTHING]);
    check(&machine, &layout, &[]).expect(2, &["it has: other, tagged", "choose one with --tag"]);
    drop(other);
}

#[apply(test)]
fn a_layout_without_tags_says_how_to_choose() {
    ready();
    let world = World::new(Column::TagFallback);
    let machine = machine(&world);
    let (one, two) = (world.publish("one"), world.publish("two"));
    let layout = world.home().join("untagged");
    for scene in [&one, &two] {
        scene.cosign(Index, Right);
        let mut copy = oras(world.home());
        copy.args(["cp", "-r", "--from-plain-http", "--to-oci-layout", &scene.reference(Index)]);
        run(copy.arg(format!("untagged@{}", scene.digest(Index))));
    }
    let said = check(&machine, &layout, &[]);
    let hint = "choose one with --tag sha256:HEX, or name it: oras tag --oci-layout DIR@sha256:HEX latest";
    said.expect(2, &["it has no tags; it holds ", one.digest(Index), two.digest(Index), hint]);
    // Both ways that it names lead there.
    for scene in [&one, &two] {
        check(&machine, &layout, &["--json", "--tag", scene.digest(Index)]).expect(0, &[scene.digest(Ours)]);
    }
    let other = format!("sha256:{}", "0".repeat(64));
    check(&machine, &layout, &["--tag", &other]).expect(2, &[&format!("no entry {other} here; it has no tags")]);
    for tag in ["sha256:0", "sha512:00", &two.digest(Index).to_uppercase()] {
        check(&machine, &layout, &["--tag", tag]).expect(2, &["digest"]);
    }
    run(oras(world.home()).args(["tag", "--oci-layout", &format!("untagged@{}", two.digest(Index)), "latest"]));
    check(&machine, &layout, &["--json"]).expect(0, &[two.digest(Ours)]);
}

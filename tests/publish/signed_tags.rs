//! Tags, and a latest.json, that leave what is signed: for what is not, which is refused, or for what other keys sign.

use super::registry::{SCRIPT, push, ready, resolve, writes};
use crate::support::publish::{Desk, refused, stderr};
use crate::support::registry::Registry;
use crate::support::run;
use crate::support::signing::{KeyPair, cosign, cosign_sign};
use std::fs;
use std::path::Path;

/// Machines that took what a tag named would refuse what is not signed.
#[apply(test)]
fn no_tag_moves_from_what_is_signed_to_what_is_not() {
    ready(&["cosign"]);
    let desk = Desk::new();
    desk.prepare("1.1.0");
    desk.prepare("1.2.0");
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let options = ["--repository", &repository, "--plain-http"];
    let unsigned = |version: &str, arches: &[&str], more: &[&str]| {
        desk.script(SCRIPT, version, arches, &[&options, more].concat()).output().unwrap()
    };
    let signed = run(&mut push(&desk, &repository, "1.1.0", &["amd64"], &[]));
    let written = writes(&registry).len();
    for more in [&["--tag", "stable"][..], &["--tag", "new", "--tag", "stable"], &["--tag", "stable", "--dry-run"]] {
        refused(&unsigned("1.2.0", &["amd64"], more), &[":stable is signed", "Give --key"]);
    }
    // An index of its own version.
    refused(&unsigned("1.1.0", &["arm64"], &[]), &[":1.1.0 is signed", "Give --key"]);
    assert_eq!(writes(&registry).len(), written, "something was written");
    // What is signed stays where it is, whoever says it once more.
    assert!(unsigned("1.1.0", &["amd64"], &["--tag", "stable"]).status.success());
    // Signed between two runs, with another tool.
    let out = unsigned("1.2.0", &["amd64"], &["--tag", "new"]);
    assert!(out.status.success(), "{}", stderr(&out));
    assert_eq!(resolve(&desk, &format!("{repository}:stable")), signed.trim());
    let digest = resolve(&desk, &format!("{repository}:new"));
    cosign_sign(desk.dir.path(), &desk.key, &format!("{repository}@{digest}"));
    let out = unsigned("1.2.0", &["amd64"], &["--tag", "stable"]);
    assert!(out.status.success(), "{}", stderr(&out));
    assert_eq!(resolve(&desk, &format!("{repository}:stable")), digest);
    // From what cosign alone has signed.
    desk.prepare("1.3.0");
    refused(&unsigned("1.3.0", &["amd64"], &["--tag", "stable"]), &[":stable is signed"]);
    // A manifest alone is signed.
    let out = unsigned("1.3.0", &["amd64"], &["--tag", "third"]);
    assert!(out.status.success(), "{}", stderr(&out));
    desk.prepare("1.4.0");
    assert!(unsigned("1.4.0", &["amd64"], &["--tag", "third"]).status.success());
    let manifest = resolve(&desk, &format!("{repository}:1.4.0-amd64"));
    cosign_sign(desk.dir.path(), &desk.key, &format!("{repository}@{manifest}"));
    desk.prepare("1.5.0");
    refused(&unsigned("1.5.0", &["amd64"], &["--tag", "third"]), &[":third is signed"]);
}

/// The warnings of a run that succeeds, but for those of releases without dates.
#[track_caller]
fn warnings(out: &std::process::Output) -> Vec<String> {
    assert!(out.status.success(), "{}", stderr(out));
    stderr(out).lines().filter(|line| line.contains("warning: ")).map(str::to_owned).collect()
}

/// Attests something of what `reference` names, with a real cosign.
fn cosign_attest(dir: &Path, key: &KeyPair, reference: &str) {
    let own = tempfile::tempdir_in(dir).unwrap();
    run(cosign(own.path()).args(["import-key-pair", "--yes", "--output-key-prefix", "k", "--key"]).arg(&key.private));
    run(cosign(own.path()).args(["signing-config", "create", "--out", "config.json"]));
    fs::write(own.path().join("predicate"), "{}").unwrap();
    let mut attest = cosign(own.path());
    attest.args(["attest", "--yes", "--key", "k.key", "--signing-config", "config.json", "--predicate", "predicate"]);
    run(attest.args(["--type", "https://example.com/scan/v1", "--allow-http-registry", reference]));
}

/// Rotation needs it; a slip looks the same.
#[apply(test)]
fn a_tag_that_leaves_a_key_says_which() {
    ready(&["cosign"]);
    let desk = Desk::new();
    for version in ["1.1.0", "1.2.0", "1.3.0", "1.4.0", "1.5.0"] {
        desk.prepare(version);
    }
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let spare = KeyPair::ed25519(desk.dir.path(), "spare");
    let push = |version: &str, keys: &[&KeyPair], more: &[&str]| {
        let mut options = vec!["--repository", &repository, "--plain-http", "--tag", "stable"];
        options.extend(more);
        options.extend(keys.iter().flat_map(|key| ["--key", key.private.to_str().unwrap()]));
        warnings(&desk.script(SCRIPT, version, &["amd64"], &options).output().unwrap())
    };
    let leaves = |key: &KeyPair, version: &str| {
        vec![format!(
            "push-oci-artifact: warning: {repository}:stable is signed by {}, and {version} will not be: machines that have that \
             key alone take nothing of it",
            key.fingerprint()
        )]
    };
    assert_eq!(push("1.1.0", &[&desk.key], &[]), [""; 0]);
    assert_eq!(push("1.2.0", &[&spare], &["--dry-run"]), leaves(&desk.key, "1.2.0"));
    // As it is rotated: both, then the new one alone.
    assert_eq!(push("1.2.0", &[&desk.key, &spare], &[]), [""; 0]);
    assert_eq!(push("1.3.0", &[&spare], &[]), leaves(&desk.key, "1.3.0"));
    assert_eq!(push("1.3.0", &[&spare], &[]), [""; 0]);
    assert_eq!(push("1.4.0", &[&spare], &[]), [""; 0]);
    // By cosign, beside ours; an attestation is no signature.
    let digest = resolve(&desk, &format!("{repository}:stable"));
    let builder = KeyPair::p256(desk.dir.path(), "builder");
    cosign_sign(desk.dir.path(), &desk.key, &format!("{repository}@{digest}"));
    cosign_attest(desk.dir.path(), &builder, &format!("{repository}@{digest}"));
    assert_eq!(push("1.5.0", &[&spare], &[]), leaves(&desk.key, "1.5.0"));
}

#[apply(test)]
fn a_latest_json_that_leaves_its_key_says_so() {
    ready(&[]);
    let desk = Desk::new();
    for version in ["1.1.0", "1.2.0", "1.3.0"] {
        desk.prepare(version);
    }
    fs::create_dir(desk.path("www")).unwrap();
    let spare = KeyPair::ed25519(desk.dir.path(), "spare");
    let publish = |version: &str, keys: &[&KeyPair], more: &[&str]| {
        let keys = keys.iter().flat_map(|key| ["--key", key.private.to_str().unwrap()]);
        // Without indexes nobody says that these releases have nothing in common.
        let options: Vec<&str> =
            ["--dir", "www", "--no-chunks"].into_iter().chain(keys).chain(more.iter().copied()).collect();
        warnings(&desk.script("publish-http.sh", version, &["amd64"], &options).output().unwrap())
    };
    let leaves = |version: &str| {
        vec![format!(
            "publish-http: warning: www/latest.json is signed by none of the keys given: machines that have none of these keys, \
             but the one that signed it, take nothing of {version}"
        )]
    };
    assert_eq!(publish("1.1.0", &[&desk.key], &[]), [""; 0]);
    assert_eq!(publish("1.2.0", &[&spare], &["--dry-run"]), leaves("1.2.0"));
    assert_eq!(publish("1.2.0", &[&spare, &desk.key], &[]), [""; 0]);
    assert_eq!(publish("1.3.0", &[&spare], &[]), [""; 0]);
    assert_eq!(publish("1.3.0", &[&spare], &[]), [""; 0]);
}

//! `scripts/push-oci-artifact.sh` without a key: no tag leaves what is signed for what is not.

use super::registry::{SCRIPT, push, ready, resolve, writes};
use crate::support::publish::{Desk, refused, stderr};
use crate::support::registry::Registry;
use crate::support::run;
use crate::support::signing::cosign_sign;

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

//! Tests of `referrers.rs`. What cosign and oras attach is in `tests/`.

use super::*;
use crate::trust::bundle::MEDIA_TYPE;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn hex(of: &str) -> String {
    Digest::of(of.as_bytes()).to_string()
}

fn entry(name: &str, more: &str) -> String {
    format!(r#"{{"mediaType":"{MANIFEST}","digest":"{}","size":900{more}}}"#, hex(name))
}

#[test]
fn a_list_is_read_and_what_can_be_no_signature_is_left_out() {
    let kind = |kind: &str| format!(r#","artifactType":"{kind}""#);
    let entries = [
        entry("bundle", &kind(MEDIA_TYPE)),
        entry("cosign in a list without API", &kind(EMPTY_TYPE)),
        entry("says nothing", ""),
        entry("an SBOM", &kind("application/spdx+json")),
        entry("an image", r#","platform":{"os":"linux","architecture":"amd64"}"#),
        entry("large", "").replace("900", "70000"),
        entry("an index", "").replace("manifest.v1", "index.v1"),
    ];
    let list = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":[{}]}}"#, entries.join(","));
    let found: Vec<String> = candidates(list.as_bytes(), "l").unwrap().0.iter().map(|d| d.digest.to_string()).collect();
    assert_eq!(found, ["bundle", "cosign in a list without API", "says nothing"].map(hex));
    // One malformed entry hides no other.
    for odd in [
        entry("x", "").replace("sha256:", "sha512:"),
        entry("x", "").replace("900", "0"),
        entry("x", "").replace("\"size\":900", "\"s\":1"),
        entry("x", r#","artifactType":7"#),
        "{}".to_owned(),
    ] {
        let list = list.replacen('[', &format!("[{odd},"), 1);
        assert_eq!(candidates(list.as_bytes(), "l").unwrap().0.len(), 3, "{odd}");
    }
    let none = entry("says nothing", r#","artifactType":"""#);
    assert_eq!(candidates(list.replace(&entry("says nothing", ""), &none).as_bytes(), "l").unwrap().0.len(), 3);
    for bad in
        ["", "{}", &list.replace("manifests", "layers"), &list.replacen("image.index.v1", "image.manifest.v1", 1)]
    {
        assert_eq!(candidates(bad.as_bytes(), "l").unwrap_err().kind(), Kind::Source, "{bad}");
    }
}

#[test]
fn attestations_come_last() {
    let states = |kind: &str| format!(r#","annotations":{{"dev.sigstore.bundle.predicateType":"{kind}"}}"#);
    let entries = [
        entry("scan", &states("https://cosign.sigstore.dev/attestation/vuln/v1")),
        entry("unknown", ""),
        entry("signature", &states(bundle::PREDICATE_TYPE)),
    ];
    let list = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    let found: Vec<String> = candidates(list.as_bytes(), "l").unwrap().0.iter().map(|d| d.digest.to_string()).collect();
    assert_eq!(found, ["signature", "unknown", "scan"].map(hex));
    // They are not fetched, if their manifest states their type.
    let subject = Digest::of(b"signed");
    for (kind, is_wanted) in [(bundle::PREDICATE_TYPE, true), ("https://spdx.dev/Document", false)] {
        let manifest = manifest("signed").replacen('{', &format!("{{{},", &states(kind)[1..]), 1);
        assert_eq!(bundle_layer(manifest.as_bytes(), subject).unwrap().is_some(), is_wanted, "{kind}");
    }
}

fn manifest(subject: &str) -> String {
    let blob = format!(r#"{{"mediaType":"{MEDIA_TYPE}","digest":"{}","size":900}}"#, hex("bundle"));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","artifactType":"{MEDIA_TYPE}","config":{blob},"layers":[{blob}],"subject":{}}}"#,
        entry(subject, "")
    )
}

#[test]
fn a_manifest_must_name_its_subject_in_turn() {
    let subject = Digest::of(b"signed");
    let of = |text: &str| bundle_layer(text.as_bytes(), subject);
    let good = manifest("signed");
    assert_eq!(of(&good).unwrap().unwrap().digest.to_string(), hex("bundle"));
    assert_eq!(of(&manifest("something else")).unwrap(), None);
    assert_eq!(of(&good.replace("\"subject\"", "\"object\"")).unwrap(), None);
    let other_kind = good.replace(&format!("\"artifactType\":\"{MEDIA_TYPE}\""), "\"artifactType\":\"text/plain\"");
    assert_eq!(of(&other_kind).unwrap(), None);
    // Without artifactType, the config's type counts. Source: image-spec 1.1, manifest.md.
    let by_config = good.replace(&format!("\"artifactType\":\"{MEDIA_TYPE}\","), "");
    assert!(of(&by_config).unwrap().is_some());
    for (from, to, words) in [
        ("\"schemaVersion\":2", "\"schemaVersion\":1", "schemaVersion"),
        ("\"layers\":[", "\"layers\":[],\"l\":[", "exactly one"),
        ("\"layers\":[{", "\"layers\":[{},{", "exactly one"),
        (
            "\"layers\":[{\"mediaType\":\"application/vnd.dev",
            "\"layers\":[{\"mediaType\":\"application/vnd.dew",
            "layers[0].mediaType",
        ),
        ("\"size\":900}]", "\"size\":65537}]", "65537 bytes"),
        ("\"size\":900}]", "\"size\":0}]", "layers[0].size"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        let e = of(&text).unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().contains(words), "{to}: {e}");
    }
}

#[test]
fn the_tag_of_a_subject_is_that_of_the_specification() {
    let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    assert_eq!(tag(Digest::parse_hex(hex).unwrap()), format!("sha256-{hex}"));
}

#[test]
fn the_next_page_is_found_in_a_link_header() {
    for (link, want) in [
        ("</v2/os/referrers/x?n=2>; rel=\"next\"", Some("/v2/os/referrers/x?n=2")),
        ("<a>; rel=next", Some("a")),
        ("<a>; title=\"x\"; REL=\"next\"", Some("a")),
        ("<a>; rel=\"prev\", <b>; rel=\"next\"", Some("b")),
        ("<a>; rel=\"next\", <b>; rel=\"prev\"", Some("a")),
        ("<a>; rel=\"last next\"", Some("a")),
        ("<a,b;c>; rel=next", Some("a,b;c")),
        ("<a>; rel=\"prev\"", None),
        ("<a>", None),
        ("<a; rel=next", None),
        ("rel=next", None),
        ("", None),
    ] {
        assert_eq!(next_page(link).as_deref(), want, "{link}");
    }
}

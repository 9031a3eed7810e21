//! Tests of `index.rs`: entries that make no sense here, beside the one for this machine and instead of it.

use super::*;
use crate::oci::manifest::{self, Document};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn index(entries: &[String]) -> Result<Index> {
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    match manifest::parse(text.as_bytes(), Some(INDEX), "doc-name")? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => panic!("not an index"),
    }
}

fn hex(c: char) -> String {
    format!("sha256:{}", c.to_string().repeat(64))
}

/// What replaces the right value in an entry; the words of the error if that entry is the one for this machine.
const ODD: &[(&str, &str, &str)] = &[
    ("\"@\"", "\"sha512:@@\"", "manifests[#].digest"),
    ("\"@\"", "\"sha384:@\"", "manifests[#].digest"),
    ("\"@\"", "\"blake3:@\"", "manifests[#].digest"),
    ("\"@\"", "\"multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8\"", "manifests[#].digest"),
    ("\"@\"", "\"SHA256:@\"", "manifests[#].digest"),
    ("\"@\"", "\"@0\"", "manifests[#].digest"),
    ("\"@\"", "\"sha256:../../etc/passwd\"", "manifests[#].digest"),
    ("\"@\"", "\"\"", "manifests[#].digest"),
    ("\"@\"", "null", "manifests[#].digest' is missing"),
    ("\"@\"", "7", "manifests[#].digest' has the wrong type"),
    ("500", "0", "manifests[#].size' is 0"),
    ("500", "-1", "manifests[#].size' has the wrong type"),
    ("500", "9223372036854775808", "manifests[#].size' is 9223372036854775808"),
    ("500", "5.5", "manifests[#].size' has the wrong type"),
    ("500", "\"500\"", "manifests[#].size' has the wrong type"),
    ("500", "null", "manifests[#].size' is missing"),
    ("500", "5000000", "more than a document may have"),
    ("\"application/vnd.oci.image.manifest.v1+json\"", "null", "manifests[#].mediaType' is missing"),
    ("\"application/vnd.oci.image.manifest.v1+json\"", "[]", "manifests[#].mediaType' has the wrong type"),
    ("\"application/vnd.oci.image.manifest.v1+json\"", "\"text/html\"", "'text/html' is not an image manifest"),
    ("\"x\":1", "\"artifactType\":1", "manifests[#].artifactType' has the wrong type"),
    ("\"x\":1", "\"annotations\":{\"org.opencontainers.image.ref.name\":1}", "ref.name' has the wrong type"),
];

/// An entry with one odd value. Input: `platform`: OS/ARCHITECTURE, or nothing.
fn odd(from: &str, to: &str, platform: &str) -> String {
    let platform = match platform.split_once('/') {
        Some((os, name)) => format!(r#","platform":{{"os":"{os}","architecture":"{name}"}}"#),
        None => String::new(),
    };
    let entry = format!(r#"{{"mediaType":"{MANIFEST}","digest":"@","size":500,"x":1{platform}}}"#);
    assert!(entry.contains(from), "{from}");
    let hex = "e".repeat(64);
    entry.replacen(from, to, 1).replace("\"@\"", &format!("\"sha256:{hex}\"")).replace('@', &hex)
}

fn good(digest: char, platform: &str) -> String {
    odd("\"@\"", &format!("\"{}\"", hex(digest)), platform)
}

fn chosen(index: &Index) -> Result<Vec<String>> {
    Ok(match index.select("amd64")? {
        Choice::One(descriptor) => vec![descriptor.digest.to_string()],
        Choice::LookInto(several) => several.iter().map(|descriptor| descriptor.digest.to_string()).collect(),
    })
}

#[test]
fn what_is_odd_and_for_others_is_passed_over() {
    for (from, to, words) in ODD {
        // Before and after it, for another machine or for no particular one.
        for platform in ["linux/arm64", "windows/amd64", "unknown/unknown", ""] {
            let entries = [odd(from, to, platform), good('1', "linux/amd64"), odd(from, to, platform)];
            let found = index(&entries).and_then(|index| chosen(&index));
            assert_eq!(found.map_err(|e| e.to_string()), Ok(vec![hex('1')]), "{to} {platform}");
        }
        // Unmarked entries are candidates; this one is not.
        let found = chosen(&index(&[good('1', ""), odd(from, to, "linux/arm64")]).unwrap()).unwrap();
        assert_eq!(found, [hex('1')], "{to}");
        // The error names the entry for this machine, and no other is chosen instead.
        for (entries, place) in [
            (vec![odd(from, to, "linux/amd64")], "0"),
            (vec![good('2', "linux/arm64"), odd(from, to, "linux/amd64"), good('1', "linux/amd64")], "1"),
            (vec![good('2', ""), odd(from, to, "linux/amd64"), good('3', "")], "1"),
        ] {
            let e = index(&entries).and_then(|index| chosen(&index)).unwrap_err();
            let said = e.to_string();
            assert!(e.kind() == Kind::Source && said.contains(&words.replace('#', place)), "{to}: {said}");
            assert!(said.contains("doc-name"), "{to}: {said}");
        }
        // The first of several is meant.
        let found = chosen(&index(&[good('1', "linux/amd64"), odd(from, to, "linux/amd64")]).unwrap()).unwrap();
        assert_eq!(found, [hex('1')], "{to}");
    }
}

#[test]
fn what_was_passed_over_is_named_where_there_is_nothing_else() {
    let sha512 = ("\"@\"", "\"sha512:@@\"");
    let select = |entries: &[String]| index(entries).unwrap().select("amd64").unwrap_err();
    let e = select(&[good('1', "linux/arm64"), odd(sha512.0, sha512.1, "linux/riscv64")]);
    assert!(e.kind() == Kind::Gate && e.to_string().contains("linux/arm64, linux/riscv64"), "{e}");
    assert!(!e.to_string().contains("skipped"), "{e}");
    let e = select(&[good('1', "linux/arm64"), odd(sha512.0, sha512.1, "")]);
    let said = e.to_string();
    assert!(e.kind() == Kind::Gate && said.contains("offered: linux/arm64"), "{said}");
    assert!(said.contains("skipped") && said.contains("manifests[1].digest"), "{said}");
    let e = select(&[odd(sha512.0, sha512.1, ""), odd("500", "0", "linux/arm64")]);
    assert!(e.kind() == Kind::Source && e.to_string().contains("manifests[0].digest"), "{e}");
}

#[test]
fn another_spelling_of_an_architecture_is_named_as_one() {
    for (platform, is_meant) in [
        ("linux/x86_64", true),
        ("linux/aarch64", true),
        ("linux/AMD64", true),
        ("linux/arm64v8", true),
        ("linux/riscv64", false),
        ("linux/arm64", false),
        ("windows/amd64", false),
    ] {
        let e = index(&[good('1', platform)]).unwrap().select("amd64").unwrap_err();
        let hint = if is_meant { " (write amd64 or arm64)" } else { "" };
        assert!(e.kind() == Kind::Gate && e.to_string().ends_with(&format!("offered: {platform}{hint}")), "{e}");
    }
}

#[test]
fn an_entry_that_is_null_is_none() {
    let null = || "null".to_owned();
    let found = chosen(&index(&[null(), good('1', "linux/amd64"), null()]).unwrap()).unwrap();
    assert_eq!(found, [hex('1')]);
    // The others keep their numbers.
    let e = index(&[null(), null(), odd("500", "0", "linux/amd64")]).unwrap().select("amd64").unwrap_err();
    assert!(e.to_string().contains("manifests[2].size"), "{e}");
    let e = index(&[null()]).unwrap().select("amd64").unwrap_err();
    assert!(e.kind() == Kind::Gate && e.to_string().contains("offered: nothing"), "{e}");
}

#[test]
fn an_odd_entry_is_no_absence_of_a_tag() {
    let tagged = |entry: String, tag: &str| {
        let name = format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}}}"#);
        format!("{}{name}", entry.strip_suffix('}').unwrap())
    };
    let odd = |tag: &str| match tag {
        "" => odd("500", "0", ""),
        tag => tagged(odd("500", "0", ""), tag),
    };
    let good = |tag: &str| match tag {
        "" => good('1', ""),
        tag => tagged(good('1', ""), tag),
    };
    let signature = format!("sha256-{}", "a".repeat(64));
    for (entries, tag, is_named) in [
        (vec![good("v1"), odd("v2")], Some("v2"), true),
        (vec![good("v1"), odd("v2")], Some("v1"), false),
        (vec![good("v1"), odd("v1")], Some("v1"), true),
        (vec![good("v1"), odd("")], Some("v1"), false),
        (vec![good("latest"), odd("v2")], None, false),
        (vec![good("v1"), odd("latest")], None, true),
        (vec![good("v1"), odd("v2")], None, true),
        (vec![good("v1"), odd("")], None, false),
        (vec![good("v1"), odd(&signature)], None, false),
        (vec![good(""), odd("")], None, true),
        (vec![odd("")], None, true),
    ] {
        let index = index(&entries).unwrap();
        assert_eq!(index.fault_of(tag).is_some(), is_named, "{entries:?} {tag:?}");
    }
}

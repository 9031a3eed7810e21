//! Indexes with entries that make no sense here: beside the one for this machine they are nobody's business, in its place
//! they are the error. Rows as in `hostile.rs`.

use crate::support::disk::{architecture, need_disks, other_architecture};
use crate::support::hostile_table::{INDEX_TYPE, MANIFEST_TYPE, Published, Row, assert_listed, hold_all, index, row};

/// Name, what is written in place of what stands in an entry, and the words where that entry is this machine's.
const ODD: &[(&str, &str, &str, &str)] = &[
    ("sha512", "sha256:", "sha512:0", "manifests[0].digest"),
    ("an algorithm of the future", "sha256:", "sha3-256+b64u:", "manifests[0].digest"),
    ("a digest that is a path", "sha256:", "sha256:../", "manifests[0].digest"),
    ("size 0", "\"size\":", "\"size\":0,\"was\":", "'manifests[0].size' is 0"),
    ("a size below 0", "\"size\":", "\"size\":-", "'manifests[0].size' has the wrong type"),
    ("a size above 2^63", "\"size\":", "\"size\":9999999999999999999,\"was\":", "'manifests[0].size'"),
    ("no size", "\"size\":", "\"was\":", "'manifests[0].size' is missing"),
    ("no media type", "\"mediaType\":", "\"was\":", "'manifests[0].mediaType' is missing"),
    ("a media type of nobody's", "application/vnd.oci", "application/x", "is not an image manifest"),
    ("an artifact type that is a number", "\"mediaType\":", "\"artifactType\":7,\"mediaType\":", "artifactType"),
];

/// The entry for the manifest. Input: `architecture`: none, it says nothing of a platform.
fn entry(p: &Published, architecture: Option<&str>) -> String {
    let platform = architecture.map(|name| format!(r#","platform":{{"os":"linux","architecture":"{name}"}}"#));
    format!(
        r#"{{"mediaType":"{MANIFEST_TYPE}","digest":"sha256:{}","size":{}{}}}"#,
        p.manifest_sha,
        p.manifest.len(),
        platform.unwrap_or_default()
    )
}

fn of(entries: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":[{}]}}"#, entries.join(","))
}

fn indexed(name: String, text: impl Fn(&Published) -> String + Send + Sync + 'static) -> Row {
    row(name, move |p, a| match a.path.as_str() {
        "/v2/os/manifests/v1" => index(&text(p)),
        _ => p.honest(a),
    })
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, from, to, words) in ODD {
        let odd = move |p: &Published, whose: Option<&str>| {
            let right = entry(p, whose);
            assert!(right.contains(from), "{from}");
            right.replacen(from, to, 1)
        };
        let ours = |p: &Published| entry(p, Some(architecture()));
        let beside =
            move |p: &Published| of(&[odd(p, Some(other_architecture())), odd(p, None), ours(p), odd(p, None)]);
        rows.push(indexed(format!("index, {name}: of others"), beside).says(&["staged"]).works(5));
        let in_place = move |p: &Published| of(&[odd(p, Some(architecture())), ours(p)]);
        rows.push(indexed(format!("index, {name}: this machine's"), in_place).says(&[words]));
    }
    let null = |p: &Published| of(&["null".into(), entry(p, Some(architecture())), "null".into()]);
    rows.push(indexed("index, entries that are null".into(), null).says(&["staged"]).works(5));
    let only = |p: &Published| of(&[entry(p, None).replace("sha256:", "sha512:")]);
    rows.push(indexed("index, sha512 and nothing else".into(), only).says(&["manifests[0].digest"]));
    let other =
        |p: &Published| of(&[entry(p, Some(other_architecture())), entry(p, None).replace("sha256:", "sha512:")]);
    rows.push(
        indexed("index, sha512 for whom it may be, and another machine's".into(), other).ends(4, "gate").says(&[
            "offered: linux/",
            "skipped what",
            "manifests[1].digest",
        ]),
    );
    rows
}

#[apply(test)]
fn odd_entries_in_indexes() {
    need_disks();
    hold_all(rows());
}

#[apply(test)]
fn the_table_is_listed() {
    assert_listed("hostile_indexes", &rows());
}

//! Tests of `manifest.rs`: accepted documents, and one wrong thing at a time.

use super::*;
use crate::base::error::Kind;
use crate::oci::descriptor::DOCUMENT_CAP;
use crate::oci::index::MAX_CANDIDATES;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn hex(c: char) -> String {
    format!("sha256:{}", c.to_string().repeat(64))
}

fn manifest_text() -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{}","size":2}},
"layers":[{{"mediaType":"{KERNEL_TYPE}","digest":"{}","size":10,"annotations":{{"org.opencontainers.image.title":"vmlinuz"}}}},
{{"mediaType":"{INITRAMFS_TYPE}","digest":"{}","size":20}},{{"mediaType":"text/plain","digest":"{}","size":0}}],
"annotations":{{"io.kubesolo.os.version":"1.2.0","io.kubesolo.os.architecture":"arm64","io.kubesolo.os.release_notes":"a\nb","x":"y"}}}}"#,
        hex('c'),
        hex('a'),
        hex('b'),
        hex('d')
    )
}

fn entry(media_type: &str, digest: char, platform: &str) -> String {
    let platform = match platform.split_once('/') {
        Some((os, a)) => format!(r#","platform":{{"os":"{os}","architecture":"{a}"}}"#),
        None => String::new(),
    };
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":500{platform}}}"#, hex(digest))
}

fn index(entries: &[String]) -> Index {
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    match parse(text.as_bytes(), Some(OCI_INDEX), "t").unwrap() {
        Document::Index(index) => index,
        Document::Manifest(_) => panic!("not an index"),
    }
}

fn manifest(text: &str) -> Result<(Metadata, Layer, Initramfs)> {
    match parse(text.as_bytes(), None, "doc-name")? {
        Document::Manifest(m) => m.into_parts(),
        Document::Index(_) => panic!("not a manifest"),
    }
}

#[test]
fn reads_a_manifest() {
    let (meta, kernel, initramfs) = manifest(&manifest_text()).unwrap();
    assert_eq!(meta.version, "1.2.0");
    assert_eq!(meta.architecture.as_deref(), Some("arm64"));
    assert_eq!(meta.release_notes.as_deref(), Some("a\nb"));
    assert_eq!(meta.channel, None);
    let descriptor = kernel.descriptor;
    assert_eq!((descriptor.size_bytes, descriptor.digest.to_string()), (10, hex('a')));
    assert_eq!((initramfs.size_bytes, initramfs.digest.to_string()), (20, hex('b')));
    assert_eq!((initramfs.layers.len(), initramfs.layers[0].descriptor.digest), (1, initramfs.digest));
}

/// A manifest with these initramfs layers. Input: `whole`: the annotation.
fn layered(layers: &[(char, &str)], whole: Option<&str>) -> String {
    let layer = |(digest, size): &(char, &str)| {
        format!(r#"{{"mediaType":"{INITRAMFS_TYPE}","digest":"{}","size":{size}}}"#, hex(*digest))
    };
    let only = layer(&('b', "20"));
    let text = manifest_text().replace(&only, &layers.iter().map(layer).collect::<Vec<_>>().join(","));
    let annotation = whole.map(|w| format!(r#""io.kubesolo.os.initramfs_digest":"{w}","#)).unwrap_or_default();
    text.replace(
        "\"annotations\":{\"io.kubesolo.os.version",
        &format!("\"annotations\":{{{annotation}\"io.kubesolo.os.version"),
    )
}

#[test]
fn an_initramfs_in_several_layers_has_a_digest_of_its_own() {
    let (_, _, initramfs) = manifest(&layered(&[('1', "5"), ('2', "7"), ('1', "5")], Some(&hex('f')))).unwrap();
    assert_eq!((initramfs.size_bytes, initramfs.digest.to_string()), (17, hex('f')));
    let parts: Vec<String> = initramfs.layers.iter().map(|l| l.descriptor.digest.to_string()).collect();
    assert_eq!(parts, [hex('1'), hex('2'), hex('1')]);
    // A single layer may have it too, if it is true.
    assert_eq!(manifest(&layered(&[('1', "5")], Some(&hex('1')))).unwrap().2.layers.len(), 1);
    let many = |count| vec![('1', "5"); count];
    assert_eq!(manifest(&layered(&many(16), Some(&hex('f')))).unwrap().2.size_bytes, 80);
    for (layers, whole, word) in [
        (many(1), Some(hex('2')), "the only initramfs layer"),
        (many(2), None, "no 'io.kubesolo.os.initramfs_digest'"),
        (many(2), Some("sha256:x".to_owned()), "'io.kubesolo.os.initramfs_digest'"),
        (many(17), Some(hex('f')), "more than 16"),
        (vec![('1', "9223372036854775807"), ('2', "1")], Some(hex('f')), "longer than any file"),
        (vec![], Some(hex('f')), "no initramfs layer"),
    ] {
        let text = layered(&layers, whole.as_deref());
        let text = if layers.is_empty() { text.replace(",\n,", ",") } else { text };
        let e = manifest(&text).unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().contains(word), "{word}: {e}");
    }
}

/// Which layer has which chunk index. Input: layers by type: kernel, initramfs, chunks, other; and the digit of their digest.
fn indexed(layers: &[(char, char)]) -> Result<Vec<Option<String>>> {
    let layer = |(kind, digest): &(char, char)| {
        let media_type = match kind {
            'k' => KERNEL_TYPE,
            'i' => INITRAMFS_TYPE,
            'c' => "application/vnd.kubesolo.os.chunks.v1",
            _ => "text/plain",
        };
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":5}}"#, hex(*digest))
    };
    let text = layered(&[('1', "5")], Some(&hex('f')));
    let (from, to) = (text.find("\"layers\":[").unwrap() + 10, text.find("],\n\"annotations\"").unwrap());
    let layers: Vec<String> = layers.iter().map(layer).collect();
    let (_, kernel, initramfs) = manifest(&format!("{}{}{}", &text[..from], layers.join(","), &text[to..]))?;
    let all = [vec![kernel], initramfs.layers].concat();
    Ok(all.into_iter().map(|layer| layer.chunks.map(|chunks| chunks.digest.to_string())).collect())
}

#[test]
fn a_chunk_index_is_of_the_layer_directly_before_it() {
    let of = |digits: &[Option<char>]| digits.iter().map(|digit| digit.map(hex)).collect::<Vec<_>>();
    for (layers, indexes) in [
        (vec![('k', '1'), ('i', '2'), ('i', '3')], of(&[None, None, None])),
        (vec![('k', '1'), ('c', 'a'), ('i', '2'), ('c', 'b'), ('i', '3')], of(&[Some('a'), Some('b'), None])),
        (vec![('i', '2'), ('c', 'b'), ('i', '3'), ('c', 'c'), ('k', '1')], of(&[None, Some('b'), Some('c')])),
        // Of nothing, of another type, of an index.
        (vec![('c', 'a'), ('k', '1'), ('x', '9'), ('c', 'b'), ('i', '2'), ('i', '3')], of(&[None, None, None])),
        (vec![('k', '1'), ('c', 'a'), ('c', 'b'), ('i', '2'), ('i', '3')], of(&[Some('a'), None, None])),
    ] {
        assert_eq!(indexed(&layers).unwrap(), indexes, "{layers:?}");
    }
}

#[test]
fn names_the_field_that_is_wrong() {
    let good = manifest_text();
    for (from, to, word) in [
        (r#""schemaVersion":2"#, r#""schemaVersion":1"#, "schemaVersion is 1"),
        (r#""schemaVersion":2"#, r#""schemaVersion":"2""#, "'schemaVersion' has the wrong type"),
        (r#""schemaVersion":2,"#, "", "'schemaVersion' is missing"),
        (OCI_MANIFEST, OCI_INDEX, "'manifests' is missing"),
        (OCI_MANIFEST, "text/html", "neither an image index"),
        (r#""layers":"#, r#""layerz":"#, "'layers' is missing"),
        (r#""layers":"#, r#""manifests":[],"layers":"#, "both"),
        (KERNEL_TYPE, "x/y", "no kernel layer"),
        (INITRAMFS_TYPE, "x/y", "no initramfs layer"),
        (INITRAMFS_TYPE, KERNEL_TYPE, "more than one kernel"),
        ("text/plain", INITRAMFS_TYPE, "'layers[2].size' is 0"),
        (r#""size":10"#, r#""size":-10"#, "'layers[0].size' has the wrong type"),
        (r#""size":10"#, r#""size":9223372036854775808"#, "'layers[0].size' is 9223372036854775808"),
        (r#""size":20"#, r#""size":"20""#, "'layers[1].size' has the wrong type"),
        (r#""size":20"#, r#""sighs":20"#, "'layers[1].size' is missing"),
        ("sha256:bb", "sha512:bb", "'layers[1].digest'"),
        ("sha256:aa", "sha256:../a", "'layers[0].digest'"),
        (r#""1.2.0""#, "12", "'io.kubesolo.os.version' has the wrong type"),
    ] {
        assert!(good.contains(from), "{from}");
        let e = manifest(&good.replacen(from, to, 1)).unwrap_err();
        assert_eq!(e.kind(), Kind::Source, "{word}");
        assert!(e.to_string().contains(word) && e.to_string().contains("doc-name"), "{word}: {e}");
    }
}

#[test]
fn every_truncation_is_an_error_that_names_the_document() {
    let good = manifest_text();
    for cut in 0..good.len() {
        let e = parse(&good.as_bytes()[..cut], None, "doc-name").unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().contains("doc-name"), "{cut}: {e}");
    }
    // One byte replaced: an error or a document, never a panic.
    for at in 0..good.len() {
        for byte in [b'"', b'{', b'}', b'0', 0, 0xff] {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = byte;
            if let Ok(Document::Manifest(m)) = parse(&bytes, None, "x") {
                let _ = m.into_parts();
            }
        }
    }
}

#[test]
fn holds_the_content_type_against_the_media_type() {
    let text = manifest_text();
    for (declared, ok) in [
        (None, true),
        (Some(OCI_MANIFEST), true),
        (Some("Application/vnd.OCI.image.manifest.v1+json; charset=utf-8"), true),
        (Some("application/vnd.docker.distribution.manifest.v2+json"), false),
        (Some("application/json"), false),
        (Some(OCI_INDEX), false),
    ] {
        assert_eq!(parse(text.as_bytes(), declared, "t").is_ok(), ok, "{declared:?}");
    }
    // Without its own mediaType the declared one decides; without both, the content.
    let bare = text.replacen(&format!(r#""mediaType":"{OCI_MANIFEST}","#), "", 1);
    assert!(parse(bare.as_bytes(), Some("application/vnd.docker.distribution.manifest.v2+json"), "t").is_ok());
    assert!(matches!(parse(bare.as_bytes(), None, "t"), Ok(Document::Manifest(_))));
    assert!(matches!(parse(br#"{"schemaVersion":2,"manifests":[]}"#, None, "t"), Ok(Document::Index(_))));
    assert!(parse(bare.as_bytes(), Some("application/json"), "t").is_err());
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    assert!(matches!(parse(br#"{"schemaVersion":2,"manifests":[]}"#, Some(list), "t"), Ok(Document::Index(_))));
}

#[test]
fn chooses_by_platform() {
    let index = index(&[
        entry(OCI_MANIFEST, 'e', "unknown/unknown"),
        entry(OCI_MANIFEST, '1', "linux/amd64"),
        entry(OCI_MANIFEST, '2', "windows/arm64"),
        entry(OCI_MANIFEST, '3', "linux/arm64"),
        entry(OCI_MANIFEST, '4', "linux/arm64"),
        entry(OCI_INDEX, '5', "linux/riscv64"),
        entry("text/plain", '6', "linux/s390x"),
    ]);
    for (architecture, digest) in [("amd64", '1'), ("arm64", '3')] {
        match index.select(architecture).unwrap() {
            Choice::One(d) => assert_eq!(d.digest.to_string(), hex(digest)),
            other => panic!("{other:?}"),
        }
    }
    let e = index.select("mips").unwrap_err();
    assert_eq!(e.kind(), Kind::Gate);
    assert!(e.to_string().contains("linux/amd64, windows/arm64, linux/arm64"), "{e}");
    assert!(!e.to_string().contains("unknown"), "{e}");
    // Callers limit how deeply indexes may nest.
    assert!(matches!(index.select("riscv64"), Ok(Choice::One(d)) if d.digest.to_string() == hex('5')));
    assert_eq!(index.select("s390x").unwrap_err().kind(), Kind::Source);
}

#[test]
fn entries_without_platform_are_candidates_in_bounded_number() {
    let mut entries: Vec<String> = (0..20).map(|_| entry(OCI_MANIFEST, '1', "")).collect();
    entries.push(entry(OCI_INDEX, '2', ""));
    match index(&entries).select("amd64").unwrap() {
        Choice::LookInto(candidates) => assert_eq!(candidates.len(), MAX_CANDIDATES),
        other => panic!("{other:?}"),
    }
    entries.push(entry(OCI_MANIFEST, '3', "linux/amd64"));
    assert!(matches!(index(&entries).select("amd64").unwrap(), Choice::One(_)));
    let only_nested = index(&[entry(OCI_INDEX, '2', ""), entry(OCI_MANIFEST, '2', "unknown/unknown")]);
    assert!(matches!(only_nested.select("amd64"), Ok(Choice::LookInto(c)) if c.len() == 1));
    let e = index(&[entry(OCI_MANIFEST, '2', "unknown/unknown")]).select("amd64").unwrap_err();
    assert!(e.kind() == Kind::Gate && e.to_string().contains("offered: nothing"), "{e}");
    let e = only_nested.nothing_for("amd64", &["arm64".to_owned()], None);
    assert!(e.to_string().contains("linux/arm64"), "{e}");
}

#[test]
fn refuses_malformed_entries_and_oversized_documents() {
    for (entries, word) in [
        (r#"[{}]"#, "'manifests[0].mediaType' is missing"),
        (r#"[{"mediaType":"a/b","digest":"x","size":1}]"#, "'manifests[0].digest'"),
        (r#"{"a":1}"#, "not valid JSON"),
        (r#"[7]"#, "not valid JSON"),
    ] {
        let text = format!(r#"{{"schemaVersion":2,"manifests":{entries}}}"#);
        let e = match parse(text.as_bytes(), Some(OCI_INDEX), "doc-name") {
            Ok(Document::Index(index)) => index.select("amd64").unwrap_err(),
            other => other.unwrap_err(),
        };
        assert!(e.kind() == Kind::Source, "{e}");
        assert!(e.to_string().contains(word) && e.to_string().contains("doc-name"), "{e}");
    }
    let big = entry(OCI_MANIFEST, '1', "linux/amd64").replace("500", &(DOCUMENT_CAP + 1).to_string());
    assert!(index(&[big]).select("amd64").unwrap_err().to_string().contains("more than a document"));
}

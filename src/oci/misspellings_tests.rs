//! Tests of `misspellings.rs`. tests/registry/names.rs covers what the signing scripts say of the same names.

use super::*;
use crate::base::json;

#[test]
fn an_annotation_of_ours_that_is_not_known_is_named() {
    for (name, meant) in [
        ("io.kubesolo.os.verison", Some("version")),
        ("io.kubesolo.os.Version", Some("version")),
        ("io.kubesolo.os.vresion", Some("version")),
        ("io.kubesolo.os.versio", Some("version")),
        ("io.kubesolo.os.versions", Some("version")),
        ("io.kubesolo.os.expire", Some("expires")),
        ("io.kubesolo.os.expiry", Some("expires")),
        ("io.kubesolo.os.expires-at", Some("expires")),
        ("io.kubesolo.os.release-date", Some("release_date")),
        ("io.kubesolo.os.releaseDate", Some("release_date")),
        ("io.kubesolo.os.min-compatible-version", Some("min_compatible_version")),
        ("io.kubesolo.os.arch", Some("architecture")),
        ("io.kubesolo.os.chanel", Some("channel")),
        ("io.kubesolo.os-version", Some("version")),
        ("io.kubesolo.os.version ", Some("version")),
        ("IO.KUBESOLO.OS.EXPIRES", Some("expires")),
        ("io.kubesolo.expires", Some("expires")),
        ("io.kubsolo.os.expires", Some("expires")),
        ("io.kubesolo.so.expires", Some("expires")),
        ("io.kubsolo.os.expiry", Some("expires")),
        ("oi.kubesolo.os.min-version", Some("min_compatible_version")),
        ("kubesolo.os.expires", Some("expires")),
        ("com.kubesolo.os.expire", Some("expires")),
        ("io.kubesolo.update.expires", Some("expires")),
        ("os.kubesolo.io/expires", Some("expires")),
        ("kubesolo.io/channel", Some("channel")),
        ("io.kubesolo.os.rollout", None),
        ("io.kubesolo.os.", None),
        ("io.kubesolo.os", None),
    ] {
        let remark = annotation_remark(name).expect(name);
        let hint = meant.map_or(String::new(), |meant| format!(" (io.kubesolo.os.{meant} is meant?)"));
        assert_eq!(remark, format!("the annotation {name} is not known and counts for nothing{hint}"));
    }
    let known: Vec<String> = ANNOTATIONS.iter().map(|name| format!("{PREFIX}{name}")).collect();
    let foreign = [
        "org.opencontainers.image.version",
        "version",
        "io.kubesolo.build",
        "expires",
        "",
        "é",
        "com.example.expires",
        "io.kubesolo.agent.version",
        "io.kubernetes.os.version",
        "com.kubesolo.os.image",
        "kubesolo.version",
    ];
    for name in known.iter().map(String::as_str).chain(foreign) {
        assert_eq!(annotation_remark(name), None, "{name}");
    }
}

#[test]
fn a_field_is_named_if_it_is_a_slip_and_else_left_to_its_publisher() {
    for (name, meant) in [
        ("verison", "version"),
        ("Version", "version"),
        ("expire", "expires"),
        ("expiry", "expires"),
        ("expires_at", "expires"),
        ("expiresAt", "expires"),
        ("release-date", "release_date"),
        ("releaseDate", "release_date"),
        ("minCompatibleVersion", "min_compatible_version"),
        ("min_version", "min_compatible_version"),
        ("arch", "architecture"),
        ("artefacts", "artifacts"),
        ("artifact", "artifacts"),
        ("initramf", "initramfs"),
        ("sha_256", "sha256"),
        ("sizes", "size"),
        ("chunk", "chunks"),
        ("Chunks", "chunks"),
        ("io.kubesolo.os.expires", "expires"),
    ] {
        let remark = field_remark(name).expect(name);
        assert!(remark.contains(&format!("'{name}'")) && remark.contains(&format!("'{meant}' is meant?")), "{remark}");
    }
    for name in FIELDS.iter().copied().chain([
        "build",
        "commit",
        "$schema",
        "comment",
        "rollout",
        "signed_by",
        "date",
        "notes",
        "platform",
        "",
    ]) {
        assert_eq!(field_remark(name), None, "{name}");
    }
}

#[test]
fn one_slip_is_one_letter() {
    for (a, b, is_slip) in [
        ("size", "size", true),
        ("", "", true),
        ("siz", "size", true),
        ("sizee", "size", true),
        ("sise", "size", true),
        ("szie", "size", true),
        ("isze", "size", true),
        ("ezis", "size", false),
        ("si", "size", false),
        ("sziee", "size", false),
        ("aa", "bb", false),
        ("aab", "abb", true),
    ] {
        assert_eq!(differs_by_a_slip(a.as_bytes(), b.as_bytes()), is_slip, "{a} {b}");
        assert_eq!(differs_by_a_slip(b.as_bytes(), a.as_bytes()), is_slip, "{b} {a}");
    }
}

#[test]
fn other_spellings_of_an_architecture_are_known_for_what_they_are() {
    for name in ["x86_64", "x86-64", "x64", "AMD64", "aarch64", "armv8", "arm64v8", "arm64/v8", "linux/amd64", "ARM64"]
    {
        assert!(is_misspelt_architecture(name), "{name}");
    }
    for name in ["amd64", "arm64", "riscv64", "386", "arm", "", "s390x"] {
        assert!(!is_misspelt_architecture(name), "{name}");
    }
}

#[test]
fn names_are_read_and_bounded() {
    #[derive(Deserialize)]
    struct Document {
        annotations: Names,
        other: Names,
    }
    let text = r#"{"annotations":{"io.kubesolo.os.a":1,"io.kubesolo.os.version":{"c":[{"sizes":null}]},"d":2,"sizes":"f"},
        "more":[1]}"#;
    let document: Document = json::parse(text.as_bytes(), "t").unwrap();
    let want = ["io.kubesolo.os.a", "io.kubesolo.os.version", "sizes"].map(str::to_owned);
    assert_eq!((document.annotations.0, document.other.0), (want.to_vec(), vec![]));
    let null: Document = json::parse(br#"{"annotations":null}"#, "t").unwrap();
    assert_eq!(null.annotations, Names(Vec::new()));
    let many: String = (0..MAX_NAMES + 9).map(|n| format!("\"{PREFIX}{n}\":0,")).collect();
    let long = format!("\"{PREFIX}{}\":0,", "x".repeat(MAX_LENGTH + 1));
    let document: Document =
        json::parse(format!("{{\"annotations\":{{{long}{many}\"z\":0}}}}").as_bytes(), "t").unwrap();
    assert_eq!((document.annotations.0.len(), document.annotations.0[0].as_str()), (MAX_NAMES, "io.kubesolo.os.0"));
    // Foreign names take none of its places.
    for foreign in ["com.example.k", "k", "\u{e9}"] {
        let many: String = (0..MAX_NAMES * 9).map(|n| format!("\"{foreign}{n}\":0,")).collect();
        let slip = r#""io.kubesolo.os.expire":0,"expirse":0"#;
        let document: Document = json::parse(format!("{{\"annotations\":{{{many}{slip}}}}}").as_bytes(), "t").unwrap();
        assert_eq!(document.annotations.0, ["io.kubesolo.os.expire", "expirse"]);
    }
}

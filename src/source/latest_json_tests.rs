//! Tests of `latest_json.rs`: accepted documents, and one wrong thing at a time.

use super::*;

fn base() -> Url {
    Url::parse("https://h/os/latest.json?token=secret").unwrap()
}

fn file(name: &str, c: char, size: u64) -> String {
    format!(r#""{name}":{{"url":"{name}.bin","sha256":"{}","size":{size}}}"#, c.to_string().repeat(64))
}

fn single() -> String {
    format!(
        r#"{{"version":"1.2.0","channel":"stable","architecture":"amd64","min_compatible_version":"1.0.0",
"release_notes":"a\nb","release_date":"2026-01-01","expires":"2027-01-01T00:00:00Z",{},{}}}"#,
        file("kernel", 'a', 10),
        file("initramfs", 'b', 20)
    )
}

fn read(text: &str) -> Result<Artifact> {
    parse(text.as_bytes(), &base(), "amd64", "http h")
}

fn place(file: &FileRef) -> String {
    match &file.place {
        Place::Url(url) => url.request_text(),
        _ => panic!("not a URL"),
    }
}

#[test]
fn reads_a_single_object() {
    let a = read(&single()).unwrap();
    assert_eq!(
        (a.release.version.as_str(), a.release.channel.as_deref(), a.release.architecture.as_deref()),
        ("1.2.0", Some("stable"), Some("amd64"))
    );
    assert_eq!(a.release.min_compatible_version.as_deref(), Some("1.0.0"));
    assert_eq!(
        (a.release.release_notes.as_deref(), a.release.release_date.as_deref()),
        (Some("a\nb"), Some("2026-01-01"))
    );
    assert_eq!(a.release.expires.as_deref(), Some("2027-01-01T00:00:00Z"));
    assert_eq!((a.kernel.size_bytes, a.initramfs.size_bytes), (10, 20));
    assert_eq!(place(&a.kernel), "https://h/os/kernel.bin");
    assert_eq!(a.source, "http h");
    // Another architecture is reported, not hidden: the gate refuses it.
    assert_eq!(read(&single().replace("amd64", "arm64")).unwrap().release.architecture.as_deref(), Some("arm64"));
}

#[test]
fn a_file_may_have_a_chunk_index() {
    assert_eq!(read(&single()).unwrap().kernel.chunks, None);
    let with = |chunks: &str| read(&single().replacen("\"size\":20", &format!("\"size\":20,\"chunks\":{chunks}"), 1));
    assert_eq!(with("null").unwrap().initramfs.chunks, None);
    let sha256 = "c".repeat(64);
    let good = format!(r#"{{"url":"i.chunks","sha256":"{sha256}","size":7}}"#);
    let a = with(&good).unwrap();
    let chunks = a.initramfs.chunks.as_deref().unwrap();
    assert_eq!((chunks.size_bytes, chunks.sha256.hex(), place(chunks)), (7, sha256, "https://h/os/i.chunks".into()));
    // It is not part of what is installed.
    assert_eq!(a.digest, read(&single()).unwrap().digest);
    for (from, to, word) in [
        ("\"size\":7", "\"size\":0", "'initramfs.chunks.size' is 0"),
        ("\"cc", "\"C", "'initramfs.chunks.sha256'"),
        ("i.chunks", "", "'initramfs.chunks.url' is empty"),
    ] {
        let e = with(&good.replacen(from, to, 1)).unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().contains(word), "{word}: {e}");
    }
}

#[test]
fn file_urls_may_be_relative_or_absolute() {
    for (url, want) in [
        ("v1/k", "https://h/os/v1/k"),
        ("/k?x=1", "https://h/k?x=1"),
        ("../k", "https://h/k"),
        ("https://other:8443/k", "https://other:8443/k"),
        ("//other/k", "https://other/k"),
    ] {
        assert_eq!(place(&read(&single().replace("kernel.bin", url)).unwrap().kernel), want);
    }
}

#[test]
fn names_the_field_that_is_wrong() {
    let a = "a".repeat(64);
    for (from, to, word) in [
        (r#""version":"1.2.0","#, "", "'version' is missing"),
        (r#""1.2.0""#, r#""""#, "'version' is empty"),
        (r#""1.2.0""#, "12", "'version' has the wrong type"),
        (r#""1.2.0""#, r#""1 2""#, "'version' is not printable"),
        (r#""stable""#, "[]", "'channel' has the wrong type"),
        (r#""kernel":"#, r#""colonel":"#, "'kernel' is missing"),
        (r#""initramfs":"#, r#""x":"#, "'initramfs' is missing"),
        (r#""size":10"#, r#""size":0"#, "'kernel.size' is 0"),
        (r#""size":10"#, r#""size":-1"#, "'kernel.size' has the wrong type"),
        (r#""size":10"#, r#""size":99999999999999999999"#, "'kernel.size' has the wrong type"),
        (r#""size":10"#, r#""size":9223372036854775808"#, "'kernel.size' is 9223372036854775808"),
        (r#""size":20"#, r#""siz":20"#, "'initramfs.size' is missing"),
        (&a, "aa", "'kernel.sha256'"),
        (&a, &a.to_uppercase(), "'kernel.sha256'"),
        ("kernel.bin", "", "'kernel.url' is empty"),
        ("kernel.bin", "file:///etc/passwd", "'kernel.url'"),
        ("kernel.bin", "http://u:p@h/", "'kernel.url'"),
    ] {
        assert!(single().contains(from), "{from}");
        let e = read(&single().replacen(from, to, 1)).unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().contains(word), "{word}: {e}");
        assert!(e.to_string().contains("https://h/os/latest.json:") && !e.to_string().contains("secret"), "{e}");
    }
}

#[test]
fn every_truncation_is_an_error_that_names_the_document() {
    let good = single();
    for cut in 0..good.len() {
        let e = read(&good[..cut]).unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().contains("latest.json"), "{cut}: {e}");
    }
}

#[test]
fn an_array_is_searched_by_architecture_and_inherits_metadata_only() {
    let entry = |architecture: &str, more: &str, c: char| {
        let files = [file("kernel", c, 1), file("initramfs", c, 2)].join(",");
        format!(r#"{{"architecture":"{architecture}",{more}{files}}}"#)
    };
    let document = |entries: &str| {
        format!(
            r#"{{"version":"2.0.0","channel":"edge","architecture":"mips",{},"artifacts":[{entries}]}}"#,
            file("kernel", 'f', 9)
        )
    };
    let both = [entry("arm64", "", 'c'), entry("amd64", r#""channel":"stable","#, 'd')].join(",");
    let a = read(&document(&both)).unwrap();
    assert_eq!(
        (a.release.version.as_str(), a.release.channel.as_deref(), a.release.architecture.as_deref()),
        ("2.0.0", Some("stable"), Some("amd64"))
    );
    assert_eq!(a.kernel.sha256.hex(), "d".repeat(64));
    let e = read(&document(&entry("arm64", "", 'c'))).unwrap_err();
    assert!(e.kind() == Kind::Gate && e.to_string().contains("offered: linux/arm64"), "{e}");
    assert_eq!(read(&document("")).unwrap_err().kind(), Kind::Gate);
    for (entries, word) in [
        ([entry("amd64", "", 'c'), entry("amd64", "", 'd')].join(","), "more than one for amd64"),
        (r#"{"architecture":"amd64","initramfs":null}"#.to_owned(), "'artifacts[0].kernel' is missing"),
        (r#"{"version":"1"}"#.to_owned(), "'artifacts[0].architecture' is missing"),
        (entry("amd64", r#""version":7,"#, 'c'), "'artifacts[0].version' has the wrong type"),
    ] {
        let e = read(&document(&entries)).unwrap_err();
        assert!(e.kind() == Kind::Source && e.to_string().contains(word), "{word}: {e}");
    }
}

#[test]
fn the_identity_follows_what_would_be_installed() {
    let digest = read(&single()).unwrap().digest;
    for (from, to, same) in [
        ("a\\nb", "new notes", true),
        ("2027", "2028", true),
        ("stable", "edge", true),
        ("kernel.bin", "elsewhere/k", true),
        ("1.2.0", "1.2.1", false),
        ("amd64", "arm64", false),
        (r#""size":10"#, r#""size":11"#, false),
        ("bbbb", "bbbc", false),
    ] {
        assert_eq!(read(&single().replacen(from, to, 1)).unwrap().digest == digest, same, "{from}");
    }
    // printf 'kubesolo-os-artifact-v1\n1.2.0\namd64\nkernel %s 10\ninitramfs %s 20\nend\n' aaaa... bbbb... | sha256sum
    let expected = "143c7db8ca4b40c264f17471f77ede88b07833c56adc58a769c18fca7042ede8";
    assert_eq!(digest.hex(), expected);
}

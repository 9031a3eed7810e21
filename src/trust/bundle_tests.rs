//! Tests of `bundle.rs`. Real bundles, made by cosign and openssl, are in `tests/`.

use super::*;

const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn statement() -> String {
    format!(
        r#"{{"_type":"{STATEMENT_TYPE}","subject":[{{"digest":{{"sha256":"{HEX}"}},"annotations":{{}}}}],"predicateType":"{PREDICATE_TYPE}","predicate":{{}}}}"#
    )
}

fn bundle_of(payload: &str) -> String {
    let payload = base64::encode(payload.as_bytes());
    format!(
        r#"{{"mediaType":"{MEDIA_TYPE}","verificationMaterial":{{"publicKey":{{"hint":"aGludA=="}},"tlogEntries":[]}},"dsseEnvelope":{{"payload":"{payload}","payloadType":"{PAYLOAD_TYPE}","signatures":[{{"sig":"c2ln","keyid":"x"}}]}},"more":1}}"#
    )
}

#[test]
fn a_bundle_is_read_and_unknown_fields_do_not_matter() {
    let bundle = Bundle::parse(bundle_of(&statement()).as_bytes()).unwrap();
    let payload = statement();
    let signed = format!("DSSEv1 28 {PAYLOAD_TYPE} {} {payload}", payload.len());
    assert_eq!(String::from_utf8(bundle.signed.clone()).unwrap(), signed);
    assert_eq!((bundle.signatures.as_slice(), bundle.hint.as_deref()), (&[b"sig".to_vec()][..], Some("aGludA==")));
    assert_eq!(bundle.subjects().unwrap(), [Digest::parse_hex(HEX).unwrap()]);
}

#[test]
fn the_encoding_that_is_signed_is_that_of_the_specification() {
    // Source: DSSE v1, `protocol.md`, "Test Vectors".
    let signed = pre_authentication("http://example.com/HelloWorld", b"hello world");
    assert_eq!(signed, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    assert_eq!(pre_authentication("", b""), b"DSSEv1 0  0 ");
}

#[test]
fn what_is_wrong_is_named() {
    for (from, to, words) in [
        ("v0.3+json\"", "v0.2+json\"", "'mediaType' is"),
        ("\"mediaType\"", "\"m\"", "'mediaType' is missing"),
        ("dsseEnvelope", "messageSignature", "'dsseEnvelope' is missing"),
        ("in-toto+json", "in-toto+xml", "payloadType"),
        ("\"payload\":\"", "\"payload\":\"!", "'dsseEnvelope.payload' is not base64"),
        ("[{\"sig\"", "[{\"s\"", "signatures[0].sig"),
        ("\"c2ln\"", "\"c2l\"", "signatures[0].sig' is not base64"),
        ("[{\"sig\":\"c2ln\",\"keyid\":\"x\"}]", "[]", "1 to 16"),
        ("\"more\":1", "\"more\":", "not valid JSON"),
        ("\"more\":1", "\"mediaType\":1", "same name twice"),
    ] {
        let text = bundle_of(&statement());
        assert!(text.contains(from), "{from}");
        let e = Bundle::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(e.kind() == Kind::Signature && e.to_string().contains(words), "{from} to {to}: {e}");
    }
    let many = "{\"sig\":\"c2ln\"},".repeat(17);
    let text = bundle_of(&statement()).replace("{\"sig\":\"c2ln\",\"keyid\":\"x\"}", many.trim_end_matches(','));
    assert!(Bundle::parse(text.as_bytes()).unwrap_err().to_string().contains("1 to 16"));
}

#[test]
fn another_statement_is_no_signature() {
    for (from, to, words) in [
        ("Statement/v1", "Statement/v0.1", "'_type' is"),
        ("cosign/sign/v1", "cosign/other/v1", "'predicateType' is"),
        (PREDICATE_TYPE, "https://spdx.dev/Document", "'predicateType' is"),
        ("\"subject\":[{\"digest\"", "\"subject\":[{\"d\"", "subject.digest"),
        ("sha256", "sha512", "subject.digest.sha256"),
        (&HEX[..10], "9F86D08188", "digest"),
        (&HEX[..10], "", "digest"),
        ("\"subject\":[", "\"subject\":[],\"s\":[", "1 to 16"),
    ] {
        let text = statement();
        assert!(text.contains(from), "{from}");
        let bundle = Bundle::parse(bundle_of(&text.replacen(from, to, 1)).as_bytes()).unwrap();
        let e = bundle.subjects().unwrap_err();
        assert!(e.kind() == Kind::Signature && e.to_string().contains(words), "{from} to {to}: {e}");
    }
}

#[test]
fn what_is_too_much_is_refused_and_the_most_is_not() {
    let subject = format!(r#"{{"digest":{{"sha256":"{HEX}"}},"annotations":{{}}}}"#);
    for (count, is_taken) in [(MAX_PARTS, true), (MAX_PARTS + 1, false)] {
        let text = statement().replacen(&subject, &vec![subject.as_str(); count].join(","), 1);
        let subjects = Bundle::parse(bundle_of(&text).as_bytes()).unwrap().subjects();
        assert_eq!(subjects.as_ref().is_ok_and(|s| s.len() == count), is_taken, "{count} subjects: {subjects:?}");
        assert!(is_taken || subjects.unwrap_err().to_string().contains("1 to 16"));
    }
    for (length, is_taken) in [(MAX_BYTES as usize, true), (MAX_BYTES as usize + 1, false)] {
        let mut text = bundle_of(&statement());
        text.extend(std::iter::repeat_n(' ', length - text.len()));
        let bundle = Bundle::parse(text.as_bytes());
        assert_eq!(bundle.is_ok(), is_taken, "{length} bytes");
        assert!(is_taken || bundle.unwrap_err().to_string().contains("at most 65536"));
    }
}

#[test]
fn any_byte_may_be_changed_without_a_panic() {
    let text = bundle_of(&statement()).into_bytes();
    for at in 0..text.len() {
        for byte in [0, b'"', b'{', b'\\', text[at] ^ 1, 0xff] {
            let mut wrong = text.clone();
            wrong[at] = byte;
            if let Ok(bundle) = Bundle::parse(&wrong) {
                let _ = bundle.subjects();
            }
        }
    }
}

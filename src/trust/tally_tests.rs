//! Tests of `verify.rs`, with keys and signatures that a real openssl makes.

use super::*;
use crate::trust::bundle::{MEDIA_TYPE, pre_authentication};
use crate::trust::key::tests::{ED25519, P256, pair, sign};
use crate::trust::keyring::SignaturePolicy;
use std::path::PathBuf;

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

struct Signer {
    dir: tempfile::TempDir,
    private: PathBuf,
    key: Key,
    pem: Vec<u8>,
}

impl Signer {
    fn new(options: &[&str]) -> Signer {
        let dir = tempfile::tempdir().unwrap();
        let (private, pem) = pair(dir.path(), "k", options);
        Signer { private, key: Key::parse(&pem, "k").unwrap(), pem, dir }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(self.dir.path(), &self.private, self.key.algorithm, message)
    }

    fn hint(&self) -> String {
        let raw: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(&self.key.id.hex()[2 * at..2 * at + 2], 16).unwrap()).collect();
        base64::encode(&raw)
    }
}

/// A key directory, and the ring read from it.
fn ring(threshold: usize, installed: &[&Signer], revoked: &[&Signer]) -> Keyring {
    let dir = tempfile::tempdir().unwrap();
    for (n, signer) in installed.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{n}.pub")), &signer.pem).unwrap();
    }
    std::fs::create_dir(dir.path().join("revoked")).unwrap();
    let list: String = revoked.iter().map(|signer| format!("{}\n", signer.key.id)).collect();
    std::fs::write(dir.path().join("revoked/list"), list).unwrap();
    Keyring::load(dir.path(), SignaturePolicy::Required, threshold).unwrap()
}

fn statement(subject: Digest) -> String {
    let hex = subject.hex();
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{hex}"}}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{{}}}}"#
    )
}

fn bundle(payload: &str, signers: &[&Signer], hint: &str) -> Vec<u8> {
    let signed = pre_authentication(PAYLOAD_TYPE, payload.as_bytes());
    let signatures: Vec<String> =
        signers.iter().map(|signer| format!(r#"{{"sig":"{}"}}"#, base64::encode(&signer.sign(&signed)))).collect();
    let (payload, signatures) = (base64::encode(payload.as_bytes()), signatures.join(","));
    format!(
        r#"{{"mediaType":"{MEDIA_TYPE}","verificationMaterial":{{"publicKey":{{"hint":"{hint}"}}}},"dsseEnvelope":{{"payload":"{payload}","payloadType":"{PAYLOAD_TYPE}","signatures":[{signatures}]}}}}"#
    )
    .into_bytes()
}

fn verdict(ring: &Keyring, subject: Digest, bundles: &[&[u8]]) -> Result<Vec<Digest>> {
    let mut tally = Tally::new(ring);
    for bundle in bundles {
        tally.begin();
        tally.take_bundle(bundle, subject);
    }
    tally.finish("it", "sign it")
}

#[test]
fn of_what_is_there_the_most_telling_is_named() {
    let (installed, stranger) = (Signer::new(P256), Signer::new(P256));
    let ring = ring(1, &[&installed], &[]);
    let subject = Digest::of(b"release");
    let by_stranger = bundle(&statement(subject), &[&stranger], &stranger.hint());
    let spoilt = bundle(&statement(subject), &[&stranger], &installed.hint());
    type Step<'a> = &'a dyn Fn(&mut Tally<'_>);
    let see = |other: Other| move |tally: &mut Tally<'_>| tally.see(other);
    let (attested, by_notation, by_cosign_2) = (see(Other::Attestation), see(Other::Notation), see(Other::Cosign2));
    let gone = |tally: &mut Tally<'_>| tally.is_gone("manifest", Digest::of(b"gone"));
    let unknown = |tally: &mut Tally<'_>| tally.take_bundle(&by_stranger, subject);
    let broken = |tally: &mut Tally<'_>| tally.take_bundle(&spoilt, subject);
    let down = |tally: &mut Tally<'_>| tally.postpone(Error::new(Kind::Network, "down"));
    // Steps, the message, and whether more must be found out for its words.
    for (steps, words, is_mute) in [
        (&[][..], "verify it: it is not signed", true),
        (&[&attested as Step], "verify it: it is not signed; there is an attestation", true),
        (&[&by_notation, &attested], "verify it: it is signed by notation", false),
        (&[&attested, &by_cosign_2, &by_notation], "verify it: it is signed in cosign 2's format", false),
        (&[&by_cosign_2, &unknown], "no signature of it counts: it is signed by sha256:", false),
        (&[&gone, &unknown], "no signature of it counts: a signature or an attestation is listed", false),
        (&[&unknown, &gone, &attested], "its manifest sha256:", false),
        (&[&gone, &broken], "does not verify", false),
        (&[&gone, &down], "down", false),
        (&[&down], "down", false),
    ] {
        let mut tally = Tally::new(&ring);
        steps.iter().for_each(|step| step(&mut tally));
        assert_eq!(tally.knows_nothing(), is_mute, "{words}");
        let e = tally.finish("it", "sign it").unwrap_err().to_string();
        assert!(e.contains(words), "{words}: {e}");
        // The hint fits the reason, or there is none.
        let hint = match words {
            _ if words.contains("verify it: it is") => Some("(sign it)"),
            _ if words.ends_with("signed by sha256:") => Some("(install the publisher's key"),
            _ => None,
        };
        let said = ["(sign it)", "(install the publisher's key"]
            .into_iter()
            .filter(|word| e.contains(word))
            .collect::<Vec<_>>();
        assert!(hint.map_or(said.is_empty(), |hint| said.len() == 1 && e.contains(hint)), "{words}: {e}");
    }
    // Beside one of two signatures, an attestation adds nothing.
    let two = self::ring(2, &[&installed, &stranger], &[]);
    for (other, words) in [(Other::Attestation, "and only"), (Other::Cosign2, "has; it is signed in cosign 2's format")]
    {
        let mut tally = Tally::new(&two);
        tally.take_bundle(&by_stranger, subject);
        tally.see(other);
        let e = tally.finish("it", "sign it").unwrap_err().to_string();
        assert!(e.contains(words) && !e.contains("attestation"), "{e}");
    }
}

fn refused(result: Result<Vec<Digest>>, words: &str) {
    let e = result.unwrap_err();
    assert!(e.kind() == Kind::Signature && e.to_string().contains(words), "{e}");
}

#[test]
fn different_trusted_keys_are_counted_once_each() {
    let (one, two) = (Signer::new(P256), Signer::new(ED25519));
    let subject = Digest::of(b"manifest");
    let [by_one, by_two] = [&one, &two].map(|signer| bundle(&statement(subject), &[signer], &signer.hint()));
    let by_both = bundle(&statement(subject), &[&two, &one], "");
    let (first, second) = (one.key.id, two.key.id);
    let need = |n| ring(n, &[&one, &two], &[]);
    assert_eq!(verdict(&need(1), subject, &[&by_one]).unwrap(), [first]);
    assert_eq!(verdict(&need(1), subject, &[&by_two]).unwrap(), [second]);
    assert_eq!(verdict(&need(2), subject, &[&by_one, &by_two]).unwrap(), [first, second]);
    assert_eq!(verdict(&need(2), subject, &[&by_both]).unwrap().len(), 2);
    let again = bundle(&statement(subject), &[&one, &one], "");
    refused(verdict(&need(2), subject, &[&by_one, &by_one, &again]), "2 keys must have signed it, and only");
    refused(verdict(&need(1), subject, &[]), "it is not signed");
    // The second is revoked, so there are not two.
    refused(verdict(&ring(2, &[&one, &two], &[&two]), subject, &[&by_both]), "revoked");
    assert_eq!(verdict(&ring(1, &[&one, &two], &[&two]), subject, &[&by_both]).unwrap(), [first]);
}

#[test]
fn the_best_reason_is_named() {
    let (one, other, ed) = (Signer::new(P256), Signer::new(P256), Signer::new(ED25519));
    let (subject, elsewhere) = (Digest::of(b"manifest"), Digest::of(b"other"));
    let trusting = ring(1, &[&one, &ed], &[]);
    let good = bundle(&statement(subject), &[&one], &one.hint());
    let for_other = bundle(&statement(elsewhere), &[&one], &one.hint());
    let by_other = bundle(&statement(subject), &[&other], &other.hint());
    let broken = bundle(&statement(subject), &[&other], &one.hint());
    let pre_hashed = bundle(&statement(subject), &[&one], &ed.hint());
    let no_hint = bundle(&statement(subject), &[&other], "");
    let states = statement(subject).replace("cosign/sign/v1", "cosign/vuln/v1");
    let attestation = bundle(&states, &[&one], &one.hint());
    refused(verdict(&trusting, subject, &[&for_other]), &format!("for {elsewhere}, not for {subject}"));
    refused(verdict(&trusting, subject, &[&by_other]), &format!("{} (not installed)", other.key.id));
    refused(verdict(&trusting, subject, &[&broken]), "does not verify");
    refused(verdict(&ring(1, &[&ed], &[]), subject, &[&pre_hashed]), "Ed25519ph");
    refused(verdict(&trusting, subject, &[&no_hint]), "by no installed key");
    refused(verdict(&trusting, subject, &[&attestation]), "about something else");
    refused(verdict(&trusting, subject, &[b"{}"]), "a bundle is malformed");
    refused(verdict(&ring(1, &[&one, &ed], &[&one]), subject, &[&good]), "(0.pub, revoked)");
    // A key that is no longer in the directory, but on the list.
    refused(verdict(&ring(1, &[&ed], &[&one]), subject, &[&good]), "(revoked)");
    // The most informative reason wins in any order; and a good one counts after any number of bad ones.
    for order in [[&b"{}"[..], &by_other, &for_other, &broken], [&broken, &for_other, &by_other, &b"{}"[..]]] {
        refused(verdict(&trusting, subject, &order), "does not verify");
        let mut with_good = order.to_vec();
        with_good.push(&good);
        assert_eq!(verdict(&trusting, subject, &with_good).unwrap(), [one.key.id]);
    }
    let mut tally = Tally::new(&trusting);
    tally.cut_short(128);
    refused(tally.finish("it", "sign it"), "the first 128 candidates");
}

#[test]
fn once_enough_have_signed_a_few_more_are_looked_at() {
    let (one, two, three) = (Signer::new(P256), Signer::new(ED25519), Signer::new(P256));
    let subject = Digest::of(b"manifest");
    let by = |signer: &Signer| bundle(&statement(subject), &[signer], &signer.hint());
    let trusting = ring(1, &[&one, &two, &three], &[&three]);
    let mut tally = Tally::new(&trusting);
    let take = |tally: &mut Tally<'_>, bundle: &[u8]| {
        tally.begin();
        tally.take_bundle(bundle, subject);
    };
    assert!(tally.wants_more() && !tally.is_enough());
    take(&mut tally, &by(&one));
    // The second key, if near enough; then all keys that count have signed.
    for _ in 0..MAX_EXTRA - 1 {
        take(&mut tally, b"{}");
        assert!(tally.wants_more() && tally.is_enough());
    }
    take(&mut tally, &by(&two));
    assert!(!tally.wants_more());
    assert_eq!(tally.finish("it", "sign it").unwrap(), [one.key.id, two.key.id]);
    let mut tally = Tally::new(&trusting);
    take(&mut tally, &by(&two));
    (0..MAX_EXTRA).for_each(|_| take(&mut tally, b"{}"));
    assert!(!tally.wants_more());
}

#[test]
fn while_something_could_not_be_had_nothing_is_decided() {
    let (one, other) = (Signer::new(P256), Signer::new(P256));
    let subject = Digest::of(b"manifest");
    let trusting = ring(1, &[&one], &[]);
    let lost = || Error::new(Kind::Network, "connection lost");
    // Signatures by other keys prove nothing: the missing one may be the good one.
    for bundle in [None, Some(b"{}".to_vec()), Some(bundle(&statement(subject), &[&other], ""))] {
        let mut tally = Tally::new(&trusting);
        tally.postpone(lost());
        tally.postpone(Error::new(Kind::Network, "another"));
        bundle.iter().for_each(|bundle| tally.take_bundle(bundle, subject));
        let e = tally.finish("it", "sign it").unwrap_err();
        assert!(e.kind() == Kind::Network && e.to_string().contains("lost"), "{e}");
    }
    let mut tally = Tally::new(&trusting);
    tally.postpone(lost());
    tally.take_bundle(&bundle(&statement(subject), &[&one], ""), subject);
    assert_eq!(tally.finish("it", "sign it").unwrap(), [one.key.id]);
}

/// Every bit of a bundle: a change in payload or signature is refused, any other makes nothing else accepted.
#[test]
fn no_flipped_bit_of_a_bundle_makes_anything_else_accepted() {
    for options in [P256, ED25519] {
        let (one, two) = (Signer::new(options), Signer::new(options));
        let (subject, elsewhere) = (Digest::of(b"manifest"), Digest::of(b"other"));
        let trusting = ring(1, &[&one, &two], &[]);
        let good = bundle(&statement(subject), &[&one], &one.hint());
        assert_eq!(verdict(&trusting, subject, &[&good]).unwrap(), [one.key.id]);
        let text = String::from_utf8(good.clone()).unwrap();
        let inside = |field: &str| {
            let start = text.find(&format!("\"{field}\":\"")).unwrap() + field.len() + 4;
            start..start + text[start..].find('"').unwrap()
        };
        let (payload, signature) = (inside("payload"), inside("sig"));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut wrong = good.clone();
                wrong[at] ^= 1 << bit;
                match verdict(&trusting, subject, &[&wrong]) {
                    Ok(by) => {
                        assert_eq!(by, [one.key.id], "bit {bit} of byte {at}");
                        assert!(!payload.contains(&at) && !signature.contains(&at), "bit {bit} of byte {at}");
                    }
                    Err(e) => assert_eq!(e.exit_code(), 5, "{e}"),
                }
                assert!(verdict(&trusting, elsewhere, &[&wrong]).is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}

fn detached_verdict(ring: &Keyring, document: &[u8], file: &[u8]) -> Result<Vec<Digest>> {
    let mut tally = Tally::new(ring);
    tally.take_detached(document, file);
    tally.finish("latest.json", "sign it")
}

#[test]
fn a_detached_signature_is_over_the_exact_bytes_and_every_bit_counts() {
    let document = b"{\"version\":\"1.2.0\"}\n";
    for options in [P256, ED25519] {
        let (one, two) = (Signer::new(options), Signer::new(options));
        let trusting = ring(1, &[&one, &two], &[]);
        let file = format!("{}\n", base64::encode(&one.sign(document))).into_bytes();
        assert_eq!(detached_verdict(&trusting, document, &file).unwrap(), [one.key.id]);
        assert_eq!(detached_verdict(&trusting, document, file.trim_ascii_end()).unwrap(), [one.key.id]);
        for (whole, is_file) in [(file.as_slice(), true), (&document[..], false)] {
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let mut wrong = whole.to_vec();
                    wrong[at] ^= 1 << bit;
                    let got = match is_file {
                        true => detached_verdict(&trusting, document, &wrong),
                        false => detached_verdict(&trusting, &wrong, &file),
                    };
                    assert!(got.is_err(), "{is_file}: bit {bit} of byte {at}");
                }
            }
        }
        refused(detached_verdict(&ring(1, &[&two], &[]), document, &file), "none is by an installed key");
        refused(detached_verdict(&ring(1, &[&one, &two], &[&one]), document, &file), "revoked");
        refused(detached_verdict(&ring(2, &[&one, &two], &[]), document, &[&file[..], &file].concat()), "2 keys must");
        let both = [file.clone(), format!("{}\n", base64::encode(&two.sign(document))).into_bytes()].concat();
        assert_eq!(detached_verdict(&ring(2, &[&one, &two], &[]), document, &both).unwrap().len(), 2);
        // As `openssl base64` and `base64` break lines.
        for width in [64, 76] {
            let broken: Vec<&[u8]> = file.trim_ascii_end().chunks(width).collect();
            let broken = [broken.join(&b'\n'), b"\n".to_vec()].concat();
            assert_eq!(detached_verdict(&trusting, document, &broken).unwrap(), [one.key.id], "{width}");
        }
    }
}

#[test]
fn a_malformed_detached_signature_is_refused_whole() {
    let one = Signer::new(ED25519);
    let trusting = ring(1, &[&one], &[]);
    let good = base64::encode(&one.sign(b"x"));
    let many = format!("{good}\n").repeat(17);
    for (file, words) in [
        ("", "it is empty"),
        ("\n", "it is empty"),
        (&*format!("{good}\r\r{good}"), "not base64"),
        (&*format!("{} {}", &good[..64], &good[64..]), "not base64"),
        (&*format!("{good}\nno base64\n"), "not base64"),
        (&*many, "more than 16"),
        ("AAAA\n", "by an installed key"),
    ] {
        refused(detached_verdict(&trusting, b"x", file.as_bytes()), words);
    }
    refused(detached_verdict(&trusting, b"x", b"\xff"), "raw bytes");
    for around in [format!("{good}\r\n"), format!(" {good}\t"), format!("\u{feff}{good}\r\n\r\n")] {
        assert_eq!(detached_verdict(&trusting, b"x", around.as_bytes()).unwrap(), [one.key.id], "{around:?}");
    }
}

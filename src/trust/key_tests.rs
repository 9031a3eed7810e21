//! Tests of `keys.rs`, with keys and signatures that a real openssl makes.

use super::*;
use std::path::{Path, PathBuf};
use std::process::Command;

fn openssl(dir: &Path, args: &[&str]) {
    let out = Command::new("openssl").args(args).current_dir(dir).output().expect("openssl is installed");
    assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Makes a key pair. Returns: the private key's file, the public key in PEM.
pub fn pair(dir: &Path, name: &str, options: &[&str]) -> (PathBuf, Vec<u8>) {
    let (private, public) = (format!("{name}.key"), format!("{name}.pub"));
    openssl(dir, &[&["genpkey", "-out", &private], options].concat());
    openssl(dir, &["pkey", "-in", &private, "-pubout", "-out", &public]);
    (dir.join(private), std::fs::read(dir.join(public)).unwrap())
}

pub const ED25519: &[&str] = &["-algorithm", "ed25519"];
pub const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

pub fn sign(dir: &Path, key: &Path, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    std::fs::write(dir.join("message"), message).unwrap();
    let key = key.to_str().unwrap();
    match algorithm {
        Algorithm::Ed25519 => {
            openssl(dir, &["pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", "message", "-out", "signature"])
        }
        Algorithm::P256 => openssl(dir, &["dgst", "-sha256", "-sign", key, "-out", "signature", "message"]),
    }
    std::fs::read(dir.join("signature")).unwrap()
}

#[test]
fn what_openssl_signs_is_verified_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for (algorithm, options) in [(Algorithm::Ed25519, ED25519), (Algorithm::P256, P256)] {
        let (private, pem) = pair(dir.path(), "one", options);
        let (_, other) = pair(dir.path(), "other", options);
        let key = Key::parse(&pem, "one.pub").unwrap();
        let other = Key::parse(&other, "other.pub").unwrap();
        assert_eq!((key.algorithm, key.name.as_str()), (algorithm, "one.pub"));
        assert_ne!(key.id, other.id);
        let message = b"a message";
        let signature = sign(dir.path(), &private, algorithm, message);
        assert!(key.verifies(message, &signature));
        assert!(!other.verifies(message, &signature) && !key.verifies(b"a messagf", &signature));
        for at in 0..signature.len() {
            for bit in 0..8 {
                let mut wrong = signature.clone();
                wrong[at] ^= 1 << bit;
                assert!(!key.verifies(message, &wrong), "{algorithm:?}: bit {bit} of byte {at}");
            }
        }
        for wrong in [&signature[1..], &signature[..signature.len() - 1], &[]] {
            assert!(!key.verifies(message, wrong));
        }
        assert!(!key.verifies(message, &[signature.as_slice(), &[0]].concat()));
    }
}

#[test]
fn every_bit_of_a_key_counts() {
    let dir = tempfile::tempdir().unwrap();
    for (algorithm, options) in [(Algorithm::Ed25519, ED25519), (Algorithm::P256, P256)] {
        let (private, pem) = pair(dir.path(), "key", options);
        let signature = sign(dir.path(), &private, algorithm, b"m");
        for at in 0..pem.len() {
            for bit in 0..8 {
                let mut wrong = pem.clone();
                wrong[at] ^= 1 << bit;
                let still = Key::parse(&wrong, "k").is_ok_and(|key| key.verifies(b"m", &signature));
                assert!(!still, "{algorithm:?}: bit {bit} of byte {at} of the file");
            }
        }
        let crlf = String::from_utf8(pem.clone()).unwrap().replace('\n', "\r\n");
        let key = Key::parse(&pem, "k").unwrap();
        assert_eq!(Key::parse(crlf.as_bytes(), "k").unwrap().id, key.id);
        assert_eq!(Key::parse(pem.trim_ascii_end(), "k").unwrap().id, key.id);
    }
}

#[test]
fn other_keys_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (_, good) = pair(dir.path(), "good", P256);
    let (_, p384) = pair(dir.path(), "p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let (_, rsa) = pair(dir.path(), "rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    openssl(dir.path(), &["pkey", "-in", "good.key", "-pubout", "-ec_conv_form", "compressed", "-out", "short.pub"]);
    let short = std::fs::read(dir.path().join("short.pub")).unwrap();
    let private = std::fs::read(dir.path().join("good.key")).unwrap();
    let two = [good.clone(), p384.clone()].concat();
    let cut = good[..good.len() - 30].to_vec();
    for (bytes, words) in [
        (p384, "neither"),
        (rsa, "neither"),
        (short, "neither"),
        (private, "a PRIVATE key"),
        (two, "more than one key"),
        ([b"\xef\xbb\xbf".as_slice(), &good].concat(), "byte order mark"),
        (cut, "not one public key"),
        (b"".to_vec(), "not one public key"),
        (vec![0xff; 100], "not one public key"),
    ] {
        let e = Key::parse(&bytes, "site.pub").unwrap_err();
        assert!(e.kind() == Kind::Config && e.to_string().contains(words), "wanted '{words}': {e}");
        assert!(e.to_string().contains("site.pub"), "{e}");
    }
}

#[test]
fn a_key_has_one_spelling() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |body: &str, words: &str| {
        let e = Key::parse(format!("{BEGIN}{body}{END}\n").as_bytes(), "k").unwrap_err();
        assert!(e.kind() == Kind::Config && e.to_string().contains(words), "{body}: wanted '{words}': {e}");
    };
    for options in [ED25519, P256] {
        let pem = String::from_utf8(pair(dir.path(), "key", options).1).unwrap();
        let body = pem.trim_end().strip_prefix(BEGIN).unwrap().strip_suffix(END).unwrap();
        let line = body.replace('\n', "");
        refused(&format!("{body}\n"), "malformed PEM");
        refused(&format!("\n{body}"), "malformed PEM");
        refused(&format!("{}\n{}", &line[..4], &line[4..]), "malformed PEM");
        // All of these are well-formed PEM.
        let der = base64::decode(&line).unwrap();
        for other in [&der[..der.len() - 1], &[der.as_slice(), &[0]].concat(), &der[1..], &[]] {
            refused(&lines(other), "neither");
        }
    }
}

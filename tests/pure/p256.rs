//! ECDSA P-256 in the release binary, whose ring computes it in C (docs/decisions/0007), held to openssl: new keys each time.
//!
//! `KUBESOLO_P256_KEYS` says how many keys; 40 without it.

use crate::support::disk::{Disk, architecture, need_disks};
use crate::support::need;
use crate::support::root::Root;
use crate::support::signing::{KeyPair, base64};
use crate::support::web::{Answer, Web};
use std::fs;
use std::sync::{Arc, Mutex};

/// The two numbers of a signature, as DER has them: big-endian, no needless zeros, one zero before a high bit.
fn numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let r = der[4..4 + usize::from(der[3])].to_vec();
    (r, der[6 + usize::from(der[3])..].to_vec())
}

fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let mut out = vec![0x30, (4 + r.len() + s.len()) as u8, 2, r.len() as u8];
    out.extend_from_slice(r);
    out.extend_from_slice(&[2, s.len() as u8]);
    out.extend_from_slice(s);
    out
}

fn flipped(number: &[u8], at: usize) -> Vec<u8> {
    let mut out = number.to_vec();
    // Not the first byte: the number stays well-formed.
    let length = out.len() - 1;
    out[1 + at % length] ^= 1 << (at % 8);
    out
}

#[apply(long_test)]
fn the_release_binary_agrees_with_openssl() {
    need_disks();
    need("openssl");
    let keys = std::env::var("KUBESOLO_P256_KEYS").map_or(40, |count| count.parse().unwrap());
    let (disk, dir) = (Disk::new(24, 16), tempfile::tempdir().unwrap());
    let root = Root::new(&disk);
    let served = Arc::new(Mutex::new((String::new(), Vec::new())));
    let told = served.clone();
    let web = Web::start(move |path| {
        let (document, signature) = told.lock().unwrap().clone();
        match path {
            "/latest.json" => Answer::ok(document),
            "/latest.json.sig" => Answer::ok(base64(&signature)),
            _ => Answer::status(404),
        }
    });
    root.configure("retries = 0\n");
    let trusted = root.path("etc/kubesolo/update-keys.d");
    fs::create_dir_all(&trusted).unwrap();
    let check = |document: &str, signature: Vec<u8>, code: i32| {
        *served.lock().unwrap() = (document.to_owned(), signature);
        root.agent(&["check", "--server", &web.url("")]).expect(code, &[]);
    };
    let mut short = 0;
    for at in 0..keys {
        let key = KeyPair::p256(dir.path(), "key");
        fs::write(trusted.join("key.pub"), key.pem()).unwrap();
        let file = |name| format!(r#"{{"url":"{name}","sha256":"{}","size":10}}"#, "0".repeat(64));
        let document = |nonce: usize| {
            format!(
                r#"{{"version":"9.{at}.{nonce}","channel":"stable","architecture":"{}","kernel":{},"initramfs":{}}}"#,
                architecture(),
                file("k"),
                file("i")
            )
        };
        let sign = |nonce| (document(nonce), numbers(&key.sign(document(nonce).as_bytes())));
        // One in ten keys: a number with a leading zero byte, of which one signature in 128 has one.
        let tries = if at % 10 == 0 { 2000 } else { 1 };
        let is_short = |(_, (r, s)): &(String, (Vec<u8>, Vec<u8>))| r.len() < 32 || s.len() < 32;
        let found = (0..tries).map(sign).find(is_short);
        short += usize::from(found.is_some());
        let (document, (r, s)) = found.unwrap_or_else(|| sign(0));
        check(&document, der(&r, &s), 0);
        check(&document, der(&flipped(&r, at), &s), 5);
        check(&document, der(&r, &flipped(&s, at)), 5);
        check(&document.replace("stable", "stabl\u{65}d"), der(&r, &s), 5);
        if at % 10 == 0 {
            check(&document, der(&[0], &s), 5);
            check(&document, der(&r, &[0]), 5);
            check(&document, der(&s, &r), 5);
        }
    }
    assert!(keys < 10 || short > 0, "none had a leading zero");
}

//! What the tests of the signing scripts hold signatures, files and refusals to.

use super::registry::oras;
use super::root::jq;
use super::signing::{BUNDLE_TYPE, KeyPair, PAYLOAD_TYPE, pre_authentication, unbase64};
use super::{need_all, run};
use kubesolo_update::parts::trust::bundle::Bundle;
use kubesolo_update::parts::trust::key::Key;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PYTHON: &str = "/usr/bin/python3";
const VERIFY: &str = "
import sys
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
key, message, signature = (open(name, 'rb').read() for name in sys.argv[1:])
key = load_pem_public_key(key)
if isinstance(key, ec.EllipticCurvePublicKey):
    key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
else:
    key.verify(signature, message)
";

pub fn ready(more: &[&str]) {
    need_all(&["openssl", "jq", "flock", "oras"]);
    need_all(more);
}

/// Holds a signature to openssl, to Python and to the agent.
#[track_caller]
pub fn verified(key: &KeyPair, message: &[u8], signature: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let (message_file, signature_file) = (dir.path().join("message"), dir.path().join("signature"));
    fs::write(&message_file, message).unwrap();
    fs::write(&signature_file, signature).unwrap();
    assert!(key.verifies(message, signature), "openssl");
    run(Command::new(PYTHON).args(["-c", VERIFY]).arg(&key.public).arg(message_file).arg(signature_file));
    assert!(Key::parse(&key.pem(), "k").unwrap().verifies(message, signature), "the agent");
}

/// Holds a bundle to everything that reads one.
#[track_caller]
pub fn is_by(key: &KeyPair, digest: &str, bundle: &str) {
    let payload = unbase64(&jq(bundle, ".dsseEnvelope.payload"));
    assert_eq!(
        jq(bundle, "[.mediaType, .dsseEnvelope.payloadType] | join(\" \")"),
        format!("{BUNDLE_TYPE} {PAYLOAD_TYPE}")
    );
    assert_eq!(jq(bundle, ".verificationMaterial.publicKey.hint"), key.hint());
    let signature = unbase64(&jq(bundle, ".dsseEnvelope.signatures | if length == 1 then .[0].sig else error end"));
    verified(key, &pre_authentication(PAYLOAD_TYPE, &payload), &signature);
    let bundle = Bundle::parse(bundle.as_bytes()).unwrap();
    let ours = Key::parse(&key.pem(), "k").unwrap();
    assert!(bundle.signatures.iter().any(|s| ours.verifies(&bundle.signed, s)));
    assert_eq!(bundle.subjects().unwrap().iter().map(|d| format!("sha256:{}", d.hex())).collect::<Vec<_>>(), [digest]);
}

/// Every file below a directory with its bytes, and every directory.
pub fn content(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() && !path.is_symlink() {
                dirs.push(path.clone());
                found.push((path, None));
            } else {
                let bytes = fs::read_link(&path).map(|to| to.into_os_string().into_encoded_bytes());
                let bytes = bytes.or_else(|_| fs::read(&path)).unwrap();
                found.push((path, Some(bytes)));
            }
        }
    }
    found.sort();
    found
}

#[track_caller]
pub fn refused(out: &Output, word: &str) {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(super::script_code(&said)) && said.contains(word), "wanted '{word}': {said}");
    assert!(out.stdout.is_empty(), "it says that something was signed");
}

pub fn stderr(out: &Output) -> String {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stderr).into_owned()
}

pub fn resolve(home: &Path, kind: &str, reference: &str) -> String {
    run(oras(home).args(["resolve", kind, reference])).trim().to_string()
}

/// The same from a shell with another umask.
pub fn under(umask: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(command.get_program());
    shell.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Puts another openssl first in PATH: a shell script that knows the real one as `$openssl`.
pub fn openssl_is(command: &mut Command, dir: &Path, script: &str) {
    let bin = dir.join("faulty");
    fs::create_dir_all(&bin).unwrap();
    let real = super::find("openssl").unwrap();
    fs::write(bin.join("openssl"), format!("#!/bin/sh\nopenssl={}\n{script}\n", real.display())).unwrap();
    fs::set_permissions(bin.join("openssl"), fs::Permissions::from_mode(0o755)).unwrap();
    let path =
        command.get_envs().find_map(|(name, value)| (name == "PATH").then(|| value.unwrap().to_owned())).unwrap();
    let path = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&path))).unwrap();
    command.env("PATH", path);
}

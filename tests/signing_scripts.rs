//! `scripts/keygen.sh` and `scripts/sign.sh`: what they make, as a real cosign, openssl, Python's `cryptography` and the
//! agent read it; what they refuse.

mod support;

use kubesolo_update::trust::bundle::Bundle;
use kubesolo_update::trust::keys::{Algorithm, Key};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::ferro::Ferro;
use support::registry::{Registry, oras};
use support::release::{Release, Target};
use support::root::jq;
use support::signing::{
    BUNDLE_TYPE, Forge, KeyPair, PAYLOAD_TYPE, Signed, attach, attached, cosign_sign, cosign_verify,
    pre_authentication, script, sign, sign_command, unbase64,
};
use support::{need, run};

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

fn ready(more: &[&str]) -> bool {
    ["openssl", "jq", "flock", "oras"].iter().chain(more).all(|program| need(program))
}

/// Python's `cryptography`, without which this test would prove less.
fn need_python() -> bool {
    let found = Command::new(PYTHON).args(["-c", "import cryptography"]).output().is_ok_and(|o| o.status.success());
    assert!(found || std::env::var_os("CI").is_none(), "python3-cryptography is not installed, and CI must not skip");
    if !found {
        eprintln!("SKIP: python3-cryptography is not installed: THIS TEST PROVES NOTHING");
    }
    found
}

/// Holds a signature to openssl, to Python and to the agent.
#[track_caller]
fn verified(key: &KeyPair, message: &[u8], signature: &[u8]) {
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
fn is_by(key: &KeyPair, digest: &str, bundle: &str) {
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
fn content(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
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
fn refused(out: &Output, word: &str) {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(1) && said.contains(word), "wanted '{word}': {said}");
    assert!(out.stdout.is_empty(), "it says that something was signed");
}

fn stderr(out: &Output) -> String {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// A time this many hours from now, as coreutils writes it.
fn in_hours(hours: i32) -> String {
    run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("{hours} hours")])).trim().to_string()
}

fn resolve(home: &Path, kind: &str, reference: &str) -> String {
    run(oras(home).args(["resolve", kind, reference])).trim().to_string()
}

/// The same from a shell with another umask.
fn under(umask: &str, command: &Command) -> Command {
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

#[test]
fn keygen_makes_keys_that_the_agent_takes() {
    if !need("openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("passphrase"), "correct horse\nsecond line\n").unwrap();
    for (name, args, algorithm) in [
        ("plain", &[][..], Algorithm::P256),
        ("p256", &["--type", "p256"], Algorithm::P256),
        ("ed25519", &["--type", "ed25519"], Algorithm::Ed25519),
        ("locked", &["--type", "ed25519", "--passphrase-file", "passphrase"], Algorithm::Ed25519),
    ] {
        // The modes do not depend on what the shell around it allows.
        let said = run(&mut under("000", script(dir.path(), "keygen.sh").args(args).arg(name)));
        let file = |ending: &str| dir.path().join(format!("{name}.{ending}"));
        let mode = |ending: &str| fs::metadata(file(ending)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("key"), mode("pub")), (0o600, 0o644));
        // As openssl and coreutils compute it, as the agent does, and as the script says of an existing one.
        let pipe = "openssl pkey -pubin -in \"$0\" -outform DER | sha256sum | cut -d ' ' -f 1";
        let fingerprint = format!("sha256:{}", run(Command::new("sh").args(["-c", pipe]).arg(file("pub"))));
        let key = Key::parse(&fs::read(file("pub")).unwrap(), name).unwrap();
        assert_eq!((said.as_str(), key.algorithm), (fingerprint.as_str(), algorithm));
        assert_eq!(format!("sha256:{}\n", key.id.hex()), said);
        assert_eq!(run(script(dir.path(), "keygen.sh").arg("--fingerprint").arg(file("pub"))), said);
        let private = fs::read_to_string(file("key")).unwrap();
        let head =
            if name == "locked" { "-----BEGIN ENCRYPTED PRIVATE KEY-----\n" } else { "-----BEGIN PRIVATE KEY-----\n" };
        assert!(private.starts_with(head), "{private}");
        let mut opened = Command::new("openssl");
        opened.args(["pkey", "-pubout", "-passin", "pass:correct horse", "-in"]).arg(file("key"));
        assert_eq!(run(&mut opened).into_bytes(), fs::read(file("pub")).unwrap());
    }
    let mut wrong = Command::new("openssl");
    wrong.args(["pkey", "-noout", "-passin", "pass:battery", "-in"]).arg(dir.path().join("locked.key"));
    assert!(!wrong.output().unwrap().status.success());
    assert_eq!(content(dir.path()).len(), 9, "something is left over: {:?}", content(dir.path()));
}

#[test]
fn keygen_overwrites_nothing_and_refuses_what_machines_refuse() {
    if !need("openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("one.key"), "precious").unwrap();
    fs::write(path("two.pub"), "precious").unwrap();
    symlink(path("nowhere"), path("three.key")).unwrap();
    fs::write(path("empty"), "\nsecond line").unwrap();
    KeyPair::of(dir.path(), "p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let good = KeyPair::p256(dir.path(), "good");
    run(Command::new("openssl")
        .current_dir(dir.path())
        .args(["pkey", "-in", "good.key", "-pubout", "-ec_conv_form"])
        .args(["compressed", "-out", "short.pub"]));
    let before = content(dir.path());
    for (args, words) in [
        (&["one"][..], "one.key is there already"),
        (&["two"], "two.pub is there already"),
        (&["three"], "three.key is there already"),
        (&["--dry-run", "one"], "one.key is there already"),
        (&["new/one"], "not a directory"),
        (&["--type", "rsa", "new"], "ed25519 or p256"),
        (&["--passphrase-file", "empty", "new"], "first line is empty"),
        (&["--passphrase-file", "nowhere", "new"], "is not a file"),
        (&["new", "newer"], "one name only"),
        (&["--frob", "new"], "unknown option"),
        (&[], "no name given"),
        (&["--type"], "needs a value"),
        (&["--fingerprint", "p384.pub"], "neither an Ed25519 nor"),
        (&["--fingerprint", "short.pub"], "neither an Ed25519 nor"),
        (&["--fingerprint", "good.key"], "not a public key"),
        (&["--fingerprint", "nowhere"], "not a file"),
    ] {
        refused(&script(dir.path(), "keygen.sh").args(args).output().unwrap(), words);
    }
    assert!(run(script(dir.path(), "keygen.sh").args(["--dry-run", "new"])).is_empty());
    assert_eq!(run(script(dir.path(), "keygen.sh").arg("--fingerprint").arg(&good.public)).trim(), good.fingerprint());
    assert!(content(dir.path()) == before, "something was written");
}

#[test]
fn a_registry_holds_what_cosign_would_have_put_there() {
    if !(ready(&["docker-registry", "ferro-oci-server", "cosign"]) && need_python()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let (p256, ed25519) = (KeyPair::p256(home, "p256"), KeyPair::ed25519(home, "ed25519"));
    let (stranger, by_cosign) = (KeyPair::p256(home, "stranger"), KeyPair::p256(home, "by-cosign"));
    let release = Release::new("2.0.0");
    let (docker, ferro) = (Registry::start(home, None), Ferro::start(home));
    for host in [docker.host(), ferro.host()] {
        let (repository, name) = (format!("{host}/os"), format!("{host}/os:v1"));
        release.publish(home, Target::Registry, &repository, "v1");
        let digest = resolve(home, "--plain-http", &name);
        let reference = format!("{repository}@{digest}");
        assert_eq!(sign(&[&p256, &ed25519], Signed::Registry(&name)), format!("{digest}\n"));
        let bundles = attached(home, Target::Registry, &reference);
        assert_eq!(bundles.len(), 2, "{bundles:?}");
        for key in [&p256, &ed25519] {
            let hint = key.hint();
            let (_, bundle) = bundles.iter().find(|(_, bundle)| bundle.contains(&hint)).expect("a bundle by this key");
            is_by(key, &digest, bundle);
            // Cosign can read pure Ed25519, although it writes another.
            for name in [&name, &reference] {
                let out = cosign_verify(home, key, name);
                assert!(stderr(&out).contains("signatures were verified"));
                assert!(String::from_utf8_lossy(&out.stdout).contains(&digest));
            }
        }
        assert!(!cosign_verify(home, &stranger, &name).status.success());
        // The manifests of both architectures were not signed.
        assert!(!cosign_verify(home, &p256, &format!("{name}-amd64")).status.success());

        cosign_sign(home, &by_cosign, &reference);
        let all = attached(home, Target::Registry, &reference);
        assert_eq!(all.len(), 3);
        let theirs = all.iter().find(|(_, bundle)| bundle.contains(&by_cosign.hint())).expect("cosign's bundle");
        let ours = bundles.iter().find(|(_, bundle)| bundle.contains(&p256.hint())).unwrap();
        is_by(&by_cosign, &digest, &theirs.1);
        let without = "walk(if type == \"object\" then to_entries | sort_by(.key) | from_entries else . end)";
        let manifest = |text: &str| {
            let times = "del(.annotations[\"org.opencontainers.image.created\"], .layers[0].digest, .layers[0].size)";
            jq(text, &format!("{times} | {without}"))
        };
        assert_eq!(manifest(&ours.0), manifest(&theirs.0));
        let bundle = |text: &str| {
            let keys = "del(.verificationMaterial.publicKey.hint, .dsseEnvelope.signatures[0].sig)";
            jq(text, &format!("{keys} | {without}"))
        };
        assert_eq!(bundle(&ours.1), bundle(&theirs.1), "the statement's very bytes are in it");

        // Nothing is signed twice, whoever signed it first.
        let again = sign_command(&[&p256, &by_cosign, &ed25519], Signed::Registry(&reference)).output().unwrap();
        assert_eq!(stderr(&again).matches("already signed by").count(), 3, "{}", stderr(&again));
        assert_eq!(String::from_utf8_lossy(&again.stdout), format!("{digest}\n"));
        assert_eq!(attached(home, Target::Registry, &reference).len(), 3);
    }
    let tags = |host: String| run(oras(home).args(["repo", "tags", "--plain-http", &format!("{host}/os")]));
    assert!(
        tags(docker.host()).contains("\nsha256-") || tags(docker.host()).starts_with("sha256-"),
        "no referrers tag"
    );
    assert!(!tags(ferro.host()).contains("sha256-"), "a referrers tag in spite of the API");
}

#[test]
fn what_does_not_verify_counts_as_no_signature() {
    if !ready(&["docker-registry", "cosign"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let (key, other) = (KeyPair::ed25519(home, "key"), KeyPair::p256(home, "other"));
    let registry = Registry::start(home, None);
    let repository = format!("{}/os", registry.host());
    Release::new("2.0.0").publish(home, Target::Registry, &repository, "v1");
    let digest = resolve(home, "--plain-http", &format!("{repository}:v1"));
    let reference = format!("{repository}@{digest}");
    // Cosign signs with Ed25519ph (RFC 8032, section 5.1), which neither it nor the agent takes.
    cosign_sign(home, &key, &reference);
    let bundle = Bundle::parse(attached(home, Target::Registry, &reference)[0].1.as_bytes()).unwrap();
    let agents = Key::parse(&key.pem(), "k").unwrap();
    assert!(!bundle.signatures.iter().any(|signature| agents.verifies(&bundle.signed, signature)));
    assert!(!cosign_verify(home, &key, &reference).status.success());
    let elsewhere = format!("sha256:{}", "0".repeat(64));
    let mut signed_by_another = Forge::new(&digest, &[&other]);
    signed_by_another.hint = Some(key.hint());
    let forged = [
        signed_by_another.bundle(),
        Forge::new(&elsewhere, &[&key]).bundle(),
        Forge::new(&digest, &[&key]).edit("cosign/sign/v1", "cosign/other/v1").bundle(),
        Forge::new(&digest, &[&key]).bundle().replace("\"payload\":\"", "\"payload\":\"!"),
        "{".into(),
        format!("{}{}", Forge::new(&digest, &[&key]).bundle(), " ".repeat(70_000)),
    ];
    for bundle in &forged {
        attach(home, Target::Registry, &reference, bundle.as_bytes());
    }
    let said = sign_command(&[&key], Signed::Registry(&reference)).output().unwrap();
    assert!(!stderr(&said).contains("already signed"), "{}", stderr(&said));
    assert_eq!(attached(home, Target::Registry, &reference).len(), forged.len() + 2);
    stderr(&cosign_verify(home, &key, &reference));
    // And a good one that somebody else's tool made counts.
    let good = Forge::new(&digest, &[&other]).bundle();
    is_by(&other, &digest, &good);
    attach(home, Target::Registry, &reference, good.as_bytes());
    let said = sign_command(&[&other], Signed::Registry(&reference)).output().unwrap();
    assert!(stderr(&said).contains(&format!("already signed by {}", other.fingerprint())));
}

#[test]
fn a_layout_carries_signatures_wherever_it_is_copied() {
    if !(ready(&["ferro-oci-server", "cosign"]) && need_python()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let (p256, ed25519) = (KeyPair::p256(home, "p256"), KeyPair::ed25519(home, "ed25519"));
    let layout = home.join("a layout");
    Release::new("2.0.0").publish(home, Target::Layout, layout.to_str().unwrap(), "latest");
    let index = || fs::read_to_string(layout.join("index.json")).unwrap();
    let (before, digest) = (index(), resolve(home, "--oci-layout", &format!("{}:latest", layout.display())));
    // What a killed run leaves.
    fs::write(layout.join("blobs/sha256/.publish.1"), "half").unwrap();
    assert_eq!(sign(&[&p256, &ed25519], Signed::Layout("a layout/")), format!("{digest}\n"));
    // What was there is there, in its order, and what is new has no tag.
    let kept = jq(&before, ".manifests | length");
    assert_eq!(jq(&index(), &format!(".manifests[:{kept}]")), jq(&before, ".manifests"));
    let new = jq(
        &index(),
        &format!(
            ".manifests[{kept}:] | map([.mediaType, .artifactType, .annotations[\"org.opencontainers.image.ref.name\"]])"
        ),
    );
    let entry = format!("[\"application/vnd.oci.image.manifest.v1+json\",\"{BUNDLE_TYPE}\",null]");
    assert_eq!(new, format!("[{entry},{entry}]"));
    let reference = format!("{}@{digest}", layout.display());
    let bundles = attached(home, Target::Layout, &reference);
    assert_eq!(bundles.len(), 2);
    for key in [&p256, &ed25519] {
        is_by(key, &digest, &bundles.iter().find(|(_, bundle)| bundle.contains(&key.hint())).unwrap().1);
    }
    assert!(content(&layout).iter().all(|(path, _)| !path.to_string_lossy().contains(".publish.")));
    let signed = content(&layout);
    let again = sign_command(&[&ed25519, &p256], Signed::Layout("a layout:latest")).output().unwrap();
    assert_eq!(stderr(&again).matches("already signed by").count(), 2);
    assert!(content(&layout) == signed, "it was signed again");

    // To a registry and back, by a real oras.
    let ferro = Ferro::start(home);
    let name = format!("{}/os:latest", ferro.host());
    run(oras(home).args(["cp", "-r", "--from-oci-layout", "--to-plain-http", "a layout:latest", &name]));
    for key in [&p256, &ed25519] {
        stderr(&cosign_verify(home, key, &name));
    }
    run(oras(home).args(["cp", "-r", "--from-plain-http", "--to-oci-layout", &name, "copy:latest"]));
    let again = sign_command(&[&ed25519, &p256], Signed::Layout("copy")).output().unwrap();
    assert_eq!(stderr(&again).matches("already signed by").count(), 2);
    // Signatures of one manifest are none of another, and one that hangs on another is found by nobody.
    let top = run(oras(home).args(["manifest", "fetch", "--oci-layout", "copy:latest"]));
    let amd64 = jq(&top, ".manifests[0].digest");
    let stray = KeyPair::p256(home, "stray");
    attach(home, Target::Layout, &format!("copy@{amd64}"), Forge::new(&digest, &[&stray]).bundle().as_bytes());
    assert!(stderr(&sign_command(&[&stray], Signed::Layout("copy")).output().unwrap()).contains(": signed by"));
    sign(&[&p256], Signed::Layout("copy:latest"));
    let mut each = sign_command(&[&p256], Signed::Layout("copy"));
    let each = each.arg("--recursive").output().unwrap();
    assert_eq!((stderr(&each).matches(": signed by").count(), stderr(&each).matches("already signed").count()), (2, 1));
}

#[test]
fn recursive_signs_every_architecture() {
    if !ready(&["docker-registry", "cosign"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (home, key) = (dir.path(), KeyPair::p256(dir.path(), "key"));
    let registry = Registry::start(home, None);
    let name = format!("{}/os:v1", registry.host());
    Release::new("2.0.0").publish(home, Target::Registry, &format!("{}/os", registry.host()), "v1");
    let said = run(sign_command(&[&key], Signed::Registry(&name)).arg("--recursive"));
    let mut wanted: Vec<_> =
        ["", "-amd64", "-arm64"].map(|end| resolve(home, "--plain-http", &format!("{name}{end}"))).into();
    let mut signed: Vec<_> = said.lines().map(str::to_string).collect();
    assert_eq!(signed[0], wanted[0], "the index comes first");
    wanted.sort();
    signed.sort();
    assert_eq!(signed, wanted);
    for end in ["", "-amd64", "-arm64"] {
        stderr(&cosign_verify(home, &key, &format!("{name}{end}")));
    }
}

#[test]
fn latest_json_is_signed_as_it_is() {
    if !(ready(&[]) && need_python()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (p256, ed25519) = (KeyPair::p256(dir.path(), "p256"), KeyPair::ed25519(dir.path(), "ed25519"));
    let file = dir.path().join("latest.json");
    // Its exact bytes: the spaces at the end too.
    let document = format!("{}\n \n", Release::new("2.0.0").latest_json());
    fs::write(&file, &document).unwrap();
    let lines = || fs::read_to_string(dir.path().join("latest.json.sig")).unwrap();
    let said = run(&mut under("077", &sign_command(&[&p256, &ed25519], Signed::Latest(&file))));
    assert_eq!(said, format!("{}.sig\n", file.display()));
    let first = lines();
    // A web server has to read it.
    let mode = fs::metadata(dir.path().join("latest.json.sig")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o644);
    assert!(first.ends_with('\n') && first.lines().count() == 2, "{first}");
    for (line, key) in first.lines().zip([&p256, &ed25519]) {
        verified(key, document.as_bytes(), &unbase64(line));
    }
    let again = sign_command(&[&p256, &ed25519], Signed::Latest(&file)).output().unwrap();
    assert_eq!(stderr(&again).matches("already signed by").count(), 2);
    assert_eq!(lines(), first);
    // In the order of the keys; a signature that is there is kept.
    sign(&[&ed25519, &p256], Signed::Latest(&file));
    assert_eq!(lines().lines().rev().collect::<Vec<_>>(), first.lines().collect::<Vec<_>>());
    // Another document; what is there is no signature of it.
    let changed = document.replace("2.0.0", "2.0.1");
    fs::write(&file, &changed).unwrap();
    sign(&[&ed25519], Signed::Latest(&file));
    assert_eq!(lines().lines().count(), 1);
    verified(&ed25519, changed.as_bytes(), &unbase64(&lines()));
    fs::write(dir.path().join("latest.json.sig"), "no base64!\n\n").unwrap();
    sign(&[&ed25519], Signed::Latest(&file));
    verified(&ed25519, changed.as_bytes(), &unbase64(&lines()));
    assert_eq!(content(dir.path()).len(), 6, "something is left over");
}

#[test]
fn a_bundle_in_a_file() {
    if !(ready(&[]) && need_python()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (p256, ed25519) = (KeyPair::p256(dir.path(), "p256"), KeyPair::ed25519(dir.path(), "ed25519"));
    let digest = format!("sha256:{}", "5a".repeat(32));
    let run_with = |args: &[&str]| script(dir.path(), "sign.sh").args(args).output().unwrap();
    for key in [&p256, &ed25519] {
        let path = key.private.to_str().unwrap();
        let out = run_with(&["--key", path, "--bundle", "out.json", "--digest", &digest]);
        stderr(&out);
        assert_eq!(out.stdout, b"out.json\n");
        is_by(key, &digest, &fs::read_to_string(dir.path().join("out.json")).unwrap());
    }
    let before = content(dir.path());
    for (args, words) in [
        (&["--key", "p256.key", "--bundle", "new"][..], "needs --digest"),
        (&["--key", "p256.key", "--bundle", "new", "--digest", "sha256:5A"], "needs --digest"),
        (&["--key", "p256.key", "--key", "ed25519.key", "--bundle", "new", "--digest", &digest], "one --key"),
        (&["--key", "p256.key", "--bundle", "new", "--digest", &digest, "--latest", "x"], "one thing to sign"),
        (&["--key", "p256.key", "--latest", "x", "--digest", &digest], "belongs to --bundle"),
    ] {
        refused(&run_with(args), words);
    }
    stderr(&run_with(&["--key", "p256.key", "--dry-run", "--bundle", "new", "--digest", &digest]));
    assert!(content(dir.path()) == before);
}

#[test]
fn keys_that_no_machine_takes_are_refused_by_kind() {
    if !ready(&["cosign"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let curve = |name: &str, curve: &str| {
        KeyPair::of(dir.path(), name, &["-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")])
    };
    curve("p384", "P-384");
    curve("k1", "secp256k1");
    KeyPair::of(dir.path(), "rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    KeyPair::of(dir.path(), "ed448", &["-algorithm", "ed448"]);
    let good = KeyPair::p256(dir.path(), "good");
    fs::write(path("passphrase"), "correct horse\n").unwrap();
    fs::write(path("other"), "battery\n").unwrap();
    fs::write(path("empty"), "\nsecond line").unwrap();
    run(script(dir.path(), "keygen.sh").args(["--passphrase-file", "passphrase", "locked"]));
    run(support::signing::cosign(dir.path()).args([
        "import-key-pair",
        "--yes",
        "--output-key-prefix",
        "cosign",
        "--key",
        "good.key",
    ]));
    fs::write(path("latest.json"), "{\"version\":\"1.0.0\"}").unwrap();
    let signed =
        |args: &[&str]| script(dir.path(), "sign.sh").args(args).args(["--latest", "latest.json"]).output().unwrap();
    let before = content(dir.path());
    for (args, words) in [
        (&["--key", "p384.key"][..], "but ECDSA P-384"),
        (&["--key", "k1.key"], "but ECDSA secp256k1"),
        (&["--key", "rsa.key"], "but RSA"),
        (&["--key", "ed448.key"], "but ED448"),
        (&["--key", "good.key", "--key", "p384.key"], "but ECDSA P-384"),
        (&["--key", "good.key", "--key", "good.key"], "twice"),
        (&["--key", "good.pub"], "not a private key"),
        (&["--key", "nowhere"], "not a file"),
        (&["--key", "cosign.key"], "cosign sign --key"),
        (&["--key", "locked.key"], "is encrypted: give"),
        (&["--key", "locked.key", "--passphrase-file", "other"], "another passphrase"),
        (&["--key", "locked.key", "--passphrase-file", "nowhere"], "is not a file"),
        (&["--key", "locked.key", "--passphrase-file", "/dev/null"], "is not a file"),
        (&["--key", "locked.key", "--passphrase-file", "empty"], "first line is empty"),
        (&[], "--key is missing"),
        (&["--key", "good.key", "--recursive"], "--recursive is for"),
    ] {
        refused(&signed(args), words);
    }
    assert!(content(dir.path()) == before, "something was written");
    // And the ones that machines take.
    run(Command::new("openssl")
        .current_dir(dir.path())
        .args(["pkey", "-in", "good.key", "-ec_conv_form", "compressed", "-out"])
        .arg("short.key"));
    for args in [
        &["--key", "locked.key", "--passphrase-file", "passphrase"][..],
        &["--key", "short.key"],
        &["--key", "good.key"],
    ] {
        stderr(&signed(args));
    }
    // The short form of the same key is the same key.
    assert!(stderr(&signed(&["--key", "short.key"])).contains(&format!("already signed by {}", good.fingerprint())));
    fs::set_permissions(&good.private, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(stderr(&signed(&["--key", "good.key"])).contains("others than its owner may read"));
}

#[test]
fn a_release_of_the_future_or_of_the_past_is_not_signed() {
    if !ready(&[]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (home, key) = (dir.path(), KeyPair::p256(dir.path(), "key"));
    let table: Vec<(&str, String, Option<&str>)> = vec![
        ("release_date", in_hours(-48), None),
        ("release_date", in_hours(23), None),
        ("release_date", in_hours(25), Some("never takes an older release again")),
        ("release_date", "9999-12-31T23:59:59Z".into(), Some("never takes an older release again")),
        ("release_date", in_hours(26).replace('Z', "+04:00"), None),
        ("release_date", in_hours(22).replace('Z', "-04:00"), Some("never takes an older release again")),
        ("release_date", "2026-01-31T12:00:00.25Z".into(), None),
        ("release_date", "2026-01-31T12:00:00".into(), Some("no RFC 3339")),
        ("release_date", "2026-02-30T12:00:00Z".into(), Some("no RFC 3339")),
        ("release_date", "2026-01-31".into(), Some("no RFC 3339")),
        ("release_date", "tomorrow".into(), Some("no RFC 3339")),
        ("release_date", " 2026-01-31T12:00:00Z".into(), Some("no RFC 3339")),
        ("release_date", "2026-01-31T12:00:00Z\\n".into(), Some("no RFC 3339")),
        ("release_date", "".into(), Some("no RFC 3339")),
        ("expires", in_hours(1), None),
        ("expires", "9999-12-31T23:59:59Z".into(), None),
        ("expires", in_hours(-1), Some("is past")),
        ("expires", "never".into(), Some("no RFC 3339")),
    ];
    let layout = home.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    let blob = |text: &str| {
        let hex = support::release::sha256(text.as_bytes());
        fs::write(layout.join("blobs/sha256").join(&hex), text).unwrap();
        format!("\"digest\":\"sha256:{hex}\",\"size\":{}", text.len())
    };
    let latest = home.join("latest.json");
    for (name, value, words) in table {
        let annotated = format!("\"annotations\":{{\"io.kubesolo.os.{name}\":\"{value}\"}}");
        let manifest = format!("{{\"schemaVersion\":2,\"layers\":[],{annotated}}}");
        let index = format!("{{\"schemaVersion\":2,\"manifests\":[{{{}}}]}}", blob(&manifest));
        let own = format!("{{\"schemaVersion\":2,\"manifests\":[],{annotated}}}");
        // A manifest alone, one that an index names, an index itself: each for each reason, but not for each shape.
        let places = if words == Some("no RFC 3339") || words.is_none() { 1 } else { 3 };
        for text in [manifest, index, own].into_iter().take(places) {
            let tag = "\"annotations\":{\"org.opencontainers.image.ref.name\":\"t\"}";
            let text = format!("{{\"schemaVersion\":2,\"manifests\":[{{{},{tag}}}]}}", blob(&text));
            fs::write(layout.join("index.json"), text).unwrap();
            let before = content(&layout);
            let out = sign_command(&[&key], Signed::Layout("layout:t")).output().unwrap();
            match words {
                Some(words) => {
                    refused(&out, words);
                    assert!(content(&layout) == before);
                }
                None => assert!(stderr(&out).contains(": signed by")),
            }
        }
        // At the top, and in one of several.
        let entry = format!("{{\"version\":\"1.0.0\",\"{name}\":\"{value}\"}}");
        let several = format!("{{\"version\":\"1.0.0\",\"artifacts\":[{{}},{entry}]}}");
        for text in [entry, several].into_iter().take(places) {
            fs::write(&latest, text).unwrap();
            let _ = fs::remove_file(home.join("latest.json.sig"));
            let out = sign_command(&[&key], Signed::Latest(&latest)).output().unwrap();
            match words {
                Some(words) => refused(&out, words),
                None => assert!(stderr(&out).contains("signature by")),
            }
            assert_eq!(home.join("latest.json.sig").exists(), words.is_none(), "{name} {value}");
        }
    }
}

#[test]
fn what_is_no_release_is_refused() {
    if !ready(&["ferro-oci-server"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (home, key) = (dir.path(), KeyPair::p256(dir.path(), "key"));
    let (ferro, release) = (Ferro::start(home), Release::new("2.0.0"));
    let repository = format!("{}/os", ferro.host());
    release.publish(home, Target::Registry, &repository, "v1");
    for layout in ["layout", "damaged", "lacking"] {
        release.publish(home, Target::Layout, home.join(layout).to_str().unwrap(), "v1");
    }
    let blob = |layout: &str, tag: &str| {
        let digest = resolve(home, "--oci-layout", &format!("{layout}:{tag}"));
        home.join(layout).join("blobs/sha256").join(&digest[7..])
    };
    let damaged = blob("damaged", "v1");
    fs::write(&damaged, fs::read_to_string(&damaged).unwrap().replace("amd64", "amd65")).unwrap();
    fs::remove_file(blob("lacking", "v1-arm64")).unwrap();
    fs::write(home.join("list.json"), "[]").unwrap();
    let before = content(home);
    for (what, words) in [
        (Signed::Registry("os"), "is not REGISTRY/REPO"),
        (Signed::Registry(&repository), "names neither tag nor digest"),
        (Signed::Registry(&format!("{repository}@sha256:12")), "is not a digest"),
        (Signed::Registry(&format!("{repository}:v2")), "cannot resolve"),
        (Signed::Registry(&format!("{repository}@sha256:{}", "0".repeat(64))), "cannot read"),
        (Signed::Layout("nowhere"), "not an OCI image layout"),
        (Signed::Layout("layout:v2"), "nothing tagged v2"),
        (Signed::Layout("layout"), "several things"),
        (Signed::Layout("layout@sha256:12"), "is not a digest"),
        (Signed::Layout("damaged:v1"), "cannot read"),
        (Signed::Layout("lacking:v1"), "does not have"),
        (Signed::Latest(Path::new("list.json")), "not a latest.json"),
        (Signed::Latest(Path::new("nowhere")), "not a file"),
    ] {
        refused(&sign_command(&[&key], what).output().unwrap(), words);
    }
    let mut held = Command::new("flock");
    let sign_it = sign_command(&[&key], Signed::Layout("layout:v1"));
    held.arg("layout").arg(sign_it.get_program()).args(sign_it.get_args()).current_dir(home);
    refused(&held.output().unwrap(), "another run");
    assert!(content(home) == before, "something was written");
    // A signature is not signed.
    sign(&[&key], Signed::Layout("layout:v1"));
    let index = fs::read_to_string(home.join("layout/index.json")).unwrap();
    let signature = jq(&index, &format!("[.manifests[] | select(.artifactType == \"{BUNDLE_TYPE}\")][0].digest"));
    let reference = format!("layout@{signature}");
    refused(
        &sign_command(&[&key], Signed::Layout(&reference)).output().unwrap(),
        "neither an image manifest nor an index",
    );
}

/// Puts another openssl first in PATH: when it has signed, this shell command follows, with the signature in `$out`.
fn faulty_openssl(sign: &mut Command, dir: &Path, then: &str) {
    let bin = dir.join("faulty");
    fs::create_dir_all(&bin).unwrap();
    let real = support::find("openssl").unwrap();
    let script = format!(
        "#!/bin/sh\n{} \"$@\" || exit\ncase \" $* \" in *' -sign '*) ;; *) exit 0 ;; esac\n\
         while [ \"$1\" != -out ]; do shift; done\nout=$2\n{then}\n",
        real.display()
    );
    fs::write(bin.join("openssl"), script).unwrap();
    fs::set_permissions(bin.join("openssl"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = sign.get_envs().find_map(|(name, value)| (name == "PATH").then(|| value.unwrap().to_owned())).unwrap();
    let path = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&path))).unwrap();
    sign.env("PATH", path);
}

#[test]
fn what_went_wrong_while_it_was_signed_is_not_published() {
    if !ready(&[]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let release = Release::new("2.0.0");
    release.publish(home, Target::Layout, home.join("layout").to_str().unwrap(), "v1");
    let latest = home.join("latest.json");
    fs::write(&latest, release.latest_json()).unwrap();
    let (p256, ed25519) = (KeyPair::p256(home, "p256"), KeyPair::ed25519(home, "ed25519"));
    for key in [&p256, &ed25519] {
        for what in [Signed::Layout("layout:v1"), Signed::Latest(&latest)] {
            let mut sign = sign_command(&[key], what);
            faulty_openssl(&mut sign, home, "printf x >>\"$out\"");
            let before = content(home);
            refused(&sign.output().unwrap(), "does not verify with its public key");
            assert!(content(home) == before, "something was written");
            // Without the fault nothing is wrong.
            faulty_openssl(&mut sign, home, "");
            stderr(&sign.arg("--dry-run").output().unwrap());
        }
    }
    let mut sign = sign_command(&[&p256], Signed::Latest(&latest));
    faulty_openssl(&mut sign, home, "printf ' ' >>latest.json");
    refused(&sign.output().unwrap(), "changed while it was signed");
    assert!(!home.join("latest.json.sig").exists());
}

#[test]
fn a_dry_run_writes_nothing() {
    if !ready(&["docker-registry"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (home, key) = (dir.path(), KeyPair::p256(dir.path(), "key"));
    let registry = Registry::start(home, None);
    let (repository, name) = (format!("{}/os", registry.host()), format!("{}/os:v1", registry.host()));
    let release = Release::new("2.0.0");
    release.publish(home, Target::Registry, &repository, "v1");
    release.publish(home, Target::Layout, home.join("layout").to_str().unwrap(), "v1");
    let latest = home.join("latest.json");
    fs::write(&latest, release.latest_json()).unwrap();
    // All but what the registry logs.
    let state = || {
        let mut state = content(home);
        state.retain(|(path, _)| path.extension().is_none_or(|ending| ending != "log"));
        state
    };
    for what in [Signed::Registry(&name), Signed::Layout("layout:v1"), Signed::Latest(&latest)] {
        let before = state();
        let foretold = sign_command(&[&key], what).arg("--dry-run").output().unwrap();
        assert!(stderr(&foretold).contains("dry run"));
        assert!(state() == before, "something was written");
        assert_eq!(run(&mut sign_command(&[&key], what)).into_bytes(), foretold.stdout);
        assert!(state() != before, "this could not have failed");
    }
}

#[test]
fn no_secret_is_shown_to_other_processes() {
    if !ready(&["strace"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let passphrase = "correct-horse-battery-staple";
    fs::write(dir.path().join("passphrase"), passphrase).unwrap();
    fs::write(dir.path().join("latest.json"), "{\"version\":\"1.0.0\"}").unwrap();
    let key = KeyPair::ed25519(dir.path(), "plain");
    let traced = |name: &str, args: &[&str]| {
        let inner = script(dir.path(), name);
        let trace = dir.path().join("trace");
        let mut strace = Command::new("strace");
        // Whole, with the environment.
        strace.args(["-f", "-v", "-s", "100000", "-e", "trace=execve", "-o"]).arg(&trace).arg(inner.get_program());
        run(strace.args(args).current_dir(dir.path()));
        fs::read_to_string(trace).unwrap()
    };
    let digest = format!("sha256:{}", "5a".repeat(32));
    let locked =
        ["--key", "locked.key", "--key", "plain.key", "--passphrase-file", "passphrase", "--latest", "latest.json"];
    let bundle = ["--key", "plain.key", "--bundle", "out", "--digest", &digest];
    let traces = [
        traced("keygen.sh", &["--type", "ed25519", "--passphrase-file", "passphrase", "locked"]),
        traced("sign.sh", &locked),
        traced("sign.sh", &bundle),
    ];
    let private = fs::read_to_string(&key.private).unwrap();
    let secrets = [passphrase, private.lines().nth(1).unwrap()];
    for trace in traces {
        assert!(trace.contains("openssl"), "{trace}");
        assert!(secrets.iter().all(|secret| !trace.contains(secret)), "{trace}");
    }
}

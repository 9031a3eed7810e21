//! `scripts/keygen.sh` and `scripts/sign.sh`: what they refuse, and what they show to nobody.

use crate::support::ferro::Ferro;
use crate::support::registry::Registry;
use crate::support::release::{Release, Target};
use crate::support::root::jq;
use crate::support::signing::{BUNDLE_TYPE, KeyPair, Signed, cosign, script, sign, sign_command};
use crate::support::signing_checks::{content, openssl_is, ready, refused, resolve, stderr, under};
use crate::support::{self, need, run};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// A time this many hours from now, as coreutils writes it.
fn in_hours(hours: i32) -> String {
    run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("{hours} hours")])).trim().to_string()
}

/// When this openssl has signed, a shell command follows, with the signature in `$out`.
fn faulty_openssl(sign: &mut Command, dir: &Path, then: &str) {
    let script = "\"$openssl\" \"$@\" || exit\ncase \" $* \" in *' -sign '*) ;; *) exit 0 ;; esac\n\
                  while [ \"$1\" != -out ]; do shift; done\nout=$2\n";
    openssl_is(sign, dir, &format!("{script}{then}"));
}

#[apply(test)]
fn keygen_overwrites_nothing_and_refuses_what_machines_refuse() {
    need("openssl");
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

#[apply(test)]
fn keys_that_no_machine_takes_are_refused_by_kind() {
    ready(&["cosign"]);
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
    run(cosign(dir.path()).args(["import-key-pair", "--yes", "--output-key-prefix", "cosign", "--key", "good.key"]));
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

#[apply(test)]
fn a_release_of_the_future_or_of_the_past_is_not_signed() {
    ready(&[]);
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
    // The way on, once such a date is out there; and what is worth a warning.
    fs::write(&latest, format!("{{\"version\":\"1.0.0\",\"release_date\":\"{}\"}}", in_hours(25))).unwrap();
    refused(&sign_command(&[&key], Signed::Latest(&latest)).output().unwrap(), "never takes an older release again");
    let out = sign_command(&[&key], Signed::Latest(&latest)).arg("--future-date").output().unwrap();
    assert!(out.status.success() && stderr(&out).contains("has no expires"), "{}", stderr(&out));
    fs::write(&latest, format!("{{\"version\":\"1.0.0\",\"expires\":\"{}\"}}", in_hours(1))).unwrap();
    let out = sign_command(&[&key], Signed::Latest(&latest)).output().unwrap();
    assert!(out.status.success() && stderr(&out).contains("has no release_date"), "{}", stderr(&out));
}

#[apply(test)]
fn what_is_no_release_is_refused() {
    ready(&["ferro-oci-server"]);
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
        (Signed::Registry(&format!("{repository}@sha256:{}", "0".repeat(64))), "does not have sha256:0000"),
        (Signed::Layout("nowhere"), "not an OCI image layout"),
        (Signed::Layout("layout:v2"), "nothing tagged v2"),
        (Signed::Layout("layout"), "several things"),
        (Signed::Layout("layout@sha256:12"), "is not a digest"),
        (Signed::Layout("damaged:v1"), "in the place of sha256:"),
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

#[apply(test)]
fn a_key_is_nobody_elses_from_its_first_byte_on_and_takes_no_name_away() {
    need("openssl");
    let dir = tempfile::tempdir().unwrap();
    let mut keygen = script(dir.path(), "keygen.sh");
    openssl_is(keygen.arg("key"), dir.path(), "umask >>umasks\nexec \"$openssl\" \"$@\"");
    run(&mut under("000", &keygen));
    let umasks = fs::read_to_string(dir.path().join("umasks")).unwrap();
    // Somebody makes a file of that name in the meantime.
    let mut keygen = script(dir.path(), "keygen.sh");
    let theirs = dir.path().join("raced.key");
    openssl_is(keygen.arg("raced"), dir.path(), "echo precious >raced.key\nexec \"$openssl\" \"$@\"");
    refused(&keygen.output().unwrap(), "cannot write raced.key");
    assert_eq!(fs::read_to_string(theirs).unwrap(), "precious\n");
    assert!(!dir.path().join("raced.pub").exists());
    assert!(umasks.lines().count() >= 2 && umasks.lines().all(|umask| umask == "0077"), "{umasks}");
}

#[apply(test)]
fn what_went_wrong_while_it_was_signed_is_not_published() {
    ready(&[]);
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

#[apply(test)]
fn a_dry_run_writes_nothing() {
    ready(&["docker-registry"]);
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

#[apply(test)]
fn no_secret_is_shown_to_other_processes() {
    ready(&["strace"]);
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

/// What is most often wrong with a registry on the desk has its option named.
#[apply(test)]
fn a_registry_without_tls_is_said_to_be_one() {
    ready(&["docker-registry"]);
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::p256(dir.path(), "release");
    let registry = Registry::start(dir.path(), None);
    let name = format!("{}/os", registry.host());
    Release::new("1.0.0").publish(dir.path(), Target::Registry, &name, "v1");
    let digest = resolve(dir.path(), "--plain-http", &format!("{name}:v1"));
    for reference in [format!("{name}:v1"), format!("{name}@{digest}")] {
        let mut sign = script(dir.path(), "sign.sh");
        sign.args(["--key", key.private.to_str().unwrap()]).arg(&reference);
        refused(&sign.output().unwrap(), "(a registry without TLS? --plain-http)");
        assert!(sign.arg("--plain-http").output().unwrap().status.success());
    }
}

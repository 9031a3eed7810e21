//! `scripts/keygen.sh` and `scripts/sign.sh`: what they make, as a real cosign, openssl, Python's `cryptography` and the
//! agent read it.

use crate::support::ferro::Ferro;
use crate::support::registry::{Registry, oras};
use crate::support::release::{Release, Target};
use crate::support::root::jq;
use crate::support::signing::{
    BUNDLE_TYPE, Forge, KeyPair, Signed, attach, attached, base64, cosign_sign, cosign_verify, script, sign,
    sign_command, unbase64,
};
use crate::support::signing_checks::{content, is_by, ready, refused, resolve, stderr, under, verified};
use crate::support::{need, need_python, run};
use kubesolo_update::parts::trust::bundle::Bundle;
use kubesolo_update::parts::trust::key::{Algorithm, Key};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[apply(test)]
fn keygen_makes_keys_that_the_agent_takes() {
    need("openssl");
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

#[apply(test)]
fn a_registry_holds_what_cosign_would_have_put_there() {
    ready(&["docker-registry", "ferro-oci-server", "cosign"]);
    need_python("cryptography");
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

#[apply(test)]
fn what_does_not_verify_counts_as_no_signature() {
    ready(&["docker-registry", "cosign"]);
    need_python("cryptography");
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
    // `openssl dgst` would not read the last byte of this one.
    let third = KeyPair::p256(home, "third");
    let signature = ".dsseEnvelope.signatures[0].sig";
    let whole = || Forge::new(&digest, &[&third]).bundle();
    let full = |bundle: &String| unbase64(&jq(bundle, signature)).len() == 72;
    let longest = std::iter::repeat_with(whole).take(500).find(full).expect("one in four has the full length");
    let sig = jq(&longest, signature);
    let longer = longest.replace(&sig, &base64(&[&unbase64(&sig)[..], b"x"].concat()));
    attach(home, Target::Registry, &reference, longer.as_bytes());
    let said = sign_command(&[&third], Signed::Registry(&reference)).arg("--dry-run").output().unwrap();
    assert!(!stderr(&said).contains("already signed"), "{}", stderr(&said));
    // And a good one that somebody else's tool made counts.
    let good = Forge::new(&digest, &[&third]).bundle();
    is_by(&third, &digest, &good);
    attach(home, Target::Registry, &reference, good.as_bytes());
    let said = sign_command(&[&third], Signed::Registry(&reference)).output().unwrap();
    assert!(stderr(&said).contains(&format!("already signed by {}", third.fingerprint())));
}

#[apply(test)]
fn a_layout_carries_signatures_wherever_it_is_copied() {
    ready(&["ferro-oci-server", "cosign"]);
    need_python("cryptography");
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
    // Copied with the tags that signatures have in registries: there is one release in it, as machines see it.
    run(oras(home).args(["cp", "-r", "--from-plain-http", "--to-oci-layout", &name, "tagged:2.0.0"]));
    let (signature, _) = &attached(home, Target::Layout, &format!("tagged@{digest}"))[0];
    let signature = crate::support::signed::digest(signature.as_bytes());
    let own = format!("signature-{}-{}", &digest[7..23], &signature[7..23]);
    run(oras(home).args(["tag", "--oci-layout", &format!("tagged@{signature}"), &own]));
    let again = sign_command(&[&ed25519, &p256], Signed::Layout("tagged")).output().unwrap();
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

#[apply(test)]
fn recursive_signs_every_architecture() {
    ready(&["docker-registry", "cosign"]);
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

#[apply(test)]
fn latest_json_is_signed_as_it_is() {
    ready(&[]);
    need_python("cryptography");
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
    // Another document: its signature comes first, and the one of the document before stays.
    let changed = document.replace("2.0.0", "2.0.1");
    fs::write(&file, &changed).unwrap();
    sign(&[&ed25519], Signed::Latest(&file));
    assert_eq!(lines().lines().count(), 3);
    verified(&ed25519, changed.as_bytes(), &unbase64(lines().lines().next().unwrap()));
    assert!(first.lines().all(|line| lines().contains(line)));
    // Another signer, elsewhere: both count.
    sign(&[&p256], Signed::Latest(&file));
    let both = lines();
    verified(&p256, changed.as_bytes(), &unbase64(both.lines().next().unwrap()));
    verified(&ed25519, changed.as_bytes(), &unbase64(both.lines().nth(1).unwrap()));
    for n in 0..9 {
        fs::write(&file, document.replace("2.0.0", &format!("3.0.{n}"))).unwrap();
        sign(&[&ed25519], Signed::Latest(&file));
    }
    assert_eq!(lines().lines().count(), 8);
    fs::write(&file, &changed).unwrap();
    fs::write(dir.path().join("latest.json.sig"), "no base64!\n\n").unwrap();
    sign(&[&ed25519], Signed::Latest(&file));
    assert_eq!(lines().lines().count(), 1);
    verified(&ed25519, changed.as_bytes(), &unbase64(&lines()));
    assert_eq!(content(dir.path()).len(), 6, "something is left over");
}

#[apply(test)]
fn a_bundle_in_a_file() {
    ready(&[]);
    need_python("cryptography");
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

//! An ordinary cleaning of a registry, and copies that are not whole: what the scripts publish survives it, what did not is
//! named for what it is, and can be signed again.

use crate::support::disk::{architecture, need_disks, other_architecture};
use crate::support::ferro::Ferro;
use crate::support::publish::{Desk, stderr};
use crate::support::registry::{Registry, oras};
use crate::support::release::Release;
use crate::support::root::jq;
use crate::support::signed::{MANIFEST_TYPE, blob_path, descriptor, digest, list};
use crate::support::signing::{KeyPair, Signed, cosign_sign, cosign_verify, sign, sign_command};
use crate::support::{need_all, run};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn need_tools() {
    need_disks();
    need_all(&["docker-registry", "ferro-oci-server", "oras", "cosign", "jq", "openssl", "tar"]);
}

/// A desk with release 1.2.0, and an empty registry.
fn ready() -> (Desk, Release, Registry) {
    need_tools();
    let desk = Desk::new();
    let release = desk.prepare("1.2.0");
    let registry = Registry::start(desk.dir.path(), None);
    (desk, release, registry)
}

const BOTH: [&str; 2] = ["amd64", "arm64"];

/// Publishes 1.2.0 as `scripts/push-oci-artifact.sh` does. Returns: the index's digest.
fn push(desk: &Desk, host: &str, keys: &[&KeyPair]) -> String {
    let repository = format!("{host}/os");
    let mut options = vec!["--repository", &repository, "--plain-http", "--tag", "stable"];
    for key in keys {
        options.extend(["--key", key.private.to_str().unwrap()]);
    }
    run(&mut desk.script("push-oci-artifact.sh", "1.2.0", &BOTH, &options)).trim().to_owned()
}

/// `check` of the release by its tag, with the signature demanded.
#[track_caller]
fn check(desk: &Desk, host: &str, code: i32, words: &[&str]) -> String {
    let machine = desk.machine(&format!("registry = {host}/os:stable\nretries = 0\n"));
    let run = machine.root.agent(&["check", "--json"]).expect(code, words);
    format!("{}{}", run.stdout, run.stderr)
}

fn tags(desk: &Desk, host: &str) -> Vec<String> {
    let tags = desk.oras(&["repo", "tags", "--plain-http", &format!("{host}/os")]);
    tags.lines().map(str::to_owned).collect()
}

fn own_tags(desk: &Desk, host: &str) -> usize {
    tags(desk, host).iter().filter(|tag| tag.starts_with("signature-")).count()
}

#[apply(test)]
fn what_the_scripts_publish_survives_it() {
    need_tools();
    let desk = Desk::new();
    let release = desk.prepare("1.2.0");
    let second = KeyPair::ed25519(desk.dir.path(), "second");
    let mut registry = Registry::start(desk.dir.path(), None);
    let first = push(&desk, &registry.host(), &[&desk.key, &second]);
    for _ in 0..2 {
        // Index and both manifests, by two keys each.
        assert_eq!(own_tags(&desk, &registry.host()), 6);
        registry = registry.clean(desk.dir.path());
        check(&desk, &registry.host(), 0, &[&desk.key.fingerprint()]);
        let reference = format!("{}/os@{first}", registry.host());
        assert!(cosign_verify(desk.dir.path(), &desk.key, &reference).status.success());
        // The same again goes on to work, and is nothing new.
        assert_eq!(push(&desk, &registry.host(), &[&desk.key, &second]), first);
        let again = sign_command(&[&desk.key, &second], Signed::Registry(&reference)).output().unwrap();
        assert_eq!(stderr(&again).matches("already signed").count(), 2, "{}", stderr(&again));
    }
    let machine = desk.machine(&format!("registry = {}/os:stable\n", registry.host()));
    machine.apply(&[]).expect(0, &["1.2.0 is staged"]);
    crate::support::publish::assert_taken(&machine, &release);
    // No tool takes these tags for what it looks for: a release is still verified, listed and copied with its signatures.
    let found = desk.oras(&["discover", "--plain-http", "--format", "json", &format!("{}/os:stable", registry.host())]);
    assert_eq!(jq(&found, ".referrers | length"), "2");
    let kept =
        desk.oras(&["repo", "tags", "--plain-http", "--exclude-digest-tags", &format!("{}/os", registry.host())]);
    assert_eq!(kept.lines().filter(|tag| !tag.starts_with("signature-")).count(), 4, "{kept}");
}

#[apply(test)]
fn a_dead_signature_is_named_and_a_new_one_can_be_made() {
    let (desk, _, registry) = ready();
    let first = push(&desk, &registry.host(), &[]);
    let at = |registry: &Registry| format!("{}/os@{first}", registry.host());
    check(&desk, &registry.host(), 5, &["it is not signed"]);
    cosign_sign(desk.dir.path(), &desk.key, &at(&registry));
    check(&desk, &registry.host(), 0, &[]);
    let registry = registry.clean(desk.dir.path());
    let said = check(&desk, &registry.host(), 5, &["a signature or an attestation is listed", "is gone"]);
    assert!(said.contains("sign again") && !said.contains("it is not signed"), "{said}");
    // A dry run says what would be, and writes nothing.
    let before = tags(&desk, &registry.host());
    let dry = sign_command(&[&desk.key], Signed::Registry(&at(&registry))).arg("--dry-run").output().unwrap();
    assert!(dry.status.success() && stderr(&dry).contains("dry run: not signed"), "{}", stderr(&dry));
    assert_eq!(tags(&desk, &registry.host()), before);
    let again = sign_command(&[&desk.key], Signed::Registry(&at(&registry))).output().unwrap();
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(stderr(&again).contains("named 1 that the registry no longer has"), "{}", stderr(&again));
    check(&desk, &registry.host(), 0, &[]);
    let registry = registry.clean(desk.dir.path());
    check(&desk, &registry.host(), 0, &[]);
    // What lives in the list stays in it, whoever made it.
    let second = KeyPair::p256(desk.dir.path(), "second");
    cosign_sign(desk.dir.path(), &second, &at(&registry));
    let third = KeyPair::p256(desk.dir.path(), "third");
    sign(&[&third], Signed::Registry(&at(&registry)));
    for key in [&desk.key, &second, &third] {
        assert!(cosign_verify(desk.dir.path(), key, &at(&registry)).status.success());
    }
    let registry = registry.clean(desk.dir.path());
    let fourth = KeyPair::ed25519(desk.dir.path(), "fourth");
    sign(&[&fourth], Signed::Registry(&at(&registry)));
    let alive =
        [&desk.key, &second, &third].map(|key| cosign_verify(desk.dir.path(), key, &at(&registry)).status.success());
    assert_eq!(alive, [true, false, true]);
}

#[apply(test)]
fn what_cosign_signed_gets_its_tag_from_sign_sh() {
    let (desk, _, registry) = ready();
    let first = push(&desk, &registry.host(), &[]);
    let reference = format!("{}/os@{first}", registry.host());
    cosign_sign(desk.dir.path(), &desk.key, &reference);
    assert_eq!(own_tags(&desk, &registry.host()), 0);
    let dry = sign_command(&[&desk.key], Signed::Registry(&reference)).arg("--dry-run").output().unwrap();
    assert!(stderr(&dry).contains("would get the tag signature-"), "{}", stderr(&dry));
    assert_eq!(own_tags(&desk, &registry.host()), 0);
    let said = sign_command(&[&desk.key], Signed::Registry(&reference)).output().unwrap();
    assert!(stderr(&said).contains("already signed by") && stderr(&said).contains("has the tag"), "{}", stderr(&said));
    assert_eq!(own_tags(&desk, &registry.host()), 1);
    let registry = registry.clean(desk.dir.path());
    check(&desk, &registry.host(), 0, &[]);
    // In a registry that lists referrers itself, the same tags are no hindrance.
    let ferro = Ferro::start(desk.dir.path());
    let first = push(&desk, &ferro.host(), &[&desk.key]);
    assert_eq!(own_tags(&desk, &ferro.host()), 3);
    check(&desk, &ferro.host(), 0, &[]);
    assert!(cosign_verify(desk.dir.path(), &desk.key, &format!("{}/os@{first}", ferro.host())).status.success());
    assert!(!tags(&desk, &ferro.host()).iter().any(|tag| tag.starts_with("sha256-")));
}

/// Where docker-registry keeps a blob.
fn stored(desk: &Desk, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    desk.path("storage/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

#[apply(test)]
fn each_part_that_is_gone_is_named() {
    let (desk, release, registry) = ready();
    let first = push(&desk, &registry.host(), &[]);
    sign(&[&desk.key], Signed::Registry(&format!("{}/os@{first}", registry.host())));
    let fetch =
        |name: &str| desk.oras(&["manifest", "fetch", "--plain-http", &format!("{}/os{name}", registry.host())]);
    let found = desk.oras(&["discover", "--plain-http", "--format", "json", &format!("{}/os:stable", registry.host())]);
    let around = jq(&found, ".referrers[0].digest");
    let bundle = jq(&fetch(&format!("@{around}")), ".layers[0].digest");
    let ours = jq(
        &fetch(":stable"),
        &format!(".manifests[] | select(.platform.architecture == \"{}\") | .digest", architecture()),
    );
    let kernel = digest(&release.ours().kernel);
    // Each alone; what a running registry remembers of a blob goes with its process.
    for (what, gone, code, words) in [
        ("manifest of the signature", &around, 5, &["its manifest sha256:", "is gone", "sign again"][..]),
        ("manifest", &ours, 6, &["answered 404", "a cleaning of the registry may have removed it"]),
        ("kernel", &kernel, 6, &["answered 404", "a cleaning of the registry may have removed it"]),
        ("bundle", &bundle, 5, &["its bundle sha256:", "is gone"]),
    ] {
        eprintln!("{what}");
        let aside = desk.path("aside");
        fs::rename(stored(&desk, gone), &aside).unwrap();
        let fresh = Registry::start(desk.dir.path(), None);
        let machine = desk.machine(&format!("registry = {}/os:stable\nretries = 0\n", fresh.host()));
        machine.apply(&[]).expect(code, words);
        if what == "bundle" {
            let again = sign_command(&[&desk.key], Signed::Registry(&format!("{}/os:stable", fresh.host()))).output();
            assert!(again.unwrap().status.success());
            check(&desk, &fresh.host(), 0, &[]);
        }
        fs::rename(&aside, stored(&desk, gone)).unwrap();
    }
}

#[apply(test)]
fn an_index_whose_manifests_are_gone_is_no_index_without_them() {
    let (desk, _, registry) = ready();
    let first = push(&desk, &registry.host(), &[&desk.key]);
    // As `oras cp` leaves them: no tags but the index's.
    let mut copy = oras(desk.dir.path());
    copy.args(["cp", "-r", "--from-plain-http", "--to-plain-http", &format!("{}/os:stable", registry.host())]);
    run(copy.arg(format!("{}/copy:stable", registry.host())));
    let registry = registry.clean(desk.dir.path());
    let machine = desk.machine(&format!("registry = {}/copy:stable\nretries = 0\n", registry.host()));
    machine.root.agent(&["check"]).expect(6, &["answered 404", "a cleaning of the registry may have removed it"]);
    let said =
        sign_command(&[&desk.key], Signed::Registry(&format!("{}/copy:stable", registry.host()))).output().unwrap();
    let words = stderr(&said);
    assert!(!said.status.success() && words.contains("a cleaning may have removed it"), "{words}");
    check(&desk, &registry.host(), 0, &[]);
    assert_eq!(push(&desk, &registry.host(), &[&desk.key]), first);
}

/// A run for each architecture, as two machines that build have them: the first says what is missing, the second ends it.
#[apply(test)]
fn architectures_that_are_gone_are_published_again_one_by_one() {
    let (desk, _, registry) = ready();
    let first = push(&desk, &registry.host(), &[&desk.key]);
    let mut copy = oras(desk.dir.path());
    copy.args(["cp", "-r", "--from-plain-http", "--to-plain-http", &format!("{}/os:1.2.0", registry.host())]);
    run(copy.arg(format!("{}/copy:1.2.0", registry.host())));
    let registry = registry.clean(desk.dir.path());
    let repository = format!("{}/copy", registry.host());
    let again = |arch: &str, more: &[&str]| {
        let key = desk.key.private.to_str().unwrap();
        let options = ["--repository", &repository, "--plain-http", "--tag", "stable", "--key", key];
        desk.script("push-oci-artifact.sh", "1.2.0", &[arch], &[&options, more].concat()).output().unwrap()
    };
    let refused = |out: &std::process::Output, words: &[&str]| {
        assert!(!out.status.success() && out.stdout.is_empty(), "{}", stderr(out));
        for words in words {
            assert!(stderr(out).contains(words), "no '{words}': {}", stderr(out));
        }
    };
    let gone = |arch: &str| format!("for {arch}, and does not have it: a cleaning removed it");
    let tags = || desk.oras(&["repo", "tags", "--plain-http", "--exclude-digest-tags", &repository]);
    let before = tags();
    // Another date makes another manifest, and what is gone cannot be asked.
    let other = again("amd64", &["--release-date", "2026-02-01T00:00:00Z"]);
    refused(&other, &[&gone("amd64"), "the same takes the same files, --release-date, --expires,"]);
    refused(&again("amd64", &["--dry-run"]), &[&gone("arm64"), "Publish that again as well"]);
    assert_eq!(tags(), before);
    refused(
        &again("amd64", &[]),
        &[&gone("arm64"), ". amd64 is there again", "publish the other architecture again as well"],
    );
    assert!(tags().lines().any(|tag| tag == "1.2.0-amd64") && !tags().lines().any(|tag| tag == "stable"), "{}", tags());
    let second = again("arm64", &[]);
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(String::from_utf8_lossy(&second.stdout).trim(), first);
    let machine = desk.machine(&format!("registry = {repository}:stable\nretries = 0\n"));
    machine.apply(&[]).expect(0, &["1.2.0 is staged"]);
    let registry = registry.clean(desk.dir.path());
    check(&desk, &registry.host(), 0, &[]);
    let machine = desk.machine(&format!("registry = {}/copy:stable\nretries = 0\n", registry.host()));
    machine.apply(&[]).expect(0, &["1.2.0 is staged"]);
}

#[apply(test)]
fn a_copy_of_a_layout_that_is_not_whole_is_named() {
    need_tools();
    let desk = Desk::new();
    let release = desk.prepare("1.2.0");
    let layout = ["--layout", "layout", "--tag", "stable"];
    let first = run(&mut desk.script("publish-layout.sh", "1.2.0", &BOTH, &layout)).trim().to_owned();
    sign(&[&desk.key], Signed::Layout(desk.path("layout").to_str().unwrap()));
    let layout = desk.path("layout");
    let text = |digest: &str| fs::read_to_string(blob_path(&layout, digest)).unwrap();
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    let around = jq(&index, ".manifests[1].digest");
    let bundle = jq(&text(&around), ".layers[0].digest");
    let of = |arch: &str| {
        jq(&text(&first), &format!(".manifests[] | select(.platform.architecture == \"{arch}\") | .digest"))
    };
    let (ours, theirs) = (of(architecture()), of(other_architecture()));
    let kernel = digest(&release.ours().kernel);
    let incomplete = &["the copy of the layout is not complete"][..];
    for (what, gone, code, words) in [
        ("bundle", &bundle, 5, &["its bundle sha256:", "is gone"][..]),
        ("manifest of the signature", &around, 5, &["its manifest sha256:", "is gone"]),
        ("index", &first, 6, incomplete),
        ("manifest", &ours, 6, incomplete),
        ("kernel", &kernel, 6, incomplete),
        ("the other's manifest", &theirs, 0, &[]),
    ] {
        let aside = desk.path("aside");
        fs::rename(blob_path(&layout, gone), &aside).unwrap();
        let tar = desk.path("layout.tar");
        run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&layout).arg("."));
        for source in [&layout, &tar] {
            eprintln!("{what}: {}", source.display());
            let machine = desk.machine("");
            machine.apply(&["--layout", source.to_str().unwrap()]).expect(code, words);
        }
        fs::rename(&aside, blob_path(&layout, gone)).unwrap();
    }
}

#[apply(test)]
fn what_a_registry_says_badly_is_not_taken_for_dead() {
    let (desk, _, registry) = ready();
    let first = push(&desk, &registry.host(), &[]);
    let reference = format!("{}/os@{first}", registry.host());
    cosign_sign(desk.dir.path(), &KeyPair::p256(desk.dir.path(), "other"), &reference);
    let tag = format!("{}/os:{}", registry.host(), first.replace(':', "-"));
    let before = desk.oras(&["manifest", "fetch", "--plain-http", &tag]);
    // An oras that cannot tell: any other answer than 404.
    let broken = "case \"$*\" in *--descriptor*@*) echo 'Error response from registry: 503 Service Unavailable' >&2; exit 1 ;; esac";
    let mut signing = sign_command(&[&desk.key], Signed::Registry(&reference));
    crate::support::publish::before_path(&mut signing, &desk.wrap("oras", broken));
    let said = signing.output().unwrap();
    assert!(!said.status.success() && stderr(&said).contains("cannot tell whether"), "{}", stderr(&said));
    assert_eq!(desk.oras(&["manifest", "fetch", "--plain-http", &tag]), before);
    // A list that somebody emptied, and one of things that are all dead.
    let dead = descriptor(MANIFEST_TYPE, "never pushed", "");
    for list in [list(&[]), list(&[dead])] {
        let hex = digest(&list);
        let hex = hex.strip_prefix("sha256:").unwrap();
        fs::create_dir_all(stored(&desk, &digest(&list)).parent().unwrap()).unwrap();
        fs::write(stored(&desk, &digest(&list)), &list).unwrap();
        let repository = desk.path("storage/docker/registry/v2/repositories/os/_manifests");
        let link = |path: PathBuf| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("sha256:{hex}")).unwrap();
        };
        link(repository.join("revisions/sha256").join(hex).join("link"));
        link(repository.join("tags").join(first.replace(':', "-")).join("current/link"));
        let fresh = Registry::start(desk.dir.path(), None);
        let key = KeyPair::p256(desk.dir.path(), &hex[..8]);
        let reference = format!("{}/os@{first}", fresh.host());
        sign(&[&key], Signed::Registry(&reference));
        assert!(cosign_verify(desk.dir.path(), &key, &reference).status.success());
    }
}

/// A question that gets no answer is no "no": nothing is signed twice, nor called unsigned, for a bad line.
#[apply(test)]
fn a_signature_that_cannot_be_asked_for_is_not_made_anew() {
    let (desk, _, registry) = ready();
    let first = push(&desk, &registry.host(), &[&desk.key]);
    let reference = format!("{}/os@{first}", registry.host());
    let attached = || desk.oras(&["discover", "--plain-http", "--format", "json", "--depth", "1", &reference]);
    let before = attached();
    let around = jq(&before, ".referrers[0].digest");
    let manifest = desk.oras(&["manifest", "fetch", "--plain-http", &format!("{}/os@{around}", registry.host())]);
    let bundle = jq(&manifest, ".layers[0].digest");
    for (what, asked) in [("manifest", around.as_str()), ("bundle", &bundle), ("tag", ":signature-")] {
        let broken = format!(
            "case \"$*\" in *\" fetch \"*{asked}*) echo 'Error response from registry: 503 Service Unavailable' >&2; exit 1 ;; esac"
        );
        let mut signing = sign_command(&[&desk.key], Signed::Registry(&reference));
        crate::support::publish::before_path(&mut signing, &desk.wrap("oras", &broken));
        let said = signing.output().unwrap();
        assert!(!said.status.success() && stderr(&said).contains("cannot tell whether"), "{what}: {}", stderr(&said));
        assert!(stderr(&said).contains("503"), "{what}: {}", stderr(&said));
        assert_eq!(attached(), before, "{what}");
    }
    let said = sign_command(&[&desk.key], Signed::Registry(&reference)).output().unwrap();
    assert!(said.status.success() && stderr(&said).contains("already signed by"), "{}", stderr(&said));
    assert_eq!(attached(), before);
}

/// docs/registries.md, "Cleaning a registry", line by line: what was copied has no tags but the index's.
#[apply(test)]
fn a_copy_gets_its_tags_as_the_document_says() {
    let (desk, _, registry) = ready();
    push(&desk, &registry.host(), &[&desk.key]);
    let mut copy = oras(desk.dir.path());
    copy.args(["cp", "-r", "--from-plain-http", "--to-plain-http", &format!("{}/os:stable", registry.host())]);
    run(copy.arg(format!("{}/copy:1.2.0,stable", registry.host())));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/registries.md")).unwrap();
    let (_, lines) = document.split_once("```sh\nVERSION=1.3.0 ").expect("the document has the lines");
    let lines = format!("VERSION=1.3.0 {}", lines.split_once("```").unwrap().0);
    let mut here = lines.replace("1.3.0", "1.2.0");
    here = here.replace("registry.example.com/os/kubesolo", &format!("{}/copy", registry.host()));
    for command in ["resolve", "manifest fetch", "discover", "tag"] {
        assert!(here.contains(&format!("oras {command} ")), "{command}: {lines}");
        here = here.replace(&format!("oras {command} "), &format!("oras {command} --plain-http "));
    }
    let mut shell = Command::new("sh");
    let path = std::env::var("PATH").unwrap();
    shell.env("PATH", format!("{}:{path}", root.join(".tools/bin").display())).env("HOME", desk.dir.path());
    run(shell.args(["-euc", &here]));
    let tags = desk.oras(&["repo", "tags", "--plain-http", &format!("{}/copy", registry.host())]);
    assert_eq!(tags.lines().filter(|tag| tag.starts_with("signature-")).count(), 1, "{tags}");
    let registry = registry.clean(desk.dir.path());
    let machine = desk.machine(&format!("registry = {}/copy:stable\nretries = 0\n", registry.host()));
    machine.apply(&[]).expect(0, &["1.2.0 is staged"]);
    for name in BOTH {
        desk.oras(&["manifest", "fetch", "--plain-http", &format!("{}/copy:1.2.0-{name}", registry.host())]);
    }
}

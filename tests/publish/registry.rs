//! `scripts/push-oci-artifact.sh`: what real registries hold afterwards, as real tools and the agent read it; what it refuses; what is
//! seen while it works, when it is killed, and when two of it run.

use crate::support::disk::{B, architecture, need_disks, other_architecture};
use crate::support::ferro::Ferro;
use crate::support::publish::{Desk, EXPIRES, assert_taken, before_path, killing, refused, stderr};
use crate::support::registry::{Registry, oras};
use crate::support::root::jq;
use crate::support::signing::{KeyPair, Signed, cosign_verify, script, sign};
use crate::support::web::{Answer, Web};
use crate::support::{command, need_all, run};
use std::fs;
use std::process::{Command, Output};

pub const SCRIPT: &str = "push-oci-artifact.sh";

pub fn ready(more: &[&str]) {
    need_disks();
    need_all(&["docker-registry", "oras", "jq"]);
    need_all(more);
}

/// A push of these architectures, signed, with the tag `stable`.
pub fn push(desk: &Desk, repository: &str, version: &str, arches: &[&str], more: &[&str]) -> Command {
    let key = desk.key.private.to_str().unwrap();
    let options = ["--repository", repository, "--plain-http", "--tag", "stable", "--key", key];
    desk.script(SCRIPT, version, arches, &[&options, more].concat())
}

pub fn resolve(desk: &Desk, name: &str) -> String {
    desk.oras(&["resolve", "--plain-http", name]).trim().to_string()
}

/// Requests that change something.
pub fn writes(registry: &Registry) -> Vec<String> {
    let is_write = |line: &String| ["PUT", "POST", "PATCH", "DELETE"].iter().any(|verb| line.starts_with(verb));
    registry.settled_requests(&format!("after-{}", registry.requests().len())).into_iter().filter(is_write).collect()
}

#[apply(test)]
fn both_registries_hold_what_a_stick_would() {
    ready(&["ferro-oci-server", "skopeo", "cosign"]);
    let desk = Desk::new();
    let release = desk.prepare("1.2.0");
    let (docker, ferro) = (Registry::start(desk.dir.path(), None), Ferro::start(desk.dir.path()));
    let layout = ["--layout", "layout", "--tag", "stable"];
    let on_stick = run(&mut desk.script("publish-layout.sh", "1.2.0", &["amd64", "arm64"], &layout));
    for host in [docker.host(), ferro.host()] {
        let repository = format!("{host}/team/os");
        // The other one first: its index is extended.
        let first = run(&mut push(&desk, &repository, "1.2.0", &[other_architecture()], &[]));
        let both = run(&mut push(&desk, &repository, "1.2.0", &[architecture()], &[]));
        assert_eq!(both, on_stick);
        assert_ne!(first, both);
        for tag in ["1.2.0", "stable"] {
            assert_eq!(resolve(&desk, &format!("{repository}:{tag}")), both.trim());
        }
        let index = run(command("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false"])
            .arg(format!("docker://{repository}:stable")));
        let hex = both.trim().strip_prefix("sha256:").unwrap();
        assert_eq!(index.into_bytes(), fs::read(desk.path("layout/blobs/sha256").join(hex)).unwrap());
        for pair in &release.pairs {
            let tag = format!("{repository}:1.2.0-{}", pair.architecture);
            let platform = format!("linux/{}", pair.architecture);
            let named =
                desk.oras(&["resolve", "--plain-http", "--platform", &platform, &format!("{repository}:stable")]);
            assert_eq!(named.trim(), resolve(&desk, &tag));
            assert!(
                cosign_verify(desk.dir.path(), &desk.key, &format!("{repository}@{}", named.trim())).status.success()
            );
            let pulled = desk.path(&format!("pulled-{}", pair.architecture));
            desk.oras(&["pull", "--plain-http", "-o", pulled.to_str().unwrap(), &tag]);
            assert!(fs::read(pulled.join("vmlinuz")).unwrap() == pair.kernel);
            assert!(fs::read(pulled.join("kubesolo-os.gz")).unwrap() == pair.initramfs);
            fs::remove_dir_all(pulled).unwrap();
        }
        assert!(cosign_verify(desk.dir.path(), &desk.key, &format!("{repository}@{}", both.trim())).status.success());
        let machine = desk.machine(&format!("registry = {repository}:stable\n"));
        machine.apply(&[]).expect(0, &["1.2.0 is staged"]);
        assert_taken(&machine, &release);
    }
}

#[apply(test)]
fn layers_of_an_initramfs_stay_layers() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    let (parts, whole) = desk.prepare_parts(3);
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let kernel = format!("vmlinuz-1.2.0-{}", architecture());
    let mut files = vec!["--arch", architecture(), "--kernel", &kernel];
    files.extend(parts.iter().flat_map(|part| ["--initramfs", part]));
    let pushed = run(push(&desk, &repository, "1.2.0", &[], &[]).args(&files));
    let on_stick =
        run(desk.script("publish-layout.sh", "1.2.0", &[], &["--layout", "layout", "--tag", "stable"]).args(&files));
    assert_eq!(pushed, on_stick);
    let manifest = desk.oras(&["manifest", "fetch", "--plain-http", &format!("{repository}:1.2.0-{}", architecture())]);
    let titles = jq(&manifest, "[.layers[1:][].annotations[\"org.opencontainers.image.title\"] | values]");
    assert_eq!(titles, r#"["kubesolo-os.gz.01","kubesolo-os.gz.02","kubesolo-os.gz.03"]"#);
    let machine = desk.machine(&format!("registry = {repository}:stable\n"));
    machine.apply(&[]).expect(0, &["1.2.0 is staged"]);
    assert!(machine.disk.file(B, "kubesolo-os.gz").unwrap() == whole);
    // A layout is the same to the agent.
    sign(&[&desk.key], Signed::Layout(desk.path("layout:stable").to_str().unwrap()));
    let machine = desk.machine("");
    machine.apply(&["--layout", desk.path("layout").to_str().unwrap()]).expect(0, &["1.2.0 is staged"]);
    assert!(machine.disk.file(B, "kubesolo-os.gz").unwrap() == whole);
}

#[apply(test)]
fn the_same_again_and_a_dry_run_write_nothing() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let dry = run(&mut push(&desk, &repository, "1.2.0", &["amd64", "arm64"], &["--dry-run"]));
    assert_eq!(writes(&registry), [""; 0]);
    let digest = run(&mut push(&desk, &repository, "1.2.0", &["amd64", "arm64"], &[]));
    assert_eq!(dry, digest);
    let written = writes(&registry).len();
    assert!(written > 10, "{written}");
    for arches in [&["arm64", "amd64"][..], &["amd64"], &["arm64"]] {
        assert_eq!(run(&mut push(&desk, &repository, "1.2.0", arches, &[])), digest);
    }
    assert_eq!(writes(&registry).len(), written);
}

#[apply(test)]
fn a_version_is_published_once() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let digest = run(&mut push(&desk, &repository, "1.2.0", &["amd64"], &[]));
    fs::copy(desk.path("os-1.2.0-amd64"), desk.path("kept")).unwrap();
    let written = writes(&registry).len();
    let other = |arch: &str, more: &[&str], words: &[&str]| {
        let out = push(&desk, &repository, "1.2.0", &[arch], more).output().unwrap();
        refused(&out, words);
    };
    other("amd64", &["--notes", "other notes"], &["other content", "here:", "other notes", "nothing was written"]);
    other("amd64", &["--channel", "beta"], &["other content", "there:", "stable", "here:", "beta"]);
    other("amd64", &["--expires", "2098-01-01T00:00:00Z"], &["other content", EXPIRES, "2098"]);
    fs::copy(desk.path("os-1.2.0-arm64"), desk.path("os-1.2.0-amd64")).unwrap();
    other("amd64", &[], &["other content", "initramfs.v1+gzip sha256:"]);
    fs::copy(desk.path("kept"), desk.path("os-1.2.0-amd64")).unwrap();
    assert_eq!(writes(&registry).len(), written, "something was written");
    // What another architecture says of the same version is one index with it.
    let out = push(&desk, &repository, "1.2.0", &["arm64"], &["--channel", "beta"]).output().unwrap();
    refused(&out, &["is not version 1.2.0 of channel beta"]);
    assert_eq!(resolve(&desk, &format!("{repository}:stable")), digest.trim());
    // Machines take both spellings for one version.
    desk.prepare("v1.2.0");
    let out = push(&desk, &repository, "v1.2.0", &["arm64"], &[]).output().unwrap();
    refused(&out, &["has this version as 1.2.0", "give --version 1.2.0"]);
    // Something else under that name.
    desk.oras(&["push", "--plain-http", &format!("{repository}:3.0.0"), "kept"]);
    desk.prepare("3.0.0");
    let out = push(&desk, &repository, "3.0.0", &["amd64"], &[]).output().unwrap();
    refused(&out, &[":3.0.0 is something else"]);
}

#[apply(test)]
fn what_another_run_published_has_no_name_that_machines_pass_over() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    let registry = Registry::start(desk.dir.path(), None);
    // By hand, with a slip: whatever scripts/sign.sh refuses, with keys and without.
    for (n, (slip, words)) in [
        (
            "io.kubesolo.os.expries=2099-01-01T00:00:00Z",
            "io.kubesolo.os.expries is not an annotation that machines know",
        ),
        (
            "IO.KUBESOLO.OS.EXPIRES=2099-01-01T00:00:00Z",
            "IO.KUBESOLO.OS.EXPIRES is not an annotation that machines know",
        ),
        ("io.kubsolo.os.expires=2099-01-01T00:00:00Z", "is io.kubesolo.os.expires meant?"),
        ("io.kubesolo.os.release_notes=", "io.kubesolo.os.release_notes is empty: give it a value"),
        ("io.kubesolo.os.expires=2020-01-01T00:00:00Z", "which is past"),
    ]
    .into_iter()
    .enumerate()
    {
        let repository = format!("{}/os{n}", registry.host());
        let mut by_hand = oras(desk.dir.path());
        by_hand.args(["push", "--plain-http", "--artifact-type", "application/vnd.kubesolo.os.update.v1"]);
        for annotation in ["version=1.2.0", "channel=stable", "architecture=arm64"] {
            by_hand.args(["-a", &format!("io.kubesolo.os.{annotation}")]);
        }
        run(by_hand.args(["-a", slip, &format!("{repository}:1.2.0-arm64"), "vmlinuz-1.2.0-arm64"]));
        let options = ["--repository", &repository, "--plain-http"];
        for key in [&[][..], &["--key", desk.key.private.to_str().unwrap()]] {
            let out = desk.script(SCRIPT, "1.2.0", &["amd64"], &[&options, key].concat()).output().unwrap();
            refused(&out, &[words, "what is published for arm64", "is not put into an index"]);
        }
    }
}

/// More options, and why the release is refused.
const REFUSED: &[(&[&str], &str)] = &[
    (&["--expires", "2020-01-01T00:00:00Z"], "is past"),
    (&["--release-date", "2099-01-31T12:00:00Z"], "is not after --release-date"),
    (&["--release-date", "2098-01-31T12:00:00Z"], "more than a day ahead"),
    (&["--min-compatible", "1.2.1"], "is above --version 1.2.0"),
    (&["--key", "vmlinuz-1.2.0-amd64"], "is not a private key"),
];

#[apply(test)]
fn what_is_refused_is_not_uploaded() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    for (more, words) in REFUSED {
        for more in [[more, &["--dry-run"][..]].concat(), more.to_vec()] {
            refused(&push(&desk, &repository, "1.2.0", &["amd64"], &more).output().unwrap(), &[words]);
        }
    }
    assert_eq!(writes(&registry), [""; 0]);
}

#[apply(test)]
fn a_signed_index_vouches_for_nobody_else() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let stranger = KeyPair::p256(desk.dir.path(), "stranger");
    // Somebody who can write to the registry, and has no key of ours.
    let theirs =
        ["--repository", &repository, "--plain-http", "--tag", "stable", "--key", stranger.private.to_str().unwrap()];
    run(&mut desk.script(SCRIPT, "1.2.0", &["arm64"], &theirs));
    let before = resolve(&desk, &format!("{repository}:stable"));
    let out = push(&desk, &repository, "1.2.0", &["amd64"], &[]).output().unwrap();
    refused(&out, &["arm64", "is not signed by the keys given"]);
    assert_eq!(resolve(&desk, &format!("{repository}:stable")), before);
    let ours = format!("{repository}:1.2.0-amd64");
    let named = oras(desk.dir.path()).args(["resolve", "--plain-http", &ours]).output().unwrap();
    assert!(!named.status.success(), "a tag was moved before the other's manifest was looked at");
    let machine = desk.machine(&format!("registry = {repository}:stable\n"));
    machine.root.agent(&["check"]).expect(if architecture() == "arm64" { 5 } else { 4 }, &[]);
    // Hidden in the version's index alone, without a tag of its own.
    let name = format!("{repository}:1.2.0-arm64");
    let tags = desk.path("storage/docker/registry/v2/repositories/os/_manifests/tags");
    fs::remove_dir_all(tags.join("1.2.0-arm64")).unwrap();
    assert!(!oras(desk.dir.path()).args(["resolve", "--plain-http", &name]).output().unwrap().status.success());
    let out = push(&desk, &repository, "1.2.0", &["amd64"], &[]).output().unwrap();
    refused(&out, &["arm64", "is not signed by the keys given"]);
    // Whoever says that it is his own, with the key, may go on.
    let digest = desk.oras(&["resolve", "--plain-http", "--platform", "linux/arm64", &format!("{repository}:1.2.0")]);
    sign(&[&desk.key], Signed::Registry(&format!("{repository}@{}", digest.trim())));
    run(&mut push(&desk, &repository, "1.2.0", &["amd64"], &[]));
    machine.apply(&[]).expect(0, &["1.2.0 is staged"]);
}

/// Kills it at call `first` of oras, at the one two behind it, and so on until it ends before. Returns: how often it was
/// killed, and how often the old and the new were seen afterwards.
fn kill_at_each_other_step(first: usize) -> [usize; 3] {
    let desk = Desk::new();
    desk.prepare("1.1.0");
    desk.prepare("1.2.0");
    let registry = Registry::start(desk.dir.path(), None);
    let repositories = desk.path("storage/docker/registry/v2/repositories");
    run(&mut push(&desk, &format!("{}/old", registry.host()), "1.1.0", &[architecture()], &[]));
    let machine = desk.machine("");
    let calls = desk.path("calls");
    let mut count = [0, 0, 0];
    for n in (first..).step_by(2) {
        let repository = format!("{}/os-{n}", registry.host());
        run(Command::new("cp").arg("-r").arg(repositories.join("old")).arg(repositories.join(format!("os-{n}"))));
        fs::write(&calls, "").unwrap();
        let _ = fs::remove_file(desk.path("calls.killed"));
        let mut pushing = push(&desk, &repository, "1.2.0", &[architecture()], &[]);
        before_path(&mut pushing, &desk.wrap("oras", &killing(&calls, n)));
        let out = pushing.output().unwrap();
        let was_killed = desk.path("calls.killed").exists();
        assert_eq!(!out.status.success(), was_killed, "{n}: {}", stderr(&out));
        machine.root.configure(&format!("registry = {repository}:stable\n"));
        let machine_sees = || machine.root.agent(&["check", "--json"]).expect(0, &[]).jq(".offered.version");
        match machine_sees().as_str() {
            "1.1.0" => count[1] += 1,
            "1.2.0" => count[2] += 1,
            other => panic!("{n}: {other}"),
        }
        if !was_killed {
            break;
        }
        count[0] += 1;
        if count[0] % 3 == 1 {
            run(&mut push(&desk, &repository, "1.2.0", &[architecture()], &[]));
            assert_eq!(machine_sees(), "1.2.0", "{n}");
        }
    }
    count
}

#[apply(long_test)]
fn killed_at_every_step_it_leaves_the_old_or_the_new() {
    ready(&[]);
    let counts =
        std::thread::scope(|s| [1, 2].map(|n| s.spawn(move || kill_at_each_other_step(n))).map(|t| t.join().unwrap()));
    let [killed, old, new] = [0, 1, 2].map(|n| counts[0][n] + counts[1][n]);
    println!("killed {killed} times; old {old}, new {new}");
    assert!(killed > 20 && old > 15 && new >= 2);
}

#[apply(test)]
fn two_at_once_make_one_index() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    let registry = Registry::start(desk.dir.path(), None);
    let stick =
        run(&mut desk.script("publish-layout.sh", "1.2.0", &["amd64", "arm64"], &["--layout", "layout", "--tag", "x"]));
    for round in 0..3 {
        let repository = format!("{}/os-{round}", registry.host());
        let mut runs = ["amd64", "arm64"].map(|arch| push(&desk, &repository, "1.2.0", &[arch], &[]).spawn().unwrap());
        assert!(runs.iter_mut().all(|run| run.wait().unwrap().success()));
        for tag in ["1.2.0", "stable"] {
            assert_eq!(resolve(&desk, &format!("{repository}:{tag}")), stick.trim());
        }
    }
    // One has made its index and waits before it moves the version's tag; the other begins and ends meanwhile.
    let repository = format!("{}/held", registry.host());
    let (reached, go) = (desk.path("reached"), desk.path("go"));
    run(command("mkfifo").args([&reached, &go]));
    let hold = format!(
        "case \"$1 $3\" in 'tag 1.2.0') [ -e held ] || {{ : >held; echo >{}; read -r _ <{}; }} ;; esac",
        reached.display(),
        go.display()
    );
    let mut slow = push(&desk, &repository, "1.2.0", &["amd64"], &[]);
    before_path(&mut slow, &desk.wrap("oras", &hold));
    let slow = slow.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    fs::read_to_string(&reached).unwrap();
    run(&mut push(&desk, &repository, "1.2.0", &["arm64"], &[]));
    assert_eq!(resolve(&desk, &format!("{repository}:1.2.0")), stick.trim());
    fs::write(&go, "\n").unwrap();
    let out: Output = slow.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", stderr(&out));
    // It took the other's away, and saw that.
    let moved = stderr(&out).matches(":1.2.0 is sha256:").count();
    assert_eq!(moved, 2, "{}", stderr(&out));
    for tag in ["1.2.0", "stable"] {
        assert_eq!(resolve(&desk, &format!("{repository}:{tag}")), stick.trim());
    }
}

#[apply(test)]
fn a_registry_that_does_not_answer_is_not_an_empty_one() {
    ready(&[]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    for status in [401, 403, 429, 500, 503] {
        let web = Web::start(move |_| Answer::status(status));
        let out = push(&desk, &format!("127.0.0.1:{}/os", web.port), "1.2.0", &["amd64"], &[]).output().unwrap();
        refused(&out, &["cannot tell whether"]);
        assert!(!web.seen().is_empty());
    }
    // Words of a registry's own that end like those of a 404, or name its codes.
    for (status, code, words) in [
        (401, "UNAUTHORIZED", "user: not found"),
        (403, "NAME_UNKNOWN", "no such project for you"),
        (500, "UNKNOWN", "disk: not found"),
    ] {
        let body = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{words}\"}}]}}");
        let web = Web::start(move |_| {
            Answer { status, ..Answer::ok(body.as_str()) }.header("Content-Type", "application/json")
        });
        let repository = format!("127.0.0.1:{}/os", web.port);
        refused(&push(&desk, &repository, "1.2.0", &["amd64"], &[]).output().unwrap(), &["cannot tell whether"]);
    }
    // One without TLS, asked with TLS: the option is named.
    let registry = Registry::start(desk.dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let without = |version: &str, more: &[&str]| {
        desk.script(SCRIPT, version, &["amd64"], &[&["--repository", &repository], more].concat()).output().unwrap()
    };
    refused(&without("1.2.0", &[]), &["cannot tell whether", "(a registry without TLS? --plain-http)"]);
    assert!(without("1.2.0", &["--plain-http"]).status.success());
    // A 404 of something that is no registry: nothing is there, and nothing can be written.
    let web = Web::start(|_| Answer::status(404));
    let out = push(&desk, &format!("127.0.0.1:{}/os", web.port), "1.2.0", &["amd64"], &[]).output().unwrap();
    refused(&out, &["cannot push"]);
}

#[apply(test)]
fn bad_arguments_are_refused_and_nothing_is_asked() {
    need_all(&["oras", "jq"]);
    let desk = Desk::new();
    desk.prepare("1.2.0");
    fs::write(desk.path("empty"), "").unwrap();
    fs::write(desk.path("text"), "no gzip").unwrap();
    let good = ["--repository", "127.0.0.1:1/os", "--version", "1.2.0", "--arch", "amd64"];
    let files = ["--kernel", "vmlinuz-1.2.0-amd64", "--initramfs", "os-1.2.0-amd64"];
    let many = ["--initramfs", "os-1.2.0-amd64"].repeat(16);
    let long = format!("1.2.0-{}", "x".repeat(120));
    for (args, words) in [
        (vec![], "--repository is missing"),
        (good[..2].to_vec(), "--version is missing"),
        (good[..4].to_vec(), "--arch is missing"),
        (good.to_vec(), "has no --kernel"),
        ([&good[..], &files[..2]].concat(), "has no --initramfs"),
        ([&good[..], &files, &many].concat(), "more than 16"),
        ([&good[..], &files, &files[..2]].concat(), "two kernels for amd64"),
        ([&good[..], &["--arch", "amd64"]].concat(), "given twice"),
        ([&good[..4], &files].concat(), "comes after the --arch"),
        ([&good[..], &["--kernel", "absent", "--initramfs", "os-1.2.0-amd64"]].concat(), "absent is not a file"),
        ([&good[..], &["--kernel", "empty", "--initramfs", "os-1.2.0-amd64"]].concat(), "empty is empty"),
        ([&good[..], &["--kernel", "text", "--initramfs", "text"]].concat(), "judge the kernel text: not a kernel"),
        ([&good[..], &files[..2], &["--initramfs", "text"]].concat(), "neither gzip nor cpio"),
        ([&good[..], &files, &["--tag", "a b"]].concat(), "is not a tag"),
        ([&good[..], &files, &["--tag", "1.2.0"]].concat(), "made without being asked"),
        ([&good[..], &files, &["--tag", "x", "--tag", "x"]].concat(), "given twice"),
        ([&good[..], &files, &["--key", "absent.key"]].concat(), "absent.key is not a file"),
        ([&good[..], &files, &["--passphrase-file", "text"]].concat(), "is for --key"),
        ([&good[..], &files, &["--release-date", "yesterday"]].concat(), "must be a time"),
        ([&good[..], &files, &["--channel", "a b"]].concat(), "--channel may hold"),
        ([&good[..], &files, &["--notes", "a\u{7}b"]].concat(), "control character"),
        ([&good[..], &files, &["--version", "1.2"]].concat(), "semantic version"),
        ([&good[..], &files, &["--version", &long]].concat(), "too long for a tag"),
        ([&good[..], &files, &["--repository", "os"]].concat(), "must be HOST/REPO"),
        ([&good[..], &files, &["--repository", "h/os:tag"]].concat(), "must be HOST/REPO"),
        ([&good[..], &files, &["--repository", "h/Os"]].concat(), "must be HOST/REPO"),
        ([&good[..], &files, &["--nonsense"]].concat(), "unknown option"),
        ([&good[..], &["--tag"]].concat(), "needs a value"),
    ] {
        let out = script(desk.dir.path(), SCRIPT).args(&args).output().unwrap();
        refused(&out, &[words]);
        assert!(!stderr(&out).contains("connection refused"), "{args:?}");
    }
    let help = run(script(desk.dir.path(), SCRIPT).arg("--help"));
    for option in ["--repository", "--initramfs", "--key", "--dry-run", "--expires", "a leading v is allowed"] {
        assert!(help.contains(option), "{option}");
    }
}

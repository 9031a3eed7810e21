//! The main job on real input: what a real oras pushed, from a real registry, into a real disk image.

use crate::support::disk::{A, B, BORN, Disk, architecture, need_disks, noise};
use crate::support::registry::{Registry, oras};
use crate::support::release::{Medium, Release, Target, sha256};
use crate::support::root::{Root, jq};
use crate::support::{command, need, run};
use std::fs;
use std::path::Path;

/// Holds slot B against a release, with tools that are not the agent's.
#[track_caller]
fn assert_staged(disk: &Disk, release: &Release, source: &str, digest: &str) {
    let pair = release.ours();
    assert!(disk.file(B, "vmlinuz").unwrap() == pair.kernel, "vmlinuz differs");
    assert!(disk.file(B, "kubesolo-os.gz").unwrap() == pair.initramfs, "kubesolo-os.gz differs");
    assert_eq!(disk.text(B, "version").unwrap(), format!("{}\n", release.version));
    assert_eq!(disk.names(B), ["kubesolo-os.gz", "slot.crc32", "slot.json", "version", "vmlinuz"]);
    let record = disk.text(B, "slot.json").unwrap();
    for (filter, value) in [
        (".version", release.version.clone()),
        (".architecture", architecture().into()),
        (".channel", "stable".into()),
        (".source", source.into()),
        (".manifest_digest", digest.into()),
        (".kernel.size", pair.kernel.len().to_string()),
        (".kernel.sha256", sha256(&pair.kernel)),
        (".initramfs.size", pair.initramfs.len().to_string()),
        (".initramfs.sha256", sha256(&pair.initramfs)),
    ] {
        assert_eq!(jq(&record, filter), value, "{filter}");
    }
    assert!(!disk.needs_recovery(B), "the journal is not empty");
    assert!(!disk.is_mounted(A) && !disk.is_mounted(B));
    let fsck = format!("{}?offset={}", disk.image.display(), disk.extent(B).0);
    run(command("e2fsck").arg("-fn").arg(fsck));
}

#[apply(test)]
fn a_registry_from_check_to_activate() {
    need_disks();
    need("docker-registry");
    need("oras");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let release = Release::new("2.0.0").with("io.kubesolo.os.release_notes", "first line\nsecond \u{1b}[31mline");
    let registry = Registry::start(disk.dir(), None);
    let repository = format!("{}/kubesolo/os", registry.host());
    let digest = release.publish(disk.dir(), Target::Registry, &repository, "stable");
    let reference = format!("{repository}:stable");
    root.configure(&format!("signature = off\nregistry = {reference} # where updates come from\n"));
    let running = disk.bytes(A);

    // check: says what there is, asks for no blob, changes nothing.
    let (target, asked) = (disk.bytes(B), registry.log().len());
    let check = root.agent(&["check"]).expect(0, &["Running   1.0.0", "Offered   2.0.0", "an update is available"]);
    assert!(check.stdout.contains("first line") && !check.stdout.contains('\u{1b}'), "{}", check.stdout);
    let check = root.agent(&["check", "--json"]).expect(0, &[]);
    assert_eq!(
        check.jq("[.result, .update_available, .running_version, .offered.version]"),
        r#"["available",true,"1.0.0","2.0.0"]"#
    );
    assert_eq!(check.jq(".offered.manifest_digest"), digest);
    assert!(!registry.log()[asked..].contains("/blobs/"), "check downloaded a blob");
    assert!(root.state().is_none() && disk.bytes(B) == target, "check changed something");
    let idle = root.agent(&["status", "--json"]).expect(0, &[]);
    assert_eq!(idle.jq("[.update.phase, .running_slot, .boot.active_slot]"), r#"["idle","A","A"]"#);

    // apply: staged, and proven by reading the image without the agent.
    let blocks = root.blocks();
    let apply = root.agent(&["apply", "--json"]).expect(0, &[]);
    assert_eq!(apply.jq("[.result, .version, .slot, .activated]"), r#"["staged","2.0.0","B",false]"#);
    assert_eq!(apply.jq(".manifest_digest"), digest);
    assert_staged(&disk, &release, &format!("registry {reference}"), &digest);
    assert!(disk.bytes(A) == running, "the running slot was written");
    assert!(root.blocks() == blocks, "apply touched the boot variables");
    for (name, value) in [
        ("phase", "staged"),
        ("from_version", BORN),
        ("to_version", "2.0.0"),
        ("target_slot", "B"),
        ("attempt_count", "1"),
        ("last_error", "null"),
        ("manifest_digest", &digest),
    ] {
        assert_eq!(root.state_field(name), value, "{name}");
    }
    let status = root.agent(&["status"]).expect(0, &["KubeSolo OS 1.0.0", "Slot B  2.0.0", "staged: 1.0.0 to 2.0.0"]);
    assert!(status.stdout.contains("`activate`, then restart"), "{}", status.stdout);

    // The same again: nothing to do, and nothing downloaded.
    let (target, asked) = (disk.bytes(B), registry.log().len());
    root.agent(&["apply"]).expect(3, &["staged in slot B already"]);
    root.agent(&["apply", "--ok-if-nothing"]).expect(0, &["staged in slot B already"]);
    assert!(!registry.log()[asked..].contains("/blobs/") && disk.bytes(B) == target);
    assert_eq!((root.state_field("phase"), root.state_field("attempt_count")), ("staged".into(), "1".into()));

    // What is staged is not offered once more.
    root.agent(&["check"]).expect(3, &["Offered   2.0.0", "staged in slot B; `kubesolo-update activate`"]);
    let check = root.agent(&["check", "--json"]).expect(3, &[]);
    assert_eq!(check.jq("[.result, .update_available]"), r#"["staged",false]"#);
    root.agent(&["metrics", "--once"]).expect(0, &["kubesolo_update_available 0\n"]);

    // GRUB has not shown that it can write: no trial.
    let state = root.state();
    root.agent(&["activate"]).expect(7, &["boot_canary is 0", "--allow-unproven-bootloader"]);
    assert!(root.blocks() == blocks && root.state() == state, "a refused activate changed something");
    root.set_boot_variables(&["boot_canary=1", "fleet_note=keep me"]);

    let activate = root.agent(&["activate", "--json"]).expect(0, &[]);
    assert_eq!(activate.jq("[.result, .slot, .version]"), r#"["activated","B","2.0.0"]"#);
    let variables = root.boot_variables();
    for (name, value) in [
        ("active_slot", "B"),
        ("boot_success", "0"),
        ("boot_counter", "3"),
        ("rollback_from", ""),
        ("boot_canary", "1"),
        ("fleet_note", "keep me"),
    ] {
        assert_eq!(variables[name], value, "{name}");
    }
    assert_eq!(root.state_field("phase"), "activated");
    root.agent(&["activate"]).expect(3, &["active already"]);
    let status = root.agent(&["status", "--json"]).expect(0, &[]);
    assert_eq!(status.jq("[.boot.active_slot, .boot.boot_success, .boot.boot_counter]"), r#"["B",false,3]"#);
    assert!(status.jq(".next").contains("restart to try slot B"), "{}", status.stdout);

    // A trial is pending: the other slot is the fallback, and apply keeps its hands off everything.
    Release::new("3.0.0").publish(disk.dir(), Target::Registry, &repository, "stable");
    let before = (disk.bytes(B), root.blocks(), root.state(), registry.log().len());
    root.agent(&["apply"])
        .expect(4, &["a trial is pending: slot B waits for its first boot", "rollback to call it off"]);
    root.agent(&["check"]).expect(4, &["a trial is pending: slot B waits for its first boot"]);
    assert!(!registry.log()[before.3..].contains("/blobs/"));
    assert!(disk.bytes(B) == before.0 && root.blocks() == before.1 && root.state() == before.2, "changed");
    assert!(disk.bytes(A) == running, "the running slot was written");
}

/// Lets a second release go through every shape of source; each machine is new.
fn from_source(name: &str, args: &[&str], release: &Release, source: &str, digest: &str) {
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let running = disk.bytes(A);
    let with = |command: &'static str| [&[command], args].concat();
    root.agent(&with("check")).expect(0, &["an update is available", &release.version]);
    root.agent(&with("apply")).expect(0, &["is staged in slot B", "written and read back"]);
    assert_staged(&disk, release, source, digest);
    assert!(disk.bytes(A) == running, "{name}: the running slot was written");
    root.agent(&with("apply")).expect(3, &["staged in slot B already"]);
    // The one-step form.
    root.set_boot_variables(&["boot_canary=1"]);
    let more = [&["apply", "--activate"], args].concat();
    root.agent(&more).expect(0, &["slot B is active, on trial"]);
    assert_eq!(root.boot_variables()["active_slot"], "B", "{name}");
}

#[apply(test)]
fn registry_manifests_by_tag_and_by_digest() {
    need_disks();
    need("docker-registry");
    need("oras");
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let release = Release::new("2.1.0-rc.1");
    let digest = release.publish(dir.path(), Target::Registry, &repository, "v2");
    let index = run(oras(dir.path()).args(["resolve", "--plain-http", &format!("{repository}:v2")])).trim().to_string();
    assert!(index.starts_with("sha256:") && index != digest);
    let single = format!("{repository}:v2-{}", architecture());
    let by_index = format!("{repository}@{index}");
    let by_digest = format!("{repository}@{digest}");
    for reference in [&single, &by_index, &by_digest] {
        from_source(reference, &["--registry", reference], &release, &format!("registry {reference}"), &digest);
    }
    let server = format!("oci://{repository}");
    let source = format!("registry {repository}:v2");
    from_source("--server oci://", &["--server", &server, "--tag", "v2"], &release, &source, &digest);
}

#[apply(test)]
fn an_http_server_with_latest_json() {
    need_disks();
    let release = Release::new("2.2.0");
    let web = release.serve();
    let source = format!("http {}", web.url("/latest.json"));
    // Its identity is the agent's own definition: taken from check, held against record and state.
    let disk = Disk::new(24, 16);
    let check = Root::new(&disk).agent(&["check", "--json", "--server", &web.url("")]).expect(0, &[]);
    let digest = check.jq(".offered.manifest_digest");
    assert!(web.seen().iter().all(|r| r.ends_with("/latest.json")), "check fetched a file: {:?}", web.seen());
    from_source("http", &["--server", &web.url("")], &release, &source, &digest);
}

#[apply(test)]
fn a_layout_directory() {
    need_disks();
    need("oras");
    let dir = tempfile::tempdir().unwrap();
    let release = Release::new("2.3.0+build.5");
    let medium = Medium::new(dir.path(), &release);
    let before = listing(&medium.dir);
    from_source("layout", &["--layout", medium.path()], &release, &format!("layout {}", medium.path()), &medium.digest);
    let tag = format!("latest-{}", architecture());
    let tagged = format!("layout {}:{tag}", medium.path());
    from_source("tag", &["--layout", medium.path(), "--tag", &tag], &release, &tagged, &medium.digest);
    assert_eq!(listing(&medium.dir), before, "the medium was written");
}

fn listing(dir: &Path) -> String {
    run(std::process::Command::new("find").arg(dir).args(["-printf", "%p %s %m %T@\n"]))
}

#[apply(test)]
fn a_slot_is_used_again_and_again_without_filling_up() {
    need_disks();
    need("oras");
    // 24 MiB hold about seven of these; every update replaces the one before.
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    for round in 0..12 {
        let release = Release::new(&format!("2.0.{round}"));
        let medium = Medium::new(disk.dir(), &release);
        root.agent(&["apply", "--layout", medium.path()]).expect(0, &["staged"]);
        assert_eq!(root.state_field("attempt_count"), "1");
        assert_eq!(root.state_field("attempts_total"), (round + 1).to_string());
        fs::remove_dir_all(&medium.dir).unwrap();
    }
    assert_eq!(disk.text(B, "version").as_deref(), Some("2.0.11\n"));
}

/// SemVer does not order `+k3s1` and `+k3s2`; and a version may be published twice.
#[apply(test)]
fn another_build_of_the_version_that_runs_is_said_to_be_one() {
    need_disks();
    for (running, offered, words) in [
        ("1.29.4+k3s1", "1.29.4+k3s2", "Semantic Versioning does not order the two"),
        ("1.29.4+k3s1", "1.29.4+k3s1", "was it published twice?"),
        ("1.29.4", "1.29.4+k3s1", "Semantic Versioning does not order the two"),
    ] {
        let disk = Disk::new(24, 16);
        let root = Root::new(&disk);
        root.set_boot_variables(&["boot_canary=1"]);
        let first = Release::new(running).serve();
        root.agent(&["apply", "--server", &first.url(""), "--activate"]).expect(0, &[running]);
        root.set_boot_variables(&["boot_success=1"]);
        let mut root = root;
        root.boot('B', Some(&disk.guid(B)));
        // The very same: nothing to do.
        root.agent(&["check", "--server", &first.url("")]).expect(3, &["up to date"]);
        root.agent(&["apply", "--server", &first.url("")]).expect(3, &["running already"]);
        // Other files.
        let mut release = Release::new(offered);
        release.ours_mut().kernel = noise(77, 100_000);
        let second = release.serve();
        for command in ["check", "apply"] {
            let run = root.agent(&[command, "--server", &second.url("")]);
            run.expect(4, &[offered, running, "another build", words, "--allow-downgrade takes it"]);
        }
        assert_eq!(second.seen().iter().filter(|path| path.contains("vmlinuz")).count(), 0, "something was downloaded");
        let check = root.agent(&["check", "--json", "--server", &second.url("")]).expect(4, &[]);
        assert_eq!(check.jq("[.result, .refusals[].gate]"), r#"["refused","newer"]"#);
        assert_eq!(root.state_field("phase"), "success");
        root.agent(&["apply", "--server", &second.url(""), "--allow-downgrade"]).expect(0, &["is staged in slot A"]);
        // It was insisted on, and lies there.
        root.agent(&["check", "--server", &second.url("")]).expect(3, &["staged in slot A"]);
        root.agent(&["apply", "--server", &second.url("")]).expect(3, &["staged in slot A already"]);
    }
}

//! `scripts/build-os-image.sh` and `scripts/build-agent-image.sh`: what real umoci, buildah, skopeo and runc make of
//! their images, out of layouts and out of real registries; what the scripts refuse.

use crate::support::container::{
    Runc, configure, container_id, files, need_containers, need_image_tools, need_static_agent, pull, skopeo, unpack,
    unpacked,
};
use crate::support::container_bench::{ARCHITECTURES, Bench, SOURCE};
use crate::support::disk::architecture;
use crate::support::ferro::Ferro;
use crate::support::registry::{Ca, Registry, oras};
use crate::support::root::jq;
use crate::support::signing::script;
use crate::support::unprivileged::unprivileged;
use crate::support::{self, command, need, run, script_code};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

#[track_caller]
fn refused(out: &Output, word: &str) {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let code = script_code(&said);
    assert!(out.status.code() == Some(code) && said.contains(word), "wanted {code}, '{word}': {said}");
    assert!(out.stdout.is_empty(), "a digest for nothing");
}

#[apply(test)]
fn the_os_comes_out_of_a_layout_byte_for_byte() {
    need_image_tools();
    let bench = Bench::new();
    let said = run(bench.os("1.2.0", ARCHITECTURES).args(["--layout", "layout", "--tag", "v1"]));
    let digest = said.trim();
    assert_eq!(run(oras(bench.dir.path()).args(["resolve", "--oci-layout", "layout:v1"])).trim(), digest);
    let image = format!("oci:{}:v1", bench.path("layout").display());
    for arch in ARCHITECTURES {
        let bundle = unpacked(&image, arch, bench.dir.path());
        bench.assert_os(&bundle.join("rootfs"), arch, "1.2.0");
        let modes = ["kubesolo-os.gz", "version", "vmlinuz"].map(|f| format!("{f} f 0644 0:0 0.0000000000"));
        assert_eq!(files(&bundle), modes);

        let mut inspect = skopeo(bench.dir.path());
        let shown = run(inspect.args(["--override-arch", arch, "inspect", &image]));
        assert_eq!(jq(&shown, "[.Digest, .Architecture, .Os]"), format!("[\"{digest}\",\"{arch}\",\"linux\"]"));
        let wanted = [
            ("io.kubesolo.os.architecture", arch),
            ("io.kubesolo.os.channel", "beta"),
            ("io.kubesolo.os.version", "1.2.0"),
            ("org.opencontainers.image.created", "1970-01-01T00:00:00Z"),
            ("org.opencontainers.image.description", "Kernel and initramfs of KubeSolo OS; runs nothing"),
            ("org.opencontainers.image.source", SOURCE),
            ("org.opencontainers.image.title", "KubeSolo OS"),
            ("org.opencontainers.image.version", "1.2.0"),
        ];
        let wanted = wanted.map(|(name, value)| format!("{name}={value}")).join("|");
        let pairs = |from: &str| format!("{from} | to_entries | map(\"\\(.key)=\\(.value)\") | sort | join(\"|\")");
        assert_eq!(jq(&shown, &pairs(".Labels")), wanted);
        let platform = format!("linux/{arch}");
        let mut fetch = oras(bench.dir.path());
        fetch.args(["manifest", "fetch", "--oci-layout", "--platform", &platform, "layout:v1"]);
        assert_eq!(jq(&run(&mut fetch), &pairs(".annotations")), wanted);
    }
    // Another tag joins it; one that is moved takes nothing else along.
    let other = run(bench.os("1.3.0", ARCHITECTURES).args(["--layout", "layout", "--tag", "other"]));
    let moved = run(bench.os("1.2.1", ARCHITECTURES).args(["--layout", "layout", "--tag", "v1"]));
    let resolve = |name: &str| run(oras(bench.dir.path()).args(["resolve", "--oci-layout", &format!("layout{name}")]));
    assert!(resolve(":v1") == moved && resolve(":other") == other && moved != said && other != moved);
    assert_eq!(resolve(&format!("@{digest}")).trim(), digest);
    let index = fs::read_to_string(bench.path("layout/index.json")).unwrap();
    let names = ".manifests | map(.annotations[\"org.opencontainers.image.ref.name\"]) | sort";
    assert_eq!(jq(&index, names), "[null,\"other\",\"v1\"]");
}

#[apply(test)]
fn the_same_input_is_the_same_image_whoever_makes_it() {
    need_image_tools();
    need_static_agent();
    let bench = Bench::with_agents();
    run(bench.os("1.2.0", ARCHITECTURES).args(["--layout", "one", "--tag", "v1"]));
    run(bench.os("1.2.0", ["arm64", "amd64"]).args(["--layout", "two", "--tag", "v1"]));
    let same = |one: &str, two: &str| Command::new("diff").arg("-r").args([one, two]).current_dir(&bench.dir).output();
    assert!(same("one", "two").unwrap().status.success(), "two builds differ");

    // By somebody who is not root: files are root's in the image all the same.
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut os = bench.os("1.2.0", ARCHITECTURES);
    os.args(["--layout", "three", "--tag", "v1"]);
    os.env("HOME", bench.dir.path());
    run(&mut unprivileged(bench.dir.path(), &os));
    assert!(same("one", "three").unwrap().status.success(), "another user's build differs");

    let dry = |command: &mut Command| run(command.arg("--dry-run")).trim().to_string();
    let os = |seconds: &str| {
        dry(bench.os("1.2.0", ARCHITECTURES).args(["--layout", "x", "--tag", "y"]).env("SOURCE_DATE_EPOCH", seconds))
    };
    assert!(os("0") == os("0") && os("0") != os("86400"), "SOURCE_DATE_EPOCH does not count");
    let agent = || dry(bench.agent().args(["--layout", "x", "--tag", "y"]));
    assert_eq!(agent(), agent());
    fs::write(
        bench.path("dist/kubesolo-update-arm64"),
        [fs::read(bench.path("dist/kubesolo-update-arm64")).unwrap(), vec![0]].concat(),
    )
    .unwrap();
    let before = agent();
    fs::write(bench.path("ca.pem"), fs::read_to_string(bench.path("ca.pem")).unwrap() + "\n").unwrap();
    assert_ne!(before, agent());
    assert!(!bench.path("x").exists(), "a dry run wrote");
}

/// Pushes, pulls back as both architectures, and pushes again, with other content and with the same.
fn through_a_registry(bench: &Bench, host: &str) {
    let reference = format!("{host}/os/image:1.2.0");
    let push = |version: &str| run(bench.os(version, ARCHITECTURES).args(["--push", &reference, "--plain-http"]));
    let resolve =
        |tag: &str| run(oras(bench.dir.path()).args(["resolve", "--plain-http", &format!("{host}/os/image:{tag}")]));
    run(bench.os("1.2.0", ARCHITECTURES).args(["--push", &reference, "--plain-http", "--dry-run"]));
    assert!(!oras(bench.dir.path()).args(["resolve", "--plain-http", &reference]).output().unwrap().status.success());
    let digest = push("1.2.0");
    assert_eq!(resolve("1.2.0"), digest);
    let image = format!("docker://{reference}");
    for arch in ARCHITECTURES {
        let dir = tempfile::tempdir_in(bench.dir.path()).unwrap();
        bench.assert_os(&unpacked(&image, arch, dir.path()).join("rootfs"), arch, "1.2.0");
    }
    let again = bench.os("1.2.0", ARCHITECTURES).args(["--push", &reference, "--plain-http"]).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("it already"), "{again:?}");
    // A tag can be moved; what it named before stays under its digest.
    let newer = push("1.2.1");
    assert!(newer != digest && resolve("1.2.0") == newer);
    let index = run(oras(bench.dir.path()).args(["manifest", "fetch", "--plain-http", &reference]));
    for arch in ARCHITECTURES {
        let listed = jq(&index, &format!(".manifests[] | select(.platform.architecture == \"{arch}\") | .digest"));
        assert_eq!(resolve(&format!("1.2.0-{arch}")).trim(), listed);
    }
    let pinned = format!("docker://{host}/os/image@{}", digest.trim());
    let dir = tempfile::tempdir_in(bench.dir.path()).unwrap();
    bench.assert_os(&unpacked(&pinned, "amd64", dir.path()).join("rootfs"), "amd64", "1.2.0");
}

#[apply(test)]
fn the_os_goes_through_both_registries() {
    need_image_tools();
    need("docker-registry");
    need("ferro-oci-server");
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path(), None);
    through_a_registry(&bench, &registry.host());
    through_a_registry(&bench, &Ferro::start(bench.dir.path()).host());
}

#[apply(test)]
fn blobs_come_first_and_the_tag_last_and_a_machine_pulls_its_own() {
    need_image_tools();
    need("docker-registry");
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path(), None);
    let reference = format!("{}/os/image:1.2.0", registry.host());
    run(bench.os("1.2.0", ARCHITECTURES).args(["--push", &reference, "--plain-http"]));
    let written: Vec<String> = registry.settled_requests("pushed").into_iter().filter(|r| r.contains(" 201")).collect();
    // Two configurations, five layers (both have the same version file), two manifests, and the index by its tag.
    assert_eq!(written.len(), 10, "{written:#?}");
    assert!(written[9].starts_with("PUT /v2/os/image/manifests/1.2.0 "), "{written:#?}");
    assert!(written[..9].iter().all(|r| !r.contains("manifests/1.2.0 ")), "{written:#?}");
    // Each architecture's image has a tag of its own, from the moment that it is there.
    let named: Vec<&str> = written[..9].iter().filter(|r| r.contains("/manifests/")).map(|r| r.as_str()).collect();
    let put = |arch: &str| format!("PUT /v2/os/image/manifests/1.2.0-{arch} 201");
    assert_eq!(named, ["amd64", "arm64"].map(put));
    // The same again: not even a blob is looked at.
    let before = registry.settled_requests("before").len();
    run(bench.os("1.2.0", ARCHITECTURES).args(["--push", &reference, "--plain-http"]));
    let asked = registry.settled_requests("after").split_off(before + 1);
    assert!(asked.iter().all(|r| r.starts_with("HEAD ") || r.starts_with("GET /v2/ ")), "{asked:#?}");

    let before = registry.settled_requests("pull").len();
    pull(&format!("docker://{reference}"), "arm64", &bench.path("pulled"));
    let asked = registry.settled_requests("pulled").split_off(before + 1);
    let documents: Vec<&str> =
        asked.iter().filter(|r| r.contains("GET /v2/os/image/manifests/")).map(|r| r.as_str()).collect();
    let index = run(oras(bench.dir.path()).args(["manifest", "fetch", "--plain-http", &reference]));
    let theirs = jq(&index, ".manifests[] | select(.platform.architecture == \"arm64\") | .digest");
    assert!(documents.len() == 2 && documents[0].contains("/1.2.0 ") && documents[1].contains(&theirs), "{asked:#?}");
    assert_eq!(asked.iter().filter(|r| r.contains("GET /v2/os/image/blobs/")).count(), 4, "{asked:#?}");
}

#[apply(test)]
fn a_cleaning_of_the_registry_leaves_every_architecture() {
    need_image_tools();
    need("docker-registry");
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path(), None);
    run(bench.os("1.2.0", ARCHITECTURES).args([
        "--push",
        &format!("{}/os/image:1.2.0", registry.host()),
        "--plain-http",
    ]));
    let registry = registry.clean(bench.dir.path());
    let reference = format!("{}/os/image:1.2.0", registry.host());
    for arch in ARCHITECTURES {
        let dir = tempfile::tempdir_in(bench.dir.path()).unwrap();
        let bundle = unpacked(&format!("docker://{reference}"), arch, dir.path());
        bench.assert_os(&bundle.join("rootfs"), arch, "1.2.0");
    }
    // The same again gives a tag to what had none.
    let tags = bench.path("storage/docker/registry/v2/repositories/os/image/_manifests/tags");
    fs::remove_dir_all(tags.join("1.2.0-arm64")).unwrap();
    run(bench.os("1.2.0", ARCHITECTURES).args(["--push", &reference, "--plain-http"]));
    let name = format!("{reference}-arm64");
    run(oras(bench.dir.path()).args(["resolve", "--plain-http", &name]));
}

#[apply(test)]
fn buildah_copies_the_os_out_of_it() {
    need_image_tools();
    need("docker-registry");
    need("buildah");
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path(), None);
    let reference = format!("{}/os/image:1.2.0", registry.host());
    run(bench.os("1.2.0", ARCHITECTURES).args(["--push", &reference, "--plain-http"]));
    // The lines of `--help`, with this registry and one more file.
    let usage = run(script(bench.dir.path(), "build-os-image.sh").arg("--help"));
    let lines: Vec<&str> = usage
        .lines()
        .filter_map(|l| l.strip_prefix("  "))
        .filter(|l| l.starts_with("FROM ") || l.starts_with("COPY "))
        .collect();
    assert_eq!(lines.len(), 2, "{usage}");
    let lines = lines
        .join("\n")
        .replace("registry.example.com/os/image:1.2.0", &reference)
        .replace("/kubesolo-os.gz /boot", "/kubesolo-os.gz /version /boot");
    fs::create_dir(bench.path("context")).unwrap();
    fs::write(bench.path("context/Dockerfile"), lines).unwrap();
    for arch in ARCHITECTURES {
        let out = bench.path(&format!("copied-{arch}"));
        let mut buildah = command("buildah");
        buildah.env("STORAGE_DRIVER", "vfs").env("HOME", bench.dir.path()).env("TMPDIR", bench.dir.path());
        buildah.arg("--root").arg(bench.path(&format!("storage-{arch}"))).arg("--runroot").arg(bench.path("run"));
        buildah.args(["bud", "--isolation", "chroot", "--tls-verify=false", "--platform", &format!("linux/{arch}")]);
        run(buildah.arg("-t").arg(format!("oci:{}:x", out.display())).arg(bench.path("context")));
        let bundle = unpack(&format!("{}:x", out.display()), &bench.path(&format!("unpacked-{arch}")));
        bench.assert_os(&bundle.join("rootfs/boot"), arch, "1.2.0");
    }
}

#[apply(test)]
fn the_agent_takes_no_container_image_for_an_update() {
    need_image_tools();
    need("sgdisk");
    support::disk::need_disks();
    let bench = Bench::new();
    run(bench.os("9.0.0", ARCHITECTURES).args(["--layout", "layout", "--tag", "latest"]));
    let machine = support::machine::Machine::new();
    let layout = bench.path("layout");
    machine.apply(&["--layout", layout.to_str().unwrap()]).expect(6, &["kernel"]);
    machine.assert_unharmed("a container image", "failed", "source", support::machine::Left::Untouched);
}

#[apply(test)]
fn the_agent_runs_in_its_image() {
    need_containers();
    need_static_agent();
    need("docker-registry");
    let bench = Bench::with_agents();
    let registry = Registry::start(bench.dir.path(), None);
    let reference = format!("{}/kubesolo/kubesolo-update:0.1.0", registry.host());
    let digest =
        run(bench.agent().args(["--push", &reference, "--plain-http", "--layout", "layout", "--tag", "0.1.0"]));
    assert_eq!(run(oras(bench.dir.path()).args(["resolve", "--plain-http", &reference])), digest);
    assert_eq!(run(oras(bench.dir.path()).args(["resolve", "--oci-layout", "layout:0.1.0"])), digest);
    for arch in ARCHITECTURES {
        let bundle = unpacked(&format!("docker://{reference}"), arch, bench.dir.path());
        let agent = fs::read(bench.path(&format!("dist/kubesolo-update-{arch}"))).unwrap();
        assert!(fs::read(bundle.join("rootfs/usr/bin/kubesolo-update")).unwrap() == agent, "{arch}");
        let names: Vec<String> = files(&bundle).iter().filter(|f| f.contains(" f ")).cloned().collect();
        let time = "0:0 0.0000000000";
        let certificates = format!("etc/ssl/certs/ca-certificates.crt f 0644 {time}");
        assert_eq!(names, [certificates, format!("usr/bin/kubesolo-update f 0755 {time}")]);
        let mut inspect = skopeo(bench.dir.path());
        inspect.args([
            "--override-arch",
            arch,
            "inspect",
            "--config",
            &format!("oci:{}:0.1.0", bench.path("layout").display()),
        ]);
        let config = run(&mut inspect);
        assert_eq!(jq(&config, "[.architecture, .os]"), format!("[\"{arch}\",\"linux\"]"));
        let wanted = "[\"0:0\",[\"/usr/bin/kubesolo-update\"],[\"--help\"],\"/\"]";
        assert_eq!(jq(&config, ".config | [.User, .Entrypoint, .Cmd, .WorkingDir]"), wanted);
        let label = |name: &str| jq(&config, &format!(".config.Labels[\"org.opencontainers.image.{name}\"]"));
        assert_eq!(
            [label("version"), label("title"), label("licenses")],
            [env!("CARGO_PKG_VERSION"), "kubesolo-update", "MIT"]
        );
    }
    let bundle = bench.path(&format!("bundle-{}", architecture()));
    let runc = Runc::new();
    let agent = |args: &str| {
        configure(
            &bundle,
            &format!(".process.terminal = false | .process.args = ([\"/usr/bin/kubesolo-update\"] + {args})"),
        );
        runc.finish(&bundle, &container_id("image"))
    };
    agent("[\"--version\"]").expect(0, &[env!("CARGO_PKG_VERSION")]);
    // A container has no device of the machine's: that is no machine without slots.
    let status = agent("[\"status\", \"--json\"]").expect(7, &["no block device was read"]);
    assert_eq!(support::answers::schema_faults(&[&status.stdout]), "");
    assert_eq!(jq(&status.stdout, ".running_slot"), "null");
    agent("[\"check\", \"--server\", \"http://192.0.2.1/os\"]").expect(7, &["kubesolo.slot="]);
}

#[apply(test)]
fn bad_arguments_are_refused_and_nothing_is_written() {
    need_image_tools();
    need_static_agent();
    let bench = Bench::with_agents();
    fs::write(bench.path("empty"), "").unwrap();
    fs::write(bench.path("text"), "no gzip, no program, no certificate").unwrap();
    fs::create_dir_all(bench.path("full/of")).unwrap();
    fs::create_dir_all(bench.path("bad")).unwrap();
    fs::write(bench.path("bad/oci-layout"), "{}").unwrap();
    fs::create_dir_all(bench.path("text-dist")).unwrap();
    fs::write(bench.path("text-dist/kubesolo-update-amd64"), "text").unwrap();
    fs::create_dir_all(bench.path("swapped")).unwrap();
    for (from, to) in [("amd64", "arm64"), ("arm64", "amd64")] {
        fs::copy(
            bench.path(&format!("dist/kubesolo-update-{from}")),
            bench.path(&format!("swapped/kubesolo-update-{to}")),
        )
        .unwrap();
    }
    fs::create_dir_all(bench.path("dynamic")).unwrap();
    fs::copy("/bin/sh", bench.path(&format!("dynamic/kubesolo-update-{}", architecture()))).unwrap();
    let ours = format!("--arch {}", architecture());
    let key = Ca::new(bench.dir.path(), "leak");
    fs::write(
        bench.path("key.pem"),
        [fs::read(&key.certificate).unwrap(), fs::read(bench.path("leak/ca.key")).unwrap()].concat(),
    )
    .unwrap();

    let good = "--arch amd64 --kernel vmlinuz-amd64 --initramfs initramfs-amd64";
    let to = "--layout out --tag v1";
    let common = |rest: &str| -> Vec<(String, &'static str)> {
        [
            ("--layout out", "--tag is missing"),
            ("--tag v1", "neither --layout nor --push"),
            ("--push localhost:5000/os:v1 --tag v1", "--tag is for --layout"),
            ("--layout out --tag -v1", "is not a tag"),
            ("--layout out --tag v1/2", "is not a tag"),
            ("--layout full --tag v1", "neither empty nor"),
            ("--layout text --tag v1", "not a directory"),
            ("--layout bad --tag v1", "imageLayoutVersion"),
            ("--layout a:b --tag v1", "not a path to oras"),
            ("--push localhost:5000/os", "HOST/REPO:TAG"),
            ("--push os:v1", "HOST/REPO:TAG"),
            ("--push localhost/OS:v1", "HOST/REPO:TAG"),
            ("--push https://localhost/os:v1", "HOST/REPO:TAG"),
            ("--push user:secret@localhost/os:v1", "HOST/REPO:TAG"),
            ("--layout out --tag v1 --source ftp://x/y", "--source must be"),
            ("--layout out --tag v1 --frob", "unknown option: --frob"),
            ("--layout out --tag", "--tag needs a value"),
        ]
        .map(|(line, word)| (format!("{rest} {line}"), word))
        .to_vec()
    };
    let mut os = common(&format!("--version 1.2.0 {good}"));
    os.extend([
        (format!("{good} {to}"), "--version is missing"),
        (format!("--version 1.2 {good} {to}"), "semantic version"),
        (format!("--version 1.2.0 {to}"), "--arch is missing"),
        (format!("--version 1.2.0 --channel a/b {good} {to}"), "--channel"),
        (format!("--version 1.2.0 --arch i386 {to}"), "amd64 or arm64"),
        (format!("--version 1.2.0 {good} {good} {to}"), "given twice"),
        (format!("--version 1.2.0 --kernel vmlinuz-amd64 {good} {to}"), "comes after the --arch"),
        (format!("--version 1.2.0 {good} --kernel vmlinuz-amd64 {to}"), "two kernels"),
        (format!("--version 1.2.0 --arch amd64 --kernel vmlinuz-amd64 {to}"), "has no --initramfs"),
        (format!("--version 1.2.0 --arch amd64 --initramfs initramfs-amd64 {to}"), "has no --kernel"),
        (format!("--version 1.2.0 --arch amd64 --kernel nowhere --initramfs initramfs-amd64 {to}"), "not a file"),
        (format!("--version 1.2.0 --arch amd64 --kernel empty --initramfs initramfs-amd64 {to}"), "is empty"),
        (format!("--version 1.2.0 --arch amd64 --kernel vmlinuz-amd64 --initramfs text {to}"), "neither gzip nor cpio"),
    ]);
    let mut agent = common("--agent-dir dist --ca-file ca.pem");
    agent.extend([
        (to.to_string(), "--agent-dir is missing"),
        (format!("--agent-dir nowhere {to}"), "not a directory"),
        (format!("--agent-dir full {to}"), "make build"),
        (format!("--agent-dir text-dist --arch amd64 {to}"), "is not a program"),
        (format!("--agent-dir swapped {to}"), "is not for amd64"),
        (format!("--agent-dir dynamic {ours} {to}"), "dynamically linked"),
        (format!("--agent-dir dist --arch i386 {to}"), "amd64 or arm64"),
        (format!("--agent-dir dist {ours} {ours} {to}"), "given twice"),
        (format!("--agent-dir dist --version one {to}"), "semantic version"),
        (format!("--agent-dir dist --ca-file nowhere {to}"), "--no-ca"),
        (format!("--agent-dir dist --ca-file text {to}"), "no certificate"),
        (format!("--agent-dir dist --ca-file key.pem {to}"), "PRIVATE KEY"),
        (format!("--agent-dir dist --licenses nowhere {to}"), "scripts/licenses.sh"),
        (format!("--agent-dir dist --licenses text {to}"), "was not made by scripts/licenses.sh"),
    ]);
    // Licence texts: the lines of a file, and what is said of it; nothing: it is taken.
    let version = env!("CARGO_PKG_VERSION");
    let (rule, head) = ("-".repeat(72), format!("Licences of what is linked into kubesolo-update {version}\n"));
    let whole = format!("{head}\na 1: MIT [1]\n\n{rule}\n[1] LICENSE\n{rule}\n[1] a note of its own\n\n{rule}\n");
    for (name, text, words) in [
        ("whole", format!("{whole}End of the licences: 1 texts\n"), ""),
        ("cut", whole.clone(), "is cut"),
        ("shorter", format!("{whole}End of the licences: 2 texts\n"), "is cut"),
        ("torn", format!("{whole}End of the licences: 1 te"), "is cut"),
        ("more", format!("{whole}End of the licences: 1 texts\nand more\n"), "is cut"),
        ("older", format!("{whole}End of the licences: 1 texts\n").replace(version, "0.0.9"), "of version 0.0.9"),
        (
            "newer",
            format!("{whole}End of the licences: 1 texts\n").replace(version, "0.1.0-rc.1"),
            "of version 0.1.0-rc.1",
        ),
        ("empty-texts", String::new(), "was not made by scripts/licenses.sh"),
        ("headless", whole.replace(&head, ""), "was not made by scripts/licenses.sh"),
    ] {
        fs::write(bench.path(name), &text).unwrap();
        let line = format!("--agent-dir dist --ca-file ca.pem --licenses {name} --layout out --tag v1 --dry-run");
        let out = script(bench.dir.path(), "build-agent-image.sh").args(line.split(' ')).output().unwrap();
        match words {
            "" => assert!(out.status.success(), "{name}: {out:?}"),
            words => refused(&out, words),
        }
    }
    for (name, table) in [("build-os-image.sh", os), ("build-agent-image.sh", agent)] {
        for (line, word) in table {
            let out = script(bench.dir.path(), name).args(line.split(' ')).output().unwrap();
            println!("{name} {line}");
            refused(&out, word);
        }
        let help = run(script(bench.dir.path(), name).arg("--help"));
        assert!(help.starts_with("Usage: "), "{help}");
    }
    for epoch in ["x", "-1", "1e3", "99999999999999999999"] {
        let mut os = bench.os("1.2.0", ARCHITECTURES);
        refused(
            &os.args(["--layout", "out", "--tag", "v1"]).env("SOURCE_DATE_EPOCH", epoch).output().unwrap(),
            "SOURCE_DATE_EPOCH",
        );
    }
    assert!(!bench.path("out").exists());
}

#[apply(test)]
fn what_cannot_be_reached_is_said() {
    need_image_tools();
    let bench = Bench::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference = format!("{closed}/os:v1");
    let out = bench.os("1.2.0", ARCHITECTURES).args(["--push", &reference, "--plain-http"]).output().unwrap();
    refused(&out, "connection refused");
    refused(&out, &reference);
    need("docker-registry");
    let registry = Registry::start(bench.dir.path(), None);
    let out =
        bench.os("1.2.0", ARCHITECTURES).args(["--push", &format!("{}/os:v1", registry.host())]).output().unwrap();
    refused(&out, "(a registry without TLS? --plain-http)");
}

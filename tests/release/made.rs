//! `scripts/release.sh`, `scripts/reproduce.sh`, `scripts/build-cross.sh`, and `docs/releasing.md`, whose commands are
//! run: a release is made, published, checked with stock openssl and cosign, and built again from its sources.

use crate::support::container::{pull, unpack};
use crate::support::kit::repo;
use crate::support::pull::P256;
use crate::support::registry::{Ca, Registry};
use crate::support::release_files::{Source, VERSION, block, names, need_release_tools, refused, shell, std_lock};
use crate::support::signing::{KeyPair, unbase64};
use crate::support::{command, need, need_file, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

const ARCHES: [&str; 2] = ["amd64", "arm64"];

/// Lines of the documentation, for the version that there is.
fn lines(start: &str) -> String {
    block(start).replace("0.1.0", VERSION)
}

fn file(name: &str) -> String {
    format!("kubesolo-update-{VERSION}{name}")
}

/// A release that was made as the documentation says, once for all tests.
struct Made {
    source: Source,
    release: PathBuf,
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let source = Source::with_crates();
        let began = Instant::now();
        run(&mut shell(&source.path(""), &lines("scripts/keygen.sh ")));
        let mut release = shell(&source.path(""), &lines("git tag "));
        // Somebody has to tag.
        for (at, name, value) in [(0, "name", "t"), (1, "email", "t@example.com")] {
            release
                .env(format!("GIT_CONFIG_KEY_{at}"), format!("user.{name}"))
                .env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        release.env("GIT_CONFIG_COUNT", "2");
        run(&mut release);
        println!("a release: {:.0} s", began.elapsed().as_secs_f64());
        let release = source.path("dist/release");
        Made { source, release }
    })
}

/// The files, and nothing else; what `SHA256SUMS` lists.
fn expected() -> Vec<String> {
    let mut names = vec!["THIRD-PARTY-LICENSES.txt".to_string()];
    names.extend(ARCHES.map(|arch| format!("kubesolo-chunks-{VERSION}-linux-{arch}")));
    names.extend(["-image.tar", "-linux-amd64", "-linux-arm64", "-source.tar.gz", ".cdx.json"].map(file));
    names.push("kubesolo-update.8".into());
    names
}

#[apply(long_test)]
fn whoever_receives_a_release_can_check_it_and_build_it_again() {
    need_release_tools();
    let made = made();
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("received");
    run(command("cp").arg("-a").arg(&made.release).arg(&here));
    fs::copy(made.source.path("../release.pub"), here.join("release.pub")).unwrap();

    let checks = ["head -n 1 SHA256SUMS.sig", "cosign verify-blob ", "sha256sum -c "].map(lines);
    for check in &checks {
        run(&mut shell(&here, check));
    }
    // Each of them refuses what is not the publisher's.
    let sums = fs::read_to_string(here.join("SHA256SUMS")).unwrap();
    fs::write(here.join("SHA256SUMS"), format!("{sums}\n")).unwrap();
    for check in &checks[..2] {
        assert!(!shell(&here, check).output().unwrap().status.success(), "{check} takes changed sums");
    }
    fs::write(here.join("SHA256SUMS"), &sums).unwrap();
    let page = here.join("kubesolo-update.8");
    let before = fs::read(&page).unwrap();
    fs::write(&page, [&before[..], b"x"].concat()).unwrap();
    assert!(!shell(&here, &checks[2]).output().unwrap().status.success());
    fs::write(&page, before).unwrap();

    // The one build from nothing. The compilers are those of this machine, not fetched anew.
    let began = Instant::now();
    let again = lines("tar -xzf ");
    let (unpack, build) = again.split_once("cd ").unwrap();
    run(&mut shell(&here, unpack));
    let tree = here.join(file(""));
    assert!(!tree.join(".git").exists() && !tree.join(".tools").exists());
    std::os::unix::fs::symlink(fs::canonicalize(repo().join(".tools")).unwrap(), tree.join(".tools")).unwrap();
    let said = shell(&here, &format!("cd {build}")).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned() + &format!("{}", said.status);
    for words in ["amd64: the same", "arm64: the same", "give its binaries", "exit status: 0"] {
        assert!(said.contains(words), "no '{words}' in: {said}");
    }
    println!("built again: {:.0} s\n{said}", began.elapsed().as_secs_f64());
}

#[apply(long_test)]
fn the_same_commit_gives_the_same_files() {
    need_release_tools();
    let made = made();
    let dir = tempfile::tempdir().unwrap();
    let ours = made.source.path("../release.key");
    let second = KeyPair::ed25519(dir.path(), "second");
    fs::set_permissions(&second.private, fs::Permissions::from_mode(0o600)).unwrap();
    let output = made.source.dir.path().join("again");
    // Another umask, time zone and language.
    let mut again = shell(dir.path(), "umask 077; exec \"$0\" \"$@\"");
    again.arg(made.source.path("scripts/release.sh")).arg("--output").arg(&output);
    again.arg("--key").arg(&ours).arg("--key").arg(&second.private);
    run(again.env("TZ", "Pacific/Chatham").env("LC_ALL", "C.UTF-8"));

    for name in expected().iter().map(String::as_str).chain(["SHA256SUMS"]) {
        let (first, second) = (fs::read(made.release.join(name)).unwrap(), fs::read(output.join(name)).unwrap());
        assert!(first == second, "{name} differs: {} and {}", made.release.display(), output.display());
        let mode = |dir: &Path| fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode(&made.release), mode(&output), "{name}");
    }
    let mut all = expected();
    all.extend(["", ".2.sigstore.json", ".sig", ".sigstore.json"].map(|end| format!("SHA256SUMS{end}")));
    all.sort();
    assert_eq!(names(&output), all);

    // A line for each key, in order; an Ed25519 signature is the same whoever makes it.
    let sums = fs::read(output.join("SHA256SUMS")).unwrap();
    let signatures = fs::read_to_string(output.join("SHA256SUMS.sig")).unwrap();
    let lines: Vec<&str> = signatures.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(unbase64(lines[1]), second.sign(&sums));
    let mut verify = command("cosign");
    verify.args(["verify-blob", "--insecure-ignore-tlog", "--bundle"]).arg(output.join("SHA256SUMS.2.sigstore.json"));
    run(verify.arg("--key").arg(&second.public).arg(output.join("SHA256SUMS")).env("HOME", dir.path()));
    let listed: Vec<String> =
        String::from_utf8(sums).unwrap().lines().map(|l| l.split("  ").nth(1).unwrap().into()).collect();
    assert_eq!(listed, expected());
}

#[apply(long_test)]
fn the_source_archive_holds_the_commit_and_every_crate_of_both_locks() {
    need_release_tools();
    let made = made();
    let archive = made.release.join(file("-source.tar.gz"));
    let epoch = run(made.source.git().args(["log", "-1", "--format=%ct"]));
    let listing = run(command("tar").args(["--numeric-owner", "--full-time", "-tvzf"]).arg(&archive).env("TZ", "UTC"));
    let time = run(command("date").args(["-u", "-d", &format!("@{}", epoch.trim()), "+%Y-%m-%d %H:%M:%S"]));
    let mut paths = Vec::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.splitn(6, ' ').filter(|word| !word.is_empty()).collect();
        assert_eq!(words[1], "0/0", "{line}");
        assert!(["drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"].contains(&words[0]), "{line}");
        assert!(line.contains(time.trim()), "{line}: not of {time}");
        paths.push(line.rsplit(' ').next().unwrap().trim_end_matches('/'));
    }
    let prefix = file("/");
    assert!(paths.iter().all(|path| format!("{path}/").starts_with(&prefix) && !path.contains("..")));
    // gzip's header has neither a name nor a time.
    assert_eq!(fs::read(&archive).unwrap()[3..8], [0; 5]);

    let dir = tempfile::tempdir().unwrap();
    run(command("tar").args(["-C"]).arg(dir.path()).arg("-xzf").arg(&archive));
    let tree = dir.path().join(file(""));
    assert_eq!(fs::read_to_string(tree.join("SOURCE_DATE_EPOCH")).unwrap(), epoch);
    for name in run(made.source.git().args(["ls-files"])).lines() {
        assert!(
            fs::read(tree.join(name)).ok() == fs::read(made.source.path(name)).ok(),
            "{name} is not as in the commit"
        );
    }
    // Whoever unpacks it builds without this repository's scripts and without network.
    let mut metadata = command("cargo");
    metadata.args(["metadata", "--offline", "--locked", "--format-version", "1"]);
    let said = run(metadata.current_dir(&tree).env("CARGO_HOME", dir.path().join("empty")));
    assert!(said.contains("vendor/argh-"), "the crates of the archive are not used");
    let locks = [tree.join("Cargo.lock"), std_lock()];
    let mut crates: Vec<String> = locks.iter().flat_map(|lock| locked(lock)).map(|(name, _)| name).collect();
    crates.sort();
    crates.dedup();
    let mut vendored = names(&tree.join("vendor"));
    vendored.retain(|name| tree.join("vendor").join(name).join("Cargo.toml").is_file());
    assert!(crates.len() > 60);
    assert_eq!(vendored, crates.iter().map(|name| name.replacen(' ', "-", 1)).collect::<Vec<_>>());
}

/// "NAME VERSION" and checksum of each crate of a Cargo.lock that came from outside.
fn locked(lock: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(lock).unwrap();
    let value = |entry: &str, key: &str| {
        let line = entry.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
        line.map(|value| value.trim_matches('"').to_string())
    };
    let crates = text.split("[[package]]\n").skip(1);
    let crates = crates.filter_map(|e| Some((value(e, "name")?, value(e, "version")?, value(e, "checksum")?)));
    crates.map(|(name, version, checksum)| (format!("{name} {version}"), checksum)).collect()
}

#[apply(long_test)]
fn the_list_of_components_is_cyclonedx_and_cargos_own() {
    need_release_tools();
    let made = made();
    let sbom = made.release.join(file(".cdx.json"));
    let python = repo().join(".tools/cyclonedx/bin/python");
    need_file(&python);
    let count = run(Command::new(&python).arg(repo().join("tests/support/sbom.py")).arg(&sbom));
    assert!(count.trim().parse::<usize>().unwrap() > 30, "{count}");
    let spoilt = tempfile::NamedTempFile::new().unwrap();
    fs::write(spoilt.path(), fs::read_to_string(&sbom).unwrap().replacen("\"SHA-256\"", "\"SHA-257\"", 1)).unwrap();
    let out = Command::new(&python).arg(repo().join("tests/support/sbom.py")).arg(spoilt.path()).output().unwrap();
    assert!(!out.status.success(), "the schema lets everything pass");

    let ask = |filter: &str| {
        let said = run(command("jq").args(["-r", filter]).arg(&sbom));
        said.lines().map(str::to_string).collect::<Vec<_>>()
    };
    // What cargo says is linked, on either architecture; hashes as they are locked.
    let linked = ask(
        ".components[] | select(.scope == \"required\" and (.purl | startswith(\"pkg:cargo/\"))) | .name + \" \" + .version",
    );
    let lock = locked(&made.source.path("Cargo.lock"));
    for target in ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"] {
        let mut tree = command("cargo");
        tree.args(["tree", "--locked", "--target", target, "-e", "normal,no-proc-macro", "--prefix", "none"]);
        let tree = run(tree.current_dir(repo()));
        for line in tree.lines().filter(|line| !line.starts_with("kubesolo-update ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let name = format!("{} {}", words[0], words[1].trim_start_matches('v'));
            assert!(linked.contains(&name), "{name} is linked, and not listed");
        }
    }
    for name in ["proptest", "tempfile", "tiny_http"] {
        assert!(ask(".components[].name").iter().all(|listed| listed != name), "{name} is for tests");
    }
    let std = linked.iter().filter(|name| lock.iter().all(|(locked, _)| locked != *name)).count();
    assert!((3..10).contains(&std), "{std} crates of the standard library");
    for line in ask(".components[] | select(.hashes) | .name + \" \" + .version + \"=\" + .hashes[0].content") {
        let (name, hash) = line.split_once('=').unwrap();
        if let Some((_, checksum)) = lock.iter().find(|(locked, _)| locked == name) {
            assert_eq!(hash, checksum, "{name}");
        }
        assert_eq!(hash.len(), 64, "{name}");
    }
    assert_eq!(ask(".components[] | select(.name == \"musl\" or .name == \"std\") | .name"), ["musl", "std"]);
    let sums = fs::read_to_string(made.release.join("SHA256SUMS")).unwrap();
    for line in ask(".metadata.component.components[] | .hashes[0].content + \"  \" + .name") {
        assert!(sums.contains(&line), "{line}");
    }
}

#[apply(long_test)]
fn the_image_goes_into_a_registry_and_holds_the_binaries() {
    need_release_tools();
    need("docker-registry");
    let made = made();
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let registry = Registry::start(dir.path(), Some(&ca.issue("registry", "IP:127.0.0.1", &P256)));
    let push = lines("oras cp ").replace("registry.example.com", &registry.host());
    let mut push = shell(&made.source.path(""), &push);
    run(push.env("SSL_CERT_FILE", &ca.certificate).env("NO_PROXY", "127.0.0.1").env("HOME", dir.path()));
    for arch in ARCHES {
        let from = format!("docker://{}/os/kubesolo-update:{VERSION}", registry.host());
        let image = pull(&from, arch, &dir.path().join(format!("pulled-{arch}")));
        let bundle = unpack(&image, &dir.path().join(format!("bundle-{arch}")));
        let agent = fs::read(bundle.join("rootfs/usr/bin/kubesolo-update")).unwrap();
        assert!(agent == fs::read(made.release.join(file(&format!("-linux-{arch}")))).unwrap(), "{arch}");
        assert!(agent == fs::read(made.source.path(&format!("dist/kubesolo-update-{arch}"))).unwrap(), "{arch}");
        let texts = bundle.join("rootfs/usr/share/doc/kubesolo-update");
        assert_eq!(names(&texts), ["LICENSE", "THIRD-PARTY-LICENSES.txt"]);
        let name = "THIRD-PARTY-LICENSES.txt";
        assert!(fs::read(texts.join(name)).unwrap() == fs::read(made.release.join(name)).unwrap(), "{arch}");
    }
}

#[apply(long_test)]
fn another_binary_than_the_sources_give_is_found() {
    need_release_tools();
    let made = made();
    let dir = tempfile::tempdir().unwrap();
    let (release, rebuilt) = (dir.path().join("release"), dir.path().join("rebuilt"));
    run(command("cp").arg("-a").arg(&made.release).arg(&release));
    fs::create_dir(&rebuilt).unwrap();
    for arch in ARCHES {
        for name in ["kubesolo-update-", "kubesolo-chunks-"].map(|name| format!("{name}{arch}")) {
            fs::copy(made.source.path(&format!("dist/{name}")), rebuilt.join(&name)).unwrap();
        }
    }
    let reproduce = || {
        let mut script = Command::new(repo().join("scripts/reproduce.sh"));
        script.arg("--release").arg(&release).arg("--rebuilt").arg(&rebuilt).output().unwrap()
    };
    assert!(reproduce().status.success());

    let changed = release.join(file("-linux-arm64"));
    let mut bytes = fs::read(&changed).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&changed, &bytes).unwrap();
    refused(&reproduce(), &["is not what its SHA256SUMS says"]);
    // By somebody who can write the sums as well.
    run(command("sh").args(["-c", "sha256sum kubesolo-* >SHA256SUMS"]).current_dir(&release));
    let said =
        refused(&reproduce(), &["arm64: DIFFERENT: kubesolo-update", "amd64: the same", "do not give its binaries"]);
    assert!(
        said.contains(&format!("1 bytes differ in what both have, the first at offset {at}, in section .")),
        "{said}"
    );

    bytes[at] ^= 1;
    fs::write(&changed, &bytes[..at]).unwrap();
    run(command("sh").args(["-c", "sha256sum kubesolo-* >SHA256SUMS"]).current_dir(&release));
    refused(&reproduce(), &["arm64: DIFFERENT", &format!("release {at} bytes")]);
}

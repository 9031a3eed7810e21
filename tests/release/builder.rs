//! The container that the pipelines build in: really built, by buildah, on a Debian that debootstrap makes; and, with
//! `make test-builder`, the release binary comes out of it with the same bytes as here.

use crate::support::{need_all, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const REPO: &str = env!("CARGO_MANIFEST_DIR");
const BASE: &str = "localhost/debian";
const IMAGE: &str = "localhost/builder";

fn buildah(store: &Path) -> Command {
    let mut buildah = Command::new("buildah");
    buildah.env("STORAGE_DRIVER", "vfs").env("BUILDAH_ISOLATION", "chroot");
    buildah.arg("--root").arg(store.join("images")).arg("--runroot").arg(store.join("run"));
    buildah
}

fn script() -> Command {
    let mut script = Command::new(Path::new(REPO).join("scripts/build-builder.sh"));
    script.env("STORAGE_DRIVER", "vfs").env("BUILDAH_ISOLATION", "chroot");
    script
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[track_caller]
fn fails(out: &Output, word: &str) {
    assert!(!out.status.success() && said(out).contains(word), "wanted '{word}': {}", said(out));
}

/// A store of images with a Debian in it, and what a container needs to reach this machine's mirrors.
struct Bench {
    dir: TempDir,
    volumes: Vec<String>,
    base: String,
    base_packages: BTreeSet<String>,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("debian");
        run(Command::new("debootstrap").args(["--variant=minbase", "bookworm"]).arg(&root));
        let mut query = Command::new("dpkg-query");
        let listed = run(query.arg("--admindir").arg(root.join("var/lib/dpkg")).args(["-W", "-f", "${Package}\\n"]));
        let container = run(buildah(dir.path()).args(["from", "scratch"]));
        run(buildah(dir.path()).args(["add", "-q", container.trim()]).arg(&root).arg("/"));
        run(buildah(dir.path()).args(["commit", "-q", "--rm", container.trim(), BASE]));
        fs::remove_dir_all(&root).unwrap();
        let digest = run(buildah(dir.path()).args(["images", "--format", "{{.Digest}}", BASE]));
        Bench {
            volumes: volumes(dir.path()),
            base: format!("{BASE}@{}", digest.trim()),
            base_packages: listed.lines().map(plain).collect(),
            dir,
        }
    }

    fn script(&self) -> Command {
        let mut script = script();
        script.args(["--base", &self.base, "--tag", IMAGE, "--root"]).arg(self.dir.path());
        for volume in &self.volumes {
            script.args(["--volume", volume]);
        }
        script
    }

    fn lock(&self) -> PathBuf {
        self.dir.path().join("packages.lock")
    }

    fn build(&self, lock: &str) -> Output {
        fs::write(self.lock(), lock).unwrap();
        self.script().arg("--lock").arg(self.lock()).output().unwrap()
    }

    /// Names of a lock's packages that the base lacks.
    fn names(&self, lock: &str) -> BTreeSet<String> {
        let lines = lock.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| plain(line.split('=').next().unwrap())).filter(|n| !self.base_packages.contains(n)).collect()
    }

    /// A command in a new container of the image.
    fn container(&self, options: &[String], command: &str) -> Command {
        // zig opens many files at once; chroot lets no limit grow.
        let files = run(Command::new("sh").args(["-c", "ulimit -Hn"]));
        let limit = format!("nofile={0}:{0}", files.trim());
        let container = run(buildah(self.dir.path()).args(["from", "--pull-never", "--ulimit", &limit, IMAGE]));
        let mut inside = buildah(self.dir.path());
        inside.arg("run").args(options).args([container.trim(), "--", "sh", "-ec", command]);
        inside
    }
}

/// Without numbers: `libstd-rust-web-1.96` is `libstd-rust-web-` next month.
fn plain(package: &str) -> String {
    package.chars().filter(|c| !(c.is_ascii_digit() || *c == '.')).collect()
}

/// This machine's mirrors, and what it must trust to reach them, as `--volume` takes it. Debian's package
/// ca-certificates writes its own bundle inside, so this machine's lies elsewhere.
fn volumes(dir: &Path) -> Vec<String> {
    let (sources, list) = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list");
    let mut files = vec![if Path::new(sources).exists() { sources.to_string() } else { list.to_string() }];
    for entry in fs::read_dir("/etc/apt/apt.conf.d").unwrap().map(|entry| entry.unwrap().path()) {
        if fs::read_to_string(&entry).is_ok_and(|text| text.contains("Acquire")) {
            files.push(entry.display().to_string());
        }
    }
    let mut volumes: Vec<String> = files.iter().map(|file| format!("{file}:{file}:ro")).collect();
    let pip = fs::read_to_string("/etc/pip.conf").unwrap_or_default();
    let kept: Vec<&str> = pip.lines().filter(|line| !line.starts_with("cert") && *line != "[global]").collect();
    fs::write(dir.join("pip.conf"), format!("[global]\ncert = /etc/host-ca.pem\n{}\n", kept.join("\n"))).unwrap();
    volumes.push(format!("{}:/etc/pip.conf:ro", dir.join("pip.conf").display()));
    volumes.push("/etc/ssl/certs/ca-certificates.crt:/etc/host-ca.pem:ro".to_string());
    volumes
}

fn committed_lock() -> String {
    fs::read_to_string(Path::new(REPO).join("scripts/builder-packages.lock")).unwrap()
}

/// The lock names packages of amd64.
fn tools() {
    cfg!(target_arch = "x86_64");
    need_all(&["buildah", "debootstrap", "git", "tar"]);
}

#[apply(long_test)]
fn the_image_is_built_and_builds() {
    tools();
    let bench = Bench::new();
    // Debian replaces versions whenever it likes: what is held here is that the committed list is complete.
    run(bench.script().arg("--lock-only").arg("--lock").arg(bench.lock()));
    let lock = fs::read_to_string(bench.lock()).unwrap();
    assert_eq!(bench.names(&lock), bench.names(&committed_lock()), "run make builder-lock, and commit its result");

    // A version that the mirror has no more, a package that is missing: nothing is installed instead.
    let make = lock.lines().find(|line| line.starts_with("make=")).unwrap();
    fails(&bench.build(&lock.replace(make, "make=0.1-1")), "make builder-lock");
    let without: Vec<&str> = lock.lines().filter(|line| !line.starts_with("libc6-dev=")).collect();
    fails(&bench.build(&without.join("\n")), "what the lock does not name: libc6-dev=");
    fails(&bench.build(&lock.replace(make, "make")), "not NAME=VERSION");
    fails(&bench.build("# nothing\n"), "is empty");

    let out = bench.build(&lock);
    assert!(out.status.success(), "{}", said(&out));
    let show = "cd /opt/builder && scripts/build.sh --check-rust; scripts/install-deps.sh --dry-run build; \
                git --version; node -p '\"node \" + (parseInt(process.versions.node) >= 18)'; ls /var/lib/apt/lists";
    let text = run(&mut bench.container(&[], show));
    assert!(text.contains("standard library: source\ngit version") && text.ends_with("node true\n"), "{text}");
    // Minutes more: make test-builder, which every release goes through.
    if std::env::var_os("BUILDER_FULL").is_some() {
        same_bytes(&bench);
    }
}

/// The committed files, built in the container as the pipeline does it, at the time of the last commit.
fn same_bytes(bench: &Bench) {
    let here = std::env::var("KUBESOLO_UPDATE_BIN").unwrap_or(format!("{REPO}/dist/kubesolo-update-amd64"));
    let source = bench.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let copy = "git ls-files -z | tar -c --null -T - | tar -x -C \"$0\"";
    run(Command::new("sh").args(["-ec", copy]).arg(&source).current_dir(REPO));
    let epoch = run(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(REPO));
    // The crates that this machine's build has fetched. Their checksums are in Cargo.lock.
    let home = std::env::var("HOME").unwrap();
    let registry = std::env::var("CARGO_HOME").unwrap_or(format!("{home}/.cargo")) + "/registry";
    let options = [
        format!("--volume={}:/work:rw", source.display()),
        format!("--volume={registry}:/root/.cargo/registry:rw"),
        "--env=CARGO_NET_OFFLINE=true".to_string(),
        format!("--env=SOURCE_DATE_EPOCH={}", epoch.trim()),
    ];
    run(&mut bench.container(&options, "make build ARCH=amd64"));
    let there = source.join("dist/kubesolo-update-amd64");
    assert!(fs::read(there).unwrap() == fs::read(&here).unwrap(), "the container builds other bytes than {here}");
}

#[apply(long_test)]
fn bad_arguments() {
    tools();
    let digest = format!("debian@sha256:{}", "0".repeat(64));
    let rows: [(&[&str], &str); 15] = [
        (&[], "--base is missing"),
        (&["--base"], "--base needs a value"),
        (&["--base", ""], "--base is missing"),
        (&["--base", "debian:bookworm"], "must name an image by its digest"),
        (&["--base", "debian@sha256:123"], "must name an image by its digest"),
        (&["--base", &format!("{digest}\nx")], "must name an image by its digest"),
        (&["--base", &format!("-x{digest}")], "must name an image by its digest"),
        (&["--base", &digest, "--tag", "-x"], "is not an image name"),
        (&["--base", &digest, "--lock", "/nonexistent"], "is not a file"),
        (&["--base", &digest, "--root", "here"], "absolute path"),
        (&["--base", &digest, "--volume", "/etc:/etc"], "--volume must be"),
        (&["--base", &digest, "--volume", "/etc:/etc:rw"], "--volume must be"),
        (&["--base", &digest, "--volume", "/nonexistent:/etc:ro"], "does not exist"),
        (&["--nonsense"], "unknown option"),
        (&["--base", &digest, "more"], "unknown option"),
    ];
    for (args, word) in rows {
        fails(&script().args(args).output().unwrap(), word);
    }
    let inside =
        |args: &[&str]| Command::new(Path::new(REPO).join("scripts/builder-packages.sh")).args(args).output().unwrap();
    fails(&inside(&[]), "resolve or install");
    fails(&inside(&["install", "more"]), "unknown argument");
}

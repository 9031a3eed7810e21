//! A repository of its own to make releases from: the files as they are here, in one commit, with what was built of
//! them; and what is asked of a release again and again.

use super::disk::need_disks;
use super::kit::repo;
use super::{command, need_all, need_file, run};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The version that `Cargo.toml` has.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Goes on if a release can be made here. Without zig nothing can be built, and no SBOM says which musl is linked.
pub fn need_release_tools() {
    need_all(&["git", "jq", "openssl", "oras", "umoci", "skopeo", "cosign", "readelf", "cargo"]);
    need_disks();
    need_file(&repo().join(".tools/zig/versions"));
}

/// Cargo.lock of the standard library that a release build compiles: that of the Rust which builds.
pub fn std_lock() -> PathBuf {
    let rust = run(command(repo().join("scripts/build.sh").to_str().unwrap()).arg("--check-rust"));
    let rustc = rust.split(' ').next().unwrap();
    let sysroot = run(command(rustc).args(["--print", "sysroot"]));
    PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock")
}

/// A repository with nothing in it that is not committed.
pub struct Source {
    pub dir: TempDir,
}

impl Source {
    /// Copies the files that git knows or would take, and what was built (beside `KUBESOLO_UPDATE_BIN`, or in `dist/`);
    /// commits with the time that the binaries have, so that they are not stale.
    pub fn new() -> Source {
        let dir = tempfile::tempdir().unwrap();
        let source = Source { dir };
        fs::create_dir(source.path("")).unwrap();
        let list = git(repo()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).output().unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        for name in list.split('\0').filter(|name| !name.is_empty() && repo().join(name).is_file()) {
            let to = source.path(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(repo().join(name), to).unwrap();
        }
        symlink(fs::canonicalize(repo().join(".tools")).unwrap(), source.path(".tools")).unwrap();
        source.copy_built();
        run(source.git().args(["init", "-q", "-b", "main"]));
        fs::write(source.path(".git/info/exclude"), ".tools\n").unwrap();
        source.commit();
        source
    }

    /// The same, with `vendor/` filled where it is here; elsewhere a release fills it.
    pub fn with_crates() -> Source {
        let source = Source::new();
        if repo().join("vendor/.complete").is_dir() {
            run(command("cp")
                .args(["-a", "-T", "--reflink=auto"])
                .arg(repo().join("vendor"))
                .arg(source.path("vendor")));
        }
        source
    }

    fn copy_built(&self) {
        let built = super::kit::agent("amd64").parent().unwrap().to_path_buf();
        fs::create_dir(self.path("dist")).unwrap();
        for arch in ["amd64", "arm64"] {
            for name in ["kubesolo-update-", "kubesolo-chunks-", ".built-"].map(|name| format!("{name}{arch}")) {
                // What is missing or of other sources is built: slow, and right.
                let _ = fs::copy(built.join(&name), self.path(&format!("dist/{name}")));
            }
        }
    }

    /// A path in the repository.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("repo").join(name)
    }

    /// Commits all there is.
    pub fn commit(&self) {
        let stamp = fs::read_to_string(self.path("dist/.built-amd64")).unwrap_or_default();
        let here = || run(git(repo()).args(["log", "-1", "--format=%ct"]));
        let time = format!("@{} +0000", stamp.lines().nth(2).map_or_else(here, str::to_string).trim());
        run(self.git().args(["add", "-A"]));
        let mut commit = self.git();
        commit.env("GIT_COMMITTER_DATE", &time).env("GIT_AUTHOR_DATE", &time);
        run(commit.args(["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "all of it"]));
    }

    pub fn git(&self) -> Command {
        git(&self.path(""))
    }

    /// One of its scripts.
    pub fn script(&self, name: &str) -> Command {
        let mut script = Command::new(self.path("scripts").join(name));
        script.current_dir(self.dir.path()).env_remove("SOURCE_DATE_EPOCH");
        script
    }

    /// Makes a release. Returns: its directory.
    pub fn release(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let output = self.dir.path().join(name);
        let said = run(self.script("release.sh").arg("--output").arg(&output).args(arguments));
        assert_eq!(said.trim(), output.to_str().unwrap());
        output
    }

    /// Everything in and beside the repository, with sizes and times; not git's own.
    pub fn listed(&self) -> String {
        let mut find = command("find");
        find.arg(self.dir.path()).args(["-name", ".git", "-prune", "-o", "-path", "*/vendor/*", "-prune"]);
        run(find.args(["-o", "-printf", "%p %s %T@\n"]))
    }
}

fn git(dir: &Path) -> Command {
    let mut git = command("git");
    git.arg("-C").arg(dir).env_remove("GIT_DIR").env("GIT_CONFIG_GLOBAL", "/dev/null");
    git
}

/// Names of the files in a directory, in order.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Holds that a script refused, and said why. Returns: what it said.
#[track_caller]
pub fn refused(out: &Output, words: &[&str]) -> String {
    ended(out, 1, words)
}

/// Holds that a script ended so, and said why. Returns: what it said.
#[track_caller]
pub fn ended(out: &Output, code: i32, words: &[&str]) -> String {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(code), "{words:?}: {said}");
    for word in words {
        assert!(said.contains(word), "no '{word}' in: {said}");
    }
    assert!(out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stdout));
    said
}

/// A block of `docs/releasing.md` that begins so.
pub fn block(start: &str) -> String {
    let document = fs::read_to_string(repo().join("docs/releasing.md")).unwrap();
    let (_, rest) = document.split_once(&format!("```sh\n{start}")).unwrap_or_else(|| panic!("no block '{start}'"));
    format!("{start}{}", rest.split_once("```").expect("the block ends").0)
}

/// A shell that runs lines in a directory, as a person would there.
pub fn shell(dir: &Path, lines: &str) -> Command {
    let mut shell = command("sh");
    shell.args(["-euc", lines]).current_dir(dir).env_remove("SOURCE_DATE_EPOCH");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(repo().join(".tools/bin")).chain(std::env::split_paths(&path));
    shell.env("PATH", std::env::join_paths(dirs).unwrap());
    shell
}

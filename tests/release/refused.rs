//! What `scripts/release.sh`, `scripts/reproduce.sh` and `scripts/build-cross.sh` refuse, and what they leave then.

use crate::support::release::sha256;
use crate::support::release_files::{Source, VERSION, ended, names, need_release_tools, refused};
use crate::support::signing::KeyPair;
use crate::support::{command, run, script_code};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const ARCHES: [&str; 2] = ["amd64", "arm64"];

#[apply(long_test)]
fn a_release_that_is_not_finished_leaves_the_one_before_it() {
    need_release_tools();
    let source = Source::with_crates();
    let old = source.path("dist/release");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("SHA256SUMS"), "the one before").unwrap();
    let untouched = || {
        assert_eq!(names(&old), ["SHA256SUMS"]);
        let left = names(&source.path("dist"));
        assert!(left.iter().all(|name| !name.contains("partial") && !name.contains("old")), "{left:?}");
    };
    // In its midst: neither a kernel nor an initramfs.
    fs::write(source.path("../junk"), "junk").unwrap();
    let mut script = source.script("release.sh");
    script.args(["--kernel", "junk", "--initramfs", "junk", "--arch", "amd64"]);
    refused(&script.output().unwrap(), &["the disk image could not be made"]);
    untouched();

    // A crate that somebody has worked on, and one that nobody locked.
    let file = source.path("vendor/itoa-1.0.19/src/lib.rs");
    let file =
        if file.is_file() { file } else { source.path(&format!("vendor/{}/src/lib.rs", first(&source, "itoa-"))) };
    let before = fs::read(&file).unwrap();
    fs::write(&file, [&before[..], b"\n"].concat()).unwrap();
    refused(&source.script("release.sh").output().unwrap(), &["itoa-", "is not what its crate has"]);
    fs::write(&file, before).unwrap();
    fs::write(file.with_file_name("more.rs"), "").unwrap();
    refused(&source.script("release.sh").output().unwrap(), &["itoa-", "holds files that its crate has not"]);
    fs::remove_file(file.with_file_name("more.rs")).unwrap();
    let strange = source.path("vendor/strange-1.0.0");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("lib.rs"), "").unwrap();
    let list = format!("{{\"files\":{{\"lib.rs\":\"{}\"}},\"package\":\"0\"}}", sha256(b""));
    fs::write(strange.join(".cargo-checksum.json"), list).unwrap();
    refused(&source.script("release.sh").output().unwrap(), &["strange-1.0.0", "does not hold the crates"]);
    fs::remove_dir_all(strange).unwrap();
    untouched();

    // Called off when it is half there.
    let log = fs::File::create(source.path("../log")).unwrap();
    let mut child = source.script("release.sh").stderr(log).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while names(&source.path("dist")).iter().all(|name| !name.contains("partial")) {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "it never began to write");
        thread::yield_now();
    }
    run(command("kill").args(["-TERM", &child.id().to_string()]));
    assert_eq!(child.wait().unwrap().code(), Some(143));
    untouched();
}

/// The first of the crates whose name begins so.
fn first(source: &Source, start: &str) -> String {
    names(&source.path("vendor")).into_iter().find(|name| name.starts_with(start)).expect("there is one")
}

#[apply(long_test)]
fn what_is_not_one_commit_is_no_release() {
    need_release_tools();
    let source = Source::new();
    let release = |arguments: &[&str]| source.script("release.sh").args(arguments).output().unwrap();
    let before = source.listed();
    let dry = release(&["--dry-run"]);
    assert!(dry.status.success(), "{dry:?}");
    assert!(String::from_utf8_lossy(&dry.stderr).contains("nothing was built or written"));
    assert_eq!(source.listed(), before, "--dry-run wrote something");

    refused(&release(&["--tag", "v9.9.9"]), &["--tag v9.9.9, but Cargo.toml has version", VERSION]);
    let tag = format!("v{VERSION}");
    refused(&release(&["--tag", &tag]), &["git knows no tag", &tag]);
    run(source.git().args(["tag", "v9.9.9"]));
    refused(&release(&[]), &["is tagged v9.9.9", VERSION]);
    run(source.git().args(["tag", "-d", "v9.9.9"]));
    run(source.git().args(["tag", &tag]));
    assert!(release(&["--dry-run", "--tag", &tag]).status.success());

    fs::write(source.path("README.md"), "changed").unwrap();
    refused(&release(&["--tag", &tag]), &["README.md", "1 files are not as in the commit"]);
    assert!(release(&["--dry-run", "--allow-dirty"]).status.success());
    run(source.git().args(["checkout", "-q", "README.md"]));
    fs::write(source.path("new-file"), "").unwrap();
    refused(&release(&[]), &["new-file", "1 files are not as in the commit"]);
    source.commit();
    refused(&release(&["--tag", &tag]), &["the tag", &tag, "is checked out"]);

    run(command("rm").arg("-rf").arg(source.path(".git")));
    refused(&release(&[]), &["is not a git repository"]);
}

#[apply(test)]
fn a_locked_key_is_tried_before_anything_is_built() {
    need_release_tools();
    let source = Source::new();
    let locked = source.path("../locked.key");
    fs::write(source.path("../passphrase"), "correct horse\nsecond line\n").unwrap();
    fs::write(source.path("../other"), "battery staple\n").unwrap();
    run(command("openssl")
        .args(["genpkey", "-algorithm", "Ed25519", "-aes-256-cbc", "-pass"])
        .arg(format!("file:{}", source.path("../passphrase").display()))
        .arg("-out")
        .arg(&locked));
    let before = source.listed();
    let release = |more: &[&str]| {
        source.script("release.sh").args(["--dry-run", "--key", "locked.key"]).args(more).output().unwrap()
    };
    refused(&release(&[]), &["locked.key is encrypted"]);
    refused(&release(&["--passphrase-file", "other"]), &["locked.key", "another passphrase"]);
    let out = release(&["--passphrase-file", "passphrase"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && said.contains("with 1 signatures"), "{said}");
    assert_eq!(source.listed(), before);
}

#[apply(long_test)]
fn bad_arguments_are_refused_and_nothing_is_written() {
    need_release_tools();
    let source = Source::new();
    let keys = source.dir.path();
    let good = KeyPair::p256(keys, "good");
    KeyPair::of(keys, "rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    fs::write(keys.join("text"), "no key").unwrap();
    fs::create_dir(keys.join("other")).unwrap();
    fs::write(keys.join("other/file"), "x").unwrap();
    std::os::unix::fs::symlink("other", keys.join("link")).unwrap();
    let (public, twice) = (good.public.to_str().unwrap(), "--key good.key --key good.key");
    let table = [
        ("release.sh", "--frob", "unknown option: --frob"),
        ("release.sh", "v1.0.0", "unknown option: v1.0.0"),
        ("release.sh", "--output", "--output needs a value"),
        ("release.sh", "--tag", "--tag needs a value"),
        ("release.sh", "--key nowhere", "nowhere is not a file"),
        ("release.sh", "--key text", "text is not a private key"),
        ("release.sh", "--key rsa.key", "RSA"),
        ("release.sh", &format!("--key {public}"), "is not a private key"),
        ("release.sh", twice, "given twice"),
        ("release.sh", "--passphrase-file text", "without --key"),
        ("release.sh", "--key good.key --passphrase-file nowhere", "nowhere is not a file"),
        ("release.sh", "--output other", "is not a release"),
        ("release.sh", "--output text", "is not a directory"),
        ("release.sh", "--output link", "is a symbolic link"),
        ("release.sh", "--output text/release", "text is not a directory"),
        ("release.sh", "--kernel text", "belong together"),
        ("release.sh", "--kernel text --initramfs text", "belong together"),
        ("release.sh", "--kernel text --initramfs text --arch riscv64", "amd64 or arm64"),
        ("release.sh", "--kernel nowhere --initramfs text --arch amd64", "nowhere is not a file"),
        ("reproduce.sh", "--frob", "unknown option: --frob"),
        ("reproduce.sh", "--release", "--release needs a value"),
        ("reproduce.sh", "--release nowhere", "nowhere is not a directory"),
        ("reproduce.sh", "--release other", "it is not a release"),
        ("reproduce.sh", "--arch riscv64", "amd64 or arm64"),
        ("reproduce.sh", "--arch amd64 --arch amd64", "twice"),
        ("reproduce.sh", "--keep a --rebuilt other", "cannot be used together"),
        ("reproduce.sh", "--rebuilt nowhere", "nowhere is not a directory"),
        ("build-cross.sh", "--frob", "unknown option: --frob"),
        ("build-cross.sh", "--output", "--output needs a value"),
        ("build-cross.sh", "", "TARGET_ARCH is not set"),
    ];
    let before = source.listed();
    for (name, line, word) in table {
        let mut script = source.script(name);
        script.args(line.split_whitespace()).env_remove("TARGET_ARCH");
        let out = script.output().unwrap();
        ended(&out, script_code(&String::from_utf8_lossy(&out.stderr)), &[word]);
    }
    for arch in ["x86_64", "amd64 arm64", "AMD64", "../amd64"] {
        let out = source.script("build-cross.sh").env("TARGET_ARCH", arch).output().unwrap();
        ended(&out, script_code(&String::from_utf8_lossy(&out.stderr)), &[arch, "amd64 or arm64"]);
    }
    assert_eq!(source.listed(), before);
    for script in ["release.sh", "reproduce.sh", "build-cross.sh"] {
        assert!(run(source.script(script).arg("--help")).starts_with("Usage: "));
    }
    for arch in ARCHES {
        let out = source.script("build-cross.sh").arg("--dry-run").env("TARGET_ARCH", arch).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && said.contains(&format!("scripts/build.sh --arch {arch}")), "{said}");
        // What is built is found to be of these sources; a changed one is not.
        let out = source.script("build-cross.sh").arg("--if-stale").env("TARGET_ARCH", arch).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && said.contains("is of these sources"), "{said}");
    }
    assert_eq!(source.listed(), before);
}

//! `TARGET_ARCH`, by which other build systems say what to build for: every script that builds understands it, `--arch`
//! beats it, and what is no architecture is refused before anything is made.
//!
//! Must never: compile. All runs are dry, or end at something that is missing and whose name tells the architecture.

use crate::support::disk::{architecture, initramfs_of, kernel_noise, need_disks, noise, other_architecture};
use crate::support::{self, find, need, need_file, require};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SCRIPTS: [&str; 7] = [
    "build.sh",
    "build-cross.sh",
    "build-image.sh",
    "inject-agent.sh",
    "build-os-image.sh",
    "build-agent-image.sh",
    "build-builder.sh",
];

fn script(name: &str) -> Command {
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
    // What scripts/install-deps.sh put aside, as make does.
    let path = std::env::var("PATH").unwrap_or_default();
    script.env("PATH", format!("{}/.tools/bin:{path}", env!("CARGO_MANIFEST_DIR"))).env_remove("TARGET_ARCH");
    script
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// A system that nobody starts: kernel, initramfs.
fn system(dir: &Path) -> [PathBuf; 2] {
    let files = ["vmlinuz", "initramfs"].map(|name| dir.join(name));
    fs::write(&files[0], kernel_noise(1, 5000)).unwrap();
    fs::write(&files[1], initramfs_of(dir, &noise(2, 5000))).unwrap();
    files
}

/// Runs a script with nothing, with `TARGET_ARCH`, and with `--arch` besides it that says something else: what it says
/// then names the right one, and not the other.
#[track_caller]
fn follows(make: impl Fn() -> Command, names: impl Fn(&str) -> String) {
    for (target, arch) in [("amd64", "arm64"), ("arm64", "amd64")] {
        let told = said(&make().env("TARGET_ARCH", target).output().unwrap());
        assert!(told.contains(&names(target)) && !told.contains(&names(arch)), "TARGET_ARCH={target}: {told}");
        let told = said(&make().args(["--arch", arch]).env("TARGET_ARCH", target).output().unwrap());
        assert!(told.contains(&names(arch)) && !told.contains(&names(target)), "{target}, --arch {arch}: {told}");
    }
    // Not set, and set to nothing, are the same.
    let [without, empty] = [&mut make(), make().env("TARGET_ARCH", "")].map(|run| said(&run.output().unwrap()));
    assert_eq!(without, empty);
}

#[apply(test)]
fn every_build_script_says_so() {
    for name in SCRIPTS.into_iter().chain(["vm.sh"]) {
        let out = script(name).arg("--help").output().unwrap();
        assert!(out.status.success() && said(&out).contains("TARGET_ARCH"), "{name}: {}", said(&out));
    }
}

#[apply(test)]
fn what_is_no_architecture_is_refused() {
    need_disks();
    need("umoci");
    need("oras");
    need("buildah");
    need("readelf");
    let dir = tempfile::tempdir().unwrap();
    let [kernel, initramfs] = system(dir.path()).map(|path| path.display().to_string());
    let (output, layout) = (dir.path().join("output"), dir.path().join("layout"));
    let (output, layout) = (output.to_str().unwrap(), layout.to_str().unwrap());
    let agents = dir.path().to_str().unwrap();
    let image = ["--kernel", &kernel, "--initramfs", &initramfs, "--version", "1.2.0"];
    let places = ["--layout", layout, "--tag", "t"];
    let runs: [(&str, Vec<&str>); 8] = [
        ("build.sh", vec!["--dry-run", "--output", output]),
        ("build-cross.sh", vec!["--dry-run", "--output", output]),
        ("build-image.sh", [&image[..], &["--no-bootloader", "--output", output]].concat()),
        ("inject-agent.sh", vec!["--initramfs", &initramfs, "--output", output, "--agent", "/bin/sh"]),
        ("build-os-image.sh", [&image[..], &places].concat()),
        ("build-agent-image.sh", [&["--agent-dir", agents][..], &places].concat()),
        ("build-builder.sh", vec!["--base", "none"]),
        ("vm.sh", vec!["/nonexistent"]),
    ];
    for (name, args) in runs {
        let usage = script(name).arg("--frob").output().unwrap().status.code();
        for arch in ["mips", "x86_64", "amd64 arm64", "AMD64", "../arm64", "-"] {
            let out = script(name).args(&args).env("TARGET_ARCH", arch).output().unwrap();
            let told = said(&out);
            assert_eq!(out.status.code(), usage, "{name}, {arch}: {told}");
            for word in ["TARGET_ARCH", arch, "amd64", "arm64"] {
                assert!(told.contains(word), "{name}, {arch}, '{word}': {told}");
            }
            assert!(!Path::new(output).exists() && !Path::new(layout).exists(), "{name} wrote something");
        }
    }
    // Whoever asks which Rust there is builds for nothing.
    let asked = |arch: &str| script("build.sh").arg("--check-rust").env("TARGET_ARCH", arch).output().unwrap();
    assert_eq!(asked("mips"), asked(""));
}

#[apply(test)]
fn binaries_are_built_for_it() {
    let names = |arch: &str| format!("kubesolo-update-{arch},");
    let found = script("build.sh").arg("--check-rust").output().unwrap().status.success();
    require(found, "a Rust that can build for musl");
    need_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/zig/bin/cargo-zigbuild"));
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("output");
    let build = || {
        let mut build = script("build.sh");
        build.arg("--dry-run").arg("--output").arg(&output);
        build
    };
    follows(build, names);
    let both = said(&build().output().unwrap());
    assert!(both.contains(&names("amd64")) && both.contains(&names("arm64")), "{both}");
    assert!(!output.exists());
    let cross = || {
        let mut cross = script("build-cross.sh");
        cross.arg("--dry-run");
        cross
    };
    follows(cross, |arch| format!("scripts/build.sh --arch {arch}"));
}

#[apply(test)]
fn images_are_built_for_it() {
    need_disks();
    let dir = tempfile::tempdir().unwrap();
    let [kernel, initramfs] = system(dir.path());
    let output = dir.path().join("image");
    let build = || {
        let mut build = script("build-image.sh");
        build.arg("--kernel").arg(&kernel).arg("--initramfs").arg(&initramfs).arg("--output").arg(&output);
        build.args(["--version", "1.2.0", "--no-bootloader", "--dry-run"]);
        build
    };
    follows(build, |arch| format!("({arch}, stable)"));
    let told = said(&build().output().unwrap());
    assert!(told.contains("--arch is missing, and TARGET_ARCH is not set"), "{told}");
}

/// A program of this machine is for this machine: it gets past one check, or does not.
#[apply(test)]
fn the_agent_is_put_in_for_it() {
    need("cpio");
    need("readelf");
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("file"), "x").unwrap();
    support::run(Command::new("sh").args(["-c", "echo file | cpio -o -H newc --quiet | gzip >in"]).current_dir(dir));
    let inject = || {
        let mut inject = script("inject-agent.sh");
        inject.arg("--initramfs").arg(dir.join("in")).arg("--output").arg(dir.join("out"));
        inject.args(["--agent", "/bin/sh", "--dry-run"]);
        inject
    };
    let refused = format!("is for {}, not for {}", architecture(), other_architecture());
    let told = |target: &str, args: &[&str]| said(&inject().args(args).env("TARGET_ARCH", target).output().unwrap());
    assert!(told(other_architecture(), &[]).contains(&refused));
    assert!(told(architecture(), &["--arch", other_architecture()]).contains(&refused));
    for (target, args) in
        [(architecture(), [].as_slice()), ("", &[]), (other_architecture(), &["--arch", architecture()])]
    {
        let told = told(target, args);
        assert!(told.contains("is dynamically linked"), "{target}, {args:?}: {told}");
    }
}

#[apply(test)]
fn container_images_are_built_for_it() {
    need("umoci");
    need("oras");
    need("jq");
    need("readelf");
    let dir = tempfile::tempdir().unwrap();
    let [kernel, initramfs] = system(dir.path());
    let to = |name: &str| {
        let mut build = script(name);
        build.arg("--layout").arg(dir.path().join("layout")).args(["--tag", "t", "--dry-run"]);
        build
    };
    for target in ["amd64", "arm64"] {
        let mut os = to("build-os-image.sh");
        os.args(["--version", "1.2.0", "--kernel"]).arg(&kernel).arg("--initramfs").arg(&initramfs);
        let told = said(&os.env("TARGET_ARCH", target).output().unwrap());
        assert!(told.contains(&format!("for {target}: index")), "{told}");
        // The --arch before the files is what they are for.
        let mut os = to("build-os-image.sh");
        os.args(["--version", "1.2.0", "--arch", "arm64", "--kernel"]).arg(&kernel).arg("--initramfs").arg(&initramfs);
        let told = said(&os.env("TARGET_ARCH", target).output().unwrap());
        assert!(told.contains("for arm64: index"), "{told}");
    }
    // There is none of them in that directory: the first that is looked for is missing.
    let agent = || {
        let mut build = to("build-agent-image.sh");
        build.arg("--agent-dir").arg(dir.path());
        build
    };
    follows(agent, |arch| format!("kubesolo-update-{arch} is not a regular file"));
}

#[apply(test)]
fn the_builder_is_for_amd64_alone() {
    let builder =
        |args: &[&str]| said(&script("build-builder.sh").args(args).env("TARGET_ARCH", "arm64").output().unwrap());
    assert!(builder(&[]).contains("for amd64 alone, not arm64"));
    assert!(builder(&["--arch", "amd64"]).contains("--base is missing"));
    let amd64 = said(&script("build-builder.sh").env("TARGET_ARCH", "amd64").output().unwrap());
    assert!(amd64.contains("--base is missing"), "{amd64}");
}

/// With nothing in PATH but what the script itself needs: it looks for the right emulator, and stops.
#[apply(test)]
fn machines_are_started_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let path = dir.join("bin");
    fs::create_dir(&path).unwrap();
    for program in ["sh", "dirname", "mktemp", "mkdir", "cp", "rm"] {
        symlink(find(program).unwrap(), path.join(program)).unwrap();
    }
    fs::write(dir.join("image"), "x").unwrap();
    let start = || {
        let mut vm = script("vm.sh");
        vm.env("PATH", &path).current_dir(dir);
        vm
    };
    let names = |target: &str, args: &[&str]| {
        let out = start().args(args).arg("image").env("TARGET_ARCH", target).output().unwrap();
        assert!(!out.status.success());
        // Of arm64, the firmware may be missing already.
        let told = said(&out).replace("/usr/share/AAVMF/AAVMF_CODE.fd is missing", "qemu-system-aarch64 is missing");
        told.lines().next().unwrap_or_default().to_string()
    };
    for (target, args, program) in [
        ("", [].as_slice(), "x86_64"),
        ("amd64", &[], "x86_64"),
        ("arm64", &[], "aarch64"),
        ("arm64", &["--arch", "amd64"], "x86_64"),
        ("amd64", &["--arch", "arm64"], "aarch64"),
    ] {
        let told = names(target, args);
        assert!(told.contains(&format!("qemu-system-{program} is missing")), "{target}, {args:?}: {told}");
    }
}

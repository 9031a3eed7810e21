//! What was typed wrong ends a script with 2, as it does the agent, and nothing is done; what fails ends it with 1.

use crate::support::command;
use std::fs;
use std::path::Path;
use std::process::Output;

/// Script, arguments (words with a blank between them), exit code, and what is said. A line more is a case more.
#[rustfmt::skip]
const ROWS: &[(&str, &str, i32, &str)] = &[
    ("inject-agent.sh", "", 2, "--initramfs is missing"),
    ("inject-agent.sh", "--initramfs", 2, "--initramfs needs a value"),
    ("inject-agent.sh", "--initramfs i --output o --agent a --arch arm", 2, "--arch must be amd64 or arm64, not 'arm'"),
    ("inject-agent.sh", "--initramfs i --output o --agent a", 1, "i is not a regular file, or empty"),
    ("build-image.sh", "--keys k", 2, "need --agent"),
    ("build-image.sh", "--require-platforms --no-bootloader", 2, "one or the other"),
    ("publish-http.sh", "", 2, "--dir is missing"),
    ("publish-http.sh", "--dir /absent", 1, "/absent is not a directory"),
    ("publish-http.sh", "--dir / --kernel k", 2, "--kernel comes after the --arch it is for"),
    ("publish-http.sh", "--dir / --arch amd64 --arch amd64", 2, "--arch amd64 is given twice"),
    ("publish-http.sh", "--dir / --arch amd64 --kernel k --kernel l", 2, "two kernels for amd64"),
    ("publish-layout.sh", "--layout l", 2, "--tag is missing"),
    ("publish-layout.sh", "--tag t --tag t", 2, "--tag t is given twice"),
    ("push-oci-artifact.sh", "--version 1.0.0", 2, "--repository is missing"),
    ("split-initramfs.sh", "", 2, "no initramfs is named"),
    ("split-initramfs.sh", "i", 2, "--output is missing"),
    ("split-initramfs.sh", "--output o i j", 2, "one initramfs, not two"),
    ("split-initramfs.sh", "--output o /absent", 1, "/absent is neither a file nor a directory"),
    ("sign.sh", "", 2, "nothing to sign is named"),
    ("sign.sh", "--latest l", 2, "--key is missing"),
    ("sign.sh", "--key", 2, "--key needs a value"),
    ("sign.sh", "--latest l --layout m", 2, "one thing to sign only"),
    ("keygen.sh", "", 2, "no name given"),
    ("keygen.sh", "--type rsa x", 2, "--type must be ed25519 or p256, not 'rsa'"),
    ("keygen.sh", "--fingerprint /absent", 1, "/absent is not a file"),
    ("with-keys.sh", "", 2, "no command"),
    ("with-keys.sh", "--key /absent -- true", 1, "/absent is not a file"),
    ("vm.sh", "--arch", 2, "--arch needs a value"),
    ("vm.sh", "a b", 2, "one image, not two"),
    ("vm.sh", "/absent", 1, "/absent is not a regular file"),
    ("vm.sh", "--kvm --arch OTHER /absent", 1, "--kvm runs machines of this architecture only"),
    ("size.sh", "--arch", 2, "--arch needs a value"),
    ("smoke.sh", "", 2, "no binary given"),
    ("build.sh", "--arch", 2, "--arch needs a value"),
    ("install-deps.sh", "", 2, "no group given"),
];

/// Whose own tests say it.
const OTHERS: [&str; 3] = ["release.sh", "usb-provision.sh", "vendor.sh"];

fn run(dir: &Path, script: &Path, arguments: &[&str]) -> Output {
    let mut run = command(script.to_str().unwrap());
    run.env_remove("TARGET_ARCH").env_remove("SIGNING_KEY").env_remove("SIGNING_KEY_2");
    run.args(arguments).current_dir(dir).output().unwrap()
}

#[apply(test)]
fn what_was_typed_wrong_ends_with_2() {
    let (dir, scripts) = (tempfile::tempdir().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts"));
    let held = |name: &str, arguments: &[&str], code: i32, words: &str| {
        let out = run(dir.path(), &scripts.join(name), arguments);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{name} {arguments:?}: {said}");
        assert!(said.contains(words) && out.stdout.is_empty(), "{name} {arguments:?}: no '{words}': {said}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{name} {arguments:?}");
    };
    let mut count = 0;
    for entry in fs::read_dir(&scripts).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".sh") && !OTHERS.contains(&name.as_str()) {
            held(&name, &["--no-such-option"], 2, "--no-such-option");
            let help = run(dir.path(), &scripts.join(&name), &["--help"]);
            assert!(help.status.success() && help.stdout.starts_with(b"Usage: "), "{name} --help");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
    for (name, arguments, code, words) in ROWS {
        let arguments = arguments.replace("OTHER", crate::support::disk::other_architecture());
        held(name, &arguments.split_whitespace().collect::<Vec<_>>(), *code, words);
    }
}

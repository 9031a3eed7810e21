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
    (
        "publish-layout.sh",
        "--layout l --tag t --version 1.0.0 --arch amd64 --kernel /bin/sh --initramfs /etc",
        1,
        "/etc is a directory, not a file: give its layers one by one, each with --initramfs",
    ),
    ("bench-delta.sh", "--chunks /absent", 1, "--chunks /absent: no such file"),
    ("bench-delta.sh", "--chunks /etc", 1, "--chunks /etc: it is not an executable file"),
    ("bench.sh", "--chunks /etc/passwd", 1, "--chunks /etc/passwd: it is not an executable file"),
    ("bench-plot.sh", "--binary /etc/passwd", 1, "--binary /etc/passwd: it is not an executable file"),
    ("bench-delta.sh", "--binary /bin/sh --other /absent", 1, "--other /absent: no such file"),
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

/// Runs shell with the library of the benches.
fn with_benches(words: &str) -> String {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib");
    let words = format!("set -eu\n. \"$1/cli.sh\"\nfor one in run report; do . \"$1/bench-$one.sh\"; done\n{words}");
    let out = command("sh").args(["-c", &words, "scripts/bench-delta.sh"]).arg(lib).output().unwrap();
    String::from_utf8([out.stdout, out.stderr].concat()).unwrap()
}

#[apply(test)]
fn a_bench_without_root_names_the_command_as_it_was_typed() {
    let said = with_benches("id() { echo 1000; }\nnote_typed --runs 1 --other 'a b'\nmay_run");
    assert!(said.ends_with("type: sudo scripts/bench-delta.sh --runs 1 --other 'a b'\n"), "{said}");
}

#[apply(test)]
fn a_bench_that_measures_nothing_misses_nothing() {
    let words = "figure name 2 s 1 1.5\nof_runs";
    assert_eq!(
        with_benches(&format!("QUICK=no RUNS=5\n{words}")),
        "bench: name 2 s 2.000\n    missed: 2.000, and the target is 1.5\nmedians of 5 runs\n"
    );
    assert_eq!(with_benches(&format!("QUICK=yes RUNS=1\n{words}")), "bench: name 2 s 2.000\none run\n");
}

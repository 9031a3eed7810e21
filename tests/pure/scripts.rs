//! The scripts of `scripts/`: one way to speak and to end (`scripts/lib/cli.sh`), whatever ends them; none that is too long to read.

use crate::support::{command, need, need_all, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const CLI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lib/cli.sh");
/// Lines that a person reads in one go.
const MOST: usize = 300;
/// What is longer; why stands in its own head, behind these words.
const LONGER: [&str; 1] = ["lib/cloud-init.py"];
const WHY: &str = "One file, long as it is: ";

/// The files of `scripts/` and `scripts/lib/` that are read as programs, by their names below `scripts/`.
fn programs() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for dir in ["", "lib/"] {
        let place: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(dir);
        for path in fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|e| ["sh", "py", "jq", "awk", "mjs"].iter().any(|kind| e == *kind)) {
                let name = format!("{dir}{}", path.file_name().unwrap().to_str().unwrap());
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 50, "{found:?}");
    found
}

/// The functions that a shell script defines.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    let named = text.lines().filter_map(|line| Some(line.trim_start().split_once("()")?.0));
    named.filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

/// They are carried to the machine that has the keys, and may be called by another name there.
#[apply(test)]
fn what_signs_works_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["keygen.sh", "sign.sh"] {
        let link = dir.path().join(name);
        std::os::unix::fs::symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name), &link).unwrap();
        let out = Command::new("sh").arg(&link).arg("--help").output().unwrap();
        assert!(out.status.success() && out.stdout.starts_with(b"Usage: "), "{name}: {out:?}");
    }
}

#[apply(test)]
fn every_script_speaks_and_ends_by_the_same_words() {
    let programs = programs().into_iter();
    let own: Vec<String> = functions(&fs::read_to_string(CLI).unwrap()).map(str::to_owned).collect();
    for name in ["say", "warn", "die", "misuse", "need_value", "need_tools", "work_folder", "clean_up", "finish"] {
        assert!(own.iter().any(|own| own == name), "{name}: {own:?}");
    }
    for (name, text) in programs {
        let is_script = name.ends_with(".sh") && !name.contains('/');
        if is_script {
            assert!(text.starts_with("#!/bin/sh\n"), "{name}");
            let sources = text.lines().filter(|line| line.starts_with(". \"$") && line.ends_with("/cli.sh\"")).count();
            assert_eq!(sources, 1, "{name} does not source lib/cli.sh");
        }
        if name != "lib/cli.sh" && name.ends_with(".sh") {
            // What a script has to clean up is its own, and images have a hint behind what fails quietly.
            let is_own = |function: &str| {
                function == "clean_up" && is_script || function == "quietly" && name == "lib/oci-image.sh"
            };
            let twice = functions(&text).find(|f| own.iter().any(|own| own == f) && !is_own(f));
            assert!(twice.is_none(), "{name} has its own {twice:?}, which is lib/cli.sh's");
            let ends = text.lines().find(|line| line.trim_start().starts_with("trap ") && line.ends_with(" EXIT"));
            assert!(ends.is_none(), "{name}: {ends:?} takes the place of lib/cli.sh's finish: clean_up is for that");
        }
    }
}

#[apply(test)]
fn none_is_longer_than_a_person_reads() {
    for (name, text) in programs() {
        let lines = text.lines().count();
        let head = text.lines().take(20).collect::<Vec<_>>().join("\n");
        assert_eq!(LONGER.contains(&name.as_str()), lines > MOST, "{name} has {lines} lines: cut it, or say why not");
        assert_eq!(lines > MOST, head.contains(WHY), "{name}: its head says why, and only where it must");
    }
}

/// A script of these words behind the library, as one that is typed; `sh` has any signal at its default.
fn with_library(shell: &[&str], words: &str, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trial.sh");
    fs::write(&file, format!("set -eu\n. '{CLI}'\n{words}\n")).unwrap();
    let mut env: Command = command("env");
    env.arg("--default-signal=HUP,INT,PIPE,TERM").args(shell).arg(&file).args(arguments);
    let out = env.env("TMPDIR", dir.path()).stdin(Stdio::null()).output().unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["trial.sh"], "{shell:?} {words} leaves its folder");
    out
}

/// How a script ends, and with which code. A line more is a case more.
const ENDS: &[(&str, i32, &str)] = &[
    (":", 0, ""),
    ("exit 7", 7, ""),
    ("false", 1, ""),
    ("warn so; die it 'is  so'", 1, "trial: warning: so\ntrial: error: it is  so\n"),
    ("SAY_TO=1; say no more; die so", 1, "trial: error: so\n"),
    ("misuse 'that word'", 2, "trial: error: that word; --help lists the options\n"),
    (
        "need_tools 'a package has it' sh no-such-tool sed",
        1,
        "trial: error: no-such-tool is missing: a package has it\n",
    ),
    ("quietly echo heard", 0, ""),
    ("quietly ls -d /no/such/place 2>/dev/null", 1, ""),
    ("quietly sh -c 'echo why; exit 3'", 1, "why\ntrial: error: failed: sh -c echo why; exit 3\n"),
    ("(cd / && die below)", 1, "trial: error: below\n"),
    ("cd /; rm -r \"$WORK\"", 0, ""),
    ("kill -s HUP $$; exit 9", 129, ""),
    ("kill -s INT $$; exit 9", 130, ""),
    ("kill -s PIPE $$; exit 9", 141, ""),
    ("kill -s TERM $$; exit 9", 143, ""),
];

/// Every end takes the work folder away, behind what the script itself has to clean up, which a second signal does not cut short.
#[apply(test)]
fn whatever_ends_a_script_nothing_is_left() {
    need("busybox");
    let clean_up = "clean_up() { echo cleaning; [ -z \"$WORK\" ] || ls \"$WORK\" >/dev/null 2>&1 || :
        for signal in HUP INT PIPE TERM; do kill -s \"$signal\" $$; done; echo cleaned; }\n";
    for shell in [&["sh"][..], &["busybox", "sh"], &["bash"]] {
        for (words, code, said) in ENDS {
            for (hook, heard) in [("", ""), (clean_up, "cleaning\ncleaned\n")] {
                let out = with_library(shell, &format!("{hook}work_folder\n: >\"$WORK/file\"\n{words}"), &[]);
                assert_eq!(out.status.code(), Some(*code), "{shell:?} {words}: {out:?}");
                let (stdout, stderr) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
                assert!(
                    stdout.ends_with(heard) && stdout.matches("cleaned").count() <= 1,
                    "{shell:?} {words}: {stdout}"
                );
                assert!(said.is_empty() && *code < 128 || stderr == *said, "{shell:?} {words}: {stderr}");
            }
        }
        // A clean-up that fails is no success, and hides no other end.
        for (words, code) in [("", 1), ("exit 7", 7), ("kill -s TERM $$", 143)] {
            let out = with_library(shell, &format!("clean_up() {{ false; }}\nwork_folder\n{words}"), &[]);
            assert_eq!(out.status.code(), Some(code), "{shell:?} {words}: {out:?}");
        }
    }
}

/// A relative TMPDIR is where the script began, wherever it goes.
#[apply(test)]
fn a_script_finds_its_folder_from_elsewhere() {
    let out = with_library(&["sh"], "cd \"$TMPDIR\"; TMPDIR=.; work_folder; cd /; : >\"$WORK/file\"", &[]);
    assert!(out.status.success(), "{out:?}");
}

/// A machine that has the keys needs these two, `lib/` beside them, and no more of the repository.
#[apply(test)]
fn keys_are_made_and_used_without_the_repository() {
    need_all(&["openssl", "jq", "flock"]);
    let dir = tempfile::tempdir().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    run(Command::new("cp").arg("-r").args(["keygen.sh", "sign.sh", "lib"].map(|n| scripts.join(n))).arg(dir.path()));
    let document = "{\"version\":\"1.0.0\",\"release_date\":\"2026-01-31T12:00:00Z\"}";
    fs::write(dir.path().join("latest.json"), document).unwrap();
    for words in [&["./keygen.sh", "k"][..], &["./sign.sh", "--key", "k.key", "--latest", "latest.json"]] {
        run(Command::new(words[0]).args(&words[1..]).current_dir(dir.path()));
    }
    assert_eq!(fs::read_to_string(dir.path().join("latest.json.sig")).unwrap().lines().count(), 1);
}

/// What is typed behind `--name`, the exit code, and what is said: by `need_value` (an empty one is one) and by `need_text`.
#[apply(test)]
fn an_option_has_its_value() {
    for (function, arguments, code) in [
        ("need_value", &["--name", "x"][..], 0),
        ("need_value", &["--name", ""], 0),
        ("need_value", &["--name"], 2),
        ("need_text", &["--name", "x"], 0),
        ("need_text", &["--name", ""], 2),
        ("need_text", &["--name"], 2),
    ] {
        let out = with_library(&["sh"], &format!("{function} \"$@\""), arguments);
        let said = if code == 0 { "" } else { "trial: error: --name needs a value; --help lists the options\n" };
        assert_eq!(
            (out.status.code(), &*String::from_utf8_lossy(&out.stderr)),
            (Some(code), said),
            "{function} {arguments:?}"
        );
    }
    for (text, pattern, is_it) in
        [("v1.2", "v[0-9.]+", true), ("v1.2 ", "v[0-9.]+", false), ("a\nv1", "v1", false), ("-x", "-x", true)]
    {
        let out = with_library(&["sh"], "matches \"$@\"", &[text, pattern]);
        assert_eq!(out.status.success(), is_it, "{text:?} {pattern}");
    }
}

/// Where no folder can be made, the script says which variable names another place; and takes nothing away that is not its own.
#[apply(test)]
fn no_place_to_work_in_is_an_error() {
    let out = with_library(&["sh"], "TMPDIR=/no/such/place; work_folder", &[]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.ends_with(
            "trial: error: cannot write in /no/such/place: set TMPDIR to a directory that can be written to\n"
        ),
        "{said}"
    );
}

//! `tests/long-tests.tsv` and `scripts/test-rest.sh`: which long tests there are, and in which order CI runs them.

use crate::support::{command, need, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

const REPO: &str = env!("CARGO_MANIFEST_DIR");

fn table() -> Vec<(String, String, u64)> {
    let text = fs::read_to_string(Path::new(REPO).join("tests/long-tests.tsv")).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [program, module, seconds] = columns[..] else { panic!("{line}") };
        (program.to_string(), module.to_string(), seconds.parse().unwrap_or_else(|_| panic!("{line}")))
    });
    rows.collect()
}

/// Every module with a long test, by its source: program, module, the tests.
fn modules_with_long_tests() -> BTreeMap<(String, String), Vec<String>> {
    let mut found = BTreeMap::new();
    for program in fs::read_dir(Path::new(REPO).join("tests")).unwrap().map(Result::unwrap) {
        for file in fs::read_dir(program.path()).into_iter().flatten().map(Result::unwrap) {
            let (name, path) = (file.file_name().into_string().unwrap(), file.path());
            let Some(module) = name.strip_suffix(".rs") else { continue };
            let source = fs::read_to_string(path).unwrap();
            let after = source.split("\n#[apply(long_test)]\n").skip(1).map(|rest| rest.split_once("fn ").unwrap().1);
            let tests: Vec<String> = after.map(|rest| rest.split('(').next().unwrap().to_string()).collect();
            if !tests.is_empty() {
                found.insert((program.file_name().into_string().unwrap(), module.to_string()), tests);
            }
        }
    }
    found
}

#[apply(test)]
fn the_table_has_every_module_with_a_long_test_and_no_other() {
    let rows = table();
    let named: BTreeSet<_> = rows.iter().map(|(program, module, _)| (program.clone(), module.clone())).collect();
    assert_eq!(named, modules_with_long_tests().into_keys().collect());
    assert_eq!(named.len(), rows.len(), "a module stands there twice");
    assert!(rows.iter().all(|(_, _, seconds)| (1..3600).contains(seconds)), "{rows:?}");
}

/// What `make test` leaves out is there to be read.
#[apply(test)]
fn the_documentation_lists_every_long_test() {
    let sources = modules_with_long_tests();
    let lines = table().into_iter().map(|(program, module, seconds)| {
        let tests = sources[&(program.clone(), module.clone())].iter().map(|test| format!("`{test}`"));
        format!("| `{program}` | `{module}` | {} | {seconds} |\n", tests.collect::<Vec<_>>().join(", "))
    });
    let wanted = format!("| program | module | long tests | s |\n|---|---|---|---|\n{}\n", lines.collect::<String>());
    let text = fs::read_to_string(Path::new(REPO).join("docs/testing.md")).unwrap();
    assert!(text.contains(&wanted), "docs/testing.md lacks this table:\n\n{wanted}");
}

fn git(dir: &Path, arguments: &[&str]) {
    let who = ["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
    run(command("git").args(who).args(arguments).current_dir(dir));
}

/// A repository with the script, a table and tests of its own, committed a month ago. Returns: the order it says.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (scripts, tests) = (dir.path().join("scripts"), dir.path().join("tests/disk"));
        fs::create_dir_all(scripts.join("lib")).and_then(|()| fs::create_dir_all(&tests)).unwrap();
        for name in ["test-rest.sh", "lib/cli.sh"] {
            fs::copy(Path::new(REPO).join("scripts").join(name), scripts.join(name)).unwrap();
        }
        let rows = "# a comment\ndisk\tquick\t10\ndisk\tslow\t90\ndisk\tmiddle\t40\n";
        fs::write(dir.path().join("tests/long-tests.tsv"), rows).unwrap();
        fs::write(scripts.join("named.sh"), "1").unwrap();
        for (name, text) in [("quick", "1"), ("slow", "1"), ("middle", "runs scripts/named.sh")] {
            fs::write(tests.join(format!("{name}.rs")), text).unwrap();
        }
        let bench = Bench(dir);
        git(bench.0.path(), &["init", "-q"]);
        bench.commit("30 days ago");
        bench
    }

    fn commit(&self, when: &str) {
        git(self.0.path(), &["add", "-A"]);
        let date = run(Command::new("date").args(["-R", "-d", when]));
        let mut commit = command("git");
        commit.args(["-c", "user.name=T", "-c", "user.email=t@example.com", "commit", "-q", "-m", "x"]);
        commit.env("GIT_COMMITTER_DATE", date.trim()).env("GIT_AUTHOR_DATE", date.trim());
        run(commit.current_dir(self.0.path()));
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let mut script = Command::new(self.0.path().join("scripts/test-rest.sh"));
        script.args(arguments).current_dir(self.0.path());
        script
    }

    fn order(&self) -> Vec<String> {
        let said = run(&mut self.script(&["--minutes", "9", "--dry-run"]));
        said.lines().map(|line| line.split(' ').nth(1).unwrap().to_string()).collect()
    }
}

#[apply(test)]
fn what_changed_lately_comes_first_then_what_is_short() {
    need("git");
    let bench = Bench::new();
    assert_eq!(bench.order(), ["disk::quick", "disk::middle", "disk::slow"]);
    fs::write(bench.0.path().join("scripts/named.sh"), "2").unwrap();
    bench.commit("2 days ago");
    assert_eq!(bench.order(), ["disk::middle", "disk::quick", "disk::slow"]);
    fs::write(bench.0.path().join("tests/disk/slow.rs"), "2").unwrap();
    bench.commit("1 day ago");
    assert_eq!(bench.order(), ["disk::middle", "disk::slow", "disk::quick"]);
    // Without git's word, the short ones come first.
    fs::remove_dir_all(bench.0.path().join(".git")).unwrap();
    assert_eq!(bench.order(), ["disk::quick", "disk::middle", "disk::slow"]);
}

#[apply(test)]
fn what_does_not_fit_is_named_in_the_last_line_and_what_fails_is_a_failure() {
    need("git");
    let bench = Bench::new();
    let left =
        "test-rest: left out for time (make test-all runs them): disk::quick(10 s) disk::middle(40 s) disk::slow(90 s)";
    assert_eq!(run(&mut bench.script(&["--minutes", "0"])), format!("{left}\ntest-rest: 0 modules run\n"));
    let plan = run(&mut bench.script(&["--minutes", "1", "--dry-run"]));
    assert!(plan.ends_with("left out for time (make test-all runs them): disk::slow(90 s)\n"), "{plan}");
    // In place of cargo: shows what it was asked for, and fails for one module.
    let bin = bench.0.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("cargo"), "#!/bin/sh\necho \"cargo $*\"\ncase $* in *middle*) exit 101 ;; esac\n").unwrap();
    run(Command::new("chmod").arg("+x").arg(bin.join("cargo")));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let out = bench.script(&["--minutes", "3"]).env("PATH", path).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let ran: Vec<&str> = said.lines().filter(|line| line.starts_with("cargo")).collect();
    let wanted =
        ["quick", "middle", "slow"].map(|name| format!("cargo test --locked --test disk -- --ignored {name}::"));
    assert_eq!(ran, wanted);
    assert!(
        said.ends_with(
            "test-rest: every long test was run\ntest-rest: 3 modules run\ntest-rest: FAILED: disk::middle\n"
        ),
        "{said}"
    );
    assert_eq!(out.status.code(), Some(1));
}

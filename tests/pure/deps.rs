//! `scripts/deps.tsv` and `scripts/install-deps.sh`: the table names what is called, and no more than one version of it;
//! what cannot be had is said with its reason, and is never taken for whole the next time. Installs nothing here.

use crate::support::disk::wait_for;
use crate::support::{PYTHON, need, need_all, require, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const REPO: &str = env!("CARGO_MANIFEST_DIR");
const MISSING: i32 = 3;
/// Whatever is wrong: a person is told within a minute; a busy machine takes longer to make Python's environments.
const LIMIT: Duration = Duration::from_secs(180);

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(REPO).join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

struct Row {
    groups: Vec<String>,
    probe: String,
    how: String,
    package: String,
    version: String,
    cost: String,
}

impl Row {
    /// What is called: the probe's program, or the one that a directory of `.tools` is named after.
    fn program(&self) -> &str {
        let first = self.probe.split(' ').next().unwrap();
        match first.strip_prefix(".tools/") {
            Some(path) => path.split('/').next().unwrap(),
            None => first,
        }
    }
}

fn table() -> Vec<Row> {
    let text = read("scripts/deps.tsv");
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        assert!(columns.len() == 7 && columns.iter().all(|c| !c.trim().is_empty() && c.trim() == *c), "'{line}'");
        let [groups, probe, how, package, version, cost] = [0, 1, 2, 3, 4, 5].map(|n| columns[n].to_string());
        let groups = groups.split(',').map(str::to_string).collect();
        Row { groups, probe, how, package, version, cost }
    })
    .collect()
}

/// Groups that a person may name; and those of the ways to install.
fn groups() -> (BTreeSet<String>, BTreeSet<String>) {
    let text = read("scripts/deps.tsv");
    let named = text.lines().filter_map(|line| line.strip_prefix("#group\t")?.split('\t').next());
    (named.map(str::to_string).collect(), ["pip", "npm", "cargo", "go", "unpack", "rustup"].map(String::from).into())
}

#[apply(test)]
fn every_row_is_whole() {
    let (named, ways) = groups();
    let mut used = BTreeSet::new();
    for row in table() {
        let what = format!("{} {} {}", row.probe, row.how, row.package);
        for group in &row.groups {
            assert!(named.contains(group) || ways.contains(group), "{what}: no group '{group}'");
            used.insert(group.clone());
        }
        let way = row.how.split(':').next().unwrap();
        assert!(way == "apt" || ways.contains(way), "{what}");
        let (packages, versions) = (row.package.split(' ').count(), row.version.split(' ').count());
        if ["pip", "npm", "cargo", "go"].contains(&way) {
            let pinned =
                row.version.split(' ').all(|v| v.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()));
            assert!(pinned && packages == versions, "{what}: no version for each package");
        } else {
            assert_eq!(row.version, "-", "{what}");
        }
        let cost: Option<(u64, u64)> =
            row.cost.split_once('/').and_then(|(mib, seconds)| Some((mib.parse().ok()?, seconds.parse().ok()?)));
        assert_eq!(cost.is_some(), way != "apt", "{what}: cost '{}'", row.cost);
        // Which directory it gets: bring() in install-deps.sh derives it from these forms.
        let forms = [" >= ", " ~ "].iter().any(|form| row.probe.contains(form));
        assert!(forms || row.probe.ends_with(" =") || !row.probe.contains(' '), "{what}: a probe of another kind");
    }
    let all: BTreeSet<String> = named.union(&ways).cloned().collect();
    assert_eq!(used, all, "a group without a row");
}

#[apply(test)]
fn no_two_rows_disagree() {
    let (mut versions, mut apt, mut whole) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for row in table() {
        // The package rustup, which such a row brings where it is the first, pushes out Debian's own Rust.
        assert!(row.how != "rustup" || apt.contains_key(&row.probe), "{}: rustup before apt", row.probe);
        let before = versions.insert((row.how.clone(), row.package.clone()), row.version.clone());
        assert!(before.is_none_or(|before| before == row.version), "{}: two versions", row.package);
        if row.how == "apt" {
            let before = apt.insert(row.probe.clone(), row.package.clone());
            assert!(before.is_none_or(|before| before == row.package), "{}: two packages", row.probe);
        }
        for group in row.groups {
            assert!(whole.insert((group, row.probe.clone(), row.how.clone())), "{}: twice", row.probe);
        }
    }
}

/// The programs of `need_tools "scripts/install-deps.sh GROUP... brings it" A B ...` and of `for tool in A B ...; do`, and the
/// groups that the script says bring them.
fn asked_for(script: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let joined = script.replace("\\\n", " ");
    let words = |text: &str| text.split_whitespace().filter(|w| !w.starts_with('"')).map(str::to_string).collect();
    let mut found = Vec::new();
    for part in joined.split("need_tools \"scripts/install-deps.sh ").skip(1) {
        let (told, list) = part.lines().next().unwrap().split_once("\" ").unwrap();
        found.push((words(list.split(';').next().unwrap()), words(told.split(" bring").next().unwrap())));
    }
    for part in joined.split("for tool in ").skip(1) {
        let (list, rest) = part.split_once("; do").unwrap();
        let body = rest.split("done").next().unwrap();
        let Some((_, told)) = body.split_once("install-deps.sh ") else { continue };
        let told = told.split(" bring").next().unwrap();
        found.push((words(list), words(told)));
    }
    found
}

#[apply(test)]
fn what_a_script_asks_for_is_in_the_group_that_it_names() {
    let (table, mut seen) = (table(), 0);
    for dir in ["scripts", "scripts/lib"] {
        for path in fs::read_dir(Path::new(REPO).join(dir)).unwrap().map(|entry| entry.unwrap().path()) {
            let Some(script) = path.extension().filter(|e| *e == "sh").and_then(|_| fs::read_to_string(&path).ok())
            else {
                continue;
            };
            for (tools, told) in asked_for(&script) {
                for tool in tools {
                    let brings = |row: &&Row| row.program() == tool && row.groups.iter().any(|g| told.contains(g));
                    assert!(table.iter().any(|row| brings(&row)), "{}: {tool} of {told:?}", path.display());
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 50, "{seen}");
    let demo = asked_for(&read("scripts/demo.sh"));
    assert!(demo.len() == 1 && !demo[0].0.contains(&"oras".to_string()), "{demo:?}");
}

/// Programs that tests ask for by `need` and `need_all`, and whether `make test` runs one of those tests.
fn needed() -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![Path::new(REPO).join("tests")];
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("deps.rs") {
                let source = fs::read_to_string(&path).unwrap();
                // What the programs share may serve long tests alone; a file with any test that is not long counts.
                let every_run = source.contains("#[apply(test)]\n");
                for program in programs_named(&source) {
                    *found.entry(program).or_default() |= every_run;
                }
            }
        }
    }
    found
}

fn programs_named(source: &str) -> Vec<String> {
    let mut found: Vec<String> =
        source.split("need(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_string()).collect();
    for rest in source.split("need_all(&").skip(1) {
        // The list itself, or the name of one.
        let list = rest.strip_prefix('[').unwrap_or_else(|| {
            let name = rest.split(')').next().unwrap();
            source.split_once(&format!("let {name} = [")).map_or("", |(_, list)| list)
        });
        let list = list.split(']').next().unwrap();
        found.extend(list.split('"').skip(1).step_by(2).map(str::to_string));
    }
    found
}

#[apply(test)]
fn what_tests_need_is_in_the_table() {
    let wanted = needed();
    let some = ["oras", "setpriv", "zcat", "tinyproxy"].map(str::to_string);
    assert!(wanted.len() > 40 && some.iter().all(|program| wanted.contains_key(program)), "{wanted:?}");
    let table = table();
    for (program, every_run) in wanted {
        let file = format!("/usr/bin/{program}");
        let groups =
            if every_run { &["build", "lint", "test", "vm"][..] } else { &["build", "lint", "test", "vm", "all"] };
        let row = |row: &Row| {
            (row.program() == program || row.program() == file)
                && row.groups.iter().any(|g| groups.contains(&g.as_str()))
        };
        assert!(table.iter().any(row), "{program}: tests need it, and none of {groups:?} brings it");
    }
}

/// Every group that is named anywhere is one, so that no advice leads nowhere.
#[apply(test)]
fn every_group_that_is_named_exists() {
    let listed = run(Command::new("git").args(["ls-files"]).current_dir(REPO));
    let (named, mut seen) = (groups().0, 0);
    for file in listed.lines().filter(|f| !f.starts_with("tests/") && !f.starts_with("vendor/")) {
        let Ok(text) = fs::read_to_string(Path::new(REPO).join(file)) else { continue };
        for rest in text.split("install-deps.sh").skip(1) {
            // A name that ends there is spoken of, not called.
            let words = rest.lines().next().unwrap().trim_start_matches('"');
            let Some(words) = words.strip_prefix(' ') else { continue };
            let words = words.split(' ').skip_while(|w| w.starts_with("--"));
            for word in words.map_while(|w| w.strip_suffix([')', ';', '`', ',']).or(Some(w))).take(1) {
                if word.is_empty() || !word.bytes().all(|b| b.is_ascii_lowercase()) {
                    continue;
                }
                let prose =
                    ["asks", "has", "wants", "reads", "installs", "needs", "lists", "brings", "and"].contains(&word);
                assert!(prose || named.contains(word), "{file}: no group '{word}'");
                seen += usize::from(!prose);
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

/// One truth about versions: what the table asks for is what the builder's image holds.
#[apply(test)]
fn the_builder_has_the_versions_of_the_table() {
    let (wheels, packages) = (read("scripts/builder-pip.lock"), read("scripts/builder-packages.lock"));
    let table: Vec<Row> = table().into_iter().filter(|row| row.groups.contains(&"build".to_string())).collect();
    let zig = table.iter().find(|row| row.how == "pip").unwrap();
    let wanted = zig.package.split(' ').zip(zig.version.split(' ')).map(|(name, version)| format!("{name}=={version}"));
    let wheels: Vec<&str> = wheels.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(wheels.len(), 2);
    for (line, wanted) in wheels.iter().zip(wanted) {
        // Of both architectures that a build may run on.
        let (name, hashes) = line.split_once(" --hash=sha256:").unwrap();
        let hashes: Vec<&str> = hashes.split(" --hash=sha256:").collect();
        let whole = hashes.len() == 2 && hashes.iter().all(|hash| hash.len() == 64);
        assert!(name == wanted && whole, "{line}: scripts/deps.tsv wants {wanted}");
    }
    // And its packages hold what the table wants for a build; the base image has the rest.
    let of_base = |name: &str| ["libc-bin", "coreutils", "gzip", "tar"].contains(&name);
    for row in table.iter().filter(|row| row.how == "apt") {
        for name in row.package.split(' ').map(|alternatives| alternatives.split('|').next().unwrap()) {
            assert!(of_base(name) || packages.contains(&format!("\n{name}=")), "{name}");
        }
    }
    for line in packages.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.split_once('=').is_some_and(|(name, version)| !name.is_empty() && !version.is_empty()), "{line}");
    }
    let dockerfile = read("scripts/Dockerfile.builder");
    assert!(!dockerfile.contains("==") && dockerfile.contains("\nARG BASE\nFROM ${BASE}\n"), "a version of its own");
}

/// A wheel that is not the one whose hash is written down does not get into `.tools`.
#[apply(test)]
fn a_wheel_is_held_to_its_hash() {
    crate::support::need_all(&["python3"]);
    let dir = tempfile::tempdir().unwrap();
    let wheel = dir.path().join("stand_in-1.0-py3-none-any.whl");
    let make = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1], 'w'); i = 'stand_in-1.0.dist-info/'; \
                z.writestr('stand_in.py', ''); z.writestr(i + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'); \
                z.writestr(i + 'METADATA', 'Metadata-Version: 2.1\\nName: stand-in\\nVersion: 1.0\\n'); z.writestr(i + 'RECORD', '')";
    crate::support::run(std::process::Command::new("python3").args(["-c", make]).arg(&wheel));
    let good = crate::support::release::sha256(&fs::read(&wheel).unwrap());
    let other = "0".repeat(64);
    for (lock, fits, words) in [
        (format!("stand-in==1.0 --hash=sha256:{good}\n"), true, ""),
        (format!("stand-in==1.0 --hash=sha256:{other} --hash=sha256:{good}\n"), true, ""),
        (format!("stand-in==1.0 --hash=sha256:{other}\n"), false, "DO NOT MATCH THE HASHES"),
        (format!("stand-in==1.1 --hash=sha256:{good}\n"), false, "is not in scripts/builder-pip.lock"),
        ("stand-in==1.0\n".to_string(), false, "is not in scripts/builder-pip.lock"),
    ] {
        let site = Site::new(&["build|.tools/zig/versions =|pip|stand-in|1.0|1/1|a wheel"]);
        fs::write(site.dir.path().join("scripts/builder-pip.lock"), &lock).unwrap();
        let mut script = std::process::Command::new(site.dir.path().join("scripts/install-deps.sh"));
        script.arg("build").env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", dir.path());
        let out = script.output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() == fits && said.contains(words), "{lock}: {said}");
        assert_eq!(site.dir.path().join(".tools/zig/versions").exists(), fits, "{lock}");
    }
}

/// The installer with a table of its own, in a directory that is its repository.
struct Site {
    dir: TempDir,
}

const GROUPS: &str = "#group\tbuild\tfirst\n#group\ttest\tsecond\n#group\textra\tthird\n";

impl Site {
    fn new(rows: &[&str]) -> Site {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("scripts/lib")).unwrap();
        for name in ["install-deps.sh", "lib/cli.sh", "lib/deps-apt.sh", "lib/deps-ways.sh"] {
            let name = Path::new("scripts").join(name);
            fs::copy(Path::new(REPO).join(&name), dir.path().join(name)).unwrap();
        }
        let rows: String = rows.iter().map(|row| row.replace('|', "\t") + "\n").collect();
        fs::write(dir.path().join("scripts/deps.tsv"), GROUPS.to_string() + &rows).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Site { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Words before the installer say what kind of machine it finds.
    fn command(&self, before: &[&str], args: &[&str]) -> Command {
        let script = self.path("scripts/install-deps.sh").display().to_string();
        let words: Vec<&str> = before.iter().copied().chain([script.as_str()]).chain(args.iter().copied()).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_remove("CI").env_remove("DEBIAN_MIRROR").env("TMPDIR", self.dir.path());
        command
    }

    /// Runs it. Panics: it takes longer than a person waits, or leaves something beside `.tools`.
    #[track_caller]
    fn run(&self, command: &mut Command) -> (i32, String) {
        let began = Instant::now();
        let Output { status, stdout, stderr } = command.output().unwrap();
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        assert!(began.elapsed() < LIMIT, "{:?}: {said}", began.elapsed());
        let left = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|n| n != "scripts" && n != ".tools" && n != "wheels").collect();
        assert!(left.is_empty(), "{left:?}");
        (status.code().unwrap(), said)
    }

    /// Runs it where nothing can be had. Panics: it does not say so, with the reason and the next command.
    #[track_caller]
    fn lacks(&self, command: &mut Command, words: &[&str]) {
        let (code, said) = self.run(command);
        assert_eq!(code, MISSING, "{said}");
        for word in words.iter().chain(&["MISSING: ", "Then again: scripts/install-deps.sh test"]) {
            assert!(said.contains(word), "wanted '{word}': {said}");
        }
    }

    /// A wheel of a program, and the settings with which pip finds it without a network.
    fn wheel(&self, name: &str) {
        fs::create_dir_all(self.path("wheels")).unwrap();
        let make = "import sys, zipfile\n\
            name, path = sys.argv[1:]\n\
            info = name + '-1.0.dist-info/'\n\
            with zipfile.ZipFile(path + '/' + name + '-1.0-py3-none-any.whl', 'w') as z:\n\
            \x20   z.writestr(name + '.py', 'def main(): print(\"works 1.0\")\\n')\n\
            \x20   z.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: ' + name + '\\nVersion: 1.0\\n')\n\
            \x20   z.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
            \x20   z.writestr(info + 'entry_points.txt', '[console_scripts]\\n' + name + ' = ' + name + ':main\\n')\n\
            \x20   z.writestr(info + 'RECORD', '')\n";
        run(Command::new(PYTHON).args(["-c", make, name]).arg(self.path("wheels")));
    }

    fn offline(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["unshare", "-n"], args);
        command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", self.path("wheels"));
        command
    }
}

/// Namespaces and another user need root.
fn able() {
    require(run(Command::new("id").arg("-u")).trim() == "0", "root");
    need_all(&["unshare", "setpriv", "timeout"]);
}

const PIP: &str = "test|.tools/hat/versions =|pip|hat|1.0|1/1|a hat";
const APT: &str = "test|no-such-program|apt|kubesolo-no-such-package|-|-|nothing";

#[apply(test)]
fn what_is_there_is_not_spoken_of() {
    let site = Site::new(&[
        "test|sh|apt|dash|-|-|a shell",
        "test|/etc|apt|base-files|-|-|a file",
        "test|printf x2.10 >= 2.9|apt|x|-|-|x",
    ]);
    assert_eq!(site.run(&mut site.command(&["env"], &["test"])), (0, String::new()));
    assert!(!site.path(".tools").exists());
    let (code, said) = site.run(&mut site.command(&["env"], &["tset"]));
    assert!(code == 2 && said.contains("unknown group or option: tset"), "{said}");
}

#[apply(test)]
fn no_network_and_then_one() {
    able();
    let site = Site::new(&[PIP]);
    site.lacks(
        &mut site.command(&["unshare", "-n"], &["test"]),
        &["MISSING: hat (a hat)", "pip, hat: ", "Is there a network?"],
    );
    assert!(!site.path(".tools/hat/versions").exists());
    // What was left half-made does not count, nor stand in the way.
    fs::create_dir_all(site.path(".tools/hat/bin")).unwrap();
    fs::write(site.path(".tools/hat/bin/hat"), "half").unwrap();
    site.wheel("hat");
    let (code, said) = site.run(&mut site.offline(&["test"]));
    assert!(code == 0 && said.contains("installed hat"), "{said}");
    assert_eq!(run(&mut Command::new(site.path(".tools/bin/hat"))), "works 1.0\n");
    assert_eq!(site.run(&mut site.offline(&["test"])), (0, String::new()), "installed twice");
}

#[apply(test)]
fn optional_is_not_for_ci_nor_for_builds() {
    able();
    let site = Site::new(&[PIP, "build|.tools/cap/versions =|pip|cap|1.0|1/1|a cap"]);
    let (code, said) = site.run(&mut site.offline(&["--optional", "test"]));
    assert!(code == 0 && said.contains("MISSING: hat") && said.contains("SKIP"), "{said}");
    let (code, said) = site.run(site.offline(&["--optional", "test"]).env("CI", "true"));
    assert!(code == MISSING && said.contains("CI must have everything but group extra"), "{said}");
    let (code, said) = site.run(&mut site.offline(&["--optional", "build"]));
    assert!(code == MISSING && said.contains("MISSING: cap"), "{said}");
}

/// Other versions of a tool, which nothing else needs: in ten years no mirror has them, and CI has to go on.
#[apply(test)]
fn what_only_extra_tests_need_stops_no_one_and_is_written_down() {
    able();
    let site = Site::new(&["extra|.tools/hat/versions =|pip|hat|1.0|1/1|a hat"]);
    let (code, said) = site.run(site.offline(&["--optional", "extra"]).env("CI", "true"));
    assert!(code == 0 && said.contains("MISSING: hat") && said.contains("SKIP"), "{said}");
    assert_eq!(fs::read_to_string(site.path(".tools/missing")).unwrap(), "hat\n");
    let (code, _) = site.run(site.offline(&["extra"]).env("CI", "true"));
    assert_eq!(code, MISSING, "asked for by name");
    // Once it is there, nothing is skipped for its sake.
    site.wheel("hat");
    assert_eq!(site.run(site.offline(&["--optional", "extra"]).env("CI", "true")).0, 0);
    assert!(!site.path(".tools/missing").exists());
}

#[apply(test)]
fn the_second_way_is_taken_where_the_first_fails() {
    able();
    let rows = ["test|hat >= 1.0|unpack:sid|hat|-|1/1|a hat", "test|hat >= 1.0|pip|hat|1.0|1/1|a hat"];
    let site = Site::new(&rows);
    site.wheel("hat");
    let (code, said) = site.run(site.offline(&["test"]).env("DEBIAN_MIRROR", "http://127.0.0.1:1/debian"));
    assert!(code == 0 && said.contains("sid: E: ") && said.contains("installed hat"), "{said}");
    // Both fail: both reasons.
    fs::remove_dir_all(site.path("wheels")).unwrap();
    fs::remove_dir_all(site.path(".tools")).unwrap();
    let reasons = ["unpack:sid, hat: sid: E: ", "pip, hat: ERROR"];
    site.lacks(site.offline(&["test"]).env("DEBIAN_MIRROR", "http://127.0.0.1:1/debian"), &reasons);
}

#[apply(test)]
fn a_program_that_came_and_does_not_fit_is_missing() {
    able();
    let site = Site::new(&["test|hat >= 1.1|pip|hat|1.0|1/1|a hat"]);
    site.wheel("hat");
    site.lacks(&mut site.offline(&["test"]), &["it was installed, and does not fit: hat >= 1.1"]);
}

#[apply(test)]
fn not_root_and_not_quite_root() {
    able();
    let site = Site::new(&[APT]);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "TMPDIR=/tmp"];
    let (code, said) = site.run(&mut site.command(&nobody, &["--dry-run", "test"]));
    assert!(code == 0 && said.contains("missing: 1 with apt"), "{said}");
    let container: Vec<&str> = nobody.iter().copied().chain(["unshare", "-r"]).collect();
    let possible = Command::new(container[0]).args(&container[1..]).arg("true").output().unwrap().status.success();
    require(possible, "a user namespace without root (none in a chroot)");
    site.lacks(&mut site.command(&container, &["test"]), &["E: ", "as root of the machine itself"]);
}

#[apply(test)]
fn without_apt_a_container_is_named() {
    let site = Site::new(&[APT]);
    let tools = site.path(".tools");
    fs::create_dir(&tools).unwrap();
    // All that the installer calls, and no apt-get.
    let path: Vec<String> =
        ["sh", "awk", "sed", "grep", "cut", "tr", "sort", "cat", "mktemp", "rm", "mkdir", "dirname", "id", "env"]
            .map(|name| format!("ln -s \"$(command -v {name})\" {}/{name}", tools.display()))
            .into();
    run(Command::new("sh").args(["-c", &path.join(" && ")]));
    // The script adds directories of its own to PATH: a root without them has none of the machine's.
    let script = site.path("scripts/install-deps.sh");
    let text = fs::read_to_string(&script).unwrap().replace(":/usr/local/sbin:/usr/sbin:/sbin", "");
    fs::write(&script, text).unwrap();
    let mut command = site.command(&["sh"], &["test"]);
    command.env("PATH", &tools);
    let (code, said) = site.run(&mut command);
    assert_eq!(code, 1, "{said}");
    for word in ["no apt-get here", "docs/platforms.md", "scripts/deps.tsv lists for test"] {
        assert!(said.contains(word), "wanted '{word}': {said}");
    }
}

#[apply(test)]
fn a_full_disk() {
    able();
    let site = Site::new(&["test|.tools/hat/versions =|pip|hat|1.0|300/1|a hat"]);
    site.wheel("hat");
    fs::create_dir(site.path(".tools")).unwrap();
    let mount = format!("mount -t tmpfs -o size=200m tmpfs {} && exec \"$@\"", site.path(".tools").display());
    let full = ["unshare", "-m", "-n", "sh", "-c", &mount, "-"];
    let mut command = site.command(&full, &["test"]);
    command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", site.path("wheels"));
    site.lacks(&mut command, &["300 MiB are needed", "200 are free", "Next: make room"]);
}

/// A server, a mirror or a proxy that takes connections and says nothing.
#[apply(test)]
fn nobody_answers() {
    able();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let site = Site::new(&["test|hat|unpack:sid|hat|-|1/1|a hat", "test|cap|unpack:sid|cap|-|1/1|a cap", PIP]);
    let mut command = site.command(&["env"], &["test"]);
    command.env("DEBIAN_MIRROR", &address).env("PIP_INDEX_URL", &address).env_remove("PIP_FIND_LINKS");
    site.lacks(&mut command, &["unpack:sid, hat: sid: E: ", "not tried: no connection before", "If it needs a proxy"]);
}

/// `make` in two windows: the second waits, and finds what the first has brought.
#[apply(test)]
fn two_at_once_install_once() {
    able();
    need("flock");
    let site = Site::new(&[PIP]);
    site.wheel("hat");
    fs::create_dir(site.path(".tools")).unwrap();
    // A third one, which ends when its input does: so that both surely meet one that is at work.
    let mut hold = Command::new("flock");
    hold.arg(site.path(".tools/lock")).args(["sh", "-c", "echo held; read -r end"]).stdin(Stdio::piped());
    let mut holder = hold.stdout(Stdio::piped()).spawn().unwrap();
    let mut held = [0; 5];
    holder.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
    let logs = ["one.log", "two.log"].map(|name| site.path("wheels").join(name));
    let start = |log: &PathBuf| site.offline(&["test"]).stderr(fs::File::create(log).unwrap()).spawn().unwrap();
    let runs = [start(&logs[0]), start(&logs[1])];
    let said = || logs.iter().map(|log| fs::read_to_string(log).unwrap()).collect::<String>();
    let is_waiting = wait_for(LIMIT, || said().matches("another run is at work here: waiting").count() == 2);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let ended = runs.map(|mut run| run.wait().unwrap());
    assert!(is_waiting && ended.iter().all(|status| status.success()), "{}", said());
    assert_eq!(said().matches("installed hat").count(), 1, "{}", said());
}

/// On a full disk, or where somebody only wanted to know: how much room is needed is asked without installing anything.
#[apply(test)]
fn counting_the_room_installs_nothing() {
    able();
    let site = Site::new(&["test|kubesolo-hat|apt|hat|-|-|a hat"]);
    let bin = site.path(".tools/bin");
    fs::create_dir_all(&bin).unwrap();
    let stub = |name: &str, text: &str| {
        fs::write(bin.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    // More than there is, so that it ends with the count.
    stub("apt-get", "echo \"$*\" >>\"${0%/*}/calls\"; echo 'Need to get 99999999 MB of archives.'");
    stub("apt-cache", "echo '  Candidate: 1.0'");
    site.lacks(&mut site.command(&["env"], &["test"]), &["MiB are needed in /usr", "Next: make room"]);
    let calls = fs::read_to_string(bin.join("calls")).unwrap();
    let installs: Vec<&str> = calls.lines().filter(|line| line.contains(" install ")).collect();
    assert!(installs.len() == 1 && installs[0].contains("--print-uris"), "{calls}");
}

/// Whoever only asks changes nothing: not even what an earlier run could not have.
#[apply(test)]
fn a_dry_run_forgets_nothing() {
    let site = Site::new(&["extra|sh|apt|dash|-|-|a shell"]);
    fs::create_dir(site.path(".tools")).unwrap();
    fs::write(site.path(".tools/missing"), "hat\n").unwrap();
    assert_eq!(site.run(&mut site.command(&["env"], &["--dry-run", "extra"])), (0, String::new()));
    assert_eq!(fs::read_to_string(site.path(".tools/missing")).unwrap(), "hat\n");
    assert_eq!(site.run(&mut site.command(&["env"], &["extra"])), (0, String::new()));
    assert!(!site.path(".tools/missing").exists());
}

/// The row's version, and the hash of what it stands for: the installer builds a directory of this repository anew when the
/// version changes, and only then.
const APISERVER: (&str, &str) = ("v1.37.2-1", "0f41c48e00a0551b61c328eb30b86fed3b51cda8eeed34c3126007ab1171b2e5");

#[apply(test)]
fn the_api_server_is_built_anew_when_its_source_changes() {
    let mut names: Vec<_> =
        fs::read_dir(Path::new(REPO).join("tests/apiserver")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let source: Vec<u8> = names.iter().flat_map(|path| fs::read(path).unwrap()).collect();
    let table = read("scripts/deps.tsv");
    let row = table.lines().find(|line| line.contains("./tests/apiserver")).unwrap();
    let found = (row.split('\t').nth(4).unwrap(), crate::support::release::sha256(&source));
    assert_eq!((found.0, found.1.as_str()), APISERVER, "raise the row's version, and both here");
}

//! The wings of the house: which file of `src/` lies where, who may import whom, and that nothing imports itself by way of
//! others. ARCHITECTURE.md's code map is the same table, for people.
//!
//! What is read are `use` lines and paths that begin with `crate`, `super` or a module's own child; tests that lie in `src/`
//! may import what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A wing, and which others it may import.
const WINGS: [(&str, &[&str]); 19] = [
    ("base", &[]),
    ("os", &["base"]),
    ("chunks", &["base"]),
    ("oci", &["base"]),
    ("offer", &["base", "oci"]),
    ("trust", &["base", "os", "oci"]),
    ("slot", &["base", "os"]),
    ("http", &["base", "os"]),
    ("boot", &["base", "os", "slot"]),
    ("disk", &["base", "os", "slot", "boot"]),
    ("ledger", &["base", "os", "slot", "offer"]),
    ("source", &["base", "os", "oci", "offer", "trust", "http"]),
    ("health", &["base", "os", "http"]),
    ("cli", &["base", "os"]),
    ("config", &["base", "os", "oci", "offer", "trust", "http", "source", "health", "cli"]),
    ("machine", &["base", "os", "slot", "boot", "disk", "ledger"]),
    (
        "update",
        &[
            "base", "os", "chunks", "oci", "offer", "trust", "slot", "http", "boot", "disk", "ledger", "source",
            "health", "config", "machine",
        ],
    ),
    ("observe", &["base", "os", "slot", "ledger", "machine", "update"]),
    (
        "cmd",
        &[
            "base", "os", "oci", "offer", "trust", "slot", "http", "boot", "disk", "ledger", "source", "health", "cli",
            "config", "machine", "update", "observe",
        ],
    ),
];

/// A file of `src/`, by its path below it.
type File = String;

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns the path of a file's module, without the crate's name.
fn module(file: &str) -> Vec<String> {
    let mut parts: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// Returns every file that is no test, with its text: without comments, and without the tests at its end.
fn files() -> BTreeMap<File, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![src()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(src()).unwrap().to_str().unwrap().to_owned();
        if !name.ends_with("_tests.rs") && !name.ends_with("/tests.rs") {
            found.insert(name, code(&fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

fn code(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    // In braces they are the end; a file of their own may be named anywhere.
    let is_tests = |at: &usize| {
        let mut rest = lines[*at + 1..].iter().skip_while(|line| line.starts_with("#["));
        lines[*at] == "#[cfg(test)]" && rest.next().is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    };
    let end = (0..lines.len()).find(is_tests).unwrap_or(lines.len());
    lines[..end].iter().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Returns the paths that a tree of `use` names.
fn expand(tree: &str) -> Vec<String> {
    let Some((start, rest)) = tree.split_once('{') else { return vec![tree.split(" as ").next().unwrap().to_owned()] };
    let inner = rest.strip_suffix('}').unwrap();
    let (mut depth, mut begin, mut paths) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let branch = inner[begin..at].trim();
                let branches = if branch.is_empty() { Vec::new() } else { expand(branch) };
                paths.extend(branches.into_iter().map(|branch| format!("{start}{branch}")));
                begin = at + 1;
            }
            _ => {}
        }
    }
    paths
}

/// Returns every path that a text names.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    // A statement begins a line, as rustfmt has it.
    while let Some(at) = rest.find("use ") {
        let begins = rest[..at].rsplit('\n').next().unwrap().trim();
        let is_statement =
            begins.is_empty() || begins == "pub" || (begins.starts_with("pub(") && begins.ends_with(')'));
        let end = if is_statement { rest[at..].find(';').unwrap() + at } else { at + 4 };
        plain.push_str(&rest[..at]);
        if is_statement {
            found.extend(expand(&rest[at + 4..end].split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        rest = &rest[end..];
    }
    plain.push_str(rest);
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    found.extend(plain.split(|c| !is_part(c)).filter(|word| word.contains("::")).map(str::to_owned));
    found
}

/// Returns which file imports which.
fn arrows(files: &BTreeMap<File, String>) -> BTreeMap<File, BTreeSet<File>> {
    let by_module: BTreeMap<Vec<String>, &File> = files.keys().map(|file| (module(file), file)).collect();
    let mut arrows: BTreeMap<File, BTreeSet<File>> = BTreeMap::new();
    for (file, text) in files.iter().filter(|(file, _)| file.contains('/')) {
        let own = module(file);
        for path in paths(text) {
            let words: Vec<String> = path.split("::").map(str::to_owned).collect();
            let ups = words.iter().take_while(|word| *word == "super").count();
            let child = [own.clone(), words[..1].to_vec()].concat();
            let whole = match words[0].as_str() {
                "crate" => words[1..].to_vec(),
                "super" => [own[..own.len() - ups].to_vec(), words[ups..].to_vec()].concat(),
                _ if by_module.contains_key(&child) => [own.clone(), words].concat(),
                _ => continue,
            };
            let target = (1..=whole.len()).rev().find_map(|length| by_module.get(&whole[..length]));
            if let Some(target) = target.filter(|target| **target != file) {
                arrows.entry(file.clone()).or_default().insert((*target).clone());
            }
        }
    }
    arrows
}

fn wing(file: &str) -> &str {
    file.split('/').next().unwrap()
}

/// Says what is against the table.
fn against(arrows: &BTreeMap<File, BTreeSet<File>>) -> Vec<String> {
    let may = |from: &str, to: &str| from == to || WINGS.iter().any(|(name, may)| *name == from && may.contains(&to));
    let all = arrows.iter().flat_map(|(from, targets)| targets.iter().map(move |to| (from, to)));
    let bad = all.filter(|(from, to)| !may(wing(from), wing(to)));
    bad.map(|(from, to)| format!("src/{from} imports src/{to}")).collect()
}

/// Returns a circle of imports, if there is one.
fn circle(arrows: &BTreeMap<File, BTreeSet<File>>) -> Option<Vec<File>> {
    fn follow<'a>(
        file: &'a File,
        arrows: &'a BTreeMap<File, BTreeSet<File>>,
        way: &mut Vec<&'a File>,
        done: &mut BTreeSet<&'a File>,
    ) -> Option<Vec<File>> {
        if let Some(begin) = way.iter().position(|earlier| *earlier == file) {
            return Some(way[begin..].iter().map(|file| (*file).clone()).collect());
        }
        if !done.insert(file) {
            return None;
        }
        way.push(file);
        let found = arrows.get(file).into_iter().flatten().find_map(|next| follow(next, arrows, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|file| follow(file, arrows, &mut Vec::new(), &mut done))
}

#[apply(test)]
fn no_wing_imports_what_it_must_not() {
    let bad = against(&arrows(&files()));
    assert!(bad.is_empty(), "against the table of wings: {bad:#?}");
}

/// What two commands need is not a command's: it is the story's (`update`), or in these.
const OF_ALL_COMMANDS: [&str; 3] = ["mod", "answer", "words"];

/// Says which command imports another.
fn between_commands(arrows: &BTreeMap<File, BTreeSet<File>>) -> Vec<String> {
    let command = |file: &str| file.strip_prefix("cmd/").map(|rest| rest.split(['/', '.']).next().unwrap().to_owned());
    let all = arrows.iter().flat_map(|(from, targets)| targets.iter().map(move |to| (from, to)));
    let bad = all.filter(|(from, to)| match (command(from), command(to)) {
        (Some(from), Some(to)) => from != to && !OF_ALL_COMMANDS.contains(&to.as_str()) && from != "mod",
        _ => false,
    });
    bad.map(|(from, to)| format!("src/{from} imports src/{to}")).collect()
}

#[apply(test)]
fn no_command_imports_another() {
    let bad = between_commands(&arrows(&files()));
    assert!(bad.is_empty(), "{bad:#?}");
}

#[apply(test)]
fn nothing_imports_itself_by_way_of_others() {
    assert_eq!(circle(&arrows(&files())), None, "these import each other in a circle");
}

/// What stands in the code map of ARCHITECTURE.md: wing, the files that it names, what it may import.
fn code_map() -> Vec<(String, BTreeSet<String>, BTreeSet<String>)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let section = text.split_once("\n## Code map\n").unwrap().1.split("\n## ").next().unwrap();
    let spans = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        (cells[0].trim_matches(['`', '/']).to_owned(), spans(cells[1]), spans(cells[2]))
    })
    .collect()
}

#[apply(test)]
fn the_code_map_is_the_house() {
    let map = code_map();
    let named: Vec<&str> = map.iter().map(|(wing, ..)| wing.as_str()).collect();
    assert_eq!(named, WINGS.map(|(wing, _)| wing), "the wings of the code map, in the order of the table");
    let files = files();
    for ((wing, told, may), (_, table)) in map.iter().zip(WINGS) {
        assert_eq!(
            may.iter().map(String::as_str).collect::<BTreeSet<_>>(),
            table.iter().copied().collect(),
            "{wing}/ may import"
        );
        let of_wing = files.keys().filter_map(|file| file.strip_prefix(&format!("{wing}/")));
        let there: BTreeSet<String> = of_wing
            .filter(|file| *file != "mod.rs")
            .map(|file| file.split(['/', '.']).next().unwrap().to_owned())
            .collect();
        assert_eq!(*told, there, "what src/{wing}/ holds, and what the code map says of it");
    }
    let loose: Vec<&File> = files.keys().filter(|file| !named.contains(&wing(file))).collect();
    assert_eq!(loose, ["bin/kubesolo-chunks.rs", "lib.rs", "main.rs", "parts.rs"], "these lie in no wing");
}

/// Most lines of a file: what is longer has two subjects.
const MOST_LINES: usize = 400;

#[apply(test)]
fn no_file_is_long() {
    let all = files();
    let lines = |file: &File| fs::read_to_string(src().join(file)).unwrap().lines().count();
    let long: Vec<String> = all.keys().filter(|file| lines(file) > MOST_LINES).cloned().collect();
    assert!(all.len() > 200 && long.is_empty(), "more than {MOST_LINES} lines: {long:?}");
}

#[apply(test)]
fn each_wing_says_what_it_may_import() {
    for (wing, may) in WINGS {
        let text = fs::read_to_string(src().join(wing).join("mod.rs")).unwrap();
        let head: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let head = head.join(" ");
        let said =
            head.split_once("May import: ").unwrap_or_else(|| panic!("src/{wing}/mod.rs says nothing of imports")).1;
        let said = said.split_once('.').unwrap().0;
        let table = if may.is_empty() { "nothing".to_owned() } else { may.join(", ") };
        assert_eq!(said, table, "src/{wing}/mod.rs");
        assert!(head.contains("Must never import: "), "src/{wing}/mod.rs");
    }
}

#[apply(test)]
fn the_reader_of_imports_sees_them() {
    let house = |files: &[(&str, &str)]| -> BTreeMap<File, String> {
        files.iter().map(|(file, text)| ((*file).to_owned(), code(text))).collect()
    };
    let base = ("base/text.rs", "");
    for (text, is_bad) in [
        ("use crate::http::{\n    auth::Auth,\n    proxy,\n};", true),
        ("pub(crate) use crate::http::auth::Auth;", true),
        ("fn f() { crate::http::auth::g() }", true),
        ("fn f() { super::super::http::auth::g() }", true),
        ("use crate::base::text;", false),
        ("// use crate::http::auth;", false),
        ("#[cfg(test)]\nmod tests {\n    use crate::http::auth;\n}", false),
        ("#[cfg(test)]\nuse crate::http::auth;", true),
    ] {
        let found = against(&arrows(&house(&[("oci/a.rs", text), ("http/auth.rs", ""), ("http/proxy.rs", ""), base])));
        assert_eq!(!found.is_empty(), is_bad, "{text}: {found:?}");
    }
    let commands = house(&[
        ("cmd/apply.rs", "use super::check::look;\nuse super::words::say;"),
        ("cmd/check.rs", "use crate::cmd::Outcome;"),
        ("cmd/words.rs", ""),
        ("cmd/mod.rs", ""),
    ]);
    assert_eq!(between_commands(&arrows(&commands)), ["src/cmd/apply.rs imports src/cmd/check.rs"]);
    let ring = house(&[
        ("http/mod.rs", "mod a;\nfn f() { a::g() }"),
        ("http/a.rs", "use super::b::X;"),
        ("http/b.rs", "fn g() { super::f() }"),
    ]);
    assert_eq!(circle(&arrows(&ring)).unwrap().len(), 3);
    let line =
        house(&[("http/mod.rs", "mod a;\nfn f() { a::g() }"), ("http/a.rs", "use super::b::X;"), ("http/b.rs", "")]);
    assert_eq!(circle(&arrows(&line)), None);
}

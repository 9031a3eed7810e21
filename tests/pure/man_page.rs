//! `docs/man/kubesolo-update.8` says what the program says: commands, options, exit codes, configuration.
//!
//! The page is read by what mandoc makes of it, and by its own macros where the text is ambiguous.

use crate::support::kit::repo;
use crate::support::{command, need, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Words = BTreeSet<String>;

fn page() -> PathBuf {
    repo().join("docs/man/kubesolo-update.8")
}

fn help(arguments: &[&str]) -> String {
    let program =
        std::env::var_os("KUBESOLO_UPDATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kubesolo-update").into());
    run(std::process::Command::new(program).args(arguments).arg("--help"))
}

/// Options at the beginning of each line of a part of a `--help`.
fn listed(help: &str) -> Words {
    let words = help.lines().filter(|line| line.starts_with("  -"));
    let words = words.flat_map(|line| line.split_whitespace().take(2)).map(|word| word.trim_end_matches(','));
    words.filter(|word| word.starts_with('-')).map(str::to_string).collect()
}

fn commands() -> Vec<String> {
    let text = help(&[]);
    let (_, list) = text.split_once("Commands:\n").expect("--help lists the commands");
    let first = |line: &str| line.split_whitespace().next().unwrap().to_string();
    list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")).map(first).collect()
}

/// What each command takes, by its own `--help`; nothing: the program without a command.
fn options_of_the_program() -> BTreeMap<String, Words> {
    let mut found = BTreeMap::from([(String::new(), listed(&help(&[])))]);
    for name in commands() {
        let options = listed(&help(&[&name]));
        // --json, --shell, --root and both of help are all that `device` has.
        assert!(options.len() > if name == "device" { 4 } else { 7 }, "{name}: {options:?}");
        found.insert(name, options);
    }
    found
}

/// Lines of mdoc between a section's title and the next one.
fn section<'a>(source: &'a str, title: &str) -> &'a str {
    let (_, rest) = source.split_once(&format!("\n{title}\n")).unwrap_or_else(|| panic!("no section '{title}'"));
    let end = [rest.find("\n.Sh "), rest.find("\n.Ss ")].into_iter().flatten().min();
    &rest[..end.unwrap_or(rest.len())]
}

/// Every option that mdoc marks: `.Fl Fl json` is --json.
fn marked(text: &str) -> Words {
    let mut found = Words::new();
    for line in text.lines().filter(|line| line.starts_with('.')) {
        let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_start_matches('.')).collect();
        for (at, _) in
            words.iter().enumerate().filter(|(at, word)| **word == "Fl" && (*at == 0 || words[at - 1] != "Fl"))
        {
            match words[at + 1] {
                "Fl" => found.insert(format!("--{}", words[at + 2])),
                short => found.insert(format!("-{short}")),
            };
        }
    }
    found
}

/// What each command takes, by the synopsis, with what all take.
fn options_of_the_page(source: &str) -> BTreeMap<String, Words> {
    let items = |title: &str| {
        let lines = section(source, title).lines().filter_map(|line| line.strip_prefix(".It "));
        marked(&lines.map(|line| [".", line, "\n"].concat()).collect::<String>())
    };
    let (common, of_source) = (items(".Ss Common options"), items(".Ss Source options"));
    assert_eq!((common.len(), of_source.len()), (7, 5), "{common:?} {of_source:?}");
    let mut found: BTreeMap<String, Words> = BTreeMap::new();
    for call in section(source, ".Sh SYNOPSIS").split(".Nm kubesolo-update\n").filter(|call| !call.trim().is_empty()) {
        let (first, rest) = call.split_once('\n').unwrap_or((call, ""));
        match first.strip_prefix(".Cm ") {
            None => found.entry(String::new()).or_default().extend(marked(call)),
            Some(name) => {
                // The others touch no machine, so no option says where that is.
                let is_common = rest.contains(".Op Ar common options");
                assert_eq!(is_common, !["device", "inspect", "lint"].contains(&name), "{name}");
                let mut options = marked(rest);
                options.extend(common.iter().filter(|_| is_common).cloned());
                let asks = rest.contains(".Op Ar source options");
                options.extend(of_source.iter().filter(|_| asks).cloned());
                options.extend(["-h", "--help"].map(str::to_string));
                assert!(found.insert(name.to_string(), options).is_none(), "{name} stands there twice");
            }
        }
    }
    found
}

/// Says how a page differs from the program.
fn differences(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (program, page) = (options_of_the_program(), options_of_the_page(source));
    let names: Words = program.keys().chain(page.keys()).cloned().collect();
    for name in &names {
        let (has, says) = (program.get(name).cloned().unwrap_or_default(), page.get(name).cloned().unwrap_or_default());
        found.extend(has.symmetric_difference(&says).map(|option| format!("synopsis: {name} {option}")));
    }
    // Each is told what it is for, once.
    let told =
        [".Ss Common options", ".Ss Source options", ".Ss Options of commands"].map(|title| section(source, title));
    let items: String = told
        .iter()
        .flat_map(|text| text.lines())
        .filter(|l| l.starts_with(".It "))
        .fold(String::new(), |all, line| all + &line.replacen(".It ", ".", 1) + "\n");
    let all: Words = program.values().flatten().cloned().collect();
    found.extend(all.symmetric_difference(&marked(&items)).map(|option| format!("descriptions: {option}")));
    let told: Vec<&str> = section(source, ".Ss Commands").lines().filter_map(|l| l.strip_prefix(".It Cm ")).collect();
    if told != commands() {
        found.push(format!("commands: {told:?}"));
    }
    found
}

#[apply(test)]
fn commands_and_options_are_those_of_the_program() {
    let source = fs::read_to_string(page()).unwrap();
    assert_eq!(differences(&source), Vec::<String>::new());

    // What is too much or too little is found.
    let spoil = |from: &str, to: &str| {
        let spoilt = source.replacen(from, to, 1);
        assert_ne!(spoilt, source, "{from}");
        differences(&spoilt)
    };
    let extra = spoil(".Op Fl Fl splay Ar seconds\n", ".Op Fl Fl splay Ar seconds\n.Op Fl Fl planted\n");
    assert_eq!(extra, ["synopsis: check --planted"]);
    assert_eq!(spoil(".It Fl Fl once\n", ".It Fl Fl once\n.It Fl Fl planted Ar x\n"), ["descriptions: --planted"]);
    assert_eq!(spoil(".Op Fl Fl stable-for Ar seconds\n", ""), ["synopsis: healthcheck --stable-for"]);
    assert_eq!(spoil(".It Fl Fl source\n", ""), ["descriptions: --source"]);
    let status = ".Cm status\n.Op Ar common options\n";
    assert_eq!(spoil(status, &[status, ".Op Ar source options\n"].concat())[0], "synopsis: status --layout");
    let listed = spoil(".It Cm status\n", "").concat();
    assert!(listed.starts_with("commands: ") && !listed.contains("status"), "{listed}");
}

/// The lines of mandoc's plain text between two titles.
fn rendered(title: &str) -> Vec<String> {
    let text = run(command("mandoc").args(["-T", "ascii", "-O", "width=200"]).arg(page()));
    // Bold and underlined letters are printed twice.
    let mut plain = String::new();
    for c in text.chars() {
        if c == '\u{8}' { plain.pop().map_or((), drop) } else { plain.push(c) }
    }
    let lines = plain.lines().skip_while(|line| *line != title).skip(1);
    lines.take_while(|line| line.is_empty() || line.starts_with(' ')).map(|line| line.trim().to_string()).collect()
}

#[apply(test)]
fn exit_codes_are_those_of_the_readme() {
    need("mandoc");
    let readme = fs::read_to_string(repo().join("README.md")).unwrap();
    let (_, list) = readme.split_once("\nExit codes: ").expect("the README has them");
    let list = list.split_once(".\n").unwrap().0.replace('\n', " ");
    let codes: Vec<&str> = list.split(" · ").collect();
    assert_eq!(codes.len(), 10);
    let said: Vec<String> = rendered("EXIT STATUS").into_iter().filter(|line| !line.is_empty()).collect();
    let said: Vec<String> = said.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(said[0], "0 done (check: an update is available)");
    assert_eq!(said[1..], codes[1..]);
}

#[apply(test)]
fn configuration_keys_and_defaults_are_those_of_the_program() {
    let source = fs::read_to_string(page()).unwrap();
    let text = section(&source, ".Sh CONFIGURATION");
    let config = fs::read_to_string(repo().join("src/config/lines.rs")).unwrap();
    let (_, keys) = config.split_once("const KEYS: [&str; ").expect("the list of keys");
    let keys: Vec<&str> = keys.split_once("];").unwrap().0.split('"').skip(1).step_by(2).collect();
    let items = text.lines().filter_map(|line| line.strip_prefix(".It Ic "));
    let told: Vec<&str> = items.flat_map(|keys| keys.split(" , ")).collect();
    assert!(keys.len() > 15);
    assert_eq!(told.iter().collect::<BTreeSet<_>>(), keys.iter().collect());
    assert_eq!(told.len(), keys.len(), "one stands there twice");

    // The table of docs/configuration.md has the same keys and defaults.
    let page = fs::read_to_string(repo().join("docs/configuration.md")).unwrap();
    let (_, table) = page.split_once("\n## Keys of update.conf\n").unwrap();
    let rows = table.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    let listed = rows.flat_map(|row| row.split(" | ").next().unwrap().split('`').skip(1).step_by(2));
    assert_eq!(listed.collect::<BTreeSet<_>>(), keys.iter().copied().collect(), "docs/configuration.md");
    for key in ["tag", "channel", "signature", "signature_threshold", "plain_http", "retries", "stall_timeout"] {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{key}` |"))).unwrap();
        let default = row.rsplit('|').nth(1).unwrap().split('`').nth(1).unwrap();
        let (_, item) = text.split_once(&format!(".It Ic {key}\n")).unwrap();
        let item = item.split_once("\n.It ").unwrap().0;
        let (_, said) = item.split_once("Default:\n.Li ").unwrap_or_else(|| panic!("{key} has no default"));
        assert_eq!(said.split_whitespace().next(), Some(default), "{key}");
    }
    for path in ["/var/lib/kubesolo/containerd/containerd.sock", "/var/lib/kubesolo/pki/admin/admin.kubeconfig"] {
        assert!(text.contains(path) && page.contains(path), "{path}");
    }
}

#[apply(test)]
fn files_and_variables_are_those_of_the_program() {
    let source = fs::read_to_string(page()).unwrap();
    let files = section(&source, ".Sh FILES");
    let system = fs::read_to_string(repo().join("src/os/system.rs")).unwrap();
    for path in ["/etc/kubesolo/update.conf", "/etc/kubesolo/update-keys.d", "/etc/kubesolo/health.d", "/boot/efi"] {
        assert!(system.contains(&format!("\"{path}\"")), "{path} is no default any more");
        assert!(files.contains(&format!(".It Pa {path}")), "{path} is not in the page");
    }
    let architecture = fs::read_to_string(repo().join("ARCHITECTURE.md")).unwrap();
    for row in architecture.lines().filter_map(|line| line.strip_prefix("| `KSOLODATA:/")) {
        let file = row.split('`').next().unwrap();
        assert!(files.contains(&format!(".It Pa /var/lib/kubesolo/{file}\n")), "{file} is not in the page");
    }
    let variables = section(&source, ".Sh ENVIRONMENT");
    let proxies = fs::read_to_string(repo().join("src/http/proxy.rs")).unwrap();
    let (_, read) = proxies.split_once("pub fn read(").unwrap();
    let read = read.split_once("\n    }\n").unwrap().0;
    let names: Words = read.split('"').skip(1).step_by(2).map(str::to_string).collect();
    assert_eq!(names.len(), 7, "{names:?}");
    let mut told: Words = variables
        .lines()
        .filter(|line| line.starts_with(".It Ev "))
        .flat_map(|line| line.trim_start_matches(".It Ev ").split(" , Ev ").map(str::to_string).collect::<Vec<_>>())
        .collect();
    assert!(told.remove("TERM") && told.remove("NO_COLOR"));
    assert_eq!(told, names);
}

/// What mandoc has to say; it cannot know pages of programs that are not installed.
fn lint(file: &Path) -> Vec<String> {
    let out = command("mandoc").args(["-T", "lint", "-W", "warning"]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    said.lines().filter(|line| !line.contains("outdated mandoc.db")).map(str::to_string).collect()
}

#[apply(test)]
fn mandoc_has_nothing_to_say() {
    need("mandoc");
    assert_eq!(lint(&page()), Vec::<String>::new());
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("kubesolo-update.8");
    fs::write(&copy, fs::read_to_string(page()).unwrap().replacen(".El\n", "", 1)).unwrap();
    assert_ne!(lint(&copy), Vec::<String>::new(), "it says nothing about a list that does not end");
}

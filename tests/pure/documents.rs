//! Documents: each link leads to a file that is there, and to a heading that is in it; the README holds each command of the
//! program, names each page of `docs/`, and shows a session that was recorded.

use crate::support::kit::repo;
use crate::support::run;
use miniserde::json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every Markdown file of the repository.
fn documents() -> Vec<PathBuf> {
    let all = run(Command::new("find")
        .arg(".")
        .args(["-name", "*.md", "-not", "-path", "./target/*"])
        .args(["-not", "-path", "./.tools/*", "-not", "-path", "./vendor/*", "-not", "-path", "./dist/*"])
        .current_dir(repo()));
    all.lines().map(|path| PathBuf::from(path.trim_start_matches("./"))).collect()
}

/// The lines of a document that stand in no fenced block.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Where the links and pictures of a document lead.
fn links(text: &str) -> Vec<String> {
    let prose: Vec<String> = lines(text).map(|line| line.split('`').step_by(2).collect()).collect();
    let prose = prose.join("\n");
    prose.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_string()).collect()
}

/// The anchors that a reader of Markdown makes of the headings: small letters, no punctuation, `-` for a blank.
fn anchors(text: &str) -> BTreeSet<String> {
    let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let headings = lines(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|line| line.chars().filter(is_kept).map(|c| if c == ' ' { '-' } else { c }).collect())
        .collect()
}

/// What is wrong with a link of a document that lies in `dir`.
fn fault(root: &Path, document: &Path, link: &str) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let file = match path {
        "" => root.join(document),
        path => root.join(document).parent().unwrap().join(path),
    };
    if !file.exists() {
        return Some(format!("{}: {link}: no such file", document.display()));
    }
    let anchor = anchor?;
    let is_there = anchors(&fs::read_to_string(&file).unwrap()).contains(anchor);
    (!is_there).then(|| format!("{}: {link}: no such heading", document.display()))
}

#[apply(test)]
fn every_link_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 30, "{documents:?}");
    let (mut faults, mut count) = (Vec::new(), 0);
    for document in &documents {
        for link in links(&fs::read_to_string(repo().join(document)).unwrap()) {
            count += 1;
            faults.extend(fault(repo(), document, &link));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    assert!(count > 100, "{count}");
}

#[apply(test)]
fn the_reader_of_links_sees_them() {
    let text = "# A page, of `words`\n\nSee [it](b.md#two), [x](c.md)\nand ![p](d.svg). `[no](e)`\n\n```\n[no](f)\n# no\n```\n";
    assert_eq!(links(text), ["b.md#two", "c.md", "d.svg"]);
    assert_eq!(anchors(text), BTreeSet::from(["a-page-of-words".to_string()]));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.md"), text).unwrap();
    let faults = |link: &str| fault(dir.path(), Path::new("a.md"), link).is_some();
    for (link, is_bad) in [("a.md", false), ("#a-page-of-words", false), ("b.md", true), ("a.md#b", true)] {
        assert_eq!(faults(link), is_bad, "{link}");
    }
}

/// Paths of this repository between backquotes. What lies below deploy/kubernetes/site is the operator's own.
fn paths(line: &str) -> Vec<&str> {
    let tops = ["src/", "tests/", "scripts/", "docs/", "deploy/", "grub/"];
    let is_ours =
        |span: &&str| tops.iter().any(|top| span.starts_with(top)) && !span.starts_with("deploy/kubernetes/site");
    let is_path = |span: &&str| span.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    line.split('`').skip(1).step_by(2).filter(is_ours).filter(is_path).collect()
}

#[apply(test)]
fn every_path_that_is_named_is_there() {
    let (mut missing, mut count) = (Vec::new(), 0);
    for page in documents() {
        let dir = page.parent().unwrap();
        // History is left as it was written: CHANGELOG.md, and the decisions.
        if page.ends_with("CHANGELOG.md") || ![Path::new(""), Path::new("docs")].contains(&dir) {
            continue;
        }
        let text = fs::read_to_string(repo().join(&page)).unwrap();
        for path in lines(&text).flat_map(paths) {
            count += 1;
            if !repo().join(path).exists() {
                missing.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    assert!(count > 150, "{count}");
}

#[apply(test)]
fn the_readme_leads_to_every_page() {
    let readme = fs::read_to_string(repo().join("README.md")).unwrap();
    let links: BTreeSet<String> = links(&readme).into_iter().collect();
    for document in documents().iter().filter(|path| path.parent() == Some(Path::new("docs"))) {
        assert!(links.contains(document.to_str().unwrap()), "README.md does not lead to {}", document.display());
    }
}

#[apply(test)]
fn the_tables_of_commands_are_the_programs() {
    let program =
        std::env::var_os("KUBESOLO_UPDATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kubesolo-update").into());
    let help = run(Command::new(program).arg("--help"));
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let first = |line: &str| line.split_whitespace().next().unwrap().to_string();
    let commands: Vec<String> =
        list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")).map(first).collect();
    for (page, start) in [("README.md", "\n## Commands\n"), ("docs/commands.md", "# Commands\n")] {
        let text = fs::read_to_string(repo().join(page)).unwrap();
        let table = text.split_once(start).unwrap().1.split("\n## ").next().unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let told: BTreeSet<String> = rows.map(|row| first(row.split('`').next().unwrap())).collect();
        assert_eq!(told, commands.iter().cloned().collect(), "{page}");
    }
}

/// Reads pairs of Rust: what stands between `start` and `end` in `text`, cut at each arm of a match.
fn arms<'a>(text: &'a str, start: &str, end: &str) -> Vec<(Vec<&'a str>, &'a str)> {
    let body = text.split_once(start).expect(start).1.split_once(end).unwrap().0;
    let arms = body.lines().filter_map(|line| line.trim().trim_end_matches(',').split_once(" => "));
    arms.map(|(gates, said)| (gates.split(" | ").collect(), said.trim_matches('"'))).collect()
}

#[apply(test)]
fn the_table_of_gates_is_the_programs() {
    let refusal = fs::read_to_string(repo().join("src/offer/refusal.rs")).unwrap();
    let labels = arms(&refusal, "fn label(self)", "    }\n\n");
    let hints = arms(&refusal, "fn hint(self)", "    }\n\n");
    let text = fs::read_to_string(repo().join("docs/commands.md")).unwrap();
    let section = text.split_once("## Gates\n").unwrap().1.split_once("\n## ").unwrap().0;
    let rows: BTreeSet<(String, String)> = (section.lines().filter(|line| line.starts_with("| `")))
        .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>())
        .map(|cells| (cells[1].clone(), cells[3].clone()))
        .collect();
    let option = |gate: &str| {
        let hint = hints.iter().find(|(gates, _)| gates.contains(&gate)).map_or("", |(_, hint)| hint);
        hint.split(' ').next().unwrap().to_owned()
    };
    let program: BTreeSet<(String, String)> =
        labels.iter().map(|(gates, label)| ((*label).to_owned(), option(gates[0]))).collect();
    assert!(program.len() == 11 && program.iter().filter(|(_, option)| !option.is_empty()).count() == 5);
    assert_eq!(rows, program);
}

/// A line without digests, times and the directory that stands for a machine in the recording.
fn masked(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut kept = parts.next().unwrap().to_string();
    for part in parts {
        kept += "sha256:";
        kept += part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    let is_time = |word: &str| word.starts_with("20") && word.ends_with('Z');
    let words = kept.split(' ').map(|word| if is_time(word) { "TIME" } else { word });
    words.collect::<Vec<_>>().join(" ").replace("machine/", "/").replace(" --root machine", "")
}

/// What a recording showed, without colours.
fn recorded(cast: &str) -> String {
    let events = cast.lines().skip(1).map(|line| miniserde::json::from_str::<Vec<Value>>(line).unwrap());
    let words = events.map(|event| match &event[2] {
        Value::String(words) => words.clone(),
        other => panic!("{other:?}"),
    });
    let mut text: String = words.collect();
    while let Some(at) = text.find('\u{1b}') {
        let end = text[at + 2..].find(|c: char| c.is_ascii_alphabetic()).unwrap();
        text.replace_range(at..at + 2 + end + 1, "");
    }
    text
}

#[apply(test)]
fn the_session_of_the_readme_was_recorded() {
    let recording = recorded(&fs::read_to_string(repo().join("docs/pictures/update.cast")).unwrap());
    let recording: Vec<String> = recording.lines().map(masked).collect();
    let readme = fs::read_to_string(repo().join("README.md")).unwrap();
    let session = readme.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(session.lines().count() > 15);
    for line in session.lines() {
        let line = masked(line);
        assert!(
            recording.iter().any(|shown| shown.ends_with(&line)),
            "docs/pictures/update.cast does not show: {line}"
        );
    }
}

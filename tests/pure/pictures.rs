//! `docs/pictures/`: what the pictures show is what the code and the image builder do.
//!
//! Places and fonts are dot's, and other versions place things differently: held are nodes, edges and words.

use crate::support::kit::repo;
use crate::support::{need, run};
use kubesolo_update::parts::ledger::state::Phase;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

type Pairs = BTreeSet<(String, String)>;

fn read(name: &str) -> String {
    fs::read_to_string(repo().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(repo().join("docs/pictures")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| name.strip_suffix(".dot").map(str::to_string)).collect();
    names.sort();
    names
}

/// As XML has it: dot writes the few characters that it must as entities.
fn plain(text: &str) -> String {
    [("&#45;", "-"), ("&gt;", ">"), ("&lt;", "<"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_string(), |all, (from, to)| all.replace(from, to))
}

/// Edges of a picture, by the titles that dot writes; the side of a node at which one begins or ends does not count.
fn edges(svg: &str) -> Pairs {
    let titles = svg.split("<title>").skip(1).map(|rest| plain(rest.split("</title>").next().unwrap()));
    let node = |end: &str| end.split(':').next().unwrap().to_string();
    titles.filter_map(|title| title.split_once("->").map(|(a, b)| (node(a), node(b)))).collect()
}

/// Edges of a text, chains included.
fn written(dot: &str) -> Pairs {
    let lines = dot.lines().filter(|line| !line.trim().starts_with("//") && line.contains("->"));
    let mut found = Pairs::new();
    for line in lines {
        let line = line.split(['[', ';']).next().unwrap();
        let nodes: Vec<&str> = line.split("->").map(str::trim).collect();
        found.extend(nodes.windows(2).map(|pair| (pair[0].to_string(), pair[1].to_string())));
    }
    found
}

#[apply(test)]
fn each_picture_is_that_of_its_text() {
    let names = names();
    assert_eq!(names, ["disk", "states", "trust", "update"]);
    for name in names {
        let (dot, svg) = (read(&format!("docs/pictures/{name}.dot")), read(&format!("docs/pictures/{name}.svg")));
        assert_eq!(edges(&svg), written(&dot), "{name}: scripts/pictures.sh draws it anew");
        let shown = plain(&svg);
        let labels = dot.split("label=\"").skip(1).flat_map(|label| label.split('"').next().unwrap().split("\\n"));
        let legend = dot.split("</font>").filter_map(|line| line.rsplit_once("<font ")?.1.split_once('>'));
        for line in labels.chain(legend.map(|(_, line)| line)) {
            assert!(shown.contains(&format!(">{line}</text>")), "{name}: no '{line}': scripts/pictures.sh");
        }
        // Nothing is fetched by whoever looks at it.
        assert!(!svg.contains("<script") && !svg.contains("href"), "{name}");
    }
}

#[apply(test)]
fn dot_draws_the_same() {
    need("dot");
    run(Command::new(repo().join("scripts/pictures.sh")).arg("--check"));
    // What is stale is found: a word, an edge, a picture that is not there.
    for (from, to, words) in [
        ("label=\"signs\"", "label=\"sgins\"", "is not what"),
        ("blobs -> slot", "blobs -> record", "is not what"),
        ("digraph trust", "digraph trust {", "dot cannot read"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("trust.dot"), read("docs/pictures/trust.dot").replacen(from, to, 1)).unwrap();
        fs::write(dir.path().join("trust.svg"), read("docs/pictures/trust.svg")).unwrap();
        let check = || {
            let mut script = Command::new(repo().join("scripts/pictures.sh"));
            script.arg("--check").arg("--dir").arg(dir.path()).output().unwrap()
        };
        let out = check();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && said.contains(words), "{from}: {said}");
        fs::write(dir.path().join("trust.dot"), read("docs/pictures/trust.dot")).unwrap();
        assert!(check().status.success());
        fs::remove_file(dir.path().join("trust.svg")).unwrap();
        assert_eq!(check().status.code(), Some(1));
    }
}

#[apply(test)]
fn the_state_machine_is_the_programs() {
    let mut table = Pairs::new();
    for from in Phase::ALL {
        let next = Phase::ALL.into_iter().filter(|next| from.may_become(*next));
        table.extend(next.map(|next| (from.name().to_string(), next.name().to_string())));
    }
    assert!(table.len() > 25, "{table:?}");
    assert_eq!(edges(&read("docs/pictures/states.svg")), table, "docs/pictures/states.dot");
}

#[apply(test)]
fn the_disk_is_the_image_builders() {
    let (script, dot) = (read("scripts/build-image.sh"), read("docs/pictures/disk.dot"));
    let partitions = read("scripts/lib/image.sh");
    let size = |name: &str| {
        let line = script.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("no {name}")).parse::<u64>().unwrap()
    };
    for (number, label, name, kind) in [
        (1, "KSOLOEFI", "EFI_MIB", "FAT32"),
        (2, "KSOLOA", "SLOT_MIB", "ext4"),
        (3, "KSOLOB", "SLOT_MIB", "ext4"),
        (4, "KSOLODATA", "DATA_MIB", "ext4"),
    ] {
        let shown = format!("label=\"{number} {label}\\n{} MiB, {kind}\\n", size(name));
        assert!(dot.contains(&shown), "no '{shown}' in docs/pictures/disk.dot");
        assert!(partitions.contains(&format!("-c {number}:{label} ")), "{label}");
    }
}

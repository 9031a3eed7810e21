//! What a person types first: `-h`, `--help`, a command that does not exist.

use crate::support::root::{Root, Run};
use std::process::Command;

fn agent(words: &[&str]) -> Run {
    Command::new(Root::program()).args(words).output().unwrap().into()
}

/// The commands that the program's own help lists.
fn commands() -> Vec<String> {
    let help = agent(&["--help"]).expect(0, &["Commands:"]).stdout;
    let (_, list) = help.split_once("Commands:\n").unwrap();
    // Continued lines are indented further.
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    names.map(|line| line.split(' ').next().unwrap().to_string()).collect()
}

#[apply(test)]
fn short_and_long_help_are_one() {
    let top = agent(&["-h"]).expect(0, &["Usage: kubesolo-update", "-h, --help"]);
    assert_eq!(top.stdout, agent(&["--help"]).stdout);
    assert!(top.stderr.is_empty());
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let short = agent(&[&command, "-h"]).expect(0, &["Usage: kubesolo-update", &command, "-h, --help"]);
        assert_eq!(short.stdout, agent(&[&command, "--help"]).stdout, "{command}");
        assert!(short.stderr.is_empty(), "{command}");
    }
}

#[apply(test)]
fn what_is_not_understood_leads_to_help() {
    for words in [&["--halp"][..], &["-x"], &["statsu"], &["status", "-x"], &[]] {
        agent(words).expect(2, &["--help lists"]);
    }
}

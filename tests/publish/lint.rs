//! `lint`: what machines would say of what is about to be published.

use crate::support::initramfs_table::{ROWS, Says, make, need_table, prepare};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn lint(dir: &Path, arguments: &[&str]) -> Output {
    let agent = std::env::var_os("KUBESOLO_UPDATE").unwrap();
    Command::new(agent).arg("lint").args(arguments).current_dir(dir).output().unwrap()
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// tests/vm/initramfs.rs asks real kernels of the same rows.
#[apply(test)]
fn every_shape_of_an_initramfs_is_taken_or_named() {
    need_table();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("init"), "#!/bin/sh\n").unwrap();
    prepare(dir, "init\n");
    let mut wrong = Vec::new();
    for row in ROWS {
        fs::write(dir.join("out"), make(dir, row)).unwrap();
        let out = lint(dir, &["--initramfs", "out"]);
        let (code, words) = match row.3 {
            Says::Takes => (0, ""),
            Says::Warns(words) => (0, words),
            Says::Refuses(words) => (6, words),
        };
        let text = said(&out);
        let silent = row.3 != Says::Takes || text.is_empty();
        if out.status.code() != Some(code) || !text.contains(words) || !silent {
            wrong.push(format!("{}: {:?}, not {code} '{words}': {text}", row.0, out.status.code()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

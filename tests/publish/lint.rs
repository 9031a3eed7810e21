//! `lint`: what machines would say of what is about to be published.

use crate::support::initramfs_table::{ROWS, Says, make, need_table, prepare, script};
use crate::support::run;
use std::fs;
use std::os::unix::fs::PermissionsExt;
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

/// Wherever they are cut, the parts are judged together: that is what kernels see.
#[apply(test)]
fn parts_are_judged_as_the_whole_that_they_make() {
    need_table();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("init"), "#!/bin/sh\n").unwrap();
    prepare(dir, "init\n");
    let whole = script(dir, "cat early.cpio sys.gz; zeros 5; cat m1.gz");
    for at in [1, 100, 511, 512, 513, whole.len() - 1] {
        fs::write(dir.join("1"), &whole[..at]).unwrap();
        fs::write(dir.join("2"), &whole[at..]).unwrap();
        let out = lint(dir, &["--initramfs", "1", "--initramfs", "2"]);
        assert_eq!((out.status.code(), said(&out)), (Some(0), String::new()), "{at}");
        if [1, 100, whole.len() - 1].contains(&at) {
            let out = lint(dir, &["--initramfs", "2", "--initramfs", "1"]);
            assert_eq!(out.status.code(), Some(6), "{at}: {}", said(&out));
        }
    }
}

/// Option, text, and what is said of it; nothing: machines read it.
#[rustfmt::skip]
const FIELDS: &[(&str, &str, &str)] = &[
    ("--version", "1.2.0", ""),
    ("--version", "v1.2.0-rc.1+b.7", ""),
    ("--version", "2024.1.0", ""),
    ("--version", "2024.01", "a number is malformed"),
    ("--version", "2024.01.1", "a number is malformed"),
    ("--version", "1.0", "needs three numbers"),
    ("--version", "dev", "a number is malformed"),
    ("--version", "01.2.3", "a number is malformed"),
    ("--version", "1.2.3.4", "needs three numbers"),
    ("--version", "1.2.3 ", "a number is malformed"),
    ("--version", "1.2.3\n", "a number is malformed"),
    ("--version", "", "--version must be a semantic version"),
    ("--version", "1.2.3-", "an identifier is empty"),
    ("--min-compatible", "1.0.0", ""),
    ("--min-compatible", "1", "--min-compatible must be a semantic version"),
    ("--channel", "stable", ""),
    ("--channel", "edge_2.x-a", ""),
    ("--channel", "", "--channel may hold"),
    ("--channel", "a b", "--channel may hold"),
    ("--channel", "a/b", "--channel may hold"),
    ("--channel", "ä", "--channel may hold"),
    ("--channel", "stable\n", "--channel may hold"),
    ("--release-date", "2026-01-31T12:00:00Z", ""),
    ("--release-date", "2026-01-31T12:00:00.5+01:00", ""),
    ("--release-date", "2026-01-31t12:00:00z", "--release-date must be a time"),
    ("--release-date", "2026-01-31 12:00:00Z", "--release-date must be a time"),
    ("--release-date", "2026-01-31T12:00:60Z", "--release-date must be a time"),
    ("--release-date", "2026-01-31", "--release-date must be a time"),
    ("--release-date", "yesterday", "--release-date must be a time"),
    ("--expires", "2026-02-29T12:00:00Z", "--expires must be a time"),
    ("--expires", "2026-01-31T12:00:00", "--expires must be a time"),
    ("--expires", "1769860800", "--expires must be a time"),
];

#[apply(test)]
fn fields_are_read_as_machines_read_them() {
    for (option, text, words) in FIELDS {
        let out = lint(Path::new("/"), &[option, text]);
        let code = if words.is_empty() { 0 } else { 6 };
        assert_eq!(out.status.code(), Some(code), "{option} '{text}': {}", said(&out));
        assert!(said(&out).contains(words), "{option} '{text}': {}", said(&out));
    }
    for (arguments, words) in [
        (&[][..], "nothing to look at"),
        (&["--list"], "nothing to look at"),
        (&["--initramfs", "/absent"], "open /absent"),
        (&["--initramfs", "/"], "read /"),
        (&["--nonsense"], "--nonsense"),
    ] {
        let out = lint(Path::new("/"), arguments);
        assert!(out.status.code() == Some(2) && said(&out).contains(words), "{arguments:?}: {}", said(&out));
    }
}

/// Arguments, exit code, and what is said; nothing: not a word. Times: see [`moment()`].
const TOGETHER: &[(&[&str], i32, &str)] = &[
    (&["--expires", "2020-01-01T00:00:00Z"], 6, "judge --expires 2020-01-01T00:00:00Z: it is past, now is 2"),
    (&["--expires", "1970-01-01T00:00:00Z"], 6, "it is past"),
    (&["--expires", "2020-01-01T00:00:00-23:59"], 6, "it is past"),
    (&["--expires", "-1"], 6, "it is past"),
    (&["--expires", "+1"], 0, ""),
    (&["--expires", "2099-01-01T00:00:00Z", "--release-date", "2020-01-01T00:00:00Z"], 0, ""),
    (&["--expires", "+2", "--release-date", "+3"], 6, "it is not after --release-date"),
    (&["--expires", "+2", "--release-date", "+2"], 6, "it is not after --release-date"),
    (&["--expires", "+2", "--release-date", "+1"], 0, ""),
    (&["--expires", "2020-01-01T00:00:00Z", "--release-date", "2020-01-02T00:00:00Z"], 6, "it is past"),
    (&["--release-date", "+23"], 0, ""),
    (&["--release-date", "+25"], 0, "warning: --release-date 2"),
    (&["--release-date", "9999-12-31T23:59:59Z"], 0, "more than a day ahead, now is 2"),
    (
        &["--min-compatible", "2.0.0", "--version", "1.0.0"],
        6,
        "judge --min-compatible 2.0.0: it is above --version 1.0.0",
    ),
    (&["--min-compatible", "1.0.0", "--version", "1.0.0"], 0, ""),
    (&["--min-compatible", "1.0.0+b", "--version", "v1.0.0+a"], 0, ""),
    (&["--min-compatible", "1.0.0", "--version", "1.0.0-rc.1"], 6, "above --version 1.0.0-rc.1"),
    (&["--min-compatible", "1.0.0-rc.2", "--version", "1.0.0-rc.10"], 0, ""),
    (&["--min-compatible", "1.9.0", "--version", "1.10.0"], 0, ""),
    (&["--min-compatible", "1.0.0", "--channel", "edge", "--version", "0.9.9"], 6, "above --version 0.9.9"),
];

/// `+N` and `-N` are so many hours from now.
fn moment(text: &str) -> String {
    match text.strip_prefix(['+', '-']) {
        Some(hours) if hours.parse::<u32>().is_ok() => {
            run(Command::new("date").args(["-u", "-d", &format!("{text} hours"), "+%Y-%m-%dT%H:%M:%SZ"])).trim().into()
        }
        _ => text.into(),
    }
}

#[apply(test)]
fn what_no_machine_would_take_is_refused() {
    for (arguments, code, words) in TOGETHER {
        let arguments: Vec<String> = arguments.iter().map(|text| moment(text)).collect();
        let out = lint(Path::new("/"), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(out.status.code(), Some(*code), "{arguments:?}: {}", said(&out));
        assert!(
            said(&out).contains(words) && said(&out).is_empty() == words.is_empty(),
            "{arguments:?}: {}",
            said(&out)
        );
    }
}

/// The scripts ask an agent, and say which command makes one where there is none that can answer.
#[apply(test)]
fn scripts_find_an_agent_or_say_how_to_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(Command::new("cp").arg("-r").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")).arg(dir));
    fs::create_dir_all(dir.join("target/debug")).unwrap();
    fs::create_dir(dir.join("dist")).unwrap();
    let machine = crate::support::disk::architecture();
    let asked = |named: Option<&Path>| {
        let ask = ". scripts/lib/agent.sh && lint --version \"$1\" && echo \"$KUBESOLO_UPDATE\"";
        let mut sh = Command::new("sh");
        sh.args(["-euc", &format!("REPO=$PWD; die() {{ echo \"$*\" >&2; exit 1; }}; {ask}"), "-", "1.0.0"]);
        sh.current_dir(dir).env_remove("KUBESOLO_UPDATE").env_remove("CARGO_TARGET_DIR");
        named.map(|agent| sh.env("KUBESOLO_UPDATE", agent));
        let out = sh.output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stdout).trim().to_string() + &said(&out))
    };
    let (there, words) = asked(None);
    assert!(!there && words.contains(&format!("scripts/build.sh --arch {machine} makes it")), "{words}");
    let agent = std::env::var_os("KUBESOLO_UPDATE").unwrap();
    let (debug, dist) = (dir.join("target/debug/kubesolo-update"), dir.join(format!("dist/kubesolo-update-{machine}")));
    for place in [&debug, &dist] {
        fs::copy(&agent, place).unwrap();
        assert_eq!(asked(None), (true, place.display().to_string()));
    }
    // One from before, which knows no such command.
    let old = dir.join("old");
    fs::write(&old, "#!/bin/sh\nexit 2\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    for old in
        [&old, &dir.join("absent"), Path::new("/bin/true"), Path::new("/bin/echo"), Path::new("kubesolo-update-x")]
    {
        let (there, words) = asked(Some(old));
        assert!(!there && words.contains("its lint command is missing, or lacks options (build it anew"), "{words}");
    }
}

/// A kernel: for which architecture it is asked, how it begins (offset and bytes, the rest is noise), exit code, and what is said.
const KERNELS: &[(&str, Fields, i32, &str)] = &[
    ("amd64", &[], 6, "not a kernel"),
    ("arm64", &[], 6, "not a kernel"),
    ("amd64", X86, 0, ""),
    ("arm64", X86, 6, "it is for amd64"),
    ("arm64", &[(0x38, b"ARM\x64")], 0, ""),
    ("amd64", &[(0x38, b"ARM\x64")], 6, "it is for arm64"),
    // Packed for EFI: 3,000 bytes behind the first 1,000; for arm64, for RISC-V, cut.
    (
        "arm64",
        &[ZBOOT, SIZE, (0x3c, &[0x40, 0, 0, 0]), (0x40, b"PE\0\0\x64\xaa")],
        0,
        "GRUB before 2.12 does not start",
    ),
    ("amd64", &[ZBOOT, SIZE, (0x3c, &[0x40, 0, 0, 0]), (0x40, b"PE\0\0\x64\xaa")], 6, "it is for arm64"),
    ("arm64", &[ZBOOT, SIZE, (0x3c, &[0x40, 0, 0, 0]), (0x40, b"PE\0\0\x64\x50")], 6, "for neither amd64 nor arm64"),
    (
        "arm64",
        &[ZBOOT, (8, b"\xe8\x03\0\0\xb9\x0b\0\0"), (0x3c, &[0x40, 0, 0, 0]), (0x40, b"PE\0\0\x64\xaa")],
        6,
        "it is cut",
    ),
    ("arm64", &[ZBOOT, SIZE, (0x3c, &[0xff; 4])], 6, "for neither amd64 nor arm64"),
];

type Fields = &'static [(usize, &'static [u8])];
const X86: Fields =
    &[(0x1f1, &[0]), (0x1f4, &[0; 4]), (0x1fe, &[0x55, 0xaa]), (0x202, b"HdrS"), (0x206, &[0x0f, 2]), (0x236, &[1])];
const ZBOOT: (usize, &[u8]) = (0, b"MZ\0\0zimg");
const SIZE: (usize, &[u8]) = (8, b"\xe8\x03\0\0\xb8\x0b\0\0");

#[apply(test)]
fn a_kernel_is_judged_by_how_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    for (arch, fields, code, words) in KERNELS {
        let mut bytes = crate::support::disk::noise(7, 4000);
        for (place, field) in *fields {
            bytes[*place..*place + field.len()].copy_from_slice(field);
        }
        fs::write(dir.path().join("kernel"), bytes).unwrap();
        let out = lint(dir.path(), &["--kernel", "kernel", "--arch", arch]);
        assert_eq!(out.status.code(), Some(*code), "{arch} {fields:?}: {}", said(&out));
        assert!(
            said(&out).contains(words) && said(&out).is_empty() == words.is_empty(),
            "{arch} {fields:?}: {}",
            said(&out)
        );
    }
}

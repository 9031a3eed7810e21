//! What an initramfs may be: the agent's judge against real kernels, the same bytes. A row is a boot.
//!
//! Whatever kernel is in `.tools/vm` is asked; `KUBESOLO_TEST_KERNELS` names others, with a colon between them.

use crate::support::initramfs_table::{Kernel, ROWS, Row, SHORT, Says, make, need_table, prepare};
use crate::support::kit::{Firmware, tools};
use crate::support::qemu::{Machine, kernel};
use crate::support::{need, need_file, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says all that lies there before anything is mounted, then ends the machine.
const INIT: &str = "#!/busybox sh\n/busybox echo START\n/busybox find / -xdev ! -path / \
    -exec /busybox stat -c 'HAS %f %h %n' '{}' +\n/busybox echo MD5 $(/busybox md5sum </m1)\n\
    /busybox echo DONE\n/busybox poweroff -f\n";
const FAILED: &str = "Initramfs unpacking failed: ";

struct Bench {
    dir: tempfile::TempDir,
    m1: String,
}

impl Bench {
    fn new() -> Bench {
        need(Firmware::Bios.program());
        need_table();
        let busybox = tools("amd64").join("bin/busybox");
        need_file(&busybox);
        let bench = Bench { dir: tempfile::tempdir().unwrap(), m1: String::new() };
        let dir = bench.dir.path();
        fs::write(dir.join("init"), INIT).unwrap();
        fs::copy(busybox, dir.join("busybox")).unwrap();
        run(Command::new("chmod").args(["755", "init", "busybox"]).current_dir(dir));
        prepare(dir, "init\nbusybox\n");
        let m1 = run(Command::new("md5sum").arg("m1").current_dir(dir));
        Bench { m1: m1.split(' ').next().unwrap().to_string(), ..bench }
    }

    /// What the agent lists: kind and mode, number of names of what is not a directory, path. Nothing: it refuses.
    fn listed(&self, file: &Path) -> Option<BTreeSet<String>> {
        let agent = std::env::var_os("KUBESOLO_UPDATE").unwrap();
        let out = Command::new(agent).args(["lint", "--list", "--initramfs"]).arg(file).output().unwrap();
        out.status.success().then(|| {
            let text = String::from_utf8(out.stdout).unwrap();
            text.lines()
                .map(|line| line.split('\t').collect::<Vec<_>>())
                .map(|words| format!("{} {} {} {}", words[0], words[1], words[2], words[3]))
                .collect()
        })
    }

    /// Boots a row. Returns: what the kernel complained of; what lay there; whether `m1` was whole.
    fn boot(&self, kernel: &Path, file: &Path) -> (Option<String>, BTreeSet<String>, bool) {
        let mut machine = Machine::start_kernel(kernel, file);
        machine.wait_off();
        let said = machine.said();
        let complaint = said.split_once(FAILED).map(|(_, rest)| rest.lines().next().unwrap_or_default().to_string());
        assert!(complaint.is_some() || said.contains("DONE"), "it did not come up: {said}");
        let has = said.lines().filter_map(|line| line.split_once("HAS ")).map(|(_, rest)| entry(rest)).collect();
        (complaint, has, said.contains(&format!("MD5 {}", self.m1)))
    }

    fn hold(&self, kernel: &Path, row: &Row, plain: &BTreeSet<String>) -> Result<(), String> {
        let (name, _, does, says) = row;
        let file = self.dir.path().join("out");
        fs::write(&file, make(self.dir.path(), row)).unwrap();
        let (complaint, has, is_whole) = self.boot(kernel, &file);
        let seen = format!("{name}: {complaint:?}, m1 whole: {is_whole}");
        let as_told = match does {
            Kernel::Fails(words) => complaint.as_ref().is_some_and(|why| why.contains(words)),
            Kernel::Whole => complaint.is_none() && is_whole,
            // What is missing, is so without a word.
            Kernel::Part => {
                complaint.is_none()
                    && (*says == Says::Takes || !is_whole || has.is_subset(plain) || matches!(says, Says::Warns(_)))
            }
        };
        if !as_told {
            return Err(format!("{seen}, and the row says {does:?}; there: {has:?}"));
        }
        match (self.listed(&file), says) {
            (None, Says::Refuses(_)) => Ok(()),
            (Some(listed), Says::Takes | Says::Warns(_)) if listed == has => Ok(()),
            (Some(listed), Says::Takes | Says::Warns(_)) => {
                let differ: Vec<_> = listed.symmetric_difference(&has).collect();
                Err(format!("{seen}; lint --list and the kernel differ: {differ:?}"))
            }
            (listed, _) => Err(format!("{seen}; the agent takes it: {}, and the row says {says:?}", listed.is_some())),
        }
    }
}

/// `81a4 1 /m1` as `lint --list` says it.
fn entry(line: &str) -> String {
    let mut words = line.splitn(3, ' ');
    let mode = u32::from_str_radix(words.next().unwrap(), 16).unwrap();
    let (links, path) = (words.next().unwrap(), words.next().unwrap());
    let kind = match mode >> 12 {
        4 => 'd',
        8 => 'f',
        10 => 'l',
        2 => 'c',
        6 => 'b',
        1 => 'p',
        _ => 's',
    };
    // A directory's number counts what lies in it.
    let links = if kind == 'd' { "1" } else { links };
    format!("{kind} {:o} {links} {path}", mode & 0o7777)
}

/// Those here, and those that somebody names.
fn kernels() -> Vec<PathBuf> {
    let named = std::env::var("KUBESOLO_TEST_KERNELS").unwrap_or_default();
    let named = named.split(':').filter(|name| !name.is_empty()).map(PathBuf::from);
    kernel("amd64").into_iter().chain(named).collect()
}

fn hold_all(rows: impl Fn(&&Row) -> bool) {
    let (bench, kernels) = (Bench::new(), kernels());
    crate::support::require(!kernels.is_empty(), "a kernel in .tools/vm");
    let plain = bench.dir.path().join("plain");
    let row = ROWS.iter().find(|row| row.0 == "two members").unwrap();
    fs::write(&plain, make(bench.dir.path(), row)).unwrap();
    let plain = bench.listed(&plain).unwrap();
    let mut wrong = Vec::new();
    for kernel in kernels {
        for row in ROWS.iter().filter(&rows) {
            if let Err(why) = bench.hold(&kernel, row, &plain) {
                wrong.push(format!("{}: {why}", kernel.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[apply(test)]
fn kernels_do_with_an_initramfs_what_the_agent_says() {
    hold_all(|row| SHORT.contains(&row.0));
}

#[apply(long_test)]
fn kernels_do_with_every_shape_what_the_agent_says() {
    let only = std::env::var("KUBESOLO_TEST_ROWS").unwrap_or_default();
    hold_all(|row| row.0.contains(&only));
}

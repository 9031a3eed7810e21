//! Wherever a machine stands, what `status`, `apply`, `activate` and `rollback` name as the way on works: each command that is
//! named is run, until one does what it was named for.

use crate::support::disk::{A, B};
use crate::support::need;
use crate::support::release::{Medium, Release};
use crate::support::root::Run;
use crate::support::signing::KeyPair;
use crate::support::trial::{Trial, spoil, wipe};
use std::fs;
use std::path::PathBuf;

/// What the slot holds that does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// What ran before.
    Old,
    Staged,
    /// Staged, and called off.
    Discarded,
    /// Activated, and called off.
    CalledOff,
    /// It failed here, and is to blame.
    Failed,
    /// Staged, and the keys do not accept it any more.
    StagedUntrusted,
    /// Called off, and the keys do not accept it any more.
    Untrusted,
    Damaged,
    /// What was staged is.
    StagedDamaged,
}

/// What is wrong with the running slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    Valid,
    /// Zeros over its beginning.
    Wiped,
    /// A bit in a file: not seen without reading all of it.
    Rotten,
}

/// How it has to end, whichever command is begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A command does it; which one, is the command's to say.
    Done,
    /// The other slot is active, on trial.
    OnTrial,
    /// The same, once the keys accept what it holds.
    OnceTrusted,
    /// Nothing on this machine helps, and it is said.
    Provision,
}

use End::{Done, OnTrial, OnceTrusted, Provision};

/// A reader adds a line: the running slot, the other one; what `status` names; how it ends.
const WAYS: &[(Here, Other, &str, End)] = &[
    (Here::Valid, Other::Old, "`check` asks for an update", Done),
    (Here::Valid, Other::Staged, "`activate`, then restart", Done),
    (Here::Valid, Other::Discarded, "`check` asks for an update", Done),
    (Here::Valid, Other::CalledOff, "`check` asks for an update", Done),
    (Here::Valid, Other::Failed, "`check` asks for the next version; this one is not tried again", Done),
    (
        Here::Valid,
        Other::StagedUntrusted,
        "what is staged is not accepted any more, see the NOTE; `apply`",
        OnceTrusted,
    ),
    (Here::Valid, Other::Untrusted, "`check` asks for an update", OnceTrusted),
    (Here::Valid, Other::Damaged, "`check` asks for an update", Done),
    (Here::Valid, Other::StagedDamaged, "`apply` writes it anew", Done),
    (Here::Wiped, Other::Old, "`rollback`, then restart: slot A is valid,", OnTrial),
    (Here::Wiped, Other::Staged, "`activate`, then restart: slot B is staged, and valid", OnTrial),
    (Here::Wiped, Other::Discarded, "`rollback`, then restart: slot B is valid,", OnTrial),
    (Here::Wiped, Other::CalledOff, "`rollback`, then restart: slot B is valid,", OnTrial),
    (
        Here::Wiped,
        Other::Failed,
        "`rollback --retry-failed`, then restart: slot B is valid, what it holds failed",
        OnTrial,
    ),
    (Here::Wiped, Other::StagedUntrusted, "mend the keys: once they accept what slot B holds, `rollback`", OnceTrusted),
    (Here::Wiped, Other::Untrusted, "mend the keys: once they accept what slot B holds, `rollback`", OnceTrusted),
    (Here::Wiped, Other::Damaged, "do not restart: neither slot can be read", Provision),
    (Here::Wiped, Other::StagedDamaged, "do not restart: neither slot can be read", Provision),
    (Here::Rotten, Other::Old, "`check` asks for an update", Done),
    (Here::Rotten, Other::CalledOff, "`check` asks for an update", Done),
];

fn ready(trial: &Trial) {
    trial.root.install_check("10-ok", "exit 0");
}

fn make(here: Here, other: Other) -> Trial {
    let mut trial = match other {
        Other::Old | Other::Damaged => {
            let trial = Trial::booted();
            ready(&trial);
            trial.root.agent(&["healthcheck"]).expect(0, &["confirmed"]);
            trial
        }
        Other::CalledOff => Trial::activated(),
        Other::Failed => Trial::booted(),
        _ => Trial::staged(),
    };
    ready(&trial);
    match other {
        Other::Discarded | Other::CalledOff | Other::Untrusted => {
            trial.root.agent(&["rollback"]).expect(0, &[]);
        }
        Other::Failed => {
            trial.root.set_boot_variables(&["active_slot=A", "boot_success=1", "boot_counter=0", "rollback_from=B"]);
            trial.boot(A);
            trial.root.agent(&["healthcheck"]).expect(0, &["rolled back"]);
        }
        Other::Damaged => wipe(&mut trial, A),
        Other::StagedDamaged => wipe(&mut trial, B),
        _ => {}
    }
    if matches!(other, Other::StagedUntrusted | Other::Untrusted) {
        let keys = trial.root.path("etc/kubesolo/update-keys.d");
        fs::create_dir(&keys).unwrap();
        fs::write(keys.join("a.pub"), KeyPair::p256(trial.disk.dir(), "publisher").pem()).unwrap();
    }
    let number = if matches!(other, Other::Old | Other::Damaged) { B } else { A };
    match here {
        Here::Valid => {}
        Here::Wiped => wipe(&mut trial, number),
        Here::Rotten => spoil(&mut trial.disk, number, "vmlinuz"),
    }
    trial
}

/// The first command of ours that a text names, as it is typed. Input: `verb`: the command that said it, for an option alone.
fn named(text: &str, verb: &str) -> Option<Vec<String>> {
    const VERBS: [&str; 6] = ["apply", "activate", "rollback", "check", "verify", "healthcheck"];
    let words = |span: &str| -> Vec<String> { span.split(' ').map(str::to_owned).collect() };
    let spans = text.split('`').skip(1).step_by(2).map(|span| words(span.trim_start_matches("kubesolo-update ")));
    let option = text.split_once("(--retry-failed ").map(|_| words(&format!("{verb} --retry-failed")));
    spans.into_iter().find(|words| VERBS.contains(&words[0].as_str())).or(option)
}

fn run(trial: &Trial, words: &[String], medium: &Medium) -> Run {
    let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
    if ["apply", "check"].contains(&args[0]) {
        args.extend(["--layout", medium.path()]);
    }
    trial.root.agent(&args)
}

fn holds(trial: &Trial, here: Here, other: Other, begun: &str, end: End) {
    let what = format!("{here:?}, {other:?}: {begun}");
    let next = Medium::new(trial.disk.dir(), &Release::new("3.0.0"));
    let mut words = vec![begun.to_owned()];
    let mut told = String::new();
    let mut is_mended = false;
    for _ in 0..4 {
        let said = run(trial, &words, &next);
        // The screen has lines of 80 columns.
        let text = format!("{}{}", said.stdout, said.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        told += &format!("{words:?}: exit {}: {text}\n", said.code);
        let is_done = said.code == 0 && words[0] != "status";
        if is_done {
            break;
        }
        if end == Provision {
            assert!(
                words[0] == "activate"
                    || text.contains("write the disk anew with `usb-provision.sh`")
                    || words[0] == "rollback",
                "{what}:\n{told}"
            );
            assert!(named(&text, &words[0]).is_none_or(|words| words[0] == "apply"), "{what}:\n{told}");
            return;
        }
        let is_keys = text.contains("mend the keys") || said.code == 5;
        if end == OnceTrusted && is_keys && !is_mended {
            // Whoever mends the keys: a publisher's key is put back, or a policy.
            fs::remove_file(trial.root.path("etc/kubesolo/update-keys.d/a.pub")).unwrap();
            is_mended = true;
            words = named(&text, &words[0]).filter(|words| words[0] != "apply" || here == Here::Valid).unwrap_or(words);
            continue;
        }
        match named(&text, &words[0]) {
            Some(next) => words = next,
            // There is nothing to go back to, and nothing is wrong.
            None if said.code == 3 && begun == "rollback" && here == Here::Valid => return,
            None => panic!("{what}: no way on\n{told}"),
        }
    }
    let done = told.lines().any(|line| line.contains(": exit 0: ") && !line.starts_with("[\"status\""));
    assert!(done, "{what}: none of it works\n{told}");
    if end == OnTrial || (end == OnceTrusted && here == Here::Wiped) {
        let active = if matches!(other, Other::Old) { "A" } else { "B" };
        let vars = trial.root.boot_variables();
        assert_eq!((vars["active_slot"].as_str(), vars["boot_success"].as_str()), (active, "0"), "{what}:\n{told}");
        // What the damaged slot held is not to blame for it.
        let failed = fs::read_to_string(trial.root.path("var/lib/kubesolo/update/failed.json")).unwrap_or_default();
        assert!(!failed.contains("manual rollback"), "{what}: {failed}");
    }
}

/// What a command may change, but for the slots.
struct Before {
    files: Vec<(PathBuf, Vec<u8>)>,
    slots: [Vec<u8>; 2],
}

impl Before {
    const DIRS: [&str; 3] = ["boot/efi/boot/grub", "var/lib/kubesolo/update", "etc/kubesolo/update-keys.d"];

    fn of(trial: &Trial) -> Before {
        let files = Before::DIRS.iter().flat_map(|dir| fs::read_dir(trial.root.path(dir)).into_iter().flatten());
        let files = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let files = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        Before { files, slots: [trial.disk.bytes(A), trial.disk.bytes(B)] }
    }

    /// Puts everything back. Returns: whether it could: slots that were written are made anew.
    fn restore(&self, trial: &Trial) -> bool {
        for dir in Before::DIRS {
            for entry in fs::read_dir(trial.root.path(dir)).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    fs::remove_file(path).unwrap();
                }
            }
        }
        self.files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        self.slots == [trial.disk.bytes(A), trial.disk.bytes(B)]
    }
}

fn hold_all(is_it: impl Fn(Here) -> bool) {
    Trial::ready();
    need("openssl");
    for (here, other, next, end) in WAYS.iter().filter(|(here, ..)| is_it(*here)) {
        let mut made = None;
        for begun in ["rollback", "activate", "status", "apply"] {
            let trial = made.take().unwrap_or_else(|| make(*here, *other));
            if begun == "status" {
                let status = trial.root.agent(&["status", "--json"]).expect(0, &[]);
                assert!(status.jq(".next").starts_with(next), "{here:?}, {other:?}: {}", status.stdout);
            }
            let before = Before::of(&trial);
            holds(&trial, *here, *other, begun, *end);
            made = before.restore(&trial).then_some(trial);
        }
    }
}

#[apply(test)]
fn what_is_named_works_where_the_running_slot_is_valid() {
    hold_all(|here| here != Here::Wiped);
}

#[apply(test)]
fn what_is_named_works_where_the_running_slot_is_damaged() {
    hold_all(|here| here == Here::Wiped);
}

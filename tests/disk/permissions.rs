//! Who could have changed what root runs and believes: health checks, `update.conf`, keys, as a shell makes them in
//! `/etc/kubesolo`. Each row of `src/os/permissions_tests.rs` is a rule; these are who ask for it.

use crate::support::disk::{Disk, need_disks};
use crate::support::release::{Medium, Release};
use crate::support::root::{Root, Run, unfolded};
use crate::support::signing::KeyPair;
use crate::support::trial::Trial;
use crate::support::{command, need, run};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

/// Runs a shell in `/etc/kubesolo`.
fn change(root: &Root, script: &str) {
    let script = format!("umask 022; {script}");
    run(Command::new("sh").current_dir(root.path("etc/kubesolo")).args(["-euc", &script]));
}

/// What a shell does with `health.d/10-site`, which is root's and mode 755, and words of what is said; empty: it is run.
const CHECKS: &[(&str, &str)] = &[
    (":", ""),
    ("chmod 700 health.d/10-site", ""),
    ("mkdir o; mv health.d/10-site o; ln -s ../o/10-site health.d", ""),
    ("mkdir o; mv health.d/10-site o; ln -s $PWD/o/10-site health.d", ""),
    (
        "mkdir -p health.d/..1; mv health.d/10-site health.d/..1; ln -s ..1 health.d/..data; ln -s ..data/10-site health.d",
        "",
    ),
    ("mv health.d o; ln -s o health.d", ""),
    ("echo text >health.d/README; chmod 664 health.d/README", ""),
    ("chown 65534 health.d/10-site", "10-site: it belongs to user 65534, who could change it (run `chown root "),
    ("chown 65534 health.d/10-site; chmod 666 health.d/10-site", "10-site: it belongs to user 65534"),
    (
        "echo text >health.d/10-site; chown 65534 health.d/10-site; chmod 644 health.d/10-site",
        "it belongs to user 65534",
    ),
    ("chmod 775 health.d/10-site", "10-site: its mode is 775: others than its owner may write it (run `chmod go-w "),
    ("chmod 757 health.d/10-site", "10-site: its mode is 757"),
    (
        "mkdir o; mv health.d/10-site o; chown 65534 o/10-site; ln -s ../o/10-site health.d",
        "put a copy in the place of the link",
    ),
    ("mkdir o; mv health.d/10-site o; chown 65534 o; ln -s ../o/10-site health.d", "/o: it belongs to user 65534"),
    ("mkdir o; mv health.d/10-site o; chmod 777 o; ln -s ../o/10-site health.d", "/o: its mode is 777"),
    ("mkdir o; echo text >o/10-site; chown 65534 o/10-site; ln -sf ../o/10-site health.d", "it belongs to user 65534"),
    ("mkdir o; chown 65534 o; ln -sf ../o health.d/20-site", ""),
    ("ln -s nowhere health.d/20-site", "20-site: No such file"),
    // What is neither a file nor a directory is no check; a link to /dev/null masks one.
    ("mkfifo health.d/20-site; chmod 755 health.d/20-site", ""),
    ("ln -s /dev/null health.d/20-site", ""),
    ("mkfifo health.d/20-site; chown 65534 health.d/20-site", "20-site: it belongs to user 65534"),
    ("chown 65534 health.d", "health.d: it belongs to user 65534"),
    ("chmod 1777 health.d", "health.d: its mode is 1777"),
    ("chmod 777 .", "kubesolo: its mode is 777"),
];

/// One that is not run is a check that failed.
#[apply(test)]
fn root_runs_no_check_that_another_user_could_have_changed() {
    Trial::ready();
    let trial = Trial::booted();
    let witness = trial.root.path("run/witness");
    let mut faults = Vec::new();
    for (script, words) in CHECKS {
        change(&trial.root, "chmod 755 .; rm -rf health.d o");
        let _ = fs::remove_file(&witness);
        // Whatever it says, the trial goes on: the last row has to be asked as the first was.
        trial.root.install_check("10-site", &format!("touch {}; exit 1", witness.display()));
        change(&trial.root, script);
        let Run { code, stdout, stderr } = trial.root.agent(&["healthcheck", "--timeout", "0"]);
        let said = unfolded(&format!("{stdout}{stderr}"));
        let is_right = match *words {
            "" => witness.exists() && said.contains("10-site"),
            words => !witness.exists() && said.contains("NOT healthy") && said.contains(words),
        };
        if code != 9 || !is_right {
            faults.push(format!("{script}: exit code {code}, run: {}: {said}", witness.exists()));
        }
    }
    assert!(faults.is_empty(), "{}: {faults:#?}", faults.len());
    trial.assert_boot("B", "0", "2", "");
    // One that only warns is not run either, and costs no trial.
    change(&trial.root, "chmod 755 .; rm -rf health.d o");
    let _ = fs::remove_file(&witness);
    trial.root.install_check("10-ok", "exit 0");
    trial.root.install_check("wanted/20-site", &format!("touch {}", witness.display()));
    chown(trial.root.path("etc/kubesolo/health.d/wanted/20-site"), Some(65534), None).unwrap();
    let words = ["warning", "20-site: it belongs to user 65534", "the trial boot is confirmed"];
    trial.root.agent(&["healthcheck"]).expect(0, &words);
    assert!(!witness.exists());
}

/// What a shell does with `update.conf`, which is root's and mode 644, and words of what is said; empty: it counts.
const CONFIGURATIONS: [(&str, &str); 13] = [
    (":", ""),
    ("mkdir o; mv update.conf o/c; ln -s o/c update.conf", ""),
    ("mkdir ..1; mv update.conf ..1; ln -s ..1 ..data; ln -s ..data/update.conf update.conf", ""),
    (
        "chown 65534 update.conf; chmod 666 update.conf",
        "update.conf: it belongs to user 65534, who could change it (run `chown root ",
    ),
    ("chmod 666 update.conf", "update.conf: its mode is 666: others than its owner may write it (run `chmod go-w "),
    ("chmod 664 update.conf", "update.conf: its mode is 664"),
    ("mkdir o; mv update.conf o/c; chown 65534 o/c; ln -s o/c update.conf", "put a copy in the place of the link"),
    ("mkdir o; mv update.conf o/c; chmod 777 o; ln -s o/c update.conf", "/o: its mode is 777"),
    ("rm update.conf; mkfifo update.conf", "update.conf: not a regular file"),
    ("ln -sf nowhere update.conf", "nowhere: No such file"),
    ("chmod 777 .", "kubesolo: its mode is 777"),
    ("chmod 1777 .; rm update.conf", "kubesolo: its mode is 1777"),
    ("chown 65534 .", "kubesolo: it belongs to user 65534"),
];

/// As one that does not parse: what changes the machine refuses, and what a damaged machine needs works, and says it.
#[apply(test)]
fn a_configuration_that_another_user_could_have_changed_is_none() {
    Trial::ready();
    let trial = Trial::booted();
    trial.root.install_check("10-ok", "exit 0");
    let text = fs::read_to_string(trial.root.path("etc/kubesolo/update.conf")).unwrap();
    let restore = || {
        change(&trial.root, "chmod 755 .; chown 0 .; rm -rf update.conf ..1 ..data o");
        trial.root.configure(&text);
    };
    for (script, words) in CONFIGURATIONS {
        eprintln!("{script}");
        restore();
        change(&trial.root, script);
        let offered = ["--layout", trial.medium.path()];
        let status = trial.root.agent(&["status", "--json"]).expect(0, &[]);
        let fault = status.jq(".remarks | join(\" \")");
        if words.is_empty() {
            assert!(!fault.contains("trust "), "{fault}");
            trial.root.agent(&[&["check"], &offered[..]].concat()).expect(3, &["up to date"]);
            continue;
        }
        assert!(fault.contains(words), "{fault}");
        for typed in ["check", "apply"] {
            trial.root.agent(&[&[typed], &offered[..]].concat()).expect(2, &[words]);
        }
        trial.root.agent(&["healthcheck"]).expect(9, &["NOT healthy", "configuration", words]);
        trial.root.agent(&["metrics", "--once"]).expect(0, &[words]);
        trial.root.agent(&["verify"]).expect(if words.contains("kubesolo: ") { 2 } else { 0 }, &[words]);
    }
    trial.assert_boot("B", "0", "2", "");
    trial.root.agent(&["rollback"]).expect(0, &["it belongs to user 65534", "slot A, which was confirmed before"]);
    trial.assert_boot("A", "1", "2", "");
    // One that is typed is held to the same, but for the directory: in a sticky one it is its owner's alone.
    restore();
    let typed = trial.root.path("run/typed.conf");
    fs::write(&typed, &text).unwrap();
    fs::set_permissions(trial.root.path("run"), fs::Permissions::from_mode(0o1777)).unwrap();
    let check = |path: &str, code: i32, words: &[&str]| {
        let more = ["--config", path, "--layout", trial.medium.path()];
        trial.root.agent(&[&["check"], &more[..]].concat()).expect(code, words);
    };
    let path = typed.to_str().unwrap();
    check(path, 3, &["up to date"]);
    check("run/typed.conf", 3, &["up to date"]);
    check("run/nothing.conf", 2, &["there is no such file"]);
    // Of a relative path the way begins in the working directory.
    fs::set_permissions(trial.root.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    check("run/typed.conf", 2, &["trust .: its mode is 777"]);
    fs::set_permissions(trial.root.path(""), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&typed, fs::Permissions::from_mode(0o664)).unwrap();
    check(path, 2, &["typed.conf: its mode is 664"]);
    check("run/typed.conf", 2, &["typed.conf: its mode is 664"]);
    fs::set_permissions(&typed, fs::Permissions::from_mode(0o644)).unwrap();
    chown(&typed, Some(65534), None).unwrap();
    check(path, 2, &["typed.conf: it belongs to user 65534"]);
    chown(&typed, None, Some(65534)).unwrap();
    chown(trial.root.path("run"), Some(65534), None).unwrap();
    check(path, 2, &["it belongs to user 65534"]);
}

/// What a shell does with `update-keys.d`, which has one good key, and words of what is said; empty: it counts.
const KEYS: [(&str, &str); 11] = [
    (":", ""),
    ("mv update-keys.d o; ln -s o update-keys.d", ""),
    ("chown 65534 update-keys.d/release.pub", "release.pub: it belongs to user 65534"),
    ("chmod 666 update-keys.d/release.pub", "release.pub: its mode is 666"),
    ("cd update-keys.d; mv release.pub ../k; ln -s ../k release.pub", "release.pub: a symbolic link"),
    ("rm update-keys.d/*; mkfifo update-keys.d/release.pub", "release.pub: not a regular file"),
    ("chown 65534 update-keys.d", "update-keys.d: it belongs to user 65534"),
    ("chmod 1777 update-keys.d", "update-keys.d: its mode is 1777"),
    ("mkdir o; mv update-keys.d o/d; chown 65534 o; ln -s o/d update-keys.d", "/o: it belongs to user 65534"),
    ("mkdir update-keys.d/revoked; chown 65534 update-keys.d/revoked", "revoked: it belongs to user 65534"),
    (
        "mkdir update-keys.d/revoked; : >update-keys.d/revoked/l; chmod 666 update-keys.d/revoked/l",
        "revoked/l: its mode is 666",
    ),
];

#[apply(test)]
fn keys_that_another_user_could_have_changed_stop_every_update() {
    need_disks();
    need("openssl");
    let disk = Disk::new(24, 16);
    let (root, medium) = (Root::new(&disk), Medium::new(disk.dir(), &Release::new("2.0.0")));
    let key = KeyPair::p256(disk.dir(), "key").public;
    let config = disk.dir().join("typed.conf");
    fs::copy(root.path("etc/kubesolo/update.conf"), &config).unwrap();
    for (script, words) in KEYS {
        eprintln!("{script}");
        change(&root, "rm -rf update-keys.d o k; mkdir update-keys.d");
        fs::copy(&key, root.path("etc/kubesolo/update-keys.d/release.pub")).unwrap();
        change(&root, "chmod 644 update-keys.d/release.pub");
        change(&root, script);
        let (code, words) = if words.is_empty() { (5, "not signed") } else { (2, words) };
        for typed in ["check", "apply"] {
            root.agent(&[typed, "--layout", medium.path()]).expect(code, &[words]);
        }
    }
    // The directory of the agent's configuration, where `update.conf` is not asked for.
    change(&root, "rm -rf update-keys.d o k; chmod 1777 .");
    let typed = ["check", "--config", config.to_str().unwrap(), "--layout", medium.path()];
    root.agent(&typed).expect(2, &["kubesolo: its mode is 1777"]);
    change(&root, "chmod 755 .; chown 65534 .");
    root.agent(&typed).expect(2, &["kubesolo: it belongs to user 65534"]);
    change(&root, "chown 0 .");
    root.agent(&typed).expect(0, &["2.0.0"]);
}

/// A user whose files they are needs no root for them, and root's are as good.
#[apply(test)]
fn a_users_own_files_count_for_that_user() {
    need_disks();
    need("setpriv");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    fs::set_permissions(root.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    root.configure("sever = x\n");
    let asked = || {
        let mut setpriv = command("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        Run::from(root.command_under(setpriv, &["check"]).output().unwrap())
    };
    asked().expect(2, &["unknown key `sever`"]);
    change(&root, "chown -R 65534 .");
    asked().expect(2, &["unknown key `sever`"]);
    change(&root, "chown 65533 update.conf");
    asked().expect(2, &["it belongs to user 65533"]);
    root.agent(&["check"]).expect(2, &["it belongs to user 65534"]);
}

/// `inspect` touches no machine: root may name the file of a user, whose `docker login` has to work afterwards.
#[apply(test)]
fn inspect_takes_the_credentials_of_any_owner_that_others_cannot_read() {
    need_disks();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    fs::write(&file, "{\"auths\":{}}").unwrap();
    chown(&file, Some(1000), None).unwrap();
    for (mode, code, words) in [(0o600, 6, "127.0.0.1:1"), (0o644, 2, "others can read or change a secret")] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let mut inspect = Command::new(Root::program());
        let out =
            inspect.args(["inspect", "http://127.0.0.1:1/os", "--retries", "0", "--authfile"]).arg(&file).output();
        let out = out.unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(code) && said.contains(words), "{mode:o}: {out:?}");
    }
}

/// What was read need not be what is on the disk: a confirmed trial leaves a state, also where it was lost.
#[apply(test)]
fn a_state_that_was_lost_is_written_when_the_trial_is_confirmed() {
    Trial::ready();
    let trial = Trial::booted();
    trial.root.install_check("10-ok", "exit 0");
    let state = trial.root.path("var/lib/kubesolo/update/state.json");
    fs::remove_file(&state).unwrap();
    trial.root.agent(&["healthcheck"]).expect(0, &["the trial boot is confirmed"]);
    assert!(fs::read_to_string(&state).unwrap().contains("\"phase\":\"idle\""));
}

//! What a site revokes on its data partition: the boot hook, run by a real busybox in a root of its own, and then the agent.
//!
//! A list that forbids is never left out: it counts, or nothing is taken.

use crate::support::disk::need_disks;
use crate::support::machine::Machine;
use crate::support::release::Release;
use crate::support::root::Run;
use crate::support::signing::KeyPair;
use crate::support::web::{Answer, Web};
use crate::support::{find, need_all, run};
use kubesolo_update::parts::base::base64;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const HOOK: &str = "deploy/initramfs/kubesolo-update-boot";
const MARK: &str = "site.not-taken";
/// The calls that look at a file by its name.
const LOOK: &str = "stat,lstat,newfstatat,statx";

fn ready() {
    need_disks();
    need_all(&["busybox", "openssl", "strace"]);
}

/// A release that a key has signed which was stolen, and a machine that trusts this key and another.
struct Bench {
    machine: Machine,
    web: Web,
    stolen: KeyPair,
    spare: KeyPair,
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (stolen, spare) = (KeyPair::p256(dir.path(), "stolen"), KeyPair::p256(dir.path(), "spare"));
        let release = Release::new("2.0.0");
        let document = release.latest_json();
        let signature = base64::encode(&stolen.sign(document.as_bytes()));
        let web = Web::start(move |path| match path {
            "/latest.json" => Answer::ok(document.clone()),
            "/latest.json.sig" => Answer::ok(signature.clone()),
            _ => Answer::status(404),
        });
        let machine = Machine::new();
        machine.root.configure("retries = 0\n");
        Bench { machine, web, stolen, spare, dir }
    }

    /// What an image brings, and a site that revokes the stolen key, as it should be; then changed by a script.
    /// Input: `script`: run in `site/`, with the fingerprint as `$1`.
    fn booted(&self, script: &str) -> Booted {
        let root = tempfile::tempdir_in(self.dir.path()).unwrap();
        let path = |name: &str| root.path().join(name);
        for name in ["bin", "proc", "dev", "var/lib/kubesolo/site/update-keys.d/revoked", "etc/kubesolo/update-keys.d"]
        {
            fs::create_dir_all(path(name)).unwrap();
        }
        let busybox = find("busybox").unwrap();
        fs::copy(&busybox, path("bin/busybox")).unwrap();
        for applet in run(Command::new(&busybox).arg("--list")).lines().filter(|name| *name != "busybox") {
            symlink("busybox", path("bin").join(applet)).unwrap();
        }
        // In place of the one that stays: it says that it was started.
        fs::remove_file(path("bin/crond")).unwrap();
        fs::write(path("bin/crond"), "#!/bin/sh\necho started >/crond\n").unwrap();
        run(Command::new("chmod").arg("755").arg(path("bin/crond")));
        run(Command::new("cp").args(["-a", "/dev/null"]).arg(path("dev/null")));
        fs::write(path("proc/mounts"), "/dev/sda4 /var/lib/kubesolo ext4 rw 0 0\n").unwrap();
        fs::create_dir(path("etc/kubesolo/crontabs")).unwrap();
        fs::write(path("etc/kubesolo/crontabs/root"), "7 * * * * true\n").unwrap();
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(HOOK), path("hook")).unwrap();
        for key in [&self.stolen, &self.spare] {
            fs::copy(&key.public, path("etc/kubesolo/update-keys.d").join(key.public.file_name().unwrap())).unwrap();
        }
        let site = path("var/lib/kubesolo/site");
        fs::write(site.join("update-keys.d/revoked/stolen"), format!("{}\n", self.stolen.fingerprint())).unwrap();
        run(Command::new("chmod").args(["-R", "go-w"]).arg(&site).arg(path("etc/kubesolo")));
        let booted = Booted { root };
        booted.change(script, &self.stolen.fingerprint());
        booted
    }

    /// Asks what is offered, with the keys that the hook has left.
    fn check(&self, booted: &Booted) -> Run {
        let (made, keys) =
            (booted.path("etc/kubesolo/update-keys.d"), self.machine.root.path("etc/kubesolo/update-keys.d"));
        let _ = fs::remove_dir_all(&keys);
        run(Command::new("cp").arg("-a").arg(made).arg(&keys));
        self.machine.root.agent(&["check", "--server", &self.web.url("")])
    }
}

/// A root for the hook.
struct Booted {
    root: TempDir,
}

impl Booted {
    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn change(&self, script: &str, fingerprint: &str) {
        let mut change = Command::new("sh");
        change.current_dir(self.path("var/lib/kubesolo/site")).args(["-euc", script, "sh", fingerprint]);
        run(&mut change);
    }

    /// Runs the hook. Input: `under`: what a shell runs it with. Returns: what it said.
    fn hook(&self, under: &str) -> String {
        let mut hook = Command::new("sh");
        hook.args(["-euc", &format!("umask 000; {under} chroot \"$1\" /bin/sh /hook"), "sh"]).arg(self.root.path());
        let out = hook.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8_lossy(&out.stderr).into_owned()
    }
}

/// What is done to a good site, what `check` ends with, and words of it.
const CASES: &[(&str, &str, i32, &str)] = &[
    ("as it should be", ":", 5, "stolen.pub, revoked"),
    ("no list at all", "rm -r update-keys.d", 0, "2.0.0"),
    ("no site at all", "cd ..; rm -r site", 0, "2.0.0"),
    ("an empty list", ": >update-keys.d/revoked/stolen", 0, "2.0.0"),
    // The file.
    ("mode 664", "chmod 664 update-keys.d/revoked/stolen", 2, "revoked/stolen must be a file of root's"),
    ("mode 666", "chmod 666 update-keys.d/revoked/stolen", 2, "revoked/stolen must be a file of root's"),
    ("mode 602", "chmod 602 update-keys.d/revoked/stolen", 2, "revoked/stolen must be a file of root's"),
    ("mode 000", "chmod 000 update-keys.d/revoked/stolen", 5, "stolen.pub, revoked"),
    ("of nobody's", "chown nobody update-keys.d/revoked/stolen", 2, "revoked/stolen must be a file of root's"),
    ("a link", "mv update-keys.d/revoked/stolen ../l; ln -s ../../../l update-keys.d/revoked/stolen", 2, "and no link"),
    ("a link to nowhere", "ln -sf /nowhere update-keys.d/revoked/stolen", 2, "and no link"),
    ("hidden", "cd update-keys.d/revoked; mv stolen .stolen", 5, "stolen.pub, revoked"),
    ("hidden behind two dots", "cd update-keys.d/revoked; mv stolen ..stolen", 5, "stolen.pub, revoked"),
    ("hidden, mode 664", "cd update-keys.d/revoked; mv stolen .stolen; chmod 664 .stolen", 2, "/.stolen must be"),
    ("hidden, a link to nowhere", "ln -sf /nowhere update-keys.d/revoked/.stolen", 2, "/.stolen must be"),
    ("a backup", "cd update-keys.d/revoked; mv stolen stolen~", 5, "stolen.pub, revoked"),
    ("a directory in it", "cd update-keys.d/revoked; mkdir old; mv stolen old", 2, "revoked/old must be a file"),
    ("copied into itself", "cd update-keys.d/revoked; mkdir revoked; mv stolen revoked", 2, "revoked/revoked must be"),
    ("a pipe", "mkfifo update-keys.d/revoked/pipe", 2, "revoked/pipe must be a file"),
    ("no list", "echo stolen >update-keys.d/revoked/stolen", 2, "line 1"),
    ("a list without end", "yes '#' | head -c 300000 >>update-keys.d/revoked/stolen", 2, "longer than"),
    (
        "a name too long",
        "cd update-keys.d/revoked; mv stolen $(head -c 252 /dev/zero | tr '\\0' s)",
        2,
        "not be taken over",
    ),
    ("a good one beside a bad one", "cd update-keys.d/revoked; cp -p stolen b; chmod 664 b", 2, "revoked/b must be"),
    // Its directory.
    ("revoked, mode 775", "chmod 775 update-keys.d/revoked", 2, "revoked must be a directory of root's"),
    ("revoked, of nobody's", "chown nobody update-keys.d/revoked", 2, "revoked must be a directory of root's"),
    (
        "revoked, a link",
        "cd update-keys.d; mv revoked ../../r; ln -s ../../r revoked",
        2,
        "revoked must be a directory",
    ),
    (
        "revoked, a link to nowhere",
        "cd update-keys.d; rm -r revoked; ln -s /no revoked",
        2,
        "revoked must be a directory",
    ),
    (
        "revoked, a file",
        "cd update-keys.d; mv revoked/stolen s; rmdir revoked; mv s revoked",
        2,
        "revoked must be a directory",
    ),
    // The one above it.
    ("update-keys.d, mode 775", "chmod 775 update-keys.d", 2, "update-keys.d must be a directory of root's"),
    ("update-keys.d, of nobody's", "chown nobody update-keys.d", 2, "update-keys.d must be a directory of root's"),
    (
        "update-keys.d, a link",
        "mv update-keys.d ../k; ln -s ../k update-keys.d",
        2,
        "update-keys.d must be a directory",
    ),
    ("update-keys.d, a link to nowhere", "rm -r update-keys.d; ln -s /no update-keys.d", 2, "update-keys.d must be"),
    ("site, mode 775", "chmod 775 .", 2, "site must be a directory of root's"),
    ("site, of nobody's", "chown nobody .", 2, "site must be a directory of root's"),
    ("site, a link", "cd ..; mv site s; ln -s s site", 2, "site must be a directory of root's"),
    ("site, a link to nowhere", "cd ..; rm -r site; ln -s /no site", 2, "site must be a directory of root's"),
    ("site, mode 775, without keys", "rm -r update-keys.d; chmod 775 .", 0, "2.0.0"),
    // Elsewhere.
    ("Revoked", "cd update-keys.d; mv revoked Revoked", 2, "/Revoked has a name that says that it revokes"),
    (".revoked", "cd update-keys.d; mv revoked .revoked", 2, "/.revoked has a name that says"),
    ("revoked.txt", "cd update-keys.d; mv revoked/stolen revoked.txt", 2, "/revoked.txt has a name that says"),
    ("among the keys", "cd update-keys.d; mv revoked/stolen stolen", 2, "site-stolen: a list of digests"),
    ("among the keys, hidden", "cd update-keys.d; mv revoked/stolen .stolen", 2, "site-.stolen: a list of digests"),
    (
        "among the keys, called like an editor's lock",
        "cd update-keys.d; mv revoked/stolen '.#stolen'",
        2,
        "stolen: a list of digests",
    ),
    ("among the keys, mode 664", "cd update-keys.d; mv revoked/stolen s; chmod 664 s", 2, "site-s: a list of digests"),
    ("revocations", "mv update-keys.d/revoked revocations", 2, "site/revocations is not looked into"),
    (
        "a key called a revocation",
        "cd update-keys.d; mv revoked/stolen revocation-a.pub",
        2,
        "revocation-a.pub has a name",
    ),
    (
        "among the keys, as one",
        "cd update-keys.d; mv revoked/stolen stolen.pub",
        2,
        "site-stolen.pub: a list of digests",
    ),
    (
        "among the keys, as one that does not count",
        "cd update-keys.d; mv revoked/stolen stolen.pub; chmod 664 stolen.pub",
        2,
        ".site-stolen.pub: a list of digests",
    ),
    ("another directory", "cd update-keys.d; mv revoked stolen", 2, "/stolen is neither a file nor"),
    (
        "keys in themselves",
        "mkdir -p update-keys.d/update-keys.d; mv update-keys.d/revoked update-keys.d/update-keys.d",
        2,
        "is neither a file nor",
    ),
    ("above the keys", "mv update-keys.d/revoked .", 2, "site/revoked is not looked into"),
    ("beside the keys", "mv update-keys.d keys", 2, "keys/revoked is not looked into"),
    ("site in itself", "mkdir site; mv update-keys.d site", 2, "site/site/update-keys.d is not looked into"),
    (
        "above the keys, mode 775",
        "mv update-keys.d/revoked .; rm -r update-keys.d; chmod 775 .",
        2,
        "site/revoked is not",
    ),
    ("a newline", "cd update-keys.d/revoked; mv stolen \"a\nb\"", 2, "has a newline in its name"),
    ("a newline, a key", "cd update-keys.d; mv revoked/stolen \"a\nb.pub\"", 2, "has a newline in its name"),
    // What forbids nothing is passed over.
    ("a README", "cd update-keys.d; rm -r revoked; echo keys >README; chmod 666 README", 0, "2.0.0"),
    ("an editor's lock", "cd update-keys.d; rm -r revoked; ln -s me@here.1 '.#spare.pub'", 0, "2.0.0"),
    (
        "a key that others may write",
        "cp /dev/null update-keys.d/k.pub; chmod 666 update-keys.d/k.pub",
        5,
        "stolen.pub, revoked",
    ),
];

#[apply(test)]
fn what_a_site_revokes_counts_or_stops_the_agent() {
    ready();
    let bench = Bench::new();
    let mut faults = Vec::new();
    for (name, script, code, words) in CASES {
        let booted = bench.booted(script);
        let said = booted.hook("exec");
        let check = bench.check(&booted);
        let all = format!("{}{}", check.stdout, check.stderr);
        if check.code != *code || !all.contains(words) {
            faults.push(format!("{name}: {} instead of {code}, {words}:\n{all}\nthe hook said: {said}", check.code));
        }
        assert!(booted.path("crond").exists(), "{name}: cron does not start: {said}");
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), CASES.len(), faults.join("\n"));
}

/// The same without the hook: what was put there counts, or stops the agent, at once and not only from the next boot on.
#[apply(test)]
fn what_a_site_revokes_counts_or_stops_the_agent_before_the_next_boot() {
    ready();
    let bench = Bench::new();
    let mut faults = Vec::new();
    for (name, script, code, words) in CASES {
        let booted = bench.booted(script);
        let site = bench.machine.root.path("var/lib/kubesolo/site");
        run(Command::new("rm").arg("-rf").arg(&site));
        let (code, words) = match (*name, *code) {
            // The hook copies it, under a longer name; or lists what it has copied.
            ("a name too long" | "a newline", _) => (5, "stolen.pub, revoked"),
            (_, 2) => (2, "/site"),
            (_, code) => (code, *words),
        };
        let lies = booted.path("var/lib/kubesolo/site");
        if lies.symlink_metadata().is_ok() {
            run(Command::new("cp").arg("-a").arg(lies).arg(&site));
        }
        let check = bench.check(&booted);
        let all = format!("{}{}", check.stdout, check.stderr);
        if check.code != code || !all.contains(words) {
            faults.push(format!("{name}: {} instead of {code}, {words}:\n{all}", check.code));
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), CASES.len(), faults.join("\n"));
}

#[apply(test)]
fn what_is_mended_counts_once_the_hook_has_run_again() {
    ready();
    let bench = Bench::new();
    let booted = bench.booted("chmod 664 update-keys.d/revoked/stolen; ln -s /no update-keys.d/revoked/other");
    booted.hook("exec");
    let stopped =
        bench.check(&booted).expect(2, &["/var/lib/kubesolo/site/update-keys.d/revoked/", "kubesolo-update-boot"]);
    assert!(!stopped.stderr.contains("64 hex digits"), "{stopped:?}");
    booted.change("rm update-keys.d/revoked/other", "");
    booted.hook("exec");
    bench.check(&booted).expect(2, &["revoked/stolen must be a file of root's"]);
    booted.change("chmod 644 update-keys.d/revoked/stolen", "");
    booted.hook("exec");
    bench.check(&booted).expect(5, &["stolen.pub, revoked"]);
    // What was copied to where it stops the agent is taken away again.
    booted.change("mv update-keys.d/revoked/stolen update-keys.d/stolen", "");
    booted.hook("exec");
    bench.check(&booted).expect(2, &["site-stolen: a list of digests"]);
    booted.change("mv update-keys.d/stolen update-keys.d/revoked/stolen.txt", "");
    booted.hook("exec");
    bench.check(&booted).expect(5, &["stolen.pub, revoked"]);
    // By hand, one directory too high: beside the keys.
    let above = bench.machine.root.path("etc/kubesolo/revoked.txt");
    fs::write(&above, format!("{}\n", bench.spare.fingerprint())).unwrap();
    bench.check(&booted).expect(2, &["etc/kubesolo/revoked.txt", "update-keys.d/revoked/"]);
    fs::remove_file(&above).unwrap();
    bench.check(&booted).expect(5, &["stolen.pub, revoked"]);
}

/// An image made of what lies in a machine's /etc has names of the hook's.
#[apply(test)]
fn what_an_image_revokes_stays_whatever_it_is_called() {
    ready();
    let bench = Bench::new();
    for name in ["site-stolen", MARK, "site.not-taken.old"] {
        let booted = bench.booted("echo '# nothing' >update-keys.d/revoked/stolen");
        let revoked = booted.path("etc/kubesolo/update-keys.d/revoked");
        fs::create_dir(&revoked).unwrap();
        fs::write(revoked.join(name), format!("{}\n", bench.stolen.fingerprint())).unwrap();
        // It was made of a machine's whole /etc.
        let taken = format!("boot of another\n/etc/kubesolo/update-keys.d/revoked/{name}\n");
        fs::write(booted.path("etc/kubesolo/site-taken"), taken).unwrap();
        for _ in 0..2 {
            let said = booted.hook("exec");
            bench.check(&booted).expect(5, &["stolen.pub, revoked"]);
            assert_eq!(said, "", "{name}");
        }
    }
}

/// By busybox's own crond, with processes of its own. A reader adds a line: the kernel command line, what is run, and how
/// many there are then.
#[apply(test)]
fn one_crond_runs_however_often_the_hook_does() {
    ready();
    need_all(&["unshare"]);
    let bench = Bench::new();
    let gone = "for n in $(seq 1000); do pidof crond >/dev/null || break; done";
    for (line, script, count) in [
        ("quiet", "/hook", "1"),
        ("quiet", "/hook; /hook; /hook", "1"),
        ("quiet", "busybox crond -b -L /dev/null -c /etc/kubesolo/crontabs; /hook", "1"),
        ("quiet", "mkdir /other; crond -c /other; /hook; /hook", "2"),
        ("quiet", &format!("/hook; kill $(pidof crond); {gone}; /hook"), "1"),
        ("quiet", "sh -c 'sleep 60; : crond -c /etc/kubesolo/crontabs ' & /hook", "1"),
        ("quiet kubesolo.shell", "/hook", "0"),
        ("kubesolo.shell kubesolo.slot=A", "/hook; /hook", "0"),
        ("xkubesolo.shell kubesolo.shell=no kubesolo.shells", "/hook", "1"),
    ] {
        let booted = bench.booted(":");
        let crond = booted.path("bin/crond");
        fs::remove_file(&crond).unwrap();
        symlink("busybox", &crond).unwrap();
        fs::remove_dir_all(booted.path("proc")).unwrap();
        fs::create_dir(booted.path("proc")).unwrap();
        fs::write(booted.path("cmdline"), format!("{line}\n")).unwrap();
        fs::set_permissions(booted.path("hook"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut machine = Command::new("unshare");
        machine.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-euc"]);
        machine.arg(
            "mount -t proc proc \"$1/proc\"; mount --bind \"$1/cmdline\" \"$1/proc/cmdline\"
            mount --bind \"$1/var/lib/kubesolo\" \"$1/var/lib/kubesolo\"; exec chroot \"$1\" /bin/sh -euc \"$2\"",
        );
        let counted = "n=0; for c in /proc/[0-9]*/cmdline; do
            if tr '\\000' '\\n' <$c | grep -qx crond; then n=$((n + 1)); fi; done; echo $n";
        machine.arg("sh").arg(booted.root.path()).arg(format!("{script}; {counted}"));
        let out = machine.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert_eq!(said.trim(), count, "{line}, {script}: {out:?}");
    }
}

/// What cannot be read, and what there is no room for.
#[apply(test)]
fn a_list_that_cannot_be_copied_stops_the_agent() {
    ready();
    let bench = Bench::new();
    // Writing fails, as on a file system that is full: the line in the mark, too.
    let full = bench.booted(":");
    let said = full.hook("trap '' XFSZ; ulimit -f 0; exec");
    assert!(full.path("etc/kubesolo/update-keys.d/revoked").join(MARK).is_dir(), "{said}");
    bench.check(&full).expect(2, &[MARK]);
    // What a disk that dies answers.
    for (place, call, words) in [
        ("update-keys.d/revoked/stolen", "read", "revoked/stolen could not be taken over"),
        ("update-keys.d/revoked/stolen", "open,openat", "revoked/stolen could not be taken over"),
        ("update-keys.d/revoked", "getdents64", "revoked cannot be listed"),
        ("update-keys.d", "getdents64", "update-keys.d cannot be listed"),
        // The directory names it, and its inode cannot be read.
        ("update-keys.d/revoked/stolen", LOOK, "revoked/stolen must be a file"),
        ("update-keys.d/revoked", LOOK, "revoked must be a directory"),
        ("update-keys.d", LOOK, "update-keys.d must be a directory"),
        ("", LOOK, "site must be a directory"),
    ] {
        let dying = bench.booted(":");
        let place = format!("site/{place}");
        let place = place.trim_end_matches('/');
        // By its name from within, and from without.
        let paths = format!("-P {} -P /var/lib/kubesolo/{place}", dying.path("var/lib/kubesolo").join(place).display());
        let said = dying.hook(&format!("exec strace -f -o /dev/null {paths} -e inject={call}:error=EIO"));
        assert!(said.contains(words), "{place}: {said}");
        bench.check(&dying).expect(2, &[words]);
    }
    // Not even the mark can be put there: nothing is updated by itself.
    let closed = bench.booted(":");
    fs::write(closed.path("etc/kubesolo/update-keys.d/revoked"), "").unwrap();
    let said = closed.hook("exec");
    assert!(said.contains("crond does not start") && !closed.path("crond").exists(), "{said}");
    bench.check(&closed).expect(2, &["revoked: not a directory"]);
}

/// A key that lies there under another name: everything is taken unsigned, and that is said.
#[apply(test)]
fn what_does_not_count_as_a_key_is_named() {
    ready();
    let bench = Bench::new();
    let (root, keys) = (&bench.machine.root, bench.machine.root.path("etc/kubesolo/update-keys.d"));
    let source = ["--server", &bench.web.url("")];
    let silent = |policy: &str| {
        root.configure(&format!("{policy}\nretries = 0\n"));
        root.agent(&[&["check"], &source[..]].concat())
    };
    let said = silent("signature = off").expect(0, &["2.0.0"]);
    assert!(!said.stderr.contains("does not count"), "{said:?}");
    for name in ["release.pem", "release.PUB", "release.pub.bak", ".release.pub", "release.pub "] {
        let _ = fs::remove_dir_all(&keys);
        fs::create_dir_all(&keys).unwrap();
        run(Command::new("chmod").arg("755").arg(&keys));
        fs::copy(&bench.stolen.public, keys.join(name)).unwrap();
        let said = silent("signature = off").expect(0, &[name, "it does not count: a key's name ends in .pub"]);
        assert!(said.stderr.contains("does not count"), "{name}: {said:?}");
        silent("signature = required").expect(5, &["no key is installed", name, "does not count"]);
        root.agent(&["verify"]).expect(0, &[name, "it does not count"]);
        // Beside a key it is passed over in silence, and no reason to stop.
        fs::copy(&bench.spare.public, keys.join("spare.pub")).unwrap();
        let said = silent("signature = off").expect(5, &["none is by an installed key"]);
        assert!(!said.stderr.contains("does not count"), "{name}: {said:?}");
    }
}

/// A hidden file is no key where it lies, so it is none where the hook puts it.
#[apply(test)]
fn what_is_hidden_is_no_key() {
    ready();
    let bench = Bench::new();
    for name in [".stolen.pub", "..stolen.pub", "._stolen.pub", ".#stolen.pub", ".pub"] {
        let booted = bench.booted("rm -r update-keys.d/revoked");
        fs::remove_file(booted.path("etc/kubesolo/update-keys.d/stolen.pub")).unwrap();
        let hidden = booted.path("var/lib/kubesolo/site/update-keys.d").join(name);
        fs::copy(&bench.stolen.public, &hidden).unwrap();
        run(Command::new("chmod").arg("666").arg(&hidden));
        let said = booted.hook("exec");
        let check = bench.check(&booted);
        assert!(check.code == 5, "{name}: {check:?}; the hook said: {said}");
    }
}

/// Where the hook had no data partition yet, and the agent has one: it reads the lists itself.
#[apply(test)]
fn a_list_that_the_hook_has_not_seen_counts() {
    ready();
    let bench = Bench::new();
    let booted = bench.booted(":");
    bench.check(&booted).expect(0, &["2.0.0"]);
    let lists = bench.machine.root.path("var/lib/kubesolo/site/update-keys.d/revoked");
    fs::create_dir_all(&lists).unwrap();
    fs::write(lists.join("stolen"), format!("{}\n", bench.stolen.fingerprint())).unwrap();
    run(Command::new("chmod").args(["-R", "go-w"]).arg(&lists));
    bench.check(&booted).expect(5, &["stolen.pub, revoked"]);
    bench.machine.root.agent(&["apply", "--server", &bench.web.url("")]).expect(5, &["stolen.pub, revoked"]);
    run(Command::new("chmod").arg("666").arg(lists.join("stolen")));
    for args in
        [&["check", "--server", &bench.web.url("")][..], &["apply", "--server", &bench.web.url("")], &["verify"]]
    {
        bench.machine.root.agent(args).expect(2, &["revoked/stolen", "its mode is 666"]);
    }
    bench.machine.root.agent(&["status"]).expect(0, &["no update is taken", "revoked/stolen"]);
}

//! `lint` of keys, lists of what is revoked and configuration: in a directory, in an initramfs, and what a site adds to that.
//! What it says of an initramfs is held against the machines' reader on what cpio unpacks of it.

use super::inject::said;
use crate::support::signing::KeyPair;
use crate::support::{need_all, run};
use kubesolo_update::parts::trust::keyring::{Demand, Keyring, SignaturePolicy};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn lint(dir: &Path, arguments: &[&str]) -> Output {
    let agent = std::env::var_os("KUBESOLO_UPDATE").unwrap();
    Command::new(agent).arg("lint").args(arguments).current_dir(dir).env("TMPDIR", dir.join("tmp")).output().unwrap()
}

/// Empty, but for `a.pub` and `b.pub`, `rsa.pub`, and `tmp`. Returns: the digests of the first two.
fn bench(dir: &Path) -> [String; 2] {
    need_all(&["openssl", "cpio", "gzip"]);
    let keys = ["a", "b"].map(|name| KeyPair::p256(dir, name));
    let rsa = "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 | openssl pkey -pubout -out rsa.pub; mkdir tmp";
    run(Command::new("sh").current_dir(dir).args(["-euc", rsa]));
    keys.map(|key| key.fingerprint())
}

fn shell(dir: &Path, script: &str, digests: &[String]) {
    let helpers = "umask 022
        pack() { (cd \"$1\" && find . -mindepth 1 | LC_ALL=C sort | cpio -o -H newc --quiet -R ${2:-+0:+0} | gzip -n); }
        k=t/etc/kubesolo; d=$k/update-keys.d";
    let script = format!("{helpers}; rm -rf t i keys site; mkdir -p $d/revoked; {script}");
    run(Command::new("sh").current_dir(dir).args(["-euc", &script, "sh"]).args(digests));
}

/// A script that makes the initramfs `i` of `t`, where `$k` is its /etc/kubesolo, `$d` the directory of keys with an empty
/// `revoked`, and `$1`, `$2` are the digests of a.pub and b.pub; and what is said: nothing, a warning, or why it is refused.
const IMAGES: &[(&str, Says)] = &[
    ("cp a.pub $d; pack t >i", Says::Takes),
    ("rm -r $d; pack t >i", Says::Takes),
    ("rm -r $k; pack t >i", Says::Takes),
    ("pack t >i", Says::Takes),
    ("cp a.pub rsa.pub $d; pack t >i", Says::Warns("rsa.pub: it is neither an Ed25519 nor an ECDSA P-256 key")),
    ("cp rsa.pub $d; pack t >i", Says::Refuses("none of the installed keys is good and not revoked")),
    (
        "{ echo ours:; cat a.pub; } >$d/a.pub; pack t >i",
        Says::Refuses("not one public key in PEM, with nothing before"),
    ),
    (
        "cp a.pub $d; head -c 5000 /dev/zero | tr '\\0' '\\n' >>$d/a.pub; pack t >i",
        Says::Refuses("longer than 4096 bytes"),
    ),
    ("cp a.pub $d; chmod 664 $d/a.pub; pack t >i", Says::Refuses("its mode is 664")),
    ("cp a.pub $d; chmod 775 $d; pack t >i", Says::Refuses("update-keys.d: its mode is 775")),
    ("cp a.pub $d; pack t +1000:+1000 >i", Says::Refuses("it belongs to user 1000 there, who could change it")),
    // Of two archives, the second is root's: what lies in the first is another user's.
    (
        "mkdir o; cp --parents -r $d o; cp a.pub o/$d; (cd o; pack t +1000:+1000) >i; rm -r o; cp b.pub $d; pack t >>i",
        Says::Warns("a.pub: it belongs to user 1000 there, who could change it (make the archive as root's"),
    ),
    (
        "mkdir o; cp --parents -r $d o; cp a.pub o/$d; (cd o; pack t +1000:+1000) >i; rm -r o; cp rsa.pub $d; pack t >>i",
        Says::Refuses(
            "none of the installed keys is good and not revoked: trust /etc/kubesolo/update-keys.d/a.pub: it belongs",
        ),
    ),
    (
        "mkdir o; cp --parents -r $d o; cp a.pub o/$d/.a.pub; (cd o; pack t +1000:+1000) >i; rm -r o; cp b.pub $d; pack t >>i",
        Says::Takes,
    ),
    (
        "mkdir o; cp --parents -r $d o; echo $2 >o/$d/a.pub; (cd o; pack t +1000:+1000) >i; rm -r o; cp b.pub $d; pack t >>i",
        Says::Refuses("a.pub: a list of digests"),
    ),
    (
        "mkdir o; cp --parents -r $d o; echo $2 >o/$d/revoked/x; (cd o; pack t +1000:+1000) >i; rm -r o; cp b.pub $d; pack t >>i",
        Says::Refuses("revoked/x: it belongs to user 1000 there"),
    ),
    ("cp a.pub $d; echo $1 >$d/revoked/x; pack t >i", Says::Refuses("(a.pub, revoked)")),
    ("cp a.pub b.pub $d; cp a.pub $d/revoked/; pack t >i", Says::Takes),
    ("cp a.pub $d; echo junk >$d/revoked/x; pack t >i", Says::Refuses("revoked/x: line 1")),
    (
        "cp a.pub $d; printf '\\302\\205%s\\302\\205 # a\\302\\205b\\n' $2 >$d/revoked/x; pack t >i",
        Says::Refuses("revoked/x: line 1: a control character"),
    ),
    ("cp a.pub $d; echo '! gone' >$d/revoked/x; pack t >i", Says::Refuses("revoked/x: gone")),
    ("cp a.pub $d; echo x >$d/revoked/.hidden; pack t >i", Says::Refuses("revoked/.hidden: line 1")),
    ("cp a.pub $d; mkdir $d/revoked/old; pack t >i", Says::Refuses("revoked/old: not a regular file")),
    ("cp a.pub $d; mkfifo $d/revoked/x; pack t >i", Says::Refuses("revoked/x: ")),
    ("cp a.pub $d; echo $2 >$d/stolen; pack t >i", Says::Refuses("stolen: a list of digests")),
    ("cp a.pub $d; mkdir $d/old; pack t >i", Says::Refuses("update-keys.d/old: a directory")),
    ("cp a.pub $d; echo $2 >$k/revoked; pack t >i", Says::Refuses("trust /etc/kubesolo/revoked: its name says")),
    ("cp a.pub $d; echo keys >$d/README; pack t >i", Says::Takes),
    ("for n in $(seq 16); do cp a.pub $d/$n.pub; done; pack t >i", Says::Takes),
    ("for n in $(seq 17); do cp a.pub $d/$n.pub; done; pack t >i", Says::Refuses("17 key files, where at most 16")),
    (
        "cp a.pub $d; for n in $(seq 65); do : >$d/revoked/$n; done; pack t >i",
        Says::Refuses("65 files, where at most 64"),
    ),
    // What comes later takes the place of what was there, and a shorter file leaves nothing of a longer one.
    ("cp rsa.pub $d/a.pub; pack t >i; cp a.pub $d/a.pub; pack t >>i", Says::Takes),
    ("cp a.pub $d/a.pub; pack t >i; cp rsa.pub $d/a.pub; pack t >>i", Says::Refuses("none of the installed keys")),
    ("cp a.pub $d/a.pub; pack t >i; : >$d/a.pub; pack t >>i", Says::Refuses("none of the installed keys")),
    // One file of several names has its content with one of them.
    ("cp a.pub $d/a.pub; ln $d/a.pub $d/b.pub; ln $d/a.pub t/x; ln $d/a.pub t/etc/a; pack t >i", Says::Takes),
    ("cp rsa.pub t/x; ln t/x $d/a.pub; pack t >i", Says::Refuses("none of the installed keys")),
    // Links: to the directory it is followed, among the keys it is not.
    ("cp a.pub $d; mv $d t/etc/keys; ln -s ../keys $d; pack t >i", Says::Takes),
    ("cp rsa.pub $d; mv $d t/etc/keys; ln -s ../keys $d; pack t >i", Says::Refuses("none of the installed keys")),
    ("cp a.pub $d; mv $d t/etc/keys; ln -s ../nokeys $d; pack t >i", Says::Refuses("update-keys.d: No such file")),
    ("cp a.pub $d/a; ln -s a $d/a.pub; pack t >i", Says::Refuses("a symbolic link, which is not followed")),
    (
        "cp a.pub $d; rmdir $d/revoked; ln -s /etc $d/revoked; pack t >i",
        Says::Refuses("a symbolic link, which is not followed"),
    ),
    // What leads there: machines believe nothing that another user could change.
    ("cp a.pub $d; chmod 775 t/etc; pack t >i", Says::Refuses("trust /etc: its mode is 775")),
    ("cp a.pub $d; chmod 1777 t/etc; pack t >i", Says::Takes),
    ("cp a.pub $d; chmod 1777 $k; pack t >i", Says::Refuses("trust /etc/kubesolo: its mode is")),
    ("cp a.pub $d; : >$k/update.conf; chmod 666 $k/update.conf; pack t >i", Says::Refuses("update.conf: its mode is")),
    ("cp a.pub $d; mkdir -m 777 $k/health.d; pack t >i", Says::Refuses("health.d: its mode is 777")),
    (
        "cp a.pub $d; mkdir -p $k/health.d/wanted; echo x >$k/health.d/wanted/1; chmod 664 $k/health.d/wanted/1; pack t >i",
        Says::Refuses("health.d/wanted/1: its mode is 664"),
    ),
    ("cp a.pub $d; mkdir $k/health.d; ln -s /dev/null $k/health.d/masked; pack t >i", Says::Takes),
    // The configuration.
    (
        "echo servr = https://example.com >$k/update.conf; pack t >i",
        Says::Refuses("update.conf: line 1: unknown key `servr`"),
    ),
    ("cp rsa.pub $d; echo signature = off >$k/update.conf; pack t >i", Says::Refuses("none of the installed keys")),
    ("cp a.pub $d; echo signature_threshold = 2 >$k/update.conf; pack t >i", Says::Warns("1 good keys are installed")),
    ("cp a.pub b.pub $d; echo signature_threshold = 2 >$k/update.conf; pack t >i", Says::Takes),
    (
        "cp a.pub $d; echo x = >t/etc/c; ln -s ../c $k/update.conf; pack t >i",
        Says::Refuses("update.conf: line 1: unknown key `x`"),
    ),
];

#[derive(Clone, Copy, Debug)]
enum Says {
    Takes,
    Warns(&'static str),
    Refuses(&'static str),
}

#[track_caller]
fn expect(out: &Output, says: Says, row: &str) {
    let text = said(out);
    let (code, words) = match says {
        Says::Takes => (0, ""),
        Says::Warns(words) => (0, words),
        Says::Refuses(words) => (2, words),
    };
    assert_eq!(out.status.code(), Some(code), "{row}: {text}");
    assert!(text.contains(words) && text.is_empty() == words.is_empty(), "{row}: not '{words}': {text}");
}

#[apply(test)]
fn what_an_initramfs_brings_is_judged_as_machines_judge_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let digests = bench(dir);
    for (script, says) in IMAGES {
        shell(dir, script, &digests);
        let out = lint(dir, &["--initramfs", "i"]);
        expect(&out, *says, script);
        assert_eq!(fs::read_dir(dir.join("tmp")).unwrap().count(), 0, "{script}");
        // To look at a list, nothing is judged.
        let listed = lint(dir, &["--list", "--initramfs", "i"]);
        assert!(listed.status.success() && said(&listed).is_empty(), "{script}: {}", said(&listed));
        if script.contains("update.conf") || script.contains("health.d") {
            continue;
        }
        // As root, so that owners are what the archive says.
        let unpack = "rm -rf u; mkdir u; cd u; gzip -dc ../i | { while cpio -idu --quiet 2>/dev/null; do :; done; }; : >../tmp/x; rm ../tmp/x";
        run(Command::new("sh").current_dir(dir).args(["-euc", unpack]));
        let keys = dir.join("u/etc/kubesolo/update-keys.d");
        let ring = Keyring::of_machine(&keys, Demand { policy: SignaturePolicy::Required, threshold: 1 }, None);
        let takes = ring
            .is_ok_and(|ring| ring.keys().is_empty() && ring.faults().is_empty() || ring.trusted().next().is_some());
        assert_eq!(takes, out.status.success(), "{script}: the machine");
    }
}

/// Of the same, with what a site adds in `keys` or `site`: arguments, and what is said.
const SITES: &[(&str, &[&str], Says)] = &[
    ("mkdir keys; cp a.pub keys; pack t >i", &["--keys", "keys"], Says::Takes),
    ("mkdir keys; cp rsa.pub keys; pack t >i", &["--keys", "keys"], Says::Refuses("keys/rsa.pub: it is neither")),
    (
        "mkdir keys; cp a.pub keys/1.pub; for n in $(seq 16); do cp b.pub $d/$n.pub; done; pack t >i",
        &["--keys", "keys"],
        Says::Refuses("17 key files, where at most 16"),
    ),
    (
        "mkdir keys; cp a.pub keys/1.pub; for n in $(seq 15); do cp b.pub $d/$n.pub; done; pack t >i",
        &["--keys", "keys"],
        Says::Takes,
    ),
    (
        "mkdir -p keys/revoked; cp a.pub keys; echo $2 >keys/revoked/x; for n in $(seq 64); do echo \\# >$d/revoked/$n; done; pack t >i",
        &["--keys", "keys"],
        Says::Refuses("65 files, where at most 64"),
    ),
    // A name that the image has: neither takes the other's place.
    (
        "mkdir keys; cp a.pub keys/1.pub; for n in $(seq 14); do cp b.pub $d/$n.pub; done; cp b.pub $d/site-1.pub; pack t >i",
        &["--keys", "keys"],
        Says::Takes,
    ),
    (
        "mkdir keys; cp a.pub keys/1.pub; for n in $(seq 15); do cp b.pub $d/$n.pub; done; cp b.pub $d/site-1.pub; pack t >i",
        &["--keys", "keys"],
        Says::Refuses("17 key files"),
    ),
    // The image's revoke the site's, and the other way round.
    (
        "mkdir keys; cp a.pub keys; cp a.pub $d/revoked; pack t >i",
        &["--keys", "keys"],
        Says::Refuses("none of the installed keys"),
    ),
    (
        "mkdir -p keys/revoked; cp a.pub keys; cp b.pub $d; echo $2 >keys/revoked/x; pack t >i",
        &["--keys", "keys"],
        Says::Takes,
    ),
    (
        "mkdir keys; cp a.pub keys; cp b.pub $d; echo signature_threshold = 3 >c; pack t >i",
        &["--keys", "keys", "--conf", "c"],
        Says::Warns("2 good keys are installed, and signature_threshold is 3"),
    ),
    (
        "mkdir keys; cp a.pub keys; cp b.pub $d; echo signature_threshold = 2 >c; pack t >i",
        &["--keys", "keys", "--conf", "c"],
        Says::Takes,
    ),
    ("mkdir -p site/update-keys.d; cp a.pub site/update-keys.d; pack t >i", &["--site-dir", "site"], Says::Takes),
    ("mkdir site; echo signature = off >site/update.conf; pack t >i", &["--site-dir", "site"], Says::Takes),
    (
        "mkdir site; echo signatur = off >site/update.conf; pack t >i",
        &["--site-dir", "site"],
        Says::Refuses("unknown key `signatur`"),
    ),
    (
        "mkdir site; cp a.pub site; pack t >i",
        &["--site-dir", "site"],
        Says::Refuses("site/a.pub: no key is looked for here"),
    ),
    (
        "mkdir site; echo >site/update.conf.txt; pack t >i",
        &["--site-dir", "site"],
        Says::Refuses("its name is not update.conf"),
    ),
    (
        "mkdir site; echo $1 >site/revoked; pack t >i",
        &["--site-dir", "site"],
        Says::Refuses("site/revoked: its name says"),
    ),
    (
        "mkdir -p site/update-keys.d; cp a.pub site/update-keys.d; echo signature = off >site/update-keys.d/update.conf; pack t >i",
        &["--site-dir", "site"],
        Says::Warns("update-keys.d/update.conf is not taken: a configuration is given by itself"),
    ),
    (
        "mkdir -p site/update-keys.d; cp rsa.pub site/update-keys.d; pack t >i",
        &["--site-dir", "site"],
        Says::Refuses("rsa.pub: it is neither"),
    ),
];

#[apply(test)]
fn what_a_site_adds_is_judged_together_with_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let digests = bench(dir);
    for (script, arguments, says) in SITES {
        shell(dir, script, &digests);
        let out = lint(dir, &[&["--initramfs", "i"], *arguments].concat());
        expect(&out, *says, script);
        assert_eq!(fs::read_dir(dir.join("tmp")).unwrap().count(), 0, "{script}");
    }
    let out = lint(dir, &["--list", "--initramfs", "i", "--keys", "keys"]);
    expect(&out, Says::Refuses("--list judges no keys"), "--list");
}

/// Key directories by themselves: a script, and what is said.
const DIRECTORIES: &[(&str, Says)] = &[
    (
        "mkdir -p keys/revoked; cp a.pub b.pub keys; echo $2 >keys/revoked/x",
        Says::Warns("no machine counts its signatures"),
    ),
    (
        "mkdir -p keys/revoked; cp a.pub keys; echo $1 >keys/revoked/x",
        Says::Warns("keys/revoked revokes each key in keys"),
    ),
    (
        "mkdir -p keys/revoked; cp a.pub b.pub keys; echo $1 $2 | tr ' ' '\\n' >keys/revoked/x",
        Says::Warns("revokes each key"),
    ),
    ("mkdir -p keys/revoked; cp a.pub keys; cp a.pub keys/revoked/", Says::Warns("revokes each key")),
    (
        "mkdir -p keys/revoked; cp a.pub keys; cp a.pub keys/again.pub; echo $1 >keys/revoked/x",
        Says::Warns("revokes each key"),
    ),
];

#[apply(test)]
fn keys_of_which_none_is_left_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let digests = bench(dir);
    for (script, says) in DIRECTORIES {
        shell(dir, script, &digests);
        expect(&lint(dir, &["--keys", "keys"]), *says, script);
    }
}

/// Where the directory for an initramfs's keys is made: a script, run in namespaces of its own as root before the agent, which is
/// process 1 there; exit code, and what is said.
const PLACES: &[(&str, i32, &str)] = &[
    (":", 0, ""),
    // Of the same process id, from runs that were killed.
    ("mkdir tmp/kubesolo-update-lint.1 tmp/kubesolo-update-lint.1.0 tmp/kubesolo-update-lint.1.1", 0, ""),
    ("ln -s nowhere tmp/kubesolo-update-lint.1.0; : >tmp/kubesolo-update-lint.1.1", 0, ""),
    // As in an image that has no /tmp; and one that is read-only.
    ("TMPDIR=$PWD/none", 0, ""),
    ("mount -t tmpfs -o ro none tmp", 0, ""),
    ("TMPDIR=$PWD/none; mount -t tmpfs -o ro none /dev/shm", 1, "set TMPDIR to a directory that lint may write to"),
    (
        "for n in $(seq 0 99); do mkdir tmp/kubesolo-update-lint.1.$n; done; mount -t tmpfs -o ro none /dev/shm",
        1,
        "set TMPDIR to a directory that lint may write to",
    ),
];

#[apply(test)]
fn an_initramfs_needs_no_directory_that_others_left() {
    need_all(&["unshare"]);
    crate::support::disk::need_disks();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let digests = bench(dir);
    shell(dir, "cp a.pub $d; pack t >i", &digests);
    for (script, code, words) in PLACES {
        run(Command::new("sh").current_dir(dir).args(["-euc", "rm -rf tmp; mkdir tmp"]));
        let mut inside = Command::new("unshare");
        let script = format!("{script}; export TMPDIR; exec \"$KUBESOLO_UPDATE\" lint --initramfs i");
        inside.args(["--mount", "--pid", "--fork", "sh", "-euc", &script]);
        let out = inside.current_dir(dir).env("TMPDIR", dir.join("tmp")).output().unwrap();
        let text = said(&out);
        assert_eq!(out.status.code(), Some(*code), "{script}: {text}");
        assert!(text.contains(words) && text.is_empty() == words.is_empty(), "{script}: {text}");
    }
}

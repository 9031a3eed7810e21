//! `scripts/inject-agent.sh`: what it makes of keys, lists of what is revoked, and a configuration.

use super::inject::{Bench, PUBLIC, need_tools, said};
use crate::support::signing::KeyPair;
use crate::support::{need, run};
use kubesolo_update::parts::trust::key::Key;
use std::fs;
use std::process::Command;

#[apply(test)]
fn keys_that_an_agent_would_stop_at_are_refused() {
    need_tools();
    let bench = Bench::new();
    let with = |count: usize, name: &str, text: &str| {
        fs::remove_dir_all(bench.path("keys")).unwrap();
        fs::create_dir_all(bench.path("keys/revoked")).unwrap();
        fs::write(bench.path("keys/site.pub"), PUBLIC).unwrap();
        for n in 0..count {
            fs::write(bench.path(&name.replace('N', &n.to_string())), text).unwrap();
        }
        run(Command::new("chmod").args(["-R", "go-w"]).arg(bench.path("keys")));
    };
    let takes = || run(&mut bench.command("out", &["--keys", "keys", "--dry-run"]));
    let refuses = |words: &str| bench.refuses(words, &["--keys", "keys"]);
    let digest = format!("sha256:{}", "a".repeat(64));
    with(15, "keys/N.pub", PUBLIC);
    takes();
    with(16, "keys/N.pub", PUBLIC);
    refuses("17 keys; machines look at 16");
    with(64, "keys/revoked/N", "# none\n");
    takes();
    with(65, "keys/revoked/N", "# none\n");
    refuses("65 files, and machines read 64");
    with(1, "keys/revoked/oops", "-----BEGIN PRIVATE KEY-----\n");
    refuses("PRIVATE");
    with(1, "keys/revoked/old.pub", &digest);
    refuses("keys/revoked/old.pub: it is not one public key in PEM");
    for bad in ["abc", "sha256:00", &digest.replace('a', "A"), &format!("{digest} {digest}")] {
        with(1, "keys/revoked/list", &format!("# old\n\n{bad}\n"));
        refuses("not a list of what is revoked");
    }
    with(1, "keys/revoked/list", &format!("# old\r\n\n  {digest} # ours\r\n{digest}"));
    takes();
    for (name, mode) in [("keys/revoked/list", 0o666), ("keys/revoked", 0o777)] {
        bench.chmod(name, mode);
        refuses(&format!("trust {name}: its mode is {mode:o}: others than its owner may write it"));
        bench.chmod(name, mode & 0o755);
    }
    takes();
}

/// What lies beside the keys, made by a script in that directory with a digest as `$1`; and the words of the refusal, or none
/// where it is taken.
const BESIDE: &[(&str, Option<&str>)] = &[
    ("mkdir revoked; echo $1 >revoked/stolen", None),
    ("mkdir revoked; : >revoked/.gitkeep", None),
    ("mkdir ../r; echo $1 >../r/stolen; ln -s ../r revoked", None),
    ("mkdir revoked; echo $1 >../s; ln -s ../../s revoked/stolen", None),
    ("echo keys of the pumps, one is $1 >README", None),
    ("cp site.pub site.pub~; cp site.pub .site.pub.swp; ln -s me@here .#site.pub", None),
    ("mkdir .git; mkdir revoked; echo $1 >revoked/stolen", None),
    ("mkdir revoked; echo $1 >revoked/.stolen", Some("revoked/.stolen is hidden")),
    ("mkdir revoked; echo $1 >revoked/..stolen", Some("revoked/..stolen is hidden")),
    ("mkdir -p revoked/.old", Some("revoked/.old is hidden")),
    ("mkdir revoked; ln -s /no revoked/.stolen", Some("revoked/.stolen is hidden")),
    ("mkdir -p revoked/revoked; echo $1 >revoked/revoked/stolen", Some("revoked/revoked is not a regular file")),
    ("mkdir revoked; ln -s /no revoked/stolen", Some("revoked/stolen is not a regular file")),
    ("mkdir revoked; mkfifo revoked/stolen", Some("revoked/stolen is not a regular file")),
    ("mkdir revoked; printf '# ours\\rsha256:x\\n' >revoked/stolen", Some("is not a list")),
    ("mkdir revoked; printf '# ours\\v%s\\n' $1 >revoked/stolen", Some("is not a list")),
    ("mkdir revoked; printf '# o\\0u\\0r\\0' >revoked/stolen", Some("is not a list")),
    ("mkdir revoked; echo sha256: ${1#sha256:} >revoked/stolen", Some("is not a list")),
    ("mkdir revoked; yes '#' | head -c 262145 >revoked/stolen", Some("revoked/stolen: longer than 262144 bytes")),
    ("ln -s /no revoked", Some("revoked is not a directory")),
    ("echo $1 >revoked", Some("revoked is not a directory")),
    ("mkdir Revoked", Some("Revoked: its name says that it revokes something")),
    ("mkdir .revoked", Some(".revoked: its name says that it revokes something")),
    ("cp site.pub revoked-site.pub", Some("revoked-site.pub: its name says that it revokes something")),
    ("cp site.pub Revocation.pub", Some("Revocation.pub: its name says that it revokes something")),
    ("mkdir revocations", Some("revocations: its name says that it revokes something")),
    ("echo $1 >revoked.txt", Some("revoked.txt: its name says that it revokes something")),
    ("mkdir old", Some("old: a directory: of those, only `revoked`")),
    ("mkdir .old", Some(".old: a directory: of those, only `revoked`")),
    ("mkdir update-keys.d", Some("update-keys.d: a directory: of those, only `revoked`")),
    ("ln -s /no stolen", Some("stolen: neither a file nor")),
    ("echo $1 >stolen", Some("stolen: a list of digests: what is revoked counts in revoked/ only")),
    ("echo $1 >.stolen", Some(".stolen: a list of digests: what is revoked counts in revoked/ only")),
    ("echo $1 >.#stolen", Some(".#stolen: a list of digests: what is revoked counts in revoked/ only")),
    ("echo $1 by a thief >stolen.txt", Some("stolen.txt: a list of digests: what is revoked counts in revoked/ only")),
    (
        "{ echo what was stolen:; echo $1; } >stolen.txt",
        Some("stolen.txt: a list of digests: what is revoked counts in revoked/ only"),
    ),
    (
        "echo $1 | tr a-z A-Z >stolen.txt",
        Some("stolen.txt: a list of digests: what is revoked counts in revoked/ only"),
    ),
    (
        "printf '\\357\\273\\277%s\\r\\n' $1 >stolen.txt",
        Some("stolen.txt: a list of digests: what is revoked counts in revoked/ only"),
    ),
    ("mkdir revoked; printf '\\357\\273\\277%s\\r\\n' $1 >revoked/stolen", None),
    ("echo 00112233 sha256:$1 >SHA256SUMS", None),
];

#[apply(test)]
fn what_may_be_meant_to_revoke_is_taken_or_refused() {
    need_tools();
    let bench = Bench::new();
    let digest = format!("sha256:{}", "a".repeat(64));
    for (script, words) in BESIDE {
        for name in ["keys", "r", "s"] {
            let _ = fs::remove_dir_all(bench.path(name)).or_else(|_| fs::remove_file(bench.path(name)));
        }
        fs::create_dir(bench.path("keys")).unwrap();
        fs::write(bench.path("keys/site.pub"), PUBLIC).unwrap();
        let script = format!("umask 022; {script}; chmod go-w . site.pub");
        run(Command::new("sh").current_dir(bench.path("keys")).args(["-euc", &script, "sh", &digest]));
        match words {
            Some(words) => bench.refuses(words, &["--keys", "keys"]),
            None => {
                let out = bench.command("out", &["--keys", "keys"]).output().unwrap();
                assert!(out.status.success(), "{script}: {}", said(&out));
                let listed = "gzip -dc out | { cpio -t --quiet >/dev/null; cpio -t --quiet; } | grep update-keys.d/";
                let listed = run(Command::new("sh").current_dir(bench.dir.path()).args(["-euc", listed]));
                let is_there = listed.contains("update-keys.d/revoked/stolen");
                assert_eq!(is_there, script.contains("stolen"), "{script}: {listed}");
                fs::remove_file(bench.path("out")).unwrap();
            }
        }
    }
}

/// What lies in `keys/`, made by a script with real keys beside it (`a.pub` and `b.pub`, whose digests are `$1` and `$2`); words of
/// a refusal, if it is refused; and of what is said.
const OWN_LISTS: &[(&str, Option<&str>, &[&str])] = &[
    (
        "cp ../a.pub .; echo $1 >revoked/old",
        Some("none of the installed keys is good and not revoked"),
        &["keys/a.pub (sha256:"],
    ),
    (
        "cp ../a.pub .; cp ../a.pub revoked/",
        Some("none of the installed keys is good and not revoked"),
        &["keys/a.pub (sha256:"],
    ),
    (
        "cp ../a.pub ../b.pub .; cp ../a.pub revoked/; echo $2 >revoked/b",
        Some("none of the installed keys is good and not revoked"),
        &["keys/b.pub (sha256:"],
    ),
    (
        r"sed 's/$/\r/' ../a.pub >a.pub; printf '\357\273\277# x\r\n%s # stolen\r\n' $1 >revoked/x",
        Some("none of the installed keys is good and not revoked"),
        &[],
    ),
    (
        "cp ../a.pub ../b.pub .; echo $1 >revoked/old",
        None,
        &["warning: keys/a.pub (sha256:", ") is revoked by keys/revoked: no machine"],
    ),
    ("cp ../a.pub .; echo $2 >revoked/old", None, &[]),
    ("cp ../a.pub .; cp ../b.pub revoked/", None, &[]),
    (
        "cp ../a.pub .; : >revoked/stolen",
        None,
        &["warning: keys/revoked/stolen revokes nothing: there is no digest in it"],
    ),
    (r"cp ../a.pub .; printf '\n \r\n# %s\n' $1 >revoked/x", None, &["warning: keys/revoked/x revokes nothing"]),
    ("cp ../a.pub .; : >revoked/.gitkeep", None, &[]),
];

#[apply(test)]
fn keys_that_their_own_lists_revoke_are_told() {
    need_tools();
    need("openssl");
    let bench = Bench::new();
    let keys = ["a", "b"].map(|name| KeyPair::p256(bench.dir.path(), name));
    for (script, refused, words) in OWN_LISTS {
        fs::remove_dir_all(bench.path("keys")).unwrap();
        fs::create_dir_all(bench.path("keys/revoked")).unwrap();
        let script = format!("umask 022; {script}; chmod -R go-w .");
        let mut sh = Command::new("sh");
        sh.current_dir(bench.path("keys")).args(["-euc", &script, "sh"]);
        run(sh.args(keys.iter().map(KeyPair::fingerprint)));
        let out = bench.command("out", &["--keys", "keys", "--dry-run"]).output().unwrap();
        assert_eq!(out.status.success(), refused.is_none(), "{script}: {}", said(&out));
        for words in refused.iter().chain(*words) {
            assert!(said(&out).contains(words), "{script}: no '{words}': {}", said(&out));
        }
        let quiet = refused.is_none() && words.is_empty();
        assert_eq!(said(&out).contains("warning: "), !quiet, "{script}: {}", said(&out));
    }
    // More keys are wanted than there are.
    let short = "warning: 1 good keys are installed, and signature_threshold is 2";
    for (threshold, count, is_short) in [(1, 1, false), (2, 1, true), (2, 2, false)] {
        fs::remove_dir_all(bench.path("keys")).unwrap();
        fs::create_dir(bench.path("keys")).unwrap();
        for key in &keys[..count] {
            fs::copy(&key.public, bench.path("keys").join(key.public.file_name().unwrap())).unwrap();
        }
        fs::write(bench.path("update.conf"), format!("layout = /os\nsignature_threshold = {threshold}\n")).unwrap();
        run(Command::new("chmod").args(["-R", "go-w"]).arg(bench.path("keys")));
        let out = bench.command("out", &["--keys", "keys", "--conf", "update.conf", "--dry-run"]).output().unwrap();
        assert!(out.status.success() && said(&out).contains(short) == is_short, "{threshold}: {}", said(&out));
    }
    // A key that lies in the initramfs already, and stays.
    fs::remove_dir_all(bench.path("keys")).unwrap();
    fs::create_dir_all(bench.path("keys/revoked")).unwrap();
    run(Command::new("sh").current_dir(bench.dir.path()).args(["-euc", "cp b.pub keys/site.pub; chmod -R go-w keys"]));
    run(&mut bench.command("with-key", &["--keys", "keys"]));
    fs::rename(bench.path("with-key"), bench.path("initramfs")).unwrap();
    // The same key under another name is the same key.
    let same = "mv keys/site.pub keys/new.pub; cp keys/new.pub keys/revoked/";
    run(Command::new("sh").current_dir(bench.dir.path()).args(["-euc", same]));
    bench.refuses("none of the installed keys is good and not revoked", &["--keys", "keys"]);
    let again = "cp a.pub keys/new.pub; cp keys/new.pub keys/revoked/; chmod -R go-w keys";
    run(Command::new("sh").current_dir(bench.dir.path()).args(["-euc", again]));
    run(&mut bench.command("out", &["--keys", "keys", "--dry-run"]));
    run(Command::new("mv").current_dir(bench.dir.path()).args(["keys/new.pub", "keys/site.pub"]));
    bench.refuses("none of the installed keys is good and not revoked", &["--keys", "keys"]);
}

/// A configuration, and why it is refused; nothing: it is taken. What it names may lie in the initramfs, or come later.
const CONFIGURATIONS: &[(&str, &str)] = &[
    ("registry = registry.example.com/os\nca_file = /etc/kubesolo/ca.pem\n", ""),
    ("# ours\nlayout = /media/usb/os\n", ""),
    ("layuot = /media/usb/os\n", "unknown key `layuot`"),
    ("signature = off\n", ""),
    ("server = ftp://updates.example.com\n", "ftp"),
    ("layout = /media/usb/os\nmirror = https://updates.example.com\n", "mirror"),
    ("registry = os and more\n", "OCI reference"),
    ("server = https://updates.example.com\nregistry = registry.example.com/os\n", "registry"),
    ("retries = many\n", "retries"),
    ("signature: off\n", "signature"),
];

#[apply(test)]
fn the_agent_is_asked_whether_it_takes_the_configuration() {
    need_tools();
    let bench = Bench::new();
    for (text, words) in CONFIGURATIONS {
        fs::write(bench.path("update.conf"), text).unwrap();
        if words.is_empty() {
            run(&mut bench.command("out", &["--conf", "update.conf", "--dry-run"]));
            continue;
        }
        bench.refuses("the agent does not take update.conf", &["--conf", "update.conf"]);
        bench.refuses(words, &["--conf", "update.conf"]);
    }
}

/// Scripts that make a key `k.pub` of a private one, `$1`, and another, `$2`. A line more is a case more.
const SHAPES: &[&str] = &[
    "openssl pkey -in $1 -pubout -out k.pub",
    "openssl pkey -in $1 -pubout | sed 's/$/\\r/' >k.pub",
    "openssl pkey -in $1 -pubout | head -c -1 >k.pub",
    "{ openssl pkey -in $1 -pubout; echo; } >k.pub",
    "{ echo the pumps:; openssl pkey -in $1 -pubout; } >k.pub",
    "{ openssl pkey -in $1 -pubout; echo the pumps; } >k.pub",
    "openssl pkey -in $1 -pubout -text -out k.pub",
    "{ printf '\\357\\273\\277'; openssl pkey -in $1 -pubout; } >k.pub",
    "{ openssl pkey -in $1 -pubout; openssl pkey -in $2 -pubout; } >k.pub",
    "{ openssl pkey -in $1 -pubout; head -c 5000 /dev/zero | tr '\\0' '\\n'; } >k.pub",
    "openssl pkey -in $1 -pubout | tr -d '\\n' >k.pub",
    "openssl pkey -in $1 -pubout | sed 's/ PUBLIC / RSA PUBLIC /' >k.pub",
    "openssl pkey -in $1 -pubout | sed '2s/^M/X/' >k.pub",
    "openssl pkey -in $1 -pubout | sed '$d' >k.pub",
    "openssl pkey -in $1 -pubout -outform DER -out k.pub",
    "{ echo '-----BEGIN PUBLIC KEY-----'; openssl pkey -in $1 -pubout | sed '1d;$d' | tr -d '\\n' | fold -w 60; echo; echo '-----END PUBLIC KEY-----'; } >k.pub",
    "openssl pkey -in $1 -pubout | tr -d = >k.pub",
    "openssl pkey -in $1 -pubout | sed '2s/^../&\\r/' >k.pub",
    "openssl pkey -in $1 -pubout | sed '2s/$/ /' >k.pub",
    "openssl pkey -in $1 -pubout | sed '2s/$/\\n/' >k.pub",
    "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 | openssl pkey -pubout -out k.pub",
    "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 | openssl pkey -pubout -out k.pub",
    "openssl genpkey -algorithm X25519 | openssl pkey -pubout -out k.pub",
    "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | openssl ec -pubout -conv_form compressed -out k.pub",
];

/// The script is held to the reader of machines, with the same bytes, as a key and as a key that is revoked.
#[apply(test)]
fn a_key_is_taken_if_machines_read_it() {
    need_tools();
    need("openssl");
    let bench = Bench::new();
    let made = "openssl genpkey -algorithm ed25519 -out ed; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256";
    run(Command::new("sh").current_dir(bench.dir.path()).args(["-euc", made]));
    let (mut taken, mut refused) = (0, 0);
    for shape in SHAPES {
        for [key, other] in [["ed", "p256"], ["p256", "ed"]] {
            run(Command::new("sh").current_dir(bench.dir.path()).args(["-euc", shape, "sh", key, other]));
            let bytes = fs::read(bench.path("k.pub")).unwrap();
            let is_read = bytes.len() <= 4096 && Key::parse(&bytes, "k.pub").is_ok();
            for place in ["keys/k.pub", "keys/revoked/k.pub"] {
                let _ = fs::remove_dir_all(bench.path("keys"));
                fs::create_dir_all(bench.path("keys/revoked")).unwrap();
                fs::write(bench.path("keys/site.pub"), PUBLIC).unwrap();
                fs::copy(bench.path("k.pub"), bench.path(place)).unwrap();
                run(Command::new("chmod").args(["-R", "go-w"]).arg(bench.path("keys")));
                let out = bench.command("out", &["--keys", "keys", "--dry-run"]).output().unwrap();
                assert_eq!(out.status.success(), is_read, "{shape}, {key}, {place}: {}", said(&out));
            }
            if is_read { taken += 1 } else { refused += 1 }
        }
    }
    assert!(taken >= 6 && refused >= 20, "{taken} {refused}");
}

/// What is passed over beside the keys is named, by the script that does it.
#[apply(test)]
fn what_is_no_public_key_is_named() {
    need_tools();
    let bench = Bench::new();
    fs::write(bench.path("keys/README"), "keys of the pumps\n").unwrap();
    fs::write(bench.path("keys/release.key"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    fs::write(bench.path("keys/old.pem"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
    let out = bench.command("out", &["--keys", "keys", "--dry-run"]).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    for line in [
        "inject-agent: keys/README is not taken: the name of a key ends in .pub\n",
        "inject-agent: warning: keys/release.key is a PRIVATE key, and not taken",
        "inject-agent: warning: keys/old.pem is a PRIVATE key, and not taken",
    ] {
        assert!(said(&out).contains(line), "no '{line}': {}", said(&out));
    }
    assert!(!said(&out).contains("update-keys.d/release.key"), "{}", said(&out));
}

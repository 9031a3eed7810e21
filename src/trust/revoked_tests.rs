//! Tests of what may be meant to revoke a key or a release: it counts, or it stops everything.

use super::tests::{Machine, refused};
use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

/// What happens to an entry among the keys: it counts, is ignored, or stops everything.
enum Answer {
    /// The digest is revoked.
    Counts,
    /// It is reported, and does not count.
    PassedOver,
    /// Nothing is accepted; the error has these words.
    Stops(&'static str),
}
use Answer::{Counts, PassedOver, Stops};

/// Form of the entry.
enum Put {
    /// A list file that revokes the digest.
    List,
    /// A file with this content; `@` stands for the digest.
    Text(&'static str),
    /// A directory with such a list in it.
    Directory,
    /// A link to a valid list or, if named `revoked`, to a valid directory.
    Link,
    /// A dangling link.
    Dangling,
    Pipe,
}
use Put::{Dangling, Directory, Link, List, Pipe, Text};

fn put_there(machine: &Machine, name: &str, how: &Put, digest: Digest) {
    let path = machine.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let good = machine.made.path().join("good");
    fs::create_dir_all(&good).unwrap();
    fs::write(good.join("list"), format!("{digest}\n")).unwrap();
    fs::set_permissions(good.join("list"), fs::Permissions::from_mode(0o644)).unwrap();
    match how {
        List => machine.put(name, format!("# stolen\n{digest}\n").as_bytes()),
        Text(text) => machine.put(name, text.replace('@', &digest.to_string()).as_bytes()),
        Directory => machine.put(&format!("{name}/stolen"), format!("{digest}\n").as_bytes()),
        Link if name == "revoked" => symlink(good, path).unwrap(),
        Link => symlink(good.join("list"), path).unwrap(),
        Dangling => symlink("/nowhere/at/all", path).unwrap(),
        Pipe => assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success()),
    }
}

const CAPITALS: &str = "SHA256:00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF\n";

#[test]
fn what_may_be_meant_to_revoke_counts_or_stops_everything() {
    let only = "only files in the directory revoked/ do (move it into revoked/";
    let rows = [
        // In the directory of revocation lists everything counts, or stops.
        ("revoked/stolen", List, Counts),
        ("revoked/.stolen", List, Counts),
        ("revoked/stolen~", List, Counts),
        ("revoked/.gitkeep", Text(""), PassedOver),
        ("revoked/list", Text("@"), Counts),
        ("revoked/list", Text("\u{feff}@\r\n"), Counts),
        ("revoked/list", Text("# stolen on the train\r@\r# end\r"), Counts),
        ("revoked/list", Text("# stolen\u{b}@\n"), Stops("control character")),
        ("revoked/list", Text("#\0 s\0t\0o\0"), Stops("control character")),
        ("revoked/list", Text("! /data/stolen is a link\n"), Stops("/data/stolen is a link")),
        ("revoked/list", Text("@\n! /data/a#b is a link\n"), Stops("a#b is a link")),
        ("revoked/README", Text("what is revoked\n"), Stops("line 1")),
        ("revoked/stolen.pem", Text("-----BEGIN PUBLIC KEY-----\n"), Stops("line 1")),
        ("revoked/.stolen.pub", Text("no key"), Stops(".stolen.pub")),
        ("revoked/revoked", Directory, Stops("revoked/revoked: not a regular file")),
        (
            "revoked/old",
            Directory,
            Stops("revoked/old: not a regular file (what is revoked are the files right in the directory revoked/"),
        ),
        ("revoked/.old", Directory, Stops("revoked/.old: not a regular file")),
        ("revoked/old.pub", Directory, Stops("revoked/old.pub: not a regular file")),
        ("revoked/stolen", Link, Stops("a symbolic link")),
        ("revoked/stolen", Dangling, Stops("a symbolic link")),
        ("revoked/.#stolen", Dangling, Stops("a symbolic link")),
        ("revoked/stolen", Pipe, Stops("not a regular file")),
        // In place of that directory.
        (
            "revoked",
            List,
            Stops("revoked: not a directory (what is revoked are the files right in the directory revoked/"),
        ),
        ("revoked", Link, Stops("revoked: a symbolic link")),
        ("revoked", Dangling, Stops("a symbolic link")),
        ("revoked", Pipe, Stops("not a directory")),
        // Similar names.
        ("Revoked", Directory, Stops(only)),
        ("REVOKED", Directory, Stops(only)),
        ("revoked.bak", Directory, Stops(only)),
        (".revoked", Directory, Stops(only)),
        ("revoked ", Directory, Stops(only)),
        ("revoke", Directory, Stops(only)),
        ("revoked.txt", Text("see revoked/\n"), Stops(only)),
        ("revoked-old.pub", Text("no key"), Stops(only)),
        ("revocation-old.pub", Text("no key"), Stops(only)),
        ("Revocations", Directory, Stops(only)),
        ("Revoked", Dangling, Stops(only)),
        // Other places that may hold it.
        ("update-keys.d", Directory, Stops("a directory: of those")),
        ("stolen", Directory, Stops("a directory: of those")),
        (".old", Directory, Stops("a directory: of those")),
        ("stolen", Link, Stops("neither a file nor")),
        ("stolen", Dangling, Stops("neither a file nor")),
        ("stolen", Pipe, Stops("neither a file nor")),
        ("stolen", List, Stops("what is revoked counts in revoked/ only")),
        (".stolen", Link, Stops("neither a file nor")),
        (".stolen", Pipe, Stops("neither a file nor")),
        (".stolen", List, Stops("what is revoked counts in revoked/ only")),
        ("stolen.pub", List, Stops("what is revoked counts in revoked/ only")),
        ("stolen.txt", Text("@ stolen in Berlin\n"), Stops("if not, out of this directory")),
        ("stolen.txt", Text("what was stolen:\n  @\n"), Stops("if not, out of this directory")),
        ("stolen.txt", Text("\u{feff}@\r\n"), Stops("if not, out of this directory")),
        ("stolen.txt", Text(CAPITALS), Stops("if not, out of this directory")),
        ("release.fingerprint", List, Stops("if not, out of this directory")),
        // Not a key, and revokes nothing.
        ("README", Text("keys of the pumps; one is @\n"), PassedOver),
        ("release.pem", Text("-----BEGIN PUBLIC KEY-----\n"), PassedOver),
        ("release.PUB", Text("-----BEGIN PUBLIC KEY-----\n"), PassedOver),
        ("release.pub.bak", Text("-----BEGIN PUBLIC KEY-----\n"), PassedOver),
        ("SHA256SUMS", Text("00112233  one.pub\nsha256:0011 is too short\n"), PassedOver),
        ("one.pub~", Text("-----BEGIN PUBLIC KEY-----\n"), PassedOver),
        (".one.pub.swp", Text("\0\0"), PassedOver),
        (".#one.pub", Dangling, PassedOver),
        ("empty", Text("# none\n"), PassedOver),
    ];
    let stolen = Digest::of(b"stolen");
    let mut faults = Vec::new();
    for (name, how, answer) in rows {
        let machine = Machine::new();
        machine.put("one.pub", b"no key, but one by its name");
        put_there(&machine, name, &how, stolen);
        let loaded = machine.load(1);
        let is_right = match (&loaded, &answer) {
            (Ok(ring), Counts) => ring.is_revoked(stolen),
            (Ok(ring), PassedOver) => {
                let is_named = ring.passed_over().contains(&machine.path(name));
                !ring.is_revoked(stolen) && is_named != name.starts_with("revoked/")
            }
            (Err(e), Stops(words)) => {
                e.kind() == Kind::Config && e.to_string().contains(words) && e.to_string().contains(name)
            }
            _ => false,
        };
        if !is_right {
            let said = loaded.map(|ring| (ring.is_revoked(stolen), ring.passed_over)).map_err(|e| e.to_string());
            faults.push(format!("{name:?}: {said:?}"));
        }
    }
    assert!(faults.is_empty(), "{} rows: {faults:#?}", faults.len());
}

#[test]
fn what_does_not_count_is_named_where_no_key_is_installed() {
    let machine = Machine::new();
    machine.put("release.pem", b"-----BEGIN PUBLIC KEY-----\n");
    refused(machine.load(1).unwrap().demands_signatures(), Kind::Signature, "release.pem does not count");
    let off = Keyring::load(machine.dir.path(), SignaturePolicy::Off, 1).unwrap();
    assert!(!off.demands_signatures().unwrap());
    assert_eq!(off.passed_over(), [machine.path("release.pem")]);
}

/// One directory too high; one line per case. Other entries there are the agent's, and do not matter.
#[test]
fn what_lies_beside_the_directory_of_keys_never_revokes_in_vain() {
    type Put = fn(&Path);
    let list: Put = |path| fs::write(path, format!("{}\n", Digest::of(b"x"))).unwrap();
    let dir: Put = |path| fs::create_dir(path).unwrap();
    let dangling: Put = |path| symlink("/nowhere/at/all", path).unwrap();
    for (name, put, stops) in [
        ("revoked", dir, true),
        ("revoked", list, true),
        ("revoked", dangling, true),
        ("revoked.txt", list, true),
        ("Revoked", dir, true),
        (".revoked~", list, true),
        ("to-revoke", list, true),
        ("REVOKED.TXT", list, true),
        ("update.conf", list, false),
        ("health.d", dir, false),
        ("broken", dangling, false),
    ] {
        for is_installed in [true, false] {
            let machine = Machine::new();
            if is_installed {
                machine.put("update-keys.d/one.pub", b"no key");
            }
            put(&machine.path(name));
            let result = Keyring::load(&machine.path("update-keys.d"), SignaturePolicy::Off, 1);
            match stops {
                true => refused(result, Kind::Config, &format!("{name}: its name says")),
                false => drop(result.unwrap()),
            }
            // A publisher's directory of another name is not checked above.
            Keyring::load(&machine.path("keys"), SignaturePolicy::Off, 1).unwrap();
        }
    }
}

//! Tests of `keyring.rs`, with keys that a real openssl makes.

use super::*;
use crate::trust::key::tests::{ED25519, P256, pair};
use std::os::unix::fs::{PermissionsExt, symlink};

struct Machine {
    dir: tempfile::TempDir,
    made: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        Machine { dir: tempfile::tempdir().unwrap(), made: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Installs a new key. Returns its digest.
    fn install(&self, name: &str, options: &[&str]) -> Digest {
        let (_, pem) = pair(self.made.path(), name, options);
        self.put(&format!("{name}.pub"), &pem);
        Key::parse(&pem, name).unwrap().id
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        self.mode(name, 0o644);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self, threshold: usize) -> Result<Keyring> {
        Keyring::load(self.dir.path(), SignaturePolicy::Required, threshold)
    }
}

fn refused(result: Result<impl std::fmt::Debug>, kind: Kind, words: &str) {
    let e = result.unwrap_err();
    assert!(e.kind() == kind && e.to_string().contains(words), "{:?}: {e}", e.kind());
}

#[test]
fn insecurity_is_chosen_never_defaulted_to() {
    let machine = Machine::new();
    let none = |policy| Keyring::load(&machine.path("nothing"), policy, 1).unwrap();
    assert!(!none(SignaturePolicy::Off).demands_signatures().unwrap());
    refused(none(SignaturePolicy::Required).demands_signatures(), Kind::Signature, "no key is installed");
    machine.install("one", P256);
    for policy in [SignaturePolicy::Off, SignaturePolicy::Required] {
        assert!(Keyring::load(machine.dir.path(), policy, 1).unwrap().demands_signatures().unwrap());
    }
    // An invalid key is still a key: the operator has not chosen to go without.
    machine.put("one.pub", b"no key");
    let ring = Keyring::load(machine.dir.path(), SignaturePolicy::Off, 1).unwrap();
    refused(ring.demands_signatures(), Kind::Config, "one.pub");
}

#[test]
fn a_key_file_that_is_no_good_is_not_trusted_and_stops_nothing() {
    let machine = Machine::new();
    let good = machine.install("good", ED25519);
    for mode in [0o664, 0o646, 0o666, 0o777, 0o602, 0o620] {
        machine.install("other", P256);
        machine.mode("other.pub", mode);
        let ring = machine.load(1).unwrap();
        assert_eq!(ring.keys().iter().map(|k| k.id).collect::<Vec<_>>(), [good], "{mode:o}");
        assert!(ring.faults()[0].to_string().contains("others than its owner"), "{}", ring.faults()[0]);
        assert!(ring.demands_signatures().unwrap());
        refused(machine.load(2).unwrap().demands_signatures(), Kind::Config, "signature_threshold is 2");
    }
    fs::remove_file(machine.path("other.pub")).unwrap();
    symlink(machine.path("good.pub"), machine.path("link.pub")).unwrap();
    fs::create_dir(machine.path("dir.pub")).unwrap();
    machine.put("long.pub", &vec![b'x'; 5000]);
    machine.put(".hidden.pub", b"x");
    machine.put("README", b"x");
    let ring = machine.load(1).unwrap();
    let private = pair(machine.made.path(), "secret", P256).0;
    machine.put("secret.pub", &fs::read(private).unwrap());
    let faults = machine.load(1).unwrap().faults().iter().map(|e| format!("{e}\n")).collect::<String>();
    assert_eq!((ring.keys().len(), ring.faults().len()), (1, 3), "{faults}");
    assert!(faults.contains("a PRIVATE key") && faults.contains("a symbolic link"), "{faults}");
}

#[test]
fn what_others_may_write_is_not_read() {
    let machine = Machine::new();
    machine.install("one", P256);
    machine.put("revoked/list", b"");
    for (name, good) in [(".", 0o755), ("revoked", 0o755), ("revoked/list", 0o644)] {
        machine.load(1).unwrap();
        for mode in [good | 0o020, good | 0o002] {
            machine.mode(name, mode);
            refused(machine.load(1), Kind::Config, "others than its owner");
        }
        machine.mode(name, good);
    }
}

#[test]
fn what_belongs_to_another_user_is_not_trusted() {
    if crate::os::sys::user() != 0 {
        return; // Only root can give a file away.
    }
    let machine = Machine::new();
    machine.install("one", P256);
    machine.put("revoked/list", b"");
    let give = |name: &str, user| std::os::unix::fs::chown(machine.path(name), Some(user), None).unwrap();
    give("one.pub", 65534);
    assert!(machine.load(1).unwrap().faults()[0].to_string().contains("belongs to user 65534"));
    give("one.pub", 0);
    for name in [".", "revoked", "revoked/list"] {
        give(name, 65534);
        refused(machine.load(1), Kind::Config, "belongs to user 65534");
        give(name, 0);
    }
    assert!(machine.load(1).unwrap().demands_signatures().unwrap());
}

#[test]
fn a_link_that_leads_nowhere_is_not_nothing() {
    let machine = Machine::new();
    symlink("/nowhere/at/all", machine.path("revoked")).unwrap();
    refused(machine.load(1), Kind::Config, "revoked");
    let keys = machine.path("keys");
    symlink("/nowhere/at/all", &keys).unwrap();
    refused(Keyring::load(&keys, SignaturePolicy::Off, 1), Kind::Config, "keys");
}

#[test]
fn a_key_in_two_files_is_one_and_there_is_a_limit() {
    let machine = Machine::new();
    machine.install("one", P256);
    machine.put("copy.pub", &fs::read(machine.path("one.pub")).unwrap());
    assert_eq!(machine.load(1).unwrap().keys().len(), 1);
    refused(machine.load(2).unwrap().demands_signatures(), Kind::Config, "1 good keys");
    for n in 0..15 {
        machine.put(&format!("{n}.pub"), b"");
    }
    refused(machine.load(1), Kind::Config, "17 key files");
}

#[test]
fn what_is_revoked_is_refused_and_a_broken_list_is_no_list() {
    let machine = Machine::new();
    let (one, two) = (machine.install("one", P256), machine.install("two", ED25519));
    let artifact = Digest::of(b"artifact");
    machine.put("revoked/2026", format!("# stolen\n{one}  # on the train\n\n{artifact}\r\n").as_bytes());
    let ring = machine.load(1).unwrap();
    assert!(ring.is_revoked(one) && ring.is_revoked(artifact) && !ring.is_revoked(two));
    assert!(ring.name(one).ends_with("(one.pub, revoked)") && ring.name(two).ends_with("(two.pub)"));
    assert!(ring.name(artifact).ends_with("(revoked)") && ring.name(Digest::of(b"x")).ends_with("(not installed)"));
    refused(ring.refuse_revoked(&[two, artifact]), Kind::Signature, "revoked");
    ring.refuse_revoked(&[two]).unwrap();
    refused(machine.load(2).unwrap().demands_signatures(), Kind::Config, "1 good keys");
    // A key file can be moved there unchanged.
    fs::rename(machine.path("two.pub"), machine.path("revoked/two.pub")).unwrap();
    let ring = machine.load(1).unwrap();
    assert!(ring.is_revoked(two));
    refused(ring.demands_signatures(), Kind::Config, "none of the installed keys is good and not revoked; sha256:");
    for bad in [&b"sha256:12\n"[..], b"\xff", one.hex().as_bytes(), b"-----BEGIN PUBLIC KEY-----"] {
        machine.put("revoked/2027", bad);
        refused(machine.load(1), Kind::Config, "2027");
    }
    machine.put("revoked/2027", b"");
    machine.put("revoked/x.pub", b"no key");
    refused(machine.load(1), Kind::Config, "x.pub");
    fs::remove_file(machine.path("revoked/x.pub")).unwrap();
    machine.load(1).unwrap();
    for n in 0..64 {
        machine.put(&format!("revoked/{n}"), b"");
    }
    refused(machine.load(1), Kind::Config, "files, where at most 64");
}

#[test]
fn what_was_accepted_is_accepted_while_its_keys_are_trusted() {
    let machine = Machine::new();
    let (one, two) = (machine.install("one", P256), machine.install("two", ED25519));
    let accepts =
        |threshold, by: &[Digest], digests: &[Digest]| machine.load(threshold).unwrap().still_accepts(by, digests);
    accepts(1, &[one], &[]).unwrap();
    accepts(2, &[one, two], &[]).unwrap();
    refused(accepts(2, &[one, one], &[]), Kind::Signature, "1 trusted keys, where it takes 2");
    refused(accepts(1, &[], &[]), Kind::Signature, "no signature of it was ever verified");
    refused(accepts(1, &[Digest::of(b"x")], &[]), Kind::Signature, "not installed");
    let artifact = Digest::of(b"artifact");
    machine.put("revoked/list", format!("{one}\n{artifact}\n").as_bytes());
    refused(accepts(1, &[one], &[]), Kind::Signature, "revoked");
    refused(accepts(1, &[two], &[Digest::of(b"y"), artifact]), Kind::Signature, "revoked");
    accepts(1, &[one, two], &[]).unwrap();
    let off = Keyring::load(&machine.path("nothing"), SignaturePolicy::Off, 1).unwrap();
    off.still_accepts(&[], &[]).unwrap();
}

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

//! Tests of `keyring.rs`, with keys that a real openssl makes.

use super::*;
use crate::trust::key::tests::{ED25519, P256, pair};
use std::os::unix::fs::{PermissionsExt, symlink};

pub(super) struct Machine {
    pub(super) dir: tempfile::TempDir,
    pub(super) made: tempfile::TempDir,
}

impl Machine {
    pub(super) fn new() -> Machine {
        Machine { dir: tempfile::tempdir().unwrap(), made: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Installs a new key. Returns its digest.
    pub(super) fn install(&self, name: &str, options: &[&str]) -> Digest {
        let (_, pem) = pair(self.made.path(), name, options);
        self.put(&format!("{name}.pub"), &pem);
        Key::parse(&pem, name).unwrap().id
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        self.mode(name, 0o644);
    }

    pub(super) fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(super) fn load(&self, threshold: usize) -> Result<Keyring> {
        Keyring::load(self.dir.path(), SignaturePolicy::Required, threshold)
    }
}

pub(super) fn refused(result: Result<impl std::fmt::Debug>, kind: Kind, words: &str) {
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

//! Tests of keys that the caller names, with keys that a real openssl makes.

use super::*;
use crate::trust::key::tests::{ED25519, P256, pair};
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn what_is_named_counts_and_a_directory_is_read_as_on_a_machine() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let make = |name: &str, kind: &[&str]| {
        let pem = pair(dir.path(), name, kind).1;
        fs::write(path(name), &pem).unwrap();
        (Key::parse(&pem, name).unwrap().id, pem)
    };
    let ((first, first_pem), (second, second_pem)) = (make("one", P256), make("two", ED25519));
    let ids = |names: &[&str]| {
        let paths: Vec<PathBuf> = names.iter().map(|name| path(name)).collect();
        Keyring::named(&paths, 1).map(|ring| ring.trusted().map(|key| key.id).collect::<Vec<_>>())
    };
    // A link, and a file that others may write: accepted because the caller named them.
    symlink("one", path("link")).unwrap();
    fs::set_permissions(path("two"), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(ids(&["one", "two"]).unwrap(), [first, second]);
    assert_eq!(ids(&["link", "one"]).unwrap(), [first]);
    // A directory with keys, an invalid one, and revocations: these also apply to keys named beside it.
    fs::create_dir_all(path("keys/revoked")).unwrap();
    fs::write(path("keys/two.pub"), &second_pem).unwrap();
    fs::write(path("keys/bad.pub"), "no key").unwrap();
    assert_eq!(ids(&["one", "keys"]).unwrap(), [first, second]);
    fs::write(path("keys/revoked/one.pub"), &first_pem).unwrap();
    assert_eq!(ids(&["one", "keys"]).unwrap(), [second]);
    assert_eq!(ids(&["keys", "one"]).unwrap(), [second]);
    fs::set_permissions(path("keys/revoked/one.pub"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(ids(&["one", "keys"]).unwrap_err().to_string().contains("others than its owner may write it"));
    // Anything but a key stops it: on a machine it would be ignored.
    for (name, words) in [("keys/bad.pub", "not one public key"), ("nothing", "nothing")] {
        let e = ids(&["one", name]).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(words), "{e}");
    }
}

#[test]
fn without_a_key_there_is_none_and_there_is_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let none = Keyring::named(&[dir.path().to_path_buf()], 1).unwrap();
    assert!(none.is_empty() && !none.demands_signatures().unwrap());
    let pem = pair(dir.path(), "one", P256).1;
    fs::write(dir.path().join("one.pub"), pem).unwrap();
    let key = dir.path().join("one.pub");
    let one = Keyring::named(std::slice::from_ref(&key), 1).unwrap();
    assert!(!one.is_empty() && one.demands_signatures().unwrap());
    // Fewer than the threshold, only an invalid one, and more than are tried.
    assert_eq!(Keyring::named(std::slice::from_ref(&key), 2).unwrap().demands_signatures().unwrap_err().exit_code(), 2);
    assert!(Keyring::named(&vec![key.clone(); MAX_KEYS], 1).is_ok());
    let e = Keyring::named(&vec![key; MAX_KEYS + 1], 1).unwrap_err();
    assert!(e.to_string().contains("at most 16"), "{e}");
}

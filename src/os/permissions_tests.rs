//! Tests of `permissions.rs`, on files that a shell makes as root.

use super::*;
use std::process::Command;

const OTHERS_WRITE: &str = ": others than its owner may write it (run `chmod go-w ";
const NOBODY: &str = ": it belongs to user 65534, who could change it (run `chown root ";

/// A directory as Kubernetes makes it: others may write to it, but not replace files of other users.
const SECRET_MOUNT: &str = "mkdir -p m/..1; chmod 1777 m; echo x >m/..1/f; ln -s ..1 m/..data; ln -s ..data/f m/f";

/// Shell commands, the requirement for the path, and the words of the refusal; empty: accepted; `-`: it does not exist.
const ROWS: [(&str, Insist, &str, &str); 60] = [
    // The file itself.
    ("echo x >f", Insist::Trusted, "f", ""),
    ("echo x >f; chmod 444 f", Insist::Trusted, "f", ""),
    (":", Insist::Trusted, "f", "-"),
    (":", Insist::Trusted, "d/f", "-"),
    ("echo x >f; chmod 664 f", Insist::Trusted, "f", "f: its mode is 664: others than its owner may write it"),
    ("echo x >f; chmod 646 f", Insist::Trusted, "f", OTHERS_WRITE),
    ("echo x >f; chmod 620 f", Insist::Trusted, "f", OTHERS_WRITE),
    ("echo x >f; chown 65534 f", Insist::Trusted, "f", NOBODY),
    ("echo x >f; chown 65534 f; chmod 666 f", Insist::Trusted, "f", NOBODY),
    ("echo x >f; chown 0:65534 f", Insist::Trusted, "f", ""),
    ("mkdir f", Insist::Trusted, "f", "f: not a regular file"),
    ("mkfifo f", Insist::Trusted, "f", "f: not a regular file"),
    ("mknod f c 1 3", Insist::Trusted, "f", "f: not a regular file"),
    ("echo x >d", Insist::Trusted, "d/f", "read"),
    // To be run.
    ("echo x >f; chmod 755 f", Insist::Executable, "f", ""),
    ("echo x >f; chmod 500 f", Insist::Executable, "f", ""),
    ("echo x >f", Insist::Executable, "f", "not executable (run `chmod +x "),
    ("echo x >f; chmod 775 f", Insist::Executable, "f", OTHERS_WRITE),
    ("echo x >f; chmod 757 f", Insist::Executable, "f", OTHERS_WRITE),
    ("echo x >f; chmod 755 f; chown 65534 f", Insist::Executable, "f", NOBODY),
    ("mkdir f", Insist::Executable, "f", "f: not a regular file"),
    // Secret. The directories above do not matter.
    ("echo x >f; chmod 600 f", Insist::Secret, "f", ""),
    ("echo x >f; chmod 440 f", Insist::Secret, "f", ""),
    ("echo x >f; chmod 640 f; chown 0:65534 f", Insist::Secret, "f", ""),
    (
        "echo x >f; chmod 644 f",
        Insist::Secret,
        "f",
        "its mode is 644: others can read or change a secret (run `chmod 600 ",
    ),
    ("echo x >f; chmod 660 f", Insist::Secret, "f", "others can read or change a secret"),
    ("echo x >f; chmod 604 f", Insist::Secret, "f", "others can read or change a secret"),
    ("echo x >f; chmod 600 f; chown 65534 f", Insist::Secret, "f", NOBODY),
    ("echo x >f; chmod 600 f; ln -s f l", Insist::Secret, "l", ""),
    ("echo x >f; chmod 600 f; chown 65534 f; ln -s f l", Insist::Secret, "l", NOBODY),
    ("mkfifo f; chmod 600 f", Insist::Secret, "f", "f: not a regular file"),
    ("echo x >f; chmod 600 f; chown 65534 f", Insist::NamedSecret, "f", ""),
    ("echo x >f; chmod 644 f; chown 65534 f", Insist::NamedSecret, "f", "others can read or change a secret"),
    (":", Insist::Secret, "f", "No such file"),
    // Its directory, and those above.
    ("mkdir d; echo x >d/f", Insist::Trusted, "d/f", ""),
    ("mkdir d; echo x >d/f; chmod 777 d", Insist::Trusted, "d/f", "d: its mode is 777"),
    ("mkdir d; echo x >d/f; chmod 775 d", Insist::Trusted, "d/f", "d: its mode is 775"),
    ("mkdir d; echo x >d/f; chmod 1777 d", Insist::Trusted, "d/f", ""),
    ("mkdir d; echo x >d/f; chmod 1777 d; chown 65534 d", Insist::Trusted, "d/f", NOBODY),
    ("mkdir d; echo x >d/f; chown 65534 d", Insist::Trusted, "d/f", NOBODY),
    ("mkdir d; chmod 777 d", Insist::Trusted, "d/f", "d: its mode is 777"),
    ("mkdir -p d/e; echo x >d/e/f; chmod 777 d", Insist::Trusted, "d/e/f", "d: its mode is 777"),
    ("mkdir -p d/e; echo x >d/e/f; chown 65534 d", Insist::Executable, "d/e/f", NOBODY),
    // A directory that is listed.
    ("mkdir d", Insist::Directory, "d", ""),
    (":", Insist::Directory, "d", "-"),
    ("echo x >d", Insist::Directory, "d", "d: not a directory"),
    ("mkdir d; chmod 777 d", Insist::Directory, "d", "d: its mode is 777"),
    ("mkdir d; chmod 1777 d", Insist::Directory, "d", "d: its mode is 1777"),
    ("mkdir d; chown 65534 d", Insist::Directory, "d", NOBODY),
    ("mkdir -p d e; ln -s ../e d/l", Insist::Directory, "d/l", ""),
    // Links.
    (SECRET_MOUNT, Insist::Trusted, "m/f", ""),
    ("mkdir d; echo x >d/f; ln -s $PWD/d/f l", Insist::Trusted, "l", ""),
    ("mkdir d; echo x >d/f; ln -s $PWD//d l", Insist::Trusted, "l//f", ""),
    (
        "mkdir d; echo x >f; chown 65534 f; ln -s ../f d/l",
        Insist::Trusted,
        "d/l",
        "65534, who could change it (put a copy in the place of the link ",
    ),
    ("mkdir d; echo x >d/f; chown 65534 d; ln -s d/f l", Insist::Trusted, "l", "d: it belongs to user 65534"),
    ("mkdir d; echo x >f; chmod 777 d; ln -s ../f d/e; ln -s d/e l", Insist::Trusted, "l", "d: its mode is 777"),
    (
        "mkdir d; echo x >f; chmod 1777 d; ln -s ../f d/l; chown -h 65534 d/l",
        Insist::Trusted,
        "d/l",
        "d/l: it belongs to user 65534",
    ),
    ("ln -s m l; ln -s l m", Insist::Trusted, "l", "levels of symbolic links"),
    (
        "ln -s nowhere l",
        Insist::Trusted,
        "l",
        "nowhere: No such file or directory (os error 2) (put a copy in the place of the link ",
    ),
    ("mkdir d; ln -s d l", Insist::Trusted, "l/f", "-"),
];

#[test]
fn what_others_could_have_changed_does_not_count() {
    if sys::user() != 0 {
        return; // Only root can give a file away.
    }
    let mut faults = Vec::new();
    for (script, insist, path, words) in ROWS {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("umask 022; {script}");
        assert!(Command::new("sh").current_dir(&dir).args(["-euc", &script]).status().unwrap().success(), "{script}");
        let path = dir.path().join(path);
        let read = match insist {
            Insist::Secret | Insist::NamedSecret => insist.read_open(&path, 9, 0).map(|bytes| bytes.len() == 2),
            Insist::Trusted => insist.read(&path, 9).map(|bytes| bytes.is_some()),
            _ => insist.find(&path),
        };
        let is_right = match &read {
            Ok(is_there) => *is_there == words.is_empty() && "-".starts_with(words),
            Err(e) => words.len() > 1 && e.to_string().contains(words) && e.exit_code() == 2,
        };
        if !is_right {
            faults.push(format!("{script}: {insist:?}: {:?}", read.map_err(|e| e.to_string())));
        }
    }
    assert!(faults.is_empty(), "{} of {}: {faults:#?}", faults.len(), ROWS.len());
}

/// The descriptor is checked, not the name.
#[test]
fn what_was_opened_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("f"), dir.path().join("l"));
    std::fs::write(&path, "x").unwrap();
    std::os::unix::fs::symlink("f", &link).unwrap();
    let followed = |flags| Insist::Trusted.read_open(&link, 9, flags).map_err(|e| e.to_string());
    assert_eq!(followed(0).unwrap(), b"x");
    assert!(followed(libc::O_NOFOLLOW).unwrap_err().contains("ymbolic link"));
    assert!(Insist::Trusted.read(&path, 0).unwrap_err().to_string().contains("longer than 0 bytes"));
}

/// A relative path lies below the working directory, which is checked too.
#[test]
fn a_relative_path_begins_where_this_program_works() {
    assert!(Insist::Trusted.find(Path::new("Cargo.toml")).unwrap());
    assert!(Insist::Directory.find(Path::new("src/os/..")).unwrap());
    assert!(!Insist::Directory.find(Path::new("src/nothing")).unwrap());
}

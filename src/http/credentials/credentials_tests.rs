//! Tests of `credentials/mod.rs`.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn read(text: &str) -> Credentials {
    Credentials::parse(text.as_bytes(), "config.json").unwrap()
}

fn user(credentials: &Credentials, host: &str, repository: &str) -> String {
    match credentials.find(host, repository).unwrap() {
        Some(Credential::Password { user, password }) => format!("{user}:{}", password.reveal()),
        Some(Credential::Identity(token)) => format!("token {}", token.reveal()),
        None => "nobody".to_owned(),
    }
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, "{}").unwrap();
    for (mode, good) in [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o660, false), (0o604, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let got = load(&path, Insist::Secret);
        assert_eq!(got.is_ok(), good, "{mode:o}: {got:?}");
    }
    assert!(load(&path, Insist::Secret).unwrap_err().to_string().contains("chmod 600"));
    assert!(load(&dir.path().join("none"), Insist::Secret).unwrap_err().to_string().contains("No such file"));
}

#[test]
fn each_way_to_write_a_credential() {
    let file = read(
        r#"{"auths": {
            "a.example": {"auth": "dXNlcjpwYTpzcw==", "email": "x"},
            "b.example:5000": {"username": "u", "password": "p"},
            "c.example": {"identitytoken": "t", "auth": "PHRva2VuPjo="},
            "https://d.example/v2/": {"auth": "dTpw"},
            "https://index.docker.io/v1/": {"auth": "aHViOnA="},
            "e.example": {}
        }, "HttpHeaders": {"x": "y"}}"#,
    );
    for (host, want) in [
        ("a.example", "user:pa:ss"),
        ("b.example:5000", "u:p"),
        ("b.example", "nobody"),
        ("c.example", "token t"),
        ("d.example", "u:p"),
        ("registry-1.docker.io", "hub:p"),
        ("docker.io", "hub:p"),
        ("e.example", "nobody"),
        ("a.example.evil", "nobody"),
        ("a.exampl", "nobody"),
    ] {
        assert_eq!(user(&file, host, "os/kubesolo"), want, "{host}");
    }
}

#[test]
fn keys_as_each_tool_writes_them() {
    for key in ["docker.io", "registry-1.docker.io", "index.docker.io/v1/", "HTTPS://index.docker.io/v1/", "Docker.IO"]
    {
        let file = read(&format!(r#"{{"auths": {{"{key}": {{"auth": "dTpw"}}}}}}"#));
        assert_eq!(user(&file, "registry-1.docker.io", "library/os"), "u:p", "{key}");
        assert_eq!(user(&file, "docker.io.evil", "library/os"), "nobody", "{key}");
    }
    let file = read(r#"{"auths": {"R.example": {"auth": "dTpw"}, "s.example:443/os": {"auth": "czpw"}}}"#);
    for (host, want) in [
        ("r.example", "u:p"),
        ("r.example:443", "u:p"),
        ("r.example:4430", "nobody"),
        ("r.example:80", "nobody"),
        ("s.example", "s:p"),
    ] {
        assert_eq!(user(&file, host, "os/kube"), want, "{host}");
    }
    // Two keys for one place, in either order.
    for (one, other) in [("{}", r#"{"auth": "dTpw"}"#), (r#"{"auth": "dTpw"}"#, "{}")] {
        let file = read(&format!(r#"{{"auths": {{"docker.io": {one}, "https://index.docker.io/v1/": {other}}}}}"#));
        assert_eq!(user(&file, "registry-1.docker.io", "library/os"), "u:p", "{one} {other}");
    }
    // Both entries are readable: the same one wins, whichever comes first.
    for keys in [["r.example", "https://r.example"], ["https://r.example", "r.example"]] {
        let entries = keys.map(|key| {
            let auth = if key.starts_with("https") { "dTpw" } else { "czpw" };
            format!(r#""{key}": {{"auth": "{auth}"}}"#)
        });
        let file = read(&format!(r#"{{"auths": {{{}}}}}"#, entries.join(", ")));
        assert_eq!(user(&file, "r.example", "os"), "s:p", "{keys:?}");
    }
    // A repository of that name is not an API version.
    let file = read(r#"{"auths": {"r/v2/os": {"auth": "dTpw"}}}"#);
    assert_eq!(user(&file, "r", "os"), "nobody");
    assert_eq!(user(&file, "r", "v2/os"), "u:p");
}

#[test]
fn the_longest_entry_wins_and_only_at_a_slash() {
    let file = read(
        r#"{"auths": {"r": {"auth": "aG9zdDpw"}, "r/os": {"auth": "b3M6cA=="}, "r/os/kube": {"auth": "a3ViZTpw"}}}"#,
    );
    for (repository, want) in [
        ("x/y", "host:p"),
        ("os", "os:p"),
        ("os/kubesolo", "os:p"),
        ("os/kube", "kube:p"),
        ("os/kube/x", "kube:p"),
        ("", "host:p"),
    ] {
        assert_eq!(user(&file, "r", repository), want, "{repository}");
    }
}

#[test]
fn helpers_are_refused_where_they_would_be_needed_and_only_there() {
    let file = read(
        r#"{"auths": {"a": {"auth": "dTpw"}, "b": {}}, "credHelpers": {"a": "ecr-login"}, "credsStore": "desktop"}"#,
    );
    for (host, program) in [("a", "ecr-login"), ("b", "desktop")] {
        let e = file.find(host, "x").unwrap_err();
        assert!(e.kind() == Kind::Config && e.to_string().contains(program) && e.to_string().contains("auth"), "{e}");
    }
    assert_eq!(user(&file, "public.example", "x"), "nobody");
}

#[test]
fn mistakes_name_the_entry_and_show_no_secret() {
    for (auth, words) in [
        (r#"{"auth": "hunter2!"}"#, "'auth' is not base64"),
        (r#"{"auth": "aHVudGVyMg=="}"#, "not user:password"),
        (r#"{"auth": "aHVudGVyMjr/"}"#, "not UTF-8"),
        (r#"{"auth": 7}"#, "wrong type"),
        (r#""hunter2""#, "not an object with `auth`"),
        (r#"["hunter2"]"#, "not an object with `auth`"),
        ("7", "not an object with `auth`"),
        ("-7", "not an object with `auth`"),
        ("true", "not an object with `auth`"),
        ("0.5", "not an object with `auth`"),
        (r#"{"username": "a:b", "password": "hunter2"}"#, "cannot carry"),
        (r#"{"username": "a", "password": "hunter2\n"}"#, "cannot carry"),
    ] {
        let file = format!(r#"{{"auths": {{"r.example": {auth}, "s.example": {{"auth": "dTpw"}}}}}}"#);
        let file = Credentials::parse(file.as_bytes(), "f").unwrap();
        let e = file.find("r.example", "os").unwrap_err();
        // For another host, the malformed entry does not matter.
        assert_eq!((user(&file, "s.example", "os"), user(&file, "t.example", "os")), ("u:p".into(), "nobody".into()));
        let text = e.to_string();
        assert!(e.kind() == Kind::Config && text.contains(words) && text.contains("r.example"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("aHVu"), "{text}");
    }
    let file = Credentials::parse(br#"{"auths": {"https://u:hunter2@r.example": {"auth": 7}}}"#, "f").unwrap();
    let e = file.find("u:hunter2@r.example", "os").unwrap_err();
    assert!(!e.to_string().contains("hunter2"), "{e}");
    assert_eq!(Credentials::parse(b"{", "f").unwrap_err().kind(), Kind::Config);
    assert_eq!(read("{}"), Credentials::default());
    let shown = format!("{:?}", read(r#"{"auths": {"r": {"auth": "dTpodW50ZXIy"}}}"#));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_is_empty_says_nothing_and_hides_nothing() {
    for empty in ["null", "{}", r#"{"auth": null}"#, r#"{"auth": ""}"#, r#"{"auth": "", "email": {"x": [1]}}"#] {
        let file =
            read(&format!(r#"{{"auths": {{"a": {empty}, "b": {{"auth": "dTpw"}}}}, "credHelpers": {{"c": null}}}}"#));
        for (host, want) in [("a", "nobody"), ("b", "u:p"), ("c", "nobody")] {
            assert_eq!(user(&file, host, "os"), want, "{empty}");
        }
        assert!(file.remarks.is_empty());
    }
    // Of two keys for one place, the readable one wins.
    let file = read(r#"{"auths": {"docker.io": {"auth": "dTpw"}, "https://index.docker.io/v1/": "no object"}}"#);
    assert_eq!(user(&file, "docker.io", "library/os"), "u:p");
    let file = read(r#"{"auths": {"c": {"auth": "dTpw"}}, "credHelpers": {"c": 7, "d": "ecr-login", "e": ""}}"#);
    assert!(file.find("d", "os").unwrap_err().to_string().contains("ecr-login"));
    assert_eq!((user(&file, "c", "os"), user(&file, "e", "os")), ("u:p".into(), "nobody".into()));
}

#[test]
fn what_counts_for_nothing_is_remarked() {
    for (entries, words) in [
        (r#""r": {"registrytoken": "hunter2"}"#, "the entry 'r' of config.json has a registrytoken, which is not read"),
        (r#""r/os:v1": {"auth": "dTpw"}"#, "the entry 'r/os:v1' of config.json names a tag or a digest"),
        (r#""https://r/os:v1": {"auth": "dTpw"}"#, "names a tag or a digest"),
        (r#""r:5000/team/os@sha256:00": {"auth": "dTpw"}"#, "names a tag or a digest"),
        (r#""r": {"registrytoken": "hunter2", "auth": "dTpw"}"#, ""),
        (r#""r:5000": {"auth": "dTpw"}, "r:5000/os": {"auth": "dTpw"}, "https://r:5000/v2/": {}"#, ""),
        (r#""r": {"registrytoken": null}"#, ""),
    ] {
        let file = read(&format!(r#"{{"auths": {{{entries}}}}}"#));
        assert_eq!(file.remarks.len(), usize::from(!words.is_empty()), "{entries}: {:?}", file.remarks);
        assert!(file.remarks.iter().all(|remark| remark.contains(words) && !remark.contains("hunter2")), "{entries}");
    }
}

/// The order in the file decides nothing.
#[test]
fn of_two_entries_for_one_place_that_of_the_later_key_counts() {
    let parse = |keys: &[&str]| {
        let entry = |(n, key)| format!(r#""{key}": {{"username": "{n}", "password": "p"}}"#);
        let members: Vec<String> = keys.iter().enumerate().map(entry).collect();
        Credentials::parse(format!(r#"{{"auths": {{{}}}}}"#, members.join(", ")).as_bytes(), "config.json")
    };
    for (keys, want) in [
        (&["https://a.example", "a.example"][..], "0:p"),
        (&["a.example", "https://a.example"], "1:p"),
        (&["https://a.example/v1/", "https://a.example", "b.example", "a.example"], "0:p"),
        (&["http://a.example", "a.example:443", "A.EXAMPLE"], "0:p"),
    ] {
        assert_eq!(user(&parse(keys).unwrap(), "a.example", "os"), want, "{keys:?}");
    }
    assert!(parse(&["a.example", "b.example", "a.example"]).unwrap_err().to_string().contains("same name twice"));
}

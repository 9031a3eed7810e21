//! Who this machine is to a registry: Docker's `config.json`. Pure, but for [`load`].
//!
//! Must never: show a secret, give one to a host it does not belong to, or run a helper program.

use crate::atomic::read_required;
use crate::base64;
use crate::error::{Error, IoContext, Kind, Result};
use crate::json::{self, Field};
use crate::url::without_secrets;
use miniserde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Largest file that is read, in bytes.
pub const CREDENTIALS_MAX_BYTES: u64 = 256 * 1024;

/// Docker Hub's name in the file, from before there were other registries.
const HUB_KEY: &str = "index.docker.io";
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Who else may do what with a file that holds a secret: its group may read it, nobody else anything.
const OTHERS: u32 = 0o027;

/// Reads the file that the configuration names.
/// Errors: Config: it is not there, malformed, or others can read or change it.
pub fn load(path: &Path) -> Result<Credentials> {
    check_private(path)?;
    let bytes = read_required(path, CREDENTIALS_MAX_BYTES).io(Kind::Config, "read", path.display())?;
    Credentials::parse(&bytes, &path.display().to_string())
}

/// Refuses a file with a secret in it that others can read or change.
/// Errors: Config: they can, or it can not be looked at.
pub fn check_private(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).io(Kind::Config, "read", path.display())?.permissions().mode();
    match mode & OTHERS {
        0 => Ok(()),
        _ => {
            let why = format!("its mode is {:o}: others can read or change a secret", mode & 0o7777);
            Err(Error::new(Kind::Config, why).at("use", path.display()).hint("chmod 600"))
        }
    }
}

/// Holds text that must not be shown. Neither `Debug` nor `Display` does.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Makes one.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// Returns the text, for the one header or form that it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Says who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Password {
        /// User name.
        user: String,
        /// Password, or an access token in its place.
        password: Secret,
    },
    /// A refresh token, to be exchanged for access tokens. Source: Docker's `identitytoken`.
    Identity(Secret),
}

/// Holds what the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    entries: Vec<(String, Entry)>,
    /// A program that holds what is not in the file.
    store: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Known(Credential),
    /// Docker leaves these where a program holds the secret.
    Empty,
    /// `credHelpers`: the program's name.
    Helper(String),
}

#[derive(Deserialize)]
struct RawFile {
    auths: Option<BTreeMap<String, RawAuth>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Field<String>,
}

#[derive(Deserialize)]
struct RawAuth {
    auth: Field<String>,
    username: Field<String>,
    password: Field<String>,
    identitytoken: Field<String>,
}

impl Credentials {
    /// Reads a `config.json`. Input: its bytes; `name` says which file, in errors.
    /// Errors: Config: malformed, naming the entry and never its content.
    /// Source: docker-cli, `cli/config/configfile`; containers-auth.json(5).
    pub fn parse(bytes: &[u8], name: &str) -> Result<Credentials> {
        let as_config = |e: Error| Error::new(Kind::Config, e.to_string());
        let raw: RawFile = json::parse(bytes, name).map_err(as_config)?;
        let store = raw.store.optional("credsStore").map_err(as_config)?.filter(|s| !s.is_empty());
        let mut credentials = Credentials { entries: Vec::new(), store };
        for (key, auth) in raw.auths.unwrap_or_default() {
            let entry = auth.check().map_err(|why| {
                Error::new(Kind::Config, why)
                    .at("read", format_args!("the entry '{}' of {name}", without_secrets(&key)))
            })?;
            credentials.entries.push((place(&key), entry));
        }
        for (key, program) in raw.helpers.unwrap_or_default() {
            let place = place(&key);
            // As in Docker: for its host, the helper is asked and `auths` is not.
            credentials.entries.retain(|(other, _)| *other != place);
            credentials.entries.push((place, Entry::Helper(program)));
        }
        Ok(credentials)
    }

    /// Finds who to be for a repository: the longest entry that is its host, or its host and the beginning of its path.
    /// Input: `host` with its port, if one is given; `repository` may be empty.
    /// Returns: `None`: ask as nobody.
    /// Errors: Config: the secret is held by a program, which does not run here.
    pub fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        let full = format!("{}/{repository}", host_key(host));
        let covers =
            |place: &str| full.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // Two keys may mean one place; what Docker left empty hides nothing.
        let rank = |(place, entry): &&(String, Entry)| (place.len(), *entry != Entry::Empty);
        let best = self.entries.iter().filter(|(place, _)| covers(place)).max_by_key(rank);
        let program = match best {
            Some((_, Entry::Known(credential))) => return Ok(Some(credential.clone())),
            Some((_, Entry::Helper(program))) => program,
            Some((_, Entry::Empty)) => match &self.store {
                Some(program) => program,
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        Err(Error::new(Kind::Config, format!("they are held by the program docker-credential-{program}, which is not run here"))
            .at("find credentials for", host)
            .hint("put an `auth` entry for this host into the file (on a machine without credential helper: `docker login`, or `oras login --registry-config FILE`)"))
    }
}

/// Turns a key of the file into `host[:port][/path]`: keys are hosts, hosts with a path, or URLs as Docker Hub's.
fn place(key: &str) -> String {
    let rest = match key.split_once("://") {
        Some((scheme, rest)) if ["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => rest,
        _ => key,
    };
    let host = rest.split('/').next().unwrap_or_default();
    let path = rest[host.len()..].trim_end_matches('/');
    // The version of an API is no part of a repository's name.
    match path {
        "/v1" | "/v2" | "" => host_key(host),
        path => format!("{}{path}", host_key(host)),
    }
}

/// Writes a host as the entries have it: lower case, without the port that https has anyway, Docker Hub by one name.
fn host_key(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    if HUB_HOSTS.contains(&host) { HUB_KEY.to_owned() } else { host.to_owned() }
}

impl RawAuth {
    /// Errors: what is wrong, without what it says.
    fn check(self) -> std::result::Result<Entry, String> {
        let text = |field: Field<String>, name: &str| {
            field.optional(name).map(|t| t.filter(|t| !t.is_empty())).map_err(|e| e.to_string())
        };
        if let Some(token) = text(self.identitytoken, "identitytoken")? {
            return Ok(Entry::Known(Credential::Identity(Secret(token))));
        }
        let (user, password) = (text(self.username, "username")?, text(self.password, "password")?);
        if let (Some(user), Some(password)) = (user, password) {
            return known(user, password);
        }
        let Some(auth) = text(self.auth, "auth")? else { return Ok(Entry::Empty) };
        let bytes = base64::decode(auth.trim()).ok_or("'auth' is not base64")?;
        let pair = String::from_utf8(bytes).map_err(|_| "'auth' is not UTF-8 text")?;
        // Docker itself once padded with zeros.
        let (user, password) = pair.trim_end_matches('\0').split_once(':').ok_or("'auth' is not user:password")?;
        known(user.to_owned(), password.to_owned())
    }
}

fn known(user: String, password: String) -> std::result::Result<Entry, String> {
    // Source: RFC 7617, section 2.
    if user.contains(':') || user.chars().chain(password.chars()).any(char::is_control) {
        return Err("user or password has a character that HTTP can not carry".to_owned());
    }
    Ok(Entry::Known(Credential::Password { user, password: Secret(password) }))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (mode, good) in
            [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o660, false), (0o604, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let got = load(&path);
            assert_eq!(got.is_ok(), good, "{mode:o}: {got:?}");
        }
        assert!(load(&path).unwrap_err().to_string().contains("chmod 600"));
        assert!(load(&dir.path().join("none")).unwrap_err().to_string().contains("No such file"));
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
        for key in
            ["docker.io", "registry-1.docker.io", "index.docker.io/v1/", "HTTPS://index.docker.io/v1/", "Docker.IO"]
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
        // A repository of that name is no version of an API.
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
            assert!(
                e.kind() == Kind::Config && e.to_string().contains(program) && e.to_string().contains("auth"),
                "{e}"
            );
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
            (r#"{"username": "a:b", "password": "hunter2"}"#, "can not carry"),
            (r#"{"username": "a", "password": "hunter2\n"}"#, "can not carry"),
        ] {
            let e = Credentials::parse(format!(r#"{{"auths": {{"r.example": {auth}}}}}"#).as_bytes(), "f").unwrap_err();
            let text = e.to_string();
            assert!(e.kind() == Kind::Config && text.contains(words) && text.contains("r.example"), "{text}");
            assert!(!text.contains("hunter2") && !text.contains("aHVu"), "{text}");
        }
        let e = Credentials::parse(br#"{"auths": {"https://u:hunter2@r.example": {"auth": 7}}}"#, "f").unwrap_err();
        assert!(!e.to_string().contains("hunter2"), "{e}");
        assert_eq!(Credentials::parse(b"{", "f").unwrap_err().kind(), Kind::Config);
        assert_eq!(read("{}"), Credentials::default());
        let shown = format!("{:?}", read(r#"{"auths": {"r": {"auth": "dTpodW50ZXIy"}}}"#));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

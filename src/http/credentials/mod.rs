//! This machine's registry credentials: Docker's `config.json`. Pure, but for [`load`].
//!
//! Must never: show a secret, give one to a host it does not belong to, or run a helper program.

mod raw;

use crate::base::base64;
use crate::base::error::{Error, Kind, Result};
use crate::base::json::{self, Field};
use crate::base::url::without_secrets;
use crate::os::permissions::Insist;
use crate::os::progress::note;
use miniserde::Deserialize;
use raw::{RawAuth, RawAuths};
use std::fmt;
use std::path::Path;

/// Largest file that is read, in bytes.
pub const CREDENTIALS_MAX_BYTES: u64 = 256 * 1024;

/// Docker Hub's name in the file, from before there were other registries.
const HUB_KEY: &str = "index.docker.io";
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Reads the configured file. Input: `insist`: what is asked of it.
/// Errors: Config: it is not there, malformed, another user's, or others can read or change it.
pub fn load(path: &Path, insist: Insist) -> Result<Credentials> {
    let bytes = insist.read_open(path, CREDENTIALS_MAX_BYTES, 0)?;
    let credentials = Credentials::parse(&bytes, &path.display().to_string())?;
    credentials.remarks.iter().for_each(|remark| note(remark));
    Ok(credentials)
}

/// Text that must not be shown. Neither `Debug` nor `Display` reveals it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// Returns the text, for the one header or form that it belongs in.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Credentials for one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Password {
        /// User name.
        user: String,
        /// Password, or an access token instead.
        password: Secret,
    },
    /// A refresh token, to be exchanged for access tokens. Source: Docker's `identitytoken`.
    Identity(Secret),
}

/// Content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    entries: Vec<(String, Entry)>,
    /// The program that stores other secrets.
    store: Option<String>,
    /// Warnings about ignored content of the file.
    remarks: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Known(Credential),
    /// Left by Docker where a program holds the secret.
    Empty,
    /// `credHelpers`: the program's name.
    Helper(String),
    /// Malformed, with the reason, never the content. Affects its own host alone.
    Bad(String),
}

#[derive(Deserialize)]
struct RawFile {
    auths: Option<RawAuths>,
    #[serde(rename = "credHelpers")]
    helpers: Option<RawAuths>,
    #[serde(rename = "credsStore")]
    store: Field<String>,
}

impl Credentials {
    /// Parses a `config.json`. Input: its bytes; `name`: the file's name, for errors.
    /// Errors: Config: malformed. A malformed entry is an error for its own host alone, see [`Credentials::find`].
    /// Source: docker-cli, `cli/config/configfile`; containers-auth.json(5).
    pub fn parse(bytes: &[u8], name: &str) -> Result<Credentials> {
        let as_config = |e: Error| Error::new(Kind::Config, e.to_string());
        let raw: RawFile = json::parse(bytes, name).map_err(as_config)?;
        let store = raw.store.optional("credsStore").map_err(as_config)?.filter(|s| !s.is_empty());
        let mut credentials = Credentials { entries: Vec::new(), store, remarks: Vec::new() };
        for (key, auth) in raw.auths.unwrap_or_default().0 {
            let title = format!("the entry '{}' of {name}", without_secrets(&key));
            let has_token = matches!(auth.registrytoken, Field::Is(_));
            let entry = auth.check().unwrap_or_else(|why| Entry::Bad(format!("{title}: {why}")));
            let place = place(&key);
            if has_token && entry == Entry::Empty {
                let what = "has a registrytoken, which is not read: write `auth`, base64 of user:token";
                credentials.remarks.push(format!("{title} {what}"));
            }
            if names_one_image(&place) {
                let what = "names a tag or a digest, and so fits no repository: write HOST or HOST/REPOSITORY";
                credentials.remarks.push(format!("{title} {what}"));
            }
            credentials.entries.push((place, entry));
        }
        for (key, program) in raw.helpers.unwrap_or_default().0 {
            let Some(program) = program.text.filter(|program| !program.is_empty()) else { continue };
            let place = place(&key);
            // As in Docker: for this host the helper is asked, and `auths` is ignored.
            credentials.entries.retain(|(other, _)| *other != place);
            credentials.entries.push((place, Entry::Helper(program)));
        }
        Ok(credentials)
    }

    /// Finds the credentials for a repository: the longest entry that is its host, or its host and the beginning of its path.
    /// Input: `host` with its port, if one is given; `repository` may be empty.
    /// Returns: `None`: ask anonymously.
    /// Errors: Config: the entry is malformed, and named, never its content; or the secret is held by a program, which the
    /// agent does not run.
    pub fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        let full = format!("{}/{repository}", host_key(host));
        let covers =
            |place: &str| full.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // Two keys may mean one place; an entry left empty by Docker, or a malformed one, hides no other.
        let weight = |entry: &Entry| match entry {
            Entry::Empty => 0,
            Entry::Bad(_) => 1,
            Entry::Known(_) | Entry::Helper(_) => 2,
        };
        let rank = |(place, entry): &&(String, Entry)| (place.len(), weight(entry));
        let best = self.entries.iter().filter(|(place, _)| covers(place)).max_by_key(rank);
        let program = match best {
            Some((_, Entry::Known(credential))) => return Ok(Some(credential.clone())),
            Some((_, Entry::Bad(why))) => return Err(Error::new(Kind::Config, why.as_str())),
            Some((_, Entry::Helper(program))) => program,
            Some((_, Entry::Empty)) => match &self.store {
                Some(program) => program,
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        Err(Error::new(Kind::Config, format!("they are held by the program docker-credential-{program}, which is not run here"))
            .at("find credentials for", host)
            .hint("put an `auth` entry for this host into the file; on a machine without credential helper, `docker login` or `oras login --registry-config FILE` writes one"))
    }
}

/// Normalizes a key of the file to `host[:port][/path]`: keys are hosts, hosts with a path, or URLs like Docker Hub's.
fn place(key: &str) -> String {
    let rest = match key.split_once("://") {
        Some((scheme, rest)) if ["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => rest,
        _ => key,
    };
    let host = rest.split('/').next().unwrap_or_default();
    let path = rest[host.len()..].trim_end_matches('/');
    // An API version is not part of a repository's name.
    match path {
        "/v1" | "/v2" | "" => host_key(host),
        path => format!("{}{path}", host_key(host)),
    }
}

/// Returns whether a place has a tag or a digest after its repository.
fn names_one_image(place: &str) -> bool {
    let repository = place.split_once('/').map_or("", |(_, repository)| repository);
    repository.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
}

/// Normalizes a host: lower case, without the default port of https, Docker Hub under one name.
fn host_key(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    if HUB_HOSTS.contains(&host) { HUB_KEY.to_owned() } else { host.to_owned() }
}

impl RawAuth {
    /// Errors: the reason, without the content.
    fn check(self) -> std::result::Result<Entry, String> {
        let text = |field: Field<String>, name: &str| {
            field.optional(name).map(|t| t.filter(|t| !t.is_empty())).map_err(|e| e.to_string())
        };
        if self.is_wrong || self.text.is_some() {
            return Err("it is not an object with `auth` in it".to_owned());
        }
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
        // Docker itself used to pad with zeros.
        let (user, password) = pair.trim_end_matches('\0').split_once(':').ok_or("'auth' is not user:password")?;
        known(user.to_owned(), password.to_owned())
    }
}

fn known(user: String, password: String) -> std::result::Result<Entry, String> {
    // Source: RFC 7617, section 2.
    if user.contains(':') || user.chars().chain(password.chars()).any(char::is_control) {
        return Err("user or password has a character that HTTP cannot carry".to_owned());
    }
    Ok(Entry::Known(Credential::Password { user, password: Secret(password) }))
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;

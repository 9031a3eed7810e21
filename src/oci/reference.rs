//! OCI references: `[oci://]host[:port]/repository[:tag][@sha256:...]`, checked before they become URLs.
//!
//! Must never: guess a registry for a reference that names none, or let an unchecked part into a URL.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::url::{parse_authority, without_secrets};
use std::fmt;

/// Longest host and repository together, in bytes: the limit of today's registries.
const MAX_NAME: usize = 255;
/// Longest tag. Source: distribution-spec 1.1, "Pulling manifests".
const MAX_TAG: usize = 128;

/// A checked reference: registry, repository, and tag or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    host: String,
    port: Option<u16>,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a reference. The first path component is always the registry's host; `docker.io` alone is
    /// translated, to the host that serves its API and to `library/` for single names.
    /// Errors: Config: names the malformed part.
    /// Source: distribution-spec 1.1 "Pulling manifests" (name and tag grammar).
    pub fn parse(text: &str) -> Result<Reference> {
        let bad = |why: &str| Error::new(Kind::Config, why).at("read OCI reference", shown(text));
        let rest = text.strip_prefix("oci://").unwrap_or(text);
        if rest.contains("://") {
            return Err(bad("this is a URL, not host/repository:tag")
                .hint("OCI references are written without a scheme, or with oci://"));
        }
        let (rest, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((name, _)) if !name.contains('/') => return Err(bad("must not carry a user name or password")),
            Some((name, digest)) => match Digest::parse(digest) {
                Ok(digest) => (name, Some(digest)),
                Err(_) => return Err(bad("digest after @ is not sha256:<64 lower-case hex digits>")),
            },
        };
        let (authority, path) =
            rest.split_once('/').ok_or_else(|| bad("no repository: expected host[:port]/repository[:tag]"))?;
        let (path, tag) = match path.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        let (mut host, port) = parse_authority(authority)
            .map_err(|why| bad("registry host is malformed").hint(format!("{why}; IPv6 addresses go in brackets")))?;
        if !is_repository(path) {
            return Err(bad("repository name is malformed: lower-case letters, digits and single separators . _ -"));
        }
        if let Some(tag) = tag {
            check_tag(tag).map_err(|e| e.at("read OCI reference", shown(text)))?;
        }
        let mut repository = path.to_owned();
        if host == "docker.io" && port.is_none() {
            host = "registry-1.docker.io".to_owned();
            if !repository.contains('/') {
                repository.insert_str(0, "library/");
            }
        }
        // Measured as requested, not as written.
        if host.len() + repository.len() + 1 > MAX_NAME {
            return Err(bad("host and repository are longer than 255 characters"));
        }
        Ok(Reference { host, port, repository, tag: tag.map(str::to_owned), digest })
    }

    /// Returns the reference for the same content on a mirror. Input: `host[:port]`, for the same repository, or with another
    /// one.
    /// Errors: Config: malformed, or with a tag or digest, which this reference has.
    pub fn mirrored_at(&self, mirror: &str) -> Result<Reference> {
        let bare = mirror.strip_prefix("oci://").unwrap_or(mirror).trim_end_matches('/');
        let whole = if bare.contains('/') { bare.to_owned() } else { format!("{bare}/{}", self.repository) };
        let found = Reference::parse(&whole)?;
        match found.tag.is_none() && found.digest.is_none() {
            true => Ok(found),
            false => Err(Error::new(Kind::Config, "a mirror is named without tag and digest: the source's count")),
        }
    }

    /// Replaces the reference's tag (`--tag`).
    /// Errors: Usage: not a tag, or the reference is pinned to a digest.
    pub fn set_tag(&mut self, tag: &str) -> Result<()> {
        if self.digest.is_some() {
            return Err(Error::new(Kind::Usage, "the reference names a digest, so a tag has no effect")
                .hint("drop the tag or the digest"));
        }
        check_tag(tag)?;
        self.tag = Some(tag.to_owned());
        Ok(())
    }

    /// Returns the registry's host, IPv6 in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, if given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the repository's name.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; `latest` if none is given.
    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    /// Returns the digest that the reference is pinned to.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns whether the registry is this machine.
    pub fn is_loopback(&self) -> bool {
        crate::base::url::is_loopback(&self.host)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}", self.repository)?;
        match (&self.tag, self.digest) {
            (Some(tag), Some(digest)) => write!(f, ":{tag}@{digest}"),
            (None, Some(digest)) => write!(f, "@{digest}"),
            (_, None) => write!(f, ":{}", self.tag()),
        }
    }
}

/// Checks a tag. Errors: Usage: what a tag may be.
/// Source: distribution-spec 1.1: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub fn check_tag(tag: &str) -> Result<()> {
    let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let rest = tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    match first && rest && tag.len() <= MAX_TAG {
        true => Ok(()),
        false => Err(Error::new(
            Kind::Usage,
            "tag is malformed: letters, digits, '_', '.', '-', at most 128, not beginning with '.' or '-'",
        )),
    }
}

/// Source: distribution-spec 1.1: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`.
fn is_repository(path: &str) -> bool {
    path.split('/').all(|component| {
        let bytes = component.as_bytes();
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let mut at = 0;
        loop {
            let start = at;
            while bytes.get(at).copied().is_some_and(word) {
                at += 1;
            }
            if at == start {
                return false;
            }
            if at == bytes.len() {
                return true;
            }
            at += match &bytes[at..] {
                [b'_', b'_', ..] => 2,
                [b'_' | b'.', ..] => 1,
                [b'-', ..] => bytes[at..].iter().take_while(|b| **b == b'-').count(),
                _ => return false,
            };
        }
    })
}

/// Quotes foreign text for a message, without parts that may be secret.
fn shown(text: &str) -> String {
    // A pinned digest is not a secret, and the message needs the name to identify the reference.
    let (name, pin) = text.rfind("@sha256:").map_or((text, ""), |at| text.split_at(at));
    match pin.contains(['/', '?', '#']) {
        true => format!("'{}'", without_secrets(text)),
        false => format!("'{}{pin}'", without_secrets(name)),
    }
}

/// Returns whether a tag follows the referrers tag schema, or is one that cosign 2 makes beside a release or that
/// scripts/sign.sh gives to a signature. Source: as above; measured: cosign 3.1.1.
pub fn is_tag(tag: &str) -> bool {
    let is_hex = |text: &str| text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if let Some((subject, manifest)) = tag.strip_prefix("signature-").and_then(|rest| rest.split_once('-')) {
        return is_hex(subject) && is_hex(manifest);
    }
    let name = tag.strip_prefix("sha256-").unwrap_or_default();
    let hex = [".sig", ".att", ".sbom"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    Digest::parse_hex(hex).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_and_prints() {
        let pinned = format!("r.example/os@sha256:{HEX}");
        let both = format!("r.example/os:v1@sha256:{HEX}");
        for (text, host, port, repository, tag, print) in [
            ("r.example/os", "r.example", None, "os", "latest", "r.example/os:latest"),
            ("oci://r.example/a/b/c:v1", "r.example", None, "a/b/c", "v1", "r.example/a/b/c:v1"),
            ("R.Example:5000/os:V1.2-x_y", "r.example", Some(5000), "os", "V1.2-x_y", "r.example:5000/os:V1.2-x_y"),
            ("[::1]:5000/os:v1", "[::1]", Some(5000), "os", "v1", "[::1]:5000/os:v1"),
            ("127.0.0.1:5000/os:v1", "127.0.0.1", Some(5000), "os", "v1", "127.0.0.1:5000/os:v1"),
            ("r/a__b/c--d/e.f:_", "r", None, "a__b/c--d/e.f", "_", "r/a__b/c--d/e.f:_"),
            (
                "docker.io/alpine",
                "registry-1.docker.io",
                None,
                "library/alpine",
                "latest",
                "registry-1.docker.io/library/alpine:latest",
            ),
            ("docker.io/me/os:1", "registry-1.docker.io", None, "me/os", "1", "registry-1.docker.io/me/os:1"),
            (&pinned, "r.example", None, "os", "latest", &pinned),
            (&both, "r.example", None, "os", "v1", &both),
        ] {
            let r = Reference::parse(text).unwrap();
            assert_eq!((r.host(), r.port(), r.repository(), r.tag()), (host, port, repository, tag), "{text}");
            assert_eq!(r.to_string(), print);
            assert_eq!(Reference::parse(print).unwrap().to_string(), print);
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let long_tag = format!("r/os:{}", "t".repeat(129));
        let long_name = format!("r/{}", "a".repeat(255));
        let long_by_default = format!("docker.io/{}", "a".repeat(230));
        let short_digest = format!("r/os@sha256:{}", &HEX[1..]);
        for (text, word) in [
            ("", "no repository"),
            ("os:v1", "no repository"),
            ("r.example/", "repository name"),
            ("r.example/OS", "repository name"),
            ("r/a//b", "repository name"),
            ("r/a___b", "repository name"),
            ("r/a..b", "repository name"),
            ("r/-a", "repository name"),
            ("r/a-", "repository name"),
            ("r/../b", "repository name"),
            ("r/a b", "repository name"),
            ("r/a?x", "repository name"),
            ("r/os:", "tag is"),
            ("r/os:.x", "tag is"),
            ("r/os:a/b", "tag is"),
            (&long_tag, "tag is"),
            (&long_name, "255"),
            (&long_by_default, "255"),
            ("::1/os", "host"),
            ("[::1/os", "host"),
            ("r:x/os", "host"),
            ("r:0/os", "host"),
            ("/os", "host"),
            ("https://r/os", "URL"),
            (&short_digest, "digest"),
            ("r/os@sha512:00", "digest"),
            ("r/os@", "digest"),
            ("r/\u{1b}[31m", "repository name"),
        ] {
            let e = Reference::parse(text).unwrap_err();
            assert_eq!(e.exit_code(), 2, "{text}");
            assert!(e.to_string().contains(word), "{text}: {e}");
        }
        let pinned = format!("r/OS@sha256:{HEX}");
        for (text, shown) in [
            ("oci://user:secret@r/os:v1", "'***@r/os:v1'"),
            ("user:secret@r/os", "'***@r/os'"),
            ("oci://user:secret/ss@h/x", "'***@h/x'"),
            ("user:secret/ss@sha256.example", "'***@sha256.example'"),
            ("oci://user:secret@sha256:5000/x", "'***@sha256:5000/x'"),
            ("h/repo:tag?token=secret", "'h/repo:tag?...'"),
            ("h/repo?token=secret", "'h/repo?...'"),
            ("https://h/repo:tag?token=secret", "'https://h/repo:tag?...'"),
            ("user:secret@h/os@sha256:00", "'***@h/os@sha256:00'"),
            ("r/os@sha256:00?secret", "'***@sha256:00?...'"),
            (pinned.as_str(), pinned.as_str()),
        ] {
            let e = Reference::parse(text).unwrap_err().to_string();
            assert!(!e.contains("secret") && e.contains(shown), "{text}: {e}");
        }
        let e = Reference::parse("r/os").unwrap().set_tag("v1?token=secret").unwrap_err().to_string();
        assert!(!e.contains("secret"), "{e}");
    }

    #[test]
    fn a_given_tag_wins_over_the_reference_but_not_over_a_digest() {
        let mut r = Reference::parse("r/os:v1").unwrap();
        assert_eq!(r.set_tag("../x").unwrap_err().kind(), Kind::Usage);
        r.set_tag("v2").unwrap();
        assert_eq!(r.to_string(), "r/os:v2");
        let mut pinned = Reference::parse(&format!("r/os@sha256:{HEX}")).unwrap();
        assert_eq!(pinned.set_tag("v2").unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn tags_that_stand_beside_a_release_are_none_of_a_release() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        for end in ["", ".sig", ".att", ".sbom"] {
            assert!(is_tag(&format!("sha256-{hex}{end}")), "{end}");
        }
        assert!(is_tag("signature-9f86d081884c7d65-0f86d081884c7d65"));
        for tag in [
            "latest",
            "sha256-",
            "sha256-9f86",
            "signature-1.2.0",
            "signature-9f86d081884c7d65",
            "signature-9f86d081884c7d65-0f86d081884c7d6",
            "signature-9F86d081884c7d65-0f86d081884c7d65",
            &format!("sha512-{hex}"),
            &format!("sha256-{hex}.txt"),
            &format!("sha256-{hex}.sig.sig"),
            hex,
        ] {
            assert!(!is_tag(tag), "{tag}");
        }
    }
}

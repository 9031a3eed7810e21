//! `WWW-Authenticate`: how a server wants the client to authenticate. Pure.
//!
//! Several challenges may stand in one header or in many, in any order, and a comma separates challenges as well as
//! their parameters. Must never: attribute a parameter of one challenge to another.

use crate::base::error::{Error, Kind, Result};

/// Most parameters that are read from all challenges together: no server sends more than six.
const MAX_PARAMS: usize = 64;

/// Most schemes that the error message names.
const MAX_NAMED: usize = 4;

/// A way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with each request. Source: RFC 7617.
    Basic,
    /// A token, issued by another server.
    /// Source: distribution-spec 1.1 "Token authentication"; RFC 6750, section 3.
    Bearer {
        /// URL of the token server, as sent.
        realm: String,
        /// The service that the token is for.
        service: Option<String>,
        /// The access that it is to grant.
        scope: Option<String>,
    },
}

/// Chooses the challenge to answer: a token is preferred to a password, which then goes to the realm alone.
/// Input: the values of all `WWW-Authenticate` headers.
/// Errors: Source: no scheme is supported; those offered are named.
/// Source: RFC 9110, section 11.6.1.
pub fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Result<Challenge> {
    let mut found = Vec::new();
    for header in headers {
        parse(header, &mut found);
    }
    let bearer = found.iter().find_map(|raw| match raw.is("bearer") {
        true => Some(Challenge::Bearer {
            realm: raw.param("realm")?.to_owned(),
            service: raw.param("service").map(str::to_owned),
            scope: raw.param("scope").map(str::to_owned),
        }),
        false => None,
    });
    let basic = || found.iter().any(|raw| raw.is("basic")).then_some(Challenge::Basic);
    bearer.or_else(basic).ok_or_else(|| {
        let schemes: Vec<&str> = found.iter().map(|raw| raw.scheme.as_str()).take(MAX_NAMED).collect();
        let why = match schemes.is_empty() {
            true => "it wants credentials and does not say in which way".to_owned(),
            false => format!("it wants credentials by {}, not by Bearer (with a realm) or Basic", schemes.join(", ")),
        };
        Error::new(Kind::Source, why)
    })
}

/// Names the offered schemes, in their order, each once. Input: as for [`choose`].
pub fn schemes<'a>(headers: impl Iterator<Item = &'a str>) -> String {
    let mut found = Vec::new();
    headers.for_each(|header| parse(header, &mut found));
    let mut names: Vec<&str> = Vec::new();
    for raw in &found {
        if !names.iter().any(|name| raw.is(name)) {
            names.push(&raw.scheme);
        }
    }
    names.truncate(MAX_NAMED);
    names.join(", ")
}

#[derive(Debug, Default)]
struct Raw {
    scheme: String,
    params: Vec<(String, String)>,
}

impl Raw {
    fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// Returns the first parameter of that name, as every other client does; an empty one counts as missing.
    fn param(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// Parses one header; parsing stops at malformed input, and what precedes it counts.
fn parse(header: &str, found: &mut Vec<Raw>) {
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some(name) = token(&mut rest) else { return };
        let after = rest.trim_start_matches([' ', '\t']);
        if let (Some(current), Some(value)) = (found.last_mut(), after.strip_prefix('=')) {
            let total = current.params.len();
            rest = value.trim_start_matches([' ', '\t']);
            let Some(value) = value_of(&mut rest) else { return };
            if total >= MAX_PARAMS {
                return;
            }
            current.params.push((name.to_owned(), value));
            continue;
        }
        if found.len() >= MAX_PARAMS {
            return;
        }
        found.push(Raw { scheme: name.to_owned(), params: Vec::new() });
        rest = after;
        skip_token68(&mut rest);
    }
}

/// Takes a token. Source: RFC 9110, section 5.6.2.
fn token<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let end = rest.bytes().position(|b| !is_token(b)).unwrap_or(rest.len());
    let (name, tail) = rest.split_at(end);
    *rest = tail;
    (!name.is_empty()).then_some(name)
}

/// Takes a parameter's value: a quoted string with its escapes, or everything up to a comma or blank (the standard
/// requires a token, but some servers quote nothing, URLs included).
fn value_of(rest: &mut &str) -> Option<String> {
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, tail) = rest.split_at(rest.find([',', ' ', '\t']).unwrap_or(rest.len()));
        *rest = tail;
        return Some(value.to_owned());
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &quoted[at + 1..];
                return Some(value);
            }
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// Skips the token68 that `Negotiate` and similar schemes have instead of parameters.
fn skip_token68(rest: &mut &str) {
    let is_token68 = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    let end = rest.bytes().position(|b| !is_token68(b)).unwrap_or(rest.len());
    let tail = rest[end..].trim_start_matches('=').trim_start_matches([' ', '\t']);
    // Only where the next challenge follows; otherwise it is the name of a parameter.
    if end > 0 && (tail.is_empty() || tail.starts_with(',')) {
        *rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        Challenge::Bearer { realm: realm.into(), service: text(service), scope: text(scope) }
    }

    #[test]
    fn what_real_registries_send() {
        for (header, want) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#,
                bearer("https://auth.docker.io/token", "registry.docker.io", "repository:library/busybox:pull"),
            ),
            (
                r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull""#,
                bearer("https://ghcr.io/token", "ghcr.io", "repository:user/image:pull"),
            ),
            (
                r#"Bearer realm="https://quay.io/v2/auth",service="quay.io""#,
                bearer("https://quay.io/v2/auth", "quay.io", ""),
            ),
            (
                r#"Bearer realm="https://gitlab.com/jwt/auth",service="container_registry",scope="repository:a/b:pull",error="invalid_token""#,
                bearer("https://gitlab.com/jwt/auth", "container_registry", "repository:a/b:pull"),
            ),
            (r#"Basic realm="Registry Realm""#, Challenge::Basic),
            (
                r#"Basic realm="https://123.dkr.ecr.eu-central-1.amazonaws.com/",service="ecr.amazonaws.com""#,
                Challenge::Basic,
            ),
        ] {
            assert_eq!(choose([header].into_iter()).unwrap(), want, "{header}");
        }
    }

    #[test]
    fn several_challenges_in_any_order() {
        let want = bearer("https://t", "s,=\"x", "");
        for headers in [
            vec![r#"Basic realm="x", Bearer realm="https://t", service="s,=\"x""#],
            vec![r#"Bearer service="s,=\"x" , realm="https://t", Basic realm="x""#],
            vec![r#"Negotiate, bearer REALM = "https://t" ,, service= "s,=\"x""#],
            vec![r#"Negotiate YWJj==, Bearer realm="https://t",service="s,=\"x",Digest realm="b", nonce=1"#],
            vec![r#"Basic realm="x""#, r#"Bearer service="s,=\"x",realm=https://t"#, r#"Bearer realm="https://u""#],
            vec![r#"Bearer service="no realm""#, r#"Bearer realm="https://t",service="s,=\"x""#],
        ] {
            assert_eq!(choose(headers.iter().copied()).ok(), Some(want.clone()), "{headers:?}");
        }
    }

    #[test]
    fn what_can_not_be_answered_names_its_schemes() {
        for (header, words) in [
            ("", "does not say"),
            ("=,=", "does not say"),
            ("Negotiate", "Negotiate"),
            (r#"Digest realm="x", nonce="y""#, "Digest"),
            ("Bearer", "Bearer"),
            (r#"Bearer realm="""#, "Bearer"),
            (r#"Bearer realm="https://never-closed"#, "Bearer"),
            (r#"Bearer realm="https://t\"#, "Bearer"),
        ] {
            let e = choose([header].into_iter()).unwrap_err();
            assert!(e.kind() == Kind::Source && e.to_string().contains(words), "{header}: {e}");
        }
    }

    #[test]
    fn the_ways_that_are_offered_are_named() {
        for (headers, names) in [
            (vec![r#"Bearer realm="https://t",service="s""#, "Basic realm=x"], "Bearer, Basic"),
            (vec![r#"basic realm="x", BASIC realm="y", Negotiate"#], "basic, Negotiate"),
            (vec!["A, B, C, D, E"], "A, B, C, D"),
            (vec![""], ""),
            (vec![], ""),
        ] {
            assert_eq!(schemes(headers.iter().copied()), names, "{headers:?}");
        }
    }

    #[test]
    fn a_parameter_never_moves_to_another_challenge() {
        let header = r#"Basic realm="https://theirs", Bearer service="s""#;
        assert_eq!(choose([header].into_iter()).unwrap(), Challenge::Basic);
        // The first of two wins.
        let twice = r#"Bearer realm="https://one",realm="https://two""#;
        assert_eq!(choose([twice].into_iter()).unwrap(), bearer("https://one", "", ""));
    }

    #[test]
    fn any_bytes_end() {
        let mut dice = 1u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..24 {
                dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push(*b"Bearer realm=\",\\ =\x01\xc3x".get((dice >> 33) as usize % 21).unwrap() as char);
            }
            let _ = choose([text.as_str()].into_iter());
        }
        let many = "a=b, ".repeat(100_000);
        let _ = choose([format!("Bearer {many}").as_str(), many.as_str()].into_iter());
    }
}

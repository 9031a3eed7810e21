//! Semantic Versioning order, with an optional leading `v`. Pure.
//!
//! Source: semver.org 2.0.0, items 2, 9, 10 and 11.
//! Must never: order two versions by their text.

use crate::base::error::{Error, Kind, Result};
use std::cmp::Ordering;
use std::fmt;

/// A parsed version; build metadata is kept for display and ignored in the order.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    core: [Number; 3],
    pre: Vec<Identifier>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Identifier {
    Number(Number),
    Word(String),
}

/// Digits without a leading zero, of any length: SemVer has no bound, and a date with a time has 14.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Number(String);

impl Version {
    /// Parses `[v]MAJOR.MINOR.PATCH[-pre][+build]`.
    /// Errors: Source: any other shape, a leading zero, an empty identifier.
    pub fn parse(text: &str) -> Result<Version> {
        let bad =
            |why: &str| Error::new(Kind::Source, format!("not a semantic version: {why}")).at("read version", text);
        if text.len() > 128 {
            return Err(bad("longer than 128 characters"));
        }
        let body = text.strip_prefix('v').unwrap_or(text);
        let (body, build) = split(body, '+');
        let (core_text, pre_text) = split(body, '-');
        if let Some(build) = build {
            identifiers(build).map_err(bad)?;
        }
        let mut core = <[Number; 3]>::default();
        let mut parts = core_text.split('.');
        for slot in &mut core {
            let part = parts.next().ok_or_else(|| bad("needs three numbers"))?;
            *slot = number(part).ok_or_else(|| bad("a number is malformed"))?;
        }
        if parts.next().is_some() {
            return Err(bad("needs three numbers"));
        }
        let mut pre = Vec::new();
        if let Some(pre_text) = pre_text {
            for word in identifiers(pre_text).map_err(bad)? {
                let numeric = word.bytes().all(|b| b.is_ascii_digit());
                pre.push(match number(word) {
                    Some(n) => Identifier::Number(n),
                    None if numeric => return Err(bad("a pre-release number is malformed")),
                    None => Identifier::Word(word.to_string()),
                });
            }
        }
        Ok(Version { text: text.to_string(), core, pre })
    }
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((head, tail)) => (head, Some(tail)),
        None => (text, None),
    }
}

fn number(text: &str) -> Option<Number> {
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if text.is_empty() || leading_zero || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(Number(text.to_string()))
}

fn identifiers(text: &str) -> std::result::Result<Vec<&str>, &'static str> {
    let words: Vec<&str> = text.split('.').collect();
    for word in &words {
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err("an identifier is empty or has a character other than 0-9, A-Z, a-z and -");
        }
    }
    Ok(words)
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.core.cmp(&other.core).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Identifier {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Identifier::Number(a), Identifier::Number(b)) => a.cmp(b),
            (Identifier::Word(a), Identifier::Word(b)) => a.cmp(b),
            (Identifier::Number(_), Identifier::Word(_)) => Ordering::Less,
            (Identifier::Word(_), Identifier::Number(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Identifier {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_semver_says() {
        // semver.org item 11, its own example, then cases from updates.
        let rising = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "v1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0-rc.1",
            "v1.10.0",
            "2.0.0-9.1",
            "2.0.0-20260131120000",
            "2.0.0-18446744073709551616",
            "2.0.0-20000000000000000000",
            "2.0.0-a",
            "2.0.0",
            "18446744073709551615.0.0",
            "18446744073709551616.0.0",
        ];
        let parsed: Vec<Version> = rising.iter().map(|v| Version::parse(v).unwrap()).collect();
        for (i, a) in parsed.iter().enumerate() {
            for (j, b) in parsed.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a} against {b}");
            }
        }
    }

    #[test]
    fn build_metadata_and_v_do_not_count() {
        assert_eq!(Version::parse("v1.2.3+a.b-c").unwrap(), Version::parse("1.2.3").unwrap());
        assert_eq!(Version::parse("v1.2.3+a").unwrap().to_string(), "v1.2.3+a");
    }

    #[test]
    fn refuses_other_shapes() {
        for bad in [
            "",
            "v",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.03",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3-a..b",
            "1.2.3+",
            "1.2.3 ",
            "1.2.3-ä",
            "vv1.2.3",
            "1.-2.3",
            "latest",
            &"1".repeat(200),
        ] {
            assert!(Version::parse(bad).is_err(), "{bad}");
        }
    }
}

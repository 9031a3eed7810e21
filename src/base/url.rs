//! HTTP(S) URLs: parsed once, joined by RFC 3986, printed without possible secrets.
//!
//! Must never: print a query string, accept credentials inside a URL, or accept another scheme
//! than http and https.

use crate::base::error::{Error, Kind, Result};
use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest URL that is accepted, in bytes. Presigned storage addresses reach 2 KiB.
const MAX_LEN: usize = 8192;

/// Holds one absolute http or https URL. `Display` and `Debug` leave the query out.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    secure: bool,
    host: String,
    port: Option<u16>,
    path: String,
    query: Option<String>,
}

impl Url {
    /// Parses an absolute URL; a fragment is dropped, dot segments are resolved, and characters that do not belong in a URL
    /// are percent-encoded as browsers do.
    /// Errors: Source: what is wrong with it; callers that read configuration use [`Url::configured`].
    /// Source: RFC 3986, section 3; WHATWG URL, see `encode`.
    pub fn parse(text: &str) -> Result<Url> {
        Url::parse_encoded(&encode(text)?, text)
    }

    /// Input: `typed`: the original text, for messages.
    fn parse_encoded(text: &str, typed: &str) -> Result<Url> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("not an http:// or https:// URL", typed))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(bad("only http and https URLs are used here", typed)),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, port) = parse_authority(&rest[..end]).map_err(|why| bad(why, typed))?;
        let (path, query) = split_tail(&rest[end..]);
        Ok(Url { secure, host, port, path: resolve_dots(path), query: query.map(str::to_owned) })
    }

    /// Parses a URL that a person wrote: as [`Url::parse`], but errors are Kind::Config.
    pub fn configured(text: &str) -> Result<Url> {
        Url::parse(text).map_err(|e| Error::new(Kind::Config, e.to_string()))
    }

    /// Builds the URL of an API endpoint. Input: `host` as kept by a parsed URL or OCI reference (IPv6 in
    /// brackets); `path` begins with a slash and is made of checked parts.
    pub(crate) fn from_parts(secure: bool, host: &str, port: Option<u16>, path: String) -> Url {
        Url { secure, host: host.to_owned(), port, path, query: None }
    }

    /// Resolves a reference against this URL.
    /// Input: an absolute URL, `//host/path`, `/path`, `path`, `?query`, or nothing.
    /// Errors: Source: another scheme, or control characters.
    /// Source: RFC 3986, section 5.2.2; WHATWG URL, see `encode`.
    pub fn join(&self, reference: &str) -> Result<Url> {
        let encoded = encode(reference)?;
        if has_scheme(&encoded) {
            return Url::parse_encoded(&encoded, reference);
        }
        if encoded.starts_with("//") {
            return Url::parse_encoded(&format!("{}:{encoded}", self.scheme()), reference);
        }
        let (path, query) = split_tail(&encoded);
        let mut out = self.clone();
        if path.is_empty() {
            if query.is_some() {
                out.query = query.map(str::to_owned);
            }
            return Ok(out);
        }
        out.query = query.map(str::to_owned);
        out.path = if path.starts_with('/') {
            resolve_dots(path)
        } else {
            let directory = self.path.rfind('/').map_or("/", |at| &self.path[..=at]);
            resolve_dots(&format!("{directory}{path}"))
        };
        Ok(out)
    }

    /// Appends a file name to the path, whether or not that ends in a slash; keeps the query.
    pub fn child(&self, name: &str) -> Url {
        let mut out = self.clone();
        out.path = format!("{}/{name}", self.path.trim_end_matches('/'));
        out
    }

    /// Returns whether this is https.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Returns the host as written in the URL, lower case, IPv6 in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, 80 or 443 by default.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.secure { 443 } else { 80 })
    }

    /// Returns the path, which begins with a slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Returns the whole URL, query included: for requests, never for messages.
    pub fn request_text(&self) -> String {
        match &self.query {
            Some(query) => format!("{self}?{query}"),
            None => self.to_string(),
        }
    }

    /// Returns path and query, as sent to the server.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Returns the host with its port, if one is given: the name of a registry.
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// Returns the part that identifies the server. Source: RFC 6454, section 4.
    pub fn origin(&self) -> String {
        format!("{}://{}:{}", self.scheme(), self.host, self.port())
    }

    /// Returns the same URL with more parameters in its query.
    pub fn with_query(&self, pairs: &[(&str, &str)]) -> Url {
        let added = (!pairs.is_empty()).then(|| form(pairs));
        let parts: Vec<String> = self.query.iter().cloned().chain(added).filter(|part| !part.is_empty()).collect();
        Url { query: (!parts.is_empty()).then(|| parts.join("&")), ..self.clone() }
    }

    /// Returns what follows `base`, if this URL lies below it; with its query, except for the base's own, which may be
    /// secret. `None` for other servers as well.
    pub fn beyond(&self, base: &Url) -> Option<String> {
        let rest = self.path.strip_prefix(&base.path).filter(|_| self.origin() == base.origin())?;
        let pairs = |url: &Url| url.query.iter().flat_map(|q| q.split('&')).map(str::to_owned).collect::<Vec<_>>();
        let (mut query, secret) = (pairs(self), pairs(base));
        query.retain(|pair| !pair.is_empty() && !secret.contains(pair));
        Some(if query.is_empty() { rest.to_owned() } else { format!("{rest}?{}", query.join("&")) })
    }

    /// Appends the result of [`Url::beyond`]. If that has no query, this URL's own stays: it may grant access.
    pub fn extended(&self, rest: &str) -> Url {
        let (path, query) = split_tail(rest);
        let query = query.map(str::to_owned).or_else(|| self.query.clone());
        Url { path: format!("{}{path}", self.path), query, ..self.clone() }
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes parameters as a query or a form. Source: WHATWG URL, "application/x-www-form-urlencoded", with `%20` for a
/// blank, which every server reads.
pub fn form(pairs: &[(&str, &str)]) -> String {
    let encoded = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
                _ if byte.is_ascii_alphanumeric() => out.push(byte as char),
                _ => push_encoded(&mut out, byte),
            }
        }
        out
    };
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

/// Returns whether a name always means this machine, whatever a name server answers. Source: RFC 6761, section 6.3.
pub fn is_localhost(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    labels.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

/// Returns whether a host name or address (IPv6 in brackets or not) is this machine.
/// Source: RFC 6761 (localhost), RFC 1122 (127.0.0.0/8), RFC 4291 (::1).
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    is_localhost(host)
        || bare.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|a| a.is_loopback())
}

/// Splits `host[:port]` and checks both. Returns the host in lower case, IPv6 in brackets.
/// Errors: why not: credentials, an empty or malformed host, an invalid port.
pub fn parse_authority(text: &str) -> std::result::Result<(String, Option<u16>), &'static str> {
    if text.contains('@') {
        return Err("a URL must not carry a user name or password");
    }
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or("IPv6 address without closing bracket")?;
        let after = &text[end + 1..];
        match after.strip_prefix(':') {
            Some(port) => (&text[..=end], Some(port)),
            None if after.is_empty() => (text, None),
            None => return Err("nothing but a port may follow an IPv6 address"),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    check_host(host)?;
    let port = match port {
        None => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse::<u16>() {
            Ok(port) if port != 0 => Some(port),
            _ => return Err("port is not between 1 and 65535"),
        },
        Some(_) => return Err("port is not a number (IPv6 addresses go in brackets)"),
    };
    Ok((host.to_ascii_lowercase(), port))
}

fn check_host(host: &str) -> std::result::Result<(), &'static str> {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.trim_end_matches(']').parse::<Ipv6Addr>().map(|_| ()).map_err(|_| "not an IPv6 address");
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if host.is_empty() {
        return Err("host is missing");
    }
    if host.len() > 253 || !host.strip_suffix('.').unwrap_or(host).split('.').all(label) {
        return Err("not a host name or address");
    }
    Ok(())
}

fn bad(why: &str, text: &str) -> Error {
    Error::new(Kind::Source, why).at("read URL", format_args!("'{}'", without_secrets(text)))
}

/// Removes from a malformed URL or reference what may be secret: a query or fragment, and everything before
/// an `@`, since the end of a malformed URL's password is undefined.
pub(crate) fn without_secrets(text: &str) -> Cow<'_, str> {
    let Some(end) = text.find(['?', '#']) else {
        return match text.rfind('@') {
            Some(at) => format!("***{}", &text[at..]).into(),
            None => text.into(),
        };
    };
    let (shown, hidden) = text.split_at(end);
    match hidden.contains('@') {
        // Possibly a password that contains a question mark.
        true => "***".into(),
        false => format!("{}{}...", without_secrets(shown), &hidden[..1]).into(),
    }
}

fn push_encoded(out: &mut String, byte: u8) {
    out.push('%');
    out.push_str(&crate::base::text::hex(&[byte]).to_ascii_uppercase());
}

/// Percent-encodes what does not belong in a URL or reference: pre-signing proxies write quotes, object stores blanks, people
/// umlauts, and Windows `\`, which in a path means `/`. A `%` is left alone, so nothing is encoded twice. The host is not
/// changed. Surrounding blanks are removed.
/// Errors: Source: too long; a control character: never intended, and some readers take CR and LF for the end of a line.
/// Source: WHATWG URL, "path percent-encode set", "special-query percent-encode set", and the path state; except for
/// controls, which browsers drop or encode, and `\` as the end of a host.
fn encode(text: &str) -> Result<String> {
    if text.len() > MAX_LEN {
        return Err(Error::new(Kind::Source, format!("longer than {MAX_LEN} bytes")).at("read", "URL"));
    }
    if text.chars().any(char::is_control) {
        return Err(bad("a control character, which no URL has", text));
    }
    // What the bytes of a header become that are not UTF-8.
    if text.contains('\u{fffd}') {
        return Err(bad("it is not UTF-8", text));
    }
    let text = text.trim_matches(' ');
    let authority = match text.find("//") {
        Some(0) => 2,
        Some(at) if has_scheme(text) && text[..at].ends_with(':') => at + 2,
        _ => 0,
    };
    let path =
        if authority == 0 { 0 } else { text[authority..].find(['/', '?', '#']).map_or(text.len(), |n| n + authority) };
    if authority == 0 && has_scheme(text) {
        // A URL of another scheme, which is refused: it is left unchanged.
        return Ok(text.to_owned());
    }
    let (mut out, mut is_query) = (String::with_capacity(text.len()), false);
    out.push_str(&text[..path]);
    for byte in text[path..].bytes() {
        match byte {
            b'#' => break,
            b'?' => is_query = true,
            b'\\' if !is_query => {
                out.push('/');
                continue;
            }
            _ => {}
        }
        let bad: &[u8] = if is_query { b" \"<>'" } else { b" \"<>^`{}" };
        match byte.is_ascii() && !bad.contains(&byte) {
            true => out.push(byte as char),
            false => push_encoded(&mut out, byte),
        }
    }
    Ok(out)
}

fn has_scheme(reference: &str) -> bool {
    let end = reference.find([':', '/', '?', '#']).unwrap_or(reference.len());
    reference[end..].starts_with(':')
        && reference.starts_with(|c: char| c.is_ascii_alphabetic())
        && reference[..end].bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Splits what follows the authority into path and query; the fragment is dropped.
fn split_tail(tail: &str) -> (&str, Option<&str>) {
    let tail = tail.split('#').next().unwrap_or_default();
    match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    }
}

/// Removes `.` and `..` segments. Source: RFC 3986, section 5.2.4.
fn resolve_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if segments.peek().is_none() {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;

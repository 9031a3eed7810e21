//! Chooses a request's proxy from `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`. Pure.
//!
//! Must never: send a request for this machine through a proxy, or show a proxy's password.

use super::failure::Failure;
use super::peers::literal;
use super::retry;
use super::status;
use crate::base::base64;
use crate::base::error::{Error, Kind, Result};
use crate::base::url::{Url, is_loopback, parse_authority};
use crate::http::credentials::Secret;
use std::net::IpAddr;

/// The proxy settings in the environment.
#[derive(Clone, Debug, Default)]
pub struct ProxyEnv {
    /// For https URLs: the variable's name and value.
    pub https: Option<(&'static str, String)>,
    /// For http URLs.
    pub http: Option<(&'static str, String)>,
    /// Hosts that are contacted directly.
    pub none: String,
}

impl ProxyEnv {
    /// Reads the environment. Input: `variable`: returns the value of a variable. Lower case beats upper case, as in curl.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> ProxyEnv {
        let first = |names: [&'static str; 3]| {
            let set = names.into_iter().find_map(|name| Some((name, variable(name)?)));
            set.filter(|(_, value)| !value.is_empty())
        };
        ProxyEnv {
            https: first(["https_proxy", "HTTPS_PROXY", "ALL_PROXY"]),
            http: first(["http_proxy", "HTTP_PROXY", "ALL_PROXY"]),
            none: variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default(),
        }
    }

    /// Returns whether a host is contacted directly, whatever proxies are set.
    /// Input: a host as in a URL, IPv6 in brackets, and the port.
    ///
    /// `NO_PROXY` is a list with commas: `*`; a name, which covers its subdomains as well, with or without a leading
    /// dot; an address; a network such as 10.0.0.0/8; each but `*` optionally with `:port`. As in Go's `httpproxy`, so that one
    /// setting serves the whole node.
    pub fn is_direct(&self, host: &str, port: u16) -> bool {
        // An address is the same in every notation: 0x7f.1 is this machine.
        let address = literal(host).map(|address| address.to_canonical().to_string());
        let bare = address.as_deref().unwrap_or(host.trim_end_matches('.'));
        is_loopback(bare) || self.none.split(',').any(|entry| covers(entry.trim(), bare, port))
    }
}

/// The configured proxies.
#[derive(Clone)]
pub(super) struct Proxies {
    /// For http and for https URLs.
    set: [Option<Result<Proxy>>; 2],
    env: ProxyEnv,
}

impl Proxies {
    pub fn new(env: ProxyEnv) -> Proxies {
        let proxy = |set: &Option<(&str, String)>| set.as_ref().map(|(name, text)| Proxy::parse(text, name));
        Proxies { set: [proxy(&env.http), proxy(&env.https)], env }
    }

    /// Returns a request's proxy. Errors: Config: the setting is invalid.
    pub fn of(&self, url: &Url) -> Result<Option<&Proxy>> {
        let proxy = self.set[usize::from(url.is_secure())].as_ref();
        let proxy = proxy.filter(|_| !self.env.is_direct(url.host(), url.port()));
        proxy.map(|proxy| proxy.as_ref().map_err(Error::clone)).transpose()
    }

    /// Makes the failure for a request's proxy that does not connect us. Errors: no proxy is set.
    pub fn refused(&self, status: u16, url: &Url) -> Result<Failure> {
        let proxy = self.of(url)?.ok_or_else(|| Error::new(Kind::Internal, "no proxy").at("fetch", url))?;
        Ok(proxy.refused(status, url))
    }
}

/// Default port of a proxy. Source: Go's `httpproxy`.
const DEFAULT_PORT: u16 = 80;

/// A proxy, contacted in plain HTTP, whatever goes through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    pub host: String,
    pub port: u16,
    /// Value of Proxy-Authorization.
    pub authorization: Option<Secret>,
}

impl Proxy {
    /// Parses `[http://][user[:password]@]host[:port][/]`, user and password percent-encoded. Input: `name`: the
    /// variable, for the error.
    /// Errors: Config: malformed, or an unsupported kind; nothing of it is shown.
    pub fn parse(text: &str, name: &str) -> Result<Proxy> {
        let bad =
            |why: &str| Error::new(Kind::Config, why).at("read", name).hint("as in http://user:password@host:3128");
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(bad("only proxies that are spoken to by http:// are known here")),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, authority) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (host, port) = parse_authority(authority).map_err(bad)?;
        let decoded = |user: &str| {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            Some([decode(user)?, b":".to_vec(), decode(password)?].concat())
        };
        let authorization = match user {
            None => None,
            Some(user) => {
                let pair = decoded(user).ok_or_else(|| bad("a percent sign without two digits"))?;
                Some(Secret::new(format!("Basic {}", base64::encode(&pair))))
            }
        };
        Ok(Proxy { host, port: port.unwrap_or(DEFAULT_PORT), authorization })
    }

    /// Makes the failure for a proxy that does not connect us.
    fn refused(&self, status: u16, url: &Url) -> Failure {
        let why = format!("the proxy {} answered {status} {}", self.host, status::reason(status));
        let error = Error::new(Kind::Network, why).at("fetch", url);
        let error = match (status, &self.authorization) {
            (401 | 407, None) => error.hint("it wants a user and a password: http://user:password@host:port"),
            (401 | 407, Some(_)) => error.hint("it does not take this user and password"),
            (405 | 501, _) => error.hint("it does not know CONNECT: is this a proxy?"),
            (403, _) => error.hint("its rules do not allow this host or port"),
            _ => error,
        };
        Failure { error, is_passing: retry::is_passing(status), asked: None, unreached: true }
    }
}

/// Decodes percent-encoding. Source: RFC 3986, section 2.1.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        out.push(match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let digit = |b: &u8| (*b as char).to_digit(16);
                (digit(high)? * 16 + digit(low)?) as u8
            }
            (b'%', _) => return None,
            _ => *first,
        });
    }
    Some(out)
}

fn covers(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Ok(address), Some((network, bits))) = (host.parse::<IpAddr>(), entry.split_once('/')) {
        return in_network(address, network, bits);
    }
    // A second colon means an IPv6 address, not a port.
    let (name, only) = match entry.rsplit_once(':') {
        Some((name, only)) if !name.contains(':') || name.ends_with(']') => (name, Some(only)),
        _ => (entry, None),
    };
    if only.is_some_and(|only| only.parse() != Ok(port)) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']').trim_start_matches("*.").trim_start_matches('.');
    let name = name.trim_end_matches('.');
    if let (Ok(one), Ok(other)) = (name.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        return one.to_canonical() == other.to_canonical();
    }
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    match host.strip_suffix(&name) {
        Some(rest) if !name.is_empty() => rest.is_empty() || rest.ends_with('.'),
        _ => false,
    }
}

fn in_network(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let masked = |a: u128, width: u32| if bits >= width { a } else { a >> (width - bits) };
    match (address.to_canonical(), network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            bits <= 32 && (bits == 0 || masked(u32::from(a).into(), 32) == masked(u32::from(n).into(), 32))
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => bits <= 128 && (bits == 0 || masked(a.into(), 128) == masked(n.into(), 128)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> ProxyEnv {
        ProxyEnv::read(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let both = env(&[("HTTPS_PROXY", "http://s"), ("HTTP_PROXY", "http://p"), ("http_proxy", "http://q")]);
        assert_eq!(both.https, Some(("HTTPS_PROXY", "http://s".to_owned())));
        assert_eq!(both.http, Some(("http_proxy", "http://q".to_owned())));
        let all = env(&[("ALL_PROXY", "http://a"), ("HTTPS_PROXY", "http://s")]);
        assert_eq!(all.https, Some(("HTTPS_PROXY", "http://s".to_owned())));
        assert_eq!(all.http, Some(("ALL_PROXY", "http://a".to_owned())));
        let empty = env(&[("HTTPS_PROXY", "")]);
        assert_eq!((empty.https, empty.http), (None, None));
    }

    #[test]
    fn no_proxy_as_go_reads_it() {
        let env = env(&[(
            "no_proxy",
            "Example.com, .dots.org,*.star.net,10.0.0.0/8,192.0.2.7,fd00::/8,[2001:db8:0::1]:443,2001:DB8:1:0:0::7,\
             dot.end.,port.io:5000,.,,bad/x",
        )]);
        for (host, port, direct) in [
            ("example.com", 443, true),
            ("a.b.EXAMPLE.com", 443, true),
            ("example.com.", 443, true),
            ("notexample.com", 443, false),
            ("dots.org", 443, true),
            ("x.dots.org", 443, true),
            ("x.star.net", 443, true),
            ("10.200.0.1", 443, true),
            ("11.0.0.1", 443, false),
            ("192.0.2.7", 80, true),
            ("192.0.2.70", 80, false),
            ("[fd12::1]", 443, true),
            ("[2001:db8::1]", 443, true),
            ("[2001:db8::1]", 80, false),
            ("port.io", 5000, true),
            ("port.io", 443, false),
            ("localhost", 80, true),
            ("localhost.", 80, true),
            ("[2001:DB8:0::1]", 443, true),
            ("[2001:db8:1:0::7]", 443, true),
            ("[2001:db8:1::7]", 80, true),
            ("[2001:db8:1::70]", 443, false),
            ("dot.end", 443, true),
            ("dot.end.", 443, true),
            ("notdot.end", 443, false),
            ("10.513", 443, true),
            ("0xc0000207", 80, true),
            ("0x7f.1", 443, true),
            ("[::ffff:127.0.0.1]", 443, true),
            ("[::ffff:10.0.0.1]", 443, true),
            ("127.0.0.1", 5000, true),
            ("[::1]", 5000, true),
            ("bad", 443, false),
        ] {
            assert_eq!(env.is_direct(host, port), direct, "{host}:{port}");
        }
        let all = ProxyEnv { none: "*".into(), ..ProxyEnv::default() };
        assert!(all.is_direct("anything", 1));
        assert!(!ProxyEnv::default().is_direct("anything", 1));
        let zero = ProxyEnv { none: "0.0.0.0/0".into(), ..ProxyEnv::default() };
        assert!(zero.is_direct("192.0.2.1", 1) && !zero.is_direct("[2001:db8::1]", 1));
    }

    #[test]
    fn a_proxys_address_in_each_form() {
        let parse = |text: &str| Proxy::parse(text, "HTTP_PROXY");
        for (text, host, port, pair) in [
            ("http://proxy.example:3128", "proxy.example", 3128, None),
            ("HTTP://Proxy.Example/", "proxy.example", 80, None),
            ("10.0.0.1:8080", "10.0.0.1", 8080, None),
            ("http://[fd00::1]:3128", "[fd00::1]", 3128, None),
            ("http://u:p@h:1", "h", 1, Some("u:p")),
            ("u@h", "h", 80, Some("u:")),
            ("http://d%5Cu:p%40%3a:x@h:1", "h", 1, Some("d\\u:p@::x")),
        ] {
            let proxy = parse(text).unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{text}");
            let want = pair.map(|pair| format!("Basic {}", base64::encode(pair.as_bytes())));
            assert_eq!(proxy.authorization.map(|a| a.reveal().to_owned()), want, "{text}");
        }
        for text in
            ["https://h:1", "socks5://h", "http://", "http://u:hunter2@", "u:hunter2%@h", "http://h:0", "h/path"]
        {
            let e = parse(text).unwrap_err();
            assert!(e.kind() == Kind::Config && e.to_string().starts_with("read HTTP_PROXY: "), "{e}");
            assert!(!e.to_string().contains("hunter2"), "{e}");
        }
    }
}

//! The few values that a health check needs from a kubeconfig: where the API server is, and who we are. Pure.
//!
//! Reads the YAML that client-go, kubectl and KubeSolo write: block style, plain and quoted scalars. Must never: guess at
//! a value that is written in another way.

use crate::base64;
use crate::error::{Error, Kind, Result};

/// Largest kubeconfig that is read, in bytes.
pub const KUBECONFIG_MAX_BYTES: u64 = 256 * 1024;
/// Deepest nesting; the values that are looked for are three deep.
const MAX_DEPTH: usize = 16;
/// Most values; an admin's kubeconfig has 12.
const MAX_VALUES: usize = 2048;

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    /// Its URL.
    pub server: String,
    /// The CA that signed its certificate.
    pub ca: Credential,
    /// Our certificate.
    pub certificate: Credential,
    /// Its private key.
    pub key: Credential,
}

/// PEM, or where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Embedded.
    Pem(Vec<u8>),
    /// A path: absolute, or relative to the kubeconfig's directory.
    File(String),
}

impl Kubeconfig {
    /// Reads a kubeconfig: the current context's cluster and user.
    /// Input: UTF-8, at most [`KUBECONFIG_MAX_BYTES`].
    /// Errors: Config: a value is missing, or written in a way that is not read; named with its line.
    pub fn parse(bytes: &[u8]) -> Result<Kubeconfig> {
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not UTF-8"))?;
        let values = Values::parse(text)?;
        let context = values.text("current-context")?;
        let context = values.entry("contexts", &context)?;
        let cluster = values.entry("clusters", &values.text(&[&context, "/context/cluster"].concat())?)?;
        let user = values.entry("users", &values.text(&[&context, "/context/user"].concat())?)?;
        let (cluster, user) = (cluster + "/cluster/", user + "/user/");
        Ok(Kubeconfig {
            server: values.text(&[&cluster, "server"].concat())?,
            ca: values.credential(&cluster, "certificate-authority")?,
            certificate: values.credential(&user, "client-certificate")?,
            key: values.credential(&user, "client-key")?,
        })
    }
}

fn bad(why: &str) -> Error {
    Error::new(Kind::Config, why)
}

/// Every scalar of the document: path, text, line.
struct Values<'a>(Vec<(String, &'a str, usize)>);

/// An open mapping key or list item.
struct Frame {
    indent: usize,
    is_item: bool,
    /// Length of the path with it.
    length: usize,
    /// Items of the list below it.
    items: usize,
}

impl<'a> Values<'a> {
    fn parse(text: &'a str) -> Result<Values<'a>> {
        let (mut values, mut frames, mut path) = (Vec::new(), Vec::<Frame>::new(), String::new());
        for (index, line) in text.lines().enumerate() {
            let fail = |why: &str| bad(&format!("line {}: {why}", index + 1));
            let mut rest = line.trim_start_matches(' ');
            let mut indent = line.len() - rest.len();
            if rest.trim_end().is_empty() || rest.starts_with('#') || line.trim_end() == "---" {
                continue;
            }
            while let Some(item) = rest.strip_prefix('-').filter(|item| item.is_empty() || item.starts_with(' ')) {
                // A list may stand as deep as its key.
                while frames.pop_if(|f| f.indent > indent || (f.indent == indent && f.is_item)).is_some() {}
                let parent = frames.last_mut().ok_or_else(|| fail("a list where a mapping belongs"))?;
                path.truncate(parent.length);
                path.push('/');
                path.push_str(&parent.items.to_string());
                parent.items += 1;
                frames.push(Frame { indent, is_item: true, length: path.len(), items: 0 });
                rest = item.trim_start_matches(' ');
                indent += 1 + item.len() - rest.len();
                if frames.len() > MAX_DEPTH {
                    return Err(fail("nested too deeply"));
                }
            }
            let Some((key, value)) = pair(rest) else {
                // An item that is a scalar, or the rest of one: nobody asks for it.
                continue;
            };
            while frames.pop_if(|f| f.indent >= indent).is_some() {}
            path.truncate(frames.last().map_or(0, |f| f.length));
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(key);
            frames.push(Frame { indent, is_item: false, length: path.len(), items: 0 });
            if !value.is_empty() {
                if values.len() >= MAX_VALUES || values.iter().any(|(p, _, _)| *p == path) {
                    return Err(fail("this key stands here twice, or there are too many"));
                }
                values.push((path.clone(), value, index + 1));
            }
        }
        Ok(Values(values))
    }

    fn find(&self, path: &str) -> Result<Option<String>> {
        let Some((_, text, line)) = self.0.iter().find(|(p, _, _)| p == path) else { return Ok(None) };
        scalar(text).map(Some).ok_or_else(|| bad(&format!("line {line}: only plain and quoted values are read")))
    }

    fn text(&self, path: &str) -> Result<String> {
        let found = self.find(path)?.filter(|text| !text.is_empty());
        found.ok_or_else(|| bad(&format!("it has no {}", path.rsplit('/').next().unwrap_or(path))))
    }

    /// Finds the entry of a list by its name. Returns: its path.
    fn entry(&self, list: &str, name: &str) -> Result<String> {
        for (path, _, _) in &self.0 {
            let entry = path.strip_suffix("/name").filter(|entry| is_entry(entry, list));
            if let Some(entry) = entry
                && self.find(path)?.as_deref() == Some(name)
            {
                return Ok(entry.to_owned());
            }
        }
        Err(bad(&format!("there is no `{name}` among its {list}")))
    }

    /// Embedded data come first. Source: client-go, clientcmd/api/v1 ("overrides").
    fn credential(&self, under: &str, name: &str) -> Result<Credential> {
        let data = [name, "-data"].concat();
        if let Some(text) = self.find(&[under, &data].concat())?.filter(|text| !text.is_empty()) {
            let pem = base64::decode(&text).ok_or_else(|| bad(&format!("its {data} is not base64")))?;
            return Ok(Credential::Pem(pem));
        }
        self.text(&[under, name].concat()).map(Credential::File)
    }
}

/// Says whether a path is an entry of a list at the top: `LIST/0`.
fn is_entry(path: &str, list: &str) -> bool {
    let index = path.strip_prefix(list).and_then(|rest| rest.strip_prefix('/'));
    index.is_some_and(|index| !index.contains('/'))
}

/// Parts `key: value`. A key of ours needs no quotes.
fn pair(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once(':')?;
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    // What is nested in a list of another kind must not look like one of our paths.
    (plain && !key.contains('/') && (value.is_empty() || value.starts_with([' ', '\t'])))
        .then(|| (key, value.trim_matches([' ', '\t', '\r'])))
        .map(|(key, value)| (key, if value.starts_with('#') { "" } else { value }))
}

/// Reads a scalar. Returns: `None`: it is written in a way that is not read here.
/// Source: YAML 1.2.2, sections 7.3.1 to 7.3.3.
fn scalar(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let Some(quote) = quote else {
        let plain = text.find(" #").map_or(text, |at| &text[..at]).trim_end();
        let is_other = plain.starts_with(['&', '*', '!', '|', '>', '{', '[', '%', '@', '`', ',', '?']);
        return (!is_other && plain != "null" && plain != "~").then(|| plain.to_owned());
    };
    let (mut out, mut chars) = (String::new(), text[1..].chars());
    loop {
        match chars.next()? {
            '\\' if quote == '"' => return None,
            c if c != quote => out.push(c),
            // Two of them are one.
            '\'' if chars.as_str().starts_with('\'') => out.extend(chars.next()),
            _ => break,
        }
    }
    let rest = chars.as_str().trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some(out)
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;

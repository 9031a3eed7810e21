//! The few values that a health check needs from a kubeconfig: the API server's address and our credentials. Pure.
//!
//! What kubectl reads is read, or refused with its line and the reason: `tests/fixtures/kubeconfigs.tsv`.
//! Must never: report a value that was not understood as missing.

use super::yaml::{Document, Node};
use crate::base::base64;
use crate::base::error::{Error, Kind, Result};

/// Largest kubeconfig that is read, in bytes.
pub const KUBECONFIG_MAX_BYTES: u64 = 1024 * 1024;

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    /// Its URL.
    pub server: String,
    /// The name or address in its certificate, where it differs from the URL's.
    pub server_name: Option<String>,
    /// The CA that signed its certificate.
    pub ca: Credential,
    /// Our certificate.
    pub certificate: Credential,
    /// Its private key.
    pub key: Credential,
}

/// PEM data, or the path of its file.
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
    /// Errors: Config: a value is missing, or in an unsupported form; the line is named.
    pub fn parse(bytes: &[u8]) -> Result<Kubeconfig> {
        let document = Document::parse(bytes)?;
        let values = Values(&document);
        let root = document.root();
        let context = values.entry("contexts", "context", values.wanted(root, "current-context")?)?;
        let cluster = values.entry("clusters", "cluster", values.wanted(context, "cluster")?)?;
        let user = values.entry("users", "user", values.wanted(context, "user")?)?;
        Ok(Kubeconfig {
            server: values.wanted(cluster, "server")?.to_owned(),
            server_name: document.text(cluster, "tls-server-name")?.map(|(name, _)| name.to_owned()),
            ca: values.credential(cluster, "certificate-authority")?,
            certificate: values.credential(user, "client-certificate").map_err(|e| values.instead(user, e))?,
            key: values.credential(user, "client-key")?,
        })
    }
}

fn bad(why: &str) -> Error {
    Error::new(Kind::Config, why)
}

struct Values<'a>(&'a Document);

impl<'a> Values<'a> {
    fn wanted(&self, map: &'a Node, key: &str) -> Result<&'a str> {
        let found = self.0.text(map, key)?.map(|(text, _)| text);
        found.ok_or_else(|| bad(&format!("it has no {key}")))
    }

    /// Finds a list entry by its name. Returns: its value under `key`.
    fn entry(&self, list: &str, key: &str, name: &str) -> Result<&'a Node> {
        let mut found = None;
        for entry in self.0.list(self.0.root(), list)? {
            if self.0.text(entry, "name")?.is_some_and(|(text, _)| text == name) {
                if found.is_some() {
                    return Err(bad(&format!("line {}: a second `{name}` among its {list}", entry.line)));
                }
                found = Some(entry);
            }
        }
        let entry = found.ok_or_else(|| bad(&format!("there is no `{name}` among its {list}")))?;
        self.0.get(entry, key)?.ok_or_else(|| bad(&format!("line {}: `{name}` has no {key}", entry.line)))
    }

    /// Embedded data take precedence. Source: client-go, clientcmd/api/v1 ("overrides").
    fn credential(&self, map: &'a Node, name: &str) -> Result<Credential> {
        let data = [name, "-data"].concat();
        if let Some((text, line)) = self.0.text(map, &data)? {
            // Source: Go's encoding/base64: line breaks are skipped, spaces are not.
            let pem = base64::decode(&text.replace(['\n', '\r'], ""));
            return pem.map(Credential::Pem).ok_or_else(|| bad(&format!("line {line}: {data} is not base64")));
        }
        self.wanted(map, name).map(|path| Credential::File(path.to_owned()))
    }

    /// Names the user's other credentials, if the certificate is what is missing.
    fn instead(&self, user: &Node, missing: Error) -> Error {
        let others = ["token", "tokenFile", "exec", "auth-provider", "username"];
        let other = others.into_iter().find(|key| self.0.get(user, key).is_ok_and(|found| found.is_some()));
        match (other, self.0.text(user, "client-certificate-data")) {
            (Some(other), Ok(None)) => missing.hint(format!("its user has `{other}`, which is not used here")),
            _ => missing,
        }
    }
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;

//! Asks the API server, over TLS with the administrator's client certificate, whether it and its node are ready.
//!
//! Must never: speak to a server whose certificate the kubeconfig's CA did not sign, or show it the client certificate.

use super::kubeconfig::{Credential, KUBECONFIG_MAX_BYTES, Kubeconfig};
use super::node::{self, NodeList};
use super::workloads::Workload;
use crate::base::error::{Error, IoContext, Kind, Result};
use crate::base::text::printable;
use crate::base::url::Url;
use crate::http::tls::{Identity, Pem};
use crate::http::{Client, HttpOptions, Timeouts};
use crate::os::files::read_required;
use crate::os::system::System;
use std::path::Path;
use std::time::Duration;

/// Longest answer to `/readyz` that is read, in bytes: a line for each of some 30 checks.
const READYZ_MAX_BYTES: u64 = 16 * 1024;
/// Longest list of nodes that is read, in bytes. One node takes 10 to 100 KB.
const NODES_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Longest deployment that is read, in bytes: the API server stores no longer one.
const DEPLOYMENT_MAX_BYTES: u64 = 2 * 1024 * 1024;
/// Longest PEM file, in bytes.
const PEM_MAX_BYTES: u64 = 256 * 1024;

/// A connection to the API server.
pub struct ApiServer {
    client: Client,
    base: Url,
}

impl ApiServer {
    /// Reads the kubeconfig and the files it names; opens no connection.
    /// Input: `limit`: for each answer as a whole.
    /// Errors: Config: it is missing or unusable.
    pub fn open(system: &System, kubeconfig: &Path, limit: Duration) -> Result<ApiServer> {
        let reading = |e: Error| e.at("read", kubeconfig.display());
        let bytes = read_required(kubeconfig, KUBECONFIG_MAX_BYTES).io(Kind::Config, "read", kubeconfig.display())?;
        let parsed = Kubeconfig::parse(&bytes).map_err(reading)?;
        let base = Url::parse(&parsed.server).map_err(reading)?;
        if !base.is_secure() {
            return Err(reading(Error::new(Kind::Config, "its server is not an https URL")));
        }
        let pem = |credential, what: &str| load(credential, system, kubeconfig, what);
        let mut options = HttpOptions::new(system);
        options.ca = Some(pem(parsed.ca, "certificate-authority")?);
        options.identity = Some(Identity {
            certificate: pem(parsed.certificate, "client-certificate")?,
            key: pem(parsed.key, "client-key")?,
        });
        options.timeouts = Timeouts::all(limit);
        options.server_name = parsed.server_name;
        options.shares_clock = true;
        options.tries = 1;
        Ok(ApiServer { client: Client::new(options)?.with_bases(vec![base.clone()]), base })
    }

    /// Asks whether it is ready. Returns: its address.
    /// Errors: Unhealthy: it reports that it is not. Network, Source: it cannot be asked.
    pub fn ready(&self) -> Result<String> {
        let mut said = Vec::new();
        let status = self.ask("readyz", READYZ_MAX_BYTES, &mut |_, bytes| {
            said.extend_from_slice(bytes);
            Ok(())
        })?;
        accepted(status)?;
        match status {
            200 => Ok(self.base.origin()),
            _ => Err(Error::new(Kind::Unhealthy, not_ready(status, &String::from_utf8_lossy(&said)))),
        }
    }

    /// Asks for the node. Returns: its name and version.
    /// Errors: Unhealthy: it is not ready. Network, Source: the server cannot be asked, or its answer is malformed.
    pub fn node(&self, host: &str, boot_id: Option<&str>) -> Result<String> {
        let mut list = NodeList::default();
        // A server that is starting up may answer from its cache; without resourceVersion it reads from storage.
        let path = "api/v1/nodes";
        let status = self.ask(path, NODES_MAX_BYTES, &mut |status, bytes| match status {
            200 => list.feed(bytes),
            _ => Ok(()),
        })?;
        accepted(status)?;
        if status != 200 {
            return Err(Error::new(Kind::Unhealthy, format!("/{path} answered {status}")));
        }
        node::judge(&list.finish()?, host, boot_id)
    }

    /// Asks for the deployments that the site requires. Returns: how many replicas of each are available.
    /// Errors: Unhealthy: one has none. Network, Source: the server cannot be asked, or its answer is malformed.
    pub fn workloads(&self, wanted: &[Workload]) -> Result<String> {
        let mut said = Vec::new();
        for workload in wanted {
            let mut answer = Vec::new();
            let status = self.ask(&workload.path(), DEPLOYMENT_MAX_BYTES, &mut |_, bytes| {
                answer.extend_from_slice(bytes);
                Ok(())
            })?;
            accepted(status)?;
            said.push(workload.judge(status, &answer)?);
        }
        Ok(said.join(", "))
    }

    fn ask(&self, path: &str, cap_bytes: u64, take: &mut dyn FnMut(u16, &[u8]) -> Result<()>) -> Result<u16> {
        // The server's URL may have a base path. Source: client-go, rest/request.go, AbsPath.
        self.client.whatever(&self.base.child(path), cap_bytes, take)
    }
}

fn accepted(status: u16) -> Result<()> {
    let why = match status {
        401 => "it does not know the kubeconfig's user",
        403 => "the kubeconfig's user may not ask this",
        _ => return Ok(()),
    };
    Err(Error::new(Kind::Unhealthy, format!("{why} ({status})")))
}

/// Names the server's own checks that failed. Source: Kubernetes API health endpoints: `[-]NAME failed: reason withheld`.
fn not_ready(status: u16, said: &str) -> String {
    let failed = said.lines().filter_map(|line| line.strip_prefix("[-]")?.split(' ').next());
    let failed = failed.take(8).map(printable).collect::<Vec<_>>().join(", ");
    match failed.is_empty() {
        true => format!("it is not ready ({status})"),
        false => format!("it is not ready ({status}): {failed} failed"),
    }
}

fn load(credential: Credential, system: &System, kubeconfig: &Path, what: &str) -> Result<Pem> {
    let (from, bytes) = match credential {
        Credential::Pem(bytes) => (format!("{what}-data in {}", kubeconfig.display()), bytes),
        Credential::File(name) => {
            let path = match name.starts_with('/') {
                true => system.path(&name),
                false => kubeconfig.with_file_name(&name),
            };
            let fail = |e: Error| e.at("read", format!("the {what} that {} names", kubeconfig.display()));
            let bytes = read_required(&path, PEM_MAX_BYTES).io(Kind::Config, "read", path.display()).map_err(fail)?;
            (path.display().to_string(), bytes)
        }
    };
    Ok(Pem::Text { from, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_not_ready() {
        let said = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]informer-sync failed: x\nreadyz check failed\n";
        assert_eq!(not_ready(500, said), "it is not ready (500): etcd, informer-sync failed");
        assert_eq!(not_ready(503, "\x1b[2J"), "it is not ready (503)");
        assert_eq!(not_ready(500, "[-]\x1b[2J failed"), "it is not ready (500): \u{fffd}[2J failed");
    }
}

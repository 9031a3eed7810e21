//! Which source to use, and how it is opened.

use super::{Source, latest, layout, registry};
use crate::base::error::Result;
use crate::http::{Client, PlainHttp};
use crate::oci::reference::Reference;
use crate::trust::keyring::Keyring;
use std::path::PathBuf;

/// Says which source to use: what configuration and command line come down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// An HTTP server with a `latest.json`.
    Http {
        /// URL of the directory that holds it.
        server: String,
        /// URLs of directories that hold the same, in the order of trying.
        mirrors: Vec<String>,
        /// Where plain HTTP may be used.
        plain_http: PlainHttp,
    },
    /// A repository in an OCI registry.
    Registry {
        /// Which.
        reference: Reference,
        /// Repositories that hold the same, in the order of trying; their tag does not count.
        mirrors: Vec<Reference>,
        /// Where plain HTTP may be used.
        plain_http: PlainHttp,
    },
    /// An OCI image layout on a medium.
    Layout {
        /// Its directory.
        path: PathBuf,
        /// Which entry; needed where several are there and none is `latest`.
        tag: Option<String>,
        /// Whether a person typed it: then it is a fault that nothing is there.
        is_typed: bool,
    },
}

/// Makes the source. Opens no connection and no file. Input: `ring`: who must have signed what it offers.
/// Errors: Config: the server URL is malformed, or plain HTTP is not allowed to it.
pub fn open_source(spec: SourceSpec, client: &Client, ring: Keyring) -> Result<Box<dyn Source>> {
    Ok(match spec {
        SourceSpec::Http { server, mirrors, plain_http } => {
            Box::new(latest::Latest::new(&server, &mirrors, &client.with_plain_http(plain_http), ring)?)
        }
        SourceSpec::Registry { reference, mirrors, plain_http } => {
            let client = client.with_plain_http(plain_http);
            Box::new(registry::Registry::new(reference, &mirrors, plain_http, &client, ring))
        }
        SourceSpec::Layout { path, tag, is_typed } => Box::new(layout::Layout::new(path, tag, is_typed, ring)),
    })
}

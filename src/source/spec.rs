//! Which source to use, and how it is opened.

use super::{Source, latest, layout, registry};
use crate::base::error::Result;
use crate::http::{Client, PlainHttp};
use crate::oci::reference::Reference;
use crate::trust::keyring::Keyring;
use std::path::PathBuf;

/// The source to use, from configuration and command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// An HTTP server with a `latest.json`.
    Http {
        /// URL of the directory that holds it.
        server: String,
        /// URLs of directories with the same content, in the order of trying.
        mirrors: Vec<String>,
        /// Where plain HTTP may be used.
        plain_http: PlainHttp,
    },
    /// A repository in an OCI registry.
    Registry {
        /// The repository.
        reference: Reference,
        /// Repositories with the same content, in the order of trying; their tag does not count.
        mirrors: Vec<Reference>,
        /// Where plain HTTP may be used.
        plain_http: PlainHttp,
    },
    /// An OCI image layout on a medium.
    Layout {
        /// Its directory.
        path: PathBuf,
        /// Which entry; needed if there are several and none is `latest`.
        tag: Option<String>,
        /// Whether an operator typed it: then an empty place is a fault.
        is_typed: bool,
    },
}

/// Creates the source. Opens no connection and no file. Input: `ring`: required signers.
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

//! OCI registry: a distribution-spec 1.1 client for pulling.
//!
//! A tag is resolved once; everything after that goes by digest. Must never: use a document whose bytes
//! do not hash to the digest that was asked for, or ask for a blob just to learn about it.

use super::{Artifact, Fetch, FileRef, PlainHttp, Source, bounded, check_bytes, check_length, follow};
use crate::error::{Error, Kind, Result};
use crate::http::{Body, Client, Document};
use crate::json;
use crate::oci::digest::Digest;
use crate::oci::manifest::{self, ACCEPT, DOCUMENT_CAP, Descriptor};
use crate::oci::reference::Reference;
use crate::url::Url;

/// One repository of a registry.
pub struct Registry {
    reference: Reference,
    /// `https://host/v2/repository/`
    base: Url,
    client: Client,
    /// Of the document that was resolved last.
    top: Option<Digest>,
}

impl Registry {
    /// Makes the source. Opens no connection.
    pub fn new(reference: Reference, mirrors: &[Reference], plain_http: PlainHttp, client: &Client) -> Registry {
        let base = |reference: &Reference| {
            let secure = !plain_http.for_registry(reference.is_loopback());
            let path = format!("/v2/{}/", reference.repository());
            Url::from_parts(secure, reference.host(), reference.port(), path)
        };
        let bases = std::iter::once(&reference).chain(mirrors).map(base).collect();
        Registry { base: base(&reference), client: client.with_bases(bases), reference, top: None }
    }

    /// Source: distribution-spec 1.1, "Endpoints" end-2 and end-3.
    fn url(&self, kind: &str, which: &str) -> Url {
        self.base.extended(&format!("{kind}/{which}"))
    }

    fn top_url(&self) -> Url {
        let which = self.reference.digest().map_or_else(|| self.reference.tag().to_owned(), |d| d.to_string());
        self.url("manifests", &which)
    }

    /// Fetches what the reference names: by digest where it is pinned, else by tag.
    fn top(&self) -> Result<(manifest::Document, Digest)> {
        let (pinned, url) = (self.reference.digest(), self.top_url());
        self.client.document_as(&url, ACCEPT, DOCUMENT_CAP, None, &mut |mut document| {
            let digest = Digest::of(&document.body);
            check_header(&document, digest)?;
            if pinned.is_some_and(|want| want != digest) {
                return Err(Error::new(Kind::Digest, format!("the answer hashes to {digest}")).at("fetch", &url));
            }
            json::shorten(&mut document.body).map_err(|e| e.at("read", &self.reference))?;
            let name = self.reference.to_string();
            Ok((manifest::parse(&document.body, document.content_type.as_deref(), &name)?, digest))
        })
    }

    fn fetch(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let url = self.url("manifests", &descriptor.digest.to_string());
        self.client.document_as(&url, ACCEPT, DOCUMENT_CAP.min(descriptor.size_bytes), None, &mut |document| {
            check_bytes(&document.body, descriptor).map_err(|e| e.at("fetch", &url))?;
            check_header(&document, descriptor.digest)?;
            check_type(&document, &descriptor.media_type)?;
            Ok(document.body)
        })
    }
}

/// Who sends a blob, and what says how long it is.
const SAID: (&str, &str) = ("the registry", "the manifest");

/// Holds Docker-Content-Digest, where it was sent, against the bytes.
/// Errors: Digest: it is another one. Source: it is none.
fn check_header(document: &Document, digest: Digest) -> Result<()> {
    let Some(header) = &document.digest_header else { return Ok(()) };
    let at = |e: Error| e.at("check Docker-Content-Digest of", &document.final_url);
    match Digest::parse(header) {
        Ok(said) if said == digest => Ok(()),
        Ok(said) => Err(at(Error::new(Kind::Digest, format!("it says {said}, the bytes hash to {digest}")))),
        Err(_) => Err(at(Error::new(Kind::Source, format!("'{header}' is not a SHA-256 digest")))),
    }
}

/// Holds Content-Type, where it was sent, against the descriptor.
fn check_type(document: &Document, want: &str) -> Result<()> {
    let Some(header) = &document.content_type else { return Ok(()) };
    let got = header.split(';').next().unwrap_or_default().trim();
    match got.eq_ignore_ascii_case(want) {
        true => Ok(()),
        false => Err(Error::new(Kind::Source, format!("served as {got}, where the index says {want}"))
            .at("fetch", &document.final_url)),
    }
}

impl Source for Registry {
    fn resolve(&mut self, architecture: &str) -> Result<Artifact> {
        let name = self.describe();
        let (document, digest) = self.top()?;
        self.top = Some(digest);
        let fetch: Fetch = &mut |descriptor| self.fetch(descriptor);
        follow(document, digest, architecture, &name, fetch)
    }

    /// Source: distribution-spec 1.1, "Pulling manifests" (HEAD, Docker-Content-Digest).
    fn is_unchanged(&mut self, validator: &str) -> bool {
        let answer = self.client.once().head(&self.top_url(), ACCEPT);
        let digest = answer.ok().flatten().and_then(|document| document.digest_header);
        digest.is_some_and(|digest| digest == validator)
    }

    fn validator(&self) -> Option<String> {
        self.top.map(|digest| digest.to_string())
    }

    fn open(&mut self, file: &FileRef, from: u64) -> Result<Body> {
        let url = self.url("blobs", &file.sha256.to_string());
        Ok(bounded(self.client.stream(&url, file.size_bytes, from)?, file.size_bytes, from))
    }

    fn doubt(&mut self) -> bool {
        self.client.doubt()
    }

    /// Source: distribution-spec 1.1, "Checking if content exists in the registry" (end-2, HEAD).
    fn probe(&mut self, file: &FileRef) -> Result<()> {
        let url = self.url("blobs", &file.sha256.to_string());
        self.client.probe(&url, &mut |length| check_length(length, file, SAID).map_err(|e| e.at("fetch", &url)))
    }

    fn describe(&self) -> String {
        format!("registry {}", self.reference)
    }
}

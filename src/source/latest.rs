//! HTTP server with a `latest.json` beside the files it names.
//!
//! The document is one artifact, or has an `artifacts` array with one for each architecture; metadata at the top level then
//! fills fields missing from an entry, but never `architecture`, `kernel` or `initramfs`: a file must not reach a machine it
//! was not listed for. Its signature, `latest.json.sig`, is over its exact bytes and is checked before they are parsed.
//! Must never: fetch a file's bytes to describe it, or accept a file without digest and size.

use super::{Source, latest_json, remarks};
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::json;
use crate::base::url::Url;
use crate::http::{Body, Client, Document, DocumentRequest};
use crate::oci::descriptor::DOCUMENT_CAP;
use crate::offer::artifact::{Artifact, FileRef, Place};
use crate::os::progress::setback;
use crate::os::sys;
use crate::source::limits::{Said, check_length};
use crate::trust::keyring::Keyring;
use crate::trust::tally::{DETACHED_MAX_BYTES, Tally};
use std::cell::Cell;
use std::ops::Range;
use std::time::Instant;

/// One HTTP server.
pub struct Latest {
    url: Url,
    /// URL of the signature.
    signature_url: Url,
    client: Client,
    ring: Keyring,
    etag: Option<String>,
    /// Fetched, but not yet examined.
    document: Option<Document>,
}

impl Latest {
    /// Creates the source. Input: `server`: URL of the directory that holds `latest.json`; `mirrors`: of others; `ring`:
    /// required signers.
    /// Errors: Config: not an http or https URL.
    pub fn new(server: &str, mirrors: &[String], client: &Client, ring: Keyring) -> Result<Latest> {
        let mut bases = vec![Url::configured(server)?.child("")];
        for mirror in mirrors {
            bases.push(Url::configured(mirror)?.child(""));
        }
        Ok(Latest {
            url: Url::configured(server)?.child("latest.json"),
            signature_url: Url::configured(server)?.child("latest.json.sig"),
            ring,
            client: client.with_bases(bases),
            etag: None,
            document: None,
        })
    }

    /// Finds out which keys signed a document. Input: as received, and its URL; `url`: of the signature; `is_copy`: is set if
    /// that was a cache's copy.
    /// Errors: Signature: required signatures are missing. Network: that cannot be determined.
    fn prove(&self, document: &Document, url: &Url, is_copy: &Cell<bool>) -> Result<Vec<Digest>> {
        if !self.ring.demands_signatures()? {
            return Ok(Vec::new());
        }
        self.client.past_caches().document_if_there(url, "*/*", DETACHED_MAX_BYTES, &mut |signature| {
            let mut tally = Tally::new(&self.ring);
            let Some(signature) = signature else {
                let place = &self.signature_url;
                let hint = format!("its signature is expected at {place}: scripts/sign.sh --latest makes it");
                return tally.finish(&self.url.to_string(), &hint);
            };
            is_copy.set(is_copy.get() || signature.is_copy);
            tally.take_detached(&document.body, &signature.body);
            // Either may be a mirror's, and the other place must not be blamed for it.
            let is_one_place = document.final_url.origin() == signature.final_url.origin();
            let place = if is_one_place { &document.final_url } else { &signature.final_url };
            tally.finish(&place.to_string(), "")
        })
    }

    /// Turns a document into an artifact if its signatures suffice. Returns: its ETag as well.
    fn make(&self, mut document: Document, architecture: &str, signature: &Url, is_copy: &Cell<bool>) -> Result<Made> {
        let etag = document.etag.take();
        is_copy.set(is_copy.get() || document.is_copy);
        let digest = Digest::of(&document.body);
        self.ring.refuse_revoked(&[digest]).map_err(|e| e.at("verify", &document.final_url))?;
        let signed_by = self.prove(&document, signature, is_copy)?;
        json::shorten(&mut document.body).map_err(|e| e.at("read", &document.final_url))?;
        let artifact = latest_json::parse(&document.body, &document.final_url, architecture, &self.describe())?;
        self.ring.refuse_revoked(&artifact.digests()).map_err(|e| e.at("verify", &document.final_url))?;
        // Without an ETag the remarks are repeated each time.
        let has_remarks = remarks::say_of_latest(&document.body);
        let etag = etag.filter(|_| !has_remarks);
        Ok((Artifact { signed_by, passed: vec![digest], ..artifact }, etag))
    }

    /// Asks each place until one has a usable document. Input: `more`: additions to the query.
    fn ask(&self, architecture: &str, more: &[(&str, &str)], is_copy: &Cell<bool>) -> Result<Made> {
        let (url, signature) = (self.url.with_query(more), self.signature_url.with_query(more));
        let client = self.client.past_caches();
        client.document_as(
            &url,
            &DocumentRequest { accept: "application/json", cap_bytes: DOCUMENT_CAP, etag: None },
            &mut |document| self.make(document, architecture, &signature, is_copy),
        )
    }
}

/// An artifact, and the ETag of the document that describes it.
type Made = (Artifact, Option<String>);

impl Source for Latest {
    /// The document and its signature may differ in age: published between the two requests, or held by a cache on the way. So
    /// both are requested again if the signature does not count, by a URL that no cache knows: some caches ignore requests to
    /// revalidate, and some do not admit to sending a copy. A URL with its own query may have to stay unchanged (a signed URL),
    /// so that one is extended only if a cache did admit it.
    fn resolve(&mut self, architecture: &str) -> Result<Artifact> {
        let is_copy = Cell::new(false);
        let early =
            self.document.take().map(|document| self.make(document, architecture, &self.signature_url, &is_copy));
        let first = match early {
            Some(Err(e)) if e.kind() != Kind::Signature => {
                // One answer of one place: the others may have better ones.
                setback(&e, "asking again");
                self.ask(architecture, &[], &is_copy)
            }
            Some(made) => made,
            None => self.ask(architecture, &[], &is_copy),
        };
        let (artifact, etag) = match first {
            Err(e) if e.kind() == Kind::Signature => {
                let fresh = sys::random_u64().to_string();
                let more = [("fresh", fresh.as_str())];
                let is_free = is_copy.get() || !self.url.target().contains('?');
                let more = if is_free { &more[..] } else { &[] };
                self.ask(architecture, more, &is_copy).map_err(|_| e)
            }
            made => made,
        }?;
        self.etag = etag;
        Ok(artifact)
    }

    /// Source: RFC 9110, section 13.1.2.
    fn is_unchanged(&mut self, validator: &str) -> bool {
        let client = self.client.once().past_caches();
        let Ok(document) = client.document(&self.url, "application/json", DOCUMENT_CAP, Some(validator)) else {
            return false;
        };
        let unchanged = document.status == 304;
        self.document = Some(document).filter(|_| !unchanged);
        unchanged
    }

    fn validator(&self) -> Option<String> {
        self.etag.clone()
    }

    fn open(&mut self, blob: &FileRef, part: Range<u64>, begun: Instant) -> Result<Body> {
        self.client.stream(place(blob)?, blob.size_bytes, part, begun)
    }

    fn doubt(&mut self) -> bool {
        self.client.doubt()
    }

    fn probe(&mut self, file: &FileRef) -> Result<()> {
        let url = place(file)?;
        self.client.probe(url, &mut |length| check_length(length, file, &SAID).map_err(|e| e.at("fetch", url)))
    }

    fn describe(&self) -> String {
        format!("http {}", self.url)
    }
}

/// The sender of a file, and the source of its expected length.
const SAID: Said = Said { sender: "the server", document: "latest.json" };

fn place(file: &FileRef) -> Result<&Url> {
    match &file.place {
        Place::Url(url) => Ok(url),
        _ => Err(Error::new(Kind::Internal, "the file belongs to another source").at("open", file.sha256)),
    }
}

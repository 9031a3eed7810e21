//! OCI registry: a distribution-spec 1.1 client for pulling.
//!
//! A tag is resolved once; everything after that goes by digest. Must never: use a document whose bytes do not hash to the
//! requested digest, or request a blob only to learn about it.

use super::Source;
use super::remarks::Remarks;
use super::signatures::{FetchPiece, MAX_CANDIDATES, Piece, Wanted, Wish, look_at, prove};
use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::json;
use crate::base::url::Url;
use crate::http::{Body, Client, Document, DocumentRequest, PlainHttp};
use crate::oci::descriptor::{DOCUMENT_CAP, Descriptor};
use crate::oci::manifest::{self, ACCEPT};
use crate::oci::reference::Reference;
use crate::offer::artifact::{Artifact, FileRef};
use crate::source::follow::{Fetch, Top, follow};
use crate::source::limits::{Said, check_bytes, check_length};
use crate::trust::beside::{self, Other};
use crate::trust::bundle;
use crate::trust::keyring::Keyring;
use crate::trust::referrers;
use crate::trust::tally::Tally;
use std::ops::Range;
use std::time::Instant;

/// One repository of a registry.
pub struct Registry {
    reference: Reference,
    /// `https://host/v2/repository/`
    base: Url,
    client: Client,
    ring: Keyring,
    /// Digest of the document resolved last.
    top: Option<Digest>,
}

impl Registry {
    /// Creates the source. Opens no connection. Input: `ring`: required signers.
    pub fn new(
        reference: Reference,
        mirrors: &[Reference],
        plain_http: PlainHttp,
        client: &Client,
        ring: Keyring,
    ) -> Registry {
        let base = |reference: &Reference| {
            let secure = !plain_http.for_registry(reference.is_loopback());
            let path = format!("/v2/{}/", reference.repository());
            Url::from_parts(secure, reference.host(), reference.port(), path)
        };
        let bases = std::iter::once(&reference).chain(mirrors).map(base).collect();
        Registry { base: base(&reference), client: client.with_bases(bases), reference, ring, top: None }
    }

    /// Source: distribution-spec 1.1, "Endpoints" end-2 and end-3.
    fn url(&self, kind: &str, which: &str) -> Url {
        self.base.extended(&format!("{kind}/{which}"))
    }

    fn top_url(&self) -> Url {
        let which = self.reference.digest().map_or_else(|| self.reference.tag().to_owned(), |d| d.to_string());
        self.url("manifests", &which)
    }

    /// Fetches what the reference names: by digest if it is pinned, else by tag.
    fn top(&self, remarks: &mut Remarks) -> Result<Top> {
        let (pinned, url) = (self.reference.digest(), self.top_url());
        // A tag may move.
        let client = self.client.past_caches();
        client.document_as(
            &url,
            &DocumentRequest { accept: ACCEPT, cap_bytes: DOCUMENT_CAP, etag: None },
            &mut |mut document| {
                let digest = Digest::of(&document.body);
                check_header(&document, digest)?;
                if pinned.is_some_and(|want| want != digest) {
                    return Err(Error::new(Kind::Digest, format!("the answer hashes to {digest}")).at("fetch", &url));
                }
                json::shorten(&mut document.body).map_err(|e| e.at("read", &self.reference))?;
                let name = self.reference.to_string();
                remarks.look(digest, &document.body);
                let document = manifest::parse(&document.body, document.content_type.as_deref(), &name)?;
                Ok(Top { document, digest })
            },
        )
    }

    fn fetch(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let url = self.url("manifests", &descriptor.digest.to_string());
        let wanted = DocumentRequest { accept: ACCEPT, cap_bytes: DOCUMENT_CAP.min(descriptor.size_bytes), etag: None };
        self.client.document_as(&url, &wanted, &mut |document| {
            check_bytes(&document.body, descriptor).map_err(|e| e.at("fetch", &url))?;
            check_header(&document, descriptor.digest)?;
            check_type(&document, &descriptor.media_type)?;
            Ok(document.body)
        })
    }

    /// Examines what refers to a document: the API's list, then the tag's, which exists in registries without the API and in
    /// those that lacked it at signing time.
    /// Source: distribution-spec 1.1, "Listing Referrers" and "Referrers Tag Schema".
    fn look_for_signatures(&self, client: &Client, subject: Digest, tally: &mut Tally<'_>) {
        let api = self.url("referrers", &subject.to_string()).with_query(&[("artifactType", bundle::MEDIA_TYPE)]);
        let tag = self.url("manifests", &referrers::tag(subject));
        let mut known = Vec::new();
        for list in [api, tag] {
            let mut next = Some(list);
            for _ in 0..MAX_PAGES {
                let Some(url) = next.take().filter(|_| tally.wants_more()) else { break };
                if known.len() == MAX_CANDIDATES {
                    return tally.cut_short(MAX_CANDIDATES);
                }
                match Registry::page(&client.past_caches(), &url) {
                    Ok(None) => {}
                    Ok(Some((candidates, other, link))) => {
                        other.into_iter().for_each(|other| tally.see(other));
                        let fetch: FetchPiece = &mut |piece, of| self.fetch_piece(client, piece, of);
                        look_at(&candidates, Wish { subject, most: MAX_CANDIDATES }, &mut known, tally, fetch);
                        next = link.and_then(|link| link.map_err(|e| tally.pass_over(&e)).ok());
                    }
                    Err(e) if e.kind() == Kind::Network => tally.postpone(e),
                    Err(e) => tally.pass_over(&e),
                }
            }
        }
    }

    /// Fetches one page of a list. Returns: `None`: no such list here.
    fn page(client: &Client, url: &Url) -> Result<Option<Page>> {
        client.document_if_there(url, referrers::INDEX_TYPE, LIST_MAX_BYTES, &mut |document| {
            // Some servers return a page for every request.
            let Some(document) = document.filter(|d| check_type(d, referrers::INDEX_TYPE).is_ok()) else {
                return Ok(None);
            };
            let (candidates, other) = referrers::candidates(&document.body, &url.to_string())?;
            let next = document.link.as_deref().and_then(referrers::next_page);
            Ok(Some((candidates, other, next.map(|link| next_url(&document.final_url, &link)))))
        })
    }

    /// Looks for what exists instead of signatures: other types in the API's list, and the tags of cosign 2. Whatever is
    /// unavailable now is skipped: it only serves the words of an error.
    fn look_for_others(&self, client: &Client, subject: Digest, tally: &mut Tally<'_>) {
        let client = client.once();
        for tag in beside::tags(subject) {
            let url = self.url("manifests", &tag);
            let cap = referrers::MANIFEST_MAX_BYTES;
            let found = client.document_if_there(&url, ACCEPT, cap, &mut |document| {
                Ok(document.and_then(|document| beside::of_manifest(&document.body, subject)))
            });
            if let Ok(Some((other, _))) = found {
                return tally.see(other);
            }
        }
        if let Ok(Some((_, other, _))) = Registry::page(&client, &self.url("referrers", &subject.to_string())) {
            other.into_iter().for_each(|other| tally.see(other));
        }
    }

    fn fetch_piece(&self, client: &Client, piece: Piece, of: &Descriptor) -> Result<Option<Vec<u8>>> {
        let (kind, accept) = match piece {
            Piece::Manifest => ("manifests", ACCEPT),
            Piece::Bundle => ("blobs", "*/*"),
        };
        let url = self.url(kind, &of.digest.to_string());
        client.document_if_there(&url, accept, of.size_bytes, &mut |document| {
            let Some(document) = document else { return Ok(None) };
            check_bytes(&document.body, of).map_err(|e| e.at("fetch", &url))?;
            Ok(Some(document.body))
        })
    }
}

/// Candidates for signatures, other finds, and the next page, if allowed.
type Page = (Vec<Descriptor>, Option<Other>, Option<Result<Url>>);

/// Errors: Source: not a URL, or of another server.
fn next_url(page: &Url, link: &str) -> Result<Url> {
    let next = page.join(link)?;
    match next.origin() == page.origin() {
        true => Ok(next),
        false => {
            let why = format!("the next page is at {}, another server", next.host());
            Err(Error::new(Kind::Source, why).at("list", page))
        }
    }
}

/// Longest page of a list of referrers, in bytes; as JSON, it may have about 1000 entries.
const LIST_MAX_BYTES: u64 = 1 << 20;
/// Most pages read of one list.
const MAX_PAGES: usize = 16;

/// The sender of a blob, and the source of its expected length.
const SAID: Said = Said { sender: "the registry", document: "the manifest" };

/// Checks Docker-Content-Digest, if sent, against the bytes.
/// Errors: Digest: they differ. Source: it is malformed.
fn check_header(document: &Document, digest: Digest) -> Result<()> {
    let Some(header) = &document.digest_header else { return Ok(()) };
    let at = |e: Error| e.at("check Docker-Content-Digest of", &document.final_url);
    match Digest::parse(header) {
        Ok(said) if said == digest => Ok(()),
        Ok(said) => Err(at(Error::new(Kind::Digest, format!("it says {said}, the bytes hash to {digest}")))),
        Err(_) => Err(at(Error::new(Kind::Source, format!("'{header}' is not a SHA-256 digest")))),
    }
}

/// Checks Content-Type, if sent, against the descriptor.
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
        let mut remarks = Remarks::default();
        let top = self.top(&mut remarks)?;
        let digest = top.digest;
        let fetch: Fetch = &mut |descriptor| {
            let bytes = self.fetch(descriptor)?;
            remarks.look(descriptor.digest, &bytes);
            Ok(bytes)
        };
        let (mut artifact, is_stated) = follow(top, architecture, &name, &self.ring, fetch)?;
        // However many candidates there are: all within the time limit of one document.
        let client = self.client.with_one_limit();
        prove(&mut artifact, is_stated, &self.ring, &mut |wanted, subject, tally| match wanted {
            Wanted::Signatures => self.look_for_signatures(&client, subject, tally),
            Wanted::Others => self.look_for_others(&client, subject, tally),
        })?;
        // Without a validator the remarks are repeated each time.
        self.top = Some(digest).filter(|_| !remarks.say(&artifact));
        Ok(artifact)
    }

    /// Source: distribution-spec 1.1, "Pulling manifests" (HEAD, Docker-Content-Digest).
    fn is_unchanged(&mut self, validator: &str) -> bool {
        let answer = self.client.once().past_caches().head(&self.top_url(), ACCEPT);
        let digest = answer.ok().flatten().and_then(|document| document.digest_header);
        digest.is_some_and(|digest| digest == validator)
    }

    fn validator(&self) -> Option<String> {
        self.top.map(|digest| digest.to_string())
    }

    fn open(&mut self, blob: &FileRef, part: Range<u64>, begun: Instant) -> Result<Body> {
        self.client.stream(&self.url("blobs", &blob.sha256.to_string()), blob.size_bytes, part, begun)
    }

    fn doubt(&mut self) -> bool {
        self.client.doubt()
    }

    /// Source: distribution-spec 1.1, "Checking if content exists in the registry" (end-2, HEAD).
    fn probe(&mut self, file: &FileRef) -> Result<()> {
        for blob in file.blobs() {
            let url = self.url("blobs", &blob.sha256.to_string());
            self.client
                .probe(&url, &mut |length| check_length(length, &blob, &SAID).map_err(|e| e.at("fetch", &url)))?;
        }
        Ok(())
    }

    fn describe(&self) -> String {
        format!("registry {}", self.reference)
    }
}

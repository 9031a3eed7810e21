//! The one HTTP client. From below: `transport` under ureq, `dial`, `call` (one request), `exchange` (with its redirects),
//! `auth`, `client` (mirrors and retries), `resume` (a file, across broken connections). Requests ask for no compression, so
//! that the bytes hashed are the bytes sent.
//!
//! May import: base, os. Must never import: oci, trust, source, config: it moves bytes and does not know their meaning.

mod answer;
mod auth;
mod call;
pub mod challenge;
mod client;
pub mod credentials;
pub mod crypto;
mod deadline;
mod dial;
mod exchange;
mod failure;
mod guard;
mod message;
mod names;
pub(crate) mod options;
mod peers;
mod proxy;
mod range;
mod resume;
mod retry;
mod status;
pub mod tls;
mod transport;

pub use client::{Client, DocumentRequest};
pub use deadline::Timeouts;
pub use message::Document;
pub use options::{HttpOptions, PlainHttp};
pub use proxy::ProxyEnv;
pub use resume::Body;

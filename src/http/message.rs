//! A request and a small answer as plain data: no connection, no policy.

use crate::base::error::{Error, Kind, Result};
use crate::base::url::Url;
use ureq::SendBody;
use ureq::http::{HeaderName, HeaderValue, Method, Request, Uri};

/// One request. The default: a GET that accepts any type.
#[derive(Clone, Copy, Default)]
pub(super) struct Ask<'a> {
    pub is_head: bool,
    pub accept: &'a str,
    /// First byte wanted, and the first one that is not; `None` there: up to the end.
    pub range: Option<(u64, Option<u64>)>,
    /// ETag under which a part may be sent.
    pub if_range: Option<&'a str>,
    /// ETag of the known copy.
    pub if_none_match: Option<&'a str>,
    /// A form to be posted.
    pub form: Option<&'a str>,
    /// Whether a redirect is returned as an answer, and not followed.
    pub stays: bool,
}

impl Ask<'_> {
    pub fn method(&self) -> Method {
        match (self.is_head, self.form) {
            (true, _) => Method::HEAD,
            (_, Some(_)) => Method::POST,
            _ => Method::GET,
        }
    }
}

/// A small answer, fully read.
#[derive(Clone, Debug)]
pub struct Document {
    /// Status, 200 to 299; 304 where an ETag was given.
    pub status: u16,
    /// Content-Type, as sent.
    pub content_type: Option<String>,
    /// Docker-Content-Digest, as sent.
    pub digest_header: Option<String>,
    /// ETag, as sent.
    pub etag: Option<String>,
    /// Link, as sent, lines joined.
    pub link: Option<String>,
    /// Content-Length, where it is known.
    pub length: Option<u64>,
    /// Whether a cache marked this as its copy. Source: RFC 9111, section 5.1.
    pub is_copy: bool,
    /// The body; empty for HEAD.
    pub body: Vec<u8>,
    /// Where the answer came from, after redirects.
    pub final_url: Url,
}

/// Builds a request. Input: `headers`: Host included.
/// Errors: Source: a value is invalid in a header; the header is named, its value not shown.
pub(super) fn request(
    method: Method,
    uri: &str,
    headers: &[(HeaderName, &str)],
    body: SendBody<'static>,
) -> Result<Request<SendBody<'static>>> {
    let unfit = |what: &str| Error::new(Kind::Source, "not fit for an HTTP header").at("send", what);
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(uri).map_err(|_| unfit("the URL"))?;
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).map_err(|_| unfit(name.as_str()))?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

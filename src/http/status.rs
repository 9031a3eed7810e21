//! Statuses in words. Pure.

/// Returns a status's reason phrase. Source: RFC 9110, section 15; RFC 6585; RFC 4918; 520 to 529 are sent by CDNs.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        507 => "Insufficient Storage",
        520..=524 => "from a CDN: the server behind it gives no good answer",
        529 => "overloaded",
        _ => "unexpected status",
    }
}

//! Which source the file names, and which was typed: what was typed is the whole of it.

use crate::base::error::{Error, Kind, Result};
use crate::base::url::{Url, without_secrets};
use crate::cli::Common;
use crate::config::lines::{REPEATED, Raw, in_line};
use crate::http::options::PlainHttp;
use crate::oci::reference::Reference;
use crate::source::spec::SourceSpec;
use std::path::Path;
use std::path::PathBuf;

/// Takes the source that was typed, else the one in the file.
pub(super) fn source(
    raw: &Raw,
    flags: &Common,
    plain_http: PlainHttp,
    rooted: &dyn Fn(&str) -> PathBuf,
) -> Result<Option<SourceSpec>> {
    let typed = [flags.server.is_some(), flags.registry.is_some(), flags.layout.is_some()];
    if typed.iter().filter(|t| **t).count() > 1 {
        return Err(Error::new(Kind::Usage, "--server, --registry and --layout exclude each other"));
    }
    if typed.contains(&true) {
        // The file's tag belongs to the file's source.
        let (layout, tag) = (flags.layout.as_deref().map(|path| (path, true)), flags.tag.as_deref());
        let option = if flags.server.is_some() { "--server" } else { "--registry" };
        let found = spec(flags.server.as_deref(), flags.registry.as_deref(), layout, tag, plain_http);
        return found.map_err(|e| as_usage(e).at("use", option));
    }
    let mut found = source_of_file(raw, flags, plain_http, rooted)?;
    for (mirror, line) in raw.values(REPEATED) {
        // A URL may hold a secret.
        add_mirror(found.as_mut(), mirror).map_err(|e| in_line(line, e.at("use mirror", without_secrets(mirror))))?;
    }
    Ok(found)
}

/// Adds a mirror to the file's source; a source that was typed has none.
/// Errors: Config: it is not of the source's kind, or there is none.
pub(super) fn add_mirror(source: Option<&mut SourceSpec>, text: &str) -> Result<()> {
    match source {
        Some(SourceSpec::Http { mirrors, .. }) => {
            Url::configured(text)?;
            mirrors.push(text.to_string());
        }
        Some(SourceSpec::Registry { reference, mirrors, .. }) => mirrors.push(reference.mirrored_at(text)?),
        _ => return Err(Error::new(Kind::Config, "only `server` and `registry` have mirrors")),
    }
    Ok(())
}

pub(super) fn source_of_file(
    raw: &Raw,
    flags: &Common,
    plain_http: PlainHttp,
    rooted: &dyn Fn(&str) -> PathBuf,
) -> Result<Option<SourceSpec>> {
    let tag = flags.tag.as_deref().or(raw.value("tag"));
    let keys: Vec<&str> = ["server", "registry", "layout"].into_iter().filter(|k| raw.value(k).is_some()).collect();
    if keys.len() > 1 {
        let error = Error::new(Kind::Config, format!("`{}` exclude each other", keys.join("` and `")));
        return Err(raw.blame(keys[1], error));
    }
    let layout = raw.value("layout").map(rooted);
    let layout = layout.as_deref().map(|path| (path, false));
    let found = spec(raw.value("server"), raw.value("registry"), layout, tag, plain_http);
    found.map_err(|e| match (keys.first(), flags.tag.is_some()) {
        (Some(key), false) => raw.blame(key, e),
        _ => as_usage(e),
    })
}

pub(super) fn as_usage(error: Error) -> Error {
    Error::new(Kind::Usage, error.to_string())
}

/// Input: `layout`: where, and whether that was typed.
pub(super) fn spec(
    server: Option<&str>,
    registry: Option<&str>,
    layout: Option<(&Path, bool)>,
    tag: Option<&str>,
    plain_http: PlainHttp,
) -> Result<Option<SourceSpec>> {
    if let Some((path, is_typed)) = layout {
        return Ok(Some(SourceSpec::Layout { path: path.to_path_buf(), tag: tag.map(str::to_string), is_typed }));
    }
    let is_http = |text: &str| {
        let lower = text.to_ascii_lowercase();
        lower.starts_with("http://") || lower.starts_with("https://")
    };
    match (server, registry) {
        (Some(server), _) if is_http(server) => match tag {
            Some(_) => Err(Error::new(Kind::Config, "`tag` has no meaning for an HTTP server")),
            None => Ok(Some(SourceSpec::Http { server: server.to_string(), mirrors: Vec::new(), plain_http })),
        },
        (Some(text), _) | (_, Some(text)) => {
            let mut reference = Reference::parse(text).map_err(|e| match server {
                Some(_) => e.hint_instead("an HTTP server begins with http:// or https://"),
                None => e,
            })?;
            if let Some(tag) = tag {
                reference = reference.with_tag(tag)?;
            }
            Ok(Some(SourceSpec::Registry { reference, mirrors: Vec::new(), plain_http }))
        }
        (None, None) => Ok(None),
    }
}

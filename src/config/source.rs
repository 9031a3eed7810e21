//! The source in the file, and the typed one: what was typed is the whole source.

use crate::base::error::{Error, Kind, Result};
use crate::base::url::{Url, without_secrets};
use crate::cli::{Common, Flags};
use crate::config::lines::{REPEATED, Raw, in_line};
use crate::http::options::PlainHttp;
use crate::oci::reference::Reference;
use crate::source::spec::SourceSpec;
use std::path::{Path, PathBuf};

/// Takes the typed source, else the one in the file.
/// Errors: Usage: what was typed is invalid. Config: a line of the file is.
pub(super) fn source(
    raw: &Raw,
    flags: &Common,
    plain_http: PlainHttp,
    rooted: &dyn Fn(&str) -> PathBuf,
) -> Result<Option<SourceSpec>> {
    let Flags { server, registry, tag, layout, .. } = &flags.flags;
    let typed = [server.is_some(), registry.is_some(), layout.is_some()];
    if typed.iter().filter(|t| **t).count() > 1 {
        return Err(Error::new(Kind::Usage, "--server, --registry and --layout cannot be used together"));
    }
    let is_typed = typed.contains(&true);
    let mut found = match is_typed {
        true => {
            let option = if server.is_some() { "--server" } else { "--registry" };
            let layout = layout.as_deref().map(|path| (path, true));
            let found = spec(server.as_deref(), registry.as_deref(), layout, plain_http);
            // The file's URL is read when it is asked: until then it must not cost a machine its health check.
            let found = found.and_then(|found| match &found {
                Some(SourceSpec::Http { server, .. }) => Url::configured(server).map(|_| found),
                _ => Ok(found),
            });
            found.map_err(|e| as_usage(e).at("use", option))?
        }
        false => source_of_file(raw, plain_http, rooted)?,
    };
    match (tag, raw.value("tag").filter(|_| !is_typed)) {
        (Some(tag), _) => add_tag(found.as_mut(), tag).map_err(|e| e.at("use --tag", without_secrets(tag)))?,
        // The file's tag belongs to the file's source.
        (None, Some(tag)) => add_tag(found.as_mut(), tag).map_err(|e| raw.blame("tag", e))?,
        (None, None) => {}
    }
    for (mirror, line) in raw.values(REPEATED).filter(|_| !is_typed) {
        // A URL may hold a secret.
        add_mirror(found.as_mut(), mirror).map_err(|e| in_line(line, e.at("use mirror", without_secrets(mirror))))?;
    }
    Ok(found)
}

/// Replaces the source's own tag.
/// Errors: Usage: the tag is malformed, or the source takes none.
fn add_tag(source: Option<&mut SourceSpec>, text: &str) -> Result<()> {
    match source {
        Some(SourceSpec::Registry { reference, .. }) => return reference.set_tag(text),
        Some(SourceSpec::Layout { tag, .. }) => *tag = Some(text.to_owned()),
        Some(SourceSpec::Http { .. }) => {
            return Err(Error::new(Kind::Usage, "the source is an HTTP server, which has no tags"));
        }
        None => {}
    }
    Ok(())
}

/// Adds a mirror to the file's source; a typed source has no mirrors.
/// Errors: Config: the mirror is of another kind than the source, or there is no source.
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

fn source_of_file(raw: &Raw, plain_http: PlainHttp, rooted: &dyn Fn(&str) -> PathBuf) -> Result<Option<SourceSpec>> {
    let keys: Vec<&str> = ["server", "registry", "layout"].into_iter().filter(|k| raw.value(k).is_some()).collect();
    if keys.len() > 1 {
        let error = Error::new(Kind::Config, format!("`{}` cannot be used together", keys.join("` and `")));
        return Err(raw.blame(keys[1], error));
    }
    let layout = raw.value("layout").map(rooted);
    let layout = layout.as_deref().map(|path| (path, false));
    let found = spec(raw.value("server"), raw.value("registry"), layout, plain_http);
    found.map_err(|e| raw.blame(keys[0], e))
}

pub(super) fn as_usage(error: Error) -> Error {
    Error::new(Kind::Usage, error.to_string())
}

/// Input: `layout`: the path, and whether it was typed.
fn spec(
    server: Option<&str>,
    registry: Option<&str>,
    layout: Option<(&Path, bool)>,
    plain_http: PlainHttp,
) -> Result<Option<SourceSpec>> {
    if let Some((path, is_typed)) = layout {
        return Ok(Some(SourceSpec::Layout { path: path.to_path_buf(), tag: None, is_typed }));
    }
    let is_http = |text: &str| {
        let lower = text.to_ascii_lowercase();
        lower.starts_with("http://") || lower.starts_with("https://")
    };
    match (server, registry) {
        (Some(server), _) if is_http(server) => {
            Ok(Some(SourceSpec::Http { server: server.to_string(), mirrors: Vec::new(), plain_http }))
        }
        (Some(text), _) | (_, Some(text)) => {
            let reference = Reference::parse(text).map_err(|e| match server {
                Some(_) => e.hint_instead("an HTTP server begins with http:// or https://"),
                None => e,
            })?;
            Ok(Some(SourceSpec::Registry { reference, mirrors: Vec::new(), plain_http }))
        }
        (None, None) => Ok(None),
    }
}

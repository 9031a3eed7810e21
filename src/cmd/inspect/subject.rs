//! The arguments of `inspect`: where the artifact is, recognized by its spelling, and which machine it is judged for. Pure.
//!
//! Must never: guess where two readings are possible.

use crate::base::error::{Error, Kind, Result};
use crate::base::url::{Url, without_secrets};
use crate::cli::Flags;
use crate::oci::misspellings::is_misspelt_architecture;
use crate::oci::reference::Reference;
use crate::offer::gate::DEFAULT_CHANNEL;
use std::path::PathBuf;

/// Architectures of the machines.
pub const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
const TO_PULL: &str = "a reference is written as [oci://]HOST[:PORT]/REPOSITORY[:TAG], a server as https://HOST/DIR, a layout \
                       as the path of a directory, tar or tar.gz";

/// Stores the argument as the flag that states its kind explicitly.
/// Input: `is_there`: returns whether a path exists.
/// Errors: Usage: it has two possible readings, or none, or is malformed.
pub fn place(typed: &str, tag: Option<&str>, is_there: &dyn Fn(&str) -> bool) -> Result<Flags> {
    let bad = |why: &str, hint: &str| -> Result<Flags> {
        Err(Error::new(Kind::Usage, why).at("inspect", format_args!("'{}'", without_secrets(typed))).hint(hint))
    };
    // Checked here, or config would blame an option that was not typed.
    let malformed = |e: Error| Error::new(Kind::Usage, e.to_string());
    let registry = || Reference::parse(typed).map(|_| Some(typed.to_string())).map_err(malformed);
    let mut found = Flags { tag: tag.map(str::to_string), ..Flags::default() };
    let is_path = typed.starts_with(['/', '.']);
    let first = typed.split('/').next().unwrap_or_default();
    let is_host = typed.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let lower = typed.to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        Url::configured(typed).map_err(malformed)?;
        found.server = Some(typed.to_string());
    } else if typed.starts_with("oci://") {
        found.registry = registry()?;
    } else if typed.contains("://") {
        return bad("a URL of another kind than http, https and oci", TO_PULL);
    } else if is_there(typed) && is_host && !is_path {
        return bad("it is a file here, and may be a reference as well", "write ./ before it, or oci://");
    } else if is_there(typed) {
        found.layout = Some(PathBuf::from(typed));
    } else if has_tag_behind(typed, is_there) {
        return bad("there is no such file", "the tag of a layout is given with --tag");
    } else if is_path {
        found.layout = Some(PathBuf::from(typed));
    } else if is_host {
        found.registry = registry()?;
    } else {
        return bad("there is no such file, and it begins with no registry's host", TO_PULL);
    }
    Ok(found)
}

/// Returns whether a tag follows, as oras writes it, `LAYOUT:TAG`, or skopeo, `oci:LAYOUT:TAG`.
fn has_tag_behind(typed: &str, is_there: &dyn Fn(&str) -> bool) -> bool {
    let bare = ["oci:", "oci-archive:"].iter().find_map(|prefix| typed.strip_prefix(prefix)).unwrap_or(typed);
    bare != typed && is_there(bare) || bare.rsplit_once(':').is_some_and(|(path, _)| !path.is_empty() && is_there(path))
}

/// The machine to judge for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The version that runs there; any text, as on a machine.
    pub version: String,
    /// amd64 or arm64.
    pub architecture: String,
    /// Channel that it follows.
    pub channel: String,
}

impl Machine {
    /// Reads `VERSION/ARCH[/CHANNEL]`. Input: `channel`: from its `update.conf`, if any.
    /// Errors: Usage: another shape, or an architecture that no machine has.
    pub fn parse(text: &str, channel: Option<&str>) -> Result<Machine> {
        let bad = |why: String| Error::new(Kind::Usage, why).at("read --as", text).hint("such as 1.2.0/amd64/stable");
        let mut parts = text.splitn(3, '/');
        let version = parts.next().unwrap_or_default();
        let Some(architecture) = parts.next() else { return Err(bad("it names no architecture".into())) };
        let channel = parts.next().or(channel).unwrap_or(DEFAULT_CHANNEL);
        if version.is_empty() || version.len() > 128 || version.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(bad("the version is not 1 to 128 printable ASCII characters without blanks".into()));
        }
        if channel.is_empty() || channel.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(bad("the channel is not printable ASCII without blanks".into()));
        }
        if !ARCHITECTURES.contains(&architecture) {
            let hint = if is_misspelt_architecture(architecture) { ": write amd64 or arm64" } else { "" };
            return Err(bad(format!("'{architecture}' is neither amd64 nor arm64{hint}")));
        }
        Ok(Machine { version: version.into(), architecture: architecture.into(), channel: channel.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Argument, the part of it that exists, and what it is taken for.
    #[test]
    fn a_source_is_told_by_how_it_is_written() {
        for (typed, there, taken) in [
            ("https://updates.example.com/os", "", "server"),
            ("HTTP://10.0.0.1", "", "server"),
            // An existing file of that name is not a layout.
            ("http://x/y", "http://x/y", "server"),
            ("oci://registry.example.com/os:1.0", "", "registry"),
            ("oci://registry/os", "registry/os", "registry"),
            ("registry.example.com/os", "", "registry"),
            ("localhost/os:stable", "", "registry"),
            ("registry:5000/os", "", "registry"),
            ("[::1]:5000/os:v1", "", "registry"),
            ("[::1]:5000/os@sha256:00", "", "digest after @"),
            ("r.example/UPPER", "", "repository name is malformed"),
            ("http://", "", "host is missing"),
            ("/media/stick/os", "", "layout"),
            ("./ghcr.io/os", "", "layout"),
            ("..", "..", "layout"),
            ("os.tar.gz", "os.tar.gz", "layout"),
            ("dist/os", "dist/os", "layout"),
            ("./ghcr.io/os:1.0", "./ghcr.io/os:1.0", "layout"),
            ("os:1.tar", "os:1.tar", "layout"),
            // Two readings, or none.
            ("ghcr.io/acme/os", "ghcr.io/acme/os", "may be a reference as well"),
            ("dist/os", "", "begins with no registry's host"),
            ("os.tar", "", "begins with no registry's host"),
            ("", "", "begins with no registry's host"),
            ("-", "", "begins with no registry's host"),
            ("docker://ghcr.io/acme/os", "", "another kind than"),
            ("file:///media/os.tar", "/media/os.tar", "another kind than"),
            ("./os:stable", "./os", "given with --tag"),
            ("dist/os:stable", "dist/os", "given with --tag"),
            ("oci:dist/os:stable", "dist/os", "given with --tag"),
            ("oci-archive:os.tar", "os.tar", "given with --tag"),
        ] {
            let found = match place(typed, None, &|path| !path.is_empty() && path == there) {
                Ok(Flags { server: Some(text), .. }) if text == typed => "server".to_string(),
                Ok(Flags { registry: Some(text), .. }) if text == typed => "registry".to_string(),
                Ok(Flags { layout: Some(path), .. }) if path.as_os_str() == typed => "layout".to_string(),
                Ok(other) => format!("{other:?}"),
                Err(e) => {
                    assert_eq!(e.exit_code(), 2, "{typed}: {e}");
                    e.to_string()
                }
            };
            assert!(found.contains(taken), "{typed}: {found}");
        }
    }

    #[test]
    fn a_tag_belongs_to_a_registry_or_a_layout_and_secrets_are_not_shown() {
        assert_eq!(place("r.example/os", Some("x"), &|_| false).unwrap().tag.as_deref(), Some("x"));
        assert_eq!(place("./os", Some("x"), &|_| true).unwrap().tag.as_deref(), Some("x"));
        let e = place("https://ci:hunter2@:x/os", Some("x"), &|_| false).unwrap_err().to_string();
        assert!(e.contains("read URL") && !e.contains("hunter2"), "{e}");
        let e = place("ftp://ci:hunter2@u.example/os", None, &|_| false).unwrap_err().to_string();
        assert!(!e.contains("hunter2"), "{e}");
    }

    #[test]
    fn a_machine_is_spoken_of_in_one_way() {
        let parsed = |text, channel| Machine::parse(text, channel).map(|m| [m.version, m.architecture, m.channel]);
        for (text, channel, parts) in [
            ("1.2.0/amd64/beta", None, ["1.2.0", "amd64", "beta"]),
            ("1.2.0/arm64", None, ["1.2.0", "arm64", "stable"]),
            ("1.2.0/arm64", Some("lts"), ["1.2.0", "arm64", "lts"]),
            ("1.2.0/arm64/beta", Some("lts"), ["1.2.0", "arm64", "beta"]),
            ("v1.2.0-rc.1+b/amd64/a/b", None, ["v1.2.0-rc.1+b", "amd64", "a/b"]),
            // As an image builder wrote it: machines run such versions.
            ("2024.01/amd64", None, ["2024.01", "amd64", "stable"]),
        ] {
            assert_eq!(parsed(text, channel).unwrap(), parts.map(str::to_string), "{text}");
        }
        for (text, words) in [
            ("", "no architecture"),
            ("1.2.0", "no architecture"),
            ("/amd64/stable", "the version"),
            ("1 2/amd64", "the version"),
            ("1.2.0/", "neither amd64 nor arm64"),
            ("1.2.0/x86_64/stable", "write amd64 or arm64"),
            ("1.2.0/aarch64", "write amd64 or arm64"),
            ("amd64/1.2.0/stable", "'1.2.0' is neither"),
            ("1.2.0/riscv64/stable", "neither amd64 nor arm64"),
            ("1.2.0/amd64/", "the channel"),
            ("1.2.0/amd64/sta ble", "the channel"),
        ] {
            let e = parsed(text, None).unwrap_err();
            assert!(e.to_string().contains(words) && e.exit_code() == 2, "{text}: {e}");
        }
    }
}

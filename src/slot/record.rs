//! Slots A and B, and the record that makes one valid. Pure: bytes and structs only.
//!
//! Must never: treat a slot as valid without a complete record.

use crate::base::digest::Digest;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::Moment;
use miniserde::{Deserialize, Serialize, json};
use std::fmt;

/// File name of the kernel in a slot.
pub const KERNEL: &str = "vmlinuz";
/// File name of the initramfs in a slot.
pub const INITRAMFS: &str = "kubesolo-os.gz";
/// File name of the one-line version.
pub const VERSION: &str = "version";
/// File name of the record. Written last, removed first.
pub const RECORD: &str = "slot.json";
/// File name of the checksums with which GRUB checks kernel and initramfs, see [`digests`]. Removed with the record, written
/// before it.
pub const DIGESTS: &str = "slot.crc32";
/// Length of that file, in bytes: one sector; GRUB reads exactly this.
pub const DIGESTS_BYTES: usize = 512;
/// Longest record that is read, in bytes.
pub const RECORD_MAX_BYTES: u64 = 16 * 1024;

/// One of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// Partition `KSOLOA`.
    A,
    /// Partition `KSOLOB`.
    B,
}

impl Slot {
    /// Returns the other slot.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// Returns `A` or `B`.
    pub fn letter(self) -> char {
        match self {
            Slot::A => 'A',
            Slot::B => 'B',
        }
    }

    /// Returns `A` or `B`, as text.
    pub fn name(self) -> &'static str {
        match self {
            Slot::A => "A",
            Slot::B => "B",
        }
    }

    /// Returns the partition name and file-system label.
    pub const fn label(self) -> &'static str {
        match self {
            Slot::A => "KSOLOA",
            Slot::B => "KSOLOB",
        }
    }

    /// Reads `A` or `B`; anything else is `None`.
    pub fn parse(text: &str) -> Option<Slot> {
        match text {
            "A" => Some(Slot::A),
            "B" => Some(Slot::B),
            _ => None,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Length and digest of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the whole file.
    pub sha256: Digest,
}

/// Content of a slot, as in `slot.json`.
///
/// Power cut: absent from before the first byte of an update until the last is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Version as published.
    pub version: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// Channel; `stable` if the publisher named none.
    pub channel: String,
    /// Origin, as text for the operator.
    pub source: String,
    /// Identity of the artifact; `None` for a slot that the image builder filled.
    pub manifest_digest: Option<Digest>,
    /// Keys whose signatures were verified when it was staged.
    pub signed_by: Vec<Digest>,
    /// Digest of the index that named the manifest, if any.
    pub index_digest: Option<Digest>,
    /// Other documents on the way or parts of it: see [`crate::offer::artifact::Artifact::passed`]. Empty in records of older
    /// agents.
    pub passed: Vec<Digest>,
    /// Release date, if signed.
    pub release_date: Option<Moment>,
    /// The kernel.
    pub kernel: FileRecord,
    /// The initramfs.
    pub initramfs: FileRecord,
    /// The layers that it consists of, in order, where there are several and they are known: a later release may share some.
    pub layers: Vec<FileRecord>,
}

#[derive(Serialize, Deserialize)]
struct RawFile {
    size: Option<u64>,
    sha256: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RawRecord {
    version: Option<String>,
    architecture: Option<String>,
    channel: Option<String>,
    source: Option<String>,
    manifest_digest: Option<String>,
    signed_by: Option<Vec<String>>,
    index_digest: Option<String>,
    passed: Option<Vec<String>>,
    release_date: Option<String>,
    kernel: Option<RawFile>,
    initramfs: Option<RawFile>,
    layers: Option<Vec<RawFile>>,
}

impl Record {
    /// Reads `slot.json`.
    /// Input: UTF-8 JSON, at most [`RECORD_MAX_BYTES`].
    /// Errors: Slot: not JSON, or a field is missing or malformed; names the field.
    pub fn parse(bytes: &[u8]) -> Result<Record> {
        let bad = |why: &str| Error::new(Kind::Slot, format!("slot.json: {why}"));
        let text = std::str::from_utf8(bytes).map_err(|_| bad("is not UTF-8"))?;
        let raw: RawRecord = json::from_str(text).map_err(|_| bad("is not a JSON object of the right shape"))?;
        let field = |name: &str, value: Option<String>| match value {
            Some(v) if !v.is_empty() => Ok(v),
            _ => Err(bad(&format!("`{name}` is missing"))),
        };
        let digest = |name: &str, text: Option<String>| {
            let parsed = text.map(|text| Digest::parse(&text)).transpose();
            parsed.map_err(|e| bad(&format!("`{name}`: {e}")))
        };
        let digests = |name: &str, texts: Option<Vec<String>>| {
            Digest::parse_all(&texts.unwrap_or_default()).map_err(|e| bad(&format!("`{name}`: {e}")))
        };
        Ok(Record {
            version: field("version", raw.version)?,
            architecture: field("architecture", raw.architecture)?,
            channel: field("channel", raw.channel)?,
            source: raw.source.unwrap_or_default(),
            manifest_digest: digest("manifest_digest", raw.manifest_digest)?,
            signed_by: digests("signed_by", raw.signed_by)?,
            index_digest: digest("index_digest", raw.index_digest)?,
            passed: digests("passed", raw.passed)?,
            release_date: raw.release_date.and_then(|date| Moment::parse(&date).ok()),
            kernel: file("kernel", raw.kernel)?,
            initramfs: file("initramfs", raw.initramfs)?,
            layers: raw.layers.into_iter().flatten().map(|raw| file("layers", Some(raw))).collect::<Result<_>>()?,
        })
    }

    /// Returns every digest by which it may be revoked.
    pub fn digests(&self) -> Vec<Digest> {
        let mut digests = vec![self.kernel.sha256, self.initramfs.sha256];
        digests.extend(self.manifest_digest);
        digests.extend(self.index_digest);
        digests.extend(&self.passed);
        digests
    }

    /// Writes the record as one JSON line.
    pub fn encode(&self) -> String {
        let file = |f: &FileRecord| Some(RawFile { size: Some(f.size_bytes), sha256: Some(f.sha256.hex()) });
        let raw = RawRecord {
            version: Some(self.version.clone()),
            architecture: Some(self.architecture.clone()),
            channel: Some(self.channel.clone()),
            source: Some(self.source.clone()),
            manifest_digest: self.manifest_digest.map(|d| d.to_string()),
            signed_by: Some(Digest::texts(&self.signed_by)),
            index_digest: self.index_digest.map(|d| d.to_string()),
            passed: Some(Digest::texts(&self.passed)),
            release_date: self.release_date.map(|date| date.to_string()),
            kernel: file(&self.kernel),
            initramfs: file(&self.initramfs),
            layers: Some(self.layers.iter().filter_map(file).collect()),
        };
        let mut text = json::to_string(&raw);
        text.push('\n');
        text
    }

    /// Returns the files that the record covers, by name in the slot.
    pub fn files(&self) -> [(&'static str, &FileRecord); 2] {
        [(KERNEL, &self.kernel), (INITRAMFS, &self.initramfs)]
    }
}

/// Formats `slot.crc32`: a line for each file, as GRUB's `hashsum --check` reads it, with blanks before the first.
///
/// Input: the CRC-32 of the kernel, of the initramfs. The rule is fixed, since GRUB is never replaced on installed machines:
/// docs/decisions/0012.
pub fn digests(kernel: u32, initramfs: u32) -> String {
    let lines = format!("{initramfs:08x}  {INITRAMFS}\n{kernel:08x}  {KERNEL}\n");
    format!("{lines:>DIGESTS_BYTES$}")
}

fn file(name: &str, raw: Option<RawFile>) -> Result<FileRecord> {
    let bad = |why: &str| Error::new(Kind::Slot, format!("slot.json: `{name}` {why}"));
    let raw = raw.ok_or_else(|| bad("is missing"))?;
    let size_bytes = raw.size.filter(|s| *s > 0).ok_or_else(|| bad("has no size"))?;
    let sha256 = raw.sha256.ok_or_else(|| bad("has no sha256"))?;
    let sha256 = Digest::parse_hex(&sha256).map_err(|_| bad("has a sha256 that is not 64 hex digits"))?;
    Ok(FileRecord { size_bytes, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            version: "1.2.0".into(),
            architecture: "amd64".into(),
            channel: "stable".into(),
            source: "layout /mnt/stick".into(),
            manifest_digest: Some(Digest::of(b"m")),
            signed_by: vec![Digest::of(b"k")],
            index_digest: Some(Digest::of(b"i")),
            passed: vec![Digest::of(b"inner"), Digest::of(b"layer")],
            release_date: Moment::parse("2026-01-31T12:00:00Z").ok(),
            kernel: FileRecord { size_bytes: 6, sha256: Digest::of(b"kernel") },
            initramfs: FileRecord { size_bytes: 4, sha256: Digest::of(b"init") },
            layers: [b"in", b"it"].map(|layer| FileRecord { size_bytes: 2, sha256: Digest::of(layer) }).to_vec(),
        }
    }

    #[test]
    fn survives_a_round_trip() {
        let mut r = record();
        assert_eq!(Record::parse(r.encode().as_bytes()).unwrap(), r);
        r.manifest_digest = None;
        assert_eq!(Record::parse(r.encode().as_bytes()).unwrap(), r);
    }

    #[test]
    fn reads_what_another_writer_wrote() {
        // As `jq` prints it; future fields are ignored.
        let text = format!(
            "{{\n \"kernel\": {{\"size\": 6, \"sha256\": \"{0}\", \"x\": []}},\n \"future\": {{}},\n \"version\": \"1.0.0\", \
             \"architecture\": \"arm64\", \"channel\": \"edge\", \"initramfs\": {{\"sha256\": \"{0}\", \"size\": 1}}}}",
            Digest::of(b"kernel").hex()
        );
        let r = Record::parse(text.as_bytes()).unwrap();
        assert_eq!((r.version.as_str(), r.architecture.as_str(), r.kernel.size_bytes), ("1.0.0", "arm64", 6));
        assert!(r.passed.is_empty() && r.signed_by.is_empty() && r.layers.is_empty(), "an older agent kept none");
    }

    #[test]
    fn it_is_revoked_by_whatever_led_to_it_or_is_in_it() {
        let digests = record().digests();
        for one in [&b"m"[..], b"i", b"inner", b"layer", b"kernel", b"init"] {
            assert!(digests.contains(&Digest::of(one)), "{}", String::from_utf8_lossy(one));
        }
    }

    #[test]
    fn digests_fill_one_sector() {
        let text = digests(0xab, 0x89ab_cdef);
        assert_eq!(text.len(), DIGESTS_BYTES);
        assert_eq!(text.trim_start_matches(' '), "89abcdef  kubesolo-os.gz\n000000ab  vmlinuz\n");
    }

    #[test]
    fn every_cut_is_refused() {
        let text = record().encode();
        for end in 0..text.trim_end().len() {
            let e = Record::parse(&text.as_bytes()[..end]).unwrap_err();
            assert_eq!(e.exit_code(), 7, "cut at {end}");
        }
    }

    #[test]
    fn missing_fields_are_named() {
        for (from, to, word) in [
            ("\"version\":\"1.2.0\"", "\"version\":null", "version"),
            ("\"size\":6", "\"size\":0", "kernel"),
            ("\"architecture\":\"amd64\"", "\"architecture\":\"\"", "architecture"),
            ("\"manifest_digest\":\"sha256:", "\"manifest_digest\":\"sha1:", "manifest_digest"),
            ("\"passed\":[\"sha256:", "\"passed\":[\"sha1:", "passed"),
            ("\"layers\":[{\"size\":2", "\"layers\":[{\"size\":0", "layers"),
        ] {
            let text = record().encode();
            assert!(text.contains(from), "{from}");
            let e = Record::parse(text.replace(from, to).as_bytes()).unwrap_err().to_string();
            assert!(e.contains(word), "{e}");
        }
    }
}

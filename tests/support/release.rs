//! A version of the system, for both architectures, published the ways that people publish: by a real oras
//! into a registry or a layout, or as files beside a `latest.json`.

use super::disk::{architecture, initramfs_of, noise};
use super::registry::{CHUNKS_TYPE, INITRAMFS_TYPE, KERNEL_TYPE, oras};
use super::run;
use super::web::{Answer, Web};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sizes that are no multiple of anything.
const KERNEL_BYTES: usize = 1_500_007;
const INITRAMFS_BYTES: usize = 1_100_003;

/// One architecture's files.
#[derive(Clone)]
pub struct Pair {
    pub architecture: &'static str,
    pub kernel: Vec<u8>,
    pub initramfs: Vec<u8>,
    /// The initramfs's chunk index, if it has one; of its first layer, if there are two.
    pub chunks: Option<Vec<u8>>,
    /// In a registry or layout: length of the first of two layers; 0: it is one.
    pub first_layer: usize,
}

/// One version.
#[derive(Clone)]
pub struct Release {
    pub version: String,
    /// Added to every manifest, or put in place of what is there by default.
    pub annotations: Vec<(String, String)>,
    pub pairs: [Pair; 2],
}

/// SHA-256 as coreutils computes it.
pub fn sha256(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bytes");
    fs::write(&file, bytes).unwrap();
    run(Command::new("sha256sum").arg(&file)).split(' ').next().unwrap().to_string()
}

impl Release {
    /// Makes one whose bytes depend on version and architecture.
    pub fn new(version: &str) -> Release {
        let dir = tempfile::tempdir().unwrap();
        let pair = |architecture: &'static str| {
            let seed = version.bytes().chain(architecture.bytes()).fold(7u64, |h, b| h.wrapping_mul(31) ^ u64::from(b));
            let initramfs = initramfs_of(dir.path(), &noise(seed ^ 1, INITRAMFS_BYTES));
            Pair {
                architecture,
                kernel: super::disk::kernel_noise(seed, KERNEL_BYTES),
                initramfs,
                chunks: None,
                first_layer: 0,
            }
        };
        Release { version: version.into(), annotations: Vec::new(), pairs: [pair("amd64"), pair("arm64")] }
    }

    /// The same with another annotation.
    pub fn with(mut self, name: &str, value: &str) -> Release {
        self.annotations.push((name.into(), value.into()));
        self
    }

    /// What this machine should get.
    pub fn ours(&self) -> &Pair {
        self.pairs.iter().find(|p| p.architecture == architecture()).unwrap()
    }

    /// The same, to be spoilt.
    pub fn ours_mut(&mut self) -> &mut Pair {
        self.pairs.iter_mut().find(|p| p.architecture == architecture()).unwrap()
    }

    /// Pushes both architectures as `TAG-ARCH` and an index of them as TAG. Input: `target`: a repository, or a
    /// layout directory.
    /// Returns: the digest of this machine's manifest, as oras says it.
    pub fn publish(&self, dir: &Path, kind: Target, target: &str, tag: &str) -> String {
        let mut ours = String::new();
        for pair in &self.pairs {
            let digest = self.push(dir, kind, &format!("{target}:{tag}-{}", pair.architecture), pair);
            if pair.architecture == architecture() {
                ours = digest;
            }
        }
        let mut index = oras(dir);
        index.args(["manifest", "index", "create", kind.flag(), &format!("{target}:{tag}")]);
        run(index.args([format!("{tag}-amd64"), format!("{tag}-arm64")]));
        ours
    }

    /// Pushes one architecture. Returns: the manifest's digest.
    pub fn push(&self, dir: &Path, kind: Target, target: &str, pair: &Pair) -> String {
        let files = dir.join(format!("push-{}-{}", self.version, pair.architecture));
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join("vmlinuz"), &pair.kernel).unwrap();
        let (first, rest) = match pair.first_layer {
            0 => (&pair.initramfs[..], &[][..]),
            length => pair.initramfs.split_at(length),
        };
        fs::write(files.join("kubesolo-os.gz"), first).unwrap();
        let mut annotations = vec![
            ("org.opencontainers.image.created".to_string(), "2026-01-01T00:00:00Z".to_string()),
            ("io.kubesolo.os.version".into(), self.version.clone()),
            ("io.kubesolo.os.channel".into(), "stable".into()),
            ("io.kubesolo.os.architecture".into(), pair.architecture.into()),
        ];
        if !rest.is_empty() {
            annotations.push(("io.kubesolo.os.initramfs_digest".into(), format!("sha256:{}", sha256(&pair.initramfs))));
        }
        for (name, value) in &self.annotations {
            annotations.retain(|(n, _)| n != name);
            annotations.push((name.clone(), value.clone()));
        }
        let mut push = oras(dir);
        push.current_dir(&files).args(["push", kind.flag(), "--artifact-type"]);
        push.args(["application/vnd.kubesolo.os.update.v1", "--artifact-platform"]);
        push.arg(format!("linux/{}", pair.architecture));
        for (name, value) in annotations {
            push.arg("-a").arg(format!("{name}={value}"));
        }
        push.arg(target).arg(format!("vmlinuz:{KERNEL_TYPE}")).arg(format!("kubesolo-os.gz:{INITRAMFS_TYPE}"));
        if let Some(chunks) = &pair.chunks {
            fs::write(files.join("kubesolo-os.gz.chunks"), chunks).unwrap();
            push.arg(format!("kubesolo-os.gz.chunks:{CHUNKS_TYPE}"));
        }
        if !rest.is_empty() {
            fs::write(files.join("more.gz"), rest).unwrap();
            push.arg(format!("more.gz:{INITRAMFS_TYPE}"));
        }
        let said = run(&mut push);
        said.lines().find_map(|l| l.strip_prefix("Digest: ")).expect("oras names the digest").trim().to_string()
    }

    /// `latest.json` with both architectures; files lie at `/ARCH/vmlinuz` and `/ARCH/kubesolo-os.gz`.
    pub fn latest_json(&self) -> String {
        let file = |p: &Pair, name: &str, bytes: &[u8]| {
            let url = format!("{}/{name}", p.architecture);
            format!("{{\"url\":\"{url}\",\"sha256\":\"{}\",\"size\":{}}}", sha256(bytes), bytes.len())
        };
        let entries = self.pairs.each_ref().map(|p| {
            let (kernel, mut initramfs) = (file(p, "vmlinuz", &p.kernel), file(p, "kubesolo-os.gz", &p.initramfs));
            if let Some(chunks) = &p.chunks {
                let chunks = file(p, "kubesolo-os.gz.chunks", chunks);
                initramfs.truncate(initramfs.len() - 1);
                initramfs.push_str(&format!(",\"chunks\":{chunks}}}"));
            }
            format!("{{\"architecture\":\"{}\",\"kernel\":{kernel},\"initramfs\":{initramfs}}}", p.architecture)
        });
        format!("{{\"version\":\"{}\",\"channel\":\"stable\",\"artifacts\":[{}]}}", self.version, entries.join(","))
    }

    /// Bytes of a file by its path on the server.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        let pair = self.pairs.iter().find(|p| path.starts_with(&format!("/{}/", p.architecture)))?;
        match path.rsplit('/').next()? {
            "vmlinuz" => Some(pair.kernel.clone()),
            "kubesolo-os.gz" => Some(pair.initramfs.clone()),
            "kubesolo-os.gz.chunks" => pair.chunks.clone(),
            _ => None,
        }
    }

    /// Serves it over HTTP.
    pub fn serve(&self) -> Web {
        let (release, document) = (self.clone(), self.latest_json());
        Web::start(move |path| match path {
            "/latest.json" => Answer::ok(document.clone()),
            _ => release.file(path).map_or(Answer::status(404), Answer::ok),
        })
    }
}

/// Where oras pushes to.
#[derive(Clone, Copy)]
pub enum Target {
    /// A registry over plain HTTP.
    Registry,
    /// An OCI layout directory.
    Layout,
}

impl Target {
    pub fn flag(self) -> &'static str {
        match self {
            Target::Registry => "--plain-http",
            Target::Layout => "--oci-layout",
        }
    }
}

/// An OCI layout on a "medium": a directory that a real oras wrote.
pub struct Medium {
    pub dir: PathBuf,
    /// Digest of this machine's manifest.
    pub digest: String,
}

impl Medium {
    /// Publishes a release to a new layout below `dir`, as the tag `latest`.
    pub fn new(dir: &Path, release: &Release) -> Medium {
        let layout = dir.join(format!("layout-{}", release.version));
        let digest = release.publish(dir, Target::Layout, layout.to_str().unwrap(), "latest");
        Medium { dir: layout, digest }
    }

    /// The path as an argument.
    pub fn path(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    /// Path of the blob that holds these bytes. Panics: there is none.
    pub fn blob(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.join("blobs/sha256").join(sha256(bytes));
        assert!(path.is_file(), "{} is missing", path.display());
        path
    }
}

//! Keys and signatures as publishers make them: with openssl, `scripts/sign.sh` and a real cosign; and wrong ones.

use super::registry::oras;
use super::release::{Target, sha256};
use super::{command, run};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A script of this repository. Input: `home`: where it runs, and where oras looks for credentials.
pub fn script(home: &Path, name: &str) -> Command {
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
    script.env("HOME", home).env("DOCKER_CONFIG", home).current_dir(home);
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        script.env_remove(proxy);
    }
    let tools = super::find("oras").and_then(|oras| Some(oras.parent()?.to_path_buf()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::env::split_paths(&path).chain(tools)).unwrap();
    script.env("PATH", path);
    script
}

/// A key pair in two files, made by openssl.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// PKCS#8 in PEM.
    pub private: PathBuf,
    /// SubjectPublicKeyInfo in PEM.
    pub public: PathBuf,
    is_ed25519: bool,
}

impl KeyPair {
    /// Makes an ECDSA P-256 key pair, `NAME.key` and `NAME.pub`.
    pub fn p256(dir: &Path, name: &str) -> KeyPair {
        KeyPair::of(dir, name, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
    }

    /// Makes an Ed25519 key pair.
    pub fn ed25519(dir: &Path, name: &str) -> KeyPair {
        KeyPair::of(dir, name, &["-algorithm", "ed25519"])
    }

    /// Makes one of any kind. Input: what `openssl genpkey` takes.
    pub fn of(dir: &Path, name: &str, options: &[&str]) -> KeyPair {
        let (private, public) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.pub")));
        run(command("openssl").arg("genpkey").args(options).arg("-out").arg(&private));
        run(command("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public));
        KeyPair { private, public, is_ed25519: options.contains(&"ed25519") }
    }

    /// The public key's file.
    pub fn pem(&self) -> Vec<u8> {
        fs::read(&self.public).unwrap()
    }

    fn der(&self) -> Vec<u8> {
        let out = command("openssl").args(["pkey", "-pubin", "-outform", "DER", "-in"]).arg(&self.public).output();
        out.unwrap().stdout
    }

    /// `sha256:HEX` of its SubjectPublicKeyInfo: what the agent calls it.
    pub fn fingerprint(&self) -> String {
        format!("sha256:{}", sha256(&self.der()))
    }

    /// What a bundle says about who signed it.
    pub fn hint(&self) -> String {
        let dir = tempfile::tempdir().unwrap();
        let (der, hash) = (dir.path().join("der"), dir.path().join("hash"));
        fs::write(&der, self.der()).unwrap();
        run(command("openssl").args(["dgst", "-sha256", "-binary", "-out"]).arg(&hash).arg(&der));
        base64(&fs::read(hash).unwrap())
    }

    /// Signs as the agent wants it: pure Ed25519, or ECDSA over SHA-256 in DER.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("message");
        fs::write(&file, message).unwrap();
        let mut sign = command("openssl");
        match self.is_ed25519 {
            true => sign.args(["pkeyutl", "-sign", "-rawin", "-inkey"]).arg(&self.private).arg("-in").arg(&file),
            false => sign.args(["dgst", "-sha256", "-sign"]).arg(&self.private).arg(&file),
        };
        let out = sign.output().unwrap();
        assert!(out.status.success(), "{sign:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    /// Whether openssl finds this key's signature good.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let (file, signature_file) = (dir.path().join("message"), dir.path().join("signature"));
        fs::write(&file, message).unwrap();
        fs::write(&signature_file, signature).unwrap();
        let mut verify = command("openssl");
        // `openssl dgst` would read the first 72 bytes of a signature only.
        verify.args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"]).arg(&self.public);
        if !self.is_ed25519 {
            verify.args(["-digest", "sha256"]);
        }
        verify.arg("-in").arg(&file).arg("-sigfile").arg(&signature_file);
        verify.output().unwrap().status.success()
    }
}

/// What `scripts/sign.sh` is to sign.
#[derive(Clone, Copy)]
pub enum Signed<'a> {
    /// `HOST/REPO:TAG` or `HOST/REPO@DIGEST`, over plain HTTP.
    Registry(&'a str),
    /// `DIR` or `DIR:TAG`.
    Layout(&'a str),
    /// A `latest.json`.
    Latest(&'a Path),
}

/// A `scripts/sign.sh` that is still to be run, in the directory of the first key.
pub fn sign_command(keys: &[&KeyPair], what: Signed) -> Command {
    let mut sign = script(keys[0].private.parent().unwrap(), "sign.sh");
    for key in keys {
        sign.arg("--key").arg(&key.private);
    }
    match what {
        Signed::Registry(reference) => sign.args(["--plain-http", reference]),
        Signed::Layout(layout) => sign.args(["--layout", layout]),
        Signed::Latest(file) => sign.arg("--latest").arg(file),
    };
    sign
}

/// Signs with `scripts/sign.sh`. Returns: what it prints.
pub fn sign(keys: &[&KeyPair], what: Signed) -> String {
    run(&mut sign_command(keys, what))
}

/// A cosign that keeps everything in `dir`, and whose way out is closed: what it would like from the internet fails at
/// once, and it goes on.
pub fn cosign(dir: &Path) -> Command {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut cosign = command("cosign");
    cosign.current_dir(dir).env("HOME", dir).env("DOCKER_CONFIG", dir).env("COSIGN_PASSWORD", "");
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY"] {
        cosign.env(proxy, format!("http://{closed}")).env_remove(proxy.to_lowercase());
    }
    cosign.env("NO_PROXY", "127.0.0.1").env_remove("no_proxy");
    cosign
}

/// Signs with a real cosign. Input: `reference`: `HOST/REPO@DIGEST`, plain HTTP.
pub fn cosign_sign(dir: &Path, key: &KeyPair, reference: &str) {
    let own = tempfile::tempdir_in(dir).unwrap();
    run(cosign(own.path()).args(["import-key-pair", "--yes", "--output-key-prefix", "k", "--key"]).arg(&key.private));
    run(cosign(own.path()).args(["signing-config", "create", "--out", "config.json"]));
    let mut sign = cosign(own.path());
    sign.args(["sign", "--yes", "--key", "k.key", "--signing-config", "config.json"]);
    run(sign.args(["--allow-http-registry", reference]));
}

/// Verifies with a real cosign. Returns: how it ended.
pub fn cosign_verify(dir: &Path, key: &KeyPair, reference: &str) -> Output {
    let mut verify = cosign(dir);
    verify.args(["verify", "--insecure-ignore-tlog=true", "--allow-http-registry", "--key"]).arg(&key.public);
    verify.arg(reference).output().unwrap()
}

/// Base64 as coreutils writes it, in one line.
pub fn base64(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bytes");
    fs::write(&file, bytes).unwrap();
    run(Command::new("base64").args(["-w", "0"]).arg(&file))
}

/// The bytes that base64 stands for, as coreutils reads it.
pub fn unbase64(text: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text");
    fs::write(&file, text).unwrap();
    let out = Command::new("base64").arg("-d").arg(&file).output().unwrap();
    assert!(out.status.success(), "not base64: {text}");
    out.stdout
}

/// What a DSSE signature is over. Source: DSSE v1, `protocol.md`, "Signature Definition".
pub fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Makes any bundle: what is good unless a test says otherwise.
#[derive(Clone)]
pub struct Forge<'a> {
    pub media_type: String,
    pub payload_type: String,
    pub statement: String,
    /// `None`: it does not say who signed.
    pub hint: Option<String>,
    /// Who signs, in this order.
    pub keys: Vec<&'a KeyPair>,
}

impl<'a> Forge<'a> {
    /// A good one. Input: `digest`: `sha256:HEX` of what is signed.
    pub fn new(digest: &str, keys: &[&'a KeyPair]) -> Forge<'a> {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{hex}"}},"annotations":{{}}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{{}}}}"#
        );
        Forge {
            media_type: BUNDLE_TYPE.into(),
            payload_type: PAYLOAD_TYPE.into(),
            statement,
            hint: keys.first().map(|key| key.hint()),
            keys: keys.to_vec(),
        }
    }

    /// The same with something else in the statement. Panics: it is not there.
    pub fn edit(mut self, from: &str, to: &str) -> Forge<'a> {
        assert!(self.statement.contains(from), "{from}");
        self.statement = self.statement.replace(from, to);
        self
    }

    /// Signs it all and writes the JSON.
    pub fn bundle(&self) -> String {
        let message = pre_authentication(&self.payload_type, self.statement.as_bytes());
        let signatures: Vec<String> =
            self.keys.iter().map(|key| format!(r#"{{"sig":"{}"}}"#, base64(&key.sign(&message)))).collect();
        let hint = self.hint.as_ref().map_or(String::new(), |hint| format!(r#""publicKey":{{"hint":"{hint}"}}"#));
        format!(
            r#"{{"mediaType":"{}","verificationMaterial":{{{hint}}},"dsseEnvelope":{{"payload":"{}","payloadType":"{}","signatures":[{}]}}}}"#,
            self.media_type,
            base64(self.statement.as_bytes()),
            self.payload_type,
            signatures.join(",")
        )
    }
}

/// Attaches any bytes as a bundle, with a real oras. Input: `reference`: `REPO@DIGEST`, or `LAYOUT@DIGEST`.
pub fn attach(home: &Path, kind: Target, reference: &str, bundle: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bundle.json"), bundle).unwrap();
    let reference = match kind {
        Target::Registry => reference.to_string(),
        Target::Layout => home.join(reference).display().to_string(),
    };
    let mut attach = oras(home);
    attach.current_dir(dir.path()).args(["attach", kind_flag(kind), "--artifact-type", BUNDLE_TYPE, &reference]);
    run(attach.arg(format!("bundle.json:{BUNDLE_TYPE}")));
}

fn kind_flag(kind: Target) -> &'static str {
    match kind {
        Target::Registry => "--plain-http",
        Target::Layout => "--oci-layout",
    }
}

/// The bundles attached to something, and the manifests around them, as a real oras finds them.
pub fn attached(home: &Path, kind: Target, reference: &str) -> Vec<(String, String)> {
    let (repository, _) = reference.split_once('@').expect("a reference with a digest");
    let fetch = |args: &[&str]| run(oras(home).args(args).arg(kind_flag(kind)));
    let found = fetch(&["discover", "--format", "json", "--depth", "1", reference]);
    // ferro-oci-server 1.0.0 lists a manifest twice once it has a tag of its own (measured: `oras tag`).
    let digests = super::root::jq(&found, "[.referrers[]?.digest] | unique | .[]");
    let bundle = |digest: &str| {
        let manifest = fetch(&["manifest", "fetch", &format!("{repository}@{digest}")]);
        let layer = super::root::jq(&manifest, ".layers[0].digest");
        (manifest, fetch(&["blob", "fetch", "--output", "-", &format!("{repository}@{layer}")]))
    };
    digests.lines().map(bundle).collect()
}

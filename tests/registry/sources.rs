//! Sources against real programs: docker-registry, oras, openssl; and a server that misbehaves.

use crate::support::registry::{Ca, Files, Guard, INITRAMFS_TYPE, KERNEL_TYPE, Registry, oras};
use crate::support::web::{Answer, Web};
use crate::support::{command, need, run};
use kubesolo_update::parts::base::clock::Now;
use kubesolo_update::parts::base::digest::Digest;
use kubesolo_update::parts::base::error::{Error, Kind};
use kubesolo_update::parts::config::SignaturePolicy;
use kubesolo_update::parts::http::tls::Pem;
use kubesolo_update::parts::http::{Client, HttpOptions, PlainHttp};
use kubesolo_update::parts::oci::reference::Reference;
use kubesolo_update::parts::offer::artifact::Artifact;
use kubesolo_update::parts::os::system::System;
use kubesolo_update::parts::source::Source;
use kubesolo_update::parts::source::spec::{SourceSpec, open_source};
use kubesolo_update::parts::trust::keyring::Keyring;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const P256: [&str; 3] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// One try for everything: what is wrong here does not pass.
fn options() -> HttpOptions {
    HttpOptions { tries: 1, ..HttpOptions::new(&System::new("/nonexistent")) }
}

fn open(spec: SourceSpec, options: HttpOptions) -> Box<dyn Source> {
    // A machine without keys that has chosen to go without.
    let ring = Keyring::load(Path::new("/nonexistent"), SignaturePolicy::Off, 1).unwrap();
    open_source(spec, &Client::new(options).unwrap(), ring).unwrap()
}

fn registry_source(reference: &str, plain_http: PlainHttp, options: HttpOptions) -> Box<dyn Source> {
    let reference = Reference::parse(reference).unwrap();
    open(SourceSpec::Registry { reference, mirrors: Vec::new(), plain_http }, options)
}

fn plain(reference: &str) -> Box<dyn Source> {
    registry_source(reference, PlainHttp::Auto, options())
}

fn http(server: &str) -> Box<dyn Source> {
    open(SourceSpec::Http { server: server.to_owned(), mirrors: Vec::new(), plain_http: PlainHttp::Auto }, options())
}

fn layout(path: &Path, tag: Option<&str>) -> Box<dyn Source> {
    open(SourceSpec::Layout { path: path.to_owned(), tag: tag.map(str::to_owned), is_typed: false }, options())
}

/// Opens both files and holds the bytes against what was published.
fn check_files(source: &mut dyn Source, artifact: &Artifact, files: &Files) {
    for (file, want) in [(&artifact.kernel, &files.kernel), (&artifact.initramfs, &files.initramfs)] {
        let mut bytes = Vec::new();
        source.probe(file).unwrap();
        source.open(file, 0..file.size_bytes, Instant::now()).unwrap().reader.read_to_end(&mut bytes).unwrap();
        assert!(&bytes == want, "{} bytes of {}", bytes.len(), want.len());
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (file.sha256, file.size_bytes));
    }
}

fn check_metadata(artifact: &Artifact, architecture: &str) {
    assert_eq!(
        (artifact.release.version.as_str(), artifact.release.architecture.as_deref()),
        ("1.2.0", Some(architecture))
    );
    assert_eq!((artifact.release.channel.as_deref(), artifact.release.expires.as_deref()), (Some("stable"), None));
    assert_eq!(artifact.release.min_compatible_version.as_deref(), Some("1.0.0"));
    assert_eq!(artifact.release.release_notes.as_deref(), Some("first\nsecond"));
}

fn refused(result: Result<Artifact, Error>, kind: Kind, word: &str) {
    let e = result.expect_err(word);
    assert!(e.kind() == kind && e.to_string().contains(word), "wanted {kind:?} with '{word}', got {:?}: {e}", e.kind());
}

/// Pushes both architectures as `v1-ARCH` and an index of them as `v1`.
fn publish(dir: &Path, repository: &str, with_platform: bool) -> [Files; 2] {
    let files = [Files::new(dir, "amd64"), Files::new(dir, "arm64")];
    for f in &files {
        let mut push = oras(dir);
        push.args(["push", "--plain-http"]);
        f.push(push, &format!("{repository}:v1-{}", f.architecture), with_platform);
    }
    let mut index = oras(dir);
    index.args(["manifest", "index", "create", "--plain-http"]).arg(format!("{repository}:v1"));
    run(index.args(["v1-amd64", "v1-arm64"]));
    files
}

#[apply(test)]
fn a_registry_serves_an_index_and_manifests() {
    need("docker-registry");
    need("oras");
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), None);
    let repository = format!("{}/kubesolo/os", registry.host());
    let files = publish(dir.path(), &repository, true);
    for f in &files {
        let mut source = plain(&format!("{repository}:v1"));
        let before = registry.log().len();
        let artifact = source.resolve(f.architecture).unwrap();
        check_metadata(&artifact, f.architecture);
        assert_eq!(artifact.source, format!("registry {repository}:v1"));
        assert!(!registry.log()[before..].contains("/blobs/"), "resolving downloaded a blob");
        check_files(source.as_mut(), &artifact, f);
        assert!(registry.log()[before..].contains("/blobs/"), "the log does not show what it should");

        let index = artifact.index_digest.unwrap();
        assert_ne!(index, artifact.digest);
        // The same thing by digest: the index, and the manifest itself.
        let by_index = plain(&format!("{repository}@{index}")).resolve(f.architecture).unwrap();
        assert_eq!((by_index.digest, by_index.index_digest), (artifact.digest, Some(index)));
        let direct = plain(&format!("{repository}@{}", artifact.digest)).resolve(f.architecture).unwrap();
        assert_eq!((direct.digest, direct.index_digest), (artifact.digest, None));
    }
    refused(plain(&format!("{repository}:v1")).resolve("riscv64"), Kind::Gate, "linux/amd64, linux/arm64");
    // A manifest for another architecture is reported as what it is.
    let other = plain(&format!("{repository}:v1-arm64")).resolve("amd64").unwrap();
    assert_eq!(other.release.architecture.as_deref(), Some("arm64"));
    refused(plain(&format!("{repository}:nope")).resolve("amd64"), Kind::Network, "have this tag?");
    refused(plain(&format!("{repository}:nope")).resolve("amd64"), Kind::Network, "MANIFEST_UNKNOWN");
    let absent = Digest::of(b"absent");
    refused(plain(&format!("{repository}@{absent}")).resolve("amd64"), Kind::Network, "404");
}

#[apply(test)]
fn an_index_without_platforms_is_looked_into() {
    need("docker-registry");
    need("oras");
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), None);
    let repository = format!("{}/os", registry.host());
    for f in &publish(dir.path(), &repository, false) {
        let mut source = plain(&format!("{repository}:v1"));
        let artifact = source.resolve(f.architecture).unwrap();
        check_metadata(&artifact, f.architecture);
        check_files(source.as_mut(), &artifact, f);
    }
    refused(plain(&format!("{repository}:v1")).resolve("riscv64"), Kind::Gate, "linux/amd64, linux/arm64");
}

#[apply(test)]
fn a_registry_over_tls_needs_the_right_ca_name_and_time() {
    need("docker-registry");
    need("oras");
    need("openssl");
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (Ca::new(dir.path(), "ca"), Ca::new(dir.path(), "other"));
    let registry = Registry::start(dir.path(), Some(&ca.issue("server", "IP:127.0.0.1", &P256)));
    let reference = format!("{}/os:v1", registry.host());
    let files = Files::new(dir.path(), "amd64");
    let mut push = oras(dir.path());
    push.arg("push").arg("--ca-file").arg(&ca.certificate);
    files.push(push, &reference, true);

    let trusting = |ca: &Ca| HttpOptions { ca: Some(Pem::File(ca.certificate.clone())), ..options() };
    let tls = |reference: &str, options| registry_source(reference, PlainHttp::No, options);
    let mut source = tls(&reference, trusting(&ca));
    let artifact = source.resolve("amd64").unwrap();
    check_files(source.as_mut(), &artifact, &files);
    let candidates = vec![dir.path().join("absent"), ca.certificate.clone()];
    assert!(tls(&reference, HttpOptions { ca_candidates: candidates, ..options() }).resolve("amd64").is_ok());

    refused(tls(&reference, trusting(&other)).resolve("amd64"), Kind::Network, "set ca_file to the CA");
    refused(tls(&reference, options()).resolve("amd64"), Kind::Config, "set ca_file");
    let by_name = reference.replace("127.0.0.1", "localhost");
    refused(tls(&by_name, trusting(&ca)).resolve("amd64"), Kind::Network, "use the name that stands");
    // Without a clock battery it is 1970, and the certificate is not valid yet: unless a later time is known.
    let now = (options().now)().earliest_secs();
    let early =
        |floor: u64| HttpOptions { now: Arc::new(|| Now::new(1000, 0)), clock_floor_secs: floor, ..trusting(&ca) };
    refused(tls(&reference, early(0)).resolve("amd64"), Kind::Network, "check this machine's clock");
    assert!(tls(&reference, early(now)).resolve("amd64").is_ok());
    let late = now + 40 * 86400;
    refused(tls(&reference, early(late)).resolve("amd64"), Kind::Network, "check this machine's clock");
    // Plain HTTP to a TLS port, and TLS to a plain port.
    refused(plain(&reference).resolve("amd64"), Kind::Network, "400");
    let plain_registry = Registry::start(dir.path(), None);
    let reference = format!("{}/os:v1", plain_registry.host());
    refused(tls(&reference, trusting(&ca)).resolve("amd64"), Kind::Network, "does this port speak TLS?");
}

#[apply(test)]
fn tls_1_2_with_an_rsa_key_and_p_384_works_and_older_does_not() {
    need("openssl");
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let certificate = ca.issue("server", "IP:127.0.0.1", &["rsa:2048"]);
    std::fs::write(dir.path().join("latest.json"), latest_json(&Files::new(dir.path(), "amd64"), "files-amd64/"))
        .unwrap();
    for (args, word) in [
        (&["-tls1_2", "-groups", "P-384"][..], None),
        (&["-tls1_3", "-groups", "P-384", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], None),
        // Left out on purpose: docs/decisions/0001.
        (&["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], Some("handshake failure")),
        (&["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], None),
        // As above: 0015. P-256 is there wherever TLS 1.3 is kept to.
        (&["-tls1_3", "-groups", "X25519"], Some("handshake failure")),
        (&["-tls1_3", "-groups", "X25519:P-256"], None),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"], None),
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256"], Some("TLS")),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], Some("TLS")),
    ] {
        let mut server = command("openssl");
        server.args(["s_server", "-WWW", "-accept", "127.0.0.1:0", "-cert"]).arg(&certificate.certificate);
        server.arg("-key").arg(&certificate.key).args(args).current_dir(dir.path());
        let mut server =
            Guard(server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
        let address = lines.find_map(|l| l.unwrap().strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
        let spec =
            SourceSpec::Http { server: format!("https://{address}/"), mirrors: Vec::new(), plain_http: PlainHttp::No };
        let got = open(spec, HttpOptions { ca: Some(Pem::File(ca.certificate.clone())), ..options() }).resolve("amd64");
        match word {
            None => assert_eq!(got.unwrap().release.version, "1.2.0"),
            Some(word) => refused(got, Kind::Network, word),
        }
    }
}

#[apply(test)]
fn layouts_made_by_oras_are_read() {
    need("docker-registry");
    need("oras");
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), None);
    let repository = format!("{}/os", registry.host());
    let files = publish(dir.path(), &repository, true);
    let copied = dir.path().join("copied");
    let mut copy = oras(dir.path());
    copy.args(["copy", "--from-plain-http", "--to-oci-layout"]).arg(format!("{repository}:v1"));
    run(copy.arg(format!("{}:v1", copied.display())));
    for f in &files {
        let from_registry = plain(&format!("{repository}:v1")).resolve(f.architecture).unwrap();
        let mut source = layout(&copied, None);
        let artifact = source.resolve(f.architecture).unwrap();
        check_metadata(&artifact, f.architecture);
        check_files(source.as_mut(), &artifact, f);
        assert_eq!((artifact.digest, artifact.index_digest), (from_registry.digest, from_registry.index_digest));
        assert_eq!(layout(&copied, Some("v1")).resolve(f.architecture).unwrap().digest, artifact.digest);
    }
    refused(layout(&copied, Some("v2")).resolve("amd64"), Kind::Config, "it has: v1");
    refused(layout(&copied, None).resolve("riscv64"), Kind::Gate, "linux/arm64");

    let pushed = dir.path().join("pushed");
    for f in &files {
        let mut push = oras(dir.path());
        push.args(["push", "--oci-layout"]);
        f.push(push, &format!("{}:v1-{}", pushed.display(), f.architecture), false);
    }
    refused(layout(&pushed, None).resolve("amd64"), Kind::Config, "v1-amd64, v1-arm64");
    let artifact = layout(&pushed, Some("v1-arm64")).resolve("arm64").unwrap();
    check_files(layout(&pushed, Some("v1-arm64")).as_mut(), &artifact, &files[1]);
    refused(layout(dir.path(), None).resolve("amd64"), Kind::Source, "is this the directory");
}

fn latest_json(files: &Files, prefix: &str) -> String {
    let file = |name: &str, bytes: &[u8]| {
        format!(r#"{{"url":"{prefix}{name}","sha256":"{}","size":{}}}"#, Digest::of(bytes).hex(), bytes.len())
    };
    format!(
        r#"{{"version":"1.2.0","channel":"stable","architecture":"{}","min_compatible_version":"1.0.0","release_notes":"first\nsecond","kernel":{},"initramfs":{}}}"#,
        files.architecture,
        file("vmlinuz", &files.kernel),
        file("kubesolo-os.gz", &files.initramfs)
    )
}

#[apply(test)]
fn a_web_server_serves_latest_json_and_what_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(dir.path(), "amd64");
    let (json, kernel, initramfs) = (latest_json(&files, "v1/"), files.kernel.clone(), files.initramfs.clone());
    let web = Web::start(move |path| match path {
        // The directory has moved: relative URLs count from where the document was found.
        "/old/latest.json" => Answer::status(301).header("Location", "/os/stable/latest.json"),
        "/os/stable/latest.json" => Answer::ok(json.clone()),
        "/os/stable/v1/vmlinuz" => Answer::ok(kernel.clone()),
        "/os/stable/v1/kubesolo-os.gz" => Answer::status(302).header("Location", "/cdn?token=1"),
        "/cdn?token=1" => Answer::ok(initramfs.clone()),
        _ => Answer::status(404),
    });
    for server in [web.url("/old"), web.url("/os/stable/")] {
        let mut source = http(&server);
        let artifact = source.resolve("amd64").unwrap();
        check_metadata(&artifact, "amd64");
        check_files(source.as_mut(), &artifact, &files);
        assert_eq!(artifact.source, format!("http {}/latest.json", server.trim_end_matches('/')));
    }
    refused(http(&web.url("/none")).resolve("amd64"), Kind::Network, "is the path right?");
    let seen = web.seen();
    let plain_get = |line: &String| line.starts_with("GET ") || (line.starts_with("HEAD ") && !line.contains("json"));
    assert!(seen.iter().all(plain_get), "{seen:?}");
    let spec =
        SourceSpec::Http { server: "http://192.0.2.1/".to_owned(), mirrors: Vec::new(), plain_http: PlainHttp::Auto };
    refused(open(spec, options()).resolve("amd64"), Kind::Config, "plain_http = yes");
}

#[apply(test)]
fn a_web_server_that_sends_something_else_is_caught() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(dir.path(), "amd64");
    let json = latest_json(&files, "");
    let web = Web::start(move |path| match path {
        "/latest.json" => Answer::ok(json.clone()),
        "/vmlinuz" => Answer::ok("short"),
        "/big/latest.json" => Answer::ok(vec![b' '; (4 << 20) + 1]),
        _ => Answer::ok("{"),
    });
    let mut source = http(&web.url(""));
    let artifact = source.resolve("amd64").unwrap();
    let e = source.open(&artifact.kernel, 0..artifact.kernel.size_bytes, Instant::now()).err().unwrap();
    assert!(e.kind() == Kind::Digest && e.to_string().contains("sends 5 bytes"), "{e}");
    refused(http(&web.url("/big")).resolve("amd64"), Kind::Source, "longer than");
    refused(http(&web.url("/bad")).resolve("amd64"), Kind::Source, "not valid JSON");
}

#[apply(test)]
fn a_file_can_be_asked_for_without_being_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(dir.path(), "amd64");
    let status = Arc::new(AtomicU16::new(200));
    let (json, said, kernel) = (latest_json(&files, ""), status.clone(), files.kernel.clone());
    let web = Web::start_by_method(move |method, path| match (method, path, said.load(Ordering::Relaxed)) {
        (_, "/latest.json", _) => Answer::ok(json.clone()),
        ("HEAD", _, 200) => Answer::ok(kernel.clone()),
        (_, _, 200) => Answer::status(500),
        (_, _, status) => Answer::status(status),
    });
    let mut source = http(&web.url(""));
    let artifact = source.resolve("amd64").unwrap();
    source.probe(&artifact.kernel).unwrap();
    let e = source.probe(&artifact.initramfs).unwrap_err();
    assert!(e.kind() == Kind::Digest && e.to_string().contains("the server sends"), "{e}");
    for (code, ok) in [(405, true), (501, true), (404, false), (410, false), (503, false)] {
        status.store(code, Ordering::Relaxed);
        let got = source.probe(&artifact.initramfs);
        assert_eq!(got.is_ok(), ok, "{code}");
        assert!(got.err().is_none_or(|e| e.kind() == Kind::Network && e.to_string().contains(&code.to_string())));
    }
    // The document; and what a HEAD did not find was asked for once more, in case it is only HEAD that is refused.
    let fetched = web.seen().iter().filter(|line| line.starts_with("GET ")).count();
    assert_eq!(fetched, 3, "{:?}", web.seen());
}

#[apply(test)]
fn an_initramfs_may_come_with_the_encoding_it_is_stored_in() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(dir.path(), "amd64");
    let (json, kernel, initramfs) = (latest_json(&files, ""), files.kernel.clone(), files.initramfs.clone());
    let web = Web::start(move |path| match path {
        "/latest.json" => Answer::ok(json.clone()),
        "/vmlinuz" => Answer::ok(kernel.clone()),
        // As Apache does where AddEncoding knows the ending.
        _ => Answer::ok(initramfs.clone()).header("Content-Encoding", "x-gzip"),
    });
    let mut source = http(&web.url(""));
    let artifact = source.resolve("amd64").unwrap();
    source.probe(&artifact.initramfs).unwrap();
    check_files(source.as_mut(), &artifact, &files);
}

#[apply(test)]
fn long_release_notes_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(dir.path(), "amd64");
    let long = "n".repeat((4 << 20) - 8192);
    let json = latest_json(&files, "").replace("first\\nsecond", &long).replace("stable", &"c".repeat(5000));
    let notes = format!(r#""io.kubesolo.os.release_notes":"{long}","io.kubesolo.os.version":"1.2.0""#);
    let layer = |t: &str, c: &str| format!(r#"{{"mediaType":"{t}","digest":"sha256:{}","size":9}}"#, c.repeat(64));
    let manifest = format!(
        r#"{{"schemaVersion":2,"layers":[{},{}],"annotations":{{{notes}}}}}"#,
        layer(KERNEL_TYPE, "a"),
        layer(INITRAMFS_TYPE, "b")
    );
    let digest = Digest::of(manifest.as_bytes());
    let web = Web::start(move |path| match path {
        "/latest.json" => Answer::ok(json.clone()),
        _ => Answer::ok(manifest.clone()).header("Content-Type", MANIFEST_TYPE),
    });
    let from_http = http(&web.url("")).resolve("amd64").unwrap();
    assert_eq!(from_http.release.channel, Some("c".repeat(1024)));
    let from_registry = plain(&format!("127.0.0.1:{}/os:v1", web.port)).resolve("amd64").unwrap();
    assert_eq!(from_registry.digest, digest, "the identity is that of the document as it was sent");
    for artifact in [from_http, from_registry] {
        assert_eq!(artifact.release.release_notes, Some("n".repeat(64 << 10)));
    }
}

/// A registry that serves `manifest` by tag, and by digest whatever `child` makes of a request.
fn lying(top: (&'static str, String), child: impl Fn() -> Answer + Send + 'static) -> Web {
    Web::start(move |path| match path {
        "/v2/os/manifests/v1" => Answer::ok(top.1.clone()).header("Content-Type", top.0),
        _ if path.starts_with("/v2/os/") => child(),
        _ => Answer::status(404),
    })
}

#[apply(test)]
fn a_registry_that_lies_is_caught() {
    let layer = |t: &str, c: &str| format!(r#"{{"mediaType":"{t}","digest":"sha256:{}","size":9}}"#, c.repeat(64));
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","layers":[{},{}],"annotations":{{"io.kubesolo.os.version":"1"}}}}"#,
        layer(KERNEL_TYPE, "a"),
        layer(INITRAMFS_TYPE, "b")
    );
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = |size: usize, t: &str| {
        let digest = Digest::of(manifest.as_bytes());
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{t}","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
        )
    };
    let resolve = |web: &Web| plain(&format!("127.0.0.1:{}/os:v1", web.port)).resolve("amd64");
    let good = {
        let m = manifest.clone();
        move || Answer::ok(m.clone())
    };
    let size = manifest.len();

    // First the honest one, so that the lies below fail for their own reasons.
    let artifact = resolve(&lying((index_type, index(size, MANIFEST_TYPE)), good.clone())).unwrap();
    assert_eq!((artifact.release.version.as_str(), artifact.release.architecture.as_deref()), ("1", Some("amd64")));
    let alone = resolve(&lying((MANIFEST_TYPE, manifest.clone()), good.clone())).unwrap();
    assert_eq!((alone.digest, alone.release.architecture), (Digest::of(manifest.as_bytes()), None));

    // An index that offers one architecture under another's name: the manifest's own word is reported.
    let foreign = manifest.replace(r#""annotations":{"#, r#""annotations":{"io.kubesolo.os.architecture":"arm64","#);
    let digest = Digest::of(foreign.as_bytes()).to_string();
    let offer = index(foreign.len(), MANIFEST_TYPE).replace(&Digest::of(manifest.as_bytes()).to_string(), &digest);
    let artifact = resolve(&lying((index_type, offer), move || Answer::ok(foreign.clone()))).unwrap();
    assert_eq!((artifact.release.architecture.as_deref(), artifact.digest.to_string()), (Some("arm64"), digest));

    let forged = manifest.replace(r#""1""#, r#""2""#);
    let m = manifest.clone();
    let cases: Vec<(Web, Kind, &str)> = vec![
        (
            lying((index_type, index(size, MANIFEST_TYPE)), move || Answer::ok(forged.clone())),
            Kind::Digest,
            "hashes to",
        ),
        (lying((index_type, index(size + 1, MANIFEST_TYPE)), good.clone()), Kind::Digest, "descriptor says"),
        (lying((index_type, index(size - 1, MANIFEST_TYPE)), good.clone()), Kind::Source, "longer than"),
        (lying((index_type, index(size, index_type)), good.clone()), Kind::Source, "but it was served as"),
        (lying((index_type, index(5 << 20, MANIFEST_TYPE)), good.clone()), Kind::Source, "more than a document"),
        (
            lying((index_type, index(size, MANIFEST_TYPE)), move || {
                Answer::ok(m.clone()).header("Content-Type", "application/json")
            }),
            Kind::Source,
            "served as application/json",
        ),
        (lying(("text/html", manifest.clone()), good.clone()), Kind::Source, "served as text/html"),
        (lying((index_type, manifest.clone()), good.clone()), Kind::Source, "mediaType"),
        (lying((MANIFEST_TYPE, "{".to_owned()), good.clone()), Kind::Source, "not valid JSON"),
    ];
    for (web, kind, word) in &cases {
        refused(resolve(web), *kind, word);
    }
    for (header, kind, word) in [
        (Digest::of(b"x").to_string(), Kind::Digest, "the bytes hash to"),
        ("md5:1".to_owned(), Kind::Source, "not a SHA-256 digest"),
    ] {
        let m = manifest.clone();
        let web = Web::start(move |_| {
            Answer::ok(m.clone()).header("Content-Type", MANIFEST_TYPE).header("Docker-Content-Digest", &header)
        });
        refused(resolve(&web), kind, word);
    }
    // Pinned to a digest, anything else is not what was asked for.
    let web = lying((MANIFEST_TYPE, String::new()), good.clone());
    let pinned = format!("127.0.0.1:{}/os@{}", web.port, Digest::of(b"x"));
    refused(plain(&pinned).resolve("amd64"), Kind::Digest, "the answer hashes to");
    // A blob of another length is refused before a byte of it is used.
    let mut source = plain(&format!("127.0.0.1:{}/os:v1", cases[1].0.port));
    for e in [
        source.open(&artifact.kernel, 0..artifact.kernel.size_bytes, Instant::now()).err().unwrap(),
        source.probe(&artifact.kernel).unwrap_err(),
    ] {
        assert!(e.kind() == Kind::Digest && e.to_string().contains(" sends "), "{e}");
    }
}

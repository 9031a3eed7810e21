//! Kubeconfigs, held against a real kubectl: what both read is the same, and `tests/fixtures/kubeconfigs.tsv` says the rest; the
//! name in the server's certificate; keys and CAs of every kind that openssl makes.
//!
//! Nothing but the text counts in the table: what stands there for certificates is none.

use crate::support::disk::{Disk, need_disks};
use crate::support::node::Api;
use crate::support::registry::{Ca, Guard, ServerCert};
use crate::support::root::{Root, jq};
use crate::support::{command, need_all, run};
use kubesolo_update::parts::base::base64;
use kubesolo_update::parts::health::kubeconfig::{Credential, Kubeconfig};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use table::rows;
use tempfile::TempDir;

#[path = "../support/kubeconfig_table.rs"]
mod table;

/// What the current context leads to: server, name in its certificate, CA, certificate, key; nothing where one is missing.
const CURRENT: &str = r#"def named(list; name): list // [] | map(select(.name == name)) | first;
    . as $all | named(.contexts; $all["current-context"]).context as $context
    | named(.clusters; $context.cluster).cluster as $cluster | named(.users; $context.user).user as $user
    | [$cluster.server, $cluster["tls-server-name"], $cluster["certificate-authority-data"],
       $user["client-certificate-data"], $user["client-key-data"]]
    | if [.[0,2,3,4]] | all(. != null and . != "") then map(. // "") | join(" ") else "" end"#;

fn kubectl(home: &Path) -> Command {
    let mut kubectl = command("kubectl");
    // No other kubeconfig, and no cluster that this test itself may run in.
    kubectl.env("HOME", home).env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").arg("--kubeconfig");
    kubectl
}

/// What kubectl reads. Returns: `None`: it refuses, or misses something that is needed.
fn kubectl_reads(file: &Path) -> Option<String> {
    let out =
        kubectl(file.parent().unwrap()).arg(file).args(["config", "view", "--raw", "-o", "json"]).output().unwrap();
    if !out.status.success() {
        return None;
    }
    Some(jq(&String::from_utf8(out.stdout).unwrap(), CURRENT)).filter(|values| !values.is_empty())
}

fn agent_reads(bytes: &[u8]) -> Option<String> {
    let read = Kubeconfig::parse(bytes).ok()?;
    let pem = |credential| match credential {
        Credential::Pem(bytes) => base64::encode(&bytes),
        Credential::File(name) => name,
    };
    let name = read.server_name.unwrap_or_default();
    Some([read.server, name, pem(read.ca), pem(read.certificate), pem(read.key)].join(" "))
}

#[apply(test)]
fn kubectl_says_of_each_form_what_the_table_says() {
    need_all(&["kubectl", "jq"]);
    let (dir, mut wrong) = (tempfile::tempdir().unwrap(), Vec::new());
    let file = dir.path().join("kubeconfig");
    for row in rows() {
        fs::write(&file, &row.bytes).unwrap();
        let (theirs, ours) = (kubectl_reads(&file), agent_reads(&row.bytes));
        let said = |read: &Option<String>| read.as_ref().map_or("refused", |_| "read");
        if said(&theirs) != row.kubectl || (said(&ours) == "read") != (row.agent == "read") {
            wrong.push(format!("{}: kubectl {theirs:?}, the agent {ours:?}", row.form));
        }
        if theirs.is_some() && ours.is_some() && theirs != ours {
            wrong.push(format!("{}: not the same: {theirs:?} and {ours:?}", row.form));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A machine that asks an API server, and kubectl beside it.
struct Bench {
    dir: TempDir,
    root: Root,
    _disk: Disk,
}

impl Bench {
    fn ready() {
        need_disks();
        need_all(&["kubectl", "openssl", "jq"]);
    }

    fn new() -> Bench {
        let disk = Disk::new(24, 16);
        let root = Root::new(&disk);
        fs::write(root.path("proc/sys/kernel/hostname"), "edge-7\n").unwrap();
        root.configure_node("containerd_socket = off\n");
        Bench { dir: tempfile::tempdir().unwrap(), root, _disk: disk }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.root.path("var/lib/kubesolo/pki/admin/admin.kubeconfig")
    }

    /// Puts other data into the kubeconfig. Input: `name`: `client-key`.
    fn embed(&self, name: &str, pem: &Path) {
        let text = fs::read_to_string(self.kubeconfig()).unwrap();
        let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{name}-data:"))).unwrap();
        let data = base64::encode(&fs::read(pem).unwrap());
        fs::write(self.kubeconfig(), text.replace(line, &format!("    {name}-data: {data}"))).unwrap();
    }

    /// What the agent says of the API server. Returns: `Err`: why it is not healthy.
    fn agent(&self) -> Result<String, String> {
        let out =
            self.root.command(&["healthcheck", "--timeout", "0", "--check-timeout", "20", "--json"]).output().unwrap();
        let check = jq(&String::from_utf8(out.stdout).unwrap(), r#".checks[] | select(.name == "apiserver")"#);
        let detail = jq(&check, ".detail");
        if jq(&check, ".result") == "passed" { Ok(detail) } else { Err(detail) }
    }

    fn kubectl(&self) -> Result<String, String> {
        let mut kubectl = kubectl(self.dir.path());
        let out = kubectl.arg(self.kubeconfig()).args(["get", "--raw", "/readyz"]).output();
        let out = out.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if out.status.success() { Ok(text(out.stdout)) } else { Err(text(out.stderr)) }
    }
}

#[apply(test)]
fn the_servers_certificate_is_held_against_tls_server_name() {
    Bench::ready();
    let bench = Bench::new();
    // Its certificate is for 127.0.0.1 and for kubernetes.
    let api = Api::start(bench.dir.path());
    api.kubeconfig(&bench.kubeconfig(), true);
    let good = fs::read_to_string(bench.kubeconfig()).unwrap();
    let port = api.url().rsplit(':').next().unwrap().to_owned();
    for (host, name, is_healthy) in [
        ("127.0.0.1", "", true),
        ("localhost", "", false),
        ("localhost", "kubernetes", true),
        ("localhost", "127.0.0.1", true),
        ("localhost", "KUBERNETES", true),
        ("127.0.0.1", "kubernetes", true),
        ("127.0.0.1", "localhost", false),
        ("127.0.0.1", "10.0.0.1", false),
        ("127.0.0.1", "'::1'", false),
        ("127.0.0.1", "kubernetes.default", false),
        ("127.0.0.1", "'not a name'", false),
        ("127.0.0.1", "null", true),
    ] {
        let server = format!("server: https://{host}:{port}\n    tls-server-name: {name}");
        fs::write(bench.kubeconfig(), good.replace(&format!("server: {}", api.url()), &server)).unwrap();
        let (theirs, ours) = (bench.kubectl(), bench.agent());
        assert_eq!((theirs.is_ok(), ours.is_ok()), (is_healthy, is_healthy), "{host} {name}: {theirs:?}, {ours:?}");
        if let Err(why) = ours {
            let words =
                if name == "'not a name'" { "not a name: not a TLS server name" } else { "is for another name" };
            assert!(why.contains(words), "{host} {name}: {why}");
        }
    }
}

/// Curves and sizes of client keys, as `openssl req -newkey` takes them. KubeSolo takes any that Go takes.
#[apply(test)]
fn a_client_key_that_cannot_be_used_is_named() {
    Bench::ready();
    let bench = Bench::new();
    let api = Api::start(bench.dir.path());
    api.kubeconfig(&bench.kubeconfig(), true);
    let curve = |name: &str| vec!["ec".to_owned(), "-pkeyopt".to_owned(), format!("ec_paramgen_curve:{name}")];
    let only = "P-256, P-384, and RSA of 2048 to 4096 bits can";
    for (key, words) in [
        (curve("P-256"), ""),
        (curve("P-384"), ""),
        (vec!["rsa:2048".into()], ""),
        (vec!["rsa:4096".into()], ""),
        (curve("P-521"), "a P-521 key cannot be used here"),
        (curve("P-224"), "a P-224 key cannot be used here"),
        (curve("secp256k1"), "a secp256k1 key cannot be used here"),
        (curve("brainpoolP256r1"), "a Brainpool key cannot be used here"),
        (vec!["ed25519".into()], "an Ed25519 key cannot be used here"),
        (vec!["ed448".into()], "an Ed448 key cannot be used here"),
        (vec!["rsa:1024".into()], "an RSA key cannot be used here"),
    ] {
        let key_args: Vec<&str> = key.iter().map(String::as_str).collect();
        let client = api.ca.issue("client", "DNS:admin", &key_args);
        let sec1 = key[0] == "ec";
        // In both of the forms that openssl writes.
        for form in [&["pkcs8", "-topk8", "-nocrypt"][..], &["ec"][..]].into_iter().take(1 + usize::from(sec1)) {
            let other = client.key.with_extension("other");
            run(command("openssl").args(form).arg("-in").arg(&client.key).arg("-out").arg(&other));
            bench.embed("client-certificate", &client.certificate);
            bench.embed("client-key", &other);
            match bench.agent() {
                Ok(_) => assert_eq!(words, "", "{key:?} {form:?} was taken"),
                Err(why) => {
                    assert!(!words.is_empty() && why.contains(words) && why.contains(only), "{key:?} {form:?}: {why}")
                }
            }
        }
    }
    // The key of another certificate is told from one of another kind.
    let stranger = api.ca.issue("stranger", "DNS:admin", &["rsa:2048"]);
    bench.embed("client-certificate", &api.client().certificate);
    bench.embed("client-key", &stranger.key);
    let why = bench.agent().unwrap_err();
    assert!(why.contains("it does not belong to client-certificate-data"), "{why}");
    // A certificate that cannot be used is not said to be its key's fault: version 1, as openssl makes it without extensions.
    let (client, csr, old) = (api.client(), bench.dir.path().join("csr"), bench.dir.path().join("version-1"));
    let openssl = |args: &[&str], path: &Path| run(command("openssl").args(args).arg("-out").arg(path));
    openssl(&["req", "-new", "-key", client.key.to_str().unwrap(), "-subj", "/CN=admin"], &csr);
    let (ca, key) = (api.ca.certificate.to_str().unwrap(), api.ca.key.to_str().unwrap());
    openssl(&["x509", "-req", "-in", csr.to_str().unwrap(), "-CA", ca, "-CAkey", key], &old);
    assert!(run(command("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&old)).contains("Version: 1 (0x0)"));
    bench.embed("client-certificate", &old);
    bench.embed("client-key", &client.key);
    let why = bench.agent().unwrap_err();
    let is_right = why.contains("use the client certificate client-certificate-data") && why.contains("version 3");
    assert!(is_right && !why.contains("key cannot be used"), "{why}");
}

/// A server that openssl runs, whose port it tells. Ends when dropped.
fn serve(cert: &ServerCert) -> (Guard, String) {
    let mut server = command("openssl");
    server
        .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cipher", "DEFAULT@SECLEVEL=0", "-cert"])
        .arg(&cert.certificate);
    server.arg("-key").arg(&cert.key).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Guard(server.spawn().unwrap());
    let lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let told = lines.map(Result::unwrap).find_map(|line| Some(line.strip_prefix("ACCEPT ")?.to_owned()));
    (server, told.expect("openssl s_server ended"))
}

#[apply(test)]
fn a_ca_or_a_servers_key_that_cannot_be_checked_is_named() {
    Bench::ready();
    let bench = Bench::new();
    let api = Api::start(bench.dir.path());
    api.kubeconfig(&bench.kubeconfig(), true);
    let good = fs::read_to_string(bench.kubeconfig()).unwrap();
    let only = "P-256, P-384";
    for (curve, hash, server_key, words) in [
        ("P-256", "-sha256", "P-256", ""),
        ("P-384", "-sha384", "P-384", ""),
        ("ed25519", "-sha256", "ed25519", ""),
        ("rsa:2048", "-sha512", "rsa:2048", ""),
        ("rsa:1024", "-sha256", "P-256", "or its CA has an RSA key of less than 2048 bits"),
        // As Go signs, and as openssl does unless it is told.
        ("P-521", "-sha512", "P-256", "an ECDSA (SHA-512, as by a P-521 key) signature"),
        ("P-521", "-sha256", "P-256", "a P-521 signature"),
        ("P-256", "-sha512", "P-256", "an ECDSA (SHA-512, as by a P-521 key) signature"),
        ("P-256", "-sha1", "P-256", "an ECDSA (SHA-1) signature"),
        ("secp256k1", "-sha256", "P-256", "a secp256k1 signature"),
        ("brainpoolP384r1", "-sha384", "P-256", "a Brainpool signature"),
        ("P-256", "-sha256", "P-521", "its key is of another kind than P-256, P-384, Ed25519 and RSA"),
    ] {
        let ca = Ca::new(bench.dir.path(), "ca2");
        let (dir, file) = (bench.dir.path(), |name: &str| bench.dir.path().join(name));
        let key = |command: &mut Command, kind: &str| match kind.starts_with(|c: char| "re".contains(c)) {
            true => drop(command.args(["-nodes", "-newkey", kind])),
            false => drop(command.args(["-nodes", "-newkey", "ec", "-pkeyopt", &format!("ec_paramgen_curve:{kind}")])),
        };
        let mut made = command("openssl");
        made.args(["req", "-x509", hash, "-days", "3", "-subj", "/CN=ca2", "-addext", "keyUsage=critical,keyCertSign"]);
        key(&mut made, curve);
        run(made.arg("-keyout").arg(file("ca2.key")).arg("-out").arg(&ca.certificate));
        let mut asked = command("openssl");
        asked.args(["req", "-new", "-subj", "/CN=server"]);
        key(&mut asked, server_key);
        run(asked.arg("-keyout").arg(file("server.key")).arg("-out").arg(file("csr")));
        fs::write(file("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
        let mut signed = command("openssl");
        signed
            .current_dir(dir)
            .args(["x509", "-req", hash, "-days", "3", "-CAcreateserial", "-CA"])
            .arg(&ca.certificate);
        run(signed.args(["-CAkey", "ca2.key", "-in", "csr", "-extfile", "ext", "-out", "server.pem"]));
        let (_server, address) = serve(&ServerCert { certificate: file("server.pem"), key: file("server.key") });
        fs::write(bench.kubeconfig(), good.replace(&api.url(), &format!("https://{address}"))).unwrap();
        bench.embed("certificate-authority", &ca.certificate);
        match (bench.agent(), words) {
            (Ok(_), "") => {}
            (Err(why), words)
                if !words.is_empty() && why.contains(words) && (why.contains(only) || curve == "rsa:1024") => {}
            (said, _) => panic!("{curve} {hash} {server_key}: {said:?}"),
        }
    }
}

#[apply(test)]
fn a_whole_json_kubeconfig_of_kubectls_own_is_healthy() {
    Bench::ready();
    let bench = Bench::new();
    let api = Api::start(bench.dir.path());
    api.kubeconfig(&bench.kubeconfig(), true);
    let mut view = kubectl(bench.dir.path());
    let json = run(view.arg(bench.kubeconfig()).args(["config", "view", "--raw", "-o", "json"]));
    fs::write(bench.kubeconfig(), json).unwrap();
    assert_eq!(bench.kubectl(), Ok("ok".to_owned()));
    assert_eq!(bench.agent(), Ok(api.url()));
}

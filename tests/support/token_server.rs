//! A token server as registries have them: who shows a password or a refresh token gets a signed JWT.
//! Source: distribution's "Token Authentication Specification" and "Token Authentication Implementation".

use super::command;
use super::listener::{Listener, Request};
use super::registry::{Ca, ServerCert};
use super::web::Answer;
use kubesolo_update::parts::base::base64;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub const USER: &str = "node-7";
/// With what needs escaping in a form, or has a meaning in a header.
pub const PASSWORD: &str = "hunter2:+&=%/ä";
pub const REFRESH_TOKEN: &str = "refresh+me/&soon=";
const SERVICE: &str = "test registry";
const ISSUER: &str = "test issuer";

/// Who signs tokens, and for whom registries take it.
#[derive(Clone)]
pub struct Signer {
    cert: ServerCert,
    ca: PathBuf,
}

impl Signer {
    pub fn new(dir: &Path, name: &str) -> Signer {
        let ca = Ca::new(dir, name);
        Signer { cert: ca.issue("signer", "DNS:signer", &["rsa:2048"]), ca: ca.certificate }
    }

    /// A registry's configuration that takes this one's tokens. Input: `realm`: URL of the token server.
    pub fn registry_auth(&self, realm: &str) -> String {
        let bundle = self.ca.display();
        format!(
            "auth:\n  token:\n    realm: {realm}\n    service: {SERVICE}\n    issuer: {ISSUER}\n    rootcertbundle: {bundle}\n"
        )
    }

    /// A JWT that allows to pull a repository, for five minutes.
    fn token(&self, repository: &str) -> String {
        let pem = fs::read_to_string(&self.cert.certificate).unwrap();
        let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = format!(r#"{{"typ":"JWT","alg":"RS256","x5c":["{der}"]}}"#);
        let access = format!(r#"[{{"type":"repository","name":"{repository}","actions":["pull"]}}]"#);
        let claims = format!(
            r#"{{"iss":"{ISSUER}","sub":"{USER}","aud":"{SERVICE}","exp":{},"nbf":{},"iat":{now},"jti":"1","access":{access}}}"#,
            now + 300,
            now - 60
        );
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", base64url(&signature))
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let mut sign = command("openssl");
        sign.args(["dgst", "-sha256", "-sign"]).arg(&self.cert.key).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = sign.spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success());
        out.stdout
    }
}

fn base64url(bytes: &[u8]) -> String {
    base64::encode(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

/// What HTTP's Basic authentication carries.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::encode(format!("{user}:{password}").as_bytes()))
}

/// Percent-encoding undone, as for a form.
pub fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, tail @ ..]) => {
                let digits = [*high, *low].map(char::from).iter().collect::<String>();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap());
                rest = tail;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Name and value of each pair of a query or form.
pub fn pairs(form: &str) -> Vec<(String, String)> {
    let pair = |text: &str| text.split_once('=').map(|(name, value)| (unescape(name), unescape(value)));
    form.split('&').filter_map(pair).collect()
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
}

/// Starts one. Its tokens are signed by the first signer, the second and so on; by the last from then on.
pub fn start(ip: &str, tls: Option<&ServerCert>, signers: Vec<Signer>) -> Listener {
    let given = AtomicUsize::new(0);
    Listener::start(ip, tls, move |request| {
        let refused =
            Answer { body: br#"{"details":"incorrect username or password"}"#.to_vec(), ..Answer::status(401) };
        let Some(repository) = granted(request) else { return refused };
        let turn = given.fetch_add(1, Ordering::SeqCst);
        let token = signers[turn.min(signers.len() - 1)].token(&repository);
        Answer::ok(format!(r#"{{"token":"{token}","expires_in":300}}"#)).header("Content-Type", "application/json")
    })
}

/// Which repository a request may pull, if who asks is known.
fn granted(request: &Request) -> Option<String> {
    let query = pairs(request.target.split_once('?').map_or("", |(_, query)| query));
    let form = pairs(&request.body);
    let (is_known, asked) = match request.method.as_str() {
        "GET" => (request.header("authorization") == Some(&basic(USER, PASSWORD)), query),
        "POST" => {
            let grant = (value(&form, "grant_type"), value(&form, "refresh_token"));
            (grant == ("refresh_token", REFRESH_TOKEN), form)
        }
        _ => (false, query),
    };
    let scope = value(&asked, "scope").to_string();
    // A login asks for no repository.
    let repository = scope.strip_prefix("repository:").and_then(|s| s.strip_suffix(":pull")).unwrap_or_default();
    (is_known && value(&asked, "service") == SERVICE).then(|| repository.to_string())
}

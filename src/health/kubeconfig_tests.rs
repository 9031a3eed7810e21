use super::*;

const EMBEDDED: &str = "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://127.0.0.1:6443
  name: other
- cluster:
    certificate-authority-data: Y2E=
    server: https://127.0.0.1:7443
  name: kubesolo
contexts:
- context:
    cluster: kubesolo
    user: admin
  name: kubernetes-admin@kubernetes
current-context: kubernetes-admin@kubernetes
kind: Config
preferences: {}
users:
- name: admin
  user:
    client-certificate-data: Y2VydA==
    client-key-data: a2V5
";

fn pem(text: &str) -> Credential {
    Credential::Pem(text.as_bytes().to_vec())
}

#[test]
fn takes_the_current_contexts_cluster_and_user() {
    let parsed = Kubeconfig::parse(EMBEDDED.as_bytes()).unwrap();
    let server = "https://127.0.0.1:7443".to_owned();
    assert_eq!(parsed, Kubeconfig { server, ca: pem("ca"), certificate: pem("cert"), key: pem("key") });
    // As other tools write it: lists indented, quotes, comments, CRLF, a document mark.
    let other = "---\r\n# by hand\r\ncurrent-context: \"c\" # the one\r\nusers:\r\n  -   user: # nothing\r\n        client-certificate: 'it''s.crt'\r\n        \
        client-key: /pki/a#b.key # key\r\n      name: 'u'\r\ncontexts:\r\n  - name: c\r\n    context:\r\n      user: u\r\n      cluster: k\r\nclusters:\r\n  -\r\n    name: k\r\n    \
        cluster:\r\n      server: https://[::1]:6443\r\n      certificate-authority: ca.crt\r\n";
    let parsed = Kubeconfig::parse(other.as_bytes()).unwrap();
    assert_eq!(parsed.server, "https://[::1]:6443");
    assert_eq!(parsed.ca, Credential::File("ca.crt".into()));
    assert_eq!(parsed.certificate, Credential::File("it's.crt".into()));
    assert_eq!(parsed.key, Credential::File("/pki/a#b.key".into()));
}

#[test]
fn what_is_missing_or_written_otherwise_is_named() {
    let without =
        |line: &str| EMBEDDED.lines().filter(|l| !l.contains(line)).map(|l| format!("{l}\n")).collect::<String>();
    let with = |old: &str, new: &str| EMBEDDED.replacen(old, new, 1);
    for (text, word) in [
        (without("current-context"), "no current-context"),
        (without("7443"), "no server"),
        (without("client-key"), "no client-key"),
        (without("client-certificate"), "no client-certificate"),
        (without("name: admin"), "no `admin` among its users"),
        (with("name: kubernetes-admin@kubernetes", "name: x"), "among its contexts"),
        (with("Y2E=", "Y2E"), "certificate-authority-data is not base64"),
        (with("https://127.0.0.1:7443", "&anchor https://x"), "line 9: only plain"),
        (with("https://127.0.0.1:7443", "\"https://127.0.0.1"), "line 9: only plain"),
        (with("https://127.0.0.1:7443", "|"), "line 9: only plain"),
        (with("https://127.0.0.1:7443", "https://a\n    server: https://b"), "line 10: this key stands here twice"),
        ("- a: b\n".into(), "line 1: a list where a mapping"),
        ("{\"kind\": \"Config\"}".into(), "no current-context"),
        (String::new(), "no current-context"),
        (format!("a:\n{}b: c\n", "- ".repeat(40)), "line 2: nested too deeply"),
    ] {
        let error = Kubeconfig::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    assert!(Kubeconfig::parse(b"a: \xff").is_err());
}

/// Any text at all, and any cut or changed kubeconfig, is read or refused, and soon.
#[test]
fn no_text_is_too_odd() {
    for end in 0..EMBEDDED.len() {
        let _ = Kubeconfig::parse(&EMBEDDED.as_bytes()[..end]);
        for byte in [b' ', b'-', b':', b'\'', b'"', b'\n', 0xc3] {
            let mut text = EMBEDDED.as_bytes().to_vec();
            text[end] = byte;
            let _ = Kubeconfig::parse(&text);
        }
    }
    let many: String = (0..60_000).map(|n| format!("k{n}: v\n")).collect();
    let refused = Kubeconfig::parse([EMBEDDED, &many].concat().as_bytes()).unwrap_err().to_string();
    assert!(refused.contains("too many"), "{refused}");
}

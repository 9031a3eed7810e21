use super::*;
use std::time::{Duration, Instant};
use table::{BASE, rows};

#[path = "../../tests/support/kubeconfig_table.rs"]
mod table;

#[test]
fn every_form_is_read_or_refused_in_words() {
    let base = Kubeconfig::parse(BASE.as_bytes()).unwrap();
    let pem = |text: &str| Credential::Pem(text.as_bytes().to_vec());
    let (server, server_name) = ("https://127.0.0.1:6443".to_owned(), Some("kubernetes".to_owned()));
    assert_eq!(base, Kubeconfig { server, server_name, ca: pem("CA"), certificate: pem("CERT"), key: pem("KEY") });
    let mut wrong = String::new();
    for row in rows() {
        let start = Instant::now();
        match (Kubeconfig::parse(&row.bytes), row.agent) {
            (Ok(read), "read") if read == base => {}
            (Err(e), words) if words != "read" && e.to_string().contains(words) => {}
            (found, _) => wrong.push_str(&format!("{}: wanted {}: {found:?}\n", row.form, row.agent)),
        }
        // However many aliases there are.
        assert!(start.elapsed() < Duration::from_secs(5), "{}: {:?}", row.form, start.elapsed());
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(rows().len() > 100);
}

/// A file that the agent refuses although kubectl reads it is refused with its line; kubectl can be asked to compare.
#[test]
fn what_kubectl_reads_is_refused_with_its_line() {
    for row in rows().iter().filter(|row| row.kubectl == "read" && row.agent != "read") {
        let error = Kubeconfig::parse(&row.bytes).unwrap_err().to_string();
        assert!(error.starts_with("line ") || error.starts_with("it is UTF-16"), "{}: {error}", row.form);
    }
}

#[test]
fn what_is_missing_is_named() {
    let without = |line: &str| BASE.lines().filter(|l| !l.contains(line)).map(|l| format!("{l}\n")).collect::<String>();
    let with = |old: &str, new: &str| BASE.replacen(old, new, 1);
    for (text, words) in [
        (without("current-context"), "it has no current-context"),
        (without("6443"), "it has no server"),
        (without("certificate-authority"), "it has no certificate-authority"),
        (without("client-certificate"), "it has no client-certificate"),
        (without("client-key"), "it has no client-key"),
        (with("name: u", "name: x"), "there is no `u` among its users"),
        (with("name: c", "name: x"), "there is no `c` among its contexts"),
        (with("    user: u", "    user: x"), "there is no `x` among its users"),
    ] {
        let error = Kubeconfig::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    assert!(Kubeconfig::parse(b"a: \xff").unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn paths_are_kept_and_data_come_first() {
    let text = BASE
        .replace("client-key-data: S0VZ", "client-key: 'it''s.key'")
        .replace("-authority-data: Q0E=", "-authority: /ca");
    let read = Kubeconfig::parse(text.as_bytes()).unwrap();
    assert_eq!((read.key, read.ca), (Credential::File("it's.key".into()), Credential::File("/ca".into())));
}

/// Any text at all, and any cut or changed kubeconfig, is read or refused, quickly.
#[test]
fn no_text_is_too_odd() {
    for end in 0..BASE.len() {
        let _ = Kubeconfig::parse(&BASE.as_bytes()[..end]);
        for byte in b" -:'\"\n\t#&*!|>%@`?,[]{}\\~<\xc3" {
            let mut text = BASE.as_bytes().to_vec();
            text[end] = *byte;
            let _ = Kubeconfig::parse(&text);
        }
    }
    for (part, words) in [
        ("k: v\n", "too long"),
        ("[", "nested too deeply"),
        ("- ", "nested too deeply"),
        ("? ", "nested too deeply"),
        ("{a: ", "nested too deeply"),
        ("&a ", ""),
        ("!a ", ""),
        ("*a ", ""),
        ("- &a\n", ""),
        ("a,", ""),
        ("\n ", ""),
        ("'", ""),
        ("é", ""),
    ] {
        let (start, text) = (Instant::now(), part.repeat(KUBECONFIG_MAX_BYTES as usize / part.len()));
        let refused = Kubeconfig::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains(words), "{part}: {refused}");
        assert!(start.elapsed() < Duration::from_secs(20), "{part}: {:?}", start.elapsed());
    }
}

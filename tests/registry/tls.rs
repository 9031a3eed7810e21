//! TLS through the program itself: the release build has other messages and other code than a test build.

use crate::support::disk::{B, Disk, initramfs_of, need_disks, noise};
use crate::support::registry::{Ca, Files, Registry, oras};
use crate::support::root::Root;
use crate::support::{self, command, need, run};
use kubesolo_update::parts::base::clock::Now;
use kubesolo_update::parts::base::time::parse_rfc3339;
use kubesolo_update::parts::base::url::Url;
use kubesolo_update::parts::http::tls::Pem;
use kubesolo_update::parts::http::{Client, HttpOptions};
use kubesolo_update::parts::os::system::System;
use std::fs;
use std::path::Path;
use std::sync::Arc;

#[apply(test)]
fn an_update_over_tls_needs_the_right_ca_name_and_time() {
    need_disks();
    need("docker-registry");
    need("oras");
    need("openssl");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let (ca, other) = (Ca::new(disk.dir(), "ca"), Ca::new(disk.dir(), "other"));
    let p256 = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let certificate = ca.issue("server", "IP:127.0.0.1", &p256);
    let registry = Registry::start(disk.dir(), Some(&certificate));
    let reference = format!("{}/os:v1", registry.host());
    let files = Files::new(disk.dir(), support::disk::architecture());
    let initramfs = initramfs_of(disk.dir(), &noise(7, 100_000));
    fs::write(files.dir.join("kubesolo-os.gz"), &initramfs).unwrap();
    let mut push = oras(disk.dir());
    push.arg("push").arg("--ca-file").arg(&ca.certificate);
    files.push(push, &reference, true);

    let trust = |ca: Option<&Ca>, reference: &str| {
        let mut text = format!("signature = off\nplain_http = no\nregistry = {reference}\n");
        if let Some(ca) = ca {
            fs::copy(&ca.certificate, root.path("etc/kubesolo/ca.pem")).unwrap();
            text.push_str("ca_file = /etc/kubesolo/ca.pem\n");
        }
        root.configure(&text);
    };
    trust(Some(&other), &reference);
    root.agent(&["check"]).expect(6, &["signed by an unknown CA", "set ca_file to the CA"]);
    trust(None, &reference);
    root.agent(&["check"]).expect(2, &["no CA certificates", "set ca_file"]);
    trust(Some(&ca), &reference.replace("127.0.0.1", "localhost"));
    root.agent(&["check"]).expect(6, &["is for another name"]);
    let plain = Registry::start(disk.dir(), None);
    trust(Some(&ca), &format!("{}/os:v1", plain.host()));
    root.agent(&["check"]).expect(6, &["not TLS", "does this port speak TLS?"]);

    trust(Some(&ca), &reference);
    root.agent(&["check"]).expect(0, &["Offered   1.2.0"]);
    root.agent(&["apply"]).expect(0, &["1.2.0 is staged in slot B"]);
    assert!(disk.file(B, "vmlinuz").unwrap() == files.kernel && disk.file(B, "kubesolo-os.gz").unwrap() == initramfs);
}

/// Signs a server's request again: for other days, and with other extensions.
fn sign_again(ca: &Ca, dir: &Path, certificate: &Path, (from, to): (&str, &str), more: &str) {
    let dir = dir.join("ca");
    let config = format!(
        "[ca]\ndefault_ca=d\n[d]\ndatabase={0}/index\nserial={0}/serial\nnew_certs_dir={0}\npolicy=p\nunique_subject=no\nx509_extensions=x\n[p]\ncommonName=supplied\n[x]\nsubjectAltName=IP:127.0.0.1\n{more}\n",
        dir.display()
    );
    fs::write(dir.join("ca.conf"), config).unwrap();
    fs::write(dir.join("index"), "").unwrap();
    fs::write(dir.join("serial"), "1000\n").unwrap();
    let mut sign = command("openssl");
    sign.args(["ca", "-batch", "-notext", "-md", "sha256", "-startdate", from, "-enddate", to]);
    sign.arg("-config").arg(dir.join("ca.conf")).arg("-cert").arg(&ca.certificate);
    sign.arg("-keyfile").arg(dir.join("ca.key")).arg("-in").arg(dir.join("server.csr"));
    run(sign.arg("-out").arg(certificate));
}

#[apply(test)]
fn certificates_that_have_expired_or_are_not_for_servers_are_refused() {
    need_disks();
    need("docker-registry");
    need("openssl");
    let disk = Disk::new(24, 16);
    let root = Root::new(&disk);
    let ca = Ca::new(disk.dir(), "ca");
    let certificate = ca.issue("server", "IP:127.0.0.1", &["rsa:2048"]);
    fs::copy(&ca.certificate, root.path("etc/kubesolo/ca.pem")).unwrap();
    fs::create_dir_all(root.path("var/lib/kubesolo/update")).unwrap();
    let (past, now) = (("20200101000000Z", "20200102000000Z"), ("20200101000000Z", "20310101000000Z"));
    // A release of 2035 has run here by a slip: what counts is the machine's own clock, and nothing more is believed.
    let floor = r#"{"newest_release_date":"2035-01-01T00:00:00Z","artifacts":[]}"#;
    let expired = "has expired";
    for (dates, more, words) in [
        (past, "", expired),
        (now, "extendedKeyUsage=clientAuth", "is not for servers"),
        // The registry has nothing, which is said once it is believed.
        (now, "extendedKeyUsage=serverAuth", "404"),
        (now, "", "404"),
    ] {
        sign_again(&ca, disk.dir(), &certificate.certificate, dates, more);
        let registry = Registry::start(disk.dir(), Some(&certificate));
        root.configure(&format!(
            "signature = off\nretries = 0\nplain_http = no\nregistry = {}/os:v1\nca_file = /etc/kubesolo/ca.pem\n",
            registry.host()
        ));
        for proven in ["", floor] {
            fs::write(root.path("var/lib/kubesolo/update/proven.json"), proven).unwrap();
            root.agent(&["check"]).expect(6, &[words]);
        }
        if words == expired {
            root.agent(&["check"]).expect(6, &["check this machine's clock"]);
        }
    }
}

/// `tests/fixtures/certificate-clocks.tsv`: real certificates, a real server, and every clock that a machine may have.
#[apply(test)]
fn a_certificate_is_judged_by_what_is_known_of_the_time() {
    need("docker-registry");
    need("openssl");
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let certificate = ca.issue("server", "IP:127.0.0.1", &["rsa:2048"]);
    let secs = |text: &str| parse_rfc3339(text).expect(text);
    // As openssl writes it: 20260101000000Z.
    let asn1 = |text: &str| text.replace(['-', ':', 'T'], "");
    let table = include_str!("../fixtures/certificate-clocks.tsv");
    let cases: Vec<[&str; 7]> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect::<Vec<_>>().try_into().expect(line))
        .collect();
    assert!(cases.len() >= 10);
    for case in cases {
        let [from, until, clock, build, release, server, words] = case;
        sign_again(&ca, dir.path(), &certificate.certificate, (&asn1(from), &asn1(until)), "");
        let registry = Registry::start(dir.path(), Some(&certificate));
        let now = Now::new(secs(clock), secs(build));
        let options = HttpOptions {
            ca: Some(Pem::File(ca.certificate.clone())),
            tries: 1,
            now: Arc::new(move || now),
            clock_floor_secs: if release == "-" { 0 } else { secs(release) },
            shares_clock: server == "local",
            ..HttpOptions::new(&System::new("/nonexistent"))
        };
        let url = Url::parse(&format!("https://{}/v2/", registry.host())).unwrap();
        let asked = Client::new(options).unwrap().whatever(&url, 1 << 20, &mut |_, _| Ok(()));
        match words {
            "taken" => assert_eq!(asked.unwrap(), 200, "{case:?}"),
            words => assert!(asked.as_ref().is_err_and(|e| e.to_string().contains(words)), "{case:?}: {asked:?}"),
        }
    }
}

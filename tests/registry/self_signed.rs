//! A server's certificate that no CA signed, and `ca_file` as people write it: real `openssl s_server`, `openssl req -x509`.

use crate::support::disk::{Disk, need_disks};
use crate::support::registry::Guard;
use crate::support::release::Release;
use crate::support::root::Root;
use crate::support::{command, need, run};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";
const NAMES: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1";

/// A machine, and a server with a certificate of its own.
struct Bench {
    disk: Disk,
    root: Root,
    document: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        need_disks();
        need("openssl");
        let disk = Disk::new(24, 16);
        let root = Root::new(&disk);
        let document = disk.dir().join("latest.json");
        let latest = Release::new("2.0.0").latest_json();
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", latest.len());
        fs::write(&document, head + &latest).unwrap();
        Bench { disk, root, document }
    }

    /// Makes a certificate, `NAME.pem` with `NAME.key`. Input: `key`: for `-newkey`; `more`: further arguments.
    fn make(&self, name: &str, key: &str, more: &[&str]) -> PathBuf {
        let file = |ending: &str| self.disk.dir().join(format!("{name}.{ending}"));
        let mut req = command("openssl");
        req.args(["req", "-x509", "-nodes", "-subj", "/CN=localhost", "-newkey"]).args(key.split(' ')).args(more);
        run(req.arg("-keyout").arg(file("key")).arg("-out").arg(file("pem")));
        file("pem")
    }

    /// Asks a server that shows a certificate, and what stands behind it in the list. Input: `ca`: content of `ca_file`;
    /// `ends`: exit code and words.
    #[track_caller]
    fn ask(&self, host: &str, shown: &[&Path], ca: &[u8], ends: (i32, &[&str])) {
        let certificate = shown[0];
        let mut server = command("openssl");
        server.args(["s_server", "-HTTP", "-accept", "127.0.0.1:0", "-cert"]).arg(certificate);
        server.arg("-key").arg(certificate.with_extension("key")).current_dir(self.document.parent().unwrap());
        for chain in &shown[1..] {
            server.arg("-cert_chain").arg(chain);
        }
        let server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut server = Guard(server.unwrap());
        let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
        let address = address.replace("127.0.0.1", host);
        fs::write(self.root.path("etc/kubesolo/ca.pem"), ca).unwrap();
        let conf =
            format!("signature = off\nretries = 0\nserver = https://{address}\nca_file = /etc/kubesolo/ca.pem\n");
        self.root.configure(&conf);
        self.root.agent(&["check"]).expect(ends.0, ends.1);
    }
}

const NOT_ACCEPTED: &[&str] = &["basicConstraints CA:TRUE", "openssl req -x509", "basicConstraints=critical,CA:FALSE"];

#[apply(test)]
fn the_very_certificate_that_the_operator_trusts() {
    let bench = Bench::new();
    let days = ["-days", "30", "-addext", NAMES];
    let with = |more: &[&'static str]| [&days[..], more].concat();
    // How it is made, the host that is asked for, and what comes of it.
    for (n, (key, more, host, code, words)) in [
        (P256, with(&[]), "localhost", 0, &["Offered   2.0.0"][..]),
        (P256, with(&[]), "127.0.0.1", 0, &["Offered   2.0.0"]),
        ("rsa:2048", with(&[]), "localhost", 0, &["Offered   2.0.0"]),
        ("ec -pkeyopt ec_paramgen_curve:P-384", with(&[]), "localhost", 0, &["Offered   2.0.0"]),
        (P256, with(&["-addext", "keyUsage=critical,keyCertSign,cRLSign"]), "localhost", 0, &["Offered   2.0.0"]),
        (P256, with(&["-addext", "extendedKeyUsage=serverAuth"]), "localhost", 0, &["Offered   2.0.0"]),
        (P256, with(&["-addext", "extendedKeyUsage=anyExtendedKeyUsage"]), "localhost", 0, &["Offered   2.0.0"]),
        // As everybody wants it.
        (P256, with(&["-addext", "basicConstraints=critical,CA:FALSE"]), "localhost", 0, &["Offered   2.0.0"]),
        // Trusted, and still held against name, dates and purpose.
        (
            P256,
            vec!["-days", "30", "-addext", "subjectAltName=DNS:localhost"],
            "127.0.0.1",
            6,
            &["is for another name"],
        ),
        (
            P256,
            vec!["-days", "30", "-addext", "subjectAltName=DNS:other.example"],
            "localhost",
            6,
            &["is for another name"],
        ),
        (P256, vec!["-days", "30"], "localhost", 6, &["has no subjectAltName", "-addext subjectAltName=DNS:HOST"]),
        (P256, with(&["-addext", "extendedKeyUsage=clientAuth"]), "localhost", 6, &["is not for servers"]),
        (P256, with(&["-addext", "1.2.3.4=critical,ASN1:NULL"]), "localhost", 6, &["critical extension"]),
    ]
    .into_iter()
    .enumerate()
    {
        println!("{n}: {key} {more:?} {host}");
        let certificate = bench.make(&format!("c{n}"), key, &more);
        let pem = fs::read(&certificate).unwrap();
        bench.ask(host, &[&certificate], &pem, (code, words));
        // It twice, as a server shows it that was given one file for both.
        bench.ask(host, &[&certificate, &certificate], &pem, (code, words));
    }
}

#[apply(test)]
fn a_certificate_that_is_like_it_is_not_it() {
    let bench = Bench::new();
    let days = ["-days", "30", "-addext", NAMES];
    let shown = bench.make("shown", P256, &days);
    let other = bench.make("other", P256, &days);
    let pem = |path: &Path| fs::read(path).unwrap();
    // Another of the same name; the same key once more; among others it counts.
    bench.ask("localhost", &[&shown], &pem(&other), (6, NOT_ACCEPTED));
    let again = bench.disk.dir().join("again.pem");
    let mut req = command("openssl");
    req.args(["req", "-x509", "-subj", "/CN=localhost"]).args(days).arg("-key").arg(shown.with_extension("key"));
    run(req.arg("-out").arg(&again));
    bench.ask("localhost", &[&shown], &pem(&again), (6, NOT_ACCEPTED));
    bench.ask("localhost", &[&shown], &[pem(&other), pem(&shown)].concat(), (0, &["Offered   2.0.0"]));
    // Signed by it, and a CA's as well; then one that it signed and that is none.
    let sign = |name: &str, extensions: &str| {
        let file = |ending: &str| bench.disk.dir().join(format!("{name}.{ending}"));
        let mut req = command("openssl");
        req.args(["req", "-new", "-nodes", "-subj", "/CN=server", "-newkey"]).args(P256.split(' '));
        run(req.arg("-keyout").arg(file("key")).arg("-out").arg(file("csr")));
        let mut sign = command("openssl");
        sign.args(["x509", "-req", "-days", "30", "-CAcreateserial", "-CA"]).arg(&other);
        sign.arg("-CAkey").arg(other.with_extension("key")).arg("-in").arg(file("csr"));
        if !extensions.is_empty() {
            fs::write(file("ext"), extensions).unwrap();
            sign.arg("-extfile").arg(file("ext"));
        }
        run(sign.arg("-out").arg(file("pem")));
        file("pem")
    };
    let inner = sign("inner", &format!("{NAMES}\nbasicConstraints=CA:TRUE\n"));
    bench.ask("localhost", &[&inner], &pem(&other), (6, NOT_ACCEPTED));
    bench.ask("localhost", &[&inner], &pem(&inner), (0, &["Offered   2.0.0"]));
    // Of a CA that is not known: the certificate itself is.
    let leaf = sign("leaf", &format!("{NAMES}\nbasicConstraints=CA:FALSE\n"));
    bench.ask("localhost", &[&leaf], &pem(&other), (0, &["Offered   2.0.0"]));
    bench.ask("localhost", &[&leaf], &pem(&leaf), (0, &["Offered   2.0.0"]));
    bench.ask("localhost", &[&leaf], &[pem(&shown), pem(&leaf)].concat(), (0, &["Offered   2.0.0"]));
    bench.ask("localhost", &[&leaf], &pem(&shown), (6, &["the signature of the server's certificate is wrong"]));
    bench.ask("localhost", &[&leaf], &pem(&inner), (6, &["signed by an unknown CA"]));
    // Without extensions: version 1.
    let old = sign("old", "");
    bench.ask("localhost", &[&old], &pem(&old), (6, &["X.509 of version 1", "-addext subjectAltName=DNS:HOST"]));
}

#[apply(test)]
fn a_trusted_certificate_has_its_dates() {
    let bench = Bench::new();
    // `openssl req` of Debian 12 takes no dates: `openssl ca -selfsign` does.
    let dir = bench.disk.dir().to_owned();
    for (n, (from, to, code, words)) in [
        ("20200101000000Z", "20200102000000Z", 6, &["has expired", "check this machine's clock"][..]),
        ("20400101000000Z", "20410101000000Z", 6, &["is not valid yet"]),
        ("20200101000000Z", "20400101000000Z", 0, &["Offered   2.0.0"]),
    ]
    .into_iter()
    .enumerate()
    {
        let certificate = bench.make(&format!("d{n}"), P256, &[]);
        let config = format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase={0}/index\nserial={0}/serial\nnew_certs_dir={0}\npolicy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n[x]\n{NAMES}\nbasicConstraints=critical,CA:TRUE\n",
            dir.display()
        );
        fs::write(dir.join("ca.conf"), config).unwrap();
        fs::write(dir.join("index"), "").unwrap();
        fs::write(dir.join("serial"), "1000\n").unwrap();
        let mut request = command("openssl");
        request.args(["req", "-new", "-subj", "/CN=localhost", "-key"]).arg(certificate.with_extension("key"));
        run(request.arg("-out").arg(dir.join("csr")));
        let mut sign = command("openssl");
        sign.args(["ca", "-batch", "-notext", "-md", "sha256", "-selfsign", "-startdate", from, "-enddate", to]);
        sign.arg("-config").arg(dir.join("ca.conf")).arg("-keyfile").arg(certificate.with_extension("key"));
        run(sign.arg("-in").arg(dir.join("csr")).arg("-out").arg(&certificate));
        bench.ask("localhost", &[&certificate], &fs::read(&certificate).unwrap(), (code, words));
    }
}

#[apply(test)]
fn a_bundle_is_read_as_people_and_tools_write_it() {
    let bench = Bench::new();
    let certificate = bench.make("c", P256, &["-days", "30", "-addext", NAMES]);
    let pem = fs::read_to_string(&certificate).unwrap();
    let convert = |args: &[&str]| {
        let out = command("openssl").args(args).arg("-in").arg(&certificate).output().unwrap();
        assert!(out.status.success(), "{args:?}");
        out.stdout
    };
    let utf16 = format!("\u{feff}{pem}").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let key = fs::read_to_string(certificate.with_extension("key")).unwrap();
    let text = String::from_utf8(convert(&["x509", "-text"])).unwrap();
    let one_line = pem.trim_end().to_owned();
    for (name, ca, words) in [
        ("as it is", pem.clone().into_bytes(), ""),
        ("a byte order mark", format!("\u{feff}{pem}").into_bytes(), ""),
        ("X509 CERTIFICATE", pem.replace(" CERTIFICATE-", " X509 CERTIFICATE-").into_bytes(), ""),
        ("CRLF", pem.replace('\n', "\r\n").into_bytes(), ""),
        (
            "both, and CRLF",
            format!("\u{feff}{}", pem.replace(" CERT", " X509 CERT").replace('\n', "\r\n")).into_bytes(),
            "",
        ),
        ("text in front", text.clone().into_bytes(), ""),
        ("text behind", format!("{pem}\n# the end").into_bytes(), ""),
        ("text that is not UTF-8", [b"# \xfc\xdf\n".as_slice(), pem.as_bytes()].concat(), ""),
        ("no line feed at the end", one_line.into_bytes(), ""),
        ("blanks at the ends of lines", pem.replace('\n', " \n").into_bytes(), ""),
        ("with its key", format!("{key}{pem}").into_bytes(), ""),
        ("twice", pem.repeat(2).into_bytes(), ""),
        ("TRUSTED CERTIFICATE", convert(&["x509", "-trustout"]), "TRUSTED CERTIFICATE"),
        ("DER", convert(&["x509", "-outform", "DER"]), "openssl x509 -inform DER"),
        ("a key alone", key.clone().into_bytes(), "a private key and no certificate"),
        ("a public key", convert(&["x509", "-noout", "-pubkey"]), "a public key and no certificate"),
        ("UTF-16", utf16, "UTF-16"),
        ("nothing", Vec::new(), "no usable certificate"),
        ("text alone", b"see /etc/ssl\n".to_vec(), "no usable certificate"),
    ] {
        println!("{name}");
        let code = if words.is_empty() { 0 } else { 2 };
        bench.ask("localhost", &[&certificate], &ca, (code, &[words]));
    }
}

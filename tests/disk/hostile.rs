//! The hostile table: documents, and the answers that they come in. What is refused here is refused before anything is
//! downloaded: the slot keeps every byte. More rows are in `hostile_redirects.rs` and `hostile_files.rs`.

use crate::support::disk::{architecture, need_disks};
use crate::support::hostile::{Ask, Length, Reply, Step};
use crate::support::hostile_table::{
    INDEX_TYPE, MANIFEST_TYPE, Published, Row, assert_listed, hold_all, index, manifest, row,
};
use crate::support::release::sha256;
use std::sync::LazyLock;
use std::time::Duration;

const MIB: usize = 1 << 20;
const DRIP: Duration = Duration::from_millis(100);
/// One second of silence, two for everything.
const HASTY: &str = "retries = 0\nstall_timeout = 1\ndownload_timeout = 2";

/// The same, but whoever drips is not silent.
const PATIENT: &str = "retries = 0\nstall_timeout = 9\ndownload_timeout = 2";

type Make = fn(&Published, &Ask) -> Reply;

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// The same fault in a manifest and in a `latest.json`.
fn both(name: &str, make: Make, finish: fn(Row) -> Row) -> Vec<Row> {
    let http = row(format!("{name}, latest.json"), make).http();
    vec![finish(row(format!("{name}, manifest"), make)), finish(http)]
}

/// A manifest with one thing in place of another, in the kernel's entry.
fn spoilt(name: String, from: fn(&Published) -> String, to: String, word: &str) -> Row {
    let script = move |p: &Published, _: &Ask| {
        let text = p.manifest.replacen(&from(p), &to, 1);
        assert_ne!(text, p.manifest, "nothing was spoilt");
        manifest(&text)
    };
    row(name, script).says(&[word])
}

/// The same in a `latest.json`.
fn spoilt_latest(name: String, from: fn(&Published) -> String, to: String, word: &str) -> Row {
    let script = move |p: &Published, _: &Ask| {
        let text = p.latest.replacen(&from(p), &to, 1);
        assert_ne!(text, p.latest, "nothing was spoilt");
        Reply::ok(text)
    };
    row(name, script).http().says(&[word])
}

fn kernel_size(p: &Published) -> String {
    format!("\"size\":{}", p.kernel.len())
}

fn kernel_digest(p: &Published) -> String {
    format!("\"digest\":\"sha256:{}\"", p.kernel_sha)
}

fn kernel_sha(p: &Published) -> String {
    format!("\"sha256\":\"{}\"", p.kernel_sha)
}

/// A document's bytes.
fn document_rows() -> Vec<Row> {
    let mut rows = vec![
        row("text/html", |p, _| Reply::ok(p.manifest.as_str()).header("Content-Type", "text/html"))
            .says(&["text/html"]),
        row("index type, manifest inside", |p, _| index(&p.manifest)).says(&["mediaType"]),
        row("Docker-Content-Digest of something else", |p, _| {
            manifest(&p.manifest).header("Docker-Content-Digest", &format!("sha256:{}", p.kernel_sha))
        })
        .digest()
        .says(&["Docker-Content-Digest", "the bytes hash to"]),
        row("Docker-Content-Digest that is none", |p, _| {
            manifest(&p.manifest).header("Docker-Content-Digest", "sha256:../../x")
        })
        .says(&["not a SHA-256 digest"]),
        row("another document under a digest", |p, _| manifest(&p.manifest))
            .tag(&format!("@sha256:{}", "ab".repeat(32)))
            .digest()
            .says(&["hashes to"]),
    ];
    rows.extend(both(
        "5 MiB, announced",
        |_, _| json_type(Reply::ok(vec![b' '; 5 * MIB])),
        |r| r.says(&["longer than"]),
    ));
    let endless =
        |_: &Published, _: &Ask| json_type(Reply::ok(vec![]).length(Length::Absent)).then_flood(&[b' '; 4096]);
    rows.extend(both("endless, no length", endless, |r| r.says(&["longer than"])));
    let chunks = |_: &Published, _: &Ask| {
        let flood = [b"1000\r\n".as_slice(), &[b' '; 4096], b"\r\n"].concat();
        json_type(Reply::ok("{}")).chunked(vec![Step::Flood(flood)])
    };
    rows.extend(both("chunks without end", chunks, |r| r.says(&["longer than"])));
    rows.extend(both("short", |p, a| p.honest(a).then(100, vec![]), |r| r.network().says(&["before the end"])));
    rows.extend(both("empty", |_, _| json_type(Reply::ok("")), |r| r.says(&["not valid JSON"])));
    rows.extend(both("more behind it", |p, a| p.honest(a).change(|b| b.push(b'}')), |r| r.says(&["not valid JSON"])));
    rows.extend(both("deep", |_, _| json_type(Reply::ok("[".repeat(100_000))), |r| r.says(&["nested too deeply"])));
    let wide = |_: &Published, _: &Ask| json_type(Reply::ok(format!("[{}0]", "[],".repeat(10_000))));
    rows.extend(both("wide", wide, |r| r.says(&["too many parts"])));
    let long = |_: &Published, _: &Ask| json_type(Reply::ok(format!("[{}0]", "0,".repeat(MIB))));
    rows.extend(both("2 MiB of numbers", long, |r| r.says(&["more than 1 MiB"])));
    let packed = |p: &Published, a: &Ask| p.honest(a).header("Content-Encoding", "gzip");
    rows.extend(both("Content-Encoding", packed, |r| r.says(&["Content-Encoding gzip"])));
    rows
}

fn json_type(reply: Reply) -> Reply {
    reply.header("Content-Type", MANIFEST_TYPE)
}

/// What stands in a document.
fn field_rows() -> Vec<Row> {
    let sha = "ab".repeat(32);
    let mut rows = Vec::new();
    for (shape, value) in [
        ("empty", "\"\"".to_string()),
        ("prefix alone", "\"sha256:\"".into()),
        ("no prefix", format!("\"{sha}\"")),
        ("SHA-512", format!("\"sha512:{sha}{sha}\"")),
        ("upper case prefix", format!("\"SHA256:{sha}\"")),
        ("upper case digits", format!("\"sha256:{}\"", sha.to_uppercase())),
        ("63 digits", format!("\"sha256:{}\"", &sha[1..])),
        ("65 digits", format!("\"sha256:{sha}0\"")),
        ("a path", format!("\"sha256:../../{}\"", &sha[6..])),
        ("a slash", format!("\"sha256:{}/{}\"", &sha[32..], &sha[33..])),
        ("a blank behind", format!("\"sha256:{sha} \"")),
        ("a newline behind", format!("\"sha256:{sha}\\n\"")),
        ("a NUL", format!("\"sha256:{}\\u0000\"", &sha[1..])),
        ("an escape", format!("\"sha256:{}\\u001b[31m\"", &sha[5..])),
        ("not ASCII", format!("\"sha256:{}\u{e9}\"", &sha[2..])),
        ("wide digits", "\"sha256:\u{ff11}\"".replace('\u{ff11}', &"\u{ff11}".repeat(64))),
        ("two prefixes", format!("\"sha256:sha256:{}\"", &sha[7..])),
        ("a number", "7".into()),
        ("null", "null".into()),
        ("a list", format!("[\"sha256:{sha}\"]")),
    ] {
        let to = format!("\"digest\":{value}");
        rows.push(spoilt(format!("digest: {shape}"), kernel_digest, to, "layers[0].digest"));
    }
    rows.push(spoilt_latest(
        "digest: a prefix, latest.json".into(),
        kernel_sha,
        format!("\"sha256\":\"sha256:{sha}\""),
        "kernel.sha256",
    ));
    for size in ["-1", "-9223372036854775808", "0", "9223372036854775808", "18446744073709551616", "1e30", "1.5"]
        .into_iter()
        .chain(["\"1500007\"", "true", "null", "{}"])
    {
        let to = format!("\"size\":{size}");
        rows.push(spoilt(format!("size {size}, manifest"), kernel_size, to.clone(), "layers[0].size"));
        rows.push(spoilt_latest(format!("size {size}, latest.json"), kernel_size, to, "kernel.size"));
    }
    // A size that can be, and is too much for the slot.
    for size in ["9223372036854775807", "25165825"] {
        let (to, word) = (format!("\"size\":{size}"), "the target slot has room for");
        rows.push(spoilt(format!("size {size}, manifest"), kernel_size, to.clone(), word).ends(4, "gate"));
        rows.push(spoilt_latest(format!("size {size}, latest.json"), kernel_size, to, word).ends(4, "gate"));
    }
    for (shape, url) in [
        ("file:", "file:///etc/passwd"),
        ("ftp:", "ftp://127.0.0.1/vmlinuz"),
        ("javascript:", "javascript:alert(1)"),
        ("user and password", "http://user:x@127.0.0.1/vmlinuz"),
        ("a newline", "files/vm\\r\\nX: y"),
        ("port 0", "http://127.0.0.1:0/vmlinuz"),
        ("empty", ""),
    ] {
        let from = |_: &Published| "files/vmlinuz".to_string();
        rows.push(spoilt_latest(format!("url: {shape}"), from, url.to_string(), "kernel.url"));
    }
    rows.extend(duplicate_rows());
    rows
}

/// Two readers of one document must not see two things.
fn duplicate_rows() -> Vec<Row> {
    let manifest_of = |name: &str, from: &'static str, to: &'static str| {
        row(format!("{name} twice, manifest"), move |p, a| match a.path.as_str() {
            "/v2/os/manifests/v1" => manifest(&changed(&p.manifest, from, to)),
            _ => p.honest(a),
        })
        .says(&["twice"])
    };
    let latest_of = |name: &str, from: &'static str, to: &'static str| {
        row(format!("{name} twice, latest.json"), move |p, a| match a.path.as_str() {
            "/latest.json" => Reply::ok(changed(&p.latest, from, to)),
            _ => p.honest(a),
        })
        .http()
        .says(&["twice"])
    };
    vec![
        manifest_of("layers", "\"layers\":", "\"layers\":[],\"layers\":"),
        manifest_of("size", "\"size\":", "\"size\":9,\"size\":"),
        manifest_of(
            "version",
            "\"io.kubesolo.os.version\":",
            "\"io.kubesolo.os.version\":\"9.9.9\",\"io.kubesolo.os.version\":",
        ),
        manifest_of("mediaType", "\"mediaType\":", "\"mediaType\":\"x/y\",\"mediaType\":"),
        manifest_of("an escaped size", "\"size\":", "\"\\u0073ize\":9,\"size\":"),
        latest_of("version", "\"version\":", "\"version\":\"9.9.9\",\"version\":"),
        latest_of("sha256", "\"sha256\":", "\"sha256\":\"00\",\"sha256\":"),
        latest_of("kernel", "\"kernel\":", "\"kernel\":{},\"kernel\":"),
    ]
}

fn changed(text: &str, from: &str, to: &str) -> String {
    let out = text.replacen(from, to, 1);
    assert_ne!(out, text, "nothing was changed");
    out
}

/// An index of one entry for this machine. Input: what the entry points to, and its size.
fn index_of(media_type: &str, sha: &str, size: usize) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":[{{"mediaType":"{media_type}","digest":"sha256:{sha}","size":{size},"platform":{{"os":"linux","architecture":"{}"}}}}]}}"#,
        architecture()
    )
}

/// Indexes inside one another, the manifest in the last. Returns: the outermost first.
fn nested(p: &Published, depth: usize) -> Vec<(String, String)> {
    let mut all = vec![index_of(MANIFEST_TYPE, &p.manifest_sha, p.manifest.len())];
    for _ in 1..depth {
        let inner = all.last().unwrap();
        all.push(index_of(INDEX_TYPE, &sha256(inner.as_bytes()), inner.len()));
    }
    all.reverse();
    with_digests(all)
}

fn with_digests(texts: Vec<String>) -> Vec<(String, String)> {
    texts.into_iter().map(|text| (sha256(text.as_bytes()), text)).collect()
}

/// Answers the tag with the first, and each of the others by its digest.
fn serve_indexes(p: &Published, ask: &Ask, all: &[(String, String)]) -> Reply {
    let by_digest = all.iter().find(|(sha, _)| ask.path.ends_with(sha));
    match ask.path.as_str() {
        "/v2/os/manifests/v1" => index(&all[0].1),
        _ => by_digest.map_or_else(|| p.honest(ask), |(_, text)| index(text)),
    }
}

/// An index without platforms, whose entries are indexes of the same kind, none of which leads to a manifest.
fn forest() -> Vec<(String, String)> {
    let level = |inner: &[String]| {
        let entry = |i: &String| {
            format!(r#"{{"mediaType":"{INDEX_TYPE}","digest":"sha256:{}","size":{}}}"#, sha256(i.as_bytes()), i.len())
        };
        inner.iter().map(entry).collect::<Vec<_>>().join(",")
    };
    let whole = |entries: &str, mark: usize| format!(r#"{{"schemaVersion":2,"x":{mark},"manifests":[{entries}]}}"#);
    let leaves: Vec<String> = (0..8).map(|n| whole("", n)).collect();
    let middle: Vec<String> = (0..8).map(|n| whole(&level(&leaves), 100 + n)).collect();
    let mut all = vec![whole(&level(&middle), 1000)];
    all.extend(middle);
    all.extend(leaves);
    with_digests(all)
}

/// Made once: it takes some time.
static FOREST: LazyLock<Vec<(String, String)>> = LazyLock::new(forest);

fn index_rows() -> Vec<Row> {
    let top = |name: &str, text: fn(&Published) -> String| {
        row(name, move |p, a| match a.path.as_str() {
            "/v2/os/manifests/v1" => index(&text(p)),
            _ => p.honest(a),
        })
        .most(2)
    };
    vec![
        row("4 indexes inside one another", |p, a| serve_indexes(p, a, &nested(p, 4)))
            .says(&["indexes inside one another"])
            .most(4),
        row("3 indexes inside one another: good", |p, a| serve_indexes(p, a, &nested(p, 3))).says(&["staged"]).works(7),
        row("an index that leads back to itself", |_, _| index(&index_of(INDEX_TYPE, &"ab".repeat(32), 420)))
            .says(&["descriptor says"])
            .digest()
            .most(2),
        row("64 indexes to look into", |p, a| serve_indexes(p, a, &FOREST)).says(&["more than 16 documents"]).most(17),
        top("an index entry of 5 MiB", |p| index_of(MANIFEST_TYPE, &p.manifest_sha, 5 * MIB))
            .says(&["more than a document"]),
        top("an index entry one byte too long", |p| index_of(MANIFEST_TYPE, &p.manifest_sha, p.manifest.len() + 1))
            .digest()
            .says(&["descriptor says"]),
        top("an index entry one byte too short", |p| index_of(MANIFEST_TYPE, &p.manifest_sha, p.manifest.len() - 1))
            .says(&["longer than"]),
        row("an index entry of another type", |p, a| match a.path.as_str() {
            "/v2/os/manifests/v1" => index(&index_of(MANIFEST_TYPE, &p.manifest_sha, p.manifest.len())),
            _ => index(&p.manifest),
        })
        .says(&["served as"])
        .most(2),
        row("another manifest under an index entry", |p, a| match a.path.as_str() {
            "/v2/os/manifests/v1" => index(&index_of(MANIFEST_TYPE, &p.manifest_sha, p.manifest.len())),
            _ => manifest(&p.manifest.replace("2.0.0", "3.0.0")),
        })
        .digest()
        .says(&["hashes to"])
        .most(2),
    ]
}

/// A server that takes its time.
fn slow_rows() -> Vec<Row> {
    let head = |_: &Published, _: &Ask| Reply::raw(vec![Step::Drip(bytes("HTTP/1.1 200 OK\r\nX: ").repeat(9), DRIP)]);
    let body = |_: &Published, _: &Ask| {
        json_type(Reply::ok("").says(4000)).then(0, vec![Step::Drip(vec![b' '; 4000], DRIP)]).says(4000)
    };
    let line = |_: &Published, _: &Ask| {
        json_type(Reply::ok("{}")).chunked(vec![Step::Send(bytes("1;")), Step::Drip(vec![b'x'; 4000], DRIP)])
    };
    let trailer = |_: &Published, _: &Ask| {
        json_type(Reply::ok("{}")).chunked(vec![Step::Send(bytes("0\r\nX: ")), Step::Drip(vec![b'x'; 4000], DRIP)])
    };
    let mut rows = Vec::new();
    rows.extend(both("no answer", |_, _| Reply::raw(vec![Step::Stall]), |r| hasty(r).says(&["no answer for 1 s"])));
    rows.extend(both(
        "stall in the body",
        |p, a| p.honest(a).then(100, vec![Step::Stall]),
        |r| hasty(r).says(&["no data for 1 s"]),
    ));
    for (name, make) in [("head", head as Make), ("body", body), ("chunk line", line), ("trailer", trailer)] {
        let dripping = |r: Row| r.conf(PATIENT).network().says(&["2 s"]);
        rows.extend(both(&format!("slow {name}"), make, dripping));
    }
    rows
}

fn hasty(row: Row) -> Row {
    row.conf(HASTY).network()
}

/// What stands before a body.
fn head_rows() -> Vec<Row> {
    let raw = |name: &'static str, word: &str, make: fn() -> Vec<Step>| {
        row(name, move |_, _| Reply::raw(make())).conf(HASTY).network().says(&[word])
    };
    let said = |name: &'static str, length: &'static str| {
        row(name, move |p, a| p.honest(a).says(length)).conf(HASTY).network().says(&["length"])
    };
    vec![
        raw("header bomb: one of 1 MiB", "header", || {
            vec![Step::Send(bytes("HTTP/1.1 200 OK\r\nX: ")), Step::Send(vec![b'x'; MIB])]
        }),
        raw("header bomb: one without end", "header", || {
            vec![Step::Send(bytes("HTTP/1.1 200 OK\r\nX: ")), Step::Flood(vec![b'x'; 4096])]
        }),
        raw("header bomb: 10000 headers", "headers", || {
            vec![Step::Send(bytes("HTTP/1.1 200 OK\r\n")), Step::Send(bytes("X: y\r\n").repeat(10_000))]
        }),
        raw("header bomb: headers without end", "headers", || {
            vec![Step::Send(bytes("HTTP/1.1 200 OK\r\n")), Step::Flood(bytes("X: y\r\n").repeat(100))]
        }),
        raw("100 Continue without end", "header", || {
            vec![Step::Flood(bytes("HTTP/1.1 100 Continue\r\n\r\n").repeat(10))]
        }),
        raw("not HTTP", "fetch http://", || vec![Step::Send(bytes("SSH-2.0-OpenSSH_9.9\r\n"))]),
        raw("zeros without end", "fetch http://", || vec![Step::Flood(vec![0; 4096])]),
        raw("status 999999", "status", || vec![Step::Send(bytes("HTTP/1.1 999999 OK\r\nContent-Length: 2\r\n\r\n{}"))]),
        raw("a chunk of 2^64 bytes and more", "chunk", || {
            vec![Step::Send(bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}"))]
        }),
        raw("a chunk of a negative length", "chunk", || {
            vec![Step::Send(bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n"))]
        }),
        said("Content-Length -5", "-5"),
        said("Content-Length of 2^64", "18446744073709551616"),
        said("Content-Length that is not a number", "0x10"),
        row("two Content-Lengths", |p, a| p.honest(a).header("Content-Length", "5"))
            .conf(HASTY)
            .network()
            .says(&["length"]),
        row("a control character in the status line", |_, _| {
            Reply::raw(vec![Step::Send(bytes("HTTP/1.1 404 \x1b[31mX\r\nContent-Length: 0\r\n\r\n"))])
        })
        .conf(HASTY)
        .network()
        .says(&["fetch http://"]),
        row("an escape in an error document", |_, _| {
            Reply::new(404, r#"{"errors":[{"code":"\u001b[31mRED","message":"\u001b]0;x\u0007"}]}"#)
        })
        .says(&["404", "RED"])
        .network(),
    ]
}

/// A server that wants to be asked again.
fn retry_rows() -> Vec<Row> {
    let later = |name: &'static str, status: u16, after: &'static str| {
        row(name, move |_, _| Reply::new(status, "").header("Retry-After", after)).conf("").network()
    };
    vec![
        later("429, Retry-After a year", 429, "31536000").says(&["429", "asks for a pause"]),
        later("503, Retry-After a date in 2099", 503, "Thu, 01 Jan 2099 00:00:00 GMT")
            .says(&["503", "asks for a pause"]),
        later("429, Retry-After beyond all numbers", 429, "99999999999999999999999").says(&["429", "asks for a pause"]),
        row("429 for ever", |_, _| Reply::new(429, "")).conf("retries = 2").network().says(&["429"]).most(3),
        row("500 for ever, Retry-After 0", |_, _| Reply::new(500, "").header("Retry-After", "0"))
            .conf("retries = 2")
            .network()
            .says(&["500"])
            .most(3),
        row("reset at once", |_, _| Reply::raw(vec![Step::Reset]))
            .conf("retries = 1")
            .network()
            .says(&["reset"])
            .most(2),
        row("closed at once", |_, _| Reply::raw(vec![])).conf("retries = 1").network().says(&["manifests/v1"]).most(2),
        row("reset in the document", |p, a| p.honest(a).then(50, vec![Step::Reset]))
            .conf("retries = 1")
            .network()
            .says(&["manifests/v1"])
            .most(2),
    ]
}

fn rows() -> Vec<Row> {
    [document_rows(), field_rows(), index_rows(), slow_rows(), head_rows(), retry_rows()]
        .into_iter()
        .flatten()
        .collect()
}

#[apply(test)]
fn hostile_documents() {
    need_disks();
    hold_all([document_rows(), field_rows(), index_rows()].into_iter().flatten().collect());
}

#[apply(test)]
fn hostile_answers() {
    need_disks();
    hold_all([slow_rows(), head_rows(), retry_rows()].into_iter().flatten().collect());
}

#[apply(test)]
fn the_table_is_listed() {
    assert_listed("hostile", &rows());
}

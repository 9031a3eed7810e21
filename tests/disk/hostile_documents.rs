//! The hostile table: what is no JSON, and what is JSON in a way that few people write it; URLs that are none to the letter.
//! The parser alone says what is JSON, however long a text is, and what is none is named for what it is.

use crate::support::disk::need_disks;
use crate::support::hostile::{Ask, Reply};
use crate::support::hostile_table::{MANIFEST_TYPE, Published, Row, assert_listed, hold_all, row};

/// Where a long text is cut, in bytes.
const CUT: usize = 64 << 10;

fn json_type(reply: Reply) -> Reply {
    reply.header("Content-Type", MANIFEST_TYPE)
}

/// The honest document, changed, as a manifest and as a `latest.json`; all else is honest.
fn both(
    name: &str,
    change: impl Fn(String) -> Vec<u8> + Copy + Send + Sync + 'static,
    finish: fn(Row, usize) -> Row,
) -> Vec<Row> {
    let manifest = row(format!("{name}, manifest"), move |p, a| match a.path.as_str() {
        "/v2/os/manifests/v1" => json_type(Reply::ok(change(p.manifest.clone()))),
        _ => p.honest(a),
    });
    let latest = row(format!("{name}, latest.json"), move |p, a| match a.path.as_str() {
        "/latest.json" => Reply::ok(change(p.latest.clone())),
        _ => p.honest(a),
    });
    vec![finish(manifest, 5), finish(latest.http(), 5)]
}

/// The document with a text in it, in a field that nobody reads and in the release notes.
fn with_text(document: &str, text: &str) -> String {
    let (notes, to) = match document.contains("\"annotations\"") {
        true => ("\"annotations\":{", "\"annotations\":{\"io.kubesolo.os.release_notes\""),
        false => ("{", "{\"release_notes\""),
    };
    let out = document.replacen(notes, &format!("{to}:\"{text}\","), 1);
    assert_ne!(out, document, "nothing was changed");
    out
}

/// What stands across the cut, or behind it.
fn cut_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, text) in [
        ("an escaped pair", r"\ud83d\ude00"),
        ("escaped pairs in capitals", r"\uD83D\uDE00\uD83D\uDE00"),
        ("an escaped NUL", r"\u0000"),
        ("characters of 4 bytes", "\u{1f600}\u{1f600}"),
        ("an escaped backslash and u", r"\\ud83d"),
    ] {
        let change = move |document: String| with_text(&document, &format!("{}{text}{text}", "a".repeat(CUT)));
        let name = format!("notes of 64 KiB, {name} behind: good");
        rows.extend(both(&name, move |d| change(d).into_bytes(), |r, n| r.says(&["staged"]).works(n)));
    }
    for (name, text) in [
        ("an escape that is none", r"\dueude00"),
        ("half of a pair", r"\ud83d"),
        ("the second half of a pair", r"\ude00"),
        ("an escape that is short", r"\u12"),
        ("a control character", "\u{1}"),
    ] {
        let change = move |document: String| with_text(&document, &format!("{}{text}", "a".repeat(CUT + 9)));
        let name = format!("notes of 64 KiB, {name} behind");
        rows.extend(both(&name, move |d| change(d).into_bytes(), |r, _| r.says(&["not valid JSON"])));
    }
    let name = |document: String| document.replacen('{', &format!("{{\"{}\":1,", "n".repeat(CUT + 9)), 1).into_bytes();
    rows.extend(both("a name of more than 64 KiB: good", name, |r, n| r.says(&["staged"]).works(n)));
    let feed = |document: String| document.replacen(',', &format!(",{}\u{c}", " ".repeat(CUT)), 1).into_bytes();
    rows.extend(both("a form feed behind 64 KiB of blanks", feed, |r, _| r.says(&["not valid JSON"])));
    rows
}

/// What is sent in place of JSON, or in front of it.
fn other_rows() -> Vec<Row> {
    let utf16 = |document: &str| document.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut rows = Vec::new();
    rows.extend(both(
        "UTF-16 with a mark",
        move |d| utf16(&format!("\u{feff}{d}")),
        |r, _| r.says(&["not valid JSON: it is UTF-16"]),
    ));
    rows.extend(both("UTF-16", move |d| utf16(&d), |r, _| r.says(&["not valid JSON: it is UTF-16"])));
    let swapped = |d: String| d.encode_utf16().flat_map(u16::to_be_bytes).collect();
    rows.extend(both("UTF-16, big end first", swapped, |r, _| r.says(&["not valid JSON: it is UTF-16"])));
    let utf32 = |document: &str| document.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect::<Vec<u8>>();
    let marked = move |d: String| utf32(&format!("\u{feff}{d}"));
    rows.extend(both("UTF-32 with a mark", marked, |r, _| r.says(&["not valid JSON: it is UTF-32"])));
    rows.extend(both("UTF-32", move |d| utf32(&d), |r, _| r.says(&["not valid JSON: it is UTF-32"])));
    let swapped = |d: String| d.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
    rows.extend(both("UTF-32, big end first", swapped, |r, _| r.says(&["not valid JSON: it is UTF-32"])));
    rows.extend(both(
        "UTF-8 with a mark: good",
        |d| format!("\u{feff}{d}").into_bytes(),
        |r, n| r.says(&["staged"]).works(n),
    ));
    rows.extend(both(
        "a page",
        |_| b"\r\n<!DOCTYPE html><html><body>Back soon</body></html>".to_vec(),
        |r, _| r.says(&["not valid JSON: it is HTML or XML"]),
    ));
    rows.extend(both(
        "a long page with quotes",
        |_| format!("<html lang=\"en\">{}", "<p class=\"\\x\">\u{c}".repeat(9000)).into_bytes(),
        |r, _| r.says(&["not valid JSON: it is HTML or XML"]),
    ));
    rows.extend(both(
        "XML",
        |_| b"<?xml version=\"1.0\"?><Error/>".to_vec(),
        |r, _| r.says(&["not valid JSON: it is HTML or XML"]),
    ));
    rows.extend(both("line ends", |_| b"\r\n \n".to_vec(), |r, _| r.says(&["not valid JSON: it is empty"])));
    rows.extend(both("a mark alone", |_| b"\xef\xbb\xbf".to_vec(), |r, _| r.says(&["not valid JSON: it is empty"])));
    rows.extend(both(
        "gzip",
        |_| b"\x1f\x8b\x08\0\0\0\0\0".to_vec(),
        |r, _| r.says(&["not valid JSON: it is compressed with gzip"]),
    ));
    rows
}

/// Values that are there and cannot be read: document and field are named.
fn value_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (field, value) in [
        ("version", "1.0"),
        ("version", "2024.01"),
        ("version", "dev"),
        ("min_compatible_version", "one"),
        ("expires", "tomorrow"),
        ("expires", "2026-13-01T00:00:00Z"),
    ] {
        let change = move |document: &str, name: &str| {
            let without = document.replacen(&format!("\"{name}\":\"2.0.0\","), "", 1);
            let from = if document.contains("\"annotations\"") { "\"annotations\":{" } else { "{" };
            let out = without.replacen(from, &format!("{from}\"{name}\":\"{value}\","), 1);
            assert_ne!(out, document, "nothing was changed");
            out
        };
        let annotation = format!("io.kubesolo.os.{field}");
        let manifest = {
            let annotation = annotation.clone();
            move |p: &Published| json_type(Reply::ok(change(&p.manifest, &annotation)))
        };
        rows.push(row(format!("{field} {value}, manifest"), move |p, _| manifest(p)).says(&[
            "/os:v1: '",
            &format!("'{annotation}': read"),
            value,
        ]));
        rows.push(
            row(format!("{field} {value}, latest.json"), move |p, _| Reply::ok(change(&p.latest, field)))
                .http()
                .says(&["/latest.json: '", &format!("'{field}': read"), value]),
        );
    }
    rows
}

/// What people, pre-signing proxies and Windows write into URLs, and how it is asked for: as browsers do.
const ODD: [(&str, &str, &str); 10] = [
    (
        "quotes",
        "?response-content-disposition=attachment;filename=\"x.gz\"",
        "?response-content-disposition=attachment;filename=%22x.gz%22",
    ),
    ("a circumflex", "/a^b?a^b", "/a%5Eb?a^b"),
    ("blanks", "/a b?c d", "/a%20b?c%20d"),
    ("braces and a bar", "/{a}|b?{a}|b", "/%7Ba%7D|b?{a}|b"),
    ("angles and an apostrophe", "/<a>'?<a>'", "/%3Ca%3E'?%3Ca%3E%27"),
    ("an umlaut", "/\u{e4}?\u{e4}", "/%C3%A4?%C3%A4"),
    ("a backslash", "/a\\b?a\\b", "/a/b?a\\b"),
    ("a per cent sign that is none", "/100%?100%", "/100%?100%"),
    ("what is encoded", "/a%20b%2Fc?a%20b%26c", "/a%20b%2Fc?a%20b%26c"),
    ("a fragment with a blank", "/a#b c", "/a"),
];

/// Characters that do not belong into a URL: in a redirect, a token realm, and a `latest.json`.
fn url_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, sent, asked) in ODD {
        let redirect = move |p: &Published, a: &Ask| {
            let file = if p.is_kernel(a) { "k" } else { "i" };
            match (a.path.contains("/blobs/"), a.path.strip_prefix('/').and_then(|path| path.split_at_checked(1))) {
                (true, _) => Reply::redirect(&format!("http://{}/{file}{sent}", a.other)).status(307),
                (_, Some((file @ ("k" | "i"), rest))) if a.is_other && rest == asked => {
                    let path = if file == "k" { "/vmlinuz" } else { "/kubesolo-os.gz" };
                    p.honest(&Ask { path: path.into(), ..a.clone() })
                }
                _ => p.honest(a),
            }
        };
        rows.push(row(format!("redirect to {name}: good"), redirect).says(&["staged"]).works(9));
        let realm = move |p: &Published, a: &Ask| match (&a.authorization, a.path.strip_prefix("/token")) {
            (None, None) => {
                let quoted = sent.replace('\\', "\\\\").replace('"', "\\\"");
                Reply::new(401, "").header(
                    "WWW-Authenticate",
                    &format!("Bearer realm=\"http://{}/token{quoted}\",service=\"s\"", a.here),
                )
            }
            // Its own parameters come behind.
            (_, Some(rest)) if rest.starts_with(asked) => p.honest(a),
            (_, Some(_)) => Reply::new(404, ""),
            _ => p.honest(a),
        };
        rows.push(row(format!("realm with {name}: good"), realm).says(&["staged"]).works(7));
        let latest = move |p: &Published, a: &Ask| match (a.path.as_str(), a.path.strip_prefix("/files/vmlinuz")) {
            ("/latest.json", _) => {
                let url = sent.replace('\\', "\\\\").replace('"', "\\\"");
                Reply::ok(p.latest.replacen("files/vmlinuz", &format!("files/vmlinuz{url}"), 1))
            }
            (_, Some(rest)) if rest == asked => p.honest(&Ask { path: "/vmlinuz".into(), ..a.clone() }),
            (_, Some(_)) => Reply::new(404, ""),
            _ => p.honest(a),
        };
        rows.push(row(format!("url with {name}, latest.json: good"), latest).http().says(&["staged"]).works(5));
    }
    rows.push(
        row("redirect with a tab", |_, a| Reply::redirect(&format!("http://{}/a\tb", a.other))).says(&["control"]),
    );
    for (name, url) in [
        ("CR and LF", "files/\\r\\nX: y"),
        ("a NUL", "files/\\u0000"),
        ("DEL", "files/\\u007f"),
        ("C1", "files/\\u0085"),
    ] {
        let change = move |p: &Published, _: &Ask| Reply::ok(p.latest.replacen("files/vmlinuz", url, 1));
        rows.push(row(format!("url with {name}, latest.json"), change).http().says(&["kernel.url", "control"]));
    }
    let conf = |query: &'static str| format!("retries = 0\nmirror = http://127.0.0.1:1/{query}");
    rows.push(
        row("a mirror of update.conf with a blank: good", |p, a| p.honest(a))
            .http()
            .conf(&conf("my files/"))
            .says(&["staged"])
            .works(5),
    );
    rows
}

fn rows() -> Vec<Row> {
    [cut_rows(), other_rows(), url_rows(), value_rows()].into_iter().flatten().collect()
}

#[apply(test)]
fn hostile_and_unusual_documents() {
    need_disks();
    hold_all(rows());
}

#[apply(test)]
fn the_table_is_listed() {
    assert_listed("hostile_documents", &rows());
}

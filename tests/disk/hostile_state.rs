//! Servers that do harm over several requests or runs: what is kept between runs, mirrors, memory, and who is shown what.

use crate::support::disk::B;
use crate::support::hostile::{Ask, Hostile, Length, Reply, Step};
use crate::support::hostile_bench::{
    Bench, HTTP, MIRRORED, REGISTRY, SOURCES, Which, each, hold, honest, is_document, is_file, run_with,
};
use crate::support::hostile_table::{PUBLISHED, TOKEN, assert_staged, index, part_name};
use crate::support::pull::{AUTH_FILE, assert_secrecy, put};
use crate::support::release::{Medium, Release};
use crate::support::{self, command, need, run};
use std::fs;
use std::sync::Arc;

/// Most memory that a run may have at once.
const MAX_RSS_KIB: u64 = 6 << 10;
/// One-byte chunks of a body; with their extensions 60 MB.
const SMALL_CHUNKS: usize = 60_000;
const PASSWORD: &str = "hunter2";
/// `user:hunter2` in base64.
const PAIR: &str = "dXNlcjpodW50ZXIy";
/// Bytes of a kernel that an earlier run left.
const LEFT_BYTES: usize = 700_000;

type Answer = fn(&[u8], usize) -> Reply;
type Words<'a> = &'a [&'a str];
type Variables<'a> = &'a [(&'a str, &'a str)];

// Memory

/// The first bytes in chunks of one byte, each with an extension; the rest in one chunk.
fn in_small_chunks(bytes: &[u8]) -> Vec<u8> {
    let extension = "a".repeat(1017);
    let (small, rest) = bytes.split_at(SMALL_CHUNKS.min(bytes.len()));
    let mut out = format!("1;{}\r\n", &extension[..500]).into_bytes();
    for (at, byte) in small.iter().enumerate() {
        let next = if at + 1 < small.len() { format!("\r\n1;{extension}\r\n") } else { "\r\n".into() };
        out.push(*byte);
        out.extend(next.bytes());
    }
    if !rest.is_empty() {
        out.extend(format!("{:x}\r\n", rest.len()).bytes());
        out.extend(rest);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\n\r\n");
    out
}

#[apply(test)]
fn small_chunks_with_long_extensions_take_no_memory() {
    need("time");
    let cases = each(&SOURCES, &[("check", is_document as Which), ("apply", |a| PUBLISHED.is_kernel(a))]);
    hold(cases, |(conf, (args, spoils))| {
        let bench = Bench::new(conf, move |ask| {
            let good = honest(ask);
            if ask.method == "HEAD" || !spoils(ask) {
                return good;
            }
            let padding = if is_document(ask) { SMALL_CHUNKS } else { 0 };
            let [Step::Send(bytes)] = good.body.as_slice() else { panic!("no bytes") };
            let body = in_small_chunks(&[bytes.as_slice(), &b" ".repeat(padding)].concat());
            let chunked = Reply { body: vec![Step::Send(body)], ..good.clone() };
            chunked.header("Transfer-Encoding", "chunked").length(Length::Absent)
        });
        let (done, kib) = bench.measure(&[args]);
        eprintln!("{args}: peak {kib} KiB");
        assert!([0, 6].contains(&done.code), "{args}: {done:?}");
        assert!(!done.stderr.contains("took longer"), "{args}: {done:?}");
        match std::env::var_os("KUBESOLO_UPDATE_BIN") {
            Some(_) => assert!(kib < MAX_RSS_KIB, "{args}: {kib} KiB; {done:?}"),
            None => eprintln!("a debug build: its {kib} KiB are held to nothing"),
        }
    });
}

// Tokens

/// A registry that wants a token, and its token server.
fn with_token(ask: &Ask, token: impl Fn(&Ask) -> Reply) -> Reply {
    let held = ask.authorization.as_deref() == Some(&format!("Bearer {TOKEN}"));
    match (ask.path.starts_with("/token"), held) {
        (true, _) => token(ask),
        (_, true) => honest(ask),
        _ => Reply::new(401, "")
            .header("WWW-Authenticate", &format!("Bearer realm=\"http://{}/token\",service=\"s\"", ask.here)),
    }
}

const ENTRIES: [&str; 2] = [r#""auth":"dXNlcjpodW50ZXIy""#, r#""identitytoken":"hunter2""#];

#[apply(test)]
fn a_busy_token_server_is_asked_again() {
    hold(ENTRIES, |entry| {
        let conf = format!("{REGISTRY}\nauth_file = {AUTH_FILE}\nretries = 1");
        let bench = Bench::new(&conf, |ask| {
            with_token(ask, |token| match token.nth {
                0 => Reply::new(503, "busy").header("Retry-After", "1"),
                _ => honest(token),
            })
        });
        bench.log_in(entry);
        bench.stages();
    });
}

#[apply(test)]
fn a_token_in_an_error_is_none() {
    hold([404, 500], |status| {
        let bench = Bench::new(REGISTRY, move |ask| with_token(ask, |token| honest(token).status(status)));
        bench.run(&["apply"]).expect(6, &[&status.to_string()]);
        assert!(bench.server.seen().iter().all(|ask| ask.authorization.is_none()), "the token was used");
    });
}

/// What servers say that repeat what they were told.
const ECHOES: [&str; 4] = [
    r#"{"errors":[{"code":"X","message":"invalid token hunter2"}]}"#,
    r#"{"errors":[{"code":"X","message":"invalid Basic dXNlcjpodW50ZXIy"}]}"#,
    r#"{"errors":[{"code":"hunter2","message":"X","detail":"hunter2"}]}"#,
    r#"{"error":"invalid_grant","error_description":"hunter2","details":"hunter2","message":"hunter2"}"#,
];

#[apply(test)]
fn a_secret_that_a_server_repeats_is_not_shown() {
    let statuses = each(&ECHOES, &[400, 401, 403, 500]);
    let mut cases = each(&statuses, &[("Bearer", ENTRIES[0]), ("Bearer", ENTRIES[1]), ("Basic", ENTRIES[0])]);
    // Who has a token alone knows nothing of the pair.
    cases.retain(|((echo, _), (_, entry))| *entry == ENTRIES[0] || !echo.contains(PAIR));
    // One machine will do: nothing is downloaded.
    let bench = Bench::new(REGISTRY, |_| Reply::new(500, ""));
    hold(cases, |((echo, status), (scheme, entry))| {
        let server = Hostile::start(Arc::new(move |ask: &Ask| match (scheme, &ask.authorization) {
            ("Bearer", _) => with_token(ask, |_| Reply::new(status, echo)),
            (_, None) => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
            _ => Reply::new(status, echo),
        }));
        let conf = format!("registry = {}/os:v1\nauth_file = {AUTH_FILE}", server.here);
        bench.configure(&conf);
        put(&bench.machine, "config.json", format!(r#"{{"auths":{{"{}":{{{entry}}}}}}}"#, server.here), 0o600);
        let _ = fs::remove_file(bench.machine.root.path("var/lib/kubesolo/update/state.json"));
        for (args, code) in [(["check", "--json"], 6), (["apply", "--json"], 6), (["status", "--json"], 0)] {
            let done = bench.run(&args);
            assert_secrecy(&bench.machine, &done, &[PASSWORD, PAIR]);
            done.expect(code, &[]);
        }
        assert!(server.seen().iter().any(|ask| ask.body.contains("refresh_token") || ask.authorization.is_some()));
    });
}

#[apply(test)]
fn a_token_that_a_registry_repeats_is_not_shown() {
    let error = format!(r#"{{"errors":[{{"code":"DENIED","message":"Bearer {TOKEN} may not"}}]}}"#);
    hold([400, 401, 403, 404, 500], |status| {
        let reply = Reply::new(status, error.as_str());
        let bench = Bench::new(REGISTRY, move |ask| match ask.authorization {
            Some(_) => reply.clone(),
            None => with_token(ask, honest),
        });
        let done = bench.run(&["apply", "--json"]);
        assert!(bench.server.seen().iter().any(|ask| ask.authorization.is_some()), "{done:?}");
        assert_secrecy(&bench.machine, &done, &[TOKEN]);
        done.expect(6, &[]);
    });
}

#[apply(test)]
fn a_document_sends_no_password_to_a_host_that_is_not_configured() {
    let challenges =
        [|_: &Ask| "Basic realm=\"x\"".to_string(), |a: &Ask| format!("Bearer realm=\"http://{}/t\"", a.other)];
    let names = [("no mirror", ""), ("mirror", "mirror = http://{other}")];
    let cases = each(&each(&["auto", "yes"], &names), &[0, 1]);
    hold(cases, |((rule, (_, mirror)), challenge)| {
        let conf = format!("{HTTP}\nplain_http = {rule}\nauth_file = {AUTH_FILE}\n{mirror}");
        let bench = Bench::new(&conf, move |ask| {
            let shown = ask.authorization.as_deref();
            let absolute = PUBLISHED.latest.replace("files/", &format!("http://{}/files/", ask.other));
            match (ask.is_other, ask.path.as_str(), shown) {
                (false, "/latest.json", _) => Reply::ok(absolute),
                (true, "/t", Some(_)) => Reply::ok(format!(r#"{{"token":"{TOKEN}"}}"#)),
                (true, _, None) => Reply::new(401, "").header("WWW-Authenticate", &challenges[challenge](ask)),
                _ => honest(ask),
            }
        });
        bench.log_in(ENTRIES[0]);
        let done = bench.run(&["apply"]);
        let shown = bench.at_other().iter().any(|ask| ask.authorization.as_deref() == Some(&format!("Basic {PAIR}")));
        assert_eq!(shown, !mirror.is_empty(), "{done:?}");
        done.expect(if mirror.is_empty() { 6 } else { 0 }, &[]);
    });
}

// What is kept between runs

#[apply(test)]
fn an_etag_that_fits_no_header_is_not_kept() {
    let etags = [("tab", "a\t", 1), ("C1", "a\u{85}", 1), ("long", "", 20 << 10)];
    hold(each(&SOURCES, &etags), |(conf, (_, head, letters))| {
        let etag = format!("\"{head}{}\"", "x".repeat(letters));
        let bench = Bench::new(conf, move |ask| honest(ask).header("ETag", &etag));
        for args in ["check", "check", "apply"] {
            let asked = |bench: &Bench| bench.server.seen().iter().filter(|a| a.is_get() && is_document(a)).count();
            let before = asked(&bench);
            bench.run(&[args]).expect(0, &["2.0.0"]);
            assert!(asked(&bench) > before, "{args}: it was not asked");
        }
        assert_staged(&bench.machine, conf);
    });
}

#[apply(test)]
fn a_file_goes_on_after_a_break_whatever_its_etag() {
    let cases = each(&SOURCES, &["\"a\tb\"", "\"a\u{85}b\""]);
    hold(cases, |(conf, etag)| {
        let bench = Bench::new(&format!("{conf}\nretries = 1"), move |ask| {
            let good = honest(ask).header("ETag", etag);
            let breaks = ask.is_get() && ask.nth == 0 && PUBLISHED.is_kernel(ask);
            if breaks { good.then(LEFT_BYTES, vec![]) } else { good }
        });
        bench.stages();
    });
}

#[apply(test)]
fn a_server_that_refuses_head_is_asked_with_get() {
    let cases = each(&SOURCES, &[400, 403, 404, 405, 501]);
    hold(cases, |(conf, status)| {
        let bench = Bench::new(conf, move |ask| if ask.is_get() { honest(ask) } else { Reply::new(status, "") });
        for args in ["check", "check", "apply"] {
            bench.run(&[args]).expect(0, &["2.0.0"]);
        }
        assert_staged(&bench.machine, conf);
    });
}

#[apply(test)]
fn a_head_that_says_length_0_is_not_believed() {
    hold(SOURCES, |conf| {
        let bench = Bench::new(conf, |ask| if is_file(ask) && !ask.is_get() { Reply::ok("") } else { honest(ask) });
        bench.stages();
    });
}

/// Lets debugfs change slot B, past the kernel's caches.
fn change_slot(bench: &mut Bench, request: &str) {
    bench.machine.disk.detach();
    let disk = &bench.machine.disk;
    let target = format!("{}?offset={}", disk.image.display(), disk.extent(B).0);
    run(command("debugfs").args(["-w", "-R", request]).arg(target));
    bench.machine.disk.attach();
    assert!(bench.machine.disk.names(B).contains(&part_name()), "{request}");
}

#[apply(test)]
fn a_server_that_can_not_go_on_begins_anew() {
    let answers: [(&str, Answer); 5] = [
        ("416", |_, _| Reply::new(416, "")),
        ("206 of the whole", |k, _| ranged(k, format!("bytes 0-{}/{}", k.len() - 1, k.len()))),
        ("206 of a later part", |k, n| ranged(&k[n + 1..], format!("bytes {}-{}/{}", n + 1, k.len() - 1, k.len()))),
        ("206 of a longer file", |k, n| ranged(&k[n..], format!("bytes {n}-{}/{}", k.len() - 1, k.len() + 1))),
        ("206 without a range", |k, n| Reply::new(206, &k[n..])),
    ];
    let cases = each(&SOURCES, &answers);
    hold(cases, |(conf, (_, answer))| {
        let mut bench = Bench::new(conf, move |ask| match ask.from() {
            0 => honest(ask),
            from => answer(&PUBLISHED.kernel, from),
        });
        let left = bench.machine.disk.dir().join("left");
        fs::write(&left, &PUBLISHED.kernel[..LEFT_BYTES]).unwrap();
        change_slot(&mut bench, &format!("write {} {}", left.display(), part_name()));
        let done = bench.run(&["apply"]);
        assert!(bench.server.seen().iter().any(|ask| ask.from() > 0), "it did not go on: {done:?}");
        bench.staged(done);
    });
}

fn ranged(bytes: &[u8], range: String) -> Reply {
    Reply::new(206, bytes).header("Content-Range", &range)
}

#[apply(test)]
fn what_is_no_file_makes_way_for_a_part() {
    let name = part_name();
    let requests = [
        format!("mkdir {name}"),
        format!("symlink {name} /x"),
        format!("symlink {name} vmlinuz"),
        format!("mknod {name} p"),
    ];
    hold(requests, |request| {
        let mut bench = Bench::new(REGISTRY, honest);
        change_slot(&mut bench, &request);
        bench.stages();
    });
}

// Mirrors

#[apply(test)]
fn a_mirror_sees_its_own_query_alone() {
    let conf = "server = http://{here}/?sig=geheim\nmirror = http://{other}/m/?own=1";
    let fails: [(&str, Which); 2] = [("everything fails", |_| true), ("files fail", is_file)];
    hold(fails, |(_, fails)| {
        let bench = Bench::new(conf, move |ask| {
            let path = ask.path.split('?').next().unwrap();
            let path = path.strip_prefix("/m").unwrap_or(path).to_owned();
            let ask = Ask { path, ..ask.clone() };
            if !ask.is_other && fails(&ask) { Reply::new(503, "") } else { honest(&ask) }
        });
        let done = bench.run(&["apply"]);
        let seen = bench.at_other();
        assert!(!seen.is_empty(), "the mirror was not asked: {done:?}");
        assert!(!format!("{seen:?}").contains("geheim"), "{seen:#?}");
        let bare = seen.iter().find(|ask| is_document(ask) && !ask.path.ends_with("?own=1"));
        assert!(bare.is_none(), "{bare:?}");
        assert_secrecy(&bench.machine, &done, &["geheim"]);
        bench.staged(done);
    });
}

#[apply(test)]
fn a_mirror_is_asked_at_once_where_the_first_asks_to_wait() {
    let parts: [(&str, Which); 3] = [
        ("document", is_document),
        ("kernel", |a| PUBLISHED.is_kernel(a)),
        ("initramfs", |a| PUBLISHED.is_initramfs(a)),
    ];
    // 70 s are more than a run here may take.
    let waits = each(&[(429, "99999"), (503, "70")], &[0, 7]);
    let cases = each(&each(&MIRRORED, &parts), &waits);
    hold(cases, |((conf, (_, is_part)), ((status, secs), retries))| {
        let bench =
            Bench::new(&format!("{conf}\nretries = {retries}"), move |ask| match !ask.is_other && is_part(ask) {
                true => Reply::new(status, "").header("Retry-After", secs),
                false => honest(ask),
            });
        bench.stages();
    });
}

/// Which of several places refuses Range is not forgotten while another one is asked.
#[apply(test)]
fn a_server_that_refuses_range_is_asked_for_the_whole_although_its_mirror_is_down() {
    for is_down in [(|a| a.is_get()) as Which, |a| PUBLISHED.is_kernel(a)] {
        let bench = Bench::new(&format!("{}\nretries = 3", MIRRORED[1]), move |ask| match &ask.range {
            _ if ask.is_other => {
                if is_down(ask) {
                    Reply::new(503, "")
                } else {
                    honest(ask)
                }
            }
            Some(_) => Reply::new(503, ""),
            None if PUBLISHED.is_kernel(ask) && ask.nth == 0 => honest(ask).then(700_000, vec![Step::Reset]),
            None => honest(ask),
        });
        bench.stages();
    }
}

/// An index with one entry, the manifest.
fn one_index() -> Reply {
    let (digest, size) = (&PUBLISHED.manifest_sha, PUBLISHED.manifest.len());
    let platform = format!(r#""platform":{{"os":"linux","architecture":"{}"}}"#, support::disk::architecture());
    let entry = format!(
        r#"{{"mediaType":"{}","digest":"sha256:{digest}","size":{size},{platform}}}"#,
        support::hostile_table::MANIFEST_TYPE
    );
    let kind = support::hostile_table::INDEX_TYPE;
    index(&format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{entry}]}}"#))
}

#[apply(test)]
fn a_mirror_is_used_where_the_first_has_other_bytes() {
    let by_digest = MIRRORED[0].replace(":v1", &format!("@sha256:{}", PUBLISHED.manifest_sha));
    let cases: [(&str, &str, Which); 6] = [
        ("manifest by digest", &by_digest, is_document),
        ("manifest in an index", MIRRORED[0], |a| a.path.ends_with(&PUBLISHED.manifest_sha)),
        ("kernel, blob", MIRRORED[0], |a| PUBLISHED.is_kernel(a)),
        ("initramfs, blob", MIRRORED[0], |a| PUBLISHED.is_initramfs(a)),
        ("kernel, file", MIRRORED[1], |a| PUBLISHED.is_kernel(a)),
        ("initramfs, file", MIRRORED[1], |a| PUBLISHED.is_initramfs(a)),
    ];
    hold(each(&cases, &[true, false]), |((_, conf, is_it), mirror)| {
        let conf = if mirror { conf } else { conf.split_once('\n').unwrap().0 };
        let bench = Bench::new(conf, move |ask| match ask.path.ends_with("/v1") {
            true => one_index(),
            false if ask.is_get() && !ask.is_other && is_it(ask) => honest(ask).change(|bytes| bytes.fill(b'x')),
            false => honest(ask),
        });
        let done = bench.run(&["apply"]);
        if mirror {
            bench.staged(done);
        } else {
            done.expect(5, &[]);
        }
    });
}

// What has nothing to do with a source

#[apply(test)]
fn what_a_source_does_not_need_is_not_looked_at() {
    need("oras");
    let dir = tempfile::tempdir().unwrap();
    let medium = Medium::new(dir.path(), &Release::new("2.0.0"));
    let layout = ["--layout", medium.path()];
    let missing = "server = https://192.0.2.1\nauth_file = /etc/kubesolo/none.json";
    let open = "server = https://192.0.2.1\nauth_file = /etc/kubesolo/open.json";
    let nowhere = "server = https://192.0.2.1";
    let cases: [(&str, Words, Variables); 7] = [
        (missing, &layout, &[]),
        (open, &layout, &[]),
        (nowhere, &layout, &[("HTTPS_PROXY", "::nonsense::")]),
        (nowhere, &layout, &[("ALL_PROXY", "socks5://x")]),
        (REGISTRY, &[], &[("ALL_PROXY", "socks5://x")]),
        (HTTP, &[], &[("ALL_PROXY", "socks5://x")]),
        (REGISTRY, &[], &[("HTTPS_PROXY", "::nonsense::")]),
    ];
    hold(cases, |(conf, args, variables)| {
        let bench = Bench::new(conf, honest);
        put(&bench.machine, "open.json", "{}", 0o644);
        for verb in ["check", "apply"] {
            run_with(&bench.machine, &[&[verb], args].concat(), variables).expect(0, &["2.0.0"]);
        }
        assert_staged(&bench.machine, conf);
    });
}

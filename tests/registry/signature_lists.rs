//! Lists of what refers to a release, as a registry may send them: in pages, endless, false, huge, with errors in between.
//! What a good registry has is found; what a bad one sends costs a bounded number of requests, and little memory.
//!
//! Longer than other files: every case is a script for one and the same registry.

use crate::support::disk::{architecture, need_disks};
use crate::support::listener::{Listener, Request};
use crate::support::machine::{Left, Machine};
use crate::support::pull::put;
use crate::support::root::Run;
use crate::support::signed::{
    INDEX_TYPE, MANIFEST_TYPE, Shelf, descriptor, digest, index_of, list, listed, manifest, referrer,
};
use crate::support::signing::{BUNDLE_TYPE, Forge, KeyPair};
use crate::support::web::Answer;
use crate::support::{command, need_all, run};
use std::fs;
use std::net::TcpListener;
use std::slice::from_ref;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Most candidates, and most pages of one list, that the agent looks at.
const MAX_CANDIDATES: usize = 128;
const MAX_PAGES: usize = 16;
/// Longest list in bytes.
const LIST_MAX: usize = 1 << 20;
/// Most entries of one list: more would be too many parts of JSON.
const MAX_ENTRIES: usize = 2046;
/// Most memory that the agent may need, in KiB.
const RSS_MAX: u64 = 6 << 10;

fn ready() {
    need_disks();
    need_all(&["openssl", "curl", "time"]);
}

/// A release in a scripted registry's storage, and who signs it.
struct Bench {
    dir: TempDir,
    key: KeyPair,
    machine: Machine,
    shelf: Shelf,
    /// Its descriptor.
    subject: String,
    digest: String,
}

impl Bench {
    /// One manifest without an index: one subject.
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::p256(dir.path(), "key");
        let (machine, mut shelf) = (Machine::new(), Shelf::default());
        fs::create_dir(machine.root.path("etc/kubesolo/update-keys.d")).unwrap();
        put(&machine, "update-keys.d/key.pub", key.pem(), 0o644);
        let manifest = manifest(architecture(), "2.0.0");
        let digest = shelf.put(&manifest);
        shelf.name("v1", &manifest);
        Bench { dir, key, machine, shelf, subject: descriptor(MANIFEST_TYPE, &manifest, ""), digest }
    }

    /// A good bundle, attached. Returns: the entry of the list.
    fn attach_good(&mut self) -> String {
        let bundle = Forge::new(&self.digest, &[&self.key]).bundle();
        self.shelf.attach(&self.subject, &bundle)
    }

    /// Candidates that look right and hold what is no bundle.
    fn attach_junk(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|n| self.shelf.attach(&self.subject, &format!("{{\"junk\":{n}}}"))).collect()
    }

    /// Starts the registry. Input: `answer`: what is asked of the lists; `None`: what is on the shelf, or 404.
    fn serve(&self, answer: impl Fn(&Request, &str) -> Option<Answer> + Send + Sync + 'static) -> Site {
        let (shelf, tag) = (self.shelf.clone(), self.tag());
        let listener = Listener::start("127.0.0.1", None, move |request| {
            let host = request.header("host").unwrap().to_owned();
            answer(request, &host).unwrap_or_else(|| shelf.answer(request))
        });
        self.machine.root.configure(&format!("registry = {}/os:v1\nretries = 0\n", listener.host()));
        Site { listener, tag }
    }

    fn tag(&self) -> String {
        self.digest.replace(':', "-")
    }

    #[track_caller]
    fn check(&self, code: i32, words: &[&str]) -> Run {
        self.machine.root.agent(&["check", "--json"]).expect(code, words)
    }

    #[track_caller]
    fn accepted(&self) {
        let run = self.check(0, &[]);
        assert_eq!(run.jq(".offered.signed_by"), format!("[\"{}\"]", self.key.fingerprint()));
    }

    /// Peak memory of a run in KiB, besides how it ended.
    fn measure(&self, args: &[&str]) -> (Run, u64) {
        let figure = self.dir.path().join("rss");
        let mut time = command("time");
        time.args(["-q", "-f", "%M", "-o"]).arg(&figure);
        let run = self.machine.root.command_under(time, args).output().unwrap().into();
        (run, fs::read_to_string(figure).unwrap().trim().parse().unwrap())
    }
}

/// A scripted registry, and what it was asked for.
struct Site {
    listener: Listener,
    tag: String,
}

impl Site {
    fn count(&self, is_one: impl Fn(&Request) -> bool) -> usize {
        self.listener.seen().iter().filter(|request| is_one(request)).count()
    }

    fn lists(&self) -> usize {
        self.count(is_list)
    }

    fn tags(&self) -> usize {
        self.count(|request| request.target.contains(&self.tag))
    }

    fn all(&self) -> usize {
        self.listener.seen().len()
    }

    /// How often something was fetched by this digest.
    fn fetched(&self, digest: &str) -> usize {
        self.count(|request| request.target.ends_with(digest) && !is_list(request))
    }
}

fn is_list(request: &Request) -> bool {
    request.target.contains("/referrers/")
}

fn index(entries: &[String]) -> Answer {
    Answer::ok(list(entries)).header("Content-Type", INDEX_TYPE)
}

/// Which page is asked for: 1 unless a link said otherwise.
fn page(request: &Request) -> usize {
    request.target.split_once("page=").map_or(1, |(_, n)| n.parse().unwrap())
}

fn entry_digest(entry: &str) -> String {
    let from = entry.find("sha256:").unwrap();
    entry[from..from + 71].to_owned()
}

/// An entry for what is not there.
fn absent(n: usize, artifact_type: &str) -> String {
    listed(&format!("absent {n}")).replace(BUNDLE_TYPE, artifact_type)
}

#[apply(test)]
fn the_good_signature_on_page_3_is_found() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    let path = format!("/v2/os/referrers/{}", bench.digest);
    for link in [
        "<{path}?page={next}>; rel=\"next\"",
        "<http://{host}{path}?page={next}>; rel=\"next\"",
        "<?page={next}>; rel=next",
        "<{path}?page=1>; rel=\"first\", <{path}?page={next}>; rel=\"next\"",
        "</v2/os/referrers/elsewhere?page={next}>; rel=\"next\"",
    ] {
        let (good, path) = (good.clone(), path.clone());
        let site = bench.serve(move |request, host| {
            let link = |next: usize| {
                link.replace("{path}", &path).replace("{host}", host).replace("{next}", &next.to_string())
            };
            is_list(request).then(|| match page(request) {
                3 => index(from_ref(&good)),
                n => index(&[absent(n, BUNDLE_TYPE)]).header("Link", &link(n + 1)),
            })
        });
        bench.accepted();
        assert_eq!((site.lists(), site.tags()), (3, 0), "{link}");
        // The first page is asked for by type.
        let first = site.listener.seen().into_iter().find(is_list).unwrap().target;
        assert!(first.starts_with(&path_of(&bench)) && first.contains("artifactType=application%2Fvnd"), "{first}");
    }
}

fn path_of(bench: &Bench) -> String {
    format!("/v2/os/referrers/{}?", bench.digest)
}

#[apply(test)]
fn pages_without_end_end() {
    ready();
    let mut bench = Bench::new();
    bench.attach_good();
    type Next = fn(usize) -> usize;
    let ways: [(&str, Next); 3] = [("itself", |_| 1), ("two", |n| 3 - n), ("ever new ones", |n| n + 1)];
    for (name, next) in ways {
        // Of lists by API, and by tag.
        let site = bench.serve(move |request, _| {
            let is_tag = request.target.contains("manifests/sha256-");
            let link = format!("<?page={}>; rel=\"next\"", next(page(request)));
            (is_list(request) || is_tag).then(|| index(&[]).header("Link", &link))
        });
        bench.check(5, &["it is not signed"]);
        // And three for the words: cosign 2's two tags, and the list without a filter.
        let (lists, tags) = (MAX_PAGES + 1, MAX_PAGES + 2);
        assert_eq!((site.lists(), site.tags(), site.all()), (lists, tags, 1 + lists + tags), "{name}");
    }
    // On the last page that is read, and on the one after it.
    for (good_page, code) in [(MAX_PAGES, 0), (MAX_PAGES + 1, 5)] {
        let good = listed_good(&bench);
        let site = bench.serve(move |request, _| {
            let n = page(request);
            let entries = if n == good_page { vec![good.clone()] } else { vec![] };
            let link = format!("<?page={}>; rel=\"next\"", n + 1);
            is_list(request).then(|| index(&entries).header("Link", &link))
        });
        bench.check(code, &[]);
        // The one more is without a filter, for the words of the error.
        assert_eq!(site.lists(), MAX_PAGES + usize::from(code != 0));
    }
}

/// The entry of the good bundle that is on the shelf.
fn listed_good(bench: &Bench) -> String {
    let bundles = bench.shelf.find(|text| text.contains("dsseEnvelope"));
    let bundle = bundles.first().expect("a bundle is on the shelf");
    listed(&referrer(&bench.subject, bundle.as_bytes()))
}

#[apply(test)]
fn a_next_page_on_another_host_is_not_asked_for() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    let elsewhere = good.clone();
    let other = Listener::start("127.0.0.2", None, move |_| index(from_ref(&elsewhere)));
    let port = other.host().rsplit(':').next().unwrap().to_owned();
    // Another host, the same with another scheme, the same with another port.
    for (name, link) in [
        ("host", format!("http://{}/v2/os/referrers/x?page=2", other.host())),
        ("no scheme", format!("//{}/v2/os/referrers/x?page=2", other.host())),
        ("scheme", "https://{host}/v2/os/referrers/x?page=2".into()),
        ("port", format!("http://127.0.0.1:{port}/v2/os/referrers/x?page=2")),
        ("user", format!("http://{{host}}@{}/v2/os/referrers/x?page=2", other.host())),
    ] {
        let site = bench.serve(move |request, host| {
            let link = format!("<{}>; rel=\"next\"", link.replace("{host}", host));
            is_list(request).then(|| index(&[]).header("Link", &link))
        });
        bench.check(5, &["no signature of it counts"]);
        assert_eq!((site.lists(), site.tags()), (1, 1), "{name}");
    }
    assert!(other.seen().is_empty(), "{:?}", other.seen());
    // That it would have been found there.
    let answered = run(command("curl").args(["-s", &format!("http://{}/", other.host())]));
    assert!(answered.contains(&entry_digest(&good)));
}

#[apply(test)]
fn a_bad_link_does_not_hide_the_page_that_it_stands_on() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    // As registries behind a proxy that ends TLS write them; and no URL at all.
    for link in ["https://{host}/v2/os/referrers/x?page=2", "http://registry.internal:5000/v2/x", "http://[/"] {
        let good = good.clone();
        let _site = bench.serve(move |request, host| {
            let link = format!("<{}>; rel=\"next\"", link.replace("{host}", host));
            is_list(request).then(|| index(from_ref(&good)).header("Link", &link))
        });
        bench.accepted();
    }
}

#[apply(test)]
fn ten_thousand_signatures_that_are_none_cost_little() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    let junk = bench.attach_junk(200);
    // Of the right type, 1000 on each page; the first 200 are there.
    let entries: Vec<String> =
        junk.iter().cloned().chain((0..9800).map(|n| absent(n, BUNDLE_TYPE))).chain([good]).collect();
    let paged = entries.clone();
    let site = bench.serve(move |request, _| {
        is_list(request).then(|| {
            let n = page(request);
            let end = if n == 10 { paged.len() } else { n * 1000 };
            let answer = index(&paged[(n - 1) * 1000..end]);
            if n < 10 { answer.header("Link", &format!("<?page={}>; rel=\"next\"", n + 1)) } else { answer }
        })
    });
    let (run, rss) = bench.measure(&["check"]);
    run.expect(5, &["a bundle is malformed", &format!("the first {MAX_CANDIDATES} candidates")]);
    assert_eq!((site.lists(), site.tags(), site.all()), (1, 0, 2 + 2 * MAX_CANDIDATES));
    assert!(rss < RSS_MAX, "{rss} KiB");
    // All in one answer: more than is read.
    let whole = list(&entries);
    assert!(whole.len() > LIST_MAX);
    let site = bench.serve(move |request, _| {
        is_list(request).then(|| Answer::ok(whole.clone()).header("Content-Type", INDEX_TYPE))
    });
    let (run, rss) = bench.measure(&["check"]);
    run.expect(5, &["no signature of it counts"]);
    assert_eq!((site.lists(), site.tags(), site.all()), (1, 1, 3));
    assert!(rss < RSS_MAX, "{rss} KiB");
    bench.machine.apply(&[]).expect(5, &["no signature of it counts"]);
    bench.machine.assert_unharmed("10,000 signatures", "failed", "signature", Left::Untouched);
}

#[apply(test)]
fn the_largest_list_takes_little_memory() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    // As many entries, and as many bytes, as are read at all; all of them may be signatures.
    let filler = format!(r#"{{"x":"{}","mediaType""#, "x".repeat(270));
    let entries: Vec<String> =
        (0..MAX_ENTRIES).map(|n| absent(n, BUNDLE_TYPE).replacen("{\"mediaType\"", &filler, 1)).collect();
    let none = list(&entries);
    let good_first = none.replacen(&entries[0], &good, 1);
    for (name, whole, code) in [("good one first", good_first, 0), ("none", none, 5)] {
        assert!(whole.len() <= LIST_MAX && whole.len() > LIST_MAX * 9 / 10, "{}", whole.len());
        let by_tag = name == "none";
        let site = bench.serve(move |request, _| {
            let is_tag = request.target.contains("manifests/sha256-");
            let is_answered = is_list(request) || by_tag && is_tag;
            is_answered.then(|| Answer::ok(whole.clone()).header("Content-Type", INDEX_TYPE))
        });
        for args in [["check"], ["apply"]] {
            let (run, rss) = bench.measure(&args);
            eprintln!("{name}: {args:?}: {rss} KiB");
            assert!(rss < RSS_MAX, "{name}: {rss} KiB");
            // There are no files to install.
            run.expect(if code == 0 && args == ["apply"] { 6 } else { code }, &[]);
        }
        assert!(site.lists() >= 2, "{name}");
    }
}

#[apply(test)]
fn a_page_has_some_1000_entries_with_annotations() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    let annotations = r#","annotations":{"org.opencontainers.image.created":"2026-01-01T00:00:00Z"}}"#;
    let annotated = |entry: String| format!("{}{annotations}", entry.strip_suffix('}').unwrap());
    for (count, code, words) in [(1000, 0, ""), (1100, 5, "JSON has too many parts")] {
        let more = (0..count).map(|n| absent(n, "application/spdx+json"));
        let entries: Vec<String> = more.chain([good.clone()]).map(annotated).collect();
        assert!(list(&entries).len() < LIST_MAX);
        let _site = bench.serve(move |request, _| is_list(request).then(|| index(&entries)));
        bench.check(code, &[words]);
    }
}

#[apply(test)]
fn ten_thousand_of_another_type_hide_nothing() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    // A registry that knows no filter. Source: distribution-spec 1.1: a client filters then.
    let mut entries: Vec<String> = (0..10_000).map(|n| absent(n, "application/spdx+json")).collect();
    entries.push(good);
    let site = bench.serve(move |request, _| {
        is_list(request).then(|| {
            let n = page(request);
            let answer = index(&entries[(n - 1) * 900..entries.len().min(n * 900)]);
            match n * 900 < entries.len() {
                true => answer.header("Link", &format!("<?page={}>; rel=\"next\"", n + 1)),
                false => answer,
            }
        })
    });
    bench.accepted();
    assert_eq!((site.lists(), site.all()), (12, 1 + 12 + 2));
}

#[apply(test)]
fn the_last_candidate_that_is_looked_at_counts() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    let junk = bench.attach_junk(MAX_CANDIDATES);
    for (before, code) in [(MAX_CANDIDATES - 1, 0), (MAX_CANDIDATES, 5)] {
        // Each of them twice: what is known is not looked at again.
        let mut entries: Vec<String> = junk[..before].iter().flat_map(|entry| [entry.clone(), entry.clone()]).collect();
        entries.push(good.clone());
        let site = bench.serve(move |request, _| is_list(request).then(|| index(&entries)));
        bench.check(code, &[]);
        assert_eq!(site.fetched(&entry_digest(&junk[0])), 1);
        assert_eq!(site.fetched(&entry_digest(&good)), usize::from(code == 0));
    }
}

#[apply(test)]
fn where_there_is_no_list_the_tag_has_it() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    let (tag, by_tag) = (bench.tag(), list(from_ref(&good)));
    bench.shelf.name(&tag, by_tag);
    let page = "<html>welcome</html>";
    for (name, answer) in [
        ("404", Answer::status(404)),
        ("400", Answer::status(400)),
        ("405", Answer::status(405)),
        ("501", Answer::status(501)),
        ("a page", Answer::ok(page).header("Content-Type", "text/html; charset=utf-8")),
        ("a list as a page", Answer::ok(list(&[])).header("Content-Type", "text/html")),
        ("a page as a list", Answer::ok(page).header("Content-Type", INDEX_TYPE)),
        ("an empty list", index(&[])),
        ("no list", Answer::ok("{}").header("Content-Type", INDEX_TYPE)),
        ("a manifest", Answer::ok(manifest(architecture(), "2.0.0")).header("Content-Type", INDEX_TYPE)),
        ("nothing", Answer::ok("").header("Content-Type", INDEX_TYPE)),
        ("too much", Answer::ok(vec![b' '; LIST_MAX + 1]).header("Content-Type", INDEX_TYPE)),
        ("one bad entry", Answer::ok(list(&["{}".into(), good.clone()])).header("Content-Type", INDEX_TYPE)),
    ] {
        let answer = Mutex::new((answer.status, answer.headers, answer.body));
        let site = bench.serve(move |request, _| {
            let (status, headers, body) = answer.lock().unwrap().clone();
            is_list(request).then_some(Answer { status, headers, body })
        });
        bench.accepted();
        // One entry that makes no sense hides no other.
        assert_eq!((site.lists(), site.tags()), (1, usize::from(name != "one bad entry")), "{name}");
    }
}

#[apply(test)]
fn a_server_that_fails_is_no_forgery() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    let (tag, by_tag) = (bench.tag(), list(from_ref(&good)));
    let around = entry_digest(&good);
    let bundle = bench.shelf.find(|text| text.contains("dsseEnvelope")).remove(0);
    let bundle = digest(bundle);
    for (name, failing) in
        [("list", "/referrers/".into()), ("tag", tag.clone()), ("manifest", around), ("bundle", bundle)]
    {
        for status in [500, 502, 503, 429] {
            let (failing, good): (String, String) = (failing.clone(), good.clone());
            let is_by_tag = name == "tag";
            let site = bench.serve(move |request, _| match request.target.contains(&failing) {
                true => Some(Answer::status(status)),
                false if is_list(request) && !is_by_tag => Some(index(from_ref(&good))),
                false => None,
            });
            bench.check(6, &[&status.to_string()]);
            assert!(site.all() <= 6, "{name}: {status}");
        }
    }
    // What comes back is taken.
    bench.shelf.name(&tag, by_tag);
    let _site = bench.serve(|_, _| None);
    bench.accepted();
    // Trouble with one list, or with one candidate, ends nothing: the tag has it, and the next one is good.
    let site = bench.serve(|request, _| is_list(request).then(|| Answer::status(503)));
    bench.accepted();
    assert_eq!((site.lists(), site.tags()), (1, 1));
    let lost = bench.attach_junk(1).remove(0);
    let (entries, around) = ([lost.clone(), good], entry_digest(&lost));
    let site = bench.serve(move |request, _| match request.target.contains(&around) {
        true => Some(Answer::status(500)),
        false => is_list(request).then(|| index(&entries)),
    });
    bench.accepted();
    assert_eq!(site.fetched(&entry_digest(&lost)), 1);
}

#[apply(test)]
fn a_server_that_stalls_each_candidate_holds_nobody() {
    ready();
    let mut bench = Bench::new();
    let junk = bench.attach_junk(40);
    let digests: Vec<String> = junk.iter().map(|entry| entry_digest(entry)).collect();
    // Says nothing for as long as the sender lives.
    let (sender, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let site = bench.serve(move |request, _| {
        if digests.iter().any(|digest| request.target.contains(digest)) {
            let _ = held.lock().unwrap().recv();
        }
        is_list(request).then(|| index(&junk))
    });
    let conf = bench.machine.root.path("etc/kubesolo/update.conf");
    let text = fs::read_to_string(&conf).unwrap() + "download_timeout = 2\n";
    fs::write(&conf, text).unwrap();
    let started = Instant::now();
    bench.check(6, &["not complete after 2 s"]);
    // One limit for all of them, not one for each.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(site.all() < 10, "{}", site.all());
    drop(sender);
}

#[apply(test)]
fn a_candidate_of_no_use_hides_no_good_one() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    let bundle = Forge::new(&bench.digest, &[&bench.key]).bundle();
    let stranger = KeyPair::ed25519(bench.dir.path(), "stranger");
    let subject = bench.subject.clone();
    let wrap = |bundle: &str| referrer(&subject, bundle.as_bytes());
    // What is not there: the manifest, the bundle.
    let no_manifest = listed(&wrap("not there 1"));
    let lost = wrap("not there 2");
    bench.shelf.put(&lost);
    // What hashes to something else: the manifest, the bundle. Both would do.
    let false_manifest = listed(&wrap("false 1"));
    bench.shelf.put(&bundle);
    bench.shelf.name(&entry_digest(&false_manifest), wrap(&bundle));
    let around_false = wrap(&format!("{bundle}\n"));
    bench.shelf.put(&around_false);
    bench.shelf.name(&digest(format!("{bundle}\n")), format!("{bundle} "));
    // What refers to something else, or to nothing.
    let other = descriptor(MANIFEST_TYPE, manifest(architecture(), "1.9.0"), "");
    let of_other = referrer(&other, bundle.as_bytes());
    let of_nothing = of_other.replace("\"subject\"", "\"object\"");
    bench.shelf.put(&of_other);
    bench.shelf.put(&of_nothing);
    let by_stranger = bench.shelf.attach(&subject, &Forge::new(&bench.digest, &[&stranger]).bundle());
    let no_json = bench.shelf.put("no json at all");
    let no_json = listed("no json at all").replace(&digest("no json at all"), &no_json);
    // More than is said; more than may be.
    let longer = wrap(&bundle).replace(&format!("\"size\":{}", bundle.len()), "\"size\":10");
    bench.shelf.put(&longer);
    let huge = wrap(&bundle).replace(&format!("\"size\":{}", bundle.len()), "\"size\":65537");
    bench.shelf.put(&huge);
    let cases = [
        ("absent manifest", no_manifest),
        ("absent bundle", listed(&lost)),
        ("false manifest", false_manifest),
        ("false bundle", listed(&around_false)),
        ("of something else", listed(&of_other)),
        ("of nothing", listed(&of_nothing)),
        ("by a stranger", by_stranger),
        ("no json", no_json),
        ("longer than said", listed(&longer)),
        ("said to be huge", listed(&huge)),
        ("entry of 64 MiB", listed(&of_other).replace(&format!("\"size\":{}", of_other.len()), "\"size\":67108864")),
    ];
    for (name, entry) in cases {
        let alone = entry.clone();
        let site = bench.serve(move |request, _| is_list(request).then(|| index(from_ref(&alone))));
        bench.check(5, &["sign"]);
        // Once more, without a filter, where nothing says what there is.
        let is_mute = ["of something else", "of nothing", "entry of 64 MiB"].contains(&name);
        assert_eq!(site.lists(), 1 + usize::from(is_mute), "{name}");
        let both = [entry, good.clone()];
        let site = bench.serve(move |request, _| is_list(request).then(|| index(&both)));
        bench.accepted();
        assert!(site.all() <= 6, "{name}");
    }
}

#[apply(test)]
fn what_is_larger_than_announced_is_not_read() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    let bundle = Forge::new(&bench.digest, &[&bench.key]).bundle();
    let huge = vec![b' '; 64 << 20];
    // A bundle, a manifest around one, a list: 64 MiB each.
    let around_small = referrer(&bench.subject, format!("{bundle}\n").as_bytes());
    bench.shelf.put(&around_small);
    let small_bundle = digest(format!("{bundle}\n"));
    let small_manifest = listed(&referrer(&bench.subject, b"small"));
    for (name, target, entry) in [
        ("bundle", small_bundle, listed(&around_small)),
        ("manifest", entry_digest(&small_manifest), small_manifest),
        ("list", "/referrers/".into(), listed(&around_small)),
    ] {
        let body = [bundle.as_bytes(), &huge].concat();
        let by_tag = list(from_ref(&good));
        let mut shelf = bench.shelf.clone();
        shelf.name(&bench.tag(), by_tag);
        std::mem::swap(&mut shelf, &mut bench.shelf);
        let site = bench.serve(move |request, _| match request.target.contains(&target) {
            true => Some(Answer::ok(body.clone()).header("Content-Type", INDEX_TYPE)),
            false => is_list(request).then(|| index(from_ref(&entry))),
        });
        std::mem::swap(&mut shelf, &mut bench.shelf);
        // The good one is by the tag.
        let (run, rss) = bench.measure(&["check"]);
        run.expect(0, &["2.0.0"]);
        assert!(rss < RSS_MAX, "{name}: {rss} KiB");
        assert_eq!(site.tags(), 1, "{name}");
    }
}

#[apply(test)]
fn a_signature_is_looked_for_on_the_index_and_then_on_the_manifest() {
    ready();
    let mut bench = Bench::new();
    let manifest = manifest(architecture(), "2.0.0");
    let index_text = index_of(&manifest);
    let index_digest = bench.shelf.put(&index_text);
    bench.shelf.name("v1", &index_text);
    let on_manifest = bench.attach_good();
    let of_index = descriptor(INDEX_TYPE, &index_text, "");
    let on_index = bench.shelf.attach(&of_index, &Forge::new(&index_digest, &[&bench.key]).bundle());
    // Listed where they belong; then each where the other belongs.
    for (name, for_index, for_manifest, code, lists) in [
        ("index", Some(&on_index), None, 0, 1),
        ("manifest", None, Some(&on_manifest), 0, 2),
        // Each once more, without a filter, for the words of the error.
        ("neither", None, None, 5, 4),
        ("crossed", Some(&on_manifest), Some(&on_index), 5, 4),
    ] {
        let (for_index, for_manifest, index_digest) = (for_index.cloned(), for_manifest.cloned(), index_digest.clone());
        let site = bench.serve(move |request, _| {
            let entry = if request.target.contains(&index_digest) { &for_index } else { &for_manifest };
            is_list(request).then(|| index(entry.as_slice()))
        });
        bench.check(code, &[]);
        assert_eq!(site.lists(), lists, "{name}");
    }
}

#[apply(test)]
fn no_more_is_asked_where_no_signature_is_demanded() {
    ready();
    let bench = Bench::new();
    fs::remove_file(bench.machine.root.path("etc/kubesolo/update-keys.d/key.pub")).unwrap();
    let site = bench.serve(|_, _| None);
    bench.check(5, &["signatures are required, and no key is installed"]);
    assert_eq!(site.all(), 0);
    bench.machine.root.configure(&format!("registry = {}/os:v1\nretries = 0\nsignature = off\n", site.listener.host()));
    bench.check(0, &[]);
    assert_eq!(site.all(), 1);
}

#[apply(test)]
fn what_was_heard_before_counts_as_long_as_its_keys_do() {
    ready();
    let mut bench = Bench::new();
    let good = bench.attach_good();
    let stranger = KeyPair::ed25519(bench.dir.path(), "stranger");
    // Without it, `check` keeps nothing.
    fs::create_dir_all(bench.machine.root.path("var/lib/kubesolo/update")).unwrap();
    let site = bench.serve(move |request, _| is_list(request).then(|| index(from_ref(&good))));
    bench.accepted();
    let asked = site.all();
    bench.accepted();
    assert_eq!(site.all(), asked + 1, "it is not asked for in one request");
    // Another key now; then none, and then one again.
    put(&bench.machine, "update-keys.d/key.pub", stranger.pem(), 0o644);
    bench.check(5, &["not installed"]);
    let path = bench.machine.root.path("etc/kubesolo/update-keys.d/key.pub");
    fs::remove_file(&path).unwrap();
    bench.machine.root.configure(&format!("registry = {}/os:v1\nretries = 0\nsignature = off\n", site.listener.host()));
    bench.check(0, &[]);
    put(&bench.machine, "update-keys.d/key.pub", stranger.pem(), 0o644);
    bench.check(5, &["not installed"]);
    put(&bench.machine, "update-keys.d/key.pub", bench.key.pem(), 0o644);
    bench.accepted();
    // And what is revoked is not heard of any more, by whichever of its digests.
    fs::create_dir(bench.machine.root.path("etc/kubesolo/update-keys.d/revoked")).unwrap();
    for revoked in [bench.digest.clone(), digest(format!("kernel {} 2.0.0", architecture()))] {
        bench.accepted();
        put(&bench.machine, "update-keys.d/revoked/list", &revoked, 0o644);
        bench.check(5, &[&revoked, "is revoked on this machine"]);
        put(&bench.machine, "update-keys.d/revoked/list", "", 0o644);
    }
}

/// A registry without the signature, and a mirror that has it.
fn half_mirrored(bench: &mut Bench) -> [Site; 2] {
    let good = bench.attach_good();
    let bare = bench.serve(|_, _| None);
    let whole = bench.serve(move |request, _| is_list(request).then(|| index(from_ref(&good))));
    let text =
        format!("registry = {}/os:v1\nmirror = {}/os\nretries = 0\n", bare.listener.host(), whole.listener.host());
    bench.machine.root.configure(&text);
    [bare, whole]
}

#[apply(test)]
fn a_mirror_has_the_signature_that_the_registry_lacks() {
    ready();
    let mut bench = Bench::new();
    let [bare, whole] = half_mirrored(&mut bench);
    bench.accepted();
    // What lacks it is asked once more, without a filter, for the words of the error.
    assert_eq!((bare.lists(), whole.lists()), (2, 1));
}

#[apply(test)]
fn verify_asks_the_mirror_as_check_does() {
    ready();
    let mut bench = Bench::new();
    let _sites = half_mirrored(&mut bench);
    bench.accepted();
    bench.machine.root.agent(&["verify", "--slot", "A", "--source"]).expect(0, &[&bench.key.fingerprint()]);
}

#[apply(test)]
fn a_mirror_that_is_down_does_not_make_an_unsigned_release_a_matter_of_the_network() {
    ready();
    let bench = Bench::new();
    let site = bench.serve(|request, _| is_list(request).then(|| Answer::status(404)));
    let down = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let host = site.listener.host();
    bench.machine.root.configure(&format!("registry = {host}/os:v1\nmirror = {down}/os\nretries = 0\n"));
    bench.check(5, &["it is not signed", "asking the next place"]);
}

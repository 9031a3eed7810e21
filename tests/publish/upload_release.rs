//! `scripts/upload-release.sh`: what ends up on the server, whatever happens on the way; and `scripts/with-keys.sh`.

use crate::support::disk::noise;
use crate::support::gitea::{Asset, Fault, Gitea, REPO, Release, TOKEN};
use crate::support::{command, need, need_all, run, script_code};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const FILES: [&str; 3] = ["SHA256SUMS", "kubesolo-update-1.2.0+x_amd64.tar.gz", "sbom.json"];

/// A directory with a release, and a server.
struct Bench {
    dir: TempDir,
    server: Gitea,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap(), server: Gitea::start() };
        fs::create_dir(bench.release()).unwrap();
        for (n, file) in FILES.iter().enumerate() {
            // One of them is longer than what curl sends without being told to go on; all look like multipart ends.
            let mut bytes = noise(n as u64 + 1, 1_500_001 * n + 77);
            bytes.extend(b"\r\n--\r\n");
            fs::write(bench.release().join(file), bytes).unwrap();
        }
        fs::write(bench.dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        bench
    }

    fn release(&self) -> PathBuf {
        self.dir.path().join("release")
    }

    fn script(&self, tag: &str) -> Command {
        let mut script = script("upload-release.sh");
        script.args(["--tag", tag, "--url", &format!("http://127.0.0.1:{}", self.server.port), "--repo", REPO]);
        script.arg("--dir").arg(self.release()).args(["--delay", "0", "--token-file"]);
        script.arg(self.dir.path().join("token"));
        script
    }

    fn upload(&self, more: &[&str]) -> Output {
        self.script("v1.2.0").args(more).output().unwrap()
    }

    /// Holds what is on the server against the files: published, each once, every byte.
    #[track_caller]
    fn assert_published(&self) {
        let Release { tag, draft, mut assets, .. } = self.server.release();
        assert!(tag == "v1.2.0" && !draft, "{tag}, draft: {draft}");
        assets.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&str> = assets.iter().map(|asset| asset.name.as_str()).collect();
        assert_eq!(names, FILES);
        for Asset { name, bytes, .. } in assets {
            assert!(bytes == fs::read(self.release().join(&name)).unwrap(), "{name} differs");
        }
    }
}

fn script(name: &str) -> Command {
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
    for name in ["GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "RELEASE_TOKEN", "SIGNING_KEY", "SIGNING_KEY_2"] {
        script.env_remove(name);
    }
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        script.env_remove(name);
    }
    script
}

fn tools() {
    need_all(&["curl", "jq", "openssl"]);
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[track_caller]
fn succeeds(out: &Output) {
    assert!(out.status.success(), "{}", said(out));
    assert!(!said(out).contains(TOKEN), "the token is told");
}

#[track_caller]
fn fails(out: &Output, word: &str) {
    assert!(
        out.status.code() == Some(script_code(&said(out))) && said(out).contains(word),
        "wanted '{word}': {}",
        said(out)
    );
    assert!(!said(out).contains(TOKEN), "the token is told");
}

#[apply(test)]
fn a_release_goes_up_and_is_published_last() {
    tools();
    let bench = Bench::new();
    succeeds(&bench.upload(&[]));
    bench.assert_published();
    assert!(!bench.server.release().prerelease);
    let seen = bench.server.state.lock().unwrap().seen.clone();
    let at = |start: &str| seen.iter().rposition(|line| line.starts_with(start)).unwrap();
    assert!(at("POST /1/assets") < at("PATCH /1") && at("PATCH /1") < at("GET /site/"), "{seen:?}");
    // Once more: nothing is sent.
    succeeds(&bench.upload(&[]));
    for (start, count) in [("POST", 4), ("PATCH", 1), ("DELETE", 0), ("GET /site/", 6)] {
        assert_eq!(bench.server.count(start), count, "{start}");
    }
    // Nor is what is published changed.
    fs::write(bench.release().join("SHA256SUMS"), noise(9, 83)).unwrap();
    fails(&bench.upload(&[]), "SHA256SUMS of the release v1.2.0 has other bytes");
    fs::write(bench.release().join("more"), "x").unwrap();
    fails(&bench.upload(&[]), "other files");
    assert_eq!(bench.server.count("POST"), 4);
}

#[apply(test)]
fn a_prerelease_says_so_and_the_token_may_come_from_the_environment() {
    tools();
    let bench = Bench::new();
    let mut upload = script("upload-release.sh");
    upload.args(["--tag", "v1.3.0-rc.1", "--dir"]).arg(bench.release()).env("RELEASE_TOKEN", TOKEN);
    upload.env("GITHUB_SERVER_URL", format!("http://127.0.0.1:{}", bench.server.port)).env("GITHUB_REPOSITORY", REPO);
    succeeds(&upload.output().unwrap());
    let release = bench.server.release();
    assert!(release.prerelease && !release.draft && release.tag == "v1.3.0-rc.1", "{}", release.tag);
}

/// Each fault, alone, and what it leads to: the same release as without.
#[apply(test)]
fn faults_that_pass_change_nothing() {
    tools();
    let rows: [&[(&str, Fault)]; 16] = [
        &[("GET /tags", Fault::Status(500)), ("GET /tags", Fault::Status(503))],
        &[("GET /tags", Fault::Cut)],
        &[("GET /tags", Fault::Status(429))],
        &[("POST ", Fault::Status(502))],
        &[("POST ", Fault::Cut)],
        &[("POST ", Fault::DoneButCut)],
        &[("POST ", Fault::DoneBut(500))],
        &[("POST /1/assets", Fault::Status(500))],
        &[("POST /1/assets", Fault::Status(409))],
        &[("POST /1/assets?name=sbom", Fault::Cut)],
        &[("POST /1/assets?name=sbom", Fault::DoneButCut)],
        &[("POST /1/assets?name=kubesolo", Fault::DoneBut(504)), ("DELETE ", Fault::DoneButCut)],
        &[("PATCH ", Fault::DoneButCut)],
        &[("PATCH ", Fault::Status(500)), ("PATCH ", Fault::Cut)],
        &[("GET /1/assets", Fault::Status(500))],
        &[("GET /site/", Fault::Cut), ("GET /site/", Fault::Status(500))],
    ];
    for faults in rows {
        let bench = Bench::new();
        bench.server.fail(faults);
        let out = bench.upload(&[]);
        assert!(out.status.success(), "{faults:?}: {}", said(&out));
        assert!(bench.server.state.lock().unwrap().faults.is_empty(), "{faults:?} did not all happen");
        assert!(said(&out).matches("trying again").count() == faults.len(), "{faults:?}: {}", said(&out));
        bench.assert_published();
    }
}

#[apply(test)]
fn a_run_that_broke_off_is_finished_by_the_next() {
    tools();
    let bench = Bench::new();
    bench.server.fail(&[("POST /1/assets?name=sbom", Fault::DoneBut(400))]);
    fails(&bench.upload(&[]), "upload sbom.json: status 400: planned");
    assert!(bench.server.release().draft && bench.server.release().assets.len() == 3);
    // What an attacker or another version left there goes as well.
    let stray = Asset { id: 99, name: "stray".into(), bytes: vec![1] };
    bench.server.state.lock().unwrap().release.as_mut().unwrap().assets.push(stray);
    succeeds(&bench.upload(&[]));
    bench.assert_published();
}

#[apply(test)]
fn faults_that_do_not_pass_are_said() {
    tools();
    let all = |at: &'static str, status| vec![(at, Fault::Status(status)); 9];
    let rows = [
        (all("GET /tags", 401), "must be allowed to write", 1),
        (all("POST ", 403), "must be allowed to write", 1),
        (all("POST /1/assets", 413), "no files of this size", 1),
        (all("POST ", 422), "status 422: planned", 1),
        (all("PATCH ", 404), "publish v1.2.0: status 404", 1),
        (all("GET /tags", 500), "(3 tries): status 500", 3),
        (all("POST /1/assets", 500), "(3 tries): status 500", 3),
        (vec![("GET /tags", Fault::Cut); 9], "(3 tries): ", 3),
    ];
    for (faults, word, times) in rows {
        let bench = Bench::new();
        bench.server.fail(&faults);
        fails(&bench.upload(&["--tries", "3"]), word);
        assert_eq!(9 - bench.server.state.lock().unwrap().faults.len(), times, "{word}");
        let release = bench.server.state.lock().unwrap().release.clone();
        assert!(release.is_none_or(|release| release.draft), "{word}: published all the same");
    }
}

#[apply(test)]
fn what_the_server_spoils_is_noticed() {
    tools();
    let bench = Bench::new();
    bench.server.state.lock().unwrap().spoil = Some(|bytes| bytes.truncate(70));
    fails(&bench.upload(&[]), "bytes were sent, the server has 70");
    assert!(bench.server.release().draft);
    bench.server.state.lock().unwrap().spoil = Some(|bytes| bytes[3] ^= 1);
    fails(&bench.upload(&[]), "has other bytes");
}

/// While it runs, no argument of any process holds the token.
#[apply(test)]
fn the_token_is_no_argument() {
    tools();
    need("strace");
    let bench = Bench::new();
    let log = bench.dir.path().join("strace");
    let upload = bench.script("v1.2.0");
    let mut traced = command("strace");
    traced.args(["-f", "-s", "4096", "-e", "trace=execve", "-o"]).arg(&log).arg(upload.get_program());
    run(traced.args(upload.get_args()));
    bench.assert_published();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("upload-release") && log.contains("\"curl\"") && !log.contains(TOKEN), "told: {TOKEN}");
}

#[apply(test)]
fn a_dry_run_sends_nothing() {
    tools();
    let bench = Bench::new();
    let out = bench.upload(&["--dry-run"]);
    succeeds(&out);
    assert_eq!(String::from_utf8_lossy(&out.stdout).lines().count(), FILES.len());
    assert_eq!(bench.server.count(""), 0);
}

#[apply(test)]
fn bad_arguments() {
    tools();
    let bench = Bench::new();
    fs::create_dir(bench.dir.path().join("empty")).unwrap();
    let empty = bench.dir.path().join("empty").display().to_string();
    let other = bench.dir.path().join("bad-token").display().to_string();
    fs::write(&other, "abc\"\nurl = \"http://192.0.2.1/").unwrap();
    let rows: [(&[&str], &str); 18] = [
        (&["--tag"], "--tag needs a value"),
        (&["--tag", ""], "--tag is missing"),
        (&["--tag", "1.2.0"], "such as v1.2.0"),
        (&["--tag", "v1.2.0\nx"], "such as v1.2.0"),
        (&["--tag", "v1.2.0/../x"], "such as v1.2.0"),
        (&["--url", ""], "--url is missing"),
        (&["--url", "http://git.example.com"], "only of this machine"),
        (&["--url", "http://127.0.0.1.example.com"], "only of this machine"),
        (&["--url", "https://user@git.example.com"], "--url must be"),
        (&["--url", "file:///etc"], "--url must be"),
        (&["--repo", "x"], "OWNER/NAME"),
        (&["--repo", "a/b?c"], "OWNER/NAME"),
        (&["--dir", "/nonexistent"], "is not a directory"),
        (&["--dir", &empty], "is empty"),
        (&["--token-file", "/nonexistent"], "is not a file"),
        (&["--token-file", &other], "no token holds"),
        (&["--tries", "0"], "--tries must be"),
        (&["--nonsense"], "unknown option"),
    ];
    for (more, word) in rows {
        fails(&bench.upload(more), word);
    }
    fails(&bench.script("v1.2.0").args(["--token-file", ""]).output().unwrap(), "no token");
    symlink("sbom.json", bench.release().join("link")).unwrap();
    fails(&bench.upload(&[]), "link is not a file");
    fs::rename(bench.release().join("link"), bench.release().join("a b")).unwrap();
    fails(&bench.upload(&[]), "not a name that can be uploaded");
    assert_eq!(bench.server.count(""), 0);
}

/// Two private keys and a command that shows what it gets.
fn keys() -> (String, String) {
    let key = || run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]));
    (key(), key())
}

#[apply(test)]
fn keys_go_through_files_that_go_away() {
    tools();
    let (one, two) = keys();
    let dir = tempfile::tempdir().unwrap();
    let given = dir.path().join("given");
    fs::write(&given, "a key").unwrap();
    let show = "for a; do printf '%s\\n' \"$a\"; done; cat \"$5\" \"$7\"; stat -c '%a %U' \"$5\"; \
                env | grep -c SIGNING; umask; exit 3";
    let mut with = script("with-keys.sh");
    with.arg("--key").arg(&given).args(["--", "sh", "-c", show, "show", "first word"]);
    let out = with.env("SIGNING_KEY", one.trim_end()).env("SIGNING_KEY_2", two.trim_end()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    let lines: Vec<&str> = text.lines().collect();
    let given = given.display().to_string();
    assert_eq!([lines[0], lines[1], lines[2], lines[3], lines[5]], ["first word", "--key", &given, "--key", "--key"]);
    assert!(text.contains(&one), "{text}");
    assert_eq!(
        text.replace(&one, "").lines().skip(7).collect::<Vec<_>>().join("\n"),
        format!("{two}600 root\n0\n0022")
    );
    for file in [lines[4], lines[6]] {
        assert!(!Path::new(file).exists() && !Path::new(file).parent().unwrap().exists(), "{file} is still there");
    }
}

#[apply(test)]
fn with_keys_refuses() {
    tools();
    let (one, _) = keys();
    let rows: [(&[&str], Option<&str>, &str); 8] = [
        (&["--", "true"], Some(""), "SIGNING_KEY is empty"),
        (&["--", "true"], Some("s3cret nonsense"), "not a private key in PEM"),
        (&["--", "true"], Some(&one[..40]), "not a private key in PEM"),
        (&[], None, "no command"),
        (&["--key", "Cargo.toml", "--"], None, "no command"),
        (&["--key"], None, "--key needs a value"),
        (&["--key", "/nonexistent", "--", "true"], None, "is not a file"),
        (&["true"], None, "unknown option"),
    ];
    for (args, key, word) in rows {
        let mut with = script("with-keys.sh");
        with.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
        key.map(|key| with.env("SIGNING_KEY", key));
        let out = with.output().unwrap();
        fails(&out, word);
        assert!(!said(&out).contains("s3cret") && !said(&out).contains("MC4"), "the key is told: {}", said(&out));
    }
    // Without any key it only runs the command: release.sh says what it thinks of that.
    assert_eq!(run(script("with-keys.sh").args(["--", "echo", "x"])), "x\n");
    // Killed: the file goes as well.
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    let mut with = script("with-keys.sh");
    with.args(["--", "sh", "-c", "echo $2 >$0; kill -TERM $PPID; kill -TERM $$"]).arg(&told).env("SIGNING_KEY", &one);
    assert!(!with.status().unwrap().success());
    let file = fs::read_to_string(&told).unwrap();
    assert!(file.contains("SIGNING_KEY") && !Path::new(file.trim()).exists(), "{file}");
}

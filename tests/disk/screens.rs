//! What a person sees at a console of 80 columns: no line is wider, a digest is short, and a long step says how far it is.

use crate::support::disk::need_disks;
use crate::support::hostile::Step;
use crate::support::hostile_bench::{Bench, HTTP, honest, is_file};
use crate::support::root::{Root, Run, unfolded};
use crate::support::signing::KeyPair;
use crate::support::trial::Trial;
use crate::support::{need, need_all};
use std::fs;
use std::process::{Command, Stdio};

/// Columns that a line may take: in the last one a terminal goes on in the next line.
const COLUMNS: usize = 80;

/// Runs the agent on a terminal of 80 columns. Input: `term`: `None`: `TERM` is not set.
fn on_a_terminal(root: &Root, term: Option<&str>, args: &[&str]) -> Run {
    let agent = root.command(args);
    let words = std::iter::once(agent.get_program()).chain(agent.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let set = term.map_or("unset TERM".into(), |term| format!("export TERM={term}"));
    let mut script = Command::new("script");
    let line = format!("stty cols 80 rows 24; {set}; exec {}", line.join(" "));
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap().into()
}

/// Holds every line to the width of a console, and every digest to the 12 digits that a person compares.
#[track_caller]
fn hold(what: &str, shown: &str) {
    for line in shown.lines().flat_map(|line| line.split('\r')) {
        // The colours of `status` take no column.
        let codes = ["\x1b[K", "\x1b[0m", "\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[31m"];
        let line = codes.iter().fold(line.to_string(), |line, code| line.replace(code, ""));
        assert!(line.chars().count() <= COLUMNS, "{what}: {} columns: '{line}'\n{shown}", line.chars().count());
        assert!(!line.contains('\x1b'), "{what}: '{line}'");
    }
    let flowing = unfolded(shown).replace("\r\n", "\n");
    for digest in flowing.split("sha256:").skip(1) {
        let digits = digest.bytes().take_while(u8::is_ascii_hexdigit).count();
        assert!(digits <= 12, "{what}: a digest of {digits} digits\n{shown}");
    }
}

/// What there is to be seen on a machine where 2.0.0 is staged, signed. `{source}` is the medium.
const SCREENS: &[(&str, i32)] = &[
    ("check --layout {source}", 3),
    ("check --layout /nowhere/at/all/where/a/path/is/long/enough/not/to/fit/a/console/of/eighty/columns", 6),
    ("check --server http://127.0.0.1:1 --retries 0", 6),
    ("check", 2),
    ("check --retries 101", 2),
    ("check --frobnicate-something-with-a-name-that-is-long --and-another", 2),
    ("healtcheck", 2),
    ("apply --layout {source}", 3),
    ("apply --layout {source} --quiet", 3),
    ("verify", 0),
    ("verify --source --layout {source}", 0),
    ("verify --slot A", 0),
    ("status", 0),
    ("healthcheck --timeout 1", 9),
    ("activate", 0),
    ("activate", 3),
    ("check --layout {source}", 4),
    ("apply --layout {source}", 4),
    ("status", 0),
    ("verify", 0),
    ("rollback", 0),
    ("rollback", 3),
    ("status", 0),
    ("apply --layout {source}", 0),
    ("rollback", 0),
    ("check --layout {source}", 0),
];

/// Each way to ask for help.
const HELP: &[&str] = &[
    "--help",
    "-h",
    "help",
    "check --help",
    "apply --help",
    "activate -h",
    "rollback help",
    "healthcheck --help",
    "status --help",
    "metrics --help",
    "verify --help",
    "lint --help",
];

/// The same where a key is installed, and nothing is signed with it.
const WITH_A_KEY: &[(&str, i32)] = &[
    ("verify --source --slot A --layout {source}", 5),
    ("verify", 0),
    ("check --layout {source}", 5),
    ("apply --layout {source}", 5),
    ("activate", 3),
    ("status", 0),
];

#[apply(test)]
fn no_line_is_wider_than_a_console_and_digests_are_short() {
    Trial::ready();
    need_all(&["script", "openssl"]);
    for is_terminal in [false, true] {
        let trial = Trial::staged();
        let why =
            "echo 'the database of the site is not reachable, and this is a sentence that goes on and on' >&2; exit 1";
        trial.root.install_check("10-database-of-the-site", why);
        let keys = trial.root.path("etc/kubesolo/update-keys.d");
        for (line, code) in SCREENS.iter().chain(WITH_A_KEY) {
            if (line, code) == (&WITH_A_KEY[0].0, &WITH_A_KEY[0].1) {
                fs::create_dir(&keys).unwrap();
                fs::write(keys.join("release.pub"), KeyPair::p256(trial.disk.dir(), "publisher").pem()).unwrap();
            }
            let line = line.replace("{source}", trial.medium.path());
            let args: Vec<&str> = line.split(' ').collect();
            let run = match is_terminal {
                true => on_a_terminal(&trial.root, Some("vt100"), &args),
                false => trial.root.agent(&args),
            };
            assert_eq!(run.code, *code, "{line}: {run:?}");
            hold(&line, &run.stdout);
        }
    }
}

#[apply(test)]
fn help_fits_a_console() {
    for line in HELP {
        let run: Run = Command::new(Root::program()).args(line.split(' ')).output().unwrap().into();
        hold(line, &run.stdout);
        assert!(run.code == 0 && run.stdout.starts_with("Usage: kubesolo-update "), "{line}: {run:?}");
        // An option and its value stay together.
        assert!(!run.stdout.lines().any(|line| line.trim_start().starts_with('<')), "{line}: {}", run.stdout);
    }
}

/// Whoever compares all of a digest asks for all of it.
#[apply(test)]
fn verbose_shows_whole_digests() {
    Trial::ready();
    let trial = Trial::staged();
    let check = |more: &[&str]| trial.root.agent(&[&["check", "--layout", trial.medium.path()], more].concat());
    let digest = trial.medium.digest.as_str();
    let short = check(&[]).expect(3, &[&digest[..19]]);
    assert!(!short.stdout.contains(&digest[..20]), "{}", short.stdout);
    let whole = |said: &str| said.split_whitespace().collect::<String>();
    let long = check(&["--verbose"]).expect(3, &[]);
    assert!(whole(&long.stdout).contains(digest), "{}", long.stdout);
    assert_eq!(check(&["--json"]).jq(".offered.manifest_digest"), digest);
}

/// Lines that were rewritten, oldest first.
fn shown(run: &Run) -> Vec<String> {
    let lines = run.stdout.lines().flat_map(|line| line.split('\r'));
    lines.map(|line| line.trim_end_matches("\x1b[K").to_string()).filter(|line| line.contains(" %  ")).collect()
}

/// A server that stalls after half of the kernel.
fn stalls(secs: u64) -> Bench {
    let bench = Bench::new(HTTP, |ask| match is_file(ask) && ask.is_get() {
        true => honest(ask).then(700_000, vec![Step::Stall]),
        false => honest(ask),
    });
    bench.configure(&format!("{HTTP}\nstall_timeout = {secs}\n"));
    bench
}

#[apply(test)]
fn a_download_says_how_far_the_whole_is_and_that_it_stands_still() {
    need_disks();
    need("script");
    // The second line of a log is there after 10 s; the first comes just when it may not be known yet.
    let terms = [(Some("vt100"), true, 8), (Some("dumb"), false, 11), (Some("''"), false, 6), (None, false, 6)];
    for (term, is_rewritten, secs) in terms {
        let bench = stalls(secs);
        let run = on_a_terminal(&bench.machine.root, term, &["apply"]).expect(6, &[]);
        let lines = shown(&run);
        let last = lines.last().unwrap_or_else(|| panic!("{term:?}: it says nothing\n{}", run.stdout));
        // 2.5 MiB in two files, each byte once.
        assert!(last.starts_with("fetching vmlinuz  2") && last.contains(" of 2.4 MiB"), "{term:?}: {last}");
        assert!(secs < 8 || last.contains("  no bytes for 0:"), "{term:?}: {last}");
        assert_eq!(run.stdout.contains('\x1b'), is_rewritten, "{term:?}: {}", run.stdout.escape_debug());
        assert!(is_rewritten || lines.len() <= 2, "{term:?}: {lines:?}");
        hold("apply", &run.stdout);
    }
}

#[apply(test)]
fn a_download_that_is_quiet_or_answers_a_program_shows_nothing_there() {
    need_disks();
    need("script");
    let bench = stalls(6);
    let quiet = on_a_terminal(&bench.machine.root, Some("vt100"), &["apply", "--quiet"]).expect(6, &[]);
    assert!(shown(&quiet).is_empty() && !quiet.stdout.contains('\x1b'), "{}", quiet.stdout);
    // What was there already counts, and is no rate.
    let json = bench.machine.root.agent(&["apply", "--json"]);
    let says = json.stderr.lines().find(|line| line.contains(" %  ")).unwrap_or_else(|| panic!("{json:?}"));
    assert!(says.starts_with("fetching vmlinuz  52 %  1.2 of 2.4 MiB") && !says.contains("/s"), "{says}");
    assert_eq!(json.jq(".kind"), "network");
}

#[apply(test)]
fn who_waits_says_at_once_how_long_and_until_when() {
    need_disks();
    need("script");
    let trial = Bench::new(HTTP, honest);
    for command in ["check", "apply"] {
        let said = trial.machine.root.agent(&[command, "--splay", "3"]).stderr;
        let first = said.lines().next().unwrap_or_default();
        let words: Vec<&str> = first.split(' ').collect();
        assert!(first.starts_with("kubesolo-update: waiting 0:0") && first.contains(" (until "), "{first}");
        assert!(first.ends_with(" UTC), so that a fleet does not ask all at once"), "{first}");
        assert_eq!(words[4].len(), "hh:mm:ss".len(), "{first}");
        let quiet = trial.machine.root.agent(&[command, "--splay", "2", "--quiet"]);
        assert!(!quiet.stderr.contains("waiting"), "{}", quiet.stderr);
    }
    let counts = |term| on_a_terminal(&trial.machine.root, Some(term), &["check", "--splay", "3"]).stdout;
    let vt100 = counts("vt100");
    assert!(vt100.contains("\rwaiting; 0:0") && vt100.contains(" left\x1b[K"), "{}", vt100.escape_debug());
    hold("check", &vt100);
    let dumb = counts("dumb");
    assert!(dumb.contains("waiting 0:0") && !dumb.contains('\x1b'), "{}", dumb.escape_debug());
}

//! A machine that is pointed at a hostile server and runs against it as often as a test likes; cases, and which failed.

use super::disk::need_disks;
use super::hostile::{Ask, Hostile, Reply};
use super::hostile_table::{PUBLISHED, assert_staged};
use super::machine::Machine;
use super::pull::put;
use super::root::Run;
use std::fmt::Debug;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;

/// A run that takes longer hangs.
const HANGS_SECS: &str = "60";

pub const REGISTRY: &str = "registry = {here}/os:v1";
pub const HTTP: &str = "server = http://{here}";
pub const SOURCES: [&str; 2] = [REGISTRY, HTTP];
/// The same with a mirror on the other host.
pub const MIRRORED: [&str; 2] =
    ["registry = {here}/os:v1\nmirror = {other}/os", "server = http://{here}\nmirror = http://{other}"];

pub type Which = fn(&Ask) -> bool;

/// A machine and the server that it is pointed at.
pub struct Bench {
    pub machine: Machine,
    pub server: Hostile,
}

impl Bench {
    /// Input: `conf`: lines of `update.conf`, with `{here}` and `{other}` for the server's addresses.
    pub fn new(conf: &str, script: impl Fn(&Ask) -> Reply + Send + Sync + 'static) -> Bench {
        let bench = Bench { machine: Machine::new(), server: Hostile::start(Arc::new(script)) };
        // Without it, `check` keeps nothing.
        fs::create_dir_all(bench.machine.root.path("var/lib/kubesolo/update")).unwrap();
        bench.configure(conf);
        bench
    }

    pub fn configure(&self, conf: &str) {
        let retries = if conf.contains("retries") { "" } else { "retries = 0" };
        let text = self.placed(&format!("signature = off\n{retries}\n{conf}\n"));
        self.machine.root.configure(&text);
    }

    pub fn placed(&self, text: &str) -> String {
        text.replace("{here}", &self.server.here).replace("{other}", &self.server.other)
    }

    /// Writes credentials. Input: `entry`: of both hosts.
    pub fn log_in(&self, entry: &str) {
        let text = format!(r#"{{"auths":{{"{{here}}":{{{entry}}},"{{other}}":{{{entry}}}}}}}"#);
        put(&self.machine, "config.json", self.placed(&text), 0o600);
    }

    pub fn run(&self, args: &[&str]) -> Run {
        run_with(&self.machine, args, &[])
    }

    #[track_caller]
    pub fn stages(&self) {
        self.staged(self.run(&["apply"]));
    }

    #[track_caller]
    pub fn staged(&self, done: Run) {
        done.expect(0, &["2.0.0 is staged"]);
        assert_staged(&self.machine, "");
    }

    /// Runs the agent to its end under GNU time. Returns: the run, and its peak memory in KiB.
    pub fn measure(&self, args: &[&str]) -> (Run, u64) {
        let figure = self.machine.disk.dir().join("rss");
        let mut time = Command::new("timeout");
        time.args([HANGS_SECS, "time", "-q", "-f", "%M", "-o"]).arg(&figure);
        let done = self.machine.root.command_under(time, args).output().unwrap().into();
        (done, fs::read_to_string(figure).unwrap().trim().parse().unwrap())
    }

    /// Requests to the mirror.
    pub fn at_other(&self) -> Vec<Ask> {
        self.server.seen().into_iter().filter(|ask| ask.is_other).collect()
    }
}

/// Runs the agent; one that does not end is ended, and has another exit code then.
pub fn run_with(machine: &Machine, args: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut timeout = Command::new("timeout");
    timeout.arg(HANGS_SECS);
    machine.root.command_under(timeout, args).envs(variables.iter().copied()).output().unwrap().into()
}

/// What an honest server answers, whatever the query.
pub fn honest(ask: &Ask) -> Reply {
    let path = ask.path.split('?').next().unwrap().to_owned();
    PUBLISHED.honest(&Ask { path, ..ask.clone() })
}

pub fn is_file(ask: &Ask) -> bool {
    PUBLISHED.is_kernel(ask) || PUBLISHED.is_initramfs(ask)
}

pub fn is_document(ask: &Ask) -> bool {
    ask.path.contains("/manifests/") || ask.path.contains("/latest.json")
}

/// Holds every case, and says all that fail.
pub fn hold<T: Debug>(cases: impl IntoIterator<Item = T>, check: impl Fn(T)) {
    need_disks();
    let fails = |case: T| {
        let name = format!("{case:?}");
        eprintln!("{name}:");
        catch_unwind(AssertUnwindSafe(|| check(case))).err().map(|_| name)
    };
    let failed: Vec<String> = cases.into_iter().filter_map(fails).collect();
    assert!(failed.is_empty(), "{} cases fail: {failed:#?}", failed.len());
}

/// All pairs.
pub fn each<A: Copy, B: Copy>(these: &[A], those: &[B]) -> Vec<(A, B)> {
    these.iter().flat_map(|a| those.iter().map(|b| (*a, *b))).collect()
}

//! promtool on text, and a real Prometheus that scrapes.

use super::disk::wait_for;
use super::root::jq;
use super::{command, need};
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long Prometheus may take to start, and to scrape for the first time.
const START_LIMIT: Duration = Duration::from_secs(60);

pub fn need_promtool() {
    need("promtool");
}

pub fn need_prometheus() {
    need("prometheus");
    need("promtool");
    need("curl");
}

/// What promtool says of the one name that DESIGN fixes and promtool does not like, whatever the type; GRUB's variable
/// is called so.
const FIXED_NAME: &str = "kubesolo_boot_counter metric name should not include type 'counter'";

/// Lets a real promtool look at a page. Panics: it finds anything but [`FIXED_NAME`].
#[track_caller]
pub fn check_metrics(page: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page");
    fs::write(&file, page).unwrap();
    let out = command("promtool").args(["check", "metrics"]).stdin(fs::File::open(&file).unwrap()).output().unwrap();
    let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    // 3: it parsed everything, and dislikes something.
    assert!(said.trim() == FIXED_NAME && out.status.code() == Some(3), "{}: {said}\n{page}", out.status);
}

/// The value of a series. Panics: it is not there, or not once.
#[track_caller]
pub fn value(page: &str, series: &str) -> u64 {
    let found: Vec<_> = page.lines().filter_map(|l| l.strip_prefix(series)?.strip_prefix(' ')).collect();
    assert_eq!(found.len(), 1, "{series}\n{page}");
    found[0].parse().unwrap()
}

/// A Prometheus with a data directory and a port of its own; ended when dropped.
pub struct Prometheus {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Prometheus {
    /// Starts one, and waits until it has scraped. Input: what to scrape, `IP:PORT` each.
    /// Prometheus does not say which port it got for 0, so a free one is taken, and another if somebody was quicker.
    pub fn scraping(targets: &[String]) -> Prometheus {
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let list: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
            let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus-rules.yaml");
            let config = format!(
                "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: ['{rules}']\nscrape_configs:\n- job_name: \
                 kubesolo\n  static_configs:\n  - targets: [{}]\n",
                list.join(", ")
            );
            fs::write(dir.path().join("prometheus.yml"), config).unwrap();
            let log = fs::File::create(dir.path().join("log")).unwrap();
            let mut prometheus = command("prometheus");
            prometheus.arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()));
            prometheus.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
            prometheus.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            let child = prometheus.stdout(Stdio::null()).stderr(log).spawn().unwrap();
            let mut started = Prometheus { child, port, dir };
            let up = || started.child.try_wait().unwrap().is_some() || started.query("up == 1") >= targets.len();
            if wait_for(START_LIMIT, up) && started.child.try_wait().unwrap().is_none() {
                return started;
            }
            eprintln!("{}", fs::read_to_string(started.dir.path().join("log")).unwrap());
        }
        panic!("Prometheus does not start, or does not scrape");
    }

    /// Asks the API. Input: path, and a form field. Returns: the document, `None` where there is none.
    pub fn ask(&self, path: &str, field: &str) -> Option<String> {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-G", "--noproxy", "*", "--max-time", "20", "--data-urlencode", field]);
        let out = curl.arg(format!("http://127.0.0.1:{}{path}", self.port)).output().unwrap();
        String::from_utf8(out.stdout).ok().filter(|text| out.status.success() && text.starts_with('{'))
    }

    /// How many series a query finds. Panics: it is no query.
    #[track_caller]
    pub fn query(&self, query: &str) -> usize {
        let Some(answer) = self.ask("/api/v1/query", &format!("query={query}")) else { return 0 };
        assert_eq!(jq(&answer, ".status"), "success", "{query}: {answer}");
        jq(&answer, ".data.result | length").parse().unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A real API server: kube-apiserver and its etcd, built from `tests/apiserver` by `scripts/install-deps.sh`, on a port of its
//! own; and what a real kubectl writes into it.
//!
//! Must never: answer in its place. What a test needs said goes into the server as an object, and comes out of it.

use super::disk::wait_for;
use super::registry::{Guard, last_words};
use super::{command, need, need_all, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long it may take to start: about 5 s where nothing else runs.
const SOON: Duration = Duration::from_secs(150);

/// A running kube-apiserver. It ends when this is dropped, or with the process that holds its stdin.
pub struct KubeApi {
    dir: PathBuf,
    address: String,
    child: Guard,
}

impl KubeApi {
    /// Goes on if it can be started, and kubectl is there to write into it.
    pub fn ready() {
        need_all(&["kubectl", "jq"]);
        need("apiserver");
    }

    /// Starts one that keeps everything below `dir`, and waits until it says that it is ready.
    pub fn start(dir: &Path) -> KubeApi {
        KubeApi::start_with(dir, &[])
    }

    /// The same with more flags of kube-apiserver.
    pub fn start_with(dir: &Path, flags: &[&str]) -> KubeApi {
        let dir = dir.join("k");
        fs::create_dir(&dir).unwrap();
        let (log, said) = (dir.join("log"), dir.join("address"));
        let mut server = command("apiserver");
        // Not this machine's own cluster, should there be one, nor its proxy.
        server.env_clear().env("HOME", &dir).arg(&dir).args(flags).stdin(Stdio::piped());
        server.stdout(fs::File::create(&said).unwrap()).stderr(fs::File::create(&log).unwrap());
        let mut child = Guard(server.spawn().unwrap());
        let address = || fs::read_to_string(&said).unwrap();
        let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
        let ready = wait_for(SOON, || ended(&mut child.0) || address().ends_with('\n')) && !ended(&mut child.0);
        assert!(ready, "the API server does not start: {}", last_words(&mut child, &log));
        KubeApi { address: address().trim_end().to_owned(), dir, child }
    }

    /// Tells it to end; it goes on answering for as long as its flag `--shutdown-delay-duration` says.
    pub fn shut_down(&mut self) {
        drop(self.child.0.stdin.take());
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.address
    }

    /// The administrator's, as client-go writes it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// A file that it made: `ca.crt`, `nobody.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn kubectl(&self, args: &[&str]) -> Command {
        let mut kubectl = command("kubectl");
        kubectl.env("HOME", &self.dir).env_remove("KUBECONFIG").arg("--kubeconfig").arg(self.kubeconfig()).args(args);
        kubectl
    }

    /// What it has at a path, as it stands there.
    pub fn get(&self, path: &str) -> String {
        run(&mut self.kubectl(&["get", "--raw", path]))
    }

    /// Deletes all that is at a path.
    pub fn delete(&self, path: &str) {
        run(&mut self.kubectl(&["delete", "--raw", path]));
    }

    /// Makes an object below a path.
    #[track_caller]
    pub fn create(&self, path: &str, object: &str) {
        run(&mut self.writing("create", path, object));
    }

    /// Writes another object over the one at a path.
    #[track_caller]
    pub fn replace(&self, path: &str, object: &str) {
        run(&mut self.writing("replace", path, object));
    }

    fn writing(&self, verb: &str, path: &str, object: &str) -> Command {
        let file = self.dir.join("object.json");
        fs::write(&file, object).unwrap();
        let mut kubectl = self.kubectl(&[verb, "--raw", path, "-f"]);
        kubectl.arg(file);
        kubectl
    }
}

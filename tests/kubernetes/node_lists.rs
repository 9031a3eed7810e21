//! `tests/fixtures/node-lists.tsv`, held against kube-apiserver itself: each line's nodes are written into it by kubectl, and the
//! agent, asked on a machine of that name and boot, says what the line says. And who may ask.

use crate::support::apiserver::KubeApi;
use crate::support::disk::{Disk, architecture, need_disks, wait_for};
use crate::support::harness::skip;
use crate::support::registry::Ca;
use crate::support::root::{Root, Run, jq};
use crate::support::{command, find, kit, need, need_all, need_file, run};
use kubesolo_update::parts::base::base64;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const TABLE: &str = include_str!("../fixtures/node-lists.tsv");
const THIS: &str = "5b0ca3e4-7d2c-4a2b-9c1d-6c1d0a7f3e21";
const OTHER: &str = "0f9be5d2-93e7-4b6e-bb6c-6d5a5d0b8a11";
const NODES: &str = "/api/v1/nodes";

/// A machine whose kubeconfig leads to a real API server.
pub struct Bench {
    pub api: KubeApi,
    pub root: Root,
    _disk: Disk,
    dir: TempDir,
}

impl Bench {
    pub fn ready() {
        need_disks();
        KubeApi::ready();
    }

    pub fn new() -> Bench {
        Bench::with(&[])
    }

    /// Input: `flags`: of kube-apiserver.
    fn with(flags: &[&str]) -> Bench {
        let (disk, dir) = (Disk::new(24, 16), tempfile::tempdir().unwrap());
        let root = Root::new(&disk);
        fs::write(root.path("proc/sys/kernel/random/boot_id"), format!("{THIS}\n")).unwrap();
        root.configure_node("containerd_socket = off\n");
        let bench = Bench { api: KubeApi::start_with(dir.path(), flags), root, _disk: disk, dir };
        bench.host("edge-7");
        fs::create_dir_all(bench.kubeconfig().parent().unwrap()).unwrap();
        fs::copy(bench.api.kubeconfig(), bench.kubeconfig()).unwrap();
        bench
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.root.path("var/lib/kubesolo/pki/admin/admin.kubeconfig")
    }

    fn host(&self, name: &str) {
        fs::write(self.root.path("proc/sys/kernel/hostname"), format!("{name}\n")).unwrap();
    }

    /// Has the server know these nodes and no others. Input: `NAME READY BOOT, ...`, as the table has them.
    pub fn register(&self, nodes: &str) {
        self.api.delete(NODES);
        for words in nodes.split(", ").filter(|words| !words.is_empty()) {
            let [name, ready, boot] = words.split(' ').collect::<Vec<_>>().try_into().expect(words);
            self.api.create(NODES, &node(name, ready, boot));
        }
        let known = jq(&self.api.get(NODES), ".items | length");
        assert_eq!(known, nodes.split(", ").filter(|words| !words.is_empty()).count().to_string(), "{nodes}");
    }

    /// What the agent says of one check. Returns: `Err`: why it failed; and the exit code agrees.
    #[track_caller]
    pub fn says(&self, check: &str) -> Result<String, String> {
        let run = self.root.agent(&["healthcheck", "--timeout", "0", "--check-timeout", "20", "--json"]);
        let field = |name: &str| run.jq(&format!(r#".checks[] | select(.name == "{check}") | .{name}"#));
        let (result, detail) = (field("result"), field("detail"));
        assert_eq!(
            (run.code, run.jq(".healthy")),
            if run.code == 0 { (0, "true".into()) } else { (9, "false".into()) }
        );
        if result == "passed" { Ok(detail) } else { Err(detail) }
    }
}

/// A node as its kubelet registers it.
fn node(name: &str, ready: &str, boot: &str) -> String {
    let boot_id = match boot {
        "this" => THIS,
        "other" => OTHER,
        _ => "",
    };
    let (reason, message) = match ready {
        "True" => ("KubeletReady", "kubelet is posting ready status"),
        "Unknown" => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
        _ => ("KubeletNotReady", "container runtime network not ready: cni plugin not initialized"),
    };
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        format!(r#"{{"type":"{kind}","status":"{status}","reason":"{reason}","message":"{message}"}}"#)
    };
    let mut conditions = vec![condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "x")];
    if ready != "-" {
        conditions.push(condition("Ready", ready, reason, message));
    }
    format!(
        r#"{{"apiVersion":"v1","kind":"Node","metadata":{{"name":"{name}","labels":{{"kubernetes.io/hostname":"{name}"}}}},
        "status":{{"conditions":[{}],"nodeInfo":{{"machineID":"9f1c","systemUUID":"9f1c","bootID":"{boot_id}","kernelVersion":"6.12.30",
        "osImage":"KubeSolo OS","containerRuntimeVersion":"containerd://1.7.27","kubeletVersion":"v1.33.1","kubeProxyVersion":"",
        "operatingSystem":"linux","architecture":"amd64"}}}}}}"#,
        conditions.join(",")
    )
}

#[apply(test)]
fn a_real_api_server_agrees_with_the_table() {
    Bench::ready();
    let (bench, mut wrong, mut cases) = (Bench::new(), Vec::new(), 0);
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let [host, list, is, words] = line.split('\t').collect::<Vec<_>>().try_into().expect(line);
        bench.host(host);
        bench.register(list);
        let said = bench.says("node");
        let text = said.as_ref().unwrap_or_else(|why| why);
        if said.is_ok() != (is == "healthy") || !text.contains(words) {
            wrong.push(format!("{line}: {said:?}"));
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 30, "{cases}");
}

#[apply(test)]
fn a_real_api_server_is_asked_as_its_administrator() {
    Bench::ready();
    need("openssl");
    let bench = Bench::new();
    bench.register("edge-7 True this");
    assert_eq!(bench.says("apiserver"), Ok(bench.api.url().to_owned()));
    let good = fs::read_to_string(bench.kubeconfig()).unwrap();
    let other = |text: &str, name: &str, pem: &[u8]| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        text.replace(line, &format!("    {name}: {}", base64::encode(pem)))
    };
    let file = |name: &str| fs::read(bench.api.file(name)).unwrap();
    // The CA knows it, and it may ask for nothing but /readyz.
    let nobody = other(&good, "client-certificate-data", &file("nobody.crt"));
    fs::write(bench.kubeconfig(), other(&nobody, "client-key-data", &file("nobody.key"))).unwrap();
    assert!(bench.says("apiserver").is_ok());
    assert!(bench.says("node").unwrap_err().contains("the kubeconfig's user may not ask this (403)"));
    // The CA does not know it, though it has the administrator's name.
    let stranger = Ca::new(bench.dir.path(), "other").issue("admin", "DNS:admin", &["rsa:2048"]);
    let pem = |path: &Path| fs::read(path).unwrap();
    let stranger_of = other(&good, "client-certificate-data", &pem(&stranger.certificate));
    fs::write(bench.kubeconfig(), other(&stranger_of, "client-key-data", &pem(&stranger.key))).unwrap();
    assert!(bench.says("apiserver").unwrap_err().contains("it does not know the kubeconfig's user (401)"));
    fs::write(bench.kubeconfig(), good).unwrap();
    assert_eq!(bench.says("node"), Ok("edge-7 is ready, v1.33.1".to_owned()));
}

/// A restart of KubeSolo: the server that goes still answers everything, and says by /readyz alone that it goes.
#[apply(test)]
fn a_real_api_server_that_is_going_down_is_not_ready() {
    Bench::ready();
    let mut bench = Bench::with(&["--shutdown-delay-duration=60s"]);
    bench.register("edge-7 True this");
    assert!(bench.says("node").is_ok());
    bench.api.shut_down();
    let words = "it is not ready (500): shutdown failed";
    let said = || bench.says("apiserver").is_err_and(|why| why == words);
    assert!(wait_for(Duration::from_secs(30), said), "{:?}", bench.says("apiserver"));
    assert_eq!(jq(&bench.api.get(NODES), ".items | length"), "1");
}

/// The certificates that a machine made by its own clock. The one of 1970 is shown to who asks for its name.
#[apply(test)]
fn certificates_are_judged_by_the_clock_that_made_them() {
    Bench::ready();
    need_all(&["faketime", "qemu-x86_64"]);
    let agent = kit::agent(architecture());
    need_file(&agent);
    let (bench, unset, now) = (Bench::new(), "1970-01-01 03:00:16", "");
    let moved = run(at(unset, Path::new("/bin/busybox")).args(["date", "+%s"]));
    if moved.trim().parse::<u64>().unwrap() > 86_400 {
        skip("this qemu-user is static: faketime does not reach it (tests/vm/clock.rs has whole machines)");
    }
    bench.register("edge-7 True this");
    let good = fs::read_to_string(bench.kubeconfig()).unwrap();
    for (clock, name, words) in [
        (now, "", ""),
        (now, "then.kubernetes", "has expired"),
        (unset, "then.kubernetes", ""),
        ("1970-12-31 00:00:00", "then.kubernetes", ""),
        // Made while the clock was set; the battery is empty since then.
        (unset, "", ""),
        ("2036-01-01 00:00:00", "", "has expired"),
        ("2036-01-01 00:00:00", "then.kubernetes", "has expired"),
        // It is not set, and no more its first year by itself.
        ("1971-02-01 00:00:00", "then.kubernetes", "has expired"),
    ] {
        let named = format!("{}\n    tls-server-name: {name}", bench.api.url());
        let text = if name.is_empty() { good.clone() } else { good.replace(bench.api.url(), &named) };
        fs::write(bench.kubeconfig(), text).unwrap();
        let mut agent = at(clock, &agent);
        agent.args(["healthcheck", "--timeout", "0", "--check-timeout", "20", "--json", "--root"]);
        let run: Run = agent.arg(bench.root.path("")).output().unwrap().into();
        assert_eq!(run.code, if words.is_empty() { 0 } else { 9 }, "{clock} {name}: {run:?}");
        assert!(run.jq(".checks[0].detail").contains(words), "{clock} {name}: {}", run.stdout);
    }
}

/// Runs a static program by another clock. Its own way to the clock is the kernel's page (vDSO), which nothing stands before; QEMU
/// asks its C library for it.
fn at(clock: &str, program: &Path) -> Command {
    let mut faketime = command("faketime");
    faketime.env("TZ", "UTC").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let clock = if clock.is_empty() { "+0" } else { clock };
    faketime.args(["-f", clock]).arg(find(&format!("qemu-{}", std::env::consts::ARCH)).unwrap()).arg(program);
    faketime
}

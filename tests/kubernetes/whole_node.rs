//! A node whose parts are all real: containerd, of both generations, and kube-apiserver; they come up one after another while the
//! agent waits, and go one after another.

use super::node_lists::Bench;
use super::workloads;
use crate::support::disk::wait_for;
use crate::support::node::Containerd;
use crate::support::registry::Guard;
use crate::support::root::Run;
use crate::support::{find, need_file, run};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const COREDNS: &str = "kube-system/coredns 1 1 seen";

fn comes_up_and_goes(program: &Path) {
    let bench = Bench::new();
    bench.register("edge-7 False this");
    bench.root.configure_node("workloads = kube-system/coredns\n");
    let dir = bench.root.path("var/lib/kubesolo/containerd");
    fs::create_dir_all(&dir).unwrap();
    // What it waits for, a line a change: each part is brought when it is the one that is waited for.
    let said = bench.root.path("run/said");
    fs::create_dir_all(said.parent().unwrap()).unwrap();
    let mut waiting = bench.root.command(&["healthcheck", "--timeout", "600", "--json"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
    let mut waiting = Guard(waiting);
    let waits_for = |words: &str| {
        let found = wait_for(Duration::from_secs(60), || fs::read_to_string(&said).unwrap().contains(words));
        assert!(found, "{words}: {}", fs::read_to_string(&said).unwrap());
    };
    waits_for("containerd: ");
    let containerd = Containerd::start_from(&dir, program);
    waits_for("node edge-7 is not ready: Ready is False");
    bench.register("edge-7 True this");
    waits_for("deployment kube-system/coredns does not exist");
    workloads::put(&bench, COREDNS);
    let mut out = String::new();
    std::io::Read::read_to_string(&mut waiting.0.stdout.take().unwrap(), &mut out).unwrap();
    let ended = Run { code: waiting.0.wait().unwrap().code().unwrap(), stdout: out, stderr: String::new() };
    let results = |run: &Run| run.jq(r#".checks | map(.name + "=" + .result) | join(" ")"#);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(results(&ended), "containerd=passed apiserver=passed node=passed workloads=passed");
    let version = run(Command::new(program).arg("--version"));
    assert_eq!(ended.jq(".checks[0].detail"), format!("containerd {}", version.split(' ').nth(2).unwrap().trim()));
    // And without it again, though its socket stays.
    containerd.kill();
    let gone = bench.root.agent(&["healthcheck", "--timeout", "0", "--json"]).expect(9, &["Connection refused"]);
    assert_eq!(results(&gone), "containerd=failed apiserver=not_run node=not_run workloads=not_run");
}

#[apply(test)]
fn with_this_systems_containerd() {
    Bench::ready();
    Containerd::ready();
    comes_up_and_goes(&find("containerd").unwrap());
}

#[apply(test)]
fn with_containerd_2() {
    Bench::ready();
    need_file(&Containerd::two());
    comes_up_and_goes(&Containerd::two());
}

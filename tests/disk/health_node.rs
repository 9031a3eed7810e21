//! healthcheck against the parts of a node: a real containerd, an API server that demands its administrator's certificate.
//!
//! Longer than other files: each part of a node is small, and they share one bench.

use crate::support::disk::{Disk, need_disks};
use crate::support::node::{Api, Containerd, NodeList};
use crate::support::registry::Ca;
use crate::support::root::{Root, Run};
use crate::support::trial::Trial;
use crate::support::{self, command, need, run};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A machine that is not on trial, whose boot id and name the node list of [`NodeList::default`] fits.
struct Bench {
    _disk: Disk,
    root: Root,
}

const BOOT_ID: &str = "11111111-2222-3333-4444-555555555555";

impl Bench {
    fn new() -> Bench {
        let disk = Disk::new(24, 16);
        let root = Root::new(&disk);
        fs::write(root.path("proc/sys/kernel/random/boot_id"), format!("{BOOT_ID}\n")).unwrap();
        fs::write(root.path("proc/sys/kernel/hostname"), "edge-7\n").unwrap();
        Bench { _disk: disk, root }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.root.path("var/lib/kubesolo/pki/admin/admin.kubeconfig")
    }

    fn socket(&self) -> PathBuf {
        self.root.path("var/lib/kubesolo/containerd/containerd.sock")
    }

    /// One round; its JSON.
    #[track_caller]
    fn once(&self, code: i32, words: &[&str]) -> Run {
        self.root.agent(&["healthcheck", "--timeout", "0", "--check-timeout", "5", "--json"]).expect(code, words)
    }
}

fn ready() {
    need_disks();
    need("kubectl");
    need("openssl");
}

fn results(run: &Run) -> String {
    run.jq(r#".checks | map(.name + "=" + .result) | join(" ")"#)
}

#[apply(test)]
fn a_real_containerd_is_healthy_until_it_is_stopped_or_gone() {
    need_disks();
    Containerd::ready();
    let bench = Bench::new();
    bench.root.configure_node("kubeconfig = off\n");
    fs::create_dir_all(bench.socket().parent().unwrap()).unwrap();
    bench.once(9, &["containerd", "No such file"]);
    let containerd = Containerd::start(bench.socket().parent().unwrap());
    let answer = bench.once(0, &[]);
    let version = run(command("containerd").arg("--version"));
    let version = version.split(' ').nth(2).unwrap();
    assert_eq!(answer.jq(".checks[0].detail"), format!("containerd {version}"));
    assert_eq!(results(&answer), "containerd=passed");
    // Its socket still accepts.
    containerd.signal("STOP");
    let start = Instant::now();
    let late = bench.once(9, &["containerd", "no answer for 5 s"]);
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert_eq!(late.jq(".checks[0].duration_millis >= 5000 and .waited_secs >= 5"), "true", "{}", late.stdout);
    containerd.signal("CONT");
    bench.once(0, &[]);
    containerd.kill();
    bench.once(9, &["Connection refused"]);
    // Elsewhere, by the configuration.
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Containerd::start(dir.path());
    std::os::unix::fs::symlink(&elsewhere.socket, bench.root.path("run/c.sock")).unwrap();
    bench.root.configure_node("containerd_socket = /run/c.sock\nkubeconfig = off\n");
    bench.once(0, &[]);
}

/// Says something to whoever connects, and keeps the connection open.
fn impostor(socket: &Path, says: Vec<u8>) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(&says);
            held.push(stream);
        }
    });
}

#[apply(test)]
fn what_is_no_containerd_is_not_healthy() {
    need_disks();
    let bench = Bench::new();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let with = |more: &[u8]| [&settings[..], more].concat();
    let answer = |message: &[u8]| {
        let mut bytes = with(&[0, 0, message.len() as u8, 0, 0, 0, 0, 0, 1]);
        bytes.extend_from_slice(message);
        bytes.extend_from_slice(&[0, 0, 0, 1, 5, 0, 0, 0, 1]);
        bytes
    };
    let cases: [(&str, Vec<u8>, i32, &str); 11] = [
        ("silent", vec![], 9, "no answer for 1 s"),
        ("http1", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), 9, "does not speak HTTP/2"),
        ("headers-first", vec![0, 0, 0, 1, 5, 0, 0, 0, 1], 9, "does not speak HTTP/2"),
        ("settings-only", settings.to_vec(), 9, "no answer for 1 s"),
        ("endless", settings.repeat(100_000), 9, "too many frames"),
        ("huge-frame", with(&[0, 0xff, 0xff, 0, 0, 0, 0, 0, 1]), 9, "does not speak HTTP/2"),
        ("goaway", with(&[0, 0, 0, 7, 0, 0, 0, 0, 0]), 9, "shutting down"),
        ("reset", with(&[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7]), 9, "refuses the call"),
        ("error", with(&[0, 0, 0, 1, 5, 0, 0, 0, 1]), 9, "with an error"),
        ("no-version", answer(&[0, 0, 0, 0, 0]), 9, "has no version"),
        // So that the rest can fail for its own reason.
        ("good", answer(b"\0\0\0\0\x07\x0a\x051.2.3"), 0, "containerd 1.2.3"),
    ];
    for (name, says, code, word) in cases {
        let socket = bench.root.path(&format!("run/{name}"));
        impostor(&socket, says);
        bench.root.configure_node(&format!("containerd_socket = /run/{name}\nkubeconfig = off\n"));
        let args = ["healthcheck", "--timeout", "0", "--check-timeout", "1", "--json"];
        let run = bench.root.agent(&args).expect(code, &[]);
        assert!(run.jq(".checks[0].detail").contains(word), "{name}: {}", run.stdout);
    }
    // A queue that is full accepts nobody.
    let full = bench.root.path("run/full");
    let mut python = command(support::PYTHON);
    python.args(["-c", FULL_QUEUE]).arg(&full).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut listener = python.spawn().unwrap();
    // Held until its end: a listener whose words nobody reads ends, and its queue with it.
    let (mut words, mut said) = (listener.stdout.take().unwrap(), [0; 5]);
    words.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"full\n");
    bench.root.configure_node("containerd_socket = /run/full\nkubeconfig = off\n");
    let run = bench.root.agent(&["healthcheck", "--timeout", "0", "--check-timeout", "2"]);
    run.expect(9, &["containerd", "no answer for 2 s"]);
    drop(listener.stdin.take());
    assert!(listener.wait().unwrap().success());
}

/// Listens, accepts nobody, and connects until the kernel takes no more; ends with its stdin.
const FULL_QUEUE: &str = r"
import socket, sys
door, held = socket.socket(socket.AF_UNIX), []
door.bind(sys.argv[1])
door.listen(0)
try:
    while True:
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].setblocking(False)
        held[-1].connect(sys.argv[1])
except BlockingIOError:
    print('full', flush=True)
    sys.stdin.read()
";

#[apply(test)]
fn the_api_server_and_its_node_are_asked_with_the_administrators_certificate() {
    ready();
    for key_args in [&["rsa:2048"][..], &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]] {
        let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
        let api = Api::start_with(dir.path(), key_args);
        bench.root.configure_node("containerd_socket = off\n");
        bench.once(9, &["apiserver", "admin.kubeconfig", "there is no such file"]);
        for embedded in [true, false] {
            api.kubeconfig(&bench.kubeconfig(), embedded);
            if !embedded {
                // Its paths are the machine's, not ours.
                let text = fs::read_to_string(bench.kubeconfig()).unwrap();
                let outside = dir.path().display().to_string();
                assert!(text.contains(&outside), "{text}");
                fs::write(bench.kubeconfig(), text.replace(&outside, "/run/pki")).unwrap();
                run(command("cp").arg("-r").arg(dir.path()).arg(bench.root.path("run/pki")));
            }
            // A real kubectl takes what the stand-in says for the real thing.
            if embedded {
                let mut kubectl = command("kubectl");
                kubectl.env("HOME", dir.path()).arg("--kubeconfig").arg(bench.kubeconfig());
                assert_eq!(run(kubectl.args(["get", "--raw", "/readyz"])), "ok");
            }
            let answer = bench.once(0, &[]);
            assert_eq!(results(&answer), "apiserver=passed node=passed");
            assert_eq!(answer.jq(".checks[0].detail"), api.url());
            assert_eq!(answer.jq(".checks[1].detail"), "edge-7 is ready, v1.33.1");
        }
        assert!(api.seen().ends_with(&["/readyz".into(), "/api/v1/nodes".into()]), "{:?}", api.seen());
    }
}

/// kubectl reads the list that the tests send, with the types of a real client.
#[apply(test)]
fn the_list_of_nodes_is_one() {
    need("kubectl");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nodes.json");
    fs::write(&file, NodeList::default().to_string()).unwrap();
    let mut kubectl = command("kubectl");
    kubectl.env("HOME", dir.path()).args(["annotate", "--local", "a=b", "-o"]);
    kubectl.arg("jsonpath={.status.conditions[?(@.type==\"Ready\")].status} {.status.nodeInfo.kubeletVersion}");
    assert_eq!(run(kubectl.arg("-f").arg(&file)), "True v1.33.1");
}

#[apply(test)]
fn what_the_api_server_says_is_the_reason() {
    ready();
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let api = Api::start(dir.path());
    api.kubeconfig(&bench.kubeconfig(), true);
    bench.root.configure_node("containerd_socket = off\n");
    let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Unauthorized","code":401}"#;
    let readyz = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\n[-]poststarthook/rbac failed: x\nreadyz check failed\n";
    for (code, said, word) in [
        (500, readyz, "it is not ready (500): etcd, poststarthook/rbac failed"),
        (503, "", "it is not ready (503)"),
        (401, status, "does not know the kubeconfig's user (401)"),
        (403, status, "may not ask this (403)"),
        (404, "404 page not found", "it is not ready (404)"),
        (500, "[-]\x1b[2Jx failed\n", "\u{fffd}[2Jx failed"),
    ] {
        api.tell(|answers| answers.readyz = (code, said.into()));
        let run = bench.once(9, &[]);
        assert!(run.jq(".checks[0].detail").contains(word), "{word}: {}", run.stdout);
        assert_eq!(results(&run), "apiserver=failed node=not_run");
    }
    api.tell(|answers| answers.readyz = (200, "x".repeat(20_000)));
    bench.once(9, &["longer than 16384 bytes"]);
    api.tell(|answers| answers.readyz = (200, "ok".into()));
    let list = NodeList::default();
    let bad = |ready| NodeList { ready, ..list.clone() }.to_string();
    let other_boot = NodeList { boot_id: "99999999-2222-3333-4444-555555555555".into(), ..list.clone() }.to_string();
    for (code, said, word) in [
        (200, bad("False"), "Ready is False, KubeletNotReady, container runtime network not ready"),
        (200, bad("Unknown"), "Ready is Unknown, NodeStatusUnknown"),
        (200, other_boot, "its kubelet has not reported in this one"),
        (200, r#"{"kind":"NodeList","items":[]}"#.into(), "no node has registered"),
        (200, r#"{"kind":"NodeList","items":null}"#.into(), "no node has registered"),
        (200, status.into(), "not a list of nodes"),
        (200, list.to_string()[..900].into(), "not JSON"),
        (200, "[".repeat(1000), "nested too deeply"),
        (500, String::new(), "/api/v1/nodes answered 500"),
        (403, String::new(), "may not ask this (403)"),
    ] {
        api.tell(|answers| answers.nodes = (code, said));
        let run = bench.once(9, &[]);
        assert!(run.jq(".checks[1].detail").contains(word), "{word}: {}", run.stdout);
        assert_eq!(results(&run), "apiserver=passed node=failed");
    }
    let this_boot = NodeList { boot_id: BOOT_ID.into(), ..list };
    api.tell(|answers| answers.nodes.0 = 200);
    api.tell(|answers| answers.nodes.1 = this_boot.to_string());
    bench.once(0, &[]);
}

/// The client certificate is for the kubeconfig's server; what another one says, its CA's or not, is no answer of this one.
#[apply(test)]
fn a_redirect_is_not_followed_and_a_path_is_kept() {
    ready();
    let (bench, dir, elsewhere) = (Bench::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (api, other) = (Api::start(dir.path()), Api::start(elsewhere.path()));
    api.kubeconfig(&bench.kubeconfig(), true);
    bench.root.configure_node("containerd_socket = off\n");
    for to in [format!("{}/readyz", other.url()), "/api/v1/nodes".into(), "http://127.0.0.1:9/readyz".into()] {
        api.tell(|answers| (answers.readyz.0, answers.location) = (302, Some(to)));
        let run = bench.once(9, &[]);
        assert!(run.jq(".checks[0].detail").contains("it is not ready (302)"), "{}", run.stdout);
    }
    assert!(other.seen().is_empty() && api.seen().iter().all(|path| path == "/readyz"), "{:?}", api.seen());
    api.tell(|answers| (answers.readyz.0, answers.location, answers.below) = (200, None, "/k8s/edge"));
    bench.once(9, &["it is not ready (404)"]);
    let good = fs::read_to_string(bench.kubeconfig()).unwrap();
    for path in ["/k8s/edge", "/k8s/edge/"] {
        fs::write(bench.kubeconfig(), good.replace(&api.url(), &format!("{}{path}", api.url()))).unwrap();
        bench.once(0, &[]);
    }
    assert!(api.seen().ends_with(&["/k8s/edge/readyz".into(), "/k8s/edge/api/v1/nodes".into()]), "{:?}", api.seen());
}

#[apply(test)]
fn five_megabytes_of_images_take_no_memory() {
    ready();
    need("time");
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let api = Api::start(dir.path());
    api.kubeconfig(&bench.kubeconfig(), true);
    bench.root.configure_node("containerd_socket = off\n");
    let measure = || {
        let file = dir.path().join("rss");
        let mut time = command("time");
        time.args(["-f", "%M", "-o"]).arg(&file);
        let mut wrapped = bench.root.command_under(time, &["healthcheck", "--timeout", "0"]);
        assert!(wrapped.output().unwrap().status.success());
        fs::read_to_string(&file).unwrap().trim().parse::<u64>().unwrap()
    };
    let small = measure();
    let huge = NodeList { images: 40_000, ..NodeList::default() }.to_string();
    assert!(huge.len() > 5 << 20);
    api.tell(|answers| answers.nodes.1 = huge);
    let large = measure();
    assert!(large < small + 512 && large < 6 << 10, "{small} and {large} KiB");
}

#[apply(test)]
fn a_server_that_another_ca_signed_or_a_client_that_it_did_not_is_refused() {
    ready();
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let api = Api::start(dir.path());
    let other = Ca::new(dir.path(), "other");
    let stranger = other.issue("stranger", "DNS:admin", &["rsa:2048"]);
    bench.root.configure_node("containerd_socket = off\n");
    api.kubeconfig_of(&bench.kubeconfig(), true, &other, api.client());
    bench.once(9, &["signed by an unknown CA"]);
    api.kubeconfig_of(&bench.kubeconfig(), true, &api.ca, &stranger);
    bench.once(9, &["apiserver"]);
    assert!(api.seen().is_empty(), "{:?}", api.seen());
    // Kubeconfigs that lack something say what, and where.
    api.kubeconfig(&bench.kubeconfig(), true);
    let good = fs::read_to_string(bench.kubeconfig()).unwrap();
    let line = |name: &str| good.lines().find(|l| l.contains(name)).unwrap().to_owned();
    for (old, new, word) in [
        (line("client-key-data"), String::new(), "it has no client-key"),
        (line("client-key-data"), "    client-key-data: AAAA".into(), "no private key in PEM"),
        (line("client-certificate-data"), "    client-certificate-data: '!'".into(), "not base64"),
        (line("server:"), format!("    server: http://{}", &api.url()[8..]), "not an https URL"),
        (
            line("certificate-authority-data"),
            "    certificate-authority: gone.pem".into(),
            "gone.pem: there is no such",
        ),
        (line("certificate-authority-data"), "    insecure-skip-tls-verify: true".into(), "no certificate-authority"),
        (line("current-context"), "current-context: nobody".into(), "no `nobody` among its contexts"),
        (line("server:"), "\tserver: x".into(), "admin.kubeconfig"),
    ] {
        fs::write(bench.kubeconfig(), good.replace(&old, &new)).unwrap();
        let run = bench.once(9, &[]);
        assert!(run.jq(".checks[0].detail").contains(word), "{word}: {}", run.stdout);
    }
    assert!(api.seen().is_empty(), "{:?}", api.seen());
    fs::write(bench.kubeconfig(), good).unwrap();
    bench.once(0, &[]);
}

#[apply(test)]
fn required_checks_decide_and_wanted_ones_warn() {
    need_disks();
    let bench = Bench::new();
    bench.root.configure("");
    bench.root.install_check("wanted/10-nice", "echo no sun; exit 1");
    bench.once(9, &["no health checks are installed"]);
    bench.root.install_check("required/20-b", "echo b is well");
    bench.root.install_check("05-top", "echo top");
    bench.root.install_check("wanted/20-later", "echo seen");
    let run = bench.once(0, &[]);
    assert_eq!(results(&run), "05-top=passed 20-b=passed 10-nice=failed 20-later=passed");
    assert_eq!(run.jq("[.checks[] | .required]"), "[true,true,false,false]");
    assert_eq!(run.jq("[.checks[] | .detail]"), r#"["top","b is well","no sun, exit status 1","seen"]"#);
    let text = bench.root.agent(&["healthcheck"]).expect(0, &["healthy"]);
    assert!(text.stdout.lines().any(|l| l.starts_with("10-nice") && l.contains("warning")), "{}", text.stdout);
    // A fault among what only warns is a warning; among what is required it is not.
    fs::create_dir_all(bench.root.path("run")).unwrap();
    let (wanted, aside) = (bench.root.path("etc/kubesolo/health.d/wanted"), bench.root.path("run/wanted"));
    fs::rename(&wanted, &aside).unwrap();
    fs::write(&wanted, "no directory").unwrap();
    let run = bench.once(0, &[]);
    assert_eq!(results(&run), "05-top=passed 20-b=passed wanted=failed");
    fs::remove_file(&wanted).unwrap();
    fs::rename(&aside, &wanted).unwrap();
    bench.root.install_check("required/20-b", "echo b is ill; exit 2");
    let run = bench.once(9, &["20-b: b is ill, exit status 2"]);
    assert_eq!(results(&run), "05-top=passed 20-b=failed 10-nice=not_run 20-later=not_run");
}

#[apply(test)]
fn healthy_is_what_stays_so() {
    need_disks();
    let bench = Bench::new();
    bench.root.configure("");
    let args = ["healthcheck", "--timeout", "5", "--stable-for", "6"];
    bench.root.agent(&args).expect(2, &["--stable-for is longer than --timeout"]);
    // Up, down once, and up: what was before the break does not count.
    let count = bench.root.path("run/count");
    let script = format!("echo x >> {0}; test $(wc -l < {0}) -ne 2 || {{ echo a break; exit 1; }}", count.display());
    bench.root.install_check("10-flaps", &script);
    let run = bench.root.agent(&["healthcheck", "--timeout", "600", "--stable-for", "3", "--json"]).expect(0, &[]);
    let rounds: u64 = run.jq(".rounds").parse().unwrap();
    assert!(rounds >= 4, "{}", run.stdout);
    assert_eq!(run.jq(".checks[0].last_failure"), "a break, exit status 1");
    assert_eq!(run.jq(".waited_secs >= 3"), "true", "{}", run.stdout);
    fs::write(&count, "x\n").unwrap();
    let args = ["healthcheck", "--timeout", "600"];
    bench.root.agent(&args).expect(0, &["10-flaps", " ok ", " ms", "(before: a break, exit status 1)"]);
    // One that never lasts.
    let script = format!("echo x >> {0}; test $(($(wc -l < {0}) % 2)) = 0 || {{ echo odd; exit 1; }}", count.display());
    bench.root.install_check("10-flaps", &script);
    let run = bench.root.agent(&["healthcheck", "--timeout", "9", "--stable-for", "5", "--json"]).expect(9, &[]);
    assert_eq!(run.jq(".healthy"), "false");
    assert!(run.jq(".rounds").parse::<u64>().unwrap() >= 2, "{}", run.stdout);
}

/// A named pipe in the place of a watchdog device; what was written to it.
struct Dog {
    path: PathBuf,
    fed: Arc<AtomicUsize>,
    reader: Option<thread::JoinHandle<Vec<u8>>>,
}

impl Dog {
    fn new(dir: &Path) -> Dog {
        let (path, fed) = (dir.join("watchdog"), Arc::new(AtomicUsize::new(0)));
        run(command("mkfifo").arg(&path));
        let (file, count) = (path.clone(), fed.clone());
        let reader = thread::spawn(move || {
            let (mut all, mut pipe, mut byte) = (Vec::new(), fs::File::open(file).unwrap(), [0]);
            while pipe.read(&mut byte).unwrap() == 1 {
                all.push(byte[0]);
                count.fetch_add(1, Ordering::SeqCst);
            }
            all
        });
        Dog { path, fed, reader: Some(reader) }
    }

    /// Everything it was fed, once nobody has it open any more.
    fn end(mut self) -> Vec<u8> {
        self.reader.take().unwrap().join().unwrap()
    }
}

#[apply(test)]
fn a_watchdog_is_fed_while_waiting_and_stopped_when_all_is_well() {
    need_disks();
    let bench = Bench::new();
    bench.root.configure("");
    // A check that runs until it is told how to end.
    let (gate, ended) = (bench.root.path("run/gate"), bench.root.path("run/ended"));
    run(command("mkfifo").arg(&gate));
    let script = "word=$(timeout 60 cat GATE); echo >ENDED; test \"$word\" = well";
    let script = script.replace("GATE", &gate.display().to_string()).replace("ENDED", &ended.display().to_string());
    bench.root.install_check("10-slow", &script);
    let dir = tempfile::tempdir().unwrap();
    let spawn = |dog: &Dog, more: &[&str]| {
        let path = dog.path.display().to_string();
        let mut args = vec!["healthcheck", "--timeout", "600", "--watchdog", &path];
        args.extend(more);
        bench.root.command(&args).spawn().unwrap()
    };
    let wait_for = |condition: &dyn Fn() -> bool| support::disk::wait_for(Duration::from_secs(50), condition);
    let fed = |dog: &Dog, count| wait_for(&|| dog.fed.load(Ordering::SeqCst) >= count);
    // Fed while a check runs; then told to stop.
    let dog = Dog::new(dir.path());
    let mut agent = spawn(&dog, &[]);
    assert!(fed(&dog, 4), "starved");
    fs::write(&gate, "ill").unwrap();
    assert!(wait_for(&|| ended.exists()));
    fs::write(&gate, "well").unwrap();
    assert!(agent.wait().unwrap().success());
    let bytes = dog.end();
    assert!(bytes.ends_with(b"\0V") && bytes.iter().filter(|b| **b == b'V').count() == 1, "{bytes:?}");
    // An agent that dies leaves it running, and it bites.
    fs::remove_file(dir.path().join("watchdog")).unwrap();
    let dog = Dog::new(dir.path());
    let mut agent = spawn(&dog, &[]);
    assert!(fed(&dog, 2));
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(!dog.end().contains(&b'V'));
    // Unhealthy, and nobody asked for a restart: somebody is there who decides.
    fs::remove_file(dir.path().join("watchdog")).unwrap();
    let dog = Dog::new(dir.path());
    let path = dog.path.display().to_string();
    bench.root.install_check("10-slow", "exit 1");
    bench.root.agent(&["healthcheck", "--timeout", "0", "--watchdog", &path]).expect(9, &[]);
    assert!(dog.end().ends_with(b"V"));
    // None there: said, and no more.
    bench.root.install_check("10-slow", "exit 0");
    bench
        .root
        .agent(&["healthcheck", "--watchdog", "/nowhere/dog"])
        .expect(0, &["/nowhere/dog", "continuing without it"]);
}

#[apply(test)]
fn a_trial_boot_of_a_whole_node_is_confirmed() {
    Trial::ready();
    ready();
    Containerd::ready();
    let (trial, dir) = (Trial::booted(), tempfile::tempdir().unwrap());
    let kubesolo = trial.root.path("var/lib/kubesolo");
    trial.root.configure_node("signature = off\n");
    fs::create_dir_all(kubesolo.join("containerd")).unwrap();
    let api = Api::start(dir.path());
    trial.root.agent(&["healthcheck", "--timeout", "0"]).expect(9, &["containerd", "not confirmed"]);
    assert_eq!(trial.root.state_field("phase"), "failed");
    trial.assert_boot("B", "0", "2", "");
    // Everything comes up while the agent waits, part by part.
    let mut waiting = trial.root.command(&["healthcheck", "--timeout", "600", "--json"]);
    let waiting = waiting.stdout(std::process::Stdio::piped()).spawn().unwrap();
    assert!(support::disk::wait_for(Duration::from_secs(60), || trial.root.state_field("phase") == "verifying"));
    api.tell(|answers| answers.readyz.0 = 500);
    let _containerd = Containerd::start(&kubesolo.join("containerd"));
    api.kubeconfig(&kubesolo.join("pki/admin/admin.kubeconfig"), true);
    assert!(support::disk::wait_for(Duration::from_secs(60), || api.seen().contains(&"/readyz".to_owned())));
    api.tell(|answers| answers.nodes.1 = NodeList { ready: "False", ..NodeList::default() }.to_string());
    api.tell(|answers| answers.readyz.0 = 200);
    assert!(support::disk::wait_for(Duration::from_secs(60), || api.seen().contains(&"/api/v1/nodes".to_owned())));
    trial.assert_boot("B", "0", "2", "");
    api.tell(|answers| answers.nodes.1 = NodeList::default().to_string());
    let run = Run::from(waiting.wait_with_output().unwrap()).expect(0, &[]);
    assert_eq!(run.jq("[.healthy, .confirmed]"), "[true,true]");
    assert_eq!(results(&run), "containerd=passed apiserver=passed node=passed");
    assert!(run.jq(".checks[2].last_failure").contains("Ready is False"), "{}", run.stdout);
    trial.assert_boot("B", "1", "2", "");
    assert_eq!(trial.root.state_field("phase"), "success");
}

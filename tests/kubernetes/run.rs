//! The containers of `deploy/kubernetes/`, run by a real runc as its manifests say: they stage updates, confirm a
//! trial, are scraped; and a ConfigMap weakens nothing.

use crate::support::container::configure;
use crate::support::disk::{B, Disk, EFI, architecture, noise, wait_for};
use crate::support::kubernetes::{Manifests, Node};
use crate::support::kubernetes_site::{AT_ONCE, PASSWORD, Site, USER, login, ready, serve, sign_again};
use crate::support::machine::Left;
use crate::support::node::{Api, Containerd, NodeList};
use crate::support::prometheus::{check_metrics, need_promtool, value};
use crate::support::pull::{P256, assert_secrecy, assert_staged, put};
use crate::support::registry::{Ca, Guard, Registry, Settings};
use crate::support::release::Release;
use crate::support::root::{Root, jq};
use crate::support::signing::KeyPair;
use crate::support::{command, find, need, run};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Longer than anything that is to come by itself.
const SOON: Duration = Duration::from_secs(60);

#[apply(test)]
fn the_cronjob_stages_an_update_from_a_registry_that_wants_tls_and_a_password() {
    ready();
    need("docker-registry");
    need("oras");
    need("htpasswd");
    need("flock");
    let site = Site::new();
    site.publish(&site.release, true);
    let ca = Ca::new(&site.dir(), "ca");
    let cert = ca.issue("server", "IP:192.0.2.1", &P256);
    let file = site.dir().join("htpasswd");
    fs::write(&file, run(command("htpasswd").args(["-Bbn", USER, PASSWORD]))).unwrap();
    let extra = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
    let settings = Settings { tls: Some(&cert), extra: &extra, inside: Some(&site.net), ..Settings::default() };
    let registry = Registry::start_with(&site.dir(), &settings);
    fs::create_dir(site.machine.root.path("etc/kubesolo/tls")).unwrap();
    fs::copy(&ca.certificate, site.machine.root.path("etc/kubesolo/tls/ca.pem")).unwrap();
    // KubeSolo's own, with its edge key: no pod sees it.
    fs::write(site.machine.root.path("etc/kubesolo/config.yaml"), "edgeKey: secret\n").unwrap();
    let reference = format!("{}/os:v1", registry.host());

    // The machine says nothing of a password; nor does the site give one.
    site.machine.root.configure("ca_file = /etc/kubesolo/tls/ca.pem\n");
    site.apply("overlays/registry", &[], "registry", &reference).expect(2, &["/etc/kubesolo/tls/ca.pem"]);
    site.apply("overlays/registry", &["tls"], "registry", &reference).expect(6, &["401"]);
    site.machine.root.configure("ca_file = /etc/kubesolo/tls/ca.pem\nauth_file = /run/secrets/kubesolo/config.json\n");
    site.apply("overlays/registry", &["tls"], "registry", &reference).expect(2, &["/run/secrets/kubesolo/config.json"]);
    let pod = site.cronjob("overlays/registry", &["credentials", "tls"], "registry", &reference);
    assert_eq!(pod.config(".root.readonly"), "true");
    let etc = r#"[.mounts[].source | select(contains("/etc/kubesolo/")) | sub(".*/etc/kubesolo/"; "")] | sort"#;
    assert_eq!(pod.config(etc), r#"["tls","update-keys.d","update.conf"]"#);
    let said =
        pod.finish().expect(0, &["2.0.0 is staged in slot B", "release.pub", "Next: `kubesolo-update activate`"]);
    assert_staged(&site.machine, &site.release);
    assert_secrecy(&site.machine, &said, &[PASSWORD, &login()]);
    // What lies on the machine is what the machine's own agent finds.
    site.machine.root.agent(&["status"]).expect(0, &["2.0.0", "staged"]);
    assert!(site.machine.root.path("var/lib/kubesolo/update/lock").is_file());
    // The next run has nothing to do.
    site.apply("overlays/registry", &["credentials", "tls"], "registry", &reference).expect(0, &["staged"]);
    assert!(site.machine.root.blocks() == site.machine.blocks, "it touched the boot variables");
    // The machine's own agent and the pod's keep out of each other's way.
    let mut hold = command("flock");
    hold.arg(site.machine.root.path("var/lib/kubesolo/update/lock")).args(["sh", "-c", "echo held; read -r end"]);
    let mut hold = Guard(hold.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(hold.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    site.apply("overlays/registry", &["credentials", "tls"], "registry", &reference).expect(0, &["another run"]);
    // Its shell ends with its stdin, and with it the lock.
    drop(hold.0.stdin.take());
    hold.0.wait().unwrap();
    // A component goes on where the base stops.
    site.apply("overlays/registry", &["credentials", "tls", "activate"], "registry", &reference)
        .expect(0, &["slot B is active"]);
    assert_eq!(site.machine.root.boot_variables()["active_slot"], "B");
    assert!(!Path::new("/dev/termination-log").exists(), "a file is left in /dev");
}

#[apply(test)]
fn the_cronjob_stages_an_update_from_a_web_server() {
    ready();
    need("python3");
    let site = Site::new();
    let (_server, url) = serve(&site, &site.release);
    // Plain HTTP to another machine is the machine's to allow.
    site.apply("overlays/http", &[], "server", &url).expect(2, &["plain HTTP is not allowed"]);
    site.machine.root.configure("plain_http = yes\n");
    // Whatever the manifests say of a source, a machine without a key takes nothing.
    fs::remove_file(site.machine.root.path("etc/kubesolo/update-keys.d/release.pub")).unwrap();
    site.apply("overlays/http", &[], "server", &url).expect(5, &["no key is installed"]);
    put(&site.machine, "update-keys.d/release.pub", site.key.pem(), 0o644);
    site.apply("overlays/http", &[], "server", &url).expect(0, &["2.0.0 is staged in slot B"]);
    assert_staged(&site.machine, &site.release);
    // The base asks where the machine's own update.conf says.
    let (_newer, url) = serve(&site, &Release::new("2.1.0"));
    site.machine.root.configure(&format!("plain_http = yes\nserver = {url}\n"));
    let base = Manifests::new().build_site("base", &[], AT_ONCE);
    site.node().pod(&base, "CronJob", "kubesolo-update").finish().expect(0, &["2.1.0 is staged in slot B"]);
}

#[apply(test)]
fn the_memory_limit_holds_for_files_that_are_larger() {
    ready();
    need("python3");
    let mut site = Site::new();
    site.release.ours_mut().kernel = noise(7, 100 << 20);
    let disk = Disk::new(128, 16);
    let root = Root::new(&disk);
    disk.efi_as_ext4(&root.path("boot/efi"));
    let _efi = disk.mount(EFI, &root.path("boot/efi"));
    root.configure("signature = off\nplain_http = yes\n");
    let (_server, url) = serve(&site, &site.release);
    let objects = site.objects("overlays/http", &[], "server", &url);
    let pod = Node { root: &root, ..site.node() }.pod(&objects, "CronJob", "kubesolo-update");
    assert_eq!(pod.config(".linux.resources.memory.limit"), (64 << 20).to_string());
    let cgroup = pod.in_cgroup();
    pod.finish().expect(0, &["2.0.0 is staged"]);
    assert!(disk.file(B, "vmlinuz").unwrap() == site.release.ours().kernel);
    let most = cgroup.most_memory();
    println!("{most} bytes at most, page cache included");
    // What runc itself takes before it sets the limit is in it.
    assert!(most > 32 << 20 && most <= 68 << 20, "{most}: was there a limit?");
}

#[apply(test)]
fn a_configmap_weakens_nothing() {
    ready();
    need("docker-registry");
    need("oras");
    let site = Site::new();
    site.publish(&site.release, false);
    let registry = Registry::start_with(&site.dir(), &Settings { inside: Some(&site.net), ..Settings::default() });
    let unsigned = format!("{}/os:v1", registry.host());
    site.machine.root.configure("plain_http = yes\nretries = 0\n");
    site.apply("overlays/registry", &[], "registry", &unsigned).expect(5, &["it is not signed"]);
    site.machine.assert_unharmed("an unsigned release", "failed", "signature", Left::Untouched);
    // A value stays one word: none of these is an option, a second argument, or a line of update.conf.
    for hostile in [
        "--allow-downgrade",
        "--config=/run/x",
        "-h",
        &format!("{unsigned} --allow-downgrade"),
        &format!("{unsigned}\nsignature = off"),
        "$(KUBESOLO_REGISTRY)",
        "",
    ] {
        let run = site.apply("overlays/registry", &[], "registry", hostile);
        assert!([2, 6].contains(&run.code), "{hostile:?}: {run:?}");
        assert!(!run.stdout.contains("Usage"), "{hostile:?}: {run:?}");
        site.machine.assert_unharmed(hostile, "failed", "signature", Left::Untouched);
    }
    // Two signatures are the machine's to demand.
    sign_again(&site);
    site.machine.root.configure("plain_http = yes\nretries = 0\nsignature_threshold = 2\n");
    let other = KeyPair::p256(&site.dir(), "other");
    put(&site.machine, "update-keys.d/other.pub", other.pem(), 0o644);
    site.apply("overlays/registry", &[], "registry", &unsigned)
        .expect(5, &["2 keys must have signed it, and only", "release.pub"]);
    // The same one, where one is enough.
    site.machine.root.configure("plain_http = yes\nretries = 0\n");
    site.apply("overlays/registry", &[], "registry", &unsigned).expect(0, &["2.0.0 is staged"]);
    // Without the machine's directory there is no pod.
    fs::rename(site.machine.root.path("etc/kubesolo"), site.machine.root.path("etc/elsewhere")).unwrap();
    let objects = site.objects("overlays/registry", &[], "registry", &unsigned);
    let refused = site.node().try_pod(&objects, "CronJob", "kubesolo-update").err().expect("no pod");
    assert!(refused.contains("/etc/kubesolo/update.conf is not a File"), "{refused}");
}

#[apply(test)]
fn with_reboot_the_machine_would_restart() {
    ready();
    need("python3");
    let site = Site::new();
    let (_server, url) = serve(&site, &site.release);
    site.machine.root.configure("plain_http = yes\n");
    let pod = site.cronjob("overlays/http", &["reboot"], "server", &url);
    let kinds = "[.linux.namespaces[].type]";
    assert_eq!(pod.config(kinds), r#"["ipc","mount","uts","network"]"#, "it has the machine's process namespace");
    // Not this machine: the right to restart is taken from it, and its processes are its own.
    let change = ".linux.namespaces += [{type: \"pid\"}] \
        | .process.capabilities |= map_values(map(select(. != \"CAP_SYS_BOOT\")))";
    configure(&pod.bundle, change);
    assert_eq!(
        pod.config(&format!("({kinds} | index(\"pid\") != null), (tostring | contains(\"SYS_BOOT\"))")),
        "true\nfalse"
    );
    pod.finish().expect(1, &["restart the machine", "not permitted"]);
    assert_staged_and_active(&site);
}

#[track_caller]
fn assert_staged_and_active(site: &Site) {
    assert!(site.machine.disk.file(B, "vmlinuz").unwrap() == site.release.ours().kernel);
    assert_eq!(site.machine.root.state_field("phase"), "activated");
    assert_eq!(site.machine.root.boot_variables()["active_slot"], "B");
}

#[apply(test)]
fn the_job_confirms_a_healthy_trial_and_no_other() {
    ready();
    Containerd::ready();
    need("kubectl");
    need("busybox");
    let mut site = Site::new();
    site.machine.root.set_boot_variables(&["active_slot=B", "boot_success=0", "boot_counter=2"]);
    let guid = site.machine.disk.guid(B);
    site.machine.root.boot('B', Some(&guid));
    let root = &site.machine.root;
    root.configure_node("");
    let objects = Manifests::new().build("healthcheck");
    let job = || site.node().pod(&objects, "Job", "kubesolo-update-healthcheck");
    let why = site.node().try_pod(&objects, "Job", "kubesolo-update-healthcheck").err().expect("no pod");
    assert!(why.contains("containerd.sock is not a Socket"), "{why}");
    let sockets = root.path("var/lib/kubesolo/containerd");
    fs::create_dir_all(&sockets).unwrap();
    let _containerd = Containerd::start(&sockets);
    let dir = tempfile::tempdir().unwrap();
    let api = Api::start(dir.path());
    api.kubeconfig(&root.path("var/lib/kubesolo/pki/admin/admin.kubeconfig"), true);
    let read = |path: &str| fs::read_to_string(path).unwrap().trim().to_string();
    let node = |name: &str, ready: &'static str| {
        // The pod sees the machine's own, whatever its name.
        let boot_id = if ready == "True" { read("/proc/sys/kernel/random/boot_id") } else { "another".to_string() };
        NodeList { name: name.into(), ready, boot_id, images: 1 }.to_string()
    };
    // Another node that is never ready again.
    let nodes = format!("[{},{}]", node(&read("/proc/sys/kernel/hostname"), "Unknown"), node("renamed", "True"));
    let both = jq(&nodes, ".[0].items += .[1].items | .[0]");
    api.tell(|answers| answers.nodes = (200, both));
    let variables = || root.boot_variables()["boot_success"].clone();

    // A script needs a shell, which the image has none of: what cannot be asked is not confirmed.
    root.install_check("required/script", "exit 0");
    let pod = job();
    assert_eq!(pod.config(".process.args[-4:]"), r#"["--timeout","900","--stable-for","30"]"#);
    configure(&pod.bundle, ".process.args[-4:] = [\"--timeout\", \"1\"]");
    pod.finish().expect(9, &["script"]);
    assert_eq!(variables(), "0");
    fs::remove_file(root.path("etc/kubesolo/health.d/required/script")).unwrap();
    // A static program does not.
    fs::copy(find("busybox").unwrap(), root.path("etc/kubesolo/health.d/required/true")).unwrap();
    let pod = job();
    // Not a quarter of an hour, should it fail.
    configure(&pod.bundle, ".process.args[-4:] = [\"--timeout\", \"60\", \"--stable-for\", \"3\"]");
    pod.finish().expect(0, &["containerd", "apiserver", "node", "the trial boot is confirmed"]);
    assert_eq!(variables(), "1");
}

#[apply(test)]
fn the_daemonset_is_scraped_and_ends_when_it_is_told() {
    ready();
    need_promtool();
    need("curl");
    let site = Site::new();
    let objects = Manifests::new().build("base");
    let pod = site.node().pod(&objects, "DaemonSet", "kubesolo-update-metrics");
    let mut child = pod.start();
    let mut stderr = BufReader::new(child.0.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("metrics at http://0.0.0.0:9199/metrics"), "{line}");
    std::thread::spawn(move || stderr.read_to_string(&mut String::new()));
    let curl = |path: &str| {
        let mut curl = site.net.command("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "20", "-w", "\n%{http_code}"]);
        curl.arg(format!("http://{}:9199{path}", site.net.address));
        run(&mut curl)
    };
    let page = curl("/metrics");
    let page = page.strip_suffix("\n200").unwrap_or_else(|| panic!("{page}"));
    check_metrics(page);
    // What the disk, the boot variables and the kernel command line say, not defaults.
    for (series, wanted) in [
        (
            format!(
                "kubesolo_os_info{{version=\"1.0.0\",channel=\"stable\",architecture=\"{}\",slot=\"A\"}}",
                architecture()
            ),
            1,
        ),
        ("kubesolo_slot_valid{slot=\"A\"}".into(), 1),
        ("kubesolo_boot_success".into(), 1),
        ("kubesolo_boot_canary".into(), 1),
        ("kubesolo_update_phase{phase=\"idle\"}".into(), 1),
    ] {
        assert_eq!(value(page, &series), wanted, "{series}\n{page}");
    }
    let probe = jq(
        &objects,
        ".[] | select(.kind == \"DaemonSet\") | .spec.template.spec.containers[0].livenessProbe.httpGet.path",
    );
    assert!(curl(&probe).ends_with("\n200"));
    pod.signal("TERM");
    assert!(wait_for(SOON, || child.0.try_wait().unwrap().is_some()), "it does not end");

    // Why the pod shares its process namespace: as process 1 it hears nothing of SIGTERM.
    let alone =
        jq(&objects, "map(if .kind == \"DaemonSet\" then del(.spec.template.spec.shareProcessNamespace) else . end)");
    let pod = site.node().pod(&alone, "DaemonSet", "kubesolo-update-metrics");
    let mut child = pod.start();
    BufReader::new(child.0.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    pod.signal("TERM");
    assert!(curl("/healthz").ends_with("\n200") && child.0.try_wait().unwrap().is_none(), "it ends: no need then");
}

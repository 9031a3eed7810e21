//! `deploy/kubernetes/`: what a real kustomize builds is valid for several versions of Kubernetes and keeps the rules of
//! `support/kubernetes_rules.jq`; and its containers really run, by runc: they stage, check and are scraped.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::container::{need_containers, need_static_agent, pull};
use support::disk::{B, architecture, wait_for};
use support::kubernetes::{IMAGE, Manifests, Node, Pod, need_kustomize, to_yaml, validate};
use support::machine::{Left, Machine};
use support::net::Net;
use support::node::{Api, Containerd, NodeList};
use support::prometheus::{check_metrics, need_promtool, value};
use support::pull::{P256, assert_secrecy, assert_staged, put};
use support::registry::{Ca, Guard, Registry, Settings};
use support::release::{Release, Target};
use support::root::{Root, Run, jq};
use support::signing::{KeyPair, Signed, script, sign};
use support::{PYTHON, command, need, need_python, run};
use tempfile::TempDir;

const VERSIONS: [&str; 3] = ["1.29", "1.33", "1.37"];
const PARTS: [&str; 3] = ["base", "overlays/http", "overlays/registry"];
const COMPONENTS: [&str; 4] = ["activate", "reboot", "credentials", "servicemonitor"];
const USER: &str = "edge";
const PASSWORD: &str = "correct-horse-battery";
/// Longer than anything that is to come by itself.
const SOON: Duration = Duration::from_secs(60);
/// What a test changes in the manifests: nobody waits for the jitter.
const AT_ONCE: &str = "patches:\n- target: {kind: CronJob}\n  patch: |-\n    - op: test\n      \
    path: /spec/jobTemplate/spec/template/spec/containers/0/args/1\n      value: --splay\n    - op: replace\n      \
    path: /spec/jobTemplate/spec/template/spec/containers/0/args/2\n      value: \"0\"\n";

/// User and password as Basic authentication sends them.
fn login() -> String {
    kubesolo_update::base64::encode(format!("{USER}:{PASSWORD}").as_bytes())
}

/// Docker's `config.json` for a registry.
fn config_json(host: &str) -> String {
    let login = login();
    format!(r#"{{"auths":{{"{host}":{{"auth":"{login}"}}}}}}"#)
}

/// What is wrong with objects, by `support/kubernetes_rules.jq`.
fn faults(objects: &str, elsewhere: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("objects.json");
    fs::write(&file, objects).unwrap();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/kubernetes_rules.jq");
    let mut jq = command("jq");
    jq.args(["-c", "--arg", "image", &format!("{IMAGE}:{}", env!("CARGO_PKG_VERSION"))]);
    run(jq.args(["--argjson", "elsewhere", elsewhere, "-f"]).arg(rules).arg(file)).trim().to_string()
}

/// Every build there is, with its name.
fn builds(manifests: &Manifests) -> Vec<(String, String)> {
    fs::write(manifests.path("components/credentials/config.json"), config_json("registry.example.com")).unwrap();
    let mut built = vec![("healthcheck".to_string(), manifests.build("healthcheck"))];
    for part in PARTS {
        assert_eq!(manifests.build(part), manifests.build_site(part, &[], ""), "{part}");
        for set in 0..1 << COMPONENTS.len() {
            let chosen: Vec<&str> =
                (0..COMPONENTS.len()).filter(|n| set & (1 << n) != 0).map(|n| COMPONENTS[n]).collect();
            built.push((format!("{part} {chosen:?}"), manifests.build_site(part, &chosen, "")));
        }
    }
    built
}

#[test]
fn every_build_is_valid_and_keeps_the_rules() {
    if !(need_kustomize() && need_python("jsonschema")) {
        return;
    }
    let manifests = Manifests::new();
    let builds = builds(&manifests);
    assert_eq!(builds.len(), 49);
    for (name, objects) in &builds {
        let elsewhere = if name == "healthcheck" { r#"["ServiceAccount/kubesolo-update"]"# } else { "[]" };
        assert_eq!(faults(objects, elsewhere), "[]", "{name}");
    }
    let all: Vec<&str> = builds.iter().map(|(_, objects)| objects.as_str()).collect();
    let all = jq(&format!("[{}]", all.join(",")), "add | unique");
    // Its schema is not among Kubernetes's own.
    let monitors = jq(&all, "map(select(.kind == \"ServiceMonitor\"))");
    let known = jq(&all, "map(select(.kind != \"ServiceMonitor\"))");
    assert_eq!(jq(&monitors, "length"), "1");
    assert_eq!(monitor_faults(&jq(&monitors, ".[0]")), "");
    for version in VERSIONS {
        let out = validate(&known, version);
        let said = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        assert!(out.status.success(), "{version}: {said}");
        let passed = said.lines().filter(|l| l.contains(" passed for resource ")).count();
        assert_eq!(passed.to_string(), jq(&known, "length"), "{version}: {said}");
    }
}

/// Where a ServiceMonitor is not what the operator's CRD describes.
fn monitor_faults(monitor: &str) -> String {
    let program = "import json, sys\nfrom jsonschema import Draft7Validator\n\
        for fault in Draft7Validator(json.load(open(sys.argv[1]))).iter_errors(json.loads(sys.argv[2])): print(fault.message)";
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/servicemonitor-schema.json");
    run(Command::new(PYTHON).args(["-c", program]).arg(schema).arg(monitor))
}

#[test]
fn a_broken_manifest_is_refused_by_the_validators() {
    if !(need_kustomize() && need_python("jsonschema")) {
        return;
    }
    let manifests = Manifests::new();
    let good = manifests.build_site("overlays/registry", &["servicemonitor"], "");
    let known = jq(&good, "map(select(.kind != \"ServiceMonitor\"))");
    let cron = "(.[] | select(.kind == \"CronJob\") | .spec)";
    let pod = "(.[] | select(.kind == \"CronJob\") | .spec.jobTemplate.spec.template.spec)";
    for change in [
        format!("{cron}.concurencyPolicy = \"Forbid\""),
        format!("{cron}.schedule = 6"),
        format!("del({cron}.schedule)"),
        format!("{cron}.jobTemplate.spec.backoffLimit = \"0\""),
        format!("{pod}.containers[0].securityContext.readOnlyRootFileSystem = true"),
        format!("{pod}.containers[0].args[2] = 1800"),
        format!("{pod}.volumes[0].hostPath.typ = \"Directory\""),
        "del(.[] | select(.kind == \"DaemonSet\") | .spec.selector)".into(),
    ] {
        let out = validate(&jq(&known, &change), "1.33");
        assert!(!out.status.success(), "{change}: {}", String::from_utf8_lossy(&out.stdout));
    }
    let monitor = jq(&good, "map(select(.kind == \"ServiceMonitor\")) | .[0]");
    for change in [
        ".spec.endpoints[0].scrapeInterval = \"1m\"",
        ".spec.endpoints[0].interval = \"a minute\"",
        ".spec.endpoints[0].port = 9199",
        "del(.spec.selector)",
        ".spec.selector.matchlabels = {}",
    ] {
        assert_ne!(monitor_faults(&jq(&monitor, change)), "", "{change}");
    }
}

#[test]
fn what_breaks_a_rule_is_found() {
    if !need_kustomize() {
        return;
    }
    let manifests = Manifests::new();
    fs::write(manifests.path("components/credentials/config.json"), config_json("registry.example.com")).unwrap();
    let good = manifests.build_site("overlays/registry", &COMPONENTS, "");
    assert_eq!(faults(&good, "[]"), "[]");
    let table = [
        (". += [{kind: \"ClusterRoleBinding\", metadata: {name: \"x\"}}]", "the agent needs no rights"),
        ("(K(\"ServiceAccount\")).automountServiceAccountToken = true", "a token is handed out"),
        ("(K(\"DaemonSet\") | .spec.template.spec.automountServiceAccountToken) = true", "a token is mounted"),
        ("(K(\"Service\") | .metadata.namespace) = \"default\"", "another namespace"),
        ("del(K(\"ConfigMap\"))", "there is no ConfigMap kubesolo-update-source"),
        ("del(K(\"ConfigMap\") | .data.registry)", "has no registry"),
        ("del(K(\"Secret\"))", "there is no Secret kubesolo-update-registry"),
        ("(K(\"Secret\") | .data) = {\"config.json\": \"e30=\"}", "has no .dockerconfigjson"),
        ("del(P | .volumes[] | select(.name == \"update\"))", "there is no volume update"),
        ("(P | .volumes) += [{name: \"more\", emptyDir: {}}]", "a volume that is mounted nowhere"),
        ("del(P | .containers[0].volumeMounts[] | select(.name == \"config\") | .readOnly)", "can be written"),
        (
            "(P | .volumes[] | select(.name == \"config\")) = {name: \"config\", configMap: {name: \"x\"}}",
            "is not the machine's",
        ),
        (
            "(P | .containers[0].volumeMounts) += [{name: \"run\", mountPath: \"/etc/kubesolo/update-keys.d\"}]",
            "/etc/kubesolo/update-keys.d is not the machine's",
        ),
        ("(P | .containers[0].volumeMounts) += [{name: \"run\", mountPath: \"/etc\"}]", "over /etc"),
        ("(P | .volumes[] | select(.name == \"credentials\") | .secret.defaultMode) = 420", "others can read"),
        ("(P | .containers[0].args) += [\"--allow-downgrade\"]", "--allow-downgrade"),
        ("(P | .containers[0].args) += [\"--config\", \"/tmp/x\"]", "--config"),
        ("(P | .containers[0].env) += [{name: \"HTTPS_PROXY\", value: \"x\"}]", "the environment says HTTPS_PROXY"),
        ("del(P | .containers[0].env)", "nothing sets KUBESOLO_REGISTRY"),
        ("(P | .containers[0].args[2]) = \"0\"", "no jitter"),
        ("(P | .shareProcessNamespace) = true", "the API server refuses it"),
        ("del(P | .hostPID)", "restarts nothing"),
        ("(P | .hostNetwork) = true", "hostNetwork"),
        ("(K(\"DaemonSet\") | .spec.template.spec.hostPID) = true", "hostPID without --reboot"),
        ("(P | .restartPolicy) = \"OnFailure\"", "restartPolicy"),
        ("(P | .containers[0].image) = \"x:latest\"", "image x:latest"),
        ("(P | .containers[0].terminationMessagePath) = \"/dev/termination-log\"", "a file in /dev"),
        ("(K(\"CronJob\") | .spec.schedule) = \"0 * * * *\"", "not every six hours"),
        ("(K(\"CronJob\") | .spec.concurrencyPolicy) = \"Replace\"", "two may run at once"),
        ("(K(\"CronJob\") | .spec.jobTemplate.spec.activeDeadlineSeconds) = 1800", "its deadline"),
        (
            "(K(\"Service\") | .spec.selector[\"app.kubernetes.io/component\"]) = \"update\"",
            "does not find the DaemonSet's",
        ),
        ("del(K(\"Service\") | .spec.selector[\"app.kubernetes.io/component\"])", "does not find the DaemonSet's"),
        ("(K(\"Service\") | .spec.ports[0].targetPort) = \"http\"", "leads nowhere"),
        ("(K(\"DaemonSet\") | .spec.template.spec.containers[0].ports[0].containerPort) = 9100", "leads nowhere"),
        ("(K(\"DaemonSet\") | .spec.template.metadata.labels[\"app.kubernetes.io/component\"]) = \"x\"", "its pods"),
        ("(K(\"DaemonSet\") | .spec.template.spec.containers[0].args[2]) = \"127.0.0.1:9199\"", "listens elsewhere"),
        ("(K(\"ServiceMonitor\") | .spec.endpoints[0].port) = \"http\"", "does not find the Service"),
    ];
    let words = "def K($k): .[] | select(.kind == $k); def P: K(\"CronJob\") | .spec.jobTemplate.spec.template.spec;";
    for (change, fault) in table {
        let found = faults(&jq(&good, &format!("{words} {change}")), "[]");
        assert!(found.contains(fault), "{change}: '{fault}' is not among {found}");
    }
}

/// The agent's image, made by the script, as this machine pulls it.
struct Image {
    dir: TempDir,
    name: String,
}

impl Image {
    fn new() -> Image {
        let dir = tempfile::tempdir().unwrap();
        let dist = dir.path().join("dist");
        fs::create_dir(&dist).unwrap();
        fs::copy(Root::program(), dist.join(format!("kubesolo-update-{}", architecture()))).unwrap();
        let mut build = script(dir.path(), "build-agent-image.sh");
        build.args(["--agent-dir", "dist", "--arch", architecture(), "--no-ca", "--layout", "layout", "--tag", "v1"]);
        run(&mut build);
        let layout = format!("oci:{}:v1", dir.path().join("layout").display());
        let name = pull(&layout, architecture(), &dir.path().join("pulled"));
        Image { dir, name }
    }
}

fn ready() -> bool {
    need_kustomize() && need_containers() && need_static_agent() && need("unshare") && need("ip") && need("openssl")
}

/// A release that the machine's own key has signed; a machine that demands that.
struct Site {
    image: Image,
    machine: Machine,
    net: Net,
    key: KeyPair,
    release: Release,
}

impl Site {
    fn new() -> Site {
        let image = Image::new();
        let key = KeyPair::p256(image.dir.path(), "release");
        let machine = Machine::new();
        fs::create_dir(machine.root.path("etc/kubesolo/update-keys.d")).unwrap();
        put(&machine, "update-keys.d/release.pub", key.pem(), 0o644);
        machine.root.configure("retries = 0\n");
        Site { image, machine, net: Net::new(), key, release: Release::new("2.0.0") }
    }

    fn dir(&self) -> PathBuf {
        self.image.dir.path().to_path_buf()
    }

    fn node(&self) -> Node<'_> {
        Node { root: &self.machine.root, net: &self.net, image: &self.image.name }
    }

    /// Pushes the release as `os:v1`, signed, into a registry's storage.
    fn publish(&self, release: &Release, signed: bool) {
        let open = Registry::start(&self.dir(), None);
        let target = format!("{}/os", open.host());
        release.publish(&self.dir(), Target::Registry, &target, "v1");
        if signed {
            sign(&[&self.key], Signed::Registry(&format!("{target}:v1")));
        }
    }

    /// Runs the CronJob's container of an overlay, whose ConfigMap says this.
    fn apply(&self, overlay: &str, components: &[&str], key: &str, source: &str) -> Run {
        self.cronjob(overlay, components, key, source).finish()
    }

    fn cronjob(&self, overlay: &str, components: &[&str], key: &str, source: &str) -> Pod {
        self.node().pod(&self.objects(overlay, components, key, source), "CronJob", "kubesolo-update")
    }

    fn objects(&self, overlay: &str, components: &[&str], key: &str, source: &str) -> String {
        let manifests = Manifests::new();
        fs::write(manifests.path("components/credentials/config.json"), config_json(source.split('/').next().unwrap()))
            .unwrap();
        let map = format!(
            "- target: {{kind: ConfigMap, name: kubesolo-update-source}}\n  patch: |-\n    - op: replace\n      path: /data/{key}\n      value: {source:?}\n"
        );
        manifests.build_site(overlay, components, &format!("{AT_ONCE}{map}"))
    }
}

#[test]
fn the_cronjob_stages_an_update_from_a_registry_that_wants_tls_and_a_password() {
    if !(ready() && need("docker-registry") && need("oras") && need("htpasswd")) {
        return;
    }
    let site = Site::new();
    site.publish(&site.release, true);
    let ca = Ca::new(&site.dir(), "ca");
    let cert = ca.issue("server", "IP:192.0.2.1", &P256);
    let file = site.dir().join("htpasswd");
    fs::write(&file, run(command("htpasswd").args(["-Bbn", USER, PASSWORD]))).unwrap();
    let extra = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
    let settings = Settings { tls: Some(&cert), extra: &extra, inside: Some(&site.net), ..Settings::default() };
    let registry = Registry::start_with(&site.dir(), &settings);
    fs::copy(&ca.certificate, site.machine.root.path("etc/kubesolo/ca.pem")).unwrap();
    let reference = format!("{}/os:v1", registry.host());

    // The machine says nothing of a password; nor does the site give one.
    site.machine.root.configure("ca_file = /etc/kubesolo/ca.pem\n");
    site.apply("overlays/registry", &[], "registry", &reference).expect(6, &["401"]);
    site.machine.root.configure("ca_file = /etc/kubesolo/ca.pem\nauth_file = /run/secrets/kubesolo/config.json\n");
    site.apply("overlays/registry", &[], "registry", &reference).expect(2, &["/run/secrets/kubesolo/config.json"]);
    let pod = site.cronjob("overlays/registry", &["credentials"], "registry", &reference);
    assert_eq!(pod.config(".root.readonly"), "true");
    let said =
        pod.finish().expect(0, &["2.0.0 is staged in slot B", "release.pub", "Next: `kubesolo-update activate`"]);
    assert_staged(&site.machine, &site.release);
    assert_secrecy(&site.machine, &said, &[PASSWORD, &login()]);
    // What lies on the machine is what the machine's own agent finds.
    site.machine.root.agent(&["status"]).expect(0, &["2.0.0", "staged"]);
    assert!(site.machine.root.path("var/lib/kubesolo/update/lock").is_file());
    // The next run has nothing to do.
    site.apply("overlays/registry", &["credentials"], "registry", &reference).expect(3, &["staged"]);
    assert!(site.machine.root.blocks() == site.machine.blocks, "it touched the boot variables");
    // A component goes on where the base stops.
    site.apply("overlays/registry", &["credentials", "activate"], "registry", &reference)
        .expect(0, &["slot B is active"]);
    assert_eq!(site.machine.root.boot_variables()["active_slot"], "B");
    assert!(!Path::new("/dev/termination-log").exists(), "a file is left in /dev");
}

/// A real web server in the pod's network, with a release. Returns: its URL.
fn serve(site: &Site, release: &Release) -> (Guard, String) {
    let dir = site.dir().join(format!("web-{}", release.version));
    for pair in &release.pairs {
        let files = dir.join(pair.architecture);
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join("vmlinuz"), &pair.kernel).unwrap();
        fs::write(files.join("kubesolo-os.gz"), &pair.initramfs).unwrap();
    }
    fs::write(dir.join("latest.json"), release.latest_json()).unwrap();
    sign(&[&site.key], Signed::Latest(&dir.join("latest.json")));
    let mut server = site.net.command("python3");
    server.args(["-u", "-m", "http.server", "0", "--bind", site.net.address, "--directory"]).arg(dir);
    let mut child = Guard(server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.split(" port ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{line}"));
    (child, format!("http://{}:{port}", site.net.address))
}

#[test]
fn the_cronjob_stages_an_update_from_a_web_server() {
    if !(ready() && need("python3")) {
        return;
    }
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

#[test]
fn a_configmap_weakens_nothing() {
    if !(ready() && need("docker-registry") && need("oras")) {
        return;
    }
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
    site.apply("overlays/registry", &[], "registry", &unsigned).expect(5, &["2"]);
    // The same one, where one is enough.
    site.machine.root.configure("plain_http = yes\nretries = 0\n");
    site.apply("overlays/registry", &[], "registry", &unsigned).expect(0, &["2.0.0 is staged"]);
    // Without the machine's directory there is no pod.
    fs::rename(site.machine.root.path("etc/kubesolo"), site.machine.root.path("etc/elsewhere")).unwrap();
    let objects = site.objects("overlays/registry", &[], "registry", &unsigned);
    let refused = site.node().try_pod(&objects, "CronJob", "kubesolo-update").err().expect("no pod");
    assert!(refused.contains("/etc/kubesolo is not a Directory"), "{refused}");
}

fn sign_again(site: &Site) {
    let open = Registry::start(&site.dir(), None);
    sign(&[&site.key], Signed::Registry(&format!("{}/os:v1", open.host())));
}

#[test]
fn with_reboot_the_machine_would_restart() {
    if !(ready() && need("python3")) {
        return;
    }
    let site = Site::new();
    let (_server, url) = serve(&site, &site.release);
    site.machine.root.configure("plain_http = yes\n");
    let pod = site.cronjob("overlays/http", &["reboot"], "server", &url);
    let kinds = "[.linux.namespaces[].type]";
    assert_eq!(pod.config(kinds), r#"["ipc","mount","uts","network"]"#, "it has the machine's process namespace");
    // Not this machine: the right to restart is taken from it, and its processes are its own.
    let change = ".linux.namespaces += [{type: \"pid\"}] | .process.capabilities |= map_values(map(select(. != \"CAP_SYS_BOOT\")))";
    support::container::configure(&pod.bundle, change);
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

#[test]
fn the_job_confirms_a_healthy_trial_and_no_other() {
    if !(ready() && Containerd::ready() && need("kubectl") && need("busybox")) {
        return;
    }
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
        NodeList { name: name.into(), ready, boot_id: read("/proc/sys/kernel/random/boot_id"), images: 1 }.to_string()
    };
    // Another node that is never ready again: only with the machine's own name is it known which one counts.
    let nodes = format!("[{},{}]", node("renamed", "Unknown"), node(&read("/proc/sys/kernel/hostname"), "True"));
    let both = jq(&nodes, ".[0].items += .[1].items | .[0]");
    api.tell(|answers| answers.nodes = (200, both));
    let variables = || root.boot_variables()["boot_success"].clone();

    // A script needs a shell, which the image has none of: what cannot be asked is not confirmed.
    root.install_check("required/script", "exit 0");
    let pod = job();
    support::container::configure(&pod.bundle, ".process.args[-1] = \"1\"");
    pod.finish().expect(9, &["script"]);
    assert_eq!(variables(), "0");
    fs::remove_file(root.path("etc/kubesolo/health.d/required/script")).unwrap();
    // A static program does not.
    fs::copy(support::find("busybox").unwrap(), root.path("etc/kubesolo/health.d/required/true")).unwrap();
    job().finish().expect(0, &["containerd", "apiserver", "node", "the trial boot is confirmed"]);
    assert_eq!(variables(), "1");
}

#[test]
fn the_daemonset_is_scraped_and_ends_when_it_is_told() {
    if !(ready() && need_promtool() && need("curl")) {
        return;
    }
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

#[test]
fn the_manual_says_what_is_there() {
    if !need_kustomize() {
        return;
    }
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kubernetes.md")).unwrap();
    // The site's kustomization.yaml, as it stands there.
    let block = manual.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of YAML");
    let manifests = Manifests::new();
    fs::create_dir(manifests.path("site")).unwrap();
    fs::write(manifests.path("site/kustomization.yaml"), block).unwrap();
    fs::write(manifests.path("components/credentials/config.json"), "{}").unwrap();
    let objects = manifests.build("site");
    for version in VERSIONS {
        let known = jq(&objects, "map(select(.kind != \"ServiceMonitor\"))");
        let out = validate(&known, version);
        assert!(out.status.success(), "{}", to_yaml(&known));
    }
    let images = "[.. | .image? // empty] | unique | length == 1 and (.[0] | test(\"^registry.example.internal/.*@sha256:[0-9a-f]{64}$\"))";
    assert_eq!(jq(&objects, images), "true");
    assert_eq!(
        jq(&objects, ".[] | select(.kind == \"ConfigMap\") | .data.registry"),
        "registry.example.internal/os/kubesolo:stable"
    );
    assert_eq!(jq(&objects, ".[] | select(.kind == \"CronJob\") | .spec.schedule"), "41 1 * * 6");
    // Every part and component has its place in it.
    for name in PARTS.iter().chain(&["healthcheck"]).chain(&COMPONENTS) {
        assert!(manual.contains(name), "{name}");
    }
}

//! The parts of a KubeSolo node that a health check asks: a real containerd, and a stand-in for the API server, with a
//! kubeconfig that a real kubectl wrote.

use super::disk::wait_for;
use super::listener::{Listener, Request};
use super::registry::{Ca, Guard, ServerCert, last_words};
use super::web::Answer;
use super::{command, find, need, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long anything may take that is to come by itself.
const SOON: Duration = Duration::from_secs(60);

/// A real containerd, without its CRI plugin, which wants a network. Ends when dropped.
pub struct Containerd {
    pub socket: PathBuf,
    child: Guard,
}

impl Containerd {
    pub fn ready() {
        need("containerd");
        need("ctr");
    }

    /// Starts one that keeps everything below `dir`, and waits until its own client can talk to it.
    pub fn start(dir: &Path) -> Containerd {
        Containerd::start_from(dir, &find("containerd").unwrap())
    }

    /// containerd 2, which is unpacked and not installed.
    pub fn two() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/containerd-2/usr/bin/containerd")
    }

    /// The same with another program; its client is the one beside it.
    pub fn start_from(dir: &Path, program: &Path) -> Containerd {
        let (socket, config) = (dir.join("containerd.sock"), dir.join("config.toml"));
        let text =
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n";
        fs::write(&config, text).unwrap();
        let log = fs::File::create(dir.join("containerd.log")).unwrap();
        let mut containerd = Command::new(program);
        containerd.arg("--config").arg(&config).arg("--address").arg(&socket);
        containerd.arg("--root").arg(dir.join("root")).arg("--state").arg(dir.join("state"));
        let mut child = Guard(containerd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let answers = || {
            let mut ctr = Command::new(program.with_file_name("ctr"));
            // Without these it may wait for ever: its default, 0 s, is no limit.
            ctr.args(["--timeout", "5s", "--connect-timeout", "5s", "--address"]).arg(&socket);
            ctr.arg("version").output().unwrap().status.success()
        };
        let ready = wait_for(SOON, || child.0.try_wait().unwrap().is_some() || answers());
        let runs = ready && child.0.try_wait().unwrap().is_none();
        assert!(runs, "containerd does not start: {}", last_words(&mut child, &dir.join("containerd.log")));
        Containerd { socket, child }
    }

    /// Stops it in its tracks, or lets it go on.
    pub fn signal(&self, name: &str) {
        let pid = self.child.0.id().to_string();
        run(command("kill").args(["-s", name, &pid]));
        let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(wait_for(SOON, || state().contains(") T ") == (name == "STOP")), "{}", state());
    }

    /// Kills it; its socket stays.
    pub fn kill(mut self) -> PathBuf {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
        assert!(self.socket.exists());
        self.socket.clone()
    }
}

/// A stand-in for the API server: it demands a client certificate, and answers as it is told.
pub struct Api {
    listener: Listener,
    pub ca: Ca,
    client: ServerCert,
    pub answers: Arc<Mutex<Answers>>,
}

/// What the stand-in says.
#[derive(Clone)]
pub struct Answers {
    pub readyz: (u16, String),
    pub nodes: (u16, String),
    /// `Location`, with everything it says.
    pub location: Option<String>,
    /// The path below which it answers.
    pub below: &'static str,
}

impl Default for Answers {
    fn default() -> Answers {
        let nodes = (200, NodeList::default().to_string());
        Answers { readyz: (200, "ok".into()), nodes, location: None, below: "" }
    }
}

impl Api {
    /// Starts one whose certificates are of the kind that KubeSolo makes.
    pub fn start(dir: &Path) -> Api {
        Api::start_with(dir, &["rsa:2048"])
    }

    /// Input: `key_args`: what `openssl req -newkey` takes.
    pub fn start_with(dir: &Path, key_args: &[&str]) -> Api {
        let ca = Ca::new(dir, "ca");
        let server = ca.issue("apiserver", "IP:127.0.0.1,DNS:kubernetes", key_args);
        let client = ca.issue("admin", "DNS:admin", key_args);
        let answers = Arc::new(Mutex::new(Answers::default()));
        let told = answers.clone();
        let listener = Listener::start_demanding(&server, &ca.certificate, move |request: &Request| {
            let answers = told.lock().unwrap().clone();
            let (status, body) = match request.target.strip_prefix(answers.below) {
                Some("/readyz") => answers.readyz,
                Some("/api/v1/nodes") => answers.nodes,
                _ => (404, "404 page not found".into()),
            };
            let headers = answers.location.map(|to| ("Location".to_owned(), to)).into_iter().collect();
            Answer { status, headers, body: body.into_bytes() }
        });
        Api { listener, ca, client, answers }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.listener.host())
    }

    /// What the agent asked for. (kubectl asks for the version, whatever it is told to do.)
    pub fn seen(&self) -> Vec<String> {
        let agents = |request: &Request| request.header("user-agent").is_some_and(|a| a.starts_with("kubesolo-update"));
        self.listener.seen().into_iter().filter(agents).map(|request| request.target).collect()
    }

    pub fn tell(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.answers.lock().unwrap());
    }

    /// Writes a kubeconfig with a real kubectl. Input: `embedded`: the PEM stands in it, as base64; else its paths.
    pub fn kubeconfig(&self, file: &Path, embedded: bool) {
        self.kubeconfig_of(file, embedded, &self.ca, &self.client);
    }

    /// The same with another CA or client.
    pub fn kubeconfig_of(&self, file: &Path, embedded: bool, ca: &Ca, client: &ServerCert) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let _ = fs::remove_file(file);
        let set = |name: &str, value: &str| {
            run(command("kubectl").arg("config").arg("--kubeconfig").arg(file).args(["set", name, value]));
        };
        let put = |name: &str, path: &Path| match embedded {
            // (`set-credentials --embed-certs` of Debian 12's kubectl crashes.)
            true => set(&format!("{name}-data"), run(command("base64").arg("-w0").arg(path)).trim_end()),
            false => set(name, &path.display().to_string()),
        };
        set("clusters.kubesolo.server", &self.url());
        put("clusters.kubesolo.certificate-authority", &ca.certificate);
        put("users.admin.client-certificate", &client.certificate);
        put("users.admin.client-key", &client.key);
        for context in ["another", "admin@kubesolo"] {
            set(&format!("contexts.{context}.cluster"), "kubesolo");
            set(&format!("contexts.{context}.user"), "admin");
        }
        set("current-context", "admin@kubesolo");
    }

    pub fn client(&self) -> &ServerCert {
        &self.client
    }
}

/// A list of one node, of the shape that a real API server sends.
#[derive(Clone)]
pub struct NodeList {
    pub name: String,
    pub ready: &'static str,
    pub boot_id: String,
    /// Images on the node: each has some 200 bytes.
    pub images: usize,
}

impl Default for NodeList {
    fn default() -> NodeList {
        NodeList { name: "edge-7".into(), ready: "True", boot_id: String::new(), images: 3 }
    }
}

impl std::fmt::Display for NodeList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let NodeList { name, ready, boot_id, images } = self;
        let condition = |kind: &str, status: &str, reason: &str, message: &str| {
            format!(
                r#"{{"type":"{kind}","status":"{status}","lastHeartbeatTime":"2026-11-23T10:00:00Z","lastTransitionTime":"2026-11-20T08:00:00Z","reason":"{reason}","message":"{message}"}}"#
            )
        };
        let mut conditions = vec![
            condition(
                "MemoryPressure",
                "False",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ];
        conditions.extend((0..40).map(|n| condition(&format!("vendor.example/Probe{n}"), "True", "Ready", "Ready")));
        let (reason, message) = match *ready {
            "True" => ("KubeletReady", "kubelet is posting ready status. AppArmor enabled"),
            "Unknown" => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            _ => ("KubeletNotReady", r#"container runtime network not ready: \"cni plugin not initialized\""#),
        };
        conditions.push(condition("Ready", ready, reason, message));
        let image = |n| {
            format!(
                r#"{{"names":["registry.example.com/team/service-{n}@sha256:{n:064}","registry.example.com/team/service-{n}:v1.{n}"],"sizeBytes":{}}}"#,
                n * 1000 + 77
            )
        };
        let images: Vec<String> = (0..*images).map(image).collect();
        write!(
            f,
            r#"{{"kind":"NodeList","apiVersion":"v1","metadata":{{"resourceVersion":"81234"}},"items":[{{"metadata":{{"name":"{name}","uid":"0f9be5d2-93e7-4b6e-bb6c-6d5a5d0b8a11","resourceVersion":"81200","creationTimestamp":"2026-11-20T08:00:00Z","labels":{{"kubernetes.io/arch":"amd64","kubernetes.io/hostname":"{name}","kubernetes.io/os":"linux"}},"annotations":{{"node.alpha.kubernetes.io/ttl":"0","vendor.example/blob":"{{\"kind\":\"NodeList\",\"items\":[{{\"status\":\"False\"}}]}}"}},"managedFields":[{{"manager":"kubesolo","operation":"Update","apiVersion":"v1","time":"2026-11-23T10:00:00Z","fieldsType":"FieldsV1","fieldsV1":{{"f:status":{{"f:conditions":{{"k:{{\"type\":\"Ready\"}}":{{".":{{}},"f:status":{{}}}}}}}}}},"subresource":"status"}}]}},"spec":{{"podCIDR":"10.42.0.0/24","podCIDRs":["10.42.0.0/24"],"providerID":"kubesolo://{name}"}},"status":{{"capacity":{{"cpu":"4","ephemeral-storage":"61255492Ki","memory":"8052428Ki","pods":"110"}},"conditions":[{}],"addresses":[{{"type":"InternalIP","address":"192.0.2.7"}},{{"type":"Hostname","address":"{name}"}}],"daemonEndpoints":{{"kubeletEndpoint":{{"Port":10250}}}},"nodeInfo":{{"machineID":"9f1c","systemUUID":"9f1c","bootID":"{boot_id}","kernelVersion":"6.12.30","osImage":"KubeSolo OS","containerRuntimeVersion":"containerd://1.7.27","kubeletVersion":"v1.33.1","kubeProxyVersion":"","operatingSystem":"linux","architecture":"amd64","swap":{{"capacity":0}}}},"images":[{}],"runtimeHandlers":[{{"name":"","features":{{"recursiveReadOnlyMounts":true,"userNamespaces":null}}}}],"newInTheYear2031":[1,-2.5e-3,true,null,"x"]}}}}]}}"#,
            conditions.join(","),
            images.join(",")
        )
    }
}

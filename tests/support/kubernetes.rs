//! Manifests as a real kustomize builds them and a real kubernetes-validate judges them, and their containers, run by a
//! real runc as kubelet and containerd would have it (`kubernetes_pod.py`).
//!
//! There is no API server and no kubelet here. What stands in for the machine: its root is a directory (`Root`), but
//! for /dev, /sys and the kernel, which are this machine's; a hook lays a kernel command line over the true one, and
//! boot variables where the EFI partition belongs, since not every kernel knows FAT.

use super::container::{Runc, container_id, unpack};
use super::net::Net;
use super::registry::Guard;
use super::root::{Root, Run, jq};
use super::{PYTHON, command, need_all, need_python, run};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Image of all containers, as it stands in the manifests.
pub const IMAGE: &str = "registry.example.com/kubesolo/kubesolo-update";

/// Turns YAML documents into one JSON array.
const TO_JSON: &str = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)";
/// Turns one JSON array into YAML documents.
const TO_YAML: &str = "import json, sys, yaml; yaml.safe_dump_all(json.load(sys.stdin), sys.stdout)";

pub fn need_kustomize() {
    need_all(&["kustomize", "kubernetes-validate", "jq"]);
    need_python("yaml");
}

/// Runs a command with something on its stdin.
fn fed(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeding = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let out = child.wait_with_output().unwrap();
    feeding.join().unwrap().unwrap();
    out
}

fn convert(program: &str, input: &str) -> String {
    let out = fed(Command::new(PYTHON).args(["-c", program]), input);
    assert!(out.status.success(), "{}\n{input}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

pub fn to_yaml(json: &str) -> String {
    convert(TO_YAML, json)
}

/// A copy of `deploy/kubernetes/`, in which a site can have its own `kustomization.yaml`.
pub struct Manifests {
    pub dir: TempDir,
}

impl Manifests {
    pub fn new() -> Manifests {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes");
        run(Command::new("cp").arg("-r").arg(source).arg(dir.path().join("kubernetes")));
        Manifests { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("kubernetes").join(name)
    }

    /// Builds a directory of them. Returns: the objects, as one JSON array.
    pub fn build(&self, name: &str) -> String {
        convert(TO_JSON, &run(&mut self.kustomize(name)))
    }

    pub fn kustomize(&self, name: &str) -> Command {
        let mut kustomize = command("kustomize");
        kustomize.arg("build").arg(self.path(name)).env("HOME", self.dir.path());
        kustomize
    }

    /// Builds a part of them with components, and what else a site's `kustomization.yaml` may have.
    pub fn build_site(&self, part: &str, components: &[&str], more: &str) -> String {
        let site = self.path("site");
        fs::create_dir_all(&site).unwrap();
        let components: Vec<String> = components.iter().map(|c| format!("- ../components/{c}\n")).collect();
        let components = match components.is_empty() {
            true => String::new(),
            false => format!("components:\n{}", components.concat()),
        };
        let head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
        fs::write(site.join("kustomization.yaml"), format!("{head}resources:\n- ../{part}\n{components}{more}"))
            .unwrap();
        self.build("site")
    }
}

/// What kubernetes-validate says of objects, given as one JSON array, for a version of Kubernetes.
pub fn validate(objects: &str, version: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("objects.yaml");
    fs::write(&file, to_yaml(objects)).unwrap();
    command("kubernetes-validate").args(["--strict", "-k", version]).arg(file).output().unwrap()
}

/// A process namespace of a pod's own, with a process 1 that is not the container's.
struct Pause(Guard);

impl Pause {
    fn new() -> Pause {
        let mut hold = command("unshare");
        hold.args(["--pid", "--fork", "--kill-child", "sh", "-c", "echo ready; read -r end"]);
        let mut holder = Guard(hold.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Pause(holder)
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/pid_for_children", self.0.0.id())
    }
}

/// A pod of one container, made ready to run.
pub struct Pod {
    pub bundle: PathBuf,
    pub id: String,
    runc: Runc,
    _pause: Pause,
    _dir: TempDir,
}

/// Where a pod is to run.
pub struct Node<'a> {
    /// The machine.
    pub root: &'a Root,
    /// The pod network.
    pub net: &'a Net,
    /// The agent's image, as umoci takes it.
    pub image: &'a str,
}

impl Node<'_> {
    /// Makes the pod of a CronJob, Job or DaemonSet ready. Input: `objects`: one JSON array. Panics: it would not
    /// start.
    #[track_caller]
    pub fn pod(&self, objects: &str, kind: &str, name: &str) -> Pod {
        self.try_pod(objects, kind, name).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same. Errors: why kubelet would not start it.
    pub fn try_pod(&self, objects: &str, kind: &str, name: &str) -> Result<Pod, String> {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("volumes");
        fs::create_dir(&scratch).unwrap();
        let bundle = unpack(self.image, &dir.path().join("bundle"));
        let pause = Pause::new();
        let machine = self.root.path("");
        // `nsenter --net=/proc/PID/ns/net`
        let enter = self.net.wrapper();
        let netns = enter.get_args().next().unwrap().to_str().unwrap().trim_start_matches("--net=").to_owned();
        let text = |path: &Path| format!("\"{}\"", path.display().to_string().trim_end_matches('/'));
        let told = format!(
            r#"{{"objects":{objects},"kind":"{kind}","name":"{name}","bundle":{},"machine":{},
            "scratch":{},"netns":"{netns}","pidns":"{}",
            "elsewhere":[{{"kind":"ServiceAccount","metadata":{{"name":"kubesolo-update"}}}}],
            "nested":{{"/proc/cmdline":{},"/boot/efi":{}}}}}"#,
            text(&bundle),
            text(&machine),
            text(&scratch),
            pause.namespace(),
            text(&self.root.path("proc/cmdline")),
            text(&self.root.path("boot/efi")),
        );
        // Where the hook lays what the machine has there.
        fs::create_dir_all(bundle.join("rootfs/boot/efi")).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/kubernetes_pod.py");
        let out = fed(Command::new(PYTHON).arg(program), &told);
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        Ok(Pod { bundle, id: container_id(name), runc: Runc::new(), _pause: pause, _dir: dir })
    }
}

impl Pod {
    /// Runs it to its end.
    pub fn finish(&self) -> Run {
        self.runc.finish(&self.bundle, &self.id)
    }

    /// Starts it.
    pub fn start(&self) -> Guard {
        Guard(self.runc.run(&self.bundle, &self.id).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// Sends its process a signal, as kubelet does through the runtime.
    pub fn signal(&self, name: &str) {
        run(self.runc.command().args(["kill", &self.id, name]));
    }

    /// Puts it into a cgroup of the pod's, which outlives the container and knows how much memory that had.
    pub fn in_cgroup(&self) -> Cgroup {
        super::container::configure(&self.bundle, &format!(".linux.cgroupsPath = \"/{}/container\"", self.id));
        Cgroup(self.id.clone())
    }

    /// A field of its configuration.
    pub fn config(&self, filter: &str) -> String {
        jq(&fs::read_to_string(self.bundle.join("config.json")).unwrap(), filter)
    }
}

/// A cgroup in all hierarchies; gone when dropped.
pub struct Cgroup(String);

impl Cgroup {
    /// The most memory that was taken in it, page cache included, in bytes.
    pub fn most_memory(&self) -> u64 {
        let (first, second) = ("/sys/fs/cgroup/memory", "/sys/fs/cgroup");
        let version_1 = fs::read_to_string(format!("{first}/{}/memory.max_usage_in_bytes", self.0));
        let most = version_1.or_else(|_| fs::read_to_string(format!("{second}/{}/memory.peak", self.0)));
        most.expect("a memory cgroup").trim().parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let _ = fs::remove_dir(hierarchy.join(&self.0));
        }
    }
}

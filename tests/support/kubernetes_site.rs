//! A machine, its image and a signed release, for running the containers of `deploy/kubernetes/`.

use super::container::{need_containers, need_static_agent, pull};
use super::disk::{EFI, Mount, architecture};
use super::kubernetes::{Manifests, Node, Pod, need_kustomize};
use super::machine::Machine;
use super::net::Net;
use super::pull::put;
use super::registry::{Guard, Registry};
use super::release::{Release, Target};
use super::root::{Root, Run};
use super::signing::{KeyPair, Signed, script, sign};
use super::{need, run};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use tempfile::TempDir;

pub const USER: &str = "edge";
pub const PASSWORD: &str = "correct-horse-battery";
/// What a test changes in the manifests: nobody waits for the jitter.
pub const AT_ONCE: &str = "patches:\n- target: {kind: CronJob}\n  patch: |-\n    - op: test\n      \
    path: /spec/jobTemplate/spec/template/spec/containers/0/args/2\n      value: --splay\n    - op: replace\n      \
    path: /spec/jobTemplate/spec/template/spec/containers/0/args/3\n      value: \"0\"\n";

/// User and password as Basic authentication sends them.
pub fn login() -> String {
    kubesolo_update::parts::base::base64::encode(format!("{USER}:{PASSWORD}").as_bytes())
}

/// Docker's `config.json` for a registry.
pub fn config_json(host: &str) -> String {
    let login = login();
    format!(r#"{{"auths":{{"{host}":{{"auth":"{login}"}}}}}}"#)
}

/// The agent's image, made by the script, as this machine pulls it.
pub struct Image {
    pub dir: TempDir,
    pub name: String,
}

impl Image {
    pub fn new() -> Image {
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

/// Says whether pods can run here.
pub fn ready() {
    need_kustomize();
    need_containers();
    need_static_agent();
    need("unshare");
    need("ip");
    need("openssl");
}

/// A release that the machine's own key has signed; a machine that demands that.
pub struct Site {
    /// The boot disk's own partition: an agent in a pod takes no other directory for it.
    _efi: Mount,
    pub image: Image,
    pub machine: Machine,
    pub net: Net,
    pub key: KeyPair,
    pub release: Release,
}

impl Site {
    pub fn new() -> Site {
        let image = Image::new();
        let key = KeyPair::p256(image.dir.path(), "release");
        let machine = Machine::new();
        fs::create_dir(machine.root.path("etc/kubesolo/update-keys.d")).unwrap();
        put(&machine, "update-keys.d/release.pub", key.pem(), 0o644);
        machine.root.configure("retries = 0\n");
        let efi = machine.root.path("boot/efi");
        machine.disk.efi_as_ext4(&efi);
        let _efi = machine.disk.mount(EFI, &efi);
        Site { _efi, image, machine, net: Net::new(), key, release: Release::new("2.0.0") }
    }

    pub fn dir(&self) -> PathBuf {
        self.image.dir.path().to_path_buf()
    }

    pub fn node(&self) -> Node<'_> {
        Node { root: &self.machine.root, net: &self.net, image: &self.image.name }
    }

    /// Pushes the release as `os:v1`, signed, into a registry's storage.
    pub fn publish(&self, release: &Release, signed: bool) {
        let open = Registry::start(&self.dir(), None);
        let target = format!("{}/os", open.host());
        release.publish(&self.dir(), Target::Registry, &target, "v1");
        if signed {
            sign(&[&self.key], Signed::Registry(&format!("{target}:v1")));
        }
    }

    /// Runs the CronJob's container of an overlay, whose ConfigMap says this.
    pub fn apply(&self, overlay: &str, components: &[&str], key: &str, source: &str) -> Run {
        self.cronjob(overlay, components, key, source).finish()
    }

    pub fn cronjob(&self, overlay: &str, components: &[&str], key: &str, source: &str) -> Pod {
        self.node().pod(&self.objects(overlay, components, key, source), "CronJob", "kubesolo-update")
    }

    pub fn objects(&self, overlay: &str, components: &[&str], key: &str, source: &str) -> String {
        let manifests = Manifests::new();
        fs::write(manifests.path("components/credentials/config.json"), config_json(source.split('/').next().unwrap()))
            .unwrap();
        let map = format!(
            "- target: {{kind: ConfigMap, name: kubesolo-update-source}}\n  patch: |-\n    \
            - op: replace\n      path: /data/{key}\n      value: {source:?}\n"
        );
        manifests.build_site(overlay, components, &format!("{AT_ONCE}{map}"))
    }
}

/// A real web server in the pod's network, with a release. Returns: its URL.
pub fn serve(site: &Site, release: &Release) -> (Guard, String) {
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

/// Signs what was published before.
pub fn sign_again(site: &Site) {
    let open = Registry::start(&site.dir(), None);
    sign(&[&site.key], Signed::Registry(&format!("{}/os:v1", open.host())));
}

//! Container images as their users take them: pulled by a real skopeo, unpacked by a real umoci, run by a real runc.

use super::disk::need_disks;
use super::root::{Root, Run};
use super::{command, need, need_all, require, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Says whether the scripts that make images can run here.
pub fn need_image_tools() {
    need_all(&["umoci", "oras", "skopeo", "jq", "tar", "readelf"]);
}

/// Says whether containers can run here, with disks.
pub fn need_containers() {
    need_image_tools();
    need_disks();
    need("runc");
}

/// Goes on if the agent under test runs where there are no libraries.
pub fn need_static_agent() {
    let file = run(command("readelf").args(["-lW"]).arg(Root::program()));
    require(!file.contains(" INTERP "), "a static agent in KUBESOLO_UPDATE_BIN (make build)");
}

/// Copies the image for one architecture into a layout, as a machine of that architecture pulls it: index first, then
/// what it names for that machine. Input: `from`: as skopeo takes it. Returns: the layout and tag, as umoci takes it.
pub fn pull(from: &str, architecture: &str, to: &Path) -> String {
    let image = format!("{}:pulled", to.display());
    let mut copy = skopeo(to.parent().unwrap());
    copy.args(["--override-os", "linux", "--override-arch", architecture, "copy", "-q", "--src-tls-verify=false"]);
    run(copy.arg(from).arg(format!("oci:{image}")));
    image
}

/// A skopeo that takes anything, and nobody's configuration.
pub fn skopeo(home: &Path) -> Command {
    let mut skopeo = command("skopeo");
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        skopeo.env_remove(proxy);
    }
    skopeo.env("HOME", home).env("TMPDIR", home).arg("--insecure-policy");
    skopeo
}

/// Unpacks an image, for one architecture, into a bundle that runc takes. Returns: its directory.
pub fn unpack(image: &str, to: &Path) -> PathBuf {
    run(command("umoci").args(["unpack", "--image", image]).arg(to));
    to.to_path_buf()
}

/// Pulls and unpacks. Returns: the bundle.
pub fn unpacked(from: &str, architecture: &str, dir: &Path) -> PathBuf {
    let image = pull(from, architecture, &dir.join(format!("pulled-{architecture}")));
    unpack(&image, &dir.join(format!("bundle-{architecture}")))
}

/// Every file of a bundle's root with its mode, sorted.
pub fn files(bundle: &Path) -> Vec<String> {
    let mut find = Command::new("find");
    find.arg(bundle.join("rootfs")).args(["-mindepth", "1", "-printf", "%P %y %#m %U:%G %T@\n"]);
    let mut files: Vec<String> = run(&mut find).lines().map(str::to_string).collect();
    files.sort();
    files
}

/// Where runc keeps what it knows of containers; each is ended and forgotten when this is dropped.
pub struct Runc {
    dir: TempDir,
}

impl Runc {
    pub fn new() -> Runc {
        Runc { dir: tempfile::tempdir().unwrap() }
    }

    pub fn command(&self) -> Command {
        let mut runc = command("runc");
        runc.arg("--root").arg(self.dir.path());
        runc
    }

    /// What runs a bundle in the foreground. Input: `id`: no other test has it, cgroups have that name.
    pub fn run(&self, bundle: &Path, id: &str) -> Command {
        let mut runc = self.command();
        runc.args(["run", "--bundle"]).arg(bundle).arg(id).stdin(std::process::Stdio::null());
        runc
    }

    /// Runs a bundle to its end.
    pub fn finish(&self, bundle: &Path, id: &str) -> Run {
        self.run(bundle, id).output().unwrap().into()
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        let names = fs::read_dir(self.dir.path()).map(|dir| dir.flatten().map(|e| e.file_name()).collect::<Vec<_>>());
        for name in names.unwrap_or_default() {
            let _ = self.command().args(["delete", "--force"]).arg(name).output();
        }
    }
}

/// An id for a container that nobody else has.
pub fn container_id(name: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let random = dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_string();
    format!("kubesolo-{name}-{random}")
}

/// Makes changes to a bundle's configuration with a real jq.
pub fn configure(bundle: &Path, filter: &str) {
    let file = bundle.join("config.json");
    let changed = run(command("jq").arg(filter).arg(&file));
    fs::write(file, changed).unwrap();
}

"""What kubelet and containerd make of a pod's only container: the configuration of an OCI bundle.

Reads a JSON document from stdin: `objects` (of `kustomize build`), `kind` and `name` (whose pod), `bundle` (unpacked
by umoci), `machine` (the directory that stands for the machine's root), `scratch` (for volumes), `netns` and `pidns`
(of the pod; null: a pid namespace of its own), `nested` (files and directories of the machine that the test has no
kernel for: a hook binds them into the container). Writes BUNDLE/config.json. What it does not know, it refuses.

Source: Kubernetes v1.33, pkg/kubelet/container/helpers.go (expansion), kuberuntime_container_linux.go, pkg/volume;
containerd v1.7, pkg/cri/sbserver/container_create_linux.go, pkg/cri/opts/spec_linux_opts.go (order of mounts).
"""
import base64
import json
import os
import re
import stat
import sys

CAPABILITIES = """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE""".split()
# Those of containers that ask for nothing. Source: containerd, oci/spec.go, defaultUnixCaps.
DEFAULT = """CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT
KILL AUDIT_WRITE""".split()
HOSTPATH_TYPES = {"Directory": stat.S_ISDIR, "DirectoryOrCreate": stat.S_ISDIR, "File": stat.S_ISREG,
                  "FileOrCreate": stat.S_ISREG, "Socket": stat.S_ISSOCK}
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def only(what, of, known):
    for name in of:
        if name not in known:
            sys.exit(f"{what} has '{name}', of which this knows nothing")


def find(objects, kind, name):
    for o in objects:
        if o["kind"] == kind and o["metadata"]["name"] == name:
            return o
    sys.exit(f"the pod would wait for ever: there is no {kind} {name}")


def pod_of(o):
    if o["kind"] == "CronJob":
        return o["spec"]["jobTemplate"]["spec"]["template"]
    return o["spec"]["template"]


def expand(text, env):
    """$(NAME), which stays one word whatever it holds; $$ is a dollar; an unknown name stays as it is."""
    return re.sub(r"\$\$|\$\(([^()]*)\)",
                  lambda m: "$" if m.group() == "$$" else env.get(m.group(1), m.group()), text)


def environment(container, objects, image_env):
    env = dict(pair.split("=", 1) for pair in image_env)
    for e in container.get("env", []):
        if "value" in e:
            env[e["name"]] = expand(e["value"], env)
            continue
        only("valueFrom", e["valueFrom"], ["configMapKeyRef"])
        ref = e["valueFrom"]["configMapKeyRef"]
        data = find(objects, "ConfigMap", ref["name"])["data"]
        if ref["key"] not in data:
            sys.exit(f"the pod would wait for ever: ConfigMap {ref['name']} has no {ref['key']}")
        env[e["name"]] = data[ref["key"]]
    return env


def host_path(volume, machine):
    path, kind = volume["path"], volume.get("type", "")
    # The one directory that a test cannot have of its own: its loop devices are there.
    at = path if path == "/dev" else machine + path
    if kind.endswith("OrCreate") and not os.path.lexists(at):
        if kind == "DirectoryOrCreate":
            os.makedirs(at, 0o755)
        else:
            open(at, "x").close()
    if kind not in HOSTPATH_TYPES:
        sys.exit(f"hostPath {path} has no type, or one of which this knows nothing: {kind}")
    if not os.path.exists(at) or not HOSTPATH_TYPES[kind](os.stat(at).st_mode):
        sys.exit(f"hostPath type check failed: {path} is not a {kind}")
    return at


def projected(volume, data, at):
    """Files behind two links, as kubelet's atomic writer leaves them."""
    os.makedirs(at + "/..revision")
    os.symlink("..revision", at + "/..data")
    items = volume.get("items", [{"key": k, "path": k} for k in data])
    for item in items:
        path = f"{at}/..data/{item['path']}"
        with open(path, "wb") as f:
            f.write(data[item["key"]])
        os.chmod(path, item.get("mode", volume.get("defaultMode", 0o644)))
        os.symlink("..data/" + item["path"], f"{at}/{item['path']}")
    return at


def volume_source(v, objects, machine, scratch):
    only("a volume", v, ["name", "hostPath", "emptyDir", "secret"])
    at = f"{scratch}/{v['name']}"
    if "hostPath" in v:
        return host_path(v["hostPath"], machine)
    if "secret" in v:
        secret = find(objects, "Secret", v["secret"]["secretName"])
        return projected(v["secret"], {k: base64.b64decode(d) for k, d in secret["data"].items()}, at)
    # A tmpfs, for the container in its own place; kubelet mounts it before.
    return None


def mounts(spec, container, objects, machine, scratch):
    volumes = {v["name"]: v for v in spec.get("volumes", [])}
    rw = "rw" if container["securityContext"].get("privileged") else "ro"
    made = {
        "/proc": ("proc", "proc", ["nosuid", "noexec", "nodev"]),
        "/dev": ("tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        "/dev/pts": ("devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        "/dev/mqueue": ("mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
        "/dev/shm": ("tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        "/sys": ("sysfs", "sysfs", ["nosuid", "noexec", "nodev", rw]),
    }
    files = {"/etc/hostname": "x\n", "/etc/hosts": "127.0.0.1 localhost\n",
             "/etc/resolv.conf": "nameserver 192.0.2.53\n"}
    log = container.get("terminationMessagePath", "/dev/termination-log")
    for path, text in (files | {log: ""}).items():
        at = f"{scratch}/{path.replace('/', '_')}"
        with open(at, "w") as f:
            f.write(text)
        made[path] = ("bind", at, ["rbind", "rprivate", "rw"])
    for m in container.get("volumeMounts", []):
        only("a volumeMount", m, ["name", "mountPath", "readOnly"])
        v = volumes[m["name"]]
        source = volume_source(v, objects, machine, scratch)
        access = "ro" if m.get("readOnly") else "rw"
        if source is None:
            only("an emptyDir", v["emptyDir"], ["medium", "sizeLimit"])
            assert v["emptyDir"]["medium"] == "Memory"
            made[m["mountPath"]] = ("tmpfs", "tmpfs", [access, "mode=0777", f"size={size(v['emptyDir']['sizeLimit'])}"])
            continue
            source = os.path.realpath(f"{source}/{m['subPath']}")
        made[m["mountPath"]] = ("bind", source, ["rbind", "rprivate", access])
    order = sorted(made, key=lambda path: path.count("/"))
    return [{"destination": d, "type": made[d][0], "source": made[d][1], "options": made[d][2]} for d in order]


def size(text):
    return int(text[:-2]) * UNITS[text[-2:]]


def ours():
    """Nobody can give what he has not: this may run in a container itself."""
    with open("/proc/self/status") as f:
        bounding = int(re.search(r"^CapBnd:\s*(\w+)$", f.read(), re.M).group(1), 16)
    return [name for bit, name in enumerate(CAPABILITIES) if bounding & (1 << bit)]


def namespaces(spec, netns, pidns):
    kinds = [{"type": "ipc"}, {"type": "mount"}]
    if not spec.get("hostNetwork"):
        kinds += [{"type": "uts"}, {"type": "network", "path": netns}]
    if spec.get("shareProcessNamespace"):
        if spec.get("hostPID"):
            sys.exit("the API server refuses it: hostPID and shareProcessNamespace")
        return kinds + [{"type": "pid", "path": pidns}]
    return kinds if spec.get("hostPID") else kinds + [{"type": "pid"}]


def main():
    told = json.load(sys.stdin)
    objects, bundle = told["objects"], told["bundle"]
    template = pod_of(find(objects, told["kind"], told["name"]))
    spec = template["spec"]
    find(objects + told["elsewhere"], "ServiceAccount", spec["serviceAccountName"])
    [container] = spec["containers"]
    only("the container", container, [
        "name", "image", "imagePullPolicy", "args", "env", "securityContext", "resources", "volumeMounts", "ports",
        "livenessProbe", "readinessProbe", "terminationMessagePath", "terminationMessagePolicy"])
    security = container["securityContext"]
    only("securityContext", security, ["privileged", "runAsUser", "runAsGroup", "readOnlyRootFilesystem"])
    with open(bundle + "/config.json") as f:
        image = json.load(f)
    env = environment(container, objects, image["process"]["env"])
    privileged = security.get("privileged", False)
    caps = ["CAP_" + name for name in (CAPABILITIES if privileged else DEFAULT) if name in ours()]
    # The image's entry point is the first word; umoci puts its `cmd` behind it.
    args = image["process"]["args"][:1] + [expand(a, env) for a in container.get("args", image["process"]["args"][1:])]
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": security["runAsUser"], "gid": security["runAsGroup"]},
            "args": args, "cwd": "/", "env": [f"{k}={v}" for k, v in env.items()],
            "capabilities": {kind: caps for kind in ["bounding", "effective", "permitted"]},
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs", "readonly": security.get("readOnlyRootFilesystem", False)},
        "mounts": mounts(spec, container, objects, told["machine"], told["scratch"]),
        "linux": {
            "namespaces": namespaces(spec, told["netns"], told["pidns"]),
            "rootfsPropagation": "rprivate",
            "maskedPaths": [] if privileged else image["linux"]["maskedPaths"],
            "readonlyPaths": [] if privileged else image["linux"]["readonlyPaths"],
            "resources": {
                "devices": [{"allow": privileged, "access": "rwm"}],
                "memory": {"limit": size(container["resources"]["limits"]["memory"])},
            },
        },
    }
    if not spec.get("hostNetwork"):
        config["hostname"] = "pod"
    nested = "".join(f"mount --bind '{at}' 'rootfs{to}'\n" for to, at in told["nested"].items())
    hook = told["scratch"] + "/hook"
    with open(hook, "w") as f:
        f.write(f"#!/bin/sh\nset -eu\ncd '{bundle}'\n{nested}")
    os.chmod(hook, 0o755)
    config["hooks"] = {"createContainer": [{"path": hook}]}
    with open(bundle + "/config.json", "w") as f:
        json.dump(config, f)


main()

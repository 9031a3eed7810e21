"""Judges cloud-init's files before they go onto a machine that nobody sits at.

Usage: cloud-init.py KIND FILE..., KIND one of user-data, network-config, meta-data. Exit status: 0 good, 1 not, 3 no YAML parser.
What is wrong stands on stdout. cloud-init passes over what it does not know without a word, so names are held against those
that it and netplan know. What some versions of cloud-init read and others do not is a warning: which one the machine has is not
known here. Must never: change a file, or call good what no version's reader takes. One file, long as it is: a quarter of it is
the names that cloud-init and netplan know.
"""

import difflib
import ipaddress
import json
import os
import re
import sys

try:
    import yaml
except ImportError:
    sys.exit(3)
try:
    import cloudinit
    from cloudinit.net import network_state
except ImportError:
    cloudinit = network_state = None

# Source: cloud-init 22.4.2, DataSourceNoCloud and sources/__init__.py.
META_DATA = {
    "availability-zone", "dsmode", "hostname", "instance-id", "launch-index", "local-hostname", "network-interfaces",
    "placement", "platform", "public-keys", "region", "seedfrom",
}  # fmt: skip
# Source: cloud-init 22.4.2's schema (schema-cloud-config-v1.json) and its code, and what later ones have (2026).
USER_DATA = set(
    "allow_public_ssh_keys allow_userdata ansible apk_repos apt apt_ftp_proxy apt_http_proxy apt_https_proxy apt_mirror apt_pipelining "
    "apt_preserve_sources_list apt_proxy apt_reboot_if_required apt_sources apt_update apt_upgrade authkey_hash autoinstall bootcmd "
    "byobu_by_default ca-certs ca_certs chef chpasswd cloud_config_modules cloud_final_modules cloud_init_modules cloud_type "
    "create_hostname_file datasource datasource_list debug def_log_file def_log_file_mode device_aliases disable_ec2_metadata disable_root "
    "disable_root_opts disk_setup drivers fan final_message fqdn fs_setup groups growpart grub-dpkg grub_dpkg hostname interactive_users "
    "keyboard landscape launch-index locale locale_configfile log_cfgs lxd manage_etc_hosts manage_resolv_conf manual_cache_clean "
    "mcollective merge_how merge_type migrate mount_default_fields mounts network no_ssh_fingerprints ntp output "
    "package_reboot_if_required package_update package_upgrade packages password phone_home power_state prefer_fqdn_over_hostname "
    "preserve_hostname puppet random_seed reporting resize_rootfs resolv_conf rh_subscription rpi rsyslog runcmd salt_minion snap snappy "
    "spacewalk ssh ssh_authorized_keys ssh_deletekeys ssh_fp_console_blacklist ssh_genkeytypes ssh_import_id ssh_key_console_blacklist "
    "ssh_keys ssh_publish_hostkeys ssh_pwauth ssh_quiet_keygen swap syslog_fix_perms system_info timezone ubuntu_advantage ubuntu_pro "
    "unverified_modules updates user users vendor_data vendor_data2 version wireguard write_files yum_repo_dir yum_repos zypper".split()
)
# So like a name that is known, from 0 to 1, that it is meant: ssh_authorised_keys is 0.95, local_hostname (beside hostname) 0.73.
NEAR = 0.8
# Source: netplan's reference of its YAML, and what cloud-init reads of it (network config version 2).
DEVICES = {
    "bonds", "bridges", "dummy-devices", "ethernets", "modems", "nm-devices", "tunnels", "virtual-ethernets", "vlans", "vrfs", "wifis",
}  # fmt: skip
TOP_V2 = {"version", "renderer", "openvswitch"} | DEVICES
COMMON = set(
    "accept-ra activation-mode addresses critical dhcp-identifier dhcp4 dhcp4-overrides dhcp6 dhcp6-overrides gateway4 gateway6 "
    "ignore-carrier infiniband-mode interfaces ipv6-address-generation ipv6-address-token ipv6-mtu ipv6-privacy link-local macaddress "
    "match mtu nameservers networkmanager neigh-suppress openvswitch optional optional-addresses parameters ra-overrides renderer routes "
    "routing-policy set-name wakeonlan emit-lldp embedded-switch-mode delay-virtual-functions-rebind virtual-function-count "
    "generic-receive-offload generic-segmentation-offload large-receive-offload receive-checksum-offload "
    "tcp-segmentation-offload tcp6-segmentation-offload transmit-checksum-offload".split()
)
MORE = {
    "ethernets": {"auth", "link"},
    "modems": set("apn auto-config device-id network-id number password pin sim-id sim-operator-id username".split()),
    "tunnels": set(
        "ageing arp-proxy checksums flow-label id key keys limit link local mac-learning mark mode peers port port-range private-key "
        "protocol remote short-circuit ttl type-of-service do-not-fragment notifications".split()
    ),
    "virtual-ethernets": {"peer"},
    "vlans": {"id", "link"},
    "vrfs": {"table"},
    "wifis": {"access-points", "auth", "regulatory-domain", "wakeonwlan"},
    "nm-devices": {"passthrough"},
}
INSIDE = {
    "match": {"name", "macaddress", "driver"},
    "nameservers": {"addresses", "search"},
    "routes": set(
        "from to via metric on-link type scope table mtu congestion-window advertised-receive-window advmss".split()
    ),
    "routing-policy": {"from", "to", "table", "priority", "mark", "type-of-service"},
}
# Source: cloud-init's reference of its network config version 1.
V1 = {
    "physical": {"mac_address", "mtu", "accept-ra", "subnets", "keep_configuration", "wakeonlan"},
    "loopback": {"subnets", "mtu"},
    "infiniband": {"mac_address", "mtu", "accept-ra", "subnets"},
    "bond": {"mac_address", "bond_interfaces", "mtu", "params", "subnets", "accept-ra"},
    "bridge": {"mac_address", "bridge_interfaces", "mtu", "params", "subnets", "accept-ra"},
    "vlan": {"mac_address", "vlan_link", "vlan_id", "mtu", "subnets", "accept-ra"},
    "nameserver": {"address", "search", "interface"},
    "route": {"destination", "netmask", "gateway", "metric", "id", "address", "network", "prefix"},
}
SUBNET = set(
    "type control address ip_address netmask prefix broadcast gateway dns_nameservers dns_search routes ipv4 ipv6 metric pointopoint "
    "scope mtu".split()
)
# InfiniBand's have 20 octets.
MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}([0-9A-Fa-f]{2}|([0-9A-Fa-f]{2}:){14}[0-9A-Fa-f]{2})")
WARNINGS = []


class Refused(Exception):
    """What is wrong, for people."""


class Loader(yaml.SafeLoader):
    """Refuses what YAML forbids and its parsers take: a name twice, of which the first would be lost."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else []:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name != "<<" and name in seen:
                raise Refused(f"line {key.start_mark.line + 1}: {name!r} stands there twice")
            seen.add(name)
        return super().construct_mapping(node, deep)


def load(file):
    with open(file, "rb") as f:
        text = f.read()
    try:
        return yaml.load(text.decode("utf-8"), Loader)
    except UnicodeDecodeError as e:
        raise Refused(f"it is not UTF-8, at byte {e.start}") from e
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise Refused(f"it is not YAML: {where}{getattr(e, 'problem', None) or e}") from e
    except (ValueError, RecursionError) as e:
        raise Refused(f"it is not YAML: {e}") from e


def mapping(value, where):
    if not isinstance(value, dict):
        raise Refused(f"{where} must be names with values (NAME: VALUE), not {value!r}")
    return value


def listed(value, where):
    if not isinstance(value, list):
        raise Refused(f"{where} must be a list, not {value!r}")
    return value


def known(value, names, where):
    """Each name of a mapping is one that something reads."""
    for name in mapping(value, where):
        if name not in names:
            near = difflib.get_close_matches(str(name).lower().replace("_", "-"), names, 1)
            near = near or difflib.get_close_matches(str(name).lower(), names, 1)
            raise Refused(f"{where} has {name!r}, which nothing reads" + (f": {near[0]!r} is meant?" if near else ""))
    return value


def address(value, where, network):
    """network: with a prefix length, as in 192.0.2.1/24."""
    try:
        if not isinstance(value, str) or (network and "/" not in value):
            raise ValueError
        (ipaddress.ip_interface if network else ipaddress.ip_address)(value)
    except ValueError:
        example = "192.0.2.1/24" if network else "192.0.2.1"
        raise Refused(f"{where}: {value!r} is not an address such as {example}") from None


def mac(value, where):
    # Unquoted digits are a number to the base of 60 in YAML 1.1.
    if not isinstance(value, str) or not MAC.fullmatch(value):
        raise Refused(f"{where}: {value!r} is no MAC address such as '52:54:00:12:34:56', in quotes")


def device_v2(device, names, where):
    known(device, names, where)
    for name in ("dhcp4", "dhcp6", "optional"):
        if name in device and not isinstance(device[name], bool) and device[name] not in ("yes", "no", "true", "false"):
            raise Refused(f"{where}: {name} must be true or false, not {device[name]!r}")
    for entry in listed(device.get("addresses", []), f"{where}: addresses"):
        entry = next(iter(entry)) if isinstance(entry, dict) and len(entry) == 1 else entry
        address(entry, f"{where}: addresses", True)
    for name in {"gateway4", "gateway6"} & set(device):
        address(device[name], f"{where}: {name}", False)
    if "nameservers" in device:
        servers = known(device["nameservers"], INSIDE["nameservers"], f"{where}: nameservers")
        for entry in listed(servers.get("addresses", []), f"{where}: nameservers: addresses"):
            address(entry, f"{where}: nameservers", False)
    if "match" in device:
        known(device["match"], INSIDE["match"], f"{where}: match")
        if "macaddress" in device["match"]:
            mac(device["match"]["macaddress"], f"{where}: match: macaddress")
    for name in ("routes", "routing-policy"):
        for entry in listed(device.get(name, []), f"{where}: {name}"):
            known(entry, INSIDE[name], f"{where}: {name}")
    if "mtu" in device and (isinstance(device["mtu"], bool) or not isinstance(device["mtu"], int)):
        raise Refused(f"{where}: mtu must be a number, not {device['mtu']!r}")


def network_v2(config):
    known(config, TOP_V2, "it")
    for kind in sorted(DEVICES & set(config)):
        for name, device in mapping(config[kind], kind).items():
            device_v2(device, COMMON | MORE.get(kind, set()), f"{kind}: {name}")


def network_v1(config):
    known(config, {"version", "config"}, "it")
    for entry in listed(config.get("config"), "config"):
        kind = mapping(entry, "config").get("type")
        if kind not in V1:
            raise Refused(f"config has type {kind!r}: it must be one of {', '.join(sorted(V1))}")
        where = f"config: {entry.get('name', kind)}"
        known(entry, V1[kind] | {"type", "name"}, where)
        if kind in ("physical", "bond", "bridge", "vlan") and not isinstance(entry.get("name"), str):
            raise Refused(f"{where} has no name")
        if entry.get("mac_address") is not None:
            mac(entry["mac_address"], f"{where}: mac_address")
        for subnet in listed(entry.get("subnets", []), f"{where}: subnets"):
            known(subnet, SUBNET, f"{where}: subnets")
            if "type" not in subnet:
                raise Refused(f"{where}: a subnet has no type (dhcp4, static, ...)")


def is_default(route):
    return isinstance(route, dict) and route.get("to") == "default"


def with_numbers(value):
    """The same, with each `to: default` as the network that it stands for."""
    if isinstance(value, list):
        return [with_numbers(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    same = {name: with_numbers(entry) for name, entry in value.items()}
    if is_default(same):
        same["to"] = "::/0" if ":" in str(same.get("via")) else "0.0.0.0/0"
    return same


def read_by_cloud_init(config):
    """Returns why its own reader does not take it; nothing where it does, or is not here."""
    try:
        if network_state is not None:
            network_state.parse_net_config_data(config)
    except Exception as e:  # whatever its reader raises, it does not read it
        return str(e) or type(e).__name__
    return ""


def network_config(config, file):
    whole = mapping(config, "it")
    # What lies below that name is all that is read then (22.4.2: stages.py, _remove_top_level_network_key).
    if "network" in whole:
        known(whole, {"network"}, "beside 'network:', it")
    inner = mapping(whole.get("network", whole), "network")
    if inner.get("config") == "disabled":
        known(inner, {"config", "version"}, "it")
        return
    rule = {1: network_v1, 2: network_v2}.get(inner.get("version"))
    if rule is None or isinstance(inner.get("version"), bool):
        raise Refused(f"its version must be 1 or 2, not {inner.get('version')!r}")
    rule(inner)
    numbers = with_numbers(inner)
    # Seen with 22.4.2: no configuration at all, and so DHCP.
    why = read_by_cloud_init(numbers)
    if why:
        raise Refused(f"cloud-init's own reader does not take it: {why}")
    if numbers != inner and (network_state is None or read_by_cloud_init(inner)):
        WARNINGS.append(f"warning: {file}: `to: default` is not read by each cloud-init (22.4.2, for one): 0.0.0.0/0 and ::/0 are")


def meta_data(data):
    for name in mapping(data, "it"):
        plain = re.sub("[-_ ]", "", str(name)).lower()
        for meant in META_DATA:
            if name != meant and plain == meant.replace("-", ""):
                raise Refused(f"it has {name!r}, which nothing reads: {meant!r} is meant?")
    if "instance-id" not in data:
        near = difflib.get_close_matches("instance-id", map(str, data), 1)
        raise Refused("it has no instance-id, and every machine would be instance 'nocloud'" + (f": {near[0]!r}?" if near else ""))
    if not isinstance(data["instance-id"], str) or not data["instance-id"].strip():
        raise Refused(f"instance-id must be a text that is not empty, not {data['instance-id']!r} (in quotes?)")


def names_of_schema():
    """The names at the top that the schema of the cloud-init here has, whichever version it is."""
    path = os.path.join(os.path.dirname(cloudinit.__file__), "config", "schemas", "schema-cloud-config-v1.json") if cloudinit else ""
    try:
        with open(path, encoding="utf-8") as f:
            parts = json.load(f)["$defs"].values()
        return {name for part in parts for name in part.get("properties", {}) if part.get("type") == "object"}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return set()


def user_data(data, archive):
    # A first line, and nothing below it, asks for nothing.
    if data is None:
        return
    if archive:
        listed(data, "a #cloud-config-archive")
        return
    # Others' names may stand there, says the schema; one that is nearly one of its own is meant to be that.
    strange = set(mapping(data, "it")) - USER_DATA
    for name in sorted(map(str, strange - names_of_schema() if strange else strange)):
        plain = name.lower().replace("-", "_")
        near = difflib.get_close_matches(plain, USER_DATA, 1, NEAR)
        if near and not plain.startswith("x_"):
            raise Refused(f"it has {name!r}, which nothing reads: {near[0]!r} is meant?")


def judge(kind, file):
    if kind == "user-data":
        with open(file, "rb") as f:
            archive = f.readline().startswith(b"#cloud-config-archive")
        return user_data(load(file), archive)
    if kind == "network-config":
        return network_config(load(file), file)
    return meta_data(load(file))


def main():
    for kind, file in zip(sys.argv[1::2], sys.argv[2::2]):
        try:
            judge(kind, file)
        except Refused as e:
            print(f"{file} is no {kind} that a machine can use: {e}")
            sys.exit(1)
    if network_state is None:
        WARNINGS.append("cloud-init is not installed here: only its YAML and its names were looked at")
    for warning in WARNINGS:
        print(warning)


main()

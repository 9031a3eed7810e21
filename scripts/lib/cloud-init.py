"""Judges cloud-init's files before they go onto a machine that nobody sits at.

Usage: cloud-init.py KIND FILE..., KIND one of user-data, network-config, meta-data. Exit status: 0 good, 1 not, 3 no YAML parser.
What is wrong stands on stdout. cloud-init passes over what it does not know without a word, so names are held against those
that it and netplan know. Must never: change a file, or call good what cloud-init's own reader refuses.
"""

import difflib
import ipaddress
import re
import sys

try:
    import yaml
except ImportError:
    sys.exit(3)
try:
    from cloudinit.net import network_state
except ImportError:
    network_state = None

# Source: cloud-init 22.4.2, DataSourceNoCloud and sources/__init__.py.
META_DATA = {
    "availability-zone", "dsmode", "hostname", "instance-id", "launch-index", "local-hostname", "network-interfaces",
    "placement", "platform", "public-keys", "region", "seedfrom",
}  # fmt: skip
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
MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")


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
        raise Refused(f"it is no YAML: {where}{getattr(e, 'problem', None) or e}") from e
    except (ValueError, RecursionError) as e:
        raise Refused(f"it is no YAML: {e}") from e


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
        raise Refused(f"{where}: {value!r} is no address such as {example}") from None


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


def network_config(config, file):
    whole = mapping(config, "it")
    if set(whole) == {"config"} and whole["config"] == "disabled":
        return
    inner = mapping(whole["network"], "network") if set(whole) == {"network"} else whole
    rule = {1: network_v1, 2: network_v2}.get(inner.get("version"))
    if rule is None or isinstance(inner.get("version"), bool):
        raise Refused(f"its version must be 1 or 2, not {inner.get('version')!r}")
    rule(inner)
    without = "leave out the line 'network:', and indent the rest less"
    if network_state is None:
        if inner is not whole:
            print(f"{file}: some versions of cloud-init (22.4.2, for one) read nothing below 'network:': {without}")
        return
    try:
        network_state.parse_net_config_data(whole)
    except Exception as e:  # whatever its reader raises, it does not read it
        # Seen with 22.4.2: no configuration at all, and so DHCP.
        why = f"cloud-init's own reader does not take it: {e}"
        if inner is not whole:
            why = f"cloud-init's own reader takes nothing below 'network:': {without}"
        elif "default" in str(e):
            why += " (each version reads 0.0.0.0/0 and ::/0)"
        raise Refused(why) from e


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


def user_data(data, archive):
    if archive:
        listed(data, "a #cloud-config-archive")
    else:
        mapping(data, "it")


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
        print("only its YAML and its names were looked at")


main()

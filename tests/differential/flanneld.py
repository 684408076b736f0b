"""What flanneld v0.28 installs on a host, as a function of the network configuration, the host and the leases.

Written from what is documented of flanneld and from files that a real one wrote (golden/), and from nothing of loden's: it
is there to disagree with. It knows IPv4 and the vxlan backend without DirectRouting.

The leases are taken as a flanneld finds them that starts now. One that has been running leaves entries behind when a
lease's MAC or address changes; that is a defect, and no part of this.
"""

import ipaddress
import json
import re

KEY = re.compile(r"^(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?$")
KERNEL_PORT = 8472  # flanneld leaves the port to the kernel when it is 0
IPV6_LEAST_MTU = 1280  # RFC 8200 section 5: below it the kernel gives a device no IPv6, nor its settings
OVERHEAD = 50  # inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20


class Folded(dict):
    """A JSON object whose keys match without regard to case, as Go reads it."""

    def __init__(self, pairs):
        super().__init__((key.lower(), value) for key, value in pairs)

    def field(self, name, default=None):
        value = self.get(name.lower())
        return default if value is None else value


def read_json(text):
    """The text's value; None where it is no JSON."""
    try:
        return json.loads(text, object_pairs_hook=Folded)
    except ValueError:
        return None


class Config:
    """The network configuration, with flanneld's defaults."""

    def __init__(self, text):
        read = read_json(text)
        self.network = ipaddress.IPv4Network(read.field("Network"), strict=False)
        large = self.network.prefixlen <= 22
        self.subnet_len = read.field("SubnetLen", 0) or (24 if large else self.network.prefixlen + 2)
        backend = read.field("Backend", Folded([]))
        self.vni = backend.field("VNI", 1)
        self.port = backend.field("Port", 0) or KERNEL_PORT
        self.gbp = backend.field("GBP", False)
        self.learning = backend.field("Learning", False)
        self.outer_mtu = backend.field("MTU", 0)

    @property
    def device(self):
        return f"flannel.{self.vni}"


class Lease:
    """A key under the subnets' prefix and its value, as far as flanneld reads them. `peer` is None where it installs nothing."""

    def __init__(self, key, value):
        self.subnet = self.peer = None
        match = KEY.match(key)
        if not match:
            return
        try:
            self.subnet = ipaddress.IPv4Network(f"{match[1]}/{match[2]}")
        except ValueError:
            return
        record = read_json(value)
        if not isinstance(record, Folded) or record.field("BackendType") != "vxlan":
            return
        data = record.field("BackendData")
        if not isinstance(data, Folded):
            return
        self.vni = data.field("VNI", 0)
        self.peer = (record.field("PublicIP"), data.field("VtepMAC", "").lower())


def install(config, host, leases):
    """What is on the host: `host` has key (of its own lease), mac, address, mtu, ip_masq; `leases` are pairs of key and value."""
    own = Lease(host["key"], "{}").subnet
    mtu = (config.outer_mtu or host["mtu"]) - OVERHEAD
    neighbours, fdb, routes = [], set(), []
    for key, value in leases:
        lease = Lease(key, value)
        if key == host["key"] or lease.peer is None:
            continue
        address, mac = lease.peer
        gateway = str(lease.subnet.network_address)
        neighbours.append([gateway, mac])
        fdb.add((mac, address))
        routes.append([str(lease.subnet), gateway])
    return {
        "device": {
            "name": config.device,
            "kind": "vxlan",
            "vni": config.vni,
            "port": config.port,
            "local": host["address"],
            "learning": config.learning,
            "gbp": config.gbp,
            "mtu": mtu,
            "mac": host["mac"],
            "up": True,
            "accept_ra": "0" if mtu >= IPV6_LEAST_MTU else None,
        },
        "addresses": [f"{own.network_address}/32"],
        "neighbours": sorted(neighbours),
        "fdb": sorted(map(list, fdb)),
        "routes": sorted(routes),
        "subnet.env": "".join(
            f"{name}={value}\n"
            for name, value in [
                ("FLANNEL_NETWORK", config.network),
                ("FLANNEL_SUBNET", f"{own.network_address + 1}/{own.prefixlen}"),
                ("FLANNEL_MTU", mtu),
                ("FLANNEL_IPMASQ", str(host["ip_masq"]).lower()),
            ]
        ),
    }

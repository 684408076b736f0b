#!/usr/bin/env python3
"""Holds what a host's kernel has against what flanneld would have installed there.

    compare.py < CASE       CASE is JSON with config, host, leases and observed; prints the differences, one a line
    compare.py golden       does the same for what a real flanneld wrote: shows that the model is right

Exits with 0 when there is no difference.

Where loden differs from flanneld by design, it is said here, in STRICTER and in `normalised`, and nowhere else.
"""

import json
import pathlib
import sys

from flanneld import Config, Lease, install

# Leases that flanneld would follow and loden does not, each with the reason.
STRICTER = {
    "another VNI": (
        lambda config, lease: lease.vni != config.vni,
        "its host would not take our frames, nor we its",
    ),
    "outside Network": (
        lambda config, lease: not lease.subnet.subnet_of(config.network),
        "the store's word must not redirect addresses that are no part of the overlay",
    ),
    "larger than SubnetLen": (
        lambda config, lease: lease.subnet.prefixlen < config.subnet_len,
        "no host can have leased it, and it would cover what others have leased",
    ),
}


def followed(config, leases):
    """The leases less those that loden is stricter about."""
    for key, value in leases:
        lease = Lease(key, value)
        if lease.peer is None or not any(rule(config, lease) for rule, _ in STRICTER.values()):
            yield key, value


def normalised(device, observed):
    """What `ip -j` and `bridge -j` tell of the device, in the model's terms. Left out, because loden differs on purpose:

    - the device's underlay interface (`link`): loden binds it to none, so that it outlives the interface;
    - IPv6 link-local addresses: loden has the kernel give it none, as nothing in an IPv4 overlay uses one;
    - a route's protocol (flanneld: boot): loden marks its own with 76, to tell them from others';
    - a route's metric (flanneld: 0): loden uses the subnet's number, because the kernel takes quadratic time otherwise.
    """
    link = next((link for link in observed["link"] if link["ifname"] == device), None)
    if link is None:
        return {"device": None}
    kind, data = link["linkinfo"]["info_kind"], link["linkinfo"].get("info_data", {})
    addresses = next(entry for entry in observed["addr"] if entry["ifname"] == device)["addr_info"]
    return {
        "device": {
            "name": device,
            "kind": kind,
            "vni": data.get("id"),
            "port": data.get("port"),
            "local": data.get("local"),
            "learning": data.get("learning"),
            "gbp": data.get("gbp", False),
            "mtu": link["mtu"],
            "mac": link["address"],
            "up": "UP" in link["flags"],
            "accept_ra": observed["accept_ra"],
        },
        "addresses": sorted(f"{it['local']}/{it['prefixlen']}" for it in addresses if it["scope"] != "link"),
        "neighbours": sorted([it["dst"], neighbour(it)] for it in observed["neigh"] if it["dev"] == device),
        "fdb": sorted([it["mac"], forwarding(it)] for it in observed["fdb"] if it["ifname"] == device),
        "routes": sorted(
            [it["dst"] if "/" in it["dst"] else f"{it['dst']}/32", route(it)]
            for it in observed["route"]
            if it.get("dev") == device and "." in it["dst"] and it.get("table", "main") == "main"
        ),
        "subnet.env": observed["subnet.env"],
    }


def neighbour(entry):
    return entry["lladdr"] if entry["state"] == ["PERMANENT"] else f"{entry}"


def forwarding(entry):
    plain = set(entry) == {"mac", "ifname", "dst", "flags", "state"}
    return entry["dst"] if plain and entry["flags"] == ["self"] and entry["state"] == "permanent" else f"{entry}"


def route(entry):
    # The last three are told by `ip -details` alone.
    known = {"dst", "gateway", "dev", "protocol", "metric", "flags", "type", "scope", "table"}
    plain = set(entry) <= known and entry.get("type", "unicast") == "unicast" and entry["flags"] == ["onlink"]
    return entry["gateway"] if plain else f"{entry}"


def differences(config, host, leases, observed):
    """Lines that say what is wanted and not there, or there and not wanted."""
    wanted, there = install(config, host, followed(config, leases)), normalised(config.device, observed)
    lines = []
    for part, want in wanted.items():
        have = there.get(part)
        if isinstance(want, list) and isinstance(have, list):
            lines += [f"{part}: missing {item}" for item in want if item not in have]
            lines += [f"{part}: not wanted {item}" for item in have if item not in want]
            if not lines and len(want) != len(have):
                lines.append(f"{part}: {have} has something twice")
        elif want != have:
            lines.append(f"{part}: wanted {want}, there is {have}")
    return lines


def golden():
    """A real flanneld's own words. All that it was told and wrote is in the files; its MAC is in its lease."""
    for case in sorted(pathlib.Path(__file__).with_name("golden").iterdir()):
        etcd = (case / "etcd.txt").read_text().splitlines()
        leases = [(key.rsplit("/", 1)[1], value) for key, value in zip(etcd[0::3], etcd[1::3])]
        config = Config((case / "config.json").read_text())
        for name in ("host1", "host2"):
            table = lambda what: json.loads((case / f"{name}.{what}.json").read_text())
            observed = {what: table(what) for what in ("link", "addr", "route", "neigh", "fdb")}
            observed["subnet.env"] = (case / f"{name}.subnet.env").read_text()
            sysctl = dict(line.split("=") for line in (case / f"{name}.sysctl").read_text().split())
            observed["accept_ra"] = sysctl[f"{config.device}.accept_ra"]
            address = f"192.168.77.{name[-1]}"
            key, value = next((key, value) for key, value in leases if Lease(key, value).peer[0] == address)
            host = {"key": key, "mac": Lease(key, value).peer[1], "address": address, "mtu": 1500}
            host["ip_masq"] = "-ip-masq" in (case / "flags").read_text().split()
            yield from (f"{case.name} {name}: {line}" for line in differences(config, host, leases, observed))


def main():
    if sys.argv[1:] == ["golden"]:
        lines = list(golden())
    else:
        case = json.load(sys.stdin)
        lines = differences(Config(case["config"]), case["host"], case["leases"], case["observed"])
    print("\n".join(lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())

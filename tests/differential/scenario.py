#!/usr/bin/env python3
"""Makes up a valid network configuration and how its leases change: the same for the same seed.

    scenario.py SEED ADDRESS        prints JSON: config, a reservation for the host at ADDRESS, and steps

A step is a list of writes [key, value or null] that belong into one transaction, and whether the agent is down meanwhile.
Within what is valid anything goes: several subnets of one host, several hosts behind one address, smaller subnets than
SubnetLen, reservations, hosts of other backends, records without data, other VNIs, keys and fields in unusual form.
"""

import ipaddress
import json
import random
import sys

UNDERLAY = "192.168.77.0/24"
STEPS = 6
# The guard against mass removals lets so few go at once from a list: more may be missing only by explicit deletes.
GONE_WHILE_DOWN = 2


class Scenario:
    def __init__(self, seed, own_address):
        self.random, self.own_address = random.Random(seed), own_address
        self.config, self.network, self.subnet_len, self.vni, own = self.made_config()
        self.taken = [own]
        self.peers = {}  # subnet: (address, mac)
        self.other = {}  # keys that make no peer: value
        self.macs, self.left, self.writes = set(), [], {}
        self.reservation = [self.key(own), json.dumps({"PublicIP": own_address})]

    def made_config(self):
        pick = self.random
        length = pick.choice([8, 12, 16, 16, 18, 20, 22, 24])
        base = pick.choice([ipaddress.IPv4Address("10.0.0.0"), ipaddress.IPv4Address("172.16.0.0"), ipaddress.IPv4Address("100.64.0.0")])
        block = pick.randrange(1 << (length - 8)) if int(base) >> 24 == 10 else 0
        network = ipaddress.IPv4Network((int(base) + (block << (32 - length)), length), strict=False)
        given = pick.choice([None, None, pick.randint(max(length + 4, 20), 30)])
        subnet_len = given or (24 if length <= 22 else length + 2)
        count = 1 << (subnet_len - length)
        nth = lambda number: ipaddress.IPv4Network((int(network.network_address) + (number << (32 - subnet_len)), subnet_len))
        low, high = 1, count - 1
        text = {"Network": str(network)}
        if given:
            text["SubnetLen"] = given
        if pick.random() < 0.3 and count > 8:
            low, high = count // 4, count // 2
            text["SubnetMin"], text["SubnetMax"] = str(nth(low)[0]), str(nth(high)[0])
        vni = pick.choice([1, 1, 7, 42, 4096, 9999999])
        backend = {"Type": pick.choice(["vxlan", "VXLAN"])}
        for name, values in {"Port": [0, 4789, 8473], "GBP": [True, False], "MTU": [0, 1400, 1280], "Learning": [False, True]}.items():
            if pick.random() < 0.4:
                backend[name] = pick.choice(values)
        if vni != 1 or pick.random() < 0.5:
            backend["VNI"] = vni
        text["Backend"] = backend
        if pick.random() < 0.2:
            text = {name.lower(): value for name, value in text.items()}
        return json.dumps(text), network, subnet_len, vni, nth(pick.randint(low, high))

    @staticmethod
    def key(subnet):
        return f"{subnet.network_address}-{subnet.prefixlen}"

    def free(self, length=None):
        """A subnet of the network that overlaps none; None where it is hard to find one."""
        length = length or self.subnet_len
        for _ in range(50):
            number = self.random.randrange(1 << (length - self.network.prefixlen))
            subnet = ipaddress.IPv4Network((int(self.network.network_address) + (number << (32 - length)), length))
            if not any(subnet.overlaps(other) for other in self.taken):
                self.taken.append(subnet)
                return subnet
        return None

    def mac(self):
        while True:
            octets = [self.random.randrange(256) for _ in range(6)]
            octets[0] &= 0xFE
            text = ":".join(f"{octet:02x}" for octet in octets)
            if any(octets) and text not in self.macs:
                self.macs.add(text)
                return text

    def address(self):
        """Of the underlay mostly; never the host's own, nor one of the overlay's."""
        while True:
            if self.random.random() < 0.7:
                address = ipaddress.IPv4Network(UNDERLAY)[self.random.randint(2, 250)]
            else:
                address = ipaddress.IPv4Address(self.random.randrange(1 << 24, 223 << 24))
            if not (address in self.network or address.is_loopback or str(address) == self.own_address):
                return str(address)

    def record(self, address, mac, vni=None):
        """As flanneld writes it, or as a person might."""
        pick, vni_field, mac_field = self.random, "VNI", "VtepMAC"
        if pick.random() < 0.1:
            mac, vni_field, mac_field = mac.upper(), "vni", "vtepmac"
        data = {vni_field: self.vni if vni is None else vni, mac_field: mac}
        fields = {"PublicIP": address, "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data}
        if pick.random() < 0.2:
            fields["Owner"] = "".join(pick.choice("0123456789abcdef") for _ in range(32))
        if pick.random() < 0.1:
            fields["Unknown"] = {"a": [1, {"PublicIP": "no"}], "é": "\n"}
        if pick.random() < 0.1:
            fields = {name.upper(): value for name, value in fields.items()}
        separators = pick.choice([(",", ":"), (", ", ": ")])
        return json.dumps(fields, separators=separators)

    def put(self, subnet, address, mac):
        self.peers[subnet] = (address, mac)
        self.writes[self.key(subnet)] = self.record(address, mac)

    def remove(self, subnet):
        """Free from the next step on: a record without use that takes a good one's place at once is no valid change."""
        del self.peers[subnet]
        self.left.append(subnet)
        self.writes[self.key(subnet)] = None

    # What can happen. Each takes one or more peers that there are, or makes some.

    def join(self):
        for _ in range(self.random.randint(1, 15)):
            length = self.subnet_len
            if self.random.random() < 0.15:
                length = self.random.randint(self.subnet_len, 32)
            subnet = self.free(length)
            if subnet:
                self.put(subnet, self.address(), self.mac())

    def join_with_ipv6(self):
        """A dual-stack host: its key names a subnet of each family."""
        subnet = self.free()
        if subnet:
            self.writes[f"{self.key(subnet)}&fc00:db8:0:{self.random.randrange(1 << 16):x}::-64"] = self.record(self.address(), self.mac())

    def second_subnet(self):
        subnet = self.free()
        if subnet:
            self.put(subnet, *self.random.choice(list(self.peers.values())))

    def same_address(self):
        subnet = self.free()
        if subnet:
            self.put(subnet, self.random.choice(list(self.peers.values()))[0], self.mac())

    def change_mac(self):
        subnet = self.random.choice(list(self.peers))
        self.put(subnet, self.peers[subnet][0], self.mac())

    def change_address(self):
        """With all of its subnets: one MAC stands for one host."""
        _, mac = self.random.choice(list(self.peers.values()))
        address = self.address()
        for subnet in [subnet for subnet, peer in self.peers.items() if peer[1] == mac]:
            self.put(subnet, address, mac)

    def swap_macs(self):
        lone = [subnet for subnet, peer in self.peers.items() if sum(peer[1] == other[1] for other in self.peers.values()) == 1]
        if len(lone) >= 2:
            a, b = self.random.sample(lone, 2)
            (at_a, mac_a), (at_b, mac_b) = self.peers[a], self.peers[b]
            self.put(a, at_a, mac_b)
            self.put(b, at_b, mac_a)

    def write_again(self):
        subnet = self.random.choice(list(self.peers))
        self.put(subnet, *self.peers[subnet])

    def move(self):
        """The same host in another subnet."""
        subnet, to = self.random.choice(list(self.peers)), self.free()
        if to:
            peer = self.peers[subnet]
            self.remove(subnet)
            self.put(to, *peer)

    def leave(self):
        self.remove(self.random.choice(list(self.peers)))

    def other_backend(self):
        subnet = self.free()
        if subnet:
            record = {"PublicIP": self.address(), "BackendType": self.random.choice(["udp", "host-gw", "wireguard"]), "BackendData": {"x": 1}}
            self.writes[self.key(subnet)] = json.dumps(record)

    def reservation_of_another(self):
        subnet = self.free()
        if subnet:
            self.writes[self.key(subnet)] = json.dumps({"PublicIP": self.address()})

    def no_data(self):
        subnet = self.free()
        if subnet:
            self.writes[self.key(subnet)] = json.dumps({"PublicIP": self.address(), "BackendType": "vxlan", "BackendData": None})

    def another_vni(self):
        subnet = self.free()
        if subnet:
            self.writes[self.key(subnet)] = self.record(self.address(), self.mac(), self.vni + 1)

    def outside(self):
        self.writes[f"198.18.{self.random.randrange(256)}.0-24"] = self.record(self.address(), self.mac())

    EVENTS = [
        join, join, join_with_ipv6, second_subnet, same_address, change_mac, change_address, swap_macs, write_again, move, leave,
        leave, other_backend, reservation_of_another, no_data, another_vni, outside,
    ]  # fmt: skip

    def steps(self):
        self.join()
        yield self.taken_writes(False)
        for _ in range(STEPS):
            down = self.random.random() < 0.25
            gone = 0
            for event in self.random.choices(self.EVENTS, k=self.random.randint(1, 6)):
                if not self.peers:
                    event = Scenario.join
                leaving = event in (Scenario.leave, Scenario.move)
                gone += leaving
                if not (leaving and down and gone > GONE_WHILE_DOWN):
                    event(self)
            yield self.taken_writes(down)

    def taken_writes(self, down):
        writes, self.writes = self.writes, {}
        self.taken = [subnet for subnet in self.taken if subnet not in self.left]
        self.left = []
        return {"down": down, "writes": [[key, value] for key, value in writes.items()]}


def main():
    scenario = Scenario(int(sys.argv[1]), sys.argv[2])
    print(json.dumps({"config": scenario.config, "reservation": scenario.reservation, "steps": list(scenario.steps())}))


if __name__ == "__main__":
    main()

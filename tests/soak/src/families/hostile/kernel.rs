//! Entries on the VTEP that nobody would put there, of every kind that `ip` and `bridge` can make.

use anyhow::Result;
use testkit::world::VTEP;

use super::Stage;
use crate::Report;

/// Kinds of entries, with the commands that make them. Some kernels lack some: that is no matter. Queueing
/// disciplines are not among them: the kernel itself drops what is sent while one is put.
const BOGUS: [(&str, &[&str]); 6] = [
    (
        "VTEP: odd routes",
        &[
            "ip route add 10.5.130.0/24 dev D mtu 1200 advmss 1000 src 192.168.77.1",
            "ip route add 10.5.131.0/24 dev D scope link",
            "ip route add 10.5.132.0/24 nexthop via 10.5.201.0 dev D onlink nexthop via 192.168.77.254 dev eth0",
            "ip route add 10.5.133.0/24 via 10.5.133.0 dev D onlink metric 4294967295",
            "ip route add 10.5.134.0/24 encap mpls 100 via 10.5.134.0 dev D onlink",
            "ip route add 10.5.201.0/24 via 10.5.99.9 dev D onlink metric 77777",
            "ip route add 203.0.113.0/24 dev D proto static",
            "ip route add multicast 239.1.1.0/24 dev D",
            "ip nexthop add id 77 via 10.5.135.0 dev D onlink",
            "ip route add 10.5.135.0/24 nhid 77",
            "ip route add 10.5.136.0/24 dev D table 99",
            "ip route add 10.5.201.7/32 via 10.5.201.0 dev D onlink tos 0x10",
        ],
    ),
    (
        "VTEP: neighbours in odd states",
        &[
            "ip neigh add 10.5.140.0 lladdr 02:00:00:00:0a:01 dev D nud permanent",
            "ip neigh add 10.5.141.0 lladdr 02:00:00:00:0a:02 dev D nud noarp",
            "ip neigh add 10.5.142.0 lladdr 02:00:00:00:0a:03 dev D nud stale",
            "ip neigh add 10.5.143.0 lladdr 02:00:00:00:0a:04 dev D nud permanent router extern_learn",
            "ip neigh add proxy 10.5.144.0 dev D",
            "ip neigh add 10.5.145.0 lladdr ff:ff:ff:ff:ff:ff dev D nud permanent",
            "ip neigh add 10.5.146.0 lladdr 02:00:00:00:0a:05 dev D nud permanent protocol 99",
        ],
    ),
    (
        "VTEP: IPv6",
        &[
            "ip -6 addr add fc00:99::1/64 dev D nodad",
            "ip -6 route add fc00:98::/64 dev D metric 1",
            "ip -6 neigh add fc00:99::2 lladdr 02:00:00:00:0b:01 dev D nud permanent",
            "ip -6 neigh add proxy fc00:99::3 dev D",
        ],
    ),
    (
        "VTEP: FDB entries with all attributes",
        &[
            "bridge fdb append 00:00:00:00:00:00 dev D dst 192.168.77.91",
            "bridge fdb append 00:00:00:00:00:00 dev D dst 192.168.77.92",
            "bridge fdb append 01:00:5e:00:00:07 dev D dst 192.168.77.93",
            "bridge fdb add 02:00:00:00:0c:01 dev D dst 192.168.77.94 port 4790 self permanent",
            "bridge fdb add 02:00:00:00:0c:02 dev D dst 192.168.77.95 vni 99 self permanent",
            "bridge fdb add 02:00:00:00:0c:03 dev D dst 192.168.77.96 via eth0 self permanent",
            "bridge fdb add 02:00:00:00:0c:04 dev D dst 192.168.77.97 self dynamic",
            "ip nexthop add id 88 via 192.168.77.98 fdb",
            "ip nexthop add id 89 group 88 fdb",
            "bridge fdb add 02:00:00:00:0c:05 dev D nhid 89 self permanent",
        ],
    ),
    (
        "VTEP: names",
        &["ip link property add dev D altname the-overlay altname xyz", "ip link set D alias nonsense", "ip link set D group 7"],
    ),
    (
        "VTEP: many addresses",
        &[
            "ip addr add 10.5.150.1/24 dev D",
            "ip addr add 10.5.151.1/32 dev D",
            "ip addr add 192.0.2.1/24 dev D",
            "ip addr add 10.5.152.1/16 dev D noprefixroute",
            "ip addr add 10.5.153.1/30 dev D valid_lft 600 preferred_lft 300",
        ],
    ),
];

/// What is no entry of the overlay's family is nobody's business but whose it is: it is taken away again by hand.
const CLEAN: &str = "ip -6 neigh flush dev D nud permanent; ip -6 addr flush dev D; ip -6 route flush dev D; ip neigh flush dev D nud stale; \
     ip neigh flush dev D nud noarp; ip neigh del 10.5.141.0 dev D; ip neigh del 10.5.142.0 dev D; bridge fdb del 02:00:00:00:0c:04 dev D self; \
     ip route del 10.5.201.7 tos 0x10 dev D; ip route flush table 99; ip route del multicast 239.1.1.0/24 dev D; ip addr del 192.0.2.1/24 dev D; \
     ip link property del dev D altname the-overlay altname xyz; ip nexthop del id 77; ip nexthop del id 89; ip nexthop del id 88; true";

pub(super) fn endure(stage: &mut Stage, report: &mut Report) -> Result<()> {
    for (kind, commands) in BOGUS {
        stage.endure(report, kind, |stage| {
            let script: String = commands.iter().map(|command| format!("{command} 2>/dev/null || true\n")).collect();
            stage.one.host.run(&["sh", "-c", &script.replace(" D", &format!(" {VTEP}"))])?;
            stage.one.host.run(&["sh", "-c", &format!("({CLEAN}) 2>/dev/null").replace(" D", &format!(" {VTEP}"))]).map(drop)
        })?;
    }
    Ok(())
}

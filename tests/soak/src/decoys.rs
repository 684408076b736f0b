//! What others have on a host, much like ours: nobody may touch it.

use anyhow::Result;
use testkit::Host;

use crate::Report;

/// Another's devices, routes, neighbours, FDB entries and settings.
pub(crate) struct Decoys {
    host: Host,
    before: Vec<String>,
}

impl Decoys {
    pub(crate) fn on(host: &Host) -> Result<Self> {
        host.ip_batch(
            "link add decoy type vxlan id 99 dstport 4789 local 192.168.77.1\nlink set decoy up\naddr add 10.99.0.1/24 dev decoy\n\
             link add decoybr type bridge\nlink set decoybr up\n\
             route add 10.1.3.0/24 dev decoy metric 9000\nroute add 10.1.4.0/24 dev decoy proto 76 metric 9001\n\
             route add 10.200.0.0/24 dev decoy proto 76\nroute add 10.1.5.0/24 via 192.168.77.254 table 77\n\
             neigh add 192.168.77.77 lladdr 02:dd:00:00:00:01 dev eth0 nud permanent\n\
             neigh add 10.99.0.2 lladdr 02:dd:00:00:00:02 dev decoy nud permanent\n",
        )?;
        host.run(&["bridge", "fdb", "add", "02:dd:00:00:00:02", "dev", "decoy", "dst", "192.168.77.66", "self", "permanent"])?;
        host.run(&["sh", "-c", "echo 2 >/proc/sys/net/ipv4/conf/decoy/rp_filter; echo 1 >/proc/sys/net/ipv4/conf/decoy/proxy_arp"])?;
        let mut decoys = Self { host: host.clone(), before: Vec::new() };
        decoys.before = decoys.now()?;
        Ok(decoys)
    }

    /// The gate that all is as it was.
    pub(crate) fn judge(&self, report: &mut Report) -> Result<()> {
        let now = self.now()?;
        let differ = self.before.iter().filter(|line| !now.contains(line)).chain(now.iter().filter(|line| !self.before.contains(line)));
        let differ: Vec<&String> = differ.collect();
        let measured = if differ.is_empty() { format!("{} things as before", now.len()) } else { format!("{differ:?}") };
        report.gate("what is others' is untouched", differ.is_empty(), measured);
        Ok(())
    }

    fn now(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for command in [
            "ip -o link show decoy",
            "ip -o link show decoybr",
            "ip -4 -o address show decoy",
            "ip -4 -o address show eth0",
            "ip route show dev decoy",
            "ip route show dev eth0 table main",
            "ip route show table 77",
            "ip neigh show nud permanent dev eth0",
            "ip neigh show nud permanent dev decoy",
            "bridge fdb show dev decoy",
            "cat /proc/sys/net/ipv4/conf/decoy/rp_filter /proc/sys/net/ipv4/conf/decoy/proxy_arp /proc/sys/net/ipv4/conf/eth0/rp_filter",
        ] {
            lines.extend(self.host.run(&command.split(' ').collect::<Vec<_>>())?.lines().map(|line| format!("{command}: {line}")));
        }
        Ok(lines)
    }
}

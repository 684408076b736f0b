//! Packets that go between the pods of a Deployment while something is done to the cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::trial::Report;
use testkit::{Stream, StreamReport, wait_for};

use crate::cluster::{Cluster, PATIENCE};
use crate::pod::Pod;

/// One packet each.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long packets go on after what is done: longer than either agent's first looks at what it has found.
const LINGER: Duration = Duration::from_secs(2);
/// A packet so small fits anywhere (bytes).
const SMALL: u16 = 100;

/// Streams between pods on different nodes, in each family.
pub(crate) struct Traffic(Vec<(String, Stream)>);

impl Traffic {
    /// Between each node's pod and the next node's, both ways; only those nodes that are wanted.
    pub(crate) fn start(cluster: &Cluster, nodes: &[&str]) -> Result<Self> {
        let pods = cluster.pods("default", "app=web")?;
        let pods: Vec<_> = nodes
            .iter()
            .map(|node| pods.iter().find(|pod| pod.node == *node).with_context(|| format!("no pod of web runs on {node}")))
            .collect::<Result<_>>()?;
        let mut streams = Vec::new();
        for pair in pods.windows(2) {
            let &[one, other] = pair else { continue };
            for family in families(cluster) {
                for (from, to) in [(one, other), (other, one)] {
                    let way = format!("{} → {}{}", from.node, to.node, if family.is_ipv6() { " by IPv6" } else { "" });
                    // A node's first pod by IPv6 waits a second for its gateway: the bridge's address is tentative then (RFC 4862).
                    let there = to.address_like(family)?;
                    wait_for(&format!("the first ping {way}"), PATIENCE, || from.ping(there, SMALL))?;
                    streams.push((way, from.stream(to, family, INTERVAL)?));
                }
            }
        }
        ensure!(!streams.is_empty(), "there is nobody to send to");
        Ok(Self(streams))
    }

    /// Ends it; a gate that no packet was lost.
    pub(crate) fn finish(self, what: &str, report: &mut Report) -> Result<()> {
        thread::sleep(LINGER);
        let (mut all, mut lost, mut gap, mut seen) = (0, 0, Duration::ZERO, Vec::new());
        for (way, stream) in self.0 {
            let one = stream.finish()?;
            (all, lost, gap) = (all + one.sent, lost + one.lost, gap.max(one.longest_gap));
            if one.lost > 0 {
                seen.push(format!("{way}: {}", told(&one)));
            }
        }
        report.gate(
            format!("{what}: no packet between pods is lost"),
            all > 0 && lost == 0,
            format!("{lost} of {all} lost, the longest gap {gap:.1?} {}", seen.join(", ")),
        );
        Ok(())
    }

    /// Ends it: what became of each stream.
    pub(crate) fn end(self) -> Result<Vec<(String, StreamReport)>> {
        thread::sleep(LINGER);
        self.0.into_iter().map(|(way, stream)| Ok((way, stream.finish()?))).collect()
    }
}

/// What became of a stream, for people.
pub(crate) fn told(stream: &StreamReport) -> String {
    format!("{} of {} lost, the longest gap {:.1?}", stream.lost, stream.sent, stream.longest_gap)
}

/// An address of each family that the cluster has.
pub(crate) fn families(cluster: &Cluster) -> impl Iterator<Item = IpAddr> {
    [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)].into_iter().take(cluster.options.families)
}

/// Pings from every pod to every other, small and as large as the MTU allows, with "don't fragment": how many, and what went wrong.
pub(crate) fn matrix(pods: &[Pod]) -> Result<(usize, Vec<String>)> {
    let (mut pings, mut amiss) = (0, Vec::new());
    for from in pods {
        let mtu = from.mtu()?;
        for to in pods.iter().filter(|to| to.name != from.name) {
            for (address, size) in to.addresses.iter().flat_map(|address| [(*address, SMALL), (*address, mtu)]) {
                pings += 1;
                amiss.extend(from.ping(address, size).err().map(|error| format!("{error:#}")));
            }
        }
    }
    Ok((pings, amiss))
}

/// Waits until there are so many pods of the workload, and each reaches every other in every way; a gate, and how long that took.
pub(crate) fn whole(cluster: &Cluster, what: &str, report: &mut Report) -> Result<()> {
    let (start, wanted) = (Instant::now(), cluster.nodes.len());
    let pings = wait_for("every pod to reach every other", PATIENCE, || {
        let pods = cluster.pods("default", "app in (web, each)")?;
        let nodes = |name: &str| pods.iter().filter(|pod| pod.name.starts_with(name)).count();
        ensure!(nodes("web-") == cluster.replicas() && nodes("each-") == wanted, "there are {} pods", pods.len());
        ensure!(pods.iter().all(|pod| pod.addresses.len() == cluster.options.families), "a pod has not all addresses");
        let (pings, amiss) = matrix(&pods)?;
        ensure!(amiss.is_empty(), "{} of {pings} pings: {amiss:?}", amiss.len());
        Ok(pings)
    })
    .with_context(|| cluster.explain())?;
    let took = start.elapsed().as_secs_f64();
    report.gate(
        format!("{what}: every pod reaches every other, with small and full packets"),
        true,
        format!("{pings} pings, after {took:.1} s"),
    );
    Ok(())
}

//! Pods reach each other, services, and nodes.

use anyhow::{Result, ensure};
use testkit::cases;
use testkit::trial::{Case, Report};

use crate::cluster::Cluster;

pub(crate) const CASES: &[Case<Cluster>] = cases![every_pod_reaches_every_other_with_small_and_full_packets];

fn every_pod_reaches_every_other_with_small_and_full_packets(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let pods = cluster.pods("default", "app in (web, each)")?;
    ensure!(pods.len() == 2 * cluster.nodes.len(), "there are {} pods", pods.len());
    let (mut pings, mut amiss) = (0, Vec::new());
    for from in &pods {
        let mtu = from.mtu()?;
        for to in pods.iter().filter(|to| to.name != from.name) {
            for (address, size) in to.addresses.iter().flat_map(|address| [(*address, 100), (*address, mtu)]) {
                pings += 1;
                amiss.extend(from.ping(address, size).err().map(|error| format!("{error:#}")));
            }
        }
    }
    report.gate("every ping is answered", amiss.is_empty(), format!("{pings} pings, {} not answered: {amiss:?}", amiss.len()));
    Ok(())
}

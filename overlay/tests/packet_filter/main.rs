//! A network's rules in a real kernel, both families. Oracles: nft, iptables-nft, iptables-legacy.

mod forward;
mod rules;
mod takeover;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use overlay::{Masquerade, NetSpec, PacketFilter};
use testkit::Namespace;

/// Far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often iptables-legacy is looked at here.
const RESYNC: Duration = Duration::from_millis(200);

fn v4() -> NetSpec {
    spec("flannel.1", "10.5.0.0/16", "10.5.33.0/24")
}

fn v6() -> NetSpec {
    spec("flannel-v6.1", "fc00:db8::/48", "fc00:db8:0:39::/64")
}

fn spec(name: &str, network: &str, subnet: &str) -> NetSpec {
    let parsed = |text: &str| text.parse().unwrap_or_else(|error| unreachable!("{text}: {error}"));
    NetSpec {
        name: name.to_owned(),
        network: parsed(network),
        subnet: parsed(subnet),
        masquerade: Masquerade::FullyRandom,
        forward: true,
        notrack: None,
    }
}

fn host() -> Result<Namespace> {
    Namespace::new("host", "mount -t tmpfs tmpfs /run")
}

/// Steps until the condition holds, as the agent does.
async fn until(filter: &mut PacketFilter, what: &str, mut right: impl FnMut(&PacketFilter) -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        filter.step(Instant::now()).await?;
        let Err(error) = right(filter) else { return Ok(()) };
        ensure!(Instant::now() < deadline, "{what}: {error:#}");
        let due = filter.next_due().unwrap_or(deadline).min(deadline);
        tokio::select! {
            heard = filter.listen() => heard?,
            () = tokio::time::sleep_until(due.into()) => {}
        }
    }
}

/// A filter that is in step.
async fn standing(spec: NetSpec) -> Result<PacketFilter> {
    let mut filter = PacketFilter::open(spec, RESYNC)?;
    until(&mut filter, "the filter to stand", |filter| {
        ensure!(filter.in_step() && filter.stands(), "{filter:?}, {:?}", filter.trouble());
        Ok(())
    })
    .await?;
    Ok(filter)
}

/// A table as nft lists it, a line each, without the spaces around.
fn listed(host: &Namespace, table: &[&str]) -> Result<Vec<String>> {
    let text = host.run(&[&["nft", "--stateless", "list", "table"], table].concat())?;
    Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
}

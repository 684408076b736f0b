//! Steps 1 to 3: hosts start, their containers meet, another host joins.

use std::collections::BTreeSet;
use std::thread;

use anyhow::{Result, anyhow, ensure};
use testkit::Container;

use crate::cast::{Cast, PATIENCE};
use crate::tale::{Tale, time};

/// What a VXLAN over IPv4 leaves of 1500: 50 less.
const MTU: u64 = 1450;
/// ping's own default.
const SMALL: u16 = 56;

pub(crate) fn three_hosts(cast: &mut Cast, tale: &mut Tale) -> Result<()> {
    tale.step("Three hosts and an etcd start");
    cast.enter(&["h1", "h2", "h3"])?;
    let (mut rows, mut subnets, mut macs) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for member in &cast.members {
        let (subnet, vtep) = (member.subnet()?, member.vtep()?);
        ensure!(vtep.mtu == MTU, "the VTEP on {} has MTU {}, not {MTU}", member.host.name(), vtep.mtu);
        let containers: Vec<_> = member.containers.iter().map(|container| container.address().to_string()).collect();
        rows.push([
            member.host.name().to_owned(),
            member.host.address().to_string(),
            subnet.clone(),
            vtep.mac.clone(),
            vtep.mtu.to_string(),
            containers.join(", "),
            time(member.ready_after),
        ]);
        subnets.insert(subnet);
        macs.insert(vtep.mac);
    }
    tale.table(["host", "address", "subnet", "VTEP MAC", "MTU", "containers", "ready after"], &rows);
    ensure!(subnets.len() == rows.len() && macs.len() == rows.len(), "two hosts have the same subnet or the same VTEP MAC");
    tale.holds("each host has a subnet and a VTEP MAC of its own, and the right MTU");
    Ok(())
}

pub(crate) fn ping_matrix(cast: &mut Cast, tale: &mut Tale) -> Result<()> {
    tale.step("Every container pings every other");
    cast.mesh()?.wait_whole(PATIENCE)?;
    let all: Vec<&Container> = cast.containers().collect();
    let pings = thread::scope(|scope| {
        let pinging: Vec<_> = all.iter().map(|from| scope.spawn(|| ping_all(from, &all))).collect();
        pinging.into_iter().try_fold(0, |sum, one| Ok::<_, anyhow::Error>(sum + one.join().map_err(|_| anyhow!("a ping panicked"))??))
    })?;
    let full = all.first().map_or(0, |container| container.full_payload());
    tale.figure("pings answered", pings.to_string(), &format!("{SMALL} bytes, and {full}: full MTU, unfragmented"));
    Ok(())
}

fn ping_all(from: &Container, all: &[&Container]) -> Result<u32> {
    let mut answered = 0;
    for to in all.iter().filter(|to| to.address() != from.address()) {
        from.ping(to.address(), SMALL, false)?;
        from.ping(to.address(), from.full_payload(), true)?;
        answered += 2;
    }
    Ok(answered)
}

pub(crate) fn fourth_host(cast: &mut Cast, tale: &mut Tale) -> Result<()> {
    tale.step("A fourth host joins");
    cast.suspect = Some("h4".to_owned());
    cast.enter(&["h4"])?;
    cast.mesh()?.wait_whole(PATIENCE)?;
    let member = cast.member("h4")?;
    let (after, ready, subnet) = (member.started.elapsed(), time(member.ready_after), member.subnet()?);
    tale.figure("agent started, until its containers meet", time(after), &format!("{subnet}, ready after {ready}"));
    Ok(())
}

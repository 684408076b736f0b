//! Others' forward chains that drop: ours is put where it counts, stays there, and goes when it is not needed.

use anyhow::{Result, ensure};
use lease::Family;
use overlay::{NetSpec, OurTable, PacketFilter, remove_guests};
use testkit::Namespace;

use crate::{host, standing, until, v4, v6};

/// How each kind of iptables lists our rules for the network of [`v4`], and [`v6`].
fn rules(spec: &NetSpec) -> [String; 2] {
    let name = overlay::net_table_name(&spec.name);
    ["-s", "-d"].map(|side| format!("-A FORWARD {side} {} -m comment --comment \"{name}\" -j ACCEPT", spec.network))
}

fn forward(host: &Namespace, program: &str) -> Result<Vec<String>> {
    Ok(host.run(&[program, "-S", "FORWARD"])?.lines().map(str::to_owned).collect())
}

async fn until_forward(filter: &mut PacketFilter, host: &Namespace, program: &str, wanted: &[&str]) -> Result<()> {
    until(filter, &format!("{program} -S FORWARD to be {wanted:#?}"), |_| {
        let have = forward(host, program)?;
        ensure!(have == wanted, "it is {have:#?}");
        Ok(())
    })
    .await
}

/// The same story with either kind of iptables, of either family.
async fn with_iptables(program: &str, spec: NetSpec) -> Result<()> {
    let host = host()?;
    let _within = host.enter()?;
    let run = |args: &str| host.run(&[&[program, "-w"], args.split(' ').collect::<Vec<_>>().as_slice()].concat());
    let [source, target] = &rules(&spec);
    let mut filter = standing(spec).await?;
    ensure!(filter.places().is_empty());
    // Docker starts.
    run("-P FORWARD DROP")?;
    run("-N DOCKER-USER")?;
    run("-A DOCKER-USER -j RETURN")?;
    run("-A FORWARD -j DOCKER-USER")?;
    run("-A FORWARD -i docker0 -j ACCEPT")?;
    let docker = ["-P FORWARD DROP", "-A FORWARD -j DOCKER-USER", "-A FORWARD -i docker0 -j ACCEPT"];
    until_forward(&mut filter, &host, program, &[&docker[..], &[source, target]].concat()).await?;
    filter.take_heals();
    // Docker starts again, and puts its own first.
    run("-D FORWARD -j DOCKER-USER")?;
    run("-I FORWARD -j DOCKER-USER")?;
    // Somebody empties the chain.
    until(&mut filter, "ours to be known to stand", |filter| {
        ensure!(filter.in_step() && filter.places().len() == 1, "{:?}", filter.places());
        Ok(())
    })
    .await?;
    run("-F FORWARD")?;
    until_forward(&mut filter, &host, program, &["-P FORWARD DROP", source, target]).await?;
    ensure!(filter.take_heals().0 >= 1);
    ensure!(filter.places().len() == 1, "{:?}", filter.places());
    // Somebody deletes one of ours by iptables' own means.
    run(&source.replace("-A", "-D").replace('"', ""))?;
    until_forward(&mut filter, &host, program, &["-P FORWARD DROP", source, target]).await?;
    // A rule for all before ours: ours would not count.
    run("-I FORWARD -j REJECT")?;
    let reject = forward(&host, program)?.get(1).cloned().unwrap_or_default();
    until_forward(&mut filter, &host, program, &["-P FORWARD DROP", source, target, &reject]).await?;
    // Somebody's ban stays before ours.
    run("-I FORWARD -i bad0 -j DROP")?;
    run(&reject.replace("-A", "-D"))?;
    until_forward(&mut filter, &host, program, &["-P FORWARD DROP", "-A FORWARD -i bad0 -j DROP", source, target]).await?;
    // Nothing drops any more.
    run("-P FORWARD ACCEPT")?;
    until_forward(&mut filter, &host, program, &["-P FORWARD ACCEPT", "-A FORWARD -i bad0 -j DROP"]).await?;
    Ok(())
}

#[tokio::test]
async fn docker_with_iptables_nft_comes_and_changes_and_goes() -> Result<()> {
    with_iptables("iptables-nft", v4()).await
}

#[tokio::test]
async fn the_same_for_ipv6() -> Result<()> {
    with_iptables("ip6tables-nft", v6()).await
}

/// Needs ip_tables in the kernel (CONFIG_IP_NF_IPTABLES_LEGACY).
#[tokio::test]
async fn docker_with_iptables_legacy_comes_and_changes_and_goes() -> Result<()> {
    with_iptables("iptables-legacy", v4()).await
}

#[tokio::test]
async fn the_same_for_ipv6_with_ip6tables_legacy() -> Result<()> {
    with_iptables("ip6tables-legacy", v6()).await
}

#[tokio::test]
async fn a_table_for_both_families_that_rejects_gets_a_rule_of_each_before_its_last() -> Result<()> {
    let host = host()?;
    let _within = host.enter()?;
    host.run(&[
        "nft",
        "add table inet firewalld; add chain inet firewalld zone; add chain inet firewalld filter_FORWARD { type filter hook forward priority filter + 10; }; \
         add rule inet firewalld zone reject with icmpx admin-prohibited; \
         add rule inet firewalld filter_FORWARD ct state { established, related } accept; add rule inet firewalld filter_FORWARD ct state invalid drop; \
         add rule inet firewalld filter_FORWARD jump zone; add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
    ])?;
    let (_v4, mut v6) = (standing(v4()).await?, standing(v6()).await?);
    let chain = || host.run(&["nft", "--stateless", "list", "chain", "inet", "firewalld", "filter_FORWARD"]);
    let text = chain()?;
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| line.contains("comment") || line.contains("drop") || line.contains("jump")).collect();
    let wanted = [
        "ct state invalid drop",
        "ip saddr 10.5.0.0/16 counter accept comment \"loden-net-flannel.1\"",
        "ip daddr 10.5.0.0/16 counter accept comment \"loden-net-flannel.1\"",
        "ip6 saddr fc00:db8::/48 counter accept comment \"loden-net-flannel-v6.1\"",
        "ip6 daddr fc00:db8::/48 counter accept comment \"loden-net-flannel-v6.1\"",
        "jump zone",
    ];
    ensure!(lines == wanted, "{text}");
    // A chain that is only led to changes: nothing is dropped any more but by the last rule, and then by none.
    host.run(&["nft", "flush chain inet firewalld filter_FORWARD; flush chain inet firewalld zone"])?;
    until(&mut v6, "nothing of ours to be left", |filter| {
        ensure!(!chain()?.contains("flannel-v6.1") && filter.places().is_empty(), "{}", chain()?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_left_in_others_chains_is_taken_away() -> Result<()> {
    let host = host()?;
    let _within = host.enter()?;
    host.run(&["iptables-nft", "-P", "FORWARD", "DROP"])?;
    host.run(&["iptables-legacy", "-P", "FORWARD", "DROP"])?;
    let filter = standing(v4()).await?;
    assert_eq!(filter.places(), ["ip filter FORWARD", "iptables-legacy filter FORWARD"]);
    drop(filter);
    let table = OurTable { family: Family::V4, device: "flannel.1".to_owned(), name: "loden-net-flannel.1".to_owned() };
    let (gone, trouble) = remove_guests(&table).await?;
    assert_eq!((gone.len(), trouble), (2, None));
    assert_eq!(forward(&host, "iptables-nft")?, ["-P FORWARD DROP"]);
    assert_eq!(forward(&host, "iptables-legacy")?, ["-P FORWARD DROP"]);
    // Where forward rules are not wanted, those of an earlier run go as well.
    drop(standing(v4()).await?);
    drop(standing(NetSpec { forward: false, ..v4() }).await?);
    assert_eq!(forward(&host, "iptables-nft")?, ["-P FORWARD DROP"]);
    Ok(())
}

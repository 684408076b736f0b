//! The table: its rules as nft lists them, repaired, changed in one transaction, and nobody else's.

use anyhow::{Result, ensure};
use overlay::{Masquerade, NetSpec, our_tables, remove_table};

use crate::{host, listed, spec, standing, until, v4, v6};

const MASQUERADE_V4: [&str; 16] = [
    "table ip loden-net-flannel.1 {",
    "chain forward {",
    "type filter hook forward priority filter; policy accept;",
    "ip saddr 10.5.0.0/16 accept",
    "ip daddr 10.5.0.0/16 accept",
    "}",
    "chain postrouting {",
    "type nat hook postrouting priority srcnat; policy accept;",
    "meta mark & 0x00004000 == 0x00004000 return",
    "ip saddr 10.5.33.0/24 ip daddr 10.5.0.0/16 return",
    "ip saddr 10.5.0.0/16 ip daddr 10.5.33.0/24 return",
    "ip saddr != 10.5.0.0/16 ip daddr 10.5.33.0/24 return",
    "ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
    "ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random",
    "}",
    "}",
];

/// The same for the other family: the same rules with other addresses.
fn as_v6(lines: &[&str]) -> Vec<String> {
    let pairs = [
        ("table ip loden-net-flannel.1", "table ip6 loden-net-flannel-v6.1"),
        ("ip saddr", "ip6 saddr"),
        ("ip daddr", "ip6 daddr"),
        ("10.5.33.0/24", "fc00:db8:0:39::/64"),
        ("10.5.0.0/16", "fc00:db8::/48"),
        ("224.0.0.0/4", "ff00::/8"),
    ];
    lines.iter().map(|line| pairs.iter().fold((*line).to_owned(), |line, (from, to)| line.replace(from, to))).collect()
}

#[tokio::test]
async fn both_families_have_flannels_rules_in_their_order() -> Result<()> {
    let host = host()?;
    let _within = host.enter()?;
    let (_v4, _v6) = (standing(v4()).await?, standing(v6()).await?);
    assert_eq!(listed(&host, &["ip", "loden-net-flannel.1"])?, MASQUERADE_V4);
    assert_eq!(listed(&host, &["ip6", "loden-net-flannel-v6.1"])?, as_v6(&MASQUERADE_V4));
    Ok(())
}

#[tokio::test]
async fn what_is_switched_off_is_not_there_and_what_is_switched_on_is() -> Result<()> {
    let host = host()?;
    let _within = host.enter()?;
    let plain = NetSpec { masquerade: Masquerade::Plain, forward: false, notrack: Some(8472), ..v4() };
    let _filter = standing(plain).await?;
    let rules = listed(&host, &["ip", "loden-net-flannel.1"])?;
    ensure!(rules.contains(&"ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade".to_owned()), "{rules:#?}");
    ensure!(!rules.iter().any(|rule| rule.ends_with("accept") || rule.contains("random")), "{rules:#?}");
    assert_eq!(rules.iter().filter(|rule| *rule == "udp dport 8472 notrack").count(), 2);
    ensure!(rules.contains(&"type filter hook prerouting priority raw; policy accept;".to_owned()), "{rules:#?}");
    ensure!(rules.contains(&"type filter hook output priority raw; policy accept;".to_owned()), "{rules:#?}");
    let none = NetSpec { masquerade: Masquerade::Off, forward: false, ..spec("flannel.2", "10.6.0.0/20", "10.6.1.0/25") };
    let _none = standing(none).await?;
    assert_eq!(listed(&host, &["ip", "loden-net-flannel.2"])?, ["table ip loden-net-flannel.2 {", "}"]);
    let odd = spec("flannel.3", "10.7.0.0/20", "10.7.1.0/25");
    let _odd = standing(odd).await?;
    let rules = listed(&host, &["ip", "loden-net-flannel.3"])?;
    ensure!(rules.contains(&"ip saddr 10.7.1.0/25 ip daddr 10.7.0.0/20 return".to_owned()), "{rules:#?}");
    Ok(())
}

#[tokio::test]
async fn a_restart_writes_nothing_and_another_subnet_is_one_transaction() -> Result<()> {
    let host = host()?;
    let _within = host.enter()?;
    drop(standing(v4()).await?);
    let handles = host.run(&["nft", "-a", "list", "ruleset"])?;
    drop(standing(v4()).await?);
    ensure!(host.run(&["nft", "-a", "list", "ruleset"])? == handles, "the table was made anew");
    let mut moved = standing(NetSpec { subnet: "10.5.44.0/24".parse()?, masquerade: Masquerade::Plain, ..v4() }).await?;
    let rules = listed(&host, &["ip", "loden-net-flannel.1"])?;
    assert_eq!(rules.len(), MASQUERADE_V4.len());
    ensure!(rules.iter().all(|rule| !rule.contains("10.5.33") && !rule.contains("random")), "{rules:#?}");
    assert_eq!(moved.take_heals().0, 0);
    Ok(())
}

#[tokio::test]
async fn whatever_is_done_to_the_table_is_undone_and_counted_and_a_fight_is_named() -> Result<()> {
    let host = host()?;
    let _within = host.enter()?;
    let mut filter = standing(v6()).await?;
    let right = as_v6(&MASQUERADE_V4);
    let mut heals = 0;
    for vandalism in [
        "flush ruleset",
        "delete table ip6 loden-net-flannel-v6.1",
        "insert rule ip6 loden-net-flannel-v6.1 postrouting accept",
        "flush chain ip6 loden-net-flannel-v6.1 forward",
        "add chain ip6 loden-net-flannel-v6.1 mine",
    ] {
        host.run(&["nft", vandalism])?;
        until(&mut filter, vandalism, |_| {
            let have = listed(&host, &["ip6", "loden-net-flannel-v6.1"])?;
            ensure!(have == right, "{have:#?}");
            Ok(())
        })
        .await?;
        heals += filter.take_heals().0;
    }
    assert_eq!(heals, 5);
    until(&mut filter, "the fight", |filter| {
        let trouble = filter.trouble().unwrap_or_default();
        if trouble.is_empty() {
            host.run(&["nft", "flush ruleset"])?;
        }
        ensure!(trouble.contains("loden-net-flannel-v6.1") && trouble.contains("undone"), "{trouble:?}");
        Ok(())
    })
    .await?;
    // It is repaired all the same.
    until(&mut filter, "the end of the fight", |filter| {
        ensure!(filter.in_step(), "{:?}", filter.trouble());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn two_networks_side_by_side_and_others_tables_are_left_alone() -> Result<()> {
    let host = host()?;
    let _within = host.enter()?;
    host.run(&["nft", "add table ip mine; add chain ip mine c { type filter hook forward priority 0; }; add rule ip mine c counter"])?;
    let mine = listed(&host, &["ip", "mine"])?;
    let (_one, _two) = (standing(v4()).await?, standing(spec("flannel.2", "10.6.0.0/16", "10.6.1.0/24")).await?);
    assert_eq!(listed(&host, &["ip", "mine"])?, mine);
    let tables = our_tables().await?;
    assert_eq!(tables.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ip loden-net-flannel.1", "ip loden-net-flannel.2"]);
    ensure!(remove_table(&tables[0]).await? && !remove_table(&tables[0]).await?);
    assert_eq!(host.run(&["nft", "list", "tables"])?, "table ip mine\ntable ip loden-net-flannel.2\n");
    Ok(())
}

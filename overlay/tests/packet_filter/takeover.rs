//! Coming from flanneld, whichever form and whichever iptables: its rules are gone once ours stand, another network's stay.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use overlay::flanneld_filters;
use testkit::Namespace;

use crate::{host, spec, standing, v4, v6};

/// What `iptables-save` said on a host of real flanneld v0.28.9, of either family.
fn left_by_flanneld(network: &str, subnet: &str, multicast: &str) -> String {
    format!(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:FLANNEL-FWD - [0:0]\n\
         -A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n\
         -A FLANNEL-FWD -s {network} -m comment --comment \"flanneld forward\" -j ACCEPT\n\
         -A FLANNEL-FWD -d {network} -m comment --comment \"flanneld forward\" -j ACCEPT\nCOMMIT\n\
         *nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:FLANNEL-POSTRTG - [0:0]\n\
         -A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n\
         -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN\n\
         -A FLANNEL-POSTRTG -s {subnet} -d {network} -m comment --comment \"flanneld masq\" -j RETURN\n\
         -A FLANNEL-POSTRTG -s {network} -d {subnet} -m comment --comment \"flanneld masq\" -j RETURN\n\
         -A FLANNEL-POSTRTG ! -s {network} -d {subnet} -m comment --comment \"flanneld masq\" -j RETURN\n\
         -A FLANNEL-POSTRTG -s {network} ! -d {multicast} -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully\n\
         -A FLANNEL-POSTRTG ! -s {network} -d {network} -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully\nCOMMIT\n"
    )
}

fn restore(host: &Namespace, program: &str, text: &str) -> Result<()> {
    let mut child = host.command(program).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("no pipe")?.write_all(text.as_bytes())?;
    ensure!(child.wait()?.success(), "{program} refuses");
    Ok(())
}

fn saved(host: &Namespace, program: &str) -> Result<String> {
    host.run(&[program])
}

#[tokio::test]
async fn flannelds_chains_of_either_family_and_either_iptables_go_once_ours_stand() -> Result<()> {
    for (base, kind) in [("iptables", "nft"), ("ip6tables", "nft"), ("iptables", "legacy"), ("ip6tables", "legacy")] {
        let host = host()?;
        let _within = host.enter()?;
        let (spec, multicast) = if base == "iptables" { (v4(), "224.0.0.0/4") } else { (v6(), "ff00::/8") };
        let text = left_by_flanneld(&spec.network.to_string(), &spec.subnet.to_string(), multicast);
        restore(&host, &format!("{base}-{kind}-restore"), &text)?;
        ensure!(flanneld_filters(spec.network).await?, "{base}-{kind}: flanneld's rules are not seen");
        let filter = standing(spec.clone()).await?;
        let left = saved(&host, &format!("{base}-{kind}-save"))?;
        ensure!(!left.contains("FLANNEL") && left.contains(":FORWARD ACCEPT"), "{base}-{kind}: {left}");
        assert_eq!(filter.notes().collect::<Vec<_>>(), Vec::<&str>::new());
        ensure!(!flanneld_filters(spec.network).await?);
    }
    Ok(())
}

#[tokio::test]
async fn flannelds_tables_go_and_what_is_another_networks_stays() -> Result<()> {
    let host = host()?;
    let _within = host.enter()?;
    host.run(&[
        "nft",
        "add table ip flannel-ipv4; add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority srcnat; }; \
         add rule ip flannel-ipv4 postrtg ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
    ])?;
    restore(&host, "iptables-nft-restore", &left_by_flanneld("10.9.0.0/16", "10.9.1.0/24", "224.0.0.0/4"))?;
    restore(&host, "iptables-legacy-restore", &left_by_flanneld("10.9.0.0/16", "10.9.1.0/24", "224.0.0.0/4"))?;
    drop(standing(spec("flannel.2", "10.6.0.0/16", "10.6.1.0/24")).await?);
    ensure!(flanneld_filters(v4().network).await? && host.run(&["nft", "list", "tables"])?.contains("flannel-ipv4"));
    drop(standing(v4()).await?);
    ensure!(!host.run(&["nft", "list", "tables"])?.contains("flannel-ipv4"));
    for program in ["iptables-nft-save", "iptables-legacy-save"] {
        let left = saved(&host, program)?;
        ensure!(left.matches("-A FLANNEL").count() == 8 && left.contains("-j FLANNEL-POSTRTG"), "{left}");
    }
    Ok(())
}

#[tokio::test]
async fn what_of_flannelds_cannot_be_removed_is_a_note_and_stops_nothing() -> Result<()> {
    let host = host()?;
    let _within = host.enter()?;
    restore(&host, "iptables-nft-restore", &left_by_flanneld("10.5.0.0/16", "10.5.33.0/24", "224.0.0.0/4"))?;
    // Somebody else leads to it as well.
    host.run(&["iptables-nft", "-A", "INPUT", "-j", "FLANNEL-FWD"])?;
    let filter = standing(v4()).await?;
    let notes: Vec<&str> = filter.notes().collect();
    ensure!(filter.in_step() && notes.iter().any(|note| note.contains("flanneld may have left")), "{notes:?}");
    Ok(())
}

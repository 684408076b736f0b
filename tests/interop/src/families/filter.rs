//! Packet filter rules of either agent.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::Lab;
use testkit::cases;
use testkit::trial::{Case, Report};
use testkit::world::{CONFIG, PATIENCE};

use super::defects::{Outcome, beside, within};
use crate::Agents;
use crate::peer::Which::Loden;
use crate::scene::Scene;

pub(crate) const CASES: &[Case<Agents>] =
    cases![in_nftables_form_what_comes_from_outside_is_masqueraded, flushed_rules_are_put_back, flushed_nftables_rules_are_put_back,];

/// flanneld's other form of rules.
pub(crate) const NFTABLES: &str = r#"{"Network":"10.5.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;
const FLAGS: &[&str] = &["-ip-masq"];
/// flanneld looks at its iptables rules every five seconds.
const RESYNC: Duration = Duration::from_secs(8);
const TABLES: &str = "for t in $(nft list tables | grep -E ' (nat|filter|flannel|loden)' | cut -d' ' -f2-3 | tr ' ' ,); \
                      do nft flush table ${t%,*} ${t#*,}; done; iptables -t nat -F; iptables -F";

fn in_nftables_form_what_comes_from_outside_is_masqueraded(agents: &Agents, report: &mut Report) -> Result<()> {
    let fault = ("S23: nftables form, a packet from outside to a container of another host", "it comes under the host's overlay address");
    beside(agents, report, fault, |agents, which| {
        let mut scene = Scene::new(agents, NFTABLES, FLAGS)?;
        scene.join_all(&[which, Loden])?;
        scene.whole(PATIENCE)?;
        let gateway = scene.first()?.member.host.address();
        let [one, two] = scene.parties()?;
        let (mine, theirs) = (format!("{}.0", one.prefix()?), two.prefix()?);
        let socket = two.container.udp_socket()?;
        socket.set_read_timeout(Some(PATIENCE / 4))?;
        let target = socket.local_addr()?;
        let switch = scene.world.lab.switch();
        switch.run(&["ip", "route", "add", &format!("{theirs}.0/24"), "via", &gateway.to_string()])?;
        switch.within(|| {
            let from: SocketAddr = format!("{}:0", Lab::GATEWAY).parse()?;
            Ok(UdpSocket::bind(from)?.send_to(b"hello", target).map(drop)?)
        })?;
        let from = socket.recv_from(&mut [0; 8]).context("the packet did not come")?.1.ip().to_string();
        Ok(Outcome::new(from == mine, format!("it comes from {from}")))
    })
}

fn flushed_rules_are_put_back(agents: &Agents, report: &mut Report) -> Result<()> {
    flushed(agents, CONFIG, "all rules flushed (iptables form)", report)
}

fn flushed_nftables_rules_are_put_back(agents: &Agents, report: &mut Report) -> Result<()> {
    flushed(agents, NFTABLES, "S6: all rules flushed (nftables form)", report)
}

fn flushed(agents: &Agents, config: &str, what: &str, report: &mut Report) -> Result<()> {
    beside(agents, report, (what, "containers go outside by masquerade again"), |agents, which| {
        let mut scene = Scene::new(agents, config, FLAGS)?;
        scene.join(which)?;
        let outside = Lab::GATEWAY.parse::<std::net::Ipv4Addr>()?;
        let before =
            within(RESYNC, "a container goes outside", || scene.parties.first().context("no host")?.container.ping(outside, 56, true));
        ensure!(before.right, "{}", before.text);
        scene.first()?.member.host.run(&["sh", "-c", TABLES])?;
        // A ping is a connection of its own to the packet filter.
        let again = within(RESYNC, "it goes outside again", || scene.parties.first().context("no host")?.container.ping(outside, 56, true));
        Ok(again)
    })
}

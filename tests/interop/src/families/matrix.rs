//! Who arrives where, and under whose address, by the rules of either agent: the matrix that loden's own tests use.

use anyhow::Result;
use testkit::cases;
use testkit::matrix::{Cell, Scene as Matrix, expected};
use testkit::trial::{Case, Report};
use testkit::wait_for;
use testkit::world::{Member, PATIENCE, World};

use crate::Agents;
use crate::peer::Which::{self, Flanneld, Loden};

pub(crate) const CASES: &[Case<Agents>] =
    cases![with_masquerade_everybody_arrives_as_under_flanneld, without_masquerade_everybody_arrives_as_under_flanneld];

const IPTABLES: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:db8::/48","Backend":{"Type":"vxlan"}}"#;
const NFTABLES: &str =
    r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:db8::/48","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;

fn with_masquerade_everybody_arrives_as_under_flanneld(agents: &Agents, report: &mut Report) -> Result<()> {
    both(agents, &["-ip-masq"], true, report)
}

fn without_masquerade_everybody_arrives_as_under_flanneld(agents: &Agents, report: &mut Report) -> Result<()> {
    both(agents, &[], false, report)
}

fn both(agents: &Agents, flags: &[&str], masquerade: bool, report: &mut Report) -> Result<()> {
    for (form, config) in [("iptables form", IPTABLES), ("nftables form", NFTABLES)] {
        let [flanneld, loden] = [Flanneld, Loden].map(|which| measure(agents, which, config, flags));
        let (flanneld, loden) = (flanneld?, loden?);
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            let wrong = |measured: &[Vec<Cell>; 2]| {
                let [v4, six] = measured;
                let cells = if v6 { six } else { v4 };
                let wrong = cells.iter().zip(expected(masquerade)).filter(|(have, want)| *have != want);
                wrong
                    .map(|(Cell { from, to, mark, arrives_as }, want)| {
                        let (mark, arrives_as) = (mark.map_or(String::new(), |mark| format!(" marked {mark}")), shown(*arrives_as));
                        format!("{from:?} → {to:?}{mark} arrives as {arrives_as}, not {}", shown(want.arrives_as))
                    })
                    .collect::<Vec<_>>()
            };
            let what = format!("{form}, {family}: {} ways", expected(masquerade).len());
            let text = |wrong: Vec<String>| if wrong.is_empty() { "all as they should".to_owned() } else { wrong.join("; ") };
            let wrong_of_loden = wrong(&loden);
            report.gate(
                format!("{what}: everybody arrives as himself or masqueraded, as flannel's rules have it"),
                wrong_of_loden.is_empty(),
                text(wrong_of_loden.clone()),
            );
            report.compare(what, text(wrong(&flanneld)), text(wrong_of_loden));
        }
    }
    Ok(())
}

fn shown(end: Option<testkit::matrix::End>) -> String {
    end.map_or_else(|| "nobody".to_owned(), |end| format!("{end:?}"))
}

/// What is measured between two hosts with this agent, by IPv4 and by IPv6.
fn measure(agents: &Agents, which: Which, config: &str, flags: &[&str]) -> Result<[Vec<Cell>; 2]> {
    let world = World::with_config(config)?;
    let start = |name| {
        let host = world.lab.host(name)?;
        if which == Flanneld {
            crate::scene::forward(&host)?;
        }
        let mut member = Member::on(host, agents.options(which, &world, flags)?)?;
        member.agent.wait_ready(PATIENCE)?;
        wait_for("the subnet file", PATIENCE, || member.host.subnet_env())?;
        Ok::<_, anyhow::Error>(member)
    };
    let (h1, h2) = (start("h1")?, start("h2")?);
    let matrix = Matrix::new(&world.lab, &h1.host, &h2.host)?;
    let of = |v6| {
        wait_for("the containers to meet", PATIENCE, || matrix.meet(v6))?;
        matrix.measure(v6)
    };
    Ok([of(false)?, of(true)?])
}

//! Crafted packets against the peer filter, while peers come and go and somebody tampers with its table.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::world::{Member, PATIENCE, Peer, World};
use testkit::{Container, Host, Reached, Rogue, filter_drops, filter_table, forge, wait_for};

use crate::{Budget, Report};

const FLAG: &str = "--vxlan-peers-only";

/// Peers that nobody touches, so that their elements can be tampered with.
const RESIDENTS: std::ops::RangeInclusive<u8> = 130..=160;
/// Peers that come and go.
const GUESTS: std::ops::RangeInclusive<u8> = 201..=205;

/// So many repairs of one thing are no fight yet, and so long it takes until they are forgotten (overlay/src/retry.rs).
const AT_ONCE: u32 = 5;
const PEACE: Duration = Duration::from_secs(11);

/// The time within which a table is right again, as nft, which takes some 5 ms, sees it.
const REPAIRED: Duration = Duration::from_millis(100);

/// Others' rules: one beside ours, one with the same hook.
const DECOYS: &str = "add table ip loden-decoy; add chain ip loden-decoy input { type filter hook input priority -300; }; \
     add rule ip loden-decoy input udp dport 8472 counter; add table inet decoy; add set inet decoy pass24 { type ipv4_addr; }";

pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut report = Report::default();
    let world = World::new()?;
    let residents = world.peers(RESIDENTS)?;
    let mut h1 = Member::on(world.lab.host("h1")?, world.options()?.args([FLAG]))?;
    h1.agent.wait_ready(PATIENCE)?;
    let h2 = world.member("h2")?;
    let (c1, c2) = (h1.host.container("c1")?, h2.host.container("c2")?);
    wait_for("the containers to meet", PATIENCE, || c2.ping(c1.address(), 56, false))?;
    h1.host.run(&["nft", DECOYS])?;
    let decoys = decoys(&h1.host)?;
    let rogue = Rogue::new(&world.lab, 1, h1.host.address(), &h1.vtep_identity()?.1)?;

    let stream = c2.udp_stream(&c1, Duration::from_millis(1))?;
    come_and_go(&mut report, &world, &h1, budget.rounds(60))?;
    let (tried, reached) = attack(&rogue, &h1, &h2, &c1, budget.rounds(20))?;
    let stream = stream.finish()?;
    report.stream(&stream);
    report.gate("no packet between peers is lost while others come, go and attack", stream.lost == 0, format!("{} lost", stream.lost));
    report.gate("no crafted packet reaches a container", reached == 0, format!("{reached} of {tried} did"));
    let dropped = filter_drops(&h1.host)?;
    report.gate("each of them was dropped by the filter", dropped >= u64::from(tried), format!("{dropped} dropped, {tried} tried"));

    tamper(&mut report, &h1, &residents, budget)?;
    report.gate("others' tables are as they were", self::decoys(&h1.host)? == decoys, "compared as nft lists them");
    h1.agent.wait_ready(PATIENCE)?;

    h1.agent.options_mut().clone_from(&world.options()?);
    h1.agent.restart()?;
    h1.agent.wait_ready(PATIENCE)?;
    report.gate("without the flag the table is gone", filter_table(&h1.host)?.is_none(), "looked for with nft");
    let open = forge(rogue.host(), Ipv4Addr::new(10, 5, 130, 7), &c1)?;
    report.gate("without the flag a crafted packet does reach a container", open == Reached::BOTH, format!("{open:?}"));
    Ok(report)
}

/// Peers join and leave; how long until each is let in, and until it no longer is.
fn come_and_go(report: &mut Report, world: &World, h1: &Member, rounds: u32) -> Result<()> {
    let let_in = |peer: &Peer, wanted: bool| {
        wait_for("the filter to follow a peer", PATIENCE, || {
            let table = filter_table(&h1.host)?.context("no table")?;
            ensure!(table.contains(&element(peer)) == wanted, "{} is not as wanted: {table:#?}", element(peer));
            Ok(())
        })
    };
    for _ in 0..rounds {
        let start = Instant::now();
        let guests = world.peers(GUESTS)?;
        guests.iter().try_for_each(|peer| let_in(peer, true))?;
        report.fault("5 peers join: let in", Some(start.elapsed()));
        let start = Instant::now();
        guests.iter().try_for_each(|peer| world.etcd.del(&peer.key()).map(drop))?;
        guests.iter().try_for_each(|peer| let_in(peer, false))?;
        report.fault("5 peers leave: shut out", Some(start.elapsed()));
    }
    Ok(())
}

/// A rogue and a peer send what they should not. Returns how many attempts there were and how many got through.
fn attack(rogue: &Rogue, h1: &Member, h2: &Member, to: &Container, rounds: u32) -> Result<(u32, u32)> {
    let (of_h1, of_h2) = (inner(h1)?, inner(h2)?);
    let resident = Ipv4Addr::new(10, 5, 130, 7);
    let by_rogue = [of_h1, of_h2, resident, rogue.host().address()].map(|source| (rogue.host(), source));
    let by_peer = [of_h1, resident].map(|source| (&h2.host, source));
    let (mut tried, mut reached) = (0, 0);
    for _ in 0..rounds {
        for (host, source) in by_rogue.iter().chain(&by_peer) {
            let Reached { udp, icmp } = forge(host, *source, to)?;
            tried += 2;
            reached += u32::from(udp) + u32::from(icmp);
        }
    }
    Ok((tried, reached))
}

/// An address of a member's subnet that no container has.
fn inner(member: &Member) -> Result<Ipv4Addr> {
    let network = member.host.subnet_env()?.subnet()?.network().to_string();
    let (front, _) = network.rsplit_once('.').context("not IPv4")?;
    Ok(format!("{front}.77").parse()?)
}

fn tamper(report: &mut Report, h1: &Member, residents: &[Peer], budget: Budget) -> Result<()> {
    let right = filter_table(&h1.host)?;
    let kinds =
        ["an element deleted", "an element added", "the rules flushed", "a rule put before ours", "the table dormant", "the table deleted"];
    let (mut of_table, mut residents) = (0, residents.iter().cycle());
    for _ in 0..budget.rounds(15) {
        for kind in kinds {
            let peer = residents.next().context("no peers")?;
            let (command, whole) = match kind {
                "an element deleted" => (format!("delete element ip loden-flannel.1 pass24 {{ {} }}", element(peer)), false),
                "an element added" => {
                    (format!("add element ip loden-flannel.1 pass24 {{ 192.168.77.66 . 10.5.{}.0 }}", peer.number), false)
                }
                "the rules flushed" => ("flush chain ip loden-flannel.1 vxlan".to_owned(), true),
                "a rule put before ours" => ("insert rule ip loden-flannel.1 input accept".to_owned(), true),
                "the table dormant" => ("add table ip loden-flannel.1 { flags dormant; }".to_owned(), true),
                _ => ("delete table ip loden-flannel.1".to_owned(), true),
            };
            if whole {
                if of_table == AT_ONCE {
                    thread::sleep(PEACE);
                    of_table = 0;
                }
                of_table += 1;
            }
            h1.host.run(&["nft", &command])?;
            let start = Instant::now();
            wait_for(&format!("the table to be right after {command}"), PATIENCE, || {
                ensure!(filter_table(&h1.host)? == right);
                Ok(())
            })?;
            report.fault(kind, Some(start.elapsed()));
        }
    }
    if budget != Budget::SHORT {
        report.gate_p99(&kinds, REPAIRED);
    }
    Ok(())
}

fn element(peer: &Peer) -> String {
    format!("{} . 10.5.{}.0", peer.address, peer.number)
}

/// What others have, as nft lists it.
fn decoys(host: &Host) -> Result<String> {
    Ok(["ip loden-decoy", "inet decoy"]
        .into_iter()
        .map(|table| {
            let words: Vec<&str> = ["nft", "--stateless", "-a", "list", "table"].into_iter().chain(table.split(' ')).collect();
            host.run(&words)
        })
        .collect::<Result<Vec<_>>>()?
        .concat())
}

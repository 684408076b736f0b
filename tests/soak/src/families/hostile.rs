//! Garbage wherever others write: the store, the subnet file, the status socket, the health port, the VTEP itself.
//!
//! Two hosts with a stream between their containers, and good peers beside. Whatever is thrown at the first host's agent,
//! it goes on: the good peers' entries are not touched, and it is as before when the garbage is gone.

mod clients;
mod file;
mod kernel;
mod store;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::world::{Member, PATIENCE, Peer, World};
use testkit::{Container, Monitor, wait_for};

use crate::{Budget, Report};

/// What the agent may grow to (kB): some ten megabytes that it has anyway, and a few of the largest values that etcd takes.
const RESIDENT_MAX: u64 = 80 * 1024;
/// Lines that may be logged in a round, beside one a second. A round makes thousands of changes, of which some hundred are
/// worth a line: configurations that are refused, peers that come and go, repairs.
const LINES: u64 = 150;
/// How much a line of the log may have on average (bytes).
const LINE: u64 = 600;
/// How much of one CPU, on average over the run.
const CPU_MAX: f64 = 0.5;

/// Who is there.
struct Stage {
    world: World,
    one: Member,
    two: Member,
    containers: [Container; 2],
    peers: Vec<Peer>,
    wanted: Vec<String>,
    /// Under which garbage packets were lost, and how many.
    losses: Vec<(String, u64)>,
}

impl Stage {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let peers = world.peers(201..=220)?;
        let (one, two) = (world.member("h1")?, world.member("h2")?);
        let containers = [one.host.container("c1")?, two.host.container("c2")?];
        let mut wanted = Vec::new();
        wait_for("all peers to be there", PATIENCE, || {
            wanted = one.entries()?;
            ensure!(wanted.len() == 3 * (peers.len() + 1), "{wanted:#?}");
            Ok(())
        })?;
        Ok(Self { world, one, two, containers, peers, wanted, losses: Vec::new() })
    }

    /// Makes garbage, takes it away, and waits until all is as before; how long the last took is reported.
    fn endure(&mut self, report: &mut Report, kind: &str, garbage: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let stream = self.containers[0].udp_stream(&self.containers[1], Duration::from_millis(1))?;
        garbage(self).with_context(|| kind.to_owned())?;
        let start = Instant::now();
        let over = wait_for("all to be as before", PATIENCE, || {
            ensure!(self.one.agent.ended()?.is_none(), "the agent has ended");
            self.one.ensure_ready()?;
            let have = self.one.entries()?;
            let extra: Vec<_> = have.iter().filter(|entry| !self.wanted.contains(entry)).collect();
            let missing: Vec<_> = self.wanted.iter().filter(|entry| !have.contains(entry)).collect();
            ensure!(extra.is_empty() && missing.is_empty(), "missing is {missing:#?}, extra is {extra:#?}");
            Ok(())
        });
        report.fault(kind, over.is_ok().then(|| start.elapsed()));
        let stream = stream.finish()?;
        report.stream(&stream);
        if stream.lost > 0 {
            self.losses.push((kind.to_owned(), stream.lost));
        }
        over.with_context(|| format!("{kind}\n{}", self.one.agent.log_tail()))
    }
}

/// Everything in turn, again and again.
pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut report = Report::default();
    let mut stage = Stage::new()?;
    let (pid, monitor) = (stage.one.agent.pid(), Monitor::start(&stage.one.host)?);
    let (begun, worked) = (Instant::now(), cpu(pid)?);
    let rounds = budget.rounds(5);
    for round in 0..rounds {
        store::endure(&mut stage, &mut report, round)?;
        file::endure(&mut stage, &mut report, round)?;
        clients::endure(&mut stage, &mut report)?;
        kernel::endure(&mut stage, &mut report)?;
    }
    let (took, worked) = (begun.elapsed().as_secs_f64(), cpu(pid)? - worked);
    let ended = [&mut stage.one, &mut stage.two].map(|member| member.agent.ended()).into_iter().collect::<Result<Vec<_>>>()?;
    report.gate("no agent ended", ended.iter().all(Option::is_none), format!("{ended:?}"));
    report.gate("no packet is lost", stage.losses.is_empty(), format!("{:?}", stage.losses));
    let touched: Vec<String> = monitor.so_far()?.into_iter().filter(|line| of_a_peer(&stage.peers, line)).collect();
    report.gate("the good peers' entries are never touched", touched.is_empty(), format!("{} changes {touched:.200?}", touched.len()));
    let peak = peak(pid)?;
    report.gate(format!("at most {RESIDENT_MAX} kB resident"), peak <= RESIDENT_MAX, format!("{peak} kB"));
    let log = stage.one.agent.log();
    let (lines, bytes) = (u64::try_from(log.lines().count())?, u64::try_from(log.len())?);
    let most = begun.elapsed().as_secs() + LINES * u64::from(rounds);
    report.gate(format!("at most a line a second is logged, and {LINES} a round"), lines <= most, format!("{lines} lines in {took:.0} s"));
    report.gate(format!("at most {LINE} bytes a line"), bytes <= lines * LINE, format!("{bytes} bytes"));
    report.gate(format!("at most {CPU_MAX} of a CPU"), worked / took <= CPU_MAX, format!("{:.2}", worked / took));
    Ok(report)
}

/// Whether a monitor's line is about an entry of one of them: FDB entry and neighbour have its MAC, the route its gateway.
fn of_a_peer(peers: &[Peer], line: &str) -> bool {
    peers.iter().any(|peer| line.contains(&peer.mac) || line.contains(&format!("10.5.{0}.0/24 via 10.5.{0}.0 ", peer.number)))
}

/// The most that the process has had in memory (kB): `VmHWM` of proc(5).
fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Seconds of CPU that the process has had: utime and stime, fields 14 and 15 of `stat` in proc(5), in hundredths.
fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").context("no command")?.1.split(' ');
    let ticks: Vec<f64> = fields.skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

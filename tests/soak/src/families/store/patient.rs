//! One agent with peers, on a store behind a proxy, and what is watched while the store is ill.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testkit::world::{Member, PATIENCE, Peer, World};
use testkit::{AgentOptions, Monitor, Proxy, cpu_time};

use crate::{Budget, Report};

/// Lines beyond one a second: what changes is told when it changes.
const LINES: usize = 12;

/// The limits of the wish list: a twentieth of a core; back in step within 5 s.
const CPU: f64 = 0.05;
const BACK: Duration = Duration::from_secs(5);

pub(super) struct Patient {
    pub(super) member: Member,
    pub(super) peers: Vec<Peer>,
    pub(super) proxy: Proxy,
    pub(super) world: World,
    next: u8,
    /// The worst of all faults: CPU, lines over the limit, return.
    cpu: (f64, &'static str),
    log: (usize, &'static str),
    back: (Duration, &'static str),
    touched: Vec<String>,
}

impl Patient {
    pub(super) fn new() -> Result<Self> {
        let world = World::new()?;
        let proxy = Proxy::on(&world.lab, &world.etcd)?;
        let peers = world.peers(201..=220)?;
        let mut member = Member::on(world.lab.host("h1")?, AgentOptions::loden_at(&proxy.endpoint())?)?;
        member.agent.wait_ready(PATIENCE)?;
        member.wait_peers(&peers)?;
        let (cpu, log, back) = ((0.0, "none"), (0, "none"), (Duration::ZERO, "none"));
        Ok(Self { member, peers, proxy, world, next: 0, cpu, log, back, touched: Vec::new() })
    }

    /// A further peer comes, or the one that came last comes with another MAC, and is waited for.
    pub(super) fn join(&mut self) -> Result<()> {
        self.next = self.next.wrapping_add(1);
        let peer = Peer::new(230).with_mac(&format!("02:00:00:00:77:{:02x}", self.next));
        self.peers.retain(|other| other.number != peer.number);
        self.peers.push(self.world.put(peer)?);
        self.member.wait_peers(&self.peers)
    }

    /// Puts all peers' records as they should be.
    pub(super) fn put_peers(&mut self) -> Result<()> {
        let writes: Vec<_> = self.peers.iter().map(|peer| (peer.key(), Some(peer.record()))).collect();
        self.world.etcd.write(&writes)
    }

    /// Makes the store ill, waits, cures it, and measures.
    pub(super) fn suffer(
        &mut self,
        report: &mut Report,
        what: &'static str,
        falls_ill: impl FnOnce(&mut Self) -> Result<()>,
        meanwhile: impl FnOnce(),
        cure: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.member.agent.wait_ready(PATIENCE)?;
        let monitor = Monitor::start(&self.member.host)?;
        let (pid, lines, start) = (self.member.agent.pid(), self.member.log_lines(&[]), Instant::now());
        let cpu = cpu_time(pid)?;
        falls_ill(self)?;
        meanwhile();
        let (took, lasted) = (cpu_time(pid)?.saturating_sub(cpu), start.elapsed());
        self.touched.extend(monitor.so_far()?.into_iter().map(|line| format!("{what}: {line}")));
        cure(self)?;
        let cured = Instant::now();
        let back = self.join().and_then(|()| self.member.agent.wait_ready(PATIENCE)).map(|()| cured.elapsed());
        report.fault(what, back.as_ref().ok().copied());
        ensure!(self.member.agent.pid() == pid && self.member.agent.ended()?.is_none(), "{what}: the agent has ended");
        let over = (self.member.log_lines(&[]) - lines).saturating_sub(usize::try_from(start.elapsed().as_secs())?);
        let share = took.as_secs_f64() / lasted.as_secs_f64();
        if share > self.cpu.0 {
            self.cpu = (share, what);
        }
        self.log = self.log.max((over, what));
        self.back = self.back.max((back.unwrap_or(PATIENCE), what));
        Ok(())
    }

    /// What has to hold over all that it suffered.
    pub(super) fn gates(&self, report: &mut Report, budget: Budget) {
        // In the short form there is little time to measure in, and the program is not optimised.
        let full = budget.rounds(100) > 2;
        let (cpu, back) = if full { (CPU, BACK) } else { (10.0 * CPU, PATIENCE) };
        report.gate("the kernel is not written while the store is ill", self.touched.is_empty(), self.touched.join("; "));
        report.gate(
            format!("CPU at most {:.0} % meanwhile", cpu * 100.0),
            self.cpu.0 <= cpu,
            format!("{:.1} % ({})", self.cpu.0 * 100.0, self.cpu.1),
        );
        report.gate(
            format!("at most a line a second, and {LINES}"),
            self.log.0 <= LINES,
            format!("{} more than seconds ({})", self.log.0, self.log.1),
        );
        report.gate(
            format!("in step {back:?} after the store is back"),
            self.back.0 <= back,
            format!("{:.2?} ({})", self.back.0, self.back.1),
        );
    }
}

//! All figures of one size, taken one after the other on one host.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use testkit::{Lab, LabOptions, Table};

use crate::live::{self, Puts, Spread};
use crate::process::{self, Memory, Use};
use crate::raw::{self, Routes};
use crate::start::{self, Start};
use crate::store::Store;

/// Above this, plain routes are not put: the kernel would take the better part of a minute.
const PLAIN_UP_TO: u32 = 20_000;
/// Before the idle time is measured: what a burst of work leaves behind is over.
const SETTLE: Duration = Duration::from_secs(3);

/// What is to be measured.
pub(crate) struct Plan {
    pub(crate) leases: u32,
    pub(crate) idle: Duration,
    pub(crate) samples: u32,
    pub(crate) starts: usize,
    /// Whether the agent's log is shown.
    pub(crate) logs: bool,
}

/// What was measured.
pub(crate) struct Figures {
    pub(crate) leases: u32,
    pub(crate) starts: Vec<Start>,
    pub(crate) adopt: Duration,
    pub(crate) list: Duration,
    pub(crate) raw: Duration,
    pub(crate) raw_plain: Option<Duration>,
    pub(crate) puts: Puts,
    pub(crate) heals: [Spread; 3],
    /// After the start, and after all the other work.
    pub(crate) memory: [Memory; 2],
    pub(crate) idle: Use,
    pub(crate) idle_for: Duration,
}

impl Figures {
    /// Measures; `say` is told what comes next.
    pub(crate) fn measure(plan: &Plan, say: &dyn Fn(&str)) -> Result<Self> {
        let Plan { leases, idle, samples, starts, logs } = *plan;
        say("putting them into etcd");
        let lab = Lab::with(LabOptions { show_logs: logs, ..LabOptions::default() })?;
        let etcd = lab.etcd()?;
        // The client's sockets are made on this thread, and are to be on the switch, where etcd is.
        let entered = lab.switch().enter()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut store = runtime.block_on(Store::filled(etcd.endpoint(), leases))?;

        say("raw netlink");
        let raw = raw::put(leases, Routes::DistinctMetrics)?;
        let raw_plain = (leases <= PLAIN_UP_TO).then(|| raw::put(leases, Routes::Plain)).transpose()?;
        let list = runtime.block_on(store.list())?;

        say("starts");
        let host = lab.host("h1")?;
        let (mut agent, mut starts) = start::measure(&host, &etcd, leases, starts)?;
        starts.sort_by_key(|start| start.all);
        let after_start = process::memory(agent.pid())?;
        say("further leases");
        let puts = runtime.block_on(live::puts(&mut store, &host, samples))?;
        say("deleted entries");
        let samples = usize::try_from(samples)?;
        let heals = [
            live::heals(&host, Table::Route, samples)?,
            live::heals(&host, Table::Neighbour, samples)?,
            live::heals(&host, Table::Fdb, samples)?,
        ];
        say("idling");
        thread::sleep(SETTLE);
        let before = process::used(agent.pid())?;
        thread::sleep(idle);
        let after = process::used(agent.pid())?;
        let memory = [after_start, process::memory(agent.pid())?];
        say("killed and restarted");
        let adopt = start::adopt(&mut agent)?;
        // Whatever was connected from here is closed before the way back.
        drop((store, runtime, entered));
        Ok(Self {
            leases,
            starts,
            adopt,
            list,
            raw,
            raw_plain,
            puts,
            heals,
            memory,
            idle: Use { cpu: after.cpu.saturating_sub(before.cpu), wakeups: after.wakeups.saturating_sub(before.wakeups) },
            idle_for: idle,
        })
    }

    /// The median start.
    pub(crate) fn start(&self) -> Start {
        self.starts.get(self.starts.len() / 2).copied().unwrap_or(Start { all: Duration::ZERO, cpu: Duration::ZERO })
    }

    /// The part of one CPU that the idle agent used, in per cent.
    pub(crate) fn idle_percent(&self) -> f64 {
        100.0 * self.idle.cpu.as_secs_f64() / self.idle_for.as_secs_f64()
    }
}

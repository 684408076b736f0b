//! From the start of the process to the last entry in the kernel.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use testkit::{Agent, AgentOptions, Etcd, Host, KernelEntry, Table, Watch};

use crate::fleet;
use crate::process;
use crate::rtnl::Rtnl;

/// The VTEP: `flannel.` and the VNI, 1 by default.
pub(crate) const VTEP: &str = "flannel.1";
/// Far more than any of it may take, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two questions to the kernel: short against what is measured, long against what a question costs.
const POLL: Duration = Duration::from_micros(500);
/// Every so many routes one is asked for while the agent works; that all are there is proved by a dump at the end.
const STRIDE: usize = 16;

/// One start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// Until all entries were in the kernel.
    pub(crate) all: Duration,
    /// The CPU that the agent had used by then.
    pub(crate) cpu: Duration,
}

/// Starts the agent for the first time, and so many times again as after a boot: nothing in the kernel, no subnet file.
pub(crate) fn measure(host: &Host, etcd: &Etcd, count: u32, runs: usize) -> Result<(Agent, Vec<Start>)> {
    let mut rtnl = Rtnl::open(host)?;
    let started = Instant::now();
    let mut agent = host.agent(AgentOptions::loden(etcd)?)?;
    let mut starts = vec![wait_all(host, &mut agent, &mut rtnl, count, started)?];
    for _ in 1..runs {
        agent.kill9()?;
        host.ip_batch(&format!("link del {VTEP}\n"))?;
        host.run(&["rm", "/run/flannel/subnet.env"])?;
        let started = Instant::now();
        agent.restart()?;
        starts.push(wait_all(host, &mut agent, &mut rtnl, count, started)?);
    }
    Ok((agent, starts))
}

/// Kills the agent and starts it again with all entries in place: how long until it says that it is ready.
pub(crate) fn adopt(agent: &mut Agent) -> Result<Duration> {
    let watch = Watch::new(agent.host())?;
    agent.kill9()?;
    let started = Instant::now();
    agent.restart()?;
    agent.wait_ready(PATIENCE)?;
    let took = started.elapsed();
    let written = watch.changes(Duration::ZERO)?;
    ensure!(written.is_empty(), "the restarted agent wrote what was there already: {written:?}");
    Ok(took)
}

/// Waits until the kernel holds an entry of each kind for each host, and then until the agent is ready.
pub(crate) fn wait_all(host: &Host, agent: &mut Agent, rtnl: &mut Rtnl, count: u32, started: Instant) -> Result<Start> {
    let start = wait_programmed(host, agent, rtnl, count, started)?;
    agent.wait_ready(PATIENCE)?;
    Ok(start)
}

/// The same, of an agent that does not say when it is ready.
pub(crate) fn wait_programmed(host: &Host, agent: &mut Agent, rtnl: &mut Rtnl, count: u32, started: Instant) -> Result<Start> {
    let samples = fleet::peers(count).step_by(STRIDE).chain(count.checked_sub(1).map(fleet::peer));
    for sample in samples {
        while !rtnl.has_route(sample.subnet)? {
            give_up_on(agent, started)?;
            thread::sleep(POLL);
        }
    }
    loop {
        let start = Start { all: started.elapsed(), cpu: process::used(agent.pid())?.cpu };
        if whole(host, count)? {
            return Ok(start);
        }
        give_up_on(agent, started)?;
    }
}

fn give_up_on(agent: &mut Agent, started: Instant) -> Result<()> {
    if let Some(how) = agent.ended()? {
        bail!("the agent has ended: {how}; the tail of its log:\n{}", agent.log_tail());
    }
    ensure!(started.elapsed() < PATIENCE, "not all entries were there after {PATIENCE:?}; the tail of its log:\n{}", agent.log_tail());
    Ok(())
}

/// Whether the kernel's own tables hold an entry of each kind for each host.
fn whole(host: &Host, count: u32) -> Result<bool> {
    let count = usize::try_from(count)?;
    for table in [Table::Route, Table::Neighbour, Table::Fdb] {
        if KernelEntry::list(host, table, VTEP)?.len() < count {
            return Ok(false);
        }
    }
    Ok(true)
}

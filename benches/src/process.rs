//! What the kernel says of a process: memory, CPU, how often it woke up.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU that a process has used, and how often it went to sleep and so was woken.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Use {
    pub(crate) cpu: Duration,
    pub(crate) wakeups: u64,
}

/// Resident memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) now_kib: u64,
    /// What of it is the program's and the libraries' files.
    pub(crate) file_kib: u64,
    /// At its highest.
    pub(crate) peak_kib: u64,
}

/// The sum over the threads that there are now.
pub(crate) fn used(pid: u32) -> Result<Use> {
    let mut sum = Use::default();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // Nanoseconds on a CPU, nanoseconds waiting for one, time slices (Documentation/scheduler/sched-stats.rst).
        let schedstat = fs::read_to_string(task.join("schedstat"))?;
        let nanos = schedstat.split(' ').next().context("schedstat is empty")?;
        sum.cpu += Duration::from_nanos(nanos.parse()?);
        sum.wakeups += field(&fs::read_to_string(task.join("status"))?, "voluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(Memory { now_kib: field(&status, "VmRSS:")?, file_kib: field(&status, "RssFile:")?, peak_kib: field(&status, "VmHWM:")? })
}

/// The number after this name in a file such as `/proc/PID/status`.
fn field(text: &str, name: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in /proc"))?;
    let digits = value.split_whitespace().next().with_context(|| format!("{name} has no value"))?;
    digits.parse().with_context(|| format!("{name} is {digits:?}"))
}

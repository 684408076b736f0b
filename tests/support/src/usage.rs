//! What a process has used.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Clock ticks a second in /proc (proc(5); `USER_HZ` is 100 on every architecture that Linux runs on today).
const TICKS_A_SECOND: u64 = 100;

/// The CPU time that a process and its threads have used, user and system.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
    // The second field is the program's name in brackets, with whatever is in it; utime and stime are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let mut ticks = 0;
    for field in fields.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u64>()?;
    }
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_A_SECOND))
}

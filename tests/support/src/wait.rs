//! Waiting for a condition, with a deadline, and saying what was seen when it never came.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How often the condition is asked: short against what a test waits for, long against what asking costs.
const POLL: Duration = Duration::from_millis(2);

/// Asks `condition` until it returns `Ok`, and returns that; at least once, for at most `deadline`.
///
/// The condition's `Err` is what is still amiss: `anyhow::ensure!(routes == 2, "{routes} routes")`.
///
/// # Errors
/// After the deadline: names `what` was awaited and the last thing that was amiss.
pub fn wait_for<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(amiss) if start.elapsed() >= deadline => {
                return Err(anyhow!("waited {deadline:?} in vain for {what}; the last seen: {amiss:#}"));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

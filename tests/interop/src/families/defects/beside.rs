//! The same fault on a host with flanneld and on one with loden.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use testkit::trial::Report;
use testkit::wait_for;

use crate::Agents;
use crate::peer::Which;

/// How long flanneld is watched for a repair that does not come, and loden has for one that must.
const WATCHED: Duration = Duration::from_secs(3);

/// What an agent did: whether that is right, and what it was.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) right: bool,
    pub(crate) text: String,
}

impl Outcome {
    pub(crate) fn new(right: bool, text: impl fmt::Display) -> Self {
        Self { right, text: text.to_string() }
    }
}

/// Tries it with either agent. What is wanted of loden is a gate.
pub(crate) fn beside(
    agents: &Agents,
    report: &mut Report,
    (fault, wanted): (&str, &str),
    trial: impl Fn(&Agents, Which) -> Result<Outcome>,
) -> Result<()> {
    let flanneld = trial(agents, Which::Flanneld)?;
    let loden = trial(agents, Which::Loden)?;
    report.compare(fault, mark(&flanneld), mark(&loden));
    report.gate(format!("{fault}: {wanted}"), loden.right, loden.text);
    Ok(())
}

fn mark(outcome: &Outcome) -> String {
    format!("{}: {}", if outcome.right { "right" } else { "WRONG" }, outcome.text)
}

/// Whether the condition comes true while one watches, and when; else what was amiss at the end.
pub(crate) fn soon(what: &str, condition: impl FnMut() -> Result<()>) -> Outcome {
    within(WATCHED, what, condition)
}

/// The same, watched for so long.
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> Result<()>) -> Outcome {
    let start = Instant::now();
    let mut amiss = String::new();
    let came = wait_for(what, limit, || condition().inspect_err(|error| amiss = format!("{error:#}")));
    match came {
        Ok(()) => Outcome::new(true, format!("{what} after {:.0?}", start.elapsed())),
        Err(_) => Outcome::new(false, format!("not within {limit:?}: {amiss}")),
    }
}

//! The commands besides the agent: what they do is done once, and said.

mod cleanup;
mod filters;
mod handover;
mod plan;
mod release;

use std::future::Future;

use anyhow::{Context, bail};

use crate::cli::Options;
use crate::status::{self, AskError};

pub use cleanup::cleanup;
pub use handover::{HandedOver, handover};
pub use plan::plan;
pub use release::release;

/// Runs a command's work to its end.
fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?.block_on(work)
}

/// Refuses while an agent runs with this subnet file: it would undo at once what the command does.
fn refuse_beside_an_agent(options: &Options) -> anyhow::Result<()> {
    match status::ask(&options.subnet_file) {
        Err(AskError::NotRunning { .. }) => Ok(()),
        Err(other) => Err(other.into()),
        Ok(report) => {
            let pid = serde_json::from_str::<serde_json::Value>(&report).ok().and_then(|report| report.get("pid")?.as_u64());
            let process = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            bail!("an agent is running here{process} and would undo this: stop it first")
        }
    }
}

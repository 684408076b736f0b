//! The commands besides the agent: what they do is done once, and said.

mod cleanup;
mod filters;
mod handover;
mod install_cni;
mod plan;
mod release;
mod vteps;

use std::future::Future;
use std::process::ExitCode;

use anyhow::{Context, bail};
use lease::{LeaseStore, NetworkConfig, Subnet};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::Store;
use crate::cli::Options;
use crate::status::{self, AskError};
use crate::subnet_env::Remembered;

pub use cleanup::cleanup;
pub use handover::{HandedOver, handover};
pub use install_cni::install_cni;
pub use plan::plan;
pub use release::release;

/// Runs a command's work to its end.
fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?.block_on(work)
}

/// Waits for the signal to end.
#[must_use]
pub fn await_end() -> ExitCode {
    let ended = run(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        Ok(())
    });
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

/// The overlay networks: as the subnet file has them, which flanneld writes too; without one, as the store has them.
async fn networks(options: &Options) -> anyhow::Result<Vec<Subnet>> {
    let Remembered { network, ipv6_network, .. } = Remembered::read(&options.subnet_file);
    let known: Vec<Subnet> = [network, ipv6_network].into_iter().flatten().collect();
    if !known.is_empty() {
        return Ok(known);
    }
    let store = Store::of(&options.store)?;
    let text = store.config().await.context("there is no subnet file, and the store does not answer")?;
    let config: NetworkConfig =
        text.with_context(|| format!("there is no subnet file, and nothing under {}", store.config_key()))?.parse()?;
    Ok(config.networks().collect())
}

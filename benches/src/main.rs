//! What `docs/performance.md` reports, measured: `make bench`. It runs in `tests/support/sandbox`.
//!
//! All figures of a size are taken in one run on one machine, the limit beside what it limits. The agent is looked at from
//! outside: entries in the kernel's tables and notifications, CPU and memory in `/proc`.

mod figures;
mod fleet;
mod kube;
mod live;
mod notrack;
mod process;
mod raw;
mod rtnl;
mod start;
mod store;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use crate::figures::Figures;

/// Measures the agent.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// How many made-up leases, each at most 50 000
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 5_000, 20_000, 50_000], value_parser = clap::value_parser!(u32).range(1..=50_000))]
    sizes: Vec<u32>,
    /// How long the idle agent is watched
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Samples of each latency
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    samples: u32,
    /// Starts; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    starts: u8,
    /// Show the end of the agent's log too, for its timestamps
    #[arg(long)]
    logs: bool,
    /// Nothing but what --notrack gains: so many turns with it and without
    #[arg(long, value_name = "TURNS")]
    notrack: Option<usize>,
    /// Nothing but so many Nodes of a Kubernetes cluster, beside the flanneld of $FLANNELD_BIN where that is set
    #[arg(long, value_name = "NODES", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=50_000))]
    kube: Vec<u32>,
    /// 1 000 leases and ten idle seconds: whether it works at all
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut options: Options) -> Result<()> {
    if options.quick {
        (options.sizes, options.idle_seconds) = (vec![1_000], 10);
    }
    println!("{}", table::machine()?);
    if let Some(turns) = options.notrack {
        println!("\n{}", notrack::measure(turns)?);
        return Ok(());
    }
    if !options.kube.is_empty() {
        return kube::report(&options.kube, options.samples, options.logs);
    }
    let mut all = Vec::new();
    for size in &options.sizes {
        let plan = figures::Plan {
            leases: *size,
            idle: Duration::from_secs(options.idle_seconds),
            samples: options.samples,
            starts: usize::from(options.starts),
            logs: options.logs,
        };
        all.push(Figures::measure(&plan, &|what| println!("{size} leases: {what}"))?);
    }
    println!("\n{}", table::render(&all));
    Ok(())
}

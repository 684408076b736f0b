//! `loden cleanup --handover`: for going back to flanneld, while that runs. Takes away what is ours and flanneld does not manage, each
//! thing once flanneld's own is in its place, so that no packet is lost. Device, FDB and neighbour entries stay: flanneld has adopted them.

use std::fmt::Write;
use std::time::Duration;

use lease::Subnet;
use overlay::Leftover;
use tokio::time::{Instant, sleep};

use super::cleanup::{give_back_devices, our_filters, remove};
use super::{filters, networks};
use crate::agent::take_network;
use crate::cli::Options;
use crate::status;

/// Between two looks while flanneld is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// What was done, and whether something had to stay.
#[derive(Debug)]
pub struct HandedOver {
    /// A line each.
    pub text: String,
    /// Whether nothing of ours is left that flanneld does not manage.
    pub complete: bool,
}

/// Hands the network over, waiting for flanneld's part up to this time.
///
/// # Errors
/// While an agent runs here; when it cannot be told which network it is; when the kernel refuses.
pub fn handover(options: &Options, wait: Duration) -> anyhow::Result<HandedOver> {
    super::refuse_beside_an_agent(options)?;
    super::run(async {
        let _network = take_network(&options.store)?;
        let mut text = String::new();
        let until = Instant::now() + wait;
        let networks = networks(options).await?;
        let filters = our_filters(options).await?;
        let (left, filtered) = loop {
            let (left, filtered) = (take_away(&networks, &mut text).await?, filters::replaced(&filters, &networks).await?);
            if left.is_empty() && filtered || Instant::now() >= until {
                break (left, filtered);
            }
            sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
        };
        if filtered {
            filters::remove(&filters, &mut text).await?;
        }
        give_back_devices(options, &mut text).await?;
        for path in [Some(status::socket_path(&options.subnet_file)), options.state_file.clone()].into_iter().flatten() {
            remove(&path, &mut text)?;
        }
        for Leftover { command, waits_for, .. } in &left {
            writeln!(text, "# left, as {}: {command}", waits_for.as_deref().unwrap_or_default())?;
        }
        if !filtered {
            writeln!(text, "# left, as flanneld has no rules of its own yet: the packet filter")?;
        }
        let complete = left.is_empty() && filtered;
        if !complete {
            writeln!(text, "# run this again once flanneld has put its own, or with --wait SECONDS")?;
        }
        if text.is_empty() {
            text.push_str("# nothing of ours is here that flanneld does not manage\n");
        }
        Ok(HandedOver { text, complete })
    })
}

/// Removes what can go now; returns what has to wait.
async fn take_away(networks: &[Subnet], text: &mut String) -> anyhow::Result<Vec<Leftover>> {
    let mut left = Vec::new();
    for network in networks {
        for leftover in overlay::leftovers(*network).await? {
            if leftover.waits_for.is_some() {
                left.push(leftover);
                continue;
            }
            leftover.remove().await?;
            writeln!(text, "{}", leftover.command)?;
        }
    }
    Ok(left)
}

//! `loden release`: gives this host's lease back, so that another host can take the subnet.

use lease::claim;
use lease::{Family, LeaseKey, LeaseStore};

use crate::agent::{Usable, find_place, store_of, take_network, usable};
use crate::cli::Options;

/// Gives back every lease with this host's identity and returns their keys. What is in the kernel stays; reservations too.
///
/// # Errors
/// While an agent runs here; when the underlay or the store cannot be had.
pub fn release(options: &Options) -> anyhow::Result<Vec<LeaseKey>> {
    super::refuse_beside_an_agent(options)?;
    super::run(async {
        let _network = take_network(&options.etcd)?;
        let store = store_of(&options.etcd)?;
        let text = store.config().await?;
        // A network that is configured no more can still be left.
        let families = usable(text.as_deref(), &store.config_key()).map(|Usable { config, .. }| config.families().collect());
        let place = find_place(&options.interface, &families.unwrap_or_else(|_| vec![Family::V4])).await?;
        Ok(claim::release(&store, place.owner).await?)
    })
}

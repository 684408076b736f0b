//! `loden release`: gives this host's lease back, so that another host can take the subnet.

use lease::LeaseKey;
use lease::claim;

use crate::agent::{find_place, store_of};
use crate::cli::Options;

/// Gives back every lease with this host's identity and returns their keys. What is in the kernel stays; reservations too.
///
/// # Errors
/// While an agent runs here; when the underlay or the store cannot be had.
pub fn release(options: &Options) -> anyhow::Result<Vec<LeaseKey>> {
    super::refuse_beside_an_agent(options)?;
    super::run(async {
        let place = find_place(&options.interface).await?;
        let store = store_of(&options.etcd)?;
        Ok(claim::release(&store, place.owner).await?)
    })
}

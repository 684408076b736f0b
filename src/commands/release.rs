//! `loden release`: gives this host's lease back, so that another host can take the subnet.

use anyhow::bail;
use lease::claim;
use lease::{Family, LeaseKey, LeaseStore};

use crate::agent::{Store, Usable, find_place, take_network, usable};
use crate::cli::{Options, StoreOptions};

/// Gives back every lease with this host's identity and returns their keys. What is in the kernel stays; reservations too.
///
/// # Errors
/// In Kubernetes, where there is nothing to give back; while an agent runs here; when the underlay or the store cannot be had.
pub fn release(options: &Options) -> anyhow::Result<Vec<LeaseKey>> {
    if let StoreOptions::Kube(kube) = &options.store {
        bail!(
            "the subnet is the podCIDR of Node {}, which Kubernetes gave it: there is nothing to give back. When the Node is deleted, the \
             other hosts forget it; `loden cleanup` removes what is on this host",
            kube.node()
        );
    }
    super::refuse_beside_an_agent(options)?;
    super::run(async {
        let _network = take_network(&options.store)?;
        let store = Store::of(&options.store)?;
        let text = store.config().await?;
        // A network that is configured no more can still be left.
        let families = usable(text.as_deref(), &store.config_key()).map(|Usable { config, .. }| config.families().collect());
        let place = find_place(options, &families.unwrap_or_else(|_| vec![Family::V4])).await?;
        Ok(claim::release(&store, place.owner).await?)
    })
}

//! What the agent reads from the store besides the leases: the network configuration, followed across sessions.

use lease::store::ConfigText;
use lease::{LeaseStore, NetworkConfig};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::store::Store;

/// The configuration's text as the store has it; the outer none while the store has not said anything.
pub(crate) type ConfigFeed = watch::Receiver<Option<ConfigText>>;

/// Where the network configuration is, and how it is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigKey {
    /// etcd's key, or the file.
    pub(crate) name: String,
    /// Whether hosts are given their subnets, so that it does not say which to choose from.
    pub(crate) assigned: bool,
}

impl std::fmt::Display for ConfigKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.name)
    }
}

/// Follows the configuration until the tasks are dropped.
pub(crate) fn follow_config(store: Store, tasks: &mut JoinSet<()>) -> ConfigFeed {
    let (texts, mut arriving) = mpsc::channel(1);
    let (say, feed) = watch::channel(None);
    tasks.spawn(async move { store.watch_config(texts).await });
    tasks.spawn(async move {
        while let Some(text) = arriving.recv().await {
            say.send_replace(Some(text));
        }
    });
    feed
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error(
        "network configuration missing: put one under {key}, such as {{\"Network\":\"10.5.0.0/16\",\"Backend\":{{\"Type\":\"vxlan\"}}}}"
    )]
    Missing { key: String },
    #[error("network configuration under {key} unusable: {reason}")]
    Invalid { key: String, reason: String },
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub(crate) struct Usable {
    pub(crate) config: NetworkConfig,
    /// As the store has it.
    pub(crate) text: String,
}

/// What a configuration's text comes to.
pub(crate) fn usable(text: Option<&str>, key: &ConfigKey) -> Result<Usable, Unusable> {
    let ConfigKey { name, assigned } = key;
    let Some(text) = text else { return Err(Unusable::Missing { key: name.clone() }) };
    match text.parse::<NetworkConfig>() {
        Ok(config) if *assigned => Ok(Usable { config: config.for_assigned(), text: text.to_owned() }),
        Ok(config) => Ok(Usable { config, text: text.to_owned() }),
        Err(error) => Err(Unusable::Invalid { key: name.clone(), reason: format!("{error}") }),
    }
}

/// The next configuration that can be used. Says once what is the matter with one that cannot.
pub(crate) async fn next_usable(feed: &mut ConfigFeed, key: &ConfigKey, mut say: impl FnMut(&Unusable)) -> Option<Usable> {
    let mut said = None;
    loop {
        let text = feed.borrow_and_update().clone();
        if let Some(text) = text {
            match usable(text.as_deref(), key) {
                Ok(usable) => return Some(usable),
                Err(unusable) if said.as_ref() != Some(&unusable) => {
                    say(&unusable);
                    said = Some(unusable);
                }
                Err(_) => {}
            }
        }
        feed.changed().await.ok()?;
    }
}

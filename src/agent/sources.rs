//! What the agent reads from the store besides the leases: the network configuration, followed across sessions.

use lease::store::ConfigText;
use lease::store::etcd::{self, EtcdStore};
use lease::{LeaseStore, NetworkConfig};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::cli::{EtcdOptions, PasswordSource};

/// The configuration's text as the store has it; the outer none while the store has not said anything.
pub(crate) type ConfigFeed = watch::Receiver<Option<ConfigText>>;

/// The store that the options name. Nothing is connected yet.
///
/// # Errors
/// A file that cannot be used, by its name.
pub(crate) fn store_of(options: &EtcdOptions) -> anyhow::Result<EtcdStore> {
    let EtcdOptions { endpoints, prefix, ca_file, identity, credentials } = options.clone();
    let (cert_file, key_file) = identity.map(|identity| (identity.cert_file, identity.key_file)).unzip();
    let (username, password) = match credentials {
        Some(credentials) => {
            // Looked at here, so that a mistake is named by its flag; the store reads the file again for every login.
            let password = credentials.password.read()?;
            let password = match &credentials.password {
                PasswordSource::Given(_) => etcd::Secret::new(password.reveal().to_owned()),
                PasswordSource::File(path) => etcd::Secret::from_file(path)?,
            };
            (Some(credentials.username), Some(password))
        }
        None => (None, None),
    };
    let endpoints = endpoints.iter().map(ToString::to_string).collect();
    Ok(EtcdStore::new(etcd::EtcdOptions {
        endpoints,
        prefix: prefix.as_str().to_owned(),
        ca_file,
        cert_file,
        key_file,
        username,
        password,
    })?)
}

/// Follows the configuration until the tasks are dropped.
pub(crate) fn follow_config(store: EtcdStore, tasks: &mut JoinSet<()>) -> ConfigFeed {
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
pub(crate) fn usable(text: Option<&str>, key: &str) -> Result<Usable, Unusable> {
    let key = key.to_owned();
    let Some(text) = text else { return Err(Unusable::Missing { key }) };
    let config: NetworkConfig = match text.parse() {
        Ok(config) => config,
        Err(error) => return Err(Unusable::Invalid { key, reason: format!("{error}") }),
    };
    Ok(Usable { config, text: text.to_owned() })
}

/// The next configuration that can be used. Says once what is the matter with one that cannot.
pub(crate) async fn next_usable(feed: &mut ConfigFeed, key: &str, mut say: impl FnMut(&Unusable)) -> Option<Usable> {
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

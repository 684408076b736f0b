//! The store in Kubernetes: a host's lease is its Node's podCIDRs and flannel's annotations on it.

mod notes;
mod options;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

pub use self::notes::{EventKind, NodeEvent};
pub use self::options::{KubeOptions, NodeRef};

use super::{Assigned, ConfigText, Health, LeaseStore, RenewError, Snapshot, StoreError, WriteError};
use crate::{Entry, Event, LeaseKey, LeaseRecord};

/// The Node store. Clones share the connection.
#[derive(Debug, Clone)]
pub struct KubeStore {
    options: Arc<KubeOptions>,
    health: watch::Sender<Health>,
}

/// What a person says of the own Node's addresses, by annotations that we never write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnAddresses {
    /// `node-public-ip`: what `--public-ip` is to be.
    pub ip: Option<Ipv4Addr>,
    /// `node-public-ipv6`: what `--public-ipv6` is to be.
    pub ipv6: Option<Ipv6Addr>,
    /// `public-ip-overwrite`: what the others are told in place of our IPv4 address.
    pub overwrite_ip: Option<Ipv4Addr>,
    /// `public-ipv6-overwrite`: what the others are told in place of our IPv6 address.
    pub overwrite_ipv6: Option<Ipv6Addr>,
}

fn not_yet<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("the Node store is not built yet".to_owned()))
}

impl KubeStore {
    /// The store that the options describe. Nothing is connected yet: an API server that is down is no error here.
    ///
    /// # Errors
    /// [`StoreError`] naming the option or the file.
    pub fn new(options: KubeOptions) -> Result<Self, StoreError> {
        Ok(Self { options: Arc::new(options), health: watch::Sender::new(Health::Unknown) })
    }

    /// Where the network configuration is.
    #[must_use]
    pub fn config_key(&self) -> String {
        self.options.net_config.display().to_string()
    }

    /// Opens a new connection for what is asked next.
    pub fn reconnect(&self) {}

    /// What the own Node's annotations say of its addresses.
    ///
    /// # Errors
    /// [`StoreError`]; one that names the annotation where it is no address.
    pub async fn own_addresses(&self) -> Result<OwnAddresses, StoreError> {
        not_yet()
    }

    /// Says that pods on the own Node have a network: the condition `NetworkUnavailable=False`. Nothing is written where it stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_network_available(&self) -> Result<(), StoreError> {
        not_yet()
    }

    /// Puts an Event on the own Node, unless the same one was put a short time ago.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note(&self, _event: NodeEvent) -> Result<(), StoreError> {
        not_yet()
    }
}

impl LeaseStore for KubeStore {
    async fn config(&self) -> Result<ConfigText, StoreError> {
        not_yet()
    }

    async fn assigned(&self) -> Result<Assigned, StoreError> {
        not_yet()
    }

    async fn get(&self, _key: LeaseKey) -> Result<Option<Entry>, StoreError> {
        not_yet()
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        not_yet()
    }

    async fn create(&self, _key: LeaseKey, _record: &LeaseRecord, _ttl: Duration) -> Result<Entry, WriteError> {
        Ok(not_yet()?)
    }

    async fn replace(&self, _seen: &Entry, _record: &LeaseRecord) -> Result<Entry, WriteError> {
        Ok(not_yet()?)
    }

    async fn keep_alive(&self, _lease: i64) -> Result<Duration, RenewError> {
        Err(RenewError::Lost)
    }

    async fn delete(&self, _seen: &Entry) -> Result<(), WriteError> {
        Ok(not_yet()?)
    }

    async fn watch(&self, events: mpsc::Sender<Vec<Event>>) {
        events.closed().await;
    }

    async fn watch_config(&self, texts: mpsc::Sender<ConfigText>) {
        texts.closed().await;
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }
}

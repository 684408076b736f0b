//! The store that the options name: etcd or Kubernetes, as one type for the whole agent.

use std::time::Duration;

use lease::store::etcd::{self, EtcdStore};
use lease::store::kube::{KubeStore, OwnAddresses};
use lease::store::{ConfigText, Health, RenewError, Snapshot, StoreError, WriteError};
use lease::{Assigned, Entry, Event, LeaseKey, LeaseRecord, LeaseStore};
use tokio::sync::{mpsc, watch};

use super::sources::ConfigKey;
use crate::cli::{EtcdOptions, PasswordSource, StoreOptions};

/// Either of the two. Clones share the connection.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    Etcd(EtcdStore),
    Kube(KubeStore),
}

/// Does the same with whichever it is.
macro_rules! either {
    ($store:expr, $one:ident => $what:expr) => {
        match $store {
            Store::Etcd($one) => $what,
            Store::Kube($one) => $what,
        }
    };
}

impl Store {
    /// The store that the options name. Nothing is connected yet.
    ///
    /// # Errors
    /// A file that cannot be used, by its name.
    pub(crate) fn of(options: &StoreOptions) -> anyhow::Result<Self> {
        Ok(match options {
            StoreOptions::Etcd(options) => Self::Etcd(etcd_of(options)?),
            StoreOptions::Kube(options) => Self::Kube(KubeStore::new(options.reach.clone())?),
        })
    }

    /// Where the network configuration is, and how it is to be read.
    pub(crate) fn config_key(&self) -> ConfigKey {
        ConfigKey { name: either!(self, store => store.config_key()), assigned: matches!(self, Self::Kube(_)) }
    }

    /// Opens a new connection for what is asked next: the way to the store may have changed.
    pub(crate) fn reconnect(&self) {
        either!(self, store => store.reconnect());
    }

    /// What the store says of this host's own addresses: with etcd nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn own_addresses(&self) -> Result<OwnAddresses, StoreError> {
        match self {
            Self::Etcd(_) => Ok(OwnAddresses::default()),
            Self::Kube(store) => store.own_addresses().await,
        }
    }
}

fn etcd_of(options: &EtcdOptions) -> anyhow::Result<EtcdStore> {
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

impl LeaseStore for Store {
    async fn config(&self) -> Result<ConfigText, StoreError> {
        either!(self, store => store.config().await)
    }

    async fn assigned(&self) -> Result<Assigned, StoreError> {
        either!(self, store => store.assigned().await)
    }

    async fn get(&self, key: LeaseKey) -> Result<Option<Entry>, StoreError> {
        either!(self, store => store.get(key).await)
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        either!(self, store => store.list().await)
    }

    async fn create(&self, key: LeaseKey, record: &LeaseRecord, ttl: Duration) -> Result<Entry, WriteError> {
        either!(self, store => store.create(key, record, ttl).await)
    }

    async fn replace(&self, seen: &Entry, record: &LeaseRecord) -> Result<Entry, WriteError> {
        either!(self, store => store.replace(seen, record).await)
    }

    async fn keep_alive(&self, lease: i64) -> Result<Duration, RenewError> {
        either!(self, store => store.keep_alive(lease).await)
    }

    async fn delete(&self, seen: &Entry) -> Result<(), WriteError> {
        either!(self, store => store.delete(seen).await)
    }

    async fn watch(&self, events: mpsc::Sender<Vec<Event>>) {
        either!(self, store => store.watch(events).await);
    }

    async fn watch_config(&self, texts: mpsc::Sender<ConfigText>) {
        either!(self, store => store.watch_config(texts).await);
    }

    fn health(&self) -> watch::Receiver<Health> {
        either!(self, store => store.health())
    }
}

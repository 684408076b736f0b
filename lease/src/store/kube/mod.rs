//! The store in Kubernetes: a host's lease is its Node's podCIDRs, and flannel's annotations on it.
//!
//! Whoever may give a Node its podCIDRs gives the lease, and it lasts as long as the Node: there is nothing to renew. A host
//! writes to no Node but its own, and there to nothing but the annotations that are flannel's, and one condition. The
//! network configuration is a file.

mod access;
mod annotations;
mod ask;
mod condition;
mod connection;
mod failure;
mod feed;
mod net_conf;
mod node;
mod notes;
mod options;
mod own;
mod reading;
mod roster;
mod write;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::debug;

pub use self::notes::{EventKind, NodeEvent};
pub use self::options::{KubeOptions, NodeRef};
pub use self::reading::{annotated, reread};

use self::annotations::Names;
use self::connection::Connection;
use self::feed::{Feed, Sink};
use self::notes::Told;
use self::own::Own;
use super::{Assigned, ConfigText, Health, LeaseStore, RenewError, Snapshot, StoreError, WriteError};
use crate::{Entry, Event, LeaseKey, LeaseRecord};

/// How often it is asked again which Node is ours, while that cannot be had.
const NAME_PAUSE: Duration = Duration::from_secs(3);

/// Room for what is to be told on our own Node.
const NOTES: usize = 16;

/// The Node store. Clones share the connection.
#[derive(Debug, Clone)]
pub struct KubeStore {
    connection: Arc<Connection>,
    own: Arc<Own>,
    told: Arc<Told>,
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

impl KubeStore {
    /// The store that the options describe. Nothing is connected yet: an API server that is down is no error here.
    ///
    /// # Errors
    /// [`StoreError::Denied`] naming the option or the file.
    pub fn new(options: KubeOptions) -> Result<Self, StoreError> {
        access::check(&options)?;
        let own = Own::new(Names::new(&options.annotation_prefix)?, &options.node);
        Ok(Self { connection: Arc::new(Connection::new(options)), own: Arc::new(own), told: Arc::default() })
    }

    /// Where the network configuration is.
    #[must_use]
    pub fn config_key(&self) -> String {
        self.connection.options.net_config.display().to_string()
    }

    /// Opens a new connection for what is asked next, and follows the Nodes over that. For when the address that the one
    /// before comes from may be gone.
    pub fn reconnect(&self) {
        self.connection.let_go();
    }

    /// The name of the own Node.
    ///
    /// # Errors
    /// [`StoreError`], where the pod has to be asked.
    pub async fn node_name(&self) -> Result<String, StoreError> {
        Ok(self.own.name(&self.connection).await?.to_owned())
    }

    /// What the own Node's annotations say of its addresses; nothing where it is not registered.
    ///
    /// # Errors
    /// [`StoreError`]; one that names the annotation where it is no address.
    pub async fn own_addresses(&self) -> Result<OwnAddresses, StoreError> {
        let node = self.own_node().await?;
        node.map_or(Ok(OwnAddresses::default()), |node| self.own.names.own_addresses(&node))
    }

    /// Says that pods on the own Node have a network: the condition `NetworkUnavailable=False`. Nothing is written where it stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_network_available(&self) -> Result<(), StoreError> {
        self.say_available().await
    }

    /// Puts an Event on the own Node, unless the same one was put a short time ago.
    ///
    /// # Errors
    /// [`StoreError`]. That it is not allowed to says nothing of the store's health.
    pub async fn note(&self, event: NodeEvent) -> Result<(), StoreError> {
        self.put_event(&event).await
    }

    /// Puts what the feed wants said on our own Node.
    async fn tell(&self, mut notes: mpsc::Receiver<NodeEvent>) {
        while let Some(note) = notes.recv().await {
            if let Err(error) = self.put_event(&note).await {
                debug!(%error, "Event not put");
            }
        }
    }

    async fn follow(&self, mut events: mpsc::Sender<Vec<Event>>) {
        let name = loop {
            match self.own.name(&self.connection).await {
                Ok(name) => break name,
                Err(failure) => debug!(%failure, "our Node's name is not known yet"),
            }
            sleep(NAME_PAUSE).await;
        };
        let (notes, said) = mpsc::channel(NOTES);
        let mut feed = Feed::new(&self.connection, &self.own, name, Some(notes));
        tokio::select! { () = feed.run(&mut events) => (), () = self.tell(said) => () }
    }
}

impl LeaseStore for KubeStore {
    async fn config(&self) -> Result<ConfigText, StoreError> {
        net_conf::read(&self.connection.options.net_config).await
    }

    async fn assigned(&self) -> Result<Assigned, StoreError> {
        let name = self.own.name(&self.connection).await?;
        Ok(match self.own_node().await? {
            None => Assigned::Not(format!("Node {name} is not registered: does the kubelet run, and is it called so?")),
            Some(node) => node.key().map_or_else(|error| Assigned::Not(format!("Node {name}: {error}")), Assigned::Key),
        })
    }

    async fn get(&self, key: LeaseKey) -> Result<Option<Entry>, StoreError> {
        let own = self.own_node().await?.and_then(|node| self.lease_of(&node));
        if let Some(own) = own.filter(|own| own.key == key) {
            return Ok(Some(own));
        }
        // Another's. Nodes are not found by their podCIDR.
        Ok(self.list().await?.entries.into_iter().find(|entry| entry.key == key))
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        let name = self.own.name(&self.connection).await?;
        let mut listed = Listed::default();
        Feed::new(&self.connection, &self.own, name, None).list_into(&mut listed).await?;
        listed.0.entries.sort_by_cached_key(|entry| entry.key.to_string());
        Ok(listed.0)
    }

    /// The lease of the own Node. `ttl` is of no use here.
    async fn create(&self, key: LeaseKey, record: &LeaseRecord, _ttl: Duration) -> Result<Entry, WriteError> {
        self.put(key, record).await
    }

    async fn replace(&self, seen: &Entry, record: &LeaseRecord) -> Result<Entry, WriteError> {
        self.put_over(seen, record).await
    }

    async fn keep_alive(&self, _lease: i64) -> Result<Duration, RenewError> {
        Err(RenewError::Lost)
    }

    async fn delete(&self, seen: &Entry) -> Result<(), WriteError> {
        self.remove(seen).await
    }

    async fn watch(&self, events: mpsc::Sender<Vec<Event>>) {
        tokio::select! { () = self.follow(events.clone()) => (), () = events.closed() => () }
    }

    async fn watch_config(&self, texts: mpsc::Sender<ConfigText>) {
        net_conf::follow(&self.connection.options.net_config, texts).await;
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.connection.health()
    }
}

impl Sink for mpsc::Sender<Vec<Event>> {
    async fn take(&mut self, events: Vec<Event>) -> ControlFlow<()> {
        if self.send(events).await.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// A list as a whole.
#[derive(Default)]
struct Listed(Snapshot);

impl Sink for Listed {
    async fn take(&mut self, events: Vec<Event>) -> ControlFlow<()> {
        for event in events {
            match event {
                Event::Init => self.0.entries.clear(),
                Event::InitApply(entry) | Event::Apply(entry) => {
                    // Of two Nodes with the same subnets, the one that is told later is the one in force.
                    self.0.entries.retain(|other| other.key != entry.key);
                    self.0.entries.push(entry);
                }
                Event::InitDone(revision) => self.0.revision = revision,
                Event::Delete(_) | Event::Stray(_) => (),
            }
        }
        ControlFlow::Continue(())
    }
}

//! The store in etcd v3, laid out as flanneld lays it out: `<prefix>/config` and `<prefix>/subnets/<key>`.
//!
//! It keeps what the client library leaves open: every wait has a deadline, a call that met a dead endpoint goes to the
//! next one, an ended token is renewed, lists come in pages at one revision, and a watch goes on through every break.
//! The store's state is told once when it changes, never at each attempt.

mod connection;
mod failure;
mod feed;
mod options;
mod pem;
mod sinks;
mod txn;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, GetOptions, LeaseTimeToLiveOptions, TxnOpResponse};
use tokio::sync::{mpsc, watch};
use tracing::debug;

pub use self::options::{EtcdOptions, OptionsError, Secret};
pub use super::pem::PemError;

use self::connection::Connection;
use self::failure::Failure;
use self::feed::{Feeder, Range};
use self::sinks::{ConfigSink, LeaseSink, SnapshotSink};
use super::{Assigned, ConfigText, Health, LeaseStore, RenewError, Snapshot, StoreError, WriteError};
use crate::{Entry, Event, Expiry, LeaseKey, LeaseRecord};

/// How large one answer of etcd may be. The library's 4 MiB is less than a page of large records; etcd's own limit for
/// one value is 1.5 MiB (`--max-request-bytes`), so this is a bound against nonsense only.
const ANSWER_LIMIT: usize = 64 << 20;

/// A store in etcd. Clones share the connection.
#[derive(Debug, Clone)]
pub struct EtcdStore {
    connection: Arc<Connection>,
}

impl EtcdStore {
    /// The store that the options describe. Nothing is connected yet: an etcd that is down is no error here.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option or the file.
    pub fn new(options: EtcdOptions) -> Result<Self, OptionsError> {
        Ok(Self { connection: Arc::new(Connection::new(options.check()?)) })
    }

    /// Where the network configuration is.
    #[must_use]
    pub fn config_key(&self) -> String {
        format!("{}/config", self.connection.settings.prefix)
    }

    /// Opens a new connection for what is asked next. For when the address that the one before comes from may be gone: of that nobody is
    /// told, and a call over it would take its whole deadline to find out.
    pub fn reconnect(&self) {
        self.connection.let_go();
    }

    fn leases_prefix(&self) -> String {
        format!("{}/subnets/", self.connection.settings.prefix)
    }

    fn lease_key(&self, key: LeaseKey) -> String {
        format!("{}{key}", self.leases_prefix())
    }

    fn leases(&self) -> Feeder<'_> {
        Feeder::new(&self.connection, Range::prefix(self.leases_prefix()))
    }

    /// Runs a guarded write, which answers with what stands under the key afterwards either way.
    async fn guarded(&self, txn: etcd_client::Txn) -> Result<(bool, Option<Entry>), Failure> {
        let answer = self.connection.call(|client| txn::send(client, txn.clone())).await?;
        let there = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().and_then(|kv| sinks::entry(&self.leases_prefix(), kv)),
            _ => None,
        });
        Ok((answer.succeeded(), there))
    }

    /// Ends a lease if nothing stands on it any more: somebody may have put other keys on it, and they would go with it.
    async fn revoke_if_bare(&self, lease: i64) {
        let options = || Some(LeaseTimeToLiveOptions::new().with_keys());
        match self.connection.call(|client| async move { client.lease_client().time_to_live(lease, options()).await }).await {
            Ok(left) if left.keys().is_empty() => self.revoke(lease).await,
            Ok(_) => debug!(lease, "lease not revoked: other keys stand on it"),
            Err(failure) => debug!(lease, %failure, "lease not revoked; it ends by itself"),
        }
    }

    /// Ends a lease that nothing stands on. It ends by itself if this fails.
    async fn revoke(&self, lease: i64) {
        let revoked = self.connection.call(|client| async move { client.lease_client().revoke(lease).await }).await;
        if let Err(failure) = revoked {
            debug!(lease, %failure, "lease not revoked; it ends by itself");
        }
    }
}

impl LeaseStore for EtcdStore {
    async fn config(&self) -> Result<ConfigText, StoreError> {
        let key = self.config_key();
        let got = self.connection.call(|client| read(client, key.clone())).await?;
        Ok(got.kvs().first().map(|kv| String::from_utf8_lossy(kv.value()).into_owned()))
    }

    async fn assigned(&self) -> Result<Assigned, StoreError> {
        Ok(Assigned::Any)
    }

    async fn get(&self, key: LeaseKey) -> Result<Option<Entry>, StoreError> {
        let key = self.lease_key(key);
        let got = self.connection.call(|client| read(client, key.clone())).await?;
        Ok(got.kvs().first().and_then(|kv| sinks::entry(&self.leases_prefix(), kv)))
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        let mut sink = SnapshotSink::new(self.leases_prefix());
        self.leases().list(&mut sink).await?;
        Ok(sink.snapshot)
    }

    async fn create(&self, key: LeaseKey, record: &LeaseRecord, ttl: Duration) -> Result<Entry, WriteError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        // A grant whose answer was lost leaves a lease that nothing stands on: it ends by itself.
        let grant = self.connection.call(|client| async move { client.lease_client().grant(seconds, None).await }).await;
        let lease = grant.map_err(StoreError::from)?.id();
        let (created, there) = self.guarded(txn::create(&self.lease_key(key), record, lease)).await.map_err(StoreError::from)?;
        match there {
            // Not created by this attempt, but attached to the lease that we were just given: by an attempt before it.
            Some(entry) if created || entry.expiry == Expiry::Lease(lease) => Ok(entry),
            there => {
                self.revoke(lease).await;
                Err(WriteError::Conflict(there.map(Box::new)))
            }
        }
    }

    async fn replace(&self, seen: &Entry, record: &LeaseRecord) -> Result<Entry, WriteError> {
        let written = self.guarded(txn::replace(&self.lease_key(seen.key), seen, record)).await;
        let (replaced, there) = match written {
            // The lease ended between the comparison and the put: whatever stands there now is another's.
            Err(Failure::LeaseGone) => (false, self.get(seen.key).await?),
            other => other.map_err(StoreError::from)?,
        };
        let is_wanted = |entry: &Entry| entry.created == seen.created && entry.expiry == seen.expiry && entry.record.as_ref() == Ok(record);
        match there {
            // Not by this attempt, but it is what was wanted: an attempt before it whose answer was lost.
            Some(entry) if replaced || is_wanted(&entry) => Ok(entry),
            there => Err(WriteError::Conflict(there.map(Box::new))),
        }
    }

    async fn keep_alive(&self, lease: i64) -> Result<Duration, RenewError> {
        let kept = self.connection.call(|client| txn::keep_alive(client, lease)).await;
        match kept {
            Ok(0) | Err(Failure::LeaseGone) => Err(RenewError::Lost),
            Ok(seconds) => Ok(Duration::from_secs(seconds)),
            Err(failure) => Err(StoreError::from(failure).into()),
        }
    }

    async fn delete(&self, seen: &Entry) -> Result<(), WriteError> {
        let (deleted, there) = self.guarded(txn::delete(&self.lease_key(seen.key), seen)).await.map_err(StoreError::from)?;
        match there {
            Some(other) if !deleted => Err(WriteError::Conflict(Some(Box::new(other)))),
            _ => {
                if let Expiry::Lease(lease) = seen.expiry {
                    self.revoke_if_bare(lease).await;
                }
                Ok(())
            }
        }
    }

    async fn watch(&self, events: mpsc::Sender<Vec<Event>>) {
        let mut sink = LeaseSink::new(self.leases_prefix(), events.clone());
        let feeder = self.leases();
        tokio::select! { () = feeder.run(&mut sink) => (), () = events.closed() => () }
    }

    async fn watch_config(&self, texts: mpsc::Sender<ConfigText>) {
        let mut sink = ConfigSink::new(texts.clone());
        let feeder = Feeder::new(&self.connection, Range::key(self.config_key()));
        tokio::select! { () = feeder.run(&mut sink) => (), () = texts.closed() => () }
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.connection.health()
    }
}

async fn read(client: Client, key: impl Into<Vec<u8>>) -> Result<etcd_client::GetResponse, etcd_client::Error> {
    client.kv_client().max_decoding_message_size(ANSWER_LIMIT).get(key, None::<GetOptions>).await
}

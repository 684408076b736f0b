//! What the tests of the stores share.

#![expect(clippy::expect_used, clippy::panic, reason = "tests say what went wrong by failing")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

mod apiserver;
mod kube;

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use kube::{AnyNodes, Nodes, annotations as kube_annotations};
use lease::store::contract::{Bench, Events};
use lease::store::etcd::{EtcdOptions, EtcdStore};
use lease::store::memory::MemoryStore;
use lease::{LeaseKey, LeaseRecord, LeaseStore};
use testkit::Etcd;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Where all keys of a test stand.
pub(crate) const PREFIX: &str = "/coreos.com/network";

/// A store in memory.
#[derive(Default)]
pub(crate) struct Memory(pub(crate) MemoryStore);

/// A real etcd, and the store in it.
pub(crate) struct Real {
    pub(crate) etcd: Etcd,
    pub(crate) store: EtcdStore,
}

pub(crate) fn options(etcd: &Etcd) -> EtcdOptions {
    EtcdOptions { endpoints: vec![etcd.endpoint().to_owned()], prefix: PREFIX.to_owned(), ..EtcdOptions::default() }
}

impl Default for Real {
    fn default() -> Self {
        let etcd = Etcd::alone(testkit::EtcdOptions::default()).unwrap_or_else(|error| panic!("{error:#}"));
        let store = EtcdStore::new(options(&etcd)).expect("usable options");
        Self { etcd, store }
    }
}

/// Runs `look` on what a watch of the store tells.
pub(crate) async fn watched<S: LeaseStore>(store: S, look: impl AsyncFnOnce(Events)) {
    let (sender, receiver) = mpsc::channel(16);
    // On a task of its own: the look may block its thread.
    let mut watching = JoinSet::new();
    watching.spawn(async move { store.watch(sender).await });
    look(Events::new(receiver)).await;
    watching.abort_all();
}

/// A person at a store of keys and values, whose keys are those below the prefix.
pub(crate) trait Keys {
    type Store: lease::LeaseStore + Clone;
    fn store(&self) -> &Self::Store;
    /// Puts a key that never expires.
    fn put(&self, key: &str, value: &str);
    /// Deletes a key.
    fn del(&self, key: &str);
}

impl Keys for Memory {
    type Store = MemoryStore;
    fn store(&self) -> &MemoryStore {
        &self.0
    }
    fn put(&self, key: &str, value: &str) {
        self.0.put_raw(key, value, None);
    }
    fn del(&self, key: &str) {
        self.0.del_raw(key);
    }
}

impl Keys for Real {
    type Store = EtcdStore;
    fn store(&self) -> &EtcdStore {
        &self.store
    }
    fn put(&self, key: &str, value: &str) {
        self.etcd.put(&format!("{PREFIX}/{key}"), value).expect("etcdctl puts");
    }
    fn del(&self, key: &str) {
        self.etcd.del(&format!("{PREFIX}/{key}")).expect("etcdctl deletes");
    }
}

/// One of those, as the contract wants it.
#[derive(Default)]
pub(crate) struct Keyed<K>(pub(crate) K);

impl<K: Keys> Bench for Keyed<K> {
    type Store = K::Store;
    const EXPIRES: bool = true;
    fn store(&self) -> &K::Store {
        self.0.store()
    }
    async fn host(&self, _: LeaseKey) -> K::Store {
        self.0.store().clone()
    }
    async fn configure(&self, text: Option<&str>) {
        text.map_or_else(|| self.0.del("config"), |text| self.0.put("config", text));
    }
    async fn put_record(&self, key: LeaseKey, record: &LeaseRecord) {
        self.0.put(&format!("subnets/{key}"), &record.encode());
    }
    async fn put_damaged(&self, key: LeaseKey) {
        self.0.put(&format!("subnets/{key}"), "x");
    }
    async fn put_stray(&self, name: &str) {
        self.0.put(&format!("subnets/{name}"), "x");
    }
    async fn delete_stray(&self, name: &str) {
        self.0.del(&format!("subnets/{name}"));
    }
    async fn delete(&self, key: LeaseKey) {
        self.0.del(&format!("subnets/{key}"));
    }
}

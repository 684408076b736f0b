//! What the tests of the stores share.

#![expect(clippy::expect_used, clippy::panic, reason = "tests say what went wrong by failing")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use lease::store::contract::Bench;
use lease::store::etcd::{EtcdOptions, EtcdStore};
use lease::store::memory::MemoryStore;
use testkit::Etcd;

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

impl Bench for Memory {
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

impl Bench for Real {
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

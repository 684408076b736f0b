//! The etcd, filled with made-up leases, and what its own part of the figures costs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use etcd_client::{Client, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};

use crate::fleet::{self, CONFIG, CONFIG_KEY, Peer, SUBNETS};
use crate::live::Hands;

/// etcd's own limit on operations a transaction (`--max-txn-ops`).
const OPS_A_TXN: usize = 128;
/// Keys a page, as the agent asks for them.
const PAGE: i64 = 2_000;
/// flannel's leases live for a day.
const TTL_SECONDS: i64 = 86_400;
/// A page of 2 000 leases is some 600 kB; the library's own limit is 4 MB.
const ANSWER_LIMIT: usize = 64 << 20;

pub(crate) struct Store {
    client: Client,
    lease: i64,
}

impl Store {
    /// Connects, from the calling thread's network, and puts the configuration and so many leases.
    pub(crate) async fn filled(endpoint: &str, count: u32) -> Result<Self> {
        let client = Client::connect([endpoint], None).await.context("cannot connect to etcd")?;
        client.kv_client().put(CONFIG_KEY, CONFIG, None).await?;
        let lease = client.lease_client().grant(TTL_SECONDS, None).await?.id();
        let store = Self { client, lease };
        let peers: Vec<Peer> = fleet::peers(count).collect();
        for some in peers.chunks(OPS_A_TXN) {
            let puts: Vec<TxnOp> = some.iter().map(|peer| TxnOp::put(peer.key(), peer.record(), Some(store.attached()))).collect();
            store.client.kv_client().txn(Txn::new().and_then(puts)).await?;
        }
        Ok(store)
    }

    fn attached(&self) -> PutOptions {
        PutOptions::new().with_lease(self.lease)
    }

    /// How long it takes to read all leases in pages, one after the other, and do nothing with them.
    pub(crate) async fn list(&self) -> Result<Duration> {
        let mut kv = self.client.kv_client().max_decoding_message_size(ANSWER_LIMIT);
        let mut end = SUBNETS.trim_end_matches('/').as_bytes().to_vec();
        end.push(b'/' + 1);
        let start = Instant::now();
        let mut next = SUBNETS.as_bytes().to_vec();
        loop {
            let page = kv.get(next, Some(GetOptions::new().with_range(end.clone()).with_limit(PAGE))).await?;
            match page.kvs().last() {
                Some(last) if page.more() => next = [last.key(), b"\0"].concat(),
                _ => return Ok(start.elapsed()),
            }
        }
    }
}

impl Hands for Store {
    async fn put(&mut self, peer: &Peer) -> Result<Duration> {
        let (mut kv, key, record, options) = (self.client.kv_client(), peer.key(), peer.record(), self.attached());
        let start = Instant::now();
        kv.put(key, record, Some(options)).await?;
        Ok(start.elapsed())
    }

    async fn delete(&mut self, peer: &Peer) -> Result<()> {
        self.client.kv_client().delete(peer.key(), None::<DeleteOptions>).await?;
        Ok(())
    }
}

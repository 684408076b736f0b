//! The guarded writes as etcd transactions, each of which answers with what stands under the key when it is done.

use etcd_client::{Client, Compare, CompareOp, Error, PutOptions, Txn, TxnOp, TxnResponse};

use crate::{Entry, Expiry, LeaseRecord};

/// Puts the key, attached to the lease, if there is none.
pub(super) fn create(key: &str, record: &LeaseRecord, lease: i64) -> Txn {
    let put = TxnOp::put(key, record.encode(), Some(PutOptions::new().with_lease(lease)));
    Txn::new()
        .when([Compare::create_revision(key, CompareOp::Equal, 0)])
        .and_then([put, TxnOp::get(key, None)])
        .or_else([TxnOp::get(key, None)])
}

/// Puts another value if the key is as it was seen, attached to what it was attached to.
pub(super) fn replace(key: &str, seen: &Entry, record: &LeaseRecord) -> Txn {
    let options = match seen.expiry {
        Expiry::Never => PutOptions::new(),
        Expiry::Lease(lease) => PutOptions::new().with_lease(lease),
    };
    let put = TxnOp::put(key, record.encode(), Some(options));
    Txn::new().when([unchanged(key, seen)]).and_then([put, TxnOp::get(key, None)]).or_else([TxnOp::get(key, None)])
}

/// Deletes the key if it is as it was seen.
pub(super) fn delete(key: &str, seen: &Entry) -> Txn {
    Txn::new().when([unchanged(key, seen)]).and_then([TxnOp::delete(key, None)]).or_else([TxnOp::get(key, None)])
}

fn unchanged(key: &str, seen: &Entry) -> Compare {
    Compare::mod_revision(key, CompareOp::Equal, seen.modified.0)
}

pub(super) async fn send(client: Client, txn: Txn) -> Result<TxnResponse, Error> {
    client.kv_client().txn(txn).await
}

/// Renews the lease and tells how many seconds it has now; 0 when there is none.
///
/// On a stream of its own, since this happens a few times a day. The library swallows the first answer, so a second is asked for.
pub(super) async fn keep_alive(client: Client, lease: i64) -> Result<u64, Error> {
    let (mut keeper, mut answers) = client.lease_client().keep_alive(lease).await?;
    keeper.keep_alive().await?;
    let answer = answers.message().await?;
    let seconds = answer.ok_or_else(|| Error::LeaseKeepAliveError("the stream ended".to_owned()))?.ttl();
    Ok(u64::try_from(seconds).unwrap_or(0))
}

//! How a host comes by its lease: every rule, on the store in memory; and the race on both stores.

#![expect(clippy::unwrap_used, reason = "tests say what went wrong by failing")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Keys, Memory, Real};
use lease::claim::{Claim, ClaimError, How, Outcome, RecordFor, Warning, claim, reclaim, release};
use lease::store::contract::{key, record};
use lease::store::memory::MemoryStore;
use lease::{BackendType, Entry, Expiry, LeaseKey, LeaseRecord, LeaseStore, MacAddr, Owner, Rng, Vni, VtepData};

const DAY: Duration = Duration::from_secs(86_400);
const OURS: &str = "192.0.2.1";
const CONFIG: &str = r#"{"Network":"10.5.0.0/16"}"#;

fn us() -> Owner {
    Owner::new([1; 16])
}

fn other() -> Owner {
    Owner::new([2; 16])
}

fn vtep(mac: &str) -> VtepData {
    VtepData { vni: Vni::new(1).unwrap(), mac: mac.parse().unwrap() }
}

/// A host's record, with the MAC of the one found if it had one.
fn maker(owner: Owner, address: &str) -> RecordFor {
    let address = address.parse().unwrap();
    Arc::new(move |found: Option<&LeaseRecord>| LeaseRecord {
        public_ip: Some(address),
        public_ipv6: None,
        backend: BackendType::Vxlan,
        vtep: Some(
            found.and_then(|found| found.vtep).unwrap_or(VtepData { vni: Vni::new(1).unwrap(), mac: MacAddr::new([2, 0, 0, 0, 0, 1]) }),
        ),
        vtep_v6: None,
        owner: Some(owner),
        boot: None,
    })
}

fn host(owner: Owner, address: &str, remembered: Option<&str>) -> Claim {
    Claim {
        config: CONFIG.parse().unwrap(),
        owner,
        public_ip: Some(address.parse().unwrap()),
        public_ipv6: None,
        remembered: remembered.map(key),
        ttl: DAY,
        record: maker(owner, address),
    }
}

async fn take(store: &impl LeaseStore, host: &Claim) -> Outcome {
    claim(store, host, &mut Rng::new(1)).await.unwrap()
}

async fn keys(store: &impl LeaseStore) -> Vec<String> {
    store.list().await.unwrap().entries.iter().map(|entry| entry.key.to_string()).collect()
}

fn flanneld(address: &str, mac: &str) -> String {
    format!(r#"{{"PublicIP":"{address}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#)
}

#[tokio::test]
async fn a_new_host_takes_a_free_subnet_and_finds_it_again_without_a_write() {
    let store = MemoryStore::default();
    let first = take(&store, &host(us(), OURS, None)).await;
    assert_eq!((first.how, first.entry.record.as_ref().unwrap().owner), (How::Fresh, Some(us())));
    let again = take(&store, &host(us(), OURS, None)).await;
    assert_eq!((again.how, &again.entry), (How::Own, &first.entry));
    let remembered = take(&store, &host(us(), OURS, Some(&first.entry.key.to_string()))).await;
    assert_eq!((remembered.how, &remembered.entry), (How::Own, &first.entry));
}

#[tokio::test]
async fn a_host_that_has_another_address_now_keeps_its_subnet_and_says_the_new_one() {
    let store = MemoryStore::default();
    let before = take(&store, &host(us(), OURS, None)).await.entry;
    let after = take(&store, &host(us(), "192.0.2.99", None)).await;
    assert_eq!((after.how, after.entry.key, after.entry.expiry), (How::Own, before.key, before.expiry));
    assert_eq!(after.entry.record.unwrap().public_ip, Some("192.0.2.99".parse().unwrap()));
}

#[tokio::test]
async fn flannelds_lease_for_our_address_is_taken_over_with_its_mac() {
    let store = MemoryStore::default();
    store.put_raw("subnets/10.5.7.0-24", &flanneld(OURS, "4a:d0:4b:61:b4:99"), Some(DAY));
    let taken = take(&store, &host(us(), OURS, None)).await;
    let record = taken.entry.record.unwrap();
    assert_eq!((taken.how, taken.entry.key), (How::FromFlanneld, key("10.5.7.0-24")));
    assert_eq!((record.vtep, record.owner), (Some(vtep("4a:d0:4b:61:b4:99")), Some(us())));
}

#[tokio::test]
async fn another_hosts_lease_with_our_address_is_left_alone_and_reported() {
    let store = MemoryStore::default();
    let clone = take(&store, &host(other(), OURS, None)).await.entry;
    let ours = take(&store, &host(us(), OURS, None)).await;
    assert_eq!((ours.how, ours.warnings), (How::Fresh, vec![Warning::SameAddress { key: clone.key, owner: other() }]));
    assert_eq!(store.get(clone.key).await, Ok(Some(clone)));
}

#[tokio::test]
async fn the_remembered_subnet_is_taken_when_it_is_free_and_fits() {
    let store = MemoryStore::default();
    let taken = take(&store, &host(us(), OURS, Some("10.5.200.0-24"))).await;
    assert_eq!((taken.how, taken.entry.key), (How::Remembered, key("10.5.200.0-24")));
    let second = take(&store, &host(other(), "192.0.2.2", Some("10.5.200.0-24"))).await;
    assert_eq!(second.how, How::Fresh);
    let misfit = take(&store, &host(Owner::new([3; 16]), "192.0.2.3", Some("10.9.0.0-24"))).await;
    assert_eq!(misfit.how, How::Fresh);
}

#[tokio::test]
async fn an_overlap_with_a_subnet_of_another_length_or_an_unreadable_lease_is_not_free() {
    let store = MemoryStore::default();
    store.put_raw("subnets/10.5.200.128-26", "rubbish", None);
    assert_eq!(take(&store, &host(us(), OURS, Some("10.5.200.0-24"))).await.how, How::Fresh);
}

#[tokio::test]
async fn a_reservation_is_taken_and_stays_without_a_lease() {
    let store = MemoryStore::default();
    store.put_raw("subnets/10.5.7.0-24", &format!(r#"{{"PublicIP":"{OURS}"}}"#), None);
    let taken = take(&store, &host(us(), OURS, None)).await;
    assert_eq!((taken.how, taken.entry.key, taken.entry.expiry), (How::Reserved, key("10.5.7.0-24"), Expiry::Never));
    let again = take(&store, &host(us(), OURS, None)).await;
    assert_eq!((again.how, again.entry), (How::Own, taken.entry));
}

#[tokio::test]
async fn reservations_that_cannot_be_used_are_reported_and_left() {
    let store = MemoryStore::default();
    store.put_raw("subnets/10.9.7.0-24", &format!(r#"{{"PublicIP":"{OURS}"}}"#), None);
    let taken = take(&store, &host(us(), OURS, None)).await;
    assert_eq!(taken.warnings, [Warning::ReservationDoesNotFit { key: key("10.9.7.0-24") }]);
    store.put_raw("subnets/10.5.250.0-24", &format!(r#"{{"PublicIP":"{OURS}"}}"#), None);
    let again = take(&store, &host(us(), OURS, None)).await;
    assert_eq!(again.entry, taken.entry);
    assert!(again.warnings.contains(&Warning::ReservationUnused { key: key("10.5.250.0-24") }));
    assert_eq!(keys(&store).await.len(), 3);
}

#[tokio::test]
async fn leases_of_ours_that_do_not_fit_any_more_are_given_back() {
    let store = MemoryStore::default();
    let wide = take(&store, &host(us(), OURS, None)).await.entry;
    store.put_raw("subnets/10.5.240.0-26", &flanneld(OURS, "4a:d0:4b:61:b4:99"), Some(DAY));
    let narrow =
        Claim { config: r#"{"Network":"10.5.0.0/16","SubnetLen":25}"#.parse().unwrap(), ..host(us(), OURS, Some(&wide.key.to_string())) };
    let taken = take(&store, &narrow).await;
    assert_eq!((taken.how, taken.entry.key.v4().unwrap().len()), (How::Fresh, 25));
    assert_eq!(keys(&store).await, [taken.entry.key.to_string()]);
}

#[tokio::test]
async fn a_create_whose_reply_was_lost_is_found_again() {
    let store = MemoryStore::default();
    store.lose_next_reply();
    let lost = claim(&store, &host(us(), OURS, None), &mut Rng::new(1)).await;
    assert!(matches!(lost, Err(ClaimError::Store(_))));
    let found = claim(&store, &host(us(), OURS, None), &mut Rng::new(2)).await.unwrap();
    assert_eq!((found.how, keys(&store).await.len()), (How::Own, 1));
}

#[tokio::test]
async fn in_an_ipv6_only_network_the_ipv6_address_tells_hosts_apart() {
    let store = MemoryStore::default();
    let value = |address: &str| format!(r#"{{"PublicIP":"0.0.0.0","PublicIPv6":"{address}","BackendType":"host-gw"}}"#);
    store.put_raw("subnets/0.0.0.0-0&fc00:0:0:5::-64", &value("fd77::2"), Some(DAY));
    let host = |address: &'static str| Claim {
        config: r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48"}"#.parse().unwrap(),
        public_ip: None,
        public_ipv6: Some(address.parse().unwrap()),
        record: Arc::new(move |_| LeaseRecord {
            public_ip: None,
            public_ipv6: Some(address.parse().unwrap()),
            owner: Some(us()),
            ..record(OURS)
        }),
        ..host(us(), OURS, None)
    };
    let second = take(&store, &host("fd77::2")).await;
    assert_eq!((second.how, second.entry.key), (How::FromFlanneld, key("0.0.0.0-0&fc00:0:0:5::-64")));
    store.del_raw("subnets/0.0.0.0-0&fc00:0:0:5::-64");
    store.put_raw("subnets/0.0.0.0-0&fc00:0:0:5::-64", &value("fd77::2"), Some(DAY));
    let first = take(&store, &host("fd77::1")).await;
    assert_eq!(first.how, How::Fresh);
}

#[tokio::test]
async fn a_full_pool_is_a_clear_error() {
    let store = MemoryStore::default();
    let small = |owner, address: &str| Claim { config: r#"{"Network":"10.5.0.0/28"}"#.parse().unwrap(), ..host(owner, address, None) };
    for number in 1..=3 {
        take(&store, &small(Owner::new([number; 16]), &format!("192.0.2.{number}"))).await;
    }
    let error = claim(&store, &small(Owner::new([9; 16]), "192.0.2.9"), &mut Rng::new(1)).await.unwrap_err().to_string();
    assert!(
        error.starts_with("no subnet is free: all 3 of length 30 from 10.5.0.4/30 to 10.5.0.12/30 in 10.5.0.0/28 are leased"),
        "{error}"
    );
}

#[tokio::test]
async fn a_subnet_that_was_ours_is_reclaimed_when_free_and_never_stolen() {
    let store = MemoryStore::default();
    let ours = take(&store, &host(us(), OURS, None)).await.entry;
    store.del_raw(&format!("subnets/{}", ours.key));
    let said = LeaseRecord { vtep: Some(vtep("4a:d0:4b:61:b4:99")), ..ours.record.clone().unwrap() };
    let last = Entry { record: Ok(said.clone()), ..ours };
    let back = reclaim(&store, &host(us(), OURS, None), &last).await.unwrap();
    assert_eq!((back.entry.key, back.entry.record.unwrap().vtep), (ours.key, said.vtep));
    store.put_raw(&format!("subnets/{}", ours.key), &record("192.0.2.2").encode(), None);
    let error = reclaim(&store, &host(us(), OURS, None), &last).await.unwrap_err();
    assert_eq!(error.to_string(), format!("subnet {} is held by another host (192.0.2.2)", ours.key));
}

#[tokio::test]
async fn releasing_gives_back_what_is_ours_and_leaves_reservations() {
    let store = MemoryStore::default();
    let ours = take(&store, &host(us(), OURS, None)).await.entry;
    let others = take(&store, &host(other(), "192.0.2.2", None)).await.entry;
    store.put_raw("subnets/10.5.250.0-24", &record(OURS).encode(), None);
    assert_eq!(release(&store, us()).await, Ok(vec![ours.key]));
    assert_eq!(keys(&store).await, ["10.5.250.0-24".to_owned(), others.key.to_string()]);
}

/// Hosts that start at once, on a pool that just has room for them: each gets one subnet, none gets another's.
async fn a_race_has_one_winner_for_each_subnet<B: Keys>(bench: B)
where
    B::Store: Clone,
{
    let hosts: Vec<u8> = (1..=12).collect();
    let config = r#"{"Network":"10.5.0.0/24","SubnetLen":28,"SubnetMin":"10.5.0.16","SubnetMax":"10.5.0.192"}"#;
    let mut racing = tokio::task::JoinSet::new();
    for number in hosts {
        let (store, host) = (bench.store().clone(), host(Owner::new([number; 16]), &format!("192.0.2.{number}"), Some("10.5.0.16-28")));
        let host = Claim { config: config.parse().unwrap(), ..host };
        racing.spawn(async move { claim(&store, &host, &mut Rng::new(number.into())).await.unwrap().entry.key });
    }
    let mut got: Vec<LeaseKey> = racing.join_all().await;
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 12);
    assert!(got.contains(&key("10.5.0.16-28")));
}

#[tokio::test]
async fn a_race_in_memory() {
    a_race_has_one_winner_for_each_subnet(Memory::default()).await;
}

#[tokio::test]
async fn a_race_in_etcd() {
    a_race_has_one_winner_for_each_subnet(Real::default()).await;
}

#[tokio::test]
async fn etcdctl_sees_a_reservation_that_was_taken_without_a_lease() {
    let bench = Real::default();
    bench.put("subnets/10.5.7.0-24", &format!(r#"{{"PublicIP":"{OURS}"}}"#));
    let taken = take(&bench.store, &host(us(), OURS, None)).await;
    assert_eq!(taken.how, How::Reserved);
    let seen = bench.etcd.get(&format!("{}/subnets/10.5.7.0-24", common::PREFIX)).unwrap().unwrap();
    assert_eq!((seen.lease, seen.value.contains(&us().to_string())), (0, true));
    let fresh = take(&bench.store, &host(other(), "192.0.2.2", None)).await.entry;
    let seen = bench.etcd.get(&format!("{}/subnets/{}", common::PREFIX, fresh.key)).unwrap().unwrap();
    assert!(matches!(bench.etcd.lease_left(seen.lease), Ok(Some(86_300..=86_400))));
}

//! The rules that make a lease a peer, and the lease set's memory.

use std::collections::BTreeSet;

use lease::{BackendType, Expiry, LeaseRecord, MacAddr, RecordError, Revision, Vni, VtepData};

use super::*;
use crate::ground::{Direct, Ground};

/// A lease set with what it desires, and a clock.
struct Set {
    peers: Peers,
    desired: Desired,
    now: Instant,
}

impl Set {
    fn new() -> Self {
        let local = Local {
            key: "10.5.1.0-24".parse().unwrap(),
            subnet: "10.5.1.0/24".parse().unwrap(),
            network: "10.5.0.0/16".parse().unwrap(),
            subnet_len: 24,
            vtep: Some(VtepData { vni: Vni::new(1).unwrap(), mac: MacAddr::new([2, 0, 0, 0, 0, 1]) }),
            addresses: vec!["192.168.0.1".parse().unwrap()],
        };
        let Local { subnet, network, .. } = local;
        let ground = Ground { network, subnet, vtep: None, direct: Direct::Never, blackhole: false, table: None };
        Self { peers: Peers::new(local, Guard::DEFAULT), desired: Desired::new(ground), now: Instant::now() }
    }

    fn fold(&mut self, events: impl IntoIterator<Item = Event>) -> &mut Self {
        for event in events {
            self.peers.fold(&event, &mut self.desired, self.now, &mut |_| ());
        }
        self
    }

    fn snapshot(&mut self, entries: impl IntoIterator<Item = Entry>) -> &mut Self {
        self.fold([Event::Init]);
        self.fold(entries.into_iter().map(Event::InitApply));
        self.fold([Event::InitDone(Revision(9))])
    }

    fn subnets(&self) -> BTreeSet<String> {
        self.desired.peers().map(|peer| peer.subnet.to_string()).collect()
    }

    fn reason(&self, key: &str) -> String {
        let key = key.parse().unwrap();
        self.peers.rejected().find(|(rejected, _)| *rejected == key).map(|(_, reason)| reason.to_string()).unwrap_or_default()
    }
}

/// The lease of host `n`: 10.5.n.0/24 behind 192.168.0.n, created at revision n.
fn host(n: u8) -> Entry {
    let record = LeaseRecord {
        public_ip: Some([192, 168, 0, n].into()),
        public_ipv6: None,
        backend: BackendType::Vxlan,
        vtep: Some(VtepData { vni: Vni::new(1).unwrap(), mac: MacAddr::new([2, 0, 0, 0, 0, n]) }),
        vtep_v6: None,
        owner: None,
        boot: None,
    };
    let key = format!("10.5.{n}.0-24").parse().unwrap();
    let (created, modified) = (Revision(n.into()), Revision(n.into()));
    Entry { key, record: Ok(record), created, modified, expiry: Expiry::Lease(1) }
}

fn with(mut entry: Entry, change: impl FnOnce(&mut LeaseRecord)) -> Entry {
    change(entry.record.as_mut().unwrap());
    entry
}

fn at(mut entry: Entry, key: &str) -> Entry {
    entry.key = key.parse().unwrap();
    entry
}

#[test]
fn every_bad_record_is_rejected_by_name_and_hurts_no_other_peer() {
    let mac = |octets| move |record: &mut LeaseRecord| record.vtep.as_mut().unwrap().mac = MacAddr::new(octets);
    let ip = |octets: [u8; 4]| move |record: &mut LeaseRecord| record.public_ip = Some(octets.into());
    let unreadable = Entry { record: Err(RecordError::Json("expected value".to_owned())), ..host(3) };
    let cases = [
        (unreadable, "not a lease record"),
        (with(host(3), |record| record.vtep = None), "lacks BackendData"),
        (with(host(3), |record| record.public_ip = None), "lacks PublicIP"),
        (with(host(3), |record| record.backend = BackendType::Alloc), "lacks BackendType"),
        (with(host(3), |record| record.vtep.as_mut().unwrap().vni = Vni::new(2).unwrap()), "VNI 2 is not ours, 1"),
        (with(host(3), mac([1, 0, 0x5e, 0, 0, 1])), "no station's address"),
        (with(host(3), mac([0; 6])), "no station's address"),
        (with(host(3), mac([0xff; 6])), "no station's address"),
        (with(host(3), mac([2, 0, 0, 0, 0, 1])), "is our own"),
        (with(host(3), ip([0, 0, 0, 0])), "no usable unicast"),
        (with(host(3), ip([224, 0, 0, 1])), "no usable unicast"),
        (with(host(3), ip([127, 0, 0, 1])), "no usable unicast"),
        (with(host(3), ip([255, 255, 255, 255])), "no usable unicast"),
        (with(host(3), ip([192, 168, 0, 1])), "is our own"),
        (with(host(3), ip([10, 5, 3, 7])), "within 10.5.3.0/24, which is reached through the tunnel"),
        (with(host(3), ip([10, 5, 1, 7])), "within 10.5.1.0/24, which is reached through the tunnel"),
        (at(host(3), "10.6.3.0-24"), "does not lie in the network"),
        (at(host(3), "10.5.4.0-22"), "larger than SubnetLen 24"),
        (at(host(3), "10.5.1.128-25"), "overlaps our own"),
        (at(host(3), "10.5.2.0-25"), "overlaps that of the older lease 10.5.2.0-24"),
        (with(host(3), mac([2, 0, 0, 0, 0, 2])), "is that of the older lease 10.5.2.0-24"),
    ];
    for (bad, reason) in cases {
        let mut set = Set::new();
        let key = bad.key.to_string();
        set.snapshot([host(2), bad, host(4)]);
        assert!(set.reason(&key).contains(reason), "{key}: {:?} does not say {reason:?}", set.reason(&key));
        assert_eq!(set.subnets(), ["10.5.2.0/24", "10.5.4.0/24"].map(str::to_owned).into(), "with {reason:?}");
        let notices = set.peers.take_notices();
        assert!(matches!(notices.as_slice(), [Notice::Rejected(..)]), "said once: {notices:?}");
    }
}

#[test]
fn a_host_that_does_not_use_vxlan_is_no_peer_and_no_bad_record() {
    let mut set = Set::new();
    set.snapshot([with(host(2), |record| record.backend = BackendType::HostGw), host(3)]);
    assert_eq!(set.subnets(), ["10.5.3.0/24".to_owned()].into());
    assert!(set.peers.rejected().next().is_none());
}

#[test]
fn on_a_host_gw_host_others_of_its_kind_are_peers_and_vxlan_ones_are_not() {
    let host_gw = |n| {
        with(host(n), |record| {
            record.backend = BackendType::HostGw;
            record.vtep = None;
        })
    };
    let mut set = Set::new();
    let local = Local { vtep: None, ..set.peers.local().clone() };
    set.peers = Peers::new(local, Guard::DEFAULT);
    let nowhere = with(host_gw(5), |record| record.public_ip = None);
    set.snapshot([host_gw(2), host(3), host_gw(4), nowhere]);
    assert_eq!(set.subnets(), ["10.5.2.0/24", "10.5.4.0/24"].map(str::to_owned).into());
    assert!(set.desired.peers().all(|peer| peer.mac.is_none()));
    assert!(set.reason("10.5.5.0-24").contains("lacks PublicIP"));
    assert!(set.peers.take_notices().contains(&Notice::OtherBackend(host(3).key, BackendType::Vxlan)));
}

#[test]
fn the_last_good_record_stays_in_force_until_the_lease_goes() {
    let mut set = Set::new();
    let broken = Entry { record: Err(RecordError::Json("x".to_owned())), ..host(2) };
    set.snapshot([host(2), host(3)]).fold([Event::Apply(broken.clone())]);
    assert!(set.subnets().contains("10.5.2.0/24") && set.reason("10.5.2.0-24").contains("not a lease"));
    set.snapshot([broken, host(3)]);
    assert!(set.subnets().contains("10.5.2.0/24"), "a snapshot that names it keeps it");
    set.fold([Event::Delete(host(2).key)]);
    assert_eq!(set.subnets(), ["10.5.3.0/24".to_owned()].into());
    assert!(set.peers.rejected().next().is_none(), "a lease that is gone is not bad any more");
}

#[test]
fn a_bad_record_of_a_peer_that_the_kernel_carries_keeps_it_across_a_restart() {
    let mut set = Set::new();
    let peer = Peer { subnet: "10.5.2.0/24".parse().unwrap(), mac: Some(MacAddr::new([2, 0, 0, 0, 0, 2])), dst: [192, 168, 0, 2].into() };
    set.peers.inherit([peer], &mut set.desired, &mut |_| ());
    set.snapshot([Entry { record: Err(RecordError::Json("x".to_owned())), ..host(2) }, host(3)]);
    assert_eq!(set.desired.peer(peer.subnet), Some(peer));
    set.fold([Event::Delete(host(2).key)]);
    assert_eq!(set.desired.peer(peer.subnet), None);
}

#[test]
fn what_the_kernel_carried_goes_only_when_a_complete_snapshot_does_not_name_it() {
    let mut set = Set::new();
    let peer = Peer { subnet: "10.5.9.0/24".parse().unwrap(), mac: Some(MacAddr::new([2, 0, 0, 0, 0, 9])), dst: [192, 168, 0, 9].into() };
    set.peers.inherit([peer], &mut set.desired, &mut |_| ());
    set.fold([Event::Init, Event::InitApply(host(2))]);
    assert!(!set.peers.is_complete() && set.subnets().contains("10.5.9.0/24"));
    set.fold([Event::InitDone(Revision(1))]);
    assert!(set.peers.is_complete());
    assert_eq!(set.subnets(), ["10.5.2.0/24".to_owned()].into());
}

#[test]
fn of_two_that_conflict_the_older_is_in_force_in_whatever_order_they_come() {
    let clone = with(host(7), |record| record.vtep = host(2).record.unwrap().vtep);
    for order in [[host(2), clone.clone()], [clone.clone(), host(2)]] {
        let mut set = Set::new();
        set.snapshot(order);
        assert_eq!(set.subnets(), ["10.5.2.0/24".to_owned()].into());
        assert!(set.reason("10.5.7.0-24").contains("clone"));
        set.fold([Event::Delete(host(2).key)]);
        assert_eq!(set.subnets(), ["10.5.7.0/24".to_owned()].into(), "the younger takes its place");
        assert!(set.peers.rejected().next().is_none());
    }
}

#[test]
fn a_peer_that_changes_its_mac_frees_the_old_one_for_who_waited() {
    let clone = with(host(7), |record| record.vtep = host(2).record.unwrap().vtep);
    let mut set = Set::new();
    set.snapshot([host(2), clone]);
    let moved = with(host(2), |record| record.vtep.as_mut().unwrap().mac = MacAddr::new([2, 0, 0, 0, 0, 0x22]));
    set.fold([Event::Apply(moved)]);
    assert_eq!(set.subnets(), ["10.5.2.0/24", "10.5.7.0/24"].map(str::to_owned).into());
}

#[test]
fn a_snapshot_without_most_peers_is_held_and_explicit_deletes_pass() {
    let mut set = Set::new();
    set.snapshot((2..=11).map(host)).snapshot([host(2)]);
    assert_eq!(set.desired.len(), 10, "held");
    assert_eq!(set.peers.held().count(), 9);
    assert!(set.peers.take_notices().contains(&Notice::Held { missing: 9, of: 10, until: set.now + Guard::DEFAULT.hold }));
    set.fold([Event::Delete(host(3).key)]);
    assert_eq!(set.desired.len(), 9, "a delete passes");
    set.snapshot((4..=11).map(host));
    assert_eq!((set.peers.held_until(), set.desired.len()), (None, 8), "they are back; the one that is missing now is not most");
}

#[test]
fn a_hold_ends_with_its_time() {
    let mut set = Set::new();
    set.snapshot((2..=11).map(host)).snapshot([]);
    let (early, late) = (set.now + Guard::DEFAULT.hold / 2, set.now + Guard::DEFAULT.hold);
    set.now = early;
    set.snapshot([]);
    set.peers.tick(&mut set.desired, early, &mut |_| ());
    assert_eq!(set.desired.len(), 10, "a second such snapshot does not end the hold, nor make it longer");
    set.peers.tick(&mut set.desired, late, &mut |_| ());
    assert_eq!((set.desired.len(), set.peers.held_until()), (0, None));
}

#[test]
fn a_hold_does_not_end_on_the_word_of_half_a_snapshot() {
    let mut set = Set::new();
    set.snapshot((2..=11).map(host)).snapshot([]);
    set.fold([Event::Init, Event::InitApply(host(2))]);
    set.peers.tick(&mut set.desired, set.now + Guard::DEFAULT.hold, &mut |_| ());
    assert_eq!(set.desired.len(), 10, "the rest may be on its way");
    assert_eq!(set.peers.next_due(), None, "a time that has passed would have whoever waits for it spin");
    set.fold((3..=11).map(|n| Event::InitApply(host(n)))).fold([Event::InitDone(Revision(10))]);
    assert_eq!((set.desired.len(), set.peers.held_until()), (10, None));
}

#[test]
fn a_snapshot_of_another_cluster_does_not_pass_for_a_few_that_left() {
    let mut set = Set::new();
    set.snapshot((2..=11).map(host)).snapshot((100..=130).map(host));
    assert_eq!(set.peers.held().count(), 10, "however many others it names");
}

#[test]
fn a_store_that_went_back_in_time_is_not_believed_even_of_one_peer() {
    let mut set = Set::new();
    set.snapshot([host(2), host(3)]).fold([Event::Init, Event::InitApply(host(2)), Event::InitDone(Revision(3))]);
    assert_eq!(set.subnets(), ["10.5.2.0/24", "10.5.3.0/24"].map(str::to_owned).into());
    set.snapshot([host(2), host(3)]);
    assert_eq!(set.peers.held_until(), None);
}

#[test]
fn a_stray_key_is_told_of_once_and_counted_while_it_is_there() {
    let mut set = Set::new();
    let snapshot = [Event::Init, Event::Stray("x".to_owned()), Event::InitDone(Revision(1))];
    set.fold(snapshot.clone()).fold(snapshot).fold([Event::Stray("x".to_owned())]);
    assert_eq!((set.peers.strays(), set.peers.take_notices().len()), (1, 1));
    set.fold([Event::Init, Event::InitDone(Revision(2))]);
    assert_eq!(set.peers.strays(), 0);
}

#[test]
fn a_few_that_left_meanwhile_are_not_held() {
    let mut set = Set::new();
    set.snapshot([host(2), host(3)]).snapshot([]);
    assert_eq!(set.desired.len(), 0);
    set.snapshot((2..=11).map(host)).snapshot((5..=11).map(host));
    assert_eq!(set.desired.len(), 7);
}

#[test]
fn our_own_lease_and_stray_keys_are_no_peers() {
    let mut set = Set::new();
    set.snapshot([host(1), host(2)]).fold([Event::Stray("test".to_owned())]);
    assert_eq!(set.subnets(), ["10.5.2.0/24".to_owned()].into());
    assert_eq!(set.peers.strays(), 1);
    assert!(set.peers.rejected().next().is_none());
}

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{BackendType, Expiry, LeaseRecord};

fn entry(key: &str, created: i64, address: u8) -> Entry {
    let record = LeaseRecord {
        public_ip: Some([192, 0, 2, address].into()),
        public_ipv6: None,
        backend: BackendType::HostGw,
        vtep: None,
        vtep_v6: None,
        owner: None,
        boot: None,
    };
    Entry { key: key.parse().unwrap(), record: Ok(record), created: Revision(created), modified: Revision(0), expiry: Expiry::Never }
}

const KEY: &str = "10.5.1.0-24";
const OTHER: &str = "10.5.2.0-24";

fn lease(key: &str, created: i64, address: u8) -> Said {
    Said::Lease(entry(key, created, address))
}

/// What remains in force after these events.
fn in_force(events: &[Event]) -> BTreeMap<LeaseKey, Entry> {
    let mut leases = BTreeMap::new();
    for event in events {
        match event {
            Event::InitApply(entry) | Event::Apply(entry) => drop(leases.insert(entry.key, entry.clone())),
            Event::Delete(key) => drop(leases.remove(key)),
            Event::Init | Event::InitDone(_) | Event::Stray(_) => (),
        }
    }
    leases
}

#[test]
fn a_heartbeat_is_no_event_and_a_change_is_one() {
    let mut roster = Roster::new("own");
    assert_eq!(roster.apply("a", lease(KEY, 1, 1)), [Event::Apply(entry(KEY, 1, 1))]);
    let beat = Entry { modified: Revision(7), ..entry(KEY, 1, 1) };
    assert_eq!(roster.apply("a", Said::Lease(beat)), []);
    assert_eq!(roster.apply("a", lease(KEY, 1, 2)), [Event::Apply(entry(KEY, 1, 2))]);
    assert_eq!(roster.apply("b", Said::Nothing), []);
}

#[test]
fn a_node_that_is_no_peer_any_more_or_gone_is_deleted_once() {
    for gone in [|roster: &mut Roster| roster.apply("a", Said::Nothing), |roster: &mut Roster| roster.delete("a")] {
        let mut roster = Roster::new("own");
        roster.apply("a", lease(KEY, 1, 1));
        assert_eq!(gone(&mut roster), [Event::Delete(KEY.parse().unwrap())]);
        assert_eq!(gone(&mut roster), []);
    }
}

#[test]
fn a_node_that_comes_back_with_other_subnets_leaves_the_old_ones() {
    let mut roster = Roster::new("own");
    roster.apply("a", lease(KEY, 1, 1));
    let events = roster.apply("a", lease(OTHER, 2, 1));
    assert_eq!(events, [Event::Delete(KEY.parse().unwrap()), Event::Apply(entry(OTHER, 2, 1))]);
}

#[test]
fn a_stray_is_told_once_and_takes_its_lease_along() {
    let mut roster = Roster::new("own");
    roster.apply("a", lease(KEY, 1, 1));
    let events = roster.apply("a", Said::Stray("why".to_owned()));
    assert_eq!(events, [Event::Delete(KEY.parse().unwrap()), Event::Stray("why".to_owned())]);
    assert_eq!(roster.apply("a", Said::Stray("why".to_owned())), []);
    assert_eq!(roster.apply("a", lease(KEY, 1, 1)), [Event::Apply(entry(KEY, 1, 1))]);
    assert_eq!(roster.apply("a", Said::Stray("why".to_owned())).len(), 2);
}

#[test]
fn of_two_with_the_same_subnets_the_older_is_in_force_and_the_other_when_it_goes() {
    for (first, second) in [(("a", 1), ("b", 2)), (("b", 2), ("a", 1))] {
        let mut roster = Roster::new("own");
        let mut events = Vec::new();
        for (name, created) in [first, second] {
            events.extend(roster.apply(name, lease(KEY, created, u8::try_from(created).unwrap())));
        }
        assert_eq!(in_force(&events).into_values().collect::<Vec<_>>(), [entry(KEY, 1, 1)]);
        let told = events.iter().filter(|event| matches!(event, Event::Stray(text) if text.contains("Node b") && text.contains("Node a")));
        assert_eq!(told.count(), 1);
        assert_eq!(roster.apply("b", lease(KEY, 2, 2)), [], "its heartbeat");
        events.extend(roster.delete("a"));
        assert_eq!(in_force(&events), BTreeMap::new());
        assert_eq!(roster.next_recalled().as_deref(), Some("b"));
        events.extend(roster.recall("b", lease(KEY, 2, 2)));
        assert_eq!(in_force(&events).into_values().collect::<Vec<_>>(), [entry(KEY, 2, 2)]);
        assert_eq!(roster.next_recalled(), None);
    }
}

#[test]
fn our_own_node_keeps_its_subnets_and_is_told_of_the_other() {
    let mut roster = Roster::new("own");
    let mut events = roster.apply("elder", lease(KEY, 1, 1));
    events.extend(roster.apply("own", lease(KEY, 2, 2)));
    assert_eq!(in_force(&events).into_values().collect::<Vec<_>>(), [entry(KEY, 2, 2)]);
    let notes = roster.take_notes();
    assert!(matches!(notes.as_slice(), [note] if note.reason == "DuplicatePodCIDR" && note.message.contains("elder")), "{notes:?}");
    roster.apply("a", lease(OTHER, 1, 3));
    roster.apply("b", lease(OTHER, 2, 4));
    assert_eq!(roster.take_notes(), [], "what concerns others is theirs to tell");
}

#[test]
fn a_list_is_told_as_one() {
    let mut roster = Roster::new("own");
    let mut events = roster.list("b", lease(KEY, 2, 2));
    events.extend(roster.list("a", lease(KEY, 1, 1)));
    assert!(matches!(events.as_slice(), [Event::InitApply(_), Event::Stray(_), Event::InitApply(_)]), "{events:?}");
    assert_eq!(in_force(&events).into_values().collect::<Vec<_>>(), [entry(KEY, 1, 1)]);
}

proptest! {
    /// Whatever the Nodes do in whatever order: in the end each subnet is the oldest's of those that have it then.
    #[test]
    fn what_is_in_force_follows_from_how_the_nodes_stand(steps in prop::collection::vec((0_u8..5, 0_u8..4, 1_u8..4), 1..60)) {
        let mut roster = Roster::new("n4");
        let mut nodes: BTreeMap<String, Entry> = BTreeMap::new();
        let mut events = Vec::new();
        for (step, (node, what, address)) in (0_i64..).zip(steps) {
            let name = format!("n{node}");
            match what {
                0 => {
                    nodes.remove(&name);
                    events.extend(roster.delete(&name));
                }
                1 => {
                    nodes.remove(&name);
                    events.extend(roster.apply(&name, Said::Nothing));
                }
                // In its place or anew, with one of two subnets.
                _ => {
                    let key = if what == 2 { KEY } else { OTHER };
                    let created = nodes.get(&name).filter(|old| old.key.to_string() == key).map_or(step, |old| old.created.0);
                    let now = entry(key, created, address);
                    nodes.insert(name.clone(), now.clone());
                    events.extend(roster.apply(&name, Said::Lease(now)));
                }
            }
            while let Some(recalled) = roster.next_recalled() {
                let said = nodes.get(&*recalled).map_or(Said::Nothing, |entry| Said::Lease(entry.clone()));
                events.extend(roster.recall(&recalled, said));
            }
        }
        let mut wanted: BTreeMap<LeaseKey, (bool, Revision, String)> = BTreeMap::new();
        for (name, entry) in &nodes {
            let rank = (name != "n4", entry.created, name.clone());
            let best = wanted.entry(entry.key).or_insert_with(|| rank.clone());
            *best = best.clone().min(rank);
        }
        let wanted: BTreeMap<LeaseKey, Entry> = wanted.into_iter().map(|(key, (_, _, name))| (key, nodes[&name].clone())).collect();
        prop_assert_eq!(in_force(&events), wanted);
    }
}

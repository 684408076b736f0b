//! The lease protocol, explored exhaustively: every order in which the calls of a few hosts can reach the store and be
//! answered, with lost answers, late requests, restarts, reboots, expiry and a person who meddles.
//!
//! The code under test is the real one: [`lease::Keeper`] with its claim, reclaim and renewal, over the store in memory
//! that passes the same contract as etcd. Keepers are polled by hand; each call to the store is a message on a desk, and
//! the explorer alone decides what happens next. A course is replayed from the start to try what else could have
//! happened; a state that was met before is not gone through again.

#![expect(clippy::panic, clippy::expect_used, clippy::indexing_slicing, reason = "tests say what went wrong by failing")]

mod agent;
mod call;
mod explore;
mod run;
mod wire;

use agent::Identity;
use call::Flaw;
use explore::{Explored, explore};
use run::Scenario;

fn host(number: u8) -> Identity {
    Identity { owner: number, boot: number, address: number }
}

fn scenario(name: &'static str, hosts: u8, pool: u8) -> Scenario {
    Scenario {
        name,
        pool,
        agents: (1..=hosts).map(host).collect(),
        reserved: None,
        faults: 1,
        longs: 0,
        person: false,
        seed: 0,
        flaw: Flaw::None,
    }
}

fn all_hold(scenarios: &[Scenario]) -> Explored {
    let mut sum = Explored::default();
    // One fault more is some twenty times as much to go through: for a night, not for every run.
    let more = std::env::var("EXPLORE_FAULTS").map_or(0, |text| text.parse().expect("EXPLORE_FAULTS is a number"));
    for scenario in scenarios {
        let scenario = &Scenario { faults: scenario.faults + more, ..scenario.clone() };
        let explored = explore(scenario).unwrap_or_else(|violation| panic!("{}: {violation}", scenario.name));
        println!("{}: {explored}", scenario.name);
        sum += explored;
    }
    println!("in all: {sum}");
    sum
}

#[test]
fn hosts_that_lose_messages_restart_and_reboot_never_share_a_subnet() {
    let explored = all_hold(&[
        Scenario { faults: 2, ..scenario("two hosts, one subnet", 2, 1) },
        Scenario { faults: 2, ..scenario("two hosts, two subnets", 2, 2) },
        Scenario { faults: 1, ..scenario("three hosts, one subnet", 3, 1) },
    ]);
    assert!(explored.states > 5_000, "{explored}");
}

#[test]
fn leases_that_run_out_change_hands_without_two_owners() {
    let explored = all_hold(&[
        Scenario { faults: 1, longs: 2, ..scenario("two hosts, one subnet, time", 2, 1) },
        Scenario { faults: 1, longs: 1, ..scenario("two hosts, two subnets, time", 2, 2) },
    ]);
    assert!(explored.states > 1_000, "{explored}");
}

#[test]
fn a_person_who_deletes_and_reserves_takes_no_reservation_from_its_host() {
    let meddled = |name, pool| Scenario { person: true, ..scenario(name, 2, pool) };
    let explored = all_hold(&[
        Scenario { longs: 1, ..meddled("a person, one subnet", 1) },
        Scenario { reserved: Some(0), ..meddled("a person and a reservation, two subnets", 2) },
        Scenario { faults: 2, reserved: Some(1), ..meddled("a person and a reservation, one subnet", 1) },
    ]);
    assert!(explored.states > 1_000, "{explored}");
}

#[test]
fn of_two_clones_one_steps_back_and_neither_fights() {
    let clone = Identity { boot: 9, ..host(1) };
    let clones = |name, pool| Scenario { agents: vec![host(1), clone], ..scenario(name, 0, pool) };
    let explored =
        all_hold(&[Scenario { faults: 1, ..clones("clones, one subnet", 1) }, Scenario { faults: 1, ..clones("clones, two subnets", 2) }]);
    assert!(explored.states > 100, "{explored}");
}

/// The explorer finds what is wrong with stores and claims that are broken on purpose, and says how it comes about.
#[test]
fn broken_stores_are_found_out() {
    let time = Scenario { faults: 1, longs: 3, ..scenario("time", 2, 1) };
    let person = Scenario { faults: 2, person: true, reserved: Some(0), ..scenario("a person", 2, 2) };
    for (flaw, scenario, found) in [
        (Flaw::CreateOverwrites, scenario("race", 2, 1), "overwritten or deleted"),
        (Flaw::ReplaceOverwrites, Scenario { faults: 2, ..time.clone() }, "overwritten or deleted"),
        (Flaw::ReplaceExpires, person.clone(), "reservation"),
        (Flaw::RenewsTheDead, time, "believe"),
    ] {
        let violation = explore(&Scenario { flaw, ..scenario }).expect_err(&format!("{flaw:?} was not found out"));
        println!("{flaw:?}: {violation}");
        assert!(violation.contains(found), "{flaw:?}: {violation}");
    }
}

//! Records that make no sense: named, counted, shown, and acted on by nobody.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use testkit::Monitor;
use testkit::world::{Member, PATIENCE, Peer, World, record};

/// A good record's MAC and address where only the other is bad.
const MAC: &str = "02:00:00:00:01:01";
const ADDRESS: &str = "192.168.77.240";

/// Why the status says that the record under this key is rejected.
fn reason(status: &Value, name: &str) -> Option<String> {
    let all = status["rejected"].as_array()?;
    let entry = all.iter().find(|entry| entry["key"] == name)?;
    Some(entry["reason"].as_str()?.to_owned())
}

/// Every kind of bad record that there is, on a host whose subnet is 10.5.50.0/24: key, value, a word of the reason.
fn bad_records(own_mac: &str) -> Vec<(&'static str, String, &'static str)> {
    let with = |address: &str, mac: &str| record(address, mac);
    let good = record(ADDRESS, MAC);
    vec![
        ("10.5.210.0-24", "{".to_owned(), "not a lease record"),
        ("10.5.211.0-24", "[]".to_owned(), "not a lease record"),
        ("10.5.212.0-24", String::new(), "not a lease record"),
        ("10.5.213.0-24", "{}".to_owned(), "PublicIP"),
        ("10.5.214.0-24", format!(r#"{{"PublicIP":"{ADDRESS}","BackendType":"vxlan"}}"#), "BackendData"),
        ("10.5.215.0-24", format!(r#"{{"PublicIP":"{ADDRESS}","BackendType":"vxlan","BackendData":{{"VNI":1}}}}"#), "VtepMAC"),
        ("10.5.216.0-24", good.replace("\"VNI\":1,", ""), "VNI"),
        ("10.5.217.0-24", good.replace("\"VNI\":1", "\"VNI\":2"), "VNI"),
        ("10.5.218.0-24", with(ADDRESS, "01:00:5e:00:00:01"), "01:00:5e:00:00:01"),
        ("10.5.219.0-24", with(ADDRESS, "ff:ff:ff:ff:ff:ff"), "ff:ff:ff:ff:ff:ff"),
        ("10.5.220.0-24", with(ADDRESS, "00:00:00:00:00:00"), "00:00:00:00:00:00"),
        ("10.5.221.0-24", with(ADDRESS, "rubbish"), "VtepMAC"),
        ("10.5.222.0-24", with(ADDRESS, own_mac), "our own"),
        ("10.5.223.0-24", with("0.0.0.0", MAC), "0.0.0.0"),
        ("10.5.224.0-24", with("224.0.0.1", MAC), "224.0.0.1"),
        ("10.5.225.0-24", with("127.0.0.1", MAC), "127.0.0.1"),
        ("10.5.226.0-24", with("255.255.255.255", MAC), "255.255.255.255"),
        ("10.5.227.0-24", with("10.5.227.1", MAC), "10.5.227.1"),
        ("10.5.228.0-24", with("192.168.77.300", MAC), "192.168.77.300"),
        ("10.6.1.0-24", good.clone(), "10.5.0.0/16"),
        ("10.5.0.0-16", good.clone(), "10.5.0.0/16"),
        ("10.5.232.0-23", good.clone(), "10.5.232.0/23"),
        ("10.5.50.0-25", good.clone(), "10.5.50.0/24"),
        ("10.5.201.128-25", good.clone(), "10.5.201.0-24"),
        ("10.5.229.0-24", with("192.168.77.241", "02:00:00:00:00:c9"), "10.5.201.0-24"),
    ]
}

/// A host whose subnet is 10.5.50.0/24, with peers.
fn stage() -> Result<(World, Vec<Peer>, Member)> {
    let world = World::new()?;
    world.put_raw("10.5.50.0-24", r#"{"PublicIP":"192.168.77.1"}"#)?;
    let peers = world.peers(201..=203)?;
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    Ok((world, peers, member))
}

#[test]
fn every_bad_record_is_named_with_its_reason_in_log_status_and_metrics_and_touches_nobody() -> Result<()> {
    let (world, mut peers, mut member) = stage()?;
    let bad = bad_records(&member.vtep_identity()?.1);
    let monitor = Monitor::start(&member.host)?;
    let strays = ["test", "10.5.240.0", "10.5.240.1-24", "10.5.240.0-33", "config", "10.5.240.0-24/more"];
    for stray in strays {
        world.put_raw(stray, "x")?;
    }
    for (name, value, _) in &bad {
        world.put_raw(name, value)?;
    }
    // Whatever was put before this one has been looked at once this one is there.
    peers.push(world.put(Peer::new(204))?);
    member.wait_peers(&peers)?;
    let status = member.agent.status_json()?;
    let mut amiss = Vec::new();
    for (number, (name, _, word)) in (strays.len()..).zip(&bad) {
        // The first ten of a minute are told one by one; the status has all.
        let lines = member.log_lines(&["lease rejected", name]);
        match reason(&status, name) {
            Some(reason) if reason.contains(word) && lines == usize::from(number < 10) => {}
            other => amiss.push(format!("{name}: {other:?} instead of {word:?}; {lines} lines")),
        }
    }
    ensure!(amiss.is_empty(), "{amiss:#?}\n{}", member.agent.log());
    ensure!(status["rejected"].as_array().map(Vec::len) == Some(bad.len()), "{:#}", status["rejected"]);
    ensure!(status["stray_keys"] == 6, "{}", status["stray_keys"]);
    member.wait_metric("loden_rejected_records", f64::from(u32::try_from(bad.len())?))?;
    member.wait_metric("loden_stray_keys", 6.0)?;
    member.wait_metric("loden_peers", 4.0)?;
    member.wait_log(&["nobody's lease", "10.5.240.1-24"])?;
    ensure!(bad.len() > 10 && member.log_lines(&["many odd leases"]) == 1, "{}", member.agent.log());
    let touched: Vec<_> =
        monitor.so_far()?.into_iter().filter(|line| !line.contains("10.5.204.0") && !line.contains("02:00:00:00:00:cc")).collect();
    ensure!(touched.is_empty(), "{touched:#?}");
    member.ensure_ready()?;

    // The same from a list as from a watch.
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;
    let status = member.agent.status_json()?;
    ensure!(status["rejected"].as_array().map(Vec::len) == Some(bad.len()) && status["stray_keys"] == 6, "{status:#}");
    // What is mended or deleted is no longer held against anybody.
    for (name, ..) in &bad {
        world.etcd.del(&format!("{}{name}", testkit::world::SUBNETS))?;
    }
    member.wait_metric("loden_rejected_records", 0.0)?;
    member.wait_peers(&peers)
}

#[test]
fn a_peer_whose_record_turns_bad_keeps_its_last_good_one_even_over_a_restart() -> Result<()> {
    let (world, peers, mut member) = stage()?;
    let monitor = Monitor::start(&member.host)?;
    for (peer, value) in peers.iter().zip(["{", &record("0.0.0.0", "02:00:00:00:00:ca"), &record("192.168.77.203", "00:00:00:00:00:00")]) {
        world.put_raw(&peer.name(), value)?;
    }
    member.wait_metric("loden_rejected_records", 3.0)?;
    let status = member.agent.status_json()?;
    let kept = status["peers"].as_array().context("no peers")?.iter().filter(|peer| peer["state"] == "kept_last").count();
    ensure!(kept == 3 && status["ready"] == true, "{status:#}");
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_metric("loden_rejected_records", 3.0)?;
    member.wait_peers(&peers)?;
    ensure!(monitor.so_far()?.is_empty(), "{:#?}", monitor.so_far()?);
    // A good one again, with other values.
    let mended = world.put(peers[0].at("192.168.77.66"))?;
    member.wait_peers([&mended, &peers[1], &peers[2]])?;
    member.wait_metric("loden_rejected_records", 2.0)?;
    world.etcd.del(&peers[1].key())?;
    member.wait_peers([&mended, &peers[2]])
}

#[test]
fn the_younger_of_two_that_conflict_waits_until_the_older_is_gone() -> Result<()> {
    let (world, peers, member) = stage()?;
    let clone = world.put(Peer::new(205).with_mac(&peers[0].mac))?;
    member.wait_metric("loden_rejected_records", 1.0)?;
    member.wait_peers(&peers)?;
    world.etcd.del(&peers[0].key())?;
    member.wait_peers([&peers[1], &peers[2], &clone])?;
    member.wait_metric("loden_rejected_records", 0.0)
}

#[test]
fn two_leases_with_one_address_are_both_followed_and_reported() -> Result<()> {
    let (world, mut peers, member) = stage()?;
    peers.push(world.put(Peer::new(205).at(&peers[0].address))?);
    member.wait_peers(&peers)?;
    let status = member.wait_status("a warning", |status| status["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()))?;
    let warnings = status["warnings"].to_string();
    ensure!(["10.5.201.0/24", "10.5.205.0/24", "192.168.77.201"].iter().all(|word| warnings.contains(word)), "{warnings}");
    member.ensure_ready()
}

#[test]
fn a_lease_of_another_backend_is_ignored_with_a_warning_and_is_no_error() -> Result<()> {
    let (world, peers, member) = stage()?;
    world.put_raw("10.5.210.0-24", r#"{"PublicIP":"192.168.77.210","BackendType":"host-gw"}"#)?;
    world.put_raw("10.5.211.0-24", r#"{"PublicIP":"192.168.77.211","BackendType":"udp","BackendData":"what it likes"}"#)?;
    member.wait_log(&["WARN", "another backend", "10.5.211.0-24"])?;
    member.wait_log(&["WARN", "another backend", "10.5.210.0-24"])?;
    member.wait_peers(&peers)?;
    member.wait_metric("loden_rejected_records", 0.0)
}

#[test]
fn fields_that_nobody_knows_and_names_in_other_letters_are_no_fault() -> Result<()> {
    let (world, mut peers, member) = stage()?;
    let peer = Peer::new(210);
    let value = format!(
        r#"{{"publicip":"{}","Nonsense":{{"a":[1]}},"backendTYPE":"vxlan","backenddata":{{"vni":1,"vtepMac":"{}","More":true}},"Owner":null}}"#,
        peer.address,
        peer.mac.to_uppercase()
    );
    world.put_raw(&peer.name(), &value)?;
    peers.push(peer);
    member.wait_peers(&peers)
}

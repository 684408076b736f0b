//! Whatever stands under a key: it is refused in one short line, or it says the same again when written, in flannel's
//! shape; and what is made a peer of it keeps every rule for peers.
#![no_main]

use std::net::IpAddr;

use lease::{Entry, Expiry, LeaseKey, LeaseRecord, MacAddr, Revision, Vni, VtepData};
use libfuzzer_sys::fuzz_target;
use overlay::{Local, Verdict, judge};
use serde_json::Value;

// The key first, when there is a line end; then the value.
fuzz_target!(|bytes: &[u8]| {
    let (key, value) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (std::str::from_utf8(&bytes[..end]).unwrap_or_default(), &bytes[end + 1..]),
        None => ("10.5.7.0-24", bytes),
    };
    let record = LeaseRecord::decode(value);
    match &record {
        Ok(record) => says_the_same_again(record),
        Err(error) => short_line(&error.to_string()),
    }
    let Ok(key) = key.parse::<LeaseKey>() else { return };
    let entry = Entry { key, record, created: Revision(1), modified: Revision(1), expiry: Expiry::Never };
    for v6 in [false, true] {
        judged(&local(v6), &entry);
    }
});

fn says_the_same_again(record: &LeaseRecord) {
    let written = record.encode();
    assert_eq!(LeaseRecord::decode(written.as_bytes()).as_ref(), Ok(record));
    let document: Value = serde_json::from_str(&written).expect("JSON");
    assert!(document["PublicIP"].is_string() && document.get("PublicIPv6").is_some(), "{written}");
}

fn short_line(text: &str) {
    assert!(text.len() < 4_096 && !text.contains(|c: char| c.is_control()), "no short line: {text:?}");
}

fn local(v6: bool) -> Local {
    let (key, network, subnet_len, address) = if v6 {
        ("0.0.0.0-0&fc00:db8:0:1::-64", "fc00:db8::/48", 64, "fd77::1")
    } else {
        ("10.5.52.0-24", "10.5.0.0/16", 24, "192.168.77.1")
    };
    let key: LeaseKey = key.parse().expect("a key");
    let subnet = key.v4().or(key.v6()).expect("a subnet");
    Local {
        key,
        subnet,
        network: network.parse().expect("a network"),
        subnet_len,
        vtep: Some(VtepData { vni: Vni::new(1).expect("a VNI"), mac: MacAddr::new([2, 0, 0, 0, 0, 1]) }),
        addresses: vec![address.parse::<IpAddr>().expect("an address")],
    }
}

fn judged(local: &Local, entry: &Entry) {
    match judge(local, entry) {
        Verdict::Peer(peer) => {
            assert!(local.network.contains(peer.subnet.address()) && peer.subnet.len() >= local.subnet_len, "{peer:?}");
            assert!(!local.subnet.contains(peer.subnet.address()) && !peer.subnet.contains(local.subnet.address()), "{peer:?}");
            assert_eq!(peer.dst.is_ipv4(), local.network.is_ipv4(), "{peer:?}");
            assert!(!(peer.dst.is_multicast() || peer.dst.is_unspecified() || peer.dst.is_loopback()), "{peer:?}");
            assert!(!local.addresses.contains(&peer.dst) && !peer.subnet.contains(peer.dst), "{peer:?}");
            let mac = peer.mac.expect("a peer of a VXLAN host has a MAC");
            let octets = mac.octets();
            assert!(octets[0] & 1 == 0 && octets != [0; 6] && Some(mac) != local.vtep.map(|vtep| vtep.mac), "{peer:?}");
        }
        Verdict::Reject(reason) => short_line(&reason.to_string()),
        Verdict::None(_) => {}
    }
}

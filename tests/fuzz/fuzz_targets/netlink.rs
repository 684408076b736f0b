//! Whatever bytes the kernel were to send as notifications: they are decoded to events or told as lost, the same each
//! time; and what is planned after them takes away only what they said is there.
#![no_main]

use lease::{MacAddr, Mtu, Subnet, Vni};
use libfuzzer_sys::fuzz_target;
use overlay::{Desired, Device, Event, Ground, IfIndex, Key, Kind, Observed, Op, Peer, Scope, VtepSpec, fuzz_datagram, plan::plan_all};

/// Bytes of `struct nlmsghdr`, of which the first four are the message's length (include/uapi/linux/netlink.h).
const HEADER: usize = 16;

// The first byte chooses the circumstances, the rest is the datagram.
fuzz_target!(|bytes: &[u8]| {
    let Some((choice, datagram)) = bytes.split_first() else { return };
    let v6 = choice & 1 != 0;
    let network: Subnet = if v6 { "fc00::/8" } else { "10.0.0.0/8" }.parse().expect("a subnet");
    let mut datagram = datagram.to_vec();
    // So that the fuzzer need not guess how long its message has become.
    if choice & 8 != 0 && datagram.len() >= HEADER {
        let length = u32::try_from(datagram.len()).expect("a length");
        datagram[..4].copy_from_slice(&length.to_ne_bytes());
    }
    let scope = Scope { underlay: Some(IfIndex(2)), ways: choice & 16 != 0, ..Scope::of_device("flannel.1".to_owned(), network) };
    let device = (choice & 4 == 0).then(|| device(choice & 2 == 0));
    let events = fuzz_datagram(scope.clone(), device.clone(), &datagram);
    assert_eq!(events, fuzz_datagram(scope, device.clone(), &datagram));
    assert!(events.windows(2).all(|two| two != [Event::Lost, Event::Lost]), "{events:?}");
    let mut observed = Observed { device, ..Observed::default() };
    for event in &events {
        match (event, observed.fold(event)) {
            (Event::Route { key, to: _ }, told) => assert_eq!(told, Some(Key::Route(*key))),
            (Event::ForeignRoute { key, to: _ }, _) => assert!(network.covers(key.prefix), "{key} is no business of ours"),
            _ => {}
        }
    }
    let plan = plan_all(&desired(network), &observed);
    for op in plan.ops() {
        assert!(!format!("{}", op.on("flannel.1")).contains('\n'));
        match op {
            // The route to an IPv6 next hop alone is put before it is deleted.
            Op::DelRoute { key, .. } if plan.puts.iter().any(|put| put.key() == Key::Route(*key)) => {}
            Op::DelRoute { key, to } => assert_eq!(observed.routes.get(key), Some(to), "{key} was never there"),
            Op::DelRule(key) => assert!(observed.rules.contains(key), "{key} was never there"),
            Op::DelNeighbour { address } => assert!(observed.neighbours.contains_key(address), "{address} was never there"),
            Op::DelFdb { mac } => assert!(observed.fdb.contains_key(mac), "{mac} was never there"),
            Op::DelAddress { address, len } => assert!(observed.addresses.contains(&(*address, *len)), "{address} was never there"),
            Op::DelDevice => assert!(observed.device.is_some()),
            _ => {}
        }
    }
});

fn device(up: bool) -> Device {
    Device {
        index: IfIndex(1),
        kind: Kind::Other(String::new()),
        up,
        mtu: Mtu(1450),
        mac: MacAddr::new([0; 6]),
        no_link_local: true,
        accept_ra: None,
        threaded: None,
    }
}

/// One peer on the VTEP.
fn desired(network: Subnet) -> Desired {
    let v4 = network.is_ipv4();
    let (name, local, dst, own, subnet) = if v4 {
        ("flannel.1", "192.0.2.1", "192.0.2.2", "10.5.52.0", "10.5.7.0/24")
    } else {
        ("flannel-v6.1", "fd77::1", "fd77::2", "fc00:1::", "fc00:7::/64")
    };
    let vtep = VtepSpec {
        name: name.to_owned(),
        vni: Vni::new(1).expect("a VNI"),
        port: 8472,
        local: local.parse().expect("an address"),
        gbp: false,
        learning: false,
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        mtu: Mtu(1450),
        address: own.parse().expect("an address"),
        network,
    };
    let own = Subnet::host(vtep.address);
    let mut desired = Desired::new(Ground::tunnel(vtep, own));
    let mac = Some(MacAddr::new([2, 0, 0, 0, 0, 7]));
    let peer = Peer { subnet: subnet.parse().expect("a subnet"), mac, dst: dst.parse().expect("an address") };
    desired.put(peer, &mut |_| {});
    desired
}

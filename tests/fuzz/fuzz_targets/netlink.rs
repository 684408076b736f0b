//! Whatever bytes the kernel were to send as notifications, they are decoded to events or told as lost, and folded.
#![no_main]

use lease::{MacAddr, Mtu};
use libfuzzer_sys::fuzz_target;
use overlay::{Device, IfIndex, Kind, Observed, Scope, fuzz_datagram};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, datagram)) = bytes.split_first() else { return };
    let network = if choice & 1 == 0 { "10.0.0.0/8" } else { "fc00::/8" };
    let Ok(network) = network.parse() else { return };
    let scope = Scope { device: "flannel.1".to_owned(), network, underlay: Some(IfIndex(2)) };
    let device = Device {
        index: IfIndex(1),
        kind: Kind::Other(String::new()),
        up: choice & 2 == 0,
        mtu: Mtu(1450),
        mac: MacAddr::new([0; 6]),
        no_link_local: true,
        accept_ra: None,
        threaded: None,
    };
    let mut observed = Observed::default();
    for event in fuzz_datagram(scope, (choice & 4 == 0).then_some(device), datagram) {
        observed.fold(&event);
    }
});

//! What is encoded is decoded to what the operation said, for made-up operations; and made-up bytes are decoded to something.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lease::{MacAddr, Mtu, Subnet, Vni};
use netlink_packet_route::AddressFamily;
use nix::libc::{RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE};
use proptest::prelude::*;

use super::encode::{self, LONGEST};
use super::events::Watch;
use super::link::Link;
use super::wire::{Batch, Messages};
use crate::kernel::{Event, Scope};
use crate::{Device, FdbTo, IfIndex, Kind, Op, ROUTE_PROTOCOL, RouteKey, RouteTo, TABLE_MAIN, VtepSpec, Vxlan, Way};

const DEVICE: IfIndex = IfIndex(42);

fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    any::<u128>().prop_map(move |bits| {
        if v6 {
            Ipv6Addr::from_bits(bits >> 8 | 0xfc << 120).into()
        } else {
            Ipv4Addr::from_bits(u32::try_from(bits >> 104).unwrap_or(0) | 10 << 24).into()
        }
    })
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(|octets| MacAddr::new(octets).locally_administered())
}

/// An operation on an entry, and the event that the kernel tells of it in the same words.
fn entry() -> impl Strategy<Value = (bool, Op, Event)> {
    any::<bool>().prop_flat_map(|v6| {
        let subnet = (address(v6), 1..=if v6 { 128_u8 } else { 32 }).prop_map(|(address, len)| Subnet::containing(address, len).unwrap());
        let key = (subnet, any::<u32>()).prop_map(|(prefix, metric)| RouteKey { prefix, metric, table: TABLE_MAIN });
        let to = (prop::option::of(address(v6)), any::<bool>(), 3..=255_u8).prop_map(|(gateway, onlink, protocol)| RouteTo {
            way: Way::Tunnel,
            gateway,
            onlink,
            protocol,
            plain: true,
        });
        prop_oneof![
            (mac(), address(v6))
                .prop_map(|(mac, dst)| { (Op::PutFdb { mac, dst }, Event::Fdb { mac, to: Some(FdbTo { dst, plain: true }) }) }),
            (address(v6), mac())
                .prop_map(|(address, mac)| { (Op::PutNeighbour { address, mac }, Event::Neighbour { address, mac: Some(mac) }) }),
            address(v6).prop_map(|address| (Op::DelNeighbour { address }, Event::Neighbour { address, mac: None })),
            (key, to).prop_map(|(key, to)| (Op::PutRoute { key, to, replace: false }, Event::Route { key, to: Some(to) })),
            address(v6).prop_map(move |address| {
                (Op::PutAddress(address), Event::Address { address, len: if v6 { 128 } else { 32 }, present: true })
            }),
        ]
        .prop_map(move |(op, event)| (v6, op, event))
    })
}

fn spec() -> impl Strategy<Value = VtepSpec> {
    let flags = (any::<bool>(), any::<bool>());
    (any::<bool>(), 0..=Vni::MAX, any::<u16>(), flags, mac(), any::<u32>(), "[a-z0-9.-]{1,15}").prop_flat_map(
        |(v6, vni, port, (gbp, learning), mac, mtu, name)| {
            (address(v6), address(v6)).prop_map(move |(local, address)| VtepSpec {
                name: name.clone(),
                vni: Vni::new(u64::from(vni)).unwrap(),
                port,
                local,
                gbp,
                learning,
                mac,
                mtu: Mtu(mtu),
                address,
                network: Subnet::containing(address, 8).unwrap(),
            })
        },
    )
}

fn encoded(op: &Op) -> Batch {
    let (message, flags) = encode::message(op, DEVICE).unwrap();
    let batch = Batch::of(message, flags, 7);
    assert!(batch.bytes().len() <= LONGEST, "{} bytes", batch.bytes().len());
    batch
}

/// Attributes that are well formed and mean nothing, some of them with others within.
fn attributes() -> impl Strategy<Value = Vec<u8>> {
    let one = |value: BoxedStrategy<Vec<u8>>| {
        (0..80_u16, value).prop_map(|(kind, value)| {
            let len = u16::try_from(4 + value.len()).unwrap();
            let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
            [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &value, &padding].concat()
        })
    };
    let leaf = one(prop::collection::vec(any::<u8>(), 0..40).boxed()).boxed();
    leaf.prop_recursive(3, 64, 8, move |inner| one(prop::collection::vec(inner, 0..8).prop_map(|list| list.concat()).boxed()))
}

fn watch(v6: bool) -> Watch {
    let network = if v6 { "fc00::/8" } else { "10.0.0.0/8" };
    let scope = Scope { underlay: Some(IfIndex(2)), ..Scope::of_device("flannel.1".to_owned(), network.parse().unwrap()) };
    let mut watch = Watch::new(scope);
    watch.set(Some(&Device {
        index: DEVICE,
        kind: Kind::Other(String::new()),
        up: true,
        mtu: Mtu(1450),
        mac: MacAddr::new([0; 6]),
        no_link_local: true,
        accept_ra: None,
        threaded: None,
    }));
    watch
}

proptest! {
    #[test]
    fn an_entry_is_read_as_it_was_written((v6, op, event) in entry()) {
        let mut events = Vec::new();
        watch(v6).datagram(encoded(&op).bytes(), &mut events);
        prop_assert_eq!(events, [event]);
    }

    #[test]
    fn a_device_is_read_as_it_was_written(spec in spec()) {
        let written = encoded(&Op::CreateDevice(Box::new(spec.clone())));
        let message = Messages::new(written.bytes()).next().unwrap().unwrap();
        let link = Link::read(&message).unwrap().unwrap();
        let VtepSpec { name, vni, port, local, gbp, learning, mac, mtu, address: _, network: _ } = spec;
        prop_assert_eq!(link.name().unwrap(), name);
        let device = link.device().unwrap();
        prop_assert_eq!((device.mac, device.mtu), (mac, mtu));
        let vxlan = Vxlan { vni, port, local: Some(local), parent: None, learning, gbp, external: false };
        prop_assert_eq!(device.kind, Kind::Vxlan(vxlan));
    }

    #[test]
    fn what_cannot_be_decoded_is_lost_if_it_is_of_our_device_and_skipped_if_not((v6, op, _) in entry()) {
        // A route that carries our protocol number is ours wherever it leads.
        let ours = matches!(op, Op::PutRoute { to, .. } | Op::DelRoute { to, .. } if to.protocol == ROUTE_PROTOCOL);
        let elsewhere = if ours { vec![Event::Lost] } else { vec![] };
        for (device, expected) in [(DEVICE, vec![Event::Lost]), (IfIndex(43), elsewhere)] {
            let (message, flags) = encode::message(&op, device).unwrap();
            let mut bytes = Batch::of(message, flags, 7).bytes().to_vec();
            // One byte is too short for what this attribute is: IFA_CACHEINFO, NDA_PORT, RTA_PRIORITY.
            bytes.extend_from_slice(&[5, 0, 6, 0, 1, 0, 0, 0]);
            let len = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            let mut events = Vec::new();
            watch(v6).datagram(&bytes, &mut events);
            prop_assert_eq!(events, expected);
        }
    }

    #[test]
    fn whatever_comes_in_a_message_of_our_device_is_decoded_or_lost(
        kind in prop::sample::select(vec![RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH]),
        family in prop::sample::select(vec![AddressFamily::Unspec, AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Bridge]),
        attributes in prop::collection::vec(attributes(), 0..6),
    ) {
        // The fixed parts have the device's index in the same place, but for a route, of which it is an attribute.
        let mut fixed = [u8::from(family), 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let fixed = match kind {
            RTM_NEWADDR => &fixed[..8],
            RTM_NEWNEIGH => &fixed[..12],
            RTM_NEWROUTE => {
                fixed[4] = 254;
                &fixed[..12]
            }
            _ => &fixed,
        };
        let name = [14, 0, 3, 0, b'f', b'l', b'a', b'n', b'n', b'e', b'l', b'.', b'1', 0, 0, 0];
        let name = if kind == RTM_NEWLINK { &name[..] } else { &[] };
        let body = [fixed, name, &attributes.concat()].concat();
        let len = u32::try_from(16 + body.len()).unwrap();
        let message = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &body].concat();
        watch(family == AddressFamily::Inet6).datagram(&message, &mut Vec::new());
    }

    #[test]
    fn torn_messages_are_lost_and_nothing_worse((v6, op, _) in entry(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = encoded(&op).bytes().to_vec();
        let mut events = Vec::new();
        let at = at.index(bytes.len());
        watch(v6).datagram(&bytes[..at], &mut events);
        bytes[at] ^= 1 << bit;
        watch(v6).datagram(&bytes, &mut events);
    }
}

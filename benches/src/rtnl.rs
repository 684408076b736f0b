//! The netlink that the benchmark itself speaks, apart from the agent's.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use testkit::Namespace;

use crate::fleet::{Peer, SUBNET_LEN};

/// Larger than any answer that is asked for here.
const DATAGRAM: usize = 1 << 16;

/// A request socket in a namespace.
pub(crate) struct Rtnl {
    socket: Socket,
    sequence: u32,
}

/// Requests that go to the kernel in one system call; the last one asks for an answer.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    last: u32,
}

impl Rtnl {
    pub(crate) fn open(namespace: &Namespace) -> Result<Self> {
        namespace.within(|| {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket, sequence: 0 })
        })
    }

    /// Lays out requests that put something.
    pub(crate) fn batch(&mut self, requests: Vec<RouteNetlinkMessage>) -> Batch {
        let (mut bytes, count) = (Vec::new(), requests.len());
        for (nth, request) in requests.into_iter().enumerate() {
            let answer = if nth + 1 == count { NLM_F_ACK } else { 0 };
            self.append(request, NLM_F_CREATE | NLM_F_REPLACE | answer, &mut bytes);
        }
        Batch { bytes, last: self.sequence }
    }

    fn append(&mut self, request: RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        if let Some(place) = bytes.get_mut(start..) {
            message.serialize(place);
        }
    }

    /// Sends the batch. Whatever the kernel refuses is an error.
    pub(crate) fn send(&self, batch: &Batch) -> Result<()> {
        self.socket.send(&batch.bytes, 0)?;
        loop {
            for message in self.receive()? {
                if let NetlinkPayload::Error(error) = &message.payload {
                    ensure!(error.code.is_none(), "the kernel refuses: {}", error.to_io());
                    if message.header.sequence_number == batch.last {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether there is a route to exactly this subnet.
    pub(crate) fn has_route(&mut self, subnet: Ipv4Addr) -> Result<bool> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        request.header.destination_prefix_length = 32;
        request.header.flags = RouteFlags::FibMatch;
        request.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(subnet)));
        let mut bytes = Vec::new();
        self.append(RouteNetlinkMessage::GetRoute(request), 0, &mut bytes);
        self.socket.send(&bytes, 0)?;
        match self.receive()?.pop().context("the kernel does not answer")?.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => Ok(route.header.destination_prefix_length == SUBNET_LEN),
            // There is not even a default route.
            NetlinkPayload::Error(_) => Ok(false),
            other => bail!("the kernel gives an odd answer: {other:?}"),
        }
    }

    fn receive(&self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        self.socket.recv(&mut datagram, 0)?;
        let (mut rest, mut messages) = (datagram.as_slice(), Vec::new());
        while !rest.is_empty() {
            let message = NetlinkMessage::deserialize(rest)?;
            let length = usize::try_from(message.header.length)?.next_multiple_of(4);
            messages.push(message);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(messages)
    }
}

/// `bridge fdb replace MAC dev DEVICE dst HOST self permanent`
pub(crate) fn fdb(peer: &Peer, device: u32) -> RouteNetlinkMessage {
    let mut message = neighbour_message(AddressFamily::Bridge, device);
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(peer.mac.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(peer.host)));
    RouteNetlinkMessage::NewNeighbour(message)
}

/// `ip neigh replace SUBNET lladdr MAC dev DEVICE nud permanent`
pub(crate) fn neighbour(peer: &Peer, device: u32) -> RouteNetlinkMessage {
    let mut message = neighbour_message(AddressFamily::Inet, device);
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(peer.subnet)));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(peer.mac.to_vec()));
    RouteNetlinkMessage::NewNeighbour(message)
}

fn neighbour_message(family: AddressFamily, device: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = device;
    message.header.state = NeighbourState::Permanent;
    message
}

/// `ip route replace SUBNET via SUBNET dev DEVICE onlink [metric METRIC]`
pub(crate) fn route(peer: &Peer, device: u32, with_metric: bool) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: SUBNET_LEN,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        flags: RouteFlags::Onlink,
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(peer.subnet)));
    message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(peer.subnet)));
    message.attributes.push(RouteAttribute::Oif(device));
    if with_metric {
        message.attributes.push(RouteAttribute::Priority(peer.metric));
    }
    RouteNetlinkMessage::NewRoute(message)
}

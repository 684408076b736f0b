//! The only door to the kernel's dumps: one that failed, was interrupted or cannot be read is never taken for a short one.

use std::collections::{BTreeMap, BTreeSet};

use lease::Subnet;
use netlink_packet_core::{DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::answer::{self, Answer, Refusal};
use super::encode::family;
use super::entry::{self, Neighbour, Sight};
use super::link;
use super::requests::malformed;
use super::socket::{Received, Socket};
use super::wire::{Batch, Message, Messages};
use crate::kernel::{KernelError, Scope};
use crate::{IfIndex, Observed, TABLE_MAIN};

/// How often a dump is begun anew because something changed below it. Each time takes milliseconds.
const TRIES: usize = 20;

/// What to dump.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// All links.
    Links,
    /// The addresses of one interface, or of all.
    Addresses(Option<IfIndex>),
    /// The neighbours of one interface, of a family.
    Neighbours(IfIndex, AddressFamily),
    /// The FDB of one interface.
    Fdb(IfIndex),
    /// The rules of a family.
    Rules(AddressFamily),
    /// A table of a family.
    Routes(AddressFamily, u32),
}

impl What {
    fn call(self) -> &'static str {
        match self {
            Self::Links => "dump the links",
            Self::Addresses(_) => "dump the addresses",
            Self::Neighbours(..) => "dump the neighbours",
            Self::Fdb(_) => "dump the FDB",
            Self::Rules(_) => "dump the rules",
            Self::Routes(..) => "dump the routes",
        }
    }

    /// Strict checking makes the kernel honour what is set, and refuse what it would not.
    fn request(self) -> RouteNetlinkMessage {
        match self {
            Self::Links => {
                RouteNetlinkMessage::GetLink(LinkUnspec::new_with_index(0).append_extra_attribute(link::without_counters()).build())
            }
            Self::Addresses(of) => {
                let mut message = AddressMessage::default();
                message.header.index = of.map_or(0, |index| index.0);
                RouteNetlinkMessage::GetAddress(message)
            }
            Self::Neighbours(of, family) => {
                let mut message = NeighbourMessage::default();
                message.header.family = family;
                message.attributes.push(NeighbourAttribute::IfIndex(of.0));
                RouteNetlinkMessage::GetNeighbour(message)
            }
            Self::Fdb(of) => {
                let mut message = NeighbourMessage::default();
                message.header.family = AddressFamily::Bridge;
                message.header.ifindex = of.0;
                RouteNetlinkMessage::GetNeighbour(message)
            }
            Self::Rules(family) => {
                let mut message = RuleMessage::default();
                message.header.family = family;
                RouteNetlinkMessage::GetRule(message)
            }
            Self::Routes(family, table) => {
                let mut message = RouteMessage::default();
                message.header.address_family = family;
                message.attributes.push(RouteAttribute::Table(table));
                RouteNetlinkMessage::GetRoute(message)
            }
        }
    }
}

/// A request for a dump, and the way to whom it is put.
pub(crate) struct Question {
    call: &'static str,
    open: fn() -> Result<Socket, KernelError>,
    request: Vec<u8>,
}

impl Question {
    fn of(what: What) -> Self {
        Self::dump(what.call(), what.request())
    }

    /// One of route netlink that no [`What`] names.
    pub(super) fn dump(call: &'static str, request: RouteNetlinkMessage) -> Self {
        Self { call, open: Socket::for_requests, request: Batch::of(request, NLM_F_DUMP, SEQ).bytes().to_vec() }
    }

    /// One to nf_tables: the request is made with these flags and this number.
    pub(crate) fn of_filter(call: &'static str, request: impl FnOnce(u16, u32) -> Vec<u8>) -> Self {
        Self { call, open: || Socket::for_filter(DUMP_REQUEST), request: request(NLM_F_REQUEST | NLM_F_DUMP, SEQ) }
    }
}

/// Room for one request, which is a few names long (bytes).
const DUMP_REQUEST: usize = 4096;

/// Each dump has a socket of its own, so there is nothing to tell its answers from.
const SEQ: u32 = 1;

/// How a dump ended that did not succeed.
enum Broken {
    /// Something changed below it.
    Interrupted,
    Refused(Refusal),
    Failed(KernelError),
}

/// Dumps into a value. It is cleared when the dump has to be begun anew.
pub(super) async fn dump<T: Default>(
    what: What,
    into: &mut T,
    part: impl FnMut(&mut T, &Message<'_>) -> Result<(), DecodeError>,
) -> Result<(), KernelError> {
    ask(&Question::of(what), TRIES, into, part).await
}

/// Asks a question again until a dump comes whole, or none can be had.
pub(crate) async fn ask<T: Default>(
    question: &Question,
    tries: usize,
    into: &mut T,
    mut part: impl FnMut(&mut T, &Message<'_>) -> Result<(), DecodeError>,
) -> Result<(), KernelError> {
    for _ in 0..tries {
        match once(question, into, &mut part).await {
            Ok(()) => return Ok(()),
            Err(Broken::Interrupted) => {}
            // The device went away meanwhile, so nothing hangs on it; or the table has never had a route.
            Err(Broken::Refused(Refusal { errno: Errno::ENODEV | Errno::ENOENT, .. })) => {
                *into = T::default();
                return Ok(());
            }
            Err(Broken::Refused(refusal)) => return Err(refusal.into_error(question.call)),
            Err(Broken::Failed(error)) => return Err(error),
        }
        *into = T::default();
    }
    Err(KernelError::Interrupted { call: question.call })
}

async fn once<T>(
    question: &Question,
    into: &mut T,
    part: &mut impl FnMut(&mut T, &Message<'_>) -> Result<(), DecodeError>,
) -> Result<(), Broken> {
    let Question { call, open, request } = question;
    let mut socket = open().map_err(Broken::Failed)?;
    socket.send(call, request).await.map_err(Broken::Failed)?;
    let mut interrupted = false;
    loop {
        let Received::Datagram(datagram) = socket.receive(call).await.map_err(Broken::Failed)? else { return Err(Broken::Interrupted) };
        for message in Messages::new(datagram) {
            let message = message.map_err(|error| Broken::Failed(malformed(call)(error)))?;
            interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match answer::read(message).map_err(|error| Broken::Failed(malformed(call)(error)))? {
                Answer::Part(message) => part(into, &message).map_err(|error| Broken::Failed(malformed(call)(error)))?,
                Answer::Done if interrupted => return Err(Broken::Interrupted),
                Answer::Done => return Ok(()),
                Answer::Refused(refusal) => return Err(Broken::Refused(refusal)),
                Answer::Nothing => {}
            }
        }
    }
}

/// What was read of an interface that may not concern us. One that cannot be decoded is left out.
pub(super) fn or_left_out<T>(read: Result<Option<T>, DecodeError>) -> Option<T> {
    read.unwrap_or_else(|error| {
        tracing::warn!(%error, "an interface is left out, as the kernel's message on it cannot be decoded");
        None
    })
}

/// Adds to what was observed all that hangs on the device, the rules and the routes. Says which tables were looked at.
pub(super) async fn entries(scope: &Scope, device: Option<IfIndex>, observed: &mut Observed) -> Result<BTreeSet<u32>, KernelError> {
    let (family, network) = (family(scope.network.address()), scope.network);
    if let Some(index) = device {
        on_device(index, family, network, observed).await?;
    }
    dump(What::Rules(family), &mut observed.rules, |rules, message| {
        rules.extend(entry::rule(message, network)?);
        Ok(())
    })
    .await?;
    let tables: BTreeSet<u32> = observed.rules.iter().map(|rule| rule.table).chain([TABLE_MAIN, scope.table]).collect();
    for table in &tables {
        let mut routes = <(BTreeMap<_, _>, BTreeMap<_, _>)>::default();
        dump(What::Routes(family, *table), &mut routes, |(ours, foreign), message| {
            if let Some(route) = entry::route(message, Sight { network, device, tables: &tables })? {
                // Of several with one key the kernel uses, and tells, the first.
                if route.ours {
                    ours.entry(route.key).or_insert(route.to);
                } else if network.covers(route.key.prefix) {
                    foreign.entry(route.key).or_insert(route.to);
                }
            }
            Ok(())
        })
        .await?;
        let (mut ours, mut foreign) = routes;
        observed.routes.append(&mut ours);
        observed.foreign.append(&mut foreign);
    }
    Ok(tables)
}

async fn on_device(index: IfIndex, family: AddressFamily, network: Subnet, observed: &mut Observed) -> Result<(), KernelError> {
    dump(What::Addresses(Some(index)), &mut observed.addresses, |addresses, message| {
        addresses.extend(entry::address(message, Some(index))?.map(|found| (found.handle, found.len)));
        Ok(())
    })
    .await?;
    let ipv6 = !network.is_ipv4();
    dump(What::Neighbours(index, family), &mut observed.neighbours, |neighbours, message| {
        if let Some(Neighbour::Ip(address, Some(mac))) = entry::neighbour(message, index, ipv6)? {
            neighbours.insert(address, mac);
        }
        Ok(())
    })
    .await?;
    dump(What::Fdb(index), &mut observed.fdb, |fdb, message| {
        if let Some(Neighbour::Fdb(mac, Some(to))) = entry::neighbour(message, index, ipv6)? {
            fdb.insert(mac, to);
        }
        Ok(())
    })
    .await
}

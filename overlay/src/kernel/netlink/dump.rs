//! The only door to the kernel's dumps: one that failed, was interrupted or cannot be read is never taken for a short one.

use std::collections::btree_map;

use nix::errno::Errno;

use super::abi::{
    AF_BRIDGE, AF_UNSPEC, IFLA_EXT_MASK, NDA_IFINDEX, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, RTEXT_FILTER_SKIP_STATS, RTM_GETADDR,
    RTM_GETLINK, RTM_GETNEIGH, RTM_GETROUTE,
};
use super::answer::{self, Answer, Refusal};
use super::encode::family;
use super::entry::{self, Neighbour};
use super::requests::{malformed, protocol};
use super::socket::{Received, Socket};
use super::wire::{Malformed, Message, Messages, Writer};
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
    Neighbours(IfIndex, u8),
    /// The FDB of one interface.
    Fdb(IfIndex),
    /// The main table of a family.
    Routes(u8),
}

impl What {
    fn call(self) -> &'static str {
        match self {
            Self::Links => "dump the links",
            Self::Addresses(_) => "dump the addresses",
            Self::Neighbours(..) => "dump the neighbours",
            Self::Fdb(_) => "dump the FDB",
            Self::Routes(_) => "dump the routes",
        }
    }

    /// Fixed parts: `struct ifinfomsg`, `ifaddrmsg`, `ndmsg`, `rtmsg`. Strict checking makes the kernel honour what is set.
    fn encode(self, to: &mut Writer) {
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        match self {
            Self::Links => {
                to.begin(RTM_GETLINK, flags, SEQ, &[0; 16]);
                to.attr(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
            }
            Self::Addresses(of) => {
                let [i0, i1, i2, i3] = of.map_or(0, |index| index.0).to_ne_bytes();
                to.begin(RTM_GETADDR, flags, SEQ, &[AF_UNSPEC, 0, 0, 0, i0, i1, i2, i3]);
            }
            Self::Neighbours(of, family) => {
                to.begin(RTM_GETNEIGH, flags, SEQ, &[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                to.attr(NDA_IFINDEX, &of.0.to_ne_bytes());
            }
            Self::Fdb(of) => {
                let [i0, i1, i2, i3] = of.0.to_ne_bytes();
                to.begin(RTM_GETNEIGH, flags, SEQ, &[AF_BRIDGE, 0, 0, 0, i0, i1, i2, i3, 0, 0, 0, 0]);
            }
            Self::Routes(family) => {
                let [.., table] = TABLE_MAIN.to_be_bytes();
                to.begin(RTM_GETROUTE, flags, SEQ, &[family, 0, 0, 0, table, 0, 0, 0, 0, 0, 0, 0]);
            }
        }
        to.end();
    }
}

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
    mut part: impl FnMut(&mut T, &Message<'_>) -> Result<(), Malformed>,
) -> Result<(), KernelError> {
    for _ in 0..TRIES {
        match once(what, into, &mut part).await {
            Ok(()) => return Ok(()),
            Err(Broken::Interrupted) => {}
            // The device went away meanwhile, so nothing hangs on it; or the table has never had a route.
            Err(Broken::Refused(Refusal { errno: Errno::ENODEV | Errno::ENOENT, .. })) => {
                *into = T::default();
                return Ok(());
            }
            Err(Broken::Refused(refusal)) => return Err(refusal.into_error(what.call())),
            Err(Broken::Failed(error)) => return Err(error),
        }
        *into = T::default();
    }
    Err(protocol(what.call(), "interrupted again and again by changes"))
}

async fn once<T>(what: What, into: &mut T, part: &mut impl FnMut(&mut T, &Message<'_>) -> Result<(), Malformed>) -> Result<(), Broken> {
    let call = what.call();
    let mut socket = Socket::for_requests().map_err(Broken::Failed)?;
    let mut writer = Writer::default();
    what.encode(&mut writer);
    socket.send(call, writer.bytes()).await.map_err(Broken::Failed)?;
    let mut interrupted = false;
    loop {
        let Received::Datagram(datagram) = socket.receive(call).await.map_err(Broken::Failed)? else { return Err(Broken::Interrupted) };
        for message in Messages::new(datagram) {
            let message = message.map_err(|error| Broken::Failed(malformed(call)(error)))?;
            interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
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

/// Adds to what was observed all that hangs on the device, and the routes that lead elsewhere.
pub(super) async fn entries(scope: &Scope, device: Option<IfIndex>, observed: &mut Observed) -> Result<(), KernelError> {
    let family = family(scope.network.address());
    if let Some(index) = device {
        dump(What::Addresses(Some(index)), &mut observed.addresses, |addresses, message| {
            if let Some(found) = entry::address(message)?.filter(|found| found.index == index) {
                addresses.insert((found.address, found.len));
            }
            Ok(())
        })
        .await?;
        let ipv6 = !scope.network.is_ipv4();
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
        .await?;
    }
    let mut routes = Default::default();
    dump(What::Routes(family), &mut routes, |(ours, foreign): &mut (btree_map::BTreeMap<_, _>, btree_map::BTreeMap<_, _>), message| {
        if let Some(route) = entry::route(message)? {
            // Of several with one key the kernel uses, and tells, the first.
            if device.is_some() && route.out == device {
                ours.entry(route.key).or_insert(route.to);
            } else if scope.network.covers(route.key.prefix) {
                foreign.entry(route.key).or_insert(route.out);
            }
        }
        Ok(())
    })
    .await?;
    (observed.routes, observed.foreign) = routes;
    Ok(())
}

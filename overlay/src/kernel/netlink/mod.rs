//! The real kernel, by route netlink.
//!
//! One [`Netlink`] has two sockets in the network namespace of the thread that opened it: one for requests, one for
//! notifications; each dump has one more. The messages are netlink-packet-route's, made by rtnetlink's builders; the sockets are
//! driven here and not by rtnetlink, which sends one message at a time and hands on a failed dump as a short one.

mod answer;
mod doer;
mod dump;
mod encode;
mod entry;
mod events;
mod explain;
mod handover;
mod interfaces;
mod link;
mod napi;
mod requests;
#[cfg(test)]
mod roundtrip;
mod socket;
mod sysctl;
mod wire;

use std::net::IpAddr;

use self::dump::{What, dump};
use self::events::lost;
use self::explain::{Verdict, verdict};
use self::link::Link;
use self::napi::Ear;
use self::requests::{MAX_MESSAGES, Requests};
pub(crate) use self::socket::{Received, Socket};
use crate::kernel::{Event, Failure, Kernel, KernelError, Scope, errno_number};
use crate::{Device, IfIndex, Key, Observed, Op, Way};

pub(crate) use self::answer::{Answer, Refusal, read as read_answer};
pub(crate) use self::dump::{Question, ask};
pub(crate) use self::events::Watch;
pub use self::handover::{Leftover, allow_link_local, leftovers};
pub(crate) use self::interfaces::read as read_interfaces;
pub use self::interfaces::vxlan_links;
pub(crate) use self::wire::{Message, Messages};

const EVENTS: &str = "read the kernel's notifications";

/// The kernel's network stack in one namespace, as far as the scope goes.
pub struct Netlink {
    requests: Requests,
    notifications: Socket,
    watch: Watch,
    /// Notifications that were read while something else was done.
    pending: Vec<Event>,
    /// The device whose NAPI is listened to; none within where that cannot be.
    ear: Option<(IfIndex, Option<Ear>)>,
    /// Whether it was said that it cannot be.
    said_deaf: bool,
}

impl Netlink {
    /// Opens the sockets in the calling thread's network namespace. Notifications are kept from now on.
    ///
    /// # Errors
    /// [`KernelError`] when a socket cannot be had.
    pub fn open(scope: Scope) -> Result<Self, KernelError> {
        let notifications = Socket::for_events(&events::groups(&scope))?;
        let (requests, mut watch) = (Requests::open()?, Watch::new(scope));
        watch.set_own_port(requests.port()?);
        Ok(Self { requests, notifications, watch, pending: Vec::new(), ear: None, said_deaf: false })
    }

    /// Turns to the device that there is now.
    fn listen_to_napi(&mut self) {
        let Self { watch, pending, ear, .. } = self;
        let Some(index) = watch.index() else { return *ear = None };
        if ear.as_ref().is_some_and(|(of, _)| *of == index) {
            return;
        }
        let device = watch.scope().device_name();
        let new = Ear::new(device, index);
        if new.is_none() && !std::mem::replace(&mut self.said_deaf, true) {
            tracing::warn!(device, "not seen whether its NAPI is threaded: /sys shows another network namespace, or nothing");
        }
        if napi::threaded(device, index) == Some(true) {
            // Since it was read last.
            pending.push(Event::Threaded(true));
        }
        *ear = Some((index, new));
    }

    /// Reads the notifications that are there into `pending`, so that their buffer does not overrun.
    fn drain(&mut self) -> Result<(), KernelError> {
        while let Some(received) = self.notifications.take(EVENTS)? {
            take_in(&received, &mut self.watch, &mut self.pending);
        }
        if let Some((index, Some(ear))) = &mut self.ear
            && ear.was_written()
        {
            self.pending.extend(told(&self.watch, *index));
        }
        Ok(())
    }

    /// The device under the VTEP's name, if there is one.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel cannot be asked.
    pub async fn device(&mut self) -> Result<Option<Device>, KernelError> {
        let Self { requests, watch, .. } = self;
        let Some(name) = &watch.scope().device else { return Ok(None) };
        let device = requests.link(name, |message| Link::read(message)?.map(|link| link.device()).transpose()).await?;
        Ok(device.flatten())
    }

    /// The device's index: as the last notification has it, else as the kernel says.
    async fn index(&mut self) -> Result<Option<IfIndex>, KernelError> {
        match self.watch.index() {
            Some(index) => Ok(Some(index)),
            None => Ok(self.device().await?.map(|device| device.index)),
        }
    }

    /// Reads the device anew behind operations on it, and tells it. Of a device that is down the kernel does not tell every change
    /// (`netdev_state_change`, net/core/dev.c, v6.18), nor of the `accept_ra` of any; of an IPv6 address it tells
    /// only when its work queue comes to it.
    async fn tell_device(&mut self) -> Result<Option<IfIndex>, KernelError> {
        let Some(device) = self.device().await? else { return Ok(None) };
        let index = device.index;
        self.drain()?;
        self.watch.set(Some(&device));
        self.pending.push(Event::Device(device));
        dump(What::Addresses(Some(index)), &mut self.pending, |pending, message| {
            let found = entry::address(message, Some(index))?;
            pending.extend(found.map(|entry::Address { address, len, .. }| Event::Address { address, len, present: true }));
            Ok(())
        })
        .await?;
        Ok(Some(index))
    }

    /// Does a setting.
    async fn setting(&mut self, index: usize, op: &Op, failures: &mut Vec<Failure>) -> Result<(), KernelError> {
        match sysctl::write(op, self.watch.scope().device_name()) {
            Some(Err(unwritten)) => {
                failures.push(Failure { index, errno: errno_number(unwritten.errno), reason: unwritten.reason });
            }
            // Without a device there is no such setting, as there is none where IPv6 is off.
            Some(Ok(())) if op.key() == Key::Device && self.tell_device().await?.is_none() => {
                failures.extend(explain::no_device(index, op, self.watch.scope().device_name()));
            }
            Some(Ok(())) | None => {}
        }
        Ok(())
    }
}

impl Kernel for Netlink {
    async fn dump(&mut self) -> Result<Observed, KernelError> {
        // What was told until now, the dump shows. Only the underlay is not in it.
        self.drain()?;
        self.pending.retain(|event| matches!(event, Event::Underlay));
        let device = self.device().await?;
        self.watch.set(device.as_ref());
        let forwarding = sysctl::forwarding(!self.watch.scope().network.is_ipv4());
        let index = device.as_ref().map(|device| device.index);
        let mut observed = Observed { forwarding, device, ..Observed::default() };
        let tables = dump::entries(self.watch.scope(), index, &mut observed).await?;
        self.watch.set_tables(tables);
        Ok(observed)
    }

    async fn near(&mut self, addresses: &[IpAddr]) -> Result<Vec<Option<IfIndex>>, KernelError> {
        let mut near = self.requests.near(addresses).await?;
        // What is on the device is reached through the tunnel.
        let device = self.watch.index();
        near.iter_mut().for_each(|index| *index = index.filter(|index| Some(*index) != device));
        Ok(near)
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, KernelError> {
        let mut failures = Vec::new();
        let mut device = self.index().await?;
        let mut start = 0;
        while let Some(op) = ops.get(start) {
            let len = chunk_len(ops.get(start..).unwrap_or_default(), device.is_some());
            let chunk = start..start + len.max(1);
            if len == 0 {
                self.setting(start, op, &mut failures).await?;
            } else if device.is_none() && needs_device(op) {
                let name = self.watch.scope().device_name();
                failures.extend(chunk.clone().zip(ops.iter().skip(start)).filter_map(|(index, op)| explain::no_device(index, op, name)));
            } else {
                for (index, refusal) in self.requests.apply(ops, chunk.clone(), device.unwrap_or(IfIndex(0))).await? {
                    let Some(op) = ops.get(index) else { continue };
                    match verdict(op, &refusal) {
                        Verdict::Success => {}
                        Verdict::NoRight => return Err(refusal.into_error("apply changes")),
                        Verdict::Failure(reason) => failures.push(Failure { index, errno: errno_number(refusal.errno), reason }),
                        Verdict::Taken(reason) => {
                            let reason = format!("{reason}{}", explain::taken_by(op).await?);
                            failures.push(Failure { index, errno: errno_number(refusal.errno), reason });
                        }
                    }
                }
                self.drain()?;
                if ops.get(chunk.clone()).unwrap_or_default().iter().any(|op| op.key() == Key::Device) {
                    device = self.tell_device().await?;
                }
            }
            start = chunk.end;
        }
        Ok(failures)
    }

    async fn wait_events(&mut self, events: &mut Vec<Event>) -> Result<(), KernelError> {
        self.take_events(events)?;
        while events.is_empty() {
            let Self { notifications, watch, ear, .. } = self;
            // Nothing is kept across the await but what is in the socket, and nothing awaits behind it.
            tokio::select! {
                received = notifications.wait(EVENTS) => take_in(&received?, watch, events),
                index = written(ear.as_mut()) => events.extend(told(watch, index)),
            }
        }
        self.take_events(events)
    }

    fn take_events(&mut self, events: &mut Vec<Event>) -> Result<(), KernelError> {
        self.drain()?;
        self.listen_to_napi();
        events.append(&mut self.pending);
        Ok(())
    }
}

/// Waits until the device's NAPI setting has been written.
async fn written(ear: Option<&mut (IfIndex, Option<Ear>)>) -> IfIndex {
    if let Some((index, Some(ear))) = ear
        && ear.written().await
    {
        return *index;
    }
    std::future::pending().await
}

/// What the device's NAPI setting is now.
fn told(watch: &Watch, index: IfIndex) -> Option<Event> {
    napi::threaded(watch.scope().device_name(), index).map(Event::Threaded)
}

fn take_in(received: &Received<'_>, watch: &mut Watch, events: &mut Vec<Event>) {
    match received {
        Received::Datagram(datagram) => watch.datagram(datagram, events),
        Received::Overrun => lost(events),
    }
}

/// How many of the next operations go in one system call; 0 when the next is a setting, which goes by itself. Behind a device that is
/// made or deleted a new chunk begins, as its index is another. Without a device, what needs one does not go with what does not.
fn chunk_len(ops: &[Op], device: bool) -> usize {
    match ops.first() {
        Some(Op::CreateDevice(_) | Op::DelDevice) => 1,
        Some(first) => ops
            .iter()
            .take(MAX_MESSAGES)
            .take_while(|op| !matches!(op, Op::EnableForwarding { .. } | Op::DisableAcceptRa | Op::CreateDevice(_) | Op::DelDevice))
            .take_while(|op| device || needs_device(op) == needs_device(first))
            .count(),
        None => 0,
    }
}

/// Whether the operation is one on a device that has to be there.
fn needs_device(op: &Op) -> bool {
    match op {
        Op::PutRoute { to, .. } | Op::DelRoute { to, .. } => to.way == Way::Tunnel,
        Op::CreateDevice(_) | Op::EnableForwarding { .. } | Op::PutRule(_) | Op::DelRule(_) => false,
        Op::DelDevice
        | Op::SetLocal(_)
        | Op::SetLearning(_)
        | Op::SetMac(_)
        | Op::SetMtu(_)
        | Op::DisableLinkLocal
        | Op::DisableAcceptRa
        | Op::PutAddress(_)
        | Op::DelAddress { .. }
        | Op::SetUp
        | Op::PutFdb { .. }
        | Op::DelFdb { .. }
        | Op::PutNeighbour { .. }
        | Op::DelNeighbour { .. } => true,
    }
}

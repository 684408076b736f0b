//! The writer: many messages to a system call, and the result of each.
//!
//! Only a chunk's last message asks for an acknowledgement. The kernel answers every message that fails and goes on with
//! the rest, so what is neither answered nor the last has succeeded once the last is answered.

use std::net::IpAddr;
use std::ops::Range;

use lease::Subnet;
use nix::errno::Errno;

use super::abi::{
    IFLA_EXT_MASK, IFLA_IFNAME, NLM_F_ACK, NLM_F_REQUEST, RTA_DST, RTA_OIF, RTA_PREFSRC, RTEXT_FILTER_SKIP_STATS, RTM_GETLINK, RTM_GETROUTE,
};
use super::answer::{self, Answer, Refusal};
use super::encode::{self, LONGEST, family};
use super::socket::{Received, Socket};
use super::wire::{Malformed, Message, Messages, Writer, address_of, split, u32_of};
use crate::kernel::KernelError;
use crate::{IfIndex, Op};

/// Messages to a system call: more gain next to nothing, and 256 errors fit the default receive buffer (measured on 6.18).
pub(super) const MAX_MESSAGES: usize = 128;

/// What the kernel takes in one piece is bounded by the send buffer, by default 208 KiB (net.core.wmem_default).
const _: () = assert!(MAX_MESSAGES * LONGEST <= 64 * 1024);

const APPLY: &str = "apply changes";

/// A socket for requests, and the number of the last one.
pub(super) struct Requests {
    socket: Socket,
    seq: u32,
    writer: Writer,
}

impl Requests {
    pub(super) fn open() -> Result<Self, KernelError> {
        Ok(Self { socket: Socket::for_requests()?, seq: 0, writer: Writer::default() })
    }

    /// Sends operations that are all messages on this device, and says which were refused. What overran the receive buffer is
    /// sent again in halves: a put or a delete can be repeated. Only a new route that went through the first time is
    /// then refused as being there; the notification of the first time says the rest.
    pub(super) async fn apply(&mut self, ops: &[Op], chunk: Range<usize>, device: IfIndex) -> Result<Vec<(usize, Refusal)>, KernelError> {
        let mut refused = Vec::new();
        let mut todo = vec![chunk];
        while let Some(chunk) = todo.pop() {
            let before = refused.len();
            if !self.send(ops, chunk.clone(), device, &mut refused).await? {
                refused.truncate(before);
                if chunk.len() <= 1 {
                    return Err(protocol(APPLY, "the answer to a single message does not fit the socket's buffer"));
                }
                let middle = chunk.start.midpoint(chunk.end);
                todo.extend([middle..chunk.end, chunk.start..middle]);
            }
        }
        Ok(refused)
    }

    /// False when answers were lost.
    async fn send(
        &mut self,
        ops: &[Op],
        chunk: Range<usize>,
        device: IfIndex,
        refused: &mut Vec<(usize, Refusal)>,
    ) -> Result<bool, KernelError> {
        let first = self.seq.wrapping_add(1);
        self.writer.clear();
        for op in ops.get(chunk.clone()).unwrap_or_default() {
            self.seq = self.seq.wrapping_add(1);
            if !encode::op(op, device, self.seq, &mut self.writer) {
                return Err(protocol(APPLY, "an operation that is no message came among messages"));
            }
        }
        self.writer.add_flags(NLM_F_ACK);
        self.socket.send(APPLY, self.writer.bytes()).await?;
        loop {
            let Received::Datagram(datagram) = self.socket.receive(APPLY).await? else { return Ok(false) };
            for message in Messages::new(datagram) {
                let message = message.map_err(malformed(APPLY))?;
                // Answers to a request that was given up have other numbers.
                let Some(nth) = usize::try_from(message.seq.wrapping_sub(first)).ok().filter(|nth| *nth < chunk.len()) else { continue };
                if let Answer::Refused(refusal) = answer::read(message).map_err(malformed(APPLY))? {
                    refused.push((chunk.start + nth, refusal));
                }
                if message.seq == self.seq {
                    return Ok(true);
                }
            }
        }
    }

    /// Asks for one link by its name and reads it; none where there is no such link. It waits for the kernel's configuration
    /// lock (rtnl), so a change of a link that is under way is over when this returns.
    pub(super) async fn link<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Message<'_>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, KernelError> {
        const CALL: &str = "look up the device";
        self.seq = self.seq.wrapping_add(1);
        self.writer.clear();
        self.writer.begin(RTM_GETLINK, NLM_F_REQUEST, self.seq, &[0; 16]);
        self.writer.attr(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        self.writer.attr(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        self.writer.end();
        self.one(CALL, read).await
    }

    /// Asks by which interface, and from which of our addresses, the kernel would reach an address; none where it would not.
    pub(super) async fn reach(&mut self, address: IpAddr) -> Result<Option<(Option<IfIndex>, Option<IpAddr>)>, KernelError> {
        self.seq = self.seq.wrapping_add(1);
        self.writer.clear();
        let len = Subnet::host(address).len();
        self.writer.begin(RTM_GETROUTE, NLM_F_REQUEST, self.seq, &[family(address), len, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.writer.address(RTA_DST, address);
        self.writer.end();
        self.one("look up a route", |message| {
            let ([..], attrs) = split::<12>(message.body)?;
            let (mut out, mut source) = (None, None);
            for attr in attrs {
                match attr? {
                    (RTA_OIF, value) => out = Some(IfIndex(u32_of(value)?)),
                    (RTA_PREFSRC, value) => source = Some(address_of(value)?),
                    _ => {}
                }
            }
            Ok((out, source))
        })
        .await
    }

    /// Sends what is written and reads the one answer; none where the kernel says that there is no such device or no way.
    async fn one<T>(
        &mut self,
        call: &'static str,
        read: impl FnOnce(&Message<'_>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, KernelError> {
        self.socket.send(call, self.writer.bytes()).await?;
        loop {
            let Received::Datagram(datagram) = self.socket.receive(call).await? else {
                return Err(protocol(call, "the answer was lost"));
            };
            for message in Messages::new(datagram) {
                let message = message.map_err(malformed(call))?;
                if message.seq != self.seq {
                    continue;
                }
                match answer::read(message).map_err(malformed(call))? {
                    Answer::Part(message) => return read(&message).map(Some).map_err(malformed(call)),
                    Answer::Refused(Refusal { errno: Errno::ENODEV | Errno::ENETUNREACH | Errno::EHOSTUNREACH, .. }) => return Ok(None),
                    Answer::Refused(refusal) => return Err(refusal.into_error(call)),
                    Answer::Done | Answer::Nothing => {}
                }
            }
        }
    }
}

pub(super) fn malformed(call: &'static str) -> impl Fn(Malformed) -> KernelError {
    move |error| KernelError::Protocol { call, reason: error.to_string() }
}

pub(super) fn protocol(call: &'static str, reason: &str) -> KernelError {
    KernelError::Protocol { call, reason: reason.to_owned() }
}

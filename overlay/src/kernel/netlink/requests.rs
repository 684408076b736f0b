//! The writer: many messages to a system call, and the result of each.
//!
//! Only a chunk's last message asks for an acknowledgement. The kernel answers every message that fails and goes on with
//! the rest, so what is neither answered nor the last has succeeded once the last is answered.

use std::net::IpAddr;
use std::ops::Range;

use lease::Subnet;
use netlink_packet_core::{DecodeError, NLM_F_ACK};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::answer::{self, Answer, Refusal};
use super::encode::{self, LONGEST, family};
use super::entry::{self, route_address};
use super::link;
use super::socket::{Received, Socket};
use super::wire::{Batch, Message, Messages, decode};
use crate::kernel::KernelError;
use crate::{IfIndex, Op};

/// Messages to a system call: more gain next to nothing, and 256 errors fit the default receive buffer (measured on 6.18).
pub(super) const MAX_MESSAGES: usize = 128;

/// What the kernel takes in one piece is bounded by the send buffer, by default 208 KiB (net.core.wmem_default).
const _: () = assert!(MAX_MESSAGES * LONGEST <= 64 * 1024);

/// Questions to a system call: their answers, some 1 KiB each with the kernel's bookkeeping, fit the default receive buffer.
const MAX_QUESTIONS: usize = 64;

const APPLY: &str = "apply changes";
const LOOK_UP: &str = "look up a route";

/// A socket for requests, and the number of the last one.
pub(super) struct Requests {
    socket: Socket,
    seq: u32,
    batch: Batch,
}

impl Requests {
    pub(super) fn open() -> Result<Self, KernelError> {
        Ok(Self { socket: Socket::for_requests()?, seq: 0, batch: Batch::default() })
    }

    /// The port under which what it does is told.
    pub(super) fn port(&self) -> Result<u32, KernelError> {
        self.socket.port()
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
        self.batch.clear();
        let last = chunk.len().saturating_sub(1);
        for (nth, op) in ops.get(chunk.clone()).unwrap_or_default().iter().enumerate() {
            self.seq = self.seq.wrapping_add(1);
            let Some((message, flags)) = encode::message(op, device) else {
                return Err(protocol(APPLY, "an operation that is no message came among messages"));
            };
            self.batch.push(message, if nth == last { flags | NLM_F_ACK } else { flags }, self.seq);
        }
        self.socket.send(APPLY, self.batch.bytes()).await?;
        loop {
            let Received::Datagram(datagram) = self.socket.receive(APPLY).await? else { return Ok(false) };
            for message in Messages::new(datagram) {
                let message = message.map_err(malformed(APPLY))?;
                // Answers to a request that was given up have other numbers.
                let Some(nth) = usize::try_from(message.sequence_number().wrapping_sub(first)).ok().filter(|nth| *nth < chunk.len()) else {
                    continue;
                };
                if let Answer::Refused(refusal) = answer::read(message).map_err(malformed(APPLY))? {
                    refused.push((chunk.start + nth, refusal));
                }
                if nth == last {
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
        read: impl FnMut(&Message<'_>) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, KernelError> {
        let message = LinkUnspec::new_with_name(name).append_extra_attribute(link::without_counters()).build();
        self.one("look up the device", RouteNetlinkMessage::GetLink(message), read).await
    }

    /// Asks by which interface, and from which of our addresses, the kernel would reach an address; none where it would not.
    pub(super) async fn reach(&mut self, address: IpAddr) -> Result<Option<(Option<IfIndex>, Option<IpAddr>)>, KernelError> {
        self.one(LOOK_UP, way_to(address), |message| {
            let RouteNetlinkMessage::NewRoute(RouteMessage { attributes, .. }) = decode(message)? else { return Ok((None, None)) };
            let (mut out, mut source) = (None, None);
            for attribute in attributes {
                match attribute {
                    RouteAttribute::Oif(index) => out = Some(IfIndex(index)),
                    RouteAttribute::PrefSource(address) => source = Some(route_address(&address)?),
                    _ => {}
                }
            }
            Ok((out, source))
        })
        .await
    }

    /// Has one thing done that is no operation on the device. With the refusal, where the kernel refuses.
    pub(super) async fn order(
        &mut self,
        call: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<Refusal>, KernelError> {
        self.exchange(call, message, flags | NLM_F_ACK, |answer| {
            Ok(match answer {
                Answer::Refused(refusal) => Some(Some(refusal)),
                Answer::Done => Some(None),
                Answer::Part(_) | Answer::Nothing => None,
            })
        })
        .await
    }

    /// Asks by which interface the kernel would reach each address with no gateway between; none where it would not. Many questions go in
    /// one system call; those whose answers overran the receive buffer are put again in halves.
    pub(super) async fn near(&mut self, addresses: &[IpAddr]) -> Result<Vec<Option<IfIndex>>, KernelError> {
        let mut near = vec![None; addresses.len()];
        let chunks = (0..addresses.len()).step_by(MAX_QUESTIONS).map(|start| start..addresses.len().min(start + MAX_QUESTIONS));
        let mut todo: Vec<Range<usize>> = chunks.collect();
        while let Some(chunk) = todo.pop() {
            let (questions, answers) = (addresses.get(chunk.clone()).unwrap_or_default(), near.get_mut(chunk.clone()).unwrap_or_default());
            if !self.ask(questions, answers).await? {
                if chunk.len() <= 1 {
                    return Err(protocol(LOOK_UP, "the answer to a single question does not fit the socket's buffer"));
                }
                let middle = chunk.start.midpoint(chunk.end);
                todo.extend([middle..chunk.end, chunk.start..middle]);
            }
        }
        Ok(near)
    }

    /// Each question has one answer. False when answers were lost.
    async fn ask(&mut self, questions: &[IpAddr], answers: &mut [Option<IfIndex>]) -> Result<bool, KernelError> {
        let first = self.seq.wrapping_add(1);
        self.batch.clear();
        for address in questions {
            self.seq = self.seq.wrapping_add(1);
            self.batch.push(way_to(*address), 0, self.seq);
        }
        self.socket.send(LOOK_UP, self.batch.bytes()).await?;
        let mut open = questions.len();
        while open > 0 {
            let Received::Datagram(datagram) = self.socket.receive(LOOK_UP).await? else { return Ok(false) };
            for message in Messages::new(datagram) {
                let message = message.map_err(malformed(LOOK_UP))?;
                let nth = usize::try_from(message.sequence_number().wrapping_sub(first)).ok();
                let Some(answer) = nth.and_then(|nth| answers.get_mut(nth)) else { continue };
                match answer::read(message).map_err(malformed(LOOK_UP))? {
                    // One that cannot be decoded is of a way that is not plain.
                    Answer::Part(message) => *answer = entry::near(&message).unwrap_or_default(),
                    // There is no way, or one that refuses.
                    Answer::Refused(_) | Answer::Done => *answer = None,
                    Answer::Nothing => continue,
                }
                open -= 1;
            }
        }
        Ok(true)
    }

    /// Sends a question and reads the one answer; none where the kernel says that there is no such device or no way.
    async fn one<T>(
        &mut self,
        call: &'static str,
        question: RouteNetlinkMessage,
        mut read: impl FnMut(&Message<'_>) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, KernelError> {
        self.exchange(call, question, 0, |answer| match answer {
            Answer::Part(message) => read(&message).map(|read| Some(Some(read))).map_err(malformed(call)),
            Answer::Refused(Refusal { errno: Errno::ENODEV | Errno::ENETUNREACH | Errno::EHOSTUNREACH, .. }) => Ok(Some(None)),
            Answer::Refused(refusal) => Err(refusal.into_error(call)),
            Answer::Done | Answer::Nothing => Ok(None),
        })
        .await
    }

    /// Sends one request, and gives its answers to `read` until that has made something of one.
    async fn exchange<T>(
        &mut self,
        call: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
        mut read: impl FnMut(Answer<'_>) -> Result<Option<T>, KernelError>,
    ) -> Result<T, KernelError> {
        self.seq = self.seq.wrapping_add(1);
        self.socket.send(call, Batch::of(request, flags, self.seq).bytes()).await?;
        loop {
            let Received::Datagram(datagram) = self.socket.receive(call).await? else {
                return Err(protocol(call, "the answer was lost"));
            };
            for message in Messages::new(datagram) {
                let message = message.map_err(malformed(call))?;
                if message.sequence_number() != self.seq {
                    continue;
                }
                if let Some(read) = read(answer::read(message).map_err(malformed(call))?)? {
                    return Ok(read);
                }
            }
        }
    }
}

/// The question by which way the kernel would reach an address.
fn way_to(address: IpAddr) -> RouteNetlinkMessage {
    let mut question = RouteMessage::default();
    question.header.address_family = family(address);
    question.header.destination_prefix_length = Subnet::host(address).len();
    question.attributes.push(RouteAttribute::Destination(address.into()));
    RouteNetlinkMessage::GetRoute(question)
}

pub(super) fn malformed(call: &'static str) -> impl Fn(DecodeError) -> KernelError {
    move |error| KernelError::Protocol { call, reason: format!("a message of the kernel cannot be decoded: {error}") }
}

pub(super) fn protocol(call: &'static str, reason: &str) -> KernelError {
    KernelError::Protocol { call, reason: reason.to_owned() }
}

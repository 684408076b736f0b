//! As little of rtnetlink as it takes to list entries, delete one, and hear of changes: an oracle apart from the agent's
//! own netlink code. Numbers are those of linux/netlink.h and linux/rtnetlink.h.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::Namespace;

/// The length of `struct nlmsghdr`; messages and attributes are aligned to four bytes.
const HEADER: usize = 16;
/// The length of `struct rtmsg` and of `struct ndmsg`, which begin with the address family.
pub(crate) const BODY: usize = 12;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
/// An answer that the kernel itself gives comes at once.
const ANSWER: Duration = Duration::from_secs(5);
/// Larger than any packet that the kernel sends (32 KiB in a dump).
const BUFFER: usize = 1 << 16;

/// A message without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The value of a route's, neighbour's or FDB entry's attribute.
    pub(crate) fn attribute(&self, wanted: u16) -> Option<&[u8]> {
        self.attribute_behind(BODY, wanted)
    }

    /// The value of an attribute behind a fixed part of this length.
    pub(crate) fn attribute_behind(&self, fixed: usize, wanted: u16) -> Option<&[u8]> {
        let mut rest = self.body.get(fixed..)?;
        loop {
            let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
            let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
            if kind == wanted {
                return rest.get(4..length);
            }
            rest = rest.get(length.max(4).next_multiple_of(4)..)?;
        }
    }

    /// The number that stands at this offset of the body.
    pub(crate) fn number_at(&self, offset: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.body.get(offset..)?.first_chunk()?))
    }
}

/// A socket of a namespace's `NETLINK_ROUTE`.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Opens one that hears these groups (RTMGRP_*).
    pub(crate) fn open(namespace: &Namespace, groups: u32) -> Result<Self> {
        namespace.within(|| {
            let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
            Ok(Self(socket))
        })
    }

    /// All entries that a dump request of this kind and family lists.
    pub(crate) fn dump(&self, kind: u16, family: u8) -> Result<Vec<Message>> {
        self.dump_of(kind, family, BODY)
    }

    /// The same, of messages whose fixed part has this length.
    pub(crate) fn dump_of(&self, kind: u16, family: u8, fixed: usize) -> Result<Vec<Message>> {
        let mut body = vec![family];
        body.resize(fixed, 0);
        loop {
            self.request(&Message { kind, flags: NLM_F_DUMP, body: body.clone() })?;
            // One that the tables changed under may lack entries.
            if let Some(all) = self.dumped()? {
                return Ok(all);
            }
        }
    }

    fn dumped(&self) -> Result<Option<Vec<Message>>> {
        let (mut all, mut whole) = (Vec::new(), true);
        loop {
            for message in self.answer()? {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return fail(&message).map(|()| whole.then_some(all)),
                    NLMSG_ERROR => fail(&message)?,
                    _ => all.push(message),
                }
            }
        }
    }

    /// Sends a request that is to be acknowledged.
    pub(crate) fn request_change(&self, kind: u16, body: Vec<u8>) -> Result<()> {
        self.request(&Message { kind, flags: NLM_F_ACK, body })
    }

    /// Reads the acknowledgement.
    pub(crate) fn acknowledged(&self) -> Result<()> {
        self.answer()?.iter().filter(|message| message.kind == NLMSG_ERROR).try_for_each(fail)
    }

    fn request(&self, message: &Message) -> Result<()> {
        let Message { kind, flags, body } = message;
        let mut bytes = u32::try_from(HEADER + body.len())?.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | *flags).to_ne_bytes());
        // Sequence and port: one request is under way at a time, and the kernel fills in the sender.
        bytes.extend([0; 8]);
        bytes.extend(body);
        send(self.0.as_raw_fd(), &bytes, MsgFlags::empty()).context("cannot ask the kernel").map(drop)
    }

    fn answer(&self) -> Result<Vec<Message>> {
        let messages = self.receive(ANSWER)?;
        ensure!(!messages.is_empty(), "the kernel does not answer");
        Ok(messages)
    }

    /// The messages of the next packet; none when none comes within `patience`.
    pub(crate) fn receive(&self, patience: Duration) -> Result<Vec<Message>> {
        // No time at all would mean for ever.
        let micros = i64::try_from(patience.as_micros())?.max(1);
        setsockopt(&self.0, sockopt::ReceiveTimeout, &TimeVal::new(micros / 1_000_000, micros % 1_000_000))?;
        let mut buffer = vec![0; BUFFER];
        let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error).context("cannot hear the kernel"),
        };
        let mut rest = buffer.get(..length).unwrap_or_default();
        let mut messages = Vec::new();
        while let Some((message, after)) = split(rest) {
            messages.push(message);
            rest = after;
        }
        Ok(messages)
    }
}

/// The first message and what follows it.
fn split(bytes: &[u8]) -> Option<(Message, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let flags = u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?.to_vec();
    Some((Message { kind, flags, body }, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn fail(message: &Message) -> Result<()> {
    // Both `struct nlmsgerr` and the body of NLMSG_DONE begin with a negated errno, 0 where all went well.
    match message.number_at(0) {
        Some(0) => Ok(()),
        Some(number) => bail!("the kernel refuses: {}", Errno::from_raw(i32::from_ne_bytes(number.to_ne_bytes()).wrapping_neg())),
        None => bail!("the kernel's answer is too short"),
    }
}

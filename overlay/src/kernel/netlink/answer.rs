//! What the kernel answers: an acknowledgement, or an error with its extended text.

use netlink_packet_core::{
    DecodeError, ErrorMessage, NLM_F_ACK_TLVS, NLM_F_CAPPED, NetlinkBuffer, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::libc::RTM_NEWLINK;

use super::wire::Message;
use crate::kernel::KernelError;

/// `NLMSGERR_ATTR_MSG` (include/uapi/linux/netlink.h, v6.18): the attribute that is the extended text. The library leaves what comes
/// behind an error's code as bytes.
const TEXT: u16 = 1;

/// `sizeof(struct nlmsghdr)`.
const HEADER: usize = 16;

/// What a message is to the one who asked.
pub(crate) enum Answer<'a> {
    /// A part of what was asked for.
    Part(Message<'a>),
    /// All of it has come.
    Done,
    /// The request was refused.
    Refused(Refusal),
    /// Something without meaning here (`NLMSG_NOOP`).
    Nothing,
}

/// Why the kernel refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    /// The kernel's extended text; often empty.
    pub(crate) text: String,
}

impl Refusal {
    /// The kernel's codes are negative error numbers (netlink(7)).
    fn new(code: i32, text: String) -> Self {
        Self { errno: Errno::from_raw(code.saturating_neg()), text }
    }

    /// The error as the kernel words it: `network is unreachable (Nexthop has invalid gateway)`.
    pub(crate) fn reason(&self) -> String {
        let Self { errno, text } = self;
        let name = errno.desc();
        let mut letters = name.chars();
        let name: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
        if text.is_empty() { name } else { format!("{name} ({text})") }
    }

    /// As the error of a request that should not fail.
    pub(crate) fn into_error(self, call: &'static str) -> KernelError {
        match self.errno {
            Errno::EPERM | Errno::EACCES => KernelError::Permission { call, capability: "CAP_NET_ADMIN" },
            errno => KernelError::Refused { call, errno, reason: self.reason() },
        }
    }
}

/// Reads an answer. A part is left to be decoded by who knows whether it is of concern.
pub(crate) fn read(message: Message<'_>) -> Result<Answer<'_>, DecodeError> {
    if message.message_type() >= RTM_NEWLINK {
        return Ok(Answer::Part(message));
    }
    let flags = message.flags();
    Ok(match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message.buffer)?.payload {
        NetlinkPayload::Done(done) if done.code == 0 => Answer::Done,
        // The error of a dump comes in its end mark, as does its text.
        NetlinkPayload::Done(done) => Answer::Refused(Refusal::new(done.code, text(flags, &done.extended_ack))),
        NetlinkPayload::Error(ErrorMessage { code: None, .. }) => Answer::Done,
        NetlinkPayload::Error(error) => Answer::Refused(Refusal::new(error.raw_code(), text(flags, behind_request(flags, &error.header)))),
        _ => Answer::Nothing,
    })
}

/// An error repeats the request's header, and all of the request where it is not capped.
fn behind_request(flags: u16, rest: &[u8]) -> &[u8] {
    let len = if flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        NetlinkBuffer::new_checked(rest).ok().and_then(|request| usize::try_from(request.length()).ok()).unwrap_or(usize::MAX)
    };
    len.checked_next_multiple_of(4).and_then(|len| rest.get(len..)).unwrap_or_default()
}

fn text(flags: u16, attributes: &[u8]) -> String {
    if flags & NLM_F_ACK_TLVS == 0 {
        return String::new();
    }
    let text = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == TEXT);
    text.map(|text| String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned()).unwrap_or_default()
}

//! What the kernel answers: an acknowledgement, or an error with its extended text.

use nix::errno::Errno;

use super::abi::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE, NLMSG_ERROR, NLMSGERR_ATTR_MSG, RTM_BASE};
use super::wire::{Attrs, HEADER, Malformed, Message, array};
use crate::kernel::KernelError;

/// What a message is to the one who asked.
pub(super) enum Answer<'a> {
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
pub(super) struct Refusal {
    pub(super) errno: Errno,
    /// The kernel's extended text; often empty.
    pub(super) text: String,
}

impl Refusal {
    /// The error as the kernel words it: `network is unreachable (Nexthop has invalid gateway)`.
    pub(super) fn reason(&self) -> String {
        let Self { errno, text } = self;
        let name = errno.desc();
        let mut letters = name.chars();
        let name: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
        if text.is_empty() { name } else { format!("{name} ({text})") }
    }

    /// As the error of a request that should not fail.
    pub(super) fn into_error(self, call: &'static str) -> KernelError {
        match self.errno {
            Errno::EPERM | Errno::EACCES => KernelError::Permission { call, capability: "CAP_NET_ADMIN" },
            _ => KernelError::Protocol { call, reason: self.reason() },
        }
    }
}

/// Reads an answer.
pub(super) fn read(message: Message<'_>) -> Result<Answer<'_>, Malformed> {
    Ok(match message.kind {
        NLMSG_DONE => match code(message.body) {
            Ok((0, _)) | Err(_) => Answer::Done,
            // The error of a dump comes in its end mark, as does its text.
            Ok((code, rest)) => Answer::Refused(Refusal { errno: errno(code), text: text(message.flags, rest) }),
        },
        NLMSG_ERROR => {
            let (code, rest) = code(message.body)?;
            if code == 0 {
                Answer::Done
            } else {
                Answer::Refused(Refusal { errno: errno(code), text: text(message.flags, behind_request(message.flags, rest)) })
            }
        }
        kind if kind < RTM_BASE => Answer::Nothing,
        _ => Answer::Part(message),
    })
}

fn code(body: &[u8]) -> Result<(i32, &[u8]), Malformed> {
    let (code, rest) = body.split_first_chunk::<4>().ok_or(Malformed("an answer is shorter than its code"))?;
    Ok((i32::from_ne_bytes(*code), rest))
}

/// The kernel's codes are negative error numbers (netlink(7)).
fn errno(code: i32) -> Errno {
    Errno::from_raw(code.saturating_neg())
}

/// An error repeats the request's header, and all of the request where it is not capped.
fn behind_request(flags: u16, rest: &[u8]) -> &[u8] {
    let len = if flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        let len = rest.first_chunk::<4>().map_or(0, |len| u32::from_ne_bytes(*len));
        usize::try_from(len).unwrap_or(usize::MAX).max(HEADER)
    };
    len.checked_next_multiple_of(4).and_then(|len| rest.get(len..)).unwrap_or_default()
}

fn text(flags: u16, attrs: &[u8]) -> String {
    if flags & NLM_F_ACK_TLVS == 0 {
        return String::new();
    }
    let text = Attrs::new(attrs).flatten().find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG);
    text.map(|(_, text)| c_string(text)).unwrap_or_default()
}

/// A string that ends at its first zero byte.
pub(super) fn c_string(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// A string attribute compared without a copy.
pub(super) fn is_string(value: &[u8], text: &str) -> bool {
    value.strip_suffix(&[0]).unwrap_or(value) == text.as_bytes()
}

/// One byte.
pub(super) fn u8_of(value: &[u8]) -> Result<u8, Malformed> {
    array::<1>(value).map(|[byte]| byte)
}

//! Netlink's framing: the messages of a datagram, and a datagram of messages. The messages themselves are netlink-packet-route's.
//!
//! Reading is total: whatever the bytes, it ends in a value or in a [`DecodeError`].

use netlink_packet_core::{DecodeError, NLM_F_REQUEST, NLMSG_ALIGNTO, NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;

/// One message of a datagram, of which only the header has been read.
pub(crate) type Message<'a> = NetlinkBuffer<&'a [u8]>;

/// The messages of a datagram. Ends after the first whose length cannot be.
pub(crate) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = NetlinkBuffer::new_checked(self.0);
        let len = message.as_ref().ok().and_then(|message| usize::try_from(message.length()).ok());
        self.0 = len.and_then(|len| self.0.get(align(len)..)).unwrap_or_default();
        Some(message)
    }
}

/// Decodes a whole message.
pub(super) fn decode(message: &Message<'_>) -> Result<RouteNetlinkMessage, DecodeError> {
    match NetlinkMessage::deserialize(message.buffer)?.payload {
        NetlinkPayload::InnerMessage(message) => Ok(message),
        _ => Err("a control message came in place of an answer".into()),
    }
}

/// Requests, one behind the other, that go to the kernel in one piece.
#[derive(Default)]
pub(super) struct Batch(Vec<u8>);

impl Batch {
    /// One request.
    pub(super) fn of(message: RouteNetlinkMessage, flags: u16, seq: u32) -> Self {
        let mut batch = Self::default();
        batch.push(message, flags, seq);
        batch
    }

    pub(super) fn push(&mut self, message: RouteNetlinkMessage, flags: u16, seq: u32) {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = seq;
        message.finalize();
        let (start, len) = (self.0.len(), message.buffer_len());
        self.0.resize(start + align(len), 0);
        if let Some(place) = self.0.get_mut(start..start + len) {
            message.serialize(place);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn align(len: usize) -> usize {
    len.next_multiple_of(usize::from(NLMSG_ALIGNTO))
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut batch = Batch::default();
        for seq in [7, 8] {
            // Three bytes with its end, so it is padded.
            batch.push(RouteNetlinkMessage::GetLink(rtnetlink::LinkUnspec::new_with_name("lo").build()), 4, seq);
        }
        let messages: Vec<_> = Messages::new(batch.bytes()).map(Result::unwrap).collect();
        assert_eq!(messages.iter().map(|m| (m.flags(), m.sequence_number())).collect::<Vec<_>>(), [(5, 7), (5, 8)]);
        for message in messages {
            assert!(matches!(decode(&message), Ok(RouteNetlinkMessage::GetLink(_))));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let batch = Batch::of(RouteNetlinkMessage::GetLink(LinkMessage::default()), 0, 1);
        for len in [0_u32, 15, 33, u32::MAX] {
            let mut bytes = batch.bytes().to_vec();
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            let read: Vec<_> = Messages::new(&bytes).collect();
            assert!(read.len() == 1 && read[0].is_err(), "length {len} was taken");
        }
    }
}

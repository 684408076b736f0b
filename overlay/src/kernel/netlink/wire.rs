//! Netlink's bytes: messages and attributes, read without copying and written into one buffer.
//!
//! Reading is total: whatever the bytes, it ends in a value or in [`Malformed`]. What an attribute means is not known here.

use std::net::IpAddr;

use super::abi::{NLA_F_NESTED, NLA_TYPE_MASK};

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
pub(super) const HEADER: usize = 16;
/// `struct nlattr`: length, type.
const ATTR_HEADER: usize = 4;

/// The bytes are not what the kernel writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink message: {0}")]
pub(crate) struct Malformed(pub(super) &'static str);

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// What it says, or one of the control types.
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    /// All behind the header.
    pub(super) body: &'a [u8],
}

/// The messages of a datagram. Ends after the first that is malformed.
pub(crate) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }

    fn read(&mut self) -> Result<Message<'a>, Malformed> {
        let (header, _) = self.0.split_first_chunk::<HEADER>().ok_or(Malformed("shorter than its header"))?;
        let [l0, l1, l2, l3, t0, t1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).map_err(|_| Malformed("longer than memory"))?;
        let message = self.0.get(..len).ok_or(Malformed("longer than its datagram"))?;
        let body = message.get(HEADER..).ok_or(Malformed("shorter than its header"))?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Ok(Message {
            kind: u16::from_ne_bytes([t0, t1]),
            flags: u16::from_ne_bytes([f0, f1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            body,
        })
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.0 = &[];
        }
        Some(read)
    }
}

/// Attributes: pairs of type and value. Ends after the first that is malformed.
#[derive(Clone, Copy)]
pub(super) struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn read(&mut self) -> Result<(u16, &'a [u8]), Malformed> {
        let (header, _) = self.0.split_first_chunk::<ATTR_HEADER>().ok_or(Malformed("an attribute is shorter than its header"))?;
        let [l0, l1, t0, t1] = *header;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(ATTR_HEADER..len).ok_or(Malformed("an attribute has an impossible length"))?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Ok((u16::from_ne_bytes([t0, t1]) & NLA_TYPE_MASK, value))
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.0 = &[];
        }
        Some(read)
    }
}

/// Splits a fixed header off a message's body.
pub(super) fn split<const N: usize>(body: &[u8]) -> Result<([u8; N], Attrs<'_>), Malformed> {
    let (header, rest) = body.split_first_chunk::<N>().ok_or(Malformed("shorter than its fixed part"))?;
    Ok((*header, Attrs::new(rest)))
}

/// A value of exactly `N` bytes.
pub(super) fn array<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed("an attribute has the wrong length"))
}

/// A number in the machine's byte order.
pub(super) fn u32_of(value: &[u8]) -> Result<u32, Malformed> {
    array(value).map(u32::from_ne_bytes)
}

/// An IPv4 or IPv6 address, told apart by length.
pub(super) fn address_of(value: &[u8]) -> Result<IpAddr, Malformed> {
    if value.len() == 4 { array::<4>(value).map(IpAddr::from) } else { array::<16>(value).map(IpAddr::from) }
}

/// Writes messages one behind the other.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    start: usize,
}

impl Writer {
    /// Begins a message: its header with the length left open, and its fixed part.
    pub(super) fn begin(&mut self, kind: u16, flags: u16, seq: u32, fixed: &[u8]) {
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.raw(fixed);
    }

    /// Adds an attribute.
    pub(super) fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(ATTR_HEADER + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value);
    }

    /// Adds an attribute that is an address.
    pub(super) fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attr(kind, &address.octets()),
            IpAddr::V6(address) => self.attr(kind, &address.octets()),
        }
    }

    /// Adds an attribute that holds others.
    pub(super) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.attr(kind | NLA_F_NESTED, &[]);
        inner(self);
        let len = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.patch(at, &len.to_ne_bytes());
    }

    /// Ends the message that was begun last.
    pub(super) fn end(&mut self) {
        let len = u32::try_from(self.bytes.len() - self.start).unwrap_or(u32::MAX);
        self.patch(self.start, &len.to_ne_bytes());
    }

    /// Adds flags to the message that was begun last.
    pub(super) fn add_flags(&mut self, flags: u16) {
        let at = self.start + 6;
        if let Some(old) = self.bytes.get(at..at + 2).and_then(|old| array::<2>(old).ok()) {
            self.patch(at, &(u16::from_ne_bytes(old) | flags).to_ne_bytes());
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    fn patch(&mut self, at: usize, with: &[u8]) {
        if let Some(there) = self.bytes.get_mut(at..at + with.len()) {
            there.copy_from_slice(with);
        }
    }
}

/// `NLMSG_ALIGN` and `NLA_ALIGN` (include/uapi/linux/netlink.h): four bytes.
const fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        for seq in [7, 8] {
            writer.begin(24, 5, seq, &[1, 2, 3, 4]);
            writer.attr(1, b"odd");
            writer.nest(2, |inner| inner.address(3, [10, 0, 0, 1].into()));
            writer.end();
        }
        writer.add_flags(0x100);
        let messages: Vec<_> = Messages::new(writer.bytes()).map(Result::unwrap).collect();
        assert_eq!(messages.iter().map(|m| (m.kind, m.flags, m.seq)).collect::<Vec<_>>(), [(24, 5, 7), (24, 0x105, 8)]);
        let (fixed, attrs) = split::<4>(messages[1].body).unwrap();
        assert_eq!(fixed, [1, 2, 3, 4]);
        let attrs: Vec<_> = attrs.map(Result::unwrap).collect();
        assert_eq!(attrs[0], (1, &b"odd"[..]));
        assert_eq!(attrs[1].0, 2);
        assert_eq!(Attrs::new(attrs[1].1).next(), Some(Ok((3, &[10, 0, 0, 1][..]))));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut writer = Writer::default();
        writer.begin(24, 0, 1, &[]);
        writer.end();
        for len in [0_u32, 15, 17, u32::MAX] {
            let mut bytes = writer.bytes().to_vec();
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            let read: Vec<_> = Messages::new(&bytes).collect();
            assert!(read.len() == 1 && read[0].is_err(), "length {len} was taken");
        }
        assert!(Attrs::new(&[3, 0, 1, 0]).next().unwrap().is_err());
        assert!(Attrs::new(&[5, 0, 1, 0]).next().unwrap().is_err());
    }
}

//! Netlink attributes as nf_tables has them: written one behind the other, nested, numbers in network order.

use netlink_packet_core::{DecodeError, NLA_F_NESTED, NLA_TYPE_MASK};

/// `sizeof(struct nlattr)` (include/uapi/linux/netlink.h, v6.18).
pub(super) const HEADER: usize = 4;

/// Appends attributes to a message.
pub(super) struct Attributes<'a>(pub(super) &'a mut Vec<u8>);

impl Attributes<'_> {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Text, with the zero byte at its end that the kernel wants.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    /// Attributes within one; together they must fit its length, 65 535 bytes.
    pub(super) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.bytes(kind | NLA_F_NESTED, &[]);
        inner(self);
        let len = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        if let Some(place) = self.0.get_mut(start..start + 2) {
            place.copy_from_slice(&len.to_ne_bytes());
        }
    }
}

/// The attributes in these bytes, each with its kind; ends after the first whose length cannot be.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), DecodeError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let ([a, b, c, d], _) = rest.split_first_chunk().unwrap_or((&[0; HEADER], &[]));
        let len = usize::from(u16::from_ne_bytes([*a, *b]));
        let kind = u16::from_ne_bytes([*c, *d]) & NLA_TYPE_MASK;
        let value = rest.get(HEADER..len);
        rest = value.and_then(|_| rest.get(len.next_multiple_of(4)..)).unwrap_or_default();
        Some(value.map(|value| (kind, value)).ok_or_else(|| "an attribute is longer than what is left".into()))
    })
}

/// The value of the first attribute of a kind.
pub(super) fn find(bytes: &[u8], kind: u16) -> Result<Option<&[u8]>, DecodeError> {
    for attribute in attributes(bytes) {
        let (found, value) = attribute?;
        if found == kind {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A number of this kind; none where there is no such attribute.
pub(super) fn number(bytes: &[u8], kind: u16) -> Result<Option<u32>, DecodeError> {
    let Some(value) = find(bytes, kind)? else { return Ok(None) };
    let value = <[u8; 4]>::try_from(value).map_err(|_| "a number is not four bytes long")?;
    Ok(Some(u32::from_be_bytes(value)))
}

/// Text of this kind; none where there is no such attribute.
pub(super) fn text(bytes: &[u8], kind: u16) -> Result<Option<String>, DecodeError> {
    let Some(value) = find(bytes, kind)? else { return Ok(None) };
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(value).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_lengths_that_lie_are_refused() {
        let mut bytes = Vec::new();
        Attributes(&mut bytes).nest(3, |inner| {
            inner.text(1, "pass24");
            inner.number(2, 7);
        });
        let inner = find(&bytes, 3).unwrap().unwrap();
        assert_eq!((text(inner, 1).unwrap().as_deref(), number(inner, 2).unwrap()), (Some("pass24"), Some(7)));
        assert_eq!(find(inner, 4).unwrap(), None);
        for len in [0_u16, 3, 200, u16::MAX] {
            bytes[..2].copy_from_slice(&len.to_ne_bytes());
            assert!(find(&bytes, 4).is_err(), "length {len} was taken");
        }
        assert!(find(&bytes[..3], 4).is_err());
    }
}

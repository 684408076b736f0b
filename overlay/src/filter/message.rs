//! nf_tables' messages: what we send, packed as transactions, and what the kernel says of our table.
//!
//! The numbers are those of include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h, v6.18.

use netlink_packet_core::{DecodeError, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};

use super::TableId;
use super::attribute::{Attributes, attributes, find, number, text};
use super::expr::{self, Expr};
use super::family::{address, octets};
use super::frame::{Base, Chain, Frame, Set};
use super::pass::{Pass, set_len, set_name};
use crate::kernel::Message;

const SUBSYS: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

pub(super) const NEWTABLE: u16 = SUBSYS;
pub(super) const GETTABLE: u16 = SUBSYS | 1;
pub(super) const DELTABLE: u16 = SUBSYS | 2;
pub(super) const NEWCHAIN: u16 = SUBSYS | 3;
pub(super) const GETCHAIN: u16 = SUBSYS | 4;
pub(super) const DELCHAIN: u16 = SUBSYS | 5;
pub(super) const NEWRULE: u16 = SUBSYS | 6;
pub(super) const GETRULE: u16 = SUBSYS | 7;
pub(super) const DELRULE: u16 = SUBSYS | 8;
pub(super) const NEWSET: u16 = SUBSYS | 9;
pub(super) const GETSET: u16 = SUBSYS | 10;
pub(super) const NEWSETELEM: u16 = SUBSYS | 12;
pub(super) const GETSETELEM: u16 = SUBSYS | 13;
pub(super) const DELSETELEM: u16 = SUBSYS | 14;
pub(super) const NEWGEN: u16 = SUBSYS | 15;

/// Of every object: the table's name, and where there is one the object's own. A rule's second is its chain's.
pub(super) const TABLE: u16 = 1;
pub(super) const NAME: u16 = 2;
/// Of a chain: its name, where it hangs, its policy, its type.
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
/// Of a rule: its expressions.
pub(super) const RULE_EXPRESSIONS: u16 = 4;

/// `sizeof(struct nlmsghdr)`.
const HEADER: usize = 16;
/// `sizeof(struct nfgenmsg)`.
pub(super) const FIXED: usize = 4;

/// Elements in a message: their list has to fit an attribute's length of 16 bits.
const ELEMENTS: usize = 1_000;
/// Bytes of an element: three headers and the key, two addresses.
const ELEMENT: usize = 3 * super::attribute::HEADER + 32;
const _: () = assert!(ELEMENTS * ELEMENT + super::attribute::HEADER <= 65_535);

/// A message to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    kind: u16,
    flags: u16,
    /// `struct nfgenmsg`, and attributes behind it.
    body: Vec<u8>,
}

impl Request {
    /// About a table, or about something in it.
    pub(super) fn new(kind: u16, flags: u16, table: &TableId, body: impl FnOnce(&mut Attributes<'_>)) -> Self {
        Self::of_family(kind, flags, table.nfproto, |attributes| {
            attributes.text(TABLE, &table.name);
            body(attributes);
        })
    }

    /// About all tables of a family; 0 is every one.
    pub(super) fn of_family(kind: u16, flags: u16, nfproto: u8, body: impl FnOnce(&mut Attributes<'_>)) -> Self {
        let mut bytes = vec![nfproto, 0, 0, 0];
        body(&mut Attributes(&mut bytes));
        Self { kind, flags, body: bytes }
    }

    /// The begin or the end of a transaction: it names the subsystem.
    fn frame(kind: u16) -> Self {
        let [high, low] = (SUBSYS >> 8).to_be_bytes();
        Self { kind, flags: 0, body: vec![0, 0, high, low] }
    }

    pub(super) fn len(&self) -> usize {
        HEADER + self.body.len()
    }

    /// Appends it with its header (`struct nlmsghdr`).
    pub(super) fn write(&self, datagram: &mut Vec<u8>, flags: u16, number: u32) {
        let Self { kind, flags: own, body } = self;
        datagram.extend(u32::try_from(self.len()).unwrap_or(u32::MAX).to_ne_bytes());
        datagram.extend(kind.to_ne_bytes());
        datagram.extend((NLM_F_REQUEST | own | flags).to_ne_bytes());
        datagram.extend(number.to_ne_bytes());
        datagram.extend([0; 4]);
        datagram.extend_from_slice(body);
    }
}

/// One transaction as one datagram, of messages numbered from `first`; the last but the end mark is acknowledged, and its number
/// is returned.
pub(super) fn transaction(requests: &[Request], first: u32) -> (Vec<u8>, u32) {
    let (begin, end) = (Request::frame(BATCH_BEGIN), Request::frame(BATCH_END));
    let mut datagram = Vec::with_capacity(requests.iter().chain([&begin, &end]).map(Request::len).sum());
    begin.write(&mut datagram, 0, first);
    let mut number = first;
    for (left, request) in (0..requests.len()).rev().zip(requests) {
        number = number.wrapping_add(1);
        request.write(&mut datagram, if left == 0 { NLM_F_ACK } else { 0 }, number);
    }
    end.write(&mut datagram, 0, number.wrapping_add(1));
    (datagram, number)
}

/// Asks for all elements of a set.
pub(super) fn get_elements(table: &TableId, set: &str) -> Request {
    Request::new(GETSETELEM, 0, table, |body| body.text(NAME, set))
}

/// Makes the table anew, whatever was there, in the order in which the kernel takes it; the elements go before the rules.
pub(super) fn replace(table: &TableId, frame: &Frame, passes: &[Pass]) -> Vec<Request> {
    let Frame { flags: _, chains, sets, rules } = frame;
    // To delete what is not there is an error, to make what is there is none.
    let mut all = vec![put_table(table), del_table(table), put_table(table)];
    for (id, (name, Set { flags, key_type, key_len })) in (1..).zip(sets) {
        all.push(Request::new(NEWSET, NLM_F_CREATE, table, |set| {
            set.text(NAME, name);
            for (kind, value) in [(3, *flags), (4, *key_type), (5, *key_len), (10, id)] {
                set.number(kind, value);
            }
        }));
    }
    all.extend(elements(NEWSETELEM, table, passes));
    for (name, Chain { base }) in chains {
        all.push(Request::new(NEWCHAIN, NLM_F_CREATE, table, |chain| {
            chain.text(CHAIN_NAME, name);
            if let Some(Base { kind, hook, priority, policy }) = base {
                chain.nest(CHAIN_HOOK, |place| {
                    place.number(1, *hook);
                    place.bytes(2, &priority.to_be_bytes());
                });
                chain.number(CHAIN_POLICY, *policy);
                chain.text(CHAIN_TYPE, kind);
            }
        }));
    }
    // The chain that hangs in a hook comes last: until then nothing is filtered.
    let mut chains: Vec<_> = rules.iter().collect();
    chains.sort_by_key(|(name, _)| frame.chains.get(*name).is_some_and(|chain| chain.base.is_some()));
    for (chain, rules) in chains {
        all.extend(rules.iter().map(|rule| put_rule(table, chain, rule)));
    }
    all
}

fn put_table(table: &TableId) -> Request {
    Request::new(NEWTABLE, NLM_F_CREATE, table, |_| ())
}

pub(super) fn del_table(table: &TableId) -> Request {
    Request::new(DELTABLE, 0, table, |_| ())
}

fn put_rule(table: &TableId, chain: &str, rule: &[Expr]) -> Request {
    Request::new(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, table, |body| {
        body.text(NAME, chain);
        body.nest(RULE_EXPRESSIONS, |list| rule.iter().for_each(|expr| expr.encode(list)));
    })
}

/// Puts or deletes elements.
pub(super) fn elements(kind: u16, table: &TableId, passes: &[Pass]) -> Vec<Request> {
    let flags = if kind == NEWSETELEM { NLM_F_CREATE } else { 0 };
    let sets = passes.chunk_by(|a, b| a.len == b.len).flat_map(|set| set.chunks(ELEMENTS));
    let one = |passes: &[Pass]| {
        Request::new(kind, flags, table, |body| {
            body.text(NAME, &set_name(passes.first().map_or(0, |pass| pass.len)));
            body.nest(3, |list| {
                for Pass { len: _, from, inner } in passes {
                    list.nest(1, |element| {
                        element.nest(1, |key| key.bytes(1, &[octets(*from), octets(*inner)].concat()));
                    });
                }
            });
        })
    };
    sets.map(one).collect()
}

/// What a message says of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// An element came or went.
    Element(Pass, bool),
    /// Something else came, went or changed.
    Table,
    /// By which socket, and by whom, the changes before this were made.
    By(u32, Changer),
}

/// A process that changed the rules of this network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changer {
    /// Its id, as the machine's first process namespace has it.
    pub pid: u32,
    /// Its name, or its thread's.
    pub name: String,
}

/// Reads a notification. Nothing where it is about another table.
pub(super) fn heard(message: &Message<'_>, table: &TableId) -> Result<Vec<Heard>, DecodeError> {
    let kind = message.message_type();
    if kind == NEWGEN {
        let body = message.payload().get(FIXED..).unwrap_or_default();
        let (pid, name) = (number(body, 2)?, text(body, 3)?);
        return Ok(pid.zip(name).map(|(pid, name)| Heard::By(message.port_number(), Changer { pid, name })).into_iter().collect());
    }
    let Some(body) = of_table(message, table)? else { return Ok(Vec::new()) };
    if kind != NEWSETELEM && kind != DELSETELEM {
        return Ok(vec![Heard::Table]);
    }
    let (passes, odd) = read_elements(body)?;
    let passes = passes.into_iter().map(|pass| Heard::Element(pass, kind == NEWSETELEM));
    Ok(passes.chain(odd.then_some(Heard::Table)).collect())
}

/// The attributes of a message, if it is about our table.
fn of_table<'a>(message: &Message<'a>, table: &TableId) -> Result<Option<&'a [u8]>, DecodeError> {
    let ours = table_of(message)?.as_ref() == Some(table);
    Ok(message.payload().get(FIXED..).filter(|_| ours))
}

/// The table that a message is about.
pub(super) fn table_of(message: &Message<'_>) -> Result<Option<TableId>, DecodeError> {
    let (fixed, body) = message.payload().split_at_checked(FIXED).ok_or("a message of nf_tables is shorter than its fixed part")?;
    let nfproto = fixed.first().copied().unwrap_or_default();
    Ok(text(body, TABLE)?.map(|name| TableId { nfproto, name }))
}

/// Where the chain of a message hangs, if it is in a hook.
pub(super) fn base_of(body: &[u8]) -> Result<Option<Base>, DecodeError> {
    let Some(place) = find(body, CHAIN_HOOK)? else { return Ok(None) };
    let [hook, priority, policy] = [number(place, 1)?, number(place, 2)?, number(body, CHAIN_POLICY)?].map(Option::unwrap_or_default);
    Ok(Some(Base { kind: text(body, CHAIN_TYPE)?.unwrap_or_default(), hook, priority: priority.cast_signed(), policy }))
}

/// The elements of a list, and whether there are some that are none of ours.
fn read_elements(body: &[u8]) -> Result<(Vec<Pass>, bool), DecodeError> {
    let len = text(body, NAME)?.and_then(|set| set_len(&set));
    let (mut passes, mut odd) = (Vec::new(), false);
    for element in attributes(find(body, 3)?.unwrap_or_default()) {
        let (_, element) = element?;
        let key = find(find(element, 1)?.unwrap_or_default(), 1)?;
        let halves = key.and_then(|key| key.split_at_checked(key.len() / 2));
        match (len, halves.map(|(from, inner)| (address(from), address(inner)))) {
            (Some(len), Some((Some(from), Some(inner)))) => passes.push(Pass { len, from, inner }),
            // In a set of somebody else's, or the element that stands for all.
            _ => odd = true,
        }
    }
    Ok((passes, odd))
}

/// What a dump says of our table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) there: bool,
    pub(super) frame: Frame,
    pub(super) passes: Vec<Pass>,
    /// Elements that are none of ours.
    pub(super) odd: bool,
    /// Packets that its rules have counted.
    pub(super) counted: u64,
}

impl Seen {
    /// Takes in one message of a dump.
    pub(super) fn take(&mut self, message: &Message<'_>, table: &TableId) -> Result<(), DecodeError> {
        let Some(body) = of_table(message, table)? else { return Ok(()) };
        let named = |kind| Ok::<_, DecodeError>(text(body, kind)?.unwrap_or_default());
        match message.message_type() {
            NEWTABLE => {
                self.there = true;
                self.frame.flags = number(body, NAME)?.unwrap_or_default();
            }
            NEWCHAIN => {
                let name = named(CHAIN_NAME)?;
                self.frame.rules.entry(name.clone()).or_default();
                self.frame.chains.insert(name, Chain { base: base_of(body)? });
            }
            NEWSET => {
                let [flags, key_type, key_len] = [number(body, 3)?, number(body, 4)?, number(body, 5)?].map(Option::unwrap_or_default);
                self.frame.sets.insert(named(NAME)?, Set { flags, key_type, key_len });
            }
            NEWRULE => {
                let read = expr::decode(find(body, RULE_EXPRESSIONS)?.unwrap_or_default())?;
                self.counted += read.iter().filter_map(|read| read.packets).sum::<u64>();
                self.frame.rules.entry(named(NAME)?).or_default().push(read.into_iter().map(|read| read.expr).collect());
            }
            NEWSETELEM => {
                let (passes, odd) = read_elements(body)?;
                self.passes.extend(passes);
                self.odd |= odd;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lease::{Family, Vni};

    use super::*;
    use crate::filter::{FilterSpec, peers};
    use crate::kernel::Messages;

    fn frame(vni: u64) -> Frame {
        let spec = FilterSpec { device: String::new(), family: Family::V4, vni: Vni::new(vni).unwrap(), port: 8472, subnet_len: 24 };
        peers::frame(&spec, &[24, 32].into())
    }

    fn id(name: &str) -> TableId {
        TableId::of(Family::V4, name.to_owned())
    }

    fn pass(text: &str, len: u8) -> Pass {
        let (from, inner) = text.split_once(' ').unwrap();
        Pass { len, from: from.parse().unwrap(), inner: inner.parse().unwrap() }
    }

    #[test]
    fn what_makes_the_table_reads_back_as_the_table() {
        let frame = frame(7);
        let passes = [pass("192.168.77.2 10.5.2.0", 24), pass("192.168.77.2 192.168.77.2", 32)];
        let (datagram, last) = transaction(&replace(&id("loden-flannel.7"), &frame, &passes), 5);
        let mut seen = Seen::default();
        let mut numbers = Vec::new();
        for message in Messages::new(&datagram) {
            let message = message.unwrap();
            numbers.push(message.sequence_number());
            if message.message_type() >= SUBSYS {
                seen.take(&message, &id("loden-flannel.7")).unwrap();
                assert_eq!(message.flags() & NLM_F_ACK != 0, message.sequence_number() == last);
                assert_eq!(heard(&message, &id("loden-flannel.1")).unwrap(), []);
            }
        }
        assert_eq!(seen, Seen { there: true, frame, passes: passes.to_vec(), odd: false, counted: 0 });
        assert_eq!(numbers, (5..=last + 1).collect::<Vec<_>>());
    }

    #[test]
    fn many_elements_are_several_messages_and_one_set_a_message() {
        let inner = |n: u32| Pass { len: 24, from: [192, 168, 0, 1].into(), inner: std::net::Ipv4Addr::from(n).into() };
        let mut passes: Vec<Pass> = (0..2_500).map(inner).collect();
        passes.push(pass("192.168.0.1 192.168.0.1", 32));
        let requests = elements(DELSETELEM, &id("loden-flannel.1"), &passes);
        assert_eq!(requests.len(), 4);
        let (datagram, _) = transaction(&requests, 1);
        let heard: Vec<_> =
            Messages::new(&datagram).flat_map(|message| heard(&message.unwrap(), &id("loden-flannel.1")).unwrap()).collect();
        assert_eq!(heard, passes.into_iter().map(|pass| Heard::Element(pass, false)).collect::<Vec<_>>());
    }

    proptest::proptest! {
        #[test]
        fn torn_messages_are_refused_and_nothing_worse(at: proptest::sample::Index, bit in 0..8_u8) {
            let frame = frame(1);
            let passes = [pass("192.168.77.2 10.5.2.0", 24), pass("192.168.77.2 192.168.77.2", 32)];
            let (mut datagram, _) = transaction(&replace(&id("loden-flannel.1"), &frame, &passes), 1);
            let at = at.index(datagram.len());
            datagram[at] ^= 1 << bit;
            for bytes in [&datagram[..], &datagram[..at]] {
                let mut seen = Seen::default();
                for message in Messages::new(bytes).flatten() {
                    let _ = (heard(&message, &id("loden-flannel.1")), seen.take(&message, &id("loden-flannel.1")));
                }
            }
        }
    }
}

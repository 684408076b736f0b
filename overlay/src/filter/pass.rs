//! What may come in: who may send what from where, and the peers that this follows from.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::net::IpAddr;

use lease::{Family, Subnet};

use super::family::facts;

/// The longest prefix of any family.
const LONGEST: u8 = 128;

/// The name of the set with the prefixes of a length.
pub(super) fn set_name(len: u8) -> String {
    format!("pass{len}")
}

/// The prefix length of the set with this name.
pub(super) fn set_len(name: &str) -> Option<u8> {
    let len = name.strip_prefix("pass")?.parse().ok().filter(|len| *len <= LONGEST)?;
    (set_name(len) == name).then_some(len)
}

/// A host on the underlay, and a prefix that containers' packets out of its tunnel may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pass {
    /// The prefix' length in bits. First, so that a set's elements stand together.
    pub len: u8,
    /// The host's underlay address: the outer source.
    pub from: IpAddr,
    /// The prefix' address: the inner source under the prefix' mask.
    pub inner: IpAddr,
}

impl Pass {
    /// A host may send from its own underlay address: a process there answers a container from it.
    fn own(from: IpAddr) -> Self {
        Self { len: facts(Family::of(from)).bits, from, inner: from }
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len: _, from, inner } = self;
        write!(out, "{from} . {inner}")
    }
}

/// All that may come in, with the number of reasons for each, and the peers' addresses that it was made from.
#[derive(Debug)]
pub(super) struct Wanted {
    family: Family,
    peers: BTreeMap<Subnet, IpAddr>,
    passes: BTreeMap<Pass, u32>,
}

impl Wanted {
    pub(super) fn new(family: Family) -> Self {
        Self { family, peers: BTreeMap::new(), passes: BTreeMap::new() }
    }

    /// The peer with this subnet is at this address, or there is none. Tells what is no longer as it was.
    ///
    /// What is of another family cannot come in over this network, and so gets no pass.
    pub(super) fn put(&mut self, subnet: Subnet, at: Option<IpAddr>, touch: &mut impl FnMut(Pass)) {
        let inner = subnet.address();
        if Family::of(inner) != self.family {
            return;
        }
        let at = at.filter(|at| Family::of(*at) == self.family);
        let before = match at {
            Some(at) => self.peers.insert(subnet, at),
            None => self.peers.remove(&subnet),
        };
        if before == at {
            return;
        }
        let of = |from| [Pass { len: subnet.len(), from, inner }, Pass::own(from)];
        for pass in at.into_iter().flat_map(of) {
            *self.passes.entry(pass).or_insert(0) += 1;
            touch(pass);
        }
        for pass in before.into_iter().flat_map(of) {
            if let Entry::Occupied(mut reasons) = self.passes.entry(pass) {
                *reasons.get_mut() -= 1;
                if *reasons.get() == 0 {
                    reasons.remove();
                }
            }
            touch(pass);
        }
    }

    pub(super) fn contains(&self, pass: &Pass) -> bool {
        self.passes.contains_key(pass)
    }

    pub(super) fn passes(&self) -> impl Iterator<Item = Pass> + '_ {
        self.passes.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.passes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(wanted: &Wanted) -> Vec<String> {
        wanted.passes().map(|pass| format!("{} {pass}", pass.len)).collect()
    }

    #[test]
    fn sets_are_known_by_their_names() {
        assert_eq!(set_len(&set_name(24)), Some(24));
        for other in ["pass", "pass129", "pass024", "pass+4", "other24"] {
            assert_eq!(set_len(other), None, "{other}");
        }
    }

    #[test]
    fn a_host_with_two_subnets_keeps_its_own_address_until_the_last_is_gone() {
        let (a, b) = ("10.5.2.0/24".parse().unwrap(), "10.5.3.0/24".parse().unwrap());
        let at = Some("192.168.77.2".parse().unwrap());
        let mut wanted = Wanted::new(Family::V4);
        wanted.put(a, at, &mut |_| ());
        wanted.put(b, at, &mut |_| ());
        let all = ["24 192.168.77.2 . 10.5.2.0", "24 192.168.77.2 . 10.5.3.0", "32 192.168.77.2 . 192.168.77.2"];
        assert_eq!(passes(&wanted), all);
        wanted.put(a, None, &mut |_| ());
        assert_eq!(passes(&wanted), all[1..]);
        wanted.put(b, None, &mut |_| ());
        assert_eq!(wanted.len(), 0);
    }

    #[test]
    fn a_peer_that_moved_touches_what_was_and_what_is_and_one_that_did_not_touches_nothing() {
        let subnet = "10.5.2.0/24".parse().unwrap();
        let mut wanted = Wanted::new(Family::V4);
        wanted.put(subnet, Some("192.168.77.2".parse().unwrap()), &mut |_| ());
        let mut touched = Vec::new();
        wanted.put(subnet, Some("192.168.77.2".parse().unwrap()), &mut |pass| touched.push(pass));
        assert_eq!(touched, []);
        wanted.put(subnet, Some("192.168.77.9".parse().unwrap()), &mut |pass| touched.push(pass));
        assert_eq!(touched.len(), 4);
        assert_eq!(passes(&wanted), ["24 192.168.77.9 . 10.5.2.0", "32 192.168.77.9 . 192.168.77.9"]);
    }
}

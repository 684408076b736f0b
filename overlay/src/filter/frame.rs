//! The table less its elements: its chains, its sets, its rules. What is wanted, and what is there, are values of one type.
//!
//! ```text
//! chain input { type filter hook input priority raw; policy accept;
//!     udp dport PORT jump vxlan
//! }
//! chain vxlan {
//!     @ih,32,24 != VNI return
//!     @ih,160,16 0x800 ip saddr . @ih,272,32 & 255.255.255.0 @pass24 return
//!     @ih,160,16 0x800 ip saddr . @ih,272,32 & 255.255.255.255 @pass32 return
//!     counter drop
//! }
//! ```
//!
//! The hook is the host's own input, where fragments have been put together, before connection tracking is confirmed. What comes
//! for another VNI of the port is another overlay's. One set for each prefix length, and a hash each: one set of intervals would do for
//! all of them, but its look-ups take time with its size, and each change copies it (`nft_set_pipapo.c`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use lease::Vni;

use super::expr::{DROP, Expr, INNER, JUMP, L4PROTO, NETWORK, REGISTER, REGISTER_BEHIND, RETURN, TRANSPORT};

/// `NF_INET_LOCAL_IN` (include/uapi/linux/netfilter.h, v6.18).
const HOOK_INPUT: u32 = 1;
/// `NF_IP_PRI_RAW` (include/uapi/linux/netfilter_ipv4.h): before what others decide by.
const PRIORITY_RAW: i32 = -300;
/// `NF_ACCEPT`.
const POLICY_ACCEPT: u32 = 1;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;

/// Bytes from the VXLAN header on: its VNI (RFC 7348 §5), the inner frame's type, the inner IPv4 packet's source.
const VXLAN: u32 = 8;
const ETHERNET: u32 = 14;
const VNI_AT: u32 = 4;
const ETHERTYPE_AT: u32 = VXLAN + 12;
const SOURCE_AT: u32 = VXLAN + ETHERNET + 12;
/// The outer IPv4 packet's source (RFC 791 §3.1).
const OUTER_SOURCE_AT: u32 = 12;
/// `ETH_P_IP`.
const IPV4: [u8; 2] = [0x08, 0x00];

const _: () = assert!(ETHERTYPE_AT * 8 == 160 && SOURCE_AT * 8 == 272);

pub(super) const CHAIN_INPUT: &str = "input";
pub(super) const CHAIN_VXLAN: &str = "vxlan";

/// nft's number for `ipv4_addr`; a concatenation's are put together, six bits each (libnftnl, nft `datatype.h`).
const TYPE_IPV4: u32 = 7;
const TYPE_BITS: u32 = 6;

/// The table less its elements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Frame {
    /// The table's flags; 1 is dormant.
    pub(super) flags: u32,
    pub(super) chains: BTreeMap<String, Chain>,
    pub(super) sets: BTreeMap<String, Set>,
    /// By chain.
    pub(super) rules: BTreeMap<String, Vec<Vec<Expr>>>,
}

/// A chain: where it hangs, unless it is only jumped to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Chain {
    pub(super) base: Option<Base>,
}

/// Where a chain hangs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) hook: u32,
    pub(super) priority: i32,
    pub(super) policy: u32,
}

/// A set: its key, and no more than that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) flags: u32,
    pub(super) key_type: u32,
    pub(super) key_len: u32,
}

/// The name of the set with the prefixes of a length.
pub(super) fn set_name(len: u8) -> String {
    format!("pass{len}")
}

/// The prefix length of the set with this name.
pub(super) fn set_len(name: &str) -> Option<u8> {
    let len = name.strip_prefix("pass")?.parse().ok().filter(|len| *len <= 32)?;
    (set_name(len) == name).then_some(len)
}

impl Frame {
    /// What is wanted for a tunnel, with prefixes of these lengths.
    pub(super) fn wanted(vni: Vni, port: u16, lens: &BTreeSet<u8>) -> Self {
        let input = Base { hook: HOOK_INPUT, priority: PRIORITY_RAW, policy: POLICY_ACCEPT };
        let set = Set { flags: 0, key_type: (TYPE_IPV4 << TYPE_BITS) | TYPE_IPV4, key_len: 8 };
        let verdict = |code| Expr::Verdict { code, chain: None };
        let load = |register, base, offset, len| Expr::Payload { register, base, offset, len };
        let to_port = vec![
            Expr::Meta { key: L4PROTO },
            Expr::Compare { equal: true, value: vec![UDP] },
            load(REGISTER, TRANSPORT, 2, 2),
            Expr::Compare { equal: true, value: port.to_be_bytes().to_vec() },
            Expr::Verdict { code: JUMP, chain: Some(CHAIN_VXLAN.to_owned()) },
        ];
        let [_, vni @ ..] = vni.get().to_be_bytes();
        let other_vni = vec![load(REGISTER, INNER, VNI_AT, 3), Expr::Compare { equal: false, value: vni.to_vec() }, verdict(RETURN)];
        let known = |len: &u8| {
            vec![
                load(REGISTER, INNER, ETHERTYPE_AT, 2),
                Expr::Compare { equal: true, value: IPV4.to_vec() },
                load(REGISTER, NETWORK, OUTER_SOURCE_AT, 4),
                load(REGISTER_BEHIND, INNER, SOURCE_AT, 4),
                Expr::Mask { mask: mask(*len).octets().to_vec() },
                Expr::Lookup { set: set_name(*len) },
                verdict(RETURN),
            ]
        };
        let vxlan = [other_vni].into_iter().chain(lens.iter().map(known)).chain([vec![Expr::Counter, verdict(DROP)]]);
        Self {
            flags: 0,
            chains: [(CHAIN_INPUT, Some(input)), (CHAIN_VXLAN, None)].map(|(name, base)| (name.to_owned(), Chain { base })).into(),
            sets: lens.iter().map(|len| (set_name(*len), set.clone())).collect(),
            rules: [(CHAIN_INPUT.to_owned(), vec![to_port]), (CHAIN_VXLAN.to_owned(), vxlan.collect())].into(),
        }
    }
}

fn mask(len: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0))
}

/// Prints as nft lists it.
impl fmt::Display for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flags: _, chains, sets, rules } = self;
        for name in sets.keys() {
            write!(out, "set {name} {{ type ipv4_addr . ipv4_addr; }} ")?;
        }
        for name in chains.keys().rev() {
            write!(out, "chain {name} {{ ")?;
            if chains.get(name).is_some_and(|chain| chain.base.is_some()) {
                out.write_str("type filter hook input priority raw; policy accept; ")?;
            }
            for rule in rules.get(name).into_iter().flatten() {
                write_rule(out, rule)?;
            }
            out.write_str("} ")?;
        }
        Ok(())
    }
}

fn write_rule(out: &mut fmt::Formatter<'_>, rule: &[Expr]) -> fmt::Result {
    for expr in rule {
        match expr {
            Expr::Meta { .. } => {}
            Expr::Payload { base: TRANSPORT, .. } => out.write_str("udp dport ")?,
            Expr::Payload { base: NETWORK, .. } => out.write_str("ip saddr . ")?,
            Expr::Payload { offset, len, .. } => write!(out, "@ih,{},{} ", offset * 8, len * 8)?,
            Expr::Compare { value, .. } if value == &[UDP] => {}
            Expr::Compare { equal, value } => {
                let number = value.iter().fold(0_u32, |number, byte| (number << 8) | u32::from(*byte));
                write!(out, "{}{number:#x} ", if *equal { "" } else { "!= " })?;
            }
            Expr::Mask { mask } => match <[u8; 4]>::try_from(mask.as_slice()) {
                Ok(mask) => write!(out, "& {} ", Ipv4Addr::from(mask))?,
                Err(_) => out.write_str("& … ")?,
            },
            Expr::Lookup { set } => write!(out, "@{set} ")?,
            Expr::Counter => out.write_str("counter ")?,
            Expr::Verdict { code: JUMP, chain } => write!(out, "jump {}; ", chain.as_deref().unwrap_or_default())?,
            Expr::Verdict { code: DROP, .. } => out.write_str("drop; ")?,
            Expr::Verdict { .. } => out.write_str("return; ")?,
            Expr::Other(name) => write!(out, "{name} … ")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_prints_as_nft_lists_it() {
        let frame = Frame::wanted(Vni::new(1).unwrap(), 8472, &[24, 32].into());
        assert_eq!(
            frame.to_string(),
            "set pass24 { type ipv4_addr . ipv4_addr; } set pass32 { type ipv4_addr . ipv4_addr; } \
             chain vxlan { @ih,32,24 != 0x1 return; \
             @ih,160,16 0x800 ip saddr . @ih,272,32 & 255.255.255.0 @pass24 return; \
             @ih,160,16 0x800 ip saddr . @ih,272,32 & 255.255.255.255 @pass32 return; \
             counter drop; } \
             chain input { type filter hook input priority raw; policy accept; udp dport 0x2118 jump vxlan; } "
        );
    }

    #[test]
    fn sets_are_known_by_their_names() {
        assert_eq!(set_len(&set_name(24)), Some(24));
        for other in ["pass", "pass33", "pass024", "pass+4", "other24"] {
            assert_eq!(set_len(other), None, "{other}");
        }
    }
}

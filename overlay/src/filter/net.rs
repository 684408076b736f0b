//! The network's rules: who is masqueraded, what is forwarded, and whether the tunnel's packets are tracked.
//!
//! ```text
//! chain postrouting { type nat hook postrouting priority srcnat; policy accept;
//!     meta mark & 0x4000 == 0x4000 return        # kube-proxy has decided
//!     saddr SUBNET daddr NETWORK return           # within the overlay nothing is masqueraded
//!     saddr NETWORK daddr SUBNET return
//!     saddr != NETWORK daddr SUBNET return        # what comes from outside to our own containers keeps its source
//!     saddr NETWORK daddr != MULTICAST masquerade fully-random
//!     saddr != NETWORK daddr NETWORK masquerade fully-random
//! }
//! chain forward { type filter hook forward priority filter; policy accept;
//!     saddr NETWORK accept
//!     daddr NETWORK accept
//! }
//! chain notrack-in { type filter hook prerouting priority raw; policy accept; udp dport PORT notrack }
//! chain notrack-out { type filter hook output priority raw; policy accept; udp dport PORT notrack }
//! ```
//!
//! The same rules that flanneld has in its iptables form. Its nftables form differs in the first, which takes the exact mark, and in
//! the fourth, which names the wrong subnets.

use lease::{Family, Subnet};

use super::TableId;
use super::expr::{ACCEPT, Expr, FULLY_RANDOM, MARK, NETWORK, REGISTER, RETURN};
use super::family::{self, Facts, facts, mask, octets};
use super::frame::{Base, FILTER, FORWARD, Frame, OUTPUT, POSTROUTING, PREROUTING, RAW, SRCNAT};
use super::peers::to_port;

/// kube-proxy's mark on what it masquerades itself.
const KUBE_PROXY_MARK: u32 = 0x4000;

/// The chain that masquerades.
pub(super) const POSTROUTING_CHAIN: &str = "postrouting";

/// What the kernel may lack.
pub(super) const REMEDY: &str = "the kernel may lack nf_tables with masquerade (CONFIG_NF_TABLES, CONFIG_NFT_MASQ): modprobe nf_tables nft_masq, or leave --ip-masq away";

/// What is wanted for one family of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetSpec {
    /// What the table is named after: the VTEP, or what else no other agent on this host has.
    pub name: String,
    /// The network.
    pub network: Subnet,
    /// This host's part of it.
    pub subnet: Subnet,
    /// Whether what leaves the network is masqueraded, and how.
    pub masquerade: Masquerade,
    /// Whether the network's packets are let through where something else would drop them.
    pub forward: bool,
    /// The UDP port whose packets connection tracking is spared.
    pub notrack: Option<u16>,
}

/// How packets that leave the network get this host's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    /// Not at all.
    Off,
    /// With the port that they have, where it is free.
    Plain,
    /// With a port that cannot be guessed, and that two connections do not race for.
    FullyRandom,
}

/// A packet's source or its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

impl NetSpec {
    /// The network's family.
    #[must_use]
    pub fn family(&self) -> Family {
        family::of(self.network)
    }

    /// The table, as nft names it.
    #[must_use]
    pub fn table_name(&self) -> String {
        self.table().to_string()
    }

    /// The table.
    pub(super) fn table(&self) -> TableId {
        TableId::of(self.family(), net_table_name(&self.name))
    }

    pub(super) fn frame(&self) -> Frame {
        let Self { name: _, network, subnet, masquerade, forward, notrack } = self;
        let mut frame = Frame::default();
        let flags = match masquerade {
            Masquerade::Off => None,
            Masquerade::Plain => Some(0),
            Masquerade::FullyRandom => Some(FULLY_RANDOM),
        };
        if let Some(flags) = flags {
            let base = Base::accepting("nat", POSTROUTING, SRCNAT);
            frame = frame.with(POSTROUTING_CHAIN, Some(base), masquerading(*network, *subnet, flags));
        }
        if *forward {
            let base = Base::accepting("filter", FORWARD, FILTER);
            frame = frame.with("forward", Some(base), vec![accept(Side::Source, *network), accept(Side::Target, *network)]);
        }
        if let Some(port) = notrack {
            for (name, hook) in [("notrack-in", PREROUTING), ("notrack-out", OUTPUT)] {
                frame = frame.with(name, Some(Base::accepting("filter", hook, RAW)), vec![[to_port(*port), vec![Expr::Notrack]].concat()]);
            }
        }
        frame
    }
}

/// What the names of these tables begin with.
pub(super) const NET_PREFIX: &str = "loden-net-";

/// The name of the table with a network's rules, for the VTEP of this name.
#[must_use]
pub fn net_table_name(name: &str) -> String {
    format!("{NET_PREFIX}{name}")
}

fn masquerading(network: Subnet, subnet: Subnet, flags: u32) -> Vec<Vec<Expr>> {
    use Side::{Source, Target};
    let verdict = |code| vec![Expr::Verdict { code, chain: None }];
    let masquerade = || vec![Expr::Masquerade { flags }];
    let mark = KUBE_PROXY_MARK.to_ne_bytes().to_vec();
    let marked =
        vec![Expr::Meta { key: MARK }, Expr::Mask { register: REGISTER, mask: mark.clone() }, Expr::Compare { equal: true, value: mark }];
    vec![
        [marked, verdict(RETURN)].concat(),
        [within(Source, subnet, true), within(Target, network, true), verdict(RETURN)].concat(),
        [within(Source, network, true), within(Target, subnet, true), verdict(RETURN)].concat(),
        [within(Source, network, false), within(Target, subnet, true), verdict(RETURN)].concat(),
        [within(Source, network, true), no_multicast(network), masquerade()].concat(),
        [within(Source, network, false), within(Target, network, true), masquerade()].concat(),
    ]
}

/// Lets through what comes from a network, or goes there.
pub(super) fn accept(side: Side, network: Subnet) -> Vec<Expr> {
    [within(side, network, true), vec![Expr::Verdict { code: ACCEPT, chain: None }]].concat()
}

/// Goes on if an address lies within a prefix, or does not.
pub(super) fn within(side: Side, prefix: Subnet, equal: bool) -> Vec<Expr> {
    prefix_match(family::of(prefix), side, &octets(prefix.address()), prefix.len(), equal)
}

fn no_multicast(network: Subnet) -> Vec<Expr> {
    let family = family::of(network);
    let (first, len) = facts(family).multicast;
    prefix_match(family, Side::Target, &[first], len, false)
}

/// As nft and iptables write it: of a prefix that ends with a byte, those bytes are compared.
fn prefix_match(family: Family, side: Side, value: &[u8], len: u8, equal: bool) -> Vec<Expr> {
    let Facts { source_at, target_at, address, .. } = *facts(family);
    let offset = match side {
        Side::Source => source_at,
        Side::Target => target_at,
    };
    let whole = len.is_multiple_of(8) && len > 0;
    let bytes = if whole { u32::from(len / 8) } else { address };
    let mut value = value.to_vec();
    value.resize(usize::try_from(bytes).unwrap_or(usize::MAX), 0);
    let masked = (!whole).then(|| Expr::Mask { register: REGISTER, mask: mask(address, len) });
    let load = Expr::Payload { register: REGISTER, base: NETWORK, offset, len: bytes };
    [load].into_iter().chain(masked).chain([Expr::Compare { equal, value }]).collect()
}

//! The peer filter: VXLAN packets come in only from known peers, and out of each peer's tunnel only what belongs behind it.
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
//! all of them, but its look-ups take time with its size, and each change copies it (`nft_set_pipapo.c`). Over an IPv6 underlay it
//! is IPv6 within: a VTEP has one family.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lease::{Family, Subnet, Vni};

use super::expr::{DROP, Expr, INNER, JUMP, L4PROTO, NETWORK, REGISTER, RETURN, TRANSPORT};
use super::family::{Facts, facts, mask};
use super::frame::{Base, Frame, INPUT, RAW, Set};
use super::message::Changer;
use super::pass::set_name;
use super::table::Table;
use super::{TableId, table_name};
use crate::desired::Desired;
use crate::kernel::KernelError;

/// `IPPROTO_UDP`.
pub(super) const UDP: u8 = 17;

/// Bytes from the VXLAN header on: its VNI (RFC 7348 §5), the inner frame's type, the inner packet.
const VXLAN: u32 = 8;
const ETHERNET: u32 = 14;
const VNI_AT: u32 = 4;
const ETHERTYPE_AT: u32 = VXLAN + 12;
const PACKET_AT: u32 = VXLAN + ETHERNET;

const _: () = assert!(ETHERTYPE_AT * 8 == 160 && (PACKET_AT + 12) * 8 == 272);

const CHAIN_INPUT: &str = "input";
const CHAIN_VXLAN: &str = "vxlan";

/// A concatenation's types are put together, six bits each (nft, `datatype.h`).
const TYPE_BITS: u32 = 6;

const REMEDY: &str =
    "the kernel may lack nf_tables with inner headers (Linux 5.17, CONFIG_NF_TABLES): modprobe nf_tables, or leave --vxlan-peers-only away";

/// What is filtered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterSpec {
    /// The VTEP's name.
    pub device: String,
    /// Its underlay's family, which is its peers' too.
    pub family: Family,
    /// Its VNI.
    pub vni: Vni,
    /// The UDP port that its packets come in by.
    pub port: u16,
    /// The prefix length that peers' subnets usually have.
    pub subnet_len: u8,
}

impl FilterSpec {
    /// The table, as nft names it.
    #[must_use]
    pub fn table(&self) -> String {
        self.id().to_string()
    }

    fn id(&self) -> TableId {
        TableId::of(self.family, table_name(&self.device))
    }
}

/// Owns the filter table of one VTEP.
#[derive(Debug)]
pub struct Filter {
    spec: FilterSpec,
    lens: BTreeSet<u8>,
    table: Table,
}

impl Filter {
    /// Opens the way to nf_tables in the calling thread's network namespace. Nothing is changed yet.
    ///
    /// # Errors
    /// [`KernelError`] when a socket cannot be had.
    pub fn open(spec: FilterSpec, peers: &Desired) -> Result<Self, KernelError> {
        let lens = [spec.subnet_len, facts(spec.family).bits].into();
        let table = Table::open(spec.id(), spec.family, frame(&spec, &lens), REMEDY)?;
        let mut filter = Self { spec, lens, table };
        filter.peers_changed(peers, peers.peers().map(|peer| peer.subnet));
        Ok(filter)
    }

    /// These peers came, went, or changed.
    pub fn peers_changed(&mut self, peers: &Desired, subnets: impl IntoIterator<Item = Subnet>) {
        let known = self.lens.len();
        for subnet in subnets {
            let Self { lens, table, .. } = self;
            table.put(subnet, peers.peer(subnet).map(|peer| peer.dst), |pass| {
                lens.insert(pass.len);
            });
        }
        if self.lens.len() > known {
            self.table.want(frame(&self.spec, &self.lens));
        }
    }

    /// Does what there is to do. Elements are only taken away once the peers are `complete`.
    ///
    /// # Errors
    /// [`KernelError`] when nf_tables cannot be spoken to. What was to be done is still to be done then.
    pub async fn step(&mut self, complete: bool, now: Instant) -> Result<(), KernelError> {
        self.table.step(complete, now).await
    }

    /// Waits until somebody has changed something in the table. Cancel safe.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel cannot be heard any more.
    pub async fn listen(&mut self) -> Result<(), KernelError> {
        self.table.listen().await
    }

    /// Asks for a look at the whole table at the next step.
    pub fn audit(&mut self) {
        self.table.audit();
    }

    /// When [`step`](Self::step) has to be called again though nothing happens.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.table.next_due()
    }

    /// The table, as nft names it.
    #[must_use]
    pub fn table(&self) -> String {
        self.table.id().to_string()
    }

    /// How many elements there are, and how many there should be.
    #[must_use]
    pub fn elements(&self) -> (usize, usize) {
        self.table.elements()
    }

    /// Why the table is not as it should be, unless it is just being put right.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.table.trouble()
    }

    /// What the last look at the whole table has cost.
    #[must_use]
    pub fn look_cost(&self) -> Duration {
        self.table.look_cost()
    }

    /// Whether the table has been seen to stand; somebody may have changed it since.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.table.stands()
    }

    /// Whether the kernel holds the table as it should be.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.table.in_step()
    }

    /// Repairs of what others changed since this was last asked, and who was the last that changed anything.
    pub fn take_heals(&mut self) -> (u64, Option<Changer>) {
        self.table.take_heals()
    }

    /// Packets that were dropped since the table was made.
    ///
    /// # Errors
    /// [`KernelError`] when it cannot be read.
    pub async fn dropped(&mut self) -> Result<u64, KernelError> {
        self.table.counted().await
    }
}

/// What is wanted for a tunnel, with prefixes of these lengths.
pub(super) fn frame(spec: &FilterSpec, lens: &BTreeSet<u8>) -> Frame {
    let Facts { ethertype, source_at, address, register_behind, nft_type, .. } = *facts(spec.family);
    let verdict = |code| Expr::Verdict { code, chain: None };
    let load = |register, base, offset, len| Expr::Payload { register, base, offset, len };
    let [_, vni @ ..] = spec.vni.get().to_be_bytes();
    let other_vni = vec![load(REGISTER, INNER, VNI_AT, 3), Expr::Compare { equal: false, value: vni.to_vec() }, verdict(RETURN)];
    let known = |len: &u8| {
        vec![
            load(REGISTER, INNER, ETHERTYPE_AT, 2),
            Expr::Compare { equal: true, value: ethertype.to_vec() },
            load(REGISTER, NETWORK, source_at, address),
            load(register_behind, INNER, PACKET_AT + source_at, address),
            Expr::Mask { register: register_behind, mask: mask(address, *len) },
            Expr::Lookup { set: set_name(*len) },
            verdict(RETURN),
        ]
    };
    let jump = Expr::Verdict { code: JUMP, chain: Some(CHAIN_VXLAN.to_owned()) };
    let to_port = [to_port(spec.port), vec![jump]].concat();
    let vxlan = [other_vni].into_iter().chain(lens.iter().map(known)).chain([vec![Expr::Counter, verdict(DROP)]]);
    let set = Set { flags: 0, key_type: (nft_type << TYPE_BITS) | nft_type, key_len: 2 * address };
    let frame = Frame { sets: lens.iter().map(|len| (set_name(*len), set.clone())).collect(), ..Frame::default() };
    let input = Base::accepting("filter", INPUT, RAW);
    frame.with(CHAIN_INPUT, Some(input), vec![to_port]).with(CHAIN_VXLAN, None, vxlan.collect())
}

/// Goes on for UDP to this port.
pub(super) fn to_port(port: u16) -> Vec<Expr> {
    vec![
        Expr::Meta { key: L4PROTO },
        Expr::Compare { equal: true, value: vec![UDP] },
        Expr::Payload { register: REGISTER, base: TRANSPORT, offset: 2, len: 2 },
        Expr::Compare { equal: true, value: port.to_be_bytes().to_vec() },
    ]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use lease::MacAddr;

    use super::*;

    fn spec(family: Family) -> FilterSpec {
        FilterSpec { device: "flannel.1".to_owned(), family, vni: Vni::new(1).unwrap(), port: 8472, subnet_len: 24 }
    }

    fn peer(number: u32) -> crate::Peer {
        let [_, a, b, c] = number.to_be_bytes();
        let (subnet, dst) = (Ipv4Addr::from_bits((10 << 24) | (number << 8)), Ipv4Addr::new(172, 16 + a, b, c));
        crate::Peer { subnet: format!("{subnet}/24").parse().unwrap(), mac: Some(MacAddr::new([2, 0, 0, a, b, c])), dst: dst.into() }
    }

    #[test]
    fn a_frame_prints_as_nft_takes_it() {
        assert_eq!(
            frame(&spec(Family::V4), &[24, 32].into()).to_string(),
            "set pass24 { key 455, 8 bytes; } set pass32 { key 455, 8 bytes; } \
             chain input { type filter hook input priority -300; policy accept; meta l4proto 0x11 @th,16,16 0x2118 jump vxlan; } \
             chain vxlan { @ih,32,24 != 0x000001 return; \
             @ih,160,16 0x0800 @nh,96,32 @ih,272,32 & 0xffffff00 @pass24 return; \
             @ih,160,16 0x0800 @nh,96,32 @ih,272,32 & 0xffffffff @pass32 return; \
             counter drop; } "
        );
    }

    #[tokio::test]
    async fn the_kernel_shows_the_table_that_was_made_also_with_twenty_thousand_peers() {
        let host = testkit::Namespace::new("filtered", "").unwrap();
        let _within = host.enter().unwrap();
        let (network, subnet) = ("10.5.0.0/16".parse().unwrap(), "10.5.1.0/24".parse().unwrap());
        let ground = crate::Ground { network, subnet, vtep: None, direct: crate::Direct::Never, blackhole: false, table: None };
        let mut peers = Desired::new(ground);
        (1..=20_000).for_each(|number| peers.put(peer(number), &mut |_| ()));
        let mut filter = Filter::open(spec(Family::V4), &peers).unwrap();
        filter.step(true, Instant::now()).await.unwrap();
        assert_eq!((filter.stands(), filter.trouble()), (true, None));
        assert!(filter.in_step());
        assert_eq!(filter.elements(), (40_000, 40_000));
        // One more is one change, not another table.
        let looked = filter.table.last_look();
        peers.put(peer(30_000), &mut |_| ());
        filter.peers_changed(&peers, [peer(30_000).subnet]);
        filter.step(true, Instant::now()).await.unwrap();
        assert_eq!((filter.elements(), filter.table.last_look()), ((40_002, 40_002), looked));
        assert!(filter.in_step());
        let mut again = Filter::open(spec(Family::V4), &peers).unwrap();
        again.step(true, Instant::now()).await.unwrap();
        assert!(again.in_step());
    }
}

//! The peer filter: VXLAN packets come in only from known peers, and out of each peer's tunnel only what belongs behind it.
//!
//! ```text
//! Desired's peers ─▶ Wanted ─┐
//!                            ├─▶ difference ─▶ one transaction ─┐
//! dump + notifications ─▶ Observed                              │
//!        ▲───────────── every change, by whomever ◀─────────────┘
//! ```
//!
//! One [`Filter`] owns one nf_tables table, `loden-` and the device's name, and touches no other. Elements are changed one by
//! one; whatever else in the table is not as wanted, the table is made anew in one transaction, so that there is no moment
//! without it. Like the reconciler it acts on what the kernel says, and takes nothing away before the peers are complete.

mod attribute;
mod door;
mod expr;
mod frame;
mod message;
mod pass;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use lease::{Subnet, Vni};
use nix::errno::Errno;

use self::door::Door;
use self::frame::{Frame, set_name};
use self::message::{DELSETELEM, Heard, NEWSETELEM, Seen, elements, replace};
use self::pass::Wanted;
use crate::desired::Desired;
use crate::entry::{Aspect, Matter};
use crate::kernel::{KernelError, Refusal};
use crate::retry::{Retries, Trouble};

pub use self::message::Changer;
pub use self::pass::Pass;

/// So much of each such time goes into dumps of the table, less what the last one is over it: somebody who makes the kernel lose
/// notifications, or keeps changing the table, cannot keep us dumping. While something waits because somebody keeps undoing it, there is less to be seen.
const LOOK_BUDGET: Duration = Duration::from_millis(200);
const LOOK_BUDGET_IN_A_FIGHT: Duration = Duration::from_millis(20);
const LOOK_WINDOW: Duration = Duration::from_secs(1);

/// A host's own address has a prefix of all its bits.
const HOST: u8 = 32;

/// What is filtered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterSpec {
    /// The VTEP's name.
    pub device: String,
    /// Its VNI.
    pub vni: Vni,
    /// The UDP port that its packets come in by.
    pub port: u16,
    /// The prefix length that peers' subnets usually have.
    pub subnet_len: u8,
}

/// A change of the table. Prints as the nft command that does the same.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FilterOp {
    /// Makes the table anew with these elements.
    Replace(Frame, Vec<Pass>),
    /// Puts elements.
    Put(Vec<Pass>),
    /// Deletes elements.
    Del(Vec<Pass>),
}

/// What is tried again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Table,
    Element(Pass),
}

fn whole(part: Part) -> Matter<Part> {
    Matter(part, Aspect::Whole)
}

/// Owns the filter table of one VTEP.
pub struct Filter {
    spec: FilterSpec,
    table: String,
    door: Door,
    wanted: Wanted,
    lens: BTreeSet<u8>,
    /// The table as the kernel has it; none where there is none.
    frame: Option<Frame>,
    passes: BTreeSet<Pass>,
    /// Elements to look at, and whether it was the kernel that changed.
    dirty: BTreeMap<Pass, bool>,
    retries: Retries<Part>,
    look_wanted: bool,
    last_look: Option<Instant>,
    look_cost: Duration,
    /// When the running window began, and what dumps have cost in it.
    spent: (Instant, Duration),
    stands: bool,
    pruned: bool,
    heals: u64,
    changer: Option<Changer>,
}

impl Filter {
    /// Opens the way to nf_tables in the calling thread's network namespace. Nothing is changed yet.
    ///
    /// # Errors
    /// [`KernelError`] when a socket cannot be had.
    pub fn open(spec: FilterSpec, peers: &Desired) -> Result<Self, KernelError> {
        let table = table_name(&spec.device);
        let mut filter = Self {
            door: Door::open(table.clone())?,
            lens: [spec.subnet_len, HOST].into(),
            spec,
            table,
            wanted: Wanted::default(),
            frame: None,
            passes: BTreeSet::new(),
            dirty: BTreeMap::new(),
            retries: Retries::default(),
            look_wanted: true,
            last_look: None,
            look_cost: Duration::ZERO,
            spent: (Instant::now(), Duration::ZERO),
            stands: false,
            pruned: false,
            heals: 0,
            changer: None,
        };
        filter.peers_changed(peers, peers.peers().map(|peer| peer.subnet));
        Ok(filter)
    }

    /// These peers came, went, or changed.
    pub fn peers_changed(&mut self, peers: &Desired, subnets: impl IntoIterator<Item = Subnet>) {
        let Self { wanted, dirty, lens, .. } = self;
        for subnet in subnets {
            wanted.put(subnet, peers.peer(subnet).map(|peer| peer.dst), &mut |pass| {
                lens.insert(pass.len);
                dirty.insert(pass, false);
            });
        }
    }

    /// Asks for a look at the whole table at the next step.
    pub fn audit(&mut self) {
        self.look_wanted = true;
    }

    /// When [`step`](Self::step) has to be called again though nothing happens.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let look = self.look_wanted.then(|| self.look_due());
        [self.retries.next_due(), look].into_iter().flatten().min()
    }

    /// Waits until somebody has changed something in the table. Cancel safe.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel cannot be heard any more.
    pub async fn listen(&mut self) -> Result<(), KernelError> {
        let mut heard = Vec::new();
        self.door.wait(&mut heard).await?;
        self.take_in(heard);
        Ok(())
    }

    /// Does what there is to do. Elements are only taken away once the peers are `complete`.
    ///
    /// # Errors
    /// [`KernelError`] when nf_tables cannot be spoken to. What was to be done is still to be done then.
    pub async fn step(&mut self, complete: bool, now: Instant) -> Result<(), KernelError> {
        while let Some(Matter(part, _)) = self.retries.pop_due(now) {
            match part {
                Part::Element(pass) => drop(self.dirty.insert(pass, true)),
                Part::Table => self.look_wanted = true,
            }
        }
        if complete && !self.pruned {
            self.pruned = true;
            self.compare(false);
        }
        if self.look_wanted && self.look_due() <= now {
            self.look(now).await?;
        }
        if self.frame.as_ref() == Some(&self.wanted_frame()) {
            self.stands = true;
            self.adjust(now).await
        } else if self.last_look.is_some() {
            self.make_anew(now).await
        } else {
            Ok(())
        }
    }

    /// When the table may be dumped: at once, unless this window's share is spent.
    fn look_due(&self) -> Instant {
        let (began, spent) = self.spent;
        if spent < self.look_budget() { began } else { began + LOOK_WINDOW }
    }

    fn wanted_frame(&self) -> Frame {
        Frame::wanted(self.spec.vni, self.spec.port, &self.lens)
    }

    /// Dumps the table. Where others change theirs too much for that (every change of any table interrupts a dump), it is put
    /// off: the table stands meanwhile. Returns whether it was dumped.
    async fn look(&mut self, now: Instant) -> Result<bool, KernelError> {
        let started = Instant::now();
        // What was told until now, the dump shows. Only who did it does not show there.
        let mut heard = Vec::new();
        self.door.take(&mut heard)?;
        self.take_in(heard);
        let seen = self.door.look(true).await;
        self.charge(started.elapsed(), now);
        let Seen { there, mut frame, passes, odd, dropped: _ } = match seen {
            Err(KernelError::Interrupted { .. }) => {
                self.look_wanted = true;
                return Ok(false);
            }
            seen => seen?,
        };
        if odd {
            // What cannot be told apart cannot be deleted by itself: the table is not as wanted.
            frame.flags = u32::MAX;
        }
        self.frame = there.then_some(frame);
        self.passes = passes.into_iter().collect();
        self.look_wanted = false;
        self.last_look = Some(now);
        self.retries.forget_the_quiet(now);
        self.compare(self.stands);
        self.look_cost = started.elapsed();
        Ok(true)
    }

    /// Puts the cost of a look to this window's account; what the one before was over its share is owed.
    fn charge(&mut self, cost: Duration, now: Instant) {
        let (began, spent) = self.spent;
        let windows = u32::try_from(now.duration_since(began).as_millis() / LOOK_WINDOW.as_millis()).unwrap_or(u32::MAX);
        self.spent = match windows {
            0 => (began, spent + cost),
            _ => (now, spent.saturating_sub(self.look_budget().saturating_mul(windows)) + cost),
        };
    }

    fn look_budget(&self) -> Duration {
        if self.retries.outdone() > 0 { LOOK_BUDGET_IN_A_FIGHT } else { LOOK_BUDGET }
    }

    /// Looks at each element that differs.
    fn compare(&mut self, kernel: bool) {
        let Self { wanted, passes, dirty, .. } = self;
        let missing = wanted.passes().filter(|pass| !passes.contains(pass));
        let surplus = passes.iter().filter(|pass| !wanted.contains(pass)).copied();
        for pass in missing.chain(surplus) {
            dirty.entry(pass).or_insert(kernel);
        }
    }

    /// The table is missing, or not as it should be.
    async fn make_anew(&mut self, now: Instant) -> Result<(), KernelError> {
        let repair = self.stands && self.frame.as_ref() != Some(&self.wanted_frame_of_before());
        if self.retries.must_wait(Part::Table, now) || (repair && !self.retries.may_repair(whole(Part::Table), now)) {
            return Ok(());
        }
        // Before the peers are complete, what there was stays.
        let kept = self.passes.iter().filter(|pass| !self.pruned && self.lens.contains(&pass.len));
        let passes: BTreeSet<Pass> = self.wanted.passes().chain(kept.copied()).collect();
        let (frame, passes) = (self.wanted_frame(), passes.into_iter().collect());
        self.apply(&[FilterOp::Replace(frame, passes)], repair, now).await?;
        // An acknowledgement is no proof.
        if !self.look(now).await? {
            return Ok(());
        }
        if self.frame.as_ref() == Some(&self.wanted_frame()) {
            self.stands = true;
            self.dirty.clear();
            self.compare(false);
            self.retries.right(Part::Table);
            if repair {
                self.repaired(Part::Table, now);
            }
        } else if !self.retries.is_refused(Part::Table) {
            self.retries.refused_by_kernel(Part::Table, "the kernel shows another table than was made".to_owned(), repair, now);
        }
        Ok(())
    }

    /// What the frame would be with the prefix lengths of the one that is there: a new length is no repair.
    fn wanted_frame_of_before(&self) -> Frame {
        let lens = self.frame.iter().flat_map(|frame| frame.sets.keys()).filter_map(|set| frame::set_len(set)).collect();
        Frame::wanted(self.spec.vni, self.spec.port, &lens)
    }

    /// Puts what is missing and deletes what should not be there.
    async fn adjust(&mut self, now: Instant) -> Result<(), KernelError> {
        if self.retries.must_wait(Part::Table, now) {
            return Ok(());
        }
        let (mut puts, mut dels, mut repairs) = (Vec::new(), Vec::new(), Vec::new());
        let mut later = BTreeMap::new();
        for (pass, kernel) in std::mem::take(&mut self.dirty) {
            let (want, have) = (self.wanted.contains(&pass), self.passes.contains(&pass));
            if want == have {
                self.retries.right(Part::Element(pass));
            } else if !want && !self.pruned {
                later.insert(pass, kernel);
            } else if !kernel || self.retries.may_repair(whole(Part::Element(pass)), now) {
                repairs.extend(kernel.then_some(pass));
                if want { puts.push(pass) } else { dels.push(pass) }
            }
        }
        self.dirty = later;
        let changes = [FilterOp::Put(puts), FilterOp::Del(dels)];
        let changes: Vec<_> = changes.into_iter().filter(|op| !op.is_empty()).collect();
        if changes.is_empty() {
            // What was refused has come right by itself.
            self.retries.right(Part::Table);
        } else if self.apply(&changes, !repairs.is_empty(), now).await? {
            for pass in repairs {
                self.repaired(Part::Element(pass), now);
            }
        }
        Ok(())
    }

    fn repaired(&mut self, part: Part, now: Instant) {
        self.retries.repaired(whole(part), now);
        self.heals += 1;
    }

    /// Makes changes, or a repair, in one transaction, and takes in what the kernel then says: whether it took them.
    async fn apply(&mut self, ops: &[FilterOp], repair: bool, now: Instant) -> Result<bool, KernelError> {
        for op in ops {
            tracing::debug!(command = %op.on(&self.table), "apply");
        }
        let requests: Vec<_> = ops.iter().flat_map(|op| op.requests(&self.table)).collect();
        // Until it is known what became of them, only a dump tells.
        let look_wanted = std::mem::replace(&mut self.look_wanted, true);
        if let Err(refusal) = self.door.change(&requests).await? {
            if matches!(refusal.errno, Errno::EPERM | Errno::EACCES) {
                return Err(refusal.into_error("change the filter table"));
            }
            self.retries.refused_by_kernel(Part::Table, explained(&refusal), repair, now);
            return Ok(false);
        }
        let mut heard = Vec::new();
        self.door.take(&mut heard)?;
        self.look_wanted = look_wanted;
        self.take_in(heard);
        self.retries.right(Part::Table);
        Ok(true)
    }

    fn take_in(&mut self, heard: Vec<Heard>) {
        for heard in heard {
            match heard {
                Heard::Element(pass, there) => {
                    if there {
                        self.passes.insert(pass);
                    } else {
                        self.passes.remove(&pass);
                    }
                    if there != self.wanted.contains(&pass) {
                        self.dirty.entry(pass).or_insert(true);
                    }
                }
                Heard::Table => self.look_wanted = true,
                Heard::By(port, _) if port == self.door.port() => {}
                Heard::By(_, changer) => self.changer = Some(changer),
            }
        }
    }

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// How many elements there are, and how many there should be.
    #[must_use]
    pub fn elements(&self) -> (usize, usize) {
        (self.passes.len(), self.wanted.len())
    }

    /// Why the table is not as it should be, unless it is just being put right.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        // A fight that is being won is no trouble.
        let said = |(Matter(part, _), trouble): (Matter<Part>, Trouble)| match part {
            Part::Table => format!("filter table {}: {trouble}", self.table),
            Part::Element(pass) => format!("filter table {}, element {pass} of {}: {trouble}", self.table, set_name(pass.len)),
        };
        let wrong = self.retries.refused() + self.retries.outdone() > 0;
        self.retries.troubles().next().filter(|_| wrong).map(said)
    }

    /// What the last look at the whole table has cost.
    #[must_use]
    pub fn look_cost(&self) -> Duration {
        self.look_cost
    }

    /// Whether the table has been seen to stand; somebody may have changed it since.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.stands
    }

    /// Whether the kernel holds the table as it should be.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.stands && !self.look_wanted && self.trouble().is_none() && (self.dirty.is_empty() || !self.pruned)
    }

    /// Repairs of what others changed since this was last asked, and who was the last that changed anything.
    pub fn take_heals(&mut self) -> (u64, Option<Changer>) {
        (std::mem::take(&mut self.heals), self.changer.clone())
    }

    /// Packets that were dropped since the table was made.
    ///
    /// # Errors
    /// [`KernelError`] when it cannot be read.
    pub async fn dropped(&mut self) -> Result<u64, KernelError> {
        Ok(self.door.look(false).await?.dropped)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Filter").field("table", &self.table).field("elements", &self.elements()).finish_non_exhaustive()
    }
}

/// Removes a device's filter table. False if there is none.
///
/// # Errors
/// [`KernelError`] when nf_tables cannot be spoken to or refuses. A kernel without nf_tables has no table.
pub async fn remove_filter(device: &str) -> Result<bool, KernelError> {
    let looked = async {
        let mut door = Door::open(table_name(device))?;
        let there = door.look(false).await?.there;
        Ok((door, there))
    };
    let mut door = match looked.await {
        Ok((door, true)) => door,
        Ok((_, false)) => return Ok(false),
        Err(error) if lacks_nf_tables(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    door.remove().await?.map_err(|refusal| refusal.into_error("delete the filter table"))
}

/// The devices that have a filter table, whether they are there or not. None on a kernel without nf_tables.
///
/// # Errors
/// [`KernelError`] when nf_tables cannot be spoken to.
pub async fn filtered_devices() -> Result<Vec<String>, KernelError> {
    match door::tables().await {
        Err(error) if lacks_nf_tables(&error) => Ok(Vec::new()),
        tables => Ok(tables?.iter().filter_map(|table| table.strip_prefix(PREFIX)).map(str::to_owned).collect()),
    }
}

/// Whether this is what a kernel without nf_tables says: no such protocol, or, where nfnetlink alone is there, no such
/// subsystem (`nfnetlink_rcv_msg`, net/netfilter/nfnetlink.c, v6.18).
fn lacks_nf_tables(error: &KernelError) -> bool {
    match error {
        KernelError::Io { source, .. } => source.raw_os_error() == Some(nix::libc::EPROTONOSUPPORT),
        KernelError::Refused { errno, .. } => matches!(errno, Errno::EINVAL | Errno::EOPNOTSUPP),
        KernelError::Permission { .. } | KernelError::Timeout { .. } | KernelError::Interrupted { .. } | KernelError::Protocol { .. } => {
            false
        }
    }
}

/// What the names of our tables begin with.
const PREFIX: &str = "loden-";

/// The table that is a device's.
#[must_use]
pub fn table_name(device: &str) -> String {
    format!("{PREFIX}{device}")
}

fn explained(refusal: &Refusal) -> String {
    let remedy = match refusal.errno {
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::ENOENT => {
            "; the kernel may lack nf_tables with inner headers (Linux 5.17, CONFIG_NF_TABLES): modprobe nf_tables, or leave --vxlan-peers-only away"
        }
        _ => "",
    };
    format!("{}{remedy}", refusal.reason())
}

impl FilterOp {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Put(passes) | Self::Del(passes) if passes.is_empty())
    }

    fn requests(&self, table: &str) -> Vec<message::Request> {
        match self {
            Self::Replace(frame, passes) => replace(table, frame, passes),
            Self::Put(passes) => elements(NEWSETELEM, table, passes),
            Self::Del(passes) => elements(DELSETELEM, table, passes),
        }
    }

    fn on<'a>(&'a self, table: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |out| match self {
            Self::Replace(frame, passes) => write!(out, "nft -f - # table ip {table} {{ {frame}}}, {} elements", passes.len()),
            Self::Put(passes) => write_elements(out, "add", table, passes),
            Self::Del(passes) => write_elements(out, "delete", table, passes),
        })
    }
}

fn write_elements(out: &mut fmt::Formatter<'_>, verb: &str, table: &str, passes: &[Pass]) -> fmt::Result {
    for (nth, of_set) in passes.chunk_by(|a, b| a.len == b.len).enumerate() {
        let set = of_set.first().map_or_else(String::new, |pass| set_name(pass.len));
        write!(out, "{}nft {verb} element ip {table} {set} {{ ", if nth > 0 { "; " } else { "" })?;
        for (nth, pass) in of_set.iter().enumerate() {
            write!(out, "{}{pass}", if nth > 0 { ", " } else { "" })?;
        }
        out.write_str(" }")?;
    }
    Ok(())
}

/// What a datagram of nf_tables' notifications says, whatever its bytes; for the fuzzer. Returns how much.
#[doc(hidden)]
#[cfg(feature = "contract")]
pub fn fuzz_filter_datagram(datagram: &[u8]) -> usize {
    let (mut heard, mut seen) = (Vec::new(), Seen::default());
    door::datagram_says(datagram, "loden-flannel.1", &mut heard);
    for message in crate::kernel::Messages::new(datagram).flatten() {
        let _ = seen.take(&message, "loden-flannel.1");
    }
    heard.len() + seen.passes.len() + seen.frame.rules.len()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use lease::MacAddr;

    use super::*;

    fn spec() -> FilterSpec {
        FilterSpec { device: "flannel.1".to_owned(), vni: Vni::new(1).unwrap(), port: 8472, subnet_len: 24 }
    }

    fn peer(number: u32) -> crate::Peer {
        let [_, a, b, c] = number.to_be_bytes();
        let (subnet, dst) = (Ipv4Addr::from_bits((10 << 24) | (number << 8)), Ipv4Addr::new(172, 16 + a, b, c));
        crate::Peer { subnet: format!("{subnet}/24").parse().unwrap(), mac: Some(MacAddr::new([2, 0, 0, a, b, c])), dst: dst.into() }
    }

    #[tokio::test]
    async fn the_kernel_shows_the_table_that_was_made_also_with_twenty_thousand_peers() {
        let host = testkit::Namespace::new("filtered", "").unwrap();
        let _within = host.enter().unwrap();
        let (network, subnet) = ("10.5.0.0/16".parse().unwrap(), "10.5.1.0/24".parse().unwrap());
        let ground = crate::Ground { network, subnet, vtep: None, direct: crate::Direct::Never, blackhole: false, table: None };
        let mut peers = Desired::new(ground);
        (1..=20_000).for_each(|number| peers.put(peer(number), &mut |_| ()));
        let mut filter = Filter::open(spec(), &peers).unwrap();
        filter.step(true, Instant::now()).await.unwrap();
        assert_eq!((filter.frame.clone(), filter.trouble()), (Some(filter.wanted_frame()), None));
        assert!(filter.in_step());
        assert_eq!(filter.elements(), (40_000, 40_000));
        // One more is one change, not another table.
        let looked = filter.last_look;
        peers.put(peer(30_000), &mut |_| ());
        filter.peers_changed(&peers, [peer(30_000).subnet]);
        filter.step(true, Instant::now()).await.unwrap();
        assert_eq!((filter.elements(), filter.last_look), ((40_002, 40_002), looked));
        assert!(filter.in_step());
        let mut again = Filter::open(spec(), &peers).unwrap();
        again.step(true, Instant::now()).await.unwrap();
        assert!(again.in_step());
    }
}

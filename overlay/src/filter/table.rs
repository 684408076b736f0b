//! One table of ours: looked at, compared, made anew in one transaction, repaired on the kernel's notification.
//!
//! ```text
//! what is wanted ─▶ Frame, Wanted ─┐
//!                                  ├─▶ difference ─▶ one transaction ─┐
//! dump + notifications ─▶ what is there                               │
//!        ▲──────────────── every change, by whomever ◀────────────────┘
//! ```
//!
//! Elements are changed one by one; whatever else in the table is not as wanted, the table is made anew in one transaction, so
//! that there is no moment without it. Like the reconciler it acts on what the kernel says, and takes no element away before
//! the peers are complete. It touches no other table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lease::{Family, Subnet};
use nix::errno::Errno;

use super::TableId;
use super::budget::Budget;
use super::door::{Door, take_in};
use super::frame::Frame;
use super::message::{Changer, Heard, Seen};
use super::op::FilterOp;
use super::pass::{Pass, Wanted, set_name};
use crate::entry::{Aspect, Matter};
use crate::kernel::{KernelError, Refusal};
use crate::retry::{Retries, Trouble};

/// What is tried again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Table,
    Element(Pass),
}

fn whole(part: Part) -> Matter<Part> {
    Matter(part, Aspect::Whole)
}

/// Owns one table.
pub(super) struct Table {
    id: TableId,
    door: Door,
    /// What to do where the kernel does not know what is asked of it.
    remedy: &'static str,
    wanted_frame: Frame,
    wanted: Wanted,
    /// The table as the kernel has it; none where there is none.
    frame: Option<Frame>,
    passes: BTreeSet<Pass>,
    /// Elements to look at, and whether it was the kernel that changed.
    dirty: BTreeMap<Pass, bool>,
    retries: Retries<Part>,
    look_wanted: bool,
    last_look: Option<Instant>,
    look_cost: Duration,
    budget: Budget,
    /// The frame that was wanted and there, the last time that was so.
    stood: Option<Frame>,
    pruned: bool,
    heals: u64,
    /// Whether what was told since the last word on who did it is about this table.
    concerned: bool,
    changer: Option<Changer>,
}

impl Table {
    /// Opens the way to nf_tables in the calling thread's network namespace. Nothing is changed yet.
    pub(super) fn open(id: TableId, family: Family, frame: Frame, remedy: &'static str) -> Result<Self, KernelError> {
        Ok(Self {
            door: Door::open()?,
            id,
            remedy,
            wanted_frame: frame,
            wanted: Wanted::new(family),
            frame: None,
            passes: BTreeSet::new(),
            dirty: BTreeMap::new(),
            retries: Retries::default(),
            look_wanted: true,
            last_look: None,
            look_cost: Duration::ZERO,
            budget: Budget::new(Instant::now()),
            stood: None,
            pruned: false,
            heals: 0,
            concerned: false,
            changer: None,
        })
    }

    /// From now on it is to be like this, less its elements.
    pub(super) fn want(&mut self, frame: Frame) {
        self.wanted_frame = frame;
    }

    /// A peer's elements are these now. Tells which may have changed.
    pub(super) fn put(&mut self, subnet: Subnet, at: Option<IpAddr>, mut tell: impl FnMut(Pass)) {
        let Self { wanted, dirty, .. } = self;
        wanted.put(subnet, at, &mut |pass| {
            tell(pass);
            dirty.insert(pass, false);
        });
    }

    /// Asks for a look at the whole table at the next step.
    pub(super) fn audit(&mut self) {
        self.look_wanted = true;
    }

    /// When [`step`](Self::step) has to be called again though nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let look = self.look_wanted.then(|| self.budget.due(self.in_a_fight()));
        [self.retries.next_due(), look].into_iter().flatten().min()
    }

    /// Waits until somebody has changed something in the table. Cancel safe.
    pub(super) async fn listen(&mut self) -> Result<(), KernelError> {
        let mut heard = Vec::new();
        let id = &self.id;
        self.door.wait(|told| take_in(told, id, &mut heard)).await?;
        self.take_in(heard);
        Ok(())
    }

    /// Does what there is to do. Elements are only taken away once the peers are `complete`.
    pub(super) async fn step(&mut self, complete: bool, now: Instant) -> Result<(), KernelError> {
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
        if self.look_wanted && self.budget.due(self.in_a_fight()) <= now {
            self.look(now).await?;
        }
        if self.is_right() {
            self.stood.clone_from(&self.frame);
            self.adjust(now).await
        } else if self.look_wanted {
            // What is there is not known well enough to be made anew: somebody keeps changing it, or it has just been made.
            Ok(())
        } else {
            self.make_anew(now).await
        }
    }

    /// Whether something waits because somebody keeps undoing it.
    fn in_a_fight(&self) -> bool {
        self.retries.outdone() > 0
    }

    /// Whether what is there is what is wanted, its elements aside.
    fn is_right(&self) -> bool {
        self.frame.as_ref() == Some(&self.wanted_frame)
    }

    /// Dumps the table. Where others change theirs too much for that (every change of any table interrupts a dump), it is put
    /// off: the table stands meanwhile. Returns whether it was dumped.
    async fn look(&mut self, now: Instant) -> Result<bool, KernelError> {
        let started = Instant::now();
        // What was told until now, the dump shows. Only who did it does not show there.
        let mut heard = Vec::new();
        self.hear(&mut heard)?;
        self.take_in(heard);
        let seen = self.door.look(&self.id, true).await;
        self.budget.charge(started.elapsed(), now, self.in_a_fight());
        let Seen { there, mut frame, passes, odd, counted: _ } = match seen {
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
        self.compare(self.stood.is_some());
        self.look_cost = started.elapsed();
        Ok(true)
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
        // That another one is wanted now is no repair.
        let repair = self.stood.is_some() && self.frame != self.stood;
        if self.retries.must_wait(Part::Table, now) || (repair && !self.retries.may_repair(whole(Part::Table), now)) {
            return Ok(());
        }
        // Before the peers are complete, what there was stays.
        let kept = self.passes.iter().filter(|pass| !self.pruned && self.wanted_frame.sets.contains_key(&set_name(pass.len)));
        let passes: BTreeSet<Pass> = self.wanted.passes().chain(kept.copied()).collect();
        let (frame, passes) = (self.wanted_frame.clone(), passes.into_iter().collect());
        self.apply(&[FilterOp::Replace(frame, passes)], repair, now).await?;
        // An acknowledgement is no proof.
        if !self.look(now).await? {
            return Ok(());
        }
        if self.is_right() {
            self.stood.clone_from(&self.frame);
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
            tracing::debug!(command = %op.on(&self.id), "apply");
        }
        let requests: Vec<_> = ops.iter().flat_map(|op| op.requests(&self.id)).collect();
        // Until it is known what became of them, only a dump tells.
        let look_wanted = std::mem::replace(&mut self.look_wanted, true);
        if let Err(refusal) = self.door.change(&requests).await? {
            if matches!(refusal.errno, Errno::EPERM | Errno::EACCES) {
                return Err(refusal.into_error("change the filter table"));
            }
            self.retries.refused_by_kernel(Part::Table, self.explained(&refusal), repair, now);
            return Ok(false);
        }
        let mut heard = Vec::new();
        self.hear(&mut heard)?;
        self.look_wanted = look_wanted;
        self.take_in(heard);
        self.retries.right(Part::Table);
        Ok(true)
    }

    /// What has been told and not been taken in yet.
    fn hear(&mut self, heard: &mut Vec<Heard>) -> Result<(), KernelError> {
        let id = &self.id;
        self.door.take(|told| take_in(told, id, heard))
    }

    fn take_in(&mut self, heard: Vec<Heard>) {
        for heard in heard {
            self.concerned |= !matches!(heard, Heard::By(..));
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
                Heard::By(port, changer) => {
                    if std::mem::take(&mut self.concerned) && port != self.door.port() {
                        self.changer = Some(changer);
                    }
                }
            }
        }
    }

    /// Which it is.
    pub(super) fn id(&self) -> &TableId {
        &self.id
    }

    /// How many elements there are, and how many there should be.
    pub(super) fn elements(&self) -> (usize, usize) {
        (self.passes.len(), self.wanted.len())
    }

    /// Why the table is not as it should be, unless it is just being put right.
    pub(super) fn trouble(&self) -> Option<String> {
        // A fight that is being won is no trouble.
        let said = |(Matter(part, _), trouble): (Matter<Part>, Trouble)| match part {
            Part::Table => format!("filter table {}: {trouble}", self.id),
            Part::Element(pass) => format!("filter table {}, element {pass} of {}: {trouble}", self.id, set_name(pass.len)),
        };
        let wrong = self.retries.refused() + self.retries.outdone() > 0;
        self.retries.troubles().next().filter(|_| wrong).map(said)
    }

    /// When the table was last dumped.
    #[cfg(test)]
    pub(super) fn last_look(&self) -> Option<Instant> {
        self.last_look
    }

    /// What the last look at the whole table has cost.
    pub(super) fn look_cost(&self) -> Duration {
        self.look_cost
    }

    /// Whether the table has been seen to stand; somebody may have changed it since.
    pub(super) fn stands(&self) -> bool {
        self.stood.is_some()
    }

    /// Whether the kernel holds the table as it should be.
    pub(super) fn in_step(&self) -> bool {
        self.is_right() && !self.look_wanted && self.trouble().is_none() && (self.dirty.is_empty() || !self.pruned)
    }

    /// Repairs of what others changed since this was last asked, and who was the last that changed anything.
    pub(super) fn take_heals(&mut self) -> (u64, Option<Changer>) {
        (std::mem::take(&mut self.heals), self.changer.clone())
    }

    /// Packets that its rules have counted since the table was made.
    pub(super) async fn counted(&mut self) -> Result<u64, KernelError> {
        Ok(self.door.look(&self.id, false).await?.counted)
    }

    fn explained(&self, refusal: &Refusal) -> String {
        match refusal.errno {
            Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::ENOENT => format!("{}; {}", refusal.reason(), self.remedy),
            _ => refusal.reason(),
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Table").field("id", &self.id).field("elements", &self.elements()).finish_non_exhaustive()
    }
}

//! Our rules in what iptables-legacy holds, which tells nobody of its changes.

use std::time::{Duration, Instant};

use super::super::family::facts;
use super::legacy::Saved;
use super::ruleset::{Change, has_ours, plan};
use super::xtables::{self, ToolError};
use super::{PUT_RIGHT, Wish, trouble};
use crate::entry::{Aspect, Matter};
use crate::retry::Retries;

/// The chain in which iptables filters what passes.
const CHAIN: &str = "FORWARD";
const TABLE: &str = "filter";

const WHOLE: Matter<()> = Matter((), Aspect::Whole);

/// Keeps them.
pub(super) struct Legacy {
    resync: Duration,
    due: Instant,
    /// Where ours stand, and where they were taken away.
    right: Option<String>,
    cleared: Option<String>,
    retries: Retries<()>,
    /// What cannot be told or done for want of a program or a right.
    note: Option<String>,
    heals: u64,
}

impl Legacy {
    pub(super) fn new(resync: Duration) -> Self {
        Self { resync, due: Instant::now(), right: None, cleared: None, retries: Retries::default(), note: None, heals: 0 }
    }

    /// Does what there is to do.
    pub(super) async fn step(&mut self, wish: &Wish, now: Instant) {
        while self.retries.pop_due(now).is_some() {
            self.due = now;
        }
        if self.due > now {
            return;
        }
        self.due = now + self.resync;
        match saved(wish).await {
            Err(reason) => self.note = Some(reason),
            Ok(None) => (self.note, self.right) = (None, None),
            Ok(Some((saved, change))) => {
                self.note = None;
                self.make(&saved, &change, wish, now).await;
            }
        }
    }

    async fn make(&mut self, saved: &Saved, change: &Change, wish: &Wish, now: Instant) {
        let name = format!("{}-legacy {TABLE} {CHAIN}", facts(wish.mark.family()).xtables);
        if change.is_empty() {
            self.right = holds_ours(saved, wish).then_some(name);
            self.retries.right(());
            return;
        }
        let repair = self.right.is_some() && change.put.is_some();
        if self.retries.must_wait((), now) || repair && !self.retries.may_repair(WHOLE, now) {
            return;
        }
        if let Err(reason) = put(saved, change, wish).await {
            self.retries.refused_by_kernel((), reason, repair, now);
            return;
        }
        self.retries.right(());
        (self.right, self.cleared) = if change.put.is_some() { (Some(name), None) } else { (None, Some(name)) };
        if repair {
            self.retries.repaired(WHOLE, now);
            self.heals += 1;
        } else {
            tracing::info!(chains = ?self.right, "{PUT_RIGHT}");
        }
    }

    /// When [`step`](Self::step) is due though nothing happens.
    pub(super) fn next_due(&self) -> Instant {
        self.retries.next_due().map_or(self.due, |due| due.min(self.due))
    }

    /// The chain, if it holds ours.
    pub(super) fn place(&self) -> Option<&String> {
        self.right.as_ref()
    }

    pub(super) fn take_cleared(&mut self) -> Option<String> {
        self.cleared.take()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        trouble(&self.retries).map(|trouble| format!("rules in iptables-legacy's {CHAIN}: {trouble}"))
    }

    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    pub(super) fn take_heals(&mut self) -> u64 {
        std::mem::take(&mut self.heals)
    }
}

/// What iptables-legacy holds, and what is to be changed in it; none where it holds nothing.
async fn saved(wish: &Wish) -> Result<Option<(Saved, Change)>, String> {
    let tables = xtables::tables(wish.mark.family())
        .map_err(|error| format!("it cannot be told whether iptables-legacy drops what passes: {error}"))?;
    if !tables.iter().any(|table| table == TABLE) {
        return Ok(None);
    }
    look(wish).await.map(Some).map_err(|error| error.to_string())
}

async fn look(wish: &Wish) -> Result<(Saved, Change), ToolError> {
    let saved = Saved::read(&xtables::save(wish.mark.family(), TABLE).await?);
    let change = plan(&saved.ruleset(&wish.mark), CHAIN, saved.drops(CHAIN), wish.wanted);
    Ok((saved, change))
}

async fn put(saved: &Saved, change: &Change, wish: &Wish) -> Result<(), String> {
    let text = saved.restore(CHAIN, change, &wish.mark);
    xtables::restore(wish.mark.family(), &text).await.map_err(|error| error.to_string())?;
    // That it was taken is no proof.
    let (_, left) = look(wish).await.map_err(|error| error.to_string())?;
    if left.is_empty() { Ok(()) } else { Err("it shows other rules than were put there".to_owned()) }
}

fn holds_ours(saved: &Saved, wish: &Wish) -> bool {
    saved.ruleset(&wish.mark).get(CHAIN).is_some_and(|rules| has_ours(rules))
}

/// Whether it holds rules with this mark. What cannot be told is taken for no.
pub(super) async fn holds(wish: &Wish) -> bool {
    saved(wish).await.is_ok_and(|saved| saved.is_some_and(|(saved, _)| holds_ours(&saved, wish)))
}

//! When a key is tried again: after a failure, and when somebody keeps undoing it.
//!
//! Each key has a backoff of its own, so that one bad entry holds up no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::entry::Key;

/// After the first failure. Short: most failures are races that are over by then.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest pause between two tries. What a person has mended is noticed within this time at the latest.
pub const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// So many repairs of one key are made at once; after more, each next one waits: it is a fight.
pub const FIGHT_AFTER: u32 = 5;

/// A key that stays right for so long after a repair is at peace again.
pub const PEACE_AFTER: Duration = Duration::from_secs(10);

/// A key that could not be made right, or does not stay so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The kernel refused it so many times in a row, the last time for this reason.
    Refused {
        /// How often.
        count: u32,
        /// What the kernel said.
        reason: String,
    },
    /// Something else undid it so many times.
    Fight {
        /// How often.
        count: u32,
        /// When it may be repaired again.
        next: Instant,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without the count: what stays the same is said once.
            Self::Refused { count: _, reason } => write!(out, "refused: {reason}"),
            Self::Fight { count, next: _ } => write!(out, "undone {count} times: something else manages it too"),
        }
    }
}

/// The keys in trouble.
#[derive(Debug)]
pub struct Retries<K = Key> {
    refusals: BTreeMap<K, Refusal>,
    repairs: BTreeMap<K, Repairs>,
    /// When to look at a key again. A look too many does no harm.
    due: BTreeSet<(Instant, K)>,
}

impl<K> Default for Retries<K> {
    fn default() -> Self {
        Self { refusals: BTreeMap::new(), repairs: BTreeMap::new(), due: BTreeSet::new() }
    }
}

#[derive(Debug)]
struct Refusal {
    count: u32,
    not_before: Instant,
    reason: String,
}

#[derive(Debug)]
struct Repairs {
    count: u32,
    last: Instant,
    not_before: Instant,
    /// Whether it is known to be wrong, and waits.
    wrong: bool,
}

impl<K: Ord + Copy> Retries<K> {
    /// The keys in trouble, with what is the matter.
    pub fn troubles(&self) -> impl Iterator<Item = (K, Trouble)> + '_ {
        let refused = self
            .refusals
            .iter()
            .map(|(key, Refusal { count, not_before: _, reason })| (*key, Trouble::Refused { count: *count, reason: reason.clone() }));
        let fights = self.repairs.iter().filter(|(_, repairs)| repairs.count > FIGHT_AFTER);
        refused.chain(fights.map(|(key, repairs)| (*key, Trouble::Fight { count: repairs.count, next: repairs.not_before })))
    }

    /// How many keys the kernel refuses.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refusals.len()
    }

    /// How many keys are known to be wrong and wait, because something else keeps undoing them.
    #[must_use]
    pub fn outdone(&self) -> usize {
        self.repairs.values().filter(|repairs| repairs.wrong).count()
    }

    /// When the next key is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The next key whose time has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (due, key) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.due.pop_first();
        Some(key)
    }

    /// Whether the key was refused and its time has not come yet.
    #[must_use]
    pub fn must_wait(&self, key: K, now: Instant) -> bool {
        self.refusals.get(&key).is_some_and(|refusal| refusal.not_before > now)
    }

    /// Whether the kernel refused the key the last time.
    #[must_use]
    pub fn is_refused(&self, key: K) -> bool {
        self.refusals.contains_key(&key)
    }

    /// The kernel refused the key.
    pub fn refused_by_kernel(&mut self, key: K, reason: String, now: Instant) {
        let count = self.refusals.get(&key).map_or(0, |refusal| refusal.count).saturating_add(1);
        let not_before = now + delay(count);
        self.refusals.insert(key, Refusal { count, not_before, reason });
        self.due.insert((not_before, key));
    }

    /// What the refusals were about is gone: every key starts afresh.
    pub fn forgive(&mut self) {
        self.refusals.clear();
    }

    /// The key is as it should be.
    pub fn right(&mut self, key: K) {
        self.refusals.remove(&key);
        if let Some(repairs) = self.repairs.get_mut(&key) {
            repairs.wrong = false;
        }
    }

    /// Somebody undid the key: whether it may be repaired now. If not, it is due when it may.
    pub fn may_repair(&mut self, key: K, now: Instant) -> bool {
        let repairs = self.repairs.entry(key).or_insert(Repairs { count: 0, last: now, not_before: now, wrong: false });
        if !repairs.wrong && now.duration_since(repairs.last) > PEACE_AFTER {
            repairs.count = 0;
        }
        if repairs.not_before > now {
            repairs.wrong = true;
            self.due.insert((repairs.not_before, key));
            return false;
        }
        repairs.count = repairs.count.saturating_add(1);
        repairs.last = now;
        repairs.wrong = false;
        if let Some(excess @ 1..) = repairs.count.checked_sub(FIGHT_AFTER) {
            repairs.not_before = now + delay(excess);
        }
        true
    }

    /// Forgets the keys at peace. To be called now and then.
    pub fn forget_the_quiet(&mut self, now: Instant) {
        self.repairs.retain(|_, repairs| repairs.wrong || now.duration_since(repairs.last) <= PEACE_AFTER);
    }
}

/// Doubles with each try, up to the longest.
fn delay(count: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << count.saturating_sub(1).min(16)).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_key_waits_longer_each_time_and_a_success_ends_it() {
        let (mut retries, start) = (Retries::<Key>::default(), Instant::now());
        retries.refused_by_kernel(Key::Device, "no".to_owned(), start);
        assert!(retries.must_wait(Key::Device, start));
        assert_eq!(retries.next_due(), Some(start + FIRST_DELAY));
        assert_eq!(retries.pop_due(start), None);
        assert_eq!(retries.pop_due(start + FIRST_DELAY), Some(Key::Device));
        assert!(!retries.must_wait(Key::Device, start + FIRST_DELAY));
        retries.refused_by_kernel(Key::Device, "no".to_owned(), start + FIRST_DELAY);
        assert_eq!(retries.next_due(), Some(start + FIRST_DELAY * 3));
        retries.right(Key::Device);
        assert_eq!(retries.refused(), 0);
    }

    #[test]
    fn the_sixth_repair_in_a_row_is_the_last_that_does_not_wait() {
        let (mut retries, now) = (Retries::<Key>::default(), Instant::now());
        for _ in 0..=FIGHT_AFTER {
            assert!(retries.may_repair(Key::Device, now));
        }
        assert!(!retries.may_repair(Key::Device, now));
        assert_eq!(retries.outdone(), 1);
        assert_eq!(retries.pop_due(now + FIRST_DELAY), Some(Key::Device));
        assert!(retries.may_repair(Key::Device, now + FIRST_DELAY));
        assert!(!retries.may_repair(Key::Device, now + FIRST_DELAY * 2), "the pause has doubled");
        assert_eq!(retries.troubles().count(), 1);
    }

    #[test]
    fn peace_ends_a_fight_but_waiting_for_ones_turn_is_no_peace() {
        let (mut retries, now) = (Retries::<Key>::default(), Instant::now());
        for _ in 0..FIGHT_AFTER + 12 {
            let due = retries.next_due().unwrap_or(now);
            retries.pop_due(due);
            retries.may_repair(Key::Device, due);
            retries.may_repair(Key::Device, due);
        }
        let due = retries.next_due().unwrap();
        assert!(retries.may_repair(Key::Device, due));
        assert!(!retries.may_repair(Key::Device, due + PEACE_AFTER), "{retries:?}");
        let later = due + LONGEST_DELAY * 2;
        retries.right(Key::Device);
        retries.forget_the_quiet(later);
        assert_eq!(retries.troubles().count(), 0);
    }
}

//! When a key is tried again: after a failure, and when somebody keeps undoing it.
//!
//! Each key has a backoff of its own, so that one bad entry holds up no other; each aspect of the device has, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::entry::{Aspect, Key, Matter};

/// After the first failure. Short: most failures are races that are over by then.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest pause between two tries. What a person has mended is noticed within this time at the latest.
pub const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// So many repairs of one matter are made at once; after more, each next one waits: it is a fight.
pub const FIGHT_AFTER: u32 = 5;

/// What stays right for so long after a repair is at peace again.
pub const PEACE_AFTER: Duration = Duration::from_secs(10);

/// What stays right for so long has one repair less to its account: undone now and then is no fight.
const FORGIVEN_AFTER: Duration = Duration::from_secs(1);

/// Of so many keys it is remembered who changed them last.
const SUSPECTS: usize = 256;

/// Something that could not be made right, or does not stay so.
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
        /// Who did it the last time, where the kernel said so.
        who: Option<Arc<str>>,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without the count: what stays the same is said once.
            Self::Refused { count: _, reason } => write!(out, "refused: {reason}"),
            Self::Fight { count, next: _, who } => {
                let who = who.as_deref().unwrap_or("something else");
                write!(out, "undone {count} times: {who} manages it too")
            }
        }
    }
}

/// What is in trouble.
#[derive(Debug)]
pub struct Retries<K = Key> {
    refusals: BTreeMap<K, Refusal>,
    repairs: BTreeMap<Matter<K>, Repairs>,
    /// When to look at something again. A look too many does no harm.
    due: BTreeSet<(Instant, Matter<K>)>,
    /// Who changed a key last.
    suspects: BTreeMap<K, Arc<str>>,
}

impl<K> Default for Retries<K> {
    fn default() -> Self {
        Self { refusals: BTreeMap::new(), repairs: BTreeMap::new(), due: BTreeSet::new(), suspects: BTreeMap::new() }
    }
}

#[derive(Debug)]
struct Refusal {
    count: u32,
    not_before: Instant,
    reason: String,
    /// Whether it is a repair that was refused.
    repair: bool,
}

#[derive(Debug)]
struct Repairs {
    count: u32,
    last: Instant,
    not_before: Instant,
    /// Whether it is known to be wrong, and waits.
    wrong: bool,
    who: Option<Arc<str>>,
}

impl<K: Ord + Copy> Retries<K> {
    /// What is in trouble, with what is the matter.
    pub fn troubles(&self) -> impl Iterator<Item = (Matter<K>, Trouble)> + '_ {
        let refused = self.refusals.iter().map(|(key, Refusal { count, not_before: _, reason, repair: _ })| {
            (Matter(*key, Aspect::Whole), Trouble::Refused { count: *count, reason: reason.clone() })
        });
        let fights = self.repairs.iter().filter(|(_, repairs)| repairs.count > FIGHT_AFTER);
        refused.chain(fights.map(|(matter, repairs)| {
            let Repairs { count, last: _, not_before, wrong: _, who } = repairs;
            (*matter, Trouble::Fight { count: *count, next: *not_before, who: who.clone() })
        }))
    }

    /// How many keys the kernel refuses.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refusals.len()
    }

    /// How many matters are known to be wrong and wait, because something else keeps undoing them.
    #[must_use]
    pub fn outdone(&self) -> usize {
        self.repairs.values().filter(|repairs| repairs.wrong).count()
    }

    /// Whether the matter is known to be wrong and waits.
    #[must_use]
    pub fn is_outdone(&self, matter: Matter<K>) -> bool {
        self.repairs.get(&matter).is_some_and(|repairs| repairs.wrong)
    }

    /// When the next matter is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The next matter whose time has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<Matter<K>> {
        let (due, matter) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.due.pop_first();
        Some(matter)
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

    /// Whether the kernel refused a repair of the key the last time.
    #[must_use]
    pub fn owes_repair(&self, key: K) -> bool {
        self.refusals.get(&key).is_some_and(|refusal| refusal.repair)
    }

    /// The kernel refused the key, or a repair of it.
    pub fn refused_by_kernel(&mut self, key: K, reason: String, repair: bool, now: Instant) {
        let count = self.refusals.get(&key).map_or(0, |refusal| refusal.count).saturating_add(1);
        let not_before = now + delay(count);
        self.refusals.insert(key, Refusal { count, not_before, reason, repair });
        self.due.insert((not_before, Matter(key, Aspect::Whole)));
    }

    /// What the refusals were about is gone: every key starts afresh.
    pub fn forgive(&mut self) {
        self.refusals.clear();
    }

    /// The key is as it should be. (The entries that the device lost are other keys.)
    pub fn right(&mut self, key: K) {
        self.refusals.remove(&key);
        for (_, repairs) in self.repairs.range_mut(Matter(key, Aspect::Whole)..Matter(key, Aspect::Entries)) {
            repairs.wrong = false;
        }
    }

    /// This one changed the key.
    pub fn suspect(&mut self, key: K, who: &Arc<str>) {
        if self.suspects.len() < SUSPECTS || self.suspects.contains_key(&key) {
            self.suspects.insert(key, Arc::clone(who));
        }
    }

    /// Somebody undid the matter: whether it may be repaired now. If not, it is due when it may.
    pub fn may_repair(&mut self, matter: Matter<K>, now: Instant) -> bool {
        let who = self.suspects.remove(&matter.0);
        let Some(repairs) = self.repairs.get_mut(&matter) else {
            self.repairs.insert(matter, Repairs { count: 0, last: now, not_before: now, wrong: false, who });
            return true;
        };
        repairs.who = who.or(repairs.who.take());
        if !repairs.wrong {
            let quiet = now.duration_since(repairs.last);
            let forgiven = u32::try_from(quiet.as_secs() / FORGIVEN_AFTER.as_secs()).unwrap_or(u32::MAX);
            repairs.count = if quiet > PEACE_AFTER { 0 } else { repairs.count.saturating_sub(forgiven) };
            repairs.last = now;
        }
        if repairs.not_before > now {
            repairs.wrong = true;
            self.due.insert((repairs.not_before, matter));
            return false;
        }
        true
    }

    /// The matter was repaired.
    pub fn repaired(&mut self, matter: Matter<K>, now: Instant) {
        let repairs = self.repairs.entry(matter).or_insert(Repairs { count: 0, last: now, not_before: now, wrong: false, who: None });
        repairs.count = repairs.count.saturating_add(1);
        repairs.last = now;
        repairs.wrong = false;
        if let Some(excess @ 1..) = repairs.count.checked_sub(FIGHT_AFTER) {
            repairs.not_before = now + delay(excess);
        }
    }

    /// Forgets what is at peace. To be called now and then.
    pub fn forget_the_quiet(&mut self, now: Instant) {
        self.repairs.retain(|_, repairs| repairs.wrong || now.duration_since(repairs.last) <= PEACE_AFTER);
        self.suspects.clear();
    }
}

/// Doubles with each try, up to the longest.
fn delay(count: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << count.saturating_sub(1).min(16)).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Matter = Matter(Key::Device, Aspect::Whole);
    const MTU: Matter = Matter(Key::Device, Aspect::Mtu);

    fn repair(retries: &mut Retries, matter: Matter, now: Instant) -> bool {
        let may = retries.may_repair(matter, now);
        if may {
            retries.repaired(matter, now);
        }
        may
    }

    #[test]
    fn a_refused_key_waits_longer_each_time_and_a_success_ends_it() {
        let (mut retries, start) = (Retries::default(), Instant::now());
        retries.refused_by_kernel(Key::Device, "no".to_owned(), true, start);
        assert!(retries.must_wait(Key::Device, start) && retries.owes_repair(Key::Device));
        assert_eq!(retries.next_due(), Some(start + FIRST_DELAY));
        assert_eq!(retries.pop_due(start), None);
        assert_eq!(retries.pop_due(start + FIRST_DELAY), Some(DEVICE));
        assert!(!retries.must_wait(Key::Device, start + FIRST_DELAY));
        retries.refused_by_kernel(Key::Device, "no".to_owned(), true, start + FIRST_DELAY);
        assert_eq!(retries.next_due(), Some(start + FIRST_DELAY * 3));
        retries.right(Key::Device);
        assert_eq!(retries.refused(), 0);
    }

    #[test]
    fn the_sixth_repair_in_a_row_is_the_last_that_does_not_wait() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        for _ in 0..=FIGHT_AFTER {
            assert!(repair(&mut retries, DEVICE, now));
        }
        assert!(!repair(&mut retries, DEVICE, now));
        assert_eq!(retries.outdone(), 1);
        assert_eq!(retries.pop_due(now + FIRST_DELAY), Some(DEVICE));
        assert!(repair(&mut retries, DEVICE, now + FIRST_DELAY));
        assert!(!repair(&mut retries, DEVICE, now + FIRST_DELAY * 2), "the pause has doubled");
        assert_eq!(retries.troubles().count(), 1);
    }

    #[test]
    fn a_fight_over_one_aspect_is_none_over_another() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        for _ in 0..FIGHT_AFTER * 2 {
            repair(&mut retries, MTU, now);
        }
        assert!(!retries.may_repair(MTU, now) && retries.may_repair(DEVICE, now));
        assert_eq!(retries.troubles().map(|(matter, _)| matter).collect::<Vec<_>>(), [MTU]);
    }

    #[test]
    fn a_repair_that_was_not_made_does_not_count() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        for _ in 0..FIGHT_AFTER * 3 {
            assert!(retries.may_repair(DEVICE, now));
        }
        assert_eq!(retries.troubles().count(), 0);
    }

    #[test]
    fn what_is_undone_now_and_then_is_no_fight() {
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        for _ in 0..FIGHT_AFTER * 10 {
            assert!(repair(&mut retries, DEVICE, now));
            now += FORGIVEN_AFTER;
        }
        assert_eq!(retries.troubles().count(), 0);
    }

    #[test]
    fn who_undid_it_last_is_named() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        for who in ["first (process 1)", "second (process 2)"] {
            for _ in 0..FIGHT_AFTER {
                retries.suspect(Key::Device, &Arc::from(who));
                repair(&mut retries, DEVICE, now);
            }
        }
        let (_, trouble) = retries.troubles().next().unwrap();
        assert!(trouble.to_string().contains("second (process 2) manages it too"), "{trouble}");
    }

    #[test]
    fn peace_ends_a_fight_but_waiting_for_ones_turn_is_no_peace() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        for _ in 0..FIGHT_AFTER + 12 {
            let due = retries.next_due().unwrap_or(now);
            retries.pop_due(due);
            repair(&mut retries, DEVICE, due);
            repair(&mut retries, DEVICE, due);
        }
        let due = retries.next_due().unwrap();
        assert!(repair(&mut retries, DEVICE, due));
        assert!(!repair(&mut retries, DEVICE, due + PEACE_AFTER), "{retries:?}");
        let later = due + LONGEST_DELAY * 2;
        retries.right(Key::Device);
        retries.forget_the_quiet(later);
        assert_eq!(retries.troubles().count(), 0);
    }
}

//! The guard against mass removals: whether what a snapshot of the store lacks is believed at once.
//!
//! A store that was wiped, restored from an old copy, or read through the wrong prefix suddenly names few peers or none.
//! Hosts do leave while nobody watches, but seldom most of them. What is missing is then held for a while, in which
//! people can look and hosts can claim their leases again. Explicit deletes and expiries are never held.

use std::time::Duration;

/// Fewer peers than this may be missing from a snapshot without being held: hosts do leave while nobody watches.
pub const MASS_FLOOR: usize = 3;

/// When removals are held, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// Up to this percentage of the peers may be missing from a snapshot.
    pub percent: u8,
    /// How long peers stay in force that a snapshot suddenly lacks. Zero is no guard at all.
    pub hold: Duration,
}

impl Guard {
    /// Half of the peers, held for five minutes: long enough for hosts to claim their leases again after the store was
    /// lost, short enough to be waited for.
    pub const DEFAULT: Self = Self { percent: 50, hold: Duration::from_secs(300) };

    /// Believes every snapshot at once.
    pub const OFF: Self = Self { percent: 100, hold: Duration::ZERO };

    /// Whether a snapshot is not to be believed at once that lacks so many of the peers, from a store that knows less
    /// than it did (it `went_back` in time) or not.
    #[must_use]
    pub fn holds(self, missing: usize, of: usize, went_back: bool) -> bool {
        let many = missing >= MASS_FLOOR && missing.saturating_mul(100) > of.saturating_mul(usize::from(self.percent));
        !self.hold.is_zero() && (many || (went_back && missing > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_share_and_never_fewer_than_three_are_held() {
        let guard = Guard::DEFAULT;
        for (missing, of, held) in
            [(0, 0, false), (2, 2, false), (3, 3, true), (3, 6, false), (4, 6, true), (50, 100, false), (51, 100, true)]
        {
            assert_eq!(guard.holds(missing, of, false), held, "{missing} of {of}");
        }
        let strict = Guard { percent: 10, ..guard };
        assert!(strict.holds(3, 29, false) && !strict.holds(3, 30, false) && !strict.holds(2, 2, false));
        assert!(!Guard { percent: 100, ..guard }.holds(9, 9, false));
    }

    #[test]
    fn whatever_a_store_lacks_that_went_back_in_time_is_held_unless_the_guard_is_off() {
        assert!(Guard::DEFAULT.holds(1, 100, true) && !Guard::DEFAULT.holds(0, 100, true));
        assert!(!Guard::OFF.holds(100, 100, true) && !Guard::OFF.holds(100, 100, false));
    }
}

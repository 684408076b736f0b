//! How much of a family is run.

use std::time::Duration;

/// How long all families together take, roughly, in full: a hundred kills, a storm of a minute.
const WHOLE: Duration = Duration::from_secs(1_300);

/// How many rounds, and for how long: everything scales with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    per_mille: u32,
}

impl Budget {
    /// Each fault once or a few times: what `make test` has time for.
    pub const SHORT: Self = Self { per_mille: 20 };

    /// Everything once, in full.
    pub const FULL: Self = Self { per_mille: 1_000 };

    /// Roughly this long for all families together.
    #[must_use]
    pub fn of(time: Duration) -> Self {
        Self { per_mille: u32::try_from(time.as_millis() * 1_000 / WHOLE.as_millis()).unwrap_or(u32::MAX) }
    }

    /// Whether there are rounds enough to judge times by: in the short form the machine is shared with other tests.
    #[must_use]
    pub fn judges_times(self) -> bool {
        self.per_mille >= 200
    }

    /// How many rounds where it would be so many in full: at least one.
    #[must_use]
    pub fn rounds(self, full: u32) -> u32 {
        let rounds = (u64::from(full) * u64::from(self.per_mille)).div_ceil(1_000).max(1);
        u32::try_from(rounds).unwrap_or(u32::MAX)
    }

    /// How long where it would be so long in full: at least a second.
    #[must_use]
    pub fn time(self, full: Duration) -> Duration {
        (full * self.per_mille / 1_000).max(Duration::from_secs(1))
    }
}

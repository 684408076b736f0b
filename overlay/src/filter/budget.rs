//! How much of the time goes into dumps of a table: somebody who makes the kernel lose notifications, or keeps changing the table, cannot
//! keep us dumping.

use std::time::{Duration, Instant};

/// So much of each window, less what the last one is over it. While something waits because somebody keeps undoing it, there is less to be
/// seen.
const SHARE: Duration = Duration::from_millis(200);
const SHARE_IN_A_FIGHT: Duration = Duration::from_millis(20);
const WINDOW: Duration = Duration::from_secs(1);

/// The running window's account.
#[derive(Debug)]
pub(super) struct Budget {
    began: Instant,
    spent: Duration,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, spent: Duration::ZERO }
    }

    /// When the next dump may be made: at once, unless this window's share is spent.
    pub(super) fn due(&self, fight: bool) -> Instant {
        if self.spent < share(fight) { self.began } else { self.began + WINDOW }
    }

    /// Puts a dump's cost to the account; what the window before was over its share is owed.
    pub(super) fn charge(&mut self, cost: Duration, now: Instant, fight: bool) {
        let windows = u32::try_from(now.duration_since(self.began).as_millis() / WINDOW.as_millis()).unwrap_or(u32::MAX);
        *self = match windows {
            0 => Self { began: self.began, spent: self.spent + cost },
            _ => Self { began: now, spent: self.spent.saturating_sub(share(fight).saturating_mul(windows)) + cost },
        };
    }
}

fn share(fight: bool) -> Duration {
    if fight { SHARE_IN_A_FIGHT } else { SHARE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_spent_is_waited_for_and_what_is_over_it_is_owed() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        budget.charge(Duration::from_millis(500), start, false);
        assert_eq!(budget.due(false), start + WINDOW);
        // One window later 300 ms are owed, two later 100.
        budget.charge(Duration::ZERO, start + WINDOW, false);
        assert_eq!(budget.due(false), start + WINDOW * 2);
        budget.charge(Duration::ZERO, start + WINDOW * 2, false);
        assert_eq!(budget.due(false), start + WINDOW * 2);
        assert_eq!(budget.due(true), start + WINDOW * 3);
    }
}

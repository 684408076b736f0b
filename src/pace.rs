//! How often what somebody undoes is put right: at once now and then, ever later against who keeps undoing it. Never a busy loop.

use std::time::Duration;

use tokio::time::Instant;

/// The delay before the second report of a series, and before the tenth and all later ones.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(30);
/// What stays right for so long beyond the delay has one change less to its account.
const FORGIVEN_AFTER: Duration = Duration::from_millis(500);
/// A report that comes so long after the one before begins a new series.
const CALM: Duration = Duration::from_secs(120);
const _: () = assert!(CALM.as_secs() > 2 * LAST_DELAY.as_secs());

/// How soon the next report may follow.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Instant>,
    delay: Duration,
    in_a_row: u32,
}

impl Pace {
    /// When the next report may come.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.last.map_or_else(Instant::now, |last| last + self.delay)
    }

    /// Whether the next report may come now. Not the same as a comparison with [`next`](Self::next), which is now where there was none.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| last + self.delay <= now)
    }

    /// Takes a report into account; returns how many there have been in a row, with no calm between.
    pub fn report(&mut self, now: Instant) -> u32 {
        let calm = self.last.is_none_or(|last| now.saturating_duration_since(last) > CALM);
        if calm {
            *self = Self::default();
        }
        // Each calm moment beyond the delay takes back one doubling: undone now and then is no fight.
        let quiet = now.saturating_duration_since(self.next()).as_millis() / FORGIVEN_AFTER.as_millis();
        let forgiven = u32::try_from(quiet).unwrap_or(u32::MAX).min(self.in_a_row);
        let delay = self.delay / 2_u32.saturating_pow(forgiven) * 2;
        self.delay = delay.clamp(FIRST_DELAY, LAST_DELAY);
        self.in_a_row = (self.in_a_row - forgiven).saturating_add(1);
        self.last = Some(now);
        self.in_a_row
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fight_is_told_ever_later_and_calm_ends_it() {
        let mut pace = Pace::default();
        let mut delays = Vec::new();
        for turn in 1..=12 {
            let before = Instant::now();
            sleep_until(pace.next()).await;
            delays.push(before.elapsed());
            assert_eq!(pace.report(Instant::now()), turn);
        }
        assert!(delays.is_sorted(), "{delays:?}");
        assert!(delays.iter().take(1).all(Duration::is_zero) && delays.last() == Some(&LAST_DELAY), "{delays:?}");
        sleep(CALM * 2).await;
        assert_eq!(pace.report(Instant::now()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_changed_now_and_then_is_told_at_once() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            assert!(pace.next() <= Instant::now(), "{pace:?}");
            assert!(pace.report(Instant::now()) < 3, "{pace:?}");
            sleep(FORGIVEN_AFTER * 2).await;
        }
    }
}

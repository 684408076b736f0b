//! Randomness that is passed in: for the choice of a subnet and for jitter. Not for secrets.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A small generator (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator that always gives the same numbers for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator that differs between hosts and runs.
    #[must_use]
    pub fn from_entropy() -> Self {
        // The standard library seeds its hashers from the system's randomness.
        Self(RandomState::new().build_hasher().finish())
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        let scaled = (u128::from(self.bits()) * u128::from(end)) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }

    /// The duration, made up to a fifth longer or shorter, so that hosts that began together do not stay together.
    pub fn jitter(&mut self, around: Duration) -> Duration {
        around * 4 / 5 + self.part_of(around * 2 / 5)
    }

    /// Somewhere between nothing and `whole`.
    pub fn part_of(&mut self, whole: Duration) -> Duration {
        let steps = u32::try_from(self.bits() >> 48).unwrap_or(0);
        whole.checked_mul(steps).map_or(whole, |product| product / (1 << 16))
    }
}

/// How long to wait before the next attempt: twice as long each time, up to a cap, jittered.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
    rng: Rng,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, cap: Duration, rng: Rng) -> Self {
        Self { first, cap, next: first, rng }
    }

    /// How long to wait now: between half of this step and all of it.
    pub(crate) fn step(&mut self) -> Duration {
        let half = self.next / 2;
        self.next = (self.next * 2).min(self.cap);
        half + self.rng.part_of(half)
    }

    /// Begins again with the first step: what was tried has worked.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_stays_below_and_reaches_everything() {
        let mut rng = Rng::new(7);
        let mut seen = [false; 100];
        for _ in 0..5_000 {
            seen[rng.below(100)] = true;
        }
        assert!(seen.iter().all(|hit| *hit));
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let mut rng = Rng::new(7);
        let day = Duration::from_secs(86_400);
        for _ in 0..1_000 {
            let got = rng.jitter(day);
            assert!(got >= day * 4 / 5 && got <= day * 6 / 5, "{got:?}");
        }
    }

    #[test]
    fn backoff_doubles_up_to_its_cap_and_begins_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 4 * second, Rng::new(1));
        for step in [1, 2, 4, 4, 4] {
            let got = backoff.step();
            assert!(got >= second * step / 2 && got <= second * step, "{got:?} in step {step}");
        }
        backoff.reset();
        assert!(backoff.step() <= second);
    }
}

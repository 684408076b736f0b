//! What the lease set has to say, as log lines: so many in full, then one line for the rest, so that a store full of bad
//! records, or one that somebody keeps rewriting, does not fill a disk.

use std::time::{Duration, Instant};

use overlay::Notice;

/// So many are told one by one within [`PERIOD`].
const IN_FULL: usize = 10;

/// After this a new count begins.
const PERIOD: Duration = Duration::from_secs(60);

/// Says notices, within bounds.
#[derive(Debug)]
pub(crate) struct Notices {
    since: Instant,
    told: usize,
    untold: usize,
}

impl Notices {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, told: 0, untold: 0 }
    }

    pub(crate) fn log(&mut self, notices: Vec<Notice>, now: Instant) {
        if now.duration_since(self.since) > PERIOD {
            if self.untold > 0 {
                tracing::warn!(more = self.untold, "more of the same: `loden status --json` has what stands at the moment");
            }
            *self = Self::new(now);
        }
        for notice in notices {
            // What concerns all peers is always told.
            let always = matches!(notice, Notice::Held { .. } | Notice::HoldOver(_));
            if always || self.told < IN_FULL {
                self.told += usize::from(!always);
                say(notice);
            } else {
                if self.untold == 0 {
                    tracing::warn!(each = ?PERIOD, "many odd leases: from here on only their number is told; loden status --json has them all");
                }
                self.untold += 1;
            }
        }
    }
}

fn say(notice: Notice) {
    match notice {
        Notice::Rejected(key, reason) => tracing::warn!(%key, %reason, "lease rejected: it is not acted on, no other peer is touched"),
        Notice::Recovered(key) => tracing::info!(%key, "lease accepted that had been rejected"),
        Notice::OtherBackend(key, backend) => tracing::warn!(%key, ?backend, "lease of another backend ignored"),
        Notice::Stray(key) => tracing::warn!(what = key, "nobody's lease: ignored"),
        Notice::Held { missing, of, until } => tracing::error!(
            missing,
            of,
            hold = ?until.saturating_duration_since(Instant::now()),
            "the store suddenly lacks peers: they are kept for now; look at the store, or start again with --mass-removal-accept"
        ),
        Notice::HoldOver(gone) => tracing::warn!(gone, "peers removed that the store has lacked all the time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_as_a_number_and_ends_with_its_minute() {
        let now = Instant::now();
        let mut notices = Notices::new(now);
        let flood = |count: usize| vec![Notice::Stray("x".to_owned()); count];
        notices.log(flood(1000), now);
        assert_eq!((notices.told, notices.untold), (IN_FULL, 990));
        notices.log(flood(1), now + PERIOD * 2);
        assert_eq!((notices.told, notices.untold), (1, 0));
    }
}

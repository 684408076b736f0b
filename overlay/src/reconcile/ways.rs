//! Which peers are reached directly: asked of the kernel when a peer comes or changes, and of all peers when the kernel says that routes,
//! rules, addresses or interfaces have changed.
//!
//! Our own routes do not change the answers: each of them has a next hop, and what has one is not reached directly.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Cause, Reconciler, look};
use crate::device::IfIndex;
use crate::entry::Key;
use crate::ground::Direct;
use crate::kernel::{Kernel, KernelError};

/// After a change: until a burst of them (address away, address back) is over.
const SETTLE: Duration = Duration::from_millis(50);

/// All are not asked more often than this part of the time allows: others' routes may change all the time.
const REST: u32 = 20;

/// What is still to be asked.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Addresses of peers that came or changed.
    unasked: BTreeSet<IpAddr>,
    /// Something has changed that concerns all.
    changed: bool,
    /// When all are asked again.
    due: Option<Instant>,
    /// Until when all are not asked again.
    rest: Option<Instant>,
}

impl Ways {
    /// Whether that has been said, and is not on the clock yet.
    pub(super) fn have_changed(&self) -> bool {
        self.changed
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether all are to be asked now.
    fn all_are_due(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.changed) {
            let earliest = now + SETTLE;
            self.due.get_or_insert(self.rest.map_or(earliest, |rest| rest.max(earliest)));
        }
        self.due.take_if(|due| *due <= now).is_some()
    }
}

impl<K: Kernel> Reconciler<K> {
    /// The answers may be others now, where anything was asked.
    pub(super) fn ways_changed(&mut self) {
        self.ways.changed = self.desired.ground().direct != Direct::Never;
    }

    /// A peer came or changed, if it is a peer's key: it has to be asked about before its route is planned.
    pub(super) fn ask_about(&mut self, keys: impl IntoIterator<Item = Key>) {
        if self.desired.ground().direct != Direct::Never {
            let peers = keys.into_iter().filter_map(|key| if let Key::Route(key) = key { self.desired.peer(key.prefix) } else { None });
            self.ways.unasked.extend(peers.map(|peer| peer.dst));
        }
    }

    pub(super) fn ask_about_all(&mut self) {
        if self.desired.ground().direct != Direct::Never {
            self.ways.unasked.extend(self.desired.peers().map(|peer| peer.dst));
        }
    }

    /// An interface is down or away: nobody is reached by it any more.
    pub(super) fn lose_link(&mut self, index: IfIndex) {
        let lost: Vec<_> = self.desired.near_by(index).map(|dst| (dst, None)).collect();
        self.answer(lost);
    }

    /// Asks what there is to ask.
    pub(super) async fn ask_ways(&mut self, now: Instant) -> Result<(), KernelError> {
        if self.desired.ground().direct == Direct::Never {
            return Ok(());
        }
        let all = self.ways.all_are_due(now);
        if all {
            self.ask_about_all();
        }
        let addresses: Vec<_> = std::mem::take(&mut self.ways.unasked).into_iter().collect();
        if addresses.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let answers = match self.kernel.near(&addresses).await {
            Ok(answers) => answers,
            Err(error) => {
                self.ways.unasked.extend(addresses);
                return Err(error);
            }
        };
        if all {
            self.ways.rest = Some(now + started.elapsed().saturating_mul(REST));
            self.desired.forget_near_but(&addresses);
        }
        self.answer(addresses.into_iter().zip(answers));
        Ok(())
    }

    /// What was refused on the former way may go on the new one.
    fn answer(&mut self, answers: impl IntoIterator<Item = (IpAddr, Option<IfIndex>)>) {
        let Self { desired, dirty, retries, .. } = self;
        desired.set_near(answers, &mut |key| {
            retries.right(key);
            look(dirty, key, Cause::Wish);
        });
    }
}

//! A batch: which operations come next, and what has become of them.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use super::standing::{Heal, kind_of};
use super::{Cause, Reconciler};
use crate::entry::Key;
use crate::kernel::{Failure, Kernel};
use crate::op::Op;
use crate::plan::{self, Plan};

/// Operations a batch. Their notifications have to fit the receive buffer that everybody gets (256 of them in 212 992
/// bytes), with room for a second one each: a replaced route is told twice.
pub const BATCH: usize = 100;

/// So many of the last repairs are remembered for a person to see.
const HEALS_KEPT: usize = 64;

impl<K: Kernel> Reconciler<K> {
    /// The next batch's operations.
    pub(super) fn next_batch(&mut self, now: Instant) -> Vec<Op> {
        let mut ops: Vec<Op> = Vec::new();
        while ops.len() < BATCH {
            // The device comes first and alone: what can hang on it is known when it stands.
            if ops.iter().any(|op| op.key() <= Key::Device) {
                return ops;
            }
            let Some((key, cause)) = self.dirty.pop_first() else { break };
            let Plan { puts, dels, blocked } = self.plan_one(key);
            self.blocked.remove(&key);
            self.doomed.remove(&key);
            if let Some((key, blocked)) = blocked.into_iter().next() {
                self.blocked.insert(key, blocked);
            } else if !dels.is_empty() {
                self.doomed.insert(key, cause);
            } else if puts.is_empty() {
                self.retries.right(key);
            } else if self.may_go(key, cause, &puts, now) {
                ops.extend(puts);
            }
        }
        if ops.is_empty() && self.peers.is_complete() {
            while ops.len() < BATCH {
                let Some((key, cause)) = self.doomed.pop_last() else { break };
                let Plan { dels, .. } = self.plan_one(key);
                if !dels.is_empty() && self.may_go(key, cause, &dels, now) {
                    ops.extend(dels);
                }
            }
        }
        ops
    }

    fn plan_one(&self, key: Key) -> Plan {
        plan::plan(&self.desired, &self.observed, [key])
    }

    /// Whether a key may be acted on now. Counts a repair of what somebody else did.
    fn may_go(&mut self, key: Key, cause: Cause, ops: &[Op], now: Instant) -> bool {
        if self.retries.must_wait(key, now) {
            return false;
        }
        if cause == Cause::Wish {
            return true;
        }
        if !self.retries.may_repair(key, now) {
            return false;
        }
        for op in ops {
            if self.heals.len() == HEALS_KEPT {
                self.heals.pop_front();
            }
            self.heals.push_back(Heal { at: SystemTime::now(), op: op.clone() });
        }
        self.totals.entry(kind_of(key)).or_default().heals += 1;
        true
    }

    /// After a batch: what failed is tried again later; what was acknowledged has to show in the kernel's own events.
    pub(super) fn settle(&mut self, ops: &[Op], failures: Vec<Failure>, now: Instant) {
        let mut failed: BTreeMap<Key, String> = BTreeMap::new();
        for Failure { index, errno: _, reason } in failures {
            if let Some(op) = ops.get(index) {
                failed.entry(op.key()).or_insert_with(|| format!("{}: {reason}", op.on(self.device_name())));
            }
        }
        for op in ops {
            let key = op.key();
            let counts = self.totals.entry(kind_of(key)).or_default();
            if let Some(reason) = failed.get(&key) {
                counts.refused += 1;
                self.retries.refused_by_kernel(key, reason.clone(), now);
                // Perhaps the kernel is not as we see it.
                self.dump_wanted = true;
                continue;
            }
            counts.applied += 1;
            if self.plan_one(key).is_empty() {
                self.dirty.remove(&key);
                self.retries.right(key);
            } else {
                self.dump_wanted = true;
            }
        }
    }
}

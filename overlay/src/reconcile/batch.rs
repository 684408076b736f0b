//! A batch: which operations come next, and what has become of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime};

use super::standing::{Heal, kind_of};
use super::{Cause, Reconciler};
use crate::entry::{Aspect, Key, Matter};
use crate::kernel::{Failure, Kernel};
use crate::op::Op;
use crate::plan::{self, Plan};

/// Operations a batch. Their notifications have to fit the receive buffer that everybody gets (256 of them in 212 992
/// bytes), with room for a second one each: a replaced route is told twice.
pub const BATCH: usize = 100;

/// So many of the last repairs are remembered for a person to see.
const HEALS_KEPT: usize = 64;

/// Operations, and the keys of which they repair what somebody else undid.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) ops: Vec<Op>,
    repairs: BTreeSet<Key>,
}

impl Batch {
    fn push(&mut self, key: Key, (ops, repair): (Vec<Op>, bool)) {
        if repair && !ops.is_empty() {
            self.repairs.insert(key);
        }
        self.ops.extend(ops);
    }

    /// The operations, key by key. Those of one key stand together.
    fn by_key(&self) -> impl Iterator<Item = (Key, &[Op])> {
        self.ops.chunk_by(|a, b| a.key() == b.key()).filter_map(|ops| Some((ops.first()?.key(), ops)))
    }
}

impl<K: Kernel> Reconciler<K> {
    /// The next batch.
    pub(super) fn next_batch(&mut self, now: Instant) -> Batch {
        let mut batch = Batch::default();
        while batch.ops.len() < BATCH {
            // The device comes first and alone: what can hang on it is known when it stands.
            if batch.ops.iter().any(|op| op.key() <= Key::Device) {
                return batch;
            }
            let Some((key, cause)) = self.dirty.pop_first() else { break };
            let Plan { puts, dels, blocked } = self.plan_one(key);
            self.blocked.remove(&key);
            self.doomed.remove(&key);
            if let Some((key, blocked)) = blocked.into_iter().next() {
                self.blocked.insert(key, blocked);
            } else if !puts.is_empty() {
                // What is to be deleted then shows in the kernel's events.
                batch.push(key, self.allowed(key, cause, puts, now));
            } else if !dels.is_empty() {
                self.doomed.insert(key, cause);
            } else {
                self.retries.right(key);
            }
        }
        if batch.ops.is_empty() && self.peers.is_complete() {
            while batch.ops.len() < BATCH {
                let Some((key, cause)) = self.doomed.pop_last() else { break };
                let Plan { dels, .. } = self.plan_one(key);
                batch.push(key, self.allowed(key, cause, dels, now));
            }
        }
        batch
    }

    fn plan_one(&self, key: Key) -> Plan {
        plan::plan(&self.desired, &self.observed, [key])
    }

    /// Those of a key's operations that may be done now, and whether they repair what somebody else did.
    fn allowed(&mut self, key: Key, cause: Cause, mut ops: Vec<Op>, now: Instant) -> (Vec<Op>, bool) {
        if self.retries.must_wait(key, now) {
            return (Vec::new(), false);
        }
        let repair = cause == Cause::Kernel || self.retries.owes_repair(key);
        if repair {
            let matters = matters(key, &ops);
            let allowed: BTreeSet<Matter> = matters.into_iter().filter(|matter| self.retries.may_repair(*matter, now)).collect();
            if ops.iter().any(|op| op.aspect() == Aspect::Whole) {
                // A device that is made anew is made whole.
                ops.retain(|_| !allowed.is_empty());
            } else {
                ops.retain(|op| allowed.contains(&Matter(key, op.aspect())));
            }
        }
        (ops, repair)
    }

    /// After a batch: what failed is tried again later; what was acknowledged has to show in the kernel's own events.
    pub(super) fn settle(&mut self, batch: &Batch, failures: Vec<Failure>, now: Instant) {
        let mut failed: BTreeMap<Key, String> = BTreeMap::new();
        for Failure { index, errno: _, reason } in failures {
            if let Some(op) = batch.ops.get(index) {
                failed.entry(op.key()).or_insert_with(|| format!("{}: {reason}", op.on(self.device_name())));
            }
        }
        for (key, ops) in batch.by_key() {
            let repair = batch.repairs.contains(&key);
            let counts = self.totals.entry(kind_of(key)).or_default();
            let done = u64::try_from(ops.len()).unwrap_or(u64::MAX);
            if let Some(reason) = failed.get(&key) {
                counts.refused += done;
                self.retries.refused_by_kernel(key, reason.clone(), repair, now);
                // Perhaps the kernel is not as we see it.
                self.dump_wanted = true;
                continue;
            }
            counts.applied += done;
            if ops.contains(&Op::EnableForwarding { ipv6: true }) {
                tracing::info!(
                    "IPv6 forwarding switched on: interfaces with accept_ra=1 take no router advertisements from now on; \
                     set net.ipv6.conf.INTERFACE.accept_ra=2 where this host has its address or default route from them"
                );
            }
            if repair {
                counts.heals += 1;
                self.remember(Heal { at: SystemTime::now(), key, ops: ops.to_vec() });
                for matter in matters(key, ops) {
                    self.retries.repaired(matter, now);
                }
            }
            if self.plan_one(key).is_empty() {
                self.dirty.remove(&key);
                self.retries.right(key);
            } else {
                self.look_again(key);
            }
        }
    }

    fn remember(&mut self, heal: Heal) {
        if self.heals.len() == HEALS_KEPT {
            self.heals.pop_front();
        }
        self.heals.push_back(heal);
    }

    /// What was acknowledged does not show: the kernel has to be read anew, unless what is amiss is what waits for its turn.
    fn look_again(&mut self, key: Key) {
        let waits = |matter: &Matter| self.retries.is_outdone(*matter);
        if !matters(key, &self.plan_one(key).puts).iter().all(waits) {
            self.dump_wanted = true;
        }
    }
}

/// What operations on a key are about.
fn matters(key: Key, ops: &[Op]) -> BTreeSet<Matter> {
    if ops.iter().any(|op| op.aspect() == Aspect::Whole) {
        return [Matter(key, Aspect::Whole)].into();
    }
    ops.iter().map(|op| Matter(key, op.aspect())).collect()
}

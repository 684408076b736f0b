//! A kernel in memory that keeps to the real one's rules, for property tests.
//!
//! The contract suite runs against both, so that what is found here holds there. A [`ModelKernel`] is a handle: clones share
//! one state, so that a test can do things behind the back of whoever owns the other handle.

mod state;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use tokio::sync::Notify;

use self::state::State;
use super::deed::Deed;
use super::{Event, Failure, Kernel, KernelError, Scope};
use crate::{IfIndex, Key, Observed, Op};

/// A kernel in memory.
#[derive(Clone)]
pub struct ModelKernel {
    shared: Arc<(Mutex<Shared>, Notify)>,
}

struct Shared {
    state: State,
    faults: BTreeMap<Key, VecDeque<i32>>,
    writes: u64,
    dumps: u64,
}

impl ModelKernel {
    /// An empty network, seen in this scope.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        let shared = Shared { state: State::new(scope), faults: BTreeMap::new(), writes: 0, dumps: 0 };
        Self { shared: Arc::new((Mutex::new(shared), Notify::new())) }
    }

    /// What the kernel holds in truth.
    #[must_use]
    pub fn truth(&self) -> Observed {
        self.lock().state.truth.clone()
    }

    /// Operations that were sent, whatever became of them.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Dumps that were made.
    #[must_use]
    pub fn dumps(&self) -> u64 {
        self.lock().dumps
    }

    /// Makes the next operation on this key fail. Called again, the one after that, too.
    pub fn fail_next(&self, key: Key, errno: i32) {
        self.lock().faults.entry(key).or_default().push_back(errno);
    }

    /// Loses the notifications that nobody has read yet, as an overrun does.
    pub fn lose_events(&self) {
        let mut shared = self.lock();
        shared.state.events.clear();
        shared.state.events.push(Event::Lost);
        self.shared.1.notify_one();
    }

    /// Says that the interface that carries the tunnel has changed.
    pub fn change_underlay(&self) {
        self.lock().state.events.push(Event::Underlay);
        self.shared.1.notify_one();
    }

    /// Does what somebody else does. What the kernel would refuse is not done.
    pub fn somebody(&self, deed: &Deed) {
        let _ = self.lock().state.deed(deed);
        self.shared.1.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kernel for ModelKernel {
    async fn dump(&mut self) -> Result<Observed, KernelError> {
        let mut shared = self.lock();
        shared.dumps += 1;
        shared.state.events.retain(|event| matches!(event, Event::Underlay));
        Ok(shared.state.dump())
    }

    async fn near(&mut self, addresses: &[IpAddr]) -> Result<Vec<Option<IfIndex>>, KernelError> {
        let shared = self.lock();
        Ok(addresses.iter().map(|address| shared.state.near.get(address).copied()).collect())
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, KernelError> {
        let mut shared = self.lock();
        let mut failures = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            shared.writes += 1;
            let fault = shared.faults.get_mut(&op.key()).and_then(VecDeque::pop_front);
            let refused = match fault {
                Some(errno) => Err(Errno::from_raw(errno)),
                None => shared.state.apply(op),
            };
            if let Err(errno) = refused {
                failures.push(Failure { index, errno: super::errno_number(errno), reason: errno.desc().to_lowercase() });
            }
        }
        Ok(failures)
    }

    async fn wait_events(&mut self, events: &mut Vec<Event>) -> Result<(), KernelError> {
        loop {
            self.take_events(events)?;
            if !events.is_empty() {
                return Ok(());
            }
            self.shared.1.notified().await;
        }
    }

    fn take_events(&mut self, events: &mut Vec<Event>) -> Result<(), KernelError> {
        events.append(&mut self.lock().state.events);
        Ok(())
    }
}

impl fmt::Debug for ModelKernel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ModelKernel").field("truth", &self.truth()).finish_non_exhaustive()
    }
}

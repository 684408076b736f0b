//! The kernel, as far as the overlay speaks to it.

#[cfg(feature = "contract")]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub mod contract;
#[cfg(feature = "contract")]
mod deed;
#[cfg(feature = "contract")]
mod model;
mod netlink;

use std::future::Future;
use std::net::IpAddr;

use lease::Subnet;

use crate::event::Event;
use crate::ground::{Direct, Ground};
use crate::observed::Observed;
use crate::op::Op;
use crate::{IfIndex, TABLE_MAIN};

#[cfg(feature = "contract")]
pub use self::deed::{Deed, ELSEWHERE, ELSEWHERE_INDEX};
#[cfg(feature = "contract")]
pub use self::model::ModelKernel;
pub(crate) use self::netlink::{Answer, Message, Messages, Question, Received, Refusal, Socket, ask, read_answer, read_interfaces};
pub use self::netlink::{Leftover, Netlink, allow_link_local, leftovers, vxlan_links};

/// What part of the kernel is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The VTEP's name, where there is one.
    pub device: Option<String>,
    /// The overlay network: its family is the one that neighbours and routes are read of, and others' routes for parts of it
    /// are seen as foreign.
    pub network: Subnet,
    /// The interface that carries the tunnel: its changes are told as [`Event::Underlay`].
    pub underlay: Option<IfIndex>,
    /// The table that the overlay's routes go to. The main table is looked at in any case.
    pub table: u32,
    /// Whether it is told as [`Event::Ways`] that other hosts may be reached otherwise than before.
    pub ways: bool,
}

impl Scope {
    /// What concerns a data plane on this ground.
    #[must_use]
    pub fn of(ground: &Ground, underlay: Option<IfIndex>) -> Self {
        let Ground { network, subnet: _, vtep, direct, blackhole: _, table: _ } = ground;
        let device = vtep.as_ref().map(|vtep| vtep.name.clone());
        Self { device, network: *network, underlay, table: ground.table_id(), ways: *direct != Direct::Never }
    }

    /// A device and what hangs on it.
    #[must_use]
    pub fn of_device(device: String, network: Subnet) -> Self {
        Self { device: Some(device), network, underlay: None, table: TABLE_MAIN, ways: false }
    }

    /// The device's name; empty where there is none.
    pub(crate) fn device_name(&self) -> &str {
        self.device.as_deref().unwrap_or_default()
    }
}

/// One operation did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its index in the batch.
    pub index: usize,
    /// The kernel's error number (positive).
    pub errno: i32,
    /// What the kernel says, with its extended text where there is one.
    pub reason: String,
}

/// The kernel could not be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// We lack a right.
    #[error("{call}: no permission: the capability {capability} is needed")]
    Permission {
        /// What was tried.
        call: &'static str,
        /// What is missing.
        capability: &'static str,
    },
    /// The socket failed.
    #[error("{call}: {source}")]
    Io {
        /// What was tried.
        call: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// No answer within the deadline.
    #[error("{call}: the kernel did not answer within {seconds} s")]
    Timeout {
        /// What was tried.
        call: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// Others change so much meanwhile that there is no whole answer.
    #[error("{call}: interrupted again and again by changes")]
    Interrupted {
        /// What was tried.
        call: &'static str,
    },
    /// An error to a request that should not fail.
    #[error("{call}: {reason}")]
    Refused {
        /// What was tried.
        call: &'static str,
        /// The error's number.
        errno: nix::errno::Errno,
        /// What the kernel said.
        reason: String,
    },
    /// An answer that cannot be read.
    #[error("{call}: {reason}")]
    Protocol {
        /// What was tried.
        call: &'static str,
        /// What came back.
        reason: String,
    },
}

/// The kernel, or a model of it. The contract suite says what both keep to.
///
/// One task owns it: dumps, writes and events are never interleaved, so that a dump followed by the events behind it
/// ends at the truth.
pub trait Kernel: Send {
    /// All that the kernel holds in the scope.
    ///
    /// # Errors
    /// [`KernelError`]: a dump that failed or was interrupted too often is an error, never a short answer.
    fn dump(&mut self) -> impl Future<Output = Result<Observed, KernelError>> + Send;

    /// By which interface each of these addresses is reached with no gateway between, as the kernel routes from this host now, its rules
    /// counted; none where it is not. They are of the scope's family.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel cannot be asked.
    fn near(&mut self, addresses: &[IpAddr]) -> impl Future<Output = Result<Vec<Option<IfIndex>>, KernelError>> + Send;

    /// Applies the operations in order. One that fails does not keep the others from being tried; what is not in the
    /// answer has succeeded. Deleting what is gone is success.
    ///
    /// # Errors
    /// [`KernelError`] when it is not known what became of them.
    fn apply(&mut self, ops: &[Op]) -> impl Future<Output = Result<Vec<Failure>, KernelError>> + Send;

    /// Waits for notifications and appends them. Cancel safe: none is lost when it is dropped.
    ///
    /// # Errors
    /// [`KernelError`] when the notifications cannot be read any more.
    fn wait_events(&mut self, events: &mut Vec<Event>) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// Appends the notifications that are there already, without waiting. After [`apply`](Self::apply) those that the
    /// operations caused are there.
    ///
    /// # Errors
    /// As [`wait_events`](Self::wait_events).
    fn take_events(&mut self, events: &mut Vec<Event>) -> Result<(), KernelError>;
}

/// What a datagram of notifications says, whatever its bytes; for the fuzzer.
#[doc(hidden)]
#[cfg(feature = "contract")]
pub fn fuzz_datagram(scope: Scope, device: Option<crate::Device>, datagram: &[u8]) -> Vec<Event> {
    let mut watch = netlink::Watch::new(scope);
    watch.set(device.as_ref());
    let mut events = Vec::new();
    watch.datagram(datagram, &mut events);
    events
}

/// The number that a [`Failure`] carries.
#[expect(clippy::as_conversions, reason = "the numbers of a C enum, all of them small and positive")]
fn errno_number(errno: nix::errno::Errno) -> i32 {
    errno as i32
}

//! The overlay on this host: what the kernel should hold for it, what it holds, and the plan between the two.
//!
//! ```text
//! leases ─▶ Peers ─▶ Desired ─┐
//!                             ├─▶ plan ─▶ Kernel::apply ─┐
//! kernel dump + events ─▶ Observed ─┘                    │
//!        ▲───────── every change, by whomever ◀──────────┘
//! ```
//!
//! One [`Reconciler`] owns the VTEP, routes and rules of one address family, as its [`Ground`] says. This crate promises that nothing
//! it does not own is ever touched, that nothing is deleted on partial knowledge, and that it acts on what the kernel
//! says rather than on what it remembers having written.
//!
//! It sees only the `lease` crate's vocabulary, never a store.

mod desired;
mod device;
mod entry;
mod event;
mod filter;
mod ground;
mod kernel;
mod observed;
mod op;
mod peers;
pub mod plan;
mod reconcile;
mod retry;
pub mod underlay;
mod vtep;

pub use desired::{Desired, Peer, ROUTE_PROTOCOL, route_metric};
pub use device::{Device, IfIndex, Kind, VtepSpec, Vxlan};
pub use entry::{Aspect, FdbTo, Key, Matter, RouteKey, RouteTo, RuleKey, TABLE_MAIN, Way};
pub use event::Event;
#[doc(hidden)]
#[cfg(feature = "contract")]
pub use filter::fuzz_filter_datagram;
pub use filter::{
    Changer, Filter, FilterSpec, Masquerade, NetSpec, OurTable, PacketFilter, Pass, flanneld_filters, is_relied_on, net_table_name,
    our_tables, remove_filter, remove_guests, remove_table, table_name,
};
pub use ground::{Direct, Ground, RouteTable};
#[doc(hidden)]
#[cfg(feature = "contract")]
pub use kernel::fuzz_datagram;
#[cfg(feature = "contract")]
pub use kernel::{Deed, ELSEWHERE, ELSEWHERE_INDEX, ModelKernel, contract};
pub use kernel::{Failure, Kernel, KernelError, Leftover, Netlink, Scope, allow_link_local, leftovers, vxlan_links};
pub use observed::Observed;
pub use op::Op;
pub use peers::{Guard, Local, MASS_FLOOR, Notice, Peers, Reject, STRAYS_KNOWN, Verdict, judge};
pub use reconcile::{BATCH, Counts, Heal, Reconciler, State, Step, Totals, kind_of};
pub use retry::{FIGHT_AFTER, FIRST_DELAY, LONGEST_DELAY, PEACE_AFTER, Retries, Trouble};
pub use vtep::{SpecError, device_name, overhead, vtep_spec};

//! Subnet leases: who holds which subnet, and the store that remembers it.
//!
//! This crate owns the vocabulary (addresses, MACs, subnets, records), the network configuration, the choice of a free
//! subnet, the claim and its renewal, and the [`LeaseStore`] with its implementations. It promises that every write is
//! a compare-and-swap and that a list or a watch that failed never looks like an empty cluster.
//!
//! It never names netlink, a device or a route: what the kernel should make of the leases is the `overlay` crate's.

pub mod alloc;
pub mod claim;
mod config;
mod denied;
mod excerpt;
mod family;
mod json;
pub mod keeper;
mod key;
mod mac;
mod owner;
mod record;
mod rng;
pub mod store;
mod subnet;
mod units;
mod wire;

pub use claim::{Claim, ClaimError, How, Outcome};
pub use config::{Backend, ConfigError, NetworkConfig, Pool, VxlanConfig};
pub use denied::Denied;
pub use excerpt::excerpt;
pub use family::Family;
pub use keeper::{Held, Keeper, LeaseState};
pub use key::{KeyError, LeaseKey};
pub use mac::{MacAddr, MacError};
pub use owner::{Boot, BootError, Owner, OwnerError};
pub use record::{BackendType, LeaseRecord, RecordError, VtepData};
pub use rng::Rng;
pub use store::{Assigned, Entry, Event, Expiry, LeaseStore};
pub use subnet::{Subnet, SubnetError};
pub use units::{Mtu, Revision, Vni, VniError};

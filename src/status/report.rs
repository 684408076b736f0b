//! The report, as JSON has it. Times are in seconds unless a name says otherwise; what has no value is null.
//!
//! Fields are added at need and never renamed: people's scripts read this.

use std::net::IpAddr;

use lease::{MacAddr, Owner, Subnet};
use serde::{Deserialize, Serialize};

use crate::fields::Change;

/// All that the agent knows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it has run.
    pub uptime: u64,
    /// When the report was made, in milliseconds of Unix time.
    pub now_unix_ms: u64,
    /// Whether the lease is held and the data plane verified.
    pub ready: bool,
    /// Why it is not ready.
    pub not_ready_because: Option<String>,
    /// This host's lease.
    pub lease: Lease,
    /// The VXLAN devices, one a family that is on.
    pub vteps: Vec<Vtep>,
    /// The interface between the hosts, once chosen.
    pub underlay: Option<Underlay>,
    /// The shared store.
    pub store: Store,
    /// The kernel against what it should hold.
    pub data_plane: DataPlane,
    /// The other hosts, one entry a family.
    pub peers: Vec<Peer>,
    /// Lease records that are not used.
    pub rejected: Vec<Rejected>,
    /// How many keys beside the leases name no subnet; in Kubernetes, how many Nodes have podCIDRs that make no lease.
    pub stray_keys: u64,
    /// The last repairs, newest first.
    pub heals: Vec<Heal>,
    /// What somebody keeps undoing.
    pub fights: Vec<Fight>,
    /// A removal of many peers at once that is held back.
    pub held_removals: Option<Held>,
    /// Whether it goes on from its last state on disk, because the store has not answered since the start.
    #[serde(default)]
    pub stale: bool,
    /// The peer filter, where it is asked for.
    #[serde(default)]
    pub filter: Option<Filter>,
    /// The packet filter: masquerade and forwarding, a family each.
    #[serde(default)]
    pub packet_filters: Vec<PacketFilter>,
    /// What has changed in the network configuration since the start.
    #[serde(default)]
    pub config_changes: ConfigChanges,
    /// What a person should know, and nothing above says.
    pub warnings: Vec<String>,
}

/// This host's lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lease {
    /// How it stands.
    pub state: LeaseState,
    /// The IPv4 subnet; while claiming, the one that is being claimed.
    #[serde(with = "text_option")]
    pub subnet: Option<Subnet>,
    /// The IPv6 subnet.
    #[serde(with = "text_option")]
    pub ipv6_subnet: Option<Subnet>,
    /// How it was come by, such as "own lease", "subnet file", "free subnet", "reservation", "the Node's podCIDR".
    pub how: Option<String>,
    /// Why it is not held.
    pub reason: Option<String>,
    /// When it ends if nobody renews it. Null for one that never ends, a reservation or a Node's, and while there is none.
    pub expires_in: Option<u64>,
    /// This host's identity, as it stands in the record.
    #[serde(with = "text_option")]
    pub owner: Option<Owner>,
}

/// How the lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// It is being acquired.
    #[default]
    Claiming,
    /// It is ours.
    Held,
    /// It was ours.
    Lost,
}

/// A VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vtep {
    /// Its name.
    pub name: String,
    /// Its index in the kernel; null while it is not there.
    pub ifindex: Option<u32>,
    /// Its link address.
    #[serde(with = "text")]
    pub mac: MacAddr,
    /// Its MTU.
    pub mtu: u32,
    /// Its VXLAN network identifier.
    pub vni: u32,
    /// The UDP port it is reached at.
    pub port: u16,
    /// The underlay address it sends from.
    pub local: IpAddr,
    /// Whether it is up.
    pub up: bool,
    /// In a word or two: "in step", "missing", "being recreated".
    pub state: String,
}

/// The interface between the hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// Its name.
    pub interface: String,
    /// Its address.
    pub address: IpAddr,
    /// What the other hosts are told, when it is another address.
    pub public_ip: Option<IpAddr>,
    /// Its IPv6 address, where IPv6 is on.
    #[serde(default)]
    pub ipv6_address: Option<IpAddr>,
    /// What the other hosts are told, when it is another IPv6 address.
    #[serde(default)]
    pub public_ipv6: Option<IpAddr>,
    /// Its MTU.
    pub mtu: u32,
}

/// The shared store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Store {
    /// Which it is.
    #[serde(default)]
    pub kind: StoreKind,
    /// In Kubernetes our Node.
    #[serde(default)]
    pub node: Option<String>,
    /// Whether it answers.
    pub state: StoreState,
    /// For how long that has been so.
    pub since: u64,
    /// Why it does not answer.
    pub error: Option<String>,
    /// Where it is, without credentials.
    pub endpoints: Vec<String>,
}

/// Which store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// etcd.
    #[default]
    Etcd,
    /// Kubernetes' Nodes.
    Kubernetes,
}

/// Whether the store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    /// It has not been asked yet.
    #[default]
    Unknown,
    /// It does.
    Up,
    /// It does not.
    Down,
}

/// The kernel against what it should hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataPlane {
    /// How they compare.
    pub state: DataPlaneState,
    /// Why nothing goes on.
    pub reason: Option<String>,
    /// Entries that should be there.
    pub desired: Count,
    /// Entries of ours that are there.
    pub observed: Count,
    /// Operations that are still to be done.
    pub pending: u64,
    /// Entries that failed and will be tried again.
    pub retrying: u64,
}

/// How the kernel compares with what it should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataPlaneState {
    /// It holds exactly that.
    InStep,
    /// It is being brought there.
    #[default]
    Converging,
    /// It cannot be brought there.
    Blocked,
}

/// Entries by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// Permanent neighbours.
    pub neighbours: u64,
    /// Forwarding database entries.
    pub fdb: u64,
    /// Routes.
    pub routes: u64,
}

/// Another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its subnet.
    #[serde(with = "text")]
    pub subnet: Subnet,
    /// Where it is reached.
    pub public_ip: IpAddr,
    /// Its VTEP's link address; null where it is reached by a plain route.
    #[serde(with = "text_option")]
    pub mac: Option<MacAddr>,
    /// How it stands.
    pub state: PeerState,
    /// Its neighbour entry; null where none is wanted.
    pub neighbour: Option<EntryState>,
    /// Its forwarding database entry; null where none is wanted.
    pub fdb: Option<EntryState>,
    /// Its route; null where none is wanted.
    pub route: Option<EntryState>,
}

/// How another host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// All its entries are there.
    InStep,
    /// They are being put there.
    Converging,
    /// Its newest record is rejected, and its last good one stays in force.
    KeptLast,
}

/// How an entry stands in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// As it should.
    Ok,
    /// It is not there.
    Missing,
    /// It is there, with another content.
    Differs,
    /// Putting it failed with this error, and will be tried again.
    Retrying(String),
}

/// A lease record that is not used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rejected {
    /// Its key in the store.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether that is that another host has the subnet, or a part of it.
    #[serde(default)]
    pub duplicate: bool,
}

/// A repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heal {
    /// When, in milliseconds of Unix time.
    pub at_unix_ms: u64,
    /// What was done, as the `ip` or `bridge` command that does the same.
    pub command: String,
    /// What had happened, such as "route deleted".
    pub why: String,
}

/// Something that somebody keeps undoing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fight {
    /// What: an entry as the command that puts it, or a file.
    pub what: String,
    /// How often it was undone.
    pub times: u64,
    /// Who does it, as far as can be told.
    pub who: Option<String>,
    /// When it will be put right again.
    pub next_in: u64,
}

/// A removal of many peers at once that is held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// How many peers it would remove.
    pub peers: u64,
    /// When it will be done all the same.
    pub passes_in: u64,
    /// Why it is not believed.
    pub reason: String,
}

/// The packet filter of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketFilter {
    /// Its nf_tables table, with its family.
    pub table: String,
    /// Whether the kernel holds it as it should be.
    pub in_step: bool,
    /// Why not.
    pub trouble: Option<String>,
    /// Others' forward chains that would drop, and so hold rules of ours.
    pub accepts_in: Vec<String>,
}

/// The peer filter; in a dual-stack network that of both families together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Its nf_tables table, with its family; both where there are two.
    pub table: String,
    /// Whether the kernel holds it as it should be.
    pub in_step: bool,
    /// Why not.
    pub trouble: Option<String>,
    /// Pairs of outer and inner source that may come in.
    pub elements: u64,
    /// How many there should be.
    pub wanted: u64,
    /// Packets dropped since the table was made; null when that cannot be read.
    pub dropped: Option<u64>,
}

/// What has changed in the network configuration while the agent ran.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfigChanges {
    /// What was taken over the last time.
    pub followed: Vec<Change>,
    /// When, in milliseconds of Unix time; null when nothing was.
    pub followed_at_unix_ms: Option<u64>,
    /// What takes effect when the agent is started again.
    pub waiting: Vec<Change>,
}

/// A value as its text.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A value as its text, or null.
mod text_option {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

//! What others do to the network: the language in which tests tell the model and the real kernel the same story.

use std::fmt;
use std::net::IpAddr;

use lease::Subnet;

use crate::{IfIndex, Op, RouteKey};

/// The interface that others route to, in stories. On a real kernel it has to be there, and up, with this index.
pub const ELSEWHERE: &str = "elsewhere0";
/// Its index.
pub const ELSEWHERE_INDEX: IfIndex = IfIndex(2);

/// The protocol number of their routes.
pub(super) const SOMEBODY: u8 = 99;

/// Something that somebody else does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// What we could have done ourselves.
    Op(Op),
    /// Sets the VTEP down.
    SetDown,
    /// Makes a device of another kind under the VTEP's name.
    CreateOther,
    /// Has the VTEP's packets handed on by kernel threads.
    SetThreaded,
    /// Makes a neighbour entry one that may age.
    AgeNeighbour(IpAddr),
    /// Puts a route for a part of the network out of [`ELSEWHERE`], over what has its key.
    PutForeign(RouteKey),
    /// Deletes that route.
    DelForeign(RouteKey),
    /// Has a host's address reached out of [`ELSEWHERE`] with no gateway between.
    Near(IpAddr),
    /// Has it no longer.
    Far(IpAddr),
    /// Puts the route that flanneld makes to a peer which is reached so.
    PutFlannelds {
        /// The peer's subnet.
        prefix: Subnet,
        /// Its address.
        via: IpAddr,
    },
    /// Flushes all routes out of the VTEP.
    FlushRoutes {
        /// Of IPv6 instead of IPv4.
        ipv6: bool,
    },
}

impl Deed {
    /// Prints as the command that does it to the device of this name.
    #[must_use]
    pub fn on<'a>(&'a self, device: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |out| match self {
            Self::Op(op) => write!(out, "{}", op.on(device)),
            Self::SetDown => write!(out, "ip link set {device} down"),
            Self::CreateOther => write!(out, "ip link add {device} type bridge"),
            Self::SetThreaded => write!(out, "echo 1 >/sys/class/net/{device}/threaded"),
            Self::AgeNeighbour(address) => write!(out, "ip neighbour change {address} dev {device} nud stale"),
            Self::PutForeign(RouteKey { prefix, metric, table }) => {
                write!(out, "ip route replace {prefix} dev {ELSEWHERE} proto {SOMEBODY} metric {metric} table {table}")
            }
            Self::DelForeign(RouteKey { prefix, metric, table }) => {
                write!(out, "ip route del {prefix} dev {ELSEWHERE} proto {SOMEBODY} metric {metric} table {table}")
            }
            Self::Near(address) => write!(out, "ip route replace {address} dev {ELSEWHERE}"),
            Self::Far(address) => write!(out, "ip route del {address} dev {ELSEWHERE}"),
            Self::PutFlannelds { prefix, via } => write!(out, "ip route add {prefix} via {via} dev {ELSEWHERE}"),
            Self::FlushRoutes { ipv6 } => write!(out, "ip {} route flush dev {device}", if *ipv6 { "-6" } else { "-4" }),
        })
    }
}

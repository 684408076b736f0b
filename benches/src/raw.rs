//! The limit: the same entries put by nothing but batched netlink, laid out beforehand, so that the kernel alone is timed.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::net::if_::if_nametoindex;
use testkit::Namespace;

use crate::fleet;
use crate::rtnl::{self, Rtnl};

/// Messages a system call.
const BATCH: usize = 128;

/// How the routes are told apart by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Routes {
    /// Each has a metric of its own: linear.
    DistinctMetrics,
    /// As flanneld puts them. The kernel needs O(n²) for n of them.
    Plain,
}

/// Puts the entries of so many hosts into a namespace of its own.
pub(crate) fn put(count: u32, routes: Routes) -> Result<Duration> {
    let namespace = Namespace::new("raw", "")?;
    namespace.ip_batch(
        "link add flannel.1 type vxlan id 1 local 127.0.0.1 dstport 8472 nolearning\n\
         link set flannel.1 up\n",
    )?;
    let device = namespace.within(|| Ok(if_nametoindex("flannel.1")?))?;
    let mut socket = Rtnl::open(&namespace)?;
    let peers: Vec<_> = fleet::peers(count).collect();
    let kinds: [&dyn Fn(&fleet::Peer) -> _; 3] = [&|peer| rtnl::fdb(peer, device), &|peer| rtnl::neighbour(peer, device), &|peer| {
        rtnl::route(peer, device, routes == Routes::DistinctMetrics)
    }];
    let mut batches = Vec::new();
    for kind in kinds {
        batches.extend(peers.chunks(BATCH).map(|some| socket.batch(some.iter().map(kind).collect())));
    }
    let start = Instant::now();
    batches.iter().try_for_each(|batch| socket.send(batch))?;
    Ok(start.elapsed())
}

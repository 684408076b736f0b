//! Takes away what no device takes along: our routes and rules of a network.

use lease::Subnet;
use nix::errno::Errno;

use crate::entry::TABLE_MAIN;
use crate::kernel::{Failure, Kernel, KernelError, Netlink, Scope};
use crate::op::Op;

/// Deletes the routes and rules for parts of this network that carry our protocol number, in the main table and in those that the
/// rules lead to. Returns the commands that this equals.
///
/// # Errors
/// [`KernelError`]; what was deleted until then is gone.
pub async fn remove_routes(network: Subnet) -> Result<Vec<String>, KernelError> {
    let mut kernel = Netlink::open(Scope { device: None, network, underlay: None, table: TABLE_MAIN, ways: false })?;
    let observed = kernel.dump().await?;
    let routes = observed.routes.iter().map(|(key, to)| Op::DelRoute { key: *key, to: *to });
    // A rule's table is known by it: the rule goes last.
    let ops: Vec<Op> = routes.chain(observed.rules.iter().map(|rule| Op::DelRule(*rule))).collect();
    match kernel.apply(&ops).await?.into_iter().next() {
        Some(Failure { index: _, errno, reason }) => {
            Err(KernelError::Refused { call: "delete routes and rules", errno: Errno::from_raw(errno), reason })
        }
        None => Ok(ops.iter().map(|op| op.on("").to_string()).collect()),
    }
}

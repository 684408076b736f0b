//! What the running agent says of itself: the [`Report`], the socket that hands it out, and its text for people.
//!
//! The socket is a Unix stream socket beside the subnet file. A request is one line, `status`; the answer is one JSON
//! document, and the connection is closed. Whoever asks cannot harm the agent: everything has a deadline and a limit, and
//! nothing but the report can be had.

mod client;
mod endpoint;
mod render;
mod report;
mod server;

use std::path::{Path, PathBuf};

pub use client::{AskError, ask, is_ready, show};
pub use endpoint::BindError;
pub use render::render;
pub use report::{
    ConfigChanges, Count, DataPlane, DataPlaneState, EntryState, Fight, Filter, Heal, Held, Lease, LeaseState, PacketFilter, Peer,
    PeerState, Rejected, Report, Store, StoreKind, StoreState, Underlay, Vtep,
};
pub use server::{Asked, Server};

/// The one request there is.
const REQUEST: &str = "status";

/// Where the agent that writes this subnet file answers: the same path with the extension `.sock`.
#[must_use]
pub fn socket_path(subnet_file: &Path) -> PathBuf {
    subnet_file.with_extension("sock")
}

/// What an asker that sends these bytes, and then no more, is told; none when it is given a report. For the fuzzer.
#[doc(hidden)]
pub async fn fuzz_request(mut bytes: &[u8]) -> Option<String> {
    server::request(&mut bytes).await.err()
}

#[cfg(test)]
mod tests;

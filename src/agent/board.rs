//! The notice board: what the session has come to, for those who report it. One writer, the session; others look.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::packet_filter::Standing;
use super::planes::Planes;
use crate::status::{ConfigChanges, Underlay};
use lease::keeper::LeaseState;
use lease::{Family, LeaseKey, Owner};

/// What is known of the running session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// What stands in the way before there is a lease to keep.
    pub(crate) blocked: Option<String>,
    pub(crate) underlay: Option<Underlay>,
    pub(crate) owner: Option<Owner>,
    pub(crate) lease: Option<watch::Receiver<LeaseState>>,
    /// The subnets, while the lease is being claimed again too.
    pub(crate) key: Option<LeaseKey>,
    pub(crate) planes: Option<Arc<Planes>>,
    /// Whether the store has named all peers before, in this process: what is known is then all there is to know for now.
    pub(crate) known: bool,
    /// Whether a data plane's thread does not answer.
    pub(crate) stuck: bool,
    /// What is the matter with the newest network configuration, while an older one is in force.
    pub(crate) config: Option<String>,
    /// What of the network configuration has changed since the start.
    pub(crate) config_changes: ConfigChanges,
    /// Why the subnet file does not say what it should.
    pub(crate) subnet_file: Option<String>,
    /// Why CNI's files are not installed as they should be.
    pub(crate) cni: Vec<String>,
    /// How the packet filter stands, a network's family each.
    pub(crate) packet_filters: BTreeMap<Family, Standing>,
    /// When the last state was written that we go on from, in seconds of Unix time, because the store has not answered.
    pub(crate) stale: Option<u64>,
    pub(crate) warnings: Vec<String>,
}

/// Where the facts are.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    facts: Arc<watch::Sender<Facts>>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { facts: Arc::new(watch::Sender::new(Facts { blocked: Some("starting".to_owned()), ..Facts::default() })) }
    }

    /// Whoever looks sees each change, the last of several that come together.
    pub(crate) fn look(&self) -> watch::Receiver<Facts> {
        self.facts.subscribe()
    }

    /// Something stands in the way.
    pub(crate) fn blocked(&self, reason: String) {
        self.change(|facts| facts.blocked = Some(reason));
    }

    /// A change that may be none; returns whether it is one.
    pub(crate) fn change_if(&self, change: impl FnOnce(&mut Facts) -> bool) {
        self.facts.send_if_modified(change);
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Facts)) {
        self.facts.send_modify(change);
    }
}

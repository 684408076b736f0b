//! What a claim says when it comes to nothing, and what it says all the same.

use super::ATTEMPTS;
use crate::alloc::AllocError;
use crate::store::StoreError;
use crate::{Entry, Family, LeaseKey, LeaseRecord, Owner, Subnet};

/// Something odd among the leases that concerns this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Another host's lease names our address.
    #[error("lease {key} of another host (owner {owner}) names our address: is one a clone of the other?")]
    SameAddress {
        /// The other's lease.
        key: LeaseKey,
        /// Who the other is.
        owner: Owner,
    },
    /// A reservation for our address that cannot be used with this configuration.
    #[error("reservation {key} names our address but does not fit the network configuration: it is left alone")]
    ReservationDoesNotFit {
        /// The reserved subnets.
        key: LeaseKey,
    },
    /// A reservation for our address that is not used because we hold another lease.
    #[error("reservation {key} names our address but this host holds another lease: release that one to move")]
    ReservationUnused {
        /// The reserved subnets.
        key: LeaseKey,
    },
}

/// No lease was come by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No subnet is free.
    #[error(transparent)]
    NoSubnet(#[from] AllocError),
    /// Another host holds the subnet that was ours.
    #[error("subnet {} is held by another host{}", .0.key, holder(.0))]
    HeldByOther(Box<Entry>),
    /// A live host with our identity has written our lease.
    #[error(
        "subnet {} is used by another host{} with the machine id and the network card's address of this one: one is a clone of the other; \
         give one of them a machine id of its own (machine-id(5)) and start it again",
        .0.key, holder(.0)
    )]
    HeldByClone(Box<Entry>),
    /// Somebody else chooses this host's subnets, and has not yet.
    #[error("{0}")]
    NotAssigned(String),
    /// The subnet that was chosen for this host is not of this network.
    #[error(
        "subnet {subnet}, which this host was given, does not lie in the Network {network}: give the network configuration the one that all \
         hosts' subnets are taken from (in Kubernetes kube-controller-manager's --cluster-cidr)"
    )]
    Outside {
        /// What was chosen.
        subnet: Subnet,
        /// The configured network.
        network: Subnet,
    },
    /// No subnet was chosen for a family that is on.
    #[error(
        "this host was given no {family} subnet, and the network configuration has {network}: switch {family} off there, or give the host one \
         (in Kubernetes kube-controller-manager's --cluster-cidr needs a network of each family)"
    )]
    NoneOf {
        /// The family.
        family: Family,
        /// Its configured network.
        network: Subnet,
    },
    /// Others were faster too many times in a row.
    #[error("other hosts were faster {ATTEMPTS} times in a row")]
    Contended,
    /// The store failed. It is not known whether a write happened; the next claim finds out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn holder(entry: &Entry) -> String {
    match &entry.record {
        Ok(LeaseRecord { public_ip: Some(address), .. }) => format!(" ({address})"),
        Ok(LeaseRecord { public_ipv6: Some(address), .. }) => format!(" ({address})"),
        Ok(_) => String::new(),
        Err(error) => format!(", or its record was damaged ({error}): correct it, or delete the key"),
    }
}

//! `make kube-test`: loden in a real Kubernetes cluster, beside flannel.
//!
//! A [`cluster::Cluster`] is a real control plane on the switch of a [`testkit::Lab`] and nodes as hosts on it: each has kubelet,
//! containerd and kube-proxy in namespaces of its own. Images are made of what is on the machine; no registry is asked.
//! The cases ([`testkit::trial`]) of a family share a cluster. They look at it with kubectl, and from the inside of pods' networks with
//! ping, HTTP and streams of packets.

mod access;
mod agent;
mod cluster;
mod control;
mod families;
mod node;
mod parts;
mod pod;
mod traffic;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> Result<ExitCode> {
    testkit::quiet();
    testkit::trial::run(families::FAMILIES, &std::env::args().nth(1).unwrap_or_default())
}

//! Hosts as network namespaces, a real etcd, containers: what tests, demo and benchmarks stand on.
//!
//! A [`Lab`] is a switch with an underlay network. On it stand [`Host`]s, an [`Etcd`], and on the hosts [`Agent`]s and
//! [`Container`]s. Everything is a real thing of the kernel: links, routes, processes, UDP packets. Labs share nothing,
//! so tests run side by side, all with the same addresses.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use std::time::Duration;
//! use testkit::{AgentOptions, Lab};
//!
//! let lab = Lab::new()?;
//! let etcd = lab.etcd()?;
//! etcd.put("/coreos.com/network/config", r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#)?;
//! let (h1, h2) = (lab.host("h1")?, lab.host("h2")?);
//! let mut a1 = h1.agent(AgentOptions::loden(&etcd)?)?;
//! let mut a2 = h2.agent(AgentOptions::loden(&etcd)?)?;
//! a1.wait_ready(Duration::from_secs(5))?;
//! a2.wait_ready(Duration::from_secs(5))?;
//! let (c1, c2) = (h1.container("c1")?, h2.container("c2")?);
//! c1.ping(c2.address(), 56, false)?;
//! # Ok(())
//! # }
//! ```
//!
//! A lab can only be made within `tests/support/sandbox`, which `make test` sets as cargo's runner: there, nothing of
//! the machine's own can be touched, and nothing outlives the process. Every handle takes its part down when it is
//! dropped; whatever is left goes with the sandbox.

mod agent;
mod agent_options;
mod apiserver;
mod cni;
mod container;
mod etcd;
mod etcd_cluster;
mod etcd_data;
mod etcd_write;
mod eye;
mod hands;
mod host;
mod http;
mod lab;
pub mod matrix;
mod mesh;
mod monitor;
mod namespace;
mod netlink;
mod process;
mod proxy;
mod rogue;
mod stream;
mod subnet_env;
mod table;
pub mod trial;
mod usage;
mod wait;
mod watch;
pub mod world;

pub use agent::Agent;
pub use agent_options::AgentOptions;
pub use apiserver::ApiServer;
pub use cni::{CniBin, CniCall, CniCase, Rendered};
pub use container::Container;
pub use etcd::{Etcd, EtcdOptions, TlsFiles};
pub use etcd_cluster::EtcdCluster;
pub use etcd_data::Entry;
pub use eye::{Eye, Image, Link};
pub use hands::Hands;
pub use host::Host;
pub use lab::{Lab, LabOptions, quiet};
pub use mesh::Mesh;
pub use monitor::Monitor;
pub use namespace::{Entered, Namespace, Network};
pub use process::{Process, output};
pub use proxy::{Fault, Proxy};
pub use rogue::{Reached, Rogue, forge};
pub use stream::{Stream, StreamReport};
pub use subnet_env::SubnetEnv;
pub use table::{FILTER_TABLE, filter_drops, filter_table};
pub use usage::cpu_time;
pub use wait::wait_for;
pub use watch::{Change, KernelEntry, Table, Watch};

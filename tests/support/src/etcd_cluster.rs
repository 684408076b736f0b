//! Three etcds that are one store.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::{Etcd, EtcdOptions, Lab};

/// A cluster of three members on the switch.
#[derive(Debug)]
pub struct EtcdCluster {
    /// The members.
    pub members: Vec<Etcd>,
}

impl EtcdCluster {
    /// The ports for clients and members, one pair for each.
    const PORTS: [(u16, u16); 3] = [(2379, 2380), (2479, 2480), (2579, 2580)];

    /// Starts three on the switch, and waits until they serve.
    ///
    /// # Errors
    /// When etcd is missing or does not start.
    pub fn on(lab: &Lab) -> Result<Self> {
        let names = ["lab1", "lab2", "lab3"];
        let all: Vec<String> = names.iter().zip(Self::PORTS).map(|(name, (_, peers))| format!("{name}=http://127.0.0.1:{peers}")).collect();
        let start = |(name, ports): (&&str, _)| {
            Etcd::member(name, Some(Arc::clone(lab.switch())), Lab::GATEWAY, ports, all.join(","), EtcdOptions::default())
        };
        let mut members = names.iter().zip(Self::PORTS).map(start).collect::<Result<Vec<_>>>()?;
        members.iter_mut().try_for_each(Etcd::wait_up)?;
        Ok(Self { members })
    }

    /// The URLs for clients, with commas between them.
    #[must_use]
    pub fn endpoints(&self) -> String {
        self.members.iter().map(Etcd::endpoint).collect::<Vec<_>>().join(",")
    }

    /// One member.
    ///
    /// # Errors
    /// When there is none of that number.
    pub fn member(&mut self, number: usize) -> Result<&mut Etcd> {
        self.members.get_mut(number).with_context(|| format!("no member {number}"))
    }
}

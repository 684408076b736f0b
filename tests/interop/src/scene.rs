//! Hosts with either agent and a container each, on one store.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::world::{CONFIG, Member, PATIENCE, SUBNET_FILE, SUBNETS, VTEP, World};
use testkit::{AgentOptions, Container, Entry, Host, Mesh, wait_for};

use crate::Agents;
use crate::outside::Knocks;
use crate::peer::Which;

/// A host, the agent that runs on it, and a container.
pub(crate) struct Party {
    pub(crate) which: Which,
    pub(crate) container: Container,
    pub(crate) member: Member,
}

impl Party {
    pub(crate) fn name(&self) -> &str {
        self.member.host.name()
    }

    /// Ends the agent as init systems do, and starts another in its place.
    pub(crate) fn replace(&mut self, which: Which, options: AgentOptions) -> Result<()> {
        self.member.agent.terminate()?;
        self.which = which;
        *self.member.agent.options_mut() = options;
        self.member.agent.restart()?;
        self.member.agent.wait_ready(PATIENCE)
    }

    /// What the host is to the others and to its containers.
    pub(crate) fn identity(&self) -> Result<Identity> {
        let host = &self.member.host;
        let devices = host.run(&["sh", "-c", "ip -o link show type vxlan | sed 's/: <.*ether/ with/; s/ brd.*//'"])?;
        Ok(Identity { subnet_file: host.read(SUBNET_FILE)?, devices })
    }

    /// Its subnet, less the last byte: `10.5.17`.
    pub(crate) fn prefix(&self) -> Result<String> {
        let network = self.member.host.subnet_env()?.subnet()?.network().to_string();
        Ok(network.rsplit_once('.').context("the subnet is not IPv4")?.0.to_owned())
    }
}

/// What a host is to the others and to its containers: what an operator compares before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The subnet file's bytes.
    pub(crate) subnet_file: String,
    /// Index, name and MAC of each VXLAN device.
    pub(crate) devices: String,
}

/// All of it.
pub(crate) struct Scene {
    pub(crate) parties: Vec<Party>,
    pub(crate) world: World,
    agents: Agents,
    flags: Vec<&'static str>,
}

impl Scene {
    /// A store with this configuration, and nobody yet. All agents will be given the flags.
    pub(crate) fn new(agents: &Agents, config: &str, flags: &[&'static str]) -> Result<Self> {
        Ok(Self { parties: Vec::new(), world: World::with_config(config)?, agents: agents.clone(), flags: flags.to_vec() })
    }

    /// With the usual configuration, and these hosts.
    pub(crate) fn with(agents: &Agents, parties: &[Which]) -> Result<Self> {
        let mut scene = Self::new(agents, CONFIG, &[])?;
        scene.join_all(parties)?;
        Ok(scene)
    }

    /// How an agent is started here.
    pub(crate) fn options(&self, which: Which) -> Result<AgentOptions> {
        self.agents.options(which, &self.world, &self.flags)
    }

    /// loden under flanneld's name, on the first host.
    pub(crate) fn options_as_flanneld(&self) -> Result<AgentOptions> {
        let host = &self.parties.first().context("there is no host")?.member.host;
        self.agents.loden_as_flanneld(&self.world, host, &self.flags)
    }

    /// A further host, whose agent is ready, with a container.
    pub(crate) fn join(&mut self, which: Which) -> Result<&mut Party> {
        let name = format!("{}{}", if which == Which::Flanneld { 'f' } else { 'l' }, self.parties.len() + 1);
        let host = self.world.lab.host(&name)?;
        if which == Which::Flanneld {
            forward(&host)?;
        }
        let mut member = Member::on(host, self.options(which)?)?;
        member.agent.wait_ready(PATIENCE)?;
        wait_for("the subnet file", PATIENCE, || member.host.subnet_env())?;
        let container = member.host.container(&format!("c-{name}"))?;
        self.parties.push(Party { which, container, member });
        self.parties.last_mut().context("just pushed")
    }

    /// Several, one after the other.
    pub(crate) fn join_all(&mut self, parties: &[Which]) -> Result<()> {
        parties.iter().try_for_each(|which| self.join(*which).map(drop))
    }

    /// The first host: the one that things are done to.
    pub(crate) fn first(&mut self) -> Result<&mut Party> {
        self.parties.first_mut().context("there is no host")
    }

    /// The first host's container knocks outside.
    pub(crate) fn knock(&self) -> Result<Knocks> {
        Knocks::start(self.world.lab.switch(), &self.parties.first().context("there is no host")?.container)
    }

    /// The hosts, of which there have to be so many.
    pub(crate) fn parties<const N: usize>(&mut self) -> Result<&mut [Party; N]> {
        let have = self.parties.len();
        self.parties.as_mut_slice().try_into().ok().with_context(|| format!("there are {have} hosts"))
    }

    /// Waits until every container reaches every other; how long that took.
    pub(crate) fn whole(&self, deadline: Duration) -> Result<Duration> {
        Mesh::new(self.parties.iter().map(|party| &party.container))?.wait_whole(deadline)
    }

    /// Pings from every container to every other, as large as its MTU allows, with "don't fragment"; how many.
    pub(crate) fn full_size(&self) -> Result<usize> {
        let mut pings = 0;
        for from in &self.parties {
            for to in self.parties.iter().filter(|to| to.name() != from.name()) {
                from.container.ping(to.container.address(), from.container.full_payload(), true)?;
                pings += 1;
            }
        }
        Ok(pings)
    }

    /// The leases as they stand in the store.
    pub(crate) fn leases(&self) -> Result<Vec<Entry>> {
        self.world.etcd.get_prefix(SUBNETS)
    }

    /// Waits until nothing with this text is left on anybody's VTEP; how long that took.
    pub(crate) fn forgotten(&self, text: &str) -> Result<Duration> {
        let start = Instant::now();
        for party in &self.parties {
            wait_for(&format!("{text} to be forgotten on {}", party.name()), PATIENCE, || {
                let left: Vec<_> = party.member.entries()?.into_iter().filter(|entry| entry.contains(text)).collect();
                ensure!(left.is_empty(), "there is {left:?} on {VTEP}");
                Ok(())
            })?;
        }
        Ok(start.elapsed())
    }
}

/// Switches forwarding on. flanneld leaves that to whoever sets the host up; loden does it itself.
pub(crate) fn forward(host: &Host) -> Result<()> {
    host.run(&["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"]).map(drop)
}

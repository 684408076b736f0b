//! A container: a network on a host's bridge, as a container runtime makes one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;

use crate::{Host, Namespace, Stream};

/// A container. It is a [`Namespace`] whose `eth0` is on its host's bridge `cni0`.
#[derive(Debug)]
pub struct Container {
    namespace: Namespace,
    host: Host,
    address: Ipv4Addr,
    mtu: u16,
}

impl Container {
    pub(crate) fn new(host: Host, name: &str) -> Result<Self> {
        let env = host.subnet_env()?;
        let (IpNetwork::V4(subnet), mtu) = (env.subnet()?, env.mtu()?) else { bail!("FLANNEL_SUBNET is not IPv4") };
        let number = host.next_container();
        let bridge = subnet.ip();
        // The bridge has the subnet's first usable address, containers have those after it.
        let address = Ipv4Addr::from_bits(bridge.to_bits() + 1 + u32::from(number));
        let len = subnet.prefix();
        let namespace = Namespace::new(name, "")?;
        if number == 0 {
            host.ip_batch(&format!("link add cni0 mtu {mtu} type bridge\naddr add {bridge}/{len} dev cni0\nlink set cni0 up\n"))?;
        }
        host.ip_batch(&format!(
            "link add veth{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}\nlink set veth{number} master cni0 up\n",
            namespace.pid()
        ))?;
        namespace.ip_batch(&format!("addr add {address}/{len} dev eth0\nlink set eth0 up\nroute add default via {bridge}\n"))?;
        Ok(Self { namespace, host, address, mtu })
    }

    /// The host that it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its address on the overlay.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its MTU: `FLANNEL_MTU` when it was made.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// How many bytes a ping can carry without being fragmented: the MTU less 20 of IPv4 (RFC 791) and 8 of ICMP (RFC 792).
    #[must_use]
    pub fn full_payload(&self) -> u16 {
        self.mtu - 20 - 8
    }

    /// One ping carrying `payload` bytes, with "don't fragment" or without.
    ///
    /// # Errors
    /// When no answer comes within a second: with what ping said.
    pub fn ping(&self, to: impl Into<IpAddr>, payload: u16, dont_fragment: bool) -> Result<()> {
        let (to, payload) = (to.into().to_string(), payload.to_string());
        let discovery = if dont_fragment { "do" } else { "dont" };
        self.run(&["ping", "-c1", "-W1", "-n", "-s", &payload, "-M", discovery, &to])
            .with_context(|| format!("{} does not reach {to} with {payload} bytes", self.name()))?;
        Ok(())
    }

    /// Sends UDP packets with running numbers to another container, one each `interval`, until [`Stream::finish`].
    ///
    /// # Errors
    /// When the sockets cannot be made.
    pub fn udp_stream(&self, to: &Self, interval: Duration) -> Result<Stream> {
        let (from, to) = (self.udp_socket()?, to.udp_socket()?);
        Stream::start(from, to, interval)
    }

    /// A UDP socket bound to the container's address.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn udp_socket(&self) -> Result<UdpSocket> {
        self.within(|| Ok(UdpSocket::bind(SocketAddr::from((self.address, 0)))?))
    }
}

impl Deref for Container {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

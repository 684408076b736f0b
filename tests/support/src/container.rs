//! A container: a network on a host's bridge, as a container runtime makes one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{Host, Namespace, Stream};

/// A container. It is a [`Namespace`] whose `eth0` is on its host's bridge `cni0`, with an address of each family that the subnet file names.
#[derive(Debug)]
pub struct Container {
    namespace: Namespace,
    host: Host,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    mtu: u16,
}

impl Container {
    pub(crate) fn new(host: Host, name: &str) -> Result<Self> {
        let env = host.subnet_env()?;
        let mtu = env.mtu()?;
        let number = host.next_container();
        let namespace = Namespace::new(name, "")?;
        if number == 0 {
            host.ip_batch(&format!("link add cni0 mtu {mtu} type bridge\nlink set cni0 up\n"))?;
        }
        host.ip_batch(&format!(
            "link add veth{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}\nlink set veth{number} master cni0 up\n",
            namespace.pid()
        ))?;
        namespace.ip_batch("link set eth0 up\n")?;
        let (mut v4, mut v6) = (None, None);
        for network in ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"] {
            let Some(subnet) = env.network(network)? else { continue };
            // The bridge has the subnet's first usable address, containers have those after it.
            let (bridge, len, nodad) = (subnet.ip(), subnet.prefix(), if subnet.is_ipv6() { " nodad" } else { "" });
            if number == 0 {
                host.ip_batch(&format!("addr add {bridge}/{len} dev cni0{nodad}\n"))?;
            }
            let address = match bridge {
                IpAddr::V4(bridge) => IpAddr::V4(*v4.insert(Ipv4Addr::from_bits(bridge.to_bits() + 1 + u32::from(number)))),
                IpAddr::V6(bridge) => IpAddr::V6(*v6.insert(Ipv6Addr::from_bits(bridge.to_bits() + 1 + u128::from(number)))),
            };
            namespace.ip_batch(&format!("addr add {address}/{len} dev eth0{nodad}\nroute add default via {bridge}\n"))?;
        }
        Ok(Self { namespace, host, v4, v6, mtu })
    }

    /// The host that it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its IPv4 address on the overlay; 0.0.0.0 where IPv4 is off.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.v4.unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// Its IPv6 address on the overlay; `::` where IPv6 is off.
    #[must_use]
    pub fn address_v6(&self) -> Ipv6Addr {
        self.v6.unwrap_or(Ipv6Addr::UNSPECIFIED)
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

    /// The same over IPv6: less 40 of IPv6 (RFC 8200) and 8 of ICMPv6 (RFC 4443).
    #[must_use]
    pub fn full_payload_v6(&self) -> u16 {
        self.mtu - 40 - 8
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
        Stream::start(self.udp_socket()?, to.udp_socket()?, interval)
    }

    /// The same over IPv6.
    ///
    /// # Errors
    /// When the sockets cannot be made.
    pub fn udp_stream_v6(&self, to: &Self, interval: Duration) -> Result<Stream> {
        Stream::start(self.udp_socket_at(self.address_v6())?, to.udp_socket_at(to.address_v6())?, interval)
    }

    /// A UDP socket bound to the container's IPv4 address.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn udp_socket(&self) -> Result<UdpSocket> {
        self.udp_socket_at(self.address())
    }

    /// A UDP socket bound to this address of the container's.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn udp_socket_at(&self, address: impl Into<IpAddr>) -> Result<UdpSocket> {
        let address = address.into();
        self.within(|| Ok(UdpSocket::bind(SocketAddr::from((address, 0)))?))
    }
}

impl Deref for Container {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

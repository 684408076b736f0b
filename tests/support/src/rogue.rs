//! Crafted packets: what a host puts into a tunnel that it should not, and whether a container gets it.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{Container, Host, Lab, Namespace};

/// A packet that has not come by then does not come.
const FLIGHT: Duration = Duration::from_millis(250);
/// So many are sent: one that is lost by chance is not taken for one that was dropped.
const PACKETS: u8 = 3;

/// What got through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// A UDP packet.
    pub udp: bool,
    /// An ICMP echo request.
    pub icmp: bool,
}

impl Reached {
    /// Nothing did.
    pub const NOTHING: Self = Self { udp: false, icmp: false };
    /// Both did.
    pub const BOTH: Self = Self { udp: true, icmp: true };
}

/// A host on the underlay that is no peer, and has a VXLAN device all the same.
#[derive(Debug)]
pub struct Rogue(Host);

impl Rogue {
    /// Plugs it in. Its device `vx` sends all frames for the network to `target`, whose VTEP has this MAC.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new(lab: &Lab, vni: u32, target: Ipv4Addr, mac: &str) -> Result<Self> {
        let host = lab.host("rogue")?;
        host.ip_batch(&format!(
            "link add vx type vxlan id {vni} local {} dstport 8472 remote {target}\n\
             link set vx up\n\
             neigh add 10.5.255.254 lladdr {mac} dev vx nud permanent\n\
             route add 10.5.0.0/16 via 10.5.255.254 dev vx onlink\n",
            host.address()
        ))?;
        Ok(Self(host))
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.0
    }
}

/// Sends UDP and an ICMP echo request from this source, whosever it is, to a container, and says what of it arrived there.
///
/// # Errors
/// Where the kernel refuses.
pub fn forge(from: &Namespace, source: Ipv4Addr, to: &Container) -> Result<Reached> {
    from.run(&["ip", "address", "replace", &format!("{source}/32"), "dev", "lo"])?;
    let sent = send(from, source, to);
    from.run(&["ip", "address", "del", &format!("{source}/32"), "dev", "lo"])?;
    sent
}

fn send(from: &Namespace, source: Ipv4Addr, to: &Container) -> Result<Reached> {
    let echoes = echo_requests(to)?;
    let receiver = to.udp_socket()?;
    receiver.set_read_timeout(Some(FLIGHT))?;
    let target = receiver.local_addr()?;
    let sender = from.within(|| Ok(UdpSocket::bind(SocketAddr::from((source, 0)))?))?;
    for number in 0..PACKETS {
        sender.send_to(&[number], target)?;
    }
    let udp = match receiver.recv(&mut [0; 8]) {
        Ok(_) => true,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) => return Err(error.into()),
    };
    // The answer goes to where the source really is: of interest is what arrives there.
    let _ = from.run(&["ping", "-c1", "-W0.25", "-n", "-I", &source.to_string(), &to.address().to_string()]);
    Ok(Reached { udp, icmp: echo_requests(to)? > echoes })
}

/// How many ICMP echo requests a container has received (`InEchos` of /proc/net/snmp).
fn echo_requests(of: &Container) -> Result<u64> {
    let text = of.run(&["cat", "/proc/net/snmp"])?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let (names, values) = lines.next().zip(lines.next()).context("/proc/net/snmp has no Icmp")?;
    let value = names.split(' ').zip(values.split(' ')).find_map(|(name, value)| (name == "InEchos").then_some(value));
    Ok(value.context("/proc/net/snmp has no InEchos")?.parse()?)
}

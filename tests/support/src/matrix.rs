//! Who is let through to whom, and whose address arrives: measured between two hosts with an agent, whichever it is, and one without.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # let lab = testkit::Lab::new()?;
//! # let (h1, h2) = (lab.host("h1")?, lab.host("h2")?);
//! use testkit::matrix::{Scene, expected};
//! let scene = Scene::new(&lab, &h1, &h2)?;
//! assert_eq!(scene.measure(false)?, expected(true));
//! # Ok(())
//! # }
//! ```

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

use crate::{Container, Host, Lab, Namespace};

/// A packet that has not come by then does not come.
const FLIGHT: Duration = Duration::from_millis(400);
/// So many are sent: the first may wait for a neighbour's answer for longer than it is waited for here.
const PACKETS: u8 = 4;

/// Where packets that nothing marks go.
const PORT: u16 = 4000;
/// Ports whose packets the first host marks on their way: as kube-proxy does, and with another program's bit besides.
const MARKED: (u16, &str) = (4001, "0x4000");
const MARKED_TWICE: (u16, &str) = (4002, "0x4001");

/// A group that a packet reaches on its own link (RFC 5771 §4, RFC 4727 §6).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 254);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x114);

/// An address in the scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A container on the first host.
    Pod,
    /// Another one beside it.
    PodBeside,
    /// A container on the second host.
    PodThere,
    /// The first host, by its underlay address.
    Host,
    /// The first host, by the address that its containers know it by.
    Bridge,
    /// The first host, by its VTEP's address.
    Vtep,
    /// The second host, by its underlay address.
    HostThere,
    /// A machine that knows nothing of the overlay but a route by way of the first host.
    Outside,
    /// A group of hosts, heard outside.
    Group,
}

/// A packet's way, and the address that it arrives from: none where it does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Who sends, by which address.
    pub from: End,
    /// Who is sent to.
    pub to: End,
    /// How the first host marks it.
    pub mark: Option<&'static str>,
    /// Whose address it arrives from.
    pub arrives_as: Option<End>,
}

/// From, to, port, whose address arrives with masquerade, and without.
type Row = (End, End, u16, End, End);

const ROWS: [Row; 15] = {
    use End::{Bridge, Group, Host, HostThere, Outside, Pod, PodBeside, PodThere, Vtep};
    [
        (Pod, PodThere, PORT, Pod, Pod),
        (Pod, PodBeside, PORT, Pod, Pod),
        (Pod, Host, PORT, Pod, Pod),
        (Pod, HostThere, PORT, Host, Pod),
        (Pod, Outside, PORT, Host, Pod),
        (Pod, Outside, MARKED.0, Pod, Pod),
        (Pod, Outside, MARKED_TWICE.0, Pod, Pod),
        (Bridge, Pod, PORT, Bridge, Bridge),
        (Host, Pod, PORT, Host, Host),
        (Vtep, PodThere, PORT, Vtep, Vtep),
        (Host, PodThere, PORT, Vtep, Host),
        (Outside, Pod, PORT, Outside, Outside),
        (Outside, PodThere, PORT, Vtep, Outside),
        (Outside, PodThere, MARKED.0, Outside, Outside),
        (Bridge, Group, PORT, Bridge, Bridge),
    ]
};

/// What flannel's rules come to (its iptables form), with `--ip-masq` or without.
#[must_use]
pub fn expected(masquerade: bool) -> Vec<Cell> {
    let cell = |(from, to, port, masqueraded, plain): Row| {
        let mark = [MARKED, MARKED_TWICE].into_iter().find(|(marked, _)| *marked == port).map(|(_, mark)| mark);
        Cell { from, to, mark, arrives_as: Some(if masquerade { masqueraded } else { plain }) }
    };
    ROWS.into_iter().map(cell).collect()
}

/// Two hosts, three containers, and a machine outside.
#[derive(Debug)]
pub struct Scene {
    first: Host,
    second: Host,
    outside: Host,
    pod: Container,
    beside: Container,
    there: Container,
    ends: Vec<(End, IpAddr)>,
}

impl Scene {
    /// On two hosts whose agents are ready: makes the containers, and the machine outside.
    ///
    /// # Errors
    /// When something of it cannot be made.
    pub fn new(lab: &Lab, first: &Host, second: &Host) -> Result<Self> {
        let outside = lab.host("outside")?;
        let (pod, beside, there) = (first.container("pod")?, first.container("beside")?, second.container("there")?);
        let marks = [MARKED, MARKED_TWICE].map(|(port, mark)| format!("add rule inet marks in udp dport {port} meta mark set {mark}"));
        let chain = "add table inet marks; add chain inet marks in { type filter hook prerouting priority mangle; }";
        first.run(&["nft", &format!("{chain}; {}", marks.join("; "))])?;
        let env = first.subnet_env()?;
        let mut ends = vec![(End::Group, IpAddr::V4(GROUP_V4)), (End::Group, IpAddr::V6(GROUP_V6))];
        for (network, subnet) in [("FLANNEL_NETWORK", "FLANNEL_SUBNET"), ("FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET")] {
            let Some((network, subnet)) = env.network(network)?.zip(env.network(subnet)?) else { continue };
            let v6 = subnet.is_ipv6();
            let host = |host: &Host| if v6 { underlay_v6(host) } else { Ok(host.address().into()) };
            let own = |pod: &Container| if v6 { IpAddr::V6(pod.address_v6()) } else { IpAddr::V4(pod.address()) };
            outside.ip_batch(&format!("route add {} via {}\n", IpNetwork::new(network.network(), network.prefix())?, host(first)?))?;
            ends.extend([(End::Pod, own(&pod)), (End::PodBeside, own(&beside)), (End::PodThere, own(&there))]);
            ends.extend([(End::Host, host(first)?), (End::HostThere, host(second)?), (End::Outside, host(&outside)?)]);
            ends.extend([(End::Bridge, subnet.ip()), (End::Vtep, subnet.network())]);
        }
        Ok(Self { first: first.clone(), second: second.clone(), outside, pod, beside, there, ends })
    }

    /// Whether a container reaches the one on the second host.
    ///
    /// # Errors
    /// When it does not.
    pub fn meet(&self, v6: bool) -> Result<()> {
        self.pod.ping(self.address(End::PodThere, v6)?, 56, false)
    }

    /// Sends over all ways, and says what arrived.
    ///
    /// # Errors
    /// When a packet arrives from an address that is nobody's, or a socket fails.
    pub fn measure(&self, v6: bool) -> Result<Vec<Cell>> {
        let cell = |(tag, (cell, (from, to, port, ..))): (u8, (Cell, Row))| {
            let arrives_as = self.send(tag, from, to, port, v6).with_context(|| format!("{from:?} to {to:?}"))?;
            Ok(Cell { arrives_as, ..cell })
        };
        (0..).zip(expected(true).into_iter().zip(ROWS)).map(cell).collect()
    }

    /// Sends packets that bear a tag, until one arrives; late ones of others are passed over.
    fn send(&self, tag: u8, from: End, to: End, port: u16, v6: bool) -> Result<Option<End>> {
        let (source, target) = (self.address(from, v6)?, self.address(to, v6)?);
        let receiver = match (to, target) {
            (End::Group, IpAddr::V4(group)) => {
                let receiver = self.socket(to, (Ipv4Addr::UNSPECIFIED, port).into())?;
                receiver.join_multicast_v4(&group, &self.outside.address())?;
                receiver
            }
            (End::Group, IpAddr::V6(group)) => {
                let receiver = self.socket(to, (Ipv6Addr::UNSPECIFIED, port).into())?;
                let links = self.outside.ip_json(&["link", "show", "dev", "eth0"])?;
                let index = links.pointer("/0/ifindex").and_then(Value::as_u64).context("no ifindex")?;
                receiver.join_multicast_v6(&group, u32::try_from(index)?)?;
                receiver
            }
            _ => self.socket(to, (target, port).into())?,
        };
        receiver.set_read_timeout(Some(FLIGHT))?;
        let sender = self.socket(from, (source, 0).into())?;
        if to == End::Group {
            setsockopt(&sender, sockopt::BindToDevice, &"eth0".into())?;
        }
        let mut packet = [0; 1];
        for _ in 0..PACKETS {
            sender.send_to(&[tag], (target, port))?;
            loop {
                match receiver.recv_from(&mut packet) {
                    Ok((_, seen)) if packet == [tag] => return self.name(seen.ip()).map(Some),
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(None)
    }

    fn socket(&self, end: End, address: SocketAddr) -> Result<UdpSocket> {
        let namespace: &Namespace = match end {
            End::Pod => &self.pod,
            End::PodBeside => &self.beside,
            End::PodThere => &self.there,
            End::Host | End::Bridge | End::Vtep => &self.first,
            End::HostThere => &self.second,
            End::Outside | End::Group => &self.outside,
        };
        namespace.within(|| UdpSocket::bind(address).with_context(|| format!("cannot bind {address}")))
    }

    fn address(&self, end: End, v6: bool) -> Result<IpAddr> {
        let found = self.ends.iter().find(|(known, address)| *known == end && address.is_ipv6() == v6);
        found.map(|(_, address)| *address).with_context(|| format!("{end:?} has no such address"))
    }

    fn name(&self, address: IpAddr) -> Result<End> {
        match self.ends.iter().find(|(_, known)| *known == address) {
            Some((end, _)) => Ok(*end),
            None => bail!("{address} is nobody's"),
        }
    }
}

/// A host's address on the underlay's IPv6 network.
fn underlay_v6(host: &Host) -> Result<IpAddr> {
    Ok(format!("fd77::{:x}", host.address().octets()[3]).parse()?)
}

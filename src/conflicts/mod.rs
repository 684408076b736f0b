//! What else on this host would not get on with the overlay: found before anything is written, and explained.
//!
//! Read-only. What the kernel would refuse, and what it would let happen to the harm of the other, is a conflict alike.

mod flanneld;

use lease::{Subnet, Vni};
use overlay::{Device, Kind, Vxlan};

pub use flanneld::{Flanneld, LiveFlanneld, flannelds, refuse_beside};

/// The device that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its name.
    pub device: &'a str,
    /// Its VXLAN network identifier.
    pub vni: Vni,
    /// The UDP port that it will receive on.
    pub port: u16,
    /// Whether it will have the group-based policy extension.
    pub gbp: bool,
    /// Whether the tunnel runs over IPv6.
    pub ipv6: bool,
    /// The overlay network.
    pub network: Subnet,
}

/// Something on this host that the overlay does not get on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// A device that receives whatever VNI comes in on the port.
    #[error(
        "{device} is a VXLAN device in external mode on UDP port {port}, as those of Cilium and Open vSwitch are: only one of the two could receive. \
         Give this network another Backend.Port, or take {device} away (ip -d link show {device})"
    )]
    External {
        /// The other device.
        device: String,
        /// The port.
        port: u16,
    },
    /// A device with the same VNI on the same port.
    #[error(
        "{device} has VNI {vni} on UDP port {port} already, and the kernel takes no second. \
         Give this network another Backend.VNI or Backend.Port, or delete {device} (ip -d link show {device})"
    )]
    SameVni {
        /// The other device.
        device: String,
        /// The VNI.
        vni: Vni,
        /// The port.
        port: u16,
    },
    /// A device that receives on the same port in another way.
    #[error(
        "{device} receives on UDP port {port} {}, and devices on one port have to be alike in that. \
         Give this network another Backend.Port, or the same Backend.GBP (ip -d link show {device})",
        if *gbp { "with GBP" } else { "without GBP" }
    )]
    OtherWay {
        /// The other device.
        device: String,
        /// The port.
        port: u16,
        /// Whether the other has the group-based policy extension.
        gbp: bool,
    },
    /// A program that receives on the port.
    #[error(
        "UDP port {port} is in use by a program here, so that no VXLAN device can receive on it. \
         Give this network another Backend.Port, or end that program (ss -lunp 'sport = :{port}' names it)"
    )]
    Port {
        /// The port.
        port: u16,
    },
    /// Another daemon's VTEP.
    #[error(
        "{device} bears {address}, which is not of this network ({network}), and flanneld runs here (process {pid}): it is that one's device. \
         Give this network another Backend.VNI, or stop flanneld"
    )]
    OtherNetwork {
        /// The device.
        device: String,
        /// Its address.
        address: std::net::IpAddr,
        /// Our network.
        network: Subnet,
        /// flanneld.
        pid: u32,
    },
}

/// The links that receive on the port, against what is wanted. `udp` is what `/proc/net/udp`, or for an underlay of IPv6
/// `/proc/net/udp6`, says.
#[must_use]
pub fn on_port(wanted: &Wanted<'_>, links: &[(String, Device)], udp: &str) -> Option<Conflict> {
    let Wanted { device, vni, port, gbp, ipv6, network: _ } = *wanted;
    let mut received = false;
    for (name, link) in links {
        let Kind::Vxlan(other) = link.kind else { continue };
        // A device in external mode receives over both families.
        if other.port != port || !(other.external || other.local.is_some_and(|local| local.is_ipv6()) == ipv6) {
            continue;
        }
        received |= link.up;
        if name == device {
            continue;
        }
        let device = name.clone();
        // As `vxlan_vni_in_use` and `vxlan_find_sock` compare them (Linux v6.18 drivers/net/vxlan/vxlan_core.c).
        match other {
            Vxlan { external: true, .. } => return Some(Conflict::External { device, port }),
            Vxlan { gbp: theirs, .. } if theirs != gbp => return Some(Conflict::OtherWay { device, port, gbp: theirs }),
            Vxlan { vni: theirs, .. } if theirs == vni => return Some(Conflict::SameVni { device, vni, port }),
            Vxlan { .. } => {}
        }
    }
    // The kernel's own socket for a VXLAN device is in the list too, for as long as one is up.
    (!received && bound(udp, port)).then_some(Conflict::Port { port })
}

/// Whether the kernel's table of UDP sockets has one that is bound to the port. Its lines are
/// `sl local_address …`, the address as hex digits with the port behind a colon (proc_net(5)).
fn bound(udp: &str, port: u16) -> bool {
    let local = |line: &str| u16::from_str_radix(line.split_ascii_whitespace().nth(1)?.rsplit_once(':')?.1, 16).ok();
    udp.lines().filter_map(local).any(|bound| bound == port)
}

#[cfg(test)]
mod tests {
    use lease::{MacAddr, Mtu};
    use overlay::IfIndex;

    use super::*;

    const NONE: &str = "   sl  local_address rem_address   st\n";
    const PROGRAM: &str = "   sl  local_address rem_address   st\n 8211: 0100007F:2118 00000000:0000 07\n";

    fn link(name: &str, up: bool, vxlan: Vxlan) -> (String, Device) {
        let device = Device {
            index: IfIndex(7),
            kind: Kind::Vxlan(vxlan),
            up,
            mtu: Mtu(1450),
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
            no_link_local: true,
            accept_ra: None,
            threaded: None,
        };
        (name.to_owned(), device)
    }

    fn vxlan(vni: u64, port: u16) -> Vxlan {
        let local = Some([192, 168, 77, 1].into());
        Vxlan { vni: Vni::new(vni).unwrap(), port, local, parent: None, learning: false, gbp: false, external: false }
    }

    fn check(links: &[(String, Device)], udp: &str) -> Option<Conflict> {
        let network = "10.5.0.0/16".parse().unwrap();
        on_port(&Wanted { device: "flannel.1", vni: Vni::new(1).unwrap(), port: 8472, gbp: false, ipv6: false, network }, links, udp)
    }

    #[test]
    fn what_gets_on_is_no_conflict() {
        assert_eq!(check(&[], NONE), None);
        assert_eq!(check(&[link("flannel.1", true, vxlan(1, 8472))], PROGRAM), None, "our own device's socket");
        assert_eq!(check(&[link("flannel.2", true, vxlan(2, 8472))], PROGRAM), None, "another VNI shares the port");
        assert_eq!(check(&[link("other", true, vxlan(1, 4789))], NONE), None);
        assert_eq!(check(&[link("cilium_vxlan", true, Vxlan { external: true, ..vxlan(0, 8473) })], NONE), None);
        let over_ipv6 = Vxlan { local: Some("fd00::1".parse().unwrap()), gbp: true, ..vxlan(1, 8472) };
        assert_eq!(check(&[link("six", true, over_ipv6)], NONE), None);
    }

    #[test]
    fn each_conflict_names_the_device_the_port_and_what_to_do() {
        let external = Vxlan { external: true, local: None, ..vxlan(0, 8472) };
        for (links, udp, words) in [
            (vec![link("cilium_vxlan", false, external)], NONE, ["cilium_vxlan", "external", "8472", "Backend.Port"]),
            (vec![link("vx9", false, vxlan(1, 8472))], NONE, ["vx9", "VNI 1", "8472", "Backend.VNI"]),
            (vec![link("vx9", true, Vxlan { gbp: true, ..vxlan(5, 8472) })], PROGRAM, ["vx9", "with GBP", "8472", "Backend.GBP"]),
            (vec![], PROGRAM, ["UDP port 8472", "program", "ss -lunp", "Backend.Port"]),
            (vec![link("flannel.1", false, vxlan(1, 8472))], PROGRAM, ["UDP port 8472", "program", "ss -lunp", "Backend.Port"]),
        ] {
            let said = check(&links, udp).unwrap().to_string();
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }
}

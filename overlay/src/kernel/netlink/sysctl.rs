//! The settings: read and written under `/proc/sys/net`, which shows those of the calling thread's network namespace, and told of by
//! `RTM_NEWNETCONF`, a message that netlink-packet-route does not have.

use std::io;

use netlink_packet_core::{DecodeError, NlasIterator, parse_i32};
use netlink_packet_route::AddressFamily;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::wire::Message;
use crate::Op;

/// include/uapi/linux/netconf.h (v6.18): the interface that a setting is of, and forwarding.
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_IFINDEX_ALL: i32 = -1;

/// `struct netconfmsg`: the family, padded.
const NETCONF: usize = 4;

/// A setting that was not written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) errno: Errno,
    pub(super) reason: String,
}

/// Whether the family's forwarding is on; none where that cannot be read.
pub(super) fn forwarding(ipv6: bool) -> Option<bool> {
    let text = std::fs::read_to_string(forwarding_path(ipv6)).ok()?;
    Some(text.trim() != "0")
}

/// What a notification says of the family's forwarding, if it is about that.
pub(super) fn told(message: &Message<'_>, ipv6: bool) -> Result<Option<bool>, DecodeError> {
    let (header, attributes) = message.payload().split_at_checked(NETCONF).ok_or("a setting is shorter than its fixed part")?;
    let ours = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let (mut all, mut forwarding) = (false, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            NETCONFA_IFINDEX => all = parse_i32(attribute.value())? == NETCONFA_IFINDEX_ALL,
            NETCONFA_FORWARDING => forwarding = Some(parse_i32(attribute.value())? != 0),
            _ => {}
        }
    }
    Ok(forwarding.filter(|_| all && header.first() == Some(&ours.into())))
}

/// Does an operation that is a setting. None for the others.
pub(super) fn write(op: &Op, device: &str) -> Option<Result<(), Unwritten>> {
    match op {
        Op::EnableForwarding { ipv6 } => {
            // Written only where it is off: to write it again makes IPv4 forget what was set on each interface.
            if forwarding(*ipv6) == Some(true) { Some(Ok(())) } else { Some(put(forwarding_path(*ipv6), "1")) }
        }
        Op::DisableAcceptRa => match put(&accept_ra_path(device), "0") {
            // No such setting: IPv6 is off on the device, so there are no router advertisements to take.
            Err(Unwritten { errno: Errno::ENOENT, .. }) => Some(Ok(())),
            written => Some(written),
        },
        _ => None,
    }
}

/// Whether the device's setting can be written, by the rights in force: those of a user other than root who has CAP_NET_ADMIN
/// count for nothing otherwise (access(2)).
pub(super) fn can_set_accept_ra(device: &str) -> bool {
    faccessat(AT_FDCWD, accept_ra_path(device).as_str(), AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok()
}

fn accept_ra_path(device: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{device}/accept_ra")
}

fn forwarding_path(ipv6: bool) -> &'static str {
    if ipv6 { "/proc/sys/net/ipv6/conf/all/forwarding" } else { "/proc/sys/net/ipv4/ip_forward" }
}

fn put(path: &str, value: &str) -> Result<(), Unwritten> {
    std::fs::write(path, value).map_err(|error: io::Error| {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        let setting = path.trim_start_matches("/proc/sys/");
        let reason = format!("cannot write {path}: {}; set it on the host with `sysctl -w {setting}={value}`", errno.desc().to_lowercase());
        Unwritten { errno, reason }
    })
}

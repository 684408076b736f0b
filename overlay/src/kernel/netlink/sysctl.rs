//! The settings that have no netlink message. `/proc/sys/net` shows those of the calling thread's network namespace.

use std::io;

use nix::errno::Errno;

use crate::Op;

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

/// Does an operation that is a setting. None for the others.
pub(super) fn write(op: &Op, device: &str) -> Option<Result<(), Unwritten>> {
    match op {
        Op::EnableForwarding { ipv6 } => {
            // Written only where it is off: to write it again makes IPv4 forget what was set on each interface.
            if forwarding(*ipv6) == Some(true) { Some(Ok(())) } else { Some(put(forwarding_path(*ipv6), "1")) }
        }
        Op::DisableAcceptRa => match put(&format!("/proc/sys/net/ipv6/conf/{device}/accept_ra"), "0") {
            // No such setting: IPv6 is off on the device, so there are no router advertisements to take.
            Err(Unwritten { errno: Errno::ENOENT, .. }) => Some(Ok(())),
            written => Some(written),
        },
        _ => None,
    }
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

//! What a refusal means: that the work is done already, or a failure in words that say what to do.

use nix::errno::Errno;

use super::answer::Refusal;
use super::dump::{What, dump, or_left_out};
use super::link;
use crate::kernel::{Failure, KernelError, errno_number};
use crate::{Device, Kind, Op};

/// What a refusal means.
pub(super) enum Verdict {
    /// What was to be deleted is gone.
    Success,
    /// We lack a right; no further operation will fare better.
    NoRight,
    /// This operation failed.
    Failure(String),
    /// Another device stands in the way.
    Taken(String),
}

pub(super) fn verdict(op: &Op, refusal: &Refusal) -> Verdict {
    match (op, refusal.errno) {
        // EACCES is another matter: IPv6 is switched off on the device (net/ipv6/addrconf.c, route.c; v6.18).
        (_, Errno::EPERM) => Verdict::NoRight,
        // The kernel's words for "gone" (measured on 6.18): ESRCH for a route, ENOENT for neighbour and FDB, EADDRNOTAVAIL for an
        // address; ENODEV where the whole device is. A rule is put as a new one: there can be two that are alike.
        (Op::PutRule(_), Errno::EEXIST)
        | (Op::DelRule(_), Errno::ENOENT)
        | (Op::DelRoute { .. }, Errno::ESRCH | Errno::ENODEV)
        | (Op::DelNeighbour { .. } | Op::DelFdb { .. }, Errno::ENOENT | Errno::ENODEV)
        | (Op::DelAddress { .. }, Errno::EADDRNOTAVAIL | Errno::ENODEV)
        | (Op::DelDevice, Errno::ENODEV) => Verdict::Success,
        (Op::CreateDevice(_), Errno::EOPNOTSUPP) if refusal.text.is_empty() || refusal.text.contains("Unknown device type") => {
            Verdict::Failure(format!("{}: this kernel has no VXLAN; load it with `modprobe vxlan`", refusal.reason()))
        }
        (Op::CreateDevice(_), Errno::EEXIST) => Verdict::Taken(refusal.reason()),
        _ => Verdict::Failure(refusal.reason()),
    }
}

/// Who stands in the way of a device that cannot be created, as the end of a sentence; empty where nobody is found.
pub(super) async fn taken_by(op: &Op) -> Result<String, KernelError> {
    let Op::CreateDevice(spec) = op else { return Ok(String::new()) };
    let mut links: Vec<(String, Device)> = Vec::new();
    dump(What::Links, &mut links, |links, message| {
        links.extend(or_left_out(link::read(message)));
        Ok(())
    })
    .await?;
    let by_name = links.iter().find(|(name, _)| *name == spec.name).map(|(name, _)| format!(": {name} is there already"));
    let by_vni = links.iter().find_map(|(name, device)| match device.kind {
        Kind::Vxlan(vxlan) if vxlan.vni == spec.vni && vxlan.port == spec.port => {
            Some(format!(": {name} uses VNI {} on UDP port {}; delete it or choose another VNI or port", vxlan.vni, vxlan.port))
        }
        _ => None,
    });
    Ok(by_name.or(by_vni).unwrap_or_default())
}

/// What becomes of an operation on the device when there is none: what was to be deleted is gone, the rest fails.
pub(super) fn no_device(index: usize, op: &Op, name: &str) -> Option<Failure> {
    match op {
        Op::DelRoute { .. } | Op::DelNeighbour { .. } | Op::DelFdb { .. } | Op::DelAddress { .. } | Op::DelDevice => None,
        Op::EnableForwarding { .. }
        | Op::CreateDevice(_)
        | Op::SetLocal(_)
        | Op::SetLearning(_)
        | Op::SetMac(_)
        | Op::SetMtu(_)
        | Op::DisableLinkLocal
        | Op::DisableAcceptRa
        | Op::PutAddress(_)
        | Op::SetUp
        | Op::PutFdb { .. }
        | Op::PutNeighbour { .. }
        | Op::PutRule(_)
        | Op::DelRule(_)
        | Op::PutRoute { .. } => Some(Failure { index, errno: errno_number(Errno::ENODEV), reason: format!("there is no device {name}") }),
    }
}

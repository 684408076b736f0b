//! What has to be done to the device, and when it has to be made anew.

use std::collections::BTreeSet;

use super::Blocked;
use crate::device::{Device, Kind, VtepSpec, Vxlan};
use crate::observed::Observed;
use crate::op::Op;

/// Whether neighbours and routes stay on the device: it is a VXLAN device, up, and has its MAC.
#[must_use]
pub fn is_settled(spec: &VtepSpec, observed: &Observed) -> bool {
    observed.device.as_ref().is_some_and(|device| matches!(device.kind, Kind::Vxlan(_)) && device.up && device.mac == spec.mac)
}

/// What has to be done to the device and its addresses. Nothing else is looked at. A virtual device of another kind is replaced where
/// the name is ours.
///
/// # Errors
/// [`Blocked::NotVxlan`].
pub fn plan_device(spec: &VtepSpec, observed: &Observed, owns_name: bool) -> Result<Vec<Op>, Blocked> {
    let mut ops = Vec::new();
    let fresh = Device {
        index: crate::IfIndex(0),
        kind: Kind::Vxlan(as_created(spec)),
        up: false,
        mtu: spec.mtu,
        mac: spec.mac,
        no_link_local: false,
        accept_ra: Some(true),
        threaded: Some(false),
    };
    let mut addresses = &observed.addresses;
    let none = BTreeSet::new();
    let (device, vxlan) = match &observed.device {
        Some(device) => match &device.kind {
            Kind::Other(kind) if !owns_name || kind.is_empty() => {
                return Err(Blocked::NotVxlan { name: spec.name.clone(), kind: kind.clone() });
            }
            Kind::Vxlan(vxlan) if can_be_made_right(spec, device, vxlan) => (device, vxlan),
            Kind::Vxlan(_) | Kind::Other(_) => {
                ops.push(Op::DelDevice);
                ops.push(Op::CreateDevice(Box::new(spec.clone())));
                addresses = &none;
                (&fresh, &as_created(spec))
            }
        },
        None => {
            ops.push(Op::CreateDevice(Box::new(spec.clone())));
            addresses = &none;
            (&fresh, &as_created(spec))
        }
    };
    let Device { index: _, kind: _, up, mtu, mac, no_link_local, accept_ra, threaded: _ } = device;
    let mut ensure = |right: bool, op: Op| {
        if !right {
            ops.push(op);
        }
    };
    ensure(vxlan.local == Some(spec.local), Op::SetLocal(spec.local));
    ensure(vxlan.learning == spec.learning, Op::SetLearning(spec.learning));
    ensure(*mac == spec.mac, Op::SetMac(spec.mac));
    ensure(*mtu == spec.mtu, Op::SetMtu(spec.mtu));
    ensure(*no_link_local, Op::DisableLinkLocal);
    ensure(*accept_ra != Some(true), Op::DisableAcceptRa);
    let full = if spec.address.is_ipv4() { 32 } else { 128 };
    ensure(addresses.contains(&(spec.address, full)), Op::PutAddress(spec.address));
    for (address, len) in addresses {
        ensure(
            (*address, *len) == (spec.address, full) || !does_not_belong(spec, *address),
            Op::DelAddress { address: *address, len: *len },
        );
    }
    ensure(*up, Op::SetUp);
    Ok(ops)
}

/// An address of the overlay that is not ours, or a link-local one.
fn does_not_belong(spec: &VtepSpec, address: std::net::IpAddr) -> bool {
    let link_local = matches!(address, std::net::IpAddr::V6(address) if address.is_unicast_link_local());
    link_local || spec.network.contains(address)
}

fn as_created(spec: &VtepSpec) -> Vxlan {
    let VtepSpec { name: _, vni, port, local, gbp, learning, mac: _, mtu: _, address: _, network: _ } = *spec;
    Vxlan { vni, port, local: Some(local), parent: None, learning, gbp, external: false }
}

/// Whether the kernel can change the device into what it should be (drivers/net/vxlan/vxlan_core.c, `vxlan_changelink`:
/// neither VNI, port, GBP nor mode can be). A device that flanneld bound to its underlay is left bound: making it anew
/// would lose packets. One whose NAPI was threaded stays deaf when that is switched off again (measured on 6.18): what has queued up in
/// its `gro_cells` meanwhile is never taken out.
fn can_be_made_right(spec: &VtepSpec, device: &Device, vxlan: &Vxlan) -> bool {
    let Vxlan { vni, port, local, parent: _, learning: _, gbp, external } = *vxlan;
    let same_family = local.is_none_or(|local| local.is_ipv4() == spec.local.is_ipv4());
    vni == spec.vni && port == spec.port && gbp == spec.gbp && !external && same_family && device.threaded != Some(true)
}

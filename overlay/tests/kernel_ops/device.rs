//! The device: made in one message, changed in place, refused with words that help.

use lease::{Mtu, Vni};
use nix::errno::Errno;
use overlay::{Event, Kernel, Kind, Op};
use serde_json::Value;

use crate::common::{in_namespace, json, open, sh, with_vtep};
use overlay::contract::{Family, apply, events};

fn link(name: &str) -> Value {
    json(&format!("ip -j -d link show dev {name}")).remove(0)
}

#[test]
fn a_device_is_made_with_all_its_attributes() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = open(family);
            let spec = family.spec();
            apply(&mut kernel, &[Op::CreateDevice(Box::new(spec.clone()))]).await;

            let seen = link(family.name());
            assert_eq!(seen["mtu"], 1450);
            assert_eq!(seen["address"], spec.mac.to_string());
            assert_eq!(seen["operstate"], "DOWN");
            let data = &seen["linkinfo"]["info_data"];
            assert_eq!((&data["id"], &data["port"], &data["learning"]), (&1.into(), &8472.into(), &false.into()));
            assert_eq!(data[if family == Family::V4 { "local" } else { "local6" }], spec.local.to_string());
            assert_eq!(data["link"], Value::Null, "it is bound");

            let observed = kernel.dump().await.unwrap();
            let device = observed.device.unwrap();
            let Kind::Vxlan(vxlan) = device.kind else { panic!("it is a {:?}", device.kind) };
            assert_eq!((vxlan.vni, vxlan.port, vxlan.local, vxlan.parent), (spec.vni, spec.port, Some(spec.local), None));
            assert_eq!((vxlan.learning, vxlan.gbp, vxlan.external), (false, false, false));
            assert_eq!((device.mac, device.mtu, device.up), (spec.mac, spec.mtu, false));
            assert_eq!((device.no_link_local, device.accept_ra), (false, Some(true)));
        });
    }
}

#[test]
fn each_change_in_place_shows_in_ip_and_in_the_events() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = with_vtep(family).await;
            let ops = [
                Op::SetLocal(family.underlay(9)),
                Op::SetLearning(true),
                Op::SetMac(family.mac(9)),
                Op::SetMtu(Mtu(1400)),
                Op::DelAddress { address: family.subnet(1).address(), len: if family == Family::V4 { 32 } else { 128 } },
                Op::PutAddress(family.subnet(9).address()),
            ];
            apply(&mut kernel, &ops).await;

            let seen = link(family.name());
            let data = &seen["linkinfo"]["info_data"];
            assert_eq!(data[if family == Family::V4 { "local" } else { "local6" }], family.underlay(9).to_string());
            assert_eq!((&data["learning"], &seen["mtu"]), (&true.into(), &1400.into()));
            assert_eq!(seen["address"], family.mac(9).to_string());
            let addresses = json(&format!("ip -j address show dev {}", family.name())).remove(0)["addr_info"].clone();
            let addresses: Vec<_> = addresses.as_array().unwrap().iter().map(|a| a["local"].as_str().unwrap()).collect();
            assert_eq!(addresses, [family.subnet(9).address().to_string()]);

            let mut folded = overlay::Observed { device: None, ..kernel_before(family) };
            // An IPv4 address that goes may take routes along untold, so something is said to be lost.
            for event in events(&mut kernel) {
                folded.fold(&event);
            }
            let dumped = kernel.dump().await.unwrap();
            assert_eq!((folded.device, folded.addresses), (dumped.device, dumped.addresses));
        });
    }
}

fn kernel_before(family: Family) -> overlay::Observed {
    let len = if family == Family::V4 { 32 } else { 128 };
    overlay::Observed { addresses: [(family.subnet(1).address(), len)].into(), ..overlay::Observed::default() }
}

#[test]
fn settings_of_ipv6_are_read_back_after_they_are_made() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = open(family);
            apply(&mut kernel, &[Op::CreateDevice(Box::new(family.spec())), Op::DisableLinkLocal, Op::DisableAcceptRa, Op::SetUp]).await;
            let last = events(&mut kernel).into_iter().rev().find_map(|event| match event {
                Event::Device(device) => Some(device),
                _ => None,
            });
            let device = last.unwrap();
            assert_eq!((device.up, device.no_link_local, device.accept_ra), (true, true, Some(false)));
            assert_eq!(sh(&format!("cat /proc/sys/net/ipv6/conf/{}/accept_ra", family.name())), "0\n");
            assert_eq!(link(family.name())["inet6_addr_gen_mode"], "none");
        });
    }
}

#[test]
fn forwarding_is_switched_on_and_told() {
    for family in Family::BOTH {
        in_namespace(|| async move {
            let mut kernel = open(family);
            assert_eq!(kernel.dump().await.unwrap().forwarding, Some(false));
            apply(&mut kernel, &[Op::EnableForwarding { ipv6: family == Family::V6 }]).await;
            assert_eq!(events(&mut kernel), [Event::Forwarding(true)]);
            assert_eq!(kernel.dump().await.unwrap().forwarding, Some(true));
            let path = if family == Family::V4 { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
            assert_eq!(sh(&format!("cat /proc/sys/net/{path}")), "1\n");
            sh(&format!("echo 0 > /proc/sys/net/{path}"));
            assert_eq!(events(&mut kernel), [Event::Forwarding(false)]);
        });
    }
}

#[test]
fn a_vni_that_is_taken_names_who_has_it() {
    in_namespace(|| async {
        sh("ip link add other type vxlan id 1 local 172.16.0.1 dstport 8472");
        let mut kernel = open(Family::V4);
        let failures = kernel.apply(&[Op::CreateDevice(Box::new(Family::V4.spec()))]).await.unwrap();
        let [failure] = &failures[..] else { panic!("{failures:?}") };
        assert_eq!(failure.errno, Errno::EEXIST as i32);
        assert!(failure.reason.contains("other uses VNI 1 on UDP port 8472"), "{}", failure.reason);
    });
}

#[test]
fn a_name_that_is_taken_is_said_to_be() {
    in_namespace(|| async {
        sh("ip link add flannel.1 type bridge");
        let mut kernel = open(Family::V4);
        assert_eq!(kernel.dump().await.unwrap().device.unwrap().kind, Kind::Other("bridge".into()));
        let failures = kernel.apply(&[Op::CreateDevice(Box::new(Family::V4.spec()))]).await.unwrap();
        assert!(failures[0].reason.contains("flannel.1 is there already"), "{failures:?}");
    });
}

#[test]
fn what_the_kernel_refuses_carries_its_own_words() {
    in_namespace(|| async {
        let mut kernel = with_vtep(Family::V4).await;
        let failures = kernel.apply(&[Op::SetMtu(Mtu(1)), Op::SetMtu(Mtu(1400))]).await.unwrap();
        let [failure] = &failures[..] else { panic!("{failures:?}") };
        assert_eq!((failure.index, failure.errno), (0, Errno::EINVAL as i32));
        assert_eq!(failure.reason, "invalid argument (mtu less than device minimum)");
        assert_eq!(link("flannel.1")["mtu"], 1400);
    });
}

#[test]
fn a_device_is_deleted_once_and_again() {
    in_namespace(|| async {
        let mut kernel = with_vtep(Family::V4).await;
        apply(&mut kernel, &[Op::DelDevice]).await;
        assert!(events(&mut kernel).contains(&Event::DeviceGone));
        apply(&mut kernel, &[Op::DelDevice]).await;
        let mut again = Family::V4.spec();
        again.vni = Vni::new(7).unwrap();
        apply(&mut kernel, &[Op::CreateDevice(Box::new(again)), Op::DelDevice]).await;
        assert!(kernel.dump().await.unwrap().device.is_none());
    });
}

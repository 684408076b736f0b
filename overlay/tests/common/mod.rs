//! Network namespaces for tests of this crate: each test has one, on a thread of its own.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use lease::{MacAddr, Mtu, Subnet, Vni};
use nix::sched::{CloneFlags, unshare};
use overlay::{Event, Kernel, Netlink, RouteKey, RouteTo, Scope, VtepSpec};
use serde_json::Value;

/// Longer than anything here takes; a test that hangs fails by it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a test on a new thread in a new network namespace, with lo up. Sockets, `/proc/sys/net` and child processes of that
/// thread are in it; the kernel takes it down afterwards. Fails, rather than run in the namespace that it was started in.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let run = || {
        let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        unshare(CloneFlags::CLONE_NEWNET).expect("no network namespace to be had: run by `make test`, tests/support/sandbox, or as root");
        assert_ne!(before, std::fs::read_link("/proc/thread-self/ns/net").unwrap(), "still in the namespace of the start");
        sh("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(DEADLINE, test()).await.expect("the test took too long") });
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Runs a shell command in the thread's namespace and returns what it printed.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that prints JSON. iproute2 prints nothing where there is nothing, or an empty object for each absent thing.
pub(crate) fn json(command: &str) -> Vec<Value> {
    let text = sh(command);
    if text.trim().is_empty() {
        return Vec::new();
    }
    let list: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"));
    list.into_iter().filter(|value| value.as_object().is_none_or(|object| !object.is_empty())).collect()
}

/// One of the two address families, and the addresses that tests use in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    pub(crate) fn name(self) -> &'static str {
        if self == Self::V4 { "flannel.1" } else { "flannel-v6.1" }
    }

    pub(crate) fn ip(self) -> &'static str {
        if self == Self::V4 { "-4" } else { "-6" }
    }

    pub(crate) fn network(self) -> Subnet {
        if self == Self::V4 { "10.0.0.0/8" } else { "fc00::/16" }.parse().unwrap()
    }

    /// The underlay address of the nth host.
    pub(crate) fn underlay(self, n: u32) -> IpAddr {
        let first: IpAddr = if self == Self::V4 { "172.16.0.0" } else { "fd00::" }.parse().unwrap();
        Subnet::host(first).nth(u128::from(n)).unwrap()
    }

    /// The subnet of the nth host.
    pub(crate) fn subnet(self, n: u32) -> Subnet {
        let (len, shift) = if self == Self::V4 { (24, 8) } else { (64, 64) };
        Subnet::new(self.network().nth(u128::from(n) << shift).unwrap(), len).unwrap()
    }

    /// The VTEP's MAC on the nth host.
    pub(crate) fn mac(self, n: u32) -> MacAddr {
        let [a, b, c, d] = n.to_be_bytes();
        MacAddr::new([0x02, 0x42, a, b, c, d])
    }

    pub(crate) fn route(self, n: u32) -> (RouteKey, RouteTo) {
        let prefix = self.subnet(n);
        let to = RouteTo { gateway: Some(prefix.address()), onlink: true, protocol: 76, plain: true };
        (RouteKey { prefix, metric: n + 1 }, to)
    }

    /// The VTEP of the host with number 1.
    pub(crate) fn spec(self) -> VtepSpec {
        VtepSpec {
            name: self.name().to_owned(),
            vni: Vni::new(1).unwrap(),
            port: 8472,
            local: self.underlay(1),
            gbp: false,
            learning: false,
            mac: self.mac(1),
            mtu: Mtu(1450),
            address: self.subnet(1).address(),
            network: self.network(),
        }
    }

    pub(crate) fn scope(self) -> Scope {
        Scope { device: self.name().to_owned(), network: self.network(), underlay: None }
    }

    pub(crate) fn open(self) -> Netlink {
        Netlink::open(self.scope()).unwrap()
    }
}

/// Applies operations of which none may fail.
pub(crate) async fn apply(kernel: &mut impl Kernel, ops: &[overlay::Op]) {
    let failures = kernel.apply(ops).await.unwrap();
    assert_eq!(failures, [], "of {ops:?}");
}

/// What the kernel has to say at this moment.
pub(crate) fn events(kernel: &mut impl Kernel) -> Vec<Event> {
    let mut events = Vec::new();
    kernel.take_events(&mut events).unwrap();
    events
}

/// The VTEP made and up, and the events of that taken.
pub(crate) async fn with_vtep(family: Family) -> Netlink {
    let mut kernel = family.open();
    let spec = family.spec();
    let address = spec.address;
    apply(
        &mut kernel,
        &[
            overlay::Op::CreateDevice(Box::new(spec)),
            overlay::Op::DisableLinkLocal,
            overlay::Op::DisableAcceptRa,
            overlay::Op::PutAddress(address),
            overlay::Op::SetUp,
        ],
    )
    .await;
    let mut told = events(&mut kernel);
    // Of an IPv6 address the kernel tells once more, when its work queue comes to it.
    let addresses = if family == Family::V4 { 1 } else { 2 };
    while told.iter().filter(|event| matches!(event, Event::Address { .. })).count() < addresses {
        kernel.wait_events(&mut told).await.unwrap();
    }
    kernel
}

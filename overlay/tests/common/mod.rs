//! Network namespaces for tests of this crate: each test has one, on a thread of its own.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use overlay::contract::{Family, apply, events};
use overlay::{Event, Kernel, Netlink};
use serde_json::Value;

/// Longer than anything here takes; a test that hangs fails by it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a test on a new thread in a new network and mount namespace, with lo up. Sockets, `/proc/sys/net` and child processes of that
/// thread are in it; the kernel takes it down afterwards. Fails, rather than run in the namespace that it was started in.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let run = || {
        let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("no network namespace to be had: run by `make test`, tests/support/sandbox, or as root");
        assert_ne!(before, std::fs::read_link("/proc/thread-self/ns/net").unwrap(), "still in the namespace of the start");
        // What /sys shows is the devices of the network in which it was mounted.
        sh("mount -t sysfs sysfs /sys && ip link set lo up");
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

/// The real kernel, in the thread's namespace.
pub(crate) fn open(family: Family) -> Netlink {
    Netlink::open(family.scope()).unwrap()
}

/// The VTEP made and up, and the events of that taken.
pub(crate) async fn with_vtep(family: Family) -> Netlink {
    let mut kernel = open(family);
    apply(&mut kernel, &family.create()).await;
    let mut told = events(&mut kernel);
    // Of an IPv6 address the kernel tells once more, when its work queue comes to it.
    let addresses = if family == Family::V4 { 1 } else { 2 };
    while told.iter().filter(|event| matches!(event, Event::Address { .. })).count() < addresses {
        kernel.wait_events(&mut told).await.unwrap();
    }
    kernel
}

//! Whether a device's packets are handed on by kernel threads (threaded NAPI): an attribute in `/sys` of which netlink tells nothing.
//!
//! A VXLAN device stops receiving under it (measured on 6.18): its `gro_cells` wait for a softirq that does not come. Who sets it writes
//! a file, and of writes to files inotify tells, to everybody in the same network namespace.

use std::fs;

use futures_util::{FutureExt, StreamExt};
use inotify::{EventStream, Inotify, WatchMask};

use crate::IfIndex;

/// Larger than one event of inotify, which names no file here (inotify(7)).
const EVENTS: usize = 1024;

/// Whether the device's NAPI is threaded; none where /sys is not there or shows another network namespace, as it may in a container.
pub(super) fn threaded(device: &str, index: IfIndex) -> Option<bool> {
    let shown = fs::read_to_string(format!("/sys/class/net/{device}/ifindex")).ok()?;
    if shown.trim() != index.to_string() {
        return None;
    }
    fs::read_to_string(path(device)).ok().map(|text| text.trim() != "0")
}

/// Listens for writes to one device's setting.
pub(super) struct Ear(EventStream<[u8; EVENTS]>);

impl Ear {
    /// For the device with this index. None where there is nothing to listen to: each dump looks all the same.
    pub(super) fn new(device: &str, index: IfIndex) -> Option<Self> {
        threaded(device, index)?;
        let inotify = Inotify::init().ok()?;
        inotify.watches().add(path(device), WatchMask::MODIFY).ok()?;
        inotify.into_event_stream([0; EVENTS]).ok().map(Self)
    }

    /// Waits until the setting has been written, maybe with what it was: false when that can be heard no more. Cancel safe.
    pub(super) async fn written(&mut self) -> bool {
        matches!(self.0.next().await, Some(Ok(_)))
    }

    /// Whether the setting has been written since this was last asked.
    pub(super) fn was_written(&mut self) -> bool {
        let mut any = false;
        while let Some(Some(Ok(_))) = self.0.next().now_or_never() {
            any = true;
        }
        any
    }
}

fn path(device: &str) -> String {
    format!("/sys/class/net/{device}/threaded")
}

//! The world outside the overlay, on which a container knocks: each time from a new port, so that each packet is a connection of its own
//! to the packet filter.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::sched::{CloneFlags, setns};
use testkit::{Container, Lab, Namespace};

/// Between two knocks.
const PAUSE: Duration = Duration::from_millis(2);
/// What has not come by then is lost.
const QUIET: Duration = Duration::from_millis(200);

/// Knocks that go on until [`Self::finish`].
#[derive(Debug)]
pub(crate) struct Knocks {
    stop: Arc<AtomicBool>,
    knocker: JoinHandle<Result<u64>>,
    doorman: JoinHandle<Result<(u64, u64)>>,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Knocked {
    pub(crate) sent: u64,
    /// Came under the host's address.
    pub(crate) masqueraded: u64,
    /// Came under the container's own, to which no answer finds its way.
    pub(crate) bare: u64,
}

impl Knocked {
    pub(crate) fn all_masqueraded(self) -> bool {
        self.sent > 0 && self.masqueraded == self.sent
    }

    pub(crate) fn shown(self) -> String {
        let Self { sent, masqueraded, bare } = self;
        format!("{masqueraded} of {sent} under the host's address, {bare} under the container's, {} lost", sent - masqueraded - bare)
    }
}

impl Knocks {
    /// From a container to the switch, which has no route to the overlay.
    pub(crate) fn start(switch: &Namespace, container: &Container) -> Result<Self> {
        let door = switch.within(|| Ok(UdpSocket::bind((Lab::GATEWAY, 0))?))?;
        let target = door.local_addr()?;
        door.set_read_timeout(Some(QUIET))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (source, netns) = (IpAddr::from(container.address()), File::open(format!("/proc/{}/ns/net", container.pid()))?);
        let (until, also) = (Arc::clone(&stop), Arc::clone(&stop));
        let knocker = thread::spawn(move || {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            let mut sent = 0;
            while !until.load(Ordering::Relaxed) {
                // One that fails (no route) is one that does not come.
                let _ = UdpSocket::bind(SocketAddr::from((source, 0)))?.send_to(b"knock", target);
                sent += 1;
                thread::sleep(PAUSE);
            }
            Ok(sent)
        });
        let doorman = thread::spawn(move || listen(&door, source, &also));
        Ok(Self { stop, knocker, doorman })
    }

    /// Stops, waits for what is under way, and reports.
    pub(crate) fn finish(self) -> Result<Knocked> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.knocker.join().map_err(|_| anyhow!("the knocker panicked"))??;
        let (masqueraded, bare) = self.doorman.join().map_err(|_| anyhow!("the doorman panicked"))??;
        Ok(Knocked { sent, masqueraded, bare })
    }
}

/// How many come under another address than this, and how many under this.
fn listen(door: &UdpSocket, source: IpAddr, stop: &AtomicBool) -> Result<(u64, u64)> {
    let (mut other, mut same, mut packet) = (0, 0, [0; 8]);
    loop {
        match door.recv_from(&mut packet) {
            Ok((_, from)) if from.ip() == source => same += 1,
            Ok(_) => other += 1,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return Ok((other, same));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

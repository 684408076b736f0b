//! A stream of numbered UDP packets, and what became of them.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};

/// A packet that has not come this long after the sender stopped is lost.
const QUIET: Duration = Duration::from_millis(200);

/// Up to here a sender makes up for the time that it could not run.
const LATE: Duration = Duration::from_millis(100);

/// Room for packets that have not been read: some thousands (bytes).
const BURST: usize = 4 * 1024 * 1024;

/// A stream that is being sent. Dropped, it stops.
#[derive(Debug)]
pub struct Stream {
    stop: Stop,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<Arrived>>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamReport {
    /// Packets that were sent, or tried to be.
    pub sent: u64,
    /// Packets that arrived, each counted once.
    pub received: u64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// The longest time between two arrivals.
    pub longest_gap: Duration,
}

/// Stops both threads when it is dropped.
#[derive(Debug)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Arrived {
    count: u64,
    longest_gap: Duration,
}

impl Stream {
    /// Sends from one socket to the other, a packet each `interval`, until [`Self::finish`]. A socket stays in the network that it was made in.
    ///
    /// # Errors
    /// When one of them cannot be set up.
    pub fn start(from: UdpSocket, to: UdpSocket, interval: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let target = to.local_addr()?;
        to.set_read_timeout(Some(QUIET))?;
        // A sender that could not run for a while makes up for it at once; a receiver that cannot run then must not lose it.
        if setsockopt(&to, sockopt::RcvBufForce, &BURST).is_err() {
            setsockopt(&to, sockopt::RcvBuf, &BURST)?;
        }
        let (stop_sender, stop_receiver) = (Arc::clone(&stop), Arc::clone(&stop));
        let sender = thread::spawn(move || {
            let (mut start, mut number) = (Instant::now(), 0u64);
            while !stop_sender.load(Ordering::Relaxed) {
                // A send that fails (no route, link down) is a packet lost.
                let _ = from.send_to(&number.to_be_bytes(), target);
                number += 1;
                let next = interval.saturating_mul(u32::try_from(number)?);
                thread::sleep(next.saturating_sub(start.elapsed()));
                // A sender that could not run for long does not make up for it: queues on the way are not made for such bursts.
                let late = start.elapsed().saturating_sub(next);
                if late > LATE {
                    start += late;
                }
            }
            Ok(number)
        });
        let receiver = thread::spawn(move || receive(&to, &stop_receiver));
        Ok(Self { stop: Stop(stop), sender, receiver })
    }

    /// Stops sending, waits for what is still under way, and reports.
    ///
    /// # Errors
    /// When a socket failed.
    pub fn finish(self) -> Result<StreamReport> {
        let Self { stop, sender, receiver } = self;
        drop(stop);
        let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        let Arrived { count: received, longest_gap } = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        Ok(StreamReport { sent, received, lost: sent.saturating_sub(received), longest_gap })
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Result<Arrived> {
    let mut numbers = HashSet::new();
    let mut longest_gap = Duration::ZERO;
    let mut last: Option<Instant> = None;
    let mut packet = [0; 8];
    loop {
        match socket.recv(&mut packet) {
            Ok(_) => {
                let now = Instant::now();
                longest_gap = longest_gap.max(last.map_or(Duration::ZERO, |last| now - last));
                last = Some(now);
                numbers.insert(packet);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(Arrived { count: u64::try_from(numbers.len())?, longest_gap });
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

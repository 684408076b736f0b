//! Asking, in a millisecond, who reaches whom.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{Container, wait_for};

/// How long a packet may take over a few virtual links, with a machine that is busy.
const FLIGHT: Duration = Duration::from_millis(20);
/// How long it is given at first by who asks again and again, to see the moment when it gets through.
const FIRST_FLIGHT: Duration = Duration::from_millis(1);

/// A socket in each of some containers, each of which sends to all others.
#[derive(Debug)]
pub struct Mesh {
    ends: Vec<End>,
    round: u32,
}

#[derive(Debug)]
struct End {
    name: String,
    address: SocketAddr,
    socket: UdpSocket,
}

impl Mesh {
    /// A mesh of these containers.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn new<'a>(containers: impl IntoIterator<Item = &'a Container>) -> Result<Self> {
        Self::of(containers, |container| container.address().into())
    }

    /// A mesh of these containers over IPv6.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn v6<'a>(containers: impl IntoIterator<Item = &'a Container>) -> Result<Self> {
        Self::of(containers, |container| container.address_v6().into())
    }

    fn of<'a>(containers: impl IntoIterator<Item = &'a Container>, address: impl Fn(&Container) -> IpAddr) -> Result<Self> {
        let end = |container: &Container| {
            let socket = container.udp_socket_at(address(container))?;
            socket.set_nonblocking(true)?;
            Ok(End { name: container.name().to_owned(), address: socket.local_addr()?, socket })
        };
        Ok(Self { ends: containers.into_iter().map(end).collect::<Result<_>>()?, round: 0 })
    }

    /// Sends one packet from each to each other, and returns the pairs, by name, between which it did not get through.
    /// Returns at once when all arrived, else after 20 ms.
    ///
    /// # Errors
    /// When there are more than 256 containers.
    pub fn missing(&mut self) -> Result<Vec<(String, String)>> {
        self.exchange(FLIGHT)
    }

    fn exchange(&mut self, flight: Duration) -> Result<Vec<(String, String)>> {
        ensure!(self.ends.len() <= 256, "a mesh of {} containers is too large", self.ends.len());
        self.round += 1;
        let mut due = BTreeSet::new();
        for (from, sender) in (0..=u8::MAX).zip(&self.ends) {
            for (to, receiver) in (0..=u8::MAX).zip(&self.ends).filter(|(to, _)| *to != from) {
                due.insert((from, to));
                let [a, b, c, d] = self.round.to_be_bytes();
                // A send that fails (no route, link down) is a packet that does not arrive.
                let _ = sender.socket.send_to(&[a, b, c, d, from], receiver.address);
            }
        }
        let start = Instant::now();
        while !due.is_empty() && start.elapsed() < flight {
            for (to, receiver) in (0..=u8::MAX).zip(&self.ends) {
                let mut packet = [0; 5];
                while receiver.socket.recv(&mut packet).is_ok() {
                    let [a, b, c, d, from] = packet;
                    if u32::from_be_bytes([a, b, c, d]) == self.round {
                        due.remove(&(from, to));
                    }
                }
            }
        }
        let name = |index: u8| self.ends.get(usize::from(index)).map_or(String::new(), |end| end.name.clone());
        Ok(due.into_iter().map(|(from, to)| (name(from), name(to))).collect())
    }

    /// Asks until all reach all, and returns how long that took.
    ///
    /// # Errors
    /// After the deadline: names the pairs that do not.
    pub fn wait_whole(&mut self, deadline: Duration) -> Result<Duration> {
        let start = Instant::now();
        let mut flight = FIRST_FLIGHT;
        wait_for("every container to reach every other", deadline, || {
            let missing = self.exchange(flight)?;
            flight = FLIGHT.min(flight * 11 / 10);
            ensure!(missing.is_empty(), "these do not: {}", list(&missing));
            Ok(start.elapsed())
        })
    }
}

fn list(pairs: &[(String, String)]) -> String {
    pairs.iter().fold(String::new(), |mut text, (from, to)| {
        // Writing to a string cannot fail.
        let _ = write!(text, " {from}→{to}");
        text
    })
}

//! What `--notrack` gains: the same two hosts with and without it, in turns.
//!
//! Both agents masquerade, so that the hosts track connections at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use testkit::Container;
use testkit::world::{Member, PATIENCE, World};

use crate::live::Spread;

/// How long a TCP stream is measured.
const STREAM: Duration = Duration::from_secs(2);
/// Round trips of one packet.
const TRIPS: usize = 2_000;
/// Inner flows, each of which is a source port of the tunnel's.
const FLOWS: u16 = 2_000;
/// Bytes written at once.
const CHUNK: usize = 128 * 1024;

/// What was measured of one of the two.
#[derive(Debug, Default)]
struct Side {
    throughput: Vec<f64>,
    trips: Vec<Duration>,
    tracked: Vec<u64>,
}

/// Measures so many pairs of turns, and renders what came of it.
pub(crate) fn measure(turns: usize) -> Result<String> {
    testkit::quiet();
    let (mut with, mut without) = (Side::default(), Side::default());
    for _ in 0..turns {
        for (side, flags) in [(&mut without, &["--ip-masq"][..]), (&mut with, &["--ip-masq", "--notrack"])] {
            turn(side, flags)?;
        }
    }
    let mut text = format!("{turns} turns each, a TCP stream of {STREAM:?}, {TRIPS} round trips, {FLOWS} flows\n");
    for (name, Side { mut throughput, trips, mut tracked }) in [("tracked", without), ("--notrack", with)] {
        throughput.sort_by(f64::total_cmp);
        tracked.sort_unstable();
        let trips = Spread::of(trips);
        let middle = turns / 2;
        text += &format!(
            "{name:>10}: {:.2} Gbit/s (median of {:.2} to {:.2}); round trip p50 {:?}, p99 {:?}; {} connections known to the kernel\n",
            throughput.get(middle).copied().unwrap_or_default(),
            throughput.first().copied().unwrap_or_default(),
            throughput.last().copied().unwrap_or_default(),
            trips.percentile(50),
            trips.percentile(99),
            tracked.get(middle).copied().unwrap_or_default(),
        );
    }
    Ok(text)
}

fn turn(side: &mut Side, flags: &[&str]) -> Result<()> {
    let world = World::new()?;
    let mut members = Vec::new();
    for name in ["h1", "h2"] {
        let mut member = Member::on(world.lab.host(name)?, world.options()?.args(flags.iter().copied()))?;
        member.agent.wait_ready(PATIENCE)?;
        members.push(member);
    }
    let containers =
        members.iter().map(|member| member.host.container(&format!("c-{}", member.host.name()))).collect::<Result<Vec<_>>>()?;
    let [from, to] = containers.as_slice() else { return Err(anyhow!("two containers are wanted")) };
    from.ping(to.address(), from.full_payload(), true)?;
    side.throughput.push(stream(from, to)?);
    side.trips.extend(round_trips(from, to)?);
    for _ in 0..FLOWS {
        from.udp_socket()?.send_to(b"flow", (to.address(), 9))?;
    }
    let count = members.first().context("no host")?.host.run(&["cat", "/proc/sys/net/netfilter/nf_conntrack_count"])?;
    side.tracked.push(count.trim().parse()?);
    Ok(())
}

/// Gbit/s of one TCP stream.
fn stream(from: &Container, to: &Container) -> Result<f64> {
    let listener = to.within(|| Ok(TcpListener::bind(SocketAddr::from((to.address(), 0)))?))?;
    let target = listener.local_addr()?;
    let receiver = thread::spawn(move || -> Result<u64> {
        let (mut socket, _) = listener.accept()?;
        let (mut all, mut buffer) = (0_u64, vec![0; CHUNK]);
        loop {
            match socket.read(&mut buffer)? {
                0 => return Ok(all),
                some => all += u64::try_from(some)?,
            }
        }
    });
    let mut socket = from.within(|| Ok(TcpStream::connect(target)?))?;
    let (start, chunk) = (Instant::now(), vec![0; CHUNK]);
    while start.elapsed() < STREAM {
        socket.write_all(&chunk)?;
    }
    drop(socket);
    let bytes = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
    let bits = u32::try_from(bytes * 8 / 1_000_000).map_or(f64::INFINITY, f64::from);
    Ok(bits / 1_000.0 / start.elapsed().as_secs_f64())
}

fn round_trips(from: &Container, to: &Container) -> Result<Vec<Duration>> {
    let (ours, theirs): (UdpSocket, UdpSocket) = (from.udp_socket()?, to.udp_socket()?);
    let target = theirs.local_addr()?;
    ours.set_read_timeout(Some(Duration::from_secs(1)))?;
    let echo = thread::spawn(move || -> Result<()> {
        let mut packet = [0; 8];
        for _ in 0..TRIPS {
            let (_, back) = theirs.recv_from(&mut packet)?;
            theirs.send_to(&packet, back)?;
        }
        Ok(())
    });
    let mut trips = Vec::with_capacity(TRIPS);
    let mut packet = [0; 8];
    for _ in 0..TRIPS {
        let start = Instant::now();
        ours.send_to(&packet, target)?;
        ours.recv(&mut packet)?;
        trips.push(start.elapsed());
    }
    echo.join().map_err(|_| anyhow!("the echo panicked"))??;
    Ok(trips)
}

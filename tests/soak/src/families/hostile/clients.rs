//! Clients of the health port and the status socket that say nothing, say nonsense, or are too many.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Result;

use super::Stage;
use crate::Report;

/// Where the test agents serve health.
const HEALTH: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8471);
/// More than the agent serves at once, on either.
const MANY: usize = 1_000;

/// What a client might send.
fn nonsense() -> Vec<Vec<u8>> {
    let long = |head: &str, count: usize, tail: &str| [head.as_bytes(), &vec![b'a'; count], tail.as_bytes()].concat();
    vec![
        Vec::new(),
        vec![0; 4_096],
        (0..=u8::MAX).cycle().take(100_000).collect(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\xff\x04\x00\x00\x00\x00\x00".to_vec(),
        b"GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec(),
        long("GET /", 1_000_000, " HTTP/1.1\r\n\r\n"),
        long("GET / HTTP/1.1\r\nX: ", 1_000_000, "\r\n\r\n"),
        b"GET / HTTP/1.1\r\n".iter().copied().chain(b"X: y\r\n".repeat(10_000)).collect(),
        b"status".to_vec(),
        b"status status\n".to_vec(),
        long("", 65, "\n"),
        b"\n".repeat(1_000),
    ]
}

pub(super) fn endure(stage: &mut Stage, report: &mut Report) -> Result<()> {
    stage.endure(report, "health port: nonsense", |stage| stage.one.host.within(|| nonsense_to(|| Ok(TcpStream::connect(HEALTH)?))))?;
    stage.endure(report, "status socket: nonsense", |stage| nonsense_to(|| status_socket(stage)))?;
    stage.endure(report, "health port: a request a byte at a time, from 200", |stage| {
        let mut clients = stage.one.host.within(|| (0..200).map(|_| Ok(TcpStream::connect(HEALTH)?)).collect::<Result<Vec<_>>>())?;
        drip(&mut clients);
        Ok(())
    })?;
    stage.endure(report, "status socket: a request a byte at a time, from 50", |stage| {
        let mut clients = (0..50).map(|_| status_socket(stage)).collect::<Result<Vec<_>>>()?;
        drip(&mut clients);
        Ok(())
    })?;
    stage.endure(report, "health port: 1000 connections at once", |stage| {
        stage.one.host.within(|| {
            // Those that the backlog has no room for are refused, or wait: they are let go.
            let clients: Vec<_> =
                (0..MANY).map_while(|_| TcpStream::connect_timeout(&HEALTH.into(), Duration::from_millis(200)).ok()).collect();
            drop(clients);
            Ok(())
        })
    })?;
    stage.endure(report, "status socket: 100 connections at once", |stage| {
        let clients: Vec<_> = (0..100).map_while(|_| status_socket(stage).ok()).collect();
        drop(clients);
        // And it answers the next.
        stage.one.agent.status_json().map(drop)
    })
}

fn status_socket(stage: &Stage) -> Result<UnixStream> {
    Ok(UnixStream::connect(format!("/proc/{}/root/run/flannel/subnet.sock", stage.one.host.pid()))?)
}

/// Sends each kind of nonsense on a connection of its own, and reads whatever comes back.
fn nonsense_to<S: Read + Write>(connect: impl Fn() -> Result<S>) -> Result<()> {
    for bytes in nonsense() {
        let mut client = connect()?;
        // Whoever has answered already, or has heard enough, hangs up.
        if client.write_all(&bytes).is_ok() {
            let mut answer = [0; 64];
            let _ = client.write_all(b"\n\r\n\r\n").and_then(|()| client.read(&mut answer));
        }
    }
    Ok(())
}

/// Sends a byte on each of them, again and again, for as long as anyone listens, and three seconds at most.
fn drip(clients: &mut [impl Write]) {
    for byte in b"GET /healthz HTTP/1.1\r\nHost: " {
        for client in &mut *clients {
            match client.write(&[*byte]) {
                Err(error) if error.kind() != ErrorKind::BrokenPipe && error.kind() != ErrorKind::ConnectionReset => return,
                _ => {}
            }
        }
        // This is the fault itself: a client that takes its time.
        std::thread::sleep(Duration::from_millis(100));
    }
}

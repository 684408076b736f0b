//! One HTTP GET, over a connection made within a namespace.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Namespace;

/// A server that has not answered by then will not.
const PATIENCE: Duration = Duration::from_secs(2);

/// The status code and the body.
pub(crate) fn get(namespace: &Namespace, server: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut connection = namespace.within(|| Ok(TcpStream::connect_timeout(&server, PATIENCE)?))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the body ends where the connection does.
    write!(connection, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.with_context(|| format!("no HTTP answer from {server}: {answer:?}"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code, body.to_owned()))
}

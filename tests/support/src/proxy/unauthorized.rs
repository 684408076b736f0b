//! As much of an HTTP/2 server as it takes to answer every request with 401, as a gateway does that wants a login.

use std::io::{Read, Write};
use std::net::TcpStream;

// RFC 9113: the client's preface (§3.4), frame types and flags (§6).
const PREFACE: usize = 24;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 5;
/// RFC 7541 §6.2.2: a literal whose name is the static table's eighth, `:status`.
const STATUS_401: &[u8] = b"\x08\x03401";

/// Serves one connection until it ends.
pub(super) fn serve(mut client: TcpStream) -> Option<()> {
    client.read_exact(&mut [0; PREFACE]).ok()?;
    frame(&mut client, SETTINGS, 0, [0; 4], &[])?;
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?];
        client.read_exact(&mut body).ok()?;
        match kind {
            HEADERS => frame(&mut client, HEADERS, END_STREAM_AND_HEADERS, stream, STATUS_401)?,
            SETTINGS if flags & ACK == 0 => frame(&mut client, SETTINGS, ACK, stream, &[])?,
            PING if flags & ACK == 0 => frame(&mut client, PING, ACK, stream, &body)?,
            _ => (),
        }
    }
}

fn frame(to: &mut TcpStream, kind: u8, flags: u8, stream: [u8; 4], body: &[u8]) -> Option<()> {
    let [_, a, b, c] = u32::try_from(body.len()).ok()?.to_be_bytes();
    let head = [&[a, b, c, kind, flags][..], &stream].concat();
    to.write_all(&[&head, body].concat()).ok()
}

//! The last state: what an agent knew when it last heard from the store, on disk, for a start while the store is away.
//!
//! One line of JSON for this host ([`LastState`]), one line of text for each peer, and a last line that says how many
//! there were, so that half a file is known for what it is. It is written atomically, and read as anybody's text: a file
//! that does not say what it should is refused as a whole, with the line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::net::IpAddr;
use std::path::Path;

use lease::{Entry, Expiry, LeaseKey, LeaseRecord, Revision, Subnet, excerpt};
use overlay::Peer;
use serde::{Deserialize, Serialize};

use crate::file::{self, PutError};

/// Nobody else's business: where all hosts are.
const FILE: file::Kind = file::Kind { flag: "--state-file", mode: 0o600, lasting: true };

/// What the file's first line says it is. Another number is another format.
const FORMAT: u32 = 1;

/// What stands for the MAC of a peer that has none.
const NO_MAC: &str = "-";

/// More peers than any overlay has: a file that is longer is something else.
const PEERS_MOST: usize = 1 << 20;

/// The longest line (bytes): the first, with the network configuration, of which etcd takes 1.5 MB at the most.
const LINE_MOST: u64 = 4 << 20;

/// This host's part of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastState {
    /// Under which key the store has the network configuration: what tells one network from another.
    pub config_key: String,
    /// The network configuration, as the store had it.
    pub config: String,
    /// This host's subnets.
    pub key: LeaseKey,
    /// What this host said of itself.
    pub record: LeaseRecord,
    /// When the lease ends unless it was renewed, in seconds of Unix time; none for a reservation.
    pub ends: Option<u64>,
    /// When this was written, in seconds of Unix time.
    pub written: u64,
}

/// The first line as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    loden_state: u32,
    config_key: String,
    config: String,
    key: String,
    record: String,
    ends: Option<u64>,
    written: u64,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read it")]
    Io(#[from] io::Error),
    /// A line does not say what it should.
    #[error("line {line}: {matter}")]
    Line {
        /// Which, from 1 on.
        line: usize,
        /// What is wrong with it.
        matter: String,
    },
}

impl LastState {
    /// The lease as an entry of the store. Its revisions are not known.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let (created, modified) = (Revision::default(), Revision::default());
        Entry { key: self.key, record: Ok(self.record.clone()), created, modified, expiry: Expiry::Never }
    }

    /// Writes the state, with the peers as they come in portions; one that fails leaves the old file. Blocks, for as long as the disk takes.
    ///
    /// # Errors
    /// [`PutError`]; the old file stays then.
    pub fn put(&self, path: &Path, portions: impl IntoIterator<Item = io::Result<Vec<Peer>>>) -> Result<(), PutError> {
        file::put(path, FILE, |file| self.write(BufWriter::new(file), portions))
    }

    /// The file's text.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut out: impl Write, portions: impl IntoIterator<Item = io::Result<Vec<Peer>>>) -> io::Result<()> {
        let Self { config_key, config, key, record, ends, written } = self.clone();
        let (key, record) = (key.to_string(), record.encode());
        serde_json::to_writer(&mut out, &Head { loden_state: FORMAT, config_key, config, key, record, ends, written })?;
        writeln!(out)?;
        let mut count = 0_usize;
        for portion in portions {
            for Peer { subnet, mac, dst } in portion? {
                let mac = mac.map_or_else(|| NO_MAC.to_owned(), |mac| mac.to_string());
                writeln!(out, "{subnet} {mac} {dst}")?;
                count += 1;
            }
        }
        writeln!(out, "peers {count}")?;
        out.flush()
    }

    /// What the file at `path` says; none when there is no file.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(path: &Path) -> Result<Option<(Self, Vec<Peer>)>, ReadError> {
        // Others, such as a FIFO, could keep us waiting.
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(io::Error::other("it is no file").into());
        }
        match File::open(path) {
            Ok(file) => Self::parse(BufReader::new(file)).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What such a text says.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn parse(text: impl BufRead) -> Result<(Self, Vec<Peer>), ReadError> {
        let mut lines = Lines { text, line: 0 };
        let head = lines.next()?;
        let state = Self::head(&head).map_err(|matter| lines.wrong(matter))?;
        let mut peers = Vec::new();
        loop {
            let line = lines.next()?;
            if let Some(count) = line.strip_prefix("peers ") {
                if count.parse() == Ok(peers.len()) {
                    return Ok((state, peers));
                }
                return Err(lines.wrong(format!("it announces another number of peers than are there, {}", peers.len())));
            }
            match peer(&line) {
                Some(peer) if peers.len() < PEERS_MOST => peers.push(peer),
                Some(_) => return Err(lines.wrong(format!("more than {PEERS_MOST} peers"))),
                None => return Err(lines.wrong("no peer: a subnet, a MAC and an address are wanted".to_owned())),
            }
        }
    }

    fn head(line: &str) -> Result<Self, String> {
        let Head { loden_state, config_key, config, key, record, ends, written } =
            serde_json::from_str(line).map_err(|error| excerpt(&error.to_string()))?;
        if loden_state != FORMAT {
            return Err(format!("format {loden_state} is not known here, only {FORMAT} is"));
        }
        let key = key.parse().map_err(|error| format!("key: {error}"))?;
        let record = LeaseRecord::decode(record.as_bytes()).map_err(|error| format!("record: {error}"))?;
        Ok(Self { config_key, config, key, record, ends, written })
    }
}

fn peer(line: &str) -> Option<Peer> {
    let mut words = line.split(' ');
    let (subnet, mac, dst) = (words.next()?, words.next()?, words.next()?);
    let subnet: Subnet = subnet.parse().ok()?;
    let dst: IpAddr = dst.parse().ok()?;
    let mac = if mac == NO_MAC { None } else { Some(mac.parse().ok()?) };
    words.next().is_none().then_some(Peer { subnet, mac, dst })
}

struct Lines<R> {
    text: R,
    line: usize,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its end.
    fn next(&mut self) -> Result<String, ReadError> {
        self.line += 1;
        let mut line = String::new();
        io::Read::take(&mut self.text, LINE_MOST).read_line(&mut line)?;
        match line.pop() {
            Some('\n') => Ok(line),
            _ => Err(self.wrong("the file ends here, before its end".to_owned())),
        }
    }

    fn wrong(&self, matter: String) -> ReadError {
        ReadError::Line { line: self.line, matter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> LastState {
        let record =
            r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"#;
        LastState {
            config_key: "/coreos.com/network/config".to_owned(),
            config: "{\n\"Network\":\"10.5.0.0/16\"}".to_owned(),
            key: "10.5.3.0-24".parse().unwrap(),
            record: LeaseRecord::decode(record.as_bytes()).unwrap(),
            ends: Some(1_800_000_000),
            written: 1_790_000_000,
        }
    }

    fn peers() -> Vec<Peer> {
        let peer = |number: u8| Peer {
            subnet: format!("10.5.{number}.0/24").parse().unwrap(),
            mac: number.is_multiple_of(2).then(|| format!("02:00:00:00:00:{number:02x}").parse().unwrap()),
            dst: format!("192.168.77.{number}").parse().unwrap(),
        };
        (2..=9).map(peer).collect()
    }

    fn text() -> String {
        let mut out = Vec::new();
        state().write(&mut out, peers().chunks(3).map(|peers| Ok(peers.to_vec()))).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (read, known) = LastState::parse(text().as_bytes()).unwrap();
        assert_eq!((read, known), (state(), peers()));
    }

    #[test]
    fn it_is_for_its_owner_alone_and_a_file_that_is_not_there_says_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("made/state");
        assert!(LastState::read(&path).unwrap().is_none());
        state().put(&path, [Ok(peers())]).unwrap();
        state().put(&path, [Ok(peers()), Err(io::Error::other("no more"))]).unwrap_err();
        assert_eq!(LastState::read(&path).unwrap(), Some((state(), peers())));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn half_a_file_is_refused_wherever_it_breaks_off() {
        let text = text();
        for end in 0..text.len() {
            assert!(LastState::parse(&text.as_bytes()[..end]).is_err(), "{end} bytes of {}", text.len());
        }
    }

    #[test]
    fn a_line_that_does_not_say_what_it_should_is_named() {
        let text = text();
        for (from, to, words) in [
            ("\"loden_state\":1", "\"loden_state\":2", "line 1: format 2"),
            ("10.5.3.0-24", "10.5.3.0", "line 1: key"),
            ("10.5.4.0/24 02:00:00:00:00:04", "10.5.4.0/24 02:00:00:00:04", "line 4: no peer"),
            ("192.168.77.9\n", "192.168.77.9 more\n", "line 9: no peer"),
            ("peers 8", "peers 7", "line 10: it announces another number"),
        ] {
            let broken = text.replacen(from, to, 1);
            assert_ne!(broken, text);
            let error = LastState::parse(broken.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
        assert!(LastState::parse(&[0xff, 0xfe, b'\n'][..]).is_err());
        let long = format!("\"{}\"\n", "x".repeat(5000));
        let error = LastState::parse(long.as_bytes()).unwrap_err().to_string();
        assert!(error.len() < 200, "a long value is not quoted as a whole: {error}");
    }
}

//! The asker's side of the socket. Blocking: `loden status` has nothing else to do.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{REQUEST, render, socket_path};

/// How long to wait for the next part of the answer, and for all of it: more than the agent itself takes at most.
const PART_DEADLINE: Duration = Duration::from_secs(10);
const WHOLE_DEADLINE: Duration = Duration::from_secs(30);
/// More than a report of a million peers (bytes).
const MOST: u64 = 512 * 1024 * 1024;

/// There is no report.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No agent answers.
    #[error(
        "no agent answers on {}: start one (loden agent), or give the --subnet-file of the one that runs",
        path.display()
    )]
    NotRunning {
        /// What was tried.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The socket is there, and not for us.
    #[error("may not ask on {}: run this as root, or as the user that runs the agent", path.display())]
    NotAllowed {
        /// What was tried.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The agent took the question and did not answer.
    #[error("the agent on {} does not answer: it may be stuck; see its log", path.display())]
    Silent {
        /// What was tried.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The agent answered with something else than a report.
    #[error("the agent on {} says: {answer}", path.display())]
    Refused {
        /// What was tried.
        path: PathBuf,
        /// What it said.
        answer: String,
    },
}

/// The report of the agent that writes this subnet file, as the JSON text that it sent.
///
/// # Errors
/// [`AskError`], which says what was tried and what to do.
pub fn ask(subnet_file: &Path) -> Result<String, AskError> {
    let path = socket_path(subnet_file);
    let stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::NotAllowed { path: path.clone(), source },
        _ => AskError::NotRunning { path: path.clone(), source },
    })?;
    let text = exchange(stream).map_err(|source| AskError::Silent { path: path.clone(), source })?;
    #[derive(Deserialize)]
    struct Answer {
        error: Option<String>,
    }
    match serde_json::from_str(&text) {
        Ok(Answer { error: None }) => Ok(text),
        Ok(Answer { error: Some(answer) }) => Err(AskError::Refused { path, answer }),
        Err(error) => Err(AskError::Refused { path, answer: format!("something that is no report ({error})") }),
    }
}

/// What `loden status` prints, as JSON or as text for people, and whether the agent is ready.
///
/// # Errors
/// [`AskError`].
pub fn show(subnet_file: &Path, json: bool) -> Result<(String, bool), AskError> {
    let text = ask(subnet_file)?;
    let ready = is_ready(&text);
    if json {
        return Ok((text, ready));
    }
    match serde_json::from_str(&text) {
        Ok(report) => Ok((render(&report), ready)),
        Err(error) => {
            let answer = format!("a report of another version of loden ({error}); --json prints it as it is");
            Err(AskError::Refused { path: socket_path(subnet_file), answer })
        }
    }
}

/// Whether the agent that made this report is ready. False for a text that is no report.
#[must_use]
pub fn is_ready(report: &str) -> bool {
    #[derive(Deserialize)]
    struct Ready {
        ready: bool,
    }
    serde_json::from_str(report).is_ok_and(|Ready { ready }| ready)
}

fn exchange(mut stream: UnixStream) -> io::Result<String> {
    let begun = Instant::now();
    stream.set_read_timeout(Some(PART_DEADLINE))?;
    stream.set_write_timeout(Some(PART_DEADLINE))?;
    stream.write_all(format!("{REQUEST}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut part = vec![0; 64 * 1024];
    let mut limited = stream.take(MOST);
    loop {
        let count = match limited.read(&mut part) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            break;
        }
        answer.extend_from_slice(part.get(..count).unwrap_or_default());
        if begun.elapsed() > WHOLE_DEADLINE {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    String::from_utf8(answer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

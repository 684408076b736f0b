//! The agent's side of the socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::endpoint::{BindError, Endpoint};
use super::{REQUEST, Report};

/// Somebody asks: the agent puts its report in here. Dropping it answers that there is none.
pub type Asked = oneshot::Sender<Box<Report>>;

/// How long an asker may take to send its line.
const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// How long the agent may take to make the report: longer than a plan for 50 000 peers takes.
const REPORT_DEADLINE: Duration = Duration::from_secs(5);
/// How long an asker may take to read the answer: 50 000 peers are some ten megabytes.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// The longest line that is read (bytes).
const REQUEST_MAX: usize = 64;
/// How many askers are served at once; each may hold a whole report.
const ASKERS_MAX: usize = 4;
/// How often to see whether the socket still stands where people look for it.
const AUDIT: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be taken (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The socket, open.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    endpoint: Endpoint,
}

impl Server {
    /// Opens the socket beside the subnet file, mode 0600. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError::Running`] when another agent answers there.
    pub fn bind(subnet_file: &Path) -> Result<Self, BindError> {
        let path = super::socket_path(subnet_file);
        let endpoint = Endpoint::bind(&path)?;
        Ok(Self { path, endpoint })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers whoever asks, with what comes back through `reports`, until dropped. A socket that was removed is opened again.
    pub async fn serve(mut self, reports: mpsc::Sender<Asked>) {
        let mut askers = JoinSet::new();
        let mut audit = interval(AUDIT);
        let mut said = false;
        loop {
            tokio::select! {
                accepted = self.endpoint.listener.accept(), if askers.len() < ASKERS_MAX => match accepted {
                    Ok((stream, _)) => {
                        askers.spawn(answer(stream, reports.clone()));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot take a status connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = askers.join_next() => {}
                _ = audit.tick() => if !self.endpoint.in_place() {
                    match Endpoint::bind(&self.path) {
                        Ok(endpoint) => {
                            self.endpoint = endpoint;
                            said = false;
                            tracing::info!(path = %self.path.display(), "status socket was removed: opened again");
                        }
                        Err(error) if !said => {
                            said = true;
                            tracing::warn!(%error, "status socket was removed and cannot be opened again");
                        }
                        Err(_) => {}
                    }
                },
            }
        }
    }
}

async fn answer(mut stream: UnixStream, reports: mpsc::Sender<Asked>) {
    let document = match timeout(REQUEST_DEADLINE, request(&mut stream)).await {
        Ok(Ok(())) => report(&reports).await,
        Ok(Err(reason)) => Err(reason),
        Err(_) => Err(format!("no request within {} s", REQUEST_DEADLINE.as_secs())),
    };
    let document = document.unwrap_or_else(|reason| serde_json::json!({ "error": reason }).to_string().into_bytes());
    let sent = timeout(ANSWER_DEADLINE, async {
        stream.write_all(&document).await?;
        stream.write_all(b"\n").await?;
        stream.shutdown().await
    });
    if !matches!(sent.await, Ok(Ok(()))) {
        tracing::debug!("an asker for the status went away before it had the answer");
    }
}

/// Reads one line, and no more than a line can be long. What is no request is answered in a line that quotes it.
///
/// # Errors
/// What the asker is told.
pub(super) async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), String> {
    let mut line = Vec::with_capacity(REQUEST_MAX);
    let mut limited = stream.take(u64::try_from(REQUEST_MAX).unwrap_or(u64::MAX));
    while !line.contains(&b'\n') {
        match limited.read_buf(&mut line).await {
            Ok(0) if line.len() >= REQUEST_MAX => return Err(format!("the request is longer than {REQUEST_MAX} bytes")),
            Ok(0) => return Err("the request ends without a line end".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("the request cannot be read: {error}")),
        }
    }
    let first = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let word = String::from_utf8_lossy(first.trim_ascii()).into_owned();
    if word == REQUEST { Ok(()) } else { Err(format!("{word:?} is no request: {REQUEST:?} is the only one")) }
}

async fn report(reports: &mpsc::Sender<Asked>) -> Result<Vec<u8>, String> {
    let (asked, answered) = oneshot::channel();
    let asking = async {
        reports.send(asked).await.map_err(|_| "the agent is stopping".to_owned())?;
        answered.await.map_err(|_| "the agent is stopping".to_owned())
    };
    let report = timeout(REPORT_DEADLINE, asking)
        .await
        .map_err(|_| format!("the agent is busy: no report within {} s", REPORT_DEADLINE.as_secs()))??;
    // Of 50 000 peers it takes tens of milliseconds, which the leases are not to wait for.
    let encoded = tokio::task::spawn_blocking(move || serde_json::to_vec(&report)).await;
    encoded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

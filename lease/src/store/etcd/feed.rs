//! A range of keys, listed in pages and then followed for ever, through every break.
//!
//! Position: the first revision that is not yet known to be told in full. After a change it stays at that change's
//! revision, since a large one comes in fragments; resuming then tells it again, which says the same.

use std::ops::ControlFlow;
use std::time::Duration;

use etcd_client::{GetOptions, GetResponse, ResponseHeader, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use super::ANSWER_LIMIT;
use super::connection::{Connection, Numbered};
use super::failure::Failure;
use super::sinks::{Feed, Sink};
use crate::rng::{Backoff, Rng};

/// Keys a page. Below a thousand the round trips show, above a few thousand nothing is gained and memory grows.
const PAGE: i64 = 2_000;

/// A watch that has been silent for this long is asked whether it is alive: pings only prove that the connection is.
const SILENCE: Duration = Duration::from_secs(60);

/// Pauses between attempts to watch. With the cap, a store that is back is found so within 3 s, and 10 000 hosts that come
/// back after an outage are some 5 000 a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// A watch that has lived for this long was sound: the next break begins with the first pause again.
const SOUND: Duration = Duration::from_secs(10);

/// The watcher's number in an answer to a progress request, which belongs to none (etcd `clientv3.InvalidWatchID`).
const NO_WATCHER: i64 = -1;

/// Which keys.
#[derive(Debug, Clone)]
pub(super) struct Range {
    start: Vec<u8>,
    /// The first key behind it; none for `start` alone.
    end: Option<Vec<u8>>,
}

impl Range {
    pub(super) fn key(key: String) -> Self {
        Self { start: key.into_bytes(), end: None }
    }

    /// All keys below a prefix that ends in `/`.
    pub(super) fn prefix(prefix: String) -> Self {
        let mut end = prefix.trim_end_matches('/').as_bytes().to_vec();
        end.push(b'/' + 1);
        Self { start: prefix.into_bytes(), end: Some(end) }
    }
}

/// What has been told so far.
#[derive(Debug, Clone, Copy)]
struct Position {
    /// Where a watch resumes.
    next: i64,
    /// The latest revision that the cluster has shown to have.
    seen: i64,
    cluster: u64,
    /// The raft term of then. A store that begins anew has a lower one, also where its revisions have caught up.
    term: u64,
}

/// How far a feed has come.
#[derive(Debug, Default)]
struct Course {
    position: Option<Position>,
    /// How many watches could not be opened in a row.
    unopened: usize,
}

/// Why a watch ended.
enum End {
    /// Nobody listens any more.
    Unheard,
    /// The position is worth nothing any more.
    Relist(&'static str),
    /// The connection with this number failed.
    Failed(Option<u64>, Failure),
}

pub(super) struct Feeder<'a> {
    connection: &'a Connection,
    range: Range,
}

impl<'a> Feeder<'a> {
    pub(super) fn new(connection: &'a Connection, range: Range) -> Self {
        Self { connection, range }
    }

    /// Lists, then follows, until nobody listens.
    pub(super) async fn run(&self, sink: &mut impl Sink) {
        let mut course = Course::default();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, Rng::from_entropy());
        let mut token_renewed = false;
        loop {
            let began = Instant::now();
            let end = self.follow(&mut course, sink).await;
            if began.elapsed() >= SOUND {
                backoff.reset();
                token_renewed = false;
            }
            match end {
                Err(End::Unheard) | Ok(()) => return,
                Err(End::Relist(reason)) => {
                    info!(reason, "listing etcd's keys anew");
                    course.position = None;
                }
                Err(End::Failed(number, failure)) => {
                    debug!(%failure, "watch on etcd ended");
                    self.connection.give_up(number, &failure);
                    match failure {
                        // No outage: logging in anew comes first, and at once.
                        Failure::Token(_) if !token_renewed => {
                            token_renewed = true;
                            continue;
                        }
                        Failure::Token(_) | Failure::Denied(_) | Failure::Protocol(_) => self.connection.is_down(&failure),
                        Failure::Compacted => course.position = None,
                        Failure::Unreachable(_) | Failure::NoUsers | Failure::LeaseGone => (),
                    }
                }
            }
            sleep(backoff.step()).await;
        }
    }

    /// Every key at one revision; the next page travels while the sink is busy with this one.
    pub(super) async fn list(&self, sink: &mut impl Sink) -> Result<(), Failure> {
        match self.list_into(sink).await {
            Ok(_) | Err(End::Unheard | End::Relist(_)) => Ok(()),
            Err(End::Failed(_, failure)) => Err(failure),
        }
    }

    async fn list_into(&self, sink: &mut impl Sink) -> Result<Position, End> {
        let failed = |failure| End::Failed(None, failure);
        let mut page = self.page(self.range.start.clone(), 0).await.map_err(failed)?;
        let Head { revision, cluster, term } =
            head(page.header()).ok_or_else(|| failed(Failure::Protocol("a list without a header".to_owned())))?;
        heard(sink.take(Feed::Reset).await)?;
        while page.more() {
            let kvs = page.take_kvs();
            let last = kvs.last().map(|kv| [kv.key(), b"\0"].concat());
            let start = last.ok_or_else(|| failed(Failure::Protocol("an empty page in the midst of a list".to_owned())))?;
            let (next, taken) = tokio::join!(self.page(start, revision), sink.take(Feed::Page(kvs)));
            heard(taken)?;
            page = next.map_err(failed)?;
        }
        heard(sink.take(Feed::Page(page.take_kvs())).await)?;
        heard(sink.take(Feed::Done(revision)).await)?;
        Ok(Position { next: revision + 1, seen: revision, cluster, term })
    }

    async fn page(&self, start: Vec<u8>, revision: i64) -> Result<GetResponse, Failure> {
        let options = GetOptions::new().with_limit(PAGE).with_revision(revision);
        let options = self.range.end.iter().fold(options, |options, end| options.with_range(end.clone()));
        self.connection
            .call(|client| {
                let (start, options) = (start.clone(), options.clone());
                async move { client.kv_client().max_decoding_message_size(ANSWER_LIMIT).get(start, Some(options)).await }
            })
            .await
    }

    async fn follow(&self, course: &mut Course, sink: &mut impl Sink) -> Result<(), End> {
        let mut at = match course.position {
            Some(position) => position,
            None => *course.position.insert(self.list_into(sink).await?),
        };
        let (mut stream, number) = Box::pin(self.open(at)).await.inspect_err(|end| self.not_opened(course, end))?;
        course.unopened = 0;
        self.connection.is_up();
        loop {
            let message = self.next(&mut stream).await.map_err(|failure| End::Failed(Some(number), failure))?;
            self.check(&message, at, number).await?;
            let Some(Head { revision, .. }) = head(message.header()) else { continue };
            let changes: Vec<_> = message.events().iter().filter_map(|event| event.kv().cloned()).collect();
            if let Some(last) = changes.last() {
                (at.next, at.seen) = (last.mod_revision(), last.mod_revision());
                course.position = Some(at);
                heard(sink.take(Feed::Changes(changes)).await)?;
            } else if message.watch_id() != NO_WATCHER && !message.created() {
                // A notice of progress: all up to here has been told. The answer to a progress request is not taken for
                // one, since etcd before 3.4.25 sent it ahead of changes (etcd issue 15220).
                (at.next, at.seen) = (revision + 1, revision);
                course.position = Some(at);
            }
        }
    }

    /// One dead endpoint is no outage while there are others to try.
    fn not_opened(&self, course: &mut Course, end: &End) {
        if let End::Failed(_, failure @ Failure::Unreachable(_)) = end {
            course.unopened += 1;
            if course.unopened >= self.connection.settings.endpoints.len() {
                self.connection.is_down(failure);
            }
        }
    }

    async fn open(&self, at: Position) -> Result<(WatchStream, u64), End> {
        let Numbered { client, number } = self.connection.client().await.map_err(|(number, failure)| End::Failed(number, failure))?;
        let failed = |failure| End::Failed(Some(number), failure);
        let options = WatchOptions::new().with_start_revision(at.next).with_progress_notify().with_fragment();
        let options = self.range.end.iter().fold(options, |options, end| options.with_range(end.clone()));
        let mut watcher = client.watch_client().max_decoding_message_size(ANSWER_LIMIT);
        let opening = async {
            let mut stream = watcher.watch(self.range.start.clone(), Some(options)).await?;
            let first = stream.message().await?;
            Ok::<_, etcd_client::Error>((stream, first))
        };
        let (stream, first) = match self.connection.in_time(opening).await {
            Ok(opened) => opened.map_err(|error| failed(error.into()))?,
            Err(no_answer) => return Err(failed(no_answer)),
        };
        let first = first.ok_or_else(|| failed(Failure::Unreachable("the watch ended at once".to_owned())))?;
        self.check(&first, at, number).await?;
        Ok((stream, number))
    }

    /// The next message; one that does not come is asked for.
    async fn next(&self, stream: &mut WatchStream) -> Result<WatchResponse, Failure> {
        let message = match timeout(SILENCE, stream.message()).await {
            Ok(message) => message,
            Err(_) => {
                let asked = async {
                    stream.request_progress().await?;
                    stream.message().await
                };
                self.connection.in_time(asked).await?
            }
        };
        message?.ok_or_else(|| Failure::Unreachable("the server closed the watch".to_owned()))
    }

    /// Whether the message comes from the history that we know, and does not end the watch.
    async fn check(&self, message: &WatchResponse, at: Position, number: u64) -> Result<(), End> {
        if message.canceled() {
            return match message.compact_revision() {
                0 => Err(End::Failed(Some(number), Failure::from_cancel(message.cancel_reason()))),
                _ => Err(End::Relist("the history we missed has been compacted")),
            };
        }
        match head(message.header()) {
            Some(head) if head.cluster != at.cluster => Err(End::Relist("this is another cluster")),
            Some(head) if head.revision < at.seen || head.term < at.term => self.confirm(at).await,
            _ => Ok(()),
        }
    }

    /// A server that lags behind shows an older revision or term too. A read that the whole cluster agrees on tells which it is.
    async fn confirm(&self, at: Position) -> Result<(), End> {
        let start = self.range.start.clone();
        let read = self.connection.call(|client| super::read(client, start.clone())).await;
        match head(read.map_err(|failure| End::Failed(None, failure))?.header()) {
            Some(head) if head.revision >= at.seen && head.term >= at.term && head.cluster == at.cluster => Ok(()),
            _ => Err(End::Relist("etcd went back in time, as after a restored backup")),
        }
    }
}

/// What every answer says of the cluster.
struct Head {
    revision: i64,
    cluster: u64,
    term: u64,
}

fn head(header: Option<&ResponseHeader>) -> Option<Head> {
    header.map(|header| Head { revision: header.revision(), cluster: header.cluster_id(), term: header.raft_term() })
}

fn heard(flow: ControlFlow<()>) -> Result<(), End> {
    if flow.is_continue() { Ok(()) } else { Err(End::Unheard) }
}

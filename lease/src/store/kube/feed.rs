//! The Nodes, listed in pages and then followed for ever, through every break.
//!
//! It goes on where it was: a watch that ends, a client that is given up and an API server that is away cost no list.
//! Only a history that is gone does, or a server that is behind what it has told, which is looked for when a watch is silent.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::Client;
use kube::api::{WatchEvent, WatchParams};
use kube::core::Request;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use super::annotations::Said;
use super::ask::{Ask, NODES, Right};
use super::connection::{Connection, Numbered, PATIENCE, no_answer};
use super::failure::Failure;
use super::node::{self, Node, Page};
use super::notes::NodeEvent;
use super::own::Own;
use super::roster::Roster;
use crate::rng::{Backoff, Rng};
use crate::{Event, Revision};

/// How long a watch is asked to last, so that the load of many agents spreads anew over the API servers from time to time;
/// less than the half hour after which the server ends it itself (`--min-request-timeout`).
const WATCH: Duration = Duration::from_secs(600);

/// A watch that says nothing for this long is opened anew. The server says where it is every minute and up to a quarter
/// more (`defaultBookmarkFrequency`, k8s.io/apiserver `pkg/storage/cacher/cacher.go`): a connection that nobody is behind any
/// more is found so, and one to a server that does not say it costs a request.
const SILENCE: Duration = Duration::from_secs(100);

/// Pauses between attempts. With the cap, a server that is back is found so within 3 s.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// A watch that has lived for this long was sound: the next break begins with the first pause again.
const SOUND: Duration = Duration::from_secs(10);

/// How many changes are folded at once.
const BATCH: usize = 256;

/// Takes events; breaks when nobody listens any more.
pub(super) trait Sink: Send {
    fn take(&mut self, events: Vec<Event>) -> impl Future<Output = ControlFlow<()>> + Send;
}

/// Why following ended.
enum End {
    /// Nobody listens any more.
    Unheard,
    /// What has happened since is not to be had any more.
    Relist(&'static str),
    /// The watch is over and all is well.
    Over,
    /// It failed, over the client with this number.
    Failed(Option<u64>, Failure),
}

/// The API server no longer has what we ask for.
const FORGOTTEN: End = End::Relist("what has happened meanwhile is no longer to be had");

/// A feed, and what it has told so far.
pub(super) struct Feed<'a> {
    connection: &'a Connection,
    own: &'a Own,
    notes: Option<mpsc::Sender<NodeEvent>>,
    roster: Roster,
    position: Option<Revision>,
    /// Whether the watch before said something that cannot be read: that another opens is no sign that all is well.
    unreadable: bool,
}

impl<'a> Feed<'a> {
    /// A feed as seen from our Node. What an operator should see there goes to `notes`.
    pub(super) fn new(connection: &'a Connection, own: &'a Own, name: &str, notes: Option<mpsc::Sender<NodeEvent>>) -> Self {
        Self { connection, own, notes, roster: Roster::new(name), position: None, unreadable: false }
    }

    /// Lists, then follows, until nobody listens.
    pub(super) async fn run(&mut self, sink: &mut impl Sink) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, Rng::from_entropy());
        loop {
            let began = Instant::now();
            let end = self.step(sink).await;
            if began.elapsed() >= SOUND {
                backoff.reset();
            }
            match end {
                End::Unheard => return,
                End::Over => debug!("watch of the Nodes is over"),
                End::Relist(reason) => {
                    info!(reason, "listing the Nodes anew");
                    self.position = None;
                }
                End::Failed(number, failure) => {
                    debug!(%failure, "watch of the Nodes ended");
                    self.connection.give_up(number, &failure);
                }
            }
            sleep(backoff.step()).await;
        }
    }

    async fn step(&mut self, sink: &mut impl Sink) -> End {
        let result = match self.position {
            None => self.list(sink).await,
            Some(position) => self.follow(position, sink).await,
        };
        result.err().unwrap_or(End::Over)
    }

    /// Every Node at one revision, and then on.
    async fn list(&mut self, sink: &mut impl Sink) -> Result<(), End> {
        let failed = |failure| match failure {
            Failure::Gone => FORGOTTEN,
            other => End::Failed(None, other),
        };
        let revision = self.list_into(sink).await.map_err(failed)?.ok_or(End::Unheard)?;
        self.position = Some(revision);
        self.follow(revision, sink).await
    }

    /// Every Node at one revision; none when nobody listens.
    pub(super) async fn list_into(&mut self, sink: &mut impl Sink) -> Result<Option<Revision>, Failure> {
        let mut page: Page = self.connection.call(Ask::Page(None)).await?;
        self.roster.clear();
        let mut events = vec![Event::Init];
        loop {
            let Page { metadata, items } = page;
            for node in &items {
                events.extend(self.roster.list(node.name(), self.own.read(node)));
            }
            drop(items);
            let proceed = metadata.proceed.filter(|token| !token.is_empty());
            if proceed.is_none() {
                let revision = node::revision(&metadata.resource_version);
                events.push(Event::InitDone(revision));
                return Ok(sink.take(events).await.is_continue().then_some(revision));
            }
            if !events.is_empty() && sink.take(std::mem::take(&mut events)).await.is_break() {
                return Ok(None);
            }
            page = self.connection.call(Ask::Page(proceed.as_deref())).await?;
        }
    }

    async fn follow(&mut self, position: Revision, sink: &mut impl Sink) -> Result<(), End> {
        self.recall(sink).await?;
        let mut numbers = self.connection.numbers();
        let Numbered { client, number } = self.connection.client().await.map_err(|failure| End::Failed(None, failure))?;
        let failed = |failure| End::Failed(Some(number), failure);
        let opened = timeout(PATIENCE, open(&client, position)).await.unwrap_or_else(|_| Err(no_answer().into()));
        let events = opened.map_err(|failure| match failure {
            Failure::Gone => FORGOTTEN,
            other => {
                let other = self.connection.named(Right::WATCH, other);
                self.connection.is_down(Right::WATCH, &other);
                failed(other)
            }
        })?;
        if !self.unreadable {
            self.connection.is_up(Right::WATCH);
        }
        let mut events = pin!(events.ready_chunks(BATCH));
        // One that was given up between the two lines above is told of at once.
        while *numbers.borrow_and_update() == number {
            let news = tokio::select! {
                news = timeout(SILENCE, events.next()) => news,
                _ = numbers.changed() => break,
            };
            let news = match news {
                Ok(Some(news)) => news,
                Ok(None) => break,
                Err(_) => return self.look_where().await,
            };
            let mut told = Vec::new();
            let folded = news.into_iter().try_for_each(|message| self.fold(message, &mut told));
            if !told.is_empty() && sink.take(told).await.is_break() {
                return Err(End::Unheard);
            }
            folded.map_err(|failure| match failure {
                Failure::Gone => FORGOTTEN,
                unreadable @ Failure::Protocol(_) => {
                    let unreadable = self.connection.named(Right::WATCH, unreadable);
                    self.connection.is_down(Right::WATCH, &unreadable);
                    self.unreadable = true;
                    failed(unreadable)
                }
                other => failed(other),
            })?;
            if std::mem::take(&mut self.unreadable) {
                self.connection.is_up(Right::WATCH);
            }
            self.recall(sink).await?;
        }
        Ok(())
    }

    /// Takes in one message of a watch.
    fn fold(&mut self, message: Result<WatchEvent<Node>, kube::Error>, told: &mut Vec<Event>) -> Result<(), Failure> {
        let revision = match message? {
            WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                told.extend(self.roster.apply(node.name(), self.own.read(&node)));
                node.revision()
            }
            WatchEvent::Deleted(node) => {
                told.extend(self.roster.delete(node.name()));
                node.revision()
            }
            WatchEvent::Bookmark(bookmark) => node::revision(&bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(Failure::from_status(status.code, &status.message)),
        };
        self.position = self.position.max(Some(revision));
        Ok(())
    }

    /// After a silence: whether the server is behind what it has told. One whose data were restored from an older copy says nothing,
    /// not even where it is, until it has caught up (`cacheWatcher.process`, k8s.io/apiserver
    /// `pkg/storage/cacher/cache_watcher.go`).
    async fn look_where(&self) -> Result<(), End> {
        let page: Page = self.connection.call(Ask::Revision).await.map_err(|failure| End::Failed(None, failure))?;
        if Some(node::revision(&page.metadata.resource_version)) < self.position {
            return Err(End::Relist("the API server is behind what it has told: was it restored from a copy?"));
        }
        Ok(())
    }

    /// Asks for the Nodes whose turn has come.
    async fn recall(&mut self, sink: &mut impl Sink) -> Result<(), End> {
        while let Some(name) = self.roster.next_recalled() {
            let events = match self.connection.call::<Node>(Ask::Node(&name)).await {
                Ok(node) => self.roster.recall(&name, self.own.read(&node)),
                Err(Failure::Missing(_)) => self.roster.recall(&name, Said::Nothing),
                Err(failure) => return Err(End::Failed(None, failure)),
            };
            if !events.is_empty() && sink.take(events).await.is_break() {
                return Err(End::Unheard);
            }
        }
        for note in self.roster.take_notes() {
            // Where there is no room, as much has been said already.
            let _ = self.notes.as_ref().map(|notes| notes.try_send(note));
        }
        Ok(())
    }
}

/// Opens a watch of what has happened since.
async fn open(client: &Client, since: Revision) -> Result<impl Stream<Item = Result<WatchEvent<Node>, kube::Error>> + use<>, Failure> {
    let seconds = Rng::from_entropy().jitter(WATCH).as_secs();
    let options = WatchParams { bookmarks: true, timeout: u32::try_from(seconds).ok(), ..WatchParams::default() };
    let request = Request::new(NODES).watch(&options, &since.to_string());
    Ok(client.request_events::<Node>(request.map_err(kube::Error::BuildRequest)?).await?)
}

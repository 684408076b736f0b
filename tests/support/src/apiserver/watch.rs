//! One watch of the Nodes: what has changed, and in between where it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::serve::Query;

/// How often a watch without news says where it is, as the API server does (`defaultBookmarkFrequency`).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How long a watch lasts that says nothing of it (`--min-request-timeout` 30 min, which the server lengthens at random).
const LONGEST: Duration = Duration::from_secs(1_800);

/// How many changes are written at once.
const BATCH: usize = 64;

pub(super) struct Watching {
    shared: Arc<Shared>,
    changed: watch::Receiver<()>,
    position: u64,
    /// The watch began without a revision: what is there is told first.
    from_scratch: bool,
    closed: u64,
    bookmarks: u64,
    bookmark: Option<Instant>,
    end: Instant,
    over: bool,
}

impl Watching {
    pub(super) fn new(shared: Arc<Shared>, position: u64, query: &Query) -> Self {
        let changed = shared.changed.subscribe();
        let (closed, bookmarks) = {
            let faults = shared.faults();
            (faults.closed, faults.bookmarks)
        };
        let now = Instant::now();
        Self {
            shared,
            changed,
            position,
            from_scratch: position == 0,
            closed,
            bookmarks,
            bookmark: query.bookmarks.then(|| now + BOOKMARK_EVERY),
            end: now + query.seconds.map_or(LONGEST, Duration::from_secs),
            over: false,
        }
    }

    pub(super) fn response(self) -> Response {
        let lines = stream::unfold(self, |mut watching| async {
            let lines = watching.lines().await?;
            watching.shared.sent(lines.len());
            Some((Ok::<_, io::Error>(Bytes::from(lines)), watching))
        });
        (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
    }

    /// The next lines; none at the end.
    async fn lines(&mut self) -> Option<String> {
        loop {
            self.shared.while_hanging().await;
            if self.over || self.shared.faults().closed != self.closed || Instant::now() >= self.end {
                return None;
            }
            let news = self.news();
            if !news.is_empty() {
                return Some(news);
            }
            let bookmark = async {
                match self.bookmark {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.changed.changed() => (),
                () = bookmark => return Some(self.say_where()),
                () = sleep_until(self.end) => return None,
            }
        }
    }

    fn news(&mut self) -> String {
        let world = self.shared.world();
        if std::mem::take(&mut self.from_scratch) {
            self.position = world.revision;
            let nodes = world.page(world.revision, None, 0).map(|page| page.nodes).unwrap_or_default();
            return nodes.iter().map(|node| line("ADDED", node)).collect();
        }
        let bookmarks = self.shared.faults().bookmarks;
        match world.changes(self.position, BATCH) {
            Ok(changes) if changes.is_empty() && bookmarks != self.bookmarks && self.bookmark.is_some() => {
                self.bookmarks = bookmarks;
                drop(world);
                self.say_where()
            }
            Ok(changes) => {
                self.position = changes.last().map_or(self.position, |(revision, _)| *revision);
                changes.iter().map(|(_, change)| line(change.verb, &change.object)).collect()
            }
            Err(refusal) => {
                self.over = true;
                line("ERROR", &refusal.status().to_string())
            }
        }
    }

    fn say_where(&mut self) -> String {
        self.bookmark = Some(Instant::now() + BOOKMARK_EVERY);
        self.position = self.position.max(self.shared.world().revision);
        let node = json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "resourceVersion": self.position.to_string(), "creationTimestamp": null }, "spec": {}, "status": {} });
        line("BOOKMARK", &node.to_string())
    }
}

fn line(verb: &str, object: &str) -> String {
    format!("{{\"type\":\"{verb}\",\"object\":{object}}}\n")
}

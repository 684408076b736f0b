//! Where a feed goes: lease events, a snapshot of the leases, or the configuration's text.

use std::future::Future;
use std::ops::ControlFlow;

use etcd_client::KeyValue;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::store::entry::Raw;
use crate::store::{ConfigText, Snapshot};
use crate::{Entry, Event, LeaseKey, Revision};

/// How many records are decoded before other tasks get their turn: among them the one that puts the request for the
/// next page on the wire. 256 take about a tenth of a millisecond.
const DECODE_BATCH: usize = 256;

/// What a feed says.
pub(super) enum Feed {
    /// A list begins.
    Reset,
    /// Some of its keys.
    Page(Vec<KeyValue>),
    /// It is complete, at this revision.
    Done(i64),
    /// Keys as they are after a change; version 0 stands for a deletion.
    Changes(Vec<KeyValue>),
}

/// Takes what a feed says; breaks when nobody listens any more.
pub(super) trait Sink: Send {
    fn take(&mut self, feed: Feed) -> impl Future<Output = ControlFlow<()>> + Send;
}

/// The entry in this key, if it names a subnet.
pub(super) fn entry(prefix: &str, kv: &KeyValue) -> Option<Entry> {
    let key = std::str::from_utf8(kv.key()).ok()?.strip_prefix(prefix)?;
    Raw { key, value: kv.value(), created: kv.create_revision(), modified: kv.mod_revision(), lease: kv.lease() }.entry()
}

fn stray(prefix: &str, kv: &KeyValue) -> Event {
    let key = String::from_utf8_lossy(kv.key());
    Event::Stray(key.strip_prefix(prefix).unwrap_or(&key).to_owned())
}

pub(super) struct LeaseSink {
    prefix: String,
    events: mpsc::Sender<Vec<Event>>,
}

impl LeaseSink {
    pub(super) fn new(prefix: String, events: mpsc::Sender<Vec<Event>>) -> Self {
        Self { prefix, events }
    }

    fn change(&self, kv: &KeyValue) -> Option<Event> {
        if kv.version() == 0 {
            let key = std::str::from_utf8(kv.key()).ok()?.strip_prefix(self.prefix.as_str())?;
            return key.parse::<LeaseKey>().ok().map(Event::Delete);
        }
        Some(entry(&self.prefix, kv).map_or_else(|| stray(&self.prefix, kv), Event::Apply))
    }

    /// What waits for a listener that is slower than etcd stays undecoded, and stays at one page.
    async fn send_some_at_a_time(&self, kvs: &[KeyValue], each: impl Fn(&KeyValue) -> Option<Event> + Send) -> ControlFlow<()> {
        for some in kvs.chunks(DECODE_BATCH) {
            if kvs.len() > DECODE_BATCH {
                yield_now().await;
            }
            let events: Vec<Event> = some.iter().filter_map(&each).collect();
            if !events.is_empty() {
                self.send(events).await?;
            }
        }
        ControlFlow::Continue(())
    }

    async fn send(&self, events: Vec<Event>) -> ControlFlow<()> {
        if self.events.send(events).await.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Sink for LeaseSink {
    async fn take(&mut self, feed: Feed) -> ControlFlow<()> {
        let events = match feed {
            Feed::Reset => vec![Event::Init],
            Feed::Page(kvs) => {
                let known = |kv: &KeyValue| entry(&self.prefix, kv).map_or_else(|| stray(&self.prefix, kv), Event::InitApply);
                return self.send_some_at_a_time(&kvs, |kv| Some(known(kv))).await;
            }
            Feed::Done(revision) => vec![Event::InitDone(Revision(revision))],
            Feed::Changes(kvs) => return self.send_some_at_a_time(&kvs, |kv| self.change(kv)).await,
        };
        self.send(events).await
    }
}

pub(super) struct SnapshotSink {
    prefix: String,
    pub(super) snapshot: Snapshot,
}

impl SnapshotSink {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix, snapshot: Snapshot::default() }
    }
}

impl Sink for SnapshotSink {
    async fn take(&mut self, feed: Feed) -> ControlFlow<()> {
        match feed {
            Feed::Reset => self.snapshot.entries.clear(),
            Feed::Page(kvs) => self.snapshot.entries.extend(decode(&kvs, |kv| entry(&self.prefix, kv)).await),
            Feed::Done(revision) => self.snapshot.revision = Revision(revision),
            Feed::Changes(_) => (),
        }
        ControlFlow::Continue(())
    }
}

pub(super) struct ConfigSink {
    texts: mpsc::Sender<ConfigText>,
    current: ConfigText,
    told: Option<ConfigText>,
}

impl ConfigSink {
    pub(super) fn new(texts: mpsc::Sender<ConfigText>) -> Self {
        Self { texts, current: None, told: None }
    }

    async fn tell(&mut self) -> ControlFlow<()> {
        if self.told.as_ref() == Some(&self.current) {
            return ControlFlow::Continue(());
        }
        self.told = Some(self.current.clone());
        if self.texts.send(self.current.clone()).await.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Sink for ConfigSink {
    async fn take(&mut self, feed: Feed) -> ControlFlow<()> {
        let text = |kv: &KeyValue| (kv.version() != 0).then(|| String::from_utf8_lossy(kv.value()).into_owned());
        match feed {
            Feed::Reset => self.current = None,
            Feed::Page(kvs) => self.current = kvs.last().and_then(text),
            Feed::Done(_) => return self.tell().await,
            Feed::Changes(kvs) => {
                if let Some(kv) = kvs.last() {
                    self.current = text(kv);
                    return self.tell().await;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Decodes each, with room for other tasks before and in between.
async fn decode<T>(kvs: &[KeyValue], each: impl Fn(&KeyValue) -> Option<T>) -> Vec<T> {
    let mut decoded = Vec::with_capacity(kvs.len());
    for batch in kvs.chunks(DECODE_BATCH) {
        if kvs.len() > DECODE_BATCH {
            yield_now().await;
        }
        decoded.extend(batch.iter().filter_map(&each));
    }
    decoded
}

//! From the store to the data planes: what the watch says, portion by portion, and what it says of our own key to the keeper.

use std::sync::Arc;

use lease::{Event, LeaseKey, LeaseStore};
use tokio::sync::mpsc;

use super::planes::Planes;
use super::store::Store;

/// Portions of leases between the store and the dispatcher.
const PORTIONS_AHEAD: usize = 2;

/// Follows the store's leases until it is dropped.
pub(super) async fn dispatch(store: Store, planes: Arc<Planes>, own: LeaseKey, tell: mpsc::Sender<Event>) {
    let (events, mut arriving) = mpsc::channel::<Vec<Event>>(PORTIONS_AHEAD);
    let forward = async {
        let mut own = Own { key: own, named: false };
        while let Some(page) = arriving.recv().await {
            for event in page.iter().filter_map(|event| own.concerns(event)) {
                if tell.send(event).await.is_err() {
                    return;
                }
            }
            if !planes.send(page).await {
                return;
            }
        }
    };
    tokio::select! {
        () = store.watch(events) => {}
        () = forward => {}
    }
}

/// Our own key, as the watch speaks of it.
struct Own {
    key: LeaseKey,
    /// Whether the snapshot that is coming in has named it.
    named: bool,
}

impl Own {
    /// What an event says of our key: one that a whole snapshot does not name is gone.
    fn concerns(&mut self, event: &Event) -> Option<Event> {
        match event {
            Event::Init => {
                self.named = false;
                None
            }
            Event::InitApply(entry) if entry.key == self.key => {
                self.named = true;
                Some(event.clone())
            }
            Event::InitDone(_) if !self.named => Some(Event::Delete(self.key)),
            Event::Apply(entry) if entry.key == self.key => Some(event.clone()),
            Event::Delete(key) if *key == self.key => Some(event.clone()),
            Event::InitApply(_) | Event::InitDone(_) | Event::Apply(_) | Event::Delete(_) | Event::Stray(_) => None,
        }
    }
}

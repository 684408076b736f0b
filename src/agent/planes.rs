//! The data planes of a session, one for each family that is on, seen as one. None with the alloc backend.
//!
//! Each has a thread of its own: what goes wrong in one family, or is repaired there, does not keep the other.

use std::sync::Arc;

use futures_util::future::{join_all, select_all};
use lease::{Event, Family, Subnet};
use overlay::{Peer, State};
use tokio::sync::{Notify, watch};

use super::dataplane::{Dataplane, Job, Standing, tell_news};
use super::view::View;
use crate::metrics::Metrics;

/// Handles on all of them.
#[derive(Debug)]
pub(crate) struct Planes {
    planes: Vec<Dataplane>,
    /// Notified when the underlay's interface changed; never where there is no plane.
    pub(crate) underlay: Arc<Notify>,
    /// How they stand together; closed when a thread has ended. It is kept by [`Sum::keep`].
    pub(crate) standing: watch::Receiver<Option<Standing>>,
    /// Changes when the store has said something new of the peers, all of whom it has named before.
    pub(crate) news: watch::Receiver<u64>,
}

/// Where it is told how the planes stand together.
#[derive(Debug)]
pub(crate) struct Sum {
    parts: Vec<(watch::Receiver<Option<Standing>>, watch::Receiver<u64>)>,
    standing: watch::Sender<Option<Standing>>,
    news: watch::Sender<u64>,
}

impl Planes {
    /// Starts a thread for each job. What comes back with them has to be run.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(jobs: Vec<Job>, metrics: &Arc<Metrics>) -> std::io::Result<(Self, Sum)> {
        let underlay = Arc::new(Notify::new());
        let start = |job| Dataplane::start(job, Arc::clone(metrics), Arc::clone(&underlay));
        let planes: Vec<Dataplane> = jobs.into_iter().map(start).collect::<Result<_, _>>()?;
        let parts = planes.iter().map(|plane| (plane.standing.clone(), plane.news.clone())).collect();
        let ((say, standing), (tell, news)) = (watch::channel(None), watch::channel(0));
        Ok((Self { planes, underlay, standing, news }, Sum { parts, standing: say, news: tell }))
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.planes.is_empty()
    }

    /// Hands on what the store says. False when a thread has ended.
    pub(crate) async fn send(&self, page: Vec<Event>) -> bool {
        let Some((last, others)) = self.planes.split_last() else { return true };
        for plane in others {
            if plane.leases.send(page.clone()).await.is_err() {
                return false;
            }
        }
        last.leases.send(page).await.is_ok()
    }

    /// All that there is to say of those that answer in time.
    pub(crate) async fn views(&self) -> Vec<View> {
        join_all(self.planes.iter().map(Dataplane::view)).await.into_iter().flatten().map(|view| *view).collect()
    }

    /// A portion of the peers, in the order of their subnets: those after this one. None when one does not answer.
    pub(crate) async fn peers(&self, after: Option<Subnet>) -> Option<Vec<Peer>> {
        for plane in &self.planes {
            // IPv4 comes first: what is after an IPv6 subnet is the last plane's.
            if after.is_some_and(|after| Family::of(after.address()) > plane.family) {
                continue;
            }
            let after = after.filter(|after| Family::of(after.address()) == plane.family);
            let portion = plane.peers(after).await?;
            if !portion.is_empty() {
                return Some(portion);
            }
        }
        Some(Vec::new())
    }

    /// All of the peers, as far as they are told.
    pub(crate) async fn all_peers(&self) -> Vec<Peer> {
        let mut all: Vec<Peer> = Vec::new();
        while let Some(portion) = self.peers(all.last().map(|peer| peer.subnet)).await.filter(|portion| !portion.is_empty()) {
            all.extend(portion);
        }
        all
    }

    /// Returns when each has answered, or ended: that is told otherwise.
    pub(crate) async fn ping(&self) {
        join_all(self.planes.iter().map(Dataplane::ping)).await;
    }

    /// Ends the threads, and returns when they write nothing any more, or hang.
    pub(crate) async fn stop(&self) {
        join_all(self.planes.iter().map(Dataplane::stop)).await;
    }
}

impl Sum {
    /// Keeps telling how the planes stand together, until one has ended.
    pub(crate) async fn keep(mut self) {
        loop {
            let standings: Option<Vec<Standing>> =
                self.parts.iter_mut().map(|(standing, _)| standing.borrow_and_update().clone()).collect();
            let heard: u64 = self.parts.iter_mut().map(|(_, news)| *news.borrow_and_update()).sum();
            // Without a plane there are no peers to wait for.
            let heard = heard.max(u64::from(self.parts.is_empty()));
            let together = standings.map(together);
            let complete = together.as_ref().is_some_and(|together| together.complete);
            tell_news(&self.standing, together);
            if complete {
                tell_news(&self.news, heard);
            }
            let changes = self.parts.iter_mut().map(|(standing, news)| {
                Box::pin(async {
                    tokio::select! {
                        changed = standing.changed() => changed.is_ok(),
                        changed = news.changed() => changed.is_ok(),
                    }
                })
            });
            let changes: Vec<_> = changes.collect();
            // Without a plane nothing ever changes.
            if changes.is_empty() {
                std::future::pending::<()>().await;
            }
            if !select_all(changes).await.0 {
                return;
            }
        }
    }
}

/// How several stand together: as the worst of them.
fn together(standings: Vec<Standing>) -> Standing {
    let none = Standing { state: State::InStep, peers: 0, complete: true, complaints: 0 };
    standings.into_iter().fold(none, |sum, one| Standing {
        state: worse(sum.state, one.state),
        peers: sum.peers.max(one.peers),
        complete: sum.complete && one.complete,
        complaints: sum.complaints + one.complaints,
    })
}

fn worse(a: State, b: State) -> State {
    use State::{Converging, InStep, Troubled, Unforwarding, Waiting};
    match (a, b) {
        (Troubled(more, reason), Troubled(keys, _)) => Troubled(more + keys, reason),
        (trouble @ Troubled(..), _) | (_, trouble @ Troubled(..)) => trouble,
        (Waiting, _) | (_, Waiting) => Waiting,
        (Converging(a), Converging(b)) => Converging(a + b),
        (converging @ Converging(_), _) | (_, converging @ Converging(_)) => converging,
        (unforwarding @ Unforwarding(_), _) | (_, unforwarding @ Unforwarding(_)) => unforwarding,
        (InStep, InStep) => InStep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_stand_together_as_the_worse_of_them() {
        let troubled = |keys| State::Troubled(keys, "no".to_owned());
        for (a, b, both) in [
            (State::InStep, State::InStep, State::InStep),
            (State::InStep, State::Waiting, State::Waiting),
            (State::Converging(2), State::Converging(3), State::Converging(5)),
            (State::Converging(2), State::Waiting, State::Waiting),
            (State::Unforwarding("off".to_owned()), State::Converging(2), State::Converging(2)),
            (State::Unforwarding("off".to_owned()), State::InStep, State::Unforwarding("off".to_owned())),
            (State::Waiting, troubled(1), troubled(1)),
            (troubled(1), troubled(2), troubled(3)),
        ] {
            assert_eq!(worse(a.clone(), b.clone()), both, "{a} and {b}");
            assert_eq!(worse(b, a), both);
        }
        let one = |state, peers, complete| Standing { state, peers, complete, complaints: 1 };
        assert_eq!(together(Vec::new()), Standing { complaints: 0, ..one(State::InStep, 0, true) }, "with no plane there is nothing amiss");
        let both = together(vec![one(State::InStep, 3, true), one(State::Converging(1), 2, false)]);
        assert_eq!(both, Standing { complaints: 2, ..one(State::Converging(1), 3, false) });
    }
}

//! The agent: what runs on every host, composed of the store, the lease's keeper, the data plane and those who report.
//!
//! The *control* thread runs everything here: the store's client, the lease, the subnet file, HTTP, the status socket,
//! signals, and the packet filter's tasks. A `dataplane` thread for each family that is on keeps device, entries, routes and
//! rules. They share nothing but channels and the metrics' counters.
//!
//! The agent goes through `session`s: from the choice of the underlay and the network's configuration up to the running
//! overlay. When one of the two changes, a session ends and the next begins: it adopts what it finds in the kernel, as a
//! restart does, so that nothing is lost by it.

mod basis;
mod board;
mod dataplane;
mod dispatch;
mod ends;
mod follow;
mod node;
mod notices;
mod packet_filter;
mod peer_filter;
mod place;
mod planes;
mod remember;
mod report;
mod reporter;
mod room;
mod session;
mod sources;
mod store;
mod subnet_file;
mod view;
mod wanted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use lease::LeaseStore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::cli::{Options, StoreOptions};
use crate::conflicts::Flanneld;
use crate::http::{self, Readiness};
use crate::metrics::Metrics;
use crate::{install, status, systemd};
use board::Board;
use room::Room;

pub(crate) use basis::reached_at;
pub(crate) use packet_filter::name_of;
pub(crate) use place::{claim_for, find as find_place};
pub(crate) use room::{lock_name, take_network};
use session::Sessions;
pub(crate) use sources::{Usable, usable};
pub(crate) use store::Store;
pub(crate) use wanted::{Wanted, wanted};

/// How often the data plane is asked whether it lives.
const PULSE: Duration = Duration::from_secs(10);

/// So many sessions in a row may end early before each next one waits a little: a burst of changes is no fight, and what
/// somebody keeps changing is still followed within a second.
const SHORT_SESSIONS: u32 = 5;
const SHORT_PAUSE: Duration = Duration::from_millis(200);

/// Between a session that ended in an error and the next; one that ends sooner has ended early.
const SESSION_PAUSE: Duration = Duration::from_secs(1);

/// Runs the agent until it is told to stop, beside these flannelds of other networks. The data plane stays as it is then.
///
/// # Errors
/// What makes it useless to go on: options that cannot be used, an address that cannot be served on, another agent that
/// runs here already.
pub fn run(options: Options, flannelds: Vec<Flanneld>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let ended = runtime.block_on(agent(options, flannelds));
    // A file system that hangs must not keep us.
    runtime.shutdown_background();
    ended
}

async fn agent(options: Options, flannelds: Vec<Flanneld>) -> anyhow::Result<()> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "loden agent starts");
    if !options.without_effect.is_empty() {
        tracing::warn!(flags = options.without_effect.join(", "), "flags without effect");
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let store = Store::of(&options.store)?;
    let metrics = Arc::new(Metrics::new());
    metrics.set_store(options.store.kind());
    let board = Board::new();
    let (say_ready, readiness) = watch::channel(Readiness::NotReady("starting".to_owned()));
    let (say_serving, serving) = watch::channel(false);
    let mut tasks = JoinSet::new();
    if let Some(address) = options.healthz {
        tasks.spawn(http::Server::bind(address).await?.serve(readiness.clone(), Arc::clone(&metrics)));
    }
    let (ask, asked) = mpsc::channel(1);
    tasks.spawn(status::Server::bind(&options.subnet_file)?.serve(ask));
    let room = Room::take(&options.store, flannelds)?;
    tasks.spawn(report::answer(asked, board.clone(), options.store.clone(), store.health(), say_ready.subscribe()));
    tasks.spawn(reporter::watch_readiness(
        board.clone(),
        store.health(),
        Arc::clone(&metrics),
        say_ready,
        say_serving,
        options.install.conf.is_some(),
    ));
    tasks.spawn(pulse(board.clone()));
    if options.install.conf.is_some() {
        let board = board.clone();
        tasks.spawn(install::keep(options.install.clone(), becomes(serving.clone()), move |troubles| {
            board.change_if(|facts| std::mem::replace(&mut facts.cni, troubles.clone()) != troubles);
        }));
    }
    if let (Store::Kube(store), StoreOptions::Kube(options)) = (&store, &options.store) {
        if options.set_network_available {
            tasks.spawn(node::keep_available(store.clone(), serving.clone(), readiness.clone()));
        }
        tasks.spawn(node::note(store.clone(), board.clone()));
    }
    let config = sources::follow_config(store.clone(), &mut tasks);
    let sessions = Sessions::new(options, store, metrics, board, config, room);
    let stopped = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        never = run_sessions(sessions) => match never {},
    };
    systemd::stopping();
    tracing::info!(signal = stopped, "loden agent stops; lease and data plane stay as they are");
    Ok(())
}

/// Ends when it is true for the first time.
async fn becomes(mut flag: watch::Receiver<bool>) {
    if flag.wait_for(|flag| *flag).await.is_err() {
        std::future::pending().await
    }
}

/// One session after another.
async fn run_sessions(mut sessions: Sessions) -> std::convert::Infallible {
    let mut short = 0;
    loop {
        let began = Instant::now();
        match sessions.run_one().await {
            Ok(why) => {
                tracing::info!(why, "beginning again from the kernel as it is");
                short = if began.elapsed() < SESSION_PAUSE { short + 1 } else { 0 };
                if short > SHORT_SESSIONS {
                    tokio::time::sleep(SHORT_PAUSE).await;
                }
            }
            Err(error) => {
                sessions.board.blocked(format!("{error:#}"));
                tracing::error!(error = format!("{error:#}"), retry_in = ?SESSION_PAUSE, "cannot go on");
                tokio::time::sleep(SESSION_PAUSE).await;
            }
        }
    }
}

/// Feels the data plane's pulse, and tells systemd's watchdog only while there is one: what hangs is not to look alive.
async fn pulse(board: Board) {
    let period = systemd::watchdog_period().map_or(PULSE, |period| period.min(PULSE));
    let mut still = false;
    loop {
        let planes = board.look().borrow().planes.clone();
        let alive = match planes {
            Some(planes) => tokio::time::timeout(period, planes.ping()).await.is_ok(),
            None => true,
        };
        if alive {
            systemd::alive();
        }
        if alive == still {
            still = !alive;
            board.change(|facts| facts.stuck = still);
            if still {
                tracing::error!(waited = ?period, "data plane does not answer: it hangs in the kernel");
            }
        }
        tokio::time::sleep(period).await;
    }
}

//! The way to the API server: a client that is made when it is needed and given up when it fails.
//!
//! Every call may be sent twice: reads by nature, writes because each is guarded and its caller knows its own work again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::KubeOptions;
use super::access::{self, Making};
use super::ask::{Ask, Right};
use super::failure::Failure;
use crate::rng::{Backoff, Rng};
use crate::store::{Health, health};

/// How long one attempt of a call may take. The API server answers in milliseconds, a page of a list in some 50; with
/// priority and fairness on, a request waits its turn for up to a quarter of its 60 s (`--request-timeout`).
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// How often a call is tried. Its caller tries again in its own time.
const ATTEMPTS: u32 = 3;

/// How long a call may take with all its attempts.
const CALL_DEADLINE: Duration = Duration::from_secs(32);

/// A right that was refused, and has not been asked for since then, is no longer needed.
const INSISTENCE: Duration = Duration::from_secs(60);

/// The pause after the first failed attempt, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) options: KubeOptions,
    slot: Mutex<Slot>,
    making: Making,
    /// The number of the client in use: whoever follows the Nodes over an older one has to begin anew.
    numbers: watch::Sender<u64>,
    state: Mutex<State>,
    health: watch::Sender<Health>,
}

#[derive(Default)]
struct Slot {
    number: u64,
    client: Option<Client>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "client {}", self.number)
    }
}

/// What there is to remember of refusals.
#[derive(Debug, Default)]
struct State {
    /// The right that was refused last, or got no answer of use, and when. While it is being asked for, an answer to something else is no sign that all is well.
    refused: Option<(Right, Instant)>,
    /// Whether it was told, since all was well last, that we are refused: for that a person has to act, and an outage before it would hide it.
    told_refusal: bool,
}

/// A client, and the number that it has.
#[derive(Clone)]
pub(super) struct Numbered {
    pub(super) client: Client,
    pub(super) number: u64,
}

/// The number of the client that failed, where there was one, and how.
type Failed = (Option<u64>, Failure);

impl Connection {
    pub(super) fn new(options: KubeOptions) -> Self {
        let (slot, state) = (Mutex::default(), Mutex::default());
        Self {
            options,
            slot,
            making: Making::default(),
            numbers: watch::Sender::new(0),
            state,
            health: watch::Sender::new(Health::Unknown),
        }
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Tells of each client that is given up.
    pub(super) fn numbers(&self) -> watch::Receiver<u64> {
        self.numbers.subscribe()
    }

    /// Makes a call, if need be several times.
    pub(super) async fn call<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, Failure> {
        let result = timeout(CALL_DEADLINE, Box::pin(self.attempts(ask))).await;
        let result = result.unwrap_or_else(|_| Err(Failure::Unreachable(format!("no answer within {} s", CALL_DEADLINE.as_secs()))));
        match &result {
            _ if !ask.is_vital() => (),
            Err(failure) if failure.is_useless(ask.right()) => self.is_down(ask.right(), failure),
            Ok(_) | Err(_) => self.is_up(ask.right()),
        }
        result
    }

    async fn attempts<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, Failure> {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, Rng::from_entropy());
        let mut attempts_left = ATTEMPTS;
        let mut token_renewed = false;
        loop {
            let (number, failure) = match self.attempt(ask).await {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            attempts_left = attempts_left.saturating_sub(1);
            self.give_up(number, &failure);
            match &failure {
                Failure::Unreachable(_) if attempts_left > 0 => sleep(backoff.step()).await,
                Failure::Unknown(_) if !token_renewed => token_renewed = true,
                _ => return Err(failure),
            }
        }
    }

    async fn attempt<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, Failed> {
        let Numbered { client, number } = self.client().await.map_err(|failure| (None, failure))?;
        let answer = timeout(PATIENCE, ask.send(&client)).await;
        let answer = answer.unwrap_or_else(|_| Err(no_answer()));
        answer.map_err(|error| (Some(number), self.named(ask.right(), error.into())))
    }

    /// The client in use, or a new one. It says nothing of whether the API server is there.
    pub(super) async fn client(&self) -> Result<Numbered, Failure> {
        let number = {
            let slot = self.slot();
            if let Some(client) = &slot.client {
                return Ok(Numbered { client: client.clone(), number: slot.number });
            }
            slot.number
        };
        let client = access::client(&self.options, &self.making).await?;
        let mut slot = self.slot();
        if slot.number == number && slot.client.is_none() {
            slot.client = Some(client.clone());
        }
        Ok(Numbered { client, number })
    }

    /// Lets go of the client with this number, where another one may do better: with other connections, and with the
    /// credentials read anew.
    pub(super) fn give_up(&self, number: Option<u64>, failure: &Failure) {
        if matches!(failure, Failure::Unreachable(_) | Failure::Unknown(_)) && number == Some(self.slot().number) {
            debug!(%failure, "connection to the API server given up");
            self.let_go();
        }
    }

    /// Lets go of the client in use: the next call makes another, and who follows the Nodes goes on over that.
    pub(super) fn let_go(&self) {
        let number = {
            let mut slot = self.slot();
            if slot.client.take().is_none() {
                return;
            }
            slot.number += 1;
            slot.number
        };
        self.numbers.send_replace(number);
    }

    pub(super) fn is_up(&self, right: Right) {
        {
            let mut state = self.state();
            if state.refused.is_some_and(|(refused, when)| refused != right && when.elapsed() < INSISTENCE) {
                return;
            }
            *state = State::default();
        }
        if health::up(&self.health) {
            info!("the API server answers");
        }
    }

    pub(super) fn is_down(&self, right: Right, failure: &Failure) {
        let refused = matches!(failure, Failure::Denied(_) | Failure::Unknown(_));
        let news = {
            let mut state = self.state();
            if matches!(failure, Failure::Denied(_)) || failure.is_answer() {
                state.refused = Some((right, Instant::now()));
            }
            refused && !std::mem::replace(&mut state.told_refusal, true)
        };
        if health::down(&self.health, failure, news) {
            warn!(reason = %failure, "the API server is of no use; it is tried again until it is");
        }
    }

    /// The failure with what a person needs to mend it.
    pub(super) fn named(&self, right: Right, failure: Failure) -> Failure {
        match failure {
            Failure::Denied(text) => {
                Failure::Denied(format!("may not {right}: {text} (the service account's ClusterRole has to allow it)"))
            }
            Failure::Missing(text) | Failure::Protocol(text) if right.is_of_all_nodes() => {
                Failure::Protocol(format!("no answer to {right}: {text} (is it an API server that is asked, or what stands before it?)"))
            }
            Failure::Unreachable(text) => match &self.options.api_url {
                Some(url) => Failure::Unreachable(format!("{url}: {text}")),
                None => Failure::Unreachable(text),
            },
            other => other,
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        // It is whole between any two statements, whoever panicked.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As if the server had said so itself (HTTP 504).
pub(super) fn no_answer() -> kube::Error {
    let seconds = PATIENCE.as_secs();
    kube::Error::ReadEvents(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {seconds} s")))
}

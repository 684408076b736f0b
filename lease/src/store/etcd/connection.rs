//! One connection to one of the endpoints at a time: opened when it is needed, given up when it fails, next time elsewhere.
//!
//! A client that spreads its calls over all endpoints would lose every call that meets a dead one. Every call that goes
//! through here may be sent twice: reads by nature, writes because each is guarded and its caller knows its own work again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::failure::Failure;
use super::options::Settings;
use crate::rng::{Backoff, Rng};
use crate::store::{Health, health};

/// How long one attempt of a call may take at first, connection and login included. etcd answers in milliseconds; an
/// election takes one to two seconds (`--election-timeout` 1 s).
const FIRST_PATIENCE: Duration = Duration::from_secs(4);

/// And how long when no endpoint has answered in less: a store that takes 5 s for everything, three times in a row.
const LONGEST_PATIENCE: Duration = Duration::from_secs(16);

/// How long a call may take with all its attempts: three that hang, each with twice the patience. Its caller tries again
/// in its own time.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// The pause after the first failed attempt, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) settings: Settings,
    slot: Mutex<Slot>,
    patience: Mutex<Patience>,
    health: watch::Sender<Health>,
}

/// The connection in use. Each change of it has a number, so that two that meet the same failure change it once.
#[derive(Default)]
struct Slot {
    endpoint: usize,
    number: u64,
    client: Option<Client>,
    without_login: bool,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "endpoint {} for the {}. time", self.endpoint, self.number)
    }
}

/// How long an answer is waited for. It grows while no endpoint answers, and shrinks with the answers that come.
#[derive(Debug)]
struct Patience {
    now: Duration,
    /// How many attempts in a row took longer.
    exceeded: usize,
}

/// A client, and the number of the connection that it stands for.
#[derive(Clone)]
pub(super) struct Numbered {
    pub(super) client: Client,
    pub(super) number: u64,
}

/// The number of the connection that failed, where there was one, and how.
pub(super) type Failed = (Option<u64>, Failure);

impl Connection {
    pub(super) fn new(settings: Settings) -> Self {
        // Hosts that begin together begin at different endpoints.
        let endpoint = Rng::from_entropy().below(settings.endpoints.len());
        Self {
            settings,
            slot: Mutex::new(Slot { endpoint, ..Slot::default() }),
            patience: Mutex::new(Patience { now: FIRST_PATIENCE, exceeded: 0 }),
            health: watch::Sender::new(Health::Unknown),
        }
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Makes a call, if need be several times; `call` must be safe to repeat.
    pub(super) async fn call<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let result = timeout(CALL_DEADLINE, Box::pin(self.attempts(call))).await;
        let result = result.unwrap_or_else(|_| Err(Failure::Unreachable(format!("no answer within {} s", CALL_DEADLINE.as_secs()))));
        match &result {
            Err(failure) if !failure.is_answer() => self.is_down(failure),
            Ok(_) | Err(_) => self.is_up(),
        }
        result
    }

    async fn attempts<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, Rng::from_entropy());
        let mut attempts_left = 2 * self.settings.endpoints.len() + 1;
        let mut token_renewed = false;
        loop {
            let (number, failure) = match self.attempt(&call).await {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            attempts_left = attempts_left.saturating_sub(1);
            self.give_up(number, &failure);
            match &failure {
                Failure::Unreachable(_) if attempts_left > 0 => sleep(backoff.step()).await,
                Failure::Token(_) if !token_renewed => token_renewed = true,
                _ => return Err(failure),
            }
        }
    }

    async fn attempt<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let Numbered { client, number } = self.client().await?;
        match self.in_time(call(client)).await {
            Ok(result) => result.map_err(|error| (Some(number), self.at_endpoint(error.into()))),
            Err(no_answer) => Err((Some(number), self.at_endpoint(no_answer))),
        }
    }

    /// Waits for an answer as long as our patience lasts.
    pub(super) async fn in_time<T, E>(&self, answer: impl Future<Output = Result<T, E>>) -> Result<Result<T, E>, Failure> {
        let asked = Instant::now();
        let answer = self.within_patience(answer).await?;
        if answer.is_ok() {
            *self.patience() = Patience { now: (asked.elapsed() * 3).clamp(FIRST_PATIENCE, LONGEST_PATIENCE), exceeded: 0 };
        }
        Ok(answer)
    }

    /// The same, where an answer says nothing of how long others take.
    async fn within_patience<T>(&self, answer: impl Future<Output = T>) -> Result<T, Failure> {
        let patience = self.patience().now;
        if let Ok(answer) = timeout(patience, answer).await {
            return Ok(answer);
        }
        let failure = Failure::Unreachable(format!("no answer within {} s", patience.as_secs()));
        let mut ours = self.patience();
        ours.exceeded += 1;
        // Several calls may have waited side by side: only one of them counts.
        if ours.exceeded >= self.settings.endpoints.len() && ours.now <= patience {
            *ours = Patience { now: (patience * 2).min(LONGEST_PATIENCE), exceeded: 0 };
            self.is_down(&failure);
        }
        Err(failure)
    }

    fn patience(&self) -> std::sync::MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection in use, or a new one.
    pub(super) async fn client(&self) -> Result<Numbered, Failed> {
        let (number, without_login) = {
            let slot = self.slot();
            if let Some(client) = &slot.client {
                return Ok(Numbered { client: client.clone(), number: slot.number });
            }
            (slot.number, slot.without_login)
        };
        let connecting = Client::connect([self.endpoint()], Some(self.settings.connect_options(!without_login, self.patience().now)));
        let client = match self.within_patience(connecting).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => match Failure::from(error) {
                // As etcd's own clients do: the user is no use to this server, and no harm.
                Failure::NoUsers if !without_login => {
                    self.slot().without_login = true;
                    return Err((Some(number), Failure::Token("the server has no users".to_owned())));
                }
                // A login that ran into a dead server, as far as one can know.
                failure => return Err((Some(number), self.at_endpoint(failure))),
            },
            Err(no_answer) => return Err((Some(number), self.at_endpoint(no_answer))),
        };
        let mut slot = self.slot();
        if slot.number == number && slot.client.is_none() {
            slot.client = Some(client.clone());
        }
        Ok(Numbered { client, number })
    }

    /// Lets go of the connection with this number: the next one goes to the next endpoint, or logs in anew at the same.
    pub(super) fn give_up(&self, number: Option<u64>, failure: &Failure) {
        let elsewhere = match failure {
            Failure::Unreachable(_) => true,
            Failure::Token(_) => false,
            Failure::NoUsers | Failure::Compacted | Failure::LeaseGone | Failure::Denied(_) | Failure::Protocol(_) => return,
        };
        let mut slot = self.slot();
        if number == Some(slot.number) {
            debug!(%failure, "connection to etcd given up");
            slot.client = None;
            slot.number += 1;
            slot.endpoint = (slot.endpoint + usize::from(elsewhere)) % self.settings.endpoints.len().max(1);
            // Whether there are users is asked again elsewhere.
            slot.without_login &= !elsewhere;
        }
    }

    /// Lets go of the connection, which may be none any more without anybody knowing: the next call opens another.
    pub(super) fn let_go(&self) {
        let mut slot = self.slot();
        if slot.client.take().is_some() {
            slot.number += 1;
        }
    }

    pub(super) fn is_up(&self) {
        if health::up(&self.health) {
            info!(endpoint = self.endpoint(), "etcd answers");
        }
    }

    pub(super) fn is_down(&self, failure: &Failure) {
        if health::down(&self.health, failure, false) {
            warn!(reason = %failure, "etcd does not answer; it is tried again until it does");
        }
    }

    fn endpoint(&self) -> String {
        let at = self.slot().endpoint;
        self.settings.endpoints.get(at).cloned().unwrap_or_default()
    }

    fn at_endpoint(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Unreachable(text) => Failure::Unreachable(format!("{}: {text}", self.endpoint())),
            other => other,
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        // It is whole between any two statements, whoever panicked.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

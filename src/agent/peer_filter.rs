//! The peer filter beside the data plane: put up where it is asked for, taken down where it is not, kept in step with the peers.
//!
//! That nf_tables cannot be spoken to stops nothing else; it makes the host not ready, since it was asked for.

use std::time::{Duration, Instant};

use lease::Family;
use overlay::{Changer, Filter, FilterSpec, Kernel, KernelError, Reconciler, State};

use crate::metrics::Metrics;
use crate::status;

/// After an error: until it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Repairs are told no more often than this.
const TELL: Duration = Duration::from_secs(1);

/// The filter, or nothing.
pub(super) struct PeerFilter {
    spec: Option<FilterSpec>,
    filter: Option<Filter>,
    trouble: Option<String>,
    not_before: Option<Instant>,
    said: Option<String>,
    untold: u64,
    tell_after: Option<Instant>,
}

impl PeerFilter {
    /// For the reconciler's VTEP. Where no filter is wanted, one that an agent left is taken away.
    pub(super) async fn new<K: Kernel>(wanted: bool, reconciler: &Reconciler<K>) -> Self {
        let spec = reconciler.desired().vtep().map(|vtep| FilterSpec {
            device: vtep.name.clone(),
            family: Family::of(vtep.local),
            vni: vtep.vni,
            port: vtep.port,
            subnet_len: reconciler.peers().local().subnet_len,
        });
        let mut filter = Self { spec, filter: None, trouble: None, not_before: None, said: None, untold: 0, tell_after: None };
        if !wanted && let Some(spec) = filter.spec.take() {
            match overlay::remove_filter(&spec.device).await {
                Ok(true) => tracing::info!(table = overlay::table_name(&spec.device), "filter table of an earlier run removed"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "it cannot be told whether an earlier run left a filter table"),
            }
        }
        filter
    }

    /// Brings the table in step with the peers, those that the reconciler has not acted on yet among them.
    pub(super) async fn step<K: Kernel>(&mut self, reconciler: &mut Reconciler<K>, metrics: &Metrics) {
        let now = Instant::now();
        if self.spec.is_none() || self.not_before.is_some_and(|not_before| not_before > now) {
            return;
        }
        let done = self.try_step(reconciler, now).await;
        self.not_before = done.is_err().then(|| now + PAUSE);
        if done.is_err() {
            self.filter = None;
        }
        self.trouble = done.err().map(|error| error.to_string()).or_else(|| self.filter.as_ref()?.trouble());
        if let Some(trouble) = self.trouble.as_ref().filter(|trouble| self.said.as_ref() != Some(trouble)) {
            tracing::error!(error = trouble, "peers are not filtered as they should be");
        }
        self.said.clone_from(&self.trouble);
        let (heals, who) = self.filter.as_mut().map(Filter::take_heals).unwrap_or_default();
        metrics.healed("filter", heals);
        self.untold += heals;
        if self.untold > 0 && self.tell_after.is_none_or(|after| after <= now) {
            let who = who.map_or_else(|| "somebody".to_owned(), |Changer { pid, name }| format!("{name}, process {pid} of the machine"));
            tracing::warn!(heals = self.untold, who, "filter table was changed: put right");
            (self.untold, self.tell_after) = (0, Some(now + TELL));
        }
    }

    async fn try_step<K: Kernel>(&mut self, reconciler: &mut Reconciler<K>, now: Instant) -> Result<(), KernelError> {
        let changed = reconciler.take_changed_peers();
        let filter = match (&mut self.filter, &self.spec) {
            (Some(filter), _) => {
                filter.peers_changed(reconciler.desired(), changed);
                filter
            }
            (empty @ None, Some(spec)) => empty.insert(Filter::open(spec.clone(), reconciler.desired())?),
            (None, None) => return Ok(()),
        };
        let stood = filter.in_step();
        filter.step(reconciler.peers().is_complete(), now).await?;
        if !stood && filter.in_step() {
            tracing::debug!(table = filter.table(), "filter table in step");
        }
        Ok(())
    }

    /// Waits until somebody has changed the table; for ever without a filter. Cancel safe.
    pub(super) async fn listen(&mut self) {
        let Some(filter) = &mut self.filter else { return std::future::pending().await };
        if let Err(error) = filter.listen().await {
            self.trouble = Some(error.to_string());
            self.not_before = Some(Instant::now() + PAUSE);
            self.filter = None;
        }
    }

    /// When [`step`](Self::step) is due though nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let work = match &self.filter {
            Some(filter) => filter.next_due(),
            None => self.not_before.filter(|_| self.spec.is_some()),
        };
        work.into_iter().chain(self.tell_after.filter(|_| self.untold > 0)).min()
    }

    /// What a look at the whole table costs.
    pub(super) fn look_cost(&self) -> Duration {
        self.filter.as_ref().map(Filter::look_cost).unwrap_or_default()
    }

    /// Asks for a look at the whole table.
    pub(super) fn audit(&mut self) {
        if let Some(filter) = &mut self.filter {
            filter.audit();
        }
    }

    /// How things stand, the filter among them.
    pub(super) fn judge(&self, state: State) -> State {
        match (&self.trouble, &self.filter) {
            (Some(trouble), _) if state == State::InStep => State::Troubled(1, trouble.clone()),
            (None, Some(filter)) if state == State::InStep && !filter.stands() => State::Converging(1),
            _ => state,
        }
    }

    /// What there is to say of it.
    pub(super) async fn view(&mut self) -> Option<status::Filter> {
        let spec = self.spec.as_ref()?;
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let table = spec.table();
        let (there, wanted) = self.filter.as_ref().map(Filter::elements).unwrap_or_default();
        let dropped = match &mut self.filter {
            Some(filter) => filter.dropped().await.ok(),
            None => None,
        };
        let in_step = self.trouble.is_none() && self.filter.as_ref().is_some_and(Filter::in_step);
        Some(status::Filter { table, in_step, trouble: self.trouble.clone(), elements: count(there), wanted: count(wanted), dropped })
    }
}

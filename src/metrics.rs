//! What is counted and measured, and its text for a scraper (OpenMetrics 1.0).
//!
//! Handles are shared between the agent's threads; every method is cheap and takes no lock that is held for long.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lease::Family as AddressFamily;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

use crate::status::Count;

/// When the lease ends if nobody renews it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// There is no lease: 0 seconds remain.
    None,
    /// Never, it is a reservation: infinitely many remain.
    Never,
    /// Then.
    At(Instant),
}

/// How one family's data plane stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlaneGauges {
    /// Other hosts whose leases are in force.
    pub peers: usize,
    /// Lease records that are not used.
    pub rejected: usize,
    /// Keys that name no subnet.
    pub stray: usize,
    /// Peers that the store suddenly lacks and that are kept for now.
    pub held: usize,
    /// Entries that the kernel should hold.
    pub desired: Count,
    /// Entries of ours that the kernel holds.
    pub observed: Count,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// All metrics. Their names, with the prefix `loden_`, are a promise to dashboards.
pub struct Metrics {
    registry: Registry,
    peers: Gauge,
    desired: Family<KindLabel, Gauge>,
    observed: Family<KindLabel, Gauge>,
    heals: Family<KindLabel, Counter>,
    failures: Family<KindLabel, Counter>,
    batches: Counter,
    plan: Histogram,
    apply: Histogram,
    store_up: Gauge,
    store: Family<KindLabel, Gauge>,
    lease_remaining: Gauge<f64, AtomicU64>,
    lease_end: Mutex<LeaseEnd>,
    rejected: Gauge,
    stray: Gauge,
    held: Gauge,
    stale: Gauge,
    /// IPv4 and IPv6.
    planes: Mutex<(PlaneGauges, PlaneGauges)>,
}

/// From 10 µs, one entry's plan, to 20 s, far beyond the plan for 50 000 peers: 22 buckets, each twice the one before.
fn buckets() -> impl Iterator<Item = f64> {
    exponential_buckets(10e-6, 2.0, 22)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("loden");
        let (peers, rejected, stray, store_up) = (Gauge::default(), Gauge::default(), Gauge::default(), Gauge::default());
        let (held, stale) = (Gauge::default(), Gauge::default());
        let (desired, observed) = (Family::default(), Family::default());
        let (heals, failures, batches) = (Family::default(), Family::default(), Counter::default());
        let (plan, apply) = (Histogram::new(buckets()), Histogram::new(buckets()));
        let lease_remaining = Gauge::default();
        registry.register("peers", "Other hosts whose leases are in force", peers.clone());
        registry.register("entries_desired", "Entries that the kernel should hold", desired.clone());
        registry.register("entries_observed", "Entries of ours that the kernel holds", observed.clone());
        registry.register("heals", "Repairs of what somebody else had removed or changed", heals.clone());
        registry.register("failures", "Operations that the kernel refused and that are tried again", failures.clone());
        registry.register("batches", "Batches of operations sent to the kernel", batches.clone());
        registry.register_with_unit("plan_duration", "Time to make a plan", Unit::Seconds, plan.clone());
        registry.register_with_unit("apply_duration", "Time to apply a plan", Unit::Seconds, apply.clone());
        let store = Family::default();
        registry.register("store_info", "Which store it is: etcd or kubernetes", store.clone());
        registry.register("store_up", "Whether the store answers (1) or not (0)", store_up.clone());
        let remaining = "Time until the lease ends if it is not renewed; +Inf for a reservation";
        registry.register_with_unit("lease_remaining", remaining, Unit::Seconds, lease_remaining.clone());
        registry.register("rejected_records", "Lease records that are not used because something is wrong with them", rejected.clone());
        registry.register("stray_keys", "Keys beside the leases that name no subnet", stray.clone());
        registry.register("held_removals", "Peers that the store suddenly lacks and that are kept for now", held.clone());
        registry.register(
            "stale",
            "Whether the agent goes on from its last state on disk, because the store has not answered (1)",
            stale.clone(),
        );
        registry.register("build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        // A counter that is not there before its first event hides that event from whoever watches its rate.
        for kind in ["device", "fdb", "filter", "forwarding", "neighbour", "packet_filter", "route", "rule", "subnet_file"] {
            for counter in [&heals, &failures] {
                let _: &Family<KindLabel, Counter> = counter;
                drop(counter.get_or_create(&KindLabel { kind }));
            }
        }
        Self {
            registry,
            peers,
            desired,
            observed,
            heals,
            failures,
            batches,
            plan,
            apply,
            store_up,
            store,
            lease_remaining,
            lease_end: Mutex::new(LeaseEnd::None),
            rejected,
            stray,
            held,
            stale,
            planes: Mutex::default(),
        }
    }

    /// How one family's data plane stands now. Entries of both families are counted together; of hosts, keys and records, which the
    /// families mostly share, the larger number counts.
    pub fn set_plane(&self, family: AddressFamily, now: PlaneGauges) {
        let mut planes = self.planes.lock().unwrap_or_else(PoisonError::into_inner);
        let (v4, v6) = &mut *planes;
        *family.pick(&mut *v4, &mut *v6) = now;
        let most = |of: fn(&PlaneGauges) -> usize| whole(of(v4).max(of(v6)));
        self.peers.set(most(|plane| plane.peers));
        self.rejected.set(most(|plane| plane.rejected));
        self.stray.set(most(|plane| plane.stray));
        self.held.set(most(|plane| plane.held));
        for (gauges, v4, v6) in [(&self.desired, v4.desired, v6.desired), (&self.observed, v4.observed, v6.observed)] {
            for (kind, count) in [("neighbour", v4.neighbours + v6.neighbours), ("fdb", v4.fdb + v6.fdb), ("route", v4.routes + v6.routes)]
            {
                gauges.get_or_create(&KindLabel { kind }).set(whole(count));
            }
        }
    }

    /// So many things that somebody had undone were put right.
    pub fn healed(&self, kind: &'static str, count: u64) {
        self.heals.get_or_create(&KindLabel { kind }).inc_by(count);
    }

    /// The kernel refused so many operations.
    pub fn failed(&self, kind: &'static str, count: u64) {
        self.failures.get_or_create(&KindLabel { kind }).inc_by(count);
    }

    /// So many batches went to the kernel.
    pub fn sent_batches(&self, count: u64) {
        self.batches.inc_by(count);
    }

    /// A plan took so long to make.
    pub fn planned(&self, took: Duration) {
        self.plan.observe(took.as_secs_f64());
    }

    /// A plan took so long to apply.
    pub fn applied(&self, took: Duration) {
        self.apply.observe(took.as_secs_f64());
    }

    /// Which store it is.
    pub fn set_store(&self, kind: &'static str) {
        self.store.get_or_create(&KindLabel { kind }).set(1);
    }

    /// Whether the store answers.
    pub fn set_store_up(&self, up: bool) {
        self.store_up.set(i64::from(up));
    }

    /// When the lease ends. What remains is worked out at each scrape.
    pub fn set_lease_end(&self, end: LeaseEnd) {
        *self.lease_end.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    /// Whether the agent goes on from its last state on disk.
    pub fn set_stale(&self, stale: bool) {
        self.stale.set(i64::from(stale));
    }

    /// All of them as OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        let end = *self.lease_end.lock().unwrap_or_else(PoisonError::into_inner);
        self.lease_remaining.set(match end {
            LeaseEnd::None => 0.0,
            LeaseEnd::Never => f64::INFINITY,
            LeaseEnd::At(end) => end.saturating_duration_since(Instant::now()).as_secs_f64(),
        });
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn whole(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_metric_by_its_promised_name() {
        let metrics = Metrics::new();
        let count = |neighbours, routes| Count { neighbours, fdb: 0, routes };
        let plane = PlaneGauges { peers: 3, rejected: 1, stray: 2, desired: count(2, 0), observed: count(0, 2), ..PlaneGauges::default() };
        metrics.set_plane(AddressFamily::V4, plane);
        metrics.set_plane(AddressFamily::V6, PlaneGauges { desired: count(1, 0), ..PlaneGauges::default() });
        metrics.healed("route", 1);
        metrics.failed("fdb", 1);
        metrics.sent_batches(4);
        metrics.planned(Duration::from_micros(15));
        metrics.applied(Duration::from_millis(1));
        metrics.set_store_up(true);
        metrics.set_store("etcd");
        let text = metrics.render();
        for line in [
            "loden_peers 3",
            "loden_entries_desired{kind=\"neighbour\"} 3",
            "loden_entries_observed{kind=\"route\"} 2",
            "loden_heals_total{kind=\"route\"} 1",
            "loden_failures_total{kind=\"fdb\"} 1",
            "loden_batches_total 4",
            "loden_plan_duration_seconds_count 1",
            "loden_plan_duration_seconds_bucket{le=\"0.00002\"} 1",
            "loden_apply_duration_seconds_sum 0.001",
            "loden_store_up 1",
            "loden_store_info{kind=\"etcd\"} 1",
            "loden_lease_remaining_seconds 0.0",
            "loden_rejected_records 1",
            "loden_stray_keys 2",
            concat!("loden_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "{line:?} is not in:\n{text}");
        }
    }

    #[test]
    fn the_lease_runs_down_and_a_reservation_never_does() {
        let metrics = Metrics::new();
        let remaining = || {
            let text = metrics.render();
            let line = text.lines().find_map(|line| line.strip_prefix("loden_lease_remaining_seconds ")).unwrap();
            line.parse::<f64>().unwrap()
        };
        metrics.set_lease_end(LeaseEnd::At(Instant::now() + Duration::from_secs(100)));
        let first = remaining();
        assert!(first <= 100.0 && remaining() < first && first > 90.0, "{first}");
        metrics.set_lease_end(LeaseEnd::Never);
        assert!(remaining().is_infinite());
    }
}

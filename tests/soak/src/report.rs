//! What a family has tried, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use testkit::StreamReport;

/// What came of one kind of fault.
#[derive(Debug, Clone, Default)]
struct Row {
    tried: u32,
    repaired: u32,
    times: Vec<Duration>,
}

/// A condition that has to hold.
#[derive(Debug, Clone)]
pub struct Gate {
    /// What is wanted, as a sentence.
    pub wanted: String,
    /// What was measured, as text.
    pub measured: String,
    /// Whether it is as wanted.
    pub holds: bool,
}

/// A family's result: faults, packets, gates.
#[derive(Debug, Clone, Default)]
pub struct Report {
    rows: BTreeMap<String, Row>,
    sent: u64,
    lost: u64,
    gates: Vec<Gate>,
}

impl Report {
    /// A fault was made: how long until it was put right, or that it was not.
    pub fn fault(&mut self, what: &str, repaired: Option<Duration>) {
        let row = self.rows.entry(what.to_owned()).or_default();
        row.tried += 1;
        if let Some(took) = repaired {
            row.repaired += 1;
            row.times.push(took);
        }
    }

    /// A stream that ran meanwhile.
    pub fn stream(&mut self, stream: &StreamReport) {
        self.sent += stream.sent;
        self.lost += stream.lost;
    }

    /// Something that has to hold.
    pub fn gate(&mut self, wanted: impl Into<String>, holds: bool, measured: impl fmt::Display) {
        self.gates.push(Gate { wanted: wanted.into(), measured: measured.to_string(), holds });
    }

    /// The gate that each fault of these kinds was repaired, within this time in 99 of 100 cases.
    pub fn gate_p99(&mut self, kinds: &[&str], limit: Duration) {
        for kind in kinds {
            let p99 = self.rows.get(*kind).and_then(|row| percentile(&row.times, 99));
            let measured = p99.map_or_else(|| "nothing was repaired".to_owned(), |p99| format!("{p99:.1?}"));
            self.gate(format!("{kind}: repaired within {limit:?} (p99)"), p99.is_some_and(|p99| p99 <= limit), measured);
        }
    }

    /// The slowest repair of this kind; none where there was none.
    #[must_use]
    pub fn slowest(&self, kind: &str) -> Option<Duration> {
        self.rows.get(kind).and_then(|row| row.times.iter().max().copied())
    }

    /// What does not hold, every fault that was not repaired among it.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let unrepaired = self.rows.iter().filter(|(_, row)| row.repaired < row.tried);
        let unrepaired = unrepaired.map(|(what, row)| format!("{what}: {} of {} repaired", row.repaired, row.tried));
        let gates = self.gates.iter().filter(|gate| !gate.holds).map(|gate| format!("{}: {}", gate.wanted, gate.measured));
        unrepaired.chain(gates).collect()
    }

    /// How many conditions and faults there were: a family that tried nothing has shown nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.gates.is_empty()
    }
}

/// The time that this many percent of them do not exceed.
fn percentile(times: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), |time| format!("{:.2} ms", time.as_secs_f64() * 1e3));
        if !self.rows.is_empty() {
            writeln!(out, "  {:<52} {:>6} {:>9} {:>12} {:>12} {:>12}", "fault", "tried", "repaired", "p50", "p99", "max")?;
        }
        for (what, Row { tried, repaired, times }) in &self.rows {
            let [p50, p99, max] = [50, 99, 100].map(|percent| shown(percentile(times, percent)));
            writeln!(out, "  {what:<52} {tried:>6} {repaired:>9} {p50:>12} {p99:>12} {max:>12}")?;
        }
        if self.sent > 0 {
            writeln!(out, "  packets: {} sent, {} lost", self.sent, self.lost)?;
        }
        for Gate { wanted, measured, holds } in &self.gates {
            writeln!(out, "  {} {wanted}: {measured}", if *holds { "ok    " } else { "FAILED" })?;
        }
        Ok(())
    }
}

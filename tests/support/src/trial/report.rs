//! What a case has found out.

use std::fmt;

/// A condition that loden has to fulfil.
#[derive(Debug, Clone)]
pub struct Gate {
    /// What is wanted, as a sentence.
    pub wanted: String,
    /// What was seen.
    pub seen: String,
    /// Whether it is as wanted.
    pub holds: bool,
}

/// What each did under the same fault.
#[derive(Debug, Clone)]
pub struct Compared {
    /// The fault.
    pub what: String,
    /// What flanneld did.
    pub flanneld: String,
    /// What loden did.
    pub loden: String,
}

/// A case's result.
#[derive(Debug, Clone, Default)]
pub struct Report {
    gates: Vec<Gate>,
    compared: Vec<Compared>,
    noted: Vec<(String, String)>,
}

impl Report {
    /// Something that has to hold.
    pub fn gate(&mut self, wanted: impl Into<String>, holds: bool, seen: impl fmt::Display) {
        // What ping says has several lines.
        let seen = seen.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        self.gates.push(Gate { wanted: wanted.into(), seen, holds });
    }

    /// What flanneld and loden did. It is for a gate to say what loden has to do.
    pub fn compare(&mut self, what: impl Into<String>, flanneld: impl fmt::Display, loden: impl fmt::Display) {
        self.compared.push(Compared { what: what.into(), flanneld: flanneld.to_string(), loden: loden.to_string() });
    }

    /// A figure that nothing hangs on.
    pub fn note(&mut self, what: impl Into<String>, seen: impl fmt::Display) {
        self.noted.push((what.into(), seen.to_string()));
    }

    /// The gates that do not hold.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.gates.iter().filter(|gate| !gate.holds).map(|gate| format!("{}: {}", gate.wanted, gate.seen)).collect()
    }

    /// Whether nothing was asked for: a case that asks for nothing has shown nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gates.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Gate { wanted, seen, holds } in &self.gates {
            writeln!(out, "    {} {wanted}: {seen}", if *holds { "ok    " } else { "FAILED" })?;
        }
        for (what, seen) in &self.noted {
            writeln!(out, "           {what}: {seen}")?;
        }
        for Compared { what, flanneld, loden } in &self.compared {
            writeln!(out, "    {what}\n      flanneld  {flanneld}\n      loden     {loden}")?;
        }
        Ok(())
    }
}

//! Programs that try something beside real peers and say what came of it: `make interop`, `make docker-test`, `make kube-test`.
//!
//! A [`Family`] is a list of [`Case`]s on one stage: what its cases share, built before the first of them and taken down after the last.
//! A case fills a [`Report`]; the program ends well only when all gates hold.

mod report;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

pub use report::{Compared, Gate, Report};

/// One thing that is tried.
#[derive(Debug)]
pub struct Case<Stage> {
    /// A sentence: the function's name.
    pub name: &'static str,
    /// Tries it.
    pub run: fn(&mut Stage, &mut Report) -> Result<()>,
}

/// Cases that belong together.
#[derive(Debug)]
pub struct Family<Stage: 'static> {
    /// Its name, as `FAMILY=name` takes it.
    pub name: &'static str,
    /// Builds what the cases share.
    pub stage: fn() -> Result<Stage>,
    /// What is tried, in this order.
    pub cases: &'static [Case<Stage>],
}

/// Cases under the names of their functions.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        &[$($crate::trial::Case { name: stringify!($name), run: |stage, report| $name(stage, report) }),*]
    };
}

/// Runs the family that is called `only`, or else the cases that have it in their names; says what came of each.
///
/// # Errors
/// When there are none, and when nothing can be written.
pub fn run<Stage>(families: &[Family<Stage>], only: &str) -> Result<ExitCode> {
    let (mut ran, mut failures, begin) = (0, Vec::new(), Instant::now());
    let is_family = families.iter().any(|family| family.name == only);
    for family in families {
        let is_wanted = |case: &&Case<Stage>| if is_family { family.name == only } else { case.name.contains(only) };
        let wanted: Vec<_> = family.cases.iter().filter(is_wanted).collect();
        if wanted.is_empty() {
            continue;
        }
        ran += wanted.len();
        failures.extend(family.run(&wanted)?.into_iter().map(|failure| format!("{}: {failure}", family.name)));
    }
    if ran == 0 {
        bail!("no family or case is called {only}");
    }
    let mut out = stdout();
    writeln!(out)?;
    for failure in &failures {
        writeln!(out, "FAILED {failure}")?;
    }
    let verdict = if failures.is_empty() { "all gates hold" } else { "not all gates hold" };
    writeln!(out, "{ran} cases in {:.0} s: {verdict}", begin.elapsed().as_secs_f64())?;
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl<Stage> Family<Stage> {
    /// What failed.
    fn run(&self, cases: &[&Case<Stage>]) -> Result<Vec<String>> {
        let (mut out, start) = (stdout(), Instant::now());
        let mut stage = match (self.stage)() {
            Ok(stage) => stage,
            Err(error) => return Ok(vec![format!("its stage: {error:#}")]),
        };
        writeln!(out, "{} (set up in {:.1} s)", self.name, start.elapsed().as_secs_f64())?;
        let mut failures = Vec::new();
        for case in cases {
            let (start, mut report) = (Instant::now(), Report::default());
            let outcome = (case.run)(&mut stage, &mut report);
            write!(out, "  {} ({:.1} s)\n{report}", case.name, start.elapsed().as_secs_f64())?;
            let mut amiss = report.failures();
            match outcome {
                Ok(()) if report.is_empty() => amiss.push("nothing was asked for".to_owned()),
                Ok(()) => {}
                Err(error) => amiss.push(format!("{error:#}")),
            }
            failures.extend(amiss.into_iter().map(|failure| format!("{}: {failure}", case.name)));
        }
        Ok(failures)
    }
}

//! `make interop` and `make docker-test`: all cases beside a real peer, what came of them, and an exit code of 0 only when all
//! gates hold.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use interop::{Agents, DOCKER, FLANNELD, Report};

const USAGE: &str = "usage: interop flanneld|docker [FAMILY or a part of a case's name]";

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let (families, agents) = match args.next().context(USAGE)?.as_str() {
        "flanneld" => (FLANNELD, Agents::with_flanneld()?),
        "docker" => (DOCKER, Agents::without_flanneld()),
        _ => bail!(USAGE),
    };
    let only = args.next().unwrap_or_default();
    if std::env::var_os("LODEN_LOGS").is_none() {
        testkit::quiet();
    }
    let mut out = std::io::stdout();
    let (mut ran, mut failures, begin) = (0, Vec::new(), Instant::now());
    for family in families {
        let wanted: Vec<_> = family.cases.iter().filter(|case| family.name == only || case.name.contains(&only)).collect();
        if !wanted.is_empty() {
            writeln!(out, "{}", family.name)?;
        }
        for case in wanted {
            ran += 1;
            let (start, mut report) = (Instant::now(), Report::default());
            let outcome = (case.run)(&agents, &mut report);
            write!(out, "  {} ({:.1} s)\n{report}", case.name, start.elapsed().as_secs_f64())?;
            let mut amiss = report.failures();
            match outcome {
                Ok(()) if report.is_empty() => amiss.push("nothing was asked for".to_owned()),
                Ok(()) => {}
                Err(error) => amiss.push(format!("{error:#}")),
            }
            failures.extend(amiss.into_iter().map(|failure| format!("{}: {}: {failure}", family.name, case.name)));
        }
    }
    if ran == 0 {
        bail!("no family or case is called {only}");
    }
    writeln!(out)?;
    for failure in &failures {
        writeln!(out, "FAILED {failure}")?;
    }
    let verdict = if failures.is_empty() { "all gates hold" } else { "not all gates hold" };
    writeln!(out, "{ran} cases in {:.0} s: {verdict}", begin.elapsed().as_secs_f64())?;
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

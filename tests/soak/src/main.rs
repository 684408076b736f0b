//! `make soak`: all families of faults, a table of what came of them, and an exit code of 0 only when all gates hold.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use soak::{Budget, FAMILIES};

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let budget = args.next().filter(|text| !text.is_empty()).map_or(Ok(Budget::FULL), |text| time(&text).map(Budget::of))?;
    let only = args.next().filter(|name| !name.is_empty());
    if let Some(name) = &only
        && FAMILIES.iter().all(|family| family.name != name)
    {
        let names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        bail!("there is no family {name}: {} are", names.join(", "));
    }
    testkit::quiet();
    let mut out = std::io::stdout();
    let mut failures = Vec::new();
    for family in FAMILIES.iter().filter(|family| only.as_deref().is_none_or(|name| name == family.name)) {
        writeln!(out, "{}", family.name)?;
        let start = Instant::now();
        match (family.run)(budget) {
            Ok(report) => {
                write!(out, "{report}")?;
                failures.extend(report.failures().into_iter().map(|failure| format!("{}: {failure}", family.name)));
            }
            Err(error) => failures.push(format!("{}: {error:#}", family.name)),
        }
        writeln!(out, "  {:.0} s\n", start.elapsed().as_secs_f64())?;
    }
    for failure in &failures {
        writeln!(out, "FAILED {failure}")?;
    }
    if failures.is_empty() {
        writeln!(out, "all gates hold")?;
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A time such as `90s`, `5m` or `1h`.
fn time(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => bail!("SOAK={text}: a time is a number with s, m or h, such as 10m"),
    };
    let number: u64 = number.parse().with_context(|| format!("SOAK={text}: a time is a number with s, m or h, such as 10m"))?;
    Ok(Duration::from_secs(number * seconds))
}

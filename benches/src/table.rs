//! How the figures are shown: one table that reads well in a terminal and as Markdown.

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::figures::Figures;
use crate::live::Spread;

/// The size at which something is wanted.
const WANTED_AT: u32 = 20_000;

/// One line of the table.
struct Row {
    name: &'static str,
    /// What there is to show, for each size.
    cells: Vec<String>,
    /// What is wanted, and whether it is reached.
    wanted: Option<(&'static str, Option<bool>)>,
    /// flanneld's figure at that size.
    flanneld: &'static str,
}

/// What the figures were taken on.
pub(crate) fn machine() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let etcd = Command::new("etcd").arg("--version").output().context("cannot run etcd")?;
    let etcd = String::from_utf8_lossy(&etcd.stdout).lines().next().unwrap_or_default().replace("etcd Version: ", "");
    let cores = thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    Ok(format!("Linux {}, {cores} cores, load {load} before the run, etcd {etcd} with its data in memory", kernel.trim()))
}

/// The table.
pub(crate) fn render(all: &[Figures]) -> String {
    let rows = rows(all);
    let mut table: Vec<Vec<String>> = Vec::new();
    let sizes = all.iter().map(|figures| grouped(figures.leases));
    table.push(
        [" leases".to_owned()].into_iter().chain(sizes).chain(["wanted at 20 000".to_owned(), "flanneld, 20 000 ¹".to_owned()]).collect(),
    );
    for Row { name, cells, wanted, flanneld } in rows {
        let wanted = match wanted {
            None => String::new(),
            Some((wanted, None)) => wanted.to_owned(),
            Some((wanted, Some(true))) => format!("{wanted}: reached"),
            Some((wanted, Some(false))) => format!("{wanted}: missed"),
        };
        table.push([name.to_owned()].into_iter().chain(cells).chain([wanted, flanneld.to_owned()]).collect());
    }
    aligned(&table) + "\n¹ v0.28.9, measured elsewhere with `-ip-masq`, on a like machine (2 cores, Linux 6.18); not part of this run.\n"
}

fn rows(all: &[Figures]) -> Vec<Row> {
    let each = |cell: &dyn Fn(&Figures) -> String| all.iter().map(cell).collect::<Vec<_>>();
    let reached = |holds: &dyn Fn(&Figures) -> bool| all.iter().find(|figures| figures.leases == WANTED_AT).map(holds);
    let row = |name, cells, flanneld| Row { name, cells, wanted: None, flanneld };
    let pair = |spread: &Spread| format!("{} / {}", time(spread.percentile(50)), time(spread.percentile(99)));
    let heal = |name, nth: usize| Row {
        name,
        cells: each(&|figures| {
            let spread = figures.heals.get(nth).cloned().unwrap_or_default();
            format!("{} / {}", pair(&spread), time(spread.max()))
        }),
        wanted: Some((
            "p99 ≤ 1 ms",
            reached(&|figures| figures.heals.get(nth).is_some_and(|spread| spread.percentile(99) <= Duration::from_millis(1))),
        )),
        flanneld: "never",
    };
    vec![
        Row {
            name: "start → all entries, median",
            cells: each(&|figures| time(figures.start().all)),
            wanted: Some(("≤ 0.6 s", reached(&|figures| figures.start().all <= Duration::from_millis(600)))),
            flanneld: "17 s",
        },
        row("… of several, the best", each(&|figures| figures.starts.first().map_or_else(String::new, |best| time(best.all))), ""),
        row("… its CPU", each(&|figures| time(figures.start().cpu)), "11.6 s"),
        row("raw netlink, same entries", each(&|figures| time(figures.raw)), ""),
        row("… start / raw", each(&|figures| format!("{:.1}", figures.start().all.as_secs_f64() / figures.raw.as_secs_f64())), ""),
        row("… routes without metric", each(&|figures| figures.raw_plain.map_or_else(|| "–".to_owned(), time)), ""),
        row("etcd's list alone, paged", each(&|figures| time(figures.list)), ""),
        row("killed, restarted → ready", each(&|figures| time(figures.adopt)), ""),
        row("put alone, p50 / p99", each(&|figures| pair(&figures.puts.put)), "3.9 ms"),
        row("put → route, p50 / p99", each(&|figures| pair(&figures.puts.route)), "6.8 / 14.5 ms"),
        Row {
            name: "… over the put, p50 / p99",
            cells: each(&|figures| pair(&figures.puts.over)),
            wanted: Some(("p50 ≤ 1 ms", reached(&|figures| figures.puts.over.percentile(50) <= Duration::from_millis(1)))),
            flanneld: "2.9 ms",
        },
        heal("route restored, p50 / p99 / max", 0),
        heal("neighbour restored", 1),
        heal("FDB entry restored", 2),
        Row {
            name: "resident, after the start / the end",
            cells: each(&|figures| figures.memory.map(|memory| mb(memory.now_kib)).join(" / ")),
            wanted: Some(("≤ 20 MB", reached(&|figures| figures.memory.iter().all(|memory| memory.now_kib * 1024 <= 20_000_000)))),
            flanneld: "59 MB",
        },
        row("… of it the program's text", each(&|figures| figures.memory.map(|memory| mb(memory.file_kib)).join(" / ")), ""),
        row("… at its highest", each(&|figures| figures.memory.map(|memory| mb(memory.peak_kib)).join(" / ")), ""),
        Row {
            name: "idle CPU",
            cells: each(&|figures| format!("{:.4} %", figures.idle_percent())),
            wanted: Some(("≤ 0.02 %", reached(&|figures| figures.idle_percent() <= 0.02))),
            flanneld: "0.6 %",
        },
        row(
            "… wakeups a minute",
            each(&|figures| {
                format!("{:.0}", f64::from(u32::try_from(figures.idle.wakeups).unwrap_or(u32::MAX)) * 60.0 / figures.idle_for.as_secs_f64())
            }),
            "",
        ),
    ]
}

/// Three digits at most.
fn time(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        ..0.995 => format!("{:.0} µs", millis * 1000.0),
        ..9.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        ..9_995.0 => format!("{:.2} s", millis / 1000.0),
        _ => format!("{:.1} s", millis / 1000.0),
    }
}

fn mb(kib: u64) -> String {
    let tenths = kib * 1024 / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

fn grouped(number: u32) -> String {
    if number < 1_000 { number.to_string() } else { format!("{} {:03}", number / 1_000, number % 1_000) }
}

pub(crate) fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (nth, row) in table.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Names stand to the left, figures to the right.
            let _ = if column == 0 { write!(text, "| {cell:width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if nth == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(*width + 1);
                text.push_str(&if column == 0 { format!("|{dashes}-") } else { format!("|{dashes}:") });
            }
            text.push_str("|\n");
        }
    }
    text
}

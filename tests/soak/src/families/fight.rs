//! A second manager that keeps undoing what the agent does: the agent backs off, says so, and everything else goes on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use testkit::world::VTEP;
use testkit::{KernelEntry, Table, Watch};

use crate::play::Play;
use crate::scene::until_right;
use crate::{Budget, Report};

/// How often the other one does it.
const EVERY: Duration = Duration::from_millis(10);

/// The longest pause of the agent's, and room.
const PEACE: Duration = Duration::from_secs(45);

/// One way of undoing.
struct Way {
    name: &'static str,
    /// What the status is to name.
    what: &'static str,
    /// The orders for `ip`, by turns.
    orders: [&'static str; 2],
    /// Whether the kernel says who does it.
    named: bool,
}

const WAYS: [Way; 3] = [
    Way {
        name: "a route deleted every 10 ms",
        what: "10.1.7.0/24",
        orders: ["route del 10.1.7.0/24 dev flannel.1", "route del 10.1.7.0/24 dev flannel.1"],
        named: true,
    },
    Way {
        name: "the MAC changed every 10 ms",
        what: "device MAC",
        orders: ["link set flannel.1 address 02:ee:00:00:00:01", "link set flannel.1 address 02:ee:00:00:00:02"],
        named: false,
    },
    Way {
        name: "the device set down every 10 ms",
        what: "device up",
        orders: ["link set flannel.1 down", "link set flannel.1 down"],
        named: false,
    },
];

/// Each way for a while.
pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut play = Play::with_peers(if budget.judges_times() { 1_000 } else { 100 })?;
    let mut report = Report::default();
    for way in &WAYS {
        fight(&mut play, way, budget, &mut report)?;
    }
    Ok(report)
}

fn fight(play: &mut Play, Way { name, what, orders, named }: &Way, budget: Budget, report: &mut Report) -> Result<()> {
    let (cpu, start) = (play.scene.one.agent.cpu()?, Instant::now());
    let time = budget.time(Duration::from_secs(15)).max(Duration::from_secs(2));
    let mut status = None;
    for nth in 0.. {
        if start.elapsed() > time {
            break;
        }
        for order in orders.iter().skip(nth % 2).take(1) {
            play.hands.ip(order)?;
        }
        if status.is_none() && start.elapsed() > time.mul_f32(0.9) {
            status = Some((play.scene.one.agent.cpu()?, start.elapsed(), play.scene.one.agent.status_json()?));
        }
        std::thread::sleep(EVERY);
    }
    let (cpu_then, elapsed, status) = status.context("no status was taken")?;
    let used = (cpu_then - cpu).as_secs_f64() / elapsed.as_secs_f64() * 100.0;
    let limit = if budget.judges_times() { 5.0 } else { 50.0 };
    report.gate(format!("{name}: at most {limit} % of a CPU"), used <= limit, format!("{used:.2} %"));
    let fights = status.get("fights").and_then(Value::as_array).cloned().unwrap_or_default();
    let ours = fights.iter().find(|fight| fight.get("what").and_then(Value::as_str).is_some_and(|text| text.contains(what)));
    report.gate(
        format!("{name}: named in the status"),
        ours.is_some(),
        format!("{} times", ours.and_then(|fight| fight.get("times")?.as_u64()).unwrap_or(0)),
    );
    let who = ours.and_then(|fight| fight.get("who")?.as_str()).unwrap_or_default();
    let right = if *named { who == format!("ip (process {})", play.hands.ip_pid()) } else { who == "unknown" };
    report.gate(format!("{name}: who does it, where the kernel says so"), right, who);
    if *named {
        others_are_mended(play, report)?;
    }
    report.fault("a fight, from its end until all is right", until_right(&play.eye, &play.right, Instant::now(), PEACE)?);
    Ok(())
}

/// What nobody fights over is repaired at once all the while.
fn others_are_mended(play: &Play, report: &mut Report) -> Result<()> {
    let watch = Watch::new(&play.scene.one.host)?;
    let routes = KernelEntry::list(&play.scene.one.host, Table::Route, VTEP)?;
    let other = routes.iter().find(|route| route.key == [10, 1, 9, 0]).context("no other route")?;
    report.fault("another route during a fight", watch.outage(other, PEACE).ok());
    Ok(())
}

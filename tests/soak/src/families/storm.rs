//! A hundred faults a second, of all kinds: when they end, all is right again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::decoys::Decoys;
use crate::play::Play;
use crate::scene::until_right;
use crate::{Budget, Report};

const A_SECOND: u32 = 100;

/// One fault in so many is one of the device, which takes a thousand entries along.
const DEVICE_IN: u32 = 100;

/// The agent may have come to take some of it for a fight; the longest wait for its turn is 30 s.
const END: Duration = Duration::from_secs(60);

/// The storm, under a stream.
pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut play = Play::with_peers(if budget.judges_times() { 1_000 } else { 100 })?;
    let decoys = Decoys::on(&play.scene.one.host)?;
    let mut report = Report::default();
    let stream = play.scene.containers[0].udp_stream(&play.scene.containers[1], Duration::from_millis(1))?;
    let (start, cpu) = (Instant::now(), play.scene.one.agent.cpu()?);
    let time = budget.time(Duration::from_secs(60));
    let mut faults = 0;
    while start.elapsed() < time {
        let harm = play.any_harm(DEVICE_IN)?;
        play.harm(harm)?;
        faults += 1;
        thread::sleep((Duration::from_secs(1) * faults / A_SECOND).saturating_sub(start.elapsed()));
    }
    let end = Instant::now();
    let used = (play.scene.one.agent.cpu()? - cpu).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    let took = until_right(&play.eye, &play.right, end, END)?;
    for _ in 0..faults {
        report.fault("in the storm, until all is right after the last", took);
    }
    let rate = f64::from(faults) / time.as_secs_f64();
    report.gate("a hundred faults a second were made", rate > 50.0, format!("{rate:.0}"));
    if took.is_none() {
        report.gate("all is right in the end", false, play.eye.look()?.differs_from(&play.right));
    }
    report.stream(&stream.finish()?);
    report.gate("the agent takes less than half a CPU", used < 50.0, format!("{used:.1} %"));
    decoys.judge(&mut report)?;
    Ok(report)
}

//! What somebody else undoes is put right: each fault by itself, in pairs, all at once.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::decoys::Decoys;
use crate::harm::{DEADLINE, DEVICE, ENTRY, Harm, OTHER};
use crate::play::Play;
use crate::{Budget, Report};

/// The limits of one fault by itself, with a thousand peers.
const ENTRY_LIMIT: Duration = Duration::from_millis(10);
const DEVICE_LIMIT: Duration = Duration::from_millis(50);
/// Where a device is deleted, with all its entries. The wish is 50 ms here too; the deletion alone takes the kernel 20 to 60 ms.
const DELETION_LIMIT: Duration = Duration::from_millis(150);

/// What is undone more than once a second for long is a fight, in which the agent waits. What hangs on the device counts as one thing, and
/// most faults of the device take it along.
const PEACE: Duration = Duration::from_millis(1_050);

/// More than the agent can have counted against a single thing here: some of it has to wait for its turn.
const TURN: Duration = Duration::from_secs(60);

/// Faults one at a time and together, under a stream.
pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut play = Play::with_peers(if budget.judges_times() { 1_000 } else { 100 })?;
    let decoys = Decoys::on(&play.scene.one.host)?;
    let mut report = Report::default();
    let stream = play.scene.containers[0].udp_stream(&play.scene.containers[1], Duration::from_millis(1))?;
    let (start, cpu) = (Instant::now(), play.scene.one.agent.cpu()?);
    for _ in 0..budget.rounds(200) {
        for harm in ENTRY {
            play.single(harm, &mut report)?;
        }
    }
    for _ in 0..budget.rounds(10) {
        for harm in DEVICE.into_iter().chain(OTHER) {
            play.single(harm, &mut report)?;
            pause(budget);
        }
    }
    for _ in 0..budget.rounds(20) {
        let pair = [play.any_harm(3)?, play.any_harm(3)?];
        play.several(&pair, "two at random", TURN, &mut report)?;
        pause(budget);
    }
    let all: Vec<Harm> = ENTRY.into_iter().chain(OTHER).chain(DEVICE).collect();
    for _ in 0..budget.rounds(3) {
        play.several(&all, "all at once", TURN, &mut report)?;
        pause(budget);
    }
    play.scene.containers[0].ping(play.scene.containers[1].address(), 56, false).context("after the faults")?;
    report.stream(&stream.finish()?);
    let used = (play.scene.one.agent.cpu()? - cpu).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    report.gate("the agent takes less than a quarter of a CPU", used < 25.0, format!("{used:.1} %"));
    decoys.judge(&mut report)?;
    if budget.judges_times() {
        report.gate_p99(&ENTRY.map(Harm::name), ENTRY_LIMIT);
        let (slow, quick): (Vec<_>, Vec<_>) = DEVICE.into_iter().partition(|harm| harm.takes_deletion());
        report.gate_p99(&quick.into_iter().map(Harm::name).collect::<Vec<_>>(), DEVICE_LIMIT);
        report.gate_p99(&slow.into_iter().map(Harm::name).collect::<Vec<_>>(), DELETION_LIMIT);
        report.gate_p99(&[Harm::ForwardingOff.name()], ENTRY_LIMIT);
    } else {
        report.gate_p99(&ENTRY.map(Harm::name), DEADLINE);
    }
    Ok(report)
}

/// Between faults of the device. In the short form there are too few of them for a fight.
fn pause(budget: Budget) {
    if budget.judges_times() {
        thread::sleep(PEACE);
    }
}

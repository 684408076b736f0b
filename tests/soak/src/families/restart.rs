//! The agent is killed, stopped, replaced, suspended: packets go on, and the next one changes nothing.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::world::{PATIENCE, VTEP};
use testkit::{Monitor, wait_for};

use crate::play::Play;
use crate::scene::until_right;
use crate::{Budget, Report};

/// A start is over by then; the moment of the kill is any before that.
const START: u32 = 250;

/// All ways of going away and coming back.
pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut play = Play::with_peers(if budget.judges_times() { 1_000 } else { 100 })?;
    let mut report = Report::default();
    undisturbed(&mut play, budget, &mut report)?;
    between_two_writes(&mut play, budget, &mut report)?;
    stale_entries(&mut play, budget, &mut report)?;
    suspended(&mut play, budget, &mut report)?;
    clock_steps(&mut play, budget, &mut report)?;
    Ok(report)
}

/// Kills, stops and an upgrade under a stream: nothing is lost and nothing is written.
fn undisturbed(play: &mut Play, budget: Budget, report: &mut Report) -> Result<()> {
    let monitor = Monitor::start(&play.scene.one.host)?;
    let stream = play.scene.containers[0].udp_stream(&play.scene.containers[1], Duration::from_millis(1))?;
    for _ in 0..budget.rounds(100) {
        play.scene.one.agent.restart()?;
        thread::sleep(Duration::from_millis(play.dice.throw(START).into()));
        play.scene.one.agent.kill9()?;
        report.fault("kill -9 at a random moment", untouched(play)?);
    }
    play.scene.one.agent.restart()?;
    play.scene.one.agent.wait_ready(PATIENCE)?;
    for _ in 0..budget.rounds(20) {
        play.scene.one.agent.terminate()?;
        let start = Instant::now();
        play.scene.one.agent.restart()?;
        let ready = play.scene.one.agent.wait_ready(PATIENCE).map(|()| start.elapsed());
        report.fault("SIGTERM and start, until ready", ready.ok().filter(|_| untouched(play).is_ok_and(|same| same.is_some())));
    }
    for nth in 0..budget.rounds(5) {
        let copy = play.scene.one.host.files().join(format!("loden{nth}"));
        let options = play.scene.world.options()?;
        fs::copy(options.program(), &copy)?;
        play.scene.one.agent.terminate()?;
        *play.scene.one.agent.options_mut() = options.with_program(copy);
        let start = Instant::now();
        play.scene.one.agent.restart()?;
        let ready = play.scene.one.agent.wait_ready(PATIENCE).map(|()| start.elapsed());
        report.fault("upgrade in place, until ready", ready.ok().filter(|_| untouched(play).is_ok_and(|same| same.is_some())));
    }
    let stream = stream.finish()?;
    report.stream(&stream);
    report.gate("no packet is lost while the agent goes and comes", stream.lost == 0, format!("{} of {}", stream.lost, stream.sent));
    let told = monitor.so_far()?;
    report.gate("nothing is written to the kernel when nothing has changed", told.is_empty(), format!("{told:?}"));
    Ok(())
}

/// How long it took to see that all is as it was; none if it is not.
fn untouched(play: &Play) -> Result<Option<Duration>> {
    let start = Instant::now();
    Ok((play.eye.look()? == play.right).then(|| start.elapsed()))
}

/// Killed while a thousand peers are being programmed: the next one goes on from there.
fn between_two_writes(play: &mut Play, budget: Budget, report: &mut Report) -> Result<()> {
    for _ in 0..budget.rounds(20) {
        play.scene.one.agent.kill9()?;
        play.hands.ip(&format!("link del {VTEP}"))?;
        for _ in 0..3 {
            play.scene.one.agent.restart()?;
            // Until its first write, and a little more.
            wait_for("the device", PATIENCE, || play.eye.glance()?.link.map(drop).context("there is none"))?;
            thread::sleep(Duration::from_micros(u64::from(play.dice.throw(40_000))));
            play.scene.one.agent.kill9()?;
        }
        let start = Instant::now();
        play.scene.one.agent.restart()?;
        report.fault("killed between writes, until all is right", until_right(&play.eye, &play.right, start, PATIENCE)?);
    }
    play.scene.one.agent.wait_ready(PATIENCE)
}

/// What was planted while the agent was away goes, but only when the leases are known.
fn stale_entries(play: &mut Play, budget: Budget, report: &mut Report) -> Result<()> {
    for _ in 0..budget.rounds(5) {
        play.scene.one.agent.kill9()?;
        play.hands.ip(&format!("route add 10.200.1.0/24 via 10.200.1.0 dev {VTEP} onlink proto 76 metric 51202"))?;
        play.hands.ip(&format!("neigh add 10.200.1.0 lladdr 02:ee:00:00:00:09 dev {VTEP} nud permanent"))?;
        play.hands.bridge(&format!("fdb add 02:ee:00:00:00:09 dev {VTEP} dst 192.168.77.99 self permanent"))?;
        let planted = play.eye.look()?;
        ensure!(planted.entries.len() == play.right.entries.len() + 3, "{}", planted.differs_from(&play.right));
        play.scene.world.etcd.pause()?;
        play.scene.one.agent.restart()?;
        // It runs, and has looked at the kernel: what is missing it puts back, but it sweeps nothing.
        wait_for("the agent to run", PATIENCE, || play.scene.one.agent.get("/healthz").map(drop))?;
        thread::sleep(Duration::from_secs(1));
        let same = play.eye.look()?.entries == planted.entries;
        report.fault("stale entries kept until the leases are known", same.then_some(Duration::ZERO));
        play.scene.world.etcd.resume()?;
        let start = Instant::now();
        let swept = until_right(&play.eye, &play.right, start, PATIENCE)?;
        report.fault("stale entries swept once the leases are known", swept);
        play.scene.one.agent.wait_ready(PATIENCE)?;
    }
    Ok(())
}

/// The wall clock jumps under the agent, and under nobody else. What it decides by is the other clock.
fn clock_steps(play: &mut Play, budget: Budget, report: &mut Report) -> Result<()> {
    let files = play.scene.one.host.files().to_owned();
    let (shim, step) = (files.join("clock.so"), files.join("step"));
    let source = files.join("clock.c");
    fs::write(&source, include_str!("../../clock.c"))?;
    let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(&source).output();
    let made = made.context("cc is missing: apt-get install gcc")?;
    ensure!(made.status.success(), "cc: {}", String::from_utf8_lossy(&made.stderr));
    fs::write(&step, "0")?;
    let options = play.scene.world.options()?;
    let options = options.env("LD_PRELOAD", &shim.display().to_string()).env("CLOCK_STEP", &step.display().to_string());
    *play.scene.one.agent.options_mut() = options;
    play.scene.one.agent.restart()?;
    play.scene.one.agent.wait_ready(PATIENCE)?;
    let lease = play.scene.one.lease(&play.scene.world)?;
    let monitor = Monitor::start(&play.scene.one.host)?;
    let stream = play.scene.containers[0].udp_stream(&play.scene.containers[1], Duration::from_millis(1))?;
    for _ in 0..budget.rounds(5) {
        for hours in [1, -1, 0] {
            fs::write(&step, (hours * 3_600).to_string())?;
            let start = Instant::now();
            // It has seen the step when its status has.
            let stepped = wait_for("the agent's clock to have stepped", PATIENCE, || {
                let status = play.scene.one.agent.status_json()?;
                let now = status.get("now_unix_ms").and_then(Value::as_i64).context("no time")? / 1_000;
                let ours = i64::try_from(UNIX_EPOCH.elapsed()?.as_secs())?;
                ensure!((now - ours - hours * 3_600).abs() < 60, "it is {now}, ours {ours}");
                ensure!(status.get("ready").is_some_and(|ready| ready == true), "{status:#}");
                Ok(())
            });
            thread::sleep(Duration::from_secs(1));
            let same =
                play.scene.one.lease(&play.scene.world)? == lease && untouched(play)?.is_some() && play.scene.one.ensure_ready().is_ok();
            report.fault("clock stepped by an hour, nothing happens", (stepped.is_ok() && same).then(|| start.elapsed()));
        }
    }
    let stream = stream.finish()?;
    report.stream(&stream);
    let told = monitor.so_far()?;
    let calm = told.is_empty() && stream.lost == 0;
    report.gate("a step of the clock costs no packet and no write", calm, format!("{} lost, {told:?}", stream.lost));
    Ok(())
}

/// Stopped until its lease is gone. The length of a lease is a day, so the store is made to forget it.
fn suspended(play: &mut Play, budget: Budget, report: &mut Report) -> Result<()> {
    for _ in 0..budget.rounds(5) {
        let before = play.scene.one.lease(&play.scene.world)?;
        play.scene.one.agent.signal(Signal::SIGSTOP)?;
        play.scene.world.etcd.lease_revoke(before.lease)?;
        thread::sleep(Duration::from_millis(200));
        let start = Instant::now();
        play.scene.one.agent.signal(Signal::SIGCONT)?;
        let again = wait_for("the same lease again", PATIENCE, || {
            let now = play.scene.one.lease(&play.scene.world)?;
            ensure!(now.key == before.key && now.value == before.value && now.lease != before.lease, "{now:?}");
            Ok(start.elapsed())
        });
        report.fault("stopped beyond its lease, until it has it again", again.ok());
        report.fault("stopped beyond its lease, entries as before", untouched(play)?);
        play.scene.one.agent.wait_ready(PATIENCE)?;
        wait_for("a ping", PATIENCE, || play.scene.containers[0].ping(play.scene.containers[1].address(), 56, false))?;
    }
    Ok(())
}

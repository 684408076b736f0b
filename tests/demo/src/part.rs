//! Steps 6 to 8: an agent dies, bad records appear, a host leaves.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::{Container, Watch, wait_for};

use crate::cast::{Cast, Member, PATIENCE, SUBNETS, VTEP};
use crate::tale::{Tale, time};

/// How long the agent stays dead, and how long the stream goes on when it is back.
const PAUSE: Duration = Duration::from_millis(500);
/// One packet each.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long nothing has to happen: far longer than a record takes to be acted on.
const CALM: Duration = Duration::from_millis(500);

/// A key that is no lease at all.
const STRAY: (&str, &str) = ("test", "x");
/// Records that no host may follow, and what each is.
const BAD: [(&str, &str, &str); 3] = [
    ("10.5.201.0-24", "{", "not JSON"),
    (
        "10.5.202.0-24",
        r#"{"PublicIP":"192.168.77.202","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}}"#,
        "a multicast MAC",
    ),
    (
        "10.5.203.0-24",
        r#"{"PublicIP":"0.0.0.0","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#,
        "an address that is none",
    ),
];

pub(crate) fn killed_under_a_stream(cast: &mut Cast, tale: &mut Tale) -> Result<()> {
    tale.step("The agent on h2 is killed with -9 under traffic, and started again");
    cast.suspect = Some("h2".to_owned());
    let streams = {
        let (there, here) = (first_container(cast, "h1")?, first_container(cast, "h2")?);
        [there.udp_stream(here, INTERVAL)?, here.udp_stream(there, INTERVAL)?]
    };
    let member = cast.member("h2")?;
    let before = (member.vtep()?, member.entries()?);
    let watch = Watch::new(&member.host)?;
    thread::sleep(PAUSE);
    member.agent.kill9()?;
    thread::sleep(PAUSE);
    let start = Instant::now();
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    let ready = start.elapsed();
    thread::sleep(PAUSE);
    let (mut sent, mut lost, mut gap) = (0, 0, Duration::ZERO);
    for stream in streams {
        let report = stream.finish()?;
        (sent, lost, gap) = (sent + report.sent, lost + report.lost, gap.max(report.longest_gap));
    }
    let member = cast.member("h2")?;
    ensure!(before == (member.vtep()?, member.entries()?), "the restarted agent changed what was right: {:#?}", member.entries()?);
    let written = writes(&watch, before.0.index)?;
    ensure!(written == 0, "the restarted agent wrote {written} times what was there already");
    ensure!(lost == 0, "{lost} of {sent} packets were lost; the longest gap was {}", time(gap));
    tale.figure("packets lost, dead and coming back", lost.to_string(), &format!("of {sent}: one a millisecond, each way"));
    tale.figure("started again, until ready", time(ready), "nothing written: all was right");
    Ok(())
}

/// How often an entry of the device was written or deleted since the watch began, even if it did not change.
fn writes(watch: &Watch, device: u64) -> Result<usize> {
    let mut count = 0;
    loop {
        let changes = watch.changes(Duration::ZERO)?;
        if changes.is_empty() {
            return Ok(count);
        }
        count += changes.iter().filter(|change| u64::from(change.entry.device) == device).count();
    }
}

pub(crate) fn bad_records(cast: &mut Cast, tale: &mut Tale) -> Result<()> {
    tale.step("Bad records appear in etcd");
    let before = cast.members.iter().map(Member::entries).collect::<Result<Vec<_>>>()?;
    let keys = || BAD.iter().map(|(key, value, _)| (*key, *value)).chain([STRAY]);
    for (key, value) in keys() {
        cast.etcd.put(&format!("{SUBNETS}/{key}"), value)?;
    }
    let mut rows = Vec::new();
    for member in &cast.members {
        let name = member.host.name();
        cast.suspect = Some(name.to_owned());
        rows.clear();
        for (key, _, what) in BAD {
            let reason = wait_for(&format!("{name} to say that it rejects {key}"), PATIENCE, || rejection(member, key))?;
            ensure!(member.agent.log_contains(key), "the log of {name} does not name {key}");
            rows.push([key.to_owned(), what.to_owned(), reason]);
        }
        let strays = member.agent.status_json()?.get("stray_keys").and_then(Value::as_u64);
        ensure!(strays == Some(1), "{name} counts {strays:?} stray keys, not 1");
    }
    rows.push([STRAY.0.to_owned(), "no subnet".to_owned(), "ignored, and counted".to_owned()]);
    tale.table(["key", "what it is", "what `loden status` and the log say"], &rows);
    cast.suspect = None;
    let start = Instant::now();
    while start.elapsed() < CALM {
        for (member, before) in cast.members.iter().zip(&before) {
            ensure!(*before == member.entries()?, "the bad records changed what the kernel holds on {}", member.host.name());
        }
    }
    cast.mesh()?.wait_whole(PATIENCE)?;
    tale.holds(&format!("all {} hosts say so, no entry of any peer has changed, all reach all", cast.members.len()));
    for (key, _) in keys() {
        cast.etcd.del(&format!("{SUBNETS}/{key}"))?;
    }
    Ok(())
}

/// Why the member rejects the record under this key, as its status has it.
fn rejection(member: &Member, key: &str) -> Result<String> {
    let status = member.agent.status_json()?;
    let all = status.get("rejected").and_then(Value::as_array).context("the status has no list of rejected records")?;
    let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let entry = all.iter().find(|entry| text(entry, "key").ends_with(key));
    let reason = text(entry.with_context(|| format!("the status rejects {all:?}"))?, "reason");
    ensure!(!reason.is_empty(), "no reason is given");
    Ok(reason)
}

pub(crate) fn a_host_leaves(cast: &mut Cast, tale: &mut Tale) -> Result<()> {
    tale.step("h4 leaves");
    let leaving = cast.member("h4")?;
    let (subnet, mac, address) = (leaving.subnet()?, leaving.vtep()?.mac, leaving.host.address().to_string());
    let status = leaving.agent.terminate()?;
    ensure!(status.success(), "the agent ended with {status}");
    ensure!(leaving.vtep()?.mac == mac, "stopping the agent took its device down");
    let start = Instant::now();
    let said = leaving.agent.ask_with_flags("release")?;
    let key = format!("{SUBNETS}/{}", subnet.replace('/', "-"));
    ensure!(cast.etcd.get(&key)?.is_none(), "the lease still stands under {key}; `loden release` said: {said}");
    let traces = [subnet.split('/').next().unwrap_or_default().to_owned(), mac, address];
    for member in cast.members.iter().filter(|member| member.host.name() != "h4") {
        cast.suspect = Some(member.host.name().to_owned());
        wait_for(&format!("{} to forget h4", member.host.name()), PATIENCE, || {
            let entries = member.entries()?;
            let left: Vec<_> =
                entries.iter().filter(|entry| entry.split(' ').any(|word| traces.iter().any(|trace| word.starts_with(trace)))).collect();
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })?;
    }
    let took = start.elapsed();
    tale.figure("`loden release`, until forgotten by all", time(took), &format!("{subnet} can be leased again"));
    let leaving = cast.member("h4")?;
    leaving.agent.ask(&["cleanup"])?;
    ensure!(leaving.vtep().is_err(), "{VTEP} is still there");
    tale.holds("`loden cleanup` has left nothing on h4 itself");
    cast.members.retain(|member| member.host.name() != "h4");
    cast.mesh()?.wait_whole(PATIENCE)?;
    tale.holds("the others still reach each other");
    Ok(())
}

fn first_container<'a>(cast: &'a Cast, host: &str) -> Result<&'a Container> {
    cast.containers().find(|container| container.host().name() == host).with_context(|| format!("no container on {host}"))
}

//! A second opinion: what a model of flanneld, written in Python from documents and from a real one's own files
//! (`tests/differential`), would have installed, against what the kernel holds.
//!
//! Network configurations, leases and their changes are made up, each from a seed. A seed that fails is named, and is run
//! again alone with `LODEN_DIFFERENTIAL_SEED=N make soak FAMILY=differential`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use testkit::world::{Member, PATIENCE, SUBNET_FILE, World};
use testkit::{Host, wait_for};

use crate::{Budget, Report};

/// The variable that asks for one seed alone.
const SEED: &str = "LODEN_DIFFERENTIAL_SEED";
/// How many seeds share a switch and an etcd: each takes one of its addresses.
const SEEDS_A_WORLD: u32 = 100;
/// The underlay's MTU that a model is told.
const UNDERLAY_MTU: u32 = 1_500;

/// A seed's story.
#[derive(Debug, Deserialize)]
struct Scenario {
    config: String,
    reservation: (String, String),
    steps: Vec<Step>,
}

/// What is written at once.
#[derive(Debug, Deserialize)]
struct Step {
    down: bool,
    writes: Vec<(String, Option<String>)>,
}

/// Random lease sets and their changes, and the model's word on each.
pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut report = Report::default();
    let wrong = differences(&["golden"], "")?;
    report.gate("the model says what a real flanneld wrote", wrong.is_empty(), if wrong.is_empty() { "it does" } else { &wrong });
    let seeds: Vec<u32> = match std::env::var(SEED) {
        Ok(seed) => vec![seed.parse().with_context(|| format!("{SEED}={seed}: a number is wanted"))?],
        Err(_) => (1..=budget.rounds(40)).collect(),
    };
    let mut world = World::empty()?;
    for (seed, number) in seeds.into_iter().zip(0_u32..) {
        if number > 0 && number % SEEDS_A_WORLD == 0 {
            world = World::empty()?;
        }
        if let Err(error) = tell(&world, seed, &mut report) {
            report.gate("flanneld's model and loden agree", false, format!("{SEED}={seed}: {error:#}"));
        }
    }
    Ok(report)
}

/// One seed's story from beginning to end.
fn tell(world: &World, seed: u32, report: &mut Report) -> Result<()> {
    let host = world.lab.host(&format!("h{seed}"))?;
    let address = host.address().to_string();
    let Scenario { config, reservation: (key, value), steps } =
        serde_json::from_str(&python("scenario.py", &[&seed.to_string(), &address], "")?).context("the scenario")?;
    let prefix = format!("/seed/{seed}");
    let under = |key: &str| format!("{prefix}/subnets/{key}");
    world.etcd.write(&[(format!("{prefix}/config"), Some(config.clone())), (under(&key), Some(value))])?;
    let options = world.options()?.args(["--etcd-prefix", &prefix]);
    let mut member = Member::on(host, options)?;
    member.agent.wait_ready(PATIENCE)?;
    for (step, number) in steps.into_iter().zip(0_u32..) {
        let Step { down, writes } = step;
        let count = writes.len();
        let writes: Vec<_> = writes.into_iter().map(|(key, value)| (under(&key), value)).collect();
        if down {
            member.agent.kill9()?;
        }
        world.etcd.write(&writes)?;
        let start = Instant::now();
        if down {
            member.agent.restart()?;
        }
        let agree = wait_for("the model to agree", PATIENCE, || agree(world, &member.host, &prefix, &config, &key));
        let kind = if down { "leases change while the agent is down" } else { "leases change" };
        report.fault(kind, agree.is_ok().then(|| start.elapsed()));
        agree.with_context(|| format!("step {number}, after {count} writes"))?;
        if down {
            member.agent.wait_ready(PATIENCE)?;
        }
        ensure!(member.agent.ended()?.is_none(), "the agent has ended");
    }
    Ok(())
}

/// Whether the kernel holds what the model wants of the leases that are in etcd now.
fn agree(world: &World, host: &Host, prefix: &str, config: &str, key: &str) -> Result<()> {
    let folder = format!("{prefix}/subnets/");
    let entries = world.etcd.get_prefix(&folder)?;
    let leases: Vec<(&str, &str)> =
        entries.iter().map(|entry| (entry.key.strip_prefix(&folder).unwrap_or(&entry.key), entry.value.as_str())).collect();
    let own = leases.iter().find(|(name, _)| *name == key).context("the host's own lease is gone")?;
    let own: Value = serde_json::from_str(own.1)?;
    let mac = own.pointer("/BackendData/VtepMAC").and_then(Value::as_str).context("the host's own lease has no MAC yet")?;
    let case = json!({
        "config": config,
        "host": { "key": key, "mac": mac, "address": host.address().to_string(), "mtu": UNDERLAY_MTU, "ip_masq": false },
        "leases": leases,
        "observed": observed(host)?,
    });
    let differences = differences(&[], &case.to_string())?;
    ensure!(differences.is_empty(), "{differences}");
    Ok(())
}

/// What `ip`, `bridge` and files tell of the host, as they tell it.
fn observed(host: &Host) -> Result<Value> {
    let accept_ra = host.run(&["sh", "-c", "cat /proc/sys/net/ipv6/conf/flannel*/accept_ra 2>/dev/null || true"])?;
    let accept_ra = Some(accept_ra.trim()).filter(|value| !value.is_empty());
    Ok(json!({
        "link": host.ip_json(&["link", "show", "type", "vxlan"])?,
        "addr": host.ip_json(&["addr", "show"])?,
        "route": host.ip_json(&["-4", "route", "show", "table", "main"])?,
        "neigh": host.ip_json(&["-4", "neigh", "show"])?,
        "fdb": host.bridge_json(&["fdb", "show"])?,
        "accept_ra": accept_ra,
        "subnet.env": host.read(SUBNET_FILE)?,
    }))
}

/// What `compare.py` has to say: nothing when all is as the model wants it.
fn differences(args: &[&str], case: &str) -> Result<String> {
    python("compare.py", args, case).map(|said| said.trim().to_owned())
}

/// Runs a program of `tests/differential`. That it exits with 1 is its answer, when it says something too.
fn python(program: &str, args: &[&str], input: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../differential").join(program);
    let mut command = Command::new("python3");
    command.arg("-B").arg(path).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("python3 is missing: apt-get install python3")?;
    child.stdin.take().context("no pipe to python3")?.write_all(input.as_bytes())?;
    let done = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() && said.trim().is_empty() {
        bail!("{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(said)
}

//! The other commands, beside an agent and without one; and what the agent tells systemd, people and scrapers.

use std::os::unix::net::UnixDatagram;

use anyhow::{Context, Result, bail, ensure};
use testkit::{Agent, AgentOptions, wait_for};

use testkit::Monitor;
use testkit::world::{Member, PATIENCE, Peer, SUBNET_FILE, SUBNETS, VTEP, World};

/// Runs `loden VERB` on the agent's host, and returns its exit code, what it printed and what it complained of.
fn run(agent: &Agent, args: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = agent.host().command(agent.options().program()).args(args).output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

fn plan(world: &World, member: &Member) -> Result<String> {
    let (code, out, err) = run(&member.agent, &["plan", "--etcd-endpoints", world.etcd.endpoint()])?;
    ensure!(code == Some(0) && err.is_empty(), "{code:?}: {err}");
    Ok(out)
}

#[test]
fn a_plan_that_a_shell_runs_leaves_nothing_to_plan_and_planning_changes_nothing() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers(201..=203)?;
    // An agent that ends at once: there is nothing but a lease and a subnet file.
    let mut member = world.member("h1")?;
    member.agent.terminate()?;
    let clean = plan(&world, &member)?;
    ensure!(clean == "# nothing to change\n", "{clean}");

    let spoil: [&[&str]; 4] = [
        &["link del flannel.1"],
        &["link set flannel.1 down", "route add 10.5.222.0/24 via 192.168.77.254 dev eth0"],
        &[
            "link set flannel.1 mtu 1300",
            "addr add 10.5.99.1/24 dev flannel.1",
            "neigh add 10.5.222.0 lladdr 02:aa:00:00:00:01 dev flannel.1 nud permanent",
        ],
        &["link del flannel.1", "link add flannel.1 type vxlan id 1 dstport 4789 local 192.168.77.9"],
    ];
    for lines in spoil {
        member.host.ip_batch(&format!("{}\n", lines.join("\n")))?;
        member.set_sysctl("net/ipv4/ip_forward", "0")?;
        let (store, monitor, before) = (world.etcd.get_prefix("/")?, Monitor::start(&member.host)?, member.entries().ok());
        let lines = plan(&world, &member)?;
        ensure!(lines.contains("sysctl -w net.ipv4.ip_forward=1") && lines.lines().count() > 1, "{lines}");
        ensure!(
            monitor.so_far()?.is_empty() && world.etcd.get_prefix("/")? == store && member.entries().ok() == before,
            "planning changed something"
        );
        ensure!(member.sysctl("net/ipv4/ip_forward")? == "0");
        member.host.run(&["sh", "-ec", &lines]).with_context(|| format!("the plan was\n{lines}"))?;
        let left = plan(&world, &member)?;
        ensure!(left == "# nothing to change\n", "after\n{lines}\nthere is left\n{left}");
        member.wait_peers(&peers)?;
    }
    // The agent finds nothing to do either.
    let monitor = Monitor::start(&member.host)?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(monitor.so_far()?.is_empty(), "{:#?}", monitor.so_far()?);
    Ok(())
}

#[test]
fn a_plan_on_a_host_that_never_had_an_agent_says_all_that_is_missing_and_takes_no_lease() -> Result<()> {
    let world = World::new()?;
    world.peers([201, 202])?;
    world.put_raw("10.5.210.0-24", "{")?;
    let host = world.lab.host("h1")?;
    let output = host.command(world.options()?.program()).args(["plan", "--etcd-endpoints", world.etcd.endpoint()]).output()?;
    let text = String::from_utf8(output.stdout)?;
    for line in [
        "sysctl -w net.ipv4.ip_forward=1",
        "ip link add flannel.1 mtu 1450 address ",
        "ip link set flannel.1 up",
        "bridge fdb replace 02:00:00:00:00:c9 dev flannel.1 dst 192.168.77.201 self permanent",
        "ip neighbour replace 10.5.201.0 lladdr 02:00:00:00:00:c9 dev flannel.1 nud permanent",
        "ip route add 10.5.201.0/24 via 10.5.201.0 dev flannel.1 onlink proto 76 metric 202",
        "# lease 10.5.210.0-24 is rejected: ",
        "# /run/flannel/subnet.env would be written:",
    ] {
        ensure!(text.lines().any(|have| have.starts_with(line)), "no {line:?} in\n{text}");
    }
    ensure!(
        world.etcd.get_prefix(SUBNETS)?.len() == 3
            && host.read(SUBNET_FILE).is_err()
            && host.ip_json(&["link", "show", "dev", VTEP]).is_err()
    );
    Ok(())
}

#[test]
fn beside_an_agent_release_and_cleanup_are_refused_and_status_and_plan_are_answered() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    for verb in ["release", "cleanup"] {
        let (code, out, err) = run(&member.agent, &[verb, "--etcd-endpoints", world.etcd.endpoint()])?;
        ensure!(code == Some(1) && out.is_empty() && err.contains(&member.agent.pid().to_string()), "{verb}: {code:?} {err}");
    }
    ensure!(plan(&world, &member)? == "# nothing to change\n");
    let (code, text, err) = run(&member.agent, &["status"])?;
    ensure!(code == Some(0) && err.is_empty(), "{code:?} {err}");
    for word in [
        "ready",
        "10.5.201.0/24",
        "192.168.77.201",
        "02:00:00:00:00:c9",
        "eth0: 192.168.77.1, MTU 1500",
        "flannel.1",
        "in step",
        "http://192.168.77.254:2379",
    ] {
        ensure!(text.contains(word), "no {word:?} in\n{text}");
    }
    member.wait_peers(&peers)
}

#[test]
fn release_gives_the_lease_back_and_leaves_the_kernel_and_cleanup_takes_what_is_ours_and_leaves_the_rest() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let key = member.key()?;
    let endpoint = world.etcd.endpoint().to_owned();
    member.agent.terminate()?;
    let (code, out, _) = run(&member.agent, &["release", "--etcd-endpoints", &endpoint])?;
    ensure!(code == Some(0) && out.contains("released 10.5."), "{out}");
    ensure!(world.etcd.get(&key)?.is_none() && world.etcd.get(&peers[0].key())?.is_some() && member.vtep().is_ok());
    let (code, out, _) = run(&member.agent, &["release", "--etcd-endpoints", &endpoint])?;
    ensure!(code == Some(0) && out.starts_with("no lease"), "{out}");

    member.host.ip_batch(
        "link add flannel.9 type vxlan id 9 dstport 4789 local 192.168.77.1\nlink set flannel.9 up\nlink add flannel.10 type bridge\n",
    )?;
    let (code, out, err) = run(&member.agent, &["cleanup"])?;
    ensure!(code == Some(0) && out.contains("ip link del flannel.1\n") && out.contains("# flannel.9 is left alone"), "{out}{err}");
    ensure!(member.vtep().is_err() && member.host.subnet_env().is_err());
    ensure!(member.host.run(&["ls", "-A", "/run/flannel"])?.trim().is_empty());
    for other in ["flannel.9", "flannel.10", "eth0"] {
        member.host.ip_json(&["link", "show", "dev", other])?;
    }
    // All is done already.
    let (code, out, err) = run(&member.agent, &["cleanup", "--etcd-endpoints", &endpoint])?;
    ensure!(code == Some(0) && !out.contains("del"), "{out}{err}");
    // And from here it starts as ever.
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)
}

#[test]
fn a_reservation_outlives_release() -> Result<()> {
    let world = World::new()?;
    world.put_raw("10.5.150.0-24", r#"{"PublicIP":"192.168.77.1"}"#)?;
    let mut member = world.member("h1")?;
    member.agent.terminate()?;
    let (code, ..) = run(&member.agent, &["release", "--etcd-endpoints", world.etcd.endpoint()])?;
    ensure!(code == Some(0) && world.etcd.get(&format!("{SUBNETS}10.5.150.0-24"))?.is_some());
    Ok(())
}

#[test]
fn the_status_as_json_tells_what_ip_and_etcdctl_tell() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let status = member.wait_status("in step", |status| status["data_plane"]["state"] == "in_step")?;
    let (index, mac) = member.vtep_identity()?;
    let key = member.key()?;
    let subnet = key.rsplit('/').next().unwrap_or_default().replace('-', "/");
    ensure!(status["ready"] == true && status["not_ready_because"].is_null() && status["pid"] == member.agent.pid(), "{status:#}");
    ensure!(
        status["lease"]["state"] == "held" && status["lease"]["subnet"] == subnet && status["lease"]["how"] == "free subnet",
        "{status:#}"
    );
    let owner = status["lease"]["owner"].as_str().context("no owner")?;
    ensure!(member.lease(&world)?.value.contains(&format!("\"Owner\":\"{owner}\"")), "{status:#}");
    let left = world.etcd.lease_left(member.lease(&world)?.lease)?.context("no time left")?;
    ensure!(status["lease"]["expires_in"].as_i64().is_some_and(|says| (says - left).abs() < 30), "{left}, and {}", status["lease"]);
    let vtep = &status["vteps"][0];
    ensure!(
        vtep["ifindex"] == index
            && vtep["mac"] == mac
            && vtep["mtu"] == 1450
            && vtep["local"] == "192.168.77.1"
            && vtep["state"] == "in step",
        "{vtep:#}"
    );
    ensure!(
        status["underlay"]["interface"] == "eth0" && status["underlay"]["mtu"] == 1500 && status["underlay"]["address"] == "192.168.77.1"
    );
    ensure!(status["data_plane"]["observed"]["routes"] == 2 && status["data_plane"]["desired"]["fdb"] == 2);
    for (Peer { number, mac, address }, told) in peers.iter().zip(status["peers"].as_array().context("no peers")?) {
        ensure!(told["subnet"] == format!("10.5.{number}.0/24") && told["mac"] == *mac && told["public_ip"] == *address, "{told:#}");
        ensure!(
            [&told["route"], &told["neighbour"], &told["fdb"]].iter().all(|state| **state == "ok") && told["state"] == "in_step",
            "{told:#}"
        );
    }
    for (metric, wanted) in [
        ("loden_peers", 2.0),
        ("loden_entries_desired{kind=\"route\"}", 2.0),
        ("loden_entries_observed{kind=\"neighbour\"}", 2.0),
        ("loden_entries_observed{kind=\"fdb\"}", 2.0),
        ("loden_store_up", 1.0),
        ("loden_rejected_records", 0.0),
        ("loden_stray_keys", 0.0),
    ] {
        member.wait_metric(metric, wanted)?;
    }
    let remaining = member.agent.metric("loden_lease_remaining_seconds")?;
    ensure!((86_000.0..=86_400.0).contains(&remaining), "{remaining}");
    ensure!(member.agent.metric("loden_apply_duration_seconds_count")? >= 1.0 && member.agent.get("/healthz")? == (200, "ok\n".to_owned()));
    Ok(())
}

#[test]
fn the_status_of_an_agent_that_is_not_ready_says_why_in_the_first_lines_and_exits_1() -> Result<()> {
    let world = World::empty()?;
    let member = world.starting("h1")?;
    member.wait_unready_for(&["network configuration missing"])?;
    let (code, text, err) = run(&member.agent, &["status"])?;
    let mut lines = text.lines();
    ensure!(code == Some(1) && err.is_empty(), "{code:?} {err}");
    ensure!(lines.next().is_some_and(|line| line.ends_with("NOT READY")), "{text}");
    ensure!(lines.next().is_some_and(|line| line.contains("network configuration missing")), "{text}");
    Ok(())
}

#[test]
fn systemd_is_told_ready_once_it_is_and_a_line_of_status_all_along() -> Result<()> {
    let world = World::empty()?;
    let host = world.lab.host("h1")?;
    let path = host.files().join("notify");
    let systemd = UnixDatagram::bind(&path)?;
    systemd.set_read_timeout(Some(PATIENCE))?;
    let path = path.display().to_string();
    let mut member = Member::on(host, world.options()?.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000"))?;
    let hear = |until: &str| -> Result<Vec<String>> {
        let mut heard = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let length = systemd.recv(&mut buffer).with_context(|| format!("{until} never came; heard {heard:#?}"))?;
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).trim().to_owned();
            heard.push(text.clone());
            if text.contains(until) {
                return Ok(heard);
            }
            if heard.len() > 500 {
                bail!("{until} never came");
            }
        }
    };
    let before = hear("STATUS=not ready: network configuration missing")?;
    ensure!(!before.iter().any(|text| text == "READY=1"), "{before:#?}");
    hear("WATCHDOG=1")?;
    world.etcd.put(testkit::world::CONFIG_KEY, testkit::world::CONFIG)?;
    hear("READY=1")?;
    member.ensure_ready()?;
    world.peers([201])?;
    let line = hear("1 peers")?;
    ensure!(line.last().is_some_and(|line| line.starts_with("STATUS=ready, 10.5.")), "{line:#?}");
    member.agent.terminate()?;
    hear("STOPPING=1").map(drop)
}

#[test]
fn systemd_is_told_ready_though_one_peer_cannot_be_reached() -> Result<()> {
    let world = World::with_config(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}"#)?;
    world.put_raw("10.5.201.0-24", r#"{"PublicIP":"192.168.99.9","PublicIPv6":null,"BackendType":"host-gw"}"#)?;
    let host = world.lab.host("h1")?;
    let path = host.files().join("notify");
    let systemd = UnixDatagram::bind(&path)?;
    systemd.set_read_timeout(Some(PATIENCE))?;
    let member = Member::on(host, world.options()?.env("NOTIFY_SOCKET", &path.display().to_string()))?;
    let mut buffer = [0; 4096];
    while systemd.recv(&mut buffer).context("READY=1 never came")? == 0 || !buffer.starts_with(b"READY=1") {}
    member.wait_unready_for(&["192.168.99.9"])?;
    ensure!(member.host.read(testkit::world::SUBNET_FILE)?.contains("FLANNEL_SUBNET=10.5."));
    Ok(())
}

#[test]
fn called_flanneld_the_program_takes_flannelds_place() -> Result<()> {
    let world = World::new()?;
    let host = world.lab.host("h1")?;
    let flanneld = host.files().join("flanneld");
    std::os::unix::fs::symlink(world.options()?.program(), &flanneld)?;
    let options = AgentOptions::other(flanneld, &world.etcd).args(["-v=2", "-ip-masq", "-iface=eth0"]);
    let mut member = Member::on(host, options)?;
    member.agent.wait_ready(PATIENCE)?;
    wait_for("the subnet file", PATIENCE, || member.host.subnet_env().map(drop))
}

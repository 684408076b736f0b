//! What an agent does with what it finds: its own work, what changed while it was away, and devices that are not right.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use testkit::AgentOptions;

use testkit::Monitor;
use testkit::world::{CONFIG_KEY, Member, PATIENCE, Peer, SUBNET_FILE, SUBNETS, VTEP, World, write};

/// The agent as `strace` sees it: a program that writes down each netlink request and each file that is opened for writing.
fn traced(world: &World, member: &Member) -> Result<(AgentOptions, std::path::PathBuf)> {
    let (script, trace) = (member.host.files().join("traced"), member.host.files().join("trace"));
    let program = world.options()?.program().display().to_string();
    // -D: the agent is the process that is started, and strace its child.
    let text = format!(
        "#!/bin/sh\nexec strace -D -f -qq -s 200 -e trace=sendto,sendmsg,sendmmsg,openat -o {} {program} agent \"$@\"\n",
        trace.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok((AgentOptions::other(script, &world.etcd), trace))
}

#[test]
fn a_restart_after_kill_9_or_sigterm_writes_nothing_to_kernel_store_or_subnet_file() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202, 203])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let (before, identity) = (world.etcd.get_prefix("/")?, member.vtep_identity()?);
    let file = member.host.run(&["stat", "-c", "%i %Y %Z", SUBNET_FILE])?;
    let monitor = Monitor::start(&member.host)?;
    let (options, trace) = traced(&world, &member)?;
    *member.agent.options_mut() = options;

    member.agent.kill9()?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    let status = member.agent.terminate()?;
    ensure!(status.success(), "SIGTERM: {status}");
    ensure!(member.vtep_identity()? == identity && member.host.subnet_env().is_ok(), "stopping took something down");
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;

    ensure!(member.vtep_identity()? == identity);
    ensure!(monitor.so_far()?.is_empty(), "the kernel tells of changes: {:#?}", monitor.so_far()?);
    ensure!(world.etcd.get_prefix("/")? == before, "the store was written to");
    ensure!(member.host.run(&["stat", "-c", "%i %Y %Z", SUBNET_FILE])? == file, "the subnet file was written");
    ensure!(
        member.agent.metric("loden_heals_total{kind=\"route\"}").is_err()
            || member.agent.metric("loden_heals_total{kind=\"route\"}")? == 0.0
    );
    let trace = fs::read_to_string(trace)?;
    ensure!(trace.contains("RTM_GETLINK"), "the trace shows no netlink request at all");
    let is_write = |line: &&str| {
        ["RTM_NEW", "RTM_DEL", "RTM_SET"].iter().any(|kind| line.contains(kind))
            || line.contains("\"/proc/sys/") && ["O_WRONLY", "O_RDWR"].iter().any(|mode| line.contains(mode))
    };
    let writes: Vec<&str> = trace.lines().filter(is_write).collect();
    ensure!(writes.is_empty(), "it wrote: {writes:#?}");
    Ok(())
}

#[test]
fn what_changed_while_the_agent_was_away_is_caught_up_and_nothing_else_is_touched() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202, 203, 204, 205])?;
    let [stays, leaves, new_mac, new_address, both] = peers.as_slice() else { unreachable!() };
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let identity = member.vtep_identity()?;
    member.agent.kill9()?;
    let joined = world.put(Peer::new(206))?;
    world.etcd.del(&leaves.key())?;
    let new_mac = world.put(new_mac.with_mac("02:aa:00:00:00:01"))?;
    let new_address = world.put(new_address.at("192.168.77.99"))?;
    let both = world.put(both.at("192.168.77.98").with_mac("02:aa:00:00:00:02"))?;
    // What is left of a peer that nobody knows any more.
    member.host.run(&["bridge", "fdb", "append", "02:bb:00:00:00:01", "dev", VTEP, "dst", "192.168.77.97", "self", "permanent"])?;
    member.host.run(&["ip", "route", "add", "10.5.222.0/24", "via", "10.5.222.0", "dev", VTEP, "onlink"])?;
    let monitor = Monitor::start(&member.host)?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers([stays, &joined, &new_mac, &new_address, &both])?;
    let touched: Vec<_> = monitor.so_far()?.into_iter().filter(|line| line.contains("10.5.201.0") || line.contains(&stays.mac)).collect();
    ensure!(touched.is_empty() && member.vtep_identity()? == identity, "{touched:#?}");
    Ok(())
}

/// A device, an address and entries as flanneld leaves them, and its lease. Returns the lease.
fn flanneld_was_here(world: &World, host: &testkit::Host, peers: &[Peer]) -> Result<i64> {
    let mac = "4a:d0:4b:61:b4:99";
    host.ip_batch(&format!(
        "link add {VTEP} mtu 1450 address {mac} type vxlan id 1 dev eth0 local {} dstport 8472 nolearning\n\
         addr add 10.5.33.0/32 dev {VTEP}\nlink set {VTEP} up\n",
        host.address()
    ))?;
    for Peer { number, mac, address } in peers {
        host.ip_batch(&format!("neigh add 10.5.{number}.0 lladdr {mac} dev {VTEP} nud permanent\n"))?;
        host.run(&["bridge", "fdb", "add", mac, "dev", VTEP, "dst", address, "self", "permanent"])?;
        host.ip_batch(&format!("route add 10.5.{number}.0/24 via 10.5.{number}.0 dev {VTEP} onlink\n"))?;
    }
    let lease = world.etcd.lease_grant(86_400)?;
    world.etcd.put_with_lease(&format!("{SUBNETS}10.5.33.0-24"), &testkit::world::record(&host.address().to_string(), mac), lease)?;
    write(host, SUBNET_FILE, "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.33.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n")?;
    Ok(lease)
}

#[test]
fn what_flanneld_left_is_taken_over_with_no_gap() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202, 203])?;
    let host = world.lab.host("h1")?;
    let lease = flanneld_was_here(&world, &host, &peers)?;
    let before = host.ip_json(&["link", "show", "dev", VTEP])?;
    let monitor = Monitor::start(&host)?;
    let mut member = Member::on(host, world.options()?)?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;

    let after = member.vtep()?;
    for field in ["ifindex", "address", "mtu"] {
        ensure!(after[field] == before[0][field], "{field} was {} and is {}", before[0][field], after[field]);
    }
    ensure!(after["linkinfo"]["info_data"]["link"] == "eth0", "it was made anew: {after:#}");
    let told = monitor.so_far()?;
    for Peer { number, mac, .. } in &peers {
        let at = |gone: bool, text: String| told.iter().position(|line| line.starts_with("Deleted") == gone && line.contains(&text));
        let came = at(false, format!("10.5.{number}.0/24 via")).context("the new route was not told of")?;
        let went = at(true, format!("10.5.{number}.0/24 via")).context("the old route was not told of")?;
        ensure!(came < went, "the old route went before the new one was there: {told:#?}");
        let harmed = told.iter().any(|line| line.contains(mac) || line.contains(&format!("10.5.{number}.0 ")) && !line.contains("via"));
        ensure!(!harmed, "neighbour or FDB entry were touched: {told:#?}");
    }
    let now = member.lease(&world)?;
    ensure!(now.key.ends_with("10.5.33.0-24") && now.lease == lease && now.version == 2, "{now:?}");
    ensure!(now.value.starts_with(r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4a:d0:4b:61:b4:99"},"Owner":""#), "{now:?}");
    ensure!(world.etcd.get_prefix(SUBNETS)?.len() == 4);
    Ok(())
}

#[test]
fn a_device_that_can_be_made_right_is_made_right_in_place() -> Result<()> {
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let mut member = world.member("h1")?;
    member.wait_peers(&peers)?;
    let identity = member.vtep_identity()?;
    member.agent.kill9()?;
    member.host.ip_batch(&format!(
        "link set {VTEP} mtu 1300\nlink set {VTEP} address 02:cc:00:00:00:01\naddr add 10.5.77.1/24 dev {VTEP}\naddr add 172.31.0.1/24 dev {VTEP}\n\
         addr add fe80::77/64 dev {VTEP}\nlink set {VTEP} type vxlan local 192.168.77.200\nlink set {VTEP} addrgenmode eui64\n"
    ))?;
    member.set_sysctl("net/ipv6/conf/flannel.1/accept_ra", "1")?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    let vtep = member.vtep()?;
    ensure!(member.vtep_identity()? == identity && vtep["mtu"] == 1450, "{vtep:#}");
    ensure!(vtep["linkinfo"]["info_data"]["local"] == "192.168.77.1" && vtep["inet6_addr_gen_mode"] == "none", "{vtep:#}");
    ensure!(member.sysctl("net/ipv6/conf/flannel.1/accept_ra")? == "0");
    let addresses = member.host.run(&["ip", "-o", "address", "show", "dev", VTEP])?;
    // The address of another network is somebody else's business.
    ensure!(addresses.lines().count() == 2 && addresses.contains("172.31.0.1/24") && !addresses.contains("10.5.77.1"), "{addresses}");
    let wanted: Vec<_> =
        peers.iter().flat_map(Peer::entries).chain(["172.31.0.0/24 proto kernel scope link src 172.31.0.1".to_owned()]).collect();
    let have = member.entries()?;
    ensure!(wanted.iter().all(|entry| have.contains(entry)) && have.len() == wanted.len(), "{have:#?}");
    Ok(())
}

#[test]
fn a_device_that_cannot_be_made_right_is_made_anew_with_all_its_entries() -> Result<()> {
    let wrong = [
        format!("link add {VTEP} type vxlan id 9 dstport 8472 local 192.168.77.1"),
        format!("link add {VTEP} type vxlan id 1 dstport 4789 local 192.168.77.1"),
        format!("link add {VTEP} type vxlan id 1 dstport 8472 local 192.168.77.1 gbp"),
        format!("link add {VTEP} type vxlan external dstport 8472"),
    ];
    let world = World::new()?;
    let peers = world.peers([201, 202])?;
    let mut member = world.member("h1")?;
    let (_, mac) = member.vtep_identity()?;
    for wrong in wrong {
        member.agent.kill9()?;
        member.host.ip_batch(&format!("link del {VTEP}\n{wrong}\nlink set {VTEP} up\n"))?;
        let (index, _) = member.vtep_identity()?;
        member.agent.restart()?;
        member.agent.wait_ready(PATIENCE)?;
        member.wait_peers(&peers)?;
        let (index_now, mac_now) = member.vtep_identity()?;
        let data = member.vtep()?["linkinfo"]["info_data"].clone();
        ensure!(index_now != index && mac_now == mac, "{wrong}: {data:#}");
        ensure!(
            data["id"] == 1 && data["port"] == 8472 && data.get("gbp").is_none() && data.get("external").is_none(),
            "{wrong}: {data:#}"
        );
    }
    Ok(())
}

#[test]
fn a_device_of_another_kind_under_the_vteps_name_is_named_and_left_alone() -> Result<()> {
    for (kind, make) in [("veth", "link add flannel.1 type veth peer name other"), ("bridge", "link add flannel.1 type bridge")] {
        let world = World::new()?;
        world.peers([201])?;
        let host = world.lab.host("h1")?;
        host.ip_batch(&format!("{make}\nlink set flannel.1 up\n"))?;
        let before = host.ip_json(&["link", "show", "dev", VTEP])?[0]["ifindex"].clone();
        let monitor = Monitor::start(&host)?;
        let mut member = Member::on(host, world.options()?)?;
        member.wait_unready_for(&[VTEP, kind])?;
        let status = member.agent.status_json()?;
        ensure!(status["data_plane"]["state"] == "blocked" && status["vteps"][0]["state"].to_string().contains(kind), "{status:#}");
        ensure!(member.vtep()?["ifindex"] == before && member.vtep()?["linkinfo"]["info_kind"] == kind);
        member.wait_log(&["not ready", VTEP, kind])?;
        let told: Vec<_> = monitor.so_far()?.into_iter().filter(|line| !line.contains("fe80")).collect();
        ensure!(!told.iter().any(|line| line.starts_with("Deleted") || line.contains("10.5.")), "{told:#?}");
        // Once it is out of the way, the VTEP is made.
        member.host.ip_batch("link set flannel.1 down\nlink set flannel.1 name mine\n")?;
        member.agent.wait_ready(PATIENCE)?;
        ensure!(
            member.vtep()?["linkinfo"]["info_kind"] == "vxlan"
                && member.host.ip_json(&["link", "show", "dev", "mine"])?[0]["ifindex"] == before
        );
    }
    Ok(())
}

#[test]
fn a_changed_outer_mtu_reaches_the_existing_device_and_the_subnet_file() -> Result<()> {
    let world = World::new()?;
    let mut member = world.member("h1")?;
    let identity = member.vtep_identity()?;
    member.agent.terminate()?;
    world.etcd.put(CONFIG_KEY, r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#)?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.vtep()?["mtu"] == 1350 && member.host.subnet_env()?.mtu()? == 1350 && member.vtep_identity()? == identity);
    Ok(())
}

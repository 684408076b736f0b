//! What somebody undoes is put back; what is somebody else's is left alone; what somebody keeps undoing is a fight.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use testkit::{KernelEntry, Table, Watch, wait_for};

use testkit::Monitor;
use testkit::world::{Member, PATIENCE, Peer, SUBNET_FILE, VTEP, World};

pub(crate) fn stage(numbers: impl IntoIterator<Item = u8>) -> Result<(World, Vec<Peer>, Member)> {
    let world = World::new()?;
    let peers = world.peers(numbers)?;
    let member = world.member("h1")?;
    member.wait_peers(&peers)?;
    Ok((world, peers, member))
}

/// The VTEP's addresses.
pub(crate) fn addresses(member: &Member) -> Result<String> {
    member.host.run(&["ip", "-o", "address", "show", "dev", VTEP])
}

#[test]
fn a_deleted_route_neighbour_or_fdb_entry_is_put_back_and_counted() -> Result<()> {
    let (_world, peers, member) = stage(201..=203)?;
    let watch = Watch::new(&member.host)?;
    for (table, kind) in [(Table::Route, "route"), (Table::Neighbour, "neighbour"), (Table::Fdb, "fdb")] {
        let before = member.agent.metric(&format!("loden_heals_total{{kind=\"{kind}\"}}")).unwrap_or(0.0);
        for entry in KernelEntry::list(&member.host, table, VTEP)? {
            watch.outage(&entry, PATIENCE)?;
        }
        member.wait_metric(&format!("loden_heals_total{{kind=\"{kind}\"}}"), before + 3.0)?;
    }
    member.wait_peers(&peers)?;
    let status = member.wait_status("nine heals", |status| status["heals"].as_array().is_some_and(|heals| heals.len() == 9))?;
    ensure!(status["heals"][0]["command"].to_string().contains("bridge fdb"), "newest first: {:#}", status["heals"]);
    member.ensure_ready()
}

#[test]
fn a_changed_route_neighbour_or_fdb_entry_is_put_right() -> Result<()> {
    let (_world, peers, member) = stage([201, 202])?;
    let Peer { mac, .. } = &peers[0];
    member.host.run(&["ip", "neigh", "replace", "10.5.201.0", "lladdr", "02:ee:00:00:00:01", "dev", VTEP, "nud", "permanent"])?;
    member.wait_peers(&peers)?;
    member.host.run(&["bridge", "fdb", "replace", mac, "dev", VTEP, "dst", "192.168.77.66", "self", "permanent"])?;
    member.wait_peers(&peers)?;
    member.host.run(&[
        "ip",
        "route",
        "replace",
        "10.5.201.0/24",
        "via",
        "10.5.202.0",
        "dev",
        VTEP,
        "onlink",
        "proto",
        "76",
        "metric",
        "202",
    ])?;
    member.wait_peers(&peers)?;
    member.wait_status("in step", |status| status["ready"] == true).map(drop)
}

#[test]
fn what_has_no_business_on_the_device_goes() -> Result<()> {
    let (_world, peers, mut member) = stage([201, 202])?;
    for stray in [
        // flanneld's route for a peer of ours, which would win over ours by its metric; one to nowhere; a second way.
        "ip route add 10.5.201.0/24 via 10.5.201.0 dev flannel.1 onlink",
        "ip route add 10.5.230.0/24 via 10.5.230.0 dev flannel.1 onlink proto 76",
        "ip route add 10.5.202.0/25 dev flannel.1 metric 7",
        "ip neigh add 10.5.230.0 lladdr 02:ee:00:00:00:02 dev flannel.1 nud permanent",
        "bridge fdb add 02:ee:00:00:00:02 dev flannel.1 dst 192.168.77.66 self permanent",
        // Where frames to an unknown MAC are flooded to.
        "bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.168.77.66 self permanent",
        "ip address add 10.5.230.1/24 dev flannel.1",
    ] {
        member.host.run(&stray.split(' ').collect::<Vec<_>>())?;
        member.wait_peers(&peers).with_context(|| stray.to_owned())?;
    }
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn everything_flushed_at_once_is_back_at_once() -> Result<()> {
    let (_world, peers, mut member) = stage(130..=229)?;
    for flush in ["ip route flush dev flannel.1", "ip neigh flush dev flannel.1 nud permanent", "ip route flush proto 76"] {
        member.host.run(&flush.split(' ').collect::<Vec<_>>())?;
        member.wait_peers(&peers).with_context(|| flush.to_owned())?;
    }
    let fdb: String = peers.iter().map(|peer| format!("fdb del {} dev {VTEP} self\n", peer.mac)).collect();
    let file = member.host.files().join("fdb");
    std::fs::write(&file, fdb)?;
    member.host.run(&["bridge", "-batch", &file.display().to_string()])?;
    member.wait_peers(&peers)?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.agent.status_json()?["fights"].as_array().is_some_and(Vec::is_empty));
    Ok(())
}

#[test]
fn a_foreign_route_in_the_place_of_ours_is_named_and_left_alone_and_ours_is_put_when_it_is_gone() -> Result<()> {
    let (world, mut peers, mut member) = stage([201])?;
    let foreign = "10.5.202.0/24 via 192.168.77.254 metric 203";
    member.host.ip_batch("route add 10.5.202.0/24 via 192.168.77.254 dev eth0 metric 203\n")?;
    peers.push(world.put(Peer::new(202))?);
    member.wait_unready_for(&["10.5.202.0/24", "foreign route"])?;
    let there = || member.host.run(&["ip", "route", "show", "10.5.202.0/24", "dev", "eth0"]);
    ensure!(there()?.trim() == foreign, "{}", there()?);
    peers.push(world.put(Peer::new(203))?);
    let wanted: Vec<_> = peers.iter().flat_map(Peer::entries).filter(|entry| !entry.starts_with("10.5.202.0/24")).collect();
    wait_for("the other entries", PATIENCE, || {
        let have = member.entries()?;
        ensure!(have.len() == wanted.len() && wanted.iter().all(|entry| have.contains(entry)), "{have:#?}");
        Ok(())
    })?;
    ensure!(there()?.trim() == foreign);
    member.host.ip_batch("route del 10.5.202.0/24 via 192.168.77.254 dev eth0 metric 203\n")?;
    member.wait_peers(&peers)?;
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn a_deleted_device_comes_back_the_same_with_everything_on_it() -> Result<()> {
    let (_world, peers, member) = stage(201..=205)?;
    let (before, (index, mac), had) = (member.vtep()?, member.vtep_identity()?, addresses(&member)?);
    member.host.ip_batch(&format!("link del {VTEP}\n"))?;
    wait_for("another device", PATIENCE, || {
        ensure!(member.vtep_identity()?.0 != index);
        Ok(())
    })?;
    member.wait_peers(&peers)?;
    let after = member.vtep()?;
    ensure!(after["linkinfo"] == before["linkinfo"] && after["mtu"] == before["mtu"] && member.vtep_identity()?.1 == mac);
    let tail = |text: &str| text.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
    ensure!(tail(&addresses(&member)?) == tail(&had), "{}", addresses(&member)?);
    member.wait_status("in step", |status| status["ready"] == true)?;
    member.wait_metric("loden_heals_total{kind=\"device\"}", 1.0)
}

#[test]
fn the_underlays_device_may_go_down_and_up_and_take_nothing_along() -> Result<()> {
    let (_world, peers, mut member) = stage([201, 202])?;
    let identity = member.vtep_identity()?;
    let monitor = Monitor::start(&member.host)?;
    member.host.ip_batch(&format!("link set eth0 down\nlink set eth0 up\nroute add default via {}\n", testkit::Lab::GATEWAY))?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;
    ensure!(member.vtep_identity()? == identity && monitor.so_far()?.is_empty(), "{:#?}", monitor.so_far()?);
    Ok(())
}

#[test]
fn a_device_that_goes_down_and_up_has_all_its_entries_again() -> Result<()> {
    let (_world, peers, mut member) = stage(201..=205)?;
    let identity = member.vtep_identity()?;
    member.host.ip_batch(&format!("link set {VTEP} down\nlink set {VTEP} up\n"))?;
    member.wait_peers(&peers)?;
    member.host.ip_batch(&format!("link set {VTEP} down\n"))?;
    wait_for("the device to be up", PATIENCE, || {
        ensure!(member.vtep()?["flags"].to_string().contains("\"UP\""));
        Ok(())
    })?;
    member.wait_peers(&peers)?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.vtep_identity()? == identity);
    Ok(())
}

#[test]
fn mtu_mac_and_addresses_of_the_device_are_put_right() -> Result<()> {
    let (_world, peers, mut member) = stage([201, 202])?;
    let (identity, had) = (member.vtep_identity()?, addresses(&member)?);
    let own = had.split_whitespace().nth(3).context("no address")?.to_owned();
    for change in [
        format!("link set {VTEP} mtu 1300"),
        format!("link set {VTEP} address 02:ee:00:00:00:03"),
        format!("address del {own} dev {VTEP}"),
        format!("address add 10.5.240.1/24 dev {VTEP}"),
        format!("address add 10.5.241.1/24 peer 10.5.242.1 dev {VTEP}"),
        format!("address add 10.5.241.1 peer 10.5.243.1/32 dev {VTEP}"),
        format!("link set {VTEP} type vxlan local 192.168.77.99"),
    ] {
        member.host.ip_batch(&format!("{change}\n"))?;
        wait_for(&format!("the end of {change}"), PATIENCE, || {
            let vtep = member.vtep()?;
            ensure!(vtep["mtu"] == 1450 && member.vtep_identity()? == identity, "{vtep:#}");
            ensure!(vtep["linkinfo"]["info_data"]["local"] == "192.168.77.1", "{vtep:#}");
            ensure!(addresses(&member)? == had, "{}", addresses(&member)?);
            Ok(())
        })?;
        member.wait_peers(&peers)?;
    }
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn a_device_set_to_threaded_napi_is_made_anew_at_once() -> Result<()> {
    let (_world, peers, member) = stage([201, 202])?;
    let (index, mac) = member.vtep_identity()?;
    member.host.run(&["sh", "-c", "echo 1 >/sys/class/net/flannel.1/threaded"])?;
    wait_for("another device", PATIENCE, || {
        ensure!(member.vtep_identity()?.0 != index);
        Ok(())
    })?;
    member.wait_peers(&peers)?;
    ensure!(member.vtep_identity()?.1 == mac);
    ensure!(member.host.run(&["cat", "/sys/class/net/flannel.1/threaded"])?.trim() == "0");
    member.wait_metric("loden_heals_total{kind=\"device\"}", 1.0)
}

#[test]
fn a_bridge_that_took_the_name_of_the_running_vtep_gives_way_to_it() -> Result<()> {
    let (_world, peers, mut member) = stage([201, 202])?;
    let (_, mac) = member.vtep_identity()?;
    // Else the agent would be there before the bridge.
    member.agent.signal(Signal::SIGSTOP)?;
    member.host.ip_batch(&format!("link del {VTEP}\nlink add {VTEP} type bridge\n"))?;
    member.agent.signal(Signal::SIGCONT)?;
    member.wait_peers(&peers)?;
    ensure!(member.vtep()?["linkinfo"]["info_kind"] == "vxlan" && member.vtep_identity()?.1 == mac);
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn what_happened_while_the_kernels_news_were_lost_is_found_by_a_look_at_everything() -> Result<()> {
    let (_world, peers, mut member) = stage(201..=205)?;
    let monitor = Monitor::start(&member.host)?;
    member.agent.signal(Signal::SIGSTOP)?;
    // More news than a socket's buffer holds, and behind them what matters, some of which makes no news at all.
    let noise: String = (0..4000).map(|n| format!("route add 10.77.{}.{}/32 dev lo\n", n / 250, n % 250)).collect();
    member.host.ip_batch(&noise)?;
    member.host.ip_batch(&format!("route del 10.5.201.0/24 dev {VTEP}\nneigh del 10.5.202.0 dev {VTEP}\nlink set {VTEP} mtu 1300\n"))?;
    member.host.run(&["bridge", "fdb", "del", &peers[2].mac, "dev", VTEP, "self"])?;
    member.set_sysctl("net/ipv4/ip_forward", "0")?;
    member.set_sysctl("net/ipv6/conf/flannel.1/accept_ra", "1")?;
    member.agent.signal(Signal::SIGCONT)?;
    member.wait_peers(&peers)?;
    wait_for("settings and MTU to be right", PATIENCE, || {
        ensure!(member.sysctl("net/ipv4/ip_forward")? == "1" && member.sysctl("net/ipv6/conf/flannel.1/accept_ra")? == "0");
        ensure!(member.vtep()?["mtu"] == 1450);
        Ok(())
    })?;
    member.agent.wait_ready(PATIENCE)?;
    let touched: Vec<_> = monitor.so_far()?.into_iter().filter(|line| line.contains("10.5.204.0") || line.contains("10.5.205.0")).collect();
    ensure!(touched.is_empty(), "{touched:#?}");
    Ok(())
}

#[test]
fn the_subnet_file_is_put_back_when_it_is_removed_edited_or_its_folder_goes() -> Result<()> {
    let (_world, _peers, member) = stage([201])?;
    let text = member.host.read(SUBNET_FILE)?;
    for harm in [format!("rm {SUBNET_FILE}"), format!("echo FLANNEL_MTU=9000 >>{SUBNET_FILE}"), format!(": >{SUBNET_FILE}")] {
        member.host.run(&["sh", "-c", &harm])?;
        wait_for(&format!("the end of {harm}"), PATIENCE, || {
            ensure!(member.host.read(SUBNET_FILE)? == text);
            Ok(())
        })?;
    }
    member.host.run(&["rm", "-r", "/run/flannel"])?;
    wait_for("the folder and the file", PATIENCE * 3, || {
        ensure!(member.host.read(SUBNET_FILE)? == text);
        Ok(())
    })?;
    member.wait_metric("loden_heals_total{kind=\"subnet_file\"}", 4.0)?;
    member.ensure_ready()
}

#[test]
fn what_others_have_stays_untouched_through_deletion_restart_and_healing() -> Result<()> {
    let (_world, peers, mut member) = stage([201, 202])?;
    member.host.ip_batch(
        "link add decoy type vxlan id 99 dstport 4789 local 192.168.77.1\nlink set decoy up\naddr add 10.99.0.1/24 dev decoy\n\
         route add 10.5.201.0/25 via 192.168.77.254 dev eth0 proto 77 metric 5000\nroute add 10.200.0.0/24 dev decoy proto 76\n\
         route add 10.5.202.0/24 dev decoy metric 9000\n\
         neigh add 192.168.77.77 lladdr 02:dd:00:00:00:01 dev eth0 nud permanent\nneigh add 10.99.0.2 lladdr 02:dd:00:00:00:02 dev decoy nud permanent\n\
         route add 10.5.203.0/24 via 192.168.77.254 table 77\n",
    )?;
    member.host.run(&["bridge", "fdb", "add", "02:dd:00:00:00:02", "dev", "decoy", "dst", "192.168.77.66", "self", "permanent"])?;
    let others = |member: &Member| -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for argv in [
            &["ip", "-o", "link", "show", "decoy"][..],
            &["ip", "-4", "-o", "address", "show", "decoy"],
            &["ip", "route", "show", "table", "all", "dev", "eth0", "proto", "77"],
            &["ip", "route", "show", "dev", "decoy"],
            &["ip", "route", "show", "table", "77"],
            &["ip", "neigh", "show", "nud", "permanent", "dev", "eth0"],
            &["ip", "neigh", "show", "dev", "decoy", "nud", "permanent"],
            &["bridge", "fdb", "show", "dev", "decoy"],
        ] {
            lines.extend(member.host.run(argv)?.lines().map(str::to_owned));
        }
        Ok(lines)
    };
    let before = others(&member)?;
    ensure!(before.len() >= 9, "{before:#?}");
    member.host.ip_batch(&format!("link del {VTEP}\n"))?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_peers(&peers)?;
    member.host.ip_batch(&format!("link set {VTEP} down\nlink set {VTEP} up\n"))?;
    member.wait_peers(&peers)?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(others(&member)? == before, "before: {before:#?}, now: {:#?}", others(&member)?);
    let status = member.agent.status_json()?;
    ensure!(
        status["warnings"].to_string().contains("10.5.201.0/25"),
        "a route that takes a peer's traffic is not said: {:#}",
        status["warnings"]
    );
    member.agent.terminate()?;
    member.agent.ask(&["cleanup"])?;
    ensure!(others(&member)? == before, "before: {before:#?}, now: {:#?}", others(&member)?);
    ensure!(member.vtep().is_err(), "{VTEP} is still there");
    Ok(())
}

//! The agent on Kubernetes' Nodes when something is wrong: the API server is away, Nodes are odd, flanneld runs still.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::world::{Member, PATIENCE, VTEP};
use testkit::{Host, Monitor, wait_for};

use crate::cluster::{CONFIG, Cluster, DUAL, PREFIX};
use crate::conflicts::Flanneld;

/// A Node as flannel annotates it.
fn flannels_node(cluster: &Cluster, number: u8) -> Result<()> {
    let name = format!("f{number}");
    cluster.api.put_node(&name, &[&format!("10.244.{number}.0/24"), &format!("fc00:244:{number:x}::/64")])?;
    cluster.annotate(
        &name,
        &[
            ("backend-data", &format!(r#"{{"VNI":1,"VtepMAC":"96:a2:c2:68:04:{number:02x}"}}"#)),
            ("backend-type", "vxlan"),
            ("backend-v6-data", &format!(r#"{{"VNI":1,"VtepMAC":"96:a2:c2:68:06:{number:02x}"}}"#)),
            ("kube-subnet-manager", "true"),
            ("public-ip", &format!("192.168.77.{number}")),
            ("public-ipv6", &format!("fd77::{number:x}")),
        ],
    )
}

/// The routes and FDB entries of a VTEP.
fn held(host: &Host, vtep: &str) -> Result<String> {
    let family = if vtep == VTEP { "-4" } else { "-6" };
    Ok(host.run(&["ip", family, "route", "show", "dev", vtep])? + &host.run(&["bridge", "fdb", "show", "dev", vtep])?)
}

fn wait_held(host: &Host, vtep: &str, there: &[&str], gone: &[&str]) -> Result<()> {
    wait_for(&format!("the entries on {vtep}"), PATIENCE, || {
        let have = held(host, vtep)?;
        ensure!(there.iter().all(|words| have.contains(words)) && !gone.iter().any(|words| have.contains(words)), "{have}");
        Ok(())
    })
}

#[test]
fn nodes_that_flanneld_annotates_are_peers_and_one_family_may_change_alone() -> Result<()> {
    let cluster = Cluster::new(DUAL)?;
    flannels_node(&cluster, 201)?;
    cluster.api.put_node("unmanaged", &["10.244.202.0/24", "fc00:244:202::/64"])?;
    let member = cluster.member("n1", &["10.244.1.0/24", "fc00:244:1::/64"])?;
    let v6 = "flannel-v6.1";
    wait_held(&member.host, VTEP, &["10.244.201.0/24 via 10.244.201.0", "96:a2:c2:68:04:c9 dst 192.168.77.201"], &["10.244.202.0"])?;
    wait_held(&member.host, v6, &["fc00:244:c9::/64 via fc00:244:c9::", "96:a2:c2:68:06:c9 dst fd77::c9"], &[])?;
    cluster.annotate("f201", &[("public-ipv6", "fd77::dd")])?;
    wait_held(&member.host, v6, &["96:a2:c2:68:06:c9 dst fd77::dd"], &["fd77::c9"])?;
    cluster.annotate("f201", &[("backend-data", r#"{"VNI":1,"VtepMAC":"96:a2:c2:68:04:01"}"#)])?;
    wait_held(&member.host, VTEP, &["96:a2:c2:68:04:01 dst 192.168.77.201"], &["96:a2:c2:68:04:c9"])?;
    cluster.api.annotate("f201", &[(&format!("{PREFIX}kube-subnet-manager"), None)])?;
    wait_held(&member.host, VTEP, &[], &["10.244.201.0"])?;
    wait_held(&member.host, v6, &[], &["fc00:244:c9::"])
}

#[test]
fn a_list_that_is_too_old_is_made_anew_and_nothing_is_lost() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let member = cluster.member("n1", &["10.244.1.0/24"])?;
    flannels_node(&cluster, 201)?;
    flannels_node(&cluster, 202)?;
    wait_held(&member.host, VTEP, &["10.244.201.0/24", "10.244.202.0/24"], &[])?;
    for name in ["n1", "f201", "f202"] {
        cluster.api.heartbeat(name)?;
    }
    let monitor = Monitor::start(&member.host)?;
    let claims = member.log_lines(&["lease held"]);
    cluster.api.delete_node("f202")?;
    cluster.api.compact();
    flannels_node(&cluster, 203)?;
    wait_held(&member.host, VTEP, &["10.244.201.0/24", "10.244.203.0/24"], &["10.244.202.0"])?;
    let touched: Vec<_> = monitor.so_far()?.into_iter().filter(|line| line.contains("10.244.201.0")).collect();
    ensure!(touched.is_empty(), "{touched:#?}");
    ensure!(member.log_lines(&["lease held"]) == claims, "the lease was claimed again: {}", member.agent.log_tail());
    Ok(())
}

#[test]
fn while_the_api_server_is_away_the_device_heals_and_what_changed_is_caught_up() -> Result<()> {
    let mut cluster = Cluster::new(CONFIG)?;
    let member = cluster.member("n1", &["10.244.1.0/24"])?;
    let other = cluster.member("n2", &["10.244.2.0/24"])?;
    let [c1, c2] = [member.host.container("c1")?, other.host.container("c2")?];
    wait_for("the containers to reach each other", PATIENCE, || c1.ping(c2.address(), 56, false))?;
    cluster.api.stop();
    member.wait_status("that the store is down", |status| status["store"]["state"] == "down")?;
    member.host.run(&["ip", "link", "del", VTEP])?;
    wait_for("the containers to reach each other again", PATIENCE, || c1.ping(c2.address(), 56, false))?;
    member.ensure_ready()?;
    flannels_node(&cluster, 201)?;
    cluster.api.start()?;
    wait_held(&member.host, VTEP, &["10.244.2.0/24", "10.244.201.0/24"], &[])?;
    member.wait_status("that the store is up", |status| status["store"]["state"] == "up")?;
    member.ensure_ready()
}

#[test]
fn a_node_that_boots_while_the_api_server_is_away_goes_on_from_what_it_knew() -> Result<()> {
    let mut cluster = Cluster::new(CONFIG)?;
    let mut member = cluster.starting("n1", &["10.244.1.0/24"])?;
    cluster.annotate("n1", &[("node-public-ip", "192.168.77.1")])?;
    member.agent.wait_ready(PATIENCE)?;
    let other = cluster.member("n2", &["10.244.2.0/24"])?;
    wait_held(&member.host, VTEP, &["10.244.2.0/24"], &[])?;
    wait_for("the last state to name n2", PATIENCE, || {
        let state = member.host.read("/var/lib/loden/state")?;
        ensure!(state.contains("10.244.2.0/24"), "{state}");
        Ok(())
    })?;
    let before = cluster.api.node("n1")?["metadata"]["annotations"].clone();
    cluster.api.stop();
    member.agent.kill9()?;
    member.host.boot()?;
    member.agent.restart()?;
    member.wait_status("that it goes on from the last state", |status| status["stale"] == true)?;
    wait_held(&member.host, VTEP, &["10.244.2.0/24"], &[])?;
    member.agent.wait_ready(PATIENCE)?;
    let [c1, c2] = [member.host.container("c1")?, other.host.container("c2")?];
    wait_for("the containers to reach each other", PATIENCE, || c1.ping(c2.address(), 56, false))?;
    cluster.api.start()?;
    member.wait_status("that it is no longer stale", |status| status["stale"] == false && status["ready"] == true)?;
    ensure!(cluster.api.node("n1")?["metadata"]["annotations"] == before, "the Node was written");
    Ok(())
}

#[test]
fn a_first_boot_without_the_api_server_waits_for_it_and_says_so() -> Result<()> {
    let mut cluster = Cluster::new(CONFIG)?;
    cluster.api.stop();
    let mut member = cluster.starting("n1", &["10.244.1.0/24"])?;
    member.wait_log(&["no last state to go on from"])?;
    let why = member.wait_unready()?;
    ensure!(member.vtep().is_err(), "{why}");
    cluster.api.start()?;
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn two_nodes_with_one_pod_cidr_are_told_on_both_and_the_others_are_served() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let member = cluster.member("n1", &["10.244.1.0/24"])?;
    flannels_node(&cluster, 201)?;
    cluster.api.put_node("twin", &["10.244.1.0/24"])?;
    cluster.annotate(
        "twin",
        &[
            ("kube-subnet-manager", "true"),
            ("backend-type", "vxlan"),
            ("backend-data", r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}"#),
            ("public-ip", "192.168.77.99"),
        ],
    )?;
    cluster.wait_event("n1", "DuplicatePodCIDR", &["twin", "10.244.1.0/24"])?;
    wait_held(&member.host, VTEP, &["10.244.201.0/24"], &["02:00:00:00:00:99"])?;
    ensure!(cluster.annotation("n1", "public-ip")?.as_deref() == Some("192.168.77.1"));
    member.ensure_ready()
}

#[test]
fn a_peer_that_cannot_be_one_is_told_on_the_node_and_costs_nobody_else_anything() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    flannels_node(&cluster, 201)?;
    flannels_node(&cluster, 202)?;
    cluster.annotate("f202", &[("public-ip", "127.0.0.1")])?;
    let member = cluster.member("n1", &["10.244.1.0/24"])?;
    wait_held(&member.host, VTEP, &["10.244.201.0/24"], &["10.244.202.0"])?;
    cluster.wait_event("n1", "PeerRejected", &["10.244.202.0", "127.0.0.1"])
}

#[test]
fn what_the_service_account_may_not_do_is_told_and_costs_nothing_else() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    cluster.api.forbid("create", "events");
    flannels_node(&cluster, 202)?;
    cluster.annotate("f202", &[("public-ip", "127.0.0.1")])?;
    let member = cluster.member("n1", &["10.244.1.0/24"])?;
    member.wait_log(&["no Event can be put", "events"])?;
    member.ensure_ready()
}

#[test]
fn a_flanneld_that_runs_still_is_waited_for_and_followed_at_once() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    cluster.api.put_node("n1", &["10.244.1.0/24"])?;
    let host = cluster.lab.host("n1")?;
    let flanneld = Flanneld::on(&host, &[])?;
    let mut member = Member::on(host, cluster.options("n1")?)?;
    member.wait_unready_for(&["flanneld is running here", "waited for"])?;
    ensure!(member.vtep().is_err() && cluster.annotation("n1", "public-ip")?.is_none(), "it has begun beside flanneld");
    drop(flanneld);
    member.agent.wait_ready(PATIENCE)?;
    cluster.wait_annotation("n1", "public-ip", "192.168.77.1")
}

#[test]
fn a_kubeconfig_with_a_token_opens_the_way() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    cluster.api.want_token(Some("sesame"));
    cluster.api.put_node("n1", &["10.244.1.0/24"])?;
    let host = cluster.lab.host("n1")?;
    let file = host.files().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{ "name": "here", "context": { "cluster": "here", "user": "us" } }],
        "clusters": [{ "name": "here", "cluster": { "server": cluster.api.url() } }],
        "users": [{ "name": "us", "user": { "token": "sesame" } }],
    });
    std::fs::write(&file, config.to_string())?;
    let options = cluster.options("n1")?.args(["--kube-api-url=", "--kubeconfig-file", file.to_str().context("no text")?]);
    let mut member = Member::on(host, options)?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(!member.agent.log_contains("sesame"));
    Ok(())
}

#[test]
fn nodes_that_come_and_go_and_come_again_end_as_what_is_there() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let member = cluster.member("n1", &["10.244.1.0/24"])?;
    for round in 0..20 {
        for number in 201..=205 {
            flannels_node(&cluster, number)?;
        }
        for number in (201..=205).filter(|number| round < 19 || number % 2 == 0) {
            cluster.api.delete_node(&format!("f{number}"))?;
        }
    }
    let there = ["10.244.201.0/24", "10.244.203.0/24", "10.244.205.0/24"];
    wait_held(&member.host, VTEP, &there, &["10.244.202.0", "10.244.204.0"])
}

#[test]
fn somebody_who_keeps_editing_our_annotations_is_fought_with_patience_and_told_of() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let member = cluster.member("n1", &["10.244.1.0/24"])?;
    let identity = member.vtep_identity()?;
    let before = cluster.api.revision();
    let edits = std::cell::Cell::new(0_u64);
    wait_for("the fight to be told of", PATIENCE, || {
        // Whoever it is does it again as soon as it is put right.
        if cluster.annotation("n1", "public-ip")?.as_deref() == Some("192.168.77.1") {
            cluster.annotate("n1", &[("public-ip", "192.168.77.99")])?;
            edits.set(edits.get() + 1);
        }
        let (_, body) = member.agent.get("/readyz")?;
        ensure!(body.contains("in a row") && edits.get() > 4, "{body}");
        Ok(())
    })?;
    let writes = cluster.api.revision() - before;
    ensure!(writes < 40, "{writes} writes");
    cluster.wait_annotation("n1", "public-ip", "192.168.77.1")?;
    member.wait_status("that all is well", |status| status["ready"] == true)?;
    ensure!(member.vtep_identity()? == identity, "the VTEP has changed");
    Ok(())
}

#[test]
fn a_condition_that_is_set_otherwise_is_set_right_when_the_api_server_comes_back() -> Result<()> {
    let mut cluster = Cluster::new(CONFIG)?;
    let member = cluster.member("n1", &["10.244.1.0/24"])?;
    let available = |cluster: &Cluster| {
        wait_for("the condition to be False", PATIENCE, || {
            let condition = cluster.condition("n1", "NetworkUnavailable")?;
            ensure!(condition["status"] == "False", "{condition:#}");
            Ok(())
        })
    };
    available(&cluster)?;
    cluster.api.set_condition("n1", &json!({ "type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated" }))?;
    cluster.api.stop();
    member.wait_status("that the store is down", |status| status["store"]["state"] == "down")?;
    cluster.api.start()?;
    available(&cluster)
}

#[test]
fn a_condition_that_is_not_ours_to_set_is_left_alone() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    cluster.api.put_node("n1", &["10.244.1.0/24"])?;
    let options = cluster.options("n1")?.args(["--set-node-network-unavailable=false"]);
    let mut member = Member::on(cluster.lab.host("n1")?, options)?;
    member.agent.wait_ready(PATIENCE)?;
    // A second Node's agent, which may, has set its own by the time that it is told of.
    let _other = cluster.member("n2", &["10.244.2.0/24"])?;
    wait_for("n2's condition", PATIENCE, || cluster.condition("n2", "NetworkUnavailable").map(drop))?;
    ensure!(cluster.condition("n1", "NetworkUnavailable").is_err());
    Ok(())
}

//! The agent on Kubernetes' Nodes: hosts reach each other, and follow what happens to their Nodes.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::world::{Member, PATIENCE, VTEP};
use testkit::{Monitor, wait_for};

use crate::cluster::{CONFIG, Cluster, DUAL, PREFIX};

#[test]
fn three_hosts_reach_each_other_over_their_nodes_in_both_families() -> Result<()> {
    let cluster = Cluster::new(DUAL)?;
    let hosts = ["n1", "n2", "n3"];
    let cidrs = |number: usize| [format!("10.244.{number}.0/24"), format!("fc00:244:{number}::/64")];
    let start = |(number, name): (usize, &&str)| {
        let [v4, v6] = cidrs(number + 1);
        cluster.starting(name, &[&v4, &v6])
    };
    let mut members = hosts.iter().enumerate().map(start).collect::<Result<Vec<_>>>()?;
    let mut containers = Vec::new();
    for member in &mut members {
        member.agent.wait_ready(PATIENCE)?;
        containers.push(member.host.container("c")?);
    }
    for from in &containers {
        for to in containers.iter().filter(|to| to.address() != from.address()) {
            wait_for("containers to reach each other", PATIENCE, || from.ping(to.address(), 1372, true))?;
            wait_for("containers to reach each other over IPv6", PATIENCE, || from.ping(to.address_v6(), 1372, true))?;
        }
    }
    let node = cluster.api.node("n1")?;
    let said = &node["metadata"]["annotations"];
    let link = members.first().context("no member")?.vtep()?;
    ensure!(said[format!("{PREFIX}kube-subnet-manager")] == "true" && said[format!("{PREFIX}backend-type")] == "vxlan", "{said:#}");
    ensure!(said[format!("{PREFIX}public-ip")] == "192.168.77.1" && said[format!("{PREFIX}public-ipv6")] == "fd77::1", "{said:#}");
    ensure!(link["address"] == cluster.mac("n1")?.as_str(), "{link:#}");
    Ok(())
}

#[test]
fn a_ready_agent_says_that_its_node_has_a_network_and_a_restart_writes_nothing() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let mut member = cluster.member("n1", &["10.244.1.0/24"])?;
    let other = cluster.member("n2", &["10.244.2.0/24"])?;
    wait_for("the condition", PATIENCE, || cluster.condition("n1", "NetworkUnavailable").map(drop))?;
    let condition = cluster.condition("n1", "NetworkUnavailable")?;
    ensure!(condition["status"] == "False" && condition["reason"] == "FlannelIsUp", "{condition:#}");
    ensure!(condition["message"] == "Flannel is running on this node", "{condition:#}");
    wait_for("n2's condition", PATIENCE, || cluster.condition("n2", "NetworkUnavailable").map(drop))?;
    let (before, identity) = (cluster.api.revision(), member.vtep_identity()?);
    let monitor = Monitor::start(&member.host)?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    // It asks how the condition stands, and finds it right.
    wait_for("the agent to have looked at its Node", PATIENCE, || {
        ensure!(member.agent.status_json()?["store"]["state"] == "up");
        Ok(())
    })?;
    ensure!(monitor.so_far()?.is_empty(), "the kernel tells of changes: {:#?}", monitor.so_far()?);
    ensure!(member.vtep_identity()? == identity && cluster.api.revision() == before, "the Nodes were written");
    let status = member.agent.status_json()?;
    ensure!(status["store"]["kind"] == "kubernetes" && status["store"]["node"] == "n1", "{status:#}");
    ensure!(status["lease"]["how"] == "the Node's podCIDR" && status["warnings"] == json!([]), "{status:#}");
    let text = member.agent.ask(&["status"])?;
    ensure!(text.contains("Kubernetes, up") && text.contains(&cluster.api.url()) && text.contains("Node n1"), "{text}");
    other.ensure_ready()
}

#[test]
fn the_vtep_keeps_its_mac_over_a_reboot_and_without_an_annotation_it_follows_from_the_nodes_name() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let mut member = cluster.member("n1", &["10.244.1.0/24"])?;
    let mac_before = cluster.mac("n1")?;
    member.agent.kill9()?;
    member.host.boot()?;
    cluster.api.delete_node("n1")?;
    cluster.api.put_node("n1", &["10.244.1.0/24"])?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(cluster.mac("n1")? == mac_before);
    // What the others know goes before that.
    let known = "02:00:00:00:00:77";
    member.agent.kill9()?;
    member.host.boot()?;
    cluster.api.annotate("n1", &[(&format!("{PREFIX}backend-data"), Some(&format!(r#"{{"VNI":1,"VtepMAC":"{known}"}}"#)))])?;
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(cluster.mac("n1")? == known && member.vtep()?["address"] == known);
    Ok(())
}

#[test]
fn annotations_that_somebody_removes_or_edits_are_put_back_and_the_vtep_stays() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let member = cluster.member("n1", &["10.244.1.0/24"])?;
    let other = cluster.member("n2", &["10.244.2.0/24"])?;
    let (identity, before) = (member.vtep_identity()?, cluster.api.node("n1")?["metadata"]["annotations"].clone());
    let names = ["kube-subnet-manager", "backend-data", "public-ip"].map(|name| format!("{PREFIX}{name}"));
    let [managed, data, address] = &names;
    let edits: [&[(&str, Option<&str>)]; 4] = [
        &[(managed, None)],
        &[(managed, None), (data, None), (address, None)],
        &[(data, Some(r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:66"}"#))],
        &[(address, Some("192.168.77.99"))],
    ];
    for edit in edits {
        cluster.api.annotate("n1", edit)?;
        wait_for("the annotations to be put back", PATIENCE, || {
            let now = cluster.api.node("n1")?["metadata"]["annotations"].clone();
            ensure!(now == before, "they are {now:#}");
            Ok(())
        })?;
    }
    ensure!(member.vtep_identity()? == identity, "the VTEP has changed");
    let [c1, c2] = [member.host.container("c1")?, other.host.container("c2")?];
    wait_for("the containers to reach each other", PATIENCE, || c2.ping(c1.address(), 56, false))
}

#[test]
fn a_node_that_gets_its_pod_cidr_late_or_another_one_is_followed_without_a_restart() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let other = cluster.member("n2", &["10.244.2.0/24"])?;
    let mut member = cluster.starting("n1", &[])?;
    let why = member.wait_unready_for(&["podCIDR", "--allocate-node-cidrs"])?;
    cluster.wait_event("n1", "NoSubnet", &["podCIDR"]).with_context(|| why)?;
    cluster.api.patch("n1", &json!({ "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] } }))?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(member.host.subnet_env()?.subnet()?.to_string() == "10.244.1.1/24");
    cluster.api.delete_node("n1")?;
    member.wait_unready()?;
    wait_for("n2 to forget n1", PATIENCE, || {
        let routes = other.host.run(&["ip", "route", "show", "dev", VTEP])?;
        ensure!(!routes.contains("10.244.1.0"), "{routes}");
        Ok(())
    })?;
    cluster.api.put_node("n1", &["10.244.9.0/24"])?;
    wait_for("the subnet file to say so", PATIENCE, || {
        let subnet = member.host.subnet_env()?.subnet()?;
        ensure!(subnet.to_string() == "10.244.9.1/24", "it says {subnet}");
        Ok(())
    })?;
    member.agent.wait_ready(PATIENCE)?;
    let addresses = member.host.run(&["ip", "-brief", "address", "show", "dev", VTEP])?;
    ensure!(addresses.contains("10.244.9.0/32") && !addresses.contains("10.244.1.0"), "{addresses}");
    let (c1, c2) = (member.host.container("c1")?, other.host.container("c2")?);
    wait_for("the containers to reach each other", PATIENCE, || c2.ping(c1.address(), 56, false))?;
    wait_for("the condition", PATIENCE, || cluster.condition("n1", "NetworkUnavailable").map(drop))
}

#[test]
fn a_pod_cidr_outside_of_the_network_is_told_and_heals_with_the_configuration() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let mut member = cluster.starting("n1", &["10.99.1.0/24"])?;
    member.wait_unready_for(&["10.99.1.0/24", "10.244.0.0/16", "--cluster-cidr"])?;
    cluster.wait_event("n1", "NoSubnet", &["10.99.1.0/24", "10.244.0.0/16"])?;
    cluster.configure(r#"{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan"}}"#)?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(cluster.annotation("n1", "public-ip")?.as_deref() == Some("192.168.77.1"));
    Ok(())
}

#[test]
fn a_family_without_a_pod_cidr_is_told_and_one_that_is_off_is_not_used() -> Result<()> {
    let cluster = Cluster::new(DUAL)?;
    let lacking = cluster.starting("n1", &["10.244.1.0/24"])?;
    lacking.wait_unready_for(&["no IPv6 subnet", "fc00:244::/32"])?;
    drop(lacking);
    let single = Cluster::new(CONFIG)?;
    let member = single.member("n1", &["10.244.1.0/24", "fc00:244:1::/64"])?;
    let other = single.member("n2", &["10.244.2.0/24", "fc00:244:2::/64"])?;
    ensure!(!member.host.read("/run/flannel/subnet.env")?.contains("IPV6"));
    let [c1, c2] = [member.host.container("c1")?, other.host.container("c2")?];
    wait_for("the containers to reach each other", PATIENCE, || c2.ping(c1.address(), 56, false))
}

#[test]
fn addresses_that_a_person_gives_the_node_are_told_to_the_others_and_the_flag_goes_before_the_first() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let own = |name: &str, annotations: &[(&str, &str)]| {
        cluster.api.put_node(name, &[&format!("10.244.{}.0/24", name.trim_start_matches('n'))])?;
        cluster.annotate(name, annotations)
    };
    own("n1", &[("node-public-ip", "203.0.113.1")])?;
    own("n2", &[("node-public-ip", "203.0.113.2")])?;
    own("n3", &[("node-public-ip", "203.0.113.3"), ("public-ip-overwrite", "203.0.113.33")])?;
    for (name, flags, wanted) in [
        ("n1", &[][..], "203.0.113.1"),
        ("n2", &["--public-ip=198.51.100.2"], "198.51.100.2"),
        ("n3", &["--public-ip=198.51.100.3"], "203.0.113.33"),
    ] {
        let mut member = Member::on(cluster.lab.host(name)?, cluster.options(name)?.args(flags.iter().copied()))?;
        member.agent.wait_ready(PATIENCE)?;
        cluster.wait_annotation(name, "public-ip", wanted)?;
    }
    Ok(())
}

#[test]
fn what_the_file_says_is_followed_while_it_runs_and_nonsense_is_not() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let mut member = cluster.member("n1", &["10.244.1.0/24"])?;
    cluster.configure(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#)?;
    wait_for("the VTEP's MTU", PATIENCE, || {
        let vtep = member.vtep()?;
        ensure!(vtep["mtu"] == 1350, "{vtep:#}");
        Ok(())
    })?;
    cluster.configure("{")?;
    member.wait_status("what is the matter with the file", |status| status["warnings"].to_string().contains("net-conf.json"))?;
    cluster.configure(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":7}}"#)?;
    member.wait_status("that the VNI waits", |status| status["config_changes"]["waiting"].to_string().contains("Backend.VNI"))?;
    cluster.configure(CONFIG)?;
    member.wait_status("no more of that", |status| status["warnings"] == json!([]))?;
    member.agent.wait_ready(PATIENCE)
}

#[test]
fn commands_work_on_a_node_or_say_why_not() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    let mut member = cluster.member("n1", &["10.244.1.0/24"])?;
    let with_flags = |member: &Member, words: &[&str]| {
        let options = member.agent.options();
        let (verb, more) = words.split_first().context("no verb")?;
        let done = member.host.command(options.program()).arg(verb).args(options.flags()).args(more).env("NODE_NAME", "n1").output()?;
        anyhow::Ok((done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)))
    };
    let (done, said) = with_flags(&member, &["plan"])?;
    ensure!(done && said.contains("nothing to change"), "{said}");
    let (done, said) = with_flags(&member, &["release"])?;
    ensure!(!done && said.contains("podCIDR of Node n1"), "{said}");
    let (done, said) = with_flags(&member, &["agent", "--subnet-file=/run/two.env", "--healthz-port=0"])?;
    ensure!(!done && said.contains("another agent runs on this host for Node n1"), "{said}");
    member.agent.terminate()?;
    let (done, said) = with_flags(&member, &["cleanup"])?;
    ensure!(done && said.contains("ip link del flannel.1") && member.vtep().is_err(), "{said}");
    Ok(())
}

#[test]
fn an_agent_that_knows_only_its_pod_asks_for_its_node() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    cluster.api.put_node("n1", &["10.244.1.0/24"])?;
    cluster.api.put_pod("kube-flannel", "kube-flannel-ds-x", "n1");
    let pod = |options: testkit::AgentOptions| {
        options.env("NODE_NAME", "").env("POD_NAMESPACE", "kube-flannel").env("POD_NAME", "kube-flannel-ds-x")
    };
    let mut member = Member::on(cluster.lab.host("host-of-n1")?, pod(cluster.options("")?))?;
    member.agent.wait_ready(PATIENCE)?;
    cluster.wait_annotation("n1", "public-ip", &member.host.address().to_string())?;
    let mac_before = cluster.mac("n1")?;
    // Another pod on the same Node is the same host.
    member.agent.kill9()?;
    member.host.boot()?;
    cluster.api.annotate("n1", &[(&format!("{PREFIX}backend-data"), None)])?;
    cluster.api.put_pod("kube-flannel", "kube-flannel-ds-y", "n1");
    *member.agent.options_mut() = pod(cluster.options("")?).env("POD_NAME", "kube-flannel-ds-y");
    member.agent.restart()?;
    member.agent.wait_ready(PATIENCE)?;
    ensure!(cluster.mac("n1")? == mac_before);
    let status = member.agent.status_json()?;
    ensure!(status["store"]["node"] == "of pod kube-flannel/kube-flannel-ds-y", "{status:#}");
    Ok(())
}

#[test]
fn flags_of_the_other_store_are_warned_of_and_a_missing_node_name_ends_the_start() -> Result<()> {
    let cluster = Cluster::new(CONFIG)?;
    cluster.api.put_node("n1", &["10.244.1.0/24"])?;
    let options = cluster.options("n1")?.args(["--etcd-prefix=/x"]);
    let mut member = Member::on(cluster.lab.host("n1")?, options)?;
    member.agent.wait_ready(PATIENCE)?;
    member.wait_log(&["flags without effect", "--etcd-prefix (the store is Kubernetes)"])?;
    let nameless = member.host.command(member.agent.options().program()).args(["agent", "--kube-subnet-mgr"]).output()?;
    let said = String::from_utf8_lossy(&nameless.stderr).into_owned();
    ensure!(nameless.status.code() == Some(2) && said.contains("NODE_NAME"), "{said}");
    let log = member.agent.log();
    ensure!(!log.contains("machine id"), "{log}");
    Ok(())
}

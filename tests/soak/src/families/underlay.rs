//! The interface between the hosts changes in every way there is: no peer is lost, and the others are told within a second.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::world::{Member, PATIENCE, World};
use testkit::{Container, Lab, Monitor, wait_for};

use crate::scene::Scene;
use crate::{Budget, Report};

/// Within this the other hosts are to be told.
const TOLD: Duration = Duration::from_secs(1);

const REPUBLISHED: [&str; 4] = [
    "address changed, until the lease says so",
    "parent made anew with another address, until the lease says so",
    "default route moved, until the lease says so",
    "default route moved back, until the lease says so",
];

/// All of them, again and again.
pub(crate) fn run(budget: Budget) -> Result<Report> {
    let mut scene = Scene::with_peers(if budget.judges_times() { 1_000 } else { 100 })?;
    let mut report = Report::default();
    let card = Card::of(&scene.one)?;
    add_second(&scene.world, &scene.one)?;
    let before = scene.eye()?.look()?;
    let monitor = Monitor::start(&scene.one.host)?;
    let load = Load::start(&scene.containers)?;
    for _ in 0..budget.rounds(10) {
        mtu(&scene, &load, &mut report)?;
        down_and_up(&mut scene, &mut report)?;
        rename(&scene, &mut report)?;
        addresses(&scene, &mut report)?;
        default_route(&scene, &mut report)?;
        made_anew(&scene, &card, &mut report)?;
        scene.one.agent.wait_ready(PATIENCE)?;
        let delivered = wait_for("a ping", PATIENCE, || scene.containers[0].ping(scene.containers[1].address(), 56, false));
        let now = scene.eye()?.look()?;
        if now != before {
            report.gate("all is as it was", false, now.differs_from(&before));
        }
        let whole = delivered.is_ok() && now == before;
        report.fault("after each round: containers meet, all is as it was", whole.then_some(Duration::ZERO));
    }
    let touched: Vec<_> = monitor.so_far()?.into_iter().filter(|line| line.contains("10.1.")).collect();
    report.gate("no entry of any peer was touched", touched.is_empty(), format!("{} were", touched.len()));
    if budget.judges_times() {
        report.gate_p99(&REPUBLISHED, TOLD);
    }
    Ok(report)
}

/// The network card that a host was made with.
struct Card {
    mac: String,
}

impl Card {
    fn of(member: &Member) -> Result<Self> {
        let links = member.host.ip_json(&["link", "show", "dev", "eth0"])?;
        Ok(Self { mac: links.pointer("/0/address").and_then(serde_json::Value::as_str).context("eth0 has no MAC")?.to_owned() })
    }
}

/// A second interface to the same switch, with an address of its own.
fn add_second(world: &World, member: &Member) -> Result<()> {
    let pid = member.host.pid();
    world.lab.switch().ip_batch(&format!("link add second type veth peer name eth1 netns {pid}\nlink set second master br0 up\n"))?;
    member.host.ip_batch("addr add 192.168.77.81/24 dev eth1 noprefixroute\nlink set eth1 up\n")
}

fn gateway(dev: &str) -> String {
    format!("route replace default via {} dev {dev} onlink\n", Lab::GATEWAY)
}

/// Waits until the lease names the address and the VTEP sends from it.
fn until_told(scene: &Scene, address: &str, start: Instant) -> Option<Duration> {
    let told = wait_for("the lease to name the address", PATIENCE, || {
        let lease = scene.one.lease(&scene.world)?;
        ensure!(lease.value.contains(&format!("\"PublicIP\":\"{address}\"")), "{lease:?}");
        Ok(start.elapsed())
    });
    let vtep = wait_for("the VTEP to send from the address", PATIENCE, || {
        let vtep = scene.one.vtep()?;
        ensure!(vtep.pointer("/linkinfo/info_data/local").is_some_and(|local| local == address), "{vtep:#}");
        Ok(())
    });
    told.ok().filter(|_| vtep.is_ok())
}

fn mtu(scene: &Scene, load: &Load, report: &mut Report) -> Result<()> {
    for (outer, inner) in [(1400_u16, 1350_u16), (1500, 1450)] {
        let start = Instant::now();
        scene.one.host.ip_batch(&format!("link set eth0 mtu {outer}\n"))?;
        let followed = wait_for("the MTU to follow", PATIENCE, || {
            ensure!(scene.one.vtep()?.get("mtu").is_some_and(|mtu| *mtu == inner) && scene.one.host.subnet_env()?.mtu()? == inner);
            Ok(start.elapsed())
        });
        report.fault("MTU changed under TCP load, until VTEP and subnet.env follow", followed.ok());
        let bytes = load.bytes();
        let flows = wait_for("TCP to go on", PATIENCE, || {
            ensure!(load.bytes() > bytes + 1_000_000, "{} bytes", load.bytes() - bytes);
            Ok(start.elapsed())
        });
        report.fault("MTU changed under TCP load, until another megabyte is through", flows.ok());
    }
    Ok(())
}

fn down_and_up(scene: &mut Scene, report: &mut Report) -> Result<()> {
    let start = Instant::now();
    scene.one.host.ip_batch(&format!("link set eth0 down\nlink set eth0 up\n{}", gateway("eth0")))?;
    let back = wait_for("a ping", PATIENCE, || scene.containers[0].ping(scene.containers[1].address(), 56, false));
    report.fault("down and up, until containers meet", back.ok().map(|()| start.elapsed()));
    Ok(())
}

fn rename(scene: &Scene, report: &mut Report) -> Result<()> {
    for (from, to) in [("eth0", "wan0"), ("wan0", "eth0")] {
        let start = Instant::now();
        scene.one.host.ip_batch(&format!("link set {from} name {to}\n"))?;
        let seen = scene.one.wait_status("the new name", |status| status.pointer("/underlay/interface").is_some_and(|name| name == to));
        report.fault("renamed, until the status says so", seen.ok().map(|_| start.elapsed()));
    }
    Ok(())
}

fn addresses(scene: &Scene, report: &mut Report) -> Result<()> {
    let start = Instant::now();
    let lease = scene.one.lease(&scene.world)?;
    scene.one.host.ip_batch("addr add 192.168.77.91/24 dev eth0\naddr del 192.168.77.91/24 dev eth0\n")?;
    let kept = scene.containers[0].ping(scene.containers[1].address(), 56, false).is_ok() && scene.one.lease(&scene.world)? == lease;
    report.fault("a second address comes and goes, the lease stays", kept.then(|| start.elapsed()));
    for (old, new) in [("192.168.77.1", "192.168.77.61"), ("192.168.77.61", "192.168.77.1")] {
        let start = Instant::now();
        scene.one.host.ip_batch(&format!("addr del {old}/24 dev eth0\naddr add {new}/24 dev eth0\n{}", gateway("eth0")))?;
        report.fault(REPUBLISHED[0], until_told(scene, new, start));
    }
    Ok(())
}

fn default_route(scene: &Scene, report: &mut Report) -> Result<()> {
    for (dev, address, name) in [("eth1", "192.168.77.81", REPUBLISHED[2]), ("eth0", "192.168.77.1", REPUBLISHED[3])] {
        let start = Instant::now();
        scene.one.host.ip_batch(&gateway(dev))?;
        report.fault(name, until_told(scene, address, start));
    }
    Ok(())
}

fn made_anew(scene: &Scene, card: &Card, report: &mut Report) -> Result<()> {
    for address in ["192.168.77.62", "192.168.77.1"] {
        scene.one.host.ip_batch("link del eth0\n")?;
        scene.one.wait_log(&["underlay not usable"])?;
        let pid = scene.one.host.pid();
        let Card { mac } = card;
        scene
            .world
            .lab
            .switch()
            .ip_batch(&format!("link add h1 type veth peer name eth0 netns {pid} address {mac}\nlink set h1 master br0 up\n"))?;
        let start = Instant::now();
        scene.one.host.ip_batch(&format!("addr add {address}/24 dev eth0\nlink set eth0 up\n{}", gateway("eth0")))?;
        report.fault(REPUBLISHED[1], until_told(scene, address, start));
    }
    Ok(())
}

/// A TCP connection between containers that is never idle. It ends with its sockets.
struct Load(Arc<AtomicU64>);

impl Load {
    fn start([from, to]: &[Container; 2]) -> Result<Self> {
        let listener = to.within(|| Ok(TcpListener::bind(SocketAddr::from((to.address(), 0)))?))?;
        let target = listener.local_addr()?;
        let mut out = from.within(|| Ok(TcpStream::connect(target)?))?;
        let (mut into, _) = listener.accept()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let received = Arc::clone(&bytes);
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(length @ 1..) = into.read(&mut buffer) {
                received.fetch_add(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
            }
        });
        thread::spawn(move || {
            let buffer = vec![0; 65_536];
            while out.write_all(&buffer).is_ok() {
                // A load, but not one that leaves nothing of two cores.
                thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(Self(bytes))
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

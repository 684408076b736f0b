//! What healing, restarts and fights are played on: two hosts with a container each, and made-up peers beside them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::world::{Member, PATIENCE, SUBNETS, VTEP, World};
use testkit::{Container, Eye, Hands, Image, wait_for};

/// Room for 65 536 subnets of 24 bits. An agent takes one of the first hundred, made-up peers have those from 10.1.0.0/24 on.
const CONFIG: &str = r#"{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#;

/// etcd's default for `--max-txn-ops` is 128.
const PUTS: usize = 120;

/// A made-up peer, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Far(pub(crate) u32);

impl Far {
    /// `10.1.0`, less the last byte.
    pub(crate) fn prefix(self) -> String {
        format!("10.{}.{}", 1 + self.0 / 256, self.0 % 256)
    }

    /// The number of its subnet within the network, plus one.
    pub(crate) fn metric(self) -> u32 {
        256 + self.0 + 1
    }

    pub(crate) fn mac(self) -> String {
        format!("0a:58:00:00:{:02x}:{:02x}", self.0 / 256, self.0 % 256)
    }

    fn address(self) -> String {
        format!("172.16.{}.{}", self.0 / 256, self.0 % 256)
    }
}

/// The hosts.
pub(crate) struct Scene {
    pub(crate) containers: [Container; 2],
    pub(crate) one: Member,
    /// What the second container's packets come by.
    _two: Member,
    pub(crate) peers: u32,
    pub(crate) world: World,
}

impl Scene {
    /// With this many made-up peers, all programmed.
    pub(crate) fn with_peers(peers: u32) -> Result<Self> {
        let world = World::with_config(CONFIG)?;
        put_peers(&world, peers)?;
        let (one, two) = (world.member("h1")?, world.member("h2")?);
        let containers = [one.host.container("c1")?, two.host.container("c2")?];
        let scene = Self { containers, one, _two: two, peers, world };
        wait_for("all peers to be programmed", PATIENCE, || {
            let have = scene.eye()?.look()?.entries.len();
            ensure!(have == 3 * (usize::try_from(peers)? + 1), "{have} entries");
            Ok(())
        })?;
        wait_for("a ping", PATIENCE, || scene.containers[0].ping(scene.containers[1].address(), 56, false))?;
        Ok(scene)
    }

    /// Looks at the first host's VTEP.
    pub(crate) fn eye(&self) -> Result<Eye> {
        Eye::new(&self.one.host, VTEP)
    }

    /// Somebody else on the first host.
    pub(crate) fn hands(&self) -> Result<Hands> {
        Hands::new(&self.one.host)
    }
}

/// Looks again and again until what is there is as it was; how long that took since `start`, or none after the deadline.
pub(crate) fn until_right(eye: &Eye, right: &Image, start: Instant, deadline: Duration) -> Result<Option<Duration>> {
    loop {
        // The device by itself is seen sooner than with a thousand peers.
        let glance = eye.glance()?;
        let same = Image { entries: right.entries.clone(), ..glance } == *right;
        if same && eye.look()? == *right {
            return Ok(Some(start.elapsed()));
        }
        if start.elapsed() > deadline {
            return Ok(None);
        }
    }
}

/// Puts the leases of so many made-up peers, as flanneld writes them.
pub(crate) fn put_peers(world: &World, peers: u32) -> Result<()> {
    let all: Vec<Far> = (0..peers).map(Far).collect();
    for some in all.chunks(PUTS) {
        // No conditions; what to do when they hold; nothing to do when they do not.
        let mut lines = String::from("\n");
        for far in some {
            let record = testkit::world::record(&far.address(), &far.mac());
            // etcdctl takes Go's quotes, which for these are Rust's; its single ones are broken.
            writeln!(lines, "put {SUBNETS}{}.0-24 {record:?}", far.prefix())?;
        }
        lines.push_str("\n\n");
        let mut etcdctl = world.lab.switch().command("etcdctl");
        etcdctl.args(["--endpoints", world.etcd.endpoint(), "txn"]);
        etcdctl.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = etcdctl.spawn().context("cannot run etcdctl")?;
        child.stdin.take().context("no pipe to etcdctl")?.write_all(lines.as_bytes())?;
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "etcdctl txn: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// Random numbers that are the same each time (xorshift64, Marsaglia 2003).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Less than `below`, which is not 0.
    pub(crate) fn throw(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(below.max(1))).unwrap_or(0)
    }
}

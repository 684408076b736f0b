//! Keys and values that make no sense, under the leases' prefix and in place of the configuration.

use anyhow::Result;
use testkit::world::{CONFIG, CONFIG_KEY, SUBNETS, record};

use super::Stage;
use crate::Report;

/// Nearly as much as etcd takes in one request, 1.5 MiB (`--max-request-bytes`).
const HUGE: usize = 1_400_000;
/// How many keys count as a flood.
const FLOOD: u32 = 2_000;

pub(super) fn endure(stage: &mut Stage, report: &mut Report, round: u32) -> Result<()> {
    let mut noise = Noise(u64::from(round) + 1);
    stage.endure(report, "records of random bytes", |stage| {
        let writes: Vec<_> =
            (0..100).map(|number| (format!("{SUBNETS}10.5.{}.0-24", 101 + number % 100), Some(noise.bytes(200)))).collect();
        stage.world.etcd.write(&writes)?;
        swept(stage, &writes)
    })?;
    stage.endure(report, "records of 1.4 MB", |stage| {
        for (number, value) in (101..).zip(huge()) {
            stage.world.etcd.put_bytes(&format!("{SUBNETS}10.5.{number}.0-24"), value.as_bytes())?;
            seen(stage)?;
            stage.world.etcd.del(&format!("{SUBNETS}10.5.{number}.0-24"))?;
        }
        Ok(())
    })?;
    stage.endure(report, "keys with strange names", |stage| {
        let mut names: Vec<Vec<u8>> =
            ["", "/", "..", "\n\n", "\u{1b}[2J", "10.5.1.0-24/x", "10.5.1.0-24\n", "%s%n", "ключ", " 10.5.1.0-24 "]
                .map(|name| name.as_bytes().to_vec())
                .to_vec();
        names.extend([vec![0xff, 0xfe, 0x00], vec![b'k'; 100_000], noise.bytes(64)]);
        let writes: Vec<_> = names.into_iter().map(|name| ([SUBNETS.as_bytes(), &name].concat(), Some("x"))).collect();
        stage.world.etcd.write(&writes)?;
        swept(stage, &writes)
    })?;
    stage.endure(report, "2000 stray keys and 2000 bad records", |stage| {
        let stray = (0..FLOOD).map(|number| (format!("{SUBNETS}stray-{number}"), Some("x".to_owned())));
        let bad = (0..FLOOD).map(|number| {
            let [.., high, low] = number.to_be_bytes();
            (format!("{SUBNETS}11.{high}.{low}.0-24"), Some(record("192.168.77.99", "02:00:00:00:99:99")))
        });
        let writes: Vec<_> = stray.chain(bad).collect();
        stage.world.etcd.write(&writes)?;
        swept(stage, &writes)
    })?;
    stage.endure(report, "the configuration is garbage, again and again", |stage| {
        for bad in ["", "{", "[]", "null", r#"{"Network":"10.5.0.0/99"}"#, r#"{"Network":"10.5.0.0/16","Backend":{"Type":"nonsense"}}"#] {
            stage.world.etcd.put(CONFIG_KEY, bad)?;
            stage.world.etcd.put(CONFIG_KEY, CONFIG)?;
        }
        for bad in huge() {
            stage.world.etcd.put_bytes(CONFIG_KEY, bad.as_bytes())?;
        }
        stage.world.etcd.del(CONFIG_KEY)?;
        stage.world.etcd.put(CONFIG_KEY, CONFIG)
    })
}

/// Values as large as can be, each in another way.
fn huge() -> [String; 5] {
    let (long, half) = ("A".repeat(HUGE), "A".repeat(HUGE / 2));
    [
        long.clone(),
        "[".repeat(HUGE),
        format!(r#"{{"PublicIP":"{long}"}}"#),
        format!(r#"{{"PublicIP":"192.168.77.99","BackendType":"{half}","Network":"{half}"}}"#),
        format!(r#"{{"Unknown":{}{},"PublicIP":"192.168.77.99","BackendType":"vxlan"}}"#, "[".repeat(HUGE / 2), "]".repeat(HUGE / 2)),
    ]
}

/// Waits until the agent has taken in all that was written, then takes the garbage away.
fn swept<K: AsRef<[u8]>, V>(stage: &Stage, writes: &[(K, Option<V>)]) -> Result<()> {
    seen(stage)?;
    let away: Vec<(&[u8], Option<&[u8]>)> = writes.iter().map(|(key, _)| (key.as_ref(), None)).collect();
    // A transaction names each key once.
    let mut away = away;
    away.sort_unstable();
    away.dedup();
    stage.world.etcd.write(&away)?;
    seen(stage)
}

/// A peer that comes and goes: what was written before it has been looked at when it is gone.
fn seen(stage: &Stage) -> Result<()> {
    let peer = stage.world.put(testkit::world::Peer::new(250))?;
    let there = |there: bool| {
        testkit::wait_for("the agent to have read it all", testkit::world::PATIENCE, || {
            let is = stage.one.entries()?.contains(&peer.entries()[0]);
            anyhow::ensure!(is == there, "{} is there: {is}", peer.key());
            Ok(())
        })
    };
    there(true)?;
    stage.world.etcd.del(&peer.key())?;
    there(false)
}

/// Bytes without sense, the same for the same seed: xorshift (Marsaglia 2003).
struct Noise(u64);

impl Noise {
    /// The first is no dash, which etcdctl would read as a flag.
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let next = |_| {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let [.., byte] = self.0.to_be_bytes();
            byte
        };
        std::iter::once(0xff).chain((1..count).map(next)).collect()
    }
}

//! One course of events: hosts, the store, what may happen next, and what must never be.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use lease::keeper::LeaseState;
use lease::store::memory::MemoryStore;
use lease::{Entry, Expiry, LeaseKey, LeaseStore, NetworkConfig, Owner};
use tokio::runtime::Runtime;

use crate::agent::{Agent, Identity};
use crate::call::{Answer, Call, Flaw, at_once, path};

/// How long a lease lives.
pub(crate) const TTL: Duration = Duration::from_secs(86_400);
pub(crate) const MARGIN: Duration = Duration::from_secs(3_600);
/// Longer than a renewal waits, shorter than a lease lives: two of these end a lease that is not renewed between them.
const LONG: Duration = Duration::from_secs(86_400 * 55 / 100);
/// Longer than every other pause of a keeper, and next to nothing for a lease.
const SHORT: Duration = Duration::from_secs(80);

/// Until everybody must have come to rest: leases that nobody renews have ended twice over, and everybody has had as many
/// calls for each as the longest claim takes.
const HALVES: u8 = 5;
const ROUNDS: u8 = 12;

/// What there is to begin with, and how much may go wrong.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The subnets: 10.5.1.0/24 and so on.
    pub(crate) pool: u8,
    pub(crate) agents: Vec<Identity>,
    /// A reservation for the agent with this number, on the first subnet.
    pub(crate) reserved: Option<usize>,
    /// Lost and late messages, restarts, deeds of a person: so many in all.
    pub(crate) faults: u8,
    /// How often half a lease's life may pass.
    pub(crate) longs: u8,
    /// Whether a person meddles.
    pub(crate) person: bool,
    pub(crate) seed: u64,
    pub(crate) flaw: Flaw,
}

/// What may happen next. Numbers are agents', keys are pool numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// The store does what is asked, and the agent hears of it.
    Do(usize),
    /// The store does it, and the answer is on its way.
    Perform(usize),
    /// That answer arrives.
    Answer(usize),
    /// The store does it, or has done it, and the answer is lost.
    Lose(usize),
    /// The agent hears that it failed, and the request is on its way still.
    Delay(usize),
    /// A request that was given up arrives.
    Late(usize),
    /// The watch speaks.
    Hear(usize),
    /// The agent is killed and started again.
    Restart(usize),
    /// The host is booted anew, with another address and nothing remembered.
    Reboot(usize),
    /// Half a lease's life passes.
    Long,
    /// A person deletes a lease.
    Delete(u8),
    /// A person reserves a subnet for a host.
    Reserve(u8, usize),
}

pub(crate) struct Run<'a> {
    scenario: &'a Scenario,
    runtime: &'a Runtime,
    config: NetworkConfig,
    store: MemoryStore,
    agents: Vec<Agent>,
    /// Answers on their way.
    answers: Vec<Option<(u64, Answer)>>,
    /// Requests on their way from agents that have given them up.
    late: Vec<(Identity, Call)>,
    /// The reservations that a person has made, by the owner they are for.
    reservations: BTreeMap<LeaseKey, Owner>,
    /// When each etcd lease was renewed, in halves of its life.
    renewed: BTreeMap<i64, u8>,
    faults: u8,
    longs: u8,
    starts: u64,
}

fn key(number: u8) -> LeaseKey {
    format!("10.5.{number}.0-24").parse().expect("a key")
}

impl<'a> Run<'a> {
    pub(crate) fn start(scenario: &'a Scenario, runtime: &'a Runtime) -> Self {
        let config = format!(r#"{{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.0","SubnetMax":"10.5.{}.0"}}"#, scenario.pool);
        let config: NetworkConfig = config.parse().expect("a configuration");
        let mut run = Self {
            scenario,
            runtime,
            store: MemoryStore::default(),
            agents: Vec::new(),
            answers: vec![None; scenario.agents.len()],
            late: Vec::new(),
            reservations: BTreeMap::new(),
            renewed: BTreeMap::new(),
            faults: scenario.faults,
            longs: scenario.longs,
            starts: 0,
            config,
        };
        for identity in scenario.agents.clone() {
            let agent = run.agent(identity, None);
            run.agents.push(agent);
        }
        if let Some(agent) = scenario.reserved {
            run.reserve(1, agent);
        }
        run.settle();
        run
    }

    fn agent(&mut self, identity: Identity, remembered: Option<LeaseKey>) -> Agent {
        self.starts += 1;
        Agent::start(identity, &self.config, remembered, self.scenario.seed + self.starts)
    }

    /// All that can happen now.
    pub(crate) fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        let faults = self.faults > 0;
        for (number, agent) in self.agents.iter().enumerate() {
            let call = agent.wire.desk().call.clone();
            match (&self.answers[number], call) {
                (Some(_), _) => acts.extend([Act::Answer(number), Act::Lose(number)]),
                (None, Some(call)) => {
                    acts.push(Act::Do(number));
                    if faults && call.matters() {
                        acts.extend([Act::Perform(number), Act::Lose(number), Act::Delay(number)]);
                    }
                }
                (None, None) => (),
            }
            if agent.has_news(&self.store) {
                acts.push(Act::Hear(number));
            }
            if faults {
                acts.extend([Act::Restart(number), Act::Reboot(number)]);
            }
        }
        if self.longs > 0 {
            acts.push(Act::Long);
        }
        if faults {
            acts.extend((0..self.late.len()).map(Act::Late));
        }
        if faults && self.scenario.person {
            let there = self.entries();
            acts.extend((1..=self.scenario.pool).filter(|n| there.iter().any(|entry| entry.key == key(*n))).map(Act::Delete));
            let agents = 0..self.agents.len();
            acts.extend((1..=self.scenario.pool).flat_map(|n| agents.clone().map(move |agent| Act::Reserve(n, agent))));
        }
        acts
    }

    /// Makes it happen, and says what must not be.
    pub(crate) fn act(&mut self, act: Act) -> Result<(), String> {
        self.replay(act)?;
        self.check()
    }

    /// Makes happen what has been looked at before.
    pub(crate) fn replay(&mut self, act: Act) -> Result<(), String> {
        match act {
            Act::Do(number) => {
                self.perform(number)?;
                self.answer(number);
            }
            Act::Perform(number) => {
                self.faults -= 1;
                self.perform(number)?;
            }
            Act::Answer(number) => self.answer(number),
            Act::Lose(number) => {
                if self.answers[number].is_none() {
                    self.faults -= 1;
                    self.perform(number)?;
                }
                let desk = self.agents[number].wire.desk();
                self.answers[number] = desk.call.as_ref().map(|call| (desk.serial, call.unanswered()));
                drop(desk);
                self.answer(number);
            }
            Act::Delay(number) => {
                self.faults -= 1;
                let agent = &self.agents[number];
                let (call, serial) = agent.asks();
                self.answers[number] = Some((serial, call.unanswered()));
                self.late.extend(call.is_write().then_some((agent.identity, call)));
                self.answer(number);
            }
            Act::Late(index) => {
                self.faults -= 1;
                let (identity, call) = self.late.remove(index);
                self.at_store(identity, None, &call)?;
            }
            Act::Hear(number) => self.agents[number].hear(&self.store),
            Act::Restart(number) | Act::Reboot(number) => {
                self.faults -= 1;
                self.restart(number, matches!(act, Act::Reboot(_)));
            }
            Act::Long => {
                self.longs -= 1;
                self.pass(LONG);
            }
            Act::Delete(number) => {
                self.faults -= 1;
                self.reservations.remove(&key(number));
                self.store.del_raw(&path(key(number)));
                self.meddled(key(number), None);
            }
            Act::Reserve(number, agent) => {
                self.faults -= 1;
                self.reserve(number, agent);
            }
        }
        self.settle();
        Ok(())
    }

    fn reserve(&mut self, number: u8, agent: usize) {
        let identity = self.agents[agent].identity;
        self.store.put_raw(&path(key(number)), &format!(r#"{{"PublicIP":"{}"}}"#, identity.address()), None);
        self.reservations.insert(key(number), identity.owner());
        self.meddled(key(number), None);
    }

    fn restart(&mut self, number: usize, reboot: bool) {
        let before = &self.agents[number];
        let asked = before.wire.desk().call.clone().filter(|call| call.is_write() && self.answers[number].is_none());
        self.late.extend(asked.map(|call| (before.identity, call)));
        let Identity { owner, boot, address } = before.identity;
        let remembered = before.last_held.as_ref().map(|held| held.key).filter(|_| !reboot);
        let identity = if reboot { Identity { owner, boot: boot + 100, address: address + 100 } } else { before.identity };
        self.answers[number] = None;
        self.agents[number] = self.agent(identity, remembered);
    }

    /// The store does what an agent asks.
    fn perform(&mut self, number: usize) -> Result<(), String> {
        let (call, serial) = self.agents[number].asks();
        let answer = self.at_store(self.agents[number].identity, Some(number), &call)?;
        self.answers[number] = Some((serial, answer));
        Ok(())
    }

    fn at_store(&mut self, who: Identity, asker: Option<usize>, call: &Call) -> Result<Answer, String> {
        let before = if call.is_write() { self.entries() } else { Vec::new() };
        let answer = call.perform(&self.store, self.scenario.flaw);
        if let Some(lease) = answer.renewed(call) {
            self.renewed.insert(lease, self.longs);
        }
        let after = if call.is_write() { self.entries() } else { Vec::new() };
        for was in before.iter().filter(|was| !after.contains(was)) {
            let owner = was.record.as_ref().ok().and_then(|record| record.owner);
            if owner.is_some_and(|owner| owner != who.owner()) {
                return Err(format!("{who:?} has overwritten or deleted {} of another: {call:?}", was.key));
            }
            self.meddled(was.key, Some((who, asker)));
        }
        Ok(answer)
    }

    /// The lease was changed: those who think it theirs cannot know yet, but the one that asked for it.
    fn meddled(&mut self, key: LeaseKey, by: Option<(Identity, Option<usize>)>) {
        for (number, agent) in self.agents.iter_mut().enumerate() {
            if by.is_none_or(|(_, asker)| asker != Some(number)) {
                agent.interfered.insert(key);
            }
        }
    }

    fn answer(&mut self, number: usize) {
        let Some((_, answer)) = self.answers[number].take() else { return };
        let agent = &mut self.agents[number];
        let (call, _) = agent.asks();
        // After a conflict it goes on with what it knows; after all else what it has seen is done with at the next rest.
        agent.settled = !answer.is_conflict();
        agent.remember(&(call, &answer));
        agent.wire.desk().answer = Some(answer);
    }

    /// Lets everybody do what they can, and short pauses pass.
    fn settle(&mut self) {
        loop {
            let mut pausing = false;
            for (number, agent) in self.agents.iter_mut().enumerate() {
                agent.poll();
                // It may have given up waiting for the answer.
                let serial = agent.wire.desk().serial;
                self.answers[number] = self.answers[number].take().filter(|(of, _)| *of == serial);
                if agent.is_asking() {
                    continue;
                }
                if agent.settled {
                    agent.history = 0;
                }
                pausing |= agent.believes().is_none();
            }
            if !pausing {
                return;
            }
            self.pass(SHORT);
        }
    }

    fn pass(&self, time: Duration) {
        self.runtime.block_on(tokio::time::advance(time));
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        at_once(self.store.list()).expect("the store is there").entries
    }

    /// What must hold at every moment.
    fn check(&self) -> Result<(), String> {
        let entries = self.entries();
        let mut sure = Vec::new();
        for agent in &self.agents {
            let Some(held) = agent.believes() else { continue };
            let key = held.entry.key;
            if agent.interfered.contains(&key) {
                continue;
            }
            let there = entries.iter().find(|entry| entry.key == key);
            if there != Some(&held.entry) {
                return Err(format!("{:?} believes that it holds {:?}, but there is {there:?}", agent.identity, held.entry));
            }
            if sure.iter().any(|other: &LeaseKey| other.overlaps(key)) {
                return Err(format!("two hosts believe that they hold {key}"));
            }
            sure.push(key);
        }
        for (key, owner) in &self.reservations {
            let there = entries.iter().find(|entry| entry.key == *key);
            let kept = there.is_some_and(|entry| {
                let holder = entry.record.as_ref().ok().and_then(|record| record.owner);
                entry.expiry == Expiry::Never && holder.is_none_or(|holder| holder == *owner)
            });
            if !kept {
                return Err(format!("the reservation {key} is lost: there is {there:?}"));
            }
        }
        Ok(())
    }

    /// Everything that decides what can happen from here on, as a number.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let age = |expiry: Expiry| match expiry {
            Expiry::Never => u8::MAX,
            Expiry::Lease(lease) => self.renewed.get(&lease).map_or(u8::MAX, |at| at.wrapping_sub(self.longs)),
        };
        for Entry { key, record, created, modified, expiry } in self.entries() {
            let record = record.map(|record| (record.owner, record.boot, record.public_ip));
            (key, created, modified, age(expiry), format!("{expiry:?} {record:?}")).hash(&mut hasher);
        }
        for (agent, answer) in self.agents.iter().zip(&self.answers) {
            let answer = answer.as_ref().map(|(_, answer)| answer);
            let Agent { identity, wire, states, interfered, history, last_held, heard, settled, .. } = agent;
            let state = match &*states.borrow() {
                LeaseState::Held(held) => format!("held {} {:?} {}", held.entry.key, held.entry.modified, age(held.entry.expiry)),
                LeaseState::Claiming { reason } => format!("claiming {reason}"),
                LeaseState::Lost { reason } => format!("lost {reason}"),
            };
            (identity, state, interfered, history, heard, settled).hash(&mut hasher);
            format!("{:?} {:?} {answer:?}", wire.desk().call, last_held.as_ref().map(|held| (held.key, held.modified))).hash(&mut hasher);
        }
        (format!("{:?} {:?}", self.late, self.reservations), self.faults, self.longs).hash(&mut hasher);
        hasher.finish()
    }

    /// Nothing goes wrong from here on, and time passes: everybody must come to rest, and nobody may go without a subnet
    /// while one is free.
    ///
    /// What has been met on the way to such an end, so many halves of a lease's life before it, ends the same way.
    pub(crate) fn finish(&mut self, met: &mut HashSet<(u8, u64)>) -> Result<(), String> {
        self.faults = 0;
        for halves in 0..=HALVES {
            self.longs = HALVES - halves;
            for _ in 0..ROUNDS {
                if !met.insert((halves, self.fingerprint())) {
                    return Ok(());
                }
                self.calm()?;
            }
            self.pass(LONG);
            self.settle();
            self.check()?;
        }
        let entries = self.entries();
        let holding: Vec<LeaseKey> = self.agents.iter().filter_map(|agent| agent.believes().map(|held| held.entry.key)).collect();
        for agent in &self.agents {
            let state = agent.states.borrow().clone();
            let fair = match &state {
                LeaseState::Held(_) => true,
                // It had one, and somebody else has that now.
                LeaseState::Lost { .. } => {
                    agent.last_held.as_ref().is_some_and(|held| entries.iter().any(|entry| entry.key.overlaps(held.key)))
                }
                LeaseState::Claiming { reason } => reason.contains("no subnet is free") && entries.len() == usize::from(self.scenario.pool),
            };
            if !fair {
                return Err(format!("{:?} ends as {state:?} with {entries:#?} in the store", agent.identity));
            }
        }
        // What nobody holds must be a reservation: leases that are left over have ended.
        let left = entries.iter().find(|entry| !holding.contains(&entry.key) && entry.expiry != Expiry::Never);
        left.map_or(Ok(()), |left| Err(format!("nobody holds {left:?}, and it does not end")))
    }

    /// Everything that is on its way arrives.
    fn calm(&mut self) -> Result<(), String> {
        for number in 0..self.agents.len() {
            match (self.answers[number].is_some(), self.agents[number].is_asking()) {
                (true, _) => self.act(Act::Answer(number))?,
                (false, true) => self.act(Act::Do(number))?,
                (false, false) => (),
            }
            if self.agents[number].has_news(&self.store) {
                self.act(Act::Hear(number))?;
            }
        }
        Ok(())
    }
}

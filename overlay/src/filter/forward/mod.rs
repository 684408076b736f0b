//! Two rules of ours in others' chains, where those would drop what passes: an acceptance in a table of one's own overrules nobody.
//!
//! Chains in nf_tables are looked at when their rules change, whoever changed them; what iptables-legacy holds tells nobody, and is
//! looked at every so many seconds, if there is any. Our rules bear our table's name as their comment. What is not needed any more is
//! taken away.

mod leftovers;
mod legacy;
mod native;
mod ruleset;
mod xtables;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lease::{Family, Subnet};
use nix::errno::Errno;

use super::TableId;
use super::door::{Door, Told};
use super::family::{self, facts};
use super::message::{Changer, Heard, heard};
use crate::entry::{Aspect, Matter};
use crate::kernel::{KernelError, Messages, Refusal};
use crate::retry::{FIRST_DELAY, Retries, Trouble};

pub use self::leftovers::flanneld_filters;
pub(super) use self::leftovers::remove as remove_leftovers;
use self::legacy::Saved;
use self::native::{Hosts, Place};
use self::ruleset::{has_ours, plan};
use self::xtables::ToolError;

/// After a look at others' chains the next one waits ten times as long as it took, and at least so long: they may change all the time.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_PER_COST: u32 = 10;

/// The chain in which iptables filters what passes.
const LEGACY_CHAIN: &str = "FORWARD";
const LEGACY_TABLE: &str = "filter";

/// What our rules say, and by what they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Our table's name: their comment.
    pub(super) owner: String,
    pub(super) network: Subnet,
}

/// What is tried again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Native,
    Legacy,
}

fn whole(part: Part) -> Matter<Part> {
    Matter(part, Aspect::Whole)
}

/// Keeps our rules where they are needed.
pub(super) struct Forward {
    mark: Mark,
    wanted: bool,
    resync: Duration,
    door: Door,
    watched: BTreeSet<Place>,
    /// When to look at nf_tables, and at iptables-legacy.
    native_due: Option<Instant>,
    legacy_due: Instant,
    not_before: Instant,
    looked: bool,
    /// Where ours stand, by name.
    native_right: BTreeSet<String>,
    legacy_right: BTreeSet<String>,
    /// Where ours were taken away.
    cleared: Vec<String>,
    /// Whether what was told since the last word on who did it concerns us.
    concerned: bool,
    retries: Retries<Part>,
    /// What cannot be told or done for want of a program or a right.
    note: Option<String>,
    heals: u64,
    changer: Option<Changer>,
}

impl Forward {
    /// Opens the way to nf_tables. Where nothing is `wanted`, rules of ours are taken away.
    pub(super) fn open(mark: Mark, wanted: bool, resync: Duration) -> Result<Self, KernelError> {
        let now = Instant::now();
        Ok(Self {
            mark,
            wanted,
            resync,
            door: Door::open()?,
            watched: BTreeSet::new(),
            native_due: Some(now),
            legacy_due: now,
            not_before: now,
            looked: false,
            native_right: BTreeSet::new(),
            legacy_right: BTreeSet::new(),
            cleared: Vec::new(),
            concerned: false,
            retries: Retries::default(),
            note: None,
            heals: 0,
            changer: None,
        })
    }

    fn family(&self) -> Family {
        family::of(self.mark.network)
    }

    /// Does what there is to do.
    pub(super) async fn step(&mut self, now: Instant) -> Result<(), KernelError> {
        while let Some(Matter(part, _)) = self.retries.pop_due(now) {
            match part {
                Part::Native => self.native_due = Some(now),
                Part::Legacy => self.legacy_due = now,
            }
        }
        if self.native_due.is_some_and(|due| due.max(self.not_before) <= now) {
            self.native_due = None;
            self.native(now).await?;
        }
        if self.legacy_due <= now {
            self.legacy_due = now + self.resync;
            self.legacy(now).await;
        }
        Ok(())
    }

    /// When [`step`](Self::step) is due though nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let native = self.native_due.map(|due| due.max(self.not_before));
        [native, Some(self.legacy_due), self.retries.next_due()].into_iter().flatten().min()
    }

    /// Asks for a look at everything at the next step.
    pub(super) fn audit(&mut self) {
        self.native_due.get_or_insert_with(Instant::now);
    }

    /// Waits until somebody changes a chain that matters. Cancel safe.
    pub(super) async fn listen(&mut self) -> Result<(), KernelError> {
        let Self { door, watched, concerned, native_due, changer, .. } = self;
        let port = door.port();
        door.wait(|told| take_in(told, port, watched, concerned, native_due, changer)).await
    }

    async fn native(&mut self, now: Instant) -> Result<(), KernelError> {
        let family = self.family();
        let started = Instant::now();
        {
            // What was told until now, the look shows.
            let Self { door, watched, concerned, native_due, changer, .. } = self;
            let port = door.port();
            door.take(|told| take_in(told, port, watched, concerned, native_due, changer))?;
            *native_due = None;
        }
        let Some(Hosts { hosts, watched }) = self.seen(family, now).await? else { return Ok(()) };
        self.not_before = now + PAUSE.max(started.elapsed().saturating_mul(PAUSE_PER_COST));
        self.watched = watched;
        self.retries.forget_the_quiet(now);
        let (mut requests, mut repair, mut right) = (Vec::new(), false, BTreeSet::new());
        for host in &hosts {
            let change = plan(&host.rules, &host.place.chain, host.drops, self.wanted);
            let name = host.place.to_string();
            if !change.is_empty() {
                tracing::debug!(chain = name, ?change, "apply");
                repair |= self.native_right.contains(&name) && change.put.is_some();
                self.cleared.extend(change.put.is_none().then(|| name.clone()));
                requests.extend(native::requests(host, &change, family, &self.mark));
            }
            if change.is_empty() && host.holds_ours() {
                right.insert(name);
            }
        }
        if requests.is_empty() {
            self.native_right = right;
            self.looked = true;
            self.retries.right(Part::Native);
            return Ok(());
        }
        if self.retries.must_wait(Part::Native, now) || repair && !self.retries.may_repair(whole(Part::Native), now) {
            return Ok(());
        }
        if let Err(refusal) = self.door.change(&requests).await? {
            self.retries.refused_by_kernel(Part::Native, explained(&refusal), repair, now);
            return Ok(());
        }
        // An acknowledgement is no proof.
        let Some(Hosts { hosts, watched }) = self.seen(family, now).await? else { return Ok(()) };
        self.watched = watched;
        let wrong = hosts.iter().find(|host| !plan(&host.rules, &host.place.chain, host.drops, self.wanted).is_empty());
        if let Some(host) = wrong {
            let reason = format!("chain {} shows other rules than were put there", host.place);
            self.retries.refused_by_kernel(Part::Native, reason, repair, now);
            return Ok(());
        }
        self.native_right = hosts.iter().filter(|host| host.holds_ours()).map(|host| host.place.to_string()).collect();
        self.looked = true;
        self.retries.right(Part::Native);
        if repair {
            self.retries.repaired(whole(Part::Native), now);
            self.heals += 1;
        } else {
            tracing::info!(chains = ?self.places(), "rules of ours in others' forward chains are as they are needed");
        }
        Ok(())
    }

    /// What there is; none where others change theirs too much for a look: it is put off.
    async fn seen(&mut self, family: Family, now: Instant) -> Result<Option<Hosts>, KernelError> {
        match native::look(family, &self.mark).await {
            Err(KernelError::Interrupted { .. }) => {
                self.native_due = Some(now + FIRST_DELAY);
                Ok(None)
            }
            seen => seen.map(Some),
        }
    }

    async fn legacy(&mut self, now: Instant) {
        let family = self.family();
        let tables = match xtables::tables(family) {
            Ok(tables) => tables,
            Err(error) => {
                self.note = Some(format!("it cannot be told whether iptables-legacy drops what passes: {error}"));
                return;
            }
        };
        if !tables.iter().any(|table| table == LEGACY_TABLE) {
            (self.note, self.legacy_right) = (None, BTreeSet::new());
            return;
        }
        let (saved, change) = match self.saved().await {
            Ok(saved) => saved,
            Err(error) => {
                self.note = Some(error.to_string());
                return;
            }
        };
        self.note = None;
        let name = format!("{}-legacy {LEGACY_TABLE} {LEGACY_CHAIN}", facts(family).xtables);
        if change.is_empty() {
            let there = saved.ruleset(&self.mark).get(LEGACY_CHAIN).is_some_and(|rules| has_ours(rules));
            self.legacy_right = there.then_some(name).into_iter().collect();
            self.retries.right(Part::Legacy);
            return;
        }
        let repair = self.legacy_right.contains(&name) && change.put.is_some();
        if self.retries.must_wait(Part::Legacy, now) || repair && !self.retries.may_repair(whole(Part::Legacy), now) {
            return;
        }
        let restored = xtables::restore(family, &saved.restore(LEGACY_CHAIN, &change, &self.mark)).await;
        let refused = match restored {
            Err(error) => Some(error.to_string()),
            // That it was taken is no proof.
            Ok(()) => match self.saved().await {
                Ok((_, change)) if change.is_empty() => None,
                Ok(_) => Some("it shows other rules than were put there".to_owned()),
                Err(error) => Some(error.to_string()),
            },
        };
        if let Some(reason) = refused {
            self.retries.refused_by_kernel(Part::Legacy, reason, repair, now);
            return;
        }
        self.retries.right(Part::Legacy);
        match change.put {
            Some(_) => drop(self.legacy_right.replace(name)),
            None => self.cleared.extend(self.legacy_right.take(&name).or(Some(name))),
        }
        if repair {
            self.retries.repaired(whole(Part::Legacy), now);
            self.heals += 1;
        }
        tracing::info!(chains = ?self.places(), "rules of ours in others' forward chains are as they are needed");
    }

    /// What iptables-legacy holds, and what is to be changed in it.
    async fn saved(&self) -> Result<(Saved, ruleset::Change), ToolError> {
        let saved = Saved::read(&xtables::save(self.family(), LEGACY_TABLE).await?);
        let change = plan(&saved.ruleset(&self.mark), LEGACY_CHAIN, saved.drops(LEGACY_CHAIN), self.wanted);
        Ok((saved, change))
    }

    /// The chains that hold ours.
    pub(super) fn places(&self) -> Vec<String> {
        self.native_right.iter().chain(&self.legacy_right).cloned().collect()
    }

    /// Whether all has been looked at, and nothing is being waited for.
    pub(super) fn in_step(&self) -> bool {
        self.looked && self.trouble().is_none()
    }

    /// Why what passes may be dropped.
    pub(super) fn trouble(&self) -> Option<String> {
        let wrong = self.retries.refused() + self.retries.outdone() > 0;
        let said = |(Matter(part, _), trouble): (Matter<Part>, Trouble)| match part {
            Part::Native => format!("rules in others' forward chains: {trouble}"),
            Part::Legacy => format!("rules in iptables-legacy's {LEGACY_CHAIN}: {trouble}"),
        };
        self.retries.troubles().next().filter(|_| wrong).map(said)
    }

    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    pub(super) fn take_heals(&mut self) -> (u64, Option<Changer>) {
        (std::mem::take(&mut self.heals), self.changer.clone())
    }
}

fn take_in(
    told: Told<'_>,
    port: u32,
    watched: &BTreeSet<Place>,
    concerned: &mut bool,
    due: &mut Option<Instant>,
    changer: &mut Option<Changer>,
) {
    let Some(datagram) = told else {
        due.get_or_insert_with(Instant::now);
        return;
    };
    for message in Messages::new(datagram) {
        // By whom comes after what: our own changes are no reason to look.
        let nothing = TableId { nfproto: 0, name: String::new() };
        let read = message.and_then(|message| Ok((native::concerns(&message, watched)?, heard(&message, &nothing)?)));
        match read {
            Ok((concerns, by)) => {
                *concerned |= concerns;
                for by in by {
                    if let Heard::By(by, who) = by
                        && std::mem::take(concerned)
                        && by != port
                    {
                        *changer = Some(who);
                        due.get_or_insert_with(Instant::now);
                    }
                }
            }
            Err(_) => drop(due.get_or_insert_with(Instant::now)),
        }
    }
}

fn explained(refusal: &Refusal) -> String {
    let remedy = match refusal.errno {
        Errno::EPERM => {
            "; a table that drops belongs to another program alone: firewalld wants NftablesTableOwner=no, or the overlay's interfaces in its zone trusted"
        }
        _ => "",
    };
    format!("{}{remedy}", refusal.reason())
}

/// The mark of a table's rules, whatever network they name.
fn any_network(owner: &str, family: Family) -> Result<Mark, KernelError> {
    let nobody = |error: lease::SubnetError| KernelError::Protocol { call: "name all addresses", reason: error.to_string() };
    let network = Subnet::containing(facts(family).unspecified, 0).map_err(nobody)?;
    Ok(Mark { owner: owner.to_owned(), network })
}

/// Whether some chain of others' holds rules that bear a table's name.
pub(super) async fn somewhere(owner: &str, family: Family) -> Result<bool, KernelError> {
    let forward = Forward::open(any_network(owner, family)?, false, Duration::ZERO)?;
    if native::look(family, &forward.mark).await?.hosts.iter().any(native::Host::holds_ours) {
        return Ok(true);
    }
    let legacy = xtables::tables(family).unwrap_or_default().iter().any(|table| table == LEGACY_TABLE);
    Ok(legacy
        && forward
            .saved()
            .await
            .is_ok_and(|(saved, _)| saved.ruleset(&forward.mark).get(LEGACY_CHAIN).is_some_and(|rules| has_ours(rules))))
}

/// Takes the rules away that bear a table's name, from wherever they are. Says where that was, and what stood in the way.
pub(super) async fn remove(owner: &str, family: Family) -> Result<(Vec<String>, Option<String>), KernelError> {
    let mut forward = Forward::open(any_network(owner, family)?, false, Duration::ZERO)?;
    let now = Instant::now();
    forward.native(now).await?;
    forward.legacy(now).await;
    Ok((std::mem::take(&mut forward.cleared), forward.trouble()))
}

/// Whatever bytes there are, they are read or refused.
#[cfg(feature = "contract")]
pub(super) fn fuzz(datagram: &[u8]) -> usize {
    let table = TableId::of(Family::V4, "loden-flannel.1".to_owned());
    Messages::new(datagram).flatten().map(|message| native::fuzz(&message, &table)).sum()
}

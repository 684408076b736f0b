//! Our rules in chains of nf_tables, where every change is told of.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::super::TableId;
use super::super::door::{Door, Told};
use super::super::message::{Changer, Heard, Request, heard};
use super::native::{self, Host, Hosts, Place};
use super::ruleset::plan;
use super::{Mark, PUT_RIGHT, Wish, trouble};
use crate::entry::{Aspect, Matter};
use crate::kernel::{KernelError, Messages, Refusal};
use crate::retry::{FIRST_DELAY, Retries};

/// After a look at others' chains the next one waits ten times as long as it took, and at least so long: they may change all the time.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_PER_COST: u32 = 10;

const WHOLE: Matter<()> = Matter((), Aspect::Whole);

/// Keeps them.
pub(super) struct Native {
    door: Door,
    watched: BTreeSet<Place>,
    /// When to look.
    due: Option<Instant>,
    not_before: Instant,
    looked: bool,
    /// Where ours stand, and where they were taken away.
    right: BTreeSet<String>,
    cleared: BTreeSet<String>,
    /// Whether what was told since the last word on who did it concerns us.
    concerned: bool,
    retries: Retries<()>,
    heals: u64,
    changer: Option<Changer>,
}

impl Native {
    pub(super) fn open() -> Result<Self, KernelError> {
        let now = Instant::now();
        Ok(Self {
            door: Door::open()?,
            watched: BTreeSet::new(),
            due: Some(now),
            not_before: now,
            looked: false,
            right: BTreeSet::new(),
            cleared: BTreeSet::new(),
            concerned: false,
            retries: Retries::default(),
            heals: 0,
            changer: None,
        })
    }

    /// Does what there is to do.
    pub(super) async fn step(&mut self, wish: &Wish, now: Instant) -> Result<(), KernelError> {
        while self.retries.pop_due(now).is_some() {
            self.due = Some(now);
        }
        if self.next_look().is_none_or(|due| due > now) {
            return Ok(());
        }
        let started = Instant::now();
        // What was told until now, the look shows.
        self.hear()?;
        self.due = None;
        let Some(hosts) = self.look(&wish.mark, now).await? else { return Ok(()) };
        self.not_before = now + PAUSE.max(started.elapsed().saturating_mul(PAUSE_PER_COST));
        self.retries.forget_the_quiet(now);
        let (requests, repair) = self.changes(&hosts, wish);
        if requests.is_empty() {
            self.stands(&hosts);
            return Ok(());
        }
        if self.retries.must_wait((), now) || repair && !self.retries.may_repair(WHOLE, now) {
            return Ok(());
        }
        if let Err(refusal) = self.door.change(&requests).await? {
            self.retries.refused_by_kernel((), explained(&refusal), repair, now);
            return Ok(());
        }
        // An acknowledgement is no proof.
        let Some(hosts) = self.look(&wish.mark, now).await? else { return Ok(()) };
        let wrong = hosts.iter().find(|host| !plan(&host.rules, &host.place.chain, host.drops, wish.wanted).is_empty());
        if let Some(host) = wrong {
            let reason = format!("chain {} shows other rules than were put there", host.place);
            self.retries.refused_by_kernel((), reason, repair, now);
            return Ok(());
        }
        self.stands(&hosts);
        if repair {
            self.retries.repaired(WHOLE, now);
            self.heals += 1;
        } else {
            tracing::info!(chains = ?self.right, "{PUT_RIGHT}");
        }
        Ok(())
    }

    /// What is to be changed, and whether that undoes what somebody did to ours.
    fn changes(&mut self, hosts: &[Host], wish: &Wish) -> (Vec<Request>, bool) {
        let (mut requests, mut repair) = (Vec::new(), false);
        for host in hosts {
            let change = plan(&host.rules, &host.place.chain, host.drops, wish.wanted);
            if !change.is_empty() {
                let name = host.place.to_string();
                tracing::debug!(chain = name, ?change, "apply");
                repair |= self.right.contains(&name) && change.put.is_some();
                self.cleared.extend(change.put.is_none().then_some(name));
                requests.extend(native::requests(host, &change, wish.mark.family(), &wish.mark));
            }
        }
        (requests, repair)
    }

    /// All is as it should be.
    fn stands(&mut self, hosts: &[Host]) {
        self.right = hosts.iter().filter(|host| host.holds_ours()).map(|host| host.place.to_string()).collect();
        self.looked = true;
        self.retries.right(());
    }

    /// What there is; none where others change theirs too much for a look: it is put off.
    async fn look(&mut self, mark: &Mark, now: Instant) -> Result<Option<Vec<Host>>, KernelError> {
        match native::look(mark.family(), mark).await {
            Err(KernelError::Interrupted { .. }) => {
                self.due = Some(now + FIRST_DELAY);
                Ok(None)
            }
            seen => {
                let Hosts { hosts, watched } = seen?;
                self.watched = watched;
                Ok(Some(hosts))
            }
        }
    }

    fn next_look(&self) -> Option<Instant> {
        self.due.map(|due| due.max(self.not_before))
    }

    /// When [`step`](Self::step) is due though nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        [self.next_look(), self.retries.next_due()].into_iter().flatten().min()
    }

    /// Asks for a look at the next step.
    pub(super) fn audit(&mut self) {
        self.due.get_or_insert_with(Instant::now);
    }

    /// Waits until somebody changes a chain that matters. Cancel safe.
    pub(super) async fn listen(&mut self) -> Result<(), KernelError> {
        let Self { door, watched, concerned, due, changer, .. } = self;
        let port = door.port();
        door.wait(|told| take_in(told, port, watched, concerned, due, changer)).await
    }

    /// Takes in what has been told already.
    fn hear(&mut self) -> Result<(), KernelError> {
        let Self { door, watched, concerned, due, changer, .. } = self;
        let port = door.port();
        door.take(|told| take_in(told, port, watched, concerned, due, changer))
    }

    /// The chains that hold ours.
    pub(super) fn places(&self) -> impl Iterator<Item = &String> {
        self.right.iter()
    }

    pub(super) fn take_cleared(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.cleared)
    }

    /// Whether all has been looked at.
    pub(super) fn looked(&self) -> bool {
        self.looked
    }

    pub(super) fn trouble(&self) -> Option<String> {
        trouble(&self.retries).map(|trouble| format!("rules in others' forward chains: {trouble}"))
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

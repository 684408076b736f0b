//! Two rules of ours in others' chains, where those would drop what passes: an acceptance in a table of one's own overrules nobody.
//!
//! Chains in nf_tables are looked at when their rules change, whoever changed them ([`told`]); what iptables-legacy holds tells nobody, and
//! is looked at every so many seconds, if there is any ([`polled`]). Our rules bear our table's name as their comment. What is not
//! needed any more is taken away.

mod leftovers;
mod legacy;
mod native;
mod polled;
mod ruleset;
mod told;
mod xtables;

use std::time::{Duration, Instant};

use lease::{Family, Subnet};

use super::family::{self, facts};
use super::message::Changer;
use crate::kernel::KernelError;
use crate::retry::{Retries, Trouble};

pub use self::leftovers::flanneld_filters;
pub(super) use self::leftovers::remove as remove_leftovers;
use self::polled::Legacy;
use self::told::Native;

/// What is logged once ours are where they are needed, and nowhere else.
const PUT_RIGHT: &str = "rules of ours in others' forward chains are as they are needed";

/// What our rules say, and by what they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Our table's name: their comment.
    pub(super) owner: String,
    pub(super) network: Subnet,
}

impl Mark {
    fn family(&self) -> Family {
        family::of(self.network)
    }
}

/// Our rules, and whether they are wanted at all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    mark: Mark,
    wanted: bool,
}

/// Keeps our rules where they are needed.
pub(super) struct Forward {
    wish: Wish,
    native: Native,
    legacy: Legacy,
}

impl Forward {
    /// Opens the way to nf_tables. Where nothing is `wanted`, rules of ours are taken away.
    pub(super) fn open(mark: Mark, wanted: bool, resync: Duration) -> Result<Self, KernelError> {
        Ok(Self { wish: Wish { mark, wanted }, native: Native::open()?, legacy: Legacy::new(resync) })
    }

    /// Does what there is to do.
    pub(super) async fn step(&mut self, now: Instant) -> Result<(), KernelError> {
        self.native.step(&self.wish, now).await?;
        self.legacy.step(&self.wish, now).await;
        Ok(())
    }

    /// When [`step`](Self::step) is due though nothing happens.
    pub(super) fn next_due(&self) -> Instant {
        let legacy = self.legacy.next_due();
        self.native.next_due().map_or(legacy, |native| native.min(legacy))
    }

    /// Asks for a look at everything at the next step.
    pub(super) fn audit(&mut self) {
        self.native.audit();
    }

    /// Waits until somebody changes a chain that matters. Cancel safe.
    pub(super) async fn listen(&mut self) -> Result<(), KernelError> {
        self.native.listen().await
    }

    /// The chains that hold ours.
    pub(super) fn places(&self) -> Vec<String> {
        self.native.places().chain(self.legacy.place()).cloned().collect()
    }

    /// Whether all has been looked at, and nothing is being waited for.
    pub(super) fn in_step(&self) -> bool {
        self.native.looked() && self.trouble().is_none()
    }

    /// Why what passes may be dropped.
    pub(super) fn trouble(&self) -> Option<String> {
        self.native.trouble().or_else(|| self.legacy.trouble())
    }

    /// What cannot be told or done for want of a program or a right.
    pub(super) fn note(&self) -> Option<&str> {
        self.legacy.note()
    }

    pub(super) fn take_heals(&mut self) -> (u64, Option<Changer>) {
        let (heals, changer) = self.native.take_heals();
        (heals + self.legacy.take_heals(), changer)
    }
}

/// What does not come right.
fn trouble(retries: &Retries<()>) -> Option<Trouble> {
    // A fight that is being won is no trouble.
    let wrong = retries.refused() + retries.outdone() > 0;
    retries.troubles().next().filter(|_| wrong).map(|(_, trouble)| trouble)
}

/// The mark of a table's rules, whatever network they name.
fn any_network(owner: &str, family: Family) -> Result<Mark, KernelError> {
    let nobody = |error: lease::SubnetError| KernelError::Protocol { call: "name all addresses", reason: error.to_string() };
    let network = Subnet::containing(facts(family).unspecified, 0).map_err(nobody)?;
    Ok(Mark { owner: owner.to_owned(), network })
}

/// Whether some chain of others' holds rules that bear a table's name.
pub(super) async fn somewhere(owner: &str, family: Family) -> Result<bool, KernelError> {
    let wish = Wish { mark: any_network(owner, family)?, wanted: false };
    let native = native::look(family, &wish.mark).await?.hosts;
    Ok(native.iter().any(native::Host::holds_ours) || polled::holds(&wish).await)
}

/// Takes the rules away that bear a table's name, from wherever they are. Says where that was, and what stood in the way.
pub(super) async fn remove(owner: &str, family: Family) -> Result<(Vec<String>, Option<String>), KernelError> {
    let mut forward = Forward::open(any_network(owner, family)?, false, Duration::ZERO)?;
    forward.step(Instant::now()).await?;
    let mut cleared: Vec<String> = forward.native.take_cleared().into_iter().collect();
    cleared.extend(forward.legacy.take_cleared());
    Ok((cleared, forward.trouble()))
}

/// Whatever bytes there are, they are read or refused.
#[cfg(feature = "contract")]
pub(super) fn fuzz(datagram: &[u8]) -> usize {
    let table = super::TableId::of(Family::V4, "loden-flannel.1".to_owned());
    crate::kernel::Messages::new(datagram).flatten().map(|message| native::fuzz(&message, &table)).sum()
}

//! A network's rules for one family: its table, our rules in others' forward chains, and what flanneld left, which goes once ours are in
//! force.

use std::fmt;
use std::time::{Duration, Instant};

use super::door::Door;
use super::forward::{self, Forward, Mark};
use super::message::Changer;
use super::net::{NetSpec, POSTROUTING_CHAIN, REMEDY};
use super::table::Table;
use super::{OurTable, TableId};
use crate::kernel::KernelError;
use crate::retry::LONGEST_DELAY;

/// Keeps them.
pub struct PacketFilter {
    spec: NetSpec,
    table: Table,
    forward: Forward,
    /// Whether all has been as it should be.
    stood: bool,
    /// When to look for what flanneld left, once ours is in force.
    succession: Option<Instant>,
    note: Option<String>,
}

impl PacketFilter {
    /// Opens the way to nf_tables in the calling thread's network namespace. Nothing is changed yet. What tells nobody of its changes
    /// is looked at every `resync`.
    ///
    /// # Errors
    /// [`KernelError`] when a socket cannot be had.
    pub fn open(spec: NetSpec, resync: Duration) -> Result<Self, KernelError> {
        let id = spec.table();
        let mark = Mark { owner: id.name.clone(), network: spec.network };
        Ok(Self {
            forward: Forward::open(mark, spec.forward, resync)?,
            table: Table::open(id, spec.family(), spec.frame(), REMEDY)?,
            spec,
            stood: false,
            succession: Some(Instant::now()),
            note: None,
        })
    }

    /// Does what there is to do.
    ///
    /// # Errors
    /// [`KernelError`] when nf_tables cannot be spoken to. What was to be done is still to be done then.
    pub async fn step(&mut self, now: Instant) -> Result<(), KernelError> {
        self.table.step(true, now).await?;
        self.forward.step(now).await?;
        if self.in_step() {
            self.stood = true;
            if self.succession.is_some_and(|due| due <= now) {
                self.succeed(now).await;
            }
        }
        Ok(())
    }

    /// Takes away what flanneld left. What cannot be taken away does no harm beside ours, and is tried again.
    async fn succeed(&mut self, now: Instant) {
        let failed = match forward::remove_leftovers(self.spec.network).await {
            Ok((gone, failed)) => {
                if !gone.is_empty() {
                    tracing::info!(gone = gone.join(", "), "rules that flanneld left removed: ours are in force");
                }
                failed
            }
            Err(error) => Some(error.to_string()),
        };
        self.succession = failed.as_ref().map(|_| now + LONGEST_DELAY);
        self.note = failed.map(|reason| format!("rules that flanneld may have left stay: {reason}"));
    }

    /// Waits until somebody has changed what matters. Cancel safe.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel cannot be heard any more.
    pub async fn listen(&mut self) -> Result<(), KernelError> {
        let Self { table, forward, .. } = self;
        tokio::select! {
            heard = table.listen() => heard,
            heard = forward.listen() => heard,
        }
    }

    /// Asks for a look at everything at the next step.
    pub fn audit(&mut self) {
        self.table.audit();
        self.forward.audit();
    }

    /// When [`step`](Self::step) has to be called again though nothing happens.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let succession = self.succession.filter(|_| self.in_step());
        [self.table.next_due(), Some(self.forward.next_due()), succession].into_iter().flatten().min()
    }

    /// Others' chains that hold rules of ours.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.forward.places()
    }

    /// Whether all is as it should be.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.table.in_step() && self.forward.in_step()
    }

    /// Whether the table has been seen to stand, and others' chains to be right.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.stood
    }

    /// Why packets may be treated otherwise than they should.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.table.trouble().or_else(|| self.forward.trouble())
    }

    /// What a person should know besides.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.forward.note().into_iter().chain(self.note.as_deref())
    }

    /// Repairs of what others changed since this was last asked, and who was the last that changed anything.
    pub fn take_heals(&mut self) -> (u64, Option<Changer>) {
        let ((table, by), (forward, elsewhere)) = (self.table.take_heals(), self.forward.take_heals());
        (table + forward, if forward > 0 { elsewhere.or(by) } else { by })
    }
}

impl fmt::Debug for PacketFilter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PacketFilter").field("table", &self.table).finish_non_exhaustive()
    }
}

/// Whether packets rely on a table of ours: it masquerades, or stands for rules where somebody else drops. Before such a one goes, another
/// has to be in its place.
///
/// # Errors
/// [`KernelError`] when nf_tables cannot be spoken to.
pub async fn is_relied_on(table: &OurTable) -> Result<bool, KernelError> {
    let id = TableId::of(table.family, table.name.clone());
    let masquerades = async { Ok(Door::open()?.look(&id, false).await?.frame.chains.contains_key(POSTROUTING_CHAIN)) };
    match masquerades.await {
        Err(error) if super::lacks_nf_tables(&error) => Ok(false),
        Ok(false) => forward::somewhere(&table.name, table.family).await,
        known => known,
    }
}

/// Takes the rules away that a table of ours stands for in others' chains. Says where they were, and what stood in the way.
///
/// # Errors
/// [`KernelError`] when nf_tables cannot be spoken to.
pub async fn remove_guests(table: &OurTable) -> Result<(Vec<String>, Option<String>), KernelError> {
    match forward::remove(&table.name, table.family).await {
        Err(error) if super::lacks_nf_tables(&error) => Ok((Vec::new(), None)),
        removed => removed,
    }
}

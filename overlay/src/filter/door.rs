//! The way to the kernel's nf_tables: transactions, dumps, notifications.

use netlink_packet_core::DecodeError;
use nix::errno::Errno;

use super::TableId;
use super::message::{GETCHAIN, GETRULE, GETSET, GETTABLE, Heard, Request, Seen, del_table, get_elements, heard, table_of, transaction};
use crate::kernel::{Answer, KernelError, Message, Messages, Question, Received, Refusal, Socket, ask, read_answer};

const TRANSACTION: &str = "change the filter table";
const LOOK: &str = "dump the filter table";
const EVENTS: &str = "read nf_tables' notifications";

/// So often a dump is made again at once when a change of any table of the host interrupted it.
const TRIES: usize = 3;

/// `NFNLGRP_NFTABLES` (include/uapi/linux/netfilter/nfnetlink.h, v6.18).
const GROUP: u32 = 7;

/// What a transaction may be at most, so that a mistake is no endless buffer: some 100 000 peers.
const LARGEST: usize = 8 * 1024 * 1024;

/// Two sockets: requests and notifications.
pub(super) struct Door {
    requests: Socket,
    events: Socket,
    number: u32,
    port: u32,
}

impl Door {
    /// Opens the sockets in the calling thread's network namespace. Notifications are kept from now on.
    pub(super) fn open() -> Result<Self, KernelError> {
        let events = Socket::for_filter_events(GROUP)?;
        let requests = Socket::for_filter(LARGEST)?;
        Ok(Self { port: requests.port()?, requests, events, number: 0 })
    }

    /// The socket's number that the kernel knows our changes by.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Sends requests: as one transaction, or where the send buffer cannot be made large enough for it as several, in their order.
    pub(super) async fn change(&mut self, requests: &[Request]) -> Result<Result<(), Refusal>, KernelError> {
        let most = self.requests.largest();
        let mut rest = requests;
        while !rest.is_empty() {
            let mut size = 0;
            let fit = rest.iter().take_while(|request| {
                size += request.len();
                size < most
            });
            let (portion, behind) = rest.split_at(fit.count().max(1).min(rest.len()));
            if let Err(refusal) = self.transact(portion).await? {
                return Ok(Err(refusal));
            }
            rest = behind;
        }
        Ok(Ok(()))
    }

    async fn transact(&mut self, requests: &[Request]) -> Result<Result<(), Refusal>, KernelError> {
        let first = self.number.wrapping_add(1);
        let (datagram, last) = transaction(requests, first);
        self.number = last.wrapping_add(1);
        self.requests.send(TRANSACTION, &datagram).await?;
        let mut refused = None;
        loop {
            let Received::Datagram(datagram) = self.requests.receive(TRANSACTION).await? else {
                return Err(KernelError::Protocol { call: TRANSACTION, reason: "the answer was lost".to_owned() });
            };
            for message in Messages::new(datagram) {
                let message = message.map_err(malformed(TRANSACTION))?;
                let number = message.sequence_number();
                if number.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                if let Answer::Refused(refusal) = read_answer(message).map_err(malformed(TRANSACTION))? {
                    refused.get_or_insert(refusal);
                }
                // What concerns the transaction as a whole has the number of its begin.
                if number == last || number == first {
                    return Ok(refused.map_or(Ok(()), Err));
                }
            }
        }
    }

    /// A table as it is, with or without its elements.
    pub(super) async fn look(&self, table: &TableId, elements: bool) -> Result<Seen, KernelError> {
        let mut seen = Seen::default();
        let mut take = |message: &Message<'_>| seen.take(message, table);
        for kind in [GETTABLE, GETCHAIN, GETSET, GETRULE] {
            dump(&Request::new(kind, 0, table, |_| ()), &mut take).await?;
        }
        if elements {
            for set in seen.frame.sets.keys().cloned().collect::<Vec<_>>() {
                dump(&get_elements(table, &set), |message| seen.take(message, table)).await?;
            }
        }
        Ok(seen)
    }

    /// Deletes a table. False if there was none.
    pub(super) async fn remove(&mut self, table: &TableId) -> Result<Result<bool, Refusal>, KernelError> {
        Ok(match self.transact(&[del_table(table)]).await? {
            Ok(()) => Ok(true),
            Err(Refusal { errno: Errno::ENOENT, .. }) => Ok(false),
            Err(refusal) => Err(refusal),
        })
    }

    /// Waits for notifications. Cancel safe: what is not returned is still in the socket.
    pub(super) async fn wait(&mut self, take: impl FnOnce(Told<'_>)) -> Result<(), KernelError> {
        take(told(self.events.wait(EVENTS).await?));
        Ok(())
    }

    /// The notifications that are there already.
    pub(super) fn take(&mut self, mut take: impl FnMut(Told<'_>)) -> Result<(), KernelError> {
        while let Some(received) = self.events.take(EVENTS)? {
            take(told(received));
        }
        Ok(())
    }
}

/// What the kernel told unasked: a datagram, or that some were lost.
pub(super) type Told<'a> = Option<&'a [u8]>;

fn told(received: Received<'_>) -> Told<'_> {
    match received {
        Received::Datagram(datagram) => Some(datagram),
        Received::Overrun => None,
    }
}

/// All tables there are, of every family.
pub(super) async fn tables() -> Result<Vec<TableId>, KernelError> {
    let mut tables = Vec::new();
    let take = |message: &Message<'_>| {
        tables.extend(table_of(message)?);
        Ok(())
    };
    dump(&Request::of_family(GETTABLE, 0, 0, |_| ()), take).await?;
    Ok(tables)
}

/// Takes in each message of a dump, once it is there as a whole.
pub(super) async fn dump(request: &Request, take: impl FnMut(&Message<'_>) -> Result<(), DecodeError>) -> Result<(), KernelError> {
    let part = whole(request).await?;
    let mut take = take;
    let mut messages = part.iter().flat_map(|bytes| Messages::new(bytes));
    messages.try_for_each(|message| take(&message?)).map_err(malformed(LOOK))
}

/// A dump's messages, as bytes: one that is begun anew must not be taken in twice.
async fn whole(request: &Request) -> Result<Vec<Vec<u8>>, KernelError> {
    let question = Question::of_filter(LOOK, |flags, number| {
        let mut datagram = Vec::new();
        request.write(&mut datagram, flags, number);
        datagram
    });
    let mut part = Vec::new();
    ask(&question, TRIES, &mut part, |part: &mut Vec<Vec<u8>>, message: &Message<'_>| {
        // Its buffer goes on with the messages behind it.
        let len = usize::try_from(message.length()).unwrap_or(usize::MAX);
        part.push(message.buffer.get(..len).unwrap_or(message.buffer).to_vec());
        Ok(())
    })
    .await?;
    Ok(part)
}

/// What is told of a table. What was lost may have been about it.
pub(super) fn take_in(told: Told<'_>, table: &TableId, all: &mut Vec<Heard>) {
    match told {
        Some(datagram) => datagram_says(datagram, table, all),
        None => all.push(Heard::Table),
    }
}

/// What a datagram of notifications says of our table. One that cannot be read is as good as lost.
pub(super) fn datagram_says(datagram: &[u8], table: &TableId, all: &mut Vec<Heard>) {
    for message in Messages::new(datagram) {
        match message.and_then(|message| heard(&message, table)) {
            Ok(heard) => all.extend(heard),
            Err(_) => all.push(Heard::Table),
        }
    }
}

fn malformed(call: &'static str) -> impl Fn(DecodeError) -> KernelError {
    move |error| KernelError::Protocol { call, reason: format!("a message of the kernel cannot be decoded: {error}") }
}

//! Mailboxes that live on other hosts, for clients of this one: what is asked goes over the link, what comes back is
//! told to the client as if the mailbox were here.
//!
//! A client is one *visit* at each host that it needs, where it has a connection and channels of its own. What it holds there
//! is known here by the number of an *alias*, which no mailbox of this host has. When the link breaks, the visit ends:
//! consumers are cancelled, questions refused, and whatever was held is back at home.

mod ask;
mod end;
mod hand;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::takeover::Mover;
use crate::broker::command::{
    ChannelId, ConnectionId, ConsumerId, DeclareMailbox, MailboxId, Seq, Ticket,
};
use crate::broker::event::Delivery;
use crate::broker::name::Name;

/// Set in the numbers of aliases; mailboxes are never counted so far.
const ALIAS: u64 = 1 << 63;
/// Questions of one client that a host has not answered. Further ones are refused.
const ASKED_MAX: usize = 1024;
/// Mailboxes of a visit that are remembered though nothing is held there.
const ALIASES_MAX: usize = 256;
/// Windows of what a link may have to write before clients have to wait with their questions.
const WINDOWS_MAX: u32 = 4;
/// What a question counts for on the link.
pub const ASK_SIZE: u64 = 64;
/// What went on to the client is told once it is so much.
const DRAINED_BYTES: u64 = 64 << 10;
const DRAINED_DELIVERIES: u32 = 64;
/// Of what nobody waits for.
pub(super) const NOBODY: Ticket = Ticket(u64::MAX);

#[derive(Debug, Default)]
pub(in crate::broker) struct Afar {
    pub(super) visits: BTreeMap<u32, Visit>,
    /// By client and host.
    parties: BTreeMap<ConnectionId, BTreeMap<Name, u32>>,
    aliases: BTreeMap<MailboxId, Alias>,
    pub(super) last_visit: u32,
    last_alias: u64,
}

/// A client of this host at another one.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) party: ConnectionId,
    pub(super) host: Name,
    pub(super) link: ConnectionId,
    /// Those that it used there.
    pub(super) channels: BTreeSet<ChannelId>,
    pub(super) asked: BTreeMap<(ChannelId, Ticket), Asked>,
    pub(super) consumers: BTreeMap<(ChannelId, ConsumerId), Name>,
    /// Aliases by the mailbox's number at its home.
    pub(super) known: BTreeMap<MailboxId, MailboxId>,
    /// Came from there and was not written to the client's socket yet.
    pub(super) owed: u32,
    pub(super) owed_bytes: u64,
    /// Was written, and the host is not told.
    pub(super) drained: u32,
    pub(super) drained_bytes: u64,
}

/// A question on its way, and the mailbox that it is about.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) mailbox: Name,
    pub(super) wish: Wish,
}

#[derive(Debug)]
pub(super) enum Wish {
    Consume(ConsumerId),
    Cancel(ConsumerId),
    Declare(Box<DeclareMailbox>),
    /// The mailbox shall live there.
    Move(Mover),
    Other,
}

/// A mailbox at its home, as one visit knows it.
#[derive(Debug)]
struct Alias {
    visit: u32,
    mailbox: MailboxId,
    /// Delivered and not settled.
    held: BTreeSet<(ChannelId, Seq)>,
}

impl Afar {
    pub(in crate::broker) fn is_empty(&self) -> bool {
        self.visits.is_empty()
    }

    pub(in crate::broker) fn is_alias(&self, mailbox: MailboxId) -> bool {
        self.aliases.contains_key(&mailbox)
    }

    /// A client's visit to a host, over this link.
    pub(super) fn begin(
        &mut self,
        party: ConnectionId,
        host: &Name,
        link: ConnectionId,
        channels: BTreeSet<ChannelId>,
    ) -> u32 {
        self.last_visit = self.last_visit.wrapping_add(1);
        let visit = Visit {
            party,
            host: host.clone(),
            link,
            channels,
            asked: BTreeMap::new(),
            consumers: BTreeMap::new(),
            known: BTreeMap::new(),
            owed: 0,
            owed_bytes: 0,
            drained: 0,
            drained_bytes: 0,
        };
        self.visits.insert(self.last_visit, visit);
        self.last_visit
    }

    /// The client's visits.
    fn of(&self, party: ConnectionId) -> impl Iterator<Item = u32> + use<> {
        let all: SmallVec<[u32; 4]> =
            self.parties.get(&party).into_iter().flat_map(BTreeMap::values).copied().collect();
        all.into_iter()
    }

    /// Those of the client's visits in which it used the channel.
    fn with_channel(
        &self,
        party: ConnectionId,
        channel: ChannelId,
    ) -> impl Iterator<Item = u32> + '_ {
        let used = move |it: &u32| {
            self.visits.get(it).is_some_and(|visit| visit.channels.contains(&channel))
        };
        self.of(party).filter(used)
    }

    /// The visit in which it consumes, and from what.
    fn consumer(
        &self,
        party: ConnectionId,
        channel: ChannelId,
        consumer: ConsumerId,
    ) -> Option<(u32, Name)> {
        self.with_channel(party, channel).find_map(|number| {
            let mailbox = self.visits.get(&number)?.consumers.get(&(channel, consumer))?;
            Some((number, mailbox.clone()))
        })
    }

    fn alias(&mut self, number: u32, mailbox: MailboxId) -> Option<MailboxId> {
        let visit = self.visits.get_mut(&number)?;
        if let Some(alias) = visit.known.get(&mailbox) {
            return Some(*alias);
        }
        if visit.known.len() >= ALIASES_MAX && visit.known.len().is_power_of_two() {
            let aliases = &mut self.aliases;
            visit.known.retain(|_, alias| {
                let held = aliases.get(alias).is_some_and(|it| !it.held.is_empty());
                if !held {
                    aliases.remove(alias);
                }
                held
            });
        }
        self.last_alias += 1;
        let alias = MailboxId(ALIAS | self.last_alias);
        visit.known.insert(mailbox, alias);
        self.aliases.insert(alias, Alias { visit: number, mailbox, held: BTreeSet::new() });
        Some(alias)
    }

    /// What the channel held in the visit is not its own any longer.
    fn drop_held(&mut self, number: u32, channel: ChannelId) {
        let Some(visit) = self.visits.get(&number) else { return };
        for alias in visit.known.values() {
            if let Some(alias) = self.aliases.get_mut(alias) {
                alias.held.retain(|(of, _)| *of != channel);
            }
        }
    }

    /// From now on the delivery is one of the alias.
    fn hold(&mut self, alias: MailboxId, delivery: &mut Delivery) {
        delivery.mailbox = alias;
        if let Some(alias) = self.aliases.get_mut(&alias)
            && !delivery.settled
        {
            alias.held.insert((delivery.channel, delivery.seq));
        }
    }
}

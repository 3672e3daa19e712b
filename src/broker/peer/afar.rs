//! Mailboxes that live on other hosts, for clients of this one: what is asked goes over the link, what comes back is
//! told to the client as if the mailbox were here.
//!
//! A client is one *visit* at each host that it needs, where it has a connection and channels of its own. What it holds there
//! is known here by the number of an *alias*, which no mailbox of this host has. When the link breaks, the visit ends:
//! consumers are cancelled, questions refused, and whatever was held is back at home.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::{Broker, PeerEvent};
use crate::broker::SERVER;
use crate::broker::browse::{MessageView, MessageViews};
use crate::broker::command::{
    BindingOf, ChannelId, Command, ConnectionId, ConsumerId, DeclareExchange, DeclareMailbox,
    Extend, MailboxId, Open, Outcome, QosScope, Request, Run, Seq, Settle, Ticket,
};
use crate::broker::definition::Destination;
use crate::broker::event::{Delivery, Effect, Event, Reply, Rest};
use crate::broker::inspect::{Inspect, Inspection};
use crate::broker::look::Browsed;
use crate::broker::name::{Name, Time};
use crate::broker::refusal::{Action, Kind, Refusal};
use crate::broker::stream::dead_letter_exchange;
use crate::broker::value::Table;

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
/// Of messages that are looked at.
const LOOK_BYTES_MAX: u64 = 4 << 20;
/// Of what nobody waits for.
const NOBODY: Ticket = Ticket(u64::MAX);

#[derive(Debug, Default)]
pub(in crate::broker) struct Afar {
    visits: BTreeMap<u32, Visit>,
    /// By client and host.
    parties: BTreeMap<ConnectionId, BTreeMap<Name, u32>>,
    aliases: BTreeMap<MailboxId, Alias>,
    last_visit: u32,
    last_alias: u64,
}

/// A client of this host at another one.
#[derive(Debug)]
struct Visit {
    party: ConnectionId,
    host: Name,
    link: ConnectionId,
    /// Those that it used there.
    channels: BTreeSet<ChannelId>,
    asked: BTreeMap<(ChannelId, Ticket), Asked>,
    consumers: BTreeMap<(ChannelId, ConsumerId), Name>,
    /// Aliases by the mailbox's number at its home.
    known: BTreeMap<MailboxId, MailboxId>,
    /// Came from there and was not written to the client's socket yet.
    owed: u32,
    owed_bytes: u64,
    /// Was written, and the host is not told.
    drained: u32,
    drained_bytes: u64,
}

/// A question on its way, and the mailbox that it is about.
#[derive(Debug)]
struct Asked {
    mailbox: Name,
    wish: Wish,
}

#[derive(Debug)]
enum Wish {
    Consume(ConsumerId),
    Cancel(ConsumerId),
    Declare(Box<DeclareMailbox>),
    /// To look at so many messages.
    Look,
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
}

impl Broker {
    /// Asks the home of a mailbox that is not here. What is to be done here comes back.
    pub(in crate::broker) fn ask_afar(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        ticket: Ticket,
        request: Request,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Option<Request>, Refusal> {
        if !self.peers.on() || from == SERVER || from.is_visitor() || self.acting.is_some() {
            return Ok(Some(request));
        }
        if !self.peers.afar.is_empty() {
            match &request {
                // Each host has credit of its own to give.
                Request::Qos { .. } | Request::Recover => {
                    self.tell_visits(from, channel, &request, out)?;
                    return Ok(Some(request));
                }
                Request::Cancel(consumer) => {
                    let found = self.peers.afar.consumer(from, channel, *consumer);
                    let Some((number, mailbox)) = found else { return Ok(Some(request)) };
                    // Asked again and again, it is answered here.
                    if self.peers.afar.visits[&number].asked.len() >= ASKED_MAX {
                        return Ok(Some(request));
                    }
                    let asked = Asked { mailbox, wish: Wish::Cancel(*consumer) };
                    self.ask(number, (channel, ticket), asked, request, out);
                    return Ok(None);
                }
                _ => {}
            }
        }
        let Some(name) = mailbox_of(&request) else { return Ok(Some(request)) };
        let (user, vhost) = self.whose(from)?;
        let of_another = |request: &Request| match request {
            Request::Inspect(Inspect::Messages { vhost: of, .. }) => *of != vhost,
            _ => false,
        };
        if self.find(&vhost, name).is_some() || of_another(&request) {
            return Ok(Some(request));
        }
        let Some(host) = self.home_of(&vhost, name).cloned() else { return Ok(Some(request)) };
        let mailbox = name.clone();
        let link = self.peers.neighbours.get(&host).and_then(|it| it.carrier);
        let (request, wish) = match request {
            Request::DeclareMailbox(declare) => {
                let answered = self.declare_mailbox(from, &declare, false, now, out)?;
                if link.is_none() || self.reply_address_lives(&vhost, &mailbox).is_some() {
                    self.answer(from, channel, ticket, Ok(answered), out);
                    return Ok(None);
                }
                (look(&mailbox), Wish::Declare(Box::new(declare)))
            }
            Request::Inspect(Inspect::Messages { count, .. }) => {
                let request =
                    Request::Browse { mailbox: mailbox.clone(), count, bytes_max: LOOK_BYTES_MAX };
                self.check_afar(&user, &vhost, &mailbox, &request)?;
                (request, Wish::Look)
            }
            request => {
                self.check_afar(&user, &vhost, &mailbox, &request)?;
                let wish = match &request {
                    Request::Consume(consume) => Wish::Consume(consume.consumer),
                    _ => Wish::Other,
                };
                (request, wish)
            }
        };
        if let Request::Bind(bind) = &request {
            self.check_spans(&vhost, bind, &host)?;
        }
        let Some(link) = link else {
            return Err(Refusal::Inaccessible { host, name: mailbox, vhost });
        };
        let number = self.visit_at(from, &host, link, out)?;
        let full = self.peers.afar.visits[&number].asked.len() >= ASKED_MAX;
        if full || self.link_is_full(link) {
            return Err(too_much(&host));
        }
        self.use_channel(number, from, channel, out);
        if let Request::Bind(bind) = &request {
            self.bring_exchange(number, channel, &vhost, &bind.source, out);
        }
        if let Request::Consume(consume) = &request
            && let Some(visit) = self.peers.afar.visits.get_mut(&number)
        {
            visit.consumers.insert((channel, consume.consumer), mailbox.clone());
        }
        self.ask(number, (channel, ticket), Asked { mailbox, wish }, request, out);
        Ok(None)
    }

    /// The same that is asked of who uses a mailbox here. Its home takes this host's word for it.
    fn check_afar(
        &self,
        user: &Name,
        vhost: &Name,
        mailbox: &Name,
        request: &Request,
    ) -> Result<(), Refusal> {
        let check = |action, kind, name: &str| self.access.check(user, vhost, action, kind, name);
        match request {
            Request::DeleteMailbox { .. } => check(Action::Configure, Kind::Mailbox, mailbox),
            Request::Bind(BindingOf { source, key, .. })
            | Request::Unbind(BindingOf { source, key, .. }) => {
                if source.is_empty() {
                    return Err(Refusal::DefaultExchange);
                }
                check(Action::Write, Kind::Mailbox, mailbox)?;
                check(Action::Read, Kind::Exchange, source)?;
                self.access.check_topic(user, vhost, source, Action::Read, key)
            }
            Request::Consume(consume) => {
                check(Action::Read, Kind::Mailbox, mailbox)?;
                match dead_letter_exchange(consume) {
                    Some(exchange) => check(Action::Write, Kind::Exchange, &exchange),
                    None => Ok(()),
                }
            }
            _ => check(Action::Read, Kind::Mailbox, mailbox),
        }
    }

    /// The client's visit there, which begins with the first question.
    fn visit_at(
        &mut self,
        party: ConnectionId,
        host: &Name,
        link: ConnectionId,
        out: &mut Vec<Effect>,
    ) -> Result<u32, Refusal> {
        let known = self.peers.afar.parties.get(&party).and_then(|it| it.get(host));
        if let Some(number) = known {
            return Ok(*number);
        }
        let open = self.connections.get(&party).and_then(|it| it.open.as_deref());
        let Some(open) = open else { return Err(Refusal::NotAllowed("no connection".into())) };
        let open = Open {
            user: open.user.clone(),
            vhost: open.vhost.clone(),
            protocol: super::VISITOR_PROTOCOL,
            peer: open.peer.clone(),
            local: String::new(),
            client_name: None,
            client_properties: Table::new(),
            mechanism: "",
            strict_channels: false,
            cancel_notify: open.cancel_notify,
        };
        let afar = &mut self.peers.afar;
        afar.last_visit = afar.last_visit.wrapping_add(1);
        let number = afar.last_visit;
        let visit = Visit {
            party,
            host: host.clone(),
            link,
            channels: BTreeSet::new(),
            asked: BTreeMap::new(),
            consumers: BTreeMap::new(),
            known: BTreeMap::new(),
            owed: 0,
            owed_bytes: 0,
            drained: 0,
            drained_bytes: 0,
        };
        afar.visits.insert(number, visit);
        afar.parties.entry(party).or_default().insert(host.clone(), number);
        self.tell(number, Command::Open(Box::new(open), NOBODY), out);
        Ok(number)
    }

    /// With its limit, if the channel has one.
    fn use_channel(
        &mut self,
        number: u32,
        party: ConnectionId,
        channel: ChannelId,
        out: &mut Vec<Effect>,
    ) {
        let limit = self.channel_mut(party, channel).limit;
        let Some(visit) = self.peers.afar.visits.get_mut(&number) else { return };
        if visit.channels.insert(channel) && limit > 0 {
            let qos = Request::Qos { limit, scope: QosScope::Channel };
            self.tell(number, Command::Request(channel, NOBODY, Box::new(qos)), out);
        }
    }

    /// What is published to the exchange here must find its way.
    fn check_spans(&self, vhost: &Name, bind: &BindingOf, host: &Name) -> Result<(), Refusal> {
        let exchange = self.vhosts.get(vhost).and_then(|it| it.exchanges.get(&bind.source));
        match exchange {
            Some(exchange) if !exchange.spans() => Err(Refusal::Precondition(format!(
                "exchange '{}' in vhost '{vhost}' of type '{}' does not reach queue '{}' on host '{host}'",
                bind.source,
                exchange.definition().kind,
                bind.destination.name()
            ))),
            _ => Ok(()),
        }
    }

    /// A binding is made where the mailbox lives, and the exchange must be there too.
    fn bring_exchange(
        &mut self,
        number: u32,
        channel: ChannelId,
        vhost: &Name,
        name: &Name,
        out: &mut Vec<Effect>,
    ) {
        let exchange = self.vhosts.get(vhost).and_then(|it| it.exchanges.get(name));
        let Some(definition) = exchange.map(|it| it.definition()) else { return };
        if name.starts_with("amq.") {
            return;
        }
        let declare = DeclareExchange {
            name: name.clone(),
            kind: definition.kind.clone(),
            passive: false,
            durable: definition.durable,
            auto_delete: definition.auto_delete,
            internal: definition.internal,
            arguments: definition.arguments.clone(),
        };
        let request = Box::new(Request::DeclareExchange(declare));
        self.tell(number, Command::Request(channel, NOBODY, request), out);
    }

    fn ask(
        &mut self,
        number: u32,
        place: (ChannelId, Ticket),
        asked: Asked,
        request: Request,
        out: &mut Vec<Effect>,
    ) {
        if let Some(visit) = self.peers.afar.visits.get_mut(&number) {
            visit.asked.insert(place, asked);
        }
        self.tell(number, Command::Request(place.0, place.1, Box::new(request)), out);
    }

    fn tell(&mut self, number: u32, command: Command, out: &mut Vec<Effect>) {
        let Some(visit) = self.peers.afar.visits.get(&number) else { return };
        let link = self.connections.entry(visit.link).or_default();
        link.in_flight += 1;
        link.in_flight_bytes += ASK_SIZE;
        let event = PeerEvent::Ask { visit: number, command };
        out.push(Effect::Notify(visit.link, Event::Peer(event)));
    }

    fn link_is_full(&self, link: ConnectionId) -> bool {
        let most = self.settings.window_deliveries.saturating_mul(WINDOWS_MAX);
        self.connections.get(&link).is_some_and(|it| it.in_flight >= most)
    }

    /// What is done here and there.
    fn tell_visits(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        request: &Request,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let all: Vec<_> = self.peers.afar.with_channel(from, channel).collect();
        for number in &all {
            let Some(visit) = self.peers.afar.visits.get(number) else { continue };
            if self.link_is_full(visit.link) {
                return Err(too_much(&visit.host));
            }
        }
        for number in all {
            let request = match request {
                Request::Qos { limit, scope } => Request::Qos { limit: *limit, scope: *scope },
                _ => {
                    self.peers.afar.drop_held(number, channel);
                    Request::Recover
                }
            };
            self.tell(number, Command::Request(channel, NOBODY, Box::new(request)), out);
        }
        Ok(())
    }

    fn answer(
        &mut self,
        party: ConnectionId,
        channel: ChannelId,
        ticket: Ticket,
        result: Result<Reply, Refusal>,
        out: &mut Vec<Effect>,
    ) {
        if result.is_err() {
            self.mark_failed(party, channel);
        }
        out.push(Effect::NotifyDurable(party, Event::Reply { channel, ticket, result }));
    }

    /// Deliveries of an alias. Whether some of them are not held. `None` gives them more time.
    pub(in crate::broker) fn settle_afar(
        &mut self,
        (from, channel): (ConnectionId, ChannelId),
        run: &Run,
        outcome: Option<Outcome>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let afar = &mut self.peers.afar;
        // Like those of a mailbox that is gone.
        let Some(alias) = afar.aliases.get_mut(&run.mailbox) else { return false };
        let number = alias.visit;
        if afar.visits.get(&number).is_none_or(|visit| visit.party != from) {
            return true;
        }
        let end = Seq(run.first.0.saturating_add(u64::from(run.count)));
        let found = alias.held.range((channel, run.first)..(channel, end));
        let found: Vec<Seq> = found.map(|(_, seq)| *seq).collect();
        let unknown = found.len() < run.count as usize;
        let mut deliveries: SmallVec<[Run; 1]> = SmallVec::new();
        for seq in found {
            if outcome.is_some() {
                alias.held.remove(&(channel, seq));
            }
            match deliveries.last_mut() {
                Some(last) if last.first.0 + u64::from(last.count) == seq.0 => last.count += 1,
                _ => deliveries.push(Run { mailbox: alias.mailbox, first: seq, count: 1 }),
            }
        }
        if !deliveries.is_empty() {
            let command = match outcome {
                Some(outcome) => Command::Settle(Settle { channel, deliveries, outcome }),
                None => Command::Extend(Extend { channel, deliveries }),
            };
            let link = self.peers.afar.visits[&number].link;
            // A link that cannot keep up gets no more of what it can do without.
            if outcome.is_some() || !self.link_is_full(link) {
                self.tell(number, command, out);
            }
        }
        unknown
    }

    /// The client's socket took so much; the deliveries of other hosts count as the first.
    pub(in crate::broker) fn drained_afar(
        &mut self,
        from: ConnectionId,
        mut deliveries: u32,
        mut bytes: u64,
        out: &mut Vec<Effect>,
    ) {
        for number in self.peers.afar.of(from) {
            let Some(visit) = self.peers.afar.visits.get_mut(&number) else { continue };
            let count = deliveries.min(visit.owed);
            visit.owed -= count;
            let size = if visit.owed == 0 { visit.owed_bytes } else { bytes.min(visit.owed_bytes) };
            visit.owed_bytes -= size;
            visit.drained += count;
            visit.drained_bytes += size;
            deliveries -= count;
            bytes = bytes.saturating_sub(size);
            let much = visit.drained >= DRAINED_DELIVERIES || visit.drained_bytes >= DRAINED_BYTES;
            if visit.drained > 0 && (much || visit.owed == 0) {
                self.tell_drained(number, out);
            }
        }
    }

    fn tell_drained(&mut self, number: u32, out: &mut Vec<Effect>) {
        let Some(visit) = self.peers.afar.visits.get_mut(&number) else { return };
        let deliveries = std::mem::take(&mut visit.drained);
        let bytes = std::mem::take(&mut visit.drained_bytes);
        self.tell(number, Command::Drained { deliveries, bytes }, out);
    }

    /// What the host at the other end of the link says to a client of this one.
    pub(super) fn told(
        &mut self,
        link: ConnectionId,
        number: u32,
        event: Event,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(visit) = self.peers.afar.visits.get_mut(&number) else { return };
        let party = visit.party;
        if visit.link != link {
            return;
        }
        match event {
            Event::Delivered(delivery) => self.given(number, vec![delivery], out),
            Event::DeliveredBatch(batch) => self.given(number, batch, out),
            Event::Reply { channel, ticket, result } => {
                let Some(asked) = visit.asked.remove(&(channel, ticket)) else { return };
                let result = self.result_of(number, channel, asked, result, now, out);
                self.answer(party, channel, ticket, result, out);
            }
            Event::Refused { channel, cause, refusal } => {
                self.refuse(party, channel, cause, refusal, out);
            }
            Event::Cancelled { channel, consumer }
                if visit.consumers.remove(&(channel, consumer)).is_some() =>
            {
                out.push(Effect::Notify(party, Event::Cancelled { channel, consumer }));
            }
            Event::Finished { channel, consumer }
                if visit.consumers.remove(&(channel, consumer)).is_some() =>
            {
                out.push(Effect::Notify(party, Event::Finished { channel, consumer }));
            }
            Event::ForceClose(_) => self.end_visit(number, out),
            _ => {}
        }
    }

    fn result_of(
        &mut self,
        number: u32,
        channel: ChannelId,
        asked: Asked,
        result: Result<Reply, Refusal>,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let Asked { mailbox, wish } = asked;
        let afar = &mut self.peers.afar;
        let Some(visit) = afar.visits.get_mut(&number) else { return result };
        match (wish, result) {
            (Wish::Consume(consumer), Err(refusal)) => {
                visit.consumers.remove(&(channel, consumer));
                Err(refusal)
            }
            (Wish::Cancel(consumer), result) => {
                visit.consumers.remove(&(channel, consumer));
                result
            }
            (Wish::Declare(_), Ok(Reply::Declared { ready, consumers, .. })) => {
                Ok(Reply::Declared { name: mailbox, ready, consumers })
            }
            // It went, and the word of that is still on its way.
            (Wish::Declare(declare), Err(Refusal::NoSuchMailbox { .. })) if !declare.passive => {
                let party = visit.party;
                self.declare_mailbox(party, &declare, true, now, out)
            }
            (Wish::Look, Ok(Reply::Browsed { found, ready })) => {
                let views = Inspection::Messages(views(found, ready));
                Ok(Reply::Inspection(Box::new(views)))
            }
            (_, Ok(Reply::Got(Some(mut got)))) => {
                let delivery = &mut got.0;
                if let Some(alias) = afar.alias(number, delivery.mailbox) {
                    afar.hold(alias, delivery);
                }
                Ok(Reply::Got(Some(got)))
            }
            (_, result) => result,
        }
    }

    /// Deliveries of another host, for a client of this one.
    fn given(&mut self, number: u32, deliveries: Vec<Delivery>, out: &mut Vec<Effect>) {
        let mut batch = Vec::with_capacity(deliveries.len());
        for mut delivery in deliveries {
            let afar = &mut self.peers.afar;
            let Some(visit) = afar.visits.get_mut(&number) else { return };
            let size = delivery.message.size() as u64;
            if visit.consumers.contains_key(&(delivery.channel, delivery.consumer)) {
                visit.owed += 1;
                visit.owed_bytes += size;
                if let Some(alias) = afar.alias(number, delivery.mailbox) {
                    afar.hold(alias, &mut delivery);
                }
                batch.push(delivery);
            } else {
                // Too late for its consumer, which the broker ended.
                visit.drained += 1;
                visit.drained_bytes += size;
                self.send_back(number, &delivery, out);
            }
        }
        let Some(visit) = self.peers.afar.visits.get(&number) else { return };
        if visit.drained > 0 && visit.owed == 0 {
            self.tell_drained(number, out);
        }
        let Some(visit) = self.peers.afar.visits.get(&number) else { return };
        let Some(party) = self.connections.get_mut(&visit.party) else { return };
        for delivery in &batch {
            party.in_flight += 1;
            party.in_flight_bytes += delivery.message.size() as u64;
        }
        if !batch.is_empty() {
            out.push(Effect::Notify(visit.party, Event::DeliveredBatch(batch)));
        }
    }

    fn send_back(&mut self, number: u32, delivery: &Delivery, out: &mut Vec<Effect>) {
        let Delivery { channel, mailbox, seq, settled, .. } = *delivery;
        let used = |visit: &Visit| visit.channels.contains(&channel);
        if !settled && self.peers.afar.visits.get(&number).is_some_and(used) {
            let deliveries = SmallVec::from_buf([Run { mailbox, first: seq, count: 1 }]);
            let settle = Settle { channel, deliveries, outcome: Outcome::Released };
            self.tell(number, Command::Settle(settle), out);
        }
    }

    /// The channel is closed here, and so it is there.
    pub(in crate::broker) fn close_channel_afar(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        out: &mut Vec<Effect>,
    ) {
        let all: Vec<_> = self.peers.afar.with_channel(from, channel).collect();
        for number in all {
            self.tell(number, Command::CloseChannel(channel, NOBODY), out);
            self.peers.afar.drop_held(number, channel);
            let Some(visit) = self.peers.afar.visits.get_mut(&number) else { continue };
            visit.channels.remove(&channel);
            visit.consumers.retain(|(of, _), _| *of != channel);
            let place = |ticket| (channel, Ticket(ticket));
            let asked: Vec<_> =
                visit.asked.extract_if(place(0)..=place(u64::MAX), |_, _| true).collect();
            for ((_, ticket), asked) in asked {
                // Its consumers are gone, as was asked; who asked for something else, asks no more.
                if let Wish::Cancel(_) = asked.wish {
                    self.answer(from, channel, ticket, Ok(Reply::Done), out);
                }
            }
        }
    }

    /// The client is gone.
    pub(in crate::broker) fn leave_afar(&mut self, from: ConnectionId, out: &mut Vec<Effect>) {
        for number in self.peers.afar.of(from) {
            self.tell(number, Command::Close(None), out);
            self.forget_visit(number);
        }
    }

    /// The link is gone: visits over it are over.
    pub(in crate::broker) fn lose_link(&mut self, link: ConnectionId, out: &mut Vec<Effect>) {
        let over = self.peers.afar.visits.iter().filter(|(_, visit)| visit.link == link);
        let over: Vec<u32> = over.map(|(number, _)| *number).collect();
        for number in over {
            self.end_visit(number, out);
        }
    }

    fn forget_visit(&mut self, number: u32) -> Option<Visit> {
        let afar = &mut self.peers.afar;
        let visit = afar.visits.remove(&number)?;
        for alias in visit.known.values() {
            afar.aliases.remove(alias);
        }
        if let Some(hosts) = afar.parties.get_mut(&visit.party) {
            hosts.remove(&visit.host);
            if hosts.is_empty() {
                afar.parties.remove(&visit.party);
            }
        }
        Some(visit)
    }

    /// Its home let go of it: consumers end, and what was asked is refused.
    fn end_visit(&mut self, number: u32, out: &mut Vec<Effect>) {
        let Some(mut visit) = self.forget_visit(number) else { return };
        let Ok((_, vhost)) = self.whose(visit.party) else { return };
        for ((channel, ticket), Asked { mailbox, wish }) in visit.asked {
            let result = match wish {
                // As it is answered while the host is away.
                Wish::Declare(_) => Ok(Reply::Declared { name: mailbox, ready: 0, consumers: 0 }),
                Wish::Cancel(consumer) => {
                    visit.consumers.remove(&(channel, consumer));
                    Ok(Reply::Done)
                }
                Wish::Consume(consumer) => {
                    visit.consumers.remove(&(channel, consumer));
                    let (host, vhost) = (visit.host.clone(), vhost.clone());
                    Err(Refusal::Inaccessible { host, name: mailbox, vhost })
                }
                Wish::Look | Wish::Other => {
                    let (host, vhost) = (visit.host.clone(), vhost.clone());
                    Err(Refusal::Inaccessible { host, name: mailbox, vhost })
                }
            };
            self.answer(visit.party, channel, ticket, result, out);
        }
        for (channel, consumer) in visit.consumers.into_keys() {
            out.push(Effect::Notify(visit.party, Event::Cancelled { channel, consumer }));
        }
    }

    /// Consumers of mailboxes elsewhere whose users may not read them any longer are ended.
    pub(in crate::broker) fn end_forbidden_afar(
        &mut self,
        concerns: impl Fn(ConnectionId, &Open) -> bool,
        out: &mut Vec<Effect>,
    ) {
        let mut forbidden = Vec::new();
        for (number, visit) in &self.peers.afar.visits {
            let open = self.connections.get(&visit.party).and_then(|it| it.open.as_deref());
            let Some(open) = open.filter(|open| concerns(visit.party, open)) else { continue };
            for (place, name) in &visit.consumers {
                let (user, vhost) = (&open.user, &open.vhost);
                if self.access.check(user, vhost, Action::Read, Kind::Mailbox, name).is_err() {
                    forbidden.push((*number, visit.party, *place));
                }
            }
        }
        for (number, party, (channel, consumer)) in forbidden {
            if let Some(visit) = self.peers.afar.visits.get_mut(&number) {
                visit.consumers.remove(&(channel, consumer));
            }
            let cancel = Box::new(Request::Cancel(consumer));
            self.tell(number, Command::Request(channel, NOBODY, cancel), out);
            out.push(Effect::Notify(party, Event::Cancelled { channel, consumer }));
        }
    }
}

impl Afar {
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

fn too_much(host: &Name) -> Refusal {
    Refusal::Precondition(format!("host '{host}' has too much to answer"))
}

/// Ready messages of a mailbox elsewhere, as those of one here are shown. What consumers hold is known at home.
fn views(found: Vec<Browsed>, ready: u64) -> MessageViews {
    let more_ready = ready.saturating_sub(found.len() as u64);
    let view = |it: Browsed| {
        let rest = Rest {
            since: it.message.accepted,
            attempts: it.attempts.unwrap_or(0),
            redelivered: it.redelivered,
            ..Rest::default()
        };
        MessageView { seq: it.seq, message: it.message, rest, holder: None }
    };
    MessageViews { messages: found.into_iter().map(view).collect(), more_ready, more_unsettled: 0 }
}

/// The mailbox that a request is about, where its home can answer it.
fn mailbox_of(request: &Request) -> Option<&Name> {
    match request {
        Request::DeclareMailbox(declare) => Some(&declare.name),
        Request::DeleteMailbox { name, .. } | Request::PurgeMailbox { name } => Some(name),
        Request::Bind(BindingOf { destination: Destination::Mailbox(name), .. })
        | Request::Unbind(BindingOf { destination: Destination::Mailbox(name), .. }) => Some(name),
        Request::Consume(consume) => Some(&consume.mailbox),
        Request::Get { mailbox, .. }
        | Request::Browse { mailbox, .. }
        | Request::DeleteCursor { mailbox, .. } => Some(mailbox),
        Request::Retime(retime) => Some(&retime.mailbox),
        Request::SeekCursor(seek) => Some(&seek.mailbox),
        Request::Inspect(Inspect::Messages { mailbox, .. }) => Some(mailbox),
        _ => None,
    }
}

/// Whether it is there, and how much is in it.
fn look(name: &Name) -> Request {
    Request::DeclareMailbox(DeclareMailbox {
        name: name.clone(),
        passive: true,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: Table::new(),
        generated: false,
    })
}

//! Publishing: from an exchange to mailboxes, and what is said of it.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::command::{ConnectionId, MailboxId, Publish, Seq};
use super::dead_letter::{Burial, circles, with_blind_keys};
use super::event::{Cause, Effect, Event};
use super::flow::Passage;
use super::keep::is_keeper_name;
use super::limits::{Overflow, TIME_SPAN_MAX_MS};
use super::mailbox::Gathered;
use super::message::{Message, MessageId};
use super::name::{Name, Time};
use super::peer::{Choice, Spread, check_tags, is_outbox_name};
use super::refusal::{Action, Kind, Refusal};
use super::repeat::Repeat;
use super::routing::Routed;
use super::topology::is_delay_name;
use super::trace::Published;
use super::vhost::Vhost;
use super::{Broker, carry};

/// Messages that rest are copied out of the socket's buffer up to this size; larger ones fill most of it anyway.
pub(super) const DETACH_SIZE_MAX: usize = 16 * 1024;

/// What consumers of direct replies consume from.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// Key prefix of addresses that answer a request directly.
const REPLY_PREFIX: &str = "amq.rabbitmq.reply-to.";

pub(super) type Targets = SmallVec<[MailboxId; 2]>;

impl Broker {
    /// False where a mailbox refused the message by its overflow rule.
    pub(super) fn publish(
        &mut self,
        from: ConnectionId,
        publish: Publish,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> bool {
        if publish.home {
            return self.publish_home(from, publish, now, out);
        }
        let (channel, confirm, mandatory) = (publish.channel, publish.confirm, publish.mandatory);
        match self.accept(from, publish, now, out) {
            Ok(Fate::Routed { taken, .. }) => {
                if let Some(tag) = confirm {
                    let event = Event::Confirmed { channel, tag, taken };
                    out.push(Effect::NotifyDurable(from, event));
                }
                return taken;
            }
            Ok(Fate::Unroutable(message)) => {
                self.count_inflow(from, channel, |it| it.count_unroutable(1, mandatory));
                if mandatory {
                    self.totals.returned += 1;
                    let event = Event::Returned { channel, message };
                    out.push(Effect::NotifyDurable(from, event));
                } else {
                    self.totals.unroutable += 1;
                }
                if let Some(tag) = confirm {
                    let event = Event::Confirmed { channel, tag, taken: true };
                    out.push(Effect::NotifyDurable(from, event));
                }
            }
            Err(refusal) => self.refuse(from, channel, Cause::Publish, refusal, out),
        }
        true
    }

    pub(super) fn accept(
        &mut self,
        from: ConnectionId,
        publish: Publish,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Fate, Refusal> {
        self.totals.published += 1;
        let Publish { channel, mut message, more_keys, confirm, .. } = publish;
        self.totals.sizes.count(message.body().len() as u64);
        check_expiration(&message)?;
        self.give_id(&mut message, now);
        let targets = match self.cached_route(
            from,
            channel,
            &message,
            more_keys.is_some(),
            confirm.is_some(),
        ) {
            Some(targets) => targets,
            None => {
                let more = more_keys.as_deref().map_or(&[][..], Vec::as_slice);
                let vhost = self.check_publish(from, &message, more)?;
                self.note_publisher(from, out);
                let replied = is_reply_address(&message) && self.reply(&vhost, &message, out);
                let targets = if replied {
                    None
                } else {
                    self.route(from, channel, &vhost, &message, more, now, out)
                };
                if self.traces(&vhost) {
                    // No confirm waits for the copies.
                    let pledging = self.pledging.take();
                    let to = targets.as_deref().unwrap_or_default();
                    let published = Published { message: &message, more_keys: more, targets: to };
                    self.trace_published((from, channel), &vhost, &published, now, out);
                    self.pledging = pledging;
                }
                let targets = targets.map(|mut targets| {
                    let all = targets.len();
                    if !more.is_empty() {
                        self.place_keyed(&vhost, &mut targets, &message, more, now, out);
                    }
                    (all > targets.len(), targets)
                });
                let routed =
                    targets.as_ref().is_none_or(|(placed, rest)| *placed || !rest.is_empty());
                self.count_inflow(from, channel, |it| it.count(routed, confirm.is_some()));
                match targets {
                    None => return Ok(Fate::Routed { taken: true, first: None }),
                    Some((true, rest)) if rest.is_empty() => {
                        return Ok(Fate::Routed { taken: true, first: None });
                    }
                    Some((_, targets)) => targets,
                }
            }
        };
        if targets.is_empty() {
            return Ok(Fate::Unroutable(message));
        }
        let Placed { taken, first } = self.place(&targets, message, Origin::Publisher, now, out);
        Ok(Fate::Routed { taken, first })
    }

    fn give_id(&mut self, message: &mut Arc<Message>, now: Time) {
        let id = self.next_id(now);
        if let Some(message) = Arc::get_mut(message) {
            message.id = id;
        } else {
            let mut own = message.detached();
            own.id = id;
            *message = Arc::new(own);
        }
    }

    pub(super) fn next_id(&mut self, now: Time) -> MessageId {
        self.messages += 1;
        MessageId(
            u128::from(now.0 & 0xffff_ffff_ffff) << 80
                | u128::from(self.settings.host) << 48
                | u128::from(self.messages & 0xffff_ffff_ffff),
        )
    }

    /// The answer of the channel's last publish, if it was the same question and nothing changed since.
    pub(super) fn cached_route(
        &mut self,
        from: ConnectionId,
        channel: super::ChannelId,
        message: &Message,
        has_more_keys: bool,
        confirm: bool,
    ) -> Option<Targets> {
        if has_more_keys || message.wants_tags || self.traces_of(from) {
            return None;
        }
        let connection = self.connections.get_mut(&from)?;
        let channel = connection.channels.get_mut(&channel)?;
        let route = channel.route.as_mut()?;
        let exchange = route.exchange.as_ref()?;
        let same_exchange = exchange.same(message.exchange()) || exchange == message.exchange();
        if route.generation != self.generation || !same_exchange || route.key != message.key() {
            return None;
        }
        let routed = !route.targets.is_empty();
        route.passage.inwards += 1;
        route.passage.outwards += route.targets.len() as u64;
        channel.inflow.count(routed, confirm);
        self.flows[connection.flow].inflow.count(routed, confirm);
        Some(route.targets.clone())
    }

    /// Whether the connection may publish this, and in which virtual host.
    pub(super) fn check_publish(
        &self,
        from: ConnectionId,
        message: &Message,
        more_keys: &[Bytes],
    ) -> Result<Name, Refusal> {
        let (user, vhost_name) = self.whose(from)?;
        if let Some(why) = self.idle(from) {
            return Err(Refusal::NotAllowed(why.into()));
        }
        check_expiration(message)?;
        check_tags(message)?;
        let exchange = message.exchange();
        self.access.check(&user, &vhost_name, Action::Write, Kind::Exchange, exchange)?;
        let missing =
            || Refusal::NoSuchExchange { name: exchange.clone(), vhost: vhost_name.clone() };
        let vhost = self.vhosts.get(&vhost_name).ok_or_else(missing)?;
        let found = vhost.exchanges.get(exchange).ok_or_else(missing)?;
        if found.internal() {
            return Err(Refusal::InternalExchange { name: exchange.clone(), vhost: vhost_name });
        }
        if found.is_topic() {
            let keys = std::iter::once(message.key()).chain(more_keys.iter().map(|key| &key[..]));
            for key in keys {
                let action = Action::Write;
                self.access.check_topic(&user, &vhost_name, exchange, action, key)?;
            }
        }
        Ok(vhost_name)
    }

    /// A message from somebody without a channel: no route is remembered, and no confirm said.
    pub(super) fn post(
        &mut self,
        from: ConnectionId,
        mut message: Arc<Message>,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<super::Reply, Refusal> {
        if let Some(why) = self.idle(from) {
            return Ok(super::Reply::Stopped(why));
        }
        let vhost = self.check_publish(from, &message, &[])?;
        if let Some(why) = self.alarm {
            return Ok(super::Reply::Stopped(why));
        }
        self.totals.published += 1;
        self.totals.sizes.count(message.body().len() as u64);
        self.give_id(&mut message, now);
        let replied = is_reply_address(&message) && self.reply(&vhost, &message, out);
        if replied {
            self.flows[0].inflow.count(true, false);
            return Ok(super::Reply::Routed(true));
        }
        let choice = Choice::of(&message);
        let choice = choice.as_ref();
        let (targets, routed) = if message.exchange().is_empty() {
            self.find_by_key(&vhost, message.key(), choice)
        } else {
            self.follow(&vhost, message.exchange(), (message.key(), &[]), &message, choice)
        };
        let copies = targets.len() + routed.delayed.len();
        let passage = Passage { inwards: 1, outwards: copies as u64 };
        self.record_passage(&vhost, message.exchange(), passage);
        let inflow = &mut self.flows[0].inflow;
        inflow.count(copies > 0, false);
        inflow.unroutable += u64::from(copies == 0);
        self.totals.unroutable += u64::from(copies == 0);
        if self.traces(&vhost) {
            let published = Published { message: &message, more_keys: &[], targets: &targets };
            self.trace_published((from, super::ChannelId(0)), &vhost, &published, now, out);
        }
        self.delay(&vhost, &routed.delayed, &message, &[], now, out);
        self.place(&targets, message, Origin::Publisher, now, out);
        Ok(super::Reply::Routed(copies > 0))
    }

    /// Where the bindings lead. `None` where the message is delayed and goes nowhere else.
    #[expect(clippy::too_many_arguments, reason = "one caller, which has all of them at hand")]
    fn route(
        &mut self,
        from: ConnectionId,
        channel: super::ChannelId,
        vhost_name: &Name,
        message: &Arc<Message>,
        more_keys: &[Bytes],
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Option<Targets> {
        let choice = Choice::of(message);
        let choice = choice.as_ref();
        let (targets, routed) = if message.exchange().is_empty() && more_keys.is_empty() {
            self.find_by_key(vhost_name, message.key(), choice)
        } else {
            let keys = (message.key(), more_keys);
            self.follow(vhost_name, message.exchange(), keys, message, choice)
        };
        if routed.cacheable && !message.wants_tags {
            let generation = self.generation;
            let channel = self.channel_mut(from, channel);
            let untold = channel.take_passage();
            let route = channel.route.get_or_insert_default();
            route.generation = generation;
            route.exchange = Some(message.exchange().clone());
            route.key.clear();
            route.key.extend_from_slice(message.key());
            route.targets.clone_from(&targets);
            if let Some((exchange, passage)) = untold {
                self.record_passage(vhost_name, &exchange, passage);
            }
        }
        let copies = targets.len() + routed.delayed.len();
        let passage = Passage { inwards: 1, outwards: copies as u64 };
        self.record_passage(vhost_name, message.exchange(), passage);
        if routed.delayed.is_empty() {
            return Some(targets);
        }
        self.delay(vhost_name, &routed.delayed, message, more_keys, now, out);
        (!targets.is_empty()).then_some(targets)
    }

    /// The default exchange: a mailbox by its name, as `follow` finds it too.
    fn find_by_key(&self, vhost: &Name, key: &[u8], choice: Option<&Choice>) -> (Targets, Routed) {
        let name = std::str::from_utf8(key).ok().filter(|name| !is_hidden(name));
        let mut found = Routed { cacheable: true, delayed: Vec::new() };
        let Some((name, of)) = name.zip(self.vhosts.get(vhost)) else {
            return (Targets::new(), found);
        };
        let here = of.mailboxes.get(name).copied();
        let may = |id: &MailboxId| {
            self.mailboxes.get(id).is_some_and(|it| self.peers.may_take(it, choice))
        };
        let taken = here.filter(|id| choice.is_none() || may(id));
        let mut targets: Targets = taken.into_iter().collect();
        if let Some(homes) = of.away.get(name) {
            let spread = of.spreads.get(name).copied();
            let elsewhere = here.is_none() || spread == Some(Spread::Anycast);
            if targets.is_empty() && elsewhere && spread != Some(Spread::Fanout) {
                let host = self.peers.pick(homes, spread, choice, self.totals.published);
                targets.extend(host.and_then(|host| of.outboxes.get(host)).copied());
                found.cacheable = spread.is_none();
            } else {
                targets.extend(self.copies_abroad(of, name, choice));
            }
        }
        (targets, found)
    }

    /// What waits for other hosts at which the name lives, where each of them gets a copy.
    pub(super) fn copies_abroad<'a>(
        &'a self,
        of: &'a Vhost,
        name: &str,
        choice: Option<&'a Choice>,
    ) -> impl Iterator<Item = MailboxId> + 'a {
        let here = of.mailboxes.get(name).and_then(|id| self.mailboxes.get(id));
        let here = here.is_none_or(|it| it.declared.spread == Some(Spread::Fanout));
        let fanout = here && of.spreads.get(name) == Some(&Spread::Fanout);
        let homes = of.away.get(name).filter(|_| fanout).into_iter().flatten();
        let homes = homes.filter(move |it| self.peers.suits(&it.host, choice));
        homes.filter_map(|it| of.outboxes.get(&it.host)).copied()
    }

    pub(super) fn follow(
        &mut self,
        vhost: &Name,
        exchange: &Name,
        keys: (&[u8], &[Bytes]),
        message: &Arc<Message>,
        choice: Option<&Choice>,
    ) -> (Targets, Routed) {
        self.walk(vhost, exchange, keys, message, choice, true)
    }

    /// Only to what is here: the message comes from another host.
    pub(super) fn follow_home(
        &mut self,
        vhost: &Name,
        exchange: &Name,
        key: &[u8],
        more_keys: &[Bytes],
        message: &Arc<Message>,
    ) -> (Targets, Routed) {
        self.walk(vhost, exchange, (key, more_keys), message, None, false)
    }

    fn walk(
        &mut self,
        vhost: &Name,
        exchange: &Name,
        (key, more_keys): (&[u8], &[Bytes]),
        message: &Arc<Message>,
        choice: Option<&Choice>,
        abroad: bool,
    ) -> (Targets, Routed) {
        let nowhere = Routed { cacheable: false, delayed: Vec::new() };
        let Some(of) = self.vhosts.get_mut(vhost) else { return (Targets::new(), nowhere) };
        let (mailboxes, away, outboxes) = (&of.mailboxes, &of.away, &of.outboxes);
        let (spreads, peers, turn) = (&of.spreads, &self.peers, self.totals.published);
        let all = &self.mailboxes;
        let may = |name: &Name| {
            let mailbox = mailboxes.get(name).and_then(|id| all.get(id));
            mailbox.is_none_or(|it| peers.may_take(it, choice))
        };
        let find = |name: &str| {
            if is_hidden(name) {
                return None;
            }
            let spread = spreads.get(name).copied();
            if let Some((name, _)) = mailboxes.get_key_value(name) {
                if choice.is_none() || may(name) {
                    return Some(name.clone());
                } else if spread != Some(Spread::Anycast) {
                    return None;
                }
            }
            let homes = away.get(name).filter(|_| abroad)?;
            let host = peers.pick(homes, spread, choice, turn)?;
            all.get(outboxes.get(host)?).map(|outbox| outbox.name.clone())
        };
        self.names.clear();
        let exchanges = &mut of.exchanges;
        let out = &mut self.names;
        let routed = if abroad {
            match choice {
                None => exchanges.route(exchange, key, more_keys, message, &find, out),
                Some(_) => {
                    exchanges.route_among(exchange, (key, more_keys), message, &find, &may, out)
                }
            }
        } else {
            exchanges.route_home(exchange, key, more_keys, message, &find, out)
        };
        let mut targets: Targets =
            self.names.iter().filter_map(|name| mailboxes.get(name)).copied().collect();
        if !self.peers.arriving.is_empty() && !exchange.is_empty() {
            targets.retain(|id| !self.peers.arriving.contains(id));
        }
        if let Some(of) = self.vhosts.get(vhost)
            && abroad
            && exchange.is_empty()
            && !of.spreads.is_empty()
        {
            let names = std::iter::once(key).chain(more_keys.iter().map(|key| &key[..]));
            for name in names.filter_map(|key| std::str::from_utf8(key).ok()) {
                for id in self.copies_abroad(of, name, choice) {
                    if !targets.contains(&id) {
                        targets.push(id);
                    }
                }
            }
        }
        (targets, routed)
    }

    /// The message comes to rest in each target, or was there before.
    pub(super) fn place(
        &mut self,
        targets: &[MailboxId],
        mut message: Arc<Message>,
        origin: Origin,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Placed {
        let mut first = None;
        let mailboxes = &mut self.mailboxes;
        let mut full = Vec::new();
        let mut hands_on = message.deliver_at == Time::ZERO;
        for id in targets {
            let Some(mailbox) = mailboxes.get(id) else { continue };
            hands_on &= mailbox.hands_on();
            if mailbox.refuses(&message) {
                full.push(*id);
            }
        }
        if !hands_on && message.size() <= DETACH_SIZE_MAX {
            message = Arc::new(message.detached());
        }
        for id in targets {
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(id) else { continue };
            if origin == Origin::Publisher
                && let Some(seq) = mailbox.first_of(&message, &mut turn)
            {
                full.retain(|it| it != id);
                first = Some(seq);
                continue;
            }
            if mailbox.recent.as_mut().is_some_and(|it| !it.is_first(&message)) {
                mailbox.counts.duplicates += 1;
                continue;
            }
            if full.contains(id) {
                let dead_letter = mailbox.limits.overflow == Overflow::RejectPublishDeadLetter;
                mailbox.refuse(&message, dead_letter, &mut turn);
                continue;
            }
            mailbox.append(message.clone(), message.deliver_at, &mut turn);
            if let Some(pledged) = self.pledging {
                mailbox.pledge(pledged, &mut turn);
            }
            if self.gathering {
                // Whether it takes the next one may depend on who takes this one.
                self.gathering = !mailbox.limits.refuses_when_full();
                if mailbox.gathered != Gathered::Nothing {
                    continue;
                }
                mailbox.gathered = if hands_on { Gathered::ToHandOn } else { Gathered::ToKeep };
            }
            if self.dirty.last() != Some(id) {
                self.dirty.push(*id);
            }
        }
        Placed { taken: full.is_empty(), first }
    }

    /// Whether somebody waits for replies at this address. `None` for a name that is no address.
    pub(super) fn reply_address_lives(&self, vhost: &Name, name: &str) -> Option<bool> {
        match name {
            REPLY_TO => Some(true),
            _ if name.starts_with(REPLY_PREFIX) => {
                let here = self.reply_addresses.contains_key(name);
                Some(here || self.home_of(vhost, name).is_some())
            }
            _ => None,
        }
    }

    /// Straight to whoever waits for a reply at this address. False if nobody does.
    pub(super) fn reply(
        &mut self,
        vhost: &Name,
        message: &Arc<Message>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Ok(address) = std::str::from_utf8(message.key()) else { return false };
        let Some(&(connection, channel, consumer)) = self.reply_addresses.get(address) else {
            return false;
        };
        let Some(party) = self.connections.get_mut(&connection) else { return false };
        if party.open.as_ref().is_none_or(|open| open.vhost != *vhost) {
            return false;
        }
        party.in_flight += 1;
        party.in_flight_bytes += message.size() as u64;
        let delivery = super::Delivery {
            channel,
            consumer,
            mailbox: MailboxId(0),
            seq: Seq(0),
            message: message.clone(),
            redelivered: false,
            attempts: None,
            acquired: 0,
            offset: None,
            settled: true,
        };
        out.push(Effect::Notify(connection, Event::Delivered(delivery)));
        true
    }

    /// Holds a message until it is due, in mailboxes that belong to the exchanges.
    pub(super) fn delay(
        &mut self,
        vhost: &Name,
        exchanges: &[Name],
        message: &Arc<Message>,
        more_keys: &[Bytes],
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        if exchanges.is_empty() {
            return;
        }
        let repeat = || Repeat::of(message.properties()).ok().flatten();
        let due = match super::routing::delay_ms(message) {
            Some(delay) => now.plus_ms(delay),
            None => match repeat() {
                Some(repeat) => repeat.first(now),
                None => return,
            },
        };
        let message = match with_blind_keys(message, more_keys) {
            Some(message) => Arc::new(message),
            None if message.size() <= DETACH_SIZE_MAX => Arc::new(message.detached()),
            None => message.clone(),
        };
        for exchange in exchanges {
            let id = self.delay_mailbox(vhost, exchange, now, out);
            let mut turn = carry!(self, now, out);
            if let Some(mailbox) = self.mailboxes.get_mut(&id) {
                mailbox.append(message.clone(), due, &mut turn);
                self.dirty.push(id);
            }
        }
    }

    /// Routes what left a mailbox in this turn: dead letters, and delayed messages that came due.
    ///
    /// Ends, as nothing dies twice in one mailbox without a consumer's rejection: see `circles`.
    pub(super) fn bury(&mut self, now: Time, out: &mut Vec<Effect>) {
        for burial in std::mem::take(&mut self.burials) {
            self.bury_one(burial, now, out);
        }
    }

    fn bury_one(&mut self, burial: Burial, now: Time, out: &mut Vec<Effect>) {
        let Burial { vhost, exchange, keys, message, dead, waits } = burial;
        let (key, more) = keys.split_first().map_or((&[][..], &[][..]), |(a, b)| (&a[..], b));
        // A dead letter goes wherever it is told to, whatever hosts its publisher wanted.
        let choice = if dead { None } else { Choice::of(&message) };
        let choice = choice.as_ref();
        let (mut targets, routed) = self.follow(&vhost, &exchange, (key, more), &message, choice);
        let leads_somewhere = !targets.is_empty() || !routed.delayed.is_empty();
        if dead {
            let mailboxes = &self.mailboxes;
            targets.retain(|id| {
                mailboxes.get(id).is_some_and(|mailbox| !circles(&message, &mailbox.name))
            });
        }
        if let Some((id, seq)) = waits {
            let mailboxes = &self.mailboxes;
            let full = |id| mailboxes.get(id).is_some_and(|mailbox| mailbox.refuses(&message));
            let placed = leads_somewhere && !targets.iter().any(full);
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { return };
            self.dirty.push(id);
            if !placed {
                return mailbox.bury_later(now);
            }
            // In the same batch as its new places.
            mailbox.buried(seq, &mut turn);
        }
        if targets.is_empty() && routed.delayed.is_empty() {
            self.totals.unroutable += 1;
        }
        self.delay(&vhost, &routed.delayed, &message, more, now, out);
        if !more.is_empty() {
            self.place_keyed(&vhost, &mut targets, &message, more, now, out);
        }
        // One that died is not published again, and keeps its id.
        let origin = if dead { Origin::Mailbox } else { Origin::Publisher };
        self.place(&targets, message, origin, now, out);
    }
}

/// Somebody waits for it as the answer to a request.
pub(super) fn is_reply_address(message: &Message) -> bool {
    message.exchange().is_empty() && message.key().starts_with(REPLY_PREFIX.as_bytes())
}

/// Nobody reaches it by its name.
fn is_hidden(name: &str) -> bool {
    is_delay_name(name) || is_outbox_name(name) || is_keeper_name(name)
}

/// A publisher's time to live has the same bound as all others.
pub(super) fn check_expiration(message: &Message) -> Result<(), Refusal> {
    match message.expiration_ms() {
        Some(ms) if ms > TIME_SPAN_MAX_MS => {
            Err(Refusal::Precondition(format!("invalid expiration '{ms}': {{value_too_big,{ms}}}")))
        }
        _ => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Publisher,
    /// It died in a mailbox.
    Mailbox,
}

/// What became of a message in its mailboxes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    /// None of them refused it.
    pub(super) taken: bool,
    /// Where it is already, in the last of them that had it.
    pub(super) first: Option<Seq>,
}

pub(super) enum Fate {
    Routed { taken: bool, first: Option<Seq> },
    Unroutable(Arc<Message>),
}

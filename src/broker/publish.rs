//! Publishing: from an exchange to mailboxes, and what is said of it.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::command::{ConnectionId, MailboxId, Publish};
use super::connection::Route;
use super::dead_letter::{Burial, circles};
use super::event::{Cause, Effect, Event};
use super::limits::Overflow;
use super::message::{Message, MessageId};
use super::name::{Name, Time};
use super::refusal::{Action, Kind, Refusal};
use super::{Broker, carry};

/// Messages that rest are copied out of the socket's buffer up to this size; larger ones fill most of it anyway.
const DETACH_SIZE_MAX: usize = 16 * 1024;

/// Key prefix of addresses that answer a request directly.
const REPLY_PREFIX: &[u8] = b"amq.rabbitmq.reply-to.";

/// Dead letters of dead letters in one turn, at most.
const BURIALS_MAX: usize = 100_000;

type Targets = SmallVec<[MailboxId; 2]>;

impl Broker {
    pub(super) fn publish(
        &mut self,
        from: ConnectionId,
        publish: Publish,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let (channel, confirm, mandatory) = (publish.channel, publish.confirm, publish.mandatory);
        match self.accept(from, publish, now, out) {
            Ok(Fate::Routed { taken }) => {
                if let Some(tag) = confirm {
                    let event = Event::Confirmed { channel, tag, taken };
                    out.push(Effect::NotifyDurable(from, event));
                }
            }
            Ok(Fate::Unroutable(message)) => {
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
    }

    fn accept(
        &mut self,
        from: ConnectionId,
        mut publish: Publish,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Fate, Refusal> {
        self.totals.published += 1;
        self.messages += 1;
        if let Some(message) = Arc::get_mut(&mut publish.message) {
            message.id = MessageId(
                u128::from(now.0 & 0xffff_ffff_ffff) << 80
                    | u128::from(self.settings.host) << 48
                    | u128::from(self.messages & 0xffff_ffff_ffff),
            );
        }
        let message = publish.message;
        let targets = match self.cached_route(from, publish.channel, &message, &publish.more_keys) {
            Some(targets) => targets,
            None => {
                if message.key().starts_with(REPLY_PREFIX)
                    && message.exchange().is_empty()
                    && self.reply(from, &message, out)
                {
                    return Ok(Fate::Routed { taken: true });
                }
                let more = publish.more_keys.as_deref().map_or(&[][..], Vec::as_slice);
                match self.route_checked(from, publish.channel, &message, more, now, out)? {
                    Some(targets) => targets,
                    None => return Ok(Fate::Routed { taken: true }),
                }
            }
        };
        if targets.is_empty() {
            return Ok(Fate::Unroutable(message));
        }
        Ok(Fate::Routed { taken: self.place(&targets, message, now, out) })
    }

    /// The answer of the channel's last publish, if it was the same question and nothing changed since.
    fn cached_route(
        &mut self,
        from: ConnectionId,
        channel: super::ChannelId,
        message: &Message,
        more_keys: &Option<Box<Vec<Bytes>>>,
    ) -> Option<Targets> {
        if more_keys.is_some() {
            return None;
        }
        let connection = self.connections.get(&from)?;
        let route = connection.channels.get(&channel)?.route.as_ref()?;
        let same_exchange =
            route.exchange.same(message.exchange()) || route.exchange == *message.exchange();
        (route.generation == self.generation && same_exchange && route.key == message.key())
            .then(|| route.targets.clone())
    }

    /// Permissions, the exchange, its bindings. `None` where the message is delayed.
    fn route_checked(
        &mut self,
        from: ConnectionId,
        channel: super::ChannelId,
        message: &Arc<Message>,
        more_keys: &[Bytes],
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Option<Targets>, Refusal> {
        let (user, vhost_name) = self.whose(from)?;
        self.note_publisher(from, out);
        let exchange = message.exchange().clone();
        self.access.check(&user, &vhost_name, Action::Write, Kind::Exchange, &exchange)?;
        let missing =
            || Refusal::NoSuchExchange { name: exchange.clone(), vhost: vhost_name.clone() };
        let vhost = self.vhosts.get_mut(&vhost_name).ok_or_else(missing)?;
        let found = vhost.exchanges.get(&exchange).ok_or_else(missing)?;
        if found.internal() {
            return Err(Refusal::InternalExchange { name: exchange, vhost: vhost_name });
        }
        if found.is_topic() {
            let keys = std::iter::once(message.key()).chain(more_keys.iter().map(|key| &key[..]));
            for key in keys {
                let action = Action::Write;
                self.access.check_topic(&user, &vhost_name, &exchange, action, key)?;
            }
        }
        let mut names = std::mem::take(&mut self.names);
        names.clear();
        let mailboxes = &vhost.mailboxes;
        let find = |name: &str| mailboxes.get_key_value(name).map(|(name, _)| name.clone());
        let exchanges = &mut vhost.exchanges;
        let routed =
            exchanges.route(&exchange, message.key(), more_keys, message, &find, &mut names);
        let targets: Targets =
            names.iter().filter_map(|name| mailboxes.get(name)).copied().collect();
        self.names = names;
        if routed.cacheable && more_keys.is_empty() {
            let route = Route {
                generation: self.generation,
                exchange,
                key: Bytes::copy_from_slice(message.key()),
                targets: targets.clone(),
            };
            self.channel_mut(from, channel).route = Some(route);
        }
        if !routed.delayed.is_empty() {
            self.delay(&vhost_name, &routed.delayed, message, now, out);
            if targets.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(targets))
    }

    /// The message comes to rest in each target. False where one of them refused it.
    pub(super) fn place(
        &mut self,
        targets: &[MailboxId],
        mut message: Arc<Message>,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> bool {
        let mailboxes = &mut self.mailboxes;
        let mut full = Vec::new();
        let mut hands_on = true;
        for id in targets {
            let Some(mailbox) = mailboxes.get(id) else { continue };
            hands_on &= mailbox.hands_on();
            if mailbox.limits.overflow != Overflow::DropHead && mailbox.is_full() {
                full.push(*id);
            }
        }
        if !hands_on && message.size() <= DETACH_SIZE_MAX {
            message = Arc::new(message.detached());
        }
        for id in targets {
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(id) else { continue };
            if full.contains(id) {
                mailbox.counts.dropped += 1;
                if mailbox.limits.overflow == Overflow::RejectPublishDeadLetter {
                    mailbox.refuse(message.clone(), &mut turn);
                }
                continue;
            }
            mailbox.append(message.clone(), Time::ZERO, &mut turn);
            if self.dirty.last() != Some(id) {
                self.dirty.push(*id);
            }
        }
        full.is_empty()
    }

    /// Straight to whoever waits for a reply at this address. True if the key was such an address, whoever still lives.
    fn reply(&mut self, from: ConnectionId, message: &Arc<Message>, out: &mut Vec<Effect>) -> bool {
        let Ok(address) = std::str::from_utf8(message.key()) else { return false };
        let Some(&(connection, channel, consumer)) = self.reply_addresses.get(address) else {
            return false;
        };
        if self.whose(from).is_err() {
            return false;
        }
        let Some(party) = self.connections.get_mut(&connection) else { return false };
        party.in_flight += 1;
        party.in_flight_bytes += message.size() as u64;
        let delivery = super::Delivery {
            channel,
            consumer,
            mailbox: MailboxId(0),
            seq: super::Seq(0),
            message: message.clone(),
            redelivered: false,
            attempts: None,
            offset: None,
            settled: true,
        };
        out.push(Effect::Notify(connection, Event::Delivered(delivery)));
        true
    }

    /// Holds a message until it is due, in mailboxes that belong to the exchanges.
    fn delay(
        &mut self,
        vhost: &Name,
        exchanges: &[Name],
        message: &Arc<Message>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(delay) = super::routing::delay_ms(message) else { return };
        let message = if message.size() <= DETACH_SIZE_MAX {
            Arc::new(message.detached())
        } else {
            message.clone()
        };
        for exchange in exchanges {
            let id = self.delay_mailbox(vhost, exchange, now, out);
            let mut turn = carry!(self, now, out);
            if let Some(mailbox) = self.mailboxes.get_mut(&id) {
                mailbox.append(message.clone(), now.plus_ms(delay), &mut turn);
                self.dirty.push(id);
            }
        }
    }

    /// Routes what left a mailbox in this turn: dead letters, and delayed messages that came due.
    pub(super) fn bury(&mut self, now: Time, out: &mut Vec<Effect>) {
        let mut rounds = 0;
        while !self.burials.is_empty() && rounds < BURIALS_MAX {
            for burial in std::mem::take(&mut self.burials) {
                rounds += 1;
                self.bury_one(burial, now, out);
            }
        }
    }

    fn bury_one(&mut self, burial: Burial, now: Time, out: &mut Vec<Effect>) {
        let Some(vhost) = self.vhosts.get_mut(&burial.vhost) else { return };
        if vhost.exchanges.get(&burial.exchange).is_none() {
            self.totals.unroutable += 1;
            return;
        }
        let mut names = Vec::new();
        let mailboxes = &vhost.mailboxes;
        let find = |name: &str| mailboxes.get_key_value(name).map(|(name, _)| name.clone());
        let (key, more) =
            burial.keys.split_first().map_or((&[][..], &[][..]), |(a, b)| (&a[..], b));
        let exchanges = &mut vhost.exchanges;
        let routed =
            exchanges.route(&burial.exchange, key, more, &burial.message, &find, &mut names);
        let targets: Targets = names
            .iter()
            .filter(|name| !(burial.dead && circles(&burial.message, name)))
            .filter_map(|name| mailboxes.get(name))
            .copied()
            .collect();
        if targets.is_empty() && routed.delayed.is_empty() {
            self.totals.unroutable += 1;
        }
        self.delay(&burial.vhost, &routed.delayed, &burial.message, now, out);
        self.place(&targets, burial.message, now, out);
    }
}

enum Fate {
    Routed { taken: bool },
    Unroutable(Arc<Message>),
}

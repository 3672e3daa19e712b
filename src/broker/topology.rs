//! Declaring and deleting.

use std::collections::BTreeSet;

use super::command::{ConnectionId, DeclareExchange, DeclareMailbox, MailboxId, Seq};
use super::consumer::Consumer;
use super::definition::{Definition, ExchangeDefinition, MailboxDefinition};
use super::event::{Effect, Event, Reply, Write};
use super::keep::{keeper_name, kept_queue};
use super::limits::{Limits, difference};
use super::mailbox::Mailbox;
use super::name::{Name, Time};
use super::peer::{OUTBOX_PREFIX, Spread, is_outbox_name, outbox_host};
use super::policy;
use super::refusal::{Action, Kind, Refusal};
use super::routing::{Declared, type_name};
use super::value::{Table, Value};
use super::{Broker, carry};

/// Argument of the hidden mailbox in which an exchange holds what it delays.
const FEEDS: &str = "x-pillarbox-feeds";

impl Broker {
    pub(super) fn declare_exchange(
        &mut self,
        from: ConnectionId,
        declare: &DeclareExchange,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let (user, vhost_name) = self.whose(from)?;
        let name = &declare.name;
        if declare.passive {
            if !name.is_empty() && !self.access.may_see(&user, &vhost_name, Kind::Exchange, name) {
                let (name, vhost) = (name.clone(), vhost_name);
                return Err(Refusal::NoSuchExchange { name, vhost });
            }
            self.vhost_mut(&vhost_name)?.exchanges.declare(declare)?;
            return Ok(Reply::Done);
        }
        self.access.check(&user, &vhost_name, Action::Configure, Kind::Exchange, name)?;
        let is_new = self.vhost_mut(&vhost_name)?.exchanges.get(name).is_none();
        if is_new
            && let Some(alternate) =
                declare.arguments.get("alternate-exchange").and_then(Value::as_str)
        {
            self.access.check(&user, &vhost_name, Action::Read, Kind::Exchange, name)?;
            self.access.check(&user, &vhost_name, Action::Write, Kind::Exchange, alternate)?;
        }
        let vhost = self.vhost_mut(&vhost_name)?;
        if let Declared::New(definition) = vhost.exchanges.declare(declare)? {
            if definition.durable {
                let definition = Box::new(Definition::Exchange(definition));
                out.push(Effect::Write(Write::Define(definition)));
            }
            self.apply_exchange_policies(&vhost_name);
            self.generation += 1;
        }
        Ok(Reply::Done)
    }

    pub(super) fn delete_exchange(
        &mut self,
        from: ConnectionId,
        name: &Name,
        if_unused: bool,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let (user, vhost_name) = self.whose(from)?;
        self.access.check(&user, &vhost_name, Action::Configure, Kind::Exchange, name)?;
        let vhost = self.vhost_mut(&vhost_name)?;
        let removed = vhost.exchanges.delete(name, if_unused)?;
        self.write_removed(&vhost_name, removed, now, out);
        Ok(Reply::Done)
    }

    /// With `here` also where another host is said to have it.
    pub(super) fn declare_mailbox(
        &mut self,
        from: ConnectionId,
        declare: &DeclareMailbox,
        here: bool,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let (user, vhost_name) = self.whose(from)?;
        let name = &declare.name;
        if let Some(there) = self.reply_address_lives(&vhost_name, name) {
            // No mailbox, but those who are about to answer ask whether somebody still waits.
            let name = name.clone();
            return match there {
                true => Ok(Reply::Declared { name, ready: 0, consumers: 1 }),
                false => Err(Refusal::NoSuchMailbox { name, vhost: vhost_name }),
            };
        }
        self.vhost_mut(&vhost_name)?;
        if here && let Some(id) = self.find_any(&vhost_name, name).map(|it| it.id) {
            // It moved away, and is said to be no more: what is left here is the mailbox again.
            self.take_back_home(id, now);
        }
        let existing = self.find(&vhost_name, name).map(|it| it.id);
        let away = match existing {
            None if !here => self.definition_away(&vhost_name, name).filter(|(_, it)| {
                let spread = Spread::of(&declare.arguments);
                // Meant to live here as well.
                spread.is_none() || spread != Spread::of(&it.arguments)
            }),
            _ => None,
        };
        if declare.passive {
            let missing =
                || Refusal::NoSuchMailbox { name: name.clone(), vhost: vhost_name.clone() };
            if !self.access.may_see(&user, &vhost_name, Kind::Mailbox, name) {
                return Err(missing());
            }
            if away.is_some() {
                return Ok(Reply::Declared { name: name.clone(), ready: 0, consumers: 0 });
            }
            let mailbox =
                existing.and_then(|id| self.mailboxes.get_mut(&id)).ok_or_else(missing)?;
            check_owner(mailbox, from)?;
            mailbox.used = now;
            return Ok(declared(mailbox));
        }
        self.access.check(&user, &vhost_name, Action::Configure, Kind::Mailbox, name)?;
        let declare = &self.with_default_kind(&vhost_name, declare);
        if let Some(mailbox) = existing.and_then(|id| self.mailboxes.get_mut(&id)) {
            check_same(mailbox, declare, from)?;
            self.totals.mailboxes_declared += 1;
            mailbox.used = now;
            return Ok(declared(mailbox));
        }
        if let Some((_, definition)) = away {
            // It lives at its home, which checks what is asked of it from there. Here it is only told apart.
            check_equivalent(&definition, declare)?;
            return Ok(Reply::Declared { name: name.clone(), ready: 0, consumers: 0 });
        }
        if is_outbox_name(name) {
            let text = format!("queue name '{name}' contains reserved prefix '{OUTBOX_PREFIX}'");
            return Err(Refusal::AccessRefused(text));
        }
        if name.starts_with("amq.") && !declare.generated {
            return Err(Refusal::ReservedName { kind: Kind::Mailbox, name: name.clone() });
        }
        let kind = declare.arguments.get("x-queue-type").and_then(Value::as_str);
        if let Some(kind @ ("quorum" | "stream")) = kind
            && declare.generated
        {
            let text = format!("Cannot declare a server-named queue for type rabbit_{kind}_queue");
            return Err(Refusal::Precondition(text));
        }
        self.check_mailbox_limit(&vhost_name, name)?;
        if let Some(dead_letters) = dead_letter_argument(declare, &vhost_name)? {
            self.access.check(&user, &vhost_name, Action::Read, Kind::Mailbox, name)?;
            self.access.check(&user, &vhost_name, Action::Write, Kind::Exchange, dead_letters)?;
        }
        let limits = Limits::of(declare, &vhost_name, self.settings.delivery_limit)?;
        let definition = MailboxDefinition {
            id: self.new_mailbox_id(now),
            vhost: vhost_name,
            name: name.clone(),
            durable: is_durable(declare),
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments: declare.arguments.clone(),
            epoch: 0,
        };
        let owner = declare.exclusive.then_some(from);
        let id = self.create_mailbox(definition, limits, owner, now, out);
        let reply = self.mailboxes.get(&id).map(declared);
        Ok(reply.unwrap_or(Reply::Done))
    }

    /// A declaration that names no type has the virtual host's, where the mailbox can be of that type.
    fn with_default_kind(&self, vhost: &Name, declare: &DeclareMailbox) -> DeclareMailbox {
        let mut declare = declare.clone();
        // What clients send where their user chose no type.
        if let Some("" | "undefined") =
            declare.arguments.get("x-queue-type").and_then(Value::as_str)
        {
            declare.arguments.remove("x-queue-type");
        }
        let kind = self.vhosts.get(vhost).and_then(|it| it.definition.default_queue_type.as_ref());
        if let Some(kind) = kind
            && declare.arguments.get("x-queue-type").is_none()
            && (kind == "classic"
                || (is_durable(&declare) && !declare.auto_delete && !declare.generated))
        {
            declare.arguments.set("x-queue-type", Value::text(kind));
        }
        declare
    }

    pub(super) fn check_mailbox_limit(&self, vhost: &Name, name: &Name) -> Result<(), Refusal> {
        match self.vhosts.get(vhost) {
            Some(it)
                if it
                    .definition
                    .max_mailboxes
                    .is_some_and(|most| it.mailboxes.len() as u64 >= most) =>
            {
                let most = it.definition.max_mailboxes.unwrap_or(0);
                Err(Refusal::Precondition(format!(
                    "cannot declare queue '{name}': queue limit in vhost '{vhost}' ({most}) is reached"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Never used before: above every id there is, and ahead of the clock's share of ids, so that those of deleted
    /// mailboxes stay unused unless more than a thousand are made in each millisecond.
    pub(super) fn new_mailbox_id(&mut self, now: Time) -> MailboxId {
        self.next_mailbox = (self.next_mailbox + 1).max(now.0 << 10);
        MailboxId(self.next_mailbox)
    }

    pub(super) fn create_mailbox(
        &mut self,
        definition: MailboxDefinition,
        declared: Limits,
        owner: Option<ConnectionId>,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> MailboxId {
        let id = definition.id;
        let mut mailbox = Mailbox::new(definition, declared, now);
        mailbox.owner = owner;
        mailbox.feeds = fed_exchange(&mailbox.definition);
        mailbox.outbox = outbox_host(&mailbox.definition);
        mailbox.keeps_for = kept_queue(&mailbox.definition);
        mailbox.count_from(self.settings.start);
        if mailbox.durable() {
            let definition = Box::new(Definition::Mailbox(mailbox.definition.clone()));
            out.push(Effect::Write(Write::Define(definition)));
        }
        if let Some(connection) = owner.and_then(|owner| self.connections.get_mut(&owner)) {
            connection.exclusives.insert(id);
        }
        if let Some(vhost) = self.vhosts.get_mut(&mailbox.vhost) {
            vhost.mailboxes.insert(mailbox.name.clone(), id);
            vhost.outboxes.extend(mailbox.outbox.clone().map(|host| (host, id)));
            apply_policies(vhost, &mut mailbox);
        }
        self.peers.adverts_mut().mailbox_came(&mailbox);
        self.generation += 1;
        self.totals.mailboxes_declared += 1;
        self.totals.mailboxes_created += 1;
        self.mailboxes.insert(id, mailbox);
        self.dirty.push(id);
        id
    }

    pub(super) fn delay_mailbox(
        &mut self,
        vhost: &Name,
        exchange: &Name,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> MailboxId {
        let name = Name::from(delay_name(exchange));
        let found = self.vhosts.get(vhost);
        if let Some(id) = found.and_then(|it| it.mailboxes.get(&name)) {
            return *id;
        }
        let exchange_of = found.and_then(|it| it.exchanges.get(exchange));
        let durable = exchange_of.is_some_and(|it| it.definition().durable);
        let mut arguments = Table::new();
        arguments.set(FEEDS, Value::text(exchange));
        let definition = MailboxDefinition {
            id: self.new_mailbox_id(now),
            vhost: vhost.clone(),
            name,
            durable,
            exclusive: false,
            auto_delete: false,
            arguments,
            epoch: 0,
        };
        self.create_mailbox(definition, Limits::default(), None, now, out)
    }

    pub(super) fn delete_mailbox(
        &mut self,
        from: ConnectionId,
        name: &Name,
        if_unused: bool,
        if_empty: bool,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let (user, vhost_name) = self.whose(from)?;
        self.access.check(&user, &vhost_name, Action::Configure, Kind::Mailbox, name)?;
        if self.find(&vhost_name, name).is_none() && self.home_of(&vhost_name, name).is_some() {
            return Err(self.no_mailbox(&vhost_name, name));
        }
        let Some(mailbox) = self.find(&vhost_name, name) else { return Ok(Reply::Counted(0)) };
        check_reach(mailbox, from)?;
        if if_unused && !mailbox.consumers.is_empty() {
            let (name, vhost) = (name.clone(), vhost_name);
            return Err(Refusal::InUse { kind: Kind::Mailbox, name, vhost });
        }
        if if_empty && mailbox.ready > 0 {
            return Err(Refusal::NotEmpty { name: name.clone(), vhost: vhost_name });
        }
        let (id, ready) = (mailbox.id, mailbox.ready);
        self.delete_mailbox_now(id, now, out);
        Ok(Reply::Counted(ready))
    }

    /// The consumers of a mailbox are told that it is not here any longer.
    pub(super) fn cancel_all(
        &mut self,
        consumers: impl Iterator<Item = Consumer>,
        out: &mut Vec<Effect>,
    ) {
        for consumer in consumers {
            let Some(connection) = self.connections.get_mut(&consumer.connection) else { continue };
            if let Some(channel) = connection.channels.get_mut(&consumer.channel) {
                channel.consumers.remove(&consumer.id);
            }
            let event = Event::Cancelled { channel: consumer.channel, consumer: consumer.id };
            out.push(Effect::Notify(consumer.connection, event));
        }
    }

    /// The mailbox, its bindings and its messages go; consumers are told.
    pub(super) fn delete_mailbox_now(&mut self, id: MailboxId, now: Time, out: &mut Vec<Effect>) {
        let Some(mut mailbox) = self.mailboxes.remove(&id) else { return };
        self.peers.adverts_mut().mailbox_went(&mailbox);
        self.peers.arriving.remove(&id);
        self.generation += 1;
        self.totals.mailboxes_deleted += 1;
        if let Some(at) = mailbox.timer {
            self.timers.remove(&(at, id));
        }
        let mut turn = carry!(self, now, out);
        mailbox.forget_memory(&mut turn);
        self.cancel_all(mailbox.consumers.drain(), out);
        if let Some(stream) = &mailbox.stream {
            for name in stream.cursor_names() {
                let key = mailbox.cursor_key(name.clone());
                out.push(Effect::Write(Write::Undefine(key)));
            }
        }
        for id in mailbox.publications.stored() {
            let key = mailbox.publication(id.clone(), Seq(0), Time::ZERO).key();
            out.push(Effect::Write(Write::Undefine(key)));
        }
        mailbox.breach_all(&mut carry!(self, now, out));
        let looking = mailbox.looks.drain();
        for asker in std::mem::take(&mut mailbox.askers).into_iter().chain(looking) {
            let (name, vhost) = (mailbox.name.clone(), mailbox.vhost.clone());
            let result = Err(Refusal::NoSuchMailbox { name, vhost });
            self.mark_failed(asker.connection, asker.channel);
            let event = Event::Reply { channel: asker.channel, ticket: asker.ticket, result };
            out.push(Effect::NotifyDurable(asker.connection, event));
        }
        let mut relieved = BTreeSet::new();
        for lease in mailbox.leases.values() {
            if let Some(party) = self.connections.get_mut(&lease.connection) {
                party.leased_bytes = party.leased_bytes.saturating_sub(lease.size());
                relieved.insert(lease.connection);
            }
        }
        let held = mailbox.leases.values().filter(|lease| lease.consumer.is_some());
        let held = held.map(|lease| (lease.connection, lease.channel, 1));
        let read = mailbox.stream.iter().flat_map(|stream| stream.held());
        for (connection, channel, count) in held.chain(read) {
            if let Some(party) = self.connections.get_mut(&connection)
                && let Some(channel) = party.channels.get_mut(&channel)
            {
                channel.unsettled = channel.unsettled.saturating_sub(count);
                relieved.insert(connection);
            }
        }
        for connection in relieved {
            self.wake_stalled(connection);
        }
        if let Some(connection) = mailbox.owner.and_then(|owner| self.connections.get_mut(&owner)) {
            connection.exclusives.remove(&id);
        }
        let vhost_name = mailbox.vhost.clone();
        if let Some(kept) = self.find(&vhost_name, &keeper_name(&mailbox.name)).map(|it| it.id) {
            self.delete_mailbox_now(kept, now, out);
        }
        let durable = mailbox.durable();
        if let Some(vhost) = self.vhosts.get_mut(&vhost_name) {
            vhost.mailboxes.remove(&mailbox.name);
            if let Some(host) = &mailbox.outbox {
                vhost.outboxes.remove(host);
            }
            let removed = vhost.exchanges.unbind_mailbox(&mailbox.name);
            if durable {
                for binding in &removed.bindings {
                    out.push(Effect::Write(Write::Undefine(binding.key())));
                }
            }
            self.write_removed(&vhost_name, removed, now, out);
        }
        if durable || mailbox.spilled {
            out.push(Effect::Write(Write::Drop { mailbox: id }));
        }
        if durable {
            let key = Definition::Mailbox(mailbox.definition).key();
            out.push(Effect::Write(Write::Undefine(key)));
        }
    }

    pub(super) fn purge_mailbox(
        &mut self,
        from: ConnectionId,
        name: &Name,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let (user, vhost_name) = self.whose(from)?;
        self.access.check(&user, &vhost_name, Action::Read, Kind::Mailbox, name)?;
        let administers = self.access.has_tag(&user, "administrator");
        let id = self.find(&vhost_name, name).map(|it| it.id);
        let mut turn = carry!(self, now, out);
        let Some(mailbox) = id.and_then(|id| self.mailboxes.get_mut(&id)) else {
            return Err(self.no_mailbox(&vhost_name, name));
        };
        if mailbox.outbox.is_none() || !administers {
            check_reach(mailbox, from)?;
        }
        if mailbox.stream.is_some() {
            return Err(mailbox.not_for_streams("queue.purge"));
        }
        let count = mailbox.purge(&mut turn);
        self.dirty.extend(id);
        Ok(Reply::Counted(count))
    }

    /// After a policy came or went: every mailbox and exchange of the virtual host is looked at again.
    pub(super) fn apply_all_policies(&mut self, vhost_name: &Name, now: Time) {
        let Some(vhost) = self.vhosts.get(vhost_name) else { return };
        for id in vhost.mailboxes.values() {
            if let Some(mailbox) = self.mailboxes.get_mut(id) {
                let idle = mailbox.limits.expires_ms;
                apply_policies(vhost, mailbox);
                if mailbox.limits.expires_ms != idle {
                    mailbox.used = now;
                }
                self.dirty.push(*id);
            }
        }
        self.limit_keepers(vhost_name);
        self.apply_exchange_policies(vhost_name);
        self.generation += 1;
    }

    fn apply_exchange_policies(&mut self, vhost_name: &Name) {
        let Some(vhost) = self.vhosts.get_mut(vhost_name) else { return };
        let names: Vec<Name> =
            vhost.exchanges.iter().map(|exchange| exchange.definition().name.clone()).collect();
        for name in names {
            let alternate = vhost
                .policies
                .of_exchange(&name)
                .and_then(|policy| policy::text(policy, "alternate-exchange"))
                .map(Name::from);
            vhost.exchanges.set_alternate_by_policy(&name, alternate);
        }
    }

    pub(super) fn restore_mailbox(&mut self, definition: MailboxDefinition, now: Time) {
        let declare = DeclareMailbox {
            name: definition.name.clone(),
            passive: false,
            durable: definition.durable,
            exclusive: definition.exclusive,
            auto_delete: definition.auto_delete,
            arguments: definition.arguments.clone(),
            generated: true,
        };
        // Arguments were accepted once; a newer, stricter rule must not lose the mailbox.
        let limits = Limits::of(&declare, &definition.vhost, self.settings.delivery_limit);
        self.next_mailbox = self.next_mailbox.max(definition.id.0);
        self.create_mailbox(definition, limits.unwrap_or_default(), None, now, &mut Vec::new());
    }

    pub(super) fn restore_exchange(&mut self, definition: ExchangeDefinition) {
        if let Some(vhost) = self.vhosts.get_mut(&definition.vhost) {
            // What was accepted once is not refused now.
            drop(vhost.exchanges.restore_exchange(definition));
        }
    }
}

/// The mailbox in which an exchange holds what it delays.
const DELAY_PREFIX: &str = "amq.delayed.";

pub(super) fn delay_name(exchange: &str) -> String {
    format!("{DELAY_PREFIX}{exchange}")
}

/// Whether a name may be that of a mailbox which only an exchange fills.
pub(super) fn is_delay_name(name: &str) -> bool {
    name.starts_with(DELAY_PREFIX)
}

/// The exchange whose delayed messages the mailbox holds.
fn fed_exchange(definition: &MailboxDefinition) -> Option<Name> {
    let exchange = definition.name.strip_prefix(DELAY_PREFIX)?;
    let feeds = definition.arguments.get(FEEDS).and_then(Value::as_str);
    (feeds == Some(exchange)).then(|| exchange.into())
}

/// What belongs to a connection never outlives it.
fn is_durable(declare: &DeclareMailbox) -> bool {
    declare.durable && !declare.exclusive
}

fn dead_letter_argument<'a>(
    declare: &'a DeclareMailbox,
    vhost: &Name,
) -> Result<Option<&'a str>, Refusal> {
    let argument = "x-dead-letter-exchange";
    match declare.arguments.get(argument) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(name) => Ok(Some(name)),
            None => Err(Refusal::Precondition(format!(
                "invalid type '{}' for arg '{argument}' in queue '{}' in vhost '{vhost}'",
                type_name(value),
                declare.name,
            ))),
        },
    }
}

fn apply_policies(vhost: &super::vhost::Vhost, mailbox: &mut Mailbox) {
    if mailbox.feeds.is_some() || mailbox.keeps_for.is_some() {
        return;
    }
    let policies = vhost.policies.of_mailbox(&mailbox.name, mailbox.declared.kind);
    if mailbox.outbox.is_some() {
        // What waits for another host is confirmed: a policy only says where it goes if that host refuses it.
        mailbox.policy = policies[0].map(|policy| policy.name.clone());
        let wanted = mailbox.declared.clone().with_policies(policies.into_iter().flatten());
        mailbox.limits.dead_letter_exchange = wanted.dead_letter_exchange;
        mailbox.limits.dead_letter_key = wanted.dead_letter_key;
        return;
    }
    let [policy, operator_policy] = policies.map(|it| it.map(|policy| policy.name.clone()));
    (mailbox.policy, mailbox.operator_policy) = (policy, operator_policy);
    mailbox.limits = mailbox.declared.clone().with_policies(policies.into_iter().flatten());
    // The time that leases have may be another now.
    mailbox.leases_due = mailbox.leases.earliest();
}

fn declared(mailbox: &Mailbox) -> Reply {
    Reply::Declared {
        name: mailbox.name.clone(),
        ready: mailbox.ready,
        consumers: mailbox.consumers.len() as u32,
    }
}

/// An exclusive mailbox is there for its own connection only.
pub(super) fn check_owner(mailbox: &Mailbox, from: ConnectionId) -> Result<(), Refusal> {
    match mailbox.owner {
        Some(owner) if owner != from => Err(locked(mailbox)),
        _ => Ok(()),
    }
}

/// Whether the connection may do more than look: nobody gets at what an exchange holds back.
pub(super) fn check_reach(mailbox: &Mailbox, from: ConnectionId) -> Result<(), Refusal> {
    check_owner(mailbox, from)?;
    if mailbox.is_hidden() { Err(locked(mailbox)) } else { Ok(()) }
}

pub(super) fn locked(mailbox: &Mailbox) -> Refusal {
    Refusal::Locked { name: mailbox.name.clone(), vhost: mailbox.vhost.clone() }
}

/// Whether a declaration repeats the existing mailbox. RabbitMQ's order: owner, durable, auto-delete, arguments.
fn check_same(
    mailbox: &Mailbox,
    declare: &DeclareMailbox,
    from: ConnectionId,
) -> Result<(), Refusal> {
    if mailbox.owner != declare.exclusive.then_some(from) || mailbox.is_hidden() {
        return Err(locked(mailbox));
    }
    check_equivalent(&mailbox.definition, declare)
}

fn check_equivalent(was: &MailboxDefinition, declare: &DeclareMailbox) -> Result<(), Refusal> {
    if was.exclusive != declare.exclusive {
        let (name, vhost) = (was.name.clone(), was.vhost.clone());
        return Err(Refusal::Locked { name, vhost });
    }
    let inequivalent = |argument: &str, difference: String| Refusal::Inequivalent {
        argument: argument.into(),
        kind: Kind::Mailbox,
        name: was.name.clone(),
        vhost: was.vhost.clone(),
        difference,
    };
    for (argument, is, was) in [
        ("durable", is_durable(declare), was.durable),
        ("auto_delete", declare.auto_delete, was.auto_delete),
    ] {
        if is != was {
            let difference = format!("received '{is}' but current is '{was}'");
            return Err(inequivalent(argument, difference));
        }
    }
    match difference(&was.arguments, &declare.arguments) {
        Some((argument, difference)) => Err(inequivalent(&argument, difference)),
        None => Ok(()),
    }
}

//! Opening connections, definitions from operators, and what the store recovered.

use std::collections::BTreeMap;

use super::command::{ConnectionId, DeclareMailbox, Open, Seq};
use super::definition::{
    Credential, Definition, DefinitionKey, DefinitionKind, ParameterDefinition,
    PermissionDefinition, UserDefinition, VhostDefinition,
};
use super::event::{Effect, Event, Recovered, Reply, Write};
use super::keep::is_keeper_name;
use super::limits::Limits;
use super::name::{Name, Time};
use super::peer::is_outbox_name;
use super::policy;
use super::refusal::{Kind, Refusal};
use super::routing::{Bound, Declared, Exchanges};
use super::topology::is_delay_name;
use super::vhost::Vhost;
use super::{Broker, SERVER};

/// RabbitMQ's form: four bytes of salt and the SHA-256 of salt and password, in base64. The password is `guest`.
const GUEST_HASH: &str = "UEJPWAh0UC18VVuTxQAhM+Umq9OsXRxF16jsynypF6K5a3eN";

impl Broker {
    pub(super) fn open_connection(
        &mut self,
        from: ConnectionId,
        open: Open,
    ) -> Result<Reply, Refusal> {
        self.check_room(&open)?;
        self.admit(from, &open.user, open.protocol)?;
        let (vhost_name, user) = (open.vhost.clone(), open.user.clone());
        if !self.access.may_enter(&user, &vhost_name) {
            let reason = String::new();
            return Err(Refusal::VhostDenied { vhost: vhost_name, user, reason });
        }
        if self.connections.get(&from).is_some_and(|it| it.open.is_some()) {
            return Err(Refusal::NotAllowed("the connection has opened a virtual host".into()));
        }
        self.vhost_mut(&vhost_name)?.connections += 1;
        self.totals.connections_opened += 1;
        let flow = self.flow_of(open.protocol);
        let connection = self.connections.entry(from).or_default();
        connection.flow = flow;
        connection.open = Some(Box::new(open));
        Ok(Reply::Opened)
    }

    pub(super) fn check_access(
        &mut self,
        from: ConnectionId,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let (user, vhost) = self.whose(from)?;
        if self.access.may_enter(&user, &vhost) {
            self.end_forbidden(|id, _| id == from, now, out);
            Ok(Reply::Done)
        } else {
            Err(Refusal::VhostDenied { vhost, user, reason: String::new() })
        }
    }

    pub(super) fn raise_alarm(&mut self, memory: bool, disk: bool, out: &mut Vec<Effect>) {
        let alarm = match (memory, disk) {
            (false, false) => None,
            (true, false) => Some("low on memory"),
            (false, true) => Some("low on disk"),
            (true, true) => Some("low on memory & disk"),
        };
        if alarm == self.alarm {
            return;
        }
        self.alarm = alarm;
        for (id, connection) in &self.connections {
            if connection.publishes {
                out.push(Effect::Notify(*id, Event::Blocked(alarm)));
            }
        }
    }

    /// The connection published for the first time.
    pub(super) fn note_publisher(&mut self, from: ConnectionId, out: &mut Vec<Effect>) {
        let Some(connection) = self.connections.get_mut(&from) else { return };
        if !connection.publishes {
            connection.publishes = true;
            if self.alarm.is_some() {
                out.push(Effect::Notify(from, Event::Blocked(self.alarm)));
            }
        }
    }

    pub(super) fn disconnect(
        &mut self,
        from: ConnectionId,
        connection: ConnectionId,
        reason: String,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_administrator(from)?;
        let known = self.connections.get(&connection).is_some_and(|it| it.open.is_some());
        if known {
            out.push(Effect::Notify(connection, Event::ForceClose(reason)));
        }
        Ok(Reply::Counted(u64::from(known)))
    }

    /// Who makes policies for users need not administer anything else.
    fn check_policy_maker(
        &self,
        from: ConnectionId,
        vhost: &Name,
        operator: bool,
    ) -> Result<(), Refusal> {
        let may = from != SERVER && !operator && {
            let (user, _) = self.whose(from)?;
            self.access.has_tag(&user, "policymaker") && self.access.may_enter(&user, vhost)
        };
        if may { Ok(()) } else { self.check_administrator(from) }
    }

    pub(super) fn define(
        &mut self,
        from: ConnectionId,
        mut definition: Definition,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        match &definition {
            Definition::Policy(it) => {
                self.check_policy_maker(from, &it.vhost, it.operator)?;
                policy::check(it).map_err(Refusal::Precondition)?;
            }
            _ => self.check_administrator(from)?,
        }
        self.keep_quotas(&mut definition);
        self.put(definition, now, out)?;
        Ok(Reply::Done)
    }

    pub(super) fn put(
        &mut self,
        definition: Definition,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        match &definition {
            Definition::Vhost(it) => {
                match self.vhosts.get_mut(&it.name) {
                    Some(vhost) => vhost.definition = it.clone(),
                    None => {
                        let peers = self.peers.on();
                        let vhost = Vhost::new(it.clone(), self.settings.host.into(), peers);
                        self.vhosts.insert(it.name.clone(), vhost);
                        self.open_routes(&it.name.clone(), now, out);
                    }
                }
                self.note_tracing();
            }
            Definition::User(it) => self.access.define_user(it.clone()),
            Definition::Permission(it) => {
                self.access.define_permission(it.clone()).map_err(Refusal::Precondition)?;
                self.end_forbidden(|_, open| open.user == it.user, now, out);
            }
            Definition::TopicPermission(it) => {
                self.access.define_topic_permission(it.clone()).map_err(Refusal::Precondition)?;
            }
            Definition::Policy(it) => {
                let vhost = self.vhost_mut(&it.vhost)?;
                vhost.policies.set(it.clone()).map_err(Refusal::Precondition)?;
                let vhost = it.vhost.clone();
                self.apply_all_policies(&vhost, now);
            }
            Definition::Parameter(it) => {
                if let Some(vhost) = &it.vhost {
                    self.vhost_mut(vhost)?;
                }
                self.parameters.insert(definition.key(), it.clone());
            }
            Definition::Cursor(it) => {
                let mailbox = self.find_mut(&it.vhost, &it.mailbox)?;
                if let Some(stream) = &mut mailbox.stream {
                    stream.restore_cursor(it, now);
                }
            }
            Definition::Route(_) | Definition::Taken(_) | Definition::Host(_) => {
                return Err(Refusal::NotAllowed("only hosts speak of themselves".into()));
            }
            Definition::Publication(it) => {
                let mailbox = self.find_mut(&it.vhost, &it.mailbox)?;
                let (seq, at) = (Seq(it.position), Time(it.at_ms));
                mailbox.publications.restore(it.id.0.clone(), seq, at);
            }
            Definition::Exchange(it) => {
                let declare = super::DeclareExchange {
                    name: it.name.clone(),
                    kind: it.kind.clone(),
                    passive: false,
                    durable: it.durable,
                    auto_delete: it.auto_delete,
                    internal: it.internal,
                    arguments: it.arguments.clone(),
                };
                let vhost = self.vhost_mut(&it.vhost)?;
                if !matches!(vhost.exchanges.declare(&declare)?, Declared::New(_)) || !it.durable {
                    return Ok(());
                }
            }
            Definition::Mailbox(it) => return self.put_mailbox(it.clone(), now, out),
            Definition::Binding(it) => {
                let bind = super::BindingOf {
                    source: it.source.clone(),
                    destination: it.destination.clone(),
                    key: it.key.0.clone(),
                    arguments: it.arguments.clone(),
                };
                if let super::Destination::Mailbox(name) = &it.destination {
                    self.find_mut(&it.vhost, name)?;
                }
                if let Bound::Exists = self.vhost_mut(&it.vhost)?.exchanges.bind(&bind)? {
                    return Ok(());
                }
            }
        }
        self.generation += 1;
        out.push(Effect::Write(Write::Define(Box::new(definition))));
        Ok(())
    }

    fn put_mailbox(
        &mut self,
        mut definition: super::MailboxDefinition,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if self.find_any(&definition.vhost, &definition.name).is_some() {
            return Ok(());
        }
        self.vhost_mut(&definition.vhost)?;
        let declare = DeclareMailbox {
            name: definition.name.clone(),
            passive: false,
            durable: definition.durable,
            exclusive: false,
            auto_delete: definition.auto_delete,
            arguments: definition.arguments.clone(),
            generated: true,
        };
        let limits = Limits::of(&declare, &definition.vhost, self.settings.delivery_limit)?;
        let name = &definition.name;
        if is_delay_name(name) || is_outbox_name(name) || is_keeper_name(name) {
            let name = definition.name;
            return Err(Refusal::ReservedName { kind: Kind::Mailbox, name });
        }
        definition.id = self.new_mailbox_id(now);
        definition.exclusive = false;
        self.create_mailbox(definition, limits, None, now, out);
        Ok(())
    }

    pub(super) fn undefine(
        &mut self,
        from: ConnectionId,
        key: &DefinitionKey,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let part = |at: usize| {
            let bytes = key.path.get(at).map_or(&[][..], |bytes| &bytes[..]);
            Name::from(String::from_utf8_lossy(bytes).into_owned())
        };
        match key.kind {
            DefinitionKind::Policy => self.check_policy_maker(from, &part(0), false)?,
            _ => self.check_administrator(from)?,
        }
        match key.kind {
            DefinitionKind::Vhost => {
                let name = part(0);
                if self.vhosts.get(&name).is_some_and(|it| it.definition.protected) {
                    let reason = "it is protected from deletion";
                    let text = format!("vhost '{name}' cannot be deleted: {reason}");
                    return Err(Refusal::Precondition(text));
                }
                self.delete_vhost(&name, now, out);
            }
            DefinitionKind::User => {
                for key in self.access.undefine_user(&part(0)) {
                    out.push(Effect::Write(Write::Undefine(key)));
                }
                let named = |connection: &super::Connection| {
                    connection.open.as_ref().is_some_and(|open| open.user == part(0))
                };
                for (id, connection) in &self.connections {
                    if named(connection) && !id.is_visitor() {
                        let reason = format!("user '{}' was deleted", part(0));
                        out.push(Effect::Notify(*id, Event::ForceClose(reason)));
                    }
                }
            }
            DefinitionKind::Permission => {
                self.access.undefine_permission(&part(1), &part(0));
                self.end_forbidden(|_, open| open.user == part(1), now, out);
            }
            DefinitionKind::TopicPermission => {
                let exchange = part(2);
                self.access.undefine_topic_permission(&part(1), &part(0), Some(&exchange));
            }
            DefinitionKind::Policy | DefinitionKind::OperatorPolicy => {
                let operator = key.kind == DefinitionKind::OperatorPolicy;
                let (vhost, name) = (part(0), part(1));
                self.vhost_mut(&vhost)?.policies.clear(operator, &name);
                self.apply_all_policies(&vhost, now);
            }
            DefinitionKind::Mailbox => {
                if let Some(id) = self.find(&part(0), &part(1)).map(|mailbox| mailbox.id) {
                    self.delete_mailbox_now(id, now, out);
                }
                return Ok(Reply::Done);
            }
            DefinitionKind::Exchange => {
                let vhost = part(0);
                let removed = self.vhost_mut(&vhost)?.exchanges.delete(&part(1), false)?;
                self.write_removed(&vhost, removed, now, out);
                return Ok(Reply::Done);
            }
            DefinitionKind::Binding => {
                let vhost = part(0);
                let exchanges = &mut self.vhost_mut(&vhost)?.exchanges;
                let found = exchanges.bindings().find(|binding| binding.key() == *key);
                if let Some(binding) = found {
                    let bind = super::BindingOf {
                        source: binding.source,
                        destination: binding.destination,
                        key: binding.key.0,
                        arguments: binding.arguments,
                    };
                    let removed = exchanges.unbind(&bind)?;
                    self.write_removed(&vhost, removed, now, out);
                }
                return Ok(Reply::Done);
            }
            DefinitionKind::Parameter => {
                self.parameters.remove(key);
            }
            DefinitionKind::Route | DefinitionKind::Taken | DefinitionKind::Host => {
                return Err(Refusal::NotAllowed("only hosts speak of themselves".into()));
            }
            // They go by themselves.
            DefinitionKind::Publication => return Ok(Reply::Done),
            DefinitionKind::Cursor => {
                let mailbox = self.find_mut(&part(0), &part(1))?;
                if !mailbox.stream.as_mut().is_some_and(|it| it.forget_cursor(&part(2))) {
                    return Ok(Reply::Done);
                }
            }
        }
        self.generation += 1;
        out.push(Effect::Write(Write::Undefine(key.clone())));
        Ok(Reply::Done)
    }

    fn delete_vhost(&mut self, name: &Name, now: Time, out: &mut Vec<Effect>) {
        let Some(vhost) = self.vhosts.get(name) else { return };
        for (id, connection) in &self.connections {
            if connection.open.as_ref().is_some_and(|open| open.vhost == *name) {
                let reason = format!("vhost '{name}' is deleted");
                out.push(Effect::Notify(*id, Event::ForceClose(reason)));
            }
        }
        let ids: Vec<_> = vhost.mailboxes.values().copied().collect();
        for id in ids {
            self.delete_mailbox_now(id, now, out);
        }
        let Some(vhost) = self.vhosts.remove(name) else { return };
        self.peers.adverts_mut().vhost_went(name);
        let undefine = |key| Effect::Write(Write::Undefine(key));
        out.extend(vhost.exchanges.bindings().map(|it| undefine(it.key())));
        for exchange in vhost.exchanges.iter().filter(|it| it.definition().durable) {
            if Exchanges::is_predeclared(exchange.name()) {
                continue;
            }
            let key = Definition::Exchange(exchange.definition().clone()).key();
            out.push(undefine(key));
        }
        out.extend(vhost.policies.iter().map(|it| undefine(Definition::Policy(it.clone()).key())));
        let gone =
            |_: &DefinitionKey, it: &mut ParameterDefinition| it.vhost.as_ref() == Some(name);
        out.extend(self.parameters.extract_if(.., gone).map(|(key, _)| undefine(key)));
        for key in self.access.undefine_vhost(name) {
            out.push(undefine(key));
        }
    }

    /// Rebuilds everything from the store; the first start makes what a newcomer needs.
    pub(super) fn restore(&mut self, recovered: Recovered, now: Time, out: &mut Vec<Effect>) {
        let blank = recovered.definitions.is_empty();
        let mut by_kind: BTreeMap<DefinitionKind, Vec<Definition>> = BTreeMap::new();
        for definition in recovered.definitions {
            by_kind.entry(definition.key().kind).or_default().push(definition);
        }
        // The order of the kinds is the order in which they lean on each other.
        for definition in by_kind.into_values().flatten() {
            match definition {
                Definition::Exchange(it) => self.restore_exchange(it),
                Definition::Mailbox(it) => self.restore_mailbox(it, now),
                Definition::Binding(it) => self.restore_binding(it),
                Definition::Route(it) => self.restore_route(it, now, out),
                Definition::Taken(it) => self.restore_taken(it),
                Definition::Host(it) => self.restore_host(it),
                // What was accepted once is not refused now; a broken pattern grants nothing.
                other => drop(self.put(other, now, &mut Vec::new())),
            }
        }
        for found in recovered.mailboxes {
            match self.mailboxes.get_mut(&found.id) {
                Some(mailbox) => {
                    self.dirty.push(found.id);
                    mailbox.recover(found, now);
                }
                None => out.push(Effect::Write(Write::Drop { mailbox: found.id })),
            }
        }
        let vhosts: Vec<Name> = self.vhosts.keys().cloned().collect();
        for vhost in &vhosts {
            self.apply_all_policies(vhost, now);
        }
        if blank {
            self.welcome(now, out);
        }
    }

    /// The first start: virtual host `/`, and `guest` for programs on this machine.
    fn welcome(&mut self, now: Time, out: &mut Vec<Effect>) {
        let all = || ".*".to_owned();
        let (vhost, guest) = (Name::from("/"), Name::from("guest"));
        let definitions = [
            Definition::Vhost(VhostDefinition {
                name: vhost.clone(),
                description: "Default virtual host".into(),
                tags: Vec::new(),
                default_queue_type: None,
                tracing: false,
                protected: false,
                max_connections: None,
                max_mailboxes: None,
            }),
            Definition::User(UserDefinition {
                name: guest.clone(),
                credential: Credential {
                    password_hash: GUEST_HASH.into(),
                    hashing: "rabbit_password_hashing_sha256".into(),
                    tags: vec!["administrator".into()],
                    loopback_only: true,
                },
                max_connections: None,
                max_channels: None,
            }),
            Definition::Permission(PermissionDefinition {
                vhost,
                user: guest,
                configure: all(),
                write: all(),
                read: all(),
            }),
        ];
        for definition in definitions {
            self.put(definition, now, out).expect("what every broker starts with is valid");
        }
    }
}

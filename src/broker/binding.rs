//! Bindings: made, ended, and what goes with them.

use bytes::Bytes;

use super::Broker;
use super::command::{BindingOf, ConnectionId};
use super::dead_letter::Burial;
use super::definition::{BindingDefinition, Definition, Destination};
use super::event::{Effect, Reply, Write};
use super::mailbox::Mailbox;
use super::name::{Name, Time};
use super::publish::Origin;
use super::refusal::{Action, Kind, Refusal};
use super::routing::{Bound, Removed};
use super::topology::{check_reach, delay_name};

impl Broker {
    pub(super) fn bind(
        &mut self,
        from: ConnectionId,
        bind: BindingOf,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let vhost_name = self.check_binding(from, &bind)?;
        let Bound::New { definition, replay } =
            self.vhost_mut(&vhost_name)?.exchanges.bind(&bind)?
        else {
            return Ok(Reply::Done);
        };
        self.generation += 1;
        if self.is_durable_binding(&definition) {
            out.push(Effect::Write(Write::Define(Box::new(Definition::Binding(definition)))));
        }
        for message in replay {
            match &bind.destination {
                Destination::Mailbox(name) => {
                    let id = self.find(&vhost_name, name).map(|mailbox| mailbox.id);
                    self.place(id.as_slice(), message, Origin::Publisher, now, out);
                }
                Destination::Exchange(name) => {
                    let (vhost, exchange) = (vhost_name.clone(), name.clone());
                    let keys = vec![Bytes::copy_from_slice(message.key())];
                    self.burials.push(Burial {
                        vhost,
                        exchange,
                        keys,
                        message,
                        dead: false,
                        waits: None,
                    });
                }
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn unbind(
        &mut self,
        from: ConnectionId,
        bind: BindingOf,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let vhost_name = match self.check_binding(from, &bind) {
            // What is not there is not bound.
            Err(Refusal::NoSuchMailbox { .. } | Refusal::NoSuchExchange { .. }) => {
                return Ok(Reply::Done);
            }
            checked => checked?,
        };
        let removed = self.vhost_mut(&vhost_name)?.exchanges.unbind(&bind)?;
        self.write_removed(&vhost_name, removed, now, out);
        Ok(Reply::Done)
    }

    fn check_binding(&mut self, from: ConnectionId, bind: &BindingOf) -> Result<Name, Refusal> {
        let (user, vhost) = self.whose(from)?;
        let (kind, destination) = match &bind.destination {
            Destination::Mailbox(name) => (Kind::Mailbox, name),
            Destination::Exchange(name) => (Kind::Exchange, name),
        };
        if bind.source.is_empty() || (kind == Kind::Exchange && destination.is_empty()) {
            return Err(Refusal::DefaultExchange);
        }
        self.access.check(&user, &vhost, Action::Write, kind, destination)?;
        self.access.check(&user, &vhost, Action::Read, Kind::Exchange, &bind.source)?;
        if kind == Kind::Mailbox {
            match self.find(&vhost, destination) {
                Some(mailbox) => check_reach(mailbox, from)?,
                None => {
                    return Err(self.no_mailbox(&vhost, destination));
                }
            }
        }
        let exchanges = &self.vhost_mut(&vhost)?.exchanges;
        let missing =
            |name: &Name| Refusal::NoSuchExchange { name: name.clone(), vhost: vhost.clone() };
        let source = exchanges.get(&bind.source).ok_or_else(|| missing(&bind.source))?;
        let is_topic = source.is_topic();
        if kind == Kind::Exchange {
            exchanges.get(destination).ok_or_else(|| missing(destination))?;
        }
        if is_topic {
            self.access.check_topic(&user, &vhost, &bind.source, Action::Read, &bind.key)?;
        }
        Ok(vhost)
    }

    pub(super) fn write_removed(
        &mut self,
        vhost: &Name,
        removed: Removed,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.generation += 1;
        for binding in removed.bindings {
            if self.is_durable_binding(&binding) || removed.exchanges.iter().any(|it| it.durable) {
                out.push(Effect::Write(Write::Undefine(binding.key())));
            }
        }
        for exchange in removed.exchanges {
            let held = self
                .vhosts
                .get(vhost)
                .and_then(|it| it.mailboxes.get(&*delay_name(&exchange.name)))
                .copied();
            if let Some(id) = held {
                self.delete_mailbox_now(id, now, out);
            }
            if exchange.durable {
                let key = Definition::Exchange(exchange).key();
                out.push(Effect::Write(Write::Undefine(key)));
            }
        }
    }

    pub(super) fn is_durable_binding(&self, binding: &BindingDefinition) -> bool {
        let Some(vhost) = self.vhosts.get(&binding.vhost) else { return false };
        let durable_exchange =
            |name: &str| vhost.exchanges.get(name).is_some_and(|it| it.definition().durable);
        durable_exchange(&binding.source)
            && match &binding.destination {
                Destination::Exchange(name) => durable_exchange(name),
                Destination::Mailbox(name) => vhost
                    .mailboxes
                    .get(name)
                    .and_then(|id| self.mailboxes.get(id))
                    .is_some_and(Mailbox::durable),
            }
    }

    pub(super) fn restore_binding(&mut self, definition: BindingDefinition) {
        if let Some(vhost) = self.vhosts.get_mut(&definition.vhost) {
            drop(vhost.exchanges.restore_binding(definition));
        }
    }
}

//! Methods of exchange and queue: from the wire to requests, names filled in.

use bytes::Bytes;
use pillarbox_amqp::{FieldTable, Method, ReplyCode, ShortString};

use super::channel::{Channel, Then};
use super::line::Line;
use super::name::name;
use super::reply::{Fault, Ids};
use super::value::arguments;
use crate::broker::{BindingOf, DeclareExchange, DeclareMailbox, Destination, Name, Request};
use crate::sessions::Outbox;

impl Channel {
    /// One of exchange.* and queue.*. Gives any other method back.
    pub(super) fn topology(
        &mut self,
        method: Method,
        ids: Ids,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<Option<Method>, Fault> {
        let (request, then, nowait) = match method {
            Method::ExchangeDeclare {
                exchange,
                kind,
                passive,
                durable,
                auto_delete,
                internal,
                nowait,
                arguments: fields,
            } => {
                let declare = DeclareExchange {
                    name: name(&exchange, ids)?,
                    kind: name(&kind, ids)?,
                    passive,
                    durable,
                    auto_delete,
                    internal,
                    arguments: arguments(fields, ids)?,
                };
                let then = Then::Say(Method::ExchangeDeclareOk);
                (Request::DeclareExchange(declare), then, nowait)
            }
            Method::ExchangeDelete { exchange, if_unused, nowait } => {
                let request = Request::DeleteExchange { name: name(&exchange, ids)?, if_unused };
                (request, Then::Say(Method::ExchangeDeleteOk), nowait)
            }
            Method::ExchangeBind { destination, source, routing_key, nowait, arguments } => {
                let destination = Destination::Exchange(name(&destination, ids)?);
                let binding =
                    binding(destination, &source, routing_key.into_bytes(), arguments, ids)?;
                (Request::Bind(binding), Then::Say(Method::ExchangeBindOk), nowait)
            }
            Method::ExchangeUnbind { destination, source, routing_key, nowait, arguments } => {
                let destination = Destination::Exchange(name(&destination, ids)?);
                let binding =
                    binding(destination, &source, routing_key.into_bytes(), arguments, ids)?;
                (Request::Unbind(binding), Then::Say(Method::ExchangeUnbindOk), nowait)
            }
            Method::QueueDeclare {
                queue,
                passive,
                durable,
                exclusive,
                auto_delete,
                nowait,
                arguments: fields,
            } => {
                let generated = queue.is_empty() && !passive;
                let name = match generated {
                    true => line.random.name("amq.gen-"),
                    false => name(&queue, ids)?,
                };
                self.mailbox = Some(name.clone());
                let arguments = arguments(fields, ids)?;
                let declare = DeclareMailbox {
                    name,
                    passive,
                    durable,
                    exclusive,
                    auto_delete,
                    arguments,
                    generated,
                };
                (Request::DeclareMailbox(declare), Then::DeclareOk, nowait)
            }
            Method::QueueBind { queue, exchange, routing_key, nowait, arguments } => {
                let key = self.binding_key(&queue, routing_key);
                let destination = Destination::Mailbox(self.mailbox_name(&queue, ids)?);
                let binding = binding(destination, &exchange, key, arguments, ids)?;
                (Request::Bind(binding), Then::Say(Method::QueueBindOk), nowait)
            }
            Method::QueueUnbind { queue, exchange, routing_key, arguments } => {
                let key = self.binding_key(&queue, routing_key);
                let destination = Destination::Mailbox(self.mailbox_name(&queue, ids)?);
                let binding = binding(destination, &exchange, key, arguments, ids)?;
                (Request::Unbind(binding), Then::Say(Method::QueueUnbindOk), false)
            }
            Method::QueuePurge { queue, nowait } => {
                let name = self.mailbox_name(&queue, ids)?;
                (Request::PurgeMailbox { name }, Then::PurgeOk, nowait)
            }
            Method::QueueDelete { queue, if_unused, if_empty, nowait } => {
                let name = self.mailbox_name(&queue, ids)?;
                (Request::DeleteMailbox { name, if_unused, if_empty }, Then::DeleteOk, nowait)
            }
            other => return Ok(Some(other)),
        };
        let then = if nowait { Then::Silence } else { then };
        self.ask(request, ids, then, line, out);
        Ok(None)
    }

    /// The mailbox that a method names; an empty name means the one declared last.
    pub(super) fn mailbox_name(&self, given: &ShortString, ids: Ids) -> Result<Name, Fault> {
        match (given.is_empty(), &self.mailbox) {
            (false, _) => name(given, ids),
            (true, Some(declared)) => Ok(declared.clone()),
            (true, None) => {
                Err(Fault::new(ReplyCode::NOT_FOUND, "no previously declared queue", ids))
            }
        }
    }

    /// With neither queue nor key given, the queue's name is the key.
    fn binding_key(&self, queue: &ShortString, key: ShortString) -> Bytes {
        match &self.mailbox {
            Some(declared) if queue.is_empty() && key.is_empty() => {
                Bytes::copy_from_slice(declared.as_bytes())
            }
            _ => key.into_bytes(),
        }
    }
}

fn binding(
    destination: Destination,
    source: &ShortString,
    key: Bytes,
    fields: FieldTable,
    ids: Ids,
) -> Result<BindingOf, Fault> {
    let (source, arguments) = (name(source, ids)?, arguments(fields, ids)?);
    Ok(BindingOf { source, destination, key, arguments })
}

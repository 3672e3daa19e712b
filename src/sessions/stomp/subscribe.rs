//! SUBSCRIBE, UNSUBSCRIBE, ACK and NACK.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use md5::{Digest, Md5};
use pillarbox_stomp::{Frame, Headers, Version};

use super::arguments::{QUEUE_NAME, consumer_arguments, priority, queue_arguments};
use super::browse::{Looking, is_browser};
use super::destination::{Destination, TEMP_QUEUE};
use super::error::Fault;
use super::headers::flag;
use super::open::{Flow, Open, Then};
use super::send::{destination, not_for};
use super::subscription::{AckMode, Held, Subscription, parse_message_id, tag};
use super::transaction::Action;
use crate::broker::selector::Selector;
use crate::broker::{
    BindingOf, Command, Consume, DeclareMailbox, Destination as BindingEnd, Name, Outcome, Request,
    Selection, TIME_SPAN_MAX_MS, Table,
};
use crate::sessions::Outbox;

/// Artemis's name for a durable subscription, and those of its forerunners.
const SUBSCRIPTION_NAMES: [&str; 3] =
    ["durable-subscription-name", "durable-subscriber-name", "activemq.subscriptionName"];

/// A subscription to what an exchange routes, through a mailbox of its own.
struct Bound<'a> {
    exchange: Name,
    key: &'a str,
    /// Where the client says nothing: who may take from it, and whether it goes with its last consumer.
    exclusive: bool,
    auto_delete: bool,
}

impl Open {
    pub(super) fn subscribe(&mut self, frame: &Frame, out: &mut Outbox) -> Result<Flow, Fault> {
        let headers = &frame.headers;
        let text = destination(headers, "SUBSCRIBE")?;
        let target = Destination::hinted(text, headers.get("subscription-type"))?;
        let id = checked_id(headers, "SUBSCRIBE")?;
        let tag = tag(id, text);
        if self.subscriptions.find(&tag).is_some() {
            let detail = format!("A subscription identified by '{tag}' already exists.");
            return Err(Fault::fatal("Duplicated subscription identifier", detail));
        }
        let most = self.settings.subscriptions_max;
        if self.subscriptions.len() >= most {
            let detail = format!("A connection has at most {most} subscriptions");
            return Err(Fault::fatal("Too many subscriptions", detail));
        }
        let mode = AckMode::parse(headers.get("ack"))
            .ok_or_else(|| Fault::invalid_header("SUBSCRIBE", "ack"))?;
        let priority = headers.get("x-priority").map_or(Ok(0), priority)?;
        let prefetch = prefetch(headers)?;
        let arguments = consumer_arguments(headers)?;
        let selection = selection(headers, &target)?;
        let browses = is_browser(headers, &target)?;
        let mut steps = VecDeque::new();
        let durable = is_durable(headers);
        let mailbox = match &target {
            Destination::Queue(name) => {
                self.declare_once("SUBSCRIBE", name, headers, &mut steps)?;
                name.clone()
            }
            Destination::AmqQueue(name) => name.clone(),
            Destination::Topic(key) => {
                let exchange = self.topic_exchange.clone();
                let bound = Bound { exchange, key, exclusive: false, auto_delete: !durable };
                self.bind(bound, headers, &mut steps)?
            }
            Destination::Exchange { name, key } => {
                let key = key.as_deref().unwrap_or_default();
                let exchange = name.clone();
                let bound = Bound { exchange, key, exclusive: !durable, auto_delete: !durable };
                self.bind(bound, headers, &mut steps)?
            }
            Destination::TempQueue(_) | Destination::ReplyQueue(_) => {
                return Err(not_for("SUBSCRIBE", text));
            }
        };
        let consumer = self.consumer();
        let prefix = self.message_prefix(&tag);
        // As UNSUBSCRIBE, which has no hint, will read it.
        let named = match &target {
            Destination::Topic(key) if !text.starts_with('/') => format!("/topic/{key}"),
            _ => text.to_owned(),
        };
        let mut subscription = Subscription::new(id, &named, mode, prefix);
        subscription.browses = browses;
        let consumer_tag: Name = tag.as_str().into();
        self.subscriptions.add(tag, consumer, subscription);
        if browses {
            let looking = Looking::new(consumer, mailbox, selection, headers.get("receipt"));
            if steps.is_empty() {
                self.look(looking, out);
            } else {
                self.run(steps, Then::Look(looking), headers.get("receipt"), out);
            }
            return Ok(Flow::Later);
        }
        steps.push_back(Request::Consume(Consume {
            mailbox,
            consumer,
            tag: consumer_tag,
            no_ack: mode == AckMode::Auto,
            exclusive: false,
            priority,
            prefetch,
            arguments,
            selection,
            bounded: false,
        }));
        self.run(steps, Then::Nothing, headers.get("receipt"), out);
        Ok(Flow::Later)
    }

    /// A mailbox for this subscription, bound to the exchange.
    fn bind(
        &mut self,
        bound: Bound<'_>,
        headers: &Headers,
        steps: &mut VecDeque<Request>,
    ) -> Result<Name, Fault> {
        let durable = is_durable(headers);
        let name = match self.lasting_name(bound.key, headers)? {
            Some(name) => name,
            None => self.random.name("stomp-subscription-"),
        };
        let said = |header, default| headers.get(header).map_or(default, |it| it == "true");
        steps.push_back(Request::DeclareMailbox(DeclareMailbox {
            name: name.clone(),
            passive: false,
            durable,
            exclusive: said("exclusive", bound.exclusive),
            auto_delete: said("auto-delete", bound.auto_delete),
            arguments: queue_arguments("SUBSCRIBE", headers)?,
            generated: false,
        }));
        steps.push_back(Request::Bind(BindingOf {
            source: bound.exchange,
            destination: BindingEnd::Mailbox(name.clone()),
            key: Bytes::copy_from_slice(bound.key.as_bytes()),
            arguments: Table::new(),
        }));
        Ok(name)
    }

    /// The mailbox's name, where it is to be found again by the same words.
    fn lasting_name(&self, key: &str, headers: &Headers) -> Result<Option<Name>, Fault> {
        if let Some(name) = headers.get(QUEUE_NAME) {
            return checked_name(name.to_owned(), QUEUE_NAME).map(Some);
        }
        if let Some((header, name)) = subscription_name(headers) {
            let Some(client) = &self.client_id else {
                let detail = format!("Header '{header}' needs a 'client-id' header on CONNECT");
                return Err(Fault::new("Missing header", detail));
            };
            return checked_name(format!("{client}.{name}"), header).map(Some);
        }
        if !is_durable(headers) {
            return Ok(None);
        }
        let Some(id) = headers.get("id") else {
            let detail = "Header 'id' is required for durable subscriptions";
            return Err(Fault::new("Missing Header", detail));
        };
        Ok(Some(durable_name(key, id)))
    }

    pub(super) fn unsubscribe(&mut self, frame: &Frame, out: &mut Outbox) -> Result<Flow, Fault> {
        let headers = &frame.headers;
        let id = checked_id(headers, "UNSUBSCRIBE")?;
        let text = headers.get("destination");
        if id.is_none() && text.is_none() {
            let detail = "\"UNSUBSCRIBE\" must include a 'destination' or 'id' header";
            return Err(Fault::new("Missing header", detail));
        }
        let tag = tag(id, text.unwrap_or_default());
        let consumer = self.subscriptions.find(&tag);
        let mut steps = VecDeque::new();
        let mut subscribed = None;
        if let Some(consumer) = consumer {
            let found = self.subscriptions.get_mut(consumer);
            if found.as_ref().is_some_and(|it| it.browses) {
                self.subscriptions.remove(consumer);
                return Ok(Flow::Done);
            }
            steps.push_back(Request::Cancel(consumer));
            subscribed = found.map(|it| it.destination.clone());
        }
        if is_durable(headers)
            && let Some(text) = subscribed.as_deref().or(text)
        {
            let name = match Destination::parse(text)? {
                Destination::Topic(key) => self.lasting_name(&key, headers)?,
                Destination::Exchange { key, .. } => {
                    self.lasting_name(key.as_deref().unwrap_or_default(), headers)?
                }
                _ => None,
            };
            steps.extend(name.map(|name| Request::DeleteMailbox {
                name,
                if_unused: false,
                if_empty: false,
            }));
        }
        if steps.is_empty() {
            let what = id.or(text).unwrap_or_default();
            let detail = format!(
                "UNSUBSCRIBE must refer to an existing subscription.\nSubscription to '{what}' not found."
            );
            return Err(Fault::new("No subscription found", detail));
        }
        let then = consumer.map_or(Then::Nothing, Then::Unsubscribed);
        self.run(steps, then, headers.get("receipt"), out);
        Ok(Flow::Later)
    }

    pub(super) fn ack(&mut self, frame: &Frame, out: &mut Outbox) -> Result<Flow, Fault> {
        self.settle(frame, Outcome::Accepted, out)
    }

    pub(super) fn nack(&mut self, frame: &Frame, out: &mut Outbox) -> Result<Flow, Fault> {
        let requeue = match frame.headers.get("requeue") {
            None => self.settings.nack_requeues,
            Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(Fault::invalid_header("NACK", "requeue")),
        };
        let delay_ms = match frame.headers.get("x-delay") {
            None => None,
            Some(text) => match text.trim().parse() {
                Ok(ms) if ms <= TIME_SPAN_MAX_MS => Some(ms),
                _ => return Err(Fault::invalid_header("NACK", "x-delay")),
            },
        };
        let returned = Outcome::Modified { delay_ms };
        let outcome = if requeue { returned } else { Outcome::Rejected };
        self.settle(frame, outcome, out)
    }

    fn settle(&mut self, frame: &Frame, outcome: Outcome, out: &mut Outbox) -> Result<Flow, Fault> {
        let (headers, command) = (&frame.headers, frame.command.to_string());
        let name = if self.encoder.version == Version::V12 { "id" } else { "message-id" };
        let id = headers.get(name).ok_or_else(|| Fault::missing_header(&command, name))?;
        let Some((tag, session, number)) = parse_message_id(id) else {
            return Err(Fault::invalid_header(&command, name));
        };
        let transaction = self.transactions.of(headers)?;
        let unknown = || {
            let detail = format!("Message with id \"{id}\" has no subscription");
            Fault::new("Subscription not found", detail)
        };
        let consumer = self.subscriptions.find(tag).ok_or_else(unknown)?;
        let subscription = self.subscriptions.get_mut(consumer).ok_or_else(unknown)?;
        // 1.1 wants the subscription named beside the message.
        let named = headers.get("subscription").filter(|_| name == "message-id");
        if named.is_some() && named != subscription.id.as_deref() {
            return Err(unknown());
        }
        if subscription.browses {
            return Ok(Flow::Done);
        }
        let taken = match session == self.session {
            true => subscription.take(number),
            false => Vec::new(),
        };
        if taken.is_empty() {
            let detail = format!("unknown delivery tag {number}");
            return Err(Fault::new("Message not found", detail));
        }
        match transaction {
            Some(name) => {
                let action = Action::Settle { consumer, deliveries: taken, outcome };
                self.add_to(name, action, out)?;
            }
            None => out.commands.push(Command::Settle(Held::settle(&taken, outcome))),
        }
        Ok(Flow::Done)
    }
}

fn is_durable(headers: &Headers) -> bool {
    flag(headers, "durable") || flag(headers, "persistent") || subscription_name(headers).is_some()
}

fn subscription_name(headers: &Headers) -> Option<(&'static str, &str)> {
    SUBSCRIPTION_NAMES.iter().find_map(|header| Some((*header, headers.get(header)?)))
}

fn checked_id<'a>(headers: &'a Headers, command: &str) -> Result<Option<&'a str>, Fault> {
    match headers.get("id") {
        Some(id) if id.starts_with(TEMP_QUEUE) => {
            let detail = format!("{command} 'id' may not start with {TEMP_QUEUE}");
            Err(Fault::new("Invalid id", detail))
        }
        id => Ok(id),
    }
}

fn checked_name(name: String, header: &str) -> Result<Name, Fault> {
    let odd = name.is_empty() || name.len() > Name::SIZE_MAX;
    if odd || name.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Fault::invalid_header("SUBSCRIBE", header));
    }
    Ok(name.into())
}

/// What the selector does not match stays in a queue, for others, and goes from a mailbox of the subscription's own.
fn selection(headers: &Headers, target: &Destination) -> Result<Option<Selection>, Fault> {
    let Some(text) = headers.get("selector").filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    let selector =
        Selector::parse(text).map_err(|error| Fault::new("Invalid selector", error.to_string()))?;
    let drops_others = matches!(target, Destination::Topic(_) | Destination::Exchange { .. });
    Ok(Some(Selection { selector: Arc::new(selector), drops_others }))
}

fn prefetch(headers: &Headers) -> Result<u32, Fault> {
    ["prefetch-count", "activemq.prefetchSize"]
        .into_iter()
        .find_map(|name| Some((name, headers.get(name)?)))
        .map_or(Ok(0), |(name, text)| {
            text.trim().parse().map_err(|_| Fault::invalid_header("SUBSCRIBE", name))
        })
}

/// RabbitMQ's name for the queue of a durable subscription, so that queues that came with imported
/// definitions are found again: the MD5 of Erlang's external form of both strings.
fn durable_name(key: &str, id: &str) -> Name {
    let mut term = vec![131, 104, 2];
    for text in [key, id] {
        match u16::try_from(text.len()) {
            Ok(0) => term.push(106),
            Ok(len) => {
                term.push(107);
                term.extend(len.to_be_bytes());
                term.extend(text.as_bytes());
            }
            Err(_) => {
                // A string this long is a list of small integers.
                term.push(108);
                term.extend((text.len() as u32).to_be_bytes());
                text.bytes().for_each(|byte| term.extend([97, byte]));
                term.push(106);
            }
        }
    }
    format!("stomp-subscription-{}", URL_SAFE_NO_PAD.encode(Md5::digest(&term))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_queues_have_names_that_last() {
        let name = durable_name("a.b", "0");
        assert_eq!(name, durable_name("a.b", "0"));
        assert_ne!(name, durable_name("a.b", "1"));
        assert_ne!(name, durable_name("a.c", "0"));
        assert_eq!(name.len(), "stomp-subscription-".len() + 22);
    }
}

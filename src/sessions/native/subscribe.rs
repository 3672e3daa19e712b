//! Subscriptions: each has a channel of its own, so that its credit and its leases are its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use pillarbox_native::{self as wire, Code};

use super::answer::Pending;
use super::open::Open;
use super::{MAIN, SILENT, table};
use crate::broker::selector::Selector;
use crate::broker::{
    ChannelId, Command, Consume, ConsumerId, Name, QosScope, Request, Selection, Table,
};
use crate::sessions::Outbox;

#[derive(Default)]
pub(super) struct Subscriptions(BTreeMap<ChannelId, Subscription>);

pub(super) struct Subscription {
    pub(super) mailbox: Name,
    /// Deliveries carry the message's id.
    pub(super) ids: bool,
}

impl Subscriptions {
    pub(super) fn get(&self, channel: ChannelId) -> Option<&Subscription> {
        self.0.get(&channel)
    }
}

impl Open {
    pub(super) fn subscribe(&mut self, id: u32, subscribe: &wire::Subscribe<'_>, out: &mut Outbox) {
        let channel = ChannelId(subscribe.subscription);
        if channel == MAIN || channel == SILENT || self.subscriptions.get(channel).is_some() {
            let text = "this number of a subscription is taken";
            return self.refuse(id, Code::NotAllowed, text, out);
        }
        let arguments = table::decode(subscribe.arguments);
        let selection = match selection(&arguments) {
            Ok(selection) => selection,
            Err(text) => return self.refuse(id, Code::Invalid, &text, out),
        };
        let mailbox: Name = subscribe.mailbox.into();
        let ids = subscribe.ids;
        self.subscriptions.0.insert(channel, Subscription { mailbox: mailbox.clone(), ids });
        // The channel's limit is the credit: it can be raised and lowered at any time.
        let qos = Request::Qos { limit: subscribe.credit, scope: QosScope::Channel };
        self.ask(channel, qos, Pending::Nothing, out);
        let consume = Consume {
            mailbox,
            // Unique in the connection, as leases are told apart by it.
            consumer: consumer_of(channel),
            tag: format!("subscription-{}", channel.0).into(),
            no_ack: subscribe.settled,
            exclusive: subscribe.exclusive,
            priority: subscribe.priority,
            prefetch: subscribe.credit,
            arguments,
            selection,
            bounded: false,
        };
        let pending = Pending::Subscribed { id, channel };
        self.ask(channel, Request::Consume(consume), pending, out);
    }

    pub(super) fn unsubscribe(
        &mut self,
        id: u32,
        unsubscribe: wire::Unsubscribe,
        out: &mut Outbox,
    ) {
        let channel = ChannelId(unsubscribe.subscription);
        if self.subscriptions.get(channel).is_none() {
            return self.refuse(id, Code::NotFound, "no such subscription", out);
        }
        let cancel = Request::Cancel(consumer_of(channel));
        if unsubscribe.keep {
            self.ask(channel, cancel, Pending::Done(id), out);
            return;
        }
        self.ask(channel, cancel, Pending::Nothing, out);
        // What the client never looked at has not failed.
        self.ask(channel, Request::Recover, Pending::Nothing, out);
        self.subscriptions.0.remove(&channel);
        self.close_channel(channel, Pending::Done(id), out);
    }

    /// The broker said no.
    pub(super) fn forget_subscription(&mut self, channel: ChannelId, out: &mut Outbox) {
        self.subscriptions.0.remove(&channel);
        self.close_channel(channel, Pending::Nothing, out);
    }

    fn close_channel(&mut self, channel: ChannelId, pending: Pending, out: &mut Outbox) {
        let ticket = self.expect(pending);
        out.commands.push(Command::CloseChannel(channel, ticket));
    }

    pub(super) fn credit(&mut self, id: u32, subscription: u16, credit: u32, out: &mut Outbox) {
        let channel = ChannelId(subscription);
        if self.subscriptions.get(channel).is_none() {
            return self.refuse(id, Code::NotFound, "no such subscription", out);
        }
        let raise = Request::Qos { limit: credit, scope: QosScope::NewConsumers };
        self.ask(channel, raise, Pending::Nothing, out);
        let qos = Request::Qos { limit: credit, scope: QosScope::Channel };
        let pending = if id == 0 { Pending::Nothing } else { Pending::Done(id) };
        self.ask(channel, qos, pending, out);
    }
}

/// The argument `selector`: only matching messages are taken, the others stay.
fn selection(arguments: &Table) -> Result<Option<Selection>, String> {
    let Some(value) = arguments.get("selector") else { return Ok(None) };
    let text = value.as_str().ok_or("a selector is a text")?;
    let selector = Selector::parse(text).map_err(|error| error.to_string())?;
    Ok(Some(Selection { selector: Arc::new(selector), drops_others: false }))
}

/// Above the numbers of pulls.
fn consumer_of(channel: ChannelId) -> ConsumerId {
    ConsumerId((1 << 31) + u32::from(channel.0))
}

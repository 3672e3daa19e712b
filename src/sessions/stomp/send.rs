//! SEND: a frame becomes a message.

use std::collections::VecDeque;
use std::sync::Arc;

use pillarbox_stomp::{Frame, Headers};

use super::arguments::queue_arguments;
use super::destination::{Destination, TEMP_QUEUE};
use super::error::Fault;
use super::headers::{deliver_at, expire, is_persistent, properties};
use super::open::{Flow, Open, Then};
use super::subscription::{AckMode, Subscription};
use super::transaction::Action;
use crate::broker::access::check_sender;
use crate::broker::{
    CONFIRM, CONFIRM_HOME, ChannelId, Command, Consume, DeclareMailbox, Message, NEUTRAL, Name,
    Publish, Repeat, Request, Source, Table, Time,
};
use crate::sessions::Outbox;

/// Where a destination leads. The last one is remembered: most clients send many messages to one.
#[derive(Clone)]
pub(super) struct Address {
    exchange: Name,
    key: Name,
    /// A queue of this name is declared first.
    declares: bool,
}

/// A message that is ready to go.
pub(super) struct Outgoing {
    message: Arc<Message>,
    receipt: Option<String>,
    /// The receipt waits for the message's home.
    home: bool,
    transaction: Option<String>,
}

impl Open {
    pub(super) fn send(
        &mut self,
        frame: &Frame,
        now: Time,
        out: &mut Outbox,
    ) -> Result<Flow, Fault> {
        let headers = &frame.headers;
        let address = self.address(headers)?;
        let mut properties = properties(headers)?;
        let mut deliver_at = deliver_at(headers, now)?;
        let repeat = Repeat::of(&properties);
        if let Some(repeat) = repeat.map_err(|name| Fault::invalid_header("SEND", name))?
            && deliver_at <= now
        {
            deliver_at = repeat.first(now);
        }
        expire(headers, now, &mut properties)?;
        check_sender(&self.user, self.impersonator, properties.user_id.as_deref())
            .map_err(|refusal| Fault::refused(&refusal))?;
        let transaction = self.transactions.of(headers)?;
        let mut steps = VecDeque::new();
        if address.declares {
            self.declare_once("SEND", &address.key, headers, &mut steps)?;
        }
        if let Some(temp) = headers.get("reply-to").and_then(|it| it.strip_prefix(TEMP_QUEUE)) {
            let mailbox = self.temp_queue(temp, &mut steps)?;
            properties.reply_to = Some(bytes::Bytes::copy_from_slice(mailbox.as_bytes()));
        }
        let mut message = Message::build(&Source {
            exchange: &address.exchange,
            key: address.key.as_bytes(),
            properties: &properties,
            body: &frame.body,
            form: &NEUTRAL,
            persistent: is_persistent(&properties),
            accepted: now,
        });
        message.deliver_at = deliver_at;
        let home = match headers.get(CONFIRM) {
            None => false,
            Some(CONFIRM_HOME) => true,
            Some(_) => return Err(Fault::invalid_header("SEND", CONFIRM)),
        };
        let outgoing = Outgoing {
            home,
            message: Arc::new(message),
            receipt: headers.get("receipt").map(str::to_owned),
            transaction: transaction.map(str::to_owned),
        };
        if steps.is_empty() {
            self.publish(outgoing, out)?;
        } else {
            self.run(steps, Then::Publish(outgoing), headers.get("receipt"), out);
        }
        Ok(Flow::Later)
    }

    /// Sends it on its way or adds it to its transaction.
    pub(super) fn publish(&mut self, outgoing: Outgoing, out: &mut Outbox) -> Result<(), Fault> {
        let Outgoing { message, receipt, home, transaction } = outgoing;
        match transaction {
            Some(name) => self.add_to(&name, Action::Send { message, receipt }, out),
            None => {
                let publish = self.publish_of(message, receipt, home);
                out.commands.push(Command::Publish(publish));
                self.note_publish();
                Ok(())
            }
        }
    }

    pub(super) fn publish_of(
        &mut self,
        message: Arc<Message>,
        receipt: Option<String>,
        home: bool,
    ) -> Publish {
        Publish {
            channel: ChannelId(0),
            message,
            more_keys: None,
            confirm: self.receipts.tag(receipt, home),
            mandatory: false,
            home,
        }
    }

    fn address(&mut self, headers: &Headers) -> Result<Address, Fault> {
        let text = destination(headers, "SEND")?;
        let hint = headers.get("destination-type");
        if let Some((last, address)) = &self.last_address
            && last == text
            && hint.is_none()
        {
            return Ok(address.clone());
        }
        let (exchange, key, declares) = match Destination::hinted(text, hint)? {
            Destination::Queue(name) => (self.default_exchange.clone(), name, true),
            Destination::AmqQueue(name) | Destination::ReplyQueue(name) => {
                (self.default_exchange.clone(), name, false)
            }
            Destination::Topic(key) => (self.topic_exchange.clone(), key.into(), false),
            Destination::Exchange { name, key } => (name, key.unwrap_or_default().into(), false),
            Destination::TempQueue(_) => return Err(not_for("SEND", text)),
        };
        let address = Address { exchange, key, declares };
        self.last_address = hint.is_none().then(|| (text.to_owned(), address.clone()));
        Ok(address)
    }

    /// Declares the queue of a `/queue` destination at its first use in this session.
    pub(super) fn declare_once(
        &mut self,
        command: &str,
        name: &Name,
        headers: &Headers,
        steps: &mut VecDeque<Request>,
    ) -> Result<(), Fault> {
        if self.declared.contains(name) {
            return Ok(());
        }
        let arguments = queue_arguments(command, headers)?;
        if self.declared.len() >= self.settings.declared_max {
            self.declared.clear();
        }
        self.declared.insert(name.clone());
        steps.push_back(Request::DeclareMailbox(DeclareMailbox {
            name: name.clone(),
            passive: false,
            durable: true,
            exclusive: super::headers::flag(headers, "exclusive"),
            auto_delete: super::headers::flag(headers, "auto-delete"),
            arguments,
            generated: false,
        }));
        Ok(())
    }

    /// The session's own queue for answers, by the name that the client gave it.
    fn temp_queue(&mut self, name: &str, steps: &mut VecDeque<Request>) -> Result<Name, Fault> {
        if let Some(mailbox) = self.temp_queues.get(name) {
            return Ok(mailbox.clone());
        }
        let most = self.settings.temp_queues_max;
        if self.temp_queues.len() >= most {
            let detail = format!("A connection has at most {most} temporary queues");
            return Err(Fault::fatal("Too many temporary queues", detail));
        }
        let mailbox = self.random.name("amq.gen-");
        self.temp_queues.insert(name.to_owned(), mailbox.clone());
        let id = format!("{TEMP_QUEUE}{name}");
        let consumer = self.consumer();
        let tag = super::subscription::tag(Some(&id), "");
        let prefix = self.message_prefix(&tag);
        let subscription = Subscription::new(Some(&id), &id, AckMode::Auto, prefix);
        self.subscriptions.add(tag, consumer, subscription);
        steps.push_back(Request::DeclareMailbox(DeclareMailbox {
            name: mailbox.clone(),
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: true,
            arguments: Table::new(),
            generated: true,
        }));
        steps.push_back(Request::Consume(Consume {
            mailbox: mailbox.clone(),
            consumer,
            tag: id.into(),
            no_ack: true,
            exclusive: false,
            priority: 0,
            prefetch: 0,
            arguments: Table::new(),
            selection: None,
            bounded: false,
        }));
        Ok(mailbox)
    }
}

pub(super) fn destination<'a>(headers: &'a Headers, command: &str) -> Result<&'a str, Fault> {
    headers.get("destination").ok_or_else(|| {
        let detail = format!("\"{command}\" must include a 'destination' header");
        Fault::new("Missing destination", detail)
    })
}

pub(super) fn not_for(command: &str, destination: &str) -> Fault {
    let detail = format!("'{destination}' is not a valid destination for \"{command}\"");
    Fault::new("Invalid destination", detail)
}

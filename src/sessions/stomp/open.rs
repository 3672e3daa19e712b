//! A conversation after login: frames in, and what the broker answers.
//!
//! Frames are done one after the other. One that needs the broker's answer (a queue to declare, a subscription
//! to start) holds those behind it back, so that a client may send to what it has just subscribed to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use pillarbox_stomp::{Command as Verb, Encoder, Frame, ServerCommand};

use super::browse::Looking;
use super::connect::Login;
use super::error::Fault;
use super::headers::MessageFrame;
use super::receipts::Receipts;
use super::send::{Address, Outgoing};
use super::settings::Settings;
use super::subscription::{AckMode, Held, Subscriptions};
use super::transaction::Transactions;
use crate::broker::{
    Cause, ChannelId, Command, ConsumerId, Delivery, Event, Name, Outcome, Refusal, Request,
    Ticket, Time,
};
use crate::sessions::Outbox;
use crate::sessions::random::Random;

/// The open conversation, as its frames see it.
pub(super) struct Open {
    pub(super) settings: Arc<Settings>,
    pub(super) encoder: Encoder,
    pub(super) user: Name,
    /// May set the user-id of a message to somebody else.
    pub(super) impersonator: bool,
    pub(super) client_id: Option<String>,
    /// What the client knows this conversation by.
    pub(super) session: String,
    pub(super) random: Random,
    pub(super) default_exchange: Name,
    pub(super) topic_exchange: Name,
    pub(super) last_address: Option<(String, Address)>,
    pub(super) subscriptions: Subscriptions,
    pub(super) receipts: Receipts,
    pub(super) transactions: Transactions,
    /// Receipts of COMMIT frames that the broker works on.
    pub(super) commits: BTreeMap<Ticket, Option<String>>,
    /// Queues declared in this session.
    pub(super) declared: BTreeSet<Name>,
    /// By the client's name.
    pub(super) temp_queues: BTreeMap<String, Name>,
    /// Looks into queues that the broker works on.
    pub(super) looking: BTreeMap<Ticket, Looking>,
    pipeline: Option<Pipeline>,
    alarm: Alarm,
    tickets: u64,
    consumers: u32,
    /// Messages given to the client so far.
    delivered: u64,
    /// Headers that no MESSAGE could carry.
    pub(super) unwritten: usize,
    pub(super) scratch: String,
}

/// What follows a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is done, and its receipt is due.
    Done,
    /// Its receipt comes later, or with the message's confirm.
    Later,
    /// The client wants to go.
    Leave,
}

/// A frame that takes several requests, one after the other: a refusal ends it.
struct Pipeline {
    ticket: Ticket,
    rest: VecDeque<Request>,
    then: Then,
    receipt: Option<String>,
}

/// What is done when a pipeline has come to its end.
pub(super) enum Then {
    Nothing,
    Publish(Outgoing),
    Unsubscribed(ConsumerId),
    Look(Looking),
}

/// The broker asks publishers to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    Off,
    On,
    /// The client sent something: its socket is not read.
    Stopped,
}

impl Open {
    pub(super) fn new(
        login: Login,
        session: String,
        random: Random,
        encoder: Encoder,
        tickets: u64,
        settings: Arc<Settings>,
    ) -> Self {
        let impersonator = login.credential.is_some_and(|it| it.may_impersonate());
        Self {
            encoder,
            user: login.user,
            impersonator,
            client_id: login.client_id,
            session,
            random,
            default_exchange: "".into(),
            topic_exchange: settings.topic_exchange.as_str().into(),
            last_address: None,
            subscriptions: Subscriptions::default(),
            receipts: Receipts::default(),
            transactions: Transactions::default(),
            commits: BTreeMap::new(),
            declared: BTreeSet::new(),
            temp_queues: BTreeMap::new(),
            looking: BTreeMap::new(),
            pipeline: None,
            alarm: if login.blocked.is_some() { Alarm::On } else { Alarm::Off },
            tickets,
            consumers: 0,
            delivered: 0,
            unwritten: 0,
            scratch: String::new(),
            settings,
        }
    }

    /// No further frame may be looked at for now.
    pub(super) fn is_held(&self) -> bool {
        self.pipeline.is_some() || self.alarm == Alarm::Stopped
    }

    pub(super) fn frame(
        &mut self,
        frame: &Frame,
        now: Time,
        out: &mut Outbox,
    ) -> Result<Flow, Fault> {
        match frame.command {
            Verb::Send => self.send(frame, now, out),
            Verb::Subscribe => self.subscribe(frame, out),
            Verb::Unsubscribe => self.unsubscribe(frame, out),
            Verb::Ack => self.ack(frame, out),
            Verb::Nack => self.nack(frame, out),
            Verb::Begin => self.begin(frame),
            Verb::Commit => self.commit(frame, out),
            Verb::Abort => self.abort(frame, out),
            Verb::Disconnect => Ok(Flow::Leave),
            Verb::Connect | Verb::Stomp => {
                let detail = format!("Could not interpret command \"{}\"", frame.command);
                Err(Fault::fatal("Bad command", detail))
            }
        }
    }

    pub(super) fn event(&mut self, event: Event, out: &mut Outbox) -> Result<(), Fault> {
        match event {
            Event::Delivered(delivery) => self.deliver(&delivery, out),
            Event::DeliveredBatch(batch) => {
                batch.iter().for_each(|delivery| self.deliver(delivery, out));
            }
            Event::Confirmed { tag, taken, .. } => {
                if let Some(receipt) = self.receipts.settle(tag) {
                    if !taken {
                        let detail = "A queue refused the message";
                        return Err(
                            Fault::new("Message refused", detail).with_receipt(Some(&receipt))
                        );
                    }
                    self.receipt(&receipt, out);
                }
            }
            Event::Reply { ticket, result, .. } => {
                return match self.looking.remove(&ticket) {
                    Some(looking) => self.looked(looking, result, out),
                    None => self.replied(ticket, result.err(), out),
                };
            }
            Event::Refused { cause: Cause::Publish, refusal, .. } => {
                let receipt = self.receipts.refused();
                return Err(Fault::refused(&refusal).with_receipt(receipt.as_deref()));
            }
            Event::Refused { cause: Cause::Settle, refusal, .. } => {
                return Err(Fault::new("Message not found", refusal.to_string()));
            }
            Event::Cancelled { consumer, .. } | Event::Finished { consumer, .. } => {
                return self.cancelled(consumer);
            }
            Event::Blocked(reason) => {
                self.alarm = match (self.alarm, reason) {
                    (_, None) => Alarm::Off,
                    (Alarm::Off, Some(_)) => Alarm::On,
                    (alarm, Some(_)) => alarm,
                }
            }
            Event::ForceClose(reason) => {
                let detail = format!("CONNECTION_FORCED - {reason}");
                return Err(Fault::fatal("connection_forced", detail));
            }
            Event::Refused { cause: Cause::Timeout, .. }
            | Event::Returned { .. }
            | Event::Closed(_)
            | Event::Peer(_)
            | Event::BatchConfirmed { .. } => {}
        }
        Ok(())
    }

    pub(super) fn receipt(&self, receipt: &str, out: &mut Outbox) {
        let mut frame = self.encoder.begin(&mut out.wire, ServerCommand::Receipt);
        frame.header("receipt-id", receipt);
        frame.finish(b"");
    }

    /// Asks the broker; the answer comes with the ticket.
    pub(super) fn ask(&mut self, request: Request, out: &mut Outbox) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        out.commands.push(Command::Request(ChannelId(0), ticket, Box::new(request)));
        ticket
    }

    /// Asks one thing after the other, and does what is to be done then.
    pub(super) fn run(
        &mut self,
        mut steps: VecDeque<Request>,
        then: Then,
        receipt: Option<&str>,
        out: &mut Outbox,
    ) {
        let Some(first) = steps.pop_front() else { return };
        let ticket = self.ask(first, out);
        let receipt = receipt.map(str::to_owned);
        self.pipeline = Some(Pipeline { ticket, rest: steps, then, receipt });
    }

    fn replied(
        &mut self,
        ticket: Ticket,
        refusal: Option<Refusal>,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if let Some(receipt) = self.commits.remove(&ticket) {
            return match refusal {
                Some(refusal) => Err(Fault::refused(&refusal).with_receipt(receipt.as_deref())),
                None => {
                    receipt.iter().for_each(|receipt| self.receipt(receipt, out));
                    Ok(())
                }
            };
        }
        let Some(mut pipeline) = self.pipeline.take_if(|it| it.ticket == ticket) else {
            return Ok(());
        };
        if let Some(refusal) = refusal {
            return Err(Fault::refused(&refusal).with_receipt(pipeline.receipt.as_deref()));
        }
        if let Some(next) = pipeline.rest.pop_front() {
            pipeline.ticket = self.ask(next, out);
            self.pipeline = Some(pipeline);
            return Ok(());
        }
        match pipeline.then {
            // The receipt comes with the confirm.
            Then::Publish(outgoing) => {
                return self
                    .publish(outgoing, out)
                    .map_err(|fault| fault.with_receipt(pipeline.receipt.as_deref()));
            }
            Then::Unsubscribed(consumer) => {
                if let Some(mut subscription) = self.subscriptions.remove(consumer) {
                    self.release(&subscription.take_all(), out);
                }
            }
            // The receipt comes with what is found first.
            Then::Look(looking) => {
                self.look(looking, out);
                return Ok(());
            }
            Then::Nothing => {}
        }
        if let Some(receipt) = pipeline.receipt {
            self.receipt(&receipt, out);
        }
        Ok(())
    }

    fn deliver(&mut self, delivery: &Delivery, out: &mut Outbox) {
        out.deliveries += 1;
        out.delivery_bytes += delivery.message.size() as u64;
        let number = self.next_number();
        let held = Held { number, mailbox: delivery.mailbox, seq: delivery.seq };
        let Some(subscription) = self.subscriptions.get_mut(delivery.consumer) else {
            // It was on its way while the subscription ended.
            if !delivery.settled {
                self.release(&[held], out);
            }
            return;
        };
        let message_id = format!("{}{}", subscription.message_prefix, held.number);
        let acknowledged = subscription.mode != AckMode::Auto && !delivery.settled;
        if acknowledged {
            subscription.hold(held);
        }
        let frame = MessageFrame {
            subscription: subscription.id.as_deref(),
            message_id: &message_id,
            with_ack: acknowledged && self.encoder.version == pillarbox_stomp::Version::V12,
            topic_exchange: &self.topic_exchange,
            delivery,
        };
        self.unwritten += frame.encode(self.encoder, &mut self.scratch, &mut out.wire);
    }

    /// For the id of what is given to the client next.
    pub(super) fn next_number(&mut self) -> u64 {
        self.delivered += 1;
        self.delivered
    }

    fn cancelled(&mut self, consumer: ConsumerId) -> Result<(), Fault> {
        let Some(subscription) = self.subscriptions.remove(consumer) else { return Ok(()) };
        // A temporary queue is made anew when it is needed again; so is a declared one.
        self.temp_queues
            .retain(|name, _| format!("/temp-queue/{name}") != subscription.destination);
        self.declared.clear();
        let detail = format!(
            "The server has canceled a subscription.\nNo more messages will be delivered for {}.",
            subscription.description()
        );
        let fault = Fault::new("Server cancelled subscription", detail);
        Err(fault.with_subscription(subscription.id.as_deref()))
    }

    fn release(&self, deliveries: &[Held], out: &mut Outbox) {
        if !deliveries.is_empty() {
            let settle = Held::settle(deliveries, Outcome::Released);
            out.commands.push(Command::Settle(settle));
        }
    }

    /// Something was published: with the alarm on, it is the last for a while.
    pub(super) fn note_publish(&mut self) {
        if self.alarm == Alarm::On {
            self.alarm = Alarm::Stopped;
        }
    }

    pub(super) fn consumer(&mut self) -> ConsumerId {
        self.consumers += 1;
        ConsumerId(self.consumers)
    }

    pub(super) fn message_prefix(&self, tag: &str) -> String {
        format!("{tag}@@{}@@", self.session)
    }
}

//! SUBSCRIBE with `browser:true`: what is ready in a queue is shown and stays. As ActiveMQ does it, a MESSAGE with
//! `browser:end` and no body comes behind the last one.

use pillarbox_stomp::{Headers, ServerCommand};

use super::destination::Destination;
use super::error::Fault;
use super::headers::{MessageFrame, flag};
use super::open::Open;
use crate::broker::{
    Browse, Browsed, ChannelId, ConsumerId, Delivery, Found, MailboxId, Name, Refusal, Reply,
    Request, Selection, State, States,
};
use crate::sessions::Outbox;

/// One step of looking.
const STEP_COUNT: usize = 256;
const STEP_BYTES: u64 = 1 << 20;

/// A look that the broker works on.
#[derive(Clone, Debug)]
pub(super) struct Looking {
    /// The subscription.
    consumer: ConsumerId,
    browse: Browse,
    /// Due with the first step.
    receipt: Option<String>,
}

pub(super) fn is_browser(headers: &Headers, target: &Destination) -> Result<bool, Fault> {
    match (flag(headers, "browser"), target) {
        (true, Destination::Queue(_) | Destination::AmqQueue(_)) => Ok(true),
        (true, _) => {
            let detail = "Only a queue can be browsed";
            Err(Fault::new("Invalid header", detail))
        }
        (false, _) => Ok(false),
    }
}

impl Looking {
    pub(super) fn new(
        consumer: ConsumerId,
        mailbox: Name,
        selection: Option<Selection>,
        receipt: Option<&str>,
    ) -> Self {
        let browse = Browse {
            mailbox,
            states: States::only(State::Ready),
            selector: selection.map(|it| it.selector),
            after: None,
            count: STEP_COUNT,
            bytes_max: STEP_BYTES,
        };
        Self { consumer, browse, receipt: receipt.map(str::to_owned) }
    }
}

impl Open {
    pub(super) fn look(&mut self, looking: Looking, out: &mut Outbox) {
        let ticket = self.ask(Request::Browse(looking.browse.clone()), out);
        self.looking.insert(ticket, looking);
    }

    /// Shows what a step found, and asks for the next one. It is not answered before the socket took this one.
    pub(super) fn looked(
        &mut self,
        mut looking: Looking,
        result: Result<Reply, Refusal>,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let browsed = match result {
            Ok(Reply::Browsed(browsed)) => browsed,
            Ok(_) => return Ok(()),
            Err(refusal) => {
                self.subscriptions.remove(looking.consumer);
                let fault = Fault::refused(&refusal);
                return Err(fault.with_receipt(looking.receipt.as_deref()));
            }
        };
        if let Some(receipt) = looking.receipt.take() {
            self.receipt(&receipt, out);
        }
        let Browsed { found, next, .. } = browsed;
        for found in found {
            self.show(looking.consumer, found, out);
        }
        // Unsubscribed meanwhile.
        if self.subscriptions.get_mut(looking.consumer).is_none() {
            return Ok(());
        }
        match next {
            Some(_) => {
                looking.browse.after = next;
                self.look(looking, out);
            }
            None => self.show_end(looking.consumer, out),
        }
        Ok(())
    }

    fn show(&mut self, consumer: ConsumerId, found: Found, out: &mut Outbox) {
        let number = self.next_number();
        let Some(subscription) = self.subscriptions.get_mut(consumer) else { return };
        let message_id = format!("{}{number}", subscription.message_prefix);
        let delivery = Delivery {
            channel: ChannelId(0),
            consumer,
            mailbox: MailboxId(0),
            seq: found.at.seq,
            message: found.message,
            redelivered: found.rest.redelivered,
            attempts: found.attempts,
            acquired: 0,
            offset: found.offset,
            settled: true,
        };
        let frame = MessageFrame {
            subscription: subscription.id.as_deref(),
            message_id: &message_id,
            with_ack: false,
            topic_exchange: &self.topic_exchange,
            delivery: &delivery,
        };
        self.unwritten += frame.encode(self.encoder, &mut self.scratch, &mut out.wire);
    }

    fn show_end(&mut self, consumer: ConsumerId, out: &mut Outbox) {
        let number = self.next_number();
        let Some(subscription) = self.subscriptions.get_mut(consumer) else { return };
        let mut frame = self.encoder.begin(&mut out.wire, ServerCommand::Message);
        if let Some(id) = &subscription.id {
            frame.header("subscription", id);
        }
        frame.header("destination", &subscription.destination);
        frame.header("message-id", &format!("{}{number}", subscription.message_prefix));
        frame.header("browser", "end");
        frame.finish(b"");
    }
}

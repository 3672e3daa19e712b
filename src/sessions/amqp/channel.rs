//! A channel: one conversation inside the connection, with its own deliveries, confirms and mode.
//!
//! Knows the order of answers. Which channels there are is known by `open`.

use std::collections::VecDeque;

use pillarbox_amqp::{
    Method, ReplyCode, ShortString, encode_content, encode_get_ok, encode_return,
};

use super::confirm::Confirms;
use super::consume::Consumers;
use super::line::Line;
use super::properties;
use super::publish::Assembly;
use super::reply::{Fault, Ids};
use super::transaction::Transaction;
use super::unsettled::{Held, Unsettled};
use crate::broker::{
    ChannelId, Command, ConsumerId, Delivery, Message, Name, Refusal, Reply, Request, Ticket,
};
use crate::sessions::Outbox;

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: ChannelId,
    /// Answers that the client waits for, in the order of its questions.
    pending: VecDeque<Pending>,
    pub(super) mode: Mode,
    /// A publish whose content is not complete.
    pub(super) assembly: Option<Box<Assembly>>,
    /// Of the last publish: the next one mostly names it again.
    pub(super) exchange: Name,
    /// Declared last; an empty name means it.
    pub(super) mailbox: Option<Name>,
    /// For consumers that start from now on.
    pub(super) prefetch: u32,
    pub(super) consumers: Consumers,
    pub(super) unsettled: Unsettled,
    /// The last delivery tag.
    pub(super) tag: u64,
    /// Where answers to this channel's direct requests go.
    pub(super) reply_to: Option<ReplyTo>,
    /// A fault waits behind answers, or the client closed: what comes is not read.
    pub(super) ended: bool,
}

/// The ids of channel.open.
const OPEN: Ids = (20, 10);
/// The ids of channel.close.
const CLOSE: Ids = (20, 40);

/// What acknowledgements mean on the channel.
#[derive(Debug)]
pub(super) enum Mode {
    Plain,
    Confirm(Confirms),
    Transaction(Transaction),
}

/// The consumer of `amq.rabbitmq.reply-to` and the address that stands for it.
#[derive(Debug)]
pub(super) struct ReplyTo {
    pub(super) consumer: ConsumerId,
    pub(super) address: ShortString,
}

/// A question of the client. It is answered when its own answer and all before it are there.
#[derive(Debug)]
struct Pending {
    /// What the broker was asked under; `None` where it was not asked.
    ticket: Option<Ticket>,
    ids: Ids,
    then: Then,
    answer: Option<Reply>,
}

impl Pending {
    fn asked(ticket: Ticket, ids: Ids, then: Then) -> Self {
        Self { ticket: Some(ticket), ids, then, answer: None }
    }

    fn answered(then: Then) -> Self {
        Self { ticket: None, ids: (0, 0), then, answer: Some(Reply::Done) }
    }
}

/// What the client hears when the broker has answered.
#[derive(Debug)]
pub(super) enum Then {
    Silence,
    Say(Method),
    DeclareOk,
    DeleteOk,
    PurgeOk,
    ConsumeOk(ConsumerId),
    CancelOk {
        consumer: ConsumerId,
        tag: ShortString,
        nowait: bool,
    },
    Got {
        no_ack: bool,
    },
    /// The channel's close-ok.
    CloseOk,
    Fail(Fault),
}

impl Channel {
    pub(super) fn new(id: ChannelId) -> Self {
        Self {
            id,
            pending: VecDeque::new(),
            mode: Mode::Plain,
            assembly: None,
            exchange: Name::from(""),
            mailbox: None,
            prefetch: 0,
            consumers: Consumers::default(),
            unsettled: Unsettled::default(),
            tag: 0,
            reply_to: None,
            ended: false,
        }
    }

    /// The client closed it and may open it again before the answer came.
    pub(super) fn is_closing(&self) -> bool {
        self.ended && self.pending.iter().any(|it| matches!(it.then, Then::CloseOk))
    }

    /// Opens again while close-ok is still to come: the new answers wait behind it.
    pub(super) fn reopen(&mut self, line: &mut Line, out: &mut Outbox) {
        let pending = std::mem::take(&mut self.pending);
        *self = Self { pending, ..Self::new(self.id) };
        self.open(line, out);
    }

    /// The broker counts the channels of each user.
    pub(super) fn open(&mut self, line: &mut Line, out: &mut Outbox) {
        self.ask(Request::OpenChannel, OPEN, Then::Say(Method::ChannelOpenOk), line, out);
    }

    /// Answers now, or as soon as those before it are answered.
    pub(super) fn say(&mut self, method: Method, out: &mut Outbox) {
        if self.pending.is_empty() {
            method.encode(self.id.0, &mut out.wire);
        } else {
            self.pending.push_back(Pending::answered(Then::Say(method)));
        }
    }

    /// Asks the broker; the client is answered when the broker is done.
    pub(super) fn ask(
        &mut self,
        request: Request,
        ids: Ids,
        then: Then,
        line: &mut Line,
        out: &mut Outbox,
    ) {
        let ticket = line.ticket();
        out.commands.push(Command::Request(self.id, ticket, Box::new(request)));
        self.pending.push_back(Pending::asked(ticket, ids, then));
    }

    /// The client closes: close-ok once the broker has taken everything back.
    pub(super) fn close(&mut self, line: &mut Line, out: &mut Outbox) -> Ticket {
        let ticket = line.ticket();
        out.commands.push(Command::CloseChannel(self.id, ticket));
        // A fault that has not been said need not be said any more.
        self.pending.retain(|it| !matches!(it.then, Then::Fail(_)));
        self.pending.push_back(Pending::asked(ticket, CLOSE, Then::CloseOk));
        self.abandon_content(line);
        self.ended = true;
        ticket
    }

    /// A fault that must wait for earlier answers. Gives it back where there are none.
    pub(super) fn fail(&mut self, fault: Fault) -> Option<Fault> {
        self.ended = true;
        if self.pending.is_empty() {
            return Some(fault);
        }
        self.pending.push_back(Pending::answered(Then::Fail(fault)));
        None
    }

    /// The broker answered. `Err` closes the channel; `Ok(true)` says that its close is answered.
    pub(super) fn reply(
        &mut self,
        ticket: Ticket,
        result: Result<Reply, Refusal>,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<bool, Fault> {
        let Some(at) = self.pending.iter().position(|it| it.ticket == Some(ticket)) else {
            return Ok(false);
        };
        self.flush_confirms(out);
        let asked = &mut self.pending[at];
        let reply = result.map_err(|refusal| Fault::refused(&refusal, self.id, asked.ids))?;
        asked.answer = Some(reply);
        if matches!(asked.then, Then::CloseOk) {
            // A get that waits for the disk may never be answered now.
            self.pending.drain(..at);
        }
        let mut closed = false;
        while let Some(reply) = self.pending.front_mut().and_then(|next| next.answer.take())
            && let Some(next) = self.pending.pop_front()
        {
            closed |= self.answer(next.then, reply, line, out)?;
        }
        Ok(closed)
    }

    fn answer(
        &mut self,
        then: Then,
        reply: Reply,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<bool, Fault> {
        let method = match (then, reply) {
            (Then::Silence, _) => return Ok(false),
            (Then::Fail(fault), _) => return Err(fault),
            (Then::Say(method), _) => method,
            (Then::CloseOk, _) => {
                Method::ChannelCloseOk.encode(self.id.0, &mut out.wire);
                return Ok(true);
            }
            (Then::DeclareOk, Reply::Declared { name, ready, consumers }) => {
                Method::QueueDeclareOk {
                    queue: ShortString::truncated(&name),
                    message_count: saturate(ready),
                    consumer_count: consumers,
                }
            }
            (Then::DeleteOk, Reply::Counted(count)) => {
                Method::QueueDeleteOk { message_count: saturate(count) }
            }
            (Then::PurgeOk, Reply::Counted(count)) => {
                Method::QueuePurgeOk { message_count: saturate(count) }
            }
            (Then::ConsumeOk(consumer), _) => {
                self.consume_ok(consumer, line, out);
                return Ok(false);
            }
            (Then::CancelOk { consumer, tag, nowait }, _) => {
                self.consumers.remove(consumer);
                if self.reply_to.as_ref().is_some_and(|it| it.consumer == consumer) {
                    self.reply_to = None;
                }
                if nowait {
                    return Ok(false);
                }
                Method::BasicCancelOk { consumer_tag: tag }
            }
            (Then::Got { .. }, Reply::Got(None)) => Method::BasicGetEmpty,
            (Then::Got { no_ack }, Reply::Got(Some(got))) => {
                self.got(&got.0, got.1, no_ack, line, out);
                return Ok(false);
            }
            (Then::DeclareOk | Then::DeleteOk | Then::PurgeOk | Then::Got { .. }, reply) => {
                let text = format!("unexpected answer {reply:?}");
                return Err(Fault::new(ReplyCode::INTERNAL_ERROR, text, (0, 0)));
            }
        };
        method.encode(self.id.0, &mut out.wire);
        Ok(false)
    }

    fn got(
        &mut self,
        delivery: &Delivery,
        ready: u64,
        no_ack: bool,
        line: &Line,
        out: &mut Outbox,
    ) {
        self.tag += 1;
        if !no_ack {
            let Delivery { mailbox, seq, .. } = *delivery;
            self.unsettled.push(Held { tag: self.tag, mailbox, seq });
        }
        let message = &delivery.message;
        encode_get_ok(
            &mut out.wire,
            self.id.0,
            self.tag,
            delivery.redelivered,
            message.exchange().as_bytes(),
            message.key(),
            saturate(ready),
        );
        write_content(self.id.0, delivery, line, out);
    }

    /// A mandatory message comes back.
    pub(super) fn returned(&self, message: &Message, line: &Line, out: &mut Outbox) {
        encode_return(
            &mut out.wire,
            self.id.0,
            ReplyCode::NO_ROUTE.number(),
            ReplyCode::NO_ROUTE.name().as_bytes(),
            message.exchange().as_bytes(),
            message.key(),
        );
        let raw = message.property_bytes();
        encode_content(&mut out.wire, self.id.0, raw, message.body(), line.frame_max);
    }

    pub(super) fn confirmed(&mut self, tag: u64, taken: bool, line: &mut Line) {
        if let Mode::Confirm(confirms) = &mut self.mode {
            confirms.settle(tag, taken);
            if line.unsaid.last() != Some(&self.id.0) {
                line.unsaid.push(self.id.0);
            }
        }
    }

    pub(super) fn flush_confirms(&mut self, out: &mut Outbox) {
        if let Mode::Confirm(confirms) = &mut self.mode {
            confirms.flush(self.id.0, &mut out.wire);
        }
    }
}

/// Writes the content of a delivery behind its method.
#[inline]
pub(super) fn write_content(channel: u16, delivery: &Delivery, line: &Line, out: &mut Outbox) {
    let message = &delivery.message;
    match properties::of_delivery(delivery) {
        None => encode_content(
            &mut out.wire,
            channel,
            message.property_bytes(),
            message.body(),
            line.frame_max,
        ),
        Some(changed) => {
            encode_content(&mut out.wire, channel, &changed, message.body(), line.frame_max);
        }
    }
}

fn saturate(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

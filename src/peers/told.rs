//! What clients are told by another host, between the core's words and the wire's.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pillarbox_native::{
    Answer, Ended, FLAG_MORE, FoundRef, Frame, Given, GivenBatch, GivenRef, HolderRef, Kind,
    Malformed, ResultRef,
};

use super::message::{Reception, Unfit, forwarded};
use super::refusal;
use crate::broker::{
    Bookmark, Browsed, Cause, ChannelId, ConnectionId, ConsumerId, Delivery, Event, Found,
    HolderView, MailboxId, Name, Reply, Rest, Seq, Ticket, Time,
};

/// A frame is ended once it has so many bytes.
const FRAME_SIZE: usize = 128 << 10;
/// Of an answer in pieces, with the last message left out.
const FOUND_BYTES_MAX: usize = 32 << 20;
/// Positions beyond this do not exist.
pub(super) const SEQ_MAX: u64 = 1 << 62;

/// What a client of the other host is told, as frames.
pub(super) fn write_told(visit: u32, event: Event, scratch: &mut Vec<u8>, out: &mut BytesMut) {
    match event {
        Event::Delivered(_) | Event::DeliveredBatch(_) => {
            write_deliveries(visit, event.deliveries(), scratch, out);
        }
        Event::Reply { channel, ticket, result } => match result {
            Ok(Reply::Browsed(browsed)) => {
                write_browsed(visit, (channel, ticket), &browsed, scratch, out);
            }
            result => write_answer(visit, (channel, ticket), result, scratch, out),
        },
        Event::Refused { channel, cause, refusal } => refusal::write(&refusal, |no| {
            let timeout = cause == Cause::Timeout;
            Ended::Refused { channel: channel.0, timeout, no }.encode(visit, out);
        }),
        Event::Cancelled { channel, consumer } => {
            Ended::Consumer { channel: channel.0, consumer: consumer.0 }.encode(visit, out);
        }
        Event::Finished { channel, consumer } => {
            Ended::Finished { channel: channel.0, consumer: consumer.0 }.encode(visit, out);
        }
        Event::ForceClose(reason) => Ended::Visit { reason: &reason }.encode(visit, out),
        _ => {}
    }
}

fn write_answer(
    visit: u32,
    (channel, ticket): (ChannelId, Ticket),
    result: Result<Reply, crate::broker::Refusal>,
    scratch: &mut Vec<u8>,
    out: &mut BytesMut,
) {
    let mut answer = |result: ResultRef<'_>| {
        Answer { channel: channel.0, ticket: ticket.0, result }.encode(visit, out);
    };
    match result {
        Ok(Reply::Declared { ready, consumers, .. }) => {
            answer(ResultRef::Declared { ready, consumers });
        }
        Ok(Reply::Counted(count)) => answer(ResultRef::Counted(count)),
        Ok(Reply::Got(None)) => answer(ResultRef::GotNothing),
        Ok(Reply::Got(Some(got))) => {
            let (delivery, left) = *got;
            let message = Box::new(given(&delivery, scratch));
            answer(ResultRef::Got { mailbox: delivery.mailbox.0, left, message });
        }
        // Nothing that is asked from afar is answered with anything else.
        Ok(_) => answer(ResultRef::Done),
        Err(refusal) => refusal::write(&refusal, |no| answer(ResultRef::No(no))),
    }
}

fn given<'a>(delivery: &'a Delivery, scratch: &'a mut Vec<u8>) -> GivenRef<'a> {
    GivenRef {
        message: forwarded(&delivery.message, delivery.seq, delivery.redelivered, scratch),
        settled: delivery.settled,
        acquired: delivery.acquired,
        attempts: delivery.attempts,
        offset: delivery.offset,
    }
}

fn write_deliveries(
    visit: u32,
    deliveries: &[Delivery],
    scratch: &mut Vec<u8>,
    out: &mut BytesMut,
) {
    let place = |it: &Delivery| (it.channel, it.consumer, it.mailbox);
    for group in deliveries.chunk_by(|a, b| place(a) == place(b)) {
        let mut rest = group.iter().peekable();
        while let Some(first) = rest.peek() {
            let (channel, consumer, mailbox) = place(first);
            let mut batch = GivenBatch::begin(visit, channel.0, consumer.0, mailbox.0, out);
            while batch.size(out) < FRAME_SIZE
                && let Some(delivery) = rest.next()
            {
                batch.add(&given(delivery, scratch), out);
            }
            batch.end(out);
        }
    }
}

fn write_browsed(
    visit: u32,
    (channel, ticket): (ChannelId, Ticket),
    browsed: &Browsed,
    scratch: &mut Vec<u8>,
    out: &mut BytesMut,
) {
    let next = browsed.next.map(|place| place.to_string()).unwrap_or_default();
    let mut rest = browsed.found.iter().peekable();
    loop {
        let answered = (channel.0, ticket.0);
        let mut batch = GivenBatch::browsed(visit, answered, browsed.ready, &next, out);
        while batch.size(out) < FRAME_SIZE
            && let Some(it) = rest.next()
        {
            let place = it.at.to_string();
            let holder = it.holder.as_ref().map(|it| HolderRef {
                connection: it.connection.0,
                channel: it.channel.0,
                tag: it.tag.as_deref(),
                since_ms: it.since.0,
            });
            let given = GivenRef {
                message: forwarded(&it.message, it.at.seq, it.rest.redelivered, scratch),
                settled: false,
                acquired: it.rest.attempts,
                attempts: it.attempts,
                offset: it.offset,
            };
            let (since_ms, due_ms) = (it.rest.since.0, it.rest.deliver_at.0);
            batch.add_found(&FoundRef { given, place: &place, since_ms, due_ms, holder }, out);
        }
        let ends = rest.peek().is_none();
        if !ends {
            batch.set_more(out);
        }
        batch.end(out);
        if ends {
            return;
        }
    }
}

/// What the other host tells clients of this one.
pub(super) struct Told {
    reception: Reception,
    /// Looked at so far, of an answer that goes on, and the bytes of its frames.
    found: Vec<Found>,
    found_bytes: usize,
    found_bytes_max: usize,
}

impl Told {
    pub(super) fn new(message_size_max: u64) -> Self {
        let found_bytes_max = FOUND_BYTES_MAX.saturating_add(message_size_max as usize);
        // What fits into a frame is here already.
        let reception = Reception::new(u64::MAX);
        Self { reception, found: Vec::new(), found_bytes: 0, found_bytes_max }
    }

    /// `None` where there is nothing to say yet. Messages are slices of `bytes`, which are the frame.
    pub(super) fn read(
        &mut self,
        frame: &Frame<'_>,
        bytes: &Bytes,
    ) -> Result<Option<Event>, String> {
        let damaged = |error: Malformed| error.to_string();
        Ok(Some(match frame.kind {
            Kind::Given => {
                let given = Given::decode(frame.payload).map_err(damaged)?;
                let place = (ChannelId(given.channel), ConsumerId(given.consumer));
                let mailbox = MailboxId(given.mailbox);
                let one = |it: &GivenRef<'_>| self.delivery(it, place, mailbox, bytes);
                let batch = given.messages.iter().map(one).collect::<Result<_, _>>()?;
                Event::DeliveredBatch(batch)
            }
            Kind::Answer => {
                let Answer { channel, ticket, result } =
                    Answer::decode(frame.payload).map_err(damaged)?;
                let (channel, ticket) = (ChannelId(channel), Ticket(ticket));
                let result = match result {
                    ResultRef::Done => Ok(Reply::Done),
                    ResultRef::Declared { ready, consumers } => {
                        // Who asked knows of what.
                        Ok(Reply::Declared { name: Name::from(""), ready, consumers })
                    }
                    ResultRef::Counted(count) => Ok(Reply::Counted(count)),
                    ResultRef::GotNothing => Ok(Reply::Got(None)),
                    ResultRef::Got { mailbox, left, message } => {
                        let place = (channel, ConsumerId(0));
                        let got = self.delivery(&message, place, MailboxId(mailbox), bytes)?;
                        Ok(Reply::Got(Some(Box::new((got, left)))))
                    }
                    ResultRef::Browsed { ready, next, messages } => {
                        for it in &messages {
                            let found = self.found(it, bytes)?;
                            self.found.push(found);
                        }
                        self.found_bytes += bytes.len();
                        if frame.has(FLAG_MORE) {
                            return match self.found_bytes > self.found_bytes_max {
                                true => Err("an answer has no end".into()),
                                false => Ok(None),
                            };
                        }
                        self.found_bytes = 0;
                        let found = std::mem::take(&mut self.found);
                        Ok(Reply::Browsed(Browsed { found, next: place(next)?, ready }))
                    }
                    ResultRef::No(no) => Err(refusal::read(&no)),
                };
                Event::Reply { channel, ticket, result }
            }
            Kind::Ended => match Ended::decode(frame.payload).map_err(damaged)? {
                Ended::Consumer { channel, consumer } => {
                    Event::Cancelled { channel: ChannelId(channel), consumer: ConsumerId(consumer) }
                }
                Ended::Finished { channel, consumer } => {
                    Event::Finished { channel: ChannelId(channel), consumer: ConsumerId(consumer) }
                }
                Ended::Refused { channel, timeout, no } => Event::Refused {
                    channel: ChannelId(channel),
                    cause: if timeout { Cause::Timeout } else { Cause::Settle },
                    refusal: refusal::read(&no),
                },
                Ended::Visit { reason } => Event::ForceClose(reason.into()),
            },
            kind => return Err(format!("{kind:?} came out of turn")),
        }))
    }

    fn message(
        &mut self,
        it: &GivenRef<'_>,
        bytes: &Bytes,
    ) -> Result<crate::broker::Message, String> {
        self.reception.message(&it.message, bytes).map_err(|unfit| match unfit {
            Unfit::Malformed(error) => error.to_string(),
            Unfit::TooLarge => "a message is larger than any can be".into(),
        })
    }

    fn found(&mut self, it: &FoundRef<'_>, bytes: &Bytes) -> Result<Found, String> {
        let at = place(it.place)?.ok_or("a message without a place")?;
        let rest = Rest {
            since: Time(it.since_ms),
            deliver_at: Time(it.due_ms),
            attempts: it.given.acquired,
            redelivered: it.given.message.again,
            ..Rest::default()
        };
        let holder = it.holder.map(|it| HolderView {
            connection: ConnectionId(it.connection),
            channel: ChannelId(it.channel),
            tag: it.tag.map(Name::from),
            since: Time(it.since_ms),
        });
        let message = Arc::new(self.message(&it.given, bytes)?);
        let (attempts, offset) = (it.given.attempts, it.given.offset);
        Ok(Found { at, message, rest, attempts, offset, holder })
    }

    fn delivery(
        &mut self,
        it: &GivenRef<'_>,
        (channel, consumer): (ChannelId, ConsumerId),
        mailbox: MailboxId,
        bytes: &Bytes,
    ) -> Result<Delivery, String> {
        if it.message.seq > SEQ_MAX {
            return Err("a message stands at no position".into());
        }
        Ok(Delivery {
            channel,
            consumer,
            mailbox,
            seq: Seq(it.message.seq),
            message: Arc::new(self.message(it, bytes)?),
            redelivered: it.message.again,
            attempts: it.attempts,
            acquired: it.acquired,
            offset: it.offset,
            settled: it.settled,
        })
    }
}

/// Where a message was found; empty for nowhere.
pub(super) fn place(text: &str) -> Result<Option<Bookmark>, String> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|error: crate::broker::NoPlace| error.to_string()),
    }
}

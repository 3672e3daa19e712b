//! What clients want of mailboxes on another host, and what they are told, between the core's words and the wire's.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pillarbox_native::{
    self as wire, AT_ONCE, Answer, AskRef, ConsumeRef, Ended, FLAG_MORE, Frame, Given, GivenBatch,
    GivenRef, Kind, Malformed, ResultRef, VisitRef, WishRef, decode_drained, encode_drained,
    write_empty,
};

use super::message::{Reception, Unfit, forwarded};
use super::refusal;
use crate::broker::selector::Selector;
use crate::broker::{
    BindingOf, Browsed, Cause, ChannelId, Command, Consume, ConsumerId, DeclareExchange,
    DeclareMailbox, Delivery, Destination, Event, Extend, MailboxId, Name, Open, Outcome, QosScope,
    Reply, Request, Retime, Run, SeekCursor, Selection, Seq, Settle, Table, Ticket, Time,
    VISITOR_PROTOCOL,
};
use crate::sessions::native::table;

/// A frame is ended once it has so many bytes.
const FRAME_SIZE: usize = 128 << 10;
/// Deliveries of one settlement.
const SETTLED_MAX: u64 = 1 << 20;
/// Positions beyond this do not exist.
const SEQ_MAX: u64 = 1 << 62;
/// The entry of the table in which the start of a cursor travels.
const START: &str = "start";

/// What a client of this host wants, as a frame.
pub(super) fn write_wish(visit: u32, command: Command, out: &mut BytesMut) {
    match command {
        Command::Open(open, _) => {
            let Open { vhost, user, peer, cancel_notify, .. } = &*open;
            let visitor = VisitRef { vhost, user, client: peer, cancel_notify: *cancel_notify };
            visitor.encode(visit, out);
        }
        Command::Close(_) => write_empty(Kind::Close, visit, out),
        Command::CloseChannel(channel, ticket) => {
            let wish = WishRef::CloseChannel;
            AskRef { channel: channel.0, ticket: ticket.0, wish }.encode(visit, out);
        }
        Command::Settle(Settle { channel, deliveries, outcome }) => {
            let outcome = match outcome {
                Outcome::Accepted => wire::Outcome::Accepted,
                Outcome::Released => wire::Outcome::Released,
                Outcome::Rejected => wire::Outcome::Rejected,
                Outcome::Modified { delay_ms: None } => wire::Outcome::Failed { delay_ms: 0 },
                Outcome::Modified { delay_ms: Some(0) } => {
                    wire::Outcome::Failed { delay_ms: AT_ONCE }
                }
                Outcome::Modified { delay_ms: Some(delay_ms) } => {
                    wire::Outcome::Failed { delay_ms: delay_ms.min(AT_ONCE - 1) }
                }
            };
            wire::Settle::encode(visit, channel.0, outcome, &runs_out(&deliveries), out);
        }
        Command::Extend(Extend { channel, deliveries }) => {
            let runs = runs_out(&deliveries);
            wire::Settle::encode(visit, channel.0, wire::Outcome::Extended, &runs, out);
        }
        Command::Drained { deliveries, bytes } => encode_drained(visit, deliveries, bytes, out),
        Command::Request(channel, ticket, request) => {
            write_request(visit, channel, ticket, *request, out);
        }
        _ => {}
    }
}

fn runs_out(runs: &[Run]) -> Vec<wire::Run> {
    let run = |it: &Run| wire::Run { mailbox: it.mailbox.0, first: it.first.0, count: it.count };
    runs.iter().map(run).collect()
}

fn write_request(
    visit: u32,
    channel: ChannelId,
    ticket: Ticket,
    request: Request,
    out: &mut BytesMut,
) {
    let mut ask = |wish: WishRef<'_>| {
        AskRef { channel: channel.0, ticket: ticket.0, wish }.encode(visit, out);
    };
    match request {
        Request::DeclareMailbox(it) => ask(WishRef::Look { mailbox: &it.name }),
        Request::DeleteMailbox { name, if_unused, if_empty } => {
            ask(WishRef::Delete { mailbox: &name, if_unused, if_empty });
        }
        Request::PurgeMailbox { name } => ask(WishRef::Purge { mailbox: &name }),
        Request::Bind(it) => {
            let (mailbox, arguments) = (it.destination.name(), table::encode(it.arguments));
            let (exchange, key) = (&it.source, &it.key);
            ask(WishRef::Bind { exchange, mailbox, key, arguments: &arguments });
        }
        Request::Unbind(it) => {
            let (mailbox, arguments) = (it.destination.name(), table::encode(it.arguments));
            let (exchange, key) = (&it.source, &it.key);
            ask(WishRef::Unbind { exchange, mailbox, key, arguments: &arguments });
        }
        Request::Consume(it) => {
            let arguments = table::encode(it.arguments);
            let selection = it.selection.as_ref().map(|it| (it.selector.text(), it.drops_others));
            ask(WishRef::Consume(ConsumeRef {
                mailbox: &it.mailbox,
                consumer: it.consumer.0,
                tag: &it.tag,
                no_ack: it.no_ack,
                exclusive: it.exclusive,
                bounded: it.bounded,
                priority: it.priority,
                prefetch: it.prefetch,
                arguments: &arguments,
                selection,
            }));
        }
        Request::Cancel(consumer) => ask(WishRef::Cancel { consumer: consumer.0 }),
        Request::Get { mailbox, no_ack } => ask(WishRef::Get { mailbox: &mailbox, no_ack }),
        Request::Qos { limit, scope } => {
            ask(WishRef::Qos { limit, new: scope == QosScope::NewConsumers });
        }
        Request::Recover => ask(WishRef::Recover),
        Request::Browse { mailbox, count, bytes_max } => {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            ask(WishRef::Browse { mailbox: &mailbox, count, bytes_max });
        }
        Request::Retime(Retime { mailbox, due, seq, to }) => {
            let to = to.map(|it| it.0);
            ask(WishRef::Retime { mailbox: &mailbox, due: due.0, seq: seq.0, to });
        }
        Request::SeekCursor(SeekCursor { mailbox, cursor, start }) => {
            let mut entry = Table::new();
            entry.set(START, start);
            let start = table::encode(entry);
            ask(WishRef::Seek { mailbox: &mailbox, cursor: &cursor, start: &start });
        }
        Request::DeleteCursor { mailbox, cursor } => {
            ask(WishRef::DeleteCursor { mailbox: &mailbox, cursor: &cursor });
        }
        Request::DeclareExchange(it) => {
            let arguments = table::encode(it.arguments);
            ask(WishRef::Exchange {
                name: &it.name,
                kind: &it.kind,
                durable: it.durable,
                auto_delete: it.auto_delete,
                internal: it.internal,
                arguments: &arguments,
            });
        }
        // The core asks nothing else of another host.
        _ => {}
    }
}

/// What a client of the other host wants here. `None` for a frame that says nothing of clients.
pub(super) fn read_wish(frame: &Frame<'_>) -> Result<Option<Command>, String> {
    let damaged = |error: Malformed| error.to_string();
    Ok(Some(match frame.kind {
        Kind::Visit => {
            let it = VisitRef::decode(frame.payload).map_err(damaged)?;
            let open = Open {
                user: it.user.into(),
                vhost: it.vhost.into(),
                protocol: VISITOR_PROTOCOL,
                peer: it.client.into(),
                local: String::new(),
                client_name: None,
                client_properties: Table::new(),
                mechanism: "",
                strict_channels: false,
                cancel_notify: it.cancel_notify,
            };
            Command::Open(Box::new(open), Ticket(0))
        }
        Kind::Close => Command::Close(None),
        Kind::Drained => {
            let (deliveries, bytes) = decode_drained(frame.payload).map_err(damaged)?;
            Command::Drained { deliveries, bytes }
        }
        Kind::Settle => read_settle(&wire::Settle::decode(frame.payload).map_err(damaged)?)?,
        Kind::Ask => {
            let AskRef { channel, ticket, wish } =
                AskRef::decode(frame.payload).map_err(damaged)?;
            let (channel, ticket) = (ChannelId(channel), Ticket(ticket));
            match read_request(&wish)? {
                Some(request) => Command::Request(channel, ticket, Box::new(request)),
                None => Command::CloseChannel(channel, ticket),
            }
        }
        _ => return Ok(None),
    }))
}

fn read_settle(settle: &wire::Settle<'_>) -> Result<Command, String> {
    let count: u64 = settle.runs().map(|run| u64::from(run.count)).sum();
    if count > SETTLED_MAX || settle.runs().any(|run| run.first > SEQ_MAX) {
        return Err("a settlement of too many deliveries".into());
    }
    let channel = ChannelId(settle.subscription);
    let run = |it: wire::Run| Run {
        mailbox: MailboxId(it.mailbox),
        first: Seq(it.first),
        count: it.count,
    };
    let deliveries = settle.runs().map(run).collect();
    let outcome = match settle.outcome {
        wire::Outcome::Accepted => Outcome::Accepted,
        wire::Outcome::Released => Outcome::Released,
        wire::Outcome::Rejected => Outcome::Rejected,
        wire::Outcome::Failed { delay_ms: 0 } => Outcome::Modified { delay_ms: None },
        wire::Outcome::Failed { delay_ms: AT_ONCE } => Outcome::Modified { delay_ms: Some(0) },
        wire::Outcome::Failed { delay_ms } => Outcome::Modified { delay_ms: Some(delay_ms) },
        wire::Outcome::Extended => return Ok(Command::Extend(Extend { channel, deliveries })),
    };
    Ok(Command::Settle(Settle { channel, deliveries, outcome }))
}

/// `None` closes the channel.
fn read_request(wish: &WishRef<'_>) -> Result<Option<Request>, String> {
    let binding = |exchange: &str, mailbox: &str, key: &[u8], arguments: &[u8]| BindingOf {
        source: exchange.into(),
        destination: Destination::Mailbox(mailbox.into()),
        key: Bytes::copy_from_slice(key),
        arguments: table::decode(arguments),
    };
    Ok(Some(match *wish {
        WishRef::Look { mailbox } => Request::DeclareMailbox(DeclareMailbox {
            name: mailbox.into(),
            passive: true,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: Table::new(),
            generated: false,
        }),
        WishRef::Delete { mailbox, if_unused, if_empty } => {
            Request::DeleteMailbox { name: mailbox.into(), if_unused, if_empty }
        }
        WishRef::Purge { mailbox } => Request::PurgeMailbox { name: mailbox.into() },
        WishRef::Bind { exchange, mailbox, key, arguments } => {
            Request::Bind(binding(exchange, mailbox, key, arguments))
        }
        WishRef::Unbind { exchange, mailbox, key, arguments } => {
            Request::Unbind(binding(exchange, mailbox, key, arguments))
        }
        WishRef::Consume(it) => {
            let selection = match it.selection {
                None => None,
                Some((text, drops_others)) => {
                    let selector = Selector::parse(text).map_err(|error| error.to_string())?;
                    Some(Selection { selector: Arc::new(selector), drops_others })
                }
            };
            Request::Consume(Consume {
                mailbox: it.mailbox.into(),
                consumer: ConsumerId(it.consumer),
                tag: it.tag.into(),
                no_ack: it.no_ack,
                exclusive: it.exclusive,
                priority: it.priority,
                prefetch: it.prefetch,
                arguments: table::decode(it.arguments),
                selection,
                bounded: it.bounded,
            })
        }
        WishRef::Cancel { consumer } => Request::Cancel(ConsumerId(consumer)),
        WishRef::Get { mailbox, no_ack } => Request::Get { mailbox: mailbox.into(), no_ack },
        WishRef::Qos { limit, new } => {
            let scope = if new { QosScope::NewConsumers } else { QosScope::Channel };
            Request::Qos { limit, scope }
        }
        WishRef::Recover => Request::Recover,
        WishRef::Browse { mailbox, count, bytes_max } => {
            Request::Browse { mailbox: mailbox.into(), count: count as usize, bytes_max }
        }
        WishRef::Retime { mailbox, due, seq, to } => Request::Retime(Retime {
            mailbox: mailbox.into(),
            due: Time(due),
            seq: Seq(seq),
            to: to.map(Time),
        }),
        WishRef::Seek { mailbox, cursor, start } => {
            let start = table::decode(start).get(START).cloned();
            Request::SeekCursor(SeekCursor {
                mailbox: mailbox.into(),
                cursor: cursor.into(),
                start: start.ok_or("a cursor without a start")?,
            })
        }
        WishRef::DeleteCursor { mailbox, cursor } => {
            Request::DeleteCursor { mailbox: mailbox.into(), cursor: cursor.into() }
        }
        WishRef::Exchange { name, kind, durable, auto_delete, internal, arguments } => {
            Request::DeclareExchange(DeclareExchange {
                name: name.into(),
                kind: kind.into(),
                passive: false,
                durable,
                auto_delete,
                internal,
                arguments: table::decode(arguments),
            })
        }
        WishRef::CloseChannel => return Ok(None),
    }))
}

/// What a client of the other host is told, as frames.
pub(super) fn write_told(visit: u32, event: Event, scratch: &mut Vec<u8>, out: &mut BytesMut) {
    match event {
        Event::Delivered(_) | Event::DeliveredBatch(_) => {
            write_deliveries(visit, event.deliveries(), scratch, out);
        }
        Event::Reply { channel, ticket, result } => match result {
            Ok(Reply::Browsed { found, ready }) => {
                write_browsed(visit, (channel, ticket), ready, &found, scratch, out);
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
    ready: u64,
    found: &[Browsed],
    scratch: &mut Vec<u8>,
    out: &mut BytesMut,
) {
    let mut rest = found.iter().peekable();
    loop {
        let mut batch = GivenBatch::browsed(visit, channel.0, ticket.0, ready, out);
        while batch.size(out) < FRAME_SIZE
            && let Some(it) = rest.next()
        {
            let given = GivenRef {
                message: forwarded(&it.message, it.seq, it.redelivered, scratch),
                settled: false,
                acquired: 0,
                attempts: it.attempts,
                offset: None,
            };
            batch.add(&given, out);
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
    /// Looked at so far, of an answer that goes on.
    browsed: Vec<Browsed>,
}

impl Told {
    pub(super) fn new(message_size_max: u64) -> Self {
        Self { reception: Reception::new(message_size_max), browsed: Vec::new() }
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
                    ResultRef::Browsed { ready, messages } => {
                        for it in &messages {
                            let browsed = Browsed {
                                seq: Seq(it.message.seq),
                                message: Arc::new(self.message(it, bytes)?),
                                redelivered: it.message.again,
                                attempts: it.attempts,
                            };
                            self.browsed.push(browsed);
                        }
                        if frame.has(FLAG_MORE) {
                            return Ok(None);
                        }
                        Ok(Reply::Browsed { found: std::mem::take(&mut self.browsed), ready })
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
            Unfit::TooLarge => "a message is larger than the limit here".into(),
        })
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

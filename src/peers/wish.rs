//! What clients want of mailboxes on another host, between the core's words and the wire's.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pillarbox_native::{
    self as wire, AT_ONCE, AskRef, ConsumeRef, Frame, Kind, LookRef, Malformed, MovedBindingRef,
    MovedBindings, TakeOverRef, VisitRef, WishRef, decode_drained, encode_drained, write_empty,
};

use super::told::{SEQ_MAX, place};
use crate::broker::selector::Selector;
use crate::broker::{
    BindingOf, Browse, ChannelId, Command, Consume, ConsumerId, DeclareExchange, DeclareMailbox,
    Destination, Extend, MailboxId, MovedBinding, Open, Outcome, QosScope, Request, Retime, Run,
    SeekCursor, Selection, Seq, Settle, States, Table, TakeOver, Ticket, Time, VISITOR_PROTOCOL,
};
use crate::sessions::native::table;

/// Deliveries of one settlement.
const SETTLED_MAX: u64 = 1 << 20;
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
        Request::Browse(it) => {
            let after = it.after.map(|place| place.to_string()).unwrap_or_default();
            ask(WishRef::Browse(LookRef {
                mailbox: &it.mailbox,
                states: it.states.bits(),
                selector: it.selector.as_ref().map_or("", |it| it.text()),
                after: &after,
                count: u32::try_from(it.count).unwrap_or(u32::MAX),
                bytes_max: it.bytes_max,
            }));
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
        Request::TakeOver(it) => {
            let tables: Vec<_> =
                it.bindings.iter().map(|it| table::encode(it.arguments.clone())).collect();
            let bindings = it.bindings.iter().zip(&tables).map(|(it, arguments)| {
                let (exchange, kind, key) = (&*it.exchange, &*it.kind, &it.key[..]);
                MovedBindingRef { exchange, kind, key, arguments }
            });
            let mut buffer = BytesMut::new();
            let bindings = MovedBindings::write(bindings, &mut buffer);
            let arguments = table::encode(it.arguments);
            ask(WishRef::TakeOver(TakeOverRef {
                mailbox: &it.name,
                epoch: it.epoch,
                durable: it.durable,
                auto_delete: it.auto_delete,
                arguments: &arguments,
                bindings,
            }));
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
        WishRef::Look { mailbox } => Request::DeclareMailbox(DeclareMailbox::look(mailbox.into())),
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
                    Some(Selection { selector: Arc::new(selector(text)?), drops_others })
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
        WishRef::Browse(it) => Request::Browse(Browse {
            mailbox: it.mailbox.into(),
            states: States::from_bits(it.states),
            selector: match it.selector {
                "" => None,
                text => Some(Arc::new(selector(text)?)),
            },
            after: place(it.after)?,
            count: it.count as usize,
            bytes_max: it.bytes_max,
        }),
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
        WishRef::TakeOver(it) => Request::TakeOver(Box::new(TakeOver {
            name: it.mailbox.into(),
            epoch: it.epoch,
            durable: it.durable,
            auto_delete: it.auto_delete,
            arguments: table::decode(it.arguments),
            bindings: it.bindings.iter().map(moved_binding).collect(),
        })),
        WishRef::CloseChannel => return Ok(None),
    }))
}

fn moved_binding(it: MovedBindingRef<'_>) -> MovedBinding {
    MovedBinding {
        exchange: it.exchange.into(),
        kind: it.kind.into(),
        key: Bytes::copy_from_slice(it.key),
        arguments: table::decode(it.arguments),
    }
}

fn selector(text: &str) -> Result<Selector, String> {
    Selector::parse(text).map_err(|error| error.to_string())
}

//! The members of a group: what they ask for, how messages come to them, and what becomes of their deliveries.

use std::sync::Arc;

use super::CURSOR_NAME_MAX;
use super::feed::Feeding;
use super::fetch;
use super::group::{Fate, Group, Hold};
use super::log::Found;
use super::readers::{Ended, Reader, State};
use crate::broker::Settings;
use crate::broker::command::{ChannelId, ConnectionId, Consume, Outcome, Run, Seq};
use crate::broker::connection::Connection;
use crate::broker::dead_letter::{Grave, Reason};
use crate::broker::event::Delivery;
use crate::broker::limits::MailboxKind;
use crate::broker::mailbox::Mailbox;
use crate::broker::message::Message;
use crate::broker::name::{Name, Time};
use crate::broker::retry::{self, Retry};
use crate::broker::routing::mix;
use crate::broker::turn::Turn;

pub(super) const GROUP: &str = "x-group";
const SINGLE: &str = "x-single-active-consumer";

/// What a member of a group asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    /// How long it may hold a delivery, 0 for ever; `None` where it does not say.
    timeout_ms: Option<u64>,
    /// Failed attempts that a message may have.
    attempts_max: Option<u32>,
    /// Where messages go that fail.
    grave: Option<Grave>,
    /// When messages that failed come again.
    retry: Option<Retry>,
    /// One member is active, the others stand by.
    pub(super) single: bool,
}

/// A message on its way to a dead-letter exchange.
pub(super) struct Dead {
    pub(super) message: Arc<Message>,
    pub(super) reason: Reason,
    pub(super) grave: Grave,
}

/// The group that a consumer wants to join, and what it asks for there.
pub(super) fn group_of(
    consume: &Consume,
) -> Result<Option<(Name, Member)>, (&'static str, &'static str)> {
    let text = |argument| match consume.arguments.get(argument) {
        None => Ok(None),
        Some(value) => match value.as_str().filter(|name| name.len() <= CURSOR_NAME_MAX) {
            Some(name) => Ok(Some(Name::from(name))),
            None => Err((argument, "not a name")),
        },
    };
    let Some(name) = text(GROUP)? else { return Ok(None) };
    if name.is_empty() {
        return Err((GROUP, "not a name"));
    }
    for argument in ["x-stream-cursor", "x-stream-filter", "x-key"] {
        if consume.arguments.get(argument).is_some() {
            return Err((argument, "not for a member of a group"));
        }
    }
    if consume.selection.is_some() {
        return Err((GROUP, "a member of a group has no selector"));
    }
    let number = |argument, most: u64| match consume.arguments.get(argument) {
        None => Ok(None),
        Some(value) => {
            let number = value.as_i64().and_then(|it| u64::try_from(it).ok());
            number.filter(|it| *it <= most).map(Some).ok_or((argument, "not a number from 0 on"))
        }
    };
    let retry = match consume.arguments.get(retry::DELAYS) {
        Some(delays) => Some(Retry::parse(delays, consume.arguments.get(retry::JITTER))?),
        None => None,
    };
    let limit = number("x-delivery-limit", u32::MAX.into())?.map(|it| it as u32);
    let attempts_max = limit.or_else(|| retry.as_ref().map(Retry::attempts_max));
    let grave = match text(DEAD_LETTER_EXCHANGE)? {
        Some(exchange) => Some(Grave { exchange, key: text("x-dead-letter-routing-key")? }),
        None => None,
    };
    let timeout_ms = number("x-consumer-timeout", u64::MAX)?;
    let single = match consume.arguments.get(SINGLE) {
        None => false,
        Some(value) => match (value.as_bool(), value.as_str()) {
            (Some(single), _) => single,
            (None, Some("true")) => true,
            (None, Some("false")) => false,
            _ => return Err((SINGLE, "not a boolean")),
        },
    };
    Ok(Some((name, Member { timeout_ms, attempts_max, grave, retry, single })))
}

const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";

/// The exchange to which a member of a group sends what fails.
pub(in crate::broker) fn dead_letter_exchange(consume: &Consume) -> Option<Name> {
    consume.arguments.get(GROUP)?;
    consume.arguments.get(DEAD_LETTER_EXCHANGE)?.as_str().map(Name::from)
}

impl Feeding<'_, '_> {
    /// Gives the member one message, so that the next one is another member's turn. Returns why there is no more for it.
    pub(super) fn serve_member(
        &mut self,
        reader: &mut Reader,
        group: &mut Group,
        timeout_ms: Option<u64>,
        dead: &mut Vec<Dead>,
    ) -> State {
        let now = self.turn.now;
        let Some(member) = reader.member.clone() else { return State::Done };
        group.trim(self.log.first());
        if !group.is_on(reader.place()) {
            return State::Tail;
        }
        loop {
            if !reader.has_credit() {
                return State::Full;
            }
            let Turn { connections, settings, out, bursts, flows, .. } = &mut *self.turn;
            let Some(party) = connections.get_mut(&reader.connection) else { return State::Full };
            let Connection {
                channels, in_flight, in_flight_bytes, held_back, stalled, flow, ..
            } = party;
            let Some(channel) = channels.get_mut(&reader.channel) else { return State::Full };
            let open = !*held_back
                && *in_flight < settings.window_deliveries
                && *in_flight_bytes < settings.window_bytes
                && (reader.no_ack || channel.has_credit());
            if !open {
                stalled.insert(self.mailbox);
                return State::Stalled;
            }
            let Some((seq, redelivered)) = group.wanted() else { return State::Tail };
            if reader.until.is_some_and(|until| seq >= until) {
                return State::Done;
            }
            let entry = match self.log.at(seq, &mut reader.entered) {
                Found::Message(entry, _) if entry.seq > seq => {
                    let end = entry.seq;
                    group.pass(seq, end);
                    continue;
                }
                Found::Message(entry, _) => entry,
                Found::Hole(end) => {
                    group.pass(seq, end);
                    continue;
                }
                Found::Tail => return State::Tail,
                Found::Cold => {
                    if let Some((lane, range)) = self.log.ask(seq) {
                        out.push(fetch(self.mailbox, lane, range));
                    }
                    reader.next = seq;
                    return State::Loading;
                }
            };
            if !redelivered && entry.rest.since < group.since() {
                group.pass(seq, Seq(seq.0 + 1));
                continue;
            }
            let tried = group.tried(seq);
            let spent = member.attempts_max.is_some_and(|most| tried.attempts > most);
            if tried.rejected || spent {
                if let Some(grave) = &member.grave {
                    let reason =
                        if tried.rejected { Reason::Rejected } else { Reason::DeliveryLimit };
                    let (message, grave) = (entry.message.clone(), grave.clone());
                    dead.push(Dead { message, reason, grave });
                }
                group.pass(seq, Seq(seq.0 + 1));
                continue;
            }
            let message = entry.message.clone();
            *in_flight += 1;
            *in_flight_bytes += message.size() as u64;
            channel.unsettled += u32::from(!reader.no_ack);
            self.counts.delivered += 1;
            self.counts.redelivered += u64::from(redelivered);
            self.counts.delivered_settled += u64::from(reader.no_ack);
            let outflow = &mut flows[*flow].outflow[MailboxKind::Stream.index()];
            outflow.count_delivery(reader.no_ack, redelivered);
            channel.outflow.count_delivery(reader.no_ack, redelivered);
            let (place, number) = (reader.place(), reader.number());
            let timeout_ms = member.timeout_ms.or(timeout_ms).filter(|ms| *ms > 0);
            let ends = timeout_ms.filter(|_| !reader.no_ack).map(|ms| now.plus_ms(ms));
            group.hand_out(seq, Hold { place, number, ends });
            if reader.no_ack {
                group.settle(seq, place, number, Fate::Done);
            }
            let delivery = Delivery {
                channel: reader.channel,
                consumer: reader.consumer,
                mailbox: self.mailbox,
                seq: reader.deliver(seq),
                message,
                redelivered,
                attempts: Some(tried.attempts),
                acquired: tried.deliveries,
                offset: Some(seq.0 - 1),
                settled: reader.no_ack,
            };
            bursts.add(reader.connection, delivery, out);
            return State::Awake;
        }
    }
}

impl Mailbox {
    /// Deliveries of a group end.
    pub(super) fn settle_shared(&mut self, ended: Ended, outcome: Outcome, turn: &mut Turn<'_>) {
        let Ended::Shared { cursor, place, member, deliveries } = ended else { return };
        let Some(stream) = &mut self.stream else { return };
        let Some(group) = stream.cursors.group_mut(&cursor) else { return };
        let fate = match outcome {
            Outcome::Accepted => Fate::Done,
            Outcome::Rejected if member.grave.is_some() => Fate::Dead,
            Outcome::Rejected => Fate::Done,
            Outcome::Released => Fate::Again { failed: false, due: Time::ZERO },
            Outcome::Modified { delay_ms } => {
                let due = delay_ms.filter(|ms| *ms > 0).map(|ms| turn.now.plus_ms(ms));
                Fate::Again { failed: true, due: due.unwrap_or_default() }
            }
        };
        let retry = member.retry.as_ref();
        let retry = retry.filter(|_| outcome == Outcome::Modified { delay_ms: None });
        let was_full = group.wanted().is_none();
        for (number, seq) in deliveries {
            let fate = match retry {
                Some(retry) => {
                    let attempts = group.tried(seq).attempts.saturating_add(1);
                    let delay = retry.delay_ms(attempts, mix(self.id.0) ^ seq.0);
                    // One that failed too often does not wait for its death.
                    let spent = member.attempts_max.is_some_and(|most| attempts > most);
                    let waits = delay > 0 && !spent;
                    let due = if waits { turn.now.plus_ms(delay) } else { Time::ZERO };
                    Fate::Again { failed: true, due }
                }
                None => fate,
            };
            group.settle(seq, place, number, fate);
        }
        // Who is first now may have waited for the last one's deliveries.
        if was_full || fate != Fate::Done || group.single {
            stream.readers.wake_members(&group.members);
        }
        stream.cursors.touch(&cursor, turn.now);
    }

    /// The time to settle deliveries begins anew. Whether some of them are not held.
    pub(in crate::broker) fn extend_read(
        &mut self,
        run: &Run,
        by: (ConnectionId, ChannelId),
        now: Time,
        settings: &Settings,
    ) -> bool {
        let timeout_ms = self.timeout_ms(None, settings);
        let Some(stream) = &mut self.stream else { return true };
        let mut unknown = false;
        for name in (run.first.0..run.first.0 + u64::from(run.count)).map(Seq) {
            let Some((reader, number, seq)) = stream.readers.held(name, by) else {
                unknown = true;
                continue;
            };
            // Those of a reader with a place of its own may last for ever.
            let (Some(member), Some(cursor)) = (&reader.member, &reader.cursor) else { continue };
            let timeout_ms = member.timeout_ms.or(timeout_ms).filter(|ms| *ms > 0);
            let ends = timeout_ms.map(|ms| now.plus_ms(ms));
            if let Some(group) = stream.cursors.group_mut(cursor) {
                group.extend(seq, reader.place(), number, ends);
            }
        }
        unknown
    }

    /// What waited for its time comes again, and so does what was held for too long: as a failed attempt, and only it.
    pub(super) fn wake_groups(&mut self, turn: &mut Turn<'_>) {
        let Some(stream) = &mut self.stream else { return };
        while let Some(name) = stream.cursors.take_alarm(turn.now) {
            let Some(group) = stream.cursors.group_mut(&name) else { continue };
            let mut woken = group.wake(turn.now);
            while let Some((seq, hold)) = group.overdue(turn.now) {
                let again = Fate::Again { failed: true, due: Time::ZERO };
                group.settle(seq, hold.place, hold.number, again);
                woken = true;
                let whose = stream.readers.take_back(hold.place, hold.number);
                let Some((connection, channel, delivery)) = whose else { continue };
                let Some(party) = turn.connections.get_mut(&connection) else { continue };
                let Some(party) = party.channels.get_mut(&channel) else { continue };
                party.revoke(self.id, delivery);
                party.unsettled = party.unsettled.saturating_sub(1);
            }
            if woken {
                stream.readers.wake_members(&group.members);
            }
            stream.cursors.touch(&name, turn.now);
        }
    }
}

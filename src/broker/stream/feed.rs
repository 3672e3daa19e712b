//! From a stream's log to its readers.

use super::keys::Keys;
use super::log::{Found, Log};
use super::member::Dead;
use super::readers::{Reader, State};
use super::{Stream, fetch};
use crate::broker::command::{MailboxId, Seq};
use crate::broker::connection::Connection;
use crate::broker::event::{Delivery, Effect, Event};
use crate::broker::limits::MailboxKind;
use crate::broker::mailbox::{Counts, Mailbox};
use crate::broker::turn::Turn;

impl Mailbox {
    pub(super) fn feed(&mut self, turn: &mut Turn<'_>) {
        let timeout_ms = self.timeout_ms(None, turn.settings);
        let Some(stream) = &mut self.stream else { return };
        let Stream { log, readers, keys, cursors, .. } = &mut **stream;
        let keys = keys.as_ref();
        let alone = readers.len() == 1;
        let (mut moved, mut dead) = (Vec::new(), Vec::new());
        while let Some(place) = readers.next_awake() {
            let Some(reader) = readers.get_mut(place) else { continue };
            let (mailbox, counts) = (self.id, &mut self.counts);
            let mut feeding = Feeding { mailbox, log, keys, counts, turn };
            reader.state = match (&reader.member, &reader.cursor) {
                (Some(_), Some(name)) => {
                    let name = name.clone();
                    let state = match cursors.group_mut(&name) {
                        Some(group) => feeding.serve_member(reader, group, timeout_ms, &mut dead),
                        None => State::Done,
                    };
                    cursors.touch(&name, feeding.turn.now);
                    state
                }
                _ => feeding.serve(reader),
            };
            if alone {
                *turn.memory -= log.forget_blocks_before(reader.next);
            }
            if reader.no_ack
                && reader.member.is_none()
                && let Some(cursor) = &reader.cursor
            {
                moved.push((cursor.clone(), reader.next));
            }
            readers.rest(place);
        }
        for (name, next) in moved {
            self.move_cursor(&name, next, turn);
        }
        for Dead { message, reason, grave } in dead {
            turn.bury_at(self, &message, reason, &grave);
        }
    }

    /// Readers that had everything that they asked for go.
    pub(super) fn dismiss(&mut self, turn: &mut Turn<'_>) {
        while let Some((connection, channel, consumer)) =
            self.stream.as_mut().and_then(|it| it.readers.next_done())
        {
            self.consumers.remove(connection, consumer);
            self.remove_reader(connection, consumer, turn);
            if let Some(party) = turn.connections.get_mut(&connection)
                && let Some(party) = party.channels.get_mut(&channel)
            {
                party.consumers.remove(&consumer);
            }
            let event = Event::Finished { channel, consumer };
            turn.out.push(Effect::Notify(connection, event));
        }
    }
}

/// What giving messages to readers needs.
pub(super) struct Feeding<'a, 't> {
    pub(super) mailbox: MailboxId,
    pub(super) log: &'a mut Log,
    pub(super) keys: Option<&'a Keys>,
    pub(super) counts: &'a mut Counts,
    pub(super) turn: &'a mut Turn<'t>,
}

impl Feeding<'_, '_> {
    /// Gives the reader what it can take. Returns why it stopped.
    fn serve(&mut self, reader: &mut Reader) -> State {
        let scarce = *self.turn.memory > self.turn.settings.memory_max / 2;
        let Turn { connections, settings, out, bursts, flows, .. } = &mut *self.turn;
        let Some(party) = connections.get_mut(&reader.connection) else { return State::Full };
        let Connection { channels, in_flight, in_flight_bytes, held_back, stalled, flow, .. } =
            party;
        let outflow = &mut flows[*flow].outflow[MailboxKind::Stream.index()];
        let Some(channel) = channels.get_mut(&reader.channel) else { return State::Full };
        reader.next = reader.next.max(self.log.first());
        loop {
            if let (Some(key), Some(keys)) = (&reader.key, self.keys) {
                if keys.unread().is_some() {
                    return State::Tail;
                }
                let end = self.log.next();
                if std::mem::take(&mut reader.newest) {
                    reader.next = keys.newest(key).unwrap_or(end);
                }
                reader.next =
                    keys.next_of(key, reader.next).unwrap_or_else(|| reader.next.max(end));
            }
            if reader.until.is_some_and(|until| reader.next >= until) {
                return State::Done;
            }
            if !reader.has_credit() {
                return State::Full;
            }
            let open = !*held_back
                && *in_flight < settings.window_deliveries
                && *in_flight_bytes < settings.window_bytes
                && (reader.no_ack || channel.has_credit());
            if !open {
                stalled.insert(self.mailbox);
                return State::Stalled;
            }
            let (entry, entered) = match self.log.at(reader.next, &mut reader.entered) {
                Found::Message(entry, entered) => (entry, entered),
                Found::Hole(end) => {
                    reader.next = end;
                    continue;
                }
                Found::Tail => return State::Tail,
                Found::Cold => {
                    if let Some((lane, range)) = self.log.ask_for(reader.next, reader.hops()) {
                        out.push(fetch(self.mailbox, lane, range));
                    }
                    return State::Loading;
                }
            };
            reader.next = Seq(entry.seq.0 + 1);
            let wanted = entry.rest.since >= reader.since && reader.wants(&entry.message);
            if wanted {
                *in_flight += 1;
                *in_flight_bytes += entry.message.size() as u64;
                channel.unsettled += u32::from(!reader.no_ack);
                self.counts.delivered += 1;
                self.counts.delivered_settled += u64::from(reader.no_ack);
                outflow.count_delivery(reader.no_ack, false);
                channel.outflow.count_delivery(reader.no_ack, false);
                let delivery = Delivery {
                    channel: reader.channel,
                    consumer: reader.consumer,
                    mailbox: self.mailbox,
                    seq: reader.deliver(entry.seq),
                    message: entry.message.clone(),
                    redelivered: false,
                    attempts: None,
                    acquired: 0,
                    offset: Some(entry.seq.0 - 1),
                    settled: reader.no_ack,
                };
                bursts.add(reader.connection, delivery, out);
            }
            if let Some(end) = entered
                && !scarce
                && !reader.hops()
                && let Some((lane, range)) = self.log.ask_ahead(end)
            {
                out.push(fetch(self.mailbox, lane, range));
            }
        }
    }
}

//! A stream: messages that stay, and readers that each go through them at their own pace.
//!
//! A message is shown only once it is durable, so that an offset means the same message for ever. A mailbox of this
//! kind has none of a queue's lanes and leases: acknowledgements only give credit back.

mod age;
mod cursors;
mod feed;
mod filter;
mod group;
mod keys;
mod log;
mod member;
mod readers;
mod seek;
mod start;

use std::sync::Arc;

use bytes::Bytes;

use super::command::{ChannelId, ConnectionId, Consume, ConsumerId, Fetched, Outcome, Run, Seq};
use super::definition::{CursorDefinition, Definition, DefinitionKey};
use super::event::{Append, Effect, Fetch, RecoveredMailbox, Rest, Write};
use super::lane::{Entry, Place};
use super::limits::{Limits, MailboxKind};
use super::mailbox::Mailbox;
use super::message::Message;
use super::name::{Name, Time};
use super::refusal::{Kind, Refusal};
use super::turn::Turn;

use age::{AGE_LANE, Undated};
use cursors::{Cursors, Moved, is_chosen};
use filter::Filter;
pub use keys::KeyView;
use keys::{Keys, key_of};
use log::{Log, Ranges, SEGMENT_BYTES, SEGMENT_MESSAGES};
pub(super) use member::dead_letter_exchange;
use readers::{Ended, NewReader, Readers};
pub use seek::CursorView;
use start::Start;

/// Bytes of a cursor's name.
const CURSOR_NAME_MAX: usize = 255;

#[derive(Debug)]
pub(super) struct Stream {
    log: Log,
    readers: Readers,
    cursors: Cursors,
    /// Of a key-value mailbox.
    keys: Option<Keys>,
    /// What is being read so that the keys are known again.
    indexing: Option<(Seq, u32)>,
    undated: Option<Undated>,
}

/// In `Fetch::lane`: messages whose keys are wanted.
const KEYS_LANE: u16 = 256;

/// How large and old a segment may become, so that trimming by whole segments stays near the limits.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    segment_messages: u32,
    segment_bytes: u64,
    segment_ms: u64,
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        let part =
            |limit: Option<u64>, most: u64| limit.map_or(most, |it| (it / 16).clamp(1, most));
        let bytes = part(limits.bytes_max, SEGMENT_BYTES);
        Self {
            segment_messages: part(limits.length_max, SEGMENT_MESSAGES.into()) as u32,
            segment_bytes: limits.segment_bytes_max.map_or(bytes, |most| bytes.min(most)),
            segment_ms: part(limits.age_max_ms, u64::MAX / 16),
        }
    }
}

impl Stream {
    pub(super) fn new(limits: &Limits) -> Self {
        let keys = (limits.kind == MailboxKind::Kv).then(|| Keys::new(limits.history));
        Self {
            log: Log::new(keys.is_some()),
            readers: Readers::default(),
            cursors: Cursors::default(),
            keys,
            indexing: None,
            undated: None,
        }
    }

    /// Keys with a value, after this one; `None` while they are being read, or where there are none.
    pub(super) fn keys_after(
        &self,
        after: Option<&Bytes>,
    ) -> Option<impl Iterator<Item = KeyView>> {
        let keys = self.keys.as_ref()?;
        keys.unread().is_none().then(|| keys.after(after))
    }

    pub(super) fn oldest(&self) -> Option<Time> {
        self.log.oldest()
    }

    pub(super) fn unsettled(&self) -> u64 {
        self.readers.unsettled()
    }

    /// What a consumer holds, for views.
    pub(super) fn unsettled_of(&self, connection: ConnectionId, consumer: ConsumerId) -> u32 {
        self.readers.get((connection, consumer)).map_or(0, readers::Reader::unsettled)
    }

    pub(super) fn memory(&self) -> u64 {
        self.log.memory()
    }

    pub(super) fn holds(&self, seq: Seq, by: (ConnectionId, ChannelId)) -> bool {
        self.readers.holds(seq, by)
    }

    pub(super) fn raise(&mut self, connection: ConnectionId, consumer: ConsumerId, prefetch: u32) {
        self.readers.raise((connection, consumer), prefetch);
    }

    /// The first messages behind a position, for who only looks.
    pub(super) fn places_after(&self, after: Seq, count: usize) -> Vec<Place<'_>> {
        self.log.places_after(after, count)
    }

    /// The first position that may have come at this time or later.
    pub(super) fn seek(&self, since: Time) -> Seq {
        self.log.seek(since)
    }

    /// Positions that hold nothing any more. Returns how many held a message, their bytes, and how much memory that freed.
    pub(super) fn cut(&mut self, first: Seq, end: Seq) -> (u64, u64, u64) {
        let before = self.log.memory();
        let (count, bytes) = self.log.cut(first, end);
        (count, bytes, before - self.log.memory())
    }

    /// Messages and the sum of their bodies.
    #[cfg(test)]
    pub(super) fn totals(&self) -> (u64, u64) {
        self.log.totals()
    }

    #[cfg(test)]
    pub(super) fn in_memory(&self) -> usize {
        self.log.in_memory()
    }

    /// What each reader holds.
    pub(super) fn held(&self) -> impl Iterator<Item = (ConnectionId, ChannelId, u32)> {
        self.readers.iter().map(|it| (it.connection, it.channel, it.unsettled()))
    }

    pub(super) fn cursor_names(&self) -> impl Iterator<Item = &Name> {
        self.cursors.names()
    }

    pub(super) fn restore_cursor(&mut self, it: &CursorDefinition, now: Time) {
        let (name, group) = (it.name.clone(), it.group.clone());
        let (next, since) = (Seq(it.offset.saturating_add(1)), Time(it.since_ms));
        self.cursors.restore(Moved { name, next, since, group }, now);
    }

    pub(super) fn forget_cursor(&mut self, name: &Name) -> bool {
        self.cursors.remove(name)
    }
}

impl Mailbox {
    /// A connection that had enough of the mailbox's messages can take more.
    pub(super) fn resume(&mut self, connection: ConnectionId) {
        match &mut self.stream {
            Some(stream) => stream.readers.wake_stalled_of(connection),
            None => self.stuck = false,
        }
    }

    /// What is done to queues only. RabbitMQ's words.
    pub(super) fn not_for_streams(&self, what: &str) -> Refusal {
        let (name, vhost) = (&self.name, &self.vhost);
        let text =
            format!("{what} not supported by stream queues queue '{name}' in vhost '{vhost}'");
        Refusal::NotImplemented(text)
    }

    /// A consumer starts to read.
    pub(super) fn add_reader(
        &mut self,
        connection: ConnectionId,
        channel: ChannelId,
        consume: &Consume,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let invalid = |argument: &str, reason: &str| Refusal::InvalidArgument {
            argument: argument.into(),
            kind: Kind::Mailbox,
            name: self.name.clone(),
            vhost: self.vhost.clone(),
            reason: reason.into(),
        };
        if stream.readers.is_full() {
            let (name, vhost, most) = (&self.name, &self.vhost, readers::READERS_MAX);
            return Err(Refusal::Limit(format!(
                "queue '{name}' in vhost '{vhost}' has {most} consumers"
            )));
        }
        let argument = "x-stream-offset";
        let start = match consume.arguments.get(argument) {
            Some(value) => {
                Some(Start::parse(value, now).map_err(|reason| invalid(argument, &reason))?)
            }
            None => None,
        };
        let group = member::group_of(consume).map_err(|(name, reason)| invalid(name, reason))?;
        let filter =
            Filter::of(&consume.arguments).map_err(|(name, reason)| invalid(name, reason))?;
        let until = match consume.arguments.get("x-stream-until") {
            None => None,
            Some(value) => match (value.as_i64(), value.as_str()) {
                // Offsets count from 0, and this one is still wanted.
                (Some(offset), _) if offset >= 0 => Some(Seq((offset as u64).saturating_add(2))),
                (_, Some("last")) => Some(stream.log.next()),
                _ => return Err(invalid("x-stream-until", "neither an offset nor 'last'")),
            },
        };
        let key = match consume.arguments.get("x-key") {
            None => None,
            Some(value) => match value.as_bytes().filter(|_| stream.keys.is_some()) {
                Some(key) => Some(key.clone()),
                None => return Err(invalid("x-key", "not a key of a mailbox with keys")),
            },
        };
        let named = match consume.arguments.get("x-stream-cursor") {
            None => None,
            Some(value) => match value.as_str().filter(|name| name.len() <= CURSOR_NAME_MAX) {
                Some(name) => Some(Name::from(name)),
                None => return Err(invalid("x-stream-cursor", "not a name")),
            },
        };
        let argument = "x-stream-automatic-offset-tracking";
        let tracks = match consume.arguments.get(argument) {
            None => {
                let plain = start.is_none() && key.is_none();
                named.is_some() || (plain && is_chosen(&consume.tag))
            }
            Some(value) => match (value.as_bool(), value.as_str()) {
                (Some(tracks), _) => tracks,
                (None, Some("true")) => true,
                (None, Some("false")) => false,
                _ => return Err(invalid(argument, "not a boolean")),
            },
        };
        let (member, cursor) = match group {
            Some((name, member)) => (Some(Arc::new(member)), Some(name)),
            None => (None, tracks.then(|| named.unwrap_or_else(|| consume.tag.clone()))),
        };
        let known = cursor.as_ref().and_then(|name| stream.cursors.next(name));
        let newest = key.is_some() && known.is_none() && start.is_none();
        let (next, since) = known.unwrap_or_else(|| start.unwrap_or(Start::Next).find(&stream.log));
        let shared = cursor.as_ref().filter(|name| stream.cursors.group(name).is_some());
        if let (Some(name), None) = (shared, &member) {
            let queue = format!("queue '{}' in vhost '{}'", self.name, self.vhost);
            let text = format!("'{name}' is a group of {queue}: it is read with x-group");
            return Err(Refusal::Precondition(text));
        }
        let joined = cursor.clone().filter(|_| member.is_some());
        if let Some(name) = &joined {
            self.share_cursor(name, (next, since), now, out)?;
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if let Some(name) = &joined
            && let Some(group) = stream.cursors.group_mut(name)
        {
            let single = member.as_ref().is_some_and(|it| it.single);
            if group.members.is_empty() {
                group.single = single;
            } else if group.single != single {
                let queue = format!("queue '{}' in vhost '{}'", self.name, self.vhost);
                let text = format!(
                    "members of group '{name}' of {queue} do not agree on x-single-active-consumer"
                );
                return Err(Refusal::Precondition(text));
            }
        }
        let place = stream.readers.add(NewReader {
            connection,
            channel,
            consumer: consume.consumer,
            no_ack: consume.no_ack,
            prefetch: consume.prefetch,
            next,
            since,
            until,
            filter,
            selector: consume.selection.as_ref().map(|it| Arc::clone(&it.selector)),
            key,
            newest,
            cursor,
            member,
        });
        if let Some(group) = joined.and_then(|name| stream.cursors.group_mut(&name)) {
            group.members.push(place);
        }
        Ok(())
    }

    /// A consumer reads no more. What it holds stays with its channel.
    pub(super) fn remove_reader(
        &mut self,
        connection: ConnectionId,
        consumer: ConsumerId,
        turn: &mut Turn<'_>,
    ) {
        let Some(stream) = &mut self.stream else { return };
        match stream.readers.cancel((connection, consumer)) {
            Some((Some(name), Ok(committed))) => {
                self.move_cursor(&name, committed, turn);
                self.write_cursor(&name, turn);
            }
            Some((Some(name), Err(place))) => {
                if let Some(group) = stream.cursors.group_mut(&name) {
                    group.leave(place);
                    stream.readers.wake_members(&group.members);
                }
                self.write_cursor(&name, turn);
            }
            _ => {}
        }
        if let Some(stream) = &mut self.stream
            && stream.readers.len() == 0
        {
            *turn.memory -= stream.log.forget_blocks(0);
        }
    }

    fn move_cursor(&mut self, name: &Name, next: Seq, turn: &mut Turn<'_>) {
        let Some(stream) = &mut self.stream else { return };
        if let Some(evicted) = stream.cursors.advance(name, next, turn.now) {
            turn.write(Write::Undefine(self.cursor_key(evicted)));
        }
    }

    pub(super) fn cursor_key(&self, name: Name) -> DefinitionKey {
        let (vhost, mailbox) = (self.vhost.clone(), self.name.clone());
        let (offset, since_ms, group) = (0, 0, None);
        let cursor = CursorDefinition { vhost, mailbox, name, offset, since_ms, group };
        Definition::Cursor(cursor).key()
    }

    fn cursor_write(&self, moved: Moved) -> Write {
        let Moved { name, next, since, group } = moved;
        Write::Define(Box::new(Definition::Cursor(CursorDefinition {
            vhost: self.vhost.clone(),
            mailbox: self.name.clone(),
            name,
            offset: next.0.saturating_sub(1),
            since_ms: since.0,
            group,
        })))
    }

    /// Where the cursor is now is written, if it is not yet.
    fn write_cursor(&mut self, name: &Name, turn: &mut Turn<'_>) {
        if let Some(moved) = self.stream.as_mut().and_then(|it| it.cursors.take(name)) {
            turn.write(self.cursor_write(moved));
        }
    }

    /// At an orderly stop cursors are exact.
    pub(super) fn settle_cursors(&mut self, out: &mut Vec<Effect>) {
        while let Some(moved) =
            self.stream.as_mut().and_then(|it| it.cursors.take_due(Time(u64::MAX)))
        {
            out.push(Effect::Write(self.cursor_write(moved)));
        }
    }

    /// Deliveries of a stream end. Returns how many, and whether the channel did not hold some of them.
    pub(super) fn settle_read(
        &mut self,
        run: &Run,
        by: (ConnectionId, ChannelId),
        outcome: Outcome,
        turn: &mut Turn<'_>,
    ) -> (u32, bool) {
        let Some(stream) = &mut self.stream else { return (0, true) };
        let (settled, ended) = stream.readers.settle(run, by, outcome);
        let mut unknown = run.count - settled;
        for seq in (run.first.0..run.first.0 + u64::from(run.count)).map(Seq) {
            if unknown == 0 {
                break;
            }
            unknown -= u32::from(turn.forgives(by, self.id, seq));
        }
        match ended {
            Some(Ended::Cursor { cursor, next, late }) => {
                let now = stream.cursors.next(&cursor);
                if !late || now.is_some_and(|(now, _)| now < next) {
                    self.move_cursor(&cursor, next, turn);
                }
            }
            Some(shared @ Ended::Shared { .. }) => self.settle_shared(shared, outcome, turn),
            None => {}
        }
        (settled, unknown > 0)
    }

    /// Channels give up what they hold; those of them that were cancelled go.
    pub(super) fn release_read(
        &mut self,
        connection: ConnectionId,
        channels: &[ChannelId],
        outcome: Outcome,
        turn: &mut Turn<'_>,
    ) {
        let Some(stream) = &mut self.stream else { return };
        let ended = stream.readers.release(|reader| {
            reader.connection == connection && channels.binary_search(&reader.channel).is_ok()
        });
        for shared in ended {
            self.settle_shared(shared, outcome, turn);
        }
    }

    /// A message comes to the log's end. It is shown once it is durable.
    pub(super) fn append_to_log(&mut self, message: Arc<Message>, turn: &mut Turn<'_>) {
        let bounds = Bounds::of(&self.limits);
        let seq = self.next;
        self.next.0 += 1;
        self.counts.published += 1;
        self.remember_publication(&message, seq, true, turn);
        let Some(stream) = &mut self.stream else { return };
        let rest = Rest { since: turn.now, ..Rest::default() };
        let entry = Entry { seq, message, rest, epoch: turn.epoch, stored: true, acquired: 0 };
        let append = Append { keyed: stream.keys.is_some(), ..entry.append(self.id, false) };
        turn.out.push(Effect::Write(Write::Append(append)));
        self.ready += 1;
        self.ready_bytes += entry.body_size();
        *turn.memory += entry.message.footprint();
        let message = stream.keys.is_some().then(|| entry.message.clone());
        stream.log.append(entry, &bounds);
        if let Some(message) = message {
            self.enter_key(seq, &message, turn.now, turn);
        }
    }

    /// Whether a message cannot come here because it names no key.
    pub(super) fn lacks_key(&self, message: &Message) -> bool {
        self.limits.kind == MailboxKind::Kv && key_of(message).is_none()
    }

    /// Older values of the message's key make way for it.
    fn enter_key(&mut self, seq: Seq, message: &Message, since: Time, turn: &mut Turn<'_>) {
        let Some(keys) = self.stream.as_mut().and_then(|it| it.keys.as_mut()) else { return };
        for gone in keys.add(seq, message, since) {
            self.vacate(gone, turn);
        }
    }

    fn vacate(&mut self, seq: Seq, turn: &mut Turn<'_>) {
        let Some(stream) = &mut self.stream else { return };
        let Some(size) = stream.log.vacate(seq) else { return };
        self.ready -= 1;
        self.ready_bytes -= size;
        self.counts.dropped += 1;
        turn.write(Write::Remove { mailbox: self.id, first: seq, count: 1 });
    }

    /// Asks for the next messages whose keys are not known again yet.
    fn index_more(&mut self, turn: &mut Turn<'_>) {
        let Some(stream) = &mut self.stream else { return };
        let Some(keys) = stream.keys.as_mut().filter(|_| stream.indexing.is_none()) else { return };
        if keys.unread().is_none() {
            return;
        }
        while let Some((from, end)) = keys.unread() {
            let stored = stream.log.stored_from(from).filter(|(first, _)| *first < end);
            let Some((first, count)) = stored else {
                keys.read_upto(end);
                break;
            };
            let count = u64::from(count).min(end.0 - first.0) as u32;
            let ranges = stream.log.ranges(first, count);
            if ranges.is_empty() {
                keys.read_upto(Seq(first.0 + u64::from(count)));
                continue;
            }
            stream.indexing = Some((first, count));
            turn.out.push(fetch(self.id, KEYS_LANE, ranges));
            break;
        }
        if keys.unread().is_none() {
            stream.readers.wake_tail();
        }
    }

    fn index(&mut self, fetched: Fetched, turn: &mut Turn<'_>) {
        let Some((first, count)) = self.stream.as_mut().and_then(|it| it.indexing.take()) else {
            return;
        };
        for found in fetched.messages {
            let Some(stream) = &mut self.stream else { return };
            match found.message {
                Ok(message) => {
                    let size = message.body().len() as u64;
                    let Some(before) = stream.log.measure(found.seq, size) else { continue };
                    self.ready_bytes = self.ready_bytes - before + size;
                    self.enter_key(found.seq, &message, found.rest.since, turn);
                }
                Err(reason) => self.lose(found.seq, Some(reason), turn),
            }
        }
        let Some(stream) = &mut self.stream else { return };
        let Some(keys) = &mut stream.keys else { return };
        keys.read_upto(Seq(first.0 + u64::from(count)));
        if keys.unread().is_none() {
            return stream.readers.wake_tail();
        }
        self.index_more(turn);
    }

    /// A stored record that cannot be trusted is never delivered; its neighbours are.
    fn lose(&mut self, seq: Seq, reason: Option<String>, turn: &mut Turn<'_>) {
        let Some(stream) = &mut self.stream else { return };
        let Some(bytes) = stream.log.punch(seq) else { return };
        if let Some(keys) = &mut stream.keys {
            keys.forget(seq);
        }
        self.ready -= 1;
        self.ready_bytes -= bytes;
        self.counts.damaged += 1;
        if let Some(reason) = reason {
            turn.write(Write::Quarantine { mailbox: self.id, seq, reason });
        }
    }

    /// Shows what became durable, gives it to readers, and trims.
    pub(super) fn dispatch_stream(&mut self, turn: &mut Turn<'_>) {
        let Some(stream) = &mut self.stream else { return };
        if stream.log.advance(turn.durable) {
            stream.readers.wake_tail();
        }
        if stream.log.has_unseen() {
            turn.awaiting.insert(self.id);
        }
        self.index_more(turn);
        self.ask_age(turn);
        self.wake_groups(turn);
        let Some(stream) = &mut self.stream else { return };
        if !std::mem::replace(&mut self.stuck, true) {
            stream.readers.wake_stalled();
        }
        self.feed(turn);
        self.dismiss(turn);
        self.trim(turn);
        let Some(stream) = &mut self.stream else { return };
        let scarce = *turn.memory > turn.settings.memory_max / 2;
        *turn.memory -= stream.log.cool(turn.settings, false);
        let keep = if scarce { 0 } else { Log::blocks_max(turn.settings) };
        *turn.memory -= stream.log.forget_blocks(keep);
        while let Some(seq) =
            self.stream.as_mut().and_then(|it| it.keys.as_mut()?.take_expired(turn.now))
        {
            self.vacate(seq, turn);
        }
        while let Some(moved) = self.stream.as_mut().and_then(|it| it.cursors.take_due(turn.now)) {
            turn.write(self.cursor_write(moved));
        }
    }

    /// Whole segments go, oldest first, where the log is too long or they are too old.
    fn trim(&mut self, turn: &mut Turn<'_>) {
        let Limits { age_max_ms, length_max, bytes_max, .. } = self.limits;
        let Some(stream) = &mut self.stream else { return };
        while let Some(front) = stream.log.front() {
            let old = age_max_ms.is_some_and(|most| front.until.plus_ms(most) <= turn.now);
            let long = length_max.is_some_and(|most| self.ready > most)
                || (bytes_max.is_some_and(|most| self.ready_bytes > most)
                    && stream.log.has_several_segments());
            if !old && !long {
                break;
            }
            let Some((gone, freed)) = stream.log.trim() else { break };
            *turn.memory -= freed;
            self.ready -= u64::from(gone.count);
            self.ready_bytes -= gone.bytes;
            let counter = if old { &mut self.counts.expired } else { &mut self.counts.dropped };
            *counter += u64::from(gone.count);
            let (first, count) = (gone.first, gone.count);
            turn.write(Write::Remove { mailbox: self.id, first, count });
        }
    }

    /// What a reader waited for is here.
    pub(super) fn fetched_stream(&mut self, fetched: Fetched, turn: &mut Turn<'_>) {
        if fetched.lane == KEYS_LANE {
            return self.index(fetched, turn);
        }
        if fetched.lane == AGE_LANE {
            return self.answer_age(&fetched);
        }
        let Some(stream) = &mut self.stream else { return };
        let Some((first, count)) = stream.log.answered(fetched.lane) else { return };
        let end = Seq(first.0 + u64::from(count));
        let before = stream.log.memory();
        let lost = stream.log.loaded((first, count), fetched.messages);
        *turn.memory = *turn.memory + stream.log.memory() - before;
        for (seq, reason) in lost {
            self.lose(seq, reason, turn);
        }
        let Some(stream) = &mut self.stream else { return };
        stream.readers.wake_loading(first, end);
        // There is room for a question of somebody who found none.
        let mut from = end;
        for _ in 0..log::ASKED_MAX {
            let Some((seq, alone)) = stream.readers.next_loading(from) else { break };
            if let Some((lane, range)) = stream.log.ask_for(seq, alone) {
                turn.out.push(fetch(self.id, lane, range));
                break;
            }
            match stream.log.asked_end(seq) {
                Some(end) => from = end,
                None => break,
            }
        }
    }

    /// Takes over what the store found.
    pub(super) fn recover_stream(&mut self, found: &RecoveredMailbox, now: Time) {
        let Some(stream) = &mut self.stream else { return };
        self.next = found.next;
        for run in &found.messages {
            self.counts.recovered += u64::from(run.count);
            self.ready += u64::from(run.count);
            self.ready_bytes += run.bytes;
            stream.log.recover(run);
        }
        stream.log.recovered(found.next, now);
        stream.undated = found.messages.last().map(|run| Undated::last_of(run, now));
        if let Some(keys) = &mut stream.keys {
            keys.recovered(stream.log.first(), found.next);
        }
    }

    /// When `tick` has something to do.
    pub(super) fn next_stream_deadline(&self) -> Option<Time> {
        let stream = self.stream.as_ref()?;
        let front = stream.log.front().zip(self.limits.age_max_ms);
        let old = front.map(|(front, most)| front.until.plus_ms(most));
        let deletion = stream.keys.as_ref().and_then(Keys::next_expiry);
        let (due, alarm) = (stream.cursors.next_due(), stream.cursors.next_alarm());
        [old, due, alarm, deletion].into_iter().flatten().min()
    }

    /// Memory ran out: only what is not durable stays in it.
    pub(super) fn spill_stream(&mut self, turn: &mut Turn<'_>) {
        let Some(stream) = &mut self.stream else { return };
        let freed = stream.log.cool(turn.settings, true) + stream.log.forget_blocks(0);
        *turn.memory -= freed;
    }
}

fn fetch(mailbox: super::MailboxId, lane: u16, ranges: Ranges) -> Effect {
    Effect::Fetch(Fetch { mailbox, lane, ranges })
}

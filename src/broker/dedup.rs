//! Messages that come twice: which were published to a mailbox lately, known by the ids that their publishers gave.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::command::Seq;
use super::definition::{Definition, PublicationDefinition};
use super::event::Write;
use super::mailbox::Mailbox;
use super::message::Message;
use super::name::{Name, Time};
use super::turn::Turn;
use super::value::TableKey;

/// The header with a message's id, as RabbitMQ's plugin has it; then Artemis's; then the property message-id.
const HEADER: &str = "x-deduplication-header";
const ARTEMIS: &str = "_AMQ_DUPL_ID";

/// A message with a longer id is taken as one without.
const ID_SIZE_MAX: usize = 512;

pub(super) const WINDOW_DEFAULT_MS: u64 = 120_000;
pub(super) const COUNT_DEFAULT: u64 = 65_536;
pub(super) const COUNT_MAX: u64 = 1_000_000;

/// What a mailbox was declared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) time_ms: u64,
    /// Ids that are remembered; the oldest goes.
    pub(super) count: u64,
    /// The header that names a message, in place of the usual ones.
    pub(super) header: Option<Name>,
}

#[derive(Debug, Default)]
pub(super) struct Publications {
    by_id: BTreeMap<Bytes, Seq>,
    /// The same in the order in which they came.
    by_seq: BTreeMap<Seq, Publication>,
}

#[derive(Debug)]
struct Publication {
    id: Bytes,
    at: Time,
    stored: bool,
}

impl Publications {
    pub(super) fn restore(&mut self, id: Bytes, seq: Seq, at: Time) {
        self.by_id.insert(id.clone(), seq);
        self.by_seq.insert(seq, Publication { id, at, stored: true });
    }

    /// Ids that the store knows.
    pub(super) fn stored(&self) -> impl Iterator<Item = &Bytes> {
        self.by_seq.values().filter(|it| it.stored).map(|it| &it.id)
    }
}

impl Window {
    fn id_of(&self, message: &Message) -> Option<Bytes> {
        let properties = message.properties();
        let header = |name| properties.header(name).and_then(|it| it.as_bytes()).cloned();
        let id = match &self.header {
            Some(name) => header(name),
            None => {
                header(HEADER).or_else(|| header(ARTEMIS)).or_else(|| properties.message_id.clone())
            }
        };
        id.filter(|id| !id.is_empty() && id.len() <= ID_SIZE_MAX)
    }
}

impl Mailbox {
    /// Where the message that has this one's id came to rest, if that was lately.
    pub(super) fn first_of(&mut self, message: &Message, turn: &mut Turn<'_>) -> Option<Seq> {
        let id = self.limits.dedup.as_ref()?.id_of(message)?;
        self.forget_publications(turn);
        let first = self.publications.by_id.get(&id).copied()?;
        self.counts.duplicates += 1;
        Some(first)
    }

    /// Those that are too old, or too many.
    fn forget_publications(&mut self, turn: &mut Turn<'_>) {
        let Some(window) = &self.limits.dedup else { return };
        let (time_ms, count) = (window.time_ms, window.count);
        while let Some(first) = self.publications.by_seq.first_entry()
            && (first.get().at.plus_ms(time_ms) <= turn.now
                || self.publications.by_id.len() as u64 > count)
        {
            let Publication { id, stored, .. } = first.remove();
            self.publications.by_id.remove(&id);
            if stored {
                turn.write(Write::Undefine(self.publication(id, Seq(0), Time::ZERO).key()));
            }
        }
    }

    /// The message takes this position: in the same batch as it, its id is known.
    pub(super) fn remember_publication(
        &mut self,
        message: &Message,
        seq: Seq,
        stored: bool,
        turn: &mut Turn<'_>,
    ) {
        let Some(id) = self.limits.dedup.as_ref().and_then(|it| it.id_of(message)) else { return };
        // A dead letter may come back with an id that is known.
        if self.publications.by_id.contains_key(&id) {
            return;
        }
        if stored {
            let publication = self.publication(id.clone(), seq, turn.now);
            turn.write(Write::Define(Box::new(publication)));
        }
        self.publications.by_id.insert(id.clone(), seq);
        self.publications.by_seq.insert(seq, Publication { id, at: turn.now, stored });
        self.forget_publications(turn);
    }

    pub(super) fn publication(&self, id: Bytes, seq: Seq, at: Time) -> Definition {
        Definition::Publication(PublicationDefinition {
            vhost: self.vhost.clone(),
            mailbox: self.name.clone(),
            id: TableKey(id),
            position: seq.0,
            at_ms: at.0,
        })
    }
}

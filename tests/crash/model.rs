//! What must be in the store: a plain map, and how it compares with what was recovered.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pillarbox::broker::{
    Append, Definition, DefinitionKey, Fetch, MailboxDefinition, MailboxId, Message, Name, Parts,
    Properties, Recovered, Rest, Seq, Span, Table, Time, WireForm, Write,
};
use pillarbox::store::Reader;

pub(crate) static RAW: WireForm =
    WireForm { id: 9, name: "raw", decode: |_| Properties::default(), encode: |_, _| {} };

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) mailboxes: BTreeMap<u64, Mailbox>,
    pub(crate) definitions: BTreeMap<DefinitionKey, Definition>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Mailbox {
    /// At least this is the next position after a restart.
    pub(crate) next: u64,
    /// Given, but to messages that never reached the disk: sure with the next commit that writes.
    pending: u64,
    pub(crate) mark: u64,
    pub(crate) live: BTreeMap<u64, Live>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) message: Body,
    pub(crate) rest: Rest,
    pub(crate) transient: bool,
}

/// A body is made from two numbers, so that the model need not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) seed: u64,
    pub(crate) len: usize,
}

impl Body {
    pub(crate) fn bytes(self) -> Vec<u8> {
        (0..self.len as u64)
            .map(|at| {
                (self.seed.wrapping_mul(31).wrapping_add(at).wrapping_mul(0x9E37_79B9) >> 24) as u8
            })
            .collect()
    }

    pub(crate) fn message(self) -> Arc<Message> {
        let mut buffer = format!("key{}", self.seed).into_bytes();
        let key = Span { start: 0, end: buffer.len() as u32 };
        buffer.extend_from_slice(b"some properties");
        let properties = Span { start: key.end, end: buffer.len() as u32 };
        buffer.extend_from_slice(&self.bytes());
        let body = Span { start: properties.end, end: buffer.len() as u32 };
        let parts = Parts {
            exchange: Name::from(if self.seed.is_multiple_of(3) { "amq.topic" } else { "" }),
            buffer: Bytes::from(buffer),
            key,
            properties,
            body,
            form: &RAW,
            persistent: true,
            priority: (self.seed % 10) as u8,
            expiration_ms: self.seed.is_multiple_of(5).then_some(self.seed),
        };
        let mut message = Message::new(parts, Time(1_000_000 + self.seed));
        message.id.0 = u128::from(self.seed) << 64 | 5;
        Arc::new(message)
    }
}

pub(crate) fn definition(id: u64) -> Definition {
    Definition::Mailbox(MailboxDefinition {
        id: MailboxId(id),
        vhost: Name::from("/"),
        name: Name::from(format!("m{id}")),
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Table::new(),
        epoch: 0,
    })
}

impl Model {
    /// Enters what a commit says. `bodies` tells what the messages are made of.
    pub(crate) fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Append(append) => self.append(append),
                Write::Remove { mailbox, first, count } => {
                    if let Some(mailbox) = self.mailboxes.get_mut(&mailbox.0) {
                        let end = first.0 + u64::from(*count);
                        mailbox.live.retain(|seq, _| !(first.0..end).contains(seq));
                    }
                }
                Write::Mark { mailbox, upto } => self.mailbox(mailbox.0).mark = upto.0,
                Write::Attempts { mailbox, seq, attempts, deliver_at } => {
                    let live = &mut self.mailbox(mailbox.0).live;
                    if let Some(live) = live.get_mut(&seq.0) {
                        live.rest.attempts = *attempts;
                        live.rest.deliver_at = *deliver_at;
                    }
                }
                Write::Drop { mailbox } => drop(self.mailboxes.remove(&mailbox.0)),
                Write::Quarantine { mailbox, seq, .. } => {
                    self.mailbox(mailbox.0).live.remove(&seq.0);
                }
                Write::Define(definition) => {
                    self.definitions.insert(definition.key(), (**definition).clone());
                }
                Write::Undefine(key) => drop(self.definitions.remove(key)),
            }
        }
        let writes_something = writes.iter().any(|write| match write {
            Write::Append(append) => {
                let mailbox = self.mailboxes.get(&append.mailbox.0);
                mailbox.is_some_and(|it| it.live.contains_key(&append.seq.0))
            }
            Write::Remove { .. } | Write::Drop { .. } => false,
            _ => true,
        });
        if writes_something {
            for mailbox in self.mailboxes.values_mut() {
                mailbox.next = mailbox.next.max(mailbox.pending);
            }
        }
    }

    fn mailbox(&mut self, id: u64) -> &mut Mailbox {
        self.mailboxes.entry(id).or_default()
    }

    fn append(&mut self, append: &Append) {
        let seed = append.message.accepted.0 - 1_000_000;
        let live = Live {
            message: Body { seed, len: append.message.body().len() },
            rest: append.rest,
            transient: append.transient,
        };
        let mailbox = self.mailbox(append.mailbox.0);
        mailbox.pending = mailbox.pending.max(append.seq.0 + 1);
        mailbox.live.insert(append.seq.0, live);
    }

    /// What a restart takes away.
    pub(crate) fn restart(&mut self) {
        let kept: Vec<u64> = self
            .definitions
            .values()
            .filter_map(|it| match it {
                Definition::Mailbox(mailbox) => Some(mailbox.id.0),
                _ => None,
            })
            .collect();
        self.mailboxes.retain(|id, _| kept.contains(id));
        for mailbox in self.mailboxes.values_mut() {
            mailbox.live.retain(|_, live| !live.transient);
            mailbox.pending = 0;
        }
    }

    /// Whether this is what was recovered; the first difference in words.
    pub(crate) fn compare(&self, recovered: &Recovered) -> Result<(), String> {
        let mut definitions = BTreeMap::new();
        for definition in &recovered.definitions {
            definitions.insert(definition.key(), definition.clone());
        }
        if definitions != self.definitions {
            return Err(format!(
                "definitions: {:?} instead of {:?}",
                definitions.keys(),
                self.definitions.keys()
            ));
        }
        let empty = Mailbox::default();
        for found in &recovered.mailboxes {
            let id = found.id.0;
            let mailbox = self.mailboxes.get(&id).unwrap_or(&empty);
            if found.next.0 < mailbox.next {
                return Err(format!("mailbox {id}: next {} < {}", found.next.0, mailbox.next));
            }
            if found.mark.0 != mailbox.mark {
                return Err(format!("mailbox {id}: mark {} not {}", found.mark.0, mailbox.mark));
            }
            let mut live = mailbox.live.iter();
            for run in &found.messages {
                let mut bytes = 0;
                for seq in run.first.0..run.first.0 + u64::from(run.count) {
                    let expected = live.next();
                    let Some((_, expected)) = expected.filter(|(at, _)| **at == seq) else {
                        return Err(format!("mailbox {id}: {seq} found, expected {expected:?}"));
                    };
                    bytes += expected.message.len as u64;
                    let mut rest = run.rest;
                    // A run keeps the time of a message at its start or before.
                    if rest.since <= expected.rest.since.plus_ms(2) {
                        rest.since = expected.rest.since;
                    }
                    if rest != expected.rest {
                        return Err(format!(
                            "mailbox {id}: {seq} {rest:?} not {:?}",
                            expected.rest
                        ));
                    }
                }
                if bytes != run.bytes {
                    return Err(format!("mailbox {id}: run {run:?} has {bytes} bytes"));
                }
            }
            if let Some((seq, _)) = live.next() {
                return Err(format!("mailbox {id}: {seq} is lost"));
            }
        }
        for (id, mailbox) in &self.mailboxes {
            let found = recovered.mailboxes.iter().any(|it| it.id.0 == *id);
            if !found && (!mailbox.live.is_empty() || mailbox.next > 1) {
                return Err(format!("mailbox {id} is lost"));
            }
        }
        Ok(())
    }

    /// Reads everything that is live and compares it.
    pub(crate) fn compare_bodies(&self, reader: &Reader) -> Result<(), String> {
        for (id, mailbox) in &self.mailboxes {
            let ranges = mailbox.live.keys().map(|seq| (Seq(*seq), 1)).collect();
            let fetch = Fetch { mailbox: MailboxId(*id), lane: 0, ranges };
            let found = reader.fetch(&fetch).map_err(|out| out.to_string())?;
            if found.len() != mailbox.live.len() {
                return Err(format!("mailbox {id}: {} of {}", found.len(), mailbox.live.len()));
            }
            for (found, (seq, live)) in found.iter().zip(&mailbox.live) {
                let message = found
                    .message
                    .as_ref()
                    .map_err(|reason| format!("mailbox {id}, {seq}: {reason}"))?;
                let expected = live.message.message();
                let same = found.seq.0 == *seq
                    && message.body() == expected.body()
                    && message.key() == expected.key()
                    && message.property_bytes() == expected.property_bytes()
                    && message.exchange() == expected.exchange()
                    && message.id == expected.id
                    && message.accepted == expected.accepted
                    && message.persistent()
                    && message.priority() == expected.priority()
                    && message.expiration_ms() == expected.expiration_ms();
                if !same {
                    return Err(format!("mailbox {id}: {seq} is not what was sent"));
                }
            }
        }
        Ok(())
    }
}

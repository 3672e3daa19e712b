//! A change: what a commit does to the index besides new messages. The same from a write and from its record.

use crate::broker::{DefinitionKey, DefinitionKind};

use super::index::Index;
use super::record::{self, Record};

#[derive(Debug)]
pub(super) enum Change {
    Remove { mailbox: u64, first: u64, count: u32 },
    Next { mailbox: u64, next: u64 },
    Mark { mailbox: u64, upto: u64 },
    Attempts { mailbox: u64, seq: u64, attempts: u32, deliver_at: u64 },
    Drop { mailbox: u64 },
    Quarantine { mailbox: u64, seq: u64, reason: Vec<u8>, record: Vec<u8> },
    Define { key: Vec<u8>, value: Vec<u8> },
    Undefine { key: Vec<u8> },
    Opened,
}

impl Change {
    pub(super) fn put(&self, out: &mut Vec<u8>, salt: u32) {
        let mut numbers = |kind, numbers: &[u64]| record::put_numbers(out, kind, numbers, salt);
        match self {
            Self::Remove { mailbox, first, count } => {
                numbers(record::REMOVE, &[*mailbox, *first, (*count).into()]);
            }
            Self::Next { mailbox, next } => numbers(record::NEXT, &[*mailbox, *next]),
            Self::Mark { mailbox, upto } => numbers(record::MARK, &[*mailbox, *upto]),
            Self::Attempts { mailbox, seq, attempts, deliver_at } => {
                let values = [*mailbox, *seq, (*attempts).into(), *deliver_at];
                numbers(record::ATTEMPTS, &values);
            }
            Self::Drop { mailbox } => numbers(record::DROP, &[*mailbox]),
            Self::Quarantine { mailbox, seq, reason, record } => {
                let pair = (reason.as_slice(), record.as_slice());
                record::put_pair(out, record::QUARANTINE, &[*mailbox, *seq], pair, salt);
            }
            Self::Define { key, value } => {
                record::put_pair(out, record::DEFINE, &[], (key, value), salt);
            }
            Self::Undefine { key } => {
                record::put_pair(out, record::UNDEFINE, &[], (key, &[]), salt);
            }
            Self::Opened => numbers(record::OPENED, &[]),
        }
    }

    /// At most what `put` writes.
    pub(super) fn size_max(&self) -> usize {
        match self {
            Self::Quarantine { reason, record, .. } => 48 + reason.len() + record.len(),
            Self::Define { key, value } => 32 + key.len() + value.len(),
            Self::Undefine { key } => 32 + key.len(),
            _ => 48,
        }
    }

    /// `None` where the record's data is damaged, or it is a message.
    pub(super) fn read(record: &Record<'_>) -> Option<Self> {
        Some(match record.kind {
            record::REMOVE => Self::Remove {
                mailbox: record.mailbox(),
                first: record.seq(),
                count: record.number(),
            },
            record::NEXT => Self::Next { mailbox: record.mailbox(), next: record.seq() },
            record::MARK => Self::Mark { mailbox: record.mailbox(), upto: record.seq() },
            record::ATTEMPTS => Self::Attempts {
                mailbox: record.mailbox(),
                seq: record.seq(),
                attempts: record.number(),
                deliver_at: record.deliver_at(),
            },
            record::DROP => Self::Drop { mailbox: record.mailbox() },
            record::QUARANTINE => {
                let (reason, bytes) = record.pair()?;
                Self::Quarantine {
                    mailbox: record.mailbox(),
                    seq: record.seq(),
                    reason: reason.to_vec(),
                    record: bytes.to_vec(),
                }
            }
            record::DEFINE => {
                let (key, value) = record.pair()?;
                Self::Define { key: key.to_vec(), value: value.to_vec() }
            }
            record::UNDEFINE => Self::Undefine { key: record.pair()?.0.to_vec() },
            record::OPENED => Self::Opened,
            _ => return None,
        })
    }
}

impl Index {
    /// Enters a durable change. Doing it twice is the same as once.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Remove { mailbox, first, count } => self.remove(mailbox, first, count),
            Change::Next { mailbox, next } => self.advance(mailbox, next),
            Change::Mark { mailbox, upto } => self.touch(mailbox).mark = upto,
            Change::Attempts { mailbox, seq, attempts, deliver_at } => {
                self.attempts.insert((mailbox, seq), (attempts, deliver_at));
            }
            Change::Drop { mailbox } => self.drop_mailbox(mailbox),
            Change::Quarantine { mailbox, seq, reason, record } => {
                self.remove(mailbox, seq, 1);
                self.quarantine.insert((mailbox, seq), (reason, record));
            }
            Change::Define { key, value } => {
                self.definitions.insert(key, Some(value));
            }
            Change::Undefine { key } => {
                self.definitions.insert(key, None);
            }
            Change::Opened => {}
        }
    }
}

/// A definition's key as bytes: the kind's name, a zero, and the path with the length before each name.
pub(super) fn key_bytes(key: &DefinitionKey) -> Vec<u8> {
    let kind: &[u8] = match key.kind {
        DefinitionKind::Vhost => b"vhost",
        DefinitionKind::User => b"user",
        DefinitionKind::Permission => b"permission",
        DefinitionKind::TopicPermission => b"topic-permission",
        DefinitionKind::Exchange => b"exchange",
        DefinitionKind::Mailbox => b"mailbox",
        DefinitionKind::Binding => b"binding",
        DefinitionKind::Policy => b"policy",
        DefinitionKind::OperatorPolicy => b"operator-policy",
        DefinitionKind::Parameter => b"parameter",
        DefinitionKind::Cursor => b"cursor",
        DefinitionKind::Route => b"route",
        DefinitionKind::Taken => b"taken",
        DefinitionKind::Publication => b"publication",
        DefinitionKind::Host => b"host",
    };
    let mut bytes = kind.to_vec();
    bytes.push(0);
    for name in &key.path {
        bytes.extend_from_slice(&(name.len() as u32).to_be_bytes());
        bytes.extend_from_slice(name);
    }
    bytes
}

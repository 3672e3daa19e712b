//! A model of the store: what is durable, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::broker::*;

/// What the store holds: the durable state and nothing else.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) definitions: BTreeMap<DefinitionKey, Definition>,
    pub(super) mailboxes: BTreeMap<MailboxId, DiskMailbox>,
    pub(super) quarantined: Vec<(MailboxId, Seq, String)>,
    pub(super) appends: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct DiskMailbox {
    pub(super) messages: BTreeMap<Seq, Append>,
    pub(super) next: Seq,
    pub(super) mark: Seq,
}

impl Disk {
    pub(super) fn write(&mut self, write: &Write) {
        match write {
            Write::Append(append) => {
                self.appends += 1;
                let mailbox = self.mailboxes.entry(append.mailbox).or_default();
                if !append.transient {
                    assert!(append.seq >= mailbox.next, "position {:?} is used twice", append.seq);
                    mailbox.next = Seq(append.seq.0 + 1);
                }
                let before = mailbox.messages.insert(append.seq, append.clone());
                assert!(before.is_none(), "position {:?} is stored twice", append.seq);
            }
            Write::Remove { mailbox, first, count } => {
                let Some(mailbox) = self.mailboxes.get_mut(mailbox) else { return };
                for seq in first.0..first.0 + u64::from(*count) {
                    mailbox.messages.remove(&Seq(seq));
                }
            }
            Write::Mark { mailbox, upto } => {
                self.mailboxes.entry(*mailbox).or_default().mark = *upto;
            }
            Write::Attempts { mailbox, seq, attempts, deliver_at } => {
                let mailbox = self.mailboxes.entry(*mailbox).or_default();
                if let Some(append) = mailbox.messages.get_mut(seq) {
                    append.rest.attempts = *attempts;
                    append.rest.deliver_at = *deliver_at;
                }
            }
            Write::Drop { mailbox } => drop(self.mailboxes.remove(mailbox)),
            Write::Quarantine { mailbox, seq, reason } => {
                if let Some(found) = self.mailboxes.get_mut(mailbox) {
                    found.messages.remove(seq);
                }
                self.quarantined.push((*mailbox, *seq, reason.clone()));
            }
            Write::Define(definition) => {
                self.definitions.insert(definition.key(), (**definition).clone());
            }
            Write::Undefine(key) => drop(self.definitions.remove(key)),
        }
    }

    pub(super) fn recovered(&self) -> Recovered {
        let mut mailboxes = Vec::new();
        for (&id, found) in &self.mailboxes {
            let mut messages: Vec<RecoveredRun> = Vec::new();
            let plain = |rest: &Rest| {
                rest.expires == Time::ZERO && rest.deliver_at == Time::ZERO && rest.attempts == 0
            };
            for append in found.messages.values().filter(|append| !append.transient) {
                let bytes = append.message.body().len() as u64;
                if let Some(last) = messages.last_mut()
                    && last.first.0 + u64::from(last.count) == append.seq.0
                    && plain(&last.rest)
                    && plain(&append.rest)
                    && last.rest.lane == append.rest.lane
                {
                    last.count += 1;
                    last.bytes += bytes;
                } else {
                    let (first, rest) = (append.seq, append.rest);
                    messages.push(RecoveredRun { first, count: 1, bytes, rest });
                }
            }
            let (next, mark) = (found.next.max(Seq(1)), found.mark);
            mailboxes.push(RecoveredMailbox { id, next, mark, messages });
        }
        let definitions = self.definitions.values().cloned().collect();
        Recovered { definitions, mailboxes, clean: false }
    }

    pub(super) fn fetch(&self, fetch: &Fetch, damaged: &BTreeSet<(MailboxId, Seq)>) -> Fetched {
        let mut last = 0;
        let mut messages = Vec::new();
        for &(first, count) in &fetch.ranges {
            assert!(first.0 > last && count > 0, "ranges ascend: {:?}", fetch.ranges);
            last = first.0 + u64::from(count) - 1;
            for seq in (first.0..=last).map(Seq) {
                let found = self.mailboxes.get(&fetch.mailbox);
                let Some(append) = found.and_then(|it| it.messages.get(&seq)) else { continue };
                // A body comes from the disk as a copy.
                let message = if damaged.contains(&(fetch.mailbox, seq)) {
                    Err("checksum".to_owned())
                } else {
                    Ok(Arc::new(append.message.detached()))
                };
                messages.push(FetchedMessage { seq, rest: append.rest, message });
            }
        }
        Fetched { mailbox: fetch.mailbox, lane: fetch.lane, messages }
    }
}

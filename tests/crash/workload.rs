//! Random commits over a few mailboxes, as a broker might make them.

use std::sync::Arc;

use pillarbox::broker::{
    Append, Definition, MailboxId, Message, Rest, Seq, TakenDefinition, Time, Write,
};

use super::model::{Body, Model, definition};
use super::random::Random;

pub(crate) struct Workload {
    random: Random,
    next_body: u64,
    next_mailbox: u64,
    /// Positions given, also by commits that failed.
    pub(crate) given: std::collections::BTreeMap<u64, u64>,
}

impl Workload {
    pub(crate) fn new(random: Random) -> Self {
        Self { random, next_body: 0, next_mailbox: 1, given: Default::default() }
    }

    fn message(&mut self) -> Arc<Message> {
        let random = &mut self.random;
        let len = match random.below(100) {
            0 => 120_000 + random.below(300_000),
            1..5 => 10_000 + random.below(60_000),
            5..10 => 0,
            _ => random.below(1_500),
        };
        self.next_body += 1;
        Body { seed: self.next_body, len: len as usize }.message()
    }

    fn append(&mut self, mailbox: u64, message: &Arc<Message>) -> Write {
        let random = &mut self.random;
        let next = self.given.entry(mailbox).or_insert(1);
        let seq = *next;
        *next += 1;
        let mut rest =
            Rest { since: Time(message.accepted.0 + random.below(3)), ..Rest::default() };
        match random.below(12) {
            0 => rest.lane = random.below(4) as u8,
            1 => rest.expires = Time(5_000_000 + random.below(1000)),
            2 => rest.deliver_at = Time(6_000_000 + random.below(1000)),
            3 => rest.attempts = 1 + random.below(3) as u32,
            4 => rest.redelivered = true,
            _ => {}
        }
        let transient = random.chance(15);
        Write::Append(Append {
            mailbox: MailboxId(mailbox),
            seq: Seq(seq),
            message: Arc::clone(message),
            rest,
            transient,
            keyed: random.chance(25),
        })
    }

    /// The writes of one commit.
    pub(crate) fn commit(&mut self, model: &Model) -> Vec<Write> {
        let mut writes = Vec::new();
        for _ in 0..1 + self.random.below(6) {
            self.step(model, &mut writes);
        }
        writes
    }

    fn some_mailbox(&mut self, model: &Model) -> Option<u64> {
        let at = self.random.below(model.mailboxes.len() as u64) as usize;
        model.mailboxes.keys().nth(at).copied()
    }

    fn step(&mut self, model: &Model, writes: &mut Vec<Write>) {
        let dropped = |id: u64, writes: &[Write]| {
            writes.iter().any(|it| matches!(it, Write::Drop { mailbox } if mailbox.0 == id))
        };
        let known = self.some_mailbox(model).filter(|id| !dropped(*id, writes));
        let Some(id) = known else {
            let id = self.next_mailbox;
            self.next_mailbox += 1;
            writes.push(Write::Define(Box::new(definition(id))));
            let message = self.message();
            let append = self.append(id, &message);
            writes.push(append);
            return;
        };
        let live = &model.mailboxes[&id].live;
        let first = live.keys().next().copied().unwrap_or(1);
        let some = live.keys().nth(self.random.below(live.len() as u64) as usize).copied();
        match self.random.below(43) {
            0..12 => {
                for _ in 0..self.random.below(30) {
                    let message = self.message();
                    let append = self.append(id, &message);
                    writes.push(append);
                }
            }
            12..16 => {
                // One body for several.
                let message = self.message();
                let mut ids: Vec<u64> = model.mailboxes.keys().copied().collect();
                ids.retain(|id| !dropped(*id, writes));
                for id in ids {
                    let append = self.append(id, &message);
                    writes.push(append);
                }
            }
            16..25 => {
                let count = self.random.below(40);
                writes.extend(self.remove(id, first, count));
            }
            25..30 => {
                let count = 1 + self.random.below(3);
                writes.extend(self.remove(id, some.unwrap_or(1), count));
            }
            30..33 => {
                // Come and gone in one commit.
                let from = *self.given.get(&id).unwrap_or(&1);
                let count = 1 + self.random.below(4);
                for _ in 0..count {
                    let message = self.message();
                    let append = self.append(id, &message);
                    writes.push(append);
                }
                let kept = self.random.below(2);
                writes.extend(self.remove(id, from + kept, count));
            }
            33 | 34 => {
                let upto = Seq(self.given.get(&id).copied().unwrap_or(1) + self.random.below(100));
                writes.push(Write::Mark { mailbox: MailboxId(id), upto });
            }
            35 | 36 => writes.push(Write::Attempts {
                mailbox: MailboxId(id),
                seq: Seq(some.unwrap_or(1)),
                attempts: self.random.below(5) as u32,
                deliver_at: Time(self.random.below(2) * 7_000_000),
            }),
            37 => writes.push(Write::Quarantine {
                mailbox: MailboxId(id),
                seq: Seq(some.unwrap_or(1)),
                reason: "of no use".into(),
            }),
            38 if self.random.chance(3) => {
                writes.push(Write::Undefine(definition(id).key()));
                writes.push(Write::Drop { mailbox: MailboxId(id) });
            }
            39..41 => {
                // From another host: how far it was taken is written with the messages, or neither is.
                for _ in 0..1 + self.random.below(10) {
                    let message = self.message();
                    let append = self.append(id, &message);
                    writes.push(append);
                }
                let definition = TakenDefinition {
                    host: "b".into(),
                    vhost: "/".into(),
                    outbox: MailboxId(7),
                    upto: Seq(self.next_body),
                };
                writes.push(Write::Define(Box::new(Definition::Taken(definition))));
            }
            41 => {
                // As the outboxes of a broker that starts do.
                *self.given.entry(id).or_insert(1) += self.random.below(3) << 20;
                let message = self.message();
                let append = self.append(id, &message);
                writes.push(append);
            }
            _ => {
                let id = self.next_mailbox;
                self.next_mailbox += 1;
                if model.mailboxes.len() < 6 {
                    writes.push(Write::Define(Box::new(definition(id))));
                    let message = self.message();
                    let append = self.append(id, &message);
                    writes.push(append);
                }
            }
        }
    }

    /// Only what was given can go.
    fn remove(&self, id: u64, first: u64, count: u64) -> Option<Write> {
        let end = (first + count).min(self.given.get(&id).copied().unwrap_or(1));
        let count = end.checked_sub(first)? as u32;
        Some(Write::Remove { mailbox: MailboxId(id), first: Seq(first), count })
    }

    /// The store's positions count on after a restart.
    #[allow(dead_code, reason = "not every test restarts")]
    pub(crate) fn restarted(&mut self, recovered: &pillarbox::broker::Recovered) {
        for mailbox in &recovered.mailboxes {
            self.given.insert(mailbox.id.0, mailbox.next.0);
        }
    }
}

//! Settled messages that a queue keeps for a while, and their way back.
//!
//! They are in a stream of their own, `amq.settled.` and the queue's name, which is trimmed by age as all streams are.
//! Nobody reads it; the queue's owner looks into it, and puts what it holds back.

use std::sync::Arc;

use super::command::{ConnectionId, MailboxId, Seq};
use super::definition::MailboxDefinition;
use super::event::{Effect, Event, Reply, Write};
use super::limits::{Limits, MailboxKind};
use super::mailbox::{Asker, Mailbox};
use super::message::Message;
use super::name::{Name, Time};
use super::refusal::{Action, Kind, Refusal};
use super::selector::Selector;
use super::topology::check_owner;
use super::turn::Turn;
use super::value::{Table, Value};
use super::{Broker, carry};

/// Argument of the hidden stream: the queue whose settled messages it holds.
const KEEPS: &str = "x-pillarbox-keeps";

const PREFIX: &str = "amq.settled.";

pub(super) fn keeper_name(queue: &str) -> String {
    format!("{PREFIX}{queue}")
}

/// Whether a name may be that of a stream which only a queue fills.
pub(super) fn is_keeper_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The queue whose settled messages the mailbox holds.
pub(super) fn kept_queue(definition: &MailboxDefinition) -> Option<Name> {
    let queue = definition.name.strip_prefix(PREFIX)?;
    let keeps = definition.arguments.get(KEEPS).and_then(Value::as_str);
    (keeps == Some(queue)).then(|| queue.into())
}

/// Settled messages of a queue that shall be ready again: those of a time that are also at these positions.
#[derive(Clone, Debug)]
pub struct Rewind {
    pub mailbox: Name,
    /// Settled then or later.
    pub from: Time,
    /// Settled before.
    pub to: Time,
    /// Among those that are kept.
    pub first: Seq,
    /// Not any more.
    pub end: Seq,
    pub selector: Option<Arc<Selector>>,
}

/// What one step put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewound {
    pub moved: u64,
    /// `first` and `end` of the next step; what is settled meanwhile lies behind. `None` where all is done.
    pub rest: Option<(Seq, Seq)>,
}

/// Which of the messages that were looked at go back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: Time,
    pub(super) to: Time,
    pub(super) end: Seq,
}

/// What concerns a queue and its kept messages both, left to the end of the turn.
pub(super) enum Keeping {
    Settled(MailboxId, Arc<Message>),
    PutBack(PutBack),
}

pub(super) struct PutBack {
    pub(super) keeper: MailboxId,
    pub(super) asker: Asker,
    pub(super) found: Vec<(Seq, Arc<Message>)>,
    pub(super) end: Seq,
    pub(super) rest: Option<(Seq, Seq)>,
}

impl Broker {
    /// Each step is one batch: its messages are ready again and kept no more, or neither. `None` where the answer comes
    /// later.
    pub(super) fn rewind(
        &mut self,
        from: ConnectionId,
        asker: Asker,
        rewind: &Rewind,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Option<Reply>, Refusal> {
        let (user, vhost) = self.whose(from)?;
        let name = &rewind.mailbox;
        self.access.check(&user, &vhost, Action::Read, Kind::Mailbox, name)?;
        let queue = self.find(&vhost, name).ok_or_else(|| self.no_mailbox(&vhost, name))?;
        check_owner(queue, from)?;
        let keeps = queue.keeps_settled();
        let keeper = self.find(&vhost, &keeper_name(name)).map(|it| it.id);
        let mut turn = carry!(self, now, out);
        match keeper.and_then(|id| self.mailboxes.get_mut(&id)) {
            Some(keeper) => keeper.look_back(asker, rewind, &mut turn).map(|()| None),
            // Nothing was settled yet.
            None if keeps => Ok(Some(Reply::Rewound(Rewound { moved: 0, rest: None }))),
            None => Err(Refusal::Precondition(format!(
                "queue '{name}' in vhost '{vhost}' does not keep settled messages"
            ))),
        }
    }

    /// At the end of a turn.
    pub(super) fn keep(&mut self, now: Time, out: &mut Vec<Effect>) {
        for keeping in std::mem::take(&mut self.keepings) {
            match keeping {
                Keeping::Settled(queue, message) => self.keep_settled(queue, message, now, out),
                Keeping::PutBack(it) => self.put_back(it, now, out),
            }
        }
    }

    fn keep_settled(
        &mut self,
        queue: MailboxId,
        message: Arc<Message>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(id) = self.keeper_of(queue, now, out) else { return };
        let mut turn = carry!(self, now, out);
        if let Some(keeper) = self.mailboxes.get_mut(&id) {
            keeper.append_to_log(message, &mut turn);
            self.dirty.push(id);
        }
    }

    fn keeper_of(
        &mut self,
        queue: MailboxId,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Option<MailboxId> {
        let queue = self.mailboxes.get(&queue)?;
        let (vhost, age_max_ms) = (queue.vhost.clone(), queue.limits.keep_settled_ms);
        let (queue, name) = (queue.name.clone(), Name::from(keeper_name(&queue.name)));
        if let Some(id) = self.vhosts.get(&vhost)?.mailboxes.get(&name) {
            return Some(*id);
        }
        let mut arguments = Table::new();
        arguments.set("x-queue-type", Value::text(MailboxKind::Stream.as_str()));
        arguments.set(KEEPS, Value::text(&queue));
        let definition = MailboxDefinition {
            id: self.new_mailbox_id(now),
            vhost,
            name,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments,
            epoch: 0,
        };
        let mut limits = Limits::default();
        (limits.kind, limits.age_max_ms) = (MailboxKind::Stream, age_max_ms);
        Some(self.create_mailbox(definition, limits, None, now, out))
    }

    /// Each queue says how long its settled messages stay, not at all where it says nothing any more.
    pub(super) fn limit_keepers(&mut self, vhost: &Name) {
        let Some(all) = self.vhosts.get(vhost).map(|it| &it.mailboxes) else { return };
        let begin = Name::from(PREFIX);
        let named = all.range(begin..).take_while(|(name, _)| is_keeper_name(name));
        let ids: Vec<MailboxId> = named.map(|(_, id)| *id).collect();
        for id in ids {
            let queue = self.mailboxes.get(&id).and_then(|it| it.keeps_for.clone());
            let Some(queue) = queue else { continue };
            let kept = self.find(vhost, &queue).filter(|it| it.keeps_settled());
            let age_max_ms = kept.and_then(|it| it.limits.keep_settled_ms).unwrap_or(0);
            if let Some(keeper) = self.mailboxes.get_mut(&id) {
                keeper.limits.age_max_ms = Some(age_max_ms);
                self.dirty.push(id);
            }
        }
    }

    fn put_back(&mut self, it: PutBack, now: Time, out: &mut Vec<Effect>) {
        let PutBack { keeper, asker, found, end, mut rest } = it;
        let Some(kept) = self.mailboxes.get(&keeper) else { return };
        let Some(name) = kept.keeps_for.clone() else { return };
        let vhost = kept.vhost.clone();
        let id = self.vhosts.get(&vhost).and_then(|it| it.mailboxes.get(&name)).copied();
        let mut turn = carry!(self, now, out);
        let mut moved = Vec::new();
        let mut refusal = None;
        match id.and_then(|id| self.mailboxes.get_mut(&id)) {
            Some(queue) => {
                for (seq, message) in found {
                    if queue.refuses(&message) {
                        // The next step says why it goes no further.
                        rest = Some((seq, end));
                        refusal = Some(Refusal::Precondition(format!(
                            "queue '{name}' in vhost '{vhost}' is full"
                        )));
                        break;
                    }
                    queue.come_again(&message, &mut turn);
                    moved.push(seq);
                }
            }
            None => refusal = Some(Refusal::NoSuchMailbox { name, vhost }),
        }
        if let Some(keeper) = self.mailboxes.get_mut(&keeper) {
            keeper.keep_no_more(&moved, &mut turn);
        }
        self.dirty.push(keeper);
        self.dirty.extend(id);
        let moved = moved.len() as u64;
        let result = match refusal {
            Some(refusal) if moved == 0 => Err(refusal),
            _ => Ok(Reply::Rewound(Rewound { moved, rest })),
        };
        let Asker { connection, channel, ticket, .. } = asker;
        if result.is_err() {
            self.mark_failed(connection, channel);
        }
        let event = Event::Reply { channel, ticket, result };
        out.push(Effect::NotifyDurable(connection, event));
    }
}

impl Mailbox {
    /// Whether its settled messages stay for a while. What does not outlive the broker keeps nothing.
    pub(super) fn keeps_settled(&self) -> bool {
        self.limits.keep_settled_ms.is_some() && self.durable() && !self.is_hidden()
    }

    /// A message was settled for good.
    pub(super) fn keep(&self, message: &Arc<Message>, turn: &mut Turn<'_>) {
        if self.keeps_settled() {
            turn.keepings.push(Keeping::Settled(self.id, message.clone()));
        }
    }

    /// A message that was settled is ready once more, as if it had come now, but known to have been seen.
    fn come_again(&mut self, message: &Message, turn: &mut Turn<'_>) {
        let mut message = message.detached();
        message.again = true;
        self.come_to_rest(Arc::new(message), Time::ZERO, turn);
    }

    /// Positions, ascending, at which nothing is kept any more.
    fn keep_no_more(&mut self, seqs: &[Seq], turn: &mut Turn<'_>) {
        for run in seqs.chunk_by(|a, b| a.0 + 1 == b.0) {
            let (first, count) = (run[0], run.len() as u32);
            let Some(stream) = &mut self.stream else { return };
            let (gone, bytes, freed) = stream.cut(first, Seq(first.0 + u64::from(count)));
            self.ready -= gone;
            self.ready_bytes -= bytes;
            self.counts.settled += gone;
            *turn.memory -= freed;
            turn.write(Write::Remove { mailbox: self.id, first, count });
        }
    }
}

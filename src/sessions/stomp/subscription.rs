//! A subscription: what a client takes from, and what it was given and has not acknowledged.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::broker::{ChannelId, ConsumerId, MailboxId, Outcome, Run, Seq, Settle};

/// How a client acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckMode {
    /// Not at all: what is written is settled.
    Auto,
    /// A message and all before it in the subscription.
    Client,
    Individual,
}

impl AckMode {
    pub(super) fn parse(header: Option<&str>) -> Option<Self> {
        Some(match header {
            None | Some("auto") => Self::Auto,
            Some("client") => Self::Client,
            Some("client-individual") => Self::Individual,
            Some(_) => return None,
        })
    }
}

/// A delivery that waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) number: u64,
    pub(super) mailbox: MailboxId,
    pub(super) seq: Seq,
}

impl Held {
    /// The same fate for all of them.
    pub(super) fn settle(deliveries: &[Self], outcome: Outcome) -> Settle {
        let mut runs: SmallVec<[Run; 1]> = SmallVec::new();
        for held in deliveries {
            match runs.last_mut() {
                Some(last)
                    if last.mailbox == held.mailbox
                        && last.first.0 + u64::from(last.count) == held.seq.0 =>
                {
                    last.count += 1;
                }
                _ => runs.push(Run { mailbox: held.mailbox, first: held.seq, count: 1 }),
            }
        }
        Settle { channel: ChannelId(0), deliveries: runs, outcome }
    }
}

pub(super) struct Subscription {
    /// As the client gave it.
    pub(super) id: Option<String>,
    pub(super) destination: String,
    pub(super) mode: AckMode,
    /// Messages are only shown: there is nothing to acknowledge, and no consumer.
    pub(super) browses: bool,
    /// Everything of a message id but its number.
    pub(super) message_prefix: String,
    /// By the number in the message id.
    unsettled: BTreeMap<u64, (MailboxId, Seq)>,
}

impl Subscription {
    pub(super) fn new(
        id: Option<&str>,
        destination: &str,
        mode: AckMode,
        message_prefix: String,
    ) -> Self {
        Self {
            id: id.map(str::to_owned),
            destination: destination.to_owned(),
            mode,
            browses: false,
            message_prefix,
            unsettled: BTreeMap::new(),
        }
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.unsettled.insert(held.number, (held.mailbox, held.seq));
    }

    /// Takes out what the acknowledgement of this message settles; nothing if the message is not held.
    pub(super) fn take(&mut self, number: u64) -> Vec<Held> {
        let held = |(number, (mailbox, seq))| Held { number, mailbox, seq };
        let Some(entry) = self.unsettled.remove_entry(&number) else { return Vec::new() };
        if self.mode != AckMode::Client {
            return vec![held(entry)];
        }
        let later = self.unsettled.split_off(&number);
        let earlier = std::mem::replace(&mut self.unsettled, later);
        earlier.into_iter().chain([entry]).map(held).collect()
    }

    pub(super) fn take_all(&mut self) -> Vec<Held> {
        let all = std::mem::take(&mut self.unsettled);
        all.into_iter().map(|(number, (mailbox, seq))| Held { number, mailbox, seq }).collect()
    }

    /// Puts back what was taken.
    pub(super) fn restore(&mut self, deliveries: Vec<Held>) {
        deliveries.into_iter().for_each(|held| self.hold(held));
    }

    /// For people.
    pub(super) fn description(&self) -> String {
        match &self.id {
            Some(id) => format!("id='{id}'"),
            None => format!("destination='{}'", self.destination),
        }
    }
}

/// The subscriptions of a connection, by number and by tag.
#[derive(Default)]
pub(super) struct Subscriptions {
    by_consumer: BTreeMap<ConsumerId, Subscription>,
    by_tag: BTreeMap<String, ConsumerId>,
}

impl Subscriptions {
    pub(super) fn add(&mut self, tag: String, consumer: ConsumerId, subscription: Subscription) {
        self.by_tag.insert(tag, consumer);
        self.by_consumer.insert(consumer, subscription);
    }

    pub(super) fn remove(&mut self, consumer: ConsumerId) -> Option<Subscription> {
        self.by_tag.retain(|_, other| *other != consumer);
        self.by_consumer.remove(&consumer)
    }

    pub(super) fn find(&self, tag: &str) -> Option<ConsumerId> {
        self.by_tag.get(tag).copied()
    }

    pub(super) fn get_mut(&mut self, consumer: ConsumerId) -> Option<&mut Subscription> {
        self.by_consumer.get_mut(&consumer)
    }

    pub(super) fn len(&self) -> usize {
        self.by_consumer.len()
    }
}

/// What names a subscription inside message ids and as a consumer: RabbitMQ's forms.
pub(super) fn tag(id: Option<&str>, destination: &str) -> String {
    match id {
        Some(id) => format!("T_{id}"),
        None => format!("Q_{destination}"),
    }
}

/// Takes a message id apart: the subscription's tag, the session and the number.
pub(super) fn parse_message_id(id: &str) -> Option<(&str, &str, u64)> {
    // From the end, because a subscription's id may hold anything.
    let (rest, number) = id.rsplit_once("@@")?;
    let (tag, session) = rest.rsplit_once("@@")?;
    Some((tag, session, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(mode: AckMode) -> Subscription {
        let mut subscription = Subscription::new(Some("0"), "/queue/a", mode, String::new());
        for number in [1, 2, 3, 5] {
            subscription.hold(Held { number, mailbox: MailboxId(1), seq: Seq(number + 10) });
        }
        subscription
    }

    fn numbers(taken: &[Held]) -> Vec<u64> {
        taken.iter().map(|held| held.number).collect()
    }

    #[test]
    fn client_mode_settles_everything_before() {
        let mut subscription = subscription(AckMode::Client);
        assert!(numbers(&subscription.take(4)).is_empty());
        let taken = subscription.take(3);
        assert_eq!(numbers(&taken), [1, 2, 3]);
        assert!(numbers(&subscription.take(2)).is_empty());
        subscription.restore(taken);
        assert_eq!(numbers(&subscription.take_all()), [1, 2, 3, 5]);
    }

    #[test]
    fn individual_mode_settles_one() {
        let mut subscription = subscription(AckMode::Individual);
        assert_eq!(numbers(&subscription.take(2)), [2]);
        assert!(numbers(&subscription.take(2)).is_empty());
        assert_eq!(numbers(&subscription.take_all()), [1, 3, 5]);
    }

    #[test]
    fn neighbours_are_one_run() {
        let settle = Held::settle(&subscription(AckMode::Client).take_all(), Outcome::Accepted);
        let runs: Vec<_> = settle.deliveries.iter().map(|run| (run.first.0, run.count)).collect();
        assert_eq!(runs, [(11, 3), (15, 1)]);
    }

    #[test]
    fn message_id_is_taken_apart_from_its_end() {
        assert_eq!(parse_message_id("T_a@@b@@session-1@@42"), Some(("T_a@@b", "session-1", 42)));
        assert_eq!(parse_message_id("T_a@@42"), None);
        assert_eq!(parse_message_id("T_a@@s@@x"), None);
        assert_eq!(parse_message_id(""), None);
    }
}

//! The rules of accounting, applied to a history. A plain value: events in, violations out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::history::{Answer, Event, Mailbox, Reader, Settlement};
use super::letter::Id;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// Confirmed implies received and settled, or still there.
    NoLoss,
    /// Received implies published, whole, to this mailbox.
    NoPhantom,
    /// Every delivery but the first says `redelivered`.
    Redelivered,
    /// What was settled does not come back.
    Settled,
    /// First deliveries in order of publishing; a requeued message at its place.
    Order,
    /// Each publish is answered once.
    Confirms,
    /// What is counted is what can be read.
    Counts,
    /// Clients see no error while the broker lives; metadata is as it was left.
    Service,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) id: Option<Id>,
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "R{} {:?}: {}", self.rule as u8 + 1, self.rule, self.text)
    }
}

#[derive(Debug)]
struct Published {
    to: Vec<Mailbox>,
    sum: u64,
    answer: Option<Answer>,
    returned: bool,
}

/// A message in a mailbox, as its readers saw it.
#[derive(Debug, Default)]
struct Copy {
    receipts: u32,
    /// The place of its first receipt among those of the mailbox.
    rank: u64,
    ack: Ack,
}

/// ```text
/// None -> Sent -> Sure       a synchronous call, or an orderly stop
///         Sent -> None       a kill, or a link that broke: it may not have arrived
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ack {
    #[default]
    None,
    Sent(Reader),
    Sure,
}

#[derive(Debug, Default)]
pub(crate) struct Checker {
    published: BTreeMap<Id, Published>,
    copies: BTreeMap<(Mailbox, Id), Copy>,
    /// Copies whose ack may still be undone.
    sent: BTreeSet<(Mailbox, Id)>,
    /// Acked at least once, by anybody.
    acked: BTreeSet<(Mailbox, Id)>,
    ranks: BTreeMap<Mailbox, u64>,
    /// The last first delivery of each publishing channel: to a sole reader's mailbox, or to one reader of several.
    last_first: BTreeMap<(Mailbox, Option<Reader>, u32, u32), u32>,
    /// Requeued by a sole reader and not seen since; how many may still come before.
    requeued: BTreeMap<Reader, BTreeMap<Id, u32>>,
    /// What was counted before a drain, and what the drain found.
    draining: BTreeMap<Mailbox, (u32, BTreeSet<Id>)>,
    violations: Vec<Violation>,
}

/// Applies every rule to a whole history.
pub(crate) fn check(events: &[Event]) -> Vec<Violation> {
    let mut checker = Checker::default();
    for event in events {
        checker.see(event);
    }
    checker.finish()
}

impl Checker {
    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::Published { id, to, sum } => {
                let published =
                    Published { to: to.clone(), sum: *sum, answer: None, returned: false };
                if self.published.insert(*id, published).is_some() {
                    self.violate(Rule::Service, Some(*id), format!("{id} was published twice"));
                }
            }
            Event::Returned { id } => match self.published.get_mut(id) {
                Some(it) if it.to.is_empty() && !it.returned => it.returned = true,
                _ => self.violate(Rule::Confirms, Some(*id), format!("{id} was returned")),
            },
            Event::Answered { id, answer } => self.answered(*id, *answer),
            Event::Received { by, id, sum, redelivered } => {
                self.received(*by, *id, *sum, *redelivered);
            }
            Event::Settled { by, id, how } => self.settled(*by, *id, *how),
            Event::Synced { by } => {
                self.end_acks(|reader| reader == *by, Ack::Sure);
            }
            Event::Lost { by } => {
                self.end_acks(|reader| reader == *by, Ack::None);
                self.requeued.remove(by);
            }
            Event::Counted { mailbox, ready } => {
                self.draining.insert(mailbox, (*ready, BTreeSet::new()));
            }
            Event::Drained { mailbox, ready } => self.drained(mailbox, *ready),
            Event::Stopped { life } => {
                self.end_acks(|_| true, Ack::Sure);
                self.requeued.clear();
                self.unanswered(*life);
            }
            Event::Killed => {
                self.end_acks(|_| true, Ack::None);
                self.requeued.clear();
                self.draining.clear();
            }
            Event::Wrong(what) => self.violate(Rule::Service, None, what.clone()),
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Violation> {
        let mut lost = Vec::new();
        for (id, published) in &self.published {
            if published.answer == Some(Answer::Ack) {
                for mailbox in &published.to {
                    if !self.acked.contains(&(*mailbox, *id)) {
                        lost.push((*id, *mailbox));
                    }
                }
            }
        }
        for (id, mailbox) in lost {
            let seen = self.copies.get(&(mailbox, id)).map_or(0, |copy| copy.receipts);
            let text =
                format!("{id} was confirmed and is gone from {mailbox}; received {seen} times");
            self.violate(Rule::NoLoss, Some(id), text);
        }
        self.violations
    }

    fn answered(&mut self, id: Id, answer: Answer) {
        let Some(published) = self.published.get_mut(&id) else {
            return self.violate(Rule::Confirms, Some(id), format!("{id} was never published"));
        };
        let before = published.answer.replace(answer);
        if let Some(before) = before {
            let text = format!("{id} was answered {before:?} and {answer:?}");
            self.violate(Rule::Confirms, Some(id), text);
        }
        if answer != Answer::Ack {
            self.violate(Rule::Confirms, Some(id), format!("{id} was answered {answer:?}"));
        }
    }

    fn received(&mut self, by: Reader, id: Id, sum: u64, redelivered: bool) {
        let mailbox = by.mailbox;
        match self.published.get(&id) {
            None => {
                let text = format!("{id} was received from {mailbox} and never published");
                return self.violate(Rule::NoPhantom, Some(id), text);
            }
            Some(it) if !it.to.contains(&mailbox) => {
                let text = format!("{id} was received from {mailbox} and published to {:?}", it.to);
                return self.violate(Rule::NoPhantom, Some(id), text);
            }
            Some(it) if it.sum != sum || it.answer == Some(Answer::Nack) => {
                let text = format!("{id} from {mailbox} is not what was published, or was refused");
                self.violate(Rule::NoPhantom, Some(id), text);
            }
            Some(_) => {}
        }
        if let Some((_, found)) = self.draining.get_mut(mailbox) {
            found.insert(id);
        }
        let copy = self.copies.entry((mailbox, id)).or_default();
        copy.receipts += 1;
        let (receipts, ack) = (copy.receipts, copy.ack);
        if receipts == 1 {
            let rank = self.ranks.entry(mailbox).or_default();
            *rank += 1;
            copy.rank = *rank;
        }
        let rank = copy.rank;
        if ack != Ack::None {
            let text = format!("{id} was settled in {mailbox} ({ack:?}) and came back to {by}");
            self.violate(Rule::Settled, Some(id), text);
        }
        if receipts > 1 && !redelivered {
            let text = format!("receipt {receipts} of {id} from {mailbox} by {by} is not flagged");
            self.violate(Rule::Redelivered, Some(id), text);
        }
        if receipts == 1 {
            self.check_first(by, id, redelivered);
        }
        if by.sole {
            self.check_places(by, id, rank);
        }
    }

    fn check_first(&mut self, by: Reader, id: Id, redelivered: bool) {
        // With several readers it may have gone to one that left before it looked.
        if !by.sole && redelivered {
            return;
        }
        let whose = (!by.sole).then_some(by);
        let last = self.last_first.entry((by.mailbox, whose, id.publisher, id.life)).or_default();
        let before = *last;
        *last = before.max(id.number);
        if id.number < before {
            let text = format!("{by} got {id} after number {before} of the same channel");
            self.violate(Rule::Order, Some(id), text);
        }
    }

    /// Later messages that come before a requeued one were on their way already.
    fn check_places(&mut self, by: Reader, id: Id, rank: u64) {
        let Some(requeued) = self.requeued.get_mut(&by) else { return };
        requeued.remove(&id);
        let mut late = Vec::new();
        for (waiting, on_their_way) in requeued {
            let earlier = self.copies.get(&(by.mailbox, *waiting)).is_some_and(|it| it.rank < rank);
            if earlier {
                match on_their_way.checked_sub(1) {
                    Some(fewer) => *on_their_way = fewer,
                    None => late.push(*waiting),
                }
            }
        }
        for waiting in late {
            let text = format!("{by} requeued {waiting}, and {id} came before it");
            self.violate(Rule::Order, Some(waiting), text);
        }
    }

    fn settled(&mut self, by: Reader, id: Id, how: Settlement) {
        let key = (by.mailbox, id);
        match how {
            Settlement::Accepted => {
                self.copies.entry(key).or_default().ack = Ack::Sent(by);
                self.sent.insert(key);
                self.acked.insert(key);
            }
            Settlement::Requeued { on_their_way } if by.sole => {
                self.requeued.entry(by).or_default().insert(id, on_their_way);
            }
            Settlement::Requeued { .. } => {}
        }
    }

    /// Acks that were only sent become sure, or are forgotten.
    fn end_acks(&mut self, whose: impl Fn(Reader) -> bool, end: Ack) {
        let copies = &mut self.copies;
        self.sent.retain(|key| {
            let Some(copy) = copies.get_mut(key) else { return false };
            let Ack::Sent(by) = copy.ack else { return false };
            if whose(by) {
                copy.ack = end;
            }
            !whose(by)
        });
    }

    fn drained(&mut self, mailbox: Mailbox, ready: u32) {
        if ready != 0 {
            let text = format!("{mailbox} is read to its end and counts {ready}");
            self.violate(Rule::Counts, None, text);
        }
        if let Some((counted, found)) = self.draining.remove(mailbox)
            && counted as usize != found.len()
        {
            let text = format!("{mailbox} counted {counted} and gave {}", found.len());
            self.violate(Rule::Counts, None, text);
        }
    }

    /// Every client left in good order: each had its answers, and got back what nobody took.
    fn unanswered(&mut self, life: u32) {
        let silent = |it: &Published| it.answer.is_none() || (it.to.is_empty() && !it.returned);
        let of_life = self.published.iter().filter(|(id, _)| id.life == life);
        let silent = of_life.filter(|(_, it)| silent(it)).map(|(id, _)| *id).collect::<Vec<Id>>();
        for id in silent {
            let text = format!("{id} was never answered, or not returned");
            self.violate(Rule::Confirms, Some(id), text);
        }
    }

    fn violate(&mut self, rule: Rule, id: Option<Id>, text: String) {
        self.violations.push(Violation { rule, id, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Reader = Reader { mailbox: "a", life: 1, number: 0, sole: true };
    const AFTER: Reader = Reader { life: 2, ..HERE };

    fn id(number: u32) -> Id {
        Id { publisher: 7, life: 1, number }
    }

    fn published(number: u32) -> Event {
        Event::Published { id: id(number), to: vec!["a"], sum: 5 }
    }

    fn answered(number: u32) -> Event {
        Event::Answered { id: id(number), answer: Answer::Ack }
    }

    fn received(by: Reader, number: u32, redelivered: bool) -> Event {
        Event::Received { by, id: id(number), sum: 5, redelivered }
    }

    fn accepted(by: Reader, number: u32) -> Event {
        Event::Settled { by, id: id(number), how: Settlement::Accepted }
    }

    fn requeued(number: u32, on_their_way: u32) -> Event {
        Event::Settled { by: HERE, id: id(number), how: Settlement::Requeued { on_their_way } }
    }

    fn broken(events: &[Event]) -> Vec<Rule> {
        check(events).into_iter().map(|it| it.rule).collect()
    }

    fn after_two(events: &[Event]) -> Vec<Rule> {
        let start = [published(1), published(2), answered(1)];
        let tail: Vec<Event> = events.to_vec();
        broken(&[start.to_vec(), tail].concat())
    }

    #[test]
    fn a_good_history_passes() {
        let events = [
            received(HERE, 1, false),
            received(HERE, 2, false),
            requeued(1, 0),
            received(HERE, 1, true),
            accepted(HERE, 1),
            Event::Killed,
            received(AFTER, 1, true),
            received(AFTER, 2, true),
            accepted(AFTER, 1),
            Event::Synced { by: AFTER },
            Event::Killed,
        ];
        assert_eq!(after_two(&events), []);
    }

    #[test]
    fn a_confirmed_message_must_be_settled_in_the_end() {
        assert_eq!(after_two(&[]), [Rule::NoLoss]);
        assert_eq!(after_two(&[received(HERE, 1, false)]), [Rule::NoLoss]);
    }

    #[test]
    fn each_mailbox_of_a_fan_out_counts() {
        let events = [
            Event::Published { id: id(1), to: vec!["a", "b"], sum: 5 },
            answered(1),
            received(HERE, 1, false),
            accepted(HERE, 1),
        ];
        assert_eq!(broken(&events), [Rule::NoLoss]);
    }

    #[test]
    fn what_was_not_published_so_may_not_appear() {
        let changed = Event::Received { by: HERE, id: id(2), sum: 6, redelivered: false };
        let elsewhere = received(Reader { mailbox: "b", ..HERE }, 2, false);
        for event in [received(HERE, 3, false), changed, elsewhere] {
            assert_eq!(
                after_two(&[received(HERE, 1, false), accepted(HERE, 1), event]),
                [Rule::NoPhantom]
            );
        }
    }

    #[test]
    fn a_second_delivery_is_flagged_also_after_a_kill() {
        let end = [accepted(AFTER, 1)];
        let events = [received(HERE, 1, false), Event::Killed, received(AFTER, 1, false)];
        assert_eq!(after_two(&[&events[..], &end].concat()), [Rule::Redelivered]);
    }

    #[test]
    fn a_settled_message_may_come_back_after_a_loss_only_and_only_without_a_call_after_it() {
        let start = [received(HERE, 1, false), accepted(HERE, 1)];
        let again = [received(AFTER, 1, true)];
        let after = |between: &[Event]| after_two(&[&start[..], between, &again].concat());
        assert_eq!(after(&[]), [Rule::Settled]);
        assert_eq!(after(&[Event::Killed]), []);
        assert_eq!(after(&[Event::Synced { by: HERE }, Event::Killed]), [Rule::Settled]);
        assert_eq!(after(&[Event::Synced { by: AFTER }, Event::Killed]), []);
        assert_eq!(after(&[Event::Lost { by: HERE }]), []);
        assert_eq!(after(&[Event::Lost { by: AFTER }]), [Rule::Settled]);
    }

    #[test]
    fn first_deliveries_keep_the_order_of_their_channel() {
        let events = [received(HERE, 2, false), received(HERE, 1, false), accepted(HERE, 1)];
        assert_eq!(after_two(&events), [Rule::Order]);
    }

    #[test]
    fn a_requeued_message_comes_before_later_ones_that_were_not_on_their_way() {
        let start = |on_their_way| {
            [
                received(HERE, 1, false),
                requeued(1, on_their_way),
                received(HERE, 2, false),
                received(HERE, 1, true),
                accepted(HERE, 1),
            ]
        };
        assert_eq!(after_two(&start(1)), []);
        assert_eq!(after_two(&start(0)), [Rule::Order]);
    }

    #[test]
    fn each_publish_is_answered_once() {
        let events = [received(HERE, 1, false), accepted(HERE, 1), answered(1)];
        assert_eq!(after_two(&events), [Rule::Confirms]);
        let events = [received(HERE, 1, false), accepted(HERE, 1), Event::Stopped { life: 1 }];
        assert_eq!(after_two(&events), [Rule::Confirms]);
        let unroutable = [Event::Published { id: id(1), to: vec![], sum: 5 }, answered(1)];
        let stopped = Event::Stopped { life: 1 };
        let returned = Event::Returned { id: id(1) };
        assert_eq!(
            broken(&[&unroutable[..], std::slice::from_ref(&stopped)].concat()),
            [Rule::Confirms]
        );
        assert_eq!(broken(&[&unroutable[..], &[returned, stopped]].concat()), []);
    }

    #[test]
    fn what_is_counted_must_be_there() {
        let drain = |counted, left| {
            after_two(&[
                Event::Counted { mailbox: "a", ready: counted },
                received(HERE, 1, false),
                accepted(HERE, 1),
                Event::Drained { mailbox: "a", ready: left },
            ])
        };
        assert_eq!(drain(1, 0), []);
        assert_eq!(drain(2, 0), [Rule::Counts]);
        assert_eq!(drain(1, 1), [Rule::Counts]);
    }
}

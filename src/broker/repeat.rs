//! Messages that come again and again: while one waits for its time it stays, and what goes out is a copy of it.

use std::fmt;
use std::sync::Arc;

use super::command::Seq;
use super::cron::Cron;
use super::dead_letter::Burial;
use super::event::Write;
use super::lane::Entry;
use super::limits::{Overflow, TIME_SPAN_MAX_MS};
use super::mailbox::Mailbox;
use super::message::{Message, MessageId, Properties};
use super::name::Time;
use super::turn::Turn;

/// ActiveMQ's headers.
const AMQ_CRON: &str = "AMQ_SCHEDULED_CRON";
const AMQ_PERIOD: &str = "AMQ_SCHEDULED_PERIOD";
const AMQ_REPEAT: &str = "AMQ_SCHEDULED_REPEAT";
/// Ours.
const CRON: &str = "x-repeat-cron";
const PERIOD: &str = "x-repeat-period";
const COUNT: &str = "x-repeat-count";

const HEADERS: [&str; 6] = [AMQ_CRON, AMQ_PERIOD, AMQ_REPEAT, CRON, PERIOD, COUNT];

/// Shorter periods are none.
const PERIOD_MIN_MS: u64 = 100;

/// When a message comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    rhythm: Rhythm,
    /// So often after the first time; `None` for ever.
    more: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rhythm {
    Cron(Cron),
    Every { ms: u64 },
}

impl Repeat {
    /// What the message's headers ask for. The error names the header that makes no sense.
    pub fn of(properties: &Properties) -> Result<Option<Self>, &'static str> {
        let Some(headers) = &properties.headers else { return Ok(None) };
        let number = |name: &'static str| match headers.get(name) {
            None => Ok(None),
            Some(value) => {
                let number = value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
                number.map(Some).ok_or(name)
            }
        };
        let amq = [AMQ_CRON, AMQ_PERIOD, AMQ_REPEAT].iter().any(|it| headers.get(it).is_some());
        let [cron, period, count] =
            if amq { [AMQ_CRON, AMQ_PERIOD, AMQ_REPEAT] } else { [CRON, PERIOD, COUNT] };
        let more = match number(count)? {
            None | Some(-1) => None,
            Some(more) => Some(u32::try_from(more).map_err(|_| count)?),
        };
        let rhythm = match (headers.get(cron), number(period)?) {
            // ActiveMQ lets each time of the expression begin a row of repetitions, which nothing does here.
            (Some(_), Some(_)) => return Err(period),
            (Some(_), _) if amq && more.is_some() => return Err(count),
            (Some(text), None) => {
                let text = text.as_str().ok_or(cron)?;
                Rhythm::Cron(Cron::parse(text).map_err(|_| cron)?)
            }
            (None, Some(ms)) => {
                let ms = u64::try_from(ms).map_err(|_| period)?;
                if !(PERIOD_MIN_MS..=TIME_SPAN_MAX_MS).contains(&ms) {
                    return Err(period);
                }
                // ActiveMQ's period says only how far apart, and that is no time at all where nothing repeats.
                if amq && headers.get(count).is_none() {
                    return Ok(None);
                }
                Rhythm::Every { ms }
            }
            (None, None) => return Ok(None),
        };
        let once = matches!(rhythm, Rhythm::Every { .. }) && more == Some(0);
        Ok((!once).then_some(Self { rhythm, more }))
    }

    /// When it comes first, where nothing else says it.
    pub fn first(&self, now: Time) -> Time {
        match &self.rhythm {
            Rhythm::Cron(cron) => cron.next(now).unwrap_or(Time(u64::MAX)),
            Rhythm::Every { .. } => now.plus_ms(1),
        }
    }

    /// When it comes again, after it came so often; what was missed meanwhile does not come.
    fn next(&self, due: Time, now: Time, times: u32) -> Option<Time> {
        if self.more.is_some_and(|more| times > more) {
            return None;
        }
        match &self.rhythm {
            Rhythm::Cron(cron) => cron.next(now.max(due)),
            Rhythm::Every { ms } => {
                let passed = now.since_ms(due) / ms;
                Some(due.plus_ms((passed + 1).saturating_mul(*ms)))
            }
        }
    }
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rhythm {
            Rhythm::Cron(cron) => write!(f, "{cron}"),
            Rhythm::Every { ms } => write!(f, "every {ms} ms"),
        }
    }
}

pub(super) fn repeats(message: &Message) -> bool {
    matches!(Repeat::of(message.properties()), Ok(Some(_)))
}

/// The message as it goes out this time: one of its own, that does not repeat.
fn once(message: &Message, now: Time) -> Message {
    let mut properties = message.properties().clone();
    for name in HEADERS {
        properties.headers_mut().remove(name);
    }
    let mut copy = message.readdressed(message.exchange(), message.key(), &properties);
    copy.accepted = now;
    // The upper bits are the time.
    copy.id = MessageId(message.id.0 & ((1 << 80) - 1) | u128::from(now.0) << 80);
    copy
}

impl Mailbox {
    /// A message that repeats is due: a copy goes out, and it waits for its next time, both in one batch.
    pub(super) fn repeat(&mut self, mut entry: Entry, repeat: &Repeat, turn: &mut Turn<'_>) {
        let copy = Arc::new(once(&entry.message, turn.now));
        match self.feeds.clone() {
            Some(exchange) => {
                let copy = Entry { message: copy, ..entry.clone() };
                turn.burials.push(Burial::due(self.vhost.clone(), exchange, &copy));
            }
            None if self.refuses(&copy) => {
                let buries = self.limits.overflow == Overflow::RejectPublishDeadLetter;
                self.refuse(&copy, buries, turn);
            }
            None => self.come_to_rest(copy, Time::ZERO, turn),
        }
        let times = entry.rest.attempts.saturating_add(1);
        let Some(next) = repeat.next(entry.rest.deliver_at, turn.now, times) else {
            self.counts.settled += 1;
            return self.remove_stored(&entry, turn);
        };
        if entry.stored {
            let (mailbox, seq): (_, Seq) = (self.id, entry.seq);
            turn.write(Write::Attempts { mailbox, seq, attempts: times, deliver_at: next });
            entry.epoch = turn.epoch;
        }
        (entry.rest.attempts, entry.rest.deliver_at) = (times, next);
        *turn.memory += entry.message.footprint();
        self.hide(entry, turn);
    }
}

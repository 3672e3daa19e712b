//! Pushing: each message of a frame becomes a publish, and the frame gets one answer.
//!
//! The messages are slices of what was read. The broker confirms or refuses each of them in order,
//! so an answer needs no table.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use pillarbox_native::{
    Code, Frame, PropertiesRef, Push, PushedRef, Refused, RefusedMessage, encode_pushed,
};

use super::open::Open;
use super::{Fault, MAIN, SILENT, offset};
use crate::broker::{Command, Message, NEUTRAL, Name, Parts, Publish, Span, Time};
use crate::sessions::Outbox;

/// Messages up to this size are copied by the broker when they come to rest.
const DETACHED_BY_BROKER: usize = 16 * 1024;
/// Ten years in milliseconds.
const EXPIRATION_MAX_MS: u64 = 315_360_000_000;
/// AMQP's word for a message that need not survive the broker.
const TRANSIENT: u8 = 1;

/// Pushes whose messages the broker has not all answered.
pub(super) struct Pushes {
    user: Name,
    impersonator: bool,
    /// Of the push before, mostly that of the next.
    exchange: Name,
    waiting: VecDeque<Waiting>,
    /// The next confirm is of a message that nobody took.
    returned: bool,
    tags: u64,
}

struct Waiting {
    id: u32,
    count: u32,
    answered: u32,
    taken: u32,
    refused: Vec<(u32, Code, String)>,
}

impl Pushes {
    pub(super) fn new(user: Name, impersonator: bool) -> Self {
        Self {
            user,
            impersonator,
            exchange: "".into(),
            waiting: VecDeque::new(),
            returned: false,
            tags: 0,
        }
    }

    #[inline]
    pub(super) fn confirmed(&mut self, taken: bool, out: &mut Outbox) {
        if std::mem::take(&mut self.returned) {
            let text = "no mailbox takes this message: declare one, or bind it";
            self.answered(Some((Code::NotFound, text.into())), out);
        } else if taken {
            self.answered(None, out);
        } else {
            let text = "the mailbox is full and refuses more";
            self.answered(Some((Code::Full, text.into())), out);
        }
    }

    pub(super) fn returned(&mut self) {
        self.returned = true;
    }

    pub(super) fn refused(&mut self, code: Code, text: String, out: &mut Outbox) {
        self.answered(Some((code, text)), out);
    }

    #[inline]
    fn answered(&mut self, refused: Option<(Code, String)>, out: &mut Outbox) {
        let Some(push) = self.waiting.front_mut() else { return };
        match refused {
            None => push.taken += 1,
            Some((code, text)) => push.refused.push((push.answered, code, text)),
        }
        push.answered += 1;
        if push.answered == push.count {
            push.answer(out);
            self.waiting.pop_front();
        }
    }
}

impl Waiting {
    fn answer(&self, out: &mut Outbox) {
        let refused = self.refused.iter().map(|(index, code, text)| RefusedMessage {
            index: *index,
            refused: Refused { code: *code, text },
        });
        encode_pushed(self.id, self.taken, refused, &mut out.wire);
    }
}

/// What is the same for all messages of a push.
struct Batch<'a> {
    exchange: Name,
    key: &'a [u8],
    bytes: &'a Bytes,
    confirmed: bool,
    mandatory: bool,
    now: Time,
}

impl Open {
    pub(super) fn push(
        &mut self,
        frame: &Frame<'_>,
        push: &Push<'_>,
        bytes: &Bytes,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if self.pushes.exchange != *push.exchange {
            self.pushes.exchange = push.exchange.into();
        }
        let confirmed = frame.id != 0;
        let batch = Batch {
            exchange: self.pushes.exchange.clone(),
            key: push.key,
            bytes,
            confirmed,
            mandatory: confirmed && (push.exchange.is_empty() || frame.has(Push::MANDATORY)),
            now,
        };
        let start = out.commands.len();
        out.commands.reserve(push.count as usize);
        for (index, message) in push.messages().enumerate() {
            if let Err((code, text)) = self.publish(&batch, &message?, out) {
                // Nothing of a push that cannot be right is published.
                out.commands.truncate(start);
                self.refuse(frame.id, code, &format!("message {index}: {text}"), out);
                return Ok(());
            }
        }
        if push.count > 0 {
            self.published(out);
        }
        if confirmed {
            let waiting = Waiting {
                id: frame.id,
                count: push.count,
                answered: 0,
                taken: 0,
                refused: Vec::new(),
            };
            match push.count {
                0 => waiting.answer(out),
                _ => self.pushes.waiting.push_back(waiting),
            }
        }
        Ok(())
    }

    #[inline]
    fn publish(
        &mut self,
        batch: &Batch<'_>,
        pushed: &PushedRef<'_>,
        out: &mut Outbox,
    ) -> Result<(), (Code, String)> {
        let invalid = |text: &str| (Code::Invalid, text.to_owned());
        let found = PropertiesRef::parse(pushed.properties)
            .map_err(|error| (Code::Invalid, error.to_string()))?;
        let size = pushed.properties.len() + pushed.body.len();
        if size as u64 > self.settings.message_size_max {
            let text = format!("{size} bytes are more than a message may have");
            return Err((Code::TooLarge, text));
        }
        if found.user_id.is_some_and(|it| it != self.pushes.user.as_bytes())
            && !self.pushes.impersonator
        {
            return Err(invalid("the property user_id names another user"));
        }
        let expiration_ms =
            match found.expiration {
                None => None,
                Some(text) => Some(expiration(text).ok_or_else(|| {
                    invalid("the property expiration is no number of milliseconds")
                })?),
            };
        let span = |part: &[u8]| {
            let start = offset(part, batch.bytes) as u32;
            Span { start, end: start + part.len() as u32 }
        };
        let parts = Parts {
            exchange: batch.exchange.clone(),
            buffer: batch.bytes.clone(),
            key: span(pushed.key.unwrap_or(batch.key)),
            properties: span(pushed.properties),
            body: span(pushed.body),
            form: &NEUTRAL,
            persistent: found.delivery_mode != Some(TRANSIENT),
            priority: found.priority.unwrap_or(0),
            expiration_ms,
        };
        let mut message = Message::new(parts, batch.now);
        if size > DETACHED_BY_BROKER && batch.bytes.len() > 2 * size {
            // One message of many must not keep all of them in memory.
            message = message.detached();
        }
        let confirm = batch.confirmed.then(|| {
            self.pushes.tags += 1;
            self.pushes.tags
        });
        out.commands.push(Command::Publish(Publish {
            channel: if batch.confirmed { MAIN } else { SILENT },
            message: Arc::new(message),
            more_keys: None,
            confirm,
            mandatory: batch.mandatory,
        }));
        Ok(())
    }
}

fn expiration(text: &[u8]) -> Option<u64> {
    let ms = std::str::from_utf8(text).ok()?.parse().ok()?;
    (ms <= EXPIRATION_MAX_MS).then_some(ms)
}

//! Pushing: the messages of a frame are one batch, and the frame gets one answer.
//!
//! The messages are slices of what was read. The broker gives back the frame's id, so an answer needs no table.

use std::iter::empty;

use bytes::Bytes;
use pillarbox_native::{
    Code, Due, DuplicateMessage, Frame, PropertiesRef, Push, PushedRef, Refused, RefusedMessage,
    encode_pushed,
};

use super::open::Open;
use super::refusal::code;
use super::{Fault, MAIN, SILENT, offset};
use crate::broker::access::check_sender;
use crate::broker::{
    Command, Message, Missed, NEUTRAL, Name, Parts, PublishBatch, SPREAD_TAGS, Seq, Span, Time,
};
use crate::sessions::Outbox;

/// Messages up to this size are copied by the broker when they come to rest.
const DETACHED_BY_BROKER: usize = 16 * 1024;
/// Ten years in milliseconds.
const EXPIRATION_MAX_MS: u64 = 315_360_000_000;
/// AMQP's word for a message that need not survive the broker.
const TRANSIENT: u8 = 1;

/// What pushes have in common.
pub(super) struct Pushes {
    user: Name,
    impersonator: bool,
    /// Of the push before, mostly that of the next.
    exchange: Name,
}

impl Pushes {
    pub(super) fn new(user: Name, impersonator: bool) -> Self {
        Self { user, impersonator, exchange: "".into() }
    }

    pub(super) fn confirmed(
        &self,
        id: u32,
        taken: u32,
        missed: &[(u32, Missed)],
        duplicates: &[(u32, Seq)],
        out: &mut Outbox,
    ) {
        let texts: Vec<(Code, String)> = missed.iter().map(|(_, missed)| why(missed)).collect();
        let refused = missed.iter().zip(&texts).map(|((index, _), (code, text))| RefusedMessage {
            index: *index,
            refused: Refused { code: *code, text },
        });
        let duplicates = duplicates
            .iter()
            .map(|(index, seq)| DuplicateMessage { index: *index, position: seq.0 });
        encode_pushed(id, taken, refused, duplicates, &mut out.wire);
    }
}

fn why(missed: &Missed) -> (Code, String) {
    match missed {
        Missed::Full => (Code::Full, "the mailbox is full and refuses more".into()),
        Missed::Lost => {
            (Code::Precondition, "it left the queue for its host before that host had it".into())
        }
        Missed::Unroutable => {
            (Code::NotFound, "no mailbox takes this message: declare one, or bind it".into())
        }
        Missed::Refused(refusal) => (code(refusal), refusal.to_string()),
    }
}

/// What is the same for all messages of a push.
struct Batch<'a> {
    exchange: Name,
    key: &'a [u8],
    bytes: &'a Bytes,
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
        let confirmed = frame.id != 0;
        let messages = match self.messages(push, bytes, now)? {
            Ok(messages) => messages,
            Err((code, text)) => {
                self.refuse(frame.id, code, &text, out);
                return Ok(());
            }
        };
        if messages.is_empty() {
            if confirmed {
                encode_pushed(frame.id, 0, empty(), empty(), &mut out.wire);
            }
            return Ok(());
        }
        out.commands.push(Command::PublishBatch(PublishBatch {
            channel: if confirmed { MAIN } else { SILENT },
            messages,
            confirm: confirmed.then_some(frame.id.into()),
            mandatory: confirmed && (push.exchange.is_empty() || frame.has(Push::MANDATORY)),
            home: confirmed && frame.has(Push::HOME),
        }));
        self.published(out);
        Ok(())
    }

    /// What a push brings; nothing of one that cannot be right.
    pub(super) fn messages(
        &mut self,
        push: &Push<'_>,
        bytes: &Bytes,
        now: Time,
    ) -> Result<Result<Vec<Message>, (Code, String)>, Fault> {
        if self.pushes.exchange != *push.exchange {
            self.pushes.exchange = push.exchange.into();
        }
        if push.count > self.settings.push_count_max {
            let text = format!("{} messages are more than a push may have", push.count);
            return Ok(Err((Code::TooLarge, text)));
        }
        let batch = Batch { exchange: self.pushes.exchange.clone(), key: push.key, bytes, now };
        let mut messages = Vec::with_capacity(push.count as usize);
        for (index, message) in push.messages().enumerate() {
            match self.message(&batch, &message?) {
                Ok(message) => messages.push(message),
                Err((code, text)) => return Ok(Err((code, format!("message {index}: {text}")))),
            }
        }
        Ok(Ok(messages))
    }

    #[inline]
    fn message(
        &self,
        batch: &Batch<'_>,
        pushed: &PushedRef<'_>,
    ) -> Result<Message, (Code, String)> {
        let invalid = |text: &str| (Code::Invalid, text.to_owned());
        let mut wants_tags = false;
        let header = |name: &[u8]| wants_tags |= name == SPREAD_TAGS.as_bytes();
        let found = PropertiesRef::parse_with(pushed.properties, header)
            .map_err(|error| (Code::Invalid, error.to_string()))?;
        let size = pushed.properties.len() + pushed.body.len();
        if size as u64 > self.settings.message_size_max {
            let text = format!("{size} bytes are more than a message may have");
            return Err((Code::TooLarge, text));
        }
        check_sender(&self.pushes.user, self.pushes.impersonator, found.user_id)
            .map_err(|refusal| (Code::Invalid, refusal.to_string()))?;
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
        message.wants_tags = wants_tags;
        message.deliver_at = due(pushed.due, batch.now).ok_or_else(|| {
            (Code::Precondition, "a message can wait for ten years at the most".to_owned())
        })?;
        if size > DETACHED_BY_BROKER && batch.bytes.len() > 2 * size {
            // One message of many must not keep all of them in memory.
            message = message.detached();
        }
        Ok(message)
    }
}

/// When the message can be had; zero for at once, and `None` for a time that is too far away.
#[inline]
fn due(due: Due, now: Time) -> Option<Time> {
    let at = match due {
        Due::Now => return Some(Time::ZERO),
        Due::After(ms) => now.0.saturating_add(ms),
        Due::At(ms) => ms,
    };
    if at <= now.0 {
        return Some(Time::ZERO);
    }
    (at - now.0 <= EXPIRATION_MAX_MS).then_some(Time(at))
}

fn expiration(text: &[u8]) -> Option<u64> {
    let ms = std::str::from_utf8(text).ok()?.parse().ok()?;
    (ms <= EXPIRATION_MAX_MS).then_some(ms)
}

//! `x-delayed-message`: what says that a message shall wait, and how long.
//!
//! The exchange routes like its `x-delayed-type`; the waiting is the mailbox's.

use crate::broker::repeat::repeats;
use crate::broker::{Message, Refusal, TIME_SPAN_MAX_MS, Table, Value};

/// Longer than this is no delay at all.
const DELAY_MAX_MS: i64 = TIME_SPAN_MAX_MS as i64;

/// How long the message asks to wait: its `x-delay` header in milliseconds, where that is above zero.
///
/// Whoever hands the message on flips the header's sign, so that it waits only once.
pub fn delay_ms(message: &Message) -> Option<u64> {
    let delay = match message.properties().header("x-delay")? {
        Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
        Value::F32(delay) => *delay as i64,
        Value::F64(delay) => *delay as i64,
        Value::Decimal { scale, value } => {
            10i64.checked_pow((*scale).into()).map_or(0, |unit| i64::from(*value) / unit)
        }
        other => other.as_i64()?,
    };
    (1..=DELAY_MAX_MS).contains(&delay).then_some(delay as u64)
}

/// Whether the message waits, once or again and again.
pub fn waits(message: &Message) -> bool {
    delay_ms(message).is_some() || repeats(message)
}

/// The kind by which an `x-delayed-message` exchange routes.
pub(super) fn inner_kind(arguments: &Table) -> Result<&str, Refusal> {
    match arguments.get("x-delayed-type").and_then(Value::as_str) {
        Some(super::DELAYED) | None => Err(Refusal::Precondition(
            "Invalid argument, 'x-delayed-type' must be an existing exchange type".into(),
        )),
        Some(kind) => Ok(kind),
    }
}

//! Where a reader starts: `x-stream-offset`, in the words of RabbitMQ and LavinMQ.

use super::log::Log;
use crate::broker::command::Seq;
use crate::broker::limits::age_ms;
use crate::broker::name::Time;
use crate::broker::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    First,
    /// With the last message there is.
    Last,
    /// With what comes after now.
    Next,
    /// Offsets count from 0, positions from 1.
    At(Seq),
    /// With the first message that came then or later.
    Since(Time),
    /// With so many messages before the end.
    Latest(u64),
}

impl Start {
    pub(super) fn parse(value: &Value, now: Time) -> Result<Self, String> {
        match value {
            Value::Timestamp(seconds) => Ok(Self::Since(Time(seconds.saturating_mul(1000)))),
            Value::Text(_) => match value.as_str() {
                Some("first") => Ok(Self::First),
                Some("last") => Ok(Self::Last),
                Some("next") => Ok(Self::Next),
                Some(span) => match age_ms(span) {
                    Some(ms) => Ok(Self::Since(Time(now.since_ms(Time(ms))))),
                    None => Err("invalid_max_age".into()),
                },
                None => Err("invalid_max_age".into()),
            },
            other => match other.as_i64() {
                Some(offset) if offset < 0 => Ok(Self::Latest(offset.unsigned_abs())),
                Some(offset) => Ok(Self::At(Seq(offset as u64 + 1))),
                None => Err("{invalid_offset_arg}".into()),
            },
        }
    }

    /// The position to start at, and the time before which messages there are passed over.
    pub(super) fn find(self, log: &Log) -> (Seq, Time) {
        match self {
            Self::First => (log.first(), Time::ZERO),
            Self::Last => (log.last(1), Time::ZERO),
            Self::Next => (log.next(), Time::ZERO),
            Self::At(seq) => (seq, Time::ZERO),
            Self::Since(since) => (log.seek(since), since),
            Self::Latest(count) => (log.last(count), Time::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const NOW: Time = Time(10_000_000);

    #[rstest]
    #[case(Value::text("first"), Ok(Start::First))]
    #[case(Value::text("last"), Ok(Start::Last))]
    #[case(Value::text("next"), Ok(Start::Next))]
    #[case(Value::I64(0), Ok(Start::At(Seq(1))))]
    #[case(Value::U8(7), Ok(Start::At(Seq(8))))]
    #[case(Value::I32(-5), Ok(Start::Latest(5)))]
    #[case(Value::I64(i64::MIN), Ok(Start::Latest(1 << 63)))]
    #[case(Value::Timestamp(99), Ok(Start::Since(Time(99_000))))]
    #[case(Value::Timestamp(u64::MAX), Ok(Start::Since(Time(u64::MAX))))]
    #[case(Value::text("1h"), Ok(Start::Since(Time(6_400_000))))]
    #[case(Value::text("7D"), Ok(Start::Since(Time(0))))]
    #[case(Value::text("soon"), Err("invalid_max_age"))]
    #[case(Value::text("5"), Err("invalid_max_age"))]
    #[case(Value::Bool(true), Err("{invalid_offset_arg}"))]
    fn offsets_have_the_words_of_both_brokers(
        #[case] value: Value,
        #[case] expected: Result<Start, &str>,
    ) {
        assert_eq!(Start::parse(&value, NOW), expected.map_err(str::to_owned));
    }
}

//! Values given on the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pillarbox::broker::{Table, Value};

/// `30s`, `250ms`, `5min`, `2h`, or seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| WRONG_DURATION.to_owned())?;
    let ms = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" | "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    };
    ms.map(Duration::from_millis).ok_or_else(|| WRONG_DURATION.to_owned())
}

const WRONG_DURATION: &str = "write a time as 30s, 250ms, 5min or 2h";

/// Where to start in a stream.
pub(super) fn start(text: &str) -> Result<Value, String> {
    const WRONG: &str =
        "write it as first, last, next, offset=N, last=N, time=SECONDS or a span like 30m";
    match text.split_once('=') {
        None if matches!(text, "first" | "last" | "next") => Ok(Value::text(text)),
        None => {
            // The broker knows no smaller unit than seconds.
            let span = duration(text).map_err(|_| WRONG.to_owned())?.as_secs();
            Ok(Value::text(&format!("{span}s")))
        }
        Some(("offset", offset)) => {
            let offset: i64 = offset.parse().map_err(|_| WRONG.to_owned())?;
            if offset < 0 { Err(WRONG.to_owned()) } else { Ok(Value::I64(offset)) }
        }
        Some(("last", count)) => {
            let count: u32 = count.parse().map_err(|_| WRONG.to_owned())?;
            Ok(Value::I64(-i64::from(count)))
        }
        Some(("time", seconds)) => {
            seconds.parse().map(Value::Timestamp).map_err(|_| WRONG.to_owned())
        }
        Some(_) => Err(WRONG.to_owned()),
    }
}

/// A bound among messages that were settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// So many milliseconds ago.
    AgoMs(u64),
    /// Milliseconds since the Unix epoch.
    AtMs(u64),
    Position(u64),
}

pub(super) fn edge(text: &str) -> Result<Edge, String> {
    let edge = match text.split_once('=') {
        None => duration(text).ok().map(|span| Edge::AgoMs(span.as_millis() as u64)),
        Some(("position", position)) => position.parse().ok().map(Edge::Position),
        Some(("time", seconds)) => {
            seconds.parse().ok().map(|it: u64| Edge::AtMs(it.saturating_mul(1000)))
        }
        Some(_) => None,
    };
    edge.ok_or_else(|| "write it as position=N, time=SECONDS or a span like 30m".to_owned())
}

/// `NAME=VALUE`; whole numbers and true or false are what they look like.
pub(super) fn pair(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    let value = match value {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        text => match text.parse() {
            Ok(number) => Value::I64(number),
            Err(_) => Value::text(text),
        },
    };
    Ok((name.to_owned(), value))
}

pub(super) fn table(pairs: &[(String, Value)]) -> Table {
    pairs.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect()
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_written_in_three_ways() {
        assert_eq!(edge("2h"), Ok(Edge::AgoMs(7_200_000)));
        assert_eq!(edge("time=99"), Ok(Edge::AtMs(99_000)));
        assert_eq!(edge("position=7"), Ok(Edge::Position(7)));
        for wrong in ["", "first", "position=", "position=-1", "time=now", "offset=3"] {
            assert!(edge(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn starts_are_written_in_six_ways() {
        assert_eq!(start("first"), Ok(Value::text("first")));
        assert_eq!(start("offset=7"), Ok(Value::I64(7)));
        assert_eq!(start("last=7"), Ok(Value::I64(-7)));
        assert_eq!(start("time=99"), Ok(Value::Timestamp(99)));
        assert_eq!(start("2h"), Ok(Value::text("7200s")));
        for wrong in ["", "soon", "offset=-1", "offset=", "last=x", "time=-5", "since=1"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }
}

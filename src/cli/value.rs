//! Values given on the command line.

use std::time::Duration;

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

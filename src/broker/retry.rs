//! A retry policy: how long a message that failed waits before it comes again.

use std::sync::Arc;

use super::limits::{TIME_SPAN_MAX_MS, age_ms};
use super::routing::mix;
use super::value::Value;

/// Arguments of mailboxes, and of members of groups.
pub(super) const DELAYS: &str = "x-retry-delays";
pub(super) const JITTER: &str = "x-retry-jitter";

/// Delays of one policy.
const DELAYS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    /// In milliseconds; the last one repeats. Never empty.
    delays: Arc<[u64]>,
    /// A delay is up to so many hundredths shorter or longer.
    jitter: u8,
}

impl Retry {
    /// A list of milliseconds, or a text like `1s, 30s, 5m`; numbers in it are milliseconds. The error names the
    /// argument and says what is wrong with it.
    pub(super) fn parse(
        delays: &Value,
        jitter: Option<&Value>,
    ) -> Result<Self, (&'static str, &'static str)> {
        const WRONG: (&str, &str) = (DELAYS, "not a list of times, such as 1s,30s,5m");
        let delays: Option<Vec<u64>> = match delays {
            Value::Array(delays) => delays.iter().map(one).collect(),
            Value::Text(_) => delays.as_str().ok_or(WRONG)?.split(',').map(span).collect(),
            single => one(single).map(|delay| vec![delay]),
        };
        let delays = delays.filter(|it| (1..=DELAYS_MAX).contains(&it.len())).ok_or(WRONG)?;
        let jitter = match jitter {
            None => 0,
            Some(value) => {
                let percent = value.as_i64().and_then(|it| u8::try_from(it).ok());
                percent.filter(|it| *it <= 100).ok_or((JITTER, "not a number from 0 to 100"))?
            }
        };
        Ok(Self { delays: delays.into(), jitter })
    }

    /// Attempts that are followed by another, where nothing else bounds them.
    pub(super) fn attempts_max(&self) -> u32 {
        self.delays.len() as u32
    }

    /// The delay after so many failed attempts, from one on. The same seed has the same jitter.
    pub(super) fn delay_ms(&self, attempts: u32, seed: u64) -> u64 {
        let at = (attempts.max(1) as usize - 1).min(self.delays.len() - 1);
        let delay = self.delays[at];
        let most = u128::from(delay) * u128::from(self.jitter) / 100;
        let chance = u128::from(mix(seed ^ u64::from(attempts) << 48));
        let jitter = (chance * (2 * most + 1)) >> 64;
        (u128::from(delay) - most + jitter) as u64
    }
}

fn one(value: &Value) -> Option<u64> {
    match value {
        Value::Text(_) => span(value.as_str()?),
        number => within(u64::try_from(number.as_i64()?).ok()?),
    }
}

fn span(text: &str) -> Option<u64> {
    let text = text.trim();
    within(match text.strip_suffix("ms") {
        Some(number) => number.parse().ok()?,
        None => text.parse().ok().or_else(|| age_ms(text))?,
    })
}

fn within(ms: u64) -> Option<u64> {
    (ms <= TIME_SPAN_MAX_MS).then_some(ms)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Value::text("1s, 30s,5m"), Some(&[1000, 30_000, 300_000][..]))]
    #[case(Value::text("250ms"), Some(&[250][..]))]
    #[case(Value::text("250"), Some(&[250][..]))]
    #[case(Value::I32(5), Some(&[5][..]))]
    #[case(Value::Array(vec![Value::I64(0), Value::text("1h")]), Some(&[0, 3_600_000][..]))]
    #[case(Value::Array(Vec::new()), None)]
    #[case(Value::Array(vec![Value::I64(1); 65]), None)]
    #[case(Value::text(""), None)]
    #[case(Value::text("1s,,2s"), None)]
    #[case(Value::text("-1s"), None)]
    #[case(Value::text("11Y"), None)]
    #[case(Value::I64(-1), None)]
    #[case(Value::Bool(true), None)]
    fn delays_are_read(#[case] value: Value, #[case] expected: Option<&[u64]>) {
        let found = Retry::parse(&value, None).ok();
        assert_eq!(found.as_ref().map(|it| &*it.delays), expected);
    }

    #[rstest]
    #[case(0, 1000, 1000)]
    #[case(20, 800, 1200)]
    #[case(100, 0, 2000)]
    fn jitter_stays_within_its_part_and_uses_all_of_it(
        #[case] jitter: i64,
        #[case] least: u64,
        #[case] most: u64,
    ) {
        let retry = Retry::parse(&Value::text("1s,2s"), Some(&Value::I64(jitter))).unwrap();
        let delays: Vec<u64> = (0..2000).map(|seed| retry.delay_ms(1, seed)).collect();
        let (min, max) = (*delays.iter().min().unwrap(), *delays.iter().max().unwrap());
        let near = (most - least) / 50;
        assert!(min >= least && min <= least + near, "{min}");
        assert!(max <= most && max + near >= most, "{max}");
        assert!((0..10).all(|seed| retry.delay_ms(1, seed) == delays[seed as usize]));
    }

    #[test]
    fn last_delay_repeats() {
        let retry = Retry::parse(&Value::text("1,2,3"), None).unwrap();
        let delays: Vec<u64> = (1..6).map(|attempts| retry.delay_ms(attempts, 7)).collect();
        assert_eq!(delays, [1, 2, 3, 3, 3]);
    }

    #[test]
    fn jitter_is_a_percentage() {
        for wrong in [Value::I64(101), Value::I64(-1), Value::text("much")] {
            assert!(Retry::parse(&Value::I64(1), Some(&wrong)).is_err());
        }
    }
}

//! Cron expressions: minute, hour, day of the month, month and day of the week, in UTC.

use std::fmt;

use super::name::Time;

/// When something is due again and again, to the minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    /// A bit for each number that fits.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is 0.
    weekdays: u64,
    /// Where both days are said, one of them is enough.
    either_day: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error(
        "a cron expression has five fields: minute, hour, day of the month, month, day of the week"
    )]
    Fields,
    #[error("the {0} of the cron expression is none")]
    Field(&'static str),
    #[error("no day is ever one of the cron expression")]
    Never,
}

const MINUTE_MS: u64 = 60_000;
const MINUTES_OF_DAY: u64 = 24 * 60;
/// The 29th of February comes again after eight years at most, until 2400.
const DAYS_MAX: u64 = 8 * 366;
/// Longer texts are none.
const LENGTH_MAX: usize = 256;

const MONTHS: &[&str] =
    &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Field {
    called: &'static str,
    least: u64,
    most: u64,
    /// Of the numbers from the least on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { called: "minute", least: 0, most: 59, names: &[] },
    Field { called: "hour", least: 0, most: 23, names: &[] },
    Field { called: "day of the month", least: 1, most: 31, names: &[] },
    Field { called: "month", least: 1, most: 12, names: MONTHS },
    // Sunday is 0 and 7.
    Field { called: "day of the week", least: 0, most: 7, names: WEEKDAYS },
];

impl Field {
    fn number(&self, text: &str) -> Option<u64> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let number = match named {
            Some(at) => at as u64 + self.least,
            // `parse` alone would take a sign.
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (self.least..=self.most).contains(&number).then_some(number)
    }

    /// `*`, a number, a range, any of them with a step, or several with commas between them.
    fn bits(&self, text: &str) -> Option<u64> {
        let mut bits = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(step.parse().ok().filter(|step| *step > 0)?)),
                None => (part, None),
            };
            let (first, last) = match (range, range.split_once('-')) {
                ("*", _) => (self.least, self.most),
                (_, Some((first, last))) => (self.number(first)?, self.number(last)?),
                (number, None) => {
                    let first = self.number(number)?;
                    (first, if step.is_some() { self.most } else { first })
                }
            };
            if first > last {
                return None;
            }
            let numbers = (first..=last).step_by(step.unwrap_or(1));
            bits |= numbers.fold(0, |bits, number| bits | 1 << number);
        }
        Some(bits)
    }
}

impl Cron {
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.len() > LENGTH_MAX {
            return Err(CronError::Fields);
        }
        let whole = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let mut parts = whole.split_ascii_whitespace();
        let mut bits = [0; 5];
        let mut anything = [false; 5];
        for (at, field) in FIELDS.iter().enumerate() {
            let part = parts.next().ok_or(CronError::Fields)?;
            anything[at] = part.starts_with('*');
            bits[at] = field.bits(part).ok_or(CronError::Field(field.called))?;
        }
        if parts.next().is_some() {
            return Err(CronError::Fields);
        }
        let [minutes, hours, days, months, weekdays] = bits;
        let weekdays = (weekdays | weekdays >> 7) & 0x7f;
        let either_day = !anything[2] && !anything[4];
        let text = text.trim().to_owned();
        let cron = Self { text, minutes, hours, days, months, weekdays, either_day };
        // A leap day may be eight years away, and is not never.
        cron.next(Time::ZERO).map(|_| cron).ok_or(CronError::Never)
    }

    /// The first minute that fits behind this moment.
    pub fn next(&self, after: Time) -> Option<Time> {
        let start = after.0 / MINUTE_MS + 1;
        let first_day = start / MINUTES_OF_DAY;
        for day in first_day..=first_day + DAYS_MAX {
            if !self.has_day(day) {
                continue;
            }
            let from = if day == first_day { start % MINUTES_OF_DAY } else { 0 };
            let mut minutes = from..MINUTES_OF_DAY;
            if let Some(minute) = minutes.find(|it| self.has_minute(*it)) {
                return Some(Time((day * MINUTES_OF_DAY + minute).checked_mul(MINUTE_MS)?));
            }
        }
        None
    }

    fn has_minute(&self, minute: u64) -> bool {
        self.hours >> (minute / 60) & 1 == 1 && self.minutes >> (minute % 60) & 1 == 1
    }

    fn has_day(&self, days: u64) -> bool {
        let (month, day) = civil(days);
        // The first of January 1970 was a Thursday.
        let of_week = self.weekdays >> ((days + 4) % 7) & 1 == 1;
        let of_month = self.days >> day & 1 == 1;
        let fits = if self.either_day { of_week || of_month } else { of_week && of_month };
        fits && self.months >> month & 1 == 1
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Month and day of the Gregorian calendar, so many days after the first of January 1970. The year begins in March.
fn civil(days: u64) -> (u64, u64) {
    let day_of_era = (days + 719_468) % 146_097;
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, day)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// 2023-11-14 22:13:20 UTC, a Tuesday.
    const NOW: u64 = 1_700_000_000;

    #[rstest]
    #[case("* * * * *", 1_700_000_040)]
    #[case("0 * * * *", 1_700_002_800)]
    #[case("@hourly", 1_700_002_800)]
    #[case("*/15 * * * *", 1_700_000_100)]
    #[case("0 6 * * *", 1_700_028_000)]
    #[case("30 6,22 * * *", 1_700_001_000)]
    #[case("13 22 * * *", 1_700_086_380)]
    #[case("0 0 * * mon-fri", 1_700_006_400)]
    #[case("0 0 * * 7", 1_700_352_000)]
    #[case("0 0 * * SUN", 1_700_352_000)]
    #[case("0 0 1 * *", 1_701_388_800)]
    #[case("0 0 1 jan *", 1_704_067_200)]
    #[case("0 0 29 2 *", 1_709_164_800)]
    // The 20th or a Friday, whichever comes first.
    #[case("0 0 20 * 5", 1_700_179_200)]
    #[case("5/20 23 * * *", 1_700_003_100)]
    fn the_next_time(#[case] text: &str, #[case] expected: u64) {
        let cron = Cron::parse(text).unwrap();
        assert_eq!(cron.next(Time(NOW * 1000)), Some(Time(expected * 1000)), "{text}");
        // A time is not its own next one, and none lies between.
        let expected = Time(expected * 1000);
        assert_eq!(cron.next(Time(expected.0 - 1)), Some(expected));
        assert!(cron.next(expected).is_some_and(|next| next > expected));
    }

    #[rstest]
    #[case("")]
    #[case("* * * *")]
    #[case("* * * * * *")]
    #[case("60 * * * *")]
    #[case("* 24 * * *")]
    #[case("* * 0 * *")]
    #[case("* * 32 * *")]
    #[case("* * * 13 *")]
    #[case("* * * * 8")]
    #[case("*/0 * * * *")]
    #[case("5-3 * * * *")]
    #[case("+5 * * * *")]
    #[case("1, * * * *")]
    #[case("a * * * *")]
    #[case("0 0 30 2 *")]
    #[case("@often")]
    #[case("99999999999999999999 * * * *")]
    fn what_is_none_is_refused(#[case] text: &str) {
        assert!(Cron::parse(text).is_err(), "{text}");
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let (mut month, mut day) = (1, 1);
        for days in 0..400 * 366 {
            assert_eq!(civil(days), (month, day), "day {days}");
            let year = (1970..).find(|year| {
                let before = |year: u64| {
                    let y = year - 1;
                    365 * (year - 1970) + (y / 4 - 492) - (y / 100 - 19) + (y / 400 - 4)
                };
                before(year + 1) > days
            });
            let year = year.unwrap();
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (month, day) = (if month == 12 { 1 } else { month + 1 }, 1);
            }
        }
    }
}

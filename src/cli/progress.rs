//! A line about long work, on standard error and only where that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Work shorter than this says nothing.
const QUIET: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_millis(100);
const BAR: usize = 30;

pub(super) struct Progress {
    /// What was done to so many, such as "sent".
    done: &'static str,
    total: Option<u64>,
    count: u64,
    start: Instant,
    next: Instant,
    shown: bool,
    on: bool,
}

impl Progress {
    /// With a total it is a bar. `wanted` is false where something else writes to the terminal.
    pub(super) fn start(done: &'static str, total: Option<u64>, wanted: bool) -> Self {
        let start = Instant::now();
        let on = wanted && io::stderr().is_terminal();
        Self { done, total, count: 0, start, next: start + QUIET, shown: false, on }
    }

    pub(super) fn add(&mut self, count: u64) {
        self.count += count;
        if !self.on {
            return;
        }
        let now = Instant::now();
        if now >= self.next {
            self.next = now + INTERVAL;
            self.shown = true;
            self.put(&self.line(now.duration_since(self.start)));
        }
    }

    /// Takes the line away again.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            self.put("");
        }
    }

    fn line(&self, passed: Duration) -> String {
        let rate = (self.count as f64 / passed.as_secs_f64().max(1e-9)) as u64;
        let text = format!("{} {}, {}/s", self.done, short(self.count), short(rate));
        let Some(total) = self.total.filter(|total| *total > 0) else { return text };
        let share = (self.count as f64 / total as f64).min(1.0);
        let full = (share * BAR as f64) as usize;
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
        format!("[{bar}] {:3.0} %  {text}", share * 100.0)
    }

    /// Nobody waits for a terminal that is gone.
    fn put(&self, text: &str) {
        let mut error = io::stderr().lock();
        let _ = write!(error, "\r\x1b[K{text}").and_then(|()| error.flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// `1234567` is `1.23M`.
pub(super) fn short(number: u64) -> String {
    let (value, unit) = match number {
        0..10_000 => return number.to_string(),
        10_000..1_000_000 => (number as f64 / 1e3, "k"),
        1_000_000..1_000_000_000 => (number as f64 / 1e6, "M"),
        _ => (number as f64 / 1e9, "G"),
    };
    if value < 10.0 { format!("{value:.2}{unit}") } else { format!("{value:.1}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shorts = [0, 9999, 12_345, 1_234_567, 65_432_100, 7_000_000_000].map(short);
        assert_eq!(shorts, ["0", "9999", "12.3k", "1.23M", "65.4M", "7.00G"]);
    }

    #[test]
    fn a_bar_fills_up() {
        let mut progress = Progress::start("sent", Some(1000), false);
        progress.count = 500;
        let line = progress.line(Duration::from_secs(2));
        assert_eq!(line, "[###############...............]  50 %  sent 500, 250/s");
        progress.total = None;
        assert_eq!(progress.line(Duration::from_secs(2)), "sent 500, 250/s");
    }
}

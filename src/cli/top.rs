//! `pillarbox top`: a live view of mailboxes: rates, backlog, the age of the oldest message, consumers.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, ValueEnum};
use pillarbox::broker::{Table, Value};
use pillarbox::client::{Client, List};
use serde_json::json;

use super::broker::Broker;
use super::progress::short;
use super::{Failure, show, value};

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const TO_LINE_END: &str = "\x1b[K";
const TO_SCREEN_END: &str = "\x1b[J";

/// Watch mailboxes: rates, backlog, age of the oldest message, consumers
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox top
  pillarbox top --sort backlog --interval 5s
  pillarbox top --once --json               (one look, for programs)

Ctrl-C ends it. Where the output is no terminal it takes one look and ends, as with --once.")]
pub(super) struct Top {
    /// Between looks
    #[arg(long, short = 'i', value_name = "TIME", value_parser = value::duration, default_value = "1s")]
    interval: Duration,
    #[arg(long, value_enum, default_value_t = Sort::Rate)]
    sort: Sort,
    /// Take one look and end
    #[arg(long)]
    once: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Messages in and out
    Rate,
    /// Messages that wait
    Backlog,
    /// How long the first message has waited
    Age,
    Name,
}

/// What is known of a mailbox between two looks.
#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    name: String,
    in_rate: f64,
    out_rate: f64,
    ready: u64,
    unsettled: u64,
    consumers: u64,
    oldest: Option<Duration>,
}

/// Counters at one moment.
struct Look {
    at: Instant,
    rows: Vec<Table>,
    connections: Option<usize>,
}

impl Look {
    async fn take(client: &Client) -> Result<Self, Failure> {
        let rows = client.list(List::Mailboxes, "").await?;
        // Only who monitors may see them.
        let connections = client.list(List::Connections, "").await.ok().map(|it| it.len());
        Ok(Self { at: Instant::now(), rows, connections })
    }
}

impl Top {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let mut before = Look::take(&client).await?;
        let live = !self.once && !broker.json && io::stdout().is_terminal();
        if !live {
            tokio::time::sleep(self.interval.min(Duration::from_secs(1))).await;
            let now = Look::take(&client).await?;
            let lines = self.lines(&before, &now, since_epoch());
            return print(&lines, broker.json);
        }
        let screen = Screen::enter()?;
        loop {
            let ended = tokio::select! {
                () = tokio::time::sleep(self.interval.max(Duration::from_millis(100))) => false,
                _ = tokio::signal::ctrl_c() => true,
            };
            if ended {
                return Ok(());
            }
            let now = Look::take(&client).await?;
            let lines = self.lines(&before, &now, since_epoch());
            screen.draw(&page(&lines, now.connections))?;
            before = now;
        }
    }

    /// Rates are what the counters moved between two looks.
    fn lines(&self, before: &Look, now: &Look, clock: Duration) -> Vec<Line> {
        let number = |row: &Table, name: &str| {
            row.get(name).and_then(Value::as_i64).map_or(0, |it| u64::try_from(it).unwrap_or(0))
        };
        let name =
            |row: &Table| row.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let old: BTreeMap<String, &Table> =
            before.rows.iter().map(|row| (name(row), row)).collect();
        let passed = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let mut lines: Vec<Line> = now
            .rows
            .iter()
            .map(|row| {
                let name = name(row);
                let rate = |what: &str| {
                    let earlier = old.get(&name).map_or(0, |row| number(row, what));
                    number(row, what).saturating_sub(earlier) as f64 / passed
                };
                let oldest = row.get("oldest_ms").map(|_| number(row, "oldest_ms"));
                Line {
                    in_rate: rate("published"),
                    out_rate: rate("delivered"),
                    ready: number(row, "ready"),
                    unsettled: number(row, "unsettled"),
                    consumers: number(row, "consumers"),
                    oldest: oldest.map(|ms| clock.saturating_sub(Duration::from_millis(ms))),
                    name,
                }
            })
            .collect();
        lines.sort_by(|a, b| {
            let rate = |line: &Line| line.in_rate + line.out_rate;
            match self.sort {
                Sort::Rate => rate(b).total_cmp(&rate(a)).then(b.ready.cmp(&a.ready)),
                Sort::Backlog => b.ready.cmp(&a.ready),
                Sort::Age => b.oldest.cmp(&a.oldest),
                Sort::Name => std::cmp::Ordering::Equal,
            }
            .then_with(|| a.name.cmp(&b.name))
        });
        lines
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn print(lines: &[Line], json: bool) -> Result<(), Failure> {
    if json {
        let rows = lines.iter().map(|line| {
            json!({
                "name": line.name, "in_per_second": line.in_rate, "out_per_second": line.out_rate,
                "ready": line.ready, "unsettled": line.unsettled, "consumers": line.consumers,
                "oldest_seconds": line.oldest.map(|it| it.as_secs_f64()),
            })
        });
        return show::json_line(&rows.collect());
    }
    table(lines, show::terminal_width()).iter().try_for_each(|line| show::line(line))
}

/// The whole screen as lines.
fn page(lines: &[Line], connections: Option<usize>) -> Vec<String> {
    let sum = |of: fn(&Line) -> f64| lines.iter().map(of).sum::<f64>() as u64;
    let ready: u64 = lines.iter().map(|line| line.ready).sum();
    let unsettled: u64 = lines.iter().map(|line| line.unsettled).sum();
    let mut head = format!(
        "{} mailboxes   in {}/s   out {}/s   ready {}   unsettled {}",
        lines.len(),
        short(sum(|it| it.in_rate)),
        short(sum(|it| it.out_rate)),
        short(ready),
        short(unsettled),
    );
    if let Some(connections) = connections {
        head += &format!("   connections {connections}");
    }
    let mut page = vec![head, String::new()];
    page.extend(table(lines, show::terminal_width()));
    page
}

fn table(lines: &[Line], width: usize) -> Vec<String> {
    // The numbers are narrow; the name gets what is left.
    let longest = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0).max(7);
    let names = longest.min(width.saturating_sub(64).max(8));
    let row = |name: &str, cells: [&str; 6]| {
        let [inward, outward, ready, unsettled, oldest, consumers] = cells;
        format!(
            "{:names$}  {inward:>8}  {outward:>8}  {ready:>8}  {unsettled:>9}  {oldest:>8}  {consumers:>9}",
            show::cut(name, names)
        )
    };
    let head = ["IN/S", "OUT/S", "READY", "UNSETTLED", "OLDEST", "CONSUMERS"];
    let mut table = vec![row("MAILBOX", head)];
    for line in lines {
        let age = line.oldest.map(age).unwrap_or_default();
        table.push(row(
            &line.name,
            [
                &short(line.in_rate.round() as u64),
                &short(line.out_rate.round() as u64),
                &short(line.ready),
                &short(line.unsettled),
                &age,
                &line.consumers.to_string(),
            ],
        ));
    }
    table
}

fn age(age: Duration) -> String {
    match age.as_secs() {
        0 => format!("{}ms", age.as_millis()),
        1..120 => format!("{}s", age.as_secs()),
        120..7200 => format!("{}min", age.as_secs() / 60),
        7200..172_800 => format!("{}h", age.as_secs() / 3600),
        _ => format!("{}d", age.as_secs() / 86_400),
    }
}

/// The terminal's other screen, left again also after an error.
struct Screen;

impl Screen {
    fn enter() -> Result<Self, Failure> {
        put(ENTER)?;
        Ok(Self)
    }

    fn draw(&self, page: &[String]) -> Result<(), Failure> {
        let height = terminal_size::terminal_size().map_or(24, |(_, height)| usize::from(height.0));
        let mut text = String::from(HOME);
        for (number, line) in page.iter().take(height).enumerate() {
            if number > 0 {
                text += "\r\n";
            }
            text += line;
            text += TO_LINE_END;
        }
        text += TO_SCREEN_END;
        put(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = put(LEAVE);
    }
}

fn put(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let put = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    put.map_err(|error| Failure::output(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, published: i64, ready: i64, oldest: Option<i64>) -> Table {
        let mut row = Table::new();
        row.set("name", Value::text(name));
        row.set("published", Value::I64(published));
        row.set("ready", Value::I64(ready));
        if let Some(oldest) = oldest {
            row.set("oldest_ms", Value::I64(oldest));
        }
        row
    }

    fn looks(before: Vec<Table>, now: Vec<Table>) -> (Look, Look) {
        let at = Instant::now();
        let look = |rows, at| Look { at, rows, connections: None };
        (look(before, at), look(now, at + Duration::from_secs(2)))
    }

    fn top(sort: Sort) -> Top {
        Top { interval: Duration::from_secs(1), sort, once: true }
    }

    #[test]
    fn rates_are_the_difference_of_two_looks() {
        let (before, now) = looks(
            vec![row("a", 100, 0, None), row("gone", 5, 0, None)],
            vec![row("a", 300, 7, Some(4_000)), row("new", 10, 1, None)],
        );
        let lines = top(Sort::Rate).lines(&before, &now, Duration::from_secs(10));
        let found: Vec<_> =
            lines.iter().map(|it| (&*it.name, it.in_rate, it.ready, it.oldest)).collect();
        let six = Some(Duration::from_secs(6));
        assert_eq!(found, [("a", 100.0, 7, six), ("new", 5.0, 1, None)]);
        let lines = top(Sort::Name).lines(&before, &now, Duration::from_secs(10));
        assert_eq!(lines[0].name, "a");
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let long = "a-mailbox-with-a-name-that-is-much-too-long-for-any-terminal".repeat(2);
        let line = Line { name: long, ready: 1_234_567, ..Line::default() };
        for width in [72, 80, 120] {
            for text in table(std::slice::from_ref(&line), width) {
                assert!(text.chars().count() <= width, "{width}: {text}");
            }
        }
    }
}

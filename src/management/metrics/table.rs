//! Metrics of many objects of one sort. They are written metric by metric, a piece at a time, so that nobody has to wait
//! for a long page, and so that the page need not be in memory.

use std::fmt::Write;

use super::objects::Families;
use super::page::{Labels, label_text};
use crate::management::Pieces;

/// A metric that each object of a sort may have.
pub(super) struct Column<R> {
    /// Any of these brings it.
    pub(super) families: &'static [&'static str],
    /// RabbitMQ has no such metric.
    pub(super) own: bool,
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) value: fn(&R) -> Option<Number>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
}

#[derive(Clone, Copy)]
pub(super) enum Number {
    Whole(u64),
    Milliseconds(u64),
}

/// Objects and the metrics that are wanted of them.
pub struct Table<R: 'static> {
    columns: Vec<(String, &'static Column<R>)>,
    rows: Vec<(Box<str>, R)>,
    /// The metric and the object that come next.
    next: (usize, usize),
    /// The head of that metric is written.
    begun: bool,
}

impl<R> Table<R> {
    pub(super) fn new(columns: &'static [Column<R>], families: Families<'_>) -> Self {
        let wanted = columns.iter().filter(|it| it.families.iter().any(|it| families.wants(it)));
        let named = wanted.map(|it| {
            let prefix = if it.own { families.own_prefix() } else { families.prefix() };
            let ending = if it.kind == Kind::Counter { "_total" } else { "" };
            (format!("{prefix}{}{ending}", it.name), it)
        });
        Self { columns: named.collect(), rows: Vec::new(), next: (0, 0), begun: false }
    }

    pub(super) fn add(&mut self, labels: Labels<'_>, row: R) {
        self.rows.push((label_text(labels).into(), row));
    }
}

impl<R: Send> Pieces for Table<R> {
    fn write(&mut self, size: usize, out: &mut String) -> bool {
        while let Some((name, column)) = self.columns.get(self.next.0) {
            for (labels, object) in &self.rows[self.next.1..] {
                if out.len() >= size {
                    return true;
                }
                self.next.1 += 1;
                let Some(number) = (column.value)(object) else { continue };
                if !self.begun {
                    let kind = if column.kind == Kind::Counter { "counter" } else { "gauge" };
                    let help = column.help;
                    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
                    self.begun = true;
                }
                out.push_str(name);
                out.push_str(labels);
                out.push(' ');
                push(number, out);
                out.push('\n');
            }
            (self.next, self.begun) = ((self.next.0 + 1, 0), false);
        }
        false
    }
}

fn push(number: Number, out: &mut String) {
    match number {
        // Most of what is counted never happened.
        Number::Whole(0) => out.push('0'),
        Number::Whole(number) => {
            let _ = write!(out, "{number}");
        }
        Number::Milliseconds(number) => {
            let _ = write!(out, "{}", number as f64 / 1000.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column<u64>; 3] = [
        Column {
            families: &["queue_metrics"],
            own: false,
            kind: Kind::Gauge,
            name: "a",
            help: "A",
            value: |it| (*it > 1).then_some(Number::Whole(*it)),
        },
        Column {
            families: &["queue_metrics"],
            own: false,
            kind: Kind::Gauge,
            name: "b",
            help: "B",
            value: |_| None,
        },
        Column {
            families: &["queue_metrics", "node_metrics"],
            own: true,
            kind: Kind::Counter,
            name: "c",
            help: "C",
            value: |it| Some(Number::Milliseconds(*it * 100)),
        },
    ];

    fn text(families: Families<'_>, size: usize) -> (String, usize) {
        let mut table = Table::new(&COLUMNS, families);
        (0..4).for_each(|it| table.add(&[("n", &format!("{it}\\\"\n"))], it));
        let (mut all, mut pieces, mut more) = (String::new(), 0, true);
        while more {
            let mut piece = String::new();
            more = table.write(size, &mut piece);
            all.push_str(&piece);
            pieces += 1;
        }
        (all, pieces)
    }

    #[test]
    fn each_metric_is_said_once_and_with_all_its_objects() {
        let expected = r#"# HELP rabbitmq_a A
# TYPE rabbitmq_a gauge
rabbitmq_a{n="2\\\"\n"} 2
rabbitmq_a{n="3\\\"\n"} 3
# HELP pillarbox_c_total C
# TYPE pillarbox_c_total counter
pillarbox_c_total{n="0\\\"\n"} 0
pillarbox_c_total{n="1\\\"\n"} 0.1
pillarbox_c_total{n="2\\\"\n"} 0.2
pillarbox_c_total{n="3\\\"\n"} 0.3
"#;
        for size in [1, 50, 100, 1000] {
            let (text, pieces) = text(Families::all(), size);
            assert_eq!(text, expected);
            assert!(pieces <= expected.len() / size + 2, "{pieces} of {size}");
            assert!(pieces > 1 || size == 1000);
        }
        let chosen = ["node_metrics".to_owned()];
        let text = text(Families::chosen(&chosen), 1000).0;
        assert!(text.starts_with("# HELP pillarbox_detailed_c_total C\n"), "{text}");
    }
}

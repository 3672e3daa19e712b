//! A page of metrics in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::Measured;

/// Metrics of one page, each name once and with all its samples together.
#[derive(Debug, Default)]
pub struct Page {
    metrics: Vec<Metric>,
    places: BTreeMap<String, usize>,
    /// The same for rows, whose names are put together once.
    rows: BTreeMap<(&'static str, &'static str), usize>,
}

#[derive(Debug)]
struct Metric {
    name: String,
    kind: &'static str,
    help: &'static str,
    samples: String,
}

pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    pub fn gauge(&mut self, name: &str, help: &'static str, labels: Labels<'_>, value: f64) {
        self.sample(name, "gauge", help, "", labels, value);
    }

    /// The name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &'static str, labels: Labels<'_>, value: u64) {
        self.sample(name, "counter", help, "", labels, value as f64);
    }

    /// `bounds` are those of `counts` but the last, which has none.
    pub(super) fn histogram(&mut self, name: &str, help: &'static str, measured: &Measured) {
        let mut sum = 0;
        for (at, count) in measured.counts.iter().enumerate() {
            sum += count;
            let bound = measured.bounds.get(at).map_or_else(|| "+Inf".into(), f64::to_string);
            self.sample(name, "histogram", help, "_bucket", &[("le", &bound)], sum as f64);
        }
        self.sample(name, "histogram", help, "_sum", &[], measured.sum);
        self.sample(name, "histogram", help, "_count", &[], sum as f64);
    }

    fn sample(
        &mut self,
        name: &str,
        kind: &'static str,
        help: &'static str,
        suffix: &str,
        labels: Labels<'_>,
        value: f64,
    ) {
        let at = self.place(name, kind, help);
        let out = &mut self.metrics[at].samples;
        out.push_str(name);
        out.push_str(suffix);
        out.push_str(&label_text(labels));
        let _ = writeln!(out, " {value}");
    }

    fn place(&mut self, name: &str, kind: &'static str, help: &'static str) -> usize {
        if let Some(at) = self.places.get(name) {
            return *at;
        }
        self.metrics.push(Metric { name: name.to_owned(), kind, help, samples: String::new() });
        self.places.insert(name.to_owned(), self.metrics.len() - 1);
        self.metrics.len() - 1
    }

    pub fn text(self) -> String {
        let mut text = String::new();
        for Metric { name, kind, help, samples } in self.metrics {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        text
    }
}

fn label_text(labels: Labels<'_>) -> String {
    let mut out = String::new();
    for (at, (label, text)) in labels.iter().enumerate() {
        out.push(if at == 0 { '{' } else { ',' });
        let _ = write!(out, "{label}=\"{}\"", escaped(text));
    }
    if !labels.is_empty() {
        out.push('}');
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Values of one object, under a name each. There are many: what they share is written once.
pub(super) struct Row<'p> {
    page: &'p mut Page,
    prefix: &'static str,
    labels: String,
}

impl<'p> Row<'p> {
    pub(super) fn new(page: &'p mut Page, prefix: &'static str, labels: Labels<'_>) -> Self {
        Self { page, prefix, labels: label_text(labels) }
    }

    /// Further values are of metrics that start so.
    pub(super) fn with_prefix(mut self, prefix: &'static str) -> Self {
        self.prefix = prefix;
        self
    }

    pub(super) fn gauges<const N: usize>(&mut self, all: [(&'static str, &'static str, u64); N]) {
        for (name, help, value) in all {
            self.value("gauge", name, help, value);
        }
    }

    pub(super) fn counters<const N: usize>(&mut self, all: [(&'static str, &'static str, u64); N]) {
        for (name, help, value) in all {
            self.value("counter", name, help, value);
        }
    }

    /// One of another prefix.
    pub(super) fn own_gauge(
        &mut self,
        prefix: &'static str,
        name: &'static str,
        help: &'static str,
        value: f64,
    ) {
        let prefix = std::mem::replace(&mut self.prefix, prefix);
        self.value("gauge", name, help, value);
        self.prefix = prefix;
    }

    fn value(
        &mut self,
        kind: &'static str,
        name: &'static str,
        help: &'static str,
        value: impl Display,
    ) {
        let at = match self.page.rows.get(&(self.prefix, name)) {
            Some(at) => *at,
            None => {
                let ending = if kind == "counter" { "_total" } else { "" };
                let at = self.page.place(&format!("{}{name}{ending}", self.prefix), kind, help);
                self.page.rows.insert((self.prefix, name), at);
                at
            }
        };
        let Metric { name, samples, .. } = &mut self.page.metrics[at];
        samples.push_str(name);
        samples.push_str(&self.labels);
        let _ = writeln!(samples, " {value}");
    }
}

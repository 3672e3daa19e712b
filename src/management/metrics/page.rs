//! A page of metrics in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Measured;

/// Metrics of one page, each name once and with all its samples together.
#[derive(Debug, Default)]
pub struct Page {
    metrics: Vec<Metric>,
    places: BTreeMap<String, usize>,
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

pub(super) fn label_text(labels: Labels<'_>) -> String {
    let mut out = String::new();
    for (at, (label, text)) in labels.iter().enumerate() {
        out.push(if at == 0 { '{' } else { ',' });
        out.push_str(label);
        out.push_str("=\"");
        push_escaped(text, &mut out);
        out.push('"');
    }
    if !labels.is_empty() {
        out.push('}');
    }
    out
}

fn push_escaped(text: &str, out: &mut String) {
    for part in text.split_inclusive(['\\', '"', '\n']) {
        let plain = part.trim_end_matches(['\\', '"', '\n']);
        out.push_str(plain);
        match &part[plain.len()..] {
            "\n" => out.push_str("\\n"),
            special => {
                special.chars().for_each(|it| out.extend(['\\', it]));
            }
        }
    }
}

//! Lists that may be long, made in steps: messages must not wait for one.

use std::vec;

use serde_json::Value;
use tokio::task::yield_now;

use super::{Answer, Answered, Question};
use crate::management::Pieces;
use crate::management::query::Selection;
use crate::server::http::scroll::{Pace, Scroll};

/// Rows that are looked at in one step, to find their order.
const RANKED_AT_ONCE: usize = 16;
/// Names that are compared with what is asked for in one step.
const COMPARED_AT_ONCE: usize = 500;
/// Bytes of rows that are made in one step.
const PIECE_SIZE: usize = 16 << 10;

impl Question<'_> {
    /// The part of `all` that is wanted.
    pub(super) async fn many<T, F>(
        &self,
        all: Vec<T>,
        name: impl Fn(&T) -> &str,
        json: F,
    ) -> Answered
    where
        T: Send + Sync + 'static,
        F: Fn(&T) -> Value + Send + 'static,
    {
        self.many_by(all, name, |_, _| None, json).await
    }

    /// The same where some numbers are known without making a row.
    pub(super) async fn many_by<T, F>(
        &self,
        all: Vec<T>,
        name: impl Fn(&T) -> &str,
        number: impl Fn(&T, &str) -> Option<u64>,
        json: F,
    ) -> Answered
    where
        T: Send + Sync + 'static,
        F: Fn(&T) -> Value + Send + 'static,
    {
        let selection = self.query.selection()?;
        let total = all.len();
        let mut kept = Vec::new();
        let mut rest = all.into_iter();
        while rest.len() > 0 {
            let few = rest.by_ref().take(COMPARED_AT_ONCE);
            kept.extend(few.filter(|it| selection.takes(name(it))));
            yield_now().await;
        }
        let filtered = kept.len();
        let ordered = if selection.is_by_name() {
            selection.by_name(kept, name)
        } else {
            let mut keys = Vec::with_capacity(kept.len());
            for few in kept.chunks(RANKED_AT_ONCE) {
                keys.extend(few.iter().map(|it| {
                    let known = selection.column().and_then(|column| number(it, column));
                    known.map(Value::from).or_else(|| selection.key(&json(it)))
                }));
                yield_now().await;
            }
            selection.by_keys(kept, keys)
        };
        let shown = selection.cut(ordered)?;
        let around = selection.around(total, filtered, shown.len());
        let rows = Rows { around, items: shown.into_iter(), begun: false, selection, json };
        let parts: [Box<dyn Pieces>; 1] = [Box::new(rows)];
        Ok(Answer::Scroll("application/json", Scroll::new(parts, PIECE_SIZE, Pace::Steady)))
    }
}

/// Rows of a list, with what stands around them.
struct Rows<T, F> {
    around: (String, String),
    items: vec::IntoIter<T>,
    begun: bool,
    selection: Selection,
    json: F,
}

impl<T: Send, F: Fn(&T) -> Value + Send> Pieces for Rows<T, F> {
    fn write(&mut self, size: usize, out: &mut String) -> bool {
        let mut first = !self.begun;
        if first {
            out.push_str(&self.around.0);
            self.begun = true;
        }
        while out.len() < size {
            let Some(item) = self.items.next() else {
                out.push_str(&self.around.1);
                return false;
            };
            if !first {
                out.push(',');
            }
            first = false;
            out.push_str(&self.selection.one((self.json)(&item)).to_string());
        }
        true
    }
}

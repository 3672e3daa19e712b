//! `headers`: the binding's arguments are compared with the message's headers, by `x-match`.

use bytes::Bytes;
use smallvec::SmallVec;

use super::equivalence::{bare, erlang_binary, type_name};
use super::target::TargetId;
use crate::broker::{Message, Refusal, Table, Value};

#[derive(Debug, Default)]
pub(super) struct Headers {
    bindings: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    target: TargetId,
    /// Finds the pattern again when it is unbound.
    arguments: Table,
    any: bool,
    /// `None` asks only whether the header is there.
    criteria: Vec<(Bytes, Option<Value>)>,
}

/// Headers in order of name.
type Sorted<'a> = SmallVec<[(&'a [u8], &'a Value); 16]>;

impl Headers {
    pub(super) fn check_binding(arguments: &Table) -> Result<(), Refusal> {
        match arguments.get("x-match") {
            None => Ok(()),
            Some(Value::Text(text)) => match &**text {
                b"all" | b"any" | b"all-with-x" | b"any-with-x" => Ok(()),
                other => Err(Refusal::Precondition(format!(
                    "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
                    erlang_binary(other)
                ))),
            },
            Some(other) => Err(Refusal::Precondition(format!(
                "Invalid x-match field type {} (value {}); expected longstr",
                type_name(other),
                bare(other)
            ))),
        }
    }

    pub(super) fn bind(&mut self, target: TargetId, arguments: &Table) {
        self.bindings.push(Pattern::new(target, arguments));
    }

    pub(super) fn unbind(&mut self, target: TargetId, arguments: &Table) {
        let same = |it: &Pattern| it.target == target && it.arguments == *arguments;
        if let Some(at) = self.bindings.iter().position(same) {
            self.bindings.remove(at);
        }
    }

    pub(super) fn route(&self, message: &Message, found: &mut impl FnMut(TargetId)) {
        if self.bindings.is_empty() {
            return;
        }
        let headers = message.properties().headers.as_ref();
        let mut sorted: Sorted<'_> = headers
            .into_iter()
            .flat_map(|headers| headers.iter().map(|(name, value)| (&**name, value)))
            .collect();
        // Stable, so that of repeated names the first stays.
        sorted.sort_by_key(|(name, _)| *name);
        sorted.dedup_by_key(|(name, _)| *name);
        for binding in self.bindings.iter().filter(|binding| binding.matches(&sorted)) {
            found(binding.target);
        }
    }
}

impl Pattern {
    fn new(target: TargetId, arguments: &Table) -> Self {
        let mode = arguments.get("x-match").and_then(Value::as_str).unwrap_or("all");
        let with_x = mode.ends_with("-with-x");
        let criteria = arguments
            .iter()
            .filter(|(name, _)| *name != "x-match" && (with_x || !name.starts_with(b"x-")))
            .map(|(name, value)| {
                let value = if matches!(value, Value::Void) { None } else { Some(value.clone()) };
                (name.clone(), value)
            })
            .collect();
        Self { target, arguments: arguments.clone(), any: mode.starts_with("any"), criteria }
    }

    fn matches(&self, headers: &Sorted<'_>) -> bool {
        let mut met = self.criteria.iter().map(|(name, wanted)| {
            let at = headers.binary_search_by_key(&&**name, |(name, _)| name);
            match (at, wanted) {
                (Err(_), _) => false,
                (Ok(_), None) => true,
                (Ok(at), Some(wanted)) => same(wanted, headers[at].1),
            }
        });
        if self.any { met.any(|met| met) } else { met.all(|met| met) }
    }
}

/// Class of type and value: widths do not matter, neither does text or binary. A whole number is no fraction.
fn same(wanted: &Value, given: &Value) -> bool {
    match (wanted, given) {
        (Value::F32(a), Value::F64(b)) | (Value::F64(b), Value::F32(a)) => f64::from(*a) == *b,
        (Value::Text(a), Value::Binary(b)) | (Value::Binary(a), Value::Text(b)) => a == b,
        _ => wanted == given,
    }
}

//! Which messages of a stream a reader wants: `x-stream-filter`, message by message.

use bytes::Bytes;

use crate::broker::message::Message;
use crate::broker::value::{Table, Value};

/// The header that publishers set.
const VALUE: &str = "x-stream-filter-value";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter {
    values: Vec<Bytes>,
    /// Messages without the header come too.
    unfiltered: bool,
}

impl Filter {
    /// `None` where everything is wanted. What is no text in a list is passed over, as RabbitMQ does.
    pub(super) fn of(arguments: &Table) -> Result<Option<Self>, (&'static str, &'static str)> {
        let argument = "x-stream-filter";
        let values = match arguments.get(argument) {
            None => return Ok(None),
            Some(Value::Text(value)) => vec![value.clone()],
            Some(Value::Array(values)) => {
                values.iter().filter_map(Value::as_bytes).cloned().collect()
            }
            Some(_) => return Err((argument, "neither a text nor a list of texts")),
        };
        let unfiltered = match arguments.get("x-stream-match-unfiltered") {
            None => false,
            Some(value) => value.as_bool().ok_or(("x-stream-match-unfiltered", "not a boolean"))?,
        };
        Ok(Some(Self { values, unfiltered }))
    }

    pub(super) fn wants(&self, message: &Message) -> bool {
        match message.properties().header(VALUE).and_then(Value::as_bytes) {
            Some(value) => self.values.contains(value),
            None => self.unfiltered,
        }
    }
}

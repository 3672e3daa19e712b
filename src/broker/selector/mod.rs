//! Selectors: which messages a consumer wants, as the SQL-92 conditions of JMS over headers and properties.
//!
//! ```text
//! region = 'eu' AND (weight > 2.5 OR JMSPriority BETWEEN 7 AND 9) AND name NOT LIKE 'test\_%' ESCAPE '\'
//! ```
//!
//! A header that is not there is NULL, and what depends on it is neither true nor false. Only what is true is wanted.

mod like;
mod parse;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cmp::Ordering;

use like::Like;

use super::{Properties, Value};

/// A condition, parsed once.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    expression: Expression,
    text: Box<str>,
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("a selector has at most {} bytes", Selector::LENGTH_MAX)]
    TooLong,
    #[error("a selector nests at most {} deep", Selector::DEPTH_MAX)]
    TooDeep,
    #[error("selector at byte {at}: expected {expected}")]
    Expected { expected: &'static str, at: usize },
}

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Literal(Literal),
    Identifier(String),
    Not(Box<Self>),
    /// At least two.
    And(Vec<Self>),
    /// At least two.
    Or(Vec<Self>),
    Compare(Box<Self>, Comparison, Box<Self>),
    Between(Box<[Self; 3]>),
    In(Box<Self>, Vec<Literal>),
    Like(Box<Self>, Like),
    IsNull(Box<Self>),
    Negate(Box<Self>),
    /// From left to right. A chain is one level deep, however long.
    Arithmetic(Box<Self>, Vec<(Operator, Self)>),
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Bool(bool),
    Whole(i64),
    Fraction(f64),
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// What an expression comes to for one message. A truth is `Bool` or `Null`, for unknown.
enum Operand<'a> {
    Null,
    Bool(bool),
    Whole(i64),
    Fraction(f64),
    Text(Cow<'a, str>),
    /// A table or an array: there, and unlike everything.
    Other,
}

impl Selector {
    /// The longest selector, in bytes.
    pub const LENGTH_MAX: usize = 8192;
    /// How deep brackets, signs and NOTs may stand in each other.
    pub const DEPTH_MAX: usize = 32;

    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self { expression: parse::selector(text)?, text: text.into() })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn matches(&self, properties: &Properties) -> bool {
        matches!(self.expression.value(properties), Operand::Bool(true))
    }
}

impl Expression {
    fn value<'a>(&'a self, of: &'a Properties) -> Operand<'a> {
        match self {
            Self::Literal(literal) => literal.value(),
            Self::Identifier(name) => property(name, of),
            Self::Not(inner) => match inner.value(of) {
                Operand::Bool(truth) => Operand::Bool(!truth),
                _ => Operand::Null,
            },
            Self::And(all) => joined(all, of, false),
            Self::Or(all) => joined(all, of, true),
            Self::Compare(left, comparison, right) => {
                compare(&left.value(of), *comparison, &right.value(of))
            }
            Self::Between(parts) => {
                let [value, low, high] = &**parts;
                let value = value.value(of);
                let above = compare(&value, Comparison::GreaterOrEqual, &low.value(of));
                let below = compare(&value, Comparison::LessOrEqual, &high.value(of));
                match (above, below) {
                    (Operand::Bool(false), _) | (_, Operand::Bool(false)) => Operand::Bool(false),
                    (Operand::Bool(true), Operand::Bool(true)) => Operand::Bool(true),
                    _ => Operand::Null,
                }
            }
            Self::In(value, list) => match value.value(of) {
                Operand::Null => Operand::Null,
                value => Operand::Bool(list.iter().any(|it| {
                    matches!(compare(&value, Comparison::Equal, &it.value()), Operand::Bool(true))
                })),
            },
            Self::Like(value, like) => match value.value(of) {
                Operand::Null => Operand::Null,
                Operand::Text(text) => Operand::Bool(like.matches(&text)),
                _ => Operand::Bool(false),
            },
            Self::IsNull(value) => Operand::Bool(matches!(value.value(of), Operand::Null)),
            Self::Negate(value) => match value.value(of) {
                Operand::Whole(number) => {
                    number.checked_neg().map_or(Operand::Fraction(-(number as f64)), Operand::Whole)
                }
                Operand::Fraction(number) => Operand::Fraction(-number),
                _ => Operand::Null,
            },
            Self::Arithmetic(first, rest) => {
                rest.iter().fold(first.value(of), |left, (operator, right)| {
                    operator.apply(&left, &right.value(of))
                })
            }
        }
    }
}

impl Literal {
    fn value(&self) -> Operand<'_> {
        match self {
            Self::Bool(truth) => Operand::Bool(*truth),
            Self::Whole(number) => Operand::Whole(*number),
            Self::Fraction(number) => Operand::Fraction(*number),
            Self::Text(text) => Operand::Text(Cow::Borrowed(text)),
        }
    }
}

/// AND is decided by a false, OR by a true; else by what is unknown.
fn joined<'a>(all: &'a [Expression], of: &'a Properties, decides: bool) -> Operand<'a> {
    let mut unknown = false;
    for each in all {
        match each.value(of) {
            Operand::Bool(truth) if truth == decides => return Operand::Bool(decides),
            Operand::Bool(_) => {}
            _ => unknown = true,
        }
    }
    if unknown { Operand::Null } else { Operand::Bool(!decides) }
}

/// Unlike types are neither equal nor unequal: the answer is false (JMS 3.8.1.2).
fn compare<'a>(left: &Operand<'_>, by: Comparison, right: &Operand<'_>) -> Operand<'a> {
    if matches!(left, Operand::Null) || matches!(right, Operand::Null) {
        return Operand::Null;
    }
    let order = match (left, right) {
        (Operand::Whole(left), Operand::Whole(right)) => Some(left.cmp(right)),
        (Operand::Text(left), Operand::Text(right)) => return by.of_equals(left == right),
        (Operand::Bool(left), Operand::Bool(right)) => return by.of_equals(left == right),
        _ => match (left.as_fraction(), right.as_fraction()) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => return Operand::Bool(false),
        },
    };
    Operand::Bool(match by {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::Unequal => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

impl Comparison {
    /// Text and truths are equal or not; they have no order (JMS 3.8.1.1).
    fn of_equals<'a>(self, equal: bool) -> Operand<'a> {
        Operand::Bool(match self {
            Self::Equal => equal,
            Self::Unequal => !equal,
            _ => false,
        })
    }
}

impl Operator {
    /// Whole numbers stay whole while they fit. What is no number, or a division by zero, is unknown.
    fn apply<'a>(self, left: &Operand<'_>, right: &Operand<'_>) -> Operand<'a> {
        if let (Operand::Whole(left), Operand::Whole(right)) = (left, right) {
            let whole = match self {
                Self::Add => left.checked_add(*right),
                Self::Subtract => left.checked_sub(*right),
                Self::Multiply => left.checked_mul(*right),
                Self::Divide if *right == 0 => return Operand::Null,
                Self::Divide => left.checked_div(*right),
            };
            if let Some(whole) = whole {
                return Operand::Whole(whole);
            }
        }
        let (Some(left), Some(right)) = (left.as_fraction(), right.as_fraction()) else {
            return Operand::Null;
        };
        Operand::Fraction(match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
        })
    }
}

impl Operand<'_> {
    fn as_fraction(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(*number as f64),
            Self::Fraction(number) => Some(*number),
            _ => None,
        }
    }
}

/// A header of that name; else JMS's or AMQP's own property of that name.
fn property<'a>(name: &str, of: &'a Properties) -> Operand<'a> {
    if let Some(value) = of.header(name) {
        return header(value);
    }
    let text = match name {
        "JMSMessageID" | "message_id" => &of.message_id,
        "JMSCorrelationID" | "correlation_id" => &of.correlation_id,
        "JMSType" | "type" => &of.kind,
        "JMSReplyTo" | "reply_to" => &of.reply_to,
        "JMSXUserID" | "user_id" => &of.user_id,
        "JMSXAppID" | "app_id" => &of.app_id,
        "content_type" => &of.content_type,
        "content_encoding" => &of.content_encoding,
        "expiration" => &of.expiration,
        "cluster_id" => &of.cluster_id,
        _ => return number(name, of),
    };
    text.as_deref().map_or(Operand::Null, |text| Operand::Text(String::from_utf8_lossy(text)))
}

fn number<'a>(name: &str, of: &Properties) -> Operand<'a> {
    let whole = |number: Option<i64>| number.map_or(Operand::Null, Operand::Whole);
    match name {
        // A message without a priority has JMS's default.
        "JMSPriority" => Operand::Whole(of.priority.unwrap_or(4).into()),
        "JMSDeliveryMode" => {
            let persistent = of.delivery_mode == Some(2);
            Operand::Text(if persistent { "PERSISTENT" } else { "NON_PERSISTENT" }.into())
        }
        // In milliseconds, where AMQP has seconds.
        "JMSTimestamp" => whole(
            of.timestamp
                .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)),
        ),
        "priority" => whole(of.priority.map(Into::into)),
        "delivery_mode" => whole(of.delivery_mode.map(Into::into)),
        "timestamp" => whole(of.timestamp.and_then(|seconds| seconds.try_into().ok())),
        _ => Operand::Null,
    }
}

fn header(value: &Value) -> Operand<'_> {
    match value {
        Value::Void => Operand::Null,
        Value::Bool(truth) => Operand::Bool(*truth),
        Value::F32(number) => Operand::Fraction((*number).into()),
        Value::F64(number) => Operand::Fraction(*number),
        Value::Decimal { scale, value } => {
            Operand::Fraction(f64::from(*value) / 10f64.powi((*scale).into()))
        }
        Value::Text(bytes) | Value::Binary(bytes) => Operand::Text(String::from_utf8_lossy(bytes)),
        Value::Timestamp(seconds) => (*seconds).try_into().map_or(Operand::Other, Operand::Whole),
        Value::Table(_) | Value::Array(_) => Operand::Other,
        number => number.as_i64().map_or(Operand::Other, Operand::Whole),
    }
}

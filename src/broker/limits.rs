//! What a mailbox's arguments and policies ask for, checked and merged.

use super::command::DeclareMailbox;
use super::definition::PolicyDefinition;
use super::name::Name;
use super::refusal::{Kind, Refusal};
use super::value::{Table, Value};

/// 10 years in milliseconds: the longest time to live, delay and idle time.
pub const TIME_SPAN_MAX_MS: u64 = 315_360_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailboxKind {
    #[default]
    Classic,
    Quorum,
    Stream,
}

impl MailboxKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "classic" => Self::Classic,
            "quorum" => Self::Quorum,
            "stream" => Self::Stream,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    RejectPublishDeadLetter,
}

/// Effective limits of one mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub kind: MailboxKind,
    pub message_ttl_ms: Option<u64>,
    pub expires_ms: Option<u64>,
    pub length_max: Option<u64>,
    pub bytes_max: Option<u64>,
    pub overflow: Overflow,
    pub dead_letter_exchange: Option<Name>,
    pub dead_letter_key: Option<Name>,
    /// Highest priority; `None` for a mailbox without priorities.
    pub priority_max: Option<u8>,
    pub single_active: bool,
    /// Failed attempts before a message is dead-lettered; `None` for no limit.
    pub delivery_limit: Option<u32>,
}

/// Arguments that a redeclaration must repeat; others are ignored in comparing.
const COMPARED: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-single-active-consumer",
    "x-queue-type",
    "x-delivery-limit",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
];

impl Limits {
    /// Reads and checks the arguments of a declaration.
    pub fn of(
        declare: &DeclareMailbox,
        vhost: &Name,
        delivery_limit: u32,
    ) -> Result<Self, Refusal> {
        let reader = Reader { name: &declare.name, vhost, table: &declare.arguments };
        let kind = match reader.text("x-queue-type")? {
            Some(text) => MailboxKind::parse(&text).ok_or_else(|| {
                reader.invalid("x-queue-type", &format!("unsupported queue type '{text}'"))
            })?,
            None => MailboxKind::Classic,
        };
        if kind != MailboxKind::Classic {
            for (wrong, property) in [
                (!declare.durable, "non-durable"),
                (declare.exclusive, "exclusive"),
                (declare.auto_delete && kind == MailboxKind::Stream, "auto-delete"),
            ] {
                if wrong {
                    let name = &declare.name;
                    return Err(Refusal::Precondition(format!(
                        "invalid property '{property}' for queue '{name}' in vhost '{vhost}'"
                    )));
                }
            }
        }
        let dead_letter_exchange = reader.text("x-dead-letter-exchange")?;
        let dead_letter_key = reader.text("x-dead-letter-routing-key")?;
        if dead_letter_key.is_some() && dead_letter_exchange.is_none() {
            return Err(
                reader.invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined")
            );
        }
        let overflow = match reader.text("x-overflow")?.as_deref() {
            None | Some("drop-head") => Overflow::DropHead,
            Some("reject-publish") => Overflow::RejectPublish,
            Some("reject-publish-dlx") => Overflow::RejectPublishDeadLetter,
            Some(other) => {
                return Err(reader.invalid("x-overflow", &format!("invalid overflow '{other}'")));
            }
        };
        let priority_max = match reader.number("x-max-priority", 0, 255)? {
            Some(0) | None => None,
            Some(most) => Some(most as u8),
        };
        for mode in
            ["x-queue-mode", "x-queue-master-locator", "x-dead-letter-strategy", "x-max-age"]
        {
            reader.text(mode)?;
        }
        let limit = match declare.arguments.get("x-delivery-limit") {
            None if kind == MailboxKind::Quorum => Some(delivery_limit),
            None => None,
            Some(value) => match value.as_i64() {
                Some(n) if n < 0 => None,
                Some(n) => Some(n.min(i64::from(u32::MAX)) as u32),
                None => return Err(reader.invalid("x-delivery-limit", "not an integer")),
            },
        };
        Ok(Self {
            kind,
            message_ttl_ms: reader.number("x-message-ttl", 0, TIME_SPAN_MAX_MS)?,
            expires_ms: reader.number("x-expires", 1, TIME_SPAN_MAX_MS)?,
            length_max: reader.number("x-max-length", 0, i64::MAX as u64)?,
            bytes_max: reader.number("x-max-length-bytes", 0, i64::MAX as u64)?,
            overflow,
            dead_letter_exchange: dead_letter_exchange.map(Name::from),
            dead_letter_key: dead_letter_key.map(Name::from),
            priority_max: if kind == MailboxKind::Classic { priority_max } else { None },
            single_active: reader.flag("x-single-active-consumer")?.unwrap_or(false),
            delivery_limit: limit,
        })
    }

    /// Adds what policies say: the smaller number wins; for texts the argument wins.
    #[must_use]
    pub fn with_policies<'a>(
        mut self,
        policies: impl IntoIterator<Item = &'a PolicyDefinition>,
    ) -> Self {
        for policy in policies {
            let number = |key: &str| {
                policy
                    .definition
                    .get(key)
                    .and_then(Value::as_i64)
                    .and_then(|n| u64::try_from(n).ok())
            };
            let text =
                |key: &str| policy.definition.get(key).and_then(Value::as_str).map(Name::from);
            self.message_ttl_ms = smaller(self.message_ttl_ms, number("message-ttl"));
            self.expires_ms = smaller(self.expires_ms, number("expires"));
            self.length_max = smaller(self.length_max, number("max-length"));
            self.bytes_max = smaller(self.bytes_max, number("max-length-bytes"));
            let limit = number("delivery-limit").map(|n| n.min(u64::from(u32::MAX)) as u32);
            self.delivery_limit = smaller(self.delivery_limit, limit);
            if policy.operator {
                continue;
            }
            if self.dead_letter_exchange.is_none() {
                self.dead_letter_exchange = text("dead-letter-exchange");
            }
            if self.dead_letter_key.is_none() {
                self.dead_letter_key = text("dead-letter-routing-key");
            }
            if self.overflow == Overflow::DropHead {
                match text("overflow").as_deref() {
                    Some("reject-publish") => self.overflow = Overflow::RejectPublish,
                    Some("reject-publish-dlx") => self.overflow = Overflow::RejectPublishDeadLetter,
                    _ => {}
                }
            }
        }
        self
    }
}

fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The first difference between the arguments of two declarations, in RabbitMQ's words.
pub fn difference(current: &Table, received: &Table) -> Option<(String, String)> {
    COMPARED.iter().find_map(|&name| {
        let normal = |value: Option<&Value>| {
            let classic =
                name == "x-queue-type" && value.and_then(Value::as_str) == Some("classic");
            if classic { None } else { value.cloned() }
        };
        let (was, is) = (normal(current.get(name)), normal(received.get(name)));
        if was == is {
            return None;
        }
        let difference = match (&is, &was) {
            (Some(is), None) => format!("received {} but current is none", told(is)),
            (None, Some(was)) => format!("received none but current is {}", told(was)),
            (Some(is), Some(was)) => format!("received {} but current is {}", told(is), told(was)),
            (None, None) => return None,
        };
        Some((name.to_owned(), difference))
    })
}

fn told(value: &Value) -> String {
    let (text, kind) = match value {
        Value::Bool(yes) => (yes.to_string(), "bool"),
        Value::I8(n) => (n.to_string(), "byte"),
        Value::U8(n) => (n.to_string(), "unsignedbyte"),
        Value::I16(n) => (n.to_string(), "short"),
        Value::U16(n) => (n.to_string(), "unsignedshort"),
        Value::I32(n) => (n.to_string(), "signedint"),
        Value::U32(n) => (n.to_string(), "unsignedint"),
        Value::I64(n) => (n.to_string(), "long"),
        Value::F32(n) => (n.to_string(), "float"),
        Value::F64(n) => (n.to_string(), "double"),
        Value::Text(text) => (String::from_utf8_lossy(text).into_owned(), "longstr"),
        Value::Binary(_) => (String::new(), "binary"),
        Value::Timestamp(n) => (n.to_string(), "timestamp"),
        Value::Decimal { .. } => (String::new(), "decimal"),
        Value::Table(_) => (String::new(), "table"),
        Value::Array(_) => (String::new(), "array"),
        Value::Void => (String::new(), "void"),
    };
    format!("the value '{text}' of type '{kind}'")
}

struct Reader<'a> {
    name: &'a Name,
    vhost: &'a Name,
    table: &'a Table,
}

impl Reader<'_> {
    fn invalid(&self, argument: &str, reason: &str) -> Refusal {
        Refusal::InvalidArgument {
            argument: argument.into(),
            kind: Kind::Mailbox,
            name: self.name.clone(),
            vhost: self.vhost.clone(),
            reason: reason.into(),
        }
    }

    fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.table.get(name) else { return Ok(None) };
        let Some(n) = value.as_i64() else {
            return Err(self.invalid(name, &format!("{{unacceptable_type,{}}}", told(value))));
        };
        match u64::try_from(n) {
            Ok(n) if n < least => Err(self.invalid(name, "{value_zero,0}")),
            Ok(n) if n > most => Err(self.invalid(name, &format!("{{value_too_big,{n}}}"))),
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(self.invalid(name, &format!("{{value_negative,{n}}}"))),
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        match self.table.get(name) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(self.invalid(name, &format!("{{unacceptable_type,{}}}", told(value)))),
            },
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.table.get(name) {
            None => Ok(None),
            Some(value) => match value.as_bool() {
                Some(yes) => Ok(Some(yes)),
                None => Err(self.invalid(name, &format!("{{unacceptable_type,{}}}", told(value)))),
            },
        }
    }
}

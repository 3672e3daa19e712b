//! What a mailbox's arguments and policies ask for, checked and merged.

use super::command::DeclareMailbox;
use super::dedup::{self, Window};
use super::definition::PolicyDefinition;
use super::keyed::KeySource;
use super::name::Name;
use super::peer::{SPREAD, Spread};
use super::policy;
use super::refusal::{Kind, Refusal};
use super::retry::{DELAYS, JITTER, Retry};
use super::routing::{self as equivalence, type_name};
use super::value::{Table, Value};

/// 10 years in milliseconds: the longest time to live, delay and idle time.
pub const TIME_SPAN_MAX_MS: u64 = 315_360_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailboxKind {
    #[default]
    Classic,
    Quorum,
    Stream,
    /// A stream that keeps the newest value of each key.
    Kv,
}

impl MailboxKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
            Self::Kv => "kv",
        }
    }

    /// Messages stay, and are read by position.
    pub fn is_log(self) -> bool {
        matches!(self, Self::Stream | Self::Kv)
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "classic" => Self::Classic,
            "quorum" => Self::Quorum,
            "stream" => Self::Stream,
            "kv" => Self::Kv,
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

impl Overflow {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "drop-head" => Self::DropHead,
            "reject-publish" => Self::RejectPublish,
            "reject-publish-dlx" => Self::RejectPublishDeadLetter,
            _ => return None,
        })
    }
}

/// Effective limits of one mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub kind: MailboxKind,
    pub message_ttl_ms: Option<u64>,
    pub expires_ms: Option<u64>,
    pub length_max: Option<u64>,
    pub bytes_max: Option<u64>,
    /// Older messages of a stream go.
    pub age_max_ms: Option<u64>,
    /// How much of a stream goes at once, at most.
    pub segment_bytes_max: Option<u64>,
    /// Messages of a queue stay for so long after they were settled, to be put back.
    pub keep_settled_ms: Option<u64>,
    /// Where the name may live on several hosts.
    pub(super) spread: Option<Spread>,
    /// What says a message's key, where of each key one is out at a time.
    pub(super) key_source: Option<KeySource>,
    /// Values that are kept for each key.
    pub history: Option<u64>,
    pub overflow: Overflow,
    /// An argument says it, so no policy does, except for type quorum.
    overflow_given: bool,
    pub dead_letter_exchange: Option<Name>,
    pub dead_letter_key: Option<Name>,
    /// Dead letters stay until they have a place: asked for, and possible. See `keeps_dead`.
    dead_letters_wait: Option<bool>,
    /// Highest priority; `None` for a mailbox without priorities.
    pub priority_max: Option<u8>,
    pub single_active: bool,
    /// A delivery may stay unsettled so long; 0 for ever. `None` where nothing says it.
    pub consumer_timeout_ms: Option<u64>,
    /// Failed attempts before a message is dead-lettered; `None` for no limit.
    pub delivery_limit: Option<u32>,
    /// As arguments and policies give it: below zero for none.
    delivery_limit_given: Option<i64>,
    /// When messages that failed come again; `None` for at once.
    pub(super) retry: Option<Retry>,
    /// Messages that were published before are not taken again.
    pub(super) dedup: Option<Window>,
    /// Where neither says anything.
    delivery_limit_default: Option<u32>,
}

const GROUPS: &str = "x-message-groups";
const KEEP: &str = "x-keep-settled-for";
const AT_LEAST_ONCE: &str = "at-least-once";

/// Arguments that a redeclaration must repeat, in RabbitMQ's order; others are ignored in comparing.
const COMPARED: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-delivery-limit",
    "x-retry-delays",
    "x-retry-jitter",
    "x-message-deduplication",
    "x-deduplication-window",
    "x-deduplication-header",
    "x-cache-ttl",
    "x-cache-size",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-max-history",
    SPREAD,
    KEEP,
    GROUPS,
];

/// What a stream cannot have.
const NOT_FOR_STREAMS: &[&str] = &[
    "x-message-ttl",
    "x-expires",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-priority",
    "x-single-active-consumer",
    "x-delivery-limit",
    "x-retry-delays",
    "x-retry-jitter",
    KEEP,
    GROUPS,
];

/// What a key-value mailbox cannot have besides.
const NOT_FOR_KV: &[&str] = &["x-max-length", "x-max-length-bytes", "x-max-age"];

const SEGMENT_BYTES_MAX: i64 = 3_000_000_000;

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
                reader.invalid("x-queue-type", &format!("\"unsupported queue type '{text}'\""))
            })?,
            None => MailboxKind::Classic,
        };
        if kind != MailboxKind::Classic {
            for (wrong, property) in [
                (!declare.durable, "non-durable"),
                (declare.exclusive, "exclusive-owner"),
                (declare.auto_delete && kind.is_log(), "auto-delete"),
            ] {
                if wrong {
                    let name = &declare.name;
                    return Err(Refusal::Precondition(format!(
                        "invalid property '{property}' for queue '{name}' in vhost '{vhost}'"
                    )));
                }
            }
        }
        if kind.is_log() {
            reader.check_log(kind)?;
        }
        let spread = match reader.text(SPREAD)? {
            None => None,
            Some(_) if declare.exclusive => {
                return Err(reader.invalid(SPREAD, "the queue is exclusive"));
            }
            Some(text) => Some(Spread::parse(&text).ok_or_else(|| {
                reader.invalid(SPREAD, &format!("\"unsupported spread '{text}'\""))
            })?),
        };
        let keep_settled_ms = reader.number(KEEP, 1, TIME_SPAN_MAX_MS)?;
        if keep_settled_ms.is_some() && (!declare.durable || declare.exclusive) {
            return Err(reader.invalid(KEEP, "the queue is not durable"));
        }
        let dead_letter_exchange = reader.text("x-dead-letter-exchange")?;
        let dead_letter_key = reader.text("x-dead-letter-routing-key")?;
        if dead_letter_key.is_some() && dead_letter_exchange.is_none() {
            return Err(
                reader.invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined")
            );
        }
        let overflow_given = declare.arguments.get("x-overflow").is_some();
        let overflow = match reader.text("x-overflow")? {
            None => Overflow::DropHead,
            Some(text) => Overflow::parse(&text)
                .ok_or_else(|| reader.invalid("x-overflow", "invalid_overflow"))?,
        };
        let priority_max = match reader.number("x-max-priority", 0, 255)? {
            Some(0) | None => None,
            Some(most) => Some(most as u8),
        };
        reader.text("x-queue-master-locator")?;
        let age_max_ms = match reader.text("x-max-age")? {
            None => None,
            Some(span) => match age_ms(&span) {
                Some(ms) => Some(ms),
                None => return Err(reader.invalid("x-max-age", "invalid_max_age")),
            },
        };
        let dead_letters_wait = match reader.text("x-dead-letter-strategy")?.as_deref() {
            None => None,
            Some("at-most-once") => Some(false),
            Some(AT_LEAST_ONCE) => Some(true),
            Some(_) => return Err(reader.invalid("x-dead-letter-strategy", "invalid_dlx_strategy")),
        };
        if let Some(mode) = reader.text("x-queue-mode")?
            && !matches!(mode.as_str(), "default" | "lazy")
        {
            let reason = format!("\"unsupported queue mode '{mode}'\"");
            return Err(reader.invalid("x-queue-mode", &reason));
        }
        if let Some(version) = declare.arguments.get("x-queue-version").and_then(Value::as_i64)
            && !matches!(version, 1 | 2)
        {
            let reason = format!("\"unsupported queue version '{version}'\"");
            return Err(reader.invalid("x-queue-version", &reason));
        }
        let delivery_limit_given = match declare.arguments.get("x-delivery-limit") {
            None => None,
            Some(value) => Some(value.as_i64().ok_or_else(|| {
                let kind = type_name(value);
                reader.invalid("x-delivery-limit", &format!("\"expected integer, got {kind}\""))
            })?),
        };
        let delivery_limit_default = (kind == MailboxKind::Quorum).then_some(delivery_limit);
        Ok(Self {
            kind,
            message_ttl_ms: reader.number("x-message-ttl", 0, TIME_SPAN_MAX_MS)?,
            expires_ms: reader.number("x-expires", 1, TIME_SPAN_MAX_MS)?,
            length_max: reader.number("x-max-length", 0, i64::MAX as u64)?,
            bytes_max: reader.number("x-max-length-bytes", 0, i64::MAX as u64)?,
            age_max_ms,
            keep_settled_ms,
            spread,
            key_source: reader.key_source()?,
            history: reader.number("x-max-history", 1, 1 << 16)?,
            segment_bytes_max: reader.number(
                "x-stream-max-segment-size-bytes",
                1,
                i64::MAX as u64,
            )?,
            overflow,
            overflow_given,
            dead_letter_exchange: dead_letter_exchange.map(Name::from),
            dead_letter_key: dead_letter_key.map(Name::from),
            dead_letters_wait,
            priority_max: if kind == MailboxKind::Classic { priority_max } else { None },
            single_active: reader.flag("x-single-active-consumer")?.unwrap_or(false),
            consumer_timeout_ms: reader.number("x-consumer-timeout", 0, TIME_SPAN_MAX_MS)?,
            delivery_limit: None,
            delivery_limit_given,
            retry: reader.retry()?,
            dedup: reader.dedup()?,
            delivery_limit_default,
        }
        .with_delivery_limit())
    }

    /// Whether it depends on what is there if a message is taken.
    pub(super) fn refuses_when_full(&self) -> bool {
        self.overflow != Overflow::DropHead
            && (self.length_max.is_some() || self.bytes_max.is_some())
    }

    /// What policies for all kinds of mailboxes say does not all concern a stream.
    fn of_its_kind(mut self) -> Self {
        if self.kind == MailboxKind::Kv {
            self.length_max = None;
            self.bytes_max = None;
            self.age_max_ms = None;
        }
        if self.kind.is_log() {
            self.message_ttl_ms = None;
            self.expires_ms = None;
            self.overflow = Overflow::DropHead;
            self.dead_letter_exchange = None;
            self.dead_letter_key = None;
            self.delivery_limit = None;
            self.retry = None;
            self.keep_settled_ms = None;
        }
        self
    }

    /// A consumer's own word, from its arguments.
    pub(super) fn consumer_timeout(
        arguments: &Table,
        name: &Name,
        vhost: &Name,
    ) -> Result<Option<u64>, Refusal> {
        let reader = Reader { name, vhost, table: arguments };
        reader.number("x-consumer-timeout", 0, TIME_SPAN_MAX_MS)
    }

    /// Whether a dead letter stays here until every mailbox it goes to took it. As RabbitMQ has it, only where
    /// publishers are refused when the mailbox is full: what is dropped for want of room cannot wait.
    pub(super) fn keeps_dead(&self) -> bool {
        self.dead_letters_wait == Some(true)
            && self.dead_letter_exchange.is_some()
            && self.overflow == Overflow::RejectPublish
    }

    fn with_delivery_limit(mut self) -> Self {
        self.delivery_limit = match self.delivery_limit_given {
            // Each delay is used once.
            None => match &self.retry {
                Some(retry) => Some(retry.attempts_max()),
                None => self.delivery_limit_default,
            },
            Some(given) if given < 0 => None,
            Some(given) => Some(u32::try_from(given).unwrap_or(u32::MAX)),
        };
        self
    }

    /// Adds what policies say: the smaller number wins; for texts the argument wins.
    #[must_use]
    pub fn with_policies<'a>(
        mut self,
        policies: impl IntoIterator<Item = &'a PolicyDefinition>,
    ) -> Self {
        for policy in policies {
            let number = |key| policy::number(policy, key);
            let text = |key| policy::text(policy, key).map(Name::from);
            self.message_ttl_ms = smaller(self.message_ttl_ms, number("message-ttl"));
            self.expires_ms = smaller(self.expires_ms, number("expires"));
            self.consumer_timeout_ms =
                smaller(self.consumer_timeout_ms, number("consumer-timeout"));
            self.keep_settled_ms = smaller(self.keep_settled_ms, number("keep-settled-for"));
            self.length_max = smaller(self.length_max, number("max-length"));
            self.bytes_max = smaller(self.bytes_max, number("max-length-bytes"));
            let age = policy.definition.get("max-age").and_then(Value::as_str).and_then(age_ms);
            self.age_max_ms = smaller(self.age_max_ms, age);
            let segment = number("stream-max-segment-size-bytes").filter(|bytes| *bytes > 0);
            self.segment_bytes_max = smaller(self.segment_bytes_max, segment);
            let limit = policy.definition.get("delivery-limit").and_then(Value::as_i64);
            self.delivery_limit_given = match (self.delivery_limit_given, limit) {
                // Below zero means none: then the other one holds.
                (Some(a), Some(b)) if a < 0 || b < 0 => Some(a.max(b)),
                (a, b) => smaller(a, b),
            };
            if policy.operator {
                continue;
            }
            if self.retry.is_none() {
                let of = |name| policy.definition.get(name);
                let delays = of("retry-delays");
                self.retry = delays.and_then(|it| Retry::parse(it, of("retry-jitter")).ok());
            }
            if self.dead_letter_exchange.is_none() {
                self.dead_letter_exchange = text("dead-letter-exchange");
            }
            if self.dead_letter_key.is_none() {
                self.dead_letter_key = text("dead-letter-routing-key");
            }
            if self.dead_letters_wait.is_none() {
                let strategy = policy::text(policy, "dead-letter-strategy");
                self.dead_letters_wait = strategy.map(|it| it == AT_LEAST_ONCE);
            }
            // RabbitMQ's rule differs by kind here.
            if (!self.overflow_given || self.kind == MailboxKind::Quorum)
                && let Some(overflow) = policy::text(policy, "overflow").and_then(Overflow::parse)
            {
                self.overflow = overflow;
            }
        }
        self.with_delivery_limit().of_its_kind()
    }
}

/// A span like `7D` or `30s`, in milliseconds: a number and one of Y, M (30 days), D, h, m, s.
pub(super) fn age_ms(text: &str) -> Option<u64> {
    const SECOND: u64 = 1000;
    const DAY: u64 = 24 * 3600 * SECOND;
    let unit = match text.bytes().last()? {
        b'Y' => 365 * DAY,
        b'M' => 30 * DAY,
        b'D' => DAY,
        b'h' => 3600 * SECOND,
        b'm' => 60 * SECOND,
        b's' => SECOND,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    // `parse` alone would take a sign.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The first difference between the arguments of two declarations, in RabbitMQ's words.
pub(super) fn difference(current: &Table, received: &Table) -> Option<(String, String)> {
    COMPARED.iter().find_map(|&name| {
        let normal = |value: Option<&Value>| {
            let classic =
                name == "x-queue-type" && value.and_then(Value::as_str) == Some("classic");
            if classic { None } else { value.cloned() }
        };
        let (was, is) = (normal(current.get(name)), normal(received.get(name)));
        let words = equivalence::difference(was.as_ref(), is.as_ref())?;
        Some((name.to_owned(), words))
    })
}

struct Reader<'a> {
    name: &'a Name,
    vhost: &'a Name,
    table: &'a Table,
}

impl Reader<'_> {
    fn check_log(&self, kind: MailboxKind) -> Result<(), Refusal> {
        let (name, vhost) = (self.name, self.vhost);
        let (called, more) = match kind {
            MailboxKind::Kv => ("kv", NOT_FOR_KV),
            _ => ("rabbit_stream_queue", &[][..]),
        };
        let mut wrong = NOT_FOR_STREAMS.iter().chain(more);
        if let Some(argument) = wrong.find(|it| self.table.get(it).is_some()) {
            return Err(Refusal::Precondition(format!(
                "invalid arg '{argument}' for queue '{name}' in vhost '{vhost}' of queue type {called}"
            )));
        }
        let number = |argument| self.table.get(argument).and_then(Value::as_i64);
        let argument = "x-stream-max-segment-size-bytes";
        if number(argument).is_some_and(|bytes| bytes > SEGMENT_BYTES_MAX) {
            return Err(Refusal::Precondition(format!("Exceeded max value for {argument}")));
        }
        let argument = "x-stream-filter-size-bytes";
        if number(argument).is_some_and(|bytes| !(16..=255).contains(&bytes)) {
            return Err(Refusal::Precondition(format!("Invalid value for  {argument}")));
        }
        Ok(())
    }

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
            let reason = format!("\"expected integer, got {}\"", type_name(value));
            return Err(self.invalid(name, &reason));
        };
        match u64::try_from(n) {
            Ok(n) if n < least => Err(self.invalid(name, "{value_zero,0}")),
            Ok(n) if n > most && most == u64::from(u8::MAX) => {
                Err(self.invalid(name, &format!("{{max_value_exceeded,{n}}}")))
            }
            Ok(n) if n > most => Err(self.invalid(name, &format!("{{value_too_large,{n}}}"))),
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(self.invalid(name, &format!("{{value_negative,{n}}}"))),
        }
    }

    fn dedup(&self) -> Result<Option<Window>, Refusal> {
        let time_ms = self.number("x-deduplication-window", 1, TIME_SPAN_MAX_MS)?;
        // The words of RabbitMQ's plugin and of LavinMQ.
        let asked = self.flag("x-message-deduplication")?;
        if asked == Some(false) || (asked.is_none() && time_ms.is_none()) {
            return Ok(None);
        }
        let time_ms = time_ms.or(self.number("x-cache-ttl", 1, TIME_SPAN_MAX_MS)?);
        let count = self.number("x-cache-size", 1, dedup::COUNT_MAX)?;
        Ok(Some(Window {
            time_ms: time_ms.unwrap_or(dedup::WINDOW_DEFAULT_MS),
            count: count.unwrap_or(dedup::COUNT_DEFAULT),
            header: self.text("x-deduplication-header")?.map(Name::from),
        }))
    }

    fn key_source(&self) -> Result<Option<KeySource>, Refusal> {
        match self.table.get(GROUPS) {
            Some(value) => KeySource::parse(value).map_err(|reason| self.invalid(GROUPS, reason)),
            None => Ok(None),
        }
    }

    fn retry(&self) -> Result<Option<Retry>, Refusal> {
        let jitter = self.table.get(JITTER);
        match self.table.get(DELAYS) {
            Some(delays) => Retry::parse(delays, jitter)
                .map(Some)
                .map_err(|(name, reason)| self.invalid(name, reason)),
            None if jitter.is_some() => Err(self.invalid(JITTER, "there are no delays")),
            None => Ok(None),
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        match self.table.get(name) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text.to_owned())),
                None => {
                    Err(self.invalid(name, &format!("{{unacceptable_type,{}}}", type_name(value))))
                }
            },
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.table.get(name) {
            None => Ok(None),
            Some(value) => match value.as_bool() {
                Some(yes) => Ok(Some(yes)),
                None => {
                    Err(self.invalid(name, &format!("{{unacceptable_type,{}}}", type_name(value))))
                }
            },
        }
    }
}

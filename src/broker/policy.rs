//! Policies: what may stand in one, and which of them hold for a name.

use std::collections::BTreeMap;

use regex::bytes::Regex;

use super::definition::PolicyDefinition;
use super::limits::MailboxKind;
use super::name::Name;
use super::retry::Retry;
use super::value::{Table, Value};

/// The policies of a virtual host, those of operators apart from those of users.
#[derive(Debug, Default)]
pub(super) struct Policies(BTreeMap<(bool, Name), (PolicyDefinition, Regex)>);

impl Policies {
    pub(super) fn set(&mut self, policy: PolicyDefinition) -> Result<(), String> {
        let pattern = Regex::new(&policy.pattern).map_err(|error| error.to_string())?;
        self.0.insert((policy.operator, policy.name.clone()), (policy, pattern));
        Ok(())
    }

    pub(super) fn clear(&mut self, operator: bool, name: &Name) -> bool {
        self.0.remove(&(operator, name.clone())).is_some()
    }

    /// Those of users by name, then those of operators.
    pub(super) fn iter(&self) -> impl Iterator<Item = &PolicyDefinition> {
        self.0.values().map(|(policy, _)| policy)
    }

    /// The user's policy and the operator's for a mailbox: of each kind the one with the highest priority.
    pub(super) fn of_mailbox(
        &self,
        name: &str,
        kind: MailboxKind,
    ) -> [Option<&PolicyDefinition>; 2] {
        let applies = |to: &str| match to {
            "all" | "queues" => true,
            "classic_queues" => kind == MailboxKind::Classic,
            "quorum_queues" => kind == MailboxKind::Quorum,
            "streams" => kind == MailboxKind::Stream,
            _ => false,
        };
        [false, true].map(|operator| self.best(operator, name, applies))
    }

    pub(super) fn of_exchange(&self, name: &str) -> Option<&PolicyDefinition> {
        self.best(false, name, |to| matches!(to, "all" | "exchanges"))
    }

    fn best(
        &self,
        operator: bool,
        name: &str,
        applies: impl Fn(&str) -> bool,
    ) -> Option<&PolicyDefinition> {
        self.0
            .values()
            .filter(|(policy, pattern)| {
                policy.operator == operator
                    && applies(&policy.apply_to)
                    && pattern.is_match(name.as_bytes())
            })
            .map(|(policy, _)| policy)
            .max_by_key(|policy| policy.priority)
    }
}

/// What a key's value must be.
enum Shape {
    /// At least so much.
    Number(i64),
    Text,
    OneOf(&'static [&'static str]),
    /// Hundredths.
    Percent,
    /// As a retry policy has them.
    Delays,
    /// Accepted because RabbitMQ knows it; means nothing here.
    Any,
}

struct Key {
    name: &'static str,
    shape: Shape,
    /// Operators may set it too.
    operator: bool,
    /// What RabbitMQ calls the value when it is wrong.
    called: &'static str,
}

const fn key(name: &'static str, shape: Shape, called: &'static str) -> Key {
    Key { name, shape, operator: false, called }
}

const fn shared(name: &'static str, shape: Shape, called: &'static str) -> Key {
    Key { name, shape, operator: true, called }
}

const OVERFLOWS: &[&str] = &["drop-head", "reject-publish", "reject-publish-dlx"];
const STRATEGIES: &[&str] = &["at-most-once", "at-least-once"];

const KEYS: &[Key] = &[
    key("alternate-exchange", Shape::Text, "alternate exchange name"),
    key("consumer-timeout", Shape::Number(0), "consumer timeout"),
    key("dead-letter-exchange", Shape::Text, "dead letter exchange name"),
    key("dead-letter-routing-key", Shape::Text, "dead letter routing key"),
    key("dead-letter-strategy", Shape::OneOf(STRATEGIES), "dead letter strategy"),
    shared("message-ttl", Shape::Number(0), "message TTL"),
    shared("expires", Shape::Number(1), "queue expiry"),
    shared("max-length", Shape::Number(0), "maximum length"),
    shared("max-length-bytes", Shape::Number(0), "maximum length in bytes"),
    key("overflow", Shape::OneOf(OVERFLOWS), "overflow mode"),
    shared("delivery-limit", Shape::Number(-1), "delivery limit"),
    key("keep-settled-for", Shape::Number(1), "time to keep settled messages"),
    key("retry-delays", Shape::Delays, "list of retry delays"),
    key("retry-jitter", Shape::Percent, "retry jitter"),
    key("max-age", Shape::Text, "max age"),
    key("stream-max-segment-size-bytes", Shape::Number(1), "segment size"),
    key("stream-filter-size-bytes", Shape::Number(16), "filter size"),
    shared("max-in-memory-length", Shape::Any, ""),
    shared("max-in-memory-bytes", Shape::Any, ""),
    shared("target-group-size", Shape::Any, ""),
    shared("ha-mode", Shape::Any, ""),
    shared("ha-params", Shape::Any, ""),
    shared("ha-sync-mode", Shape::Any, ""),
    key("ha-sync-batch-size", Shape::Any, ""),
    key("ha-promote-on-shutdown", Shape::Any, ""),
    key("ha-promote-on-failure", Shape::Any, ""),
    key("queue-mode", Shape::Any, ""),
    key("queue-version", Shape::Any, ""),
    key("queue-master-locator", Shape::Any, ""),
    key("queue-leader-locator", Shape::Any, ""),
    key("initial-cluster-size", Shape::Any, ""),
    key("federation-upstream", Shape::Any, ""),
    key("federation-upstream-set", Shape::Any, ""),
    key("federation-upstream-pattern", Shape::Any, ""),
    key("delayed-retry-type", Shape::Any, ""),
    key("delayed-retry-min", Shape::Any, ""),
    key("delayed-retry-max", Shape::Any, ""),
];

const APPLY_TO: [&str; 6] =
    ["all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams"];

/// What is wrong with a policy that somebody wants to set. A stored one came before the rule, or kept it.
pub(super) fn check(policy: &PolicyDefinition) -> Result<(), String> {
    let to = &policy.apply_to;
    if !APPLY_TO.contains(&to.as_str()) || (policy.operator && to == "exchanges") {
        let names = APPLY_TO.join(", ");
        return Err(format!("apply-to '{to}' unrecognised; should be one of {names}"));
    }
    check_values(&policy.definition, policy.operator)
        .map_err(|text| format!("Validation failed\n\n{text}"))
}

fn check_values(definition: &Table, operator: bool) -> Result<(), String> {
    for (name, value) in definition.iter() {
        let name = String::from_utf8_lossy(name);
        let key = KEYS.iter().find(|key| key.name == name && (key.operator || !operator));
        let Some(key) = key else {
            return Err(format!("{name} is not recognised as a policy setting"));
        };
        let good = match key.shape {
            Shape::Number(least) => value.as_i64().is_some_and(|number| number >= least),
            Shape::Text => value.as_str().is_some(),
            Shape::OneOf(words) => value.as_str().is_some_and(|text| words.contains(&text)),
            Shape::Percent => value.as_i64().is_some_and(|it| (0..=100).contains(&it)),
            Shape::Delays => Retry::parse(value, None).is_ok(),
            Shape::Any => true,
        };
        if !good {
            let value = super::routing::bare(value);
            return Err(format!("{value} is not a valid {}", key.called));
        }
    }
    Ok(())
}

/// A whole number that a policy sets.
pub(super) fn number(policy: &PolicyDefinition, key: &str) -> Option<u64> {
    let value = policy.definition.get(key).and_then(Value::as_i64)?;
    u64::try_from(value).ok()
}

/// A text that a policy sets.
pub(super) fn text<'a>(policy: &'a PolicyDefinition, key: &str) -> Option<&'a str> {
    policy.definition.get(key).and_then(Value::as_str)
}

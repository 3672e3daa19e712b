//! `x-consistent-hash`: equal keys go to one destination, shared out by weight.
//!
//! Weighted rendezvous hashing: each destination draws a score from its name and the key, the best score wins.
//! A destination that comes or goes moves only the keys that it wins or won; order of binding does not matter.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::equivalence::{erlang_binary, type_name};
use super::random::mix;
use super::target::TargetId;
use crate::broker::{Destination, Message, Refusal, Table, Value};

#[derive(Debug)]
pub(super) struct ConsistentHash {
    hash_on: HashOn,
    /// In order of destination.
    shares: Vec<Share>,
}

#[derive(Debug)]
enum HashOn {
    Key,
    Header(Bytes),
    CorrelationId,
    MessageId,
    Timestamp,
}

#[derive(Debug)]
struct Share {
    destination: Destination,
    target: TargetId,
    hash: u64,
    /// Of its bindings in order of time. The first counts: a mailbox has one share.
    weights: Vec<u64>,
}

impl ConsistentHash {
    pub(super) fn new(arguments: &Table) -> Result<Self, Refusal> {
        let text = |name: &str| match arguments.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(other) => Err(Refusal::Precondition(format!(
                "Invalid argument '{name}' of type '{}'; expected longstr",
                type_name(other)
            ))),
        };
        let hash_on = match (text("hash-header")?, text("hash-property")?) {
            (None, None) => HashOn::Key,
            (Some(header), None) => HashOn::Header(header),
            (None, Some(property)) => match &*property {
                b"correlation_id" => HashOn::CorrelationId,
                b"message_id" => HashOn::MessageId,
                b"timestamp" => HashOn::Timestamp,
                other => {
                    return Err(Refusal::Precondition(format!(
                        "Unsupported property: {}",
                        String::from_utf8_lossy(other)
                    )));
                }
            },
            (Some(_), Some(_)) => {
                return Err(Refusal::Precondition(
                    "hash-header and hash-property are mutually exclusive".into(),
                ));
            }
        };
        Ok(Self { hash_on, shares: Vec::new() })
    }

    pub(super) fn check_binding(key: &[u8]) -> Result<(), Refusal> {
        weight(key).map(|_| ())
    }

    pub(super) fn bind(&mut self, target: TargetId, destination: &Destination, key: &[u8]) {
        let weight = weight(key).unwrap_or(1);
        match self.shares.binary_search_by(|it| it.destination.cmp(destination)) {
            Ok(at) => self.shares[at].weights.push(weight),
            Err(at) => {
                let hash = match destination {
                    Destination::Mailbox(name) => xxh3_64(name.as_bytes()),
                    Destination::Exchange(name) => !xxh3_64(name.as_bytes()),
                };
                let destination = destination.clone();
                self.shares.insert(at, Share { destination, target, hash, weights: vec![weight] });
            }
        }
    }

    pub(super) fn unbind(&mut self, destination: &Destination, key: &[u8]) {
        let weight = weight(key).unwrap_or(1);
        let Ok(at) = self.shares.binary_search_by(|it| it.destination.cmp(destination)) else {
            return;
        };
        let weights = &mut self.shares[at].weights;
        if let Some(gone) = weights.iter().position(|it| *it == weight) {
            weights.remove(gone);
        }
        if weights.is_empty() {
            self.shares.remove(at);
        }
    }

    pub(super) fn route(&self, key: &[u8], message: &Message, found: &mut impl FnMut(TargetId)) {
        let hash = match &self.hash_on {
            HashOn::Key => xxh3_64(key),
            // Messages without the value stay together.
            HashOn::Header(name) => message
                .properties()
                .headers
                .as_ref()
                .and_then(|headers| headers.iter().find(|(key, _)| *key == name))
                .map_or(0, |(_, value)| hash_of(value)),
            HashOn::CorrelationId => hash_of_text(message.properties().correlation_id.as_ref()),
            HashOn::MessageId => hash_of_text(message.properties().message_id.as_ref()),
            HashOn::Timestamp => message.properties().timestamp.unwrap_or(0),
        };
        let mut best: Option<(f64, TargetId)> = None;
        for share in &self.shares {
            let score = score(hash, share.hash, share.weights[0]);
            if best.is_none_or(|(other, _)| score > other) {
                best = Some((score, share.target));
            }
        }
        if let Some((_, target)) = best {
            found(target);
        }
    }
}

/// Higher wins, in proportion to the weight: -weight / ln(u) with u evenly between 0 and 1.
fn score(key: u64, destination: u64, weight: u64) -> f64 {
    let drawn = mix(key ^ mix(destination)) >> 11;
    let u = (drawn as f64 + 0.5) / (1u64 << 53) as f64;
    -(weight as f64) / u.ln()
}

fn hash_of_text(text: Option<&Bytes>) -> u64 {
    text.map_or(0, |text| xxh3_64(text))
}

fn hash_of(value: &Value) -> u64 {
    match value {
        Value::Text(bytes) | Value::Binary(bytes) => xxh3_64(bytes),
        other => match other.as_i64() {
            // As text, so that 7 and "7" stay together.
            Some(number) => xxh3_64(number.to_string().as_bytes()),
            None => xxh3_64(format!("{other:?}").as_bytes()),
        },
    }
}

fn weight(key: &[u8]) -> Result<u64, Refusal> {
    let number = std::str::from_utf8(key).ok().and_then(|text| text.parse::<i64>().ok());
    match number {
        Some(number @ 1..) => Ok(number as u64),
        Some(_) => Err(Refusal::Precondition("The binding key must be greater than 0".into())),
        None => Err(Refusal::Precondition(format!(
            "The binding key must be an integer: {}",
            erlang_binary(key)
        ))),
    }
}

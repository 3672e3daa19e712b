//! The messages of the load: everything in one follows from its name, so that it can be checked whole.

use std::fmt;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use crate::random::Random;

/// Names a message: who published it, on which channel, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) publisher: u32,
    /// Each life of the broker has its own channels.
    pub(crate) life: u32,
    pub(crate) number: u32,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.publisher, self.life, self.number)
    }
}

impl Id {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        let (publisher, life, number) = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(Self { publisher, life, number })
    }

    fn random(self) -> Random {
        let Self { publisher, life, number } = self;
        Random::new(u64::from(publisher) << 56 | u64::from(life) << 40 | u64::from(number))
    }

    /// Mostly small; some take several frames.
    pub(crate) fn body(self) -> Vec<u8> {
        let mut random = self.random();
        let size = match random.below(64) {
            0 => 0,
            1 => 130_000 + random.below(100_000),
            2..8 => 2_000 + random.below(10_000),
            _ => 1 + random.below(400),
        };
        let mut body = Vec::with_capacity(size as usize + 8);
        while body.len() < size as usize {
            body.extend(random.next().to_be_bytes());
        }
        body.truncate(size as usize);
        body
    }

    pub(crate) fn properties(self) -> BasicProperties {
        let mut random = self.random();
        let mut headers = FieldTable::default();
        headers.insert("number".into(), AMQPValue::LongUInt(self.number));
        for header in 0..random.below(4) {
            let value = format!("{:x}", random.next());
            headers.insert(format!("header-{header}").into(), AMQPValue::LongString(value.into()));
        }
        BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(self.to_string().into())
            .with_content_type("application/octet-stream".into())
            .with_timestamp(random.next() >> 1)
            .with_headers(headers)
    }

    /// Over body and properties, headers in their order.
    pub(crate) fn sum(self) -> u64 {
        sum(&self.body(), &self.properties())
    }
}

pub(crate) fn sum(body: &[u8], properties: &BasicProperties) -> u64 {
    let mut whole = format!("{properties:?}").into_bytes();
    whole.push(0);
    whole.extend_from_slice(body);
    xxhash_rust::xxh3::xxh3_64(&whole)
}

//! A second implementation reads what this one writes, and writes the same.
//!
//! It sorts keys, drops duplicates and wants UTF-8, so it gets plain text only.

use std::collections::BTreeMap;
use std::fmt::Debug;

use amq_protocol::frame::WriteContext;
use amq_protocol::protocol::{basic, gen_class, parse_class};
use bytes::BytesMut;
use pillarbox_amqp::{FieldTable, Method, ShortString};
use proptest::prelude::*;

use crate::bytes_of::payload_of;
use crate::generate::{Filling, METHODS, Text, filling, properties};

/// The fields of a method by name, as far as both show them alike.
///
/// Left out: tables and long strings, which are compared as bytes, and what the oracle drops.
fn fields(method: &dyn Debug) -> BTreeMap<String, String> {
    let shown = format!("{method:?}");
    let inside = shown.split_once("{ ").map_or("", |(_, fields)| fields);
    inside
        .split(", ")
        .filter_map(|field| {
            let (name, value) = field.split_once(": ")?;
            let value = match value.split('"').nth(1) {
                Some(text) => text,
                None => value.trim_end_matches([' ', '}', ')']),
            };
            let name = name.replace("virtual_host", "vhost");
            Some((name, value.to_owned()))
        })
        .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()))
        .collect()
}

const LEFT_OUT: [&str; 10] = [
    "arguments",
    "challenge",
    "client_properties",
    "locales",
    "mechanisms",
    "new_secret",
    "prefetch_size",
    "response",
    "server_properties",
    "ticket",
];

#[test]
fn oracle_finds_each_value_under_the_same_name() {
    let text = |text| ShortString::from_static(text);
    for set in 0..5 {
        let filling = Filling {
            number: 0x0102_0304_0506_0708,
            shorts: [text("one"), text("two"), text("three")],
            long: b"long".to_vec(),
            bits: std::array::from_fn(|place| place == set),
            table: FieldTable::new(),
        };
        for method in METHODS {
            let payload = filling.payload(method);
            let own = Method::decode(&payload).expect("sound");
            let (_, theirs) = parse_class(&payload[..]).expect("sound");
            assert_eq!(fields(&own), fields(&theirs), "{}", method.2);
        }
    }
}

proptest! {
    #[test]
    fn oracle_reads_and_writes_the_same_methods(filling in filling(Text::Plain)) {
        for method in METHODS {
            let own = Method::decode(&filling.payload(method)).expect("sound");
            // The oracle drops the ticket and the prefetch size, and writes 1 and 0.
            if matches!(own, Method::AccessRequestOk { .. } | Method::BasicQos { .. }) {
                continue;
            }
            let payload = payload_of(&own, 1);
            let (rest, theirs) = parse_class(&payload[..]).expect("the oracle reads it");
            prop_assert!(rest.is_empty());
            let written = gen_class(&theirs)(WriteContext::from(Vec::new()))
                .expect("the oracle writes it");
            prop_assert_eq!(&written.write, &payload, "{}", method.2);
        }
    }

    #[test]
    fn oracle_reads_and_writes_the_same_properties(properties in properties(Text::Plain)) {
        let mut raw = BytesMut::new();
        properties.encode(&mut raw);
        let (rest, theirs) = basic::parse_properties(&raw[..]).expect("the oracle reads it");
        prop_assert!(rest.is_empty());
        let reply_to = properties.reply_to.as_ref().and_then(|name| name.as_str());
        prop_assert_eq!(theirs.reply_to().as_ref().map(|name| name.as_str()), reply_to);
        prop_assert_eq!(*theirs.delivery_mode(), properties.delivery_mode);
        prop_assert_eq!(*theirs.timestamp(), properties.timestamp);
        let written = basic::gen_properties(&theirs)(WriteContext::from(Vec::new()))
            .expect("the oracle writes it");
        prop_assert_eq!(&written.write, &raw);
    }
}

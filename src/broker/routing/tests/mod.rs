//! Exchanges as tests see them: one letter is a mailbox, a name that begins with `x` an exchange.

mod declaring;
mod delayed;
mod hash;
mod headers;
mod key;
mod topic;
mod walk;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::broker::{Properties, Source, Time, Value, WireForm};

/// Keeps properties as they are, by number: tests need no wire format.
static FORM: WireForm = WireForm { id: 0, name: "test", decode, encode };

thread_local! {
    static PROPERTIES: RefCell<Vec<Properties>> = const { RefCell::new(Vec::new()) };
}

fn encode(properties: &Properties, to: &mut Vec<u8>) {
    PROPERTIES.with_borrow_mut(|all| {
        to.extend_from_slice(&(all.len() as u32).to_be_bytes());
        all.push(properties.clone());
    });
}

fn decode(bytes: &[u8]) -> Properties {
    let number = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    PROPERTIES.with_borrow(|all| all[number as usize].clone())
}

pub(super) fn message_with(properties: &Properties) -> Arc<Message> {
    Arc::new(Message::build(&Source {
        exchange: &"".into(),
        key: b"",
        properties,
        body: b"",
        form: &FORM,
        persistent: false,
        accepted: Time::ZERO,
    }))
}

pub(super) fn message(headers: &[(&str, Value)]) -> Arc<Message> {
    message_with(&Properties { headers: Some(table(headers)), ..Properties::default() })
}

pub(super) fn table(values: &[(&str, Value)]) -> Table {
    values.iter().map(|(name, value)| (TableKey::from(*name), value.clone())).collect()
}

pub(super) fn text(text: &str) -> Value {
    Value::text(text)
}

pub(super) fn int(number: i32) -> Value {
    Value::I32(number)
}

pub(super) fn exchanges() -> Exchanges {
    Exchanges::new("v".into(), 7)
}

pub(super) fn declaration(name: &str, kind: &str, arguments: &[(&str, Value)]) -> DeclareExchange {
    DeclareExchange {
        name: name.into(),
        kind: kind.into(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: table(arguments),
    }
}

pub(super) fn with(name: &str, kind: &str, arguments: &[(&str, Value)]) -> Exchanges {
    let mut exchanges = exchanges();
    exchanges.declare(&declaration(name, kind, arguments)).expect("a good declaration");
    exchanges
}

/// A destination that begins with `x` is an exchange.
pub(super) fn binding(source: &str, to: &str, key: &str, arguments: &[(&str, Value)]) -> BindingOf {
    let destination = if to.starts_with('x') {
        Destination::Exchange(to.into())
    } else {
        Destination::Mailbox(to.into())
    };
    BindingOf {
        source: source.into(),
        destination,
        key: Bytes::copy_from_slice(key.as_bytes()),
        arguments: table(arguments),
    }
}

/// A binding from before there were rules for new ones.
pub(super) fn restore(exchanges: &mut Exchanges, source: &str, to: &str, key: &str) {
    let definition = exchanges.definition_of(&binding(source, to, key, &[]));
    exchanges.restore_binding(definition).expect("restored");
}

pub(super) fn bind(exchanges: &mut Exchanges, source: &str, to: &str, key: &str) {
    exchanges.bind(&binding(source, to, key, &[])).expect("a good binding");
}

pub(super) fn route_message(
    exchanges: &mut Exchanges,
    from: &str,
    key: &str,
    of: &Arc<Message>,
) -> String {
    let mut out = Vec::new();
    exchanges.route(&from.into(), key.as_bytes(), &[], of, &mailbox, &mut out);
    let unique: BTreeSet<_> = out.iter().cloned().collect();
    assert_eq!(unique.len(), out.len(), "each mailbox once: {out:?}");
    unique.iter().map(Name::as_str).collect::<Vec<_>>().join(" ")
}

pub(super) fn route(exchanges: &mut Exchanges, from: &str, key: &str) -> String {
    route_message(exchanges, from, key, &message(&[]))
}

/// The mailboxes of these tests are called by one letter.
pub(super) fn mailbox(name: &str) -> Option<Name> {
    (name.len() == 1).then(|| name.into())
}

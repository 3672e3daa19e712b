//! Generated values, and the wire written a second time to compare with.

use bytes::Bytes;
use pillarbox_amqp::{FieldTable, FieldValue, Properties, ShortString};
use proptest::collection::vec;
use proptest::prelude::*;

/// Every method: class, id and the types of its arguments, reserved ones behind a minus.
///
/// `o` octet, `w` u16, `l` u32, `q` u64, `s` short string, `S` long string, `t` table, `b` bit.
pub(crate) const METHODS: &[(u16, u16, &str, &str)] = &[
    (10, 10, "connection.start", "o o t S S"),
    (10, 11, "connection.start-ok", "t s S s"),
    (10, 20, "connection.secure", "S"),
    (10, 21, "connection.secure-ok", "S"),
    (10, 30, "connection.tune", "w l w"),
    (10, 31, "connection.tune-ok", "w l w"),
    (10, 40, "connection.open", "s -s -b"),
    (10, 41, "connection.open-ok", "-s"),
    (10, 50, "connection.close", "w s w w"),
    (10, 51, "connection.close-ok", ""),
    (10, 60, "connection.blocked", "s"),
    (10, 61, "connection.unblocked", ""),
    (10, 70, "connection.update-secret", "S s"),
    (10, 71, "connection.update-secret-ok", ""),
    (20, 10, "channel.open", "-s"),
    (20, 11, "channel.open-ok", "-S"),
    (20, 20, "channel.flow", "b"),
    (20, 21, "channel.flow-ok", "b"),
    (20, 40, "channel.close", "w s w w"),
    (20, 41, "channel.close-ok", ""),
    (30, 10, "access.request", "s b b b b b"),
    (30, 11, "access.request-ok", "w"),
    (40, 10, "exchange.declare", "-w s s b b b b b t"),
    (40, 11, "exchange.declare-ok", ""),
    (40, 20, "exchange.delete", "-w s b b"),
    (40, 21, "exchange.delete-ok", ""),
    (40, 30, "exchange.bind", "-w s s s b t"),
    (40, 31, "exchange.bind-ok", ""),
    (40, 40, "exchange.unbind", "-w s s s b t"),
    (40, 51, "exchange.unbind-ok", ""),
    (50, 10, "queue.declare", "-w s b b b b b t"),
    (50, 11, "queue.declare-ok", "s l l"),
    (50, 20, "queue.bind", "-w s s s b t"),
    (50, 21, "queue.bind-ok", ""),
    (50, 30, "queue.purge", "-w s b"),
    (50, 31, "queue.purge-ok", "l"),
    (50, 40, "queue.delete", "-w s b b b"),
    (50, 41, "queue.delete-ok", "l"),
    (50, 50, "queue.unbind", "-w s s s t"),
    (50, 51, "queue.unbind-ok", ""),
    (60, 10, "basic.qos", "l w b"),
    (60, 11, "basic.qos-ok", ""),
    (60, 20, "basic.consume", "-w s s b b b b t"),
    (60, 21, "basic.consume-ok", "s"),
    (60, 30, "basic.cancel", "s b"),
    (60, 31, "basic.cancel-ok", "s"),
    (60, 40, "basic.publish", "-w s s b b"),
    (60, 50, "basic.return", "w s s s"),
    (60, 60, "basic.deliver", "s q b s s"),
    (60, 70, "basic.get", "-w s b"),
    (60, 71, "basic.get-ok", "q b s s l"),
    (60, 72, "basic.get-empty", "-s"),
    (60, 80, "basic.ack", "q b"),
    (60, 90, "basic.reject", "q b"),
    (60, 100, "basic.recover-async", "b"),
    (60, 110, "basic.recover", "b"),
    (60, 111, "basic.recover-ok", ""),
    (60, 120, "basic.nack", "q b b"),
    (85, 10, "confirm.select", "b"),
    (85, 11, "confirm.select-ok", ""),
    (90, 10, "tx.select", ""),
    (90, 11, "tx.select-ok", ""),
    (90, 20, "tx.commit", ""),
    (90, 21, "tx.commit-ok", ""),
    (90, 30, "tx.rollback", ""),
    (90, 31, "tx.rollback-ok", ""),
];

/// Arguments to fill the methods with.
#[derive(Clone, Debug)]
pub(crate) struct Filling {
    pub(crate) number: u64,
    pub(crate) shorts: [ShortString; 3],
    pub(crate) long: Vec<u8>,
    pub(crate) bits: [bool; 5],
    pub(crate) table: FieldTable,
}

impl Filling {
    /// The payload of a method of [`METHODS`] with these arguments.
    pub(crate) fn payload(&self, &(class, id, _, kinds): &(u16, u16, &str, &str)) -> Vec<u8> {
        let mut out = [class.to_be_bytes(), id.to_be_bytes()].concat();
        let mut shorts = self.shorts.iter();
        let mut bits = self.bits.iter();
        let mut places = 0;
        for kind in kinds.split_whitespace() {
            let number = self.number.to_be_bytes();
            if !kind.ends_with('b') {
                places = 0;
            }
            match kind {
                "o" => out.extend(&number[..1]),
                "w" => out.extend(&number[..2]),
                "l" => out.extend(&number[..4]),
                "q" => out.extend(number),
                "s" => put_short(&mut out, shorts.next().expect("three at most")),
                "S" => put_long(&mut out, &self.long),
                "t" => put_table(&mut out, &self.table),
                "b" | "-b" => {
                    if places == 0 {
                        out.push(0);
                    }
                    let set = kind == "b" && *bits.next().expect("five at most");
                    *out.last_mut().expect("pushed") |= u8::from(set) << places;
                    places += 1;
                }
                "-s" => out.push(0),
                "-w" => out.extend([0; 2]),
                "-S" => out.extend([0; 4]),
                other => panic!("no argument type {other}"),
            }
        }
        out
    }
}

pub(crate) fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("a short string"));
    out.extend(bytes);
}

fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).expect("small").to_be_bytes());
    out.extend(bytes);
}

/// Writes a table with its length.
pub(crate) fn put_table(out: &mut Vec<u8>, table: &FieldTable) {
    let mut body = Vec::new();
    for (key, value) in table {
        put_short(&mut body, key);
        put_value(&mut body, value);
    }
    put_long(out, &body);
}

fn put_value(out: &mut Vec<u8>, value: &FieldValue) {
    out.push(value.tag());
    match value {
        FieldValue::Bool(value) => out.push(u8::from(*value)),
        FieldValue::I8(value) => out.extend(value.to_be_bytes()),
        FieldValue::U8(value) => out.push(*value),
        FieldValue::I16(value) => out.extend(value.to_be_bytes()),
        FieldValue::U16(value) => out.extend(value.to_be_bytes()),
        FieldValue::I32(value) => out.extend(value.to_be_bytes()),
        FieldValue::U32(value) => out.extend(value.to_be_bytes()),
        FieldValue::I64(value) => out.extend(value.to_be_bytes()),
        FieldValue::F32(value) => out.extend(value.to_be_bytes()),
        FieldValue::F64(value) => out.extend(value.to_be_bytes()),
        FieldValue::Decimal { scale, value } => {
            out.push(*scale);
            out.extend(value.to_be_bytes());
        }
        FieldValue::LongString(bytes) | FieldValue::Binary(bytes) => put_long(out, bytes),
        FieldValue::Timestamp(value) => out.extend(value.to_be_bytes()),
        FieldValue::Table(table) => put_table(out, table),
        FieldValue::Array(values) => {
            let mut body = Vec::new();
            values.iter().for_each(|value| put_value(&mut body, value));
            put_long(out, &body);
        }
        FieldValue::Void => {}
    }
}

/// Equality that holds for NaN too.
pub(crate) fn same(left: &FieldTable, right: &FieldTable) -> bool {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    put_table(&mut a, left);
    put_table(&mut b, right);
    a == b
}

/// What the strings and keys are made of.
#[derive(Clone, Copy)]
pub(crate) enum Text {
    /// Any bytes; keys in any order, and twice.
    Bytes,
    /// UTF-8, and keys sorted and once.
    Plain,
}

pub(crate) fn short(text: Text) -> BoxedStrategy<ShortString> {
    let bytes = match text {
        Text::Bytes => prop_oneof![
            9 => vec(any::<u8>(), 0..12),
            1 => vec(any::<u8>(), 254..=255),
        ]
        .boxed(),
        Text::Plain => "[a-zäß.]{0,12}".prop_map(String::into_bytes).boxed(),
    };
    bytes.prop_map(|bytes| ShortString::try_from(&bytes[..]).expect("at most 255 bytes")).boxed()
}

pub(crate) fn table(text: Text) -> impl Strategy<Value = FieldTable> {
    vec((short(text), value(text)), 0..6).prop_map(move |entries| ordered(text, entries))
}

fn ordered(text: Text, mut entries: Vec<(ShortString, FieldValue)>) -> FieldTable {
    if let Text::Plain = text {
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        entries.dedup_by(|(left, _), (right, _)| left == right);
    }
    FieldTable(entries)
}

fn value(text: Text) -> impl Strategy<Value = FieldValue> {
    let long = || vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let scalar = prop_oneof![
        any::<bool>().prop_map(FieldValue::Bool),
        any::<i8>().prop_map(FieldValue::I8),
        any::<u8>().prop_map(FieldValue::U8),
        any::<i16>().prop_map(FieldValue::I16),
        any::<u16>().prop_map(FieldValue::U16),
        any::<i32>().prop_map(FieldValue::I32),
        any::<u32>().prop_map(FieldValue::U32),
        any::<i64>().prop_map(FieldValue::I64),
        any::<u32>().prop_map(|bits| FieldValue::F32(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| FieldValue::F64(f64::from_bits(bits))),
        any::<(u8, u32)>().prop_map(|(scale, value)| FieldValue::Decimal { scale, value }),
        long().prop_map(FieldValue::LongString),
        any::<u64>().prop_map(FieldValue::Timestamp),
        long().prop_map(FieldValue::Binary),
        Just(FieldValue::Void),
    ];
    scalar.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(FieldValue::Array),
            vec((short(text), inner), 0..6)
                .prop_map(move |entries| FieldValue::Table(ordered(text, entries))),
        ]
    })
}

pub(crate) fn filling(text: Text) -> impl Strategy<Value = Filling> {
    (
        any::<u64>(),
        [short(text), short(text), short(text)],
        vec(any::<u8>(), 0..40),
        any::<[bool; 5]>(),
        table(text),
    )
        .prop_map(|(number, shorts, long, bits, table)| Filling {
            number,
            shorts,
            long,
            bits,
            table,
        })
}

pub(crate) fn properties(text: Text) -> impl Strategy<Value = Properties> {
    let string = || proptest::option::of(short(text));
    (
        (string(), string(), proptest::option::of(table(text))),
        any::<(Option<u8>, Option<u8>, Option<u64>)>(),
        (string(), string(), string(), string()),
        (string(), string(), string(), string()),
    )
        .prop_map(|(first, numbers, ids, last)| Properties {
            content_type: first.0,
            content_encoding: first.1,
            headers: first.2,
            delivery_mode: numbers.0,
            priority: numbers.1,
            correlation_id: ids.0,
            reply_to: ids.1,
            expiration: ids.2,
            message_id: ids.3,
            timestamp: numbers.2,
            kind: last.0,
            user_id: last.1,
            app_id: last.2,
            cluster_id: last.3,
        })
}

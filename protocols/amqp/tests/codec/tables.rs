use bytes::{Bytes, BytesMut};
use pillarbox_amqp::{
    FieldTable, FieldValue, Properties, ShortString, TABLE_DEPTH_MAX, TABLE_ENTRIES_MAX, TooLong,
    ValueError, array_values, decode_table, table_entries,
};
use rstest::rstest;

use crate::bytes_of::{short, wire};
use crate::generate::{put_table, same};
use crate::hostile::nested;

/// The body of a table with one key, as the codec writes it.
fn body_of(value: &FieldValue) -> Vec<u8> {
    let headers = FieldTable(vec![(short("k"), value.clone())]);
    let mut out = BytesMut::new();
    Properties { headers: Some(headers), ..Properties::default() }.encode(&mut out);
    out[6..].to_vec()
}

#[rstest]
#[case::bool(FieldValue::Bool(true), "'t' 01")]
#[case::bool_false(FieldValue::Bool(false), "'t' 00")]
#[case::i8(FieldValue::I8(-2), "'b' fe")]
#[case::u8(FieldValue::U8(254), "'B' fe")]
#[case::i16(FieldValue::I16(-2), "'s' fffe")]
#[case::u16(FieldValue::U16(65_534), "'u' fffe")]
#[case::i32(FieldValue::I32(-2), "'I' fffffffe")]
#[case::u32(FieldValue::U32(4_294_967_294), "'i' fffffffe")]
#[case::i64(FieldValue::I64(-2), "'l' fffffffffffffffe")]
#[case::f32(FieldValue::F32(1.5), "'f' 3fc00000")]
#[case::f64(FieldValue::F64(-1.5), "'d' bff8000000000000")]
#[case::decimal(FieldValue::Decimal { scale: 255, value: 258 }, "'D' ff 00000102")]
#[case::string(FieldValue::LongString(Bytes::from_static(b"hi\xFF\0")), "'S' 00000004 'hi' ff 00")]
#[case::timestamp(FieldValue::Timestamp(u64::MAX), "'T' ffffffffffffffff")]
#[case::table(
    FieldValue::Table(FieldTable(vec![(short("a"), FieldValue::Void)])),
    "'F' 00000003 01 'a' 'V'"
)]
#[case::empty_table(FieldValue::Table(FieldTable::new()), "'F' 00000000")]
#[case::array(
    FieldValue::Array(vec![FieldValue::Bool(true), FieldValue::Void]), "'A' 00000003 't' 01 'V'"
)]
#[case::empty_array(FieldValue::Array(vec![]), "'A' 00000000")]
#[case::binary(FieldValue::Binary(Bytes::from_static(b"\0\x01")), "'x' 00000002 0001")]
#[case::void(FieldValue::Void, "'V'")]
fn value_has_its_bytes(#[case] value: FieldValue, #[case] text: &str) {
    let body = [&b"\x01k"[..], &wire(text)].concat();
    assert_eq!(body_of(&value), body);
    let expected = FieldTable(vec![(short("k"), value.clone())]);
    assert_eq!(decode_table(&body), Ok(expected));
    assert_eq!(body[2], value.tag());
    for cut in 1..body.len() {
        assert_eq!(decode_table(&body[..cut]), Err(ValueError::Truncated), "{cut}");
        assert_eq!(table_entries(&body[..cut]).next(), None);
    }
}

#[test]
fn capital_l_is_read_as_the_small_one() {
    let body = wire("01 'k' 'L' fffffffffffffffe");
    let expected = FieldTable(vec![(short("k"), FieldValue::I64(-2))]);
    assert_eq!(decode_table(&body), Ok(expected));
}

#[test]
fn not_a_number_keeps_its_bits() {
    let body = wire("01 'k' 'f' 7fc00001");
    let table = decode_table(&body).expect("sound");
    let (_, value) = &table.0[0];
    assert_eq!(body_of(value), body);
}

#[test]
fn unknown_tags_are_refused() {
    for tag in (0..=255).filter(|tag| !b"tbBsuIilLfdDSTFAxV".contains(tag)) {
        let body = [1, b'k', tag, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(decode_table(&body), Err(ValueError::UnknownTag(tag)));
    }
}

#[test]
fn order_and_duplicates_are_kept() {
    let body = wire("01 'z' 't' 01 01 'a' 'V' 01 'z' 't' 00");
    let mut table = decode_table(&body).expect("sound");
    let keys: Vec<_> = table.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, ["z", "a", "z"]);
    assert_eq!(table.get("z"), Some(&FieldValue::Bool(true)));
    assert_eq!(table.get(b"b"), None);

    let mut out = Vec::new();
    put_table(&mut out, &table);
    assert_eq!(out[4..], body);

    let old = table.insert(short("a"), FieldValue::U8(1));
    assert_eq!(old, Some(FieldValue::Void));
    assert_eq!(table.insert(short("b"), FieldValue::U8(2)), None);
    assert_eq!((table.len(), table.is_empty()), (4, false));
}

#[rstest]
#[case(b'F')]
#[case(b'A')]
fn nesting_ends_at_its_limit(#[case] tag: u8) {
    let deepest = nested(tag, TABLE_DEPTH_MAX as usize - 1);
    let table = decode_table(&deepest).expect("at the limit");
    let mut out = Vec::new();
    put_table(&mut out, &table);
    assert_eq!(out[4..], deepest);
    let deeper = nested(tag, TABLE_DEPTH_MAX as usize);
    assert_eq!(decode_table(&deeper), Err(ValueError::TooDeep));
}

#[test]
fn entries_end_at_their_limit() {
    let full = b"\0V".repeat(TABLE_ENTRIES_MAX as usize);
    assert_eq!(decode_table(&full).map(|table| table.len()), Ok(1024));
    let over = [&full[..], b"\0V"].concat();
    assert_eq!(decode_table(&over), Err(ValueError::TooManyEntries));
}

#[test]
fn entries_of_inner_tables_and_arrays_count() {
    let mut body = wire("00 'A' 000003fe");
    body.extend(b"V".repeat(1022));
    body.extend(b"\0V");
    assert!(decode_table(&body).is_ok());
    body.extend(b"\0V");
    assert_eq!(decode_table(&body), Err(ValueError::TooManyEntries));
}

#[test]
fn raw_entries_come_without_their_lengths() {
    let body = wire(
        "02 'CC' 'A' 0000000c 'S' 00000001 'a' 'S' 00000001 'b' \
         07 'x-delay' 'I' 00000064 01 's' 'S' 00000002 'hi' 01 'v' 'V'",
    );
    let entries: Vec<_> = table_entries(&body).collect();
    assert_eq!(entries.len(), 4);
    let (key, tag, copies) = entries[0];
    assert_eq!((key, tag), (&b"CC"[..], b'A'));
    let copies: Vec<_> = array_values(copies).collect();
    assert_eq!(copies, [(b'S', &b"a"[..]), (b'S', b"b")]);
    assert_eq!(entries[1], (&b"x-delay"[..], b'I', &[0, 0, 0, 100][..]));
    assert_eq!(entries[2], (&b"s"[..], b'S', &b"hi"[..]));
    assert_eq!(entries[3], (&b"v"[..], b'V', &b""[..]));
}

#[test]
fn malformed_entry_ends_the_walk() {
    let body = wire("01 'a' 'V' 01 'b' 'U' 0000 01 'c' 'V'");
    let mut entries = table_entries(&body);
    assert!(entries.next().is_some());
    assert!(entries.next().is_none() && entries.next().is_none());
    let mut values = array_values(b"VU\0\0V");
    assert!(values.next().is_some());
    assert!(values.next().is_none() && values.next().is_none());
}

#[rstest]
fn short_string_takes_up_to_255_bytes(#[values(0, 1, 254, 255)] len: usize) {
    let text = "x".repeat(len);
    let string = ShortString::try_from(text.as_str()).expect("fits");
    assert_eq!((string.len(), string.as_str()), (len, Some(text.as_str())));
    assert_eq!(string, *text.as_str());
    let table = FieldTable(vec![(string, FieldValue::Void)]);
    let mut body = Vec::new();
    put_table(&mut body, &table);
    assert!(same(&decode_table(&body[4..]).expect("sound"), &table));
}

#[test]
fn short_string_refuses_256_bytes() {
    let bytes = [b'x'; 256];
    assert_eq!(ShortString::try_from(&bytes[..]), Err(TooLong(256)));
    assert_eq!(ShortString::try_from(Bytes::copy_from_slice(&bytes)), Err(TooLong(256)));
    assert_eq!(ShortString::try_from("x".repeat(256)), Err(TooLong(256)));
}

#[test]
fn short_string_need_not_be_text() {
    let string = ShortString::try_from(&b"a\xFF\0\r\n"[..]).expect("fits");
    assert_eq!((string.as_str(), string.as_bytes()), (None, &b"a\xFF\0\r\n"[..]));
    assert_eq!(string.to_string(), "a\u{FFFD}\0\r\n");
}

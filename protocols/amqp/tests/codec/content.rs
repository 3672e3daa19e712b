use bytes::{Bytes, BytesMut};
use pillarbox_amqp::{
    ContentError, FieldTable, FieldValue, FrameKind, Properties, PropertiesRef,
    decode_content_header, encode_content, next_frame,
};
use rstest::rstest;

use crate::bytes_of::{short, wire};

/// Every property, by its position in the flags.
const ALL: &str = "fffc 02 'ct' 02 'ce' 00000003 01 'h' 'V' 02 09 02 'co' 02 're' 02 'ex' 02 'id' \
                   0000000000000102 02 'ty' 02 'us' 02 'ap' 02 'cl'";

fn all() -> Properties {
    Properties {
        content_type: Some(short("ct")),
        content_encoding: Some(short("ce")),
        headers: Some(FieldTable(vec![(short("h"), FieldValue::Void)])),
        delivery_mode: Some(2),
        priority: Some(9),
        correlation_id: Some(short("co")),
        reply_to: Some(short("re")),
        expiration: Some(short("ex")),
        message_id: Some(short("id")),
        timestamp: Some(258),
        kind: Some(short("ty")),
        user_id: Some(short("us")),
        app_id: Some(short("ap")),
        cluster_id: Some(short("cl")),
    }
}

fn some(set: impl FnOnce(&mut Properties)) -> Properties {
    let mut properties = Properties::default();
    set(&mut properties);
    properties
}

#[rstest]
#[case::none("0000", Properties::default())]
#[case::all(ALL, all())]
#[case::content_type("8000 01 'x'", some(|p| p.content_type = Some(short("x"))))]
#[case::content_encoding("4000 01 'x'", some(|p| p.content_encoding = Some(short("x"))))]
#[case::headers("2000 00000000", some(|p| p.headers = Some(FieldTable::new())))]
#[case::delivery_mode("1000 02", some(|p| p.delivery_mode = Some(2)))]
#[case::priority("0800 ff", some(|p| p.priority = Some(255)))]
#[case::correlation_id("0400 01 'x'", some(|p| p.correlation_id = Some(short("x"))))]
#[case::reply_to("0200 01 'x'", some(|p| p.reply_to = Some(short("x"))))]
#[case::expiration("0100 04 '1000'", some(|p| p.expiration = Some(short("1000"))))]
#[case::message_id("0080 01 'x'", some(|p| p.message_id = Some(short("x"))))]
#[case::timestamp("0040 ffffffffffffffff", some(|p| p.timestamp = Some(u64::MAX)))]
#[case::kind("0020 01 'x'", some(|p| p.kind = Some(short("x"))))]
#[case::user_id("0010 01 'x'", some(|p| p.user_id = Some(short("x"))))]
#[case::app_id("0008 01 'x'", some(|p| p.app_id = Some(short("x"))))]
#[case::cluster_id("0004 00", some(|p| p.cluster_id = Some(short(""))))]
fn property_has_its_bytes(#[case] raw: &str, #[case] properties: Properties) {
    let raw = wire(raw);
    let mut out = BytesMut::new();
    properties.encode(&mut out);
    assert_eq!(out, raw);
    assert_eq!(Properties::decode(&raw), Ok(properties));

    for cut in 0..raw.len() {
        assert_eq!(PropertiesRef::parse(&raw[..cut]), Err(ContentError::Truncated));
    }
    let longer = [&raw[..], &[0]].concat();
    assert_eq!(PropertiesRef::parse(&longer), Err(ContentError::Trailing));
}

#[test]
fn properties_are_found_in_place() {
    let raw = wire(ALL);
    let found = PropertiesRef::parse(&raw).expect("sound");
    let expected = PropertiesRef {
        content_type: Some(b"ct"),
        content_encoding: Some(b"ce"),
        headers: Some(b"\x01hV"),
        delivery_mode: Some(2),
        priority: Some(9),
        correlation_id: Some(b"co"),
        reply_to: Some(b"re"),
        expiration: Some(b"ex"),
        message_id: Some(b"id"),
        timestamp: Some(258),
        kind: Some(b"ty"),
        user_id: Some(b"us"),
        app_id: Some(b"ap"),
        cluster_id: Some(b"cl"),
    };
    assert_eq!(found, expected);
}

#[rstest]
#[case("0001 0000")]
#[case("0001 0001 0001 0001")]
#[case("8003 01 'x'")]
#[case("0002")]
fn flags_beyond_the_fourteen_are_refused(#[case] raw: &str) {
    let raw = wire(raw);
    let flags = u16::from_be_bytes([raw[0], raw[1]]);
    assert_eq!(PropertiesRef::parse(&raw), Err(ContentError::UnknownFlags(flags)));
}

#[test]
fn content_header_is_read_in_place() {
    let payload = wire("003c 0001 ffffffffffffffff 1000 02");
    let header = decode_content_header(&payload).expect("sound");
    assert_eq!((header.class, header.weight), (60, 1));
    assert_eq!(header.body_size, u64::MAX);
    assert_eq!(header.properties, wire("1000 02"));
    for cut in 0..payload.len() {
        assert_eq!(decode_content_header(&payload[..cut]), Err(ContentError::Truncated));
    }
}

#[test]
fn content_has_its_bytes() {
    let mut out = BytesMut::new();
    encode_content(&mut out, 5, &wire("1000 02"), b"hello", 4096);
    let expected = "02 0005 0000000f 003c 0000 0000000000000005 1000 02 ce \
                    03 0005 00000005 'hello' ce";
    assert_eq!(out, wire(expected));
}

#[rstest]
#[case(0, 4096, &[])]
#[case(1, 4096, &[1])]
#[case(4088, 4096, &[4088])]
#[case(4089, 4096, &[4088, 1])]
#[case(10_000, 4096, &[4088, 4088, 1824])]
#[case(131_065, 131_072, &[131_064, 1])]
#[case(5_000, u32::MAX, &[5_000])]
#[case(5_000, 0, &[4088, 912])]
fn body_is_split_at_the_negotiated_size(
    #[case] size: usize,
    #[case] frame_max: u32,
    #[case] expected: &[usize],
) {
    let body: Bytes = (0..size).map(|at| at as u8).collect();
    let mut out = BytesMut::new();
    encode_content(&mut out, 1, &[0, 0], &body, frame_max);

    let header = next_frame(&out, 4096).expect("sound").expect("whole");
    assert_eq!(header.kind, FrameKind::Header);
    let mut rest = &out[header.wire_len()..];
    let (mut sizes, mut joined) = (Vec::new(), Vec::new());
    while let Some(frame) = next_frame(rest, frame_max.max(4096)).expect("sound") {
        assert_eq!((frame.kind, frame.channel), (FrameKind::Body, 1));
        sizes.push(frame.payload.len());
        joined.extend_from_slice(frame.payload);
        rest = &rest[frame.wire_len()..];
    }
    assert_eq!((sizes.as_slice(), rest.len()), (expected, 0));
    assert_eq!(joined, body);
}

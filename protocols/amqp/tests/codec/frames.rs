use bytes::BytesMut;
use pillarbox_amqp::{
    FrameError, FrameKind, PROTOCOL_HEADER, ProtocolHeader, RawFrame, encode_heartbeat, next_frame,
    protocol_header,
};
use rstest::rstest;

use crate::bytes_of::wire;

#[rstest]
#[case("01 0001 00000004 000a0033 ce", FrameKind::Method, 1, "000a0033")]
#[case("02 0203 00000001 aa ce", FrameKind::Header, 0x0203, "aa")]
#[case("03 ffff 00000003 'abc' ce", FrameKind::Body, 0xFFFF, "'abc'")]
#[case("03 0001 00000001 ce ce", FrameKind::Body, 1, "ce")]
#[case("03 0001 00000000 ce", FrameKind::Body, 1, "")]
#[case("08 0000 00000000 ce", FrameKind::Heartbeat, 0, "")]
fn frame_is_cut_out_of_its_input(
    #[case] frame: &str,
    #[case] kind: FrameKind,
    #[case] channel: u16,
    #[case] payload: &str,
) {
    let (frame, payload) = (wire(frame), wire(payload));
    for cut in 0..frame.len() {
        assert_eq!(next_frame(&frame[..cut], 4096), Ok(None), "cut at {cut}");
    }
    let mut input = frame.clone();
    input.extend_from_slice(b"\x01\x00next");
    let expected = RawFrame { kind, channel, payload: &payload };
    assert_eq!(next_frame(&input, 4096), Ok(Some(expected)));
    assert_eq!(expected.wire_len(), frame.len());
}

#[rstest]
fn unknown_kind_is_refused_from_its_first_byte(#[values(0, 4, 5, 6, 7, 9, b'G', 255)] kind: u8) {
    assert_eq!(next_frame(&[kind], 4096), Err(FrameError::UnknownKind(kind)));
}

#[rstest]
#[case(4096, "03 0001 00000ff9", 4097)]
#[case(4096, "03 0001 ffffffff", 0xFFFF_FFFF + 8)]
#[case(131_072, "01 0000 0001fff9", 131_073)]
#[case(u32::MAX, "01 0000 fffffff8", 0x1_0000_0000)]
#[case(0, "08 0000 00000000", 8)]
fn frame_past_the_maximum_is_refused_from_seven_bytes(
    #[case] max: u32,
    #[case] head: &str,
    #[case] size: u64,
) {
    let head = wire(head);
    assert_eq!(next_frame(&head[..6], max), Ok(None));
    assert_eq!(next_frame(&head, max), Err(FrameError::TooLarge { size, max }));
}

#[test]
fn frame_of_exactly_the_maximum_is_taken() {
    let mut frame = wire("03 0001 00000ff8");
    frame.resize(7 + 4088, b'x');
    frame.push(0xCE);
    let taken = next_frame(&frame, 4096).expect("sound").expect("whole");
    assert_eq!(taken.wire_len(), 4096);
}

#[test]
fn wrong_end_is_refused() {
    let input = wire("01 0000 00000001 00 cd");
    assert_eq!(next_frame(&input, 4096), Err(FrameError::BadEnd(0xCD)));
}

#[rstest]
#[case("", ProtocolHeader::NeedMore)]
#[case("'A'", ProtocolHeader::NeedMore)]
#[case("'AMQP'", ProtocolHeader::NeedMore)]
#[case("'AMQP' 00 00 09", ProtocolHeader::NeedMore)]
#[case("'AMQP' 00 00 09 01", ProtocolHeader::V091)]
#[case("'AMQP' 00 00 09 01 01", ProtocolHeader::V091)]
#[case("'AMQP' 01 01 00 09", ProtocolHeader::V09)]
#[case("'AMQP' 03 01 00", ProtocolHeader::NeedMore)]
#[case("'AMQP' 03 01 00 00", ProtocolHeader::Other)]
#[case("'AMQP' 00 01 00 00", ProtocolHeader::Other)]
#[case("'AMQP' 01 01 08 00", ProtocolHeader::Other)]
#[case("'G'", ProtocolHeader::Other)]
#[case("'AMQ' 00", ProtocolHeader::Other)]
#[case("16 03 01", ProtocolHeader::Other)]
#[case("'STOMP' 0a", ProtocolHeader::Other)]
fn beginning_of_a_connection_is_told_apart(#[case] input: &str, #[case] expected: ProtocolHeader) {
    assert_eq!(protocol_header(&wire(input)), expected);
}

#[test]
fn heartbeat_is_a_literal() {
    let mut out = BytesMut::new();
    encode_heartbeat(&mut out);
    assert_eq!(out, wire("08 0000 00000000 ce"));
    assert_eq!(PROTOCOL_HEADER.to_vec(), wire("'AMQP' 00 00 09 01"));
}

//! The writers of the hot path write what the table of methods would.

use bytes::BytesMut;
use pillarbox_amqp::{
    Method, MethodError, PublishRef, ShortString, decode_ack, decode_publish, encode_ack,
    encode_deliver, encode_get_ok, encode_nack, encode_return,
};
use rstest::rstest;

use crate::bytes_of::wire;

fn check(write: impl FnOnce(&mut BytesMut), method: &Method) {
    let (mut written, mut expected) = (BytesMut::new(), BytesMut::new());
    write(&mut written);
    method.encode(9, &mut expected);
    assert_eq!(written, expected);
}

/// A name of `len` bytes, and what of it fits a short string.
fn name(len: usize) -> (Vec<u8>, ShortString) {
    let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
    let kept = ShortString::try_from(&bytes[..len.min(255)]).expect("fits");
    (bytes, kept)
}

#[rstest]
fn writers_agree_with_the_table(
    #[values(0, 1, 254, 255, 256, 1000)] len: usize,
    #[values(false, true)] flag: bool,
) {
    let (bytes, name) = name(len);
    let (exchange, routing_key) = (name.clone(), name.clone());
    let method = Method::BasicDeliver {
        consumer_tag: name.clone(),
        delivery_tag: 77,
        redelivered: flag,
        exchange: name.clone(),
        routing_key: name.clone(),
    };
    check(|out| encode_deliver(out, 9, &bytes, 77, flag, &bytes, &bytes), &method);
    let method = Method::BasicGetOk {
        delivery_tag: u64::MAX,
        redelivered: flag,
        exchange: name.clone(),
        routing_key: name.clone(),
        message_count: 258,
    };
    check(|out| encode_get_ok(out, 9, u64::MAX, flag, &bytes, &bytes, 258), &method);
    let method = Method::BasicReturn { reply_code: 312, reply_text: name, exchange, routing_key };
    check(|out| encode_return(out, 9, 312, &bytes, &bytes, &bytes), &method);
}

#[rstest]
fn confirms_agree_with_the_table(#[values(false, true)] multiple: bool) {
    let delivery_tag = 0x0102_0304_0506_0708;
    let method = Method::BasicAck { delivery_tag, multiple };
    check(|out| encode_ack(out, 9, delivery_tag, multiple), &method);
    let method = Method::BasicNack { delivery_tag, multiple, requeue: false };
    check(|out| encode_nack(out, 9, delivery_tag, multiple), &method);
}

#[test]
fn publish_is_read_in_place() {
    let payload = wire("003c 0028 ffff 02 'ex' 03 'key' 03");
    let expected =
        PublishRef { exchange: b"ex", routing_key: b"key", mandatory: true, immediate: true };
    assert_eq!(decode_publish(&payload), Ok(expected));
    for cut in 0..payload.len() {
        let ids = if cut < 4 { (0, 0) } else { (60, 40) };
        let refused = decode_publish(&payload[..cut]).expect_err("cut");
        assert!(matches!(refused, MethodError::Truncated { .. }), "{cut}");
        assert_eq!(refused.ids(), ids);
    }
    let longer = [&payload[..], &[0]].concat();
    assert!(matches!(decode_publish(&longer), Err(MethodError::Trailing { .. })));
}

#[test]
fn ack_is_read_in_place() {
    let payload = wire("003c 0050 0000000000000102 01");
    assert_eq!(decode_ack(&payload), Some((258, true)));
    for cut in 0..payload.len() {
        assert_eq!(decode_ack(&payload[..cut]), None);
    }
    assert_eq!(decode_ack(&[&payload[..], &[0]].concat()), None);
    assert_eq!(decode_ack(&wire("003c 005a 0000000000000102 01")), None);
}

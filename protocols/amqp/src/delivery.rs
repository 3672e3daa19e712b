//! A delivery and what else the server sends for every message, written straight into the buffer.
//!
//! Each writer reserves once. Names longer than 255 bytes are cut to that, as a short string must
//! be; names that came through this crate never are.

use bytes::{BufMut, BytesMut};

use crate::frame::{FRAME_END, FRAME_OVERHEAD, FrameKind, frame_head};
use crate::short_string::{cut, put_short};

const DELIVER: [u8; 4] = [0, 60, 0, 60];
const GET_OK: [u8; 4] = [0, 60, 0, 71];
const RETURN: [u8; 4] = [0, 60, 0, 50];
const ACK: [u8; 4] = [0, 60, 0, 80];
const NACK: [u8; 4] = [0, 60, 0, 120];

/// Writes a basic.deliver; the content follows it.
pub fn encode_deliver(
    out: &mut BytesMut,
    channel: u16,
    consumer_tag: &[u8],
    delivery_tag: u64,
    redelivered: bool,
    exchange: &[u8],
    routing_key: &[u8],
) {
    let (consumer_tag, exchange, routing_key) =
        (cut(consumer_tag), cut(exchange), cut(routing_key));
    let size = 4 + 3 + 9 + consumer_tag.len() + exchange.len() + routing_key.len();
    begin(out, channel, DELIVER, size);
    put_short(out, consumer_tag);
    out.extend_from_slice(&tag_and_bits(delivery_tag, u8::from(redelivered)));
    put_short(out, exchange);
    put_short(out, routing_key);
    out.put_u8(FRAME_END);
}

/// Writes a basic.get-ok; the content follows it.
pub fn encode_get_ok(
    out: &mut BytesMut,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
    exchange: &[u8],
    routing_key: &[u8],
    message_count: u32,
) {
    let (exchange, routing_key) = (cut(exchange), cut(routing_key));
    let size = 4 + 9 + 2 + exchange.len() + routing_key.len() + 4;
    begin(out, channel, GET_OK, size);
    out.extend_from_slice(&tag_and_bits(delivery_tag, u8::from(redelivered)));
    put_short(out, exchange);
    put_short(out, routing_key);
    out.put_u32(message_count);
    out.put_u8(FRAME_END);
}

/// Writes a basic.return; the content follows it.
pub fn encode_return(
    out: &mut BytesMut,
    channel: u16,
    code: u16,
    text: &[u8],
    exchange: &[u8],
    routing_key: &[u8],
) {
    let (text, exchange, routing_key) = (cut(text), cut(exchange), cut(routing_key));
    let size = 4 + 2 + 3 + text.len() + exchange.len() + routing_key.len();
    begin(out, channel, RETURN, size);
    out.put_u16(code);
    put_short(out, text);
    put_short(out, exchange);
    put_short(out, routing_key);
    out.put_u8(FRAME_END);
}

/// Writes a basic.ack, which confirms to a publisher.
pub fn encode_ack(out: &mut BytesMut, channel: u16, delivery_tag: u64, multiple: bool) {
    begin(out, channel, ACK, 4 + 9);
    out.extend_from_slice(&tag_and_bits(delivery_tag, u8::from(multiple)));
    out.put_u8(FRAME_END);
}

/// Writes a basic.nack, which refuses to a publisher; requeue is not set.
pub fn encode_nack(out: &mut BytesMut, channel: u16, delivery_tag: u64, multiple: bool) {
    begin(out, channel, NACK, 4 + 9);
    out.extend_from_slice(&tag_and_bits(delivery_tag, u8::from(multiple)));
    out.put_u8(FRAME_END);
}

/// Reserves the whole frame and writes its head and ids; `size` is that of the payload.
#[inline]
fn begin(out: &mut BytesMut, channel: u16, ids: [u8; 4], size: usize) {
    out.reserve(size + FRAME_OVERHEAD);
    let [a, b, c, d, e, f, g] = frame_head(FrameKind::Method, channel, size as u32);
    let [h, i, j, k] = ids;
    out.extend_from_slice(&[a, b, c, d, e, f, g, h, i, j, k]);
}

#[inline]
const fn tag_and_bits(delivery_tag: u64, bits: u8) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = delivery_tag.to_be_bytes();
    [a, b, c, d, e, f, g, h, bits]
}

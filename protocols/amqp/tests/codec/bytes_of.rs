//! Bytes written so that a reader of the protocol sees them.

use bytes::BytesMut;
use pillarbox_amqp::{FrameKind, Method, ShortString, next_frame};

/// `"003c 0028 02 'ex'"`: hexadecimal, and text between quotes as it is.
pub(crate) fn wire(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: String = part.split_whitespace().collect();
        assert!(digits.len().is_multiple_of(2), "odd digits in {part:?}");
        for at in (0..digits.len()).step_by(2) {
            bytes.push(u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal"));
        }
    }
    bytes
}

pub(crate) fn short(text: &'static str) -> ShortString {
    ShortString::from_static(text)
}

/// The payload that a method encodes to, out of its frame.
pub(crate) fn payload_of(method: &Method, channel: u16) -> Vec<u8> {
    let mut out = BytesMut::new();
    method.encode(channel, &mut out);
    let frame = next_frame(&out, u32::MAX).expect("sound").expect("whole");
    assert_eq!(
        (frame.kind, frame.channel, frame.wire_len()),
        (FrameKind::Method, channel, out.len())
    );
    frame.payload.to_vec()
}

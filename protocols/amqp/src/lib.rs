//! AMQP 0-9-1: bytes to frames and back, and nothing else.
//!
//! Input is split with [`next_frame`], which borrows. Methods are read into [`Method`]; what every
//! message passes (publish, ack, content header) has a reader that borrows and does not allocate.
//! Output goes into a [`BytesMut`](bytes::BytesMut).
//!
//! No peer's bytes panic, allocate more than they carry, or recurse deeper than
//! [`TABLE_DEPTH_MAX`]. Whether a frame may come now, and whether a name is a good one, is judged
//! by the session.

mod argument;
mod content;
mod delivery;
mod frame;
mod method;
mod properties;
mod publish;
mod raw_table;
mod reader;
mod reply;
mod sasl;
mod short_string;
mod value;

pub use content::{ContentHeader, decode_content_header, encode_content};
pub use delivery::{encode_ack, encode_deliver, encode_get_ok, encode_nack, encode_return};
pub use frame::{
    FRAME_END, FRAME_MIN_SIZE, FRAME_OVERHEAD, FrameError, FrameKind, PROTOCOL_HEADER,
    ProtocolHeader, RawFrame, encode_heartbeat, next_frame, protocol_header,
};
pub use method::{Method, MethodError, method_ids};
pub use properties::{ContentError, Properties, PropertiesRef};
pub use publish::{PublishRef, decode_ack, decode_publish, is_publish};
pub use raw_table::{
    ArrayValues, TABLE_DEPTH_MAX, TABLE_ENTRIES_MAX, TableEntries, ValueError, array_values,
    table_entries,
};
pub use reply::{ReplyCode, reply_text};
pub use sasl::{decode_amqplain, decode_plain};
pub use short_string::{ShortString, TooLong};
pub use value::{FieldTable, FieldValue, decode_table};

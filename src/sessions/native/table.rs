//! Tables on the wire: the neutral form of properties that have headers only.

use bytes::BytesMut;

use crate::broker::{NEUTRAL, Properties, Table};

/// The neutral form's flags for "headers and nothing else".
const HEADERS_ONLY: [u8; 2] = (1u16 << 10).to_le_bytes();

/// The bytes were checked when the frame was read. Empty for no entries.
pub(crate) fn decode(bytes: &[u8]) -> Table {
    if bytes.is_empty() {
        return Table::new();
    }
    (NEUTRAL.decode)(&[&HEADERS_ONLY, bytes].concat()).headers.unwrap_or_default()
}

/// The table's bytes.
pub(crate) fn encode(table: Table) -> Vec<u8> {
    let mut bytes = Vec::new();
    let properties = Properties { headers: Some(table), ..Properties::default() };
    (NEUTRAL.encode)(&properties, &mut bytes);
    bytes.drain(..HEADERS_ONLY.len());
    bytes
}

/// Appends the table's bytes with their size before them.
pub(super) fn put(table: Table, out: &mut BytesMut) {
    pillarbox_native::put_table(&encode(table), out);
}

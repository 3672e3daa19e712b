//! Tables on the wire: the neutral form of properties that have headers only.

use crate::broker::{NEUTRAL, Properties, Table};

/// The neutral form's flags for "headers and nothing else".
const HEADERS_ONLY: [u8; 2] = (1u16 << 10).to_le_bytes();

pub(super) fn encode(table: &Table) -> Vec<u8> {
    if table.is_empty() {
        return Vec::new();
    }
    let mut bytes = Vec::new();
    let properties = Properties { headers: Some(table.clone()), ..Properties::default() };
    (NEUTRAL.encode)(&properties, &mut bytes);
    bytes.split_off(HEADERS_ONLY.len())
}

pub(super) fn decode(bytes: &[u8]) -> Table {
    (NEUTRAL.decode)(&[&HEADERS_ONLY, bytes].concat()).headers.unwrap_or_default()
}

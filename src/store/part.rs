//! A part: one value of the journal. A commit is one part or several.
//!
//! ```text
//! 0  magic "PBJ1" | 4 crc u32 of bytes 8..40, salted | 8 commit u64 | 16 wall_ms u64
//! 24 index u32 | 28 parts u32 | 32 used u32 | 36 raw_crc u32
//! 40 records, or one slice of a big body (raw_crc is its CRC-32C, and 0 with records)
//! ```

use crc32c::crc32c_append;

use super::record::{u32_at, u64_at};

const MAGIC: u32 = u32::from_le_bytes(*b"PBJ1");
pub(super) const PART_HEAD: usize = 40;
const PAGE: usize = 4096;
const PAGES_MAX: usize = 64;

/// A value of this many pages fits its page run exactly, beside redb's own bytes.
const fn value_max(pages: usize) -> usize {
    pages * PAGE - 32
}

/// The longest value in either file, save for single large records.
pub(super) const VALUE_MAX: usize = value_max(PAGES_MAX);
pub(super) const RAW_MAX: usize = VALUE_MAX - PART_HEAD;

/// The longest chunk of messages that are read one by one: the whole run is read for each.
pub(super) const SMALL_MAX: usize = value_max(4);

/// How long the next value shall be when this much is left to write, and at most: runs of pages have sizes in powers of two,
/// and a half-empty one is written whole.
pub(super) fn value_len(left: usize, least: usize, most: usize) -> usize {
    let mut pages = (most + 32) / PAGE;
    while pages > 1 && left < value_max(pages) / 4 * 3 && least <= value_max(pages / 2) {
        pages /= 2;
    }
    value_max(pages).max(least)
}

pub(super) fn salt(number: u64) -> u32 {
    number as u32 ^ (number >> 32) as u32
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartHead {
    pub(super) commit: u64,
    pub(super) wall_ms: u64,
    pub(super) index: u32,
    pub(super) parts: u32,
    pub(super) used: u32,
    pub(super) raw_crc: u32,
}

impl PartHead {
    pub(super) fn write(&self, out: &mut [u8], number: u64) {
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..16].copy_from_slice(&self.commit.to_le_bytes());
        out[16..24].copy_from_slice(&self.wall_ms.to_le_bytes());
        out[24..28].copy_from_slice(&self.index.to_le_bytes());
        out[28..32].copy_from_slice(&self.parts.to_le_bytes());
        out[32..36].copy_from_slice(&self.used.to_le_bytes());
        out[36..40].copy_from_slice(&self.raw_crc.to_le_bytes());
        let crc = crc32c_append(salt(number), &out[8..PART_HEAD]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    pub(super) fn read(bytes: &[u8], number: u64) -> Option<Self> {
        if bytes.len() < PART_HEAD || u32_at(bytes, 0) != MAGIC {
            return None;
        }
        if crc32c_append(salt(number), &bytes[8..PART_HEAD]) != u32_at(bytes, 4) {
            return None;
        }
        let head = Self {
            commit: u64_at(bytes, 8),
            wall_ms: u64_at(bytes, 16),
            index: u32_at(bytes, 24),
            parts: u32_at(bytes, 28),
            used: u32_at(bytes, 32),
            raw_crc: u32_at(bytes, 36),
        };
        (head.used as usize == bytes.len()).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_waste_at_most_a_quarter_of_their_pages() {
        let mut left: usize = 1_100_000;
        let mut written = 0;
        while left > 4000 {
            let len = value_len(left, 0, VALUE_MAX).min(left);
            written += (len + 32).next_multiple_of(PAGE).next_power_of_two();
            left -= len;
        }
        assert!(written < 1_400_000, "{written}");
        assert_eq!(value_len(1000, 100_000, VALUE_MAX), value_max(32));
        assert_eq!(value_len(10_000_000, 0, VALUE_MAX), VALUE_MAX);
        assert_eq!(value_len(10_000_000, 0, SMALL_MAX), SMALL_MAX);
        assert_eq!(value_len(10_000_000, 100_000, SMALL_MAX), 100_000);
    }
}

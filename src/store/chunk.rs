//! A chunk of home: the messages of one mailbox back to back, in order of position.
//!
//! ```text
//! 0  magic "PBC1" | 4 crc u32 of bytes 8..40, salted | 8 mailbox u64 | 16 first u64
//! 24 end u64 | 32 messages u32 | 36 used u32
//! 40 records
//! ```
//! A shared chunk holds bodies of several mailboxes in the same form, without the head.

use crc32c::crc32c_append;

use super::record::{u32_at, u64_at};

pub(super) const CHUNK_HEAD: usize = 40;
const MAGIC: u32 = u32::from_le_bytes(*b"PBC1");

/// Records know the mailbox they belong to.
pub(super) fn salt(mailbox: u64) -> u32 {
    mix(mailbox, 0)
}

pub(super) fn shared_salt(id: u64) -> u32 {
    mix(u64::MAX, id)
}

fn mix(a: u64, b: u64) -> u32 {
    let mixed = (a ^ 0x5042_4331).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b;
    mixed as u32 ^ (mixed >> 32) as u32
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkHead {
    pub(super) mailbox: u64,
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) messages: u32,
    pub(super) used: u32,
}

impl ChunkHead {
    pub(super) fn write(&self, out: &mut [u8]) {
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..16].copy_from_slice(&self.mailbox.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        out[24..32].copy_from_slice(&self.end.to_le_bytes());
        out[32..36].copy_from_slice(&self.messages.to_le_bytes());
        out[36..40].copy_from_slice(&self.used.to_le_bytes());
        let crc = crc32c_append(mix(self.mailbox, self.first), &out[8..CHUNK_HEAD]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    pub(super) fn read(bytes: &[u8], mailbox: u64, first: u64) -> Option<Self> {
        if bytes.len() < CHUNK_HEAD || u32_at(bytes, 0) != MAGIC {
            return None;
        }
        if crc32c_append(mix(mailbox, first), &bytes[8..CHUNK_HEAD]) != u32_at(bytes, 4) {
            return None;
        }
        let head = Self {
            mailbox: u64_at(bytes, 8),
            first: u64_at(bytes, 16),
            end: u64_at(bytes, 24),
            messages: u32_at(bytes, 32),
            used: u32_at(bytes, 36),
        };
        let fits =
            head.mailbox == mailbox && head.first == first && head.used as usize == bytes.len();
        fits.then_some(head)
    }
}

pub(super) const BIG_HEAD: usize = 8;

/// Writes the head of a slice of a big body; the slice follows it.
pub(super) fn put_big_head(out: &mut Vec<u8>, id: u64, number: u32, slice: &[u8]) {
    let crc = crc32c_append(mix(id, number.into()), slice);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&(slice.len() as u32).to_le_bytes());
}

pub(super) fn big_slice(bytes: &[u8], id: u64, number: u32) -> Option<&[u8]> {
    let (head, slice) = bytes.split_at_checked(BIG_HEAD)?;
    let whole = u32_at(head, 4) as usize == slice.len()
        && u32_at(head, 0) == crc32c_append(mix(id, number.into()), slice);
    whole.then_some(slice)
}

/// A row that is not a chunk: a checksum over its key and value, then the value.
pub(super) fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let crc = crc32c_append(crc32c_append(0x5042, key), value);
    let mut row = Vec::with_capacity(4 + value.len());
    row.extend_from_slice(&crc.to_le_bytes());
    row.extend_from_slice(value);
    row
}

pub(super) fn unsealed<'a>(key: &[u8], row: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, value) = row.split_at_checked(4)?;
    (u32_at(crc, 0) == crc32c_append(crc32c_append(0x5042, key), value)).then_some(value)
}

/// The bytes of a key of two numbers.
pub(super) fn key_of(a: u64, b: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&a.to_le_bytes());
    key[8..].copy_from_slice(&b.to_le_bytes());
    key
}

//! Names that a session makes up, from the connection's seed.

use crate::broker::Name;

/// A source of names (SplitMix64).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The prefix and 22 characters of url-safe base64: 128 bits.
    pub(super) fn name(&mut self, prefix: &str) -> Name {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::with_capacity(prefix.len() + 22);
        text.push_str(prefix);
        for _ in 0..2 {
            let mut bits = self.next();
            for _ in 0..10 {
                text.push(ALPHABET[(bits & 63) as usize].into());
                bits >>= 6;
            }
            // The four bits that are left choose the last character of this half.
            text.push(ALPHABET[(bits & 15) as usize].into());
        }
        text.into()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

//! `x-random` and `x-local-random`: one destination by chance. Every mailbox is local here, so they are one kind.

use super::target::{TargetId, TargetSet};

/// A small generator: the same seed, the same choices (SplitMix64).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// Spreads every bit of a number over all bits of the result.
pub(in crate::broker) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[derive(Debug, Default)]
pub(super) struct Random(TargetSet);

impl Random {
    pub(super) fn bind(&mut self, target: TargetId) {
        self.0.add(target);
    }

    pub(super) fn unbind(&mut self, target: TargetId) {
        self.0.remove(target);
    }

    pub(super) fn route(&self, dice: &mut Dice, found: &mut impl FnMut(TargetId)) {
        if self.0.is_empty() {
            return;
        }
        if let Some(target) = self.0.at(dice.below(self.0.len())) {
            found(target);
        }
    }
}

//! Finds numbers by hash, in a time that does not grow with their count.
//!
//! Never iterated, so neither the seed nor the order of insertion can show in what the broker does.

/// Open addressing with linear probing. The owner keeps what the numbers stand for, and compares.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// A power of two in length, at most three quarters full.
    slots: Vec<Slot>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    /// `FREE` where nothing is.
    value: u32,
}

const FREE: u32 = u32::MAX;

impl Index {
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let hash = fold(hash);
        let mut at = hash as usize & self.mask();
        loop {
            let slot = self.slots[at];
            if slot.value == FREE {
                return None;
            }
            if slot.hash == hash && is_it(slot.value) {
                return Some(slot.value);
            }
            at = (at + 1) & self.mask();
        }
    }

    /// The owner knows that the number is not here yet.
    pub(super) fn insert(&mut self, hash: u64, value: u32) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.place(Slot { hash: fold(hash), value });
        self.len += 1;
    }

    pub(super) fn remove(&mut self, hash: u64, value: u32) {
        if self.len == 0 {
            return;
        }
        let mut hole = fold(hash) as usize & self.mask();
        while self.slots[hole].value != value {
            if self.slots[hole].value == FREE {
                return;
            }
            hole = (hole + 1) & self.mask();
        }
        self.len -= 1;
        // Close the gap: whoever may stand at the hole as well as where it stands moves there.
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask();
            let slot = self.slots[at];
            if slot.value == FREE {
                break;
            }
            let home = slot.hash as usize & self.mask();
            let displacement = at.wrapping_sub(home) & self.mask();
            let distance = at.wrapping_sub(hole) & self.mask();
            if displacement >= distance {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole].value = FREE;
    }

    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    fn place(&mut self, slot: Slot) {
        let mut at = slot.hash as usize & self.mask();
        while self.slots[at].value != FREE {
            at = (at + 1) & self.mask();
        }
        self.slots[at] = slot;
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(8);
        let old = std::mem::replace(&mut self.slots, vec![Slot { hash: 0, value: FREE }; size]);
        for slot in old.into_iter().filter(|slot| slot.value != FREE) {
            self.place(slot);
        }
    }
}

fn fold(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn index_holds_what_a_set_holds(
            steps in prop::collection::vec((any::<bool>(), 0u32..40), 0..200),
            spread in 1u64..10,
        ) {
            // Few different hashes, so that values stand in each other's way.
            let hash = |value: u32| u64::from(value) % spread;
            let mut index = Index::default();
            let mut set = BTreeSet::new();
            for (add, value) in steps {
                if add {
                    if set.insert(value) {
                        index.insert(hash(value), value);
                    }
                } else {
                    set.remove(&value);
                    index.remove(hash(value), value);
                }
                for value in 0..40 {
                    let found = index.find(hash(value), |it| it == value).is_some();
                    prop_assert_eq!(found, set.contains(&value));
                }
            }
        }
    }
}

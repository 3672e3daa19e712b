//! `direct`: the routing key equals the binding key.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::index::Index;
use super::target::{TargetId, TargetSet};

#[derive(Debug)]
pub(super) struct Direct {
    seed: u64,
    keys: Index,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Entry {
    key: Bytes,
    targets: TargetSet,
}

impl Direct {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, keys: Index::default(), entries: Vec::new(), free: Vec::new() }
    }

    pub(super) fn bind(&mut self, target: TargetId, key: &Bytes) {
        let at = match self.find(key) {
            Some(at) => at,
            None => self.add(key),
        };
        self.entries[at as usize].targets.add(target);
    }

    pub(super) fn unbind(&mut self, target: TargetId, key: &[u8]) {
        let Some(at) = self.find(key) else { return };
        let entry = &mut self.entries[at as usize];
        if entry.targets.remove(target) && entry.targets.is_empty() {
            *entry = Entry::default();
            self.keys.remove(xxh3_64_with_seed(key, self.seed), at);
            self.free.push(at);
        }
    }

    pub(super) fn route(&self, key: &[u8], found: &mut impl FnMut(TargetId)) {
        if let Some(at) = self.find(key) {
            self.entries[at as usize].targets.iter().for_each(found);
        }
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let hash = xxh3_64_with_seed(key, self.seed);
        self.keys.find(hash, |at| self.entries[at as usize].key == key)
    }

    fn add(&mut self, key: &Bytes) -> u32 {
        // A key may be a slice of all that a socket read.
        let entry = Entry { key: Bytes::copy_from_slice(key), targets: TargetSet::default() };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.keys.insert(xxh3_64_with_seed(key, self.seed), at);
        at
    }
}

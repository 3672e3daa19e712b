//! `x-modulus-hash`: the hash of the routing key picks one of the destinations in order of name.

use xxhash_rust::xxh3::xxh3_64;

use super::target::TargetId;
use crate::broker::Destination;

#[derive(Debug, Default)]
pub(super) struct ModulusHash {
    /// In order of destination, with the number of bindings.
    targets: Vec<(Destination, TargetId, u32)>,
}

impl ModulusHash {
    pub(super) fn bind(&mut self, target: TargetId, destination: &Destination) {
        match self.targets.binary_search_by(|(it, ..)| it.cmp(destination)) {
            Ok(at) => self.targets[at].2 += 1,
            Err(at) => self.targets.insert(at, (destination.clone(), target, 1)),
        }
    }

    pub(super) fn unbind(&mut self, destination: &Destination) {
        let Ok(at) = self.targets.binary_search_by(|(it, ..)| it.cmp(destination)) else { return };
        self.targets[at].2 -= 1;
        if self.targets[at].2 == 0 {
            self.targets.remove(at);
        }
    }

    pub(super) fn route(&self, key: &[u8], found: &mut impl FnMut(TargetId)) {
        if !self.targets.is_empty() {
            let at = xxh3_64(key) % self.targets.len() as u64;
            found(self.targets[at as usize].1);
        }
    }
}

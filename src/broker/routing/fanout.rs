//! `fanout`: every binding, whatever its key.

use super::target::{TargetId, TargetSet};

#[derive(Debug, Default)]
pub(super) struct Fanout(TargetSet);

impl Fanout {
    pub(super) fn bind(&mut self, target: TargetId) {
        self.0.add(target);
    }

    pub(super) fn unbind(&mut self, target: TargetId) {
        self.0.remove(target);
    }

    pub(super) fn route(&self, found: &mut impl FnMut(TargetId)) {
        self.0.iter().for_each(found);
    }
}

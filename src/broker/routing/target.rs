//! Where bindings lead: each destination has one number, however many bindings lead to it.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::broker::{Destination, Name};

/// A destination of bindings, numbered while any binding leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TargetId(u32);

#[derive(Debug, Default)]
pub(super) struct Targets {
    slots: Vec<Target>,
    free: Vec<TargetId>,
    ids: BTreeMap<Destination, TargetId>,
}

#[derive(Debug)]
struct Target {
    destination: Destination,
    /// The exchanges with bindings to it, and how many each. Never empty while the target is in `ids`.
    sources: BTreeMap<Name, u32>,
    /// The last round of routing that came here.
    seen: u64,
}

impl Targets {
    pub(super) fn find(&self, destination: &Destination) -> Option<TargetId> {
        self.ids.get(destination).copied()
    }

    /// One more binding from this source.
    pub(super) fn hold(&mut self, destination: &Destination, source: &Name) -> TargetId {
        let id = match self.ids.get(destination) {
            Some(&id) => id,
            None => self.add(destination),
        };
        let sources = &mut self.slots[id.0 as usize].sources;
        match sources.get_mut(source) {
            Some(count) => *count += 1,
            None => {
                sources.insert(source.clone(), 1);
            }
        }
        id
    }

    fn add(&mut self, destination: &Destination) -> TargetId {
        let target = Target { destination: destination.clone(), sources: BTreeMap::new(), seen: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id.0 as usize] = target;
                id
            }
            None => {
                self.slots.push(target);
                TargetId(self.slots.len() as u32 - 1)
            }
        };
        self.ids.insert(destination.clone(), id);
        id
    }

    /// One binding from this source less. The number is free with the last one.
    pub(super) fn release(&mut self, id: TargetId, source: &Name) {
        let target = &mut self.slots[id.0 as usize];
        if let Some(count) = target.sources.get_mut(source) {
            *count -= 1;
            if *count == 0 {
                target.sources.remove(source);
            }
        }
        if target.sources.is_empty() && self.ids.remove(&target.destination).is_some() {
            self.free.push(id);
        }
    }

    pub(super) fn sources(&self, destination: &Destination) -> impl Iterator<Item = &Name> {
        let target = self.find(destination).map(|id| &self.slots[id.0 as usize]);
        target.into_iter().flat_map(|target| target.sources.keys())
    }

    pub(super) fn destination(&self, id: TargetId) -> &Destination {
        &self.slots[id.0 as usize].destination
    }

    /// The destination, the first time in a round.
    pub(super) fn visit(&mut self, id: TargetId, round: u64) -> Option<&Destination> {
        let target = &mut self.slots[id.0 as usize];
        if target.seen == round {
            return None;
        }
        target.seen = round;
        Some(&target.destination)
    }
}

/// Targets in order of number, each once, counting the bindings that lead to it.
#[derive(Debug, Default)]
pub(super) struct TargetSet(SmallVec<[(TargetId, u32); 2]>);

impl TargetSet {
    /// Whether the target is new here.
    pub(super) fn add(&mut self, id: TargetId) -> bool {
        match self.0.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => {
                self.0[at].1 += 1;
                false
            }
            Err(at) => {
                self.0.insert(at, (id, 1));
                true
            }
        }
    }

    /// Whether the target is gone from here.
    pub(super) fn remove(&mut self, id: TargetId) -> bool {
        let Ok(at) = self.0.binary_search_by_key(&id, |(id, _)| *id) else { return false };
        self.0[at].1 -= 1;
        let gone = self.0[at].1 == 0;
        if gone {
            self.0.remove(at);
        }
        gone
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn at(&self, index: usize) -> Option<TargetId> {
        self.0.get(index).map(|(id, _)| *id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = TargetId> {
        self.0.iter().map(|(id, _)| *id)
    }
}

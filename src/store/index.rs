//! What is live and where: for each mailbox its extents, in memory.
//!
//! Holds only what is durable: a commit is entered after its sync.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::extent::{Extent, SPAN_MAX};

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) mailboxes: HashMap<u64, Mailbox, Numbers>,
    /// Changed since the home thread looked.
    pub(super) touched: Vec<u64>,
    /// Definitions changed since then; `None` for those that went.
    pub(super) definitions: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub(super) attempts: BTreeMap<(u64, u64), (u32, u64)>,
    pub(super) quarantine: BTreeMap<(u64, u64), (Vec<u8>, Vec<u8>)>,
    /// Gone since then, with all their rows.
    pub(super) dropped: Vec<u64>,
    pub(super) shared: HashMap<u64, Holders, Numbers>,
    /// References from chunks to each big body.
    pub(super) big: HashMap<u64, u32, Numbers>,
    /// Shared chunks and big bodies to which no chunk refers any more.
    pub(super) free_shared: Vec<u64>,
    pub(super) free_big: Vec<u64>,
    pub(super) free_attempts: Vec<(u64, u64)>,
    pub(super) live: u64,
}

/// Who refers to a shared chunk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holders {
    /// From chunks, live or not while the chunk is there.
    pub(super) references: u32,
    /// In the shared chunk.
    pub(super) bodies: u32,
}

impl Holders {
    /// So few that their bodies take less room with them: as for a sparse chunk, less than four for ten.
    pub(super) fn are_few(self) -> bool {
        u64::from(self.references) * 10 < u64::from(self.bodies) * 4
    }
}

#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) next: u64,
    pub(super) mark: u64,
    /// In order of their first position.
    pub(super) extents: VecDeque<Extent>,
    pub(super) touched: bool,
    /// Some extents may overlap: a spilled message came to a hole between others.
    tangled: bool,
    /// Extents in the middle that hold nothing any more.
    hollow: usize,
    /// Chunks without a live message, by key: home deletes them next.
    pub(super) spent: Vec<u64>,
    /// Shared chunks that each chunk refers to, and how often; only for chunks that do.
    pub(super) shared: BTreeMap<u64, Box<[(u64, u32)]>>,
    /// Big bodies that each chunk refers to; only for chunks that do.
    pub(super) big: BTreeMap<u64, Box<[u64]>>,
    /// Positions with a row of attempts in home.
    pub(super) attempts: BTreeSet<u64>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            next: 1,
            mark: 0,
            extents: VecDeque::new(),
            touched: false,
            tangled: false,
            hollow: 0,
            spent: Vec::new(),
            shared: BTreeMap::new(),
            big: BTreeMap::new(),
            attempts: BTreeSet::new(),
        }
    }
}

impl Mailbox {
    /// The extent in which the position lives.
    pub(super) fn find(&self, seq: u64) -> Option<&Extent> {
        let upto = self.extents.partition_point(|extent| extent.first <= seq);
        self.extents
            .range(..upto)
            .rev()
            .take_while(|extent| self.reaches(extent, seq))
            .find(|extent| extent.has(seq))
    }

    /// Whether this extent, or one before it, may hold the position or what comes after it.
    fn reaches(&self, extent: &Extent, seq: u64) -> bool {
        // An extent of which nothing is left has no end worth the name.
        let open = self.tangled || extent.count == 0;
        if open { extent.first + u64::from(SPAN_MAX) > seq } else { extent.end() > seq }
    }

    pub(super) fn any_live(&self, first: u64, end: u64) -> bool {
        self.touching(first, end).any(|at| self.extents[at].any(first, end))
    }

    pub(super) fn live(&self) -> u64 {
        self.extents.iter().map(|extent| u64::from(extent.count)).sum()
    }

    /// Places of extents that may hold positions of the range, backwards.
    fn touching(&self, first: u64, end: u64) -> impl Iterator<Item = usize> + '_ {
        let upto = self.extents.partition_point(|extent| extent.first < end);
        (0..upto).rev().take_while(move |&at| self.extents[at].first + u64::from(SPAN_MAX) > first)
    }

    pub(super) fn insert(&mut self, extent: Extent) {
        self.next = self.next.max(extent.end());
        if self.extents.back().is_none_or(|last| last.first < extent.first) {
            self.tangled |= self.extents.back().is_some_and(|last| last.end() > extent.first);
            self.extents.push_back(extent);
        } else {
            let at = self.extents.partition_point(|other| other.first < extent.first);
            let before = at.checked_sub(1).map_or(0, |before| self.extents[before].end());
            let after = self.extents.get(at).map_or(u64::MAX, |after| after.first);
            self.tangled |= before > extent.first || after < extent.end();
            self.extents.insert(at, extent);
        }
    }

    pub(super) fn remove(&mut self, first: u64, end: u64) -> u64 {
        let upto = self.extents.partition_point(|extent| extent.first < end);
        let mut gone = 0;
        for at in (0..upto).rev() {
            if !self.reaches(&self.extents[at], first) {
                break;
            }
            let extent = &mut self.extents[at];
            let before = extent.count;
            gone += u64::from(extent.remove(first, end));
            if extent.count == 0 && before > 0 {
                self.hollow += 1;
                if extent.is_home() {
                    self.spent.push(extent.place);
                }
            }
        }
        self.sweep();
        gone
    }

    fn sweep(&mut self) {
        while self.extents.front().is_some_and(|extent| extent.count == 0) {
            self.extents.pop_front();
            self.hollow -= 1;
        }
        if self.hollow > 16 && self.hollow > self.extents.len() / 2 {
            self.extents.retain(|extent| extent.count > 0);
            self.hollow = 0;
        }
        if self.extents.is_empty() {
            self.tangled = false;
            if self.extents.capacity() > 64 {
                self.extents = VecDeque::new();
            }
        }
    }

    /// Takes out the extents that home has now, and puts its chunks in their place.
    pub(super) fn take(&mut self, mut homed: impl FnMut(&Extent) -> bool) -> Vec<Extent> {
        let mut taken = Vec::new();
        self.extents.retain(|extent| {
            let gone = homed(extent);
            if gone {
                taken.push(extent.clone());
            }
            !gone
        });
        self.hollow = self.extents.iter().filter(|extent| extent.count == 0).count();
        taken
    }
}

impl Index {
    /// The mailbox, entered as changed.
    pub(super) fn touch(&mut self, id: u64) -> &mut Mailbox {
        let mailbox = self.mailboxes.entry(id).or_default();
        if !mailbox.touched {
            mailbox.touched = true;
            self.touched.push(id);
        }
        mailbox
    }

    pub(super) fn append(&mut self, id: u64, extent: Extent) {
        self.live += u64::from(extent.count);
        self.touch(id).insert(extent);
    }

    pub(super) fn remove(&mut self, id: u64, first: u64, count: u32) {
        if self.mailboxes.contains_key(&id) {
            let end = first.saturating_add(count.into());
            let mailbox = self.touch(id);
            let gone = mailbox.remove(first, end);
            let odd: Vec<_> = mailbox.attempts.range(first..end).copied().collect();
            for seq in &odd {
                mailbox.attempts.remove(seq);
            }
            self.live -= gone;
            self.free_attempts.extend(odd.into_iter().map(|seq| (id, seq)));
        }
    }

    pub(super) fn advance(&mut self, id: u64, next: u64) {
        let mailbox = self.touch(id);
        mailbox.next = mailbox.next.max(next);
    }

    pub(super) fn drop_mailbox(&mut self, id: u64) {
        if let Some(mailbox) = self.mailboxes.remove(&id) {
            self.live -= mailbox.live();
            for (shared, count) in mailbox.shared.values().flatten() {
                self.release_shared(*shared, *count);
            }
            for big in mailbox.big.values().flatten() {
                self.release_big(*big);
            }
        }
        self.dropped.push(id);
    }

    pub(super) fn release_shared(&mut self, id: u64, count: u32) {
        if let Some(it) = self.shared.get_mut(&id) {
            it.references = it.references.saturating_sub(count);
            if it.references == 0 {
                self.shared.remove(&id);
                self.free_shared.push(id);
            }
        }
    }

    pub(super) fn release_big(&mut self, id: u64) {
        if let Some(left) = self.big.get_mut(&id) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.big.remove(&id);
                self.free_big.push(id);
            }
        }
    }

    pub(super) fn next(&self, id: u64) -> u64 {
        self.mailboxes.get(&id).map_or(1, |mailbox| mailbox.next)
    }
}

/// A quick hash for numbers that we gave ourselves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NumberHasher(u64);

pub(super) type Numbers = BuildHasherDefault<NumberHasher>;

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = u128::from(self.0 ^ number) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (mixed >> 64) as u64 ^ mixed as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_found_among_overlapping_extents() {
        let mut mailbox = Mailbox::default();
        let mut sparse = Extent::home(1, 100, false);
        sparse.remove(20, 40);
        mailbox.insert(sparse);
        mailbox.insert(Extent::journal(101, 50, 7, 40, false));
        mailbox.insert(Extent::journal(25, 5, 8, 40, true));
        assert_eq!(mailbox.find(19).map(|e| e.place), Some(1));
        assert_eq!(mailbox.find(24), None);
        assert_eq!(mailbox.find(27).map(|e| e.place), Some(8));
        assert_eq!(mailbox.find(90).map(|e| e.place), Some(1));
        assert_eq!(mailbox.find(150).map(|e| e.place), Some(7));
        assert_eq!(mailbox.next, 151);
        assert_eq!(mailbox.remove(1, 1000), 80 + 50 + 5);
        assert_eq!(mailbox.spent, vec![1]);
        assert!(mailbox.extents.is_empty());
    }
}

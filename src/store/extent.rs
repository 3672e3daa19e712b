//! An extent: neighbouring positions of one mailbox that lie together in a journal part or a chunk of home.
//!
//! Knows which of them are live, and where they are; not what they are.

/// An extent never spans more positions than this, so that overlapping ones are found by looking back a bounded way.
pub(super) const SPAN_MAX: u32 = 32_768;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) first: u64,
    /// Part number of the journal, or the first position in the key of the chunk.
    pub(super) place: u64,
    live: Live,
    pub(super) span: u32,
    pub(super) count: u32,
    /// Where the first record starts in the part; `HOME` for a chunk.
    pub(super) offset: u32,
    pub(super) transient: bool,
    /// A chunk whose live map changed since it was last written.
    pub(super) changed: bool,
    /// A chunk's live messages when it was written.
    pub(super) born: u32,
    /// A chunk that is at most `SMALL_MAX` long.
    pub(super) small: bool,
}

pub(super) const HOME: u32 = u32::MAX;

/// Which positions of the span are live.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Live {
    All,
    Few(u64),
    Many(Box<[u64]>),
}

impl Extent {
    pub(super) fn journal(first: u64, count: u32, part: u64, offset: u32, transient: bool) -> Self {
        Self {
            first,
            place: part,
            live: Live::All,
            span: count,
            count,
            offset,
            transient,
            changed: false,
            born: count,
            small: false,
        }
    }

    pub(super) fn home(first: u64, span: u32, transient: bool) -> Self {
        Self { offset: HOME, ..Self::journal(first, span, first, HOME, transient) }
    }

    pub(super) fn is_home(&self) -> bool {
        self.offset == HOME
    }

    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.span)
    }

    pub(super) fn has(&self, seq: u64) -> bool {
        if seq < self.first || seq >= self.end() {
            return false;
        }
        let bit = seq - self.first;
        match &self.live {
            Live::All => true,
            Live::Few(word) => word >> bit & 1 == 1,
            Live::Many(words) => words[(bit / 64) as usize] >> (bit % 64) & 1 == 1,
        }
    }

    pub(super) fn any(&self, first: u64, end: u64) -> bool {
        let (from, to) = (first.max(self.first), end.min(self.end()));
        from < to && (matches!(self.live, Live::All) || (from..to).any(|seq| self.has(seq)))
    }

    /// Takes positions out; returns how many were live.
    pub(super) fn remove(&mut self, first: u64, end: u64) -> u32 {
        let (from, to) = (first.max(self.first), end.min(self.end()));
        if from >= to {
            return 0;
        }
        let gone = if matches!(self.live, Live::All) {
            let gone = (to - from) as u32;
            if from == self.first {
                // What goes in order needs no map.
                self.first = to;
                self.span -= gone;
            } else if to == self.end() {
                self.span -= gone;
            } else {
                self.map();
                self.clear(from, to);
            }
            gone
        } else {
            self.clear(from, to)
        };
        self.count -= gone;
        self.changed |= gone > 0;
        gone
    }

    fn map(&mut self) {
        let span = self.span as usize;
        self.live = if span <= 64 {
            Live::Few(ones(0, span as u64))
        } else {
            let mut words = vec![u64::MAX; span.div_ceil(64)].into_boxed_slice();
            if !span.is_multiple_of(64) {
                *words.last_mut().expect("a long span has words") = ones(0, (span % 64) as u64);
            }
            Live::Many(words)
        };
    }

    fn clear(&mut self, from: u64, to: u64) -> u32 {
        let (from, to) = (from - self.first, to - self.first);
        match &mut self.live {
            Live::All => 0,
            Live::Few(word) => take(word, ones(from, to)),
            Live::Many(words) => {
                let mut gone = 0;
                let mut at = from;
                while at < to {
                    let start = at % 64;
                    let stop = (start + to - at).min(64);
                    gone += take(&mut words[(at / 64) as usize], ones(start, stop));
                    at += stop - start;
                }
                gone
            }
        }
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = u64> + '_ {
        (self.first..self.end()).filter(|&seq| self.has(seq))
    }

    /// The live map as it is stored; `None` where every position of the span is live.
    pub(super) fn words(&self) -> Option<Vec<u64>> {
        match &self.live {
            Live::All => None,
            Live::Few(word) => Some(vec![*word]),
            Live::Many(words) => Some(words.to_vec()),
        }
    }

    /// Takes a stored live map; `None` where it does not fit.
    pub(super) fn with_words(mut self, words: Vec<u64>) -> Option<Self> {
        let span = self.span as usize;
        if words.len() != span.div_ceil(64) {
            return None;
        }
        let spare = span % 64;
        if spare != 0 && words.last().is_some_and(|last| last & !ones(0, spare as u64) != 0) {
            return None;
        }
        self.count = words.iter().map(|word| word.count_ones()).sum();
        self.live = if span <= 64 {
            Live::Few(words.first().copied().unwrap_or_default())
        } else {
            Live::Many(words.into())
        };
        Some(self)
    }
}

fn ones(from: u64, to: u64) -> u64 {
    let up_to = |bit: u64| if bit >= 64 { u64::MAX } else { (1 << bit) - 1 };
    up_to(to) & !up_to(from)
}

fn take(word: &mut u64, mask: u64) -> u32 {
    let gone = (*word & mask).count_ones();
    *word &= !mask;
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_in_order_needs_no_map() {
        let mut extent = Extent::journal(10, 100, 1, 0, false);
        assert_eq!(extent.remove(1, 20), 10);
        assert_eq!(extent.remove(100, 300), 10);
        assert_eq!((extent.first, extent.end(), extent.count), (20, 100, 80));
        assert_eq!(extent.words(), None);
        assert!(!extent.has(19) && extent.has(20) && extent.has(99) && !extent.has(100));
    }

    #[test]
    fn removal_agrees_with_a_set() {
        let mut state = 7_u64;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % n
        };
        for span in [1, 5, 63, 64, 65, 200, 300] {
            let mut extent = Extent::journal(1000, span, 1, 0, false);
            let mut set: std::collections::BTreeSet<u64> = (1000..1000 + u64::from(span)).collect();
            for _ in 0..60 {
                let first = 990 + random(u64::from(span) + 20);
                let end = first + random(12);
                let gone = set.range(first..end).count() as u32;
                set.retain(|seq| !(first..end).contains(seq));
                assert_eq!(extent.remove(first, end), gone);
                assert_eq!(extent.count as usize, set.len());
                assert!(extent.positions().eq(set.iter().copied()));
            }
        }
    }
}

//! The search for the end of a line or a body, and the limits on how far it goes.

use crate::StompError;

/// The search for an end, taken up where the last piece of input left it.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Bytes at the front of the input known not to hold the end.
    from: usize,
    /// Bytes looked at, counted in tests only: they show that it is not more than there are.
    pub(crate) examined: usize,
}

impl Scan {
    /// The index of the line feed that ends the first line.
    pub(crate) fn line_end<const N: usize>(
        &mut self,
        bytes: &[u8],
        bounds: [Bound; N],
    ) -> Result<Option<usize>, StompError> {
        let found = self.search(bytes, |rest| memchr::memchr2(b'\n', 0, rest));
        let content = found.unwrap_or(bytes.len());
        let crossed = |bound: &Bound| {
            let counted = match found {
                Some(end) if bound.counts_end => end + 1,
                _ => content,
            };
            counted > bound.crossed_at
        };
        // The bound that was crossed first, so that the answer is the same however the input is cut.
        let first = bounds.into_iter().filter(crossed).min_by_key(|bound| bound.crossed_at);
        if let Some(bound) = first {
            return Err(bound.error);
        }
        match found {
            Some(end) if bytes[end] == 0 => Err(StompError::UnexpectedNul),
            found => Ok(found),
        }
    }

    pub(crate) fn nul(&mut self, bytes: &[u8]) -> Option<usize> {
        self.search(bytes, |rest| memchr::memchr(0, rest))
    }

    fn search(&mut self, bytes: &[u8], find: impl FnOnce(&[u8]) -> Option<usize>) -> Option<usize> {
        let from = std::mem::take(&mut self.from);
        let found = find(&bytes[from..]).map(|at| from + at);
        self.note(found.map_or(bytes.len(), |at| at + 1) - from);
        if found.is_none() {
            self.from = bytes.len();
        }
        found
    }

    /// Counts bytes that were looked at.
    pub(crate) fn note(&mut self, examined: usize) {
        if cfg!(test) {
            self.examined += examined;
        }
    }
}

/// A limit as it bears on the line that is being read.
pub(crate) struct Bound {
    /// Index in the line of the first byte too many.
    crossed_at: usize,
    /// Whether the line feed counts too.
    counts_end: bool,
    error: StompError,
}

impl Bound {
    pub(crate) fn on_line(max: usize, error: StompError) -> Self {
        Self { crossed_at: max, counts_end: false, error }
    }

    pub(crate) fn on_block(max: usize, consumed: usize, error: StompError) -> Self {
        Self { crossed_at: max.saturating_sub(consumed), counts_end: true, error }
    }
}

//! Where a stream of bytes is cut into what a socket brings at a time.

/// How one batch of bytes arrives.
#[derive(Clone, Copy, Debug)]
pub enum Cuts {
    Whole,
    /// In pieces of sizes that follow from the number; 0 is byte by byte.
    Seeded(u8),
}

impl Cuts {
    pub fn pieces(self, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        let (mut state, bytewise) = match self {
            Self::Whole => (None, false),
            Self::Seeded(seed) => (Some(u32::from(seed) * 2 + 1), seed == 0),
        };
        let mut rest = bytes;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let size = match &mut state {
                None => rest.len(),
                Some(_) if bytewise => 1,
                Some(state) => {
                    *state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                    // Small pieces and large ones.
                    (*state >> 16) as usize % if *state & 0x8000 == 0 { 9 } else { 200 } + 1
                }
            };
            let (piece, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            Some(piece)
        })
    }
}

//! Long answers, written a piece at a time: whoever carries them does other things in between.

/// A text of any length, from its beginning to its end.
pub trait Pieces: Send {
    /// Writes on until `out` has so many bytes, or a little more. False once nothing is left.
    fn write(&mut self, size: usize, out: &mut String) -> bool;
}

/// What is there already.
impl Pieces for String {
    fn write(&mut self, _size: usize, out: &mut String) -> bool {
        out.push_str(self);
        self.clear();
        false
    }
}

//! The fuzzer's bytes, read from front to back; an exhausted tape reads as zeros.

use arbitrary::Unstructured;

pub struct Tape<'a>(Unstructured<'a>);

pub fn tape(bytes: &[u8]) -> Tape<'_> {
    Tape(Unstructured::new(bytes))
}

impl<'a> Tape<'a> {
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn octet(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn short(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or_default()
    }

    pub fn flag(&mut self) -> bool {
        self.octet() & 1 != 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.octet()) % from.len()]
    }

    /// So many of what is left, or all of it.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let count = count.min(self.0.len());
        self.0.bytes(count).unwrap_or_default()
    }

    /// Damages what was written since `start`, one time out of eight.
    pub fn damage(&mut self, wire: &mut Vec<u8>, start: usize) {
        let octet = self.octet();
        let size = wire.len() - start;
        if octet < 224 || size == 0 {
            return;
        }
        let at = start + usize::from(self.short()) % size;
        match octet % 4 {
            0 => wire[at] ^= self.octet().max(1),
            1 => wire[at] = self.pick(&[0, 1, 0x7F, 0x80, 0xFF, 0xCE, b'\n', b':', b'\\']),
            2 => wire.truncate(at),
            _ => {
                let octets = self.octet() % 16;
                let inserted = self.bytes(octets.into()).to_vec();
                wire.splice(at..at, inserted);
            }
        }
    }
}

//! A raw table: entries still in their bytes, walked without allocation.
//!
//! Knows how far a value reaches and how deep a table may go. What a value means is read by
//! `value`.

use crate::reader::Reader;

/// Tables and arrays inside each other, the outermost counted.
pub const TABLE_DEPTH_MAX: u32 = 32;
/// Entries of one table, with those of all tables and arrays inside it.
pub const TABLE_ENTRIES_MAX: u32 = 1024;

/// Why a field table cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("a field table ends inside an entry")]
    Truncated,
    #[error("unknown field type {0:#04x}")]
    UnknownTag(u8),
    #[error("a field table is nested deeper than {TABLE_DEPTH_MAX} levels")]
    TooDeep,
    #[error("a field table has more than {TABLE_ENTRIES_MAX} entries")]
    TooManyEntries,
}

/// How much nesting and how many entries are left to a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    depth: u32,
    entries: u32,
}

impl Budget {
    pub(crate) const fn new() -> Self {
        Self { depth: TABLE_DEPTH_MAX, entries: TABLE_ENTRIES_MAX }
    }

    /// Runs `walk` one level further down.
    pub(crate) fn nested<T>(
        &mut self,
        walk: impl FnOnce(&mut Self) -> Result<T, ValueError>,
    ) -> Result<T, ValueError> {
        self.depth = self.depth.checked_sub(1).ok_or(ValueError::TooDeep)?;
        let walked = walk(self);
        self.depth += 1;
        walked
    }

    pub(crate) fn entry(&mut self) -> Result<(), ValueError> {
        let left = self.entries.checked_sub(1);
        self.entries = left.ok_or(ValueError::TooManyEntries)?;
        Ok(())
    }
}

/// Takes a tag and the bytes of its value, for counted values without their length.
pub(crate) fn take_value<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8]), ValueError> {
    let tag = reader.u8().ok_or(ValueError::Truncated)?;
    let value = match tag {
        b'V' => reader.take(0),
        b't' | b'b' | b'B' => reader.take(1),
        b's' | b'u' => reader.take(2),
        b'I' | b'i' | b'f' => reader.take(4),
        b'D' => reader.take(5),
        b'l' | b'L' | b'd' | b'T' => reader.take(8),
        b'S' | b'x' | b'F' | b'A' => reader.long(),
        unknown => return Err(ValueError::UnknownTag(unknown)),
    };
    Ok((tag, value.ok_or(ValueError::Truncated)?))
}

/// Checks all that decoding would; a table that passes can be decoded.
pub(crate) fn check_table(body: &[u8]) -> Result<(), ValueError> {
    check_entries(b'F', body, &mut Budget::new())
}

fn check_entries(tag: u8, body: &[u8], budget: &mut Budget) -> Result<(), ValueError> {
    budget.nested(|budget| {
        let mut reader = Reader::new(body);
        while !reader.is_empty() {
            budget.entry()?;
            if tag == b'F' {
                reader.short().ok_or(ValueError::Truncated)?;
            }
            let (tag, value) = take_value(&mut reader)?;
            if matches!(tag, b'F' | b'A') {
                check_entries(tag, value, budget)?;
            }
        }
        Ok(())
    })
}

/// The top-level entries of a raw table body: key, tag and the bytes of the value.
///
/// Values that the wire counts (`S`, `x`, `F`, `A`) come without their length. A malformed entry
/// ends the iteration; bytes that [`decode_content_header`](crate::decode_content_header) accepted
/// have none.
pub fn table_entries(raw_table_body: &[u8]) -> TableEntries<'_> {
    TableEntries { reader: Reader::new(raw_table_body) }
}

/// See [`table_entries`].
#[derive(Clone, Debug)]
pub struct TableEntries<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for TableEntries<'a> {
    type Item = (&'a [u8], u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = std::mem::replace(&mut self.reader, Reader::new(&[]));
        let key = reader.short()?;
        let (tag, value) = take_value(&mut reader).ok()?;
        self.reader = reader;
        Some((key, tag, value))
    }
}

impl std::iter::FusedIterator for TableEntries<'_> {}

/// The values of a raw array body, as [`table_entries`] gives those of a table.
pub fn array_values(raw_array_body: &[u8]) -> ArrayValues<'_> {
    ArrayValues { reader: Reader::new(raw_array_body) }
}

/// See [`array_values`].
#[derive(Clone, Debug)]
pub struct ArrayValues<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for ArrayValues<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = std::mem::replace(&mut self.reader, Reader::new(&[]));
        let taken = take_value(&mut reader).ok()?;
        self.reader = reader;
        Some(taken)
    }
}

impl std::iter::FusedIterator for ArrayValues<'_> {}

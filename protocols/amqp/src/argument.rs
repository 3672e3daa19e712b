//! An argument: one field of a method, as the wire carries it.
//!
//! Consecutive bits share an octet, the first in the lowest place. Only readers and writers that
//! live through a whole method can know that, so both are here.

use bytes::{BufMut, Bytes, BytesMut};

use crate::raw_table::ValueError;
use crate::reader::Reader;
use crate::short_string::{ShortString, put_short};
use crate::value::{FieldTable, decode_table, put_long};

/// Why an argument cannot be read.
pub(crate) enum ArgumentError {
    Truncated,
    BadTable(ValueError),
}

/// Reads the arguments of one method in turn.
pub(crate) struct ArgumentReader<'a> {
    reader: Reader<'a>,
    /// The octet that bits are taken from, and the mask of the next one.
    bits: Option<(u8, u8)>,
}

impl<'a> ArgumentReader<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self { reader: Reader::new(input), bits: None }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    fn aligned(&mut self) -> &mut Reader<'a> {
        self.bits = None;
        &mut self.reader
    }

    fn bit(&mut self) -> Option<bool> {
        let (octet, mask) = match self.bits {
            Some((octet, mask)) if mask != 0 => (octet, mask),
            _ => (self.reader.u8()?, 1),
        };
        self.bits = Some((octet, mask << 1));
        Some(octet & mask != 0)
    }
}

/// Writes the arguments of one method in turn.
pub(crate) struct ArgumentWriter<'a> {
    out: &'a mut BytesMut,
    /// The place of the octet that bits are put into, and the mask of the next one.
    bits: Option<(usize, u8)>,
}

impl<'a> ArgumentWriter<'a> {
    pub(crate) const fn new(out: &'a mut BytesMut) -> Self {
        Self { out, bits: None }
    }

    const fn aligned(&mut self) -> &mut BytesMut {
        self.bits = None;
        self.out
    }

    fn bit(&mut self, set: bool) {
        let (place, mask) = match self.bits {
            Some((place, mask)) if mask != 0 => (place, mask),
            _ => {
                self.out.put_u8(0);
                (self.out.len() - 1, 1)
            }
        };
        if set {
            self.out[place] |= mask;
        }
        self.bits = Some((place, mask << 1));
    }
}

/// A type that a method can carry.
pub(crate) trait Argument: Sized {
    fn read(reader: &mut ArgumentReader<'_>) -> Result<Self, ArgumentError>;
    fn write(&self, writer: &mut ArgumentWriter<'_>);
}

macro_rules! integers {
    ($($integer:ident $put:ident)*) => {$(
        impl Argument for $integer {
            fn read(reader: &mut ArgumentReader<'_>) -> Result<Self, ArgumentError> {
                reader.aligned().$integer().ok_or(ArgumentError::Truncated)
            }

            fn write(&self, writer: &mut ArgumentWriter<'_>) {
                writer.aligned().$put(*self);
            }
        }
    )*};
}

integers! { u8 put_u8 u16 put_u16 u32 put_u32 u64 put_u64 }

impl Argument for bool {
    fn read(reader: &mut ArgumentReader<'_>) -> Result<Self, ArgumentError> {
        reader.bit().ok_or(ArgumentError::Truncated)
    }

    fn write(&self, writer: &mut ArgumentWriter<'_>) {
        writer.bit(*self);
    }
}

impl Argument for ShortString {
    fn read(reader: &mut ArgumentReader<'_>) -> Result<Self, ArgumentError> {
        let bytes = reader.aligned().short().ok_or(ArgumentError::Truncated)?;
        Ok(Self::copy_counted(bytes))
    }

    fn write(&self, writer: &mut ArgumentWriter<'_>) {
        put_short(writer.aligned(), self);
    }
}

impl Argument for Bytes {
    fn read(reader: &mut ArgumentReader<'_>) -> Result<Self, ArgumentError> {
        let bytes = reader.aligned().long().ok_or(ArgumentError::Truncated)?;
        Ok(Self::copy_from_slice(bytes))
    }

    fn write(&self, writer: &mut ArgumentWriter<'_>) {
        put_long(writer.aligned(), self);
    }
}

impl Argument for FieldTable {
    fn read(reader: &mut ArgumentReader<'_>) -> Result<Self, ArgumentError> {
        let body = reader.aligned().long().ok_or(ArgumentError::Truncated)?;
        decode_table(body).map_err(ArgumentError::BadTable)
    }

    fn write(&self, writer: &mut ArgumentWriter<'_>) {
        self.put(writer.aligned());
    }
}

//! A field value and the table of them: arguments, headers and properties.
//!
//! The tags are RabbitMQ's, which differ from those of the specification. Order and duplicate keys
//! are kept, and strings are bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::put_sized;
use crate::raw_table::{Budget, ValueError, take_value};
use crate::reader::Reader;
use crate::short_string::{ShortString, put_short};

/// One value of a table or array.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`; `L` is read as the same.
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: `value` divided by ten to the power of `scale`.
    Decimal { scale: u8, value: u32 },
    /// `S`
    LongString(Bytes),
    /// `T`, in seconds since 1970.
    Timestamp(u64),
    /// `F`
    Table(FieldTable),
    /// `A`
    Array(Vec<Self>),
    /// `x`
    Binary(Bytes),
    /// `V`
    Void,
}

/// Keys and values in the order of the wire; a key may come twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldTable(pub Vec<(ShortString, FieldValue)>);

impl FieldTable {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The first value of `key`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&FieldValue> {
        let key = key.as_ref();
        self.iter().find_map(|(name, value)| (**name == *key).then_some(value))
    }

    pub fn iter(&self) -> std::slice::Iter<'_, (ShortString, FieldValue)> {
        self.0.iter()
    }

    /// Replaces the first value of `key` and returns it, or appends.
    pub fn insert(&mut self, key: ShortString, value: FieldValue) -> Option<FieldValue> {
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.0.push((key, value));
                None
            }
        }
    }

    /// Writes the length and the entries.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        put_sized(out, |out| {
            for (key, value) in self {
                put_short(out, key);
                value.put(out);
            }
        });
    }
}

impl<'a> IntoIterator for &'a FieldTable {
    type Item = &'a (ShortString, FieldValue);
    type IntoIter = std::slice::Iter<'a, (ShortString, FieldValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for FieldTable {
    type Item = (ShortString, FieldValue);
    type IntoIter = std::vec::IntoIter<(ShortString, FieldValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(ShortString, FieldValue)> for FieldTable {
    fn from_iter<I: IntoIterator<Item = (ShortString, FieldValue)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// Reads a table from its body, which is what follows its u32 length.
///
/// Refused beyond [`TABLE_DEPTH_MAX`](crate::TABLE_DEPTH_MAX) levels and
/// [`TABLE_ENTRIES_MAX`](crate::TABLE_ENTRIES_MAX) entries.
pub fn decode_table(payload: &[u8]) -> Result<FieldTable, ValueError> {
    table(payload, &mut Budget::new())
}

fn table(body: &[u8], budget: &mut Budget) -> Result<FieldTable, ValueError> {
    budget.nested(|budget| {
        let mut reader = Reader::new(body);
        let mut entries = Vec::new();
        while !reader.is_empty() {
            budget.entry()?;
            let key = reader.short().ok_or(ValueError::Truncated)?;
            let value = value(&mut reader, budget)?;
            entries.push((ShortString::copy_counted(key), value));
        }
        Ok(FieldTable(entries))
    })
}

fn array(body: &[u8], budget: &mut Budget) -> Result<Vec<FieldValue>, ValueError> {
    budget.nested(|budget| {
        let mut reader = Reader::new(body);
        let mut values = Vec::new();
        while !reader.is_empty() {
            budget.entry()?;
            values.push(value(&mut reader, budget)?);
        }
        Ok(values)
    })
}

fn value(reader: &mut Reader<'_>, budget: &mut Budget) -> Result<FieldValue, ValueError> {
    let (tag, bytes) = take_value(reader)?;
    match tag {
        b'F' => table(bytes, budget).map(FieldValue::Table),
        b'A' => array(bytes, budget).map(FieldValue::Array),
        _ => scalar(tag, &mut Reader::new(bytes)).ok_or(ValueError::UnknownTag(tag)),
    }
}

/// `None` for a tag that is not a scalar; `take_value` has measured the bytes.
fn scalar(tag: u8, reader: &mut Reader<'_>) -> Option<FieldValue> {
    Some(match tag {
        b't' => FieldValue::Bool(reader.u8()? != 0),
        b'b' => FieldValue::I8(reader.u8()? as i8),
        b'B' => FieldValue::U8(reader.u8()?),
        b's' => FieldValue::I16(reader.u16()? as i16),
        b'u' => FieldValue::U16(reader.u16()?),
        b'I' => FieldValue::I32(reader.u32()? as i32),
        b'i' => FieldValue::U32(reader.u32()?),
        b'l' | b'L' => FieldValue::I64(reader.u64()? as i64),
        b'f' => FieldValue::F32(f32::from_bits(reader.u32()?)),
        b'd' => FieldValue::F64(f64::from_bits(reader.u64()?)),
        b'D' => FieldValue::Decimal { scale: reader.u8()?, value: reader.u32()? },
        b'S' => FieldValue::LongString(Bytes::copy_from_slice(reader.rest())),
        b'x' => FieldValue::Binary(Bytes::copy_from_slice(reader.rest())),
        b'T' => FieldValue::Timestamp(reader.u64()?),
        b'V' => FieldValue::Void,
        _ => return None,
    })
}

impl FieldValue {
    /// Writes the tag and the value.
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.tag());
        match self {
            Self::Bool(value) => out.put_u8(u8::from(*value)),
            Self::I8(value) => out.put_i8(*value),
            Self::U8(value) => out.put_u8(*value),
            Self::I16(value) => out.put_i16(*value),
            Self::U16(value) => out.put_u16(*value),
            Self::I32(value) => out.put_i32(*value),
            Self::U32(value) => out.put_u32(*value),
            Self::I64(value) => out.put_i64(*value),
            Self::F32(value) => out.put_u32(value.to_bits()),
            Self::F64(value) => out.put_u64(value.to_bits()),
            Self::Decimal { scale, value } => {
                out.put_u8(*scale);
                out.put_u32(*value);
            }
            Self::LongString(bytes) | Self::Binary(bytes) => put_long(out, bytes),
            Self::Timestamp(seconds) => out.put_u64(*seconds),
            Self::Table(table) => table.put(out),
            Self::Array(values) => put_sized(out, |out| {
                for value in values {
                    value.put(out);
                }
            }),
            Self::Void => {}
        }
    }

    /// The octet that names the type on the wire.
    pub const fn tag(&self) -> u8 {
        match self {
            Self::Bool(_) => b't',
            Self::I8(_) => b'b',
            Self::U8(_) => b'B',
            Self::I16(_) => b's',
            Self::U16(_) => b'u',
            Self::I32(_) => b'I',
            Self::U32(_) => b'i',
            Self::I64(_) => b'l',
            Self::F32(_) => b'f',
            Self::F64(_) => b'd',
            Self::Decimal { .. } => b'D',
            Self::LongString(_) => b'S',
            Self::Timestamp(_) => b'T',
            Self::Table(_) => b'F',
            Self::Array(_) => b'A',
            Self::Binary(_) => b'x',
            Self::Void => b'V',
        }
    }
}

/// Writes a u32 length and the bytes; what is past 4 GiB is cut off.
pub(crate) fn put_long(out: &mut BytesMut, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.put_u32(length);
    out.extend_from_slice(&bytes[..length as usize]);
}

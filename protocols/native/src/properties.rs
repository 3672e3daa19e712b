//! A message's properties: looked through once, for what the server itself needs, without a copy.
//!
//! ```text
//! flags u16, then each present field in this order:
//!   0 content_type   1 content_encoding   2 correlation_id   3 reply_to   4 expiration
//!   5 message_id     6 type               7 user_id          8 app_id     9 cluster_id   (texts)
//!   10 headers (table)   11 delivery_mode u8   12 priority u8   13 timestamp u64
//! text   u32 length, bytes
//! table  u32 count, (text name, value)*
//! value  tag u8, then its bytes
//! ```

use crate::reader::{Malformed, Reader};

/// Tables and lists inside each other, at most.
pub const DEPTH_MAX: usize = 32;

const HEADERS: u16 = 1 << 10;
const DELIVERY_MODE: u16 = 1 << 11;
const PRIORITY: u16 = 1 << 12;
const TIMESTAMP: u16 = 1 << 13;
const KNOWN: u16 = (1 << 14) - 1;

/// What a server looks at in the properties of a pushed message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PropertiesRef<'a> {
    pub expiration: Option<&'a [u8]>,
    pub user_id: Option<&'a [u8]>,
    /// 1 for a message that need not survive the broker.
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
}

impl<'a> PropertiesRef<'a> {
    /// Checks every byte. Empty input is properties without a field.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::parse_with(bytes, |_| ())
    }

    /// As `parse`, and tells the name of each header.
    #[inline]
    pub fn parse_with(
        bytes: &'a [u8],
        mut header: impl FnMut(&'a [u8]),
    ) -> Result<Self, Malformed> {
        if bytes.is_empty() || bytes == [0, 0] {
            return Ok(Self::default());
        }
        Self::parse_fields(bytes, &mut header).map_err(|_| Malformed::Properties)
    }

    fn parse_fields(bytes: &'a [u8], header: &mut impl FnMut(&'a [u8])) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u16()?;
        if flags & !KNOWN != 0 {
            return Err(Malformed::Properties);
        }
        let mut found = Self::default();
        for field in 0..10 {
            if flags & (1 << field) == 0 {
                continue;
            }
            let text = reader.long()?;
            match field {
                4 => found.expiration = Some(text),
                7 => found.user_id = Some(text),
                _ => {}
            }
        }
        if flags & HEADERS != 0 {
            for _ in 0..reader.u32()? {
                header(reader.long()?);
                skip_value(&mut reader, 1)?;
            }
        }
        if flags & DELIVERY_MODE != 0 {
            found.delivery_mode = Some(reader.u8()?);
        }
        if flags & PRIORITY != 0 {
            found.priority = Some(reader.u8()?);
        }
        if flags & TIMESTAMP != 0 {
            reader.u64()?;
        }
        reader.end()?;
        Ok(found)
    }
}

/// Whether the bytes are one table and nothing else.
pub fn is_table(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    skip_table(&mut reader, 0).is_ok() && reader.end().is_ok()
}

fn skip_table(reader: &mut Reader<'_>, depth: usize) -> Result<(), Malformed> {
    let count = reader.u32()?;
    // Each entry takes at least five bytes, so a count that lies runs out of bytes soon.
    for _ in 0..count {
        reader.long()?;
        skip_value(reader, depth + 1)?;
    }
    Ok(())
}

fn skip_value(reader: &mut Reader<'_>, depth: usize) -> Result<(), Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed::Table);
    }
    let size = match reader.u8()? {
        0..=2 => 1,
        3 | 4 => 2,
        5 | 6 | 8 => 4,
        7 | 9 | 12 => 8,
        10 => 5,
        11 | 15 => return reader.long().map(drop),
        13 => return skip_table(reader, depth),
        14 => {
            for _ in 0..reader.u32()? {
                skip_value(reader, depth + 1)?;
            }
            return Ok(());
        }
        16 => 0,
        _ => return Err(Malformed::Table),
    };
    reader.take(size).map(drop)
}

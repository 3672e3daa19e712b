//! A mailbox that moves to another host, as it is declared where it comes from.

use bytes::{BufMut, BytesMut};

use super::wish::named;
use crate::reader::{Malformed, Reader, items};
use crate::writer::{put_table, put_text};

/// Two texts and two sizes.
const BINDING_SIZE_MIN: usize = 2 + 2 + 4 + 4;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TakeOverRef<'a> {
    pub mailbox: &'a str,
    pub epoch: u64,
    pub durable: bool,
    pub auto_delete: bool,
    pub arguments: &'a [u8],
    pub bindings: MovedBindings<'a>,
}

/// Bindings as they are on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MovedBindings<'a> {
    count: u32,
    bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MovedBindingRef<'a> {
    pub exchange: &'a str,
    /// Of the exchange.
    pub kind: &'a str,
    pub key: &'a [u8],
    pub arguments: &'a [u8],
}

impl<'a> TakeOverRef<'a> {
    pub(super) fn read(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (mailbox, epoch, marks) = (r.text()?, r.u64()?, r.u8()?);
        let arguments = r.table()?;
        let count = r.u32()?;
        let before = r.rest();
        if count as usize > before.len() / BINDING_SIZE_MIN {
            return Err(Malformed::Short);
        }
        for _ in 0..count {
            read_binding(r)?;
        }
        let bytes = &before[..before.len() - r.rest().len()];
        let bindings = MovedBindings { count, bytes };
        let (durable, auto_delete) = (marks & 1 != 0, marks & 2 != 0);
        Ok(Self { mailbox, epoch, durable, auto_delete, arguments, bindings })
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        named(16, self.mailbox, out);
        out.put_u64_le(self.epoch);
        out.put_u8(u8::from(self.durable) | u8::from(self.auto_delete) << 1);
        put_table(self.arguments, out);
        out.put_u32_le(self.bindings.count);
        out.put_slice(self.bindings.bytes);
    }
}

impl<'a> MovedBindings<'a> {
    /// Written into the buffer, from which they are then borrowed.
    pub fn write<'b>(
        bindings: impl Iterator<Item = MovedBindingRef<'b>>,
        buffer: &'a mut BytesMut,
    ) -> Self {
        let mut count = 0;
        for it in bindings {
            count += 1;
            put_text(it.exchange, buffer);
            put_text(it.kind, buffer);
            put_table(it.key, buffer);
            put_table(it.arguments, buffer);
        }
        Self { count, bytes: buffer }
    }

    pub fn iter(&self) -> impl Iterator<Item = MovedBindingRef<'a>> + use<'a> {
        // They were read whole before.
        items(self.bytes, self.count, read_binding).filter_map(Result::ok)
    }
}

fn read_binding<'a>(r: &mut Reader<'a>) -> Result<MovedBindingRef<'a>, Malformed> {
    Ok(MovedBindingRef {
        exchange: r.text()?,
        kind: r.text()?,
        key: r.long()?,
        arguments: r.table()?,
    })
}

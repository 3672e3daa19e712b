//! The properties of a message: a word of flags and a value for each one set.
//!
//! One table gives the borrowed and the owned form. A broker keeps the raw bytes and looks into
//! them with [`PropertiesRef`]; [`Properties`] is for those that change or make a list.

use bytes::{BufMut, BytesMut};

use crate::raw_table::{ValueError, check_table};
use crate::reader::Reader;
use crate::short_string::{ShortString, put_short};
use crate::value::{FieldTable, decode_table};

/// Why a content header or its property list cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("a content header ends inside its properties")]
    Truncated,
    #[error("a content header has bytes after its properties")]
    Trailing,
    /// Class basic defines fourteen flags; the lowest bit would announce a second word of them.
    #[error("unknown property flags {0:#06x}")]
    UnknownFlags(u16),
    #[error("message headers: {0}")]
    BadTable(#[from] ValueError),
}

const KNOWN_FLAGS: u16 = 0xFFFC;

macro_rules! borrowed {
    (shortstr) => { &'a [u8] };
    (table) => { &'a [u8] };
    (octet) => { u8 };
    (timestamp) => { u64 };
}

macro_rules! owned {
    (shortstr) => {
        ShortString
    };
    (table) => {
        FieldTable
    };
    (octet) => {
        u8
    };
    (timestamp) => {
        u64
    };
}

macro_rules! take {
    (shortstr $reader:ident) => {
        $reader.short()
    };
    (table $reader:ident) => {
        $reader.long()
    };
    (octet $reader:ident) => {
        $reader.u8()
    };
    (timestamp $reader:ident) => {
        $reader.u64()
    };
}

macro_rules! own {
    (shortstr $value:ident) => {
        ShortString::copy_counted($value)
    };
    (table $value:ident) => {
        decode_table($value)?
    };
    (octet $value:ident) => {
        $value
    };
    (timestamp $value:ident) => {
        $value
    };
}

macro_rules! put {
    (shortstr $value:ident $out:ident) => {
        put_short($out, $value)
    };
    (table $value:ident $out:ident) => {
        $value.put($out)
    };
    (octet $value:ident $out:ident) => {
        $out.put_u8(*$value)
    };
    (timestamp $value:ident $out:ident) => {
        $out.put_u64(*$value)
    };
}

macro_rules! properties {
    ($($(#[$doc:meta])* $bit:literal $name:ident: $kind:ident)*) => {
        /// A property list in place; `headers` is the body of the table, without its length.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct PropertiesRef<'a> {
            $($(#[$doc])* pub $name: Option<borrowed!($kind)>,)*
        }

        impl<'a> PropertiesRef<'a> {
            /// Finds every property. What is inside the headers is not looked at.
            pub fn parse(raw: &'a [u8]) -> Result<Self, ContentError> {
                let mut reader = Reader::new(raw);
                let flags = reader.u16().ok_or(ContentError::Truncated)?;
                if flags & !KNOWN_FLAGS != 0 {
                    return Err(ContentError::UnknownFlags(flags));
                }
                let mut found = Self::default();
                $(if flags & (1 << $bit) != 0 {
                    let value = take!($kind reader).ok_or(ContentError::Truncated)?;
                    found.$name = Some(value);
                })*
                if reader.is_empty() {
                    Ok(found)
                } else {
                    Err(ContentError::Trailing)
                }
            }
        }

        /// A property list of its own.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Properties {
            $($(#[$doc])* pub $name: Option<owned!($kind)>,)*
        }

        impl Properties {
            pub fn decode(raw: &[u8]) -> Result<Self, ContentError> {
                let found = PropertiesRef::parse(raw)?;
                Ok(Self {
                    $($name: match found.$name {
                        Some(value) => Some(own!($kind value)),
                        None => None,
                    },)*
                })
            }

            /// Writes the flags and the values.
            pub fn encode(&self, out: &mut BytesMut) {
                let mut flags = 0;
                $(flags |= u16::from(self.$name.is_some()) << $bit;)*
                out.put_u16(flags);
                $(if let Some(value) = &self.$name {
                    put!($kind value out);
                })*
            }
        }
    };
}

properties! {
    15 content_type: shortstr
    14 content_encoding: shortstr
    13 headers: table
    /// 2 is persistent.
    12 delivery_mode: octet
    11 priority: octet
    10 correlation_id: shortstr
    9 reply_to: shortstr
    8 expiration: shortstr
    7 message_id: shortstr
    /// In seconds since 1970.
    6 timestamp: timestamp
    /// The property named "type".
    5 kind: shortstr
    4 user_id: shortstr
    3 app_id: shortstr
    2 cluster_id: shortstr
}

/// Checks all that [`Properties::decode`] would.
pub(crate) fn check_properties(raw: &[u8]) -> Result<(), ContentError> {
    if let Some(headers) = PropertiesRef::parse(raw)?.headers {
        check_table(headers)?;
    }
    Ok(())
}

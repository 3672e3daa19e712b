//! A short string: up to 255 bytes, in any encoding.
//!
//! Names, routing keys and reply texts travel in it. The length is kept here, so that writing one
//! cannot fail.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};

/// At most 255 bytes, shared when cloned.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortString(Bytes);

/// More than 255 bytes do not fit a short string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes do not fit a short string of at most 255")]
pub struct TooLong(pub usize);

impl ShortString {
    pub const LEN_MAX: usize = 255;

    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// A constant; what is past 255 bytes is cut off.
    pub const fn from_static(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        match bytes.split_at_checked(Self::LEN_MAX) {
            Some((kept, _)) => Self(Bytes::from_static(kept)),
            None => Self(Bytes::from_static(bytes)),
        }
    }

    /// The first 255 bytes of `text`, ending between two characters.
    pub fn truncated(text: &str) -> Self {
        let end = text.floor_char_boundary(Self::LEN_MAX);
        Self(Bytes::copy_from_slice(&text.as_bytes()[..end]))
    }

    /// The text, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        str::from_utf8(&self.0).ok()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// `bytes` came off the wire behind a u8 length.
    pub(crate) fn copy_counted(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(cut(bytes)))
    }
}

/// What of `bytes` fits a short string.
#[inline]
pub(crate) fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(ShortString::LEN_MAX)]
}

/// Writes the length and the bytes; what is past 255 is cut off.
#[inline]
pub(crate) fn put_short(out: &mut BytesMut, bytes: &[u8]) {
    let bytes = cut(bytes);
    out.put_u8(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

impl TryFrom<Bytes> for ShortString {
    type Error = TooLong;

    fn try_from(bytes: Bytes) -> Result<Self, TooLong> {
        match bytes.len() {
            0..=Self::LEN_MAX => Ok(Self(bytes)),
            longer => Err(TooLong(longer)),
        }
    }
}

impl TryFrom<&[u8]> for ShortString {
    type Error = TooLong;

    fn try_from(bytes: &[u8]) -> Result<Self, TooLong> {
        match bytes.len() {
            0..=Self::LEN_MAX => Ok(Self(Bytes::copy_from_slice(bytes))),
            longer => Err(TooLong(longer)),
        }
    }
}

impl TryFrom<&str> for ShortString {
    type Error = TooLong;

    fn try_from(text: &str) -> Result<Self, TooLong> {
        Self::try_from(text.as_bytes())
    }
}

impl TryFrom<String> for ShortString {
    type Error = TooLong;

    fn try_from(text: String) -> Result<Self, TooLong> {
        Self::try_from(Bytes::from(text))
    }
}

impl Deref for ShortString {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for ShortString {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for ShortString {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq<[u8]> for ShortString {
    fn eq(&self, other: &[u8]) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<str> for ShortString {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other.as_bytes()
    }
}

impl PartialEq<&str> for ShortString {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Debug for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

//! A reader: takes fixed and counted pieces off the front of a payload.

/// What a payload may not be. The connection cannot be trusted after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a frame ends before its contents do")]
    Short,
    #[error("a frame has {0} bytes behind its contents")]
    Long(usize),
    #[error("a name is not UTF-8 text without control characters")]
    Name,
    #[error("properties cannot be read")]
    Properties,
    #[error("a table cannot be read")]
    Table,
    #[error("unknown {what} {value}")]
    Unknown { what: &'static str, value: u32 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// So many items of one payload, which end it; an error is the last item.
pub(crate) fn items<'a, T>(
    payload: &'a [u8],
    count: u32,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> impl Iterator<Item = Result<T, Malformed>> {
    let mut reader = Reader::new(payload);
    let mut left = count;
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        if left == 0 {
            ended = true;
            return reader.end().err().map(Err);
        }
        left -= 1;
        let item = read(&mut reader);
        ended = item.is_err();
        Some(item)
    })
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may be left over.
    pub(crate) const fn end(&self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(Malformed::Long(left)),
        }
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// What a u32 counts. The count is compared with what is there before anything else.
    #[inline]
    pub(crate) fn long(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.u32()?;
        self.take(usize::try_from(count).map_err(|_| Malformed::Short)?)
    }

    /// What a u8 counts.
    #[inline]
    pub(crate) fn short(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.u8()?;
        self.take(usize::from(count))
    }

    /// A short that is text without control characters, as names are.
    pub(crate) fn name(&mut self) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.short()?).map_err(|_| Malformed::Name)?;
        match text.chars().any(char::is_control) {
            true => Err(Malformed::Name),
            false => Ok(text),
        }
    }

    /// Text for people: what is not UTF-8 is no text.
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let count = self.u16()?;
        std::str::from_utf8(self.take(usize::from(count))?).map_err(|_| Malformed::Name)
    }

    /// A table's bytes, looked through once; empty for a table without entries.
    pub(crate) fn table(&mut self) -> Result<&'a [u8], Malformed> {
        let bytes = self.long()?;
        match bytes.is_empty() || crate::properties::is_table(bytes) {
            true => Ok(bytes),
            false => Err(Malformed::Table),
        }
    }
}

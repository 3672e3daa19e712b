//! Headers: names and values in the order in which they came.

use std::fmt;
use std::ops::Range;

use crate::StompError;
use crate::escape::unescape;

const CONTENT_LENGTH: &str = "content-length";

/// The headers of a frame, without escapes. Of a repeated name only the first is kept.
#[derive(Clone, Default)]
pub struct Headers {
    /// All names and values, so that a frame takes two allocations and not two for each header.
    text: String,
    entries: Vec<Entry>,
}

/// Where in `text` a header stands. Always on boundaries of characters.
#[derive(Clone)]
struct Entry {
    name: Range<usize>,
    value: Range<usize>,
}

impl Headers {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(found, value)| (found == name).then_some(value))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|entry| (&self.text[entry.name.clone()], self.value(entry)))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn value(&self, entry: &Entry) -> &str {
        &self.text[entry.value.clone()]
    }

    /// Adds a header line as it came, without its end of line.
    pub(crate) fn push_line(&mut self, line: &[u8], escapes: bool) -> Result<(), StompError> {
        let line = str::from_utf8(line).map_err(|_| StompError::HeaderNotUtf8)?;
        if memchr::memchr(b'\r', line.as_bytes()).is_some() {
            return Err(StompError::BareCarriageReturn);
        }
        let colon = memchr::memchr(b':', line.as_bytes()).ok_or(StompError::HeaderWithoutColon)?;
        if colon == 0 {
            return Err(StompError::EmptyHeaderName);
        }
        let start = self.text.len();
        let name = self.push_text(&line[..colon], escapes)?;
        let value = self.push_text(&line[colon + 1..], escapes)?;
        self.keep(start, Entry { name, value });
        Ok(())
    }

    fn push_text(&mut self, text: &str, escapes: bool) -> Result<Range<usize>, StompError> {
        let start = self.text.len();
        if escapes {
            unescape(text, &mut self.text)?;
        } else {
            self.text.push_str(text);
        }
        Ok(start..self.text.len())
    }

    /// Keeps the entry whose text begins at `start` and ends the text, unless its name was there before.
    fn keep(&mut self, start: usize, entry: Entry) {
        let name = &self.text[entry.name.clone()];
        // Whether a second content-length is a contradiction is only known once the version is.
        if name != CONTENT_LENGTH && self.get(name).is_some() {
            self.text.truncate(start);
        } else {
            self.entries.push(entry);
        }
    }

    /// Takes the blanks from the front of every value, as 1.0 wants it.
    pub(crate) fn trim_values(&mut self) {
        for entry in &mut self.entries {
            let value = &self.text[entry.value.clone()];
            entry.value.start += value.len() - value.trim_start_matches([' ', '\t']).len();
        }
    }

    /// The length of the body, when it is declared. Leaves one `content-length` of several equal ones.
    pub(crate) fn settle_content_length(&mut self) -> Result<Option<u64>, StompError> {
        let mut length = None;
        for (name, value) in self.iter() {
            if name != CONTENT_LENGTH {
                continue;
            }
            let repeat = parse_content_length(value)?;
            if *length.get_or_insert(repeat) != repeat {
                return Err(StompError::ConflictingContentLength);
            }
        }
        if length.is_some() {
            let Self { text, entries } = self;
            let mut seen = false;
            entries.retain(|entry| {
                &text[entry.name.clone()] != CONTENT_LENGTH || !std::mem::replace(&mut seen, true)
            });
        }
        Ok(length)
    }
}

/// Digits and nothing else: no sign, no blank.
fn parse_content_length(value: &str) -> Result<u64, StompError> {
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(StompError::InvalidContentLength);
    }
    value.parse().map_err(|_| StompError::InvalidContentLength)
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in pairs {
            if headers.get(name.as_ref()).is_some() {
                continue;
            }
            let start = headers.text.len();
            headers.text.push_str(name.as_ref());
            let middle = headers.text.len();
            headers.text.push_str(value.as_ref());
            headers.entries.push(Entry { name: start..middle, value: middle..headers.text.len() });
        }
        headers
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Frames end up in logs, passwords must not.
        let shown = self.iter().map(|(name, value)| match name {
            "passcode" => (name, "…"),
            _ => (name, value),
        });
        f.debug_map().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passcode_is_not_shown() {
        let headers = Headers::from_iter([("login", "ada"), ("passcode", "secret")]);
        assert_eq!(format!("{headers:?}"), r#"{"login": "ada", "passcode": "…"}"#);
    }

    #[test]
    fn first_of_a_repeated_name_is_kept() {
        let headers = Headers::from_iter([("a", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!(headers.get("a"), Some("1"));
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(headers.len(), 2);
        assert!(!headers.is_empty());
        assert_eq!(headers.get("A"), None);
    }
}

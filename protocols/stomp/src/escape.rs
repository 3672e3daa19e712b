//! The escapes of header names and values: `\n`, `\r`, `\c` and `\\`.

use bytes::{BufMut, BytesMut};

use crate::StompError;

/// Appends `text` to `out` with its escapes decoded.
pub(crate) fn unescape(mut text: &str, out: &mut String) -> Result<(), StompError> {
    while let Some(at) = memchr::memchr(b'\\', text.as_bytes()) {
        out.push_str(&text[..at]);
        out.push(match text.as_bytes().get(at + 1) {
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b'c') => ':',
            Some(b'\\') => '\\',
            _ => return Err(StompError::UndefinedEscape),
        });
        text = &text[at + 2..];
    }
    out.push_str(text);
    Ok(())
}

/// Appends `text` to `out` with escapes for what would end the name, the value or the line.
pub(crate) fn escape(text: &str, out: &mut BytesMut) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escaped = match byte {
            b'\n' => b"\\n",
            // 1.1 does not list this one, but a bare CR before the LF would be lost, and RabbitMQ
            // writes it in every version.
            b'\r' => b"\\r",
            b':' => b"\\c",
            b'\\' => b"\\\\",
            _ => continue,
        };
        out.put_slice(&bytes[copied..at]);
        out.put_slice(escaped);
        copied = at + 1;
    }
    out.put_slice(&bytes[copied..]);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", "")]
    #[case("plain", "plain")]
    #[case("a:b", "a\\cb")]
    #[case("\n\r:\\", "\\n\\r\\c\\\\")]
    #[case("\\n", "\\\\n")]
    #[case("grün:ö", "grün\\cö")]
    fn escapes_and_back(#[case] plain: &str, #[case] escaped: &str) {
        let mut written = BytesMut::new();
        escape(plain, &mut written);
        assert_eq!(written, escaped.as_bytes());

        let mut read = String::new();
        unescape(escaped, &mut read).unwrap();
        assert_eq!(read, plain);
    }

    #[rstest]
    #[case("\\t")]
    #[case("\\")]
    #[case("a\\")]
    #[case("\\\\\\")]
    #[case("\\ö")]
    #[case("\\N")]
    fn undefined_escape_is_refused(#[case] text: &str) {
        assert_eq!(unescape(text, &mut String::new()), Err(StompError::UndefinedEscape));
    }
}

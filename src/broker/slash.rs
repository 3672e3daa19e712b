//! The slash dialect of topics: `/` between levels, `+` for one, `#` for one or more at the end.
//!
//! It is written into the dots of topic exchanges, so that both dialects meet: `a/b` is `a.b`.
//!
//! ```text
//! a/+/c -> a.*.c      a/# -> a.*.#      v1.2/x -> v1%2E2.x
//! ```

use super::name::Name;

/// Why a topic or a pattern is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlashError {
    #[error("the topic '{0}' is too long: its key would have more than 255 bytes")]
    TooLong(String),
    #[error("in the pattern '{0}' a '#' stands before the end: it means all levels from there on")]
    NotLast(String),
}

/// The routing key of a topic.
pub fn key(topic: &str) -> Result<String, SlashError> {
    let mut key = String::new();
    for (index, level) in topic.split('/').enumerate() {
        if index > 0 {
            key.push('.');
        }
        escape(level, &mut key);
    }
    fits(key, topic)
}

/// The binding key of a pattern.
pub fn pattern(pattern: &str) -> Result<String, SlashError> {
    let mut key = String::new();
    let mut levels = pattern.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "+" => key.push('*'),
            "#" if levels.peek().is_some() => return Err(SlashError::NotLast(pattern.into())),
            // The dots' own `#` would match the level above too.
            "#" => key.push_str("*.#"),
            literal => escape(literal, &mut key),
        }
        if levels.peek().is_some() {
            key.push('.');
        }
    }
    fits(key, pattern)
}

/// The topic of a routing key, as its publisher wrote it.
pub fn topic(key: &str) -> String {
    let mut topic = String::with_capacity(key.len());
    let mut rest = key;
    while let Some(next) = rest.chars().next() {
        let escaped = ESCAPES.iter().find(|(_, escape)| rest.starts_with(escape));
        let (char, size) = match escaped {
            Some((char, escape)) => (*char, escape.len()),
            None if next == '.' => ('/', 1),
            None => (next, next.len_utf8()),
        };
        topic.push(char);
        rest = &rest[size..];
    }
    topic
}

/// What means something in keys and patterns.
const ESCAPES: [(char, &str); 4] = [('%', "%25"), ('.', "%2E"), ('*', "%2A"), ('#', "%23")];

fn escape(level: &str, key: &mut String) {
    for char in level.chars() {
        match ESCAPES.iter().find(|(escaped, _)| *escaped == char) {
            Some((_, escape)) => key.push_str(escape),
            None => key.push(char),
        }
    }
}

fn fits(key: String, text: &str) -> Result<String, SlashError> {
    if key.len() > Name::SIZE_MAX { Err(SlashError::TooLong(text.into())) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a/b/c", "a.b.c")]
    #[case("v1.2/100%", "v1%2E2.100%25")]
    #[case("/a//", ".a..")]
    #[case("*/#", "%2A.%23")]
    fn topics_become_keys_and_come_back(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(key(text).as_deref(), Ok(expected));
        assert_eq!(topic(expected), text);
    }

    #[rstest]
    #[case("a/+/c", Ok("a.*.c"))]
    #[case("a/#", Ok("a.*.#"))]
    #[case("#", Ok("*.#"))]
    #[case("a+/b", Ok("a+.b"))]
    #[case("a/#/b", Err(SlashError::NotLast("a/#/b".into())))]
    fn patterns_become_binding_keys(
        #[case] text: &str,
        #[case] expected: Result<&str, SlashError>,
    ) {
        assert_eq!(pattern(text).as_deref(), expected.as_ref().copied());
    }

    #[test]
    fn a_key_that_no_exchange_could_hold_is_refused() {
        assert!(key(&"x".repeat(255)).is_ok());
        assert!(key(&"x".repeat(256)).is_err());
        assert!(key(&".".repeat(100)).is_err());
    }
}

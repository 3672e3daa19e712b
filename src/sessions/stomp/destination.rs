//! Destinations: what `/queue/a`, `/topic/b` and their kind stand for.

use std::fmt::{self, Write};

use super::error::Fault;
use crate::broker::{Message, Name};

const KINDS: &str = "/temp-queue, /exchange, /topic, /queue, /amq/queue, /reply-queue";

/// Ids of the subscriptions that the session makes for temporary queues.
pub(super) const TEMP_QUEUE: &str = "/temp-queue/";

/// A destination as the client wrote it, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// A queue that the session declares.
    Queue(Name),
    /// A queue that is there already.
    AmqQueue(Name),
    /// A key of the topic exchange.
    Topic(String),
    Exchange {
        name: Name,
        key: Option<String>,
    },
    TempQueue(String),
    ReplyQueue(Name),
}

impl Destination {
    /// Artemis knows one kind of name, and a header beside it that says what it is: a queue, unless that is `MULTICAST`.
    pub(super) fn hinted(text: &str, hint: Option<&str>) -> Result<Self, Fault> {
        match (Self::parse(text)?, hint) {
            (Self::Queue(name), Some("MULTICAST")) if !text.starts_with('/') => {
                Ok(Self::Topic(name.to_string()))
            }
            (destination, _) => Ok(destination),
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let unknown = || {
            let detail = format!(
                "'{text}' is not a valid destination.\nValid destination types are: {KINDS}."
            );
            Fault::new("Unknown destination", detail)
        };
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(unknown());
        }
        let Some(path) = text.strip_prefix('/') else {
            // A bare word is a queue.
            return match text.contains('/') || text.is_empty() {
                true => Err(unknown()),
                false => Ok(Self::Queue(name(text, "queue")?)),
            };
        };
        let (kind, rest) = path.split_once('/').unwrap_or((path, ""));
        let invalid = |kind: &str, rest: &str| {
            Fault::new(
                "Invalid destination",
                format!("'/{rest}' is not a valid {kind} destination"),
            )
        };
        let single = |kind: &str, rest: &str| match rest {
            "" => Err(invalid(kind, rest)),
            rest if rest.contains('/') => Err(invalid(kind, rest)),
            rest => Ok(unescape(rest)),
        };
        Ok(match kind {
            "queue" => Self::Queue(name(&single(kind, rest)?, kind)?),
            "topic" => Self::Topic(key(single(kind, rest)?, kind)?),
            "temp-queue" => Self::TempQueue(single(kind, rest)?),
            "exchange" => {
                let (exchange, pattern) = match rest.split_once('/') {
                    Some((exchange, pattern)) => (exchange, Some(pattern)),
                    None => (rest, None),
                };
                if exchange.is_empty() || pattern.is_some_and(|it| it.contains('/')) {
                    return Err(invalid(kind, rest));
                }
                Self::Exchange {
                    name: name(&unescape(exchange), kind)?,
                    key: pattern.map(|it| key(unescape(it), kind)).transpose()?,
                }
            }
            "amq" => match rest.strip_prefix("queue/") {
                Some(rest) => Self::AmqQueue(name(&single("amqqueue", rest)?, "amqqueue")?),
                None => return Err(unknown()),
            },
            // The rest is a name as the broker gave it, taken as it is.
            "reply-queue" if !rest.is_empty() => Self::ReplyQueue(name(rest, kind)?),
            _ => return Err(unknown()),
        })
    }
}

fn name(text: &str, kind: &str) -> Result<Name, Fault> {
    key(text.to_owned(), kind).map(Name::from)
}

fn key(text: String, kind: &str) -> Result<String, Fault> {
    if text.len() > Name::SIZE_MAX {
        let detail = format!("a {kind} name is longer than {} bytes", Name::SIZE_MAX);
        return Err(Fault::new("Invalid destination", detail));
    }
    Ok(text)
}

/// Only the slash has an escape, and only in upper case, as RabbitMQ has it.
fn unescape(text: &str) -> String {
    text.replace("%2F", "/")
}

/// Whether answers sent to this address find a destination of ours.
pub(super) fn has_known_prefix(address: &str) -> bool {
    ["/temp-queue/", "/exchange/", "/topic/", "/queue/", "/amq/queue/", "/reply-queue/"]
        .iter()
        .any(|prefix| address.starts_with(prefix))
}

/// The destination that a message was sent to, as MESSAGE has it.
pub(super) struct DestinationOf<'a> {
    pub(super) message: &'a Message,
    pub(super) topic_exchange: &'a str,
}

impl fmt::Display for DestinationOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exchange: &str = self.message.exchange();
        let key = String::from_utf8_lossy(self.message.key());
        if exchange.is_empty() {
            f.write_str("/queue/")?;
        } else if exchange == self.topic_exchange {
            f.write_str("/topic/")?;
        } else {
            f.write_str("/exchange/")?;
            escape(exchange, f)?;
            if key.is_empty() {
                return Ok(());
            }
            f.write_char('/')?;
        }
        escape(&key, f)
    }
}

fn escape(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut parts = text.split('/');
    f.write_str(parts.next().unwrap_or_default())?;
    parts.try_for_each(|part| write!(f, "%2F{part}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::broker::{NEUTRAL, Properties, Source, Time};

    fn queue(text: &str) -> Destination {
        Destination::Queue(text.into())
    }

    fn exchange(name: &str, key: Option<&str>) -> Destination {
        Destination::Exchange { name: name.into(), key: key.map(str::to_owned) }
    }

    #[rstest]
    #[case("/queue/a", queue("a"))]
    #[case("a.b", queue("a.b"))]
    #[case("/queue/a%2Fb%2fc%20", queue("a/b%2fc%20"))]
    #[case("/queue/a,b", queue("a,b"))]
    #[case("/amq/queue/a", Destination::AmqQueue("a".into()))]
    #[case("/topic/a.*.#", Destination::Topic("a.*.#".into()))]
    #[case("/exchange/x", exchange("x", None))]
    #[case("/exchange/x/", exchange("x", Some("")))]
    #[case("/exchange/x/a%2Fb", exchange("x", Some("a/b")))]
    #[case("/temp-queue/t", Destination::TempQueue("t".into()))]
    #[case("/reply-queue/amq.gen/%2F", Destination::ReplyQueue("amq.gen/%2F".into()))]
    fn destination_is_taken_apart(#[case] text: &str, #[case] expected: Destination) {
        assert_eq!(Destination::parse(text), Ok(expected));
    }

    #[rstest]
    #[case("a.b", Some("MULTICAST"), Destination::Topic("a.b".into()))]
    #[case("a.b", Some("ANYCAST"), queue("a.b"))]
    #[case("/queue/a.b", Some("MULTICAST"), queue("a.b"))]
    fn hint_says_what_a_bare_name_is(
        #[case] text: &str,
        #[case] hint: Option<&str>,
        #[case] expected: Destination,
    ) {
        assert_eq!(Destination::hinted(text, hint), Ok(expected));
    }

    #[rstest]
    #[case("", "Unknown destination")]
    #[case("/", "Unknown destination")]
    #[case("../x", "Unknown destination")]
    #[case("/foo/x", "Unknown destination")]
    #[case("/amq/topic/x", "Unknown destination")]
    #[case("/reply-queue/", "Unknown destination")]
    #[case("/queue/a\nb", "Unknown destination")]
    #[case("/queue", "Invalid destination")]
    #[case("/queue/", "Invalid destination")]
    #[case("/queue/a/b", "Invalid destination")]
    #[case("/queue/a,/queue/b", "Invalid destination")]
    #[case("/topic/a/b", "Invalid destination")]
    #[case("/exchange//k", "Invalid destination")]
    #[case("/exchange/x/k/l", "Invalid destination")]
    fn anything_else_is_refused(#[case] text: &str, #[case] message: &str) {
        assert_eq!(Destination::parse(text).map_err(|fault| fault.message), Err(message));
    }

    #[test]
    fn names_are_at_most_255_bytes() {
        assert!(Destination::parse(&format!("/queue/{}", "a".repeat(255))).is_ok());
        assert!(Destination::parse(&format!("/queue/{}", "a".repeat(256))).is_err());
    }

    #[rstest]
    #[case("", "a/b", "/queue/a%2Fb")]
    #[case("amq.topic", "a.b", "/topic/a.b")]
    #[case("x/y", "k", "/exchange/x%2Fy/k")]
    #[case("x", "", "/exchange/x")]
    fn message_names_its_destination(
        #[case] exchange: &str,
        #[case] key: &str,
        #[case] expected: &str,
    ) {
        let message = Message::build(&Source {
            exchange: &exchange.into(),
            key: key.as_bytes(),
            properties: &Properties::default(),
            body: b"",
            form: &NEUTRAL,
            persistent: false,
            accepted: Time(0),
        });
        let shown = DestinationOf { message: &message, topic_exchange: "amq.topic" };
        assert_eq!(shown.to_string(), expected);
    }
}

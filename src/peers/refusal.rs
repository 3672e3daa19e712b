//! Refusals on the wire: which one it is, and what it names, so that the client of another host hears what one of this
//! host would.

use pillarbox_native::NoRef;

use crate::broker::{ChannelId, Kind, Name, Refusal};

macro_rules! refusals {
    ($($code:literal = $name:ident { $($field:ident),* },)*) => {
        fn parts(refusal: &Refusal) -> (u8, Vec<&str>) {
            match refusal {
                $(Refusal::$name { $($field,)* .. } => ($code, vec![$(&**$field),*]),)*
                Refusal::NotImplemented(text) => (NOT_IMPLEMENTED, vec![text]),
                Refusal::NotAllowed(text) => (NOT_ALLOWED, vec![text]),
                Refusal::Limit(text) => (LIMIT, vec![text]),
                Refusal::AccessRefused(text) => (ACCESS_REFUSED, vec![text]),
                Refusal::UnknownDelivery => (UNKNOWN_DELIVERY, Vec::new()),
                _ => (PRECONDITION, Vec::new()),
            }
        }

        fn named(code: u8, texts: &[&str]) -> Option<Refusal> {
            let mut texts = texts.iter().copied();
            let mut next = || texts.next();
            Some(match code {
                $($code => { $(let $field = Text(next()?).into();)* build!($name { $($field),* }) })*
                _ => return None,
            })
        }
    };
}

macro_rules! build {
    (InUse { $($field:ident),* }) => { Refusal::InUse { kind: Kind::Mailbox, $($field),* } };
    (InvalidArgument { $($field:ident),* }) => {
        Refusal::InvalidArgument { kind: Kind::Mailbox, $($field),* }
    };
    ($name:ident { $($field:ident),* }) => { Refusal::$name { $($field),* } };
}

const PRECONDITION: u8 = 0;
const NOT_IMPLEMENTED: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const LIMIT: u8 = 3;
const ACCESS_REFUSED: u8 = 4;
const UNKNOWN_DELIVERY: u8 = 5;
const DELIVERY_TIMEOUT: u8 = 6;

refusals! {
    10 = NoSuchMailbox { name, vhost },
    11 = Elsewhere { host, name, vhost },
    12 = NoSuchExchange { name, vhost },
    13 = NoSuchBinding { key, exchange, destination, vhost },
    14 = Locked { name, vhost },
    15 = OneReaderOnly { name, vhost },
    16 = ExclusiveUse { name, vhost },
    17 = InUse { name, vhost },
    18 = NotEmpty { name, vhost },
    19 = NotDelayed { name, vhost },
    20 = NoSuchCursor { cursor, name, vhost },
    21 = InvalidArgument { argument, name, vhost, reason },
}

/// The text of a field, whatever its type.
struct Text<'a>(&'a str);

impl From<Text<'_>> for Name {
    fn from(text: Text<'_>) -> Self {
        text.0.into()
    }
}

impl From<Text<'_>> for String {
    fn from(text: Text<'_>) -> Self {
        text.0.into()
    }
}

/// Hands the wire's form of a refusal on.
pub(super) fn write(refusal: &Refusal, then: impl FnOnce(NoRef<'_>)) {
    if let Refusal::DeliveryTimeout { channel, timeout_ms } = refusal {
        let texts = [channel.0.to_string(), timeout_ms.to_string()];
        return then(NoRef {
            code: DELIVERY_TIMEOUT,
            texts: texts.iter().map(String::as_str).collect(),
        });
    }
    match parts(refusal) {
        (PRECONDITION, _) => {
            let text = refusal.to_string();
            then(NoRef { code: PRECONDITION, texts: vec![&text] });
        }
        (code, texts) => then(NoRef { code, texts }),
    }
}

/// What is not known here, or not whole, is what was asked and could not be done.
pub(super) fn read(no: &NoRef<'_>) -> Refusal {
    let text = || no.texts.first().copied().unwrap_or_default().to_owned();
    match no.code {
        NOT_IMPLEMENTED => Refusal::NotImplemented(text()),
        NOT_ALLOWED => Refusal::NotAllowed(text()),
        LIMIT => Refusal::Limit(text()),
        ACCESS_REFUSED => Refusal::AccessRefused(text()),
        UNKNOWN_DELIVERY => Refusal::UnknownDelivery,
        DELIVERY_TIMEOUT => {
            let number = |at: usize| no.texts.get(at).and_then(|it| it.parse::<u64>().ok());
            let channel = number(0).and_then(|it| u16::try_from(it).ok()).unwrap_or_default();
            let timeout_ms = number(1).unwrap_or_default();
            Refusal::DeliveryTimeout { channel: ChannelId(channel), timeout_ms }
        }
        code => named(code, &no.texts).unwrap_or_else(|| Refusal::Precondition(text())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_same_at_the_other_host() {
        let (name, vhost): (Name, Name) = ("work".into(), "/".into());
        let of = || (name.clone(), vhost.clone());
        let all = [
            Refusal::NoSuchMailbox { name: of().0, vhost: of().1 },
            Refusal::Elsewhere { host: "c".into(), name: of().0, vhost: of().1 },
            Refusal::NoSuchBinding {
                key: "k".into(),
                exchange: "e".into(),
                destination: "queue 'work'".into(),
                vhost: of().1,
            },
            Refusal::ExclusiveUse { name: of().0, vhost: of().1 },
            Refusal::InUse { kind: Kind::Mailbox, name: of().0, vhost: of().1 },
            Refusal::NoSuchCursor { cursor: "c".into(), name: of().0, vhost: of().1 },
            Refusal::InvalidArgument {
                argument: "x".into(),
                kind: Kind::Mailbox,
                name: of().0,
                vhost: of().1,
                reason: "why".into(),
            },
            Refusal::UnknownDelivery,
            Refusal::DeliveryTimeout { channel: ChannelId(7), timeout_ms: 1000 },
            Refusal::NotImplemented("text".into()),
            Refusal::Precondition("text".into()),
        ];
        for refusal in all {
            write(&refusal, |no| assert_eq!(read(&no), refusal));
        }
        // Others keep their words.
        let other = Refusal::DefaultExchange;
        write(&other, |no| assert_eq!(read(&no).to_string(), other.to_string()));
        assert_eq!(
            read(&NoRef { code: 10, texts: vec!["work"] }),
            Refusal::Precondition("work".into())
        );
    }
}

//! A reply code: how a server says why it closes or returns.

use crate::short_string::ShortString;

/// One of the codes that the protocol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(u16);

macro_rules! reply_codes {
    ($($number:literal $name:ident)*) => {
        impl ReplyCode {
            $(pub const $name: Self = Self($number);)*

            /// The code of that number, when the protocol names it.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name that reply texts begin with.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => stringify!($name),)*
                    _ => "",
                }
            }
        }
    };
}

reply_codes! {
    200 REPLY_SUCCESS
    311 CONTENT_TOO_LARGE
    312 NO_ROUTE
    313 NO_CONSUMERS
    320 CONNECTION_FORCED
    402 INVALID_PATH
    403 ACCESS_REFUSED
    404 NOT_FOUND
    405 RESOURCE_LOCKED
    406 PRECONDITION_FAILED
    501 FRAME_ERROR
    502 SYNTAX_ERROR
    503 COMMAND_INVALID
    504 CHANNEL_ERROR
    505 UNEXPECTED_FRAME
    506 RESOURCE_ERROR
    530 NOT_ALLOWED
    540 NOT_IMPLEMENTED
    541 INTERNAL_ERROR
}

impl ReplyCode {
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether an error with this code ends the connection, and not just its channel.
    pub const fn is_connection(self) -> bool {
        matches!(self.0, 320 | 402 | 501..)
    }
}

/// "NAME - explanation", cut to 255 bytes between two characters.
pub fn reply_text(code: ReplyCode, explanation: &str) -> ShortString {
    ShortString::truncated(&format!("{} - {explanation}", code.name()))
}

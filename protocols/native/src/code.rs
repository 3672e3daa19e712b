//! Why something was refused: numbers that people know from HTTP.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// The reason of a refusal, for programs. The text beside it is for people.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// A number that this version does not know.
            Other(u16),
        }

        impl Code {
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(number) => number,
                }
            }

            pub const fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }
    };
}

codes! {
    /// The server or the connection ends in good order.
    Closing = 200,
    /// What was sent makes no sense.
    Invalid = 400,
    /// Wrong user, password or token.
    LoginFailed = 401,
    /// The user may not do this.
    Forbidden = 403,
    /// No such mailbox, exchange, binding, virtual host or delivery.
    NotFound = 404,
    /// Not in this state of the connection.
    NotAllowed = 405,
    /// Somebody else uses it, or owns it.
    InUse = 409,
    /// It exists with other properties, or a condition does not hold.
    Precondition = 412,
    TooLarge = 413,
    /// A mailbox is full and refuses more.
    Full = 422,
    /// A limit that an operator set.
    Limit = 429,
    NotImplemented = 501,
    /// The host where it lives cannot be reached now.
    Unavailable = 503,
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.number().fmt(f)
    }
}

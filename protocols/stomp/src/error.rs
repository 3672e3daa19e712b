//! Every way in which bytes are not STOMP.

/// Why bytes were refused. The text is fit for the ERROR frame: it repeats nothing of the input but an
/// unknown command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StompError {
    #[error("Could not interpret command \"{0}\"")]
    UnknownCommand(String),
    #[error("command is longer than {max} bytes")]
    CommandTooLong { max: usize },
    #[error("header line is longer than {max} bytes")]
    HeaderLineTooLong { max: usize },
    #[error("headers are longer than {max} bytes")]
    HeaderBlockTooLong { max: usize },
    #[error("more than {max} headers")]
    TooManyHeaders { max: usize },
    #[error("frame is larger than {max} bytes")]
    FrameTooLarge { max: usize },
    #[error("header line without a colon")]
    HeaderWithoutColon,
    #[error("header without a name")]
    EmptyHeaderName,
    #[error("header is not UTF-8")]
    HeaderNotUtf8,
    #[error("undefined escape sequence in a header")]
    UndefinedEscape,
    #[error("NUL before the end of the headers")]
    UnexpectedNul,
    #[error("carriage return without a line feed")]
    BareCarriageReturn,
    #[error("content-length is not a number")]
    InvalidContentLength,
    #[error("content-length is given twice with different values")]
    ConflictingContentLength,
    #[error("no NUL after the body")]
    BodyWithoutNul,
    #[error("heart-beat is not two numbers with a comma between them")]
    InvalidHeartBeat,
}

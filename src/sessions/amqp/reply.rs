//! How the conversation goes wrong: the only place that knows both refusals and reply codes.

use pillarbox_amqp::{ContentError, FrameError, MethodError, ReplyCode};

use crate::broker::{ChannelId, Refusal};

/// Class and method that a close names, 0 and 0 where there is none.
pub(super) type Ids = (u16, u16);

/// Why a channel or the connection is closed by this side.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: ReplyCode,
    /// Without the code's name, which the wire puts before it.
    pub(super) text: String,
    pub(super) ids: Ids,
}

impl Fault {
    pub(super) fn new(code: ReplyCode, text: impl Into<String>, ids: Ids) -> Self {
        Self { code, text: text.into(), ids }
    }

    pub(super) fn precondition(text: impl Into<String>, ids: Ids) -> Self {
        Self::new(ReplyCode::PRECONDITION_FAILED, text, ids)
    }

    pub(super) fn unexpected_frame(text: &str, ids: Ids) -> Self {
        Self::new(ReplyCode::UNEXPECTED_FRAME, text, ids)
    }

    /// A refusal in the answer to the method of these ids.
    pub(super) fn refused(refusal: &Refusal, channel: ChannelId, ids: Ids) -> Self {
        Self::new(code(refusal, channel), refusal.to_string(), ids)
    }

    pub(super) fn of_method(error: MethodError) -> Self {
        let code = match error {
            MethodError::UnknownClass(_) | MethodError::UnknownMethod(..) => {
                ReplyCode::COMMAND_INVALID
            }
            MethodError::Truncated { .. }
            | MethodError::Trailing { .. }
            | MethodError::BadTable { .. } => ReplyCode::SYNTAX_ERROR,
        };
        Self::new(code, error.to_string(), error.ids())
    }

    pub(super) fn of_frame(error: FrameError) -> Self {
        Self::new(ReplyCode::FRAME_ERROR, error.to_string(), (0, 0))
    }

    pub(super) fn of_content(error: ContentError) -> Self {
        Self::new(ReplyCode::SYNTAX_ERROR, error.to_string(), PUBLISH)
    }

    /// Whether the whole connection ends, and not just the channel it happened on.
    pub(super) fn ends_connection(&self, channel: u16) -> bool {
        channel == 0 || self.code.is_connection()
    }
}

/// The ids of basic.publish.
pub(super) const PUBLISH: Ids = (60, 40);
/// The ids of basic.ack.
pub(super) const ACK: Ids = (60, 80);
/// The ids of connection.open.
pub(super) const OPEN: Ids = (10, 40);

fn code(refusal: &Refusal, channel: ChannelId) -> ReplyCode {
    match refusal {
        Refusal::NoSuchMailbox { .. }
        | Refusal::Inaccessible { .. }
        | Refusal::NoSuchExchange { .. }
        | Refusal::NotDelayed { .. }
        | Refusal::NoSuchCursor { .. }
        | Refusal::NoSuchBinding { .. } => ReplyCode::NOT_FOUND,
        Refusal::NoSuchVhost { .. } | Refusal::VhostDenied { .. } | Refusal::NotAllowed(_) => {
            ReplyCode::NOT_ALLOWED
        }
        // A limit of the connection forbids it; one of a virtual host fails what was asked.
        Refusal::Limit(_) if channel.0 == 0 => ReplyCode::NOT_ALLOWED,
        Refusal::Limit(_) => ReplyCode::PRECONDITION_FAILED,
        Refusal::Forbidden { .. }
        | Refusal::TopicForbidden { .. }
        | Refusal::NotAdministrator(_)
        | Refusal::ExclusiveUse { .. }
        | Refusal::ReservedName { .. }
        | Refusal::DefaultExchange
        | Refusal::SystemExchange { .. }
        | Refusal::InternalExchange { .. }
        | Refusal::AccessRefused(_) => ReplyCode::ACCESS_REFUSED,
        Refusal::Locked { .. } | Refusal::OneReaderOnly { .. } => ReplyCode::RESOURCE_LOCKED,
        Refusal::Inequivalent { .. }
        | Refusal::Elsewhere { .. }
        | Refusal::InvalidArgument { .. }
        | Refusal::InUse { .. }
        | Refusal::NotEmpty { .. }
        | Refusal::UnknownDelivery
        | Refusal::DeliveryTimeout { .. }
        | Refusal::Precondition(_) => ReplyCode::PRECONDITION_FAILED,
        // A connection error, as clients of RabbitMQ up to 3.12 expect; 406 came later.
        Refusal::UnknownExchangeKind(_) => ReplyCode::COMMAND_INVALID,
        Refusal::NotImplemented(_) => ReplyCode::NOT_IMPLEMENTED,
    }
}

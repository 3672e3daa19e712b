//! How the conversation goes wrong: the only place that knows both refusals and ERROR frames.

use bytes::BytesMut;
use pillarbox_stomp::{Encoder, ServerCommand, StompError, Version};

use crate::broker::Refusal;

/// What becomes an ERROR frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The `message` header: RabbitMQ's word for what went wrong.
    pub(super) message: &'static str,
    pub(super) detail: String,
    /// The frame that is to blame asked for this receipt.
    pub(super) receipt: Option<String>,
    pub(super) subscription: Option<String>,
    /// The connection ends. Otherwise only this frame was refused.
    pub(super) closes: bool,
}

impl Fault {
    /// Only the frame is refused.
    pub(super) fn new(message: &'static str, detail: impl Into<String>) -> Self {
        Self { message, detail: detail.into(), receipt: None, subscription: None, closes: false }
    }

    /// The connection ends.
    pub(super) fn fatal(message: &'static str, detail: impl Into<String>) -> Self {
        Self { closes: true, ..Self::new(message, detail) }
    }

    pub(super) fn login(detail: impl Into<String>) -> Self {
        Self::fatal("Bad CONNECT", detail)
    }

    pub(super) fn missing_header(command: &str, name: &str) -> Self {
        Self::new("Missing header", format!("\"{command}\" must include a '{name}' header"))
    }

    pub(super) fn invalid_header(command: &str, name: &str) -> Self {
        Self::new("Invalid header", format!("\"{command}\" must include a valid '{name}' header"))
    }

    pub(super) fn precondition(detail: impl std::fmt::Display) -> Self {
        Self::fatal("precondition_failed", format!("PRECONDITION_FAILED - {detail}"))
    }

    /// The bytes are not STOMP, and nobody knows where the next frame begins.
    pub(super) fn of_bytes(error: &StompError) -> Self {
        let message = match error {
            StompError::UnknownCommand(_) => "Bad command",
            StompError::FrameTooLarge { .. } => "Frame too large",
            StompError::CommandTooLong { .. }
            | StompError::HeaderLineTooLong { .. }
            | StompError::HeaderBlockTooLong { .. }
            | StompError::TooManyHeaders { .. }
            | StompError::HeaderWithoutColon
            | StompError::EmptyHeaderName
            | StompError::HeaderNotUtf8
            | StompError::UndefinedEscape
            | StompError::UnexpectedNul
            | StompError::BareCarriageReturn
            | StompError::InvalidContentLength
            | StompError::ConflictingContentLength
            | StompError::BodyWithoutNul
            | StompError::InvalidHeartBeat => "Invalid frame",
        };
        Self::fatal(message, error.to_string())
    }

    /// The broker's no to a frame; RabbitMQ ends the connection on each.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let (message, name) = amqp_names(refusal);
        Self::fatal(message, format!("{name} - {refusal}"))
    }

    /// The broker's no to a CONNECT.
    pub(super) fn not_opened(refusal: &Refusal) -> Self {
        Self::login(match refusal {
            Refusal::VhostDenied { reason, .. } if reason.contains("limit") => {
                "Connection refused: vhost connection limit reached".to_owned()
            }
            Refusal::NoSuchVhost { vhost } | Refusal::VhostDenied { vhost, .. } => {
                format!("Virtual host '{vhost}' access denied")
            }
            Refusal::Limit(_) => "Connection refused: node connection limit reached".to_owned(),
            other => other.to_string(),
        })
    }

    pub(super) fn with_receipt(mut self, receipt: Option<&str>) -> Self {
        if self.receipt.is_none() {
            self.receipt = receipt.map(str::to_owned);
        }
        self
    }

    pub(super) fn with_subscription(mut self, id: Option<&str>) -> Self {
        self.subscription = id.map(str::to_owned);
        self
    }

    pub(super) fn encode(&self, encoder: Encoder, wire: &mut BytesMut) {
        let mut frame = encoder.begin(wire, ServerCommand::Error);
        frame.header("message", self.message);
        frame.header("content-type", "text/plain");
        frame.header("version", Version::SUPPORTED);
        if let Some(receipt) = &self.receipt {
            frame.header("receipt-id", receipt);
        }
        if let Some(subscription) = &self.subscription {
            frame.header("subscription", subscription);
        }
        // RabbitMQ ends its details with a line feed.
        let mut detail = self.detail.clone();
        if !detail.is_empty() {
            detail.push('\n');
        }
        frame.finish(detail.as_bytes());
    }
}

/// AMQP's name of a refusal, as the `message` header and as a text has it.
fn amqp_names(refusal: &Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::NoSuchMailbox { .. }
        | Refusal::Inaccessible { .. }
        | Refusal::NoSuchExchange { .. }
        | Refusal::NoSuchBinding { .. } => ("not_found", "NOT_FOUND"),
        Refusal::NoSuchVhost { .. }
        | Refusal::VhostDenied { .. }
        | Refusal::NotAllowed(_)
        | Refusal::Limit(_) => ("not_allowed", "NOT_ALLOWED"),
        Refusal::Forbidden { .. }
        | Refusal::TopicForbidden { .. }
        | Refusal::NotAdministrator(_)
        | Refusal::ExclusiveUse { .. }
        | Refusal::ReservedName { .. }
        | Refusal::DefaultExchange
        | Refusal::SystemExchange { .. }
        | Refusal::InternalExchange { .. }
        | Refusal::AccessRefused(_) => ("access_refused", "ACCESS_REFUSED"),
        Refusal::Locked { .. } | Refusal::OneReaderOnly { .. } => {
            ("resource_locked", "RESOURCE_LOCKED")
        }
        Refusal::Inequivalent { .. }
        | Refusal::Elsewhere { .. }
        | Refusal::InvalidArgument { .. }
        | Refusal::UnknownExchangeKind(_)
        | Refusal::InUse { .. }
        | Refusal::NotEmpty { .. }
        | Refusal::UnknownDelivery
        | Refusal::NotDelayed { .. }
        | Refusal::NoSuchCursor { .. }
        | Refusal::DeliveryTimeout { .. }
        | Refusal::Precondition(_) => ("precondition_failed", "PRECONDITION_FAILED"),
        Refusal::NotImplemented(_) => ("not_implemented", "NOT_IMPLEMENTED"),
    }
}

//! Why a request is not answered as it was meant, in RabbitMQ's statuses and words.

use serde_json::{Value, json};

use crate::broker::Refusal;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub status: u16,
    error: &'static str,
    reason: String,
}

impl Fault {
    pub fn new(status: u16, error: &'static str, reason: impl Into<String>) -> Self {
        Self { status, error, reason: reason.into() }
    }

    pub fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(400, "bad_request", reason)
    }

    /// Nobody is named, or not in a way that is understood.
    pub fn no_login() -> Self {
        Self::new(401, "not_authorized", "Not_Authorized")
    }

    /// Somebody is named, and may not.
    pub fn not_authorised(reason: impl Into<String>) -> Self {
        Self::new(401, "not_authorised", reason)
    }

    pub fn not_found() -> Self {
        Self::new(404, "Object Not Found", "Not Found")
    }

    pub fn method_not_allowed() -> Self {
        Self::new(405, "Method Not Allowed", "Method Not Allowed")
    }

    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(503, "unavailable", reason)
    }

    pub fn body(&self) -> Value {
        json!({"error": self.error, "reason": self.reason})
    }

    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let reason = refusal.to_string();
        match refusal {
            Refusal::NoSuchMailbox { .. }
            | Refusal::NoSuchExchange { .. }
            | Refusal::NoSuchBinding { .. }
            | Refusal::NoSuchVhost { .. } => Self::not_found(),
            // It is not here, and whoever asks should know where to ask.
            Refusal::Elsewhere { .. } => Self::new(404, "Object Not Found", reason),
            Refusal::Inaccessible { .. } => Self::unavailable(reason),
            Refusal::VhostDenied { .. }
            | Refusal::Forbidden { .. }
            | Refusal::TopicForbidden { .. }
            | Refusal::NotAdministrator(_)
            | Refusal::AccessRefused(_)
            | Refusal::DefaultExchange
            | Refusal::SystemExchange { .. } => Self::not_authorised(reason),
            Refusal::Locked { .. }
            | Refusal::ExclusiveUse { .. }
            | Refusal::ReservedName { .. }
            | Refusal::InternalExchange { .. }
            | Refusal::Inequivalent { .. }
            | Refusal::InvalidArgument { .. }
            | Refusal::UnknownExchangeKind(_)
            | Refusal::InUse { .. }
            | Refusal::NotEmpty { .. }
            | Refusal::UnknownDelivery
            | Refusal::OneReaderOnly { .. }
            | Refusal::NotDelayed { .. }
            | Refusal::NoSuchCursor { .. }
            | Refusal::DeliveryTimeout { .. }
            | Refusal::Precondition(_)
            | Refusal::NotImplemented(_)
            | Refusal::NotAllowed(_)
            | Refusal::Limit(_) => Self::bad_request(reason),
        }
    }
}

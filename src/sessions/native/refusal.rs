//! Refusals as codes of the protocol: the only place that knows both.

use pillarbox_native::Code;

use crate::broker::Refusal;

pub(super) fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NoSuchMailbox { .. }
        | Refusal::NoSuchExchange { .. }
        | Refusal::NoSuchBinding { .. }
        | Refusal::NoSuchVhost { .. }
        | Refusal::UnknownDelivery
        | Refusal::NotDelayed { .. }
        | Refusal::NoSuchCursor { .. }
        | Refusal::DeliveryTimeout { .. } => Code::NotFound,
        Refusal::VhostDenied { .. }
        | Refusal::Forbidden { .. }
        | Refusal::TopicForbidden { .. }
        | Refusal::NotAdministrator(_)
        | Refusal::AccessRefused(_)
        | Refusal::DefaultExchange
        | Refusal::SystemExchange { .. }
        | Refusal::InternalExchange { .. }
        | Refusal::ReservedName { .. } => Code::Forbidden,
        Refusal::Locked { .. }
        | Refusal::OneReaderOnly { .. }
        | Refusal::ExclusiveUse { .. }
        | Refusal::InUse { .. } => Code::InUse,
        Refusal::Inequivalent { .. }
        | Refusal::Elsewhere { .. }
        | Refusal::NotEmpty { .. }
        | Refusal::Precondition(_) => Code::Precondition,
        Refusal::InvalidArgument { .. } | Refusal::UnknownExchangeKind(_) => Code::Invalid,
        Refusal::Inaccessible { .. } => Code::Unavailable,
        Refusal::NotImplemented(_) => Code::NotImplemented,
        Refusal::NotAllowed(_) => Code::NotAllowed,
        Refusal::Limit(_) => Code::Limit,
    }
}

//! Names that clients give.

use pillarbox_amqp::ReplyCode;

use super::reply::{Fault, Ids};
use crate::broker::Name;

/// A name from the wire: UTF-8 without NUL, CR and LF.
pub(super) fn name(bytes: &[u8], ids: Ids) -> Result<Name, Fault> {
    let fault = |text| Fault::new(ReplyCode::SYNTAX_ERROR, text, ids);
    let text = std::str::from_utf8(bytes).map_err(|_| fault("a name is not UTF-8"))?;
    if text.bytes().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Err(fault("a name has a control character"));
    }
    Ok(text.into())
}

/// Where a client consumes to receive answers without a mailbox of its own.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

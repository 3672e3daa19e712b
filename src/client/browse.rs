//! Looking at the messages of a mailbox without taking them.

use bytes::Buf;
use pillarbox_native as wire;

use super::list::{Row, read_rows};
use super::{Client, Error};
use crate::broker::States;

/// What to look at.
#[derive(Clone, Debug)]
pub struct Browse {
    pub states: States,
    /// Only messages that match this condition, as JMS has it.
    pub selector: Option<String>,
    /// Behind this place, which an earlier look gave.
    pub after: String,
    /// At most so many, and fewer where they are large.
    pub count: u32,
}

impl Default for Browse {
    fn default() -> Self {
        Self { states: States::ALL, selector: None, after: String::new(), count: 500 }
    }
}

/// What a look saw.
#[derive(Clone, Debug, Default)]
pub struct Browsed {
    /// Each with `state`, `place`, `seq`, `properties`, `body` and more.
    pub messages: Vec<Row>,
    /// Where to look next, also if nothing was found; `None` at the end.
    pub next: Option<String>,
}

impl Client {
    /// One step through a mailbox. The broker looks at a thousand messages in a step, so that one may find none of those
    /// that are wanted and there be more all the same.
    pub async fn browse(&self, mailbox: &str, browse: &Browse) -> Result<Browsed, Error> {
        let asked = wire::Browse {
            mailbox,
            states: browse.states.bits(),
            selector: browse.selector.as_deref().unwrap_or_default(),
            after: browse.after.as_bytes(),
            count: browse.count,
        };
        let (mut payload, _) = self.line.ask(|id, out| asked.encode(id, out))?.done().await?;
        let short = || Error::unexpected("messages");
        let size = usize::from(payload.try_get_u8().map_err(|_| short())?);
        if payload.len() < size {
            return Err(short());
        }
        let next = String::from_utf8_lossy(&payload.split_to(size)).into_owned();
        let next = (!next.is_empty()).then_some(next);
        Ok(Browsed { messages: read_rows(payload)?, next })
    }
}

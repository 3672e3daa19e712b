//! Messages that were settled, and are ready again.

use bytes::Buf;
use pillarbox_native as wire;

use super::{Client, Error};

/// Which of the messages that a queue settled and keeps; all of them where nothing is said.
#[derive(Clone, Debug)]
pub struct Rewind {
    /// Settled then or later, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// Settled before.
    pub to_ms: u64,
    /// At this position or behind it, as looking at `settled` messages shows them (`seq`).
    pub first: u64,
    /// Before this position.
    pub end: u64,
    /// Only messages that match this condition, as JMS has it.
    pub selector: Option<String>,
}

impl Default for Rewind {
    fn default() -> Self {
        Self { from_ms: 0, to_ms: u64::MAX, first: 0, end: u64::MAX, selector: None }
    }
}

impl Client {
    /// Puts messages back that were settled, behind those that are ready, known to have been seen. Returns how many
    /// that were. They are put back some at a time: what was put back before an error stays so.
    pub async fn rewind(&self, mailbox: &str, rewind: &Rewind) -> Result<u64, Error> {
        let Rewind { from_ms, to_ms, mut first, mut end, ref selector } = *rewind;
        let selector = selector.as_deref().unwrap_or_default();
        let mut moved = 0;
        loop {
            let step = wire::Rewind { mailbox, from_ms, to_ms, first, end, selector };
            let (mut payload, _) = self.line.ask(|id, out| step.encode(id, out))?.done().await?;
            let mut number = || payload.try_get_u64_le().map_err(|_| Error::unexpected("a rewind"));
            moved += number()?;
            (first, end) = (number()?, number()?);
            if end == 0 {
                return Ok(moved);
            }
        }
    }
}

//! Which messages of exchanges came to a mailbox since it moved here.
//!
//! While its former home still has its bindings, hosts send copies of what matches to both, and the former home sends
//! its own on. Only the first of the two counts.

use std::collections::{BTreeSet, VecDeque};

use crate::broker::message::{Message, MessageId};

/// Those that came before so many others are forgotten.
const RECENT_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(in crate::broker) struct Recent {
    known: BTreeSet<MessageId>,
    order: VecDeque<MessageId>,
}

impl Recent {
    /// Whether it is the first with its id. What no exchange brought comes one way only.
    pub(in crate::broker) fn is_first(&mut self, message: &Message) -> bool {
        if message.exchange().is_empty() {
            return true;
        }
        if !self.known.insert(message.id) {
            return false;
        }
        self.order.push_back(message.id);
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

//! `x-recent-history`: a fanout that remembers its last messages and hands them to each new binding.

use std::collections::VecDeque;
use std::sync::Arc;

use super::target::{TargetId, TargetSet};
use crate::broker::{Message, Refusal, Table};

#[derive(Debug)]
pub(super) struct RecentHistory {
    targets: TargetSet,
    length: usize,
    /// The oldest first, at most `length`. In memory only.
    recent: VecDeque<Arc<Message>>,
}

impl RecentHistory {
    const LENGTH_DEFAULT: usize = 20;
    /// A longer history is kept this long.
    const LENGTH_MAX: usize = 10_000;

    pub(super) fn new(arguments: &Table) -> Result<Self, Refusal> {
        let length = match arguments.get("x-recent-history-length") {
            None => Self::LENGTH_DEFAULT,
            Some(value) => match value.as_i64() {
                Some(length @ 1..) => {
                    usize::try_from(length).unwrap_or(usize::MAX).min(Self::LENGTH_MAX)
                }
                _ => {
                    let value = super::equivalence::bare(value);
                    return Err(Refusal::Precondition(format!(
                        "Invalid argument {value}, 'x-recent-history-length' must be a positive integer"
                    )));
                }
            },
        };
        Ok(Self { targets: TargetSet::default(), length, recent: VecDeque::new() })
    }

    pub(super) fn bind(&mut self, target: TargetId) {
        self.targets.add(target);
    }

    pub(super) fn unbind(&mut self, target: TargetId) {
        self.targets.remove(target);
    }

    pub(super) fn recent(&self) -> Vec<Arc<Message>> {
        self.recent.iter().cloned().collect()
    }

    pub(super) fn route(&mut self, message: &Arc<Message>, found: &mut impl FnMut(TargetId)) {
        let no_store = message.properties().header("x-recent-history-no-store");
        if no_store.and_then(|value| value.as_bool()) != Some(true) {
            if self.recent.len() == self.length {
                self.recent.pop_front();
            }
            self.recent.push_back(Arc::clone(message));
        }
        self.targets.iter().for_each(found);
    }
}

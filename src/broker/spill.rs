//! When memory runs out, the store takes over messages that need not be in it, a share at a time.

use std::collections::VecDeque;

use super::event::Effect;
use super::name::Time;
use super::{Broker, Epoch, carry};

/// No turn spills much more: it has to fit into one batch of writes.
const SHARE_MAX: u64 = 4 << 20;

/// What was given to the store and is still in memory.
#[derive(Debug)]
pub(super) struct Spilling {
    memory_max: u64,
    /// More is spilled once there are this many bytes in memory.
    pub(super) above: u64,
    /// Bytes by the batch that has to be durable before they leave memory.
    going: VecDeque<(Epoch, u64)>,
}

impl Spilling {
    pub(super) fn new(memory_max: u64) -> Self {
        Self { memory_max, above: memory_max, going: VecDeque::new() }
    }

    fn share(&self) -> u64 {
        self.memory_max.div_ceil(16).min(SHARE_MAX)
    }

    pub(super) fn durable(&mut self, epoch: Epoch) {
        while self.going.pop_front_if(|(of, _)| *of <= epoch).is_some() {}
        self.above = self.limit();
    }

    /// With `memory` bytes in use.
    fn spilled(&mut self, bytes: u64, epoch: Epoch, memory: u64) {
        self.going.push_back((epoch, bytes));
        self.above = self.limit();
        if bytes < self.share() {
            // There is no more to give. Looking at everything costs: only once memory grew again.
            self.above = self.above.max(memory + self.share());
        }
    }

    /// What goes as soon as the disk has it does not count.
    fn limit(&self) -> u64 {
        self.memory_max + self.going.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }
}

impl Broker {
    /// Memory runs out: where there is more of it in use than need be, the store takes over.
    pub(super) fn spill(&mut self, now: Time, out: &mut Vec<Effect>) {
        let share = self.spilling.share();
        let mut spilled = 0;
        for id in &self.surplus {
            let mut turn = carry!(self, now, out);
            if let Some(mailbox) = self.mailboxes.get_mut(id) {
                spilled += mailbox.spill(share - spilled, &mut turn);
            }
            if spilled >= share {
                break;
            }
        }
        for mailbox in self.mailboxes.values_mut().filter(|mailbox| mailbox.stream.is_some()) {
            let mut turn = carry!(self, now, out);
            mailbox.spill_stream(&mut turn);
        }
        self.spilling.spilled(spilled, self.epoch, self.memory);
    }
}

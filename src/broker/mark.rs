//! How far deliveries may have come, written ahead of them, so that a restart knows what may have been seen.

use super::Epoch;
use super::command::Seq;

/// Positions that a mark runs ahead of deliveries, so that few marks are written.
const STEP: u64 = 1024;

/// "Everything up to here may have been delivered."
#[derive(Debug, Default)]
pub(super) struct Mark {
    upto: Seq,
    /// The batch that carries `upto`.
    epoch: Epoch,
    /// The last one that is surely durable.
    durable: Seq,
    /// Highest position handed to anybody.
    delivered_max: Seq,
    /// Up to here a consumer may have seen messages before the last stop.
    recovered: Seq,
}

impl Mark {
    /// As the store found it.
    pub(super) fn recovered(upto: Seq) -> Self {
        Self { upto, epoch: Epoch(0), durable: upto, delivered_max: upto, recovered: upto }
    }

    /// A stored message may be shown only if a restart would know that it was: its position is marked in a batch that
    /// is durable, or in the batch that stores the message or one before. Says also what mark to write now.
    pub(super) fn may_show(
        &mut self,
        seq: Seq,
        stored_in: Epoch,
        now: Epoch,
        durable: Epoch,
    ) -> (bool, Option<Seq>) {
        if self.epoch <= durable {
            self.durable = self.upto;
        }
        let runs_low = seq.0 + STEP / 2 > self.upto.0 && self.durable == self.upto;
        let mut write = None;
        if seq > self.upto || runs_low {
            self.upto = Seq(seq.0 + STEP);
            self.epoch = now;
            write = Some(self.upto);
        }
        (seq <= self.durable || stored_in >= self.epoch, write)
    }

    pub(super) fn delivered(&mut self, seq: Seq) {
        self.delivered_max = self.delivered_max.max(seq);
    }

    /// Whether it may have been delivered before the last stop.
    pub(super) fn was_seen(&self, seq: Seq) -> bool {
        seq <= self.recovered
    }

    /// At an orderly stop: the exact mark, where it differs from the one written.
    pub(super) fn settle(&mut self) -> Option<Seq> {
        let differs = self.upto != self.delivered_max;
        self.upto = self.delivered_max;
        differs.then_some(self.upto)
    }
}

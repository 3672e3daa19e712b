//! How far deliveries may have come, written ahead of them, so that a restart knows what may have been seen.

use super::Epoch;
use super::command::Seq;

/// Positions that a mark runs ahead of deliveries, so that few marks are written.
const STEP: u64 = 1024;

/// As far as it runs ahead where deliveries are faster than commits.
const STEP_MAX: u64 = 64 * STEP;

/// "Everything up to here may have been delivered."
#[derive(Debug)]
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
    step: u64,
    /// A delivery had to wait for the mark: the next one runs further ahead.
    waited: bool,
}

impl Default for Mark {
    fn default() -> Self {
        Self::recovered(Seq(0))
    }
}

impl Mark {
    /// As the store found it.
    pub(super) fn recovered(upto: Seq) -> Self {
        Self {
            upto,
            epoch: Epoch(0),
            durable: upto,
            delivered_max: upto,
            recovered: upto,
            step: STEP,
            waited: false,
        }
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
        let runs_low = seq.0 + self.step / 2 > self.upto.0 && self.durable == self.upto;
        let mut write = None;
        if seq > self.upto || runs_low {
            if std::mem::take(&mut self.waited) {
                self.step = (self.step * 2).min(STEP_MAX);
            }
            self.upto = Seq(seq.0 + self.step);
            self.epoch = now;
            write = Some(self.upto);
        }
        let may = seq <= self.durable || stored_in >= self.epoch;
        self.waited |= !may;
        (may, write)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows positions one after the other, as far as it may, and commits each mark `lag` positions later.
    fn waits(positions: u64, lag: u64) -> usize {
        let mut mark = Mark::default();
        let (mut durable, mut due, mut waits, mut epoch) = (Epoch(0), None, 0, 1);
        let mut at = 1;
        while at <= positions {
            if due.is_some_and(|(_, shown)| shown + lag <= at) {
                durable = due.take().map_or(durable, |(epoch, _)| epoch);
            }
            let (may, write) = mark.may_show(Seq(at), Epoch(0), Epoch(epoch), durable);
            if write.is_some() {
                due = Some((Epoch(epoch), at));
                epoch += 1;
            }
            if may {
                at += 1;
            } else {
                waits += 1;
                durable = due.take().map_or(durable, |(epoch, _)| epoch);
            }
        }
        waits
    }

    #[test]
    fn marks_run_further_ahead_where_deliveries_outrun_commits() {
        // With a step of 1,024 each of a thousand marks would be waited for.
        assert!(waits(1_000_000, 8000) < 10, "{}", waits(1_000_000, 8000));
        // Slow deliveries wait once, for the first mark.
        assert_eq!(waits(100_000, 1), 1);
    }
}

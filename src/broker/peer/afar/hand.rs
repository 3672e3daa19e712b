//! What a client has in its hands of other hosts' mailboxes: settlements, and how far its socket keeps up.

use smallvec::SmallVec;

use super::{DRAINED_BYTES, DRAINED_DELIVERIES};
use crate::broker::Broker;
use crate::broker::command::{ChannelId, Command, ConnectionId, Extend, Outcome, Run, Seq, Settle};
use crate::broker::event::Effect;

impl Broker {
    /// Deliveries of an alias. Whether some of them are not held. `None` gives them more time.
    pub(in crate::broker) fn settle_afar(
        &mut self,
        (from, channel): (ConnectionId, ChannelId),
        run: &Run,
        outcome: Option<Outcome>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let afar = &mut self.peers.afar;
        // Like those of a mailbox that is gone.
        let Some(alias) = afar.aliases.get_mut(&run.mailbox) else { return false };
        let number = alias.visit;
        if afar.visits.get(&number).is_none_or(|visit| visit.party != from) {
            return true;
        }
        let end = Seq(run.first.0.saturating_add(u64::from(run.count)));
        let found = alias.held.range((channel, run.first)..(channel, end));
        let found: Vec<Seq> = found.map(|(_, seq)| *seq).collect();
        let unknown = found.len() < run.count as usize;
        let mut deliveries: SmallVec<[Run; 1]> = SmallVec::new();
        for seq in found {
            if outcome.is_some() {
                alias.held.remove(&(channel, seq));
            }
            match deliveries.last_mut() {
                Some(last) if last.first.0 + u64::from(last.count) == seq.0 => last.count += 1,
                _ => deliveries.push(Run { mailbox: alias.mailbox, first: seq, count: 1 }),
            }
        }
        if !deliveries.is_empty() {
            let command = match outcome {
                Some(outcome) => Command::Settle(Settle { channel, deliveries, outcome }),
                None => Command::Extend(Extend { channel, deliveries }),
            };
            let link = self.peers.afar.visits[&number].link;
            // A link that cannot keep up gets no more of what it can do without.
            if outcome.is_some() || !self.link_is_full(link) {
                self.tell(number, command, out);
            }
        }
        unknown
    }

    /// The client's socket took so much; the deliveries of other hosts count as the first.
    pub(in crate::broker) fn drained_afar(
        &mut self,
        from: ConnectionId,
        mut deliveries: u32,
        mut bytes: u64,
        out: &mut Vec<Effect>,
    ) {
        for number in self.peers.afar.of(from) {
            let Some(visit) = self.peers.afar.visits.get_mut(&number) else { continue };
            let count = deliveries.min(visit.owed);
            visit.owed -= count;
            let size = if visit.owed == 0 { visit.owed_bytes } else { bytes.min(visit.owed_bytes) };
            visit.owed_bytes -= size;
            visit.drained += count;
            visit.drained_bytes += size;
            deliveries -= count;
            bytes = bytes.saturating_sub(size);
            let much = visit.drained >= DRAINED_DELIVERIES || visit.drained_bytes >= DRAINED_BYTES;
            if visit.drained > 0 && (much || visit.owed == 0) {
                self.tell_drained(number, out);
            }
        }
    }

    pub(super) fn tell_drained(&mut self, number: u32, out: &mut Vec<Effect>) {
        let Some(visit) = self.peers.afar.visits.get_mut(&number) else { return };
        let deliveries = std::mem::take(&mut visit.drained);
        let bytes = std::mem::take(&mut visit.drained_bytes);
        self.tell(number, Command::Drained { deliveries, bytes }, out);
    }
}

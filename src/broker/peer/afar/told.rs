//! What other hosts say to clients of this one.

use smallvec::SmallVec;

use super::{Asked, Visit, Wish};
use crate::broker::Broker;
use crate::broker::command::{ChannelId, Command, ConnectionId, Outcome, Run, Settle};
use crate::broker::event::{Delivery, Effect, Event, Reply};
use crate::broker::name::Time;
use crate::broker::refusal::Refusal;

impl Broker {
    /// What the host at the other end of the link says to a client of this one.
    pub(in crate::broker::peer) fn told(
        &mut self,
        link: ConnectionId,
        number: u32,
        event: Event,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let Some(visit) = self.peers.afar.visits.get_mut(&number) else { return };
        let party = visit.party;
        if visit.link != link {
            return;
        }
        match event {
            Event::Delivered(delivery) => self.given(number, vec![delivery], out),
            Event::DeliveredBatch(batch) => self.given(number, batch, out),
            Event::Reply { channel, ticket, result } => {
                let Some(asked) = visit.asked.remove(&(channel, ticket)) else { return };
                if let Wish::Move(mover) = asked.wish {
                    return self.tell_mover(number, &asked.mailbox, mover, result, now, out);
                }
                let result = self.result_of(number, channel, asked, result, now, out);
                self.answer(party, channel, ticket, result, out);
            }
            Event::Refused { channel, cause, refusal } => {
                self.refuse(party, channel, cause, refusal, out);
            }
            Event::Cancelled { channel, consumer }
                if visit.consumers.remove(&(channel, consumer)).is_some() =>
            {
                out.push(Effect::Notify(party, Event::Cancelled { channel, consumer }));
            }
            Event::Finished { channel, consumer }
                if visit.consumers.remove(&(channel, consumer)).is_some() =>
            {
                out.push(Effect::Notify(party, Event::Finished { channel, consumer }));
            }
            Event::ForceClose(_) => self.end_visit(number, out),
            _ => {}
        }
    }

    fn result_of(
        &mut self,
        number: u32,
        channel: ChannelId,
        asked: Asked,
        result: Result<Reply, Refusal>,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let Asked { mailbox, wish } = asked;
        let afar = &mut self.peers.afar;
        let Some(visit) = afar.visits.get_mut(&number) else { return result };
        match (wish, result) {
            (Wish::Consume(consumer), Err(refusal)) => {
                visit.consumers.remove(&(channel, consumer));
                Err(refusal)
            }
            (Wish::Cancel(consumer), result) => {
                visit.consumers.remove(&(channel, consumer));
                result
            }
            (Wish::Declare(_), Ok(Reply::Declared { ready, consumers, .. })) => {
                Ok(Reply::Declared { name: mailbox, ready, consumers })
            }
            // It went, and the word of that is still on its way.
            (Wish::Declare(declare), Err(Refusal::NoSuchMailbox { .. })) if !declare.passive => {
                let party = visit.party;
                self.declare_mailbox(party, &declare, true, now, out)
            }
            (_, Ok(Reply::Got(Some(mut got)))) => {
                let delivery = &mut got.0;
                if let Some(alias) = afar.alias(number, delivery.mailbox) {
                    afar.hold(alias, delivery);
                }
                Ok(Reply::Got(Some(got)))
            }
            (_, result) => result,
        }
    }

    /// Deliveries of another host, for a client of this one.
    fn given(&mut self, number: u32, deliveries: Vec<Delivery>, out: &mut Vec<Effect>) {
        let mut batch = Vec::with_capacity(deliveries.len());
        for mut delivery in deliveries {
            let afar = &mut self.peers.afar;
            let Some(visit) = afar.visits.get_mut(&number) else { return };
            let size = delivery.message.size() as u64;
            if visit.consumers.contains_key(&(delivery.channel, delivery.consumer)) {
                visit.owed += 1;
                visit.owed_bytes += size;
                if let Some(alias) = afar.alias(number, delivery.mailbox) {
                    afar.hold(alias, &mut delivery);
                }
                batch.push(delivery);
            } else {
                // Too late for its consumer, which the broker ended.
                visit.drained += 1;
                visit.drained_bytes += size;
                self.send_back(number, &delivery, out);
            }
        }
        let Some(visit) = self.peers.afar.visits.get(&number) else { return };
        if visit.drained > 0 && visit.owed == 0 {
            self.tell_drained(number, out);
        }
        let Some(visit) = self.peers.afar.visits.get(&number) else { return };
        let Some(party) = self.connections.get_mut(&visit.party) else { return };
        for delivery in &batch {
            party.in_flight += 1;
            party.in_flight_bytes += delivery.message.size() as u64;
        }
        if !batch.is_empty() {
            out.push(Effect::Notify(visit.party, Event::DeliveredBatch(batch)));
        }
    }

    fn send_back(&mut self, number: u32, delivery: &Delivery, out: &mut Vec<Effect>) {
        let Delivery { channel, mailbox, seq, settled, .. } = *delivery;
        let used = |visit: &Visit| visit.channels.contains(&channel);
        if !settled && self.peers.afar.visits.get(&number).is_some_and(used) {
            let deliveries = SmallVec::from_buf([Run { mailbox, first: seq, count: 1 }]);
            let settle = Settle { channel, deliveries, outcome: Outcome::Released };
            self.tell(number, Command::Settle(settle), out);
        }
    }
}

//! Deliveries of one turn to the same connection become one event.

use smallvec::SmallVec;

use super::command::ConnectionId;
use super::event::{Delivery, Effect, Event};

/// Where the next delivery to a connection may join.
#[derive(Default)]
pub(super) struct Bursts(SmallVec<[Burst; 2]>);

struct Burst {
    to: ConnectionId,
    /// Where its event stands among the effects.
    at: usize,
}

/// So many deliveries make an event at most.
const BURST_MAX: usize = 64;
/// Larger messages are events of their own, so that a connection can write between them.
const BURST_MESSAGE_MAX: usize = 4096;

impl Bursts {
    pub(super) fn add(&mut self, to: ConnectionId, delivery: Delivery, out: &mut Vec<Effect>) {
        let open = self.0.iter_mut().find(|burst| burst.to == to);
        let large = delivery.message.size() > BURST_MESSAGE_MAX;
        if !large
            && let Some(burst) = &open
            && let Some(Effect::Notify(_, event)) = out.get_mut(burst.at)
        {
            match event {
                Event::DeliveredBatch(batch) if batch.len() < BURST_MAX => {
                    return batch.push(delivery);
                }
                Event::Delivered(first) if first.message.size() <= BURST_MESSAGE_MAX => {
                    let mut batch = Vec::with_capacity(8);
                    batch.extend([first.clone(), delivery]);
                    *event = Event::DeliveredBatch(batch);
                    return;
                }
                _ => {}
            }
        }
        // What follows must not overtake this one, so it is where the next may join.
        let at = out.len();
        match open {
            Some(burst) => burst.at = at,
            None => self.0.push(Burst { to, at }),
        }
        out.push(Effect::Notify(to, Event::Delivered(delivery)));
    }
}

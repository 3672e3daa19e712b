//! What the broker says to connections: a queue for each, filled by the broker task without waiting.
//!
//! The number of deliveries in a queue is bounded by the broker's window, that of answers by what
//! the connection asked: it stops reading its socket while it has many of them unsaid.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::broker::{ConnectionId, Event};

/// The events of one connection on their way from the broker task to the connection's task.
#[derive(Default)]
pub(super) struct EventQueue(Mutex<Queued>);

#[derive(Default)]
struct Queued {
    events: VecDeque<Event>,
    /// The reader found nothing and sleeps.
    waker: Option<Waker>,
    severed: bool,
}

/// What a connection finds in its queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Events,
    /// The server does not wait for this connection any longer.
    Severed,
}

impl EventQueue {
    /// Moves all events to `into`, which is empty, or remembers whom to wake.
    /// Without `room` the events stay, and only a severed connection is woken.
    pub(super) fn poll_take(
        &self,
        room: bool,
        into: &mut VecDeque<Event>,
        context: &mut Context<'_>,
    ) -> Poll<Heard> {
        let mut queued = self.lock();
        if queued.severed {
            return Poll::Ready(Heard::Severed);
        }
        if room && !queued.events.is_empty() {
            std::mem::swap(&mut queued.events, into);
            return Poll::Ready(Heard::Events);
        }
        match &mut queued.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    pub(super) fn len(&self) -> usize {
        self.lock().events.len()
    }

    /// Gives back memory after a burst.
    pub(super) fn shrink(&self) {
        let mut queued = self.lock();
        if queued.events.is_empty() {
            queued.events = VecDeque::new();
        }
    }

    /// Adds the events and leaves `events` empty.
    fn deliver(&self, events: &mut VecDeque<Event>) {
        let waker = {
            let mut queued = self.lock();
            if queued.events.is_empty() {
                std::mem::swap(&mut queued.events, events);
            } else {
                queued.events.append(events);
            }
            queued.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn sever(&self) {
        let waker = {
            let mut queued = self.lock();
            queued.severed = true;
            queued.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queued> {
        // Nothing in here can leave the queue half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queues of all connections, as the broker task holds them.
///
/// Events gather here first, so that a batch costs one lock and at most one wake-up for each connection.
#[derive(Default)]
pub(super) struct Outboxes {
    places: HashMap<ConnectionId, usize>,
    outboxes: Vec<Option<Outbox>>,
    free: Vec<usize>,
    /// Neighbouring events mostly go to the same connection.
    last: Option<(ConnectionId, usize)>,
    touched: Vec<usize>,
}

struct Outbox {
    queue: Arc<EventQueue>,
    gathered: VecDeque<Event>,
}

impl Outboxes {
    pub(super) fn add(&mut self, id: ConnectionId, queue: Arc<EventQueue>) {
        let outbox = Some(Outbox { queue, gathered: VecDeque::new() });
        let place = match self.free.pop() {
            Some(place) => {
                self.outboxes[place] = outbox;
                place
            }
            None => {
                self.outboxes.push(outbox);
                self.outboxes.len() - 1
            }
        };
        self.places.insert(id, place);
    }

    pub(super) fn remove(&mut self, id: ConnectionId) {
        self.last = None;
        if let Some(place) = self.places.remove(&id) {
            self.outboxes[place] = None;
            self.free.push(place);
        }
    }

    /// Gathers an event. A connection that is gone hears nothing.
    pub(super) fn push(&mut self, to: ConnectionId, event: Event) {
        let place = match self.last {
            Some((last, place)) if last == to => place,
            _ => {
                let Some(&place) = self.places.get(&to) else { return };
                self.last = Some((to, place));
                place
            }
        };
        let Some(outbox) = &mut self.outboxes[place] else { return };
        if outbox.gathered.is_empty() {
            self.touched.push(place);
        }
        outbox.gathered.push_back(event);
    }

    pub(super) fn push_all(&mut self, mut event: impl FnMut() -> Event) {
        let mut ids: Vec<_> = self.places.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.push(id, event());
        }
    }

    /// Hands over what was gathered and wakes those who got something.
    pub(super) fn flush(&mut self) {
        for place in self.touched.drain(..) {
            if let Some(outbox) = &mut self.outboxes[place] {
                outbox.queue.deliver(&mut outbox.gathered);
            }
        }
    }

    /// Ends every connection without a word.
    pub(super) fn sever(&mut self) {
        for outbox in self.outboxes.iter().flatten() {
            outbox.queue.sever();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::broker::Ticket;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tickets(events: &VecDeque<Event>) -> Vec<u64> {
        events
            .iter()
            .map(|event| match event {
                Event::Closed(Ticket(ticket)) => *ticket,
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_batch_wakes_each_connection_once() {
        let mut outboxes = Outboxes::default();
        let queue = Arc::new(EventQueue::default());
        outboxes.add(ConnectionId(1), queue.clone());
        outboxes.add(ConnectionId(2), Arc::default());
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut context = Context::from_waker(&waker);
        let mut events = VecDeque::new();
        assert!(queue.poll_take(true, &mut events, &mut context).is_pending());
        for ticket in 0..5 {
            outboxes.push(ConnectionId(1), Event::Closed(Ticket(ticket)));
            outboxes.push(ConnectionId(2), Event::Closed(Ticket(ticket)));
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        outboxes.flush();
        outboxes.push(ConnectionId(1), Event::Closed(Ticket(5)));
        outboxes.flush();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(queue.poll_take(true, &mut events, &mut context).is_ready());
        assert_eq!(tickets(&events), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_place_is_reused_and_old_ids_hear_nothing() {
        let mut outboxes = Outboxes::default();
        outboxes.add(ConnectionId(1), Arc::default());
        outboxes.push(ConnectionId(1), Event::Closed(Ticket(1)));
        outboxes.remove(ConnectionId(1));
        let queue = Arc::new(EventQueue::default());
        outboxes.add(ConnectionId(2), queue.clone());
        outboxes.push(ConnectionId(1), Event::Closed(Ticket(2)));
        outboxes.push(ConnectionId(2), Event::Closed(Ticket(3)));
        outboxes.flush();
        let mut events = VecDeque::new();
        let mut context = Context::from_waker(Waker::noop());
        assert!(queue.poll_take(true, &mut events, &mut context).is_ready());
        assert_eq!(tickets(&events), [3]);
        assert_eq!(outboxes.places.len(), 1);
    }

    #[test]
    fn a_severed_connection_is_told_even_without_room() {
        let mut outboxes = Outboxes::default();
        let queue = Arc::new(EventQueue::default());
        outboxes.add(ConnectionId(1), queue.clone());
        let mut context = Context::from_waker(Waker::noop());
        let mut events = VecDeque::new();
        outboxes.push(ConnectionId(1), Event::Closed(Ticket(1)));
        outboxes.flush();
        assert!(queue.poll_take(false, &mut events, &mut context).is_pending());
        outboxes.sever();
        let heard = queue.poll_take(false, &mut events, &mut context);
        assert_eq!(heard, Poll::Ready(Heard::Severed));
    }
}

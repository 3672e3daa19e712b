//! The way from connections to the broker task: bounded, so a connection that is ahead of the broker waits.
//!
//! Two lanes. Connections that publish use one of their own, which the broker task leaves alone while
//! too much waits for the disk; everybody else is served meanwhile. A connection starts on the plain
//! lane, moves to the publishing lane with its first publish and stays there.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc;

use super::outbox::EventQueue;
use crate::broker::{Command, ConnectionId, Peering};

/// Batches that wait in a lane; one batch holds what one read of a socket brought.
pub(super) const LANE_BATCHES_MAX: usize = 256;
/// Batches taken from a lane before effects are performed.
const ROUND_BATCHES_MAX: usize = 32;

/// What one read of a socket asks of the broker.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) from: ConnectionId,
    pub(super) commands: Vec<Command>,
}

pub(super) enum Input {
    /// A connection was accepted. Always its first word.
    Joined(ConnectionId, Arc<EventQueue>),
    Batch(Batch),
    /// The connection's task has ended. Always its last word.
    Left(ConnectionId),
}

/// The connections' end of both lanes.
#[derive(Clone)]
pub(super) struct Requests {
    plain: mpsc::Sender<Input>,
    publishing: mpsc::Sender<Input>,
}

/// The broker task's end of both lanes.
pub(super) struct Intake {
    plain: mpsc::Receiver<Input>,
    publishing: mpsc::Receiver<Input>,
    /// Taken from the publishing lane, not to be seen before what is on the plain lane.
    aside: Vec<Input>,
}

pub(super) fn lanes() -> (Requests, Intake) {
    let (plain, plain_intake) = mpsc::channel(LANE_BATCHES_MAX);
    let (publishing, publishing_intake) = mpsc::channel(LANE_BATCHES_MAX);
    let intake = Intake { plain: plain_intake, publishing: publishing_intake, aside: Vec::new() };
    (Requests { plain, publishing }, intake)
}

impl Requests {
    /// A word of the server itself. With the broker gone, nobody needs it.
    pub(super) async fn tell(&self, command: Command) {
        let batch = Batch { from: crate::broker::SERVER, commands: vec![command] };
        let _ = self.plain.send(Input::Batch(batch)).await;
    }

    fn lane(&self, publishing: bool) -> &mpsc::Sender<Input> {
        if publishing { &self.publishing } else { &self.plain }
    }
}

impl Intake {
    /// Waits for input and takes what is there, up to a bound. Cancelling loses nothing.
    pub(super) async fn take(&mut self, publishing_too: bool, into: &mut VecDeque<Input>) {
        tokio::select! {
            biased;
            Some(input) = self.plain.recv() => into.push_back(input),
            Some(input) = self.publishing.recv(), if publishing_too => self.aside.push(input),
            // Every sender is gone: nothing will ever come.
            else => std::future::pending().await,
        }
        self.take_more(publishing_too, into);
    }

    /// Takes what is there, up to a bound.
    pub(super) fn take_more(&mut self, publishing_too: bool, into: &mut VecDeque<Input>) {
        if publishing_too {
            while self.aside.len() < ROUND_BATCHES_MAX {
                let Ok(input) = self.publishing.try_recv() else { break };
                self.aside.push(input);
            }
        }
        // A connection that moved over may have batches on the plain lane that are older than those
        // set aside. They were there first, so they are among the ones that are there now.
        let plain = if self.aside.is_empty() { ROUND_BATCHES_MAX } else { self.plain.len() };
        for _ in 0..plain {
            let Ok(input) = self.plain.try_recv() else { break };
            into.push_back(input);
        }
        into.extend(self.aside.drain(..));
    }
}

/// One connection's place on the lanes.
pub(super) struct Lane {
    id: ConnectionId,
    requests: Requests,
    publishes: bool,
    waiting: Option<Reservation>,
}

type Reservation = Pin<
    Box<dyn Future<Output = Result<mpsc::OwnedPermit<Input>, mpsc::error::SendError<()>>> + Send>,
>;

/// The broker task is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Lane {
    pub(super) async fn join(
        requests: Requests,
        id: ConnectionId,
        queue: Arc<EventQueue>,
    ) -> Result<Self, Gone> {
        requests.plain.send(Input::Joined(id, queue)).await.map_err(|_| Gone)?;
        Ok(Self { id, requests, publishes: false, waiting: None })
    }

    /// Sends all commands as one batch once there is room, and leaves `commands` empty.
    pub(super) fn poll_send(
        &mut self,
        commands: &mut Vec<Command>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        if let Some(waiting) = &mut self.waiting {
            let permit = ready!(waiting.as_mut().poll(context)).map_err(|_| Gone)?;
            self.waiting = None;
            permit.send(Input::Batch(batch(self.id, commands)));
            return Poll::Ready(Ok(()));
        }
        let publishes = |it: &Command| match it {
            Command::Publish(_) | Command::PublishBatch(_) => true,
            Command::Peer(it) => matches!(**it, Peering::Arrive(_)),
            _ => false,
        };
        self.publishes = self.publishes || commands.iter().any(publishes);
        let sender = self.requests.lane(self.publishes);
        let full = match sender.try_reserve() {
            Ok(permit) => {
                permit.send(Input::Batch(batch(self.id, commands)));
                return Poll::Ready(Ok(()));
            }
            Err(error) => matches!(error, mpsc::error::TrySendError::Full(())),
        };
        if !full {
            return Poll::Ready(Err(Gone));
        }
        self.waiting = Some(Box::pin(sender.clone().reserve_owned()));
        self.poll_send(commands, context)
    }

    /// Says the last word.
    pub(super) async fn leave(mut self, commands: &mut Vec<Command>) {
        if !commands.is_empty() {
            let sent = std::future::poll_fn(|context| self.poll_send(commands, context)).await;
            if sent.is_err() {
                return;
            }
        }
        let _ = self.requests.lane(self.publishes).send(Input::Left(self.id)).await;
    }
}

fn batch(from: ConnectionId, commands: &mut Vec<Command>) -> Batch {
    // The next batch is probably as long as this one.
    let next = Vec::with_capacity(if commands.len() > 4 { commands.len() } else { 0 });
    Batch { from, commands: std::mem::replace(commands, next) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{ChannelId, Message, Name, Parts, Publish, Span, Ticket, WireForm};

    static FORM: WireForm =
        WireForm { id: 255, name: "test", decode: |_| Default::default(), encode: |_, _| () };

    fn publish() -> Command {
        let message = Message::new(
            Parts {
                exchange: Name::from(""),
                buffer: Default::default(),
                key: Span::default(),
                properties: Span::default(),
                body: Span::default(),
                form: &FORM,
                persistent: false,
                priority: 0,
                expiration_ms: None,
            },
            Default::default(),
        );
        Command::Publish(Publish {
            channel: ChannelId(1),
            message: Arc::new(message),
            more_keys: None,
            confirm: None,
            mandatory: false,
            home: false,
        })
    }

    async fn lane(requests: &Requests, id: u64) -> Lane {
        Lane::join(requests.clone(), ConnectionId(id), Arc::default()).await.unwrap()
    }

    async fn send(lane: &mut Lane, command: Command) {
        let mut commands = vec![command];
        std::future::poll_fn(|context| lane.poll_send(&mut commands, context)).await.unwrap();
    }

    fn seen(inputs: &mut VecDeque<Input>) -> Vec<String> {
        inputs
            .drain(..)
            .map(|input| match input {
                Input::Joined(id, _) => format!("{} joined", id.0),
                Input::Left(id) => format!("{} left", id.0),
                Input::Batch(batch) => match &batch.commands[0] {
                    Command::Publish(_) => format!("{} publishes", batch.from.0),
                    _ => format!("{} asks", batch.from.0),
                },
            })
            .collect()
    }

    #[tokio::test]
    async fn publishers_wait_while_others_are_served() {
        let (requests, mut intake) = lanes();
        let mut inputs = VecDeque::new();
        let mut publisher = lane(&requests, 1).await;
        let mut other = lane(&requests, 2).await;
        send(&mut publisher, publish()).await;
        send(&mut other, Command::Close(Some(Ticket(1)))).await;
        intake.take(false, &mut inputs).await;
        assert_eq!(seen(&mut inputs), ["1 joined", "2 joined", "2 asks"]);
        intake.take(true, &mut inputs).await;
        assert_eq!(seen(&mut inputs), ["1 publishes"]);
    }

    #[tokio::test]
    async fn a_connection_that_changes_lanes_keeps_its_order() {
        let (requests, mut intake) = lanes();
        let mut inputs = VecDeque::new();
        let mut publisher = lane(&requests, 1).await;
        for _ in 0..2 * ROUND_BATCHES_MAX {
            send(&mut publisher, Command::Close(Some(Ticket(1)))).await;
        }
        send(&mut publisher, publish()).await;
        publisher.leave(&mut Vec::new()).await;
        let mut order = Vec::new();
        while order.last().is_none_or(|last| last != "1 left") {
            intake.take(true, &mut inputs).await;
            order.extend(seen(&mut inputs));
        }
        assert_eq!(order.len(), 2 * ROUND_BATCHES_MAX + 3);
        assert_eq!(order[order.len() - 2..], ["1 publishes", "1 left"]);
    }

    #[tokio::test]
    async fn a_full_lane_makes_the_connection_wait() {
        let (requests, mut intake) = lanes();
        let mut publisher = lane(&requests, 1).await;
        for _ in 0..LANE_BATCHES_MAX {
            send(&mut publisher, publish()).await;
        }
        let mut commands = vec![publish()];
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(publisher.poll_send(&mut commands, &mut context).is_pending());
        assert_eq!(commands.len(), 1);
        let mut inputs = VecDeque::new();
        intake.take(true, &mut inputs).await;
        assert!(publisher.poll_send(&mut commands, &mut context).is_ready());
        assert!(commands.is_empty());
    }
}

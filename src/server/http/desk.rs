//! The way from HTTP requests to the broker: one lane for all of them, answers paired by ticket.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

use crate::broker::inspect::{Inspect, Inspection};
use crate::broker::{
    ChannelId, Command, Event, Name, OnBehalf, PeerEvent, Refusal, Reply, Request, SERVER, Settle,
    Ticket,
};
use crate::management::Fault;
use crate::server::intake::{Lane, Requests};
use crate::server::membership::Members;
use crate::server::outbox::{EventQueue, Heard};

/// Further requests wait.
const WAITING_MAX: usize = 64;

/// What leases and answers of this desk stand under.
pub(super) const CHANNEL: ChannelId = ChannelId(0);

#[derive(Clone)]
pub(in crate::server) struct Desk(mpsc::Sender<Ask>);

enum Ask {
    Request(Request, oneshot::Sender<Result<Reply, Refusal>>),
    Settle(Settle),
}

impl Desk {
    /// Opens the desk on a task of its own, which ends with the broker's or with the last clone.
    pub(in crate::server) fn open(requests: Requests, members: Option<Members>) -> Self {
        let (asks, intake) = mpsc::channel(WAITING_MAX);
        tokio::spawn(serve(requests, intake, members));
        Self(asks)
    }

    pub(super) async fn ask(&self, request: Request) -> Result<Reply, Fault> {
        let gone = || Fault::unavailable("the broker is going down");
        let (answer, answered) = oneshot::channel();
        self.0.send(Ask::Request(request, answer)).await.map_err(|_| gone())?;
        Ok(answered.await.map_err(|_| gone())??)
    }

    /// As if this user had asked it, in this virtual host.
    pub(super) async fn ask_for(
        &self,
        user: &Name,
        vhost: &Name,
        request: Request,
    ) -> Result<Reply, Fault> {
        let behalf = OnBehalf { user: user.clone(), vhost: vhost.clone(), request };
        self.ask(Request::OnBehalf(Box::new(behalf))).await
    }

    pub(super) async fn settle(&self, settle: Settle) {
        // With the broker gone, its leases are too.
        let _ = self.0.send(Ask::Settle(settle)).await;
    }

    pub(super) async fn inspect(&self, inspect: Inspect) -> Result<Inspection, Fault> {
        match self.ask(Request::Inspect(inspect)).await? {
            Reply::Inspection(found) => Ok(*found),
            _ => Err(Fault::unavailable("the broker answers something else")),
        }
    }
}

async fn serve(requests: Requests, asks: mpsc::Receiver<Ask>, members: Option<Members>) {
    let queue = Arc::new(EventQueue::default());
    let Ok(lane) = Lane::join(requests, SERVER, queue.clone()).await else { return };
    let mut clerk = Clerk {
        asks,
        lane,
        queue,
        events: VecDeque::new(),
        commands: Vec::new(),
        waiting: HashMap::new(),
        tickets: 0,
        members,
    };
    poll_fn(|context| clerk.poll(context)).await;
}

struct Clerk {
    asks: mpsc::Receiver<Ask>,
    lane: Lane,
    queue: Arc<EventQueue>,
    events: VecDeque<Event>,
    commands: Vec<Command>,
    /// By ticket.
    waiting: HashMap<u64, oneshot::Sender<Result<Reply, Refusal>>>,
    tickets: u64,
    members: Option<Members>,
}

impl Clerk {
    /// Ready when there is nobody left to ask or to answer.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = false;
            match self.queue.poll_take(true, &mut self.events, context) {
                Poll::Ready(Heard::Severed) => return Poll::Ready(()),
                Poll::Ready(Heard::Events) => moved = true,
                Poll::Pending => {}
            }
            for event in self.events.drain(..) {
                match event {
                    Event::Reply { ticket: Ticket(ticket), result, .. } => {
                        if let Some(answer) = self.waiting.remove(&ticket) {
                            // Whoever asked may have gone away.
                            let _ = answer.send(result);
                        }
                    }
                    Event::Peer(PeerEvent::Forgotten { host }) => {
                        if let Some(members) = &self.members {
                            members.forget(&host);
                        }
                    }
                    _ => {}
                }
            }
            while self.commands.len() < WAITING_MAX {
                match self.asks.poll_recv(context) {
                    Poll::Ready(Some(ask)) => self.take(ask),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            if !self.commands.is_empty() {
                match self.lane.poll_send(&mut self.commands, context) {
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Request(request, answer) => {
                self.tickets += 1;
                self.waiting.insert(self.tickets, answer);
                let ticket = Ticket(self.tickets);
                self.commands.push(Command::Request(CHANNEL, ticket, Box::new(request)));
            }
            Ask::Settle(settle) => self.commands.push(Command::Settle(settle)),
        }
    }
}

//! A producer that gathers single messages into batches: a batch goes when it is full, or has waited long enough.
//!
//! ```text
//! send ──> gathering ──full, or lingered──> in flight (in order) ──confirmed──> Taken
//!              ^                              │ connection lost
//!              └── next batch                 └─> all of them again, in order
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::Session;
use crate::client::{Error, NewMessage, Pushed, Receipt};

/// How long and how much to gather.
#[derive(Clone, Copy, Debug)]
pub struct Linger {
    pub time: Duration,
    pub messages_max: usize,
    pub bytes_max: usize,
    /// Batches on their way; with so many, senders wait.
    pub batches_max: usize,
}

impl Default for Linger {
    fn default() -> Self {
        Self {
            time: Duration::from_millis(5),
            messages_max: 500,
            bytes_max: 256 << 10,
            batches_max: 8,
        }
    }
}

/// Sends to one mailbox. What was sent goes out also after it is dropped.
pub struct Producer {
    to: mpsc::Sender<Item>,
}

/// Stands for the broker's word on one message.
#[derive(Debug)]
#[must_use = "it tells whether the broker has the message"]
pub struct Taken(oneshot::Receiver<Result<(), Error>>);

enum Item {
    Message(NewMessage, oneshot::Sender<Result<(), Error>>),
    /// Do not wait for more.
    Flush(oneshot::Sender<()>),
}

impl Producer {
    pub(super) fn start(session: Session, mailbox: String, linger: Linger) -> Self {
        let (to, items) = mpsc::channel(linger.messages_max.max(1));
        let work = Work {
            session,
            mailbox,
            linger,
            items,
            gathering: Batch::default(),
            since: Instant::now(),
            in_flight: VecDeque::new(),
            flushes: Vec::new(),
        };
        tokio::spawn(work.run());
        Self { to }
    }

    /// Hands over a message; waits only while too much is on its way.
    pub async fn send(&self, message: impl Into<NewMessage>) -> Result<Taken, Error> {
        let (to, taken) = oneshot::channel();
        self.to.send(Item::Message(message.into(), to)).await.map_err(|_| gone())?;
        Ok(Taken(taken))
    }

    /// Sends what is gathered and waits until the broker has spoken of everything sent so far.
    pub async fn flush(&self) -> Result<(), Error> {
        let (to, flushed) = oneshot::channel();
        self.to.send(Item::Flush(to)).await.map_err(|_| gone())?;
        flushed.await.map_err(|_| gone())
    }
}

impl Future for Taken {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(gone())))
    }
}

#[derive(Default)]
struct Batch {
    messages: Vec<NewMessage>,
    senders: Vec<oneshot::Sender<Result<(), Error>>>,
    bytes: usize,
}

struct Work {
    session: Session,
    mailbox: String,
    linger: Linger,
    items: mpsc::Receiver<Item>,
    gathering: Batch,
    /// When the first message of `gathering` came.
    since: Instant,
    /// Without a receipt where it has to be sent again.
    in_flight: VecDeque<(Batch, Option<Receipt>)>,
    flushes: Vec<oneshot::Sender<()>>,
}

impl Work {
    async fn run(mut self) {
        let mut open = true;
        while open || !self.gathering.messages.is_empty() || !self.in_flight.is_empty() {
            let due = self.is_due(open);
            let room = self.in_flight.len() < self.linger.batches_max.max(1);
            if due && room {
                let batch = std::mem::take(&mut self.gathering);
                self.in_flight.push_back((batch, None));
                self.send_all().await;
                continue;
            }
            let lingering = !self.gathering.messages.is_empty() && !due;
            let until = self.since + self.linger.time;
            let receipt = self.in_flight.front_mut().and_then(|(_, receipt)| receipt.as_mut());
            tokio::select! {
                item = self.items.recv(), if open && !due => match item {
                    Some(Item::Message(message, to)) => self.gather(message, to),
                    Some(Item::Flush(to)) => self.flushes.push(to),
                    None => open = false,
                },
                () = sleep_until(until), if lingering => {}
                answer = confirmed(receipt) => self.answered(answer).await,
            }
            if self.gathering.messages.is_empty() && self.in_flight.is_empty() {
                for flush in self.flushes.drain(..) {
                    let _ = flush.send(());
                }
            }
        }
    }

    fn gather(&mut self, message: NewMessage, to: oneshot::Sender<Result<(), Error>>) {
        if self.gathering.messages.is_empty() {
            self.since = Instant::now();
        }
        self.gathering.bytes += message.body.len();
        self.gathering.messages.push(message);
        self.gathering.senders.push(to);
    }

    fn is_due(&self, open: bool) -> bool {
        let Batch { messages, bytes, .. } = &self.gathering;
        !messages.is_empty()
            && (!open
                || !self.flushes.is_empty()
                || messages.len() >= self.linger.messages_max
                || *bytes >= self.linger.bytes_max
                || self.since.elapsed() >= self.linger.time)
    }

    /// Sends every batch that is not on its way, in order.
    async fn send_all(&mut self) {
        'again: loop {
            let client = match self.session.client().await {
                Ok(client) => client,
                Err(error) => return self.fail(&error),
            };
            for (batch, receipt) in self.in_flight.iter_mut().filter(|(_, it)| it.is_none()) {
                match client.start_push("", &self.mailbox, &batch.messages).await {
                    Ok(new) => *receipt = Some(new),
                    Err(error) if error.is_lost() => {
                        // Those before it are lost too, and must not come behind it.
                        self.in_flight.iter_mut().for_each(|(_, receipt)| *receipt = None);
                        continue 'again;
                    }
                    Err(error) => return self.fail(&error),
                }
            }
            return;
        }
    }

    /// The broker does not come back.
    fn fail(&mut self, error: &Error) {
        for (batch, _) in self.in_flight.drain(..) {
            batch.senders.into_iter().for_each(|to| drop(to.send(Err(error.clone()))));
        }
    }

    async fn answered(&mut self, answer: Result<Pushed, Error>) {
        if let Err(error) = &answer
            && error.is_lost()
        {
            self.in_flight.iter_mut().for_each(|(_, receipt)| *receipt = None);
            return self.send_all().await;
        }
        let Some((batch, _)) = self.in_flight.pop_front() else { return };
        let refused = match answer {
            Ok(pushed) => pushed.refused,
            Err(error) => {
                batch.senders.into_iter().for_each(|to| drop(to.send(Err(error.clone()))));
                return;
            }
        };
        let mut refused = refused.into_iter().peekable();
        for (to, index) in batch.senders.into_iter().zip(0u32..) {
            let outcome = match refused.next_if(|it| it.index == index) {
                None => Ok(()),
                Some(refused) => Err(Error::Refused { code: refused.code, text: refused.text }),
            };
            let _ = to.send(outcome);
        }
    }
}

/// The broker's word on a batch; never where none is on its way.
async fn confirmed(receipt: Option<&mut Receipt>) -> Result<Pushed, Error> {
    match receipt {
        Some(receipt) => receipt.await,
        None => std::future::pending().await,
    }
}

fn gone() -> Error {
    Error::Lost("the producer has ended".into())
}

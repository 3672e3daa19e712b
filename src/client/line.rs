//! The connection itself: requests with their ids out, answers in, and who waits for which.
//!
//! Requests are written into one buffer; a task of its own takes what is there to the socket. So
//! calls do not wait for each other, and many small ones become one write.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pillarbox_native::{Kind, write_empty};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::message::Delivery;
use super::reader;
use super::subscription::Queue;
use super::{Error, Pulled, Pushed};

/// Beyond this much unwritten, pushes wait.
const UNWRITTEN_MAX: usize = 1 << 20;

/// One connection and its two tasks.
pub(super) struct Line {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// What the tasks and the callers share.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    written: Notify,
    /// There is room to write more.
    room: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) out: BytesMut,
    last_id: u32,
    pub(super) waiting: HashMap<u32, Waiting>,
    pub(super) subscriptions: HashMap<u16, Arc<Queue>>,
    last_subscription: u16,
    /// The connection has ended, and why.
    ended: Option<Error>,
}

/// Somebody who waits for an answer.
pub(super) struct Waiting {
    pub(super) to: oneshot::Sender<Result<Answer, Error>>,
    /// What came of an answer in several frames.
    pub(super) begun: Pulled,
}

/// What a request brought.
#[derive(Debug)]
pub(super) enum Answer {
    /// The payload depends on the request; true if there is more to ask for.
    Done(Bytes, bool),
    Pushed(Pushed),
    Pulled(Pulled),
}

/// Stands for an answer on its way.
#[must_use = "the answer tells whether it was done"]
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Answer, Error>>);

impl Receipt {
    /// Waits for what became of a push.
    pub async fn pushed(self) -> Result<Pushed, Error> {
        match self.answer().await? {
            Answer::Pushed(pushed) => Ok(pushed),
            _ => Err(Error::unexpected("a push")),
        }
    }

    pub(super) async fn done(self) -> Result<(Bytes, bool), Error> {
        match self.answer().await? {
            Answer::Done(payload, more) => Ok((payload, more)),
            _ => Err(Error::unexpected("a request")),
        }
    }

    pub(super) async fn answer(self) -> Result<Answer, Error> {
        self.0.await.unwrap_or_else(|_| Err(Error::Lost("the client was closed".into())))
    }
}

impl Future for Receipt {
    type Output = Result<Pushed, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| match answer {
            Ok(Ok(Answer::Pushed(pushed))) => Ok(pushed),
            Ok(Ok(_)) => Err(Error::unexpected("a push")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Lost("the client was closed".into())),
        })
    }
}

impl Line {
    /// Starts the tasks. `rest` was read behind the login's answer.
    pub(super) fn start(
        input: impl AsyncRead + Unpin + Send + 'static,
        output: impl AsyncWrite + Unpin + Send + 'static,
        rest: BytesMut,
        heartbeat: Duration,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let reader = tokio::spawn(reader::run(input, rest, shared.clone()));
        let writer = tokio::spawn(write(output, heartbeat, shared.clone()));
        Self { shared, reader, writer }
    }

    /// Writes a request with an id of its own.
    pub(super) fn ask(&self, encode: impl FnOnce(u32, &mut BytesMut)) -> Result<Receipt, Error> {
        let (to, answer) = oneshot::channel();
        let mut state = self.shared.lock();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        let mut id = state.last_id.wrapping_add(1).max(1);
        while state.waiting.contains_key(&id) {
            id = id.wrapping_add(1).max(1);
        }
        state.last_id = id;
        state.waiting.insert(id, Waiting { to, begun: Pulled::default() });
        encode(id, &mut state.out);
        drop(state);
        self.shared.written.notify_one();
        Ok(Receipt(answer))
    }

    /// Writes a request that wants no answer.
    pub(super) fn tell(&self, encode: impl FnOnce(&mut BytesMut)) -> Result<(), Error> {
        let mut state = self.shared.lock();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        encode(&mut state.out);
        drop(state);
        self.shared.written.notify_one();
        Ok(())
    }

    /// A number for a new subscription, and where its deliveries will go.
    pub(super) fn subscription(&self, settled: bool) -> Result<(u16, Arc<Queue>), Error> {
        let mut state = self.shared.lock();
        if state.subscriptions.len() >= usize::from(u16::MAX) - 2 {
            return Err(Error::Lost("too many subscriptions on one connection".into()));
        }
        let mut number = state.last_subscription;
        loop {
            number = if number >= u16::MAX - 1 { 1 } else { number + 1 };
            if !state.subscriptions.contains_key(&number) {
                break;
            }
        }
        state.last_subscription = number;
        let queue = Arc::new(Queue::new(settled));
        state.subscriptions.insert(number, queue.clone());
        Ok((number, queue))
    }

    pub(super) fn forget_subscription(&self, number: u16) {
        self.shared.lock().subscriptions.remove(&number);
    }

    /// Why the connection has ended, if it has.
    pub(super) fn ended(&self) -> Option<Error> {
        self.shared.lock().ended.clone()
    }

    /// Waits until not too much is unwritten.
    pub(super) async fn has_room(&self) -> Result<(), Error> {
        loop {
            let room = self.shared.room.notified();
            {
                let state = self.shared.lock();
                if let Some(error) = &state.ended {
                    return Err(error.clone());
                }
                if state.out.len() < UNWRITTEN_MAX {
                    return Ok(());
                }
            }
            room.await;
        }
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        let receipt = self.ask(|id, out| write_empty(Kind::Close, id, out))?;
        match receipt.answer().await {
            Ok(_) | Err(Error::Closed(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody who waits is told why the connection ended.
    pub(super) fn end(&self, error: &Error) {
        let (waiting, subscriptions) = {
            let mut state = self.lock();
            if state.ended.is_some() {
                return;
            }
            state.ended = Some(error.clone());
            state.out = BytesMut::new();
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.subscriptions))
        };
        for waiting in waiting.into_values() {
            let _ = waiting.to.send(Err(error.clone()));
        }
        for queue in subscriptions.into_values() {
            queue.end(Some(error.clone()));
        }
        self.room.notify_waiters();
        self.written.notify_one();
    }
}

/// Takes to the socket what callers wrote, and gives a sign of life where they are quiet.
async fn write(mut socket: impl AsyncWrite + Unpin, heartbeat: Duration, shared: Arc<Shared>) {
    let mut writing = BytesMut::new();
    let mut quiet = Instant::now();
    loop {
        {
            let mut state = shared.lock();
            if state.ended.is_some() {
                return;
            }
            std::mem::swap(&mut state.out, &mut writing);
        }
        if writing.is_empty() {
            tokio::select! {
                () = shared.written.notified() => {}
                () = sleep_until(quiet + heartbeat) => write_empty(Kind::Ping, 0, &mut writing),
            }
            if writing.is_empty() {
                continue;
            }
        }
        shared.room.notify_waiters();
        if let Err(error) = socket.write_all(&writing).await {
            return shared.end(&Error::lost(&error));
        }
        writing.clear();
        quiet = Instant::now();
    }
}

impl Waiting {
    pub(super) fn add(&mut self, deliveries: Vec<Delivery>, left: u64) {
        self.begun.deliveries.extend(deliveries);
        self.begun.left = left;
    }
}

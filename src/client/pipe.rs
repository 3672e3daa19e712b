//! Byte pipes: two programs, a mailbox for each, and bytes both ways.
//!
//! ```text
//! connector                                   listener (mailbox pipe:NAME)
//!   pipe/connect, reply-to its box  ──>
//!                                   <──  pipe/accept, reply-to its box
//!   pipe/data, pipe/end             <─>  pipe/data, pipe/end
//!   pipe/taken: bytes taken so far  <─>  at most WINDOW bytes are ahead of it
//!   pipe/close                      <─>  the last will of both
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Client, Delivery, Error, Mailbox, NewMessage, Receipt, Subscribe, Subscription, Will};

/// Bytes that may be on their way and not yet taken by the other program.
const WINDOW: u64 = 1 << 20;
/// The largest piece that is sent as one message.
const CHUNK: usize = 64 << 10;
/// Pieces sent before the first of them is confirmed.
const UNCONFIRMED_MAX: usize = 16;
/// Between looks for somebody who listens.
const RETRY: Duration = Duration::from_millis(100);

const CONNECT: &[u8] = b"pipe/connect";
const ACCEPT: &[u8] = b"pipe/accept";
const DATA: &[u8] = b"pipe/data";
const END: &[u8] = b"pipe/end";
const TAKEN: &[u8] = b"pipe/taken";
const CLOSE: &[u8] = b"pipe/close";

/// Waits for others to connect to a name.
pub struct PipeListener {
    client: Client,
    calls: Subscription,
}

/// Both ends of one program's side.
pub struct Pipe {
    pub reader: PipeReader,
    pub writer: PipeWriter,
}

/// What the other program writes.
pub struct PipeReader {
    client: Client,
    /// The other program's mailbox.
    other: String,
    pieces: mpsc::UnboundedReceiver<Result<Bytes, Error>>,
    taken: u64,
    told: u64,
    _sorter: Arc<Sorter>,
}

/// The way to the other program.
pub struct PipeWriter {
    client: Client,
    other: String,
    sent: u64,
    /// How much the other program took; closed when it went.
    taken: watch::Receiver<u64>,
    unconfirmed: VecDeque<Receipt>,
    /// Without it, nobody would hear how much was taken.
    _sorter: Arc<Sorter>,
}

/// Sorts what comes, while either end of this side is there.
struct Sorter(JoinHandle<()>);

impl Drop for Sorter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Listens for pipes under a name, which is free again when the connection ends.
    pub async fn listen_pipe(&self, name: &str) -> Result<PipeListener, Error> {
        let mailbox = Mailbox { name: mailbox_of(name), exclusive: true, ..Mailbox::default() };
        self.declare(&mailbox).await?;
        let subscribe = Subscribe { credit: 1, exclusive: true, ..Subscribe::default() };
        let calls = self.subscribe(&mailbox.name, &subscribe).await?;
        Ok(PipeListener { client: self.clone(), calls })
    }

    /// Connects to whoever listens under a name, and waits so long for somebody to do so.
    pub async fn connect_pipe(&self, name: &str, patience: Duration) -> Result<Pipe, Error> {
        let until = Instant::now() + patience;
        let (own, mut incoming) = self.pipe_box().await?;
        let call = control(CONNECT).with(|it| it.reply_to = Some(own.into()));
        loop {
            match self.push(&mailbox_of(name), call.clone()).await {
                Ok(()) => break,
                Err(error) if error.code() != Some(pillarbox_native::Code::NotFound) => {
                    return Err(error);
                }
                Err(_) if Instant::now() < until => sleep(RETRY).await,
                Err(error) => return Err(error),
            }
        }
        let answer = tokio::time::timeout_at(until.max(Instant::now() + RETRY), incoming.next());
        let answer = answer.await.map_err(|_| Error::Timeout)??.ok_or_else(broken)?;
        let properties = answer.properties();
        if properties.kind.as_deref() != Some(ACCEPT) {
            return Err(broken());
        }
        let other = text(properties.reply_to);
        self.pipe(other, incoming).await
    }

    /// A mailbox of this program's side, and what comes to it.
    async fn pipe_box(&self) -> Result<(String, Subscription), Error> {
        let mailbox = self.declare(&Mailbox::private()).await?.name;
        let subscribe = Subscribe { credit: 0, settled: true, ..Subscribe::default() };
        let incoming = self.subscribe(&mailbox, &subscribe).await?;
        Ok((mailbox, incoming))
    }

    async fn pipe(&self, other: String, incoming: Subscription) -> Result<Pipe, Error> {
        let close = Will::to(&other, control(CLOSE)).on_any_end();
        self.set_will(incoming.number(), &close).await?;
        let (pieces_to, pieces) = mpsc::unbounded_channel();
        let (taken_to, taken) = watch::channel(0);
        let sorter = Arc::new(Sorter(tokio::spawn(sort(incoming, pieces_to, taken_to))));
        let writer = PipeWriter {
            client: self.clone(),
            other: other.clone(),
            sent: 0,
            taken,
            unconfirmed: VecDeque::new(),
            _sorter: sorter.clone(),
        };
        let client = self.clone();
        let reader = PipeReader { client, other, pieces, taken: 0, told: 0, _sorter: sorter };
        Ok(Pipe { reader, writer })
    }
}

impl PipeListener {
    /// The next program that connects.
    pub async fn accept(&mut self) -> Result<Pipe, Error> {
        loop {
            let call = self.calls.next().await?.ok_or_else(broken)?;
            let asked = call.properties();
            self.client.settle([&call], super::Outcome::Accepted).await?;
            if asked.kind.as_deref() != Some(CONNECT) {
                continue;
            }
            let other = text(asked.reply_to);
            let (own, incoming) = self.client.pipe_box().await?;
            let pipe = self.client.pipe(other.clone(), incoming).await?;
            let accept = control(ACCEPT).with(|it| it.reply_to = Some(own.into()));
            match self.client.push(&other, accept).await {
                Ok(()) => return Ok(pipe),
                // It went away meanwhile.
                Err(Error::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl PipeReader {
    /// The next bytes; `None` when the other program has ended its side, an error when it went without a word.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(piece) = self.pieces.recv().await else { return Ok(None) };
        let piece = piece?;
        self.taken += piece.len() as u64;
        if self.taken - self.told >= WINDOW / 4 {
            self.told = self.taken;
            let taken = NewMessage { body: self.taken.to_string().into(), ..control(TAKEN) };
            // Where it has gone, it waits for no word of ours.
            drop(self.client.start_push("", &self.other, [&taken]).await?);
        }
        Ok(Some(piece))
    }
}

impl PipeWriter {
    /// Sends bytes; waits while the other program is too far behind.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let ahead = |taken: u64| self.sent - taken;
            let room = self.taken.wait_for(|taken| ahead(*taken) < WINDOW).await;
            let room = WINDOW - ahead(*room.map_err(|_| broken())?);
            let size = bytes.len().min(CHUNK).min(room as usize);
            let piece = bytes.split_to(size);
            self.sent += size as u64;
            self.send(NewMessage { body: piece, ..control(DATA) }).await?;
        }
        Ok(())
    }

    /// Tells the other program that nothing more comes, and waits until the broker has everything.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.send(control(END)).await?;
        while let Some(receipt) = self.unconfirmed.pop_front() {
            receipt.await?.into_result()?;
        }
        Ok(())
    }

    async fn send(&mut self, message: NewMessage) -> Result<(), Error> {
        let receipt = self.client.start_push("", &self.other, [&message]).await?;
        self.unconfirmed.push_back(receipt);
        while self.unconfirmed.len() > UNCONFIRMED_MAX
            && let Some(receipt) = self.unconfirmed.pop_front()
        {
            receipt.await?.into_result()?;
        }
        Ok(())
    }
}

/// Parts bytes from words about them, until the other program has gone.
async fn sort(
    mut incoming: Subscription,
    pieces: mpsc::UnboundedSender<Result<Bytes, Error>>,
    taken: watch::Sender<u64>,
) {
    let mut pieces = Some(pieces);
    loop {
        let message = match incoming.next().await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => {
                if let Some(pieces) = &pieces {
                    let _ = pieces.send(Err(error));
                }
                return;
            }
        };
        match &*kind(&message) {
            DATA => {
                if let Some(pieces) = &pieces {
                    let _ = pieces.send(Ok(message.body_bytes()));
                }
            }
            END => pieces = None,
            TAKEN => {
                let told = std::str::from_utf8(message.body()).ok().and_then(|it| it.parse().ok());
                taken.send_if_modified(|taken| {
                    let more = told.is_some_and(|told: u64| told > *taken);
                    *taken = told.unwrap_or_default().max(*taken);
                    more
                });
            }
            CLOSE => {
                if let Some(pieces) = &pieces {
                    let _ = pieces.send(Err(broken()));
                }
                return;
            }
            _ => {}
        }
    }
}

fn mailbox_of(name: &str) -> String {
    format!("pipe:{name}")
}

/// A word of the pipe itself, which need not survive the broker.
fn control(kind: &'static [u8]) -> NewMessage {
    NewMessage::default().with(|it| {
        it.kind = Some(Bytes::from_static(kind));
        it.delivery_mode = Some(1);
    })
}

fn kind(message: &Delivery) -> Bytes {
    message.properties().kind.unwrap_or_default()
}

fn text(bytes: Option<Bytes>) -> String {
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn broken() -> Error {
    Error::Lost("the other end of the pipe went away".into())
}

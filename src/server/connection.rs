//! One connection: its socket, its session and the way between them and the broker task.
//!
//! The same loop for every protocol. Each pass looks at, in this order: what the broker says, a checked
//! password, commands for the broker, bytes for the socket, bytes from the socket, the time.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::Span;

use super::clock::Clock;
use super::intake::{Lane, Requests};
use super::newcomer::Newcomer;
use super::outbox::{EventQueue, Heard};
use super::socket::Socket;
use super::throttle::Origin;
use super::timer::Timer;
use super::verifier::Verifier;
use crate::broker::{Command, ConnectionId, Event, Time};
use crate::sessions::{Outbox, Session};

/// Events become bytes in slices of this size, each written before the next is made.
const WIRE_SLICE: usize = 256 << 10;
/// With so many events unsaid, because the client does not read, nothing more is read from it.
const UNSAID_MAX: usize = 64 << 10;
/// Input of a client that has not logged in.
pub(super) const LOGIN_INPUT_MAX: usize = 64 << 10;
/// Passes before other tasks of the thread get their turn.
const PASSES_MAX: usize = 8;
/// Buffers of a connection that was quiet for so long are given back.
const QUIET_MS: u64 = 10_000;
/// After our last word, the client's are read and forgotten for so long, and up to so many bytes.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) login_timeout_ms: u64,
    pub(super) write_stall_ms: u64,
    /// Of one message and what belongs to it, where the session does not say so earlier.
    pub(super) input_max: usize,
    /// The broker's window, a quarter of which may be drained without a word.
    pub(super) window_deliveries: u32,
    pub(super) window_bytes: u64,
}

/// What a connection shares with the server.
#[derive(Clone)]
pub(super) struct House {
    pub(super) requests: Requests,
    pub(super) verifier: Arc<Verifier>,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("closed")]
    Closed,
    #[error("the client went away")]
    ClientGone,
    #[error("socket failed: {0}")]
    Socket(#[from] io::Error),
    #[error("no login in time")]
    LoginTimeout,
    #[error("more than {LOGIN_INPUT_MAX} bytes before login")]
    LoginInput,
    #[error("a message larger than the limit")]
    Input,
    #[error("the client stopped reading")]
    Stalled,
    #[error("the server did not wait any longer")]
    Severed,
    #[error("the session failed; this is a bug")]
    Panicked,
    #[error("the broker is gone")]
    BrokerGone,
}

/// Carries one conversation from the first byte to the last.
pub(super) async fn drive<I>(
    io: I,
    id: ConnectionId,
    session: Box<dyn Session>,
    origin: Origin,
    newcomer: Option<Arc<Newcomer>>,
    house: House,
    span: Span,
) -> End
where
    I: AsyncRead + AsyncWrite + Unpin + Send,
{
    let queue = Arc::new(EventQueue::default());
    let Ok(lane) = Lane::join(house.requests.clone(), id, queue.clone()).await else {
        return End::BrokerGone;
    };
    let mut conversation = Conversation::new(io, session, origin, newcomer, lane, queue, house);
    let end = poll_fn(|context| {
        // A session that panicked is not called again.
        let polled = catch_unwind(AssertUnwindSafe(|| conversation.poll(&span, context)));
        polled.unwrap_or(Poll::Ready(End::Panicked))
    })
    .await;
    conversation.finish(&end).await;
    end
}

struct Conversation<I> {
    socket: Socket<I>,
    session: Box<dyn Session>,
    origin: Origin,
    /// Until the client is known.
    newcomer: Option<Arc<Newcomer>>,
    lane: Lane,
    queue: Arc<EventQueue>,
    /// Taken from the queue and not yet told to the session.
    events: VecDeque<Event>,
    out: Outbox,
    /// The session was called since its last flush.
    unsettled: bool,
    /// Written to the socket and not yet reported.
    drained_deliveries: u32,
    drained_bytes: u64,
    verifying: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    /// The session asked for a virtual host: the client is known.
    opened: bool,
    paused: bool,
    verifier: Arc<Verifier>,
    clock: Clock,
    limits: Limits,
    timer: Timer,
    accepted: Time,
    /// Since when the socket takes nothing of what is to be written.
    blocked: Option<Time>,
    /// When to give back memory.
    shrink: Option<Time>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Conversation<I> {
    fn new(
        io: I,
        session: Box<dyn Session>,
        origin: Origin,
        newcomer: Option<Arc<Newcomer>>,
        lane: Lane,
        queue: Arc<EventQueue>,
        house: House,
    ) -> Self {
        let now = house.clock.now();
        Self {
            socket: Socket::new(io),
            session,
            origin,
            newcomer,
            lane,
            queue,
            events: VecDeque::new(),
            out: Outbox::default(),
            unsettled: false,
            drained_deliveries: 0,
            drained_bytes: 0,
            verifying: None,
            opened: false,
            paused: false,
            verifier: house.verifier,
            clock: house.clock,
            limits: house.limits,
            timer: Timer::new(),
            accepted: now,
            blocked: None,
            shrink: None,
        }
    }

    fn poll(&mut self, span: &Span, context: &mut Context<'_>) -> Poll<End> {
        for _ in 0..PASSES_MAX {
            match self.pass(context) {
                Ok(moved) => {
                    self.remark(span);
                    if self.out.close && self.said_all() {
                        return Poll::Ready(End::Closed);
                    }
                    if !moved {
                        return Poll::Pending;
                    }
                }
                Err(end) => {
                    self.remark(span);
                    return Poll::Ready(end);
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Looks at everything once; true if anything happened.
    fn pass(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let now = self.clock.now();
        let mut moved = self.hear(now, context)?;
        moved |= self.verified(now, context);
        if std::mem::take(&mut self.unsettled) {
            self.session.flush(&mut self.out);
        }
        self.heed_outbox();
        let told = moved;
        moved |= self.send(context)?;
        moved |= self.write(now, context)?;
        moved |= self.read(told, now, context)?;
        if moved {
            self.shrink = Some(now.plus_ms(QUIET_MS));
        }
        moved |= self.tick(now, context)?;
        self.heed_outbox();
        Ok(moved)
    }

    /// Tells the session what the broker says, a slice at a time.
    fn hear(&mut self, now: Time, context: &mut Context<'_>) -> Result<bool, End> {
        let room = self.out.wire.is_empty() && !self.out.close;
        let mut moved = false;
        let fetch = room && self.events.is_empty();
        match self.queue.poll_take(fetch, &mut self.events, context) {
            Poll::Ready(Heard::Severed) => return Err(End::Severed),
            Poll::Ready(Heard::Events) | Poll::Pending => {}
        }
        if !room {
            return Ok(false);
        }
        while self.out.wire.len() < WIRE_SLICE && !self.out.close {
            let Some(event) = self.events.pop_front() else { break };
            self.session.notify(event, now, &mut self.out);
            self.unsettled = true;
            moved = true;
        }
        Ok(moved)
    }

    fn verified(&mut self, now: Time, context: &mut Context<'_>) -> bool {
        let Some(verifying) = &mut self.verifying else { return false };
        let Poll::Ready(accepted) = verifying.as_mut().poll(context) else { return false };
        self.verifying = None;
        self.session.verified(accepted, now, &mut self.out);
        self.unsettled = true;
        true
    }

    /// Sends commands and what was drained as one batch. While the broker has no room, nothing is read.
    fn send(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let drained = self.drained_deliveries > 0;
        if self.out.commands.is_empty()
            && (!drained
                || (self.drained_deliveries < self.limits.window_deliveries / 4
                    && self.drained_bytes < self.limits.window_bytes / 4))
        {
            return Ok(false);
        }
        if !self.opened {
            self.opened = opens(&self.out.commands);
            if self.opened
                && let Some(newcomer) = self.newcomer.take()
            {
                newcomer.settle();
            }
        }
        if drained {
            self.out.commands.push(Command::Drained {
                deliveries: std::mem::take(&mut self.drained_deliveries),
                bytes: std::mem::take(&mut self.drained_bytes),
            });
        }
        match self.lane.poll_send(&mut self.out.commands, context) {
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(_)) => Err(End::BrokerGone),
            Poll::Pending => Ok(false),
        }
    }

    fn write(&mut self, now: Time, context: &mut Context<'_>) -> Result<bool, End> {
        let count = self.socket.poll_write(&mut self.out.wire, context)?;
        if self.out.wire.is_empty() {
            self.blocked = None;
            self.drained_deliveries += std::mem::take(&mut self.out.deliveries);
            self.drained_bytes += std::mem::take(&mut self.out.delivery_bytes);
        } else if count > 0 {
            self.blocked = Some(now);
        } else {
            let since = *self.blocked.get_or_insert(now);
            if now.since_ms(since) >= self.limits.write_stall_ms {
                return Err(End::Stalled);
            }
        }
        Ok(count > 0)
    }

    /// Gives the session what it left before it was told something, or what the socket brings.
    fn read(&mut self, told: bool, now: Time, context: &mut Context<'_>) -> Result<bool, End> {
        if self.held() {
            return Ok(false);
        }
        if told && !self.socket.input.is_empty() {
            self.receive(now);
            if self.held() {
                return Ok(true);
            }
        }
        match self.socket.poll_read(self.opened, context) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err(End::ClientGone),
            // Gone without the goodbye of TLS; the protocol's own is what counts.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(End::ClientGone);
            }
            Poll::Ready(count) => count?,
        };
        self.receive(now);
        let left = self.socket.input.len();
        if left > self.limits.input_max {
            return Err(End::Input);
        }
        if left >= LOGIN_INPUT_MAX && !self.opened && !opens(&self.out.commands) {
            return Err(End::LoginInput);
        }
        Ok(true)
    }

    fn receive(&mut self, now: Time) {
        self.session.receive(&mut self.socket.input, now, &mut self.out);
        self.unsettled = true;
    }

    /// Nothing is taken from the client for now.
    fn held(&self) -> bool {
        self.paused
            || self.out.close
            || self.out.pause_reading == Some(true)
            || self.verifying.is_some()
            || self.out.verify.is_some()
            || !self.out.commands.is_empty()
            || (!self.out.wire.is_empty() && self.unsaid() >= UNSAID_MAX)
    }

    fn tick(&mut self, now: Time, context: &mut Context<'_>) -> Result<bool, End> {
        if !self.opened && now.since_ms(self.accepted) >= self.limits.login_timeout_ms {
            return Err(End::LoginTimeout);
        }
        let mut moved = false;
        if self.session.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.session.tick(now, &mut self.out);
            self.unsettled = true;
            moved = true;
        }
        if self.shrink.is_some_and(|shrink| shrink <= now) {
            self.shrink = None;
            self.give_back();
        }
        moved |= self.timer.poll(self.next_deadline(), &self.clock, context).is_ready();
        Ok(moved)
    }

    fn next_deadline(&self) -> Option<Time> {
        let login = (!self.opened).then(|| self.accepted.plus_ms(self.limits.login_timeout_ms));
        let stall = self.blocked.map(|since| since.plus_ms(self.limits.write_stall_ms));
        [self.session.next_deadline(), login, stall, self.shrink].into_iter().flatten().min()
    }

    /// What the session wants besides commands and bytes.
    fn heed_outbox(&mut self) {
        if let Some(verify) = self.out.verify.take() {
            let (verifier, origin) = (self.verifier.clone(), self.origin);
            self.verifying = Some(Box::pin(async move { verifier.check(verify, origin).await }));
        }
        if let Some(pause) = self.out.pause_reading.take() {
            self.paused = pause;
        }
    }

    fn remark(&mut self, span: &Span) {
        for remark in self.out.remarks.drain(..) {
            tracing::info!(parent: span, "{remark}");
        }
    }

    /// Nothing is left to be written or sent.
    fn said_all(&self) -> bool {
        self.out.wire.is_empty() && self.out.commands.is_empty() && !self.unsettled
    }

    fn unsaid(&self) -> usize {
        self.events.len() + self.queue.len()
    }

    fn give_back(&mut self) {
        self.socket.shrink(&mut self.out.wire);
        self.queue.shrink();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        if self.out.commands.is_empty() {
            self.out.commands = Vec::new();
        }
    }

    /// Tells the broker first, then lets the client read our last words.
    async fn finish(mut self, end: &End) {
        if let End::Panicked = end {
            // Half of what a broken session wanted is worse than nothing.
            self.out.commands.clear();
        } else {
            self.session.lost(&mut self.out);
        }
        self.lane.leave(&mut self.out.commands).await;
        if let End::Closed = end {
            let linger = async {
                poll_fn(|context| self.socket.poll_shutdown(context)).await?;
                let mut total = 0;
                while total < LINGER_BYTES_MAX {
                    match poll_fn(|context| self.socket.poll_discard(context)).await? {
                        0 => break,
                        count => total += count,
                    }
                }
                io::Result::Ok(())
            };
            let _ = tokio::time::timeout(LINGER, linger).await;
        }
    }
}

/// The client is known and wants a virtual host, or is a host itself.
fn opens(commands: &[Command]) -> bool {
    commands.iter().any(|it| matches!(it, Command::Open(..) | Command::Peer(_)))
}

#[cfg(test)]
mod tests;

//! Owns the `Broker`: feeds it what happened, and performs the effects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use tokio::sync::{mpsc, oneshot};

use super::clock::Clock;
use super::committer::{Job, Work};
use super::fatal;
use super::intake::{Batch, Input, Intake};
use super::notice::Notice;
use super::outbox::Outboxes;
use super::release::Releases;
use super::timer::Timer;
use super::watch::Growth;
use crate::broker::{
    Broker, Command, ConnectionId, Effect, Epoch, Event, Fetch, SERVER, Time, Write,
};
use crate::store::StoreError;

/// Larger batches of writes go to the committer also while it is busy.
const COMMIT_BYTES_MAX: usize = 4 << 20;
const COMMIT_WRITES_MAX: usize = 8192;
/// Writes that nobody waits for (settlements) may ride with later ones for so long.
const RIDE_MS_MAX: u64 = 5;

/// Everything the task owns besides its state.
pub(super) struct Parts {
    pub(super) broker: Broker,
    /// Effects of opening the broker, not yet performed.
    pub(super) effects: Vec<Effect>,
    pub(super) clock: Clock,
    pub(super) intake: Intake,
    pub(super) notices: mpsc::UnboundedReceiver<Notice>,
    pub(super) committer: Sender<Work>,
    pub(super) fetches: Sender<Fetch>,
    /// Beyond this many bytes of writes that are not durable, publishers wait.
    pub(super) undurable_bytes_max: usize,
    /// Tells the committer that nobody will wait for space forever.
    pub(super) stopping: Arc<AtomicBool>,
    /// Is told of every batch that became durable.
    pub(super) growth: Growth,
}

pub(super) struct BrokerTask {
    broker: Broker,
    clock: Clock,
    intake: Intake,
    notices: mpsc::UnboundedReceiver<Notice>,
    /// `None` once the last writes went to the committer.
    committer: Option<Sender<Work>>,
    fetches: Option<Sender<Fetch>>,
    undurable_bytes_max: usize,
    stopping: Arc<AtomicBool>,
    growth: Growth,

    inputs: VecDeque<Input>,
    effects: Vec<Effect>,
    outboxes: Outboxes,
    releases: Releases<(ConnectionId, Event)>,
    /// Writes since the last seal.
    open: Vec<Write>,
    open_bytes: usize,
    /// When the first of the open writes came.
    open_since: Time,
    /// Batches with the committer and their sizes.
    in_flight: VecDeque<(Epoch, usize)>,
    in_flight_bytes: usize,
    spare: Vec<Write>,
    alarms: Alarms,
    /// The broker goes down, for this reason.
    farewell: Option<String>,
    timer: Timer,
}

/// Low resources by their sources.
#[derive(Clone, Copy, Default)]
struct Alarms {
    memory: bool,
    disk_low: bool,
    disk_full: bool,
}

impl BrokerTask {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            broker: parts.broker,
            clock: parts.clock,
            intake: parts.intake,
            notices: parts.notices,
            committer: Some(parts.committer),
            fetches: Some(parts.fetches),
            undurable_bytes_max: parts.undurable_bytes_max,
            stopping: parts.stopping,
            growth: parts.growth,
            inputs: VecDeque::new(),
            effects: parts.effects,
            outboxes: Outboxes::default(),
            releases: Releases::new(),
            open: Vec::new(),
            open_bytes: 0,
            open_since: Time::ZERO,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            spare: Vec::new(),
            alarms: Alarms::default(),
            farewell: None,
            timer: Timer::new(),
        }
    }

    /// Runs until `Notice::Stop` was carried out.
    pub(super) async fn run(self) {
        fatal::or_abort_task("the broker task", self.work()).await;
    }

    async fn work(mut self) {
        let now = self.clock.now();
        self.perform(now);
        self.finish_round(now);
        loop {
            let publishing = self.takes_publishers();
            let deadline = self.next_deadline();
            let notice = tokio::select! {
                biased;
                notice = self.notices.recv() => notice,
                () = self.intake.take(publishing, &mut self.inputs) => None,
                () = self.timer.reach(deadline, &self.clock) => None,
            };
            if let Some(answer) = self.round(notice) {
                return self.stop(answer).await;
            }
        }
    }

    /// Takes what is there, up to a bound, and performs what follows from it.
    fn round(&mut self, notice: Option<Notice>) -> Option<oneshot::Sender<Result<(), StoreError>>> {
        let now = self.clock.now();
        let mut next = notice.or_else(|| self.notices.try_recv().ok());
        while let Some(notice) = next {
            if let Notice::Stop(answer) = notice {
                return Some(answer);
            }
            self.heed(notice, now);
            next = self.notices.try_recv().ok();
        }
        if self.inputs.is_empty() {
            let publishing = self.takes_publishers();
            self.intake.take_more(publishing, &mut self.inputs);
        }
        while let Some(input) = self.inputs.pop_front() {
            self.accept(input, now);
        }
        if self.broker.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.broker.tick(now, &mut self.effects);
            self.perform(now);
        }
        self.finish_round(now);
        None
    }

    fn accept(&mut self, input: Input, now: Time) {
        match input {
            Input::Joined(id, queue) => {
                self.outboxes.add(id, queue);
                if let Some(reason) = &self.farewell {
                    self.outboxes.push(id, Event::ForceClose(reason.clone()));
                }
            }
            Input::Batch(Batch { from, commands }) => {
                self.broker.apply_all(from, commands, now, &mut self.effects);
                self.perform(now);
            }
            Input::Left(id) => {
                self.broker.apply(id, Command::Close(None), now, &mut self.effects);
                self.perform(now);
                self.outboxes.remove(id);
            }
        }
    }

    fn heed(&mut self, notice: Notice, now: Time) {
        match notice {
            Notice::Committed { epoch, spare } => self.committed(epoch, spare, now),
            Notice::DiskFull(full) => {
                self.alarm(Alarms { disk_full: full, ..self.alarms }, now);
            }
            Notice::Watched { memory, disk } => {
                self.alarm(Alarms { memory, disk_low: disk, ..self.alarms }, now);
            }
            Notice::Fetched(fetched) => {
                self.broker.apply(SERVER, Command::Fetched(fetched), now, &mut self.effects);
                self.perform(now);
            }
            Notice::GoingDown(reason) => {
                self.outboxes.push_all(|| Event::ForceClose(reason.clone()));
                self.farewell = Some(reason);
            }
            Notice::Sever => self.outboxes.sever(),
            Notice::Stop(_) | Notice::StoreClosed(_) => {}
        }
    }

    fn committed(&mut self, epoch: Epoch, spare: Vec<Write>, now: Time) {
        if let Some((_, bytes)) = self.in_flight.pop_front() {
            self.in_flight_bytes -= bytes;
            self.growth.add(bytes);
        }
        self.spare = spare;
        let outboxes = &mut self.outboxes;
        self.releases.durable(epoch, |(to, event)| outboxes.push(to, event));
        self.broker.durable(epoch, now, &mut self.effects);
        self.perform(now);
    }

    fn alarm(&mut self, alarms: Alarms, now: Time) {
        let said = |it: Alarms| (it.memory, it.disk_low || it.disk_full);
        let (before, after) = (said(self.alarms), said(alarms));
        self.alarms = alarms;
        if before != after {
            let command = Command::Alarm { memory: after.0, disk: after.1 };
            self.broker.apply(SERVER, command, now, &mut self.effects);
            self.perform(now);
        }
    }

    /// Sends effects where they belong. After every batch of commands, so that a batch of writes can be sealed in between.
    fn perform(&mut self, now: Time) {
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Notify(to, event) => self.outboxes.push(to, event),
                Effect::NotifyDurable(to, event) => {
                    if let Some((to, event)) = self.releases.hold((to, event)) {
                        self.outboxes.push(to, event);
                    }
                }
                Effect::Write(write) => {
                    if self.open.is_empty() {
                        self.open_since = now;
                    }
                    self.open_bytes += size(&write);
                    self.open.push(write);
                    self.releases.wrote();
                }
                Effect::Fetch(fetch) => {
                    if let Some(fetches) = &self.fetches {
                        // The reader ends only after this sender.
                        let _ = fetches.send(fetch);
                    }
                }
            }
        }
        if self.open_bytes >= COMMIT_BYTES_MAX || self.open.len() >= COMMIT_WRITES_MAX {
            self.hand_over(now);
        }
    }

    /// The disk first, which takes longest, then the connections.
    fn finish_round(&mut self, now: Time) {
        if self.in_flight.is_empty()
            && (self.releases.awaited() || now.since_ms(self.open_since) >= RIDE_MS_MAX)
        {
            self.hand_over(now);
        }
        self.outboxes.flush();
    }

    fn hand_over(&mut self, now: Time) {
        if self.open.is_empty() {
            return;
        }
        let epoch = self.broker.seal();
        self.releases.seal(epoch);
        let writes = std::mem::replace(&mut self.open, std::mem::take(&mut self.spare));
        let bytes = std::mem::take(&mut self.open_bytes);
        self.in_flight.push_back((epoch, bytes));
        self.in_flight_bytes += bytes;
        if let Some(committer) = &self.committer {
            // The committer ends only after this sender, or with the process.
            let _ = committer.send(Work::Commit(Job { epoch, writes, now }));
        }
    }

    fn takes_publishers(&self) -> bool {
        self.open_bytes + self.in_flight_bytes < self.undurable_bytes_max
    }

    fn next_deadline(&self) -> Option<Time> {
        let ride = (!self.open.is_empty() && self.in_flight.is_empty())
            .then(|| self.open_since.plus_ms(RIDE_MS_MAX));
        [self.broker.next_deadline(), ride].into_iter().flatten().min()
    }

    /// Connections are gone; what the broker still has to say goes to the disk only.
    async fn stop(mut self, answer: oneshot::Sender<Result<(), StoreError>>) {
        let now = self.clock.now();
        self.stopping.store(true, Ordering::Relaxed);
        while let Ok(notice) = self.notices.try_recv() {
            self.heed(notice, now);
        }
        self.broker.close(now, &mut self.effects);
        self.perform(now);
        self.hand_over(now);
        self.outboxes.sever();
        (self.committer, self.fetches) = (None, None);
        let mut closed = Ok(());
        while let Some(notice) = self.notices.recv().await {
            match notice {
                Notice::StoreClosed(outcome) => {
                    closed = outcome;
                    break;
                }
                Notice::Committed { epoch, .. } => {
                    let outboxes = &mut self.outboxes;
                    self.releases.durable(epoch, |(to, event)| outboxes.push(to, event));
                    self.outboxes.flush();
                }
                _ => {}
            }
        }
        let _ = answer.send(closed);
    }
}

/// Bytes that a write keeps in memory until it is durable, roughly.
fn size(write: &Write) -> usize {
    match write {
        Write::Append(append) => append.message.footprint() as usize + size_of::<Write>(),
        _ => size_of::<Write>(),
    }
}

#[cfg(test)]
mod tests;

//! One round: a broker lives a few times on one directory, is killed under load, and everything is accounted for.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::checker::{Violation, check};
use super::history::{Event, History, Reader, Settlement};
use super::load::{self, MAILBOXES, Publisher, Reading};
use super::process::Process;
use super::side::Sides;
use crate::random::Random;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A mailbox that has messages gives one within this.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(10);

/// Answers that came before a kill are read by then. Some of lapin's promises are never kept.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What a round that went well consisted of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) kills: u32,
    pub(crate) stops: u32,
    pub(crate) published: usize,
    pub(crate) answered: usize,
    pub(crate) received: usize,
    pub(crate) redelivered: usize,
    pub(crate) requeued: usize,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kills, stops, published, answered, received, redelivered, requeued } = self;
        write!(
            f,
            "{kills} kills, {stops} orderly stops; {published} published, {answered} answered; \
             {received} received, {redelivered} of them again, {requeued} requeued"
        )
    }
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.kills += other.kills;
        self.stops += other.stops;
        self.published += other.published;
        self.answered += other.answered;
        self.received += other.received;
        self.redelivered += other.redelivered;
        self.requeued += other.requeued;
    }
}

pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) directory: PathBuf,
    pub(crate) violations: Vec<Violation>,
    history: Vec<Event>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, directory, violations, history } = self;
        let (count, kept) = (violations.len(), directory.display());
        writeln!(f, "KILL_SEED={seed}: {count} violations; kept {kept}")?;
        for violation in violations.iter().take(10) {
            writeln!(f, "  {violation}")?;
            for (line, event) in excerpt(history, violation) {
                writeln!(f, "    {line:6} {event}")?;
            }
        }
        Ok(())
    }
}

/// Everything about the message, with the ends of lives between.
fn excerpt<'a>(
    history: &'a [Event],
    violation: &Violation,
) -> impl Iterator<Item = (usize, &'a Event)> {
    let id = violation.id;
    let lines = history.iter().enumerate();
    lines.filter(move |(_, event)| match event {
        Event::Killed | Event::Stopped { .. } => true,
        event => id.is_some() && event.id() == id,
    })
}

/// Runs a seed; a directory that showed a fault stays.
pub(crate) async fn run(seed: u64, environment: &[(&str, &str)]) -> Result<Figures, Failure> {
    let directory = tempfile::Builder::new().prefix("pillarbox-kill-").tempdir();
    let directory = directory.expect("a place for temporary files");
    let mut round = Round {
        store: directory.path().join("store"),
        environment,
        random: Random::new(seed),
        history: History::default(),
        sides: Sides::default(),
        life: 0,
        figures: Figures::default(),
    };
    if let Err(what) = round.play().await {
        round.history.add(Event::Wrong(what));
    }
    let history = round.history.events();
    let violations = check(&history);
    if violations.is_empty() {
        return Ok(count(round.figures, &round.history));
    }
    let directory = directory.keep();
    let text = history.iter().enumerate().fold(String::new(), |mut text, (line, event)| {
        let _ = writeln!(text, "{line:6} {event}");
        text
    });
    let _ = std::fs::write(directory.join("history.txt"), text);
    Err(Failure { seed, directory, violations, history })
}

fn count(figures: Figures, history: &History) -> Figures {
    let requeued = |how: &Settlement| matches!(how, Settlement::Requeued { .. });
    Figures {
        published: history.count(|it| matches!(it, Event::Published { .. })),
        answered: history.count(|it| matches!(it, Event::Answered { .. })),
        received: history.count(|it| matches!(it, Event::Received { .. })),
        redelivered: history.count(|it| matches!(it, Event::Received { redelivered: true, .. })),
        requeued: history.count(|it| matches!(it, Event::Settled { how, .. } if requeued(how))),
        ..figures
    }
}

struct Round<'a> {
    store: PathBuf,
    environment: &'a [(&'a str, &'a str)],
    random: Random,
    history: History,
    sides: Sides,
    life: u32,
    figures: Figures,
}

impl Round<'_> {
    async fn play(&mut self) -> Result<(), String> {
        let lives = 1 + self.random.below(3);
        for life in 1..=lives {
            let orderly = life < lives && self.random.chance(4);
            self.live(orderly).await?;
        }
        self.settle_accounts().await?;
        // Nothing comes back after an orderly stop.
        self.settle_accounts().await?;
        inspect(&self.store)
    }

    fn start(&mut self) -> Result<Process, String> {
        self.life += 1;
        Process::start(&self.store, &[], self.environment)
    }

    /// A life under load, to its end.
    async fn live(&mut self, orderly: bool) -> Result<(), String> {
        let process = self.start()?;
        let ending = Arc::new(AtomicBool::new(false));
        let (leave, left) = watch::channel(false);
        let connections = patiently(connect(&process, 4)).await?;
        let channel = patiently(connections[0].create_channel()).await?;
        patiently(load::declare(&channel, &MAILBOXES)).await?;
        patiently(self.sides.check(&connections[0], &self.history)).await?;
        let mut clients = self.clients(&connections, left, &ending).await?;
        sleep(Duration::from_millis(20 + self.random.below(1481))).await;
        if orderly {
            leave.send_replace(true);
            timeout(PATIENCE, while_some(&mut clients))
                .await
                .map_err(|_| "clients do not leave")?;
            for connection in &connections {
                leave_quietly(connection).await;
            }
            process.stop()?;
            self.history.add(Event::Stopped { life: self.life });
            self.figures.stops += 1;
            return Ok(());
        }
        ending.store(true, Ordering::SeqCst);
        process.kill()?;
        self.figures.kills += 1;
        // Answers that came before the kill are still read.
        let _ = timeout(LAST_WORDS, while_some(&mut clients)).await;
        clients.shutdown().await;
        self.history.add(Event::Killed);
        Ok(())
    }

    async fn clients(
        &mut self,
        connections: &[Connection],
        leave: load::Leave,
        ending: &Arc<AtomicBool>,
    ) -> Result<JoinSet<()>, String> {
        let mut clients = JoinSet::new();
        let life = self.life;
        let windows = [1, 8, 50, 200];
        for publisher in 0..3 {
            let work = Publisher {
                channel: patiently(connections[publisher / 2].create_channel()).await?,
                publisher: publisher as u32,
                life,
                random: self.fork(),
                history: self.history.clone(),
                window: windows[self.random.below(4) as usize],
                mailboxes: &MAILBOXES,
                pause: Duration::ZERO,
            };
            clients.spawn(watched(work.work(leave.clone()), self.history.clone(), ending.clone()));
        }
        let readers =
            [("sole", 0, 2), ("shared", 0, 2), ("shared", 1, 3), ("window", 0, 3), ("asked", 0, 3)];
        for (mailbox, number, connection) in readers {
            let channel = patiently(connections[connection].create_channel()).await?;
            let prefetch = [1, 5, 20][self.random.below(3) as usize];
            let reader = Reader { mailbox, life, number, sole: mailbox != "shared" };
            let reading =
                Reading::new(channel, reader, prefetch, self.fork(), self.history.clone());
            let (history, ending) = (self.history.clone(), ending.clone());
            if mailbox == "asked" {
                clients.spawn(watched(reading.ask(leave.clone()), history, ending));
            } else {
                clients.spawn(watched(reading.consume(leave.clone()), history, ending));
            }
        }
        let channel = patiently(connections[3].create_channel()).await?;
        let (sides, history) = (self.sides.clone(), self.history.clone());
        let work = sides.work(channel, life, self.fork(), history.clone(), leave);
        clients.spawn(watched(work, history, ending.clone()));
        Ok(clients)
    }

    fn fork(&mut self) -> Random {
        Random::new(self.random.next())
    }

    /// Reads every mailbox to its end, and stops in good order.
    async fn settle_accounts(&mut self) -> Result<(), String> {
        let process = self.start()?;
        let connections = patiently(connect(&process, 1)).await?;
        let connection = &connections[0];
        for mailbox in MAILBOXES {
            let channel: Channel = patiently(connection.create_channel()).await?;
            let reader = Reader { mailbox, life: self.life, number: 0, sole: true };
            let reading = Reading::new(channel, reader, 30, self.fork(), self.history.clone());
            patiently(reading.drain(DELIVERY_PATIENCE)).await?;
        }
        patiently(self.sides.check(connection, &self.history)).await?;
        leave_quietly(connection).await;
        process.stop()?;
        self.history.add(Event::Stopped { life: self.life });
        Ok(())
    }
}

/// lapin minds that channels are being closed too.
async fn leave_quietly(connection: &Connection) {
    let _ = timeout(PATIENCE, connection.close(200, "bye".into())).await;
}

async fn while_some(clients: &mut JoinSet<()>) {
    while clients.join_next().await.is_some() {}
}

/// An error is one unless the broker was killed.
async fn watched(
    work: impl Future<Output = lapin::Result<()>>,
    history: History,
    ending: Arc<AtomicBool>,
) {
    if let Err(error) = work.await
        && !ending.load(Ordering::SeqCst)
    {
        history.add(Event::Wrong(format!("a client fails: {error}")));
    }
}

pub(crate) async fn connect(process: &Process, count: usize) -> lapin::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let properties = ConnectionProperties::default();
        connections.push(Connection::connect(&process.uri(), properties).await?);
    }
    Ok(connections)
}

pub(crate) async fn patiently<T>(
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T, String> {
    match timeout(PATIENCE, work).await {
        Ok(outcome) => outcome.map_err(|error| format!("a client fails: {error}")),
        Err(_) => Err("a client waits in vain".into()),
    }
}

fn inspect(store: &Path) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    let output = command.args(["check", "--data-dir"]).arg(store).output();
    let output = output.map_err(|error| format!("cannot check: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("`pillarbox check` finds: {text}")) }
}

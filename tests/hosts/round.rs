//! One round: hosts that talk to each other under load, a few faults, and the accounts in the end.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::{BasicProperties, Channel};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, MAILBOXES, PATIENCE, mailboxes_of, patiently};
use crate::checker::check;
use crate::fault::Fault;
use crate::history::{Answer, Event, History, Mailbox};
use crate::lab::Lab;
use crate::letter::Id;
use crate::load::FAN_OUT;
use crate::random::Random;

/// What was repeated comes by then.
const LATE: Duration = Duration::from_secs(1);

/// What a round that went well consisted of.
pub(crate) struct Figures {
    hosts: usize,
    faults: Vec<Fault>,
    published: usize,
    answered: usize,
    received: usize,
    /// Published on one host for a mailbox of another.
    carried: usize,
    /// By clients of other hosts than the mailbox's.
    afar: usize,
    /// Times that such a client lost its mailbox.
    lost: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, faults, published, answered, received, carried, afar, lost } = self;
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        write!(
            f,
            "{hosts} hosts; {}; {published} published, {answered} answered; {received} received, \
             {carried} of them from another host, {afar} by clients of another host, who lost their mailbox {lost} times",
            faults.join("; ")
        )
    }
}

/// Runs a seed; directories that showed a fault stay.
pub(crate) async fn run(seed: u64) -> Result<Figures, String> {
    let home = tempfile::Builder::new().prefix("pillarbox-hosts-").tempdir();
    let home = home.map_err(|error| error.to_string())?;
    let lab = Lab::make(if seed.is_multiple_of(2) { 3 } else { 5 })?;
    let mut random = Random::new(seed);
    let brokers = (0..lab.hosts()).map(|host| Broker::new(&lab, host, home.path())).collect();
    let history = History::default();
    let turn = seed.wrapping_mul(3) + random.below(2);
    let mut round = Round { lab, brokers, random, history, turn, faults: Vec::new() };
    if let Err(what) = round.play().await {
        round.history.add(Event::Wrong(what));
    }
    let events = round.history.events();
    let violations = check(&events);
    if violations.is_empty() {
        return Ok(round.figures(&events));
    }
    let shown: Vec<String> = violations.iter().take(10).map(|it| format!("  {it}")).collect();
    let faults: Vec<String> = round.faults.iter().map(ToString::to_string).collect();
    // Before the directory is kept: nobody writes to it any more.
    drop(round);
    let kept = keep(home, &events);
    let count = violations.len();
    Err(format!(
        "HOST_SEED={seed}: {count} violations after {}; kept {kept}\n{}",
        faults.join("; "),
        shown.join("\n")
    ))
}

fn keep(home: TempDir, events: &[Event]) -> String {
    let directory = home.keep();
    let text = events.iter().enumerate().fold(String::new(), |mut text, (line, event)| {
        let _ = writeln!(text, "{line:6} {event}");
        text
    });
    let _ = std::fs::write(directory.join("history.txt"), text);
    directory.display().to_string()
}

struct Round {
    // Before the lab: a host goes after what runs on it.
    brokers: Vec<Broker>,
    lab: Lab,
    random: Random,
    history: History,
    /// Which shape of fault comes next.
    turn: u64,
    faults: Vec<Fault>,
}

impl Round {
    async fn play(&mut self) -> Result<(), String> {
        for host in self.order() {
            self.brokers[host].start()?;
            self.brokers[host].declare().await?;
        }
        self.agree().await?;
        for host in 0..self.brokers.len() {
            self.load(host).await?;
        }
        for _ in 0..3 {
            self.wait(200, 1200).await;
            self.suffer().await?;
        }
        self.wait(200, 1200).await;
        self.settle_accounts().await
    }

    /// Every host reaches every mailbox, by its name and through the exchange.
    async fn agree(&mut self) -> Result<(), String> {
        let mut channels = Vec::new();
        let mut connections = Vec::new();
        for broker in &self.brokers {
            let connection = broker.connect().await?;
            channels.push(patiently(connection.create_channel()).await?);
            connections.push(connection);
        }
        let hosts = self.brokers.len();
        let (begin, mut seen) = (Instant::now(), BTreeSet::new());
        while seen.len() < hosts * 2 * hosts * 2 {
            if begin.elapsed() > PATIENCE {
                return Err(format!("after a minute, hosts reach only {seen:?}"));
            }
            for (host, channel) in channels.iter().enumerate() {
                for mailbox in &MAILBOXES[..2 * hosts] {
                    probe(channel, "", mailbox, &format!("{host} direct")).await?;
                }
                probe(channel, FAN_OUT, "", &format!("{host} fanned")).await?;
            }
            sleep(Duration::from_millis(200)).await;
            self.take_probes(&channels, &mut seen).await?;
        }
        // What is still on its way is no part of the accounts.
        let mut quiet = Instant::now();
        while quiet.elapsed() < LATE {
            if self.take_probes(&channels, &mut seen).await? > 0 {
                quiet = Instant::now();
            }
            sleep(Duration::from_millis(50)).await;
        }
        for connection in connections {
            let _ = tokio::time::timeout(PATIENCE, connection.close(200, "bye".into())).await;
        }
        Ok(())
    }

    async fn take_probes(
        &self,
        channels: &[Channel],
        seen: &mut BTreeSet<(Mailbox, String)>,
    ) -> Result<u32, String> {
        let mut taken = 0;
        for (at, mailbox) in MAILBOXES[..2 * channels.len()].iter().enumerate() {
            let channel = &channels[at / 2];
            let options = BasicGetOptions { no_ack: true };
            while let Some(got) = patiently(channel.basic_get((*mailbox).into(), options)).await? {
                let name = got.delivery.properties.message_id().as_ref();
                seen.insert((*mailbox, name.map(ToString::to_string).unwrap_or_default()));
                taken += 1;
            }
        }
        Ok(taken)
    }

    async fn load(&mut self, host: usize) -> Result<(), String> {
        let (one, two, other) = (self.fork(), self.fork(), self.fork());
        let hosts = self.brokers.len();
        self.brokers[host].read(one, &self.history).await?;
        self.brokers[host].read_afar((host + 1) % hosts, two, &self.history).await?;
        self.brokers[host].publish(hosts, other, &self.history).await
    }

    /// One fault, from its beginning to its end.
    async fn suffer(&mut self) -> Result<(), String> {
        let fault = Fault::choose(self.turn, self.brokers.len(), &mut self.random);
        self.turn += 1;
        self.faults.push(fault.clone());
        match fault {
            Fault::Kill(host) => {
                self.brokers[host].kill(&self.history).await?;
                self.wait(0, 1000).await;
                self.back(host).await
            }
            Fault::Stop(host) => {
                self.brokers[host].stop().await?;
                self.wait(0, 1000).await;
                self.back(host).await
            }
            Fault::KillAll(order) => {
                for host in &order {
                    self.brokers[*host].kill(&self.history).await?;
                }
                for host in order.into_iter().rev() {
                    self.wait(0, 500).await;
                    self.back(host).await?;
                }
                Ok(())
            }
            fault => {
                self.lab.lose(&fault.losses(self.brokers.len()))?;
                self.wait(500, 4000).await;
                if self.random.chance(3) {
                    let host = self.random.below(self.brokers.len() as u64) as usize;
                    self.faults.push(Fault::Kill(host));
                    self.brokers[host].kill(&self.history).await?;
                    self.back(host).await?;
                    self.wait(0, 1000).await;
                }
                self.lab.lose(&[])
            }
        }
    }

    async fn back(&mut self, host: usize) -> Result<(), String> {
        self.brokers[host].start()?;
        self.load(host).await
    }

    /// Whatever was confirmed arrives, and what arrived stays settled.
    async fn settle_accounts(&mut self) -> Result<(), String> {
        for broker in &self.brokers {
            broker.enough();
        }
        let begin = Instant::now();
        while missing(&self.history) > 0 && begin.elapsed() < PATIENCE {
            sleep(Duration::from_millis(200)).await;
        }
        sleep(LATE).await;
        for broker in &mut self.brokers {
            broker.stop().await?;
        }
        for host in self.order() {
            self.brokers[host].start()?;
        }
        sleep(LATE).await;
        for host in 0..self.brokers.len() {
            for mailbox in mailboxes_of(host) {
                let random = self.fork();
                self.brokers[host].drain(mailbox, random, &self.history).await?;
            }
        }
        for broker in &mut self.brokers {
            broker.stop().await?;
            inspect(broker.directory())?;
        }
        Ok(())
    }

    fn order(&mut self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.brokers.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        order
    }

    async fn wait(&mut self, least_ms: u64, most_ms: u64) {
        let ms = least_ms + self.random.below(most_ms - least_ms);
        sleep(Duration::from_millis(ms)).await;
    }

    fn fork(&mut self) -> Random {
        Random::new(self.random.next())
    }

    fn figures(&self, events: &[Event]) -> Figures {
        let count = |which: fn(&Event) -> bool| events.iter().filter(|it| which(it)).count();
        let carried = |event: &&Event| {
            matches!(event, Event::Received { by, id, .. }
                if !mailboxes_of(id.publisher as usize).contains(&by.mailbox))
        };
        let afar =
            |it: &Event| matches!(it, Event::Received { by, .. } if by.mailbox.starts_with("far"));
        Figures {
            hosts: self.brokers.len(),
            faults: self.faults.clone(),
            published: count(|it| matches!(it, Event::Published { .. })),
            answered: count(|it| matches!(it, Event::Answered { .. })),
            received: count(|it| matches!(it, Event::Received { .. })),
            carried: events.iter().filter(carried).count(),
            afar: count(afar),
            lost: count(|it| matches!(it, Event::Lost { .. })),
        }
    }
}

async fn probe(channel: &Channel, exchange: &str, key: &str, name: &str) -> Result<(), String> {
    let properties = BasicProperties::default().with_message_id(name.into());
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(exchange.into(), key.into(), options, b"", properties);
    patiently(sent).await.map(drop)
}

/// Confirmed, and not yet seen everywhere.
fn missing(history: &History) -> usize {
    let events = history.events();
    let mut wanted: BTreeSet<(Mailbox, Id)> = BTreeSet::new();
    let confirmed: BTreeSet<Id> = events
        .iter()
        .filter_map(|event| match event {
            Event::Answered { id, answer: Answer::Ack } => Some(*id),
            _ => None,
        })
        .collect();
    for event in &events {
        match event {
            Event::Published { id, to, .. } if confirmed.contains(id) => {
                wanted.extend(to.iter().map(|mailbox| (*mailbox, *id)));
            }
            Event::Received { by, id, .. } => {
                wanted.remove(&(by.mailbox, *id));
            }
            _ => {}
        }
    }
    wanted.len()
}

fn inspect(store: &Path) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    let output = command.args(["check", "--data-dir"]).arg(store).output();
    let output = output.map_err(|error| format!("cannot check: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("`pillarbox check` finds: {text}")) }
}

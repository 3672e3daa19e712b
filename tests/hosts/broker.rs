//! A broker on a host of the lab: its settings, and its clients, which live as long as it does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::history::{Event, History, Mailbox, Reader};
use crate::lab::Lab;
use crate::load::{self, Publisher, Reading};
use crate::process::Process;
use crate::random::Random;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Answers that came before a kill are read by then.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Everybody of a lab: user, password and secret between hosts.
const USER: &str = "everybody-of-the-lab";
const PEERS: u16 = 8476;
/// Between two messages of a publisher, so that a slow machine follows.
const PAUSE: Duration = Duration::from_millis(2);

/// Two at each host: one is read there, the other from the next host.
pub(crate) const MAILBOXES: [Mailbox; 10] =
    ["at-0", "far-0", "at-1", "far-1", "at-2", "far-2", "at-3", "far-3", "at-4", "far-4"];

pub(crate) fn mailboxes_of(host: usize) -> &'static [Mailbox] {
    &MAILBOXES[2 * host..2 * host + 2]
}

/// Before somebody asks again whose home was away.
const AGAIN: Duration = Duration::from_millis(100);

pub(crate) struct Broker {
    host: usize,
    directory: PathBuf,
    environment: Vec<(String, String)>,
    listen: String,
    namespace: String,
    process: Option<Process>,
    clients: JoinSet<()>,
    /// Publishers shall leave.
    enough: watch::Sender<bool>,
    /// Readers shall leave.
    leave: watch::Sender<bool>,
    /// What fails from now on fails because the broker ends.
    ending: Arc<AtomicBool>,
    /// How often it was started: clients name their messages by it.
    life: u32,
}

impl Broker {
    pub(crate) fn new(lab: &Lab, host: usize, home: &Path) -> Self {
        let place = |host: usize| format!("{}:{PEERS}", lab.address(host));
        // A chain: each is told of the one before it, and hears of the rest.
        let before = host.checked_sub(1).map_or_else(String::new, place);
        let environment = [
            ("LISTEN__PEERS", place(host)),
            ("PEERS__HOSTS", before),
            ("PEERS__NAME", format!("host-{host}")),
            ("PEERS__SECRET", USER.to_owned()),
            ("PEERS__HEARTBEAT", "1s".to_owned()),
            ("LOGIN__USER", USER.to_owned()),
            ("LOGIN__PASSWORD", USER.to_owned()),
        ];
        let environment =
            environment.map(|(name, value)| (format!("PILLARBOX__{name}"), value)).to_vec();
        Self {
            host,
            directory: home.join(format!("host-{host}")),
            environment,
            listen: format!("{}:5672", lab.address(host)),
            namespace: lab.namespace(host),
            process: None,
            clients: JoinSet::new(),
            enough: watch::channel(false).0,
            leave: watch::channel(false).0,
            ending: Arc::default(),
            life: 0,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn start(&mut self) -> Result<(), String> {
        let wrapper = ["ip", "netns", "exec", &self.namespace].map(OsStr::new);
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.life += 1;
        self.process =
            Some(Process::listen(&self.directory, &wrapper, &environment, &self.listen)?);
        self.ending = Arc::default();
        self.enough = watch::channel(false).0;
        self.leave = watch::channel(false).0;
        Ok(())
    }

    pub(crate) async fn connect(&self) -> Result<Connection, String> {
        let process = self.process.as_ref().ok_or("it is not running")?;
        patiently(Connection::connect(&process.uri_of(USER), ConnectionProperties::default())).await
    }

    fn reader(&self, mailbox: Mailbox) -> Reader {
        Reader { mailbox, life: self.life, number: 0, sole: true }
    }

    /// Somebody who publishes to every host, until told to leave.
    pub(crate) async fn publish(
        &mut self,
        hosts: usize,
        mut random: Random,
        history: &History,
    ) -> Result<(), String> {
        let connection = self.connect().await?;
        let work = Publisher {
            channel: patiently(connection.create_channel()).await?,
            publisher: self.host as u32,
            life: self.life,
            window: [1, 8, 50][random.below(3) as usize],
            mailboxes: &MAILBOXES[..2 * hosts],
            pause: PAUSE,
            random,
            history: history.clone(),
        };
        let leave = self.enough.subscribe();
        let work = async move {
            let _open = connection;
            work.work(leave).await
        };
        self.watch(work, history);
        Ok(())
    }

    /// Somebody who reads this host's mailbox, until told to leave.
    pub(crate) async fn read(
        &mut self,
        mut random: Random,
        history: &History,
    ) -> Result<(), String> {
        let connection = self.connect().await?;
        let channel = patiently(connection.create_channel()).await?;
        let prefetch = [1, 5, 20][random.below(3) as usize];
        let reader = self.reader(mailboxes_of(self.host)[0]);
        let reading = Reading::new(channel, reader, prefetch, random, history.clone());
        let leave = self.leave.subscribe();
        let work = async move {
            let _open = connection;
            reading.consume(leave).await
        };
        self.watch(work, history);
        Ok(())
    }

    /// Somebody who reads a mailbox of another host, whenever that can be reached, until told to leave.
    pub(crate) async fn read_afar(
        &mut self,
        home: usize,
        mut random: Random,
        history: &History,
    ) -> Result<(), String> {
        let connection = self.connect().await?;
        let prefetch = [1, 5, 20][random.below(3) as usize];
        let mut by = self.reader(mailboxes_of(home)[1]);
        let (mut leave, events) = (self.leave.subscribe(), history.clone());
        let work = async move {
            while !*leave.borrow() {
                let channel = connection.create_channel().await?;
                let random = Random::new(random.next());
                let mut reading = Reading::new(channel, by, prefetch, random, events.clone());
                reading.afar = true;
                let outcome = match reading.take(&mut leave).await {
                    Ok(true) => reading.finish().await,
                    Ok(false) => Ok(()),
                    Err(error) => Err(error),
                };
                events.add(Event::Lost { by });
                by.number += 1;
                if !connection.status().connected() {
                    return outcome;
                }
                sleep(AGAIN).await;
            }
            Ok(())
        };
        self.watch(work, history);
        Ok(())
    }

    /// Reads what is there to its end, and nothing comes meanwhile.
    pub(crate) async fn drain(
        &self,
        mailbox: Mailbox,
        random: Random,
        history: &History,
    ) -> Result<(), String> {
        let connection = self.connect().await?;
        let channel = patiently(connection.create_channel()).await?;
        let reading = Reading::new(channel, self.reader(mailbox), 30, random, history.clone());
        patiently(reading.drain(Duration::from_secs(10))).await?;
        let _ = timeout(PATIENCE, connection.close(200, "bye".into())).await;
        Ok(())
    }

    /// An error is one unless the broker ends.
    fn watch(
        &mut self,
        work: impl Future<Output = lapin::Result<()>> + Send + 'static,
        history: &History,
    ) {
        let (history, ending, host) = (history.clone(), self.ending.clone(), self.host);
        self.clients.spawn(async move {
            if let Err(error) = work.await
                && !ending.load(Ordering::SeqCst)
            {
                history.add(Event::Wrong(format!("a client of host {host} fails: {error}")));
            }
        });
    }

    /// Nobody publishes any more.
    pub(crate) fn enough(&self) {
        self.enough.send_replace(true);
    }

    /// Its clients leave in good order.
    pub(crate) async fn quiet(&mut self) -> Result<(), String> {
        self.enough();
        self.leave.send_replace(true);
        let all = async { while self.clients.join_next().await.is_some() {} };
        timeout(PATIENCE, all).await.map_err(|_| format!("clients of {} stay", self.host))
    }

    pub(crate) async fn kill(&mut self, history: &History) -> Result<(), String> {
        self.ending.store(true, Ordering::SeqCst);
        self.process.take().map_or(Ok(()), Process::kill)?;
        let all = async { while self.clients.join_next().await.is_some() {} };
        let _ = timeout(LAST_WORDS, all).await;
        self.clients.shutdown().await;
        history.add(Event::Killed);
        Ok(())
    }

    /// An orderly stop; clients that are still there are told.
    pub(crate) async fn stop(&mut self) -> Result<(), String> {
        self.quiet().await?;
        let Some(process) = self.process.take() else { return Ok(()) };
        let stopped = tokio::task::spawn_blocking(|| process.stop()).await;
        stopped.map_err(|error| error.to_string())?
    }

    pub(crate) async fn declare(&self) -> Result<(), String> {
        let connection = self.connect().await?;
        let channel = patiently(connection.create_channel()).await?;
        patiently(load::declare(&channel, mailboxes_of(self.host))).await?;
        let _ = timeout(PATIENCE, connection.close(200, "bye".into())).await;
        Ok(())
    }
}

pub(crate) async fn patiently<T>(
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T, String> {
    match timeout(PATIENCE, work).await {
        Ok(outcome) => outcome.map_err(|error| format!("a client fails: {error}")),
        Err(_) => Err("a client waits in vain".into()),
    }
}

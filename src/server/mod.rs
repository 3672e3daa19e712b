//! Sockets, tasks, threads and the clock: runs the machines that decide. The only async code.
//!
//! ```text
//! listener ─> connection (one task each) ──intake──> broker task ──jobs──> committer (thread)
//!                  ^                                  │  │   ^ ^                 │
//!                  └─────────────outbox───────────────┘  │   │ └────notices──────┘
//!                                                        └─fetches─> reader (thread) ─notices─> broker task
//! ```

mod broker_task;
mod clock;
mod committer;
mod connection;
mod fatal;
mod file;
mod first_user;
mod http;
mod intake;
mod listener;
mod local;
mod membership;
mod newcomer;
mod notice;
mod outbox;
mod owner;
mod pace;
mod password;
mod peering;
mod reader;
mod release;
mod shutdown;
mod socket;
mod throttle;
mod timer;
mod tls;
mod traffic;
mod verifier;
mod watch;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::fatal::STORE_FAILED;
pub use self::listener::{Listening, Protocol};
pub use self::local::Local;
pub use self::membership::{IdentityError, SecretError};
pub use self::password::hash as hash_password;
pub use self::shutdown::{StopError, StopSignals};
pub use self::tls::TlsError;

use self::broker_task::BrokerTask;
use self::clock::Clock;
use self::connection::{House, LOGIN_INPUT_MAX, Limits};
use self::listener::{Door, Listener, Sessions};
use self::membership::Members;
use self::newcomer::Newcomers;
use self::notice::Notice;
use self::owner::Owner;
use self::pace::Pace;
use self::peering::Peering;
use self::throttle::Patience;
use self::tls::{Files, Tls};
use self::traffic::Register;
use self::verifier::Verifier;
use self::watch::Growth;
#[cfg(feature = "planted")]
use crate::broker::Plant;
use crate::broker::{Broker, NEUTRAL, Recovered, SERVER, Settings, WireForm};
use crate::config::{Address, ByteSize, Config, Identity, Listen, Period, Share};
use crate::sessions::amqp::{self, AMQP};
use crate::sessions::{native, stomp};
use crate::store::{Options, Store, StoreError};

/// Disks of any size are used until this little is free, unless the settings say otherwise.
const DISK_FREE_MIN_MAX: u64 = 1 << 30;
/// Messages in memory, on a machine of any size, unless the settings say otherwise.
const MESSAGES_MEMORY_MAX: u64 = 1 << 30;
/// How often and how long to wait for another broker to let go of the data directory.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_WAIT: Duration = Duration::from_millis(100);
/// The session ends a slow login itself, in its protocol's words, before the socket is closed without any.
const LOGIN_MARGIN_MS: u64 = 5000;
/// What may come with a message besides its body, before it is understood.
const INPUT_MARGIN: u64 = 1 << 20;

/// Bytes of the secret that lets this process in.
const TOKEN_SIZE: usize = 32;

/// Every form that stored properties can have: the neutral one, and one for each protocol.
pub static FORMS: [&WireForm; 2] = [&NEUTRAL, &AMQP];

/// A running broker with its listeners.
pub struct Server {
    listening: Vec<Listening>,
    closed: CancellationToken,
    local: Local,
    connections: TaskTracker,
    notices: mpsc::UnboundedSender<Notice>,
    stop_timeout: Period,
    /// Gone with the server.
    _owner: Option<Owner>,
}

/// Every way a start can fail.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("another broker is running on this data directory: {}", .0.display())]
    Locked(PathBuf),
    #[error("cannot open the data directory {}: {error}", directory.display())]
    Store { directory: PathBuf, error: StoreError },
    #[error("cannot write {}: {error}", path.display())]
    Owner { path: PathBuf, error: std::io::Error },
    #[error("cannot listen on {address} for {protocol}: {error}")]
    Bind { protocol: &'static str, address: SocketAddr, error: std::io::Error },
    #[error(
        "listen.{key} = \"{address}\" can be reached from other hosts, but nobody may log in from there: \
         set login.user and login.password (or the variables PILLARBOX__LOGIN__USER and PILLARBOX__LOGIN__PASSWORD) \
         for a first administrator, or listen on 127.0.0.1",
        key = .protocol.replace('-', "_")
    )]
    NoUsers { protocol: &'static str, address: SocketAddr },
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("peers.{0} is set, but this program was built without the feature `{0}`")]
    LeftOut(&'static str),
    #[error("peers: {0}")]
    Identity(#[from] IdentityError),
    #[error("peers: {0}")]
    PeerSecret(#[from] SecretError),
    #[error("cannot define the first user: {0}")]
    FirstUser(String),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error("cannot listen to signals: {0}")]
    Signal(std::io::Error),
    #[error("the machine gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[cfg(feature = "planted")]
    #[error("PILLARBOX_PLANT = '{0}' names no bug")]
    NoSuchPlant(String),
}

impl Server {
    /// Opens the data directory, recovers what is there and accepts connections.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let tls = load_tls(Files::wanted(&config.tls)?, &config).await?;
        let link_tls = load_tls(Files::of_links(&config.peers)?, &config).await?;
        let secret = membership::secret(&config)?;
        if let Some(directory) = membership::left_out(&config) {
            return Err(StartError::LeftOut(directory));
        }
        let (store, recovered) = open_store(&config).await?;
        let served = [&tls, &link_tls].map(|it| it.as_ref().map(|(tls, _)| tls.clone()));
        let listeners = bind(&config, &recovered, served).await?;
        let first_user = first_user::wanted(&config.login, &recovered).await?;

        let clock = Clock::start();
        let of_peers = listeners.iter().map(Listener::listening);
        let listens_to_peers =
            of_peers.filter(|it| it.protocol == Protocol::Peer).map(|it| it.address).next();
        let members = match membership::wanted(&config) {
            true => Some(Members::open(&config, secret, listens_to_peers, clock).await?),
            false => None,
        };
        let start = members.as_ref().map_or(0, |it| it.me().incarnation);
        let tags = config.peers.tags.0.clone();
        let settings = Settings { start, tags, ..broker_settings(&config)? };
        #[cfg(feature = "planted")]
        let early = settings.plant == Some(Plant::ConfirmBeforeSync);
        let mut effects = Vec::new();
        let mut broker = Broker::open(recovered, settings, clock.now(), &mut effects);
        if let Some(user) = first_user {
            user.define(&mut broker, clock.now(), &mut effects)?;
        }

        let (notices, notices_intake) = mpsc::unbounded_channel();
        let (to_committer, work) = std::sync::mpsc::channel();
        let (fetches, fetches_intake) = std::sync::mpsc::channel();
        let (requests, intake) = intake::lanes();
        let stopping = Arc::new(AtomicBool::new(false));
        let full = Arc::new(AtomicBool::new(false));
        let watched = store.reader();
        let growth = Growth::default();
        let reader =
            reader::start(store.reader(), fetches_intake, notices.clone(), to_committer.clone())?;
        let commits = Arc::<committer::Commits>::default();
        let committer = committer::Committer {
            store,
            work,
            notices: notices.clone(),
            stopping: stopping.clone(),
            full: full.clone(),
            reader,
            commits: commits.clone(),
            #[cfg(feature = "planted")]
            early,
        };
        committer.start()?;
        let task = BrokerTask::new(broker_task::Parts {
            broker,
            effects,
            clock,
            intake,
            notices: notices_intake,
            committer: to_committer,
            fetches,
            undurable_bytes_max: usize_of(config.store.undurable_max),
            stopping,
            growth: growth.clone(),
        });
        tokio::spawn(task.run());
        tokio::spawn(watch::run(marks(&config), watched, growth, full, notices.clone()));

        let [shown, link_tls_of] =
            [&tls, &link_tls].map(|it| it.as_ref().map(|(tls, _)| tls.clone()));
        for (_, watcher) in tls.into_iter().chain(link_tls) {
            // From now on, SIGHUP does not end the process.
            let hangup = signal(SignalKind::hangup()).map_err(StartError::Signal)?;
            tokio::spawn(tls::keep_fresh(watcher, hangup));
        }

        let verifier = Arc::new(Verifier::new(patience(&config))?);
        let listening: Vec<Listening> = listeners.iter().map(Listener::listening).collect();
        let register = Arc::new(Register::default());
        let parts = http::Parts {
            desk: http::Desk::open(requests.clone(), members.clone()),
            clock,
            register: register.clone(),
            commits,
            tls: shown,
            link_tls: link_tls_of.clone(),
            members: members.clone(),
            marks: marks(&config),
            connections_max: config.limits.connections_max,
        };
        let estate = Arc::new(http::Estate::new(parts, &listening));
        if listening.iter().any(|it| matches!(it.protocol, Protocol::Http | Protocol::Metrics)) {
            tokio::spawn(estate.clone().watch(config.http.sample_interval.0));
        }
        let house = House { requests, verifier, clock, limits: connection_limits(&config) };
        let mut secret = vec![0; TOKEN_SIZE];
        getrandom::fill(&mut secret)?;
        let token = native::Token(secret);
        let local = native::Settings { token: Some(token.clone()), ..native_settings(&config) };
        let frame_size_max = native_settings(&config).frame_size_max;
        let peering = members
            .clone()
            .map(|members| Arc::new(Peering::new(members, &config, frame_size_max, link_tls_of)));
        let door = Door {
            house,
            sessions: Arc::new(Sessions {
                amqp: Arc::new(amqp_settings(&config)),
                stomp: Arc::new(stomp_settings(&config)),
                native: Arc::new(native_settings(&config)),
                local: Arc::new(local),
                peering: peering.clone(),
            }),
            http: Arc::new(http_settings(&config)),
            leases: Arc::default(),
            estate,
            register,
            newcomers: Newcomers::new(config.limits.pending_logins_max),
            pace: Arc::new(Pace::new(config.limits.accepts_per_second)),
            permits: Arc::new(Semaphore::new(config.limits.connections_max as usize)),
            next_id: Arc::new(AtomicU64::new(SERVER.0 + 1)),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
        };
        if let Some(members) = members {
            members.follow(&config.peers, &door.tasks, &door.closed);
            tokio::spawn(members.keep(door.closed.clone()));
        }
        if let Some(peering) = peering {
            tokio::spawn(peering.dial_all(door.clone()));
        }
        let owner = owner::publish(&config, &listening, &token).await?;
        for listener in listeners {
            tokio::spawn(listener.accept(door.clone()));
        }
        Ok(Self {
            listening,
            closed: door.closed.clone(),
            connections: door.tasks.clone(),
            local: Local { door, token, user: config.login.user },
            notices,
            stop_timeout: config.runtime.stop_timeout,
            _owner: owner,
        })
    }

    /// What it listens to and where, with the ports that were chosen.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// A way in for this process.
    pub fn local(&self) -> Local {
        self.local.clone()
    }

    pub fn amqp_address(&self) -> Option<SocketAddr> {
        self.address(Protocol::Amqp)
    }

    /// Where a protocol is spoken, if it is.
    pub fn address(&self, protocol: Protocol) -> Option<SocketAddr> {
        self.find(protocol, false)
    }

    /// Where it is spoken over TLS, if it is.
    pub fn tls_address(&self, protocol: Protocol) -> Option<SocketAddr> {
        self.find(protocol, true)
    }

    fn find(&self, protocol: Protocol, tls: bool) -> Option<SocketAddr> {
        let found = self.listening.iter().find(|it| it.protocol == protocol && it.tls == tls);
        found.map(|it| it.address)
    }
}

async fn load_tls(
    files: Option<Files>,
    config: &Config,
) -> Result<Option<(Arc<Tls>, tls::Watcher)>, TlsError> {
    let Some(files) = files else { return Ok(None) };
    let settings = config.tls.clone();
    let loaded = spawn_blocking(move || Tls::load(files, &settings)).await;
    let (tls, watcher) =
        loaded.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
    Ok(Some((Arc::new(tls), watcher)))
}

/// A broker that was killed lets go of its files a moment later.
async fn open_store(config: &Config) -> Result<(Store, Recovered), StartError> {
    for _ in 0..LOCK_ATTEMPTS {
        match try_open_store(config).await {
            Err(StartError::Locked(_)) => sleep(LOCK_WAIT).await,
            other => return other,
        }
    }
    try_open_store(config).await
}

async fn try_open_store(config: &Config) -> Result<(Store, Recovered), StartError> {
    let directory = config.store.directory.clone();
    let in_memory = config.store.in_memory;
    let opened = spawn_blocking(move || {
        if in_memory {
            Store::memory(&FORMS)
        } else {
            Store::open(&directory, &FORMS, Options::default())
        }
    });
    let directory = config.store.directory.clone();
    match opened.await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(StoreError::Locked(_))) => Err(StartError::Locked(directory)),
        Ok(Err(error)) => Err(StartError::Store { directory, error }),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Takes the addresses before anything else is started, so that a port in use costs nothing.
async fn bind(
    config: &Config,
    recovered: &Recovered,
    [tls, link_tls]: [Option<Arc<Tls>>; 2],
) -> Result<Vec<Listener>, StartError> {
    let (listen, usual) = (&config.listen, Listen::default());
    let mut wanted = vec![
        (Protocol::Amqp, listen.amqp, None),
        (Protocol::Stomp, listen.stomp, None),
        (Protocol::Http, listen.http, None),
        (Protocol::Metrics, listen.metrics, None),
        (Protocol::Native, listen.native, None),
        (Protocol::Peer, listen.peers, link_tls),
    ];
    for (protocol, address, usual) in [
        (Protocol::Amqp, listen.amqp_tls, usual.amqp_tls),
        (Protocol::Stomp, listen.stomp_tls, usual.stomp_tls),
        (Protocol::Http, listen.http_tls, usual.http_tls),
        (Protocol::Native, listen.native_tls, usual.native_tls),
    ] {
        match &tls {
            Some(tls) => wanted.push((protocol, address, Some(tls.clone()))),
            // Somebody asked for it, and would take what is not there for safe.
            None if address != usual && address != Address::Off => {
                return Err(TlsError::NoCertificate(protocol.tls_name()).into());
            }
            None => {}
        }
    }
    let mut listeners = Vec::new();
    for (protocol, address, tls) in wanted {
        let name = if tls.is_some() { protocol.tls_name() } else { protocol.name() };
        if let Address::At(at) = address {
            let for_users = protocol != Protocol::Peer;
            if for_users && address.is_open() && !first_user::reachable(&config.login, recovered) {
                return Err(StartError::NoUsers { protocol: name, address: at });
            }
            let listener = Listener::bind(protocol, tls, at)
                .await
                .map_err(|error| StartError::Bind { protocol: name, address: at, error })?;
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

fn broker_settings(config: &Config) -> Result<Settings, StartError> {
    Ok(Settings {
        // Ids differ between hosts, and between runs of one host whose clock was set back.
        host: getrandom::u32()?,
        window_bytes: config.limits.window_bytes.0,
        window_deliveries: config.limits.window_deliveries,
        memory_max: part_of(
            config.memory.messages_max,
            watch::memory_available(),
            MESSAGES_MEMORY_MAX,
        ),
        consumer_timeout_ms: Some(config.limits.consumer_timeout.millis()),
        connections_max: match config.limits.logins_max {
            0 => None,
            most => Some(most.into()),
        },
        #[cfg(feature = "planted")]
        plant: planted()?,
        ..Settings::default()
    })
}

/// The bug that the environment asks for.
#[cfg(feature = "planted")]
fn planted() -> Result<Option<Plant>, StartError> {
    match std::env::var("PILLARBOX_PLANT").as_deref() {
        Err(_) => Ok(None),
        Ok("confirm-before-sync") => Ok(Some(Plant::ConfirmBeforeSync)),
        Ok("lost-redelivered") => Ok(Some(Plant::LostRedelivered)),
        Ok("reorder-on-requeue") => Ok(Some(Plant::ReorderOnRequeue)),
        Ok("ack-wrong-mailbox") => Ok(Some(Plant::AckWrongMailbox)),
        Ok(other) => Err(StartError::NoSuchPlant(other.into())),
    }
}

fn amqp_settings(config: &Config) -> amqp::Settings {
    let seconds = config.amqp.heartbeat.0.as_secs();
    amqp::Settings {
        channel_max: config.amqp.channels_max,
        frame_max: config.amqp.frame_max.max(amqp::Settings::FRAME_MAX_MIN),
        heartbeat: u16::try_from(seconds).unwrap_or(u16::MAX),
        identity: match config.amqp.identity {
            Identity::RabbitMq => amqp::Identity::rabbitmq(),
            Identity::Pillarbox => amqp::Identity::pillarbox(),
        },
        handshake_timeout_ms: config.limits.login_timeout.millis(),
        handshake_frame_max: config
            .amqp
            .login_frame_max
            .clamp(amqp::Settings::FRAME_MAX_MIN, LOGIN_INPUT_MAX as u32),
        message_size_max: config.limits.message_size_max.0,
        unfinished_bytes_max: config.amqp.unfinished_bytes_max.0,
        channel_consumers_max: config.amqp.channel_consumers_max as usize,
        transaction_commands_max: config.amqp.transaction_operations_max as usize,
        transaction_bytes_max: config.amqp.transaction_bytes_max.0,
        anonymous_user: match config.amqp.anonymous_user.as_str() {
            "" => None,
            user => Some(user.into()),
        },
        ..amqp::Settings::default()
    }
}

fn stomp_settings(config: &Config) -> stomp::Settings {
    stomp::Settings {
        default_login: config.stomp.default_user.clone(),
        default_passcode: config.stomp.default_password.reveal().into(),
        implicit_connect: config.stomp.implicit_connect,
        default_vhost: config.stomp.default_vhost.clone(),
        topic_exchange: config.stomp.topic_exchange.clone(),
        nack_requeues: config.stomp.nack_requeues,
        certificate_login: config.stomp.certificate_login,
        login_timeout_ms: config.limits.login_timeout.millis(),
        login_frame_max: usize_of(config.stomp.login_frame_size_max).min(LOGIN_INPUT_MAX),
        frame_size_max: usize_of(config.stomp.frame_size_max),
        headers_max: config.stomp.headers_max as usize,
        header_line_size_max: usize_of(config.stomp.header_size_max),
        header_block_size_max: usize_of(config.stomp.headers_size_max),
        subscriptions_max: config.stomp.subscriptions_max as usize,
        temp_queues_max: config.stomp.temp_queues_max as usize,
        transactions_max: config.stomp.transactions_max as usize,
        transaction_actions_max: config.stomp.transaction_frames_max as usize,
        transaction_bytes_max: config.stomp.transaction_bytes_max.0,
        ..stomp::Settings::default()
    }
}

fn http_settings(config: &Config) -> http::Settings {
    http::Settings {
        origins: listed(&config.http.origins),
        hosts: listed(&config.http.hosts),
        head_timeout: config.http.head_timeout.0,
        message_size_max: usize_of(config.stomp.frame_size_max),
        frame: config.stomp.websocket_frame,
        login: config.stomp.http_login,
        body_size_max: usize_of(config.http.body_size_max),
    }
}

/// The parts between commas, in lower case.
fn listed(text: &str) -> Vec<String> {
    let parts = text.split(',').map(|part| part.trim().to_ascii_lowercase());
    parts.filter(|part| !part.is_empty()).collect()
}

fn native_settings(config: &Config) -> native::Settings {
    let message_size_max = config.limits.message_size_max.0;
    // A whole frame has to fit into what is buffered of a connection.
    let frame_size_max = message_size_max + INPUT_MARGIN - 4;
    let frame_size_max = u32::try_from(frame_size_max).unwrap_or(u32::MAX);
    native::Settings { message_size_max, frame_size_max, ..native::Settings::default() }
}

fn connection_limits(config: &Config) -> Limits {
    Limits {
        login_timeout_ms: config.limits.login_timeout.millis() + LOGIN_MARGIN_MS,
        write_stall_ms: config.limits.write_stall.millis(),
        input_max: usize_of(ByteSize(config.limits.message_size_max.0 + INPUT_MARGIN)),
        window_deliveries: config.limits.window_deliveries,
        window_bytes: config.limits.window_bytes.0,
    }
}

fn patience(config: &Config) -> Patience {
    Patience {
        failures_max: config.limits.failed_logins_max,
        failures_per_minute: config.limits.failed_logins_per_minute,
    }
}

fn marks(config: &Config) -> watch::Marks {
    let directory = (!config.store.in_memory).then(|| config.store.directory.clone());
    let size = directory.as_deref().and_then(|it| watch::disk_size(it).ok()).unwrap_or(0);
    watch::Marks {
        directory,
        disk_free_min: part_of(config.store.disk_free_min, size, DISK_FREE_MIN_MAX),
        memory_max: config.memory.used_max.of(watch::memory_available()),
    }
}

/// A share has a bound that an amount has not.
fn part_of(share: Share, whole: u64, bound: u64) -> u64 {
    match share {
        Share::Percent(_) => share.of(whole).min(bound),
        Share::Bytes(ByteSize(bytes)) => bytes,
    }
}

fn usize_of(size: ByteSize) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;

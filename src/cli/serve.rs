//! `pillarbox serve`: runs a broker until it is told to stop.

use std::io::{self, Write};
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::Args;
use pillarbox::config::Config;
use pillarbox::server::{Server, StopSignals};
use pillarbox::telemetry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

use super::Failure;

/// Start a broker. Prints a line for each listener once it accepts, and `ready` last.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox serve
  pillarbox serve --data-dir /var/lib/pillarbox --config /etc/pillarbox.toml
  pillarbox serve --amqp-listen 127.0.0.1:0 --http-listen none

SIGTERM and SIGINT stop it in good order; a kill loses nothing that was confirmed.")]
pub(super) struct Serve {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE", env = "PILLARBOX_CONFIG")]
    config: Option<PathBuf>,
    /// Keep data in this directory [default: ./pillarbox-data]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// Accept AMQP 0-9-1 here; port 0 picks a free one, `none` switches it off [default: 127.0.0.1:5672]
    #[arg(long, value_name = "ADDR:PORT")]
    amqp_listen: Option<String>,
    /// Accept STOMP here [default: 127.0.0.1:61613]
    #[arg(long, value_name = "ADDR:PORT")]
    stomp_listen: Option<String>,
    /// Accept HTTP and websockets here [default: 127.0.0.1:15672]
    #[arg(long, value_name = "ADDR:PORT")]
    http_listen: Option<String>,
    /// Accept the native protocol here [default: 127.0.0.1:8475]
    #[arg(long, value_name = "ADDR:PORT")]
    native_listen: Option<String>,
    /// Accept links of other hosts here [default: none]
    #[arg(long, value_name = "ADDR:PORT")]
    peer_listen: Option<String>,
    /// Dial another host here; may be given more than once
    #[arg(long, value_name = "HOST:PORT")]
    peer: Vec<String>,
    /// Read the secret that all hosts share from this file
    #[arg(long, value_name = "FILE")]
    peer_secret_file: Option<String>,
    /// What people call this host [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    host_name: Option<String>,
    /// Accept AMQP over TLS here, with the certificate below [default: 127.0.0.1:5671]
    #[arg(long, value_name = "ADDR:PORT")]
    amqp_tls_listen: Option<String>,
    /// The broker's certificate, as PEM; without it there is no TLS
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// The private key of the certificate, as PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// The authorities whose clients' certificates are believed, as PEM
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// Log at this level: error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut config = self.settings()?;
        telemetry::start(&config.log.level).map_err(Failure::wrong)?;
        fit_connections(&mut config);
        let runtime = runtime(config.runtime.workers).map_err(Failure::failed)?;
        // The broker shares a worker with its connections; this thread only waits.
        let outcome = runtime.block_on(async { runtime.spawn(serve(config)).await });
        outcome.map_err(Failure::failed)?
    }

    fn settings(self) -> Result<Config, Failure> {
        let flags = [
            ("data-dir", "store.directory", self.data_dir),
            ("amqp-listen", "listen.amqp", self.amqp_listen),
            ("stomp-listen", "listen.stomp", self.stomp_listen),
            ("http-listen", "listen.http", self.http_listen),
            ("native-listen", "listen.native", self.native_listen),
            ("peer-listen", "listen.peers", self.peer_listen),
            ("peer", "peers.hosts", (!self.peer.is_empty()).then(|| self.peer.join(","))),
            ("peer-secret-file", "peers.secret_file", self.peer_secret_file),
            ("host-name", "peers.name", self.host_name),
            ("amqp-tls-listen", "listen.amqp_tls", self.amqp_tls_listen),
            ("tls-certificate", "tls.certificate", self.tls_certificate),
            ("tls-key", "tls.key", self.tls_key),
            ("tls-client-ca", "tls.client_ca", self.tls_client_ca),
            ("log", "log.level", self.log),
        ];
        let flags = flags.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?)));
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Config::load(self.config.as_deref(), environment, flags).map_err(Failure::wrong)
    }
}

/// Each connection is an open file: asks for as many as the system allows, and promises no more than four fifths of them.
fn fit_connections(config: &mut Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files =
        if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let Some(files) = files else { return };
    let most = u32::try_from(files / 5 * 4).unwrap_or(u32::MAX);
    if config.limits.connections_max > most {
        let asked = config.limits.connections_max;
        tracing::warn!(files, asked, "the limit of open files allows {most} connections only");
        config.limits.connections_max = most;
    }
}

async fn serve(config: Config) -> Result<(), Failure> {
    // Before anybody is told that it is ready.
    let mut signals = StopSignals::listen().map_err(Failure::failed)?;
    let server = Server::start(config).await.map_err(Failure::failed)?;
    announce(&server).map_err(Failure::failed)?;
    let signal = signals.next().await;
    tracing::info!("{signal}: stopping");
    tokio::select! {
        biased;
        stopped = server.stop() => stopped.map_err(Failure::failed)?,
        _ = signals.next() => return Err(Failure::failed("stopped at once by a second signal")),
    }
    tracing::info!("stopped");
    Ok(())
}

fn announce(server: &Server) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for listening in server.listening() {
        writeln!(out, "listening {} {}", listening.name(), listening.address)?;
    }
    writeln!(out, "ready")?;
    out.flush()
}

fn runtime(workers: u16) -> io::Result<Runtime> {
    let workers = match workers {
        0 => match available_parallelism().map_or(1, usize::from) {
            0..=2 => 1,
            cores => (cores - 1).min(8),
        },
        chosen => chosen.into(),
    };
    Builder::new_multi_thread().worker_threads(workers).thread_name("worker").enable_all().build()
}

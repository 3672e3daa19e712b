//! Which broker a verb talks to, and as whom.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use pillarbox::client::{Client, Connect, Error, Proof, Tls};
use pillarbox::server::Server;
use tokio::sync::Mutex;

use super::Failure;

// Flags of every verb that talks to a broker. (A comment for documents would stand in the place of what a verb does.)
#[derive(Args, Clone)]
#[command(next_help_heading = "Broker")]
pub(super) struct Broker {
    /// Where the broker's native listener is [default: 127.0.0.1:8475]
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "PILLARBOX_BROKER",
        hide_env_values = true
    )]
    broker: Option<String>,
    /// Administer the broker of this data directory without a password, also one that does not run. Without any login,
    /// ./pillarbox-data is tried, then guest
    #[arg(long, global = true, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Log in as this user [default: guest]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "PILLARBOX_USER",
        hide_env_values = true
    )]
    user: Option<String>,
    /// The user's password; better given by the variable, which others cannot see
    #[arg(
        long,
        global = true,
        value_name = "PASSWORD",
        env = "PILLARBOX_PASSWORD",
        hide_env_values = true
    )]
    password: Option<String>,
    /// Virtual host
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "PILLARBOX_VHOST",
        default_value = "/",
        hide_env_values = true
    )]
    pub(super) vhost: String,
    /// Speak TLS, with brokers of these authorities (PEM); the listener is usually on port 8477
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "PILLARBOX_TLS_CA",
        hide_env_values = true
    )]
    tls_ca: Option<PathBuf>,
    /// Show this certificate (PEM) to a broker that asks for one
    #[arg(long, global = true, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_certificate: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Log in as whom the certificate names, without a password
    #[arg(long, global = true, requires = "tls_certificate", conflicts_with_all = ["user", "password"])]
    tls_login: bool,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(super) json: bool,
    // The broker of the data directory, where none ran. (Not a flag.)
    #[arg(skip)]
    inside: Arc<Mutex<Option<pillarbox::Broker>>>,
}

/// What a login without a name or a password means.
const GUEST: &str = "guest";

impl Broker {
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        if let Some(directory) = &self.data_dir {
            return match self.connect_as_owner(directory).await? {
                Some(client) => Ok(client),
                None => self.connect_inside(directory).await,
            };
        }
        let names_nobody = self.broker.is_none()
            && self.user.is_none()
            && self.password.is_none()
            && self.tls_ca.is_none();
        if names_nobody && let Some(client) = self.connect_as_owner(&usual_directory()).await? {
            return Ok(client);
        }
        let (user, password) = self.login();
        let usual = Connect::default();
        let connect = Connect {
            address: self.broker.clone().unwrap_or_else(|| usual.address.clone()),
            user: user.into(),
            proof: if self.tls_login {
                Proof::Certificate
            } else {
                Proof::Password(password.into())
            },
            tls: self.tls()?,
            ..self.introduced(usual)
        };
        Ok(Client::connect(&connect).await?)
    }

    fn introduced(&self, connect: Connect) -> Connect {
        let name = "pillarbox command line".into();
        Connect { vhost: self.vhost.clone(), name, ..connect }
    }

    /// With what the broker that runs on the directory left there, if one does and lets us in.
    async fn connect_as_owner(&self, directory: &Path) -> Result<Option<Client>, Failure> {
        let Ok(file) = std::fs::read(directory.join("owner.json")) else { return Ok(None) };
        let Ok(connect) = Connect::by_owner(&file) else { return Ok(None) };
        let mut connect = self.introduced(connect);
        connect.user = self.user.clone().unwrap_or_default();
        match Client::connect(&connect).await {
            Ok(client) => Ok(Some(client)),
            // Left by a broker that was killed.
            Err(Error::NoBroker { .. } | Error::OtherProtocol { .. } | Error::Login(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs the broker of the directory without listeners, for as long as the verb.
    async fn connect_inside(&self, directory: &Path) -> Result<Client, Failure> {
        let mut inside = self.inside.lock().await;
        if inside.is_none() {
            *inside = Some(open_inside(directory).await?);
        }
        let local = inside.as_ref().and_then(pillarbox::Broker::server).map(Server::local);
        let local = local.ok_or_else(|| Failure::failed("the broker does not run"))?;
        let connect = Connect {
            address: directory.display().to_string(),
            user: self.user.clone().unwrap_or_default(),
            proof: Proof::Token(local.token()),
            ..self.introduced(Connect::default())
        };
        Ok(Client::over(local.connect(), &connect).await?)
    }

    pub(super) fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    pub(super) fn tls(&self) -> Result<Option<Tls>, Failure> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| Failure::wrong(format!("cannot read {}: {error}", path.display())))
        };
        let Some(authorities) = &self.tls_ca else { return Ok(None) };
        let own = match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let own = own.as_ref().map(|(certificate, key)| (&certificate[..], &key[..]));
        Tls::new(&read(authorities)?, own).map(Some).map_err(Failure::wrong)
    }

    pub(super) fn login(&self) -> (&str, &str) {
        (self.user.as_deref().unwrap_or(GUEST), self.password.as_deref().unwrap_or(GUEST))
    }

    /// Runs a verb to its end.
    pub(super) fn run(
        &self,
        verb: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let runtime: io::Result<_> =
            tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Failure::failed)?.block_on(async {
            let outcome = verb.await;
            match self.inside.lock().await.take() {
                // What the verb did is durable when this returns.
                Some(broker) => {
                    let stopped = broker.stop().await.map_err(Failure::failed);
                    outcome.and(stopped)
                }
                None => outcome,
            }
        })
    }
}

fn usual_directory() -> PathBuf {
    pillarbox::config::Config::default().store.directory
}

/// The broker of a directory that no other runs on.
pub(super) async fn open_inside(directory: &Path) -> Result<pillarbox::Broker, Failure> {
    if !directory.is_dir() {
        let text = format!("{} is not a directory", directory.display());
        return Err(Failure::wrong(text));
    }
    pillarbox::Broker::open(directory).await.map_err(Failure::failed)
}

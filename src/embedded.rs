//! A broker inside the program: the same sessions as over the network, without a socket.

use std::path::Path;

use crate::client::{Again, Client, Connect, Error, Opener, Proof, Session};
use crate::config::{Address, Config};
use crate::server::{Local, Server, StartError, StopError};

/// A broker that runs in this process, on the tokio runtime that opened it.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = pillarbox::Broker::memory().await?;
/// let session = broker.session().await?;
/// # Ok(())
/// # }
/// ```
pub struct Broker {
    /// Taken by `stop`.
    server: Option<Server>,
    local: Local,
}

impl Broker {
    /// One that keeps its messages in a directory, which is made where it is missing. Nobody outside can reach it.
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self, StartError> {
        let mut config = silent();
        config.store.directory = directory.as_ref().into();
        Self::start(config).await
    }

    /// One that keeps its messages in memory, and loses them with the process.
    pub async fn memory() -> Result<Self, StartError> {
        let mut config = silent();
        config.store.in_memory = true;
        Self::start(config).await
    }

    /// One with settings of its own; also with listeners, so that others can reach it too.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let server = Server::start(config).await?;
        let local = server.local();
        Ok(Self { server: Some(server), local })
    }

    /// Where it listens, if it does.
    pub fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// A session with it.
    pub async fn session(&self) -> Result<Session, Error> {
        let local = self.local.clone();
        let open: Opener = Box::new(move || {
            let local = local.clone();
            Box::pin(async move { connect(&local).await })
        });
        Session::open(open, Again::default()).await
    }

    /// A single connection to it.
    pub async fn client(&self) -> Result<Client, Error> {
        connect(&self.local).await
    }

    /// Stops in good order: when it returns, everything is durable and the directory is free.
    pub async fn stop(mut self) -> Result<(), StopError> {
        match self.server.take() {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abandon();
        }
    }
}

async fn connect(local: &Local) -> Result<Client, Error> {
    let connect = Connect {
        address: "this process".into(),
        user: local.user().into(),
        proof: Proof::Token(local.token()),
        ..Connect::default()
    };
    Client::over(local.connect(), &connect).await
}

/// No listeners.
fn silent() -> Config {
    let mut config = Config::default();
    for address in [
        &mut config.listen.amqp,
        &mut config.listen.stomp,
        &mut config.listen.http,
        &mut config.listen.native,
    ] {
        *address = Address::Off;
    }
    config
}

//! Which broker a verb talks to, and as whom.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use clap::Args;
use pillarbox::client::{Client, Connect, Proof, Tls};

use super::Failure;

// Flags of every verb that talks to a broker. (A comment for documents would stand in the place of what a verb does.)
#[derive(Args, Clone)]
#[command(next_help_heading = "Broker")]
pub(super) struct Broker {
    /// Where the broker's native listener is
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "PILLARBOX_BROKER",
        default_value = "127.0.0.1:8475",
        hide_env_values = true
    )]
    broker: String,
    /// Log in as this user
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "PILLARBOX_USER",
        default_value = "guest",
        hide_env_values = true
    )]
    user: String,
    /// The user's password; better given by the variable, which others cannot see
    #[arg(
        long,
        global = true,
        value_name = "PASSWORD",
        env = "PILLARBOX_PASSWORD",
        default_value = "guest",
        hide_default_value = true,
        hide_env_values = true
    )]
    password: String,
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
}

impl Broker {
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let connect = Connect {
            address: self.broker.clone(),
            user: self.user.clone(),
            proof: if self.tls_login {
                Proof::Certificate
            } else {
                Proof::Password(self.password.clone())
            },
            vhost: self.vhost.clone(),
            tls: self.tls()?,
            name: "pillarbox command line".into(),
            ..Connect::default()
        };
        Ok(Client::connect(&connect).await?)
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
        (&self.user, &self.password)
    }

    /// Runs a verb to its end.
    pub(super) fn run(
        &self,
        verb: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let runtime: io::Result<_> =
            tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Failure::failed)?.block_on(verb)
    }
}

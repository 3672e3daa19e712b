//! Which broker a verb talks to, and as whom.

use std::future::Future;
use std::io;

use clap::Args;
use pillarbox::client::{Client, Connect, Proof};

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
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl Broker {
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let connect = Connect {
            address: self.broker.clone(),
            user: self.user.clone(),
            proof: Proof::Password(self.password.clone()),
            vhost: self.vhost.clone(),
            name: "pillarbox command line".into(),
            ..Connect::default()
        };
        Ok(Client::connect(&connect).await?)
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

//! `pillarbox user` and `pillarbox permission`: who may log in, and what they may do.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};
use pillarbox::broker::{Table, Value};
use pillarbox::client::{Defined, List};
use pillarbox::server::hash_password;
use serde_json::json;

use super::broker::Broker;
use super::{Failure, show};

/// Add, list and delete users; needs an administrator
#[derive(Args)]
pub(super) struct UserVerb {
    #[command(subcommand)]
    verb: Users,
}

#[derive(Subcommand)]
enum Users {
    /// Add a user, or give one another password and tags. The password is read from standard input
    #[command(after_help = "\
Example: pillarbox user put anna --tag administrator < password.txt

The password is hashed here; it does not travel. A user may do nothing until `pillarbox permission put`.")]
    Put {
        name: String,
        /// `administrator` may do everything; others are shown to people
        #[arg(long)]
        tag: Vec<String>,
        /// May log in from the broker's host only
        #[arg(long)]
        loopback_only: bool,
    },
    /// List users
    #[command(after_help = "Example: pillarbox user list --json")]
    List,
    /// Delete a user with all permissions, and close the user's connections
    #[command(after_help = "Example: pillarbox user delete anna")]
    Delete { name: String },
}

/// Give, list and take permissions; needs an administrator
#[derive(Args)]
pub(super) struct PermissionVerb {
    #[command(subcommand)]
    verb: Permissions,
}

#[derive(Subcommand)]
enum Permissions {
    /// Say what a user may do in the virtual host: patterns of names
    #[command(after_help = "\
Example: pillarbox permission put anna --configure '' --write '^jobs$' --read '.*'")]
    Put {
        // Not `user`: that is who logs in.
        #[arg(value_name = "USER")]
        name: String,
        /// What the user may declare and delete
        #[arg(long, value_name = "PATTERN", default_value = "")]
        configure: String,
        /// Where the user may push
        #[arg(long, value_name = "PATTERN", default_value = "")]
        write: String,
        /// What the user may read
        #[arg(long, value_name = "PATTERN", default_value = "")]
        read: String,
    },
    /// List the permissions of all users
    #[command(after_help = "Example: pillarbox permission list")]
    List,
    /// Take everything from a user in the virtual host
    #[command(after_help = "Example: pillarbox permission delete anna --vhost test")]
    Delete {
        #[arg(value_name = "USER")]
        name: String,
    },
}

impl UserVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        match self.verb {
            Users::Put { name, tag, loopback_only } => {
                let password = read_password(&name)?;
                let hash = hash_password(password.as_bytes()).map_err(Failure::failed)?;
                let mut fields = Table::new();
                fields.set("name", Value::text(&name));
                fields.set("password_hash", Value::text(&hash));
                fields.set("hashing", Value::text("argon2id"));
                let tags = tag.iter().map(|tag| Value::text(tag)).collect();
                fields.set("tags", Value::Array(tags));
                fields.set("loopback_only", Value::Bool(loopback_only));
                broker.connect().await?.define(Defined::User, &fields).await?;
                show::done(&format!("defined user '{name}'"), json!({"name": name}), broker.json)
            }
            Users::List => {
                let rows = broker.connect().await?.list(List::Users, "").await?;
                show::rows(&rows, &["name", "tags", "loopback_only"], broker.json)
            }
            Users::Delete { name } => {
                broker.connect().await?.undefine(Defined::User, &[&name]).await?;
                show::done(&format!("deleted user '{name}'"), json!({"name": name}), broker.json)
            }
        }
    }
}

impl PermissionVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let vhost = &broker.vhost;
        match self.verb {
            Permissions::Put { name: user, configure, write, read } => {
                let mut fields = Table::new();
                for (name, text) in [
                    ("vhost", vhost),
                    ("user", &user),
                    ("configure", &configure),
                    ("write", &write),
                    ("read", &read),
                ] {
                    fields.set(name, Value::text(text));
                }
                client.define(Defined::Permission, &fields).await?;
                let text = format!("'{user}' has these permissions in '{vhost}'");
                show::done(&text, json!({"user": user, "vhost": vhost}), broker.json)
            }
            Permissions::List => {
                let rows = client.list(List::Permissions, "").await?;
                show::rows(&rows, &["vhost", "user", "configure", "write", "read"], broker.json)
            }
            Permissions::Delete { name: user } => {
                client.undefine(Defined::Permission, &[vhost, &user]).await?;
                let text = format!("'{user}' has no permissions in '{vhost}'");
                show::done(&text, json!({"user": user, "vhost": vhost}), broker.json)
            }
        }
    }
}

/// The first line of standard input.
fn read_password(user: &str) -> Result<String, Failure> {
    if io::stdin().is_terminal() {
        let _ = write!(io::stderr(), "password for '{user}' (it is shown): ");
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(Failure::failed)?;
    let password = line.trim_end_matches(['\n', '\r']);
    match password {
        "" => Err(Failure::wrong("the password is empty: give it on standard input")),
        password => Ok(password.to_owned()),
    }
}

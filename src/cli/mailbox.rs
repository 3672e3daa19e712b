//! `pillarbox mailbox`: declares, lists, shows, purges, rewinds, moves and deletes mailboxes.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use pillarbox::broker::Value;
use pillarbox::client::{Binding, Client, Error, Exchange, List, Mailbox, Rewind};
use pillarbox_native::Code;
use serde_json::json;

use super::broker::Broker;
use super::value::Edge;
use super::{Failure, show, value};

/// How often it is asked whether a mailbox has moved.
const MOVE_INTERVAL: Duration = Duration::from_millis(100);

/// Declare, list, show, purge, rewind, move and delete mailboxes
#[derive(Args)]
pub(super) struct MailboxVerb {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Create a mailbox, or find it as it was declared before
    #[command(after_help = "\
Examples:
  pillarbox mailbox declare jobs --message-ttl 1h --dead-letter failed
  pillarbox mailbox declare log --policy stream --max-age 7D
  pillarbox mailbox declare orders --partitions 8 --single-active")]
    Declare(Box<Declare>),
    /// List mailboxes
    #[command(after_help = "Example: pillarbox mailbox list --json")]
    List,
    /// Show what is known of a mailbox
    #[command(after_help = "Example: pillarbox mailbox show jobs")]
    Show { name: String },
    /// Drop the ready messages of a mailbox
    #[command(after_help = "Example: pillarbox mailbox purge jobs")]
    Purge { name: String },
    /// Let messages come again that were settled, where the mailbox keeps them
    #[command(after_help = "\
Examples:
  pillarbox mailbox rewind jobs --from 1h
  pillarbox mailbox rewind jobs --from time=1732500000 --to time=1732503600 --where \"region = 'eu'\"
  pillarbox mailbox rewind jobs --from position=4711

Those of a mailbox that was declared with --keep-settled, or has the policy keep-settled-for. `pillarbox browse jobs --state
settled` shows them. Where none is put back the exit code is 4.")]
    Rewind {
        name: String,
        /// Settled then or later: position=N, time=SECONDS, or a span like 30m
        #[arg(long, value_name = "BOUND", value_parser = value::edge)]
        from: Option<Edge>,
        /// Settled before
        #[arg(long, value_name = "BOUND", value_parser = value::edge)]
        to: Option<Edge>,
        /// Only messages that match this condition, as JMS has it
        #[arg(long, value_name = "CONDITION")]
        r#where: Option<String>,
    },
    /// Let another host have a mailbox of this one, with everything in it
    #[command(after_help = "\
Examples:
  pillarbox mailbox move jobs --to b
  pillarbox mailbox list --json | jq -r '.[].name' | xargs -n1 -I{} pillarbox mailbox move {} --to b

Consumers are cancelled, and find it at its new home. Exit code 0: it lives there; 1: after the deadline, what still waits
is said; the move goes on, and the command may be given again. Needs an administrator.")]
    Move {
        name: String,
        /// The host that shall have it
        #[arg(long, value_name = "HOST")]
        to: String,
        /// Wait so many seconds until everything is on its way
        #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = super::drain::seconds)]
        deadline: Duration,
    },
    /// Delete a mailbox with everything in it
    #[command(after_help = "Example: pillarbox mailbox delete jobs --if-empty")]
    Delete {
        name: String,
        /// Only if nobody consumes from it
        #[arg(long)]
        if_unused: bool,
        /// Only if there is no message in it
        #[arg(long)]
        if_empty: bool,
    },
}

#[derive(Args)]
struct Declare {
    name: String,
    /// Do not keep the mailbox over a restart of the broker
    #[arg(long)]
    transient: bool,
    /// What becomes of messages: a queue's go when they are settled, a stream keeps
    /// them, kv keeps the newest of each key
    #[arg(long, value_name = "POLICY", value_parser = ["queue", "quorum", "stream", "kv"])]
    policy: Option<String>,
    /// Drop messages of a stream that are older: 12h, 7D, 1Y
    #[arg(long, value_name = "AGE")]
    max_age: Option<String>,
    /// Values that kv keeps for each key
    #[arg(long, value_name = "COUNT")]
    history: Option<i64>,
    /// Delete it with its last consumer
    #[arg(long)]
    auto_delete: bool,
    /// Drop messages that are older
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    message_ttl: Option<Duration>,
    /// Delete the mailbox once nobody used it for so long
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    expires: Option<Duration>,
    /// Keep at most so many messages
    #[arg(long, value_name = "COUNT")]
    max_length: Option<i64>,
    /// Keep at most so many bytes
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<i64>,
    /// What a full mailbox does: drop-head or reject-publish
    #[arg(long, value_name = "HOW", value_parser = ["drop-head", "reject-publish", "reject-publish-dlx"])]
    overflow: Option<String>,
    /// Mailbox for messages that were rejected, expired or dropped
    #[arg(long, value_name = "MAILBOX")]
    dead_letter: Option<String>,
    /// Highest priority that messages can have
    #[arg(long, value_name = "NUMBER")]
    max_priority: Option<i64>,
    /// Attempts after which a message goes to the dead letters
    #[arg(long, value_name = "COUNT")]
    delivery_limit: Option<i64>,
    /// Let messages that failed come again after these times, then go to the dead letters: 1s,30s,5m
    #[arg(long, value_name = "TIMES")]
    retry: Option<String>,
    /// Hundredths by which such a time is shorter or longer, by chance
    #[arg(long, value_name = "PERCENT", requires = "retry")]
    retry_jitter: Option<i64>,
    /// Keep one of the messages that are published with the same id within this time
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    deduplication_window: Option<Duration>,
    /// Keep messages for so long after they were settled, so that they can come again
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    keep_settled: Option<Duration>,
    /// Of each key let one message out at a time, in order: keys are in a header, or `routing-key`
    #[arg(long, value_name = "HEADER", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    message_groups: Option<String>,
    /// One consumer at a time gets messages
    #[arg(long)]
    single_active: bool,
    /// Make so many, `NAME-0` and on, behind an exchange NAME that parts messages by their keys
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: Option<u32>,
    /// Any other argument
    #[arg(long, value_name = "NAME=VALUE", value_parser = value::pair)]
    argument: Vec<(String, Value)>,
}

impl Declare {
    fn mailbox(&self) -> Mailbox {
        let ms = |time: Option<Duration>| time.map(|it| it.as_millis() as i64);
        let mut arguments = value::table(&self.argument);
        for (name, number) in [
            ("x-message-ttl", ms(self.message_ttl)),
            ("x-expires", ms(self.expires)),
            ("x-max-length", self.max_length),
            ("x-max-length-bytes", self.max_bytes),
            ("x-max-priority", self.max_priority),
            ("x-delivery-limit", self.delivery_limit),
            ("x-max-history", self.history),
            ("x-retry-jitter", self.retry_jitter),
            ("x-deduplication-window", ms(self.deduplication_window)),
            ("x-keep-settled-for", ms(self.keep_settled)),
        ] {
            if let Some(number) = number {
                arguments.set(name, Value::I64(number));
            }
        }
        if let Some(delays) = &self.retry {
            arguments.set("x-retry-delays", Value::text(delays));
        }
        if let Some(policy) = self.policy.as_deref().filter(|policy| *policy != "queue") {
            arguments.set("x-queue-type", Value::text(policy));
        }
        if let Some(groups) = &self.message_groups {
            arguments.set("x-message-groups", Value::text(groups));
        }
        if let Some(age) = &self.max_age {
            arguments.set("x-max-age", Value::text(age));
        }
        if let Some(overflow) = &self.overflow {
            arguments.set("x-overflow", Value::text(overflow));
        }
        if let Some(mailbox) = &self.dead_letter {
            arguments.set("x-dead-letter-exchange", Value::text(""));
            arguments.set("x-dead-letter-routing-key", Value::text(mailbox));
        }
        if self.single_active {
            arguments.set("x-single-active-consumer", Value::Bool(true));
        }
        Mailbox {
            name: self.name.clone(),
            durable: !self.transient,
            exclusive: false,
            auto_delete: self.auto_delete,
            arguments,
        }
    }
}

impl Declare {
    /// Each partition is there before messages can come to it.
    async fn partition(&self, client: &Client, broker: &Broker) -> Result<(), Failure> {
        let count = self.partitions.unwrap_or(1);
        let exchange = Exchange {
            name: self.name.clone(),
            kind: "x-consistent-hash".into(),
            durable: !self.transient,
            ..Exchange::default()
        };
        client.declare_exchange(&exchange).await?;
        for number in 0..count {
            let name = format!("{}-{number}", self.name);
            client.declare(&Mailbox { name: name.clone(), ..self.mailbox() }).await?;
            let (source, key) = (self.name.clone(), "1".into());
            client.bind(&Binding { source, destination: name, key, ..Binding::default() }).await?;
        }
        let name = &self.name;
        let text = format!("declared '{name}' with {count} partitions");
        show::done(&text, json!({"name": name, "partitions": count}), broker.json)
    }
}

impl MailboxVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        match self.verb {
            Verb::Declare(declare) if declare.partitions.is_some() => {
                declare.partition(&client, broker).await
            }
            Verb::Declare(declare) => {
                let declared = client.declare(&declare.mailbox()).await?;
                let fields = json!({
                    "name": declared.name, "ready": declared.ready, "consumers": declared.consumers,
                });
                show::done(&format!("declared '{}'", declared.name), fields, broker.json)
            }
            Verb::List => {
                let rows = client.list(List::Mailboxes, "").await?;
                let columns = ["name", "ready", "unsettled", "consumers", "durable"];
                show::rows(&rows, &columns, broker.json)
            }
            Verb::Show { name } => {
                let rows = client.list(List::Mailboxes, "").await?;
                match rows.iter().find(|row| row.get("name").and_then(Value::as_str) == Some(&name))
                {
                    Some(row) => show::one(row, broker.json),
                    // Whose consumers are asked for is known by name, also where it lives on another host.
                    None => match client.list(List::Consumers, &name).await {
                        Err(error) => Err(explain(error, &name)),
                        Ok(_) => Err(missing(&name)),
                    },
                }
            }
            Verb::Purge { name } => {
                let count = client.purge(&name).await.map_err(|error| explain(error, &name))?;
                show::done(
                    &format!("purged {count} messages from '{name}'"),
                    json!({"name": name, "purged": count}),
                    broker.json,
                )
            }
            Verb::Rewind { name, from, to, r#where } => {
                let rewind = rewind(from, to, r#where);
                let moved = client.rewind(&name, &rewind).await;
                let count = moved.map_err(|error| explain(error, &name))?;
                if count == 0 {
                    return Err(Failure::nothing(format!(
                        "no such message was settled in '{name}'"
                    )));
                }
                show::done(
                    &format!("put {count} messages back into '{name}'"),
                    json!({"name": name, "moved": count}),
                    broker.json,
                )
            }
            Verb::Move { name, to, deadline } => {
                move_to(&client, &name, &to, deadline).await?;
                show::done(
                    &format!("'{name}' lives on host '{to}' now"),
                    json!({"name": name, "host": to}),
                    broker.json,
                )
            }
            Verb::Delete { name, if_unused, if_empty } => {
                let deleted = client.delete(&name, if_unused, if_empty).await;
                let count = deleted.map_err(|error| explain(error, &name))?;
                show::done(
                    &format!("deleted '{name}' with {count} messages"),
                    json!({"name": name, "messages": count}),
                    broker.json,
                )
            }
        }
    }
}

/// Asks until nothing is left here.
async fn move_to(client: &Client, name: &str, to: &str, deadline: Duration) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let left = client.move_mailbox(name, to).await?;
        if left == 0 {
            return Ok(());
        }
        if began.elapsed() >= deadline {
            let seconds = deadline.as_secs();
            let text = format!(
                "after {seconds} s {left} messages of '{name}' are still here: the move goes on"
            );
            return Err(Failure::failed(text));
        }
        tokio::time::sleep(MOVE_INTERVAL).await;
    }
}

fn rewind(from: Option<Edge>, to: Option<Edge>, selector: Option<String>) -> Rewind {
    let mut rewind = Rewind { selector, ..Rewind::default() };
    let ago = |ms: u64| value::now_ms().saturating_sub(ms);
    match from {
        Some(Edge::AgoMs(ms)) => rewind.from_ms = ago(ms),
        Some(Edge::AtMs(ms)) => rewind.from_ms = ms,
        Some(Edge::Position(first)) => rewind.first = first,
        None => {}
    }
    match to {
        Some(Edge::AgoMs(ms)) => rewind.to_ms = ago(ms),
        Some(Edge::AtMs(ms)) => rewind.to_ms = ms,
        Some(Edge::Position(end)) => rewind.end = end,
        None => {}
    }
    rewind
}

/// A missing mailbox is told with what to do next.
pub(super) fn explain(error: Error, name: &str) -> Failure {
    match error.code() {
        Some(Code::NotFound) => missing(name),
        _ => error.into(),
    }
}

fn missing(name: &str) -> Failure {
    Failure::nothing(format!(
        "there is no mailbox '{name}': `pillarbox mailbox list` shows those there are, \
         `pillarbox mailbox declare {name}` makes it"
    ))
}

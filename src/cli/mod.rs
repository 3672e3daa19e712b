//! The command line: verbs, their flags, and exit codes.

mod bench;
mod broker;
mod browse;
mod check;
mod cursor;
mod definitions;
mod delayed;
mod drain;
mod health;
mod kv;
mod limit;
mod mailbox;
mod peer;
mod pipe;
mod policy;
mod progress;
mod pull;
mod push;
mod redrive;
mod serve;
mod show;
mod top;
mod topic;
mod topology;
mod user;
mod value;
mod vhost;
mod watch;
mod web;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use pillarbox::client;
use pillarbox_native::Code;

use self::broker::Broker;

/// Exit codes besides 0: something failed, or the command or its settings are wrong.
const FAILED: u8 = 1;
const WRONG: u8 = 2;
/// No broker answers, or it lets nobody in.
const NO_BROKER: u8 = 3;
/// What was named is not there, or there is nothing in it.
const NOTHING: u8 = 4;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed or refused, 2 wrong use, 3 no broker or no login, 4 nothing there";

/// A message broker for every host: durable mailboxes over AMQP, STOMP and a native protocol.
#[derive(Parser)]
#[command(name = "pillarbox", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

// A verb that talks to a broker. (Text here would stand in the help of every verb.)
#[derive(Args)]
struct To<V: Args> {
    #[command(flatten)]
    verb: V,
    #[command(flatten)]
    broker: Broker,
}

#[derive(Subcommand)]
enum Verb {
    Serve(Box<serve::Serve>),
    Check(check::Check),
    Mailbox(Box<To<mailbox::MailboxVerb>>),
    Delayed(Box<To<delayed::DelayedVerb>>),
    Push(Box<To<push::Push>>),
    Pull(Box<To<pull::Pull>>),
    Browse(Box<To<browse::BrowseVerb>>),
    Publish(Box<To<topic::Publish>>),
    Subscribe(Box<To<topic::SubscribeVerb>>),
    Request(Box<To<topic::Request>>),
    Pipe(Box<To<pipe::PipeVerb>>),
    Kv(Box<To<kv::KvVerb>>),
    Redrive(Box<To<redrive::RedriveVerb>>),
    Cursor(Box<To<cursor::CursorVerb>>),
    Exchange(Box<To<topology::ExchangeVerb>>),
    Binding(Box<To<topology::BindingVerb>>),
    /// Let messages of an exchange come to a mailbox
    Bind(Box<To<topology::Bind>>),
    /// Undo a binding
    #[command(after_help = "Example: pillarbox unbind logs errors --key '*.error'")]
    Unbind(Box<To<topology::Bind>>),
    Consumer(Box<To<watch::ConsumerVerb>>),
    Connection(Box<To<watch::ConnectionVerb>>),
    Peer(Box<To<peer::PeerVerb>>),
    Drain(Box<To<drain::DrainVerb>>),
    User(Box<To<user::UserVerb>>),
    Vhost(Box<To<vhost::VhostVerb>>),
    Permission(Box<To<user::PermissionVerb>>),
    Limit(Box<To<limit::LimitVerb>>),
    Policy(Box<To<policy::PolicyVerb>>),
    Definitions(Box<To<definitions::DefinitionsVerb>>),
    Health(Box<To<health::HealthVerb>>),
    Bench(Box<To<bench::Bench>>),
    Top(Box<To<top::Top>>),
    /// Print a script that completes commands in a shell
    #[command(
        after_help = "Example: pillarbox completions bash > /etc/bash_completion.d/pillarbox"
    )]
    Completions {
        shell: Shell,
    },
}

pub(crate) fn run() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Serve(serve) => serve.run(),
        Verb::Check(check) => check.run(),
        Verb::Mailbox(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Delayed(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Push(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Pull(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Browse(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Publish(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Subscribe(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Request(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Pipe(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Kv(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Redrive(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Cursor(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Exchange(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Binding(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Bind(it) => it.broker.run(it.verb.run(true, &it.broker)),
        Verb::Unbind(it) => it.broker.run(it.verb.run(false, &it.broker)),
        Verb::Consumer(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Connection(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Peer(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Drain(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::User(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Vhost(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Permission(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Limit(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Policy(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Definitions(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Health(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Bench(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Top(it) => it.broker.run(it.verb.run(&it.broker)),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pillarbox", &mut script);
            io::stdout().write_all(&script).map_err(|error| Failure::output(&error))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                let _ = writeln!(io::stderr(), "pillarbox: {}", failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// What ends a command early.
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn failed(error: impl Display) -> Self {
        Self { code: FAILED, text: error.to_string() }
    }

    fn wrong(error: impl Display) -> Self {
        Self { code: WRONG, text: error.to_string() }
    }

    fn no_broker(text: impl Display) -> Self {
        Self { code: NO_BROKER, text: text.to_string() }
    }

    fn nothing(text: impl Display) -> Self {
        Self { code: NOTHING, text: text.to_string() }
    }

    /// Whoever read our output went away; that is no failure of ours.
    fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: 0, text: String::new() },
            _ => Self::failed(format!("cannot write: {error}")),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let code = match &error {
            client::Error::NoBroker { .. }
            | client::Error::OtherProtocol { .. }
            | client::Error::Tls(_)
            | client::Error::Login(_) => NO_BROKER,
            client::Error::Refused { code: Code::NotFound, .. } => NOTHING,
            _ => FAILED,
        };
        let hint = match &error {
            client::Error::Login(_) => ": name others with --user and --password",
            client::Error::OtherProtocol { .. } => {
                "; its native listener is elsewhere, or switched off: see --broker"
            }
            _ => "",
        };
        Self { code, text: format!("{error}{hint}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list of verbs says what each does, and the help of each shows how.
    #[test]
    fn every_verb_says_what_it_does_with_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty(), "{path} does not say what it does");
            let verbs: Vec<_> = command.get_subcommands().collect();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(!verbs.is_empty() || help.contains("xample"), "{path} shows no example");
            for verb in verbs {
                check(verb, &format!("{path} {}", verb.get_name()));
            }
        }
        let command = Cli::command();
        check(&command, "pillarbox");
        let mut abouts: Vec<String> = command
            .get_subcommands()
            .filter_map(|verb| verb.get_about().map(ToString::to_string))
            .collect();
        let count = abouts.len();
        abouts.sort();
        abouts.dedup();
        assert_eq!(abouts.len(), count, "two verbs say that they do the same");
    }

    /// A verb's argument with the name of a flag of every verb would change what that flag says.
    #[test]
    fn no_argument_hides_another() {
        fn check(command: &clap::Command, above: &[String]) {
            let own: Vec<String> =
                command.get_arguments().map(|it| it.get_id().to_string()).collect();
            for name in &own {
                assert!(!above.contains(name), "{name} of {} stands twice", command.get_name());
            }
            let globals = command.get_arguments().filter(|it| it.is_global_set());
            let globals: Vec<String> = globals.map(|it| it.get_id().to_string()).collect();
            for verb in command.get_subcommands() {
                check(verb, &[above, &globals].concat());
            }
        }
        check(&Cli::command(), &[]);
        Cli::command().debug_assert();
    }
}

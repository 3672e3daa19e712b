//! The command line: verbs, their flags, and exit codes.

mod serve;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit codes besides 0: something failed, or the command or its settings are wrong.
const FAILED: u8 = 1;
const WRONG: u8 = 2;

/// A message broker for every host: durable mailboxes over AMQP, STOMP and a native protocol.
#[derive(Parser)]
#[command(name = "pillarbox", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Serve(serve::Serve),
}

pub(crate) fn run() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Serve(serve) => serve.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "pillarbox: {}", failure.text);
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
}

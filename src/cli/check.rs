//! `pillarbox check`: reads everything in a data directory, says whether it can be trusted, and gives space back.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use pillarbox::server::FORMS;
use pillarbox::store::{self, Report};

use super::Failure;

/// Verify a data directory: read every message and compare it with its checksum. No broker may run on it.
///
/// Nothing is changed, unless --compact is given.
#[derive(Args)]
#[command(after_help = "Example: pillarbox check --data-dir /var/lib/pillarbox --compact")]
pub(super) struct Check {
    /// The directory to verify
    #[arg(long, value_name = "DIRECTORY", default_value = "pillarbox-data")]
    data_dir: PathBuf,
    /// Afterwards, if everything is in order: give the space of what is gone back to the file system
    #[arg(long)]
    compact: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        if !self.data_dir.is_dir() {
            let text = format!("{} is not a directory", self.data_dir.display());
            return Err(Failure::wrong(text));
        }
        let shown = io::stderr().is_terminal();
        let report = store::check(&self.data_dir, &FORMS, |done, all| {
            if shown {
                // On a terminal only; a line that cannot be shown is no reason to stop.
                let _ = write!(io::stderr(), "\r{done} of {all} messages");
                if done == all {
                    let _ = writeln!(io::stderr());
                }
            }
        });
        conclude(&report.map_err(Failure::failed)?)?;
        if self.compact {
            let (before, after) =
                store::compact(&self.data_dir, &FORMS).map_err(Failure::failed)?;
            say(&format!("{before} bytes on the disk before, {after} after"))?;
        }
        Ok(())
    }
}

fn conclude(report: &Report) -> Result<(), Failure> {
    say(&format!(
        "{} definitions, {} mailboxes, {} messages with {} bytes; {} bytes on the disk",
        report.definitions,
        report.mailboxes,
        report.messages,
        report.bytes,
        report.journal_bytes + report.home_bytes,
    ))?;
    for (what, findings) in [("set aside before", &report.quarantine), ("damaged", &report.damaged)]
    {
        for it in findings {
            say(&format!(
                "{what}: mailbox {}, position {}: {}",
                it.mailbox.0, it.seq.0, it.reason
            ))?;
        }
    }
    for fault in &report.faults {
        say(fault)?;
    }
    let wrong = report.damaged.len() + report.faults.len();
    if wrong == 0 {
        return say("everything is in order");
    }
    Err(Failure::failed(format!("{wrong} things cannot be trusted")))
}

fn say(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(Failure::failed)
}

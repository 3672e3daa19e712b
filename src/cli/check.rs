//! `pillarbox check`: reads everything in a data directory and says whether it can be trusted.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use pillarbox::broker::{Definition, Fetch, MailboxId, Recovered, Seq};
use pillarbox::server::FORMS;
use pillarbox::store::{Options, Reader, Store};

use super::Failure;

/// Messages read at once.
const SLICE: u32 = 64;

/// Verify a data directory: read every message and compare it with its checksum. No broker may run on it.
#[derive(Args)]
pub(super) struct Check {
    /// The directory to verify
    #[arg(long, value_name = "DIRECTORY", default_value = "pillarbox-data")]
    data_dir: PathBuf,
}

#[derive(Default)]
struct Findings {
    messages: u64,
    bytes: u64,
    damaged: Vec<String>,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        if !self.data_dir.is_dir() {
            let text = format!("{} is not a directory", self.data_dir.display());
            return Err(Failure::wrong(text));
        }
        let opened = Store::open(&self.data_dir, &FORMS, Options::default());
        let (store, recovered) = opened.map_err(Failure::failed)?;
        let reader = store.reader();
        let mut findings = Findings::default();
        for mailbox in &recovered.mailboxes {
            let before = findings.messages;
            for run in &mailbox.messages {
                findings.read(&reader, mailbox.id, run.first, run.count);
            }
            let count = findings.messages - before;
            let name = name(&recovered, mailbox.id);
            say(&format!("{name}: {count} messages, next position {}", mailbox.next.0))?;
        }
        drop(reader);
        store.close().map_err(Failure::failed)?;
        findings.conclude(&recovered)
    }
}

impl Findings {
    fn read(&mut self, reader: &Reader, mailbox: MailboxId, first: Seq, count: u32) {
        for offset in (0..count).step_by(SLICE as usize) {
            let ranges = vec![(Seq(first.0 + u64::from(offset)), SLICE.min(count - offset))];
            for found in reader.fetch(&Fetch { mailbox, lane: 0, ranges }) {
                match found.message {
                    Ok(message) => {
                        self.messages += 1;
                        self.bytes += message.size() as u64;
                    }
                    Err(reason) => {
                        self.damaged.push(format!(
                            "mailbox {}, position {}: {reason}",
                            mailbox.0, found.seq.0
                        ));
                    }
                }
            }
        }
    }

    fn conclude(self, recovered: &Recovered) -> Result<(), Failure> {
        say(&format!(
            "{} definitions, {} mailboxes, {} messages, {} bytes; last stop {}",
            recovered.definitions.len(),
            recovered.mailboxes.len(),
            self.messages,
            self.bytes,
            if recovered.clean { "orderly" } else { "not orderly" },
        ))?;
        if self.damaged.is_empty() {
            return say("everything is in order");
        }
        for line in &self.damaged {
            say(line)?;
        }
        Err(Failure::failed(format!("{} messages cannot be trusted", self.damaged.len())))
    }
}

fn name(recovered: &Recovered, id: MailboxId) -> String {
    let definition = recovered.definitions.iter().find_map(|definition| match definition {
        Definition::Mailbox(mailbox) if mailbox.id == id => Some(mailbox),
        _ => None,
    });
    match definition {
        Some(mailbox) => format!("mailbox {} '{}' in '{}'", id.0, mailbox.name, mailbox.vhost),
        None => format!("mailbox {}", id.0),
    }
}

fn say(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(Failure::failed)
}

//! `pillarbox pipe`: connects two programs' standard input and output by a name.

use std::io::{self, IsTerminal, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use pillarbox::client::{Error, Pipe, PipeReader, PipeWriter};
use pillarbox_native::Code;
use tokio::sync::mpsc;

use super::broker::Broker;
use super::progress::Progress;
use super::{Failure, value};

const READ_SIZE: usize = 64 << 10;

/// Connect two programs: what one writes the other reads, and back
#[derive(Args)]
#[command(after_help = "\
Examples:
  pillarbox pipe --listen backup > backup.tar        (on one terminal)
  tar c . | pillarbox pipe --connect backup          (on another)

Bytes go both ways at the same time. The pipe ends when both sides have ended their input; a side that only
receives ends its own with `< /dev/null` or Ctrl-D. If the other side dies the exit code is 1, and output may be short.")]
pub(super) struct PipeVerb {
    /// Wait for somebody to connect to this name
    #[arg(long, value_name = "NAME", required_unless_present = "connect")]
    listen: Option<String>,
    /// Connect to whoever listens to this name
    #[arg(long, value_name = "NAME", conflicts_with = "listen")]
    connect: Option<String>,
    /// How long to wait for the other side
    #[arg(long, short = 'w', value_name = "TIME", value_parser = value::duration, default_value = "60s")]
    wait: Duration,
}

impl PipeVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let client = broker.connect().await?;
        let pipe = match (&self.listen, &self.connect) {
            (Some(name), _) => {
                let mut listener = client.listen_pipe(name).await?;
                let accepted = tokio::time::timeout(self.wait, listener.accept()).await;
                accepted.map_err(|_| nobody(name, "connected"))??
            }
            (None, Some(name)) => {
                client.connect_pipe(name, self.wait).await.map_err(|error| match error {
                    Error::Refused { code: Code::NotFound, .. } => nobody(name, "listens"),
                    Error::Timeout => nobody(name, "answered"),
                    other => other.into(),
                })?
            }
            (None, None) => return Err(Failure::wrong("give --listen NAME or --connect NAME")),
        };
        let Pipe { reader, writer } = pipe;
        // What ends with an error ends the other direction too.
        tokio::try_join!(send(writer), receive(reader))?;
        client.close().await?;
        Ok(())
    }
}

fn nobody(name: &str, did: &str) -> Failure {
    Failure::nothing(format!(
        "nobody {did} to '{name}' in time: start `pillarbox pipe --listen {name}` on one side and \
         `pillarbox pipe --connect {name}` on the other"
    ))
}

async fn send(mut writer: PipeWriter) -> Result<(), Failure> {
    let mut pieces = input();
    let mut progress = Progress::start("sent", None, !io::stdin().is_terminal());
    while let Some(piece) = pieces.recv().await {
        let piece =
            piece.map_err(|error| Failure::failed(format!("cannot read the input: {error}")))?;
        let count = piece.len() as u64;
        writer.write(piece).await?;
        progress.add(count);
    }
    progress.end();
    Ok(writer.finish().await?)
}

/// Standard input, read on a thread of its own: one that nobody waits for at the end.
fn input() -> mpsc::Receiver<io::Result<Bytes>> {
    let (to, pieces) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_SIZE];
        loop {
            let piece = match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(Bytes::copy_from_slice(&buffer[..count])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let ended = piece.is_err();
            if to.blocking_send(piece).is_err() || ended {
                return;
            }
        }
    });
    pieces
}

async fn receive(mut reader: PipeReader) -> Result<(), Failure> {
    while let Some(bytes) = reader.read().await? {
        let mut out = io::stdout().lock();
        let written = out.write_all(&bytes).and_then(|()| out.flush());
        written.map_err(|error| Failure::output(&error))?;
    }
    Ok(())
}

//! A stream that no memory holds: appending, a kill, and reading all of it again.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Advice, fadvise};

use super::load::{BATCH, Failure, Meter, Outcome, fill, from_first, mailbox, read};
use super::serving::Serving;

const SIZE: u64 = 1024;
const BLOCK: usize = 1 << 20;
const COPIED: u64 = 8 << 30;

pub(crate) fn run(directory: PathBuf) -> Outcome {
    Box::pin(async move { measure(&directory).await })
}

async fn measure(directory: &Path) -> Result<(), Failure> {
    let gigabytes: u64 = std::env::var("BENCH_GB").map_or(Ok(20), |it| it.parse())?;
    let messages = gigabytes * 1_000_000_000 / SIZE / BATCH * BATCH;
    let serving = Serving::start(directory)?;
    let client = serving.client().await?;
    client.declare(&mailbox("large", "stream")).await?;
    let meter = Meter::start(&serving);
    fill(&client, "large", messages, SIZE).await?;
    meter.tell(&format!("append {gigabytes} GB"), messages, SIZE);
    let serving = serving.kill_and_start()?;
    println!("  after kill -9                      ready in {:.0?}", serving.ready_after);
    forget(directory)?;
    let client = serving.client().await?;
    let meter = Meter::start(&serving);
    read(&client, "large", &from_first(), messages).await?;
    meter.tell("replay from the disk", messages, SIZE);
    let tenth = messages / 10;
    let last = from_first()
        .argument("x-stream-offset", pillarbox::broker::Value::I64((messages - tenth) as i64));
    read(&client, "large", &last, tenth).await?;
    let meter = Meter::start(&serving);
    read(&client, "large", &last, tenth).await?;
    meter.tell("replay from the kernel's cache", tenth, SIZE);
    forget(directory)?;
    println!("  the disk: reading the file         {:6.0} MiB/s", disk(directory)?);
    println!("  loopback: 64 KiB writes            {:6.0} MiB/s", loopback()?);
    Ok(())
}

/// The kernel's cache of the files, as far as it lets go of it.
fn forget(directory: &Path) -> Result<(), Failure> {
    for name in ["home.redb", "journal.redb"] {
        let file = File::open(directory.join(name))?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn disk(directory: &Path) -> Result<f64, Failure> {
    let mut file = File::open(directory.join("home.redb"))?;
    let (mut block, mut total) = (vec![0; BLOCK], 0);
    let begun = Instant::now();
    loop {
        match file.read(&mut block)? {
            0 => return Ok(rate(total, begun)),
            read => total += read as u64,
        }
    }
}

/// A writer and a reader that do nothing else.
fn loopback() -> Result<f64, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        let mut socket = TcpStream::connect(address)?;
        let block = [7; 65_536];
        (0..COPIED / 65_536).try_for_each(|_| socket.write_all(&block))
    });
    let (mut socket, _) = listener.accept()?;
    let (mut block, mut total) = (vec![0; BLOCK], 0);
    let begun = Instant::now();
    while let read @ 1.. = socket.read(&mut block)? {
        total += read as u64;
    }
    writer.join().map_err(|_| "the writer panicked")??;
    Ok(rate(total, begun))
}

fn rate(bytes: u64, begun: Instant) -> f64 {
    bytes as f64 / begun.elapsed().as_secs_f64() / 1_048_576.0
}

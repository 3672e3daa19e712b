//! CPU seconds for a million messages, against a bare append log with fdatasync in the same run.
//!
//! `cargo bench --bench store`; `-- backlog` for the backlog alone; `BENCH_DIR` says where.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pillarbox::broker::{
    Append, Definition, Fetch, MailboxDefinition, MailboxId, Message, Name, Parts, Properties,
    Rest, Seq, Span, Table, Time, WireForm, Write,
};
use pillarbox::store::{Options, Store};

static RAW: WireForm =
    WireForm { id: 1, name: "raw", decode: |_| Properties::default(), encode: |_, _| {} };

/// CPU seconds that the process's threads took so far.
fn cpu() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").expect("proc");
    let nanoseconds: f64 = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse::<f64>().ok())
        .sum();
    nanoseconds / 1e9
}

/// Resident memory in MiB, now or at its highest.
fn memory(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the line");
    let kib: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib / 1024.0
}

struct Messages {
    bodies: Vec<u8>,
    len: usize,
    at: usize,
}

impl Messages {
    fn new(len: usize) -> Self {
        let mut state = 88_172_645_463_325_252_u64;
        let bodies = (0..4 << 20)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        Self { bodies, len, at: 0 }
    }

    fn next(&mut self) -> Arc<Message> {
        self.at = (self.at + self.len) % (self.bodies.len() - self.len);
        let mut buffer = Vec::with_capacity(self.len + 32);
        buffer.extend_from_slice(b"orders.created\0\0\0\0application");
        buffer.extend_from_slice(&self.bodies[self.at..self.at + self.len]);
        let end = buffer.len() as u32;
        let parts = Parts {
            exchange: Name::from(""),
            buffer: Bytes::from(buffer),
            key: Span { start: 0, end: 14 },
            properties: Span { start: 14, end: 29 },
            body: Span { start: 29, end },
            form: &RAW,
            persistent: true,
            priority: 0,
            expiration_ms: None,
        };
        Arc::new(Message::new(parts, Time(1_000)))
    }
}

fn append(mailbox: u64, seq: u64, message: Arc<Message>) -> Write {
    let rest = Rest { since: Time(1_000), ..Rest::default() };
    Write::Append(Append {
        mailbox: MailboxId(mailbox),
        seq: Seq(seq),
        message,
        rest,
        transient: false,
        keyed: false,
    })
}

fn remove(mailbox: u64, first: u64, count: u32) -> Write {
    Write::Remove { mailbox: MailboxId(mailbox), first: Seq(first), count }
}

fn define(id: u64) -> Write {
    Write::Define(Box::new(Definition::Mailbox(MailboxDefinition {
        id: MailboxId(id),
        vhost: Name::from("/"),
        name: Name::from(format!("m{id}")),
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Table::new(),
        epoch: 0,
    })))
}

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let base = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!("pillarbox-bench-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("the bench makes its directory");
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> Store {
    let options = Options { reserve: 0, ..Options::default() };
    Store::open(path, &[&RAW], options).expect("the store opens").0
}

#[derive(Clone, Copy)]
struct Figure {
    cpu: f64,
    wall: f64,
    messages: u64,
}

impl Figure {
    fn cpu_million(self) -> f64 {
        self.cpu / self.messages as f64 * 1e6
    }

    fn print(self, name: &str, log: Option<Self>) {
        let rate = self.messages as f64 / self.wall / 1e3;
        let ratio = log.map_or_else(String::new, |log| {
            format!("{:6.2} of the log by CPU", log.cpu_million() / self.cpu_million())
        });
        println!("{name:44} {:7.2} CPU-s/1M {rate:8.0} k/s  {ratio}", self.cpu_million());
    }
}

/// Runs `step` with messages made outside of what is measured.
fn measure(
    batches: u64,
    batch: u64,
    mut make: impl FnMut(u64) -> Vec<Write>,
    mut step: impl FnMut(&[Write]),
) -> Figure {
    let (mut cpu_sum, mut wall) = (0.0, Duration::ZERO);
    let group = (20_000 / batch).max(1);
    let mut at = 0;
    while at < batches {
        let count = group.min(batches - at);
        let writes: Vec<Vec<Write>> = (at..at + count).map(&mut make).collect();
        let (cpu_before, before) = (cpu(), Instant::now());
        for writes in &writes {
            step(writes);
        }
        wall += before.elapsed();
        cpu_sum += cpu() - cpu_before;
        at += count;
    }
    Figure { cpu: cpu_sum, wall: wall.as_secs_f64(), messages: batches * batch }
}

/// A recycled file, written front to back, with a sync for each batch.
fn bare_log(len: usize, batch: u64, batches: u64) -> Figure {
    let place = Place::new("log");
    let mut file = File::create(place.0.join("log")).expect("the log");
    let size = 64 << 20;
    let mut buffer = vec![7; 1 << 20];
    for _ in 0..64 {
        file.write_all(&buffer).expect("the log is laid out");
    }
    file.sync_all().expect("the log is synced");
    let mut at = size;
    let mut messages = Messages::new(len);
    let make = |_| (0..batch).map(|seq| append(1, seq, messages.next())).collect();
    measure(batches, batch, make, |writes| {
        buffer.clear();
        for write in writes {
            if let Write::Append(append) = write {
                let start = buffer.len();
                buffer.extend_from_slice(&append.mailbox.0.to_le_bytes());
                buffer.extend_from_slice(&append.seq.0.to_le_bytes());
                buffer.extend_from_slice(append.message.key());
                buffer.extend_from_slice(append.message.property_bytes());
                buffer.extend_from_slice(append.message.body());
                let crc = crc32c::crc32c(&buffer[start..]);
                buffer.extend_from_slice(&crc.to_le_bytes());
            }
        }
        if at + buffer.len() > size {
            std::io::Seek::rewind(&mut file).expect("the log starts again");
            at = 0;
        }
        at += buffer.len();
        file.write_all(&buffer).expect("the log takes a batch");
        file.sync_data().expect("the log is synced");
    })
}

/// Each batch removes what the one two before it appended.
fn produce_and_settle(len: usize, mailboxes: u64, batch: u64, batches: u64) -> Figure {
    let place = Place::new("store");
    let mut store = open(&place.0);
    let defined: Vec<Write> = (1..=mailboxes).map(define).collect();
    store.commit(&defined, Time(0)).expect("the store defines");
    let each = batch / mailboxes;
    let mut messages = Messages::new(len);
    let make = |round: u64| {
        let mut writes = Vec::new();
        for mailbox in 1..=mailboxes {
            for at in 0..each {
                writes.push(append(mailbox, 1 + round * each + at, messages.next()));
            }
            if round >= 2 {
                writes.push(remove(mailbox, 1 + (round - 2) * each, each as u32));
            }
        }
        writes
    };
    let figure = measure(batches, batch, make, |writes| {
        store.commit(writes, Time(1)).expect("the store commits");
    });
    store.close().expect("the store closes");
    figure
}

fn fan_out(mailboxes: u64, batch: u64, batches: u64) -> Figure {
    let place = Place::new("fan");
    let mut store = open(&place.0);
    let defined: Vec<Write> = (1..=mailboxes).map(define).collect();
    store.commit(&defined, Time(0)).expect("the store defines");
    let mut messages = Messages::new(1024);
    let make = |round: u64| {
        let mut writes = Vec::new();
        for at in 0..batch {
            let message = messages.next();
            for mailbox in 1..=mailboxes {
                writes.push(append(mailbox, 1 + round * batch + at, Arc::clone(&message)));
            }
        }
        if round >= 2 {
            let old = 1 + (round - 2) * batch;
            writes.extend((1..=mailboxes).map(|mailbox| remove(mailbox, old, batch as u32)));
        }
        writes
    };
    measure(batches, batch, make, |writes| {
        store.commit(writes, Time(1)).expect("the store commits");
    })
}

fn elided(batch: u64, batches: u64) -> Figure {
    let place = Place::new("elided");
    let mut store = open(&place.0);
    store.commit(&[define(1)], Time(0)).expect("the store defines");
    let mut messages = Messages::new(1024);
    let make = |round: u64| {
        let first = 1 + round * batch;
        let mut writes: Vec<Write> =
            (0..batch).map(|at| append(1, first + at, messages.next())).collect();
        writes.push(remove(1, first, batch as u32));
        writes
    };
    measure(batches, batch, make, |writes| {
        store.commit(writes, Time(1)).expect("the store commits");
    })
}

/// Fill, kill, open, drain: what issue 3 says of a backlog.
fn backlog(count: u64) {
    let place = Place::new("backlog");
    let mut store = open(&place.0);
    store.commit(&[define(1)], Time(0)).expect("the store defines");
    let base = memory("VmRSS");
    let batch = 1000;
    let mut messages = Messages::new(1024);
    let make = |round: u64| {
        (0..batch).map(|at| append(1, 1 + round * batch + at, messages.next())).collect()
    };
    let mut highest: f64 = 0.0;
    let fill = measure(count / batch, batch, make, |writes| {
        store.commit(writes, Time(1)).expect("the store commits");
        highest = highest.max(memory("VmRSS"));
    });
    fill.print("fill 1 KiB x 1000", None);
    let stats = store.stats();
    println!(
        "  filled: {} messages, journal {} MiB, home {} MiB, {} home rounds; \
         memory {base:.0} MiB before, {highest:.0} at most",
        stats.messages,
        stats.journal_bytes >> 20,
        stats.home_bytes >> 20,
        stats.home_rounds
    );
    // What a kill leaves: the files as they are, without a word of goodbye.
    let copy = Place::new("killed");
    for name in ["journal.redb", "home.redb"] {
        let to = copy.0.join(name);
        fs::copy(place.0.join(name), &to).expect("the files are copied");
        // The store's own syncs left little to write; the copy's are not what is measured.
        File::open(to).and_then(|file| file.sync_all()).expect("the copies are synced");
    }
    let (cpu_before, before) = (cpu(), Instant::now());
    let options = Options { reserve: 0, ..Options::default() };
    let (killed, recovered) = Store::open(&copy.0, &[&RAW], options).expect("the copy opens");
    let (took, cpu_took) = (before.elapsed(), cpu() - cpu_before);
    let live: u64 = recovered
        .mailboxes
        .iter()
        .flat_map(|it| &it.messages)
        .map(|run| u64::from(run.count))
        .sum();
    println!(
        "  opened after a kill in {:.3} s ({cpu_took:.3} of CPU), {live} messages",
        took.as_secs_f64()
    );
    drop(killed);
    drop(copy);
    drain(&mut store, count, batch);
    let stats = store.stats();
    println!(
        "  drained: {} messages, journal {} MiB, home {} MiB",
        stats.messages,
        stats.journal_bytes >> 20,
        stats.home_bytes >> 20
    );
}

fn drain(store: &mut Store, count: u64, batch: u64) {
    let reader = store.reader();
    let (cpu_before, before) = (cpu(), Instant::now());
    let mut highest: f64 = 0.0;
    for round in 0..count / batch {
        let first = Seq(1 + round * batch);
        for part in 0..4 {
            let ranges = vec![(Seq(first.0 + part * batch / 4), (batch / 4) as u32)];
            let found = reader.fetch(&Fetch { mailbox: MailboxId(1), lane: 0, ranges });
            let found = found.expect("the files can be read");
            assert!(found.iter().all(|it| it.message.is_ok()), "a message cannot be read");
        }
        store.commit(&[remove(1, first.0, batch as u32)], Time(2)).expect("the store commits");
        if round.is_multiple_of(20) {
            highest = highest.max(memory("VmRSS"));
        }
    }
    let figure =
        Figure { cpu: cpu() - cpu_before, wall: before.elapsed().as_secs_f64(), messages: count };
    figure.print("drain: fetch 250 at a time, settle 1000", None);
    println!("  memory {highest:.0} MiB at most");
}

/// How long the files get while messages come and go: each stays for `live` others, one in `straggler` for that many times longer.
/// Each is one body in that many mailboxes, and only the first has such that stay.
fn steady(mailboxes: u64, live: u64, straggler: u64, turns: u64) {
    let place = Place::new("steady");
    let mut store = open(&place.0);
    let defined: Vec<Write> = (1..=mailboxes).map(define).collect();
    store.commit(&defined, Time(0)).expect("the store defines");
    let (batch, mut messages) = (1000, Messages::new(1024));
    let late = straggler * live;
    let make = |round: u64| {
        let first = 1 + round * batch;
        let mut writes = Vec::new();
        for at in 0..batch {
            let message = messages.next();
            for mailbox in 1..=mailboxes {
                writes.push(append(mailbox, first + at, Arc::clone(&message)));
            }
        }
        // The oldest go, but for the stragglers, which go when their own time comes.
        for seq in first.saturating_sub(live)..(first + batch).saturating_sub(live) {
            if seq > 0 {
                let others =
                    if seq.is_multiple_of(straggler) { 2..=mailboxes } else { 1..=mailboxes };
                writes.extend(others.map(|mailbox| remove(mailbox, seq, 1)));
            }
        }
        for seq in first.saturating_sub(late)..(first + batch).saturating_sub(late) {
            if seq > 0 && seq.is_multiple_of(straggler) {
                writes.push(remove(1, seq, 1));
            }
        }
        writes
    };
    let mut longest = 0;
    let figure = measure(turns * live / batch, batch, make, |writes| {
        store.commit(writes, Time(1)).expect("the store commits");
        let stats = store.stats();
        longest = longest.max(stats.journal_bytes + stats.home_bytes);
    });
    let name = format!("{mailboxes} x {live} stay, 1 in {straggler} longer");
    figure.print(&name, None);
    let stats = store.stats();
    println!(
        "  live {} messages, {} MiB; files at most {} MiB, now journal {} MiB, home {} MiB",
        stats.messages,
        // The bodies that live: those of the last, and the stragglers.
        ((live + (late.min(turns * live) - live) / straggler) * 1024) >> 20,
        longest >> 20,
        stats.journal_bytes >> 20,
        stats.home_bytes >> 20
    );
}

fn main() {
    let only = std::env::args().nth(1).filter(|it| !it.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("backlog") {
        backlog(1_000_000);
    }
    if wanted("steady") {
        steady(1, 100_000, 1_000_000, 10);
        steady(1, 100_000, 10, 30);
        steady(1, 20_000, 50, 100);
        steady(3, 20_000, 50, 100);
    }
    if wanted("settle") {
        for (len, batch, batches) in [
            (1024, 1, 10_000),
            (1024, 10, 10_000),
            (1024, 100, 10_000),
            (1024, 1000, 1_000),
            (128, 1000, 1_000),
            (16_384, 100, 1_000),
        ] {
            let log = bare_log(len, batch, batches);
            log.print(&format!("bare log {len} B x {batch}"), None);
            let figure = produce_and_settle(len, 1, batch, batches);
            figure.print(&format!("produce + settle {len} B x {batch}"), Some(log));
        }
    }
    if wanted("many") {
        produce_and_settle(1024, 1, 5000, 200).print("1 mailbox x 5000", None);
        produce_and_settle(1024, 1000, 5000, 200).print("1,000 mailboxes x 5", None);
        produce_and_settle(1024, 1, 1000, 1000).print("1 mailbox x 1000", None);
        produce_and_settle(1024, 1000, 1000, 1000).print("1,000 mailboxes x 1", None);
    }
    if wanted("fan") {
        fan_out(10, 100, 5000).print("fan-out to 10, 1 KiB x 100 (published)", None);
        elided(1000, 500).print("come and gone in one commit x 1000", None);
    }
}

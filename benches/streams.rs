//! What a stream on a real store costs: appending with commits, and reading it all back, without sockets.
//!
//! `cargo bench --bench streams`; `BENCH_DIR` says where. 1 KiB bodies.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pillarbox::broker::*;
use pillarbox::store::{Options, Store};

const MESSAGES: u64 = 1_000_000;
const CLIENT: ConnectionId = ConnectionId(1);
const ONE: ChannelId = ChannelId(1);
/// Commands between two looks at the disk.
const BATCH: u64 = 256;

struct Bench {
    broker: Broker,
    store: Option<Store>,
    now: Time,
    writes: Vec<Write>,
    fetches: mpsc::Sender<Fetch>,
    fetched: mpsc::Receiver<Fetched>,
    on_its_way: u32,
    /// Deliveries and their bytes since they were drained.
    delivered: (u64, u64),
    runs: Vec<Run>,
}

impl Bench {
    fn new(path: &Path) -> Self {
        let (store, recovered) = Store::open(path, &[&NEUTRAL], Options::default()).expect("opens");
        let mut effects = Vec::new();
        let now = Time(1_700_000_000_000);
        let broker = Broker::open(recovered, Settings::default(), now, &mut effects);
        let (fetches, wanted) = mpsc::channel::<Fetch>();
        let (found, fetched) = mpsc::channel();
        let reader = store.reader();
        std::thread::spawn(move || {
            for fetch in wanted {
                let messages = reader.fetch(&fetch).expect("the files are open");
                let Fetch { mailbox, lane, .. } = fetch;
                if found.send(Fetched { mailbox, lane, messages }).is_err() {
                    break;
                }
            }
        });
        let store = Some(store);
        let mut bench = Self {
            broker,
            store,
            now,
            writes: Vec::new(),
            fetches,
            fetched,
            on_its_way: 0,
            delivered: (0, 0),
            runs: Vec::new(),
        };
        bench.perform(effects);
        let open = Open {
            user: "guest".into(),
            vhost: "/".into(),
            protocol: "bench",
            peer: String::new(),
            local: String::new(),
            client_name: None,
            client_properties: Table::new(),
            mechanism: "PLAIN",
            strict_channels: true,
            cancel_notify: true,
        };
        bench.apply(CLIENT, Command::Open(Box::new(open), Ticket(0)));
        bench
    }

    fn apply(&mut self, from: ConnectionId, command: Command) {
        let mut effects = Vec::new();
        self.broker.apply(from, command, self.now, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Write(write) => self.writes.push(write),
                Effect::Fetch(fetch) => {
                    self.on_its_way += 1;
                    self.fetches.send(fetch).expect("the reader lives");
                }
                Effect::Notify(_, event) => {
                    event.deliveries().iter().for_each(|it| self.deliver(it));
                }
                _ => {}
            }
        }
    }

    fn deliver(&mut self, it: &Delivery) {
        self.delivered.0 += 1;
        self.delivered.1 += it.message.size() as u64;
        match self.runs.last_mut() {
            Some(run) if run.first.0 + u64::from(run.count) == it.seq.0 => run.count += 1,
            _ => self.runs.push(Run { mailbox: it.mailbox, first: it.seq, count: 1 }),
        }
    }

    fn commit(&mut self) {
        if self.writes.is_empty() {
            return;
        }
        let epoch = self.broker.seal();
        let writes = std::mem::take(&mut self.writes);
        if let Some(store) = &mut self.store {
            store.commit(&writes, self.now).expect("commits");
        }
        let mut effects = Vec::new();
        self.broker.durable(epoch, self.now, &mut effects);
        self.perform(effects);
    }

    fn ask(&mut self, request: Request) {
        self.apply(CLIENT, Command::Request(ONE, Ticket(1), Box::new(request)));
        self.commit();
    }

    fn declare(&mut self, name: &str, kind: &str) {
        let mut arguments = Table::new();
        arguments.set("x-queue-type", Value::text(kind));
        self.ask(Request::DeclareMailbox(DeclareMailbox {
            name: name.into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments,
            generated: false,
        }));
    }

    fn fill(&mut self, mailbox: &str) -> Duration {
        let body = vec![7; 1024];
        let start = Instant::now();
        for n in 0..MESSAGES {
            let message = Message::build(&Source {
                exchange: &"".into(),
                key: mailbox.as_bytes(),
                properties: &Properties::default(),
                body: &body,
                form: &NEUTRAL,
                persistent: true,
                accepted: self.now,
            });
            let publish = Publish {
                channel: ONE,
                message: Arc::new(message),
                more_keys: None,
                confirm: None,
                mandatory: false,
                home: false,
            };
            self.apply(CLIENT, Command::Publish(publish));
            if n % BATCH == 0 {
                self.commit();
            }
        }
        self.commit();
        start.elapsed()
    }

    fn read(&mut self, mailbox: &str, consumer: u32) -> Duration {
        let start = Instant::now();
        let mut arguments = Table::new();
        arguments.set("x-stream-offset", Value::text("first"));
        self.ask(Request::Consume(Consume {
            mailbox: mailbox.into(),
            consumer: ConsumerId(consumer),
            tag: "".into(),
            no_ack: false,
            exclusive: false,
            priority: 0,
            prefetch: 2000,
            arguments,
            selection: None,
            bounded: true,
        }));
        let mut total = 0;
        while total < MESSAGES {
            let (deliveries, bytes) = std::mem::take(&mut self.delivered);
            total += deliveries;
            if deliveries > 0 {
                let deliveries = deliveries as u32;
                self.apply(CLIENT, Command::Drained { deliveries, bytes });
                let deliveries = std::mem::take(&mut self.runs).into_iter().collect();
                let outcome = Outcome::Accepted;
                self.apply(CLIENT, Command::Settle(Settle { channel: ONE, deliveries, outcome }));
            } else if self.on_its_way > 0 {
                let fetched = self.fetched.recv().expect("the reader lives");
                self.on_its_way -= 1;
                self.apply(SERVER, Command::Fetched(fetched));
            } else {
                assert_eq!(total, MESSAGES, "nothing more comes");
            }
            self.commit();
        }
        self.ask(Request::Cancel(ConsumerId(consumer)));
        start.elapsed()
    }
}

fn main() {
    let base = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = base.join(format!("pillarbox-streams-{}", std::process::id()));
    let mut bench = Bench::new(&path);
    let rate = |took: Duration| MESSAGES as f64 / took.as_secs_f64() / 1000.0;
    for kind in ["classic", "stream"] {
        bench.declare(kind, kind);
        let took = bench.fill(kind);
        println!("append to {kind:8} {:8.0} k/s", rate(took));
        if kind == "classic" {
            let (name, if_unused, if_empty) = (kind.into(), false, false);
            bench.ask(Request::DeleteMailbox { name, if_unused, if_empty });
        }
    }
    for round in 1..3 {
        let took = bench.read("stream", round);
        println!("replay {round}           {:8.0} k/s", rate(took));
    }
    drop(bench.store.take());
    std::fs::remove_dir_all(&path).expect("the bench removes its directory");
}

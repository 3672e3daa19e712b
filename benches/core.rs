//! What the broker's inside costs for each message: publish, deliver and settle, without sockets or disk.
//!
//! `cargo bench --bench core`

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pillarbox::broker::*;

const BATCH: u64 = 64;
const MESSAGES: u64 = 1_000_000;
const WINDOW: u64 = 10 * BATCH;
const PUBLISHER: ConnectionId = ConnectionId(1);
const CONSUMER: ConnectionId = ConnectionId(2);
const CHANNEL: ChannelId = ChannelId(1);

struct Bench {
    broker: Broker,
    now: Time,
    effects: Vec<Effect>,
    ticket: u64,
    messages: u64,
}

/// What a run does with each message.
struct Run<'a> {
    persistent: bool,
    /// Settle this many at once; `None` without acknowledgements.
    settle: Option<u64>,
    exchange: &'a str,
    keys: &'a [String],
}

impl Bench {
    fn new() -> Self {
        let mut effects = Vec::new();
        let now = Time(1_700_000_000_000);
        let settings = Settings::default();
        let broker = Broker::open(Recovered::default(), settings, now, &mut effects);
        let messages = std::env::var("BENCH_MESSAGES").ok().and_then(|text| text.parse().ok());
        let messages = messages.unwrap_or(MESSAGES);
        let mut bench = Self { broker, now, effects, ticket: 0, messages };
        for id in [PUBLISHER, CONSUMER] {
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
            bench.apply(id, Command::Open(Box::new(open), Ticket(0)));
        }
        bench
    }

    fn apply(&mut self, from: ConnectionId, command: Command) {
        self.broker.apply(from, command, self.now, &mut self.effects);
    }

    fn ask(&mut self, request: Request) {
        self.ticket += 1;
        let command = Command::Request(CHANNEL, Ticket(self.ticket), Box::new(request));
        self.apply(CONSUMER, command);
    }

    fn mailbox(&mut self, name: &str, no_ack: bool) {
        self.ask(Request::DeclareMailbox(DeclareMailbox {
            name: name.into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Table::new(),
            generated: false,
        }));
        self.ticket += 1;
        self.ask(Request::Consume(Consume {
            mailbox: name.into(),
            consumer: ConsumerId(self.ticket as u32),
            tag: name.into(),
            no_ack,
            exclusive: false,
            priority: 0,
            prefetch: 0,
            arguments: Table::new(),
            selection: None,
            bounded: false,
        }));
    }

    fn bind(&mut self, exchange: &str, mailbox: &str, key: &str) {
        self.ask(Request::Bind(BindingOf {
            source: exchange.into(),
            destination: Destination::Mailbox(mailbox.into()),
            key: Bytes::copy_from_slice(key.as_bytes()),
            arguments: Table::new(),
        }));
    }

    /// Nanoseconds for each published message: the best twentieth of the windows, as others use the machine too.
    fn run(&mut self, run: &Run<'_>) -> f64 {
        self.effects.clear();
        let exchange = Name::from(run.exchange);
        let mut properties = Vec::new();
        (NEUTRAL.encode)(&Properties::default(), &mut properties);
        // One buffer for a batch, as a socket read gives it.
        let body = [b'x'; 100];
        let buffers: Vec<(Bytes, Span, Span, Span)> = run
            .keys
            .iter()
            .map(|key| {
                let mut buffer = Vec::new();
                buffer.extend_from_slice(key.as_bytes());
                let key = Span { start: 0, end: buffer.len() as u32 };
                buffer.extend_from_slice(&properties);
                let properties = Span { start: key.end, end: buffer.len() as u32 };
                buffer.extend_from_slice(&body);
                let body = Span { start: properties.end, end: buffer.len() as u32 };
                (Bytes::from(buffer), key, properties, body)
            })
            .collect();
        let mut held: Vec<(MailboxId, Seq)> = Vec::new();
        let mut published = 0;
        let mut own = Duration::ZERO;
        let mut windows = Vec::new();
        while published < self.messages {
            let publishes: Vec<Command> = (0..BATCH)
                .map(|_| {
                    published += 1;
                    let at = published as usize % buffers.len();
                    let (buffer, key, properties, body) = &buffers[at];
                    let parts = Parts {
                        exchange: exchange.clone(),
                        buffer: buffer.clone(),
                        key: *key,
                        properties: *properties,
                        body: *body,
                        form: &NEUTRAL,
                        persistent: run.persistent,
                        priority: 0,
                        expiration_ms: None,
                    };
                    Command::Publish(Publish {
                        channel: CHANNEL,
                        message: Arc::new(Message::new(parts, self.now)),
                        more_keys: None,
                        confirm: Some(published),
                        mandatory: false,
                        home: false,
                    })
                })
                .collect();
            let start = Instant::now();
            self.broker.apply_all(PUBLISHER, publishes, self.now, &mut self.effects);
            own += start.elapsed();
            let (mut deliveries, mut bytes) = (0, 0);
            for effect in &self.effects {
                let Effect::Notify(_, event) = effect else { continue };
                for delivery in event.deliveries() {
                    deliveries += 1;
                    bytes += delivery.message.size() as u64;
                    if run.settle.is_some() {
                        held.push((delivery.mailbox, delivery.seq));
                    }
                }
            }
            let start = Instant::now();
            let epoch = self.broker.seal();
            self.effects.clear();
            self.broker.durable(epoch, self.now, &mut self.effects);
            self.broker.apply(
                CONSUMER,
                Command::Drained { deliveries, bytes },
                self.now,
                &mut self.effects,
            );
            own += start.elapsed();
            if let Some(size) = run.settle
                && held.len() as u64 >= size
            {
                let settles = settlements(&mut held);
                let start = Instant::now();
                for settle in settles {
                    let command = Command::Settle(settle);
                    self.broker.apply(CONSUMER, command, self.now, &mut self.effects);
                }
                own += start.elapsed();
            }
            self.now = self.now.plus_ms(1);
            if published % WINDOW == 0 {
                windows.push(std::mem::take(&mut own).as_nanos() as f64 / WINDOW as f64);
            }
        }
        windows.sort_by(f64::total_cmp);
        windows[windows.len() / 20]
    }
}

/// One acknowledgement of everything, as runs of neighbours.
fn settlements(held: &mut Vec<(MailboxId, Seq)>) -> Vec<Settle> {
    held.sort_unstable();
    let mut settle = Settle {
        channel: CHANNEL,
        deliveries: [].into_iter().collect(),
        outcome: Outcome::Accepted,
    };
    for (mailbox, seq) in held.drain(..) {
        match settle.deliveries.last_mut() {
            Some(last)
                if last.mailbox == mailbox && last.first.0 + u64::from(last.count) == seq.0 =>
            {
                last.count += 1;
            }
            _ => settle.deliveries.push(pillarbox::broker::Run { mailbox, first: seq, count: 1 }),
        }
    }
    vec![settle]
}

fn main() {
    let one = || {
        let mut bench = Bench::new();
        bench.mailbox("a", false);
        bench
    };
    let key = |text: &str| vec![text.to_owned()];
    // Only scenarios whose name contains the argument, if there is one.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let report = |name: &str, bench: &mut Bench, run: &Run<'_>| {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            return;
        }
        bench.run(&Run { ..*run });
        println!("{name:<48} {:>6.0} ns a message", bench.run(run));
    };

    let mut bench = Bench::new();
    bench.mailbox("a", true);
    let run = Run { persistent: false, settle: None, exchange: "", keys: &key("a") };
    report("transient, no acknowledgements", &mut bench, &run);

    let run = Run { persistent: false, settle: Some(100), exchange: "", keys: &key("a") };
    report("transient, acknowledged by 100", &mut one(), &run);

    let run = Run { persistent: true, settle: Some(100), exchange: "", keys: &key("a") };
    report("persistent, acknowledged by 100", &mut one(), &run);

    let mut bench = Bench::new();
    for n in 0..10 {
        let name = format!("m{n}");
        bench.mailbox(&name, false);
        bench.bind("amq.fanout", &name, "");
    }
    let run = Run { persistent: true, settle: Some(100), exchange: "amq.fanout", keys: &key("") };
    report("persistent, to 10 mailboxes, acknowledged by 100", &mut bench, &run);

    let mut bench = Bench::new();
    let keys: Vec<String> = (0..100).map(|n| format!("m{n}")).collect();
    for name in &keys {
        bench.mailbox(name, false);
    }
    let run = Run { persistent: true, settle: Some(100), exchange: "", keys: &keys };
    report("persistent, 100 mailboxes in turn", &mut bench, &run);

    let mut bench = Bench::new();
    bench.mailbox("a", false);
    for n in 0..1_000 {
        bench.bind("amq.topic", "a", &format!("sensor.{n}.*"));
    }
    let keys: Vec<String> = (0..1_000).map(|n| format!("sensor.{n}.heat")).collect();
    let run = Run { persistent: true, settle: Some(100), exchange: "amq.topic", keys: &keys };
    report("persistent, topic with 1,000 bindings and keys", &mut bench, &run);
}

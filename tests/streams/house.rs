//! A broker on a store: what the server does between them, one step at a time.

use std::sync::Arc;

use pillarbox::broker::*;
use pillarbox::store::{Memory, Options, Reader, Store};

const CLIENT: ConnectionId = ConnectionId(1);
const ONE: ChannelId = ChannelId(1);

pub(crate) struct House {
    broker: Broker,
    store: Store,
    reader: Reader,
    pub(crate) now: Time,
    writes: Vec<Write>,
    fetches: Vec<Fetch>,
    delivered: Vec<Delivery>,
    replies: Vec<Result<Reply, Refusal>>,
    consumers: u32,
}

impl House {
    pub(crate) fn open(directory: &Memory) -> Self {
        Self::open_at(directory, Time(1_700_000_000_000))
    }

    fn open_at(directory: &Memory, now: Time) -> Self {
        let options = Options {
            journal_cache: 2 << 20,
            home_cache: 2 << 20,
            soft_cap: 256 << 10,
            hard_cap: 1 << 20,
            background: false,
            reserve: 0,
            ..Options::default()
        };
        let directory = Arc::new(directory.clone());
        let (store, recovered) = Store::open_in(directory, &[&NEUTRAL], options).unwrap();
        let settings = Settings { hot_messages: 64, hot_bytes: 32 << 10, ..Settings::default() };
        let mut effects = Vec::new();
        let broker = Broker::open(recovered, settings, now, &mut effects);
        let mut house = Self {
            broker,
            reader: store.reader(),
            store,
            now,
            writes: Vec::new(),
            fetches: Vec::new(),
            delivered: Vec::new(),
            replies: Vec::new(),
            consumers: 0,
        };
        house.perform(effects);
        house.commit();
        let open = Open {
            user: "guest".into(),
            vhost: "/".into(),
            protocol: "test",
            peer: String::new(),
            local: String::new(),
            client_name: None,
            client_properties: Table::new(),
            mechanism: "PLAIN",
            strict_channels: false,
            cancel_notify: true,
        };
        house.apply(CLIENT, Command::Open(Box::new(open), Ticket(0)));
        house
    }

    /// The process is gone, and another starts.
    pub(crate) fn kill(self, directory: &Memory) -> Self {
        let now = self.now;
        drop(self);
        Self::open_at(directory, now)
    }

    pub(crate) fn restart(mut self, directory: &Memory) -> Self {
        let mut effects = Vec::new();
        self.broker.close(self.now, &mut effects);
        self.perform(effects);
        self.commit();
        let Self { store, now, .. } = self;
        store.close().unwrap();
        Self::open_at(directory, now)
    }

    fn apply(&mut self, from: ConnectionId, command: Command) {
        let mut effects = Vec::new();
        self.broker.apply(from, command, self.now, &mut effects);
        self.perform(effects);
    }

    pub(crate) fn tick(&mut self) {
        let mut effects = Vec::new();
        self.broker.tick(self.now, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Write(write) => self.writes.push(write),
                Effect::Fetch(fetch) => self.fetches.push(fetch),
                Effect::Notify(_, event) | Effect::NotifyDurable(_, event) => match event {
                    Event::Delivered(delivery) => self.delivered.push(delivery),
                    Event::DeliveredBatch(batch) => self.delivered.extend(batch),
                    Event::Reply { result, .. } => self.replies.push(result),
                    _ => {}
                },
            }
        }
    }

    pub(crate) fn commit(&mut self) {
        while !self.writes.is_empty() {
            let epoch = self.broker.seal();
            self.store.commit(&std::mem::take(&mut self.writes), self.now).unwrap();
            let mut effects = Vec::new();
            self.broker.durable(epoch, self.now, &mut effects);
            self.perform(effects);
        }
    }

    pub(crate) fn home(&mut self) {
        self.store.home().unwrap();
    }

    /// Live messages in the store.
    pub(crate) fn messages(&self) -> u64 {
        self.store.stats().messages
    }

    fn ask(&mut self, request: Request) -> Result<Reply, Refusal> {
        self.apply(CLIENT, Command::Request(ONE, Ticket(1), Box::new(request)));
        self.replies.pop().expect("an answer")
    }

    pub(crate) fn declare(&mut self, name: &str, arguments: &[(&str, Value)]) {
        let mut all = Table::new();
        all.set("x-queue-type", Value::text("stream"));
        arguments.iter().for_each(|(name, value)| all.set(name, value.clone()));
        self.ask(Request::DeclareMailbox(DeclareMailbox {
            name: name.into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: all,
            generated: false,
        }))
        .unwrap();
    }

    pub(crate) fn delete(&mut self, name: &str) {
        let (if_unused, if_empty) = (false, false);
        let name = name.into();
        self.ask(Request::DeleteMailbox { name, if_unused, if_empty }).unwrap();
    }

    /// A message that tells its number.
    pub(crate) fn publish(&mut self, mailbox: &str, number: u32, size: usize) {
        self.send(mailbox, &Properties::default(), number, size);
    }

    /// The number as the value of a key.
    pub(crate) fn put(&mut self, mailbox: &str, key: &str, number: u32) {
        let mut properties = Properties::default();
        properties.headers_mut().set("x-key", Value::text(key));
        self.send(mailbox, &properties, number, 200);
    }

    fn send(&mut self, mailbox: &str, properties: &Properties, number: u32, size: usize) {
        let mut body = number.to_le_bytes().to_vec();
        body.resize(size.max(4), 0);
        let message = Message::build(&Source {
            exchange: &"".into(),
            key: mailbox.as_bytes(),
            properties,
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
    }

    /// Everything from there on: numbers and offsets.
    pub(crate) fn read(&mut self, mailbox: &str, from: Value) -> Vec<(u32, u64)> {
        self.read_some(mailbox, "", &[("x-stream-offset", from)], usize::MAX)
    }

    /// At most so many, each acknowledged.
    pub(crate) fn read_some(
        &mut self,
        mailbox: &str,
        tag: &str,
        arguments: &[(&str, Value)],
        most: usize,
    ) -> Vec<(u32, u64)> {
        self.consumers += 1;
        let consumer = ConsumerId(self.consumers);
        let arguments = arguments.iter().map(|(name, value)| ((*name).into(), value.clone()));
        self.ask(Request::Consume(Consume {
            mailbox: mailbox.into(),
            consumer,
            tag: tag.into(),
            no_ack: false,
            exclusive: false,
            priority: 0,
            prefetch: most.min(100) as u32,
            arguments: arguments.collect(),
            selection: None,
            bounded: true,
        }))
        .unwrap();
        let mut read = Vec::new();
        loop {
            for fetch in std::mem::take(&mut self.fetches) {
                let messages = self.reader.fetch(&fetch).expect("the files are open");
                let Fetch { mailbox, lane, .. } = fetch;
                self.apply(SERVER, Command::Fetched(Fetched { mailbox, lane, messages }));
            }
            let delivered = std::mem::take(&mut self.delivered);
            if (delivered.is_empty() && self.fetches.is_empty()) || read.len() >= most {
                break;
            }
            for delivery in delivered.into_iter().take(most - read.len()) {
                let number = delivery.message.body()[..4].try_into().unwrap();
                read.push((u32::from_le_bytes(number), delivery.offset.unwrap()));
                let bytes = delivery.message.size() as u64;
                self.apply(CLIENT, Command::Drained { deliveries: 1, bytes });
                let Delivery { mailbox, seq, .. } = delivery;
                let deliveries = [Run { mailbox, first: seq, count: 1 }].into_iter().collect();
                let outcome = Outcome::Accepted;
                let settle = Settle { channel: ONE, deliveries, outcome };
                self.apply(CLIENT, Command::Settle(settle));
            }
        }
        self.ask(Request::Cancel(consumer)).unwrap();
        read
    }
}

//! A broker with everything around it that matters: a store that can be slow, lose power or find damage, and clients.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::disk::Disk;
use super::request::{Post, binding, consume, exchange, mailbox, settlement};
use crate::broker::lease::Lease;
use crate::broker::*;

pub(super) struct House {
    pub(super) broker: Broker,
    pub(super) settings: Settings,
    pub(super) now: Time,
    pub(super) disk: Disk,
    /// Writes since the last seal.
    open: Vec<Write>,
    in_flight: VecDeque<(Epoch, Vec<Write>)>,
    /// Until the batch is durable.
    held: VecDeque<(Epoch, ConnectionId, Event)>,
    pub(super) fetches: VecDeque<Fetch>,
    pub(super) damaged: BTreeSet<(MailboxId, Seq)>,
    /// Every batch is durable at once.
    pub(super) fast_disk: bool,
    /// Fetches are answered at once.
    pub(super) fast_fetch: bool,
    /// Fetches are being answered.
    answers: bool,
    /// Deliveries count as written to the socket at once.
    pub(super) drains: bool,
    pub(super) events: VecDeque<(ConnectionId, Event)>,
    opened: u64,
    tickets: u64,
}

/// A message delivered.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) body: String,
    pub(super) redelivered: bool,
    pub(super) consumer: u32,
    pub(super) delivery: Delivery,
}

pub(super) const START: Time = Time(1_700_000_000_000);
pub(super) const ONE: ChannelId = ChannelId(1);
pub(super) const TWO: ChannelId = ChannelId(2);

impl House {
    pub(super) fn new() -> Self {
        Self::with(Settings::default())
    }

    /// Keeps little in memory, so that everything pages.
    pub(super) fn small() -> Self {
        Self::with(Settings { hot_messages: 8, hot_bytes: 4096, ..Settings::default() })
    }

    pub(super) fn with(settings: Settings) -> Self {
        let mut effects = Vec::new();
        let broker = Broker::open(Recovered::default(), settings.clone(), START, &mut effects);
        let mut house = Self {
            broker,
            settings,
            now: START,
            disk: Disk::default(),
            open: Vec::new(),
            in_flight: VecDeque::new(),
            held: VecDeque::new(),
            fetches: VecDeque::new(),
            damaged: BTreeSet::new(),
            fast_disk: true,
            fast_fetch: true,
            answers: false,
            drains: true,
            events: VecDeque::new(),
            opened: 0,
            tickets: 0,
        };
        house.perform(effects);
        house
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Notify(to, Event::DeliveredBatch(batch)) => {
                    let single = |delivery| (to, Event::Delivered(delivery));
                    self.events.extend(batch.into_iter().map(single));
                }
                Effect::Notify(to, event) => self.events.push_back((to, event)),
                Effect::NotifyDurable(to, event) => {
                    let last = self.in_flight.back().map(|(epoch, _)| *epoch);
                    let until = if self.open.is_empty() { last } else { Some(self.broker.epoch) };
                    match until {
                        Some(epoch) => self.held.push_back((epoch, to, event)),
                        None => self.events.push_back((to, event)),
                    }
                }
                Effect::Write(write) => self.open.push(write),
                Effect::Fetch(fetch) => self.fetches.push_back(fetch),
            }
        }
        if self.fast_disk {
            while !self.open.is_empty() || !self.in_flight.is_empty() {
                if !self.open.is_empty() {
                    self.seal();
                }
                self.durable();
            }
        }
        if self.fast_fetch {
            self.answer_fetches();
        }
        if self.drains {
            let mut drained: BTreeMap<ConnectionId, (u32, u64)> = BTreeMap::new();
            for (to, event) in &self.events {
                if let Event::Delivered(delivery) = event {
                    let drained = drained.entry(*to).or_default();
                    drained.0 += 1;
                    drained.1 += delivery.message.size() as u64;
                }
            }
            for (to, (deliveries, bytes)) in drained {
                let in_flight = self.broker.connections.get(&to).map_or(0, |it| it.in_flight);
                if in_flight > 0 {
                    self.apply(to, Command::Drained { deliveries, bytes });
                }
            }
        }
    }

    pub(super) fn apply(&mut self, from: ConnectionId, command: Command) {
        let mut effects = Vec::new();
        self.broker.apply(from, command, self.now, &mut effects);
        self.perform(effects);
    }

    /// In one go, as a socket's read brings them.
    pub(super) fn apply_all(&mut self, from: ConnectionId, commands: Vec<Command>) {
        let mut effects = Vec::new();
        self.broker.apply_all(from, commands, self.now, &mut effects);
        self.perform(effects);
    }

    /// A number for a consumer that nobody has.
    pub(super) fn next_id(&mut self) -> u32 {
        self.tickets += 1;
        self.tickets as u32 + 1000
    }

    /// Writes that the store did not take yet.
    pub(super) fn open_writes(&self) -> impl Iterator<Item = &Write> {
        self.open.iter()
    }

    /// The store takes what there is.
    pub(super) fn seal(&mut self) {
        let epoch = self.broker.seal();
        self.in_flight.push_back((epoch, std::mem::take(&mut self.open)));
    }

    /// The oldest batch is on disk.
    pub(super) fn durable(&mut self) -> bool {
        let Some((epoch, writes)) = self.in_flight.pop_front() else { return false };
        writes.iter().for_each(|write| self.disk.write(write));
        while let Some((until, ..)) = self.held.front()
            && *until <= epoch
            && let Some((_, to, event)) = self.held.pop_front()
        {
            self.events.push_back((to, event));
        }
        let mut effects = Vec::new();
        self.broker.durable(epoch, self.now, &mut effects);
        self.perform(effects);
        true
    }

    pub(super) fn sync(&mut self) {
        for _ in 0..3 {
            self.seal();
            while self.durable() {}
        }
    }

    pub(super) fn answer_fetches(&mut self) {
        // What an answer makes the broker fetch is the turn of the loop that runs, however deep a mailbox is.
        if std::mem::replace(&mut self.answers, true) {
            return;
        }
        while let Some(fetch) = self.fetches.pop_front() {
            let fetched = self.disk.fetch(&fetch, &self.damaged);
            self.apply(SERVER, Command::Fetched(fetched));
        }
        self.answers = false;
    }

    pub(super) fn wait(&mut self, ms: u64) {
        let until = self.now.plus_ms(ms);
        while let Some(due) = self.broker.next_deadline()
            && due <= until
        {
            self.now = self.now.max(due);
            self.tick();
        }
        self.now = until;
        self.tick();
    }

    pub(super) fn tick(&mut self) {
        let mut effects = Vec::new();
        self.broker.tick(self.now, &mut effects);
        self.perform(effects);
    }

    /// The power goes: what was not durable is lost.
    pub(super) fn crash(&mut self) {
        self.open.clear();
        self.in_flight.clear();
        self.held.clear();
        self.fetches.clear();
        self.events.clear();
        for mailbox in self.disk.mailboxes.values_mut() {
            mailbox.messages.retain(|_, append| !append.transient);
        }
        let mut effects = Vec::new();
        let recovered = self.disk.recovered();
        self.broker = Broker::open(recovered, self.settings.clone(), self.now, &mut effects);
        self.perform(effects);
    }

    /// Stops in good order and starts again.
    pub(super) fn restart(&mut self) {
        let mut effects = Vec::new();
        self.broker.close(self.now, &mut effects);
        self.perform(effects);
        self.sync();
        self.crash();
    }

    pub(super) fn connect(&mut self) -> ConnectionId {
        self.connect_as("guest", "/", true)
    }

    /// One whose channels go on after a refusal.
    pub(super) fn connect_lax(&mut self) -> ConnectionId {
        self.connect_as("guest", "/", false)
    }

    pub(super) fn connect_as(&mut self, user: &str, vhost: &str, strict: bool) -> ConnectionId {
        self.try_connect(user, vhost, strict).expect("may connect")
    }

    pub(super) fn try_connect(
        &mut self,
        user: &str,
        vhost: &str,
        strict: bool,
    ) -> Result<ConnectionId, Refusal> {
        self.try_open(user, vhost, strict, true)
    }

    /// One that cannot be told that its consumer ended.
    pub(super) fn connect_old(&mut self) -> ConnectionId {
        self.try_open("guest", "/", true, false).expect("may connect")
    }

    fn try_open(
        &mut self,
        user: &str,
        vhost: &str,
        strict: bool,
        cancel_notify: bool,
    ) -> Result<ConnectionId, Refusal> {
        self.opened += 1;
        let id = ConnectionId(self.opened);
        let open = Open {
            user: user.into(),
            vhost: vhost.into(),
            protocol: "test",
            peer: String::new(),
            local: String::new(),
            client_name: None,
            client_properties: Table::new(),
            mechanism: "PLAIN",
            strict_channels: strict,
            cancel_notify,
        };
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.apply(id, Command::Open(Box::new(open), ticket));
        self.reply(id, ticket).expect("an answer").map(|_| id)
    }

    fn reply(&mut self, to: ConnectionId, wanted: Ticket) -> Option<Result<Reply, Refusal>> {
        let at = self.events.iter().position(|(id, event)| {
            matches!(event, Event::Reply { ticket, .. } if *ticket == wanted && *id == to)
        })?;
        match self.events.remove(at)?.1 {
            Event::Reply { result, .. } => Some(result),
            _ => None,
        }
    }

    /// `None` while there is no answer.
    pub(super) fn send(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        request: Request,
    ) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.apply(from, Command::Request(channel, ticket, Box::new(request)));
        ticket
    }

    pub(super) fn answer(
        &mut self,
        from: ConnectionId,
        ticket: Ticket,
    ) -> Option<Result<Reply, Refusal>> {
        self.reply(from, ticket)
    }

    pub(super) fn ask(&mut self, from: ConnectionId, request: Request) -> Result<Reply, Refusal> {
        self.ask_on(from, ONE, request)
    }

    pub(super) fn ask_on(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        request: Request,
    ) -> Result<Reply, Refusal> {
        let ticket = self.send(from, channel, request);
        self.reply(from, ticket).expect("an answer")
    }

    /// The text of the refusal.
    #[track_caller]
    pub(super) fn refused(&mut self, from: ConnectionId, request: Request) -> String {
        self.ask(from, request).expect_err("a refusal").to_string()
    }

    /// Somebody who may configure, write and read what matches these patterns in `/`.
    pub(super) fn user(&mut self, name: &str, [configure, write, read]: [&str; 3]) {
        self.define(Definition::User(UserDefinition {
            name: name.into(),
            credential: Credential::default(),
            max_connections: None,
            max_channels: None,
        }));
        self.define(Definition::Permission(PermissionDefinition {
            vhost: "/".into(),
            user: name.into(),
            configure: configure.into(),
            write: write.into(),
            read: read.into(),
        }));
    }

    pub(super) fn define(&mut self, definition: Definition) {
        self.ask(SERVER, Request::Define(definition)).expect("a good definition");
    }

    pub(super) fn declare(&mut self, from: ConnectionId, name: &str) {
        self.declare_with(from, name, &[]);
    }

    #[track_caller]
    pub(super) fn declare_with(
        &mut self,
        from: ConnectionId,
        name: &str,
        arguments: &[(&str, Value)],
    ) {
        self.ask(from, mailbox(name, arguments)).expect("a declaration");
    }

    #[track_caller]
    pub(super) fn exchange(&mut self, from: ConnectionId, name: &str, kind: &str) {
        self.ask(from, exchange(name, kind, &[])).expect("a declaration");
    }

    #[track_caller]
    pub(super) fn bind(&mut self, from: ConnectionId, source: &str, mailbox: &str, key: &str) {
        self.ask(from, Request::Bind(binding(source, mailbox, key))).expect("a binding");
    }

    pub(super) fn publish(&mut self, from: ConnectionId, post: Post) {
        let command = Command::Publish(post.publish(self.now));
        self.apply(from, command);
    }

    /// Persistent messages by the default exchange.
    pub(super) fn put(&mut self, from: ConnectionId, mailbox: &str, bodies: &[&str]) {
        for body in bodies {
            self.publish(from, Post::to(mailbox, body));
        }
    }

    #[track_caller]
    pub(super) fn consume(&mut self, from: ConnectionId, mailbox: &str, consumer: u32) {
        self.consume_with(from, mailbox, consumer, |_| {});
    }

    #[track_caller]
    pub(super) fn consume_with(
        &mut self,
        from: ConnectionId,
        mailbox: &str,
        consumer: u32,
        change: impl FnOnce(&mut Consume),
    ) {
        let mut consume = consume(mailbox, consumer);
        change(&mut consume);
        self.ask(from, Request::Consume(consume)).expect("a consumer");
    }

    /// What was delivered since last asked.
    pub(super) fn seen(&mut self, by: ConnectionId) -> Vec<Seen> {
        let mut seen = Vec::new();
        self.events.retain(|(to, event)| match event {
            Event::Delivered(delivery) if *to == by => {
                seen.push(Seen {
                    body: String::from_utf8_lossy(delivery.message.body()).into_owned(),
                    redelivered: delivery.redelivered,
                    consumer: delivery.consumer.0,
                    delivery: delivery.clone(),
                });
                false
            }
            _ => true,
        });
        seen
    }

    pub(super) fn bodies(&mut self, by: ConnectionId) -> Vec<String> {
        self.seen(by).into_iter().map(|seen| seen.body).collect()
    }

    /// Who got what: consumer and body.
    pub(super) fn by_consumer(&mut self, by: ConnectionId) -> Vec<(u32, String)> {
        self.seen(by).into_iter().map(|seen| (seen.consumer, seen.body)).collect()
    }

    pub(super) fn settle(&mut self, by: ConnectionId, seen: &Seen, outcome: Outcome) {
        self.settle_on(by, seen.delivery.channel, seen, outcome);
    }

    pub(super) fn settle_on(
        &mut self,
        by: ConnectionId,
        channel: ChannelId,
        seen: &Seen,
        outcome: Outcome,
    ) {
        self.apply(by, Command::Settle(settlement(channel, seen, outcome)));
    }

    pub(super) fn get(&mut self, by: ConnectionId, mailbox: &str) -> Option<Seen> {
        self.get_with(by, mailbox, false).0
    }

    pub(super) fn get_with(
        &mut self,
        by: ConnectionId,
        mailbox: &str,
        no_ack: bool,
    ) -> (Option<Seen>, u64) {
        let request = Request::Get { mailbox: mailbox.into(), no_ack };
        match self.ask(by, request).expect("an answer") {
            Reply::Got(Some(got)) => {
                let (delivery, left) = *got;
                let body = String::from_utf8_lossy(delivery.message.body()).into_owned();
                let redelivered = delivery.redelivered;
                (Some(Seen { body, redelivered, consumer: 0, delivery }), left)
            }
            Reply::Got(None) => (None, 0),
            other => panic!("got {other:?}"),
        }
    }

    /// Takes and accepts everything ready.
    pub(super) fn empty(&mut self, by: ConnectionId, mailbox: &str) -> Vec<String> {
        std::iter::from_fn(|| self.get_with(by, mailbox, true).0).map(|seen| seen.body).collect()
    }

    pub(super) fn close_channel(&mut self, from: ConnectionId, channel: ChannelId) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        // A session gives nothing to a channel that closed, whenever it comes.
        self.held.retain(|(_, to, event)| {
            let Event::Reply { channel: of, .. } = event else { return true };
            *to != from || *of != channel
        });
        self.apply(from, Command::CloseChannel(channel, ticket));
        self.reply(from, ticket);
    }

    pub(super) fn close(&mut self, from: ConnectionId) {
        self.apply(from, Command::Close(None));
    }

    pub(super) fn mailbox(&self, name: &str) -> &Mailbox {
        self.broker.find_any(&"/".into(), name).expect("a mailbox of that name")
    }

    /// Messages that came to mailboxes whose names begin so.
    pub(super) fn mailbox_published(&self, prefix: &str) -> u64 {
        let all = self.broker.mailboxes.values().filter(|it| it.name.starts_with(prefix));
        all.map(|it| it.counts.published).sum()
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.broker.find_any(&"/".into(), name).is_some()
    }

    pub(super) fn ready(&self, name: &str) -> u64 {
        self.mailbox(name).ready
    }

    /// Events other than deliveries, as texts, oldest first.
    pub(super) fn told(&mut self, to: ConnectionId) -> Vec<String> {
        let mut told = Vec::new();
        self.events.retain(|(id, event)| {
            if *id != to {
                return true;
            }
            told.push(match event {
                Event::Delivered(_) | Event::DeliveredBatch(_) => return true,
                Event::BatchConfirmed { tag, taken, missed, .. } => {
                    let missed: Vec<String> =
                        missed.iter().map(|(at, why)| format!("{at} {why:?}")).collect();
                    format!("batch {tag}: {taken} taken, missed {missed:?}")
                }
                Event::Confirmed { tag, taken: true, .. } => format!("confirmed {tag}"),
                Event::Confirmed { tag, .. } => format!("refused {tag}"),
                Event::Returned { message, .. } => {
                    format!("returned {}", String::from_utf8_lossy(message.body()))
                }
                Event::Refused { refusal, .. } => format!("no: {refusal}"),
                Event::Finished { consumer, .. } => format!("finished {}", consumer.0),
                Event::Cancelled { consumer, .. } => format!("cancelled {}", consumer.0),
                Event::Blocked(Some(why)) => format!("blocked: {why}"),
                Event::Blocked(None) => "unblocked".into(),
                Event::Closed(_) => "closed".into(),
                Event::Peer(event) => format!("{event:?}"),
                Event::ForceClose(why) => format!("closed by force: {why}"),
                Event::Reply { result: Ok(_), .. } => "yes".into(),
                Event::Reply { result: Err(refusal), .. } => format!("no: {refusal}"),
            });
            false
        });
        told
    }

    /// R7: every message is in one place, and the counters know it.
    #[track_caller]
    pub(super) fn check_books(&self) {
        let mut memory = 0;
        for mailbox in self.broker.mailboxes.values() {
            let name = &mailbox.name;
            let hot = || mailbox.lanes.iter().flat_map(|lane| lane.hot());
            let cold = || mailbox.lanes.iter().flat_map(|lane| lane.all_cold());
            let count = hot().count() as u64 + cold().map(|it| u64::from(it.count)).sum::<u64>();
            let bytes = hot().map(|it| it.body_size()).sum::<u64>()
                + cold().map(|it| it.bytes).sum::<u64>();
            let log = mailbox.stream.as_ref().map_or((0, 0), |it| it.totals());
            let (count, bytes) = (count + log.0, bytes + log.1);
            memory += mailbox.stream.as_ref().map_or(0, |it| it.memory());
            assert_eq!(mailbox.ready, count, "ready in {name}");
            assert_eq!(mailbox.ready_bytes, bytes, "ready bytes in {name}");
            memory += hot().map(|it| it.message.footprint()).sum::<u64>();
            memory += mailbox.delayed.memory();
            memory += mailbox.leases.values().map(Lease::size).sum::<u64>();
            let it = mailbox.counts;
            let left = it.settled + it.expired + it.dropped + it.dead_lettered + it.purged;
            let leased = mailbox.leases.len() as u64;
            let hidden = mailbox.delayed.len() + mailbox.recalls.len() + mailbox.unburied.len();
            let here = mailbox.ready + leased + hidden;
            assert_eq!(it.published + it.recovered, left + it.damaged + here, "{name}: {it:?}");
            let mut held: BTreeMap<(ConnectionId, ConsumerId), u32> = BTreeMap::new();
            for lease in mailbox.leases.values() {
                if let Some(consumer) = lease.consumer {
                    *held.entry((lease.connection, consumer)).or_default() += 1;
                }
            }
            for consumer in mailbox.consumers.in_turn(false) {
                let held = held.get(&(consumer.connection, consumer.id)).copied();
                assert_eq!(consumer.unsettled, held.unwrap_or(0), "unsettled in {name}");
            }
        }
        assert_eq!(self.broker.memory, memory, "memory");
        for (id, connection) in &self.broker.connections {
            for (channel, it) in &connection.channels {
                let leases = self.broker.mailboxes.values().flat_map(|it| it.leases.values());
                let held = leases
                    .filter(|lease| lease.consumer.is_some())
                    .filter(|lease| lease.connection == *id && lease.channel == *channel)
                    .count();
                let streams = self.broker.mailboxes.values().filter_map(|it| it.stream.as_ref());
                let read = streams.flat_map(|it| it.held());
                let read = read.filter(|it| (it.0, it.1) == (*id, *channel));
                let held = held + read.map(|it| it.2 as usize).sum::<usize>();
                assert_eq!(it.unsettled as usize, held, "unsettled on {id:?} {channel:?}");
            }
            let leases = self.broker.mailboxes.values().flat_map(|it| it.leases.values());
            let held = leases.filter(|it| it.connection == *id).map(Lease::size).sum::<u64>();
            assert_eq!(connection.leased_bytes, held, "bytes leased to {id:?}");
        }
    }
}

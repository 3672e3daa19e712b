//! Hosts, links, disks and power by chance, from a seed: what was confirmed arrives, once and in order.
//!
//! A link carries its messages in pieces and loses what is on its way when it breaks; a disk may be slow, and a crash
//! takes what it does not have yet. Each mailbox has one reader, which may be a client of another host. Each invariant is a file. `SIMULATE_SEED=7` repeats one run, `SIMULATE_SEEDS` asks for more.

mod agreement;
mod home;
mod loss;
mod order;
mod owner;
mod repeats;
mod spread;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::house::ONE;
use super::super::request::{self, consume};
use super::*;

const MAILBOXES: [&str; 4] = ["at-0", "at-1", "at-2", "at-3"];
const EXCHANGE: &str = "news";
/// On every host: what other hosts refused of it. In the ledger its number is that of its host and `DEAD_AT`.
const DEAD: &str = "dead";
const DEAD_AT: usize = 100;
/// Names that all hosts but the last have: each of them gets a copy, or one of them does. Numbered as dead letters are.
const FANNED: &str = "fanned";
const FANNED_AT: usize = 200;
const SHARED: &str = "shared";
const SHARED_AT: usize = 300;
const STEPS: u64 = 150;
const SEEDS: usize = 100;
/// Turns in which everything there is comes to rest.
const TURNS_MAX: usize = 200;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick(&mut self, count: usize) -> usize {
        self.roll(count as u64) as usize
    }
}

struct Published {
    origin: usize,
    number: u64,
    to: Vec<usize>,
    /// By the exchange, while a mailbox that its host knows nothing of may live where another one is bound.
    may_reach_more: bool,
    confirmed: bool,
    /// The confirm was to wait for the hosts to which it goes.
    home: bool,
}

struct Receipt {
    body: String,
    mailbox: usize,
    redelivered: bool,
    /// It was settled durably before, or a consumer held it at this moment.
    doubled: bool,
    /// It was asked for by itself, and may have come later than what was consumed meanwhile.
    got: bool,
    /// The reader is a client of another host.
    afar: bool,
}

/// Who takes from a mailbox.
struct Reader {
    /// As the ledger numbers it.
    mailbox: usize,
    at: usize,
    /// The host that was asked.
    home: usize,
    client: ConnectionId,
    reading: Reading,
    prefetch: u32,
    held: VecDeque<Delivery>,
    /// Asked for single messages, and not answered.
    gets: BTreeSet<Ticket>,
    /// Accepted at another host than the mailbox's, and its home may not know.
    on_the_way: Vec<String>,
}

#[derive(PartialEq)]
enum Reading {
    Not,
    Asked(Ticket),
    Does,
}

/// All that happened and that clients know of.
#[derive(Default)]
struct Ledger {
    published: BTreeMap<String, Published>,
    receipts: Vec<Receipt>,
    /// Accepted, and durably so: body and mailbox.
    settled: BTreeSet<(String, usize)>,
    /// Sent another way than they were published for, by an administrator.
    redirected: BTreeSet<String>,
    /// Mailboxes where an answer to who asked for one message was lost, so that it may come after what was consumed meanwhile.
    lost_gets: BTreeSet<usize>,
    /// Confirmed at home, and in how many mailboxes elsewhere; and where it was not.
    homed: u64,
    homeless: Vec<(String, usize)>,
    /// Mailboxes that were to move.
    moved: BTreeSet<usize>,
}

struct World {
    it: Hosts,
    dice: Dice,
    ledger: Ledger,
    /// One for each host's mailbox, then one for each host's dead letters.
    readers: Vec<Reader>,
    count: u64,
    forgot: bool,
    drained: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let names = &["a", "b", "c", "d"][..2 + dice.pick(3)];
        let mut it = Hosts::new(names);
        for (at, mailbox) in MAILBOXES.iter().enumerate().take(names.len()) {
            let client = it.hosts[at].client;
            it.hosts[at].house.exchange(client, EXCHANGE, "fanout");
            it.hosts[at].declare(mailbox);
            it.hosts[at].house.bind(client, EXCHANGE, mailbox, "");
            it.hosts[at].declare(DEAD);
            let values =
                [("dead-letter-exchange", text("")), ("dead-letter-routing-key", text(DEAD))];
            let policy = request::policy("dead", "^peer/", &values);
            it.hosts[at].house.define(Definition::Policy(policy));
        }
        let hosts = names.len();
        for at in 0..hosts - 1 {
            // Who comes later knows that the name is there already, and has one of its own all the same.
            it.settle();
            let client = it.hosts[at].client;
            for (name, spread) in [(FANNED, "fanout"), (SHARED, "anycast")] {
                let declare = mailbox(name, &[("x-spread", text(spread))]);
                it.hosts[at].house.ask(client, declare).expect("declared");
            }
        }
        it.settle();
        let (ledger, readers) = (Ledger::default(), Vec::new());
        let mut world = Self { it, dice, ledger, readers, count: 0, forgot: false, drained: 0 };
        let spread = [FANNED_AT, SHARED_AT].map(|first| first..first + hosts - 1);
        let dead = DEAD_AT..DEAD_AT + hosts;
        for mailbox in (0..hosts).chain(dead).chain(spread.into_iter().flatten()) {
            let reader = world.reader(mailbox);
            world.readers.push(reader);
            world.consume(world.readers.len() - 1);
        }
        world.it.settle();
        world
    }

    /// At home as often as not; dead letters are read where they are.
    fn reader(&mut self, mailbox: usize) -> Reader {
        let chosen = self.dice.pick(self.it.hosts.len());
        let home = mailbox % DEAD_AT;
        let at = if mailbox >= DEAD_AT || self.dice.roll(2) == 0 { home } else { chosen };
        let prefetch = [0, 1, 3][self.dice.pick(3)];
        // Who comes is answered once that is durable.
        self.catch_up(at);
        let client = self.it.hosts[at].house.connect_lax();
        let (held, gets, on_the_way) = (VecDeque::new(), BTreeSet::new(), Vec::new());
        let reading = Reading::Not;
        Reader { mailbox, at, home, client, reading, prefetch, held, gets, on_the_way }
    }

    /// The host that serves the mailbox, as the other one knows it.
    fn home_for(&self, at: usize, mailbox: usize) -> usize {
        let (host, name) = (&self.it.hosts[at], name_of(mailbox));
        if mailbox >= DEAD_AT || host.serves(name) {
            return at;
        }
        let home = host.best_elsewhere(name);
        let known = home.and_then(|(_, home)| self.it.hosts.iter().position(|it| it.name == home));
        known.unwrap_or(at)
    }

    fn consume(&mut self, number: usize) {
        let home = self.home_for(self.readers[number].at, self.readers[number].mailbox);
        let reader = &mut self.readers[number];
        reader.home = home;
        let request = Consume { prefetch: reader.prefetch, ..consume(name_of(reader.mailbox), 1) };
        let house = &mut self.it.hosts[reader.at].house;
        let ticket = house.send(reader.client, ONE, Request::Consume(request));
        reader.reading = Reading::Asked(ticket);
    }

    /// Whose consumer ended, consumes again.
    fn consume_again(&mut self) {
        for number in 0..self.readers.len() {
            if self.readers[number].reading == Reading::Not {
                self.consume(number);
            }
        }
    }

    fn get(&mut self, mailbox: usize) {
        let home = self.home_for(self.readers[mailbox].at, mailbox);
        let reader = &mut self.readers[mailbox];
        // It moved, and the consumer is still at the old home.
        if reader.home != home {
            return;
        }
        let request = Request::Get { mailbox: MAILBOXES[mailbox].into(), no_ack: false };
        let ticket = self.it.hosts[reader.at].house.send(reader.client, ONE, request);
        reader.gets.insert(ticket);
    }

    /// The reader leaves, and another one comes, somewhere. What was on its way to it could come later than what the new one gets.
    fn replace(&mut self, mailbox: usize) {
        self.it.settle();
        self.listen();
        let reader = &self.readers[mailbox];
        self.it.hosts[reader.at].house.close(reader.client);
        self.it.settle();
        self.lose(|reader| reader.mailbox == mailbox);
        self.readers[mailbox] = self.reader(mailbox);
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            let at = self.dice.pick(self.it.hosts.len());
            match self.dice.roll(100) {
                0..32 => self.publish(at),
                32..40 => self.publish_spread(at),
                40..66 => self.carry(),
                66..68 => self.get(at),
                68 if self.dice.roll(3) == 0 => self.move_mailbox(at),
                68 => self.replace(at),
                69 => self.consume_again(),
                70..80 => {
                    self.settle(at);
                    self.settle(at + self.it.hosts.len());
                    let number = self.dice.pick(self.readers.len());
                    self.settle(number);
                }
                80..85 => self.cut(),
                85..92 => self.mend(),
                92..95 => self.it.hosts[at].house.fast_disk = false,
                95..98 => self.catch_up(at),
                98 => self.forget(at),
                99 if self.dice.roll(2) == 0 => self.drain(at),
                _ => self.crash(at),
            }
            self.listen();
            let broken = owner::find(self);
            assert!(broken.is_empty(), "{broken:?}");
        }
        self.heal();
    }

    /// An administrator asks a host to let another one have a mailbox. Whether it is there, and moves, is seen.
    fn move_mailbox(&mut self, at: usize) {
        let hosts = self.it.hosts.len();
        let (mailbox, to) = (self.dice.pick(hosts), self.dice.pick(hosts));
        if !self.it.hosts[at].serves(MAILBOXES[mailbox]) || to == at {
            return;
        }
        self.catch_up(at);
        let to = self.it.hosts[to].name.clone();
        let house = &mut self.it.hosts[at].house;
        let client = house.connect_lax();
        let request = Request::MoveMailbox { name: MAILBOXES[mailbox].into(), to };
        house.send(client, ONE, request);
        // The move goes on without who asked for it.
        house.close(client);
        self.ledger.moved.insert(mailbox);
    }

    fn publish(&mut self, at: usize) {
        self.count += 1;
        let (hosts, body) = (self.it.hosts.len(), format!("{}", self.count));
        let chosen = self.dice.pick(hosts + 1);
        let (post, to) = match MAILBOXES[..hosts].get(chosen) {
            Some(mailbox) => (Post::to(mailbox, &body), vec![chosen]),
            None => (Post::by(EXCHANGE, "", &body), (0..hosts).collect()),
        };
        // What is published to a host that was forgotten goes nowhere, until it is known again.
        let broker = &self.it.hosts[at].house.broker;
        let knows = |it: &usize| {
            let name = MAILBOXES[*it];
            self.it.hosts[at].house.exists(name) || broker.home_of(&"/".into(), name).is_some()
        };
        let to: Vec<usize> = to.into_iter().filter(knows).collect();
        let afar = matches!(to[..], [one] if !self.it.hosts[at].house.exists(MAILBOXES[one]));
        let moves = to.iter().any(|it| self.ledger.moved.contains(it));
        let refused = afar && !moves && self.dice.roll(10) == 0;
        let to = if refused { vec![DEAD_AT + at] } else { to };
        if refused {
            self.it.too_large.insert(body.clone());
        }
        let home = self.dice.roll(3) == 0;
        let may_reach_more = chosen == hosts && !self.ledger.moved.is_empty();
        let (origin, number, confirmed) = (at, self.count, false);
        let published = Published { origin, number, to, may_reach_more, confirmed, home };
        self.ledger.published.insert(body, published);
        let client = self.it.hosts[at].client;
        let post = if home { post.home(self.count) } else { post.confirm(self.count) };
        self.it.hosts[at].house.publish(client, post);
    }

    /// One direction of one link moves a piece of what is on its way.
    fn carry(&mut self) {
        if self.it.links.is_empty() {
            return;
        }
        let at = self.dice.pick(self.it.links.len());
        if self.dice.roll(2) == 0 {
            self.it.carry(at);
            let Link { from, to, .. } = self.it.links[at];
            self.at_home(from, to);
        } else {
            self.it.answer(at);
        }
    }

    fn cut(&mut self) {
        if self.it.links.is_empty() {
            return;
        }
        let at = self.dice.pick(self.it.links.len());
        let Link { from, to, .. } = self.it.links[at];
        self.break_off(from, to);
    }

    fn break_off(&mut self, from: usize, to: usize) {
        // What was said before is known.
        self.listen();
        self.it.cut(from, to);
        self.lose(|reader| reader.at == from && reader.home == to);
    }

    /// All that readers at one host said of the other's mailbox is known there.
    fn at_home(&mut self, from: usize, to: usize) {
        for reader in &mut self.readers {
            let mailbox = reader.mailbox;
            if reader.at == from && reader.home == to && mailbox < DEAD_AT {
                let settled = reader.on_the_way.drain(..).map(|body| (body, mailbox));
                let home = &self.it.hosts[to];
                // What came after it gave way means nothing.
                if home.house.fast_disk && home.serves(MAILBOXES[mailbox]) {
                    self.ledger.settled.extend(settled);
                }
            }
        }
    }

    /// What they held is back, and what they said last may not have arrived.
    fn lose(&mut self, which: impl Fn(&Reader) -> bool) {
        for reader in &mut self.readers {
            if which(reader) {
                reader.held.clear();
                reader.on_the_way.clear();
                if !std::mem::take(&mut reader.gets).is_empty() {
                    self.ledger.lost_gets.insert(reader.mailbox);
                }
            }
        }
    }

    /// A link that is missing stands again.
    fn mend(&mut self) {
        let hosts = self.it.hosts.len();
        let (from, to) = (self.dice.pick(hosts), self.dice.pick(hosts));
        let stands = self.it.links.iter().any(|it| (it.from, it.to) == (from, to));
        if from != to && !stands {
            // A greeting is answered once what it found is durable.
            self.catch_up(to);
            self.it.link(from, to);
        }
    }

    fn catch_up(&mut self, at: usize) {
        self.it.hosts[at].house.fast_disk = true;
        self.it.hosts[at].house.sync();
    }

    /// Once in a run an administrator gives up a host, and sends what waits for it to another that knows it.
    fn forget(&mut self, at: usize) {
        let hosts = self.it.hosts.len();
        let (gone, to) = (self.dice.pick(hosts), self.dice.pick(hosts));
        if gone == at || std::mem::replace(&mut self.forgot, true) {
            return;
        }
        let between = |it: &Link| (it.from, it.to) == (at, gone) || (it.from, it.to) == (gone, at);
        while let Some(link) = self.it.links.iter().find(|it| between(it)) {
            let (from, to) = (link.from, link.to);
            self.break_off(from, to);
        }
        self.catch_up(at);
        let host = self.it.hosts[gone].name.clone();
        let house = &mut self.it.hosts[at].house;
        let client = house.connect_lax();
        let (mailbox, count) = (Name::from(format!("peer/{host}")), 1000);
        let (states, selector, after, bytes_max) = (States::ALL, None, None, u64::MAX);
        let browse = Browse { mailbox, states, selector, after, count, bytes_max };
        let waiting = match house.ask(client, Request::Browse(browse)) {
            Ok(Reply::Browsed(browsed)) => browsed.found,
            other => panic!("{other:?}"),
        };
        for message in waiting {
            let body = String::from_utf8_lossy(message.message.body()).into_owned();
            self.ledger.redirected.insert(body);
        }
        let fate = match to == at || to == gone {
            true => Fate::Routed,
            false => Fate::SentTo(self.it.hosts[to].name.clone()),
        };
        let house = &mut self.it.hosts[at].house;
        house.ask(client, Request::ForgetPeer { host, fate }).expect("it is gone");
        house.close(client);
    }

    /// Taken out of service, with all links that stand from it; then stopped in good order and started again.
    fn drain(&mut self, at: usize) {
        self.listen();
        (0..self.it.hosts.len()).for_each(|host| self.catch_up(host));
        let readers = self.readers.iter().filter(|it| it.at == at).map(|it| it.client);
        let clients: Vec<_> = readers.chain([self.it.hosts[at].client]).collect();
        let house = &mut self.it.hosts[at].house;
        let admin = house.connect_lax();
        house.ask(admin, Request::Drain { leave: false }).expect("an administrator may");
        clients.into_iter().for_each(|client| house.close(client));
        self.lose(|reader| reader.at == at);
        while let Some(link) = self.it.links.iter().find(|it| it.to == at) {
            let from = link.from;
            self.break_off(from, at);
        }
        for _ in 0..TURNS_MAX {
            for link in 0..self.it.links.len() {
                if self.it.links[link].from == at {
                    self.it.carry(link);
                    self.it.answer(link);
                }
            }
        }
        let view = self.it.hosts[at].house.broker.drain_view();
        assert_eq!((view.connections, view.unsettled), (0, 0));
        for link in self.it.links.iter().filter(|it| it.from == at) {
            let host = &self.it.hosts[link.to].name;
            assert_eq!(self.it.hosts[at].view(host).messages, 0, "it was drained towards {host}");
        }
        self.it.cut_all(at);
        self.it.hosts[at].run += 1;
        self.it.hosts[at].house.settings.start += 1;
        self.it.hosts[at].house.wait(1);
        self.it.hosts[at].house.restart();
        self.it.hosts[at].client = self.it.hosts[at].house.connect();
        self.come_back(at);
        self.drained += 1;
    }

    fn crash(&mut self, at: usize) {
        // What was said before is known.
        self.listen();
        self.it.cut_all(at);
        self.it.hosts[at].house.fast_disk = true;
        self.it.hosts[at].crash();
        self.lose(|reader| reader.at == at || reader.home == at);
        self.come_back(at);
    }

    /// Readers of a host that starts again.
    fn come_back(&mut self, at: usize) {
        for number in 0..self.readers.len() {
            if self.readers[number].at == at {
                self.readers[number] = self.reader(self.readers[number].mailbox);
                self.consume(number);
            }
        }
    }

    /// Clients take what they are told.
    fn listen(&mut self) {
        for at in 0..self.it.hosts.len() {
            let client = self.it.hosts[at].client;
            for event in self.it.take(at, client) {
                if let Event::Confirmed { tag, taken: true, .. } = event {
                    self.confirmed(tag);
                }
            }
        }
        for number in 0..self.readers.len() {
            let Reader { at, client, .. } = self.readers[number];
            for event in self.it.take(at, client) {
                self.hear(number, event);
            }
        }
    }

    fn hear(&mut self, number: usize, event: Event) {
        let reader = &mut self.readers[number];
        match event {
            Event::Delivered(delivery) => self.receive(number, delivery, false),
            Event::Cancelled { .. } => {
                reader.reading = Reading::Not;
                if self.ledger.moved.contains(&reader.mailbox) {
                    // What was held is back.
                    reader.held.clear();
                    reader.on_the_way.clear();
                }
            }
            Event::Reply { ticket, result, .. } if reader.reading == Reading::Asked(ticket) => {
                reader.reading = if result.is_ok() { Reading::Does } else { Reading::Not };
            }
            Event::Reply { ticket, result, .. } => {
                // What came before the link broke and is told after it is in the mailbox again: to settle it means nothing.
                let asks = reader.gets.remove(&ticket);
                if let Ok(Reply::Got(Some(got))) = result
                    && asks
                {
                    self.receive(number, got.0, true);
                }
            }
            _ => {}
        }
    }

    fn confirmed(&mut self, tag: u64) {
        let published = self.ledger.published.get_mut(&tag.to_string());
        published.expect("only what was published is confirmed").confirmed = true;
        self.look_home(&tag.to_string());
    }

    fn receive(&mut self, number: usize, delivery: Delivery, got: bool) {
        let body = String::from_utf8_lossy(delivery.message.body()).into_owned();
        let redelivered = delivery.redelivered;
        let reader = &mut self.readers[number];
        let mailbox = reader.mailbox;
        let held = reader.held.iter().any(|it| it.message.body() == delivery.message.body());
        let doubled = held || self.ledger.settled.contains(&(body.clone(), mailbox));
        let afar = reader.at != reader.home;
        self.ledger.receipts.push(Receipt { body, mailbox, redelivered, doubled, got, afar });
        reader.held.push_back(delivery);
    }

    fn settle(&mut self, number: usize) {
        let outcome = if self.dice.roll(5) == 0 { Outcome::Released } else { Outcome::Accepted };
        let reader = &mut self.readers[number];
        let (mailbox, home) = (reader.mailbox, reader.home);
        let Some(delivery) = reader.held.pop_front() else { return };
        if outcome == Outcome::Accepted {
            let body = String::from_utf8_lossy(delivery.message.body()).into_owned();
            if reader.at != home {
                reader.on_the_way.push(body);
            } else if self.it.hosts[home].house.fast_disk {
                self.ledger.settled.insert((body, mailbox));
            }
        }
        let run = Run { mailbox: delivery.mailbox, first: delivery.seq, count: 1 };
        let deliveries = [run].into_iter().collect();
        let settle = Settle { channel: delivery.channel, deliveries, outcome };
        let (at, client) = (reader.at, reader.client);
        self.it.hosts[at].house.apply(client, Command::Settle(settle));
    }

    /// Every disk is fast, every link stands, and everything comes to rest.
    fn heal(&mut self) {
        let hosts = self.it.hosts.len();
        for from in 0..hosts {
            self.catch_up(from);
            for to in (0..hosts).filter(|to| *to != from) {
                self.catch_up(to);
                if !self.it.links.iter().any(|it| (it.from, it.to) == (from, to)) {
                    self.it.link(from, to);
                }
            }
        }
        self.rest();
        let broken = owner::find_at_the_end(self);
        assert!(broken.is_empty(), "{broken:?}");
        self.it.check();
    }

    /// Until nothing is on its way, and nobody holds anything.
    fn rest(&mut self) {
        for _ in 0..TURNS_MAX {
            self.it.settle();
            let hosts = self.it.hosts.len();
            (0..hosts).for_each(|from| (0..hosts).for_each(|to| self.at_home(from, to)));
            self.listen();
            self.consume_again();
            let rests = |it: &Reader| it.held.is_empty() && it.reading == Reading::Does;
            if self.readers.iter().all(rests) {
                break;
            }
            for number in 0..self.readers.len() {
                while !self.readers[number].held.is_empty() {
                    self.settle(number);
                }
            }
        }
    }
}

fn name_of(mailbox: usize) -> &'static str {
    match mailbox {
        SHARED_AT.. => SHARED,
        FANNED_AT.. => FANNED,
        DEAD_AT.. => DEAD,
        _ => MAILBOXES[mailbox],
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(one) = number("SIMULATE_SEED") {
        return one..one + 1;
    }
    0..number("SIMULATE_SEEDS").unwrap_or(SEEDS as u64)
}

#[test]
fn hosts_keep_their_promises_whatever_happens_between_them() {
    let (mut received, mut again, mut afar, mut dead, mut redirected) = (0, 0, 0, 0, 0);
    let (mut drained, mut homed, mut spread) = (0, 0, [0; 2]);
    for seed in seeds() {
        let mut world = World::new(seed);
        world.run();
        let found = [
            loss::find(&world.ledger),
            repeats::find(&world.ledger),
            order::find(&world.ledger),
            agreement::find(&mut world),
            home::find(&world.ledger),
            spread::find(&world.ledger),
        ];
        let found: Vec<String> = found.into_iter().flatten().collect();
        assert!(found.is_empty(), "SIMULATE_SEED={seed}:\n{}", found.join("\n"));
        received += world.ledger.receipts.len();
        redirected += world.ledger.redirected.len();
        drained += world.drained;
        homed += world.ledger.homed;
        let count = |from: usize| {
            let within = |it: &&Receipt| (from..from + DEAD_AT).contains(&it.mailbox);
            world.ledger.receipts.iter().filter(within).count()
        };
        dead += count(DEAD_AT);
        spread = [spread[0] + count(FANNED_AT), spread[1] + count(SHARED_AT)];
        again += world.ledger.receipts.iter().filter(|it| it.redelivered).count();
        afar += world.ledger.receipts.iter().filter(|it| it.afar).count();
    }
    // A world in which nothing happens keeps every promise.
    if seeds().count() >= SEEDS {
        let [fanned, shared] = spread;
        let all = [drained, dead, redirected, homed as usize, fanned, shared];
        assert!(all.iter().all(|it| *it > 0), "{all:?}");
    }
    let busy = received > 30 && again > 0 && afar > 0;
    assert!(busy, "{received} received, {again} of them again, {afar} from afar");
}

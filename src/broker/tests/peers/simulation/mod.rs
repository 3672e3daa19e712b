//! Hosts, links, disks and power by chance, from a seed: what was confirmed arrives, once and in order.
//!
//! A link carries its messages in pieces and loses what is on its way when it breaks; a disk may be slow, and a crash
//! takes what it does not have yet. Each invariant is a file. `SIMULATE_SEED=7` repeats one run, `SIMULATE_SEEDS` asks for more.

mod agreement;
mod loss;
mod order;
mod repeats;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::request;
use super::*;

const MAILBOXES: [&str; 4] = ["at-0", "at-1", "at-2", "at-3"];
const EXCHANGE: &str = "news";
/// On every host: what other hosts refused of it. In the ledger its number is that of its host and `DEAD_AT`.
const DEAD: &str = "dead";
const DEAD_AT: usize = 100;
const DEAD_CONSUMER: u32 = 2;
const STEPS: u64 = 150;
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
    confirmed: bool,
}

struct Receipt {
    body: String,
    mailbox: usize,
    redelivered: bool,
    /// It was settled durably before, or a consumer held it at this moment.
    doubled: bool,
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
}

struct World {
    it: Hosts,
    dice: Dice,
    ledger: Ledger,
    /// Delivered and not yet settled, by host.
    held: Vec<VecDeque<Delivery>>,
    count: u64,
    forgot: bool,
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
        it.settle();
        let held = names.iter().map(|_| VecDeque::new()).collect();
        let mut world = Self { it, dice, ledger: Ledger::default(), held, count: 0, forgot: false };
        (0..names.len()).for_each(|at| world.consume(at));
        world
    }

    fn consume(&mut self, at: usize) {
        let client = self.it.hosts[at].client;
        self.it.hosts[at].house.consume(client, MAILBOXES[at], 1);
        self.it.hosts[at].house.consume(client, DEAD, DEAD_CONSUMER);
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            let at = self.dice.pick(self.it.hosts.len());
            match self.dice.roll(100) {
                0..40 => self.publish(at),
                40..70 => self.carry(),
                70..80 => self.settle(at),
                80..85 => self.cut(),
                85..92 => self.mend(),
                92..95 => self.it.hosts[at].house.fast_disk = false,
                95..98 => self.catch_up(at),
                98 => self.forget(at),
                _ => self.crash(at),
            }
            self.listen();
        }
        self.heal();
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
        let knows = |it: &usize| *it == at || broker.home_of(&"/".into(), MAILBOXES[*it]).is_some();
        let to: Vec<usize> = to.into_iter().filter(knows).collect();
        let refused = matches!(to[..], [one] if one != at) && self.dice.roll(10) == 0;
        let to = if refused { vec![DEAD_AT + at] } else { to };
        if refused {
            self.it.too_large.insert(body.clone());
        }
        let published = Published { origin: at, number: self.count, to, confirmed: false };
        self.ledger.published.insert(body, published);
        let client = self.it.hosts[at].client;
        self.it.hosts[at].house.publish(client, post.confirm(self.count));
    }

    /// One direction of one link moves a piece of what is on its way.
    fn carry(&mut self) {
        if self.it.links.is_empty() {
            return;
        }
        let at = self.dice.pick(self.it.links.len());
        if self.dice.roll(2) == 0 {
            self.it.carry(at);
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
        self.it.cut(from, to);
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
            self.it.cut(link.from, link.to);
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
    }

    fn crash(&mut self, at: usize) {
        // What was said before is known.
        self.listen();
        self.it.cut_all(at);
        self.it.hosts[at].house.fast_disk = true;
        self.it.hosts[at].crash();
        self.held[at].clear();
        self.consume(at);
    }

    /// Clients take what they are told.
    fn listen(&mut self) {
        for at in 0..self.it.hosts.len() {
            let client = self.it.hosts[at].client;
            for event in self.it.take(at, client) {
                match event {
                    Event::Delivered(delivery) => self.receive(at, delivery),
                    Event::Confirmed { tag, taken: true, .. } => self.confirmed(tag),
                    _ => {}
                }
            }
        }
    }

    fn confirmed(&mut self, tag: u64) {
        let published = self.ledger.published.get_mut(&tag.to_string());
        published.expect("only what was published is confirmed").confirmed = true;
    }

    fn receive(&mut self, at: usize, delivery: Delivery) {
        let body = String::from_utf8_lossy(delivery.message.body()).into_owned();
        let redelivered = delivery.redelivered;
        let held = self.held[at].iter().any(|it| it.message.body() == delivery.message.body());
        let mailbox = number(at, &delivery);
        let doubled = held || self.ledger.settled.contains(&(body.clone(), mailbox));
        self.ledger.receipts.push(Receipt { body, mailbox, redelivered, doubled });
        self.held[at].push_back(delivery);
    }

    fn settle(&mut self, at: usize) {
        let outcome = if self.dice.roll(5) == 0 { Outcome::Released } else { Outcome::Accepted };
        let Some(delivery) = self.held[at].pop_front() else { return };
        if outcome == Outcome::Accepted && self.it.hosts[at].house.fast_disk {
            let body = String::from_utf8_lossy(delivery.message.body()).into_owned();
            self.ledger.settled.insert((body, number(at, &delivery)));
        }
        let run = Run { mailbox: delivery.mailbox, first: delivery.seq, count: 1 };
        let deliveries = [run].into_iter().collect();
        let settle = Settle { channel: delivery.channel, deliveries, outcome };
        let client = self.it.hosts[at].client;
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
        for _ in 0..TURNS_MAX {
            self.it.settle();
            self.listen();
            if self.held.iter().all(VecDeque::is_empty) {
                break;
            }
            for at in 0..hosts {
                while !self.held[at].is_empty() {
                    self.settle(at);
                }
            }
        }
        self.it.check();
    }
}

/// Of the mailbox that a delivery came from.
fn number(at: usize, delivery: &Delivery) -> usize {
    if delivery.consumer == ConsumerId(DEAD_CONSUMER) { DEAD_AT + at } else { at }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(one) = number("SIMULATE_SEED") {
        return one..one + 1;
    }
    0..number("SIMULATE_SEEDS").unwrap_or(100)
}

#[test]
fn hosts_keep_their_promises_whatever_happens_between_them() {
    let (mut received, mut again, mut dead, mut redirected) = (0, 0, 0, 0);
    for seed in seeds() {
        let mut world = World::new(seed);
        world.run();
        let found = [
            loss::find(&world.ledger),
            repeats::find(&world.ledger),
            order::find(&world.ledger),
            agreement::find(&mut world),
        ];
        let found: Vec<String> = found.into_iter().flatten().collect();
        assert!(found.is_empty(), "SIMULATE_SEED={seed}:\n{}", found.join("\n"));
        received += world.ledger.receipts.len();
        redirected += world.ledger.redirected.len();
        dead += world.ledger.receipts.iter().filter(|it| it.mailbox >= DEAD_AT).count();
        again += world.ledger.receipts.iter().filter(|it| it.redelivered).count();
    }
    assert!(dead > 0 && redirected > 0, "{dead} refused, {redirected} redirected");
    // A world in which nothing happens keeps every promise.
    assert!(received > 30 && again > 0, "{received} received, {again} of them again");
}

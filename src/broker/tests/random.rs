//! Random commands against a simple oracle, with slow disks, crashes and stops at random.
//!
//! The oracle knows of each message what may have become of it, and of each mailbox the order.
//! `PILLARBOX_SEED` repeats one run, `PILLARBOX_ROUNDS` asks for more of them.

use std::collections::{BTreeMap, BTreeSet};

use super::house::*;
use super::request::*;
use crate::broker::*;

const NAMES: [&str; 3] = ["plain", "ranked", "quorum"];

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

/// What is known of one copy of a message in one mailbox.
#[derive(Clone, Debug)]
struct Known {
    mailbox: usize,
    priority: u8,
    persistent: bool,
    confirmed: bool,
    /// A consumer was given it.
    shown: bool,
    /// Settled, purged or perhaps expired: it need not be there any more.
    may_be_gone: bool,
    /// It must not come again: the settlement was durable.
    gone: bool,
    /// First deliveries are in order as long as nothing else could disturb it.
    expires: bool,
}

struct World {
    house: House,
    dice: Dice,
    known: BTreeMap<String, Known>,
    publisher: ConnectionId,
    readers: Vec<ConnectionId>,
    held: Vec<(ConnectionId, Seen)>,
    /// Settled, and not yet surely durable.
    settling: Vec<String>,
    count: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let settings = Settings {
            hot_messages: [4, 8, 64][dice.roll(3) as usize],
            hot_bytes: 1 << 14,
            memory_max: if dice.chance(30) { 4_000 } else { 1 << 30 },
            window_deliveries: 16,
            ..Settings::default()
        };
        let mut house = House::with(settings);
        let c = house.connect();
        house.declare(c, "plain");
        house.declare_with(c, "ranked", &[("x-max-priority", int(3))]);
        let unlimited = ("x-delivery-limit", int(-1));
        house.declare_with(c, "quorum", &[("x-queue-type", text("quorum")), unlimited]);
        for name in NAMES {
            house.bind(c, "amq.fanout", name, "");
        }
        house.fast_disk = false;
        let publisher = house.connect_lax();
        let mut world = Self {
            house,
            dice,
            known: BTreeMap::new(),
            publisher,
            readers: Vec::new(),
            held: Vec::new(),
            settling: Vec::new(),
            count: 0,
        };
        world.meet();
        world
    }

    /// New connections, after a start.
    fn meet(&mut self) {
        self.publisher = self.house.connect_lax();
        self.readers = (0..3).map(|_| self.house.connect_lax()).collect();
        self.held.clear();
    }

    fn step(&mut self) {
        self.house.fast_fetch = self.dice.chance(70);
        match self.dice.roll(100) {
            0..40 => self.publish(),
            40..60 => self.settle(),
            60..70 => self.consume(),
            70..74 => self.get(),
            74..77 => self.leave(),
            77..79 => self.purge(),
            79..82 => {
                let ms = self.dice.roll(40);
                self.house.wait(ms);
            }
            82..90 => self.house.seal(),
            90..96 => drop(self.house.durable()),
            96..98 => self.house.answer_fetches(),
            98 => self.sync(),
            _ => self.stop(),
        }
        self.look();
    }

    fn publish(&mut self) {
        let mut commands = Vec::new();
        for _ in 0..=self.dice.roll(20) {
            self.count += 1;
            let everywhere = self.dice.chance(10);
            let mailbox = self.dice.roll(3) as usize;
            let body = self.count.to_string();
            let mut post = if everywhere {
                Post::by("amq.fanout", "", &body)
            } else {
                Post::to(NAMES[mailbox], &body)
            };
            let priority = self.dice.roll(5) as u8;
            post = post.priority(priority).confirm(self.count);
            post.persistent = self.dice.chance(80);
            let expires = self.dice.chance(10);
            if expires {
                post = post.expiration(self.dice.roll(60));
            }
            let targets = if everywhere { 0..3 } else { mailbox..mailbox + 1 };
            for mailbox in targets {
                let known = Known {
                    mailbox,
                    priority: if mailbox == 1 { priority.min(3) } else { 0 },
                    persistent: post.persistent || mailbox == 2,
                    confirmed: false,
                    shown: false,
                    may_be_gone: expires,
                    gone: false,
                    expires,
                };
                self.known.insert(format!("{}/{body}", NAMES[mailbox]), known);
            }
            commands.push(Command::Publish(post.publish(self.house.now)));
        }
        if self.dice.chance(50) {
            return self.house.apply_all(self.publisher, commands);
        }
        for command in commands {
            self.house.apply(self.publisher, command);
        }
    }

    fn consume(&mut self) {
        let reader = self.readers[self.dice.roll(3) as usize];
        if self.dice.chance(60) {
            // Perhaps somebody else's, which is no mistake.
            let consumer = self.count - self.dice.roll(self.count.min(200) + 1);
            self.house.ask_later(reader, Request::Cancel(ConsumerId(consumer as u32)));
            return;
        }
        self.count += 1;
        let mut wanted = consume(NAMES[self.dice.roll(3) as usize], self.count as u32);
        wanted.prefetch = [1, 3, 10][self.dice.roll(3) as usize];
        wanted.priority = self.dice.roll(2) as i32;
        self.house.ask_later(reader, Request::Consume(wanted));
    }

    fn get(&mut self) {
        let reader = self.readers[self.dice.roll(3) as usize];
        let name = NAMES[self.dice.roll(3) as usize];
        self.house.ask_later(reader, Request::Get { mailbox: name.into(), no_ack: false });
    }

    fn settle(&mut self) {
        for _ in 0..self.dice.roll(12) {
            if self.held.is_empty() {
                return;
            }
            let at = self.dice.roll(self.held.len() as u64) as usize;
            let (by, seen) = self.held.swap_remove(at);
            let id = self.id(&seen);
            let outcome = match self.dice.roll(10) {
                0 => Outcome::Released,
                1 => Outcome::Modified { delay_ms: None },
                2 => Outcome::Modified { delay_ms: Some(self.dice.roll(30)) },
                3 => Outcome::Rejected,
                _ => Outcome::Accepted,
            };
            self.house.settle(by, &seen, outcome);
            if matches!(outcome, Outcome::Accepted | Outcome::Rejected) {
                self.known.get_mut(&id).unwrap().may_be_gone = true;
                self.settling.push(id);
            }
        }
    }

    fn leave(&mut self) {
        let at = self.dice.roll(3) as usize;
        let reader = self.readers[at];
        self.look();
        self.held.retain(|(by, _)| *by != reader);
        if self.dice.chance(50) {
            self.house.close_channel(reader, ONE);
        } else {
            self.house.close(reader);
            self.readers[at] = self.house.connect_lax_later();
        }
    }

    fn purge(&mut self) {
        let at = self.dice.roll(3) as usize;
        self.look();
        let held: BTreeSet<String> = self.held.iter().map(|(_, seen)| self.id(seen)).collect();
        for (id, known) in &mut self.known {
            if known.mailbox == at && !held.contains(id) {
                known.may_be_gone = true;
            }
        }
        self.house.ask_later(self.readers[0], purge(NAMES[at]));
    }

    fn sync(&mut self) {
        self.house.sync();
        self.look();
        for id in self.settling.drain(..) {
            self.known.get_mut(&id).unwrap().gone = true;
        }
    }

    fn stop(&mut self) {
        let orderly = self.dice.chance(30);
        self.house.fast_fetch = true;
        self.look();
        if orderly {
            self.house.restart();
            for id in self.settling.drain(..) {
                self.known.get_mut(&id).unwrap().gone = true;
            }
        } else {
            self.house.crash();
            self.settling.clear();
        }
        // What nobody promised may be lost.
        for known in self.known.values_mut() {
            known.may_be_gone |= !known.persistent || !known.confirmed;
        }
        self.house.check_books();
        self.house.fast_fetch = true;
        self.house.sync();
        self.meet();
        self.house.sync();
    }

    fn id(&self, seen: &Seen) -> String {
        let mailbox = &self.house.broker.mailboxes[&seen.delivery.mailbox];
        format!("{}/{}", mailbox.name, seen.body)
    }

    /// Takes in what the broker said, and checks it.
    fn look(&mut self) {
        for (to, event) in std::mem::take(&mut self.house.events) {
            match event {
                Event::Delivered(delivery) => self.deliver(to, delivery),
                Event::Reply { result: Ok(Reply::Got(Some(got))), .. } => self.deliver(to, got.0),
                Event::Confirmed { tag, taken, .. } => {
                    assert!(taken);
                    for name in NAMES {
                        if let Some(known) = self.known.get_mut(&format!("{name}/{tag}")) {
                            assert!(!known.confirmed, "{tag} is confirmed twice");
                            known.confirmed = true;
                        }
                    }
                }
                Event::Reply { result: Err(refusal), .. } | Event::Refused { refusal, .. } => {
                    panic!("refused: {refusal}");
                }
                _ => {}
            }
        }
    }

    fn deliver(&mut self, to: ConnectionId, delivery: Delivery) {
        let body = String::from_utf8_lossy(delivery.message.body()).into_owned();
        let redelivered = delivery.redelivered;
        let seen = Seen { body, redelivered, consumer: delivery.consumer.0, delivery };
        let id = self.id(&seen);
        // An answer may come after its channel went: nobody sees it.
        let Delivery { mailbox, seq, channel, .. } = seen.delivery;
        if !self.house.broker.mailboxes[&mailbox].holds(seq, to, channel) {
            return;
        }
        let known = self.known.get_mut(&id).unwrap_or_else(|| panic!("{id} was never published"));
        assert!(!known.gone, "{id} was settled");
        assert!(redelivered || !known.shown, "{id} was shown before");
        assert!(
            !self.held.iter().any(|(_, it)| it.delivery.mailbox == seen.delivery.mailbox
                && it.delivery.seq == seen.delivery.seq),
            "{id} is held by somebody"
        );
        known.shown = true;
        if self.readers.contains(&to) {
            self.held.push((to, seen));
        }
    }

    /// Everything that must be there is there, in order.
    fn drain(&mut self) {
        self.house.fast_fetch = true;
        self.house.answer_fetches();
        self.sync();
        for reader in self.readers.clone() {
            self.house.close(reader);
        }
        self.look();
        self.house.fast_disk = true;
        self.house.sync();
        self.house.wait(1_000);
        self.look();
        self.held.clear();
        self.house.check_books();
        let c = self.house.connect();
        for (at, name) in NAMES.into_iter().enumerate() {
            let bodies = self.house.empty(c, name);
            let mut rest: BTreeSet<&str> = bodies.iter().map(String::as_str).collect();
            assert_eq!(rest.len(), bodies.len(), "{name}: nothing comes twice");
            let order = |body: &String| {
                let known = &self.known[&format!("{name}/{body}")];
                (std::cmp::Reverse(known.priority), body.parse::<u64>().unwrap())
            };
            assert!(bodies.is_sorted_by_key(order), "{name} is in order: {bodies:?}");
            for (id, known) in self.known.iter().filter(|(_, known)| known.mailbox == at) {
                let body = &id[name.len() + 1..];
                let there = rest.remove(body);
                assert!(there || known.may_be_gone, "{id} is lost: {known:?}");
                assert!(!there || !known.gone, "{id} came back: {known:?}");
                assert!(!there || !known.expires, "{id} is too old: {known:?}");
            }
            assert!(rest.is_empty(), "{name}: unknown {rest:?}");
            let mailbox = self.house.mailbox(name);
            assert_eq!((mailbox.ready, mailbox.ready_bytes, mailbox.unsettled()), (0, 0, 0));
            assert_eq!(mailbox.delayed.len() + mailbox.recalls.len(), 0);
        }
        assert_eq!(self.house.broker.memory, 0);
        let stored = self.house.disk.mailboxes.values().map(|it| it.messages.len()).sum::<usize>();
        assert_eq!(stored, 0, "the store keeps nothing");
        self.house.check_books();
    }
}

impl House {
    /// The answer is looked at when it comes.
    fn ask_later(&mut self, from: ConnectionId, request: Request) {
        self.send(from, ONE, request);
    }

    fn connect_lax_later(&mut self) -> ConnectionId {
        let fast = std::mem::replace(&mut self.fast_disk, true);
        let id = self.connect_lax();
        self.fast_disk = fast;
        id
    }
}

#[test]
fn random_commands_lose_nothing_and_keep_order() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("PILLARBOX_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PILLARBOX_ROUNDS").unwrap_or(60),
    };
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| {
            let mut world = World::new(seed);
            for step in 0..300 {
                world.step();
                if step % 20 == 0 {
                    world.house.check_books();
                }
            }
            world.drain();
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            panic!("PILLARBOX_SEED={seed}: {text}");
        }
    }
}

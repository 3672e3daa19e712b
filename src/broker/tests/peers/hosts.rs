//! Brokers with links between them, carried by hand.

use super::super::house::{House, ONE, Seen};
use crate::broker::*;

/// A broker among others, and its connections to them.
pub(super) struct Host {
    pub(super) name: Name,
    pub(super) house: House,
    pub(super) client: ConnectionId,
    pub(super) run: u64,
}

/// From one host to another: the connection at each, and what is known there.
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) dial: ConnectionId,
    pub(super) guest: ConnectionId,
    pub(super) outboxes: Vec<(MailboxId, Name)>,
    /// Messages that were brought and not answered for.
    pub(super) sent: Vec<(MailboxId, Seq)>,
    /// Deliveries that the other side does not know yet.
    pub(super) slow: bool,
}

pub(super) struct Hosts {
    pub(super) hosts: Vec<Host>,
    pub(super) links: Vec<Link>,
    pub(super) next: u64,
    /// Bodies that no other host takes.
    pub(super) too_large: BTreeSet<String>,
}

fn on_its_way(delivery: &Delivery) -> (Seq, Message) {
    let mut message = delivery.message.detached();
    message.id = delivery.message.id;
    message.again = delivery.redelivered;
    (delivery.seq, message)
}

impl Host {
    pub(super) fn new(name: &str, start: u64) -> Self {
        // Messages of different hosts have different ids.
        let host = name.bytes().next().map_or(0, u32::from);
        let settings = Settings { start, host, hot_messages: 8, ..Settings::default() };
        let mut house = House::with(settings);
        let client = house.connect();
        Self { name: name.into(), house, client, run: start }
    }

    pub(super) fn put(&mut self, name: &str, bodies: &[&str]) {
        self.house.put(self.client, name, bodies);
    }

    pub(super) fn empty(&mut self, name: &str) -> Vec<String> {
        self.house.empty(self.client, name)
    }

    pub(super) fn ask(&mut self, request: Request) -> Result<Reply, Refusal> {
        self.house.ask(self.client, request)
    }

    pub(super) fn get(&mut self, name: &str) -> Option<Seen> {
        self.house.get(self.client, name)
    }

    pub(super) fn declare(&mut self, name: &str) {
        self.house.declare(self.client, name);
    }

    pub(super) fn view(&self, host: &str) -> PeerView {
        let all = self.house.broker.peer_views(None, 10);
        all.into_iter().find(|it| it.host == *host).expect("a known host")
    }

    /// The power goes, and the broker starts again.
    pub(super) fn crash(&mut self) {
        self.run += 1;
        self.house.settings.start += 1;
        // Ids of messages are counted anew, from a later time.
        self.house.now = self.house.now.plus_ms(1);
        self.house.crash();
        self.client = self.house.connect();
    }
}

impl Hosts {
    pub(super) fn new(names: &[&str]) -> Self {
        let hosts = names.iter().map(|name| Host::new(name, 1000)).collect();
        let mut hosts =
            Self { hosts, links: Vec::new(), next: 1_000_000, too_large: Default::default() };
        for from in 0..names.len() {
            for to in 0..names.len() {
                if from != to {
                    hosts.link(from, to);
                }
            }
        }
        hosts.settle();
        hosts
    }

    pub(super) fn link(&mut self, from: usize, to: usize) {
        self.next += 2;
        let (dial, guest) = (ConnectionId(self.next), ConnectionId(self.next + 1));
        let (name, run) = (self.hosts[from].name.clone(), self.hosts[from].run);
        let tags = self.hosts[from].house.settings.tags.clone();
        self.ask(to, guest, Peering::Greet { host: name, run, tags });
        let greeted = self.take(to, guest);
        let [Event::Peer(PeerEvent::Greeted { known })] = greeted[..] else {
            panic!("{greeted:?}")
        };
        let host = self.hosts[to].name.clone();
        let tags = self.hosts[to].house.settings.tags.clone();
        self.ask(from, dial, Peering::Carry { host, tags });
        self.ask(from, dial, Peering::Advertise { after: known, base: 0 });
        let (outboxes, sent) = (Vec::new(), Vec::new());
        self.links.push(Link { from, to, dial, guest, outboxes, sent, slow: false });
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        let at = self.links.iter().position(|it| (it.from, it.to) == (from, to));
        let link = self.links.remove(at.expect("a link"));
        self.hosts[from].house.close(link.dial);
        self.hosts[to].house.close(link.guest);
    }

    pub(super) fn cut_all(&mut self, host: usize) {
        while let Some(link) = self.links.iter().find(|it| it.from == host || it.to == host) {
            self.cut(link.from, link.to);
        }
    }

    pub(super) fn ask(&mut self, at: usize, from: ConnectionId, peering: Peering) {
        self.hosts[at].house.apply(from, Command::Peer(Box::new(peering)));
    }

    /// Carries everything there is, until nothing moves.
    pub(super) fn settle(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for at in 0..self.links.len() {
                moved |= self.carry(at) | self.answer(at);
            }
        }
    }

    pub(super) fn take(&mut self, at: usize, to: ConnectionId) -> Vec<Event> {
        let events = std::mem::take(&mut self.hosts[at].house.events);
        let (mine, rest): (Vec<_>, Vec<_>) = events.into_iter().partition(|(id, _)| *id == to);
        self.hosts[at].house.events = rest.into();
        mine.into_iter().map(|(_, event)| event).collect()
    }

    /// What the dialling side has to say.
    pub(super) fn carry(&mut self, at: usize) -> bool {
        let Link { from, to, dial, guest, slow, .. } = self.links[at];
        let events = self.take(from, dial);
        let moved = !events.is_empty();
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            match event {
                Event::Peer(PeerEvent::Carries { outbox, vhost }) => {
                    self.links[at].outboxes.push((outbox, vhost));
                }
                Event::Peer(PeerEvent::Adverts { changes, begins, ends, version, base }) => {
                    let learn = Learn { changes, begins, ends, version };
                    self.ask(to, guest, Peering::Learn(learn));
                    self.ask(from, dial, Peering::Advertise { after: version, base });
                }
                Event::Delivered(delivery) if !slow && self.is_too_large(&delivery) => {
                    let (outbox, seq) = (delivery.mailbox, delivery.seq);
                    let refuse = Peering::Refuse { outbox, seq, reason: "too large".into() };
                    self.ask(from, dial, refuse);
                }
                Event::Delivered(delivery) if !slow => {
                    let outboxes = &self.links[at].outboxes;
                    let vhost = outboxes.iter().find(|(id, _)| *id == delivery.mailbox);
                    let (outbox, vhost) = vhost.expect("an outbox that was told").clone();
                    let mut messages = vec![on_its_way(&delivery)];
                    // Neighbours go together, as over a real link.
                    while let Some(Event::Delivered(next)) = events.next_if(|event| {
                        matches!(event, Event::Delivered(it)
                            if it.mailbox == outbox && !self.is_too_large(it))
                    }) {
                        messages.push(on_its_way(&next));
                    }
                    let sent = messages.iter().map(|(seq, _)| (outbox, *seq));
                    self.links[at].sent.extend(sent);
                    let arrival = Arrival { vhost, outbox, messages };
                    self.ask(to, guest, Peering::Arrive(arrival));
                }
                Event::Delivered(_) => {}
                Event::Peer(PeerEvent::Ask { visit, command }) => {
                    let house = &mut self.hosts[from].house;
                    house.apply(dial, Command::Drained { deliveries: 1, bytes: ASK_SIZE });
                    self.ask(to, guest, Peering::Visit { visit, command });
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        moved
    }

    pub(super) fn is_too_large(&self, delivery: &Delivery) -> bool {
        std::str::from_utf8(delivery.message.body()).is_ok_and(|it| self.too_large.contains(it))
    }

    /// What the accepting side has to say.
    pub(super) fn answer(&mut self, at: usize) -> bool {
        let Link { from, to, dial, guest, .. } = self.links[at];
        let events = self.take(to, guest);
        let moved = !events.is_empty();
        for event in events {
            let (outbox, upto) = match event {
                Event::Peer(PeerEvent::Arrived { outbox, upto }) => (outbox, upto),
                Event::Peer(PeerEvent::Visitor { visit, event }) => {
                    self.tell_visitor(at, visit, *event);
                    continue;
                }
                _ => continue,
            };
            let taken = |it: &mut (MailboxId, Seq)| it.0 == outbox && it.1 <= upto;
            let taken = self.links[at].sent.extract_if(.., taken);
            let run = |(mailbox, first)| Run { mailbox, first, count: 1 };
            let deliveries = taken.map(run).collect();
            let settle = Settle { channel: ChannelId(0), deliveries, outcome: Outcome::Accepted };
            self.hosts[from].house.apply(dial, Command::Settle(settle));
        }
        moved
    }

    /// The link wrote what a client of the dialling host is told, and that host reads it.
    pub(super) fn tell_visitor(&mut self, at: usize, visit: u32, event: Event) {
        let Link { from, to, dial, guest, .. } = self.links[at];
        let bytes = event.deliveries().iter().map(|it| it.message.size() as u64).sum();
        let deliveries = event.deliveries().len() as u32;
        if deliveries > 0 {
            self.hosts[to].house.apply(guest, Command::Drained { deliveries, bytes });
        }
        self.ask(from, dial, Peering::Told { visit, event });
    }

    /// A question whose answer may come from another host.
    pub(super) fn ask_as(
        &mut self,
        at: usize,
        client: ConnectionId,
        request: Request,
    ) -> Result<Reply, Refusal> {
        let ticket = self.hosts[at].house.send(client, ONE, request);
        self.settle();
        self.hosts[at].house.answer(client, ticket).expect("an answer")
    }

    /// Everything is where it belongs and nothing waits.
    pub(super) fn check(&self) {
        for host in &self.hosts {
            host.house.check_books();
        }
    }
}

//! The mailbox core: commands in, effects out. Knows no protocol, socket, disk, clock or host.
//!
//! ```text
//! apply(from, command) ─┐
//! durable(epoch)        ├─> Vec<Effect>: Notify, Write, NotifyDurable, Fetch
//! tick(now)            ─┘
//! ```

pub mod access;
mod admin;
mod batch;
mod binding;
pub mod browse;
mod burst;
mod command;
mod connection;
mod consume;
mod consumer;
mod cron;
mod dead_letter;
mod dedup;
mod definition;
mod delay;
mod dispatch;
mod drain;
mod event;
mod expiry;
mod flow;
pub mod inspect;
mod keep;
mod keyed;
mod lane;
mod lease;
mod limits;
mod look;
mod mailbox;
mod mark;
mod message;
mod name;
mod neutral;
mod paging;
mod peer;
mod policy;
mod publish;
mod quota;
mod refusal;
mod repeat;
mod retry;
pub mod routing;
mod schedule;
mod selection;
pub mod selector;
mod settings;
pub mod slash;
mod spill;
mod stream;
#[cfg(test)]
mod tests;
mod timeout;
mod topology;
mod trace;
mod turn;
mod unburied;
mod value;
mod vhost;

use std::collections::{BTreeMap, BTreeSet};

pub use browse::{Bookmark, Browse, Browsed, Found, HolderView, NoPlace, NoState, State, States};
pub use command::*;
pub use cron::{Cron, CronError};
pub use definition::*;
pub use drain::DrainView;
pub use event::*;
pub use flow::{Deaths, Inflow, Outflow, Passage, ProtocolFlow, Sizes, Waits};
pub use keep::{Rewind, Rewound};
pub use limits::{Limits, MailboxKind, Overflow, TIME_SPAN_MAX_MS};
pub use mailbox::Counts;
pub use message::*;
pub use name::{Name, Time};
pub use neutral::NEUTRAL;
pub use peer::*;
pub use quota::{Holder, Limited, Quota};
pub use refusal::{Action, Kind, Refusal};
pub use repeat::Repeat;
pub use selection::Selection;
#[cfg(feature = "planted")]
pub use settings::Plant;
pub use settings::Settings;
pub use value::{Table, TableKey, Value};

use access::Access;
use connection::{Channel, Connection};
use dead_letter::Burial;
use drain::Drain;
use keep::Keeping;
use mailbox::{Asker, Mailbox};
use peer::{Peers, Pledged};
use spill::Spilling;
use vhost::Vhost;

/// Counts the batches of writes that the server takes: an append of batch 7 is durable once 7 is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// The server itself, as the origin of a command.
pub const SERVER: ConnectionId = ConnectionId(0);

/// Every mailbox, exchange, user and lease of this host.
pub struct Broker {
    settings: Settings,
    /// Of the writes that are being gathered.
    epoch: Epoch,
    /// Everything up to this batch is on disk.
    durable: Epoch,
    access: Access,
    vhosts: BTreeMap<Name, Vhost>,
    mailboxes: BTreeMap<MailboxId, Mailbox>,
    connections: BTreeMap<ConnectionId, Connection>,
    reply_addresses: BTreeMap<Name, (ConnectionId, ChannelId, ConsumerId)>,
    /// The next deadline of each mailbox that has one.
    timers: BTreeSet<(Time, MailboxId)>,
    /// Mailboxes to dispatch before the turn ends.
    dirty: Vec<MailboxId>,
    /// Publishes come to rest, and are dispatched together after the last of them.
    gathering: bool,
    burials: Vec<Burial>,
    keepings: Vec<Keeping>,
    awaiting: BTreeSet<MailboxId>,
    /// Mailboxes that keep more in memory than they should.
    surplus: BTreeSet<MailboxId>,
    spilling: Spilling,
    memory: u64,
    /// Messages accepted since the start.
    messages: u64,
    next_mailbox: u64,
    /// Bumped by every change that can alter where a publish goes.
    generation: u64,
    alarm: Option<&'static str>,
    totals: Totals,
    /// By protocol; the first is the broker's own.
    flows: Vec<ProtocolFlow>,
    parameters: BTreeMap<DefinitionKey, ParameterDefinition>,
    peers: Peers,
    /// While a message comes to rest whose confirm waits for other hosts.
    pledging: Option<Pledged>,
    /// The host is taken out of service.
    drain: Option<Drain>,
    /// While a request is done on somebody's behalf: the user and the virtual host.
    acting: Option<(Name, Name)>,
    /// Traffic of some virtual host is copied.
    tracing: bool,
    /// Reused between publishes.
    names: Vec<Name>,
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub published: u64,
    pub returned: u64,
    pub unroutable: u64,
    pub connections_opened: u64,
    pub connections_closed: u64,
    pub channels_opened: u64,
    pub channels_closed: u64,
    pub mailboxes_declared: u64,
    pub mailboxes_created: u64,
    pub mailboxes_deleted: u64,
    pub sizes: Sizes,
    pub deaths: Deaths,
    pub waits: Waits,
}

/// Borrows what a mailbox needs beside itself; the rest of the broker stays free.
macro_rules! carry {
    ($broker:ident, $now:expr, $out:expr) => {
        $crate::broker::turn::Turn {
            now: $now,
            epoch: $broker.epoch,
            durable: $broker.durable,
            settings: &$broker.settings,
            connections: &mut $broker.connections,
            out: &mut *$out,
            bursts: Default::default(),
            burials: &mut $broker.burials,
            keepings: &mut $broker.keepings,
            awaiting: &mut $broker.awaiting,
            memory: &mut $broker.memory,
            flows: &mut $broker.flows,
            deaths: &mut $broker.totals.deaths,
            waits: &mut $broker.totals.waits,
        }
    };
}
use carry;

impl Broker {
    /// A broker with what the store recovered; effects are what the recovery itself wants written.
    pub fn open(
        recovered: Recovered,
        settings: Settings,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Self {
        let peers = Peers::new(&settings);
        let mut broker = Self {
            spilling: Spilling::new(settings.memory_max),
            settings,
            epoch: Epoch(1),
            durable: Epoch(0),
            access: Access::default(),
            vhosts: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            connections: BTreeMap::new(),
            reply_addresses: BTreeMap::new(),
            timers: BTreeSet::new(),
            dirty: Vec::new(),
            gathering: false,
            burials: Vec::new(),
            keepings: Vec::new(),
            awaiting: BTreeSet::new(),
            surplus: BTreeSet::new(),
            memory: 0,
            messages: 0,
            next_mailbox: 0,
            generation: 1,
            alarm: None,
            totals: Totals::default(),
            flows: vec![ProtocolFlow { protocol: "broker", ..ProtocolFlow::default() }],
            parameters: BTreeMap::new(),
            peers,
            pledging: None,
            drain: None,
            acting: None,
            tracing: false,
            names: Vec::new(),
        };
        broker.restore(recovered, now, out);
        broker.finish(now, out);
        broker
    }

    /// Something happened. Effects are appended in order.
    pub fn apply(
        &mut self,
        from: ConnectionId,
        command: Command,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let start = out.len();
        self.act(from, command, now, out);
        self.end_turn(start, now, out);
    }

    /// Several things happened, all at one connection: as one after the other, but neighbouring messages are handed out
    /// together, as they came together.
    pub fn apply_all(
        &mut self,
        from: ConnectionId,
        commands: impl IntoIterator<Item = Command>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let mut start = out.len();
        for command in commands {
            let publishes = matches!(command, Command::Publish(_)) && !self.tracing;
            if self.gathering && !publishes {
                self.end_turn(start, now, out);
            }
            if !self.gathering {
                start = out.len();
            }
            self.gathering = publishes;
            self.act(from, command, now, out);
            if !self.gathering {
                self.end_turn(start, now, out);
            }
        }
        if self.gathering {
            self.end_turn(start, now, out);
        }
    }

    /// What was done is followed by what follows from it; its effects began at `start`.
    fn end_turn(&mut self, start: usize, now: Time, out: &mut Vec<Effect>) {
        self.gathering = false;
        self.finish(now, out);
        if self.tracing {
            self.trace_delivered(start, now, out);
        }
        self.readdress(start, now, out);
    }

    #[inline]
    fn act(&mut self, from: ConnectionId, command: Command, now: Time, out: &mut Vec<Effect>) {
        match command {
            Command::Publish(publish) if !self.failed(from, publish.channel) => {
                self.publish(from, publish, now, out);
            }
            Command::PublishBatch(batch) if !self.failed(from, batch.channel) => {
                self.publish_batch(from, batch, now, out);
            }
            Command::Settle(settle) if !self.failed(from, settle.channel) => {
                self.settle(from, &settle, now, out);
            }
            Command::Extend(extend) if !self.failed(from, extend.channel) => {
                self.extend(from, &extend, now, out);
            }
            Command::Announce(it) if !self.failed(from, it.channel) => {
                let more = it.more_keys.as_deref().map_or(&[][..], Vec::as_slice);
                if let Err(refusal) = self.check_publish(from, &it.message, more) {
                    self.refuse(from, it.channel, Cause::Publish, refusal, out);
                }
            }
            Command::Publish(_)
            | Command::PublishBatch(_)
            | Command::Announce(_)
            | Command::Settle(_)
            | Command::Extend(_) => {}
            Command::Drained { deliveries, bytes } => {
                self.drained(from, deliveries, bytes);
                if !self.peers.afar.is_empty() {
                    self.drained_afar(from, deliveries, bytes, out);
                }
            }
            Command::Request(channel, ticket, request) => {
                if !self.failed(from, channel) {
                    self.request(from, channel, ticket, *request, now, out);
                }
            }
            Command::Open(open, ticket) => {
                let result = self.open_connection(from, *open);
                let channel = ChannelId(0);
                let event = Event::Reply { channel, ticket, result };
                out.push(Effect::NotifyDurable(from, event));
            }
            Command::Close(ticket) => {
                if self.peers.leave(from) {
                    self.lose_link(from, out);
                }
                self.leave_afar(from, out);
                self.end_visitors(from, now, out);
                self.close_connection(from, now, out);
                if let Some(ticket) = ticket {
                    out.push(Effect::NotifyDurable(from, Event::Closed(ticket)));
                }
            }
            Command::CloseChannel(channel, ticket) => {
                self.close_channel_afar(from, channel, out);
                self.close_channels(from, &[channel], now, out);
                let event = Event::Reply { channel, ticket, result: Ok(Reply::Done) };
                out.push(Effect::NotifyDurable(from, event));
            }
            Command::Fetched(fetched) => {
                let mut turn = carry!(self, now, out);
                if let Some(mailbox) = self.mailboxes.get_mut(&fetched.mailbox) {
                    let id = fetched.mailbox;
                    mailbox.fetched(fetched, &mut turn);
                    self.dirty.push(id);
                }
            }
            Command::Peer(peering) => self.peering(from, *peering, now, out),
            Command::Alarm { memory, disk } => self.raise_alarm(memory, disk, out),
        }
    }

    fn request(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        ticket: Ticket,
        request: Request,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        let anonymous = matches!(request, Request::Credential(_) | Request::Administrator(_));
        let anonymous = anonymous || from == SERVER;
        if !anonymous && let Err(refusal) = self.whose(from) {
            let event = Event::Reply { channel, ticket, result: Err(refusal) };
            return out.push(Effect::NotifyDurable(from, event));
        }
        let asked = match self.is_idle_for(from, &request) {
            true => Err(Refusal::NotAllowed(drain::DRAINED.into())),
            false => self.ask_afar(from, channel, ticket, request, now, out),
        };
        let request = match asked {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(refusal) => {
                self.mark_failed(from, channel);
                let event = Event::Reply { channel, ticket, result: Err(refusal) };
                return out.push(Effect::NotifyDurable(from, event));
            }
        };
        let result = match request {
            Request::OnBehalf(it) if from == SERVER => {
                let OnBehalf { user, vhost, request } = *it;
                if !self.vhosts.contains_key(&vhost) {
                    Err(Refusal::NoSuchVhost { vhost })
                } else {
                    self.acting = Some((user, vhost));
                    self.request(from, channel, ticket, request, now, out);
                    self.acting = None;
                    return;
                }
            }
            Request::OnBehalf(_) => {
                Err(Refusal::NotAdministrator("only the server acts for others".into()))
            }
            Request::Post(message) => self.post(from, message, now, out),
            Request::Browse(browse) => {
                let asker = Asker { connection: from, channel, ticket, no_ack: false };
                match self.browse(from, asker, browse, now, out) {
                    Ok(()) => return,
                    Err(refusal) => Err(refusal),
                }
            }
            Request::Rewind(rewind) => {
                let asker = Asker { connection: from, channel, ticket, no_ack: false };
                match self.rewind(from, asker, &rewind, now, out) {
                    Ok(None) => return self.keep(now, out),
                    Ok(Some(reply)) => Ok(reply),
                    Err(refusal) => Err(refusal),
                }
            }
            Request::Disconnect { connection, reason } => {
                self.disconnect(from, connection, reason, out)
            }
            Request::DeclareExchange(declare) => self.declare_exchange(from, &declare, out),
            Request::DeleteExchange { name, if_unused } => {
                self.delete_exchange(from, &name, if_unused, now, out)
            }
            Request::DeclareMailbox(declare) => {
                self.declare_mailbox(from, &declare, false, now, out)
            }
            Request::DeleteMailbox { name, if_unused, if_empty } => {
                self.delete_mailbox(from, &name, if_unused, if_empty, now, out)
            }
            Request::PurgeMailbox { name } => self.purge_mailbox(from, &name, now, out),
            Request::Bind(bind) => self.bind(from, bind, now, out),
            Request::Unbind(bind) => self.unbind(from, bind, now, out),
            Request::Consume(consume) => self.consume(from, channel, consume, now, out),
            Request::ConsumeReplies { consumer, address } => {
                self.consume_replies(from, channel, consumer, address)
            }
            Request::Cancel(consumer) => self.cancel(from, channel, consumer, now, out),
            Request::Get { mailbox, no_ack } => {
                let asker = Asker { connection: from, channel, ticket, no_ack };
                match self.get(from, asker, &mailbox, now, out) {
                    Ok(()) => return,
                    Err(refusal) => Err(refusal),
                }
            }
            Request::Qos { limit, scope } => {
                self.qos(from, channel, limit, scope);
                Ok(Reply::Done)
            }
            Request::Retime(retime) => self.retime(from, &retime, now, out),
            Request::SeekCursor(seek) => self.seek_cursor(from, &seek, now, out),
            Request::DeleteCursor { mailbox, cursor } => {
                self.delete_cursor(from, &mailbox, &cursor, out)
            }
            Request::Recover => {
                self.return_leases(from, &[channel], Outcome::Released, now, out);
                Ok(Reply::Done)
            }
            Request::Commit(commands) => self.commit(from, commands, now, out),
            Request::Credential(user) => {
                let credential = self.access.credential(&user).cloned().map(Box::new);
                Ok(Reply::Credential(credential))
            }
            Request::Administrator(vhost) => {
                let user = self.access.administrator(&vhost);
                let user = user.map(|it| Box::new((it.name.clone(), it.credential.clone())));
                Ok(Reply::Administrator(user))
            }
            Request::OpenChannel => self.open_channel(from, channel),
            Request::CheckAccess => self.check_access(from, now, out),
            Request::Define(definition) => self.define(from, definition, now, out),
            Request::Undefine(key) => self.undefine(from, &key, now, out),
            Request::Drain { leave } => self.drain(from, leave, now, out),
            Request::ForgetPeer { host, fate } => self.forget_peer(from, &host, &fate, now, out),
            Request::MoveMailbox { name, to } => {
                match self.move_mailbox(from, channel, ticket, &name, &to, out) {
                    Ok(None) => return,
                    Ok(Some(reply)) => Ok(reply),
                    Err(refusal) => Err(refusal),
                }
            }
            Request::TakeOver(wanted) => self.take_over(from, *wanted, now, out),
            Request::SetQuota { holder, quota, most } => {
                self.set_quota(from, &holder, quota, most, now, out)
            }
            Request::Inspect(inspect) => self.inspect(from, &inspect),
        };
        if result.is_err() {
            self.mark_failed(from, channel);
        }
        let event = Event::Reply { channel, ticket, result };
        out.push(Effect::NotifyDurable(from, event));
    }

    /// Time passed.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Effect>) {
        let start = out.len();
        while let Some(&(due, id)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { continue };
            mailbox.timer = None;
            if mailbox.is_forgotten(now) {
                self.delete_mailbox_now(id, now, out);
            } else {
                if mailbox.leases_due.is_some_and(|due| due <= now) {
                    self.take_back(id, now, out);
                }
                self.dirty.push(id);
            }
        }
        self.finish(now, out);
        if self.tracing {
            self.trace_delivered(start, now, out);
        }
        self.readdress(start, now, out);
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The server takes all writes since the last seal as one batch.
    pub fn seal(&mut self) -> Epoch {
        let sealed = self.epoch;
        self.epoch.0 += 1;
        sealed
    }

    /// The batch and all before it are durable.
    pub fn durable(&mut self, epoch: Epoch, now: Time, out: &mut Vec<Effect>) {
        let start = out.len();
        self.durable = self.durable.max(epoch);
        self.spilling.durable(epoch);
        self.dirty.extend(std::mem::take(&mut self.awaiting));
        for id in std::mem::take(&mut self.surplus) {
            let mut turn = carry!(self, now, out);
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { continue };
            mailbox.cool(&mut turn);
            if mailbox.has_surplus(&self.settings) {
                self.surplus.insert(id);
            }
            if mailbox.has_searches() && !mailbox.stuck {
                self.dirty.push(id);
            }
        }
        self.finish(now, out);
        if self.tracing {
            self.trace_delivered(start, now, out);
        }
        self.readdress(start, now, out);
    }

    /// The broker stops in good order: what is exact now is written down.
    pub fn close(&mut self, now: Time, out: &mut Vec<Effect>) {
        let connections: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in connections {
            self.close_connection(id, now, out);
        }
        self.finish(now, out);
        for mailbox in self.mailboxes.values_mut() {
            mailbox.settle_mark(out);
            mailbox.settle_cursors(out);
        }
    }

    /// Ends a turn: messages go to consumers, dead letters to their exchanges, deadlines into the timers.
    fn finish(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.peers.knows_any() {
            self.settle_homes(now, out);
        }
        while !self.dirty.is_empty() || !self.burials.is_empty() || !self.keepings.is_empty() {
            let mut at = 0;
            while let Some(&id) = self.dirty.get(at) {
                at += 1;
                // Only what waits for another host is sent on, and what has another home now.
                if self.peers.knows_any()
                    && self.mailboxes.get(&id).is_some_and(|it| it.onward.is_some())
                {
                    self.send_on(id, now, out);
                }
                let mut turn = carry!(self, now, out);
                let Some(mailbox) = self.mailboxes.get_mut(&id) else { continue };
                mailbox.dispatch(&mut turn);
                if mailbox.has_surplus(&self.settings) {
                    self.surplus.insert(id);
                }
                let next = mailbox.next_deadline(now).map(|due| due.max(Time(now.0 + 1)));
                if next != mailbox.timer {
                    if let Some(old) = mailbox.timer {
                        self.timers.remove(&(old, id));
                    }
                    mailbox.timer = next;
                    self.timers.extend(next.map(|due| (due, id)));
                }
            }
            self.dirty.clear();
            if !self.burials.is_empty() {
                self.bury(now, out);
            }
            if !self.keepings.is_empty() {
                self.keep(now, out);
            }
        }
        if self.memory > self.spilling.above {
            self.spill(now, out);
        }
        if self.peers.on() {
            self.advertise(out);
        }
    }

    /// The connection's user and virtual host.
    fn whose(&self, from: ConnectionId) -> Result<(Name, Name), Refusal> {
        if let Some(acting) = &self.acting {
            return Ok(acting.clone());
        }
        let connection = self.connections.get(&from);
        match connection.and_then(|connection| connection.open.as_ref()) {
            Some(open) => Ok((open.user.clone(), open.vhost.clone())),
            None => Err(Refusal::NotAllowed("the connection has not opened a virtual host".into())),
        }
    }

    fn failed(&self, from: ConnectionId, channel: ChannelId) -> bool {
        let connection = self.connections.get(&from);
        let channel = connection.and_then(|connection| connection.channels.get(&channel));
        channel.is_some_and(|channel| channel.failed)
    }

    fn channel_mut(&mut self, from: ConnectionId, channel: ChannelId) -> &mut Channel {
        let channels = &mut self.connections.entry(from).or_default().channels;
        channels.entry(channel).or_insert_with(|| {
            self.totals.channels_opened += 1;
            Channel::default()
        })
    }

    fn vhost_mut(&mut self, name: &Name) -> Result<&mut Vhost, Refusal> {
        let missing = || Refusal::NoSuchVhost { vhost: name.clone() };
        self.vhosts.get_mut(name).ok_or_else(missing)
    }

    /// The mailbox of that name, where this host is its home.
    fn find(&self, vhost: &Name, name: &str) -> Option<&Mailbox> {
        self.find_any(vhost, name).filter(|it| !it.gave_way())
    }

    /// Also one that has another home now, and only passes on.
    fn find_any(&self, vhost: &Name, name: &str) -> Option<&Mailbox> {
        self.mailboxes.get(self.vhosts.get(vhost)?.mailboxes.get(name)?)
    }

    fn find_mut(&mut self, vhost: &Name, name: &Name) -> Result<&mut Mailbox, Refusal> {
        let id = self.vhosts.get(vhost).and_then(|it| it.mailboxes.get(name));
        match id.copied() {
            Some(id) if self.mailboxes.get(&id).is_some_and(|it| !it.gave_way()) => {
                Ok(self.mailboxes.get_mut(&id).expect("it was found a line before"))
            }
            _ => Err(self.no_mailbox(vhost, name)),
        }
    }

    /// Why there is no such mailbox here.
    fn no_mailbox(&self, vhost: &Name, name: &Name) -> Refusal {
        let (name, vhost) = (name.clone(), vhost.clone());
        match self.home_of(&vhost, &name) {
            Some(host) => Refusal::Elsewhere { host: host.clone(), name, vhost },
            None => Refusal::NoSuchMailbox { name, vhost },
        }
    }
}

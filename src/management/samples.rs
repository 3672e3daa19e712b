//! Counters, looked at every few seconds, and the rates between two looks.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value, json};

use crate::broker::inspect::{ChannelView, ExchangeView, MailboxSample, Overview};
use crate::broker::{
    ChannelId, ConnectionId, Counts, Inflow, MailboxId, Name, Outflow, Passage, Time,
};

/// Points of the overview's graphs.
const POINTS_MAX: usize = 120;

/// What each thing counted when it was last looked at, and its rates then.
#[derive(Debug, Default)]
pub struct Samples {
    round: u64,
    taken: Time,
    overview: Meter<OVERVIEW>,
    points: VecDeque<(Time, [u64; OVERVIEW])>,
    mailboxes: BTreeMap<MailboxId, Meter<MAILBOX>>,
    exchanges: BTreeMap<(Name, Name), Meter<2>>,
    channels: BTreeMap<(ConnectionId, ChannelId), Meter<CHANNEL>>,
    connections: BTreeMap<ConnectionId, Meter<2>>,
}

/// Counters of one thing.
#[derive(Clone, Copy, Debug)]
struct Meter<const N: usize> {
    round: u64,
    at: Time,
    last: [u64; N],
    rates: [f64; N],
}

impl<const N: usize> Default for Meter<N> {
    fn default() -> Self {
        Self { round: 0, at: Time::ZERO, last: [0; N], rates: [0.0; N] }
    }
}

impl<const N: usize> Meter<N> {
    fn take(&mut self, now: Time, counters: [u64; N], round: u64) {
        let passed = now.since_ms(self.at);
        if self.at > Time::ZERO && passed > 0 {
            for (at, rate) in self.rates.iter_mut().enumerate() {
                let change = counters[at] as f64 - self.last[at] as f64;
                *rate = change * 1000.0 / passed as f64;
            }
        }
        (self.round, self.at, self.last) = (round, now, counters);
    }
}

const FLOW: usize = 13;
/// The names in `message_stats`, in the order of the counters here.
const STATS: [&str; FLOW] = [
    "publish",
    "confirm",
    "return_unroutable",
    "drop_unroutable",
    "deliver",
    "deliver_no_ack",
    "get",
    "get_no_ack",
    "get_empty",
    "redeliver",
    "ack",
    "deliver_get",
    "publish_routed",
];

const OVERVIEW: usize = FLOW + 9;
/// Of the overview, behind the flow: gauges first.
const READY: usize = FLOW;
const UNACKED: usize = FLOW + 1;
const CHURN: [&str; 7] = [
    "connection_created",
    "connection_closed",
    "channel_created",
    "channel_closed",
    "queue_declared",
    "queue_created",
    "queue_deleted",
];

const MAILBOX: usize = 11;
const MAILBOX_STATS: [&str; 9] = [
    "publish",
    "deliver",
    "deliver_no_ack",
    "get",
    "get_no_ack",
    "get_empty",
    "redeliver",
    "ack",
    "deliver_get",
];

const CHANNEL: usize = FLOW;

fn flow(inflow: &Inflow, outflow: &Outflow) -> [u64; FLOW] {
    [
        inflow.published,
        inflow.confirmed,
        inflow.returned,
        inflow.unroutable,
        outflow.delivered,
        outflow.delivered_settled,
        outflow.got,
        outflow.got_settled,
        outflow.got_nothing,
        outflow.redelivered,
        outflow.acknowledged,
        outflow.delivered + outflow.delivered_settled + outflow.got + outflow.got_settled,
        inflow.routed,
    ]
}

fn whole(overview: &Overview) -> [u64; OVERVIEW] {
    let mut counters = [0; OVERVIEW];
    for protocol in &overview.flows {
        for (at, outflow) in protocol.outflow.iter().enumerate() {
            // A protocol has one inflow, which must count once.
            let inflow = if at == 0 { protocol.inflow } else { Inflow::default() };
            for (sum, count) in counters.iter_mut().zip(flow(&inflow, outflow)) {
                *sum += count;
            }
        }
    }
    let totals = &overview.totals;
    counters[FLOW..].copy_from_slice(&[
        overview.ready,
        overview.unsettled,
        totals.connections_opened,
        totals.connections_closed,
        totals.channels_opened,
        totals.channels_closed,
        totals.mailboxes_declared,
        totals.mailboxes_created,
        totals.mailboxes_deleted,
    ]);
    counters
}

fn of_mailbox(counts: &Counts, ready: u64, unsettled: u64) -> [u64; MAILBOX] {
    let given = counts.delivered - counts.delivered_settled - counts.got - counts.got_settled;
    [
        counts.published,
        given,
        counts.delivered_settled,
        counts.got,
        counts.got_settled,
        counts.got_nothing,
        counts.redelivered,
        counts.acknowledged,
        counts.delivered,
        ready,
        unsettled,
    ]
}

impl Samples {
    /// A new look at everything begins. What is not seen in it is forgotten at its end.
    pub fn begin(&mut self, now: Time) {
        self.round += 1;
        self.taken = now;
    }

    pub fn take_overview(&mut self, overview: &Overview) {
        let counters = whole(overview);
        self.overview.take(self.taken, counters, self.round);
        if self.points.len() == POINTS_MAX {
            self.points.pop_front();
        }
        self.points.push_back((self.taken, counters));
    }

    pub fn take_mailboxes(&mut self, samples: &[MailboxSample]) {
        for it in samples {
            let counters = of_mailbox(&it.counts, it.ready, it.unsettled);
            self.mailboxes.entry(it.id).or_default().take(self.taken, counters, self.round);
        }
    }

    pub fn take_exchanges(&mut self, views: &[ExchangeView]) {
        for it in views {
            let name = (it.definition.vhost.clone(), it.definition.name.clone());
            let counters = [it.passage.inwards, it.passage.outwards];
            self.exchanges.entry(name).or_default().take(self.taken, counters, self.round);
        }
    }

    pub fn take_channels(&mut self, views: &[ChannelView]) {
        for it in views {
            let counters = flow(&it.inflow, &it.outflow);
            let meter = self.channels.entry((it.connection, it.channel)).or_default();
            meter.take(self.taken, counters, self.round);
        }
    }

    pub fn take_connection(&mut self, id: ConnectionId, received: u64, sent: u64) {
        let meter = self.connections.entry(id).or_default();
        meter.take(self.taken, [received, sent], self.round);
    }

    pub fn end(&mut self) {
        let round = self.round;
        self.mailboxes.retain(|_, meter| meter.round == round);
        self.exchanges.retain(|_, meter| meter.round == round);
        self.channels.retain(|_, meter| meter.round == round);
        self.connections.retain(|_, meter| meter.round == round);
    }

    /// `message_stats` of the whole, with the points of its graphs where they are wanted.
    pub fn overview_stats(&self, overview: &Overview, with_points: bool) -> Value {
        let counters = whole(overview);
        let mut stats = stats(&STATS, &counters, &self.overview.rates);
        if with_points {
            self.add_points(&mut stats, &STATS, 0);
        }
        Value::Object(stats)
    }

    pub fn queue_totals(&self, overview: &Overview, with_points: bool) -> Value {
        let counters = whole(overview);
        let rates = self.overview.rates;
        let names = ["messages_ready", "messages_unacknowledged"];
        let mut totals = stats(&names, &counters[READY..], &rates[READY..]);
        if with_points {
            self.add_points(&mut totals, &names, READY);
        }
        totals.insert("messages".into(), json!(overview.ready + overview.unsettled));
        let rate = rates[READY] + rates[UNACKED];
        totals.insert("messages_details".into(), json!({"rate": rate}));
        Value::Object(totals)
    }

    pub fn churn_rates(&self, overview: &Overview) -> Value {
        let counters = whole(overview);
        Value::Object(stats(&CHURN, &counters[FLOW + 2..], &self.overview.rates[FLOW + 2..]))
    }

    fn add_points(&self, stats: &mut Map<String, Value>, names: &[&str], offset: usize) {
        for (at, name) in names.iter().enumerate() {
            let Some(Value::Object(details)) = stats.get_mut(&format!("{name}_details")) else {
                continue;
            };
            // The newest first, as RabbitMQ has it.
            let points = self.points.iter().rev();
            let samples: Vec<Value> = points
                .map(|(time, counters)| json!({"timestamp": time.0, "sample": counters[offset + at]}))
                .collect();
            details.insert("samples".into(), Value::Array(samples));
        }
    }

    /// Of a mailbox: `message_stats`, and the rates of ready, unsettled and both.
    pub fn mailbox_stats(&self, id: MailboxId, counts: &Counts) -> (Value, [f64; 3]) {
        let rates = self.mailboxes.get(&id).map_or([0.0; MAILBOX], |meter| meter.rates);
        let counters = of_mailbox(counts, 0, 0);
        let (ready, unsettled) = (rates[MAILBOX - 2], rates[MAILBOX - 1]);
        let stats = Value::Object(stats(&MAILBOX_STATS, &counters, &rates));
        (stats, [ready, unsettled, ready + unsettled])
    }

    pub fn exchange_stats(&self, vhost: &Name, name: &Name, passage: Passage) -> Value {
        let found = self.exchanges.get(&(vhost.clone(), name.clone()));
        let rates = found.map_or([0.0; 2], |meter| meter.rates);
        let counters = [passage.inwards, passage.outwards];
        Value::Object(stats(&["publish_in", "publish_out"], &counters, &rates))
    }

    pub fn channel_stats(&self, view: &ChannelView) -> Value {
        let found = self.channels.get(&(view.connection, view.channel));
        let rates = found.map_or([0.0; CHANNEL], |meter| meter.rates);
        Value::Object(stats(&STATS[..FLOW - 1], &flow(&view.inflow, &view.outflow), &rates))
    }

    /// Bytes that a connection receives and sends each second.
    pub fn connection_rates(&self, id: ConnectionId) -> [f64; 2] {
        self.connections.get(&id).map_or([0.0; 2], |meter| meter.rates)
    }
}

fn stats(names: &[&str], counters: &[u64], rates: &[f64]) -> Map<String, Value> {
    let mut object = Map::new();
    for (at, name) in names.iter().enumerate().filter(|(_, name)| **name != "publish_routed") {
        object.insert((*name).into(), counters[at].into());
        object.insert(format!("{name}_details"), json!({"rate": rates[at]}));
    }
    object
}

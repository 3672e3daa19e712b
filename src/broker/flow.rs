//! What passed through since the start: plain counters, from which whoever takes samples makes rates.

use super::command::{ChannelId, ConnectionId};
use super::name::Name;
use super::{Broker, MailboxKind};

/// What publishers sent: on one channel, or over all connections of a protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inflow {
    pub published: u64,
    /// Those that came to at least one mailbox.
    pub routed: u64,
    /// Answered with a confirm, whatever it says.
    pub confirmed: u64,
    pub returned: u64,
    /// No mailbox took them, and nobody was told.
    pub unroutable: u64,
}

/// What consumers got: on one channel, or over all connections of a protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outflow {
    /// To be settled by the consumer.
    pub delivered: u64,
    /// Settled when it was handed over.
    pub delivered_settled: u64,
    pub got: u64,
    pub got_settled: u64,
    pub got_nothing: u64,
    /// Among all of these.
    pub redelivered: u64,
    pub acknowledged: u64,
}

/// What came to an exchange from publishers, and the copies that went to mailboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    pub inwards: u64,
    pub outwards: u64,
}

/// All connections of one protocol, also those that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtocolFlow {
    pub protocol: &'static str,
    pub inflow: Inflow,
    /// By `MailboxKind::index`.
    pub outflow: [Outflow; 3],
}

/// How large published bodies are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Each counts what is larger than the bound before it; the last one has no bound.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    pub sum: u64,
}

/// How long messages of queues were ready before somebody got them for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// As those of `Sizes`.
    pub counts: [u64; Self::BOUNDS_MS.len() + 1],
    pub sum_ms: u64,
}

/// Messages that left a mailbox for a dead-letter exchange, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deaths {
    pub rejected: u64,
    pub expired: u64,
    pub length: u64,
    pub delivery_limit: u64,
    /// Another host takes them never.
    pub refused: u64,
}

impl Inflow {
    pub(super) fn count(&mut self, routed: bool, confirm: bool) {
        self.published += 1;
        self.routed += u64::from(routed);
        self.confirmed += u64::from(confirm);
    }

    pub(super) fn count_unroutable(&mut self, count: u64, mandatory: bool) {
        *if mandatory { &mut self.returned } else { &mut self.unroutable } += count;
    }
}

impl Outflow {
    pub(super) fn count_delivery(&mut self, settled: bool, redelivered: bool) {
        self.delivered += u64::from(!settled);
        self.delivered_settled += u64::from(settled);
        self.redelivered += u64::from(redelivered);
    }

    /// The answer to somebody who asked for one message: `None` where there was none, otherwise whether it was
    /// delivered before.
    pub(super) fn count_get(&mut self, got: Option<bool>, settled: bool) {
        match got {
            None => self.got_nothing += 1,
            Some(redelivered) => {
                self.got += u64::from(!settled);
                self.got_settled += u64::from(settled);
                self.redelivered += u64::from(redelivered);
            }
        }
    }
}

impl Sizes {
    /// In bytes, as RabbitMQ's metrics have them.
    pub const BOUNDS: [u64; 8] =
        [100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000];

    pub(super) fn count(&mut self, size: u64) {
        self.counts[place(&Self::BOUNDS, size)] += 1;
        self.sum += size;
    }
}

impl Waits {
    pub const BOUNDS_MS: [u64; 12] =
        [1, 5, 10, 50, 100, 500, 1000, 5000, 10_000, 60_000, 600_000, 3_600_000];

    pub(super) fn count(&mut self, ms: u64) {
        self.counts[place(&Self::BOUNDS_MS, ms)] += 1;
        self.sum_ms += ms;
    }
}

fn place(bounds: &[u64], value: u64) -> usize {
    bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len())
}

impl MailboxKind {
    /// Place in what is counted for each kind. One that keeps keys is counted as the stream it is.
    pub fn index(self) -> usize {
        if self == Self::Kv { Self::Stream as usize } else { self as usize }
    }
}

impl Broker {
    /// Where a protocol is counted. There are as many as the program has sessions.
    pub(super) fn flow_of(&mut self, protocol: &'static str) -> usize {
        match self.flows.iter().position(|flow| flow.protocol == protocol) {
            Some(at) => at,
            None => {
                self.flows.push(ProtocolFlow { protocol, ..ProtocolFlow::default() });
                self.flows.len() - 1
            }
        }
    }

    pub(super) fn count_inflow(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        count: impl Fn(&mut Inflow),
    ) {
        let flow = self.connections.get(&from).map_or(0, |connection| connection.flow);
        count(&mut self.flows[flow].inflow);
        count(&mut self.channel_mut(from, channel).inflow);
    }

    /// So many more messages went the way that the channel remembers.
    pub(super) fn count_run(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        more: u64,
        confirm: bool,
    ) {
        let Some(connection) = self.connections.get_mut(&from) else { return };
        let Some(channel) = connection.channels.get_mut(&channel) else { return };
        let Some(route) = &mut channel.route else { return };
        route.passage.inwards += more;
        route.passage.outwards += more * route.targets.len() as u64;
        let routed = !route.targets.is_empty();
        for inflow in [&mut channel.inflow, &mut self.flows[connection.flow].inflow] {
            inflow.published += more;
            inflow.routed += more * u64::from(routed);
            inflow.confirmed += more * u64::from(confirm);
        }
    }

    /// What channels counted for an exchange since they last looked it up.
    pub(super) fn gather_passages(&mut self) {
        for connection in self.connections.values_mut() {
            let Some(open) = &connection.open else { continue };
            let Some(vhost) = self.vhosts.get_mut(&open.vhost) else { continue };
            for channel in connection.channels.values_mut() {
                if let Some((exchange, passage)) = channel.take_passage() {
                    vhost.exchanges.record(&exchange, passage);
                }
            }
        }
    }

    /// The same of one channel.
    pub(super) fn gather_passage(&mut self, from: ConnectionId, channel: ChannelId) {
        let Some(connection) = self.connections.get_mut(&from) else { return };
        let Some(open) = &connection.open else { return };
        let taken = connection.channels.get_mut(&channel).and_then(|it| it.take_passage());
        if let Some((exchange, passage)) = taken
            && let Some(vhost) = self.vhosts.get_mut(&open.vhost)
        {
            vhost.exchanges.record(&exchange, passage);
        }
    }

    pub(super) fn record_passage(&mut self, vhost: &Name, exchange: &Name, passage: Passage) {
        if let Some(vhost) = self.vhosts.get_mut(vhost) {
            vhost.exchanges.record(exchange, passage);
        }
    }
}

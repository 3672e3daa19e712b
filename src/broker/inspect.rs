//! Read-only snapshots for people and tools: a bounded slice at a time, in order of name or number.

mod defined;
mod overview;

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

pub use self::defined::{BindingsOf, ExchangeView};
pub use self::overview::{MailboxSample, Overview, Sums};
use super::command::{ChannelId, ConnectionId, ConsumerId, MailboxId, Seq};
use super::definition::{BindingDefinition, Definition, DefinitionKind, PolicyDefinition};
use super::event::Reply;
use super::flow::{Inflow, Outflow};
use super::limits::MailboxKind;
use super::mailbox::Mailbox;
use super::message::Message;
use super::name::{Name, Time};
use super::peer::PeerView;
use super::quota::Limited;
use super::refusal::{Action, Kind, Refusal};
pub use super::stream::{CursorView, KeyView};
use super::value::Table;
use super::{Broker, Counts, SERVER};

/// At most so many in one answer.
pub const SLICE_MAX: usize = 500;

#[derive(Clone, Debug)]
pub enum Inspect {
    /// Mailboxes of a virtual host in order of name, after a name, at most so many.
    Mailboxes { vhost: Name, after: Option<Name>, count: usize },
    /// One mailbox, with what costs more to find out.
    Mailbox { vhost: Name, name: Name },
    /// Consumers of one mailbox.
    Consumers { vhost: Name, mailbox: Name },
    /// Consumers of the mailboxes after a name, of whole mailboxes, until there are so many.
    AllConsumers { vhost: Name, after: Option<Name>, count: usize },
    /// Keys of a key-value mailbox that have a value, in order, after a key, at most so many.
    Keys { vhost: Name, mailbox: Name, after: Option<Bytes>, count: usize },
    /// Cursors and groups of a stream in order of name, after a name, at most so many.
    Cursors { vhost: Name, mailbox: Name, after: Option<Name>, count: usize },
    /// Connections in order of number, after a number, at most so many.
    Connections { after: Option<ConnectionId>, count: usize },
    /// Policies of a virtual host: those of users in order of name, then those of operators; after one, at most so many.
    Policies { vhost: Name, after: Option<(bool, Name)>, count: usize },
    /// Messages of a mailbox that wait for their time, the next first; after one, at most so many.
    Delayed { vhost: Name, mailbox: Name, after: Option<(Time, Seq)>, count: usize },
    /// Limits of users and virtual hosts that are set, after so many, at most so many.
    Quotas { after: usize, count: usize },
    /// Channels in order of connection and number, after one, at most so many.
    Channels { after: Option<(ConnectionId, ChannelId)>, count: usize },
    /// Exchanges of a virtual host in order of name, after a name, at most so many.
    Exchanges { vhost: Name, after: Option<Name>, count: usize },
    /// One exchange.
    Exchange { vhost: Name, name: Name },
    /// Bindings in order of source, destination and key; so many are left out before the first.
    Bindings { vhost: Name, of: BindingsOf, skip: usize, count: usize },
    /// Definitions of one kind, of one virtual host or of all; so many are left out before the first.
    Definitions { kind: DefinitionKind, vhost: Option<Name>, skip: usize, count: usize },
    /// Other hosts in order of name, after a name, at most so many.
    Peers { after: Option<Name>, count: usize },
    /// Counters of mailboxes in order of number, after a number.
    Samples { after: Option<MailboxId>, count: usize },
    /// How far the host is drained.
    Drain,
    /// The whole broker, without what mailboxes sum up to.
    Overview,
    /// Sums over mailboxes in order of number, after a number, at most so many.
    Sums { after: Option<MailboxId>, count: usize },
}

#[derive(Clone, Debug)]
pub enum Inspection {
    Mailboxes(Vec<MailboxView>),
    Consumers(Vec<ConsumerView>),
    Keys(Vec<KeyView>),
    Cursors(Vec<CursorView>),
    Connections(Vec<ConnectionView>),
    Policies(Vec<PolicyDefinition>),
    Delayed(Vec<DelayedView>),
    Quotas(Vec<Limited>),
    Channels(Vec<ChannelView>),
    Exchanges(Vec<ExchangeView>),
    Bindings(Vec<BindingDefinition>),
    Definitions(Vec<Definition>),
    Peers(Vec<PeerView>),
    Samples(Vec<MailboxSample>),
    Drain(super::DrainView),
    Overview(Box<Overview>),
    Sums(Sums),
}

#[derive(Clone, Debug)]
pub struct MailboxView {
    pub id: MailboxId,
    pub vhost: Name,
    pub name: Name,
    pub kind: &'static str,
    pub ready: u64,
    /// Sum of the ready bodies.
    pub ready_bytes: u64,
    pub unsettled: u64,
    /// Waiting for their time.
    pub delayed: u64,
    /// Sum of their bodies.
    pub unsettled_bytes: u64,
    pub consumers: u32,
    pub durable: bool,
    pub auto_delete: bool,
    pub exclusive: bool,
    /// Whose it is, where it is exclusive.
    pub owner: Option<ConnectionId>,
    /// It holds what an exchange delays, or what a queue settled and keeps.
    pub internal: bool,
    /// No consumer could take anything when last asked.
    pub consumers_busy: bool,
    pub policy: Option<Name>,
    pub operator_policy: Option<Name>,
    pub arguments: Table,
    /// When the oldest ready message came.
    pub oldest: Option<Time>,
    pub counts: Counts,
    /// What policies say of it, the operator's last. Only where one mailbox was asked for.
    pub policies: Vec<Table>,
}

#[derive(Clone, Debug)]
pub struct DelayedView {
    pub due: Time,
    pub seq: Seq,
    /// `None` where only the store holds it.
    pub message: Option<Arc<Message>>,
}

#[derive(Clone, Debug)]
pub struct ConsumerView {
    pub mailbox: Name,
    pub tag: Name,
    pub connection: ConnectionId,
    pub channel: ChannelId,
    pub no_ack: bool,
    pub exclusive: bool,
    pub priority: i32,
    pub prefetch: u32,
    pub unsettled: u32,
    /// False for one that waits for its turn as the single active one.
    pub active: bool,
    pub arguments: Table,
}

#[derive(Clone, Debug)]
pub struct ConnectionView {
    pub id: ConnectionId,
    pub user: Name,
    pub vhost: Name,
    pub protocol: &'static str,
    pub mechanism: &'static str,
    pub peer: String,
    pub local: String,
    pub client_name: Option<String>,
    pub client_properties: Table,
    pub channels: u32,
    pub consumers: u32,
    pub unsettled: u64,
    /// It publishes, and publishers are stopped.
    pub blocked: bool,
}

#[derive(Clone, Debug)]
pub struct ChannelView {
    pub connection: ConnectionId,
    pub channel: ChannelId,
    pub user: Name,
    pub vhost: Name,
    pub peer: String,
    pub local: String,
    /// Unsettled deliveries of all its consumers together, 0 for no limit.
    pub limit: u32,
    /// The highest limit among its first consumers.
    pub prefetch: u32,
    pub unsettled: u32,
    pub consumers: u32,
    pub inflow: Inflow,
    pub outflow: Outflow,
}

impl Broker {
    pub(super) fn inspect(
        &mut self,
        from: ConnectionId,
        inspect: &Inspect,
    ) -> Result<Reply, Refusal> {
        let inspection = match inspect {
            Inspect::Mailboxes { vhost, after, count } => {
                self.check_sight(from, Some(vhost))?;
                Inspection::Mailboxes(self.mailbox_views(vhost, after.as_ref(), *count)?)
            }
            Inspect::Mailbox { vhost, name } => {
                self.check_sight(from, Some(vhost))?;
                Inspection::Mailboxes(vec![self.mailbox_view(vhost, name)?])
            }
            Inspect::Consumers { vhost, mailbox } => {
                self.check_sight(from, Some(vhost))?;
                Inspection::Consumers(self.consumer_views(vhost, mailbox)?)
            }
            Inspect::AllConsumers { vhost, after, count } => {
                self.check_sight(from, Some(vhost))?;
                Inspection::Consumers(self.all_consumer_views(vhost, after.as_ref(), *count)?)
            }
            Inspect::Keys { vhost, mailbox, after, count } => {
                self.check_sight(from, Some(vhost))?;
                Inspection::Keys(self.key_views(from, vhost, mailbox, after.as_ref(), *count)?)
            }
            Inspect::Cursors { vhost, mailbox, after, count } => {
                self.check_sight(from, Some(vhost))?;
                let found = self.cursor_views(from, vhost, mailbox, after.as_ref(), *count)?;
                Inspection::Cursors(found)
            }
            Inspect::Connections { after, count } => {
                self.check_sight(from, None)?;
                Inspection::Connections(self.connection_views(*after, *count))
            }
            Inspect::Delayed { vhost, mailbox, after, count } => {
                self.check_sight(from, Some(vhost))?;
                Inspection::Delayed(self.delayed_views(from, vhost, mailbox, *after, *count)?)
            }
            Inspect::Policies { vhost, after, count } => {
                self.check_sight(from, Some(vhost))?;
                let missing = || Refusal::NoSuchVhost { vhost: vhost.clone() };
                let found = self.vhosts.get(vhost).ok_or_else(missing)?.policies.iter();
                let place = |it: &PolicyDefinition| (it.operator, it.name.clone());
                let rest = found.filter(|it| after.as_ref().is_none_or(|after| place(it) > *after));
                Inspection::Policies(rest.take((*count).min(SLICE_MAX)).cloned().collect())
            }
            Inspect::Quotas { after, count } => {
                self.check_administrator(from)?;
                let rest = self.limited().into_iter().skip(*after);
                Inspection::Quotas(rest.take((*count).min(SLICE_MAX)).collect())
            }
            Inspect::Channels { after, count } => {
                self.check_sight(from, None)?;
                Inspection::Channels(self.channel_views(*after, (*count).min(SLICE_MAX)))
            }
            Inspect::Exchanges { vhost, after, count } => {
                self.check_sight(from, Some(vhost))?;
                if after.is_none() {
                    self.gather_passages();
                }
                let start = after.clone().map_or(Bound::Unbounded, Bound::Excluded);
                let count = (*count).min(SLICE_MAX);
                Inspection::Exchanges(self.exchange_views(vhost, start, count)?)
            }
            Inspect::Exchange { vhost, name } => {
                self.check_sight(from, Some(vhost))?;
                self.gather_passages();
                let mut found = self.exchange_views(vhost, Bound::Included(name.clone()), 1)?;
                found.retain(|view| view.definition.name == *name);
                if found.is_empty() {
                    let (name, vhost) = (name.clone(), vhost.clone());
                    return Err(Refusal::NoSuchExchange { name, vhost });
                }
                Inspection::Exchanges(found)
            }
            Inspect::Bindings { vhost, of, skip, count } => {
                self.check_sight(from, Some(vhost))?;
                let count = (*count).min(SLICE_MAX);
                Inspection::Bindings(self.binding_views(vhost, of, *skip, count)?)
            }
            Inspect::Definitions { kind, vhost, skip, count } => {
                self.check_sight(from, None)?;
                let count = (*count).min(SLICE_MAX);
                Inspection::Definitions(self.definitions(*kind, vhost.as_ref(), *skip, count))
            }
            Inspect::Peers { after, count } => {
                self.check_sight(from, None)?;
                let count = (*count).min(SLICE_MAX);
                Inspection::Peers(self.peer_views(after.as_ref(), count))
            }
            Inspect::Samples { after, count } => {
                self.check_sight(from, None)?;
                Inspection::Samples(self.samples(*after, *count))
            }
            Inspect::Drain => {
                self.check_sight(from, None)?;
                Inspection::Drain(self.drain_view())
            }
            Inspect::Overview => {
                self.check_sight(from, None)?;
                Inspection::Overview(Box::new(self.overview()))
            }
            Inspect::Sums { after, count } => {
                self.check_sight(from, None)?;
                Inspection::Sums(self.sums(*after, (*count).min(SLICE_MAX)))
            }
        };
        Ok(Reply::Inspection(Box::new(inspection)))
    }

    /// Everybody sees the virtual host they are in; the others, and all connections, who monitors or administers.
    fn check_sight(&self, from: ConnectionId, vhost: Option<&Name>) -> Result<(), Refusal> {
        if from == SERVER {
            return Ok(());
        }
        let (user, own) = self.whose(from)?;
        let sees_all =
            self.access.is_administrator(&user) || self.access.has_tag(&user, "monitoring");
        if sees_all || vhost == Some(&own) {
            return Ok(());
        }
        Err(Refusal::NotAdministrator(format!("user '{user}' may look at vhost '{own}' only")))
    }

    fn mailbox_views(
        &self,
        vhost: &Name,
        after: Option<&Name>,
        count: usize,
    ) -> Result<Vec<MailboxView>, Refusal> {
        let mailboxes = self.mailboxes_after(vhost, after)?;
        Ok(mailboxes.map(view).take(count.min(SLICE_MAX)).collect())
    }

    fn mailboxes_after(
        &self,
        vhost: &Name,
        after: Option<&Name>,
    ) -> Result<impl Iterator<Item = &Mailbox>, Refusal> {
        let missing = || Refusal::NoSuchVhost { vhost: vhost.clone() };
        let found = self.vhosts.get(vhost).ok_or_else(missing)?;
        let start = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let mailboxes = found.mailboxes.range((start, Bound::Unbounded));
        let all = mailboxes.filter_map(|(_, id)| self.mailboxes.get(id));
        Ok(all.filter(|it| !it.gave_way()))
    }

    fn mailbox_view(&self, vhost: &Name, name: &Name) -> Result<MailboxView, Refusal> {
        let missing = || self.no_mailbox(vhost, name);
        let mailbox = self.find(vhost, name).ok_or_else(missing)?;
        let found = self.vhosts.get(vhost).ok_or_else(missing)?;
        let found = found.policies.of_mailbox(name, mailbox.declared.kind);
        let policies = found.into_iter().flatten().map(|it| it.definition.clone()).collect();
        Ok(MailboxView { policies, ..view(mailbox) })
    }

    fn consumer_views(&self, vhost: &Name, mailbox: &Name) -> Result<Vec<ConsumerView>, Refusal> {
        let missing = || self.no_mailbox(vhost, mailbox);
        let mailbox = self.find(vhost, mailbox).ok_or_else(missing)?;
        Ok(consumers_of(mailbox).take(SLICE_MAX).collect())
    }

    fn all_consumer_views(
        &self,
        vhost: &Name,
        after: Option<&Name>,
        count: usize,
    ) -> Result<Vec<ConsumerView>, Refusal> {
        let mut views = Vec::new();
        for mailbox in self.mailboxes_after(vhost, after)? {
            views.extend(consumers_of(mailbox).take(SLICE_MAX));
            if views.len() >= count.min(SLICE_MAX) {
                break;
            }
        }
        Ok(views)
    }

    /// They say as much as messages do, so they are for those who may read them.
    fn key_views(
        &self,
        from: ConnectionId,
        vhost: &Name,
        name: &Name,
        after: Option<&Bytes>,
        count: usize,
    ) -> Result<Vec<KeyView>, Refusal> {
        if from != SERVER {
            let (user, _) = self.whose(from)?;
            self.access.check(&user, vhost, Action::Read, Kind::Mailbox, name)?;
        }
        let mailbox = self.find(vhost, name).ok_or_else(|| self.no_mailbox(vhost, name))?;
        if mailbox.limits.kind != MailboxKind::Kv {
            let text = format!("queue '{name}' in vhost '{vhost}' has no keys");
            return Err(Refusal::Precondition(text));
        }
        let keys = mailbox.stream.as_ref().and_then(|it| it.keys_after(after));
        let Some(keys) = keys else {
            let text =
                format!("the keys of queue '{name}' in vhost '{vhost}' are still being read");
            return Err(Refusal::Precondition(text));
        };
        Ok(keys.take(count.min(SLICE_MAX)).collect())
    }

    fn connection_views(&self, after: Option<ConnectionId>, count: usize) -> Vec<ConnectionView> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let connections = self.connections.range((start, Bound::Unbounded));
        let views = connections.filter_map(|(id, connection)| {
            let open = connection.open.as_ref()?;
            Some(ConnectionView {
                id: *id,
                user: open.user.clone(),
                vhost: open.vhost.clone(),
                protocol: open.protocol,
                mechanism: open.mechanism,
                peer: open.peer.clone(),
                local: open.local.clone(),
                client_name: open.client_name.clone(),
                client_properties: open.client_properties.clone(),
                channels: connection.channels.len() as u32,
                consumers: connection.channels.values().map(|it| it.consumers.len() as u32).sum(),
                unsettled: connection.channels.values().map(|it| u64::from(it.unsettled)).sum(),
                blocked: connection.publishes && self.alarm.is_some(),
            })
        });
        views.take(count.min(SLICE_MAX)).collect()
    }

    fn channel_views(
        &self,
        after: Option<(ConnectionId, ChannelId)>,
        count: usize,
    ) -> Vec<ChannelView> {
        let start = after.map_or(Bound::Unbounded, |(id, _)| Bound::Included(id));
        let mut views = Vec::new();
        for (id, connection) in self.connections.range((start, Bound::Unbounded)) {
            let Some(open) = &connection.open else { continue };
            let first = match after {
                Some((last, channel)) if last == *id => Bound::Excluded(channel),
                _ => Bound::Unbounded,
            };
            for (number, channel) in connection.channels.range((first, Bound::Unbounded)) {
                if views.len() == count {
                    return views;
                }
                let consumer_of = |(consumer, mailbox): (&ConsumerId, &MailboxId)| {
                    let mailbox = self.mailboxes.get(mailbox)?;
                    mailbox.consumers.iter().find(|it| it.id == *consumer && it.connection == *id)
                };
                let consumers = channel.consumers.iter().take(4).filter_map(consumer_of);
                views.push(ChannelView {
                    connection: *id,
                    channel: *number,
                    user: open.user.clone(),
                    vhost: open.vhost.clone(),
                    peer: open.peer.clone(),
                    local: open.local.clone(),
                    limit: channel.limit,
                    prefetch: consumers.map(|it| it.prefetch).max().unwrap_or(0),
                    unsettled: channel.unsettled,
                    consumers: channel.consumers.len() as u32,
                    inflow: channel.inflow,
                    outflow: channel.outflow,
                });
            }
        }
        views
    }
}

fn consumers_of(mailbox: &Mailbox) -> impl Iterator<Item = ConsumerView> {
    let single = mailbox.limits.single_active;
    let active: Vec<_> =
        mailbox.consumers.in_turn(single).map(|it| (it.connection, it.id)).collect();
    mailbox.consumers.iter().map(move |consumer| ConsumerView {
        mailbox: mailbox.name.clone(),
        tag: consumer.tag.clone(),
        connection: consumer.connection,
        channel: consumer.channel,
        no_ack: consumer.no_ack,
        exclusive: consumer.exclusive,
        priority: consumer.priority,
        prefetch: consumer.prefetch,
        unsettled: match &mailbox.stream {
            Some(it) => it.unsettled_of(consumer.connection, consumer.id),
            None => consumer.unsettled,
        },
        active: !single || active.contains(&(consumer.connection, consumer.id)),
        arguments: consumer.arguments.clone(),
    })
}

fn view(mailbox: &Mailbox) -> MailboxView {
    MailboxView {
        id: mailbox.id,
        vhost: mailbox.vhost.clone(),
        name: mailbox.name.clone(),
        kind: mailbox.limits.kind.as_str(),
        ready: mailbox.ready,
        ready_bytes: mailbox.ready_bytes,
        unsettled: mailbox.unsettled(),
        delayed: mailbox.delayed.len(),
        unsettled_bytes: mailbox.leases.bytes(),
        consumers: mailbox.consumers.len() as u32,
        durable: mailbox.durable(),
        auto_delete: mailbox.definition.auto_delete,
        exclusive: mailbox.definition.exclusive,
        owner: mailbox.owner,
        internal: mailbox.feeds.is_some() || mailbox.keeps_for.is_some(),
        consumers_busy: mailbox.stuck,
        policy: mailbox.policy.clone(),
        operator_policy: mailbox.operator_policy.clone(),
        arguments: mailbox.definition.arguments.clone(),
        oldest: oldest(mailbox),
        counts: mailbox.counts,
        policies: Vec::new(),
    }
}

/// When the message came that waits longest.
fn oldest(mailbox: &Mailbox) -> Option<Time> {
    match &mailbox.stream {
        Some(stream) => stream.oldest(),
        None => mailbox.lanes.iter().filter_map(super::lane::Lane::oldest).min(),
    }
}

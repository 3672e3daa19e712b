//! Read-only snapshots for people and tools: a bounded slice at a time, in order of name or number.

use std::ops::Bound;
use std::sync::Arc;

use super::browse::MessageViews;
use super::command::{ChannelId, ConnectionId, Seq};
use super::definition::PolicyDefinition;
use super::event::Reply;
use super::mailbox::Mailbox;
use super::message::Message;
use super::name::{Name, Time};
use super::quota::Limited;
use super::refusal::Refusal;
use super::value::Table;
use super::{Broker, Counts, SERVER};

/// At most so many in one answer.
pub const SLICE_MAX: usize = 500;

#[derive(Clone, Debug)]
pub enum Inspect {
    /// Mailboxes of a virtual host in order of name, after a name, at most so many.
    Mailboxes { vhost: Name, after: Option<Name>, count: usize },
    /// Consumers of one mailbox.
    Consumers { vhost: Name, mailbox: Name },
    /// The first messages of a mailbox, at most so many, for who may read it.
    Messages { vhost: Name, mailbox: Name, count: usize },
    /// Connections in order of number, after a number, at most so many.
    Connections { after: Option<ConnectionId>, count: usize },
    /// Policies of a virtual host: those of users in order of name, then those of operators; after one, at most so many.
    Policies { vhost: Name, after: Option<(bool, Name)>, count: usize },
    /// Messages of a mailbox that wait for their time, the next first; after one, at most so many.
    Delayed { vhost: Name, mailbox: Name, after: Option<(Time, Seq)>, count: usize },
    /// Limits of users and virtual hosts that are set, after so many, at most so many.
    Quotas { after: usize, count: usize },
}

#[derive(Clone, Debug)]
pub enum Inspection {
    Mailboxes(Vec<MailboxView>),
    Consumers(Vec<ConsumerView>),
    Messages(MessageViews),
    Connections(Vec<ConnectionView>),
    Policies(Vec<PolicyDefinition>),
    Delayed(Vec<DelayedView>),
    Quotas(Vec<Limited>),
}

#[derive(Clone, Debug)]
pub struct MailboxView {
    pub name: Name,
    pub kind: &'static str,
    pub ready: u64,
    /// Sum of the ready bodies.
    pub ready_bytes: u64,
    pub unsettled: u64,
    /// Waiting for their time.
    pub delayed: u64,
    pub consumers: u32,
    pub durable: bool,
    pub auto_delete: bool,
    pub exclusive: bool,
    pub policy: Option<Name>,
    pub operator_policy: Option<Name>,
    pub arguments: Table,
    /// When the oldest ready message came.
    pub oldest: Option<Time>,
    pub counts: Counts,
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
    pub tag: Name,
    pub connection: ConnectionId,
    pub channel: ChannelId,
    pub no_ack: bool,
    pub exclusive: bool,
    pub priority: i32,
    pub prefetch: u32,
    pub unsettled: u32,
    pub arguments: Table,
}

#[derive(Clone, Debug)]
pub struct ConnectionView {
    pub id: ConnectionId,
    pub user: Name,
    pub vhost: Name,
    pub protocol: &'static str,
    pub peer: String,
    pub client_name: Option<String>,
    pub channels: u32,
    pub consumers: u32,
    pub unsettled: u64,
}

impl Broker {
    pub(super) fn inspect(&self, from: ConnectionId, inspect: &Inspect) -> Result<Reply, Refusal> {
        let inspection = match inspect {
            Inspect::Mailboxes { vhost, after, count } => {
                self.check_sight(from, Some(vhost))?;
                Inspection::Mailboxes(self.mailbox_views(vhost, after.as_ref(), *count)?)
            }
            Inspect::Consumers { vhost, mailbox } => {
                self.check_sight(from, Some(vhost))?;
                Inspection::Consumers(self.consumer_views(vhost, mailbox)?)
            }
            Inspect::Messages { vhost, mailbox, count } => {
                let count = (*count).min(SLICE_MAX);
                Inspection::Messages(self.message_views(from, vhost, mailbox, count)?)
            }
            Inspect::Connections { after, count } => {
                self.check_sight(from, None)?;
                Inspection::Connections(self.connection_views(*after, *count))
            }
            Inspect::Delayed { vhost, mailbox, after, count } => {
                self.check_sight(from, Some(vhost))?;
                Inspection::Delayed(self.delayed_views(vhost, mailbox, *after, *count)?)
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
        let missing = || Refusal::NoSuchVhost { vhost: vhost.clone() };
        let found = self.vhosts.get(vhost).ok_or_else(missing)?;
        let start = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let mailboxes = found.mailboxes.range((start, Bound::Unbounded));
        let views = mailboxes.filter_map(|(_, id)| self.mailboxes.get(id)).map(view);
        Ok(views.take(count.min(SLICE_MAX)).collect())
    }

    fn consumer_views(&self, vhost: &Name, mailbox: &Name) -> Result<Vec<ConsumerView>, Refusal> {
        let missing = || Refusal::NoSuchMailbox { name: mailbox.clone(), vhost: vhost.clone() };
        let mailbox = self.find(vhost, mailbox).ok_or_else(missing)?;
        let views = mailbox.consumers.iter().map(|consumer| ConsumerView {
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
            arguments: consumer.arguments.clone(),
        });
        Ok(views.take(SLICE_MAX).collect())
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
                peer: open.peer.clone(),
                client_name: open.client_name.clone(),
                channels: connection.channels.len() as u32,
                consumers: connection.channels.values().map(|it| it.consumers.len() as u32).sum(),
                unsettled: connection.channels.values().map(|it| u64::from(it.unsettled)).sum(),
            })
        });
        views.take(count.min(SLICE_MAX)).collect()
    }
}

fn view(mailbox: &Mailbox) -> MailboxView {
    MailboxView {
        name: mailbox.name.clone(),
        kind: mailbox.limits.kind.as_str(),
        ready: mailbox.ready,
        ready_bytes: mailbox.ready_bytes,
        unsettled: mailbox.unsettled(),
        delayed: mailbox.delayed.len(),
        consumers: mailbox.consumers.len() as u32,
        durable: mailbox.durable(),
        auto_delete: mailbox.definition.auto_delete,
        exclusive: mailbox.definition.exclusive,
        policy: mailbox.policy.clone(),
        operator_policy: mailbox.operator_policy.clone(),
        arguments: mailbox.definition.arguments.clone(),
        oldest: match &mailbox.stream {
            Some(stream) => stream.oldest(),
            None => mailbox.lanes.iter().filter_map(super::lane::Lane::oldest).min(),
        },
        counts: mailbox.counts,
    }
}

//! Looking at the messages of a mailbox without taking them.

use std::sync::Arc;

use super::command::{ChannelId, ConnectionId, Seq};
use super::event::Rest;
use super::lease::Lease;
use super::message::Message;
use super::name::{Name, Time};
use super::refusal::{Action, Kind, Refusal};
use super::{Broker, SERVER};

/// Bodies and properties in one answer, after the first message.
const BYTES_MAX: usize = 4 << 20;

/// Messages of a mailbox, and how many there are that it does not show.
#[derive(Clone, Debug, Default)]
pub struct MessageViews {
    /// Ready ones in the order in which they will be delivered, then those that consumers hold.
    pub messages: Vec<MessageView>,
    /// Ready in the store only, or beyond the slice.
    pub more_ready: u64,
    pub more_unsettled: u64,
}

#[derive(Clone, Debug)]
pub struct MessageView {
    pub seq: Seq,
    pub message: Arc<Message>,
    pub rest: Rest,
    /// Who has it, if somebody does.
    pub holder: Option<HolderView>,
}

/// Who holds a message that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderView {
    pub connection: ConnectionId,
    pub channel: ChannelId,
    /// The consumer's tag; `None` where the message was asked for singly, or the consumer is gone.
    pub tag: Option<Name>,
    pub since: Time,
}

impl Broker {
    /// Only what is in memory is shown: the first of the mailbox always are, unless they are being fetched.
    pub(super) fn message_views(
        &self,
        from: ConnectionId,
        vhost: &Name,
        name: &Name,
        count: usize,
    ) -> Result<MessageViews, Refusal> {
        if from != SERVER {
            let (user, _) = self.whose(from)?;
            self.access.check(&user, vhost, Action::Read, Kind::Mailbox, name)?;
        }
        let missing = || Refusal::NoSuchMailbox { name: name.clone(), vhost: vhost.clone() };
        let mailbox = self.find(vhost, name).ok_or_else(missing)?;
        let mut views = MessageViews::default();
        let mut bytes = 0;
        let mut full = |message: &Message, shown: usize| {
            bytes += message.size();
            shown >= count || (shown > 0 && bytes > BYTES_MAX)
        };
        let mut ready = 0;
        'lanes: for lane in mailbox.lanes.iter().rev() {
            let mut entries: Vec<_> = lane.hot().collect();
            entries.sort_unstable_by_key(|entry| entry.seq);
            for entry in entries {
                if full(&entry.message, views.messages.len()) {
                    break 'lanes;
                }
                ready += 1;
                views.messages.push(MessageView {
                    seq: entry.seq,
                    message: entry.message.clone(),
                    rest: entry.rest,
                    holder: None,
                });
            }
        }
        let mut unsettled = 0;
        let mut leases: Vec<_> = mailbox.leases.values().collect();
        leases.sort_unstable_by_key(|lease| lease.entry.seq);
        for Lease { entry, connection, channel, consumer, since, .. } in leases {
            if full(&entry.message, views.messages.len()) {
                break;
            }
            unsettled += 1;
            views.messages.push(MessageView {
                seq: entry.seq,
                message: entry.message.clone(),
                rest: entry.rest,
                holder: Some(HolderView {
                    connection: *connection,
                    channel: *channel,
                    tag: consumer
                        .and_then(|id| mailbox.consumers.get(*connection, id))
                        .map(|consumer| consumer.tag.clone()),
                    since: *since,
                }),
            });
        }
        views.more_ready = mailbox.ready.saturating_sub(ready);
        views.more_unsettled = mailbox.unsettled().saturating_sub(unsettled);
        Ok(views)
    }
}

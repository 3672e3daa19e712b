//! Which method does what on a channel.

use pillarbox_amqp::{Method, ReplyCode};

use super::channel::Channel;
use super::consume::ConsumeArguments;
use super::line::Line;
use super::reply::Fault;
use super::value::arguments;
use crate::broker::Outcome;
use crate::sessions::Outbox;

impl Channel {
    /// A method other than those that open and close the channel.
    pub(super) fn method(
        &mut self,
        method: Method,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let ids = method.ids();
        let Some(method) = self.topology(method, ids, line, out)? else {
            return Ok(());
        };
        match method {
            Method::BasicConsume {
                queue,
                consumer_tag,
                no_local: _,
                no_ack,
                exclusive,
                nowait,
                arguments: fields,
            } => {
                let wanted = ConsumeArguments {
                    mailbox: queue,
                    tag: consumer_tag,
                    no_ack,
                    exclusive,
                    nowait,
                    arguments: arguments(fields, ids)?,
                };
                self.consume(wanted, ids, line, out)
            }
            Method::BasicCancel { consumer_tag, nowait } => {
                self.cancel(consumer_tag, nowait, ids, line, out);
                Ok(())
            }
            Method::BasicGet { queue, no_ack } => self.get(&queue, no_ack, ids, line, out),
            Method::BasicAck { delivery_tag, multiple } => {
                self.settle(delivery_tag, multiple, Outcome::Accepted, ids, line, out)
            }
            Method::BasicNack { delivery_tag, multiple, requeue } => {
                self.settle(delivery_tag, multiple, returned(requeue), ids, line, out)
            }
            Method::BasicReject { delivery_tag, requeue } => {
                self.settle(delivery_tag, false, returned(requeue), ids, line, out)
            }
            Method::BasicQos { prefetch_size, prefetch_count, global } => {
                self.qos(prefetch_size, prefetch_count, global, ids, line, out)
            }
            Method::BasicRecover { requeue } => {
                self.recover(requeue, ids, out)?;
                self.say(Method::BasicRecoverOk, out);
                Ok(())
            }
            Method::BasicRecoverAsync { requeue } => self.recover(requeue, ids, out),
            Method::ConfirmSelect { nowait } => self.confirm_select(nowait, ids, out),
            Method::TxSelect => self.tx_select(ids, out),
            Method::TxCommit => self.commit(ids, line, out),
            Method::TxRollback => self.rollback(ids, out),
            Method::ChannelFlow { active: true } => {
                self.say(Method::ChannelFlowOk { active: true }, out);
                Ok(())
            }
            Method::ChannelFlow { active: false } => {
                Err(Fault::new(ReplyCode::NOT_IMPLEMENTED, "active=false", ids))
            }
            Method::AccessRequest { .. } => {
                self.say(Method::AccessRequestOk { ticket: 1 }, out);
                Ok(())
            }
            // Answers that need no reaction.
            Method::BasicCancelOk { .. } | Method::ChannelFlowOk { .. } => Ok(()),
            other => {
                let text = format!("{} is not for a client to send", other.name());
                Err(Fault::new(ReplyCode::COMMAND_INVALID, text, ids))
            }
        }
    }
}

/// Both count as an attempt, as with quorum queues before 4.3: x-delivery-count is what applications look at.
fn returned(requeue: bool) -> Outcome {
    if requeue { Outcome::Modified { delay_ms: None } } else { Outcome::Rejected }
}

//! Deliveries as bytes: neighbours of one subscription share a frame.

use pillarbox_native::{DeliveryBatch, Kind, NewDelivery};

use super::MAIN;
use super::open::Open;
use crate::broker::{ChannelId, Delivery, MailboxId, NEUTRAL, Name};
use crate::sessions::Outbox;

/// The frame of deliveries that is being filled.
#[derive(Default)]
pub(super) struct Outgoing {
    frame: Option<Filling>,
    /// Properties on their way from another protocol's form.
    scratch: Vec<u8>,
}

struct Filling {
    batch: DeliveryBatch,
    channel: ChannelId,
    mailbox: MailboxId,
    name: Name,
    ids: bool,
}

impl Outgoing {
    /// What follows is a frame of its own.
    pub(super) fn end(&mut self) {
        self.frame = None;
    }

    /// Writes one delivery into a frame.
    pub(super) fn add(
        &mut self,
        batch: &mut DeliveryBatch,
        delivery: &Delivery,
        mailbox: &Name,
        ids: bool,
        settled: bool,
        out: &mut Outbox,
    ) {
        let message = &delivery.message;
        let properties = if std::ptr::eq(message.form(), &raw const NEUTRAL) {
            message.property_bytes()
        } else {
            self.scratch.clear();
            (NEUTRAL.encode)(message.properties(), &mut self.scratch);
            &self.scratch
        };
        let plain = message.exchange().is_empty() && message.key() == mailbox.as_bytes();
        let written = NewDelivery {
            seq: delivery.seq.0,
            redelivered: delivery.redelivered,
            settled,
            attempts: delivery.attempts,
            id: ids.then_some(message.id.0),
            address: (!plain).then(|| (message.exchange().as_bytes(), message.key())),
            offset: delivery.offset,
            properties,
            body: message.body(),
        };
        batch.add(&written, &mut out.wire);
    }
}

impl Open {
    pub(super) fn deliver(&mut self, delivery: Delivery, out: &mut Outbox) {
        out.deliveries += 1;
        out.delivery_bytes += delivery.message.size() as u64;
        let channel = delivery.channel;
        if channel == MAIN {
            return self.pulls.delivered(delivery);
        }
        let size_max = self.settings.delivery_frame_size;
        let goes_on = self.outgoing.frame.take_if(|frame| {
            frame.channel == channel
                && frame.mailbox == delivery.mailbox
                && frame.batch.is_last(&out.wire)
                && frame.batch.size(&out.wire) < size_max
        });
        let mut frame = match goes_on {
            Some(frame) => frame,
            None => {
                // One that was unsubscribed a moment ago returns to its mailbox by itself.
                let Some(subscription) = self.subscriptions.get(channel) else { return };
                let (id, mailbox) = (channel.0.into(), delivery.mailbox.0);
                Filling {
                    batch: DeliveryBatch::begin(Kind::Delivered, id, mailbox, 0, &mut out.wire),
                    channel,
                    mailbox: delivery.mailbox,
                    name: subscription.mailbox.clone(),
                    ids: subscription.ids,
                }
            }
        };
        let (ids, settled) = (frame.ids, delivery.settled);
        self.outgoing.add(&mut frame.batch, &delivery, &frame.name, ids, settled, out);
        self.outgoing.frame = Some(frame);
    }
}

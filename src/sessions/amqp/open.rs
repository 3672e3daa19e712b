//! An open connection: which channels there are, and whose frame or event comes.

use bytes::Bytes;
use pillarbox_amqp::{
    FrameKind, Method, RawFrame, ReplyCode, decode_ack, is_publish, method_ids, next_frame,
    reply_text,
};

use super::channel::Channel;
use super::consume;
use super::line::Line;
use super::renewal::Renewal;
use super::reply::{ACK, Fault, Ids, PUBLISH};
use super::whole::Whole;
use crate::broker::{
    Cause, ChannelId, Command, Delivery, Event, Outcome, Refusal, Reply, Ticket, Time,
};
use crate::sessions::Outbox;

#[derive(Debug)]
pub(super) struct Open {
    pub(super) line: Line,
    /// By channel number; grows to the highest that was used.
    slots: Vec<Slot>,
    channels: usize,
    /// Channels that were closed by this side, until the broker says that nothing of them is left:
    /// events before that are of the channel that had the number.
    fences: Vec<(ChannelId, Ticket)>,
    pub(super) renewal: Renewal,
}

/// ```text
/// Free --open--> Open --close, close-ok--> Free
///                Open --fault--> Discarding --close-ok--> Free
/// ```
#[derive(Debug)]
enum Slot {
    Free,
    Open(Box<Channel>),
    /// Everything but close and close-ok is thrown away.
    Discarding,
}

/// Whether the conversation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    /// The client closes the connection.
    Leave,
}

impl Open {
    pub(super) fn new(line: Line) -> Self {
        Self {
            line,
            slots: Vec::new(),
            channels: 0,
            fences: Vec::new(),
            renewal: Renewal::default(),
        }
    }

    /// Takes whole frames. `Err` ends the connection.
    pub(super) fn read(
        &mut self,
        read: &Bytes,
        at: &mut usize,
        now: Time,
        out: &mut Outbox,
    ) -> Result<Flow, Fault> {
        let frame_max = self.line.frame_max;
        while let Ok(Some(frame)) = next_frame(&read[*at..], frame_max) {
            *at += frame.wire_len();
            let done = match (frame.channel, frame.kind) {
                (0, _) => match self.connection_frame(&frame, out)? {
                    Flow::On => continue,
                    Flow::Leave => return Ok(Flow::Leave),
                },
                (_, FrameKind::Heartbeat) => {
                    return Err(Fault::unexpected_frame("heartbeat on a channel", (0, 0)));
                }
                (_, FrameKind::Method) if is_publish(frame.payload) => {
                    let whole = Whole::find(&frame, &read[*at..], frame_max);
                    *at += whole.as_ref().map_or(0, |whole| whole.len);
                    match (self.slots.get_mut(usize::from(frame.channel)), whole) {
                        (Some(Slot::Open(channel)), Some(whole)) if !channel.ended => {
                            channel.publish_whole(&whole, read, now, &mut self.line, out)
                        }
                        (Some(Slot::Open(channel)), None) if !channel.ended => {
                            channel.expect_method().and_then(|()| channel.begin(frame.payload))
                        }
                        (Some(Slot::Open(_) | Slot::Discarding), _) => Ok(()),
                        (Some(Slot::Free) | None, _) => Err(not_open(PUBLISH)),
                    }
                }
                _ => self.channel_frame(&frame, now, out),
            };
            if let Err(fault) = done {
                self.fail(frame.channel, fault, out)?;
            }
        }
        Ok(Flow::On)
    }

    /// The broker has something to say. `Err` ends the connection.
    pub(super) fn notify(&mut self, event: Event, out: &mut Outbox) -> Result<(), Fault> {
        match event {
            Event::Delivered(delivery) => self.delivered(delivery, out),
            Event::DeliveredBatch(batch) => {
                batch.into_iter().for_each(|delivery| self.delivered(delivery, out));
            }
            Event::Confirmed { channel, tag, taken } => {
                if !self.is_fenced(channel)
                    && let Some(Slot::Open(open)) = self.slots.get_mut(usize::from(channel.0))
                {
                    open.confirmed(tag, taken, &mut self.line);
                }
            }
            Event::Returned { channel, message } => {
                if !self.is_fenced(channel)
                    && let Some(Slot::Open(open)) = self.slots.get_mut(usize::from(channel.0))
                {
                    open.returned(&message, &self.line, out);
                }
            }
            Event::Reply { channel, ticket, result } => self.reply(channel, ticket, result, out)?,
            Event::Refused { channel, cause, refusal } => {
                if !self.is_fenced(channel) {
                    let ids = match cause {
                        Cause::Publish => PUBLISH,
                        Cause::Settle => ACK,
                        Cause::Timeout => (0, 0),
                    };
                    self.close_channel(channel, Fault::refused(&refusal, channel, ids), out)?;
                }
            }
            Event::Cancelled { channel, consumer } | Event::Finished { channel, consumer } => {
                if let Some(Slot::Open(open)) = self.slots.get_mut(usize::from(channel.0)) {
                    open.cancelled(consumer, &self.line, out);
                }
            }
            Event::Blocked(reason) => self.line.alarm(reason, out),
            Event::ForceClose(reason) => {
                return Err(Fault::new(ReplyCode::CONNECTION_FORCED, reason, (0, 0)));
            }
            // Nobody asked for it.
            Event::Closed(_) | Event::BatchConfirmed { .. } | Event::Peer(_) => {}
        }
        Ok(())
    }

    #[inline]
    fn delivered(&mut self, delivery: Delivery, out: &mut Outbox) {
        match self.slots.get_mut(usize::from(delivery.channel.0)) {
            Some(Slot::Open(channel)) if !channel.ended => {
                channel.delivered(delivery, &self.line, out);
            }
            _ => consume::count(&delivery, out),
        }
    }

    /// Says the confirms that came together.
    pub(super) fn flush(&mut self, out: &mut Outbox) {
        for number in std::mem::take(&mut self.line.unsaid) {
            if let Some(Slot::Open(channel)) = self.slots.get_mut(usize::from(number)) {
                channel.flush_confirms(out);
            }
        }
    }

    fn connection_frame(&mut self, frame: &RawFrame<'_>, out: &mut Outbox) -> Result<Flow, Fault> {
        match frame.kind {
            FrameKind::Heartbeat if frame.payload.is_empty() => return Ok(Flow::On),
            FrameKind::Heartbeat => {
                return Err(Fault::new(ReplyCode::FRAME_ERROR, "heartbeat with a payload", (0, 0)));
            }
            FrameKind::Header | FrameKind::Body => {
                return Err(Fault::unexpected_frame("content on channel 0", (0, 0)));
            }
            FrameKind::Method => {}
        }
        match Method::decode(frame.payload).map_err(Fault::of_method)? {
            Method::ConnectionClose { .. } => return Ok(Flow::Leave),
            Method::ConnectionUpdateSecret { .. } => self.renewal.begin(out)?,
            // Answers to what this side no longer waits for.
            Method::ConnectionCloseOk => {}
            method => {
                let ids = method.ids();
                return Err(match ids.0 {
                    10 => {
                        let text = "unexpected method in connection state running";
                        Fault::new(ReplyCode::CHANNEL_ERROR, text, ids)
                    }
                    _ => {
                        let text = format!("{} on channel 0", method.name());
                        Fault::new(ReplyCode::COMMAND_INVALID, text, ids)
                    }
                });
            }
        }
        Ok(Flow::On)
    }

    fn channel_frame(
        &mut self,
        frame: &RawFrame<'_>,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let slot = self.slots.get_mut(usize::from(frame.channel));
        match (frame.kind, slot) {
            (FrameKind::Header, Some(Slot::Open(channel))) if !channel.ended => {
                channel.header(frame.payload, now, &mut self.line, out)
            }
            (FrameKind::Body, Some(Slot::Open(channel))) if !channel.ended => {
                channel.body(frame.payload, now, &mut self.line, out)
            }
            (FrameKind::Header | FrameKind::Body, Some(Slot::Open(_) | Slot::Discarding)) => Ok(()),
            (FrameKind::Method, Some(Slot::Open(channel))) if !channel.ended => {
                channel.expect_method()?;
                match decode_ack(frame.payload) {
                    Some((tag, multiple)) => {
                        channel.settle(tag, multiple, Outcome::Accepted, ACK, &self.line, out)
                    }
                    None => self.channel_method(frame, out),
                }
            }
            (FrameKind::Method, Some(Slot::Open(_) | Slot::Discarding)) => {
                match method_ids(frame.payload) {
                    Some((20, 10 | 40 | 41)) => self.channel_method(frame, out),
                    _ => Ok(()),
                }
            }
            (FrameKind::Method, _) => self.channel_method(frame, out),
            _ => Err(not_open((0, 0))),
        }
    }

    fn channel_method(&mut self, frame: &RawFrame<'_>, out: &mut Outbox) -> Result<(), Fault> {
        let method = Method::decode(frame.payload).map_err(Fault::of_method)?;
        let (number, ids) = (frame.channel, method.ids());
        let slot = self.slots.get_mut(usize::from(number));
        match (method, slot) {
            (method, _) if ids.0 == 10 => {
                let text = format!("{} on channel {number}", method.name());
                Err(Fault::new(ReplyCode::COMMAND_INVALID, text, ids))
            }
            (Method::ChannelOpen, Some(Slot::Open(channel))) => {
                if !channel.is_closing() {
                    let text = "second 'channel.open' seen";
                    return Err(Fault::new(ReplyCode::CHANNEL_ERROR, text, ids));
                }
                channel.reopen(&mut self.line, out);
                Ok(())
            }
            (Method::ChannelOpen, Some(Slot::Discarding)) => Ok(()),
            (Method::ChannelOpen, Some(Slot::Free) | None) => self.open_channel(number, ids, out),
            (Method::ChannelClose { .. }, Some(Slot::Open(channel))) => {
                if !channel.is_closing() {
                    let ticket = channel.close(&mut self.line, out);
                    self.fences.push((channel.id, ticket));
                }
                Ok(())
            }
            // Both sides closed at once: each has its close-ok.
            (Method::ChannelClose { .. }, Some(slot @ Slot::Discarding)) => {
                *slot = Slot::Free;
                self.channels -= 1;
                Method::ChannelCloseOk.encode(number, &mut out.wire);
                Ok(())
            }
            (Method::ChannelCloseOk, Some(slot @ Slot::Discarding)) => {
                *slot = Slot::Free;
                self.channels -= 1;
                Ok(())
            }
            (Method::ChannelCloseOk, _) => Ok(()),
            (method, Some(Slot::Open(channel))) => channel.method(method, &mut self.line, out),
            (_, Some(Slot::Discarding)) => Ok(()),
            (_, Some(Slot::Free) | None) => Err(not_open(ids)),
        }
    }

    fn open_channel(&mut self, number: u16, ids: Ids, out: &mut Outbox) -> Result<(), Fault> {
        let max = self.line.channel_max;
        if number > max || self.channels >= usize::from(max) {
            let text = format!(
                "number of channels opened ({}) has reached the negotiated channel_max ({max})",
                self.channels
            );
            return Err(Fault::new(ReplyCode::NOT_ALLOWED, text, ids));
        }
        let at = usize::from(number);
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || Slot::Free);
        }
        let mut channel = Channel::new(ChannelId(number));
        channel.open(&mut self.line, out);
        self.slots[at] = Slot::Open(Box::new(channel));
        self.channels += 1;
        Ok(())
    }

    fn reply(
        &mut self,
        channel: ChannelId,
        ticket: Ticket,
        result: Result<Reply, Refusal>,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if channel.0 == 0 {
            return self.renewal.reply(ticket, &result, out);
        }
        self.fences.retain(|fence| *fence != (channel, ticket));
        let Some(slot) = self.slots.get_mut(usize::from(channel.0)) else {
            return Ok(());
        };
        let Slot::Open(open) = slot else {
            return Ok(());
        };
        match open.reply(ticket, result, &mut self.line, out) {
            Ok(closed) => {
                if closed && open.ended {
                    *slot = Slot::Free;
                    self.channels -= 1;
                }
                Ok(())
            }
            Err(fault) => self.close_channel(channel, fault, out),
        }
    }

    /// Something is wrong with what the client sent on this channel.
    fn fail(&mut self, number: u16, fault: Fault, out: &mut Outbox) -> Result<(), Fault> {
        if fault.ends_connection(number) {
            return Err(fault);
        }
        let Some(Slot::Open(channel)) = self.slots.get_mut(usize::from(number)) else {
            return Err(fault);
        };
        channel.abandon_content(&mut self.line);
        match channel.fail(fault) {
            Some(fault) => self.close_channel(ChannelId(number), fault, out),
            None => Ok(()),
        }
    }

    /// This side closes a channel: what the broker holds for it goes back at once.
    fn close_channel(
        &mut self,
        id: ChannelId,
        fault: Fault,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if fault.ends_connection(id.0) {
            return Err(fault);
        }
        let Some(slot @ Slot::Open(_)) = self.slots.get_mut(usize::from(id.0)) else {
            return Ok(());
        };
        if let Slot::Open(channel) = slot {
            channel.abandon_content(&mut self.line);
        }
        *slot = Slot::Discarding;
        let ticket = self.line.ticket();
        out.commands.push(Command::CloseChannel(id, ticket));
        self.fences.push((id, ticket));
        let reply_text = reply_text(fault.code, &fault.text);
        out.remarks.push(format!("channel {} closed: {reply_text}", id.0));
        let (class_id, method_id) = fault.ids;
        let reply_code = fault.code.number();
        Method::ChannelClose { reply_code, reply_text, class_id, method_id }
            .encode(id.0, &mut out.wire);
        Ok(())
    }

    fn is_fenced(&self, channel: ChannelId) -> bool {
        self.fences.iter().any(|(fenced, _)| *fenced == channel)
    }
}

fn not_open(ids: Ids) -> Fault {
    Fault::new(ReplyCode::CHANNEL_ERROR, "expected 'channel.open'", ids)
}

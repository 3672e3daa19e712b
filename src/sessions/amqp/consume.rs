//! Consuming on a channel: consumers, deliveries and their acknowledgement.

use pillarbox_amqp::{Method, ReplyCode, ShortString, encode_deliver};
use smallvec::SmallVec;

use super::channel::{Channel, Mode, ReplyTo, Then, write_content};
use super::line::Line;
use super::name::{REPLY_TO, name};
use super::reply::{Fault, Ids};
use super::unsettled::{Held, Unsettled, join_run};
use crate::broker::routing::type_name;
use crate::broker::{
    ChannelId, Command, Consume, ConsumerId, Delivery, Name, Outcome, QosScope, Request, Settle,
    Table,
};
use crate::sessions::Outbox;

/// The consumers of a channel in order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Consumers(Vec<Consumer>);

#[derive(Debug)]
pub(super) struct Consumer {
    id: ConsumerId,
    tag: ShortString,
    state: ConsumerState,
}

/// ```text
/// Starting --consume-ok--> Running --cancel--> Ending --cancel-ok--> gone
/// ```
#[derive(Debug)]
enum ConsumerState {
    /// Deliveries wait until the client has its consume-ok. The broker's window bounds them.
    Starting {
        waiting: Vec<Delivery>,
        /// The broker ended it meanwhile.
        cancelled: bool,
    },
    Running,
    /// The client cancelled it; its tag is free for another.
    Ending,
}

impl Consumers {
    fn get_mut(&mut self, id: ConsumerId) -> Option<&mut Consumer> {
        let at = self.0.binary_search_by_key(&id, |consumer| consumer.id).ok()?;
        self.0.get_mut(at)
    }

    fn by_tag(&mut self, tag: &ShortString) -> Option<&mut Consumer> {
        let lives = |it: &&mut Consumer| !matches!(it.state, ConsumerState::Ending);
        self.0.iter_mut().filter(lives).find(|consumer| consumer.tag == *tag)
    }

    pub(super) fn remove(&mut self, id: ConsumerId) -> Option<Consumer> {
        let at = self.0.binary_search_by_key(&id, |consumer| consumer.id).ok()?;
        Some(self.0.remove(at))
    }
}

/// The arguments of basic.consume.
pub(super) struct ConsumeArguments {
    pub(super) mailbox: ShortString,
    pub(super) tag: ShortString,
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) nowait: bool,
    pub(super) arguments: Table,
}

impl Channel {
    pub(super) fn qos(
        &mut self,
        prefetch_size: u32,
        prefetch_count: u16,
        global: bool,
        ids: Ids,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({prefetch_size})");
            return Err(Fault::new(ReplyCode::NOT_IMPLEMENTED, text, ids));
        }
        let limit = u32::from(prefetch_count);
        let scope = if global {
            QosScope::Channel
        } else {
            self.prefetch = limit;
            QosScope::NewConsumers
        };
        self.ask(Request::Qos { limit, scope }, ids, Then::Say(Method::BasicQosOk), line, out);
        Ok(())
    }

    pub(super) fn consume(
        &mut self,
        mut wanted: ConsumeArguments,
        ids: Ids,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let mailbox = self.mailbox_name(&wanted.mailbox, ids)?;
        if wanted.tag.is_empty() {
            wanted.tag = ShortString::truncated(&line.random.name("amq.ctag-"));
        } else if self.consumers.by_tag(&wanted.tag).is_some() {
            let text = format!("attempt to reuse consumer tag '{}'", wanted.tag);
            return Err(Fault::new(ReplyCode::NOT_ALLOWED, text, ids));
        }
        if self.consumers.0.len() >= line.settings.channel_consumers_max {
            let text = format!("channel has {} consumers", self.consumers.0.len());
            return Err(Fault::new(ReplyCode::NOT_ALLOWED, text, ids));
        }
        let consumer = line.consumer();
        let request = if mailbox == REPLY_TO {
            self.consume_answers(consumer, wanted.no_ack, ids, line)?
        } else {
            Request::Consume(Consume {
                consumer,
                tag: name(&wanted.tag, ids)?,
                no_ack: wanted.no_ack,
                exclusive: wanted.exclusive,
                priority: priority(&wanted.arguments, &mailbox, line, ids)?,
                prefetch: self.prefetch,
                mailbox,
                arguments: wanted.arguments,
                selection: None,
                bounded: true,
            })
        };
        let (state, then) = if wanted.nowait {
            (ConsumerState::Running, Then::Silence)
        } else {
            let waiting = Vec::new();
            let state = ConsumerState::Starting { waiting, cancelled: false };
            (state, Then::ConsumeOk(consumer))
        };
        self.consumers.0.push(Consumer { id: consumer, tag: wanted.tag, state });
        self.ask(request, ids, then, line, out);
        Ok(())
    }

    /// Direct reply-to: the address that requests of this channel carry to those who answer.
    fn consume_answers(
        &mut self,
        consumer: ConsumerId,
        no_ack: bool,
        ids: Ids,
        line: &mut Line,
    ) -> Result<Request, Fault> {
        if !no_ack {
            return Err(Fault::precondition("reply consumer cannot acknowledge", ids));
        }
        if self.reply_to.is_some() {
            return Err(Fault::precondition("reply consumer already set", ids));
        }
        let address = line.random.name("amq.rabbitmq.reply-to.");
        self.reply_to = Some(ReplyTo { consumer, address: ShortString::truncated(&address) });
        Ok(Request::ConsumeReplies { consumer, address })
    }

    pub(super) fn consume_ok(&mut self, id: ConsumerId, line: &Line, out: &mut Outbox) {
        let Some(consumer) = self.consumers.get_mut(id) else {
            return;
        };
        let consumer_tag = consumer.tag.clone();
        Method::BasicConsumeOk { consumer_tag }.encode(self.id.0, &mut out.wire);
        let state = std::mem::replace(&mut consumer.state, ConsumerState::Running);
        if let ConsumerState::Starting { waiting, cancelled } = state {
            for delivery in &waiting {
                deliver(
                    self.id,
                    &consumer.tag,
                    &mut self.tag,
                    &mut self.unsettled,
                    delivery,
                    line,
                    out,
                );
            }
            if cancelled {
                self.cancelled(id, line, out);
            }
        }
    }

    /// The client cancels. An unknown tag is no error.
    pub(super) fn cancel(
        &mut self,
        tag: ShortString,
        nowait: bool,
        ids: Ids,
        line: &mut Line,
        out: &mut Outbox,
    ) {
        if let Some(consumer) = self.consumers.by_tag(&tag) {
            // One that is still to start keeps its state for the consume-ok that comes first.
            if matches!(consumer.state, ConsumerState::Running) {
                consumer.state = ConsumerState::Ending;
            }
            let consumer = consumer.id;
            let then = Then::CancelOk { consumer, tag, nowait };
            self.ask(Request::Cancel(consumer), ids, then, line, out);
        } else if !nowait {
            self.say(Method::BasicCancelOk { consumer_tag: tag }, out);
        }
    }

    /// The broker ended a consumer.
    pub(super) fn cancelled(&mut self, id: ConsumerId, line: &Line, out: &mut Outbox) {
        match self.consumers.get_mut(id).map(|consumer| &mut consumer.state) {
            Some(ConsumerState::Starting { cancelled, .. }) => *cancelled = true,
            Some(ConsumerState::Running | ConsumerState::Ending) => {
                if let Some(consumer) = self.consumers.remove(id)
                    && line.cancel_notify
                {
                    let cancel = Method::BasicCancel { consumer_tag: consumer.tag, nowait: true };
                    cancel.encode(self.id.0, &mut out.wire);
                }
            }
            None => {}
        }
    }

    /// A message for one of the channel's consumers.
    #[inline]
    pub(super) fn delivered(&mut self, delivery: Delivery, line: &Line, out: &mut Outbox) {
        let Some(consumer) = self.consumers.get_mut(delivery.consumer) else {
            count(&delivery, out);
            return;
        };
        match &mut consumer.state {
            ConsumerState::Starting { waiting, .. } => waiting.push(delivery),
            ConsumerState::Running | ConsumerState::Ending => {
                let (tag, unsettled) = (&mut self.tag, &mut self.unsettled);
                deliver(self.id, &consumer.tag, tag, unsettled, &delivery, line, out);
            }
        }
    }

    pub(super) fn get(
        &mut self,
        mailbox: &ShortString,
        no_ack: bool,
        ids: Ids,
        line: &mut Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let mailbox = self.mailbox_name(mailbox, ids)?;
        self.ask(Request::Get { mailbox, no_ack }, ids, Then::Got { no_ack }, line, out);
        Ok(())
    }

    /// One delivery, or all up to it.
    #[inline]
    pub(super) fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
        ids: Ids,
        line: &Line,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let mut deliveries = SmallVec::new();
        let mut held = SmallVec::<[Held; 1]>::new();
        let keep = matches!(self.mode, Mode::Transaction(_));
        let mut take = |it: Held| {
            join_run(&mut deliveries, it.run());
            if keep {
                held.push(it);
            }
        };
        let found = if multiple {
            self.unsettled.take_upto(tag, take)
        } else {
            self.unsettled.take(tag).map(&mut take)
        };
        if found.is_none() {
            return Err(Fault::precondition(format!("unknown delivery tag {tag}"), ids));
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        let settle = Settle { channel: self.id, deliveries, outcome };
        match &mut self.mode {
            Mode::Transaction(transaction) => {
                transaction.add(Command::Settle(settle), 0, held, line, ids)
            }
            Mode::Plain | Mode::Confirm(_) => {
                push_settle(settle, &mut out.commands);
                Ok(())
            }
        }
    }

    /// Everything that is not acknowledged goes back. The session names it one by one rather than
    /// leave it to the broker, which may have sent more that is still on its way here.
    pub(super) fn recover(
        &mut self,
        requeue: bool,
        ids: Ids,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        if !requeue {
            return Err(Fault::new(ReplyCode::NOT_IMPLEMENTED, "requeue=false", ids));
        }
        let mut deliveries = SmallVec::new();
        self.unsettled.take_upto(0, |held| join_run(&mut deliveries, held.run()));
        if !deliveries.is_empty() {
            let outcome = Outcome::Released;
            push_settle(Settle { channel: self.id, deliveries, outcome }, &mut out.commands);
        }
        Ok(())
    }
}

/// The acknowledgements of one read become one command where nothing stands between them.
fn push_settle(settle: Settle, commands: &mut Vec<Command>) {
    match commands.last_mut() {
        Some(Command::Settle(last))
            if last.channel == settle.channel && last.outcome == settle.outcome =>
        {
            for run in settle.deliveries {
                join_run(&mut last.deliveries, run);
            }
        }
        _ => commands.push(Command::Settle(settle)),
    }
}

/// Turns a delivery into bytes.
#[inline]
fn deliver(
    channel: ChannelId,
    consumer_tag: &[u8],
    tag: &mut u64,
    unsettled: &mut Unsettled,
    delivery: &Delivery,
    line: &Line,
    out: &mut Outbox,
) {
    *tag += 1;
    if !delivery.settled {
        unsettled.push(Held { tag: *tag, mailbox: delivery.mailbox, seq: delivery.seq });
    }
    let message = &delivery.message;
    encode_deliver(
        &mut out.wire,
        channel.0,
        consumer_tag,
        *tag,
        delivery.redelivered,
        message.exchange().as_bytes(),
        message.key(),
    );
    write_content(channel.0, delivery, line, out);
    count(delivery, out);
}

/// The broker waits to hear that what it gave left its window, also where nobody wants it any more.
pub(super) fn count(delivery: &Delivery, out: &mut Outbox) {
    out.deliveries += 1;
    out.delivery_bytes += delivery.message.size() as u64;
}

fn priority(arguments: &Table, mailbox: &Name, line: &Line, ids: Ids) -> Result<i32, Fault> {
    let Some(value) = arguments.get("x-priority") else {
        return Ok(0);
    };
    let number = value.as_i64().ok_or_else(|| {
        let text = format!(
            "invalid arg 'x-priority' for queue '{mailbox}' in vhost '{}': \"expected integer, got {}\"",
            line.vhost,
            type_name(value)
        );
        Fault::precondition(text, ids)
    })?;
    Ok(number.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
}

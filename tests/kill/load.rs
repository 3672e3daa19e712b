//! Clients at work: they publish, read and settle until they are told to leave or the broker is gone.

use std::collections::VecDeque;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Confirmation, ExchangeKind, PublisherConfirm, Result};
use tokio::sync::watch;

use super::history::{Answer, Event, History, Mailbox, Reader, Settlement};
use super::letter::{Id, sum};
use crate::random::Random;

/// The last is read by nobody under load: it fills.
pub(crate) const MAILBOXES: [Mailbox; 5] = ["sole", "shared", "asked", "window", "backlog"];
pub(crate) const FAN_OUT: &str = "everywhere";

/// Turns true when clients shall leave in good order.
pub(crate) type Leave = watch::Receiver<bool>;

pub(crate) async fn declare(channel: &Channel, mailboxes: &[Mailbox]) -> Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel.exchange_declare(FAN_OUT.into(), ExchangeKind::Fanout, options, none()).await?;
    for name in mailboxes.iter().copied() {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.into(), options, none()).await?;
        let options = QueueBindOptions::default();
        channel.queue_bind(name.into(), FAN_OUT.into(), "".into(), options, none()).await?;
    }
    Ok(())
}

/// How many messages are ready. As a synchronous call it also makes sure of what was settled before.
pub(crate) async fn count(channel: &Channel, mailbox: &str) -> Result<u32> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(mailbox.into(), options, FieldTable::default()).await?;
    Ok(queue.message_count())
}

pub(crate) struct Publisher {
    pub(crate) channel: Channel,
    pub(crate) publisher: u32,
    pub(crate) life: u32,
    pub(crate) random: Random,
    pub(crate) history: History,
    /// Sent and not yet answered.
    pub(crate) window: usize,
    /// Each of these gets what is published to all.
    pub(crate) mailboxes: &'static [Mailbox],
    /// Between two messages.
    pub(crate) pause: std::time::Duration,
}

impl Publisher {
    pub(crate) async fn work(mut self, leave: Leave) -> Result<()> {
        self.channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut waiting = VecDeque::new();
        let outcome = self.publish(&leave, &mut waiting).await;
        // What was answered before the broker went is known, whatever came after.
        while let Some((id, confirm)) = waiting.pop_front() {
            let answered = self.answered(id, confirm).await;
            if outcome.is_ok() {
                answered?;
            }
        }
        outcome
    }

    async fn publish(
        &mut self,
        leave: &Leave,
        waiting: &mut VecDeque<(Id, PublisherConfirm)>,
    ) -> Result<()> {
        let mut number = 0;
        while !*leave.borrow() {
            number += 1;
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
            let id = Id { publisher: self.publisher, life: self.life, number };
            let (exchange, key, to) = self.address();
            let options = BasicPublishOptions {
                mandatory: self.random.chance(4) || to.is_empty(),
                ..BasicPublishOptions::default()
            };
            self.history.add(Event::Published { id, to, sum: id.sum() });
            let (body, properties) = (id.body(), id.properties());
            let sent =
                self.channel.basic_publish(exchange.into(), key.into(), options, &body, properties);
            waiting.push_back((id, sent.await?));
            while waiting.len() >= self.window
                && let Some((id, confirm)) = waiting.pop_front()
            {
                self.answered(id, confirm).await?;
            }
        }
        Ok(())
    }

    fn address(&mut self) -> (&'static str, &'static str, Vec<Mailbox>) {
        match self.random.below(40) {
            0 => ("", "nobody", Vec::new()),
            1..6 => (FAN_OUT, "", self.mailboxes.to_vec()),
            _ => {
                let chosen = self.random.below(self.mailboxes.len() as u64);
                let mailbox = self.mailboxes[chosen as usize];
                ("", mailbox, vec![mailbox])
            }
        }
    }

    async fn answered(&self, id: Id, confirm: PublisherConfirm) -> Result<()> {
        let (answer, returned) = match confirm.await? {
            Confirmation::Ack(returned) => (Answer::Ack, returned),
            Confirmation::Nack(returned) => (Answer::Nack, returned),
            Confirmation::NotRequested => (Answer::Nack, None),
        };
        // It may be another one's: lapin gives it to any that the same ack answers.
        if let Some(returned) = returned {
            let name = returned.delivery.properties.message_id().as_ref();
            match name.and_then(|name| Id::parse(name.as_str())) {
                Some(id) => self.history.add(Event::Returned { id }),
                None => self.history.add(Event::Wrong("a nameless message came back".into())),
            }
        }
        self.history.add(Event::Answered { id, answer });
        Ok(())
    }
}

/// Reads a mailbox, and settles what it holds in one of many ways.
pub(crate) struct Reading {
    pub(crate) channel: Channel,
    pub(crate) reader: Reader,
    pub(crate) prefetch: u16,
    /// Settles at least one when it holds so many; at most `prefetch`.
    pub(crate) hold: usize,
    pub(crate) random: Random,
    pub(crate) history: History,
    /// The mailbox lives on another host, which may go away.
    pub(crate) afar: bool,
    /// In the order of their tags.
    held: VecDeque<(Id, Delivery)>,
}

impl Reading {
    pub(crate) fn new(
        channel: Channel,
        reader: Reader,
        prefetch: u16,
        mut random: Random,
        history: History,
    ) -> Self {
        let hold = 1 + random.below(prefetch.into()) as usize;
        let held = VecDeque::new();
        Self { channel, reader, prefetch, hold, random, history, afar: false, held }
    }

    pub(crate) async fn consume(mut self, mut leave: Leave) -> Result<()> {
        self.take(&mut leave).await?;
        self.finish().await
    }

    /// Until it shall leave, which is `true`, or the broker ends its consumer.
    pub(crate) async fn take(&mut self, leave: &mut Leave) -> Result<bool> {
        let mut consumer = self.start().await?;
        while !*leave.borrow() {
            let delivery = tokio::select! {
                delivery = consumer.next() => delivery,
                _ = leave.changed() => break,
            };
            let Some(delivery) = delivery else { return Ok(false) };
            self.receive(delivery?);
            self.settle_some().await?;
        }
        Ok(true)
    }

    /// One message after another.
    pub(crate) async fn ask(mut self, leave: Leave) -> Result<()> {
        let mailbox = self.reader.mailbox;
        while !*leave.borrow() {
            let got = self.channel.basic_get(mailbox.into(), BasicGetOptions::default()).await?;
            // Nothing is on its way between two questions.
            self.prefetch = self.held.len() as u16 + u16::from(got.is_some());
            match got {
                Some(got) => self.receive(got.delivery),
                None => tokio::task::yield_now().await,
            }
            self.settle_some().await?;
        }
        self.finish().await
    }

    /// Reads what there is, and nothing comes meanwhile.
    pub(crate) async fn drain(mut self, patience: std::time::Duration) -> Result<()> {
        let mailbox = self.reader.mailbox;
        let ready = count(&self.channel, mailbox).await?;
        self.history.add(Event::Counted { mailbox, ready });
        let mut consumer = self.start().await?;
        let mut left = ready as usize;
        while left > 0 {
            // Towards the end a full hand would wait for what never comes.
            self.hold = self.hold.min(left);
            if self.held.len() >= self.hold {
                left -= self.settle_some().await?;
                continue;
            }
            let Ok(delivery) = tokio::time::timeout(patience, consumer.next()).await else { break };
            let Some(delivery) = delivery else { break };
            self.receive(delivery?);
        }
        let options = BasicCancelOptions::default();
        self.channel.basic_cancel(consumer.tag(), options).await?;
        let ready = count(&self.channel, mailbox).await?;
        self.history.add(Event::Synced { by: self.reader });
        self.history.add(Event::Drained { mailbox, ready });
        Ok(())
    }

    async fn start(&self) -> Result<lapin::Consumer> {
        self.channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        let (mailbox, options) = (self.reader.mailbox, BasicConsumeOptions::default());
        self.channel.basic_consume(mailbox.into(), "".into(), options, FieldTable::default()).await
    }

    pub(crate) async fn finish(mut self) -> Result<()> {
        while !self.held.is_empty() {
            self.accept(0, false).await?;
        }
        self.sync().await
    }

    fn receive(&mut self, delivery: Delivery) {
        let name = delivery.properties.message_id().as_ref();
        let Some(id) = name.and_then(|name| Id::parse(name.as_str())) else {
            let text = format!("a message without a name: {:?}", delivery.properties);
            return self.history.add(Event::Wrong(text));
        };
        let sum = sum(&delivery.data, &delivery.properties);
        let redelivered = delivery.redelivered;
        self.history.add(Event::Received { by: self.reader, id, sum, redelivered });
        self.held.push_back((id, delivery));
    }

    /// Returns how many it settled for good.
    async fn settle_some(&mut self) -> Result<usize> {
        let mut accepted = 0;
        while self.held.len() >= self.hold && !self.held.is_empty() {
            let at = self.random.below(self.held.len() as u64) as usize;
            match self.random.below(16) {
                0..2 => self.requeue(at).await?,
                2..4 => accepted += self.accept(at, true).await?,
                _ => accepted += self.accept(at, false).await?,
            }
        }
        if self.random.chance(30) {
            self.sync().await?;
        }
        Ok(accepted)
    }

    async fn accept(&mut self, at: usize, multiple: bool) -> Result<usize> {
        let first = if multiple { 0 } else { at };
        let settled: Vec<(Id, Delivery)> = self.held.drain(first..=at).collect();
        for (id, _) in &settled {
            let how = Settlement::Accepted;
            self.history.add(Event::Settled { by: self.reader, id: *id, how });
        }
        let (_, last) = settled.last().expect("a range has an end");
        last.ack(BasicAckOptions { multiple }).await?;
        Ok(settled.len())
    }

    async fn requeue(&mut self, at: usize) -> Result<()> {
        // The broker counts those held and those on their way, and never more than the prefetch.
        let on_their_way = u32::from(self.prefetch) - self.held.len() as u32;
        let (id, delivery) = self.held.remove(at).expect("it holds the one it chose");
        let how = Settlement::Requeued { on_their_way };
        self.history.add(Event::Settled { by: self.reader, id, how });
        delivery.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
        Ok(())
    }

    async fn sync(&self) -> Result<()> {
        let mailbox = self.reader.mailbox;
        if self.afar {
            // Counts are 0 while the home is away; this is refused then, and changes nothing.
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            let exchange = FAN_OUT.into();
            self.channel.queue_bind(mailbox.into(), exchange, "".into(), options, none).await?;
        } else {
            count(&self.channel, mailbox).await?;
        }
        self.history.add(Event::Synced { by: self.reader });
        Ok(())
    }
}

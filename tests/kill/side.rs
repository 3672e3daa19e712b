//! Mailboxes that come and go beside the load: what was answered about them must hold after a kill.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Result};

use super::history::{Event, History};
use super::letter::Id;
use super::load::{Leave, count};
use crate::random::Random;

/// What is known of each: that it is gone, or how many messages it has. Not in it while an answer is awaited.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sides(Arc<Mutex<BTreeMap<String, Option<u32>>>>);

impl Sides {
    fn unknown(&self, name: &str) {
        self.0.lock().expect("no writer panics").remove(name);
    }

    fn known(&self, name: &str, messages: Option<u32>) {
        self.0.lock().expect("no writer panics").insert(name.into(), messages);
    }

    pub(crate) async fn work(
        self,
        channel: Channel,
        life: u32,
        mut random: Random,
        history: History,
        leave: Leave,
    ) -> Result<()> {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut number = 0;
        while !*leave.borrow() {
            number += 1;
            let name = format!("side.{life}.{number}");
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let none = FieldTable::default();
            self.unknown(&name);
            channel.queue_declare(name.as_str().into(), options, none).await?;
            self.known(&name, Some(0));
            let mut messages = self.fill(&channel, &name, 0, &mut random).await?;
            if random.chance(2) {
                self.unknown(&name);
                let options = QueuePurgeOptions::default();
                let purged = channel.queue_purge(name.as_str().into(), options).await?;
                if purged != messages {
                    let text = format!("{name} had {messages} messages, {purged} were purged");
                    history.add(Event::Wrong(text));
                }
                self.known(&name, Some(0));
                messages = self.fill(&channel, &name, 0, &mut random).await?;
            }
            if random.chance(2) {
                self.unknown(&name);
                let options = QueueDeleteOptions::default();
                let deleted = channel.queue_delete(name.as_str().into(), options).await?;
                if deleted != messages {
                    let text = format!("{name} had {messages} messages, {deleted} were deleted");
                    history.add(Event::Wrong(text));
                }
                self.known(&name, None);
            }
        }
        Ok(())
    }

    async fn fill(
        &self,
        channel: &Channel,
        name: &str,
        mut messages: u32,
        random: &mut Random,
    ) -> Result<u32> {
        for _ in 0..random.below(4) {
            self.unknown(name);
            let id = Id { publisher: 9, life: 0, number: messages };
            let options = BasicPublishOptions::default();
            let (body, properties) = (id.body(), id.properties());
            channel
                .basic_publish("".into(), name.into(), options, &body, properties)
                .await?
                .await?;
            messages += 1;
            self.known(name, Some(messages));
        }
        Ok(messages)
    }

    /// Whether everything is as it was left.
    pub(crate) async fn check(&self, connection: &Connection, history: &History) -> Result<()> {
        let known = self.0.lock().expect("no writer panics").clone();
        let mut channel = connection.create_channel().await?;
        for (name, expected) in known {
            let found = count(&channel, &name).await;
            let found = match found {
                Ok(messages) => Some(messages),
                Err(error)
                    if error.to_string().contains("NOT-FOUND")
                        || error.to_string().contains("NOT_FOUND") =>
                {
                    channel = connection.create_channel().await?;
                    None
                }
                Err(error) => return Err(error),
            };
            if found != expected {
                let text = format!("{name} was left with {expected:?} messages, and has {found:?}");
                history.add(Event::Wrong(text));
            }
        }
        Ok(())
    }
}

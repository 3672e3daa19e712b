//! Tags of hosts: a publisher may name some, and only hosts that have all of them are chosen for its message.
//!
//! The choice is made where the message is published. Later it is only asked again where another host is chosen.

use super::{Broker, Onward, Peers, Spread};
use crate::broker::definition::{Definition, HostDefinition};
use crate::broker::event::{Effect, Write};
use crate::broker::mailbox::Mailbox;
use crate::broker::message::Message;
use crate::broker::name::Name;
use crate::broker::publish::is_reply_address;
use crate::broker::refusal::Refusal;
use crate::broker::value::Value;
use crate::broker::vhost::Vhost;

/// The header that names them: a text with commas between them, or an array of texts.
pub const SPREAD_TAGS: &str = "x-spread-tags";

/// A host's name or one of its tags has at most so many bytes.
pub const HOST_NAME_SIZE_MAX: usize = 63;
/// So many tags has a host at most, and so many are named at most.
pub const HOST_TAGS_MAX: usize = 32;

/// What a host and its tags may be called.
pub fn is_host_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && text.len() <= HOST_NAME_SIZE_MAX && text.bytes().all(known)
}

/// The tags that a message wants, all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Choice(Vec<Name>);

impl Choice {
    /// What the header asks for.
    fn read(message: &Message) -> Result<Option<Self>, Refusal> {
        let Some(value) = message.properties().header(SPREAD_TAGS) else { return Ok(None) };
        let named: Option<Vec<&str>> = match value {
            Value::Array(all) => all.iter().map(Value::as_str).collect(),
            value => value.as_str().map(|text| text.split(',').map(str::trim).collect()),
        };
        let fits = |all: &Vec<&str>| {
            (1..=HOST_TAGS_MAX).contains(&all.len()) && all.iter().all(|it| is_host_name(it))
        };
        match named.filter(fits) {
            Some(all) => Ok(Some(Self(all.into_iter().map(Name::from).collect()))),
            None => Err(Refusal::Precondition(format!(
                "invalid header '{SPREAD_TAGS}': it names 1 to {HOST_TAGS_MAX} tags, each of 1 to {HOST_NAME_SIZE_MAX} letters, digits, '-', '.' and '_'"
            ))),
        }
    }

    /// Of a message that is published. An answer goes to whoever asked, wherever that is.
    pub(in crate::broker) fn of(message: &Message) -> Option<Self> {
        if !message.wants_tags || is_reply_address(message) {
            return None;
        }
        Self::read(message).ok().flatten()
    }

    /// Of a message that was on its way to a host. A dead letter wants nothing.
    pub(super) fn onward(message: &Message) -> Option<Self> {
        let died = message.properties().header("x-death").is_some();
        if died { None } else { Self::read(message).ok().flatten() }
    }

    fn is_met_by(&self, tags: &[Name]) -> bool {
        self.0.iter().all(|tag| tags.contains(tag))
    }
}

/// Names that no host can have are the publisher's mistake.
pub(in crate::broker) fn check_tags(message: &Message) -> Result<(), Refusal> {
    if message.wants_tags { Choice::read(message).map(drop) } else { Ok(()) }
}

impl Peers {
    /// Whether a host has what is wanted.
    pub(in crate::broker) fn suits(&self, host: &Name, choice: Option<&Choice>) -> bool {
        let tags = || self.neighbours.get(host).map_or(&[][..], |it| &it.tags);
        choice.is_none_or(|it| it.is_met_by(tags()))
    }

    /// Whether the host has it at which what comes to rest in the mailbox is to be.
    pub(in crate::broker) fn may_take(&self, mailbox: &Mailbox, choice: Option<&Choice>) -> bool {
        let Some(choice) = choice else { return true };
        let host = match &mailbox.onward {
            Some(Onward::Home(host)) => Some(host),
            _ => mailbox.outbox.as_ref(),
        };
        match host {
            Some(host) => self.suits(host, Some(choice)),
            None => choice.is_met_by(&self.tags),
        }
    }
}

impl Broker {
    /// Whether a message for the name needs no other host: it is here, and this host will do or is the only one.
    pub(super) fn is_for_here(&self, of: &Vhost, name: &str, choice: Option<&Choice>) -> bool {
        let Some(id) = of.mailboxes.get(name) else { return false };
        let shared = of.spreads.get(name) == Some(&Spread::Anycast);
        let may = |it| self.peers.may_take(it, choice);
        choice.is_none() || !shared || self.mailboxes.get(id).is_some_and(may)
    }

    /// A host says which tags it has now.
    pub(super) fn note_tags(&mut self, host: &Name, tags: Vec<Name>, out: &mut Vec<Effect>) {
        let neighbour = self.peers.neighbours.entry(host.clone()).or_default();
        if neighbour.tags == tags {
            return;
        }
        neighbour.tags.clone_from(&tags);
        let definition = HostDefinition { host: host.clone(), tags };
        out.push(Effect::Write(match definition.tags.is_empty() {
            true => Write::Undefine(Definition::Host(definition).key()),
            false => Write::Define(Box::new(Definition::Host(definition))),
        }));
    }

    pub(in crate::broker) fn restore_host(&mut self, it: HostDefinition) {
        let tags = it.tags;
        self.peers.neighbours.entry(it.host).or_default().tags = tags;
    }
}

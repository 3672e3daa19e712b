//! Looking at the messages of a mailbox without taking them: what can be asked, and what is seen.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::command::{ChannelId, ConnectionId, Seq};
use super::event::{Effect, Rest};
use super::inspect::SLICE_MAX;
use super::keep::keeper_name;
use super::mailbox::Asker;
use super::message::Message;
use super::name::{Name, Time};
use super::refusal::{Action, Kind, Refusal};
use super::selector::Selector;
use super::topology::{check_owner, locked};
use super::{Broker, carry};

/// Where a message of a mailbox is, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nobody has it. All messages of a stream.
    Ready,
    /// A consumer holds it.
    Unsettled,
    /// It waits for its time.
    Delayed,
    /// A dead letter that waits until there is room for it where it shall go.
    Dead,
    /// It was settled, and the queue keeps it for a while.
    Settled,
}

impl State {
    pub const ALL: [Self; 5] =
        [Self::Ready, Self::Unsettled, Self::Delayed, Self::Dead, Self::Settled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unsettled => "unsettled",
            Self::Delayed => "delayed",
            Self::Dead => "dead",
            Self::Settled => "settled",
        }
    }
}

/// What was given is no state of a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not one of ready, unsettled, delayed, dead and settled")]
pub struct NoState(pub String);

impl FromStr for State {
    type Err = NoState;

    fn from_str(text: &str) -> Result<Self, NoState> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| NoState(text.into()))
    }
}

/// Some of the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u8);

impl States {
    pub const ALL: Self = Self(u8::MAX);

    pub fn only(state: State) -> Self {
        Self(1 << state as u8)
    }

    /// Bit 0 is the first state. No bit at all means all of them.
    pub fn from_bits(bits: u8) -> Self {
        if bits == 0 { Self::ALL } else { Self(bits) }
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    pub fn has(self, state: State) -> bool {
        self.0 & (1 << state as u8) != 0
    }
}

impl FromStr for States {
    type Err = NoState;

    /// Names with commas between them; nothing at all means all of them.
    fn from_str(text: &str) -> Result<Self, NoState> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut bits = 0;
        for name in names {
            bits |= Self::only(name.parse()?).0;
        }
        Ok(Self::from_bits(bits))
    }
}

/// The place of a message among those that can be seen. A later step goes on behind it, whatever became of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bookmark {
    pub state: State,
    /// More important lanes of the mailbox; or when it is due.
    pub(super) order: u64,
    pub seq: Seq,
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.state.as_str(), self.order, self.seq.0)
    }
}

/// What was given is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a place as browsing gives it")]
pub struct NoPlace;

impl FromStr for Bookmark {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next().ok_or(NoPlace);
        let state = next()?.parse().map_err(|_| NoPlace)?;
        let order = next()?.parse().map_err(|_| NoPlace)?;
        Ok(Self { state, order, seq: Seq(next()?.parse().map_err(|_| NoPlace)?) })
    }
}

/// One step through the messages of a mailbox.
#[derive(Clone, Debug)]
pub struct Browse {
    pub mailbox: Name,
    pub states: States,
    /// Shows only what matches.
    pub selector: Option<Arc<Selector>>,
    /// Where the step before ended.
    pub after: Option<Bookmark>,
    pub count: usize,
    /// Of all bodies together; one message comes in any case.
    pub bytes_max: u64,
}

/// What a step found. It may have found nothing and there be more all the same: it looks at so much and no further.
#[derive(Clone, Debug)]
pub struct Browsed {
    /// State by state: ready ones in the order of delivery, delayed ones by their time, others by position.
    pub found: Vec<Found>,
    /// `None` where the mailbox has no more.
    pub next: Option<Bookmark>,
    /// Ready in the mailbox, seen or not.
    pub ready: u64,
}

/// A message as it rests.
#[derive(Clone, Debug)]
pub struct Found {
    pub at: Bookmark,
    pub message: Arc<Message>,
    pub rest: Rest,
    /// Failed attempts so far, where the mailbox counts them.
    pub attempts: Option<u32>,
    /// Of a stream's message.
    pub offset: Option<u64>,
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
    /// Nothing is delivered, leased or marked by it.
    pub(super) fn browse(
        &mut self,
        from: ConnectionId,
        asker: Asker,
        mut browse: Browse,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let (user, vhost) = self.whose(from)?;
        let name = browse.mailbox.clone();
        self.access.check(&user, &vhost, Action::Read, Kind::Mailbox, &name)?;
        let mailbox = self.find(&vhost, &name).ok_or_else(|| self.no_mailbox(&vhost, &name))?;
        self.check_schedule(&user, &vhost, mailbox)?;
        check_owner(mailbox, from)?;
        if mailbox.keeps_for.is_some() {
            return Err(locked(mailbox));
        }
        let mut id = mailbox.id;
        // What is kept comes last, from where it is kept.
        let mut then = None;
        if browse.states.has(State::Settled)
            && let Some(keeper) = self.find(&vhost, &keeper_name(&name))
        {
            let only = browse.states == States::only(State::Settled);
            if only || browse.after.is_some_and(|it| it.state == State::Settled) {
                id = keeper.id;
            } else {
                then = Some(Bookmark { state: State::Settled, order: 0, seq: Seq(0) });
            }
        }
        browse.count = browse.count.min(SLICE_MAX);
        let mut turn = carry!(self, now, out);
        match self.mailboxes.get_mut(&id) {
            Some(mailbox) => mailbox.look(asker, &browse, then, &mut turn),
            None => Err(Refusal::NoSuchMailbox { name, vhost }),
        }
    }
}

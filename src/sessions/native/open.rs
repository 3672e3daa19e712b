//! An open connection: requests in, answers out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pillarbox_native::{Code, Frame, Kind, Refused, Request, next_frame, write_empty};

use super::answer::Pending;
use super::deliver::Outgoing;
use super::login::Login;
use super::pull::Pulls;
use super::push::Pushes;
use super::refusal::code;
use super::settings::Settings;
use super::settle::Settles;
use super::subscribe::Subscriptions;
use super::will::Wills;
use super::{Fault, MAIN, REQUEST_TICKETS, SILENT};
use crate::broker::{self, Cause, ChannelId, Command, Event, Name, Ticket, Time};
use crate::sessions::random::Random;
use crate::sessions::{Facts, Outbox};

pub(super) struct Open {
    pub(super) settings: Arc<Settings>,
    pub(super) vhost: Name,
    /// Waiting for the broker's answer.
    pub(super) pending: BTreeMap<Ticket, Pending>,
    pub(super) pushes: Pushes,
    pub(super) pulls: Pulls,
    pub(super) settles: Settles,
    pub(super) subscriptions: Subscriptions,
    pub(super) wills: Wills,
    pub(super) outgoing: Outgoing,
    alarm: Alarm,
    tickets: u64,
    random: Random,
    /// Said once for each batch: something without an id was refused.
    told_silent: bool,
}

/// What a frame leads to.
pub(super) enum Flow {
    On,
    Leave,
}

/// The broker asks publishers to stop; the connection is one of them once it publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    Off,
    On(&'static str),
    /// The client stands still: its socket is not read.
    Stopped,
}

impl Open {
    pub(super) fn new(login: &Login, facts: &Facts, settings: Arc<Settings>) -> Self {
        Self {
            pushes: Pushes::new(login.user.clone(), login.is_impersonator()),
            settings,
            vhost: login.vhost.clone(),
            pending: BTreeMap::new(),
            pulls: Pulls::default(),
            settles: Settles::default(),
            subscriptions: Subscriptions::default(),
            wills: Wills::default(),
            outgoing: Outgoing::default(),
            alarm: Alarm::Off,
            tickets: REQUEST_TICKETS,
            random: Random::new(facts.seed),
            told_silent: false,
        }
    }

    /// Whole frames.
    pub(super) fn read(
        &mut self,
        read: &Bytes,
        now: Time,
        out: &mut Outbox,
    ) -> Result<Flow, Fault> {
        let mut at = 0;
        while let Some(frame) = next_frame(&read[at..], u32::MAX)? {
            let end = at + frame.wire_len();
            if let Flow::Leave = self.take(&frame, read, at..end, now, out)? {
                return Ok(Flow::Leave);
            }
            at = end;
        }
        Ok(Flow::On)
    }

    fn take(
        &mut self,
        frame: &Frame<'_>,
        read: &Bytes,
        place: std::ops::Range<usize>,
        now: Time,
        out: &mut Outbox,
    ) -> Result<Flow, Fault> {
        let id = frame.id;
        match Request::decode(frame)? {
            Request::Push(push) => {
                let bytes = read.slice(place);
                self.push(frame, &push, &bytes, now, out)?;
            }
            Request::Settle(settle) => self.settle(id, &settle, out),
            Request::Will(will) => {
                let bytes = read.slice(place);
                self.will(frame, &will, &bytes, now, out)?;
            }
            Request::Pull(pull) => self.pull(id, &pull, now, out),
            Request::Subscribe(subscribe) => self.subscribe(id, &subscribe, out),
            Request::Unsubscribe(unsubscribe) => self.unsubscribe(id, unsubscribe, out),
            Request::Credit { subscription, credit } => {
                self.credit(id, subscription, credit, out);
            }
            Request::DeclareMailbox(declare) => self.declare_mailbox(id, &declare, out),
            Request::DeleteMailbox(delete) => self.delete_mailbox(id, &delete, out),
            Request::PurgeMailbox(name) => self.purge_mailbox(id, name, out),
            Request::DeclareExchange(declare) => self.declare_exchange(id, &declare, out),
            Request::DeleteExchange(delete) => self.delete_exchange(id, &delete, out),
            Request::Bind(bind) => self.bind(id, &bind, true, out),
            Request::Unbind(bind) => self.bind(id, &bind, false, out),
            Request::Retime(retime) => self.retime(id, &retime, out),
            Request::Browse(browse) => self.browse(id, &browse, out),
            Request::Rewind(rewind) => self.rewind(id, &rewind, out),
            Request::List(list) => self.list(id, &list, out),
            Request::Define(define) => self.define(id, &define, out),
            Request::Undefine(undefine) => self.undefine(id, &undefine, out),
            Request::Ping => write_empty(Kind::Pong, id, &mut out.wire),
            Request::Close => return Ok(Flow::Leave),
            Request::Login(_) => {
                return Err(Fault::new(Code::NotAllowed, "the connection is logged in"));
            }
        }
        Ok(Flow::On)
    }

    pub(super) fn notify(&mut self, event: Event, now: Time, out: &mut Outbox) {
        match event {
            Event::Delivered(delivery) => self.deliver(delivery, out),
            Event::DeliveredBatch(batch) => {
                batch.into_iter().for_each(|delivery| self.deliver(delivery, out));
            }
            Event::BatchConfirmed { tag, taken, missed, duplicates, .. } => {
                self.pushes.confirmed(tag as u32, taken, &missed, &duplicates, out);
            }
            Event::Reply { ticket, result, .. } => self.replied(ticket, result, now, out),
            Event::Refused { channel: SILENT, refusal, .. } => self.tell_silent(&refusal, out),
            Event::Refused { cause: Cause::Settle, refusal, .. } => {
                if !self.settles.refused() {
                    self.tell_silent(&refusal, out);
                }
            }
            Event::Cancelled { channel, consumer } => self.cancelled(channel, consumer, out),
            Event::Finished { channel, .. } => {
                if self.subscriptions.get(channel).is_some() {
                    let text = "everything that was asked for was sent";
                    let refused = Refused { code: Code::Closing, text };
                    refused.encode(Kind::Cancelled, channel.0.into(), &mut out.wire);
                }
            }
            Event::Blocked(reason) => self.blocked(reason, out),
            // Messages come in batches only, and what is refused of them is said with the confirm.
            Event::Confirmed { .. } | Event::Returned { .. } => {}
            Event::Refused { cause: Cause::Publish | Cause::Timeout, .. } => {}
            Event::Closed(_) | Event::ForceClose(_) | Event::Peer(_) => {}
        }
    }

    pub(super) fn tick(&mut self, now: Time, out: &mut Outbox) {
        self.pulls.tick(now, &mut self.tickets, &mut self.pending, out);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.pulls.next_deadline()
    }

    pub(super) fn flush(&mut self, out: &mut Outbox) {
        self.outgoing.end();
        self.told_silent = false;
        self.pulls.end_ripe(&mut self.tickets, &mut self.pending, out);
    }

    /// Asks the broker; the answer is dealt with as `pending` says.
    pub(super) fn ask(
        &mut self,
        channel: ChannelId,
        request: broker::Request,
        pending: Pending,
        out: &mut Outbox,
    ) {
        let ticket = self.expect(pending);
        out.commands.push(Command::Request(channel, ticket, Box::new(request)));
    }

    /// A ticket for something whose answer is dealt with as `pending` says.
    pub(super) fn expect(&mut self, pending: Pending) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.pending.insert(ticket, pending);
        ticket
    }

    pub(super) fn made_up_name(&mut self) -> Name {
        self.random.name("gen-")
    }

    /// Something was refused that had no id to answer with.
    fn tell_silent(&mut self, refusal: &broker::Refusal, out: &mut Outbox) {
        if !std::mem::replace(&mut self.told_silent, true) {
            self.refuse(0, code(refusal), &refusal.to_string(), out);
        }
    }

    /// Says no to a request.
    pub(super) fn refuse(&self, id: u32, code: Code, text: &str, out: &mut Outbox) {
        Refused { code, text }.encode(Kind::Refused, id, &mut out.wire);
    }

    /// A message came in: with the alarm on, it is the last one for a while.
    pub(super) fn published(&mut self, out: &mut Outbox) {
        if let Alarm::On(reason) = self.alarm {
            self.alarm = Alarm::Stopped;
            out.pause_reading = Some(true);
            tell_blocked(reason, out);
        }
    }

    fn blocked(&mut self, reason: Option<&'static str>, out: &mut Outbox) {
        match (self.alarm, reason) {
            (Alarm::Stopped, Some(_)) => {}
            (_, Some(reason)) => self.alarm = Alarm::On(reason),
            (was, None) => {
                self.alarm = Alarm::Off;
                if was == Alarm::Stopped {
                    out.pause_reading = Some(false);
                    tell_blocked("", out);
                }
            }
        }
    }

    fn cancelled(&mut self, channel: ChannelId, consumer: broker::ConsumerId, out: &mut Outbox) {
        let text = "the mailbox was deleted, may not be read any longer, or its host is away";
        if channel == MAIN {
            self.pulls.cancelled(consumer, text, &mut self.outgoing, &mut self.settles, out);
        } else if self.subscriptions.get(channel).is_some() {
            // Its number stays taken until the client lets go of it.
            let refused = Refused { code: Code::NotFound, text };
            refused.encode(Kind::Cancelled, channel.0.into(), &mut out.wire);
        }
    }
}

fn tell_blocked(reason: &str, out: &mut Outbox) {
    pillarbox_native::write_frame(Kind::Blocked, 0, 0, &mut out.wire, |out| {
        pillarbox_native::put_short(reason.as_bytes(), out);
    });
}

//! What all channels of an open connection share.

use std::sync::Arc;

use pillarbox_amqp::{Method, ShortString};

use super::settings::Settings;
use crate::broker::{ConsumerId, Name, Ticket};
use crate::sessions::Outbox;
use crate::sessions::random::Random;

/// The open connection, seen from its channels.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) settings: Arc<Settings>,
    pub(super) user: Name,
    pub(super) vhost: Name,
    /// May set the user-id property to somebody else.
    pub(super) impersonator: bool,
    /// In what the client was told or asked for.
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    pub(super) blocked_notify: bool,
    pub(super) cancel_notify: bool,
    pub(super) random: Random,
    pub(super) alarm: Alarm,
    /// Announced bodies of all channels that are not complete.
    pub(super) unfinished_bytes: u64,
    /// Channels with confirms to say at the next flush.
    pub(super) unsaid: Vec<u16>,
    tickets: u64,
    consumers: u32,
}

/// The broker asks publishers to stop; the connection is one of them once it publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    Off,
    On(&'static str),
    /// The client stands still: its socket is not read.
    Stopped,
}

/// What the handshake found out.
pub(super) struct Terms {
    pub(super) settings: Arc<Settings>,
    pub(super) user: Name,
    pub(super) vhost: Name,
    pub(super) impersonator: bool,
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    pub(super) blocked_notify: bool,
    pub(super) cancel_notify: bool,
    pub(super) seed: u64,
    /// Tickets up to here are taken.
    pub(super) tickets: u64,
}

impl Line {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            settings: terms.settings,
            user: terms.user,
            vhost: terms.vhost,
            impersonator: terms.impersonator,
            frame_max: terms.frame_max,
            channel_max: terms.channel_max,
            blocked_notify: terms.blocked_notify,
            cancel_notify: terms.cancel_notify,
            random: Random::new(terms.seed),
            alarm: Alarm::Off,
            unfinished_bytes: 0,
            unsaid: Vec::new(),
            tickets: terms.tickets,
            consumers: 0,
        }
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub(super) fn consumer(&mut self) -> ConsumerId {
        // Nobody lives to see it wrap, but a client may try.
        self.consumers = self.consumers.wrapping_add(1);
        ConsumerId(self.consumers)
    }

    /// A message came in: with the alarm on, it is the last one for a while.
    #[inline]
    pub(super) fn published(&mut self, out: &mut Outbox) {
        if let Alarm::On(reason) = self.alarm {
            self.stop(reason, out);
        }
    }

    #[cold]
    fn stop(&mut self, reason: &'static str, out: &mut Outbox) {
        self.alarm = Alarm::Stopped;
        out.pause_reading = Some(true);
        if self.blocked_notify {
            let reason = ShortString::from_static(reason);
            Method::ConnectionBlocked { reason }.encode(0, &mut out.wire);
        }
    }

    /// The alarm goes on, changes its reason, or off.
    pub(super) fn alarm(&mut self, reason: Option<&'static str>, out: &mut Outbox) {
        match (self.alarm, reason) {
            (Alarm::Stopped, Some(_)) => {}
            (_, Some(reason)) => self.alarm = Alarm::On(reason),
            (was, None) => {
                self.alarm = Alarm::Off;
                if was == Alarm::Stopped {
                    out.pause_reading = Some(false);
                    if self.blocked_notify {
                        Method::ConnectionUnblocked.encode(0, &mut out.wire);
                    }
                }
            }
        }
    }
}

//! What of a mailbox is in memory and what only in the store, and the ways between.

use std::collections::BTreeMap;

use super::Epoch;
use super::Settings;
use super::command::{Fetched, Seq};
use super::dead_letter::Reason;
use super::event::{Effect, Fetch, RecoveredMailbox, Write};
use super::lane::{Cold, Entry};
use super::lease::Lease;
use super::mailbox::Mailbox;
use super::mark::Mark;
use super::name::Time;
use super::turn::Turn;

/// In `Fetch::lane`: entries recalled singly, because they expired or came due on disk.
const RECALLED: u16 = 256;

/// Entries that left their place because they expired or came due, while their bodies are read from the store.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    asked: BTreeMap<Seq, Recall>,
    /// To be asked for at the end of the turn.
    new: Vec<Seq>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    Expired,
    /// Whether it was delivered before.
    Due {
        seen: bool,
        attempts: u32,
    },
    /// It is the next of its key.
    Wanted {
        seen: bool,
    },
    /// It goes to the mailbox's new home before it is due.
    Moved {
        due: Time,
        seen: bool,
        attempts: u32,
    },
}

impl Recalls {
    /// Further ones wait in their places.
    const MAX: usize = 1024;

    pub(super) fn is_full(&self) -> bool {
        self.asked.len() >= Self::MAX
    }

    pub(super) fn add(&mut self, seq: Seq, why: Recall) {
        self.asked.insert(seq, why);
        self.new.push(seq);
    }

    /// What was added since, as ascending ranges.
    fn take_new(&mut self) -> Vec<(Seq, u32)> {
        let mut ranges: Vec<(Seq, u32)> = Vec::new();
        self.new.sort_unstable();
        for seq in self.new.drain(..) {
            match ranges.last_mut() {
                Some((first, count)) if first.0 + u64::from(*count) == seq.0 => *count += 1,
                _ => ranges.push((seq, 1)),
            }
        }
        ranges
    }

    pub(super) fn has(&self, seq: Seq) -> bool {
        self.asked.contains_key(&seq)
    }

    pub(super) fn len(&self) -> u64 {
        self.asked.len() as u64
    }
}

impl Mailbox {
    /// Takes over what the store found.
    pub(super) fn recover(&mut self, found: RecoveredMailbox, now: Time) {
        if self.stream.is_some() {
            return self.recover_stream(&found, now);
        }
        // Positions that a mark ran ahead to are never given: their messages would look delivered.
        self.next = self.next.max(found.next).max(Seq(found.mark.0 + 1));
        self.mark = Mark::recovered(found.mark);
        for run in found.messages {
            self.counts.recovered += u64::from(run.count);
            if run.rest.deliver_at > Time::ZERO {
                let (seen, attempts) = (run.rest.redelivered, run.rest.attempts);
                self.delayed.add_cold(run.rest.deliver_at, run.first, seen, attempts);
                continue;
            }
            let lane = self.lane_of(run.rest.lane);
            if run.rest.expires > Time::ZERO {
                self.expiries.insert((run.rest.expires, run.first, lane as u8));
            }
            self.ready += u64::from(run.count);
            self.ready_bytes += run.bytes;
            let since = run.rest.since;
            let (first, count, bytes, seen) =
                (run.first, run.count, run.bytes, run.rest.redelivered);
            self.lanes[lane].insert_cold(Cold { first, count, bytes, since, seen });
        }
    }

    /// Asks the store for what will be needed soon.
    pub(super) fn load(&mut self, turn: &mut Turn<'_>) {
        if !self.recalls.new.is_empty() {
            let ranges = self.recalls.take_new();
            turn.out.push(Effect::Fetch(Fetch { mailbox: self.id, lane: RECALLED, ranges }));
        }
        let all_hot = |mailbox: &Self| mailbox.lanes.iter().all(|lane| !lane.has_cold());
        if self.ready == 0 || all_hot(self) {
            return;
        }
        let wanted = !self.consumers.is_empty()
            || !self.askers.is_empty()
            || self.onward.is_some()
            || self.is_over_length()
            || self.has_stale_cold(turn.now);
        if !wanted {
            return;
        }
        let hot = self.hot_max(turn.settings);
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let ranges = lane.load(hot, turn.settings.hot_bytes as u64);
            if !ranges.is_empty() {
                let fetch = Fetch { mailbox: self.id, lane: at as u16, ranges };
                turn.out.push(Effect::Fetch(fetch));
            }
        }
    }

    /// What `load` asked for is here.
    pub(super) fn fetched(&mut self, fetched: Fetched, turn: &mut Turn<'_>) {
        if Self::is_look(&fetched) {
            return self.looked(fetched, turn);
        }
        if self.stream.is_some() {
            return self.fetched_stream(fetched, turn);
        }
        let recalled = fetched.lane == RECALLED;
        let mut whole = Vec::with_capacity(fetched.messages.len());
        for found in fetched.messages {
            let (seq, rest) = (found.seq, found.rest);
            match found.message {
                Ok(message) => {
                    if !recalled && rest.expires > Time::ZERO && rest.expires <= turn.now {
                        // It expired on its way.
                        self.expiries.insert((rest.expires, seq, fetched.lane as u8));
                    }
                    whole.push(Entry {
                        seq,
                        message,
                        rest,
                        epoch: Epoch(0),
                        stored: true,
                        acquired: 0,
                    });
                }
                Err(reason) => {
                    // A stored record that cannot be trusted is never delivered; its neighbours are.
                    let wanted = if recalled {
                        let wanted = self.recalls.asked.remove(&seq).is_some();
                        self.counts.damaged += u64::from(wanted);
                        wanted
                    } else {
                        let lane = self.lanes.get(usize::from(fetched.lane));
                        lane.is_some_and(|lane| lane.awaits(seq))
                    };
                    if wanted {
                        turn.write(Write::Quarantine { mailbox: self.id, seq, reason });
                        self.redeem(seq, false, turn);
                    }
                }
            }
        }
        if recalled {
            for mut entry in whole {
                match self.recalls.asked.remove(&entry.seq) {
                    Some(Recall::Expired) => self.discard(entry, Reason::Expired, turn),
                    Some(Recall::Due { seen, attempts }) => {
                        entry.rest.redelivered |= seen;
                        entry.rest.attempts = attempts;
                        self.come_due(entry, turn);
                    }
                    Some(Recall::Wanted { seen }) => {
                        entry.rest.redelivered |= seen;
                        *turn.memory += entry.message.footprint();
                        self.make_ready(entry);
                    }
                    Some(Recall::Moved { due, seen, attempts }) => {
                        entry.rest.redelivered |= seen;
                        (entry.rest.attempts, entry.rest.deliver_at) = (attempts, due);
                        *turn.memory += entry.message.footprint();
                        self.hide(entry, turn);
                    }
                    None => {}
                }
            }
        } else if let Some(lane) = self.lanes.get_mut(usize::from(fetched.lane)) {
            let loaded = lane.loaded(whole.into_iter());
            *turn.memory += loaded.memory;
            self.ready -= loaded.missing;
            self.counts.damaged += loaded.missing;
            self.ready_bytes = self.ready_bytes - loaded.bytes_assumed + loaded.bytes;
            // There is more to look at.
            self.stuck &= !self.has_searches();
        }
    }

    /// Gives memory back: what the store holds need not stay here.
    pub(super) fn cool(&mut self, turn: &mut Turn<'_>) {
        let hot = self.hot_max(turn.settings);
        let mut freed = self.delayed.cool(turn.durable);
        if self.has_searches() && self.lanes.iter().any(|lane| lane.has_stray_surplus(hot)) {
            // Messages leave memory that came back for somebody.
            self.look_again();
        }
        for lane in &mut self.lanes {
            if lane.has_surplus(hot) {
                freed += lane.cool(hot, turn.durable);
            }
        }
        *turn.memory = turn.memory.saturating_sub(freed);
    }

    pub(super) fn has_surplus(&self, settings: &Settings) -> bool {
        let hot = self.hot_max(settings);
        self.delayed.has_surplus(settings.hot_messages)
            || self.lanes.iter().any(|lane| lane.has_surplus(hot))
    }

    /// How many messages stay in memory at the front of a lane: few where they are large.
    pub(super) fn hot_max(&self, settings: &Settings) -> usize {
        let bytes_max = settings.hot_bytes as u64;
        if self.ready_bytes <= bytes_max {
            return settings.hot_messages.max(1);
        }
        let average = self.ready_bytes.checked_div(self.ready).unwrap_or(0).max(1);
        ((bytes_max / average) as usize).max(4).min(settings.hot_messages.max(1))
    }

    /// Memory ran out: messages that only memory holds go to the store too, not to survive but to make room.
    /// Until about so many bytes went; returns how many.
    pub(super) fn spill(&mut self, bytes_max: u64, turn: &mut Turn<'_>) -> u64 {
        let (id, epoch, hot) = (self.id, turn.epoch, self.hot_max(turn.settings));
        let mut spilled = 0;
        let mut spill = |entry: &mut Entry| {
            entry.stored = true;
            entry.epoch = epoch;
            spilled += entry.message.footprint();
            turn.out.push(Effect::Write(Write::Append(entry.append(id, true))));
            spilled < bytes_max
        };
        let mut lanes = self.lanes.iter_mut().flat_map(|lane| lane.unstored_mut(hot));
        if lanes.all(&mut spill) {
            self.delayed.spill(spill);
        }
        self.spilled |= spilled > 0;
        spilled
    }

    /// Memory that the mailbox gives up when it is deleted.
    pub(super) fn forget_memory(&self, turn: &mut Turn<'_>) {
        let lanes = self.lanes.iter().flat_map(|lane| lane.hot());
        let hot: u64 = lanes.map(|entry| entry.message.footprint()).sum();
        let leased: u64 = self.leases.values().map(Lease::size).sum();
        let stream = self.stream.as_ref().map_or(0, |it| it.memory());
        let sum = hot + leased + self.delayed.memory() + stream;
        *turn.memory = turn.memory.saturating_sub(sum);
    }
}

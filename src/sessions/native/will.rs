//! Last wills: messages that are published when the connection ends.

use std::collections::BTreeMap;

use bytes::Bytes;
use pillarbox_native::{self as wire, Code, Frame, Kind, write_empty};

use super::open::Open;
use super::{Fault, SILENT};
use crate::broker::{Command, Message, PublishBatch, Time};
use crate::sessions::Outbox;

#[derive(Default)]
pub(super) struct Wills(BTreeMap<u16, Will>);

struct Will {
    any: bool,
    messages: Vec<Message>,
}

impl Open {
    /// Keeps a will, in the place of an earlier one of its number.
    pub(super) fn will(
        &mut self,
        frame: &Frame<'_>,
        will: &wire::Will<'_>,
        bytes: &Bytes,
        now: Time,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let messages = match self.messages(&will.push, bytes, now)? {
            Ok(messages) => messages,
            Err((code, text)) => {
                self.refuse(frame.id, code, &text, out);
                return Ok(());
            }
        };
        if messages.iter().any(|it| it.deliver_at > Time::ZERO) {
            self.refuse(frame.id, Code::Invalid, "a message of a will cannot wait", out);
            return Ok(());
        }
        let wills = &mut self.wills.0;
        if messages.is_empty() {
            wills.remove(&will.number);
        } else if frame.payload.len() > self.settings.will_size_max {
            let text = format!("a will may have {} bytes", self.settings.will_size_max);
            self.refuse(frame.id, Code::TooLarge, &text, out);
            return Ok(());
        } else if wills.len() >= self.settings.wills_max && !wills.contains_key(&will.number) {
            self.refuse(frame.id, Code::Limit, "too many wills on this connection", out);
            return Ok(());
        } else {
            // They stay for long, and must not keep what was read with them.
            let messages = messages.iter().map(Message::detached).collect();
            wills.insert(will.number, Will { any: will.any, messages });
        }
        write_empty(Kind::Done, frame.id, &mut out.wire);
        Ok(())
    }

    /// Publishes the wills, once.
    pub(super) fn bequeath(&mut self, lost: bool, out: &mut Outbox) {
        for will in std::mem::take(&mut self.wills.0).into_values() {
            if lost || will.any {
                out.commands.push(Command::PublishBatch(PublishBatch {
                    channel: SILENT,
                    messages: will.messages,
                    confirm: None,
                    mandatory: false,
                    home: false,
                }));
            }
        }
    }
}

//! Messages of a mailbox as rows of named values, none of them taken.

use std::sync::Arc;

use bytes::BufMut;
use pillarbox_native::{self as wire, Code, FrameWriter, Kind, put_short, write_frame};

use super::answer::Pending;
use super::list::Row;
use super::open::Open;
use super::{MAIN, table};
use crate::broker::selector::Selector;
use crate::broker::{
    Bookmark, Browse, Browsed, Found, NEUTRAL, Request, Rewind, Rewound, Seq, States, Table, Time,
};
use crate::sessions::Outbox;

/// Bodies in one answer, after the first message.
const BYTES_MAX: u64 = 4 << 20;

impl Open {
    pub(super) fn browse(&mut self, id: u32, asked: &wire::Browse<'_>, out: &mut Outbox) {
        match step(asked) {
            Ok(mut browse) => {
                browse.count = browse.count.min(self.settings.list_count_max as usize);
                self.ask(MAIN, Request::Browse(browse), Pending::Browsed(id), out);
            }
            Err(text) => self.refuse(id, Code::Invalid, &text, out),
        }
    }

    pub(super) fn rewind(&mut self, id: u32, asked: &wire::Rewind<'_>, out: &mut Outbox) {
        let selector = match selector(asked.selector) {
            Ok(selector) => selector,
            Err(text) => return self.refuse(id, Code::Invalid, &text, out),
        };
        let rewind = Rewind {
            mailbox: asked.mailbox.into(),
            from: Time(asked.from_ms),
            to: Time(asked.to_ms),
            first: Seq(asked.first),
            end: Seq(asked.end),
            selector,
        };
        self.ask(MAIN, Request::Rewind(rewind), Pending::Rewound(id), out);
    }
}

/// Writes how many messages are ready again, and which positions are left: none where the end is 0.
pub(super) fn rewound(id: u32, rewound: Rewound, out: &mut Outbox) {
    let (first, end) = rewound.rest.unwrap_or_default();
    write_frame(Kind::Done, 0, id, &mut out.wire, |out| {
        out.put_u64_le(rewound.moved);
        out.put_u64_le(first.0);
        out.put_u64_le(end.0);
    });
}

fn selector(text: &str) -> Result<Option<Arc<Selector>>, String> {
    let parsed = (!text.is_empty()).then(|| Selector::parse(text)).transpose();
    Ok(parsed.map_err(|error| error.to_string())?.map(Arc::new))
}

fn step(asked: &wire::Browse<'_>) -> Result<Browse, String> {
    let selector = selector(asked.selector)?;
    let after = match asked.after {
        [] => None,
        place => {
            let place = String::from_utf8_lossy(place);
            Some(place.parse().map_err(|error: crate::broker::NoPlace| error.to_string())?)
        }
    };
    Ok(Browse {
        mailbox: asked.mailbox.into(),
        states: States::from_bits(asked.states),
        selector,
        after,
        count: asked.count.max(1) as usize,
        bytes_max: BYTES_MAX,
    })
}

/// Writes where the next step goes on, then the rows.
pub(super) fn answer(id: u32, browsed: Browsed, out: &mut Outbox) {
    let frame = FrameWriter::begin(Kind::Done, 0, id, &mut out.wire);
    let next = browsed.next.map(|next: Bookmark| next.to_string()).unwrap_or_default();
    put_short(next.as_bytes(), &mut out.wire);
    out.wire.put_u32_le(browsed.found.len() as u32);
    for found in &browsed.found {
        table::put(message(found), &mut out.wire);
    }
    frame.seal(&mut out.wire);
}

/// The body is not cut: who looks decides how much of it to show.
fn message(found: &Found) -> Table {
    let (message, rest) = (&found.message, &found.rest);
    let mut row = Row::default();
    row.number("seq", found.at.seq.0);
    row.text("state", found.at.state.as_str());
    row.text("place", &found.at.to_string());
    if let Some(offset) = found.offset {
        row.number("offset", offset);
    }
    row.number("size", message.body().len() as u64);
    row.number("since_ms", rest.since.0);
    if rest.deliver_at.0 > 0 {
        row.number("due_ms", rest.deliver_at.0);
    }
    row.flag("redelivered", rest.redelivered);
    row.number("attempts", rest.attempts.into());
    if let Some(holder) = &found.holder {
        row.number("connection", holder.connection.0);
        row.number("channel", holder.channel.0.into());
        if let Some(tag) = &holder.tag {
            row.text("consumer", tag);
        }
        row.number("held_since_ms", holder.since.0);
    }
    row.text("exchange", message.exchange());
    row.binary("key", message.key());
    let mut properties = Vec::new();
    (NEUTRAL.encode)(message.properties(), &mut properties);
    row.binary("properties", &properties);
    row.binary("body", message.body());
    row.0
}

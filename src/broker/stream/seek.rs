//! Cursors and groups as people see them: which there are, where they stand, and another place for one.

use super::group::Group;
use super::start::Start;
use crate::broker::command::{ConnectionId, SeekCursor, Seq};
use crate::broker::event::{Effect, Reply, Write};
use crate::broker::inspect::SLICE_MAX;
use crate::broker::mailbox::Mailbox;
use crate::broker::name::{Name, Time};
use crate::broker::refusal::{Action, Kind, Refusal};
use crate::broker::topology::check_reach;
use crate::broker::value::Value;
use crate::broker::{Broker, SERVER};

/// A cursor, or a group that shares one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorView {
    pub name: Name,
    pub group: bool,
    /// Of the first message that is not done with.
    pub offset: u64,
    /// Messages that are not done with; where keys are kept, also positions whose values went.
    pub lag: u64,
    pub members: u32,
    /// Held by members.
    pub unsettled: u64,
    /// Given back, to come again now or later.
    pub returned: u64,
    /// Trimmed from the log before the group had them, since the start.
    pub missed: u64,
}

impl CursorView {
    fn single(name: &Name, offset: u64, lag: u64) -> Self {
        Self {
            name: name.clone(),
            group: false,
            offset,
            lag,
            members: 0,
            unsettled: 0,
            returned: 0,
            missed: 0,
        }
    }
}

impl Broker {
    pub(in crate::broker) fn cursor_views(
        &self,
        from: ConnectionId,
        vhost: &Name,
        name: &Name,
        after: Option<&Name>,
        count: usize,
    ) -> Result<Vec<CursorView>, Refusal> {
        if from != SERVER {
            let (user, _) = self.whose(from)?;
            self.access.check(&user, vhost, Action::Read, Kind::Mailbox, name)?;
        }
        let mailbox = self.find(vhost, name).ok_or_else(|| self.no_mailbox(vhost, name))?;
        Ok(mailbox.cursor_views(after, count.min(SLICE_MAX)))
    }

    /// A cursor moves, or a group comes into being.
    pub(in crate::broker) fn seek_cursor(
        &mut self,
        from: ConnectionId,
        seek: &SeekCursor,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let (user, vhost) = self.whose(from)?;
        let SeekCursor { mailbox: name, cursor, start } = seek;
        self.access.check(&user, &vhost, Action::Read, Kind::Mailbox, name)?;
        let mailbox = self.find_mut(&vhost, name)?;
        check_reach(mailbox, from)?;
        let id = mailbox.id;
        mailbox.seek_cursor(cursor, start, now, out)?;
        self.dirty.push(id);
        Ok(Reply::Done)
    }

    pub(in crate::broker) fn delete_cursor(
        &mut self,
        from: ConnectionId,
        name: &Name,
        cursor: &Name,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        let (user, vhost) = self.whose(from)?;
        self.access.check(&user, &vhost, Action::Read, Kind::Mailbox, name)?;
        let mailbox = self.find_mut(&vhost, name)?;
        check_reach(mailbox, from)?;
        mailbox.check_idle(cursor)?;
        if !mailbox.stream.as_mut().is_some_and(|it| it.cursors.remove(cursor)) {
            let (cursor, name) = (cursor.clone(), name.clone());
            return Err(Refusal::NoSuchCursor { cursor, name, vhost });
        }
        out.push(Effect::Write(Write::Undefine(mailbox.cursor_key(cursor.clone()))));
        Ok(Reply::Done)
    }
}

impl Mailbox {
    fn cursor_views(&self, after: Option<&Name>, count: usize) -> Vec<CursorView> {
        let Some(stream) = &self.stream else { return Vec::new() };
        let (first, end) = (stream.log.first(), stream.log.next());
        let view = |(name, at): (&Name, Result<Seq, &Group>)| match at {
            Ok(next) => {
                let next = next.max(first);
                CursorView::single(name, next.0 - 1, end.0.saturating_sub(next.0))
            }
            Err(group) => {
                let offset = group.committed().max(first).0 - 1;
                CursorView {
                    group: true,
                    members: group.members.len() as u32,
                    unsettled: group.held() as u64,
                    returned: group.returned() as u64,
                    missed: group.missed(),
                    ..CursorView::single(name, offset, group.lag(first, end))
                }
            }
        };
        stream.cursors.after(after).take(count).map(view).collect()
    }

    /// Consumers share this cursor from now on; it starts here where it is new.
    pub(super) fn share_cursor(
        &mut self,
        name: &Name,
        start: (Seq, Time),
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if stream.cursors.group(name).is_some() {
            return Ok(());
        }
        self.check_idle(name)?;
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let Some(evicted) = stream.cursors.share(name, start, now) else {
            let (name, vhost, most) = (&self.name, &self.vhost, super::cursors::CURSORS_MAX);
            return Err(Refusal::Limit(format!(
                "queue '{name}' in vhost '{vhost}' has {most} groups"
            )));
        };
        let moved = stream.cursors.take(name);
        if let Some(evicted) = evicted {
            out.push(Effect::Write(Write::Undefine(self.cursor_key(evicted))));
        }
        out.extend(moved.map(|moved| Effect::Write(self.cursor_write(moved))));
        Ok(())
    }

    fn seek_cursor(
        &mut self,
        name: &Name,
        start: &Value,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let Some(stream) = &mut self.stream else {
            return Err(Refusal::Precondition(format!(
                "queue '{}' in vhost '{}' is no stream",
                self.name, self.vhost
            )));
        };
        let start = Start::parse(start, now).map_err(|reason| Refusal::InvalidArgument {
            argument: "x-stream-offset".into(),
            kind: Kind::Mailbox,
            name: self.name.clone(),
            vhost: self.vhost.clone(),
            reason,
        })?;
        let (next, since) = start.find(&stream.log);
        if stream.cursors.next(name).is_some() {
            self.check_idle(name)?;
            let Some(stream) = &mut self.stream else { return Ok(()) };
            stream.cursors.set(name, next, since, now);
        } else if let Some(group) = stream.cursors.group_mut(name) {
            group.seek(next, since);
            stream.readers.wake_members(&group.members);
            stream.cursors.touch(name, now);
        } else {
            return self.share_cursor(name, (next, since), now, out);
        }
        let moved = self.stream.as_mut().and_then(|it| it.cursors.take(name));
        out.extend(moved.map(|moved| Effect::Write(self.cursor_write(moved))));
        Ok(())
    }

    /// Whoever reads with a cursor would move it again.
    fn check_idle(&self, cursor: &Name) -> Result<(), Refusal> {
        if self.stream.as_ref().is_some_and(|it| it.readers.uses(cursor)) {
            let (name, vhost) = (&self.name, &self.vhost);
            let text = format!("cursor '{cursor}' of queue '{name}' in vhost '{vhost}' in use");
            return Err(Refusal::Precondition(text));
        }
        Ok(())
    }
}

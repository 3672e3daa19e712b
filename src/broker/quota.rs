//! How much users and virtual hosts may have: numbers that an operator sets, and what they forbid.

use super::command::{ChannelId, ConnectionId, Open};
use super::definition::Definition;
use super::event::{Effect, Reply};
use super::name::{Name, Time};
use super::refusal::Refusal;
use super::{Broker, SERVER};

/// Whose number it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    User(Name),
    Vhost(Name),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    Connections,
    /// Of a user, over all connections.
    Channels,
    /// Of a virtual host.
    Mailboxes,
}

impl Quota {
    const ALL: [(&str, Self); 3] = [
        ("max-connections", Self::Connections),
        ("max-channels", Self::Channels),
        ("max-queues", Self::Mailboxes),
    ];

    /// RabbitMQ's names.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, quota)| *quota)
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, quota)| *quota == self).map_or("", |(name, _)| *name)
    }
}

/// A number that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// In the order of all.
    pub place: usize,
    pub holder: Holder,
    pub quota: Quota,
    pub most: u64,
}

impl Broker {
    /// Sets one number, or with `None` takes it away. Connections there are stay.
    pub(super) fn set_quota(
        &mut self,
        from: ConnectionId,
        holder: &Holder,
        quota: Quota,
        most: Option<u64>,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_administrator(from)?;
        let none = |what: &str| {
            Err(Refusal::Precondition(format!("{what} have no limit {}", quota.name())))
        };
        let definition = match holder {
            Holder::User(name) => {
                let Some(mut user) = self.access.user(name).cloned() else {
                    return Err(Refusal::Precondition(format!("no user '{name}'")));
                };
                match quota {
                    Quota::Connections => user.max_connections = most,
                    Quota::Channels => user.max_channels = most,
                    Quota::Mailboxes => return none("users"),
                }
                Definition::User(user)
            }
            Holder::Vhost(name) => {
                let mut vhost = self.vhost_mut(name)?.definition.clone();
                match quota {
                    Quota::Connections => vhost.max_connections = most,
                    Quota::Mailboxes => vhost.max_mailboxes = most,
                    Quota::Channels => return none("virtual hosts"),
                }
                Definition::Vhost(vhost)
            }
        };
        self.put(definition, now, out)?;
        Ok(Reply::Done)
    }

    /// All numbers that are set: of users, then of virtual hosts, in order of name.
    pub(super) fn limited(&self) -> Vec<Limited> {
        let mut found = Vec::new();
        let mut note = |holder: Holder, quota, most: Option<u64>| {
            let place = found.len() + 1;
            found.extend(most.map(|most| Limited { place, holder, quota, most }));
        };
        for user in self.access.users() {
            let holder = || Holder::User(user.name.clone());
            note(holder(), Quota::Connections, user.max_connections);
            note(holder(), Quota::Channels, user.max_channels);
        }
        for vhost in self.vhosts.values().map(|it| &it.definition) {
            let holder = || Holder::Vhost(vhost.name.clone());
            note(holder(), Quota::Connections, vhost.max_connections);
            note(holder(), Quota::Mailboxes, vhost.max_mailboxes);
        }
        found
    }

    /// Whether there is room for one more connection, in RabbitMQ's order: here, in the virtual host, for the user.
    pub(super) fn check_room(&self, open: &Open) -> Result<(), Refusal> {
        let Open { user, vhost, .. } = open;
        // Those of other hosts' clients count there.
        let own = || self.connections.iter().filter(|(id, _)| !id.is_visitor());
        let connections = || own().filter_map(|(_, it)| it.open.as_ref());
        if let Some(most) = self.settings.connections_max
            && connections().count() as u64 >= most
        {
            let text = format!("connection refused: node connection limit ({most}) is reached");
            return Err(Refusal::NotAllowed(text));
        }
        let Some(found) = self.vhosts.get(vhost) else {
            return Err(Refusal::NoSuchVhost { vhost: vhost.clone() });
        };
        if let Some(most) = found.definition.max_connections
            && found.connections >= most
        {
            let reason = format!(": connection limit ({most}) is reached");
            let (vhost, user) = (vhost.clone(), user.clone());
            return Err(Refusal::VhostDenied { vhost, user, reason });
        }
        if let Some(most) = self.access.user(user).and_then(|user| user.max_connections)
            && connections().filter(|it| it.user == *user).count() as u64 >= most
        {
            let text = format!(
                "connection refused for user '{user}': user connection limit ({most}) is reached"
            );
            return Err(Refusal::NotAllowed(text));
        }
        Ok(())
    }

    /// One channel more, where the user may have it.
    pub(super) fn open_channel(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
    ) -> Result<Reply, Refusal> {
        let (user, _) = self.whose(from)?;
        if let Some(most) = self.access.user(&user).and_then(|user| user.max_channels) {
            let own = self
                .connections
                .iter()
                .filter(|(id, _)| !id.is_visitor())
                .filter(|(_, it)| it.open.as_ref().is_some_and(|open| open.user == user));
            if own.flat_map(|(_, it)| it.channels.values()).filter(|it| !it.failed).count() as u64
                >= most
            {
                return Err(Refusal::NotAllowed(format!(
                    "number of channels opened for user '{user}' has reached the maximum allowed user limit of ({most})"
                )));
            }
        }
        self.channel_mut(from, channel);
        Ok(Reply::Done)
    }

    /// Numbers that a definition does not name stay as they were: a new password gives nobody more room.
    pub(super) fn keep_quotas(&self, definition: &mut Definition) {
        match definition {
            Definition::User(user) => {
                let Some(old) = self.access.user(&user.name) else { return };
                user.max_connections = user.max_connections.or(old.max_connections);
                user.max_channels = user.max_channels.or(old.max_channels);
            }
            Definition::Vhost(vhost) => {
                let Some(old) = self.vhosts.get(&vhost.name).map(|it| &it.definition) else {
                    return;
                };
                vhost.max_connections = vhost.max_connections.or(old.max_connections);
                vhost.max_mailboxes = vhost.max_mailboxes.or(old.max_mailboxes);
            }
            _ => {}
        }
    }

    /// The server itself, and whoever administers it.
    pub(super) fn check_administrator(&self, from: ConnectionId) -> Result<(), Refusal> {
        if from == SERVER {
            return Ok(());
        }
        let (user, _) = self.whose(from)?;
        if self.access.is_administrator(&user) {
            Ok(())
        } else {
            Err(Refusal::NotAdministrator(format!("user '{user}' is not an administrator")))
        }
    }
}

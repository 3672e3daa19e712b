//! Users, and what each may do: RabbitMQ's model of patterns for configure, write and read in each virtual host.
//!
//! Passwords are checked outside. Patterns are searched for in a name, not matched against the whole of it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use regex::bytes::{Regex, RegexBuilder};

use crate::broker::{
    Action, Credential, Definition, DefinitionKey, Kind, Name, PermissionDefinition, Refusal,
    TopicPermissionDefinition, UserDefinition,
};

/// The name by which patterns know the default exchange.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// All users, and their permissions in all virtual hosts.
#[derive(Debug, Default)]
pub struct Access {
    generation: u64,
    /// What is asked now was allowed elsewhere.
    trusts: bool,
    users: BTreeMap<Name, UserDefinition>,
    /// By user, then virtual host.
    permissions: BTreeMap<Name, BTreeMap<Name, Permission>>,
    /// By user, then virtual host, then exchange.
    topics: BTreeMap<Name, BTreeMap<Name, BTreeMap<Name, TopicPermission>>>,
}

#[derive(Debug)]
struct Permission {
    definition: PermissionDefinition,
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

#[derive(Debug)]
struct TopicPermission {
    definition: TopicPermissionDefinition,
    write: Pattern,
    read: Pattern,
}

impl Access {
    pub fn new() -> Self {
        Self::default()
    }

    /// While it is so, everything may be done: another host checked it.
    pub fn trust(&mut self, trusts: bool) {
        self.trusts = trusts;
    }

    /// Changes with everything that can alter an answer.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Creates or replaces.
    pub fn define_user(&mut self, user: UserDefinition) {
        self.users.insert(user.name.clone(), user);
        self.generation += 1;
    }

    /// Creates or replaces. The error says what is wrong with a pattern.
    pub fn define_permission(&mut self, definition: PermissionDefinition) -> Result<(), String> {
        let permission = Permission {
            configure: Pattern::new(&definition.configure)?,
            write: Pattern::new(&definition.write)?,
            read: Pattern::new(&definition.read)?,
            definition,
        };
        let PermissionDefinition { user, vhost, .. } = &permission.definition;
        let vhost = vhost.clone();
        self.permissions.entry(user.clone()).or_default().insert(vhost, permission);
        self.generation += 1;
        Ok(())
    }

    /// Creates or replaces. The error says what is wrong with a pattern.
    pub fn define_topic_permission(
        &mut self,
        definition: TopicPermissionDefinition,
    ) -> Result<(), String> {
        let TopicPermissionDefinition { vhost, user, exchange, write, read } = &definition;
        let (vhost, user, exchange) = (vhost.clone(), user.clone(), exchange.clone());
        let permission = TopicPermission {
            write: Pattern::new(&expanded(write, &user, &vhost))?,
            read: Pattern::new(&expanded(read, &user, &vhost))?,
            definition,
        };
        let vhosts = self.topics.entry(user).or_default();
        vhosts.entry(vhost).or_default().insert(exchange, permission);
        self.generation += 1;
        Ok(())
    }

    /// The user and all permissions of the user. What went, for the store.
    pub fn undefine_user(&mut self, user: &str) -> Vec<DefinitionKey> {
        let mut gone = Vec::new();
        gone.extend(self.users.remove(user).map(|it| Definition::User(it).key()));
        let permissions = self.permissions.remove(user).unwrap_or_default();
        gone.extend(permissions.into_values().map(Permission::key));
        let topics = self.topics.remove(user).unwrap_or_default();
        gone.extend(topics.into_values().flat_map(BTreeMap::into_values).map(TopicPermission::key));
        self.generation += 1;
        gone
    }

    /// All permissions in a virtual host that is gone. What went, for the store.
    pub fn undefine_vhost(&mut self, vhost: &str) -> Vec<DefinitionKey> {
        let mut gone = Vec::new();
        for vhosts in self.permissions.values_mut() {
            gone.extend(vhosts.remove(vhost).map(Permission::key));
        }
        for vhosts in self.topics.values_mut() {
            let exchanges = vhosts.remove(vhost).unwrap_or_default();
            gone.extend(exchanges.into_values().map(TopicPermission::key));
        }
        self.generation += 1;
        gone
    }

    /// Whether there was one. Topic permissions stay.
    pub fn undefine_permission(&mut self, user: &str, vhost: &str) -> bool {
        self.generation += 1;
        self.permissions.get_mut(user).and_then(|vhosts| vhosts.remove(vhost)).is_some()
    }

    /// For one exchange, or for all of them. What went, for the store.
    pub fn undefine_topic_permission(
        &mut self,
        user: &str,
        vhost: &str,
        exchange: Option<&str>,
    ) -> Vec<DefinitionKey> {
        self.generation += 1;
        let Some(vhosts) = self.topics.get_mut(user) else { return Vec::new() };
        let gone = match exchange {
            Some(exchange) => {
                let exchanges = vhosts.get_mut(vhost);
                exchanges.and_then(|exchanges| exchanges.remove(exchange)).into_iter().collect()
            }
            None => Vec::from_iter(vhosts.remove(vhost).unwrap_or_default().into_values()),
        };
        gone.into_iter().map(TopicPermission::key).collect()
    }

    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    pub fn user(&self, name: &str) -> Option<&UserDefinition> {
        self.users.get(name)
    }

    pub fn credential(&self, user: &str) -> Option<&Credential> {
        self.users.get(user).map(|user| &user.credential)
    }

    pub fn has_tag(&self, user: &str, tag: &str) -> bool {
        self.credential(user).is_some_and(|credential| credential.tags.iter().any(|it| it == tag))
    }

    /// The first by name, rather of those who may enter the virtual host.
    pub fn administrator(&self, vhost: &str) -> Option<&UserDefinition> {
        let all = || self.users.values().filter(|user| self.is_administrator(&user.name));
        all().find(|user| self.may_enter(&user.name, vhost)).or_else(|| all().next())
    }

    pub fn is_administrator(&self, user: &str) -> bool {
        self.has_tag(user, "administrator")
    }

    /// Any permission record lets a user in, also one that allows nothing.
    pub fn may_enter(&self, user: &str, vhost: &str) -> bool {
        self.permission(user, vhost).is_some()
    }

    /// `name` is a mailbox's or an exchange's, empty for the default exchange.
    pub fn check(
        &self,
        user: &Name,
        vhost: &Name,
        action: Action,
        kind: Kind,
        name: &str,
    ) -> Result<(), Refusal> {
        let name = known_as(kind, name);
        let permission = self.permission(user, vhost);
        if self.trusts || permission.is_some_and(|it| it.pattern(action).is_in(name.as_bytes())) {
            return Ok(());
        }
        let (name, vhost, user) = (name.into(), vhost.clone(), user.clone());
        Err(Refusal::Forbidden { action, kind, name, vhost, user })
    }

    /// Whether any permission covers the name: enough to ask whether it exists.
    pub fn may_see(&self, user: &str, vhost: &str, kind: Kind, name: &str) -> bool {
        let name = known_as(kind, name).as_bytes();
        self.trusts
            || self.permission(user, vhost).is_some_and(|it| {
                it.configure.is_in(name) || it.write.is_in(name) || it.read.is_in(name)
            })
    }

    /// Publishing by a key (write) or binding one (read) on a topic exchange. Without a record all keys are allowed.
    pub fn check_topic(
        &self,
        user: &Name,
        vhost: &Name,
        exchange: &Name,
        action: Action,
        key: &[u8],
    ) -> Result<(), Refusal> {
        let vhosts = self.topics.get(user).and_then(|vhosts| vhosts.get(vhost));
        let Some(permission) =
            vhosts.and_then(|exchanges| exchanges.get(exchange)).filter(|_| !self.trusts)
        else {
            return Ok(());
        };
        let pattern = match action {
            Action::Configure => return Ok(()),
            Action::Write => &permission.write,
            Action::Read => &permission.read,
        };
        if pattern.is_in(key) {
            return Ok(());
        }
        Err(Refusal::TopicForbidden {
            action,
            key: String::from_utf8_lossy(key).into_owned(),
            exchange: exchange.clone(),
            vhost: vhost.clone(),
            user: user.clone(),
        })
    }

    /// In order of name.
    pub fn users(&self) -> impl Iterator<Item = &UserDefinition> {
        self.users.values()
    }

    /// In order of user and virtual host.
    pub fn permissions(&self) -> impl Iterator<Item = &PermissionDefinition> {
        self.permissions.values().flat_map(BTreeMap::values).map(|it| &it.definition)
    }

    /// In order of user, virtual host and exchange.
    pub fn topic_permissions(&self) -> impl Iterator<Item = &TopicPermissionDefinition> {
        let vhosts = self.topics.values().flat_map(BTreeMap::values);
        vhosts.flat_map(BTreeMap::values).map(|it| &it.definition)
    }

    fn permission(&self, user: &str, vhost: &str) -> Option<&Permission> {
        self.permissions.get(user)?.get(vhost)
    }
}

/// AMQP's rule for the property user-id: nobody sends in another's name.
#[inline]
pub fn check_sender(user: &str, impersonator: bool, claimed: Option<&[u8]>) -> Result<(), Refusal> {
    match claimed {
        Some(claimed) if claimed != user.as_bytes() && !impersonator => {
            let claimed = String::from_utf8_lossy(claimed);
            Err(Refusal::Precondition(format!(
                "user_id property set to '{claimed}' but authenticated user was '{user}'"
            )))
        }
        _ => Ok(()),
    }
}

fn known_as(kind: Kind, name: &str) -> &str {
    if kind == Kind::Exchange && name.is_empty() { DEFAULT_EXCHANGE } else { name }
}

impl Permission {
    fn pattern(&self, action: Action) -> &Pattern {
        match action {
            Action::Configure => &self.configure,
            Action::Write => &self.write,
            Action::Read => &self.read,
        }
    }

    fn key(self) -> DefinitionKey {
        Definition::Permission(self.definition).key()
    }
}

impl TopicPermission {
    fn key(self) -> DefinitionKey {
        Definition::TopicPermission(self.definition).key()
    }
}

/// A permission's pattern, compiled once; its search takes time in proportion to the name.
#[derive(Debug)]
enum Pattern {
    /// The empty pattern: only the empty name.
    Empty,
    /// `.*`, the commonest.
    Everything,
    Search(Regex),
}

impl Pattern {
    /// The longest pattern, in bytes.
    const LENGTH_MAX: usize = 4096;
    /// The most memory that a compiled pattern takes, in bytes.
    const SIZE_MAX: usize = 1 << 20;
    /// How deep groups may stand in each other.
    const DEPTH_MAX: u32 = 64;

    fn new(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::Empty),
            ".*" => Ok(Self::Everything),
            _ if text.len() > Self::LENGTH_MAX => {
                Err(format!("a pattern has at most {} bytes", Self::LENGTH_MAX))
            }
            _ => RegexBuilder::new(text)
                .size_limit(Self::SIZE_MAX)
                .nest_limit(Self::DEPTH_MAX)
                .build()
                .map(Self::Search)
                .map_err(|error| format!("invalid regular expression '{text}': {error}")),
        }
    }

    fn is_in(&self, name: &[u8]) -> bool {
        match self {
            Self::Empty => name.is_empty(),
            Self::Everything => true,
            Self::Search(regex) => regex.is_match(name),
        }
    }
}

/// Puts the variables in, as the texts that they are: a user's name brings no syntax with it.
fn expanded(pattern: &str, user: &str, vhost: &str) -> String {
    pattern
        .replace("{username}", &regex::escape(user))
        .replace("{vhost}", &regex::escape(vhost))
        // Known to MQTT only. Elsewhere it stands for itself.
        .replace("{client_id}", r"\{client_id\}")
}

//! Read-only snapshots for people and tools.

use super::name::Name;

#[derive(Clone, Debug)]
pub enum Inspect {
    /// Mailboxes of a virtual host in order of name, after a name, at most so many.
    Mailboxes { vhost: Name, after: Option<Name>, count: usize },
}

#[derive(Clone, Debug)]
pub enum Inspection {
    Mailboxes(Vec<MailboxView>),
}

#[derive(Clone, Debug)]
pub struct MailboxView {
    pub name: Name,
    pub ready: u64,
    pub unsettled: u64,
    pub consumers: u32,
    pub durable: bool,
}

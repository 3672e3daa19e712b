//! Definitions from administrators: users, permissions, virtual hosts, policies.

use bytes::Bytes;
use pillarbox_native::{self as wire, Code};

use super::answer::Pending;
use super::open::Open;
use super::{MAIN, table};
use crate::broker::{
    ConnectionId, Credential, Definition, DefinitionKey, DefinitionKind, Fate, Holder, Name,
    PermissionDefinition, PolicyDefinition, Quota, Request, SeekCursor, Table, UserDefinition,
    Value, VhostDefinition,
};
use crate::sessions::Outbox;

/// What a client is told whom an administrator sends away without another reason.
const CLOSED: &str = "closed by an administrator";

impl Open {
    pub(super) fn define(&mut self, id: u32, define: &wire::Define<'_>, out: &mut Outbox) {
        let fields = Fields(table::decode(define.fields));
        let request = match define.what {
            wire::Define::LIMIT => Some(fields.limit()),
            wire::Define::CURSOR => Some(fields.cursor()),
            wire::Define::DRAIN => Some(Ok(Request::Drain { leave: fields.flag("leave") })),
            _ => None,
        };
        if let Some(request) = request {
            return match request {
                Ok(request) => self.ask(MAIN, request, Pending::Done(id), out),
                Err(text) => self.refuse(id, Code::Invalid, &text, out),
            };
        }
        let definition = match define.what {
            wire::Define::USER => fields.user(),
            wire::Define::PERMISSION => fields.permission(),
            wire::Define::VHOST => fields.vhost(),
            wire::Define::POLICY => fields.policy(false),
            wire::Define::OPERATOR_POLICY => fields.policy(true),
            _ => Err("a kind of definition that this broker does not know".into()),
        };
        match definition {
            Ok(definition) => {
                self.ask(MAIN, Request::Define(definition), Pending::Done(id), out);
            }
            Err(text) => self.refuse(id, Code::Invalid, &text, out),
        }
    }

    pub(super) fn undefine(&mut self, id: u32, undefine: &wire::Undefine<'_>, out: &mut Outbox) {
        if let (wire::Define::LIMIT, [of, name, limit]) = (undefine.what, &undefine.path[..]) {
            return match quota(of, name, limit) {
                Ok((holder, quota)) => {
                    let request = Request::SetQuota { holder, quota, most: None };
                    self.ask(MAIN, request, Pending::Done(id), out);
                }
                Err(text) => self.refuse(id, Code::Invalid, &text, out),
            };
        }
        if let (wire::Define::CURSOR, [mailbox, cursor]) = (undefine.what, &undefine.path[..]) {
            let (mailbox, cursor) = (Name::from(*mailbox), Name::from(*cursor));
            let request = Request::DeleteCursor { mailbox, cursor };
            return self.ask(MAIN, request, Pending::Done(id), out);
        }
        if let (wire::Define::MOVED, [name, to]) = (undefine.what, &undefine.path[..]) {
            let request = Request::MoveMailbox { name: (*name).into(), to: (*to).into() };
            return self.ask(MAIN, request, Pending::Counted(id), out);
        }
        if let (wire::Define::PEER, [host, fate]) = (undefine.what, &undefine.path[..]) {
            let fate = match *fate {
                "" => Fate::Absent,
                "drop" => Fate::Dropped,
                "route" => Fate::Routed,
                other => match other.strip_prefix("to ") {
                    Some(to) => Fate::SentTo(to.into()),
                    None => {
                        let text = "messages can be dropped, routed or sent to another host";
                        return self.refuse(id, Code::Invalid, text, out);
                    }
                },
            };
            let request = Request::ForgetPeer { host: (*host).into(), fate };
            return self.ask(MAIN, request, Pending::Counted(id), out);
        }
        if let (wire::Define::CONNECTION, [connection, reason]) =
            (undefine.what, &undefine.path[..])
        {
            let Ok(number) = connection.parse() else {
                return self.refuse(id, Code::Invalid, "a connection is known by its number", out);
            };
            let reason = if reason.is_empty() { CLOSED } else { reason };
            let (connection, reason) = (ConnectionId(number), reason.into());
            let request = Request::Disconnect { connection, reason };
            return self.ask(MAIN, request, Pending::Counted(id), out);
        }
        let kind = match (undefine.what, undefine.path.len()) {
            (wire::Define::USER, 1) => DefinitionKind::User,
            (wire::Define::PERMISSION, 2) => DefinitionKind::Permission,
            (wire::Define::VHOST, 1) => DefinitionKind::Vhost,
            (wire::Define::POLICY, 2) => DefinitionKind::Policy,
            (wire::Define::OPERATOR_POLICY, 2) => DefinitionKind::OperatorPolicy,
            _ => {
                let text = "a kind of definition, or a number of names, that is not known";
                return self.refuse(id, Code::Invalid, text, out);
            }
        };
        let part = |part: &&str| Bytes::copy_from_slice(part.as_bytes());
        let key = DefinitionKey { kind, path: undefine.path.iter().map(part).collect() };
        self.ask(MAIN, Request::Undefine(key), Pending::Done(id), out);
    }
}

/// Which number of whom; the error says what is not known.
fn quota(of: &str, name: &str, limit: &str) -> Result<(Holder, Quota), String> {
    let holder = match of {
        "user" => Holder::User(name.into()),
        "vhost" => Holder::Vhost(name.into()),
        _ => return Err(format!("'{of}' is neither user nor vhost")),
    };
    let quota = Quota::named(limit).ok_or_else(|| format!("there is no limit '{limit}'"))?;
    Ok((holder, quota))
}

/// What a definition is made of; the error says what is missing.
struct Fields(Table);

impl Fields {
    fn text(&self, name: &str) -> Result<&str, String> {
        let value = self.0.get(name).and_then(Value::as_str);
        value.ok_or_else(|| format!("the text '{name}' is missing"))
    }

    fn text_or(&self, name: &str, other: &str) -> String {
        self.0.get(name).and_then(Value::as_str).unwrap_or(other).to_owned()
    }

    fn name(&self, name: &str) -> Result<Name, String> {
        self.text(name).map(Name::from)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_i64).and_then(|n| u64::try_from(n).ok())
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    fn texts(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::Array(values)) => {
                values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }

    fn limit(&self) -> Result<Request, String> {
        let (holder, quota) = quota(self.text("of")?, self.text("name")?, self.text("limit")?)?;
        let most = self.number("value").ok_or("the number 'value' is missing")?;
        Ok(Request::SetQuota { holder, quota, most: Some(most) })
    }

    fn cursor(&self) -> Result<Request, String> {
        let (mailbox, cursor) = (self.name("mailbox")?, self.name("name")?);
        let start = self.0.get("start").ok_or("'start' is missing")?.clone();
        Ok(Request::SeekCursor(SeekCursor { mailbox, cursor, start }))
    }

    fn user(&self) -> Result<Definition, String> {
        Ok(Definition::User(UserDefinition {
            name: self.name("name")?,
            credential: Credential {
                password_hash: self.text("password_hash")?.into(),
                hashing: self.text("hashing")?.into(),
                tags: self.texts("tags"),
                loopback_only: self.flag("loopback_only"),
            },
            max_connections: self.number("max_connections"),
            max_channels: self.number("max_channels"),
        }))
    }

    fn permission(&self) -> Result<Definition, String> {
        Ok(Definition::Permission(PermissionDefinition {
            vhost: self.name("vhost")?,
            user: self.name("user")?,
            configure: self.text("configure")?.into(),
            write: self.text("write")?.into(),
            read: self.text("read")?.into(),
        }))
    }

    fn vhost(&self) -> Result<Definition, String> {
        Ok(Definition::Vhost(VhostDefinition {
            name: self.name("name")?,
            description: self.text_or("description", ""),
            tags: self.texts("tags"),
            default_queue_type: self.text("default_queue_type").ok().map(str::to_owned),
            tracing: self.flag("tracing"),
            protected: self.flag("protected"),
            max_connections: self.number("max_connections"),
            max_mailboxes: self.number("max_mailboxes"),
        }))
    }

    fn policy(&self, operator: bool) -> Result<Definition, String> {
        let definition = match self.0.get("definition") {
            Some(Value::Table(definition)) => definition.clone(),
            _ => return Err("the table 'definition' is missing".into()),
        };
        Ok(Definition::Policy(PolicyDefinition {
            vhost: self.name("vhost")?,
            name: self.name("name")?,
            operator,
            pattern: self.text("pattern")?.into(),
            apply_to: self.text_or("apply_to", "all"),
            priority: self.0.get("priority").and_then(Value::as_i64).unwrap_or(0),
            definition,
        }))
    }
}

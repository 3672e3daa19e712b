//! Definitions in RabbitMQ's file: what is declared, to and from JSON.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::json::{self as show, RABBITMQ_VERSION};
use super::value::{from_json, table_of, table_to_json};
use super::{Fault, strict};
use crate::broker::{
    BindingDefinition, BindingOf, Credential, DeclareExchange, DeclareMailbox, Definition,
    Destination, ExchangeDefinition, MailboxDefinition, MailboxId, Name, ParameterDefinition,
    PermissionDefinition, PolicyDefinition, Properties, Table, TableKey, TopicPermissionDefinition,
    UserDefinition, VhostDefinition,
};

/// Component of global parameters, which have none.
pub const GLOBAL: &str = "";
/// Component under which RabbitMQ's files carry limits of virtual hosts.
const VHOST_LIMITS: &str = "vhost-limits";

/// A file, understood.
#[derive(Debug, Default)]
pub struct Import {
    /// In the order in which they lean on each other.
    pub definitions: Vec<Definition>,
    /// Parts that this broker does not know: they are not kept.
    pub unknown: BTreeSet<String>,
}

/// Collects definitions and writes the file.
#[derive(Debug, Default)]
pub struct Export {
    parts: Map<String, Value>,
}

const PARTS: [&str; 10] = [
    "users",
    "vhosts",
    "permissions",
    "topic_permissions",
    "parameters",
    "global_parameters",
    "policies",
    "queues",
    "exchanges",
    "bindings",
];

impl Export {
    /// Adds a definition to its part. Of a single virtual host its name is left out.
    pub fn add(&mut self, definition: &Definition, single: bool) {
        let (part, mut row) = match definition {
            Definition::Vhost(it) => {
                let limits = show::vhost_limits(it);
                if limits.as_object().is_some_and(|limits| !limits.is_empty()) {
                    let limits = json!({
                        "vhost": it.name.as_str(),
                        "component": VHOST_LIMITS,
                        "name": "limits",
                        "value": limits,
                    });
                    self.push("parameters", limits, single);
                }
                let mut row = json!({
                    "name": it.name.as_str(),
                    "description": it.description,
                    "tags": it.tags,
                    "metadata": {"description": it.description, "tags": it.tags},
                });
                if let Some(kind) = &it.default_queue_type {
                    row["default_queue_type"] = kind.as_str().into();
                    row["metadata"]["default_queue_type"] = kind.as_str().into();
                }
                if it.protected {
                    row["protected_from_deletion"] = true.into();
                    row["metadata"]["protected_from_deletion"] = true.into();
                }
                ("vhosts", row)
            }
            Definition::User(it) => {
                let mut row = show::user(it);
                if it.credential.loopback_only != is_loopback_user(&it.name) {
                    // RabbitMQ keeps this in its settings and leaves it alone here.
                    row["loopback_only"] = it.credential.loopback_only.into();
                }
                ("users", row)
            }
            Definition::Permission(it) => ("permissions", show::permission(it)),
            Definition::TopicPermission(it) => ("topic_permissions", show::topic_permission(it)),
            Definition::Exchange(it) => (
                "exchanges",
                json!({
                    "name": it.name.as_str(),
                    "vhost": it.vhost.as_str(),
                    "type": it.kind.as_str(),
                    "durable": it.durable,
                    "auto_delete": it.auto_delete,
                    "internal": it.internal,
                    "arguments": table_to_json(&it.arguments),
                }),
            ),
            Definition::Mailbox(it) => {
                let kind = it.arguments.get("x-queue-type").and_then(|kind| kind.as_str());
                (
                    "queues",
                    json!({
                        "name": it.name.as_str(),
                        "vhost": it.vhost.as_str(),
                        "type": kind.unwrap_or("classic"),
                        "durable": it.durable,
                        "auto_delete": it.auto_delete,
                        "arguments": table_to_json(&it.arguments),
                    }),
                )
            }
            Definition::Binding(it) => {
                let mut row = show::binding(it);
                if let Value::Object(row) = &mut row {
                    row.remove("properties_key");
                }
                ("bindings", row)
            }
            Definition::Policy(it) if it.operator => {
                let row = json!({
                    "vhost": it.vhost.as_str(),
                    "component": "operator_policy",
                    "name": it.name.as_str(),
                    "value": {
                        "pattern": it.pattern,
                        "apply-to": it.apply_to,
                        "priority": it.priority,
                        "definition": table_to_json(&it.definition),
                    },
                });
                ("parameters", row)
            }
            Definition::Policy(it) => ("policies", show::policy(it)),
            Definition::Parameter(it) if it.vhost.is_none() => {
                ("global_parameters", show::parameter(it))
            }
            Definition::Parameter(it) => ("parameters", show::parameter(it)),
            // What a reader of a stream remembers is no part of the file.
            Definition::Cursor(_)
            | Definition::Publication(_)
            | Definition::Route(_)
            | Definition::Taken(_)
            | Definition::Host(_) => return,
        };
        if single && let Value::Object(row) = &mut row {
            row.remove("vhost");
        }
        self.push(part, row, single);
    }

    fn push(&mut self, part: &str, mut row: Value, single: bool) {
        if single && let Value::Object(row) = &mut row {
            row.remove("vhost");
        }
        let list = self.parts.entry(part).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(row);
        }
    }

    /// The whole file, with parts that hold nothing.
    pub fn finish(mut self, single: bool) -> Value {
        let whole = ["users", "vhosts", "permissions", "topic_permissions", "global_parameters"];
        for part in PARTS {
            if single && whole.contains(&part) {
                self.parts.remove(part);
            } else {
                self.parts.entry(part).or_insert_with(|| json!([]));
            }
        }
        let format = if single { "single_virtual_host" } else { "cluster" };
        for (name, text) in [
            ("rabbit_version", RABBITMQ_VERSION),
            ("rabbitmq_version", RABBITMQ_VERSION),
            ("product_name", "Pillarbox"),
            ("product_version", env!("CARGO_PKG_VERSION")),
            ("rabbitmq_definition_format", format),
        ] {
            self.parts.insert(name.into(), text.into());
        }
        Value::Object(self.parts)
    }
}

/// One object of a file or a body.
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Where it stands, for errors.
    part: &'a str,
}

impl<'a> Fields<'a> {
    pub fn new(object: &'a Map<String, Value>, part: &'a str) -> Self {
        Self { object, part }
    }

    fn wrong(&self, field: &str, what: &str) -> Fault {
        Fault::bad_request(format!("{}: '{field}' {what}", self.part))
    }

    pub fn text(&self, field: &str) -> Result<Option<&'a str>, Fault> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(field, "is no text")),
        }
    }

    pub fn needed(&self, field: &str) -> Result<&'a str, Fault> {
        self.text(field)?.ok_or_else(|| self.wrong(field, "is missing"))
    }

    pub fn name(&self, field: &str) -> Result<Name, Fault> {
        name(self.needed(field)?)
    }

    pub fn flag(&self, field: &str, default: bool) -> Result<bool, Fault> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            // As RabbitMQ's own Python tool sends it.
            Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
            Some(_) => Err(self.wrong(field, "is neither true nor false")),
        }
    }

    pub fn whole(&self, field: &str) -> Result<Option<i64>, Fault> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) if number.as_i64().is_some() => Ok(number.as_i64()),
            Some(Value::String(text)) if text.parse::<i64>().is_ok() => Ok(text.parse().ok()),
            Some(_) => Err(self.wrong(field, "is no whole number")),
        }
    }

    /// A list, or texts between commas.
    pub fn tags(&self, field: &str) -> Result<Option<Vec<String>>, Fault> {
        let wrong = || self.wrong(field, "is no list of texts");
        Ok(Some(match self.object.get(field) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => {
                let tags = text.split(',').map(str::trim).filter(|tag| !tag.is_empty());
                tags.map(str::to_owned).collect()
            }
            Some(Value::Array(list)) => {
                let tag = |tag: &Value| tag.as_str().map(str::to_owned).ok_or_else(wrong);
                list.iter().map(tag).collect::<Result<_, Fault>>()?
            }
            Some(_) => return Err(wrong()),
        }))
    }

    pub fn table(&self, field: &str) -> Result<Table, Fault> {
        table_of(self.object.get(field), field)
    }

    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field)
    }
}

/// A name as AMQP has it: at most 255 bytes.
pub fn name(text: &str) -> Result<Name, Fault> {
    if text.len() > Name::SIZE_MAX {
        return Err(Fault::bad_request(format!("a name has at most {} bytes", Name::SIZE_MAX)));
    }
    Ok(text.into())
}

impl Import {
    /// Reads a file. Of a single virtual host, everything goes into the one that is given.
    pub fn read(bytes: &[u8], vhost: Option<&Name>) -> Result<Self, Fault> {
        let file = strict::read_object(bytes)?;
        let mut import = Self::default();
        let known = [
            "rabbit_version",
            "rabbitmq_version",
            "product_name",
            "product_version",
            "rabbitmq_definition_format",
            "original_vhost_name",
            "original_cluster_name",
            "explanation",
            "metadata",
            "description",
            "default_queue_type",
            "limits",
        ];
        for part in file.keys() {
            let single = vhost.is_none()
                || ["parameters", "policies", "queues", "exchanges", "bindings"].contains(&&**part);
            let read = PARTS.contains(&&**part) && single;
            if !known.contains(&&**part) && !read {
                import.unknown.insert(part.clone());
            }
        }
        let mut limits = Vec::new();
        for part in PARTS {
            let single = ["parameters", "policies", "queues", "exchanges", "bindings"];
            if vhost.is_some() && !single.contains(&part) {
                continue;
            }
            let rows = match file.get(part) {
                None | Some(Value::Null) => continue,
                Some(Value::Array(rows)) => rows,
                Some(_) => return Err(Fault::bad_request(format!("'{part}' is no list"))),
            };
            for row in rows {
                let Value::Object(row) = row else {
                    return Err(Fault::bad_request(format!("'{part}' holds more than objects")));
                };
                let fields = Fields::new(row, part);
                let here = match vhost {
                    Some(vhost) => vhost.clone(),
                    None if ["users", "vhosts", "global_parameters"].contains(&part) => "".into(),
                    None => fields.name("vhost")?,
                };
                import.read_row(part, here, &fields, &mut limits)?;
            }
        }
        import.apply_limits(limits);
        import.definitions.sort_by_key(|definition| definition.key().kind);
        Ok(import)
    }

    fn read_row(
        &mut self,
        part: &str,
        vhost: Name,
        fields: &Fields<'_>,
        limits: &mut Vec<(Name, Value)>,
    ) -> Result<(), Fault> {
        let definition = match part {
            "users" => {
                for (field, value) in fields.object {
                    let known = [
                        "name",
                        "password_hash",
                        "hashing_algorithm",
                        "tags",
                        "limits",
                        "loopback_only",
                    ];
                    if !known.contains(&&**field) && !value.is_null() {
                        self.unknown.insert(format!("users.{field}"));
                    }
                }
                Definition::User(imported_user(fields)?)
            }
            "vhosts" => Definition::Vhost(vhost_of(fields.name("name")?, fields, None)?),
            "permissions" => {
                Definition::Permission(permission_of(vhost, fields.name("user")?, fields)?)
            }
            "topic_permissions" => Definition::TopicPermission(topic_permission_of(
                vhost,
                fields.name("user")?,
                fields,
            )?),
            "parameters" => match fields.needed("component")? {
                "operator_policy" => {
                    let value = fields.get("value").and_then(Value::as_object);
                    let value = value.ok_or_else(|| fields.wrong("value", "is no object"))?;
                    let value = Fields::new(value, "parameters");
                    Definition::Policy(policy_of(vhost, fields.name("name")?, true, &value)?)
                }
                VHOST_LIMITS => {
                    limits.push((vhost, fields.get("value").cloned().unwrap_or_default()));
                    return Ok(());
                }
                component => Definition::Parameter(parameter_of(
                    Some(vhost),
                    component,
                    fields.name("name")?,
                    fields,
                )?),
            },
            "global_parameters" => {
                Definition::Parameter(parameter_of(None, GLOBAL, fields.name("name")?, fields)?)
            }
            "policies" => {
                Definition::Policy(policy_of(vhost, fields.name("name")?, false, fields)?)
            }
            "queues" => {
                let declare = declare_mailbox(fields.name("name")?, fields)?;
                Definition::Mailbox(MailboxDefinition {
                    id: MailboxId(0),
                    vhost,
                    name: declare.name,
                    durable: declare.durable,
                    exclusive: false,
                    auto_delete: declare.auto_delete,
                    arguments: declare.arguments,
                    epoch: 0,
                })
            }
            "exchanges" => {
                let declare = declare_exchange(fields.name("name")?, fields)?;
                Definition::Exchange(ExchangeDefinition {
                    vhost,
                    name: declare.name,
                    kind: declare.kind,
                    durable: declare.durable,
                    auto_delete: declare.auto_delete,
                    internal: declare.internal,
                    arguments: declare.arguments,
                })
            }
            _ => {
                let destination = fields.name("destination")?;
                let destination = match fields.needed("destination_type")? {
                    "queue" => Destination::Mailbox(destination),
                    "exchange" => Destination::Exchange(destination),
                    _ => {
                        return Err(
                            fields.wrong("destination_type", "is neither queue nor exchange")
                        );
                    }
                };
                let bind = binding_of(fields.name("source")?, destination, fields)?;
                Definition::Binding(BindingDefinition {
                    vhost,
                    source: bind.source,
                    destination: bind.destination,
                    key: TableKey(bind.key),
                    arguments: bind.arguments,
                })
            }
        };
        self.definitions.push(definition);
        Ok(())
    }

    /// RabbitMQ's files carry limits of virtual hosts among the parameters.
    fn apply_limits(&mut self, limits: Vec<(Name, Value)>) {
        for (vhost, value) in limits {
            let found = self.definitions.iter_mut().find_map(|definition| match definition {
                Definition::Vhost(it) if it.name == vhost => Some(it),
                _ => None,
            });
            let Some(found) = found else {
                self.unknown.insert(format!(
                    "parameters.{VHOST_LIMITS} of '{vhost}', which is not in the file"
                ));
                continue;
            };
            found.max_connections = limit_in(&value, "max-connections");
            found.max_mailboxes = limit_in(&value, "max-queues");
        }
    }
}

/// Below zero means none.
fn limit_in(limits: &Value, name: &str) -> Option<u64> {
    limits.get(name).and_then(Value::as_u64)
}

fn imported_user(fields: &Fields<'_>) -> Result<UserDefinition, Fault> {
    let limits = fields.get("limits").cloned().unwrap_or_default();
    let name = fields.name("name")?;
    let (password_hash, hashing) = hash_given(fields)?;
    Ok(UserDefinition {
        credential: Credential {
            password_hash,
            hashing,
            tags: fields.tags("tags")?.unwrap_or_default(),
            loopback_only: fields.flag("loopback_only", is_loopback_user(&name))?,
        },
        name,
        max_connections: limit_in(&limits, "max-connections"),
        max_channels: limit_in(&limits, "max-channels"),
    })
}

/// RabbitMQ's files do not say who may come from this machine only: there it is `guest`.
fn is_loopback_user(name: &str) -> bool {
    name == "guest"
}

/// How a hash was made, for those that are given.
pub fn hashing(fields: &Fields<'_>) -> Result<String, Fault> {
    let given = fields.text("hashing_algorithm")?;
    let known = [
        "rabbit_password_hashing_sha256",
        "rabbit_password_hashing_sha512",
        "rabbit_password_hashing_md5",
        "argon2id",
    ];
    match given {
        None => Ok(known[0].to_owned()),
        Some(given) if known.contains(&given) => Ok(given.to_owned()),
        Some(_) => Err(fields.wrong("hashing_algorithm", "is not known")),
    }
}

/// A password's hash and how it was made. RabbitMQ's are base64 and begin with four bytes of salt.
pub fn hash_given(fields: &Fields<'_>) -> Result<(String, String), Fault> {
    let (hash, hashing) = (fields.text("password_hash")?.unwrap_or_default(), hashing(fields)?);
    let salted = || STANDARD.decode(hash).is_ok_and(|it| it.len() > 4);
    if hash.is_empty() || hashing == "argon2id" || salted() {
        return Ok((hash.to_owned(), hashing));
    }
    Err(fields.wrong("password_hash", "is no base64 of a salt and a hash"))
}

/// What is not said stays as it was.
pub fn vhost_of(
    name: Name,
    fields: &Fields<'_>,
    before: Option<VhostDefinition>,
) -> Result<VhostDefinition, Fault> {
    let mut vhost = before.unwrap_or(VhostDefinition {
        name,
        description: String::new(),
        tags: Vec::new(),
        default_queue_type: None,
        tracing: false,
        protected: false,
        max_connections: None,
        max_mailboxes: None,
    });
    let inner = fields.get("metadata").and_then(Value::as_object);
    let inner = inner.map(|object| Fields::new(object, "metadata"));
    for fields in inner.iter().chain([fields]) {
        if let Some(description) = fields.text("description")? {
            vhost.description = description.to_owned();
        }
        if let Some(tags) = fields.tags("tags")? {
            vhost.tags = tags;
        }
        match fields.text("default_queue_type")? {
            None | Some("undefined") => {}
            Some(kind @ ("classic" | "quorum" | "stream")) => {
                vhost.default_queue_type = Some(kind.to_owned());
            }
            Some(_) => return Err(fields.wrong("default_queue_type", "is not known")),
        }
        vhost.tracing = fields.flag("tracing", vhost.tracing)?;
        vhost.protected = fields.flag("protected_from_deletion", vhost.protected)?;
    }
    Ok(vhost)
}

pub fn permission_of(
    vhost: Name,
    user: Name,
    fields: &Fields<'_>,
) -> Result<PermissionDefinition, Fault> {
    Ok(PermissionDefinition {
        vhost,
        user,
        configure: fields.needed("configure")?.to_owned(),
        write: fields.needed("write")?.to_owned(),
        read: fields.needed("read")?.to_owned(),
    })
}

pub fn topic_permission_of(
    vhost: Name,
    user: Name,
    fields: &Fields<'_>,
) -> Result<TopicPermissionDefinition, Fault> {
    Ok(TopicPermissionDefinition {
        vhost,
        user,
        exchange: fields.name("exchange")?,
        write: fields.needed("write")?.to_owned(),
        read: fields.needed("read")?.to_owned(),
    })
}

pub fn policy_of(
    vhost: Name,
    name: Name,
    operator: bool,
    fields: &Fields<'_>,
) -> Result<PolicyDefinition, Fault> {
    let definition = fields.get("definition").and_then(Value::as_object);
    if definition.is_none() {
        return Err(fields.wrong("definition", "is no object"));
    }
    Ok(PolicyDefinition {
        vhost,
        name,
        operator,
        pattern: fields.needed("pattern")?.to_owned(),
        apply_to: fields.text("apply-to")?.unwrap_or("all").to_owned(),
        priority: fields.whole("priority")?.unwrap_or(0),
        definition: fields.table("definition")?,
    })
}

pub fn parameter_of(
    vhost: Option<Name>,
    component: &str,
    name: Name,
    fields: &Fields<'_>,
) -> Result<ParameterDefinition, Fault> {
    let value = fields.get("value").ok_or_else(|| fields.wrong("value", "is missing"))?;
    Ok(ParameterDefinition {
        vhost,
        component: component.to_owned(),
        name,
        value: value.to_string(),
    })
}

pub fn declare_mailbox(name: Name, fields: &Fields<'_>) -> Result<DeclareMailbox, Fault> {
    let mut arguments = fields.table("arguments")?;
    // Exports name the type beside the arguments too.
    if let Some(kind) = fields.text("type")?.filter(|kind| *kind != "classic" && *kind != "default")
        && arguments.get("x-queue-type").is_none()
    {
        arguments.set("x-queue-type", from_json(&Value::from(kind))?);
    }
    Ok(DeclareMailbox {
        name,
        passive: false,
        durable: fields.flag("durable", true)?,
        exclusive: false,
        auto_delete: fields.flag("auto_delete", false)?,
        arguments,
        generated: false,
    })
}

pub fn declare_exchange(name: Name, fields: &Fields<'_>) -> Result<DeclareExchange, Fault> {
    Ok(DeclareExchange {
        name,
        kind: self::name(fields.text("type")?.unwrap_or("direct"))?,
        passive: false,
        durable: fields.flag("durable", true)?,
        auto_delete: fields.flag("auto_delete", false)?,
        internal: fields.flag("internal", false)?,
        arguments: fields.table("arguments")?,
    })
}

pub fn binding_of(
    source: Name,
    destination: Destination,
    fields: &Fields<'_>,
) -> Result<BindingOf, Fault> {
    let key = fields.text("routing_key")?.unwrap_or_default();
    name(key)?;
    Ok(BindingOf {
        source,
        destination,
        key: Bytes::copy_from_slice(key.as_bytes()),
        arguments: fields.table("arguments")?,
    })
}

/// The properties of a message to publish.
pub fn properties_of(fields: &Fields<'_>) -> Result<Properties, Fault> {
    let given = match fields.get("properties") {
        None | Some(Value::Null) => return Ok(Properties::default()),
        Some(Value::Array(list)) if list.is_empty() => return Ok(Properties::default()),
        Some(Value::Object(given)) => Fields::new(given, "properties"),
        Some(_) => return Err(fields.wrong("properties", "is no object")),
    };
    let text = |field: &str| -> Result<Option<Bytes>, Fault> {
        let text = match given.get(field) {
            // RabbitMQ's clients give numbers where AMQP has texts.
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => given.text(field)?.map(str::to_owned),
        };
        match text {
            Some(text) if text.len() > Name::SIZE_MAX => {
                Err(given.wrong(field, "is longer than 255 bytes"))
            }
            text => Ok(text.map(Bytes::from)),
        }
    };
    let octet = |field: &str| -> Result<Option<u8>, Fault> {
        let wrong = || given.wrong(field, "is no number up to 255");
        given.whole(field)?.map(|number| u8::try_from(number).map_err(|_| wrong())).transpose()
    };
    let timestamp = given.whole("timestamp")?.map(u64::try_from);
    Ok(Properties {
        content_type: text("content_type")?,
        content_encoding: text("content_encoding")?,
        headers: given
            .get("headers")
            .map(|headers| table_of(Some(headers), "headers"))
            .transpose()?,
        delivery_mode: octet("delivery_mode")?,
        priority: octet("priority")?,
        correlation_id: text("correlation_id")?,
        reply_to: text("reply_to")?,
        expiration: text("expiration")?,
        message_id: text("message_id")?,
        timestamp: timestamp.transpose().map_err(|_| given.wrong("timestamp", "is negative"))?,
        kind: text("type")?,
        user_id: text("user_id")?,
        app_id: text("app_id")?,
        cluster_id: text("cluster_id")?,
    })
}

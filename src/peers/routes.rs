//! What a host says of its mailboxes and bindings, between the core's words and the wire's.

use bytes::{Bytes, BytesMut};
use pillarbox_native::{ChangeRef, RouteRef, Routes, RoutesBatch};

use crate::broker::{
    Learn, MailboxDefinition, MailboxId, RouteChange, RouteDefinition, TableKey, Wanted,
};
use crate::sessions::native::table;

/// Writes a slice of what this host has.
pub(super) fn write(
    changes: Vec<RouteChange>,
    version: u64,
    begins: bool,
    ends: bool,
    out: &mut BytesMut,
) {
    let mut batch = RoutesBatch::begin(version, begins, ends, out);
    for RouteChange { route, gone } in changes {
        let RouteDefinition { vhost, wanted, durable, .. } = route;
        match wanted {
            Wanted::Mailbox(it) => {
                let arguments = table::encode(it.arguments);
                let route = RouteRef::Mailbox {
                    name: &it.name,
                    id: it.id.0,
                    durable: it.durable,
                    exclusive: it.exclusive,
                    auto_delete: it.auto_delete,
                    arguments: &arguments,
                    epoch: it.epoch,
                };
                batch.add(&ChangeRef { vhost: &vhost, gone, durable, route }, out);
            }
            Wanted::Binding { exchange, kind, key, arguments } => {
                let arguments = table::encode(arguments);
                let route = RouteRef::Binding {
                    exchange: &exchange,
                    kind: &kind,
                    key: &key.0,
                    arguments: &arguments,
                };
                batch.add(&ChangeRef { vhost: &vhost, gone, durable, route }, out);
            }
        }
    }
    batch.end(out);
}

/// What another host has.
pub(super) fn read(routes: &Routes<'_>) -> Learn {
    Learn {
        changes: routes.changes.iter().map(change).collect(),
        begins: routes.begins,
        ends: routes.ends,
        version: routes.version,
    }
}

fn change(change: &ChangeRef<'_>) -> RouteChange {
    let vhost = change.vhost;
    let wanted = match change.route {
        RouteRef::Mailbox { name, id, durable, exclusive, auto_delete, arguments, epoch } => {
            Wanted::Mailbox(MailboxDefinition {
                id: MailboxId(id),
                vhost: vhost.into(),
                name: name.into(),
                durable,
                exclusive,
                auto_delete,
                arguments: table::decode(arguments),
                epoch,
            })
        }
        RouteRef::Binding { exchange, kind, key, arguments } => Wanted::Binding {
            exchange: exchange.into(),
            kind: kind.into(),
            key: TableKey(Bytes::copy_from_slice(key)),
            arguments: table::decode(arguments),
        },
    };
    let (host, durable) = ("".into(), change.durable);
    RouteChange {
        route: RouteDefinition { host, vhost: vhost.into(), wanted, durable },
        gone: change.gone,
    }
}

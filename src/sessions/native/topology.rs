//! Declaring, deleting and binding.

use bytes::Bytes;
use pillarbox_native as wire;

use super::answer::Pending;
use super::open::Open;
use super::{MAIN, table};
use crate::broker::{
    BindingOf, DeclareExchange, DeclareMailbox, Destination, Name, Request, Retime, Seq, Table,
    Time,
};
use crate::sessions::Outbox;

impl Open {
    pub(super) fn declare_mailbox(
        &mut self,
        id: u32,
        declare: &wire::DeclareMailbox<'_>,
        out: &mut Outbox,
    ) {
        let generated = declare.name.is_empty();
        let declare = DeclareMailbox {
            name: if generated { self.made_up_name() } else { declare.name.into() },
            passive: declare.passive,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments: table::decode(declare.arguments),
            generated,
        };
        self.ask(MAIN, Request::DeclareMailbox(declare), Pending::Declared(id), out);
    }

    pub(super) fn delete_mailbox(
        &mut self,
        id: u32,
        delete: &wire::DeleteMailbox<'_>,
        out: &mut Outbox,
    ) {
        let (if_unused, if_empty) = (delete.if_unused, delete.if_empty);
        let name: Name = delete.name.into();
        // Deleting what is not there is nothing to the broker; here it is told.
        let guard = Request::DeclareMailbox(DeclareMailbox::look(name.clone()));
        self.ask(MAIN, guard, Pending::Guard, out);
        let request = Request::DeleteMailbox { name, if_unused, if_empty };
        self.ask(MAIN, request, Pending::Guarded { id, refusal: None }, out);
    }

    pub(super) fn purge_mailbox(&mut self, id: u32, name: &str, out: &mut Outbox) {
        let request = Request::PurgeMailbox { name: name.into() };
        self.ask(MAIN, request, Pending::Counted(id), out);
    }

    pub(super) fn declare_exchange(
        &mut self,
        id: u32,
        declare: &wire::DeclareExchange<'_>,
        out: &mut Outbox,
    ) {
        let declare = DeclareExchange {
            name: declare.name.into(),
            kind: declare.kind.into(),
            passive: declare.passive,
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments: table::decode(declare.arguments),
        };
        self.ask(MAIN, Request::DeclareExchange(declare), Pending::Done(id), out);
    }

    pub(super) fn delete_exchange(
        &mut self,
        id: u32,
        delete: &wire::DeleteExchange<'_>,
        out: &mut Outbox,
    ) {
        let (name, if_unused) = (Name::from(delete.name), delete.if_unused);
        let guard = Request::DeclareExchange(DeclareExchange {
            name: name.clone(),
            kind: "".into(),
            passive: true,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: Table::new(),
        });
        self.ask(MAIN, guard, Pending::Guard, out);
        let request = Request::DeleteExchange { name, if_unused };
        self.ask(MAIN, request, Pending::Guarded { id, refusal: None }, out);
    }

    pub(super) fn retime(&mut self, id: u32, retime: &wire::Retime<'_>, out: &mut Outbox) {
        let retime = Retime {
            mailbox: retime.mailbox.into(),
            due: Time(retime.due_ms),
            seq: Seq(retime.seq),
            to: (retime.to_ms != wire::Retime::CANCEL).then_some(Time(retime.to_ms)),
        };
        self.ask(MAIN, Request::Retime(retime), Pending::Done(id), out);
    }

    pub(super) fn bind(&mut self, id: u32, bind: &wire::Bind<'_>, add: bool, out: &mut Outbox) {
        let name: Name = bind.destination.into();
        let binding = BindingOf {
            source: bind.source.into(),
            destination: match bind.to_exchange {
                true => Destination::Exchange(name),
                false => Destination::Mailbox(name),
            },
            key: Bytes::copy_from_slice(bind.key),
            arguments: table::decode(bind.arguments),
        };
        let request = if add { Request::Bind(binding) } else { Request::Unbind(binding) };
        self.ask(MAIN, request, Pending::Done(id), out);
    }
}

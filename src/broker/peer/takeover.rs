//! Moving a mailbox: its home asks another host to have it from now on, with an epoch that is higher by one.
//!
//! What follows is `handover`: the home learns of the other one like everybody else, and gives way.

use std::collections::BTreeSet;

use super::afar::{Asked, NOBODY, Wish};
use super::{Broker, Onward, VISITOR_PROTOCOL};
use crate::broker::command::{
    BindingOf, ChannelId, Command, ConnectionId, DeclareMailbox, MovedBinding, Open, Request,
    TakeOver, Ticket,
};
use crate::broker::definition::{Definition, Destination, MailboxDefinition};
use crate::broker::drain::DRAINED;
use crate::broker::event::{Effect, Reply, Write};
use crate::broker::limits::Limits;
use crate::broker::mailbox::Mailbox;
use crate::broker::name::{Name, Time};
use crate::broker::refusal::{Action, Kind, Refusal};
use crate::broker::routing::Bound;
use crate::broker::topology::check_reach;
use crate::broker::value::Table;

/// The channel of the visit that a move is.
const CHANNEL: ChannelId = ChannelId(1);

/// Who asked for a move, and how to tell.
#[derive(Debug)]
pub(super) struct Mover {
    vhost: Name,
    /// `None` for the old home itself, which asks whether all hosts know of the new one.
    asker: Option<(ConnectionId, ChannelId, Ticket)>,
}

impl Broker {
    /// `None` where the other host is asked. Otherwise how much is still here.
    pub(in crate::broker) fn move_mailbox(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        ticket: Ticket,
        name: &Name,
        to: &Name,
        out: &mut Vec<Effect>,
    ) -> Result<Option<Reply>, Refusal> {
        self.check_administrator(from)?;
        let (user, vhost) = self.whose(from)?;
        self.access.check(&user, &vhost, Action::Configure, Kind::Mailbox, name)?;
        let Some(mailbox) = self.find_any(&vhost, name) else {
            return match self.home_of(&vhost, name) == Some(to) {
                true => Ok(Some(Reply::Counted(0))),
                false => Err(self.no_mailbox(&vhost, name)),
            };
        };
        if mailbox.onward == Some(Onward::Home(to.clone())) {
            return Ok(Some(Reply::Counted(mailbox.left())));
        }
        if let Some(refusal) = self.elsewhere(mailbox) {
            return Err(refusal);
        }
        check_reach(mailbox, from)?;
        check_movable(mailbox)?;
        let Some(link) = self.peers.neighbours.get(to).map(|it| it.carrier) else {
            return Err(Refusal::Precondition(format!("no other host '{to}' is known")));
        };
        let Some(link) = link else {
            return Err(Refusal::Precondition(format!("host '{to}' is not linked")));
        };
        let bindings = self.moved_bindings(&vhost, name)?;
        let MailboxDefinition { durable, auto_delete, arguments, epoch, .. } =
            mailbox.definition.clone();
        let epoch = epoch + 1;
        let wanted =
            TakeOver { name: name.clone(), epoch, durable, auto_delete, arguments, bindings };
        let mover = Mover { vhost: vhost.clone(), asker: Some((from, channel, ticket)) };
        self.ask_to_take_over(mover, &user, &vhost, to, link, wanted, out);
        Ok(None)
    }

    /// Those that the mailbox has here. Each must find its messages from everywhere.
    fn moved_bindings(&self, vhost: &Name, name: &Name) -> Result<Vec<MovedBinding>, Refusal> {
        let Some(found) = self.vhosts.get(vhost) else { return Ok(Vec::new()) };
        let stays = |source: &Name, why: &str| {
            let text = format!(
                "queue '{name}' in vhost '{vhost}' is bound to exchange '{source}', {why}: it cannot be moved"
            );
            Refusal::Precondition(text)
        };
        let mut moved = Vec::new();
        for binding in found.exchanges.bindings_to(&Destination::Mailbox(name.clone())) {
            let source = &binding.source;
            let Some(exchange) = found.exchanges.get(source) else { continue };
            let kind = exchange.definition().kind.clone();
            if !exchange.spans() {
                return Err(stays(source, &format!("whose type '{kind}' does not span hosts")));
            }
            let fed = |it: &crate::broker::routing::Exchange| it.alternate() == Some(source);
            let destination = Destination::Exchange(source.clone());
            if found.exchanges.bindings_to(&destination).next().is_some()
                || found.exchanges.iter().any(fed)
            {
                return Err(stays(source, "which gets messages from other exchanges"));
            }
            moved.push(MovedBinding {
                exchange: source.clone(),
                kind,
                key: binding.key.0.clone(),
                arguments: binding.arguments.clone(),
            });
        }
        Ok(moved)
    }

    #[expect(clippy::too_many_arguments, reason = "one caller, which has all of them at hand")]
    fn ask_to_take_over(
        &mut self,
        mover: Mover,
        user: &Name,
        vhost: &Name,
        host: &Name,
        link: ConnectionId,
        wanted: TakeOver,
        out: &mut Vec<Effect>,
    ) {
        // Nobody's: it ends with the answer.
        let channels = BTreeSet::from([CHANNEL]);
        let number = self.peers.afar.begin(crate::broker::SERVER, host, link, channels);
        let open = Open {
            user: user.clone(),
            vhost: vhost.clone(),
            protocol: VISITOR_PROTOCOL,
            peer: format!("move of {}", wanted.name),
            local: String::new(),
            client_name: None,
            client_properties: Table::new(),
            mechanism: "",
            strict_channels: false,
            cancel_notify: true,
        };
        self.tell(number, Command::Open(Box::new(open), NOBODY), out);
        let exchanges: BTreeSet<_> = wanted.bindings.iter().map(|it| it.exchange.clone()).collect();
        for exchange in exchanges {
            self.bring_exchange(number, CHANNEL, vhost, &exchange, out);
        }
        let asked = Asked { mailbox: wanted.name.clone(), wish: Wish::Move(mover) };
        let request = Request::TakeOver(Box::new(wanted));
        self.ask(number, (CHANNEL, Ticket(0)), asked, request, out);
    }

    /// The other host took it, or did not. What it took is learnt as everything that lives there.
    pub(super) fn tell_mover(
        &mut self,
        number: u32,
        name: &Name,
        mover: Mover,
        result: Result<Reply, Refusal>,
        now: Time,
        out: &mut Vec<Effect>,
    ) {
        self.tell(number, Command::Close(None), out);
        self.forget_visit(number);
        let Mover { vhost, asker } = mover;
        let found = self.find_any(&vhost, name).map(|it| (it.id, it.left(), it.gave_way()));
        match (asker, found) {
            (Some((connection, channel, ticket)), found) => {
                let left = found.map_or(0, |(_, left, gone)| if gone { left } else { left.max(1) });
                let result = result.map(|_| Reply::Counted(left));
                self.answer(connection, channel, ticket, result, out);
            }
            (None, Some((id, 0, true))) if matches!(result, Ok(Reply::Counted(0))) => {
                self.delete_mailbox_now(id, now, out);
            }
            (None, _) => {}
        }
    }

    /// The mailbox is empty here; it goes once nobody can take this host for its home any longer.
    pub(super) fn ask_whether_all_know(
        &mut self,
        vhost: &Name,
        name: &Name,
        host: &Name,
        out: &mut Vec<Effect>,
    ) {
        let link = self.peers.neighbours.get(host).and_then(|it| it.carrier);
        let (Some(link), Some((_, found))) = (link, self.definition_away(vhost, name)) else {
            return;
        };
        let MailboxDefinition { name, durable, auto_delete, epoch, .. } = found;
        let (arguments, bindings) = (Table::new(), Vec::new());
        let wanted = TakeOver { name, epoch, durable, auto_delete, arguments, bindings };
        let mover = Mover { vhost: vhost.clone(), asker: None };
        self.ask_to_take_over(mover, &"".into(), vhost, host, link, wanted, out);
    }

    /// Its home moves the mailbox here. Asked again, it is here, and how many hosts do not know yet is said.
    pub(in crate::broker) fn take_over(
        &mut self,
        from: ConnectionId,
        wanted: TakeOver,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        if !from.is_visitor() {
            return Err(Refusal::NotAllowed("only hosts move mailboxes to each other".into()));
        }
        if self.drain.is_some() {
            return Err(Refusal::NotAllowed(DRAINED.into()));
        }
        let (_, vhost) = self.whose(from)?;
        self.vhost_mut(&vhost)?;
        let TakeOver { name, epoch, .. } = &wanted;
        if let Some(mailbox) = self.find_any(&vhost, name) {
            let id = mailbox.id;
            let older = mailbox.definition.epoch < *epoch;
            if mailbox.definition.epoch == *epoch && !mailbox.gave_way() && *epoch > 0 {
                return Ok(Reply::Counted(self.untold()));
            }
            if !mailbox.gave_way() || !older {
                let text = format!("queue '{name}' in vhost '{vhost}' is another one here");
                return Err(Refusal::Precondition(text));
            }
            self.check_bindings(&vhost, &wanted)?;
            self.come_home(id, *epoch, now, out);
            self.peers.arriving.insert(id);
            self.bind_moved(&vhost, &wanted, out);
            return Ok(Reply::Done);
        }
        self.check_bindings(&vhost, &wanted)?;
        self.check_mailbox_limit(&vhost, name)?;
        let declare = DeclareMailbox {
            name: name.clone(),
            passive: false,
            durable: wanted.durable,
            exclusive: false,
            auto_delete: wanted.auto_delete,
            arguments: wanted.arguments.clone(),
            generated: true,
        };
        let limits = Limits::of(&declare, &vhost, self.settings.delivery_limit)?;
        let definition = MailboxDefinition {
            id: self.new_mailbox_id(now),
            vhost: vhost.clone(),
            name: name.clone(),
            durable: wanted.durable,
            exclusive: false,
            auto_delete: wanted.auto_delete,
            arguments: wanted.arguments.clone(),
            epoch: *epoch,
        };
        let id = self.create_mailbox(definition, limits, None, now, out);
        // Until its old home gave way, that one has what exchanges send.
        self.peers.arriving.insert(id);
        self.peers.stirred.insert((vhost.clone(), name.clone()));
        self.bind_moved(&vhost, &wanted, out);
        Ok(Reply::Done)
    }

    /// Nothing is done by halves: the exchanges must be there, and of their kinds.
    fn check_bindings(&self, vhost: &Name, wanted: &TakeOver) -> Result<(), Refusal> {
        let Some(found) = self.vhosts.get(vhost) else { return Ok(()) };
        for MovedBinding { exchange: name, kind, .. } in &wanted.bindings {
            let (name, vhost) = (name.clone(), vhost.clone());
            let Some(exchange) = found.exchanges.get(&name) else {
                return Err(Refusal::NoSuchExchange { name, vhost });
            };
            let is = &exchange.definition().kind;
            if is != kind || !exchange.spans() {
                let text = format!(
                    "exchange '{name}' in vhost '{vhost}' is of type '{is}' here, and of type '{kind}' where queue '{}' lives",
                    wanted.name
                );
                return Err(Refusal::Precondition(text));
            }
        }
        Ok(())
    }

    fn bind_moved(&mut self, vhost: &Name, wanted: &TakeOver, out: &mut Vec<Effect>) {
        for it in &wanted.bindings {
            let bind = BindingOf {
                source: it.exchange.clone(),
                destination: Destination::Mailbox(wanted.name.clone()),
                key: it.key.clone(),
                arguments: it.arguments.clone(),
            };
            let Some(found) = self.vhosts.get_mut(vhost) else { return };
            let Ok(Bound::New { definition, .. }) = found.exchanges.bind(&bind) else { continue };
            self.generation += 1;
            if self.is_durable_binding(&definition) {
                let definition = Box::new(Definition::Binding(definition));
                out.push(Effect::Write(Write::Define(definition)));
            }
        }
    }
}

/// What has a state that the wire cannot carry stays where it is.
fn check_movable(mailbox: &Mailbox) -> Result<(), Refusal> {
    let limits = &mailbox.limits;
    let why = if mailbox.definition.exclusive {
        "it is exclusive"
    } else if mailbox.declared.spread.is_some() {
        "it lives on several hosts ('x-spread')"
    } else if mailbox.stream.is_some() {
        "it is a stream"
    } else if limits.dedup.is_some() {
        "it takes repeats for what they are"
    } else if limits.keep_settled_ms.is_some() {
        "it keeps what was settled"
    } else {
        return Ok(());
    };
    let (name, vhost) = (&mailbox.name, &mailbox.vhost);
    let text = format!("queue '{name}' in vhost '{vhost}' cannot be moved: {why}");
    Err(Refusal::Precondition(text))
}

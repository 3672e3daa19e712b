//! What clients want of mailboxes elsewhere, on its way to their homes.

use std::collections::BTreeSet;

use super::{ASK_SIZE, ASKED_MAX, Asked, NOBODY, WINDOWS_MAX, Wish};
use crate::broker::command::{
    BindingOf, ChannelId, Command, ConnectionId, DeclareExchange, DeclareMailbox, Open, QosScope,
    Request, Ticket,
};
use crate::broker::definition::Destination;
use crate::broker::event::{Effect, Event, Reply};
use crate::broker::name::{Name, Time};
use crate::broker::peer::{PeerEvent, VISITOR_PROTOCOL};
use crate::broker::refusal::{Action, Kind, Refusal};
use crate::broker::stream::dead_letter_exchange;
use crate::broker::value::Table;
use crate::broker::{Broker, SERVER};

impl Broker {
    /// Asks the home of a mailbox that is not here. What is to be done here comes back.
    pub(in crate::broker) fn ask_afar(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        ticket: Ticket,
        request: Request,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Result<Option<Request>, Refusal> {
        if !self.peers.on() || from == SERVER || from.is_visitor() || self.acting.is_some() {
            return Ok(Some(request));
        }
        if !self.peers.afar.is_empty() {
            match &request {
                // Each host has credit of its own to give.
                Request::Qos { .. } | Request::Recover => {
                    self.tell_visits(from, channel, &request, out)?;
                    return Ok(Some(request));
                }
                Request::Cancel(consumer) => {
                    let found = self.peers.afar.consumer(from, channel, *consumer);
                    let Some((number, mailbox)) = found else { return Ok(Some(request)) };
                    // Asked again and again, it is answered here.
                    if self.peers.afar.visits[&number].asked.len() >= ASKED_MAX {
                        return Ok(Some(request));
                    }
                    let asked = Asked { mailbox, wish: Wish::Cancel(*consumer) };
                    self.ask(number, (channel, ticket), asked, request, out);
                    return Ok(None);
                }
                _ => {}
            }
        }
        let Some(name) = mailbox_of(&request) else { return Ok(Some(request)) };
        let (user, vhost) = self.whose(from)?;
        if self.find(&vhost, name).is_some() {
            return Ok(Some(request));
        }
        let Some(host) = self.home_of(&vhost, name).cloned() else { return Ok(Some(request)) };
        let mailbox = name.clone();
        let link = self.peers.neighbours.get(&host).and_then(|it| it.carrier);
        let (request, wish) = match request {
            Request::DeclareMailbox(declare) => {
                let answered = self.declare_mailbox(from, &declare, false, now, out)?;
                let here = self.find(&vhost, &mailbox).is_some();
                if here || link.is_none() || self.reply_address_lives(&vhost, &mailbox).is_some() {
                    self.answer(from, channel, ticket, Ok(answered), out);
                    return Ok(None);
                }
                (look(&mailbox), Wish::Declare(Box::new(declare)))
            }
            request => {
                self.check_afar(&user, &vhost, &mailbox, &request)?;
                let wish = match &request {
                    Request::Consume(consume) => Wish::Consume(consume.consumer),
                    _ => Wish::Other,
                };
                (request, wish)
            }
        };
        if let Request::Bind(bind) = &request {
            self.check_spans(&vhost, bind, &host)?;
        }
        let Some(link) = link else {
            return Err(Refusal::Inaccessible { host, name: mailbox, vhost });
        };
        let number = self.visit_at(from, &host, link, out)?;
        let full = self.peers.afar.visits[&number].asked.len() >= ASKED_MAX;
        if full || self.link_is_full(link) {
            return Err(too_much(&host));
        }
        self.use_channel(number, from, channel, out);
        if let Request::Bind(bind) = &request {
            self.bring_exchange(number, channel, &vhost, &bind.source, out);
        }
        if let Request::Consume(consume) = &request
            && let Some(visit) = self.peers.afar.visits.get_mut(&number)
        {
            visit.consumers.insert((channel, consume.consumer), mailbox.clone());
        }
        self.ask(number, (channel, ticket), Asked { mailbox, wish }, request, out);
        Ok(None)
    }

    /// The same that is asked of who uses a mailbox here. Its home takes this host's word for it.
    fn check_afar(
        &self,
        user: &Name,
        vhost: &Name,
        mailbox: &Name,
        request: &Request,
    ) -> Result<(), Refusal> {
        let check = |action, kind, name: &str| self.access.check(user, vhost, action, kind, name);
        match request {
            Request::DeleteMailbox { .. } => check(Action::Configure, Kind::Mailbox, mailbox),
            Request::Bind(BindingOf { source, key, .. })
            | Request::Unbind(BindingOf { source, key, .. }) => {
                if source.is_empty() {
                    return Err(Refusal::DefaultExchange);
                }
                check(Action::Write, Kind::Mailbox, mailbox)?;
                check(Action::Read, Kind::Exchange, source)?;
                self.access.check_topic(user, vhost, source, Action::Read, key)
            }
            Request::Consume(consume) => {
                check(Action::Read, Kind::Mailbox, mailbox)?;
                match dead_letter_exchange(consume) {
                    Some(exchange) => check(Action::Write, Kind::Exchange, &exchange),
                    None => Ok(()),
                }
            }
            _ => check(Action::Read, Kind::Mailbox, mailbox),
        }
    }

    /// The client's visit there, which begins with the first question.
    fn visit_at(
        &mut self,
        party: ConnectionId,
        host: &Name,
        link: ConnectionId,
        out: &mut Vec<Effect>,
    ) -> Result<u32, Refusal> {
        let known = self.peers.afar.parties.get(&party).and_then(|it| it.get(host));
        if let Some(number) = known {
            return Ok(*number);
        }
        let open = self.connections.get(&party).and_then(|it| it.open.as_deref());
        let Some(open) = open else { return Err(Refusal::NotAllowed("no connection".into())) };
        let open = Open {
            user: open.user.clone(),
            vhost: open.vhost.clone(),
            protocol: VISITOR_PROTOCOL,
            peer: open.peer.clone(),
            local: String::new(),
            client_name: None,
            client_properties: Table::new(),
            mechanism: "",
            strict_channels: false,
            cancel_notify: open.cancel_notify,
        };
        let afar = &mut self.peers.afar;
        let number = afar.begin(party, host, link, BTreeSet::new());
        afar.parties.entry(party).or_default().insert(host.clone(), number);
        self.tell(number, Command::Open(Box::new(open), NOBODY), out);
        Ok(number)
    }

    /// With its limit, if the channel has one.
    fn use_channel(
        &mut self,
        number: u32,
        party: ConnectionId,
        channel: ChannelId,
        out: &mut Vec<Effect>,
    ) {
        let limit = self.channel_mut(party, channel).limit;
        let Some(visit) = self.peers.afar.visits.get_mut(&number) else { return };
        if visit.channels.insert(channel) && limit > 0 {
            let qos = Request::Qos { limit, scope: QosScope::Channel };
            self.tell(number, Command::Request(channel, NOBODY, Box::new(qos)), out);
        }
    }

    /// What is published to the exchange here must find its way.
    fn check_spans(&self, vhost: &Name, bind: &BindingOf, host: &Name) -> Result<(), Refusal> {
        let exchange = self.vhosts.get(vhost).and_then(|it| it.exchanges.get(&bind.source));
        match exchange {
            Some(exchange) if !exchange.spans() => Err(Refusal::Precondition(format!(
                "exchange '{}' in vhost '{vhost}' of type '{}' does not reach queue '{}' on host '{host}'",
                bind.source,
                exchange.definition().kind,
                bind.destination.name()
            ))),
            _ => Ok(()),
        }
    }

    /// A binding is made where the mailbox lives, and the exchange must be there too.
    pub(in crate::broker::peer) fn bring_exchange(
        &mut self,
        number: u32,
        channel: ChannelId,
        vhost: &Name,
        name: &Name,
        out: &mut Vec<Effect>,
    ) {
        let exchange = self.vhosts.get(vhost).and_then(|it| it.exchanges.get(name));
        let Some(definition) = exchange.map(|it| it.definition()) else { return };
        if name.starts_with("amq.") {
            return;
        }
        let declare = DeclareExchange {
            name: name.clone(),
            kind: definition.kind.clone(),
            passive: false,
            durable: definition.durable,
            auto_delete: definition.auto_delete,
            internal: definition.internal,
            arguments: definition.arguments.clone(),
        };
        let request = Box::new(Request::DeclareExchange(declare));
        self.tell(number, Command::Request(channel, NOBODY, request), out);
    }

    pub(in crate::broker::peer) fn ask(
        &mut self,
        number: u32,
        place: (ChannelId, Ticket),
        asked: Asked,
        request: Request,
        out: &mut Vec<Effect>,
    ) {
        if let Some(visit) = self.peers.afar.visits.get_mut(&number) {
            visit.asked.insert(place, asked);
        }
        self.tell(number, Command::Request(place.0, place.1, Box::new(request)), out);
    }

    pub(in crate::broker::peer) fn tell(
        &mut self,
        number: u32,
        command: Command,
        out: &mut Vec<Effect>,
    ) {
        let Some(visit) = self.peers.afar.visits.get(&number) else { return };
        let link = self.connections.entry(visit.link).or_default();
        link.in_flight += 1;
        link.in_flight_bytes += ASK_SIZE;
        let event = PeerEvent::Ask { visit: number, command };
        out.push(Effect::Notify(visit.link, Event::Peer(event)));
    }

    pub(super) fn link_is_full(&self, link: ConnectionId) -> bool {
        let most = self.settings.window_deliveries.saturating_mul(WINDOWS_MAX);
        self.connections.get(&link).is_some_and(|it| it.in_flight >= most)
    }

    /// What is done here and there.
    fn tell_visits(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        request: &Request,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let all: Vec<_> = self.peers.afar.with_channel(from, channel).collect();
        for number in &all {
            let Some(visit) = self.peers.afar.visits.get(number) else { continue };
            if self.link_is_full(visit.link) {
                return Err(too_much(&visit.host));
            }
        }
        for number in all {
            let request = match request {
                Request::Qos { limit, scope } => Request::Qos { limit: *limit, scope: *scope },
                _ => {
                    self.peers.afar.drop_held(number, channel);
                    Request::Recover
                }
            };
            self.tell(number, Command::Request(channel, NOBODY, Box::new(request)), out);
        }
        Ok(())
    }

    pub(in crate::broker::peer) fn answer(
        &mut self,
        party: ConnectionId,
        channel: ChannelId,
        ticket: Ticket,
        result: Result<Reply, Refusal>,
        out: &mut Vec<Effect>,
    ) {
        if result.is_err() {
            self.mark_failed(party, channel);
        }
        out.push(Effect::NotifyDurable(party, Event::Reply { channel, ticket, result }));
    }
}

fn too_much(host: &Name) -> Refusal {
    Refusal::Precondition(format!("host '{host}' has too much to answer"))
}

/// The mailbox that a request is about, where its home can answer it.
fn mailbox_of(request: &Request) -> Option<&Name> {
    match request {
        Request::DeclareMailbox(declare) => Some(&declare.name),
        Request::DeleteMailbox { name, .. } | Request::PurgeMailbox { name } => Some(name),
        Request::Bind(BindingOf { destination: Destination::Mailbox(name), .. })
        | Request::Unbind(BindingOf { destination: Destination::Mailbox(name), .. }) => Some(name),
        Request::Consume(consume) => Some(&consume.mailbox),
        Request::Browse(browse) => Some(&browse.mailbox),
        Request::Get { mailbox, .. } | Request::DeleteCursor { mailbox, .. } => Some(mailbox),
        Request::Retime(retime) => Some(&retime.mailbox),
        Request::SeekCursor(seek) => Some(&seek.mailbox),
        _ => None,
    }
}

/// Whether it is there, and how much is in it.
fn look(name: &Name) -> Request {
    Request::DeclareMailbox(DeclareMailbox::look(name.clone()))
}

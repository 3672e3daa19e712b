//! How visits end, and what becomes of those who were on them.

use super::{Asked, NOBODY, Visit, Wish};
use crate::broker::Broker;
use crate::broker::command::{ChannelId, Command, ConnectionId, Open, Request, Ticket};
use crate::broker::event::{Effect, Event, Reply};
use crate::broker::name::Time;
use crate::broker::refusal::{Action, Kind, Refusal};

impl Broker {
    /// The channel is closed here, and so it is there.
    pub(in crate::broker) fn close_channel_afar(
        &mut self,
        from: ConnectionId,
        channel: ChannelId,
        out: &mut Vec<Effect>,
    ) {
        let all: Vec<_> = self.peers.afar.with_channel(from, channel).collect();
        for number in all {
            self.tell(number, Command::CloseChannel(channel, NOBODY), out);
            self.peers.afar.drop_held(number, channel);
            let Some(visit) = self.peers.afar.visits.get_mut(&number) else { continue };
            visit.channels.remove(&channel);
            visit.consumers.retain(|(of, _), _| *of != channel);
            let place = |ticket| (channel, Ticket(ticket));
            let asked: Vec<_> =
                visit.asked.extract_if(place(0)..=place(u64::MAX), |_, _| true).collect();
            for ((_, ticket), asked) in asked {
                // Its consumers are gone, as was asked; who asked for something else, asks no more.
                if let Wish::Cancel(_) = asked.wish {
                    self.answer(from, channel, ticket, Ok(Reply::Done), out);
                }
            }
        }
    }

    /// The client is gone.
    pub(in crate::broker) fn leave_afar(&mut self, from: ConnectionId, out: &mut Vec<Effect>) {
        for number in self.peers.afar.of(from) {
            self.tell(number, Command::Close(None), out);
            self.forget_visit(number);
        }
    }

    /// The link is gone: visits over it are over.
    pub(in crate::broker) fn lose_link(&mut self, link: ConnectionId, out: &mut Vec<Effect>) {
        let over = self.peers.afar.visits.iter().filter(|(_, visit)| visit.link == link);
        let over: Vec<u32> = over.map(|(number, _)| *number).collect();
        for number in over {
            self.end_visit(number, out);
        }
    }

    pub(in crate::broker::peer) fn forget_visit(&mut self, number: u32) -> Option<Visit> {
        let afar = &mut self.peers.afar;
        let visit = afar.visits.remove(&number)?;
        for alias in visit.known.values() {
            afar.aliases.remove(alias);
        }
        if let Some(hosts) = afar.parties.get_mut(&visit.party) {
            hosts.remove(&visit.host);
            if hosts.is_empty() {
                afar.parties.remove(&visit.party);
            }
        }
        Some(visit)
    }

    /// Its home let go of it: consumers end, and what was asked is refused.
    pub(super) fn end_visit(&mut self, number: u32, out: &mut Vec<Effect>) {
        let Some(mut visit) = self.forget_visit(number) else { return };
        let vhost = self.whose(visit.party).map_or_else(|_| "".into(), |(_, vhost)| vhost);
        for ((channel, ticket), Asked { mailbox, wish }) in visit.asked {
            let result = match wish {
                Wish::Move(mover) => {
                    let text = format!("the link to host '{}' broke: ask again", visit.host);
                    let result = Err(Refusal::Precondition(text));
                    self.tell_mover(number, &mailbox, mover, result, Time::ZERO, out);
                    continue;
                }
                // As it is answered while the host is away.
                Wish::Declare(_) => Ok(Reply::Declared { name: mailbox, ready: 0, consumers: 0 }),
                Wish::Cancel(consumer) => {
                    visit.consumers.remove(&(channel, consumer));
                    Ok(Reply::Done)
                }
                Wish::Consume(consumer) => {
                    visit.consumers.remove(&(channel, consumer));
                    let (host, vhost) = (visit.host.clone(), vhost.clone());
                    Err(Refusal::Inaccessible { host, name: mailbox, vhost })
                }
                Wish::Other => {
                    let (host, vhost) = (visit.host.clone(), vhost.clone());
                    Err(Refusal::Inaccessible { host, name: mailbox, vhost })
                }
            };
            self.answer(visit.party, channel, ticket, result, out);
        }
        for (channel, consumer) in visit.consumers.into_keys() {
            out.push(Effect::Notify(visit.party, Event::Cancelled { channel, consumer }));
        }
    }

    /// Consumers of mailboxes elsewhere whose users may not read them any longer are ended.
    pub(in crate::broker) fn end_forbidden_afar(
        &mut self,
        concerns: impl Fn(ConnectionId, &Open) -> bool,
        out: &mut Vec<Effect>,
    ) {
        let mut forbidden = Vec::new();
        for (number, visit) in &self.peers.afar.visits {
            let open = self.connections.get(&visit.party).and_then(|it| it.open.as_deref());
            let Some(open) = open.filter(|open| concerns(visit.party, open)) else { continue };
            for (place, name) in &visit.consumers {
                let (user, vhost) = (&open.user, &open.vhost);
                if self.access.check(user, vhost, Action::Read, Kind::Mailbox, name).is_err() {
                    forbidden.push((*number, visit.party, *place));
                }
            }
        }
        for (number, party, (channel, consumer)) in forbidden {
            if let Some(visit) = self.peers.afar.visits.get_mut(&number) {
                visit.consumers.remove(&(channel, consumer));
            }
            let cancel = Box::new(Request::Cancel(consumer));
            self.tell(number, Command::Request(channel, NOBODY, cancel), out);
            out.push(Effect::Notify(party, Event::Cancelled { channel, consumer }));
        }
    }
}

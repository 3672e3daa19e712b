//! Connections, channels and consumers, and the end of connections.

use std::collections::BTreeMap;

use super::{Answer, Answered, Question};
use crate::broker::inspect::{
    ChannelView, ConnectionView, ConsumerView, Inspect, Inspection, SLICE_MAX,
};
use crate::broker::{ConnectionId, Name, Request};
use crate::management::Fault;
use crate::management::json as show;

/// What a connection is told that an operator closes.
const REASON: &str = "Closed via management plugin";
const REASON_MAX: usize = 200;

impl Question<'_> {
    pub(super) async fn all_connections(&self) -> Result<Vec<ConnectionView>, Fault> {
        let mut all: Vec<ConnectionView> = Vec::new();
        loop {
            let after = all.last().map(|it| it.id);
            let inspect = Inspect::Connections { after, count: SLICE_MAX };
            let Inspection::Connections(found) = self.estate.desk.inspect(inspect).await? else {
                break;
            };
            let last = found.len() < SLICE_MAX;
            all.extend(found);
            if last {
                break;
            }
        }
        Ok(all)
    }

    /// Those that the guest may see: everybody's, or the own.
    async fn visible_connections(&self) -> Result<Vec<ConnectionView>, Fault> {
        let mut all = self.all_connections().await?;
        let (sees_all, user) = (self.guest.tags.sees_all(), &self.guest.user);
        all.retain(|it| sees_all || it.user == *user);
        Ok(all)
    }

    pub(super) async fn connections(&self) -> Answered {
        let mut all = self.visible_connections().await?;
        if self.captures.get("vhost").is_some() {
            let vhost = self.name("vhost")?;
            self.find_vhost(&vhost).await?;
            all.retain(|it| it.vhost == vhost);
        }
        if let Some(user) = self.captures.get("user") {
            all.retain(|it| it.user == user);
        }
        let host = self.estate.host().await?;
        let estate = self.estate.clone();
        let named: Vec<(String, ConnectionView)> =
            all.into_iter().map(|it| (show::connection_name(&it.peer, &it.local), it)).collect();
        let json = move |(_, view): &(String, ConnectionView)| {
            show::connection(view, estate.register.facts(view.id), &estate.samples(), &host)
        };
        self.many(named, |it| &it.0, json).await
    }

    async fn find_connection(&self, name: &str) -> Result<ConnectionView, Fault> {
        let all = self.visible_connections().await?;
        let found = all.into_iter().find(|it| show::connection_name(&it.peer, &it.local) == name);
        found.ok_or_else(Fault::not_found)
    }

    pub(super) async fn connection(&self) -> Answered {
        let view = self.find_connection(self.text("name")).await?;
        let host = self.estate.host().await?;
        let facts = self.estate.register.facts(view.id);
        let value = show::connection(&view, facts, &self.estate.samples(), &host);
        Ok(Answer::Json(self.query.selection()?.one(value)))
    }

    pub(super) async fn close_connection(&self) -> Answered {
        let view = self.find_connection(self.text("name")).await?;
        if view.user != self.guest.user && !self.guest.tags.administrator {
            return Err(Fault::not_authorised("Not administrator user"));
        }
        self.disconnect(view.id).await?;
        Ok(Answer::NoContent)
    }

    pub(super) async fn close_user_connections(&self) -> Answered {
        for view in self.all_connections().await? {
            if view.user == self.text("user") {
                self.disconnect(view.id).await?;
            }
        }
        Ok(Answer::NoContent)
    }

    async fn disconnect(&self, connection: ConnectionId) -> Result<(), Fault> {
        let given = self.headers.get("x-reason").and_then(|it| it.to_str().ok());
        let reason: String = given.unwrap_or(REASON).chars().take(REASON_MAX).collect();
        self.estate.desk.ask(Request::Disconnect { connection, reason }).await.map(|_| ())
    }

    async fn all_channels(&self) -> Result<Vec<ChannelView>, Fault> {
        let mut all: Vec<ChannelView> = Vec::new();
        loop {
            let after = all.last().map(|it| (it.connection, it.channel));
            let inspect = Inspect::Channels { after, count: SLICE_MAX };
            let Inspection::Channels(found) = self.estate.desk.inspect(inspect).await? else {
                break;
            };
            let last = found.len() < SLICE_MAX;
            all.extend(found);
            if last {
                break;
            }
        }
        let (sees_all, user) = (self.guest.tags.sees_all(), &self.guest.user);
        all.retain(|it| sees_all || it.user == *user);
        Ok(all)
    }

    pub(super) async fn channels(&self) -> Answered {
        let mut all = self.all_channels().await?;
        if self.captures.get("vhost").is_some() {
            let vhost = self.name("vhost")?;
            self.find_vhost(&vhost).await?;
            all.retain(|it| it.vhost == vhost);
        }
        if let Some(name) = self.captures.get("name") {
            let connection = self.find_connection(name).await?.id;
            all.retain(|it| it.connection == connection);
        }
        let host = self.estate.host().await?;
        let estate = self.estate.clone();
        let named: Vec<(String, ChannelView)> =
            all.into_iter().map(|it| (channel_name(&it), it)).collect();
        let json =
            move |(_, view): &(String, ChannelView)| show::channel(view, &estate.samples(), &host);
        self.many(named, |it| &it.0, json).await
    }

    pub(super) async fn channel(&self) -> Answered {
        let all = self.all_channels().await?;
        let found = all.into_iter().find(|it| channel_name(it) == self.text("name"));
        let view = found.ok_or_else(Fault::not_found)?;
        let host = self.estate.host().await?;
        let value = show::channel(&view, &self.estate.samples(), &host);
        Ok(Answer::Json(self.query.selection()?.one(value)))
    }

    pub(super) async fn consumers(&self) -> Answered {
        let mut all: Vec<(Name, ConsumerView)> = Vec::new();
        for vhost in self.vhosts().await? {
            let mut after = None;
            loop {
                let inspect =
                    Inspect::AllConsumers { vhost: vhost.clone(), after, count: SLICE_MAX };
                let Inspection::Consumers(found) = self.estate.desk.inspect(inspect).await? else {
                    break;
                };
                after = found.last().map(|it| it.mailbox.clone());
                let last = found.len() < SLICE_MAX;
                all.extend(found.into_iter().map(|it| (vhost.clone(), it)));
                if last {
                    break;
                }
            }
        }
        let connections: BTreeMap<ConnectionId, ConnectionView> =
            self.all_connections().await?.into_iter().map(|it| (it.id, it)).collect();
        let host = self.estate.host().await?;
        let json = move |(vhost, view): &(Name, ConsumerView)| {
            show::consumer(view, vhost, connections.get(&view.connection).cloned(), &host)
        };
        self.many(all, |it| &it.1.tag, json).await
    }
}

fn channel_name(view: &ChannelView) -> String {
    format!("{} ({})", show::connection_name(&view.peer, &view.local), view.channel.0)
}

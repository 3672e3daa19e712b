//! Hosts in Consul's key-value store: a key for each, held by a session that ends when its host is no longer heard of.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::directory::{Directory, DirectoryError, entry, read_entry};
use super::http::{Client, garbage};
use crate::config::{DirectoryUrl, Peers};
use crate::peers::{Host, Sighting, Source};

/// Of answers that need not wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// Consul's own bounds are 10 seconds and a day.
const TTL_MIN: Duration = Duration::from_secs(10);
const TTL_MAX: Duration = Duration::from_secs(3600);

pub(super) struct Consul {
    client: Client,
    prefix: String,
    ttl: Duration,
    patience: Duration,
    /// Holds this host's key.
    session: Option<String>,
    /// Of the last list; the next waits for a later one.
    index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Session {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    key: String,
    value: Option<String>,
    session: Option<String>,
}

impl Consul {
    pub(super) fn new(url: &DirectoryUrl, settings: &Peers) -> Self {
        let mut client = Client::new(url.0.clone());
        if let Some(token) = &settings.consul_token {
            client = client.with("x-consul-token", token.reveal());
        }
        Self {
            client,
            prefix: settings.directory_prefix.as_str().to_owned(),
            ttl: settings.directory_ttl.0.clamp(TTL_MIN, TTL_MAX),
            patience: PATIENCE,
            session: None,
            index: 0,
        }
    }

    fn key(&self, me: &Host) -> String {
        format!("{}/{}", self.prefix, me.id)
    }

    async fn put(&self, path: &str, body: String) -> Result<super::http::Answer, DirectoryError> {
        self.client.ask(Method::PUT, path, body, self.patience).await
    }

    /// Renews the session; a new one takes this host's key.
    async fn write_down(&mut self, me: &Host) -> Result<(), DirectoryError> {
        if let Some(session) = &self.session {
            let renewed = self.put(&format!("/v1/session/renew/{session}"), String::new()).await?;
            if renewed.status != StatusCode::NOT_FOUND {
                renewed.accepted()?;
                return Ok(());
            }
            self.session = None;
        }
        let wanted = serde_json::json!({
            "Name": format!("pillarbox {}", me.name),
            "TTL": format!("{}s", self.ttl.as_secs()),
            "Behavior": "delete",
            "LockDelay": "0s",
        });
        let created = self.put("/v1/session/create", wanted.to_string()).await?.accepted()?;
        let Session { id } = created.json()?;
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(garbage("a session's id"));
        }
        if !self.acquire(me, &id).await? {
            // The session of an earlier start has not run out yet.
            self.release(me).await?;
            if !self.acquire(me, &id).await? {
                return Err(garbage("the key of this host is held by somebody else"));
            }
        }
        self.session = Some(id);
        Ok(())
    }

    async fn acquire(&self, me: &Host, session: &str) -> Result<bool, DirectoryError> {
        let path = format!("/v1/kv/{}?acquire={session}", self.key(me));
        self.put(&path, entry(me)).await?.accepted()?.json()
    }

    async fn release(&self, me: &Host) -> Result<(), DirectoryError> {
        let path = format!("/v1/kv/{}", self.key(me));
        let found = self.client.ask(Method::GET, &path, String::new(), self.patience).await?;
        if found.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        let pairs: Vec<Pair> = found.accepted()?.json()?;
        for session in pairs.into_iter().filter_map(|it| it.session) {
            self.put(&format!("/v1/session/destroy/{session}"), String::new()).await?.accepted()?;
        }
        Ok(())
    }

    async fn list(&mut self, me: &Host) -> Result<Vec<Sighting>, DirectoryError> {
        let wait = self.ttl / 3;
        let path = format!(
            "/v1/kv/{}/?recurse=true&index={}&wait={}s",
            self.prefix,
            self.index,
            wait.as_secs()
        );
        let patience = self.patience + wait + wait / 16;
        let listed = self.client.ask(Method::GET, &path, String::new(), patience).await?;
        let index = listed.headers.get("x-consul-index").and_then(|it| it.to_str().ok());
        let index: u64 = index.and_then(|it| it.parse().ok()).unwrap_or(0);
        let pairs: Vec<Pair> = match listed.status {
            StatusCode::NOT_FOUND => Vec::new(),
            _ => listed.accepted()?.json()?,
        };
        // Consul was restored or began anew: what was waited for may never come.
        self.index = if index < self.index { 0 } else { index };
        let mine = self.key(me);
        if self.session.is_some() && !pairs.iter().any(|it| it.key == mine) {
            self.session = None;
            self.index = 0;
        }
        let values = pairs.into_iter().filter_map(|it| STANDARD.decode(it.value?).ok());
        Ok(values.filter_map(|it| read_entry(&it)).collect())
    }
}

impl Directory for Consul {
    fn source(&self) -> Source {
        Source::Consul
    }

    async fn look(&mut self, me: &Host) -> Result<Vec<Sighting>, DirectoryError> {
        // Nothing to write down of a host that nobody can dial.
        if me.address.is_some() {
            self.write_down(me).await?;
        }
        let listed = self.list(me).await;
        if listed.is_err() {
            self.index = 0;
        }
        listed
    }

    async fn leave(&mut self) -> Result<(), DirectoryError> {
        if let Some(session) = self.session.take() {
            self.put(&format!("/v1/session/destroy/{session}"), String::new()).await?.accepted()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

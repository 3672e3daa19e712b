//! Hosts in etcd: a key for each, under a lease that ends when its host is no longer heard of. Over etcd's JSON gateway.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::directory::{Directory, DirectoryError, entry, read_entry};
use super::http::{BODY_MAX, Client, garbage};
use crate::config::{DirectoryUrl, Peers};
use crate::peers::{Host, Sighting, Source};

/// Of answers that need not wait.
const PATIENCE: Duration = Duration::from_secs(5);
const TTL_MIN: Duration = Duration::from_secs(10);
const TTL_MAX: Duration = Duration::from_secs(3600);
/// As many as this host takes from a source.
const HOSTS_MAX: u32 = 1000;

pub(super) struct Etcd {
    client: Client,
    prefix: String,
    ttl: Duration,
    patience: Duration,
    /// This host's key goes with it.
    lease: Option<i64>,
    /// Of the last list; the next waits for a later one.
    revision: i64,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(rename = "ID", deserialize_with = "number")]
    id: i64,
}

/// What streams are made of.
#[derive(Deserialize)]
struct Said<T> {
    result: T,
}

#[derive(Deserialize)]
struct Alive {
    /// Missing where the lease has run out.
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    ttl: i64,
}

#[derive(Deserialize)]
struct Listed {
    header: Header,
    #[serde(default)]
    kvs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "number")]
    revision: i64,
}

#[derive(Deserialize)]
struct Pair {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Watched {
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    events: Vec<Value>,
}

/// Whole numbers of 64 bits are texts in this JSON.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let read = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    read.ok_or_else(|| serde::de::Error::custom("not a whole number"))
}

impl Etcd {
    pub(super) fn new(url: &DirectoryUrl, settings: &Peers) -> Self {
        Self {
            client: Client::new(url.0.clone()),
            prefix: settings.directory_prefix.as_str().to_owned(),
            ttl: settings.directory_ttl.0.clamp(TTL_MIN, TTL_MAX),
            patience: PATIENCE,
            lease: None,
            revision: 0,
        }
    }

    fn key(&self, me: &Host) -> String {
        STANDARD.encode(format!("{}/{}", self.prefix, me.id))
    }

    /// All keys of hosts, as etcd writes ranges.
    fn range(&self) -> (String, String) {
        let end = format!("{}{}", self.prefix, char::from(b'/' + 1));
        (STANDARD.encode(format!("{}/", self.prefix)), STANDARD.encode(end))
    }

    async fn post(&self, path: &str, body: Value) -> Result<super::http::Answer, DirectoryError> {
        self.client.ask(Method::POST, path, body.to_string(), self.patience).await?.accepted()
    }

    /// Renews the lease; under a new one this host's key is put again.
    async fn write_down(&mut self, me: &Host) -> Result<(), DirectoryError> {
        if let Some(lease) = self.lease {
            let body = json!({ "ID": lease.to_string() });
            let Said { result: Alive { ttl } } =
                self.post("/v3/lease/keepalive", body).await?.json()?;
            if ttl > 0 {
                return Ok(());
            }
            self.lease = None;
        }
        let body = json!({ "TTL": self.ttl.as_secs().to_string() });
        let Granted { id } = self.post("/v3/lease/grant", body).await?.json()?;
        let value = STANDARD.encode(entry(me));
        let body = json!({ "key": self.key(me), "value": value, "lease": id.to_string() });
        self.post("/v3/kv/put", body).await?;
        self.lease = Some(id);
        Ok(())
    }

    /// Returns when something changed after the last list, or after a while.
    async fn news(&self) -> Result<(), DirectoryError> {
        let (key, range_end) = self.range();
        let start = (self.revision + 1).to_string();
        let body = json!({
            "create_request": { "key": key, "range_end": range_end, "start_revision": start }
        });
        let opened = self.client.open(Method::POST, "/v3/watch", body.to_string());
        let mut stream =
            timeout(self.patience, opened).await.map_err(|_| DirectoryError::Slow)??;
        let status = stream.status();
        if !status.is_success() {
            let text = "it does not let this host watch".to_owned();
            return Err(DirectoryError::Refused { status: status.as_u16(), text });
        }
        let mut line = Vec::new();
        while let Some(part) = stream.next().await? {
            for byte in part {
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > BODY_MAX {
                        return Err(DirectoryError::TooLong(BODY_MAX));
                    }
                    continue;
                }
                let Said { result: Watched { canceled, events } } =
                    serde_json::from_slice(&line).map_err(garbage)?;
                // What is asked for may be forgotten there: the list that follows tells all.
                if canceled || !events.is_empty() {
                    return Ok(());
                }
                line.clear();
            }
        }
        Ok(())
    }

    async fn list(&mut self, me: &Host) -> Result<Vec<Sighting>, DirectoryError> {
        if self.revision > 0
            && let Ok(news) = timeout(self.ttl / 3, self.news()).await
        {
            news?;
        }
        let (key, range_end) = self.range();
        let body = json!({ "key": key, "range_end": range_end, "limit": HOSTS_MAX.to_string() });
        let Listed { header, kvs } = self.post("/v3/kv/range", body).await?.json()?;
        self.revision = header.revision.clamp(0, i64::MAX - 1);
        let mine = self.key(me);
        if self.lease.is_some() && !kvs.iter().any(|it| it.key == mine) {
            // It began anew, or somebody took this host out.
            self.lease = None;
            self.revision = 0;
        }
        let values = kvs.into_iter().filter_map(|it| STANDARD.decode(it.value).ok());
        Ok(values.filter_map(|it| read_entry(&it)).collect())
    }
}

impl Directory for Etcd {
    fn source(&self) -> Source {
        Source::Etcd
    }

    async fn look(&mut self, me: &Host) -> Result<Vec<Sighting>, DirectoryError> {
        // Nothing to write down of a host that nobody can dial.
        if me.address.is_some() {
            self.write_down(me).await?;
        }
        let listed = self.list(me).await;
        if listed.is_err() {
            self.revision = 0;
        }
        listed
    }

    async fn leave(&mut self) -> Result<(), DirectoryError> {
        if let Some(lease) = self.lease.take() {
            self.post("/v3/lease/revoke", json!({ "ID": lease.to_string() })).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

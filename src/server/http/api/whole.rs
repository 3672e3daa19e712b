//! The broker as a whole: its names, versions and this host.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Answer, Answered, Question};
use crate::broker::inspect::{Inspect, Inspection};
use crate::broker::routing::Exchange;
use crate::broker::{Definition, Fate, ParameterDefinition, Reply, Request};
use crate::management::Fault;
use crate::management::definitions::GLOBAL;
use crate::management::json::{self as show, RABBITMQ_VERSION};
use crate::management::memory;

pub(super) fn version() -> Value {
    RABBITMQ_VERSION.into()
}

pub(super) fn auth_kind() -> Answer {
    Answer::Json(json!({"oauth_enabled": false}))
}

pub(super) fn feature_flags() -> Answer {
    let flags = [
        "classic_mirrored_queue_version",
        "implicit_default_bindings",
        "quorum_queue",
        "stream_queue",
        "user_limits",
        "virtual_host_metadata",
    ];
    let flag = |name: &&str| json!({"name": name, "desc": "", "doc_url": "", "state": "enabled", "stability": "required", "provided_by": "pillarbox"});
    Answer::Json(flags.iter().map(flag).collect())
}

impl Question<'_> {
    pub(super) async fn overview(&self) -> Answered {
        let (overview, host) = (self.estate.overview().await?, self.estate.host().await?);
        let points =
            self.query.get("msg_rates_age").or_else(|| self.query.get("lengths_age")).is_some();
        let samples = self.estate.samples();
        let value = show::overview(&overview, &samples, &host, &Exchange::KINDS, points);
        Ok(Answer::Json(self.query.selection()?.one(value)))
    }

    pub(super) fn whoami(&self) -> Answer {
        let tags = &self.guest.credential.tags;
        Answer::Json(json!({
            "name": self.guest.user.as_str(),
            "tags": tags,
            "is_internal_user": true,
        }))
    }

    /// RabbitMQ's form: base64 of four bytes of salt, and the SHA-256 of salt and password.
    pub(super) fn hash_password(&self) -> Answered {
        let mut salt = [0; 4];
        getrandom::fill(&mut salt).map_err(|error| Fault::unavailable(error.to_string()))?;
        let password = self.text("password");
        let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
        let hash = STANDARD.encode([&salt[..], digest.as_slice()].concat());
        Ok(Answer::Json(json!({"ok": hash})))
    }

    pub(super) async fn cluster_name(&self) -> Answered {
        let name = self.estate.host().await?.cluster;
        Ok(Answer::Json(json!({"name": name})))
    }

    pub(super) async fn set_cluster_name(&self) -> Answered {
        let object = self.object()?;
        let name = Self::fields(&object).needed("name")?;
        self.define(Definition::Parameter(ParameterDefinition {
            vhost: None,
            component: GLOBAL.into(),
            name: "cluster_name".into(),
            value: Value::from(name).to_string(),
        }))
        .await?;
        Ok(Answer::NoContent)
    }

    pub(super) async fn nodes(&self) -> Answered {
        let named = vec![(self.estate.node().to_owned(), self.this_node().await?)];
        Ok(Answer::Json(self.query.selection()?.list(named, |it| &it.0, |it| it.1)?))
    }

    pub(super) async fn node(&self) -> Answered {
        self.check_node()?;
        Ok(Answer::Json(self.query.selection()?.one(self.this_node().await?)))
    }

    pub(super) async fn peers(&self) -> Answered {
        let (found, now) = (self.estate.peers().await?, self.estate.clock.now());
        let all = found.iter().map(|it| crate::management::peers::peer(it, now)).collect();
        Ok(Answer::Json(Value::Array(all)))
    }

    pub(super) async fn forget_peer(&self) -> Answered {
        let fate = match self.query.get("messages") {
            None => Fate::Absent,
            Some("drop") => Fate::Dropped,
            Some(other) => {
                let text = format!("messages can be dropped, not '{other}'");
                return Err(Fault::bad_request(text));
            }
        };
        self.end_peer(fate).await
    }

    pub(super) async fn redirect_peer(&self) -> Answered {
        let object = self.object()?;
        let to = Self::fields(&object).text("to")?;
        self.end_peer(to.map_or(Fate::Routed, |to| Fate::SentTo(to.into()))).await
    }

    pub(super) async fn drain(&self) -> Answered {
        let object = self.object()?;
        let leave = Self::fields(&object).flag("leave", false)?;
        self.estate.desk.ask(Request::Drain { leave }).await?;
        self.drain_state().await
    }

    pub(super) async fn drain_state(&self) -> Answered {
        match self.estate.desk.inspect(Inspect::Drain).await? {
            Inspection::Drain(view) => Ok(Answer::Json(crate::management::peers::drain(&view))),
            _ => Ok(Answer::NoContent),
        }
    }

    async fn end_peer(&self, fate: Fate) -> Answered {
        let host = self.name("name")?;
        if !self.estate.peers().await?.iter().any(|it| it.host == host) {
            return Err(Fault::not_found());
        }
        match self.estate.desk.ask(Request::ForgetPeer { host, fate }).await? {
            Reply::Counted(messages) => Ok(Answer::Json(json!({"messages": messages}))),
            _ => Ok(Answer::NoContent),
        }
    }

    pub(super) async fn node_memory(&self, relative: bool) -> Answered {
        self.check_node()?;
        let host = self.estate.host().await?;
        let overview = self.estate.overview().await?;
        let shown = if relative { memory::shares } else { memory::breakdown };
        Ok(Answer::Json(json!({"memory": shown(&overview, &host)})))
    }

    fn check_node(&self) -> Result<(), Fault> {
        if self.text("node") == self.estate.node() { Ok(()) } else { Err(Fault::not_found()) }
    }

    async fn this_node(&self) -> Result<Value, Fault> {
        let (overview, host) = (self.estate.overview().await?, self.estate.host().await?);
        Ok(show::node(&overview, &host, &Exchange::KINDS))
    }
}

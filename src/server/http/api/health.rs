//! Checks for who watches the broker: 200, or 503 with a reason.

use std::sync::Arc;

use serde_json::json;

use super::{Answer, Answered, Question};
use crate::broker::{
    Definition, DefinitionKind, Message, NEUTRAL, Name, Properties, Reply, Request, Source,
};
use crate::management::Fault;
use crate::management::definitions::declare_mailbox;

pub(super) fn ok() -> Answer {
    Answer::Json(json!({"status": "ok"}))
}

fn failed(reason: &str) -> Answer {
    Answer::Failed(json!({"status": "failed", "reason": reason}))
}

impl Question<'_> {
    /// The broker answers: all that some of RabbitMQ's checks can find out here.
    pub(super) async fn health_answers(&self) -> Answered {
        self.estate.alarm().await?;
        Ok(ok())
    }

    pub(super) async fn health_alarms(&self) -> Answered {
        Ok(match self.estate.alarm().await? {
            None => ok(),
            Some(alarm) => failed(alarm),
        })
    }

    /// Whether the certificate of the listeners with TLS ends within that time.
    pub(super) fn health_certificates(&self) -> Answered {
        let within = self.text("within").parse::<u32>().ok().filter(|within| *within > 0);
        let days = match self.text("unit") {
            "days" => Some(1),
            "weeks" => Some(7),
            "months" => Some(30),
            "years" => Some(365),
            _ => None,
        };
        let (Some(within), Some(days)) = (within, days) else {
            return Err(Fault::bad_request("Invalid expiration unit or time"));
        };
        let Some(expires) = self.estate.certificate_expires() else { return Ok(ok()) };
        let now = i64::try_from(self.estate.clock.now().seconds()).unwrap_or(i64::MAX);
        if expires > now.saturating_add(i64::from(within) * days * 86_400) {
            return Ok(ok());
        }
        let tls = self.estate.listeners().iter().filter(|it| it.protocol.ends_with("-tls"));
        let listeners = tls.map(|it| {
            json!({
                "node": self.estate.node(), "protocol": it.protocol, "interface": it.ip, "port": it.port,
                "certfile_expires_on": [expires],
            })
        });
        let expired: Vec<_> = listeners.collect();
        let reason = "Certificates expiring";
        Ok(Answer::Failed(json!({"status": "failed", "reason": reason, "expired": expired})))
    }

    pub(super) fn health_port(&self) -> Answered {
        let port = self.text("port").parse::<u16>();
        let port = port.map_err(|_| Fault::bad_request("a port is a number up to 65535"))?;
        if self.estate.listeners().iter().any(|it| it.port == port) {
            return Ok(Answer::Json(json!({"status": "ok", "port": port})));
        }
        let ports: Vec<u16> = self.estate.listeners().iter().map(|it| it.port).collect();
        let reason = "No active listener";
        let missing =
            json!({"status": "failed", "reason": reason, "missing": port, "ports": ports});
        Ok(Answer::Failed(missing))
    }

    pub(super) fn health_protocol(&self) -> Answered {
        let asked = self.text("protocol").to_ascii_lowercase();
        let own = match asked.as_str() {
            "amqp091" | "amqp0-9-1" => "amqp",
            "amqp/ssl" | "amqps" => "amqp-tls",
            "stomp/ssl" => "stomp-tls",
            "https" => "http-tls",
            "http/web-stomp" => "http",
            other => other,
        };
        let listeners = self.estate.listeners();
        if listeners.iter().any(|it| it.protocol == own) {
            return Ok(Answer::Json(json!({"status": "ok", "protocol": asked})));
        }
        let protocols: Vec<&str> = listeners.iter().map(|it| it.protocol).collect();
        let reason = "No active listener";
        Ok(Answer::Failed(
            json!({"status": "failed", "reason": reason, "missing": asked, "protocols": protocols}),
        ))
    }

    pub(super) async fn health_connections(&self) -> Answered {
        let host = self.estate.host().await?;
        let (most, open) = (host.process.connections_max, self.estate.register.all().len() as u64);
        Ok(if open < most { ok() } else { failed("the connection limit is reached") })
    }

    /// Declares a mailbox, publishes to it and reads from it, with the guest's rights.
    pub(super) async fn aliveness_test(&self) -> Answered {
        let vhost = self.name("vhost")?;
        self.find_vhost(&vhost).await?;
        let queue = Name::from("aliveness-test");
        let object = serde_json::Map::new();
        let declare = declare_mailbox(queue.clone(), &Self::fields(&object))?;
        let ask = |request| self.estate.desk.ask_for(&self.guest.user, &vhost, request);
        ask(Request::DeclareMailbox(declare)).await?;
        let message = Message::build(&Source {
            exchange: &"".into(),
            key: queue.as_bytes(),
            properties: &Properties::default(),
            body: b"test_message",
            form: &NEUTRAL,
            persistent: false,
            accepted: self.estate.clock.now(),
        });
        ask(Request::Post(Arc::new(message))).await?;
        match ask(Request::Get { mailbox: queue, no_ack: true }).await? {
            Reply::Got(Some(_)) => Ok(ok()),
            _ => Ok(failed("the message did not come back")),
        }
    }

    pub(super) async fn find_vhost(
        &self,
        name: &Name,
    ) -> Result<crate::broker::VhostDefinition, Fault> {
        let found = self.estate.definitions(DefinitionKind::Vhost, Some(name)).await?;
        let found = found.into_iter().find_map(|it| match it {
            Definition::Vhost(it) if it.name == *name => Some(it),
            _ => None,
        });
        found.ok_or_else(Fault::not_found)
    }
}

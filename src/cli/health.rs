//! `pillarbox health`: whether the broker serves clients.

use clap::Args;
use serde_json::json;

use super::broker::Broker;
use super::{Failure, show, web};

/// Ask whether the broker serves clients and takes messages; for scripts and orchestrators
#[derive(Args)]
#[command(after_help = "\
Example: pillarbox health || echo 'publishers are stopped, or there is no broker'

Needs no login. Exit code 0: all is well; 1: publishers are stopped; 3: no broker answers.")]
pub(super) struct HealthVerb {
    /// Where the broker's HTTP listener is
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PILLARBOX_HTTP",
        default_value = "127.0.0.1:15672",
        hide_env_values = true
    )]
    http: String,
}

impl HealthVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let path = "/api/health/ready";
        let question = web::Question { method: "GET", path, login: web::Login::Nobody, body: b"" };
        let answer = web::ask(&self.http, broker, &question).await?;
        if answer.status == 200 {
            return show::done("ok", json!({"status": "ok"}), broker.json);
        }
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let reason = answer["reason"].as_str().unwrap_or("it answers something else");
        Err(Failure::failed(format!("the broker takes no messages: {reason}")))
    }
}

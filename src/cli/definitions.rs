//! `pillarbox definitions`: everything that was declared and defined, as a file that RabbitMQ knows too.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::broker::{Broker, open_inside};
use super::web::{self, Answer, Login, Question};
use super::{Failure, show};

/// Save or load users, permissions, queues, exchanges, bindings and policies, in RabbitMQ's form
#[derive(Args)]
pub(super) struct DefinitionsVerb {
    #[command(subcommand)]
    verb: Definitions,
    /// Where the broker's HTTP listener is
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "PILLARBOX_HTTP",
        default_value = "127.0.0.1:15672",
        hide_env_values = true
    )]
    http: String,
}

#[derive(Subcommand)]
enum Definitions {
    /// Write all definitions to a file, or to standard output
    #[command(after_help = "Example: pillarbox definitions export definitions.json")]
    Export { file: Option<PathBuf> },
    /// Add what the file has and change users, permissions and policies; nothing is deleted. `-` is standard input
    #[command(after_help = "\
Example: pillarbox definitions import definitions.json --data-dir /var/lib/pillarbox

What is there in another form stays as it is. What cannot be taken is named, and the exit code is then 1.")]
    Import { file: PathBuf },
}

const PATH: &str = "/api/definitions";

impl DefinitionsVerb {
    pub(super) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        match &self.verb {
            Definitions::Export { file } => {
                let answer = self.ask("GET", b"", broker).await?;
                let definitions: Value = parse(&answer)?;
                let text = serde_json::to_string_pretty(&definitions).map_err(Failure::failed)?;
                match file {
                    None => writeln!(io::stdout(), "{text}").map_err(|it| Failure::output(&it)),
                    Some(file) => {
                        write_anew(file, &text)?;
                        let text = format!("definitions are in {}", file.display());
                        show::done(&text, json!({"file": file}), broker.json)
                    }
                }
            }
            Definitions::Import { file } => {
                let answer = self.ask("POST", &read(file)?, broker).await?;
                let left = if answer.status == 204 { json!({}) } else { parse(&answer)? };
                conclude(&left, broker.json)
            }
        }
    }

    async fn ask(&self, method: &str, body: &[u8], broker: &Broker) -> Result<Answer, Failure> {
        let (user, password) = broker.login();
        let login = Login::User(user, password);
        let question = Question { method, path: PATH, login, body };
        let answer = match broker.data_dir() {
            None => web::ask(&self.http, broker, &question).await?,
            Some(directory) => match ask_as_owner(directory, &question).await {
                Some(answer) => answer,
                None => ask_inside(directory, &question).await?,
            },
        };
        match answer.status {
            200 | 204 => Ok(answer),
            401 => Err(Failure::no_broker(
                "the login is refused: name an administrator with --user and --password",
            )),
            status => {
                let reason = parse(&answer).ok();
                let reason = reason.as_ref().and_then(|it| it["reason"].as_str()).unwrap_or("");
                Err(Failure::failed(format!("the broker answers {status}: {reason}")))
            }
        }
    }
}

/// With what the broker that runs on the directory left there, if one does and lets us in.
async fn ask_as_owner(directory: &Path, question: &Question<'_>) -> Option<Answer> {
    let file = fs::read(directory.join("owner.json")).ok()?;
    let file: Value = serde_json::from_slice(&file).ok()?;
    let (address, token) = (file["http"].as_str()?, file["token"].as_str()?);
    let socket = TcpStream::connect(address).await.ok()?;
    let question = Question { login: Login::Owner(token), ..*question };
    let answer = web::exchange(socket, &question).await.ok()?;
    // 401: the file was left by a broker that was killed, and another one has its port.
    (answer.status != 401).then_some(answer)
}

/// Starts the broker of a directory without listeners for the one question. Whoever may read the files needs no login.
async fn ask_inside(directory: &Path, question: &Question<'_>) -> Result<Answer, Failure> {
    let inside = open_inside(directory).await?;
    let local = inside.server().map(pillarbox::server::Server::local);
    let answer = match local {
        Some(local) => web::exchange(local.http(), question).await,
        None => Err(Failure::failed("the broker does not run")),
    };
    inside.stop().await.map_err(Failure::failed)?;
    answer
}

fn parse(answer: &Answer) -> Result<Value, Failure> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::failed(format!("the answer is no JSON: {error}")))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let wrong =
        |error: io::Error| Failure::wrong(format!("cannot read {}: {error}", file.display()));
    if file != Path::new("-") {
        return fs::read(file).map_err(wrong);
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(wrong)?;
    Ok(bytes)
}

/// There are hashes of passwords in it.
fn write_anew(file: &Path, text: &str) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(file).and_then(|mut it| writeln!(it, "{text}"));
    written.map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))
}

fn conclude(answer: &Value, as_json: bool) -> Result<(), Failure> {
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    let (unknown, left) = (list("unknown"), list("left"));
    let mut text = String::from("definitions are imported");
    for it in &unknown {
        text += &format!("\nnot known here: {}", it.as_str().unwrap_or_default());
    }
    for it in &left {
        let word = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
        text += &format!("\nleft as it was: {}: {}", word("what"), word("why"));
    }
    show::done(&text, json!({"unknown": unknown, "left": left}), as_json)?;
    match left.len() {
        0 => Ok(()),
        count => Err(Failure::failed(format!("{count} definitions were not taken"))),
    }
}

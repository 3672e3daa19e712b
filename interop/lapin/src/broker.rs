//! A broker to restart: `broker.py`, driven over its standard input.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Failure;

pub struct OwnBroker {
    pub uri: String,
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl OwnBroker {
    pub async fn start() -> Result<Self, Failure> {
        let script = Path::new(&std::env::var("INTEROP")?).join("common/broker.py");
        let mut child = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or("no standard input")?;
        let output = child.stdout.take().ok_or("no standard output")?;
        let mut answers = BufReader::new(output).lines();
        let answer = answers.next_line().await?.ok_or("the broker did not start")?;
        let port = answer.trim_start_matches("port ");
        let uri = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
        Ok(Self { uri, child, orders, answers })
    }

    /// `kill`, `stop` or `start`; returns when that is done.
    pub async fn order(&mut self, word: &str) -> Result<(), Failure> {
        self.orders.write_all(format!("{word}\n").as_bytes()).await?;
        self.answers.next_line().await?.ok_or_else(|| format!("the broker did not {word}"))?;
        Ok(())
    }

    pub async fn end(mut self) -> Result<(), Failure> {
        drop(self.orders);
        self.child.wait().await?;
        Ok(())
    }
}

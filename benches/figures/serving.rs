//! The broker under load: a process of its own, and what the kernel says of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pillarbox::client::{Client, Connect};

use super::load::Failure;

pub(crate) struct Serving {
    child: Child,
    directory: PathBuf,
    pub(crate) address: String,
    /// Where other hosts link to it; empty without.
    pub(crate) peers: String,
    /// From its start until it said so.
    pub(crate) ready_after: Duration,
}

impl Serving {
    pub(crate) fn start(directory: &Path) -> Result<Self, Failure> {
        Self::start_with(directory, &["--peer-listen", "none"])
    }

    /// One of several hosts, which dials another one.
    pub(crate) fn start_host(directory: &Path, name: &str, dial: &[&str]) -> Result<Self, Failure> {
        let mut options = vec!["--peer-listen", "127.0.0.1:0", "--host-name", name];
        options.extend(dial.iter().flat_map(|address| ["--peer", address]));
        Self::start_with(directory, &options)
    }

    fn start_with(directory: &Path, options: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.args(["serve", "--native-listen", "127.0.0.1:0", "--log", "warn", "--data-dir"]);
        command.arg(directory);
        command.args(options);
        for listener in ["amqp", "stomp", "http"] {
            command.args([format!("--{listener}-listen"), "none".into()]);
        }
        let begun = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let mut serving = Self {
            child,
            directory: directory.into(),
            address: String::new(),
            peers: String::new(),
            ready_after: Duration::ZERO,
        };
        for line in lines {
            let line = line?;
            if let Some(address) = line.strip_prefix("listening native ") {
                serving.address = address.into();
            } else if let Some(address) = line.strip_prefix("listening peers ") {
                serving.peers = address.into();
            } else if line == "ready" {
                serving.ready_after = begun.elapsed();
                return Ok(serving);
            }
        }
        Err("the broker did not get ready".into())
    }

    /// As a crash does it.
    pub(crate) fn kill_and_start(mut self) -> Result<Self, Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Self::start(&self.directory.clone())
    }

    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        Self::client_at(&self.address).await
    }

    pub(crate) async fn client_at(address: &str) -> Result<Client, Failure> {
        let connect = Connect { address: address.into(), ..Connect::default() };
        Ok(Client::connect(&connect).await?)
    }

    /// CPU seconds so far, from the kernel's hundredths.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = self.read("stat");
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).filter_map(|it| it.parse::<f64>().ok()).sum();
        ticks / 100.0
    }

    /// MiB now, and at the peak since `forget_peak`.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = self.read("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
            number.unwrap_or_default() / 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    pub(crate) fn forget_peak(&self) {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    fn read(&self, what: &str) -> String {
        let path = format!("/proc/{}/{what}", self.child.id());
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

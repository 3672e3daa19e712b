//! The real broker as a child of the test, which it never outlives.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

pub(crate) struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
    amqp: String,
    log: PathBuf,
}

impl Process {
    /// Serves the directory on a free port.
    pub(crate) fn start(
        directory: &Path,
        wrapper: &[&OsStr],
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        Self::listen(directory, wrapper, environment, "127.0.0.1:0")
    }

    /// Serves the directory; the log goes to a file beside it. `wrapper` is a command line to run it under.
    pub(crate) fn listen(
        directory: &Path,
        wrapper: &[&OsStr],
        environment: &[(&str, &str)],
        address: &str,
    ) -> Result<Self, String> {
        let binary = OsStr::new(env!("CARGO_BIN_EXE_pillarbox"));
        let mut words = wrapper.iter().copied().chain([binary]);
        let mut command = Command::new(words.next().unwrap_or(binary));
        command.args(words).args(["serve", "--amqp-listen", address, "--data-dir"]);
        command.arg(directory);
        for listener in ["STOMP", "HTTP", "NATIVE"] {
            command.env(format!("PILLARBOX__LISTEN__{listener}"), "none");
        }
        let path = directory.with_extension("log");
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(|error| format!("no log: {error}"))?;
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(log);
        let child = command.process_group(0).spawn().map_err(|it| format!("no start: {it}"))?;
        let mut process = Self::of(child, path);
        loop {
            let line = process.line();
            match line.strip_prefix("listening amqp ") {
                Some(address) => process.amqp = address.to_owned(),
                None if line == "ready" => return Ok(process),
                None if line.starts_with("listening ") => {}
                None => {
                    let status = process.wait();
                    return Err(process.ended("does not start", status));
                }
            }
        }
    }

    fn of(mut child: Child, log: PathBuf) -> Self {
        let out = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self { child, out, amqp: String::new(), log }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.out.read_line(&mut line);
        line.trim_end().to_owned()
    }

    pub(crate) fn uri(&self) -> String {
        self.uri_of("guest")
    }

    /// For a user whose password is its name.
    pub(crate) fn uri_of(&self, user: &str) -> String {
        format!("amqp://{user}:{user}@{}/%2f", self.amqp)
    }

    pub(crate) fn kill(mut self) -> Result<(), String> {
        self.signal(Signal::KILL);
        let status = self.wait();
        // A broker that ended by itself would make the kill mean nothing.
        if status.signal() == Some(9) { Ok(()) } else { Err(self.ended("ended by itself", status)) }
    }

    pub(crate) fn stop(mut self) -> Result<(), String> {
        self.signal(Signal::TERM);
        let status = self.wait();
        if status.success() { Ok(()) } else { Err(self.ended("does not stop well", status)) }
    }

    fn ended(&self, how: &str, status: ExitStatus) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(10).collect();
        format!("the broker {how}: {status}; its last words, the last first:\n{}", last.join("\n"))
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it is a child of this process")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = kill_process_group(pid.expect("a process has a number"), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

//! Disks that fail: a sync that reports an error, and a file system without space.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Event as Said};
use rstest::rstest;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::checker::check;
use super::history::{Answer, Event, History, Reader};
use super::letter::Id;
use super::load::{self, MAILBOXES, Publisher, Reading};
use super::process::Process;
use super::round::{connect, patiently};
use crate::random::Random;

const PATIENCE: Duration = Duration::from_secs(60);
/// A confirm takes less, also under strace.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(10);
/// The end of a `basic.ack` frame's head, as strace writes it.
const BASIC_ACK: &str = r"\x00\x3c\x00\x50";

#[expect(clippy::print_stdout, reason = "a check that is left out says so")]
fn skip(what: &str, why: &str) {
    println!("SKIPPED {what}: {why}");
}

fn runs(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[rstest]
#[case(25)]
#[case(40)]
#[case(60)]
#[tokio::test]
async fn after_a_failed_sync_nothing_is_confirmed_and_a_restart_has_the_rest(#[case] nth: u32) {
    // With `-f` the syncs of each thread are counted for themselves.
    if !runs(Command::new("strace").args(["-f", "true"])) {
        return skip("a failed sync", "strace is missing or may not trace");
    }
    let directory = tempfile::tempdir().expect("a place for temporary files");
    let (store, trace) = (directory.path().join("store"), directory.path().join("trace"));
    let mut process = start_failing(&store, nth, &trace).expect("the broker starts");
    let history = History::default();
    patiently(publish_singly(&process, &history)).await.expect("it takes messages at first");
    assert_eq!(process.wait().code(), Some(74));
    let log = std::fs::read_to_string(store.with_extension("log")).expect("it has a log");
    let clear = "the store cannot make messages durable: disk error: Input/output error";
    assert!(log.contains(clear), "{log}");

    let trace = std::fs::read_to_string(trace).expect("it has a trace");
    let (before, after) = trace.split_once("(INJECTED)").expect("the error was injected");
    assert!(before.contains(BASIC_ACK), "confirms are not seen in the trace");
    let confirms: Vec<&str> = after.lines().filter(|line| line.contains(BASIC_ACK)).collect();
    assert_eq!(confirms, Vec::<&str>::new(), "confirmed after the error");

    history.add(Event::Killed);
    let process = Process::start(&store, &[], &[]).expect("it starts again");
    drain(&process, 2, &history, &MAILBOXES[..1]).await;
    process.stop().expect("it stops in good order");
    assert!(answered(&history) > 0);
    accounted(&history);
}

#[tokio::test]
async fn a_sync_that_fails_while_starting_is_said_and_does_no_harm() {
    if !runs(Command::new("strace").args(["-f", "true"])) {
        return skip("a failed sync at the start", "strace is missing or may not trace");
    }
    for nth in [1, 4] {
        let directory = tempfile::tempdir().expect("a place for temporary files");
        let store = directory.path().join("store");
        assert!(start_failing(&store, nth, &directory.path().join("trace")).is_err());
        let log = std::fs::read_to_string(store.with_extension("log")).expect("it has a log");
        assert!(log.contains("Input/output error"), "{log}");
        let process = Process::start(&store, &[], &[]).expect("it starts again");
        process.stop().expect("it stops in good order");
    }
}

/// A broker whose `nth` sync of a thread fails.
fn start_failing(store: &Path, nth: u32, trace: &Path) -> Result<Process, String> {
    let inject = format!("inject=fdatasync:error=EIO:when={nth}");
    let calls = "trace=fdatasync,write,writev,sendto,sendmsg";
    let wrapper = ["strace", "-f", "-xx", "-s", "512", "-e", calls, "-e", &inject, "-o"];
    let wrapper: Vec<&OsStr> = wrapper.iter().map(OsStr::new).chain([trace.as_os_str()]).collect();
    Process::start(store, &wrapper, &[])
}

/// One message after the other, until one is not confirmed.
async fn publish_singly(process: &Process, history: &History) -> lapin::Result<()> {
    let connections = connect(process, 1).await?;
    let channel = connections[0].create_channel().await?;
    load::declare(&channel, &MAILBOXES).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for number in 1.. {
        let id = Id { publisher: 0, life: 1, number };
        history.add(Event::Published { id, to: vec![MAILBOXES[0]], sum: id.sum() });
        let Ok(Ok(())) = timeout(CONFIRM_PATIENCE, publish(&channel, id)).await else { break };
        history.add(Event::Answered { id, answer: Answer::Ack });
    }
    Ok(())
}

async fn publish(channel: &Channel, id: Id) -> lapin::Result<()> {
    let (body, properties) = (id.body(), id.properties());
    let options = BasicPublishOptions::default();
    let key = MAILBOXES[0].into();
    channel.basic_publish("".into(), key, options, &body, properties).await?.await?;
    Ok(())
}

async fn drain(process: &Process, life: u32, history: &History, mailboxes: &[&'static str]) {
    let connections = patiently(connect(process, 1)).await.expect("it accepts connections");
    for mailbox in mailboxes {
        let channel = patiently(connections[0].create_channel()).await.expect("it opens channels");
        let reader = Reader { mailbox, life, number: 0, sole: true };
        let random = Random::new(life.into());
        let reading = Reading::new(channel, reader, 30, random, history.clone());
        patiently(reading.drain(CONFIRM_PATIENCE)).await.expect("it delivers");
    }
    let _ = connections[0].close(200, "bye".into()).await;
}

fn accounted(history: &History) {
    let violations = check(&history.events());
    let text: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(
        text.is_empty(),
        "{} violations:\n{}",
        text.len(),
        text[..text.len().min(20)].join("\n")
    );
}

/// A file system of its own, gone at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir(at).ok()?;
        let size = format!("size={size},mode=0700");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at);
        runs(&mut command).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        runs(Command::new("umount").arg("-l").arg(&self.0));
    }
}

/// With a mark for low space, and with none, so that the commits themselves find the disk full.
#[rstest]
#[case("0", "the disk is full: publishers are stopped")]
#[case("16777216", "disk space runs low: publishers are stopped")]
#[tokio::test]
async fn a_full_disk_stops_publishers_until_consumers_made_room(
    #[case] free_min: &str,
    #[case] reason: &str,
) {
    let directory = tempfile::tempdir().expect("a place for temporary files");
    let at = directory.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&at, "136m") else {
        return skip("a full disk", "a file system cannot be mounted: this needs root");
    };
    // What an operator may delete to make room. The store keeps what its files once took, and fills it again.
    let ballast = at.join("ballast");
    std::fs::write(&ballast, vec![1; 32 << 20]).expect("there is room at first");
    let environment = [("PILLARBOX__STORE__DISK_FREE_MIN", free_min)];
    let process = Process::start(&at, &[], &environment).expect("the broker starts");
    let history = History::default();
    let connections = patiently(connect(&process, 2)).await.expect("it accepts connections");
    let channel = patiently(connections[0].create_channel()).await.expect("it opens channels");
    patiently(load::declare(&channel, &MAILBOXES)).await.expect("it declares");
    let mut said = connections[0].events_listener();

    let (leave, left) = watch::channel(false);
    let mut publishers = JoinSet::new();
    for publisher in 0..3 {
        let channel = patiently(connections[0].create_channel()).await.expect("it opens channels");
        let random = Random::new(publisher.into());
        let history = history.clone();
        let (mailboxes, pause) = (&MAILBOXES, Duration::ZERO);
        let work = Publisher {
            channel,
            publisher,
            life: 1,
            random,
            history,
            window: 50,
            mailboxes,
            pause,
        };
        publishers.spawn(work.work(left.clone()));
    }
    until(&mut said, |it| matches!(it, Said::ConnectionBlocked(_)), "publishers are stopped").await;

    let log = std::fs::read_to_string(at.with_extension("log")).expect("it has a log");
    assert!(log.contains(reason), "{log}");

    let (leave_reading, left_reading) = watch::channel(false);
    let mut readers = JoinSet::new();
    for mailbox in MAILBOXES {
        let channel = patiently(connections[1].create_channel()).await.expect("it opens channels");
        let reader = Reader { mailbox, life: 1, number: 0, sole: true };
        let random = Random::new(1);
        let reading = Reading::new(channel, reader, 100, random, history.clone());
        readers.spawn(reading.consume(left_reading.clone()));
    }
    let received = |it: &Event| matches!(it, Event::Received { .. });
    reach(|| history.count(received) > 100, "consumers go on").await;
    if free_min != "0" {
        std::fs::remove_file(&ballast).expect("it is there");
    }
    until(&mut said, |it| matches!(it, Said::ConnectionUnblocked), "publishers go on").await;
    let before = answered(&history);
    reach(|| answered(&history) > before + 100, "messages are confirmed again").await;
    let _ = std::fs::remove_file(&ballast);

    leave.send_replace(true);
    finished(&mut publishers).await;
    leave_reading.send_replace(true);
    finished(&mut readers).await;
    for connection in &connections {
        let _ = connection.close(200, "bye".into()).await;
    }
    drain(&process, 2, &history, &MAILBOXES).await;
    process.stop().expect("it stops in good order");
    history.add(Event::Stopped { life: 1 });
    let process = Process::start(&at, &[], &environment).expect("it starts again");
    drain(&process, 3, &history, &MAILBOXES).await;
    process.stop().expect("it stops in good order");
    accounted(&history);
}

async fn until(
    said: &mut (impl Stream<Item = Said> + Unpin),
    is_it: impl Fn(&Said) -> bool,
    what: &str,
) {
    let wait = async {
        while let Some(event) = said.next().await {
            if is_it(&event) {
                return;
            }
        }
        panic!("the connection ends before {what}");
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}

async fn reach(is_there: impl Fn() -> bool, what: &str) {
    let wait = async {
        while !is_there() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}

fn answered(history: &History) -> usize {
    history.count(|event| matches!(event, Event::Answered { .. }))
}

async fn finished(clients: &mut JoinSet<lapin::Result<()>>) {
    let all = async {
        while let Some(outcome) = clients.join_next().await {
            outcome.expect("no client panics").expect("no client fails");
        }
    };
    timeout(PATIENCE, all).await.expect("clients leave when told");
}

//! Kills, stops and damage.

use std::time::Duration;

use pillarbox::client::{Mailbox, NewMessage, Outcome};

use crate::broker::{PATIENCE, Process};

/// Case 2: what was in flight when the broker was killed stayed so for ever.
#[tokio::test]
async fn what_was_in_flight_at_a_kill_is_redelivered_once() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path());
    let client = process.client().await;
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    let messages: Vec<NewMessage> = (0..10).map(|n: u32| n.to_string().into()).collect();
    client.push_batch("jobs", &messages).await.unwrap();
    let held = client.pull("jobs", 4, PATIENCE).await.unwrap().deliveries;
    assert_eq!(held.len(), 4);
    process.kill();
    let process = Process::start(directory.path());
    let client = process.client().await;
    let again = client.pull("jobs", 100, PATIENCE).await.unwrap().deliveries;
    let bodies: Vec<_> = again.iter().map(|it| String::from_utf8_lossy(it.body())).collect();
    assert_eq!(bodies.concat(), "0123456789");
    assert!(again[..4].iter().all(|it| it.redelivered));
    client.settle(&again, Outcome::Accepted).await.unwrap();
    assert_eq!(client.find("jobs").await.unwrap().ready, 0);
    process.kill();
    let process = Process::start(directory.path());
    assert_eq!(process.client().await.find("jobs").await.unwrap().ready, 0);
}

/// Case 20: expiry was a timer in the process: a restart made messages live for ever.
#[tokio::test]
async fn expiry_holds_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path());
    let client = process.client().await;
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    let short = NewMessage::from("short").with(|it| it.expiration = Some("700".into()));
    client.push("jobs", short).await.unwrap();
    client.push("jobs", "long").await.unwrap();
    assert_eq!(process.stop(), Some(0));
    tokio::time::sleep(Duration::from_millis(700)).await;
    let process = Process::start(directory.path());
    let client = process.client().await;
    let got = client.pull("jobs", 10, PATIENCE).await.unwrap().deliveries;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].body(), b"long");
}

/// Case 30: only SIGINT was heard, and a stop lost what was in memory.
#[tokio::test]
async fn sigterm_drains() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path());
    let client = process.client().await;
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    client.push("jobs", "one").await.unwrap();
    client.push("jobs", "two").await.unwrap();
    let held = client.pull("jobs", 1, PATIENCE).await.unwrap().deliveries;
    client.settle_later(&held, Outcome::Accepted).unwrap();
    // In order on one connection: when this is answered, the settlement was heard.
    client.find("jobs").await.unwrap();
    assert_eq!(process.stop(), Some(0));
    let process = Process::start(directory.path());
    let client = process.client().await;
    let got = client.pull("jobs", 10, PATIENCE).await.unwrap().deliveries;
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].body(), got[0].redelivered), (&b"two"[..], false));
}

/// Case 25: sums were stored with the messages and never looked at.
#[tokio::test]
async fn a_flipped_bit_in_the_store_is_reported_and_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path());
    let client = process.client().await;
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    let needle = b"a body that stands nowhere else in the file";
    client.push("jobs", "before").await.unwrap();
    client.push("jobs", needle.to_vec()).await.unwrap();
    client.push("jobs", "behind").await.unwrap();
    assert_eq!(process.stop(), Some(0));
    let mut flipped = 0;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> = bytes
            .windows(needle.len())
            .enumerate()
            .filter(|(_, it)| it == needle)
            .map(|(at, _)| at)
            .collect();
        for at in &places {
            bytes[at + 5] ^= 1;
            flipped += 1;
        }
        if !places.is_empty() {
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert!(flipped > 0, "the body is in the store");
    let process = Process::start(directory.path());
    let client = process.client().await;
    let got = client.pull("jobs", 10, PATIENCE).await.unwrap().deliveries;
    let bodies: Vec<_> = got.iter().map(|it| String::from_utf8_lossy(it.body())).collect();
    assert_eq!(bodies, ["before", "behind"]);
    let rows = client.list(pillarbox::client::List::Mailboxes, "").await.unwrap();
    let damaged = rows[0].get("damaged").and_then(pillarbox::broker::Value::as_i64);
    assert_eq!(damaged, Some(1));
}

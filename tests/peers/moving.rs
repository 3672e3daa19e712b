//! Mailboxes that move between real hosts.

use std::process::{Command, Stdio};
use std::time::Duration;

use pillarbox::client::{Binding, Mailbox};

use crate::host::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_moves_to_another_host_while_it_is_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let b = Broker::start(directory.path(), "b", "127.0.0.1:0", &[]);
    let a = Broker::start(directory.path(), "a", "127.0.0.1:0", &[&b.peers]);
    let c = Broker::start(directory.path(), "c", "127.0.0.1:0", &[&a.peers]);
    let (to_a, to_b, to_c) = (a.client().await, b.client().await, c.client().await);
    let missing = a.cli(&["mailbox", "move", "work", "--to", "b"]);
    assert_eq!(missing, (4, "pillarbox: no queue 'work' in vhost '/'\n".into()));
    to_a.declare(&Mailbox::durable("work")).await.expect("declared");
    let (source, destination, key) = ("amq.topic".into(), "work".into(), "x.#".into());
    let binding = Binding { source, destination, key, ..Binding::default() };
    to_a.bind(&binding).await.expect("bound");
    for (client, name) in [(&to_b, "a"), (&to_c, "a")] {
        knows(client, name, 1, 1).await;
    }
    knows(&to_a, "c", 0, 0).await;
    push(&to_a, "work", bodies(0..3000)).await;
    let elsewhere = c.cli(&["mailbox", "move", "work", "--to", "b"]);
    assert_eq!(elsewhere, (1, "pillarbox: queue 'work' in vhost '/' lives on host 'a'\n".into()));
    let said = a.cli(&["mailbox", "move", "work", "--to", "b"]);
    assert_eq!(said, (0, "'work' lives on host 'b' now\n".into()));
    let listed = a.cli(&["mailbox", "list", "--json"]).1;
    assert!(!listed.contains(r#""name": "work""#), "{listed}");
    knows(&to_c, "b", 1, 1).await;
    push(&to_a, "work", bodies(3000..3100)).await;
    to_a.publish("amq.topic", "x.1", "by topic").await.expect("published");
    let mut all = bodies(0..3100);
    all.push("by topic".into());
    assert_eq!(take(&to_c, "work", 3101).await, all);

    // Back again, over HTTP, with the host killed that has it.
    push(&to_b, "work", bodies(0..500)).await;
    let moved = until("the move", async || {
        let answer = b.send("POST", "/api/queues/%2F/work/move", r#"{"to": "a"}"#);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.ends_with(r#"{"to":"a","waiting":0}"#).then_some(())
    });
    moved.await;
    let mut b = b;
    b.kill();
    let b = b.restart(&[&a.peers]);
    assert_eq!(take(&to_a, "work", 500).await, bodies(0..500));
    let refused = b.send("POST", "/api/queues/%2F/work/move", "{}");
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
}

/// Messages that are in the mailbox here. `Err` says what is said where it is not.
fn resting(host: &Broker) -> Result<u64, String> {
    let answer = host.send("GET", "/api/queues/%2F/work", "");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let said: serde_json::Value = serde_json::from_str(body).expect("JSON");
    match said["reason"].as_str() {
        Some(reason) => Err(reason.into()),
        None => Ok(said["messages"].as_u64().expect("a count")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_amid_a_move_loses_nothing_and_makes_no_second_home() {
    const COUNT: u32 = 20_000;
    const ELSEWHERE: &str = "queue 'work' in vhost '/' lives on host 'b'";
    for killed in ["a", "b"] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut b = Broker::start(directory.path(), "b", "127.0.0.1:0", &[]);
        let mut a = Broker::start(directory.path(), "a", "127.0.0.1:0", &[&b.peers]);
        let (to_a, to_b) = (a.client().await, b.client().await);
        to_a.declare(&Mailbox::durable("work")).await.expect("declared");
        knows(&to_b, "a", 1, 0).await;
        for n in (0..COUNT).step_by(2000) {
            push(&to_a, "work", bodies(n..n + 2000)).await;
        }
        let mut verb = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        let moving = verb.args(["mailbox", "move", "work", "--to", "b"]).stdout(Stdio::null());
        let moving = moving.stderr(Stdio::null()).env("PILLARBOX_BROKER", &a.native);
        let mut moving = moving.spawn().expect("it runs");
        let arrived = until("a first message", async || {
            let arrived = resting(&b).ok()?;
            (arrived > 0).then_some(arrived)
        });
        let arrived = arrived.await;
        assert!(arrived < u64::from(COUNT), "all of it is there already");
        if killed == "a" {
            a.kill();
            a = a.restart(&[&b.peers]);
        } else {
            b.kill();
            assert_eq!(resting(&a), Err(ELSEWHERE.into()), "while its home is away");
            b = b.restart(&[&a.peers]);
        }
        let _ = moving.wait();
        until("the rest of it", async || {
            assert_eq!(resting(&a), Err(ELSEWHERE.into()), "{killed} was killed");
            let arrived = resting(&b).expect("it never leaves its new home");
            (arrived >= u64::from(COUNT)).then_some(())
        })
        .await;
        let client = a.client().await;
        let mut taken = std::collections::BTreeSet::new();
        loop {
            let wait = Duration::from_millis(500);
            let pulled = client.pull("work", 1000, wait).await.expect("messages");
            if pulled.deliveries.is_empty() {
                break;
            }
            for delivery in &pulled.deliveries {
                let body = String::from_utf8_lossy(delivery.body()).into_owned();
                assert!(taken.insert(body), "{killed} was killed: one came twice");
            }
            let outcome = pillarbox::client::Outcome::Accepted;
            client.settle(&pulled.deliveries, outcome).await.expect("settled");
        }
        let all = bodies(0..COUNT).into_iter().collect();
        assert!(taken == all, "{killed} was killed: {} of {COUNT}", taken.len());
    }
}

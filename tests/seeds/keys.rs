//! Keys, and groups by name.

use std::process::Command;

use pillarbox::Broker;
use pillarbox::broker::Value;
use pillarbox::client::{Mailbox, Subscribe};

use crate::broker::Process;

fn of_type(name: &str, policy: &str) -> Mailbox {
    Mailbox::durable(name).argument("x-queue-type", Value::text(policy))
}

/// Case 13: keys were compared by how they begin: `user1` got what was put as `user10`.
#[tokio::test]
async fn a_key_is_not_another_that_begins_like_it() {
    let broker = Broker::memory().await.unwrap();
    let client = broker.client().await.unwrap();
    client.declare(&of_type("users", "kv")).await.unwrap();
    client.put("users", "user10", "Bob").await.unwrap();
    assert!(client.get("users", "user1").await.unwrap().is_none());
    client.put("users", "user1", "Ada").await.unwrap();
    client.put("users", "user10", "Kim").await.unwrap();
    let found = client.get("users", "user1").await.unwrap().unwrap();
    assert_eq!(found.body(), &b"Ada"[..]);
    client.erase("users", "user1").await.unwrap();
    let found = client.get("users", "user10").await.unwrap().unwrap();
    assert_eq!(found.body(), &b"Kim"[..]);
}

/// Case 13: so were groups: what `g1` had done, `g10` was not given.
#[tokio::test]
async fn a_group_is_not_another_that_begins_like_it() {
    let broker = Broker::memory().await.unwrap();
    let client = broker.client().await.unwrap();
    client.declare(&of_type("log", "stream")).await.unwrap();
    for body in ["one", "two"] {
        client.push("log", body).await.unwrap();
    }
    for group in ["g1", "g10", "g"] {
        client.seek("log", group, Value::text("first")).await.unwrap();
        let member = Subscribe { credit: 10, settled: true, ..Subscribe::default() }
            .argument("x-group", Value::text(group))
            .argument("x-stream-until", Value::text("last"));
        let mut messages = client.subscribe("log", &member).await.unwrap();
        let mut bodies = Vec::new();
        while let Some(message) = messages.next().await.unwrap() {
            bodies.push(message.body().to_vec());
        }
        assert_eq!(bodies, [b"one", b"two"], "{group}");
    }
}

/// Case 29: a topic for keys could be made by a program and not at the command line.
#[tokio::test]
async fn a_mailbox_for_keys_is_declared_at_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Process::start(directory.path());
    for arguments in [
        &["mailbox", "declare", "users", "--policy", "kv"][..],
        &["kv", "put", "users", "user1", "Ada"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        let run = command.args(arguments).arg("--data-dir").arg(directory.path()).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
    let client = broker.client().await;
    let found = client.get("users", "user1").await.unwrap().unwrap();
    assert_eq!(found.body(), &b"Ada"[..]);
}

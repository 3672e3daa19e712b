//! Vega's HTTP interface, without its defects.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pillarbox::client::{List, Mailbox, Outcome};
use tokio::time::timeout;

use crate::broker::{PATIENCE, broker, http, receive, send};

/// Case 6: Vega's server cut a wait after 10 s, and the message that came was leased to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_longer_than_ten_seconds_ends_with_the_message() {
    let (broker, at) = broker().await;
    http(at, "POST", "/mailbox/jobs", &[], b"").await;
    let waiting = tokio::task::spawn_blocking(move || {
        receive(send(at, "GET", "/mailbox/jobs?wait=60s", &[], b""))
    });
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    broker.client().await.unwrap().push("jobs", "late").await.unwrap();
    let answer = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["body"], STANDARD.encode("late"));
    broker.stop().await.unwrap();
}

/// Case 6: a client that went away while it waited took the next message with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_while_it_waits_takes_nothing() {
    let (broker, at) = broker().await;
    http(at, "POST", "/mailbox/jobs", &[], b"").await;
    let client = broker.client().await.unwrap();
    let gone =
        tokio::task::spawn_blocking(move || send(at, "GET", "/mailbox/jobs?wait=60s", &[], b""));
    let gone = gone.await.unwrap();
    // The wait has begun once it shows as a consumer, and is over when it does not.
    consumers(&client, 1).await;
    drop(gone);
    consumers(&client, 0).await;
    client.push("jobs", "one").await.unwrap();
    let answer = http(at, "GET", "/mailbox/jobs", &[], b"").await;
    assert_eq!((answer.status, answer.json()["redelivered"].as_bool()), (200, None));
    broker.stop().await.unwrap();
}

async fn consumers(client: &pillarbox::Client, wanted: u32) {
    let wait = async {
        while client.find("jobs").await.unwrap().consumers != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the wait begins and ends");
}

/// Case 7: an unknown mailbox was 204, as if it were empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_mailbox_is_not_found() {
    let (broker, at) = broker().await;
    for method in ["GET", "PUT"] {
        let answer = http(at, method, "/mailbox/missing", &[], b"{}").await;
        assert_eq!(answer.status, 404, "{method}");
    }
    http(at, "POST", "/mailbox/here", &[], b"").await;
    assert_eq!(http(at, "GET", "/mailbox/here", &[], b"").await.status, 204);
    broker.stop().await.unwrap();
}

/// Cases 4 and 28: HTTP clients can ack and nack, and an ack counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_clients_settle_what_they_polled_once() {
    let (broker, at) = broker().await;
    http(at, "POST", "/mailbox/jobs", &[], b"").await;
    let message = br#"{"correlation_id":"7","headers":{"n":1},"body":"b25l"}"#;
    assert_eq!(http(at, "PUT", "/mailbox/jobs", &[], message).await.status, 200);
    let first = http(at, "GET", "/mailbox/jobs", &[], b"").await;
    assert_eq!(first.status, 200);
    let id = first.json()["message_id"].as_str().unwrap().to_owned();
    assert_eq!(first.header("message-id"), Some(&*id));
    assert_eq!(first.json()["headers"]["n"], 1);
    let path = format!("/message/{id}");
    assert_eq!(http(at, "PUT", &path, &[], b"").await.status, 204);
    assert_eq!(http(at, "PUT", &path, &[], b"").await.status, 404);
    let second = http(at, "GET", "/mailbox/jobs", &[], b"").await;
    assert_eq!(second.json()["redelivered"], true);
    let path = format!("/message/{}", second.json()["message_id"].as_str().unwrap());
    assert_eq!(http(at, "DELETE", &path, &[], b"").await.status, 204);
    assert_eq!(http(at, "DELETE", &path, &[], b"").await.status, 404);
    assert_eq!(http(at, "GET", "/mailbox/jobs", &[], b"").await.status, 204);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ends_gives_the_message_back() {
    let (broker, at) = broker().await;
    http(at, "POST", "/mailbox/jobs", &[], b"").await;
    http(at, "PUT", "/mailbox/jobs", &["content-type: text/plain"], b"one").await;
    let first = http(at, "GET", "/mailbox/jobs?lease=200ms", &[], b"").await;
    assert_eq!(http(at, "GET", "/mailbox/jobs", &[], b"").await.status, 204);
    let second = http(at, "GET", "/mailbox/jobs?wait=10s", &[], b"").await;
    assert_eq!(second.json()["redelivered"], true);
    let late = format!("/message/{}", first.json()["message_id"].as_str().unwrap());
    assert_eq!(http(at, "DELETE", &late, &[], b"").await.status, 404);
    broker.stop().await.unwrap();
}

/// A lease that is extended outlives its first end, and a nack may ask for a delay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_can_be_extended_and_a_nack_can_wait() {
    let (broker, at) = broker().await;
    http(at, "POST", "/mailbox/jobs", &[], b"").await;
    http(at, "PUT", "/mailbox/jobs", &["content-type: text/plain"], b"x").await;
    let first = http(at, "GET", "/mailbox/jobs?lease=2s", &[], b"").await;
    let id = format!("/message/{}", first.json()["message_id"].as_str().unwrap());
    let longer = format!("{id}?lease=1h");
    assert_eq!(http(at, "POST", &longer, &[], b"").await.status, 204);
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    assert_eq!(http(at, "GET", "/mailbox/jobs", &[], b"").await.status, 204);
    assert_eq!(http(at, "POST", &format!("{id}?wait=1h"), &[], b"").await.status, 400);
    let delayed = format!("{id}?delay=1h");
    assert_eq!(http(at, "PUT", &delayed, &[], b"").await.status, 204);
    assert_eq!(http(at, "POST", &longer, &[], b"").await.status, 404);
    assert_eq!(http(at, "GET", "/mailbox/jobs?wait=100ms", &[], b"").await.status, 204);
    let client = broker.client().await.unwrap();
    assert_eq!(client.list(List::Delayed, "jobs").await.unwrap().len(), 1);
    broker.stop().await.unwrap();
}

/// Case 8: a subscriber on the publisher's host got two copies. Case 9: without one the publish failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_is_one_copy_for_each_subscriber_and_needs_none() {
    let (broker, at) = broker().await;
    http(at, "POST", "/mailbox/news", &[], b"").await;
    let publish = br#"{"correlation_id":"a/b","body":"aGk="}"#;
    assert_eq!(http(at, "PUT", "/mailbox/:publish", &[], publish).await.status, 200);
    let subscribe = br##"{"correlation_id":"a/#","reply_to":"news"}"##;
    assert_eq!(http(at, "PUT", "/mailbox/:subscribe", &[], subscribe).await.status, 200);
    assert_eq!(http(at, "PUT", "/mailbox/:publish", &[], publish).await.status, 200);
    let client = broker.client().await.unwrap();
    assert_eq!(client.find("news").await.unwrap().ready, 1);
    let nowhere = br##"{"correlation_id":"a/#","reply_to":"missing"}"##;
    assert_eq!(http(at, "PUT", "/mailbox/:subscribe", &[], nowhere).await.status, 404);
    broker.stop().await.unwrap();
}

/// Case 12: names with a slash were taken apart. Case 19: bodies with a quote or a NUL failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_bodies_may_have_anything_in_them() {
    let (broker, at) = broker().await;
    let client = broker.client().await.unwrap();
    for (path, name) in [("a/b", "a/b"), ("a%2Fc", "a/c"), ("it's%20%25", "it's %")] {
        let path = format!("/mailbox/{path}");
        assert_eq!(http(at, "POST", &path, &[], b"").await.status, 200, "{path}");
        client.find(name).await.unwrap();
        let body = b"it's \0 \xff";
        http(at, "PUT", &path, &["content-type: application/octet-stream"], body).await;
        let pulled = client.pull(name, 1, PATIENCE).await.unwrap().deliveries;
        assert_eq!(pulled[0].body(), body);
        client.settle(&pulled, Outcome::Accepted).await.unwrap();
    }
    let large = vec![b'\''; 1 << 20];
    http(at, "PUT", "/mailbox/a/b", &["content-type: text/plain"], &large).await;
    let answer = http(at, "GET", "/mailbox/a/b", &["accept: application/x-msgpack"], b"").await;
    assert_eq!(answer.header("content-type"), Some("application/x-msgpack"));
    assert!(answer.body.windows(4).any(|it| it == b"body"));
    assert!(answer.body.len() > 1 << 20);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_come_is_told_so() {
    let (broker, at) = broker().await;
    broker.client().await.unwrap().declare(&Mailbox::durable("jobs")).await.unwrap();
    // guest:wrong
    let wrong =
        http(at, "GET", "/mailbox/jobs", &["authorization: Basic Z3Vlc3Q6d3Jvbmc="], b"").await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("www-authenticate").is_some());
    let page = http(at, "POST", "/mailbox/x", &["origin: https://evil.example"], b"").await;
    assert_eq!(page.status, 403);
    let bad = http(at, "PUT", "/mailbox/jobs", &[], b"{\"prio\":1}").await;
    assert_eq!(bad.status, 400);
    let unknown = http(at, "GET", "/mailbox/jobs?wiat=1s", &[], b"").await;
    assert_eq!(unknown.status, 400);
    broker.stop().await.unwrap();
}

//! Delivery, settlement, order and limits.

use std::time::Duration;

use pillarbox::Broker;
use pillarbox::broker::{NEUTRAL, Value};
use pillarbox::client::{
    Binding, Browse, Client, Exchange, List, Mailbox, NewMessage, Outcome, Subscribe,
};
use pillarbox_native::Code;
use tokio::time::timeout;

use crate::broker::PATIENCE;

const SHORT: Duration = Duration::from_millis(100);

async fn client() -> (Broker, Client) {
    let broker = Broker::memory().await.unwrap();
    let client = broker.client().await.unwrap();
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    (broker, client)
}

async fn count(client: &Client, mailbox: &str, what: &str) -> i64 {
    let rows = client.list(List::Mailboxes, "").await.unwrap();
    let row = rows.iter().find(|it| it.get("name").and_then(Value::as_str) == Some(mailbox));
    row.and_then(|it| it.get(what)).and_then(Value::as_i64).unwrap()
}

/// Case 1: after a long poll that found nothing, the next message went to the stale waiter and was lost.
#[tokio::test]
async fn a_message_after_an_idle_long_poll_is_delivered() {
    let (_broker, client) = client().await;
    for body in ["one", "two"] {
        assert_eq!(client.pull("jobs", 1, SHORT).await.unwrap().deliveries.len(), 0);
        client.push("jobs", body).await.unwrap();
        let pulled = client.pull("jobs", 1, PATIENCE).await.unwrap().deliveries;
        assert_eq!(pulled[0].body(), body.as_bytes());
        assert!(!pulled[0].redelivered);
        client.settle(&pulled, Outcome::Accepted).await.unwrap();
    }
}

/// Case 3: a nack did not wake a waiting long poll.
#[tokio::test]
async fn a_nack_wakes_a_waiter() {
    let (broker, holder) = client().await;
    let waiter = broker.client().await.unwrap();
    holder.push("jobs", "one").await.unwrap();
    let held = holder.pull("jobs", 1, SHORT).await.unwrap().deliveries;
    let waiting = tokio::spawn(async move { waiter.pull("jobs", 1, PATIENCE).await });
    while holder.find("jobs").await.unwrap().consumers == 0 {
        tokio::task::yield_now().await;
    }
    holder.settle(&held, Outcome::Released).await.unwrap();
    let got = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap().deliveries;
    assert_eq!((got[0].body(), got[0].redelivered), (&b"one"[..], true));
}

/// Case 4: a second ack succeeded and spoilt the count of what is in flight.
#[tokio::test]
async fn a_second_ack_is_an_error_and_changes_no_count() {
    let (_broker, client) = client().await;
    for body in ["one", "two"] {
        client.push("jobs", body).await.unwrap();
    }
    let held = client.pull("jobs", 2, SHORT).await.unwrap().deliveries;
    client.settle(&held[..1], Outcome::Accepted).await.unwrap();
    for outcome in [Outcome::Accepted, Outcome::Released, Outcome::Rejected] {
        let again = client.settle(&held[..1], outcome).await.unwrap_err();
        assert_eq!(again.code(), Some(Code::NotFound));
    }
    assert_eq!(count(&client, "jobs", "unsettled").await, 1);
    assert_eq!(count(&client, "jobs", "ready").await, 0);
    assert_eq!(count(&client, "jobs", "settled").await, 1);
}

/// Cases 8 and 9: a local subscriber got two copies; with no subscriber at all the publish was an error.
#[tokio::test]
async fn a_publish_is_one_copy_for_each_subscriber_and_needs_none() {
    let (_broker, client) = client().await;
    client.publish_topic("a/b", "nobody").await.unwrap();
    let mut messages = client.subscribe_topic("a/+", &Subscribe::default()).await.unwrap();
    client.publish_topic("a/b", "one").await.unwrap();
    let first = timeout(PATIENCE, messages.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.body(), b"one");
    assert!(timeout(SHORT, messages.next()).await.is_err(), "a second copy");
}

/// Case 12: names with `/` were taken apart, and long ones were not refused.
#[tokio::test]
async fn names_may_be_anything_of_up_to_255_bytes() {
    let (_broker, client) = client().await;
    let longest = "n".repeat(255);
    for name in ["a/b", "a/b/", "/", "it's", "ü", "%2F", &longest] {
        client.declare(&Mailbox::durable(name)).await.unwrap();
        client.push(name, name).await.unwrap();
        let got = client.pull(name, 1, SHORT).await.unwrap().deliveries;
        assert_eq!(got[0].body(), name.as_bytes());
    }
    let made_up = client.declare(&Mailbox::durable("")).await.unwrap().name;
    assert!(!made_up.is_empty());
}

/// Case 14: the redelivery timer counted from the publish, so that a delayed message was overdue at its first delivery.
#[tokio::test]
async fn a_delayed_message_is_not_overdue_when_it_comes() {
    let (_broker, client) = client().await;
    let exchange = Exchange {
        name: "later".into(),
        kind: "x-delayed-message".into(),
        durable: true,
        ..Exchange::default()
    };
    let mut exchange = exchange;
    exchange.arguments.set("x-delayed-type", Value::text("direct"));
    client.declare_exchange(&exchange).await.unwrap();
    let binding = Binding {
        source: "later".into(),
        destination: "jobs".into(),
        key: "k".into(),
        ..Binding::default()
    };
    client.bind(&binding).await.unwrap();
    // It lives for 150 ms in the mailbox, and waits for 300 ms before it is there.
    let message = NewMessage::from("one").with(|it| {
        it.headers_mut().set("x-delay", Value::I64(300));
        it.expiration = Some("150".into());
    });
    let start = std::time::Instant::now();
    client.start_publish("later", "k", [&message]).await.unwrap().await.unwrap();
    let got = client.pull("jobs", 1, PATIENCE).await.unwrap().deliveries;
    assert_eq!((got[0].body(), got[0].redelivered), (&b"one"[..], false));
    assert!(start.elapsed() >= Duration::from_millis(290));
    // Held for as long as it was delayed, it does not come again.
    assert_eq!(
        client.pull("jobs", 1, Duration::from_millis(300)).await.unwrap().deliveries.len(),
        0
    );
}

/// Case 15: every redelivery was copied to the dead letters, not the last one only.
#[tokio::test]
async fn a_dead_letter_comes_once_and_after_the_last_attempt() {
    let (_broker, client) = client().await;
    client.declare(&Mailbox::durable("dead")).await.unwrap();
    let work = Mailbox::durable("work")
        .argument("x-delivery-limit", Value::I64(4))
        .argument("x-dead-letter-exchange", Value::text(""))
        .argument("x-dead-letter-routing-key", Value::text("dead"));
    client.declare(&work).await.unwrap();
    client.push("work", "poison").await.unwrap();
    for attempt in 0..5 {
        assert_eq!(client.find("dead").await.unwrap().ready, 0, "attempt {attempt}");
        let held = client.pull("work", 1, PATIENCE).await.unwrap().deliveries;
        let failed = Outcome::Failed { delay: Duration::ZERO };
        client.settle(&held, failed).await.unwrap();
    }
    assert_eq!(client.pull("work", 1, Duration::ZERO).await.unwrap().deliveries.len(), 0);
    assert_eq!(client.find("dead").await.unwrap().ready, 1);
}

/// Case 19: a quote in a body broke the statement that stored it, and 255 bytes were the most.
#[tokio::test]
async fn bodies_may_be_anything_up_to_the_limit() {
    let (_broker, client) = client().await;
    for body in [b"'; DROP TABLE messages; --".to_vec(), vec![0], vec![b'\''; 1 << 20], Vec::new()]
    {
        client.push("jobs", body.clone()).await.unwrap();
        let got = client.pull("jobs", 1, SHORT).await.unwrap().deliveries;
        assert_eq!(got[0].body(), body);
    }
}

/// Case 21: a slow subscriber either blocked everybody or lost messages that nobody counted.
#[tokio::test]
async fn what_a_slow_subscriber_misses_is_counted_and_others_get_all() {
    let (_broker, client) = client().await;
    let slow = Mailbox { name: "slow".into(), ..Mailbox::default() }
        .argument("x-max-length", Value::I64(10));
    client.declare(&slow).await.unwrap();
    for mailbox in ["slow", "jobs"] {
        let binding = Binding {
            source: "amq.fanout".into(),
            destination: mailbox.into(),
            ..Binding::default()
        };
        client.bind(&binding).await.unwrap();
    }
    let messages: Vec<NewMessage> = (0..1000).map(|n: u32| n.to_string().into()).collect();
    client.start_publish("amq.fanout", "", &messages).await.unwrap().await.unwrap();
    assert_eq!(count(&client, "jobs", "ready").await, 1000);
    assert_eq!(count(&client, "slow", "ready").await, 10);
    assert_eq!(count(&client, "slow", "dropped").await, 990);
}

/// Case 22: a reply that came before its waiter was set was lost.
#[tokio::test]
async fn a_reply_faster_than_its_waiter_arrives() {
    let (broker, client) = client().await;
    let server = broker.client().await.unwrap();
    let subscribe = Subscribe { settled: true, credit: 0, ..Subscribe::default() };
    let mut requests = server.subscribe("jobs", &subscribe).await.unwrap();
    tokio::spawn(async move {
        while let Ok(Some(request)) = requests.next().await {
            server.reply(&request, request.body_bytes()).await.unwrap();
        }
    });
    for number in 0..500u32 {
        let body = number.to_string();
        let reply = client.request("jobs", body.clone(), PATIENCE).await.unwrap();
        assert_eq!(reply.body(), body.as_bytes());
    }
}

/// Case 23: deliveries in the process were handed over each by a task of its own, in any order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_in_the_process_keep_their_order() {
    let (broker, client) = client().await;
    let mut subscribers = Vec::new();
    for _ in 0..4 {
        let subscriber = broker.client().await.unwrap();
        let mut messages =
            subscriber.subscribe_topic("all/#", &Subscribe::default()).await.unwrap();
        subscribers.push(tokio::spawn(async move {
            for number in 0..5000u32 {
                let message = messages.next().await.unwrap().unwrap();
                assert_eq!(message.body(), number.to_le_bytes());
                subscriber.settle_later([&message], Outcome::Accepted).unwrap();
            }
        }));
    }
    for number in 0..5000u32 {
        let message = NewMessage::new(number.to_le_bytes().to_vec());
        let receipt = client.start_publish("amq.topic", "all.x", [&message]).await.unwrap();
        drop(receipt);
    }
    for subscriber in subscribers {
        timeout(PATIENCE, subscriber).await.expect("all in time").unwrap();
    }
}

/// Case 24: a batch that failed half-way was published with the next one.
#[tokio::test]
async fn a_batch_that_cannot_be_right_leaves_nothing_behind() {
    let (_broker, client) = client().await;
    let bad = NewMessage::from("bad").with(|it| it.expiration = Some("soon".into()));
    let batch = [NewMessage::from("one"), NewMessage::from("two"), bad];
    let refused = client.push_batch("jobs", &batch).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Invalid));
    assert_eq!(client.find("jobs").await.unwrap().ready, 0);
    client.push("jobs", "next").await.unwrap();
    let got = client.pull("jobs", 10, SHORT).await.unwrap().deliveries;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].body(), b"next");
}

/// Case 26: the 65,536th message of a batch made its count begin again at 0.
#[tokio::test]
async fn a_batch_too_large_is_refused_and_not_wrapped() {
    let (_broker, client) = client().await;
    let messages = vec![NewMessage::from("x"); 65_537];
    let refused = client.push_batch("jobs", &messages).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::TooLarge));
    assert_eq!(client.find("jobs").await.unwrap().ready, 0);
    let pushed = client.push_batch("jobs", &messages[1..]).await.unwrap();
    assert_eq!((pushed.taken, pushed.refused.len()), (65_536, 0));
    assert_eq!(client.find("jobs").await.unwrap().ready, 65_536);
}

#[tokio::test]
async fn browsing_takes_nothing() {
    let (_broker, client) = client().await;
    for body in ["one", "two"] {
        client.push("jobs", NewMessage::from(body).header("n", body)).await.unwrap();
    }
    let held = client.pull("jobs", 1, SHORT).await.unwrap().deliveries;
    let browsed = client.browse("jobs", &Browse::default()).await.unwrap();
    let shown: Vec<_> = browsed
        .messages
        .iter()
        .map(|row| {
            let bytes = |name: &str| row.get(name).and_then(Value::as_bytes).unwrap().clone();
            let headers = (NEUTRAL.decode)(&bytes("properties")).headers.unwrap();
            let header = headers.get("n").and_then(Value::as_str).unwrap().to_owned();
            (row.get("state").and_then(Value::as_str).unwrap().to_owned(), bytes("body"), header)
        })
        .collect();
    let row = |state: &str, body: &'static str| (state.to_owned(), body.into(), body.to_owned());
    assert_eq!(shown, [row("ready", "two"), row("unsettled", "one")]);
    client.settle(&held, Outcome::Accepted).await.unwrap();
    let next = client.pull("jobs", 1, SHORT).await.unwrap().deliveries;
    assert!(!next[0].redelivered);
}

//! The client library and a whole broker, over a socket.

use std::time::Duration;

use pillarbox::broker::{Table, Value};
use pillarbox::client::{
    Binding, Client, Connect, Defined, Error, Exchange, List, Mailbox, NewMessage, Outcome, Proof,
    Redrive, Redriven, Subscribe,
};
use pillarbox::config::{Address, Config};
use pillarbox::server::{Protocol, Server};
use pillarbox_native::Code;

async fn broker() -> (Server, Client) {
    let mut config = Config::default();
    config.store.in_memory = true;
    config.listen.amqp = Address::Off;
    config.listen.stomp = Address::Off;
    config.listen.http = Address::Off;
    config.listen.native = Address::local(0);
    let server = Server::start(config).await.unwrap();
    let client = Client::connect(&connect(&server)).await.unwrap();
    (server, client)
}

fn connect(server: &Server) -> Connect {
    let address = server.address(Protocol::Native).unwrap().to_string();
    Connect { address, ..Connect::default() }
}

#[tokio::test]
async fn messages_come_out_as_they_went_in() {
    let (_server, client) = broker().await;
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    // Seeds, case 19: bodies with anything in them.
    let bodies = [b"it's".to_vec(), b"a\0b".to_vec(), Vec::new(), vec![7; 1 << 20]];
    for body in &bodies {
        let message =
            NewMessage::new(body.clone()).header("n", "1").with(|it| it.priority = Some(3));
        client.push("jobs", message).await.unwrap();
    }
    let pulled = client.pull("jobs", 10, Duration::ZERO).await.unwrap();
    let found: Vec<_> = pulled.deliveries.iter().map(|it| it.body().to_vec()).collect();
    assert_eq!(found, bodies);
    for delivery in &pulled.deliveries {
        assert_eq!(delivery.text_headers()["n"], "1");
        assert_eq!(delivery.properties().priority, Some(3));
    }
    client.settle(&pulled.deliveries, Outcome::Accepted).await.unwrap();
    let twice = client.settle(&pulled.deliveries[..1], Outcome::Accepted).await;
    assert_eq!(twice.unwrap_err().code(), Some(Code::NotFound));
    assert_eq!(client.find("jobs").await.unwrap().ready, 0);
}

#[tokio::test]
async fn a_subscription_gets_everything_in_order() {
    let (_server, client) = broker().await;
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    let subscribe = Subscribe { credit: 10, ..Subscribe::default() };
    let mut jobs = client.subscribe("jobs", &subscribe).await.unwrap();
    let messages: Vec<NewMessage> = (0..1000).map(|n: u32| n.to_string().into()).collect();
    let pushed = client.push_batch("jobs", &messages).await.unwrap();
    assert_eq!((pushed.taken, pushed.refused.len()), (1000, 0));
    for expected in 0..1000 {
        let job = jobs.next().await.unwrap().unwrap();
        assert_eq!(job.body(), expected.to_string().as_bytes());
        client.settle_later([&job], Outcome::Accepted).unwrap();
    }
    jobs.end().await.unwrap();
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_subscription_takes_what_its_selector_wants() {
    let (_server, client) = broker().await;
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    for (body, colour) in [("1", "red"), ("2", "blue"), ("3", "red")] {
        client
            .push("jobs", NewMessage::from(body.to_owned()).header("colour", colour))
            .await
            .unwrap();
    }
    let selector = |text: &str| Subscribe { selector: Some(text.into()), ..Subscribe::default() };
    let mut blue = client.subscribe("jobs", &selector("colour = 'blue'")).await.unwrap();
    assert_eq!(blue.next().await.unwrap().unwrap().body(), b"2");
    assert_eq!(client.find("jobs").await.unwrap().ready, 2);
    let wrong = client.subscribe("jobs", &selector("colour =")).await.err().unwrap();
    assert_eq!(wrong.code(), Some(Code::Invalid));
}

#[tokio::test]
async fn dropping_a_subscription_returns_what_it_held() {
    let (_server, client) = broker().await;
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    client.push("jobs", "one").await.unwrap();
    let mut jobs = client.subscribe("jobs", &Subscribe::default()).await.unwrap();
    jobs.next().await.unwrap().unwrap();
    drop(jobs);
    let pulled = client.pull("jobs", 1, Duration::from_secs(5)).await.unwrap();
    assert!(pulled.deliveries[0].redelivered);
}

/// Seeds, case 22: a reply may be faster than whoever waits for it.
#[tokio::test]
async fn requests_are_answered() {
    let (server, client) = broker().await;
    client.declare(&Mailbox::durable("double")).await.unwrap();
    let worker = Client::connect(&connect(&server)).await.unwrap();
    let mut requests = worker.subscribe("double", &Subscribe::default()).await.unwrap();
    tokio::spawn(async move {
        while let Ok(Some(request)) = requests.next().await {
            let number: u32 = std::str::from_utf8(request.body()).unwrap().parse().unwrap();
            worker.reply(&request, (number * 2).to_string()).await.unwrap();
            worker.settle_later([&request], Outcome::Accepted).unwrap();
        }
    });
    for number in 0..50u32 {
        let patience = Duration::from_secs(5);
        let reply = client.request("double", number.to_string(), patience).await.unwrap();
        assert_eq!(reply.body(), (number * 2).to_string().as_bytes());
    }
    client.declare(&Mailbox::durable("nobody")).await.unwrap();
    let silent = client.request("nobody", "x", Duration::from_millis(50)).await;
    assert!(matches!(silent, Err(Error::Timeout)));
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let (server, client) = broker().await;
    let missing = client.push("none", "x").await.unwrap_err();
    assert_eq!(missing.code(), Some(Code::NotFound));
    let wrong = Connect { proof: Proof::Password("wrong".into()), ..connect(&server) };
    assert!(matches!(Client::connect(&wrong).await, Err(Error::Login(_))));
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    let mut jobs = client.subscribe("jobs", &Subscribe::default()).await.unwrap();
    server.stop().await.unwrap();
    assert!(jobs.next().await.is_err());
    assert!(client.push("jobs", "x").await.is_err());
    let nowhere = Connect { address: "127.0.0.1:1".into(), ..Connect::default() };
    let gone = Client::connect(&nowhere).await.err().unwrap().to_string();
    assert!(gone.contains("`pillarbox serve`"), "{gone}");
}

#[tokio::test]
async fn policies_are_set_listed_and_cleared() {
    let (_server, client) = broker().await;
    client.declare(&Mailbox::durable("tmp.a")).await.unwrap();
    let policy = |name: &str, length: i64| {
        let texts = [("vhost", "/"), ("name", name), ("pattern", "^tmp"), ("apply_to", "queues")];
        let mut fields: Table =
            texts.map(|(field, text)| (field.into(), Value::text(text))).into_iter().collect();
        let definition = [("max-length".into(), Value::I64(length))].into_iter().collect();
        fields.set("definition", Value::Table(definition));
        fields
    };
    client.define(Defined::Policy, &policy("short", 3)).await.unwrap();
    client.define(Defined::OperatorPolicy, &policy("bound", 2)).await.unwrap();
    let rows = client.list(List::Policies, "").await.unwrap();
    let row = |row: &Table| {
        let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        (text("name"), text("apply_to"), row.get("operator").and_then(Value::as_bool))
    };
    let found: Vec<_> = rows.iter().map(row).collect();
    let expected =
        |name: &str, operator| (Some(name.into()), Some("queues".into()), Some(operator));
    assert_eq!(found, [expected("short", false), expected("bound", true)]);
    for _ in 0..4 {
        client.push("tmp.a", "x").await.unwrap();
    }
    assert_eq!(client.find("tmp.a").await.unwrap().ready, 2);
    client.undefine(Defined::OperatorPolicy, &["/", "bound"]).await.unwrap();
    let wrong = client.define(Defined::Policy, &policy("short", -3)).await.unwrap_err();
    assert!(wrong.to_string().contains("-3 is not a valid maximum length"), "{wrong}");
    client.push("tmp.a", "x").await.unwrap();
    client.push("tmp.a", "x").await.unwrap();
    assert_eq!(client.find("tmp.a").await.unwrap().ready, 3);
    let rows = client.list(List::Mailboxes, "").await.unwrap();
    assert_eq!(rows[0].get("policy"), Some(&Value::text("short")));
}

#[tokio::test]
async fn what_is_defined_is_listed() {
    let (server, client) = broker().await;
    let texts = |fields: &[(&str, &str)]| -> Table {
        fields.iter().map(|(name, text)| ((*name).into(), Value::text(text))).collect()
    };
    for name in ["one", "two"] {
        client.define(Defined::Vhost, &texts(&[("name", name)])).await.unwrap();
    }
    let anna = [("name", "anna"), ("password_hash", ""), ("hashing", "argon2id")];
    client.define(Defined::User, &texts(&anna)).await.unwrap();
    let may =
        [("vhost", "one"), ("user", "anna"), ("configure", ""), ("write", "^a"), ("read", "")];
    client.define(Defined::Permission, &texts(&may)).await.unwrap();
    let logs = Exchange { name: "logs".into(), kind: "topic".into(), ..Exchange::default() };
    client.declare_exchange(&logs).await.unwrap();
    client.declare(&Mailbox::durable("jobs")).await.unwrap();
    for key in ["a.*", "b.#"] {
        let (source, destination) = ("logs".into(), "jobs".into());
        let binding = Binding { source, destination, key: key.into(), ..Binding::default() };
        client.bind(&binding).await.unwrap();
    }
    let column = async |list: List, name: &str| -> Vec<String> {
        let rows = client.list(list, "").await.unwrap();
        rows.iter().map(|row| row.get(name).and_then(Value::as_str).unwrap().to_owned()).collect()
    };
    assert_eq!(column(List::Vhosts, "name").await, ["/", "one", "two"]);
    assert_eq!(column(List::Users, "name").await, ["anna", "guest"]);
    assert_eq!(column(List::Permissions, "write").await, ["^a", ".*"]);
    assert_eq!(column(List::Bindings, "key").await, ["a.*", "b.#"]);
    let exchanges = column(List::Exchanges, "name").await;
    assert!(exchanges[0].is_empty() && exchanges.contains(&"logs".into()), "{exchanges:?}");

    // Who is sent away hears why.
    let other = Client::connect(&connect(&server)).await.unwrap();
    let rows = client.list(List::Connections, "").await.unwrap();
    let id = rows.iter().filter_map(|row| row.get("id").and_then(Value::as_i64)).max().unwrap();
    assert!(client.disconnect(id as u64, "for the test").await.unwrap());
    let error = other.list(List::Mailboxes, "").await.unwrap_err().to_string();
    assert!(error.contains("for the test"), "{error}");
    assert!(!client.disconnect(10_000, "").await.unwrap());
}

#[tokio::test]
async fn limits_are_set_listed_and_cleared() {
    let (_server, client) = broker().await;
    let set = |of: &str, name: &str, limit: &str, value: i64| {
        let texts = [("of", of), ("name", name), ("limit", limit)];
        let mut fields: Table =
            texts.map(|(field, text)| (field.into(), Value::text(text))).into_iter().collect();
        fields.set("value", Value::I64(value));
        fields
    };
    client.define(Defined::Limit, &set("user", "guest", "max-channels", 9)).await.unwrap();
    client.define(Defined::Limit, &set("vhost", "/", "max-queues", 1)).await.unwrap();
    let rows = client.list(List::Limits, "").await.unwrap();
    let row = |row: &Table| {
        let text =
            |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let value = row.get("value").and_then(Value::as_i64);
        (text("of"), text("name"), text("limit"), value)
    };
    let expected = |of: &str, name: &str, limit: &str, value| {
        (of.to_owned(), name.to_owned(), limit.to_owned(), Some(value))
    };
    let found: Vec<_> = rows.iter().map(row).collect();
    assert_eq!(
        found,
        [expected("user", "guest", "max-channels", 9), expected("vhost", "/", "max-queues", 1)]
    );
    client.declare(&Mailbox::durable("a")).await.unwrap();
    let full = client.declare(&Mailbox::durable("b")).await.unwrap_err();
    assert_eq!(full.code(), Some(Code::Precondition));
    client.undefine(Defined::Limit, &["vhost", "/", "max-queues"]).await.unwrap();
    client.declare(&Mailbox::durable("b")).await.unwrap();
    for (fields, text) in [
        (set("host", "/", "max-queues", 1), "'host' is neither user nor vhost"),
        (set("user", "guest", "max-fun", 1), "there is no limit 'max-fun'"),
        (set("user", "guest", "max-channels", -1), "the number 'value' is missing"),
    ] {
        let wrong = client.define(Defined::Limit, &fields).await.unwrap_err();
        assert!(wrong.to_string().contains(text), "{wrong}");
    }
}

#[tokio::test]
async fn a_stream_is_read_by_range_and_by_cursor() {
    let (_server, client) = broker().await;
    let stream = Mailbox::durable("log").argument("x-queue-type", Value::text("stream"));
    client.declare(&stream).await.unwrap();
    let messages: Vec<NewMessage> = (0..50).map(|n: u32| n.to_string().into()).collect();
    client.push_batch("log", &messages).await.unwrap();
    let read = async |subscribe: Subscribe| {
        let mut messages = client.subscribe("log", &subscribe).await.unwrap();
        let mut read = Vec::new();
        while let Some(delivery) = messages.next().await.unwrap() {
            assert_eq!(delivery.body(), delivery.offset.unwrap().to_string().as_bytes());
            read.push(delivery.offset.unwrap());
            client.settle(&[delivery], Outcome::Accepted).await.unwrap();
        }
        messages.end().await.unwrap();
        read
    };
    let range = |from: Value, until: Value| {
        let subscribe = Subscribe { credit: 7, ..Subscribe::default() };
        subscribe.argument("x-stream-offset", from).argument("x-stream-until", until)
    };
    let last = || Value::text("last");
    assert_eq!(read(range(Value::text("first"), last())).await, (0..50).collect::<Vec<_>>());
    assert_eq!(read(range(Value::I64(10), Value::I64(12))).await, [10, 11, 12]);
    assert_eq!(read(range(Value::text("next"), last())).await, [0; 0]);
    let audit = |until| {
        range(Value::text("first"), until).argument("x-stream-cursor", Value::text("audit"))
    };
    assert_eq!(read(audit(Value::I64(4))).await, [0, 1, 2, 3, 4]);
    assert_eq!(read(audit(Value::I64(6))).await, [5, 6]);
    let settled = Subscribe { settled: true, ..range(Value::I64(40), last()) };
    assert_eq!(read(settled).await, (40..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn keys_have_their_newest_value() {
    let (_server, client) = broker().await;
    let users = Mailbox::durable("users").argument("x-queue-type", Value::text("kv"));
    client.declare(&users.argument("x-max-history", Value::I64(2))).await.unwrap();
    for (key, value) in [("user1", "Ada"), ("user10", "Bob"), ("user1", "Eve"), ("user2", "Kim")] {
        client.put("users", key, value).await.unwrap();
    }
    let get = async |key: &str| {
        let found = client.get("users", key).await.unwrap();
        found.map(|it| String::from_utf8_lossy(it.body()).into_owned())
    };
    assert_eq!(get("user1").await.as_deref(), Some("Eve"));
    assert_eq!(get("user10").await.as_deref(), Some("Bob"));
    assert_eq!(get("user").await, None);
    let history = client.history("users", "user1").await.unwrap();
    let values: Vec<_> = history.iter().map(|it| it.body().to_vec()).collect();
    assert_eq!(values, [b"Ada".to_vec(), b"Eve".to_vec()]);
    client.erase("users", "user2").await.unwrap();
    assert_eq!(get("user2").await, None);
    let keys = client.keys("users").await.unwrap();
    let names: Vec<_> = keys.iter().filter_map(|it| it.get("name")?.as_str()).collect();
    assert_eq!(names, ["user1", "user10"]);
    // Without a key it is refused.
    assert!(client.push("users", "nobody").await.is_err());
}

#[tokio::test]
async fn group_shares_a_stream_and_is_seen_moved_and_forgotten() {
    let (_server, client) = broker().await;
    let log = Mailbox::durable("log").argument("x-queue-type", Value::text("stream"));
    client.declare(&log).await.unwrap();
    let messages: Vec<NewMessage> = (0..100).map(|n: u32| n.to_string().into()).collect();
    client.push_batch("log", &messages).await.unwrap();
    client.seek("log", "billing", Value::text("first")).await.unwrap();
    let member = Subscribe { credit: 10, ..Subscribe::default() }
        .argument("x-group", Value::text("billing"));
    let mut one = client.subscribe("log", &member).await.unwrap();
    let mut two = client.subscribe("log", &member).await.unwrap();
    let mut seen = Vec::new();
    for messages in [&mut one, &mut two] {
        let batch = messages.next_batch().await.unwrap();
        seen.push(batch[0].body().to_vec());
        client.settle(batch.iter().take(1), Outcome::Accepted).await.unwrap();
    }
    assert_ne!(seen[0], seen[1]);
    let rows = client.cursors("log").await.unwrap();
    let number = |name: &str| rows[0].get(name).and_then(Value::as_i64);
    assert_eq!(rows[0].get("name").and_then(Value::as_str), Some("billing"));
    assert_eq!((number("lag"), number("members")), (Some(98), Some(2)));
    let refused = client.delete_cursor("log", "billing").await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Precondition));
    one.end().await.unwrap();
    two.end().await.unwrap();
    client.seek("log", "billing", Value::I64(97)).await.unwrap();
    let rest = member.argument("x-stream-until", Value::text("last"));
    let mut rest = client.subscribe("log", &rest).await.unwrap();
    let mut bodies = Vec::new();
    while let Some(delivery) = rest.next().await.unwrap() {
        bodies.push(delivery.body().to_vec());
    }
    assert_eq!(bodies, [b"97", b"98", b"99"]);
    rest.end().await.unwrap();
    client.delete_cursor("log", "billing").await.unwrap();
    assert!(client.cursors("log").await.unwrap().is_empty());
    let missing = client.delete_cursor("log", "billing").await.unwrap_err();
    assert_eq!(missing.code(), Some(Code::NotFound));
}

#[tokio::test]
async fn push_is_told_which_messages_were_there_before() {
    let (_server, client) = broker().await;
    let window = ("x-deduplication-window", Value::I64(60_000));
    client.declare(&Mailbox::durable("payments").argument(window.0, window.1)).await.unwrap();
    let named =
        |id: &str| NewMessage::from("x").with(|it| it.message_id = Some(id.to_owned().into()));
    let first = client.push_batch("payments", &[named("1"), named("2")]).await.unwrap();
    assert_eq!((first.taken, first.duplicates), (2, vec![]));
    let again = client.push_batch("payments", &[named("3"), named("2")]).await.unwrap();
    assert_eq!((again.taken, again.refused.len(), &again.duplicates[..]), (2, 0, &[(1, 2)][..]));
    assert_eq!(client.find("payments").await.unwrap().ready, 3);
}

#[tokio::test]
async fn dead_letters_go_back_to_where_they_died() {
    let (_server, client) = broker().await;
    client.declare(&Mailbox::durable("failed")).await.unwrap();
    for name in ["jobs", "mails"] {
        let mailbox = Mailbox::durable(name)
            .argument("x-dead-letter-exchange", Value::text(""))
            .argument("x-dead-letter-routing-key", Value::text("failed"));
        client.declare(&mailbox).await.unwrap();
        for n in ["1", "2", "3"] {
            client.push(name, NewMessage::from(name).header("n", n)).await.unwrap();
        }
        let pulled = client.pull(name, 10, Duration::ZERO).await.unwrap().deliveries;
        client.settle(&pulled, Outcome::Rejected).await.unwrap();
    }
    client.push("failed", "never died").await.unwrap();
    let ready = async |name: &str| client.find(name).await.unwrap().ready;
    assert_eq!(ready("failed").await, 7);
    let some = Redrive { selector: Some("n <> '1'".into()), count: Some(3), ..Redrive::default() };
    let moved = |moved, stayed| Redriven { moved, stayed };
    assert_eq!(client.redrive("failed", &some).await.unwrap(), moved(3, 0));
    assert_eq!((ready("jobs").await, ready("mails").await, ready("failed").await), (2, 1, 4));
    let back = client.pull("jobs", 1, Duration::ZERO).await.unwrap().deliveries;
    assert_eq!((back[0].body(), back[0].text_headers().len()), (&b"jobs"[..], 1));
    // Where its queue is gone, a letter stays, and so does one that never died.
    client.delete("mails", false, false).await.unwrap();
    let start = std::time::Instant::now();
    let all = Redrive { rate: Some(2), ..Redrive::default() };
    assert_eq!(client.redrive("failed", &all).await.unwrap(), moved(1, 3));
    // Four in at most two a second, and a second of silence.
    assert!(start.elapsed() >= Duration::from_millis(2_400), "{:?}", start.elapsed());
    assert_eq!(ready("failed").await, 3);
    let to = Redrive { to: Some("jobs".into()), ..Redrive::default() };
    assert_eq!(client.redrive("failed", &to).await.unwrap(), moved(3, 0));
    assert_eq!(client.redrive("failed", &to).await.unwrap(), moved(0, 0));
}

#[tokio::test]
async fn dead_letter_that_its_mailbox_knows_already_is_not_lost() {
    let (_server, client) = broker().await;
    client.declare(&Mailbox::durable("failed")).await.unwrap();
    let jobs = Mailbox::durable("jobs")
        .argument("x-dead-letter-exchange", Value::text(""))
        .argument("x-dead-letter-routing-key", Value::text("failed"))
        .argument("x-deduplication-window", Value::I64(600_000));
    client.declare(&jobs).await.unwrap();
    let named = NewMessage::from("x").with(|it| it.message_id = Some("1".to_owned().into()));
    client.push("jobs", named).await.unwrap();
    let pulled = client.pull("jobs", 1, Duration::ZERO).await.unwrap().deliveries;
    client.settle(&pulled, Outcome::Rejected).await.unwrap();
    let done = client.redrive("failed", &Redrive::default()).await.unwrap();
    assert_eq!(done, Redriven { moved: 0, stayed: 1 });
    assert_eq!(client.find("failed").await.unwrap().ready, 1);
}

//! Real brokers on their own data directories, linked over sockets, killed and started again.

mod host;
mod moving;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use pillarbox::broker::{Table, Value};
use pillarbox::client::{Binding, Client, Defined, Mailbox, NewMessage, Subscribe};
use pillarbox_native::Code;

use self::host::*;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_while_both_hosts_are_killed_in_turn() {
    let directory = tempfile::tempdir().expect("a directory");
    let b = Broker::start(directory.path(), "b", "127.0.0.1:0", &[]);
    let a = Broker::start(directory.path(), "a", "127.0.0.1:0", &[&b.peers]);
    let (to_a, to_b) = (a.client().await, b.client().await);
    to_b.declare(&Mailbox::durable("work")).await.expect("declared");
    knows(&to_a, "b", 1, 0).await;
    push(&to_a, "work", bodies(0..100)).await;
    until("delivery", async || {
        (to_b.find("work").await.expect("it is there").ready == 100).then_some(())
    })
    .await;

    // The target dies while messages are on their way.
    let mut b = b;
    push(&to_a, "work", bodies(100..2000)).await;
    b.kill();
    push(&to_a, "work", bodies(2000..2100)).await;
    let row = peer(&to_a, "b").await.expect("it is known");
    assert!(number(&row, "messages") >= 100, "{row:?}");
    assert!(number(&row, "oldest_ms") > 0);

    let shown = a.get("/api/peers");
    assert!(
        shown.contains(r#""name":"b""#) && shown.contains(r#""to":{"state":"down"}"#),
        "{shown}"
    );
    let metrics = a.get("/metrics");
    assert!(metrics.contains("\npillarbox_peer_link_up{peer=\"b\"} 0\n"), "{metrics}");
    assert!(metrics.contains("\npillarbox_peer_messages{peer=\"b\"} "));

    // The origin dies while the target is away; it comes back first and takes more.
    let a = a.restart(&[&b.peers]);
    let to_a = a.client().await;
    push(&to_a, "work", bodies(2100..2200)).await;
    let row = peer(&to_a, "b").await.expect("it is known after the restart");
    assert_eq!(row.get("to").and_then(Value::as_str), Some("down"));
    let b = b.restart(&[]);
    let to_b = b.client().await;
    assert_eq!(take(&to_b, "work", 2200).await, bodies(0..2200));
    until("empty outbox", async || {
        let row = peer(&to_a, "b").await?;
        (number(&row, "messages") == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_spans_three_hosts_with_one_copy_for_each() {
    let directory = tempfile::tempdir().expect("a directory");
    let a = Broker::start(directory.path(), "a", "127.0.0.1:0", &[]);
    let b = Broker::start(directory.path(), "b", "127.0.0.1:0", &[&a.peers]);
    // Both are told of one host, and find each other by it.
    let c = Broker::start(directory.path(), "c", "127.0.0.1:0", &[&a.peers]);
    let clients = [a.client().await, b.client().await, c.client().await];
    for (client, name) in clients.iter().zip(["a", "b", "c"]) {
        for queue in ["1", "2"] {
            let mailbox = format!("{name}{queue}");
            client.declare(&Mailbox::durable(&mailbox)).await.expect("declared");
            let (source, key) = ("amq.topic".into(), "news.#".into());
            let binding = Binding { source, destination: mailbox, key, ..Binding::default() };
            client.bind(&binding).await.expect("bound");
        }
    }
    for (client, others) in clients.iter().zip([["b", "c"], ["a", "c"], ["a", "b"]]) {
        for other in others {
            // Both bindings come to one.
            knows(client, other, 2, 1).await;
        }
    }
    for (client, n) in clients.iter().zip(["0", "1", "2"]) {
        let message = NewMessage::from(n);
        client.publish("amq.topic", "news.x", message).await.expect("confirmed");
    }
    for (client, name) in clients.iter().zip(["a", "b", "c"]) {
        for queue in ["1", "2"] {
            let mut found = take(client, &format!("{name}{queue}"), 3).await;
            found.sort();
            assert_eq!(found, ["0", "1", "2"], "{name}{queue}");
        }
        for other in ["a", "b", "c"] {
            let Some(row) = peer(client, other).await else { continue };
            assert_eq!(number(&row, "arrived"), 1, "{name} from {other}: {row:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_elsewhere_is_a_dead_letter_here() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = [("PILLARBOX__LIMITS__MESSAGE_SIZE_MAX", "200 KiB")];
    let b = Broker::start_with(directory.path(), "b", "127.0.0.1:0", &[], &small);
    let a = Broker::start(directory.path(), "a", "127.0.0.1:0", &[&b.peers]);
    let (to_a, to_b) = (a.client().await, b.client().await);
    to_b.declare(&Mailbox::durable("work")).await.expect("declared");
    to_a.declare(&Mailbox::durable("dead")).await.expect("declared");
    let mut policy = Table::new();
    for (name, text) in [("vhost", "/"), ("name", "dead"), ("pattern", "^peer/")] {
        policy.set(name, Value::text(text));
    }
    let mut values = Table::new();
    values.set("dead-letter-exchange", Value::text(""));
    values.set("dead-letter-routing-key", Value::text("dead"));
    policy.set("definition", Value::Table(values));
    to_a.define(Defined::Policy, &policy).await.expect("defined");
    knows(&to_a, "b", 1, 0).await;
    // One that the host there looks at, and one that no frame for it could hold.
    let bodies =
        ["1".to_owned(), "L".repeat(210 << 10), "2".into(), "H".repeat(2 << 20), "3".into()];
    push(&to_a, "work", bodies.clone()).await;
    assert_eq!(take(&to_b, "work", 3).await, ["1", "2", "3"]);
    let mut dead = take(&to_a, "dead", 2).await;
    dead.sort();
    assert_eq!(dead, [bodies[3].clone(), bodies[1].clone()]);
    let row = peer(&to_a, "b").await.expect("it is known");
    assert_eq!((number(&row, "refused"), number(&row, "messages")), (2, 0));
    let metrics = a.get("/metrics");
    assert!(metrics.contains("\npillarbox_peer_refused_total{peer=\"b\"} 2\n"), "{metrics}");
    for name in ["a.log", "b.log"] {
        let log = std::fs::read_to_string(directory.path().join(name)).expect("a log");
        assert!(log.contains("the message is larger than its home takes"), "{name}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_host_that_is_gone_is_sent_on_or_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut b = Broker::start(directory.path(), "b", "127.0.0.1:0", &[]);
    let a = Broker::start(directory.path(), "a", "127.0.0.1:0", &[&b.peers]);
    let c = Broker::start(directory.path(), "c", "127.0.0.1:0", &[&a.peers]);
    let (to_a, to_b, to_c) = (a.client().await, b.client().await, c.client().await);
    to_b.declare(&Mailbox::durable("work")).await.expect("declared");
    to_c.declare(&Mailbox::durable("there")).await.expect("declared");
    for (client, name) in [(&to_a, "b"), (&to_a, "c"), (&to_c, "b")] {
        knows(client, name, 1, 0).await;
    }
    b.kill();
    push(&to_a, "work", bodies(0..3000)).await;
    for client in [&to_a, &to_c] {
        until("end of the links", async || {
            let row = peer(client, "b").await?;
            let down = |way: &str| row.get(way).and_then(Value::as_str) == Some("down");
            (down("to") && down("from")).then_some(())
        })
        .await;
    }
    let refused = a.cli(&["peer", "drop", "b"]);
    assert_eq!(
        refused,
        (1, "pillarbox: 3000 messages wait for host 'b': drop or redirect them\n".into())
    );
    assert_eq!(
        c.cli(&["peer", "drop", "b"]),
        (0, "host 'b' is forgotten, 0 messages dropped\n".into())
    );
    to_c.declare(&Mailbox::durable("work")).await.expect("declared");
    let said = a.cli(&["peer", "redirect", "b", "--to", "c"]);
    assert_eq!(said, (0, "host 'b' is forgotten, 3000 messages on their way to host 'c'\n".into()));
    assert_eq!(take(&to_c, "work", 3000).await, bodies(0..3000));
    assert!(peer(&to_a, "b").await.is_none());
    assert!(
        !std::fs::read_to_string(directory.path().join("a/hosts.json"))
            .expect("a file")
            .contains(r#""b""#)
    );

    // It comes back, is met, and goes again.
    let b = b.restart(&[&a.peers]);
    let to_b = b.client().await;
    to_b.declare(&Mailbox::durable("again")).await.expect("declared");
    knows(&to_a, "b", 2, 0).await;
    drop(b);
    push(&to_a, "again", bodies(0..3)).await;
    let gone = until("drop", async || {
        let answer = a.send("DELETE", "/api/peers/b?messages=drop", "");
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    })
    .await;
    assert!(gone.ends_with(r#"{"messages":3}"#), "{gone}");
    assert!(a.send("DELETE", "/api/peers/b", "").starts_with("HTTP/1.1 404"));
    assert!(a.send("POST", "/api/peers/b/redirect", "{}").starts_with("HTTP/1.1 404"));
}

/// An authority of hosts, and a certificate of it with its key: as files, and as settings that name them.
fn certified(directory: &Path, name: &str) -> Vec<(&'static str, String)> {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::default().signed_by(&key, &authority).expect("signed");
    let files = [
        ("PILLARBOX__PEERS__CERTIFICATE", "pem", own.pem()),
        ("PILLARBOX__PEERS__KEY", "key", key.serialize_pem()),
        ("PILLARBOX__PEERS__CA", "ca", authority.pem()),
    ];
    let written = files.map(|(setting, kind, text)| {
        let path = directory.join(format!("{name}.{kind}"));
        std::fs::write(&path, text).expect("written");
        (setting, path.to_str().expect("text").to_owned())
    });
    written.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_with_certificates_are_linked_and_others_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ours, others) =
        (certified(directory.path(), "ours"), certified(directory.path(), "others"));
    let [ours, others] = [&ours, &others]
        .map(|it| it.iter().map(|(name, path)| (*name, &**path)).collect::<Vec<_>>());
    let start = |name, peers: &[&str], settings: &[(&str, &str)]| {
        Broker::start_with(directory.path(), name, "127.0.0.1:0", peers, settings)
    };
    let b = start("b", &[], &ours);
    let a = start("a", &[&b.peers], &ours);
    let (to_a, to_b) = (a.client().await, b.client().await);
    to_b.declare(&Mailbox::durable("work")).await.expect("declared");
    knows(&to_a, "b", 1, 0).await;
    push(&to_a, "work", bodies(0..100)).await;
    assert_eq!(take(&to_b, "work", 100).await, bodies(0..100));
    for page in ["/metrics", "/metrics/per-object"] {
        let metrics = a.get(page);
        for line in [
            // The certificates end with the year 4095.
            "pillarbox_certificate_expiry_timestamp_seconds{shown_to=\"peers\"} 67090118400",
            "pillarbox_peer_certificate_expiry_timestamp_seconds{peer=\"b\"} 67090118400",
        ] {
            assert!(metrics.lines().any(|it| it == line), "{line} in {page}:\n{metrics}");
        }
        assert!(!metrics.contains("shown_to=\"clients\""), "its listeners speak no TLS");
    }

    let _stranger = start("c", &[&b.peers], &others);
    let _plain = start("d", &[&b.peers], &[]);
    let log = |name: &str| {
        std::fs::read_to_string(directory.path().join(format!("{name}.log"))).expect("a log")
    };
    until("words in both logs", async || {
        let refused = log("b").matches("refused a host: TLS: ").count() >= 2;
        (refused && log("c").contains("TLS: invalid peer certificate: ")).then_some(())
    })
    .await;
    for name in ["c", "d"] {
        assert!(peer(&to_b, name).await.is_none(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_is_read_from_another_host_and_comes_back_when_its_home_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut b = Broker::start(directory.path(), "b", "127.0.0.1:0", &[]);
    let a = Broker::start(directory.path(), "a", "127.0.0.1:0", &[&b.peers]);
    let (to_a, to_b) = (a.client().await, b.client().await);
    to_b.declare(&Mailbox::durable("work")).await.expect("declared");
    knows(&to_a, "b", 1, 0).await;
    push(&to_a, "work", bodies(0..1000)).await;
    // More than a link and a client have room for at once.
    let found = take(&to_a, "work", 1000).await;
    assert_eq!(found, bodies(0..1000));
    assert_eq!(to_a.find("work").await.expect("counts").ready, 0);
    assert_eq!(to_b.find("work").await.expect("counts").ready, 0);

    // The HTTP API shows its own host, and says where to look; mailboxes over HTTP are read from anywhere.
    let answer = a.send("GET", "/api/queues/%2F/work", "");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("queue 'work' in vhost '/' lives on host 'b'"), "{answer}");
    push(&to_b, "work", ["by HTTP".to_owned()]).await;
    let polled = a.get("/mailbox/work?lease=1h");
    assert!(polled.contains("\"body\":\"YnkgSFRUUA==\""), "{polled}");

    push(&to_b, "work", bodies(0..10)).await;
    let mut subscription =
        to_a.subscribe("work", &Subscribe::default()).await.expect("a subscription");
    let first = subscription.next().await.expect("no end").expect("a message");
    assert_eq!(first.body(), b"m0");
    b.kill();
    while let Ok(Some(_)) = subscription.next().await {}
    let error = to_a.pull("work", 1, Duration::ZERO).await.expect_err("its home is away");
    let text = "home host 'b' of queue 'work' in vhost '/' is down or inaccessible";
    assert!(error.to_string().contains(text), "{error}");
    assert_eq!(error.code().map(|it| it.number()), Some(503));
    let b = b.restart(&[]);
    let to_b = b.client().await;
    knows(&to_a, "b", 1, 0).await;
    let mut all = vec!["by HTTP".to_owned()];
    all.extend(bodies(0..10));
    assert_eq!(take(&to_a, "work", 11).await, all);
    assert_eq!(to_a.purge("work").await.expect("purged"), 0);
    to_a.delete("work", false, false).await.expect("deleted");
    assert!(to_b.find("work").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_drained_before_it_is_stopped() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut b = Broker::start(directory.path(), "b", "127.0.0.1:0", &[]);
    let a = Broker::start(directory.path(), "a", "127.0.0.1:0", &[&b.peers]);
    let (to_a, to_b) = (a.client().await, b.client().await);
    to_b.declare(&Mailbox::durable("work")).await.expect("declared");
    to_a.declare(&Mailbox::durable("own")).await.expect("declared");
    knows(&to_a, "b", 1, 0).await;
    push(&to_a, "own", bodies(0..2)).await;
    let held = to_a.pull("own", 1, Duration::from_secs(5)).await.expect("a message");
    assert_eq!(held.deliveries.len(), 1);
    b.kill();
    push(&to_a, "work", bodies(0..500)).await;
    let said = a.cli(&["drain", "--deadline", "1"]);
    let text = "pillarbox: after 1 s there are left: 500 messages for host 'b'\n";
    assert_eq!(said, (1, text.into()));
    assert!(to_a.pull("own", 1, Duration::ZERO).await.is_err(), "the client was sent away");
    let refused = a.cli(&["push", "own", "m"]);
    assert_eq!(refused, (1, "pillarbox: this host is being drained\n".into()));
    assert!(a.get("/api/drain").contains(r#""draining":true"#));
    assert!(a.send("GET", "/api/health/ready", "").starts_with("HTTP/1.1 503"));

    let b = b.restart(&[&a.peers]);
    let said = a.cli(&["drain"]);
    assert_eq!(said, (0, "drained; 2 messages rest in queues of this host\n".into()));
    let to_b = b.client().await;
    assert_eq!(take(&to_b, "work", 500).await, bodies(0..500));
    // Here it still knows where those live; after a leave it does not.
    let row = peer(&to_b, "a").await.expect("it is known");
    assert_eq!(
        (number(&row, "mailboxes"), row.get("from").and_then(Value::as_str)),
        (1, Some("up"))
    );
    let left = a.send("POST", "/api/drain", r#"{"leave":true}"#);
    assert!(left.starts_with("HTTP/1.1 200"), "{left}");
    until("word of its leave", async || {
        let row = peer(&to_b, "a").await?;
        (number(&row, "mailboxes") == 0 && a.get("/api/drain").contains(r#""untold":0"#))
            .then_some(())
    })
    .await;
    // As it starts again, all is as before.
    let a = a.restart(&[&b.peers]);
    assert_eq!(take(&a.client().await, "own", 2).await.len(), 2);
    knows(&to_b, "a", 1, 0).await;
}

/// Frames of a STOMP client up to the next NUL.
fn stomp_frame(socket: &mut BufReader<TcpStream>) -> String {
    let mut frame = Vec::new();
    socket.read_until(0, &mut frame).expect("a frame");
    String::from_utf8_lossy(&frame).trim_start().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirm_waits_for_the_home_of_the_mailbox_where_it_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut b = Broker::start(directory.path(), "b", "127.0.0.1:0", &[]);
    let ports = ["AMQP", "STOMP"].map(|it| format!("PILLARBOX__LISTEN__{it}"));
    let settings = [(&*ports[0], "127.0.0.1:0"), (&*ports[1], "127.0.0.1:0")];
    let a = Broker::start_with(directory.path(), "a", "127.0.0.1:0", &[&b.peers], &settings);
    let to_a = a.client().await;
    b.client().await.declare(&Mailbox::durable("work")).await.expect("declared");
    knows(&to_a, "b", 1, 0).await;
    b.kill();
    until("the end of the link", async || {
        let row = peer(&to_a, "b").await?;
        (row.get("to").and_then(Value::as_str) == Some("down")).then_some(())
    })
    .await;

    let (_connection, channel) = a.confirming().await;
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("x-confirm".into(), lapin::types::AMQPValue::LongString("home".into()));
    let home = lapin::BasicProperties::default().with_delivery_mode(2).with_headers(headers);
    let here = lapin::BasicProperties::default().with_delivery_mode(2);
    let options = lapin::options::BasicPublishOptions::default();
    let publish = |properties, body: &'static [u8]| {
        channel.basic_publish("".into(), "work".into(), options, body, properties)
    };
    let mut by_amqp = publish(home, b"amqp").await.expect("sent");
    let mut by_native = to_a.start_push_home("", "work", &["native".into()]).await.expect("sent");
    let socket = TcpStream::connect(&a.stomp).expect("it listens");
    let mut stomp = BufReader::new(socket.try_clone().expect("a socket"));
    let say = |text: &str| (&socket).write_all(text.as_bytes()).expect("taken");
    say("CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0");
    assert!(stomp_frame(&mut stomp).starts_with("CONNECTED"));
    say("SEND\ndestination:/amq/queue/work\nx-confirm:home\nreceipt:home\n\nstomp\0");
    say("SEND\ndestination:/amq/queue/work\nreceipt:here\n\nstomp here\0");
    assert!(stomp_frame(&mut stomp).contains("receipt-id:here"), "it overtakes the other");
    // What asks for nothing is confirmed here, after the others came and before they are confirmed.
    publish(here, b"amqp here").await.expect("sent").await.expect("confirmed");
    push(&to_a, "work", ["native here".to_owned()]).await;
    assert!(tokio::time::timeout(Duration::ZERO, &mut by_amqp).await.is_err());
    assert!(tokio::time::timeout(Duration::ZERO, &mut by_native).await.is_err());

    let b = b.restart(&[&a.peers]);
    let confirmed = by_amqp.await.expect("an answer");
    assert!(confirmed.is_ack(), "{confirmed:?}");
    by_native.await.expect("an answer").into_result().expect("taken");
    assert!(stomp_frame(&mut stomp).contains("receipt-id:home"));
    let said = a.cli(&["push", "work", "command line", "--confirm", "home"]);
    assert_eq!(said, (0, "pushed 1 message to 'work'\n".into()));
    // The origin and its disk are gone for ever.
    drop(a);
    std::fs::remove_dir_all(directory.path().join("a")).expect("removed");
    let mut taken = take(&b.client().await, "work", 7).await;
    taken.sort();
    let all = ["amqp", "amqp here", "command line", "native", "native here", "stomp", "stomp here"];
    assert_eq!(taken, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_purged_on_its_way_home_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut b = Broker::start(directory.path(), "b", "127.0.0.1:0", &[]);
    let a = Broker::start(directory.path(), "a", "127.0.0.1:0", &[&b.peers]);
    let to_a = a.client().await;
    b.client().await.declare(&Mailbox::durable("work")).await.expect("declared");
    knows(&to_a, "b", 1, 0).await;
    b.kill();
    let waiting = to_a.start_push_home("", "work", &["m".into()]).await.expect("sent");
    until("the end of the link", async || {
        let row = peer(&to_a, "b").await?;
        (row.get("to").and_then(Value::as_str) == Some("down")).then_some(())
    })
    .await;
    let said = a.cli(&["peer", "drop", "b", "--messages"]);
    assert_eq!(said.0, 0, "{}", said.1);
    let pushed = waiting.await.expect("an answer");
    assert_eq!(pushed.taken, 0, "{pushed:?}");
    assert!(pushed.into_result().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_to_hosts_with_the_tags_that_it_names() {
    let directory = tempfile::tempdir().expect("a directory");
    let tags = ("PILLARBOX__PEERS__TAGS", "gpu,eu");
    let b = Broker::start_with(directory.path(), "b", "127.0.0.1:0", &[], &[tags]);
    let ports = ["AMQP", "STOMP"].map(|it| format!("PILLARBOX__LISTEN__{it}"));
    let settings = [(&*ports[0], "127.0.0.1:0"), (&*ports[1], "127.0.0.1:0")];
    let a = Broker::start_with(directory.path(), "a", "127.0.0.1:0", &[&b.peers], &settings);
    let (to_a, to_b) = (a.client().await, b.client().await);
    for host in [&a, &b] {
        let said = host.cli(&["mailbox", "declare", "work", "--argument", "x-spread=anycast"]);
        assert_eq!(said.0, 0, "{}", said.1);
    }
    knows(&to_a, "b", 1, 0).await;
    let said = a.cli(&["peer", "list"]).1;
    assert!(said.contains("TAGS") && said.contains("gpu"), "{said}");
    let shown: serde_json::Value = serde_json::from_str(&a.get("/api/peers")).expect("JSON");
    assert_eq!(shown[0]["tags"], serde_json::json!(["gpu", "eu"]));

    // The queue of the own host would come first.
    let (_connection, channel) = a.confirming().await;
    let tag = |it: &str| lapin::types::AMQPValue::LongString(it.into());
    let all = lapin::types::FieldArray::from(vec![tag("eu"), tag("gpu")]);
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("x-spread-tags".into(), lapin::types::AMQPValue::FieldArray(all));
    let properties = lapin::BasicProperties::default().with_headers(headers);
    let options = lapin::options::BasicPublishOptions::default();
    let sent = channel.basic_publish("".into(), "work".into(), options, b"amqp", properties);
    assert!(sent.await.expect("sent").await.expect("an answer").is_ack());
    let socket = TcpStream::connect(&a.stomp).expect("it listens");
    let mut stomp = BufReader::new(socket.try_clone().expect("a socket"));
    let say = |text: &str| (&socket).write_all(text.as_bytes()).expect("taken");
    say("CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n\0");
    assert!(stomp_frame(&mut stomp).starts_with("CONNECTED"));
    say("SEND\ndestination:/amq/queue/work\nx-spread-tags:gpu\nreceipt:1\n\nstomp\0");
    assert!(stomp_frame(&mut stomp).contains("receipt-id:1"));
    let push = async |client: &Client, body: &str, tags: &str| {
        let message = NewMessage::from(body).header("x-spread-tags", tags);
        client.push("work", message).await
    };
    push(&to_a, "native", "eu").await.expect("taken");
    let said = a.cli(&["push", "work", "command line", "--header", "x-spread-tags=gpu"]);
    assert_eq!(said.0, 0, "{}", said.1);
    to_a.push("work", NewMessage::from("own")).await.expect("taken");
    let mut taken = take(&to_b, "work", 4).await;
    taken.sort();
    assert_eq!(taken, ["amqp", "command line", "native", "stomp"]);
    assert_eq!(take(&to_a, "work", 1).await, ["own"]);
    let refused = push(&to_a, "m", "gpu,tpu").await.expect_err("nobody has both");
    assert_eq!(refused.code(), Some(Code::NotFound), "{refused}");
    let refused = push(&to_a, "m", "a b").await.expect_err("no host is called so");
    assert_eq!(refused.code(), Some(Code::Precondition), "{refused}");

    // It comes back as another kind of host.
    let b = b.restart(&[&a.peers]);
    until("the new tags", async || {
        let row = peer(&to_a, "b").await?;
        row.get("tags").is_none().then_some(())
    })
    .await;
    let refused = push(&to_a, "m", "gpu").await.expect_err("nobody has it any longer");
    assert_eq!(refused.code(), Some(Code::NotFound), "{refused}");
    drop(b);
}

//! Sessions that last, the same over the network and in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pillarbox::client::{
    Again, Binding, Client, Connect, Error, Linger, Mailbox, Message, NewMessage, Opener, Outcome,
    Proof, Session, Subscribe, Will,
};
use pillarbox::config::{Address, Config};
use pillarbox::server::{Protocol, Server};
use pillarbox::{Broker, broker::Value};
use pillarbox_native::Code;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> Config {
    let mut config = Config::default();
    config.store.in_memory = true;
    config.listen.amqp = Address::Off;
    config.listen.stomp = Address::Off;
    config.listen.http = Address::Off;
    config.listen.native = Address::local(0);
    config
}

/// The same test over both ways to a broker.
async fn both(test: impl AsyncFn(&Session)) {
    let broker = Broker::memory().await.unwrap();
    test(&broker.session().await.unwrap()).await;
    broker.stop().await.unwrap();
    let broker = Broker::start(config()).await.unwrap();
    let address = broker.server().unwrap().address(Protocol::Native).unwrap().to_string();
    let connect = Connect { address, ..Connect::default() };
    test(&Session::connect(&connect).await.unwrap()).await;
    broker.stop().await.unwrap();
}

async fn next(messages: &mut pillarbox::client::Messages) -> Message {
    timeout(PATIENCE, messages.next()).await.expect("a message in time").unwrap()
}

#[tokio::test]
async fn a_program_moves_from_embedded_to_networked_by_one_line() {
    both(async |session| {
        session.declare(&Mailbox::durable("jobs")).await.unwrap();
        session.push("jobs", "one").await.unwrap();
        let mut jobs = session.subscribe("jobs", &Subscribe::default()).await.unwrap();
        let job = next(&mut jobs).await;
        assert_eq!(job.body(), b"one");
        job.settle_surely(Outcome::Accepted).await.unwrap();
        assert_eq!(session.find("jobs").await.unwrap().ready, 0);
        let missing = session.push("missing", "x").await.unwrap_err();
        assert_eq!(missing.code(), Some(Code::NotFound));
    })
    .await;
}

#[tokio::test]
async fn a_store_in_a_directory_keeps_its_messages_and_frees_it() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::open(directory.path()).await.unwrap();
    let session = broker.session().await.unwrap();
    session.declare(&Mailbox::durable("jobs")).await.unwrap();
    session.push("jobs", "one").await.unwrap();
    broker.stop().await.unwrap();
    let broker = Broker::open(directory.path()).await.unwrap();
    let session = broker.session().await.unwrap();
    let mut jobs = session.subscribe("jobs", &Subscribe::default()).await.unwrap();
    assert_eq!(next(&mut jobs).await.body(), b"one");
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn an_error_of_a_handler_puts_the_message_back() {
    both(async |session| {
        let failed = Mailbox::durable("failed");
        let jobs = Mailbox::durable("jobs")
            .argument("x-delivery-limit", Value::I64(2))
            .argument("x-dead-letter-exchange", Value::text(""))
            .argument("x-dead-letter-routing-key", Value::text("failed"));
        session.declare(&failed).await.unwrap();
        session.declare(&jobs).await.unwrap();
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let handling = session
            .handle("jobs", &Subscribe::default(), move |message| {
                counted.fetch_add(1, Ordering::Relaxed);
                async move {
                    match message.body() {
                        b"bad" => Err("cannot do that"),
                        b"worse" => panic!("a bug in a handler"),
                        _ => Ok(()),
                    }
                }
            })
            .await
            .unwrap();
        for body in ["bad", "worse", "good"] {
            session.push("jobs", body).await.unwrap();
        }
        let mut dead = session.subscribe("failed", &Subscribe::default()).await.unwrap();
        let mut bodies = [next(&mut dead).await.body_bytes(), next(&mut dead).await.body_bytes()];
        bodies.sort();
        assert_eq!(bodies, [Bytes::from("bad"), Bytes::from("worse")]);
        // Each bad one three times, as two more attempts were allowed.
        assert_eq!(calls.load(Ordering::Relaxed), 7);
        drop(handling);
        session.delete("jobs").await.unwrap();
        session.delete("failed").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_request_finds_its_reply() {
    both(async |session| {
        session.declare(&Mailbox::durable("sums")).await.unwrap();
        let serving = session
            .serve("sums", &Subscribe::default(), |message| async move {
                let text = String::from_utf8_lossy(message.body()).into_owned();
                let sum: Result<i64, _> = text.split('+').map(str::parse::<i64>).sum();
                sum.map(|sum| NewMessage::from(sum.to_string()))
            })
            .await
            .unwrap();
        for n in 0..20 {
            let reply = session.request("sums", format!("{n}+1"), PATIENCE).await.unwrap();
            assert_eq!(reply.body(), (n + 1).to_string().as_bytes());
        }
        drop(serving);
        let nobody = session.request("sums", "1+1", Duration::from_millis(50)).await;
        assert!(matches!(nobody, Err(Error::Timeout)), "{nobody:?}");
    })
    .await;
}

#[tokio::test]
async fn waiting_for_a_message_leaves_the_others_alone() {
    both(async |session| {
        session.declare(&Mailbox::durable("events")).await.unwrap();
        for n in 0..10 {
            session.push("events", format!("{n}")).await.unwrap();
        }
        let few = Subscribe { credit: 3, ..Subscribe::default() };
        let mut events = session.subscribe("events", &few).await.unwrap();
        let found = events.wait_until(|it| it.body() == b"7", PATIENCE).await.unwrap();
        found.settle_surely(Outcome::Accepted).await.unwrap();
        let soon = Duration::from_millis(100);
        let none = events.wait_until(|it| it.body() == b"7", soon).await;
        assert!(matches!(none, Err(Error::Timeout)));
        let mut left = Vec::new();
        while left.len() < 9 {
            let message = next(&mut events).await;
            left.push(String::from_utf8_lossy(message.body()).into_owned());
            message.accept().unwrap();
        }
        left.sort();
        assert_eq!(left.concat(), "012345689");
    })
    .await;
}

#[tokio::test]
async fn topics_with_slashes_reach_their_subscribers_once() {
    both(async |session| {
        let subscribe = Subscribe::default();
        let mut one = session.subscribe_topic("sensors/+/heat", &subscribe).await.unwrap();
        let mut all = session.subscribe_topic("sensors/#", &subscribe).await.unwrap();
        session.publish_topic("sensors/kitchen/heat", "21").await.unwrap();
        session.publish_topic("sensors/v1.2/heat", "22").await.unwrap();
        session.publish_topic("sensors", "nobody: # is one level or more").await.unwrap();
        session.publish_topic("nobody/listens", "x").await.unwrap();
        session.publish_topic("sensors/kitchen/light", "on").await.unwrap();
        for messages in [&mut one, &mut all] {
            assert_eq!(next(messages).await.body(), b"21");
            assert_eq!(next(messages).await.body(), b"22");
        }
        assert_eq!(next(&mut all).await.body(), b"on");
        let more = timeout(Duration::from_millis(50), one.next()).await;
        assert!(more.is_err(), "one copy for each subscriber");
        assert!(session.subscribe_topic("a/#/b", &subscribe).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_producer_gathers_and_keeps_order() {
    both(async |session| {
        session.declare(&Mailbox::durable("log")).await.unwrap();
        let producer = session.producer("log", Linger::default());
        let mut taken = Vec::new();
        for n in 0..5000u32 {
            taken.push(producer.send(n.to_string()).await.unwrap());
        }
        producer.flush().await.unwrap();
        for taken in taken {
            taken.await.unwrap();
        }
        assert_eq!(session.find("log").await.unwrap().ready, 5000);
        let last = producer.send("5000").await.unwrap();
        drop(producer);
        last.await.unwrap();
        let mut log = session.subscribe("log", &Subscribe::default()).await.unwrap();
        for n in 0..=5000u32 {
            let message = next(&mut log).await;
            assert_eq!(message.body(), n.to_string().as_bytes());
            message.accept().unwrap();
        }
        let lost = session.producer("nowhere", Linger::default()).send("x").await.unwrap();
        assert_eq!(lost.await.unwrap_err().code(), Some(Code::NotFound));
    })
    .await;
}

#[tokio::test]
async fn ten_subscribers_get_everything_in_order() {
    const MESSAGES: u32 = 20_000;
    let broker = Broker::memory().await.unwrap();
    let session = broker.session().await.unwrap();
    let subscribe = Subscribe { credit: 0, settled: true, ..Subscribe::default() };
    let mut subscribers = Vec::new();
    for _ in 0..10 {
        let mut messages = session.subscribe_topic("all/#", &subscribe).await.unwrap();
        subscribers.push(tokio::spawn(async move {
            for n in 0..MESSAGES {
                let message = messages.next().await.unwrap();
                assert_eq!(message.body(), n.to_le_bytes());
            }
        }));
    }
    let client = session.client().await.unwrap();
    let bodies: Vec<NewMessage> =
        (0..MESSAGES).map(|n| NewMessage::new(n.to_le_bytes().to_vec())).collect();
    for batch in bodies.chunks(500) {
        let pushed = client.start_publish("amq.topic", "all.news", batch).await.unwrap();
        pushed.await.unwrap();
    }
    for subscriber in subscribers {
        timeout(PATIENCE, subscriber).await.expect("all of them in time").unwrap();
    }
    broker.stop().await.unwrap();
}

/// A session whose connections end when told to.
async fn breakable(broker: &Broker) -> (Session, Arc<std::sync::Mutex<Vec<Breaker>>>) {
    let local = broker.server().unwrap().local();
    let breakers: Arc<std::sync::Mutex<Vec<Breaker>>> = Arc::default();
    let kept = breakers.clone();
    let open: Opener = Box::new(move || {
        let (local, kept) = (local.clone(), kept.clone());
        Box::pin(async move {
            let (near, mut far) = tokio::io::duplex(64 << 10);
            let mut broker = local.connect();
            let (cut, cuts) = tokio::sync::oneshot::channel::<()>();
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut far, &mut broker) => {}
                    _ = cuts => {}
                }
            });
            kept.lock().unwrap().push(cut);
            let connect = Connect {
                user: local.user().into(),
                proof: Proof::Token(local.token()),
                ..Connect::default()
            };
            Client::over(near, &connect).await
        })
    });
    (Session::open(open, Again::default()).await.unwrap(), breakers)
}

type Breaker = tokio::sync::oneshot::Sender<()>;

#[tokio::test]
async fn a_session_comes_back_with_everything_it_declared() {
    let broker = Broker::memory().await.unwrap();
    let (session, breakers) = breakable(&broker).await;
    let other = broker.session().await.unwrap();
    let private = session.declare(&Mailbox::private()).await.unwrap().name;
    let binding = Binding {
        source: "amq.direct".into(),
        destination: private.clone(),
        key: "news".into(),
        ..Binding::default()
    };
    session.bind(&binding).await.unwrap();
    other.declare(&Mailbox::durable("log")).await.unwrap();
    session.set_will(1, &Will::to("log", "gone")).await.unwrap();
    let mut messages = session.subscribe(&private, &Subscribe::default()).await.unwrap();
    let producer = session.producer("log", Linger::default());
    for round in 0..3 {
        let client = other.client().await.unwrap();
        client.publish("amq.direct", "news", format!("{round}")).await.unwrap();
        let message = next(&mut messages).await;
        assert_eq!(message.body(), round.to_string().as_bytes());
        let taken = producer.send(format!("{round}")).await.unwrap();
        timeout(PATIENCE, taken).await.unwrap().unwrap();
        let breaker = breakers.lock().unwrap().pop().unwrap();
        drop(breaker);
        // The next call may still meet the old connection, so ask until the new one is there.
        while breakers.lock().unwrap().is_empty() {
            let _ = session.find("log").await;
            tokio::task::yield_now().await;
        }
        timeout(PATIENCE, session.find(&private)).await.unwrap().unwrap();
        timeout(PATIENCE, messages_are_back(&mut messages, &other)).await.unwrap();
    }
    let mut log = other.subscribe("log", &Subscribe::default()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..6 {
        let message = next(&mut log).await;
        seen.push(String::from_utf8_lossy(message.body()).into_owned());
        message.accept().unwrap();
    }
    assert_eq!(seen, ["0", "gone", "1", "gone", "2", "gone"]);
    broker.stop().await.unwrap();
}

/// The stream notices the new connection when it is asked.
async fn messages_are_back(messages: &mut pillarbox::client::Messages, other: &Session) {
    let client = other.client().await.unwrap();
    client.publish("amq.direct", "news", "ping").await.unwrap();
    loop {
        if next(messages).await.body() == b"ping" {
            return;
        }
    }
}

#[tokio::test]
async fn a_session_gives_up_when_the_broker_stays_away() {
    let server = Server::start(config()).await.unwrap();
    let address = server.address(Protocol::Native).unwrap().to_string();
    let connect = Connect { address, ..Connect::default() };
    let again = Again { patience: Duration::from_millis(200), ..Again::default() };
    let open: Opener = Box::new(move || {
        let connect = connect.clone();
        Box::pin(async move { Client::connect(&connect).await })
    });
    let session = Session::open(open, again).await.unwrap();
    server.stop().await.unwrap();
    let error = timeout(PATIENCE, session.push("x", "y")).await.unwrap().unwrap_err();
    assert!(error.is_lost(), "{error}");
}

#[tokio::test]
async fn a_pipe_carries_bytes_both_ways_until_both_have_ended() {
    both(async |session| {
        let (here, there) = (session.client().await.unwrap(), session.client().await.unwrap());
        let mut listener = here.listen_pipe("tunnel").await.unwrap();
        let calling = tokio::spawn(async move { there.connect_pipe("tunnel", PATIENCE).await });
        let mut one = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let two = timeout(PATIENCE, calling).await.unwrap().unwrap().unwrap();
        // More than may be on its way at once, so that the window is used.
        let sent: Bytes = (0..3_000_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
        let expected = sent.clone();
        let (mut reader, mut writer) = (two.reader, two.writer);
        let writing = tokio::spawn(async move {
            writer.write(sent).await.unwrap();
            writer.finish().await.unwrap();
        });
        let mut got = Vec::new();
        while let Some(piece) = timeout(PATIENCE, one.reader.read()).await.unwrap().unwrap() {
            got.extend_from_slice(&piece);
        }
        assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
        writing.await.unwrap();
        one.writer.write(Bytes::from("thanks")).await.unwrap();
        one.writer.finish().await.unwrap();
        assert_eq!(reader.read().await.unwrap().unwrap(), "thanks");
        assert_eq!(reader.read().await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_side_that_has_read_everything_can_go_on_writing() {
    let broker = Broker::memory().await.unwrap();
    let (here, there) = (broker.client().await.unwrap(), broker.client().await.unwrap());
    let mut listener = here.listen_pipe("tunnel").await.unwrap();
    let (one, two) = tokio::join!(listener.accept(), there.connect_pipe("tunnel", PATIENCE));
    let (mut one, mut two) = (one.unwrap(), two.unwrap());
    one.writer.finish().await.unwrap();
    assert_eq!(two.reader.read().await.unwrap(), None);
    drop(two.reader);
    let writing = tokio::spawn(async move {
        two.writer.write(Bytes::from(vec![7; 3_000_000])).await.unwrap();
        two.writer.finish().await.unwrap();
    });
    let mut count = 0;
    while let Some(piece) = timeout(PATIENCE, one.reader.read()).await.unwrap().unwrap() {
        count += piece.len();
    }
    assert_eq!(count, 3_000_000);
    writing.await.unwrap();
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_pipe_tells_when_the_other_end_went_away() {
    let broker = Broker::memory().await.unwrap();
    let (here, there) = (broker.client().await.unwrap(), broker.client().await.unwrap());
    let mut listener = here.listen_pipe("tunnel").await.unwrap();
    let (one, two) = tokio::join!(listener.accept(), there.connect_pipe("tunnel", PATIENCE));
    let (mut one, two) = (one.unwrap(), two.unwrap());
    drop((two, there));
    let lost = timeout(PATIENCE, one.reader.read()).await.unwrap().unwrap_err();
    assert!(lost.is_lost(), "{lost}");
    let nobody = here.connect_pipe("nobody", Duration::ZERO).await;
    assert!(nobody.is_err_and(|error| error.code() == Some(Code::NotFound)));
    broker.stop().await.unwrap();
}

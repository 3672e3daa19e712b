//! What one publish of a batch costs a session, the drop of the message included:
//! `cargo test --release --test transcripts -- --ignored --nocapture publish_cost`.

use std::time::Instant;

use bytes::BytesMut;
use pillarbox::broker::{Command, Credential, Event, Reply, Time};
use pillarbox::sessions::amqp::{AmqpSession, Settings};
use pillarbox::sessions::{Facts, Outbox, Session};

use crate::amqp_text::encode;

const NOW: Time = Time(1_000_000);
const ROUNDS: usize = 2000;
const READ_SIZE: usize = 65_536;

#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stderr, reason = "the number is what it is for")]
fn publish_cost() {
    let mut session = open();
    let mut input = BytesMut::new();
    let one = [
        encode("1 basic.publish key=benchmark"),
        encode("1 header size=64 delivery-mode=2"),
        encode("1 body \"x\"*64"),
    ]
    .concat();
    let count = READ_SIZE / one.len();
    let batch = one.repeat(count);
    let start = Instant::now();
    let mut published = 0;
    for _ in 0..ROUNDS {
        input.extend_from_slice(&batch);
        let mut out = Outbox::default();
        session.receive(&mut input, NOW, &mut out);
        published += out.commands.len();
    }
    let each = start.elapsed().as_nanos() / (ROUNDS * count) as u128;
    assert_eq!(published, ROUNDS * count);
    eprintln!("{each} ns a message");
}

fn open() -> AmqpSession {
    let facts = Facts {
        peer: String::new(),
        local: String::new(),
        loopback: true,
        tls: false,
        certificate_user: Some("guest".into()),
        seed: 1,
    };
    let mut session = AmqpSession::new(facts, Settings::default());
    let lines = [
        "protocol-header",
        "0 connection.start-ok mechanism=EXTERNAL",
        "0 connection.tune-ok channel-max=10 frame-max=131072",
        "0 connection.open vhost=/",
        "1 channel.open",
    ];
    for line in lines {
        let mut out = Outbox::default();
        session.receive(&mut BytesMut::from(&encode(line)[..]), NOW, &mut out);
        for command in out.commands {
            let (channel, ticket, reply) = match command {
                Command::Request(channel, ticket, _) => {
                    let credential = Some(Box::new(Credential::default()));
                    (channel, ticket, Reply::Credential(credential))
                }
                Command::Open(_, ticket) => (Default::default(), ticket, Reply::Done),
                other => panic!("{other:?}"),
            };
            let event = Event::Reply { channel, ticket, result: Ok(reply) };
            session.notify(event, NOW, &mut Outbox::default());
        }
    }
    session
}

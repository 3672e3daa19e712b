//! A session fed by hand: bytes in, commands out; events in, bytes out.

use bytes::BytesMut;
use pillarbox_amqp::{FieldTable, FrameKind, Properties, ShortString, encode_content};

use super::*;
use crate::broker::{
    ConsumerId, Delivery, MailboxId, Message, Name, Outcome, Parts, Publish, Run, Seq, Span,
};

const NOW: Time = Time(1_000_000);

struct Talk {
    session: AmqpSession,
    input: BytesMut,
}

impl Talk {
    /// An open connection with channel 1.
    fn open() -> Self {
        let facts = Facts {
            peer: String::new(),
            local: String::new(),
            loopback: true,
            tls: false,
            certificate_user: None,
            seed: 1,
        };
        let session = AmqpSession::new(facts, Settings::default());
        let mut talk = Self { session, input: BytesMut::new() };
        talk.bytes(&PROTOCOL_HEADER);
        talk.say(
            0,
            &[Method::ConnectionStartOk {
                client_properties: FieldTable::new(),
                mechanism: ShortString::from_static("PLAIN"),
                response: "\0guest\0guest".into(),
                locale: ShortString::new(),
            }],
        );
        let credential = Some(Box::new(Credential::default()));
        talk.reply(0, CREDENTIAL_TICKET, Reply::Credential(credential));
        let mut out = Outbox::default();
        talk.session.verified(true, NOW, &mut out);
        talk.say(
            0,
            &[
                Method::ConnectionTuneOk { channel_max: 10, frame_max: 4096, heartbeat: 0 },
                Method::ConnectionOpen { vhost: ShortString::from_static("/") },
            ],
        );
        talk.reply(0, OPEN_TICKET, Reply::Opened);
        let ticket = tickets(&talk.say(1, &[Method::ChannelOpen]))[0];
        talk.reply(1, ticket, Reply::Done);
        talk
    }

    fn bytes(&mut self, bytes: &[u8]) -> Outbox {
        self.input.extend_from_slice(bytes);
        let mut out = Outbox::default();
        self.session.receive(&mut self.input, NOW, &mut out);
        self.session.flush(&mut out);
        out
    }

    fn say(&mut self, channel: u16, methods: &[Method]) -> Outbox {
        let mut wire = BytesMut::new();
        methods.iter().for_each(|method| method.encode(channel, &mut wire));
        self.bytes(&wire)
    }

    fn events(&mut self, events: impl IntoIterator<Item = Event>) -> Outbox {
        let mut out = Outbox::default();
        for event in events {
            self.session.notify(event, NOW, &mut out);
        }
        self.session.flush(&mut out);
        out
    }

    fn reply(&mut self, channel: u16, ticket: Ticket, reply: Reply) -> Outbox {
        self.events([answer(channel, ticket, reply)])
    }
}

fn answer(channel: u16, ticket: Ticket, reply: Reply) -> Event {
    Event::Reply { channel: ChannelId(channel), ticket, result: Ok(reply) }
}

/// The tickets of what was asked.
fn tickets(out: &Outbox) -> Vec<Ticket> {
    let ticket = |command: &Command| match command {
        Command::Request(_, ticket, _) | Command::CloseChannel(_, ticket) => Some(*ticket),
        _ => None,
    };
    out.commands.iter().filter_map(ticket).collect()
}

/// The names of the methods on the wire.
fn said(out: &Outbox) -> Vec<&'static str> {
    let (mut rest, mut names) = (&out.wire[..], Vec::new());
    while let Ok(Some(frame)) = next_frame(rest, u32::MAX) {
        rest = &rest[frame.wire_len()..];
        if frame.kind == FrameKind::Method {
            names.push(Method::decode(frame.payload).expect("a method").name());
        }
    }
    names
}

fn publish_wire(exchange: &str, key: &str, body: &[u8]) -> BytesMut {
    let mut wire = BytesMut::new();
    Method::BasicPublish {
        exchange: ShortString::truncated(exchange),
        routing_key: ShortString::truncated(key),
        mandatory: false,
        immediate: false,
    }
    .encode(1, &mut wire);
    let mut properties = BytesMut::new();
    Properties { delivery_mode: Some(2), ..Properties::default() }.encode(&mut properties);
    encode_content(&mut wire, 1, &properties, body, 4096);
    wire
}

fn delivery(consumer: u32, seq: u64) -> Event {
    let parts = Parts {
        exchange: Name::from(""),
        buffer: bytes::Bytes::from_static(b"q\0\0hello"),
        key: Span { start: 0, end: 1 },
        properties: Span { start: 1, end: 3 },
        body: Span { start: 3, end: 8 },
        form: &AMQP,
        persistent: false,
        priority: 0,
        expiration_ms: None,
    };
    Event::Delivered(Delivery {
        channel: ChannelId(1),
        consumer: ConsumerId(consumer),
        mailbox: MailboxId(7),
        seq: Seq(seq),
        message: Arc::new(Message::new(parts, NOW)),
        redelivered: false,
        attempts: None,
        acquired: 0,
        offset: None,
        settled: false,
    })
}

fn consume() -> Method {
    Method::BasicConsume {
        queue: ShortString::from_static("q"),
        consumer_tag: ShortString::from_static("me"),
        no_local: false,
        no_ack: false,
        exclusive: false,
        nowait: false,
        arguments: FieldTable::new(),
    }
}

fn ack(delivery_tag: u64, multiple: bool) -> Method {
    Method::BasicAck { delivery_tag, multiple }
}

#[test]
fn message_is_a_slice_of_what_was_read() {
    let mut talk = Talk::open();
    let mut wire = publish_wire("logs", "a.b", b"hello");
    wire.unsplit(publish_wire("logs", "a.b", b"world"));
    let out = talk.bytes(&wire);
    let published: Vec<&Publish> = out
        .commands
        .iter()
        .map(|command| match command {
            Command::Publish(publish) => publish,
            other => panic!("{other:?}"),
        })
        .collect();
    let [first, second] = &published[..] else { panic!("{published:?}") };
    assert_eq!(first.message.body(), b"hello");
    assert_eq!(second.message.body(), b"world");
    assert_eq!(first.message.key(), b"a.b");
    assert!(first.message.persistent());
    assert!(first.message.exchange().same(second.message.exchange()));
    let distance = second.message.body().as_ptr() as usize - first.message.body().as_ptr() as usize;
    assert_eq!(distance, wire.len() / 2, "both lie in the same buffer");
}

#[test]
fn publish_cut_anywhere_is_the_same_message() {
    let wire = publish_wire("", "key", &[7; 5000]);
    for cut in 0..wire.len() {
        let mut talk = Talk::open();
        let mut commands = talk.bytes(&wire[..cut]).commands;
        commands.extend(talk.bytes(&wire[cut..]).commands);
        let [Command::Publish(publish)] = &commands[..] else { panic!("{cut}: {commands:?}") };
        assert_eq!(publish.message.body(), [7; 5000]);
        assert_eq!(publish.message.property_bytes(), [0x10, 0, 2]);
        assert_eq!(publish.message.key(), b"key");
    }
}

#[test]
fn deliveries_wait_for_consume_ok() {
    let mut talk = Talk::open();
    let ticket = tickets(&talk.say(1, &[consume()]))[0];
    let out = talk.events([delivery(1, 1), delivery(1, 2)]);
    assert!(out.wire.is_empty());
    assert_eq!(out.deliveries, 0);
    let out = talk.reply(1, ticket, Reply::Done);
    assert_eq!(said(&out), ["basic.consume-ok", "basic.deliver", "basic.deliver"]);
    assert_eq!((out.deliveries, out.delivery_bytes), (2, 16));
}

#[test]
fn acknowledgement_of_many_is_one_run() {
    let mut talk = Talk::open();
    let ticket = tickets(&talk.say(1, &[consume()]))[0];
    talk.reply(1, ticket, Reply::Done);
    talk.events((1..=100).map(|seq| delivery(1, seq)));
    let out = talk.say(1, &[ack(1, false), ack(2, false), ack(90, true), ack(92, false)]);
    let [Command::Settle(settle)] = &out.commands[..] else { panic!("{:?}", out.commands) };
    assert_eq!(settle.outcome, Outcome::Accepted);
    let run = |first, count| Run { mailbox: MailboxId(7), first: Seq(first), count };
    assert_eq!(settle.deliveries[..], [run(1, 90), run(92, 1)]);
}

#[test]
fn answers_keep_the_order_of_the_questions() {
    let mut talk = Talk::open();
    let get = Method::BasicGet { queue: ShortString::from_static("q"), no_ack: true };
    let delete =
        Method::ExchangeDelete { exchange: ShortString::new(), if_unused: false, nowait: false };
    let select = Method::ConfirmSelect { nowait: false };
    let asked = tickets(&talk.say(1, &[get, delete, select]));
    // The message has to be read from the disk: the other answer overtakes it.
    let out = talk.reply(1, asked[1], Reply::Done);
    assert!(out.wire.is_empty());
    let out = talk.reply(1, asked[0], Reply::Got(None));
    assert_eq!(said(&out), ["basic.get-empty", "exchange.delete-ok", "confirm.select-ok"]);
}

#[test]
fn channel_reopened_without_waiting_is_a_new_one() {
    let mut talk = Talk::open();
    let close = Method::ChannelClose {
        reply_code: 200,
        reply_text: ShortString::new(),
        class_id: 0,
        method_id: 0,
    };
    talk.say(1, &[Method::ConfirmSelect { nowait: true }]);
    talk.bytes(&publish_wire("", "q", b"1"));
    let asked = tickets(&talk.say(1, &[close, Method::ChannelOpen]));
    let [closed, opened] = asked[..] else { panic!("{asked:?}") };
    talk.say(1, &[Method::ConfirmSelect { nowait: true }]);
    talk.bytes(&publish_wire("", "q", b"2"));
    let confirmed = || Event::Confirmed { channel: ChannelId(1), tag: 1, taken: true };
    assert!(talk.events([confirmed()]).wire.is_empty(), "of the channel that was closed");
    let answers = [closed, opened].map(|ticket| answer(1, ticket, Reply::Done));
    let out = talk.events(answers.into_iter().chain([confirmed()]));
    assert_eq!(said(&out), ["channel.close-ok", "channel.open-ok", "basic.ack"]);
}

#[test]
fn fault_waits_for_earlier_answers() {
    let mut talk = Talk::open();
    let declare =
        Method::ExchangeDelete { exchange: ShortString::new(), if_unused: false, nowait: false };
    let out = talk.say(1, &[declare, ack(9, false), Method::TxSelect]);
    assert!(out.wire.is_empty());
    let out = talk.reply(1, tickets(&out)[0], Reply::Done);
    assert_eq!(said(&out), ["exchange.delete-ok", "channel.close"]);
    assert!(matches!(out.commands[..], [Command::CloseChannel(ChannelId(1), _)]));
}

#[test]
fn goodbye_behind_a_fault_is_heard() {
    let mut wire = BytesMut::new();
    Method::TxSelect.encode(7, &mut wire);
    let close = Method::ConnectionClose {
        reply_code: 200,
        reply_text: ShortString::new(),
        class_id: 0,
        method_id: 0,
    };
    close.encode(0, &mut wire);
    let out = Talk::open().bytes(&wire);
    assert_eq!(said(&out), ["connection.close", "connection.close-ok"]);
    assert!(out.close);
}

#[test]
fn confirms_of_one_batch_are_one_frame() {
    let mut talk = Talk::open();
    talk.say(1, &[Method::ConfirmSelect { nowait: true }]);
    for _ in 0..3 {
        talk.bytes(&publish_wire("", "q", b"x"));
    }
    let confirmed = |tag| Event::Confirmed { channel: ChannelId(1), tag, taken: true };
    let out = talk.events((1..=3).map(confirmed));
    let mut expected = BytesMut::new();
    Method::BasicAck { delivery_tag: 3, multiple: true }.encode(1, &mut expected);
    assert_eq!(out.wire, expected);
}

#[test]
fn no_bytes_and_no_order_of_them_panics() {
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut valid = publish_wire("x", "k", b"hello");
    for method in [consume(), ack(1, true), Method::TxSelect, Method::ChannelOpen] {
        method.encode(1, &mut valid);
    }
    for _ in 0..2000 {
        let mut talk = Talk::open();
        let mut bytes = valid.to_vec();
        for _ in 0..=next() % 4 {
            let at = next() as usize % bytes.len();
            match next() % 3 {
                0 => bytes[at] = next() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.rotate_left(at),
            }
        }
        let half = bytes.len() / 2;
        talk.bytes(&bytes[..half]);
        talk.events([delivery(1, 1)]);
        talk.bytes(&bytes[half..]);
        talk.bytes(&valid);
    }
}

#[test]
fn every_goodbye_is_answered() {
    let mut wire = BytesMut::new();
    let close = Method::ConnectionClose {
        reply_code: 200,
        reply_text: ShortString::new(),
        class_id: 0,
        method_id: 0,
    };
    close.encode(0, &mut wire);
    let mut talk = Talk::open();
    let mut twice = wire.clone();
    twice.extend_from_slice(&wire);
    let out = talk.bytes(&twice);
    let Some(&Command::Close(Some(ticket))) = out.commands.last() else { panic!("no close") };
    let mut out = Outbox::default();
    talk.session.notify(Event::Closed(ticket), NOW, &mut out);
    assert_eq!(said(&out), ["connection.close-ok", "connection.close-ok"]);
    assert!(!out.close);
    let out = talk.bytes(&wire);
    assert_eq!(said(&out), ["connection.close-ok"]);
    let deadline = talk.session.next_deadline().expect("the socket does not stay open for ever");
    let mut out = Outbox::default();
    talk.session.tick(deadline, &mut out);
    assert!(out.close);
}

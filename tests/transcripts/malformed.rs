//! What clients must not send (the AMQP rows of the malformed corpus), and what each gets for it.
//!
//! Where the corpus and RabbitMQ differ, RabbitMQ's reaction is expected: 505 for content out of
//! order, 502 and 503 for a login that cannot be read.

use pillarbox::sessions::amqp::Settings;

use crate::amqp_text::{decode, encode, frame};
use crate::house::House;

/// How far the client has come before it misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Accepted,
    Greeted,
    LoggedIn,
    Open,
    /// Channel 1 is open, and queue `q` is declared.
    Channel,
}

use At::{Accepted, Channel, Greeted, LoggedIn, Open};

struct Case {
    id: &'static str,
    at: At,
    bytes: Vec<u8>,
    /// How a line of what the server says begins; a `!` behind it: it also closes the socket at once.
    answer: &'static str,
}

fn case(id: &'static str, at: At, bytes: impl Into<Vec<u8>>, answer: &'static str) -> Case {
    Case { id, at, bytes: bytes.into(), answer }
}

fn lines(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| encode(line)).collect()
}

fn method(channel: u16, ids: (u16, u16), arguments: &[u8]) -> Vec<u8> {
    let payload = [&ids.0.to_be_bytes()[..], &ids.1.to_be_bytes()[..], arguments].concat();
    frame(1, channel, &payload)
}

/// queue.declare with this table body as arguments.
fn declare(table: &[u8]) -> Vec<u8> {
    let arguments = [&[0, 0, 1, b'q', 0][..], &(table.len() as u32).to_be_bytes(), table].concat();
    method(1, (50, 10), &arguments)
}

fn nested(depth: usize, tag: u8) -> Vec<u8> {
    let mut table = Vec::new();
    for _ in 0..depth {
        let mut outer =
            if tag == b'F' || table.is_empty() { vec![1, b'k', tag] } else { vec![tag] };
        outer.extend((table.len() as u32).to_be_bytes());
        outer.extend(table);
        table = outer;
    }
    if tag == b'A' { [&[1, b'k'][..], &table[..]].concat() } else { table }
}

/// The stream is broken: nothing more is read of it.
const BROKEN: &str = "0 connection.close code=501 text=\"FRAME_ERROR!";
const CLOSE_501: &str = "0 connection.close code=501 text=\"FRAME_ERROR";
const CLOSE_502: &str = "0 connection.close code=502 text=\"SYNTAX_ERROR";
const CLOSE_503: &str = "0 connection.close code=503 text=\"COMMAND_INVALID";
const CLOSE_504: &str = "0 connection.close code=504 text=\"CHANNEL_ERROR";
const CLOSE_505: &str = "0 connection.close code=505 text=\"UNEXPECTED_FRAME";
const CLOSE_530: &str = "0 connection.close code=530 text=\"NOT_ALLOWED";
const CLOSE_540: &str = "0 connection.close code=540 text=\"NOT_IMPLEMENTED";
const CHANNEL_403: &str = "1 channel.close code=403 text=\"ACCESS_REFUSED";
const CHANNEL_406: &str = "1 channel.close code=406 text=\"PRECONDITION_FAILED";
const PLAIN: &str = "0 connection.start-ok mechanism=PLAIN response=\"\\x00guest\\x00guest\"";
const TUNE_OK: &str = "0 connection.tune-ok channel-max=2047 frame-max=131072";

fn headers() -> Vec<Case> {
    let hello = "protocol-header!";
    vec![
        case("A1 1.0", Accepted, *b"AMQP\x00\x01\x00\x00", hello),
        case("A1 SASL", Accepted, *b"AMQP\x03\x01\x00\x00", hello),
        case("A1 0-8", Accepted, *b"AMQP\x01\x01\x08\x00", hello),
        case("A1 HTTP", Accepted, *b"GET / HTTP/1.1\r\n\r\n", hello),
        case("A1 TLS", Accepted, *b"\x16\x03\x01\x02\x00\x01\x00\x01", hello),
    ]
}

fn frames() -> Vec<Case> {
    let mut cases: Vec<Case> = [0, 4, 5, 6, 7, 9, 255]
        .into_iter()
        .map(|kind| case("A3", Open, frame(kind, 0, &[]), BROKEN))
        .collect();
    let mut bad_end = encode("1 channel.open");
    *bad_end.last_mut().expect("a frame") = 0;
    bad_end.extend(encode("2 channel.open"));
    let before_login = frame(1, 0, &vec![0; 8192 - 7]);
    cases.extend([
        case("A4", Open, bad_end, BROKEN),
        case("A5", Channel, [3, 0, 1, 0, 1, 0xFF, 0xF9], BROKEN),
        case("A5 huge", Channel, [3, 0, 1, 255, 255, 255, 255], BROKEN),
        case("A6", Greeted, before_login, BROKEN),
        case("A7 queue", Open, encode("0 queue.declare queue=q"), CLOSE_503),
        case("A7 open", Channel, encode("1 connection.open vhost=/"), CLOSE_503),
        case("A8", Channel, encode("1 heartbeat"), CLOSE_505),
        case("A8 payload", Open, frame(8, 0, &[0]), CLOSE_501),
        case("A9 number", Open, encode("2048 channel.open"), CLOSE_530),
        case("A9 closed", Open, encode("7 basic.qos"), CLOSE_504),
        case("A9 twice", Channel, encode("1 channel.open"), CLOSE_504),
        case("A10 class", Channel, method(1, (61, 10), &[]), CLOSE_503),
        case("A10 method", Channel, method(1, (60, 11), &[]), CLOSE_503),
        case("A11 extra", Channel, method(1, (60, 110), &[1, 0]), CLOSE_502),
        case("A20 deep", Channel, declare(&nested(40, b'F')), CLOSE_502),
        case("A20 deeper", Channel, declare(&nested(18_000, b'F')), CLOSE_502),
        case("A20 arrays", Channel, declare(&nested(20_000, b'A')), CLOSE_502),
        case(
            "A34",
            Channel,
            lines(&["0 connection.close code=200", "1 basic.publish key=q"]),
            "0 connection.close-ok",
        ),
    ]);
    let whole = encode("1 queue.declare queue=q arguments={x-expires=60000}");
    for cut in 4..whole.len() - 8 {
        cases.push(case("A11 cut", Channel, frame(1, 1, &whole[7..7 + cut]), CLOSE_502));
    }
    cases
}

fn tables_and_names() -> Vec<Case> {
    let repeated = [1, b'k', b'V'].repeat(1025);
    vec![
        case("A12 past", Channel, method(1, (50, 30), &[0, 0, 9, b'q', 0]), CLOSE_502),
        case("A12 NUL", Channel, encode("1 queue.declare queue=\"a\\x00b\""), CLOSE_502),
        case(
            "A12 CR",
            Channel,
            encode("1 exchange.declare exchange=\"a\\x0db\" type=direct"),
            CLOSE_502,
        ),
        case("A12 LF", Channel, encode("1 queue.purge queue=\"a\\x0ab\""), CLOSE_502),
        case("A12 UTF-8", Channel, encode("1 basic.get queue=\"\\xff\""), CLOSE_502),
        case("A12 publish", Channel, encode("1 basic.publish exchange=\"\\xff\""), CLOSE_502),
        case("A13", Channel, declare(b"\x01kS\xff\xff\xff\xff"), CLOSE_502),
        case("A14 table", Channel, declare(b"\x01kF\x00\x00\x00\x09"), CLOSE_502),
        case("A14 array", Channel, declare(b"\x01kA\xff\xff\xff\xf0"), CLOSE_502),
        case("A15 type", Channel, declare(b"\x01kU\x00\x00"), CLOSE_502),
        case(
            "A15 twice",
            Channel,
            encode("1 queue.declare queue=t arguments={a=1,a=2}"),
            CLOSE_502,
        ),
        case("A16", Channel, declare(&repeated), CLOSE_502),
        case(
            "A18 low",
            LoggedIn,
            encode("0 connection.tune-ok channel-max=1 frame-max=4095"),
            CLOSE_530,
        ),
        case(
            "A18 high",
            LoggedIn,
            encode("0 connection.tune-ok channel-max=1 frame-max=131073"),
            CLOSE_530,
        ),
        case(
            "A18 channels",
            LoggedIn,
            encode("0 connection.tune-ok channel-max=2048 frame-max=4096"),
            CLOSE_530,
        ),
    ]
}

fn logins() -> Vec<Case> {
    let plain = |response: &str| {
        encode(&format!("0 connection.start-ok mechanism=PLAIN response=\"{response}\""))
    };
    vec![
        case("A21 mechanism", Greeted, encode("0 connection.start-ok mechanism=NONE"), CLOSE_503),
        case(
            "A21 external",
            Greeted,
            encode("0 connection.start-ok mechanism=EXTERNAL"),
            CLOSE_503,
        ),
        case("A21 no NUL", Greeted, plain("guest"), CLOSE_502),
        case("A21 one NUL", Greeted, plain("\\x00guest"), CLOSE_502),
        case("A21 three NULs", Greeted, plain("\\x00guest\\x00guest\\x00"), CLOSE_502),
        case(
            "A21 table",
            Greeted,
            encode("0 connection.start-ok mechanism=AMQPLAIN response=x"),
            CLOSE_502,
        ),
        case("A22 open", Greeted, encode("0 connection.open vhost=/"), CLOSE_504),
        case("A22 again", LoggedIn, encode(PLAIN), CLOSE_504),
        case("A22 tune", LoggedIn, lines(&[TUNE_OK, TUNE_OK]), CLOSE_504),
        case("A22 channel", LoggedIn, encode("1 channel.open"), CLOSE_505),
    ]
}

fn contents() -> Vec<Case> {
    let publish = |rest: &[&str]| [encode("1 basic.publish key=q"), lines(rest)].concat();
    let header = |size: u64, flags: &[u8]| {
        let payload = [&[0, 60, 0, 0][..], &size.to_be_bytes(), flags].concat();
        [encode("1 basic.publish key=q"), frame(2, 1, &payload)].concat()
    };
    let mut empty = vec!["1 header size=1"];
    empty.resize(66, "1 body \"\"");
    let mut expirations: Vec<Case> =
        ["abc", "-1", "1e9", "9223372036854775808", "99999999999999999999999"]
            .iter()
            .map(|it| {
                case(
                    "A30",
                    Channel,
                    publish(&[&format!("1 header size=1 expiration={it}")]),
                    CHANNEL_406,
                )
            })
            .collect();
    expirations.extend([
        case("A23 header", Channel, encode("1 header size=1"), CLOSE_505),
        case("A23 body", Channel, encode("1 body x"), CLOSE_505),
        case("A23 body first", Channel, publish(&["1 body x"]), CLOSE_505),
        case("A24", Channel, publish(&["1 header size=2", "1 body x", "1 basic.qos"]), CLOSE_505),
        case("A24 publish", Channel, publish(&["1 basic.publish key=q"]), CLOSE_505),
        case("A25 class", Channel, publish(&["1 header class=50 size=1"]), CLOSE_505),
        case("A25 weight", Channel, publish(&["1 header weight=1 size=1"]), CLOSE_505),
        case("A26", Channel, publish(&["1 header size=134217729"]), CHANNEL_406),
        case("A26 half", Channel, publish(&["1 header size=9223372036854775808"]), CHANNEL_406),
        case("A26 most", Channel, publish(&["1 header size=18446744073709551615"]), CHANNEL_406),
        case("A27", Channel, publish(&["1 header size=2", "1 body abc"]), CLOSE_505),
        case("A27 sum", Channel, publish(&["1 header size=2", "1 body a", "1 body bc"]), CLOSE_505),
        case("A28", Channel, publish(&empty), CLOSE_501),
        case("A29 more", Channel, header(0, &[0, 1, 0, 1, 0, 1]), CLOSE_502),
        case("A29 missing", Channel, header(0, &[0x80, 0]), CLOSE_502),
        case("A29 trailing", Channel, header(0, &[0, 0, 0]), CLOSE_502),
        case("A29 no flags", Channel, header(0, &[]), CLOSE_502),
    ]);
    expirations
}

fn settlements_and_refusals() -> Vec<Case> {
    let get = ["1 basic.publish key=q", "1 header", "1 basic.get queue=q"];
    let after_get = |rest: &[&str]| lines(&[&get[..], rest].concat());
    let mut opens: Vec<u8> = Vec::new();
    for number in 2..=2047_u16 {
        opens.extend(encode(&format!("{number} channel.open")));
    }
    opens.extend(encode("2048 channel.open"));
    let bind =
        |key: &str| encode(&format!("1 queue.bind queue=q exchange=amq.topic key=\"{key}\""));
    vec![
        case("A31 unknown", Channel, encode("1 basic.ack tag=1"), CHANNEL_406),
        case("A31 zero", Channel, encode("1 basic.ack tag=0"), CHANNEL_406),
        case(
            "A31 twice",
            Channel,
            after_get(&["1 basic.ack tag=1", "1 basic.ack tag=1"]),
            CHANNEL_406,
        ),
        case("A31 past", Channel, after_get(&["1 basic.ack tag=2 multiple"]), CHANNEL_406),
        case(
            "A31 other",
            Channel,
            after_get(&["2 channel.open", "2 basic.ack tag=1"]),
            "2 channel.close code=406",
        ),
        case("A32 size", Channel, encode("1 basic.qos size=1"), CLOSE_540),
        case("A32 immediate", Channel, encode("1 basic.publish immediate"), CLOSE_540),
        case("A33 tx", Channel, lines(&["1 confirm.select", "1 tx.select"]), CHANNEL_406),
        case("A33 confirm", Channel, lines(&["1 tx.select", "1 confirm.select"]), CHANNEL_406),
        case("A34 opens", Channel, opens, CLOSE_530),
        case(
            "A35 exchange",
            Channel,
            encode("1 exchange.declare exchange=amq.x type=direct"),
            CHANNEL_403,
        ),
        case("A35 queue", Channel, encode("1 queue.declare queue=amq.x"), CHANNEL_403),
        case("A35 bind", Channel, encode("1 queue.bind queue=q key=k"), CHANNEL_403),
        case("A35 delete", Channel, encode("1 exchange.delete"), CHANNEL_403),
        case(
            "A35 internal",
            Channel,
            lines(&[
                "1 exchange.declare exchange=i type=direct internal",
                "1 basic.publish exchange=i",
                "1 header",
            ]),
            CHANNEL_403,
        ),
        case("A36", Channel, encode("1 queue.declare queue=q durable"), CHANNEL_406),
        case(
            "A37 negative",
            Channel,
            encode("1 queue.declare queue=t arguments={x-message-ttl=-1}"),
            CHANNEL_406,
        ),
        case(
            "A37 text",
            Channel,
            encode("1 queue.declare queue=t arguments={x-message-ttl=\"1\"}"),
            CHANNEL_406,
        ),
        case(
            "A37 large",
            Channel,
            encode("1 queue.declare queue=t arguments={x-message-ttl=9223372036854775807l}"),
            CHANNEL_406,
        ),
        case(
            "A37 priority",
            Channel,
            encode("1 queue.declare queue=t arguments={x-max-priority=256}"),
            CHANNEL_406,
        ),
        case("A38 three", Channel, bind("#.a.#.b.#"), CHANNEL_406),
        case("A38 only", Channel, bind("#.#.#.#"), CHANNEL_406),
        case("A38 words", Channel, bind(&".".repeat(128)), CHANNEL_406),
    ]
}

/// The house with one client that has come so far, and another that must not notice anything.
fn house(at: At) -> House {
    let mut house = House::new(Settings::default());
    crate::connect(&mut house, 2);
    house.send(2, &encode("1 channel.open"));
    house.accept(1);
    let steps = [
        (Greeted, "protocol-header"),
        (LoggedIn, PLAIN),
        (Open, TUNE_OK),
        (Open, "0 connection.open vhost=/"),
        (Channel, "1 channel.open"),
        (Channel, "1 queue.declare queue=q"),
    ];
    for (_, line) in steps.iter().filter(|(step, _)| *step as u8 <= at as u8) {
        house.send(1, &encode(line));
    }
    for peer in house.peers.values_mut() {
        peer.wire.clear();
    }
    house
}

#[test]
fn malformed_input_is_answered_as_the_protocol_says() {
    let all =
        [headers(), frames(), tables_and_names(), logins(), contents(), settlements_and_refusals()];
    let mut failed = Vec::new();
    for case in all.into_iter().flatten() {
        let mut house = house(case.at);
        house.send(1, &case.bytes);
        let peer = house.peers.get_mut(&1).expect("the client");
        let said = decode(&std::mem::take(&mut peer.wire));
        let (answer, closes) = match case.answer.strip_suffix('!') {
            Some(answer) => (answer, true),
            None => (case.answer, false),
        };
        if !said.iter().any(|line| line.starts_with(answer)) || peer.closed != closes {
            failed.push(format!("{} {answer:?}: {said:?}, closed: {}", case.id, peer.closed));
        }
        // It can still do what it likes: nothing more happens to anybody else.
        house.send(1, &case.bytes);
        house.send(2, &encode("1 queue.declare queue=alive"));
        let neighbour = decode(&house.peers[&2].wire);
        assert_eq!(neighbour, ["1 queue.declare-ok queue=alive"], "{}", case.id);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn half_a_protocol_header_is_left_after_the_deadline() {
    let mut house = house(Accepted);
    house.send(1, b"AMQ");
    house.pass(9_999);
    assert!(!house.peers[&1].closed);
    house.pass(1);
    assert!(house.peers[&1].closed);
    assert!(house.peers[&1].wire.is_empty());
}

#[test]
fn odd_values_come_back_as_they_were() {
    let mut house = house(Channel);
    let headers = b"\x01tT\xff\xff\xff\xff\xff\xff\xff\xff\x01dD\xff\xff\xff\xff\xff\x01nd\x7f\xf8\x00\x00\x00\x00\x00\x01";
    let mut properties = vec![0x20, 0];
    properties.extend((headers.len() as u32).to_be_bytes());
    properties.extend(headers);
    let payload = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &properties].concat();
    let header = frame(2, 1, &payload);
    house.send(1, &[encode("1 basic.publish key=q"), header.clone()].concat());
    house.send(1, &encode("1 basic.get queue=q"));
    let wire = &house.peers[&1].wire;
    assert!(wire.windows(header.len()).any(|part| part == header));
}

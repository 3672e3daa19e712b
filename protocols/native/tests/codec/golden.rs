//! Frames as they stand on the wire, and as `docs/native.md` shows them.

use bytes::BytesMut;
use pillarbox_native::*;
use rstest::rstest;

use crate::wire;

fn written(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut out);
    out.to_vec()
}

#[test]
fn preface_names_the_versions() {
    assert_eq!(written(encode_preface), wire("'PBOX' 01 01 00 00"));
    assert_eq!(written(|out| encode_answer(1, out)), wire("'PBOX' 01 01 00 00"));
    let client = read_preface(&wire("'PBOX' 01 03 0000"));
    assert_eq!(client, Preface::Client { lowest: 1, highest: 3 });
    assert_eq!(read_answer(&wire("'PBOX' 00 02 0000")), Preface::Server { chosen: 0, highest: 2 });
}

#[rstest]
#[case("", Preface::NeedMore)]
#[case("'PBO'", Preface::NeedMore)]
#[case("'PBOX' 0101", Preface::NeedMore)]
#[case("'AMQP' 00000901", Preface::Other)]
#[case("'PC'", Preface::Other)]
fn preface_is_known_from_its_first_bytes(#[case] input: &str, #[case] expected: Preface) {
    assert_eq!(read_preface(&wire(input)), expected);
}

#[test]
fn login() {
    let login = Login {
        mechanism: "password",
        user: "guest",
        proof: b"guest",
        vhost: "/",
        client_name: "me",
        silence_max_s: 60,
        properties: &[],
    };
    let bytes = written(|out| login.encode(1, out));
    let expected = "27000000 01 00 01000000
        08 'password' 05 'guest' 0500 'guest' 01 '/' 02 'me' 3c00 00000000";
    assert_eq!(bytes, wire(expected));
    let frame = next_frame(&bytes, 1 << 20).unwrap().unwrap();
    assert!(matches!(Request::decode(&frame), Ok(Request::Login(back)) if back == login));
}

#[test]
fn push_of_two_messages() {
    let bytes = written(|out| {
        let mut push = PushBatch::begin(7, 0, "", b"jobs", out);
        push.add(NewMessage { body: b"one", ..NewMessage::default() }, out);
        let second =
            NewMessage { key: Some(b"k"), properties: &[0, 0], body: b"two", ..Default::default() };
        push.add(second, out);
        push.end(out);
    });
    let expected = "2c000000 10 00 07000000
        00 04 'jobs' 02000000
        00 00000000 03000000 'one'
        01 01 'k' 02000000 0000 03000000 'two'";
    assert_eq!(bytes, wire(expected));
}

#[test]
fn push_of_messages_that_wait() {
    let bytes = written(|out| {
        let mut push = PushBatch::begin(7, 0, "", b"jobs", out);
        let due = Due::After(0x1234);
        push.add(NewMessage { due, body: b"one", ..Default::default() }, out);
        let due = Due::At(0x0198_0000_0000);
        push.add(NewMessage { key: Some(b"k"), due, body: b"two", ..Default::default() }, out);
        push.end(out);
    });
    let expected = "3a000000 10 00 07000000
        00 04 'jobs' 02000000
        02 3412000000000000 00000000 03000000 'one'
        05 01 'k' 0000000098010000 00000000 03000000 'two'";
    assert_eq!(bytes, wire(expected));
    let frame = next_frame(&bytes, 1 << 20).unwrap().unwrap();
    let Ok(Request::Push(push)) = Request::decode(&frame) else { panic!("a push") };
    let due: Vec<Due> = push.messages().map(|it| it.unwrap().due).collect();
    assert_eq!(due, [Due::After(0x1234), Due::At(0x0198_0000_0000)]);
    // Both marks, or one that nobody knows.
    for mark in [6, 8, 13] {
        let mut wrong = bytes.clone();
        wrong[20] = mark;
        let frame = next_frame(&wrong, 1 << 20).unwrap().unwrap();
        let Ok(Request::Push(push)) = Request::decode(&frame) else { panic!("a push") };
        let first = push.messages().next().unwrap();
        assert_eq!(first, Err(Malformed::Unknown { what: "mark", value: mark.into() }));
    }
}

#[test]
fn will_of_one_message() {
    let bytes = written(|out| {
        let mut will = PushBatch::will(7, 2, true, "", b"jobs", out);
        will.add(NewMessage { body: b"gone", ..NewMessage::default() }, out);
        will.end(out);
    });
    let expected = "1f000000 16 01 07000000 0200
        00 04 'jobs' 01000000
        00 00000000 04000000 'gone'";
    assert_eq!(bytes, wire(expected));
    let frame = next_frame(&bytes, 1 << 20).unwrap().unwrap();
    let Ok(Request::Will(will)) = Request::decode(&frame) else { panic!("not a will") };
    assert_eq!((will.number, will.any, will.push.key), (2, true, &b"jobs"[..]));
    assert_eq!(will.push.messages().next().unwrap().unwrap().body, b"gone");
    for cut in 0..frame.payload.len() {
        let will = Will::decode(0, &frame.payload[..cut]);
        let whole = will.is_ok_and(|will| will.push.messages().all(|it| it.is_ok()));
        assert!(!whole, "a will cut at {cut}");
    }
}

#[test]
fn deliveries() {
    let bytes = written(|out| {
        let mut batch = DeliveryBatch::begin(Kind::Delivered, 3, 9, 0, out);
        batch.add(&NewDelivery { seq: 5, body: b"one", ..NewDelivery::default() }, out);
        let second = NewDelivery {
            seq: 6,
            redelivered: true,
            attempts: Some(2),
            id: Some(1),
            address: Some((b"x", b"k")),
            body: b"two",
            ..NewDelivery::default()
        };
        batch.add(&second, out);
    });
    let expected = "5a000000 85 00 03000000
        0900000000000000 0000000000000000 02000000
        0500000000000000 00 00000000 03000000 'one'
        0600000000000000 0f 02000000 00000000000000000000000000000001 01 'x' 01 'k'
          00000000 03000000 'two'";
    assert_eq!(bytes, wire(expected));
}

#[test]
fn settle() {
    let runs = [Run { mailbox: 9, first: 5, count: 2 }];
    let bytes = written(|out| Settle::encode(8, 3, Outcome::Failed { delay_ms: 1000 }, &runs, out));
    let expected = "29000000 15 00 08000000
        0300 03 e803000000000000 01000000
        0900000000000000 0500000000000000 02000000";
    assert_eq!(bytes, wire(expected));
}

#[test]
fn replies() {
    let refused = Refused { code: Code::NotFound, text: "no" };
    let bytes = written(|out| refused.encode(Kind::Refused, 4, out));
    assert_eq!(bytes, wire("0c000000 82 00 04000000 9401 0200 'no'"));
    let bytes = written(|out| {
        encode_pushed(
            4,
            1,
            [RefusedMessage { index: 1, refused }].into_iter(),
            std::iter::empty(),
            out,
        );
    });
    assert_eq!(bytes, wire("18000000 83 00 04000000 01000000 01000000 01000000 9401 0200 'no'"));
    let duplicate = DuplicateMessage { index: 2, position: 9 };
    let duplicates = [duplicate].into_iter();
    let bytes = written(|out| encode_pushed(4, 3, std::iter::empty(), duplicates, out));
    let expected = "1e000000 83 00 04000000 03000000 00000000 01000000 02000000 0900000000000000";
    assert_eq!(bytes, wire(expected));
    let pushed = decode_pushed(&bytes[10..]).unwrap();
    assert_eq!((pushed.taken, pushed.refused.len()), (3, 0));
    assert_eq!(pushed.duplicates, [duplicate]);
    // A message cut short is no message.
    assert!(
        (10..bytes.len())
            .filter(|end| *end != 18)
            .all(|end| decode_pushed(&bytes[10..end]).is_err())
    );
    let hello = Hello {
        product: "Pillarbox",
        version: "1",
        frame_size_max: 1 << 20,
        mechanisms: vec!["password"],
    };
    let bytes = written(|out| hello.encode(out));
    let expected = "20000000 80 00 00000000 09 'Pillarbox' 01 '1' 00001000 01 08 'password'";
    assert_eq!(bytes, wire(expected));
}

#[test]
fn codes_keep_their_numbers() {
    for number in 0..1000 {
        assert_eq!(Code::from_number(number).number(), number);
    }
    assert_eq!(Code::from_number(404), Code::NotFound);
}

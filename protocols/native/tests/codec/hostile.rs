//! Input that is cut, damaged or means harm.

use bytes::BytesMut;
use pillarbox_native::*;
use proptest::prelude::*;
use rstest::rstest;

use crate::wire;

fn read_all(frame: &Frame<'_>) {
    if let Ok(Request::Push(push)) = Request::decode(frame) {
        for message in push.messages().flatten() {
            let _ = PropertiesRef::parse(message.properties);
        }
    }
    if let Ok(Request::Settle(settle)) = Request::decode(frame) {
        assert_eq!(settle.runs().count(), settle.runs().len());
    }
    let _ = Deliveries::decode(frame.payload).map(|it| it.messages().count());
    let _ = Refused::decode(frame.payload);
    let _ = Hello::decode(frame.payload);
    let _ = decode_pushed(frame.payload);
    read_peer(frame);
}

/// What hosts say to each other; whether it was whole.
fn read_peer(frame: &Frame<'_>) -> bool {
    match frame.kind {
        Kind::PeerHello | Kind::Challenge => PeerHello::decode(frame.payload).is_ok(),
        Kind::Proof => decode_proof(frame.payload).is_ok(),
        Kind::Welcome => Welcome::decode(frame.payload).is_ok(),
        Kind::Learned => decode_learned(frame.payload).is_ok(),
        Kind::Hosts => decode_hosts(frame.payload).is_ok(),
        Kind::Taken => Taken::decode(frame.payload).is_ok(),
        Kind::Declined => Declined::decode(frame.payload).is_ok(),
        Kind::Routes => Routes::decode(frame.flags, frame.payload).is_ok(),
        Kind::Forward => Forward::decode(frame.payload)
            .is_ok_and(|forward| forward.messages().all(|it| it.is_ok())),
        Kind::Visit => VisitRef::decode(frame.payload).is_ok(),
        Kind::Ask => AskRef::decode(frame.payload).is_ok(),
        Kind::Drained => decode_drained(frame.payload).is_ok(),
        Kind::Answer => Answer::decode(frame.payload).is_ok(),
        Kind::Given => Given::decode(frame.payload).is_ok(),
        Kind::Ended => Ended::decode(frame.payload).is_ok(),
        _ => false,
    }
}

fn peer_samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    let mut add = |write: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        write(&mut out);
        samples.push(out.to_vec());
    };
    let hello = PeerHello {
        id: 7,
        name: "a",
        incarnation: 8,
        run: 9,
        address: "a.example:8476",
        tags: vec!["ssd", "east"],
        nonce: [3; PROOF_SIZE],
    };
    add(&|out| hello.encode(Kind::PeerHello, out));
    add(&|out| hello.encode(Kind::Challenge, out));
    add(&|out| encode_proof(PROBE, &[1; PROOF_SIZE], out));
    add(&|out| Welcome { proof: [1; PROOF_SIZE], known: 5, frame_size_max: 9 }.encode(out));
    add(&|out| encode_learned(5, out));
    add(&|out| Taken { outbox: 1, upto: 2 }.encode(out));
    add(&|out| Declined { outbox: 1, seq: 2, text: "too large" }.encode(out));
    add(&|out| {
        let host = |id| HostRef { id, incarnation: 2, address: "b.example:8476" };
        encode_hosts([host(1), host(2)].into_iter(), out);
    });
    add(&|out| {
        let arguments = wire("01000000 01000000 'k' 0b 01000000 'v'");
        let mut batch = RoutesBatch::begin(5, true, false, out);
        let route = RouteRef::Mailbox {
            name: "work",
            id: 1,
            durable: true,
            exclusive: false,
            auto_delete: true,
            arguments: &arguments,
            epoch: 7,
        };
        batch.add(&ChangeRef { vhost: "/", gone: false, durable: true, route }, out);
        let route =
            RouteRef::Binding { exchange: "news", kind: "topic", key: b"a.#", arguments: &[] };
        batch.add(&ChangeRef { vhost: "/", gone: true, durable: false, route }, out);
        batch.end(out);
    });
    add(&|out| {
        let mut batch = ForwardBatch::begin("/", 77, out);
        for seq in [5, 9] {
            batch.add(
                &ForwardedRef {
                    seq,
                    persistent: seq == 5,
                    again: seq == 9,
                    exchange: "news",
                    key: b"a.b",
                    id: 1,
                    accepted_ms: 2,
                    properties: &[],
                    body: b"m",
                },
                out,
            );
        }
        batch.end(out);
    });
    samples.extend(errands());
    samples
}

/// What one host asks of another for its clients, and what they are told.
fn errands() -> Vec<Vec<u8>> {
    let arguments = wire("01000000 01000000 'k' 0b 01000000 'v'");
    let mut samples = Vec::new();
    let mut add = |write: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        write(&mut out);
        samples.push(out.to_vec());
    };
    for wish in wishes(&arguments) {
        add(&|out| AskRef { channel: 1, ticket: 2, wish }.encode(3, out));
    }
    let visitor = VisitRef { vhost: "/", user: "ann", client: "here", cancel_notify: true };
    add(&|out| visitor.encode(3, out));
    add(&|out| encode_drained(3, 4, 5, out));
    for result in results() {
        let answer = Answer { channel: 1, ticket: 2, result };
        add(&|out| answer.encode(3, out));
    }
    add(&|out| {
        let mut batch = GivenBatch::begin(3, 1, 4, 5, out);
        batch.add(&given(), out);
        batch.add(&GivenRef { settled: true, attempts: None, offset: None, ..given() }, out);
        batch.end(out);
    });
    add(&|out| {
        let mut batch = GivenBatch::browsed(3, (1, 2), 9, "ready-0-5", out);
        found().iter().for_each(|it| batch.add_found(it, out));
        batch.end(out);
    });
    let no = NoRef { code: 1, texts: vec!["no"] };
    for ended in [
        Ended::Consumer { channel: 1, consumer: 2 },
        Ended::Finished { channel: 1, consumer: 2 },
        Ended::Refused { channel: 1, timeout: true, no },
        Ended::Visit { reason: "why" },
    ] {
        add(&|out| ended.encode(3, out));
    }
    samples
}

#[test]
fn errands_read_back_as_they_were_written() {
    let arguments = wire("01000000 01000000 'k' 0b 01000000 'v'");
    let read = |write: &dyn Fn(&mut BytesMut), check: &dyn Fn(Frame<'_>)| {
        let mut out = BytesMut::new();
        write(&mut out);
        let frame = next_frame(&out, u32::MAX).unwrap().unwrap();
        assert_eq!(frame.id, 3);
        check(frame);
    };
    for wish in wishes(&arguments) {
        let ask = AskRef { channel: 1, ticket: 2, wish };
        read(&|out| ask.encode(3, out), &|frame| {
            assert_eq!(AskRef::decode(frame.payload), Ok(ask));
        });
    }
    for result in results() {
        let answer = Answer { channel: 1, ticket: 2, result };
        read(&|out| answer.encode(3, out), &|frame| {
            assert_eq!(Answer::decode(frame.payload).as_ref(), Ok(&answer));
        });
    }
}

fn wishes(arguments: &[u8]) -> Vec<WishRef<'_>> {
    let mailbox = "work";
    let (exchange, key) = ("news", &b"a.#"[..]);
    let consume = ConsumeRef {
        mailbox,
        consumer: 1,
        tag: "tag\u{1}",
        no_ack: true,
        exclusive: false,
        bounded: true,
        priority: -5,
        prefetch: 7,
        arguments,
        selection: None,
    };
    vec![
        WishRef::Look { mailbox },
        WishRef::Delete { mailbox, if_unused: true, if_empty: false },
        WishRef::Purge { mailbox },
        WishRef::Bind { exchange, mailbox, key, arguments },
        WishRef::Unbind { exchange, mailbox, key, arguments: &[] },
        WishRef::Consume(consume),
        WishRef::Consume(ConsumeRef { selection: Some(("a = 1", true)), ..consume }),
        WishRef::Cancel { consumer: 1 },
        WishRef::Get { mailbox, no_ack: true },
        WishRef::Qos { limit: 5, new: true },
        WishRef::Recover,
        WishRef::Browse(LookRef {
            mailbox,
            states: 5,
            selector: "a = 1",
            after: "ready-0-7",
            count: 3,
            bytes_max: 4,
        }),
        WishRef::Retime { mailbox, due: 1, seq: 2, to: Some(3) },
        WishRef::Retime { mailbox, due: 1, seq: 2, to: None },
        WishRef::Seek { mailbox, cursor: "c", start: arguments },
        WishRef::DeleteCursor { mailbox, cursor: "c" },
        WishRef::CloseChannel,
        WishRef::Exchange {
            name: exchange,
            kind: "topic",
            durable: true,
            auto_delete: false,
            internal: true,
            arguments,
        },
        WishRef::TakeOver(TakeOverRef {
            mailbox,
            epoch: 3,
            durable: true,
            auto_delete: false,
            arguments,
            bindings: MovedBindings::write(
                [("amq.topic", "topic", &b"a.*"[..]), ("news", "fanout", &b""[..])]
                    .into_iter()
                    .map(|(exchange, kind, key)| MovedBindingRef {
                        exchange,
                        kind,
                        key,
                        arguments,
                    }),
                Box::leak(Box::default()),
            ),
        }),
    ]
}

fn results() -> Vec<ResultRef<'static>> {
    vec![
        ResultRef::Done,
        ResultRef::Declared { ready: 1, consumers: 2 },
        ResultRef::Counted(3),
        ResultRef::GotNothing,
        ResultRef::Got { mailbox: 1, left: 2, message: Box::new(given()) },
        ResultRef::Browsed { ready: 2, next: "ready-0-7", messages: found() },
        ResultRef::No(NoRef { code: 9, texts: vec!["work", "/"] }),
    ]
}

fn found() -> Vec<FoundRef<'static>> {
    let holder = HolderRef { connection: 8, channel: 1, tag: Some("t"), since_ms: 9 };
    let found =
        FoundRef { given: given(), place: "ready-0-5", since_ms: 6, due_ms: 7, holder: None };
    let untagged = Some(HolderRef { tag: None, ..holder });
    vec![found, FoundRef { holder: Some(holder), ..found }, FoundRef { holder: untagged, ..found }]
}

fn given() -> GivenRef<'static> {
    let message = ForwardedRef {
        seq: 5,
        persistent: true,
        again: true,
        exchange: "news",
        key: b"a.b",
        id: 1,
        accepted_ms: 2,
        properties: &[],
        body: b"m",
    };
    GivenRef { message, settled: false, acquired: 2, attempts: Some(3), offset: Some(4) }
}

#[test]
fn what_hosts_say_is_whole_or_malformed() {
    for sample in peer_samples() {
        let whole = next_frame(&sample, u32::MAX).unwrap().unwrap();
        assert!(read_peer(&whole), "{:?}", whole.kind);
        for end in 0..whole.payload.len() {
            let frame = Frame { payload: &whole.payload[..end], ..whole };
            assert!(!read_peer(&frame), "{:?} cut at {end}", whole.kind);
        }
        let long = [whole.payload, &[0]].concat();
        assert!(!read_peer(&Frame { payload: &long, ..whole }), "{:?} and more", whole.kind);
    }
}

#[rstest]
#[case::count_lies(Kind::Routes, "0500000000000000 ffffffff")]
#[case::unknown_route(
    Kind::Routes,
    "0500000000000000 01000000 00 02 01 '/' 00 00 00 00 00000000 00 00 00"
)]
#[case::name_with_control(
    Kind::Routes,
    "0500000000000000 01000000 00 00 01 0a 00 0000000000000000 00 00000000"
)]
#[case::forward_count_lies(Kind::Forward, "01 '/' 0100000000000000 ffffffff")]
#[case::hosts_lie(Kind::Hosts, "ffffffff")]
#[case::unknown_wish(Kind::Ask, "0100 0200000000000000 ff")]
#[case::given_count_lies(Kind::Given, "0100 01000000 0100000000000000 ffffffff")]
#[case::unknown_answer(Kind::Answer, "0100 0200000000000000 ff")]
#[case::texts_lie(Kind::Answer, "0100 0200000000000000 06 00 ff")]
#[case::unknown_end(Kind::Ended, "ff")]
#[case::tags_lie(
    Kind::PeerHello,
    "00000000000000000000000000000000 01 'a' 0000000000000000 0000000000000000 0000 ff"
)]
fn what_no_host_says_is_refused(#[case] kind: Kind, #[case] payload: &str) {
    assert!(!read_peer(&Frame { kind, flags: 0, id: 0, payload: &wire(payload) }));
}

fn samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    let mut add = |write: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        write(&mut out);
        samples.push(out.to_vec());
    };
    add(&|out| {
        let mut push = PushBatch::begin(7, 0, "x", b"jobs", out);
        let properties = wire("0014 01000000 01000000 'k' 0b 01000000 'v' 05");
        push.add(
            NewMessage { properties: &properties, body: b"one", ..NewMessage::default() },
            out,
        );
        push.add(
            NewMessage { key: Some(b"k"), due: Due::At(7), properties: &[], body: b"two" },
            out,
        );
        push.end(out);
    });
    add(&|out| {
        let mut batch = DeliveryBatch::begin(Kind::Delivered, 3, 9, 0, out);
        batch.add(&NewDelivery { attempts: Some(1), id: Some(1), ..NewDelivery::default() }, out);
    });
    add(&|out| {
        let runs = [Run { mailbox: 9, first: 5, count: 2 }];
        Settle::encode(8, 3, Outcome::Accepted, &runs, out);
    });
    add(&|out| {
        DeclareMailbox { name: "jobs", durable: true, ..DeclareMailbox::default() }.encode(2, out);
    });
    add(&|out| {
        Pull { mailbox: "jobs", count: 1, wait_ms: 5, settled: true }.encode(2, out);
    });
    add(&|out| {
        List { what: 1, vhost: "/", name: "", after: b"a", count: 10 }.encode(2, out);
    });
    add(&|out| {
        let browse =
            Browse { mailbox: "jobs", states: 5, selector: "a = 1", after: b"x", count: 9 };
        browse.encode(2, out);
    });
    add(&|out| {
        let (from_ms, to_ms, first, end, selector) = (1, 2, 3, u64::MAX, "a = 1");
        Rewind { mailbox: "jobs", from_ms, to_ms, first, end, selector }.encode(2, out);
    });
    add(&|out| {
        Retime { mailbox: "jobs", due_ms: 5, seq: 7, to_ms: 9 }.encode(2, out);
    });
    samples
}

#[test]
fn a_cut_frame_is_awaited() {
    for sample in samples() {
        for end in 0..sample.len() {
            assert_eq!(next_frame(&sample[..end], u32::MAX), Ok(None), "cut at {end}");
        }
        let frame = next_frame(&sample, u32::MAX).unwrap().unwrap();
        assert_eq!(frame.wire_len(), sample.len());
    }
}

#[test]
fn a_cut_payload_is_malformed() {
    for sample in samples() {
        let whole = next_frame(&sample, u32::MAX).unwrap().unwrap();
        for end in 0..whole.payload.len() {
            let frame = Frame { payload: &whole.payload[..end], ..whole };
            read_all(&frame);
            let accepted = match Request::decode(&frame) {
                Ok(Request::Push(push)) => push.messages().all(|it| it.is_ok()),
                Ok(_) => true,
                Err(_) => false,
            };
            assert!(!accepted, "{:?} cut at {end}", whole.kind);
        }
    }
}

#[rstest]
#[case::large("ffffffff 10", FrameError::TooLarge { size: u32::MAX, max: 100 })]
#[case::small("05000000", FrameError::TooSmall(5))]
#[case::kind("06000000 7f", FrameError::UnknownKind(0x7f))]
fn a_bad_head_is_refused_before_its_payload_comes(#[case] head: &str, #[case] error: FrameError) {
    assert_eq!(next_frame(&wire(head), 100), Err(error));
}

#[rstest]
#[case::count_lies("00 00 ffffffff 00 00000000 00000000")]
#[case::body_lies("00 00 01000000 00 00000000 ffffffff")]
#[case::properties_lie("00 00 01000000 00 ffffffff 00000000")]
#[case::unknown_mark("00 00 01000000 80 00000000 00000000")]
#[case::left_over("00 00 01000000 00 00000000 00000000 00")]
#[case::exchange_is_no_text("01 ff 00 00000000")]
fn a_bad_push_is_refused(#[case] payload: &str) {
    let payload = wire(payload);
    let refused = match Push::decode(&payload) {
        Ok(push) => push.messages().any(|it| it.is_err()),
        Err(_) => true,
    };
    assert!(refused);
}

#[rstest]
#[case::unknown_flag("0080")]
#[case::text_lies("0100 ffffffff")]
#[case::left_over("0000 00")]
#[case::table_count_lies("0004 ffffffff 00000000 10")]
#[case::unknown_tag("0004 01000000 00000000 11")]
fn bad_properties_are_refused(#[case] bytes: &str) {
    assert_eq!(PropertiesRef::parse(&wire(bytes)), Err(Malformed::Properties));
}

#[rstest]
fn depth_bomb_is_refused_on_a_small_stack(#[values(13, 14)] tag: u8) {
    let mut bomb = wire("01000000 00000000");
    for _ in 0..100_000 {
        bomb.extend([tag, 1, 0, 0, 0]);
        if tag == 13 {
            bomb.extend([0, 0, 0, 0]);
        }
    }
    let refused = move || assert!(!is_table(&bomb));
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(refused);
    thread.expect("a thread").join().expect("no panic");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_preface(&bytes);
        let _ = PropertiesRef::parse(&bytes);
        let _ = is_table(&bytes);
        if let Ok(Some(frame)) = next_frame(&bytes, 1 << 20) {
            read_all(&frame);
        }
        for octet in 0..=255 {
            if let Some(kind) = Kind::from_octet(octet) {
                read_all(&Frame { kind, flags: 0, id: 0, payload: &bytes });
            }
        }
    }

    #[test]
    fn damaged_words_of_hosts_are_read_without_panic(which in 0..9usize, at in any::<prop::sample::Index>(), to: u8) {
        let mut sample = peer_samples().swap_remove(which);
        let at = at.index(sample.len());
        sample[at] = to;
        if let Ok(Some(frame)) = next_frame(&sample, 1 << 20) {
            read_all(&frame);
        }
    }

    #[test]
    fn damaged_frames_are_read_without_panic(which in 0..6usize, at in any::<prop::sample::Index>(), to: u8) {
        let mut sample = samples().swap_remove(which);
        let at = at.index(sample.len());
        sample[at] = to;
        if let Ok(Some(frame)) = next_frame(&sample, 1 << 20) {
            read_all(&frame);
        }
    }
}

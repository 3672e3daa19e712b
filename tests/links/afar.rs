//! What clients of one host ask of another's mailboxes, over both ends of a link.

use super::*;

/// What a client at the dialling host wants, as the other host's core hears it.
fn over(talk: &mut Talk, commands: Vec<Command>) -> Vec<String> {
    let asks = commands.into_iter().map(|command| PeerEvent::Ask { visit: 7, command });
    talk.tell_link(asks.map(Event::Peer).collect());
    talk.run();
    let heard = talk.asked_by_guest.drain(..).map(|command| match command {
        Command::Peer(peering) => match *peering {
            Peering::Visit { visit: 7, command } => format!("{command:?}"),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    });
    heard.collect()
}

fn request(request: Request) -> Command {
    Command::Request(ChannelId(3), Ticket(4), Box::new(request))
}

#[test]
fn what_clients_want_goes_over_whole() {
    let mut arguments = Table::new();
    arguments.set("x-stream-offset", Value::text("first"));
    let selector = Arc::new(Selector::parse("size > 5").expect("a selector"));
    let run = Run { mailbox: MailboxId(5), first: Seq(6), count: 7 };
    let settle = |outcome| {
        let deliveries = [run, run].into_iter().collect();
        Command::Settle(Settle { channel: ChannelId(1), deliveries, outcome })
    };
    let binding = || BindingOf {
        source: "news".into(),
        destination: Destination::Mailbox("work".into()),
        key: "a.#".into(),
        arguments: Table::new(),
    };
    let start = Value::Timestamp(77);
    let all = || {
        vec![
            request(Request::Consume(Consume {
                mailbox: "work".into(),
                consumer: ConsumerId(9),
                tag: "tag".into(),
                no_ack: true,
                exclusive: true,
                priority: -1,
                prefetch: 10,
                arguments: arguments.clone(),
                selection: Some(Selection { selector: selector.clone(), drops_others: true }),
                bounded: true,
            })),
            request(Request::Get { mailbox: "work".into(), no_ack: true }),
            request(Request::Cancel(ConsumerId(9))),
            request(Request::Qos { limit: 3, scope: QosScope::Channel }),
            request(Request::Recover),
            request(Request::PurgeMailbox { name: "work".into() }),
            request(Request::Bind(binding())),
            request(Request::Unbind(binding())),
            request(Request::Browse(Browse {
                mailbox: "work".into(),
                states: States::only(State::Ready),
                selector: None,
                after: Some(place(7)),
                count: 5,
                bytes_max: 6,
            })),
            request(Request::SeekCursor(SeekCursor {
                mailbox: "work".into(),
                cursor: "c".into(),
                start: start.clone(),
            })),
            request(Request::TakeOver(Box::new(TakeOver {
                name: "work".into(),
                epoch: 3,
                durable: true,
                auto_delete: true,
                arguments: arguments.clone(),
                bindings: vec![MovedBinding {
                    exchange: "news".into(),
                    kind: "topic".into(),
                    key: "a.#".into(),
                    arguments: arguments.clone(),
                }],
            }))),
            settle(Outcome::Accepted),
            settle(Outcome::Released),
            settle(Outcome::Rejected),
            settle(Outcome::Modified { delay_ms: None }),
            settle(Outcome::Modified { delay_ms: Some(0) }),
            settle(Outcome::Modified { delay_ms: Some(5000) }),
            Command::Extend(Extend {
                channel: ChannelId(1),
                deliveries: [run].into_iter().collect(),
            }),
            Command::Drained { deliveries: 3, bytes: 4 },
            Command::CloseChannel(ChannelId(3), Ticket(5)),
            Command::Close(None),
        ]
    };
    let expected: Vec<String> = all().iter().map(|it| format!("{it:?}")).collect();
    for chunk in [usize::MAX, 7] {
        let mut talk = Talk::open();
        talk.chunk = chunk;
        assert_eq!(over(&mut talk, all()), expected);
    }
}

/// What a client is told, as its own host's core hears it.
fn back(talk: &mut Talk, event: Event) -> Vec<Event> {
    talk.tell_guest(Event::Peer(PeerEvent::Visitor { visit: 7, event: Box::new(event) }));
    talk.run();
    let heard = talk.asked_by_link.drain(..).map(|command| match command {
        Command::Peer(peering) => match *peering {
            Peering::Told { visit: 7, event } => event,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    });
    heard.collect()
}

#[test]
fn what_clients_are_told_comes_back_whole() {
    let mut talk = Talk::open();
    let mut given = delivery(5, 6, "one");
    (given.redelivered, given.attempts, given.acquired) = (true, Some(2), 3);
    (given.offset, given.consumer) = (Some(8), ConsumerId(9));
    let events = back(&mut talk, Event::DeliveredBatch(vec![given.clone(), delivery(5, 7, "two")]));
    let all: Vec<_> = events.iter().flat_map(Event::deliveries).collect();
    assert_eq!(all.len(), 2);
    let it = all[0];
    assert_eq!((it.mailbox, it.seq, it.consumer), (given.mailbox, given.seq, given.consumer));
    assert_eq!((it.redelivered, it.attempts, it.acquired), (true, Some(2), 3));
    assert_eq!((it.offset, it.settled, it.message.body()), (Some(8), false, &b"one"[..]));
    assert_eq!(it.message.properties(), given.message.properties());
    let reply = |result| Event::Reply { channel: ChannelId(1), ticket: Ticket(2), result };
    let got = reply(Ok(Reply::Got(Some(Box::new((given, 4))))));
    let heard = back(&mut talk, got);
    let [Event::Reply { result: Ok(Reply::Got(Some(got))), .. }] = &heard[..] else {
        panic!("no message")
    };
    assert_eq!((got.0.seq, got.1), (Seq(6), 4));
    let refusal = Refusal::NoSuchMailbox { name: "work".into(), vhost: "/".into() };
    let same = || {
        vec![
            reply(Ok(Reply::Done)),
            reply(Ok(Reply::Declared { name: "".into(), ready: 5, consumers: 6 })),
            reply(Ok(Reply::Counted(7))),
            reply(Ok(Reply::Got(None))),
            reply(Err(refusal.clone())),
            Event::Cancelled { channel: ChannelId(1), consumer: ConsumerId(2) },
            Event::Finished { channel: ChannelId(1), consumer: ConsumerId(2) },
            Event::Refused {
                channel: ChannelId(1),
                cause: Cause::Timeout,
                refusal: refusal.clone(),
            },
            Event::ForceClose("why".into()),
        ]
    };
    for (event, expected) in same().into_iter().zip(same()) {
        let expected = format!("{:?}", [expected]);
        assert_eq!(format!("{:?}", back(&mut talk, event)), expected);
    }
}

#[rstest]
#[case::at_once(usize::MAX)]
#[case::in_pieces(1009)]
fn a_client_whose_message_is_too_large_here_is_sent_away_and_others_read_on(#[case] chunk: usize) {
    let mut talk = Talk::open();
    talk.chunk = chunk;
    let huge = "x".repeat(3 << 20);
    for (visit, seq, body) in [(7, 1, "one"), (7, 2, &*huge), (8, 3, "three")] {
        let event = Box::new(Event::Delivered(delivery(5, seq, body)));
        talk.tell_guest(Event::Peer(PeerEvent::Visitor { visit, event }));
    }
    talk.tell_guest(Event::Peer(PeerEvent::Arrived { outbox: MailboxId(7), upto: Seq(8) }));
    talk.run();
    assert!(!talk.link_closed && !talk.guest_closed, "{:?}", talk.remarks);
    let heard = talk.asked_by_link.drain(..).map(|command| match command {
        Command::Peer(peering) => match *peering {
            Peering::Told { visit, event: Event::DeliveredBatch(all) } => (visit, all[0].seq.0),
            Peering::Told { visit, event: Event::ForceClose(_) } => (visit, 0),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    });
    assert_eq!(heard.collect::<Vec<_>>(), [(7, 1), (7, 0), (8, 3)]);
    let asked = format!("{:?}", talk.asked_by_guest);
    assert_eq!(asked, "[Peer(Visit { visit: 7, command: Close(None) })]");
    assert!(talk.remarks.iter().any(|it| it.contains("larger than this host takes")));
}

#[test]
fn an_answer_of_many_messages_comes_in_pieces_and_is_heard_once() {
    let mut talk = Talk::open();
    let body = "x".repeat(100_000);
    let holder = HolderView {
        connection: ConnectionId(7),
        channel: ChannelId(1),
        tag: Some("t".into()),
        since: Time(8),
    };
    let found = |seq| Found {
        at: place(seq),
        message: delivery(5, seq, &body).message,
        rest: Rest { since: Time(3), deliver_at: Time(4), attempts: 2, ..Rest::default() },
        attempts: Some(2),
        offset: Some(6),
        holder: (seq > 3).then(|| holder.clone()),
    };
    let browsed =
        || Browsed { found: (1..=5).map(found).collect(), next: Some(place(5)), ready: 9 };
    let result = Ok(Reply::Browsed(browsed()));
    let reply = Event::Reply { channel: ChannelId(1), ticket: Ticket(2), result };
    let heard = back(&mut talk, reply);
    let [Event::Reply { result: Ok(Reply::Browsed(heard)), .. }] = &heard[..] else {
        panic!("no answer")
    };
    assert_eq!((heard.next, heard.ready), (Some(place(5)), 9));
    for (heard, said) in heard.found.iter().zip(browsed().found) {
        let of = |it: &Found| (it.at, it.rest, it.attempts, it.offset, it.holder.clone());
        assert_eq!(of(heard), of(&said));
        assert_eq!(heard.message.body(), said.message.body());
    }
    assert_eq!(heard.found.len(), 5);
}

#[rstest]
#[case::position(1 << 63, 1)]
#[case::count(1, u32::MAX)]
fn a_settlement_of_what_cannot_be_ends_the_link(#[case] first: u64, #[case] count: u32) {
    let mut talk = Talk::open();
    let mut out = BytesMut::new();
    let run = pillarbox_native::Run { mailbox: 1, first, count };
    let outcome = pillarbox_native::Outcome::Accepted;
    pillarbox_native::Settle::encode(7, 1, outcome, &[run], &mut out);
    talk.say_to_guest(&out);
    assert_eq!(talk.goodbye().as_deref(), Some("a settlement of too many deliveries"));
    assert!(talk.asked_by_guest.is_empty());
}

fn place(seq: u64) -> Bookmark {
    format!("ready-0-{seq}").parse().expect("a place")
}

//! What is written reads back the same.

use bytes::BytesMut;
use pillarbox_native::*;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/äöü .#*+-]{0,40}"
}

fn decoded(out: &BytesMut, check: impl FnOnce(Request<'_>)) {
    let frame = next_frame(out, u32::MAX).unwrap().unwrap();
    assert_eq!(frame.wire_len(), out.len());
    check(Request::decode(&frame).unwrap());
}

/// Position, marks, key, id, time, properties, body.
type Carried = (u64, (bool, bool), Vec<u8>, u128, u64, Vec<u8>, Vec<u8>);

proptest! {
    #[test]
    fn forwards(
        vhost in name(), outbox: u64,
        messages: Vec<Carried>,
    ) {
        let of = |it: &Carried| it.clone();
        let mut out = BytesMut::new();
        let mut batch = ForwardBatch::begin(&vhost, outbox, &mut out);
        for (seq, (persistent, again), key, id, accepted_ms, properties, body) in &messages {
            let (seq, persistent, again) = (*seq, *persistent, *again);
            let (id, accepted_ms) = (*id, *accepted_ms);
            let message =
                ForwardedRef { seq, persistent, again, exchange: "x", key, id, accepted_ms, properties, body };
            batch.add(&message, &mut out);
        }
        batch.end(&mut out);
        let frame = next_frame(&out, u32::MAX).unwrap().unwrap();
        let forward = Forward::decode(frame.payload).unwrap();
        assert_eq!((forward.vhost, forward.outbox), (&*vhost, outbox));
        let back: Vec<_> = forward.messages().map(Result::unwrap).map(|it| {
            assert_eq!(it.exchange, "x");
            let (key, properties, body) = (it.key.to_vec(), it.properties.to_vec(), it.body.to_vec());
            (it.seq, (it.persistent, it.again), key, it.id, it.accepted_ms, properties, body)
        }).collect();
        assert_eq!(back, messages.iter().map(of).collect::<Vec<_>>());
    }

    #[test]
    fn pushes(
        id: u32, exchange in name(), key: Vec<u8>,
        messages: Vec<(Option<Vec<u8>>, Vec<u8>)>, times: [u64; 2],
    ) {
        let due = [Due::Now, Due::After(times[0]), Due::At(times[1])];
        let key = &key[..key.len().min(255)];
        let mut out = BytesMut::new();
        let mut push = PushBatch::begin(id, 0, &exchange, key, &mut out);
        for ((key, body), due) in messages.iter().zip(due.into_iter().cycle()) {
            let key = key.as_deref().map(|key| &key[..key.len().min(255)]);
            push.add(NewMessage { key, due, properties: &[], body }, &mut out);
        }
        push.end(&mut out);
        decoded(&out, |request| {
            let Request::Push(push) = request else { panic!("a push") };
            assert_eq!((push.exchange, push.key), (&*exchange, key));
            let back: Vec<_> = push.messages().map(Result::unwrap).collect();
            assert_eq!(back.len(), messages.len());
            for ((back, (key, body)), due) in back.iter().zip(&messages).zip(due.into_iter().cycle()) {
                assert_eq!(back.due, due);
                assert_eq!(back.key, key.as_deref().map(|key| &key[..key.len().min(255)]));
                assert_eq!(back.body, body);
            }
        });
    }

    #[test]
    fn deliveries(
        mailbox: u64, left: u64, bodies: Vec<(u64, Option<u32>, Option<u128>, Option<u64>, Vec<u8>)>,
    ) {
        let mut out = BytesMut::new();
        let mut batch = DeliveryBatch::begin(Kind::Pulled, 1, mailbox, 0, &mut out);
        for (seq, attempts, id, offset, body) in &bodies {
            let delivery = NewDelivery {
                seq: *seq, attempts: *attempts, id: *id, offset: *offset, body, ..NewDelivery::default()
            };
            batch.add(&delivery, &mut out);
        }
        batch.set_left(left, &mut out);
        let frame = next_frame(&out, u32::MAX).unwrap().unwrap();
        let back = Deliveries::decode(frame.payload).unwrap();
        assert_eq!((back.mailbox, back.left, back.count as usize), (mailbox, left, bodies.len()));
        for (back, (seq, attempts, id, offset, body)) in back.messages().zip(&bodies) {
            let back = back.unwrap();
            assert_eq!((back.seq, back.attempts, back.id), (*seq, *attempts, *id));
            assert_eq!((back.offset, back.body), (*offset, &body[..]));
        }
    }

    #[test]
    fn declarations(id: u32, name in name(), flags in 0..16u8) {
        let declare = DeclareMailbox {
            name: &name,
            passive: flags & 1 != 0,
            durable: flags & 2 != 0,
            exclusive: flags & 4 != 0,
            auto_delete: flags & 8 != 0,
            arguments: &[0, 0, 0, 0],
        };
        let mut out = BytesMut::new();
        declare.encode(id, &mut out);
        decoded(&out, |request| {
            assert!(matches!(request, Request::DeclareMailbox(back) if back == declare));
        });
        let exchange = DeclareExchange {
            name: &name,
            kind: "topic",
            passive: flags & 1 != 0,
            durable: flags & 2 != 0,
            internal: flags & 4 != 0,
            auto_delete: flags & 8 != 0,
            arguments: &[],
        };
        let mut out = BytesMut::new();
        exchange.encode(id, &mut out);
        decoded(&out, |request| {
            assert!(matches!(request, Request::DeclareExchange(back) if back == exchange));
        });
    }

    #[test]
    fn subscriptions(subscription: u16, name in name(), credit: u32, priority: i32, flags in 0..8u8) {
        let subscribe = Subscribe {
            subscription,
            mailbox: &name,
            credit,
            priority,
            settled: flags & 1 != 0,
            exclusive: flags & 2 != 0,
            ids: flags & 4 != 0,
            arguments: &[],
        };
        let mut out = BytesMut::new();
        subscribe.encode(5, &mut out);
        decoded(&out, |request| {
            assert!(matches!(request, Request::Subscribe(back) if back == subscribe));
        });
    }

    #[test]
    fn settlements(subscription: u16, delay_ms: u64, runs: Vec<(u64, u64, u32)>) {
        let runs: Vec<_> =
            runs.iter().map(|&(mailbox, first, count)| Run { mailbox, first, count }).collect();
        let mut out = BytesMut::new();
        Settle::encode(5, subscription, Outcome::Failed { delay_ms }, &runs, &mut out);
        decoded(&out, |request| {
            let Request::Settle(settle) = request else { panic!("a settle") };
            assert_eq!(settle.outcome, Outcome::Failed { delay_ms });
            assert_eq!(settle.runs().collect::<Vec<_>>(), runs);
        });
    }
}

//! The store as its owner sees it: what was committed is there, also after a restart.

use std::sync::Arc;

use bytes::Bytes;
use redb::ReadableTable;

use crate::broker::{
    Append, Definition, DefinitionKey, DefinitionKind, Fetch, MailboxDefinition, MailboxId,
    Message, Name, Parts, Properties, Rest, Seq, Span, Table, VhostDefinition,
};

use super::*;

static RAW: WireForm =
    WireForm { id: 9, name: "raw", decode: |_| Properties::default(), encode: |_, _| {} };
const FORMS: &[&WireForm] = &[&RAW];

fn options() -> Options {
    Options { background: false, reserve: 0, ..Options::default() }
}

fn message(body: &[u8]) -> Arc<Message> {
    let mut buffer = b"keyprops".to_vec();
    buffer.extend_from_slice(body);
    let end = buffer.len() as u32;
    let parts = Parts {
        exchange: Name::from("amq.topic"),
        buffer: Bytes::from(buffer),
        key: Span { start: 0, end: 3 },
        properties: Span { start: 3, end: 8 },
        body: Span { start: 8, end },
        form: &RAW,
        persistent: true,
        priority: 4,
        expiration_ms: None,
    };
    let mut message = Message::new(parts, Time(1_000));
    message.id.0 = 77 << 80;
    Arc::new(message)
}

fn append(mailbox: u64, seq: u64, message: &Arc<Message>) -> Write {
    Write::Append(Append {
        mailbox: MailboxId(mailbox),
        seq: Seq(seq),
        message: Arc::clone(message),
        rest: Rest { since: Time(1_005), ..Rest::default() },
        transient: false,
        keyed: false,
    })
}

fn remove(mailbox: u64, first: u64, count: u32) -> Write {
    Write::Remove { mailbox: MailboxId(mailbox), first: Seq(first), count }
}

fn define(mailbox: u64) -> Write {
    Write::Define(Box::new(Definition::Mailbox(MailboxDefinition {
        id: MailboxId(mailbox),
        vhost: Name::from("/"),
        name: Name::from(format!("m{mailbox}")),
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments: Table::new(),
        epoch: 0,
    })))
}

fn fetch(
    reader: &Reader,
    mailbox: u64,
    ranges: &[(u64, u32)],
) -> Vec<(u64, Result<Vec<u8>, String>)> {
    let fetch = Fetch {
        mailbox: MailboxId(mailbox),
        lane: 0,
        ranges: ranges.iter().map(|(first, count)| (Seq(*first), *count)).collect(),
    };
    let found = reader.fetch(&fetch).unwrap();
    found.into_iter().map(|it| (it.seq.0, it.message.map(|it| it.body().to_vec()))).collect()
}

fn open(memory: &Memory) -> (Store, Recovered) {
    Store::open_in(Arc::new(memory.clone()), FORMS, options()).expect("the store opens")
}

/// First position, count, bytes of each run.
fn shape(recovered: &Recovered, mailbox: u64) -> Vec<(u64, u32, u64)> {
    let mailbox = recovered.mailboxes.iter().find(|it| it.id.0 == mailbox).expect("the mailbox");
    mailbox.messages.iter().map(|run| (run.first.0, run.count, run.bytes)).collect()
}

fn next(recovered: &Recovered, mailbox: u64) -> u64 {
    recovered.mailboxes.iter().find(|it| it.id.0 == mailbox).expect("the mailbox").next.0
}

#[test]
fn what_was_committed_is_read_back_whole() {
    let (mut store, recovered) = open(&Memory::default());
    assert!(recovered.definitions.is_empty() && recovered.mailboxes.is_empty());
    store
        .commit(
            &[define(1), append(1, 1, &message(b"one")), append(1, 2, &message(b"two"))],
            Time(5),
        )
        .unwrap();
    let reader = store.reader();
    assert_eq!(
        fetch(&reader, 1, &[(1, 2)]),
        vec![(1, Ok(b"one".to_vec())), (2, Ok(b"two".to_vec()))]
    );
    let whole =
        reader.fetch(&Fetch { mailbox: MailboxId(1), lane: 0, ranges: vec![(Seq(2), 1)] }).unwrap();
    let whole = whole[0].message.as_ref().unwrap();
    assert_eq!(&**whole.exchange(), "amq.topic");
    assert_eq!((whole.key(), whole.property_bytes()), (&b"key"[..], &b"props"[..]));
    assert_eq!((whole.id.0, whole.accepted, whole.priority()), (77 << 80, Time(1_000), 4));
    assert!(whole.persistent());
}

#[test]
fn recovery_tells_the_broker_what_is_live() {
    let memory = Memory::default();
    let (mut store, _) = open(&memory);
    let body = message(&[7; 100]);
    store.commit(&[define(1), define(2)], Time(5)).unwrap();
    let many: Vec<Write> = (1..=1000).map(|seq| append(1, seq, &message(&[7; 100]))).collect();
    store.commit(&many, Time(6)).unwrap();
    store.commit(&[remove(1, 1, 10), remove(1, 500, 1), append(2, 1, &body)], Time(7)).unwrap();
    store
        .commit(
            &[
                Write::Attempts {
                    mailbox: MailboxId(1),
                    seq: Seq(700),
                    attempts: 3,
                    deliver_at: Time(99),
                },
                Write::Mark { mailbox: MailboxId(1), upto: Seq(64) },
            ],
            Time(8),
        )
        .unwrap();
    drop(store);
    let (_, recovered) = open(&memory);
    assert_eq!(recovered.definitions.len(), 2);
    let expected = vec![(11, 489, 48_900), (501, 199, 19_900), (700, 1, 100), (701, 300, 30_000)];
    assert_eq!(shape(&recovered, 1), expected);
    let mailbox = &recovered.mailboxes[0];
    assert_eq!((mailbox.next, mailbox.mark), (Seq(1001), Seq(64)));
    assert_eq!(mailbox.messages[2].rest.attempts, 3);
    assert_eq!(mailbox.messages[2].rest.deliver_at, Time(99));
    assert_eq!(mailbox.messages[0].rest.since, Time(1_005));
    assert!(!recovered.clean);
}

#[test]
fn what_comes_and_goes_in_one_commit_writes_nothing() {
    let memory = Memory::default();
    let (mut store, _) = open(&memory);
    store.commit(&[define(1)], Time(1)).unwrap();
    let before = memory.bytes(tables::JOURNAL);
    let one = message(b"x");
    store.commit(&[append(1, 1, &one), append(1, 2, &one), remove(1, 1, 2)], Time(2)).unwrap();
    assert!(memory.bytes(tables::JOURNAL) == before, "nothing was written");
    // The position after them rides with the next commit.
    store.commit(&[Write::Mark { mailbox: MailboxId(1), upto: Seq(1) }], Time(3)).unwrap();
    drop(store);
    let (mut store, recovered) = open(&memory);
    assert_eq!(next(&recovered, 1), 3);
    // Also where something else of the batch stays.
    store.commit(&[append(1, 3, &one), append(1, 4, &one), remove(1, 4, 1)], Time(4)).unwrap();
    drop(store);
    let (_, recovered) = open(&memory);
    assert_eq!(next(&recovered, 1), 5);
    assert_eq!(shape(&recovered, 1), vec![(3, 1, 1)]);
}

#[test]
fn transient_messages_and_undefined_mailboxes_are_gone_after_a_restart() {
    let memory = Memory::default();
    let (mut store, _) = open(&memory);
    let one = message(b"one");
    let Write::Append(spilled) = append(1, 1, &one) else { unreachable!() };
    let spilled = Write::Append(Append { transient: true, ..spilled });
    store.commit(&[define(1), spilled, append(1, 2, &one), append(9, 1, &one)], Time(1)).unwrap();
    assert_eq!(fetch(&store.reader(), 1, &[(1, 1)])[0].1, Ok(b"one".to_vec()));
    drop(store);
    let (store, recovered) = open(&memory);
    assert_eq!(shape(&recovered, 1), vec![(2, 1, 3)]);
    assert_eq!(recovered.mailboxes.len(), 1);
    assert!(fetch(&store.reader(), 1, &[(1, 1)])[0].1.is_err());
}

#[test]
fn body_for_several_mailboxes_is_stored_once() {
    let memory = Memory::default();
    let (mut store, _) = open(&memory);
    let body = message(&vec![5; 100_000]);
    let big = message(&vec![6; 1_000_000]);
    let mut writes: Vec<Write> = (1..=10).map(define).collect();
    writes.extend((1..=10).map(|mailbox| append(mailbox, 1, &body)));
    writes.extend((1..=10).map(|mailbox| append(mailbox, 2, &big)));
    store.commit(&writes, Time(1)).unwrap();
    let bytes = store.stats().unhomed_bytes;
    assert!(bytes < 1_110_000, "{bytes}");
    store.commit(&[remove(1, 1, 2)], Time(2)).unwrap();
    drop(store);
    let (store, _) = open(&memory);
    for mailbox in 2..=10 {
        let found = fetch(&store.reader(), mailbox, &[(1, 2)]);
        assert_eq!(found[0], (1, Ok(vec![5; 100_000])));
        assert_eq!(found[1], (2, Ok(vec![6; 1_000_000])));
    }
}

/// Lengths of the chunks in home.
fn chunks(memory: &Memory) -> Vec<usize> {
    let home = tables::open(memory.open(tables::HOME).unwrap(), 1 << 20).unwrap();
    let chunks = home.begin_read().unwrap().open_table(tables::CHUNKS).unwrap();
    chunks.iter().unwrap().map(|chunk| chunk.unwrap().1.value().len()).collect()
}

fn keyed(mailbox: u64, seq: u64, message: &Arc<Message>) -> Write {
    let Write::Append(append) = append(mailbox, seq, message) else { unreachable!() };
    Write::Append(Append { keyed: true, ..append })
}

#[test]
fn messages_with_keys_lie_in_small_chunks() {
    let memory = Memory::default();
    let (mut store, _) = open(&memory);
    let body = |seq: u64| vec![seq as u8; 1000];
    let mut writes = vec![define(1), define(2)];
    writes.extend((1..=1000).map(|seq| append(1, seq, &message(&body(seq)))));
    writes.extend((1..=1000).map(|seq| keyed(2, seq, &message(&body(seq)))));
    store.commit(&writes, Time(1)).unwrap();
    store.home().unwrap();
    assert!(store.reader().home_used_max() < 4_000_000, "{}", store.reader().home_used_max());
    drop(store);
    let lengths = chunks(&memory);
    assert!(lengths[0] > 200_000, "the queue's: {lengths:?}");
    assert!(lengths[6..].iter().all(|it| *it <= part::SMALL_MAX), "the table's: {lengths:?}");
    let (store, _) = open(&memory);
    assert_eq!(fetch(&store.reader(), 2, &[(977, 1)]), vec![(977, Ok(body(977)))]);
    let all = fetch(&store.reader(), 2, &[(1, 1000)]);
    assert!(all.into_iter().eq((1..=1000).map(|seq| (seq, Ok(body(seq))))));
}

#[test]
fn small_chunks_that_hold_little_are_joined_in_one_round() {
    let memory = Memory::default();
    let (mut store, _) = open(&memory);
    let writes = (1..=6000).map(|seq| keyed(1, seq, &message(&[7; 1000])));
    let writes: Vec<Write> = std::iter::once(define(1)).chain(writes).collect();
    store.commit(&writes, Time(1)).unwrap();
    store.home().unwrap();
    let gone = (0..1500).map(|four| remove(1, four * 4 + 1, 3));
    store.commit(&gone.collect::<Vec<_>>(), Time(2)).unwrap();
    store.home().unwrap();
    assert_eq!(fetch(&store.reader(), 1, &[(4, 1), (5996, 1)]).len(), 2);
    drop(store);
    assert!(chunks(&memory).len() < 150, "{}", chunks(&memory).len());
}

#[test]
fn definitions_come_back_as_they_were_last() {
    let memory = Memory::default();
    let (mut store, _) = open(&memory);
    let vhost = |text: &str| {
        Definition::Vhost(VhostDefinition {
            name: Name::from("v"),
            description: text.into(),
            tags: vec![],
            default_queue_type: None,
            tracing: false,
            protected: false,
            max_connections: None,
            max_mailboxes: None,
        })
    };
    let write = |definition: Definition| Write::Define(Box::new(definition));
    store.commit(&[write(vhost("one")), define(1), define(2)], Time(1)).unwrap();
    let key = DefinitionKey {
        kind: DefinitionKind::Mailbox,
        path: vec![Bytes::from_static(b"/"), Bytes::from_static(b"m1")],
    };
    let drop_one = Write::Drop { mailbox: MailboxId(1) };
    store.commit(&[write(vhost("two")), Write::Undefine(key), drop_one], Time(2)).unwrap();
    drop(store);
    let (_, recovered) = open(&memory);
    assert_eq!(recovered.definitions.len(), 2);
    assert!(recovered.definitions.contains(&vhost("two")));
}

#[test]
fn newer_schema_is_refused_untouched() {
    let memory = Memory::default();
    drop(open(&memory));
    {
        let file = tables::open(memory.open(tables::HOME).unwrap(), 1 << 20).unwrap();
        let transaction = file.begin_write().unwrap();
        transaction
            .open_table(tables::META)
            .unwrap()
            .insert("schema", &2_u32.to_le_bytes()[..])
            .unwrap();
        transaction.commit().unwrap();
    }
    let before = (memory.bytes(tables::HOME), memory.bytes(tables::JOURNAL));
    let refused = Store::open_in(Arc::new(memory.clone()), FORMS, options());
    assert!(matches!(refused, Err(StoreError::Newer { found: 2, known: 1 })));
    assert!((memory.bytes(tables::HOME), memory.bytes(tables::JOURNAL)) == before);
}

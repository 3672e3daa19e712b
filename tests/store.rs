//! The store on disks that lie, fill up or fail, and under several threads.

#[path = "crash/faults.rs"]
mod faults;
#[path = "crash/model.rs"]
mod model;
#[path = "crash/random.rs"]
mod random;
#[path = "crash/workload.rs"]
mod workload;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pillarbox::broker::{Append, Fetch, MailboxId, Message, Rest, Seq, Time, Write};
use pillarbox::store::{Memory, Options, Store, StoreError, check, check_in, compact, compact_in};

use faults::FaultyDisk;
use model::{Body, Model, RAW, definition};
use random::Random;
use workload::Workload;

fn options() -> Options {
    Options {
        journal_cache: 2 << 20,
        home_cache: 2 << 20,
        soft_cap: 64 << 10,
        hard_cap: 256 << 10,
        background: false,
        reserve: 0,
        ..Options::default()
    }
}

fn append(mailbox: u64, seq: u64, message: &Arc<Message>) -> Write {
    Write::Append(Append {
        mailbox: MailboxId(mailbox),
        seq: Seq(seq),
        message: Arc::clone(message),
        rest: Rest { since: message.accepted, ..Rest::default() },
        transient: false,
        keyed: false,
    })
}

fn define(mailbox: u64) -> Write {
    Write::Define(Box::new(definition(mailbox)))
}

fn remove(mailbox: u64, first: u64, count: u32) -> Write {
    Write::Remove { mailbox: MailboxId(mailbox), first: Seq(first), count }
}

fn body(seed: u64, len: usize) -> Arc<Message> {
    Body { seed, len }.message()
}

/// A store with messages in the journal and in home, settled ones between them; what was ever in it by position.
fn filled(memory: &Memory, clean: bool) -> (Model, HashMap<(u64, u64), Vec<u8>>) {
    let (mut store, _) = Store::open_in(Arc::new(memory.clone()), &[&RAW], options()).unwrap();
    let mut workload = Workload::new(Random::new(5));
    let mut model = Model::default();
    let mut all = HashMap::new();
    for step in 0..60 {
        let writes = workload.commit(&model);
        for write in &writes {
            if let Write::Append(append) = write {
                all.insert((append.mailbox.0, append.seq.0), append.message.body().to_vec());
            }
        }
        store.commit(&writes, Time(step)).unwrap();
        model.apply(&writes);
        if step == 40 {
            store.home().unwrap();
        }
    }
    if clean {
        store.close().unwrap();
    }
    model.restart();
    (model, all)
}

/// Whatever bit of a closed file turns over: a message comes back whole, or is known to be damaged.
#[test]
fn flipped_bits_are_never_delivered() {
    let memory = Memory::default();
    let (model, all) = filled(&memory, true);
    let flips = std::env::var("FLIPS").ok().and_then(|it| it.parse().ok()).unwrap_or(300);
    let mut random = Random::new(11);
    let (mut refused, mut set_aside, mut whole) = (0, 0, 0);
    for flip in 0..flips {
        let name = if random.chance(4) { "journal.redb" } else { "home.redb" };
        let mut bytes = memory.bytes(name).unwrap();
        // Most of a young file is empty.
        let at = loop {
            let at = random.below(bytes.len() as u64) as usize;
            if bytes[at & !511..][..512].iter().any(|byte| *byte != 0) {
                break at;
            }
        };
        bytes[at] ^= 1 << random.below(8);
        let copy = Memory::default();
        for other in ["journal.redb", "home.redb"] {
            let bytes = if other == name { bytes.clone() } else { memory.bytes(other).unwrap() };
            copy.put(other, bytes);
        }
        let opened = Store::open_in(Arc::new(copy.clone()), &[&RAW], options());
        let Ok((store, recovered)) = opened else {
            refused += 1;
            continue;
        };
        let reader = store.reader();
        let mut known = 0;
        for mailbox in &recovered.mailboxes {
            for run in &mailbox.messages {
                let ranges = vec![(run.first, run.count)];
                let fetch = Fetch { mailbox: mailbox.id, lane: 0, ranges };
                for found in reader.fetch(&fetch).unwrap() {
                    known += 1;
                    match found.message {
                        Ok(message) => {
                            let sent = &all[&(mailbox.id.0, found.seq.0)];
                            assert!(message.body() == sent, "flip {flip} at {at} of {name}: wrong");
                            whole += 1;
                        }
                        Err(_) => set_aside += 1,
                    }
                }
            }
        }
        let live: usize = model.mailboxes.values().map(|it| it.live.len()).sum();
        assert!(
            known >= live || !store.damage().is_empty(),
            "flip {flip} at {at} of {name}: {known} of {live}, and nobody noticed"
        );
    }
    assert!(set_aside > 0 && whole > 0, "{refused} refused, {set_aside} set aside, {whole} whole");
}

#[test]
fn damaged_record_is_set_aside_and_its_neighbours_are_whole() {
    for homed in [false, true] {
        let memory = Memory::default();
        let directory = || Arc::new(memory.clone());
        let (mut store, _) = Store::open_in(directory(), &[&RAW], options()).unwrap();
        let writes: Vec<Write> = std::iter::once(define(1))
            .chain((1..=20).map(|seq| append(1, seq, &body(seq, 300))))
            .collect();
        store.commit(&writes, Time(1)).unwrap();
        if homed {
            store.close().unwrap();
        } else {
            drop(store);
        }
        let name = if homed { "home.redb" } else { "journal.redb" };
        let mut bytes = memory.bytes(name).unwrap();
        let needle = Body { seed: 7, len: 300 }.bytes();
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(300).position(|it| it == needle) {
            bytes[at + found + 100] ^= 4;
            at += found + 300;
        }
        memory.put(name, bytes);
        let report = check_in(&memory, &[&RAW], |_, _| {}).unwrap();
        assert_eq!(report.damaged.len(), 1, "{report:?}");
        assert_eq!(report.damaged[0].seq, Seq(7));

        let (mut store, _) = Store::open_in(directory(), &[&RAW], options()).unwrap();
        let fetch = Fetch { mailbox: MailboxId(1), lane: 0, ranges: vec![(Seq(1), 20)] };
        let found = store.reader().fetch(&fetch).unwrap();
        let bad: Vec<u64> =
            found.iter().filter(|it| it.message.is_err()).map(|it| it.seq.0).collect();
        assert_eq!(bad, vec![7]);
        let quarantine = Write::Quarantine {
            mailbox: MailboxId(1),
            seq: Seq(7),
            reason: "the body does not match its checksum".into(),
        };
        store.commit(&[quarantine], Time(2)).unwrap();
        store.close().unwrap();
        let report = check_in(&memory, &[&RAW], |_, _| {}).unwrap();
        assert_eq!((report.messages, report.damaged.len()), (19, 0));
        assert_eq!(report.quarantine.len(), 1);
        assert_eq!(report.quarantine[0].reason, "the body does not match its checksum");
    }
}

#[test]
fn check_changes_nothing() {
    let memory = Memory::default();
    let (model, _) = filled(&memory, false);
    let before = (memory.bytes("journal.redb"), memory.bytes("home.redb"));
    let report = check_in(&memory, &[&RAW], |_, _| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let live: usize = model.mailboxes.values().map(|it| it.live.len()).sum();
    assert_eq!(report.messages, live as u64);
    assert!((memory.bytes("journal.redb"), memory.bytes("home.redb")) == before);
}

#[test]
fn full_disk_is_told_apart_and_the_commit_can_come_again() {
    let disk = FaultyDisk::default();
    let (mut store, _) = Store::open_in(Arc::new(disk.clone()), &[&RAW], options()).unwrap();
    let mut model = Model::default();
    let mut commit = |store: &mut Store, writes: &[Write]| {
        let done = store.commit(writes, Time(1));
        if done.is_ok() {
            model.apply(writes);
        }
        done
    };
    commit(&mut store, &[define(1)]).unwrap();
    disk.fill_at(3 << 20);
    let mut seq = 0;
    let full = loop {
        let writes: Vec<Write> =
            (1..=20).map(|at| append(1, seq + at, &body(seq + at, 5_000))).collect();
        match commit(&mut store, &writes) {
            Ok(()) => seq += 20,
            Err(error) => break (error, writes),
        }
        assert!(seq < 10_000, "the disk never fills");
    };
    assert!(matches!(full.0, StoreError::DiskFull), "{}", full.0);
    assert!(matches!(commit(&mut store, &full.1), Err(StoreError::Dead)));
    // The reserve that is given up lets settling go on, which frees more than it takes.
    disk.fill_at(9 << 20);
    store.reopen().unwrap();
    commit(&mut store, &[remove(1, 1, (seq / 2) as u32)]).unwrap();
    disk.fill_at(0);
    if let Err(error) = commit(&mut store, &full.1) {
        assert!(matches!(error, StoreError::DiskFull), "{error}");
        store.reopen().unwrap();
        commit(&mut store, &full.1).unwrap();
    }
    model.compare_bodies(&store.reader()).unwrap();
    drop(store);
    let (store, recovered) = Store::open_in(Arc::new(disk), &[&RAW], options()).unwrap();
    model.compare(&recovered).unwrap();
    model.compare_bodies(&store.reader()).unwrap();
}

/// Appends and homes until the disk is full; returns the last position that is stored.
fn fill(disk: &FaultyDisk, store: &mut Store, home: bool) -> u64 {
    store.commit(&[define(1)], Time(1)).unwrap();
    disk.fill_at(3 << 20);
    for seq in (1..).step_by(20) {
        let writes: Vec<Write> =
            (seq..seq + 20).map(|at| append(1, at, &body(at, 5_000))).collect();
        let full = match store.commit(&writes, Time(1)) {
            Ok(()) if !home => continue,
            Ok(()) => match store.home() {
                Ok(()) => continue,
                Err(error) => (seq + 19, error),
            },
            Err(error) => (seq - 1, error),
        };
        assert!(matches!(full.1, StoreError::DiskFull), "{}", full.1);
        return full.0;
    }
    unreachable!("the disk never fills")
}

/// One message in fifty stays much longer than the others: what it keeps alive is rewritten, and the pages used again.
fn stragglers(mailboxes: u64) {
    let options = Options { hard_cap: 64 << 20, ..options() };
    let memory = Memory::default();
    let open = || Store::open_in(Arc::new(memory.clone()), &[&RAW], options.clone()).unwrap().0;
    let mut store = open();
    let defined: Vec<Write> = (1..=mailboxes).map(define).collect();
    store.commit(&defined, Time(0)).unwrap();
    let (batch, late) = (500, 50 * 500);
    for round in 0..120 {
        let mut writes = Vec::new();
        for seq in 1 + round * batch..=(round + 1) * batch {
            let message = body(seq, 1_000);
            writes.extend((1..=mailboxes).map(|mailbox| append(mailbox, seq, &message)));
            let old = seq.saturating_sub(batch);
            if old > 0 {
                let stays = u64::from(old.is_multiple_of(50));
                writes.extend((1 + stays..=mailboxes).map(|mailbox| remove(mailbox, old, 1)));
            }
            let old = seq.saturating_sub(late);
            if old > 0 && old.is_multiple_of(50) {
                writes.push(remove(1, old, 1));
            }
        }
        store.commit(&writes, Time(round)).unwrap();
        store.home().unwrap();
        if round == 60 {
            drop(store);
            store = open();
        }
    }
    let stats = store.stats();
    let live = batch + (late - batch) / 50;
    assert_eq!(stats.messages, live + (mailboxes - 1) * batch);
    assert!(stats.home_bytes < 3 * live * 1_000 + (4 << 20), "home has {} bytes", stats.home_bytes);
    let last = 120 * batch;
    let lives = |seq: &u64| last - seq < if seq.is_multiple_of(50) { late } else { batch };
    let ranges = (1..=last).filter(lives).map(|seq| (Seq(seq), 1)).collect();
    let found = store.reader().fetch(&Fetch { mailbox: MailboxId(1), lane: 0, ranges }).unwrap();
    assert_eq!(found.len() as u64, live);
    for it in found {
        assert_eq!(it.message.unwrap().body(), Body { seed: it.seq.0, len: 1_000 }.bytes());
    }
}

#[test]
fn stragglers_do_not_keep_the_files_long() {
    stragglers(1);
}

#[test]
fn stragglers_do_not_keep_bodies_that_were_shared() {
    stragglers(3);
}

/// A full disk makes redb's handle useless, and with it every message behind it, none of which is damaged.
#[test]
fn messages_behind_a_failed_write_are_out_of_reach_and_not_damaged() {
    // Before the commit fails, or the homing before any commit notices.
    for home in [false, true] {
        let options = Options { hard_cap: 64 << 20, journal_cache: 0, home_cache: 0, ..options() };
        let disk = FaultyDisk::default();
        let (mut store, _) = Store::open_in(Arc::new(disk.clone()), &[&RAW], options).unwrap();
        let last = fill(&disk, &mut store, home);
        let reader = store.reader();
        let all = Fetch { mailbox: MailboxId(1), lane: 0, ranges: vec![(Seq(1), last as u32)] };
        let out = reader.fetch(&all).expect_err("the handle is dead");
        assert!(matches!(out.error, StoreError::Dead), "{}", out.error);
        disk.fill_at(0);
        let waiting = {
            let (reader, opened) = (reader.clone(), out.opened);
            std::thread::spawn(move || reader.wait(opened))
        };
        store.mend(out.opened).unwrap();
        assert!(waiting.join().unwrap(), "the files are back");
        let found = reader.fetch(&all).unwrap();
        assert_eq!(found.len() as u64, last);
        for it in found {
            assert_eq!(it.message.unwrap().body(), Body { seed: it.seq.0, len: 5_000 }.bytes());
        }
        store.mend(out.opened).unwrap();
        assert!(reader.wait(out.opened), "nothing was opened again without need");
        store.close().unwrap();
        let closed = reader.fetch(&all).expect_err("the store is closed");
        assert!(!reader.wait(closed.opened));
    }
}

/// A full disk ended the home thread, and everything is settled: nothing but the thread itself makes room again.
#[test]
fn homing_goes_on_after_a_full_disk() {
    let options = Options { hard_cap: 64 << 20, background: true, ..options() };
    let disk = FaultyDisk::default();
    let (mut store, _) = Store::open_in(Arc::new(disk.clone()), &[&RAW], options.clone()).unwrap();
    store.commit(&[define(1)], Time(1)).unwrap();
    assert!(!store.revive().unwrap(), "the thread is there");
    disk.fill_at(3 << 20);
    let mut seq = 0;
    while !store.homing_failed() {
        let writes: Vec<Write> =
            (1..=2).map(|at| append(1, seq + at, &body(seq + at, 5_000))).collect();
        match store.commit(&writes, Time(1)) {
            Ok(()) => seq += 2,
            // The journal was full before home.
            Err(StoreError::DiskFull) => store.reopen().unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
    disk.fill_at(0);
    assert!(store.revive().unwrap(), "it had ended");
    store.commit(&[remove(1, 1, seq as u32)], Time(2)).unwrap();
    while store.stats().unhomed_bytes > 0 {
        std::thread::yield_now();
    }
    store.close().unwrap();
    let (store, recovered) = Store::open_in(Arc::new(disk), &[&RAW], options).unwrap();
    assert!(recovered.clean, "the thread was known to the store that closed");
    assert!(recovered.mailboxes[0].messages.is_empty());
    drop(store);
}

#[test]
fn failed_sync_confirms_nothing() {
    let disk = FaultyDisk::default();
    let (mut store, _) = Store::open_in(Arc::new(disk.clone()), &[&RAW], options()).unwrap();
    store.commit(&[define(1), append(1, 1, &body(1, 10))], Time(1)).unwrap();
    disk.fail_syncs(true);
    let failed = store.commit(&[append(1, 2, &body(2, 10))], Time(2));
    assert!(matches!(failed, Err(StoreError::Io(_))), "{failed:?}");
    assert!(matches!(store.commit(&[remove(1, 1, 1)], Time(3)), Err(StoreError::Dead)));
    disk.fail_syncs(false);
    drop(store);
    let (_, recovered) = Store::open_in(Arc::new(disk), &[&RAW], options()).unwrap();
    let count: u32 = recovered.mailboxes[0].messages.iter().map(|run| run.count).sum();
    assert!((1..=2).contains(&count), "the first message is there, the second may be");
}

#[test]
fn second_broker_is_refused() {
    let place = std::env::temp_dir().join(format!("pillarbox-lock-{}", std::process::id()));
    let (store, _) = Store::open(&place, &[&RAW], options()).unwrap();
    let second = Store::open(&place, &[&RAW], options());
    assert!(matches!(&second, Err(StoreError::Locked(path)) if path.contains("pillarbox-lock")));
    assert!(matches!(check(&place, &[&RAW], |_, _| {}), Err(StoreError::Locked(_))));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode =
            |name: &str| std::fs::metadata(place.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("journal.redb"), mode("home.redb")), (0o700, 0o600, 0o600));
    }
    store.close().unwrap();
    let (before, after) = compact(&place, &[&RAW]).unwrap();
    assert!(after <= before);
    Store::open(&place, &[&RAW], options()).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
}

#[test]
fn space_is_used_again_and_given_back() {
    let memory = Memory::default();
    let directory = || Arc::new(memory.clone());
    let (mut store, _) = Store::open_in(directory(), &[&RAW], options()).unwrap();
    store.commit(&[define(1)], Time(0)).unwrap();
    let mut model = Model::default();
    model.apply(&[define(1)]);
    // 400 messages of 10,000 bytes stay; 4,000 pass.
    let mut highest = 0;
    for round in 0..110_u64 {
        let mut writes: Vec<Write> =
            (1..=40).map(|at| append(1, round * 40 + at, &body(round * 40 + at, 10_000))).collect();
        if round >= 10 {
            writes.push(remove(1, (round - 10) * 40 + 1, 40));
        }
        store.commit(&writes, Time(round)).unwrap();
        model.apply(&writes);
        highest = highest.max(store.stats().home_bytes);
    }
    assert!(highest <= 3 * 4_000_000 + (8 << 20), "{highest}");
    store.home().unwrap();
    let full = store.reader().home_used_max();
    assert!(full >= 4_000_000, "{full}");
    store.commit(&[remove(1, 1, 4_390)], Time(200)).unwrap();
    model.apply(&[remove(1, 1, 4_390)]);
    store.home().unwrap();
    let rest = store.reader().home_used_max();
    assert!(rest <= 512 << 10, "what is free in the file counts as room: {rest}");
    store.close().unwrap();
    let (before, after) = compact_in(directory(), &[&RAW]).unwrap();
    assert!(after < before / 2, "{before} to {after}");
    model.restart();
    let (store, recovered) = Store::open_in(directory(), &[&RAW], options()).unwrap();
    assert!(recovered.clean);
    model.compare(&recovered).unwrap();
    model.compare_bodies(&store.reader()).unwrap();
}

/// Readers find every live message while it moves from the journal to home and from chunk to chunk.
#[test]
fn readers_keep_up_with_moving_messages() {
    let options = Options { background: true, ..options() };
    let directory = Arc::new(Memory::default());
    let (mut store, _) = Store::open_in(directory, &[&RAW], options).unwrap();
    store.commit(&[define(1)], Time(0)).unwrap();
    // Live: everything from `low` to below `high`, but for every third below `thin`.
    let (low, high) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(1)));
    let reader = store.reader();
    let reading = {
        let (low, high) = (Arc::clone(&low), Arc::clone(&high));
        std::thread::spawn(move || {
            let mut random = Random::new(3);
            let mut read = 0_u64;
            while high.load(Ordering::SeqCst) < u64::MAX {
                let (from, to) = (low.load(Ordering::SeqCst), high.load(Ordering::SeqCst));
                if to == u64::MAX || to <= from + 1 {
                    continue;
                }
                let first = from + random.below(to - from);
                let count = (1 + random.below(50)).min(to - first);
                let ranges = vec![(Seq(first), count as u32)];
                let found =
                    reader.fetch(&Fetch { mailbox: MailboxId(1), lane: 0, ranges }).unwrap();
                let still = low.load(Ordering::SeqCst);
                for it in found.iter().filter(|it| it.seq.0 >= still && it.seq.0 % 3 != 0) {
                    let message = it.message.as_ref().expect("a live message is found");
                    assert_eq!(message.body(), Body { seed: it.seq.0, len: 700 }.bytes());
                    read += 1;
                }
            }
            read
        })
    };
    for round in 0..300_u64 {
        let first = 1 + round * 30;
        let mut writes: Vec<Write> =
            (first..first + 30).map(|seq| append(1, seq, &body(seq, 700))).collect();
        if round >= 40 {
            // Every third goes early, the rest later: chunks become sparse first.
            let early = 1 + (round - 40) * 30;
            writes.extend(
                (early..early + 30).filter(|it| it.is_multiple_of(3)).map(|it| remove(1, it, 1)),
            );
        }
        if round >= 100 {
            let late = 1 + (round - 100) * 30;
            low.store(late + 30, Ordering::SeqCst);
            writes.push(remove(1, late, 30));
        }
        store.commit(&writes, Time(round)).unwrap();
        high.store(first + 30, Ordering::SeqCst);
    }
    high.store(u64::MAX, Ordering::SeqCst);
    assert!(reading.join().unwrap() > 0);
    assert!(store.stats().home_rounds > 10);
    store.close().unwrap();
}

//! Streams on the real store: a broker, a store and a reader of it, without sockets.

#[path = "streams/house.rs"]
mod house;

use pillarbox::broker::*;
use pillarbox::store::Memory;

use house::House;

#[test]
fn stream_is_read_back_from_the_store_whole_and_with_its_times() {
    let directory = Memory::default();
    let mut house = House::open(&directory);
    house.declare("s", &[]);
    let start = house.now;
    for n in 0..5_000_u32 {
        house.now = start.plus_ms(u64::from(n) * 10);
        house.publish("s", n, 300);
        if n % 50 == 0 {
            house.commit();
        }
        if n == 3_000 {
            house.home();
        }
    }
    house.commit();
    for round in 0..3 {
        let read = house.read("s", Value::text("first"));
        assert!(read.iter().copied().eq((0..5_000).map(|n| (n, u64::from(n)))), "round {round}");
        let read = house.read("s", Value::Timestamp(start.0 / 1000 + 17));
        let first = read.first().copied().unwrap();
        let exact = start.plus_ms(first.1 * 10);
        assert!(
            exact.0 >= (start.0 / 1000 + 17) * 1000 && exact.0 < (start.0 / 1000 + 17) * 1000 + 10
        );
        assert_eq!(house.read("s", Value::I64(4_998)), [(4_998, 4_998), (4_999, 4_999)]);
        house = match round {
            0 => house.kill(&directory),
            _ => house.restart(&directory),
        };
    }
}

#[test]
fn trimmed_messages_leave_the_store_also_over_a_restart() {
    let directory = Memory::default();
    let mut house = House::open(&directory);
    house.declare("s", &[("x-max-length", Value::I64(1_000))]);
    for n in 0..3_000 {
        house.publish("s", n, 300);
        if n % 100 == 0 {
            house.commit();
        }
        if n == 1_500 {
            house.home();
        }
    }
    house.commit();
    let read = house.read("s", Value::text("first"));
    let first = read[0].0;
    assert!((2_000..2_100).contains(&first), "{first}");
    assert_eq!(read.len() as u64, house.messages());
    house = house.kill(&directory);
    assert_eq!(house.read("s", Value::text("first")), read);
    // Positions go on where they were.
    house.publish("s", 3_000, 10);
    house.commit();
    assert_eq!(house.read("s", Value::text("last")), [(3_000, 3_000)]);
}

#[test]
fn cursor_survives_a_kill() {
    let directory = Memory::default();
    let mut house = House::open(&directory);
    house.declare("s", &[]);
    for n in 0..100 {
        house.publish("s", n, 10);
    }
    house.commit();
    let tracked = ("x-stream-automatic-offset-tracking", Value::Bool(true));
    let first = ("x-stream-offset", Value::text("first"));
    let arguments = [first, tracked];
    assert_eq!(house.read_some("s", "billing", &arguments, 40).len(), 40);
    house.commit();
    house = house.kill(&directory);
    assert_eq!(house.read_some("s", "billing", &arguments, 5)[0], (40, 40));
    // Of another name, however alike.
    assert_eq!(house.read_some("s", "billing1", &arguments, 5)[0], (0, 0));
    house.delete("s");
    house.commit();
    house = house.kill(&directory);
    house.declare("s", &[]);
    house.publish("s", 7, 10);
    house.commit();
    assert_eq!(house.read_some("s", "billing", &arguments, 5), [(7, 0)]);
}

#[test]
fn group_knows_after_a_kill_what_is_done_and_what_is_not() {
    let directory = Memory::default();
    let mut house = House::open(&directory);
    house.declare("s", &[]);
    for n in 0..5_000 {
        house.publish("s", n, 300);
    }
    house.commit();
    house.home();
    let arguments =
        [("x-stream-offset", Value::text("first")), ("x-group", Value::text("billing"))];
    // A hundred are handed out at a time; of the last hundred 80 are settled.
    assert_eq!(house.read_some("s", "", &arguments, 2_080).len(), 2_080);
    house.now = house.now.plus_ms(1_001);
    house.tick();
    house.commit();
    house = house.kill(&directory);
    let read = house.read_some("s", "", &arguments, usize::MAX);
    assert!(read.iter().map(|(n, _)| *n).eq(2_080..5_000), "{:?}", read.first());
    house = house.restart(&directory);
    assert_eq!(house.read_some("s", "", &arguments, 1), []);
    house.publish("s", 5_000, 10);
    house.commit();
    assert_eq!(house.read_some("s", "", &arguments, 1), [(5_000, 5_000)]);
}

#[test]
fn keys_and_their_values_survive_a_kill_and_space_comes_back() {
    let directory = Memory::default();
    let mut house = House::open(&directory);
    house.declare("k", &[("x-queue-type", Value::text("kv"))]);
    for n in 0..4_000 {
        house.put("k", &format!("key{}", n % 100), n);
        if n % 100 == 0 {
            house.commit();
        }
        if n % 1_000 == 0 {
            house.home();
        }
    }
    house.commit();
    house = house.kill(&directory);
    assert_eq!(house.messages(), 100);
    let get = |house: &mut House, key: &str| {
        let arguments = [("x-key", Value::text(key)), ("x-stream-until", Value::text("last"))];
        house.read_some("k", "", &arguments, 5)
    };
    assert_eq!(get(&mut house, "key1"), [(3_901, 3_901)]);
    assert_eq!(get(&mut house, "key10"), [(3_910, 3_910)]);
    assert_eq!(get(&mut house, "key"), []);
    let newest: Vec<(u32, u64)> = (3_900..4_000).map(|n| (n, u64::from(n))).collect();
    assert_eq!(house.read("k", Value::text("first")), newest);
    house.put("k", "key1", 4_000);
    house.commit();
    house = house.restart(&directory);
    assert_eq!(get(&mut house, "key1"), [(4_000, 4_000)]);
    assert_eq!(house.messages(), 100);
}

//! Declaring, binding, listing and defining.

use bytes::Buf;
use pillarbox::broker::{NEUTRAL, Table, Value};
use pillarbox_native::{
    Bind, DeclareExchange, DeclareMailbox, Define, DeleteExchange, DeleteMailbox, FLAG_MORE, Kind,
    List, Undefine, encode_purge,
};

use rstest::rstest;

use crate::house::{House, push};

/// As headers of a message, and nothing else, have it.
fn table(bytes: &[u8]) -> Table {
    (NEUTRAL.decode)(&[&(1u16 << 10).to_le_bytes()[..], bytes].concat()).headers.unwrap()
}

#[test]
fn deleting_and_purging_say_how_many() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "jobs");
    house.push(client, 0, "jobs", &["one", "two"]);
    house.say(client, |out| encode_purge(3, "jobs", out));
    house.push(client, 0, "jobs", &["three"]);
    let delete = DeleteMailbox { name: "jobs", if_unused: false, if_empty: false };
    house.say(client, |out| delete.encode(4, out));
    let heard = house.heard_raw(client);
    let counts: Vec<_> = heard.iter().map(|it| (it.id, (&it.payload[..]).get_u64_le())).collect();
    assert_eq!(counts, [(3, 2), (4, 1)]);
    house.say(client, |out| delete.encode(5, out));
    house.say(client, |out| encode_purge(6, "jobs", out));
    house.say(client, |out| DeleteExchange { name: "none", if_unused: false }.encode(7, out));
    assert_eq!(house.heard(client), ["Refused 5 404", "Refused 6 404", "Refused 7 404"]);
}

#[test]
fn a_private_mailbox_gets_a_name_and_goes_with_its_connection() {
    let mut house = House::new();
    let (client, other) = (house.client(), house.client());
    let declare = DeclareMailbox { exclusive: true, ..DeclareMailbox::default() };
    house.say(client, |out| declare.encode(3, out));
    let heard = house.heard_raw(client);
    let payload = &heard[0].payload;
    let name = std::str::from_utf8(&payload[1..=usize::from(payload[0])]).unwrap();
    assert!(name.starts_with("gen-"), "{name}");
    house.push(other, 4, name, &["one"]);
    house.lose(client);
    house.push(other, 5, name, &["two"]);
    assert_eq!(house.heard(other), ["Pushed 4 1", "Pushed 5 0 0:404"]);
}

#[test]
fn messages_follow_bindings() {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "errors");
    let exchange = DeclareExchange {
        name: "logs",
        kind: "topic",
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: &[],
    };
    let bind = Bind {
        source: "logs",
        destination: "errors",
        to_exchange: false,
        key: b"*.error",
        arguments: &[],
    };
    house.say(client, |out| {
        exchange.encode(3, out);
        bind.encode(Kind::Bind, 4, out);
        push(5, 1, "logs", "app.error", &["one"], out);
        bind.encode(Kind::Unbind, 6, out);
        push(7, 1, "logs", "app.error", &["two"], out);
    });
    assert_eq!(
        house.heard(client),
        ["Done 3", "Done 4", "Pushed 5 1", "Done 6", "Pushed 7 0 0:404"]
    );
}

#[test]
fn a_list_goes_on_after_its_last_row() {
    let mut house = House::new();
    let client = house.client();
    for name in ["a", "b", "c"] {
        house.declare(client, name);
    }
    let mut list = List { what: List::MAILBOXES, vhost: "", name: "", after: b"", count: 2 };
    house.say(client, |out| list.encode(3, out));
    list.after = b"b";
    house.say(client, |out| list.encode(4, out));
    let heard = house.heard_raw(client);
    let slices: Vec<_> =
        heard.iter().map(|it| ((&it.payload[..]).get_u32_le(), it.flags & FLAG_MORE)).collect();
    assert_eq!(slices, [(2, FLAG_MORE), (1, 0)]);
}

/// One row at a time, by the cursors of the rows.
#[rstest]
#[case::exchanges(List::EXCHANGES, 7)]
#[case::bindings(List::BINDINGS, 3)]
#[case::users(List::USERS, 1)]
#[case::permissions(List::PERMISSIONS, 1)]
#[case::virtual_hosts(List::VHOSTS, 1)]
fn a_cursor_leads_to_the_next_row(#[case] what: u8, #[case] expected: usize) {
    let mut house = House::new();
    let client = house.client();
    house.declare(client, "a");
    for key in [&b"1"[..], b"2", b"3"] {
        let source = "amq.direct";
        let bind = Bind { source, destination: "a", to_exchange: false, key, arguments: &[] };
        house.say(client, |out| bind.encode(Kind::Bind, 3, out));
    }
    house.heard(client);
    let (mut after, mut seen) = (Vec::new(), Vec::new());
    loop {
        let list = List { what, vhost: "", name: "", after: &after, count: 1 };
        house.say(client, |out| list.encode(4, out));
        let heard = house.heard_raw(client);
        let mut payload = &heard[0].payload[..];
        if payload.get_u32_le() == 0 {
            break;
        }
        let size = payload.get_u32_le() as usize;
        let row = table(&payload[..size]);
        after = row.get("cursor").and_then(Value::as_str).unwrap().as_bytes().to_vec();
        assert!(!seen.contains(&row), "it comes again");
        seen.push(row);
    }
    assert_eq!(seen.len(), expected);
}

#[test]
fn a_definition_that_misses_something_is_refused() {
    let mut house = House::new();
    let client = house.client();
    house.say(client, |out| Define { what: Define::USER, fields: &[0, 0, 0, 0] }.encode(3, out));
    house.say(client, |out| Define { what: 200, fields: &[] }.encode(4, out));
    house.say(client, |out| Undefine { what: Define::USER, path: vec![] }.encode(5, out));
    house.say(client, |out| Undefine { what: Define::USER, path: vec!["x"] }.encode(6, out));
    assert_eq!(house.heard(client), ["Refused 3 400", "Refused 4 400", "Refused 5 400", "Done 6"]);
}

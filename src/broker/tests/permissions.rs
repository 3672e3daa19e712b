//! Each operation against configure, write and read patterns, by an oracle that is a table.

use super::house::*;
use super::request::*;
use crate::broker::*;

/// What an operation needs: an action on a name. The mailbox is `q`, exchanges are `x`, `y` and `t`.
type Need = (Action, &'static str);

use Action::{Configure as C, Read as R, Write as W};

fn operations() -> Vec<(&'static str, Request, Vec<Need>)> {
    let to_exchange =
        || BindingOf { destination: Destination::Exchange("y".into()), ..binding("x", "", "k") };
    let alternate = [("alternate-exchange", text("y"))];
    let dead = [("x-dead-letter-exchange", text("y"))];
    vec![
        ("declare exchange", exchange("x", "direct", &[]), vec![(C, "x")]),
        (
            "declare exchange with alternate",
            exchange("new", "direct", &alternate),
            vec![(C, "new"), (R, "new"), (W, "y")],
        ),
        (
            "delete exchange",
            Request::DeleteExchange { name: "x".into(), if_unused: false },
            vec![(C, "x")],
        ),
        ("declare mailbox", mailbox("q", &[]), vec![(C, "q")]),
        (
            "declare mailbox with dead letters",
            mailbox("new", &dead),
            vec![(C, "new"), (R, "new"), (W, "y")],
        ),
        ("delete mailbox", delete("q"), vec![(C, "q")]),
        ("purge", purge("q"), vec![(R, "q")]),
        ("bind", Request::Bind(binding("x", "q", "k")), vec![(W, "q"), (R, "x")]),
        ("unbind", Request::Unbind(binding("x", "q", "k")), vec![(W, "q"), (R, "x")]),
        ("bind exchange", Request::Bind(to_exchange()), vec![(W, "y"), (R, "x")]),
        ("unbind exchange", Request::Unbind(to_exchange()), vec![(W, "y"), (R, "x")]),
        ("consume", Request::Consume(consume("q", 1)), vec![(R, "q")]),
        ("get", Request::Get { mailbox: "q".into(), no_ack: true }, vec![(R, "q")]),
        ("recover", Request::Recover, vec![]),
        ("cancel", Request::Cancel(ConsumerId(9)), vec![]),
        ("qos", Request::Qos { limit: 1, scope: QosScope::Channel }, vec![]),
    ]
}

fn house_with(configure: &str, write: &str, read: &str) -> (House, ConnectionId) {
    let mut house = House::new();
    let c = house.connect();
    house.declare(c, "q");
    for (name, kind) in [("x", "direct"), ("y", "fanout"), ("t", "topic")] {
        house.exchange(c, name, kind);
    }
    house.user("ann", [configure, write, read]);
    let ann = house.connect_as("ann", "/", false);
    (house, ann)
}

/// The patterns tried, and what each lets through.
const PATTERNS: [(&str, &[&str]); 5] = [
    (".*", &["q", "x", "y", "t", "new", "amq.default"]),
    ("", &[]),
    ("nothing", &[]),
    ("^(q|x)$", &["q", "x"]),
    ("^y|^new", &["y", "new"]),
];

fn grants(pattern: usize, name: &str) -> bool {
    PATTERNS[pattern].1.contains(&name)
}

#[test]
fn every_operation_needs_exactly_its_permissions() {
    for configure in 0..PATTERNS.len() {
        for write in 0..PATTERNS.len() {
            for read in 0..PATTERNS.len() {
                let patterns = [configure, write, read].map(|at| PATTERNS[at].0);
                for (name, request, needs) in operations() {
                    let (mut house, ann) = house_with(patterns[0], patterns[1], patterns[2]);
                    let missing = needs.iter().find(|(action, name)| {
                        let pattern = match action {
                            C => configure,
                            W => write,
                            R => read,
                        };
                        !grants(pattern, name)
                    });
                    let told = house.ask(ann, request).map_err(|refusal| refusal.to_string());
                    match missing {
                        None => assert!(told.is_ok(), "{name} {patterns:?}: {told:?}"),
                        Some((action, what)) => {
                            let text = format!("{action} access to ");
                            let told = told.expect_err(name);
                            assert!(told.starts_with(&text), "{name} {patterns:?}: {told}");
                            let what = format!("'{what}' in vhost '/' refused for user 'ann'");
                            assert!(told.ends_with(&what), "{name} {patterns:?}: {told}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn publishing_needs_write_on_the_exchange() {
    for (pattern, (text, _)) in PATTERNS.iter().enumerate() {
        for (exchange, known_as) in [("x", "x"), ("y", "y"), ("", "amq.default")] {
            let (mut house, ann) = house_with("", text, "");
            house.publish(ann, Post::by(exchange, "q", "1").confirm(1));
            let told = house.told(ann);
            if grants(pattern, known_as) {
                assert_eq!(told, ["confirmed 1"]);
            } else {
                let name = known_as;
                let text = format!(
                    "no: write access to exchange '{name}' in vhost '/' refused for user 'ann'"
                );
                assert_eq!(told, [text]);
            }
        }
    }
}

#[test]
fn asking_whether_something_exists_needs_any_permission() {
    for patterns in [["^q$", "", ""], ["", "^q$", ""], ["", "", "^q$"], ["", "", ""]] {
        let [configure, write, read] = patterns;
        let (mut house, ann) = house_with(configure, write, read);
        let mut wanted = declare("q", &[]);
        wanted.passive = true;
        let told = house.ask(ann, Request::DeclareMailbox(wanted));
        let sees = patterns.contains(&"^q$");
        assert_eq!(told.is_ok(), sees);
        if !sees {
            assert_eq!(told.unwrap_err().to_string(), "no queue 'q' in vhost '/'");
        }
        let Request::DeclareExchange(mut wanted) = exchange("x", "", &[]) else { unreachable!() };
        wanted.passive = true;
        let told = house.refused(ann, Request::DeclareExchange(wanted));
        assert_eq!(told, "no exchange 'x' in vhost '/'");
    }
}

#[test]
fn topic_permissions_test_every_key() {
    let (mut house, ann) = house_with(".*", ".*", ".*");
    house.define(Definition::TopicPermission(TopicPermissionDefinition {
        vhost: "/".into(),
        user: "ann".into(),
        exchange: "t".into(),
        write: "^{username}-".into(),
        read: "^news".into(),
    }));
    house.publish(ann, Post::by("t", "ann-x", "1").confirm(1));
    house.publish(ann, Post::by("t", "bob-x", "2").confirm(2));
    house.publish(ann, Post::by("t", "ann-x", "3").cc(&["bob-y"]).confirm(3));
    let refused = |key| {
        format!(
            "no: write access to topic '{key}' in exchange 't' in vhost '/' refused for user 'ann'"
        )
    };
    let told = house.told(ann);
    assert_eq!(told, ["confirmed 1".into(), refused("bob-x"), refused("bob-y")]);
    house.ask(ann, Request::Bind(binding("t", "q", "news.#"))).unwrap();
    let told = house.refused(ann, Request::Bind(binding("t", "q", "#")));
    assert_eq!(
        told,
        "read access to topic '#' in exchange 't' in vhost '/' refused for user 'ann'"
    );
}

#[test]
fn taken_permission_is_felt_at_the_next_message() {
    let (mut house, ann) = house_with("", ".*", "");
    house.publish(ann, Post::to("q", "1").confirm(1));
    house.publish(ann, Post::to("q", "2").confirm(2));
    let path = vec!["/".into(), "ann".into()];
    let key = DefinitionKey { kind: DefinitionKind::Permission, path };
    house.ask(SERVER, Request::Undefine(key)).unwrap();
    house.publish(ann, Post::to("q", "3").confirm(3));
    let told = house.told(ann);
    assert_eq!(told[..2], ["confirmed 1", "confirmed 2"]);
    assert!(told[2].starts_with("no: write access"), "{told:?}");
    assert_eq!(house.ready("q"), 2);
}

#[test]
fn consumer_ends_with_the_right_to_read() {
    let (mut house, ann) = house_with("", ".*", ".*");
    let guest = house.connect();
    house.declare(guest, "r");
    for (mailbox, consumer) in [("q", 1), ("r", 2)] {
        house.consume(ann, mailbox, consumer);
    }
    house.put(guest, "q", &["1"]);
    let held = house.seen(ann).pop().unwrap();
    house.consume(guest, "q", 1);
    house.define(Definition::Permission(PermissionDefinition {
        vhost: "/".into(),
        user: "ann".into(),
        configure: String::new(),
        write: ".*".into(),
        read: "^r$".into(),
    }));
    assert_eq!(house.told(ann), ["cancelled 1"]);
    assert!(house.told(guest).is_empty());
    house.put(guest, "q", &["2", "3"]);
    house.put(guest, "r", &["4"]);
    assert_eq!(house.bodies(guest), ["2", "3"]);
    assert_eq!(house.by_consumer(ann), [(2, "4".to_owned())]);
    // What was delivered before is still theirs to settle.
    house.settle(ann, &held, Outcome::Accepted);
    assert!(house.told(ann).is_empty());

    let path = vec!["/".into(), "ann".into()];
    let key = DefinitionKey { kind: DefinitionKind::Permission, path };
    house.ask(SERVER, Request::Undefine(key)).unwrap();
    assert_eq!(house.told(ann), ["cancelled 2"]);
    assert!(house.told(guest).is_empty());
    house.check_books();
}

#[test]
fn reply_needs_write_on_the_default_exchange() {
    let (mut house, ann) = house_with("", "^x$", "");
    let asker = house.connect();
    let address: Name = "amq.rabbitmq.reply-to.abc".into();
    let request = Request::ConsumeReplies { consumer: ConsumerId(1), address: address.clone() };
    house.ask(asker, request).unwrap();
    house.publish(ann, Post::to(&address, "1"));
    assert!(house.told(ann)[0].contains("'amq.default'"));
    assert!(house.seen(asker).is_empty());
}
